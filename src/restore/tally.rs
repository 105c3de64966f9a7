//! What a restore did and what it could not do.
//!
//! A file whose data is missing is named at once. An attribute that cannot be set, by contrast,
//! usually cannot be set anywhere (the owner, without being root), so such failures are counted
//! by kind and reported once each, with an example, when the restore ends.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::Errno;

use super::target::lock;
use super::{Change, Observer};
use crate::error::{Error, Kind};
use crate::monitor::{Monitor, Severity};
use crate::path::TreePath;

/// How many damaged files a [`Report`] names.
const DAMAGED_NAMED_MAX: usize = 1000;

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Regular files written, hard links not counted.
    pub files: u64,
    /// Directories made or given their attributes.
    pub directories: u64,
    /// Symbolic links, fifos and devices made.
    pub others: u64,
    /// Further names of files, made as hard links.
    pub hard_links: u64,
    /// Files and others left alone because they were the same already.
    pub unchanged: u64,
    /// Files and others left alone because `overwrite` said so.
    pub skipped: u64,
    /// Entries removed from the target because the snapshot does not have them.
    pub deleted: u64,
    /// Bytes of content of the files written.
    pub bytes_restored: u64,
    /// Bytes of content that were in place already.
    pub bytes_unchanged: u64,
    /// Entries or attributes that could not be restored; not zero is exit code 5.
    pub problems: u64,
    /// Files that were not restored because their data is missing or damaged.
    pub damaged_count: u64,
    /// The first thousand of them.
    pub damaged: Vec<TreePath>,
    /// Directories that could not be read in full: what else was in them is not known.
    pub directories_damaged: u64,
}

/// Counts of what is done, from all threads.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) files: AtomicU64,
    pub(super) directories: AtomicU64,
    pub(super) others: AtomicU64,
    pub(super) hard_links: AtomicU64,
    pub(super) unchanged: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) deleted: AtomicU64,
    pub(super) bytes_restored: AtomicU64,
    pub(super) bytes_unchanged: AtomicU64,
    directories_damaged: AtomicU64,
    problems: AtomicU64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

#[derive(Debug)]
struct Unset {
    entries: u64,
    example: TreePath,
    why: Errno,
}

/// Collects the outcome of one restore. Used by all its threads.
pub(super) struct Tally<'m> {
    pub(super) counts: Counts,
    pub(super) monitor: &'m Monitor,
    observer: Option<&'m Observer<'m>>,
    unset: Mutex<BTreeMap<String, Unset>>,
    damaged: Mutex<(u64, Vec<TreePath>)>,
    halted: AtomicBool,
    fatal: Mutex<Option<Error>>,
}

impl std::fmt::Debug for Tally<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl<'m> Tally<'m> {
    pub(super) fn new(monitor: &'m Monitor, observer: Option<&'m Observer<'m>>) -> Self {
        Self {
            counts: Counts::default(),
            monitor,
            observer,
            unset: Mutex::default(),
            damaged: Mutex::default(),
            halted: AtomicBool::new(false),
            fatal: Mutex::default(),
        }
    }

    /// Tells who wants to know what becomes of an entry.
    pub(super) fn changed(&self, change: Change, path: impl FnOnce() -> TreePath) {
        if let Some(observer) = self.observer {
            observer(&path(), change);
        }
    }

    /// Gives the whole restore up, for the first reason given.
    pub(super) fn halt(&self, error: Error) {
        lock(&self.fatal).get_or_insert(error);
        self.halted.store(true, Ordering::Relaxed);
    }

    /// Whether to stop as soon as what is unfinished has been put away.
    pub(super) fn stopping(&self) -> bool {
        self.halted.load(Ordering::Relaxed) || self.monitor.stopping()
    }

    /// Why the restore as a whole did not go through, if it did not.
    pub(super) fn stopped(&self) -> Option<Error> {
        let interrupted = || Error::new(Kind::Interrupted, "the restore was interrupted");
        lock(&self.fatal).take().or_else(|| self.monitor.stopping().then(interrupted))
    }

    /// Reports that `path` was not restored, or not in full.
    pub(super) fn problem(&self, path: &TreePath, message: impl Into<String>) {
        count(&self.counts.problems, 1);
        self.monitor.problem(Severity::Error, path.to_string(), message);
    }

    /// Reports that `path` was not restored because the system refused `action`. Where the target
    /// takes no more at all, that ends the restore.
    pub(super) fn refused(&self, path: &TreePath, action: &str, why: Errno) {
        if matches!(why, Errno::NOSPC | Errno::DQUOT | Errno::ROFS) {
            let what = format!("the restore stopped at `{path}`: the target takes no more");
            return self.halt(Error::new(Kind::Failed, what).because(std::io::Error::from(why)));
        }
        self.problem(path, format!("{action}: {}", std::io::Error::from(why)));
    }

    /// Reports that `path` was not restored because its data is missing or damaged.
    pub(super) fn damaged(&self, path: TreePath, error: &Error) {
        self.problem(&path, format!("not restored: {}", error.with_causes()));
        let mut damaged = lock(&self.damaged);
        damaged.0 += 1;
        if damaged.1.len() < DAMAGED_NAMED_MAX {
            damaged.1.push(path);
        }
    }

    /// Reports that the directory at `path` cannot be read in full.
    pub(super) fn not_read(&self, path: &TreePath, error: &Error) {
        if error.kind() == Kind::Damaged {
            count(&self.counts.directories_damaged, 1);
        }
        self.problem(path, format!("some of what was in it is not restored: {}", error.with_causes()));
    }

    /// Notes that `kind` ("the owner", "device nodes") could not be set on the entry at `path`.
    pub(super) fn unset(&self, kind: impl Into<String>, path: impl FnOnce() -> TreePath, why: Errno) {
        count(&self.counts.problems, 1);
        lock(&self.unset).entry(kind.into()).and_modify(|unset| unset.entries += 1).or_insert_with(|| Unset {
            entries: 1,
            example: path(),
            why,
        });
    }

    /// Reports what was collected by kind, and the sum of everything.
    pub(super) fn finish(self) -> Report {
        for (kind, unset) in lock(&self.unset).iter() {
            let others = match unset.entries {
                1 => String::new(),
                entries => format!(" (and on {} more)", entries - 1),
            };
            let message = format!("{kind} could not be restored{others}: {}", std::io::Error::from(unset.why));
            self.monitor.problem(Severity::Error, unset.example.to_string(), message);
        }
        let (damaged_count, damaged) = std::mem::take(&mut *lock(&self.damaged));
        let counts = self.counts;
        Report {
            files: counts.files.into_inner(),
            directories: counts.directories.into_inner(),
            others: counts.others.into_inner(),
            hard_links: counts.hard_links.into_inner(),
            unchanged: counts.unchanged.into_inner(),
            skipped: counts.skipped.into_inner(),
            deleted: counts.deleted.into_inner(),
            bytes_restored: counts.bytes_restored.into_inner(),
            bytes_unchanged: counts.bytes_unchanged.into_inner(),
            problems: counts.problems.into_inner(),
            damaged_count,
            damaged,
            directories_damaged: counts.directories_damaged.into_inner(),
        }
    }
}
