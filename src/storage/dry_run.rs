//! A wrapper that reads through and changes nothing: what is put or deleted is as if it had been.
//!
//! So a dry run goes through the very code of a real one, up to where it would rely on what it
//! put. Nothing swallowed here can be read back; whoever needs that is not doing a dry run.

use std::path::Path;
use std::sync::Arc;

use super::{Listed, ObjectWriter, Result, Storage, WriteMode};

/// Passes reads through and swallows every change.
#[derive(Debug, Clone)]
pub struct DryRun {
    inner: Arc<dyn Storage>,
}

impl DryRun {
    /// Protects `inner` from being changed.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner }
    }
}

impl Storage for DryRun {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn put(&self, _: &str, _: &[u8], _: WriteMode) -> Result<()> {
        Ok(())
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(Swallow))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.inner.get(name)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.inner.get_range(name, offset, length)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.inner.list(prefix)
    }

    fn stat(&self, name: &str) -> Result<u64> {
        self.inner.stat(name)
    }

    fn delete(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn cover(&self, _: &str) -> Result<()> {
        Ok(())
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

struct Swallow;

impl ObjectWriter for Swallow {
    fn write(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: &str, _: WriteMode) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::super::record::{Operation, Recording};
    use super::*;

    #[test]
    fn reads_go_through_and_no_change_does() {
        let under = Recording::new(Arc::new(Memory::new()));
        under.put("a", b"1", WriteMode::CreateNew).unwrap();
        under.clear();
        let dry = DryRun::new(Arc::new(under.clone()));
        dry.put("a", b"2", WriteMode::Replace).unwrap();
        dry.delete("a").unwrap();
        let mut writer = dry.writer().unwrap();
        writer.write(b"3").unwrap();
        writer.finish("b", WriteMode::CreateNew).unwrap();
        dry.barrier().unwrap();
        assert!(under.calls().is_empty(), "{:?}", under.calls());
        assert_eq!(dry.get("a").unwrap(), b"1");
        assert_eq!(dry.get_range("a", 0, 1).unwrap(), b"1");
        assert_eq!(dry.stat("a").unwrap(), 1);
        assert_eq!(dry.list("").unwrap().len(), 1);
        let seen: Vec<_> = under.calls().into_iter().map(|call| call.operation).collect();
        assert_eq!(seen, [Operation::Get, Operation::GetRange, Operation::Stat, Operation::List]);
    }
}
