//! Several actors over one storage in memory, of whom one goes on at a time: which, dice decide at every call.
//!
//! The turn belongs to an actor and not to a thread: whatever threads it has go on while it has the turn, and
//! wait, each at its next call, while it has not. Only calls to the storage and sleeping wait for a turn, and
//! whoever has it always comes to one of these or ends, so nobody waits for ever. Time moves with the turns; an actor
//! sees it move with its own.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::dice::Dice;
use esker::storage::memory::Memory;
use esker::storage::{Error, ErrorKind, Listed, ObjectWriter, Result, Storage, WriteMode};
use esker::world::{Clock, Rng, Time, World};

/// How it is decided who goes on.
#[derive(Debug, Clone)]
pub(crate) enum Style {
    /// At one call in so many, anybody.
    Walk(u64),
    /// At one in so many of the calls by which backups and collections tell each other something, anybody.
    Steps(u64),
    /// At one in so many of the changes and looks on which a protocol turns, anybody: few enough that a rare order of
    /// them comes about.
    Hinges(u64),
    /// Who comes first goes on; at each of these turns who goes on becomes the last (probabilistic concurrency testing).
    Ranks(BTreeSet<u64>),
    /// The same, counting only such calls.
    RanksAtSteps(BTreeSet<u64>),
}

/// When the machine that all are on loses power, and whether the newest put outlasts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PowerLoss {
    pub(crate) turn: u64,
    pub(crate) keeps_newest: bool,
}

/// Who has the turn.
pub(crate) struct Turns {
    memory: Memory,
    state: Mutex<State>,
    passed: Condvar,
    now_secs: AtomicI64,
}

/// What somebody is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// A call like any other.
    Call,
    /// A call by which backups and collections tell each other something.
    Step,
    /// One of these that says something, or looks whether a session has committed.
    Hinge,
    /// Nothing, for a while.
    Sleep,
}

impl Moment {
    /// Of a put, or a look whether something is there.
    fn of_word(name: &str) -> Self {
        const SAID: [&str; 4] = ["sessions/", "snapshots/", "flags/", "gc/"];
        if SAID.iter().any(|folder| name.starts_with(folder)) { Self::Hinge } else { Self::of(name) }
    }

    fn is_step(self) -> bool {
        matches!(self, Self::Step | Self::Hinge)
    }

    /// Of a put, a delete, a list or a look whether something is there.
    fn of(name: &str) -> Self {
        const TOLD: [&str; 5] = ["sessions/", "snapshots/", "packs/", "flags/", "gc/"];
        if TOLD.iter().any(|folder| name.starts_with(folder)) { Self::Step } else { Self::Call }
    }
}

struct State {
    dice: Dice,
    style: Style,
    power_loss: Option<PowerLoss>,
    turn: u64,
    steps: u64,
    current: usize,
    /// Empty once the actor is done.
    actors: Vec<Option<Party>>,
    lowest_rank: i64,
    has_power: bool,
    /// Puts since the last barrier, with what each replaced.
    undurable: Vec<(String, Option<Vec<u8>>)>,
}

#[derive(Clone, Default)]
struct Party {
    rank: i64,
    /// Folders with puts since its last barrier.
    touched: BTreeSet<String>,
}

impl Turns {
    pub(crate) fn new(
        memory: Memory,
        actors: usize,
        mut dice: Dice,
        style: Style,
        power_loss: Option<PowerLoss>,
        now_secs: i64,
    ) -> Arc<Self> {
        let ranks: Vec<_> =
            (0..actors).map(|_| Some(Party { rank: (dice.roll() >> 2).cast_signed(), ..Party::default() })).collect();
        let state = State {
            current: usize::try_from(dice.below(actors as u64)).unwrap(),
            dice,
            style,
            power_loss,
            turn: 0,
            steps: 0,
            actors: ranks,
            lowest_rank: 0,
            has_power: true,
            undurable: Vec::new(),
        };
        Arc::new(Self { memory, state: Mutex::new(state), passed: Condvar::new(), now_secs: AtomicI64::new(now_secs) })
    }

    pub(crate) fn now_secs(&self) -> i64 {
        self.now_secs.load(Ordering::SeqCst)
    }

    pub(crate) fn has_power(&self) -> bool {
        self.lock().has_power
    }

