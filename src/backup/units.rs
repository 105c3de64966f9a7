//! Reading files in parallel, in bounded memory, for a consumer who takes them in order.
//!
//! Files are gathered into units: many small ones, or one large one. Reader threads take units
//! in order, read, cut and identify, and send batches of chunks: the buffer they were read into, as
//! it is. Every batch needs a permit, which comes with a buffer; the unit the consumer is at gets one
//! even when all are given out, so the threads that read ahead can never starve it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::chunk::cut::Cutter;
use crate::chunk::split::{Split, Splitter};
use crate::crypto::ident::{ChunkKind, IdKeys};
use crate::format::tree::{Hole, Piece, Xattr};
use crate::path::Name;
use crate::source::dir::Dir;
use crate::source::file::{FileProblem, OpenFile, Segment, open_file};
use crate::source::meta::{self, Owner};
use crate::source::stat::Stat;

/// Batches of one unit that may wait for the consumer.
const BATCHES_WAITING_MAX: usize = 4;

/// A file to read.
#[derive(Debug)]
pub(super) struct FileJob {
    pub(super) dir: Arc<Dir>,
    pub(super) name: Name,
    pub(super) stat: Stat,
}

/// A batch of chunks of a unit's files, in order.
pub(super) struct Batch {
    /// What the chunks' bytes belong to. Only a unit's last file may be unfinished.
    pub(super) parts: Vec<FilePart>,
    /// What was read, with the right to hold it.
    permit: Permit,
}

/// Consecutive pieces of one file.
#[derive(Default)]
pub(super) struct FilePart {
    /// The file is read from its front again: pieces so far are to be forgotten.
    pub(super) restart: bool,
    /// Each with the place of its bytes in the batch, if it has any.
    pub(super) pieces: Vec<(Piece, Range<usize>)>,
    /// Set with the file's last part.
    pub(super) done: Option<Result<FileDone, FileProblem>>,
    /// Set with a stream's last part, of which there is no more to say.
    pub(super) last: bool,
}

impl FilePart {
    /// How many bytes of the file these are.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(piece, _)| piece.bytes()).sum()
    }
}

/// What there is to say of a file at its end.
pub(super) struct FileDone {
    /// What it was like after it was read.
    pub(super) stat: Stat,
    pub(super) holes: Vec<Hole>,
    pub(super) xattrs: Vec<Xattr>,
    /// Extended attributes that could not be read.
    pub(super) problems: Vec<String>,
    /// It was written both times it was read.
    pub(super) unstable: bool,
}

/// A unit of work for a reader thread.
pub(super) struct Unit {
    pub(super) ordinal: u64,
    pub(super) files: Vec<FileJob>,
    pub(super) batches: Sender<Batch>,
}

impl Unit {
    /// A unit and the end its batches come out at.
    pub(super) fn new(ordinal: u64, files: Vec<FileJob>) -> (Self, Receiver<Batch>) {
        let (batches, out) = bounded(BATCHES_WAITING_MAX);
        (Self { ordinal, files, batches }, out)
    }
}

/// Bounds how many batches there are in memory.
pub(super) struct Permits {
    state: Mutex<PermitState>,
    changed: Condvar,
}

struct PermitState {
    free: usize,
    /// Buffers that came back, for the next.
    spare: Vec<Vec<u8>>,
    /// The unit the consumer is at.
    head: u64,
    closed: bool,
}

/// One batch's right to memory and the memory, given back when dropped.
struct Permit {
    permits: Arc<Permits>,
    counted: bool,
    buffer: Vec<u8>,
}

