//! A wrapper that fails on purpose: chosen calls, a crash at the k-th change, a loss of power.
//!
//! A crash test runs an operation once under [`Plan::none`], asks [`Faulty::changes`] how many
//! changing calls it made, and then runs it again for each `k` of them under
//! [`Plan::crash_at`]. What the wrapped storage holds after each stop is what a crash leaves.
//!
//! Under a plan that loses power, puts not yet followed by a barrier are taken back at the
//! stop: all of them, or all but the newest. A put that may reach the disk before an earlier
//! one is the whole danger of a missing barrier, and stopping after each put in turn with
//! [`PowerLoss::KeepsNewest`] shows every such pair. Deletes always last, for the same reason.
//!
//! Changing calls (put, a writer's finish, delete, barrier) run one at a time here, so a stop
//! is exact however many threads there are.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::BufferedWriter;
use super::record::Operation;
use super::{Error, ErrorKind, Listed, ObjectWriter, Result, Storage, WriteMode};

/// What becomes of the change that a crash interrupts. The caller sees an error in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastChange {
    /// Nothing of it happened.
    #[default]
    Lost,
    /// The first half of the object is there under its name; other changes did not happen.
    /// More than is asked of a storage, but a disk may do it.
    Torn,
    /// It happened; only the reply was lost.
    Done,
}

/// What a crash does to puts that no barrier followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PowerLoss {
    /// They stay: a program stopped, not the machine.
    #[default]
    None,
    /// They are gone; what they replaced is back.
    TakesAll,
    /// They are gone but for the newest, which overtook the others.
    KeepsNewest,
}

/// What is to go wrong.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    crash: Option<u64>,
    last: LastChange,
    power: PowerLoss,
    failures: Vec<Failure>,
}

#[derive(Debug, Clone)]
struct Failure {
    operation: Operation,
    prefix: String,
    nth: u64,
    lasting: bool,
    kind: ErrorKind,
    seen: u64,
}

impl Plan {
    /// Nothing; changes are counted all the same.
    pub fn none() -> Self {
        Self::default()
    }

    /// Stops for good at the `k`-th change, counted from 1.
    pub fn crash_at(k: u64) -> Self {
        Self { crash: Some(k), ..Self::default() }
    }

    /// What becomes of the change the crash interrupts.
    pub fn last(self, last: LastChange) -> Self {
        Self { last, ..self }
    }

    /// What the crash does to puts that no barrier followed.
    pub fn power(self, power: PowerLoss) -> Self {
        Self { power, ..self }
    }

    /// Fails the `nth` call, counted from 1, of an operation on names that begin with `prefix`.
    pub fn failing(self, operation: Operation, prefix: &str, nth: u64, kind: ErrorKind) -> Self {
        self.with(operation, prefix, nth, false, kind)
    }

    /// Fails the `nth` such call and every later one, as a full disk does.
    pub fn failing_from(self, operation: Operation, prefix: &str, nth: u64, kind: ErrorKind) -> Self {
        self.with(operation, prefix, nth, true, kind)
    }

    fn with(mut self, operation: Operation, prefix: &str, nth: u64, lasting: bool, kind: ErrorKind) -> Self {
        let prefix = prefix.to_owned();
        self.failures.push(Failure { operation, prefix, nth, lasting, kind, seen: 0 });
        self
    }
}

/// A storage that goes wrong as its plan says. A clone is another handle onto the same plan.
#[derive(Clone)]
pub struct Faulty {
    inner: Arc<dyn Storage>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    changes: u64,
    stopped: bool,
    /// What the crash came with.
    interrupted: Option<String>,
    /// Puts since the last barrier, oldest first, with what each replaced. One name may recur.
    unsafe_puts: Vec<(String, Option<Vec<u8>>)>,
}

impl Faulty {
    /// Wraps a storage.
    pub fn new(inner: Arc<dyn Storage>, plan: Plan) -> Self {
        Self { inner, state: Arc::new(Mutex::new(State { plan, ..State::default() })) }
    }

    /// Starts again with another plan: not stopped, no change counted, everything so far durable.
    pub fn arm(&self, plan: Plan) {
        *self.lock() = State { plan, ..State::default() };
    }

