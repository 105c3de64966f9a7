//! Stub; being written.

/// The local catalog could not be read or written. Deleting it loses nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache directory cannot be used.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: std::path::PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The catalog's database failed.
    #[error("cannot use the catalog database `{path}`: {message}")]
    Database {
        /// The database file.
        path: std::path::PathBuf,
        /// What the database said.
        message: String,
    },
}
