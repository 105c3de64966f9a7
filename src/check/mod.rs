//! Is everything there, and is it what it should be?
//!
//! `objects` checks what stands on its own: key slots, statements, commits with their chains,
//! index segments, and that every pack is there in its length. `data` reads packs whole, when
//! asked to. `trees` walks every snapshot and says which files of which snapshots the
//! faults, and missing chunks, affect: just those that a restore cannot bring back. A subtree found
//! whole once is not walked again.

mod data;
mod objects;
mod trees;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::id::{ChunkId, DescriptionId, PackId, SessionId};
use crate::index::ChunkRow;
use crate::monitor::{Monitor, Severity};
use crate::path::TreePath;
use crate::repo::commits::SNAPSHOTS;
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
    /// The same of all packs that were read, whoever wrote them.
    pub verified: BTreeSet<DescriptionId>,
    /// Packs that were read and whose bytes have the hash that is their name, whatever else is wrong with them.
    pub hashed: BTreeSet<PackId>,
    /// Chunks that were read and do not open to their ids, by pack; of packs nothing is known to be right of.
    pub damaged: BTreeMap<PackId, BTreeSet<ChunkId>>,
    /// Packs and sessions that no snapshot needs, or that are not finished: not a fault.
    pub notes: Vec<String>,
}

/// How often it is looked again when there are faults, and others commit or collect meanwhile.
const LOOKS_MAX: usize = 5;

/// Files named for one fault by [`run`]; the rest are counted.
const AFFECTED_NAMED_MAX: usize = 100;

/// Faults as they are found, one for each object or other key.
#[derive(Debug, Clone, Default)]
struct Faults {
    list: Vec<Fault>,
    by_key: BTreeMap<String, usize>,
    /// The path each fault was last said to affect: a file of many chunks counts once.
    last_affected: BTreeMap<usize, Affected>,
    /// The first chunk that is nowhere, and the fault of all such.
    lost: Option<(ChunkId, usize)>,
    affected_max: usize,
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

    /// Says more about a fault.
    fn add_to(&mut self, fault: usize, more: &str) {
        let message = &mut self.list[fault].message;
        if !message.ends_with(more) {
            message.push_str("; ");
            message.push_str(more);
        }
    }

    /// Notes that a commit is not what it should be, which affects all of its snapshot.
    fn add_commit(&mut self, session: SessionId, message: impl Into<String>) -> usize {
        let object = format!("{SNAPSHOTS}{session}");
        let is_new = !self.by_key.contains_key(&object);
        let fault = self.add(&object, message);
        if is_new {
            self.affects(fault, session, &TreePath::root());
        }
        fault
    }

    /// Whether something is wrong with the commit of a session.
    fn has_commit(&self, session: &SessionId) -> bool {
        self.by_key.contains_key(&format!("{SNAPSHOTS}{session}"))
    }

    /// Notes that a chunk is nowhere. All of them are one fault: with a lost index they may be millions.
    fn lost(&mut self, id: &ChunkId) -> usize {
        let Some((first, fault)) = self.lost else {
            let fault = self.add(&format!("chunk {id}"), "it is in no pack");
            self.lost = Some((*id, fault));
            return fault;
        };
        if first != *id {
            "it and others are in no pack".clone_into(&mut self.list[fault].message);
        }
        fault
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
        self.list[fault].affected.len() >= self.affected_max
    }
}

/// What is known to be bad before the trees are walked.
#[derive(Debug, Clone, Default, PartialEq)]
struct Bad {
    /// Packs that are missing or of another length: how many bytes of theirs are there, and their fault.
    packs: BTreeMap<u32, (u64, usize)>,
    /// Chunks that did not open to their id, by pack and frame, with their pack's fault.
    chunks: BTreeMap<(u32, u32, ChunkId), usize>,
}

impl Bad {
    /// The fault by which a copy of a chunk is of no use.
    fn fault_of(&self, row: &ChunkRow) -> Option<usize> {
        let end = u64::from(row.frame_offset) + u64::from(row.frame_sealed);
        let cut_off = self.packs.get(&row.pack).filter(|(bytes, _)| *bytes < end).map(|(_, fault)| *fault);
        cut_off.or_else(|| self.chunks.get(&(row.pack, row.frame, row.id)).copied())
    }
}

/// Which packs are read.
enum Choice<'a> {
    /// Those that the options say.
    ByOptions,
    /// These, in this order, until it is enough.
    These { packs: &'a [PackId], enough: &'a (dyn Fn() -> bool + Sync) },
}

/// Checks a repository. Damage is in the report; an error means that the check was not done.
pub fn run(reader: &Reader<'_>, options: &Options, monitor: &Monitor) -> Result<Report> {
    run_naming(AFFECTED_NAMED_MAX, reader, options, monitor)
}

