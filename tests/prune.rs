//! Risk: a collection deletes something that a snapshot needs, or leaves garbage for ever.
//! Method: forget and collect, alone and beside others: a whole collection runs before each storage call
//! of a backup, of an undelete and of another collection, and a whole backup before each call of a
//! collection; a collection stops at each of its changes. Every snapshot that was reported as made must
//! restore, and after two quiet collections nothing may be left that nothing needs.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
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
use esker::forget;
use esker::monitor::Monitor;
use esker::prune::plan::{Limits, Unused};
use esker::prune::{self, Options, Report};
use esker::repair;
use esker::repo::content::Reader;
use esker::repo::snapshots::{Filter, SnapshotInfo};
use esker::storage::fault::{Faulty, LastChange, Plan, PowerLoss};
use esker::storage::memory::Memory;
use esker::storage::record::Operation;
use esker::storage::{ErrorKind, Storage};
use repo::{Scene, noise};

fn options(scene: &Scene) -> Options {
    Options {
        limits: Limits {
            max_unused: Unused::Bytes(0),
            join_bytes: 8 << 10,
            small_pack_bytes: 4 << 10,
            ..Limits::default()
        },
        packs: scene.packs,
        patience: Duration::ZERO,
        ignore_clock: false,
        close_lost: false,
        fold_from: 1,
        threads: 1,
    }
}

fn try_prune(scene: &Scene) -> Result<Report> {
    prune::run(&scene.try_open()?, &options(scene), &Monitor::silent(), |_| Ok(()))
}

fn prune(scene: &Scene) -> Report {
    try_prune(scene).unwrap()
}

fn snapshots(scene: &Scene) -> Vec<SnapshotInfo> {
    let repo = scene.open();
    let (found, unreadable) = Reader::new(&repo).unwrap().snapshots(&Filter::default()).unwrap();
    assert!(unreadable.is_empty(), "{unreadable:?}");
    found
}

fn forget_all_but_the_newest(scene: &Scene) {
    let mut all = snapshots(scene);
    all.pop();
    forget::run(&scene.open(), &all, 0).unwrap();
}

fn write_tree(scene: &Scene, generation: u64) {
    for n in 0..24 {
        // A third of the files are the same in all generations.
        let seed = if n % 3 == 0 { n } else { n + 1000 * generation };
        fs::create_dir_all(scene.source().join(format!("d{}", n % 4))).unwrap();
        fs::write(scene.source().join(format!("d{}/f{n}", n % 4)), noise(seed, 1500)).unwrap();
    }
}

/// Names of packs.
fn packs(memory: &Memory) -> BTreeSet<String> {
    memory.list("packs/").unwrap().into_iter().map(|object| object.name).collect()
}

/// Every snapshot restores to what it was made of, and nothing is damaged.
fn assert_sound(scene: &Scene, made: &[(String, Vec<String>)], when: &str) {
    for (id, lines) in made {
        let target = scene.restore(id);
        assert!(tree::lines(&target) == *lines, "snapshot {id} differs, {when}");
        fs::remove_dir_all(target).unwrap();
    }
    let report = scene.check();
    assert!(report.faults.is_empty(), "{report:?}, {when}");
}

/// After two quiet collections only what is needed is left: a third finds nothing to do, and every chunk of
/// every pack is needed.
fn assert_nothing_left(scene: &Scene, memory: &Memory, when: &str) {
    prune(scene);
    prune(scene);
    let before = packs(memory);
    let report = prune(scene);
    assert_eq!((report.packs_deleted, report.packs_repacked), (0, 0), "{report:?}, {when}");
    assert!(report.plan.garbage.is_empty(), "it is spared for ever: {report:?}, {when}");
    assert_eq!(report.plan.unused_bytes, 0, "{report:?}, {when}");
    assert_eq!(packs(memory), before, "{when}");
    for folder in ["sessions/", "alive/", "flags/"] {
        assert!(memory.list(folder).unwrap().is_empty(), "{folder}, {when}");
    }
}

