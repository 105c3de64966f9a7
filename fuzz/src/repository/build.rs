//! The repository, built anew with what an input changes in it: by somebody with keys before it is named, sealed
//! and signed, so that all around it is right again; and by a storage afterwards.

use esker::chunk::compress::{Compressor, Level};
use esker::crypto::ident::ChunkKind;
use esker::format::cbor::{self, Extra};
use esker::format::gc::{Note, NoteClaim};
use esker::format::pack::FrameKind;
use esker::format::record::RecordKind;
use esker::format::segment::Segment;
use esker::format::session::{Announcement, CommitKind};
use esker::id::{ChunkId, DescriptionId, PackId};

use super::edit::{Edit, Op, replace};
use super::forge::{Forger, put_body};
use super::scene::{Made, Scene};

/// Places where a key holder can change something: as many as [`Build::run`] passes.
const SITES: usize = 41;

pub(super) struct Build<'s> {
    scene: &'s Scene,
    edits: &'s [Edit],
    site: usize,
    /// The ids of contents, as far as they are made.
    ids: Vec<ChunkId>,
    /// Whether what needs a key was changed, and whether it was an owner's.
    pub(super) keyed: bool,
    pub(super) by_owner: bool,
}

impl<'s> Build<'s> {
    /// Fills the storage.
    pub(super) fn run(scene: &'s Scene, edits: &'s [Edit]) -> Self {
        let mut build = Self { scene, edits, site: 0, ids: Vec::new(), keyed: false, by_owner: false };
        let contents = build.contents();
        for session in &scene.sessions {
            build.session(session, &contents);
        }
        build.more_records();
        assert_eq!(build.site, SITES, "so many places are passed");
        build.change_objects();
        build
    }

