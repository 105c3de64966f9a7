//! Owner, extended attributes, mode and time of an entry, set through a descriptor of it.
//!
//! The order matters: changing the owner clears the setuid bits and file capabilities, setting an
//! ACL changes the mode, and everything but the time changes the time of nothing but still comes
//! before it. Setuid and setgid bits are left off a file whose owner or group could not be set:
//! they would lend the powers of somebody else.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::tally::Tally;
use super::target::{lock, proc_path};
use crate::format::tree::{Attributes, Xattr};
use crate::path::TreePath;
use crate::world::Time;

/// Longest list of attribute names or value that Linux gives.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Users, and groups, whose ids are remembered.
const NAMES_MAX: usize = 4096;

/// Which users and groups of a snapshot are whom here.
#[derive(Debug)]
pub(super) struct Owners {
    numeric: bool,
    privileged: bool,
    users: Mutex<HashMap<String, Option<u32>>>,
    groups: Mutex<HashMap<String, Option<u32>>>,
}

impl Owners {
    /// Names count before ids, unless `numeric`. Unless `privileged`, nothing is given away.
    pub(super) fn new(numeric: bool, privileged: bool) -> Self {
        Self { numeric, privileged, users: Mutex::default(), groups: Mutex::default() }
    }

    fn of(&self, attributes: &Attributes) -> (u32, u32) {
        let local =
            |names: &Mutex<HashMap<String, Option<u32>>>, name: &Option<String>, ask: fn(&str) -> Option<u32>| {
                let name = name.as_ref().filter(|_| !self.numeric)?;
                if let Some(known) = lock(names).get(name) {
                    return *known;
                }
                let id = ask(name);
                let mut names = lock(names);
                // Few in any true snapshot; a false one may have one for each entry.
                if names.len() >= NAMES_MAX {
                    names.clear();
                }
                names.insert(name.clone(), id);
                id
            };
        let user = |name: &str| nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        let group = |name: &str| nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
        (
            local(&self.users, &attributes.user, user).unwrap_or(attributes.uid),
            local(&self.groups, &attributes.group, group).unwrap_or(attributes.gid),
        )
    }
}

/// An entry to set attributes of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// A regular file or directory, open.
    Open(&'a OwnedFd),
    /// A fifo or device, open as a path only (`O_PATH`).
    Special(&'a OwnedFd),
    /// A symbolic link, open as a path only. It has no mode.
    Link(&'a OwnedFd),
}

impl Place<'_> {
    fn fd(&self) -> &OwnedFd {
        match self {
            Place::Open(fd) | Place::Special(fd) | Place::Link(fd) => fd,
        }
    }
}

/// Sets everything in `attributes`, collecting in `tally` what cannot be.
pub(super) fn apply(
    place: Place<'_>,
    attributes: &Attributes,
    owners: &Owners,
    tally: &Tally<'_>,
    path: &dyn Fn() -> TreePath,
) {
    let stat = match rustix::fs::fstat(place.fd()) {
        Ok(stat) => stat,
        Err(why) => return tally.unset("attributes", path, why),
    };
    let settable = (!owners.privileged).then(|| attributes.without_privilege(stat.st_uid, stat.st_gid));
    let attributes = settable.as_ref().unwrap_or(attributes);
    let lost = set_owner(place, &stat, owners.of(attributes)).unwrap_or_else(|(lost, why)| {
        tally.unset("the owner", path, why);
        lost
    });
    set_xattrs(place, &attributes.xattrs, tally, path);
    if !matches!(place, Place::Link(_)) {
        let mode = attributes.mode & !lost;
        if mode != attributes.mode {
            tally.unset("setuid or setgid", path, Errno::PERM);
        }
        if let Err(why) = set_mode(place, mode) {
            tally.unset("the mode", path, why);
        }
    }
    if let Err(why) = set_mtime(place, attributes.mtime) {
        tally.unset("the time", path, why);
    }
}

/// Sets owner and group, or one of them where only one may be set. An error says which mode bits
/// must then not be set.
fn set_owner(place: Place<'_>, now: &Stat, (uid, gid): (u32, u32)) -> Result<u32, (u32, Errno)> {
    if (now.st_uid, now.st_gid) == (uid, gid) {
        return Ok(0);
    }
    // u32::MAX means "leave it" to the kernel, so it cannot be an owner.
    let user = (uid != u32::MAX).then(|| Uid::from_raw(uid));
    let group = (gid != u32::MAX).then(|| Gid::from_raw(gid));
    let chown = |user, group| match place {
        Place::Open(fd) => rustix::fs::fchown(fd, user, group),
        Place::Special(fd) | Place::Link(fd) => rustix::fs::chownat(fd, c"", user, group, AtFlags::EMPTY_PATH),
    };
    let Err(why) = chown(user, group) else { return Ok(0) };
    let group_set = now.st_gid == gid || chown(None, group).is_ok();
    let user_set = now.st_uid == uid || chown(user, None).is_ok();
    if user_set && group_set {
        return Ok(0);
    }
    Err((if user_set { 0 } else { 0o4000 } | if group_set { 0 } else { 0o2000 }, why))
}

fn set_mode(place: Place<'_>, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode);
    match place {
        Place::Open(fd) => rustix::fs::fchmod(fd, mode),
        Place::Special(fd) => rustix::fs::chmodat(CWD, proc_path(fd), mode, AtFlags::empty()),
        Place::Link(_) => Ok(()),
    }
}

fn set_mtime(place: Place<'_>, mtime: Time) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: i64::from(mtime.nanos) },
    };
    match place {
        Place::Open(fd) => rustix::fs::futimens(fd, &times)?,
        Place::Special(fd) | Place::Link(fd) => {
            match rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH) {
                // Before Linux 5.8.
                Err(Errno::INVAL) => rustix::fs::utimensat(CWD, proc_path(fd), &times, AtFlags::empty())?,
                set => set?,
            }
        }
    }
    // Outside its range a file system silently takes the nearest time it has.
    if !(0..=i64::from(i32::MAX)).contains(&mtime.secs) && rustix::fs::fstat(place.fd())?.st_mtime != mtime.secs {
        return Err(Errno::OVERFLOW);
    }
    Ok(())
}

