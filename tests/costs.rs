//! Risk: a change makes an operation ask the storage more often, open files it need not, or take new
//! memory for every byte, and no clock in CI is quiet enough to notice. Method: count. The storage
//! calls of a backup are one literal; inotify counts the files it opens; the allocator of this binary
//! counts what it is asked for. What takes time is measured in `benches/`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esker::storage::local::Local;
use esker::storage::memory::Memory;
use esker::storage::record::{Operation, Recording};
use rustix::fs::inotify;

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;

use repo::{Scene, noise};

const MIB: usize = 1 << 20;

/// Counts what is asked of the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

fn count(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    ALLOCATED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came; only counters are added to.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often a directory's files are opened while `work` runs.
fn opens(directory: &Path, work: impl FnOnce()) -> usize {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, directory, inotify::WatchFlags::OPEN).unwrap();
    work();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64 << 10];
    let mut reader = inotify::Reader::new(&watch, &mut buffer);
    let mut opened = 0;
    while let Ok(event) = reader.next() {
        assert!(!event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW));
        opened += usize::from(!event.events().contains(inotify::ReadFlags::ISDIR));
    }
    opened
}

/// The calls of one backup: sort and place, how often if not once.
fn calls(storage: &Recording) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for call in storage.calls() {
        let place = call.name.split('/').next().unwrap_or_default();
        let line = format!("{:?} {place}", call.operation).trim_end().to_owned();
        match lines.last_mut().filter(|last| last.split(" x").next() == Some(&line)) {
            Some(last) => {
                let times: usize = last.rsplit_once(" x").and_then(|(_, times)| times.parse().ok()).unwrap_or(1);
                *last = format!("{line} x{}", times + 1);
            }
            None => lines.push(line),
        }
    }
    lines
}

/// One test, since the allocator counts for the whole process.
#[test]
fn what_a_backup_costs_in_calls_opened_files_and_memory() {
    files_are_opened_once_and_only_if_they_changed();
    an_unchanged_backup_makes_these_calls();
    a_large_file_takes_no_new_memory_for_its_bytes();
}

fn files_are_opened_once_and_only_if_they_changed() {
    let scene = Scene::new(Arc::new(Memory::new()));
    let source = scene.source();
    for number in 0..500 {
        fs::write(source.join(number.to_string()), noise(number, 100 + 37 * number as usize)).unwrap();
    }
    let backup = || assert_eq!(scene.backup().problems, 0);
    assert_eq!(opens(&source, backup), 500);
    assert_eq!(opens(&source, backup), 0);
    fs::write(source.join("77"), b"other").unwrap();
    // A file whose last change is younger than its run began is not trusted by the next.
    assert_eq!(opens(&source, backup), 1);
}

fn an_unchanged_backup_makes_these_calls() {
    let storage = Recording::new(Arc::new(Memory::new()));
    let scene = Scene::new(Arc::new(storage.clone()));
    fs::write(scene.source().join("file"), noise(1, 3 * MIB)).unwrap();
    scene.backup();
    scene.backup();
    storage.clear();
    scene.backup();
    let made = calls(&storage);
    let expected = EXPECTED_CALLS.lines().map(str::trim).filter(|line| !line.is_empty());
    assert_eq!(made, expected.collect::<Vec<_>>(), "{made:#?}");
    let fetched: u64 = storage.calls().iter().map(|call| call.bytes).sum();
    assert!(fetched < 40_000, "{fetched} bytes went over the wire");
    assert!(storage.names(Operation::GetRange).is_empty());
}

/// In the order of W1 to W8. Each more is a round trip for everyone whose storage is far away.
const EXPECTED_CALLS: &str = "
    Get config
    List access
    List copies
    Get access x2
    Put sessions
    Barrier
    List gc
    List notes
    List gc
    List notes
    List log
    List snapshots
    List log
    Get snapshots
    List flags
    List gc
    List notes
    List gc
    List notes
    List log
    Get snapshots
    List packs
    List index
    Put packs
    Barrier
    Put snapshots
    Barrier
    List flags
    List gc
    List notes
    List gc
    List notes
    List log
";

fn a_large_file_takes_no_new_memory_for_its_bytes() {
    let home = tempfile::tempdir().unwrap();
    let scene = Scene::new(Arc::new(Local::create(home.path().join("repository")).unwrap()));
    let file = scene.source().join("file");
    let cost = |bytes: usize, seed: u64| {
        fs::write(&file, noise(seed, bytes)).unwrap();
        let before = (ALLOCATIONS.load(Ordering::Relaxed), ALLOCATED_BYTES.load(Ordering::Relaxed));
        scene.backup();
        let after = (ALLOCATIONS.load(Ordering::Relaxed), ALLOCATED_BYTES.load(Ordering::Relaxed));
        (after.0 - before.0, after.1 - before.1)
    };
    let (small, large) = (16 * MIB, 80 * MIB);
    let (few, little) = cost(small, 1);
    let (many, much) = cost(large, 2);
    let more = (large - small) as u64;
    // Chunks have 16 KiB on average here.
    let chunks = more / (16 << 10);
    let (allocations, bytes) = (many.saturating_sub(few), much.saturating_sub(little));
    // Of tables that grow with the ids claimed, and a few for each frame.
    assert!(allocations < 4 * chunks, "{allocations} allocations for {chunks} chunks");
    assert!(bytes < more / 4, "{bytes} bytes of memory for {more} bytes of data");
}
