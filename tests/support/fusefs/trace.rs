//! What a mounted file system was asked to change, in order, and what of it a kill or a loss of
//! power leaves.
//!
//! A command runs once. From its trace the directory is made as it was after each change, so a
//! stop is exact to the single write, and no stop needs a run of its own.
//!
//! Durable is what POSIX promises and no more: bytes of a file that was synced after they were
//! written, an entry of a directory that was synced after it was made, a renamed file where it
//! was moved to once that directory is synced. Of everything else a loss of power keeps what a
//! test says: nothing, or any part, later changes without earlier ones too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Stands for a file or directory. An inode number may come again after it was free; this does not.
pub(crate) type Number = u64;

/// The directory that is mounted.
const TOP: Number = 0;

/// A name in a directory.
pub(crate) type Entry = (Number, OsString);

#[derive(Debug, Clone)]
pub(crate) enum Change {
    MakeDirectory {
        at: Entry,
        number: Number,
    },
    /// An empty file, or one more name of a file.
    MakeFile {
        at: Entry,
        number: Number,
    },
    Rename {
        from: Entry,
        to: Entry,
        number: Number,
    },
    Remove {
        at: Entry,
    },
    Write {
        file: Number,
        offset: u64,
        bytes: Vec<u8>,
    },
    Cut {
        file: Number,
        length: u64,
    },
    /// Of a file or a directory.
    Sync {
        number: Number,
    },
}

impl Change {
    /// Whose sync makes it durable.
    fn rests_on(&self) -> Option<Number> {
        match self {
            Self::MakeDirectory { at, .. } | Self::MakeFile { at, .. } | Self::Remove { at } => Some(at.0),
            Self::Rename { to, .. } => Some(to.0),
            Self::Write { file, .. } | Self::Cut { file, .. } => Some(*file),
            Self::Sync { .. } => None,
        }
    }
}

#[derive(Debug, Clone)]
enum Node {
    Directory(BTreeMap<OsString, Number>),
    File(Vec<u8>),
}

/// What is on a disk. What no entry leads to is not seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    nodes: BTreeMap<Number, Node>,
}

impl Disk {
    /// What is in a directory. Tells which inode got which number.
    fn read(top: &Path) -> (Self, HashMap<u64, Number>) {
        let mut disk = Self::default();
        let mut numbers = HashMap::from([(fs::metadata(top).unwrap().ino(), TOP)]);
        let mut open = vec![(top.to_owned(), TOP)];
        while let Some((directory, number)) = open.pop() {
            let mut entries = BTreeMap::new();
            for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
                let metadata = entry.metadata().unwrap();
                let free = numbers.len() as Number;
                let number = *numbers.entry(metadata.ino()).or_insert(free);
                if metadata.is_dir() {
                    open.push((entry.path(), number));
                } else {
                    disk.nodes.insert(number, Node::File(fs::read(entry.path()).unwrap()));
                }
                entries.insert(entry.file_name(), number);
            }
            disk.nodes.insert(number, Node::Directory(entries));
        }
        (disk, numbers)
    }

    /// What is in a directory.
    pub(crate) fn of(top: &Path) -> Self {
        Self::read(top).0
    }

    fn entries(&mut self, directory: Number) -> &mut BTreeMap<OsString, Number> {
        match self.nodes.get_mut(&directory) {
            Some(Node::Directory(entries)) => entries,
            other => panic!("{directory} is no directory: {other:?}"),
        }
    }

    fn bytes(&mut self, file: Number) -> &mut Vec<u8> {
        match self.nodes.get_mut(&file) {
            Some(Node::File(bytes)) => bytes,
            other => panic!("{file} is no file: {other:?}"),
        }
    }

    /// Makes the nodes that come to be in the trace: a change that outlives the making of its file
    /// has a place to go.
    fn prepare(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::MakeDirectory { number, .. } => {
                    self.nodes.entry(*number).or_insert_with(|| Node::Directory(BTreeMap::new()));
                }
                Change::MakeFile { number, .. } => {
                    self.nodes.entry(*number).or_insert_with(|| Node::File(Vec::new()));
                }
                _ => {}
            }
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::MakeDirectory { at, number } | Change::MakeFile { at, number } => {
                self.entries(at.0).insert(at.1.clone(), *number);
            }
            Change::Rename { from, to, number } => {
                // What it replaces goes; its old name goes with it, if it was still its own.
                self.entries(to.0).insert(to.1.clone(), *number);
                let left = self.entries(from.0);
                if from != to && left.get(&from.1) == Some(number) {
                    left.remove(&from.1);
                }
            }
            Change::Remove { at } => drop(self.entries(at.0).remove(&at.1)),
            Change::Write { file, offset, bytes } => {
                let offset = usize::try_from(*offset).unwrap();
                let content = self.bytes(*file);
                content.resize(content.len().max(offset + bytes.len()), 0);
                content[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Change::Cut { file, length } => self.bytes(*file).resize(usize::try_from(*length).unwrap(), 0),
            Change::Sync { .. } => {}
        }
    }

    /// Everything that is seen, directories with `None`, by path.
    pub(crate) fn listing(&self) -> BTreeMap<PathBuf, Option<&[u8]>> {
        let mut found = BTreeMap::new();
        let mut open = vec![(PathBuf::new(), TOP)];
        while let Some((path, number)) = open.pop() {
            match self.nodes.get(&number) {
                Some(Node::Directory(entries)) => {
                    open.extend(entries.iter().map(|(name, number)| (path.join(name), *number)));
                    found.insert(path, None);
                }
                Some(Node::File(bytes)) => drop(found.insert(path, Some(&**bytes))),
                None => panic!("`{}` leads to nothing", path.display()),
            }
        }
        found
    }

    /// Tells two disks apart that do not hold the same.
    pub(crate) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for (path, bytes) in self.listing() {
            let path = path.as_os_str().as_bytes();
            for part in [path, bytes.unwrap_or_default()] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
            }
            hasher.update(&[u8::from(bytes.is_some())]);
        }
        hasher.finalize()
    }

    /// Makes a directory that holds the same, in place of what is there.
    pub(crate) fn write_to(&self, top: &Path) {
        match fs::remove_dir_all(top) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        for (path, bytes) in self.listing() {
            let path = top.join(path);
            let Some(bytes) = bytes else {
                fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
                continue;
            };
            let file = fs::File::options().write(true).create_new(true).mode(0o600).open(&path).unwrap();
            // A database of a megabyte is nothing but zeros at first.
            file.set_len(bytes.len() as u64).unwrap();
            for (n, block) in bytes.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|&byte| byte != 0)) {
                file.write_all_at(block, n as u64 * 4096).unwrap();
            }
        }
    }
}