impl Permits {
    pub(super) fn new(batches: usize) -> Arc<Self> {
        let state = PermitState { free: batches, spare: Vec::new(), head: 0, closed: false };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, PermitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit; `None` once nobody wants batches any more.
    fn acquire(self: &Arc<Self>, unit: u64) -> Option<Permit> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let counted = state.free > 0;
            if counted {
                state.free -= 1;
            }
            if counted || unit == state.head {
                let buffer = state.spare.pop().unwrap_or_default();
                return Some(Permit { permits: self.clone(), counted, buffer });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The consumer has come to this unit.
    pub(super) fn set_head(&self, unit: u64) {
        self.lock().head = unit;
        self.changed.notify_all();
    }

    /// Whether nobody wants batches any more.
    pub(super) fn are_closed(&self) -> bool {
        self.lock().closed
    }

    /// Nobody wants batches any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.counted {
            let mut state = self.permits.lock();
            state.free += 1;
            // One for each permit there is, at most.
            state.spare.push(std::mem::take(&mut self.buffer));
            drop(state);
            self.permits.changed.notify_all();
        }
    }
}

/// The consumer has gone; the thread has nothing left to do.
struct Gone;

/// What a reader thread does: takes units until there are no more.
pub(super) fn read_units(units: &Receiver<Unit>, cutter: &Arc<Cutter>, ids: &IdKeys, permits: &Arc<Permits>) {
    let mut splitter = Splitter::new(cutter.clone());
    while let Ok(unit) = units.recv() {
        let Some(permit) = permits.acquire(unit.ordinal) else { return };
        let mut sender = BatchSender {
            permits,
            unit: unit.ordinal,
            batches: &unit.batches,
            batch: Batch { parts: Vec::new(), permit },
            part: FilePart::default(),
        };
        for job in &unit.files {
            if read_file(job, &mut splitter, ids, &mut sender).is_err() {
                return;
            }
        }
        if sender.finish(&mut splitter).is_err() {
            return;
        }
    }
}

/// Cuts a stream that is handed over block by block into a unit's batches.
pub(super) struct UnitSender<'a> {
    splitter: Splitter,
    ids: &'a IdKeys,
    sender: BatchSender<'a>,
}

impl<'a> UnitSender<'a> {
    /// Begins the unit's only file; `None` when nobody wants it any more.
    pub(super) fn new(
        unit: &'a Unit,
        cutter: &Arc<Cutter>,
        ids: &'a IdKeys,
        permits: &'a Arc<Permits>,
    ) -> Option<Self> {
        let permit = permits.acquire(unit.ordinal)?;
        let batch = Batch { parts: Vec::new(), permit };
        let (batches, unit, part) = (&unit.batches, unit.ordinal, FilePart::default());
        let sender = BatchSender { permits, unit, batches, batch, part };
        Some(Self { splitter: Splitter::new(cutter.clone()), ids, sender })
    }

    /// Adds the next bytes; `false` when nobody wants them any more.
    pub(super) fn bytes(&mut self, mut block: &[u8]) -> bool {
        let (sender, ids) = (&mut self.sender, self.ids);
        while !block.is_empty() {
            if sender.make_room(&mut self.splitter).is_err() {
                return false;
            }
            let space = self.splitter.space();
            let taken = space.len().min(block.len());
            space[..taken].copy_from_slice(&block[..taken]);
            block = &block[taken..];
            let Ok(()) = self.splitter.filled(taken, &mut |split: Split<'_>| sender.piece(ids, split));
        }
        true
    }

    /// That was all; `false` when nobody wants it any more.
    pub(super) fn finish(self) -> bool {
        let Self { mut splitter, ids, mut sender } = self;
        let Ok(()) = splitter.finish(&mut |split: Split<'_>| sender.piece(ids, split));
        sender.part.last = true;
        let part = std::mem::take(&mut sender.part);
        sender.batch.parts.push(part);
        sender.finish(&mut splitter).is_ok()
    }
}

/// Gathers one unit's parts into batches.
struct BatchSender<'a> {
    permits: &'a Arc<Permits>,
    unit: u64,
    batches: &'a Sender<Batch>,
    batch: Batch,
    part: FilePart,
}

impl BatchSender<'_> {
    fn piece(&mut self, ids: &IdKeys, split: Split<'_>) -> Result<(), Infallible> {
        self.part.pieces.push(match split {
            Split::Zeros(bytes) => (Piece::Zeros { bytes }, 0..0),
            Split::Chunk { bytes, offset } => {
                let length = u32::try_from(bytes.len()).expect("a chunk is at most 16 MiB");
                let id = ids.chunk(ChunkKind::Data, bytes);
                (Piece::Chunk { id, bytes: length }, offset..offset + bytes.len())
            }
        });
        Ok(())
    }

