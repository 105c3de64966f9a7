//! An open directory.
//!
//! A path is resolved anew at each use, may be longer than the system takes, and may lead
//! elsewhere after a rename. A descriptor stays with its directory, so the walk goes from
//! descriptor to descriptor, one name at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;

use super::stat::Stat;
use crate::path::Name;

/// What a directory is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To list its entries; needs read permission.
    Read,
    /// To reach what is below it and its own attributes. Triggers no automount.
    Pass,
}

/// An open directory. It is closed with the last reference to it.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    access: Access,
}

impl Dir {
    /// Opens `/`.
    pub fn open_top(access: Access) -> io::Result<Self> {
        Self::open_at(CWD, std::ffi::OsStr::new("/"), access)
    }

    /// Opens the directory `name` in this one. A symbolic link is an error.
    pub fn open_child(&self, name: &Name, access: Access) -> io::Result<Self> {
        Self::open_at(self.fd.as_fd(), name.as_os(), access)
    }

    /// Opens the directory this one is in now.
    pub fn open_parent(&self, access: Access) -> io::Result<Self> {
        Self::open_at(self.fd.as_fd(), std::ffi::OsStr::new(".."), access)
    }

    /// Looks at the directory itself.
    pub fn stat(&self) -> io::Result<Stat> {
        Stat::of(&self.fd)
    }

    /// What it was opened for; one opened to pass has no `fgetxattr`.
    pub fn access(&self) -> Access {
        self.access
    }

    fn open_at(at: BorrowedFd<'_>, name: &std::ffi::OsStr, access: Access) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match access {
            Access::Read => open_noatime(at, name, flags)?,
            Access::Pass => openat(at, name, flags | OFlags::PATH, Mode::empty())?,
        };
        Ok(Self { fd, access })
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens for reading without changing the access time, where the system allows that: to the
/// owner and to root.
pub(super) fn open_noatime(at: BorrowedFd<'_>, name: &std::ffi::OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    match openat(at, name, flags | OFlags::RDONLY | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(at, name, flags | OFlags::RDONLY, Mode::empty()),
        result => result,
    }
}

/// Whether what is open lies on a file system that shows the kernel's state rather than files.
pub(super) fn is_pseudo(fd: impl AsFd) -> bool {
    // From linux/magic.h. tmpfs, ramfs and hugetlbfs hold what people put there.
    const MAGIC: [u32; 24] = [
        0x0000_9fa0, // proc
        0x6265_6572, // sysfs
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0xcafe_4a11, // bpf
        0x6165_676c, // pstore
        0xde5e_81e4, // efivarfs
        0x6265_6570, // configfs
        0x6573_5543, // fusectl
        0x1980_0202, // mqueue
        0x0000_1cd1, // devpts
        0x0000_0187, // autofs, not mounted yet
        0x4249_4e4d, // binfmt_misc
        0x6e73_6673, // nsfs
        0x0765_5821, // resctrl
        0xf97c_ff8c, // selinuxfs
        0x4341_5d53, // smackfs
        0x6759_6969, // rpc_pipefs
        0x6e66_7364, // nfsd
        0x5049_4446, // pidfs
        0x6c6f_6f70, // binderfs
    ];
    // Only the low 32 bits are the magic number; the type's sign differs between machines.
    fstatfs(fd).is_ok_and(|fs| MAGIC.iter().any(|magic| i64::from(*magic) == (fs.f_type & 0xffff_ffff)))
}
