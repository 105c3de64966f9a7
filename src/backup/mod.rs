//! Making a snapshot.
//!
//! Data flows one way: `follow` walks the file system beside the last run's change record and
//! says what is to be done with each entry, `units` reads the files that changed, and
//! `sequence`, alone and in walk order, looks chunks up, claims new ones, builds the tree and
//! feeds the pack writer. So no chunk is stored twice, neighbours stay neighbours, and the same
//! input makes the same repository. `record` is what the next run compares with.

mod follow;
mod record;
mod sequence;
mod units;

use std::path::PathBuf;
use std::sync::Arc;

use crate::chunk::cut::{Cutter, Parameters};
use crate::error::{Context, Error, Kind, Result};
use crate::format::cbor::Extra;
use crate::format::session::{CommitKind, Snapshot};
use crate::id::{SessionId, hex};
use crate::monitor::{Monitor, Severity};
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::pack_writer::PackSettings;
use crate::repo::session::{Outcome, Session};
use crate::source::walk::WalkOptions;

/// A backup is begun anew at most this often when collectors get in its way.
const ATTEMPTS_MAX: u32 = 3;

/// What to back up and how.
#[derive(Clone)]
pub struct Options {
    /// The roots, absolute and resolved.
    pub roots: Vec<TreePath>,
    /// What to leave out.
    pub walk: WalkOptions,
    /// Whose files.
    pub hostname: String,
    /// Who runs the backup.
    pub username: String,
    /// Labels for the snapshot.
    pub tags: Vec<String>,
    /// How packs are made.
    pub packs: PackSettings,
    /// Reader threads.
    pub threads: usize,
    /// Read every file, whatever the last run saw.
    pub force: bool,
    /// Tell a changed file by size and mtime alone.
    pub ignore_ctime: bool,
    /// The program's name and version.
    pub program: String,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "backup::Options({:?})", self.roots)
    }
}

/// What a backup did.
#[derive(Debug, Clone)]
pub struct Report {
    /// The snapshot.
    pub id: SessionId,
    /// What is in the snapshot's record.
    pub snapshot: Snapshot,
    /// Files and directories that are missing or kept changing; each was reported.
    pub problems: u64,
}

/// Makes a snapshot. It is durable, and no collector can take it back, when this returns.
pub fn run(repo: &Repository, options: &Options, monitor: &Monitor) -> Result<Report> {
    if options.roots.is_empty() {
        return Err(Error::new(Kind::Usage, "no snapshot was made: there is nothing to back up"));
    }
    let mut superseded = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        let (report, outcome) = attempt(repo, options, monitor, &superseded)?;
        match outcome {
            Outcome::Made => return Ok(report),
            // A collector asked before the commit was there and may declare the session void.
            // Nothing has been said yet; a new session re-checks everything.
            Outcome::Flagged => superseded.push(report.id),
        }
    }
    Err(Error::new(Kind::Failed, format!("no snapshot was made: a collector interfered {ATTEMPTS_MAX} times"))
        .hint("run the backup again once `esker prune` has finished"))
}

