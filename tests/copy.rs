//! Risk: a copy lacks something that its snapshot names, says that it is what it is not, carries damage over,
//! stores again what is there, or writes to the source; a mirror is at some moment worse than an older one.
//! Method: repositories made alike and not, copied between, over storages that record, stop at every call, run
//! full or let something happen between two calls; sources with damage and forged chunks; after each, a
//! check of everything, and restores compared with the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

#[allow(dead_code)]
#[path = "support/between.rs"]
mod between;
#[allow(dead_code)]
#[path = "support/forge.rs"]
mod forge;
#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use between::Between;
use esker::chunk::cut::Parameters;
use esker::copy::{self, Done, Ids, Options, Report, mirror};
use esker::crypto::ident::ChunkKind;
use esker::error::{Error, Kind, Result};
use esker::format::session::{CommitKind, Original};
use esker::format::tree::{Detail, Entry, Piece};
use esker::monitor::{Monitor, Problem, Sink};
use esker::path::TreePath;
use esker::repo::content::Reader;
use esker::repo::reader::{Pieces, ReadRepo, find};
use esker::repo::snapshots::{Filter, SnapshotInfo};
use esker::restore;
use esker::storage::fault::{Faulty, Plan};
use esker::storage::memory::Memory;
use esker::storage::record::{Operation, Recording};
use esker::storage::{ErrorKind, Storage, WriteMode};
use forge::Forger;
use repo::{Scene, init_options, noise, tiny_packs};

/// Files of every kind: small, of many chunks, with holes, of zeros, with several names.
fn write_tree(root: &Path) {
    fs::create_dir_all(root.join("sub/deep/empty")).unwrap();
    for n in 0..12 {
        fs::write(root.join(format!("sub/file-{n:02}")), noise(n, 3_000)).unwrap();
    }
    fs::write(root.join("sub/deep/large"), noise(100, 250_000)).unwrap();
    fs::hard_link(root.join("sub/deep/large"), root.join("again")).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("zeros"), vec![0; 200_000]).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 500_000).unwrap();
    std::os::unix::fs::symlink("sub/file-00", root.join("link")).unwrap();
}

fn source() -> Scene {
    let scene = Scene::new(Arc::new(Memory::new()));
    write_tree(&scene.source());
    scene
}

/// A new repository, made alike if so.
fn target(like: Option<&Scene>, storage: Arc<dyn Storage>) -> Scene {
    let like = like.map(|scene| scene.open().keys.content_keys().unwrap());
    let chunker = Parameters::with_average(if like.is_some() { 16 << 10 } else { 4 << 10 });
    Scene::of(&esker::repo::open::InitOptions { like, chunker, ..init_options() }, storage)
}

fn options(scene: &Scene) -> Options {
    Options {
        filter: Filter::default(),
        snapshots: Vec::new(),
        verify: false,
        packs: scene.packs,
        threads: 2,
        checkpoint_bytes: u64::MAX,
        checkpoint_secs: i64::MAX,
    }
}

/// Keeps what is reported.
#[derive(Default)]
struct Kept(std::sync::Mutex<Vec<String>>);

impl Sink for Kept {
    fn problem(&self, problem: &Problem) {
        self.0.lock().unwrap().push(format!("{}: {}", problem.item, problem.message));
    }
}

struct Outcome {
    ids: Ids,
    report: Report,
    done: Vec<Done>,
    problems: Vec<String>,
}

fn try_copy(from: &Scene, to: &Scene, options: &Options) -> Result<Outcome> {
    let (source, target) = (from.try_open()?, to.try_open()?);
    let (reader, there) = (Reader::new(&source)?, Reader::new(&target)?);
    let plan = copy::plan(&reader, &there, options)?;
    let (ids, kept, mut done) = (plan.ids, Arc::new(Kept::default()), Vec::new());
    let report = copy::run(&reader, &there, plan, options, &Monitor::new(kept.clone()), &mut |one| {
        done.push(one.clone());
        Ok(())
    })?;
    let problems = kept.0.lock().unwrap().clone();
    Ok(Outcome { ids, report, done, problems })
}

fn copied(from: &Scene, to: &Scene) -> Outcome {
    let outcome = try_copy(from, to, &options(to)).unwrap();
    assert_eq!(outcome.problems, [""; 0]);
    outcome
}

fn snapshots(scene: &Scene) -> Vec<SnapshotInfo> {
    let repo = scene.open();
    let (found, unreadable) = Reader::new(&repo).unwrap().snapshots(&Filter::default()).unwrap();
    assert!(unreadable.is_empty());
    found
}

/// What a snapshot of the source's files at `base` restores as.
fn restored(scene: &Scene, info: &SnapshotInfo, base: &Path) -> Vec<String> {
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("restored");
    let base = TreePath::from_os(base).unwrap();
    let options = restore::Options::new(&target);
    let report = restore::run(&reader, &info.snapshot.root, &base, &options, &Monitor::silent()).unwrap();
    assert_eq!(report.problems, 0);
    tree::lines(&target)
}

