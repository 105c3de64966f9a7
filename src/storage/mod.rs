//! Where objects are kept: whole puts, reads, lists and deletes, and nothing more.
//!
//! All that is asked of a storage (SPEC §2): a put is seen whole or not at all, and whoever
//! reads or lists after a put was acknowledged sees it. [`local`] is a directory, [`memory`]
//! a map, [`remote`] what is behind a URL, or was at a moment; [`retry`], [`throttle`] and [`dry_run`] wrap those, [`fault`]
//! and [`record`] any storage for tests. [`probe`] finds out whether a storage keeps its promises. The
//! contract that this trait
//! states in words is `tests/contract.rs`, run on every implementation.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub mod dry_run;
mod error;
pub mod fault;
pub mod local;
pub mod memory;
mod name;
pub mod parallel;
pub mod probe;
pub mod record;
pub mod remote;
pub mod retry;
#[cfg(feature = "sftp")]
pub mod sftp;
pub mod throttle;

pub use error::{Error, ErrorKind};

/// Shorthand for results of storages.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The most bytes an object may have that is read whole: a change record and its digest. Longer ones,
/// which are packs, are read in parts; so nobody's memory is at the mercy of who can write here.
pub const GET_BYTES_MAX: u64 = (128 << 20) + 64;

/// What to do when an object of that name is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Fail with [`ErrorKind::Exists`] where the storage can tell.
    CreateNew,
    /// Put the new bytes in its place.
    Replace,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its full name, such as `packs/9f/9f3c…`.
    pub name: String,
    /// Its stored length.
    pub bytes: u64,
}

/// A place that keeps objects. Names are relative, `/`-separated, of `[a-z0-9._-]` components.
///
/// Every method may be called from many threads at once.
pub trait Storage: Send + Sync + fmt::Debug {
    /// The place, for people and for telling two copies of a repository apart. Without secrets.
    fn place(&self) -> String;

    /// Stores `bytes` under `name`, seen whole or not at all.
    ///
    /// Durable after the next [`Storage::barrier`], not before.
    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()>;

    /// The same for bytes that may be kept while they are sent, so that none are copied.
    fn put_shared(&self, name: &str, bytes: &Arc<Vec<u8>>, mode: WriteMode) -> Result<()> {
        self.put(name, bytes, mode)
    }

    /// Begins an object whose name is known only at its end (a pack is named by its hash).
    fn writer(&self) -> Result<Box<dyn ObjectWriter>>;

    /// The whole object; [`ErrorKind::Corrupt`] when it has more than [`GET_BYTES_MAX`].
    fn get(&self, name: &str) -> Result<Vec<u8>>;

    /// Exactly `length` bytes from `offset`; [`ErrorKind::Corrupt`] when the object is shorter.
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>>;

    /// The same into memory that is used again: afterwards `into` is those bytes, whatever it held.
    fn get_range_into(&self, name: &str, offset: u64, length: u64, into: &mut Vec<u8>) -> Result<()> {
        *into = self.get_range(name, offset, length)?;
        Ok(())
    }

    /// Every object whose name begins with `prefix`, which is empty or ends in `/`, in name order.
    ///
    /// All of them or an error, never a part. A prefix nothing stands under is an empty list.
    /// Leftovers of interrupted puts are not listed.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>>;

    /// The stored length of an object.
    fn stat(&self, name: &str) -> Result<u64>;

    /// Removes an object; [`ErrorKind::NotFound`] when there is none.
    fn delete(&self, name: &str) -> Result<()>;

    /// Returns once everything put so far is durable.
    fn barrier(&self) -> Result<()>;

    /// How many requests the storage is best asked at once: more than one where each waits for
    /// a network.
    fn connections(&self) -> usize {
        1
    }

    /// What this storage cannot promise though it should, in words for people: that what a barrier
    /// stood for outlasts a loss of power.
    fn caveat(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Makes the next barrier stand for this object too, which another process has put.
    fn cover(&self, name: &str) -> Result<()>;

    /// The directory this storage occupies on the local machine, if it does.
    fn local_directory(&self) -> Option<&Path> {
        None
    }
}

/// An object being written. Dropped unfinished, it leaves nothing that is ever listed.
pub trait ObjectWriter: Send {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Names the object and makes it visible, whole.
    fn finish(self: Box<Self>, name: &str, mode: WriteMode) -> Result<()>;
}
