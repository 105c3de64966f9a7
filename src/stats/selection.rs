//! Some snapshots: what restoring them writes, what they take, and what only they have.

use super::{Chunks, Snapshots};
use crate::error::Result;
use crate::format::tree::Entry;
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::reach::{Reach, is_marked};

/// What some entries, mostly roots of snapshots, come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    /// The entries and what restoring them writes.
    pub snapshots: Snapshots,
    /// Chunks they refer to, each once.
    pub chunks: Chunks,
    /// Those that nothing else refers to: what forgetting them would make garbage.
    pub only: Chunks,
    /// Directories and files whose chunks could not all be told.
    pub damaged: u64,
}

/// Counts what `chosen` entries refer to, and what none of the `others` does too.
pub fn selection(reader: &Reader<'_>, chosen: &[Entry], others: &[Entry], monitor: &Monitor) -> Result<Selection> {
    let mut selection = Selection::default();
    chosen.iter().for_each(|entry| selection.snapshots.add(entry));
    let inside = Reach::new(reader);
    let outside = Reach::new(reader);
    for (reach, entries) in [(&inside, chosen), (&outside, others)] {
        for entry in entries {
            reach.walk(entry, TreePath::root(), monitor, |_| {
                selection.damaged += 1;
                Ok(())
            })?;
        }
    }
    let (inside, outside) = (inside.marks(), outside.marks());
    reader.catalog().each_chunk(|copies| {
        let Some(found) = copies.iter().find(|found| reader.is_alive(found.row.pack)) else { return };
        if is_marked(&inside, copies) {
            selection.chunks.add(&found.row);
            if !is_marked(&outside, copies) {
                selection.only.add(&found.row);
            }
        }
    });
    Ok(selection)
}
