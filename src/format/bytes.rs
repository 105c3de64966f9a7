//! Fixed-width little-endian fields, read from bytes that may lie.

use super::{DecodeError, Result};

/// Takes fields from the front of a slice.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Begins at the front of `bytes`; `what` names the structure in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated {
            what: self.what,
            needed: length as u64,
            found: self.rest.len() as u64,
        })?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were asked for"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// An unsigned integer of 16 bits.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// An unsigned integer of 32 bits.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next `count` rows of `row_bytes` each, checked against what is there before anything
    /// is allocated for them.
    pub fn rows(&mut self, count: u32, row_bytes: usize) -> Result<std::slice::ChunksExact<'a, u8>> {
        let needed = u64::from(count) * row_bytes as u64;
        match usize::try_from(needed) {
            Ok(length) if length <= self.rest.len() => Ok(self.take(length)?.chunks_exact(row_bytes)),
            _ => Err(DecodeError::Truncated { what: self.what, needed, found: self.rest.len() as u64 }),
        }
    }

    /// What has not been taken.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Refuses unless exactly `expected` comes next.
    pub fn expect(&mut self, expected: &[u8], detail: &str) -> Result<()> {
        if self.take(expected.len())? == expected { Ok(()) } else { Err(DecodeError::malformed(self.what, detail)) }
    }

    /// Refuses unless everything has been taken.
    pub fn end(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed(self.what, format!("{} bytes too many", self.rest.len())))
        }
    }
}
