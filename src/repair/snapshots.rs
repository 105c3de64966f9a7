//! Snapshots of what is whole of those that lack something.
//!
//! A file of which any content is lost is left out: there are never wrong bytes in one, nor too few. A
//! directory loses the entries that cannot be read. Each is named. The old snapshot stays, and keeps what it
//! has, until it is forgotten.

use std::collections::HashMap;

use crate::crypto::ident::ChunkKind;
use crate::error::{Context, Error, Kind, Result};
use crate::format::gc::NoteClaim;
use crate::format::session::Snapshot;
use crate::format::tree::{Content, Detail, Entry, Piece};
use crate::id::{ChunkId, PackId, SessionId};
use crate::index::{Found, Marks, SessionTable};
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::reader::{Pieces, ReadNodes};
use crate::repo::remake::{less, would_be};
use crate::repo::session::{PACKS, SESSIONS, pack_of};
use crate::repo::snapshots::SnapshotInfo;
use crate::repo::trim::{Choice, Trimmed, Verdict};

/// The tag of a snapshot of what was whole of another.
pub const REPAIRED: &str = "repaired";

/// What to do with a snapshot that lacks something.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// It is forgotten, and can be brought back for so many seconds.
    pub forget: Option<i64>,
    /// Only says what would be.
    pub dry_run: bool,
}

/// What became of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// It is whole.
    Whole,
    /// There would be one of what is whole.
    WouldChange,
    /// This is of what is whole.
    Made(SessionId),
    /// This was made of what is whole before.
    MadeBefore(SessionId),
    /// Nothing is whole, so there is none.
    NothingLeft,
}

/// What was done with a snapshot.
#[derive(Debug, Clone)]
pub struct Report {
    /// What became of it.
    pub became: Became,
    /// Its tree, and what went of it.
    pub trimmed: Trimmed,
    /// Files that were left out, and directories of which some was.
    pub lost: u64,
}

/// Looks at snapshots one after the other; what was found whole once is not looked at again.
#[derive(Debug)]
pub struct Repair<'a, 'r> {
    reader: &'a Reader<'r>,
    /// What is stored of each pack.
    stored: HashMap<PackId, u64>,
    /// Announced sessions: their packs may come to count.
    announced: Vec<SessionId>,
    read_data: bool,
    /// By row of the catalog: directories with all that is below them, and chunks that were read.
    whole: Marks,
}

impl<'a, 'r> Repair<'a, 'r> {
    /// Begins with what is stored now. `read_data`: chunks are read, and not only looked for. Takes a reader
    /// without a cache.
    pub fn new(reader: &'a Reader<'r>, read_data: bool) -> Result<Self> {
        let storage = &reader.repo().storage;
        let listed = storage.list(PACKS).context(|| "cannot list the packs")?;
        let stored = listed.iter().filter_map(|object| Some((pack_of(&object.name)?, object.bytes))).collect();
        let listed = storage.list(SESSIONS).context(|| "cannot list the sessions")?;
        let announced = listed.iter().filter_map(|object| object.name.strip_prefix(SESSIONS)?.parse().ok()).collect();
        Ok(Self { reader, stored, announced, read_data, whole: Marks::with_rows(reader.catalog().rows()) })
    }

    /// Makes a snapshot of what is whole of one that lacks something. `there` are the snapshots there are;
    /// `lost` is told of all that is left out.
    pub fn run(
        &mut self,
        info: &SnapshotInfo,
        there: &[SnapshotInfo],
        options: &Options,
        monitor: &Monitor,
        lost: &mut dyn FnMut(&TreePath, &Error),
    ) -> Result<Report> {
        let repo = self.reader.repo();
        let (reader, whole) = (self.reader, std::mem::take(&mut self.whole));
        let standing = Standing { reader, stored: &self.stored, announced: &self.announced };
        let mut choice = WhatIsWhole { standing: &standing, read_data: self.read_data, whole, lost, count: 0 };
        let (mut before, mut is_empty) = (None, false);
        let record = |trimmed: &Trimmed| {
            is_empty = trimmed.is_other && trimmed.root.entries_below() == 0;
            let wanted = (trimmed.is_other && !is_empty).then(|| record(info, trimmed))?;
            before = there.iter().find(|other| *other.snapshot == wanted).map(SnapshotInfo::id);
            before.is_none().then_some(wanted)
        };
        let what = || format!("snapshot `{}` was not repaired", info.id().short());
        let done = match options.dry_run {
            true => would_be(reader, &standing, info, &mut choice, monitor).map(|trimmed| (trimmed, None)),
            false => less(repo, &standing, info, &mut choice, record, monitor),
        };
        let count = choice.count;
        self.whole = choice.whole;
        let (trimmed, made) = done.context(what)?;
        let became = match (made, before) {
            _ if !trimmed.is_other => Became::Whole,
            (Some(id), _) => Became::Made(id),
            (None, Some(id)) => Became::MadeBefore(id),
            _ if is_empty || trimmed.root.entries_below() == 0 => Became::NothingLeft,
            _ => Became::WouldChange,
        };
        if let (Some(undelete_secs), true, false) = (options.forget, trimmed.is_other, options.dry_run) {
            // What it lacks keeps a collection from nothing any more; what it has it keeps while it is there.
            repo.note([NoteClaim::Quarantined { session: info.id() }])?;
            repo.forget(std::slice::from_ref(info), undelete_secs)?;
        }
        Ok(Report { became, trimmed, lost: count })
    }
}

