//! What a writer remembers of having copied, since it cannot read it at the target.
//!
//! A file in the cache, one line a snapshot: its id at the source, and its copy's at the target. Lost, it costs
//! that snapshots are copied once more: no data is stored twice, but each is listed twice.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::id::SessionId;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::standing::Standing;

/// No record is read of more than this.
const BYTES_MAX: u64 = 64 << 20;

/// The record of one source.
pub(super) struct Copied {
    path: Option<PathBuf>,
    made: HashMap<SessionId, SessionId>,
}

impl Copied {
    /// Reads the record of what was copied from a repository; only what is still there counts.
    pub(super) fn load(target: &Repository, source: &Repository, reader: &Reader<'_>) -> Self {
        let path = target.cache_directory().map(|cache| cache.join(format!("copied-{}", source.config.repo)));
        let is_small = |path: &PathBuf| path.metadata().is_ok_and(|data| data.len() <= BYTES_MAX);
        let text = path.as_ref().filter(|path| is_small(path)).and_then(|path| std::fs::read_to_string(path).ok());
        let standings = reader.standings();
        let is_there = |session: &SessionId| {
            reader.commits().headers.get(session).is_some_and(|header| standings.of(header) == Standing::Live)
        };
        let mut made = HashMap::new();
        for line in text.iter().flat_map(|text| text.lines()) {
            if let Some((from, to)) = line.split_once(' ')
                && let (Ok(from), Ok(to)) = (from.parse(), to.parse())
                && is_there(&to)
            {
                made.insert(from, to);
            }
        }
        Self { path, made }
    }

    /// The copy of a snapshot of the source.
    pub(super) fn get(&self, from: &SessionId) -> Option<SessionId> {
        self.made.get(from).copied()
    }

    /// Takes note of a copy.
    pub(super) fn add(&mut self, from: &SessionId, to: &SessionId) -> io::Result<()> {
        self.made.insert(*from, *to);
        let Some(path) = &self.path else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no cache"));
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        file.write_all(format!("{from} {to}\n").as_bytes())
    }
}
