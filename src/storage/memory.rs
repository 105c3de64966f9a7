//! A storage that is a map, for tests and for objects that are only passing through.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Error, ErrorKind, GET_BYTES_MAX, Listed, ObjectWriter, Result, Storage, WriteMode, name};

/// All objects of a storage and their bytes.
pub type Content = BTreeMap<String, Arc<[u8]>>;

/// Objects in memory. A clone is another handle onto the same objects.
#[derive(Clone, Default)]
pub struct Memory {
    objects: Arc<Mutex<Content>>,
}

impl Memory {
    /// An empty storage.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything in it now. Costs no copy of the bytes.
    pub fn snapshot(&self) -> Content {
        self.lock().clone()
    }

    /// Replaces everything in it, for every handle.
    pub fn restore(&self, content: Content) {
        *self.lock() = content;
    }

    /// A map is whole between any two calls, whatever panicked while it was locked.
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> Result<Arc<[u8]>> {
        name::check(name)?;
        self.lock().get(name).cloned().ok_or_else(|| Error::not_found(name))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} objects)", self.lock().len())
    }
}

impl Storage for Memory {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        name::check(name)?;
        let mut objects = self.lock();
        if mode == WriteMode::CreateNew && objects.contains_key(name) {
            return Err(Error::exists(name));
        }
        objects.insert(name.to_owned(), bytes.into());
        Ok(())
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(BufferedWriter::new(self.clone())))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        let bytes = self.find(name)?;
        refuse_to_read_whole(name, bytes.len() as u64)?;
        Ok(bytes.to_vec())
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let bytes = self.find(name)?;
        let range = || {
            let start = usize::try_from(offset).ok()?;
            bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
        };
        range().map(<[u8]>::to_vec).ok_or_else(|| too_short(name, offset, length, bytes.len() as u64))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        name::check_prefix(prefix)?;
        let objects = self.lock();
        let under = objects.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        Ok(under.map(|(name, bytes)| Listed { name: name.clone(), bytes: bytes.len() as u64 }).collect())
    }

    fn stat(&self, name: &str) -> Result<u64> {
        Ok(self.find(name)?.len() as u64)
    }

    fn delete(&self, name: &str) -> Result<()> {
        name::check(name)?;
        self.lock().remove(name).map(drop).ok_or_else(|| Error::not_found(name))
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn cover(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

/// Refuses an object that is too long to be read whole.
pub(super) fn refuse_to_read_whole(name: &str, bytes: u64) -> Result<()> {
    if bytes <= GET_BYTES_MAX {
        return Ok(());
    }
    let message =
        format!("object `{name}` is {bytes} bytes long, and nothing that is read whole has more than {GET_BYTES_MAX}");
    Err(Error::new(ErrorKind::Corrupt, message))
}

/// The error of a range that goes past the end of its object.
pub(super) fn too_short(name: &str, offset: u64, length: u64, found: u64) -> Error {
    let message = format!("object `{name}` is {found} bytes long, expected {length} bytes from {offset}");
    Error::new(ErrorKind::Corrupt, message)
}

/// Gathers an object in memory and puts it whole.
pub(super) struct BufferedWriter<S> {
    storage: S,
    bytes: Vec<u8>,
}

impl<S: Storage> BufferedWriter<S> {
    pub(super) fn new(storage: S) -> Self {
        Self { storage, bytes: Vec::new() }
    }
}

impl<S: Storage> ObjectWriter for BufferedWriter<S> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>, name: &str, mode: WriteMode) -> Result<()> {
        self.storage.put_shared(name, &Arc::new(mem::take(&mut self.bytes)), mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_snapshot_undoes_what_came_after_it_for_every_handle() {
        let memory = Memory::new();
        memory.put("a", b"1", WriteMode::CreateNew).unwrap();
        let before = memory.snapshot();
        let handle = memory.clone();
        handle.put("a", b"2", WriteMode::Replace).unwrap();
        handle.put("b", b"3", WriteMode::CreateNew).unwrap();
        memory.restore(before);
        assert_eq!(handle.get("a").unwrap(), b"1");
        assert_eq!(handle.get("b").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
