//! Reachability: which chunks some entries refer to, with all that is below them.
//!
//! A chunk is marked at the first of its rows in the catalog, whether or not that one counts. A subtree
//! reached once is not walked again, nor is a list; one bit a chunk is all it takes, and it ends whatever
//! refers to what.

use super::content::{Reader, missing};
use super::reader::{Pieces, ReadNodes};
use super::walk::Walk;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Detail, Entry, Piece};
use crate::id::ChunkId;
use crate::index::{Found, Marks, SharedMarks};
use crate::monitor::Monitor;
use crate::path::TreePath;

/// What of a tree could not be told.
#[derive(Debug)]
pub struct Gap {
    /// The directory or file.
    pub path: TreePath,
    /// Why.
    pub error: Error,
}

/// What was reached so far. Several threads may walk at once: a subtree that one of them has begun is that one's.
#[derive(Debug)]
pub struct Reach<'a, 'r> {
    reader: &'a Reader<'r>,
    marks: SharedMarks,
}

impl<'a, 'r> Reach<'a, 'r> {
    /// Nothing marked.
    pub fn new(reader: &'a Reader<'r>) -> Self {
        Self { reader, marks: SharedMarks::with_rows(reader.catalog().rows()) }
    }

    /// What was marked: of each chunk the first of the catalog's rows.
    pub fn marks(&self) -> Marks {
        self.marks.marks()
    }

    /// Marks a chunk; says whether it was marked before. One that is in no pack that counts is damage.
    pub fn mark(&self, id: &ChunkId) -> Result<bool> {
        let counts = self.reader.places(id).next().is_some();
        match self.reader.catalog().lookup(id).next() {
            Some(first) if counts => Ok(self.marks.set(first.ordinal)),
            _ => Err(missing(id)),
        }
    }

    fn is_marked(&self, id: &ChunkId) -> bool {
        let first = self.reader.catalog().lookup(id).next();
        first.is_some_and(|found| self.marks.get(found.ordinal))
    }

    /// Marks everything that `start`, which is at `path`, refers to, and tells of each part that is
    /// damaged; an error of `gap` ends it.
    pub fn walk(
        &self,
        start: &Entry,
        path: TreePath,
        monitor: &Monitor,
        mut gap: impl FnMut(Gap) -> Result<()>,
    ) -> Result<()> {
        let mut take = |result: Result<()>, path: &TreePath| match result {
            Err(error) if error.kind() == Kind::Damaged => gap(Gap { path: path.clone(), error }),
            other => other,
        };
        take(self.file(start), &path)?;
        if self.is_walked(start) {
            return Ok(());
        }
        let mut walk = Walk::below(self, path, start);
        while let Some(entry) = walk.next() {
            if monitor.stopping() {
                return Err(Error::new(Kind::Interrupted, "stopped while going through the snapshots"));
            }
            monitor.done(1, 0);
            match entry {
                Ok(entry) if self.is_walked(&entry) => walk.pass_over(),
                Ok(entry) => take(self.file(&entry), walk.path())?,
                Err(error) => take(Err(error), walk.path())?,
            }
        }
        Ok(())
    }

    /// Whether an entry is a directory that was walked before.
    fn is_walked(&self, entry: &Entry) -> bool {
        matches!(&entry.detail, Detail::Directory { id, .. } if self.is_marked(id))
    }

    fn file(&self, entry: &Entry) -> Result<()> {
        let Detail::File { content, .. } = &entry.detail else { return Ok(()) };
        // What is behind a chunk that is nowhere is marked too.
        let mut missing = Ok(());
        for piece in Pieces::new(self.reader, content).unless(|node| self.mark(node).unwrap_or(false)) {
            if let Piece::Chunk { id, .. } = piece?
                && let Err(error) = self.mark(&id)
            {
                missing = Err(error);
            }
        }
        missing
    }
}

/// Whether a chunk is marked, given all its rows as [`crate::index::Catalog::each_chunk`] gives them.
pub fn is_marked(marks: &Marks, rows: &[Found]) -> bool {
    rows.first().is_some_and(|first| marks.get(first.ordinal))
}

impl ReadNodes for Reach<'_, '_> {
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.mark(id)?;
        self.reader.node(id)
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.reader.list_node(id)
    }
}
