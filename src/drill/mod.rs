//! Drills: is a snapshot restored, as it was recorded, in the time there would be?
//!
//! A snapshot, or a directory of one, is restored into a [`room`] of its own, as `restore` would. All that is
//! there is then read again and compared with what was recorded, as `diff` would: content, types, modes, owners,
//! times, attributes and hard links. A [`command`] of the user's may look at it, too. Then it is removed.
//!
//! What a drill does not do: device nodes are left out, since nobody should write to a disk by looking at what
//! was restored; and who is not root does not try what only root may do, and it is not compared.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::diff::local::Local;
use crate::diff::{Change, Found, Modified, Options as DiffOptions, Restored, With, run as diff};
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Detail, Entry};
use crate::monitor::{Monitor, Severity};
use crate::path::TreePath;
use crate::repo::drills::{Drill, Outcome};
use crate::repo::reader::{ReadRepo, find};
use crate::repo::snapshots::SnapshotInfo;
use crate::repo::walk::Walk;
use crate::restore::{self, Report as RestoreReport};
use crate::world::World;

pub mod command;
mod room;
#[cfg(test)]
mod tests;

use command::{Check, Checked};
use room::{Free, Room};

/// What a directory entry and an inode take at least, on common file systems.
const ENTRY_BYTES: u64 = 4096;

/// What to do besides restoring and comparing.
#[derive(Debug)]
pub struct Options {
    /// Below which directory it takes place; that is there.
    pub target: PathBuf,
    /// Leave what was restored there.
    pub keep: bool,
    /// The user's own check.
    pub check: Option<Check>,
    /// How long all of it may take.
    pub max_duration: Option<Duration>,
    /// When it began, by [`World::monotonic`]: before the repository was opened, if that is to count.
    pub began: Duration,
    /// How many threads fetch and write.
    pub threads: usize,
    /// Where to keep what memory has no room for.
    pub spill: PathBuf,
}

/// What is not as it was recorded.
#[derive(Debug)]
pub enum Wrong {
    /// It is not there.
    Missing,
    /// It is there and was not recorded.
    Extra,
    /// It is something else: a link, and not a file.
    Type,
    /// Other bytes, another target of a link.
    Content,
    /// Another mode, owner, time or extended attribute.
    Attributes,
    /// It is one file with others than it was.
    Links,
    /// It cannot be compared.
    Unread(Error),
}

/// What is told as it is found.
#[derive(Debug)]
pub enum Told<'a> {
    /// A difference.
    Wrong(&'a TreePath, &'a Wrong),
    /// What the check command wrote.
    Output(&'a [u8]),
}

/// How many of what is wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Recorded, and not there.
    pub missing: u64,
    /// Other content, another type, other links, or not recorded at all.
    pub different: u64,
    /// Other attributes only.
    pub attributes: u64,
    /// Not compared since the repository's data is damaged.
    pub damaged: u64,
    /// Not compared for another reason.
    pub unread: u64,
    /// Device nodes, which are left out.
    pub devices: u64,
}

impl Counts {
    fn of(&mut self, wrong: &Wrong) -> &mut u64 {
        match wrong {
            Wrong::Missing => &mut self.missing,
            Wrong::Attributes => &mut self.attributes,
            Wrong::Unread(error) if error.kind() == Kind::Damaged => &mut self.damaged,
            Wrong::Unread(_) => &mut self.unread,
            Wrong::Extra | Wrong::Type | Wrong::Content | Wrong::Links => &mut self.different,
        }
    }

    /// All that is not as it was recorded.
    pub fn differences(&self) -> u64 {
        self.missing + self.different + self.attributes + self.damaged + self.unread
    }
}

/// What a drill came to.
#[derive(Debug)]
pub struct Report {
    /// In a word.
    pub outcome: Outcome,
    /// What was restored.
    pub restored: RestoreReport,
    /// What was found to be otherwise.
    pub found: Counts,
    /// How the check command ended, if it was run.
    pub check: Option<Checked>,
    /// How long the restore took.
    pub restore_time: Duration,
    /// How long the comparison took.
    pub verify_time: Duration,
    /// How long the check command took.
    pub check_time: Duration,
    /// How long all took until the data was there, compared and checked.
    pub total_time: Duration,
    /// Whether owners, and what else only root may set, were restored and compared.
    pub privileged: bool,
    /// Where it was restored.
    pub place: PathBuf,
    /// Why what was restored is still there although it should not be.
    pub not_removed: Option<Error>,
}

impl Report {
    /// What is to be written down of it.
    pub fn note(&self, info: &SnapshotInfo, base: &TreePath, user: &str, host: &str) -> Drill {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Drill {
            snapshot: info.id(),
            path: (!base.is_root()).then(|| base.to_string()),
            result: self.outcome,
            files: self.restored.files,
            bytes: self.restored.bytes_restored,
            restore_ms: millis(self.restore_time),
            total_ms: millis(self.total_time),
            check_exit: self.check.as_ref().and_then(|check| check.exit),
            user: user.to_owned(),
            host: host.to_owned(),
        }
    }
}

