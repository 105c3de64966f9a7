//! Risk: a long backup that is stopped begins at the front again, or rests on what a collector
//! has taken back meanwhile.
//! Method: backups with checkpoints every few kilobytes, stopped at every storage call and by the
//! monitor, then run again over a storage that records every call; collections made by hand
//! between the sessions of one backup.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::backup::{self, Options};
use esker::error::Kind;
use esker::format::session::CommitKind;
use esker::monitor::Monitor;
use esker::repo::content::Reader;
use esker::repo::pack_writer::PackSettings;
use esker::storage::fault::{Faulty, LastChange, Plan, PowerLoss};
use esker::storage::memory::Memory;
use esker::storage::record::{Operation, Recording};
use esker::storage::{ErrorKind, Listed, ObjectWriter, Storage, WriteMode};
use repo::{Scene, noise};

fn write_tree(root: &Path) {
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    for n in 0..60 {
        fs::write(root.join(format!("sub/file-{n:02}")), noise(n, 40_000)).unwrap();
    }
    fs::write(root.join("sub/deep/large"), noise(1000, 2_500_000)).unwrap();
    fs::write(root.join("zz-note"), "the end").unwrap();
}

/// Packs that are large beside their padding, and small beside the tree.
fn scene(storage: Arc<dyn Storage>) -> Scene {
    let mut scene = Scene::new(storage);
    scene.packs = PackSettings {
        data_pack_bytes: 256 << 10,
        tree_pack_bytes: 64 << 10,
        frame_bytes: 32 << 10,
        mixed_pack_bytes: 16 << 10,
        ..scene.packs
    };
    write_tree(&scene.source());
    scene
}

/// Checkpoints every few packs.
fn often(scene: &Scene) -> Options {
    Options { checkpoint_bytes: 700 << 10, ..scene.options() }
}

fn run(scene: &Scene, monitor: &Monitor) -> esker::error::Result<backup::Report> {
    backup::run(&scene.try_open()?, &often(scene), monitor)
}

fn kinds(scene: &Scene) -> Vec<CommitKind> {
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let mut headers: Vec<_> = reader.commits().headers.values().collect();
    headers.sort_by_key(|header| header.sequence);
    headers.iter().map(|header| header.kind).collect()
}

/// What the local files of stopped runs are.
fn leftovers(scene: &Scene) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![scene.cache()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else if name.contains(".new-") || name.contains(".open-") {
                found.push(name);
            }
        }
    }
    found
}

fn assert_whole(scene: &Scene, id: &str, when: &str) {
    let target = scene.restore(id);
    assert!(tree::lines(&target) == tree::lines(&scene.source()), "{id} differs, {when}");
    fs::remove_dir_all(target).unwrap();
}

#[test]
fn a_backup_with_checkpoints_is_one_snapshot_that_takes_their_place() {
    let scene = scene(Arc::new(Memory::new()));
    let report = run(&scene, &Monitor::silent()).unwrap();
    let kinds = kinds(&scene);
    assert!(kinds.len() > 5, "{kinds:?}");
    assert_eq!(kinds.last(), Some(&CommitKind::Snapshot));
    assert!(kinds[..kinds.len() - 1].iter().all(|kind| *kind == CommitKind::Checkpoint), "{kinds:?}");
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let last = &reader.commits().headers[&report.id];
    assert_eq!(last.supersedes.len(), kinds.len() - 1);
    let added = report.snapshot.summary.data_added;
    // Checkpoints cut through directories: some nodes are stored that the end does not need.
    assert!((4_900_000..5_000_000).contains(&added), "{added}");
    assert_whole(&scene, &report.id.to_string(), "with checkpoints");
    assert!(scene.check().faults.is_empty());
    assert!(leftovers(&scene).is_empty(), "{:?}", leftovers(&scene));
    // Nothing has changed but the directory around the source: no checkpoint.
    let again = run(&scene, &Monitor::silent()).unwrap();
    assert!(again.snapshot.summary.data_added < 1000, "{:?}", again.snapshot.summary);
    assert_eq!(again.snapshot.parent, Some(report.id));
}

#[test]
fn a_stop_commits_a_checkpoint_and_the_next_run_goes_on_from_there() {
    let memory = Memory::new();
    let recording = Recording::new(Arc::new(memory.clone()));
    let stop_at = Arc::new(AtomicU64::new(4));
    let monitor = Monitor::silent();
    let stopping = Hooked::new(Arc::new(recording.clone()), {
        let (monitor, stop_at) = (monitor.clone(), stop_at.clone());
        move |name: &str| {
            if name.starts_with("packs/") && stop_at.fetch_sub(1, Ordering::Relaxed) == 1 {
                monitor.stop();
            }
        }
    });
    let scene = scene(Arc::new(stopping));
    let error = backup::run(&scene.open(), &scene.options(), &monitor).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert!(error.hint_text().unwrap().contains("goes on from there"), "{error:?}");
    assert_eq!(kinds(&scene), [CommitKind::Checkpoint]);
    let stored: BTreeSet<_> = recording.puts().into_iter().filter(|name| name.starts_with("packs/")).collect();
    assert!(scene.check().faults.is_empty());

    recording.clear();
    let report = backup::run(&scene.open(), &scene.options(), &Monitor::silent()).unwrap();
    let bytes_again: u64 = bytes_put(&recording, "packs/");
    let bytes_before: u64 = stored.iter().map(|name| memory.stat(name).unwrap()).sum();
    assert!(bytes_again + bytes_before < 6_000_000, "{bytes_before} stored before the stop, {bytes_again} after");
    assert_eq!(kinds(&scene), [CommitKind::Checkpoint, CommitKind::Snapshot]);
    assert_whole(&scene, &report.id.to_string(), "after a stop");
    assert!(leftovers(&scene).is_empty());
}

