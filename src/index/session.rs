//! The ids a session has claimed, in bounded memory.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use super::Error;
use super::Spilled;
use crate::id::ChunkId;

/// Remembers which chunks this session has claimed, so that none is stored twice.
///
/// The newest ids are in memory; whenever there are as many as the bound allows, they are [`Spilled`].
pub struct SessionTable {
    recent: HashSet<[u8; 32]>,
    entries_max: usize,
    spilled: Spilled<32>,
}

impl fmt::Debug for SessionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTable").field("recent", &self.recent.len()).field("spilled", &self.spilled).finish()
    }
}

impl SessionTable {
    /// A bound that takes 17 MiB: just what a hash table of 2^19 places holds.
    pub const ENTRIES_MAX: usize = 458_752;

    /// An empty table that keeps at most `entries_max` ids in memory and spills to files in `dir`.
    pub fn new(dir: &Path, entries_max: usize) -> Self {
        Self { recent: HashSet::new(), entries_max: entries_max.max(1), spilled: Spilled::new(dir) }
    }

    /// Claims an id; true when it was not claimed before.
    ///
    /// After an error the table still knows every id claimed before.
    pub fn claim(&mut self, id: ChunkId) -> Result<bool, Error> {
        if self.contains(&id) {
            return Ok(false);
        }
        if self.recent.len() >= self.entries_max {
            self.spill()?;
        }
        self.recent.insert(*id.as_bytes());
        Ok(true)
    }

    /// Whether an id is claimed.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.recent.contains(id.as_bytes()) || self.spilled.find(id.as_bytes()).is_some()
    }

    fn spill(&mut self) -> Result<(), Error> {
        self.spilled.add(self.recent.iter().copied().collect())?;
        self.recent.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> ChunkId {
        ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn a_small_table_claims_the_same_ids_as_a_set_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = SessionTable::new(dir.path(), 10);
        let mut model = HashSet::new();
        for step in 0..3000_u32 {
            let n = step.wrapping_mul(2_654_435_761) % 1000;
            assert_eq!(table.contains(&id(n)), model.contains(&n));
            assert_eq!(table.claim(id(n)).unwrap(), model.insert(n), "{step}: {n}");
            assert!(table.recent.len() <= 10, "{table:?}");
        }
        assert!((0..1000).all(|n| table.contains(&id(n)) == model.contains(&n)));
        assert!(!table.contains(&id(1001)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_table_whose_directory_is_gone_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        // One is made again, in place of the other another is found.
        for gone in [dir.path().join("a/cleared/cache"), file.join("below")] {
            let mut table = SessionTable::new(&gone, 2);
            assert!((0..40).all(|n| table.claim(id(n)).unwrap()));
            assert!((0..40).all(|n| !table.claim(id(n)).unwrap()) && table.spilled.rows() > 0);
        }
    }
}
