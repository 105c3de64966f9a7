//! Comparing: what was added, removed and changed from one tree of a snapshot to another, or to a directory.
//!
//! Both sides are gone through in one order, each with a walk of its own, and what is at the same path is
//! compared. A directory that is the same node on both sides is passed over unread. Nothing is remembered but
//! where each side is, so memory does not grow.
//!
//! Where one side could not be read, what the other has there is neither added nor removed; it is not known.

use std::cmp::Ordering;

use crate::error::{Error, Kind, Result};
use crate::format::tree::{Attributes, Detail, Entry};
use crate::path::TreePath;
use crate::repo::compare::compare;
use crate::repo::reader::ReadRepo;

mod links;
pub mod local;
mod side;
#[cfg(test)]
mod tests;

use links::Links;
use local::Local;
use side::{Item, Side};

/// What to compare besides types and content.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Owners, modes, times and extended attributes, too.
    pub metadata: bool,
    /// Read files of a local directory whose size and mtime say that they are the same.
    pub content: bool,
    /// The local directory was restored from the first tree, and nobody has changed it since.
    pub restored: Option<Restored>,
}

/// How a local directory was restored. Hard links are compared then, too, and what a system adds to new files by
/// itself is no difference.
#[derive(Debug, Clone, Copy)]
pub struct Restored {
    /// Whether owners and what else only root may set were.
    pub privileged: bool,
}

/// What the first tree is compared with.
#[derive(Debug)]
pub enum With {
    /// Another tree of the repository.
    Entry(Box<Entry>),
    /// A local directory or file.
    Local(Local),
}

/// How an entry that is on both sides differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modified {
    /// It is something else.
    pub kind: bool,
    /// Other bytes, another target of a link, another device.
    pub content: bool,
    /// Other bytes although size and mtime are the same.
    pub silent: bool,
    /// Other attributes; told only if that was asked for.
    pub metadata: bool,
    /// It is one file with others than it was; told only of what was restored.
    pub links: bool,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is on the second side only.
    Added,
    /// It is on the first side only.
    Removed,
    /// It is on both sides.
    Modified(Modified),
}

/// What is told as it is found.
#[derive(Debug)]
pub enum Found<'a> {
    /// A difference, and the entry it is about: of what was modified, the second side's.
    Change(Change, &'a TreePath, &'a Entry),
    /// Something that could not be read.
    Unread(&'a TreePath, Error),
}

/// How many of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Links, pipes, devices.
    pub others: u64,
    /// Bytes of the files, with those of files that were modified.
    pub bytes: u64,
}

impl Counts {
    fn add(&mut self, entry: &Entry) {
        match entry.detail {
            Detail::File { .. } => self.files += 1,
            Detail::Directory { .. } => self.directories += 1,
            _ => self.others += 1,
        }
        self.bytes = self.bytes.saturating_add(entry.size());
    }
}

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// On the second side only.
    pub added: Counts,
    /// On the first side only.
    pub removed: Counts,
    /// Files with other bytes.
    pub changed_files: u64,
    /// Links and devices that lead elsewhere.
    pub changed_others: u64,
    /// Entries that became something else.
    pub changed_types: u64,
    /// Entries of which only attributes differ.
    pub changed_metadata: u64,
    /// Names that are one file with others than they were.
    pub changed_links: u64,
    /// What could not be read.
    pub unread: u64,
}

