//! Walking snapshots: every node and chunk they name is there, and what the faults affect.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Bad, Faults};
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Content, Detail, Entry, Piece};
use crate::id::{ChunkId, SessionId};
use crate::index::Marks;
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::reader::{Entries, FrameAt, Location, Pieces, ReadRepo};
use crate::repo::session::pack_name;
use crate::repo::snapshots::SnapshotInfo;
use crate::repo::walk::Walk as TreeWalk;

/// Deepest a directory may lie: a hostile tree ends here.
const DEPTH_MAX: usize = 100_000;

struct Walk<'a, 'r> {
    reader: &'a Reader<'r>,
    nodes: &'a Nodes<'a, 'r>,
    faults: &'a mut Faults,
    bad: &'a Bad,
    /// Directories and lists below which everything was found whole.
    whole: Marks,
    /// Packs without which chunks would be missing and that the index does not name.
    strays: BTreeSet<u32>,
}

/// A directory being walked.
struct Open<'a, 'r> {
    entries: Entries<'a, Nodes<'a, 'r>>,
    id: ChunkId,
    whole: bool,
    /// What was said to affect it: of several nodes that cannot be read it is said once.
    said: BTreeSet<usize>,
}

/// Walks the snapshots and adds to the faults what they affect. Gives the packs that are needed and that
/// the index does not name.
pub(super) fn check(
    reader: &Reader<'_>,
    snapshots: &[&SnapshotInfo],
    monitor: &Monitor,
    faults: &mut Faults,
    bad: &Bad,
) -> Result<BTreeSet<u32>> {
    let nodes = Nodes::of(reader);
    let whole = Marks::with_rows(reader.catalog().rows());
    let mut walk = Walk { reader, nodes: &nodes, faults, bad, whole, strays: BTreeSet::new() };
    for info in snapshots {
        walk.snapshot(info, monitor)?;
        if monitor.stopping() {
            return Err(Error::new(Kind::Interrupted, "the check was interrupted"));
        }
    }
    Ok(walk.strays)
}

