//! Making snapshots again without some of what is in them: what should not have been backed up.
//!
//! To make it so is not yet to erase it: the old snapshot has to be forgotten, and a collection to take
//! what nobody needs any more (docs/erasure.md).

use crate::error::{Error, Kind, Result};
use crate::format::session::Snapshot;
use crate::format::tree::{Detail, Entry};
use crate::id::SessionId;
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::remake::{Place, less, same_tree, would_be};
use crate::repo::snapshots::SnapshotInfo;
use crate::repo::trim::{Choice, Trimmed, Verdict};
use crate::source::exclude::Patterns;
use crate::world::Time;

/// What is to be made of snapshots.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What to leave out, as a backup does: what is around the roots of one stays.
    pub exclude: Patterns,
    /// The host it is to be of.
    pub hostname: Option<String>,
    /// The time it is to be of.
    pub time: Option<Time>,
    /// The old snapshot is forgotten, and can be brought back for so many seconds.
    pub forget: Option<i64>,
    /// Only says what would be.
    pub dry_run: bool,
}

/// What became of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Became {
    /// It stays: it has nothing of what is to go.
    Unchanged,
    /// It would be another.
    WouldChange,
    /// This is made of it.
    Made(SessionId),
    /// This was made of it before.
    MadeBefore(SessionId),
}

/// What was done with a snapshot.
#[derive(Debug, Clone)]
pub struct Report {
    /// What became of it.
    pub became: Became,
    /// Its tree, and what went of it.
    pub trimmed: Trimmed,
}

/// Makes a snapshot again. The old one stays as it is, and is forgotten if that is wanted. `there` are the
/// snapshots there are: who was stopped between making the one and forgetting the other finds the one.
pub fn run(
    reader: &Reader<'_>,
    info: &SnapshotInfo,
    there: &[SnapshotInfo],
    options: &Options,
    monitor: &Monitor,
) -> Result<Report> {
    let repo = reader.repo();
    let roots: Vec<TreePath> = info.snapshot.paths.iter().filter_map(|path| TreePath::from_bytes(path).ok()).collect();
    let mut choice = Excluded { exclude: &options.exclude, roots: &roots };
    let wanted = |trimmed: &Trimmed| record(info, options, trimmed);
    if options.dry_run {
        let trimmed = would_be(reader, reader, info, &mut choice, monitor).map_err(|error| not_made(info, error))?;
        let became = if wanted(&trimmed).is_some() { Became::WouldChange } else { Became::Unchanged };
        return Ok(Report { became, trimmed });
    }
    let mut before = None;
    let mut record = |trimmed: &Trimmed| {
        let wanted = wanted(trimmed)?;
        before = there.iter().find(|other| *other.snapshot == wanted).map(SnapshotInfo::id);
        before.is_none().then_some(wanted)
    };
    let made = if options.exclude.is_empty() {
        let trimmed = Trimmed::unchanged(&info.snapshot.root);
        let snapshot = record(&trimmed);
        let made = snapshot.map(|snapshot| same_tree(repo, info, &snapshot, Place::Beside)).transpose();
        made.map(|made| (trimmed, made))
    } else {
        less(repo, reader, info, &mut choice, record, monitor)
    };
    let (trimmed, made) = made.map_err(|error| not_made(info, error))?;
    let became = match (made, before) {
        (Some(id), _) => Became::Made(id),
        (None, Some(id)) => Became::MadeBefore(id),
        (None, None) => Became::Unchanged,
    };
    if let (Some(undelete_secs), true) = (options.forget, became != Became::Unchanged) {
        repo.forget(std::slice::from_ref(info), undelete_secs)?;
    }
    Ok(Report { became, trimmed })
}

/// What the snapshot is to be, if another.
fn record(info: &SnapshotInfo, options: &Options, trimmed: &Trimmed) -> Option<Snapshot> {
    let old = &info.snapshot;
    let mut new = info.as_original();
    new.hostname = options.hostname.clone().unwrap_or(new.hostname);
    new.time = options.time.unwrap_or(new.time);
    if !trimmed.is_other && new.hostname == old.hostname && new.time == old.time {
        return None;
    }
    new.root = trimmed.root.clone();
    let summary = &mut new.summary;
    summary.total_files_processed = summary.total_files_processed.saturating_sub(trimmed.gone.files);
    summary.total_bytes_processed = summary.total_bytes_processed.saturating_sub(trimmed.gone.bytes);
    Some(new)
}

fn not_made(info: &SnapshotInfo, error: Error) -> Error {
    let has_hint = error.hint_text().is_some();
    let wrapped =
        Error::new(error.kind(), format!("snapshot `{}` was not rewritten", info.id().short())).because(error);
    match wrapped.kind() {
        Kind::Damaged if !has_hint => wrapped.hint("to make one of what is whole of it, run `esker repair snapshots`"),
        _ => wrapped,
    }
}

/// What patterns leave out.
struct Excluded<'a> {
    exclude: &'a Patterns,
    roots: &'a [TreePath],
}

impl Choice for Excluded<'_> {
    fn of(&mut self, path: &TreePath, entry: &Entry) -> Result<Verdict> {
        // What a backup only goes through on the way to what it was asked for no pattern means.
        let is_on_the_way = self.roots.iter().any(|root| root != path && root.starts_with(path));
        if !is_on_the_way && self.exclude.matches(path) {
            return Ok(Verdict::Drop);
        }
        let is_directory = matches!(entry.detail, Detail::Directory { .. });
        let may = is_directory && (is_on_the_way || self.exclude.may_match_below(path));
        Ok(if may { Verdict::Look } else { Verdict::Keep })
    }

    fn lost(&mut self, _: &TreePath, error: Error) -> Result<()> {
        Err(error)
    }
}