    /// How many changes were asked for since the plan began.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Whether the crash has come.
    pub fn stopped(&self) -> bool {
        self.lock().stopped
    }

    /// The object that was being put or deleted when the crash came.
    pub fn interrupted(&self) -> Option<String> {
        self.lock().interrupted.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a call that changes nothing, unless it is to fail.
    fn look<T>(&self, operation: Operation, name: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
        self.lock().pass(operation, name)?;
        call()
    }

    /// Passes a changing call, unless it is to fail or the crash comes with it.
    fn change(&self, change: &Change<'_>) -> Result<()> {
        let mut state = self.lock();
        let (operation, name) = match change {
            Change::Put { name, .. } => (Operation::Put, *name),
            Change::Delete { name } => (Operation::Delete, *name),
            Change::Barrier => (Operation::Barrier, ""),
        };
        if !state.stopped {
            state.changes += 1;
        }
        state.pass(operation, name)?;
        if state.plan.crash != Some(state.changes) {
            return self.apply(&mut state, change);
        }
        state.stopped = true;
        state.interrupted = Some(name.to_owned()).filter(|name| !name.is_empty());
        // Whether the last change and the undoing work is between the plan and the wrapped
        // storage (a put over an existing name fails, say); the caller is told of the stop only.
        match (state.plan.last, change) {
            (LastChange::Done, change) => drop(self.apply(&mut state, change)),
            (LastChange::Torn, &Change::Put { name, bytes, mode }) => {
                let torn = Change::Put { name, bytes: &bytes[..bytes.len() / 2], mode };
                drop(self.apply(&mut state, &torn));
            }
            (LastChange::Torn | LastChange::Lost, _) => {}
        }
        self.lose_power(&mut state)?;
        Err(stop())
    }

    fn apply(&self, state: &mut State, change: &Change<'_>) -> Result<()> {
        match *change {
            Change::Put { name, bytes, mode } if state.plan.power != PowerLoss::None => {
                let replaced = match self.inner.get(name) {
                    Ok(bytes) => Some(bytes),
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    Err(error) => return Err(error),
                };
                self.inner.put(name, bytes, mode)?;
                state.unsafe_puts.push((name.to_owned(), replaced));
                Ok(())
            }
            Change::Put { name, bytes, mode } => self.inner.put(name, bytes, mode),
            Change::Delete { name } => {
                self.inner.delete(name)?;
                state.unsafe_puts.retain(|(put, _)| put != name);
                Ok(())
            }
            Change::Barrier => {
                self.inner.barrier()?;
                state.unsafe_puts.clear();
                Ok(())
            }
        }
    }

    /// Takes back what no barrier followed, newest first.
    fn lose_power(&self, state: &mut State) -> Result<()> {
        let mut lost = std::mem::take(&mut state.unsafe_puts);
        if state.plan.power == PowerLoss::KeepsNewest
            && let Some((kept, _)) = lost.pop()
        {
            lost.retain(|(name, _)| *name != kept);
        }
        for (name, replaced) in lost.into_iter().rev() {
            match replaced {
                Some(bytes) => self.inner.put(&name, &bytes, WriteMode::Replace)?,
                None => self.inner.delete(&name)?,
            }
        }
        Ok(())
    }
}

/// A changing call.
enum Change<'a> {
    Put { name: &'a str, bytes: &'a [u8], mode: WriteMode },
    Delete { name: &'a str },
    Barrier,
}

impl State {
    /// Fails when stopped or when the plan fails this call.
    fn pass(&mut self, operation: Operation, name: &str) -> Result<()> {
        if self.stopped {
            return Err(stop());
        }
        let mut kind = None;
        for failure in &mut self.plan.failures {
            if failure.operation == operation && name.starts_with(&failure.prefix) {
                failure.seen += 1;
                let due = failure.seen == failure.nth || failure.lasting && failure.seen > failure.nth;
                kind = kind.or(due.then_some(failure.kind));
            }
        }
        match kind {
            Some(kind) => Err(Error::new(kind, format!("{operation:?} of `{name}` failed (injected)"))),
            None => Ok(()),
        }
    }
}

fn stop() -> Error {
    Error::new(ErrorKind::Io, "the storage stopped (injected)")
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?}, {:?})", self.inner, self.lock().plan)
    }
}