    /// How it is decided who goes on, and when the power goes.
    pub(crate) fn how(&self) -> String {
        let state = self.lock();
        format!("{:?}, power {}", state.style, if state.has_power { "on" } else { "lost" })
    }

    pub(crate) fn turns(&self) -> u64 {
        self.lock().turn
    }

    /// Waits for an actor's first turn.
    pub(crate) fn begin(&self, actor: usize) {
        drop(self.wait(self.lock(), actor));
    }

    /// An actor is done; somebody else goes on.
    pub(crate) fn end(&self, actor: usize) {
        let mut state = self.lock();
        state.actors[actor] = None;
        if state.current == actor
            && let Some(next) = state.next(None)
        {
            state.current = next;
        }
        self.passed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, actor: usize) -> MutexGuard<'a, State> {
        self.passed.wait_while(state, |state| state.current != actor).unwrap_or_else(PoisonError::into_inner)
    }

    /// Perhaps lets others go on, and then makes the call, while nobody else does anything.
    fn turn<T>(&self, actor: usize, moment: Moment, call: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.wait(self.lock(), actor);
        state.turn += 1;
        state.steps += u64::from(moment.is_step());
        self.now_secs.fetch_add(1, Ordering::SeqCst);
        let turn = state.turn;
        if let Some(loss) = state.power_loss.take_if(|loss| loss.turn <= turn) {
            state.lose_power(&self.memory, loss.keeps_newest);
        }
        let next = state.next(Some((actor, moment))).unwrap_or(actor);
        if next != actor {
            state.current = next;
            self.passed.notify_all();
            state = self.wait(state, actor);
        }
        if state.has_power { call(&mut state) } else { Err(Error::new(ErrorKind::Io, "the machine is off (injected)")) }
    }
}

impl State {
    /// Who goes on: after a call of somebody, who may have said that it has nothing to do, or after somebody's end.
    fn next(&mut self, after: Option<(usize, Moment)>) -> Option<usize> {
        let there: Vec<usize> = (0..self.actors.len()).filter(|actor| self.actors[*actor].is_some()).collect();
        if there.len() <= 1 {
            return there.first().copied();
        }
        match (&self.style, after) {
            (Style::Walk(one_in), Some((actor, moment))) => {
                let one_in = *one_in;
                let passes = moment == Moment::Sleep || self.dice.one_in(one_in);
                Some(if passes { self.dice.pick(&there) } else { actor })
            }
            (Style::Steps(one_in), Some((actor, moment))) => {
                let one_in = *one_in;
                let passes = moment == Moment::Sleep || moment.is_step() && self.dice.one_in(one_in);
                Some(if passes { self.dice.pick(&there) } else { actor })
            }
            (Style::Hinges(one_in), Some((actor, moment))) => {
                let one_in = *one_in;
                let passes = moment == Moment::Sleep || moment == Moment::Hinge && self.dice.one_in(one_in);
                Some(if passes { self.dice.pick(&there) } else { actor })
            }
            (Style::Walk(_) | Style::Steps(_) | Style::Hinges(_), None) => Some(self.dice.pick(&there)),
            (Style::Ranks(changes) | Style::RanksAtSteps(changes), after) => {
                let is_due = match (&self.style, after) {
                    (Style::RanksAtSteps(_), Some((_, moment))) if moment.is_step() => changes.contains(&self.steps),
                    (Style::RanksAtSteps(_), _) => false,
                    _ => changes.contains(&self.turn),
                };
                if let Some((actor, moment)) = after
                    && (moment == Moment::Sleep || is_due)
                {
                    self.lowest_rank -= 1;
                    self.actors[actor].as_mut()?.rank = self.lowest_rank;
                }
                there.into_iter().max_by_key(|actor| self.actors[*actor].as_ref().map(|party| party.rank))
            }
        }
    }

    /// Takes back what no barrier stands for, newest first.
    fn lose_power(&mut self, memory: &Memory, keeps_newest: bool) {
        self.has_power = false;
        let mut lost = std::mem::take(&mut self.undurable);
        if keeps_newest && let Some((kept, _)) = lost.pop() {
            lost.retain(|(name, _)| *name != kept);
        }
        let mut content = memory.snapshot();
        for (name, replaced) in lost.into_iter().rev() {
            match replaced {
                Some(bytes) => drop(content.insert(name, bytes.into())),
                None => drop(content.remove(&name)),
            }
        }
        memory.restore(content);
    }
}

