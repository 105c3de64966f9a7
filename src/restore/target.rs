//! Directories below the target, reached so that nobody can lead a restore elsewhere.
//!
//! A [`Dir`] is known by its parent, its name and the inode it was when first opened. Its
//! descriptor comes from a bounded cache; when it has fallen out it is opened again from the
//! nearest ancestor that has one, a component at a time with `O_NOFOLLOW | O_DIRECTORY`, and must
//! still be the same inode. No path is ever handed to the kernel as a whole, so a symbolic link
//! planted or a directory swapped by another user meanwhile is an error, never a detour, and
//! neither `PATH_MAX` nor depth is a limit. Only the target directory itself may be named through
//! links: the user chose it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::fds::Descriptors;
use crate::error::{Context, Error, Kind, Result};
use crate::path::{Name, TreePath};
use crate::world::World;

/// Directory descriptors kept open.
const OPEN_DIRECTORIES_MAX: usize = 128;

/// Deepest that a restore goes; a tree this deep is hostile.
pub(super) const DEPTH_MAX: usize = 100_000;

/// What a directory must not be at the time of use: another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Inode {
    pub(super) device: u64,
    pub(super) number: u64,
}

impl Inode {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, number: stat.st_ino }
    }
}

/// A directory below the target. It lives as long as something in it or below it is unfinished.
#[derive(Debug)]
pub(super) struct Dir {
    parent: Option<Arc<Dir>>,
    /// The name in the parent; for the target, what it is in the snapshot.
    name: DirName,
    /// Distinguishes it in the descriptor cache.
    number: u64,
    inode: Inode,
    /// Whether this restore made it, so that nothing of others is in it.
    pub(super) fresh: bool,
}

#[derive(Debug)]
enum DirName {
    Top(TreePath),
    Below(Name),
}

impl Dir {
    /// The path in the snapshot of `name` in this directory.
    pub(super) fn path_of(&self, name: &Name) -> TreePath {
        let mut path = self.path();
        path.push(name);
        path
    }

    /// The path in the snapshot.
    pub(super) fn path(&self) -> TreePath {
        let mut names = Vec::new();
        let mut at = self;
        loop {
            match (&at.name, &at.parent) {
                (DirName::Below(name), Some(parent)) => {
                    names.push(name);
                    at = parent;
                }
                (DirName::Top(base), _) => {
                    let mut path = base.clone();
                    names.iter().rev().for_each(|name| path.push(name));
                    return path;
                }
                (DirName::Below(_), None) => unreachable!("only the target has no parent"),
            }
        }
    }
}

/// Chains of directories can be as long as the tree is deep; the derived drop would recurse.
impl Drop for Dir {
    fn drop(&mut self) {
        let mut up = self.parent.take();
        while let Some(dir) = up {
            up = Arc::into_inner(dir).and_then(|mut dir| dir.parent.take());
        }
    }
}

/// The directory restored into, and the descriptors of directories below it.
#[derive(Debug)]
pub(super) struct Target {
    top: Arc<Dir>,
    top_fd: Arc<OwnedFd>,
    open: Descriptors,
    next_number: AtomicU64,
    temporary: String,
    next_temporary: AtomicU64,
    /// One directory of each file system restored into, for the sync at the end.
    file_systems: Mutex<HashMap<u64, Arc<Dir>>>,
}

/// How a directory came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// This restore made it.
    New,
    /// It was there.
    Existing,
}

