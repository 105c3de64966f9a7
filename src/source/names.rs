//! The names of one directory in order, in bounded memory.
//!
//! Names come as the file system likes and are wanted sorted. Those of most directories are sorted
//! where they are. Of a directory with more of them, each run of as many as memory may hold is
//! sorted and goes to a file without a name, and the runs are merged while the walk takes the
//! names, a batch at a time: for each run there is then one name and a buffer in memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::index::{UnnamedWriter, unnamed_files};
use crate::path::{NAME_BYTES_MAX, Name};

/// Memory that the names of one run may take: about a quarter of a million ordinary ones.
pub(super) const RUN_BYTES: usize = 16 << 20;

/// What a name takes beside its bytes.
const NAME_BYTES_BESIDE: usize = 40;

/// How much of a run is read at once.
const READ_BYTES: usize = 32 << 10;

/// Gathers names.
pub(super) struct NamesWriter {
    names: Vec<Name>,
    bytes: usize,
    bytes_max: usize,
    runs: Vec<Run>,
    spill: UnnamedWriter,
    /// For messages.
    dir: PathBuf,
}

impl NamesWriter {
    /// No names yet. Runs of `bytes_max` go to a file in `dir` or, where that cannot be written to,
    /// elsewhere.
    pub(super) fn new(dir: &Path, bytes_max: usize) -> Self {
        Self::with_files(dir, bytes_max, unnamed_files(dir))
    }

    fn with_files(
        dir: &Path,
        bytes_max: usize,
        files: impl Iterator<Item = io::Result<File>> + Send + Sync + 'static,
    ) -> Self {
        let spill = UnnamedWriter::new(files);
        Self { names: Vec::new(), bytes: 0, bytes_max, runs: Vec::new(), spill, dir: dir.into() }
    }

    /// Takes a name. After an error this is of no more use.
    pub(super) fn push(&mut self, name: Name) -> io::Result<()> {
        let bytes = name.as_bytes().len() + NAME_BYTES_BESIDE;
        if self.bytes + bytes > self.bytes_max {
            self.close_run()?;
        }
        self.bytes += bytes;
        self.names.push(name);
        Ok(())
    }

    /// All of them, in order.
    pub(super) fn finish(mut self) -> io::Result<Names> {
        if self.runs.is_empty() {
            self.names.sort_unstable();
            // A directory that changes while it is read may give a name twice.
            self.names.dedup();
            return Ok(Names { kept: self.names.into_iter(), ..Names::default() });
        }
        self.close_run()?;
        let heads = BinaryHeap::with_capacity(self.runs.len());
        let mut names = Names { runs: self.runs, heads, ..Names::default() };
        (0..names.runs.len()).try_for_each(|run| names.advance(run))?;
        Ok(names)
    }

    fn close_run(&mut self) -> io::Result<()> {
        self.names.sort_unstable();
        let mut bytes = Vec::with_capacity(self.names.iter().map(|name| 2 + name.as_bytes().len()).sum());
        for name in self.names.drain(..) {
            let length = u16::try_from(name.as_bytes().len()).expect("a name is shorter than 2^16");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        self.bytes = 0;
        let (file, at) = self.spill.append(&bytes).map_err(|error| about("write", &self.dir, &error))?;
        let (dir, end) = (self.dir.clone(), at + bytes.len() as u64);
        self.runs.push(Run { file, dir, at, end, buffer: Vec::new(), taken: 0 });
        Ok(())
    }
}

fn about(action: &str, dir: &Path, error: &io::Error) -> io::Error {
    let what = format!("cannot {action} a temporary file for its names in `{}`: {error}", dir.display());
    io::Error::new(error.kind(), what)
}

/// A sorted run in a file.
struct Run {
    file: Arc<File>,
    /// For messages.
    dir: PathBuf,
    /// What has not been read yet.
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    taken: usize,
}

impl Run {
    fn next(&mut self) -> io::Result<Option<Name>> {
        if self.at == self.end && self.taken == self.buffer.len() {
            return Ok(None);
        }
        let length = u16::from_le_bytes(*self.take(2)?.first_chunk().expect("two were asked for"));
        let name = Name::new(self.take(usize::from(length).min(NAME_BYTES_MAX))?);
        let wrong = |error| about("read", &self.dir, &io::Error::new(io::ErrorKind::InvalidData, error));
        name.map(Some).map_err(wrong)
    }

    /// The next `count` bytes.
    fn take(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.taken < count {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            let old = self.buffer.len();
            self.buffer.resize(old + left.min(READ_BYTES), 0);
            let read = self.file.read_exact_at(&mut self.buffer[old..], self.at);
            read.map_err(|error| about("read", &self.dir, &error))?;
            self.at += (self.buffer.len() - old) as u64;
        }
        let start = self.taken;
        self.taken += count;
        let cut_short = || about("read", &self.dir, &io::ErrorKind::UnexpectedEof.into());
        self.buffer.get(start..self.taken).ok_or_else(cut_short)
    }
}

/// Sorted names, each of which comes once.
#[derive(Default)]
pub(super) struct Names {
    /// Those that never left memory: all or none.
    kept: std::vec::IntoIter<Name>,
    runs: Vec<Run>,
    /// The next name of each run.
    heads: BinaryHeap<Reverse<(Name, usize)>>,
    /// The last name that came from a run.
    last: Option<Name>,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Names({} in memory, {} runs)", self.in_memory(), self.runs.len())
    }
}