/// A repository with one live snapshot, of generation 3, and two that are forgotten and may be taken, and
/// the tree of generation 1 in the source again: a next backup would need what is about to be collected.
struct Collision {
    memory: Memory,
    scene: Scene,
    made: Vec<(String, Vec<String>)>,
    second_tree: Vec<String>,
}

impl Collision {
    fn new() -> Self {
        let memory = Memory::new();
        let scene = Scene::new(Arc::new(memory.clone())).with_tiny_packs();
        let mut made = Vec::new();
        for generation in 1..=3 {
            write_tree(&scene, generation);
            made.push((scene.backup().id.to_string(), tree::lines(&scene.source())));
        }
        forget_all_but_the_newest(&scene);
        // The first collection sees the notes; the next one takes what they are about.
        let report = prune(&scene);
        assert_eq!((report.packs_deleted, report.plan.forgotten), (0, 2), "{report:?}");
        let made = made.split_off(2);
        write_tree(&scene, 1);
        let second_tree = tree::lines(&scene.source());
        Self { memory, scene, made, second_tree }
    }

    /// The scene through a storage of which a clone runs beside it.
    fn beside(&self) -> Scene {
        self.scene.over(Arc::new(self.memory.clone()))
    }
}

#[test]
fn forgotten_snapshots_are_collected_by_the_second_collection_and_the_rest_restores() {
    let it = Collision::new();
    let before = packs(&it.memory);
    let report = prune(&it.scene);
    assert!(report.packs_deleted > 0 && report.packs_repacked > 0, "{report:?}");
    assert!(packs(&it.memory).len() < before.len());
    assert_sound(&it.scene, &it.made, "after a collection");
    assert_nothing_left(&it.scene, &it.memory, "after a collection");
    assert_sound(&it.scene, &it.made, "after all collections");
    let again = it.scene.backup().id.to_string();
    assert_sound(&it.scene, &[(again, it.second_tree)], "after a backup of what was collected");
}

#[test]
fn nothing_is_collected_before_the_time_to_undelete_is_over() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone())).with_tiny_packs();
    write_tree(&scene, 1);
    let (first, lines) = (scene.backup().id, tree::lines(&scene.source()));
    write_tree(&scene, 2);
    scene.backup();
    let info = snapshots(&scene).remove(0);
    assert_eq!(info.id(), first);
    forget::run(&scene.open(), std::slice::from_ref(&info), 3600).unwrap();
    assert_eq!(snapshots(&scene).len(), 1);
    for _ in 0..3 {
        assert!(prune(&scene).plan.garbage.is_empty());
    }
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let back = forget::undelete(&reader, &info, &Monitor::silent()).unwrap();
    assert_sound(&scene, &[(back.to_string(), lines)], "after undelete");
    // The time to undelete may be cut short.
    let (forgotten, _) = reader.forgotten_snapshots(&Filter::default()).unwrap();
    assert_eq!(forgotten.len(), 1);
}

/// Found by `tests/simulation.rs`: an owner rests on no writer's chunks, but the snapshot that is brought back
/// rested on them before.
#[test]
fn an_owner_brings_back_what_a_writer_has_stored() {
    let scene = Scene::new(Arc::new(Memory::new())).with_tiny_packs();
    write_tree(&scene, 1);
    let (made, lines) = (scene.writer().backup().id, tree::lines(&scene.source()));
    let info = snapshots(&scene).remove(0);
    assert_eq!(info.id(), made);
    forget::run(&scene.open(), std::slice::from_ref(&info), 3600).unwrap();
    let repo = scene.open();
    let back = forget::undelete(&Reader::new(&repo).unwrap(), &info, &Monitor::silent()).unwrap();
    for _ in 0..3 {
        prune(&scene);
    }
    assert_sound(&scene, &[(back.to_string(), lines)], "after undelete");
    // Nobody else rests on them now.
    assert!(scene.backup().snapshot.summary.data_added > 0);
}

