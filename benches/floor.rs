//! How close a backup comes to the sum of its parts: `cargo bench --bench floor -- [FILE] [DIR]`.
//!
//! One thread takes a file through every step that its bytes cannot do without, each step timed by
//! itself: read, cut, identify, join to frames, identify once more, compress, decode and compare, seal,
//! hash and write packs. Their sum over the processors is the floor: no pipeline of these primitives
//! is faster. Then the whole program's backup of the same file is timed, into a repository in DIR
//! (default: `/dev/shm`), which also walks, looks up, builds a tree and waits.

#![allow(clippy::print_stdout)] // its output is a table

use std::collections::HashSet;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use esker::backup;
use esker::chunk::compress::{Compressor, Decompressor, Level};
use esker::chunk::cut::{Cutter, Parameters};
use esker::chunk::split::{Split, Splitter};
use esker::crypto::ident::{ChunkKind, IdKeys};
use esker::crypto::key::SecretKey;
use esker::crypto::seal;
use esker::crypto::slot::KdfCost;
use esker::id::ChunkId;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::repo::Repository;
use esker::repo::open::{FirstKey, InitOptions, Local as Places};
use esker::repo::pack_writer::PackSettings;
use esker::source::walk::WalkOptions;
use esker::storage::local::Local;
use esker::world::World;
use rustix::time::{ClockId, clock_gettime};

const MIB: usize = 1 << 20;
const FRAME_BYTES: usize = MIB;
const PACK_BYTES: usize = 32 * MIB;
const RUNS: usize = 3;

const STEPS: [&str; 10] =
    ["read", "cut", "identify", "join", "identify again", "compress", "verify", "seal", "hash packs", "write packs"];

/// Processor time of the steps, in the order of [`STEPS`].
#[derive(Clone, Copy, Default)]
struct Times([Duration; STEPS.len()]);

impl Times {
    fn add<T>(&mut self, step: usize, work: impl FnOnce() -> T) -> T {
        let began = cpu(ClockId::ThreadCPUTime);
        let result = work();
        self.0[step] += cpu(ClockId::ThreadCPUTime).saturating_sub(began);
        result
    }

    fn sum(&self) -> Duration {
        self.0.iter().sum()
    }
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).expect("below a second"))
}

/// One thread with what it needs, and what it has done.
struct Parts {
    ids: IdKeys,
    key: SecretKey,
    compressor: Compressor,
    decompressor: Decompressor,
    known: HashSet<ChunkId>,
    frame: Vec<u8>,
    chunks: Vec<usize>,
    stored: Vec<u8>,
    decoded: Vec<u8>,
    packs: PathBuf,
    pack: Option<(File, blake3::Hasher, usize)>,
    packs_made: usize,
    times: Times,
}

impl Parts {
    fn new(packs: &Path) -> Self {
        fs::create_dir_all(packs).expect("the work directory is ours");
        Self {
            ids: IdKeys::new(&SecretKey::from_bytes(&[1; 32])),
            key: SecretKey::from_bytes(&[2; 32]),
            compressor: Compressor::without_verification(Level::default()),
            decompressor: Decompressor::new(),
            known: HashSet::new(),
            frame: vec![0; seal::NONCE_BYTES],
            chunks: Vec::new(),
            stored: Vec::new(),
            decoded: Vec::new(),
            packs: packs.to_owned(),
            pack: None,
            packs_made: 0,
            times: Times::default(),
        }
    }

    fn run(mut self, source: &Path) -> Times {
        let cutter = Arc::new(Cutter::new(Parameters::with_average(64 << 10), &[3; 32]));
        let mut splitter = Splitter::new(cutter.clone());
        let mut buffer = vec![0; Splitter::buffer_bytes(&cutter)];
        let mut file = File::open(source).expect("the file is readable");
        let mut places = Vec::new();
        loop {
            let read = self.times.add(0, || file.read(splitter.space()).expect("the file is readable"));
            let mut sink = |split: Split<'_>| {
                if let Split::Chunk { bytes, offset } = split {
                    places.push(offset..offset + bytes.len());
                }
                Ok::<_, Infallible>(())
            };
            let Ok(()) = self.times.add(1, || match read {
                0 => splitter.finish(&mut sink),
                _ => splitter.filled(read, &mut sink),
            });
            // The chunks are looked at while they are in the cache, as a reader does.
            splitter.swap(&mut buffer);
            for place in places.drain(..) {
                self.chunk(&buffer[place]);
            }
            if read == 0 {
                break;
            }
        }
        self.end_frame();
        self.end_pack();
        self.times
    }

    fn chunk(&mut self, bytes: &[u8]) {
        let id = self.times.add(2, || self.ids.chunk(ChunkKind::Data, bytes));
        if !self.known.insert(id) {
            return;
        }
        if self.frame.len() + bytes.len() > seal::NONCE_BYTES + FRAME_BYTES {
            self.end_frame();
        }
        self.times.add(3, || self.frame.extend_from_slice(bytes));
        self.chunks.push(bytes.len());
    }

    fn end_frame(&mut self) {
        let plain = &self.frame[seal::NONCE_BYTES..];
        if plain.is_empty() {
            return;
        }
        self.times.add(4, || {
            let mut rest = plain;
            for length in self.chunks.drain(..) {
                let (chunk, behind) = rest.split_at(length);
                std::hint::black_box(self.ids.chunk(ChunkKind::Data, chunk));
                rest = behind;
            }
        });
        let outcome = self.times.add(5, || self.compressor.compress(plain, &mut self.stored));
        let compressed = outcome.compression();
        if self.stored.len() < plain.len() {
            let right = self.times.add(6, || {
                let length = plain.len();
                self.decompressor.decompress_into(&self.stored, compressed, length, length, &mut self.decoded).is_ok()
                    && self.decoded == plain
            });
            assert!(right, "what was compressed decodes");
            self.frame.truncate(seal::NONCE_BYTES);
            self.frame.extend_from_slice(&self.stored);
        }
        self.times.add(7, || seal::seal_in_place(&self.key, [4; seal::NONCE_BYTES], b"frame", &mut self.frame));
        let (file, hasher, bytes) = self.pack.get_or_insert_with(|| {
            self.packs_made += 1;
            let file = File::create(self.packs.join(self.packs_made.to_string())).expect("the directory is ours");
            (file, blake3::Hasher::new(), 0)
        });
        self.times.add(8, || hasher.update(&self.frame));
        self.times.add(9, || file.write_all(&self.frame).expect("there is room"));
        *bytes += self.frame.len();
        if *bytes >= PACK_BYTES {
            self.end_pack();
        }
        self.frame.truncate(seal::NONCE_BYTES);
    }

    fn end_pack(&mut self) {
        if let Some((file, hasher, _)) = self.pack.take() {
            self.times.add(8, || std::hint::black_box(hasher.finalize()));
            self.times.add(9, || file.sync_all().expect("there is room"));
        }
    }
}

