//! The sequencer: alone and in walk order it looks chunks up, claims new ones, builds the tree
//! and feeds the pack writer.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::Options;
use super::follow::{Fresh, Status, Step};
use super::record::{RecordWriter, Row, Seen};
use super::units::{Expected, FileDone, Permits};
use crate::chunk::frame::{FrameBuilder, PlainFrame};
use crate::crypto::ident::{ChunkKind, IdKeys};
use crate::error::{Context, Error, Kind, Result};
use crate::format::cbor;
use crate::format::pack::FrameKind;
use crate::format::segment::PackEntry;
use crate::format::session::{Snapshot, Summary};
use crate::format::tree::{Content, Detail, Entry, Piece, Totals};
use crate::id::ChunkId;
use crate::index::SessionTable;
use crate::monitor::{Monitor, Severity};
use crate::path::TreePath;
use crate::repo::pack_writer::PackWriter;
use crate::repo::session::Session;
use crate::repo::tree::{DirectoryBuilder, NodeSink, content_of};
use crate::source::file::FileProblem;
use crate::world::Time;

/// New chunks on their way into packs.
struct Chunks<'s> {
    session: &'s Session<'s>,
    claimed: SessionTable,
    data: FrameBuilder,
    directories: FrameBuilder,
    lists: FrameBuilder,
    packs: PackWriter<'s>,
    added_bytes: u64,
}

impl Chunks<'_> {
    /// Stores a chunk unless it can be reused or this session has claimed it.
    fn add(&mut self, kind: ChunkKind, id: ChunkId, bytes: &[u8]) -> Result<()> {
        if self.session.may_reuse(&id) || !self.claimed.claim(id).context(|| "cannot remember a new chunk")? {
            return Ok(());
        }
        self.added_bytes += bytes.len() as u64;
        let (builder, frame_kind) = match kind {
            ChunkKind::Data => (&mut self.data, FrameKind::Data),
            ChunkKind::Directory => (&mut self.directories, FrameKind::Directory),
            ChunkKind::List => (&mut self.lists, FrameKind::List),
        };
        match builder.push(id, bytes) {
            Some(frame) => self.packs.add(frame_kind, frame),
            None => Ok(()),
        }
    }

    /// Hands on what has not filled a frame.
    fn flush(&mut self) -> Result<()> {
        let frames = [
            (FrameKind::Data, self.data.take()),
            (FrameKind::List, self.lists.take()),
            (FrameKind::Directory, self.directories.take()),
        ];
        for (kind, frame) in frames {
            if let Some(frame) = frame {
                self.packs.add(kind, frame)?;
            }
        }
        self.packs.settle()
    }
}

impl NodeSink for Chunks<'_> {
    fn node(&mut self, kind: ChunkKind, bytes: &[u8]) -> Result<ChunkId> {
        let id = self.session.repo().keys.ids.chunk(kind, bytes);
        self.add(kind, id, bytes)?;
        Ok(id)
    }
}

/// A directory that was entered and not yet left.
struct OpenDirectory {
    fresh: Fresh,
    known: bool,
    builder: DirectoryBuilder,
    totals: Totals,
}

/// What the sequencer holds.
pub(super) struct Sequencer<'s> {
    ids: &'s IdKeys,
    session: &'s Session<'s>,
    monitor: &'s Monitor,
    permits: &'s Arc<Permits>,
    chunks: Chunks<'s>,
    record: Option<RecordWriter>,
    open: Vec<OpenDirectory>,
    unit: Expected,
    summary: Summary,
    problems: u64,
    root: Option<Entry>,
}

/// Packs that only lack the copy of the snapshot record.
pub(super) struct Sequenced<'s> {
    chunks: Chunks<'s>,
    record: Option<RecordWriter>,
}

