//! A machine that stops, and what must hold when it is started again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker::backup::{self, KeepRecord, Options};
use esker::error::Result;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::repo::Repository;
use esker::repo::open;
use esker::repo::pack_writer::PackSettings;
use esker::repo::secret::Secret;
use esker::source::walk::WalkOptions;
use esker::storage::local::Local;
use esker::world::{Clock, Rng, Time, World};

use crate::cli::{Machine, Output};
use crate::tree;

/// Loops are as wide as they go, whatever it takes: `just soak`.
pub(crate) fn soaking() -> bool {
    std::env::var_os("ESKER_SOAK").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A new directory, in memory where there is such a place: what syncs cost is not of interest here.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A world an hour ahead, so that a run trusts the times of files just made; its randomness repeats.
fn world(seed: u64) -> World {
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
    World::new(Arc::new(Later(World::system())), Arc::new(Random(World::seeded(seed))))
}

/// Where the disk is that stops with the machine: all that a command writes to.
pub(crate) const DISK: &str = "disk";

/// A machine whose repository, cache, state and key file are below [`DISK`], with a source beside it.
pub(crate) fn machine(seed: u64) -> Machine {
    let mut machine = Machine::with(world(seed), directory());
    for (name, below) in [("REPOSITORY", "repository"), ("CACHE_DIR", "cache"), ("STATE_DIR", "state")] {
        machine.set(&format!("ESKER_{name}"), machine.path(DISK).join(below));
    }
    machine.set("ESKER_KEY_FILE", machine.path(DISK).join("home/key"));
    fs::create_dir_all(machine.path(DISK).join("home")).unwrap();
    write_source(&machine, 1);
    machine
}

/// The source as it is at the time of a generation: half of the files are others in the next one.
pub(crate) fn write_source(machine: &Machine, generation: u64) {
    let source = machine.path("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    for n in 0..10 {
        let seed = n + generation * 100 * (n % 2);
        fs::write(source.join(format!("sub/file-{n}")), noise(seed, 3000)).unwrap();
    }
    fs::write(source.join("large"), noise(1000 + generation, 60_000)).unwrap();
    fs::write(source.join("note"), format!("generation {generation}")).unwrap();
}

pub(crate) fn source(machine: &Machine) -> PathBuf {
    machine.path("source").canonicalize().unwrap()
}

/// Backs the source up.
pub(crate) fn backup(machine: &Machine) -> Output {
    machine.esker(["backup", "source"])
}

/// So many of all, evenly apart, the last always; or all of them.
pub(crate) fn chosen<T: Clone>(all: &[T], most: usize) -> Vec<T> {
    let most = if soaking() { all.len() } else { most.min(all.len()) };
    let mut chosen: Vec<_> = (0..most).map(|n| all[all.len() - 1 - n * all.len() / most].clone()).collect();
    chosen.reverse();
    chosen
}

/// The directory the repository is in.
pub(crate) fn local(machine: &Machine) -> Local {
    Local::open(machine.path(DISK).join("repository")).unwrap()
}

/// The repository through the library, in its directory or in what is there instead.
pub(crate) fn open(machine: &Machine) -> Result<Repository> {
    let storage = machine.instead.clone().unwrap_or_else(|| Arc::new(local(machine)));
    let key = fs::read_to_string(machine.path(DISK).join("home/key")).unwrap();
    Repository::open(storage, machine.world.clone(), &Secret::KeyFile(key.parse()?), places(machine))
}

/// Where the machine keeps what it knows.
pub(crate) fn places(machine: &Machine) -> open::Local {
    open::Local {
        cache: Some(machine.path(DISK).join("cache")),
        state: Some(machine.path(DISK).join("state")),
        ..open::Local::default()
    }
}

/// Makes a repository and two snapshots, and changes the source once more.
pub(crate) fn begin(machine: &Machine) {
    machine.esker(["init", "--no-recovery"]).success();
    for generation in [1, 2] {
        write_source(machine, generation);
        backup(machine).success();
    }
    write_source(machine, 3);
}

/// Options by which the source makes many packs, and a checkpoint after a few of them.
pub(crate) fn in_many_packs(machine: &Machine) -> Options {
    Options {
        roots: vec![TreePath::from_os(&source(machine)).unwrap()],
        walk: WalkOptions { threads: 2, ..WalkOptions::default() },
        hostname: "difference".into(),
        username: "ada".into(),
        tags: vec![],
        packs: PackSettings {
            frames_in_work: 8,
            data_pack_bytes: 16 << 10,
            tree_pack_bytes: 4 << 10,
            frame_bytes: 4 << 10,
            mixed_pack_bytes: 1 << 10,
            ..PackSettings::default()
        },
        threads: 2,
        keep_record: KeepRecord::Locally,
        checkpoint_bytes: 30 << 10,
        checkpoint_secs: backup::CHECKPOINT_SECS,
        force: false,
        ignore_ctime: false,
        program: "esker test".into(),
        variation: backup::Variation::default(),
    }
}

/// Backs the source up in many packs and with checkpoints.
pub(crate) fn backup_in_many_packs(machine: &Machine) -> Result<backup::Report> {
    backup::run(&open(machine)?, &in_many_packs(machine), &Monitor::silent())
}

/// The snapshots that are listed, oldest first: id and path.
fn listed(machine: &Machine, excuse: Excuse<'_>) -> Vec<(String, String)> {
    let listed = machine.esker(["snapshots", "--json"]);
    assert!(listed.code == 0 || excuse.torn.is_some_and(|torn| listed.err().contains(torn)), "{listed}");
    let listed = listed.json();
    let snapshots = listed[0].as_array().unwrap().iter();
    snapshots
        .map(|one| (one["id"].as_str().unwrap().to_owned(), one["paths"][0].as_str().unwrap().to_owned()))
        .collect()
}

/// Snapshots that must be there and whole: of each, what a restore of it gives.
#[derive(Clone, Default)]
pub(crate) struct Known {
    stand: BTreeMap<String, Vec<String>>,
    /// Those that may be gone; what is listed of them is whole.
    may_go: BTreeMap<String, Vec<String>>,
}

impl Known {
    /// Those that are listed now, as they restore now.
    pub(crate) fn now(machine: &Machine) -> Self {
        let listed = listed(machine, Excuse::default()).into_iter();
        let stand = listed.map(|(id, path)| (id.clone(), restored(machine, &id, &path, "now"))).collect();
        Self { stand, may_go: BTreeMap::new() }
    }

    /// The same where the oldest so many are to be forgotten.
    pub(crate) fn forgetting(mut self, machine: &Machine, oldest: usize) -> Self {
        for (id, _) in &listed(machine, Excuse::default())[..oldest] {
            self.may_go.extend(self.stand.remove_entry(id));
        }
        self
    }

    /// Adds snapshots of the source as it is now.
    pub(crate) fn learn_of_source(&mut self, machine: &Machine, ids: BTreeSet<String>) {
        let lines = tree::lines(&source(machine));
        self.stand.extend(ids.into_iter().map(|id| (id, lines.clone())));
    }

    /// Asserts that all are listed, and restore as they did; and that others are whole as well.
    /// Gives the ids of those.
    pub(crate) fn assert_stand(&self, machine: &Machine, excuse: Excuse<'_>, when: &str) -> BTreeSet<String> {
        let listed = listed(machine, excuse);
        for (id, path) in &listed {
            if let Some(lines) = self.stand.get(id).or_else(|| self.may_go.get(id)) {
                assert!(restored(machine, id, path, when) == *lines, "snapshot {id} is another, {when}");
            }
        }
        self.assert_others(machine, listed, when)
    }

    /// The same where all have just been restored.
    pub(crate) fn assert_still_stand(&self, machine: &Machine, excuse: Excuse<'_>, when: &str) -> BTreeSet<String> {
        self.assert_others(machine, listed(machine, excuse), when)
    }

    fn assert_others(&self, machine: &Machine, listed: Vec<(String, String)>, when: &str) -> BTreeSet<String> {
        let mut others: BTreeMap<String, String> = listed.into_iter().collect();
        for id in self.stand.keys() {
            assert!(others.remove(id).is_some(), "snapshot {id} is gone, {when}");
        }
        others.retain(|id, _| !self.may_go.contains_key(id));
        for (id, path) in &others {
            let lines = restored(machine, id, path, when);
            let is_source = Path::new(path) == source(machine);
            // What was forgotten comes back under another id.
            let comes_back = self.may_go.values().any(|forgotten| *forgotten == lines);
            let is_whole = !is_source || comes_back || lines == tree::lines(&source(machine));
            assert!(is_whole, "new snapshot {id} is another, {when}");
        }
        others.into_keys().collect()
    }
}

fn restored(machine: &Machine, id: &str, path: &str, when: &str) -> Vec<String> {
    let target = machine.path("restored");
    let _ = fs::remove_dir_all(&target);
    let restored = machine.esker(["restore", &format!("{id}:{path}"), "--quiet", "--target", "restored"]);
    assert_eq!(restored.code, 0, "{restored}, {when}");
    let lines = tree::lines(&target);
    fs::remove_dir_all(&target).unwrap();
    lines
}

/// What may be said of a machine that was stopped, besides nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Excuse<'a> {
    /// Who was stopped while making a statement may have put it once and not twice.
    pub(crate) one_copy: bool,
    /// A storage that tears what it was given keeps half of an object.
    pub(crate) torn: Option<&'a str>,
}

