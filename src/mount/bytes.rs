//! The bytes of a file from any place in it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Kind, Result};
use crate::format::tree::{Content, Piece};
use crate::id::ChunkId;
use crate::repo::reader::{Pieces, ReadRepo};

/// Bytes of chunks kept for the next request, which asks for the rest of them.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// The chunks used last.
#[derive(Debug, Default)]
pub(super) struct Chunks(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    chunks: VecDeque<(ChunkId, Arc<Vec<u8>>)>,
    bytes: usize,
}

impl Chunks {
    /// Bytes from `offset` of a file of `size` bytes on: so many, or as many as there are.
    pub(super) fn read<R: ReadRepo + ?Sized>(
        &self,
        repo: &R,
        content: &Content,
        size: u64,
        offset: u64,
        wanted: usize,
    ) -> Result<Vec<u8>> {
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = wanted.min(left);
        let mut bytes = Vec::with_capacity(wanted);
        if wanted == 0 {
            return Ok(bytes);
        }
        let mut pieces = Pieces::from_offset(repo, content, offset);
        let mut begun = false;
        while bytes.len() < wanted {
            let piece = pieces.next().unwrap_or_else(|| Err(too_short()))?;
            let skip = if begun { 0 } else { pieces.skipped_of_first() };
            begun = true;
            let room = wanted - bytes.len();
            let count = usize::try_from(piece.bytes() - skip).unwrap_or(usize::MAX).min(room);
            match piece {
                Piece::Zeros { .. } => bytes.resize(bytes.len() + count, 0),
                Piece::Chunk { id, .. } => {
                    let chunk = self.chunk(repo, &id)?;
                    let from = usize::try_from(skip).unwrap_or(usize::MAX);
                    let part = from.checked_add(count).and_then(|to| chunk.get(from..to));
                    bytes.extend_from_slice(part.ok_or_else(too_short)?);
                }
            }
        }
        Ok(bytes)
    }

    fn chunk<R: ReadRepo + ?Sized>(&self, repo: &R, id: &ChunkId) -> Result<Arc<Vec<u8>>> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let chunks = &mut lock().chunks;
            if let Some(at) = chunks.iter().rposition(|(known, _)| known == id)
                && let Some(found) = chunks.remove(at)
            {
                let chunk = found.1.clone();
                chunks.push_back(found);
                return Ok(chunk);
            }
        }
        let chunk = Arc::new(repo.chunk(id)?);
        let mut kept = lock();
        kept.bytes += chunk.len();
        kept.chunks.push_back((*id, chunk.clone()));
        while kept.bytes > KEPT_BYTES_MAX && kept.chunks.len() > 1 {
            if let Some((_, old)) = kept.chunks.pop_front() {
                kept.bytes -= old.len();
            }
        }
        Ok(chunk)
    }
}

fn too_short() -> Error {
    Error::new(Kind::Damaged, "the content is not as long as the file")
}
