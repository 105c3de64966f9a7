//! Risk: what is stored anew under the newest keys is not all, or not what it was; what was removed still reads it;
//! a slice goes beyond its budget, or its work is done again by the next; something is lost when it stops, or
//! beside a collection.
//! Method: what was removed keeps its keys and tries every pack there is; slices until nothing is left; a
//! collection, or the end, before each storage call.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

#[allow(dead_code)]
#[path = "support/between.rs"]
mod between;
#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use between::Between;
use esker::error::{Kind, Result};
use esker::format::access::Role;
use esker::id::EpochId;
use esker::monitor::Monitor;
use esker::prune::plan::Limits;
use esker::prune::reencrypt::{self, Options, Report};
use esker::prune::{self, Options as PruneOptions};
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::Local;
use esker::repo::own_word::{OwnWord, Part};
use esker::repo::secret::Secret;
use esker::storage::Storage;
use esker::storage::fault::{Faulty, Plan};
use esker::storage::memory::Memory;
use esker::world::World;
use repo::{Scene, noise};

fn scene(memory: &Memory) -> Scene {
    Scene::finely_cut(Arc::new(memory.clone()), 1 << 10, 11).with_tiny_packs()
}

fn reencrypt(scene: &Scene, max_bytes: u64) -> Report {
    try_reencrypt(scene, max_bytes, false).unwrap()
}

fn try_reencrypt(scene: &Scene, max_bytes: u64, dry_run: bool) -> Result<Report> {
    reencrypt::run(
        &scene.try_open()?,
        &Options { max_bytes, packs: scene.packs, dry_run, threads: 1 },
        &Monitor::silent(),
    )
}

fn prune(scene: &Scene) -> prune::Report {
    let options = PruneOptions {
        limits: Limits::default(),
        packs: scene.packs,
        patience: Duration::ZERO,
        ignore_clock: false,
        close_lost: false,
        fold_from: 64,
        threads: 1,
    };
    prune::run(&scene.open(), &options, &Monitor::silent(), |_| Ok(())).unwrap()
}

/// How many chunks of all packs a repository's keys open.
fn chunks_it_opens(repo: &Repository) -> u64 {
    let mut opened = 0;
    for (id, bytes) in repo.list_packs().unwrap() {
        let object = esker::storage::Listed { name: esker::repo::session::pack_name(&id), bytes };
        let Ok(Some(pack)) = OwnWord::of(repo, id, &object) else { continue };
        let _ = pack.read_whole(|part| {
            opened += u64::from(matches!(part, Part::Chunk(..)));
            Ok(())
        });
    }
    opened
}

/// Three states of a source, each with its snapshot.
fn three_snapshots(scene: &Scene) -> Vec<(String, Vec<String>)> {
    let state = |n: u64| {
        for file in 0..2 {
            fs::write(scene.source().join(format!("file-{}", n + file)), noise(n + file, 9_000)).unwrap();
        }
        (scene.backup().id.to_string(), tree::lines(&scene.source()))
    };
    (0..3).map(state).collect()
}

fn are_whole(scene: &Scene, snapshots: &[(String, Vec<String>)], when: &str) {
    for (id, lines) in snapshots {
        assert_eq!(&tree::lines(&scene.restore(id)), lines, "{id}, {when}");
    }
    let report = scene.check();
    assert!(report.faults.is_empty(), "{:?}, {when}", report.faults);
}

#[test]
fn after_it_and_a_collection_who_was_removed_opens_no_chunk_and_every_snapshot_is_whole() {
    let memory = Memory::new();
    let owner = scene(&memory);
    let thief = owner.open().add_member(Role::Owner, "thief", None).unwrap();
    let snapshots = three_snapshots(&owner);
    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
    let had = Repository::open(storage, World::system(), &Secret::KeyFile(thief.clone()), Local::default()).unwrap();
    owner.open().remove_member(&thief.credential().id(), vec![]).unwrap();
    owner.open().rotate().unwrap();
    let before = chunks_it_opens(&had);
    assert!(before > 20, "{before}");
    let planned = try_reencrypt(&owner, u64::MAX, true).unwrap();
    assert_eq!(planned.before, planned.moved);
    let report = reencrypt(&owner, u64::MAX);
    assert_eq!(Report { bytes_written: 0, ..report }, planned, "it does what was planned");
    assert!(report.bytes_written > 0 && report.left().packs == 0);
    // Stored anew, and there still as it was: whose packs are to go, a collection says.
    assert_eq!(chunks_it_opens(&had), before);
    are_whole(&owner, &snapshots, "stored anew");
    let pruned = prune(&owner);
    assert_eq!(pruned.packs_deleted, report.spent.packs);
    assert_eq!((pruned.bytes_deleted, pruned.packs_repacked), (report.spent.bytes, 0), "nothing is written twice");
    assert_eq!(chunks_it_opens(&had), 0);
    are_whole(&owner, &snapshots, "collected");
    let idle = reencrypt(&owner, u64::MAX);
    assert_eq!(idle, Report::default(), "there is nothing left to do");
    // A directory above the source has other times now, and nothing else.
    let added = owner.backup().snapshot.summary.data_added;
    assert!(added < 1000, "{added}: what is there anew is reused");
}