/// Compares what is at and below `before` with what is at and below `with`. Paths are told as if both were
/// at `base`; the two themselves are compared only if one is no directory.
pub fn run<R: ReadRepo + ?Sized>(
    repo: &R,
    before: &Entry,
    with: With,
    base: &TreePath,
    options: Options,
    each: &mut dyn FnMut(Found<'_>) -> Result<()>,
) -> Result<Summary> {
    let (first, second) = (Item::of(base, before.clone()), with.start(base)?);
    let is_directory = |item: &Item| matches!(item.entry.detail, Detail::Directory { .. });
    let whole = is_directory(&first) && is_directory(&second);
    let links = match &with {
        With::Local(local) if options.restored.is_some() => Some(Links::new(&local.spill)),
        _ => None,
    };
    let mut diff = Diff { repo, options, each, summary: Summary::default(), links };
    if !whole {
        diff.both(&first, &second)?;
    }
    let mut sides = [Side::tree(repo, base, before), with.side(repo, base)];
    loop {
        let [before, after] = &mut sides;
        let (a, b) = (before.head(&mut diff)?, after.head(&mut diff)?);
        let order = match (a, b) {
            (None, None) => return Ok(diff.summary),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.path.in_walk_order(&b.path),
        };
        match order {
            Ordering::Less => {
                let item = before.take();
                if !after.is_unread(&item.path) {
                    diff.one(Change::Removed, &item)?;
                }
            }
            Ordering::Greater => {
                let item = after.take();
                if !before.is_unread(&item.path) {
                    diff.one(Change::Added, &item)?;
                }
            }
            Ordering::Equal => {
                let (a, b) = (before.take(), after.take());
                diff.both(&a, &b)?;
                if matches!((&a.entry.detail, &b.entry.detail),
                    (Detail::Directory { id: a, level: below_a, .. }, Detail::Directory { id: b, level: below_b, .. })
                        if (a, below_a) == (b, below_b))
                    && b.file.is_none()
                    && before.pass_over()
                {
                    after.pass_over();
                }
            }
        }
    }
}

fn without_names(entry: &Entry) -> Entry {
    let attributes = Attributes { user: None, group: None, ..entry.attributes.clone() };
    Entry { attributes, ..entry.clone() }
}

/// Both sides without what a restore that went well need not bring back.
fn as_restored(recorded: &Entry, found: &Entry, how: Restored) -> (Entry, Entry) {
    let mut recorded = without_names(recorded);
    let mut found = found.clone();
    let Attributes { uid, gid, .. } = found.attributes;
    if !how.privileged {
        recorded.attributes = recorded.attributes.without_privilege(uid, gid);
        found.attributes = found.attributes.without_privilege(uid, gid);
    }
    // Such as the label that a policy gives every new file.
    found.attributes.xattrs.retain(|xattr| {
        let is_ours = xattr.name.starts_with(b"user.") || xattr.name.starts_with(b"system.posix_acl_");
        is_ours || recorded.attributes.xattrs.iter().any(|wanted| wanted.name == xattr.name)
    });
    (recorded, found)
}

/// A comparison under way.
struct Diff<'a, R: ?Sized> {
    repo: &'a R,
    options: Options,
    each: &'a mut dyn FnMut(Found<'_>) -> Result<()>,
    summary: Summary,
    links: Option<Links>,
}

impl<R: ReadRepo + ?Sized> Diff<'_, R> {
    fn one(&mut self, change: Change, item: &Item) -> Result<()> {
        match change {
            Change::Removed => self.summary.removed.add(&item.entry),
            _ => self.summary.added.add(&item.entry),
        }
        (self.each)(Found::Change(change, &item.path, &item.entry))
    }

    fn both(&mut self, before: &Item, after: &Item) -> Result<()> {
        let (a, b) = (&before.entry, &after.entry);
        let differences = match after.file {
            None => compare(a, b),
            Some(_) => match self.options.restored {
                None => compare(&without_names(a), b),
                Some(how) => {
                    let (a, b) = as_restored(a, b, how);
                    compare(&a, &b)
                }
            },
        };
        let is_directory = matches!(b.detail, Detail::Directory { .. });
        let content = match (&a.detail, &after.file) {
            _ if differences.kind || is_directory => false,
            (Detail::File { size, content, .. }, Some(file)) => {
                let looks_same = *size == b.size() && a.attributes.mtime == b.attributes.mtime;
                if *size != b.size() {
                    true
                } else if looks_same && !self.options.content {
                    false
                } else {
                    match file.is_other_than(self.repo, content) {
                        Ok(is_other) => is_other,
                        Err(error) => return self.unread(&after.path, error),
                    }
                }
            }
            _ => differences.content,
        };
        let is_file = matches!(b.detail, Detail::File { .. });
        let links = match (&after.file, &mut self.links) {
            (Some(file), Some(links)) if !is_directory => !links.holds(a.attributes.link_group, file.stat()),
            _ => false,
        };
        let modified = Modified {
            links,
            kind: differences.kind,
            content,
            silent: content && is_file && a.size() == b.size() && a.attributes.mtime == b.attributes.mtime,
            metadata: self.options.metadata && !content && differences.attributes,
        };
        if modified == Modified::default() {
            return Ok(());
        }
        let count = match modified {
            Modified { kind: true, .. } => &mut self.summary.changed_types,
            Modified { content: true, .. } if is_file => &mut self.summary.changed_files,
            Modified { content: true, .. } => &mut self.summary.changed_others,
            Modified { links: true, .. } => &mut self.summary.changed_links,
            _ => &mut self.summary.changed_metadata,
        };
        *count += 1;
        if modified.kind || modified.content {
            self.summary.removed.bytes = self.summary.removed.bytes.saturating_add(a.size());
            self.summary.added.bytes = self.summary.added.bytes.saturating_add(b.size());
        }
        (self.each)(Found::Change(Change::Modified(modified), &after.path, b))
    }

    fn unread(&mut self, path: &TreePath, error: Error) -> Result<()> {
        if !matches!(error.kind(), Kind::Damaged | Kind::Failed) {
            return Err(error);
        }
        self.summary.unread += 1;
        (self.each)(Found::Unread(path, error))
    }
}
