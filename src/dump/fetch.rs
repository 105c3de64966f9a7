//! Reading ahead: entries and their bytes in tree order, frames fetched a batch at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context, Error, Kind, Result};
use crate::format::tree::{Detail, Entry, Piece};
use crate::id::ChunkId;
use crate::path::TreePath;
use crate::repo::reader::{FrameAt, Location, Pieces, ReadRepo};
use crate::repo::walk::Walk;

/// A batch ends with this many bytes or parts. Two batches are in memory at a time.
const BATCH_BYTES: u64 = 16 << 20;
const BATCH_PARTS: usize = 16_384;

/// Threads that fetch frames.
const THREADS: usize = 4;

/// What the writer gets, in order.
pub(super) enum Part {
    /// An entry and its path.
    Begin(Box<(TreePath, Entry)>),
    /// Bytes of the file begun last.
    Bytes(Vec<u8>),
    /// So many zero bytes of it.
    Zeros(u64),
    /// All its bytes have been given. Not sent for what is no file.
    End,
}

/// A part, its bytes not yet fetched.
enum Wanted {
    Ready(Part),
    Chunk {
        id: ChunkId,
        bytes: u32,
    },
    /// What goes wrong here, after everything before has been written.
    Broken(Error),
}

/// The entries of an archive of `top`: those below it with paths relative to it, or itself.
pub(super) fn entries_of<'r, R: ReadRepo + ?Sized>(
    repo: &'r R,
    top: &Entry,
) -> Box<dyn Iterator<Item = Result<(TreePath, Entry)>> + 'r> {
    if let Some(name) = top.name.as_ref().filter(|_| !matches!(top.detail, Detail::Directory { .. })) {
        return Box::new(std::iter::once(Ok((TreePath::root().join(name), top.clone()))));
    }
    let mut walk = Walk::below(repo, TreePath::root(), top);
    Box::new(std::iter::from_fn(move || {
        let entry = walk.next()?;
        Some(entry.map(|entry| (walk.path().clone(), entry)))
    }))
}

/// Gives `write` every entry and, of files, the bytes, fetching ahead of it.
pub(super) fn run<R: ReadRepo + ?Sized>(
    repo: &R,
    entries: &mut dyn Iterator<Item = Result<(TreePath, Entry)>>,
    write: &mut dyn FnMut(Part) -> Result<()>,
) -> Result<()> {
    let mut plan = Plan { repo, entries, open: None };
    let mut kept = None;
    let mut batch = plan.batch();
    let mut fetched = fetch(repo, batch, &mut kept);
    loop {
        batch = plan.batch();
        let last = batch.is_empty();
        // The next batch is fetched while this one is written.
        let (written, next) = std::thread::scope(|scope| {
            let next = scope.spawn(|| if last { Vec::new() } else { fetch(repo, batch, &mut kept) });
            let written = fetched.into_iter().try_for_each(|part| write(part?));
            (written, next.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        written?;
        if last {
            return Ok(());
        }
        fetched = next;
    }
}

/// Cuts the entries into batches.
struct Plan<'a, 'r, R: ?Sized> {
    repo: &'r R,
    entries: &'a mut dyn Iterator<Item = Result<(TreePath, Entry)>>,
    /// The file in the middle of which the last batch ended.
    open: Option<File<'r, R>>,
}

struct File<'r, R: ?Sized> {
    pieces: Pieces<'r, R>,
    path: TreePath,
    left: u64,
}

impl<R: ReadRepo + ?Sized> Plan<'_, '_, R> {
    fn batch(&mut self) -> Vec<Wanted> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_PARTS && bytes < BATCH_BYTES {
            if let Some(file) = &mut self.open {
                match file.next() {
                    Ok(Some(piece)) => batch.push(match piece {
                        Piece::Zeros { bytes } => Wanted::Ready(Part::Zeros(bytes)),
                        Piece::Chunk { id, bytes: length } => {
                            bytes += u64::from(length);
                            Wanted::Chunk { id, bytes: length }
                        }
                    }),
                    Ok(None) => {
                        self.open = None;
                        batch.push(Wanted::Ready(Part::End));
                    }
                    Err(error) => {
                        batch.push(Wanted::Broken(error));
                        return batch;
                    }
                }
                continue;
            }
            match self.entries.next() {
                Some(Ok((path, entry))) => {
                    if let Detail::File { size, content, .. } = &entry.detail {
                        let pieces = Pieces::new(self.repo, content);
                        self.open = Some(File { pieces, path: path.clone(), left: *size });
                    }
                    batch.push(Wanted::Ready(Part::Begin(Box::new((path, entry)))));
                }
                Some(Err(error)) => {
                    batch.push(Wanted::Broken(error));
                    return batch;
                }
                None => return batch,
            }
        }
        batch
    }
}

impl<R: ReadRepo + ?Sized> File<'_, R> {
    fn next(&mut self) -> Result<Option<Piece>> {
        let wrong = || Error::new(Kind::Damaged, format!("the content of `{}` is not as long as the file", self.path));
        let piece = self.pieces.next().transpose().context(|| format!("cannot read `{}`", self.path))?;
        match piece {
            Some(piece) => self.left = self.left.checked_sub(piece.bytes()).ok_or_else(wrong)?,
            None if self.left > 0 => return Err(wrong()),
            None => {}
        }
        Ok(piece)
    }
}

