//! A bucket that keeps versions, shown as it was at a moment.
//!
//! Whoever has the storage's account can delete what is in a bucket or put other bytes in its place, but where
//! versions are kept that only puts newer ones on top. All versions are listed once, and of each object the newest
//! that is no newer than the moment is what there is; one that was deleted by then is not there. Nothing is changed.
//!
//! By the order of writes (SPEC §9.5) what was in the storage at any moment is a repository that can be read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use opendal::EntryMode;

use super::object::Remote;
use super::{Kind, OpenError};
use crate::storage::memory::too_short;
use crate::storage::{Error, ErrorKind, Listed, ObjectWriter, Result, Storage, WriteMode, name};
use crate::world::Time;

/// The version of an object that there was.
struct Version {
    id: String,
    bytes: u64,
}

/// A storage with versions as it was at a moment.
pub(super) struct Past {
    remote: Remote,
    at: Time,
    objects: OnceLock<BTreeMap<String, Version>>,
    listing: Mutex<()>,
}

impl fmt::Debug for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Past({:?}, {:?})", self.remote, self.at)
    }
}

impl Past {
    pub(super) fn new(remote: Remote, kind: Kind, at: Time) -> Result<Self, OpenError> {
        if !remote.knows_versions() {
            let what = format!("what was once in a storage of the kind `{}:` cannot be asked for", kind.feature());
            return Err(OpenError::hinted(what, "`--storage-time` is for buckets of S3 that keep versions"));
        }
        Ok(Self { remote, at, objects: OnceLock::new(), listing: Mutex::default() })
    }

    fn objects(&self) -> Result<&BTreeMap<String, Version>> {
        if let Some(objects) = self.objects.get() {
            return Ok(objects);
        }
        let _alone = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(objects) = self.objects.get() {
            return Ok(objects);
        }
        let listed = self.listed()?;
        Ok(self.objects.get_or_init(|| listed))
    }

    fn listed(&self) -> Result<BTreeMap<String, Version>> {
        let mut newest: BTreeMap<String, ((Time, bool), Version)> = BTreeMap::new();
        for entry in self.remote.list_versions()? {
            let (name, meta) = entry.into_parts();
            if meta.mode() != EntryMode::FILE || name::check(&name).is_err() {
                continue;
            }
            let (Some(modified), Some(id)) = (meta.last_modified(), meta.version()) else {
                let text = format!("`{}` says of a version of `{name}` neither which nor when", self.remote.place());
                return Err(Error::new(ErrorKind::Io, text));
            };
            let modified = modified.into_inner();
            let nanos = u32::try_from(modified.subsec_nanosecond()).unwrap_or_default();
            let modified = Time { secs: modified.as_second(), nanos };
            if modified > self.at {
                continue;
            }
            // Of the same moment, by a clock that is coarse, the one that is there; of two, that listed first.
            let order = (modified, !meta.is_deleted());
            if newest.get(&name).is_none_or(|(known, _)| order > *known) {
                newest.insert(name, (order, Version { id: id.to_owned(), bytes: meta.content_length() }));
            }
        }
        let there = newest.into_iter().filter(|(_, ((_, is_there), _))| *is_there);
        Ok(there.map(|(name, (_, version))| (name, version)).collect())
    }

    fn version(&self, name: &str) -> Result<&Version> {
        name::check(name)?;
        self.objects()?.get(name).ok_or_else(|| Error::not_found(name))
    }

    fn unchanged(&self, name: &str) -> Error {
        let text = format!("`{name}` is not changed: the storage is shown as it was (`--storage-time`)");
        Error::new(ErrorKind::Denied, text)
    }
}

impl Storage for Past {
    fn place(&self) -> String {
        let nanos = i32::try_from(self.at.nanos).unwrap_or_default();
        let at =
            jiff::Timestamp::new(self.at.secs, nanos).map_or_else(|_| self.at.secs.to_string(), |at| at.to_string());
        format!("{} as it was at {at}", self.remote.place())
    }

    fn put(&self, name: &str, _: &[u8], _: WriteMode) -> Result<()> {
        Err(self.unchanged(name))
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Err(self.unchanged("packs/"))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.remote.read(name, Some(&self.version(name)?.id), None)?.0)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let version = self.version(name)?;
        if offset.checked_add(length).is_none_or(|end| end > version.bytes) {
            return Err(too_short(name, offset, length, version.bytes));
        }
        if length == 0 {
            return Ok(Vec::new());
        }
        let (bytes, seen) = self.remote.read(name, Some(&version.id), Some((offset, length)))?;
        if seen.part_begins.unwrap_or(0) != offset || bytes.len() as u64 != length {
            let text =
                format!("the server of `{}` sends another part of objects than it is asked for", self.remote.place());
            return Err(Error::new(ErrorKind::Io, text));
        }
        Ok(bytes)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        name::check_prefix(prefix)?;
        let from = self.objects()?.range(prefix.to_owned()..);
        let below = from.take_while(|(name, _)| name.starts_with(prefix));
        Ok(below.map(|(name, version)| Listed { name: name.clone(), bytes: version.bytes }).collect())
    }

    fn stat(&self, name: &str) -> Result<u64> {
        Ok(self.version(name)?.bytes)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.version(name)?;
        Err(self.unchanged(name))
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn cover(&self, name: &str) -> Result<()> {
        name::check(name)
    }

    fn connections(&self) -> usize {
        self.remote.connections()
    }
}