fn assert_sound(scene: &Scene, when: &str) {
    let report = scene.check();
    assert!(report.faults.is_empty(), "{:?}, {when}", report.faults);
}

/// Every snapshot of the source is at the target once, and restores as it does.
fn assert_same(from: &Scene, to: &Scene, when: &str) {
    assert_sound(to, when);
    let (ours, theirs) = (snapshots(from), snapshots(to));
    assert_eq!(ours.len(), theirs.len(), "{when}");
    for (our, their) in ours.iter().zip(&theirs) {
        let repo = from.open().config.repo;
        assert_eq!(their.snapshot.original, Some(Original { session: our.id(), repo: Some(repo) }), "{when}");
        assert!(restored(from, our, &from.source()) == restored(to, their, &from.source()), "{when}");
        let said = |info: &SnapshotInfo| {
            let snapshot = &info.snapshot;
            (snapshot.time, snapshot.hostname.clone(), snapshot.tags.clone(), snapshot.paths.clone(), snapshot.summary)
        };
        assert_eq!(said(our), said(their), "{when}");
    }
}

/// The ids of chunks, nodes included, that a repository stores.
fn stored_ids(scene: &Scene) -> BTreeSet<esker::id::ChunkId> {
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let mut ids = BTreeSet::new();
    reader.catalog().each_chunk(|rows| {
        assert_eq!(rows.len(), 1, "a chunk is stored twice");
        ids.insert(rows[0].row.id);
    });
    ids
}

#[test]
fn a_copy_between_repositories_made_alike_shares_every_id_and_stores_nothing_twice() {
    let from = source();
    from.backup();
    let to = target(Some(&from), Arc::new(Memory::new()));
    let first = copied(&from, &to);
    assert_eq!((first.ids, first.report.copied), (Ids::Same, 1));
    assert_same(&from, &to, "once");
    assert_eq!(stored_ids(&from), stored_ids(&to));
    assert_eq!(snapshots(&from)[0].snapshot.root, snapshots(&to)[0].snapshot.root);

    // What the target has by its own backups is not stored again either.
    fs::write(from.source().join("note"), "new").unwrap();
    from.backup();
    let second = copied(&from, &to);
    assert_eq!(second.report.copied, 1);
    assert!(second.report.added_bytes < 8_000, "{:?}", second.report);
    assert_same(&from, &to, "twice");
    let third = copied(&from, &to);
    assert_eq!((third.report.copied, third.report.stored_bytes), (0, 0));
    assert_eq!(snapshots(&to)[1].snapshot.parent, Some(snapshots(&to)[0].id()), "the copy's parent is a copy");
}

#[test]
fn a_copy_into_a_repository_with_other_ids_is_cut_anew_and_restores_the_same() {
    let from = source();
    from.backup();
    let to = target(None, Arc::new(Memory::new()));
    let first = copied(&from, &to);
    assert_eq!((first.ids, first.report.copied), (Ids::Other, 1));
    assert_same(&from, &to, "once");
    assert!(stored_ids(&from).is_disjoint(&stored_ids(&to)));
    // It is what a backup of the same files there would be: nothing is stored twice by that.
    let own = to.open();
    let mut own_options = to.options();
    own_options.roots = from.options().roots;
    let report = esker::backup::run(&own, &own_options, &Monitor::silent()).unwrap();
    let ids = |root: &Entry| match root.detail {
        Detail::Directory { id, level, .. } => (id, level),
        _ => panic!("no directory"),
    };
    let base = TreePath::from_os(&from.source()).unwrap();
    let reader = Reader::new(&own).unwrap();
    let copy = snapshots(&to).into_iter().find(|info| info.id() != report.id).unwrap();
    let below = |root: &Entry| ids(&find(&reader, root, &base).unwrap());
    assert_eq!(below(&copy.snapshot.root), below(&report.snapshot.root));
}

/// The reads of packs, in bytes, that a copy costs at the source.
fn read_at_source(from: &Scene, to: &Scene) -> u64 {
    let recording = Recording::new(from.open().storage);
    let outcome = copied(&from.over(Arc::new(recording.clone())), to);
    assert_eq!(outcome.report.copied, 1);
    let calls = recording.calls();
    calls.iter().filter(|call| call.name.starts_with("packs/")).map(|call| call.bytes).sum()
}

#[test]
fn what_was_copied_before_is_not_read_again() {
    for alike in [true, false] {
        let from = source();
        fs::write(from.source().join("sub/larger"), noise(200, 3_000_000)).unwrap();
        from.backup();
        let to = target(alike.then_some(&from), Arc::new(Memory::new()));
        let all = read_at_source(&from, &to);
        assert!(all > 3_200_000, "{all}");
        fs::write(from.source().join("sub/note"), "new").unwrap();
        from.backup();
        // By another run, which learns what became of the files from the two snapshots.
        let again = read_at_source(&from, &to);
        // Nodes are read ahead, with some of what lies before them.
        assert!(again < all / 4, "{again} of {all}, alike: {alike}");
        assert_same(&from, &to, "again");
        // Both by one run, into another target.
        let to = target(alike.then_some(&from), Arc::new(Memory::new()));
        let recording = Recording::new(from.open().storage);
        copied(&from.over(Arc::new(recording.clone())), &to);
        let bytes: u64 =
            recording.calls().iter().filter(|call| call.name.starts_with("packs/")).map(|call| call.bytes).sum();
        assert!(bytes < all + all / 4, "{bytes} of {all}, alike: {alike}");
        assert_same(&from, &to, "at once");
    }
}