fn bytes_put(recording: &Recording, prefix: &str) -> u64 {
    let calls = recording.calls();
    let puts = calls.iter().filter(|call| call.operation == Operation::Put && call.name.starts_with(prefix));
    puts.map(|call| call.bytes).sum()
}

/// Every stop of a first backup with checkpoints, as a kill leaves it, with and without the loss of
/// power: afterwards the same command makes a snapshot that is whole, and stores no data pack
/// whose bytes a finished pack holds already.
#[test]
fn a_kill_anywhere_costs_the_next_run_only_what_was_not_stored() {
    let base = Memory::new();
    let first = scene(Arc::new(base.clone()));
    let start = base.snapshot();
    let whole = {
        let faulty = Faulty::new(Arc::new(base.clone()), Plan::none());
        run(&first.over(Arc::new(faulty.clone())), &Monitor::silent()).unwrap();
        let total: u64 = base.list("packs/").unwrap().iter().map(|object| object.bytes).sum();
        (faulty.changes(), total)
    };
    let (changes, total) = whole;
    assert!(changes > 50, "{changes}");
    let mut resumed = 0;
    for stop in (1..=changes).step_by(6) {
        for (last, power) in [
            (LastChange::Lost, PowerLoss::None),
            (LastChange::Done, PowerLoss::None),
            (LastChange::Torn, PowerLoss::TakesAll),
        ] {
            base.restore(start.clone());
            let _ = fs::remove_dir_all(first.cache());
            let faulty = Faulty::new(Arc::new(base.clone()), Plan::crash_at(stop).last(last).power(power));
            assert!(run(&first.over(Arc::new(faulty)), &Monitor::silent()).is_err() || stop == changes);
            let when = format!("stopped at {stop} of {changes}, {last:?}, {power:?}");
            let kept: u64 = base.list("packs/").unwrap().iter().map(|object| object.bytes).sum();

            let recording = Recording::new(Arc::new(base.clone()));
            let after = first.over(Arc::new(recording.clone()));
            let report = run(&after, &Monitor::silent()).unwrap_or_else(|error| panic!("{error:?}, {when}"));
            let again = bytes_put(&recording, "packs/");
            // What packs in work held at the stop is stored again; and padding differs.
            assert!(again + kept <= total + (900 << 10), "{kept} kept, {again} stored again of {total}, {when}");
            resumed += u32::from(kept > total / 2);
            assert_whole(&after, &report.id.to_string(), &when);
            let faults = after.check().faults;
            let torn = faults.iter().all(|fault| last == LastChange::Torn && !fault.object.starts_with("packs/"));
            assert!(torn, "{faults:?}, {when}");
            assert!(leftovers(&after).is_empty(), "{:?}, {when}", leftovers(&after));
        }
    }
    assert!(resumed > 10, "{resumed}");
}

/// What was read is not read again. A file is changed so that nothing tells (its size and times
/// are put back, and its status change is hidden from a run that looks at size and mtime alone):
/// a run that reads it stores the new bytes, a run that does not keeps the old ones.
#[test]
fn a_resumed_run_does_not_read_files_the_stopped_run_has_finished() {
    let memory = Memory::new();
    let scene = scene(Arc::new(memory.clone()));
    let monitor = Monitor::silent();
    let stopping = Hooked::new(Arc::new(memory.clone()), {
        let (monitor, packs) = (monitor.clone(), AtomicU64::new(0));
        move |name: &str| {
            if name.starts_with("packs/") && packs.fetch_add(1, Ordering::Relaxed) == 14 {
                monitor.stop();
            }
        }
    });
    let options = Options { ignore_ctime: true, ..often(&scene) };
    backup::run(&scene.over(Arc::new(stopping)).open(), &options, &monitor).unwrap_err();
    let first = scene.source().join("sub/file-00");
    let last = scene.source().join("sub/file-59");
    for path in [&first, &last] {
        let times = fs::metadata(path).unwrap().modified().unwrap();
        fs::write(path, noise(5, 40_000)).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(times).unwrap();
    }
    let report = backup::run(&scene.open(), &options, &Monitor::silent()).unwrap();
    assert_eq!(report.snapshot.summary.files_new, 62, "all are new in the snapshot, whoever read them");
    let target = scene.restore(&report.id.to_string());
    assert!(fs::read(target.join("sub/file-00")).unwrap() == noise(0, 40_000), "it was read again");
    assert!(fs::read(target.join("sub/file-59")).unwrap() == noise(5, 40_000), "it was not read");
}

