//! Which path speaks for a group of hard links.

use std::collections::HashMap;

use super::stat::Stat;
use crate::path::TreePath;

/// Remembers the first path of every file with several names until the last of them was seen.
///
/// Holds one path for each file of which some names have been seen and some not.
#[derive(Debug, Default)]
pub struct LinkTable {
    groups: HashMap<(u64, u64), Group>,
}

#[derive(Debug)]
struct Group {
    first: TreePath,
    /// Names not seen yet, by the count the first look gave.
    rest: u32,
}

impl LinkTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The path that was first seen for the file `stat` describes: `path` itself for the first
    /// name. `None` when the file has only this name. Call it in walk order, once a name.
    pub fn first_path(&mut self, stat: &Stat, path: &TreePath) -> Option<TreePath> {
        if stat.nlink <= 1 {
            return None;
        }
        let key = stat.identity();
        let group = self.groups.entry(key).or_insert_with(|| Group { first: path.clone(), rest: stat.nlink });
        group.rest -= 1;
        let first = group.first.clone();
        if group.rest == 0 {
            self.groups.remove(&key);
        }
        Some(first)
    }

    /// How many files are remembered.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::stat::Kind;
    use super::*;
    use crate::world::Time;

    fn stat(ino: u64, nlink: u32) -> Stat {
        let zero = Time::default();
        Stat {
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: zero,
            ctime: zero,
            ino,
            dev: 1,
            nlink,
            rdev_major: 0,
            rdev_minor: 0,
            blocks: 0,
        }
    }

    #[test]
    fn the_first_name_speaks_for_all_and_is_forgotten_with_the_last() {
        let path = |text: &str| TreePath::from_bytes(text.as_bytes()).unwrap();
        let mut table = LinkTable::new();
        assert_eq!(table.first_path(&stat(9, 1), &path("/alone")), None);
        assert_eq!(table.first_path(&stat(5, 3), &path("/a")), Some(path("/a")));
        assert_eq!(table.first_path(&stat(6, 2), &path("/b")), Some(path("/b")));
        assert_eq!(table.first_path(&stat(5, 3), &path("/c")), Some(path("/a")));
        assert_eq!(table.len(), 2);
        assert_eq!(table.first_path(&stat(5, 3), &path("/d")), Some(path("/a")));
        assert_eq!(table.first_path(&stat(6, 2), &path("/e")), Some(path("/b")));
        assert!(table.is_empty());
    }
}
