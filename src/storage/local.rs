//! A storage in a directory: an object is a file, its name the path below the directory.
//!
//! Everything goes through a descriptor of that directory, opened once, so a file system that
//! is unmounted and another that takes its place are never mistaken for it. [`persist`] makes
//! objects, whole and durable; [`walk`] lists them. What is not an object (files in `tmp/`,
//! names no object has) is passed over.
//!
//! Links are not followed to an object: a symbolic link where an object or a directory of
//! objects could be is an error, never "nothing there".

use std::collections::{BTreeSet, HashSet};
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, Once, OnceLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::memory::{refuse_to_read_whole, too_short};
use super::{Error, ErrorKind, Listed, ObjectWriter, Result, Storage, WriteMode, name};
use crate::id::hex;
use crate::world::World;

mod persist;
mod walk;

use persist::TemporaryFile;

/// Objects as files below a directory of this machine.
#[derive(Debug, Clone)]
pub struct Local {
    disk: Arc<Disk>,
}

/// The directory and what is known of its state.
#[derive(Debug)]
struct Disk {
    root: OwnedFd,
    /// Canonical; for messages, and for nothing else.
    path: PathBuf,
    /// Begins the names of this storage's temporary files, and no other's.
    run: String,
    next_temporary: AtomicU64,
    leftovers: Once,
    touched: Mutex<Touched>,
    syncing: Mutex<()>,
    /// Why nothing may be written any more.
    broken: OnceLock<String>,
}

/// Directories by their paths below the root, which is the empty path.
#[derive(Debug, Default)]
struct Touched {
    /// Those that gained or lost an entry since the last barrier.
    since_barrier: BTreeSet<String>,
    /// Those whose own entries in their parents are seen to.
    ever: HashSet<String>,
}

impl Local {
    /// Makes the directory, whose parent must exist, and the pack directories in it.
    ///
    /// An empty directory will do, and one left by the making of a repository that was interrupted.
    /// [`ErrorKind::Exists`] when it holds anything else.
    pub fn create(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let made = DirBuilder::new().mode(0o700).create(directory);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failure("cannot create", directory, error));
            }
            _ => {}
        }
        let local = Self::open(directory)?;
        local.refuse_what_is_not_ours()?;
        local.disk.make_directory(name::TEMPORARY)?;
        local.disk.make_directory("packs")?;
        for shard in 0..=255 {
            local.disk.make_directory(&format!("packs/{}", hex(&[shard])))?;
        }
        local.disk.touch("packs");
        local.disk.barrier()?;
        local.disk.sync_parent()?;
        Ok(local)
    }

    /// Opens a directory that exists; [`ErrorKind::NotFound`] when it does not. Writes nothing.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let path = directory.canonicalize().map_err(|error| failure("cannot open", directory, error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| failure("cannot open", &path, e))?;
        let disk = Disk {
            root,
            path,
            run: hex(&World::system().random::<8>()),
            next_temporary: AtomicU64::new(0),
            leftovers: Once::new(),
            touched: Mutex::default(),
            syncing: Mutex::default(),
            broken: OnceLock::new(),
        };
        Ok(Self { disk: Arc::new(disk) })
    }

    fn refuse_what_is_not_ours(&self) -> Result<()> {
        let path = &self.disk.path;
        let refuse = |found: &str| {
            let message = format!("directory `{}` is not empty: it holds `{found}`", path.display());
            Err(Error::new(ErrorKind::Exists, message))
        };
        let fault = |error| failure("cannot list", path, error);
        for entry in rustix::fs::Dir::read_from(&self.disk.root).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let found = entry.file_name().to_string_lossy();
            if !matches!(&*found, "." | "..") && !name::MAY_EXIST.contains(&&*found) {
                return refuse(&found);
            }
        }
        match self.list("")?.iter().find(|object| !name::is_of_a_making(&object.name)) {
            Some(object) => refuse(&object.name),
            None => Ok(()),
        }
    }

    /// Opens an object, and its length.
    fn open_object(&self, name: &str) -> Result<(File, u64)> {
        name::check(name)?;
        // Without NONBLOCK, a FIFO in place of an object would hold us for ever.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fault = |errno| self.disk.failure("cannot read", name, errno);
        let file = rustix::fs::openat(&self.disk.root, name, flags, Mode::empty()).map_err(fault)?;
        let bytes = self.disk.object_bytes(name, &rustix::fs::fstat(&file).map_err(fault)?)?;
        Ok((File::from(file), bytes))
    }
}

