//! Risk: people or machines that share a repository harm each other, or keep what was taken
//! from them.
//! Method: several backups at once over one storage and one cache; passwords and credentials
//! added, changed and removed, with repositories left open across the change.

use std::fs;
use std::sync::Arc;

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::backup;
use esker::crypto::slot::KdfCost;
use esker::error::Kind;
use esker::format::access::Role;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::Local;
use esker::repo::secret::{KeyFile, Secret};
use esker::repo::snapshots::Filter;
use esker::restore;
use esker::storage::local::Local as LocalStorage;
use esker::storage::memory::Memory;
use esker::world::{Clock, Rng, Time, World};
use repo::{Scene, later, noise};

#[test]
fn several_backups_at_once_all_restore() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("repository");
    let scene = Scene::new(Arc::new(LocalStorage::create(&place).unwrap()));
    let sources: Vec<_> = (0..6_u64)
        .map(|n| {
            let source = dir.path().join(format!("source-{n}"));
            fs::create_dir(&source).unwrap();
            // What they share is stored by whoever comes first, or by several: never by nobody.
            fs::write(source.join("shared"), noise(0, 400_000)).unwrap();
            fs::write(source.join("own"), noise(n + 1, 200_000)).unwrap();
            source
        })
        .collect();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = sources
            .iter()
            .map(|source| {
                let scene = &scene;
                scope.spawn(move || {
                    let options =
                        backup::Options { roots: vec![TreePath::from_os(source).unwrap()], ..scene.options() };
                    let first = backup::run(&scene.open(), &options, &Monitor::silent()).unwrap().id;
                    let second = backup::run(&scene.open(), &options, &Monitor::silent()).unwrap().id;
                    [first, second]
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(scene.check().faults.is_empty());
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    for (source, ids) in sources.iter().zip(&ids) {
        for id in ids {
            let info = reader.find_snapshot(&id.to_string(), &Filter::default()).unwrap();
            let target = dir.path().join(format!("restored-{id}"));
            let base = TreePath::from_os(source).unwrap();
            let options = restore::Options::new(&target);
            restore::run(&reader, &info.snapshot.root, &base, &options, &Monitor::silent()).unwrap();
            assert_eq!(tree::lines(&target), tree::lines(source));
        }
    }
}

fn open(memory: &Memory, secret: Secret) -> esker::error::Result<Repository> {
    Repository::open(Arc::new(memory.clone()), later(), &secret, Local::default())
}

#[test]
fn a_password_opens_until_it_is_changed() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone()));
    let owner = scene.open();
    owner.add_member(Role::Owner, "anna", Some(("first", KdfCost::FLOOR))).unwrap();
    let anna = open(&memory, Secret::password("first")).unwrap();
    assert_eq!(open(&memory, Secret::password("guess")).unwrap_err().kind(), Kind::WrongKey);
    anna.change_password("second", KdfCost::FLOOR).unwrap();
    assert_eq!(open(&memory, Secret::password("first")).unwrap_err().kind(), Kind::WrongKey);
    let anna = open(&memory, Secret::password("second")).unwrap();
    let members = anna.member_list();
    assert_eq!(members.iter().map(|member| &member.label[..]).collect::<Vec<_>>(), ["owner", "anna"]);
    assert!(members[1].current && members[1].slots.len() == 1);
}

#[test]
fn a_key_file_of_another_repository_is_told_apart() {
    let (one, other) = (Memory::new(), Memory::new());
    let scene = Scene::new(Arc::new(one.clone()));
    Scene::new(Arc::new(other.clone()));
    let key = scene.open().add_member(Role::Owner, "x", None).unwrap();
    let error = open(&other, Secret::KeyFile(key.clone())).unwrap_err();
    assert_eq!(error.kind(), Kind::WrongKey);
    assert!(error.to_string().contains("is for repository"), "{error}");
    // The right repository id in the file of a credential it does not know.
    let stranger = KeyFile { seed: esker::crypto::key::SecretKey::from_bytes(&[1; 32]), ..key };
    assert_eq!(open(&one, Secret::KeyFile(stranger)).unwrap_err().kind(), Kind::WrongKey);
}

#[test]
fn a_removed_writer_keeps_its_snapshots_and_makes_no_more() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone()));
    fs::write(scene.source().join("file"), noise(1, 50_000)).unwrap();
    let writer = scene.writer();
    let before = writer.backup().id;
    let still_open = writer.open();
    let owner = scene.open();
    let id = owner.member_list().into_iter().find(|member| member.label == "writer").unwrap().id;
    let mut catalog = owner.open_catalog();
    let (_, heads) = owner.load_commits(&mut catalog).unwrap().newest_of(&id);
    owner.remove_member(&id, heads).unwrap();

    assert_eq!(writer.try_open().unwrap_err().kind(), Kind::Refused);
    // A process that was unlocked before the removal still writes; it does not count.
    let after = backup::run(&still_open, &writer.options(), &Monitor::silent()).unwrap().id;
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let (snapshots, _) = reader.snapshots(&Filter::default()).unwrap();
    let ids: Vec<_> = snapshots.iter().map(|info| info.id()).collect();
    assert!(ids.contains(&before) && !ids.contains(&after), "{ids:?}");
    scene.restore(&before.to_string());
}

#[test]
fn owners_only_may_change_who_has_access() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone()));
    let writer = scene.writer().open();
    assert_eq!(writer.add_member(Role::Writer, "x", None).unwrap_err().kind(), Kind::Refused);
    assert_eq!(writer.change_password("x", KdfCost::FLOOR).unwrap_err().kind(), Kind::Refused);
    let owner = scene.open();
    let root = owner.member_list()[0].id;
    assert_eq!(owner.remove_member(&root, vec![]).unwrap_err().kind(), Kind::Refused);
}

/// A world whose first random bytes of an id's length are given, to make a repository of the same id.
struct SameId(std::sync::Mutex<Option<[u8; 16]>>, World);

impl Rng for SameId {
    fn fill(&self, buf: &mut [u8]) {
        let id = if buf.len() == 16 { self.0.lock().unwrap().take() } else { None };
        match id {
            Some(id) => buf.copy_from_slice(&id),
            None => buf.chunks_mut(32).for_each(|part| part.copy_from_slice(&self.1.random::<32>()[..part.len()])),
        }
    }
}

impl Clock for SameId {
    fn now(&self) -> Time {
        self.1.now()
    }
}

/// A storage that puts up a repository of its own under the same id, to receive the backups of a
/// write-only machine, is found out before anything is sent.
#[test]
fn a_key_file_does_not_open_a_repository_the_storage_has_made_up() {
    let scene = Scene::new(Arc::new(Memory::new()));
    let owner = scene.open();
    let victim = owner.add_member(Role::Writer, "server", None).unwrap();
    let evil = Memory::new();
    let same = Arc::new(SameId(std::sync::Mutex::new(Some(*owner.config.repo.as_bytes())), World::seeded(9)));
    let world = World::new(same.clone(), same);
    let (fake, _) = Repository::init(Arc::new(evil.clone()), world, &repo::init_options(), Local::default()).unwrap();
    assert_eq!(fake.config.repo, owner.config.repo, "the made-up repository has the same id");
    let error = open(&evil, Secret::KeyFile(victim)).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
}
