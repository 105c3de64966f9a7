//! What somebody with a key, and without scruples, can store: packs, trees and records that say
//! anything, sealed and signed as the format asks, so that what refuses them is what they say.

use esker::crypto::credential::SIGNATURE_ALGORITHM;
use esker::crypto::ident::ChunkKind;
use esker::crypto::key::SecretKey;
use esker::crypto::seal;
use esker::format::cbor::{self, Extra, Record};
use esker::format::pack::{ChunkEntry, Directory, Frame, FrameKind, Trailer, directory_aad, frame_aad};
use esker::format::record::{RecordKind, SealedRecord, Signed, push_digest, sealed_aad, signed_message};
use esker::format::segment::{Origin, PackEntry, Segment};
use esker::format::session::{Commit, CommitKind, Snapshot, Summary};
use esker::format::tree::{Attributes, Content, Detail, DirectoryNode, Entry, Piece, Totals};
use esker::id::{ChunkId, ObjectId, PackId, SessionId};
use esker::path::Name;
use esker::repo::Repository;
use esker::repo::session::pack_name;
use esker::storage::WriteMode;
use esker::world::Time;

/// The stored bytes of a record by this repository's credential; `name` is empty where its hash is its name.
pub(crate) fn sealed_record(repo: &Repository, kind: RecordKind, name: &str, body: &[u8]) -> Vec<u8> {
    let epoch = repo.keys.current_epoch();
    let message = signed_message(&repo.config.repo, kind, name, &epoch.id, body);
    let signature = repo.keys.credential.sign(&message);
    let credential = repo.keys.credential.id();
    let text = Signed { credential, algorithm: SIGNATURE_ALGORITHM, signature, body }.encode();
    let salt: [u8; 32] = repo.world.random();
    let key = epoch.index_key.derive_salted(&salt, &kind.key_purpose());
    let mut sealed = Vec::new();
    let aad = sealed_aad(&repo.config.repo, kind, name, &epoch.id);
    seal::seal_into(&key.key, repo.world.random(), &aad, &text, &mut sealed);
    let commitment = key.commitment;
    let record = SealedRecord { kind, suite: seal::SUITE, epoch: epoch.id, salt, commitment, sealed: &sealed };
    let mut stored = record.encode();
    push_digest(kind, &mut stored);
    stored
}

/// Puts such a record: below `folder` by its hash, or under the name it is bound to. Gives the full name.
pub(crate) fn put_record<R: Record>(repo: &Repository, kind: RecordKind, name: &str, record: &R) -> String {
    put_body(repo, kind, name, &cbor::encode(record))
}

/// The same for a body that is no record of ours.
pub(crate) fn put_body(repo: &Repository, kind: RecordKind, name: &str, body: &[u8]) -> String {
    let (stored, name) = if kind.is_named_by_hash() {
        let stored = sealed_record(repo, kind, "", body);
        let name = format!("{name}{}", ObjectId::of(&stored));
        (stored, name)
    } else {
        (sealed_record(repo, kind, name, body), name.to_owned())
    };
    repo.storage.put(&name, &stored, WriteMode::Replace).unwrap();
    name
}

/// A session of somebody who writes what they like.
pub(crate) struct Forger<'r> {
    pub(crate) repo: &'r Repository,
    pub(crate) session: SessionId,
    secret: SecretKey,
    pub(crate) envelope: Vec<u8>,
    /// What the next pack is to hold, with the text of each.
    pub(crate) frames: Vec<(Frame, Vec<u8>)>,
    /// The packs put so far, as the index will describe them.
    pub(crate) packs: Vec<PackEntry>,
}

impl<'r> Forger<'r> {
    pub(crate) fn new(repo: &'r Repository) -> Self {
        Self::of_session(repo, SessionId::from_bytes(repo.world.random()))
    }

    /// A session of this id, whoever else has it.
    pub(crate) fn of_session(repo: &'r Repository, session: SessionId) -> Self {
        let secret = SecretKey::from_bytes(&repo.world.random());
        let envelope = repo.keys.seal_session_secret(&repo.world, &session, &secret).unwrap();
        Self::with_secret(repo, session, secret, envelope)
    }

    /// A session whose secret was sealed before, which takes long.
    pub(crate) fn with_secret(repo: &'r Repository, session: SessionId, secret: SecretKey, envelope: Vec<u8>) -> Self {
        Self { repo, session, secret, envelope, frames: Vec::new(), packs: Vec::new() }
    }