impl Storage for Faulty {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        self.change(&Change::Put { name, bytes, mode })
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        match self.stopped() {
            true => Err(stop()),
            false => Ok(Box::new(BufferedWriter::new(self.clone()))),
        }
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.look(Operation::Get, name, || self.inner.get(name))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.look(Operation::GetRange, name, || self.inner.get_range(name, offset, length))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.look(Operation::List, prefix, || self.inner.list(prefix))
    }

    fn stat(&self, name: &str) -> Result<u64> {
        self.look(Operation::Stat, name, || self.inner.stat(name))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.change(&Change::Delete { name })
    }

    fn barrier(&self) -> Result<()> {
        self.change(&Change::Barrier)
    }

    fn connections(&self) -> usize {
        self.inner.connections()
    }

    fn caveat(&self) -> Result<Option<String>> {
        self.inner.caveat()
    }

    fn cover(&self, name: &str) -> Result<()> {
        self.inner.cover(name)
    }

    fn local_directory(&self) -> Option<&Path> {
        self.inner.local_directory()
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::*;

    /// Puts `a`, `b`, a barrier, `c` (a replacement), `d`, deletes `b`, under a plan; what is left of it.
    fn left_by(plan: Plan) -> Vec<String> {
        let memory = Memory::new();
        memory.put("c", b"old", WriteMode::CreateNew).unwrap();
        let storage = Faulty::new(Arc::new(memory.clone()), plan);
        let run = || {
            storage.put("a", b"aaaa", WriteMode::CreateNew)?;
            let mut writer = storage.writer()?;
            writer.write(b"bbbb")?;
            writer.finish("b", WriteMode::CreateNew)?;
            storage.barrier()?;
            storage.put("c", b"cccc", WriteMode::Replace)?;
            storage.put("d", b"dddd", WriteMode::CreateNew)?;
            storage.delete("b")
        };
        let done = run();
        assert_eq!(storage.stopped(), done.is_err());
        assert!(storage.interrupted().is_none_or(|name| ["a", "b", "c", "d"].contains(&&*name)));
        if let Err(error) = done {
            assert_eq!(format!("{error:?}"), "Io: the storage stopped (injected)");
            assert_eq!(storage.get("a").unwrap_err().kind(), ErrorKind::Io, "a stopped storage reads nothing");
            assert_eq!(storage.list("").unwrap_err().kind(), ErrorKind::Io, "nor lists");
            assert!(storage.writer().is_err());
        } else {
            assert_eq!(storage.changes(), 6);
        }
        let left = memory.snapshot().into_iter();
        left.map(|(name, bytes)| format!("{name}={}", String::from_utf8_lossy(&bytes))).collect()
    }

    #[test]
    fn a_crash_stops_at_the_kth_change_and_leaves_what_came_before() {
        assert_eq!(left_by(Plan::none()), ["a=aaaa", "c=cccc", "d=dddd"]);
        assert_eq!(left_by(Plan::crash_at(7)), ["a=aaaa", "c=cccc", "d=dddd"]);
        assert_eq!(left_by(Plan::crash_at(1)), ["c=old"]);
        assert_eq!(left_by(Plan::crash_at(2)), ["a=aaaa", "c=old"]);
        assert_eq!(left_by(Plan::crash_at(6)), ["a=aaaa", "b=bbbb", "c=cccc", "d=dddd"]);
    }

    #[test]
    fn the_interrupted_change_is_lost_torn_or_done() {
        assert_eq!(left_by(Plan::crash_at(2).last(LastChange::Lost)), ["a=aaaa", "c=old"]);
        assert_eq!(left_by(Plan::crash_at(2).last(LastChange::Torn)), ["a=aaaa", "b=bb", "c=old"]);
        assert_eq!(left_by(Plan::crash_at(2).last(LastChange::Done)), ["a=aaaa", "b=bbbb", "c=old"]);
        assert_eq!(left_by(Plan::crash_at(6).last(LastChange::Torn)), ["a=aaaa", "b=bbbb", "c=cccc", "d=dddd"]);
        assert_eq!(left_by(Plan::crash_at(6).last(LastChange::Done)), ["a=aaaa", "c=cccc", "d=dddd"]);
    }

    #[test]
    fn a_loss_of_power_takes_what_no_barrier_followed() {
        let all = |k| Plan::crash_at(k).power(PowerLoss::TakesAll);
        assert_eq!(left_by(all(3)), ["c=old"]);
        assert_eq!(left_by(all(3).last(LastChange::Done)), ["a=aaaa", "b=bbbb", "c=old"], "the barrier was done");
        assert_eq!(left_by(all(6)), ["a=aaaa", "b=bbbb", "c=old"]);
        assert_eq!(left_by(all(6).last(LastChange::Done)), ["a=aaaa", "c=old"], "deletes last");
    }

    #[test]
    fn a_loss_of_power_may_keep_a_put_that_overtook_the_others() {
        let newest = |k| Plan::crash_at(k).power(PowerLoss::KeepsNewest);
        assert_eq!(left_by(newest(2).last(LastChange::Done)), ["b=bbbb", "c=old"]);
        assert_eq!(left_by(newest(2).last(LastChange::Torn)), ["b=bb", "c=old"]);
        assert_eq!(left_by(newest(3)), ["b=bbbb", "c=old"]);
        assert_eq!(left_by(newest(4).last(LastChange::Done)), ["a=aaaa", "b=bbbb", "c=cccc"]);
        assert_eq!(left_by(newest(5).last(LastChange::Done)), ["a=aaaa", "b=bbbb", "c=old", "d=dddd"]);
    }

    #[test]
    fn a_loss_of_power_takes_back_a_name_changed_twice_in_the_right_order() {
        let left_by = |power| {
            let memory = Memory::new();
            memory.put("a", b"old", WriteMode::CreateNew).unwrap();
            memory.put("b", b"old", WriteMode::CreateNew).unwrap();
            let storage = Faulty::new(Arc::new(memory.clone()), Plan::crash_at(6).power(power));
            for bytes in [b"1st", b"2nd"] {
                storage.put("b", bytes, WriteMode::Replace).unwrap();
            }
            storage.delete("b").unwrap();
            for bytes in [b"1st", b"2nd"] {
                storage.put("a", bytes, WriteMode::Replace).unwrap();
            }
            assert_eq!(storage.barrier().unwrap_err().to_string(), stop().to_string());
            memory.snapshot()
        };
        assert_eq!(left_by(PowerLoss::TakesAll), [("a".to_owned(), b"old".as_slice().into())].into());
        assert_eq!(left_by(PowerLoss::KeepsNewest), [("a".to_owned(), b"2nd".as_slice().into())].into());
    }

    #[test]
    fn a_chosen_call_fails_as_told_and_changes_nothing() {
        let memory = Memory::new();
        let plan = Plan::none().failing(Operation::Put, "packs/", 2, ErrorKind::Full).failing_from(
            Operation::List,
            "",
            2,
            ErrorKind::Transient,
        );
        let storage = Faulty::new(Arc::new(memory.clone()), plan);
        let put = |name| storage.put(name, b"x", WriteMode::CreateNew).map_err(|error| error.kind());
        assert_eq!(put("packs/1"), Ok(()));
        assert_eq!(put("index/1"), Ok(()));
        assert_eq!(put("packs/2"), Err(ErrorKind::Full));
        assert_eq!(put("packs/3"), Ok(()));
        assert!(memory.stat("packs/2").is_err());
        assert!(storage.list("packs/").is_ok());
        assert_eq!(storage.list("").unwrap_err().kind(), ErrorKind::Transient);
        assert_eq!(storage.list("").unwrap_err().kind(), ErrorKind::Transient);
        assert_eq!(storage.changes(), 4);
        storage.arm(Plan::none());
        assert_eq!((storage.list("").unwrap().len(), storage.changes()), (3, 0));
    }
}
