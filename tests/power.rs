//! Risk: what was reported as made is gone after a loss of power, because a real file system does
//! otherwise than the model in `crash` says.
//! Method: ext4 and xfs on loop devices, cut off at storage calls of `init` and `backup`, before the
//! call and after it, and mounted again: what was reported restores, a check finds nothing, no
//! rollback is cried, the next backup is whole. The repository alone is on such a disk, or the
//! cache, the pins and the key file as well. The same without syncs is seen to lose snapshots.
//!
//! Here some of the calls are tried, evenly apart; with `ESKER_SOAK=1` all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[allow(dead_code)]
#[path = "support/cli.rs"]
mod cli;
#[path = "support/loopfs.rs"]
mod loopfs;
#[allow(dead_code)]
#[path = "support/stops.rs"]
mod stops;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use cli::Machine;
use esker::chunk::cut::Parameters;
use esker::crypto::slot::KdfCost;
use esker::error::Kind as Why;
use esker::repo::Repository;
use esker::repo::open::{FirstKey, InitOptions, load_config};
use esker::storage::local::Local;
use esker::storage::{Error, ErrorKind, Listed, ObjectWriter, Result, Storage, WriteMode};
use loopfs::{Kind, LoopDisk};
use stops::{DISK, Excuse, Known, assert_calm, assert_checks, backup, chosen, write_source};

/// What is on the disk that loses its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// The repository, which is the top of it.
    Repository,
    /// That, the cache, the pins and the key file.
    All,
}

const SETTINGS: [(Kind, On); 4] =
    [(Kind::Ext4, On::Repository), (Kind::Ext4, On::All), (Kind::Xfs, On::Repository), (Kind::Xfs, On::All)];

/// When the power is cut: just before a changing call, counted from 1, or just after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Before(u64),
    After(u64),
    /// When the command has ended.
    AtEnd,
}

/// A storage that cuts the power of the disk it is on.
#[derive(Clone)]
struct Cutting {
    inner: Arc<dyn Storage>,
    disk: Arc<LoopDisk>,
    cut: Option<Cut>,
    calls: Arc<AtomicU64>,
    /// Changing calls come one at a time, so that the cut is exact.
    one: Arc<Mutex<()>>,
}

impl Cutting {
    fn new(inner: impl Storage + 'static, disk: &Arc<LoopDisk>, cut: Option<Cut>) -> Self {
        Self { inner: Arc::new(inner), disk: disk.clone(), cut, calls: Arc::default(), one: Arc::default() }
    }

    fn change<T>(&self, call: impl FnOnce(&dyn Storage) -> Result<T>) -> Result<T> {
        let _one = self.one.lock().unwrap();
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.cut == Some(Cut::Before(number)) {
            self.disk.cut();
        }
        let result = call(&*self.inner);
        if self.cut == Some(Cut::After(number)) {
            self.disk.cut();
        }
        result
    }
}

impl std::fmt::Debug for Cutting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cutting({:?})", self.cut)
    }
}

impl Storage for Cutting {
    fn place(&self) -> String {
        self.inner.place()
    }
    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        self.change(|inner| inner.put(name, bytes, mode))
    }
    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(CuttingWriter { inner: self.inner.writer()?, storage: self.clone() }))
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
        self.change(|inner| inner.delete(name))
    }
    fn barrier(&self) -> Result<()> {
        self.change(|inner| inner.barrier())
    }
    fn cover(&self, name: &str) -> Result<()> {
        self.inner.cover(name)
    }
    fn local_directory(&self) -> Option<&Path> {
        self.inner.local_directory()
    }
}

struct CuttingWriter {
    inner: Box<dyn ObjectWriter>,
    storage: Cutting,
}

impl ObjectWriter for CuttingWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write(bytes)
    }
    fn finish(self: Box<Self>, name: &str, mode: WriteMode) -> Result<()> {
        let Self { inner, storage } = *self;
        storage.change(|_| inner.finish(name, mode))
    }
}

/// The same directory with nothing synced: what the tests must be able to tell from [`Local`].
#[derive(Debug)]
struct Unsynced {
    inner: Local,
}

