//! The local catalog: what the repository's index segments say, kept where it is quick to ask.
//!
//! Everything here is a cache. A [`Catalog`] holds the chunk rows of many index segments in a few
//! immutable sorted [`run`] files, and which segments they came from, their packs and those packs'
//! origins in a small database ([`store`]). Losing it costs reading the segments again; a damaged
//! one is noticed, dropped and begun anew.
//!
//! What belongs to one run of the program is beside it: [`SessionTable`] knows the ids a session
//! has claimed, in bounded memory, [`SpilledValues`] what belongs to keys, and [`Marks`] is one bit for each row
//! of a catalog.

mod catalog;
mod envelopes;
mod marks;
mod rows;
mod run;
mod session;
mod spilled;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod unnamed;
mod values;

use std::fs::File;
use std::path::PathBuf;

pub use catalog::{Catalog, Found, Import, ImportPack};
pub use marks::{Marks, SharedMarks};
pub use rows::{ChunkRow, NewOrigin, NewRow, OriginRow, PackRow};
pub use session::SessionTable;
pub use spilled::Spilled;
pub(crate) use unnamed::UnnamedWriter;
pub(crate) use unnamed::unnamed_files;
pub use values::SpilledValues;

/// Opens a run of chunk rows and asks it for each of its rows, for `strangers` and for all at
/// once by merging it: for [`crate::fuzzing`]. How many rows it has, or `None` when it is refused.
pub(crate) fn ask_run(file: &File, strangers: &[[u8; 32]]) -> Option<u64> {
    let run: run::Run<{ rows::CHUNK_ROW_BYTES }> = run::Run::open(file, None).ok()?;
    let own = (0..).map_while(|n| run.row(n)).filter_map(|row| row.first_chunk()).take(64);
    for id in own.chain(strangers) {
        let decoded = run.find(id).filter_map(|(_, row)| rows::ChunkRow::decode(row)).count();
        debug_assert!(decoded as u64 <= run.rows());
    }
    let merged = unnamed::unnamed_file(&std::env::temp_dir()).ok()?;
    let _ = run::merge(&[&run, &run], merged);
    Some(run.rows())
}

/// The local catalog could not be read or written. Deleting it loses nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache directory cannot be used.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The catalog's database failed, and failed again when begun anew.
    #[error("cannot use the catalog database `{path}`: {message}")]
    Database {
        /// The database file.
        path: PathBuf,
        /// What the database said.
        message: String,
    },
    /// There are more packs, sessions or rows than the catalog can number.
    #[error("the catalog is full: more than {limit} {what}")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// How many there can be.
        limit: u64,
    },
}

/// For `map_err`: what was being done to which file.
fn io_error(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}
