//! Whole verbs over a repository in memory: `cargo bench --bench pipeline`.
//!
//! The tree is made here: text that compresses, noise that does not, copies, and many small files,
//! so that a change to any stage shows. The storage's disk is left out; for whole programs side by
//! side see `benches/compare`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use criterion::BatchSize;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use esker::backup;
use esker::check;
use esker::chunk::cut::Parameters;
use esker::crypto::slot::KdfCost;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::FirstKey;
use esker::repo::open::InitOptions;
use esker::repo::open::Local;
use esker::repo::pack_writer::PackSettings;
use esker::repo::secret::KeyFile;
use esker::repo::secret::Secret;
use esker::repo::snapshots::Filter;
use esker::restore;
use esker::source::walk::WalkOptions;
use esker::storage::memory::Memory;
use esker::world::World;

const MIB: usize = 1 << 20;
const THREADS: usize = 2;
const SMALL_FILES: usize = 4000;

fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&(seed as u64).to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Text like a state file's: the same keys with other values.
fn state(seed: usize, length: usize) -> String {
    let mut text = String::with_capacity(length + 100);
    for (n, value) in noise(seed, length / 8).chunks(8).enumerate() {
        let _ = writeln!(text, "{{\"resource\": {n}, \"attributes\": {{\"id\": \"{value:02x?}\"}}}}");
        if text.len() >= length {
            break;
        }
    }
    text
}

/// Makes the tree and gives its length in bytes.
fn make_tree(root: &Path) -> u64 {
    let mut bytes = 0;
    let mut file = |path: PathBuf, content: &[u8]| {
        bytes += content.len() as u64;
        fs::create_dir_all(path.parent().expect("below the root")).expect("the directory is ours");
        fs::write(path, content).expect("there is room");
    };
    file(root.join("noise.bin"), &noise(0, 48 * MIB));
    file(root.join("copy.bin"), &noise(0, 48 * MIB)[12_345..24 * MIB]);
    for n in 0..32 {
        file(root.join(format!("state/{n}.json")), state(n, MIB).as_bytes());
    }
    for n in 0..SMALL_FILES {
        file(root.join(format!("small/{}/{n}.json", n % 50)), state(n, 500 + n * 7 % 16_000).as_bytes());
    }
    bytes
}

/// A source, and repositories in memory that it is backed up to.
struct Scene {
    dir: tempfile::TempDir,
    bytes: u64,
}

struct InMemory {
    storage: Memory,
    key: KeyFile,
    cache: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::Builder::new().tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let bytes = make_tree(&dir.path().join("source"));
        Self { dir, bytes }
    }

    fn source(&self) -> TreePath {
        TreePath::from_os(&self.dir.path().join("source")).expect("a path without anything odd")
    }

    /// A new directory of that kind.
    fn fresh(&self, what: &str) -> PathBuf {
        tempfile::Builder::new().prefix(what).tempdir_in(self.dir.path()).expect("a directory").keep()
    }

    fn repository(&self) -> InMemory {
        let storage = Memory::new();
        let options = InitOptions {
            key: FirstKey::KeyFile,
            kdf: KdfCost::FLOOR,
            chunker: Parameters::with_average(64 << 10),
            label: "bench".into(),
            like: None,
            parity_percent: 0,
        };
        let cache = self.fresh("cache");
        let local = Local { cache: Some(cache.clone()), ..Local::default() };
        let made = Repository::init(Arc::new(storage.clone()), World::system(), &options, local);
        let key = made.expect("memory takes everything").1.expect("a key file was asked for");
        InMemory { storage, key, cache }
    }

    fn backup(&self, repository: &InMemory) -> backup::Report {
        let options = backup::Options {
            roots: vec![self.source()],
            walk: WalkOptions { threads: THREADS, ..WalkOptions::default() },
            hostname: "host".into(),
            username: "user".into(),
            tags: vec![],
            packs: PackSettings::default(),
            threads: THREADS,
            keep_record: backup::KeepRecord::Locally,
            checkpoint_bytes: backup::CHECKPOINT_BYTES,
            checkpoint_secs: backup::CHECKPOINT_SECS,
            force: false,
            ignore_ctime: false,
            program: "bench".into(),
            variation: backup::Variation::default(),
        };
        backup::run(&repository.open(), &options, &Monitor::silent()).expect("the source is readable")
    }

    fn restore(&self, repository: &InMemory, target: &Path) {
        let repo = repository.open();
        let reader = Reader::new(&repo).expect("the repository is whole");
        let latest = reader.find_snapshot("latest", &Filter::default()).expect("there is one");
        let options = restore::Options::new(target);
        let monitor = Monitor::silent();
        let report = restore::run(&reader, &latest.snapshot.root, &self.source(), &options, &monitor);
        assert_eq!(report.expect("the repository is whole").problems, 0);
    }
}

impl InMemory {
    fn open(&self) -> Repository {
        let local = Local { cache: Some(self.cache.clone()), ..Local::default() };
        let secret = Secret::KeyFile(self.key.clone());
        Repository::open(Arc::new(self.storage.clone()), World::system(), &secret, local).expect("the key is its own")
    }

    fn check(&self) {
        let repo = self.open();
        let reader = Reader::new(&repo).expect("the repository is whole");
        let options = check::Options { read_data: check::ReadData::All, snapshot: None, threads: THREADS };
        let report = check::run(&reader, &options, &Monitor::silent()).expect("memory can be read");
        assert_eq!(report.faults.len(), 0);
    }
}

fn pipeline(c: &mut Criterion) {
    let scene = Scene::new();
    let mut group = c.benchmark_group("pipeline");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(scene.bytes));

    group.bench_function("first backup", |b| {
        b.iter_batched(|| scene.repository(), |repository| scene.backup(&repository), BatchSize::PerIteration)
    });

    let repository = scene.repository();
    scene.backup(&repository);
    group.bench_function("unchanged backup", |b| b.iter(|| scene.backup(&repository)));
    group.bench_function("check all data", |b| b.iter(|| repository.check()));
    group.bench_function("restore", |b| {
        b.iter_batched(
            || scene.fresh("restored"),
            |target| {
                scene.restore(&repository, &target);
                Removed(target)
            },
            BatchSize::PerIteration,
        )
    });
    group.finish();
}

/// A directory that goes away with this, after the clock has stopped.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
