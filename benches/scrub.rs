//! A scrub without a key beside BLAKE3 itself, both from the page cache, as fast as all cores are.
//!
//!     cargo bench --bench scrub [-- DIR]
//!
//! Makes packs of 32 MiB, 1 GiB in all, in a new directory below DIR (the directory for temporary files unless
//! told otherwise), and reads them in turn: mapped into memory and hashed, a file to a thread, which is what `b3sum`
//! does; and by `scrub::keyless` over a local storage. Of five rounds the best of each counts. The aim is 0.7.

#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use esker::chunk::cut::Parameters;
use esker::crypto::slot::KdfCost;
use esker::id::PackId;
use esker::monitor::Monitor;
use esker::repo::Repository;
use esker::repo::open::{FirstKey, InitOptions, Local as Places};
use esker::repo::pins::Notices;
use esker::repo::session::pack_name;
use esker::scrub::ages::Ages;
use esker::scrub::{Budget, keyless};
use esker::storage::local::Local;
use esker::storage::{Storage, WriteMode};
use esker::world::World;

const PACK_BYTES: usize = 32 << 20;
const PACKS: u64 = 32;
const ROUNDS: usize = 5;

fn main() {
    let below = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let dir = below.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let storage = Arc::new(Local::create(dir.path().join("repository")).unwrap());
    let options = InitOptions {
        key: FirstKey::KeyFile,
        kdf: KdfCost::FLOOR,
        chunker: Parameters::with_average(64 << 10),
        label: String::new(),
        like: None,
        parity_percent: 0,
    };
    Repository::init(storage.clone(), World::system(), &options, Places::default()).unwrap();
    let mut names = Vec::new();
    for n in 0..PACKS {
        let mut bytes = vec![0; PACK_BYTES];
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
        let name = pack_name(&PackId::of(&bytes));
        storage.put(&name, &bytes, WriteMode::CreateNew).unwrap();
        names.push(dir.path().join("repository").join(name));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut hashed, mut scrubbed) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        hash_all(&names, threads);
        hashed = hashed.min(begin.elapsed());
        let begin = Instant::now();
        let ages = Ages::open(None, "", Notices::default());
        let monitor = Monitor::silent();
        let report = keyless::run(&*storage, &World::system(), &ages, &Budget::default(), threads, &monitor).unwrap();
        scrubbed = scrubbed.min(begin.elapsed());
        assert_eq!((report.packs_read, report.faults.len()), (PACKS, 0));
    }
    let rate = |time: Duration| (PACKS as usize * PACK_BYTES) as f64 / time.as_secs_f64() / f64::from(1 << 30);
    println!("BLAKE3 of mapped files  {:.2} GiB/s on {threads} threads", rate(hashed));
    println!("scrub --without-key     {:.2} GiB/s", rate(scrubbed));
    println!("ratio                   {:.2}", rate(scrubbed) / rate(hashed));
}

/// Hashes files, each thread the next.
fn hash_all(names: &[std::path::PathBuf], threads: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let file = std::fs::File::open(name).unwrap();
                    #[allow(unsafe_code, reason = "nobody changes the files meanwhile: they were just made here")]
                    let mapped = unsafe { memmap2::Mmap::map(&file) }.unwrap();
                    std::hint::black_box(blake3::hash(&mapped));
                }
            });
        }
    });
}
