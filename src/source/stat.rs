//! What the file system says about one entry.

use std::io;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, statx};

use crate::path::Name;
use crate::world::Time;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A socket; seen and noted, never stored.
    Socket,
}

/// One look at an entry. Two looks that agree in [`Stat::same_content`] saw the same content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: the low 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes, where that means something.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of content or attributes; nobody can set it.
    pub ctime: Time,
    /// Inode number.
    pub ino: u64,
    /// The file system it is on.
    pub dev: u64,
    /// How many names it has.
    pub nlink: u32,
    /// Major number, of a device.
    pub rdev_major: u32,
    /// Minor number, of a device.
    pub rdev_minor: u32,
    /// Units of 512 bytes allocated.
    pub blocks: u64,
}

impl Stat {
    /// Looks at `name` in `dir`; a link is looked at itself, and nothing is mounted by looking.
    pub fn at(dir: impl AsFd, name: &Name) -> io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Self::from_statx(&statx(dir, name.as_os(), flags, StatxFlags::BASIC_STATS)?)
    }

    /// Looks at what is open.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
        Self::from_statx(&statx(fd, c"", flags, StatxFlags::BASIC_STATS)?)
    }

    /// Whether nothing was written between the two looks, as far as the file system tells:
    /// size, mtime, ctime and inode agree.
    pub fn same_content(&self, other: &Self) -> bool {
        (self.size, self.mtime, self.ctime, self.ino) == (other.size, other.mtime, other.ctime, other.ino)
    }

    /// File system and inode: the same for all names of one file.
    pub fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Whether this is a file that occupies less than its length, and so may have holes.
    pub fn may_have_holes(&self) -> bool {
        self.kind == Kind::File && self.blocks.saturating_mul(512) < self.size
    }

    fn from_statx(raw: &Statx) -> io::Result<Self> {
        let mode = u32::from(raw.stx_mode);
        let kind = match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Socket => Kind::Socket,
            FileType::Unknown => return Err(io::Error::other(format!("file type {mode:o} is unknown"))),
        };
        Ok(Self {
            kind,
            mode: mode & 0o7777,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            size: raw.stx_size,
            mtime: time(raw.stx_mtime),
            ctime: time(raw.stx_ctime),
            ino: raw.stx_ino,
            dev: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
            nlink: raw.stx_nlink,
            rdev_major: raw.stx_rdev_major,
            rdev_minor: raw.stx_rdev_minor,
            blocks: raw.stx_blocks,
        })
    }
}

/// Nanoseconds a broken file system sends above a second are capped: a stored time has none.
fn time(stamp: StatxTimestamp) -> Time {
    Time { secs: stamp.tv_sec, nanos: stamp.tv_nsec.min(999_999_999) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::has_root;
    use std::fs;

    use rustix::fs::{CWD, Timespec, Timestamps, utimensat};

    use super::*;

    #[test]
    fn times_are_exact_on_both_sides_of_1970_and_past_2106() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "x").unwrap();
        let (open, name) = (fs::File::open(dir.path()).unwrap(), Name::new(*b"f").unwrap());
        // One second and one nanosecond before the epoch, one after, 1910, 2040, 2200.
        for (secs, nanos) in
            [(-1, 0), (-1, 999_999_999), (0, 1), (-1_893_456_000, 5), (2_208_988_800, 123_456_789), (7_258_118_400, 1)]
        {
            let stamp = Timespec { tv_sec: secs, tv_nsec: i64::from(nanos) };
            let times = Timestamps { last_access: stamp, last_modification: stamp };
            utimensat(CWD, dir.path().join("f"), &times, AtFlags::empty()).unwrap();
            assert_eq!(Stat::at(&open, &name).unwrap().mtime, Time { secs, nanos });
            assert_eq!(Stat::of(fs::File::open(dir.path().join("f")).unwrap()).unwrap().mtime, Time { secs, nanos });
        }
    }

    #[test]
    fn a_link_is_looked_at_itself() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("l")).unwrap();
        let stat = Stat::at(fs::File::open(dir.path()).unwrap(), &Name::new(*b"l").unwrap()).unwrap();
        assert_eq!((stat.kind, stat.mode, stat.size), (Kind::Symlink, 0o777, 1));
    }

    #[test]
    fn special_bits_owners_and_devices_are_told() {
        if !has_root() {
            return;
        }
        use rustix::fs::{FileType, Mode, chownat, makedev, mknodat};
        let dir = tempfile::tempdir().unwrap();
        let open = fs::File::open(dir.path()).unwrap();
        mknodat(&open, "c", FileType::CharacterDevice, Mode::from(0o640), makedev(300, 70_000)).unwrap();
        chownat(
            &open,
            "c",
            Some(rustix::process::Uid::from_raw(4_000_000_000)),
            Some(rustix::process::Gid::from_raw(7)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .unwrap();
        let stat = Stat::at(&open, &Name::new(*b"c").unwrap()).unwrap();
        assert_eq!((stat.kind, stat.rdev_major, stat.rdev_minor), (Kind::CharDevice, 300, 70_000));
        assert_eq!((stat.uid, stat.gid), (4_000_000_000, 7));
        fs::write(dir.path().join("s"), "").unwrap();
        fs::set_permissions(dir.path().join("s"), std::os::unix::fs::PermissionsExt::from_mode(0o6751)).unwrap();
        assert_eq!(Stat::at(&open, &Name::new(*b"s").unwrap()).unwrap().mode, 0o6751);
    }
}