impl Storage for Unsynced {
    fn place(&self) -> String {
        self.inner.place()
    }
    fn put(&self, name: &str, bytes: &[u8], _: WriteMode) -> Result<()> {
        let path = self.inner.local_directory().unwrap().join(name);
        let written = fs::create_dir_all(path.parent().unwrap()).and_then(|()| fs::write(path, bytes));
        written.map_err(|error| Error::new(ErrorKind::Io, "not written").because(error))
    }
    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(Gathered { bytes: Vec::new(), storage: Self { inner: self.inner.clone() } }))
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
        self.inner.delete(name)
    }
    fn barrier(&self) -> Result<()> {
        Ok(())
    }
    fn cover(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

struct Gathered {
    bytes: Vec<u8>,
    storage: Unsynced,
}

impl ObjectWriter for Gathered {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
    fn finish(self: Box<Self>, name: &str, mode: WriteMode) -> Result<()> {
        self.storage.put(name, &self.bytes, mode)
    }
}

/// A machine and the disk that loses its power.
struct Scene {
    machine: Machine,
    disk: Arc<LoopDisk>,
    place: PathBuf,
    /// What is put on the disk each time.
    base: PathBuf,
}

impl Scene {
    /// The disk is empty.
    fn new(kind: Kind, on: On, seed: u64) -> Option<Self> {
        let machine = stops::machine(seed);
        let place = match on {
            On::Repository => machine.path(DISK).join("repository"),
            On::All => machine.path(DISK),
        };
        fs::create_dir_all(&place).unwrap();
        let disk = Arc::new(LoopDisk::mount(kind, &place)?);
        fs::create_dir_all(machine.path(DISK).join("home")).unwrap();
        let base = machine.path("base");
        Some(Self { machine, disk, place, base })
    }

    /// There are a repository and two snapshots, and a source that has changed since.
    fn begun(kind: Kind, on: On, seed: u64) -> Option<Self> {
        let scene = Self::new(kind, on, seed)?;
        stops::begin(&scene.machine);
        scene.keep();
        Some(scene)
    }

    /// What is on the disk now is what it is reset to; so is what is not on it.
    fn keep(&self) {
        copy(&self.machine.path(DISK), &self.base);
    }

    /// All is as it was, and durable.
    fn reset(&self) {
        clear(&self.place);
        if self.place != self.machine.path(DISK) {
            for entry in fs::read_dir(self.machine.path(DISK)).unwrap().map(|entry| entry.unwrap().path()) {
                if entry != self.place {
                    fs::remove_dir_all(entry).unwrap();
                }
            }
        }
        copy(&self.base, &self.machine.path(DISK));
        self.disk.sync();
    }

    fn run<T>(&mut self, cut: Option<Cut>, run: impl FnOnce(&Machine) -> T) -> (T, u64) {
        let cutting = Cutting::new(stops::local(&self.machine), &self.disk, cut);
        let calls = cutting.calls.clone();
        self.machine.instead = Some(Arc::new(cutting));
        let result = run(&self.machine);
        self.machine.instead = None;
        if cut == Some(Cut::AtEnd) {
            self.disk.cut();
        }
        (result, calls.load(Ordering::Relaxed))
    }
}

fn clear(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            _ if entry.ends_with("lost+found") => {}
            true => fs::remove_dir_all(entry).unwrap(),
            false => fs::remove_file(entry).unwrap(),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}

/// Every call, cut before it and after it, and the end.
fn cuts(calls: u64) -> Vec<Cut> {
    (1..=calls).flat_map(|call| [Cut::Before(call), Cut::After(call)]).chain([Cut::AtEnd]).collect()
}

#[test]
fn a_backup_that_was_reported_outlives_a_loss_of_power() {
    for (n, (kind, on)) in SETTINGS.into_iter().enumerate() {
        let Some(mut scene) = Scene::begun(kind, on, n as u64) else { return };
        let known = Known::now(&scene.machine);
        scene.reset();
        let (made, calls) = scene.run(None, stops::backup_in_many_packs);
        made.unwrap();
        let mut reported = 0;
        for cut in chosen(&cuts(calls), 24) {
            scene.reset();
            let (made, _) = scene.run(Some(cut), stops::backup_in_many_packs);
            scene.disk.restart();
            let when = format!("{kind:?}, {on:?}, cut {cut:?} of {calls}");
            let others = known.assert_stand(&scene.machine, Excuse::default(), &when);
            if let Ok(report) = &made {
                reported += 1;
                assert!(others.contains(&report.id.to_string()), "reported as made, {when}");
            }
            assert_checks(&scene.machine, Excuse::default(), &when);
            assert_calm(&backup(&scene.machine), Excuse::default(), &when);
            assert!(!known.assert_still_stand(&scene.machine, Excuse::default(), &when).is_empty(), "{when}");
            assert_checks(&scene.machine, Excuse::default(), &when);
        }
        assert!(reported > 0, "the last cut comes at the end");
    }
}

#[test]
fn an_init_that_was_reported_outlives_a_loss_of_power() {
    let options = InitOptions {
        key: FirstKey::KeyFile,
        kdf: KdfCost::FLOOR,
        chunker: Parameters::with_average(16 << 10),
        label: "owner".into(),
        like: None,
        parity_percent: 0,
    };
    for (n, (kind, on)) in SETTINGS.into_iter().enumerate() {
        let Some(mut scene) = Scene::new(kind, on, 10 + n as u64) else { return };
        let key = scene.machine.path(DISK).join("home/key");
        let init = |machine: &Machine| {
            let storage = machine.instead.clone().unwrap();
            Repository::init_keeping(storage, machine.world.clone(), &options, stops::places(machine), |file| {
                // As the command line does.
                let synced = fs::write(&key, file.to_text().as_bytes())
                    .and_then(|()| fs::File::open(&key)?.sync_all())
                    .and_then(|()| esker::storage::local::sync_directory(key.parent().unwrap()));
                synced.map_err(|error| esker::error::Error::new(Why::Failed, error.to_string()))
            })
            .map(drop)
        };
        Local::create(scene.machine.path(DISK).join("repository")).unwrap();
        scene.keep();
        let (made, calls) = scene.run(None, init);
        made.unwrap();
        let mut reported = 0;
        for cut in chosen(&cuts(calls), 16) {
            scene.reset();
            let (made, _) = scene.run(Some(cut), init);
            scene.disk.restart();
            let when = format!("{kind:?}, {on:?}, cut {cut:?} of {calls}");
            match load_config(&stops::local(&scene.machine)) {
                Ok(_) => reported += u32::from(made.is_ok()),
                Err(error) => {
                    assert!(made.is_err(), "reported as made, {when}");
                    assert_eq!(error.kind(), Why::NoRepository, "{error:?}, {when}");
                    let _ = fs::remove_file(&key);
                    let again = scene.machine.esker(["init", "--no-recovery"]);
                    assert_calm(&again, Excuse::default(), &when);
                }
            }
            assert_calm(&backup(&scene.machine), Excuse::default(), &when);
            assert_checks(&scene.machine, Excuse { one_copy: true, torn: None }, &when);
            assert!(!Known::default().assert_stand(&scene.machine, Excuse::default(), &when).is_empty(), "{when}");
        }
        assert!(reported > 0, "the last cut comes at the end");
    }
}

/// Were nothing synced, the tests above would see it.
#[test]
fn without_syncs_a_loss_of_power_is_seen_to_lose_snapshots() {
    for (n, kind) in [Kind::Ext4, Kind::Xfs].into_iter().enumerate() {
        let Some(mut scene) = Scene::begun(kind, On::Repository, 20 + n as u64) else { return };
        let known = Known::now(&scene.machine);
        scene.reset();
        scene.machine.instead = Some(Arc::new(Unsynced { inner: stops::local(&scene.machine) }));
        let made = stops::backup_in_many_packs(&scene.machine).unwrap();
        scene.machine.instead = None;
        scene.disk.cut();
        scene.disk.restart();
        let stays = known.assert_stand(&scene.machine, Excuse::default(), "without syncs");
        assert!(!stays.contains(&made.id.to_string()), "{kind:?} loses nothing: what do these tests show?");
        let refused = backup(&scene.machine);
        assert_eq!(refused.code, 6, "the pins, on another disk, know of it: {refused}");
    }
}

/// The source changes between cuts, and nothing is put right in between: one life of many losses.
#[test]
fn one_repository_outlives_many_losses_of_power() {
    let losses = if stops::soaking() { 100 } else { 8 };
    for (n, kind) in [Kind::Ext4, Kind::Xfs].into_iter().enumerate() {
        let Some(mut scene) = Scene::begun(kind, On::All, 30 + n as u64) else { return };
        scene.disk.sync();
        let mut known = Known::now(&scene.machine);
        for loss in 0..losses {
            write_source(&scene.machine, 10 + loss);
            let when = format!("{kind:?}, loss {loss}");
            // Each time after another of the calls, the fifth time at the end.
            let cut = if loss % 5 == 4 { Cut::AtEnd } else { Cut::After(1 + loss * 11 % 20) };
            let (made, _) = scene.run(Some(cut), stops::backup_in_many_packs);
            scene.disk.restart();
            let others = known.assert_stand(&scene.machine, Excuse::default(), &when);
            assert!(made.is_err() || !others.is_empty(), "reported as made, {when}");
            known = Known::now(&scene.machine);
        }
        assert_checks(&scene.machine, Excuse::default(), "in the end");
        assert_calm(&backup(&scene.machine), Excuse::default(), "in the end");
    }
}
