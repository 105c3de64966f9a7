//! A file system that passes everything through to a directory, except what it is told to lack
//! or to do wrong: what exFAT sticks and NAS mounts are like, and what dying disks answer.
//!
//! [`Profile`]s imitate what real file systems lack, each line of them with its source. Faults
//! are switched on while mounted ([`Mount::fail`], [`Mount::fill`]) and off again
//! ([`Mount::mend`]). It is served by a thread of this process, which never touches the mount
//! itself, so it cannot wait for itself.
//!
//! It also records what it is asked to change ([`Mount::record`]): see [`trace`].

#![allow(dead_code, reason = "each test uses a part of it")]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackgroundSession, Config, MountOption};
use rustix::io::Errno;
use tempfile::TempDir;

#[path = "fusefs/serve.rs"]
mod serve;
#[path = "fusefs/trace.rs"]
pub(crate) mod trace;

/// What a file system lacks. `None` is: it works.
#[derive(Debug)]
pub(crate) struct Profile {
    /// For people.
    pub(crate) name: &'static str,
    /// What `link` answers.
    pub(crate) link: Option<Errno>,
    /// What `renameat2` answers to flags.
    pub(crate) rename_flags: Option<Errno>,
    /// What making a symbolic link, a pipe or a device answers.
    pub(crate) special: Option<Errno>,
    /// What extended attributes answer.
    pub(crate) xattr: Option<Errno>,
    /// What changing the owner answers.
    pub(crate) chown: Option<Errno>,
    /// Whether modes are kept; if not, all are 0755 and `chmod` answers success.
    pub(crate) modes: bool,
    /// Whether `a` and `A` are one name.
    pub(crate) folds_case: bool,
    /// Bytes no name may have.
    pub(crate) forbidden: &'static [u8],
    /// Seconds that times are rounded down to.
    pub(crate) time_secs: i64,
    /// What syncing a directory answers.
    pub(crate) sync_directory: Option<Errno>,
    /// What `flock` answers.
    pub(crate) flock: Option<Errno>,
    /// Whether files can be mapped shared.
    pub(crate) mmap: bool,
}

/// Lacks nothing.
pub(crate) const PLAIN: Profile = Profile {
    name: "plain",
    link: None,
    rename_flags: None,
    special: None,
    xattr: None,
    chown: None,
    modes: true,
    folds_case: false,
    forbidden: b"",
    time_secs: 0,
    sync_directory: None,
    flock: None,
    mmap: true,
};

/// Linux's own exfat (and vfat, whose 2-second times it is given): no `link`, `symlink` or
/// `mknod` operation, for which the VFS answers EPERM (fs/namei.c); names by an upcase table, and
/// these characters in none (fs/exfat/nls.c, `bad_uni_chars`); `exfat_setattr` refuses another
/// owner with EPERM and leaves out a mode it cannot keep without saying so ("We don't return
/// -EPERM here. Yes, strange"); RENAME_NOREPLACE works (`exfat_rename`); no xattr handlers.
pub(crate) const EXFAT: Profile = Profile {
    name: "exFAT",
    link: Some(Errno::PERM),
    special: Some(Errno::PERM),
    xattr: Some(Errno::OPNOTSUPP),
    chown: Some(Errno::PERM),
    modes: false,
    folds_case: true,
    forbidden: b"\"*:<>?\\|",
    time_secs: 2,
    ..PLAIN
};

/// A stick behind an old FUSE driver (exfat-fuse, ntfs-3g): as [`EXFAT`], but the driver does not
/// know FUSE_RENAME2, for which fs/fuse/dir.c answers EINVAL, and lacks LINK and SYMLINK, for
/// which it answers ENOSYS.
pub(crate) const FUSE_STICK: Profile = Profile {
    name: "a stick behind FUSE",
    link: Some(Errno::NOSYS),
    rename_flags: Some(Errno::INVAL),
    special: Some(Errno::NOSYS),
    xattr: Some(Errno::NOSYS),
    ..EXFAT
};

/// A NAS by SMB without the Unix extensions: hard links refused by the server (EOPNOTSUPP),
/// `cifs_rename2` knows no flags but NOREPLACE in newer kernels and none in older ones (EINVAL),
/// directories without an fsync operation in older ones (EINVAL from `vfs_fsync_range`), `nobrl`
/// and servers without locks (ENOLCK), and `cache=none`, which has no shared maps (ENODEV).
pub(crate) const CIFS: Profile = Profile {
    name: "CIFS",
    link: Some(Errno::OPNOTSUPP),
    rename_flags: Some(Errno::INVAL),
    special: Some(Errno::OPNOTSUPP),
    sync_directory: Some(Errno::INVAL),
    flock: Some(Errno::NOLCK),
    mmap: false,
    ..EXFAT
};

/// NFS version 3 with root squashed and no lock daemon: `nfs_rename` answers EINVAL to any flag,
/// changing owners is refused (EPERM), `flock` is ENOLCK, xattrs are EOPNOTSUPP. Directories
/// that cannot be synced answer EBADF on some systems (PostgreSQL's `fsync_fname_ext` passes
/// over EBADF and EINVAL for that reason).
pub(crate) const NFS: Profile = Profile {
    name: "NFS",
    rename_flags: Some(Errno::INVAL),
    xattr: Some(Errno::OPNOTSUPP),
    chown: Some(Errno::PERM),
    sync_directory: Some(Errno::BADF),
    flock: Some(Errno::NOLCK),
    ..PLAIN
};

/// All that lack something.
pub(crate) const POOR: [&Profile; 4] = [&EXFAT, &FUSE_STICK, &CIFS, &NFS];

