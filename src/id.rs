//! Identifiers: one type for each thing that has a name, never interchangeable.
//!
//! Every id prints as lowercase hexadecimal, which is also its name in storage, and parses
//! from exactly that. Hash ids are BLAKE3-256 of stored bytes or keyed BLAKE3 of content;
//! random ids are 128 bits (SPEC §3).

use std::fmt;
use std::str::FromStr;

/// A string was not the lowercase hexadecimal of an id of the expected length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected_digits} lowercase hexadecimal digits, found `{found}`")]
pub struct ParseIdError {
    /// How many digits the id type has.
    pub expected_digits: usize,
    /// What was given instead.
    pub found: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident [$len:literal];)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const BYTES: usize = $len;

            /// Wraps raw bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Reads an id from a slice of exactly the right length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                hex(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                unhex(text).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(|| ParseIdError {
                    expected_digits: 2 * $len,
                    found: text.chars().take(80).collect(),
                })
            }
        }
    )*};
}

ids! {
    /// A repository; random, frozen in `config`.
    RepoId[16];
    /// A backup session and the commit it makes; random.
    SessionId[16];
    /// An epoch of the repository's keys; random.
    EpochId[16];
    /// A key slot; random.
    SlotId[16];
    /// One garbage collection; random.
    CollectionId[16];
    /// A group of hard links: keyed hash of the group's first path.
    LinkGroup[16];
    /// A credential: hash of its public keys.
    CredentialId[32];
    /// A chunk, tree node or list node: keyed hash of its content.
    ChunkId[32];
    /// A stored object named by the BLAKE3 of its bytes: index segment, statement, note, log.
    ObjectId[32];
    /// A pack: BLAKE3 of its stored bytes.
    PackId[32];
    /// All that an index segment says of a pack (SPEC §8): a hash of it.
    DescriptionId[32];
}

impl ObjectId {
    /// The name of an object with these stored bytes.
    pub fn of(stored: &[u8]) -> Self {
        Self(*blake3::hash(stored).as_bytes())
    }
}

impl PackId {
    /// The name of a pack with these stored bytes.
    pub fn of(stored: &[u8]) -> Self {
        Self(*blake3::hash(stored).as_bytes())
    }
}

/// Lowercase hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// The bytes of lowercase hexadecimal; anything else, uppercase included, is `None`.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    if !text.len().is_multiple_of(2) {
        return None;
    }
    // Of one size from the start: what it grew out of would stay in memory, and it may be a key.
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for pair in text.as_bytes().chunks_exact(2) {
        bytes.push(digit(pair[0])? << 4 | digit(pair[1])?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_as_the_hex_it_parses_from() {
        let id = SessionId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string(), "30313233343536373839616263646566");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short(), "30313233");
        assert_eq!(format!("{id:?}"), "SessionId(30313233)");
    }

    #[test]
    fn an_id_refuses_other_lengths_digits_and_uppercase() {
        for bad in [
            "",
            "30",
            "3031323334353637383961626364656",
            "3031323334353637383961626364656G",
            "AA313233343536373839616263646566",
        ] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }
}