/// What happens at a stop to the changes made before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The program was killed: they all stay.
    Kill,
    /// The same, and of the change that was being made half is there.
    KillTears,
    /// The power went: what was not durable is gone.
    PowerLoss,
    /// The same, but names are kept: files are there, and empty or as they were.
    PowerLossKeepsNames,
    /// The same, but what is below these entries of the mounted directory is on another disk, and kept.
    PowerLossSpares(&'static [&'static str]),
    /// The same, but some of it is kept: which, a seed says.
    PowerLossKeepsSome(u64),
}

/// A run's changes, in order, and what they began from.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    base: Disk,
    pub(crate) changes: Vec<Change>,
    /// Below which entry of the mounted directory each file or directory was made.
    below: HashMap<Number, OsString>,
}

impl Trace {
    fn begin(top: &Path) -> (Self, HashMap<u64, Number>) {
        let (base, numbers) = Disk::read(top);
        let mut below = HashMap::new();
        let mut open = vec![(TOP, None::<OsString>)];
        while let Some((number, of)) = open.pop() {
            if let Some(Node::Directory(entries)) = base.nodes.get(&number) {
                open.extend(entries.iter().map(|(name, number)| (*number, of.clone().or(Some(name.clone())))));
            }
            below.extend(of.map(|of| (number, of)));
        }
        (Self { base, changes: Vec::new(), below }, numbers)
    }

    fn add(&mut self, change: Change) {
        if let Change::MakeDirectory { at, number } | Change::MakeFile { at, number } = &change {
            let below = self.below.get(&at.0).unwrap_or(&at.1).clone();
            self.below.entry(*number).or_insert(below);
        }
        self.changes.push(change);
    }

    fn is_below(&self, change: &Change, entry: &str) -> bool {
        let number = match change {
            Change::MakeDirectory { number, .. } | Change::MakeFile { number, .. } | Change::Rename { number, .. } => {
                *number
            }
            Change::Remove { at } if at.0 == TOP => return at.1 == entry,
            Change::Remove { at } => at.0,
            Change::Write { file: number, .. } | Change::Cut { file: number, .. } | Change::Sync { number } => *number,
        };
        self.below.get(&number).is_some_and(|below| below == entry)
    }

