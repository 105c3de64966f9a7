//! Making objects whole and durable.
//!
//! An object is written to a file in `tmp/`, synced, and renamed into place: whoever sees its
//! name sees all of it, after a loss of power too. The name itself is an entry of a directory,
//! which [`Disk::barrier`] syncs, each touched one once.
//!
//! After a failed sync nobody knows what the device holds, and asking again may answer success
//! for pages the kernel has dropped. So a file whose sync failed is discarded, and a directory
//! whose sync failed ends all writing through this storage.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Disk;
use crate::id::hex;
use crate::storage::{Error, ErrorKind, ObjectWriter, Result, WriteMode, name};

/// Age in seconds at which a file in `tmp/` belongs to nobody any more.
const LEFTOVER_AGE_SECS: i64 = 24 * 60 * 60;

/// The state under these locks is whole between any two calls, whatever panicked meanwhile.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An object on its way, without a name yet. Removed when dropped unpublished.
pub(super) struct TemporaryFile {
    disk: Arc<Disk>,
    file: File,
    path: String,
    /// A write failed, so the file may end in a part of it.
    torn: bool,
    published: bool,
}

impl TemporaryFile {
    /// Makes an empty one. The storage's first also clears away old leftovers.
    pub(super) fn create(disk: &Arc<Disk>) -> Result<Self> {
        disk.check_usable()?;
        let path = format!("{}/{}-{}", name::TEMPORARY, disk.run, disk.next_temporary.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let open = || rustix::fs::openat(&disk.root, &path, flags, Mode::RUSR | Mode::WUSR);
        let opened = match open() {
            Err(Errno::NOENT) => {
                disk.make_directory(name::TEMPORARY)?;
                open()
            }
            opened => opened,
        };
        let file = File::from(opened.map_err(|errno| disk.write_failure(&path, errno))?);
        disk.leftovers.call_once(|| {
            // They cost space, nothing else.
            let _ = disk.remove_leftovers(&file);
        });
        Ok(Self { disk: Arc::clone(disk), file, path, torn: false, published: false })
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| {
            self.torn = true;
            self.disk.write_failure(&self.path, error)
        })
    }

    /// Syncs the file and gives it its name.
    pub(super) fn publish(mut self, name: &str, mode: WriteMode) -> Result<()> {
        name::check(name)?;
        if self.torn {
            let message = format!("`{name}` is not put: an earlier write to it failed");
            return Err(Error::new(ErrorKind::Io, message));
        }
        self.file.sync_all().map_err(|error| self.disk.write_failure(&self.path, error))?;
        self.disk.check_usable()?;
        let rename = || match mode {
            WriteMode::CreateNew => first_supported(&WAYS_TO_CREATE, &self.disk.root, &self.path, name),
            WriteMode::Replace => rustix::fs::renameat(&self.disk.root, &self.path, &self.disk.root, name),
        };
        let renamed = match rename() {
            Err(Errno::NOENT) => {
                self.disk.make_directories_of(name)?;
                rename()
            }
            renamed => renamed,
        };
        renamed.map_err(|errno| match (errno, mode) {
            (Errno::EXIST, WriteMode::CreateNew) => Error::exists(name),
            _ => self.disk.write_failure(name, errno),
        })?;
        self.published = true;
        self.disk.touch(parent(name));
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed is never listed, and goes with the leftovers another day.
            let _ = rustix::fs::unlinkat(&self.disk.root, &self.path, AtFlags::empty());
        }
    }
}

impl ObjectWriter for TemporaryFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)
    }

    fn finish(self: Box<Self>, name: &str, mode: WriteMode) -> Result<()> {
        self.publish(name, mode)
    }
}

/// Moves the file `from` to a name that nothing has yet, or fails with [`Errno::EXIST`].
type Way = fn(root: &OwnedFd, from: &str, to: &str) -> rustix::io::Result<()>;

/// From the best to one that any file system has: exFAT behind FUSE and many a NAS have neither
/// links nor a rename that spares what is there.
const WAYS_TO_CREATE: [Way; 3] = [
    |root, from, to| rustix::fs::renameat_with(root, from, root, to, RenameFlags::NOREPLACE),
    |root, from, to| {
        rustix::fs::linkat(root, from, root, to, AtFlags::empty())?;
        // The object is there; a second name in `tmp/` that stays goes with the leftovers.
        let _ = rustix::fs::unlinkat(root, from, AtFlags::empty());
        Ok(())
    },
    rename_under_claim,
];

/// How long a writer of the same name is waited for. It holds its claim for two calls, so one
/// that is there for longer was left by a crash, or by a machine that stands still: then both may
/// put the object, which the storage contract allows ("where the storage can tell").
const CLAIM_PATIENCE: Duration = Duration::from_secs(2);
const CLAIM_PAUSE: Duration = Duration::from_millis(5);

