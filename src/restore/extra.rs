//! `delete`: removing from the target what the snapshot does not have.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir as Listing, FileType};
use rustix::io::Errno;

use super::tally::{Tally, count};
use super::target::{Dir, Inode, Target, file_type, look};
use super::{Change, Filter, Options, Selection};
use crate::monitor::Severity;
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

/// What may be removed, and whether it is.
pub(super) struct Removal<'a> {
    target: &'a Target,
    tally: &'a Tally<'a>,
    filter: Option<&'a Filter<'a>>,
    dry_run: bool,
    /// Never removed, wherever they are found.
    spared: Vec<Inode>,
}

/// A directory on the way down, and the names in it still to be looked at.
struct Level {
    dir: Arc<Dir>,
    names: std::vec::IntoIter<Name>,
    /// Its own name, and whether it is to go when nothing is left in it; `None` at the top.
    own: Option<(Name, bool)>,
    /// Something in it stays.
    kept: bool,
}

/// What was found under a name.
enum Found {
    Nothing,
    Spared,
    Other,
    Directory(Arc<Dir>, Vec<Name>),
}

impl<'a> Removal<'a> {
    pub(super) fn new(target: &'a Target, tally: &'a Tally<'a>, options: &Options<'a>) -> Self {
        let spared = options.spare.iter().filter_map(|path| rustix::fs::stat(path).ok()).map(|stat| Inode::of(&stat));
        Self { target, tally, filter: options.filter, dry_run: options.dry_run, spared: spared.collect() }
    }

    /// Removes `name` in `dir` with everything below it, which is at `path` in the snapshot's terms,
    /// but for what the filter leaves out, and says whether nothing is left of it.
    ///
    /// Links are removed and never followed, and mounted file systems are not entered. What cannot
    /// be removed is reported and stays, with the directories that lead to it.
    pub(super) fn remove(&self, dir: &Arc<Dir>, name: &Name, path: &TreePath) -> bool {
        let Some(device) = self.target.fd(dir).and_then(|fd| rustix::fs::fstat(&*fd)).map(|stat| stat.st_dev).ok()
        else {
            self.refused(path, Errno::STALE);
            return false;
        };
        let mut at = path.clone();
        at.pop();
        let top = Level { dir: Arc::clone(dir), names: vec![name.clone()].into_iter(), own: None, kept: false };
        let mut stack = vec![top];
        loop {
            let level = stack.last_mut().expect("the top is left by returning");
            if self.tally.stopping() {
                return false;
            }
            let Some(name) = level.names.next() else {
                let Some(done) = stack.pop() else { return false };
                let (Some(above), Some((own, unwanted))) = (stack.last_mut(), done.own) else { return !done.kept };
                above.kept |= done.kept || !unwanted || !self.unlink(&above.dir, &own, AtFlags::REMOVEDIR, &at);
                at.pop();
                continue;
            };
            at.push(&name);
            match self.find(&level.dir, &name, device) {
                Ok(Found::Nothing) => {}
                Ok(Found::Spared) => {
                    level.kept = true;
                    let message = "not deleted: it belongs to the backup itself";
                    self.tally.monitor.problem(Severity::Warning, at.to_string(), message);
                }
                Ok(Found::Other) => {
                    let unwanted = self.selection(&at, false) == Selection::Take;
                    level.kept |= !unwanted || !self.unlink(&level.dir, &name, AtFlags::empty(), &at);
                }
                Ok(Found::Directory(dir, names)) => match self.selection(&at, true) {
                    Selection::Skip => level.kept = true,
                    selection => {
                        let own = Some((name, selection == Selection::Take));
                        stack.push(Level { dir, names: names.into_iter(), own, kept: false });
                        continue;
                    }
                },
                Err(why) => {
                    level.kept = true;
                    self.refused(&at, why);
                }
            }
            at.pop();
        }
    }

    fn refused(&self, path: &TreePath, why: Errno) {
        self.tally.refused(path, "could not be removed", why);
    }

    /// What the filter leaves out of the restore it also leaves in the target.
    fn selection(&self, path: &TreePath, directory: bool) -> Selection {
        self.filter.map_or(Selection::Take, |filter| filter(path, directory))
    }

    fn find(&self, dir: &Arc<Dir>, name: &Name, device: u64) -> Result<Found, Errno> {
        let fd = self.target.fd(dir)?;
        let Some(stat) = look(&fd, name)? else { return Ok(Found::Nothing) };
        if self.spared.contains(&Inode::of(&stat)) {
            return Ok(Found::Spared);
        }
        if file_type(&stat) != FileType::Directory {
            return Ok(Found::Other);
        }
        if stat.st_dev != device {
            return Err(Errno::XDEV);
        }
        let below = self.target.enter_dir(dir, name)?;
        let names = names_in(&*self.target.fd(&below)?)?;
        Ok(Found::Directory(below, names))
    }

    fn unlink(&self, dir: &Arc<Dir>, name: &Name, flags: AtFlags, path: &TreePath) -> bool {
        if !self.dry_run {
            let removed = self.target.fd(dir).and_then(|fd| rustix::fs::unlinkat(&*fd, name.as_os(), flags));
            if let Err(why) = removed {
                self.refused(path, why);
                return false;
            }
        }
        count(&self.tally.counts.deleted, 1);
        self.tally.changed(Change::Deleted, || path.clone());
        true
    }
}