/// The same, naming that many files for a fault. All of them take as much memory as there are.
pub fn run_naming(affected_max: usize, reader: &Reader<'_>, options: &Options, monitor: &Monitor) -> Result<Report> {
    let mut report = examine(affected_max, reader, options, &Choice::ByOptions, monitor)?;
    let (mut outrun, mut looks) = (!report.faults.is_empty() && reader.is_outrun()?, 1);
    while outrun && looks < LOOKS_MAX {
        let message =
            "others have committed or collected meanwhile, so what is missed may have been moved: looking again";
        monitor.problem(Severity::Note, "check", message);
        let again = Reader::without_cache(reader.repo())?;
        report = examine(affected_max, &again, options, &Choice::ByOptions, monitor)?;
        outrun = !report.faults.is_empty() && again.is_outrun()?;
        looks += 1;
    }
    Ok(report)
}

/// Checks the structure of a repository and reads these packs, in their order, until it is `enough`, which is
/// asked before each.
pub fn run_on(
    packs: &[PackId],
    enough: &(dyn Fn() -> bool + Sync),
    affected_max: usize,
    reader: &Reader<'_>,
    threads: usize,
    monitor: &Monitor,
) -> Result<Report> {
    let options = Options { read_data: ReadData::No, snapshot: None, threads };
    examine(affected_max, reader, &options, &Choice::These { packs, enough }, monitor)
}

fn examine(
    affected_max: usize,
    reader: &Reader<'_>,
    options: &Options,
    choice: &Choice<'_>,
    monitor: &Monitor,
) -> Result<Report> {
    let mut faults = Faults { affected_max, ..Faults::default() };
    let mut bad = Bad::default();
    let mut report = Report::default();
    let sessions = objects::check(reader, options.read_data, &mut faults, &mut bad, &mut report)?;
    let (snapshots, unreadable) = reader.snapshots(&Filter::default())?;
    for (session, error) in unreadable {
        faults.add_commit(session, error.innermost());
    }
    let chosen: Vec<_> = snapshots.iter().filter(|info| options.snapshot.is_none_or(|id| id == info.id())).collect();
    if options.read_data == ReadData::No && matches!(choice, Choice::ByOptions) {
        trees::check(reader, &chosen, monitor, &mut faults, &bad).map(drop)?;
    } else {
        read_data(reader, options, choice, &chosen, monitor, (&mut faults, &mut bad), &mut report)?;
    }
    sessions.name_lost_commits(reader, &mut faults, &mut report)?;
    report.snapshots = chosen.len() as u64;
    for (number, _, id) in bad.chunks.keys() {
        report.damaged.entry(reader.pack(*number)?.id).or_default().insert(*id);
    }
    // Of what one says of a pack some may be so and some not: then it is not the pack that is damaged.
    let is_whole = |pack: &PackId| {
        let said = reader.catalog().packs().iter().filter(|row| row.id == *pack);
        said.into_iter().any(|row| report.verified.contains(&row.description))
    };
    let is_right: Vec<PackId> = report.damaged.keys().filter(|pack| is_whole(pack)).copied().collect();
    report.damaged.retain(|pack, _| !is_right.contains(pack));
    report.faults = faults.list;
    if options.snapshot.is_none() {
        // All snapshots were walked: what was in it is elsewhere by now, or nobody needs it.
        let is_missed = |fault: &mut Fault| fault.affected_total > 0 || !objects::is_missing_pack(fault);
        let unmissed: Vec<Fault> = report.faults.extract_if(.., |fault| !is_missed(fault)).collect();
        report
            .notes
            .extend(unmissed.iter().map(|fault| format!("`{}` is missing, and nothing needs it", fault.object)));
    }
    Ok(report)
}

/// Reads packs, and walks the trees beside that with what is known to be bad before. Only if the
/// packs have more damage are the trees walked again, to say what that affects.
fn read_data(
    reader: &Reader<'_>,
    options: &Options,
    choice: &Choice<'_>,
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
    let never = || false;
    let (packs, enough) = match choice {
        Choice::ByOptions => (data::choose(reader, options.read_data, wanted.as_ref(), bad), &never as _),
        Choice::These { packs, enough } => (data::in_order(reader, packs, bad), *enough),
    };
    let strays = std::thread::scope(|scope| {
        let walked = scope.spawn(|| trees::check(reader, chosen, monitor, &mut early, &known));
        let read = data::check(reader, &packs, enough, options, monitor, (faults, bad), report);
        let walked = walked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        read.and(walked)
    })?;
    if options.read_data == ReadData::All {
        let strays = strays.into_iter().collect::<Vec<_>>();
        data::check(reader, &strays, &never, options, monitor, (faults, bad), report)?;
    }
    if *bad == known && faults.list.len() == count {
        *faults = early;
        return Ok(());
    }
    trees::check(reader, chosen, monitor, faults, bad).map(drop)
}