    /// A frame of this text, whatever it is said to be; its sealed length alone is true.
    pub(crate) fn frame(
        &mut self,
        kind: FrameKind,
        compression: u8,
        plain_bytes: u32,
        chunks: &[(ChunkId, u32)],
        text: &[u8],
    ) {
        let sealed_bytes = u32::try_from(text.len() + seal::OVERHEAD_BYTES).unwrap();
        let chunks = chunks.iter().map(|&(id, bytes)| ChunkEntry { id, bytes }).collect();
        self.frames.push((Frame { kind, compression, sealed_bytes, plain_bytes, chunks }, text.to_vec()));
    }

    /// Bytes stored under an id, whosever it is.
    pub(crate) fn chunk_as(&mut self, kind: ChunkKind, id: ChunkId, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap();
        let frame = match kind {
            ChunkKind::Data => FrameKind::Data,
            ChunkKind::Directory => FrameKind::Directory,
            ChunkKind::List => FrameKind::List,
        };
        self.frame(frame, 0, length, &[(id, length)], bytes);
    }

    /// Bytes stored under their own id, each time in a frame of their own.
    pub(crate) fn chunk(&mut self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        let id = self.repo.keys.ids.chunk(kind, bytes);
        if !self.frames.iter().any(|(frame, _)| frame.chunks.iter().any(|chunk| chunk.id == id)) {
            self.chunk_as(kind, id, bytes);
        }
        id
    }

    /// A file of one chunk.
    pub(crate) fn file(&mut self, name: &str, bytes: &[u8]) -> Entry {
        let id = self.chunk(ChunkKind::Data, bytes);
        let pieces = vec![Piece::Chunk { id, bytes: u32::try_from(bytes.len()).unwrap() }];
        entry(name, Detail::File { size: bytes.len() as u64, content: Content::Inline(pieces), holes: vec![] })
    }

    /// A directory of one node, with true totals.
    pub(crate) fn directory(&mut self, name: &str, entries: Vec<Entry>) -> Entry {
        let mut totals = Totals::default();
        entries.iter().for_each(|entry| totals.add(entry.totals()));
        let node = cbor::encode(&DirectoryNode::Entries(entries));
        self.directory_of_node(name, &node, totals)
    }

    /// A directory of a node of these bytes.
    pub(crate) fn directory_of_node(&mut self, name: &str, node: &[u8], totals: Totals) -> Entry {
        let id = self.chunk(ChunkKind::Directory, node);
        entry(name, Detail::Directory { id, level: 0, totals, incomplete: false })
    }

    /// Puts the frames so far as a pack.
    pub(crate) fn put_pack(&mut self) -> PackId {
        self.put_pack_changed(&mut |_| {})
    }

    /// The same; its directory before it is sealed, and then its trailer, can be changed.
    pub(crate) fn put_pack_changed(&mut self, change: &mut dyn FnMut(&mut Vec<u8>)) -> PackId {
        let repo = self.repo;
        let epoch = repo.keys.current_epoch();
        let salt: [u8; 32] = repo.world.random();
        let frame_key = self.secret.derive_salted(&salt, "pack frames");
        let directory_key = epoch.index_key.derive_salted(&salt, "pack directory");
        let mut stored = Vec::new();
        let mut frames = Vec::new();
        for ((frame, text), ordinal) in std::mem::take(&mut self.frames).into_iter().zip(0..) {
            let aad = frame_aad(&repo.config.repo, ordinal, &frame);
            seal::seal_into(&frame_key.key, repo.world.random(), &aad, &text, &mut stored);
            frames.push(frame);
        }
        let credential = repo.keys.credential.id();
        let (envelope, padding_bytes) = (self.envelope.clone(), 0);
        let mut plain = Directory { credential, envelope, frames: frames.clone(), padding_bytes }.encode();
        change(&mut plain);
        let trailer = Trailer {
            suite: seal::SUITE,
            directory_bytes: u32::try_from(plain.len() + seal::OVERHEAD_BYTES).unwrap(),
            epoch: epoch.id,
            session: self.session,
            salt,
            frame_commitment: frame_key.commitment,
            directory_commitment: directory_key.commitment,
        };
        let aad = directory_aad(&repo.config.repo, &trailer);
        seal::seal_into(&directory_key.key, repo.world.random(), &aad, &plain, &mut stored);
        let mut trailer = trailer.encode().to_vec();
        change(&mut trailer);
        stored.extend_from_slice(&trailer);
        let id = PackId::of(&stored);
        repo.storage.put(&pack_name(&id), &stored, WriteMode::Replace).unwrap();
        let stored_bytes = u32::try_from(stored.len()).unwrap();
        self.packs.push(PackEntry {
            id,
            origin: 0,
            stored_bytes,
            salt,
            frame_commitment: frame_key.commitment,
            frames,
        });
        id
    }

