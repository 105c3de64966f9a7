//! Risk: a record that was folded into a log is lost, counts twice or counts for something else; or what one
//! owner folded goes when that owner is removed.
//! Method: repositories whose records were folded in every way are compared with what they were before, by
//! their snapshots, what was forgotten, and a check of every byte; the storage's names are counted.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::error::{Kind, Result};
use esker::forget;
use esker::format::access::Role;
use esker::monitor::Monitor;
use esker::prune::plan::{Limits, Unused};
use esker::prune::{self, Options, Report};
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::Local;
use esker::repo::secret::{KeyFile, Secret};
use esker::repo::snapshots::Filter;
use esker::storage::memory::Memory;
use esker::storage::{Storage, WriteMode};
use repo::{Scene, noise};

fn options(fold_from: usize) -> Options {
    Options {
        limits: Limits { max_unused: Unused::Bytes(0), ..Limits::default() },
        packs: esker::repo::pack_writer::PackSettings::default(),
        patience: Duration::ZERO,
        ignore_clock: false,
        close_lost: false,
        fold_from,
        threads: 1,
    }
}

fn collect(repo: &Repository, fold_from: usize) -> Result<Report> {
    prune::run(repo, &options(fold_from), &Monitor::silent(), |_| Ok(()))
}

fn count(memory: &Memory, folder: &str) -> usize {
    memory.list(folder).unwrap().len()
}

fn ids(repo: &Repository) -> Vec<String> {
    let (found, unreadable) = Reader::new(repo).unwrap().snapshots(&Filter::default()).unwrap();
    assert!(unreadable.is_empty(), "{unreadable:?}");
    found.iter().map(|info| info.id().to_string()).collect()
}

/// A repository of some snapshots, of which two are forgotten, and the lines of the last tree.
fn scene(memory: &Memory, snapshots: u64) -> Scene {
    let scene = Scene::new(Arc::new(memory.clone()));
    for n in 0..snapshots {
        fs::write(scene.source().join(format!("file-{n}")), noise(n, 3000)).unwrap();
        scene.backup();
    }
    let repo = scene.open();
    let (found, _) = Reader::new(&repo).unwrap().snapshots(&Filter::default()).unwrap();
    forget::run(&repo, &found[..2], 0).unwrap();
    scene
}

fn assert_whole(scene: &Scene, wanted: &[String]) {
    assert_eq!(ids(&scene.open()), wanted);
    let report = scene.check();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let target = scene.restore(wanted.last().unwrap());
    assert_eq!(tree::lines(&target), tree::lines(&scene.source()));
}

#[test]
fn what_was_folded_is_listed_restored_checked_and_backed_up_to_as_before() {
    let memory = Memory::new();
    let scene = scene(&memory, 6);
    let mut wanted = ids(&scene.open());
    let report = collect(&scene.open(), 1).unwrap();
    assert_eq!(report.folded.logs_written, 2, "{report:?}");
    assert_eq!((count(&memory, "snapshots/"), count(&memory, "notes/"), count(&memory, "log/")), (0, 0, 2));
    assert_whole(&scene, &wanted);
    // With nothing remembered of it, too.
    fs::remove_dir_all(scene.cache()).unwrap();
    assert_whole(&scene, &wanted);
    // Nothing is stored again, and the next collection takes what was forgotten before the fold.
    let made = scene.backup();
    assert!(made.snapshot.summary.data_added < 3000, "{:?}", made.snapshot.summary);
    wanted.push(made.id.to_string());
    assert_whole(&scene, &wanted);
    let report = collect(&scene.open(), 1).unwrap();
    assert_eq!(report.plan.forgotten, 0, "{report:?}");
    assert_whole(&scene, &wanted);
    // A name that is in a log is found by its beginning.
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    assert_eq!(reader.find_snapshot(&wanted[0][..8], &Filter::default()).unwrap().id().to_string(), wanted[0]);
}

#[test]
fn few_records_are_left_as_they_are() {
    let memory = Memory::new();
    let scene = scene(&memory, 3);
    let report = collect(&scene.open(), prune::fold::WORTH_IT).unwrap();
    assert_eq!(report.folded, prune::fold::Folded::default());
    assert_eq!(count(&memory, "log/"), 0);
}

