//! Is everything there, and is it what it should be?
//!
//! `objects` checks what stands on its own: key slots, statements, commits with their chains,
//! index segments, and that every pack is there in its length. `data` reads packs whole, when
//! asked to. `trees` walks every snapshot and says which files of which snapshots the
//! faults, and missing chunks, affect. A subtree found whole once is not walked again.

mod data;
mod objects;
mod trees;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::id::{ChunkId, DescriptionId, SessionId};
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::snapshots::{Filter, SnapshotInfo};

/// How much stored data to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReadData {
    /// None: structure only.
    No,
    /// Every stored byte.
    All,
    /// Packs whose number in a fixed order is `part` of `parts`, from 1.
    Part {
        /// Which part.
        part: u32,
        /// Of how many.
        parts: u32,
    },
    /// A random choice of packs of about this share of all bytes, in percent.
    Percent(f64),
    /// A random choice of packs of about this many bytes.
    Bytes(u64),
}

/// What to check.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much stored data to read.
    pub read_data: ReadData,
    /// Only what this snapshot needs.
    pub snapshot: Option<SessionId>,
    /// How many threads read.
    pub threads: usize,
}

/// A file or directory that a fault affects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Affected {
    /// The snapshot.
    pub snapshot: SessionId,
    /// The path in it.
    pub path: TreePath,
}

/// Something that is not as it should be.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The object, such as `packs/9f/9f3c…` or `chunk 1a2b…`.
    pub object: String,
    /// What is wrong with it.
    pub message: String,
    /// The first files it affects, in order.
    pub affected: Vec<Affected>,
    /// How many it affects in all.
    pub affected_total: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Everything that is wrong.
    pub faults: Vec<Fault>,
    /// Snapshots whose trees were walked.
    pub snapshots: u64,
    /// Packs that are known.
    pub packs: u64,
    /// Packs read whole.
    pub packs_read: u64,
    /// Stored bytes read of them.
    pub bytes_read: u64,
    /// What the index says of packs by writers that were read and found to be so, every id computed again.
    pub whole: BTreeSet<DescriptionId>,
    /// Packs and sessions that no snapshot needs, or that are not finished: not a fault.
    pub notes: Vec<String>,
}

/// Files named for one fault; the rest are counted.
const AFFECTED_NAMED_MAX: usize = 100;

/// Faults as they are found, one for each object or other key.
#[derive(Debug, Clone, Default)]
struct Faults {
    list: Vec<Fault>,
    by_key: BTreeMap<String, usize>,
    /// The path each fault was last said to affect: a file of many chunks counts once.
    last_affected: BTreeMap<usize, Affected>,
}

impl Faults {
    /// Notes a fault; the first message about an object stays.
    fn add(&mut self, object: &str, message: impl Into<String>) -> usize {
        self.add_once(object, object, message)
    }

    /// Notes a fault that goes by `key`: one stored thing can be at fault under any number of paths.
    fn add_once(&mut self, key: &str, object: &str, message: impl Into<String>) -> usize {
        if let Some(known) = self.by_key.get(key) {
            return *known;
        }
        let fault = Fault { object: object.to_owned(), message: message.into(), affected: vec![], affected_total: 0 };
        self.list.push(fault);
        self.by_key.insert(key.to_owned(), self.list.len() - 1);
        self.list.len() - 1
    }

    /// Notes that a fault affects a path; says whether that was not what it was noted to affect last.
    fn affects(&mut self, fault: usize, snapshot: SessionId, path: &TreePath) -> bool {
        let affected = Affected { snapshot, path: path.clone() };
        if self.last_affected.get(&fault) == Some(&affected) {
            return false;
        }
        self.affects_more(fault, 1);
        if !self.names_no_more(fault) {
            self.list[fault].affected.push(affected.clone());
        }
        self.last_affected.insert(fault, affected);
        true
    }

    /// Notes that a fault affects so many more paths, without naming them.
    fn affects_more(&mut self, fault: usize, count: u64) {
        let total = &mut self.list[fault].affected_total;
        *total = total.saturating_add(count);
    }

    /// Whether a fault has named as many paths as it names.
    fn names_no_more(&self, fault: usize) -> bool {
        self.list[fault].affected.len() >= AFFECTED_NAMED_MAX
    }
}

/// What is known to be bad before the trees are walked.
#[derive(Debug, Clone, Default, PartialEq)]
struct Bad {
    /// Packs that are missing or of the wrong length, with their fault.
    packs: BTreeMap<u32, usize>,
    /// Chunks in packs that did not open to their id, with their pack's fault.
    chunks: BTreeMap<(u32, ChunkId), usize>,
}

/// Checks a repository. Damage is in the report; an error means that the check was not done.
pub fn run(reader: &Reader<'_>, options: &Options, monitor: &Monitor) -> Result<Report> {
    let mut faults = Faults::default();
    let mut bad = Bad::default();
    let mut report = Report::default();
    objects::check(reader, &mut faults, &mut bad, &mut report)?;
    let (snapshots, unreadable) = reader.snapshots(&Filter::default())?;
    for (session, error) in unreadable {
        faults.add(&format!("snapshots/{session}"), error.with_causes());
    }
    let chosen: Vec<_> = snapshots.iter().filter(|info| options.snapshot.is_none_or(|id| id == info.id())).collect();
    if options.read_data == ReadData::No {
        trees::check(reader, &chosen, monitor, &mut faults, &bad)?;
    } else {
        read_data(reader, options, &chosen, monitor, (&mut faults, &mut bad), &mut report)?;
    }
    report.snapshots = chosen.len() as u64;
    report.faults = faults.list;
    Ok(report)
}

/// Reads packs, and walks the trees beside that with what is known to be bad before. Only if the
/// packs have more damage are the trees walked again, to say what that affects.
fn read_data(
    reader: &Reader<'_>,
    options: &Options,
    chosen: &[&SnapshotInfo],
    monitor: &Monitor,
    (faults, bad): (&mut Faults, &mut Bad),
    report: &mut Report,
) -> Result<()> {
    let wanted = match options.snapshot {
        Some(_) => Some(trees::packs_of(reader, chosen, monitor)?),
        None => None,
    };
    let (mut early, known, count) = (faults.clone(), bad.clone(), faults.list.len());
    std::thread::scope(|scope| {
        let walked = scope.spawn(|| trees::check(reader, chosen, monitor, &mut early, &known));
        let read = data::check(reader, options, wanted.as_ref(), monitor, faults, bad, report);
        let walked = walked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        read.and(walked)
    })?;
    if *bad == known && faults.list.len() == count {
        *faults = early;
        return Ok(());
    }
    trees::check(reader, chosen, monitor, faults, bad)
}