impl Target {
    /// Opens the directory at `path`, making it (and what leads to it) if it is not there.
    /// `base` is what its content is called in the snapshot.
    pub(super) fn open(path: &Path, base: TreePath) -> Result<Self> {
        let what = || format!("cannot restore into `{}`", path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (fd, made) = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).context(what)?;
                }
                rustix::fs::mkdirat(CWD, path, Mode::RWXU).map_err(std::io::Error::from).context(what)?;
                // Whatever is there now is used only if it is no link.
                let fd = rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty());
                (fd.map_err(std::io::Error::from).context(what)?, Made::New)
            }
            opened => (opened.map_err(std::io::Error::from).context(what)?, Made::Existing),
        };
        let stat = rustix::fs::fstat(&fd).map_err(std::io::Error::from).context(what)?;
        let top = Arc::new(Dir {
            parent: None,
            name: DirName::Top(base),
            number: 0,
            inode: Inode::of(&stat),
            fresh: made == Made::New,
        });
        Ok(Self {
            top_fd: Arc::new(fd),
            open: Descriptors::new(OPEN_DIRECTORIES_MAX),
            next_number: AtomicU64::new(1),
            temporary: format!(".esker-restore-{}", crate::id::hex(&World::system().random::<8>())),
            next_temporary: AtomicU64::new(0),
            file_systems: Mutex::new(HashMap::from([(stat.st_dev, Arc::clone(&top))])),
            top,
        })
    }

    /// Refuses more directories than the file system can hold.
    ///
    /// A few kilobytes can say that they are more than any can: directories may share what is below
    /// them. Other entries are not counted, for they may be names of one file.
    pub(super) fn refuse_too_many(&self, directories: u64) -> Result<()> {
        // Zero where there is no such number, as on btrfs.
        let most = rustix::fs::fstatvfs(&*self.top_fd).map_or(0, |found| found.f_files);
        if most == 0 || directories <= most {
            return Ok(());
        }
        let place = self.top.path();
        let what = format!(
            "nothing was restored: `{place}` has {directories} directories in the snapshot, and the target's file system \
             holds {most} files and directories at most"
        );
        Err(Error::new(Kind::Failed, what))
    }

    /// Whether the file system that a directory is on holds so many bytes at all, however empty it is.
    pub(super) fn can_hold(&self, dir: &Dir, bytes: u64) -> Result<bool, Errno> {
        let found = rustix::fs::fstatvfs(&*self.fd(dir)?)?;
        // Zero where there is no such number.
        Ok(found.f_blocks == 0 || bytes <= found.f_blocks.saturating_mul(found.f_frsize))
    }

    /// The target directory itself.
    pub(super) fn top(&self) -> &Arc<Dir> {
        &self.top
    }

    /// A name for a file that is not whole yet, used by no one else.
    pub(super) fn temporary_name(&self) -> Name {
        let ordinal = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        Name::new(format!("{}-{ordinal}", self.temporary).into_bytes()).expect("letters, digits and dashes are a name")
    }

    /// Whether `name` is one of this run's [`Target::temporary_name`]s.
    pub(super) fn is_temporary(&self, name: &Name) -> bool {
        name.as_bytes().starts_with(self.temporary.as_bytes())
    }

    /// Makes `name` in `parent` (mode 0700), or enters the directory that is there already.
    ///
    /// `Err(ENOTDIR)` or `Err(ELOOP)` when something else is there, a symbolic link included.
    pub(super) fn make_dir(&self, parent: &Arc<Dir>, name: &Name) -> Result<(Arc<Dir>, Made), Errno> {
        let parent_fd = self.fd(parent)?;
        let made = match rustix::fs::mkdirat(&*parent_fd, name.as_os(), Mode::RWXU) {
            Ok(()) => Made::New,
            Err(Errno::EXIST) => Made::Existing,
            Err(errno) => return Err(errno),
        };
        Ok((self.enter(&parent_fd, parent, name, made)?, made))
    }

    /// Enters the directory `name` in `parent`, which must be there.
    pub(super) fn enter_dir(&self, parent: &Arc<Dir>, name: &Name) -> Result<Arc<Dir>, Errno> {
        self.enter(&*self.fd(parent)?, parent, name, Made::Existing)
    }

    /// Enters the directory that has this path in the snapshot, from the top. It must be there.
    pub(super) fn enter_path(&self, path: &TreePath) -> Result<Arc<Dir>, Errno> {
        let above = self.top.path().components().count();
        let mut names = path.components().skip(above);
        names.try_fold(Arc::clone(&self.top), |dir, name| self.enter_dir(&dir, &name))
    }

    fn enter(&self, parent_fd: &OwnedFd, parent: &Arc<Dir>, name: &Name, made: Made) -> Result<Arc<Dir>, Errno> {
        let fd = open_directory(parent_fd, name)?;
        let stat = rustix::fs::fstat(&fd)?;
        let dir = Arc::new(Dir {
            parent: Some(Arc::clone(parent)),
            name: DirName::Below(name.clone()),
            number: self.next_number.fetch_add(1, Ordering::Relaxed),
            inode: Inode::of(&stat),
            fresh: made == Made::New,
        });
        if made == Made::Existing {
            lock(&self.file_systems).entry(stat.st_dev).or_insert_with(|| Arc::clone(&dir));
        }
        self.open.keep(dir.number, Arc::new(fd));
        Ok(dir)
    }

    /// A descriptor of `dir`, which is certain to be the directory first entered.
    pub(super) fn fd(&self, dir: &Dir) -> Result<Arc<OwnedFd>, Errno> {
        // Up to the nearest ancestor that is open, then down again.
        let mut down = Vec::new();
        let mut at = dir;
        let mut fd = loop {
            if let Some(fd) = self.open.get(at.number) {
                break fd;
            }
            let Some(parent) = &at.parent else { break Arc::clone(&self.top_fd) };
            down.push(at);
            at = parent;
        };
        for dir in down.into_iter().rev() {
            let DirName::Below(name) = &dir.name else { unreachable!("the target is always open") };
            let opened = open_directory(&fd, name)?;
            if Inode::of(&rustix::fs::fstat(&opened)?) != dir.inode {
                return Err(Errno::STALE);
            }
            fd = Arc::new(opened);
            self.open.keep(dir.number, Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// Returns once everything restored is durable, on each file system that was written to.
    pub(super) fn sync(&self) -> Result<()> {
        let dirs: Vec<Arc<Dir>> = lock(&self.file_systems).values().cloned().collect();
        for dir in dirs {
            self.fd(&dir).and_then(|fd| rustix::fs::syncfs(&*fd)).map_err(|errno| {
                Error::new(Kind::Failed, format!("what was restored to `{}` may not be durable", dir.path()))
                    .because(std::io::Error::from(errno))
            })?;
        }
        Ok(())
    }
}

/// What is at `name`, itself and not what it may link to; `None` when nothing is.
pub(super) fn look(dir_fd: &OwnedFd, name: &Name) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(dir_fd, name.as_os(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether a stat is of a directory, a regular file and so on.
pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// A path that leads to exactly the inode of `fd`, for calls that take no descriptor of this sort.
pub(super) fn proc_path(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn open_directory(parent: &OwnedFd, name: &Name) -> Result<OwnedFd, Errno> {
    let nofollow = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name.as_os(), nofollow | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // A directory of our own that its mode shuts even to us: it gets its mode at the end anyway.
            let path_fd = rustix::fs::openat(parent, name.as_os(), nofollow | OFlags::PATH, Mode::empty())?;
            let stat = rustix::fs::fstat(&path_fd)?;
            if stat.st_uid != rustix::process::geteuid().as_raw() {
                return Err(Errno::ACCESS);
            }
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777) | Mode::RWXU;
            rustix::fs::chmodat(CWD, proc_path(&path_fd), mode, AtFlags::empty())?;
            rustix::fs::openat(parent, name.as_os(), nofollow | OFlags::RDONLY, Mode::empty())
        }
        opened => opened,
    }
}

/// Locks; a thread that panicked left nothing half done that matters more than going on.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
