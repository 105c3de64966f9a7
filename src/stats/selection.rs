//! Some snapshots: what restoring them writes, what they take, and what only they have.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Chunks, Snapshots};
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Content, Detail, Entry, Piece};
use crate::id::ChunkId;
use crate::index::Marks;
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::reader::{FrameAt, Location, Pieces, ReadRepo};
use crate::repo::walk::Walk;

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
    let inside = Marking::new(reader);
    let outside = Marking::new(reader);
    for (marking, entries) in [(&inside, chosen), (&outside, others)] {
        for entry in entries {
            selection.damaged += marking.walk(entry, monitor)?;
        }
    }
    let (inside, outside) = (inside.into_marks(), outside.into_marks());
    reader.catalog().each_chunk(|copies| {
        let Some(found) = copies.iter().find(|found| reader.is_alive(found.row.pack)) else { return };
        if inside.get(found.ordinal) {
            selection.chunks.add(&found.row);
            if !outside.get(found.ordinal) {
                selection.only.add(&found.row);
            }
        }
    });
    Ok(selection)
}

/// A repository that remembers which chunks were asked for: one mark at a chunk's first place.
struct Marking<'a, 'r> {
    reader: &'a Reader<'r>,
    marks: Mutex<Marks>,
    /// Whether the index lacked a chunk that was asked for.
    lost: AtomicBool,
}

impl<'a, 'r> Marking<'a, 'r> {
    fn new(reader: &'a Reader<'r>) -> Self {
        Self { reader, marks: Mutex::new(Marks::with_rows(reader.catalog().rows())), lost: AtomicBool::new(false) }
    }

    fn into_marks(self) -> Marks {
        self.marks.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a chunk, or notes that the index does not have it.
    fn mark(&self, id: &ChunkId) {
        match self.reader.places(id).next() {
            Some(found) => drop(self.marks.lock().unwrap_or_else(PoisonError::into_inner).set(found.ordinal)),
            None => self.lost.store(true, Ordering::Relaxed),
        }
    }

    fn is_marked(&self, id: &ChunkId) -> bool {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        self.reader.places(id).next().is_some_and(|found| marks.get(found.ordinal))
    }

    /// Marks everything an entry refers to; gives how many parts of it are damaged.
    fn walk(&self, start: &Entry, monitor: &Monitor) -> Result<u64> {
        let mut damaged = 0;
        let mut count = |result: Result<()>| {
            let lost = self.lost.swap(false, Ordering::Relaxed);
            match result {
                Err(error) if error.kind() == Kind::Damaged => damaged += 1,
                Err(error) => return Err(error),
                Ok(()) => damaged += u64::from(lost),
            }
            Ok(())
        };
        count(self.file(start))?;
        if self.is_walked(start) {
            return Ok(damaged);
        }
        let mut walk = Walk::below(self, TreePath::root(), start);
        while let Some(entry) = walk.next() {
            if monitor.stopping() {
                return Err(Error::new(Kind::Interrupted, "the count was interrupted"));
            }
            monitor.done(1, 0);
            match entry {
                Ok(entry) if self.is_walked(&entry) => {
                    walk.pass_over();
                    count(Ok(()))?;
                }
                Ok(entry) => count(self.file(&entry))?,
                Err(error) => count(Err(error))?,
            }
        }
        count(Ok(()))?;
        Ok(damaged)
    }

    /// Whether an entry is a directory that was walked before.
    fn is_walked(&self, entry: &Entry) -> bool {
        matches!(&entry.detail, Detail::Directory { id, .. } if self.is_marked(id))
    }

    fn file(&self, entry: &Entry) -> Result<()> {
        let Detail::File { content, .. } = &entry.detail else { return Ok(()) };
        if matches!(content, Content::List { id, .. } if self.is_marked(id)) {
            return Ok(());
        }
        for piece in Pieces::new(self, content) {
            if let Piece::Chunk { id, .. } = piece? {
                self.mark(&id);
            }
        }
        Ok(())
    }
}

impl ReadRepo for Marking<'_, '_> {
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
        self.mark(id);
        self.reader.node(id)
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.mark(id);
        self.reader.list_node(id)
    }
}
