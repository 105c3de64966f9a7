//! The two containers of records (SPEC §4): *sealed* for what only credentials of the repository
//! may read, *signed* for what must be readable before anything is unlocked.
//!
//! Both carry a signature. Objects that are not named by their hash end with the BLAKE3 of what
//! precedes, so that anyone can check them.

use super::bytes::Fields;
use super::{DecodeError, Result};
use crate::id::{CredentialId, EpochId, RepoId};

/// First bytes of a sealed record.
pub const SEALED_MAGIC: [u8; 8] = *b"ESKREC\x00\x01";
/// First bytes of a signed record.
pub const SIGNED_MAGIC: [u8; 8] = *b"ESKSIG\x00\x01";
/// Bytes before the sealed text.
pub const SEALED_HEADER_BYTES: usize = 96;
/// Longest a record may be, sealed or signed.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Bytes of the digest at the end of objects that are not named by their hash.
pub const DIGEST_BYTES: usize = 32;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// `config`.
    Config = 1,
    /// `access/<hash>`.
    Statement = 2,
    /// `sessions/<sid>`.
    Session = 3,
    /// `snapshots/<sid>`.
    Commit = 4,
    /// `index/<hash>`.
    Segment = 5,
    /// `flags/<sid>/<cid>`.
    Flag = 6,
    /// `gc/<cid>/condemned`.
    Condemned = 7,
    /// `gc/<cid>/swept`.
    Swept = 8,
    /// `gc/<cid>/done`.
    Done = 9,
    /// `notes/<hash>`.
    Note = 10,
    /// `log/<hash>`.
    Log = 11,
}

impl RecordKind {
    /// Every kind, in order of its number.
    pub const ALL: [Self; 11] = [
        Self::Config,
        Self::Statement,
        Self::Session,
        Self::Commit,
        Self::Segment,
        Self::Flag,
        Self::Condemned,
        Self::Swept,
        Self::Done,
        Self::Note,
        Self::Log,
    ];

    fn from_u8(number: u8) -> Result<Self> {
        let kind = RecordKind::ALL.iter().find(|kind| **kind as u8 == number);
        kind.copied().ok_or_else(|| DecodeError::unsupported("record kind", number.to_string()))
    }

    /// What errors call it.
    pub fn what(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Statement => "access statement",
            Self::Session => "session",
            Self::Commit => "commit",
            Self::Segment => "index segment",
            Self::Flag => "flag",
            Self::Condemned => "condemned list",
            Self::Swept => "sweep",
            Self::Done => "collection end",
            Self::Note => "note",
            Self::Log => "log",
        }
    }

    /// Whether the object's name is the hash of its bytes; the others end with a digest.
    pub fn is_named_by_hash(self) -> bool {
        matches!(self, Self::Statement | Self::Segment | Self::Note | Self::Log)
    }

    /// The purpose of the key that seals this kind.
    pub fn key_purpose(self) -> String {
        format!("record {}", self as u8)
    }
}

/// Takes the digest off the end of an object that is not named by its hash, or refuses it. Refuses any
/// that is too long.
pub fn check_digest(kind: RecordKind, stored: &[u8]) -> Result<&[u8]> {
    if stored.len() > RECORD_BYTES_MAX {
        return Err(DecodeError::malformed(kind.what(), format!("it has {} bytes", stored.len())));
    }
    if kind.is_named_by_hash() {
        return Ok(stored);
    }
    let (bytes, digest) = stored.split_last_chunk::<DIGEST_BYTES>().ok_or(DecodeError::Truncated {
        what: kind.what(),
        needed: DIGEST_BYTES as u64,
        found: stored.len() as u64,
    })?;
    if blake3::hash(bytes).as_bytes() == digest {
        Ok(bytes)
    } else {
        Err(DecodeError::malformed(kind.what(), "its digest is not that of its bytes: it is damaged or torn"))
    }
}

/// Appends the digest to an object that is not named by its hash.
pub fn push_digest(kind: RecordKind, bytes: &mut Vec<u8>) {
    if !kind.is_named_by_hash() {
        let digest = blake3::hash(bytes);
        bytes.extend_from_slice(digest.as_bytes());
    }
}

/// A sealed record before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRecord<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// The AEAD.
    pub suite: u8,
    /// The epoch whose index key opens it.
    pub epoch: EpochId,
    /// Salt of its key.
    pub salt: [u8; 32],
    /// Commits to its key.
    pub commitment: [u8; 32],
    /// Nonce, ciphertext and tag.
    pub sealed: &'a [u8],
}

impl<'a> SealedRecord<'a> {
    /// The stored form, without the digest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEALED_HEADER_BYTES + self.sealed.len() + DIGEST_BYTES);
        out.extend_from_slice(&SEALED_MAGIC);
        out.extend_from_slice(&[self.kind as u8, self.suite, 0, 0]);
        out.extend_from_slice(&u32::try_from(self.sealed.len()).expect("records are bounded").to_le_bytes());
        out.extend_from_slice(self.epoch.as_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.commitment);
        out.extend_from_slice(self.sealed);
        out
    }

    /// Reads the stored form of a record of this kind, its digest checked and taken off.
    pub fn decode(kind: RecordKind, stored: &'a [u8]) -> Result<Self> {
        let what = kind.what();
        let mut fields = Fields::new(what, check_digest(kind, stored)?);
        fields.expect(&SEALED_MAGIC, "it does not begin with the magic of a sealed record")?;
        let found = RecordKind::from_u8(fields.u8()?)?;
        if found != kind {
            return Err(DecodeError::malformed(what, format!("it is a {}", found.what())));
        }
        let suite = fields.u8()?;
        fields.expect(&[0, 0], "reserved bytes are not zero")?;
        let sealed_bytes = fields.u32()? as usize;
        let epoch = EpochId::from_bytes(fields.array()?);
        let salt = fields.array()?;
        let commitment = fields.array()?;
        let sealed = fields.take(sealed_bytes)?;
        fields.end()?;
        Ok(Self { kind, suite, epoch, salt, commitment, sealed })
    }
}

