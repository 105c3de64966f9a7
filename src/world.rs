//! What a program takes from outside: the time and randomness, as values, so that tests repeat.
//!
//! Nothing else in the crate reads a clock or the system's random source. Under a seeded
//! [`World`] a whole backup makes the same bytes every time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A moment: seconds since 1970 UTC, negative before it, and nanoseconds below a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 1,000,000,000.
    pub nanos: u32,
}

impl Time {
    /// A whole second.
    pub const fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }

    /// Seconds from `earlier` to this, fractions dropped; negative when this is before it.
    pub fn secs_since(self, earlier: Time) -> i64 {
        self.secs.saturating_sub(earlier.secs)
    }

    /// The moment `secs` later (or earlier, when negative).
    pub fn plus_secs(self, secs: i64) -> Self {
        Self { secs: self.secs.saturating_add(secs), nanos: self.nanos }
    }
}

/// Tells the time and lets it pass.
pub trait Clock: Send + Sync {
    /// The wall-clock time. Clocks may jump; nothing's safety rests on them.
    fn now(&self) -> Time;

    /// How long it is since some moment that stays the same. Never goes back.
    fn monotonic(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    /// Returns when that much time has passed.
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// Gives random bytes fit for keys.
pub trait Rng: Send + Sync {
    /// Fills `buf`.
    fn fill(&self, buf: &mut [u8]);
}

/// A clock and a random source.
#[derive(Clone)]
pub struct World {
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl World {
    /// The real clock and the operating system's random source.
    pub fn system() -> Self {
        Self::new(Arc::new(SystemClock), Arc::new(SystemRng))
    }

    /// Any clock with any random source.
    pub fn new(clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Self {
        Self { clock, rng }
    }

    /// A world that repeats: a clock that starts at 2001-02-03 04:05:06 UTC and moves one
    /// second at each look, and randomness from `seed`. For tests and vectors only.
    pub fn seeded(seed: u64) -> Self {
        Self::new(Arc::new(SteppingClock(AtomicU64::new(981_173_106))), Arc::new(SeededRng::new(seed)))
    }

    /// The real clock with randomness from `seed`. For tests only.
    pub fn seeded_now(seed: u64) -> Self {
        Self::new(Arc::new(SystemClock), Arc::new(SeededRng::new(seed)))
    }

    /// The wall-clock time.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// How long it is since some moment that stays the same.
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Returns when that much time has passed.
    pub fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration);
    }

    /// `N` random bytes fit for keys.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// Random bytes fit for keys, written where they stay.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.rng.fill(bytes);
    }
}

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Time { secs: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
    }
}

struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, buf: &mut [u8]) {
        // There is no safe way on without randomness, and Linux has it once booted.
        getrandom::fill(buf).expect("the operating system gives random bytes");
    }
}

struct SteppingClock(AtomicU64);

impl Clock for SteppingClock {
    fn now(&self) -> Time {
        Time::from_secs(self.0.fetch_add(1, Ordering::Relaxed).cast_signed())
    }
}

struct SeededRng(Mutex<blake3::OutputReader>);

impl SeededRng {
    fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("esker test randomness");
        hasher.update(&seed.to_le_bytes());
        Self(Mutex::new(hasher.finalize_xof()))
    }
}

impl Rng for SeededRng {
    fn fill(&self, buf: &mut [u8]) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fill(buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_world_repeats_and_a_system_world_does_not() {
        assert_eq!(World::seeded(7).random::<32>(), World::seeded(7).random::<32>());
        assert_ne!(World::seeded(7).random::<32>(), World::seeded(8).random::<32>());
        let world = World::system();
        assert_ne!(world.random::<32>(), world.random::<32>());
        assert!(world.now().secs > 1_700_000_000);
    }
}