/// Looks, then renames, while a file stands in `tmp/` that only one can have made: creating a
/// file exclusively is atomic everywhere.
fn rename_under_claim(root: &OwnedFd, from: &str, to: &str) -> rustix::io::Result<()> {
    let claim = format!("{}/claim-{}", name::TEMPORARY, hex(&blake3::hash(to.as_bytes()).as_bytes()[..16]));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let began = Instant::now();
    loop {
        match rustix::fs::openat(root, &claim, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) if began.elapsed() < CLAIM_PATIENCE => {}
            Ok(_) | Err(Errno::EXIST) => break,
            Err(errno) => return Err(errno),
        }
        std::thread::sleep(CLAIM_PAUSE);
    }
    let renamed = match rustix::fs::statat(root, to, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => rustix::fs::renameat(root, from, root, to),
        Err(errno) => Err(errno),
    };
    // One that stays costs the next writer of this name its patience, and goes with the leftovers.
    let _ = rustix::fs::unlinkat(root, &claim, AtFlags::empty());
    renamed
}

fn first_supported(ways: &[Way], root: &OwnedFd, from: &str, to: &str) -> rustix::io::Result<()> {
    let mut result = Err(Errno::NOSYS);
    for way in ways {
        result = way(root, from, to);
        // So answer file systems without it: NFS (INVAL), FAT (PERM), FUSE and old kernels (NOSYS), NAS.
        if !matches!(result, Err(Errno::INVAL | Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK)) {
            break;
        }
    }
    result
}

/// The directory an object or directory stands in; empty for the root.
pub(super) fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Disk {
    /// Fails once a barrier has failed.
    fn check_usable(&self) -> Result<()> {
        match self.broken.get() {
            None => Ok(()),
            Some(why) => {
                let message = format!("nothing more is written to `{}`: {why}", self.path.display());
                Err(Error::new(ErrorKind::Io, message))
            }
        }
    }

    /// Notes that entries of a directory changed, so that the next barrier makes them durable.
    ///
    /// At the first touch its ancestors are noted as well. Whoever made them, this process or
    /// another, may not have synced them.
    pub(super) fn touch(&self, directory: &str) {
        let mut touched = lock(&self.touched);
        touched.since_barrier.insert(directory.to_owned());
        let mut directory = directory;
        while touched.ever.insert(directory.to_owned()) && !directory.is_empty() {
            directory = parent(directory);
            touched.since_barrier.insert(directory.to_owned());
        }
    }

    /// Syncs every touched directory; returns once all that was put before is durable.
    pub(super) fn barrier(&self) -> Result<()> {
        // One at a time: another barrier may be syncing what was put before this one.
        let _syncing = lock(&self.syncing);
        self.check_usable()?;
        let touched = std::mem::take(&mut lock(&self.touched).since_barrier);
        for directory in touched {
            let synced = self.open_directory(&directory).map_err(io::Error::from).and_then(sync_directory);
            if let Err(error) = synced {
                let path = self.path.join(&directory);
                // Set once, under the lock above.
                let _ = self.broken.set(format!("directory `{}` could not be synced: {error}", path.display()));
                return Err(super::failure("cannot sync directory", &path, error));
            }
        }
        Ok(())
    }

    /// Makes the entry of the root in its own parent durable.
    pub(super) fn sync_parent(&self) -> Result<()> {
        let Some(parent) = self.path.parent() else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let synced = match rustix::fs::open(parent, flags, Mode::empty()) {
            // A directory that only others may read: it is theirs to keep.
            Err(Errno::ACCESS) => Ok(()),
            opened => opened.map_err(io::Error::from).and_then(sync_directory),
        };
        synced.map_err(|error| super::failure("cannot sync directory", parent, error))
    }

    /// Removes an object. A barrier makes that durable too, so that a key slot stays removed.
    pub(super) fn delete(&self, name: &str) -> Result<()> {
        name::check(name)?;
        self.check_usable()?;
        match rustix::fs::unlinkat(&self.root, name, AtFlags::empty()) {
            Ok(()) => {
                self.touch(parent(name));
                Ok(())
            }
            // A directory is no object.
            Err(Errno::ISDIR) => Err(Error::not_found(name)),
            Err(errno) => Err(self.failure("cannot delete", name, errno)),
        }
    }

    /// Makes one directory, unless it is there.
    pub(super) fn make_directory(&self, path: &str) -> Result<()> {
        match rustix::fs::mkdirat(&self.root, path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.write_failure(path, errno)),
        }
    }

    /// Makes the directories an object stands in.
    fn make_directories_of(&self, name: &str) -> Result<()> {
        name.match_indices('/').try_for_each(|(end, _)| self.make_directory(&name[..end]))
    }

    /// Removes files in `tmp/` that were last written a day before `new` was. Both times are
    /// the file system's own, so its clock may differ from ours.
    fn remove_leftovers(&self, new: &File) -> rustix::io::Result<()> {
        let now = rustix::fs::fstat(new)?.st_mtime;
        let directory = self.open_directory(name::TEMPORARY)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let stat = rustix::fs::statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            if now.saturating_sub(stat.st_mtime) > LEFTOVER_AGE_SECS {
                // Not ours to remove, a directory, or just removed by another: no matter.
                let _ = rustix::fs::unlinkat(&directory, entry.file_name(), AtFlags::empty());
            }
        }
        Ok(())
    }
}

