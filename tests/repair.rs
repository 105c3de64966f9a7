//! Risk: a repair makes things worse: it believes what was forged, passes on damaged bytes, names as whole what
//! is not, or lets a collection take what could still be saved.
//! Method: every index segment, a commit, packs and nodes are lost or forged; what a repair then names must
//! restore to the very files of which nothing was lost, and nothing else may go.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

#[allow(dead_code)]
#[path = "support/forge.rs"]
mod forge;
#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::crypto::ident::ChunkKind;
use esker::error::{Kind, Result};
use esker::id::{PackId, SessionId};
use esker::monitor::Monitor;
use esker::prune::plan::{Limits, Unused};
use esker::prune::{self, Options as PruneOptions};
use esker::repair::index::{self, Report};
use esker::repair::snapshots::{Became, Options, REPAIRED, Repair};
use esker::repo::content::Reader;
use esker::repo::session::pack_name;
use esker::repo::snapshots::{Filter, SnapshotInfo};
use esker::storage::memory::Memory;
use esker::storage::{Storage, WriteMode};
use forge::Forger;
use repo::{Scene, noise};

fn scene(memory: &Memory) -> Scene {
    Scene::finely_cut(Arc::new(memory.clone()), 1 << 10, 3).with_tiny_packs()
}

fn names(memory: &Memory, folder: &str) -> Vec<String> {
    memory.list(folder).unwrap().into_iter().map(|object| object.name).collect()
}

fn repair_index(scene: &Scene) -> Report {
    index::run(&scene.open(), &index::Options::default(), &Monitor::silent()).unwrap()
}

fn snapshots(scene: &Scene) -> Vec<SnapshotInfo> {
    let repo = scene.open();
    Reader::new(&repo).unwrap().snapshots(&Filter::default()).unwrap().0
}

fn try_prune(scene: &Scene) -> Result<prune::Report> {
    let options = PruneOptions {
        limits: Limits { max_unused: Unused::Bytes(0), ..Limits::default() },
        packs: scene.packs,
        patience: Duration::ZERO,
        ignore_clock: false,
        close_lost: false,
        fold_from: 64,
        threads: 1,
    };
    prune::run(&scene.open(), &options, &Monitor::silent(), |_| Ok(()))
}

/// Two snapshots of many packs, whose index is in segments of their own; and what they hold.
fn two_snapshots(scene: &Scene) -> Vec<(SessionId, Vec<String>)> {
    (1..=2)
        .map(|generation| {
            for n in 0..300 {
                let seed = if n % 3 == 0 { n } else { n + 1000 * generation };
                fs::create_dir_all(scene.source().join(format!("d{}", n % 4))).unwrap();
                fs::write(scene.source().join(format!("d{}/f{n}", n % 4)), noise(seed, 2500)).unwrap();
            }
            (scene.backup().id, tree::lines(&scene.source()))
        })
        .collect()
}

fn assert_sound(scene: &Scene, made: &[(SessionId, Vec<String>)]) {
    for (id, lines) in made {
        assert!(tree::lines(&scene.restore(&id.to_string())) == *lines, "snapshot {id} differs");
    }
    let report = scene.check();
    assert!(report.faults.is_empty(), "{report:?}");
}

/// All index segments lost: nothing can be relied on and no garbage be collected, until the index is rebuilt.
#[test]
fn an_index_that_is_lost_is_made_again_from_packs() {
    let memory = Memory::new();
    let scene = scene(&memory);
    let made = two_snapshots(&scene);
    let before = scene.check();
    let segments = names(&memory, "index/");
    assert!(segments.len() >= 2, "{segments:?}");
    for segment in &segments {
        memory.delete(segment).unwrap();
    }
    let _ = fs::remove_dir_all(scene.cache());
    assert!(!scene.check().faults.is_empty());
    assert_eq!(try_prune(&scene).unwrap_err().kind(), Kind::Refused);

    let dry = index::run(&scene.open(), &index::Options { dry_run: true, ..Default::default() }, &Monitor::silent());
    let report = repair_index(&scene);
    assert_eq!(dry.unwrap().packs_added, report.packs_added);
    assert_eq!(report.packs_added, before.packs, "{report:?}");
    assert_eq!(report.packs_read, 0, "every key is an owner's");
    assert_eq!(report.segments_replaced.len(), segments.len());
    assert!(report.refused.is_empty() && report.lost.is_empty(), "{report:?}");
    assert_sound(&scene, &made);
    let again = repair_index(&scene);
    assert!(again.is_idle(), "{again:?}");
    // It can be relied on: a next backup stores nothing, and nothing live is collected.
    let stored = names(&memory, "packs/").len();
    let unchanged = scene.backup();
    // Directories around the source change by themselves.
    assert!(unchanged.snapshot.summary.data_added < 3000, "{unchanged:?}");
    assert!(names(&memory, "packs/").len() <= stored + 1);
    try_prune(&scene).unwrap();
    try_prune(&scene).unwrap();
    assert_sound(&scene, &made);
}

