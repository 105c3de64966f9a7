//! Whether a snapshot would say anything its parent does not (`--skip-if-unchanged`).
//!
//! What counts is what was asked for: the entries at the roots with all below them. The
//! directories on the way there are in a snapshot too, but somebody writing to `/tmp` or `/home`
//! makes no other backup of `/home/ada/work`. So a digest over the roots' entries is compared:
//! a directory's names all that is below it by the id of its node.
//!
//! A stream has no time of its own, only that of the run: for it the time does not count.

use super::Options;
use crate::error::Result;
use crate::format::cbor::Record;
use crate::format::tree::{Attributes, Entry};
use crate::id::SessionId;
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::reader::find;
use crate::repo::snapshots::Filter;
use crate::world::Time;

/// What the roots of a snapshot hold, as a digest.
pub(super) type Digest = [u8; 32];

/// Gathers the roots' entries in walk order.
pub(super) struct Chosen {
    hasher: blake3::Hasher,
    timeless: bool,
}

impl Chosen {
    /// Begins with nothing; `timeless` for a stream.
    pub(super) fn new(timeless: bool) -> Self {
        Self { hasher: blake3::Hasher::new_derive_key("esker v1 chosen entries"), timeless }
    }

    /// Adds the entry at a root that no other root is above of.
    pub(super) fn add(&mut self, path: &TreePath, entry: &Entry) {
        let mut bytes = Vec::new();
        if self.timeless {
            let attributes = Attributes { mtime: Time { secs: 0, nanos: 0 }, ..entry.attributes.clone() };
            Entry { attributes, ..entry.clone() }.encode_into(&mut bytes);
        } else {
            entry.encode_into(&mut bytes);
        }
        for part in [path.as_bytes(), &bytes] {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
    }

    pub(super) fn finish(&self) -> Digest {
        *self.hasher.finalize().as_bytes()
    }
}

/// The newest snapshot of the same host and roots, and its digest: for an owner who has no
/// change record. `None` when there is none; a writer cannot read it and gets an error.
pub(super) fn of_parent(repo: &Repository, options: &Options) -> Result<Option<(SessionId, Digest)>> {
    let reader = Reader::new(repo)?;
    let filter = Filter { hosts: vec![options.hostname.clone()], ..Filter::default() };
    let (snapshots, _) = reader.snapshots(&filter)?;
    let mut roots: Vec<_> = options.roots.iter().map(|root| root.as_bytes().to_vec()).collect();
    roots.sort();
    roots.dedup();
    let Some(parent) =
        snapshots.into_iter().rev().find(|info| info.snapshot.paths == roots && !info.is_before_restore())
    else {
        return Ok(None);
    };
    let mut chosen = Chosen::new(options.variation.stream.is_some());
    for root in topmost(&options.roots) {
        chosen.add(&root, &find(&reader, &parent.snapshot.root, &root)?);
    }
    Ok(Some((parent.id(), chosen.finish())))
}

/// The roots that are not below others, in the order of the walk: by name in each directory.
fn topmost(roots: &[TreePath]) -> Vec<TreePath> {
    let mut sorted: Vec<(Vec<_>, &TreePath)> = roots.iter().map(|root| (root.components().collect(), root)).collect();
    sorted.sort();
    let mut top: Vec<(Vec<_>, &TreePath)> = Vec::new();
    for (names, root) in sorted {
        if !top.last().is_some_and(|(above, _)| names.starts_with(above)) {
            top.push((names, root));
        }
    }
    top.into_iter().map(|(_, root)| root.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_come_in_the_order_of_the_walk_without_those_below_others() {
        let path = |text: &str| TreePath::from_bytes(text.as_bytes()).unwrap();
        let roots = ["/a-b", "/a/c", "/a/c/d", "/a/c", "/b"].map(path);
        assert_eq!(topmost(&roots), ["/a/c", "/a-b", "/b"].map(path));
        assert_eq!(topmost(&["/x", "/"].map(path)), [path("/")]);
    }
}