impl<'s> Sequencer<'s> {
    pub(super) fn new(
        session: &'s Session<'s>,
        options: &Options,
        monitor: &'s Monitor,
        record: Option<RecordWriter>,
        permits: &'s Arc<Permits>,
    ) -> Self {
        let frame_bytes = options.packs.frame_bytes;
        let spill = session.repo().cache_directory().map_or_else(std::env::temp_dir, std::path::Path::to_owned);
        let chunks = Chunks {
            session,
            claimed: SessionTable::new(&spill, SessionTable::ENTRIES_MAX),
            data: FrameBuilder::new(frame_bytes),
            directories: FrameBuilder::new(frame_bytes),
            lists: FrameBuilder::new(frame_bytes),
            packs: PackWriter::new(session, options.packs),
            added_bytes: 0,
        };
        Self {
            ids: &session.repo().keys.ids,
            session,
            monitor,
            permits,
            chunks,
            record,
            open: Vec::new(),
            unit: Expected::default(),
            summary: Summary::default(),
            problems: 0,
            root: None,
        }
    }

    /// Takes every step; gives the entry of `/`, or `None` when the walk was stopped before.
    pub(super) fn run(&mut self, steps: &Receiver<Step>) -> Result<Option<Entry>> {
        let result = self.take_steps(steps);
        // A reader that waits to send more of this unit must learn that nobody listens.
        self.unit = Expected::default();
        result
    }

    fn take_steps(&mut self, steps: &Receiver<Step>) -> Result<Option<Entry>> {
        while let Ok(step) = steps.recv() {
            match step {
                Step::Enter { fresh, known } => self.enter(fresh, known),
                Step::Leave { incomplete, old } => self.leave(incomplete, old)?,
                Step::Ready { fresh, status } => {
                    self.monitor.done(0, fresh.entry.size());
                    self.ready(fresh, status)?;
                }
                Step::Unit { ordinal, batches } => {
                    self.permits.set_head(ordinal);
                    self.unit.begin(batches);
                    self.session.show_alive();
                }
                Step::File { fresh, path, known } => self.file(fresh, &path, known)?,
            }
        }
        Ok(self.root.take())
    }

    fn write_row(&mut self, row: impl FnOnce() -> Row) {
        if let Some(writer) = &mut self.record
            && let Err(error) = writer.push(&row())
        {
            let message = format!("the next backup will read every file again: {error}");
            self.monitor.problem(Severity::Warning, "change record", message);
            self.record = None;
        }
    }

    fn enter(&mut self, fresh: Fresh, known: bool) {
        self.write_row(|| Row::Enter(seen(&fresh)));
        let builder = DirectoryBuilder::default();
        self.open.push(OpenDirectory { fresh, known, builder, totals: Totals::default() });
    }

    fn leave(&mut self, incomplete: bool, old: Option<(ChunkId, u64)>) -> Result<()> {
        let Some(open) = self.open.pop() else {
            return Err(Error::new(Kind::Failed, "no snapshot was made: the walk left more than it entered"));
        };
        let (id, level) = open.builder.finish(self.ids, &mut self.chunks)?;
        match old {
            _ if !open.known => self.summary.dirs_new += 1,
            Some(old) if old == (id, level) => self.summary.dirs_unmodified += 1,
            _ => self.summary.dirs_changed += 1,
        }
        self.write_row(|| Row::Leave { id, level });
        let mut entry = open.fresh.entry;
        entry.detail = Detail::Directory { id, level, totals: open.totals, incomplete };
        self.monitor.done(1, 0);
        match self.open.last_mut() {
            Some(around) => {
                around.totals.add(entry.totals());
                around.builder.push(self.ids, entry, &mut self.chunks)
            }
            None => {
                self.root = Some(entry);
                Ok(())
            }
        }
    }

    /// Adds an entry whose content, if it has any, is inline.
    fn ready(&mut self, fresh: Fresh, status: Status) -> Result<()> {
        match status {
            Status::New => self.summary.files_new += 1,
            Status::Changed => self.summary.files_changed += 1,
            Status::Unmodified => self.summary.files_unmodified += 1,
        }
        let bytes = fresh.entry.size();
        self.summary.total_files_processed += 1;
        self.summary.total_bytes_processed += bytes;
        self.monitor.done(1, 0);
        self.write_row(|| Row::Item(seen(&fresh)));
        let mut entry = fresh.entry;
        if let Detail::File { content, .. } = &mut entry.detail
            && let Content::Inline(pieces) = content
        {
            *content = content_of(self.ids, std::mem::take(pieces), &mut self.chunks)?;
        }
        let Some(around) = self.open.last_mut() else {
            return Err(Error::new(Kind::Failed, "no snapshot was made: an entry stands outside of any directory"));
        };
        around.totals.add(entry.totals());
        around.builder.push(self.ids, entry, &mut self.chunks)
    }

