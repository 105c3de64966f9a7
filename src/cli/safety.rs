//! `restore --safety-snapshot`: what a restore is about to replace or remove, kept first.
//!
//! A dry run of the very restore says which entries of the target those are, and a backup takes
//! them, with the directories that lead to them. It is an ordinary snapshot of the target, tagged
//! `before-restore`, that holds nothing else; restored in place it undoes the restore, but for
//! what the restore made new. If anything of it cannot be kept, nothing is changed.
//!
//! Which entries they are is remembered as a hash of each path: 16 bytes apiece.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::about::PROGRAM;
use super::app::App;
use super::fail::Result;
use super::text;
use crate::backup::{
    CHECKPOINT_BYTES, CHECKPOINT_SECS, KeepRecord, Options as BackupOptions, Variation, resolve_roots,
    run as make_snapshot,
};
use crate::error::{Error, Kind};
use crate::format::tree::Entry;
use crate::id::SessionId;
use crate::monitor::Severity;
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::pack_writer::PackSettings;
use crate::repo::snapshots::BEFORE_RESTORE;
use crate::restore::{Change, Options, run as bring_back};
use crate::source::walk::{Filter, WalkOptions};

/// The snapshot, or `None` when nothing would be lost.
pub(super) fn make(
    app: &App,
    repository: &Repository,
    reader: &Reader<'_>,
    root: &Entry,
    base: &TreePath,
    options: &Options<'_>,
) -> Result<Option<SessionId>> {
    let target = options.target.clone();
    if !target.is_dir() {
        return Ok(None);
    }
    let (roots, missing) = resolve_roots(&[target.join(".")]);
    let [root_of_target] = &roots[..] else {
        let error = missing.into_iter().next().map(|(_, error)| error);
        let failed = refused("the target cannot be looked at");
        return Err(error.map_or(failed, |error| refused("the target cannot be looked at").because(error)).into());
    };
    let lost = Mutex::new(Lost::default());
    // A single entry goes into the target under its name, as what is below a directory does.
    let above = match crate::repo::reader::find(reader, root, base)?.detail {
        crate::format::tree::Detail::Directory { .. } => base.clone(),
        _ => {
            let mut above = base.clone();
            above.pop();
            above
        }
    };
    let observer = |path: &TreePath, change: Change| {
        if matches!(change, Change::Replaced | Change::Adjusted | Change::Deleted) {
            lost.lock().unwrap_or_else(PoisonError::into_inner).add(root_of_target, &above, path);
        }
    };
    let rehearsal = Options {
        dry_run: true,
        observer: Some(&observer),
        target: target.clone(),
        spill: options.spill.clone(),
        roots: options.roots.clone(),
        spare: options.spare.clone(),
        ..*options
    };
    let work = app.work("look for what would be lost");
    // What it finds wrong the restore itself will say.
    bring_back(reader, root, base, &rehearsal, &crate::monitor::Monitor::silent())?;
    if work.monitor().stopping() {
        return Err(Error::new(Kind::Interrupted, "nothing was restored: interrupted").into());
    }
    drop(work);
    let lost = lost.into_inner().unwrap_or_else(PoisonError::into_inner);
    if lost.entries.is_empty() {
        app.console.remark(Severity::Note, "no safety snapshot was made: nothing would be replaced or removed");
        return Ok(None);
    }
    let filter: Filter = Arc::new(move |path: &TreePath, _| lost.holds(path));
    let backup = BackupOptions {
        roots: roots.clone(),
        walk: WalkOptions { filter: Some(filter), threads: app.threads(), ..WalkOptions::default() },
        hostname: app.host.clone(),
        username: app.user.clone(),
        tags: vec![BEFORE_RESTORE.to_owned()],
        packs: PackSettings::default(),
        threads: app.threads(),
        keep_record: KeepRecord::Locally,
        checkpoint_bytes: CHECKPOINT_BYTES,
        checkpoint_secs: CHECKPOINT_SECS,
        force: false,
        ignore_ctime: false,
        program: PROGRAM.to_owned(),
        // The change record of the target is that of its own backups, of which this is none.
        variation: Variation { unrecorded: true, ..Variation::default() },
    };
    let work = app.work("safety snapshot");
    let report = make_snapshot(repository, &backup, work.monitor());
    drop(work);
    let report = report.map_err(|error| refused("what it would replace cannot be kept").because(error))?;
    if report.problems > 0 {
        let what = format!("safety snapshot `{}` does not hold all that would be replaced", report.id.short());
        return Err(refused(&what).into());
    }
    if !app.global.json {
        let size = text::bytes(report.snapshot.summary.total_bytes_processed);
        let files = text::count(report.snapshot.summary.total_files_processed, "file", "files");
        app.say(&format!("safety snapshot {} holds what will be replaced: {size} in {files}", report.id.short()))?;
    }
    Ok(Some(report.id))
}

fn refused(why: &str) -> Error {
    Error::new(Kind::Failed, format!("nothing was restored: {why}"))
        .hint("to restore without keeping what is there, leave out --safety-snapshot")
}

/// Entries of the target, by a hash of their path.
#[derive(Default)]
struct Lost {
    entries: HashSet<u128>,
    /// The directories that lead to them.
    way: HashSet<u128>,
}

impl Lost {
    /// Adds what is at `path` in the snapshot, of which `base` stands at `target`.
    fn add(&mut self, target: &TreePath, base: &TreePath, path: &TreePath) {
        let skipped = base.components().count();
        let mut at = target.clone();
        let mut ways = Vec::new();
        for name in path.components().skip(skipped) {
            ways.push(hash(&at));
            at.push(&name);
        }
        self.entries.insert(hash(&at));
        self.way.extend(ways);
    }

    fn holds(&self, path: &TreePath) -> bool {
        let hash = hash(path);
        self.entries.contains(&hash) || self.way.contains(&hash)
    }
}

fn hash(path: &TreePath) -> u128 {
    let hash = blake3::hash(path.as_bytes());
    u128::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}