    /// The session as a segment names it.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            session: self.session,
            epoch: self.repo.keys.current_epoch().id,
            credential: self.repo.keys.credential.id(),
            envelope: self.envelope.clone(),
        }
    }

    /// The commit of this session with what it has put: a snapshot if there is one.
    pub(crate) fn commit(&self, snapshot: Option<&Snapshot>) -> Commit {
        let sealed = snapshot.map(|snapshot| self.sealed_snapshot(&cbor::encode(snapshot)));
        Commit {
            session: self.session,
            kind: if snapshot.is_some() { CommitKind::Snapshot } else { CommitKind::Maintenance },
            time_secs: 1_000_000_000,
            sequence: 1,
            previous: vec![],
            envelope: self.envelope.clone(),
            segments: vec![],
            inline_segment: Segment { origins: vec![self.origin()], packs: self.packs.clone() }.encode(),
            supersedes: vec![],
            snapshot: sealed.unwrap_or_default(),
            replaces: vec![],
            extra: Extra::default(),
        }
    }

    /// The record of a snapshot as a commit holds it, whatever it says.
    pub(crate) fn sealed_snapshot(&self, plain: &[u8]) -> Vec<u8> {
        let aad = [b"esker v1 snapshot\0", &self.repo.config.repo.as_bytes()[..], self.session.as_bytes()].concat();
        seal::seal_box(&self.repo.world, &self.secret, "snapshot", &aad, plain)
    }

    /// Puts a commit under the name of its session.
    pub(crate) fn put_commit(&self, commit: &Commit) -> SessionId {
        put_record(self.repo, RecordKind::Commit, &format!("snapshots/{}", commit.session), commit);
        commit.session
    }

    /// Puts what is left as a pack, and a snapshot of a root directory with these entries.
    pub(crate) fn snapshot(&mut self, entries: Vec<Entry>) -> SessionId {
        let root = self.directory("", entries);
        self.snapshot_of(root)
    }

    /// The same of a root entry that is made already.
    pub(crate) fn snapshot_of(&mut self, root: Entry) -> SessionId {
        self.put_pack();
        self.put_commit(&self.commit(Some(&snapshot(root))))
    }
}

/// A snapshot record of this root.
pub(crate) fn snapshot(root: Entry) -> Snapshot {
    Snapshot {
        time: Time::from_secs(1_000_000_000),
        hostname: "host".into(),
        username: "user".into(),
        uid: 0,
        gid: 0,
        paths: vec![b"/".to_vec()],
        tags: vec![],
        parent: None,
        root,
        summary: Summary::default(),
        program: "forged".into(),
        original: None,
        extra: Extra::default(),
    }
}

/// An entry of whoever runs the test; no name is the root.
pub(crate) fn entry(name: &str, detail: Detail) -> Entry {
    let mode = if matches!(detail, Detail::Directory { .. }) { 0o755 } else { 0o644 };
    let attributes = Attributes {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: Time::from_secs(1_000_000_000),
        ..Attributes::default()
    };
    let name = (!name.is_empty()).then(|| Name::new(name.as_bytes()).unwrap());
    Entry { name, attributes, detail, extra: Extra::default() }
}

/// A symbolic link.
pub(crate) fn link(name: &str, target: &str) -> Entry {
    entry(name, Detail::Symlink { target: target.as_bytes().to_vec() })
}

/// The bytes with every `from` in them replaced: names and targets that no encoder would write.
pub(crate) fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut patched, mut rest) = (Vec::new(), bytes);
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        patched.extend_from_slice(&rest[..at]);
        patched.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    assert!(rest.len() < bytes.len(), "there is nothing to patch");
    patched.extend_from_slice(rest);
    patched
}
