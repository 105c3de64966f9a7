//! A tree without some of its entries: what `rewrite` and `repair snapshots` make of one (SPEC §6).
//!
//! The tree is walked; a [`Choice`] says of each entry whether it stays, goes, or is looked into. A
//! directory is written again only from the first of its entries that does not stay as it is, so one
//! in which everything stays is taken over as it is stored, and so is, unopened, what is not looked
//! into. Those written again are cut like any other, so the tree is the one that a backup of just what
//! is left would have made. In memory are a few nodes of each directory around what is looked at.
//!
//! Files that are one file go by the first of their paths (SPEC §6.5). When that goes the others go by
//! the first of theirs, so from then on every directory is looked into.

use std::collections::HashMap;
use std::path::Path;

use super::reader::{Entries, ReadNodes};
use super::tree::{DirectoryBuilder, NodeSink};
use super::walk::Walk;
use crate::crypto::ident::IdKeys;
use crate::error::{Context, Error, Kind, Result};
use crate::format::tree::{Detail, Entry, Totals};
use crate::id::LinkGroup;
use crate::index::Spilled;
use crate::monitor::Monitor;
use crate::path::{Name, TreePath};

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, with all that is below it.
    Keep,
    /// A directory that stays, of which it is asked what stays in it.
    Look,
    /// It goes, with all that is below it.
    Drop,
}

/// Says what stays.
pub trait Choice {
    /// What becomes of an entry. An error ends the work.
    fn of(&mut self, path: &TreePath, entry: &Entry) -> Result<Verdict>;

    /// Some of a directory, at `path`, cannot be read. It goes, unless that is an error.
    fn lost(&mut self, path: &TreePath, error: Error) -> Result<()>;

    /// All of a directory that was looked into stays as it is.
    fn stays(&mut self, _: &Entry) {}
}

/// A tree that was trimmed.
#[derive(Debug, Clone)]
pub struct Trimmed {
    /// Its root: the old one where nothing went.
    pub root: Entry,
    /// Whether it is another.
    pub is_other: bool,
    /// What went, by what the old one says it had.
    pub gone: Totals,
}

impl Trimmed {
    /// A tree of which nothing went.
    pub fn unchanged(root: &Entry) -> Self {
        Self { root: root.clone(), is_other: false, gone: Totals::default() }
    }
}

/// A directory around what is looked at.
struct Open {
    entry: Entry,
    /// Of the entries before the one that is looked at, the last.
    last: Option<Name>,
    /// What it becomes, once that is something else.
    made: Option<Made>,
    /// Whether it was only opened to name link groups anew.
    keeps_all: bool,
}

#[derive(Default)]
struct Made {
    builder: DirectoryBuilder,
    totals: Totals,
    is_cut_short: bool,
}

struct Trim<'a, R: ?Sized> {
    repo: &'a R,
    ids: &'a IdKeys,
    sink: &'a mut dyn NodeSink,
    open: Vec<Open>,
    links: Links,
}

/// Trims the tree below `root`. New nodes go to `sink`; files go to the directory `spill` where there is
/// more to remember than memory has room for.
pub fn trim<R: ReadNodes + ?Sized>(
    repo: &R,
    ids: &IdKeys,
    root: &Entry,
    choice: &mut dyn Choice,
    sink: &mut dyn NodeSink,
    spill: &Path,
    monitor: &Monitor,
) -> Result<Trimmed> {
    let mut trim = Trim { repo, ids, sink, open: Vec::new(), links: Links::new(spill) };
    trim.enter(root.clone(), false);
    let mut walk = Walk::below(repo, TreePath::root(), root);
    while let Some(entry) = walk.next() {
        if monitor.stopping() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        while trim.open.len() > walk.depth() {
            trim.leave(choice)?;
        }
        match entry {
            Ok(entry) => {
                monitor.done(1, 0);
                if !trim.take(entry, walk.path(), choice)? {
                    walk.pass_over();
                }
            }
            Err(error) => {
                choice.lost(walk.path(), error)?;
                trim.made()?.is_cut_short = true;
            }
        }
    }
    let mut made = None;
    while !trim.open.is_empty() {
        made = trim.leave(choice)?;
    }
    let is_other = made.is_some();
    let root_now = made.unwrap_or_else(|| root.clone());
    let gone = less(root.totals(), root_now.totals());
    Ok(Trimmed { root: root_now, is_other, gone })
}