/// Sets the extended attributes, and removes those of the user and ACLs (a directory's default
/// ACL is inherited by what is made in it) that are not wanted.
fn set_xattrs(place: Place<'_>, wanted: &[Xattr], tally: &Tally<'_>, path: &dyn Fn() -> TreePath) {
    let found = match list(place) {
        Ok(found) => found,
        // File systems without extended attributes have none too many.
        Err(Errno::NOTSUP) => Vec::new(),
        Err(why) => {
            tally.unset("extended attributes", path, why);
            Vec::new()
        }
    };
    for name in &found {
        let ours = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
        if ours
            && !wanted.iter().any(|xattr| xattr.name == *name)
            && let Err(why) = remove(place, name)
            && why != Errno::NODATA
        {
            tally.unset(kind_of(name), path, why);
        }
    }
    for xattr in wanted {
        if found.contains(&xattr.name) && get(place, &xattr.name).is_ok_and(|value| value == xattr.value) {
            continue;
        }
        let mut outcome = set(place, xattr);
        if outcome == Err(Errno::ACCESS) {
            // Attributes of the user need write permission; the mode proper is set next.
            outcome = set_mode(place, 0o700).and_then(|()| set(place, xattr));
        }
        if let Err(why) = outcome {
            tally.unset(kind_of(&xattr.name), path, why);
        }
    }
}

/// What sort of attribute failed, for people.
fn kind_of(name: &[u8]) -> String {
    match name {
        b"security.capability" => "file capabilities".to_owned(),
        _ if name.starts_with(b"system.posix_acl_") => "ACLs".to_owned(),
        _ => {
            // The namespaces that Linux has, so that there are few kinds whatever a snapshot says.
            let namespaces = ["user", "trusted", "security", "system"];
            let namespace = name.split(|&b| b == b'.').next().unwrap_or(name);
            match namespaces.iter().find(|known| known.as_bytes() == namespace) {
                Some(namespace) => format!("extended attributes of `{namespace}`"),
                None => "extended attributes of no namespace that is known".to_owned(),
            }
        }
    }
}

fn set(place: Place<'_>, xattr: &Xattr) -> Result<(), Errno> {
    let (name, value, flags) = (&*xattr.name, &*xattr.value, XattrFlags::empty());
    match place {
        Place::Open(fd) => rustix::fs::fsetxattr(fd, name, value, flags),
        Place::Special(fd) | Place::Link(fd) => rustix::fs::setxattr(proc_path(fd), name, value, flags),
    }
}

fn remove(place: Place<'_>, name: &[u8]) -> Result<(), Errno> {
    match place {
        Place::Open(fd) => rustix::fs::fremovexattr(fd, name),
        Place::Special(fd) | Place::Link(fd) => rustix::fs::removexattr(proc_path(fd), name),
    }
}

fn get(place: Place<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut value = Vec::with_capacity(XATTR_BYTES_MAX);
    let buffer = rustix::buffer::spare_capacity(&mut value);
    match place {
        Place::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer)?,
        Place::Special(fd) | Place::Link(fd) => rustix::fs::getxattr(proc_path(fd), name, buffer)?,
    };
    Ok(value)
}

fn list(place: Place<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    // Most entries have none, and asking for the length alone is the cheapest question.
    let length = match place {
        Place::Open(fd) => rustix::fs::flistxattr_query(fd)?,
        Place::Special(fd) | Place::Link(fd) => rustix::fs::listxattr_query(proc_path(fd))?,
    };
    if length == 0 {
        return Ok(Vec::new());
    }
    let mut names = Vec::with_capacity(XATTR_BYTES_MAX);
    let buffer = rustix::buffer::spare_capacity(&mut names);
    match place {
        Place::Open(fd) => rustix::fs::flistxattr(fd, buffer)?,
        Place::Special(fd) | Place::Link(fd) => rustix::fs::listxattr(proc_path(fd), buffer)?,
    };
    Ok(names.split(|&b| b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}