    /// The edits of the next site, which is about something an owner stands for or not.
    fn next_site(&mut self, by_owner: bool) -> Vec<&'s Edit> {
        let site = self.site;
        self.site += 1;
        let here = self.edits.iter().filter(|edit| edit.is_keyed() && edit.site % SITES == site);
        let here: Vec<_> = here.collect();
        self.keyed |= !here.is_empty();
        self.by_owner |= by_owner && !here.is_empty();
        here
    }

    /// Lets whoever holds the key change a buffer; gives what was done.
    fn change(&mut self, by_owner: bool, bytes: &mut Vec<u8>) -> Vec<Op> {
        let edits = self.next_site(by_owner);
        edits.iter().for_each(|edit| edit.apply(bytes, &self.ids));
        edits.iter().map(|edit| edit.op).collect()
    }

    /// Puts the ids that contents have now in the place of those they had.
    fn rename(&self, bytes: &mut [u8]) {
        for (old, new) in self.scene.contents.iter().zip(&self.ids).filter(|(old, new)| old.id != **new) {
            replace(bytes, old.id.as_bytes(), new.as_bytes());
        }
    }

    fn contents(&mut self) -> Vec<Vec<u8>> {
        let mut contents = Vec::new();
        for stored in &self.scene.contents {
            let mut bytes = stored.bytes.clone();
            self.rename(&mut bytes);
            let done = self.change(true, &mut bytes);
            let own = self.scene.owner.keys.ids.chunk(stored.kind, &bytes);
            self.ids.push(if done.contains(&Op::KeepId) { stored.id } else { own });
            contents.push(bytes);
        }
        contents
    }

    /// Seals and signs a record and puts it under its name, which it gives.
    fn record(&mut self, by_owner: bool, kind: RecordKind, name: &str, mut body: Vec<u8>) -> String {
        let done = self.change(by_owner, &mut body);
        let signed_by_owner = by_owner != done.contains(&Op::OtherSigner);
        self.by_owner |= signed_by_owner && !done.is_empty();
        put_body(if signed_by_owner { &self.scene.owner } else { &self.scene.writer }, kind, name, &body)
    }

    fn session(&mut self, made: &Made, contents: &[Vec<u8>]) {
        let repo = if made.by_owner { &self.scene.owner } else { &self.scene.writer };
        let mut forger = Forger::with_secret(repo, made.session, made.secret.clone(), made.envelope.clone());
        self.change(made.by_owner, &mut forger.envelope);
        let (session, envelope) = (forger.session, forger.envelope.clone());
        let announcement = Announcement { session, time_secs: 1, envelope, extra: Extra::default() };
        self.record(made.by_owner, RecordKind::Session, &format!("sessions/{session}"), cbor::encode(&announcement));
        for frames in &made.packs {
            for held in frames {
                self.frame(made, &mut forger, held, contents);
            }
            // What does not fit its field cannot be said.
            forger.envelope.truncate(usize::from(u16::MAX));
            forger.put_pack_changed(&mut |part| drop(self.change(made.by_owner, part)));
        }
        let mut plain = cbor::encode(&made.snapshot);
        self.rename(&mut plain);
        self.change(made.by_owner, &mut plain);
        let mut commit = forger.commit(None);
        commit.kind = CommitKind::Snapshot;
        commit.snapshot = forger.sealed_snapshot(&plain);
        let mut segment = Segment { origins: vec![forger.origin()], packs: forger.packs.clone() }.encode();
        if made.by_owner {
            let name = self.record(true, RecordKind::Segment, "index/", std::mem::take(&mut segment));
            let hash = name.strip_prefix("index/").and_then(|hash| hash.parse().ok());
            commit.segments = vec![hash.expect("it is named by its hash")];
        } else {
            self.change(false, &mut segment);
        }
        commit.inline_segment = segment;
        self.record(made.by_owner, RecordKind::Commit, &format!("snapshots/{session}"), cbor::encode(&commit));
    }

    fn frame(&mut self, made: &Made, forger: &mut Forger<'_>, held: &[usize], contents: &[Vec<u8>]) {
        let plain = held.iter().flat_map(|n| contents[*n].clone()).collect::<Vec<_>>();
        let mut text = Vec::new();
        let compression = Compressor::new(Level::default()).compress(&plain, &mut text).compression() as u8;
        let edits = self.next_site(made.by_owner);
        edits.iter().for_each(|edit| edit.apply(&mut text, &self.ids));
        let kind = match self.scene.contents[held[0]].kind {
            ChunkKind::Data => FrameKind::Data,
            ChunkKind::Directory => FrameKind::Directory,
            ChunkKind::List => FrameKind::List,
        };
        let chunks: Vec<_> = held.iter().map(|n| (self.ids[*n], contents[*n].len() as u32)).collect();
        forger.frame(kind, compression, plain.len() as u32, &chunks, &text);
        let (frame, _) = forger.frames.last_mut().expect("it was just added");
        edits.iter().for_each(|edit| edit.apply_to_frame(frame, &self.ids));
    }

    /// One record of each further kind: edits make of them what they like.
    fn more_records(&mut self) {
        let damaged = NoteClaim::Damaged { chunks: vec![self.ids[0]], pack: PackId::from_bytes([8; 32]) };
        let verified = NoteClaim::Verified { descriptions: vec![DescriptionId::from_bytes([9; 32])], mended: vec![] };
        for (by_owner, claim) in [(false, damaged), (true, verified)] {
            let note = Note { time_secs: 1, seen: vec![], claim, extra: Extra::default() };
            self.record(by_owner, RecordKind::Note, "notes/", cbor::encode(&note));
        }
        // Of a collection that came to nothing: its id and a time.
        let nothing = [&[0xa2, 1, 0x50][..], &[7; 16], &[2, 1]].concat();
        let folder = format!("gc/{}", "07".repeat(16));
        for (kind, name) in
            [(RecordKind::Condemned, "condemned"), (RecordKind::Swept, "swept"), (RecordKind::Done, "done")]
        {
            self.record(true, kind, &format!("{folder}/{name}"), nothing.clone());
        }
    }

    /// What a storage does, which holds no key.
    fn change_objects(&self) {
        let mut objects = self.scene.memory.snapshot();
        for edit in self.edits.iter().filter(|edit| !edit.is_keyed()) {
            let name = |n: usize| objects.keys().nth(n % objects.len().max(1)).cloned();
            let (Some(name), Some(other)) = (name(edit.site), name(edit.arg as usize)) else { break };
            let mut bytes = objects[&name].to_vec();
            let at = edit.at % bytes.len().max(1);
            match edit.op {
                Op::Lose => drop(objects.remove(&name)),
                Op::Flip | Op::Cut | Op::Append => {
                    match edit.op {
                        Op::Flip if !bytes.is_empty() => bytes[at] ^= 1 << (edit.arg % 8),
                        Op::Cut => bytes.truncate(at),
                        _ => bytes.extend_from_slice(&edit.data),
                    }
                    objects.insert(name, bytes.into());
                }
                Op::Swap => {
                    let theirs = objects[&other].clone();
                    objects.insert(other, bytes.into());
                    objects.insert(name, theirs);
                }
                Op::Replay => drop(objects.insert(other, bytes.into())),
                _ => {
                    let folder = name.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
                    objects.insert(format!("{folder}{:064x}", edit.arg), edit.data.clone().into());
                }
            }
        }
        self.scene.memory.restore(objects);
    }
}
