//! Risk: a machine that is backed up needs more of the storage than it should have: whoever takes it over could
//! delete or replace the backups. Or it works with less only until something rare happens.
//! Method: a storage that denies everything but to put what is not there, to get and to list, by the names
//! docs/immutability.md allows; every verb a backed-up machine runs, by an owner's and by a writer's key.

use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex};

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::backup::KeepRecord;
use esker::error::Kind;
use esker::monitor::Monitor;
use esker::prune::plan::{Limits, Unused};
use esker::prune::{self, Options};
use esker::storage::memory::Memory;
use esker::storage::{Error, ErrorKind, Listed, ObjectWriter, Result, Storage, WriteMode};
use repo::{Scene, noise};

/// A handle that may add and read, and replace or delete only signs of life and its own change records.
#[derive(Clone)]
struct AddOnly {
    inner: Memory,
    denied: Arc<Mutex<Vec<String>>>,
}

impl AddOnly {
    fn deny(&self, what: &str, name: &str) -> Error {
        self.denied.lock().unwrap().push(format!("{what} {name}"));
        Error::new(ErrorKind::Denied, format!("may not {what} `{name}`"))
    }

    /// A bucket policy cannot tell to create from to replace but by asking for create-new.
    fn may_put(&self, name: &str, mode: WriteMode) -> Result<()> {
        let own = name.starts_with("alive/") || name.starts_with("cache/");
        if own || mode == WriteMode::CreateNew { Ok(()) } else { Err(self.deny("replace", name)) }
    }
}

impl fmt::Debug for AddOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AddOnly")
    }
}

impl Storage for AddOnly {
    fn place(&self) -> String {
        self.inner.place()
    }
    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        self.may_put(name, mode)?;
        self.inner.put(name, bytes, mode)
    }
    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(AddOnlyWriter { inner: self.inner.writer()?, storage: self.clone() }))
    }
    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.inner.get(name)
    }
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.inner.get_range(name, offset, length)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.inner.list(prefix)
    }
    fn stat(&self, name: &str) -> Result<u64> {
        self.inner.stat(name)
    }
    fn delete(&self, name: &str) -> Result<()> {
        Err(self.deny("delete", name))
    }
    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }
    fn cover(&self, name: &str) -> Result<()> {
        self.inner.cover(name)
    }
}

struct AddOnlyWriter {
    inner: Box<dyn ObjectWriter>,
    storage: AddOnly,
}

impl ObjectWriter for AddOnlyWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write(bytes)
    }
    fn finish(self: Box<Self>, name: &str, mode: WriteMode) -> Result<()> {
        self.storage.may_put(name, mode)?;
        self.inner.finish(name, mode)
    }
}

fn collecting() -> Options {
    Options {
        limits: Limits { max_unused: Unused::Bytes(0), ..Limits::default() },
        packs: esker::repo::pack_writer::PackSettings::default(),
        patience: std::time::Duration::ZERO,
        ignore_clock: false,
        close_lost: false,
        fold_from: 1,
        threads: 1,
    }
}

#[test]
fn a_machine_that_may_only_add_and_read_makes_and_restores_backups() {
    let memory = Memory::new();
    let whole = Scene::new(Arc::new(memory.clone()));
    let denied = Arc::new(Mutex::new(Vec::new()));
    let add_only = AddOnly { inner: memory.clone(), denied: denied.clone() };
    let owner = whole.over(Arc::new(add_only.clone()));
    let writer = whole.writer().over(Arc::new(add_only.clone()));
    for n in 0..4 {
        fs::write(whole.source().join(format!("file-{n}")), noise(n, 50_000)).unwrap();
        for scene in [&owner, &writer] {
            let id = scene.backup().id.to_string();
            let target = owner.restore(&id);
            assert_eq!(tree::lines(&target), tree::lines(&whole.source()));
            // Of a backup that finds nothing new only its announcement cannot be taken back.
            scene.backup();
        }
    }
    // A machine without a disk keeps its change record in the repository.
    let mut options = writer.options();
    options.keep_record = KeepRecord::InRepository;
    for _ in 0..2 {
        esker::backup::run(&writer.open(), &options, &Monitor::silent()).unwrap();
    }
    assert!(owner.check().faults.is_empty());
    let asked = denied.lock().unwrap().clone();
    assert!(
        asked.iter().all(|what| what.starts_with("delete sessions/") || what.starts_with("delete alive/")),
        "{asked:?}"
    );
}

#[test]
fn what_may_not_delete_collects_nothing_and_loses_nothing() {
    let memory = Memory::new();
    let whole = Scene::new(Arc::new(memory.clone()));
    let denied = Arc::new(Mutex::new(Vec::new()));
    let owner = whole.over(Arc::new(AddOnly { inner: memory.clone(), denied }));
    let mut made = Vec::new();
    for n in 0..3 {
        fs::write(whole.source().join("file"), noise(n, 50_000)).unwrap();
        made.push(owner.backup().id.to_string());
    }
    let repo = owner.open();
    let reader = esker::repo::content::Reader::new(&repo).unwrap();
    let (found, _) = reader.snapshots(&esker::repo::snapshots::Filter::default()).unwrap();
    esker::forget::run(&repo, &found[..2], 0).unwrap();
    for _ in 0..3 {
        // Whatever came of it before, the next is refused in the same way.
        let refused = prune::run(&owner.open(), &collecting(), &Monitor::silent(), |_| Ok(()));
        let refused = refused.expect_err("it deletes nothing");
        assert_eq!(refused.kind(), Kind::Refused, "{}", refused.with_causes());
    }
    // Who may delete goes on where that one could not.
    prune::run(&whole.open(), &collecting(), &Monitor::silent(), |_| Ok(())).unwrap();
    prune::run(&whole.open(), &collecting(), &Monitor::silent(), |_| Ok(())).unwrap();
    assert_eq!(tree::lines(&whole.restore(&made[2])), tree::lines(&whole.source()));
    assert!(whole.check().faults.is_empty());
}
