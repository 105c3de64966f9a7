//! Risk: an interleaving of backups, collections and failures that nobody thought of loses a snapshot, or
//! leaves garbage for ever.
//! Method: each seed is a story: two to four actors over one storage in memory, an owner's and others', who back
//! up, forget, bring back, collect, restore and check, and dice decide at each call to the storage who goes on
//! (`support/turns.rs`). Some stories have crashes (the last change lost, done or torn; what was killed is begun
//! again), failing calls or a loss of power. A model knows what each snapshot that was reported as made must
//! hold, and what may be gone by when it was forgotten. Afterwards every snapshot must restore to what the model
//! says, `check --read-data` be clean, what was forgotten be there while it may be brought back; and two quiet
//! collections must leave nothing that nothing needs. `ESKER_SIM_SEED` tells one story again, as exactly as
//! threads allow; `ESKER_SIM_SECS` or `ESKER_SIM_COUNT` makes it a soak with seeds nobody has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;
#[path = "support/turns.rs"]
mod turns;

use esker::error::{Kind, Result};
use esker::format::access::Role;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::prune::plan::{Limits, Unused};
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::Local;
use esker::repo::pack_writer::PackSettings;
use esker::repo::secret::{KeyFile, Secret};
use esker::repo::snapshots::{Filter, SnapshotInfo};
use esker::repo::standing::Standing;
use esker::source::walk::WalkOptions;
use esker::storage::Storage;
use esker::storage::fault::{Faulty, LastChange, Plan};
use esker::storage::memory::{Content, Memory};
use esker::storage::record::Operation;
use esker::{backup, check, forget, prune, restore};
use repo::{init_options, noise, tiny_packs};
use turns::{Dice, PowerLoss, Seat, Style, Turns};

/// Stories that every run of the tests tells.
const STORIES: u64 = 1000;

/// Files of a source.
const FILES: u64 = 6;
/// Contents each file may have: few, so that what one forgets another stores again.
const CONTENTS: u64 = 3;
const FILE_BYTES: usize = 900;

/// A time to undelete that ends after the story, in seconds, which are turns.
const LONG_SECS: i64 = 1_000_000;

/// What is known of one snapshot that was reported as made.
#[derive(Debug, Clone)]
struct Known {
    lines: Vec<String>,
    source: TreePath,
    /// By whom it was forgotten, or might have been.
    forgotten: Vec<Forgotten>,
}

#[derive(Debug, Clone, Copy)]
struct Forgotten {
    /// The time to bring it back lasts this long or longer.
    until_secs: i64,
    /// Collections that were over by then.
    prunes_ended: u64,
}

/// What must be in the repository.
#[derive(Debug, Clone, Default)]
struct Model {
    snapshots: BTreeMap<String, Known>,
    prunes_begun: u64,
    prunes_ended: u64,
}

impl Model {
    /// Whether a snapshot may be gone: its time is over, and two collections were at work since.
    fn may_be_gone(&self, known: &Known, now_secs: i64) -> bool {
        known.forgotten.iter().any(|it| it.until_secs <= now_secs && self.prunes_begun - it.prunes_ended >= 2)
    }
}

/// What goes wrong in a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Crashes,
    Tears,
    Failures,
    PowerLoss,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Backup,
    Forget,
    Undelete,
    Prune,
    Restore,
    Check,
}

/// What all actors of a story share.
struct Story {
    turns: Arc<Turns>,
    trouble: Trouble,
    model: Mutex<Model>,
    log: Mutex<Vec<String>>,
    torn: Mutex<BTreeSet<String>>,
    complaints: Mutex<Vec<String>>,
}

