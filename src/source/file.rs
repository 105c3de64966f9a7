//! The bytes and holes of one file, read forward.
//!
//! The file is read as it is, not mapped (a file cut short under a map kills the process), to
//! its end wherever that is by then. Whether it changed meanwhile is for the caller to see from
//! the [`Stat`] before and the one [`OpenFile::finish`] gives.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Advice, CWD, Mode, OFlags, SeekFrom, fadvise, openat, seek};
use rustix::io::{Errno, pread};

use super::dir::{Dir, open_noatime};
use super::stat::{Kind, Stat};
use crate::format::tree::{HOLES_MAX, Hole};
use crate::path::Name;

/// From this size on the kernel is told that the file is read from front to back.
const ADVISE_BYTES_MIN: u64 = 512 << 10;

/// Why a listed file could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// The name is gone.
    #[error("it vanished before it was read")]
    Vanished,
    /// The name stands for something else now; [`Stat::at`] says what.
    #[error("it was replaced before it was read")]
    Replaced,
    /// It ends before the length it is said to have, and was not written meanwhile.
    #[error("only {found} of its {expected} bytes can be read")]
    Short {
        /// How many bytes came.
        found: u64,
        /// How many there should be.
        expected: u64,
    },
    /// Opening or reading failed.
    #[error(transparent)]
    Io(io::Error),
}

impl From<Errno> for FileProblem {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Vanished,
            // A symbolic link, a socket.
            Errno::LOOP | Errno::NXIO => Self::Replaced,
            other => Self::Io(other.into()),
        }
    }
}

/// What comes next in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// This many bytes were put at the front of the buffer; never zero.
    Data(usize),
    /// This many zero bytes follow that take no space; never zero.
    Hole(u64),
    /// The end.
    End,
}

/// A regular file being read.
#[derive(Debug)]
pub struct OpenFile {
    fd: OwnedFd,
    stat: Stat,
    at: u64,
    /// Where the data that begins before or at `at` ends; `None` when holes are not looked for.
    data_end: Option<u64>,
    holes: Vec<Hole>,
}

/// Opens the file `name` in `dir`, which the walk found with `listed`.
///
/// Never waits for another process (a pipe put in its place cannot hang the backup) and never
/// follows a link. What was opened must be the very file that was listed.
pub fn open_file(dir: &Dir, name: &Name, listed: &Stat) -> Result<OpenFile, FileProblem> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = match open_noatime(dir.as_fd(), name.as_os(), flags) {
        Err(Errno::AGAIN) => open_leased(dir, name)?,
        result => result?,
    };
    let stat = Stat::of(&fd).map_err(FileProblem::Io)?;
    if stat.kind != Kind::File || stat.identity() != listed.identity() {
        return Err(FileProblem::Replaced);
    }
    if stat.size >= ADVISE_BYTES_MIN {
        // Only a hint: a file system that has no use for it may refuse.
        let _ = fadvise(&fd, 0, None, Advice::Sequential);
    }
    let data_end = stat.may_have_holes().then_some(0);
    Ok(OpenFile { fd, stat, at: 0, data_end, holes: Vec::new() })
}

/// Opens a file on which another process holds a lease (Samba does), waiting until it gives way.
/// Only for a file that is known to be regular can waiting not last for ever.
fn open_leased(dir: &Dir, name: &Name) -> Result<OwnedFd, FileProblem> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(dir, name.as_os(), flags, Mode::empty())?;
    if Stat::of(&found).map_err(FileProblem::Io)?.kind != Kind::File {
        return Err(FileProblem::Replaced);
    }
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(open_noatime(CWD, OsStr::new(&path), OFlags::CLOEXEC)?)
}