/// Syncs a directory, where the file system can. CIFS answers INVAL, others BADF, as a directory
/// is not open for writing, or that they do not know the call; PostgreSQL and restic pass over
/// the same.
pub(super) fn sync_directory(directory: OwnedFd) -> io::Result<()> {
    File::from(directory).sync_all().or_else(|error| match Errno::from_io_error(&error) {
        Some(Errno::INVAL | Errno::BADF | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        _ => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Local;
    use super::*;
    use crate::storage::Storage;

    #[test]
    fn every_way_to_create_refuses_a_name_that_is_taken() {
        let home = tempfile::tempdir().unwrap();
        let local = Local::create(home.path().join("repository")).unwrap();
        for (number, way) in WAYS_TO_CREATE.into_iter().enumerate() {
            let name = format!("packs/0{number}/object");
            let file = |bytes: &[u8]| {
                let mut file = TemporaryFile::create(&local.disk).unwrap();
                file.append(bytes).unwrap();
                file
            };
            let (first, second) = (file(b"first"), file(b"second"));
            first_supported(&[way], &local.disk.root, &first.path, &name).unwrap();
            let refused = first_supported(&[way], &local.disk.root, &second.path, &name);
            assert_eq!(refused, Err(Errno::EXIST), "way {number}");
            assert_eq!(local.get(&name).unwrap(), b"first");
            let left = local.disk.open_directory("tmp").map(|fd| Dir::read_from(fd).unwrap().count());
            assert_eq!(left, Ok(3), "`.`, `..` and the second file");
        }
    }

    #[test]
    fn a_way_the_file_system_lacks_gives_room_to_the_next() {
        let home = tempfile::tempdir().unwrap();
        let local = Local::create(home.path().join("repository")).unwrap();
        let ways: [Way; 3] = [|_, _, _| Err(Errno::INVAL), |_, _, _| Err(Errno::PERM), WAYS_TO_CREATE[2]];
        let file = TemporaryFile::create(&local.disk).unwrap();
        assert_eq!(first_supported(&ways[..2], &local.disk.root, &file.path, "a"), Err(Errno::PERM));
        assert_eq!(first_supported(&ways, &local.disk.root, &file.path, "a"), Ok(()));
        let full: [Way; 2] = [|_, _, _| Err(Errno::NOSPC), WAYS_TO_CREATE[2]];
        assert_eq!(first_supported(&full, &local.disk.root, "a", "b"), Err(Errno::NOSPC), "a fault is no lack");
    }

    #[test]
    fn a_claim_that_a_crash_left_is_passed_over_in_the_end() {
        let home = tempfile::tempdir().unwrap();
        let local = Local::create(home.path().join("repository")).unwrap();
        let claim = home.path().join("repository/tmp").join(format!("claim-{}", &blake3::hash(b"a").to_hex()[..32]));
        std::fs::write(&claim, b"").unwrap();
        let file = TemporaryFile::create(&local.disk).unwrap();
        rename_under_claim(&local.disk.root, &file.path, "a").unwrap();
        assert!(!claim.exists() && local.get("a").unwrap().is_empty());
    }

    #[test]
    fn the_first_touch_of_a_directory_brings_its_ancestors() {
        let home = tempfile::tempdir().unwrap();
        let local = Local::open(home.path()).unwrap();
        let touched = || lock(&local.disk.touched).since_barrier.iter().cloned().collect::<Vec<_>>();
        local.put("a/b/object", b"", WriteMode::CreateNew).unwrap();
        assert_eq!(touched(), ["", "a", "a/b"]);
        local.barrier().unwrap();
        assert!(touched().is_empty());
        local.put("a/b/other", b"", WriteMode::CreateNew).unwrap();
        assert_eq!(touched(), ["a/b"]);
        local.barrier().unwrap();
        local.delete("a/b/other").unwrap();
        assert_eq!(touched(), ["a/b"]);
        local.barrier().unwrap();
        local.cover("c/object-of-another-process").unwrap();
        assert_eq!(touched(), ["", "c"]);
    }
}