/// A frame that the next batch probably begins in.
type Kept = Option<(FrameAt, Vec<u8>)>;

/// Fetches what a batch wants; the result has a part or an error for each.
fn fetch<R: ReadRepo + ?Sized>(repo: &R, batch: Vec<Wanted>, kept: &mut Kept) -> Vec<Result<Part>> {
    let mut places: HashMap<ChunkId, Location> = HashMap::new();
    let mut wanted: BTreeMap<FrameAt, Vec<(ChunkId, u32)>> = BTreeMap::new();
    let mut last = None;
    for part in &batch {
        // A chunk without a location has its say below, in its turn.
        if let Wanted::Chunk { id, bytes } = part
            && let Ok(location) = repo.locate(id)
        {
            last = Some(location.frame);
            if places.insert(*id, location).is_none() {
                wanted.entry(location.frame).or_default().push((*id, *bytes));
            }
        }
    }
    let frames: Vec<(FrameAt, Vec<(ChunkId, u32)>)> = wanted.into_iter().collect();
    let next = AtomicUsize::new(0);
    let found: Mutex<(HashMap<ChunkId, Vec<u8>>, Kept)> = Mutex::new((HashMap::new(), None));
    let before = kept.take();
    let work = || {
        while let Some((at, chunks)) = frames.get(next.fetch_add(1, Ordering::Relaxed)) {
            let again = before.as_ref().filter(|(kept, _)| kept == at).map(|(_, frame)| frame.clone());
            let Some(frame) = again.or_else(|| repo.frame(at).ok()) else { continue };
            for (id, bytes) in chunks {
                let start = places[id].chunk_offset as usize;
                let chunk = frame.get(start..start.saturating_add(*bytes as usize));
                if let Some(chunk) = chunk.filter(|chunk| repo.verify(id, chunk)) {
                    found.lock().unwrap_or_else(PoisonError::into_inner).0.insert(*id, chunk.to_vec());
                }
            }
            if last == Some(*at) {
                found.lock().unwrap_or_else(PoisonError::into_inner).1 = Some((*at, frame));
            }
        }
    };
    std::thread::scope(|scope| {
        (1..THREADS.min(frames.len())).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    let (found, last_frame) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    *kept = last_frame;
    let mut path = None;
    batch
        .into_iter()
        .map(|part| match part {
            Wanted::Ready(part) => {
                if let Part::Begin(begun) = &part {
                    path = Some(begun.0.clone());
                }
                Ok(part)
            }
            Wanted::Broken(error) => Err(error),
            Wanted::Chunk { id, bytes } => match found.get(&id) {
                Some(chunk) => Ok(Part::Bytes(chunk.clone())),
                None => other_copy(repo, &id, bytes).context(|| match &path {
                    Some(path) if !path.is_root() => format!("cannot read `{path}`"),
                    _ => "cannot read the file".to_owned(),
                }),
            },
        })
        .collect()
}

/// A chunk that its frame did not give, from wherever it can still be had.
fn other_copy<R: ReadRepo + ?Sized>(repo: &R, id: &ChunkId, bytes: u32) -> Result<Part> {
    let chunk = repo.chunk(id)?;
    if chunk.len() == bytes as usize {
        return Ok(Part::Bytes(chunk));
    }
    let what = format!("chunk `{}` has {} bytes where {bytes} belong", id.short(), chunk.len());
    Err(Error::new(Kind::Damaged, what))
}
