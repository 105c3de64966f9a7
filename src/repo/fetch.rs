//! Content in an order of one's own: the bytes of chunks, or entries with their bytes in tree order.
//!
//! Chunks that are wanted together are mostly neighbours in few packs, so [`Fetcher`] opens each frame
//! once for all that is wanted of it, several frames at a time. [`run`] goes through entries and fetches
//! the content of the next while that of those before it is taken. Every chunk is checked against its id.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::frames::{Buffers, spans};
use super::reader::{FrameAt, Location, Pieces, ReadRepo};
use crate::error::{Context, Error, Kind, Result};
use crate::format::tree::{Detail, Entry, Piece};
use crate::id::ChunkId;
use crate::path::TreePath;

/// A batch ends with this many bytes or parts. Two batches are in memory at a time.
pub const BATCH_BYTES: u64 = 16 << 20;
/// How many chunks or other parts a batch has at most.
pub const BATCH_PARTS: usize = 16_384;

/// Fetches data chunks, a batch at a time.
pub struct Fetcher<'r, R: ?Sized> {
    repo: &'r R,
    threads: usize,
    /// A frame that the next batch probably begins in.
    kept: Option<(FrameAt, Vec<u8>)>,
}

impl<R: ?Sized> std::fmt::Debug for Fetcher<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetcher({} threads)", self.threads)
    }
}

/// What was found in frames so far.
#[derive(Default)]
struct Found {
    chunks: HashMap<ChunkId, Vec<u8>>,
    last: Option<(FrameAt, Vec<u8>)>,
}

impl<'r, R: ReadRepo + ?Sized> Fetcher<'r, R> {
    /// Fetches with so many threads.
    pub fn new(repo: &'r R, threads: usize) -> Self {
        Self { repo, threads: threads.max(1), kept: None }
    }

    /// The bytes of these chunks, which are so long, in their order; an error for each that is nowhere whole.
    pub fn fetch(&mut self, wanted: &[(ChunkId, u32)]) -> Vec<Result<Vec<u8>>> {
        let mut found = self.in_frames(wanted);
        let mut uses: HashMap<ChunkId, usize> = HashMap::new();
        wanted.iter().for_each(|(id, _)| *uses.entry(*id).or_default() += 1);
        let mut give = |id: &ChunkId| {
            let left = uses.get_mut(id)?;
            *left -= 1;
            if *left == 0 { found.remove(id) } else { found.get(id).cloned() }
        };
        wanted.iter().map(|(id, bytes)| give(id).map_or_else(|| self.other_copy(id, *bytes), Ok)).collect()
    }

