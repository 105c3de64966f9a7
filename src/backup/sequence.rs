//! The sequencer: alone and in walk order it looks chunks up, claims new ones, builds the tree
//! and feeds the pack writer.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::Options;
use super::directory::OpenDirectory;
use super::follow::{Fresh, Status, Step};
use super::passage::Passage;
use super::record::{self, RecordWriter};
use super::rows::{Left, PiecesRow, pieces_of};
use super::unchanged::{Chosen, Digest};
use super::units::{Expected, FileDone, Permits};
use crate::crypto::ident::{ChunkKind, IdKeys};
use crate::error::{Context, Error, Kind, Result};
use crate::format::segment::PackEntry;
use crate::format::session::{CommitKind, Snapshot, Summary};
use crate::format::tree::{Content, Detail, Entry, Piece};
use crate::id::PackId;
use crate::monitor::{Monitor, Severity};
use crate::path::TreePath;
use crate::repo::chunk_writer::ChunkWriter;
use crate::repo::session::Outcome;
use crate::repo::tree::ContentBuilder;
use crate::source::file::FileProblem;
use crate::world::Time;

/// Why the sequencer did not come to the end.
pub(super) enum Halt {
    /// Something went wrong.
    Failed(Error),
    /// Something that was relied on has been taken back: the backup begins anew, with what is
    /// recorded.
    BeginAnew,
    /// A stop was asked for; what was stored is committed, if there was anything.
    Stopped { kept: bool },
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The pieces of the file at hand: on their way into its list, and in rows of the change record.
#[derive(Default)]
struct FilePieces {
    content: ContentBuilder,
    bytes: u64,
    row: PiecesRow,
    /// The record has rows of them.
    recorded: bool,
}

/// What the sequencer holds.
pub(super) struct Sequencer<'s, 'r> {
    ids: &'s IdKeys,
    passage: &'s Passage<'r>,
    options: &'s Options,
    monitor: &'s Monitor,
    permits: &'s Arc<Permits>,
    chunks: ChunkWriter<'r>,
    record: Option<RecordWriter>,
    open: Vec<OpenDirectory>,
    unit: Expected,
    /// Of the large unmodified file whose step comes next.
    handed_on: Option<FilePieces>,
    summary: Summary,
    /// When there was a checkpoint last, or the backup began.
    checkpoint: Time,
    problems: u64,
    root: Option<Entry>,
    chosen: Chosen,
}

/// A tree that is whole, and packs that only lack the copy of the snapshot record.
pub(super) struct Sequenced<'r> {
    chunks: ChunkWriter<'r>,
    pub(super) record: Option<RecordWriter>,
    pub(super) root: Entry,
    pub(super) summary: Summary,
}

impl<'s, 'r> Sequencer<'s, 'r> {
    pub(super) fn new(
        passage: &'s Passage<'r>,
        options: &'s Options,
        monitor: &'s Monitor,
        record: Option<RecordWriter>,
        permits: &'s Arc<Permits>,
        chosen: Chosen,
    ) -> Self {
        Self {
            ids: &passage.repo().keys.ids,
            passage,
            options,
            monitor,
            permits,
            chunks: ChunkWriter::new(passage.session(), options.packs, passage.on_stored()),
            record,
            open: Vec::new(),
            unit: Expected::default(),
            handed_on: None,
            summary: Summary::default(),
            checkpoint: passage.began(),
            problems: 0,
            root: None,
            chosen,
        }
    }

    /// Takes every step; gives the entry of `/`, or `None` when it cannot be read.
    pub(super) fn run(&mut self, steps: &Receiver<Step>) -> Result<Option<Entry>, Halt> {
        let result = self.take_steps(steps);
        // A reader that waits to send more of this unit must learn that nobody listens.
        self.unit = Expected::default();
        result
    }