/// borg#9022: a copy wrote to the source.
#[test]
fn nothing_is_written_to_the_source() {
    for alike in [true, false] {
        let from = source();
        from.backup();
        let recording = Recording::new(from.open().storage);
        let to = target(alike.then_some(&from), Arc::new(Memory::new()));
        recording.clear();
        let options = Options { verify: true, ..options(&to) };
        try_copy(&from.over(Arc::new(recording.clone())), &to, &options).unwrap();
        let reads = [Operation::Get, Operation::GetRange, Operation::List, Operation::Stat];
        let calls = recording.calls();
        assert!(calls.len() > 5 && calls.iter().all(|call| reads.contains(&call.operation)), "{calls:?}");
    }
}

/// duplicacy#465: a copy that was not announced lost its chunks to a collection.
#[test]
fn a_copy_is_a_session_that_announces_itself_before_it_looks_and_commits_last() {
    let from = source();
    from.backup();
    let memory: Arc<dyn Storage> = Arc::new(Memory::new());
    let to = target(Some(&from), memory.clone());
    let recording = Recording::new(memory);
    let outcome = copied(&from, &to.over(Arc::new(recording.clone())));
    let puts = recording.puts();
    let id = outcome.done[0].made.unwrap();
    assert_eq!(puts.first(), Some(&format!("sessions/{id}")));
    assert_eq!(puts.last(), Some(&format!("snapshots/{id}")));
    assert!(puts[1..puts.len() - 1].iter().all(|name| name.starts_with("packs/") || name.starts_with("index/")));
}

fn in_small_packs(to: &Scene) -> Options {
    Options { packs: tiny_packs(to.packs), checkpoint_bytes: 80 << 10, ..options(to) }
}

#[test]
fn a_copy_that_stops_at_any_call_of_the_target_goes_on_and_makes_each_snapshot_once() {
    for alike in [true, false] {
        let from = source();
        from.backup();
        fs::write(from.source().join("sub/note"), "new").unwrap();
        from.backup();
        let packs = |to: &Scene| esker::repo::pack_writer::PackSettings { frame_bytes: 4 << 10, ..to.packs };
        let whole = |to: &Scene| Options { checkpoint_bytes: 80 << 10, packs: packs(to), ..options(to) };
        let memory = Memory::new();
        let to = target(alike.then_some(&from), Arc::new(memory.clone()));
        let counting = Faulty::new(Arc::new(memory), Plan::none());
        try_copy(&from, &to.over(Arc::new(counting.clone())), &whole(&to)).unwrap();
        let changes = counting.changes();
        assert!(changes > 15, "{changes}");
        for stop in (1..=changes).filter(|stop| stop % 2 == u64::from(alike) || stop + 4 > changes) {
            let memory = Memory::new();
            let to = target(alike.then_some(&from), Arc::new(memory.clone()));
            let stopping = Faulty::new(Arc::new(memory), Plan::crash_at(stop));
            let when = format!("stopped at {stop} of {changes}, alike: {alike}");
            assert!(try_copy(&from, &to.over(Arc::new(stopping)), &whole(&to)).is_err(), "{when}");
            assert_sound(&to, &when);
            let again = try_copy(&from, &to, &whole(&to)).unwrap();
            assert_eq!(again.problems, [""; 0], "{when}");
            if stop % 8 < 2 || stop == changes {
                assert_same(&from, &to, &when);
            } else {
                assert_eq!(snapshots(&to).len(), 2, "{when}");
            }
        }
    }
}

#[test]
fn what_an_interrupted_copy_has_stored_is_not_stored_again() {
    for alike in [true, false] {
        let from = source();
        from.backup();
        let run = |k: u64, monitor: &Monitor| {
            let memory: Arc<dyn Storage> = Arc::new(Memory::new());
            let to = target(alike.then_some(&from), memory.clone());
            let stop = monitor.clone();
            let between = Between::new(memory, k, move || stop.stop());
            let (source, there) = (from.open(), to.over(Arc::new(between.clone())).open());
            let (reader, target) = (Reader::new(&source).unwrap(), Reader::new(&there).unwrap());
            let options = in_small_packs(&to);
            let plan = copy::plan(&reader, &target, &options).unwrap();
            let copied = copy::run(&reader, &target, plan, &options, monitor, &mut |_| Ok(()));
            (to, between.calls(), copied)
        };
        let (_, calls, whole) = run(u64::MAX, &Monitor::silent());
        assert_eq!(whole.unwrap().copied, 1);
        let (to, _, stopped) = run(calls / 2, &Monitor::silent());
        let error = stopped.unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted, "{error:?}");
        let kinds: BTreeSet<_> =
            Reader::new(&to.open()).unwrap().commits().headers.values().map(|header| header.kind).collect();
        assert!(!kinds.contains(&CommitKind::Snapshot), "{kinds:?}");
        let before = stored_ids(&to).len();
        assert!(before > 8, "{before}");
        let rest = copied(&from, &to);
        assert!(rest.report.added_bytes < 280_000, "{:?}", rest.report);
        // This asserts that no chunk is there twice.
        assert!(stored_ids(&to).len() > before);
        assert_same(&from, &to, "after an interruption");
    }
}

