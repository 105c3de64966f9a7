//! One regular file on its way back: made, written at its offsets in any order, finished.
//!
//! A file that takes nobody's place is made under its own name; one that replaces something is
//! made beside it under a temporary name and renamed over it when it is whole, so a restore that
//! fails never destroys what was there. Either way a file that cannot be made whole is removed
//! again: what stands in the target after a restore has the right bytes.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Change;
use super::attributes::{self, Owners, Place};
use super::fds::Descriptors;
use super::tally::{Tally, count};
use super::target::{Dir, Inode, Target, file_type, lock};
use crate::error::{Error, Kind};
use crate::format::tree::{Attributes, Content, Hole};
use crate::path::{Name, TreePath};

/// Files kept open for writing, and for reading what they replace.
const OPEN_FILES_MAX: usize = 256;

/// What zeros that are no hole are written from.
static ZEROS: [u8; 128 * 1024] = [0; 128 * 1024];

/// Where the first file of a group of hard links was restored, once it was.
#[derive(Debug)]
pub(super) struct LinkSource {
    pub(super) dir: Arc<Dir>,
    pub(super) name: Name,
    pub(super) inode: Mutex<Option<Inode>>,
}

/// A regular file to be restored.
#[derive(Debug)]
pub(super) struct File {
    pub(super) number: u64,
    pub(super) dir: Arc<Dir>,
    pub(super) name: Name,
    pub(super) attributes: Attributes,
    pub(super) size: u64,
    pub(super) content: Content,
    pub(super) holes: Vec<Hole>,
    pub(super) link: Option<Arc<LinkSource>>,
    /// What stands in its place, seen when its directory was walked.
    pub(super) existing: Option<Existing>,
    /// What is still to be written, and one more until all of that is known.
    unwritten: AtomicU64,
    /// How many of its bytes are in place, holes among them.
    landed: AtomicU64,
    /// Whether some of it is not written because it is zero anyway.
    sparse: AtomicBool,
    state: Mutex<State>,
    failed: AtomicBool,
}

/// What was found under a name that is to be restored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Existing {
    pub(super) inode: Inode,
    pub(super) regular: bool,
    kind: FileType,
    pub(super) size: u64,
    pub(super) links: u64,
    pub(super) mtime: (i64, u64),
    mode: u32,
    owner: (u32, u32),
}

impl Existing {
    #[allow(clippy::useless_conversion)] // the number of links has 32 bits on aarch64
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            inode: Inode::of(stat),
            regular: file_type(stat) == FileType::RegularFile,
            kind: file_type(stat),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            links: u64::from(stat.st_nlink),
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
        }
    }

    /// What setting these attributes does to it, as far as mode, owner and time show.
    pub(super) fn adjusted_to(&self, attributes: &Attributes) -> Change {
        let mtime = (attributes.mtime.secs, u64::from(attributes.mtime.nanos));
        let link = self.kind == FileType::Symlink;
        let same = self.mtime == mtime
            && self.owner == (attributes.uid, attributes.gid)
            && (link || self.mode == attributes.mode & 0o7777);
        if same { Change::Unchanged } else { Change::Adjusted }
    }
}

#[derive(Debug)]
enum State {
    /// Nothing is there yet.
    Waiting,
    /// It stands under this name, which may be temporary.
    Made(Name, Inode),
    /// Finished, or removed again.
    Over,
}

impl File {
    /// A file about to be restored; `link` is to be told its inode.
    pub(super) fn new(
        number: u64,
        (dir, name): (Arc<Dir>, Name),
        attributes: Attributes,
        (size, content, holes): (u64, Content, Vec<Hole>),
        link: Option<Arc<LinkSource>>,
        existing: Option<Existing>,
    ) -> Self {
        Self {
            number,
            dir,
            name,
            attributes,
            size,
            content,
            sparse: AtomicBool::new(!holes.is_empty()),
            holes,
            link,
            existing,
            unwritten: AtomicU64::new(1),
            landed: AtomicU64::new(0),
            state: Mutex::new(State::Waiting),
            failed: AtomicBool::new(false),
        }
    }

    /// Its path in the snapshot.
    pub(super) fn path(&self) -> TreePath {
        self.dir.path_of(&self.name)
    }

    /// Whether it will not be restored.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// One more thing must be written before this is whole.
    pub(super) fn expect(&self) {
        self.unwritten.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes, writes and finishes files. Used by all threads.
#[derive(Debug)]
pub(super) struct Files<'a> {
    pub(super) target: &'a Target,
    pub(super) owners: &'a Owners,
    pub(super) tally: &'a Tally<'a>,
    open: Descriptors,
    old: Descriptors,
}

impl<'a> Files<'a> {
    pub(super) fn new(target: &'a Target, owners: &'a Owners, tally: &'a Tally<'a>) -> Self {
        Self {
            target,
            owners,
            tally,
            open: Descriptors::new(OPEN_FILES_MAX),
            old: Descriptors::new(OPEN_FILES_MAX / 4),
        }
    }

