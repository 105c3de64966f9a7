//! Symbolic links, fifos and devices: made in one step, and never opened for real.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{self, Place};
use super::file::{Existing, Files, LinkSource, made_or_replaced};
use super::tally::count;
use super::target::{Dir, Inode, file_type, lock};
use crate::format::tree::{Attributes, Detail};
use crate::path::Name;

/// Makes the entry, in the place of what is there, unless that is the same already.
pub(super) fn restore(
    files: &Files<'_>,
    (dir, name): (&Arc<Dir>, &Name),
    attributes: &Attributes,
    detail: &Detail,
    existing: Option<Existing>,
    link: Option<&LinkSource>,
) {
    let (tally, path) = (files.tally, || dir.path_of(name));
    let change = |made: bool| match &existing {
        Some(existing) if !made => existing.adjusted_to(attributes),
        existing => made_or_replaced(existing.as_ref()),
    };
    match put(files, dir, name, attributes, detail, existing) {
        Ok((inode, made)) => {
            if let Some(link) = link {
                *lock(&link.inode) = Some(inode);
            }
            count(if made { &tally.counts.others } else { &tally.counts.unchanged }, 1);
            tally.changed(change(made), path);
            tally.monitor.done(1, 0);
        }
        Err(why @ Errno::PERM) if matches!(detail, Detail::CharDevice { .. } | Detail::BlockDevice { .. }) => {
            tally.unset("device nodes", path, why);
        }
        Err(why) => tally.refused(&path(), "not restored", why),
    }
}

/// Counts what [`restore`] would do.
pub(super) fn rehearse(
    files: &Files<'_>,
    (dir, name): (&Arc<Dir>, &Name),
    attributes: &Attributes,
    detail: &Detail,
    existing: Option<Existing>,
    link: Option<&LinkSource>,
) {
    let in_place = existing.is_some_and(|_| {
        let found = files.target.fd(dir).and_then(|fd| open(&fd, name));
        found.is_ok_and(|(fd, stat)| is_in_place(&fd, &stat, attributes, detail).unwrap_or(false))
    });
    let change = match existing {
        Some(existing) if in_place => existing.adjusted_to(attributes),
        existing => made_or_replaced(existing.as_ref()),
    };
    if let (Some(link), Some(existing), true) = (link, existing, in_place) {
        *lock(&link.inode) = Some(existing.inode);
    }
    count(if in_place { &files.tally.counts.unchanged } else { &files.tally.counts.others }, 1);
    files.tally.changed(change, || dir.path_of(name));
    files.tally.monitor.done(1, 0);
}

/// Its inode, and whether it had to be made.
fn put(
    files: &Files<'_>,
    dir: &Arc<Dir>,
    name: &Name,
    attributes: &Attributes,
    detail: &Detail,
    existing: Option<Existing>,
) -> Result<(Inode, bool), Errno> {
    let dir_fd = files.target.fd(dir)?;
    let set = |fd: &OwnedFd| {
        let place = if matches!(detail, Detail::Symlink { .. }) { Place::Link(fd) } else { Place::Special(fd) };
        attributes::apply(place, attributes, files.owners, files.tally, &|| dir.path_of(name));
    };
    if existing.is_some() {
        let (fd, stat) = open(&dir_fd, name)?;
        if is_in_place(&fd, &stat, attributes, detail)? {
            set(&fd);
            return Ok((Inode::of(&stat), false));
        }
    }
    let made = if existing.is_some() { files.target.temporary_name() } else { name.clone() };
    match detail {
        Detail::Symlink { target } => rustix::fs::symlinkat(&**target, &*dir_fd, made.as_os())?,
        _ => {
            let (kind, device) = node(detail);
            rustix::fs::mknodat(&*dir_fd, made.as_os(), kind, Mode::RUSR | Mode::WUSR, device)?;
        }
    }
    let (fd, stat) = open(&dir_fd, &made)?;
    // Only what was made just now may be given away: in a directory that others may write to it
    // could have been exchanged for something of theirs or, worse, of somebody else.
    let ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_nlink == 1;
    if !ours || !same_kind(&stat, detail) || !same_target(&fd, detail)? {
        return Err(Errno::STALE);
    }
    set(&fd);
    if made != *name {
        let renamed = rustix::fs::renameat(&*dir_fd, made.as_os(), &*dir_fd, name.as_os());
        if renamed.is_err() {
            rustix::fs::unlinkat(&*dir_fd, made.as_os(), AtFlags::empty())?;
        }
        renamed?;
    }
    Ok((Inode::of(&stat), true))
}

fn open(dir_fd: &OwnedFd, name: &Name) -> Result<(OwnedFd, Stat), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir_fd, name.as_os(), flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok((fd, stat))
}

/// Whether what was found is the entry already, but for attributes.
fn is_in_place(fd: &OwnedFd, stat: &Stat, attributes: &Attributes, detail: &Detail) -> Result<bool, Errno> {
    let shared = stat.st_nlink > 1 && attributes.link_group.is_none();
    Ok(!shared && same_kind(stat, detail) && same_target(fd, detail)?)
}

fn node(detail: &Detail) -> (FileType, u64) {
    match *detail {
        Detail::CharDevice { major, minor } => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
        Detail::BlockDevice { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
        Detail::Symlink { .. } => (FileType::Symlink, 0),
        Detail::Fifo => (FileType::Fifo, 0),
        Detail::File { .. } | Detail::Directory { .. } => {
            unreachable!("the walk sends files and directories elsewhere")
        }
    }
}

fn same_kind(stat: &Stat, detail: &Detail) -> bool {
    let (kind, device) = node(detail);
    let has_device = matches!(detail, Detail::CharDevice { .. } | Detail::BlockDevice { .. });
    file_type(stat) == kind && (!has_device || stat.st_rdev == device)
}

fn same_target(fd: &OwnedFd, detail: &Detail) -> Result<bool, Errno> {
    match detail {
        Detail::Symlink { target } => Ok(rustix::fs::readlinkat(fd, c"", Vec::new())?.as_bytes() == target),
        _ => Ok(true),
    }
}