    fn take_steps(&mut self, steps: &Receiver<Step>) -> Result<Option<Entry>, Halt> {
        while let Ok(step) = steps.recv() {
            if self.monitor.stopping() {
                break;
            }
            if !matches!(step, Step::Pieces { .. } | Step::Ready { .. })
                && let Some(pieces) = self.handed_on.take()
            {
                // The record ended before they did: the file is read.
                self.void(&pieces);
            }
            match step {
                Step::Pieces { pieces, upheld } => self.hand_on(pieces, upheld)?,
                Step::Enter { fresh, known, whole, untouched } => self.enter(fresh, known, whole, untouched),
                Step::Leave { incomplete, old } => self.leave(incomplete, old)?,
                Step::Untouched { rows, entries, bytes } => self.untouched(rows, entries, bytes)?,
                Step::Ready { fresh, status } => {
                    self.monitor.done(0, fresh.entry.size());
                    self.handed_over(&fresh)?;
                    self.ready(fresh, status)?;
                }
                Step::Unit { ordinal, batches } => {
                    self.permits.set_head(ordinal);
                    self.unit.begin(batches);
                    self.chunks.session().show_alive();
                    if self.checkpoint_is_due() {
                        self.pass_checkpoint(None)?;
                    }
                }
                Step::File { fresh, path, known } => self.file(fresh, &path, known)?,
                Step::Stream { fresh, path, old } => self.stream(fresh, &path, old.as_ref())?,
            }
        }
        if self.monitor.stopping() {
            return Err(self.stop(None));
        }
        Ok(self.root.take())
    }

    /// Whether so much was stored since the last checkpoint, or so long ago, that it is time.
    fn checkpoint_is_due(&self) -> bool {
        if self.options.variation.dry_run {
            return false;
        }
        let Options { checkpoint_bytes, checkpoint_secs, .. } = *self.options;
        self.chunks.commit_is_due(checkpoint_bytes, checkpoint_secs, self.checkpoint)
    }

    /// Commits what is stored so far and goes on in a new session (W6). `file` is the one being
    /// read, with its pieces so far.
    fn pass_checkpoint(&mut self, file: Option<(&Fresh, &FilePieces)>) -> Result<(), Halt> {
        let (packs, outcome) = self.commit_checkpoint(file)?;
        // A checkpoint that may be void is one nothing rests on: the new session does not see it.
        if !self.passage.go_on(&packs)? || outcome == Outcome::Flagged {
            return Err(Halt::BeginAnew);
        }
        self.summary = self.summary_with_chunks();
        self.chunks = ChunkWriter::new(self.passage.session(), self.options.packs, self.passage.on_stored());
        self.checkpoint = self.passage.repo().world.now();
        Ok(())
    }

    /// Commits what is stored so far because a stop was asked for.
    fn stop(&mut self, file: Option<(&Fresh, &FilePieces)>) -> Halt {
        if self.options.variation.dry_run {
            return Halt::Stopped { kept: false };
        }
        if self.chunks.added_bytes() == 0 || self.open.is_empty() {
            return Halt::Stopped { kept: !self.passage.superseded().is_empty() };
        }
        match self.commit_checkpoint(file) {
            Ok((_, outcome)) => Halt::Stopped { kept: outcome == Outcome::Made },
            Err(error) => Halt::Failed(error),
        }
    }

    fn commit_checkpoint(&mut self, file: Option<(&Fresh, &FilePieces)>) -> Result<(Vec<PackId>, Outcome)> {
        let root = self.tree_so_far(file)?;
        self.chunks.flush()?;
        let snapshot = self.passage.snapshot(root, self.summary_with_chunks());
        let packs = self.chunks.close(Some(&snapshot))?;
        let ids = packs.iter().map(|pack| pack.id).collect();
        let session = self.chunks.session().id();
        let outcome = self.passage.commit(CommitKind::Checkpoint, packs, &snapshot)?;
        if let Some(Err(error)) = self.record.as_mut().map(|record| record.checkpoint(session)) {
            self.lose_record(&error);
        }
        Ok((ids, outcome))
    }

    /// What the backup did so far, with what the session at work has stored.
    fn summary_with_chunks(&self) -> Summary {
        Summary {
            data_added: self.summary.data_added + self.chunks.added_bytes(),
            data_added_packed: self.summary.data_added_packed + self.chunks.sealed_bytes(),
            ..self.summary
        }
    }