impl<'a, 'r> Walk<'a, 'r> {
    fn snapshot(&mut self, info: &SnapshotInfo, monitor: &Monitor) -> Result<()> {
        let snapshot = info.id();
        let mut path = TreePath::root();
        let mut stack = Vec::new();
        stack.extend(self.enter(&info.snapshot.root));
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
                        match self.enter(&entry) {
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
                    let fault = self.unreadable(error, &path)?;
                    if open.said.insert(fault) {
                        self.faults.affects(fault, snapshot, &path);
                    }
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

    /// Begins a directory, unless it was found whole before. Its nodes are checked by being read.
    fn enter(&mut self, entry: &Entry) -> Option<Open<'a, 'r>> {
        let Detail::Directory { id, level, .. } = entry.detail else { return None };
        if self.is_whole(&id) {
            return None;
        }
        let entries = Entries::new(self.nodes, id, level);
        Some(Open { entries, id, whole: true, said: BTreeSet::new() })
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
        for piece in Pieces::new(self.nodes, content) {
            let fault = match piece {
                Ok(piece) => {
                    total = total.saturating_add(piece.bytes());
                    match piece {
                        Piece::Chunk { id, bytes } => self.fault_of(&id, Some(bytes))?,
                        Piece::Zeros { .. } => None,
                    }
                }
                Err(error) => Some(self.unreadable(error, path)?),
            };
            if let Some(fault) = fault {
                whole = false;
                self.faults.affects(fault, snapshot, path);
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

    /// What is wrong with a chunk, unless it lies whole in some pack that is there.
    fn fault_of(&mut self, id: &ChunkId, bytes: Option<u32>) -> Result<Option<usize>> {
        let mut fault = None;
        for row in self
            .reader
            .places(id)
            .map(|found| found.row)
            .filter(|row| bytes.is_none_or(|bytes| bytes == row.chunk_bytes))
        {
            match self.bad.fault_of(&row) {
                None => return Ok(None),
                Some(known) => fault = Some(known),
            }
        }
        for row in self
            .reader
            .other_places(id)?
            .map(|found| found.row)
            .filter(|row| bytes.is_none_or(|bytes| bytes == row.chunk_bytes))
        {
            match self.bad.fault_of(&row) {
                None => {
                    self.stray(row.pack)?;
                    return Ok(None);
                }
                Some(known) => fault = Some(known),
            }
        }
        Ok(Some(fault.unwrap_or_else(|| self.faults.lost(id))))
    }

    /// Notes that a chunk is there only in a pack that the index does not name. Its segment was missed
    /// before, or else its commit is.
    fn stray(&mut self, pack: u32) -> Result<()> {
        if self.strays.insert(pack) {
            let session = self.reader.origin_of(pack)?.session;
            if !self.reader.commits().headers.contains_key(&session) {
                self.faults.add_commit(session, "it is missing: packs of its session hold what snapshots need");
            }
        }
        Ok(())
    }

    /// What is wrong with a node that could not be read. Only damage is a finding; the rest ends the check.
    fn unreadable(&mut self, error: Error, path: &TreePath) -> Result<usize> {
        if error.kind() != Kind::Damaged {
            return Err(error);
        }
        let Some(id) = self.nodes.asked().unread.take() else {
            // It is what was stored, and makes no sense.
            return Ok(self.faults.add(&format!("nodes of `{path}`"), error.with_causes()));
        };
        if let Some(known) = self.fault_of(&id, None)? {
            return Ok(known);
        }
        // Nothing was known to be wrong with its pack.
        let places: Vec<u32> = self.reader.places(&id).map(|found| found.row.pack).collect();
        let pack = places.into_iter().min().map_or_else(
            || Ok(self.reader.other_places(&id)?.map(|found| found.row.pack).min()),
            |pack| Ok::<_, Error>(Some(pack)),
        )?;
        let object = match pack {
            Some(pack) => pack_name(&self.reader.pack(pack)?.id),
            None => format!("chunk {id}"),
        };
        Ok(self.faults.add(&object, error.with_causes()))
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

/// A reader that remembers where the nodes lie that it was asked for, and which it could not read.
struct Nodes<'a, 'r> {
    reader: &'a Reader<'r>,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    packs: BTreeSet<u32>,
    unread: Option<ChunkId>,
}

impl<'a, 'r> Nodes<'a, 'r> {
    fn of(reader: &'a Reader<'r>) -> Self {
        Self { reader, asked: Mutex::default() }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<T>(&self, id: &ChunkId, result: Result<T>) -> Result<T> {
        let mut asked = self.asked();
        asked.packs.extend(self.reader.places(id).map(|found| found.row.pack));
        asked.unread = result.is_err().then_some(*id);
        result
    }
}

impl ReadRepo for Nodes<'_, '_> {
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
        self.note(id, self.reader.node(id))
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.note(id, self.reader.list_node(id))
    }
}

/// The packs that hold what these snapshots need.
pub(super) fn packs_of(reader: &Reader<'_>, snapshots: &[&SnapshotInfo]) -> Result<BTreeSet<u32>> {
    let nodes = Nodes::of(reader);
    let mut packs = BTreeSet::new();
    for info in snapshots {
        // Damage is found, and said, when the trees are walked.
        let entries = TreeWalk::below(&nodes, TreePath::root(), &info.snapshot.root).filter_map(Result::ok);
        for entry in entries {
            let Detail::File { content, .. } = &entry.detail else { continue };
            for piece in Pieces::new(&nodes, content).filter_map(Result::ok) {
                if let Piece::Chunk { id, .. } = piece {
                    packs.extend(reader.places(&id).map(|found| found.row.pack));
                }
            }
        }
    }
    packs.append(&mut nodes.asked().packs);
    Ok(packs)
}
