//! One story: who is in it, what goes wrong, and what must be true when it is over.

use std::any::Any;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use esker::format::access::Role;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::keys::ContentKeys;
use esker::repo::kit::Kit;
use esker::repo::open::{InitOptions, Local};
use esker::repo::repair;
use esker::repo::secret::KeyFile;
use esker::repo::snapshots::Filter;
use esker::storage::Storage;
use esker::storage::memory::{Content, Memory};
use esker::world::World;
use esker::{backup, forget};

use super::actor::{Actor, Deed, LONG_SECS};
use super::dice::Dice;
use super::model::Model;
use super::repo::init_options;
use super::turns::{PowerLoss, Seat, Style, Turns};

/// Longer than a checkpoint is kept, and than anything forgotten in a story can be brought back.
const LONG: Duration = Duration::from_secs(2 * LONG_SECS.cast_unsigned());

/// What goes wrong in a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// Programs are killed: the last change is lost, or done.
    Crashes,
    /// The same, and the last put is there in half.
    Tears,
    /// Calls fail.
    Failures,
    /// The machine that all are on loses power.
    PowerLoss,
}

/// What all actors of a story share.
pub(crate) struct Story {
    pub(crate) turns: Arc<Turns>,
    pub(crate) trouble: Trouble,
    model: Mutex<Model>,
    log: Mutex<Vec<String>>,
    torn: Mutex<BTreeSet<String>>,
    rotations: AtomicU64,
    /// Repositories from which snapshots are copied.
    pub(crate) elsewhere: Arc<Vec<Elsewhere>>,
    complaints: Mutex<Vec<String>>,
}

impl Story {
    fn new(memory: &Memory, actors: usize, dice: &mut Dice, trouble: Trouble, now_secs: i64, model: Model) -> Self {
        let some = |dice: &mut Dice, within: &[u64], counts: &[u64]| {
            let (within, count) = (dice.pick(within), dice.pick(counts));
            (0..count).map(|_| dice.below(within)).collect()
        };
        let style = match dice.below(5) {
            0 => Style::Walk(dice.pick(&[1, 3, 10, 30, 100])),
            1 => Style::Ranks(some(dice, &[100, 400, 1000], &[2, 4, 8])),
            2 => Style::RanksAtSteps(some(dice, &[30, 100, 300], &[1, 2, 3, 5])),
            3 => Style::Hinges(dice.pick(&[1, 2, 3])),
            _ => Style::Steps(dice.pick(&[1, 2, 4, 8])),
        };
        let power_loss = (trouble == Trouble::PowerLoss)
            .then(|| PowerLoss { turn: 1 + dice.below(1000), keeps_newest: dice.one_in(2) });
        let turns = Turns::new(memory.clone(), actors, dice.clone(), style, power_loss, now_secs);
        let (log, torn, complaints, rotations, elsewhere) = Default::default();
        Self { turns, trouble, model: Mutex::new(model), log, torn, rotations, elsewhere, complaints }
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }

