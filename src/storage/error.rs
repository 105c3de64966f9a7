//! What can go wrong with a storage, sorted by what the caller can do about it.

use std::error::Error as StdError;
use std::fmt;

/// What sort of storage error this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no such object.
    NotFound,
    /// There is one already, and the put was to create it.
    Exists,
    /// The storage does not allow this to us.
    Denied,
    /// The storage asks for fewer requests.
    Throttled,
    /// A retry may help: a timeout, a broken connection.
    Transient,
    /// The object is not what it should be: shorter than asked for.
    Corrupt,
    /// No space, or a quota is reached.
    Full,
    /// Anything else: an I/O error of the device, a closed storage.
    Io,
}

/// A storage operation that failed, and on which object.
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error about an object or place: "object not found: `packs/…`".
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// Adds the cause.
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds advice: where to look, or a command to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// "object not found: `name`".
    pub fn not_found(name: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("object not found: `{name}`"))
    }

    /// "object exists already: `name`".
    pub fn exists(name: &str) -> Self {
        Self::new(ErrorKind::Exists, format!("object exists already: `{name}`"))
    }

    /// What sort of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether a disk has lost what was to be read: as good as other bytes, while the storage as such answers.
    pub fn is_of_the_medium(&self) -> bool {
        let source = self.source.as_deref().and_then(|source| source.downcast_ref::<std::io::Error>());
        self.kind == ErrorKind::Io && source.and_then(rustix::io::Errno::from_io_error) == Some(rustix::io::Errno::IO)
    }

    /// The advice that goes with it.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)?;
        self.source.iter().try_for_each(|source| write!(f, ": {source}"))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