/// What can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Looking at an entry.
    Look,
    /// Opening a file or directory.
    Open,
    /// Listing a directory; counted in entries.
    List,
    /// Reading a file; counted in bytes.
    Read,
    /// Reading a file, answered with its end: what some network file systems do.
    ReadShort,
    /// Writing to a file, or cutting it; counted in bytes.
    Write,
    /// Syncing a file or directory.
    Sync,
    /// Renaming; the path is the new one.
    Rename,
    /// Making an entry.
    Make,
    /// Removing an entry.
    Remove,
    /// Reading extended attributes.
    Xattr,
    /// Reading where a symbolic link leads.
    ReadLink,
}

/// Something that goes wrong.
#[derive(Debug)]
struct Fault {
    op: Op,
    /// A part of the path below the mount; empty for every path.
    path: String,
    /// The offsets or counts at which.
    range: Range<u64>,
    errno: Errno,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    /// How many bytes may still be written, and the answer after that.
    room: Option<(u64, Errno)>,
    /// How often a fault was met, by operation and path.
    met: Vec<(Op, String)>,
}

/// What the serving thread and the tests share.
#[derive(Debug, Default)]
struct Faults(Mutex<State>);

/// So much room an entry takes that has no bytes of its own.
const ENTRY_BYTES: u64 = 256;

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when a fault says so for something from `begin` up to and with `last`.
    fn meet(&self, op: Op, path: &str, begin: u64, last: u64) -> Result<(), Errno> {
        let mut state = self.lock();
        let here = |fault: &&Fault| fault.op == op && path.contains(&fault.path);
        let found = state.faults.iter().filter(here).find(|fault| last >= fault.range.start && begin < fault.range.end);
        let Some(errno) = found.map(|fault| fault.errno) else { return Ok(()) };
        state.met.push((op, path.to_owned()));
        Err(errno)
    }

    /// Takes room for so many bytes: all of it, what there is, or an error when there is none.
    fn take_room(&self, bytes: u64) -> Result<u64, Errno> {
        let mut state = self.lock();
        match &mut state.room {
            None => Ok(bytes),
            Some((0, errno)) => Err(*errno),
            Some((room, _)) => {
                let taken = bytes.min(*room);
                *room -= taken;
                Ok(taken)
            }
        }
    }

    fn give_room(&self, bytes: u64) {
        if let Some((room, _)) = &mut self.lock().room {
            *room += bytes;
        }
    }
}

/// A mounted file system; unmounted when dropped, whatever is still open.
pub(crate) struct Mount {
    session: Option<BackgroundSession>,
    place: PathBuf,
    backing: PathBuf,
    faults: Arc<Faults>,
    trace: trace::Shared,
    /// What is removed with it.
    own: Vec<TempDir>,
}

impl Mount {
    /// Mounts one. `None`, aloud, where this machine cannot.
    pub(crate) fn new(profile: &'static Profile) -> Option<Self> {
        let own = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut mount = Self::between(profile, own[0].path(), own[1].path())?;
        mount.own = own.into();
        Some(mount)
    }

    /// Mounts what is in one directory at another, which is there and empty.
    pub(crate) fn between(profile: &'static Profile, place: &Path, backing: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skip("mounting needs root");
        }
        if !Path::new("/dev/fuse").exists() {
            return skip("there is no /dev/fuse");
        }
        let (faults, trace) = (Arc::new(Faults::default()), trace::Shared::default());
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("esker-test".into()), MountOption::NoAtime];
        let served = serve::Passthrough::new(backing, profile, Arc::clone(&faults), Arc::clone(&trace)).unwrap();
        match fuser::spawn_mount(served, place, &config) {
            Ok(session) => {
                let (place, backing) = (place.to_owned(), backing.to_owned());
                Some(Self { session: Some(session), place, backing, faults, trace, own: Vec::new() })
            }
            Err(error) => skip(&format!("cannot mount: {error}")),
        }
    }

    /// From now on changes are recorded.
    pub(crate) fn record(&self) {
        self.trace.begin(&self.backing);
    }

    /// Ends recording; gives the changes.
    pub(crate) fn recorded(&self) -> trace::Trace {
        self.trace.end(&self.backing)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.place
    }

    /// What it shows, without the file system in between.
    pub(crate) fn backing(&self) -> &Path {
        &self.backing
    }

    /// From now on this operation fails on every path that contains `path`.
    pub(crate) fn fail(&self, op: Op, path: &str, errno: Errno) {
        self.fail_from(op, path, 0, errno);
    }

    /// The same for what reaches so many bytes or entries.
    pub(crate) fn fail_from(&self, op: Op, path: &str, from: u64, errno: Errno) {
        self.fail_in(op, path, from..u64::MAX, errno);
    }

    /// The same for what touches these bytes or entries.
    pub(crate) fn fail_in(&self, op: Op, path: &str, range: Range<u64>, errno: Errno) {
        self.faults.lock().faults.push(Fault { op, path: path.to_owned(), range, errno });
    }

    /// From now on there is room for so many more bytes.
    pub(crate) fn fill(&self, bytes: u64, errno: Errno) {
        self.faults.lock().room = Some((bytes, errno));
    }

    /// Ends all faults; gives those that were met.
    pub(crate) fn mend(&self) -> Vec<(Op, String)> {
        std::mem::take(&mut *self.faults.lock()).met
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a test that failed may have something open. The thread ends with the last use.
        let _ = Command::new("umount").arg("-l").arg(&self.place).output();
        drop(self.session.take());
    }
}

/// Skips aloud, or fails where `ESKER_REQUIRE` says that nothing may be skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn skip<T>(why: &str) -> Option<T> {
    let required = std::env::var("ESKER_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == "root"));
    // A machine without FUSE may have root.
    assert!(!(required && Path::new("/dev/fuse").exists()), "root required: {why}");
    eprintln!("skipped: {why}");
    None
}
