//! What a directory tree on disk is, as lines of text: two trees with the same lines are the same
//! to everything a backup keeps. Depends on nothing of ours, so that it cannot share our mistakes.

use std::collections::HashMap;
use std::fmt::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat};

/// One line for each entry below `top` in order of path, `top` itself (`.`) first: kind, mode,
/// owner, time, size, devices, link target, holes, content hash, extended attributes, and for
/// further names of a file the first one. Not recursive in the stack, but in descriptors.
pub(crate) fn lines(top: &Path) -> Vec<String> {
    let fd = open(&rustix::fs::openat(CWD, top, DIRECTORY, Mode::empty()).expect("the top is a directory"), b".");
    let stat = rustix::fs::fstat(&fd).unwrap();
    let mut lines = vec![describe(&fd, b".", b".", &stat, &mut HashMap::new())];
    let mut seen = HashMap::new();
    let names = names(&fd);
    let mut stack = vec![(fd, Vec::new(), names.into_iter())];
    while let Some((dir, path, names)) = stack.last_mut() {
        let Some(name) = names.next() else {
            stack.pop();
            continue;
        };
        let mut here: Vec<u8> = path.clone();
        if !here.is_empty() {
            here.push(b'/');
        }
        here.extend_from_slice(&name);
        let stat = rustix::fs::statat(&*dir, &*name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        lines.push(describe(dir, &name, &here, &stat, &mut seen));
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let below = open(dir, &name);
            let names = self::names(&below).into_iter();
            stack.push((below, here, names));
        }
    }
    lines
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open(dir: &OwnedFd, name: &[u8]) -> OwnedFd {
    rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()).unwrap()
}

fn names(dir: &OwnedFd) -> Vec<Vec<u8>> {
    let listing = Dir::read_from(dir).unwrap();
    let mut names: Vec<Vec<u8>> = listing.map(|entry| entry.unwrap().file_name().to_bytes().to_vec()).collect();
    names.retain(|name| name != b"." && name != b"..");
    names.sort();
    names
}

fn describe(dir: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat, seen: &mut HashMap<(u64, u64), String>) -> String {
    let shown = path.escape_ascii().to_string();
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mut line = format!("{shown} {kind:?} {:04o} {}:{}", stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
    write!(line, " {}.{:09}", stat.st_mtime, stat.st_mtime_nsec).unwrap();
    match kind {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).unwrap();
            write!(line, " size={} {} holes={:?}", stat.st_size, hash(&fd), holes(&fd, stat.st_size as u64)).unwrap();
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new()).unwrap();
            write!(line, " -> {}", target.to_bytes().escape_ascii()).unwrap();
        }
        FileType::CharacterDevice | FileType::BlockDevice => {
            write!(line, " {}:{}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)).unwrap();
        }
        _ => {}
    }
    for (name, value) in xattrs(dir, name) {
        write!(line, " [{}={}]", name.escape_ascii(), value.escape_ascii()).unwrap();
    }
    if kind != FileType::Directory && stat.st_nlink > 1 {
        match seen.get(&(stat.st_dev, stat.st_ino)) {
            Some(first) => write!(line, " same as {first}").unwrap(),
            None => drop(seen.insert((stat.st_dev, stat.st_ino), shown)),
        }
    }
    line
}

fn hash(fd: &OwnedFd) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut file = std::fs::File::from(fd.try_clone().unwrap());
    std::io::copy(&mut file, &mut hasher).unwrap();
    hasher.finalize().to_hex()[..16].to_owned()
}

/// The holes of an open file: offset and length.
pub(crate) fn holes(fd: &OwnedFd, size: u64) -> Vec<(u64, u64)> {
    let mut holes = Vec::new();
    let mut at = 0;
    while at < size {
        let start = rustix::fs::seek(fd, SeekFrom::Hole(at)).unwrap();
        if start >= size {
            break;
        }
        at = match rustix::fs::seek(fd, SeekFrom::Data(start)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => size,
            Err(errno) => panic!("{errno}"),
        };
        holes.push((start, at - start));
    }
    holes
}

/// The extended attributes of an entry, itself and not what it links to, in order of name.
pub(crate) fn xattrs(dir: &OwnedFd, name: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let mut list = vec![0; 65536];
    let length = match rustix::fs::llistxattr(&*path, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(errno) => panic!("{errno}"),
    };
    let mut xattrs = Vec::new();
    for name in list[..length].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(&*path, name, &mut value[..]).unwrap();
        value.truncate(length);
        xattrs.push((name.to_vec(), value));
    }
    xattrs.sort();
    xattrs
}
