//! How a command ends when not everything was done, and what its exit code is.

use std::io;

use crate::error::{Error, Kind};

/// Why a command did not end with 0.
#[derive(Debug)]
pub(super) enum Fail {
    /// It was not done.
    Error(Error),
    /// It was done in part, or found damage: the exit code that says so.
    Code(u8, Error),
    /// Its results could not be written.
    Output(io::Error),
}

/// Shorthand for results of commands.
pub(super) type Result<T, E = Fail> = std::result::Result<T, E>;

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Fail {
    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Code(code, _) => *code,
            Self::Output(_) => 1,
            Self::Error(error) => match error.kind() {
                Kind::Failed | Kind::Damaged => 1,
                Kind::Usage => 2,
                Kind::Refused => 6,
                Kind::NoRepository => 10,
                Kind::WrongKey => 12,
                Kind::TooNew => 13,
                Kind::Interrupted => 130,
            },
        }
    }
}

/// A wrong use of the command line: what was not done.
pub(super) fn usage(what: impl Into<String>) -> Error {
    Error::new(Kind::Usage, what)
}