    /// Sends what there is, with the splitter's buffer, when that is full, and begins another batch.
    fn make_room(&mut self, splitter: &mut Splitter) -> Result<(), Gone> {
        if !splitter.is_full() {
            return Ok(());
        }
        let part = std::mem::take(&mut self.part);
        self.batch.parts.push(part);
        splitter.swap(&mut self.batch.permit.buffer);
        // The full batch goes first: its permit may be the one that is waited for.
        let none = Permit { permits: self.permits.clone(), counted: false, buffer: Vec::new() };
        let full = std::mem::replace(&mut self.batch, Batch { parts: Vec::new(), permit: none });
        self.batches.send(full).map_err(|_| Gone)?;
        self.batch.permit = self.permits.acquire(self.unit).ok_or(Gone)?;
        Ok(())
    }

    /// Sends what is left, with the splitter's buffer.
    fn finish(mut self, splitter: &mut Splitter) -> Result<(), Gone> {
        splitter.swap(&mut self.batch.permit.buffer);
        self.batches.send(self.batch).map_err(|_| Gone)
    }

    /// What was read of the file so far is void. Its pieces stay in the batch all the same: their
    /// bytes do, and the consumer matches one with the other.
    fn restart_file(&mut self) {
        let part = std::mem::replace(&mut self.part, FilePart { restart: true, ..FilePart::default() });
        self.batch.parts.push(part);
    }

    fn end_file(&mut self, done: Result<FileDone, FileProblem>) {
        let mut part = std::mem::take(&mut self.part);
        part.done = Some(done);
        self.batch.parts.push(part);
    }
}

/// Reads a file, and once more when it was written meanwhile.
fn read_file(job: &FileJob, splitter: &mut Splitter, ids: &IdKeys, sender: &mut BatchSender<'_>) -> Result<(), Gone> {
    let mut listed = job.stat.clone();
    for attempt in 0..2 {
        let last_attempt = attempt == 1;
        if last_attempt {
            sender.restart_file();
        }
        let outcome = match open_file(&job.dir, &job.name, &listed) {
            Ok(file) => read_open(file, splitter, ids, sender)?,
            Err(problem) => Err(problem),
        };
        match outcome {
            Ok((before, mut done)) if !done.stat.same_content(&before) => {
                if last_attempt {
                    done.unstable = true;
                    sender.end_file(Ok(done));
                    return Ok(());
                }
            }
            Err(FileProblem::Replaced) if !last_attempt => {
                // Replaced by rename, as careful programs do: look at what is there now.
                match Stat::at(&*job.dir, &job.name) {
                    Ok(stat) => listed = stat,
                    Err(_) => {
                        sender.end_file(Err(FileProblem::Vanished));
                        return Ok(());
                    }
                }
            }
            outcome => {
                sender.end_file(outcome.map(|(_, done)| done));
                return Ok(());
            }
        }
    }
    Ok(())
}

type ReadOutcome = Result<(Stat, FileDone), FileProblem>;

