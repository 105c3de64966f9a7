//! A wrapper that tries again what may be tried again.
//!
//! Only [`ErrorKind::Transient`] and [`ErrorKind::Throttled`] are, after a pause that doubles
//! and is partly random, so that many machines that failed together do not come back together.
//! Attempts and time are bounded; until the storage has answered once, tightly: a wrong address
//! should be told at once and not after minutes.
//!
//! A request whose answer was lost may have been carried out. So after a retry a create that
//! finds its object there reads it back, and equal bytes are success; a delete that finds
//! nothing has done its work.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::memory::BufferedWriter;
use super::{Error, ErrorKind, Listed, ObjectWriter, Result, Storage, WriteMode};
use crate::world::World;

/// What retrying takes from outside.
pub trait Pace: Send + Sync {
    /// The time since some fixed moment.
    fn now(&self) -> Duration;

    /// Waits that long.
    fn sleep(&self, time: Duration);

    /// A random number.
    fn random(&self) -> u64;
}

/// The real clock, real sleep and real randomness.
struct RealPace {
    began: Instant,
    world: World,
}

impl Pace for RealPace {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn random(&self) -> u64 {
        u64::from_le_bytes(self.world.random())
    }
}

/// How often and how long.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Tries after the first.
    pub retries: u32,
    /// Tries after the first while the storage has never answered.
    pub retries_at_first: u32,
    /// The first pause; each next one is twice as long.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// No try begins later than this after the first began.
    pub time_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retries: 8,
            retries_at_first: 3,
            pause: Duration::from_millis(250),
            pause_max: Duration::from_secs(30),
            time_max: Duration::from_secs(15 * 60),
        }
    }
}

/// A storage whose passing troubles are not seen. A clone is another handle.
#[derive(Clone)]
pub struct Retrying {
    inner: Arc<dyn Storage>,
    policy: Policy,
    pace: Arc<dyn Pace>,
    answered: Arc<AtomicBool>,
    /// The last call that tried to the end got no answer: until one does, calls are tried once, so
    /// that work on many objects ends soon after the storage did.
    gave_up: Arc<AtomicBool>,
}

impl fmt::Debug for Retrying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retrying({:?})", self.inner)
    }
}

impl Retrying {
    /// Wraps a storage, waiting for real.
    pub fn new(inner: Arc<dyn Storage>, policy: Policy) -> Self {
        Self::paced(inner, policy, Arc::new(RealPace { began: Instant::now(), world: World::system() }))
    }

    /// Wraps a storage, waiting as `pace` does.
    pub fn paced(inner: Arc<dyn Storage>, policy: Policy, pace: Arc<dyn Pace>) -> Self {
        Self { inner, policy, pace, answered: Arc::default(), gave_up: Arc::default() }
    }

