//! Making a snapshot of another: with other tags, without some of its files, without what is lost.
//!
//! An ordinary session of an owner. It looks for no chunk of the old snapshot, which is live: all that one
//! names is kept for it ([`Session::may_name_all_of`]). What is new, nodes alone, is stored.

use std::path::Path;
use std::sync::Arc;

use super::Repository;
use super::chunk_writer::ChunkWriter;
use super::content::Reader;
use super::keys::not_an_owner;
use super::pack_writer::PackSettings;
use super::reader::{Pieces, ReadNodes};
use super::session::{Outcome, Session};
use super::snapshots::SnapshotInfo;
use super::tree::NodeSink;
use super::trim::{Choice, Trimmed, trim};
use super::walk::Walk;
use crate::crypto::ident::{ChunkKind, IdKeys};
use crate::error::{Error, Kind, Result};
use crate::format::access::Role;
use crate::format::session::{CommitKind, Snapshot};
use crate::format::tree::{Detail, Piece};
use crate::id::{ChunkId, SessionId};
use crate::monitor::Monitor;
use crate::path::TreePath;

/// Whether a snapshot takes the place of the one it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It does: the old one is a root no longer.
    Taken,
    /// The old one stays beside it.
    Beside,
}

/// Makes `snapshot`, which is of the tree of `info`.
pub fn same_tree(repo: &Repository, info: &SnapshotInfo, snapshot: &Snapshot, place: Place) -> Result<SessionId> {
    let session = begin(repo, info)?;
    let supersedes = if place == Place::Taken { vec![info.id()] } else { Vec::new() };
    made(&session, session.commit(CommitKind::Snapshot, Vec::new(), Some(snapshot), supersedes)?)
}

/// Makes a snapshot of the tree of `info`, read through `tree`, without what `choice` drops. `record` is shown
/// the tree and says what the snapshot is to be, or that there is none to be made.
pub fn less<R: ReadNodes + ?Sized>(
    repo: &Repository,
    tree: &R,
    info: &SnapshotInfo,
    choice: &mut dyn Choice,
    record: impl FnOnce(&Trimmed) -> Option<Snapshot>,
    monitor: &Monitor,
) -> Result<(Trimmed, Option<SessionId>)> {
    let session = Arc::new(begin(repo, info)?);
    let mut chunks = ChunkWriter::new(session.clone(), PackSettings::default(), Arc::new(|_| {}));
    let trimmed =
        trim(tree, &repo.keys.ids, &info.snapshot.root, choice, &mut chunks, &repo.spill_directory(), monitor);
    let withdraw = |chunks: &ChunkWriter<'_>| {
        if !chunks.has_begun() {
            session.withdraw();
        }
    };
    let trimmed = trimmed.inspect_err(|_| withdraw(&chunks))?;
    let Some(snapshot) = record(&trimmed) else {
        withdraw(&chunks);
        return Ok((trimmed, None));
    };
    session.show_alive();
    chunks.flush()?;
    let packs = if chunks.added() > 0 { chunks.close(Some(&snapshot))? } else { Vec::new() };
    let outcome = session.commit(CommitKind::Snapshot, packs, Some(&snapshot), Vec::new())?;
    Ok((trimmed, Some(made(&session, outcome)?)))
}

/// The tree that [`less`] would make. Writes nothing.
pub fn would_be<R: ReadNodes + ?Sized>(
    reader: &Reader<'_>,
    tree: &R,
    info: &SnapshotInfo,
    choice: &mut dyn Choice,
    monitor: &Monitor,
) -> Result<Trimmed> {
    let repo = reader.repo();
    let (ids, spill) = (&repo.keys.ids, repo.spill_directory());
    trim(tree, ids, &info.snapshot.root, choice, &mut Nowhere(ids), Path::new(&spill), monitor)
}

/// Whom what a snapshot names is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// From whom this credential would take it (W4).
    Own,
    /// From whomever, of a snapshot that was made and named it: the new one trusts whom that one trusted.
    AsBefore,
}

/// Makes a snapshot that nothing live stands for: every chunk its tree names is looked for first, so it fails,
/// rather than make one that lacks something, when a collection has begun to take it.
pub fn looked_for(reader: &Reader<'_>, snapshot: &Snapshot, trust: Trust, monitor: &Monitor) -> Result<SessionId> {
    let repo = reader.repo();
    if repo.keys.role != Role::Owner {
        return Err(not_an_owner());
    }
    let session = Session::begin(repo)?;
    let asking = Asking { session: &session, reader, trust };
    if let Err(error) = asking.everything(snapshot, monitor) {
        session.withdraw();
        return Err(error);
    }
    made(&session, session.commit(CommitKind::Snapshot, Vec::new(), Some(snapshot), Vec::new())?)
}

/// A repository of which only that is read which a session may rely on.
struct Asking<'a, 'r> {
    session: &'a Session<'r>,
    reader: &'a Reader<'r>,
    trust: Trust,
}

impl Asking<'_, '_> {
    fn everything(&self, snapshot: &Snapshot, monitor: &Monitor) -> Result<()> {
        for entry in Walk::below(self, TreePath::root(), &snapshot.root) {
            if monitor.stopping() {
                return Err(Error::new(Kind::Interrupted, "interrupted"));
            }
            monitor.done(1, 0);
            let Detail::File { content, .. } = &entry?.detail else { continue };
            for piece in Pieces::new(self, content) {
                if let Piece::Chunk { id, .. } = piece? {
                    self.ask(&id)?;
                }
            }
        }
        Ok(())
    }

    fn ask(&self, id: &ChunkId) -> Result<()> {
        let may = match self.trust {
            Trust::Own => self.session.may_reuse(id),
            Trust::AsBefore => self.session.may_name_again(id),
        };
        if may {
            return Ok(());
        }
        let what = format!("chunk `{}` is being collected or lost", id.short());
        Err(Error::new(Kind::Refused, what).hint("restore from it what is left, with `esker restore`"))
    }
}

impl ReadNodes for Asking<'_, '_> {
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.ask(id)?;
        self.reader.node(id)
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.ask(id)?;
        self.reader.list_node(id)
    }
}

/// Begins a session that may name all that a snapshot names.
fn begin<'r>(repo: &'r Repository, info: &SnapshotInfo) -> Result<Session<'r>> {
    if repo.keys.role != Role::Owner {
        return Err(not_an_owner());
    }
    let session = Session::begin(repo)?;
    match session.may_name_all_of(info) {
        Ok(()) => Ok(session),
        Err(error) => {
            session.withdraw();
            Err(error)
        }
    }
}

/// What only a commit that nobody had asked for is good for.
fn made(session: &Session<'_>, outcome: Outcome) -> Result<SessionId> {
    match outcome {
        Outcome::Made => Ok(session.id()),
        Outcome::Flagged => {
            let what = "the snapshot was not made: a collection under way has asked for it before";
            Err(Error::new(Kind::Failed, what).hint("run the same command again"))
        }
    }
}

/// Keeps nothing of the nodes it takes.
struct Nowhere<'a>(&'a IdKeys);

impl NodeSink for Nowhere<'_> {
    fn node(&mut self, kind: ChunkKind, bytes: &[u8]) -> Result<ChunkId> {
        Ok(self.0.chunk(kind, bytes))
    }
}
