//! A scene: a source directory, a repository over any storage, a cache, places to restore to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use esker::backup;
use esker::check;
use esker::chunk::cut::Parameters;
use esker::crypto::slot::KdfCost;
use esker::error::Result;
use esker::format::access::Role;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::{FirstKey, InitOptions, Local};
use esker::repo::pack_writer::PackSettings;
use esker::repo::secret::{KeyFile, Secret};
use esker::repo::snapshots::Filter;
use esker::restore;
use esker::source::walk::WalkOptions;
use esker::storage::Storage;
use esker::world::{Clock, Rng, Time, World};

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new_derive_key("esker test noise");
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// The options every scene makes repositories with.
pub(crate) fn init_options() -> InitOptions {
    InitOptions {
        key: FirstKey::KeyFile,
        kdf: KdfCost::FLOOR,
        chunker: Parameters::with_average(16 << 10),
        label: "owner".into(),
        like: None,
        parity_percent: 0,
    }
}

/// Packs and frames so small that a tree of a few kilobytes makes many of each.
pub(crate) fn tiny_packs(packs: PackSettings) -> PackSettings {
    PackSettings {
        data_pack_bytes: 8 << 10,
        tree_pack_bytes: 2 << 10,
        frame_bytes: 2 << 10,
        mixed_pack_bytes: 1 << 10,
        ..packs
    }
}

/// One credential's view of a repository, with a source and a cache of its own.
pub(crate) struct Scene {
    dir: Arc<tempfile::TempDir>,
    source: PathBuf,
    cache: PathBuf,
    storage: Arc<dyn Storage>,
    world: World,
    key: KeyFile,
    restores: AtomicU32,
    /// How packs are made.
    pub(crate) packs: PackSettings,
}

