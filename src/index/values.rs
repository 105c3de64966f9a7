//! Values of any length under keys, of which memory holds few.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::Spilled;
use super::unnamed::{UnnamedWriter, unnamed_files};

/// Bytes of a row: a key, which file a value stands in, where, and how long it is.
const ROW_BYTES: usize = 48;

/// Remembers a value for each key, in files without names.
///
/// In memory are 40 bytes for each of the newest keys; whenever there are as many as the bound allows,
/// they are [`Spilled`].
pub struct SpilledValues {
    recent: HashMap<[u8; 32], Place>,
    entries_max: usize,
    spilled: Spilled<ROW_BYTES>,
    writer: UnnamedWriter,
    files: Vec<Arc<File>>,
    dir: PathBuf,
}

#[derive(Clone, Copy)]
struct Place {
    file: u32,
    offset: u64,
    bytes: u32,
}

impl fmt::Debug for SpilledValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpilledValues").field("recent", &self.recent.len()).field("spilled", &self.spilled).finish()
    }
}

impl SpilledValues {
    /// A bound that takes 20 MiB: just what a hash table of 2^18 places holds.
    pub const ENTRIES_MAX: usize = 229_376;

    /// Nothing yet; files in `dir`, and at most `entries_max` keys in memory.
    pub fn new(dir: &Path, entries_max: usize) -> Self {
        Self {
            recent: HashMap::new(),
            entries_max: entries_max.max(1),
            spilled: Spilled::new(dir),
            writer: UnnamedWriter::new(unnamed_files(dir)),
            files: Vec::new(),
            dir: dir.into(),
        }
    }

    /// Remembers a value for a key that has none; one that has keeps the first.
    ///
    /// After an error every value before is still there.
    pub fn insert(&mut self, key: [u8; 32], value: &[u8]) -> Result<(), Error> {
        if self.place(&key).is_some() {
            return Ok(());
        }
        if self.recent.len() >= self.entries_max {
            self.spilled.add(self.recent.iter().map(|(key, place)| place.row(key)).collect())?;
            self.recent.clear();
        }
        let failed = |source| Error::Io { action: "write a temporary file in", path: self.dir.clone(), source };
        let (file, offset) = self.writer.append(value).map_err(failed)?;
        if self.files.last().is_none_or(|last| !Arc::ptr_eq(last, &file)) {
            self.files.push(file);
        }
        let number = u32::try_from(self.files.len() - 1).expect("there are few files");
        let bytes = u32::try_from(value.len()).expect("a value is far smaller than 4 GiB");
        self.recent.insert(key, Place { file: number, offset, bytes });
        Ok(())
    }

    /// The value of a key. One that cannot be read any more counts as forgotten.
    pub fn get(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        let place = self.place(key)?;
        let mut value = vec![0; place.bytes as usize];
        self.files.get(place.file as usize)?.read_exact_at(&mut value, place.offset).ok()?;
        Some(value)
    }

    fn place(&self, key: &[u8; 32]) -> Option<Place> {
        self.recent.get(key).copied().or_else(|| Place::of_row(self.spilled.find(key)?))
    }
}

impl Place {
    fn row(&self, key: &[u8; 32]) -> [u8; ROW_BYTES] {
        let mut row = [0; ROW_BYTES];
        row[..32].copy_from_slice(key);
        row[32..36].copy_from_slice(&self.file.to_le_bytes());
        row[36..44].copy_from_slice(&self.offset.to_le_bytes());
        row[44..].copy_from_slice(&self.bytes.to_le_bytes());
        row
    }

    fn of_row(row: &[u8; ROW_BYTES]) -> Option<Self> {
        let file = u32::from_le_bytes(*row[32..].first_chunk()?);
        let offset = u64::from_le_bytes(*row[36..].first_chunk()?);
        Some(Self { file, offset, bytes: u32::from_le_bytes(*row.last_chunk()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_found_again_however_few_fit_into_memory() {
        let dir = tempfile::tempdir().unwrap();
        for entries_max in [1, 7, 1000] {
            let mut values = SpilledValues::new(dir.path(), entries_max);
            let key = |n: u32| *blake3::hash(&n.to_le_bytes()).as_bytes();
            let value = |n: u32| vec![n.to_le_bytes()[0]; n as usize % 90];
            for n in 0..300 {
                values.insert(key(n), &value(n)).unwrap();
                values.insert(key(n / 2), b"not the first").unwrap();
            }
            assert!((0..300).all(|n| values.get(&key(n)) == Some(value(n))), "{entries_max}");
            assert_eq!(values.get(&key(300)), None);
            assert!(values.recent.len() <= entries_max);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the files have no names");
    }
}