    /// The file open for writing, made now if it is not there yet.
    fn writable(&self, file: &File) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(fd) = self.open.get(file.number) {
            return Ok(fd);
        }
        let mut state = lock(&file.state);
        if let Some(fd) = self.open.get(file.number) {
            return Ok(fd);
        }
        let dir = self.target.fd(&file.dir)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match &*state {
            State::Waiting => {
                let name = if file.existing.is_some() { self.target.temporary_name() } else { file.name.clone() };
                let made = OFlags::CREATE | OFlags::EXCL;
                let fd = rustix::fs::openat(&*dir, name.as_os(), flags | made, Mode::RUSR | Mode::WUSR)?;
                *state = State::Made(name, Inode::of(&rustix::fs::fstat(&fd)?));
                fd
            }
            State::Made(name, inode) => {
                let fd = rustix::fs::openat(&*dir, name.as_os(), flags, Mode::empty())?;
                if Inode::of(&rustix::fs::fstat(&fd)?) != *inode {
                    return Err(Errno::STALE);
                }
                fd
            }
            State::Over => return Err(Errno::CANCELED),
        };
        let fd = Arc::new(fd);
        self.open.keep(file.number, Arc::clone(&fd));
        Ok(fd)
    }

    /// The regular file that stands in its place, open for reading.
    pub(super) fn old(&self, file: &File) -> Option<Arc<OwnedFd>> {
        let existing = file.existing.filter(|existing| existing.regular)?;
        if let Some(fd) = self.old.get(file.number) {
            return Some(fd);
        }
        let dir = self.target.fd(&file.dir).ok()?;
        // Not blocking: a fifo may have taken its place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*dir, file.name.as_os(), flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&fd).ok()?;
        if Inode::of(&stat) != existing.inode || file_type(&stat) != FileType::RegularFile {
            return None;
        }
        let fd = Arc::new(fd);
        self.old.keep(file.number, Arc::clone(&fd));
        Some(fd)
    }

