//! Copying into a repository with the same ids: chunks and nodes go over as they are.
//!
//! The tree is walked, and what the target may not reuse is read from the source, checked, and stored.
//! That a node is there does not say that all below it is: so all is looked up that is below, once a run.
//! A directory's nodes are stored when it is left, after all below it, as a backup does it.

use std::sync::{Mutex, PoisonError};

use super::damage::Damage;
use super::target::{Halt, Target};
use crate::crypto::ident::ChunkKind;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Detail, Entry, Piece};
use crate::id::ChunkId;
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::fetch::{BATCH_BYTES, BATCH_PARTS, Fetcher};
use crate::repo::reader::{Pieces, ReadNodes};
use crate::repo::walk::Walk;

/// Nodes of open directories that wait to be stored after what is below them.
const NODES_BYTES_MAX: usize = 8 << 20;
/// A file's list nodes are taken after so many pieces.
const PIECES_AT_ONCE: usize = 4096;

/// A node that was read.
struct Node {
    kind: ChunkKind,
    id: ChunkId,
    bytes: Vec<u8>,
}

/// The source, keeping each node that is read of it.
struct Tap<'a, 'r> {
    reader: &'a Reader<'r>,
    nodes: Mutex<Vec<Node>>,
}

impl Tap<'_, '_> {
    fn keep(&self, kind: ChunkKind, id: &ChunkId, bytes: Result<Vec<u8>>) -> Result<Vec<u8>> {
        let bytes = bytes?;
        let node = Node { kind, id: *id, bytes: bytes.clone() };
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).push(node);
        Ok(bytes)
    }

    fn take(&self) -> Vec<Node> {
        std::mem::take(&mut *self.nodes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ReadNodes for Tap<'_, '_> {
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.keep(ChunkKind::Directory, id, self.reader.node(id))
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.keep(ChunkKind::List, id, self.reader.list_node(id))
    }
}

/// A directory that was entered and not yet left.
struct Open {
    id: ChunkId,
    nodes: Vec<Node>,
}

/// A chunk to be fetched, and the number of the file that names it.
struct Wanted {
    id: ChunkId,
    bytes: u32,
    file: usize,
}

/// Chunks on their way.
struct Batch<T> {
    chunks: Vec<T>,
    paths: Vec<TreePath>,
    bytes: u64,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), paths: Vec::new(), bytes: 0 }
    }
}

struct Transfer<'a, 't, 'r> {
    tap: &'a Tap<'a, 'a>,
    target: &'t mut Target<'r>,
    monitor: &'t Monitor,
    damage: &'t mut Damage,
    fetcher: Fetcher<'a, Reader<'a>>,
    open: Vec<Open>,
    nodes_bytes: usize,
    wanted: Batch<Wanted>,
    fetched: Batch<(Wanted, Result<Vec<u8>>)>,
}

/// Stores all that the tree below `root` names and the target lacks.
pub(super) fn transfer(
    reader: &Reader<'_>,
    target: &mut Target<'_>,
    root: &Entry,
    threads: usize,
    monitor: &Monitor,
    damage: &mut Damage,
) -> Result<(), Halt> {
    let Detail::Directory { id, .. } = &root.detail else { return Ok(()) };
    if target.settled.nodes.contains(id) {
        monitor.done(root.entries_below(), root.totals().bytes);
        return Ok(());
    }
    let tap = Tap { reader, nodes: Mutex::default() };
    let mut transfer = Transfer {
        tap: &tap,
        target,
        monitor,
        damage,
        fetcher: Fetcher::new(reader, threads),
        open: vec![Open { id: *id, nodes: Vec::new() }],
        nodes_bytes: 0,
        wanted: Batch::default(),
        fetched: Batch::default(),
    };
    transfer.run(root)
}

