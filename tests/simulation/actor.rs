//! Machines with a credential, and what they do.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use esker::error::{Error, Kind, Result};
use esker::format::access::Role;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::prune::plan::{Limits, Unused};
use esker::prune::reencrypt;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::Local;
use esker::repo::pack_writer::PackSettings;
use esker::repo::secret::{KeyFile, Secret};
use esker::repo::snapshots::{Filter, SnapshotInfo};
use esker::source::walk::WalkOptions;
use esker::storage::fault::{Faulty, LastChange, Plan};
use esker::storage::memory::Memory;
use esker::storage::record::Operation;
use esker::storage::{ErrorKind, Storage};
use esker::world::World;
use esker::{backup, check, copy, forget, prune, restore};

use super::dice::Dice;
use super::repo::{noise, tiny_packs};
use super::story::{Story, Trouble};
use super::tree;
use super::turns::Seat;

/// A time to undelete that ends after the story, in seconds, which are turns.
pub(crate) const LONG_SECS: i64 = 1_000_000;

/// Files of a source.
const FILES: usize = 6;
/// Contents each file may have: few, so that what one forgets another stores again.
const CONTENTS: u64 = 3;
const FILE_BYTES: usize = 900;

/// Something an actor does.
#[derive(Clone, Copy)]
pub(crate) struct Deed {
    name: &'static str,
    /// How often, beside the others.
    often: u64,
    /// Whether a writer may.
    by_writers: bool,
    /// Does it; says what came of it, in words.
    run: fn(&mut Actor) -> Result<String>,
    /// Whether it may fail so though nothing goes wrong: it met somebody else's.
    meets: fn(&Error) -> bool,
}

/// Everything that is done. What else writes to a repository belongs here, and then nothing else is to be told.
const DEEDS: &[Deed] = &[
    Deed {
        name: "backup",
        often: 3,
        by_writers: true,
        run: Actor::back_up,
        meets: |error| error.to_string().contains("a collector interfered"),
    },
    Deed {
        name: "prune",
        often: 4,
        by_writers: false,
        run: Actor::prune,
        meets: |error| error.with_causes().contains("another collection is under way"),
    },
    Deed { name: "forget", often: 2, by_writers: false, run: Actor::forget, meets: |_| false },
    Deed {
        name: "undelete",
        often: 1,
        by_writers: false,
        run: Actor::undelete,
        meets: |error| error.to_string().contains("was not brought back") || error.kind() == Kind::Refused,
    },
    Deed { name: "rotate", often: 1, by_writers: false, run: Actor::rotate, meets: |_| false },
    Deed {
        name: "reencrypt",
        often: 1,
        by_writers: false,
        run: Actor::reencrypt,
        meets: |error| {
            let text = error.with_causes();
            // The budget is less than any pack that is left.
            text.contains("another collection is under way") || text.contains("no pack is as small as")
        },
    },
    Deed {
        name: "copy",
        often: 1,
        by_writers: true,
        run: Actor::copy,
        meets: |error| error.to_string().contains("a collector interfered"),
    },
    Deed { name: "restore", often: 1, by_writers: false, run: Actor::restore_one, meets: |_| false },
    Deed { name: "check", often: 1, by_writers: false, run: Actor::look, meets: |_| false },
];

impl Deed {
    /// What somebody of this role does next.
    pub(crate) fn choose(role: Role, dice: &mut Dice) -> Self {
        let may = DEEDS.iter().filter(|deed| role == Role::Owner || deed.by_writers);
        let all: Vec<Self> = may.flat_map(|deed| (0..deed.often).map(|_| *deed)).collect();
        dice.pick(&all)
    }
}

/// A machine with a credential, and files to back up.
pub(crate) struct Actor {
    pub(crate) number: usize,
    role: Role,
    key: KeyFile,
    storage: Faulty,
    world: World,
    /// Holds the source, and the cache if there is one.
    dir: PathBuf,
    has_cache: bool,
    /// How often there were new keys before what it does now.
    rotations_before: u64,
    pub(crate) dice: Dice,
    pub(crate) story: Arc<Story>,
}