impl Scene {
    /// A new repository in the storage, unlocked by a key file.
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        Self::with(storage, later(), dir, source)
    }

    /// The same of a repository that is made in a certain way.
    pub(crate) fn of(options: &InitOptions, storage: Arc<dyn Storage>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        Self::made_with(options, storage, later(), dir, source)
    }

    /// The same with randomness that repeats.
    pub(crate) fn new_seeded(storage: Arc<dyn Storage>, seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        Self::with(storage, World::seeded(seed), dir, source)
    }

    /// A scene whose files are cut into small chunks, in memory where there is room, with
    /// randomness that repeats: a test makes and restores it over and over.
    pub(crate) fn finely_cut(storage: Arc<dyn Storage>, average_bytes: u32, seed: u64) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        let options = InitOptions { chunker: Parameters::with_average(average_bytes), ..init_options() };
        Self::made_with(&options, storage, later_with(World::seeded(seed)), dir, source)
    }

    /// A scene whose randomness repeats, over a given source.
    pub(crate) fn seeded(storage: Arc<dyn Storage>, seed: u64, source: &Path) -> Self {
        Self::with(storage, World::seeded(seed), tempfile::tempdir().unwrap(), source.to_owned())
    }

    fn with(storage: Arc<dyn Storage>, world: World, dir: tempfile::TempDir, source: PathBuf) -> Self {
        Self::made_with(&init_options(), storage, world, dir, source)
    }

    fn made_with(
        options: &InitOptions,
        storage: Arc<dyn Storage>,
        world: World,
        dir: tempfile::TempDir,
        source: PathBuf,
    ) -> Self {
        let cache = dir.path().join("cache");
        let local = Local { cache: Some(cache.clone()), ..Local::default() };
        let (_, key) = Repository::init(storage.clone(), world.clone(), options, local).unwrap();
        let packs = PackSettings { frames_in_work: 8, ..PackSettings::default() };
        Self {
            dir: Arc::new(dir),
            source,
            cache,
            storage,
            world,
            key: key.unwrap(),
            restores: AtomicU32::new(0),
            packs,
        }
    }

    /// The same source through a new writer credential with a cache of its own.
    pub(crate) fn writer(&self) -> Self {
        let key = self.open().add_member(Role::Writer, "writer", None).unwrap();
        Self {
            dir: self.dir.clone(),
            source: self.source.clone(),
            cache: self.dir.path().join("cache-of-writer"),
            storage: self.storage.clone(),
            world: self.world.clone(),
            key,
            restores: AtomicU32::new(100),
            packs: self.packs,
        }
    }

    /// Packs and frames so small that a tree of a few kilobytes makes many of each.
    pub(crate) fn with_tiny_packs(mut self) -> Self {
        self.packs = tiny_packs(self.packs);
        self
    }

    /// The same repository through another storage: the one underneath, or one with faults.
    pub(crate) fn over(&self, storage: Arc<dyn Storage>) -> Self {
        Self {
            dir: self.dir.clone(),
            source: self.source.clone(),
            cache: self.cache.clone(),
            storage,
            world: self.world.clone(),
            key: self.key.clone(),
            restores: AtomicU32::new(self.restores.fetch_add(1_000_000, Ordering::Relaxed) + 1000),
            packs: self.packs,
        }
    }

    /// The same with a cache of its own.
    pub(crate) fn caching_in(self, cache: PathBuf) -> Self {
        Self { cache, ..self }
    }

    /// The directory of everything that is not in the repository.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a check of everything says.
    pub(crate) fn check(&self) -> check::Report {
        self.check_reading(check::ReadData::All)
    }

    /// What a check that reads so much says.
    pub(crate) fn check_reading(&self, read_data: check::ReadData) -> check::Report {
        let repo = self.open();
        let reader = Reader::without_cache(&repo).unwrap();
        let options = check::Options { read_data, snapshot: None, threads: 2 };
        check::run_naming(usize::MAX, &reader, &options, &Monitor::silent()).unwrap()
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.source.clone()
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.cache.clone()
    }

    /// The repository, opened anew.
    pub(crate) fn open(&self) -> Repository {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Repository> {
        let local = Local { cache: Some(self.cache.clone()), ..Local::default() };
        Repository::open(self.storage.clone(), self.world.clone(), &Secret::KeyFile(self.key.clone()), local)
    }

    pub(crate) fn options(&self) -> backup::Options {
        backup::Options {
            roots: vec![TreePath::from_os(&self.source).unwrap()],
            walk: WalkOptions { threads: 2, ..WalkOptions::default() },
            hostname: "host".into(),
            username: "user".into(),
            tags: vec![],
            packs: self.packs,
            threads: 2,
            keep_record: backup::KeepRecord::Locally,
            checkpoint_bytes: backup::CHECKPOINT_BYTES,
            checkpoint_secs: backup::CHECKPOINT_SECS,
            force: false,
            ignore_ctime: false,
            program: "esker test".into(),
            variation: backup::Variation::default(),
        }
    }

    pub(crate) fn backup(&self) -> backup::Report {
        self.try_backup().unwrap()
    }

    pub(crate) fn try_backup(&self) -> Result<backup::Report> {
        backup::run(&self.try_open()?, &self.options(), &Monitor::silent())
    }

    /// Restores the source directory of a snapshot into a new place.
    pub(crate) fn restore(&self, snapshot: &str) -> PathBuf {
        let (report, target) = self.try_restore(snapshot).unwrap();
        assert_eq!(report.problems, 0, "{report:?}");
        target
    }

    pub(crate) fn try_restore(&self, snapshot: &str) -> Result<(restore::Report, PathBuf)> {
        let repo = self.try_open()?;
        let reader = Reader::new(&repo)?;
        let info = reader.find_snapshot(snapshot, &Filter::default())?;
        let target = self.dir.path().join(format!("restored-{}", self.restores.fetch_add(1, Ordering::Relaxed)));
        let base = TreePath::from_os(&self.source).unwrap();
        let options = restore::Options::new(&target);
        let report = restore::run(&reader, &info.snapshot.root, &base, &options, &Monitor::silent())?;
        Ok((report, target))
    }
}

/// A world an hour ahead of the files, so that a run trusts the times of those just made.
pub(crate) fn later() -> World {
    later_with(World::system())
}

/// The same with the randomness of another.
fn later_with(random: World) -> World {
    struct Later(World);
    impl Clock for Later {
        fn now(&self) -> Time {
            self.0.now().plus_secs(3600)
        }
    }
    struct Random(World);
    impl Rng for Random {
        fn fill(&self, buf: &mut [u8]) {
            buf.chunks_mut(32).for_each(|part| part.copy_from_slice(&self.0.random::<32>()[..part.len()]));
        }
    }
    World::new(Arc::new(Later(World::system())), Arc::new(Random(random)))
}