#[test]
fn a_checkpoint_is_superseded_by_the_snapshot_it_was_for() {
    let from = source();
    from.backup();
    let to = target(Some(&from), Arc::new(Memory::new()));
    let outcome = try_copy(&from, &to, &in_small_packs(&to)).unwrap();
    let repo = to.open();
    let reader = Reader::new(&repo).unwrap();
    let headers = &reader.commits().headers;
    let checkpoints = headers.values().filter(|header| header.kind == CommitKind::Checkpoint).count();
    assert!(checkpoints > 1, "{checkpoints}");
    assert_eq!(headers[&outcome.done[0].made.unwrap()].supersedes.len(), checkpoints);
    assert_same(&from, &to, "with checkpoints");
}

#[test]
fn a_target_that_is_full_keeps_nothing_that_lacks_something_and_the_copy_goes_on_later() {
    for alike in [true, false] {
        let from = source();
        from.backup();
        for nth in 1..4 {
            let memory = Memory::new();
            let to = target(alike.then_some(&from), Arc::new(memory.clone()));
            let plan = Plan::none().failing_from(Operation::Put, "packs/", nth, ErrorKind::Full);
            let full = to.over(Arc::new(Faulty::new(Arc::new(memory), plan)));
            let error = try_copy(&from, &full, &in_small_packs(&to)).err().unwrap();
            assert_eq!(error.storage_kind(), Some(ErrorKind::Full), "{error:?}");
            assert!(snapshots(&to).is_empty());
            copied(&from, &to);
            assert_same(&from, &to, "with room again");
        }
    }
}

/// The chunks of a file of the newest snapshot.
fn chunks_of(scene: &Scene, below: &str) -> Vec<esker::id::ChunkId> {
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let info = reader.find_snapshot("latest", &Filter::default()).unwrap();
    let path = TreePath::from_os(&scene.source().join(below)).unwrap();
    let entry = find(&reader, &info.snapshot.root, &path).unwrap();
    let Detail::File { content, .. } = entry.detail else { panic!("{below} is no file") };
    let pieces = Pieces::new(&reader, &content).map(Result::unwrap);
    pieces.filter_map(|piece| if let Piece::Chunk { id, .. } = piece { Some(id) } else { None }).collect()
}

/// Flips a bit where a chunk lies.
fn damage(scene: &Scene, chunk: &esker::id::ChunkId) {
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let at = reader.locate(chunk).unwrap().frame;
    let name = esker::repo::session::pack_name(&reader.pack(at.pack).unwrap().id);
    let mut bytes = repo.storage.get(&name).unwrap();
    bytes[at.offset as usize + 30] ^= 1;
    repo.storage.put(&name, &bytes, WriteMode::Replace).unwrap();
}

#[test]
fn a_snapshot_with_damage_is_named_and_not_made_and_others_are_copied() {
    for alike in [true, false] {
        let mut from = source();
        from.packs = tiny_packs(from.packs);
        from.backup();
        fs::write(from.source().join("bad"), noise(500, 300_000)).unwrap();
        fs::create_dir(from.source().join("sub/also")).unwrap();
        fs::write(from.source().join("sub/also/bad"), noise(501, 30_000)).unwrap();
        from.backup();
        let lost = [chunks_of(&from, "bad")[1], chunks_of(&from, "sub/also/bad")[0]];
        fs::remove_file(from.source().join("bad")).unwrap();
        fs::remove_dir_all(from.source().join("sub/also")).unwrap();
        from.backup();
        lost.iter().for_each(|chunk| damage(&from, chunk));
        let to = target(alike.then_some(&from), Arc::new(Memory::new()));
        let outcome = try_copy(&from, &to, &options(&to)).unwrap();
        assert_eq!((outcome.report.copied, outcome.report.failed), (2, 1), "{:?}", outcome.problems);
        assert_eq!(outcome.done.iter().map(|done| done.damaged).collect::<Vec<_>>(), [0, 2, 0]);
        assert_eq!(outcome.problems.len(), 2, "{:?}", outcome.problems);
        for (problem, path) in outcome.problems.iter().zip(["bad", "sub/also/bad"]) {
            let item = format!("{}:{}", snapshots(&from)[1].id().short(), from.source().join(path).display());
            assert!(problem.starts_with(&item), "{problem}");
        }
        assert_sound(&to, "after damage");
        let ours = snapshots(&from);
        let originals: Vec<_> = snapshots(&to).iter().map(|info| info.snapshot.original.unwrap().session).collect();
        assert_eq!(originals, [ours[0].id(), ours[2].id()]);
        // And it is not taken for copied.
        let again = try_copy(&from, &to, &options(&to)).unwrap();
        assert_eq!((again.report.copied, again.report.failed), (0, 1));
    }
}

