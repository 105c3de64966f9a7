//! Finding: where names occur in snapshots, and the versions of one file ([`history`]).
//!
//! Snapshots share most of their trees. A directory below which nothing was found is remembered, and passed
//! over wherever it comes again; one below which something was found is gone through again, to tell of each
//! snapshot, so the work is that for one snapshot, for what has changed since, and for what is found. What is
//! remembered is bounded: what is forgotten is looked through once more.

use crate::error::{Kind, Result};
use crate::format::tree::{Detail, Entry};
use crate::id::ChunkId;
use crate::path::TreePath;
use crate::repo::reader::ReadNodes;
use crate::repo::walk::Walk;
use crate::source::exclude::Patterns;
use crate::world::Time;

mod barren;
pub mod history;
#[cfg(test)]
mod tests;

use barren::Barren;

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Names or paths; what lies in a directory that matches does not match for that.
    pub patterns: Patterns,
    /// Modified at or after this moment.
    pub oldest: Option<Time>,
    /// Modified at or before this moment.
    pub newest: Option<Time>,
}

impl Wanted {
    fn takes(&self, path: &TreePath, entry: &Entry) -> bool {
        let mtime = entry.attributes.mtime;
        self.oldest.is_none_or(|oldest| mtime >= oldest)
            && self.newest.is_none_or(|newest| mtime <= newest)
            && self.patterns.matches_itself(path)
    }
}

/// A search through one snapshot after the other.
#[derive(Debug)]
pub struct Finder<'r, R: ?Sized> {
    repo: &'r R,
    wanted: Wanted,
    /// Whether what is found below a directory is the same wherever it is.
    by_name: bool,
    barren: Barren,
}

/// A directory that is being gone through.
struct Open {
    depth: usize,
    key: [u8; 32],
    /// Whether something was found below it, or could not be read.
    fruitful: bool,
}

impl<'r, R: ReadNodes + ?Sized> Finder<'r, R> {
    /// Nothing looked through yet.
    pub fn new(repo: &'r R, wanted: Wanted) -> Self {
        let by_name = wanted.patterns.ask_for_names_only();
        Self { repo, wanted, by_name, barren: Barren::default() }
    }

    /// Calls `each` with every entry below `root` that is wanted, and its full path, in tree order.
    ///
    /// A directory that cannot be read in full is given to `each` as an error, and so may be passed
    /// over: the search ends at the first `Err` that `each` returns.
    pub fn search(&mut self, root: &Entry, each: &mut dyn FnMut(&TreePath, Result<Entry>) -> Result<()>) -> Result<()> {
        let mut open: Vec<Open> = Vec::new();
        let mut walk = Walk::below(self.repo, TreePath::root(), root);
        if let Some(key) = self.key(&TreePath::root(), root) {
            if self.barren.has(&key) {
                return Ok(());
            }
            open.push(Open { depth: 0, key, fruitful: false });
        }
        while let Some(entry) = walk.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    if error.kind() != Kind::Damaged {
                        return Err(error);
                    }
                    // That is told of each snapshot it is part of.
                    open.iter_mut().for_each(|directory| directory.fruitful = true);
                    each(walk.path(), Err(error))?;
                    continue;
                }
            };
            self.close(&mut open, walk.depth());
            if let Some(key) = self.key(walk.path(), &entry) {
                if self.barren.has(&key) || !self.wanted.patterns.may_match_itself_below(walk.path()) {
                    walk.pass_over();
                } else {
                    open.push(Open { depth: walk.depth(), key, fruitful: false });
                }
            }
            if self.wanted.takes(walk.path(), &entry) {
                let own = walk.depth();
                // It is found in the directories around it; below itself is another matter.
                if let Some(around) = open.iter_mut().rev().find(|directory| directory.depth < own) {
                    around.fruitful = true;
                }
                each(walk.path(), Ok(entry))?;
            }
        }
        self.close(&mut open, 0);
        Ok(())
    }

    /// Takes leave of the directories that lie as deep as `depth` or deeper.
    fn close(&mut self, open: &mut Vec<Open>, depth: usize) {
        while let Some(directory) = open.pop_if(|directory| directory.depth >= depth) {
            match open.last_mut() {
                Some(around) if directory.fruitful => around.fruitful = true,
                _ if directory.fruitful => {}
                _ => self.barren.add(directory.key),
            }
        }
    }

    /// What a directory is known by.
    fn key(&self, path: &TreePath, entry: &Entry) -> Option<[u8; 32]> {
        let Detail::Directory { id, .. } = &entry.detail else { return None };
        Some(if self.by_name { *id.as_bytes() } else { at_path(id, path) })
    }
}

fn at_path(id: &ChunkId, path: &TreePath) -> [u8; 32] {
    *blake3::Hasher::new().update(id.as_bytes()).update(path.as_bytes()).finalize().as_bytes()
}
