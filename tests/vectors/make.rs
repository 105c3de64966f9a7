//! Makes every vector from fixed values.

use esker::crypto::key::SecretKey;
use esker::format::cbor::{self, Record};
use esker::format::record::DIGEST_BYTES;
use esker::id::{CollectionId, CredentialId, EpochId, RepoId, SessionId, SlotId, hex};
use minicbor::Decoder;

use super::plain;
use super::read::diagnostic;
use super::sealed;

pub(super) const REPO: RepoId = RepoId::from_bytes([0x10; 16]);
pub(super) const SESSION: SessionId = SessionId::from_bytes([0x11; 16]);
pub(super) const EPOCH: EpochId = EpochId::from_bytes([0x12; 16]);
pub(super) const COLLECTION: CollectionId = CollectionId::from_bytes([0x13; 16]);
pub(super) const SLOT: SlotId = SlotId::from_bytes([0x14; 16]);
pub(super) const SEED: SecretKey = SecretKey::from_bytes([0x15; 32]);
pub(super) const INDEX_KEY: SecretKey = SecretKey::from_bytes([0x16; 32]);
pub(super) const ID_KEY: SecretKey = SecretKey::from_bytes([0x17; 32]);
pub(super) const PSK: SecretKey = SecretKey::from_bytes([0x18; 32]);
pub(super) const PRIVATE: SecretKey = SecretKey::from_bytes([0x19; 32]);
pub(super) const SESSION_SECRET: SecretKey = SecretKey::from_bytes([0x1a; 32]);
pub(super) const SIGNER: CredentialId = CredentialId::from_bytes([0x1b; 32]);
pub(super) const SECS: i64 = 981_173_106;

/// One file of the vectors.
pub(crate) struct Vector {
    pub(crate) name: String,
    object: &'static str,
    expect: &'static str,
    fields: Vec<(&'static str, String)>,
    comment: &'static str,
    bytes: Vec<u8>,
}

pub(super) fn good(name: &str, object: &'static str, comment: &'static str, bytes: impl Into<Vec<u8>>) -> Vector {
    Vector { name: name.into(), object, expect: "success", fields: vec![], comment, bytes: bytes.into() }
}

impl Vector {
    pub(super) fn with(mut self, field: &'static str, value: impl ToString) -> Self {
        self.fields.push((field, value.to_string()));
        self
    }

    pub(super) fn hex(self, field: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.with(field, hex(value.as_ref()))
    }

    /// The same keys, but another object that is refused.
    pub(super) fn refused(
        &self,
        name: &str,
        expect: &'static str,
        comment: &'static str,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> Vector {
        let mut bytes = self.bytes.clone();
        change(&mut bytes);
        let fields = self.fields.iter().filter(|(field, _)| *field != "value").cloned().collect();
        Vector { name: name.into(), object: self.object, expect, fields, comment, bytes }
    }

    /// The same object, but a key or name it is not for.
    pub(super) fn under(
        &self,
        name: &str,
        expect: &'static str,
        comment: &'static str,
        field: &str,
        value: String,
    ) -> Vector {
        let mut other = self.refused(name, expect, comment, |_| ());
        other.fields.iter_mut().find(|known| known.0 == field).expect("the field is there").1 = value;
        other
    }

    /// The stored file.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut text = format!("expect: {}\nobject: {}\n", self.expect, self.object);
        for (field, value) in &self.fields {
            text.push_str(&format!("{field}: {value}\n"));
        }
        text.push_str(&format!("comment: {}\n\n", self.comment));
        [text.as_bytes(), &self.bytes].concat()
    }
}

pub(super) fn record<R: Record>(name: &str, comment: &'static str, record: &R) -> Vector {
    let bytes = cbor::encode(record);
    let value = diagnostic(&mut Decoder::new(&bytes));
    good(name, R::WHAT, comment, bytes).with("value", value)
}

/// Replaces the digest at the end, so that what was changed before it is all that is wrong.
pub(super) fn digest_again(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() - DIGEST_BYTES);
    let digest = blake3::hash(bytes);
    bytes.extend_from_slice(digest.as_bytes());
}

/// Adds one field to a short map of CBOR.
pub(super) fn add_field(bytes: &mut Vec<u8>, key_and_value: &[u8]) {
    bytes[0] += 1;
    bytes.extend_from_slice(key_and_value);
}

pub(crate) fn vectors() -> Vec<Vector> {
    [
        plain::trees(),
        plain::sessions(),
        plain::collections(),
        plain::access(),
        sealed::tables(),
        sealed::containers(),
        sealed::keys(),
        sealed::envelopes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
