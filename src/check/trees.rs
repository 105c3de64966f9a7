//! Walking snapshots: every node and chunk they name is there, and what the faults affect.
//!
//! A directory or list found whole once is not walked again. One that is not whole is, to name what
//! a fault affects there too; but only until every fault in it has named as many paths as it names.
//! So the walk ends though directories may share what is below them, level upon level, and be more
//! than anybody can walk through.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use super::{Bad, Faults};
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Content, Detail, Entry, Piece, Totals};
use crate::id::{ChunkId, SessionId};
use crate::index::{ChunkRow, Marks};
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::reach::{Reach, is_marked};
use crate::repo::reader::{Pieces, ReadNodes};
use crate::repo::session::pack_name;
use crate::repo::snapshots::SnapshotInfo;
use crate::repo::walk::Walk as Entries;

/// Deepest a directory may lie: a hostile tree ends here.
const DEPTH_MAX: usize = 100_000;

/// Faults, and how many paths each affects.
type Counts = BTreeMap<usize, u64>;

struct Walk<'a, 'r> {
    reader: &'a Reader<'r>,
    nodes: &'a Nodes<'a, 'r>,
    faults: &'a mut Faults,
    bad: &'a Bad,
    snapshot: SessionId,
    /// Directories and lists below which everything was found whole.
    whole: Marks,
    /// The other directories, by row of the catalog, and what the faults below each affect there.
    broken: HashMap<u64, Counts>,
    /// The directories around what is looked at.
    open: Vec<Open>,
    /// Packs without which chunks would be missing and that the index does not name.
    strays: BTreeSet<u32>,
}

/// A directory being walked.
struct Open {
    id: ChunkId,
    path: TreePath,
    whole: bool,
    counts: Counts,
    /// What was said to affect it: of several nodes that cannot be read it is said once.
    said: BTreeSet<usize>,
    /// What it says lies below it, and what does as far as that was seen.
    totals: Totals,
    found: Totals,
}

/// Walks the snapshots and adds to the faults what they affect. Gives the packs that are needed and that
/// the index does not name.
pub(super) fn check(
    reader: &Reader<'_>,
    snapshots: &[&SnapshotInfo],
    monitor: &Monitor,
    faults: &mut Faults,
    bad: &Bad,
) -> Result<BTreeSet<u32>> {
    let Some(first) = snapshots.first() else { return Ok(BTreeSet::new()) };
    let nodes = Nodes { reader, unread: Mutex::default(), unnamed: Mutex::default() };
    let mut walk = Walk {
        reader,
        nodes: &nodes,
        faults,
        bad,
        snapshot: first.id(),
        whole: Marks::with_rows(reader.catalog().rows()),
        broken: HashMap::new(),
        open: Vec::new(),
        strays: BTreeSet::new(),
    };
    for info in snapshots {
        walk.snapshot = info.id();
        walk.tree(&info.snapshot.root, monitor)?;
    }
    Ok(walk.strays)
}

impl Walk<'_, '_> {
    fn tree(&mut self, root: &Entry, monitor: &Monitor) -> Result<()> {
        if !self.enter(root, &TreePath::root()) {
            return Ok(());
        }
        let mut entries = Entries::below(self.nodes, TreePath::root(), root);
        while let Some(entry) = entries.next() {
            if monitor.stopping() {
                return Err(Error::new(Kind::Interrupted, "the check was interrupted"));
            }
            self.find_strays()?;
            while self.open.len() > entries.depth() {
                self.leave();
            }
            match entry {
                Ok(entry) => {
                    monitor.done(1, 0);
                    if let Some(around) = self.open.last_mut() {
                        around.found.add(entry.totals());
                    }
                    if !matches!(entry.detail, Detail::Directory { .. }) {
                        let whole = self.file(&entry, entries.path())?;
                        self.and_whole(whole);
                    } else if !self.enter(&entry, entries.path()) {
                        entries.pass_over();
                    }
                }
                Err(error) => {
                    self.and_whole(false);
                    let fault = self.unreadable(error, entries.path())?;
                    if self.open.last_mut().is_none_or(|around| around.said.insert(fault)) {
                        self.affects(fault, entries.path());
                    }
                }
            }
        }
        while !self.open.is_empty() {
            self.leave();
        }
        self.find_strays()
    }

    /// Whether the directory around is still whole.
    fn and_whole(&mut self, whole: bool) {
        if let Some(around) = self.open.last_mut() {
            around.whole &= whole;
        }
    }

