//! Making a snapshot.
//!
//! Data flows one way: `follow` walks the file system beside the last run's change record and
//! says what is to be done with each entry, `units` reads the files that changed, and
//! `sequence`, alone and in walk order, looks chunks up, claims new ones, builds the tree and
//! feeds the pack writer. So no chunk is stored twice, neighbours stay neighbours, and the same
//! input makes the same repository. `passage` is the way through one session or, with checkpoints,
//! several, and `unchanged` tells whether there is anything new to say. A stream has `stream` in the
//! place of `follow` and the readers. On this machine `record` keeps what was seen, for `known` to find in the next run, and
//! `journal` what a session has stored until it commits; both are files of `blocks`. A machine without
//! a disk keeps its record in the repository (`stateless`).

mod blocks;
mod directory;
mod follow;
mod journal;
mod known;
mod passage;
mod record;
mod rows;
mod sequence;
mod stateless;
mod stream;
mod unchanged;
mod units;

pub use stream::StreamInput;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use known::Followers;
use passage::Passage;
use record::{Place, RecordWriter};
pub(crate) use rows::rewritten_rows;
use sequence::{Halt, Sequencer};
use stateless::Fetched;
use unchanged::{Chosen, Digest};

use crate::chunk::cut::{Cutter, Parameters};
use crate::chunk::split::Splitter;
use crate::error::{Context, Error, Kind, Result};
use crate::format::session::{CommitKind, Snapshot};
use crate::id::{SessionId, hex};
use crate::monitor::Monitor;
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
    /// How it differs from an ordinary backup.
    pub variation: Variation,
}

/// What is asked for beyond an ordinary backup.
#[derive(Clone, Default)]
pub struct Variation {
    /// Back up this stream; the only root is its path.
    pub stream: Option<StreamInput>,
    /// Make no snapshot that would say what its parent says.
    pub skip_if_unchanged: bool,
    /// Only find out what would be added. The repository's storage is a
    /// [`crate::storage::dry_run::DryRun`]; here it means that nothing is committed or recorded.
    pub dry_run: bool,
    /// Neither read nor write the change record: this is no backup of the set its roots name.
    pub unrecorded: bool,
    /// The parent must be this snapshot. It can be none but the one the change record is of: a
    /// tree does not hold what tells whether a file changed (DESIGN 6).
    pub parent: Option<SessionId>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "backup::Options({:?})", self.roots)
    }
}

/// What came of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The snapshot is made.
    Made,
    /// It would say what its parent says, and is not made.
    Unchanged {
        /// The parent.
        parent: SessionId,
    },
    /// It would be made.
    DryRun,
}

/// What a backup did.
#[derive(Debug, Clone)]
pub struct Report {
    /// The snapshot, if one was made.
    pub id: SessionId,
    /// Whether it was.
    pub ending: Ending,
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
        _ if options.variation.unrecorded => (None, None),
        KeepRecord::Locally => (None, local_place(repo, set)),
        KeepRecord::InRepository => Fetched::fetch(repo, set, monitor)?.unzip(),
    };
    let mut superseded = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        let kept = place.clone().filter(|_| !options.variation.dry_run);
        if let Some(place) = &kept {
            superseded.extend(passage::take_up(repo, place)?);
        }
        let passage = Passage::begin(repo, options, monitor, kept, superseded)?;
        match attempt(passage, options, monitor, place.as_ref())? {
            Attempt::Ended(report) => {
                if let (Some(fetched), Some(place), Ending::Made) = (&fetched, &place, report.ending) {
                    fetched.put_back(repo, &place.path, monitor);
                }
                return Ok(*report);
            }
            // Collectors ask only those that were silent for hours; who has the stream has it again.
            Attempt::BeginAnew(_) if options.variation.stream.is_some() => {
                let what = "no snapshot was made: a collector interfered, and a stream cannot be read twice";
                return Err(Error::new(Kind::Failed, what).hint("run the backup again"));
            }
            Attempt::BeginAnew(committed) => superseded = committed,
        }
    }
    Err(Error::new(Kind::Failed, format!("no snapshot was made: a collector interfered {ATTEMPTS_MAX} times"))
        .hint("run the backup again once `esker prune` has finished"))
}

/// What came of one walk.
enum Attempt {
    Ended(Box<Report>),
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
    let parent = known.parent();
    let parent_id = parent.map(|header| header.session);
    if let Some(wanted) = options.variation.parent.filter(|wanted| Some(*wanted) != parent_id) {
        first.withdraw();
        return Err(not_the_parent(&wanted, parent_id.as_ref()));
    }
    passage.set_parent(parent_id);
    known.hold_against(&first);
    let passage = passage;
    let record = place.filter(|_| !options.variation.dry_run).and_then(|place| match begin_record(place, &passage) {
        Ok(writer) => Some(writer),
        Err(error) => {
            record::warn_lost(monitor, place.path.display().to_string(), &error);
            None
        }
    });
    let chunker = &repo.config.chunker;
    let parameters =
        Parameters { min_bytes: chunker.min_bytes, avg_bytes: chunker.avg_bytes, max_bytes: chunker.max_bytes };
    let cutter = Arc::new(Cutter::new(parameters, repo.keys.chunker_key().expose()));