    /// The entry of `/` as if the walk ended here: what is open is closed as it stands, and said
    /// to be incomplete.
    fn tree_so_far(&mut self, file: Option<(&Fresh, &FilePieces)>) -> Result<Entry> {
        let mut inner = None;
        if let Some((fresh, pieces)) = file {
            let content = pieces.content.clone().finish(self.ids, &mut self.chunks)?;
            let detail = Detail::File { size: pieces.bytes, content, holes: Vec::new() };
            inner = Some(Entry { detail, ..fresh.entry.clone() });
        }
        for open in self.open.iter_mut().rev() {
            let left = open.so_far(inner, self.ids, &mut self.chunks)?;
            inner = Some(directory(&open.fresh, &left));
        }
        inner.ok_or_else(|| Error::new(Kind::Failed, "no checkpoint was made: the walk has not begun"))
    }

    fn lose_record(&mut self, error: &std::io::Error) {
        record::warn_lost(self.monitor, "change record", error);
        self.record = None;
    }

    /// Writes to the change record, as long as there is one.
    fn note(&mut self, write: impl FnOnce(&mut RecordWriter) -> std::io::Result<()>) {
        if let Some(writer) = &mut self.record
            && let Err(error) = write(writer)
        {
            self.lose_record(&error);
        }
    }

    /// Takes the next piece of the file at hand.
    fn add_piece(&mut self, pieces: &mut FilePieces, piece: Piece) -> Result<()> {
        pieces.bytes += piece.bytes();
        let row = pieces.row.push(&piece);
        self.note_pieces(pieces, row);
        pieces.content.push(self.ids, piece, &mut self.chunks)
    }

    fn note_pieces(&mut self, pieces: &mut FilePieces, row: Option<Vec<u8>>) {
        if let Some(row) = row {
            pieces.recorded = true;
            self.note(|record| record.pieces(&row));
        }
    }

    /// Gives the content of a file all of whose pieces were taken.
    fn finish_pieces(&mut self, mut pieces: FilePieces) -> Result<Content> {
        let content = std::mem::take(&mut pieces.content).finish(self.ids, &mut self.chunks)?;
        if matches!(content, Content::List { .. }) {
            let row = pieces.row.take();
            self.note_pieces(&mut pieces, row);
        }
        Ok(content)
    }

    /// Lets nobody take a file's pieces for those of the next.
    fn void(&mut self, pieces: &FilePieces) {
        if pieces.recorded {
            self.note(|record| record.pieces(&[]));
        }
    }

    /// Takes recorded pieces of a large file that is not read.
    fn hand_on(&mut self, row: Vec<u8>, upheld: bool) -> Result<()> {
        let mut pieces = self.handed_on.take().unwrap_or_default();
        if !upheld {
            for piece in pieces_of(&row) {
                let piece = piece.context(|| "no snapshot was made: the change record is damaged")?;
                pieces.content.push(self.ids, piece, &mut self.chunks)?;
            }
        }
        pieces.recorded = true;
        self.handed_on = Some(pieces);
        self.note(|record| record.pieces(&row));
        Ok(())
    }

    /// Makes sure that the list of an unmodified large file is there.
    ///
    /// Where all that the earlier run relied on stands it is. Else it was made anew of the
    /// recorded pieces, and must have come out as it was: other pieces make another list.
    fn handed_over(&mut self, fresh: &Fresh) -> Result<()> {
        let (Some(pieces), Detail::File { content, .. }) = (self.handed_on.take(), &fresh.entry.detail) else {
            return Ok(());
        };
        let made = pieces.content.finish(self.ids, &mut self.chunks)?;
        if made != *content && made != Content::Inline(Vec::new()) {
            let name = fresh.entry.name.as_ref().map(|name| name.as_os().display().to_string()).unwrap_or_default();
            let what = format!("no snapshot was made: the change record has other pieces for `{name}`");
            return Err(Error::new(Kind::Failed, what).hint("to read every file again, add `--force`"));
        }
        Ok(())
    }