impl Actor {
    pub(crate) fn new(number: usize, role: Role, key: &KeyFile, dir: &Path, seed: u64, story: &Arc<Story>) -> Self {
        let seat = Seat::new(story.turns.clone(), number);
        let dir = dir.join(number.to_string());
        fs::create_dir_all(dir.join("source")).unwrap();
        let mut dice = Dice::new(seed);
        Self {
            number,
            role,
            key: key.clone(),
            world: seat.world(dice.roll()),
            storage: Faulty::new(Arc::new(seat), Plan::none()),
            dir,
            has_cache: !dice.one_in(4),
            rotations_before: 0,
            dice,
            story: story.clone(),
        }
    }

    pub(crate) fn open(&self) -> Result<Repository> {
        let storage: Arc<dyn Storage> = Arc::new(self.storage.clone());
        let local = Local { cache: self.has_cache.then(|| self.dir.join("cache")), ..Local::default() };
        Repository::open(storage, self.world.clone(), &Secret::KeyFile(self.key.clone()), local)
    }

    /// Does something, with what goes wrong in this story.
    pub(crate) fn act(&mut self, deed: Deed) {
        let plan = self.trouble();
        self.storage.arm(plan);
        let began = self.story.turns.turns();
        self.rotations_before = self.story.rotations();
        let result = (deed.run)(self);
        let stopped = self.storage.stopped();
        if self.story.trouble == Trouble::Tears {
            self.story.torn().extend(self.storage.interrupted());
        }
        // What was killed goes on another time; nothing is wrong with the storage.
        self.storage.arm(Plan::none());
        let failed = result.as_ref().err().map(Error::with_causes);
        let what = result.as_ref().map_or_else(|error| format!("failed: {}", error.with_causes()), Clone::clone);
        let (turns, end) = (self.story.turns.turns(), if stopped { "; crashed" } else { "" });
        let (number, role, name) = (self.number, self.role, deed.name);
        self.story.log(format!("{began:>5} to {turns:>5}  {number} ({role:?})  {name}: {what}{end}"));
        if let (Err(error), Some(why)) = (result, failed)
            && self.all_is_well()
            && !(deed.meets)(&error)
        {
            self.story.complain(format!("{name} of {number} failed: {why}"));
        }
    }

    /// Whether nothing may fail: nothing goes wrong in this story, and nobody has made new keys since this one
    /// opened the repository. What is said with those it cannot read.
    fn all_is_well(&self) -> bool {
        self.story.trouble == Trouble::None && self.story.rotations() == self.rotations_before
    }

    fn trouble(&mut self) -> Plan {
        const OPERATIONS: [Operation; 6] =
            [Operation::Put, Operation::Get, Operation::List, Operation::Stat, Operation::Delete, Operation::Barrier];
        let dice = &mut self.dice;
        let at = 1 + dice.below(24);
        match self.story.trouble {
            Trouble::Crashes if dice.one_in(2) => {
                Plan::crash_at(at).last(dice.pick(&[LastChange::Lost, LastChange::Done]))
            }
            Trouble::Tears if dice.one_in(3) => Plan::crash_at(at).last(LastChange::Torn),
            Trouble::Failures if dice.one_in(2) => {
                Plan::none().failing(dice.pick(&OPERATIONS), "", at, ErrorKind::Transient)
            }
            _ => Plan::none(),
        }
    }

    fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    fn packs(&self) -> PackSettings {
        tiny_packs(PackSettings { frames_in_work: 4, ..PackSettings::default() })
    }

    fn back_up(&mut self) -> Result<String> {
        // Sometimes what the base had, of which some is garbage; else a mixture.
        let whole = self.dice.below(CONTENTS);
        let contents = if self.dice.one_in(3) { [whole; FILES] } else { [0; FILES].map(|_| self.dice.below(CONTENTS)) };
        let checkpoint_bytes = if self.dice.one_in(4) { 3000 } else { backup::CHECKPOINT_BYTES };
        let id = self.back_up_these(contents, checkpoint_bytes)?;
        Ok(format!("made {}", &id[..6]))
    }