impl<R: ReadNodes + ?Sized> Trim<'_, R> {
    fn enter(&mut self, entry: Entry, keeps_all: bool) {
        self.open.push(Open { entry, last: None, made: None, keeps_all });
    }

    /// Takes the next entry; says whether to go below it.
    fn take(&mut self, entry: Entry, path: &TreePath, choice: &mut dyn Choice) -> Result<bool> {
        let around = self.open.last().ok_or_else(outside)?;
        let verdict = if around.keeps_all { Verdict::Keep } else { choice.of(path, &entry)? };
        let is_directory = matches!(entry.detail, Detail::Directory { .. });
        match verdict {
            Verdict::Drop => {
                self.links.first_goes(self.repo, self.ids, &entry, path)?;
                self.made()?;
                self.around()?.last.clone_from(&entry.name);
                Ok(false)
            }
            _ if is_directory && (verdict == Verdict::Look || self.links.are_renamed()) => {
                self.enter(entry, verdict == Verdict::Keep);
                Ok(true)
            }
            _ => {
                let renamed = self.links.rename(self.ids, &entry, path)?;
                self.keep(entry, renamed)?;
                Ok(false)
            }
        }
    }

    fn around(&mut self) -> Result<&mut Open> {
        self.open.last_mut().ok_or_else(outside)
    }

    /// What the directory at hand becomes, begun with all before what is looked at.
    fn made(&mut self) -> Result<&mut Made> {
        let around = self.open.last_mut().ok_or_else(outside)?;
        if around.made.is_none() {
            let mut made = Made::default();
            if let (Some(last), Detail::Directory { id, level, .. }) = (&around.last, &around.entry.detail) {
                for entry in Entries::new(self.repo, *id, *level) {
                    let entry = entry?;
                    let is_last = entry.name.as_ref() >= Some(last);
                    made.totals.add(entry.totals());
                    made.builder.push(self.ids, entry, self.sink)?;
                    if is_last {
                        break;
                    }
                }
            }
            around.made = Some(made);
        }
        around.made.as_mut().ok_or_else(outside)
    }

    /// Keeps an entry in the directory at hand, as it is or as it has become.
    fn keep(&mut self, old: Entry, new: Option<Entry>) -> Result<()> {
        let name = old.name.clone();
        let is_new = new.is_some();
        let entry = new.unwrap_or(old);
        if is_new || self.around()?.made.is_some() {
            self.made()?;
            let around = self.open.last_mut().ok_or_else(outside)?;
            if let Some(made) = &mut around.made {
                made.totals.add(entry.totals());
                made.builder.push(self.ids, entry, self.sink)?;
            }
        }
        self.around()?.last = name;
        Ok(())
    }

    /// Ends the directory at hand; gives what it has become, if it is another.
    fn leave(&mut self, choice: &mut dyn Choice) -> Result<Option<Entry>> {
        let Open { entry, made, keeps_all, .. } = self.open.pop().ok_or_else(outside)?;
        let made = match made {
            Some(made) => Some(self.directory(&entry, made)?),
            None => {
                if !keeps_all {
                    choice.stays(&entry);
                }
                None
            }
        };
        if !self.open.is_empty() {
            self.keep(entry, made.clone())?;
        }
        Ok(made)
    }

    fn directory(&mut self, old: &Entry, made: Made) -> Result<Entry> {
        let Made { builder, totals, is_cut_short } = made;
        let (id, level) = builder.finish(self.ids, self.sink)?;
        let was_incomplete = matches!(old.detail, Detail::Directory { incomplete: true, .. });
        let incomplete = is_cut_short || was_incomplete;
        Ok(Entry { detail: Detail::Directory { id, level, totals, incomplete }, ..old.clone() })
    }
}

