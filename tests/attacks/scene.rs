//! A repository with an owner and a writer key in the wrong hands, a target to restore into and
//! what stands beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use esker::check;
use esker::error::Result;
use esker::format::access::Role;
use esker::id::SessionId;
use esker::monitor::{Monitor, Problem, Sink};
use esker::path::TreePath;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::Local;
use esker::repo::secret::{KeyFile, Secret};
use esker::restore;
use esker::storage::Storage;
use esker::storage::memory::Memory;
use esker::world::World;

use super::repo::init_options;
use super::tree;

pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) memory: Memory,
    owner: KeyFile,
    writer: KeyFile,
    another: KeyFile,
    beside: Vec<String>,
}

/// What a restore reported.
pub(crate) struct Restored {
    pub(crate) report: restore::Report,
    pub(crate) problems: Vec<Problem>,
}

impl Restored {
    /// Whether a problem with this item was told in these words.
    pub(crate) fn says(&self, item: &str, words: &str) -> bool {
        self.problems.iter().any(|problem| problem.item == item && problem.message.contains(words))
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<Problem>>);

impl Sink for Told {
    fn problem(&self, problem: &Problem) {
        self.0.lock().unwrap().push(problem.clone());
    }
}

impl Scene {
    pub(crate) fn new() -> Self {
        let memory = Memory::new();
        let (owner, key) =
            Repository::init(Arc::new(memory.clone()), World::seeded(1), &init_options(), Local::default()).unwrap();
        let writer = owner.add_member(Role::Writer, "stolen", None).unwrap();
        // Opened anew: what was said since is seen by whoever speaks next.
        let owner = open(Arc::new(memory.clone()), key.as_ref().unwrap(), 2);
        let another = owner.add_member(Role::Writer, "another", None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("beside")).unwrap();
        fs::write(dir.path().join("beside/precious"), "what was there before").unwrap();
        let beside = tree::lines(&dir.path().join("beside"));
        Self { dir, memory, owner: key.unwrap(), writer, another, beside }
    }

    fn open(&self, key: &KeyFile, seed: u64) -> Repository {
        open(Arc::new(self.memory.clone()), key, seed)
    }

    /// The repository opened by its owner through another storage.
    pub(crate) fn owner_over(&self, storage: Arc<dyn Storage>) -> Repository {
        open(storage, &self.owner, 100)
    }

    /// The repository, opened anew by its owner.
    pub(crate) fn owner(&self) -> Repository {
        self.open(&self.owner, 100)
    }

    /// The same with a cache that stays.
    pub(crate) fn owner_with_cache(&self, cache: &Path) -> Repository {
        let local = Local { cache: Some(cache.to_owned()), ..Local::default() };
        let secret = Secret::KeyFile(self.owner.clone());
        let storage = Arc::new(self.memory.clone());
        Repository::open(storage, World::seeded(next_seed(400)), &secret, local).unwrap()
    }

    /// A further owner.
    pub(crate) fn another_owner(&self) -> Repository {
        let key = self.owner().add_member(Role::Owner, "second", None).unwrap();
        self.open(&key, 500)
    }

    /// The same by the writer key in the wrong hands.
    pub(crate) fn writer(&self) -> Repository {
        self.open(&self.writer, 200)
    }

    /// A further writer.
    pub(crate) fn another_writer(&self) -> Repository {
        self.open(&self.another, 300)
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    /// Restores all of a snapshot into the target. Whatever became of that, nothing beside it has changed.
    pub(crate) fn try_restore(&self, snapshot: SessionId) -> Result<Restored> {
        let owner = self.owner();
        let reader = Reader::new(&owner)?;
        self.restore_with(&reader, snapshot, &restore::Options { threads: 2, ..restore::Options::new(self.target()) })
    }

    pub(crate) fn restore(&self, snapshot: SessionId) -> Restored {
        self.try_restore(snapshot).unwrap()
    }

    pub(crate) fn restore_with(
        &self,
        reader: &Reader<'_>,
        snapshot: SessionId,
        options: &restore::Options<'_>,
    ) -> Result<Restored> {
        let root = reader.repo().load_snapshot(&snapshot)?.snapshot.root;
        let told = Arc::new(Told::default());
        let monitor = Monitor::new(told.clone());
        let report = restore::run(reader, &root, &TreePath::root(), options, &monitor);
        self.nothing_beside_has_changed();
        let problems = std::mem::take(&mut *told.0.lock().unwrap());
        Ok(Restored { report: report?, problems })
    }

    pub(crate) fn nothing_beside_has_changed(&self) {
        assert_eq!(tree::lines(&self.dir.path().join("beside")), self.beside, "what is beside the target has changed");
        let mut names: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name != "target");
        assert_eq!(names, ["beside"], "something was made beside the target");
    }

    /// Checks everything, every stored byte.
    pub(crate) fn check(&self) -> check::Report {
        self.check_with(check::ReadData::All)
    }

    pub(crate) fn check_with(&self, read_data: check::ReadData) -> check::Report {
        let owner = self.owner();
        let reader = Reader::without_cache(&owner).unwrap();
        let options = check::Options { read_data, snapshot: None, threads: 2 };
        check::run(&reader, &options, &Monitor::silent()).unwrap()
    }
}

fn open(storage: Arc<dyn Storage>, key: &KeyFile, seed: u64) -> Repository {
    Repository::open(storage, World::seeded(next_seed(seed)), &Secret::KeyFile(key.clone()), Local::default()).unwrap()
}

/// Never the same randomness twice.
fn next_seed(seed: u64) -> u64 {
    static OPENED: AtomicU64 = AtomicU64::new(0);
    1000 * OPENED.fetch_add(1, Ordering::Relaxed) + seed
}

/// The names in a directory, in order.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