impl OpenFile {
    /// The look taken right after opening.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Reads on. Holes are told apart only in files that occupy less than their length.
    ///
    /// `buf` must not be empty. A short read is not the end; only [`Segment::End`] is.
    pub fn next(&mut self, buf: &mut [u8]) -> io::Result<Segment> {
        assert!(!buf.is_empty(), "reading needs a buffer");
        let mut room = buf.len();
        if self.data_end.is_some_and(|end| end <= self.at)
            && let Some(hole_bytes) = self.skip_hole()?
        {
            return Ok(Segment::Hole(hole_bytes));
        }
        // At the end of the data, and of the file, there is none left to stop before.
        if let Some(left) = self.data_end.and_then(|end| end.checked_sub(self.at)).filter(|left| *left > 0) {
            room = room.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        loop {
            match pread(&self.fd, &mut buf[..room], self.at) {
                Ok(0) => return Ok(Segment::End),
                Ok(n) => {
                    self.at += n as u64;
                    return Ok(Segment::Data(n));
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The holes passed so far, in order, apart from each other.
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// How many bytes, holes included, were passed so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Looks at the file once more. Differs in [`Stat::same_content`] from the look before when
    /// the file was written meanwhile.
    pub fn finish(self) -> io::Result<Stat> {
        Stat::of(&self.fd)
    }

    /// Passes the hole at the current place, if there is one, and finds the end of the data
    /// after it. At the end of the file there is neither, and reading will tell.
    fn skip_hole(&mut self) -> io::Result<Option<u64>> {
        let begin = self.at;
        match seek(&self.fd, SeekFrom::Data(begin)) {
            Ok(data) => {
                self.at = data.max(begin);
                self.data_end = match seek(&self.fd, SeekFrom::Hole(self.at)) {
                    Ok(end) => Some(end),
                    Err(Errno::NXIO) => Some(self.at), // cut short just now
                    Err(errno) => return Err(errno.into()),
                };
            }
            // No data from here on: a hole up to the end, or the end.
            Err(Errno::NXIO) => self.at = seek(&self.fd, SeekFrom::End(0))?.max(begin),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => self.data_end = None,
            Err(errno) => return Err(errno.into()),
        }
        let bytes = self.at - begin;
        if bytes == 0 {
            return Ok(None);
        }
        if let Some(last) = self.holes.last_mut().filter(|last| last.offset + last.bytes == begin) {
            last.bytes += bytes;
        } else if self.holes.len() < HOLES_MAX {
            // Those beyond are skipped when reading all the same, and restored as zeros.
            self.holes.push(Hole { offset: begin, bytes });
        }
        Ok(Some(bytes))
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt, symlink};
    use std::path::Path;

    use super::super::dir::Access;
    use super::*;
    use crate::path::TreePath;

    struct Scene {
        temporary: tempfile::TempDir,
        dir: Dir,
    }

    impl Scene {
        fn new() -> Self {
            let temporary = tempfile::tempdir().unwrap();
            let mut dir = Dir::open_top(Access::Pass).unwrap();
            for name in TreePath::from_os(&temporary.path().canonicalize().unwrap()).unwrap().components() {
                dir = dir.open_child(&name, Access::Pass).unwrap();
            }
            Self { temporary, dir }
        }

        fn path(&self) -> &Path {
            self.temporary.path()
        }

        fn listed(&self) -> Stat {
            Stat::at(&self.dir, &f()).unwrap()
        }

        fn open(&self, listed: &Stat) -> Result<OpenFile, FileProblem> {
            open_file(&self.dir, &f(), listed)
        }
    }

    fn f() -> Name {
        Name::new(*b"f").unwrap()
    }

    /// The whole content, holes filled in, and the segments' kinds.
    fn read(file: &mut OpenFile) -> (Vec<u8>, String) {
        let (mut content, mut kinds) = (Vec::new(), String::new());
        let mut buf = vec![0xee; 10_000];
        loop {
            match file.next(&mut buf).unwrap() {
                Segment::Data(n) => {
                    assert!(n > 0);
                    content.extend_from_slice(&buf[..n]);
                    kinds.push('d');
                }
                Segment::Hole(n) => {
                    assert!(n > 0);
                    content.resize(content.len() + usize::try_from(n).unwrap(), 0);
                    kinds.push('h');
                }
                Segment::End => {
                    assert_eq!(file.position(), content.len() as u64);
                    return (content, kinds);
                }
            }
        }
    }

    fn hole(offset: u64, bytes: u64) -> Hole {
        Hole { offset, bytes }
    }

    #[test]
    fn a_file_is_read_to_its_end() {
        let scene = Scene::new();
        for content in [vec![], vec![1], vec![9; 10_000], (0..700_000_u32).map(|i| (i % 251) as u8).collect()] {
            fs::write(scene.path().join("f"), &content).unwrap();
            let listed = scene.listed();
            let mut file = scene.open(&listed).unwrap();
            assert_eq!(read(&mut file).0, content);
            assert!(file.holes().is_empty());
            assert!(file.finish().unwrap().same_content(&listed));
        }
    }

    #[test]
    fn holes_are_exact() {
        const K: u64 = 64 << 10;
        let scene = Scene::new();
        // Runs of data, and holes; all in units of 64 KiB, which file systems can tell apart.
        type Runs = &'static [(u64, u64)];
        let (size, table): (u64, [(Runs, Runs); 6]) = (
            16,
            [
                (&[], &[(0, 16)]),
                (&[(0, 1)], &[(1, 15)]),
                (&[(15, 1)], &[(0, 15)]),
                (&[(3, 2), (8, 1)], &[(0, 3), (5, 3), (9, 7)]),
                (&[(0, 4), (12, 4)], &[(4, 8)]),
                (&[(0, 16)], &[]),
            ],
        );
        for (data, holes) in table {
            let file = File::create(scene.path().join("f")).unwrap();
            let mut expected = vec![0; usize::try_from(size * K).unwrap()];
            for &(at, len) in data {
                let (at, len) = (usize::try_from(at * K).unwrap(), usize::try_from(len * K).unwrap());
                expected[at..at + len].fill(0xab);
                file.write_all_at(&expected[at..at + len], at as u64).unwrap();
            }
            file.set_len(size * K).unwrap();
            let mut opened = scene.open(&scene.listed()).unwrap();
            let (content, kinds) = read(&mut opened);
            assert!(content == expected, "{data:?}: content differs");
            let expected: Vec<Hole> = holes.iter().map(|(at, len)| hole(at * K, len * K)).collect();
            assert_eq!(opened.holes(), expected, "{data:?}");
            assert_eq!(kinds.matches('h').count(), holes.len());
        }
        // A hole that ends with the file, not with a block.
        let file = File::create(scene.path().join("f")).unwrap();
        file.write_all_at(&[1; 100], 0).unwrap();
        file.set_len(10 * K + 5).unwrap();
        let mut opened = scene.open(&scene.listed()).unwrap();
        assert_eq!(read(&mut opened).0.len() as u64, 10 * K + 5);
        let [last] = opened.holes() else { panic!("{:?}", opened.holes()) };
        assert!(last.offset <= K && last.offset + last.bytes == 10 * K + 5, "{last:?}");
    }

    #[test]
    fn a_terabyte_of_nothing_takes_no_time() {
        let scene = Scene::new();
        File::create(scene.path().join("f")).unwrap().set_len(1 << 40).unwrap();
        let mut file = scene.open(&scene.listed()).unwrap();
        let mut buf = [0; 16];
        assert_eq!(file.next(&mut buf).unwrap(), Segment::Hole(1 << 40));
        assert_eq!(file.next(&mut buf).unwrap(), Segment::End);
        assert_eq!(file.holes(), [hole(0, 1 << 40)]);
    }

    #[test]
    fn a_change_after_listing_shows() {
        let scene = Scene::new();
        let path = scene.path().join("f");
        for (change, expected) in [(b"longer than before".to_vec(), "longer than before"), (b"cut".to_vec(), "cut")] {
            fs::write(&path, "as listed").unwrap();
            let listed = scene.listed();
            fs::write(&path, &change).unwrap();
            let mut file = scene.open(&listed).unwrap();
            assert_eq!(read(&mut file).0, expected.as_bytes());
            assert!(!file.stat().same_content(&listed));
            assert!(!file.finish().unwrap().same_content(&listed));
        }
    }

    #[test]
    fn a_change_while_reading_shows() {
        let scene = Scene::new();
        let path = scene.path().join("f");
        for (len, after) in [(30_000, 12_000), (30_000, 40_000)] {
            fs::write(&path, vec![1; len]).unwrap();
            let mut file = scene.open(&scene.listed()).unwrap();
            let before = file.stat().clone();
            assert_eq!(file.next(&mut [0; 10_000]).unwrap(), Segment::Data(10_000));
            File::options().write(true).open(&path).unwrap().set_len(after).unwrap();
            assert_eq!(read_rest(&mut file), after - 10_000);
            assert!(!file.finish().unwrap().same_content(&before));
        }
        // A sparse one that loses its end.
        let sparse = File::create(&path).unwrap();
        sparse.write_all_at(&[1; 100_000], 1 << 20).unwrap();
        sparse.set_len(4 << 20).unwrap();
        let mut file = scene.open(&scene.listed()).unwrap();
        assert_eq!(file.next(&mut [0; 100]).unwrap(), Segment::Hole(1 << 20));
        sparse.set_len((1 << 20) + 7).unwrap();
        assert_eq!(read_rest(&mut file), 7);
        assert_eq!(file.holes(), [hole(0, 1 << 20)]);
    }

    fn read_rest(file: &mut OpenFile) -> u64 {
        let begin = file.position();
        while file.next(&mut [0; 4096]).unwrap() != Segment::End {}
        file.position() - begin
    }

    #[test]
    fn a_file_that_vanished_or_was_replaced_is_told_and_never_waited_for() {
        let scene = Scene::new();
        let path = scene.path().join("f");
        fs::write(&path, "x").unwrap();
        let listed = scene.listed();
        fs::remove_file(&path).unwrap();
        assert!(matches!(scene.open(&listed), Err(FileProblem::Vanished)));
        let replaced = || assert!(matches!(scene.open(&listed), Err(FileProblem::Replaced)));

        // Opening a pipe without a writer would wait for ever.
        rustix::fs::mknodat(&scene.dir, "f", rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        replaced();
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        replaced();
        fs::remove_file(&path).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        replaced();
        drop(socket);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        replaced();
        fs::remove_dir(&path).unwrap();
        // Another file: a new one may get the old inode number, so one that was there before.
        fs::write(&path, "x").unwrap();
        let listed = scene.listed();
        fs::write(scene.path().join("other"), "y").unwrap();
        rustix::fs::rename(scene.path().join("other"), &path).unwrap();
        assert!(matches!(scene.open(&listed), Err(FileProblem::Replaced)));
    }

    #[test]
    fn a_leased_file_is_opened_by_waiting() {
        let scene = Scene::new();
        fs::write(scene.path().join("f"), "leased").unwrap();
        let fd = open_leased(&scene.dir, &f()).unwrap();
        assert!(Stat::of(&fd).unwrap().same_content(&scene.listed()));
        fs::remove_file(scene.path().join("f")).unwrap();
        rustix::fs::mknodat(&scene.dir, "f", rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(open_leased(&scene.dir, &f()), Err(FileProblem::Replaced)));
    }

    /// Reading for a backup must not look like use.
    #[test]
    fn the_access_time_stays() {
        let scene = Scene::new();
        let path = scene.path().join("f");
        fs::write(&path, "x").unwrap();
        let old = std::fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH);
        File::options().write(true).open(&path).unwrap().set_times(old).unwrap();
        let mut file = scene.open(&scene.listed()).unwrap();
        read(&mut file);
        assert_eq!(fs::metadata(&path).unwrap().accessed().unwrap(), std::time::UNIX_EPOCH);
    }
}