impl Story {
    fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }

    fn complain(&self, what: String) {
        lock(&self.complaints).push(what);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine with a credential, and files to back up.
struct Actor {
    number: usize,
    role: Role,
    key: KeyFile,
    seat: Seat,
    storage: Faulty,
    world: esker::world::World,
    /// Holds the source, and the cache if there is one.
    dir: PathBuf,
    has_cache: bool,
    dice: Dice,
    restores: u64,
    story: Arc<Story>,
}

impl Actor {
    fn new(number: usize, role: Role, key: KeyFile, dir: &Path, mut dice: Dice, story: &Arc<Story>) -> Self {
        let seat = Seat::new(story.turns.clone(), number);
        let dir = dir.join(number.to_string());
        fs::create_dir_all(dir.join("source")).unwrap();
        Self {
            number,
            role,
            key,
            storage: Faulty::new(Arc::new(seat.clone()), Plan::none()),
            world: seat.world(dice.roll()),
            seat,
            dir,
            has_cache: dice.one_in(4),
            dice,
            restores: 0,
            story: story.clone(),
        }
    }

    fn local(&self) -> Local {
        Local { cache: self.has_cache.then(|| self.dir.join("cache")), ..Local::default() }
    }

    fn open(&self) -> Result<Repository> {
        let storage: Arc<dyn Storage> = Arc::new(self.storage.clone());
        Repository::open(storage, self.world.clone(), &Secret::KeyFile(self.key.clone()), self.local())
    }

    fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    fn packs(&self) -> PackSettings {
        tiny_packs(PackSettings { frames_in_work: 4, ..PackSettings::default() })
    }

    /// Gives each file one of its contents.
    fn write_source(&self, content_of: impl Fn(u64) -> u64) {
        let time = |n: u64| std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + n);
        let set_time = |path: &Path, n| fs::File::open(path).unwrap().set_modified(time(n)).unwrap();
        for folder in 0..2 {
            fs::create_dir_all(self.source().join(format!("d{folder}"))).unwrap();
        }
        for n in 0..FILES {
            let id = n * CONTENTS + content_of(n) % CONTENTS;
            let path = self.source().join(format!("d{}/f{n}", n % 2));
            fs::write(&path, noise(id, FILE_BYTES)).unwrap();
            set_time(&path, id);
        }
        for folder in ["d0", "d1", ""] {
            set_time(&self.source().join(folder), 1000);
        }
    }

    /// Does something, with what goes wrong in this story.
    fn act(&mut self, deed: Deed) {
        let trouble = self.trouble();
        self.storage.arm(trouble);
        self.seat.take_puts();
        let began = self.story.turns.turns();
        let result = match deed {
            Deed::Backup => self.back_up(),
            Deed::Forget => self.forget(),
            Deed::Undelete => self.undelete(),
            Deed::Prune => self.prune(),
            Deed::Restore => self.restore_one(),
            Deed::Check => self.check(),
        };
        let puts = self.seat.take_puts();
        let stopped = self.storage.stopped();
        // The last change was torn if it came through at all: only puts do.
        if self.story.trouble == Trouble::Tears && stopped && puts.changes == self.storage.changes() {
            lock(&self.story.torn).insert(puts.last.clone());
        }
        let what = match &result {
            Ok(what) => what.clone(),
            Err(error) => format!("failed: {}", error.with_causes()),
        };
        let turns = self.story.turns.turns();
        let end = if stopped { "; crashed" } else { "" };
        lock(&self.story.log)
            .push(format!("{began:>5} to {turns:>5}  {} ({:?})  {deed:?}: {what}{end}", self.number, self.role));
        if let Err(error) = result
            && self.story.trouble == Trouble::None
            && !is_fair(deed, &error)
        {
            self.story.complain(format!("{deed:?} of {} failed: {}", self.number, error.with_causes()));
        }
        // What was killed goes on another time; nothing is wrong with the storage.
        self.storage.arm(Plan::none());
    }

    fn trouble(&mut self) -> Plan {
        let at = 1 + self.dice.below(24);
        match self.story.trouble {
            Trouble::Crashes if self.dice.one_in(2) => {
                Plan::crash_at(at).last(self.dice.pick(&[LastChange::Lost, LastChange::Done]))
            }
            Trouble::Tears if self.dice.one_in(3) => Plan::crash_at(at).last(LastChange::Torn),
            Trouble::Failures if self.dice.one_in(2) => {
                let operations = [
                    Operation::Put,
                    Operation::Get,
                    Operation::List,
                    Operation::Stat,
                    Operation::Delete,
                    Operation::Barrier,
                ];
                let kind = esker::storage::ErrorKind::Transient;
                Plan::none().failing(self.dice.pick(&operations), "", at, kind)
            }
            _ => Plan::none(),
        }
    }

    fn back_up(&mut self) -> Result<String> {
        let mut dice = Dice::new(self.dice.roll());
        // Sometimes what the base had, of which some is garbage; else a mixture.
        let whole = self.dice.one_in(3).then(|| dice.below(CONTENTS));
        let contents: Vec<u64> = (0..FILES).map(|_| whole.unwrap_or_else(|| dice.roll())).collect();
        self.write_source(|n| contents[usize::try_from(n).unwrap()]);
        let checkpoint_bytes = if self.dice.one_in(4) { 3000 } else { backup::CHECKPOINT_BYTES };
        let id = self.back_up_what_is_there(checkpoint_bytes)?;
        Ok(format!("made {}", &id[..6]))
    }

    fn back_up_what_is_there(&self, checkpoint_bytes: u64) -> Result<String> {
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
        let known = Known { lines: tree::lines(&self.source()), source, forgotten: vec![] };
        self.story.model().snapshots.insert(id.clone(), known);
        Ok(id)
    }

    fn forget(&mut self) -> Result<String> {
        let repo = self.open()?;
        let (found, _) = Reader::new(&repo)?.snapshots(&Filter::default())?;
        if found.is_empty() {
            return Ok("nothing to forget".into());
        }
        let info = &found[usize::try_from(self.dice.below(found.len() as u64)).unwrap()];
        let secs = self.dice.pick(&[0, 0, 40, LONG_SECS]);
        self.forget_this(&repo, info, secs)?;
        Ok(format!("{} for {secs} s", &info.id().to_string()[..6]))
    }

    fn forget_this(&self, repo: &Repository, info: &SnapshotInfo, undelete_secs: i64) -> Result<()> {
        {
            let mut model = self.story.model();
            let until_secs = self.story.turns.now_secs() + undelete_secs;
            let prunes_ended = model.prunes_ended;
            if let Some(known) = model.snapshots.get_mut(&info.id().to_string()) {
                known.forgotten.push(Forgotten { until_secs, prunes_ended });
            }
        }
        forget::run(repo, std::slice::from_ref(info), undelete_secs)
    }

    fn undelete(&mut self) -> Result<String> {
        let repo = self.open()?;
        let reader = Reader::new(&repo)?;
        let (found, _) = reader.forgotten_snapshots(&Filter::default())?;
        if found.is_empty() {
            return Ok("nothing to bring back".into());
        }
        let info = &found[usize::try_from(self.dice.below(found.len() as u64)).unwrap()];
        self.undelete_this(&reader, info).map(|id| format!("{} as {}", &info.id().to_string()[..6], &id[..6]))
    }

    fn undelete_this(&self, reader: &Reader<'_>, info: &SnapshotInfo) -> Result<String> {
        let id = forget::undelete(reader, info, &Monitor::silent())?.to_string();
        let mut model = self.story.model();
        if let Some(known) = model.snapshots.get(&info.id().to_string()).cloned() {
            model.snapshots.insert(id.clone(), Known { forgotten: vec![], ..known });
        }
        Ok(id)
    }

    fn prune(&mut self) -> Result<String> {
        let patience_secs = self.dice.pick(&[0, 0, 100, 900]);
        let report = self.prune_with(patience_secs)?;
        let (deleted, repacked, spared) = (report.packs_deleted, report.packs_repacked, report.packs_spared);
        let closed = report.sessions_closed;
        Ok(format!("{deleted} packs deleted, {repacked} rewritten, {spared} spared, {closed} sessions closed"))
    }

    fn prune_with(&self, patience_secs: u64) -> Result<prune::Report> {
        let options = prune::Options {
            limits: Limits {
                max_unused: Unused::Bytes(0),
                join_bytes: 8 << 10,
                small_pack_bytes: 4 << 10,
                ..Limits::default()
            },
            packs: self.packs(),
            patience: Duration::from_secs(patience_secs),
            ignore_clock: false,
            close_lost: false,
        };
        self.story.model().prunes_begun += 1;
        let result = self.open().and_then(|repo| prune::run(&repo, &options, &Monitor::silent(), |_| Ok(())));
        self.story.model().prunes_ended += 1;
        result
    }

    fn restore_one(&mut self) -> Result<String> {
        let ids: Vec<String> = {
            let model = self.story.model();
            model.snapshots.iter().filter(|(_, known)| known.forgotten.is_empty()).map(|(id, _)| id.clone()).collect()
        };
        let Some(id) = ids.get(usize::try_from(self.dice.below(ids.len().max(1) as u64)).unwrap()) else {
            return Ok("nothing to restore".into());
        };
        let repo = self.open()?;
        let reader = Reader::new(&repo)?;
        // Forgotten meanwhile, perhaps.
        let Ok(info) = reader.find_snapshot(id, &Filter::default()) else { return Ok("it was forgotten".into()) };
        let known = self.story.model().snapshots[id].clone();
        match self.restored(&reader, &info, &known.source)? {
            Some(lines) if lines != known.lines => {
                self.story.complain(format!("snapshot {id} restores to something else"))
            }
            Some(_) => {}
            None if self.story.trouble == Trouble::None && self.story.model().snapshots[id].forgotten.is_empty() => {
                self.story.complain(format!("a restore of {id} lacked something"));
            }
            None => {}
        }
        Ok(id[..6].to_owned())
    }

    /// What a snapshot restores to; nothing if it is not whole.
    fn restored(&mut self, reader: &Reader<'_>, info: &SnapshotInfo, source: &TreePath) -> Result<Option<Vec<String>>> {
        self.restores += 1;
        let target = self.dir.join(format!("restored-{}", self.restores));
        let options = restore::Options::new(&target);
        let report = restore::run(reader, &info.snapshot.root, source, &options, &Monitor::silent())?;
        let lines = (report.problems == 0).then(|| tree::lines(&target));
        let _ = fs::remove_dir_all(&target);
        Ok(lines)
    }

    fn check(&mut self) -> Result<String> {
        let report = self.checked()?;
        Ok(format!("{} snapshots, {} faults", report.snapshots, report.faults.len()))
    }

    fn checked(&self) -> Result<check::Report> {
        let repo = self.open()?;
        let reader = Reader::without_cache(&repo)?;
        let options = check::Options { read_data: check::ReadData::All, snapshot: None, threads: 1 };
        check::run(&reader, &options, &Monitor::silent())
    }

    /// Every snapshot that must be there is what it was made of.
    fn assert_all_there(&mut self, when: &str) {
        let repo = self.open().unwrap();
        let reader = Reader::new(&repo).unwrap();
        let (live, faults) = reader.snapshots(&Filter::default()).unwrap();
        let (forgotten, more) = reader.forgotten_snapshots(&Filter::default()).unwrap();
        assert!(faults.is_empty() && more.is_empty(), "{faults:?} {more:?}, {when}");
        let model = self.story.model().clone();
        for (id, known) in &model.snapshots {
            if model.may_be_gone(known, self.story.turns.now_secs()) {
                continue;
            }
            let among = if known.forgotten.is_empty() { live.iter().chain(&[]) } else { live.iter().chain(&forgotten) };
            let info = among.into_iter().find(|info| info.id().to_string() == *id);
            let info = info.unwrap_or_else(|| panic!("snapshot {id} is lost, {when}"));
            let lines = self.restored(&reader, info, &known.source).unwrap_or_else(|e| panic!("{id}: {e:?}, {when}"));
            let lines = lines.unwrap_or_else(|| panic!("snapshot {id} is not whole, {when}"));
            assert!(lines == known.lines, "snapshot {id} restores to something else, {when}");
        }
    }

    fn assert_sound(&self, when: &str) {
        let report = self.checked().unwrap();
        assert!(report.faults.is_empty(), "{:?}, {when}", report.faults);
    }
}

