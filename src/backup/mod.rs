//! Making a snapshot.
//!
//! Data flows one way: `follow` walks the file system beside the last run's change record and
//! says what is to be done with each entry, `units` reads the files that changed, and
//! `sequence`, alone and in walk order, looks chunks up, claims new ones, builds the tree and
//! feeds the pack writer. So no chunk is stored twice, neighbours stay neighbours, and the same
//! input makes the same repository. `passage` is the way through one session or, with checkpoints,
//! several. On this machine `record` keeps what was seen, for `known` to find in the next run, and
//! `journal` what a session has stored until it commits; both are files of `blocks`. A machine without
//! a disk keeps its record in the repository (`stateless`).

mod blocks;
mod follow;
mod journal;
mod known;
mod passage;
mod record;
mod sequence;
mod stateless;
mod units;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use known::Followers;
use passage::Passage;
use record::{Place, RecordWriter};
use sequence::{Halt, Sequencer};
use stateless::Fetched;

use crate::chunk::cut::{Cutter, Parameters};
use crate::error::{Context, Error, Kind, Result};
use crate::format::session::{CommitKind, Snapshot};
use crate::id::{SessionId, hex};
use crate::monitor::{Monitor, Severity};
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::pack_writer::PackSettings;
use crate::repo::session::Outcome;
use crate::source::walk::WalkOptions;

/// A backup is begun anew at most this often when collectors get in its way.
const ATTEMPTS_MAX: u32 = 5;
/// Stored bytes from one checkpoint to the next, unless told otherwise.
pub const CHECKPOINT_BYTES: u64 = 4 << 30;
/// Seconds from one checkpoint to the next.
pub const CHECKPOINT_SECS: i64 = 300;

/// Where the change record of a backup set is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeepRecord {
    /// In the cache directory; without one, nowhere.
    #[default]
    Locally,
    /// In the repository, for a machine without a disk.
    InRepository,
}

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
    /// Where the change record is kept.
    pub keep_record: KeepRecord,
    /// A checkpoint is committed when this much was stored since the last …
    pub checkpoint_bytes: u64,
    /// … or anything, and this long ago.
    pub checkpoint_secs: i64,
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
///
/// When it is stopped, by the monitor, a failure or a kill, what it has stored so far is kept, and
/// the next run with the same roots neither reads nor stores it again.
pub fn run(repo: &Repository, options: &Options, monitor: &Monitor) -> Result<Report> {
    if options.roots.is_empty() {
        return Err(Error::new(Kind::Usage, "no snapshot was made: there is nothing to back up"));
    }
    let set = set_of(repo, options);
    let (fetched, place) = match options.keep_record {
        KeepRecord::Locally => (None, local_place(repo, set)),
        KeepRecord::InRepository => Fetched::fetch(repo, set, monitor)?.unzip(),
    };
    let mut superseded = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        if let Some(place) = &place {
            superseded.extend(passage::take_up(repo, place)?);
        }
        let passage = Passage::begin(repo, options, monitor, place.clone(), superseded)?;
        match attempt(passage, options, monitor, place.as_ref())? {
            Attempt::Made(report) => {
                if let (Some(fetched), Some(place)) = (&fetched, &place) {
                    fetched.put_back(repo, &place.path, monitor);
                }
                return Ok(*report);
            }
            Attempt::BeginAnew(committed) => superseded = committed,
        }
    }
    Err(Error::new(Kind::Failed, format!("no snapshot was made: a collector interfered {ATTEMPTS_MAX} times"))
        .hint("run the backup again once `esker prune` has finished"))
}

/// What came of one walk.
enum Attempt {
    Made(Box<Report>),
    /// A collector has taken something back, or asked before the commit was there and may call
    /// the session void. Nothing has been said yet; a new session checks everything again. These
    /// are the sessions it will take the place of.
    BeginAnew(Vec<SessionId>),
}

