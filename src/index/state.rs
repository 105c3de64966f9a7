//! What a catalog knows while it is open: all but the rows is in memory.

use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use super::Error;
use super::catalog::Import;
use super::rows::CHUNK_ROW_BYTES;
use super::rows::OriginRow;
use super::rows::PackRow;
use super::run::Run;

/// A run of chunk rows.
pub(super) type ChunkRun = Run<CHUNK_ROW_BYTES>;

/// For each source of a batch, the numbers of its packs; `None` when it is in already.
pub(super) type PackNumbers = Vec<Option<Vec<u32>>>;

/// The contents of a catalog. It is of a piece at all times, whatever became of the files.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The origins, by number.
    pub(super) origins: Numbered<OriginRow>,
    /// The packs, by number; each one's origin is in `origins`.
    pub(super) packs: Numbered<PackRow>,
    /// The sources that are in.
    pub(super) imported: HashSet<[u8; 32]>,
    /// Where the rows are.
    pub(super) runs: Vec<NamedRun>,
    /// What the database was when this was loaded from it or stored in it.
    pub(super) version: Version,
}

/// Which state of the database.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    /// How many commits there were.
    pub(super) commits: u64,
    /// The sum over the rows of origins, packs and sources.
    pub(super) sum: u64,
}

/// A run and the number that names its file, if it has one.
#[derive(Debug, Clone)]
pub(super) struct NamedRun {
    pub(super) name: Option<u64>,
    pub(super) run: Arc<ChunkRun>,
}

impl State {
    /// Gives every origin and pack of the sources that are not in yet a number, the one it has
    /// already if there is the very same row. The answer has, for each source that is to be
    /// imported, the numbers of its packs.
    ///
    /// A pack is known by all of its row, not by its id: a segment that tells lies about a pack
    /// then stands beside the truth and cannot take its place.
    pub(super) fn number(&mut self, batch: &[Import]) -> Result<PackNumbers, Error> {
        let count = |of: fn(&Import) -> usize| batch.iter().map(of).sum::<usize>();
        self.origins.check_room(count(|import| import.origins.len()), "sessions")?;
        self.packs.check_room(count(|import| import.packs.len()), "packs")?;
        let mut keys = HashSet::new();
        let numbers = batch
            .iter()
            .map(|import| {
                if self.imported.contains(&import.key) || !keys.insert(import.key) {
                    return None;
                }
                let origins: Vec<u32> =
                    import.origins.iter().map(|origin| self.origins.number_of(&origin.row())).collect();
                let number = |pack: &super::ImportPack| {
                    self.packs.number_of(&PackRow {
                        id: pack.id,
                        origin: origins[pack.origin],
                        salt: pack.salt,
                        commitment: pack.commitment,
                        stored_bytes: pack.stored_bytes,
                        description: pack.description,
                    })
                };
                Some(import.packs.iter().map(number).collect())
            })
            .collect();
        self.origins.settle();
        self.packs.settle();
        Ok(numbers)
    }

    /// Whether these very runs are all still here.
    pub(super) fn has_runs(&self, runs: &[NamedRun]) -> bool {
        runs.iter().all(|run| self.runs.iter().any(|other| Arc::ptr_eq(&run.run, &other.run)))
    }

    /// Puts `merged` in the place of `sources`.
    pub(super) fn replace_runs(&mut self, sources: &[NamedRun], merged: NamedRun) {
        self.runs.retain(|run| !sources.iter().any(|source| Arc::ptr_eq(&run.run, &source.run)));
        self.runs.push(merged);
    }
}

/// Things with numbers from 0, each there once.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    items: Vec<T>,
    /// The numbers of the first so many items, in the order of the items.
    order: Vec<u32>,
    /// The numbers of the others that were looked for.
    recent: HashMap<T, u32>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { items: Vec::new(), order: Vec::new(), recent: HashMap::new() }
    }
}

impl<T: Clone + Ord + Hash> Numbered<T> {
    /// All of them; the index is the number.
    pub(super) fn items(&self) -> &[T] {
        &self.items
    }

    /// Appends what is known to be new and to have room.
    pub(super) fn extend(&mut self, items: Vec<T>) {
        self.items.extend(items);
    }

    fn check_room(&self, more: usize, what: &'static str) -> Result<(), Error> {
        let full = Error::Full { what, limit: u64::from(u32::MAX) };
        self.items.len().checked_add(more).and_then(|sum| u32::try_from(sum).ok()).map(|_| ()).ok_or(full)
    }

    /// The number of an item, a new one if need be.
    fn number_of(&mut self, item: &T) -> u32 {
        if self.order.len() + self.recent.len() < self.items.len() {
            self.settle();
        }
        if let Ok(at) = self.order.binary_search_by(|n| self.items[*n as usize].cmp(item)) {
            return self.order[at];
        }
        if let Some(number) = self.recent.get(item) {
            return *number;
        }
        let number = u32::try_from(self.items.len()).expect("the caller has checked that there is room");
        self.items.push(item.clone());
        self.recent.insert(item.clone(), number);
        number
    }

    /// Brings all items into order. Cheap when few are new: the sort finds the sorted part.
    fn settle(&mut self) {
        self.recent = HashMap::new();
        self.order.extend((self.order.len()..self.items.len()).filter_map(|n| u32::try_from(n).ok()));
        self.order.sort_by(|a, b| self.items[*a as usize].cmp(&self.items[*b as usize]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_have_one_number_that_never_changes() {
        let mut numbered = Numbered::default();
        assert_eq!(["c", "a", "c", "b", "a"].map(|item| numbered.number_of(&item)), [0, 1, 0, 2, 1]);
        numbered.settle();
        numbered.extend(vec!["0", "z"]);
        assert_eq!(["z", "b", "y", "0", "y", "c"].map(|item| numbered.number_of(&item)), [4, 2, 5, 3, 5, 0]);
        assert_eq!(numbered.items(), ["c", "a", "b", "0", "z", "y"]);
    }

    #[test]
    fn numbers_do_not_run_out_unseen() {
        let mut numbered = Numbered::<u8>::default();
        numbered.extend(vec![1, 2]);
        assert!(numbered.check_room(u32::MAX as usize - 2, "things").is_ok());
        assert!(numbered.check_room(u32::MAX as usize - 1, "things").is_err());
        assert!(numbered.check_room(usize::MAX, "things").is_err());
    }
}