fn attempt(
    repo: &Repository,
    options: &Options,
    monitor: &Monitor,
    superseded: &[SessionId],
) -> Result<(Report, Outcome)> {
    let began = repo.world.now();
    let session = Session::begin(repo)?;
    for (object, error) in session.faults() {
        monitor.problem(Severity::Warning, object.as_str(), format!("not used: {error}"));
    }
    let path = record_path(repo, options);
    let record_key = repo.keys.credential.private_key();
    let mut follower = match &path {
        Some(path) if !options.force => record::Follower::open(path, &record_key),
        _ => record::Follower::none(),
    };
    // What a snapshot that does not count any more saw proves nothing.
    if follower.header().is_some_and(|header| !session.counts(&header.session)) {
        follower = record::Follower::none();
    }
    let parent = follower.header().map(|header| header.session);
    let header = record::Header { session: session.id(), began };
    let record = match &path {
        Some(path) => match record::RecordWriter::create(path, &record_key, &repo.world, header) {
            Ok(writer) => Some(writer),
            Err(error) => {
                let message = format!("the next backup will read every file again: {error}");
                monitor.problem(Severity::Warning, path.display().to_string(), message);
                None
            }
        },
        None => None,
    };
    let chunker = &repo.config.chunker;
    let parameters =
        Parameters { min_bytes: chunker.min_bytes, avg_bytes: chunker.avg_bytes, max_bytes: chunker.max_bytes };
    let cutter = Arc::new(Cutter::new(parameters, repo.keys.chunker_key().expose()));

    let permits = units::Permits::new(MEMORY_BATCHES);
    let (steps_in, steps) = crossbeam_channel::bounded(STEPS_WAITING_MAX);
    let (units_in, units_out) = crossbeam_channel::bounded(UNITS_WAITING_MAX);
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads.max(1))
            .map(|_| {
                let (units, cutter, permits) = (units_out.clone(), cutter.clone(), permits.clone());
                scope.spawn(move || units::read_units(&units, &cutter, &repo.keys.ids, &permits))
            })
            .collect();
        drop(units_out);
        let session_ref = &session;
        let driver = scope.spawn(move || follow::follow(session_ref, options, follower, monitor, &steps_in, &units_in));
        let mut sequencer = sequence::Sequencer::new(&session, options, monitor, record, &permits);
        let result = sequencer.run(&steps);
        // On failure everyone who waits for us is told that nobody comes.
        drop(steps);
        permits.close();
        let problems = driver.join();
        for thread in threads {
            let _ = thread.join();
        }
        let root = result?;
        let problems = problems.map_err(|_| Error::new(Kind::Failed, "no snapshot was made: the walk stopped"))?;
        if monitor.stopping() {
            return Err(Error::new(Kind::Interrupted, "no snapshot was made: interrupted"));
        }
        sequencer.finish(root, problems)
    });
    let (sequenced, root, mut summary, problems) = done?;
    let now = repo.world.now();
    let millis = (i128::from(now.secs) - i128::from(began.secs)) * 1000
        + (i128::from(now.nanos) - i128::from(began.nanos)) / 1_000_000;
    summary.duration_ms = u64::try_from(millis).unwrap_or(0);
    let mut paths: Vec<_> = options.roots.iter().map(|root| root.as_bytes().to_vec()).collect();
    paths.sort();
    let mut tags = options.tags.clone();
    tags.sort();
    tags.dedup();
    let snapshot = Snapshot {
        time: began,
        hostname: options.hostname.clone(),
        username: options.username.clone(),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        paths,
        tags,
        parent,
        root,
        summary,
        program: options.program.clone(),
        extra: Extra::default(),
    };
    let (packs, record) = sequenced.close(&snapshot)?;
    let outcome = session.commit(CommitKind::Snapshot, packs, Some(&snapshot), superseded.to_vec())?;
    if outcome == Outcome::Made
        && let Some(record) = record
        && let Err(error) = record.finish()
    {
        let message = format!("the next backup will read every file again: {error}");
        monitor.problem(Severity::Warning, "change record", message);
    }
    Ok((Report { id: session.id(), snapshot, problems }, outcome))
}

/// Batches of about a mebibyte in memory at once.
const MEMORY_BATCHES: usize = 32;
/// Steps the sequencer may be behind the walk.
const STEPS_WAITING_MAX: usize = 1024;
/// Units the readers may be behind the walk.
const UNITS_WAITING_MAX: usize = 8;

/// Where the change record of this backup set is: one for each host and set of roots.
fn record_path(repo: &Repository, options: &Options) -> Option<PathBuf> {
    let mut hasher = blake3::Hasher::new_derive_key("esker v1 backup set");
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(repo.keys.credential.id().as_bytes());
    part(options.hostname.as_bytes());
    let mut roots = options.roots.clone();
    roots.sort();
    roots.iter().for_each(|root| part(root.as_bytes()));
    let name = hex(&hasher.finalize().as_bytes()[..16]);
    Some(repo.cache_directory()?.join("records").join(name))
}

/// Resolves the paths a user gave; those that are not there come back with the reason.
pub fn resolve_roots(paths: &[PathBuf]) -> (Vec<TreePath>, Vec<(PathBuf, Error)>) {
    let mut roots = Vec::new();
    let mut missing = Vec::new();
    for path in paths {
        match crate::source::roots::resolve(path) {
            Ok(root) => roots.push(root),
            Err(error) => {
                let error = Err::<(), _>(std::io::Error::other(error))
                    .context(|| format!("`{}` was not backed up", path.display()));
                missing.extend(error.err().map(|error| (path.clone(), error)));
            }
        }
    }
    roots.sort();
    roots.dedup();
    (roots, missing)
}
