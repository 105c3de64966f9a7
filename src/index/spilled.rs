//! Rows that memory has no room for, sorted into files without names and found by their keys.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use super::Error;
use super::run;
use super::run::Run;

/// Rows of `ROW` bytes, of which the first 32 are the key: as evenly spread as a hash.
///
/// The files are merged as they become many, so a row is found with a few looks however many
/// there are, and the system frees them when this is dropped or the program ends.
pub struct Spilled<const ROW: usize> {
    runs: Vec<Run<ROW>>,
    dir: PathBuf,
}

impl<const ROW: usize> fmt::Debug for Spilled<ROW> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spilled({} rows)", self.rows())
    }
}

impl<const ROW: usize> Spilled<ROW> {
    /// No rows, and a directory for the files. Where that cannot be written to, they are kept
    /// elsewhere: see `unnamed_files`.
    pub fn new(dir: &Path) -> Self {
        Self { runs: Vec::new(), dir: dir.into() }
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.runs.iter().map(Run::rows).sum()
    }

    /// Takes in rows whose keys are not there yet. After an error all rows before are still there.
    pub fn add(&mut self, mut rows: Vec<[u8; ROW]>) -> Result<(), Error> {
        let failed = |fault: run::Fault| fault.about("write a temporary file in", &self.dir);
        rows.sort_unstable();
        let (spilled, _) = run::write_unnamed(&self.dir, |file| run::write_sorted(&rows, file)).map_err(failed)?;
        self.runs.push(spilled);
        drop(rows);
        let sizes: Vec<u64> = self.runs.iter().map(Run::rows).collect();
        let due = run::due(&sizes);
        if !due.is_empty() {
            let sources: Vec<_> = due.iter().map(|i| &self.runs[*i]).collect();
            let (merged, _) = run::write_unnamed(&self.dir, |file| run::merge(&sources, file)).map_err(failed)?;
            let mut n = 0..;
            self.runs.retain(|_| n.next().is_some_and(|n| !due.contains(&n)));
            self.runs.push(merged);
        }
        Ok(())
    }

    /// The row with this key.
    pub fn find(&self, key: &[u8; 32]) -> Option<&[u8; ROW]> {
        self.runs.iter().find_map(|run| run.find_one(key))
    }
}