fn outside() -> Error {
    Error::new(Kind::Damaged, "an entry stands outside of any directory")
}

fn less(all: Totals, of: Totals) -> Totals {
    Totals {
        files: all.files.saturating_sub(of.files),
        directories: all.directories.saturating_sub(of.directories),
        bytes: all.bytes.saturating_sub(of.bytes),
    }
}

/// Groups of links remembered in memory before they go to files.
const GROUPS_MAX: usize = 100_000;

/// Groups of links whose first path went, and what they go by since.
struct Links {
    orphaned: Groups,
    renamed: Groups,
}

impl Links {
    fn new(spill: &Path) -> Self {
        Self { orphaned: Groups::new(spill), renamed: Groups::new(spill) }
    }

    fn are_renamed(&self) -> bool {
        !self.orphaned.is_empty()
    }

    /// Notes the groups whose first path is that of an entry that goes, or below it.
    fn first_goes<R: ReadNodes + ?Sized>(
        &mut self,
        repo: &R,
        ids: &IdKeys,
        entry: &Entry,
        path: &TreePath,
    ) -> Result<()> {
        self.note(ids, entry, path)?;
        let mut below = Walk::below(repo, path.clone(), entry);
        while let Some(entry) = below.next() {
            match entry {
                Ok(entry) => self.note(ids, &entry, below.path())?,
                // What is lost of what goes nobody needs.
                Err(error) if error.kind() == Kind::Damaged => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn note(&mut self, ids: &IdKeys, entry: &Entry, path: &TreePath) -> Result<()> {
        match entry.attributes.link_group {
            Some(group) if group == ids.link_group(path.as_bytes()) => self.orphaned.add(group, group),
            _ => Ok(()),
        }
    }

    /// The entry by the name its group has now, if that is another.
    fn rename(&mut self, ids: &IdKeys, entry: &Entry, path: &TreePath) -> Result<Option<Entry>> {
        let Some(group) = entry.attributes.link_group.filter(|group| self.orphaned.get(group).is_some()) else {
            return Ok(None);
        };
        let renamed = match self.renamed.get(&group) {
            Some(renamed) => renamed,
            None => {
                let first = ids.link_group(path.as_bytes());
                self.renamed.add(group, first)?;
                first
            }
        };
        let mut entry = entry.clone();
        entry.attributes.link_group = Some(renamed);
        Ok(Some(entry))
    }
}

/// A group of links for each of any number of them.
struct Groups {
    recent: HashMap<LinkGroup, LinkGroup>,
    spilled: Spilled<48>,
}

impl Groups {
    fn new(spill: &Path) -> Self {
        Self { recent: HashMap::new(), spilled: Spilled::new(spill) }
    }

    fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.spilled.rows() == 0
    }

    fn get(&self, group: &LinkGroup) -> Option<LinkGroup> {
        if let Some(found) = self.recent.get(group) {
            return Some(*found);
        }
        let row = self.spilled.find(&key_of(group))?;
        row.last_chunk().copied().map(LinkGroup::from_bytes)
    }

    fn add(&mut self, group: LinkGroup, to: LinkGroup) -> Result<()> {
        if self.get(&group).is_some() {
            return Ok(());
        }
        if self.recent.len() >= GROUPS_MAX {
            let row = |(group, to): (&LinkGroup, &LinkGroup)| {
                let mut row = [0; 48];
                row[..32].copy_from_slice(&key_of(group));
                row[32..].copy_from_slice(to.as_bytes());
                row
            };
            let rows = self.recent.iter().map(row).collect();
            self.spilled.add(rows).context(|| "cannot remember which files have several names")?;
            self.recent.clear();
        }
        self.recent.insert(group, to);
        Ok(())
    }
}

/// Evenly spread, whatever a group is.
fn key_of(group: &LinkGroup) -> [u8; 32] {
    *blake3::hash(group.as_bytes()).as_bytes()
}
