//! A wrapper that keeps any storage within a bandwidth, each way by itself.
//!
//! [`Bucket`] is the arithmetic: whoever takes bytes waits as long as they and all that were
//! taken before need at the allowed rate. A put waits before it is sent and a read after it was
//! received, so requests run at the network's speed, none takes longer for it, and the average
//! over any longer time is the rate. A little unused time is kept: short pauses are made up for.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Listed, ObjectWriter, Result, Storage, WriteMode};

/// How much unused time is made up for.
const BURST: Duration = Duration::from_millis(250);

/// How long to wait before the next bytes may pass.
#[derive(Debug)]
pub struct Bucket {
    bytes_per_sec: u64,
    /// When all that was taken is paid back, counted from the bucket's beginning.
    paid_at: Duration,
}

impl Bucket {
    /// Begins with all that it may have saved.
    pub fn new(bytes_per_sec: u64) -> Self {
        Self { bytes_per_sec: bytes_per_sec.max(1), paid_at: Duration::ZERO }
    }

    /// Takes `bytes` at the time `now`, counted from the bucket's beginning; gives how long to
    /// wait after they passed.
    pub fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_sec);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.paid_at = self.paid_at.max(now.saturating_sub(BURST)).saturating_add(cost);
        self.paid_at.saturating_sub(now)
    }
}

/// One direction, shared by all handles.
struct Gate {
    bucket: Option<Mutex<Bucket>>,
    began: Instant,
}

impl Gate {
    fn new(bytes_per_sec: Option<u64>) -> Self {
        Self { bucket: bytes_per_sec.map(|rate| Mutex::new(Bucket::new(rate))), began: Instant::now() }
    }

    /// Waits until that many bytes are paid for.
    fn pass(&self, bytes: u64) {
        let Some(bucket) = &self.bucket else { return };
        let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, self.began.elapsed());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }
}

/// A storage within a bandwidth. A clone shares it.
#[derive(Clone)]
pub struct Throttled {
    inner: Arc<dyn Storage>,
    up: Arc<Gate>,
    down: Arc<Gate>,
}

impl Throttled {
    /// Lets at most that many bytes a second out and in; without a number, all there are.
    pub fn new(inner: Arc<dyn Storage>, upload: Option<u64>, download: Option<u64>) -> Self {
        Self { inner, up: Arc::new(Gate::new(upload)), down: Arc::new(Gate::new(download)) }
    }

    fn read(&self, result: Result<Vec<u8>>) -> Result<Vec<u8>> {
        let bytes = result?;
        self.down.pass(bytes.len() as u64);
        Ok(bytes)
    }
}

impl fmt::Debug for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Throttled({:?})", self.inner)
    }
}

impl Storage for Throttled {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        // Before, so that no put is under way longer than the storage needs for it.
        self.up.pass(bytes.len() as u64);
        self.inner.put(name, bytes, mode)
    }

    fn put_shared(&self, name: &str, bytes: &Arc<Vec<u8>>, mode: WriteMode) -> Result<()> {
        self.up.pass(bytes.len() as u64);
        self.inner.put_shared(name, bytes, mode)
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(ThrottledWriter { inner: self.inner.writer()?, up: self.up.clone() }))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.read(self.inner.get(name))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.read(self.inner.get_range(name, offset, length))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let listed = self.inner.list(prefix)?;
        self.down.pass(listed.iter().map(|object| object.name.len() as u64).sum());
        Ok(listed)
    }

    fn stat(&self, name: &str) -> Result<u64> {
        self.inner.stat(name)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name)
    }

    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }

    fn cover(&self, name: &str) -> Result<()> {
        self.inner.cover(name)
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

struct ThrottledWriter {
    inner: Box<dyn ObjectWriter>,
    up: Arc<Gate>,
}

impl ObjectWriter for ThrottledWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.up.pass(bytes.len() as u64);
        self.inner.write(bytes)
    }

    fn finish(self: Box<Self>, name: &str, mode: WriteMode) -> Result<()> {
        self.inner.finish(name, mode)
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_average_is_the_rate_whatever_the_sizes() {
        for sizes in [vec![1_u64; 4000], vec![1000; 4], vec![3999, 1], vec![1, 3999]] {
            let (mut bucket, mut now) = (Bucket::new(1000), Duration::ZERO);
            for size in sizes {
                now += bucket.take(size, now);
            }
            assert!((4 * SECOND - BURST..=4 * SECOND).contains(&now), "{now:?}");
        }
    }

    #[test]
    fn takers_at_the_same_time_wait_for_each_other() {
        let mut bucket = Bucket::new(1000);
        let waits = [bucket.take(1000, SECOND), bucket.take(1000, SECOND), bucket.take(0, SECOND)];
        assert_eq!(waits, [SECOND - BURST, 2 * SECOND - BURST, 2 * SECOND - BURST]);
    }

    #[test]
    fn unused_time_is_kept_for_a_moment_only() {
        let mut bucket = Bucket::new(1000);
        bucket.take(250, Duration::ZERO);
        assert_eq!(bucket.take(1000, 3600 * SECOND), SECOND - BURST);
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let mut bucket = Bucket::new(0);
        assert!(bucket.take(u64::MAX, SECOND) > SECOND);
        assert!(bucket.take(u64::MAX, SECOND) > SECOND);
    }

    /// At a rate no machine reaches, nothing waits, and every call still arrives.
    #[test]
    fn calls_pass_through() {
        let storage = Throttled::new(Arc::new(Memory::new()), Some(u64::MAX), Some(u64::MAX));
        storage.put("a", b"12345", WriteMode::CreateNew).unwrap();
        let mut writer = storage.writer().unwrap();
        writer.write(b"123").unwrap();
        writer.finish("b", WriteMode::CreateNew).unwrap();
        assert_eq!(storage.get("a").unwrap(), b"12345");
        assert_eq!(storage.get_range("b", 1, 2).unwrap(), b"23");
        assert_eq!(storage.list("").unwrap().len(), 2);
        assert_eq!((storage.stat("a").unwrap(), storage.connections()), (5, 1));
        storage.barrier().unwrap();
        storage.delete("a").unwrap();
    }
}
