//! One window of a restore: files whose data is fetched in the order in which it is stored.
//!
//! 1. Files that have something in their place are compared with it, and left alone when it is
//!    the same.
//! 2. The others are cut into references (chunk, file, offset), a million at a time. What the old
//!    file has is taken from there; the rest is located in the repository and sorted by pack and
//!    frame.
//! 3. Threads take a few neighbouring frames each, read them at once, open each once, check every
//!    chunk wanted from it and write it wherever it belongs. Whoever writes the last piece of a
//!    file finishes the file.
//!
//! Hard links follow when the files they are links of are whole, then the attributes of
//! directories, the deepest first: nothing is written below them any more.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::attributes::{self, Place};
use super::file::{Existing, Failure, File, Files, LinkSource, drop_cached, is_zero, made_or_replaced, read_all};
use super::tally::count;
use super::target::{Dir, Inode, look};
use super::{Change, Options};
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Attributes, Piece};
use crate::id::ChunkId;
use crate::path::Name;
use crate::repo::frames::{Buffers, spans};
use crate::repo::reader::{FrameAt, Location, Pieces, ReadRepo};

/// References looked up and sorted at once: 88 bytes each.
const REFERENCES_MAX: usize = 1_000_000;

/// Longest chunk compared with what is in place; there are none so long, except in lies.
const COMPARED_BYTES_MAX: u64 = 64 << 20;

/// A file that takes more than this is compared with the size of the file system it goes to.
const ASKED_BYTES_MIN: u64 = 1 << 30;

/// So many frames in a row that cannot be read, though not damaged, mean the storage is gone.
const FAULTS_MAX: u32 = 16;

/// What the walk has collected for one window.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) files: Vec<File>,
    pub(super) links: Vec<Link>,
    /// Directories left, in that order.
    pub(super) left: Vec<(Arc<Dir>, Attributes)>,
}

/// A further name of a file.
#[derive(Debug)]
pub(super) struct Link {
    /// Where the first name is.
    pub(super) source: Arc<LinkSource>,
    pub(super) dir: Arc<Dir>,
    pub(super) name: Name,
    pub(super) existing: Option<Existing>,
    /// The file to be restored for itself should the link not be possible.
    pub(super) alone: Option<Box<File>>,
}

/// A chunk of a file.
struct Reference {
    id: ChunkId,
    bytes: u32,
    file: u32,
    offset: u64,
    at: Option<Location>,
}

/// A place in a file, and where in an opened frame the bytes for it are.
type Part = (u32, u64, Range<usize>);

/// What one thread works with, frame after frame.
#[derive(Default)]
struct Hand {
    buffers: Buffers,
    whole: Vec<Part>,
}

// What REFERENCES_MAX claims about memory.
const _: () = assert!(size_of::<Reference>() <= 88);

/// Runs windows.
pub(super) struct Engine<'a, R> {
    pub(super) repo: &'a R,
    pub(super) files: Files<'a>,
    pub(super) options: &'a Options<'a>,
    /// Frames in a row that could not be read for another reason than damage.
    faults: AtomicU32,
}

impl<'a, R: ReadRepo> Engine<'a, R> {
    pub(super) fn new(repo: &'a R, files: Files<'a>, options: &'a Options<'a>) -> Self {
        Self { repo, files, options, faults: AtomicU32::new(0) }
    }

    /// Restores what the window holds.
    pub(super) fn run(&self, window: Window) {
        let Window { mut files, mut links, left } = window;
        loop {
            self.restore(&files);
            files = links.drain(..).filter_map(|link| self.link(link)).collect();
            if files.is_empty() {
                break;
            }
        }
        for (dir, attributes) in left {
            if self.files.tally.stopping() {
                return;
            }
            match self.files.target.fd(&dir) {
                Ok(fd) => {
                    let (owners, tally) = (self.files.owners, self.files.tally);
                    attributes::apply(Place::Open(&fd), &attributes, owners, tally, &|| dir.path());
                    count(&tally.counts.directories, 1);
                    tally.monitor.done(1, 0);
                }
                Err(why) => self.files.tally.refused(&dir.path(), "the directory's attributes were not restored", why),
            }
        }
    }