    /// Whether anything below this entry of the mounted directory was changed.
    pub(crate) fn changes_below(&self, entry: &str) -> bool {
        self.changes.iter().any(|change| !matches!(change, Change::Sync { .. }) && self.is_below(change, entry))
    }

    /// Whether an entry was removed whose name ends like this.
    pub(crate) fn removes(&self, end: &str) -> bool {
        let ends = |entry: &Entry| entry.1.as_bytes().ends_with(end.as_bytes());
        self.changes.iter().any(|change| matches!(change, Change::Remove { at } if ends(at)))
    }

    /// What a stop leaves after the first `made` changes.
    pub(crate) fn left_by(&self, made: usize, stop: Stop) -> Disk {
        let changes = &self.changes[..made];
        let mut disk = self.base.clone();
        disk.prepare(changes);
        let durable = durable(changes);
        for (n, change) in changes.iter().enumerate() {
            let kept = durable[n]
                || match stop {
                    Stop::Kill | Stop::KillTears => true,
                    Stop::PowerLoss => false,
                    Stop::PowerLossKeepsNames => !matches!(change, Change::Write { .. } | Change::Cut { .. }),
                    Stop::PowerLossSpares(entries) => entries.iter().any(|entry| self.is_below(change, entry)),
                    Stop::PowerLossKeepsSome(seed) => some(seed, made, n),
                };
            if kept {
                disk.apply(change);
            }
        }
        if let (Stop::KillTears, Some(Change::Write { file, offset, bytes })) = (stop, self.changes.get(made)) {
            let bytes = bytes[..bytes.len() / 2].to_vec();
            disk.apply(&Change::Write { file: *file, offset: *offset, bytes });
        }
        disk
    }
}

/// Which of the changes nothing can undo any more.
fn durable(changes: &[Change]) -> Vec<bool> {
    let mut synced = BTreeSet::new();
    let mut durable: Vec<_> = (changes.iter().rev())
        .map(|change| {
            if let Change::Sync { number } = change {
                synced.insert(*number);
            }
            change.rests_on().is_none_or(|number| synced.contains(&number))
        })
        .collect();
    durable.reverse();
    durable
}

/// One half of the numbers, another for each seed and stop.
fn some(seed: u64, made: usize, n: usize) -> bool {
    let bytes = [seed, made as u64, n as u64].map(u64::to_le_bytes).concat();
    blake3::hash(&bytes).as_bytes()[0].is_multiple_of(2)
}

/// Gathers a trace while the file system is in use.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<Option<Recording>>);

#[derive(Debug)]
struct Recording {
    trace: Trace,
    numbers: HashMap<u64, Number>,
    next: Number,
}

impl Recorder {
    pub(super) fn begin(&self, top: &Path) {
        let (trace, numbers) = Trace::begin(top);
        let next = numbers.len() as Number;
        *self.lock() = Some(Recording { trace, numbers, next });
    }

    /// The trace so far. It ends where what is there now is.
    pub(super) fn end(&self, top: &Path) -> Trace {
        let trace = self.lock().take().expect("a trace was begun").trace;
        let (there, _) = Disk::read(top);
        let left = trace.left_by(trace.changes.len(), Stop::Kill);
        assert_eq!(left.digest(), there.digest(), "the trace does not tell all:\n{:?}", differences(&left, &there));
        trace
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Recording>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a change that was just made; `change` gets what gives the number of an inode.
    pub(super) fn note(&self, change: impl FnOnce(&dyn Fn(u64) -> Number) -> Change) {
        if let Some(recording) = &mut *self.lock() {
            let numbers = &recording.numbers;
            recording.trace.add(change(&|inode| numbers[&inode]));
        }
    }

    /// The same for one that made this inode.
    pub(super) fn note_new(&self, inode: u64, change: impl FnOnce(&dyn Fn(u64) -> Number, Number) -> Change) {
        if let Some(recording) = &mut *self.lock() {
            let number = recording.next;
            recording.next += 1;
            recording.numbers.insert(inode, number);
            let numbers = &recording.numbers;
            recording.trace.add(change(&|inode| numbers[&inode], number));
        }
    }
}

fn differences(one: &Disk, other: &Disk) -> Vec<PathBuf> {
    let (one, other) = (one.listing(), other.listing());
    let paths: BTreeSet<_> = one.keys().chain(other.keys()).cloned().collect();
    paths.into_iter().filter(|path| one.get(path) != other.get(path)).collect()
}

/// Shared between the serving thread and the tests.
pub(super) type Shared = Arc<Recorder>;
