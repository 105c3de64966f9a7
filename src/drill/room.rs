//! The directory that a drill takes place in: new, closed to everybody else, and gone afterwards.
//!
//! It is made below a directory that others may write to (`/tmp`, a volume of a container), so it is known by a
//! descriptor and not by its path: whoever renames it, or puts a link in its place, leads no restore and no
//! removal elsewhere. A drill that is killed leaves its directory behind, with plain data in it. So each is
//! locked while it is in use, and the next drill in the same place removes those that nobody holds.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Kind, Result};
use crate::id::hex;
use crate::world::World;

/// What directories that may be removed begin with; so many hexadecimal digits follow.
const PREFIX: &str = "esker-drill-";
const DIGITS: usize = 16;

/// What those begin with that are to be kept.
const KEPT: &str = "esker-drill-kept-";

/// Where in it the restore goes: its top gets the mode that was recorded.
const RESTORED: &str = "restored";

/// How often another name is tried.
const TRIES_MAX: usize = 16;

/// A drill's own directory. Dropped, it is removed, unless it is to be kept.
#[derive(Debug)]
pub(super) struct Room {
    above: OwnedFd,
    name: CString,
    fd: OwnedFd,
    path: PathBuf,
    keep: bool,
    removed: bool,
}

/// What a file system has left for this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    pub(super) bytes: u64,
    /// `None` where as many files as one likes can be made.
    pub(super) files: Option<u64>,
}

impl Room {
    /// Makes the directory below `base`, which is there, and removes what killed drills left there.
    pub(super) fn make(base: &Path, world: &World, keep: bool) -> Result<Self> {
        let what = || format!("no drill: cannot make a directory in `{}`", base.display());
        let base = base.canonicalize().context(what)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = rustix::fs::open(&base, flags, Mode::empty()).map_err(std::io::Error::from).context(what)?;
        clear_left_over(&above);
        for _ in 0..TRIES_MAX {
            let digits = hex(&world.random::<{ DIGITS / 2 }>());
            let name = format!("{}{digits}", if keep { KEPT } else { PREFIX });
            let c_name = CString::new(name.as_str()).expect("digits and letters");
            match rustix::fs::mkdirat(&above, &*c_name, Mode::RWXU) {
                Err(Errno::EXIST) => continue,
                made => made.map_err(std::io::Error::from).context(what)?,
            }
            let taken = take(&above, &c_name).map_err(std::io::Error::from).context(what)?;
            let Some(fd) = taken else { continue };
            return Ok(Self { above, name: c_name, fd, path: base.join(name), keep, removed: false });
        }
        Err(Error::new(Kind::Refused, what()).because("what it makes there is taken away at once"))
    }

    /// Where the restore goes, by a path that leads nowhere else as long as this lives.
    pub(super) fn restored(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{RESTORED}", self.fd.as_raw_fd()))
    }

    /// The same, as others name it.
    pub(super) fn restored_path(&self) -> PathBuf {
        self.path.join(RESTORED)
    }

    /// The directory, as others name it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn free(&self) -> Result<Free> {
        let found = rustix::fs::fstatvfs(&self.fd).map_err(std::io::Error::from);
        let found = found.context(|| format!("no drill: cannot find out what room `{}` has", self.path.display()))?;
        Ok(Free {
            bytes: found.f_bavail.saturating_mul(found.f_frsize),
            files: (found.f_files > 0).then_some(found.f_favail),
        })
    }

    /// Removes it and all that is in it, unless it is to be kept.
    pub(super) fn remove(mut self) -> Result<()> {
        self.clear()
            .map_err(std::io::Error::from)
            .context(|| format!("`{}` is not removed: what was restored is still there", self.path.display()))
    }

    fn clear(&mut self) -> Result<(), Errno> {
        if self.keep || std::mem::replace(&mut self.removed, true) {
            return Ok(());
        }
        empty(&self.fd)?;
        rustix::fs::unlinkat(&self.above, &*self.name, AtFlags::REMOVEDIR)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Who wants to know calls `remove`.
        let _ = self.clear();
    }
}

/// Opens and locks a directory of this user's that is closed to others. `None` when it is another's, in use, or
/// gone.
fn take(above: &OwnedFd, name: &CStr) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(above, name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(None),
        opened => opened?,
    };
    let locked = match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        // Where nothing can be locked, nothing is taken for left over either.
        locked => locked.is_ok(),
    };
    let stat = rustix::fs::fstat(&fd)?;
    let is_ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
    let is_new = !locked && is_ours && names(&fd)?.is_empty();
    Ok(((locked || is_new) && is_ours && stat.st_nlink > 0).then_some(fd))
}

/// Removes the directories of drills that were killed. What cannot be removed is no matter of this drill's.
fn clear_left_over(above: &OwnedFd) {
    let is_one = |name: &CStr| {
        let digits = name.to_bytes().strip_prefix(PREFIX.as_bytes());
        digits.is_some_and(|digits| digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit))
    };
    let Ok(found) = names_that(above, is_one) else { return };
    for name in found {
        if let Ok(Some(fd)) = take(above, &name)
            && rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok()
            && empty(&fd).is_ok()
        {
            let _ = rustix::fs::unlinkat(above, &*name, AtFlags::REMOVEDIR);
        }
    }
}

fn names(fd: &OwnedFd) -> Result<Vec<CString>, Errno> {
    names_that(fd, |_| true)
}