/// What the snapshot is to be.
fn record(info: &SnapshotInfo, trimmed: &Trimmed) -> Snapshot {
    let mut new = info.as_original();
    new.root = trimmed.root.clone();
    if let Err(place) = new.tags.binary_search_by(|tag| tag.as_str().cmp(REPAIRED)) {
        new.tags.insert(place, REPAIRED.to_owned());
    }
    let summary = &mut new.summary;
    summary.total_files_processed = summary.total_files_processed.saturating_sub(trimmed.gone.files);
    summary.total_bytes_processed = summary.total_bytes_processed.saturating_sub(trimmed.gone.bytes);
    new
}

/// The repository as far as a snapshot may rest on it: packs that count and are there.
struct Standing<'a, 'r> {
    reader: &'a Reader<'r>,
    stored: &'a HashMap<PackId, u64>,
    announced: &'a [SessionId],
}

impl Standing<'_, '_> {
    /// The places of a chunk in packs that count, are there in their length, and are not known to be damaged
    /// in it.
    fn places<'s>(&'s self, id: &'s ChunkId) -> impl Iterator<Item = Found> + 's {
        let packs = self.reader.catalog().packs();
        self.reader.places(id).filter(move |found| {
            let pack = &packs[found.row.pack as usize];
            self.stored.get(&pack.id) == Some(&u64::from(pack.stored_bytes))
                && !self.reader.collections().damaged.contains(&(*id, pack.id))
        })
    }

    /// Why a chunk is not there; an error that ends the work when it is, and the index does not say so.
    fn missing(&self, kind: ChunkKind, id: &ChunkId) -> Error {
        let is_open = |session: &SessionId| {
            self.announced.contains(session) && !self.reader.commits().headers.contains_key(session)
        };
        let others = match self.reader.other_places(id) {
            Ok(others) => others,
            Err(error) => return error,
        };
        for found in others {
            // What an open session has stored comes to count, or does not: it is not lost by going on here.
            if let Ok(origin) = self.reader.origin_of(found.row.pack)
                && !is_open(&origin.session)
                && self.reader.read_at(kind, &found).is_ok()
            {
                let pack = self.reader.pack_label(found.row.pack);
                let what = format!("chunk `{}` is in pack `{pack}`, of which the index says nothing", id.short());
                return Error::new(Kind::Refused, what).hint("first run `esker repair index`");
            }
        }
        Error::new(Kind::Damaged, format!("chunk `{}` is in no pack of the repository", id.short()))
    }

    fn look_for(&self, id: &ChunkId) -> Result<()> {
        if self.places(id).next().is_some() { Ok(()) } else { Err(self.missing(ChunkKind::Data, id)) }
    }

    /// A chunk, from the first place where it is whole.
    fn read(&self, kind: ChunkKind, id: &ChunkId) -> Result<Vec<u8>> {
        let mut damage = None;
        for found in self.places(id) {
            match self.reader.read_at(kind, &found) {
                Err(error) if error.kind() == Kind::Damaged => damage = Some(error),
                read => return read,
            }
        }
        match (self.missing(kind, id), damage) {
            (missing, Some(damage)) if missing.kind() == Kind::Damaged => Err(damage),
            (missing, _) => Err(missing),
        }
    }
}

impl ReadNodes for Standing<'_, '_> {
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.read(ChunkKind::Directory, id)
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.read(ChunkKind::List, id)
    }
}

/// Drops what lacks content.
struct WhatIsWhole<'a, 'r> {
    standing: &'a Standing<'a, 'r>,
    read_data: bool,
    whole: Marks,
    lost: &'a mut dyn FnMut(&TreePath, &Error),
    count: u64,
}

impl WhatIsWhole<'_, '_> {
    fn row(&self, id: &ChunkId) -> Option<u64> {
        self.standing.reader.catalog().lookup(id).next().map(|found| found.ordinal)
    }

    fn is_whole(&self, id: &ChunkId) -> bool {
        self.row(id).is_some_and(|row| self.whole.get(row))
    }

    fn note_whole(&mut self, id: &ChunkId) {
        if let Some(row) = self.row(id) {
            self.whole.set(row);
        }
    }

    fn content(&mut self, content: &Content) -> Result<()> {
        // A list may name a node any number of times: each is gone through once.
        let spill = self.standing.reader.repo().spill_directory();
        let mut nodes = SessionTable::new(&spill, SessionTable::ENTRIES_MAX);
        let seen = move |node: &ChunkId| !nodes.claim(*node).unwrap_or(true);
        for piece in Pieces::new(self.standing, content).unless(seen) {
            let Piece::Chunk { id, .. } = piece? else { continue };
            if !self.read_data {
                self.standing.look_for(&id)?;
            } else if !self.is_whole(&id) {
                self.standing.read(ChunkKind::Data, &id)?;
                self.note_whole(&id);
            }
        }
        Ok(())
    }
}

impl Choice for WhatIsWhole<'_, '_> {
    fn of(&mut self, path: &TreePath, entry: &Entry) -> Result<Verdict> {
        match &entry.detail {
            Detail::Directory { id, .. } if self.is_whole(id) => Ok(Verdict::Keep),
            Detail::Directory { .. } => Ok(Verdict::Look),
            Detail::File { content, .. } => match self.content(content) {
                Ok(()) => Ok(Verdict::Keep),
                Err(error) => self.lost(path, error).map(|()| Verdict::Drop),
            },
            _ => Ok(Verdict::Keep),
        }
    }

    fn lost(&mut self, path: &TreePath, error: Error) -> Result<()> {
        if error.kind() != Kind::Damaged {
            return Err(error);
        }
        self.count += 1;
        (self.lost)(path, &error);
        Ok(())
    }

    fn stays(&mut self, directory: &Entry) {
        if let Detail::Directory { id, .. } = &directory.detail {
            self.note_whole(id);
        }
    }
}