    /// Calls until it succeeds, fails for good, or has failed too often. `call` learns how many
    /// tries there were before.
    fn again<T>(&self, mut call: impl FnMut(u32) -> Result<T>) -> Result<T> {
        let began = self.pace.now();
        let mut tries = 0;
        loop {
            let error = match call(tries) {
                Ok(value) => {
                    self.answered.store(true, Ordering::Relaxed);
                    self.gave_up.store(false, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::Throttled => self.answered.store(true, Ordering::Relaxed),
                ErrorKind::Transient => {}
                ErrorKind::NotFound | ErrorKind::Exists => {
                    self.answered.store(true, Ordering::Relaxed);
                    self.gave_up.store(false, Ordering::Relaxed);
                    return Err(error);
                }
                _ => return Err(error),
            }
            let answered = self.answered.load(Ordering::Relaxed);
            let most = match answered {
                _ if self.gave_up.load(Ordering::Relaxed) => 0,
                true => self.policy.retries,
                false => self.policy.retries_at_first.min(self.policy.retries),
            };
            let pause = self.pause(tries);
            tries += 1;
            if tries > most || self.pace.now().saturating_sub(began) + pause > self.policy.time_max {
                self.gave_up.store(true, Ordering::Relaxed);
                return Err(match tries {
                    1 => error,
                    _ => given_up(tries, error),
                });
            }
            self.pace.sleep(pause);
        }
    }

    /// The pause after so many tries: half of it certain, half random.
    fn pause(&self, tries: u32) -> Duration {
        let whole = self.policy.pause.saturating_mul(1 << tries.min(16)).min(self.policy.pause_max);
        whole / 2 + (whole / 2).mul_f64((self.pace.random() % 1024) as f64 / 1024.0)
    }

    /// Puts until it succeeds, and finds out about its own earlier tries.
    fn put_again(&self, name: &str, bytes: &[u8], put: impl Fn() -> Result<()>) -> Result<()> {
        let mut tries = 0;
        let result = self.again(|before| {
            tries = before;
            put()
        });
        match result {
            Err(error) if error.kind() == ErrorKind::Exists && tries > 0 => match self.holds(name, bytes)? {
                true => Ok(()),
                false => Err(error),
            },
            result => result,
        }
    }

    /// Whether an object holds these bytes. An error of asking is an error.
    fn holds(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        self.again(|_| self.inner.get(name)).map(|found| found == bytes)
    }
}

/// The last error, with how often it was tried.
fn given_up(tries: u32, error: Error) -> Error {
    let hint = error.hint_text().map(str::to_owned);
    let given_up = Error::new(error.kind(), format!("given up after {tries} tries")).because(error);
    match hint {
        Some(hint) => given_up.hint(hint),
        None => given_up,
    }
}

impl Storage for Retrying {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        self.put_again(name, bytes, || self.inner.put(name, bytes, mode))
    }

    fn put_shared(&self, name: &str, bytes: &Arc<Vec<u8>>, mode: WriteMode) -> Result<()> {
        self.put_again(name, bytes, || self.inner.put_shared(name, bytes, mode))
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        // What was written must be at hand for a second try.
        Ok(Box::new(BufferedWriter::new(self.clone())))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.again(|_| self.inner.get(name))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.again(|_| self.inner.get_range(name, offset, length))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.again(|_| self.inner.list(prefix))
    }

    fn stat(&self, name: &str) -> Result<u64> {
        self.again(|_| self.inner.stat(name))
    }

    fn delete(&self, name: &str) -> Result<()> {
        let mut tries = 0;
        let result = self.again(|before| {
            tries = before;
            self.inner.delete(name)
        });
        match result {
            Err(error) if error.kind() == ErrorKind::NotFound && tries > 0 => Ok(()),
            result => result,
        }
    }

    fn barrier(&self) -> Result<()> {
        self.again(|_| self.inner.barrier())
    }

    fn cover(&self, name: &str) -> Result<()> {
        self.again(|_| self.inner.cover(name))
    }

    fn connections(&self) -> usize {
        self.inner.connections()
    }

    fn caveat(&self) -> Result<Option<String>> {
        self.inner.caveat()
    }

    fn local_directory(&self) -> Option<&Path> {
        self.inner.local_directory()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::fault::{Faulty, Plan};
    use super::super::memory::Memory;
    use super::super::record::{Operation, Recording};
    use super::*;

    /// Time that passes only by sleeping, and randomness that is always the most.
    #[derive(Default)]
    struct FakePace(Mutex<Vec<Duration>>);

    impl FakePace {
        fn slept(&self) -> Vec<Duration> {
            self.0.lock().unwrap().clone()
        }
    }

    impl Pace for FakePace {
        fn now(&self) -> Duration {
            self.slept().iter().sum()
        }

        fn sleep(&self, time: Duration) {
            self.0.lock().unwrap().push(time);
        }

        fn random(&self) -> u64 {
            0
        }
    }

    /// A memory that fails as planned below one that retries, and the calls that reached it.
    struct Scene {
        memory: Memory,
        calls: Recording,
        pace: Arc<FakePace>,
        storage: Retrying,
    }

    fn scene(plan: Plan) -> Scene {
        let memory = Memory::new();
        let calls = Recording::new(Arc::new(Faulty::new(Arc::new(memory.clone()), plan)));
        let pace = Arc::new(FakePace::default());
        let policy = Policy { retries: 4, ..Policy::default() };
        let storage = Retrying::paced(Arc::new(calls.clone()), policy, pace.clone());
        Scene { memory, calls, pace, storage }
    }

    fn tries(scene: &Scene, operation: Operation) -> usize {
        scene.calls.calls().iter().filter(|call| call.operation == operation).count()
    }

    #[test]
    fn passing_troubles_of_every_call_are_not_seen() {
        let every = [
            Operation::Put,
            Operation::Get,
            Operation::GetRange,
            Operation::List,
            Operation::Stat,
            Operation::Barrier,
            Operation::Delete,
        ];
        for kind in [ErrorKind::Transient, ErrorKind::Throttled] {
            let plan = every.iter().fold(Plan::none(), |plan, operation| plan.failing(*operation, "", 1, kind));
            let scene = scene(plan);
            let storage = &scene.storage;
            storage.put("a", b"12345", WriteMode::CreateNew).unwrap();
            assert_eq!(storage.get("a").unwrap(), b"12345");
            assert_eq!(storage.get_range("a", 1, 2).unwrap(), b"23");
            assert_eq!(storage.list("").unwrap().len(), 1);
            assert_eq!(storage.stat("a").unwrap(), 5);
            storage.barrier().unwrap();
            storage.delete("a").unwrap();
            assert!(every.iter().all(|operation| tries(&scene, *operation) == 2));
            assert_eq!(scene.pace.slept().len(), every.len());
        }
    }

    /// A restore of many files from a storage that fell silent must not wait for each of them as long
    /// as for the first.
    #[test]
    fn once_a_call_was_given_up_the_next_are_tried_once_until_one_is_answered() {
        // The first two calls of five tries and one, then one that is answered, then five tries again.
        let mut plan = Plan::none();
        for nth in (1..=6).chain(8..=12) {
            plan = plan.failing(Operation::Get, "a", nth, ErrorKind::Transient);
        }
        let scene = scene(plan);
        scene.storage.put("a", b"1", WriteMode::CreateNew).unwrap();
        let tries_of = |good: bool| {
            let before = tries(&scene, Operation::Get);
            assert_eq!(scene.storage.get("a").is_ok(), good);
            tries(&scene, Operation::Get) - before
        };
        assert_eq!(tries_of(false), 5);
        assert_eq!(tries_of(false), 1);
        assert_eq!(tries_of(true), 1);
        assert_eq!(tries_of(false), 5);
    }

    #[test]
    fn what_will_not_change_is_not_tried_again() {
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::Exists,
            ErrorKind::Denied,
            ErrorKind::Corrupt,
            ErrorKind::Full,
            ErrorKind::Io,
        ] {
            let scene = scene(Plan::none().failing_from(Operation::Get, "", 1, kind));
            assert_eq!(scene.storage.get("a").unwrap_err().kind(), kind);
            assert_eq!((tries(&scene, Operation::Get), scene.pace.slept().len()), (1, 0));
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_tries_end() {
        let scene = scene(Plan::none().failing_from(Operation::Get, "", 1, ErrorKind::Throttled));
        let error = scene.storage.get("a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled);
        assert_eq!(error.to_string(), "given up after 5 tries");
        let half = Duration::from_millis(125);
        assert_eq!(scene.pace.slept(), [half, 2 * half, 4 * half, 8 * half]);
        let policy = Policy { pause_max: 3 * half, retries: 100, time_max: 12 * half, ..Policy::default() };
        let pace = Arc::new(FakePace::default());
        let storage = Retrying::paced(Arc::new(scene.calls), policy, pace.clone());
        storage.get("a").unwrap_err();
        let bounded = half * 3 / 2;
        assert_eq!(pace.slept()[..3], [half, bounded, bounded]);
        assert!(pace.now() <= policy.time_max && pace.now() + bounded > policy.time_max);
    }

    #[test]
    fn a_storage_that_never_answered_is_given_up_sooner() {
        let scene = scene(Plan::none().failing_from(Operation::Get, "", 1, ErrorKind::Transient));
        scene.storage.get("a").unwrap_err();
        assert_eq!(tries(&scene, Operation::Get), 4);
        scene.storage.barrier().unwrap();
        scene.storage.get("a").unwrap_err();
        assert_eq!(tries(&scene, Operation::Get), 4 + 5);
    }

    /// Does what it is asked to do the first time and then says that it did not.
    #[derive(Debug)]
    struct LosesReplies {
        memory: Memory,
        lost: AtomicBool,
    }

    impl LosesReplies {
        fn lose<T>(&self, result: Result<T>) -> Result<T> {
            match self.lost.swap(true, Ordering::Relaxed) {
                true => result,
                false => Err(Error::new(ErrorKind::Transient, "connection reset")),
            }
        }
    }

    impl Storage for LosesReplies {
        fn place(&self) -> String {
            self.memory.place()
        }
        fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
            self.lose(self.memory.put(name, bytes, mode))
        }
        fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
            self.memory.writer()
        }
        fn get(&self, name: &str) -> Result<Vec<u8>> {
            self.memory.get(name)
        }
        fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
            self.memory.get_range(name, offset, length)
        }
        fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
            self.memory.list(prefix)
        }
        fn stat(&self, name: &str) -> Result<u64> {
            self.memory.stat(name)
        }
        fn delete(&self, name: &str) -> Result<()> {
            self.lose(self.memory.delete(name))
        }
        fn barrier(&self) -> Result<()> {
            self.memory.barrier()
        }
        fn cover(&self, name: &str) -> Result<()> {
            self.memory.cover(name)
        }
    }

