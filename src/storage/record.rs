//! A wrapper that remembers every call, so that tests assert what an operation costs.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ErrorKind, Listed, ObjectWriter, Result, Storage, WriteMode};

/// The calls a storage understands. A writer's finish is a [`Operation::Put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// A whole object was put, at once or through a writer.
    Put,
    /// A whole object was read.
    Get,
    /// A part of an object was read.
    GetRange,
    /// Names were listed.
    List,
    /// A length was asked for.
    Stat,
    /// An object was removed.
    Delete,
    /// Everything put was made durable.
    Barrier,
}

/// A call that has returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub operation: Operation,
    /// The object, or the prefix of a list; empty for a barrier.
    pub name: String,
    /// Bytes of objects that went over the wire, either way; of a failed read, none.
    pub bytes: u64,
    /// How it failed, if it did.
    pub error: Option<ErrorKind>,
}

/// Passes every call through and remembers it. A clone shares the memory.
#[derive(Clone)]
pub struct Recording {
    inner: Arc<dyn Storage>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Recording {
    /// Begins with nothing recorded.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, calls: Arc::default() }
    }

    /// Every call so far, in the order they returned.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// The names of the objects put, in the order their puts succeeded.
    pub fn puts(&self) -> Vec<String> {
        self.names(Operation::Put)
    }

    /// The names (or prefixes) of the successful calls of one sort.
    pub fn names(&self, operation: Operation) -> Vec<String> {
        let calls = self.lock();
        let wanted = calls.iter().filter(|call| call.operation == operation && call.error.is_none());
        wanted.map(|call| call.name.clone()).collect()
    }

    /// Forgets the calls so far.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a call that returned `result` and moved `bytes`.
    fn note<T>(&self, operation: Operation, name: &str, bytes: u64, result: Result<T>) -> Result<T> {
        let error = result.as_ref().err().map(|error| error.kind());
        self.lock().push(Call { operation, name: name.to_owned(), bytes, error });
        result
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recording({:?}, {} calls)", self.inner, self.lock().len())
    }
}

fn length(result: &Result<Vec<u8>>) -> u64 {
    result.as_ref().map_or(0, |bytes| bytes.len() as u64)
}

impl Storage for Recording {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        self.note(Operation::Put, name, bytes.len() as u64, self.inner.put(name, bytes, mode))
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(RecordingWriter { inner: self.inner.writer()?, recording: self.clone(), bytes: 0 }))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        let result = self.inner.get(name);
        self.note(Operation::Get, name, length(&result), result)
    }

    fn get_range(&self, name: &str, offset: u64, length_bytes: u64) -> Result<Vec<u8>> {
        let result = self.inner.get_range(name, offset, length_bytes);
        self.note(Operation::GetRange, name, length(&result), result)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.note(Operation::List, prefix, 0, self.inner.list(prefix))
    }

    fn stat(&self, name: &str) -> Result<u64> {
        self.note(Operation::Stat, name, 0, self.inner.stat(name))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.note(Operation::Delete, name, 0, self.inner.delete(name))
    }

    fn barrier(&self) -> Result<()> {
        self.note(Operation::Barrier, "", 0, self.inner.barrier())
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

struct RecordingWriter {
    inner: Box<dyn ObjectWriter>,
    recording: Recording,
    bytes: u64,
}

impl ObjectWriter for RecordingWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>, name: &str, mode: WriteMode) -> Result<()> {
        let result = self.inner.finish(name, mode);
        self.recording.note(Operation::Put, name, self.bytes, result)
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::*;

    #[test]
    fn calls_are_remembered_with_what_they_moved_and_how_they_failed() {
        let storage = Recording::new(Arc::new(Memory::new()));
        storage.put("a", b"12345", WriteMode::CreateNew).unwrap();
        storage.put("a", b"12", WriteMode::CreateNew).unwrap_err();
        let mut writer = storage.writer().unwrap();
        writer.write(b"123").unwrap();
        writer.write(b"4").unwrap();
        writer.finish("b", WriteMode::CreateNew).unwrap();
        drop(storage.writer().unwrap());
        storage.get_range("a", 1, 2).unwrap();
        storage.get("c").unwrap_err();
        storage.list("packs/").unwrap();
        storage.barrier().unwrap();

        let seen: Vec<_> = storage.calls().into_iter().map(|c| (c.operation, c.name, c.bytes, c.error)).collect();
        let call = |operation, name: &str, bytes, error| (operation, name.to_owned(), bytes, error);
        let expected = [
            call(Operation::Put, "a", 5, None),
            call(Operation::Put, "a", 2, Some(ErrorKind::Exists)),
            call(Operation::Put, "b", 4, None),
            call(Operation::GetRange, "a", 2, None),
            call(Operation::Get, "c", 0, Some(ErrorKind::NotFound)),
            call(Operation::List, "packs/", 0, None),
            call(Operation::Barrier, "", 0, None),
        ];
        assert_eq!(seen, expected);
        assert_eq!(storage.puts(), ["a", "b"]);
        storage.clear();
        assert!(storage.calls().is_empty());
    }
}