impl Transfer<'_, '_, '_> {
    fn run(&mut self, root: &Entry) -> Result<(), Halt> {
        let tap = self.tap;
        let mut walk = Walk::below(tap, TreePath::root(), root);
        while let Some(entry) = walk.next() {
            stop_if_asked(self.monitor)?;
            self.leave_below(walk.depth())?;
            self.keep_nodes()?;
            match entry {
                Ok(entry) => {
                    self.monitor.done(1, 0);
                    if let Detail::Directory { id, .. } = &entry.detail {
                        if self.target.settled.nodes.contains(id) {
                            walk.pass_over();
                            self.monitor.done(entry.entries_below(), entry.totals().bytes);
                        } else {
                            self.open.push(Open { id: *id, nodes: Vec::new() });
                        }
                    }
                    self.file(walk.path(), &entry)?;
                }
                Err(error) => self.damage.add(walk.path(), error)?,
            }
        }
        self.keep_nodes()?;
        self.leave_below(0)?;
        // What waits is fetched, then stored.
        self.flush()?;
        self.flush()
    }

    /// Leaves directories until so many are open.
    fn leave_below(&mut self, depth: usize) -> Result<()> {
        while self.open.len() > depth {
            let Some(mut left) = self.open.pop() else { break };
            self.store_nodes(&mut left.nodes)?;
            self.target.settled.nodes.claim(left.id);
        }
        Ok(())
    }

    /// Keeps the directory nodes that were read until the directory is left.
    fn keep_nodes(&mut self) -> Result<()> {
        for node in self.tap.take() {
            if !self.target.chunks().wants(&node.id) {
                continue;
            }
            match self.open.last_mut() {
                Some(open) => {
                    self.nodes_bytes += node.bytes.len();
                    open.nodes.push(node);
                }
                None => self.target.chunks().add(node.kind, node.id, &node.bytes)?,
            }
        }
        if self.nodes_bytes > NODES_BYTES_MAX {
            let waiting: Vec<_> = self.open.iter_mut().rev().map(|open| std::mem::take(&mut open.nodes)).collect();
            waiting.into_iter().try_for_each(|mut nodes| self.store_nodes(&mut nodes))?;
        }
        Ok(())
    }

    /// Stores nodes of a directory, those below others first.
    fn store_nodes(&mut self, nodes: &mut Vec<Node>) -> Result<()> {
        for node in nodes.drain(..).rev() {
            self.nodes_bytes = self.nodes_bytes.saturating_sub(node.bytes.len());
            self.target.chunks().add(node.kind, node.id, &node.bytes)?;
        }
        Ok(())
    }

    /// Asks for the chunks of a file that the target lacks.
    fn file(&mut self, path: &TreePath, entry: &Entry) -> Result<(), Halt> {
        let Detail::File { size, content, .. } = &entry.detail else { return Ok(()) };
        // A list may name one node any number of times: each is gone through once, if this fails too, since
        // then nothing that was noted counts.
        let noted = self.target.settled.nodes.clone();
        let mut pieces = Pieces::new(self.tap, content).unless(|node| !noted.claim(*node));
        let wrong = || Error::new(Kind::Damaged, "its content is not as long as the file");
        let mut named = 0_u64;
        self.wanted.paths.push(path.clone());
        for count in 1.. {
            let piece = match pieces.next() {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Ok(self.damage.add(path, error)?),
                None => break,
            };
            named = named.saturating_add(piece.bytes());
            match piece {
                Piece::Chunk { id, bytes } if self.target.chunks().wants(&id) => {
                    self.wanted.bytes += u64::from(bytes);
                    self.wanted.chunks.push(Wanted { id, bytes, file: self.wanted.paths.len() - 1 });
                }
                piece => self.monitor.done(0, piece.bytes()),
            }
            if count % PIECES_AT_ONCE == 0 {
                stop_if_asked(self.monitor)?;
                self.keep_nodes()?;
            }
            if self.wanted.bytes >= BATCH_BYTES || self.wanted.chunks.len() >= BATCH_PARTS {
                self.flush()?;
                self.wanted.paths.push(path.clone());
            }
        }
        let passed_over = pieces.bytes_passed_over();
        self.monitor.done(0, passed_over);
        if named.saturating_add(passed_over) != *size {
            return Ok(self.damage.add(path, wrong())?);
        }
        self.keep_nodes()?;
        if self.wanted.paths.len() >= BATCH_PARTS {
            self.flush()?;
        }
        Ok(())
    }

    /// Stores what was fetched, and fetches meanwhile what is wanted.
    fn flush(&mut self) -> Result<(), Halt> {
        let (wanted, fetched) = (std::mem::take(&mut self.wanted), std::mem::take(&mut self.fetched));
        let ids: Vec<_> = wanted.chunks.iter().map(|chunk| (chunk.id, chunk.bytes)).collect();
        let fetcher = &mut self.fetcher;
        let (target, damage, monitor) = (&mut *self.target, &mut *self.damage, self.monitor);
        let (stored, results) = std::thread::scope(|scope| {
            let next = scope.spawn(move || fetcher.fetch(&ids));
            let stored = store(fetched, target, damage, monitor);
            (stored, next.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        stored?;
        let chunks = wanted.chunks.into_iter().zip(results).collect();
        self.fetched = Batch { chunks, paths: wanted.paths, bytes: wanted.bytes };
        Ok(())
    }
}

fn stop_if_asked(monitor: &Monitor) -> Result<()> {
    match monitor.stopping() {
        true => Err(super::interrupted()),
        false => Ok(()),
    }
}

/// Stores chunks that were fetched.
fn store(
    fetched: Batch<(Wanted, Result<Vec<u8>>)>,
    target: &mut Target<'_>,
    damage: &mut Damage,
    monitor: &Monitor,
) -> Result<(), Halt> {
    // A long tree of which all is there is no silence either.
    target.chunks().session().show_alive();
    for (wanted, chunk) in fetched.chunks {
        stop_if_asked(monitor)?;
        match chunk {
            Ok(chunk) => {
                target.chunks().add(ChunkKind::Data, wanted.id, &chunk)?;
                monitor.done(0, wanted.bytes.into());
                target.go_on()?;
            }
            Err(error) => damage.add(&fetched.paths[wanted.file], error)?,
        }
    }
    Ok(())
}