    /// Begins a directory, unless there is nothing to be learned in it.
    fn enter(&mut self, entry: &Entry, path: &TreePath) -> bool {
        let Detail::Directory { id, totals, .. } = entry.detail else { return false };
        let row = self.row_of(&id);
        if row.is_some_and(|row| self.whole.get(row)) {
            return false;
        }
        if let Some(counts) = row.and_then(|row| self.broken.get(&row))
            && counts.keys().all(|fault| self.faults.names_no_more(*fault))
        {
            let counts = counts.clone();
            counts.iter().for_each(|(fault, count)| self.faults.affects_more(*fault, *count));
            self.count(counts);
            self.and_whole(false);
            return false;
        }
        if self.open.len() >= DEPTH_MAX {
            let message = format!("it lies more than {DEPTH_MAX} directories deep and was not checked");
            let fault = self.faults.add_once(&format!("deep {id}"), &format!("directory node {id}"), message);
            self.affects(fault, path);
            self.and_whole(false);
            return false;
        }
        let (counts, found) = (Counts::new(), Totals::default());
        let said = BTreeSet::new();
        self.open.push(Open { id, path: path.clone(), whole: true, counts, said, totals, found });
        // Its nodes are read, and so checked, on the way.
        true
    }

    /// Goes up from the innermost directory.
    fn leave(&mut self) {
        let Some(mut done) = self.open.pop() else { return };
        if done.whole && done.found != done.totals {
            let (said, found) = (in_words(done.totals), in_words(done.found));
            let key = format!("totals {} {said}", done.id);
            let message = format!("it says that it has {said} below it, and has {found}");
            let fault = self.faults.add_once(&key, &format!("directory `{}`", done.path), message);
            if self.faults.affects(fault, self.snapshot, &done.path) {
                *done.counts.entry(fault).or_default() += 1;
            }
            done.whole = false;
        }
        let row = self.row_of(&done.id);
        if done.whole {
            self.mark_whole(row);
        } else {
            row.into_iter().for_each(|row| drop(self.broken.insert(row, done.counts.clone())));
            self.count(done.counts);
        }
        self.and_whole(done.whole);
    }