fn read_open(
    mut file: OpenFile,
    splitter: &mut Splitter,
    ids: &IdKeys,
    sender: &mut BatchSender<'_>,
) -> Result<ReadOutcome, Gone> {
    let before = file.stat().clone();
    splitter.reset();
    loop {
        sender.make_room(splitter)?;
        let mut sink = |split: Split<'_>| sender.piece(ids, split);
        let next = file.next(splitter.space());
        let Ok(()) = match next {
            Ok(Segment::Data(bytes)) => splitter.filled(bytes, &mut sink),
            Ok(Segment::Hole(bytes)) => splitter.push_zeros(bytes, &mut sink),
            Ok(Segment::End) => {
                let Ok(()) = splitter.finish(&mut sink);
                break;
            }
            Err(error) => return Ok(Err(FileProblem::Io(error))),
        };
    }
    let (xattrs, problems) = meta::xattrs(Owner::Open(file.as_fd()));
    let size = file.position();
    let holes = file.holes().iter().filter(|hole| hole.offset + hole.bytes <= size).copied().collect();
    let problems = problems.iter().map(ToString::to_string).collect();
    Ok(match file.finish() {
        // A file cut short meanwhile looks different; here the file system lost the rest.
        Ok(stat) if size < stat.size && stat.same_content(&before) => {
            Err(FileProblem::Short { found: size, expected: stat.size })
        }
        Ok(stat) => Ok((before, FileDone { stat, holes, xattrs, problems, unstable: false })),
        Err(error) => Err(FileProblem::Io(error)),
    })
}

/// The unit the consumer is at, part by part.
#[derive(Default)]
pub(super) struct Expected {
    current: Option<Receiver<Batch>>,
    parts: VecDeque<FilePart>,
    /// Where the parts' bytes are.
    permit: Option<Permit>,
}

impl Expected {
    /// The consumer comes to the next unit.
    pub(super) fn begin(&mut self, unit: Receiver<Batch>) {
        *self = Self { current: Some(unit), ..Self::default() };
    }