/// A directory that is damaged: what is below it cannot be told, and nothing of it is skipped as known.
#[test]
fn a_damaged_directory_fails_every_snapshot_that_has_it() {
    for alike in [true, false] {
        let from = source();
        from.backup();
        fs::write(from.source().join("note"), "new").unwrap();
        from.backup();
        let repo = from.open();
        let reader = Reader::new(&repo).unwrap();
        let info = reader.find_snapshot("latest", &Filter::default()).unwrap();
        let path = TreePath::from_os(&from.source().join("sub")).unwrap();
        let Detail::Directory { id, .. } = find(&reader, &info.snapshot.root, &path).unwrap().detail else { panic!() };
        let at = reader.locate(&id).unwrap().frame;
        let name = esker::repo::session::pack_name(&reader.pack(at.pack).unwrap().id);
        let mut bytes = repo.storage.get(&name).unwrap();
        bytes[at.offset as usize + 30] ^= 1;
        repo.storage.put(&name, &bytes, WriteMode::Replace).unwrap();
        drop(reader);
        let to = target(alike.then_some(&from), Arc::new(Memory::new()));
        let outcome = try_copy(&from, &to, &options(&to)).unwrap();
        assert_eq!((outcome.report.copied, outcome.report.failed), (0, 2), "{:?}", outcome.problems);
        assert!(snapshots(&to).is_empty());
    }
}

/// A writer of the source has listed other bytes under a chunk's id, and made a snapshot that names it.
#[test]
fn wrong_bytes_under_an_id_are_refused_and_do_not_reach_the_target() {
    for alike in [true, false] {
        let from = source();
        from.backup();
        let writer = from.writer().open();
        let id = writer.keys.ids.chunk(ChunkKind::Data, b"what it should be");
        let mut forger = Forger::new(&writer);
        forger.chunk_as(ChunkKind::Data, id, b"what it should bE");
        let content = esker::format::tree::Content::Inline(vec![Piece::Chunk { id, bytes: 17 }]);
        let poisoned = forge::entry("poisoned", Detail::File { size: 17, content, holes: Vec::new() });
        forger.snapshot(vec![poisoned]);
        let to = target(alike.then_some(&from), Arc::new(Memory::new()));
        let outcome = try_copy(&from, &to, &options(&to)).unwrap();
        assert_eq!((outcome.report.copied, outcome.report.failed), (1, 1), "{:?}", outcome.problems);
        assert!(outcome.problems[0].contains("/poisoned"), "{:?}", outcome.problems);
        assert_sound(&to, "beside poison");
        assert_eq!(snapshots(&to).len(), 1);
    }
}

#[test]
fn a_file_that_is_not_as_long_as_it_says_is_damage() {
    for alike in [true, false] {
        let from = source();
        let writer = from.writer().open();
        let mut forger = Forger::new(&writer);
        // Inline pieces that do not add up are refused with their node; so it is a list.
        let piece = Piece::Chunk { id: forger.chunk(ChunkKind::Data, b"seven b"), bytes: 7 };
        let node = esker::format::cbor::encode(&esker::format::tree::ListNode::Pieces(vec![piece]));
        let id = forger.chunk(ChunkKind::List, &node);
        let content = esker::format::tree::Content::List { id, level: 0 };
        let long = forge::entry("long", Detail::File { size: 8, content, holes: Vec::new() });
        forger.snapshot(vec![long]);
        let to = target(alike.then_some(&from), Arc::new(Memory::new()));
        let outcome = try_copy(&from, &to, &options(&to)).unwrap();
        assert_eq!((outcome.report.copied, outcome.report.failed), (0, 1), "{:?}", outcome.problems);
        assert!(outcome.problems[0].contains("/long"), "{:?}", outcome.problems);
    }
}

#[test]
fn a_writer_at_the_target_copies_what_it_cannot_read_and_remembers_it() {
    for alike in [true, false] {
        let from = source();
        from.backup();
        let owner = target(alike.then_some(&from), Arc::new(Memory::new()));
        let writer = owner.writer();
        assert_eq!(copied(&from, &writer).report.copied, 1);
        assert_eq!(copied(&from, &writer).report.copied, 0);
        fs::write(from.source().join("note"), "new").unwrap();
        from.backup();
        let second = copied(&from, &writer).report;
        assert_eq!(second.copied, 1);
        assert!(second.added_bytes < 8_000, "{second:?}");
        assert_same(&from, &owner, "by a writer");
        let refused = try_copy(&from, &writer, &Options { verify: true, ..options(&writer) }).err().unwrap();
        assert_eq!(refused.kind(), Kind::Refused);
        // Its machine forgets: the snapshots are there twice, their data is not.
        fs::remove_dir_all(writer.cache()).unwrap();
        let again = copied(&from, &writer).report;
        assert_eq!((again.copied, again.added_bytes), (2, 0));
    }
}

