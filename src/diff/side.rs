//! One of the two trees that are compared, as a sequence of entries.

use super::local::{File, Steps};
use super::{Diff, With};
use crate::error::{Error, Result};
use crate::format::tree::Entry;
use crate::path::TreePath;
use crate::repo::reader::ReadRepo;
use crate::repo::walk::Walk;

/// An entry of either side.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: TreePath,
    pub(super) entry: Entry,
    /// Its bytes and its place, if it is in a local directory. Its entry says nothing of its content.
    pub(super) file: Option<File>,
}

impl Item {
    pub(super) fn of(path: &TreePath, entry: Entry) -> Self {
        Self { path: path.clone(), entry, file: None }
    }
}

/// What comes next on a side.
#[derive(Debug)]
pub(super) enum Step {
    Item(Box<Item>),
    /// Something at or below this path could not be read.
    Unread(TreePath, Error),
}

enum Source<'r, R: ?Sized> {
    Tree(Walk<'r, R>),
    Local(Box<Steps>),
}

/// A side, and its next entry once that was looked at.
pub(super) struct Side<'r, R: ?Sized> {
    source: Source<'r, R>,
    head: Option<Item>,
    /// Where something could not be read, as far as the other side may still come by.
    unread: Vec<TreePath>,
}

impl With {
    /// What is at the top of it.
    pub(super) fn start(&self, base: &TreePath) -> Result<Item> {
        match self {
            Self::Entry(entry) => Ok(Item::of(base, (**entry).clone())),
            Self::Local(local) => local.start(base),
        }
    }

    pub(super) fn side<'r, R: ReadRepo + ?Sized>(&self, repo: &'r R, base: &TreePath) -> Side<'r, R> {
        match self {
            Self::Entry(entry) => Side::tree(repo, base, entry),
            Self::Local(local) => Side::new(Source::Local(Box::new(local.steps(base)))),
        }
    }
}

impl<'r, R: ReadRepo + ?Sized> Side<'r, R> {
    fn new(source: Source<'r, R>) -> Self {
        Self { source, head: None, unread: Vec::new() }
    }

    /// What is below an entry, as if that were at `base`.
    pub(super) fn tree(repo: &'r R, base: &TreePath, entry: &Entry) -> Self {
        Self::new(Source::Tree(Walk::below(repo, base.clone(), entry)))
    }

    /// The next entry. What cannot be read on the way there is told.
    pub(super) fn head(&mut self, diff: &mut Diff<'_, R>) -> Result<Option<&Item>> {
        while self.head.is_none() {
            let step = match &mut self.source {
                Source::Tree(walk) => walk.next().map(|entry| match entry {
                    Ok(entry) => Step::Item(Box::new(Item::of(walk.path(), entry))),
                    Err(error) => Step::Unread(walk.path().clone(), error),
                }),
                Source::Local(steps) => steps.next(),
            };
            match step {
                None => return Ok(None),
                Some(Step::Item(item)) => self.head = Some(*item),
                Some(Step::Unread(path, error)) => {
                    diff.unread(&path, error)?;
                    self.unread.push(path);
                }
            }
        }
        Ok(self.head.as_ref())
    }

    /// The entry that was looked at last.
    pub(super) fn take(&mut self) -> Item {
        self.head.take().expect("it was looked at")
    }

    /// Whether what is at `path` may be on this side and could not be read. Asked in walk order.
    pub(super) fn is_unread(&mut self, path: &TreePath) -> bool {
        self.unread.retain(|unread| path.starts_with(unread) || path.in_walk_order(unread).is_lt());
        self.unread.iter().any(|unread| path.starts_with(unread))
    }

    /// Does not go below the directory taken last. A local directory has to be gone through.
    pub(super) fn pass_over(&mut self) -> bool {
        match &mut self.source {
            Source::Tree(walk) => {
                walk.pass_over();
                true
            }
            Source::Local(_) => false,
        }
    }
}
