//! A snapshot's tree, entry by entry: a directory before what is in it, names in order.

use crate::error::{Context, Error, Kind, Result};
use crate::format::tree::{Detail, Entry};
use crate::id::ChunkId;
use crate::path::{Name, TreePath};
use crate::repo::reader::{Entries, ReadNodes};

/// Levels whose nodes stay in memory; those above are read again on the way back.
const LEVELS_HELD: usize = 64;

/// Everything below an entry, depth first, without recursion and in bounded memory.
///
/// A node that cannot be read is an `Err` naming its directory; the rest follows. There are never
/// more entries than the first directory says it has below it: directories may share what is below
/// them, and a few kilobytes then be more of them than anybody can go through.
#[derive(Debug)]
pub struct Walk<'r, R: ?Sized> {
    repo: &'r R,
    path: TreePath,
    stack: Vec<Level<'r, R>>,
    /// The directory yielded last, entered at the next step unless passed over.
    next: Option<(ChunkId, u64)>,
    /// What `path` still ends with from the entry yielded last.
    pop: bool,
    /// How many more entries the start says it has.
    left: u64,
    /// There were more.
    ended: bool,
}

#[derive(Debug)]
struct Level<'r, R: ?Sized> {
    entries: Option<Entries<'r, R>>,
    id: ChunkId,
    level: u64,
    last: Option<Name>,
}

impl<'r, R: ReadNodes + ?Sized> Walk<'r, R> {
    /// Everything below `entry`, which is at `path` and is not itself part of it.
    pub fn below(repo: &'r R, path: TreePath, entry: &Entry) -> Self {
        let next = if let Detail::Directory { id, level, .. } = entry.detail { Some((id, level)) } else { None };
        Self { repo, path, stack: Vec::new(), next, pop: false, left: entry.entries_below(), ended: false }
    }

    /// Does not go below the directory yielded last.
    pub fn pass_over(&mut self) {
        self.next = None;
    }

    /// The path of the entry yielded last.
    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// How many directories below the start the entry yielded last lies: 1 for the start's own.
    pub fn depth(&self) -> usize {
        self.stack.len()
    }

    fn enter(&mut self, id: ChunkId, level: u64) {
        if let Some(above) = self.stack.len().checked_sub(LEVELS_HELD) {
            self.stack[above].entries = None;
        }
        self.stack.push(Level { entries: Some(Entries::new(self.repo, id, level)), id, level, last: None });
    }
}

impl<R: ReadNodes + ?Sized> Iterator for Walk<'_, R> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        if self.ended {
            return None;
        }
        if let Some((id, level)) = self.next.take() {
            self.enter(id, level);
        } else if std::mem::take(&mut self.pop) {
            self.path.pop();
        }
        self.pop = false;
        loop {
            let (repo, level) = (self.repo, self.stack.last_mut()?);
            let (id, height, last) = (level.id, level.level, &level.last);
            let entries = level.entries.get_or_insert_with(|| match last {
                Some(last) => Entries::after(repo, id, height, last.clone()),
                None => Entries::new(repo, id, height),
            });
            match entries.next() {
                Some(Ok(_)) if self.left == 0 => {
                    self.ended = true;
                    return Some(Err(more_than_said(&self.path)));
                }
                Some(Ok(entry)) => {
                    self.left -= 1;
                    level.last.clone_from(&entry.name);
                    if let Some(name) = &entry.name {
                        self.path.push(name);
                        self.pop = true;
                    }
                    if let Detail::Directory { id, level, .. } = entry.detail {
                        self.next = Some((id, level));
                    }
                    return Some(Ok(entry));
                }
                Some(Err(error)) => {
                    return Some(Err(error).context(|| format!("cannot read all of the directory `{}`", self.path)));
                }
                None => {
                    self.stack.pop();
                    if !self.stack.is_empty() {
                        self.path.pop();
                    }
                }
            }
        }
    }
}

/// What is wrong with a tree that has more entries than its root says.
pub fn more_than_said(path: &TreePath) -> Error {
    let what = format!("there is more at and behind `{path}` than the snapshot says it has in all");
    Error::new(Kind::Damaged, what)
}
