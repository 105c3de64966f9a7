//! Forgetting snapshots by a policy, and bringing them back.
//!
//! To forget is to say so in a note; nothing is deleted. Until the time to undo it is over and a
//! collection has seen the note, [`undelete`] makes a new snapshot of the same tree.

pub mod policy;

use crate::error::{Context, Result};
use crate::id::SessionId;
use crate::monitor::Monitor;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::remake::{Trust, looked_for};
use crate::repo::snapshots::SnapshotInfo;

/// How long a snapshot can be brought back, unless told otherwise.
pub const UNDELETE_SECS: i64 = 7 * 24 * 3600;

/// Says of these snapshots that they are not wanted any more. Durable when it returns.
pub fn run(repo: &Repository, snapshots: &[SnapshotInfo], undelete_secs: i64) -> Result<()> {
    repo.forget(snapshots, undelete_secs)
}

/// Makes a new snapshot of a forgotten one's tree; gives its id.
///
/// Everything the tree names is looked for first, so it fails, rather than make a snapshot that lacks
/// something, when a collection has begun to take it.
pub fn undelete(reader: &Reader<'_>, info: &SnapshotInfo, monitor: &Monitor) -> Result<SessionId> {
    looked_for(reader, &info.as_original(), Trust::AsBefore, monitor)
        .context(|| format!("snapshot `{}` was not brought back", info.id().short()))
}
