//! Risk: after a rotation somebody who should read nothing more still can; or, the other way, somebody who
//! should is locked out, what was stored before is lost, or all of it is stored once more.
//! Method: owners and writers over one storage, rotated under each other's feet; what was removed keeps its
//! keys in memory and is shown everything that is stored afterwards.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::error::Kind;
use esker::format::access::Role;
use esker::monitor::Monitor;
use esker::prune::plan::Limits;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::Local;
use esker::repo::secret::{KeyFile, Secret};
use esker::repo::snapshots::Filter;
use esker::storage::fault::{Faulty, Plan};
use esker::storage::memory::Memory;
use esker::storage::record::Operation;
use esker::storage::{ErrorKind, Storage};
use esker::world::World;
use repo::{Scene, noise};

fn scene(memory: &Memory) -> Scene {
    let scene = Scene::new(Arc::new(memory.clone()));
    for n in 0..5 {
        fs::write(scene.source().join(format!("file-{n}")), noise(n, 40_000)).unwrap();
    }
    scene
}

fn unlock(memory: &Memory, key: &KeyFile) -> Repository {
    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
    Repository::open(storage, World::system(), &Secret::KeyFile(key.clone()), Local::default()).unwrap()
}

fn is_whole(scene: &Scene, snapshot: &str) {
    assert_eq!(tree::lines(&scene.restore(snapshot)), tree::lines(&scene.source()));
    let report = scene.check();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

#[test]
fn after_a_rotation_everything_is_read_and_nothing_is_stored_again() {
    let memory = Memory::new();
    let owner = scene(&memory);
    let writer = owner.writer();
    let first = owner.backup().id.to_string();
    writer.backup();
    let rotation = owner.open().rotate().unwrap();
    assert_eq!((rotation.credentials, rotation.completed), (2, 0));
    for scene in [&owner, &writer] {
        let keys = scene.open().keys;
        assert_eq!(keys.current_epoch().id, rotation.epoch);
        let report = scene.backup();
        assert!(report.snapshot.summary.data_added < 10_000, "{:?}", report.snapshot.summary);
        is_whole(&owner, &report.id.to_string());
    }
    is_whole(&owner, &first);
    // Who comes later reads what was there before.
    let late = owner.open().add_member(Role::Owner, "late", None).unwrap();
    assert_eq!(unlock(&memory, &late).keys.current_epoch().id, rotation.epoch);
    assert!(unlock(&memory, &late).load_snapshot(&first.parse().unwrap()).is_ok());
}

#[test]
fn who_was_removed_reads_nothing_that_is_stored_after_a_rotation() {
    let memory = Memory::new();
    let owner = scene(&memory);
    let thief = owner.open().add_member(Role::Owner, "thief", None).unwrap();
    let before = owner.backup().id;
    let had = unlock(&memory, &thief);
    owner.open().remove_member(&thief.credential().id(), vec![]).unwrap();
    // A removal alone takes nothing from who kept the keys.
    let between = owner.backup().id;
    assert!(had.load_snapshot(&between).is_ok());
    owner.open().rotate().unwrap();
    fs::write(owner.source().join("secret"), noise(99, 40_000)).unwrap();
    let known: Vec<_> = memory.list("").unwrap().into_iter().map(|object| object.name).collect();
    let after = owner.backup().id;
    assert!(had.load_snapshot(&before).is_ok(), "it has kept its keys");
    let error = had.load_snapshot(&after).unwrap_err().to_string();
    assert!(error.contains("cannot read"), "{error}");
    // Not one of the objects that were stored since opens with any key it had.
    let new = memory.list("").unwrap().into_iter().filter(|object| !known.contains(&object.name));
    let epochs: Vec<_> = had.access.epochs().iter().map(|epoch| epoch.id).collect();
    let mut seen = 0;
    for object in new {
        let stored = memory.get(&object.name).unwrap();
        for epoch in &epochs {
            let bytes = epoch.as_bytes();
            assert!(!stored.windows(16).any(|part| part == bytes), "{} is of an epoch it has", object.name);
        }
        seen += 1;
    }
    assert!(seen >= 2, "only {seen} objects were stored");
    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
    let again = Repository::open(storage, World::system(), &Secret::KeyFile(thief), Local::default());
    assert_eq!(again.unwrap_err().kind(), esker::error::Kind::Refused);
}

#[test]
fn two_owners_rotate_at_once_and_both_epochs_are_everybodys() {
    let memory = Memory::new();
    let owner = scene(&memory);
    let other = owner.open().add_member(Role::Owner, "other", None).unwrap();
    let (one, two) = (owner.open(), unlock(&memory, &other));
    let opened = [one.rotate().unwrap().epoch, two.rotate().unwrap().epoch];
    let now = [owner.open(), unlock(&memory, &other)].map(|repo| repo.keys.current_epoch().id);
    assert_eq!(now[0], now[1], "both go on with the same one");
    assert!(opened.contains(&now[0]));
    let id = owner.backup().id;
    assert!(unlock(&memory, &other).load_snapshot(&id).is_ok());
}

/// A credential that was added while another owner rotated lacks that epoch until somebody rotates again.
#[test]
fn who_was_added_beside_a_rotation_is_granted_what_it_missed_by_the_next() {
    let memory = Memory::new();
    let owner = scene(&memory);
    let (adding, rotating) = (owner.open(), owner.open());
    rotating.rotate().unwrap();
    let late = adding.add_member(Role::Owner, "late", None).unwrap();
    let id = owner.backup().id;
    let listed = |scene: &Scene| scene.open().member_list().iter().filter(|member| !member.up_to_date).count();
    assert_eq!(listed(&owner), 1);
    assert!(unlock(&memory, &late).load_snapshot(&id).is_err());
    let rotation = owner.open().rotate().unwrap();
    assert_eq!((rotation.credentials, rotation.completed), (2, 1));
    assert_eq!(listed(&owner), 0);
    let late = unlock(&memory, &late);
    assert!(late.load_snapshot(&id).is_ok());
    assert_eq!(late.member_list().len(), 2, "to be granted something is not to be added");
}

#[test]
fn a_writer_rotates_nothing_and_holds_no_private_key_of_the_new_epoch() {
    let memory = Memory::new();
    let owner = scene(&memory);
    let writer = owner.writer();
    assert_eq!(writer.open().rotate().unwrap_err().kind(), esker::error::Kind::Refused);
    owner.open().rotate().unwrap();
    let id = writer.backup().id;
    assert!(writer.open().load_snapshot(&id).is_err());
    assert!(owner.open().load_snapshot(&id).is_ok());
}

/// What began before a rotation cannot read what a collection says under the new keys: which packs are condemned,
/// which sessions void. It must not take that for silence (W2, W8).
#[test]
fn who_has_the_old_keys_alone_relies_on_nothing_beside_a_collection_under_new_ones() {
    let memory = Memory::new();
    let owner = scene(&memory);
    let began_before = owner.open();
    let id = owner.backup().id;
    let prune = |scene: &Scene| {
        let options = esker::prune::Options {
            limits: Limits::default(),
            packs: scene.packs,
            patience: Duration::ZERO,
            ignore_clock: false,
            close_lost: false,
            fold_from: 64,
            threads: 1,
        };
        esker::prune::run(&scene.open(), &options, &Monitor::silent(), |_| Ok(()))
    };
    let repo = owner.open();
    let info = Reader::new(&repo).unwrap().find_snapshot(&id.to_string(), &Filter::default()).unwrap();
    esker::forget::run(&repo, &[info], 0).unwrap();
    prune(&owner).unwrap();
    owner.open().rotate().unwrap();
    // It has called the packs dead and does not come to delete them.
    let plan = Plan::none().failing_from(Operation::Delete, "packs/", 1, ErrorKind::Io);
    let faulty: Arc<dyn Storage> = Arc::new(Faulty::new(Arc::new(memory.clone()), plan));
    prune(&owner.over(faulty)).unwrap_err();
    assert!(!memory.list("packs/").unwrap().is_empty());
    let error = esker::backup::run(&began_before, &owner.options(), &Monitor::silent()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.to_string().contains("new keys"), "{error}");
    prune(&owner).unwrap();
    let again = owner.backup().id;
    is_whole(&owner, &again.to_string());
}