/// Restores, compares, checks and removes. What is wrong is in the report; an error means that it was not found
/// out: no room, interrupted, the repository out of reach.
pub fn run(
    repo: &impl ReadRepo,
    world: &World,
    info: &SnapshotInfo,
    base: &TreePath,
    options: &Options,
    monitor: &Monitor,
    each: &mut dyn FnMut(Told<'_>) -> Result<()>,
) -> Result<Report> {
    let room = Room::make(&options.target, world, options.keep)?;
    let work = Work { repo, base, room: &room, options, monitor, privileged: rustix::process::geteuid().is_root() };
    let root = &info.snapshot.root;
    let entry = match find(repo, root, base) {
        Err(error) if error.kind() == Kind::Damaged => None,
        found => Some(found?),
    };
    if let Some(entry) = &entry {
        work.refuse_without_room(entry, room.free()?)?;
    }
    let begin = world.monotonic();
    let restored = work.bring_back(root)?;
    let restore_time = world.monotonic().saturating_sub(begin);

    let begin = world.monotonic();
    let found = entry.map(|entry| work.compare(&entry, each)).transpose()?.unwrap_or_default();
    let verify_time = world.monotonic().saturating_sub(begin);

    let is_wrong = judge(&restored, &found);
    let begin = world.monotonic();
    let check = match &options.check {
        Some(check) if is_wrong.is_none() => Some(work.look(check, info, each)?),
        _ => None,
    };
    let end = world.monotonic();
    let total_time = end.saturating_sub(options.began);
    let outcome = if let Some(wrong) = is_wrong {
        wrong
    } else if check.as_ref().is_some_and(|check| !check.passed()) {
        Outcome::CheckFailed
    } else if options.max_duration.is_some_and(|most| total_time > most) {
        Outcome::TooSlow
    } else if restored.problems > 0 || found.unread > 0 {
        Outcome::Incomplete
    } else {
        Outcome::Passed
    };
    let check_time = if check.is_some() { end.saturating_sub(begin) } else { Duration::ZERO };
    let (place, privileged) = (room.path().to_owned(), work.privileged);
    let not_removed = room.remove().err();
    Ok(Report {
        outcome,
        restored,
        found,
        check,
        restore_time,
        verify_time,
        check_time,
        total_time,
        privileged,
        place,
        not_removed,
    })
}

/// What is wrong with the snapshot, by what came of restoring it. What could not be restored here has been said
/// by the restore; that it is found missing then is no surprise.
fn judge(restored: &RestoreReport, found: &Counts) -> Option<Outcome> {
    let excused = restored.problems > 0;
    if restored.damaged_count > 0 || restored.directories_damaged > 0 || found.damaged > 0 {
        Some(Outcome::Damaged)
    } else if found.different > 0 || !excused && (found.missing > 0 || found.attributes > 0) {
        Some(Outcome::Different)
    } else {
        None
    }
}

/// A drill under way.
struct Work<'a, R> {
    repo: &'a R,
    base: &'a TreePath,
    room: &'a Room,
    options: &'a Options,
    monitor: &'a Monitor,
    /// Whether owners and their like are set.
    privileged: bool,
}

