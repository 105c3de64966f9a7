//! Giving snapshots other tags: a new snapshot of the same tree takes the place of each.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::format::session::Snapshot;
use crate::id::SessionId;
use crate::repo::Repository;
use crate::repo::remake::{Place, same_tree};
use crate::repo::snapshots::SnapshotInfo;

/// What becomes of a snapshot's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// They are replaced by these.
    Set(BTreeSet<String>),
    /// Some are added, and then some removed.
    Edit {
        /// Those to add.
        add: BTreeSet<String>,
        /// Those to remove.
        remove: BTreeSet<String>,
    },
}

impl Change {
    /// What the tags become.
    pub fn of(&self, tags: &[String]) -> Vec<String> {
        let tags: BTreeSet<String> = match self {
            Self::Set(tags) => tags.clone(),
            Self::Edit { add, remove } => {
                let all = tags.iter().chain(add).filter(|tag| !remove.contains(*tag));
                all.cloned().collect()
            }
        };
        tags.into_iter().collect()
    }
}

/// Changes the tags of a snapshot; gives the id it has then. `None`: they are so already.
///
/// Until the new one is there the old one is, and there are never both.
pub fn run(repo: &Repository, info: &SnapshotInfo, change: &Change) -> Result<Option<SessionId>> {
    let tags = change.of(&info.snapshot.tags);
    if tags == info.snapshot.tags {
        return Ok(None);
    }
    let snapshot = Snapshot { tags, ..info.as_original() };
    same_tree(repo, info, &snapshot, Place::Taken).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tags: &[&str]) -> BTreeSet<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn tags_are_set_or_added_and_then_removed() {
        let old = ["a".to_owned(), "b".to_owned()];
        assert_eq!(Change::Set(set(&["z", "c"])).of(&old), ["c", "z"]);
        assert!(Change::Set(set(&[])).of(&old).is_empty());
        assert_eq!(Change::Edit { add: set(&["b", "0"]), remove: set(&["a", "x"]) }.of(&old), ["0", "b"]);
        // As in restic what is removed wins.
        assert_eq!(Change::Edit { add: set(&["c"]), remove: set(&["c"]) }.of(&old), ["a", "b"]);
    }
}