    /// Adds to what the faults affect in the directory around.
    fn count(&mut self, counts: Counts) {
        let Some(around) = self.open.last_mut() else { return };
        for (fault, count) in counts {
            let sum = around.counts.entry(fault).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Checks a file's content; says whether all of it is there.
    fn file(&mut self, entry: &Entry, path: &TreePath) -> Result<bool> {
        let Detail::File { size, content, .. } = &entry.detail else { return Ok(true) };
        // Taken out, so that it can be asked while faults are noted.
        let whole = std::mem::take(&mut self.whole);
        // Nodes that come twice, a million times even, can tell nothing new.
        let mut seen = BTreeSet::new();
        let result = self.pieces(*size, content, path, &mut |row| whole.get(row) || !seen.insert(row));
        self.whole = whole;
        if matches!(result, Ok(true)) {
            self.mark_whole(seen);
        }
        result
    }

    fn pieces(
        &mut self,
        size: u64,
        content: &Content,
        path: &TreePath,
        known: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool> {
        let reader = self.reader;
        let row_of = |id: &ChunkId| reader.places(id).next().map(|found| found.ordinal);
        let mut pieces = Pieces::new(self.nodes, content).unless(|node| row_of(node).is_some_and(&mut *known));
        let mut whole = true;
        let mut total = 0_u64;
        for piece in pieces.by_ref() {
            match piece {
                Ok(piece) => {
                    total = total.saturating_add(piece.bytes());
                    if let Piece::Chunk { id, bytes } = piece
                        && let Some(fault) = self.fault_of(&id, Some(bytes))?
                    {
                        self.affects(fault, path);
                        whole = false;
                    }
                }
                Err(error) => {
                    whole = false;
                    let fault = self.unreadable(error, path)?;
                    self.affects(fault, path);
                }
            }
        }
        total = total.saturating_add(pieces.bytes_passed_over());
        if whole && total != size {
            let list = if let Content::List { id, .. } = content { id.to_string() } else { String::new() };
            let message = format!("pieces of {total} bytes, size {size}");
            let fault = self.faults.add_once(&format!("size {list} {size}"), &format!("file `{path}`"), message);
            self.affects(fault, path);
            whole = false;
        }
        Ok(whole)
    }

    /// What is wrong with a chunk, unless it lies whole in some pack that is there.
    fn fault_of(&mut self, id: &ChunkId, bytes: Option<u32>) -> Result<Option<usize>> {
        let reader = self.reader;
        let fits = |row: &ChunkRow| bytes.is_none_or(|bytes| bytes == row.chunk_bytes);
        let mut fault = None;
        for row in reader.places(id).map(|found| found.row).filter(fits) {
            match self.bad.fault_of(&row) {
                None => return Ok(None),
                Some(known) => fault = Some(known),
            }
        }
        for row in reader.other_places(id)?.map(|found| found.row).filter(fits) {
            match self.bad.fault_of(&row) {
                None => {
                    self.stray(row.pack)?;
                    return Ok(None);
                }
                Some(known) => fault = Some(known),
            }
        }
        Ok(Some(fault.unwrap_or_else(|| self.faults.lost(id))))
    }

    /// Notes the packs of nodes that could be read although the index does not name them.
    fn find_strays(&mut self) -> Result<()> {
        let unnamed = std::mem::take(&mut *self.nodes.unnamed.lock().unwrap_or_else(PoisonError::into_inner));
        unnamed.iter().try_for_each(|id| self.fault_of(id, None).map(drop))
    }

    /// Notes that a chunk is there only in a pack that the index does not name. Its segment was missed
    /// before, or else its commit is.
    fn stray(&mut self, pack: u32) -> Result<()> {
        if self.strays.insert(pack) {
            let session = self.reader.origin_of(pack)?.session;
            if !self.reader.commits().headers.contains_key(&session) {
                self.faults.add_commit(session, "it is missing: packs of its session hold what snapshots need");
            }
        }
        Ok(())
    }

    /// What is wrong with a node that could not be read. Only damage is a finding; the rest ends the check.
    fn unreadable(&mut self, error: Error, path: &TreePath) -> Result<usize> {
        if error.kind() != Kind::Damaged {
            return Err(error);
        }
        let Some(id) = self.nodes.unread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            // It is what was stored, and makes no sense. Which node it is stands in the reason, whatever the path.
            let (what, reason) = (error.to_string(), error.with_causes());
            let of_path = what.ends_with(&format!("`{path}`"));
            let reason = reason.strip_prefix(&format!("{what}: ")).filter(|_| of_path).unwrap_or(&reason);
            return Ok(self.faults.add_once(&format!("node {reason}"), &format!("nodes of `{path}`"), reason));
        };
        if let Some(known) = self.fault_of(&id, None)? {
            return Ok(known);
        }
        // Nothing was known to be wrong with its pack.
        let pack = match self.reader.places(&id).map(|found| found.row.pack).min() {
            Some(pack) => Some(pack),
            None => self.reader.other_places(&id)?.map(|found| found.row.pack).min(),
        };
        let object = match pack {
            Some(pack) => pack_name(&self.reader.pack(pack)?.id),
            None => format!("chunk {id}"),
        };
        Ok(self.faults.add(&object, error.with_causes()))
    }

    fn affects(&mut self, fault: usize, path: &TreePath) {
        if self.faults.affects(fault, self.snapshot, path) {
            self.count(Counts::from([(fault, 1)]));
        }
    }

    fn mark_whole(&mut self, rows: impl IntoIterator<Item = u64>) {
        for row in rows {
            self.whole.set(row);
        }
    }

    fn row_of(&self, id: &ChunkId) -> Option<u64> {
        self.reader.places(id).next().map(|found| found.ordinal)
    }
}

/// A reader that remembers which node it could not read last, and which it has read though the index
/// does not name them.
struct Nodes<'a, 'r> {
    reader: &'a Reader<'r>,
    unread: Mutex<Option<ChunkId>>,
    unnamed: Mutex<Vec<ChunkId>>,
}

impl Nodes<'_, '_> {
    fn note<T>(&self, id: &ChunkId, result: Result<T>) -> Result<T> {
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = result.is_err().then_some(*id);
        if result.is_ok() && self.reader.places(id).next().is_none() {
            self.unnamed.lock().unwrap_or_else(PoisonError::into_inner).push(*id);
        }
        result
    }
}

impl ReadNodes for Nodes<'_, '_> {
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.note(id, self.reader.node(id))
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.note(id, self.reader.list_node(id))
    }
}

fn in_words(totals: Totals) -> String {
    format!("{} files, {} directories and {} bytes", totals.files, totals.directories, totals.bytes)
}

/// The packs that hold what these snapshots need.
pub(super) fn packs_of(reader: &Reader<'_>, snapshots: &[&SnapshotInfo], monitor: &Monitor) -> Result<BTreeSet<u32>> {
    let reach = Reach::new(reader);
    for info in snapshots {
        // Damage is found, and said, when the trees are walked.
        reach.walk(&info.snapshot.root, TreePath::root(), monitor, |_| Ok(()))?;
    }
    let reached = reach.marks();
    let mut packs = BTreeSet::new();
    reader.catalog().each_chunk(|copies| {
        if is_marked(&reached, copies) {
            packs.extend(copies.iter().map(|found| found.row.pack).filter(|pack| reader.is_alive(*pack)));
        }
    });
    Ok(packs)
}
