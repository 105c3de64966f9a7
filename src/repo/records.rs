//! Reading and writing records: sealed under the epoch's index key, signed by their writer.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use super::Repository;
use super::access::AccessList;
use crate::crypto::credential::{self, SIGNATURE_ALGORITHM};
use crate::crypto::{OpenError, seal};
use crate::error::{Context, Error, Kind, Result};
use crate::format::access::Role;
use crate::format::record::{
    RECORD_BYTES_MAX, RecordKind, SealedRecord, Signed, push_digest, sealed_aad, signed_message,
};
use crate::id::{CredentialId, EpochId, ObjectId};
use crate::storage::WriteMode;

/// A record that was opened and whose signature is good.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Who wrote it.
    pub credential: CredentialId,
    /// Whether an owner has removed that credential since; the caller decides what still counts.
    pub removed: bool,
    /// The epoch it was written in.
    pub epoch: EpochId,
    /// BLAKE3 of its stored bytes.
    pub hash: ObjectId,
    /// The record itself.
    pub body: Vec<u8>,
}

/// Bytes of opened records kept.
const KNOWN_BYTES_MAX: usize = 4 << 20;

/// Records that were opened by one unlocked repository, by what decides that: kind, name and stored bytes. Each
/// collection reads what all others said several times, and private keys and signatures are what that costs.
#[derive(Debug, Default)]
pub(super) struct KnownRecords {
    /// What they say, and how much memory that takes.
    opened: Mutex<(HashMap<ObjectId, Opened>, usize)>,
    /// Epochs that records of collections, and logs, say they are of, and that this credential has no keys of.
    foreign: Mutex<BTreeSet<EpochId>>,
}

impl KnownRecords {
    fn get(&self, key: &ObjectId) -> Option<Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).0.get(key).cloned()
    }

    fn keep(&self, key: ObjectId, opened: &Opened) {
        let mut known = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = opened.body.len() + size_of::<Opened>();
        if known.1 + bytes > KNOWN_BYTES_MAX {
            *known = Default::default();
        }
        if bytes <= KNOWN_BYTES_MAX / 16 && known.0.insert(key, opened.clone()).is_none() {
            known.1 += bytes;
        }
    }
}

/// Whether a role may write a kind of record (SPEC §4.2).
fn may_write(role: Role, kind: RecordKind) -> bool {
    match kind {
        RecordKind::Session | RecordKind::Commit | RecordKind::Segment | RecordKind::Note => true,
        _ => role == Role::Owner,
    }
}

impl Repository {
    /// Seals and signs a record in the current epoch and gives its stored bytes.
    ///
    /// `name` is the object's full name, or empty for a kind that is named by its hash.
    pub(crate) fn seal_record(&self, kind: RecordKind, name: &str, body: &[u8]) -> Vec<u8> {
        let epoch = self.keys.current_epoch();
        let message = signed_message(&self.config.repo, kind, name, &epoch.id, body);
        let signed = Signed {
            credential: self.keys.credential.id(),
            algorithm: SIGNATURE_ALGORITHM,
            signature: self.keys.credential.sign(&message),
            body,
        }
        .encode();
        let salt: [u8; 32] = self.world.random();
        let key = epoch.index_key.derive_salted(&salt, &kind.key_purpose());
        let nonce = seal::hedged_nonce(&self.world.random(), 0, blake3::hash(&signed).as_bytes());
        let mut sealed = Vec::new();
        seal::seal_into(&key.key, nonce, &sealed_aad(&self.config.repo, kind, name, &epoch.id), &signed, &mut sealed);
        let record = SealedRecord {
            kind,
            suite: seal::SUITE,
            epoch: epoch.id,
            salt,
            commitment: key.commitment,
            sealed: &sealed,
        };
        let mut stored = record.encode();
        push_digest(kind, &mut stored);
        stored
    }

