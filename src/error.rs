//! The error every public operation returns: what was not done, to which object, and why.
//!
//! Lower layers have small errors of their own (`format::DecodeError`, `crypto::OpenError`,
//! `storage::Error`, `index::Error`); this wraps them with the operation. The command line
//! prints it as `error:`, `Caused by:` and `hint:` lines and turns [`Kind`] into the exit code.

use std::error::Error as StdError;
use std::fmt;

use crate::crypto;
use crate::format;
use crate::index;
use crate::storage;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of thing went wrong; decides the exit code (CLI.md, Exit codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not done, for none of the reasons below.
    Failed,
    /// The caller asked for something that makes no sense.
    Usage,
    /// Stored bytes are damaged, missing or not authentic.
    Damaged,
    /// This credential, a policy or a quota does not allow it.
    Refused,
    /// There is no repository at that place.
    NoRepository,
    /// The password or key opens nothing here.
    WrongKey,
    /// The repository needs a newer program.
    TooNew,
    /// A signal asked to stop.
    Interrupted,
}

/// What was not done, why, and what to try.
pub struct Error {
    kind: Kind,
    what: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that says `what` did not happen: lower case, one line, naming the object.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), hint: None, source: None }
    }

    /// Adds the cause.
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds a command to try or another piece of advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What sort of error this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The hint of this error or of the nearest cause that has one.
    pub fn hint_text(&self) -> Option<&str> {
        if let Some(hint) = &self.hint {
            return Some(hint);
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            let own = error.downcast_ref::<Error>().and_then(|error| error.hint.as_deref());
            let storages = || error.downcast_ref::<storage::Error>().and_then(storage::Error::hint_text);
            if let Some(hint) = own.or_else(storages) {
                return Some(hint);
            }
            cause = error.source();
        }
        None
    }

    /// The error and its causes on one line.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// The innermost cause: what was found, where it is said already what was not done.
    pub fn innermost(&self) -> String {
        let mut last: &dyn StdError = self;
        while let Some(cause) = last.source() {
            last = cause;
        }
        last.to_string()
    }

    /// The storage error at the bottom of this, if one is.
    pub fn storage_kind(&self) -> Option<storage::ErrorKind> {
        let mut cause = self.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<storage::Error>() {
                return Some(error.kind());
            }
            cause = error.source();
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "; caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// Wraps a lower layer's error with the operation that failed.
pub trait Context<T> {
    /// Says what did not happen; the closure runs only on failure.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

/// A lower layer's error that knows its [`Kind`].
trait HasKind: StdError + Send + Sync + 'static {
    fn kind(&self) -> Kind;
}

impl HasKind for storage::Error {
    fn kind(&self) -> Kind {
        match self.kind() {
            storage::ErrorKind::Corrupt => Kind::Damaged,
            storage::ErrorKind::Denied => Kind::Refused,
            _ => Kind::Failed,
        }
    }
}

impl HasKind for format::DecodeError {
    fn kind(&self) -> Kind {
        match self {
            format::DecodeError::Unsupported { .. } => Kind::TooNew,
            _ => Kind::Damaged,
        }
    }
}

impl HasKind for crypto::OpenError {
    fn kind(&self) -> Kind {
        Kind::Damaged
    }
}

impl HasKind for index::Error {
    fn kind(&self) -> Kind {
        Kind::Failed
    }
}

impl HasKind for std::io::Error {
    fn kind(&self) -> Kind {
        Kind::Failed
    }
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        self.kind
    }
}

impl<T, E: HasKind> Context<T> for Result<T, E> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::new(HasKind::kind(&error), what()).because(error))
    }
}