impl<R: ReadRepo> Work<'_, R> {
    fn bring_back(&self, root: &Entry) -> Result<RestoreReport> {
        let how = restore::Options {
            // By number, whatever the names are here: that can be compared with what was recorded.
            numeric_ids: true,
            threads: self.options.threads,
            spill: self.options.spill.clone(),
            devices: false,
            privileged: self.privileged,
            ..restore::Options::new(self.room.restored())
        };
        match restore::run(self.repo, root, self.base, &how, self.monitor) {
            Err(error) if error.kind() == Kind::Damaged => {
                self.monitor.problem(Severity::Error, self.base.to_string(), error.with_causes());
                Ok(RestoreReport { problems: 1, directories_damaged: 1, ..RestoreReport::default() })
            }
            done => done,
        }
    }

    /// Compares what is on disk with what was recorded.
    fn compare(&self, entry: &Entry, each: &mut dyn FnMut(Told<'_>) -> Result<()>) -> Result<Counts> {
        // It is as much to read as there was to write.
        let counters = self.monitor.counters();
        for total in [&counters.files_total, &counters.bytes_total] {
            total.store(total.load(Ordering::Relaxed).saturating_mul(2), Ordering::Relaxed);
        }
        let mut found = Counts::default();
        let mut tell = |path: &TreePath, wrong: Wrong| {
            *found.of(&wrong) += 1;
            each(Told::Wrong(path, &wrong))
        };
        let path = match &entry.name {
            Some(name) if !matches!(entry.detail, Detail::Directory { .. }) => {
                self.room.restored_path().join(name.as_os())
            }
            _ => self.room.restored_path(),
        };
        // A single entry that could not be restored, or is not.
        if path.symlink_metadata().is_err() {
            match entry.is_device() {
                true => found.devices += 1,
                false => tell(self.base, Wrong::Missing)?,
            }
            return Ok(found);
        }
        let local = TreePath::from_os(&path)
            .map_err(|error| Error::new(Kind::Failed, "what was restored cannot be compared").because(error))?;
        let with = With::Local(Local {
            roots: vec![local.clone()],
            path: local,
            with_xattrs: true,
            threads: self.options.threads,
            spill: self.options.spill.clone(),
            monitor: self.monitor.clone(),
        });
        let restored = Some(Restored { privileged: self.privileged });
        let how = DiffOptions { metadata: true, content: true, restored };
        let mut devices = 0;
        diff(self.repo, entry, with, self.base, how, &mut |one| match one {
            Found::Change(Change::Removed, _, entry) if entry.is_device() => {
                devices += 1;
                Ok(())
            }
            Found::Change(change, path, _) => tell(path, wrong(change)),
            Found::Unread(path, error) => tell(path, Wrong::Unread(error)),
        })?;
        found.devices = devices;
        Ok(found)
    }

    /// Has the user's command look at it.
    fn look(
        &self,
        check: &Check,
        info: &SnapshotInfo,
        each: &mut dyn FnMut(Told<'_>) -> Result<()>,
    ) -> Result<Checked> {
        // No variable may hold a NUL, whatever a snapshot says.
        let text = |text: &str| OsString::from(text.replace('\0', ""));
        let ours = [
            ("ESKER_DRILL_DIR", self.room.restored_path().into_os_string()),
            ("ESKER_DRILL_SNAPSHOT", text(&info.id().to_string())),
            ("ESKER_DRILL_TIME", text(&info.snapshot.time.secs.to_string())),
            ("ESKER_DRILL_HOST", text(&info.snapshot.hostname)),
            ("ESKER_DRILL_PATH", self.base.to_os().into_os_string()),
        ];
        let mut check = check.clone();
        check.env.retain(|(name, _)| !name.as_bytes().starts_with(b"ESKER_DRILL_"));
        check.env.extend(ours.map(|(name, value)| (name.into(), value)));
        let mut unheard = None;
        let done = command::run(&check, &self.room.restored(), self.monitor, &mut |block| {
            if unheard.is_none() {
                unheard = each(Told::Output(block)).err();
            }
        })?;
        unheard.map_or(Ok(done), Err)
    }

    /// Refuses to begin what cannot end for want of room.
    fn refuse_without_room(&self, entry: &Entry, free: Free) -> Result<()> {
        let entries = entry.entries_below().saturating_add(1);
        let whole = entry.totals().bytes.saturating_add(entries.saturating_mul(ENTRY_BYTES));
        // Holes and hard links take nothing; that is found out where it matters.
        let bytes = if whole <= free.bytes { whole } else { self.bytes_needed(entry) };
        let short = match free.files {
            _ if bytes > free.bytes => {
                format!("about {} MiB are needed, and {} are free", bytes.div_ceil(1 << 20), free.bytes >> 20)
            }
            Some(files) if entries > files => format!("{entries} entries are needed, and {files} can be made"),
            _ => return Ok(()),
        };
        let what = format!("no drill: there is not enough room in `{}`: {short}", self.options.target.display());
        Err(Error::new(Kind::Refused, what)
            .hint("name another place with `--target DIR`, or a part of the snapshot: `esker drill latest:/etc`"))
    }

    /// What the files take on disk. What cannot be read is found by the restore.
    fn bytes_needed(&self, entry: &Entry) -> u64 {
        let mut linked = HashSet::new();
        let below = Walk::below(self.repo, self.base.clone(), entry).filter_map(Result::ok);
        let sizes = std::iter::once(entry.clone()).chain(below).map(|entry| match &entry.detail {
            _ if entry.attributes.link_group.is_some_and(|group| !linked.insert(group)) => ENTRY_BYTES,
            Detail::File { size, holes, .. } => {
                let holes = holes.iter().fold(0_u64, |sum, hole| sum.saturating_add(hole.bytes));
                size.saturating_sub(holes).saturating_add(ENTRY_BYTES)
            }
            _ => ENTRY_BYTES,
        });
        sizes.fold(0, u64::saturating_add)
    }
}

fn wrong(change: Change) -> Wrong {
    match change {
        Change::Removed => Wrong::Missing,
        Change::Added => Wrong::Extra,
        Change::Modified(Modified { kind: true, .. }) => Wrong::Type,
        Change::Modified(Modified { content: true, .. }) => Wrong::Content,
        Change::Modified(Modified { links: true, .. }) => Wrong::Links,
        Change::Modified(_) => Wrong::Attributes,
    }
}