/// Whether something may fail where nothing is wrong: it met a collection.
fn is_fair(deed: Deed, error: &esker::error::Error) -> bool {
    let text = error.to_string();
    match deed {
        Deed::Backup => text.contains("a collector interfered"),
        Deed::Prune => text.contains("another collection is under way"),
        Deed::Undelete => text.contains("was not brought back") || error.kind() == Kind::Refused,
        _ => false,
    }
}

/// What every story begins with: a repository with a past.
struct Base {
    content: Content,
    keys: [KeyFile; 2],
    model: Model,
    now_secs: i64,
    _dir: tempfile::TempDir,
}

impl Base {
    fn new() -> Self {
        let dir = directory();
        let memory = Memory::new();
        // Ahead of the files, so that a run trusts the times of those just made.
        let now_secs = esker::world::World::system().now().secs + 24 * 3600;
        let story = Arc::new(Story::new(&memory, 1, &mut Dice::new(0), Trouble::None, now_secs));
        let seat = Seat::new(story.turns.clone(), 0);
        let world = seat.world(0);
        let (repo, key) = Repository::init(Arc::new(seat), world, &init_options(), Local::default()).unwrap();
        let keys = [key.unwrap(), repo.add_member(Role::Writer, "writer", None).unwrap()];
        let at = |role, key: &KeyFile, seed| Actor {
            has_cache: false,
            ..Actor::new(0, role, key.clone(), dir.path(), Dice::new(seed), &story)
        };
        let owner = at(Role::Owner, &keys[0], 1);
        let writer = at(Role::Writer, &keys[1], 2);
        let back_up = |actor: &Actor, contents: [u64; 6]| {
            actor.write_source(|n| contents[usize::try_from(n).unwrap()]);
            actor.back_up_what_is_there(backup::CHECKPOINT_BYTES).unwrap()
        };
        let first = back_up(&owner, [0; 6]);
        let second = back_up(&writer, [1; 6]);
        back_up(&owner, [0, 1, 2, 0, 1, 2]);
        let long = back_up(&writer, [2, 2, 2, 0, 0, 0]);
        back_up(&owner, [2; 6]);
        let repo = owner.open().unwrap();
        let (found, _) = Reader::new(&repo).unwrap().snapshots(&Filter::default()).unwrap();
        for (id, secs) in [(first, 0), (second, 0), (long, LONG_SECS)] {
            let info = found.iter().find(|info| info.id().to_string() == id).unwrap();
            owner.forget_this(&repo, info, secs).unwrap();
        }
        // It sees the notes; the next one takes what they are about.
        assert_eq!(owner.prune_with(0).unwrap().packs_deleted, 0);
        let model = story.model().clone();
        Self { content: memory.snapshot(), keys, model, now_secs: story.turns.now_secs(), _dir: dir }
    }
}