    /// Gives each file one of its contents, and backs them up.
    pub(crate) fn back_up_these(&self, contents: [u64; FILES], checkpoint_bytes: u64) -> Result<String> {
        let time = |n: u64| std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + n);
        let set_time = |path: &Path, n| fs::File::open(path).unwrap().set_modified(time(n)).unwrap();
        for folder in ["d0", "d1"] {
            fs::create_dir_all(self.source().join(folder)).unwrap();
        }
        for (n, content) in (0..).zip(contents) {
            let id = n * CONTENTS + content;
            let path = self.source().join(format!("d{}/f{n}", n % 2));
            fs::write(&path, noise(id, FILE_BYTES)).unwrap();
            set_time(&path, id);
        }
        for folder in ["d0", "d1", ""] {
            set_time(&self.source().join(folder), 1000);
        }
        let source = TreePath::from_os(&self.source()).unwrap();
        let options = backup::Options {
            roots: vec![source.clone()],
            walk: WalkOptions { threads: 1, ..WalkOptions::default() },
            hostname: "host".into(),
            username: "user".into(),
            tags: vec![],
            packs: self.packs(),
            threads: 1,
            keep_record: backup::KeepRecord::Locally,
            checkpoint_bytes,
            checkpoint_secs: LONG_SECS,
            force: false,
            ignore_ctime: false,
            program: "esker test".into(),
            variation: backup::Variation::default(),
        };
        let report = backup::run(&self.open()?, &options, &Monitor::silent())?;
        assert_eq!(report.problems, 0, "{report:?}");
        let id = report.id.to_string();
        self.story.model().made(&id, tree::lines(&self.source()), source);
        Ok(id)
    }

    /// One of so many, if there is any.
    fn any<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.dice.below(of.len().max(1) as u64)).unwrap())
    }

    fn forget(&mut self) -> Result<String> {
        let repo = self.open()?;
        let (found, _) = Reader::new(&repo)?.snapshots(&Filter::default())?;
        let Some(info) = self.any(&found) else { return Ok("nothing to forget".into()) };
        let secs = self.dice.pick(&[0, 0, 40, LONG_SECS]);
        self.forget_this(&repo, info, secs)?;
        Ok(format!("{} for {secs} s", info.id().short()))
    }

    pub(crate) fn forget_this(&self, repo: &Repository, info: &SnapshotInfo, undelete_secs: i64) -> Result<()> {
        self.story.model().forgetting(&info.id().to_string(), self.world.now().secs + undelete_secs);
        forget::run(repo, std::slice::from_ref(info), undelete_secs)
    }

    fn undelete(&mut self) -> Result<String> {
        let repo = self.open()?;
        let reader = Reader::new(&repo)?;
        let (found, _) = reader.forgotten_snapshots(&Filter::default())?;
        let Some(info) = self.any(&found) else { return Ok("nothing to bring back".into()) };
        let id = self.undelete_this(&reader, info)?;
        Ok(format!("{} as {}", info.id().short(), &id[..6]))
    }

    pub(crate) fn undelete_this(&self, reader: &Reader<'_>, info: &SnapshotInfo) -> Result<String> {
        let id = forget::undelete(reader, info, &Monitor::silent())?.to_string();
        self.story.model().brought_back(&info.id().to_string(), &id);
        Ok(id)
    }

    fn prune(&mut self) -> Result<String> {
        let patience_secs = self.dice.pick(&[0, 0, 100, 900]);
        let report = self.prune_with(patience_secs)?;
        let (deleted, repacked, spared) = (report.packs_deleted, report.packs_repacked, report.packs_spared);
        let closed = report.sessions_closed;
        Ok(format!("{deleted} packs deleted, {repacked} rewritten, {spared} spared, {closed} sessions closed"))
    }

    pub(crate) fn prune_with(&self, patience_secs: u64) -> Result<prune::Report> {
        let limits = Limits {
            max_unused: Unused::Bytes(0),
            // More than three packs that are small once more: data, directories and lists have their own.
            join_bytes: 16 << 10,
            small_pack_bytes: 4 << 10,
            ..Limits::default()
        };
        let patience = Duration::from_secs(patience_secs);
        let options = prune::Options {
            limits,
            packs: self.packs(),
            patience,
            ignore_clock: false,
            close_lost: false,
            fold_from: 2,
            threads: 1,
        };
        self.story.model().prune_begins();
        let result = self.open().and_then(|repo| prune::run(&repo, &options, &Monitor::silent(), |_| Ok(())));
        self.story.model().prune_ends();
        result
    }

    fn rotate(&mut self) -> Result<String> {
        let repo = self.open()?;
        // Before the first change: who opened earlier may see it.
        self.story.rotates();
        let rotation = repo.rotate()?;
        Ok(format!("epoch {}", rotation.epoch.short()))
    }

    fn reencrypt(&mut self) -> Result<String> {
        let max_bytes = self.dice.pick(&[4000, u64::MAX]);
        let options = reencrypt::Options { max_bytes, packs: self.packs(), dry_run: false, threads: 1 };
        let report = reencrypt::run(&self.open()?, &options, &Monitor::silent())?;
        Ok(format!("{} packs of {} stored anew", report.moved.packs, report.before.packs))
    }

    /// Copies what another repository has into this one.
    fn copy(&mut self) -> Result<String> {
        let story = self.story.clone();
        let from = &story.elsewhere[usize::try_from(self.dice.below(story.elsewhere.len() as u64)).unwrap()];
        let memory = Memory::new();
        memory.restore(from.content.clone());
        let secret = Secret::KeyFile(from.owner.clone());
        let source = Repository::open(Arc::new(memory), self.world.clone(), &secret, Local::default())?;
        let target = self.open()?;
        let options = copy::Options {
            filter: Filter::default(),
            snapshots: vec![],
            verify: false,
            packs: self.packs(),
            threads: 1,
            checkpoint_bytes: if self.dice.one_in(2) { 2000 } else { backup::CHECKPOINT_BYTES },
            checkpoint_secs: LONG_SECS,
        };
        let (reader, there) = (Reader::new(&source)?, Reader::new(&target)?);
        let plan = copy::plan(&reader, &there, &options)?;
        let ids = plan.ids;
        let report = copy::run(&reader, &there, plan, &options, &Monitor::silent(), &mut |done| {
            let known = &from.model.snapshots[&done.from.id().to_string()];
            if let Some(made) = done.made {
                story.model().made(&made.to_string(), known.lines.clone(), known.source.clone());
            }
            Ok(())
        })?;
        if self.all_is_well() && report.failed > 0 {
            story.complain(format!("{} snapshots were not copied", report.failed));
        }
        Ok(format!("{} snapshots, {ids:?} ids", report.copied))
    }

    fn restore_one(&mut self) -> Result<String> {
        let kept = self.story.model().kept();
        let Some(id) = self.any(&kept) else { return Ok("nothing to restore".into()) };
        let repo = self.open()?;
        let reader = Reader::new(&repo)?;
        // Forgotten meanwhile, perhaps.
        let Ok(info) = reader.find_snapshot(id, &Filter::default()) else { return Ok("it was forgotten".into()) };
        let known = self.story.model().snapshots[id].clone();
        match self.restored(&reader, &info, &known.source)? {
            Some(lines) if lines != known.lines => {
                self.story.complain(format!("snapshot {id} restores to something else"));
            }
            None if self.all_is_well() && self.story.model().is_kept(id) => {
                self.story.complain(format!("a restore of {id} lacked something"));
            }
            _ => {}
        }
        Ok(id[..6].to_owned())
    }

    /// What a snapshot restores to; nothing if it is not whole.
    pub(crate) fn restored(
        &self,
        reader: &Reader<'_>,
        info: &SnapshotInfo,
        source: &TreePath,
    ) -> Result<Option<Vec<String>>> {
        let target = self.dir.join("restored");
        let options = restore::Options { threads: 1, spill: self.dir.clone(), ..restore::Options::new(&target) };
        let report = restore::run(reader, &info.snapshot.root, source, &options, &Monitor::silent());
        let lines = report.map(|report| (report.problems == 0).then(|| tree::lines(&target)));
        let _ = fs::remove_dir_all(&target);
        lines
    }

    fn look(&mut self) -> Result<String> {
        let report = self.checked()?;
        if self.all_is_well() && !report.faults.is_empty() {
            self.story.complain(format!("a check finds {:?}", report.faults));
        }
        Ok(format!("{} snapshots, {} faults", report.snapshots, report.faults.len()))
    }

    pub(crate) fn checked(&self) -> Result<check::Report> {
        let repo = self.open()?;
        let reader = Reader::without_cache(&repo)?;
        let options = check::Options { read_data: check::ReadData::All, snapshot: None, threads: 1 };
        check::run(&reader, &options, &Monitor::silent())
    }
}
