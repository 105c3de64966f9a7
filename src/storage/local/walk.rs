//! Listing a directory tree: all of it or an error.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Disk;
use crate::storage::{Listed, Result, name};

impl Disk {
    /// Lists what stands under `prefix`, which is empty or ends in a slash.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let mut pending = vec![prefix.to_owned()];
        while let Some(directory) = pending.pop() {
            match self.open_directory(&directory) {
                Ok(fd) => self.list_one(&directory, &fd, &mut listed, &mut pending)?,
                // Nothing can stand under what is not there or is an object.
                Err(Errno::NOENT | Errno::NOTDIR) if !directory.is_empty() => {}
                Err(errno) => return Err(super::failure("cannot list", &self.path.join(&directory), errno)),
            }
        }
        listed.sort();
        // A directory that changes while it is read may show a name twice.
        listed.dedup_by(|a, b| a.name == b.name);
        Ok(listed)
    }

    /// Adds the objects of one directory to `listed` and its subdirectories to `pending`.
    fn list_one(
        &self,
        directory: &str,
        fd: &OwnedFd,
        listed: &mut Vec<Listed>,
        pending: &mut Vec<String>,
    ) -> Result<()> {
        let fault = |errno| super::failure("cannot list", &self.path.join(directory), errno);
        for entry in Dir::read_from(fd).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let Ok(file_name) = entry.file_name().to_str() else { continue };
            if !name::is_component(file_name) || directory.is_empty() && file_name == name::TEMPORARY {
                continue;
            }
            let name = format!("{directory}{file_name}");
            match rustix::fs::statat(fd, file_name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => pending.push(name + "/"),
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
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut fd = rustix::fs::openat(&self.root, ".", flags, Mode::empty())?;
        for component in path.split('/').filter(|component| !component.is_empty()) {
            fd = match rustix::fs::openat(&fd, component, flags, Mode::empty()) {
                Err(Errno::NOTDIR) => {
                    let stat = rustix::fs::statat(&fd, component, AtFlags::SYMLINK_NOFOLLOW)?;
                    let symlink = FileType::from_raw_mode(stat.st_mode).is_symlink();
                    return Err(if symlink { Errno::LOOP } else { Errno::NOTDIR });
                }
                opened => opened?,
            };
        }
        Ok(fd)
    }
}