    /// Takes a file's parts from its unit.
    fn file(&mut self, fresh: Fresh, path: &TreePath, known: bool) -> Result<()> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut counted = 0;
        loop {
            let Some((part, mut bytes)) = self.unit.next_part() else {
                return Err(Error::new(Kind::Failed, format!("no snapshot was made: reading `{path}` stopped")));
            };
            if part.restart {
                pieces.clear();
                self.monitor.undone(std::mem::take(&mut counted));
            }
            // A large file is seen to move on.
            let part_bytes = part.pieces.iter().map(Piece::bytes).sum();
            counted += part_bytes;
            self.monitor.done(0, part_bytes);
            for piece in part.pieces {
                if let Piece::Chunk { id, bytes: length } = piece {
                    let (chunk, rest) = bytes.split_at(length as usize);
                    bytes = rest;
                    self.chunks.add(ChunkKind::Data, id, chunk)?;
                }
                pieces.push(piece);
            }
            match part.done {
                None => {}
                Some(Ok(done)) => return self.file_read(fresh, path, known, pieces, done),
                Some(Err(problem)) => {
                    self.file_failed(path, &problem);
                    return Ok(());
                }
            }
        }
    }

    fn file_failed(&mut self, path: &TreePath, problem: &FileProblem) {
        self.summary.files_unreadable += 1;
        self.problem(path, format!("it is not in the snapshot: {problem}"));
    }

    fn problem(&mut self, path: &TreePath, message: String) {
        self.problems += 1;
        self.monitor.problem(Severity::Error, path.to_string(), message);
    }

    fn file_read(
        &mut self,
        mut fresh: Fresh,
        path: &TreePath,
        known: bool,
        pieces: Vec<Piece>,
        done: FileDone,
    ) -> Result<()> {
        for problem in done.problems {
            self.problem(path, problem);
        }
        let attributes = &mut fresh.entry.attributes;
        attributes.mode = done.stat.mode;
        attributes.mtime = done.stat.mtime;
        attributes.xattrs = done.xattrs;
        fresh.ctime = done.stat.ctime;
        fresh.ino = done.stat.ino;
        let size = pieces.iter().map(Piece::bytes).sum();
        if done.unstable {
            self.summary.files_unreadable += 1;
            self.problem(path, "it kept changing while it was read; what was read is in the snapshot".into());
            // No run may take this for what the file is.
            fresh.ctime = Time { secs: i64::MIN, nanos: 0 };
        }
        let holes = done.holes.into_iter().filter(|hole| hole.offset + hole.bytes <= size).collect();
        fresh.entry.detail = Detail::File { size, content: Content::Inline(pieces), holes };
        self.ready(fresh, if known { Status::Changed } else { Status::New })
    }

    /// Seals what is left and sums up. The driver's problems are added to the sequencer's.
    pub(super) fn finish(
        mut self,
        root: Option<Entry>,
        walk_problems: u64,
    ) -> Result<(Sequenced<'s>, Entry, Summary, u64)> {
        let root = root.ok_or_else(|| Error::new(Kind::Failed, "no snapshot was made: `/` cannot be read"))?;
        self.chunks.flush()?;
        self.summary.data_added = self.chunks.added_bytes;
        self.summary.data_added_packed = self.chunks.packs.sealed_bytes();
        let sequenced = Sequenced { chunks: self.chunks, record: self.record };
        Ok((sequenced, root, self.summary, self.problems + walk_problems))
    }
}

impl Sequenced<'_> {
    /// Ends the last pack with a copy of the snapshot record and gives all packs.
    pub(super) fn close(mut self, snapshot: &Snapshot) -> Result<(Vec<PackEntry>, Option<RecordWriter>)> {
        let frame = PlainFrame { plain: cbor::encode(snapshot), chunks: Vec::new() };
        self.chunks.packs.add(FrameKind::Snapshot, frame)?;
        Ok((self.chunks.packs.finish()?, self.record))
    }
}

fn seen(fresh: &Fresh) -> Seen {
    Seen { entry: fresh.entry.clone(), ctime: fresh.ctime, ino: fresh.ino }
}
