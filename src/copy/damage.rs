//! What of a snapshot cannot be read: it is named, and the snapshot is not copied.

use crate::error::{Error, Kind, Result};
use crate::monitor::{Monitor, Severity};
use crate::path::TreePath;
use crate::repo::snapshots::SnapshotInfo;

/// Counts the damage of one snapshot.
pub(super) struct Damage {
    label: String,
    monitor: Monitor,
    /// The one named last.
    last: Option<TreePath>,
    /// How many directories and files could not be read in full.
    pub(super) count: u64,
}

impl Damage {
    pub(super) fn new(info: &SnapshotInfo, monitor: &Monitor) -> Self {
        Self { label: info.id().short(), monitor: monitor.clone(), last: None, count: 0 }
    }

    /// Begins again.
    pub(super) fn clear(&mut self) {
        (self.last, self.count) = (None, 0);
    }

    /// Takes note of damage. What is wrong with the storage instead, or with this machine, ends the copy.
    pub(super) fn add(&mut self, path: &TreePath, error: Error) -> Result<()> {
        // Stored bytes are missing, wrong, or of a newer program.
        if !matches!(error.kind(), Kind::Damaged | Kind::TooNew) {
            return Err(error);
        }
        // Of a large file much may be lost.
        if self.last.as_ref() == Some(path) {
            return Ok(());
        }
        self.last = Some(path.clone());
        self.count += 1;
        self.monitor.problem(Severity::Error, format!("{}:{path}", self.label), error.with_causes());
        Ok(())
    }
}