/// What a writer that is not relied on says it has copied is copied all the same.
#[test]
fn a_stolen_writer_cannot_keep_a_snapshot_from_being_copied() {
    let from = source();
    from.backup();
    let to = target(Some(&from), Arc::new(Memory::new()));
    let writer = to.writer().open();
    let mut forger = Forger::new(&writer);
    forger.directory("x", Vec::new());
    let lie = snapshots(&from)[0].clone();
    let original = Some(Original { session: lie.id(), repo: Some(from.open().config.repo) });
    let lie = esker::format::session::Snapshot { original, ..*lie.snapshot };
    forger.put_pack();
    forger.put_commit(&forger.commit(Some(&lie)));
    assert_eq!(copied(&from, &to).report.copied, 1);
}

#[test]
fn a_snapshot_that_comes_home_is_known_and_one_with_other_tags_is_another() {
    for alike in [true, false] {
        let from = source();
        let first = from.backup();
        let to = target(alike.then_some(&from), Arc::new(Memory::new()));
        copied(&from, &to);
        assert_eq!(copied(&to, &from).report.copied, 0, "it came from there");
        // Brought back after it was forgotten, it is the same snapshot under another id.
        let repo = from.open();
        let info = snapshots(&from).remove(0);
        esker::forget::run(&repo, std::slice::from_ref(&info), 1000).unwrap();
        let reader = Reader::new(&repo).unwrap();
        esker::forget::undelete(&reader, &info, &Monitor::silent()).unwrap();
        assert_eq!(copied(&from, &to).report.copied, 0);
        // A version with another tag is not.
        let session = esker::repo::session::Session::begin(&repo).unwrap();
        let tagged = esker::format::session::Snapshot { tags: vec!["t".into()], ..info.as_original() };
        session.commit(CommitKind::Snapshot, Vec::new(), Some(&tagged), Vec::new()).unwrap();
        assert_eq!(copied(&from, &to).report.copied, 1);
        let originals = snapshots(&to).into_iter().map(|info| info.snapshot.original.unwrap().session);
        assert_eq!(originals.collect::<Vec<_>>(), [first.id, first.id]);
        // Of a third repository that copies of the copy, too.
        let third = target(None, Arc::new(Memory::new()));
        copied(&to, &third);
        assert_eq!(copied(&from, &third).report.copied, 0, "copied by way of another");
    }
}

#[test]
fn only_what_is_asked_for_is_copied() {
    let from = source();
    let ids: Vec<_> = (0..3)
        .map(|n| {
            let tags = vec![format!("t{n}")];
            esker::backup::run(&from.open(), &esker::backup::Options { tags, ..from.options() }, &Monitor::silent())
                .unwrap()
                .id
        })
        .collect();
    let to = target(None, Arc::new(Memory::new()));
    let of = |options: Options| {
        try_copy(&from, &to, &options).map(|done| done.done.iter().map(|done| done.from.id()).collect::<Vec<_>>())
    };
    let filter = Filter { tags: vec!["t1".into()], ..Filter::default() };
    assert_eq!(of(Options { filter, ..options(&to) }).unwrap(), [ids[1]]);
    let named = vec![ids[2].to_string(), ids[0].short(), "latest".into()];
    assert_eq!(of(Options { snapshots: named, ..options(&to) }).unwrap(), [ids[0], ids[2]]);
    let error = of(Options { snapshots: vec!["ffffff".into()], ..options(&to) }).unwrap_err();
    assert!(error.to_string().contains("ffffff"), "{error}");
    let same = try_copy(&from, &from, &options(&from)).err().unwrap();
    assert_eq!(same.kind(), Kind::Usage);
}

/// The target loses a bit between the commit and the reading back.
#[test]
fn a_copy_that_does_not_read_back_is_told() {
    for alike in [true, false] {
        let from = source();
        from.backup();
        let run = |k: Option<u64>, verify: bool| {
            let memory: Arc<dyn Storage> = Arc::new(Memory::new());
            let to = target(alike.then_some(&from), memory.clone());
            let repo = memory.clone();
            let between = match k {
                None => Between::counting(memory),
                Some(k) => Between::new(memory, k, move || {
                    for pack in repo.list("packs/").unwrap() {
                        let mut bytes = repo.get(&pack.name).unwrap();
                        bytes[100] ^= 1;
                        repo.put(&pack.name, &bytes, WriteMode::Replace).unwrap();
                    }
                }),
            };
            let options = Options { verify, ..options(&to) };
            let outcome = try_copy(&from, &to.over(Arc::new(between.clone())), &options).unwrap();
            (outcome, between.calls())
        };
        let (_, calls) = run(None, false);
        let (good, _) = run(None, true);
        assert!(good.done[0].verified && good.report.copied == 1);
        let (bad, _) = run(Some(calls), true);
        assert_eq!((bad.report.copied, bad.report.failed), (0, 1), "{:?}", bad.problems);
        assert!(bad.done[0].made.is_some() && !bad.done[0].verified && bad.done[0].damaged > 0);
    }
}

// Mirrors.

const MIRROR: mirror::Options = mirror::Options { delete: false, max_delete_percent: 30.0, verify: false };

