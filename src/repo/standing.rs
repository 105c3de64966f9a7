//! Which commits are roots: what there is to restore, and what a collection keeps for it.
//!
//! A commit counts for ever, so that what lies in its packs can be read; whether it is a root is
//! another matter. Only owners forget. A checkpoint is done with once the commit that ends its
//! backup is there, or after a week.

use std::collections::BTreeSet;

use super::Repository;
use super::collections::Collections;
use super::commits::{CommitHeader, Commits};
use crate::format::session::CommitKind;
use crate::id::SessionId;

/// How long a checkpoint waits for its backup to go on.
pub const CHECKPOINT_SECS: i64 = 7 * 24 * 3600;

/// What a commit is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A root.
    Live,
    /// An owner has forgotten it; a root still, until a collection may take it.
    Forgotten {
        /// End of the time in which that can be undone, seconds since 1970.
        until_secs: i64,
        /// Whether a collection may take it: that time is over, and an earlier collection had seen the note.
        in_effect: bool,
    },
    /// Another commit has taken its place.
    Superseded,
    /// A checkpoint whose backup did not go on within a week.
    Expired,
    /// It holds nothing to restore.
    Maintenance,
}

impl Standing {
    /// Whether a collection keeps what the commit names.
    pub fn is_root(self) -> bool {
        matches!(self, Self::Live | Self::Forgotten { in_effect: false, .. })
    }
}

/// The standing of every commit at one moment.
#[derive(Debug)]
pub struct Standings<'a> {
    collections: &'a Collections,
    superseded: BTreeSet<SessionId>,
    now_secs: i64,
}

impl<'a> Standings<'a> {
    /// Looks at all commits.
    pub fn new(repo: &Repository, commits: &Commits, collections: &'a Collections) -> Self {
        let mut superseded = BTreeSet::new();
        for header in commits.headers.values() {
            // A writer can take the place of its own checkpoints only: to drop a snapshot is to forget it.
            let may = |of: &CommitHeader| {
                repo.is_owner(&header.credential)
                    || of.credential == header.credential && of.kind == CommitKind::Checkpoint
            };
            let others = header.supersedes.iter().filter(|session| **session != header.session);
            superseded.extend(others.filter(|session| commits.headers.get(session).is_some_and(may)));
        }
        Self { collections, superseded, now_secs: repo.world.now().secs }
    }

    /// The standing of one commit.
    pub fn of(&self, header: &CommitHeader) -> Standing {
        if header.kind == CommitKind::Maintenance {
            return Standing::Maintenance;
        }
        if self.superseded.contains(&header.session) {
            return Standing::Superseded;
        }
        if let Some(forgotten) = self.collections.forgotten.get(&(header.session, header.hash)) {
            let over = |(note, until): (_, &i64)| self.collections.notes_seen.contains(note) && *until <= self.now_secs;
            let in_effect = forgotten.notes.iter().any(over);
            return Standing::Forgotten { until_secs: forgotten.until_secs(), in_effect };
        }
        if header.kind == CommitKind::Checkpoint && header.time_secs.saturating_add(CHECKPOINT_SECS) < self.now_secs {
            return Standing::Expired;
        }
        Standing::Live
    }
}