/// Runs `work` through a storage that has a whole collection happen before its k-th call, for each k.
fn at_every_call(
    what: &str,
    it: &Collision,
    beside: impl Fn(&Scene) + Send + Sync + Copy + 'static,
    work: impl Fn(&Scene) -> Option<(String, Vec<String>)>,
) {
    let base = it.memory.snapshot();
    let counting = Between::counting(Arc::new(it.memory.clone()));
    work(&it.scene.over(Arc::new(counting.clone())));
    let count = counting.calls();
    assert!(count > 15, "{what} makes only {count} calls");
    for k in 0..count {
        it.memory.restore(base.clone());
        let _ = fs::remove_dir_all(it.scene.cache());
        let other = it.beside();
        let storage = Between::new(Arc::new(it.memory.clone()), k, move || beside(&other));
        let made = work(&it.scene.over(Arc::new(storage)));
        let when = format!("{what}, at call {k} of {count}");
        let all: Vec<_> = it.made.iter().cloned().chain(made).collect();
        let after = it.beside();
        assert_sound(&after, &all, &when);
        assert_nothing_left(&after, &it.memory, &when);
        assert_sound(&after, &all, &format!("{when}, collected"));
    }
}

/// The collision that sessions are for: the backup needs chunks that the collection is about to delete.
#[test]
fn a_backup_beside_a_collection_is_made_whole_or_not_at_all() {
    let it = Collision::new();
    at_every_call(
        "a backup",
        &it,
        |other| drop(prune(other)),
        |scene| {
            let report = scene.try_backup().unwrap();
            Some((report.id.to_string(), it.second_tree.clone()))
        },
    );
}

#[test]
fn a_collection_beside_a_backup_takes_nothing_the_backup_needs() {
    let it = Collision::new();
    let made = Arc::new(Mutex::new(None));
    let lines = it.second_tree.clone();
    let base = it.memory.snapshot();
    let counting = Between::counting(Arc::new(it.memory.clone()));
    prune(&it.scene.over(Arc::new(counting.clone())));
    for k in 0..counting.calls() {
        it.memory.restore(base.clone());
        let _ = fs::remove_dir_all(it.scene.cache());
        let (other, made) = (it.beside(), made.clone());
        let storage = {
            let made = made.clone();
            Between::new(Arc::new(it.memory.clone()), k, move || {
                *made.lock().unwrap() = Some(other.backup().id.to_string());
            })
        };
        // It may give way to what it met; what was reported as made must be there in either case.
        let _ = try_prune(&it.scene.over(Arc::new(storage)));
        let when = format!("a collection, at call {k} of {}", counting.calls());
        let backup = made.lock().unwrap().take().map(|id| (id, lines.clone()));
        let all: Vec<_> = it.made.iter().cloned().chain(backup).collect();
        let after = it.beside();
        assert_sound(&after, &all, &when);
        assert_nothing_left(&after, &it.memory, &when);
        assert_sound(&after, &all, &format!("{when}, collected"));
    }
}

#[test]
fn two_collections_at_once_take_no_more_than_one_may() {
    let it = Collision::new();
    at_every_call(
        "a collection beside another",
        &it,
        |other| drop(try_prune(other)),
        |scene| {
            // It may have to begin again. Nothing is lost, so it must not say that.
            if let Err(error) = try_prune(scene) {
                assert!(error.with_causes().contains("another collection is under way"), "{error:?}");
            }
            None
        },
    );
}

/// Found by `tests/simulation.rs`: what was moved while the check looked was said to be lost.
#[test]
fn a_check_beside_a_collection_finds_no_damage() {
    let it = Collision::new();
    let base = it.memory.snapshot();
    let counting = Between::counting(Arc::new(it.memory.clone()));
    it.scene.over(Arc::new(counting.clone())).check();
    for k in 0..counting.calls() {
        it.memory.restore(base.clone());
        let _ = fs::remove_dir_all(it.scene.cache());
        let other = it.beside();
        let storage = Between::new(Arc::new(it.memory.clone()), k, move || drop(prune(&other)));
        let report = it.scene.over(Arc::new(storage)).check();
        assert!(report.faults.is_empty(), "at call {k} of {}: {:?}", counting.calls(), report.faults);
    }
}

