//! What a repository holds and what that costs: in objects, in chunks, in copies.
//!
//! [`repository`] asks the storage for its list and goes through the index once, front to back;
//! nothing is read from packs, so a writer learns as much as an owner, but for the snapshots'
//! own sizes. [`selection`] walks the trees of some snapshots, and of all others, to tell what is
//! in them alone. A subtree seen once is not walked again; two bits a chunk is all it takes.
//!
//! How large a chunk is in storage is its share of its frame, since frames are compressed whole.

mod selection;

use std::collections::{BTreeSet, HashMap};
use std::ops::AddAssign;

use crate::error::{Context, Result};
use crate::format::access::Role;
use crate::format::pack::FrameKind;
use crate::format::tree::{Detail, Entry, Totals};
use crate::id::PackId;
use crate::index::{ChunkRow, Found};
use crate::repo::content::Reader;
use crate::repo::import::INDEX;
use crate::repo::session::{PACKS, pack_of};
use crate::repo::snapshots::Filter;

pub use selection::{Selection, selection};

/// Objects of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objects {
    /// How many.
    pub count: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

impl Objects {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Everything in the storage, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Packs of file content.
    pub data_packs: Objects,
    /// Packs of directories and lists.
    pub tree_packs: Objects,
    /// Packs with both: those of small sessions.
    pub mixed_packs: Objects,
    /// Packs of no session that counts: unfinished, or garbage.
    pub unused_packs: Objects,
    /// Index segments that are objects of their own.
    pub index: Objects,
    /// Snapshots, keys, statements, announcements and so on.
    pub rest: Objects,
}

impl Stored {
    /// All of it.
    pub fn total(&self) -> Objects {
        let kinds = [self.data_packs, self.tree_packs, self.mixed_packs, self.unused_packs, self.index, self.rest];
        let sum = |of: fn(&Objects) -> u64| kinds.iter().map(of).fold(0, u64::saturating_add);
        Objects { count: sum(|kind| kind.count), bytes: sum(|kind| kind.bytes) }
    }
}

/// Chunks, each counted once however often it is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chunks {
    /// How many.
    pub count: u64,
    /// Their bytes, as they were read.
    pub plain_bytes: u64,
    /// Their share of sealed frames.
    pub stored_bytes: u64,
}

impl Chunks {
    fn add(&mut self, row: &ChunkRow) {
        *self += Self { count: 1, plain_bytes: u64::from(row.chunk_bytes), stored_bytes: share(row) };
    }
}

impl AddAssign for Chunks {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.plain_bytes = self.plain_bytes.saturating_add(other.plain_bytes);
        self.stored_bytes = self.stored_bytes.saturating_add(other.stored_bytes);
    }
}

/// A chunk's share of its sealed frame.
fn share(row: &ChunkRow) -> u64 {
    let whole = u64::from(row.frame_sealed) * u64::from(row.chunk_bytes);
    whole.checked_div(u64::from(row.frame_plain)).unwrap_or_default()
}

/// Frames of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Frames {
    /// How many.
    pub count: u64,
    /// Their bytes before compression.
    pub plain_bytes: u64,
    /// Their bytes in packs.
    pub sealed_bytes: u64,
}

/// Snapshots and what restoring them all would write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshots {
    /// How many.
    pub count: u64,
    /// What lies in them, summed.
    pub totals: Totals,
}

impl Snapshots {
    fn add(&mut self, entry: &Entry) {
        self.count += 1;
        self.totals.add(totals(entry));
    }
}

/// What restoring an entry writes.
fn totals(entry: &Entry) -> Totals {
    match &entry.detail {
        Detail::Directory { totals, .. } => *totals,
        Detail::File { size, .. } => Totals { files: 1, directories: 0, bytes: *size },
        _ => Totals { files: 1, ..Totals::default() },
    }
}