    fn losing(memory: &Memory) -> Retrying {
        let inner = LosesReplies { memory: memory.clone(), lost: AtomicBool::new(false) };
        Retrying::paced(Arc::new(inner), Policy::default(), Arc::new(FakePace::default()))
    }

    #[test]
    fn a_create_whose_reply_was_lost_succeeds_if_the_bytes_are_ours() {
        let memory = Memory::new();
        losing(&memory).put("a", b"ours", WriteMode::CreateNew).unwrap();
        // The writer goes the same way.
        let mut writer = losing(&memory).writer().unwrap();
        writer.write(b"packed").unwrap();
        writer.finish("b", WriteMode::CreateNew).unwrap();
        assert_eq!(memory.get("b").unwrap(), b"packed");
        // Someone else's is not taken for ours, lost reply or not.
        let theirs = losing(&memory).put("a", b"other", WriteMode::CreateNew).unwrap_err();
        assert_eq!(theirs.kind(), ErrorKind::Exists);
        assert_eq!(memory.get("a").unwrap(), b"ours");
    }

    #[test]
    fn equal_bytes_there_before_are_a_refusal_if_no_reply_was_lost() {
        let scene = scene(Plan::none());
        scene.memory.put("a", b"x", WriteMode::CreateNew).unwrap();
        assert_eq!(scene.storage.put("a", b"x", WriteMode::CreateNew).unwrap_err().kind(), ErrorKind::Exists);
        assert_eq!(tries(&scene, Operation::Get), 0);
    }

    #[test]
    fn a_delete_whose_reply_was_lost_succeeds() {
        let memory = Memory::new();
        memory.put("a", b"x", WriteMode::CreateNew).unwrap();
        losing(&memory).delete("a").unwrap();
        assert!(memory.list("").unwrap().is_empty());
        let scene = scene(Plan::none());
        assert_eq!(scene.storage.delete("a").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