/// What is inside a sealed record: who wrote it, their signature and the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<'a> {
    /// The writer.
    pub credential: CredentialId,
    /// The algorithm of the signature.
    pub algorithm: u8,
    /// The signature over [`signed_message`].
    pub signature: [u8; 64],
    /// The record itself.
    pub body: &'a [u8],
}

impl<'a> Signed<'a> {
    /// `credential || algorithm || signature || body`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(97 + self.body.len());
        out.extend_from_slice(self.credential.as_bytes());
        out.push(self.algorithm);
        out.extend_from_slice(&self.signature);
        out.extend_from_slice(self.body);
        out
    }

    /// Reads the opened text of a sealed record.
    pub fn decode(kind: RecordKind, plain: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::new(kind.what(), plain);
        let credential = CredentialId::from_bytes(fields.array()?);
        let algorithm = fields.u8()?;
        let signature = fields.array()?;
        Ok(Self { credential, algorithm, signature, body: fields.rest() })
    }
}

/// A record in clear with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRecord<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// The algorithm of the signature.
    pub algorithm: u8,
    /// The record itself.
    pub body: &'a [u8],
    /// The signature over [`signed_message`].
    pub signature: [u8; 64],
}

impl<'a> SignedRecord<'a> {
    /// The stored form, without the digest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(80 + self.body.len() + DIGEST_BYTES);
        out.extend_from_slice(&SIGNED_MAGIC);
        out.extend_from_slice(&[self.kind as u8, self.algorithm, 0, 0]);
        out.extend_from_slice(&u32::try_from(self.body.len()).expect("records are bounded").to_le_bytes());
        out.extend_from_slice(self.body);
        out.extend_from_slice(&self.signature);
        out
    }

    /// Reads the stored form of a record of this kind, its digest checked and taken off.
    pub fn decode(kind: RecordKind, stored: &'a [u8]) -> Result<Self> {
        let what = kind.what();
        let mut fields = Fields::new(what, check_digest(kind, stored)?);
        fields.expect(&SIGNED_MAGIC, "it does not begin with the magic of a signed record")?;
        let found = RecordKind::from_u8(fields.u8()?)?;
        if found != kind {
            return Err(DecodeError::malformed(what, format!("it is a {}", found.what())));
        }
        let algorithm = fields.u8()?;
        fields.expect(&[0, 0], "reserved bytes are not zero")?;
        let body_bytes = fields.u32()? as usize;
        let body = fields.take(body_bytes)?;
        let signature = fields.array()?;
        fields.end()?;
        Ok(Self { kind, algorithm, body, signature })
    }
}

/// What a signature is over: a domain, the repository, the kind, the full name where that is not
/// the hash (else empty), the epoch (zeros in signed records) and the hash of the body.
pub fn signed_message(repo: &RepoId, kind: RecordKind, name: &str, epoch: &EpochId, body: &[u8]) -> Vec<u8> {
    let mut message = b"esker v1 signature\0".to_vec();
    message.extend_from_slice(repo.as_bytes());
    message.push(kind as u8);
    message.extend_from_slice(&u16::try_from(name.len()).expect("names are short").to_le_bytes());
    message.extend_from_slice(name.as_bytes());
    message.extend_from_slice(epoch.as_bytes());
    message.extend_from_slice(blake3::hash(body).as_bytes());
    message
}

/// The associated data of a sealed record.
pub fn sealed_aad(repo: &RepoId, kind: RecordKind, name: &str, epoch: &EpochId) -> Vec<u8> {
    let mut aad = b"esker v1 record\0".to_vec();
    aad.extend_from_slice(repo.as_bytes());
    aad.push(kind as u8);
    aad.extend_from_slice(epoch.as_bytes());
    aad.extend_from_slice(name.as_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_beyond_the_limit_is_refused_whatever_it_is() {
        for kind in RecordKind::ALL {
            let stored = vec![0; RECORD_BYTES_MAX + 1];
            assert!(check_digest(kind, &stored).unwrap_err().to_string().contains("67108865 bytes"), "{kind:?}");
        }
    }

    #[test]
    fn containers_decode_to_what_was_encoded_and_find_every_flipped_bit_of_the_header() {
        let record = SealedRecord {
            kind: RecordKind::Commit,
            suite: 1,
            epoch: EpochId::from_bytes([1; 16]),
            salt: [2; 32],
            commitment: [3; 32],
            sealed: b"sealed text",
        };
        let mut bytes = record.encode();
        assert_eq!(bytes.len(), SEALED_HEADER_BYTES + 11);
        push_digest(RecordKind::Commit, &mut bytes);
        assert_eq!(SealedRecord::decode(RecordKind::Commit, &bytes), Ok(record));
        assert!(SealedRecord::decode(RecordKind::Session, &bytes).is_err());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(SealedRecord::decode(RecordKind::Commit, &bad).is_err(), "byte {at}");
            assert!(SealedRecord::decode(RecordKind::Commit, &bytes[..at]).is_err(), "{at} bytes");
        }
        let record = SignedRecord { kind: RecordKind::Statement, algorithm: 1, body: b"body", signature: [4; 64] };
        let bytes = record.encode();
        assert_eq!(SignedRecord::decode(RecordKind::Statement, &bytes), Ok(record));
        assert!(SignedRecord::decode(RecordKind::Statement, &[&bytes[..], b"x"].concat()).is_err());
    }
}
