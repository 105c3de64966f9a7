//! The change record of a machine without a disk, kept in the repository.
//!
//! A job in a fresh container has no cache directory that lasts. Its record then lives in
//! `cache/<credential>/<set>` (SPEC §9.8): fetched into a temporary directory before the walk, put
//! back after the snapshot is made. It is sealed like the local one; the storage can take it
//! away or give back an older one, and either costs reading, nothing else.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::record::{self, Place};
use crate::error::{Context, Error, Kind, Result};
use crate::id::hex;
use crate::monitor::{Monitor, Severity};
use crate::repo::Repository;
use crate::storage::{ErrorKind, WriteMode};

/// Folder of change records.
const CACHE: &str = "cache/";
/// A longer record is not kept in the repository: it is put from memory.
const RECORD_BYTES_MAX: u64 = 128 << 20;
const DIGEST_BYTES: usize = 32;

/// A temporary directory with the record, removed when dropped.
pub(super) struct Fetched {
    folder: PathBuf,
    object: String,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // What stays behind is sealed, and the system clears its temporary directory.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Fetched {
    /// Fetches the record of a set, if there is one. Without a temporary directory there is no
    /// record, and files are read again.
    pub(super) fn fetch(repo: &Repository, set: [u8; 16], monitor: &Monitor) -> Result<Option<(Self, Place)>> {
        let object = format!("{CACHE}{}/{}", repo.keys.credential.id(), hex(&set));
        let folder = std::env::temp_dir().join(format!("esker-{}", hex(&repo.world.random::<8>())));
        if let Err(error) = fs::DirBuilder::new().mode(0o700).create(&folder) {
            let message = format!("every file is read, and no change record is kept: {error}");
            monitor.problem(Severity::Warning, folder.display().to_string(), message);
            return Ok(None);
        }
        let fetched = Self { folder, object };
        let place = Place { path: fetched.folder.join(hex(&set)), key: repo.keys.credential.private_key(), set };
        match repo.storage.get(&fetched.object) {
            Ok(stored) => match whole(&stored) {
                Some(record) => fs::write(&place.path, record).context(|| "cannot keep the change record")?,
                None => fetched.warn(monitor, "it is damaged: every file is read"),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => fetched.warn(monitor, &format!("it cannot be read, so every file is: {error}")),
        }
        Ok(Some((fetched, place)))
    }

    fn warn(&self, monitor: &Monitor, message: &str) {
        monitor.problem(Severity::Warning, self.object.as_str(), message);
    }

    /// Puts the record back. The snapshot is made by now: a failure is a warning.
    pub(super) fn put_back(&self, repo: &Repository, path: &Path, monitor: &Monitor) {
        if let Err(error) = self.try_put_back(repo, path) {
            record::warn_lost(monitor, self.object.as_str(), &error.with_causes());
        }
    }

    fn try_put_back(&self, repo: &Repository, path: &Path) -> Result<()> {
        let what = || "cannot keep the change record in the repository";
        let length = fs::metadata(path).context(what)?.len();
        if length > RECORD_BYTES_MAX {
            let source = io::Error::other(format!("it has {length} bytes, and {RECORD_BYTES_MAX} are the most"));
            return Err(Error::new(Kind::Failed, what()).because(source).hint("give the job a cache directory"));
        }
        let mut stored = fs::read(path).context(what)?;
        let digest = *blake3::hash(&stored).as_bytes();
        stored.extend_from_slice(&digest);
        repo.storage.put(&self.object, &stored, WriteMode::Replace).context(what)
    }
}

/// The record in a stored object, if the digest at the end is right.
fn whole(stored: &[u8]) -> Option<&[u8]> {
    let (record, digest) = stored.split_last_chunk::<DIGEST_BYTES>()?;
    (blake3::hash(record).as_bytes() == digest).then_some(record)
}
