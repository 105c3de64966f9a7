//! Reading a copy back from the target: every node and every chunk, each id computed again.

use std::path::Path;

use super::damage::Damage;
use super::target::Nodes;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Detail, Entry, Piece};
use crate::id::{ChunkId, SessionId};
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::fetch::{BATCH_BYTES, BATCH_PARTS, Fetcher};
use crate::repo::reader::Pieces;
use crate::repo::snapshots::SnapshotInfo;
use crate::repo::walk::Walk;

/// Reads copies back. What was read of one is not read again of the next.
pub(super) struct Verifier<'r> {
    repo: &'r Repository,
    threads: usize,
    read: Nodes,
}

impl<'r> Verifier<'r> {
    pub(super) fn new(repo: &'r Repository, threads: usize) -> Self {
        let spill = repo.cache_directory().map_or_else(std::env::temp_dir, Path::to_owned);
        Self { repo, threads, read: Nodes::new(&spill) }
    }

    /// Reads all of a copy; gives how many directories and files cannot be read. Each is reported.
    pub(super) fn verify(&mut self, id: &SessionId, original: &SnapshotInfo, monitor: &Monitor) -> Result<u64> {
        // Afresh: what this reads must be what anybody reads.
        let reader = Reader::new(self.repo)?;
        let info = self.repo.load_snapshot(id)?;
        let mut damage = Damage::new(&info, monitor);
        if info.snapshot.root.totals() != original.snapshot.root.totals() {
            damage
                .add(&TreePath::root(), Error::new(Kind::Damaged, "the copy has not as much in it as the original"))?;
        }
        let mut reading = Reading {
            fetcher: Fetcher::new(&reader, self.threads),
            read: self.read.clone(),
            wanted: Vec::new(),
            paths: Vec::new(),
            bytes: 0,
            damage: &mut damage,
        };
        let mut walk = Walk::below(&reader, TreePath::root(), &info.snapshot.root);
        while let Some(entry) = walk.next() {
            if monitor.stopping() {
                return Err(Error::new(Kind::Interrupted, "the copy was made and not read back in full: interrupted"));
            }
            match entry {
                Ok(entry) => match &entry.detail {
                    Detail::Directory { id, .. } if !self.read.claim(*id) => walk.pass_over(),
                    _ => reading.file(&reader, walk.path(), &entry)?,
                },
                Err(error) => reading.damage.add(walk.path(), error)?,
            }
        }
        reading.fetch()?;
        Ok(damage.count)
    }
}

struct Reading<'a, 'r> {
    fetcher: Fetcher<'a, Reader<'r>>,
    read: Nodes,
    wanted: Vec<(ChunkId, u32)>,
    /// How many chunks were wanted when a file began, and its path.
    paths: Vec<(usize, TreePath)>,
    bytes: u64,
    damage: &'a mut Damage,
}

impl Reading<'_, '_> {
    fn file(&mut self, reader: &Reader<'_>, path: &TreePath, entry: &Entry) -> Result<()> {
        let Detail::File { size, content, .. } = &entry.detail else { return Ok(()) };
        self.paths.push((self.wanted.len(), path.clone()));
        let mut bytes = 0_u64;
        let read = self.read.clone();
        let mut pieces = Pieces::new(reader, content).unless(|node| !read.claim(*node));
        for piece in pieces.by_ref() {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return self.damage.add(path, error),
            };
            bytes = bytes.saturating_add(piece.bytes());
            if let Piece::Chunk { id, bytes } = piece
                && self.read.claim(id)
            {
                self.wanted.push((id, bytes));
                self.bytes += u64::from(bytes);
            }
            if self.bytes >= BATCH_BYTES || self.wanted.len() >= BATCH_PARTS {
                self.fetch()?;
                self.paths.push((0, path.clone()));
            }
        }
        if bytes.saturating_add(pieces.bytes_passed_over()) != *size {
            self.damage.add(path, Error::new(Kind::Damaged, "its content is not as long as the file"))?;
        }
        Ok(())
    }

    fn fetch(&mut self) -> Result<()> {
        let wanted = std::mem::take(&mut self.wanted);
        let paths = std::mem::take(&mut self.paths);
        self.bytes = 0;
        for (number, chunk) in self.fetcher.fetch(&wanted).into_iter().enumerate() {
            if let Err(error) = chunk {
                let file = paths.partition_point(|(begins, _)| *begins <= number).saturating_sub(1);
                let path = paths.get(file).map_or_else(TreePath::root, |(_, path)| path.clone());
                self.damage.add(&path, error)?;
            }
        }
        Ok(())
    }
}