/// Every stop of a collection: a program that ends, and a machine that loses what was not durable.
#[test]
fn a_collection_that_stops_anywhere_costs_nothing_but_the_next() {
    let it = Collision::new();
    let base = it.memory.snapshot();
    let counting = Faulty::new(Arc::new(it.memory.clone()), Plan::none());
    prune(&it.scene.over(Arc::new(counting.clone())));
    let count = counting.changes();
    for stop in 0..=count {
        for last in [LastChange::Lost, LastChange::Done] {
            for power in [PowerLoss::None, PowerLoss::TakesAll, PowerLoss::KeepsNewest] {
                it.memory.restore(base.clone());
                let _ = fs::remove_dir_all(it.scene.cache());
                let plan = Plan::crash_at(stop).last(last).power(power);
                let _ = try_prune(&it.scene.over(Arc::new(Faulty::new(Arc::new(it.memory.clone()), plan))));
                let when = format!("stopped at {stop} of {count}, {last:?}, {power:?}");
                let after = it.beside();
                assert_sound(&after, &it.made, &when);
                let again = after.backup().id.to_string();
                let all: Vec<_> = it.made.iter().cloned().chain([(again, it.second_tree.clone())]).collect();
                assert_nothing_left(&after, &it.memory, &when);
                assert_sound(&after, &all, &format!("{when}, collected"));
            }
        }
    }
}

/// Found by `tests/simulation.rs`: what a stopped collection had condemned was spared for ever once a writer had
/// stored it too, whose copy is not enough.
#[test]
fn what_a_stopped_collection_has_condemned_and_a_writer_stores_again_is_collected() {
    let it = Collision::new();
    let writer = it.scene.writer();
    let base = it.memory.snapshot();
    let counting = Faulty::new(Arc::new(it.memory.clone()), Plan::none());
    prune(&it.scene.over(Arc::new(counting.clone())));
    for stop in 1..=counting.changes() {
        it.memory.restore(base.clone());
        let _ = fs::remove_dir_all(it.scene.cache());
        let _ = fs::remove_dir_all(writer.cache());
        let plan = Plan::crash_at(stop).last(LastChange::Done);
        let _ = try_prune(&it.scene.over(Arc::new(Faulty::new(Arc::new(it.memory.clone()), plan))));
        let again = writer.backup().id.to_string();
        let all: Vec<_> = it.made.iter().cloned().chain([(again, it.second_tree.clone())]).collect();
        let (after, when) = (it.beside(), format!("stopped at {stop} of {}", counting.changes()));
        assert_nothing_left(&after, &it.memory, &when);
        assert_sound(&after, &all, &when);
    }
}

/// When anything that is live is missing, nothing is deleted.
#[test]
fn a_collection_deletes_nothing_where_something_is_missing() {
    let it = Collision::new();
    let base = it.memory.snapshot();
    // Once everything is collected, what is left is what is needed.
    prune(&it.scene);
    let repo = it.scene.open();
    let reader = Reader::new(&repo).unwrap();
    let mut holding = BTreeSet::new();
    reader.catalog().each_chunk(|rows| {
        holding.extend(rows.iter().map(|found| reader.catalog().packs()[found.row.pack as usize].id.to_string()));
    });
    // A pack without chunks is a copy of a snapshot's record, which nobody misses.
    let holds = |name: &&String| holding.iter().any(|id| name.ends_with(id.as_str()));
    let left = packs(&it.memory);
    let needed: Vec<String> = left.iter().filter(holds).filter(|name| base.contains_key(*name)).cloned().collect();
    assert!(needed.len() > 2);
    let commits = base.keys().filter(|name| name.starts_with("snapshots/")).cloned();
    let segments = base.keys().filter(|name| name.starts_with("index/")).cloned();
    for name in needed.into_iter().chain(commits).chain(segments).collect::<Vec<_>>() {
        let mut content = base.clone();
        content.remove(&name);
        it.memory.restore(content);
        let _ = fs::remove_dir_all(it.scene.cache());
        let before = packs(&it.memory);
        let refused = try_prune(&it.scene);
        assert!(refused.as_ref().is_err_and(|error| error.kind() == Kind::Refused), "{name}: {refused:?}");
        assert_eq!(packs(&it.memory), before, "{name}");
    }
}

