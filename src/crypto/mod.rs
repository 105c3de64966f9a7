//! Keys, sealing and signing (SPEC §5). Knows no format and no storage.
//!
//! [`key`] derives keys, [`seal`] is the one AEAD construction, [`ident`] names chunks,
//! [`credential`] is what a person or machine holds, [`envelope`] seals secrets to public keys,
//! [`slot`] turns a password into a key, [`words`] a seed into words, [`wipe`] clears what these leave behind. A key commitment stands beside every sealed thing,
//! because the AEAD does not commit to its key.

pub mod credential;
pub mod envelope;
pub mod ident;
pub mod key;
pub mod seal;
pub mod slot;
pub mod wipe;
pub mod words;

/// Why sealed bytes were not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key commitment or the authentication tag differs: another key, or changed bytes.
    #[error("{0} is not authentic: it was changed, or sealed with another key")]
    NotAuthentic(&'static str),
    /// The content is intact but is not what its name says.
    #[error("{0} does not match its id")]
    WrongIdentity(&'static str),
    /// The bytes end too early.
    #[error("{0} is truncated")]
    Truncated(&'static str),
    /// An algorithm this program does not know.
    #[error("{0} uses an algorithm this program does not know: {1}")]
    Unsupported(&'static str, u8),
}