/// Wall and processor time of a whole backup.
fn backup(source: &Path, work: &Path, threads: usize) -> (Duration, Duration) {
    let options = InitOptions {
        key: FirstKey::KeyFile,
        kdf: KdfCost::FLOOR,
        chunker: Parameters::with_average(64 << 10),
        label: "bench".into(),
        like: None,
        parity_percent: 0,
    };
    let storage = Arc::new(Local::create(work.join("repository")).expect("the work directory is ours"));
    let places = Places { cache: Some(work.join("cache")), ..Places::default() };
    let (repo, _) = Repository::init(storage, World::system(), &options, places).expect("an empty directory");
    let options = backup::Options {
        roots: vec![TreePath::from_os(source).expect("a path without anything odd")],
        walk: WalkOptions { threads, ..WalkOptions::default() },
        hostname: "host".into(),
        username: "user".into(),
        tags: vec![],
        packs: PackSettings::default(),
        threads,
        keep_record: backup::KeepRecord::Locally,
        checkpoint_bytes: u64::MAX,
        checkpoint_secs: i64::MAX,
        force: false,
        ignore_ctime: false,
        program: "bench".into(),
        variation: backup::Variation::default(),
    };
    let (began, used) = (Instant::now(), cpu(ClockId::ProcessCPUTime));
    backup::run(&repo, &options, &Monitor::silent()).expect("the source is readable");
    (began.elapsed(), cpu(ClockId::ProcessCPUTime).saturating_sub(used))
}

/// Half noise, half text, an eighth of it twice.
fn make(path: &Path) {
    let mut bytes = vec![0; 256 * MIB];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    for (number, block) in bytes.chunks_mut(64 << 10).enumerate().filter(|(number, _)| number % 2 == 0) {
        let text = format!("entry {number}: size {} owner root mode 0644 {:x}\n", number * 37, number * number);
        block.iter_mut().zip(text.bytes().cycle()).for_each(|(byte, letter)| *byte = letter);
    }
    bytes.copy_within(..32 * MIB, 200 * MIB);
    fs::write(path, bytes).expect("there is room");
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort();
    values[values.len() / 2]
}

fn main() {
    // cargo adds `--bench`.
    let mut arguments = std::env::args_os().skip(1).filter(|argument| argument != "--bench");
    let given = arguments.next().map(PathBuf::from);
    let base = arguments.next().map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    let work = tempfile::tempdir_in(base).expect("a directory for packs");
    let source = given.unwrap_or_else(|| {
        let made = work.path().join("source");
        make(&made);
        made
    });
    let source = source.canonicalize().expect("the file is there");
    let bytes = fs::metadata(&source).expect("the file is there").len();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);

    let fresh = || tempfile::tempdir_in(work.path()).expect("a directory for packs");
    let _warm = Parts::new(fresh().path()).run(&source);
    let floors: Vec<Times> = (0..RUNS).map(|_| Parts::new(fresh().path()).run(&source)).collect();
    let runs: Vec<_> = (0..RUNS).map(|_| backup(&source, fresh().path(), threads)).collect();

    println!("{}: {:.0} MB, {threads} processors, medians of {RUNS}\n", source.display(), bytes as f64 / 1e6);
    println!("| step | processor s | GB/s of input |\n|---|---:|---:|");
    let row = |name: &str, secs: f64| println!("| {name} | {secs:.3} | {:.2} |", bytes as f64 / 1e9 / secs.max(1e-9));
    for (step, name) in STEPS.iter().enumerate() {
        row(name, median(floors.iter().map(|times| times.0[step]).collect()).as_secs_f64());
    }
    let sum = median(floors.iter().map(Times::sum).collect()).as_secs_f64();
    row("sum", sum);
    let floor = sum / threads as f64;
    let wall = median(runs.iter().map(|(wall, _)| *wall).collect()).as_secs_f64();
    let used = median(runs.iter().map(|(_, used)| *used).collect()).as_secs_f64();
    println!("\nfloor {floor:.2} s; backup {wall:.2} s of wall, {used:.2} s of processor");
    println!("wall over floor: {:.2}; processor over sum: {:.2}", wall / floor, used / sum);
}