    /// Writes bytes at their offset, leaving out what the entry says is a hole and is zero.
    pub(super) fn write(&self, file: &File, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let fd = self.writable(file)?;
        let end = offset + bytes.len() as u64;
        for (from, to, hole) in split_at_holes(&file.holes, offset, end) {
            let part = &bytes[as_index(from - offset)..as_index(to - offset)];
            if !(hole && is_zero(part)) {
                write_all(&fd, part, from)?;
            }
        }
        file.landed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Writes zeros where they are no hole.
    pub(super) fn write_zeros(&self, file: &File, offset: u64, bytes: u64) -> Result<(), Errno> {
        file.sparse.store(true, Ordering::Relaxed);
        for (from, to, hole) in split_at_holes(&file.holes, offset, offset + bytes) {
            let mut at = from;
            while !hole && at < to {
                if self.tally.stopping() {
                    return Err(Errno::CANCELED);
                }
                let part = &ZEROS[..as_index((to - at).min(ZEROS.len() as u64))];
                write_all(&*self.writable(file)?, part, at)?;
                at += part.len() as u64;
            }
        }
        file.landed.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// So many of the things expected were written, or never will be; the last one finishes the file.
    ///
    /// `whole` looks at the file before it takes its name and says what is wrong with it.
    pub(super) fn arrived(&self, file: &File, things: u64, whole: impl FnOnce(&OwnedFd) -> Result<(), Error>) {
        if file.unwritten.fetch_sub(things, Ordering::AcqRel) != things {
            return;
        }
        if !file.failed()
            && let Err(failure) = self.finish(file, whole)
        {
            self.fail(file, failure);
        }
        if file.failed() {
            self.discard(file);
        }
    }

    fn finish(&self, file: &File, whole: impl FnOnce(&OwnedFd) -> Result<(), Error>) -> Result<(), Failure> {
        if file.landed.load(Ordering::Relaxed) != file.size {
            // Nothing takes its name that is not whole, however it came to this.
            let error = Error::new(Kind::Damaged, "its content is not as long as the file");
            return Err(if self.tally.stopping() { Errno::CANCELED.into() } else { Failure::Data(error) });
        }
        let fd = self.writable(file)?;
        if file.sparse.load(Ordering::Relaxed) {
            rustix::fs::ftruncate(&*fd, file.size)?;
        }
        whole(&fd).map_err(Failure::Data)?;
        attributes::apply(Place::Open(&fd), &file.attributes, self.owners, self.tally, &|| file.path());
        let mut state = lock(&file.state);
        if let State::Made(name, inode) = &*state {
            if *name != file.name {
                let dir = self.target.fd(&file.dir)?;
                rustix::fs::renameat(&*dir, name.as_os(), &*dir, file.name.as_os())?;
            }
            if let Some(link) = &file.link {
                *lock(&link.inode) = Some(*inode);
            }
        }
        *state = State::Over;
        drop(state);
        self.open.forget(file.number);
        self.old.forget(file.number);
        self.written(file);
        Ok(())
    }

    /// Counts a file that was restored, or in a dry run would be.
    pub(super) fn written(&self, file: &File) {
        count(&self.tally.counts.files, 1);
        count(&self.tally.counts.bytes_restored, file.size);
        self.tally.monitor.done(1, file.size);
        self.tally.changed(made_or_replaced(file.existing.as_ref()), || file.path());
    }

    /// The file in place has this content already: only its attributes are set, if it is open for that.
    pub(super) fn unchanged(&self, file: &File, fd: Option<&OwnedFd>) {
        if let Some(fd) = fd {
            attributes::apply(Place::Open(fd), &file.attributes, self.owners, self.tally, &|| file.path());
        }
        if let (Some(link), Some(existing)) = (&file.link, &file.existing) {
            *lock(&link.inode) = Some(existing.inode);
        }
        *lock(&file.state) = State::Over;
        self.old.forget(file.number);
        let change = file.existing.map_or(Change::Unchanged, |existing| existing.adjusted_to(&file.attributes));
        self.tally.changed(change, || file.path());
        count(&self.tally.counts.unchanged, 1);
        count(&self.tally.counts.bytes_unchanged, file.size);
        self.tally.monitor.done(1, file.size);
    }

    /// Gives the file up and names it, unless that has happened already.
    pub(super) fn fail(&self, file: &File, failure: Failure) {
        if file.failed.swap(true, Ordering::Relaxed) {
            return;
        }
        match failure {
            // The restore as a whole is being given up, and says so itself.
            Failure::System(Errno::CANCELED) => {}
            Failure::System(why) => self.tally.refused(&file.path(), "not restored", why),
            Failure::Data(error) => self.tally.damaged(file.path(), &error),
            Failure::TooLarge(why) => self.tally.problem(&file.path(), format!("not restored: {why}")),
        }
    }

    /// Removes what was made of a file that will not be whole. Does nothing to a finished one.
    pub(super) fn discard(&self, file: &File) {
        self.open.forget(file.number);
        self.old.forget(file.number);
        let mut state = lock(&file.state);
        if let State::Made(name, _) = &*state {
            let removed = self.target.fd(&file.dir);
            let removed = removed.and_then(|dir| rustix::fs::unlinkat(&*dir, name.as_os(), AtFlags::empty()));
            if let Err(why) = removed {
                self.tally.refused(&file.dir.path_of(name), "an unfinished file could not be removed", why);
            }
        }
        *state = State::Over;
    }
}

/// What an entry does to what is in its place.
pub(super) fn made_or_replaced(existing: Option<&Existing>) -> Change {
    if existing.is_some() { Change::Replaced } else { Change::Made }
}

/// Why a file is not restored.
#[derive(Debug)]
pub(super) enum Failure {
    /// The system refused.
    System(Errno),
    /// Its data is missing or damaged.
    Data(Error),
    /// No room would be enough for what it says it is.
    TooLarge(String),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Failure::System(errno)
    }
}

/// Writes all of `bytes`.
fn write_all(fd: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Fills `bytes` from `offset`; `false` when the file ends before.
pub(super) fn read_all(fd: &OwnedFd, mut bytes: &mut [u8], mut offset: u64) -> Result<bool, Errno> {
    while !bytes.is_empty() {
        match rustix::io::pread(fd, &mut *bytes, offset) {
            Ok(0) => return Ok(false),
            Ok(read) => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

/// Makes the next reads of `fd` come from the disk.
pub(super) fn drop_cached(fd: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::fdatasync(fd)?;
    rustix::fs::fadvise(fd, 0, None, Advice::DontNeed)
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Cuts `from..to` where holes begin and end: `(from, to, whether it is in a hole)`.
fn split_at_holes(holes: &[Hole], from: u64, to: u64) -> impl Iterator<Item = (u64, u64, bool)> {
    let first = holes.partition_point(|hole| hole.offset.saturating_add(hole.bytes) <= from);
    let mut holes = holes[first..].iter();
    let mut hole = holes.next();
    let mut at = from;
    std::iter::from_fn(move || {
        if at >= to {
            return None;
        }
        let start = at;
        let inside = match hole {
            Some(found) if found.offset <= at => {
                at = found.offset.saturating_add(found.bytes).min(to);
                hole = holes.next();
                true
            }
            Some(found) => {
                at = found.offset.min(to);
                false
            }
            None => {
                at = to;
                false
            }
        };
        Some((start, at, inside))
    })
}

/// A length within a buffer as an index into it.
fn as_index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it is within a buffer in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_where_holes_begin_and_end() {
        let holes = [Hole { offset: 10, bytes: 10 }, Hole { offset: 30, bytes: 5 }];
        let cut = |from, to| split_at_holes(&holes, from, to).collect::<Vec<_>>();
        assert_eq!(cut(0, 10), [(0, 10, false)]);
        assert_eq!(cut(5, 32), [(5, 10, false), (10, 20, true), (20, 30, false), (30, 32, true)]);
        assert_eq!(cut(12, 15), [(12, 15, true)]);
        assert_eq!(cut(20, 20), []);
        assert_eq!(cut(35, 99), [(35, 99, false)]);
        assert_eq!(cut(20, 40), [(20, 30, false), (30, 35, true), (35, 40, false)]);
    }
}
