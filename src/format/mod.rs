//! Bytes to structs and back, pure: no keys, no storage, no clock (SPEC §4 to §10).
//!
//! There is one encoding for each value. Records and trees are deterministic CBOR with integer
//! keys ([`cbor`]); pack trailers, directories and index segments are fixed-width little-endian
//! tables. Every decoder takes hostile bytes: it allocates nothing from a length it has not
//! checked against the input, and what it accepts re-encodes to the same bytes.

pub mod access;
pub mod bytes;
pub mod cbor;
pub mod config;
pub mod gc;
mod item;
pub mod pack;
pub mod parity;
pub mod record;
pub mod segment;
pub mod session;
pub mod tree;

/// Shorthand for results of decoders.
pub type Result<T> = std::result::Result<T, DecodeError>;

/// Why bytes are not the structure they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes break a rule of the format.
    #[error("malformed {what}: {detail}")]
    Malformed {
        /// The structure being read.
        what: &'static str,
        /// The rule, and what was found.
        detail: String,
    },
    /// The bytes end too early.
    #[error("truncated {what}: at least {needed} more bytes needed, {found} found")]
    Truncated {
        /// The structure being read.
        what: &'static str,
        /// How many bytes there must be from the place where it ends too early.
        needed: u64,
        /// How many there are from there.
        found: u64,
    },
    /// A version, suite, kind or field this program does not know.
    #[error("unsupported {what}: {found}")]
    Unsupported {
        /// The structure being read.
        what: &'static str,
        /// The unknown value.
        found: String,
    },
}

impl DecodeError {
    /// A broken rule.
    pub fn malformed(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Malformed { what, detail: detail.into() }
    }

    /// Something only a newer program knows.
    pub fn unsupported(what: &'static str, found: impl Into<String>) -> Self {
        Self::Unsupported { what, found: found.into() }
    }
}
