//! Risk: a session relies on what a collection may delete, or on who may not say so.
//! Method: sessions, sweeps and flags put by hand around real sessions over the memory storage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Repository;
use super::collections::{Answer, Collections};
use super::content::Reader;
use super::open::{FirstKey, InitOptions, Local};
use super::pack_writer::{PackSettings, PackWriter};
use super::secret::Secret;
use super::session::{Outcome, Session};
use crate::chunk::cut::Parameters;
use crate::chunk::frame::PlainFrame;
use crate::crypto::ident::ChunkKind;
use crate::crypto::slot::KdfCost;
use crate::format::access::Role;
use crate::format::cbor::{self, Extra};
use crate::format::gc::{Condemned, Done, Note, NoteClaim, Swept};
use crate::format::pack::FrameKind;
use crate::format::record::RecordKind;
use crate::format::session::{CommitKind, Flag};
use crate::id::{ChunkId, CollectionId, ObjectId, PackId, SessionId};
use crate::repo::reader::ReadRepo;
use crate::storage::memory::Memory;
use crate::world::World;

pub(crate) fn repository() -> (Memory, Repository) {
    let memory = Memory::new();
    let options = InitOptions {
        key: FirstKey::KeyFile,
        kdf: KdfCost::FLOOR,
        chunker: Parameters::with_average(4096),
        label: "owner".into(),
        like: None,
        parity_percent: 0,
    };
    let (repo, _) = Repository::init(Arc::new(memory.clone()), World::seeded(1), &options, Local::default()).unwrap();
    (memory, repo)
}

/// A committed session that stores one chunk.
fn store(repo: &Repository, bytes: &[u8]) -> (SessionId, ChunkId, PackId) {
    store_as(repo, CommitKind::Maintenance, bytes)
}

/// The same, for a reason.
pub(crate) fn store_as(repo: &Repository, kind: CommitKind, bytes: &[u8]) -> (SessionId, ChunkId, PackId) {
    let session = Arc::new(Session::begin(repo).unwrap());
    let id = repo.keys.ids.chunk(ChunkKind::Data, bytes);
    let mut writer = PackWriter::new(session.clone(), PackSettings::default(), Arc::new(|_| {}));
    let frame = PlainFrame { chunks: vec![(id, u32::try_from(bytes.len()).unwrap())], ..writer.bare_frame(bytes) };
    writer.add(FrameKind::Data, frame).unwrap();
    let packs = writer.finish().unwrap();
    let pack = packs[0].id;
    assert_eq!(session.commit(kind, packs, None, vec![]).unwrap(), Outcome::Made);
    (session.id(), id, pack)
}

fn reuses(repo: &Repository, id: &ChunkId) -> bool {
    Session::begin(repo).unwrap().may_reuse(id)
}