    fn restore(&self, files: &[File]) {
        let pending: Vec<bool> =
            self.map(files, |(): &mut (), file| file.existing.is_none() || !self.is_in_place(file));
        let refused = |file: &File| self.fits(file).map_err(|why| self.files.fail(file, why)).is_err();
        if self.options.dry_run {
            let wanted = files.iter().zip(&pending).filter(|(file, pending)| **pending && !refused(file));
            wanted.for_each(|(file, _)| self.files.written(file));
            return;
        }
        let mut references = Vec::new();
        let mut bare = Vec::new();
        for (ordinal, file) in files.iter().enumerate().filter(|(ordinal, _)| pending[*ordinal]) {
            let ordinal = u32::try_from(ordinal).expect("a window has far fewer files");
            if self.files.tally.stopping() {
                break;
            }
            if refused(file) {
                continue;
            }
            let mut end = 0_u64;
            for piece in Pieces::new(self.repo, &file.content) {
                let offset = end;
                let outcome = piece.map_err(Failure::Data).and_then(|piece| {
                    end = end.checked_add(piece.bytes()).filter(|end| *end <= file.size).ok_or_else(wrong_length)?;
                    match piece {
                        Piece::Chunk { id, bytes } => {
                            file.expect();
                            references.push(Reference { id, bytes, file: ordinal, offset, at: None });
                        }
                        Piece::Zeros { bytes } => self.files.write_zeros(file, offset, bytes)?,
                    }
                    Ok(())
                });
                if let Err(failure) = outcome {
                    self.files.fail(file, failure);
                }
                if references.len() >= REFERENCES_MAX {
                    self.fetch(files, &mut references);
                }
                if file.failed() || self.files.tally.stopping() {
                    break;
                }
            }
            if references.last().is_some_and(|reference| reference.file == ordinal) {
                self.arrived(file, 1);
            } else {
                // Often empty: finished by all threads rather than here, one after the other.
                bare.push(file);
            }
        }
        self.map(&bare, |(): &mut (), file| self.arrived(file, 1));
        self.fetch(files, &mut references);
        if self.files.tally.stopping() {
            files.iter().for_each(|file| self.files.discard(file));
        }
    }

    /// Refuses a file that no amount of room would do for. What it says it is need not be stored: a
    /// list may name one chunk, or zeros, any number of times.
    fn fits(&self, file: &File) -> Result<(), Failure> {
        let holes: u64 = file.holes.iter().map(|hole| hole.bytes).sum();
        let bytes = file.size.saturating_sub(holes);
        if bytes < ASKED_BYTES_MIN || self.files.target.can_hold(&file.dir, bytes)? {
            return Ok(());
        }
        Err(Failure::TooLarge(format!("{bytes} bytes of it are no hole, more than the target's file system can hold")))
    }

    /// Counts so many expected parts of a file as dealt with.
    fn arrived(&self, file: &File, parts: u64) {
        self.files.arrived(file, parts, |fd| if self.options.verify { self.read_back(file, fd) } else { Ok(()) });
    }