fn mirrored(from: &dyn Storage, to: &dyn Storage, options: &mirror::Options) -> Result<mirror::Report> {
    mirror::run(from, to, options, &Monitor::silent(), |_| Ok(()))
}

fn objects(storage: &dyn Storage) -> BTreeMap<String, Vec<u8>> {
    let all = storage.list("").unwrap().into_iter();
    all.map(|object| (object.name.clone(), storage.get(&object.name).unwrap())).collect()
}

/// The repository at another place, as its owner finds it there; `None` if there is none.
fn there(scene: &Scene, storage: &Memory) -> Option<Scene> {
    let _ = fs::remove_dir_all(scene.dir().join("cache-of-mirror"));
    let scene = scene.over(Arc::new(storage.clone())).caching_in(scene.dir().join("cache-of-mirror"));
    match scene.try_open() {
        Ok(_) => Some(scene),
        Err(error) if error.kind() == Kind::NoRepository => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// The states a source comes to, one after the other: the last is the first backup forgotten and collected.
const AGES: [&str; 3] = ["a first backup", "a second", "a collection"];

fn make_age(scene: &Scene, age: usize) {
    match age {
        0 => drop(scene.backup()),
        1 => {
            fs::remove_file(scene.source().join("again")).unwrap();
            fs::write(scene.source().join("sub/deep/large"), noise(101, 90_000)).unwrap();
            scene.backup();
        }
        _ => {
            let repo = scene.open();
            let oldest = snapshots(scene).remove(0);
            esker::forget::run(&repo, &[oldest], 0).unwrap();
            for _ in 0..2 {
                let options = esker::prune::Options {
                    limits: esker::prune::plan::Limits {
                        max_unused: esker::prune::plan::Unused::Percent(0.0),
                        ..esker::prune::plan::Limits::default()
                    },
                    packs: scene.packs,
                    patience: std::time::Duration::ZERO,
                    ignore_clock: true,
                    close_lost: false,
                    fold_from: 64,
                    threads: 1,
                };
                esker::prune::run(&repo, &options, &Monitor::silent(), |_| Ok(())).unwrap();
            }
        }
    }
}

#[test]
fn a_mirror_that_stops_anywhere_is_an_older_repository_or_none_and_goes_on() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone())).with_tiny_packs();
    write_tree(&scene.source());
    let place = Memory::new();
    for (age, what) in AGES.into_iter().enumerate() {
        let before = objects(&place);
        make_age(&scene, age);
        let stops = {
            let trial = copy_of(&place);
            let counting = Faulty::new(Arc::new(trial), Plan::none());
            mirrored(&memory, &counting, &MIRROR).unwrap();
            counting.changes()
        };
        assert!(stops > 4, "{stops}");
        for stop in (1..=stops).filter(|stop| stop % (1 + stops / 12) == 0 || *stop + 6 > stops || *stop < 3) {
            let trial = copy_of(&place);
            let when = format!("{what}, stopped at {stop} of {stops}");
            let stopping = Faulty::new(Arc::new(trial.clone()), Plan::crash_at(stop));
            assert!(mirrored(&memory, &stopping, &MIRROR).is_err(), "{when}");
            match there(&scene, &trial) {
                Some(found) => assert_sound(&found, &when),
                None => assert!(before.is_empty(), "{when}"),
            }
            mirrored(&memory, &trial, &MIRROR).unwrap();
            assert!(objects(&memory).iter().all(|object| objects(&trial).get(object.0) == Some(object.1)), "{when}");
        }
        mirrored(&memory, &place, &MIRROR).unwrap();
        assert_sound(&there(&scene, &place).unwrap(), what);
    }
    // What the collection has deleted is still at the mirror, until it is to go.
    assert!(objects(&place).len() > objects(&memory).len());
    let delete = mirror::Options { delete: true, ..MIRROR };
    let stops = {
        let counting = Faulty::new(Arc::new(copy_of(&place)), Plan::none());
        mirrored(&memory, &counting, &delete).unwrap();
        counting.changes()
    };
    for stop in (1..=stops).filter(|stop| stop % (1 + stops / 12) == 0 || *stop + 3 > stops || *stop < 4) {
        let trial = copy_of(&place);
        let stopping = Faulty::new(Arc::new(trial.clone()), Plan::crash_at(stop));
        mirrored(&memory, &stopping, &delete).unwrap_err();
        assert_sound(&there(&scene, &trial).unwrap(), &format!("deleting, stopped at {stop} of {stops}"));
    }
    let report = mirrored(&memory, &place, &delete).unwrap();
    assert!(report.deleted > 0 && report.copied == 0, "{report:?}");
    assert!(objects(&place) == objects(&memory));
}

fn copy_of(storage: &Memory) -> Memory {
    let copy = Memory::new();
    for (name, bytes) in objects(storage) {
        copy.put(&name, &bytes, WriteMode::Replace).unwrap();
    }
    copy
}