#[test]
fn slices_keep_to_their_budget_and_go_on_where_the_last_ended() {
    let memory = Memory::new();
    let owner = scene(&memory);
    let snapshots = three_snapshots(&owner);
    owner.open().rotate().unwrap();
    let (all, mut last) = (try_reencrypt(&owner, u64::MAX, true).unwrap().before, None);
    let budget = all.bytes / 4;
    let (mut moved, mut slices) = (0, 0);
    while last.is_none_or(|left| left > 0) {
        let report = reencrypt(&owner, budget);
        assert!(report.moved.bytes <= budget && report.moved.packs > 0, "{report:?}");
        assert!(last.is_none_or(|last| last == report.before.bytes), "{report:?} after {last:?}");
        moved += report.moved.bytes;
        last = Some(report.left().bytes);
        slices += 1;
        if slices % 2 == 0 {
            prune(&owner);
        }
        are_whole(&owner, &snapshots, &format!("slice {slices}"));
    }
    assert_eq!(moved, all.bytes, "nothing was moved twice");
    assert!(slices >= 4, "{slices}");
    // A rotation later all of it is old again, and the smallest pack is more than a budget of one byte.
    owner.open().rotate().unwrap();
    assert_eq!(try_reencrypt(&owner, 1, false).unwrap_err().kind(), Kind::Refused);
    assert!(reencrypt(&owner, u64::MAX).moved.packs > 0);
    prune(&owner);
    are_whole(&owner, &snapshots, "the second time");
}

/// Junk under a chunk's id would be found out, but it would stop everything; so it waits for an owner's word.
#[test]
fn what_only_a_writers_key_answers_for_is_moved_once_an_owner_has_read_it() {
    let memory = Memory::new();
    let owner = scene(&memory);
    let writer = owner.writer();
    let snapshots = three_snapshots(&writer);
    owner.open().rotate().unwrap();
    let report = reencrypt(&owner, u64::MAX);
    assert_eq!((report.moved.packs, report.unvouched), (0, report.before));
    assert!(report.before.packs > 0);
    let attest = || {
        let repo = owner.open();
        let reader = Reader::without_cache(&repo).unwrap();
        let options = esker::check::Options { read_data: esker::check::ReadData::All, snapshot: None, threads: 2 };
        let report = esker::check::run_naming(usize::MAX, &reader, &options, &Monitor::silent()).unwrap();
        repo.attest(&report.whole).unwrap();
    };
    attest();
    let report = reencrypt(&owner, u64::MAX);
    assert_eq!((report.moved, report.unvouched.packs), (report.before, 0));
    prune(&owner);
    let newest = owner.open().keys.current_epoch().id;
    assert!(epochs_of_chunks(&owner).iter().all(|epoch| *epoch == newest));
    are_whole(&owner, &snapshots, "read and moved");
}

/// The epochs of packs in which there are chunks.
fn epochs_of_chunks(scene: &Scene) -> Vec<EpochId> {
    let repo = scene.open();
    let mut epochs = Vec::new();
    for (id, bytes) in repo.list_packs().unwrap() {
        let object = esker::storage::Listed { name: esker::repo::session::pack_name(&id), bytes };
        let pack = OwnWord::of(&repo, id, &object).unwrap().unwrap();
        if pack.directory.frames.iter().any(|frame| !frame.chunks.is_empty()) {
            epochs.push(pack.trailer.epoch);
        }
    }
    assert!(!epochs.is_empty());
    epochs
}

#[test]
fn beside_a_collection_or_stopped_at_any_moment_it_loses_nothing_and_the_next_run_ends_it() {
    let memory = Memory::new();
    let owner = scene(&memory);
    let snapshots = three_snapshots(&owner);
    owner.open().rotate().unwrap();
    let base = memory.snapshot();
    let counting = Between::counting(Arc::new(memory.clone()));
    let whole = reencrypt(&owner.over(Arc::new(counting.clone())), u64::MAX);
    let calls = counting.calls();
    assert!(whole.moved.packs > 3 && calls > 20, "{calls}, {whole:?}");
    let collected = |when: &str| {
        prune(&owner);
        are_whole(&owner, &snapshots, when);
        reencrypt(&owner, u64::MAX);
        prune(&owner);
        prune(&owner);
        are_whole(&owner, &snapshots, when);
        let newest = owner.open().keys.current_epoch().id;
        assert!(epochs_of_chunks(&owner).iter().all(|epoch| *epoch == newest), "{when}");
    };
    let afresh = || {
        memory.restore(base.clone());
        let _ = fs::remove_dir_all(owner.cache());
        let _ = fs::remove_dir_all(owner.dir().join("other"));
    };
    let (mut made, width) = (0_u64, if soaking() { 1 } else { 5 });
    for k in (0..calls).step_by(width) {
        afresh();
        let other = owner.over(Arc::new(memory.clone())).caching_in(owner.dir().join("other"));
        // The other moves some of the same, and collects.
        let storage = Between::new(Arc::new(memory.clone()), k, move || {
            drop(try_reencrypt(&other, 9_000, false));
            prune(&other);
        });
        made += u64::from(try_reencrypt(&owner.over(Arc::new(storage)), u64::MAX, false).is_ok());
        collected(&format!("a collection before call {k}"));
    }
    assert!(made * width as u64 > calls / 3, "{made} of {calls}");
    for k in (1..).step_by(if soaking() { 1 } else { 3 }) {
        afresh();
        let storage = Faulty::new(Arc::new(memory.clone()), Plan::crash_at(k));
        if try_reencrypt(&owner.over(Arc::new(storage)), u64::MAX, false).is_ok() {
            assert!(k > 10, "{k}");
            break;
        }
        collected(&format!("stopped at change {k}"));
    }
}

/// Every moment is tried, whatever it takes: `just soak`.
fn soaking() -> bool {
    std::env::var_os("ESKER_SOAK").is_some_and(|value| !value.is_empty() && value != "0")
}