/// Small logs are joined by one collection and deleted by a later one; never by the same.
#[test]
fn logs_are_joined_and_the_old_ones_go_with_a_later_collection() {
    let memory = Memory::new();
    let scene = scene(&memory, 2);
    let mut most = 0;
    for n in 0..12 {
        fs::write(scene.source().join("file"), noise(100 + n, 3000)).unwrap();
        scene.backup();
        let before: BTreeSet<_> = memory.list("log/").unwrap().into_iter().map(|object| object.name).collect();
        let report = collect(&scene.open(), 1).unwrap();
        let after: BTreeSet<_> = memory.list("log/").unwrap().into_iter().map(|object| object.name).collect();
        assert_eq!(before.difference(&after).count() as u64, report.folded.logs_deleted);
        if report.folded.logs_deleted > 0 {
            assert!(before.len() > 4, "what goes was there before, and so was what has its items");
        }
        most = most.max(after.len());
    }
    assert!(most <= 12, "{most} logs");
    let wanted = ids(&scene.open());
    assert_eq!(wanted.len(), 12);
    assert_whole(&scene, &wanted);
}

fn unlock(memory: &Memory, key: &KeyFile) -> Repository {
    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
    Repository::open(storage, repo::later(), &Secret::KeyFile(key.clone()), Local::default()).unwrap()
}

/// A log is a container: who removes the owner that put it loses nothing that is in it. And what a collection
/// has deleted does not come back to life as something that is missing.
#[test]
fn an_owner_that_folded_forgot_and_collected_is_removed_and_all_of_it_goes_on_counting() {
    let memory = Memory::new();
    let scene = scene(&memory, 5);
    let other = scene.open().add_member(Role::Owner, "other", None).unwrap();
    let repo = unlock(&memory, &other);
    let (found, _) = Reader::new(&repo).unwrap().snapshots(&Filter::default()).unwrap();
    forget::run(&repo, &found[..1], 0).unwrap();
    for _ in 0..3 {
        collect(&unlock(&memory, &other), 1).unwrap();
    }
    assert_eq!(count(&memory, "snapshots/"), 0);
    let wanted = ids(&scene.open());
    assert_eq!(wanted.len(), 2);
    let owner = scene.open();
    let reader = Reader::new(&owner).unwrap();
    let id = other.credential().id();
    let (_, mut accepted) = reader.commits().newest_of(&id);
    accepted.extend(&reader.collections().signed[&id]);
    drop(reader);
    owner.remove_member(&id, accepted).unwrap();
    assert_whole(&scene, &wanted);
    collect(&scene.open(), 1).unwrap();
    assert_whole(&scene, &wanted);
}

/// A clone of a machine wakes up before its commit, which has been folded since: whoever looks takes the one
/// that was reported as made.
#[test]
fn a_second_commit_of_a_session_whose_first_was_folded_counts_for_nothing() {
    let memory = Memory::new();
    let scene = scene(&memory, 4);
    let wanted = ids(&scene.open());
    let name = format!("snapshots/{}", wanted[0]);
    let before = Memory::new();
    memory.list("").unwrap().iter().for_each(|object| {
        before.put(&object.name, &memory.get(&object.name).unwrap(), WriteMode::CreateNew).unwrap();
    });
    collect(&scene.open(), 1).unwrap();
    // Another commit's bytes do as well as a clone's: they are not those of the item.
    let other = before.get(&format!("snapshots/{}", wanted[1])).unwrap();
    memory.put(&name, &other, WriteMode::CreateNew).unwrap();
    assert_whole(&scene, &wanted);
    collect(&scene.open(), 1).unwrap();
    assert!(memory.get(&name).is_ok(), "what differs from the item is left to be looked at");
    assert_whole(&scene, &wanted);
}

#[test]
fn a_damaged_log_is_named_and_nothing_is_collected() {
    let memory = Memory::new();
    let scene = scene(&memory, 4);
    collect(&scene.open(), 1).unwrap();
    for object in memory.list("log/").unwrap() {
        let whole = memory.get(&object.name).unwrap();
        let mut bytes = whole.clone();
        bytes[200] ^= 1;
        memory.put(&object.name, &bytes, WriteMode::Replace).unwrap();
        let report = scene.check();
        assert!(report.faults.iter().any(|fault| fault.object == object.name), "{:?}", report.faults);
        fs::remove_dir_all(scene.cache()).unwrap();
        let refused = collect(&scene.open(), 1).unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused, "{refused}");
        memory.put(&object.name, &whole, WriteMode::Replace).unwrap();
    }
    assert!(scene.check().faults.is_empty());
}
