//! What unlocks a repository: a password, or a key file that is a credential itself.

use std::fmt::{self, Write};
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::crypto::credential::Credential;
use crate::crypto::key::SecretKey;
use crate::error::{Error, Kind};
use crate::format::access::Role;
use crate::id::{CredentialId, RepoId, hex, unhex};

/// How a credential is unlocked.
#[derive(Clone)]
pub enum Secret {
    /// A password that opens one of the slots.
    Password(Zeroizing<String>),
    /// A key file, or a recovery sheet, which says the same.
    KeyFile(KeyFile),
    /// The seed that recovery words stand for, without anything that tells a false `config`.
    Words(SecretKey),
}

impl Secret {
    /// A password.
    pub fn password(password: impl Into<String>) -> Self {
        Self::Password(Zeroizing::new(password.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(…)"),
            Self::KeyFile(file) => write!(f, "{file:?}"),
            Self::Words(_) => f.write_str("Words(…)"),
        }
    }
}

/// A credential's seed with what it is for. Whoever holds the file is the credential.
#[derive(Clone)]
pub struct KeyFile {
    /// What the credential may do, as its maker said; the access list decides.
    pub role: Role,
    /// The repository it belongs to.
    pub repo: RepoId,
    /// That repository's root owner: a storage that puts up a `config` of its own, with the
    /// same repository id, is not taken for it.
    pub root_verifying: [u8; 32],
    /// The seed.
    pub seed: SecretKey,
}

const FIRST_WORD: &str = "esker-key-2";

impl KeyFile {
    /// The credential in this file.
    pub fn credential(&self) -> Credential {
        Credential::from_seed(self.seed.clone())
    }

    /// The file's text.
    pub fn to_text(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(hex(self.seed.expose()));
        let id = self.credential().id();
        let root = hex(&self.root_verifying);
        let line = secret_text(format_args!("{FIRST_WORD} {} {} {root} {id} {}", self.role.name(), self.repo, *seed));
        secret_text(format_args!(
            "# An Esker key file: whoever holds it is credential {} ({}) of repository {}.\n\
             # Keep it secret and keep a copy. It opens the repository without a password.\n{} {}\n",
            id.short(),
            self.role.name(),
            self.repo.short(),
            *line,
            checksum(&line),
        ))
    }
}

/// Room for a page with a secret: a text that grows leaves what it held behind.
const PAGE_BYTES: usize = 8 << 10;

/// A text with a secret in it, in one place and wiped when dropped.
pub(super) fn secret_text(parts: fmt::Arguments<'_>) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(PAGE_BYTES));
    text.write_fmt(parts).expect("a string takes any text");
    text
}

fn checksum(line: &str) -> String {
    hex(&blake3::hash(line.as_bytes()).as_bytes()[..4])
}

/// Why a text is no key file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// There is nothing in it but comments.
    #[error("it is empty")]
    Truncated,
    /// It breaks a rule of SPEC §4.4.
    #[error("{0}")]
    Malformed(&'static str),
    /// It begins with another first word.
    #[error("it is not an Esker key file of a version this program knows")]
    Unsupported,
    /// It is intact, but its seed is another credential's.
    #[error("its seed is not its credential's")]
    WrongIdentity,
}

impl FromStr for KeyFile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(|why| Error::new(Kind::WrongKey, format!("cannot use the key file: {why}")))
    }
}

impl KeyFile {
    /// Reads a key file's text.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let bad = KeyFileError::Malformed;
        let line = text
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .ok_or(KeyFileError::Truncated)?;
        let (body, sum) = line.rsplit_once(' ').ok_or_else(|| bad("it is not an Esker key file"))?;
        let mut words = body.split(' ');
        if words.next() != Some(FIRST_WORD) {
            return Err(KeyFileError::Unsupported);
        }
        if checksum(body) != sum {
            return Err(bad("its checksum does not fit: it is damaged or incomplete"));
        }
        let role = match words.next() {
            Some("owner") => Role::Owner,
            Some("writer") => Role::Writer,
            _ => return Err(bad("its role is unknown")),
        };
        let repo = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| bad("its repository id is bad"))?;
        let root = words.next().and_then(unhex).and_then(|key| key.try_into().ok());
        let root_verifying = root.ok_or_else(|| bad("its root owner's key is bad"))?;
        let id: CredentialId =
            words.next().and_then(|word| word.parse().ok()).ok_or_else(|| bad("its credential id is bad"))?;
        let seed = words.next().and_then(unhex).map(Zeroizing::new).ok_or_else(|| bad("its seed is bad"))?;
        let seed = seed.as_slice().try_into().map(SecretKey::from_bytes);
        let file = Self { role, repo, root_verifying, seed: seed.map_err(|_| bad("its seed is not 32 bytes"))? };
        if words.next().is_some() {
            return Err(bad("it has more words than a key file"));
        }
        if file.credential().id() != id {
            return Err(KeyFileError::WrongIdentity);
        }
        Ok(file)
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({}, …)", self.role.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_reads_back_and_finds_every_changed_character() {
        let file = KeyFile {
            role: Role::Writer,
            repo: RepoId::from_bytes([1; 16]),
            root_verifying: [3; 32],
            seed: SecretKey::from_bytes(&[2; 32]),
        };
        let text = file.to_text();
        let back: KeyFile = text.parse().unwrap();
        assert_eq!((back.role, back.repo, *back.seed.expose()), (Role::Writer, file.repo, [2; 32]));
        assert_eq!(back.root_verifying, file.root_verifying);
        let line = text.lines().last().unwrap().to_owned();
        for at in 0..line.len() {
            let mut bad = line.clone().into_bytes();
            bad[at] = if bad[at] == b'0' { b'1' } else { b'0' };
            assert!(String::from_utf8(bad).unwrap().parse::<KeyFile>().is_err(), "character {at}");
        }
        assert!(!format!("{file:?}").contains("0202"));
    }
}