fn directory() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared).unwrap() } else { tempfile::tempdir().unwrap() }
}

impl Story {
    fn new(memory: &Memory, actors: usize, dice: &mut Dice, trouble: Trouble, now_secs: i64) -> Self {
        let style = if dice.one_in(2) {
            Style::Walk(dice.pick(&[1, 3, 10, 30, 100]))
        } else {
            let within = dice.pick(&[100, 400, 1000]);
            let count = dice.pick(&[2, 4, 8]);
            Style::Ranks((0..count).map(|_| dice.below(within)).collect())
        };
        let power_loss = (trouble == Trouble::PowerLoss)
            .then(|| PowerLoss { turn: 1 + dice.below(1000), keeps_newest: dice.one_in(2) });
        let turns = Turns::new(memory.clone(), actors, dice.clone(), style, power_loss, now_secs);
        Self {
            turns,
            trouble,
            model: Mutex::default(),
            log: Mutex::default(),
            torn: Mutex::default(),
            complaints: Mutex::default(),
        }
    }
}

/// What came of a story.
#[derive(Default)]
struct Told {
    turns: u64,
    log: Vec<String>,
    /// Why it ended badly.
    fault: Option<String>,
}

/// Tells one story.
fn tell(base: &Base, seed: u64) -> Told {
    let mut dice = Dice::new(seed);
    let trouble = dice.pick(&[
        Trouble::None,
        Trouble::None,
        Trouble::None,
        Trouble::Crashes,
        Trouble::Crashes,
        Trouble::Tears,
        Trouble::Failures,
        Trouble::PowerLoss,
    ]);
    let memory = Memory::new();
    memory.restore(base.content.clone());
    let dir = directory();
    let count = 2 + usize::try_from(dice.below(3)).unwrap();
    let story = Arc::new(Story::new(&memory, count, &mut dice, trouble, base.now_secs));
    *story.model() = base.model.clone();
    let mut actors = Vec::new();
    for number in 0..count {
        let role = if number == 0 || dice.one_in(2) { Role::Owner } else { Role::Writer };
        let key = &base.keys[usize::from(role == Role::Writer)];
        let mut actor = Actor::new(number, role, key.clone(), dir.path(), Dice::new(dice.roll()), &story);
        let deeds: Vec<Deed> = (0..=dice.below(3)).map(|_| choose(role, &mut actor.dice)).collect();
        actors.push((actor, deeds));
    }
    let result = catch_unwind(AssertUnwindSafe(|| {
        std::thread::scope(|scope| {
            for (mut actor, deeds) in actors {
                scope.spawn(move || {
                    let (turns, number, story) = (actor.story.turns.clone(), actor.number, actor.story.clone());
                    turns.begin(number);
                    let done = catch_unwind(AssertUnwindSafe(|| {
                        for deed in deeds {
                            if turns.has_power() {
                                actor.act(deed);
                            }
                        }
                    }));
                    if let Err(panic) = done {
                        story.complain(format!("{number} panicked: {}", said(&*panic)));
                    }
                    turns.end(number);
                });
            }
        });
        afterwards(base, &memory, &story, dir.path(), &mut dice);
    }));
    let mut complaints = std::mem::take(&mut *lock(&story.complaints));
    if let Err(panic) = result {
        complaints.push(said(&*panic));
    }
    let fault = (!complaints.is_empty()).then(|| complaints.join("\n"));
    let mut log = vec![format!("{count} actors, {trouble:?}, {}", story.turns.how())];
    log.append(&mut lock(&story.log));
    Told { turns: story.turns.turns(), log, fault }
}

