//! Walking snapshots: every node and chunk they name is there, and what the faults affect.

use std::collections::BTreeSet;

use super::{Bad, Faults};
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Content, Detail, Entry, Piece};
use crate::id::{ChunkId, SessionId};
use crate::index::Marks;
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::reader::{Entries, Pieces};
use crate::repo::snapshots::SnapshotInfo;

/// Deepest a directory may lie: a hostile tree ends here.
const DEPTH_MAX: usize = 100_000;

struct Walk<'a, 'r> {
    reader: &'a Reader<'r>,
    faults: &'a mut Faults,
    bad: &'a Bad,
    /// Directories and lists below which everything was found whole.
    whole: Marks,
}

/// A directory being walked.
struct Open<'a, 'r> {
    entries: Entries<'a, Reader<'r>>,
    id: ChunkId,
    whole: bool,
}

/// Walks the snapshots and adds to the faults what they affect.
pub(super) fn check(
    reader: &Reader<'_>,
    snapshots: &[&SnapshotInfo],
    monitor: &Monitor,
    faults: &mut Faults,
    bad: &Bad,
) -> Result<()> {
    let mut walk = Walk { reader, faults, bad, whole: Marks::with_rows(reader.catalog().rows()) };
    for info in snapshots {
        walk.snapshot(info, monitor)?;
        if monitor.stopping() {
            return Err(Error::new(Kind::Interrupted, "the check was interrupted"));
        }
    }
    Ok(())
}

impl<'a, 'r> Walk<'a, 'r> {
    fn snapshot(&mut self, info: &SnapshotInfo, monitor: &Monitor) -> Result<()> {
        let snapshot = info.id();
        let mut path = TreePath::root();
        let mut stack = Vec::new();
        stack.extend(self.enter(&info.snapshot.root, snapshot, &path)?);
        while let Some(open) = stack.last_mut() {
            match open.entries.next() {
                Some(Ok(entry)) => {
                    let Some(name) = &entry.name else { continue };
                    path.push(name);
                    monitor.done(1, 0);
                    if let Detail::Directory { .. } = entry.detail {
                        if stack.len() >= DEPTH_MAX {
                            return Err(Error::new(Kind::Damaged, format!("`{path}` lies too deep to be checked")));
                        }
                        match self.enter(&entry, snapshot, &path)? {
                            Some(below) => {
                                stack.push(below);
                                continue;
                            }
                            None => path.pop(),
                        }
                    } else {
                        let whole = self.file(&entry, snapshot, &path)?;
                        path.pop();
                        if let Some(open) = stack.last_mut() {
                            open.whole &= whole;
                        }
                    }
                }
                Some(Err(error)) => {
                    open.whole = false;
                    self.unreadable(error, snapshot, &path)?;
                }
                None => {
                    let done = stack.pop();
                    if let Some(done) = done {
                        if done.whole {
                            self.mark_whole(&done.id);
                        }
                        if let Some(around) = stack.last_mut() {
                            around.whole &= done.whole;
                        }
                    }
                    path.pop();
                }
            }
        }
        Ok(())
    }

    /// Begins a directory, unless it was found whole before.
    fn enter(&mut self, entry: &Entry, snapshot: SessionId, path: &TreePath) -> Result<Option<Open<'a, 'r>>> {
        let Detail::Directory { id, level, .. } = entry.detail else { return Ok(None) };
        if self.is_whole(&id) {
            return Ok(None);
        }
        // Its nodes are read, and so checked, on the way; that they lie in a bad pack shows there.
        let whole = self.chunk(&id, None, snapshot, path)?;
        Ok(Some(Open { entries: Entries::new(self.reader, id, level), id, whole }))
    }

    /// Checks a file's content; says whether all of it is there.
    fn file(&mut self, entry: &Entry, snapshot: SessionId, path: &TreePath) -> Result<bool> {
        let Detail::File { size, content, .. } = &entry.detail else { return Ok(true) };
        if let Content::List { id, .. } = content
            && self.is_whole(id)
        {
            return Ok(true);
        }
        let mut whole = true;
        let mut total = 0_u64;
        for piece in Pieces::new(self.reader, content) {
            match piece {
                Ok(piece) => {
                    total = total.saturating_add(piece.bytes());
                    if let Piece::Chunk { id, bytes } = piece {
                        whole &= self.chunk(&id, Some(bytes), snapshot, path)?;
                    }
                }
                Err(error) => {
                    whole = false;
                    self.unreadable(error, snapshot, path)?;
                }
            }
        }
        if whole && total != *size {
            let fault = self.faults.add(&format!("file `{path}`"), format!("pieces of {total} bytes, size {size}"));
            self.faults.affects(fault, snapshot, path);
            whole = false;
        }
        if whole && let Content::List { id, .. } = content {
            self.mark_whole(id);
        }
        Ok(whole)
    }

    /// Whether a chunk lies whole in a pack that is there.
    fn chunk(&mut self, id: &ChunkId, bytes: Option<u32>, snapshot: SessionId, path: &TreePath) -> Result<bool> {
        let mut fault = None;
        for found in self.reader.places(id) {
            let pack = found.row.pack;
            if bytes.is_some_and(|bytes| bytes != found.row.chunk_bytes) {
                continue;
            }
            match self.bad.packs.get(&pack).or_else(|| self.bad.chunks.get(&(pack, *id))) {
                None => return Ok(true),
                Some(known) => fault = Some(*known),
            }
        }
        let fault =
            fault.unwrap_or_else(|| self.faults.add(&format!("chunk {id}"), "it is in no pack that the index knows"));
        self.faults.affects(fault, snapshot, path);
        Ok(false)
    }

    /// A node could not be read. Only damage is a finding; the rest ends the check.
    fn unreadable(&mut self, error: Error, snapshot: SessionId, path: &TreePath) -> Result<()> {
        if error.kind() != Kind::Damaged {
            return Err(error);
        }
        let fault = self.faults.add(&format!("nodes of `{path}`"), error.with_causes());
        self.faults.affects(fault, snapshot, path);
        Ok(())
    }

    fn is_whole(&self, id: &ChunkId) -> bool {
        self.reader.places(id).next().is_some_and(|found| self.whole.get(found.ordinal))
    }

    fn mark_whole(&mut self, id: &ChunkId) {
        if let Some(found) = self.reader.places(id).next() {
            self.whole.set(found.ordinal);
        }
    }
}

/// The packs that hold what these snapshots need.
pub(super) fn packs_of(reader: &Reader<'_>, snapshots: &[&SnapshotInfo]) -> Result<BTreeSet<u32>> {
    let mut packs = BTreeSet::new();
    for info in snapshots {
        let mut open = vec![info.snapshot.root.clone()];
        while let Some(entry) = open.pop() {
            let mut add = |id: &ChunkId| packs.extend(reader.places(id).map(|found| found.row.pack));
            match &entry.detail {
                Detail::Directory { id, level, .. } => {
                    add(id);
                    // Damage is found, and said, when the trees are walked.
                    open.extend(Entries::new(reader, *id, *level).filter_map(Result::ok));
                }
                Detail::File { content, .. } => {
                    if let Content::List { id, .. } = content {
                        add(id);
                    }
                    for piece in Pieces::new(reader, content).filter_map(Result::ok) {
                        if let Piece::Chunk { id, .. } = piece {
                            add(&id);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    Ok(packs)
}
