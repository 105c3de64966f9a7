//! Whether names that were one file are one file again, and others are not.
//!
//! It is so when every group of hard links has one inode, and every inode one group. Nobody knows how many names
//! of either are still to come, so none is forgotten; when there are many, they go to files without a name.

use std::collections::HashMap;
use std::path::Path;

use crate::id::LinkGroup;
use crate::index::Spilled;
use crate::source::stat::Stat;

/// Pairs kept in memory.
const PAIRS_MAX: usize = 1 << 16;

/// A key, and what belongs to it.
const ROW_BYTES: usize = 48;

/// The groups and inodes that were met.
#[derive(Debug)]
pub(super) struct Links {
    recent: HashMap<[u8; 32], [u8; 16]>,
    pairs_max: usize,
    spilled: Spilled<ROW_BYTES>,
}

impl Links {
    /// None yet, and a directory for what memory has no room for.
    pub(super) fn new(spill: &Path) -> Self {
        Self { recent: HashMap::new(), pairs_max: PAIRS_MAX, spilled: Spilled::new(spill) }
    }

    /// Meets a name; says whether it is one file with what it should be, and with nothing else.
    pub(super) fn holds(&mut self, recorded: Option<LinkGroup>, found: &Stat) -> bool {
        let Some(group) = recorded else { return found.nlink <= 1 };
        let mut inode = [0; 16];
        inode[..8].copy_from_slice(&found.dev.to_le_bytes());
        inode[8..].copy_from_slice(&found.ino.to_le_bytes());
        let group_is = self.first(key(b"group", group.as_bytes()), inode) == inode;
        let inode_is = self.first(key(b"inode", &inode), *group.as_bytes()) == *group.as_bytes();
        group_is && inode_is
    }

    /// What was first met with this key.
    fn first(&mut self, key: [u8; 32], value: [u8; 16]) -> [u8; 16] {
        if let Some(known) = self.recent.get(&key) {
            return *known;
        }
        if let Some(row) = self.spilled.find(&key) {
            return *row.last_chunk().expect("a row ends with its value");
        }
        if self.recent.len() >= self.pairs_max {
            let rows = self.recent.iter().map(|(key, value)| {
                let mut row = [0; ROW_BYTES];
                row[..32].copy_from_slice(key);
                row[32..].copy_from_slice(value);
                row
            });
            // What no disk has room for stays in memory.
            if self.spilled.add(rows.collect()).is_ok() {
                self.recent.clear();
            }
        }
        self.recent.insert(key, value);
        value
    }
}

fn key(what: &[u8], bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(&[what, bytes].concat()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However few may be in memory, a name that came apart long ago is found, and one that should be apart.
    #[test]
    fn groups_beyond_the_bound_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let at = std::fs::File::open(dir.path()).unwrap();
        let stat = Stat::at(&at, &crate::path::Name::new(*b"file").unwrap()).unwrap();
        let mut links = Links { pairs_max: 10, ..Links::new(dir.path()) };
        let group = |n: u64| Some(LinkGroup::from_bytes(u128::from(n).to_le_bytes()));
        let inode = |n: u64| Stat { ino: n, nlink: 2, ..stat };
        for n in 0..100 {
            assert!(links.holds(group(n), &inode(n)));
        }
        assert!(links.recent.len() <= 10 && links.spilled.rows() > 100);
        for n in 0..99 {
            assert!(links.holds(group(n), &inode(n)));
            assert!(!links.holds(group(n), &inode(n + 1)), "it is one file with another group");
            assert!(!links.holds(group(n), &inode(1000 + n)), "it came apart");
            assert!(!links.holds(group(1000 + n), &inode(n)), "two groups are one file");
        }
        assert!(!links.holds(None, &inode(1)) && links.holds(None, &Stat { nlink: 1, ..stat }));
    }
}