    /// Objects that are there in half, under their names.
    pub(crate) fn torn(&self) -> MutexGuard<'_, BTreeSet<String>> {
        lock(&self.torn)
    }

    /// How often somebody has made new keys.
    pub(crate) fn rotations(&self) -> u64 {
        self.rotations.load(Ordering::SeqCst)
    }

    pub(crate) fn rotates(&self) {
        self.rotations.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn log(&self, what: String) {
        lock(&self.log).push(what);
    }

    pub(crate) fn complain(&self, what: String) {
        lock(&self.complaints).push(what);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory in memory where there is room.
fn directory() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// What every story begins with: a repository with a past.
pub(crate) struct Base {
    content: Content,
    owner: KeyFile,
    writer: KeyFile,
    model: Model,
    now_secs: i64,
    elsewhere: Arc<Vec<Elsewhere>>,
}

/// Another repository, which nobody changes.
pub(crate) struct Elsewhere {
    pub(crate) content: Content,
    pub(crate) owner: KeyFile,
    pub(crate) model: Model,
}

impl Elsewhere {
    /// With two snapshots, of which the other repository has some of the content; and perhaps with its ids.
    fn new(number: u64, like: Option<ContentKeys>, dir: &Path, now_secs: i64) -> Self {
        let memory = Memory::new();
        let mut dice = Dice::new(0);
        let story = Arc::new(Story::new(&memory, 1, &mut dice, Trouble::None, now_secs, Model::default()));
        let seat = Seat::new(story.turns.clone(), 0);
        let world = seat.world(number);
        let options = InitOptions { like, ..init_options() };
        let (_, key) = Repository::init(Arc::new(seat), world, &options, Local::default()).unwrap();
        let owner = key.unwrap();
        let actor = Actor::new(0, Role::Owner, &owner, &dir.join(number.to_string()), number, &story);
        actor.back_up_these([0, 1, 2, 2, 1, 0], backup::CHECKPOINT_BYTES).unwrap();
        actor.back_up_these([2, 2, 2, 1, 1, 1], backup::CHECKPOINT_BYTES).unwrap();
        let model = story.model().clone();
        Self { content: memory.snapshot(), owner, model }
    }
}

impl Base {
    pub(crate) fn new() -> Self {
        let dir = directory();
        let memory = Memory::new();
        // Ahead of the files, so that a run trusts the times of those just made.
        let now_secs = World::system().now().secs + 24 * 3600;
        let mut dice = Dice::new(0);
        let story = Arc::new(Story::new(&memory, 1, &mut dice, Trouble::None, now_secs, Model::default()));
        let seat = Seat::new(story.turns.clone(), 0);
        let world = seat.world(0);
        let (repo, owner_key) = Repository::init(Arc::new(seat), world, &init_options(), Local::default()).unwrap();
        let owner_key = owner_key.unwrap();
        let writer_key = repo.add_member(Role::Writer, "writer", None).unwrap();
        let owner = Actor::new(0, Role::Owner, &owner_key, dir.path(), 1, &story);
        let writer = Actor::new(0, Role::Writer, &writer_key, dir.path(), 2, &story);
        let back_up = |by: &Actor, contents| by.back_up_these(contents, backup::CHECKPOINT_BYTES).unwrap();
        let first = back_up(&owner, [0; 6]);
        let second = back_up(&writer, [1, 2, 1, 2, 1, 2]);
        back_up(&owner, [0, 1, 2, 0, 1, 2]);
        let repo = owner.open().unwrap();
        let (found, _) = Reader::new(&repo).unwrap().snapshots(&Filter::default()).unwrap();
        for (id, secs) in [(first, 0), (second, LONG_SECS)] {
            let info = found.iter().find(|info| info.id().to_string() == id).unwrap();
            owner.forget_this(&repo, info, secs).unwrap();
        }
        // It sees the notes; the next one takes what they are about.
        owner.prune_with(0).unwrap();
        let model = story.model().clone();
        let now_secs = story.turns.now_secs();
        let alike = repo.keys.content_keys().unwrap();
        let elsewhere = [(10, Some(alike)), (11, None)];
        let elsewhere = elsewhere.map(|(number, like)| Elsewhere::new(number, like, dir.path(), now_secs));
        let elsewhere = Arc::new(Vec::from(elsewhere));
        Self { content: memory.snapshot(), owner: owner_key, writer: writer_key, model, now_secs, elsewhere }
    }
}

/// What came of a story.
pub(crate) struct Told {
    pub(crate) turns: u64,
    pub(crate) log: Vec<String>,
    /// Why it ended badly.
    pub(crate) fault: Option<String>,
}

/// Tells one story.
pub(crate) fn tell(base: &Base, seed: u64) -> Told {
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
    let story = Story::new(&memory, count, &mut dice, trouble, base.now_secs, base.model.clone());
    let story = Arc::new(Story { elsewhere: base.elsewhere.clone(), ..story });
    let mut actors = Vec::new();
    for number in 0..count {
        let (role, key) =
            if number == 0 || dice.one_in(2) { (Role::Owner, &base.owner) } else { (Role::Writer, &base.writer) };
        let mut actor = Actor::new(number, role, key, dir.path(), dice.roll(), &story);
        let deeds: Vec<Deed> = (0..2 + dice.below(4)).map(|_| Deed::choose(role, &mut actor.dice)).collect();
        actors.push((actor, deeds));
    }
    std::thread::scope(|scope| {
        for (actor, deeds) in actors {
            scope.spawn(|| play(actor, deeds));
        }
    });
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| afterwards(base, &memory, &story, dir.path(), &mut dice))) {
        story.complain(said(&*panic));
    }
    let complaints = std::mem::take(&mut *lock(&story.complaints));
    let fault = (!complaints.is_empty()).then(|| complaints.join("\n"));
    let mut log = vec![format!("{count} actors, {trouble:?}, {}", story.turns.how())];
    log.append(&mut lock(&story.log));
    Told { turns: story.turns.turns(), log, fault }
}

/// An actor's part.
fn play(mut actor: Actor, deeds: Vec<Deed>) {
    let (story, number) = (actor.story.clone(), actor.number);
    story.turns.begin(number);
    let done = catch_unwind(AssertUnwindSafe(|| {
        for deed in deeds {
            if story.turns.has_power() {
                actor.act(deed);
            }
        }
    }));
    if let Err(panic) = done {
        story.complain(format!("{number} panicked: {}", said(&*panic)));
    }
    story.turns.end(number);
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "panicked".into())
}