/// Checks everything. A statement that is there once is told of, and mended by the command that is
/// told with it.
pub(crate) fn assert_checks(machine: &Machine, excuse: Excuse<'_>, when: &str) {
    let mut checked = machine.esker(["check", "--read-data"]);
    let original = |name: &str| name.strip_prefix("copies/").unwrap_or(name).to_owned();
    let is_torn = |line: &&str| excuse.torn.is_some_and(|torn| original(line).starts_with(&original(torn)));
    let damaged = |checked: &Output| -> Vec<String> {
        let err = checked.err();
        let damaged = err.lines().filter_map(|line| line.strip_prefix("damaged: "));
        damaged.filter(|line| !is_torn(line)).map(str::to_owned).collect()
    };
    let one_of_two = |line: &String| {
        let line = original(line);
        let is_missing = line.ends_with(": it is missing") || line.contains("object not found");
        is_missing && (line.starts_with("access/") || line.starts_with("keys/"))
    };
    let found = damaged(&checked);
    if excuse.one_copy && !found.is_empty() && found.iter().all(one_of_two) {
        assert!(checked.err().contains("run `esker repair config`"), "{checked}, {when}");
        let repaired = machine.esker(["repair", "config"]);
        assert!(repaired.code == 0 || excuse.torn.is_some(), "{repaired}, {when}");
        checked = machine.esker(["check", "--read-data"]);
    }
    match excuse.torn {
        None => assert_calm(&checked, excuse, when),
        Some(_) => assert!(matches!(checked.code, 0 | 4) && damaged(&checked).is_empty(), "{checked}, {when}"),
    }
}

/// It worked, and said nothing that a user would be frightened by.
#[track_caller]
pub(crate) fn assert_calm(output: &Output, excuse: Excuse<'_>, when: &str) {
    let err = output.err();
    let torn = excuse.torn.map(|torn| torn.strip_prefix("copies/").unwrap_or(torn));
    let is_calm = err.lines().all(|line| torn.is_some_and(|torn| line.contains(torn)));
    assert!(output.code == 0 && is_calm, "{output}, {when}");
}
