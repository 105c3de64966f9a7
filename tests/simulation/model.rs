//! What must be in the repository, whatever the interleaving: snapshots that were reported as made.

use std::collections::BTreeMap;

use esker::path::TreePath;

/// What is known of one snapshot that was reported as made.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// What it restores to.
    pub(crate) lines: Vec<String>,
    pub(crate) source: TreePath,
}

/// Somebody has forgotten a snapshot, or might have.
#[derive(Debug, Clone, Copy)]
struct Forgotten {
    /// The time to bring it back lasts this long or longer.
    until_secs: i64,
    /// Collections that were over by then.
    prunes_ended: u64,
}

/// The snapshots by id, and how many collections there were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) snapshots: BTreeMap<String, Known>,
    /// By id, perhaps before it was reported as made.
    forgotten: BTreeMap<String, Vec<Forgotten>>,
    prunes_begun: u64,
    prunes_ended: u64,
}

impl Model {
    pub(crate) fn made(&mut self, id: &str, lines: Vec<String>, source: TreePath) {
        self.snapshots.insert(id.to_owned(), Known { lines, source });
    }

    /// Somebody is about to forget it.
    pub(crate) fn forgetting(&mut self, id: &str, until_secs: i64) {
        let forgotten = Forgotten { until_secs, prunes_ended: self.prunes_ended };
        self.forgotten.entry(id.to_owned()).or_default().push(forgotten);
    }

    /// It was brought back under another id.
    pub(crate) fn brought_back(&mut self, id: &str, again: &str) {
        if let Some(known) = self.snapshots.get(id).cloned() {
            self.snapshots.insert(again.to_owned(), known);
        }
    }

    pub(crate) fn prune_begins(&mut self) {
        self.prunes_begun += 1;
    }

    pub(crate) fn prune_ends(&mut self) {
        self.prunes_ended += 1;
    }

    /// Whether a snapshot need not be offered any more: its time is over, and a collection has seen that.
    pub(crate) fn may_be_hidden(&self, id: &str, now_secs: i64) -> bool {
        self.is_over(id, now_secs, 1)
    }

    /// Whether a snapshot may be gone: its time is over, and two collections were at work since.
    pub(crate) fn may_be_gone(&self, id: &str, now_secs: i64) -> bool {
        self.is_over(id, now_secs, 2)
    }

    fn is_over(&self, id: &str, now_secs: i64, prunes: u64) -> bool {
        let is_over = |it: &Forgotten| it.until_secs <= now_secs && self.prunes_begun - it.prunes_ended >= prunes;
        self.forgotten.get(id).is_some_and(|notes| notes.iter().any(is_over))
    }

    /// The ids of those that nobody has forgotten.
    pub(crate) fn kept(&self) -> Vec<String> {
        self.snapshots.keys().filter(|id| self.is_kept(id)).cloned().collect()
    }

    /// Whether nobody has forgotten it.
    pub(crate) fn is_kept(&self, id: &str) -> bool {
        !self.forgotten.contains_key(id)
    }
}
