//! Makes every vector from fixed values: what is accepted first, then, from that, what is refused.

use std::sync::LazyLock;

use esker::crypto::key::SecretKey;
use esker::format::cbor::{self, Record};
use esker::format::record::DIGEST_BYTES;
use esker::id::{CollectionId, CredentialId, EpochId, RepoId, SessionId, SlotId, hex};
use minicbor::Decoder;

use super::keyfile;
use super::pack;
use super::parity;
use super::plain;
use super::read::{diagnostic, sha256};
use super::refused;
use super::sealed;

pub(super) const REPO: RepoId = RepoId::from_bytes([0x10; 16]);
pub(super) const SESSION: SessionId = SessionId::from_bytes([0x11; 16]);
pub(super) const EPOCH: EpochId = EpochId::from_bytes([0x12; 16]);
pub(super) const COLLECTION: CollectionId = CollectionId::from_bytes([0x13; 16]);
pub(super) const SLOT: SlotId = SlotId::from_bytes([0x14; 16]);
pub(super) static SEED: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes(&[0x15; 32]));
pub(super) static INDEX_KEY: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes(&[0x16; 32]));
pub(super) static ID_KEY: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes(&[0x17; 32]));
pub(super) static PSK: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes(&[0x18; 32]));
pub(super) static PRIVATE: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes(&[0x19; 32]));
pub(super) static SESSION_SECRET: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes(&[0x1a; 32]));
pub(super) const SIGNER: CredentialId = CredentialId::from_bytes([0x1b; 32]);
pub(super) const SECS: i64 = 981_173_106;

/// One file of the vectors.
#[derive(Clone)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) object: &'static str,
    pub(crate) expect: &'static str,
    fields: Vec<(&'static str, String)>,
    /// Plain text that is handed out before the object is refused.
    released: Vec<u8>,
    comment: String,
    pub(super) bytes: Vec<u8>,
}

pub(super) fn good(name: &str, object: &'static str, comment: &'static str, bytes: impl Into<Vec<u8>>) -> Vector {
    let (fields, released, bytes) = (vec![], vec![], bytes.into());
    Vector { name: name.into(), object, expect: "success", fields, released, comment: comment.into(), bytes }
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
        comment: &str,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> Vector {
        let mut bytes = self.bytes.clone();
        change(&mut bytes);
        let fields = self.fields.iter().filter(|(field, _)| *field != "value").cloned().collect();
        let (name, released, comment) = (name.into(), vec![], comment.into());
        Vector { name, object: self.object, expect, fields, released, comment, bytes }
    }

    /// What is handed out before it is refused; nothing, unless this says so.
    pub(super) fn releasing(mut self, plain: &[u8]) -> Self {
        self.released = plain.to_vec();
        self
    }

    /// The same object, but a key or name it is not for.
    pub(super) fn under(&self, name: &str, expect: &'static str, comment: &str, field: &str, value: String) -> Vector {
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
        if self.expect != "success" {
            text.push_str(&format!("released: {}\n", sha256(&self.released)));
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

/// The fields of a map of CBOR, values as they are encoded.
fn fields(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.map().unwrap().unwrap();
    let mut field = || {
        let (key, start) = (decoder.u64().unwrap(), decoder.position());
        decoder.skip().unwrap();
        (key, bytes[start..decoder.position()].to_vec())
    };
    (0..count).map(|_| field()).collect()
}

/// A map of these fields in the order given, whatever it is.
pub(super) fn map_of(fields: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![0xa0 + u8::try_from(fields.len()).unwrap()];
    for (key, value) in fields {
        cbor::push_u64(&mut out, *key);
        out.extend_from_slice(value);
    }
    out
}

/// Gives a field of a map this value, as it is encoded; adds the field where it is not there.
pub(super) fn set(key: u64, value: impl AsRef<[u8]>) -> impl Fn(&mut Vec<u8>) {
    move |bytes| {
        let mut all = fields(bytes);
        all.retain(|field| field.0 != key);
        let at = all.partition_point(|field| field.0 < key);
        all.insert(at, (key, value.as_ref().to_vec()));
        *bytes = map_of(&all);
    }
}

/// Leaves a field of a map out.
pub(super) fn without(key: u64) -> impl Fn(&mut Vec<u8>) {
    move |bytes| {
        let mut all = fields(bytes);
        all.retain(|field| field.0 != key);
        *bytes = map_of(&all);
    }
}

/// Turns the items of a field that is an array of byte strings or texts around.
pub(super) fn reversed(key: u64) -> impl Fn(&mut Vec<u8>) {
    move |bytes| each_item(bytes, key, |items| items.reverse())
}

/// Says the first item of such a field twice.
pub(super) fn repeated(key: u64) -> impl Fn(&mut Vec<u8>) {
    move |bytes| each_item(bytes, key, |items| items.insert(0, items[0].clone()))
}

fn each_item(bytes: &mut Vec<u8>, key: u64, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let value = fields(bytes).into_iter().find(|field| field.0 == key).expect("the field is there").1;
    let mut decoder = Decoder::new(&value);
    let count = decoder.array().unwrap().unwrap();
    let mut item = || {
        let start = decoder.position();
        decoder.skip().unwrap();
        value[start..decoder.position()].to_vec()
    };
    let mut items: Vec<Vec<u8>> = (0..count).map(|_| item()).collect();
    change(&mut items);
    let mut array = Vec::new();
    cbor::list(&mut array, &items, |out, item| out.extend_from_slice(item));
    set(key, array)(bytes);
}

pub(crate) fn vectors() -> Vec<Vector> {
    let mut all = accepted();
    all.extend(refused::vectors(&all));
    all
}

fn accepted() -> Vec<Vector> {
    [
        plain::trees(),
        plain::sessions(),
        plain::collections(),
        plain::access(),
        sealed::tables(),
        sealed::containers(),
        sealed::keys(),
        sealed::envelopes(),
        pack::vectors(),
        parity::vectors(),
        keyfile::vectors(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
