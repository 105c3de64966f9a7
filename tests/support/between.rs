//! A storage that lets something else happen between two of its calls.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use esker::storage::{Listed, ObjectWriter, Result, Storage, WriteMode};

type Hook = Box<dyn FnOnce() + Send>;

/// Calls a hook once, just before the k-th call of any kind, counted from 0. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Between {
    inner: Arc<dyn Storage>,
    calls: Arc<AtomicU64>,
    hook: Arc<Mutex<Option<(u64, Hook)>>>,
}

impl Between {
    /// Only counts.
    pub(crate) fn counting(inner: Arc<dyn Storage>) -> Self {
        Self { inner, calls: Arc::default(), hook: Arc::default() }
    }

    pub(crate) fn new(inner: Arc<dyn Storage>, k: u64, hook: impl FnOnce() + Send + 'static) -> Self {
        Self { hook: Arc::new(Mutex::new(Some((k, Box::new(hook))))), ..Self::counting(inner) }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn count(&self) {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let due = {
            let mut hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner);
            if hook.as_ref().is_some_and(|(k, _)| *k <= call) { hook.take() } else { None }
        };
        if let Some((_, hook)) = due {
            hook();
        }
    }
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Between({:?})", self.inner)
    }
}

impl Storage for Between {
    fn place(&self) -> String {
        self.inner.place()
    }
    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        self.count();
        self.inner.put(name, bytes, mode)
    }
    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(BetweenWriter { inner: self.inner.writer()?, storage: self.clone() }))
    }
    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.count();
        self.inner.get(name)
    }
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.count();
        self.inner.get_range(name, offset, length)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.count();
        self.inner.list(prefix)
    }
    fn stat(&self, name: &str) -> Result<u64> {
        self.count();
        self.inner.stat(name)
    }
    fn delete(&self, name: &str) -> Result<()> {
        self.count();
        self.inner.delete(name)
    }
    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }
    fn cover(&self, name: &str) -> Result<()> {
        self.inner.cover(name)
    }
}

struct BetweenWriter {
    inner: Box<dyn ObjectWriter>,
    storage: Between,
}

impl ObjectWriter for BetweenWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write(bytes)
    }
    fn finish(self: Box<Self>, name: &str, mode: WriteMode) -> Result<()> {
        self.storage.count();
        self.inner.finish(name, mode)
    }
}
