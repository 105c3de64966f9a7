//! Reachability: which chunks some entries refer to, with all that is below them.
//!
//! A subtree reached once is not walked again, nor is a list; one bit a chunk is all it takes, and it
//! ends whatever refers to what.

use std::sync::{Mutex, PoisonError};

use super::content::Reader;
use super::reader::{FrameAt, Location, Pieces, ReadRepo};
use super::walk::Walk;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Detail, Entry, Piece};
use crate::id::ChunkId;
use crate::index::Marks;
use crate::monitor::Monitor;
use crate::path::TreePath;

/// What was reached so far: one mark at a chunk's first place.
pub struct Reach<'a, 'r> {
    reader: &'a Reader<'r>,
    marks: Mutex<Marks>,
}

impl<'a, 'r> Reach<'a, 'r> {
    /// Nothing yet.
    pub fn new(reader: &'a Reader<'r>) -> Self {
        Self { reader, marks: Mutex::new(Marks::with_rows(reader.catalog().rows())) }
    }

    /// The marks, by row of the catalog.
    pub fn into_marks(self) -> Marks {
        self.marks.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a chunk; says whether it was marked before. One that is nowhere is not.
    fn mark(&self, id: &ChunkId) -> bool {
        let place = self.reader.places(id).next();
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        place.is_some_and(|found| marks.set(found.ordinal))
    }

    fn is_marked(&self, id: &ChunkId) -> bool {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        self.reader.places(id).next().is_some_and(|found| marks.get(found.ordinal))
    }

    /// Marks everything an entry refers to; gives how many parts of it are damaged.
    pub fn walk(&self, start: &Entry, monitor: &Monitor) -> Result<u64> {
        let mut damaged = 0;
        let mut count = |result: Result<()>| match result {
            Err(error) if error.kind() == Kind::Damaged => {
                damaged += 1;
                Ok(())
            }
            other => other,
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
                Ok(entry) if self.is_walked(&entry) => walk.pass_over(),
                Ok(entry) => count(self.file(&entry))?,
                Err(error) => count(Err(error))?,
            }
        }
        Ok(damaged)
    }

    /// Whether an entry is a directory that was walked before.
    fn is_walked(&self, entry: &Entry) -> bool {
        matches!(&entry.detail, Detail::Directory { id, .. } if self.is_marked(id))
    }

    fn file(&self, entry: &Entry) -> Result<()> {
        let Detail::File { content, .. } = &entry.detail else { return Ok(()) };
        for piece in Pieces::new(self.reader, content).unless(|node| self.mark(node)) {
            if let Piece::Chunk { id, .. } = piece? {
                self.mark(&id);
            }
        }
        Ok(())
    }
}

impl ReadRepo for Reach<'_, '_> {
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
        self.reader.list_node(id)
    }
}