    /// The chunks that the frames have in which they should be.
    fn in_frames(&mut self, wanted: &[(ChunkId, u32)]) -> HashMap<ChunkId, Vec<u8>> {
        let mut places: HashMap<ChunkId, Location> = HashMap::new();
        let mut frames: BTreeMap<FrameAt, Vec<(ChunkId, u32)>> = BTreeMap::new();
        let mut last = None;
        for (id, bytes) in wanted {
            // One without a location has its say later.
            let Ok(location) = self.repo.locate(id) else { continue };
            last = Some(location.frame);
            if places.insert(*id, location).is_none() {
                frames.entry(location.frame).or_default().push((*id, *bytes));
            }
        }
        let found = Mutex::new(Found::default());
        let take = |at: &FrameAt, chunks: &[(ChunkId, u32)], frame: &[u8]| {
            for (id, bytes) in chunks {
                let start = places[id].chunk_offset as usize;
                let chunk = frame.get(start..start.saturating_add(*bytes as usize));
                if let Some(chunk) = chunk.filter(|chunk| self.repo.verify(id, chunk)) {
                    lock(&found).chunks.insert(*id, chunk.to_vec());
                }
            }
            if last == Some(*at) {
                lock(&found).last = Some((*at, frame.to_vec()));
            }
        };
        if let Some((at, frame)) = self.kept.take()
            && let Some(chunks) = frames.remove(&at)
        {
            take(&at, &chunks, &frame);
        }
        let (at, chunks): (Vec<FrameAt>, Vec<_>) = frames.into_iter().unzip();
        let spans: Vec<_> = spans(&at, self.repo.span_bytes_max()).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut buffers = Buffers::default();
            while let Some(span) = spans.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.repo.frames(&at[span.clone()], &mut buffers, &mut |ordinal, frame| {
                    let number = span.start + ordinal;
                    if let Ok(frame) = frame {
                        take(&at[number], &chunks[number], frame);
                    }
                });
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(spans.len()) {
                // Fewer threads do as well.
                let _ = std::thread::Builder::new().name("esker-fetch".into()).spawn_scoped(scope, work);
            }
            work();
        });
        let Found { chunks, last } = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.kept = last;
        chunks
    }

    /// A chunk that its frame did not give, from wherever it can still be had.
    fn other_copy(&self, id: &ChunkId, bytes: u32) -> Result<Vec<u8>> {
        let chunk = self.repo.chunk(id)?;
        if chunk.len() == bytes as usize {
            return Ok(chunk);
        }
        let what = format!("chunk `{}` has {} bytes where {bytes} belong", id.short(), chunk.len());
        Err(Error::new(Kind::Damaged, what))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What comes of entries, in order.
#[derive(Debug)]
pub enum Part {
    /// An entry and its path.
    Begin(Box<(TreePath, Entry)>),
    /// Bytes of the file begun last.
    Bytes(Vec<u8>),
    /// So many zero bytes of it.
    Zeros(u64),
    /// All its bytes have been given. Not sent for what is no file.
    End,
}

/// What cannot be read, and where that is.
pub type Broken = (TreePath, Error);

/// Takes the parts of entries.
pub trait Take {
    /// Whether the bytes of a file are wanted. Asked ahead of its parts; without them it begins and ends.
    fn wants(&mut self, _: &TreePath, _: &Entry) -> bool {
        true
    }

    /// Takes the next part. After one that is broken comes what follows it; of a file, nothing more of it.
    fn take(&mut self, part: Result<Part, Broken>) -> Result<()>;
}

impl<F: FnMut(Part) -> Result<()>> Take for F {
    /// Ends at the first part that is broken.
    fn take(&mut self, part: Result<Part, Broken>) -> Result<()> {
        self(part.map_err(|(_, error)| error)?)
    }
}

/// A part, its bytes not yet fetched.
enum Wanted {
    Ready(Part),
    Chunk {
        id: ChunkId,
        bytes: u32,
    },
    /// What goes wrong here, after everything before has been taken.
    Broken(Broken),
}

/// Gives `taker` every entry and, of files, the bytes, fetching ahead of it with so many threads.
pub fn run<R: ReadRepo + ?Sized>(
    repo: &R,
    threads: usize,
    entries: &mut dyn Iterator<Item = Result<(TreePath, Entry), Broken>>,
    taker: &mut dyn Take,
) -> Result<()> {
    let mut plan = Plan { repo, entries, open: None };
    let mut fetcher = Fetcher::new(repo, threads);
    let mut open = None;
    let batch = plan.batch(taker);
    let mut fetched = fetch(&mut fetcher, batch, &mut open);
    loop {
        let batch = plan.batch(taker);
        let last = batch.is_empty();
        // The next batch is fetched while this one is taken.
        let (taken, next) = std::thread::scope(|scope| {
            let next = scope.spawn(|| if last { Vec::new() } else { fetch(&mut fetcher, batch, &mut open) });
            let taken = fetched.into_iter().try_for_each(|part| taker.take(part));
            (taken, next.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        taken?;
        if last {
            return Ok(());
        }
        fetched = next;
    }
}

/// Cuts the entries into batches.
struct Plan<'a, 'r, R: ?Sized> {
    repo: &'r R,
    entries: &'a mut dyn Iterator<Item = Result<(TreePath, Entry), Broken>>,
    /// The file in the middle of which the last batch ended.
    open: Option<File<'r, R>>,
}

struct File<'r, R: ?Sized> {
    pieces: Option<Pieces<'r, R>>,
    path: TreePath,
    left: u64,
}

impl<R: ReadRepo + ?Sized> Plan<'_, '_, R> {
    fn batch(&mut self, taker: &mut dyn Take) -> Vec<Wanted> {
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
                        batch.push(Wanted::Broken((file.path.clone(), error)));
                        self.open = None;
                    }
                }
                continue;
            }
            match self.entries.next() {
                Some(Ok((path, entry))) => {
                    if let Detail::File { size, content, .. } = &entry.detail {
                        let wanted = taker.wants(&path, &entry);
                        let pieces = wanted.then(|| Pieces::new(self.repo, content));
                        self.open = Some(File { pieces, path: path.clone(), left: *size });
                    }
                    batch.push(Wanted::Ready(Part::Begin(Box::new((path, entry)))));
                }
                Some(Err(broken)) => batch.push(Wanted::Broken(broken)),
                None => return batch,
            }
        }
        batch
    }
}

impl<R: ReadRepo + ?Sized> File<'_, R> {
    fn next(&mut self) -> Result<Option<Piece>> {
        let Some(pieces) = &mut self.pieces else { return Ok(None) };
        let wrong = || Error::new(Kind::Damaged, format!("the content of `{}` is not as long as the file", self.path));
        let piece = pieces.next().transpose().context(|| format!("cannot read `{}`", self.path))?;
        match piece {
            Some(piece) => self.left = self.left.checked_sub(piece.bytes()).ok_or_else(wrong)?,
            None if self.left > 0 => return Err(wrong()),
            None => {}
        }
        Ok(piece)
    }
}

/// Fetches what a batch wants; `open` is what was begun last, unless it is broken.
fn fetch<R: ReadRepo + ?Sized>(
    fetcher: &mut Fetcher<'_, R>,
    batch: Vec<Wanted>,
    open: &mut Option<TreePath>,
) -> Vec<Result<Part, Broken>> {
    let wanted = batch.iter().filter_map(|part| match part {
        Wanted::Chunk { id, bytes } => Some((*id, *bytes)),
        _ => None,
    });
    let mut chunks = fetcher.fetch(&wanted.collect::<Vec<_>>()).into_iter();
    let mut parts = Vec::with_capacity(batch.len());
    for part in batch {
        let part = match part {
            Wanted::Broken(broken) => {
                *open = None;
                parts.push(Err(broken));
                continue;
            }
            Wanted::Ready(part) => part,
            Wanted::Chunk { .. } => match (chunks.next(), open.take()) {
                (Some(Ok(bytes)), path) => {
                    *open = path;
                    Part::Bytes(bytes)
                }
                (Some(Err(error)), Some(path)) => {
                    let what =
                        if path.is_root() { "cannot read the file".into() } else { format!("cannot read `{path}`") };
                    let error = Error::new(error.kind(), what).because(error);
                    parts.push(Err((path, error)));
                    continue;
                }
                _ => continue,
            },
        };
        if let Part::Begin(begun) = &part {
            *open = Some(begun.0.clone());
        }
        // Of a file that is broken comes no more.
        if open.is_some() {
            parts.push(Ok(part));
        }
    }
    parts
}