/// A backup of many large files that fails, or is stopped, while every thread is at work and every
/// queue is full: it ends.
#[test]
fn a_backup_that_fails_in_the_middle_of_large_files_ends() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone()));
    let content = noise(1, 7 << 20);
    for n in 0..24 {
        fs::write(scene.source().join(format!("large-{n}")), &content).unwrap();
    }
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let plan = Plan::none().failing_from(Operation::Put, "packs/", 1, ErrorKind::Full);
        let failing = scene.over(Arc::new(Faulty::new(Arc::new(memory.clone()), plan))).with_tiny_packs();
        let failed = failing.try_backup().map(|_| ()).unwrap_err();
        let monitor = Monitor::silent();
        let stopping = Hooked::new(Arc::new(memory), {
            let monitor = monitor.clone();
            move |name: &str| {
                if name.starts_with("packs/") {
                    monitor.stop();
                }
            }
        });
        let stopping = scene.over(Arc::new(stopping)).with_tiny_packs();
        let stopped = backup::run(&stopping.open(), &stopping.options(), &monitor).map(|_| ()).unwrap_err();
        done.send((failed.storage_kind(), stopped.kind())).unwrap();
    });
    let ended = ended.recv_timeout(std::time::Duration::from_secs(120)).expect("it hangs");
    assert_eq!(ended, (Some(ErrorKind::Full), Kind::Interrupted));
}

type Hook = Box<dyn Fn(&str) + Send + Sync>;

/// Tells of every object that was put.
struct Hooked {
    inner: Arc<dyn Storage>,
    hook: Arc<Hook>,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

impl Hooked {
    fn new(inner: Arc<dyn Storage>, hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { inner, hook: Arc::new(Box::new(hook)) }
    }
}

type StorageResult<T> = Result<T, esker::storage::Error>;

impl Storage for Hooked {
    fn place(&self) -> String {
        self.inner.place()
    }
    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> StorageResult<()> {
        self.inner.put(name, bytes, mode)?;
        (self.hook)(name);
        Ok(())
    }
    fn writer(&self) -> StorageResult<Box<dyn ObjectWriter>> {
        Ok(Box::new(HookedWriter { inner: self.inner.writer()?, hook: self.hook.clone() }))
    }
    fn get(&self, name: &str) -> StorageResult<Vec<u8>> {
        self.inner.get(name)
    }
    fn get_range(&self, name: &str, offset: u64, length: u64) -> StorageResult<Vec<u8>> {
        self.inner.get_range(name, offset, length)
    }
    fn list(&self, prefix: &str) -> StorageResult<Vec<Listed>> {
        self.inner.list(prefix)
    }
    fn stat(&self, name: &str) -> StorageResult<u64> {
        self.inner.stat(name)
    }
    fn delete(&self, name: &str) -> StorageResult<()> {
        self.inner.delete(name)
    }
    fn barrier(&self) -> StorageResult<()> {
        self.inner.barrier()
    }
    fn cover(&self, name: &str) -> StorageResult<()> {
        self.inner.cover(name)
    }
}

struct HookedWriter {
    inner: Box<dyn ObjectWriter>,
    hook: Arc<Hook>,
}

impl ObjectWriter for HookedWriter {
    fn write(&mut self, bytes: &[u8]) -> StorageResult<()> {
        self.inner.write(bytes)
    }
    fn finish(self: Box<Self>, name: &str, mode: WriteMode) -> StorageResult<()> {
        self.inner.finish(name, mode)?;
        (self.hook)(name);
        Ok(())
    }
}

/// A pack that the backup relied on is gone when it comes to a checkpoint, as if a prune had taken
/// it: the backup begins anew, and what it makes is whole.
#[test]
fn a_pack_taken_back_between_two_sessions_is_stored_anew() {
    let memory = Memory::new();
    let scene = scene(Arc::new(memory.clone()));
    // The chunks of the first files lie in packs of an earlier snapshot of them.
    scene.backup();
    for n in 0..40 {
        fs::write(scene.source().join(format!("sub/file-30-new-{n}")), noise(7000 + n, 40_000)).unwrap();
    }
    let old: Vec<_> = memory.list("packs/").unwrap().into_iter().map(|object| object.name).collect();
    let hooked = Hooked::new(Arc::new(memory.clone()), {
        let memory = memory.clone();
        move |name: &str| {
            if name.starts_with("snapshots/") {
                for name in &old {
                    match memory.delete(name) {
                        Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
                        _ => {}
                    }
                }
            }
        }
    });
    let report = run(&scene.over(Arc::new(hooked)), &Monitor::silent()).unwrap();
    assert_whole(&scene, &report.id.to_string(), "after packs were taken back");
}