pub(crate) const COLLECTION: CollectionId = CollectionId::from_bytes([7; 16]);
/// Two that are lower, of the first generation.
pub(crate) const LOW: CollectionId = CollectionId::from_bytes([0; 16]);
pub(crate) const LOW_TOO: CollectionId = CollectionId::from_bytes([0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);

fn put(repo: &Repository, kind: RecordKind, name: &str, body: &[u8]) -> ObjectId {
    repo.put_named_record(kind, name, body).unwrap()
}

fn condemn(repo: &Repository, pack: PackId) {
    let record = Condemned { collection: COLLECTION, time_secs: 1, packs: vec![pack], extra: Extra::default() };
    put(repo, RecordKind::Condemned, &format!("gc/{COLLECTION}/condemned"), &cbor::encode(&record));
}

pub(crate) fn sweep(repo: &Repository, dead: Vec<PackId>, void: Vec<SessionId>) -> ObjectId {
    let record = Swept { collection: COLLECTION, time_secs: 1, dead, void, counted: vec![], extra: Extra::default() };
    put(repo, RecordKind::Swept, &format!("gc/{COLLECTION}/swept"), &cbor::encode(&record))
}

pub(crate) fn sweep_by(repo: &Repository, by: CollectionId, void: &[SessionId], counted: &[SessionId]) {
    let (void, counted) = (void.to_vec(), counted.to_vec());
    let record = Swept { collection: by, time_secs: 1, dead: vec![], void, counted, extra: Extra::default() };
    put(repo, RecordKind::Swept, &format!("gc/{by}/swept"), &cbor::encode(&record));
}

fn finish(repo: &Repository, sweeps: Vec<ObjectId>) {
    let record = Done { collection: COLLECTION, time_secs: 1, sweeps, seen_notes: vec![], extra: Extra::default() };
    put(repo, RecordKind::Done, &format!("gc/{COLLECTION}/done"), &cbor::encode(&record));
}

pub(crate) fn flag(repo: &Repository, session: SessionId) {
    flag_by(repo, COLLECTION, session);
}

pub(crate) fn flag_by(repo: &Repository, by: CollectionId, session: SessionId) {
    let record = Flag { session, collection: by, time_secs: 1, extra: Extra::default() };
    put(repo, RecordKind::Flag, &format!("flags/{session}/{by}"), &cbor::encode(&record));
}

#[test]
fn a_chunk_reads_back_through_the_index() {
    let (_, repo) = repository();
    let (_, id, _) = store(&repo, b"some content");
    assert_eq!(Reader::new(&repo).unwrap().chunk(&id).unwrap(), b"some content");
    assert!(reuses(&repo, &id));
}

#[test]
fn a_condemned_pack_is_not_relied_on_until_its_collection_has_spared_it() {
    let (_, repo) = repository();
    let (_, id, pack) = store(&repo, b"some content");
    condemn(&repo, pack);
    assert!(!reuses(&repo, &id), "condemned");
    let swept = sweep(&repo, vec![], vec![]);
    assert!(!reuses(&repo, &id), "swept without it, but not done");
    finish(&repo, vec![swept]);
    assert!(reuses(&repo, &id), "done, and not among the dead");
}

#[test]
fn a_collection_is_unfinished_until_every_sweep_its_end_names_was_read() {
    let (_, repo) = repository();
    let (_, id, pack) = store(&repo, b"some content");
    condemn(&repo, pack);
    finish(&repo, vec![ObjectId::from_bytes([9; 32])]);
    assert!(!reuses(&repo, &id));
}

#[test]
fn a_dead_pack_is_dead_for_ever_and_a_void_session_never_counts() {
    let (_, repo) = repository();
    let (_, dead_chunk, pack) = store(&repo, b"in a dead pack");
    let (session, void_chunk, _) = store(&repo, b"in a void session");
    let swept = sweep(&repo, vec![pack], vec![session]);
    finish(&repo, vec![swept]);
    assert!(!reuses(&repo, &dead_chunk));
    assert!(!reuses(&repo, &void_chunk));
    assert!(!Session::begin(&repo).unwrap().counts(&session));
    assert!(Reader::new(&repo).unwrap().chunk(&void_chunk).is_err());
}

#[test]
fn a_flagged_session_is_relied_on_only_after_its_collections_have_swept_without_it() {
    let (_, repo) = repository();
    let (session, id, _) = store(&repo, b"some content");
    flag(&repo, session);
    assert!(!reuses(&repo, &id), "asked, not answered");
    sweep(&repo, vec![], vec![]);
    assert!(reuses(&repo, &id), "the sweep does not say void");
}

#[test]
fn of_what_sweeps_say_of_a_session_the_highest_counts_whichever_comes_first() {
    let (_, repo) = repository();
    let (session, id, _) = store(&repo, b"some content");
    flag_by(&repo, LOW, session);
    sweep_by(&repo, COLLECTION, &[], &[session]);
    assert!(reuses(&repo, &id), "a higher one has answered");
    sweep_by(&repo, LOW, &[session], &[]);
    assert!(reuses(&repo, &id), "too late");
    assert!(Reader::new(&repo).unwrap().chunk(&id).is_ok());
    let (session, id, _) = store(&repo, b"other content");
    sweep_by(&repo, LOW_TOO, &[session], &[]);
    assert!(Reader::new(&repo).unwrap().chunk(&id).is_err(), "nobody says otherwise");
}

/// Found by `model/`: a flag is gone once it is answered, so a list of flags that does not show it is answered by
/// the sweeps after it, not by those before. And what they say anew a higher collection may not have seen.
#[test]
fn what_sweeps_say_of_a_session_while_flags_are_listed_is_not_relied_on() {
    let (session, other) = (SessionId::from_bytes([1; 16]), SessionId::from_bytes([2; 16]));
    let answered = |by, counts| {
        let answer = Answer { by, counts };
        Collections { answers: [(session, answer)].into(), ..Collections::default() }
    };
    let (nothing, void) = (Collections::default(), answered(LOW, false));
    let new = |earlier: &Collections, later: &Collections| earlier.newly_answered(later).next().is_some();
    assert!(new(&nothing, &void) && new(&void, &answered(COLLECTION, false)) && !new(&void, &void));
    let asked = |earlier: &Collections, later: &Collections, of, by| {
        earlier.questions(later, &[(of, vec![by])].into()).next().is_some()
    };
    assert!(asked(&nothing, &nothing, other, COLLECTION));
    let swept = Collections { sweeps: [(COLLECTION, ObjectId::of(b""))].into(), ..Collections::default() };
    assert!(!asked(&nothing, &swept, other, COLLECTION), "answered: it counts");
    let counts = answered(COLLECTION, true);
    assert!(!asked(&counts, &counts, session, LOW), "a higher one has answered");
    assert!(asked(&nothing, &counts, session, LOW), "only just");
    assert!(asked(&void, &void, session, COLLECTION), "a lower one has");
}

#[test]
fn a_commit_that_was_asked_before_it_was_there_is_not_reported_as_made() {
    let (_, repo) = repository();
    let session = Session::begin(&repo).unwrap();
    sweep_by(&repo, LOW, &[], &[session.id()]);
    assert_eq!(session.commit(CommitKind::Maintenance, vec![], None, vec![]).unwrap(), Outcome::Flagged);
    let session = Session::begin(&repo).unwrap();
    flag(&repo, session.id());
    assert_eq!(session.commit(CommitKind::Maintenance, vec![], None, vec![]).unwrap(), Outcome::Flagged);
    let session = Session::begin(&repo).unwrap();
    sweep(&repo, vec![], vec![session.id()]);
    assert_eq!(session.commit(CommitKind::Maintenance, vec![], None, vec![]).unwrap(), Outcome::Flagged);
}

#[test]
fn a_chunk_noted_as_damaged_is_stored_anew() {
    let (_, repo) = repository();
    let (_, id, pack) = store(&repo, b"some content");
    let claim = NoteClaim::Damaged { chunks: vec![id], pack };
    let note = Note { time_secs: 1, seen: vec![], claim, extra: Extra::default() };
    repo.put_hashed_record(RecordKind::Note, "notes/", &cbor::encode(&note)).unwrap();
    assert!(!reuses(&repo, &id));
}

/// What an owner has read whole since is relied on again; a writer cannot say so.
#[test]
fn a_note_of_damage_is_taken_back_by_owners_only() {
    let (memory, repo) = repository();
    let (_, id, pack) = store(&repo, b"some content");
    let key = repo.add_member(Role::Writer, "writer", None).unwrap();
    let open = |secret| Repository::open(Arc::new(memory.clone()), World::seeded(2), &secret, Local::default());
    let writer = open(Secret::KeyFile(key)).unwrap();
    writer.note([NoteClaim::Damaged { chunks: vec![id], pack }]).unwrap();
    // Another owner, who knows the writer.
    let repo = open(Secret::KeyFile(repo.add_member(Role::Owner, "second", None).unwrap())).unwrap();
    let noted = repo.load_collections().unwrap().damage_notes[&pack].clone();
    assert!(!reuses(&repo, &id) && noted.len() == 1);
    writer.note([NoteClaim::Verified { descriptions: vec![], mended: noted.iter().copied().collect() }]).unwrap();
    assert!(!reuses(&repo, &id), "a writer says so");
    repo.note_scrubbed(&BTreeSet::new(), &noted, &BTreeMap::new()).unwrap();
    assert!(reuses(&repo, &id));
    assert!(repo.load_collections().unwrap().damage_notes.is_empty());
    // It may be damaged anew.
    writer.note([NoteClaim::Damaged { chunks: vec![id], pack }]).unwrap();
    assert!(!reuses(&repo, &id));
}

/// A writer holds the index key and could make any record; without its owner's signature none
/// of these counts.
#[test]
fn what_a_writer_says_of_collections_does_not_count() {
    let (memory, repo) = repository();
    let (session, id, pack) = store(&repo, b"some content");
    let key = repo.add_member(Role::Writer, "writer", None).unwrap();
    let open = |secret| Repository::open(Arc::new(memory.clone()), World::seeded(2), &secret, Local::default());
    let writer = open(Secret::KeyFile(key)).unwrap();
    condemn(&writer, pack);
    sweep(&writer, vec![pack], vec![session]);
    // The owner looks again: the access list has changed since it was opened.
    let session_of_writer = Session::begin(&writer).unwrap();
    assert!(session_of_writer.may_reuse(&id) && session_of_writer.counts(&session));
}

/// A writer's segment may speak of its own session's packs only.
#[test]
fn a_writer_cannot_list_packs_of_others() {
    use crate::format::segment::{Origin, Segment};
    let (memory, repo) = repository();
    let (victim, _, pack) = store(&repo, b"some content");
    let key = repo.add_member(Role::Writer, "writer", None).unwrap();
    let writer = Repository::open(Arc::new(memory), World::seeded(2), &Secret::KeyFile(key), Local::default()).unwrap();
    let session = Session::begin(&writer).unwrap();
    let planted = writer.keys.ids.chunk(ChunkKind::Data, b"planted");
    let commits = writer.load_commits(&mut writer.open_catalog()).unwrap();
    let origin = Origin {
        session: victim,
        epoch: writer.keys.current_epoch().id,
        credential: commits.headers[&victim].credential,
        envelope: vec![0; 1169],
    };
    let mut entry = crate::format::segment::PackEntry {
        id: pack,
        origin: 0,
        stored_bytes: 4096,
        salt: [0; 32],
        frame_commitment: [0; 32],
        frames: vec![],
    };
    entry.frames.push(crate::format::pack::Frame {
        kind: FrameKind::Data,
        compression: 0,
        sealed_bytes: 47,
        plain_bytes: 7,
        chunks: vec![crate::format::pack::ChunkEntry { id: planted, bytes: 7 }],
    });
    let segment = Segment { origins: vec![origin], packs: vec![entry] };
    let hash = writer.put_hashed_record(RecordKind::Segment, "index/", &segment.encode()).unwrap();
    let commit = crate::format::session::Commit {
        session: session.id(),
        kind: CommitKind::Maintenance,
        time_secs: 1,
        sequence: 1,
        previous: vec![],
        envelope: session.envelope().to_vec(),
        segments: vec![hash],
        inline_segment: vec![],
        supersedes: vec![],
        snapshot: vec![],
        replaces: vec![],
        extra: Extra::default(),
    };
    put(&writer, RecordKind::Commit, &format!("snapshots/{}", session.id()), &cbor::encode(&commit));
    let later = Session::begin(&writer).unwrap();
    assert!(!later.may_reuse(&planted));
    assert!(later.faults().iter().any(|(name, _)| name.contains(&hash.to_string())), "{:?}", later.faults());
}

/// Bytes that do not have their id never become a chunk, whatever went wrong before.
#[test]
fn a_chunk_whose_bytes_changed_in_memory_is_not_stored() {
    let (memory, repo) = repository();
    let session = Arc::new(Session::begin(&repo).unwrap());
    let id = repo.keys.ids.chunk(ChunkKind::Data, b"what was read");
    let mut writer = PackWriter::new(session.clone(), PackSettings::default(), Arc::new(|_| {}));
    let frame = PlainFrame { chunks: vec![(id, 13)], ..writer.bare_frame(b"what was reaD") };
    writer.add(FrameKind::Data, frame).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("changed in memory"));
    assert!(!memory.snapshot().keys().any(|name| name.starts_with("packs/")));
}