fn attempt(mut passage: Passage<'_>, options: &Options, monitor: &Monitor, place: Option<&Place>) -> Result<Attempt> {
    let repo = passage.repo();
    let mut known = match place {
        Some(place) if !options.force => Followers::open(place),
        _ => Followers::none(),
    };
    let first = passage.session();
    // What a snapshot that does not count any more saw is no parent.
    if known.parent().is_some_and(|header| !first.counts(&header.session)) {
        known.forget_parent();
    }
    passage.set_parent(known.parent().map(|header| header.session));
    let passage = passage;
    let record = place.and_then(|place| match begin_record(place, &passage) {
        Ok(writer) => Some(writer),
        Err(error) => {
            let message = format!("the next backup will read every file again: {error}");
            monitor.problem(Severity::Warning, place.path.display().to_string(), message);
            None
        }
    });
    let chunker = &repo.config.chunker;
    let parameters =
        Parameters { min_bytes: chunker.min_bytes, avg_bytes: chunker.avg_bytes, max_bytes: chunker.max_bytes };
    let cutter = Arc::new(Cutter::new(parameters, repo.keys.chunker_key().expose()));

    let permits = units::Permits::new(MEMORY_BATCHES);
    let (steps_in, steps) = crossbeam_channel::bounded(STEPS_WAITING_MAX);
    let (units_in, units_out) = crossbeam_channel::bounded(UNITS_WAITING_MAX);
    let halted = AtomicBool::new(false);
    let sequenced = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads.max(1))
            .map(|_| {
                let (units, cutter, permits) = (units_out.clone(), cutter.clone(), permits.clone());
                scope.spawn(move || units::read_units(&units, &cutter, &repo.keys.ids, &permits))
            })
            .collect();
        drop(units_out);
        let passage = &passage;
        let halted = &halted;
        let driver =
            scope.spawn(move || follow::follow(passage, options, known, monitor, halted, &steps_in, &units_in));
        let mut sequencer = Sequencer::new(passage, options, monitor, record, &permits);
        let result = sequencer.run(&steps);
        // On failure everyone who waits for us is told that nobody comes. A step that waits in the
        // channel holds the end of a unit some thread sends to, so all are taken until the driver ends.
        halted.store(true, Ordering::Relaxed);
        permits.close();
        steps.iter().for_each(drop);
        let problems = driver.join();
        for thread in threads {
            let _ = thread.join();
        }
        let root = result?;
        let problems = problems.map_err(|_| Error::new(Kind::Failed, "no snapshot was made: the walk stopped"))?;
        Ok(sequencer.finish(root, problems)?)
    });
    let mut sequenced = match sequenced {
        Ok(sequenced) => sequenced,
        Err(Halt::Failed(error)) => return Err(error),
        Err(Halt::BeginAnew) => return Ok(Attempt::BeginAnew(passage.superseded())),
        Err(Halt::Stopped { kept }) => {
            let error = Error::new(Kind::Interrupted, "no snapshot was made: interrupted");
            return Err(match kept {
                true => error.hint("what was stored is kept for a week: the same command goes on from there"),
                false => error,
            });
        }
    };
    let snapshot = passage.snapshot(sequenced.root.clone(), sequenced.summary);
    let id = passage.session().id();
    let packs = sequenced.close(&snapshot)?;
    if passage.commit(CommitKind::Snapshot, packs, &snapshot)? == Outcome::Flagged {
        return Ok(Attempt::BeginAnew(passage.superseded()));
    }
    if let Some(Err(error)) =
        sequenced.record.take().map(|record| record.finish(id, record::hash_of_root(&snapshot.root)))
    {
        let message = format!("the next backup will read every file again: {error}");
        monitor.problem(Severity::Warning, "change record", message);
    }
    Ok(Attempt::Made(Box::new(Report { id, snapshot, problems: sequenced.problems })))
}

/// Begins this run's change record with the checkpoints it rests on.
fn begin_record(place: &Place, passage: &Passage<'_>) -> std::io::Result<RecordWriter> {
    let session = passage.session().id();
    let mut record = RecordWriter::create(place, &passage.repo().world, session, passage.began())?;
    passage.superseded().into_iter().try_for_each(|session| record.checkpoint(session))?;
    Ok(record)
}

/// Batches of about a mebibyte in memory at once.
const MEMORY_BATCHES: usize = 32;
/// Steps the sequencer may be behind the walk.
const STEPS_WAITING_MAX: usize = 1024;
/// Units the readers may be behind the walk.
const UNITS_WAITING_MAX: usize = 8;

/// The backup set: one for each credential, host and set of roots.
fn set_of(repo: &Repository, options: &Options) -> [u8; 16] {
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
    *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// Where a set's change record is on this machine.
fn local_place(repo: &Repository, set: [u8; 16]) -> Option<Place> {
    let path = repo.cache_directory()?.join("records").join(hex(&set));
    Some(Place { path, key: repo.keys.credential.private_key(), set })
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