    fn enter(&mut self, fresh: Fresh, known: bool, whole: bool, untouched: bool) {
        self.note(|record| record.enter(&fresh.entry, fresh.ctime, fresh.ino));
        // A mount that is not entered is below a root all the same.
        let whole = whole || self.open.last().is_some_and(|around| around.whole);
        self.open.push(OpenDirectory::new(fresh, known, whole, untouched));
    }

    /// The directory at hand, which every entry is in.
    fn around(open: &mut [OpenDirectory]) -> Result<&mut OpenDirectory> {
        let nothing = || Error::new(Kind::Failed, "no snapshot was made: an entry stands outside of any directory");
        open.last_mut().ok_or_else(nothing)
    }

    /// Takes entries that are as they were.
    fn untouched(&mut self, rows: Vec<u8>, entries: u64, bytes: u64) -> Result<()> {
        self.summary.files_unmodified += entries;
        self.summary.total_files_processed += entries;
        self.summary.total_bytes_processed += bytes;
        self.monitor.done(entries, bytes);
        self.note(|record| record.rows(&rows));
        Self::around(&mut self.open)?.add_untouched(rows, self.ids, &mut self.chunks)
    }

    /// Takes note of an entry about to be added to the directory at hand if it is at a root.
    fn note_chosen(&mut self, entry: &Entry, whole: bool) {
        if whole && self.open.last().is_none_or(|around| !around.whole) {
            let mut path = TreePath::root();
            let above = self.open.iter().filter_map(|around| around.fresh.entry.name.as_ref());
            above.chain(entry.name.as_ref()).for_each(|name| path.push(name));
            self.chosen.add(&path, entry);
        }
    }

    /// What the roots hold, once every step was taken.
    pub(super) fn chosen(&self) -> Digest {
        self.chosen.finish()
    }

    /// Whether a pack was begun, some of which may be stored by now.
    pub(super) fn has_begun_packs(&self) -> bool {
        self.chunks.has_begun()
    }

    /// What was seen so far.
    pub(super) fn summary(&self) -> Summary {
        self.summary
    }

    /// Problems with files that were read.
    pub(super) fn problems(&self) -> u64 {
        self.problems
    }

    fn leave(&mut self, incomplete: bool, old: Option<(Left, bool)>) -> Result<()> {
        let Some(open) = self.open.pop() else {
            return Err(Error::new(Kind::Failed, "no snapshot was made: the walk left more than it entered"));
        };
        let (known, whole) = (open.known, open.whole);
        let (fresh, left, untouched) = open.leave(incomplete, old, self.ids, &mut self.chunks)?;
        match old {
            _ if !known => self.summary.dirs_new += 1,
            Some((old, _)) if (old.id, old.level) == (left.id, left.level) => self.summary.dirs_unmodified += 1,
            _ => self.summary.dirs_changed += 1,
        }
        self.note(|record| record.leave(&left));
        let entry = directory(&fresh, &left);
        self.monitor.done(1, 0);
        self.note_chosen(&entry, whole);
        match self.open.last_mut() {
            Some(around) => around.add_directory(entry, untouched, self.ids, &mut self.chunks),
            None => {
                self.root = Some(entry);
                Ok(())
            }
        }
    }

