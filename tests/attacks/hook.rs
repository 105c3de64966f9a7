//! A storage that tells somebody of every call before it answers: a race won each time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use esker::storage::{Listed, ObjectWriter, Result, Storage, WriteMode};

type Hook = Box<dyn Fn(&str) + Send + Sync>;

pub(crate) struct Hooked {
    inner: Arc<dyn Storage>,
    hook: Hook,
    armed: Arc<AtomicBool>,
}

impl Hooked {
    pub(crate) fn new(inner: Arc<dyn Storage>, hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { inner, hook: Box::new(hook), armed: Arc::default() }
    }

    /// Nobody is told of anything before this is set.
    pub(crate) fn armed(&self) -> Arc<AtomicBool> {
        self.armed.clone()
    }

    fn tell(&self, name: &str) {
        if self.armed.load(Ordering::Relaxed) {
            (self.hook)(name);
        }
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooked({:?})", self.inner)
    }
}

impl Storage for Hooked {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        self.tell(name);
        self.inner.put(name, bytes, mode)
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        self.tell("");
        self.inner.writer()
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.tell(name);
        self.inner.get(name)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.tell(name);
        self.inner.get_range(name, offset, length)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.tell(prefix);
        self.inner.list(prefix)
    }

    fn stat(&self, name: &str) -> Result<u64> {
        self.tell(name);
        self.inner.stat(name)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.tell(name);
        self.inner.delete(name)
    }

    fn barrier(&self) -> Result<()> {
        self.tell("");
        self.inner.barrier()
    }

    fn cover(&self, name: &str) -> Result<()> {
        self.inner.cover(name)
    }
}
