//! What snapshots say of themselves, remembered.
//!
//! To read one costs a request, a signature and two private key operations: 0.8 ms, over a minute for a
//! hundred thousand. So the record is kept with the facts of the catalog, sealed to the credential that read it: a
//! cache says nothing to whoever finds it. It is kept for the commit's bytes by their hash, so it is of
//! use only as long as the very same commit is in the storage.
//!
//! That the commit can still be read is not found out by listing; `check`, and whatever reads one snapshot,
//! reads its commit anew, and goes on with what is remembered, aloud, when that is damaged by now.

use rayon::prelude::*;

use super::commits::CommitHeader;
use super::content::Reader;
use super::snapshots::SnapshotInfo;
use crate::crypto::key::SecretKey;
use crate::crypto::seal;
use crate::error::{Kind, Result};
use crate::format::cbor;
use crate::format::session::Snapshot;
use crate::id::SessionId;
use crate::storage::parallel::try_map;

/// Snapshots read from the storage and then remembered at a time: what is lost when the listing is stopped.
const BATCH: usize = 4096;
/// Snapshots opened by a thread at a time.
const SHARE: usize = 256;

/// Is called with a commit, its snapshot or why that is damaged, and whether it was remembered.
type EachSnapshot<'e> = dyn FnMut(&CommitHeader, Result<Box<Snapshot>>, bool) + 'e;

impl Reader<'_> {
    /// Calls `each` for each of these commits.
    pub(super) fn each_snapshot(&self, headers: &[&CommitHeader], each: &mut EachSnapshot<'_>) -> Result<()> {
        let repo = self.repo();
        // Opening a snapshot costs more than reading it where the storage is near.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = repo.storage.connections().max(cores);
        let records = self.is_cached().then(|| Records::new(self));
        // All in one look: to open the cache costs more the more is in it.
        let known = match &records {
            None => headers.iter().map(|_| None).collect(),
            Some(records) => records.remembered(self, headers),
        };
        let mut unknown = Vec::new();
        for (header, known) in headers.iter().zip(known) {
            match known {
                Some(snapshot) => each(header, Ok(snapshot), true),
                None => unknown.push(*header),
            }
        }
        let mut learning = None;
        for headers in unknown.chunks(BATCH) {
            let read = try_map(threads, headers, |header| match repo.load_snapshot(&header.session) {
                Ok(info) => Ok(Ok(info)),
                Err(error) if error.kind() == Kind::Damaged => Ok(Err(error)),
                Err(error) => Err(error),
            })?;
            let learned = |records: &Records, (header, read): (&&CommitHeader, &Result<SnapshotInfo>)| {
                // A commit that was replaced is not the one that the header is of.
                let info = read.as_ref().ok().filter(|info| info.header.hash == header.hash)?;
                Some((key(&header.session), records.seal(header, &info.snapshot)))
            };
            if let Some(records) = &records {
                let learned: Vec<_> = headers.iter().zip(&read).filter_map(|pair| learned(records, pair)).collect();
                let learned: Vec<_> = learned.iter().map(|(key, value)| (&key[..], &value[..])).collect();
                if !learned.is_empty() {
                    learning.get_or_insert_with(|| repo.open_catalog()).put_facts(&learned);
                }
            }
            headers.iter().zip(read).for_each(|(header, read)| each(header, read.map(|info| info.snapshot), false));
        }
        Ok(())
    }
}

/// The key that what is remembered is sealed under, and what it is bound to.
struct Records {
    private: SecretKey,
    repo: [u8; 16],
}

impl Records {
    fn new(reader: &Reader<'_>) -> Self {
        let repo = reader.repo();
        Self { private: repo.keys.credential.private_key(), repo: *repo.config.repo.as_bytes() }
    }