    let batches = MEMORY_BYTES / Splitter::buffer_bytes(&cutter);
    let permits = units::Permits::new(batches.clamp(4, 12));
    let (steps_in, steps) = crossbeam_channel::bounded(STEPS_WAITING_MAX);
    let (units_in, units_out) = crossbeam_channel::bounded(UNITS_WAITING_MAX);
    let halted = AtomicBool::new(false);
    let walked = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads.max(1))
            .map(|_| {
                let (units, cutter, permits) = (units_out.clone(), cutter.clone(), permits.clone());
                scope.spawn(move || units::read_units(&units, &cutter, &repo.keys.ids, &permits))
            })
            .collect();
        drop(units_out);
        let passage = &passage;
        let halted = &halted;
        let reading = options.variation.stream.as_ref().map(|input| stream::Reading {
            input,
            cutter: &cutter,
            ids: &repo.keys.ids,
            permits: &permits,
            monitor,
            began: passage.began(),
        });
        let driver = scope.spawn(move || match reading {
            Some(reading) => stream::follow(&reading, known, &steps_in),
            None => follow::follow(passage, options, known, monitor, halted, &steps_in, &units_in),
        });
        let chosen = Chosen::new(options.variation.stream.is_some());
        let mut sequencer = Sequencer::new(passage, options, monitor, record, &permits, chosen);
        let result = sequencer.run(&steps);
        // On failure everyone who waits for us is told that nobody comes. A step that waits in the
        // channel holds the end of a unit some thread sends to, so all are taken until the driver ends.
        halted.store(true, Ordering::Relaxed);
        permits.close();
        steps.iter().for_each(drop);
        let walked = driver.join();
        for thread in threads {
            let _ = thread.join();
        }
        let walked = walked.map_err(|_| Error::new(Kind::Failed, "no snapshot was made: the walk stopped"))?;
        let root = match (result, walked.failure) {
            (Err(Halt::Stopped { kept }), _) => return Err(Halt::Stopped { kept }),
            (_, Some(failure)) => {
                if !sequencer.has_begun_packs() {
                    passage.session().withdraw();
                }
                return Err(Halt::Failed(failure));
            }
            (result, None) => result?,
        };
        let root = root.ok_or_else(|| Error::new(Kind::Failed, "no snapshot was made: `/` cannot be read"))?;
        Ok((sequencer, root, walked.problems))
    });
    let (sequencer, root, walk_problems) = match walked {
        Ok(walked) => walked,
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
    let (chosen, problems) = (sequencer.chosen(), sequencer.problems() + walk_problems);
    let id = passage.session().id();
    let ended = |ending, snapshot| Ok(Attempt::Ended(Box::new(Report { id, ending, snapshot, problems })));
    let recorded = parent.and_then(|header| Some((header.session, header.chosen?)));
    if options.variation.skip_if_unchanged
        && let Some(parent) = same_as_parent(repo, options, recorded, &chosen)
    {
        let snapshot = passage.snapshot(root, sequencer.summary());
        // Nothing was put but the announcement.
        if !sequencer.has_begun_packs() {
            passage.session().withdraw();
        }
        return ended(Ending::Unchanged { parent }, snapshot);
    }
    let mut sequenced = sequencer.finish(root)?;
    let snapshot = passage.snapshot(sequenced.root.clone(), sequenced.summary);
    if options.variation.dry_run {
        return ended(Ending::DryRun, snapshot);
    }
    let packs = sequenced.close(&snapshot)?;
    let relied = passage.session().reliance(&packs.iter().map(|pack| pack.id).collect::<Vec<_>>());
    if passage.commit(CommitKind::Snapshot, packs, &snapshot)? == Outcome::Flagged {
        return Ok(Attempt::BeginAnew(passage.superseded()));
    }
    if let Some(Err(error)) = sequenced.record.take().map(|record| record.finish(id, chosen, &relied)) {
        record::warn_lost(monitor, "change record", &error);
    }
    ended(Ending::Made, snapshot)
}

/// The parent, if the roots hold what they held there: by the change record, or else, for an
/// owner, by the snapshot. Where neither says so there is something to say.
fn same_as_parent(
    repo: &Repository,
    options: &Options,
    recorded: Option<(SessionId, Digest)>,
    chosen: &Digest,
) -> Option<SessionId> {
    let known = match recorded {
        Some(recorded) => Some(recorded),
        None => unchanged::of_parent(repo, options).ok().flatten(),
    };
    known.filter(|(_, of_parent)| of_parent == chosen).map(|(parent, _)| parent)
}

fn not_the_parent(wanted: &SessionId, parent: Option<&SessionId>) -> Error {
    let why = match parent {
        Some(parent) => format!("what this machine recorded of these files is of snapshot `{}`", parent.short()),
        None => "this machine has no record of these files".to_owned(),
    };
    let what = format!("no snapshot was made: `{}` cannot be its parent: {why}", wanted.short());
    Error::new(Kind::Failed, what)
        .hint("leave out --parent: the newest record is used by itself, and without one every file is read")
}

/// Begins this run's change record with the checkpoints it rests on.
fn begin_record(place: &Place, passage: &Passage<'_>) -> std::io::Result<RecordWriter> {
    let session = passage.session().id();
    let mut record = RecordWriter::create(place, &passage.repo().world, session, passage.began())?;
    passage.superseded().into_iter().try_for_each(|session| record.checkpoint(session))?;
    Ok(record)
}

/// What was read and is not in frames yet. No more than fits a processor's cache: what waits longer
/// is fetched from memory again.
const MEMORY_BYTES: usize = 16 << 20;
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
    if options.variation.stream.is_some() {
        // It has no more to do with a file of that path.
        part(b"stream");
    }
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