    /// Adds an entry that is complete.
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
        self.note(|record| record.item(&fresh.entry, fresh.ctime, fresh.ino));
        let entry = fresh.entry;
        self.note_chosen(&entry, true);
        Self::around(&mut self.open)?.add(entry, self.ids, &mut self.chunks)
    }

    /// Takes a file's parts from its unit.
    fn file(&mut self, fresh: Fresh, path: &TreePath, known: bool) -> Result<(), Halt> {
        let mut unit = std::mem::take(&mut self.unit);
        let taken = self.file_of(&mut unit, fresh, path, known);
        self.unit = unit;
        taken
    }

    fn file_of(&mut self, unit: &mut Expected, fresh: Fresh, path: &TreePath, known: bool) -> Result<(), Halt> {
        let mut pieces = FilePieces::default();
        let mut counted = 0;
        loop {
            if self.monitor.stopping() {
                return Err(self.stop(Some((&fresh, &pieces))));
            }
            if self.checkpoint_is_due() {
                self.pass_checkpoint(Some((&fresh, &pieces)))?;
            }
            let Some((part, bytes)) = unit.next_part() else {
                let what = format!("no snapshot was made: reading `{path}` stopped");
                return Err(Error::new(Kind::Failed, what).into());
            };
            if part.restart {
                self.void(&std::mem::take(&mut pieces));
                self.monitor.undone(std::mem::take(&mut counted));
            }
            // A large file is seen to move on.
            let part_bytes = part.bytes();
            counted += part_bytes;
            self.monitor.done(0, part_bytes);
            for (piece, place) in part.pieces {
                if let Piece::Chunk { id, .. } = piece {
                    self.chunks.add(ChunkKind::Data, id, &bytes[place])?;
                }
                self.add_piece(&mut pieces, piece)?;
            }
            match part.done {
                None => {}
                Some(Ok(done)) => return Ok(self.file_read(fresh, path, known, pieces, done)?),
                Some(Err(problem)) => {
                    self.void(&pieces);
                    self.file_failed(path, &problem);
                    return Ok(());
                }
            }
        }
    }

    /// Takes a stream's parts from its unit. Its pieces go straight into list nodes, so that it may
    /// be of any length.
    fn stream(&mut self, mut fresh: Fresh, path: &TreePath, old: Option<&Detail>) -> Result<(), Halt> {
        let mut builder = ContentBuilder::default();
        let mut size = 0;
        loop {
            if self.monitor.stopping() {
                return Err(self.stop(None));
            }
            if self.checkpoint_is_due() {
                self.pass_checkpoint(None)?;
            }
            let Some((part, bytes)) = self.unit.next_part() else {
                let what = format!("no snapshot was made: reading `{path}` stopped");
                return Err(Error::new(Kind::Failed, what).into());
            };
            let part_bytes = part.bytes();
            size += part_bytes;
            self.monitor.done(0, part_bytes);
            self.chunks.session().show_alive();
            for (piece, place) in part.pieces {
                if let Piece::Chunk { id, .. } = piece {
                    self.chunks.add(ChunkKind::Data, id, &bytes[place])?;
                }
                builder.push(self.ids, piece, &mut self.chunks)?;
            }
            if part.last {
                break;
            }
        }
        let content = builder.finish(self.ids, &mut self.chunks)?;
        let detail = Detail::File { size, content, holes: Vec::new() };
        let status = match old {
            None => Status::New,
            Some(old) if *old == detail => Status::Unmodified,
            Some(_) => Status::Changed,
        };
        fresh.entry.detail = detail;
        Ok(self.ready(fresh, status)?)
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
        pieces: FilePieces,
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
        let size = pieces.bytes;
        if done.unstable {
            self.summary.files_unreadable += 1;
            self.problem(path, "it kept changing while it was read; what was read is in the snapshot".into());
            // No run may take this for what the file is.
            fresh.ctime = Time { secs: i64::MIN, nanos: 0 };
        }
        let holes = done.holes.into_iter().filter(|hole| hole.offset + hole.bytes <= size).collect();
        fresh.entry.detail = Detail::File { size, content: self.finish_pieces(pieces)?, holes };
        self.ready(fresh, if known { Status::Changed } else { Status::New })
    }

    /// Seals what is left and sums up.
    pub(super) fn finish(mut self, root: Entry) -> Result<Sequenced<'r>> {
        self.chunks.flush()?;
        let summary = self.summary_with_chunks();
        Ok(Sequenced { chunks: self.chunks, record: self.record, root, summary })
    }
}

impl Sequenced<'_> {
    /// Ends the last pack with a copy of the snapshot record and gives the session's packs.
    pub(super) fn close(&mut self, snapshot: &Snapshot) -> Result<Vec<PackEntry>> {
        self.chunks.close(Some(snapshot))
    }
}

/// The entry of a directory that was left.
fn directory(fresh: &Fresh, left: &Left) -> Entry {
    let Left { id, level, totals, incomplete } = *left;
    Entry { detail: Detail::Directory { id, level, totals, incomplete }, ..fresh.entry.clone() }
}
