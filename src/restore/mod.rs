//! Restore: a snapshot back onto a file system, with everything Linux keeps.
//!
//! [`walk`] goes through the snapshot in tree order, makes directories, links and devices, and
//! collects files into windows. [`engine`] restores one window after the other, fetching data in
//! the order in which it is stored. [`target`] is the only way to reach a directory, [`file`] the
//! only one to write a file, [`attributes`] sets owner, mode, time and the rest. [`tally`] gathers
//! what was done and what could not be.
//!
//! Two promises hold whatever the repository holds and whoever else writes to the target: nothing
//! outside the target directory is touched, and no file gets bytes that are not the snapshot's.

use std::path::PathBuf;

use crate::error::Result;
use crate::format::tree::Entry;
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::reader::ReadRepo;

mod attributes;
mod engine;
mod extra;
mod fds;
mod file;
mod links;
mod special;
mod tally;
mod target;
#[cfg(test)]
mod tests;
mod walk;

pub use tally::Report;

/// What to do with files that are in the target already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Replace those that differ; every one is read and compared.
    #[default]
    Always,
    /// The same, but trust that files of equal size and time are equal.
    IfChanged,
    /// Replace only those with an older time than the snapshot's.
    IfNewer,
    /// Leave all of them alone.
    Never,
}

/// What a filter says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Restore it; what is below a directory is asked for on its own.
    Take,
    /// Not a directory's own entry, but look below it: it is made if something there is taken.
    Look,
    /// Neither it nor anything below it.
    Skip,
}

/// Selects what to restore: a path in the snapshot, and whether it is a directory.
pub type Filter<'a> = dyn Fn(&TreePath, bool) -> Selection + Sync + 'a;

/// What becomes of an entry in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is made where nothing was.
    Made,
    /// It takes the place of something else.
    Replaced,
    /// Its content is right and stays; mode, owner or time are put right.
    Adjusted,
    /// It is as it should be.
    Unchanged,
    /// It is left alone because `overwrite` says so.
    Skipped,
    /// It is removed because the snapshot does not have it.
    Deleted,
}

/// Is told what becomes of each entry, directories that were there included, from all threads.
pub type Observer<'a> = dyn Fn(&TreePath, Change) + Sync + 'a;

/// What to restore and how.
pub struct Options<'a> {
    /// The directory to restore into; made if it is not there.
    pub target: PathBuf,
    /// Which paths to restore; all when `None`.
    pub filter: Option<&'a Filter<'a>>,
    /// Take owners by id even where their names are known here.
    pub numeric_ids: bool,
    /// How many threads fetch and write.
    pub threads: usize,
    /// Only count what would be done; files are compared, nothing is changed.
    pub dry_run: bool,
    /// What to do with files that are there already.
    pub overwrite: Overwrite,
    /// Remove what the snapshot does not have from the directories that it has, at and below
    /// `roots`; a file may then take the place of a directory that is not empty.
    pub delete: bool,
    /// What was backed up. Of the directories above, the snapshot has only what leads here.
    pub roots: Vec<TreePath>,
    /// Never deleted: the repository, the cache.
    pub spare: Vec<PathBuf>,
    /// Where to keep what memory has no room for, in files without a name.
    pub spill: PathBuf,
    /// Is told of everything that is done, or in a dry run would be.
    pub observer: Option<&'a Observer<'a>>,
    /// Read every file written again, from the disk, before it takes its place.
    pub verify: bool,
    /// Make device nodes; without it they are left out, and nothing is said of it.
    pub devices: bool,
    /// Set what only root may set: owners, setuid bits of others' files, attributes that belong to the
    /// system. Without it none of that is tried, and nothing is said of it.
    pub privileged: bool,
}

impl Options<'_> {
    /// Restores everything into `target`, replacing what differs.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self {
            target: target.into(),
            filter: None,
            numeric_ids: false,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            dry_run: false,
            overwrite: Overwrite::default(),
            delete: false,
            roots: vec![TreePath::root()],
            spare: Vec::new(),
            spill: std::env::temp_dir(),
            observer: None,
            verify: false,
            devices: true,
            privileged: true,
        }
    }
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("target", &self.target)
            .field("overwrite", &self.overwrite)
            .field("delete", &self.delete)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// Restores `base`, a path below the snapshot's `root`: a directory's contents go into the target
/// itself, anything else goes there under its name.
///
/// What cannot be restored is reported to the monitor and counted in the report while the rest
/// goes on. An error means that the restore as a whole was given up: interrupted, no space, the
/// repository out of reach; files not finished by then are removed again. Durable on return.
pub fn run(
    repo: &impl ReadRepo,
    root: &Entry,
    base: &TreePath,
    options: &Options<'_>,
    monitor: &Monitor,
) -> Result<Report> {
    walk::run(repo, root, base, options, monitor)
}