    /// The next part of the unit's files with the batch its pieces stand in; `None` when its thread
    /// stopped.
    pub(super) fn next_part(&mut self) -> Option<(FilePart, &[u8])> {
        while self.parts.is_empty() {
            // The last one's memory first: the next may wait for it.
            self.permit = None;
            let batch = self.current.as_ref()?.recv().ok()?;
            self.parts.extend(batch.parts);
            self.permit = Some(batch.permit);
        }
        Some((self.parts.pop_front()?, &self.permit.as_ref()?.buffer))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::thread;

    use super::*;
    use crate::chunk::cut::Parameters;
    use crate::crypto::key::SecretKey;
    use crate::source::dir::Access;

    /// A directory with a file, opened as the walk does.
    struct Scene {
        _dir: tempfile::TempDir,
        path: PathBuf,
        open: Arc<Dir>,
    }

    fn scene(content: &[u8]) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, content).unwrap();
        let mut open = Dir::open_top(Access::Read).unwrap();
        for name in crate::path::TreePath::from_os(&dir.path().canonicalize().unwrap()).unwrap().components() {
            open = open.open_child(&name, Access::Read).unwrap();
        }
        Scene { _dir: dir, path, open: Arc::new(open) }
    }

    impl Scene {
        fn job(&self) -> FileJob {
            let name = Name::new(*b"file").unwrap();
            let stat = Stat::at(&*self.open, &name).unwrap();
            FileJob { dir: self.open.clone(), name, stat }
        }
    }

    /// What a reader made of a file: its bytes, how often it began again, and its end.
    struct Outcome {
        bytes: Vec<u8>,
        restarts: u32,
        done: Result<FileDone, FileProblem>,
    }

    /// Reads one file in a thread, as a backup does. `while_waiting` runs each time the reader
    /// has filled its channel and cannot go on.
    fn read(job: FileJob, mut while_waiting: impl FnMut(&Receiver<Batch>)) -> Outcome {
        let (unit, batches) = Unit::new(0, vec![job]);
        let (send, units) = bounded(1);
        send.send(unit).unwrap();
        drop(send);
        let permits = Permits::new(1);
        let reader = thread::spawn({
            let permits = permits.clone();
            move || {
                let cutter = Arc::new(Cutter::new(Parameters::with_average(64 << 10), &[1; 32]));
                read_units(&units, &cutter, &IdKeys::new(&SecretKey::from_bytes(&[2; 32])), &permits);
            }
        });
        let mut expected = Expected::default();
        while_waiting(&batches);
        expected.begin(batches.clone());
        let (mut bytes, mut restarts) = (Vec::new(), 0);
        loop {
            let (part, data) = expected.next_part().expect("the reader goes on to the end");
            if part.restart {
                bytes.clear();
                restarts += 1;
            }
            for (piece, place) in &part.pieces {
                match piece {
                    Piece::Chunk { .. } => bytes.extend_from_slice(&data[place.clone()]),
                    Piece::Zeros { bytes: length } => bytes.resize(bytes.len() + *length as usize, 0),
                }
            }
            let restarted = part.restart;
            if let Some(done) = part.done {
                reader.join().unwrap();
                return Outcome { bytes, restarts, done };
            }
            if restarted {
                while_waiting(&batches);
            }
        }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Waits until the reader has filled its channel: it stands in the middle of a large file.
    fn until_full(batches: &Receiver<Batch>) {
        while batches.len() < BATCHES_WAITING_MAX {
            thread::yield_now();
        }
    }

    fn append(path: &Path) {
        fs::File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
    }

    #[test]
    fn a_file_is_read_whole_whatever_its_size() {
        for size in [0, 1, 100_000, 3 << 20, 9 << 20] {
            let content = noise(size);
            let outcome = read(scene(&content).job(), |_| {});
            assert_eq!((outcome.bytes == content, outcome.restarts), (true, 0));
            assert!(!outcome.done.unwrap().unstable);
        }
    }

    #[test]
    fn a_file_that_changed_while_it_was_read_is_read_once_more() {
        let content = noise(16 << 20);
        let scene = scene(&content);
        let mut first = true;
        let outcome = read(scene.job(), |batches| {
            if std::mem::take(&mut first) {
                until_full(batches);
                append(&scene.path);
            }
        });
        assert_eq!(outcome.restarts, 1);
        assert!(outcome.bytes == fs::read(&scene.path).unwrap());
        assert!(!outcome.done.unwrap().unstable);
    }

    #[test]
    fn a_file_that_keeps_changing_is_taken_as_it_is_and_said_to_be_unstable() {
        let scene = scene(&noise(16 << 20));
        let outcome = read(scene.job(), |batches| {
            until_full(batches);
            append(&scene.path);
        });
        assert_eq!(outcome.restarts, 1);
        assert!(outcome.done.unwrap().unstable);
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_read_is_read_once_more() {
        let scene = scene(&noise(16 << 20));
        let mut first = true;
        let outcome = read(scene.job(), |batches| {
            if std::mem::take(&mut first) {
                until_full(batches);
                fs::File::options().write(true).open(&scene.path).unwrap().set_len(5).unwrap();
            }
        });
        assert!(outcome.bytes == fs::read(&scene.path).unwrap() && outcome.bytes.len() == 5);
        assert!(!outcome.done.unwrap().unstable);
    }

    #[test]
    fn a_file_replaced_since_it_was_listed_is_read_as_it_is_now() {
        let scene = scene(b"old");
        let job = scene.job();
        let next = scene.path.with_extension("new");
        fs::write(&next, b"new content").unwrap();
        rustix::fs::rename(&next, &scene.path).unwrap();
        let outcome = read(job, |_| {});
        assert_eq!(outcome.bytes, b"new content");
        assert!(outcome.done.is_ok());
    }

    #[test]
    fn a_file_that_vanished_or_became_something_else_is_a_problem_of_that_file() {
        let scene = scene(b"x");
        let job = scene.job();
        fs::remove_file(&scene.path).unwrap();
        assert!(matches!(read(job, |_| {}).done, Err(FileProblem::Vanished)));
        fs::write(&scene.path, b"x").unwrap();
        let job = scene.job();
        fs::remove_file(&scene.path).unwrap();
        fs::create_dir(&scene.path).unwrap();
        assert!(matches!(read(job, |_| {}).done, Err(FileProblem::Replaced)));
    }
}
