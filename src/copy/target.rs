//! The sessions at the target: one for each snapshot, and more where much is stored.
//!
//! What is stored is committed now and then, as a checkpoint without a tree: for a week its chunks are
//! kept, whatever becomes of this run, and the next run finds them there. The copy goes on in a new
//! session; as long as that may rely on every pack that those before it could, all that was found to be
//! there still is (SPEC §9.5, W6), and need not be looked at again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Options;
use crate::error::{Error, Result};
use crate::format::session::{CommitKind, Snapshot};
use crate::id::{ChunkId, PackId, SessionId};
use crate::index::{SessionTable, SpilledValues};
use crate::monitor::{Monitor, Severity};
use crate::repo::Repository;
use crate::repo::chunk_writer::ChunkWriter;
use crate::repo::session::{Outcome, Reliance, Session};
use crate::world::Time;

/// Why a snapshot was not copied to its end.
pub(super) enum Halt {
    /// Something went wrong.
    Failed(Error),
    /// Something that was relied on has been taken back: the snapshot is copied anew.
    BeginAnew,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Nodes, and chunks, that need not be gone through again.
#[derive(Clone)]
pub(super) struct Nodes(Arc<Mutex<SessionTable>>);

impl Nodes {
    /// None; where memory has no room for more they go to files in `spill`.
    pub(super) fn new(spill: &Path) -> Self {
        Self(Arc::new(Mutex::new(SessionTable::new(spill, SessionTable::ENTRIES_MAX))))
    }

    /// Notes a node; false when it was noted before. One that cannot be noted costs going through it again.
    pub(super) fn claim(&self, node: ChunkId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).claim(node).unwrap_or(true)
    }

    /// Whether a node was noted.
    pub(super) fn contains(&self, node: &ChunkId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(node)
    }
}

/// What is known of the target while all stands that was relied on, and no snapshot has failed that it
/// was learned from.
pub(super) struct Settled {
    /// Directories and lists all below which is there, or will be once the snapshot at hand is.
    pub(super) nodes: Nodes,
    /// What directories and contents of the source became.
    pub(super) became: SpilledValues,
}

impl Settled {
    fn new(spill: &Path) -> Self {
        Self { nodes: Nodes::new(spill), became: SpilledValues::new(spill, SpilledValues::ENTRIES_MAX) }
    }
}

/// The repository that is copied to.
pub(super) struct Target<'r> {
    repo: &'r Repository,
    options: &'r Options,
    monitor: &'r Monitor,
    spill: PathBuf,
    chunks: Option<ChunkWriter<'r>>,
    /// When the session at hand began.
    since: Time,
    /// What the session before could rely on, with what it has committed.
    relied: Option<Reliance>,
    /// Commits that the snapshot at hand takes the place of.
    superseded: Vec<SessionId>,
    pub(super) settled: Settled,
    /// Stored so far: plain bytes, and the bytes of frames they became.
    pub(super) added_bytes: u64,
    pub(super) stored_bytes: u64,
}

impl<'r> Target<'r> {
    pub(super) fn new(repo: &'r Repository, options: &'r Options, monitor: &'r Monitor) -> Self {
        let spill = repo.cache_directory().map_or_else(std::env::temp_dir, Path::to_owned);
        Self {
            repo,
            options,
            monitor,
            settled: Settled::new(&spill),
            spill,
            chunks: None,
            since: repo.world.now(),
            relied: None,
            superseded: Vec::new(),
            added_bytes: 0,
            stored_bytes: 0,
        }
    }

    pub(super) fn repo(&self) -> &'r Repository {
        self.repo
    }

    /// Nothing that was found to be there is believed any more.
    pub(super) fn forget(&mut self) {
        self.settled = Settled::new(&self.spill);
    }

    /// Begins a session if there is none. False when what was relied on does not stand any more.
    fn begin(&mut self) -> Result<bool> {
        if self.chunks.is_some() {
            return Ok(true);
        }
        let session = Session::begin(self.repo)?;
        for (object, error) in session.faults() {
            self.monitor.problem(Severity::Warning, object.as_str(), format!("not used: {}", error.with_causes()));
        }
        let stands = self.relied.take().is_none_or(|relied| session.upholds(&relied));
        if !stands {
            self.forget();
        }
        self.since = self.repo.world.now();
        self.chunks = Some(ChunkWriter::new(Arc::new(session), self.options.packs, Arc::new(|_| {})));
        Ok(stands)
    }

    /// Begins a snapshot.
    pub(super) fn begin_snapshot(&mut self) -> Result<()> {
        self.begin().map(drop)
    }

    /// The chunks of the session at hand, which was begun.
    pub(super) fn chunks(&mut self) -> &mut ChunkWriter<'r> {
        self.chunks.as_mut().expect("a session was begun before anything is copied")
    }

    /// Shows that the session is alive, and commits what is stored if it is time.
    pub(super) fn go_on(&mut self) -> Result<(), Halt> {
        let (bytes, secs, since) = (self.options.checkpoint_bytes, self.options.checkpoint_secs, self.since);
        let chunks = self.chunks();
        chunks.session().show_alive();
        if !chunks.commit_is_due(bytes, secs, since) {
            return Ok(());
        }
        match self.commit(CommitKind::Checkpoint, None)? {
            (Outcome::Made, _) if self.begin()? => Ok(()),
            _ => {
                self.forget();
                Err(Halt::BeginAnew)
            }
        }
    }

    /// Commits the session at hand; gives its id.
    pub(super) fn commit(&mut self, kind: CommitKind, snapshot: Option<&Snapshot>) -> Result<(Outcome, SessionId)> {
        let mut chunks = self.chunks.take().expect("a session was begun before it is committed");
        chunks.flush()?;
        let packs = chunks.close(snapshot)?;
        let session = chunks.session().clone();
        let ids: Vec<PackId> = packs.iter().map(|pack| pack.id).collect();
        self.added_bytes += chunks.added_bytes();
        self.stored_bytes += packs.iter().map(|pack| u64::from(pack.stored_bytes)).sum::<u64>();
        let outcome = session.commit(kind, packs, snapshot, self.superseded.clone())?;
        match (kind, outcome) {
            (CommitKind::Snapshot, Outcome::Made) => self.superseded.clear(),
            _ => self.superseded.push(session.id()),
        }
        self.relied = Some(session.reliance(&ids));
        if outcome == Outcome::Flagged {
            // It may be called void yet.
            self.forget();
        }
        Ok((outcome, session.id()))
    }

    /// Takes note that the snapshot at hand is not made.
    pub(super) fn give_up(&mut self) {
        // What was noted of it may lack something; and its checkpoints are not for the next to supersede.
        self.forget();
        self.superseded.clear();
    }

    /// Ends the session at hand, if any: what is stored of a snapshot that was not copied is kept for a week.
    pub(super) fn end(&mut self) -> Result<()> {
        match &self.chunks {
            Some(chunks) if chunks.has_begun() || chunks.added_bytes() > 0 => {
                self.commit(CommitKind::Checkpoint, None).map(drop)
            }
            Some(chunks) => {
                chunks.session().withdraw();
                self.chunks = None;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
