//! Listing: the entries of a snapshot under given paths, streamed in tree order.

use crate::error::Result;
use crate::format::tree::{Detail, Entry};
use crate::path::TreePath;
use crate::repo::reader::{ReadNodes, find};
use crate::repo::walk::Walk;

#[cfg(test)]
mod tests;

/// How far below a path to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What is in a directory itself.
    Children,
    /// Everything below.
    All,
}

/// Calls `each` with every entry at and below `path` with its full path; a directory's own entry
/// comes first, except the root's, which has no name.
///
/// A directory that cannot be read in full is given to `each` as an error, and so may be passed
/// over: the listing ends at the first `Err` that `each` returns.
pub fn run<R: ReadNodes + ?Sized>(
    repo: &R,
    root: &Entry,
    path: &TreePath,
    depth: Depth,
    each: &mut dyn FnMut(&TreePath, Result<Entry>) -> Result<()>,
) -> Result<()> {
    let start = find(repo, root, path)?;
    let mut walk = Walk::below(repo, path.clone(), &start);
    if start.name.is_some() {
        each(path, Ok(start))?;
    }
    while let Some(entry) = walk.next() {
        let below = depth == Depth::All || !matches!(entry, Ok(Entry { detail: Detail::Directory { .. }, .. }));
        each(walk.path(), entry)?;
        if !below {
            walk.pass_over();
        }
    }
    Ok(())
}