fn names_that(fd: &OwnedFd, wanted: impl Fn(&CStr) -> bool) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        if !is_dots(entry.file_name()) && wanted(entry.file_name()) {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// Removes all that is in a directory, however deep and wide it is, with two descriptors: what is in a directory
/// is removed, the directories in it are moved to the top, and come to their turn there.
fn empty(top: &OwnedFd) -> Result<(), Errno> {
    let device = rustix::fs::fstat(top)?.st_dev;
    let mut moved = 0_u64;
    loop {
        let mut found = false;
        for entry in Dir::read_from(top)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            found = true;
            let Some(below) = unlink_or_open(top, name, device)? else { continue };
            // A pass may miss what is moved while the directory is read; then there is another.
            loop {
                let mut left = false;
                for entry in Dir::read_from(&below)? {
                    let entry = entry?;
                    let name = entry.file_name();
                    if is_dots(name) {
                        continue;
                    }
                    left = true;
                    if unlink_or_open(&below, name, device)?.is_some() {
                        move_to(top, &below, name, &mut moved)?;
                    }
                }
                if !left {
                    break;
                }
            }
            drop(below);
            match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
                // Listed twice since the listing began.
                Err(Errno::NOENT) => {}
                gone => gone?,
            }
        }
        if !found {
            return Ok(());
        }
    }
}

/// Removes what is no directory; opens what is one, so that it can be emptied.
fn unlink_or_open(dir: &OwnedFd, name: &CStr, device: u64) -> Result<Option<OwnedFd>, Errno> {
    let stat: Stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        found => found?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        return Ok(None);
    }
    // Something was mounted there: it is not ours.
    if stat.st_dev != device {
        return Err(Errno::XDEV);
    }
    if stat.st_mode & 0o700 != 0o700 {
        rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map(Some)
}

fn move_to(top: &OwnedFd, from: &OwnedFd, name: &CStr, moved: &mut u64) -> Result<(), Errno> {
    loop {
        let new = CString::new(format!("moved-{moved}")).expect("digits and letters");
        *moved += 1;
        match rustix::fs::renameat_with(from, name, top, &*new, rustix::fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            // Some file systems cannot say no; onto a directory with something in it nothing is renamed.
            Err(Errno::INVAL) => match rustix::fs::renameat(from, name, top, &*new) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                renamed => return renamed,
            },
            renamed => return renamed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn listed(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Deeper than any path may be long, with directories nobody may enter and a link that leads out.
    #[test]
    fn a_room_is_removed_however_deep_it_is_and_nothing_outside_of_it() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("mine"), "mine").unwrap();
        let room = Room::make(base.path(), &World::seeded(1), false).unwrap();
        assert_eq!(fs::metadata(room.path()).unwrap().mode() & 0o7777, 0o700);
        let top = room.restored();
        fs::create_dir(&top).unwrap();
        symlink(base.path(), top.join("out")).unwrap();
        fs::create_dir_all(top.join("shut/inner")).unwrap();
        fs::write(top.join("shut/inner/file"), "x").unwrap();
        fs::set_permissions(top.join("shut/inner"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(top.join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
        let mut at = rustix::fs::open(&top, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).unwrap();
            rustix::fs::symlinkat("/", &at, "root").unwrap();
            at = rustix::fs::openat(&at, "deep", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        room.remove().unwrap();
        assert_eq!(listed(base.path()), ["mine"]);
    }

    #[test]
    fn what_a_killed_drill_left_is_removed_by_the_next_and_what_is_in_use_or_kept_is_not() {
        let base = tempfile::tempdir().unwrap();
        let world = World::seeded(2);
        let left = base.path().join("esker-drill-0123456789abcdef");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("secret"), "x").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o700)).unwrap();
        // These look like it, and are no such thing.
        fs::create_dir(base.path().join("esker-drill-0123")).unwrap();
        symlink("/usr", base.path().join("esker-drill-0123456789abcde0")).unwrap();
        let open = base.path().join("esker-drill-0123456789abcde1");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let others = listed(base.path()).len() - 1;

        let kept = Room::make(base.path(), &world, true).unwrap();
        assert!(!left.exists());
        let kept_path = kept.path().to_owned();
        kept.remove().unwrap();
        let in_use = Room::make(base.path(), &world, false).unwrap();
        let second = Room::make(base.path(), &world, false).unwrap();
        assert!(in_use.path().exists() && kept_path.exists());
        drop(second);
        let path = in_use.path().to_owned();
        drop(in_use);
        assert!(!path.exists());
        assert_eq!(listed(base.path()).len(), others + 1);
    }

    #[test]
    fn a_room_that_is_renamed_or_replaced_leads_nobody_elsewhere() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("victim")).unwrap();
        fs::write(base.path().join("victim/file"), "x").unwrap();
        let room = Room::make(base.path(), &World::seeded(3), false).unwrap();
        rustix::fs::rename(room.path(), base.path().join("stolen")).unwrap();
        symlink("victim", room.path()).unwrap();
        fs::create_dir(room.restored()).unwrap();
        fs::write(room.restored().join("data"), "x").unwrap();
        assert!(base.path().join("stolen/restored/data").exists());
        let error = room.remove().unwrap_err();
        assert!(error.to_string().contains("is not removed"), "{error}");
        assert_eq!(listed(&base.path().join("stolen")), Vec::<String>::new(), "the data is gone wherever it is");
        assert_eq!(listed(&base.path().join("victim")), ["file"]);
    }
}