/// What an actor does next.
fn choose(role: Role, dice: &mut Dice) -> Deed {
    use Deed::{Backup, Check, Forget, Prune, Restore, Undelete};
    match role {
        Role::Writer => Backup,
        _ => dice.pick(&[Backup, Backup, Backup, Prune, Prune, Prune, Prune, Forget, Forget, Undelete, Restore, Check]),
    }
}

/// Looks at what a story has left.
fn afterwards(base: &Base, memory: &Memory, story: &Story, dir: &Path, dice: &mut Dice) {
    // What was torn is still there under its name, and check says so; its owner removes it.
    let torn = lock(&story.torn).clone();
    let mut quiet = Story::new(memory, 1, dice, Trouble::None, story.turns.now_secs());
    *quiet.model.get_mut().unwrap() = story.model().clone();
    let quiet = Arc::new(quiet);
    let key = base.keys[0].clone();
    let mut owner =
        Actor { has_cache: false, ..Actor::new(0, Role::Owner, key, &dir.join("after"), Dice::new(0), &quiet) };
    let mut content = memory.snapshot();
    for name in &torn {
        let report = owner.checked().unwrap();
        let others: Vec<_> = report.faults.iter().filter(|fault| !torn.contains(&fault.object)).collect();
        assert!(others.is_empty(), "{others:?}");
        content.remove(name);
    }
    memory.restore(content);

    owner.assert_all_there("after the story");
    owner.assert_sound("after the story");
    owner.prune_with(0).unwrap();
    owner.prune_with(0).unwrap();
    let packs = |memory: &Memory| memory.list("packs/").unwrap();
    let before = packs(memory);
    let report = owner.prune_with(0).unwrap();
    assert_eq!((report.packs_deleted, report.packs_repacked), (0, 0), "a third collection found something: {report:?}");
    assert_eq!(report.plan.unused_bytes, 0, "{report:?}");
    assert_eq!(packs(memory), before);
    for folder in ["sessions/", "alive/", "flags/"] {
        let left = memory.list(folder).unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
    owner.assert_all_there("after collections");
    owner.assert_sound("after collections");

    // What must still be there can be brought back; what must be gone is.
    let repo = owner.open().unwrap();
    let reader = Reader::new(&repo).unwrap();
    let now_secs = quiet.turns.now_secs();
    let model = quiet.model().clone();
    for (id, known) in model.snapshots.iter().filter(|(_, known)| !known.forgotten.is_empty()) {
        let header = reader.commits().headers.values().find(|header| header.session.to_string() == *id);
        if model.may_be_gone(known, now_secs) {
            let gone = header.is_none_or(|header| {
                !matches!(reader.standings().of(header), Standing::Forgotten { until_secs, in_effect: false } if until_secs <= now_secs)
            });
            assert!(gone, "snapshot {id} is kept for ever");
            continue;
        }
        let (forgotten, _) = reader.forgotten_snapshots(&Filter::default()).unwrap();
        // A note that was lost has forgotten nothing.
        if let Some(info) = forgotten.iter().find(|info| info.id().to_string() == *id) {
            owner.undelete_this(&reader, info).unwrap_or_else(|error| panic!("{id} is not brought back: {error:?}"));
        }
    }
    owner.assert_all_there("after bringing back");
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "panicked".into())
}

