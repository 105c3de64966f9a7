//! `-vv`: every call of the storage as a line, with how long it took.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::console::Console;
use super::text;
use crate::monitor::Severity;
use crate::storage::{Listed, ObjectWriter, Result, Storage, WriteMode};

/// Passes every call through and tells of it.
pub(super) struct Traced {
    inner: Arc<dyn Storage>,
    console: Arc<Console>,
}

impl fmt::Debug for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Traced {
    pub(super) fn new(inner: Arc<dyn Storage>, console: Arc<Console>) -> Self {
        Self { inner, console }
    }

    /// Makes a call and tells how it went; `what` says in a word what came of it.
    fn tell<T>(
        &self,
        call: &str,
        name: &str,
        run: impl FnOnce(&dyn Storage) -> Result<T>,
        what: impl FnOnce(&T) -> String,
    ) -> Result<T> {
        let began = Instant::now();
        let result = run(&*self.inner);
        say(&self.console, call, name, &result, what, began);
        result
    }
}

fn say<T>(
    console: &Console,
    call: &str,
    name: &str,
    result: &Result<T>,
    what: impl FnOnce(&T) -> String,
    began: Instant,
) {
    let what = match result {
        Ok(value) => what(value),
        Err(error) => error.to_string(),
    };
    let took = text::duration(began.elapsed());
    let parts = [call, name, &what].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    console.remark(Severity::Note, &format!("storage: {parts} in {took}"));
}

fn nothing<T>(_: &T) -> String {
    String::new()
}

impl Storage for Traced {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        let size = text::bytes(bytes.len() as u64);
        self.tell("put", name, |inner| inner.put(name, bytes, mode), |()| size)
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        let inner = self.inner.writer()?;
        Ok(Box::new(Writer { inner, console: self.console.clone(), began: Instant::now(), bytes: 0 }))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.tell("get", name, |inner| inner.get(name), |bytes| text::bytes(bytes.len() as u64))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let what = |_: &Vec<u8>| format!("{} from {offset}", text::bytes(length));
        self.tell("get", name, |inner| inner.get_range(name, offset, length), what)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let what = |list: &Vec<Listed>| text::count(list.len() as u64, "object", "objects");
        self.tell("list", prefix, |inner| inner.list(prefix), what)
    }

    fn stat(&self, name: &str) -> Result<u64> {
        self.tell("stat", name, |inner| inner.stat(name), |bytes| text::bytes(*bytes))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.tell("delete", name, |inner| inner.delete(name), nothing)
    }

    fn barrier(&self) -> Result<()> {
        self.tell("barrier", "", |inner| inner.barrier(), nothing)
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

struct Writer {
    inner: Box<dyn ObjectWriter>,
    console: Arc<Console>,
    began: Instant,
    bytes: u64,
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.inner.write(bytes)
    }

    fn finish(self: Box<Self>, name: &str, mode: WriteMode) -> Result<()> {
        let Self { inner, console, began, bytes } = *self;
        let result = inner.finish(name, mode);
        say(&console, "put", name, &result, |()| text::bytes(bytes), began);
        result
    }
}
