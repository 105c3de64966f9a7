//! `delete`: removing from the target what the snapshot does not have.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir as Listing, FileType};
use rustix::io::Errno;

use super::tally::{Tally, count};
use super::target::{Dir, Target, file_type, look};
use crate::path::{Name, TreePath};

/// The names in a directory in ascending order, `.` and `..` left out.
pub(super) fn names_in(fd: &OwnedFd) -> Result<Vec<Name>, Errno> {
    let mut names = Vec::new();
    for entry in Listing::read_from(fd)? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes != b"." && bytes != b".." {
            names.push(Name::new(bytes).map_err(|_| Errno::ILSEQ)?);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes `name` in `dir` with everything below it, which is at `path` in the snapshot's terms.
///
/// Links are removed and never followed, and mounted file systems are not entered. What cannot be
/// removed is reported and stays, with the directories that lead to it.
pub(super) fn remove(target: &Target, dir: &Arc<Dir>, name: &Name, path: &TreePath, tally: &Tally<'_>) {
    let refused = |path: &TreePath, why| tally.refused(path, "could not be removed", why);
    let Some(device) = target.fd(dir).and_then(|fd| rustix::fs::fstat(&*fd)).map(|stat| stat.st_dev).ok() else {
        return refused(path, Errno::STALE);
    };
    // Each level: the directory, the names in it still to be removed; `at` is the path of the last.
    let mut stack = vec![(Arc::clone(dir), vec![name.clone()].into_iter())];
    let mut own_names: Vec<Name> = Vec::new();
    let mut at = path.clone();
    at.pop();
    while let Some((dir, names)) = stack.last_mut() {
        if tally.stopping() {
            return;
        }
        let Some(name) = names.next() else {
            stack.pop();
            if let (Some((above, _)), Some(own)) = (stack.last(), own_names.pop()) {
                let removed = target.fd(above);
                match removed.and_then(|fd| rustix::fs::unlinkat(&*fd, own.as_os(), AtFlags::REMOVEDIR)) {
                    Ok(()) => count(&tally.counts.deleted, 1),
                    Err(why) => refused(&at, why),
                }
                at.pop();
            }
            continue;
        };
        match take(target, dir, &name, device) {
            Ok(Some((below, names))) => {
                stack.push((below, names.into_iter()));
                at.push(&name);
                own_names.push(name);
            }
            Ok(None) => count(&tally.counts.deleted, 1),
            Err(why) => refused(&at.join(&name), why),
        }
    }
}

/// A directory and the names in it.
type Entered = (Arc<Dir>, Vec<Name>);

/// Removes `name` unless it is a directory, which is entered.
fn take(target: &Target, dir: &Arc<Dir>, name: &Name, device: u64) -> Result<Option<Entered>, Errno> {
    let fd = target.fd(dir)?;
    let Some(stat) = look(&fd, name)? else { return Ok(None) };
    if file_type(&stat) != FileType::Directory {
        rustix::fs::unlinkat(&*fd, name.as_os(), AtFlags::empty())?;
        return Ok(None);
    }
    if stat.st_dev != device {
        return Err(Errno::XDEV);
    }
    let below = target.enter_dir(dir, name)?;
    let names = names_in(&*target.fd(&below)?)?;
    Ok(Some((below, names)))
}
