//! What `statx` does not tell: extended attributes, link targets, owners' names.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{fgetxattr, flistxattr, getxattr, lgetxattr, listxattr, llistxattr, readlinkat};
use rustix::io::Errno;

use super::dir::{Access, Dir};
use crate::format::tree::{XATTR_BYTES_MAX, Xattr};
use crate::path::{Name, display_bytes};

/// Whose attributes to read.
#[derive(Debug, Clone, Copy)]
pub enum Owner<'a> {
    /// A file that is open for reading.
    Open(BorrowedFd<'a>),
    /// A directory.
    Directory(&'a Dir),
    /// Anything else, by its name in a directory; a link stands for itself. Needs `/proc`.
    Named(&'a Dir, &'a Name),
}

/// An attribute, or all of an entry's, that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum XattrProblem {
    /// Which attributes there are could not be read.
    #[error("its extended attributes cannot be listed: {0}")]
    List(io::Error),
    /// One of them could not be read.
    #[error("its extended attribute `{name}` cannot be read: {error}")]
    Read {
        /// The attribute, for people.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// They are more than [`XATTR_BYTES_MAX`].
    #[error("`{name}` and later extended attributes are left out: more than 4 MiB")]
    TooLarge {
        /// The first one left out.
        name: String,
    },
}

/// Reads all extended attributes this process may see, in order of name: ACLs, capabilities and
/// labels among them, `trusted.` ones when root. A file system without them has none; everything
/// else that is missing is named among the problems.
pub fn xattrs(owner: Owner<'_>) -> (Vec<Xattr>, Vec<XattrProblem>) {
    xattrs_within(owner, XATTR_BYTES_MAX)
}

fn xattrs_within(owner: Owner<'_>, bytes_max: usize) -> (Vec<Xattr>, Vec<XattrProblem>) {
    let handle = Handle::new(owner);
    let names = match handle.list() {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return (Vec::new(), Vec::new()),
        Err(errno) => return (Vec::new(), vec![XattrProblem::List(errno.into())]),
    };
    let (mut found, mut problems, mut total_bytes) = (Vec::new(), Vec::new(), 0);
    for name in &names {
        let shown = display_bytes(name.to_bytes());
        match handle.get(name) {
            Ok(value) => {
                let name = name.to_bytes().to_vec();
                total_bytes += name.len() + value.len();
                if total_bytes > bytes_max {
                    problems.push(XattrProblem::TooLarge { name: shown });
                    break;
                }
                found.push(Xattr { name, value });
            }
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(errno) => problems.push(XattrProblem::Read { name: shown, error: errno.into() }),
        }
    }
    (found, problems)
}

/// Where a symbolic link leads, as it stands in the link.
pub fn link_target(dir: &Dir, name: &Name) -> io::Result<Vec<u8>> {
    Ok(readlinkat(dir, name.as_os(), Vec::new())?.into_bytes())
}

/// How the attributes are reached. Neither an `O_PATH` descriptor nor a name relative to a
/// directory has a system call of its own here; `/proc/self/fd` makes short paths of both.
enum Handle<'a> {
    Open(BorrowedFd<'a>),
    Through(OsString),
    Link(OsString),
}

impl<'a> Handle<'a> {
    fn new(owner: Owner<'a>) -> Self {
        match owner {
            Owner::Open(fd) => Self::Open(fd),
            Owner::Directory(dir) if dir.access() == Access::Read => Self::Open(dir.as_fd()),
            Owner::Directory(dir) => Self::Through(proc_path(dir)),
            Owner::Named(dir, name) => {
                let mut path = proc_path(dir);
                path.push("/");
                path.push(name.as_os());
                Self::Link(path)
            }
        }
    }

    /// All names, sorted, each once.
    fn list(&self) -> Result<Vec<CString>, Errno> {
        let bytes = fill(|buf: &mut [u8]| match self {
            Self::Open(fd) => flistxattr(fd, buf),
            Self::Through(path) => listxattr(path, buf),
            Self::Link(path) => llistxattr(path, buf),
        })?;
        let mut names: Vec<CString> = bytes
            .split_inclusive(|&b| b == 0)
            .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
            .filter(|name| !name.is_empty())
            .map(CStr::to_owned)
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn get(&self, name: &CStr) -> Result<Vec<u8>, Errno> {
        fill(|buf: &mut [u8]| match self {
            Self::Open(fd) => fgetxattr(fd, name, buf),
            Self::Through(path) => getxattr(path, name, buf),
            Self::Link(path) => lgetxattr(path, name, buf),
        })
    }
}

fn proc_path(dir: &Dir) -> OsString {
    OsString::from_vec(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()).into_bytes())
}

/// Calls `read` with larger and larger buffers until its answer fits. Linux stops at 64 KiB.
fn fill(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 512];
    match read(&mut small) {
        Ok(n) => return Ok(small[..n].to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut buf = vec![0; 64 << 10];
    loop {
        match read(&mut buf) {
            Ok(n) => {
                buf.truncate(n);
                buf.shrink_to_fit();
                return Ok(buf);
            }
            Err(Errno::RANGE) if buf.len() < XATTR_BYTES_MAX => buf.resize(buf.len() * 4, 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// Names of users and groups, each looked up once.
///
/// A number without a name has `None`, and so has one whose look-up failed; see
/// [`Owners::failure`].
#[derive(Debug, Default)]
pub struct Owners {
    users: HashMap<u32, Option<String>>,
    groups: HashMap<u32, Option<String>>,
    failure: Option<io::Error>,
}

impl Owners {
    /// Nothing looked up yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The user's name.
    pub fn user(&mut self, uid: u32) -> Option<&str> {
        let failure = &mut self.failure;
        let look = || match nix::unistd::User::from_uid(uid.into()) {
            Ok(user) => user.map(|user| user.name),
            Err(errno) => {
                failure.get_or_insert(errno.into());
                None
            }
        };
        self.users.entry(uid).or_insert_with(look).as_deref()
    }

    /// The group's name.
    pub fn group(&mut self, gid: u32) -> Option<&str> {
        let failure = &mut self.failure;
        let look = || match nix::unistd::Group::from_gid(gid.into()) {
            Ok(group) => group.map(|group| group.name),
            Err(errno) => {
                failure.get_or_insert(errno.into());
                None
            }
        };
        self.groups.entry(gid).or_insert_with(look).as_deref()
    }

    /// The first look-up that failed rather than found nothing: the snapshot has numbers only
    /// where it could have names.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::has_root;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::{XattrFlags, lsetxattr};

    use super::*;
    use crate::path::TreePath;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn open(path: &Path) -> Dir {
        let mut dir = Dir::open_top(Access::Pass).unwrap();
        for name in TreePath::from_os(&path.canonicalize().unwrap()).unwrap().components() {
            dir = dir.open_child(&name, Access::Read).unwrap();
        }
        dir
    }

    fn set(path: &Path, name: &str, value: &[u8]) {
        lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    }

    fn pairs(found: (Vec<Xattr>, Vec<XattrProblem>)) -> Vec<(String, Vec<u8>)> {
        assert!(found.1.is_empty(), "{:?}", found.1);
        // A machine with SELinux adds labels of its own.
        let own = found.0.into_iter().filter(|xattr| xattr.name != b"security.selinux");
        own.map(|xattr| (String::from_utf8(xattr.name).unwrap(), xattr.value)).collect()
    }

    /// An ACL as Linux stores it: user 1000 may read.
    fn acl() -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        for (tag, permissions, id) in
            [(1, 6, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)]
        {
            bytes.extend([tag, 0, permissions, 0]);
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn attributes_come_as_bytes_in_order_however_they_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let (file, sub) = (dir.path().join("f"), dir.path().join("d"));
        fs::write(&file, "x").unwrap();
        fs::create_dir(&sub).unwrap();
        let large = vec![7; 3000];
        for path in [&file, &sub] {
            set(path, "user.z", b"\0\xff");
            set(path, "user.a", &large);
            set(path, "user.empty", b"");
            set(path, "system.posix_acl_access", &acl());
        }
        let expected = [
            ("system.posix_acl_access".to_owned(), acl()),
            ("user.a".to_owned(), large),
            ("user.empty".to_owned(), vec![]),
            ("user.z".to_owned(), b"\0\xff".to_vec()),
        ];
        let parent = open(dir.path());
        let (by_name, opened) = (name("d"), fs::File::open(&file).unwrap());
        let (read, pass) = (open(&sub), parent.open_child(&by_name, Access::Pass).unwrap());
        let file_name = name("f");
        for owner in [
            Owner::Open(opened.as_fd()),
            Owner::Named(&parent, &file_name),
            Owner::Named(&parent, &by_name),
            Owner::Directory(&read),
            Owner::Directory(&pass),
        ] {
            assert_eq!(pairs(xattrs(owner)), expected, "{owner:?}");
        }
    }

    #[test]
    fn attributes_of_links_devices_and_programs_come_to_root() {
        if !has_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let parent = open(dir.path());
        let (link, fifo, program) = (dir.path().join("l"), dir.path().join("p"), dir.path().join("x"));
        symlink("nowhere/at all", &link).unwrap();
        rustix::fs::mknodat(&parent, "p", rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::write(&program, "#!").unwrap();
        set(&link, "trusted.l", b"1");
        set(&fifo, "trusted.p", b"2");
        // cap_net_raw, permitted and effective.
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        set(&program, "security.capability", &capability);
        for (at, attribute, value) in [
            ("l", "trusted.l", b"1".to_vec()),
            ("p", "trusted.p", b"2".to_vec()),
            ("x", "security.capability", capability.to_vec()),
        ] {
            assert_eq!(pairs(xattrs(Owner::Named(&parent, &name(at)))), [(attribute.to_owned(), value)]);
        }
        assert_eq!(link_target(&parent, &name("l")).unwrap(), b"nowhere/at all");
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let parent = open(dir.path());
        let (found, problems) = xattrs(Owner::Named(&parent, &name("gone")));
        assert!(found.is_empty() && matches!(problems[..], [XattrProblem::List(_)]), "{problems:?}");
        assert!(link_target(&parent, &name("gone")).is_err());
    }

    #[test]
    fn too_many_bytes_of_attributes_are_left_out_aloud() {
        let dir = tempfile::tempdir().unwrap();
        for attribute in ["user.a", "user.b", "user.c"] {
            set(dir.path(), attribute, &[1; 100]);
        }
        let (found, problems) = xattrs_within(Owner::Directory(&open(dir.path())), 250);
        assert_eq!(found.iter().filter(|xattr| xattr.name.starts_with(b"user.")).count(), 2);
        assert!(matches!(&problems[..], [XattrProblem::TooLarge { name }] if name == "user.c"), "{problems:?}");
    }

    #[test]
    fn a_link_target_longer_than_a_page_buffer_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = "long/".repeat(800);
        symlink(&target, dir.path().join("l")).unwrap();
        assert_eq!(link_target(&open(dir.path()), &name("l")).unwrap(), target.as_bytes());
    }

    #[test]
    fn owners_have_names_or_none() {
        let mut owners = Owners::new();
        assert_eq!(owners.user(0), Some("root"));
        assert_eq!(owners.group(0), Some("root"));
        assert_eq!(owners.user(4_242_424), None);
        assert_eq!(owners.group(4_242_424), None);
        assert!(owners.failure().is_none());
    }
}