/// restic#4612: a list that failed was taken for an empty one, and everything was garbage.
#[test]
fn a_call_that_fails_is_an_error_and_deletes_nothing_that_is_needed() {
    let it = Collision::new();
    let base = it.memory.snapshot();
    for operation in [Operation::List, Operation::Get] {
        for nth in 1..100 {
            it.memory.restore(base.clone());
            let _ = fs::remove_dir_all(it.scene.cache());
            let plan = Plan::none().failing(operation, "", nth, ErrorKind::Io);
            let collected = try_prune(&it.scene.over(Arc::new(Faulty::new(Arc::new(it.memory.clone()), plan))));
            let when = format!("{operation:?} {nth} failed");
            assert_sound(&it.beside(), &it.made, &when);
            if collected.is_ok() {
                assert!(nth > 1, "{when}");
                break;
            }
        }
    }
}

/// rustic#392: a pack with a chunk that is elsewhere too was taken for garbage, and so was the other.
#[test]
fn of_a_chunk_that_lies_in_several_packs_one_copy_stays() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone())).with_tiny_packs();
    write_tree(&scene, 1);
    let lines = tree::lines(&scene.source());
    // Both look before either commits, so each stores everything.
    let other = scene.over(Arc::new(memory.clone()));
    let made = Arc::new(Mutex::new(String::new()));
    let storage = {
        let made = made.clone();
        let announced = 12;
        Between::new(Arc::new(memory.clone()), announced, move || *made.lock().unwrap() = other.backup().id.to_string())
    };
    let first = scene.over(Arc::new(storage)).backup().id.to_string();
    let second = made.lock().unwrap().clone();
    let stored = packs(&memory).len();
    assert_nothing_left(&scene, &memory, "two copies of everything");
    assert!(packs(&memory).len() <= stored / 2 + 1, "{stored} packs became {}", packs(&memory).len());
    assert_sound(&scene, &[(first, lines.clone()), (second, lines)], "with one copy left");
}

/// borg#10410: compacting copied damaged bytes into a new object under their own hash, and checks passed.
#[test]
fn damage_is_not_carried_over_into_a_new_pack() {
    let it = Collision::new();
    let base = it.memory.snapshot();
    let repacked = {
        let plan = prune::plan(&it.scene.open(), &options(&it.scene), &Monitor::silent()).unwrap();
        plan.repack
    };
    assert!(!repacked.is_empty());
    for pack in repacked {
        let name = packs(&it.memory).into_iter().find(|name| name.ends_with(&pack.to_string())).unwrap();
        let mut content = base.clone();
        let mut bytes = content[&name].to_vec();
        // In every frame, so that it is in what is copied too.
        let body = bytes.len() - 400;
        bytes[..body].iter_mut().step_by(200).for_each(|byte| *byte ^= 1);
        content.insert(name.clone(), bytes.into());
        it.memory.restore(content.clone());
        let before = packs(&it.memory);
        let error = try_prune(&it.scene).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{name}: {error:?}");
        assert!(before.is_subset(&packs(&it.memory)), "{name}");
        it.memory.restore(base.clone());
    }
}

/// A cache may remember an index segment that is lost. Where it says that something is nobody else would look, so
/// no other copy may be deleted for it.
#[test]
fn a_collection_does_not_rest_on_a_segment_that_only_its_cache_remembers() {
    let memory = Memory::new();
    let scene = Scene::finely_cut(Arc::new(memory.clone()), 1 << 10, 3);
    for n in 0..4 {
        fs::write(scene.source().join(format!("f{n}")), noise(n, 400_000)).unwrap();
    }
    let made = vec![(scene.backup().id.to_string(), tree::lines(&scene.source()))];
    let segment = memory.list("index/").unwrap().remove(0).name;
    // It is remembered from here on.
    prune(&scene);
    memory.delete(&segment).unwrap();
    let error = try_prune(&scene).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.to_string().contains(&segment), "{error}");
    let repaired = repair::index::run(&scene.open(), &repair::index::Options::default(), &Monitor::silent()).unwrap();
    assert!(!repaired.segments_replaced.is_empty());
    prune(&scene);
    assert_sound(&scene, &made, "repaired");
}