impl Disk {
    /// The length of an object, given what the file system says of its file.
    fn object_bytes(&self, name: &str, stat: &rustix::fs::Stat) -> Result<u64> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(stat.st_size.cast_unsigned()),
            FileType::Directory => Err(Error::not_found(name)),
            _ => Err(Error::new(ErrorKind::Io, format!("`{}` is not a file", self.path.join(name).display()))),
        }
    }

    /// An error about an object or a directory below the root.
    fn failure(&self, what: &str, name: &str, cause: impl Into<io::Error>) -> Error {
        let cause = cause.into();
        match errno(&cause) {
            // A file where a directory would be: nothing stands under it.
            Some(Errno::NOENT | Errno::NOTDIR) => Error::not_found(name),
            _ => failure(what, &self.path.join(name), cause),
        }
    }

    /// An error of making an object or a directory, where something missing on the way is no
    /// missing object.
    fn write_failure(&self, name: &str, cause: impl Into<io::Error>) -> Error {
        let cause = cause.into();
        let path = self.path.join(name);
        match errno(&cause) {
            Some(Errno::NOENT) => {
                Error::new(ErrorKind::Io, format!("cannot write `{}`", path.display())).because(cause)
            }
            _ => failure("cannot write", &path, cause),
        }
    }
}

/// Makes the entries of a directory durable, where its file system can do that. For files beside
/// a repository: those in one are synced by [`Storage::barrier`].
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    persist::sync_directory(rustix::fs::open(directory, flags, Mode::empty())?)
}

/// Makes a directory, for this user alone, and those above it that are not there; durable on return.
pub fn make_directories(directory: &Path) -> io::Result<()> {
    let missing: Vec<_> = directory.ancestors().take_while(|path| !path.is_dir()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let parents = missing.iter().filter_map(|path| path.parent());
    let mut parents = parents.map(|path| if path == Path::new("") { Path::new(".") } else { path });
    parents.try_for_each(|parent| match sync_directory(parent) {
        // A directory that only others may read: it is theirs to keep.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    })
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

fn failure(what: &str, path: &Path, cause: impl Into<io::Error>) -> Error {
    let cause = cause.into();
    let kind = match errno(&cause) {
        Some(Errno::NOENT) => ErrorKind::NotFound,
        Some(Errno::EXIST) => ErrorKind::Exists,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => ErrorKind::Denied,
        Some(Errno::NOSPC | Errno::DQUOT) => ErrorKind::Full,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{what} `{}`", path.display())).because(cause)
}

impl Storage for Local {
    fn place(&self) -> String {
        self.disk.path.display().to_string()
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        name::check(name)?;
        let mut file = TemporaryFile::create(&self.disk)?;
        file.append(bytes)?;
        file.publish(name, mode)
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(TemporaryFile::create(&self.disk)?))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        let (file, length) = self.open_object(name)?;
        refuse_to_read_whole(name, length)?;
        let mut bytes = Vec::new();
        // One byte more, to see that it has grown.
        file.take(length + 1).read_to_end(&mut bytes).map_err(|error| self.disk.failure("cannot read", name, error))?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(too_short(name, 0, length, bytes.len() as u64)),
        }
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.get_range_into(name, offset, length, &mut bytes)?;
        Ok(bytes)
    }

    fn get_range_into(&self, name: &str, offset: u64, length: u64, into: &mut Vec<u8>) -> Result<()> {
        let (file, found) = self.open_object(name)?;
        if offset.checked_add(length).is_none_or(|end| end > found) {
            return Err(too_short(name, offset, length, found));
        }
        let fault = |error| self.disk.failure("cannot read", name, error);
        // A sparse file may be longer than memory.
        let length_here = usize::try_from(length).unwrap_or(usize::MAX);
        let more = length_here.saturating_sub(into.len());
        into.try_reserve_exact(more).map_err(|error| fault(io::Error::other(error)))?;
        into.resize(length_here, 0);
        match file.read_exact_at(into, offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(too_short(name, offset, length, found)),
            Err(error) => Err(fault(error)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        name::check_prefix(prefix)?;
        self.disk.list(prefix)
    }

    fn stat(&self, name: &str) -> Result<u64> {
        name::check(name)?;
        let stat = rustix::fs::statat(&self.disk.root, name, AtFlags::SYMLINK_NOFOLLOW);
        self.disk.object_bytes(name, &stat.map_err(|errno| self.disk.failure("cannot look at", name, errno))?)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.disk.delete(name)
    }

    fn barrier(&self) -> Result<()> {
        self.disk.barrier()
    }

    fn cover(&self, name: &str) -> Result<()> {
        name::check(name)?;
        // Objects are synced before they have their names; what may be lost is the name.
        self.disk.touch(persist::parent(name));
        Ok(())
    }

    fn local_directory(&self) -> Option<&Path> {
        Some(&self.disk.path)
    }
}

#[cfg(test)]
mod tests;
