//! Risk: a stolen writer credential plants wrong bytes that another machine's snapshot then rests
//! on; or, the other way, nothing is ever shared. And a machine without a disk reads all it has
//! every night, or believes what a hostile storage tells it.
//! Method: two writers and an owner over one storage, counting what each stores.

use std::fs;
use std::sync::Arc;

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::backup::{self, KeepRecord, Options};
use esker::format::access::Role;
use esker::monitor::Monitor;
use esker::repo::Repository;
use esker::repo::open::Local;
use esker::repo::secret::{KeyFile, Secret};
use esker::storage::memory::Memory;
use esker::storage::{Storage, WriteMode};
use repo::{Scene, later, noise};

fn owner_scene(memory: &Memory) -> Scene {
    let scene = Scene::new(Arc::new(memory.clone()));
    for n in 0..20 {
        fs::write(scene.source().join(format!("file-{n}")), noise(n, 40_000)).unwrap();
    }
    scene
}

fn added(scene: &Scene) -> u64 {
    scene.backup().snapshot.summary.data_added
}

#[test]
fn a_writer_reuses_what_another_stored_only_once_an_owner_has_read_it() {
    let memory = Memory::new();
    let owner = owner_scene(&memory);
    let first = owner.writer();
    let second = owner.writer();
    assert!(added(&first) > 800_000);
    let report = owner.check();
    assert!(report.faults.is_empty());
    assert!(!report.whole.is_empty());
    // Reading alone says nothing to others.
    let third = owner.writer();
    assert!(added(&third) > 800_000, "nobody has vouched for it");
    // A writer's word does not count, nor can it give it.
    assert!(second.open().attest(&report.whole).is_err());
    owner.open().attest(&report.whole).unwrap();
    assert!(added(&second) < 10_000, "an owner has vouched for it");
    let id = second.backup().id.to_string();
    let target = owner.restore(&id);
    assert_eq!(tree::lines(&target), tree::lines(&owner.source()));
}

#[test]
fn a_pack_that_is_damaged_is_not_vouched_for() {
    let memory = Memory::new();
    let owner = owner_scene(&memory);
    owner.writer().backup();
    let packs = memory.list("packs/").unwrap();
    for pack in &packs {
        let mut bytes = memory.get(&pack.name).unwrap();
        bytes[1000] ^= 1;
        memory.put(&pack.name, &bytes, WriteMode::Replace).unwrap();
    }
    let report = owner.check();
    assert!(report.whole.is_empty(), "{:?}", report.whole);
    assert_eq!(report.faults.iter().filter(|fault| fault.object.starts_with("packs/")).count(), packs.len());
}

/// A machine without a cache, with one writer key.
struct Diskless<'a> {
    memory: &'a Memory,
    owner: &'a Scene,
    key: KeyFile,
}

impl Diskless<'_> {
    fn run(&self, hostname: &str) -> (backup::Report, Vec<String>) {
        struct Warnings(std::sync::Mutex<Vec<String>>);
        impl esker::monitor::Sink for Warnings {
            fn problem(&self, problem: &esker::monitor::Problem) {
                self.0.lock().unwrap().push(format!("{}: {}", problem.item, problem.message));
            }
        }
        let secret = Secret::KeyFile(self.key.clone());
        let repo = Repository::open(Arc::new(self.memory.clone()), later(), &secret, Local::default()).unwrap();
        let options = Options {
            keep_record: KeepRecord::InRepository,
            hostname: hostname.into(),
            ignore_ctime: true,
            ..self.owner.options()
        };
        let warnings = Arc::new(Warnings(std::sync::Mutex::default()));
        let report = backup::run(&repo, &options, &Monitor::new(warnings.clone())).unwrap();
        let warnings = std::mem::take(&mut *warnings.0.lock().unwrap());
        (report, warnings)
    }

    /// Changes a file so that size and time do not tell.
    fn change_unseen(&self, seed: u64) {
        let path = self.owner.source().join("file-3");
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, noise(seed, 40_000)).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn a_machine_without_a_disk_reads_only_what_changed_and_believes_no_record_but_its_own() {
    let memory = Memory::new();
    let owner = owner_scene(&memory);
    let key = owner.open().add_member(Role::Writer, "job", None).unwrap();
    let job = Diskless { memory: &memory, owner: &owner, key };
    let record = || {
        let found = memory.list("cache/").unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].name.clone()
    };
    let (first, warnings) = job.run("pod");
    assert!(first.snapshot.summary.data_added > 800_000 && warnings.is_empty(), "{warnings:?}");
    let digest = |bytes: &[u8]| {
        let (body, digest) = bytes.split_at(bytes.len() - 32);
        assert_eq!(blake3::hash(body).as_bytes(), digest, "anyone can check it");
    };
    digest(&memory.get(&record()).unwrap());

    job.change_unseen(900);
    let (second, _) = job.run("pod");
    assert_eq!(second.snapshot.summary.files_unmodified, 20, "the file was not read");
    assert_eq!(second.snapshot.parent, Some(first.id));

    // Damaged: said so, and every file is read.
    let name = record();
    let good = memory.get(&name).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    memory.put(&name, &bad, WriteMode::Replace).unwrap();
    let (third, warnings) = job.run("pod");
    assert_eq!(third.snapshot.summary.files_new, 20);
    assert!(warnings.iter().any(|warning| warning.contains("damaged")), "{warnings:?}");
    assert!(third.snapshot.summary.data_added > 30_000, "the changed file was read");

    // Another set's record in its place, whole by its digest: of no use.
    let own = memory.get(&name).unwrap();
    let (other, _) = job.run("other");
    assert!(other.snapshot.summary.data_added < 10_000);
    let all = memory.list("cache/").unwrap();
    let others = all.iter().find(|object| object.name != name).unwrap();
    memory.put(&name, &memory.get(&others.name).unwrap(), WriteMode::Replace).unwrap();
    let (fourth, _) = job.run("pod");
    assert_eq!(fourth.snapshot.summary.files_new, 20);
    // Its own, older: true still.
    memory.put(&name, &own, WriteMode::Replace).unwrap();
    let (fifth, _) = job.run("pod");
    assert_eq!(fifth.snapshot.summary.files_unmodified, 20);
}