    /// Writes the chunks referred to, in the order in which they are stored.
    fn fetch(&self, files: &[File], references: &mut Vec<Reference>) {
        let file_of = |reference: &Reference| &files[reference.file as usize];
        let threads = self.options.threads.max(1);
        let slice_len = references.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            for slice in references.chunks_mut(slice_len) {
                scope.spawn(|| slice.iter_mut().for_each(|reference| self.prepare(file_of(reference), reference)));
            }
        });
        references.retain(|reference| reference.at.is_some());
        references.sort_unstable_by_key(|reference| {
            let at = reference.at.expect("those without were dropped");
            (at.frame, at.chunk_offset, reference.file, reference.offset)
        });
        let frames: Vec<&[Reference]> =
            references.chunk_by(|a, b| a.at.map(|at| at.frame) == b.at.map(|at| at.frame)).collect();
        let places: Vec<FrameAt> = frames.iter().filter_map(|wanted| wanted[0].at).map(|at| at.frame).collect();
        let spans: Vec<Range<usize>> = spans(&places, self.repo.span_bytes_max()).collect();
        self.map(&spans, |hand: &mut Hand, span| self.write_span(files, &frames[span.clone()], hand));
        references.clear();
    }

    /// Takes a chunk from the file in place, or finds out where it is stored. Afterwards `at` is
    /// there only if the chunk is still to be written.
    fn prepare(&self, file: &File, reference: &mut Reference) {
        if file.failed() || self.files.tally.stopping() {
            return self.arrived(file, 1);
        }
        match self.take_old(file, reference) {
            Ok(true) => return self.arrived(file, 1),
            Ok(false) => {}
            Err(why) => {
                self.files.fail(file, why.into());
                return self.arrived(file, 1);
            }
        }
        match self.repo.locate(&reference.id) {
            Ok(location) => reference.at = Some(location),
            Err(error) => {
                self.files.fail(file, Failure::Data(error));
                self.arrived(file, 1);
            }
        }
    }

    fn take_old(&self, file: &File, reference: &Reference) -> Result<bool, Errno> {
        let Some(existing) = &file.existing else { return Ok(false) };
        let end = reference.offset.checked_add(u64::from(reference.bytes));
        if end.is_none_or(|end| end > existing.size) || u64::from(reference.bytes) > COMPARED_BYTES_MAX {
            return Ok(false);
        }
        let Some(old) = self.files.old(file) else { return Ok(false) };
        let mut bytes = vec![0; reference.bytes as usize];
        // What cannot be read there is fetched.
        let same =
            read_all(&old, &mut bytes, reference.offset).unwrap_or(false) && self.repo.verify(&reference.id, &bytes);
        if same {
            self.files.write(file, reference.offset, &bytes)?;
        }
        Ok(same)
    }

    /// Reads neighbouring frames and writes what is wanted from them.
    fn write_span(&self, files: &[File], frames: &[&[Reference]], hand: &mut Hand) {
        let idle = |wanted: &[Reference]| {
            self.files.tally.stopping() || wanted.iter().all(|reference| files[reference.file as usize].failed())
        };
        let (idle, live): (Vec<&[Reference]>, Vec<&[Reference]>) = frames.iter().partition(|wanted| idle(wanted));
        idle.into_iter().flatten().for_each(|reference| self.arrived(&files[reference.file as usize], 1));
        let places: Vec<FrameAt> = live.iter().filter_map(|wanted| wanted[0].at).map(|at| at.frame).collect();
        let Hand { buffers, whole } = hand;
        self.repo.frames(&places, buffers, &mut |ordinal, frame| {
            // Why it cannot be read is said by whoever looks for other copies.
            self.write_frame(files, frame.unwrap_or_default(), live[ordinal], whole);
        });
    }

    /// Writes the chunks wanted from an opened frame; the same ones follow each other.
    fn write_frame(&self, files: &[File], frame: &[u8], wanted: &[Reference], whole: &mut Vec<Part>) {
        whole.clear();
        for same in wanted.chunk_by(|a, b| a.id == b.id && a.at == b.at) {
            let Reference { id, bytes, at, .. } = same[0];
            let start = at.map_or(0, |at| at.chunk_offset as usize);
            let part = start..start.saturating_add(bytes as usize);
            let live = || same.iter().any(|reference| !files[reference.file as usize].failed());
            if self.files.tally.stopping() || !live() {
                same.iter().for_each(|reference| self.arrived(&files[reference.file as usize], 1));
            } else if frame.get(part.clone()).is_some_and(|chunk| self.repo.verify(&id, chunk)) {
                let parts = same.iter().map(|reference| (reference.file, reference.offset, part.clone()));
                whole.extend(parts);
            } else {
                let chunk = self.other_copy(&id, bytes);
                for Reference { file, offset, .. } in same {
                    let file = &files[*file as usize];
                    match &chunk {
                        Ok(chunk) => self.write(file, *offset, chunk),
                        Err(why) => self.files.fail(file, Failure::Data(Error::new(Kind::Damaged, why.clone()))),
                    }
                    self.arrived(file, 1);
                }
            }
        }
        // What lies together here and there is written at once. Each write of a file keeps all
        // other threads from writing it; fewer and longer ones leave them time to open frames.
        whole.sort_unstable_by_key(|(file, offset, _)| (*file, *offset));
        let follow = |a: &Part, b: &Part| (a.0, a.1 + a.2.len() as u64, a.2.end) == (b.0, b.1, b.2.start);
        for run in whole.chunk_by(follow) {
            let (file, offset, Range { start, .. }) = run[0].clone();
            let (file, end) = (&files[file as usize], run[run.len() - 1].2.end);
            self.write(file, offset, &frame[start..end]);
            self.arrived(file, run.len() as u64);
        }
    }

    /// Writes bytes that are the snapshot's.
    fn write(&self, file: &File, offset: u64, bytes: &[u8]) {
        if !file.failed()
            && !self.files.tally.stopping()
            && let Err(why) = self.files.write(file, offset, bytes)
        {
            self.files.fail(file, why.into());
        }
    }

    /// The chunk from wherever it can still be had, or why it cannot, as text for each file.
    fn other_copy(&self, id: &ChunkId, bytes: u32) -> Result<Vec<u8>, String> {
        match self.repo.chunk(id) {
            Ok(chunk) if chunk.len() == bytes as usize => {
                self.faults.store(0, Ordering::Relaxed);
                Ok(chunk)
            }
            Ok(chunk) => Err(format!("chunk `{}` has {} bytes where {bytes} belong", id.short(), chunk.len())),
            Err(error) => {
                let text = error.with_causes();
                if error.kind() == Kind::Damaged {
                    self.faults.store(0, Ordering::Relaxed);
                } else if self.faults.fetch_add(1, Ordering::Relaxed) >= FAULTS_MAX {
                    self.files.tally.halt(
                        Error::new(error.kind(), "the restore stopped: the repository cannot be read").because(error),
                    );
                }
                Err(text)
            }
        }
    }

    /// Compares a file with what is in its place and, when that is the same, only sets attributes.
    fn is_in_place(&self, file: &File) -> bool {
        let Some(existing) = file.existing.filter(|existing| existing.regular && existing.size == file.size) else {
            return false;
        };
        // Another name of the file in place must not change with it.
        if existing.links > 1 && file.link.is_none() || self.files.tally.stopping() {
            return false;
        }
        let Some(fd) = self.files.old(file) else { return false };
        let time = (file.attributes.mtime.secs, u64::from(file.attributes.mtime.nanos));
        let trusted = self.options.overwrite == super::Overwrite::IfChanged && existing.mtime == time;
        let same = trusted || self.same_content(file, &fd).is_ok_and(|same| same);
        if same {
            self.files.unchanged(file, (!self.options.dry_run).then_some(&*fd));
        }
        same
    }

    /// Whether an open file has exactly the bytes of `file`.
    fn same_content(&self, file: &File, fd: &std::os::fd::OwnedFd) -> Result<bool> {
        let mut buffer = Vec::new();
        let mut offset = 0_u64;
        let failed = |errno: Errno| {
            Error::new(Kind::Failed, format!("cannot read `{}`", file.path())).because(std::io::Error::from(errno))
        };
        let mut is = |offset: u64, bytes: u64, right: &dyn Fn(&[u8]) -> bool| -> Result<bool> {
            buffer.resize(usize::try_from(bytes).unwrap_or(usize::MAX).min(1 << 30), 0);
            Ok(read_all(fd, &mut buffer, offset).map_err(failed)? && right(&buffer))
        };
        for piece in Pieces::new(self.repo, &file.content) {
            if self.files.tally.stopping() {
                return Ok(false);
            }
            let piece = piece?;
            let end = offset.checked_add(piece.bytes());
            let Some(end) = end.filter(|end| *end <= file.size) else { return Ok(false) };
            match piece {
                Piece::Chunk { bytes, .. } if u64::from(bytes) > COMPARED_BYTES_MAX => return Ok(false),
                Piece::Chunk { id, bytes } => {
                    if !is(offset, u64::from(bytes), &|found| self.repo.verify(&id, found))? {
                        return Ok(false);
                    }
                }
                Piece::Zeros { .. } => {
                    while offset < end {
                        let part = (end - offset).min(1 << 20);
                        if !is(offset, part, &is_zero)? {
                            return Ok(false);
                        }
                        offset += part;
                    }
                }
            }
            offset = end;
        }
        Ok(offset == file.size)
    }

    /// Reads a written file from the disk again (`verify`).
    fn read_back(&self, file: &File, fd: &std::os::fd::OwnedFd) -> Result<()> {
        // Where the cache cannot be emptied, what is in it is compared.
        let _ = drop_cached(fd);
        let reads_back = self.same_content(file, fd)?;
        if reads_back || self.files.tally.stopping() {
            return Ok(());
        }
        Err(Error::new(Kind::Failed, "what was written reads back differently"))
    }

    /// Makes a hard link. Gives back a file to be restored for itself where links are not possible.
    fn link(&self, link: Link) -> Option<File> {
        let tally = self.files.tally;
        if tally.stopping() {
            return None;
        }
        let path = || link.dir.path_of(&link.name);
        if self.options.dry_run {
            let first = *super::target::lock(&link.source.inode);
            let in_place = first.is_some_and(|first| link.existing.is_some_and(|existing| existing.inode == first));
            self.linked(&link, !in_place);
            return None;
        }
        let Some(inode) = *super::target::lock(&link.source.inode) else {
            let first = link.source.dir.path_of(&link.source.name);
            let error = Error::new(Kind::Damaged, format!("it is a hard link to `{first}`, which was not restored"));
            tally.damaged(path(), &error);
            return None;
        };
        match self.try_link(&link, inode) {
            Ok(made) => self.linked(&link, made),
            Err(why) => {
                tally.unset("hard links", path, why);
                if let Some(alone) = link.alone {
                    return Some(*alone);
                }
                tally.refused(&path(), "not restored", why);
                tally.monitor.done(1, 0);
            }
        }
        None
    }

    /// Counts a further name of a file.
    fn linked(&self, link: &Link, made: bool) {
        let tally = self.files.tally;
        count(if made { &tally.counts.hard_links } else { &tally.counts.unchanged }, 1);
        let change = if made { made_or_replaced(link.existing.as_ref()) } else { Change::Unchanged };
        tally.changed(change, || link.dir.path_of(&link.name));
        tally.monitor.done(1, 0);
    }

    /// Whether a link had to be made.
    fn try_link(&self, link: &Link, inode: Inode) -> Result<bool, Errno> {
        let target = self.files.target;
        if link.existing.is_some_and(|existing| existing.inode == inode) {
            return Ok(false);
        }
        let (from, to) = (target.fd(&link.source.dir)?, target.fd(&link.dir)?);
        let name = if link.existing.is_some() { target.temporary_name() } else { link.name.clone() };
        rustix::fs::linkat(&*from, link.source.name.as_os(), &*to, name.as_os(), AtFlags::empty())?;
        // Somebody may have put another file in the place of the first meanwhile.
        let mut made = look(&to, &name)?.filter(|stat| Inode::of(stat) == inode).map(|_| ()).ok_or(Errno::STALE);
        if made.is_ok() && name != link.name {
            made = rustix::fs::renameat(&*to, name.as_os(), &*to, link.name.as_os());
        }
        if made.is_err() {
            rustix::fs::unlinkat(&*to, name.as_os(), AtFlags::empty())?;
        }
        made.map(|()| true)
    }

    /// Calls `work` for every item on all threads and gives the results in order. Each thread has
    /// an `S` that it hands to all its calls.
    fn map<T: Sync, S: Default, U: Send>(&self, items: &[T], work: impl Fn(&mut S, &T) -> U + Sync) -> Vec<U> {
        let threads = self.options.threads.max(1).min(items.len());
        if threads <= 1 {
            let mut own = S::default();
            return items.iter().map(|item| work(&mut own, item)).collect();
        }
        let next = AtomicUsize::new(0);
        let take = || {
            let (mut done, mut own) = (Vec::new(), S::default());
            loop {
                let ordinal = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(ordinal) else { return done };
                done.push((ordinal, work(&mut own, item)));
            }
        };
        let mut results: Vec<(usize, U)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        results.sort_unstable_by_key(|(ordinal, _)| *ordinal);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

fn wrong_length() -> Failure {
    Failure::Data(Error::new(Kind::Damaged, "its content is not as long as the file"))
}