/// Looks at what a story has left.
fn afterwards(base: &Base, memory: &Memory, story: &Story, dir: &Path, dice: &mut Dice) {
    let now_secs = story.turns.now_secs();
    let quiet = Arc::new(Story::new(memory, 1, dice, Trouble::None, now_secs, story.model().clone()));
    let dir = dir.join("after");
    fs::create_dir(&dir).unwrap();
    let owner = Actor::new(0, Role::Owner, &base.owner, &dir, 0, &quiet);
    // What was torn is still there under its name, and check says so; its owner removes it.
    let torn = story.torn().clone();
    if !torn.is_empty() {
        let faults = owner.checked().unwrap().faults;
        let is_known = |object: &String| torn.contains(object) || object.starts_with("copies/access/");
        let others: Vec<_> = faults.iter().filter(|fault| !is_known(&fault.object)).collect();
        assert!(others.is_empty(), "{others:?}");
        let mut content = memory.snapshot();
        content.retain(|name, _| !torn.contains(name));
        memory.restore(content);
    }
    // A rotation that was stopped has said what there is no copy of: check says so, and what to do.
    if story.rotations() > 0 && story.trouble != Trouble::None {
        let plan = repair::plan(memory, &Kit::default(), &Local::default()).unwrap();
        assert!(plan.lost.is_empty(), "{:?}", plan.lost);
        repair::run(memory, &plan).unwrap();
    }
    all_is_there(&owner, &quiet, "after the story");
    // What follows takes longer than the story.
    if !dice.one_in(8) {
        return;
    }

    // What collections have asked that did not come to their sweep, the first in peace answers. Two leave nothing to
    // be freed by a third, but perhaps what it can join, once.
    owner.prune_with(0).unwrap();
    let flags = memory.list("flags/").unwrap();
    assert!(flags.is_empty(), "nobody answers {flags:?}");
    owner.prune_with(0).unwrap();
    let third = owner.prune_with(0).unwrap();
    let frees = (third.plan.garbage_bytes, third.plan.repack_frees_bytes);
    assert!(frees == (0, 0), "a third collection found something: {third:?}");
    if third.packs_repacked > 0 {
        let fourth = owner.prune_with(0).unwrap();
        assert_eq!((fourth.packs_deleted, fourth.packs_repacked), (0, 0), "it does not come to rest: {fourth:?}");
    }
    for folder in ["sessions/", "alive/"] {
        let left = memory.list(folder).unwrap();
        assert!(left.is_empty(), "{left:?}");
    }

    // What can be brought back is what it was.
    let repo = owner.open().unwrap();
    let reader = Reader::new(&repo).unwrap();
    for info in reader.forgotten_snapshots(&Filter::default()).unwrap().0 {
        owner
            .undelete_this(&reader, &info)
            .unwrap_or_else(|error| panic!("{} is not brought back: {error:?}", info.id()));
    }
    all_is_there(&owner, &quiet, "after collections");

    // Nothing is kept for ever: when all is forgotten, and nobody relies on a checkpoint any more, all goes.
    let all = Reader::new(&repo).unwrap().snapshots(&Filter::default()).unwrap().0;
    forget::run(&repo, &all, 0).unwrap();
    repo.world.sleep(LONG);
    owner.prune_with(0).unwrap();
    owner.prune_with(0).unwrap();
    let left = memory.list("packs/").unwrap();
    assert!(left.is_empty(), "nobody needs {left:?}");
}

/// Every snapshot that must be there is what it was made of, and nothing is wrong with the repository.
fn all_is_there(owner: &Actor, story: &Story, when: &str) {
    let repo = owner.open().unwrap();
    let reader = Reader::new(&repo).unwrap();
    let (live, faults) = reader.snapshots(&Filter::default()).unwrap();
    let (forgotten, more) = reader.forgotten_snapshots(&Filter::default()).unwrap();
    assert!(faults.is_empty() && more.is_empty(), "{faults:?} {more:?}, {when}");
    let model = story.model().clone();
    for (id, known) in &model.snapshots {
        if model.may_be_gone(id, story.turns.now_secs()) {
            continue;
        }
        // A note that was lost has forgotten nothing.
        let forgotten = forgotten.iter().filter(|_| !model.is_kept(id));
        let mut info = live.iter().chain(forgotten).find(|info| info.id().to_string() == *id).cloned();
        if model.may_be_hidden(id, story.turns.now_secs()) {
            info = info.or_else(|| repo.load_snapshot(&id.parse().unwrap()).ok());
        }
        let info = info.unwrap_or_else(|| panic!("snapshot {id} is lost, {when}"));
        let lines = owner.restored(&reader, &info, &known.source);
        let lines = lines.unwrap_or_else(|error| panic!("snapshot {id}: {error:?}, {when}"));
        let lines = lines.unwrap_or_else(|| panic!("snapshot {id} is not whole, {when}"));
        assert!(lines == known.lines, "snapshot {id} restores to something else, {when}");
    }
    let report = owner.checked().unwrap();
    assert!(report.faults.is_empty(), "{:?}, {when}", report.faults);
}