/// While the mirror is made, backups end and a collection runs at the source.
#[test]
fn a_mirror_of_a_source_that_changes_meanwhile_is_whole() {
    let calls = {
        let memory = Memory::new();
        let scene = Scene::new(Arc::new(memory.clone())).with_tiny_packs();
        write_tree(&scene.source());
        (0..2).for_each(|age| make_age(&scene, age));
        let counting = Between::counting(Arc::new(memory));
        mirrored(&counting, &Memory::new(), &MIRROR).unwrap();
        counting.calls()
    };
    for k in (0..calls).filter(|k| *k < 8 || k % (1 + calls / 6) == 0) {
        let memory = Memory::new();
        let scene = Scene::new(Arc::new(memory.clone())).with_tiny_packs();
        write_tree(&scene.source());
        (0..2).for_each(|age| make_age(&scene, age));
        let owner = scene.over(Arc::new(memory.clone()));
        let changing = Between::new(Arc::new(memory), k, move || make_age(&owner, 2));
        let place = Memory::new();
        mirrored(&changing, &place, &MIRROR).unwrap();
        assert_sound(&there(&scene, &place).unwrap(), &format!("collected at call {k} of {calls}"));
    }
}

#[test]
fn a_mirror_takes_nothing_that_is_damaged_and_mends_what_is() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone())).with_tiny_packs();
    write_tree(&scene.source());
    scene.backup();
    let good = copy_of(&memory);
    let place = Memory::new();
    mirrored(&memory, &place, &MIRROR).unwrap();
    let all: Vec<_> = objects(&good).into_keys().filter(|name| !name.ends_with("config")).collect();
    // One of each kind: at the mirror a bit, or the end, is lost.
    let mut kinds = BTreeMap::new();
    for name in &all {
        kinds.entry(name.split('/').next().unwrap()).or_insert(name);
    }
    assert!(kinds.len() >= 5, "{kinds:?}");
    for name in kinds.values() {
        let bytes = good.get(name).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        place.put(name, &flipped, WriteMode::Replace).unwrap();
        assert_eq!(mirrored(&memory, &place, &MIRROR).unwrap().copied, 0, "{name}: nobody has looked");
        let verify = mirror::Options { verify: true, ..MIRROR };
        assert_eq!(mirrored(&memory, &place, &verify).unwrap().mended, 1, "{name}");
        place.put(name, &bytes[..bytes.len() - 1], WriteMode::Replace).unwrap();
        assert_eq!(mirrored(&memory, &place, &MIRROR).unwrap().mended, 1, "{name}");
        assert!(objects(&place) == objects(&good), "{name}");
        // At the source: what the mirror has stays, and what it has not is not taken.
        memory.put(name, &flipped, WriteMode::Replace).unwrap();
        assert_eq!(mirrored(&memory, &place, &MIRROR).unwrap().damaged, 0, "{name}");
        assert!(objects(&place) == objects(&good), "{name}");
        place.delete(name).unwrap();
        assert_eq!(mirrored(&memory, &place, &MIRROR).unwrap().damaged, 1, "{name}");
        assert!(place.stat(name).is_err(), "{name}");
        memory.put(name, &bytes, WriteMode::Replace).unwrap();
        mirrored(&memory, &place, &MIRROR).unwrap();
    }
}

#[test]
fn a_mirror_is_of_one_repository_and_an_emptied_source_empties_no_mirror() {
    let (memory, other, place) = (Memory::new(), Memory::new(), Memory::new());
    let scene = Scene::new(Arc::new(memory.clone()));
    write_tree(&scene.source());
    scene.backup();
    mirrored(&memory, &place, &MIRROR).unwrap();
    let _other = target(Some(&scene), Arc::new(other.clone()));
    let refused = |from: &Memory, to: &Memory, options: &mirror::Options| -> Error {
        let before = objects(to);
        let error = mirrored(from, to, options).unwrap_err();
        assert!(objects(to) == before, "{error:?}");
        error
    };
    assert_eq!(refused(&memory, &other, &MIRROR).kind(), Kind::Refused, "a repository made alike is another");
    assert_eq!(refused(&Memory::new(), &place, &MIRROR).kind(), Kind::NoRepository);
    // Restic 4612 and worse: a source that lists nothing, or little.
    let delete = mirror::Options { delete: true, max_delete_percent: 100.0, verify: false };
    let emptied = copy_of(&memory);
    for (name, _) in objects(&memory).into_iter().filter(|(name, _)| name.starts_with("snapshots/")) {
        emptied.delete(&name).unwrap();
    }
    assert!(refused(&emptied, &place, &delete).to_string().contains("no snapshots left"));
    // Objects that are no repository's are neither taken for a mirror nor touched.
    let foreign = Memory::new();
    foreign.put("packs/00/ff", b"x", WriteMode::CreateNew).unwrap();
    assert_eq!(refused(&memory, &foreign, &MIRROR).kind(), Kind::Refused);
    place.put("readme", b"not ours", WriteMode::CreateNew).unwrap();
    place.put("notes/00", b"more here", WriteMode::CreateNew).unwrap();
    assert_eq!(mirrored(&memory, &place, &MIRROR).unwrap().others, 1);
    assert_eq!(mirrored(&memory, &place, &delete).unwrap().deleted, 1);
    assert!(place.get("readme").is_ok() && place.get("notes/00").is_err());
}