impl Names {
    /// Only this one.
    pub(super) fn one(name: Name) -> Self {
        Self { kept: vec![name].into_iter(), ..Self::default() }
    }

    /// How many are in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.kept.len() + self.heads.len()
    }

    /// Whether none is left.
    pub(super) fn is_empty(&self) -> bool {
        self.in_memory() == 0
    }

    /// The next names, at most `count`. With an error come those before it, and none after it.
    pub(super) fn take(&mut self, count: usize) -> (Vec<Name>, Option<io::Error>) {
        let mut names = Vec::with_capacity(count.min(self.in_memory()));
        while names.len() < count {
            match self.next() {
                Ok(Some(name)) => names.push(name),
                Ok(None) => break,
                Err(error) => {
                    *self = Self::default();
                    return (names, Some(error));
                }
            }
        }
        (names, None)
    }

    fn next(&mut self) -> io::Result<Option<Name>> {
        while let Some(Reverse((name, run))) = self.heads.pop() {
            self.advance(run)?;
            if self.last.as_ref() != Some(&name) {
                self.last = Some(name.clone());
                return Ok(Some(name));
            }
        }
        Ok(self.kept.next())
    }

    /// Puts the next name of a run among the heads.
    fn advance(&mut self, run: usize) -> io::Result<()> {
        self.heads.extend(self.runs[run].next()?.map(|name| Reverse((name, run))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(n: u32) -> Name {
        Name::new(format!("{:x}", n.wrapping_mul(2_654_435_761)).into_bytes()).unwrap()
    }

    fn filled(mut writer: NamesWriter, names: impl IntoIterator<Item = Name>) -> io::Result<Names> {
        names.into_iter().try_for_each(|name| writer.push(name))?;
        writer.finish()
    }

    fn sorted(names: impl IntoIterator<Item = Name>) -> Vec<Name> {
        names.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    proptest! {
        #[test]
        fn names_come_in_order_and_once_whatever_was_spilled(
            names in prop::collection::vec(prop::collection::vec(97..123_u8, 1..4), 0..300),
            bytes_max in 41..2000_usize,
            at_once in 1..50_usize,
        ) {
            let names: Vec<Name> = names.into_iter().map(|name| Name::new(name).unwrap()).collect();
            let mut found = filled(NamesWriter::new(&std::env::temp_dir(), bytes_max), names.clone()).unwrap();
            let mut taken = Vec::new();
            while !found.is_empty() {
                let (names, error) = found.take(at_once);
                prop_assert!(error.is_none());
                taken.extend(names);
            }
            prop_assert_eq!(taken, sorted(names));
        }
    }

    #[test]
    fn a_hundred_thousand_names_are_never_in_memory_at_once_and_leave_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = NamesWriter::new(dir.path(), 50_000);
        for n in 0..100_000 {
            writer.push(name(n)).unwrap();
            assert!(writer.bytes <= 50_000 && writer.names.len() <= 1250);
        }
        let mut names = writer.finish().unwrap();
        assert!(names.in_memory() <= 110, "{names:?}");
        let (taken, error) = names.take(usize::MAX);
        assert!(error.is_none());
        assert_eq!(taken, sorted((0..100_000).map(name)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// The device that is always full.
    fn full() -> io::Result<File> {
        File::options().read(true).write(true).open("/dev/full")
    }

    #[test]
    fn a_full_disk_sends_the_names_elsewhere_and_full_disks_everywhere_are_an_error() {
        let dir = Path::new("/the/cache");
        let elsewhere = [full(), Err(io::ErrorKind::PermissionDenied.into()), tempfile::tempfile()];
        let mut names = filled(NamesWriter::with_files(dir, 500, elsewhere.into_iter()), (0..100).map(name)).unwrap();
        assert_eq!(names.take(usize::MAX).0, sorted((0..100).map(name)));

        let error = filled(NamesWriter::with_files(dir, 500, [full()].into_iter()), (0..100).map(name)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("`/the/cache`"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_back_is_an_error_after_the_names_before_it() {
        let file = tempfile::tempfile().unwrap();
        let again = file.try_clone().unwrap();
        let writer = NamesWriter::with_files(Path::new("/tmp"), 2 << 20, [Ok(file)].into_iter());
        let mut names = filled(writer, (0..100_000).map(name)).unwrap();
        again.set_len(READ_BYTES as u64 + 100).unwrap();
        let (taken, error) = names.take(usize::MAX);
        assert!(error.is_some_and(|error| error.to_string().contains("/tmp")));
        let all = sorted((0..100_000).map(name));
        assert!(taken.len() < 100_000 && all.starts_with(&taken));
        assert!(names.is_empty() && names.take(1).0.is_empty());
    }
}