#[test]
fn a_damaged_segment_is_replaced_too() {
    let memory = Memory::new();
    let scene = scene(&memory);
    let made = two_snapshots(&scene);
    let segment = names(&memory, "index/").remove(0);
    let mut bytes = memory.get(&segment).unwrap();
    bytes[40] ^= 1;
    memory.put(&segment, &bytes, WriteMode::Replace).unwrap();
    let _ = fs::remove_dir_all(scene.cache());
    let report = repair_index(&scene);
    assert!(report.packs_added > 0 && report.segments_replaced.len() == 1, "{report:?}");
    assert_sound(&scene, &made);
    try_prune(&scene).unwrap();
    assert_sound(&scene, &made);
}

/// borg#9901: an index rebuilt from what headers claim believed them. Here a claim is compared with the session's
/// commit and, where a writer could have made it, with every byte.
#[test]
fn what_a_forged_directory_says_is_refused_and_named() {
    let memory = Memory::new();
    let scene = scene(&memory);
    let writer = scene.writer();
    let made = two_snapshots(&scene);
    let repo = scene.open();
    let victim = made[0].0;
    let wanted = repo.keys.ids.chunk(ChunkKind::Data, b"somebody will store this one day");
    let writers = writer.open();
    // A writer claims a session of the owner's, with an envelope of its own …
    let mut forger = Forger::of_session(&writers, victim);
    forger.chunk_as(ChunkKind::Data, wanted, b"junk");
    let as_writer = forger.put_pack();
    // … and one of its own, which it has committed, with what is not in it.
    let mut forger = Forger::new(&writers);
    forger.chunk(ChunkKind::Data, b"honest");
    forger.snapshot(vec![]);
    forger.chunk_as(ChunkKind::Data, wanted, b"more junk, of other bytes");
    let as_itself = forger.put_pack();
    // A pack of ours whose directory is cut.
    let cut = names(&memory, "packs/").into_iter().find(|name| {
        ![as_writer, as_itself].iter().any(|id| *name == pack_name(id)) && memory.get(name).unwrap().len() > 3000
    });
    let cut = cut.unwrap();
    for segment in names(&memory, "index/") {
        memory.delete(&segment).unwrap();
    }
    let mut bytes = memory.get(&cut).unwrap();
    let place = bytes.len() - 200;
    bytes[place] ^= 1;
    memory.put(&cut, &bytes, WriteMode::Replace).unwrap();

    let report = repair_index(&scene);
    let refused: BTreeSet<_> = report.refused.iter().map(|(name, _)| name.clone()).collect();
    let expected: BTreeSet<_> = [pack_name(&as_writer), pack_name(&as_itself), cut.clone()].into();
    assert_eq!(refused, expected, "{report:?}");
    assert_eq!(report.packs_read, report.packs_added, "a writer has a key, so all is read");
    let reader = Reader::without_cache(&repo).unwrap();
    assert_eq!(reader.places(&wanted).count(), 0, "what was forged is in the index");
    let named: BTreeSet<PackId> = reader.catalog().packs().iter().map(|pack| pack.id).collect();
    assert!(!named.contains(&as_writer) && !named.contains(&as_itself));
    let _ = fs::remove_dir_all(scene.cache());
    // While a pack of it is in doubt a lost segment is still missed, and nothing is collected.
    assert_eq!(try_prune(&scene).unwrap_err().kind(), Kind::Refused);
}

