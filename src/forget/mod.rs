//! Forgetting snapshots by a policy, and bringing them back.
//!
//! To forget is to say so in a note; nothing is deleted. Until the time to undo it is over and a
//! collection has seen the note, [`undelete`] makes a new snapshot of the same tree.

pub mod policy;

use crate::error::{Error, Kind, Result};
use crate::format::access::Role;
use crate::format::gc::NoteClaim;
use crate::format::session::CommitKind;
use crate::format::tree::{Detail, Piece};
use crate::id::{ChunkId, SessionId};
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::keys::not_an_owner;
use crate::repo::reader::{FrameAt, Location, Pieces, ReadRepo};
use crate::repo::session::{Outcome, Session};
use crate::repo::snapshots::SnapshotInfo;
use crate::repo::walk::Walk;

/// How long a snapshot can be brought back, unless told otherwise.
pub const UNDELETE_SECS: i64 = 7 * 24 * 3600;

/// Says of these snapshots that they are not wanted any more. Durable when it returns.
pub fn run(repo: &Repository, snapshots: &[SnapshotInfo], undelete_secs: i64) -> Result<()> {
    if repo.keys.role != Role::Owner {
        return Err(not_an_owner());
    }
    let until_secs = repo.world.now().secs.saturating_add(undelete_secs.max(0));
    let claims =
        snapshots.iter().map(|info| NoteClaim::Forgotten { session: info.id(), commit: info.header.hash, until_secs });
    repo.note(claims)
}

/// Makes a new snapshot of a forgotten one's tree; gives its id.
///
/// An ordinary session: everything the tree names is looked for first, so it fails, rather than make a
/// snapshot that lacks something, when a collection has begun to take it.
pub fn undelete(reader: &Reader<'_>, info: &SnapshotInfo, monitor: &Monitor) -> Result<SessionId> {
    let repo = reader.repo();
    if repo.keys.role != Role::Owner {
        return Err(not_an_owner());
    }
    let session = Session::begin(repo)?;
    let checked = every_chunk_may_be_named(&session, reader, info, monitor);
    if let Err(error) = checked {
        session.withdraw();
        return Err(error);
    }
    let snapshot = info.as_original();
    let outcome = session.commit(CommitKind::Snapshot, Vec::new(), Some(&snapshot), Vec::new())?;
    match outcome {
        Outcome::Made => Ok(session.id()),
        Outcome::Flagged => Err(Error::new(
            Kind::Failed,
            format!("snapshot `{}` was not brought back: a collection is under way", info.id().short()),
        )
        .hint("run the same command again")),
    }
}

fn every_chunk_may_be_named(
    session: &Session<'_>,
    reader: &Reader<'_>,
    info: &SnapshotInfo,
    monitor: &Monitor,
) -> Result<()> {
    let asking = Asking { session, reader };
    for entry in Walk::below(&asking, TreePath::root(), &info.snapshot.root) {
        if monitor.stopping() {
            return Err(Error::new(Kind::Interrupted, "the snapshot was not brought back: interrupted"));
        }
        monitor.done(1, 0);
        let Detail::File { content, .. } = &entry?.detail else { continue };
        for piece in Pieces::new(&asking, content) {
            if let Piece::Chunk { id, .. } = piece? {
                asking.ask(&id)?;
            }
        }
    }
    Ok(())
}

/// A repository of which only that is read which a session may name again.
struct Asking<'a, 'r> {
    session: &'a Session<'r>,
    reader: &'a Reader<'r>,
}

impl Asking<'_, '_> {
    fn ask(&self, id: &ChunkId) -> Result<()> {
        if self.session.may_name_again(id) {
            return Ok(());
        }
        let what = format!("the snapshot cannot be brought back: chunk `{}` is being collected or lost", id.short());
        Err(Error::new(Kind::Refused, what).hint("restore from it what is left, with `esker restore`"))
    }
}

impl ReadRepo for Asking<'_, '_> {
    fn locate(&self, id: &ChunkId) -> Result<Location> {
        self.reader.locate(id)
    }

    fn frame(&self, at: &FrameAt) -> Result<Vec<u8>> {
        self.reader.frame(at)
    }

    fn chunk(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.reader.chunk(id)
    }

    fn verify(&self, id: &ChunkId, bytes: &[u8]) -> bool {
        self.reader.verify(id, bytes)
    }

    fn node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.ask(id)?;
        self.reader.node(id)
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.ask(id)?;
        self.reader.list_node(id)
    }
}
