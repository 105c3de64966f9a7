//! Which group of hard links a file is of: that of the path it was first seen at.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use super::stat::Stat;
use crate::id::LinkGroup;
use crate::index::{Error, Spilled};
use crate::world::Time;

/// Bytes of a row: the hash of a file's identity, then its group.
const ROW_BYTES: usize = 48;

/// Remembers the group of every file with several names, in bounded memory.
///
/// In memory are files of which some names have been seen and some not; when there are too many
/// of those they are [`Spilled`] and, since that takes no memory, never forgotten.
#[derive(Debug)]
pub struct LinkTable {
    open: HashMap<(u64, u64), Group>,
    entries_max: usize,
    spilled: Spilled<ROW_BYTES>,
}

#[derive(Debug)]
struct Group {
    id: LinkGroup,
    /// Names not seen yet, by the count the first look gave.
    rest: u32,
    mtime: Time,
    size: u64,
}

impl LinkTable {
    /// A bound that takes 11 MiB: just what a hash table of 2^18 places holds.
    pub const ENTRIES_MAX: usize = 229_376;

    /// An empty table that keeps at most `entries_max` files in memory and spills to files in `dir`.
    pub fn new(dir: &Path, entries_max: usize) -> Self {
        Self { open: HashMap::new(), entries_max: entries_max.max(1), spilled: Spilled::new(dir) }
    }

    /// The group of the file `stat` describes: what `first` makes of the first name, and the same
    /// for the others. `None` when the file has only this name. Call it in walk order, once a name.
    ///
    /// After an error the name at hand is not known, and all others are as before.
    pub fn group(&mut self, stat: &Stat, first: impl FnOnce() -> LinkGroup) -> Result<Option<LinkGroup>, Error> {
        if stat.nlink <= 1 {
            return Ok(None);
        }
        let (key, mtime, size) = (stat.identity(), stat.mtime, stat.size);
        if let Entry::Occupied(mut known) = self.open.entry(key) {
            let id = known.get().id;
            known.get_mut().rest -= 1;
            if known.get().rest == 0 {
                known.remove();
            }
            return Ok(Some(id));
        }
        if let Some(id) = self.spilled_group(&hash(key, mtime, size)) {
            return Ok(Some(id));
        }
        if self.open.len() >= self.entries_max {
            self.spilled.add(self.open.iter().map(|(key, group)| group.row(*key)).collect())?;
            self.open.clear();
        }
        let id = first();
        self.open.insert(key, Group { id, rest: stat.nlink - 1, mtime, size });
        Ok(Some(id))
    }

    fn spilled_group(&self, key: &[u8; 32]) -> Option<LinkGroup> {
        let row = self.spilled.find(key)?;
        Some(LinkGroup::from_bytes(*row.last_chunk().expect("a row ends with its group")))
    }

    /// How many files are in memory.
    pub fn in_memory(&self) -> usize {
        self.open.len()
    }
}

impl Group {
    fn row(&self, key: (u64, u64)) -> [u8; ROW_BYTES] {
        let mut row = [0; ROW_BYTES];
        row[..32].copy_from_slice(&hash(key, self.mtime, self.size));
        row[32..].copy_from_slice(self.id.as_bytes());
        row
    }
}

/// What a spilled file is known by. When it was written and how long it is are part of that: it may
/// be gone and its inode another file's by the time it is asked for, and two files must not
/// become one. One that is written meanwhile becomes two groups, which loses nothing.
fn hash((device, inode): (u64, u64), mtime: Time, size: u64) -> [u8; 32] {
    let numbers = [device, inode, mtime.secs.cast_unsigned(), mtime.nanos.into(), size].map(u64::to_le_bytes);
    *blake3::hash(numbers.as_flattened()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::stat::Kind;
    use super::*;

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

    fn id(n: u64) -> LinkGroup {
        LinkGroup::from_bytes(u128::from(n).to_le_bytes())
    }

    #[test]
    fn the_first_name_speaks_for_all_and_is_forgotten_with_the_last() {
        let mut table = LinkTable::new(&std::env::temp_dir(), LinkTable::ENTRIES_MAX);
        let mut group = |ino, nlink, first| table.group(&stat(ino, nlink), || id(first)).unwrap();
        assert_eq!(group(9, 1, 1), None);
        assert_eq!(group(5, 3, 2), Some(id(2)));
        assert_eq!(group(6, 2, 3), Some(id(3)));
        assert_eq!(group(5, 3, 4), Some(id(2)));
        assert_eq!(group(5, 3, 5), Some(id(2)));
        assert_eq!(group(6, 2, 6), Some(id(3)));
        // The inode is another file by now.
        assert_eq!(group(5, 2, 7), Some(id(7)));
        assert_eq!(table.in_memory(), 1);
    }

    /// However few may be in memory, the groups are those of a table that holds all.
    #[test]
    fn groups_beyond_the_bound_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = LinkTable::new(dir.path(), 50);
        for name in 0..4 {
            for ino in 0..1000 {
                let nlink = 2 + u32::try_from(ino % 4).unwrap();
                if name < nlink {
                    let found = table.group(&stat(ino, nlink), || id(1000 * u64::from(name) + ino)).unwrap();
                    assert_eq!(found, Some(id(ino)), "name {name} of {ino}");
                }
                assert!(table.in_memory() <= 50);
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