fn folder(name: &str) -> String {
    name.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned())
}

/// One actor's way to the storage.
#[derive(Clone)]
pub(crate) struct Seat {
    turns: Arc<Turns>,
    actor: usize,
    now_secs: Arc<AtomicI64>,
}

impl Seat {
    pub(crate) fn new(turns: Arc<Turns>, actor: usize) -> Self {
        let now_secs = Arc::new(AtomicI64::new(turns.now_secs()));
        Self { turns, actor, now_secs }
    }

    /// The time the turns make, with randomness of this actor's own.
    pub(crate) fn world(&self, seed: u64) -> World {
        struct Random(World);
        impl Rng for Random {
            fn fill(&self, buf: &mut [u8]) {
                buf.chunks_mut(32).for_each(|part| part.copy_from_slice(&self.0.random::<32>()[..part.len()]));
            }
        }
        World::new(Arc::new(self.clone()), Arc::new(Random(World::seeded(seed))))
    }

    fn call<T>(&self, moment: Moment, call: impl FnOnce(&Memory) -> Result<T>) -> Result<T> {
        self.change(moment, |memory, _| call(memory))
    }

    fn change<T>(&self, moment: Moment, call: impl FnOnce(&Memory, &mut State) -> Result<T>) -> Result<T> {
        self.turns.turn(self.actor, moment, |state| {
            self.now_secs.store(self.turns.now_secs(), Ordering::SeqCst);
            call(&self.turns.memory, state)
        })
    }
}

impl Clock for Seat {
    fn now(&self) -> Time {
        Time::from_secs(self.now_secs.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.now_secs.load(Ordering::SeqCst).cast_unsigned())
    }

    fn sleep(&self, duration: Duration) {
        // Without power the next call says so.
        let _ = self.turns.turn(self.actor, Moment::Sleep, |_| {
            self.turns.now_secs.fetch_add(duration.as_secs().cast_signed(), Ordering::SeqCst);
            self.now_secs.store(self.turns.now_secs(), Ordering::SeqCst);
            Ok(())
        });
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seat({})", self.actor)
    }
}

impl Storage for Seat {
    fn place(&self) -> String {
        self.turns.memory.place()
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        self.change(Moment::of_word(name), |memory, state| {
            let replaced = memory.get(name).ok();
            memory.put(name, bytes, mode)?;
            state.undurable.push((name.to_owned(), replaced));
            state.actors[self.actor].iter_mut().for_each(|party| party.touched.extend([folder(name)]));
            Ok(())
        })
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(SeatWriter { seat: self.clone(), bytes: Vec::new() }))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.call(Moment::Call, |memory| memory.get(name))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.call(Moment::Call, |memory| memory.get_range(name, offset, length))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.call(Moment::of(prefix), |memory| memory.list(prefix))
    }

    fn stat(&self, name: &str) -> Result<u64> {
        self.call(Moment::of_word(name), |memory| memory.stat(name))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.change(Moment::of(name), |memory, state| {
            memory.delete(name)?;
            state.undurable.retain(|(put, _)| put != name);
            Ok(())
        })
    }

    /// Stands for everything in the folders this actor has put something into, whoever put it, as syncing a directory does.
    fn barrier(&self) -> Result<()> {
        self.change(Moment::Call, |_, state| {
            if let Some(party) = &mut state.actors[self.actor] {
                let touched = std::mem::take(&mut party.touched);
                state.undurable.retain(|(name, _)| !touched.contains(&folder(name)));
            }
            Ok(())
        })
    }

    fn cover(&self, name: &str) -> Result<()> {
        self.change(Moment::Call, |_, state| {
            state.actors[self.actor].iter_mut().for_each(|party| party.touched.extend([folder(name)]));
            Ok(())
        })
    }
}

struct SeatWriter {
    seat: Seat,
    bytes: Vec<u8>,
}

impl ObjectWriter for SeatWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, name: &str, mode: WriteMode) -> Result<()> {
        self.seat.put(name, &self.bytes, mode)
    }
}