    /// Of each commit the snapshot, if it is remembered and is this credential's to read.
    fn remembered(&self, reader: &Reader<'_>, headers: &[&CommitHeader]) -> Vec<Option<Box<Snapshot>>> {
        let keys: Vec<_> = headers.iter().map(|header| key(&header.session)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let sealed = reader.catalog().facts(&keys);
        let pairs = headers.par_iter().zip(sealed).with_min_len(SHARE);
        pairs.map(|(header, sealed)| self.open(header, sealed.as_deref()?).map(Box::new)).collect()
    }

    /// One key for each commit, so the nonce may be the text's own; nothing random is asked for.
    fn key(&self, header: &CommitHeader) -> SecretKey {
        self.private.derive_salted(header.hash.as_bytes(), "remembered snapshot").key
    }

    fn aad(&self, header: &CommitHeader) -> Vec<u8> {
        [b"esker v1 remembered snapshot\0", &self.repo[..], header.session.as_bytes()].concat()
    }

    fn seal(&self, header: &CommitHeader, snapshot: &Snapshot) -> Vec<u8> {
        let plain = cbor::encode(snapshot);
        let key = self.key(header);
        let nonce = seal::hedged_nonce(key.expose(), 0, blake3::hash(&plain).as_bytes());
        let mut sealed = Vec::new();
        seal::seal_into(&key, nonce, &self.aad(header), &plain, &mut sealed);
        sealed
    }

    fn open(&self, header: &CommitHeader, sealed: &[u8]) -> Option<Snapshot> {
        let plain = seal::open(&self.key(header), &self.aad(header), sealed, "remembered snapshot").ok()?;
        cbor::decode(&plain).ok()
    }
}

fn key(session: &SessionId) -> Vec<u8> {
    [b"snapshot ", &session.as_bytes()[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::session::{CommitKind, Summary};
    use crate::format::tree::{Attributes, Detail, Entry};
    use crate::id::{CredentialId, EpochId, ObjectId};
    use crate::world::Time;

    fn header(session: u8, hash: u8) -> CommitHeader {
        CommitHeader {
            replaces: vec![],
            session: SessionId::from_bytes([session; 16]),
            epoch: EpochId::from_bytes([0; 16]),
            credential: CredentialId::from_bytes([0; 32]),
            hash: ObjectId::from_bytes([hash; 32]),
            kind: CommitKind::Snapshot,
            time_secs: 1,
            sequence: 1,
            previous: Vec::new(),
            segments: Vec::new(),
            has_inline_segment: false,
            supersedes: Vec::new(),
            stored_bytes: 1,
        }
    }

    fn snapshot() -> Snapshot {
        let root = Entry {
            name: None,
            attributes: Attributes::default(),
            detail: Detail::Directory {
                id: crate::id::ChunkId::from_bytes([3; 32]),
                level: 0,
                totals: Default::default(),
                incomplete: false,
            },
            extra: Default::default(),
        };
        Snapshot {
            time: Time::from_secs(1_000_000_000),
            hostname: "a secret machine".into(),
            username: "somebody".into(),
            uid: 0,
            gid: 0,
            paths: vec![b"/secret".to_vec()],
            tags: vec!["secret tag".into()],
            parent: None,
            root,
            summary: Summary::default(),
            program: "test".into(),
            original: None,
            extra: Default::default(),
        }
    }

    #[test]
    fn what_is_remembered_is_for_one_credential_repository_and_commit() {
        let records = |key: u8, repo: u8| Records { private: SecretKey::from_bytes(&[key; 32]), repo: [repo; 16] };
        let sealed = records(1, 1).seal(&header(1, 1), &snapshot());
        assert_eq!(records(1, 1).open(&header(1, 1), &sealed), Some(snapshot()));
        for (key, repo, session, hash) in [(2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2)] {
            assert_eq!(records(key, repo).open(&header(session, hash), &sealed), None, "{key} {repo} {session} {hash}");
        }
        assert!(!sealed.windows(6).any(|bytes| bytes == b"secret"));
        let other = Snapshot { tags: vec!["another tag".into()], ..snapshot() };
        let (one, two) = (sealed, records(1, 1).seal(&header(1, 1), &other));
        assert_ne!(one[..seal::NONCE_BYTES], two[..seal::NONCE_BYTES], "a nonce is not used for two texts");
    }
}
