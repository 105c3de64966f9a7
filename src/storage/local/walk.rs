//! Listing a directory tree: all of it or an error.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::Disk;
use crate::storage::{Listed, Result, name};

impl Disk {
    /// Lists what stands under `prefix`, which is empty or ends in a slash.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let fault = |directory: &str, errno| super::failure("cannot list", &self.path.join(directory), errno);
        let (mut listed, mut pending) = (Vec::new(), Vec::new());
        let mut buffer = Vec::with_capacity(NAMES_BYTES);
        match self.open_directory(prefix) {
            Ok(fd) => self.list_one(prefix, Rc::new(fd), &mut buffer, &mut listed, &mut pending)?,
            // Nothing can stand under what is not there or is an object.
            Err(Errno::NOENT | Errno::NOTDIR) if !prefix.is_empty() => {}
            Err(errno) => return Err(fault(prefix, errno)),
        }
        while let Some((around, directory)) = pending.pop() {
            let component = directory.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            match open_in(&around, component) {
                Ok(fd) => self.list_one(&directory, Rc::new(fd), &mut buffer, &mut listed, &mut pending)?,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(fault(&directory, errno)),
            }
        }
        listed.sort();
        // A directory that changes while it is read may show a name twice.
        listed.dedup_by(|a, b| a.name == b.name);
        Ok(listed)
    }

    /// Adds the objects of one directory, just opened, to `listed` and its subdirectories to `pending`.
    fn list_one(
        &self,
        directory: &str,
        fd: Rc<OwnedFd>,
        buffer: &mut Vec<u8>,
        listed: &mut Vec<Listed>,
        pending: &mut Vec<(Rc<OwnedFd>, String)>,
    ) -> Result<()> {
        let mut entries = RawDir::new(&*fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| super::failure("cannot list", &self.path.join(directory), errno))?;
            let Ok(file_name) = entry.file_name().to_str() else { continue };
            if !name::is_component(file_name) || directory.is_empty() && file_name == name::TEMPORARY {
                continue;
            }
            let name = format!("{directory}{file_name}");
            if entry.file_type() == FileType::Directory {
                pending.push((fd.clone(), name + "/"));
                continue;
            }
            match rustix::fs::statat(&*fd, file_name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => pending.push((fd.clone(), name + "/")),
                Ok(stat) => {
                    let bytes = self.object_bytes(&name, &stat)?;
                    listed.push(Listed { name, bytes });
                }
                // Deleted since its name was read.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(super::failure("cannot look at", &self.path.join(&name), errno)),
            }
        }
        Ok(())
    }

    /// Opens a directory below the root, by no symbolic link: that is [`Errno::LOOP`], and
    /// anything else that is no directory [`Errno::NOTDIR`].
    pub(super) fn open_directory(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        let mut fd = rustix::fs::openat(&self.root, ".", FLAGS, Mode::empty())?;
        for component in path.split('/').filter(|component| !component.is_empty()) {
            fd = open_in(&fd, component)?;
        }
        Ok(fd)
    }
}

/// How directories are opened.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Names are read from the system in blocks of this size.
const NAMES_BYTES: usize = 32 << 10;

fn open_in(directory: &OwnedFd, component: &str) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(directory, component, FLAGS, Mode::empty()) {
        Err(Errno::NOTDIR) => {
            let stat = rustix::fs::statat(directory, component, AtFlags::SYMLINK_NOFOLLOW)?;
            let symlink = FileType::from_raw_mode(stat.st_mode).is_symlink();
            Err(if symlink { Errno::LOOP } else { Errno::NOTDIR })
        }
        opened => opened,
    }
}