    /// Opens a stored record: right name, right key, a signature by a credential whose role
    /// allows this kind. What fails any of that is [`Kind::Damaged`] and counts as absent.
    pub(crate) fn open_record(&self, kind: RecordKind, name: &str, stored: &[u8]) -> Result<Opened> {
        let hash = ObjectId::of(stored);
        let what = || format!("cannot read {} `{name}`", kind.what());
        let damaged = |detail: String| Error::new(Kind::Damaged, what()).because(detail);
        let bound_name = if kind.is_named_by_hash() {
            if name.rsplit('/').next() != Some(&hash.to_string()) {
                return Err(damaged("its name is not the hash of its bytes".into()));
            }
            ""
        } else {
            name
        };
        let mut key = blake3::Hasher::new();
        key.update(&[kind as u8]).update(hash.as_bytes()).update(bound_name.as_bytes());
        let known = ObjectId::from_bytes(*key.finalize().as_bytes());
        if let Some(opened) = self.known_records.get(&known) {
            return Ok(opened);
        }
        let record = SealedRecord::decode(kind, stored).context(what)?;
        if record.suite != seal::SUITE {
            return Err(OpenError::Unsupported(kind.what(), record.suite)).context(what);
        }
        let key = self.keys.index_key(&record.epoch, kind.what()).inspect_err(|_| {
            if matches!(kind, RecordKind::Condemned | RecordKind::Swept | RecordKind::Done | RecordKind::Log) {
                self.known_records.foreign.lock().unwrap_or_else(PoisonError::into_inner).insert(record.epoch);
            }
        });
        let key = key.context(what)?;
        let derived = key.derive_salted(&record.salt, &kind.key_purpose());
        let key = seal::committed(derived, &record.commitment, kind.what()).context(what)?;
        let aad = sealed_aad(&self.config.repo, kind, bound_name, &record.epoch);
        let plain = seal::open(&key, &aad, record.sealed, kind.what()).context(what)?;
        let signed = Signed::decode(kind, &plain).context(what)?;
        if signed.algorithm != SIGNATURE_ALGORITHM {
            return Err(OpenError::Unsupported(kind.what(), signed.algorithm)).context(what);
        }
        let member = self
            .access
            .member(&signed.credential)
            .ok_or_else(|| damaged("its writer is not in the access list".into()))?;
        if !may_write(member.role, kind) {
            return Err(damaged(format!("a {} may not write it", member.role.name())));
        }
        let message = signed_message(&self.config.repo, kind, bound_name, &record.epoch, signed.body);
        credential::verify(&member.public.verifying, &message, &signed.signature, kind.what()).context(what)?;
        let opened = Opened {
            credential: signed.credential,
            removed: member.removed.is_some(),
            epoch: record.epoch,
            hash,
            body: signed.body.to_vec(),
        };
        self.known_records.keep(known, &opened);
        Ok(opened)
    }

    /// Refuses to rely on what collections were found to say when some of it is sealed under an epoch that was
    /// opened since the repository was, or that this credential was not granted: what cannot be read is no silence.
    ///
    /// Anybody can put up something that says it is of an epoch nobody has opened; that counts as absent.
    pub(crate) fn refuse_with_old_keys(&self) -> Result<()> {
        let foreign = self.known_records.foreign.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if foreign.is_empty() {
            return Ok(());
        }
        let access = AccessList::load(&*self.storage, &self.config)?;
        if !access.epochs().iter().any(|epoch| foreign.contains(&epoch.id)) {
            return Ok(());
        }
        let what = "there are new keys, and what was said with them cannot be read with the old ones";
        Err(Error::new(Kind::Refused, what)
            .hint("run the same command again; if it says the same, let an owner run `esker key rotate` once more"))
    }

    /// Seals and puts a record that is named by its hash below `folder`; gives the hash.
    pub(crate) fn put_hashed_record(&self, kind: RecordKind, folder: &str, body: &[u8]) -> Result<ObjectId> {
        let stored = self.seal_record(kind, "", body);
        refuse_too_long(kind, &stored)?;
        let hash = ObjectId::of(&stored);
        let name = format!("{folder}{hash}");
        self.storage
            .put(&name, &stored, WriteMode::CreateNew)
            .context(|| format!("cannot store {} `{name}`", kind.what()))?;
        Ok(hash)
    }

    /// Seals and puts a record under a name of its own; gives the hash of its stored bytes.
    pub(crate) fn put_named_record(&self, kind: RecordKind, name: &str, body: &[u8]) -> Result<ObjectId> {
        let stored = self.seal_record(kind, name, body);
        refuse_too_long(kind, &stored)?;
        self.storage
            .put(name, &stored, WriteMode::CreateNew)
            .context(|| format!("cannot store {} `{name}`", kind.what()))?;
        Ok(ObjectId::of(&stored))
    }
}

/// Refuses to store what no reader would take.
fn refuse_too_long(kind: RecordKind, stored: &[u8]) -> Result<()> {
    if stored.len() <= RECORD_BYTES_MAX {
        return Ok(());
    }
    let what =
        format!("cannot store a {}: it has {} bytes, and {RECORD_BYTES_MAX} are the most", kind.what(), stored.len());
    Err(Error::new(Kind::Failed, what))
}
