//! A directory that was entered and not yet left: rebuilt only if something in it changed.
//!
//! As long as all that comes is as the parent's record says, and the record may be relied on, the
//! entries are held as they were recorded. If at the end everything that was in the directory came,
//! it is the directory that is stored already, and nothing of it is encoded, hashed or looked up.
//! The first entry that differs has those before it put into nodes.

use super::follow::Fresh;
use super::rows::{Left, Row, rows_of};
use crate::crypto::ident::IdKeys;
use crate::error::{Context, Result};
use crate::format::tree::{Entry, Totals};
use crate::repo::tree::{DirectoryBuilder, NodeSink};

/// Rows of a directory that are held; with more of them it is rebuilt anyway.
const HELD_BYTES_MAX: usize = 256 << 10;

/// What came and was not put into nodes, in order.
enum Held {
    Rows(Vec<u8>),
    Directory(Box<Entry>),
}

/// A directory being walked.
pub(super) struct OpenDirectory {
    pub(super) fresh: Fresh,
    pub(super) known: bool,
    /// It is a root or below one.
    pub(super) whole: bool,
    /// Its own attributes are those recorded.
    untouched: bool,
    builder: DirectoryBuilder,
    totals: Totals,
    held: Option<Vec<Held>>,
    held_bytes: usize,
}

impl OpenDirectory {
    pub(super) fn new(fresh: Fresh, known: bool, whole: bool, untouched: bool) -> Self {
        Self {
            fresh,
            known,
            whole,
            untouched,
            builder: DirectoryBuilder::default(),
            totals: Totals::default(),
            held: known.then(Vec::new),
            held_bytes: 0,
        }
    }

    /// Takes rows of entries that are as they were.
    pub(super) fn add_untouched(&mut self, rows: Vec<u8>, ids: &IdKeys, sink: &mut dyn NodeSink) -> Result<()> {
        self.held_bytes += rows.len();
        match &mut self.held {
            Some(held) => held.push(Held::Rows(rows)),
            None => self.build(Held::Rows(rows), ids, sink)?,
        }
        if self.held_bytes > HELD_BYTES_MAX { self.settle(ids, sink) } else { Ok(()) }
    }

    /// Takes a directory that was left, and whether it is as it was in every respect.
    pub(super) fn add_directory(
        &mut self,
        entry: Entry,
        untouched: bool,
        ids: &IdKeys,
        sink: &mut dyn NodeSink,
    ) -> Result<()> {
        match &mut self.held {
            Some(held) if untouched => {
                held.push(Held::Directory(Box::new(entry)));
                Ok(())
            }
            _ => self.add(entry, ids, sink),
        }
    }

    /// Takes the next entry.
    pub(super) fn add(&mut self, entry: Entry, ids: &IdKeys, sink: &mut dyn NodeSink) -> Result<()> {
        self.settle(ids, sink)?;
        self.push(entry, ids, sink)
    }

    fn push(&mut self, entry: Entry, ids: &IdKeys, sink: &mut dyn NodeSink) -> Result<()> {
        self.totals.add(entry.totals());
        self.builder.push(ids, entry, sink)
    }

    fn build(&mut self, held: Held, ids: &IdKeys, sink: &mut dyn NodeSink) -> Result<()> {
        let what = || "no snapshot was made: the change record is damaged";
        match held {
            Held::Directory(entry) => self.push(*entry, ids, sink),
            Held::Rows(rows) => rows_of(&rows).try_for_each(|row| match row.context(what)? {
                Row::Item(seen) => self.push(seen.entry().context(what)?, ids, sink),
                _ => Ok(()),
            }),
        }
    }

    /// Puts what is held into nodes: from here on the directory is rebuilt.
    pub(super) fn settle(&mut self, ids: &IdKeys, sink: &mut dyn NodeSink) -> Result<()> {
        self.held.take().into_iter().flatten().try_for_each(|held| self.build(held, ids, sink))
    }

    /// Ends the directory. `old` is what it was in the parent and whether all of that came. Gives what
    /// it is, its own entry's attributes apart, and whether those and everything else are as before.
    pub(super) fn leave(
        mut self,
        incomplete: bool,
        old: Option<(Left, bool)>,
        ids: &IdKeys,
        sink: &mut dyn NodeSink,
    ) -> Result<(Fresh, Left, bool)> {
        if let (Some(_), Some((old, true))) = (&self.held, old)
            && !old.incomplete
            && !incomplete
        {
            return Ok((self.fresh, old, self.untouched));
        }
        self.settle(ids, sink)?;
        let (id, level) = self.builder.finish(ids, sink)?;
        Ok((self.fresh, Left { id, level, totals: self.totals, incomplete }, false))
    }

    /// What it would be if the walk ended here, with `inner` as its last entry.
    pub(super) fn so_far(&mut self, inner: Option<Entry>, ids: &IdKeys, sink: &mut dyn NodeSink) -> Result<Left> {
        self.settle(ids, sink)?;
        let (mut builder, mut totals) = (self.builder.clone(), self.totals);
        if let Some(entry) = inner {
            totals.add(entry.totals());
            builder.push(ids, entry, sink)?;
        }
        let (id, level) = builder.finish(ids, sink)?;
        Ok(Left { id, level, totals, incomplete: true })
    }
}