/// The commit of the newer snapshot is lost, and with it the index that stood in it or was named by it.
#[test]
fn a_lost_commit_is_made_again_and_its_packs_are_given_up_after() {
    let memory = Memory::new();
    let scene = scene(&memory);
    let mut made = two_snapshots(&scene);
    let (lost, lines) = made.pop().unwrap();
    // A collection clears the announcements of what has committed.
    try_prune(&scene).unwrap();
    memory.delete(&format!("snapshots/{lost}")).unwrap();
    let _ = fs::remove_dir_all(scene.cache());
    assert_eq!(snapshots(&scene).len(), 1);
    let error = try_prune(&scene).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.hint_text().unwrap().contains("repair index"), "{error:?}");

    let report = repair_index(&scene);
    let saved = &report.lost[&lost];
    assert!(saved.left.is_none() && saved.chunks > 100, "{report:?}");
    let back = saved.snapshot.unwrap();
    let info = snapshots(&scene).into_iter().find(|info| info.id() == back).unwrap();
    assert_eq!(info.snapshot.original.unwrap().session, lost);
    made.push((back, lines));
    for (id, lines) in &made {
        assert_eq!(tree::lines(&scene.restore(&id.to_string())), *lines);
    }
    assert!(repair_index(&scene).is_idle());
    // The lost session is closed, and what only it had goes.
    let packs = names(&memory, "packs/").len();
    assert_eq!(try_prune(&scene).unwrap().sessions_closed, 1);
    try_prune(&scene).unwrap();
    assert!(names(&memory, "packs/").len() < packs);
    assert_sound(&scene, &made);
}

/// A pack of the lost session is damaged: it is not passed on, and the session is not given up.
#[test]
fn what_is_damaged_of_a_lost_session_is_not_passed_on() {
    let memory = Memory::new();
    let scene = scene(&memory);
    let before: BTreeSet<_> = names(&memory, "packs/").into_iter().collect();
    let made = two_snapshots(&scene);
    let (lost, _) = made[0];
    try_prune(&scene).unwrap();
    memory.delete(&format!("snapshots/{lost}")).unwrap();
    let _ = fs::remove_dir_all(scene.cache());
    let mine = names(&memory, "packs/").into_iter().find(|name| {
        let bytes = memory.get(name).unwrap();
        let trailer = esker::format::pack::Trailer::decode(&bytes).unwrap();
        !before.contains(name) && trailer.session == lost && bytes.len() > 4000
    });
    let mine = mine.unwrap();
    let mut bytes = memory.get(&mine).unwrap();
    bytes[100] ^= 1;
    memory.put(&mine, &bytes, WriteMode::Replace).unwrap();
    let report = repair_index(&scene);
    assert_eq!(report.refused.len(), 1, "{report:?}");
    assert_eq!(report.refused[0].0, mine);
    assert!(report.lost[&lost].left.is_some() && report.lost[&lost].snapshot.is_none(), "{report:?}");
    assert_eq!(try_prune(&scene).unwrap_err().kind(), Kind::Refused);
    // Again it saves nothing more, and says the same.
    let again = repair_index(&scene);
    assert_eq!((again.lost[&lost].chunks, again.packs_added), (0, 0), "{again:?}");
    // What the second snapshot shared with it is there, but for what is damaged.
    let repaired = repair_snapshots(&scene, &Options { forget: Some(0), dry_run: false }, true);
    let [(became, gone)] = &repaired[..] else { panic!("{repaired:?}") };
    match became {
        Became::Made(_) => assert!(!gone.is_empty() && gone.len() < 20, "{gone:?}"),
        other => assert!(*other == Became::Whole && gone.is_empty(), "{repaired:?}"),
    }
}

fn repair_snapshots(scene: &Scene, options: &Options, read_data: bool) -> Vec<(Became, Vec<String>)> {
    let repo = scene.open();
    let reader = Reader::without_cache(&repo).unwrap();
    let there = reader.snapshots(&Filter::default()).unwrap().0;
    let mut repair = Repair::new(&reader, read_data).unwrap();
    let mut all = Vec::new();
    for info in &there {
        let mut lost = Vec::new();
        let report =
            repair.run(info, &there, options, &Monitor::silent(), &mut |path, _| lost.push(path.to_string())).unwrap();
        assert_eq!(report.lost, lost.len() as u64);
        all.push((report.became, lost));
    }
    all
}