/// Tells stories with every core until `next` gives no more seeds; gives how many, their turns and the first faults.
fn tell_all(next: impl Fn() -> Option<u64> + Sync) -> (u64, u64, Vec<String>) {
    let base = Base::new();
    let (count, turns, faults) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while lock(&faults).len() < 5
                    && let Some(seed) = next()
                {
                    let told = tell(&base, seed);
                    count.fetch_add(1, Ordering::Relaxed);
                    turns.fetch_add(told.turns, Ordering::Relaxed);
                    if let Some(fault) = told.fault {
                        let mut text = format!("SEED={seed}\n{fault}\n");
                        for line in told.log {
                            writeln!(text, "  {line}").unwrap();
                        }
                        lock(&faults).push(text);
                    }
                }
            });
        }
    });
    (count.into_inner(), turns.into_inner(), faults.into_inner().unwrap())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn no_interleaving_loses_a_snapshot_or_leaves_garbage() {
    let drawn = AtomicU64::new(0);
    let draw = || drawn.fetch_add(1, Ordering::Relaxed);
    let (seed, secs, wanted) = (number("ESKER_SIM_SEED"), number("ESKER_SIM_SECS"), number("ESKER_SIM_COUNT"));
    let began = Instant::now();
    let (count, turns, faults) = match (seed, secs, wanted) {
        (Some(seed), ..) => tell_all(|| (draw() == 0).then_some(seed)),
        (None, None, None) => tell_all(|| Some(draw()).filter(|n| *n < STORIES)),
        (None, secs, wanted) => {
            let first = u64::from_le_bytes(esker::world::World::system().random()) >> 1;
            tell_all(|| {
                let in_time = secs.is_none_or(|secs| began.elapsed() < Duration::from_secs(secs));
                let n = draw();
                (in_time && wanted.is_none_or(|wanted| n < wanted)).then(|| first + n)
            })
        }
    };
    let took = began.elapsed().as_secs_f64();
    eprintln!("{count} stories, {turns} turns, {took:.1} s");
    assert!(faults.is_empty(), "of {count} stories:\n{}", faults.join("\n"));
}