/// What a repository holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Its objects.
    pub stored: Stored,
    /// Chunks of file content.
    pub data: Chunks,
    /// Chunks of trees: directories and lists.
    pub trees: Chunks,
    /// Frames of file content.
    pub data_frames: Frames,
    /// Frames of trees.
    pub tree_frames: Frames,
    /// Copies of chunks that another key stored too, since keys build only on what they trust.
    pub untrusted_copies: Chunks,
    /// All other copies beyond the first: of sessions that ran at the same time.
    pub other_copies: Chunks,
    /// The snapshots; `None` when this credential cannot read them.
    pub snapshots: Option<Snapshots>,
}

const HOLDS_DATA: u8 = 1;
const HOLDS_TREES: u8 = 2;

/// Counts a whole repository. Lists the storage once; reads snapshot records, but no pack.
pub fn repository(reader: &Reader<'_>) -> Result<Report> {
    let mut report = Report::default();
    let mut holds: HashMap<PackId, u8> = HashMap::new();
    for (number, pack) in (0_u32..).zip(reader.catalog().packs()) {
        if reader.is_alive(number) {
            holds.insert(pack.id, 0);
        }
    }
    reader.catalog().each_chunk(|copies| report.chunk(reader, copies, &mut holds));
    report.stored = stored(reader, &holds)?;
    if reader.repo().keys.role == Role::Owner {
        let mut snapshots = Snapshots::default();
        let (all, unreadable) = reader.snapshots(&Filter::default())?;
        all.iter().for_each(|info| snapshots.add(&info.snapshot.root));
        snapshots.count += unreadable.len() as u64;
        report.snapshots = Some(snapshots);
    }
    Ok(report)
}

impl Report {
    /// Takes in one chunk with all of its rows.
    fn chunk(&mut self, reader: &Reader<'_>, copies: &[Found], holds: &mut HashMap<PackId, u8>) {
        let catalog = reader.catalog();
        let mut first = None;
        let mut writers = BTreeSet::new();
        for row in copies.iter().map(|found| &found.row).filter(|row| reader.is_alive(row.pack)) {
            let is_data = row.kind == FrameKind::Data as u8;
            let pack = &catalog.packs()[row.pack as usize];
            if let Some(holds) = holds.get_mut(&pack.id) {
                *holds |= if is_data { HOLDS_DATA } else { HOLDS_TREES };
            }
            // Each frame begins with one chunk, which so counts the frame.
            if row.chunk_offset == 0 {
                let frames = if is_data { &mut self.data_frames } else { &mut self.tree_frames };
                frames.count += 1;
                frames.plain_bytes = frames.plain_bytes.saturating_add(u64::from(row.frame_plain));
                frames.sealed_bytes = frames.sealed_bytes.saturating_add(u64::from(row.frame_sealed));
            }
            let writer = catalog.origins().get(pack.origin as usize).map(|origin| origin.credential);
            let is_new_writer = writers.insert(writer);
            if first.is_none() {
                first = Some(row);
                if is_data { self.data.add(row) } else { self.trees.add(row) }
            } else if is_new_writer {
                self.untrusted_copies.add(row);
            } else {
                self.other_copies.add(row);
            }
        }
    }
}

/// Sorts the storage's objects into kinds.
fn stored(reader: &Reader<'_>, holds: &HashMap<PackId, u8>) -> Result<Stored> {
    let mut stored = Stored::default();
    for object in reader.repo().storage.list("").context(|| "cannot list the repository")? {
        let kind = if object.name.starts_with(PACKS) {
            match pack_of(&object.name).and_then(|id| holds.get(&id).copied()) {
                None => &mut stored.unused_packs,
                Some(HOLDS_DATA) => &mut stored.data_packs,
                Some(HOLDS_TREES) => &mut stored.tree_packs,
                Some(_) => &mut stored.mixed_packs,
            }
        } else if object.name.starts_with(INDEX) {
            &mut stored.index
        } else {
            &mut stored.rest
        };
        kind.add(object.bytes);
    }
    Ok(stored)
}