/// Every pack in turn is lost, or damaged: what is made is just what is whole.
#[test]
fn of_a_snapshot_that_lacks_something_one_is_made_of_what_is_whole() {
    let memory = Memory::new();
    let scene = scene(&memory);
    for n in 0..12 {
        fs::create_dir_all(scene.source().join(format!("d{}", n % 3))).unwrap();
        fs::write(scene.source().join(format!("d{}/f{n}", n % 3)), noise(n, 3000)).unwrap();
    }
    fs::hard_link(scene.source().join("d0/f0"), scene.source().join("d1/link")).unwrap();
    fs::write(scene.source().join("empty"), "").unwrap();
    let id = scene.backup().id;
    let whole = tree::lines(&scene.source());
    let base = memory.snapshot();
    let packs = names(&memory, "packs/");
    assert!(packs.len() > 6, "{packs:?}");
    let (mut repaired, mut untouched) = (0, 0);
    for (pack, is_lost) in packs.iter().flat_map(|pack| [(pack, true), (pack, false)]) {
        memory.restore(base.clone());
        if is_lost {
            memory.delete(pack).unwrap();
        } else {
            let mut bytes = memory.get(pack).unwrap();
            bytes[60] ^= 1;
            memory.put(pack, &bytes, WriteMode::Replace).unwrap();
        }
        let _ = fs::remove_dir_all(scene.cache());
        let checked = scene.check();
        let affected: BTreeSet<_> =
            checked.faults.iter().flat_map(|fault| fault.affected.iter().map(|one| one.path.to_string())).collect();
        let options = Options { forget: Some(0), dry_run: false };
        let dry = repair_snapshots(&scene, &Options { dry_run: true, ..options.clone() }, true);
        let (became, lost) = repair_snapshots(&scene, &options, true).remove(0);
        let when = format!("{pack} {}", if is_lost { "lost" } else { "damaged" });
        assert_eq!(dry[0].1, lost, "{when}");
        assert_eq!(lost.iter().cloned().collect::<BTreeSet<_>>(), affected, "{when}");
        let new = match became {
            Became::Whole => {
                assert!(affected.is_empty(), "{when}");
                untouched += 1;
                continue;
            }
            Became::NothingLeft => continue,
            Became::Made(new) => new,
            other => panic!("{other:?}, {when}"),
        };
        repaired += 1;
        let info = snapshots(&scene);
        assert_eq!(info.len(), 1, "{when}");
        assert_eq!((info[0].id(), info[0].snapshot.original.unwrap().session), (new, id));
        assert!(info[0].snapshot.tags.iter().any(|tag| tag == REPAIRED));
        // What stands is what stood there, and what does not was named.
        if let Ok((report, target)) = scene.try_restore(&new.to_string()) {
            assert_eq!(report.problems, 0, "{report:?}, {when}");
            let restored = tree::lines(&target);
            let source = scene.source().display().to_string();
            let is_lost = |line: &String| {
                let path = format!("{source}/{}", line.split(' ').next().unwrap());
                lost.iter().any(|lost| path == *lost || path.starts_with(&format!("{lost}/")))
            };
            let shape = |line: &String| line.split(" link=").next().unwrap().to_owned();
            let restored: BTreeSet<_> = restored.iter().map(shape).collect();
            for line in whole.iter().filter(|line| !is_lost(line) && !line.starts_with(". ")) {
                assert!(restored.contains(&shape(line)) || line.contains("Directory"), "{line} is gone, {when}");
            }
        }
        // Nothing keeps a collection any more, and in the end nothing is damaged.
        for _ in 0..3 {
            try_prune(&scene).unwrap_or_else(|error| panic!("{error:?}, {when}"));
        }
        let report = scene.check();
        assert!(report.faults.is_empty(), "{report:?}, {when}");
    }
    assert!(repaired > 8 && untouched > 0, "{repaired} repaired, {untouched} whole");
}

/// Without `--forget` nothing changes for what is there: the old one stays, and keeps a collection from deleting.
#[test]
fn a_repaired_snapshot_stands_beside_the_damaged_one() {
    let memory = Memory::new();
    let scene = scene(&memory);
    let made = two_snapshots(&scene);
    let pack = names(&memory, "packs/").remove(3);
    memory.delete(&pack).unwrap();
    let _ = fs::remove_dir_all(scene.cache());
    let first = repair_snapshots(&scene, &Options::default(), false);
    let new = first.iter().filter(|(became, _)| matches!(became, Became::Made(_))).count();
    assert!(new > 0, "{first:?}");
    assert_eq!(snapshots(&scene).len(), made.len() + new);
    assert_eq!(try_prune(&scene).unwrap_err().kind(), Kind::Refused);
    // Again it makes none, and what was made is whole.
    let again = repair_snapshots(&scene, &Options::default(), false);
    assert!(!again.iter().any(|(became, _)| matches!(became, Became::Made(_))), "{again:?}");
    repair_snapshots(&scene, &Options { forget: Some(3600), dry_run: false }, false);
    // They can be undone for an hour, and so keep what they have; but nothing is refused for what they lack.
    try_prune(&scene).unwrap();
    try_prune(&scene).unwrap();
    assert!(scene.check().faults.is_empty());
}
