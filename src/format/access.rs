//! Access statements: who may do what, told by owners (SPEC §4.5).
//!
//! Each statement names the statements its signer had seen. The access list is what follows
//! from all of them; working that out is `repo::access`'s job.

use super::cbor::{self, Extra, MapReader, MapWriter, Record};
use super::{DecodeError, Result};
use crate::id::{CredentialId, EpochId, ObjectId, SlotId};

/// What a credential may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Everything.
    Owner,
    /// Add snapshots, read the index; neither names nor contents.
    Writer,
}

impl Role {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Writer => "writer",
        }
    }
}

/// An epoch's secrets, sealed to one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The epoch.
    pub epoch: EpochId,
    /// Who can open it.
    pub credential: CredentialId,
    /// [`EpochSecrets`], sealed to that credential's public key.
    pub sealed: Vec<u8>,
}

/// What a statement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A credential may be used from now on.
    CredentialAdded {
        /// What it may do.
        role: Role,
        /// Its Ed25519 key.
        verifying: [u8; 32],
        /// Its X-Wing key.
        sealing: Vec<u8>,
        /// Its name for people, sealed under the index key; empty in the root statement.
        label: Vec<u8>,
        /// The epochs it may use.
        grants: Vec<Grant>,
    },
    /// A credential counts no longer, but for what its accepted heads reach.
    CredentialRemoved {
        /// Whose.
        credential: CredentialId,
        /// Its statements and commits that still count, with all they reach, in ascending order.
        accepted: Vec<ObjectId>,
    },
    /// A slot unlocks a credential.
    SlotAdded {
        /// Its name under `keys/`.
        slot: SlotId,
        /// BLAKE3 of its stored bytes.
        hash: ObjectId,
        /// What it unlocks.
        credential: CredentialId,
    },
    /// A slot is to be tried no longer.
    SlotRemoved {
        /// Which.
        slot: SlotId,
    },
    /// Sessions from now on use this epoch.
    EpochOpened {
        /// Its name.
        epoch: EpochId,
        /// Session secrets are sealed to this X-Wing key.
        public: Vec<u8>,
        /// Its secrets, for each credential that remains.
        grants: Vec<Grant>,
    },
}

/// A statement by an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Who says it.
    pub signer: CredentialId,
    /// The newest statements the signer knew, in ascending order; empty only in the first.
    pub seen: Vec<ObjectId>,
    /// When, by the signer's clock, seconds since 1970.
    pub time_secs: i64,
    /// What it says.
    pub claim: Claim,
    /// Fields from a newer program.
    pub extra: Extra,
}

fn push_grant(out: &mut Vec<u8>, grant: &Grant) {
    cbor::list(out, &[&grant.epoch.as_bytes()[..], grant.credential.as_bytes(), &grant.sealed], |out, part| {
        cbor::push_bytes(out, part);
    });
}

fn read_grant(decoder: &mut minicbor::Decoder<'_>) -> Result<Grant> {
    const WHAT: &str = Statement::WHAT;
    let parts = cbor::read_list(WHAT, decoder, |decoder| cbor::read_bytes(WHAT, decoder))?;
    let grant = match *parts {
        [epoch, credential, sealed] => EpochId::from_slice(epoch)
            .zip(CredentialId::from_slice(credential))
            .map(|(epoch, credential)| Grant { epoch, credential, sealed: sealed.to_vec() }),
        _ => None,
    };
    grant.ok_or_else(|| DecodeError::malformed(WHAT, "a grant is not an epoch, a credential and a secret"))
}

impl Record for Statement {
    const WHAT: &'static str = "access statement";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        let kind = match self.claim {
            Claim::CredentialAdded { .. } => 1,
            Claim::CredentialRemoved { .. } => 2,
            Claim::SlotAdded { .. } => 3,
            Claim::SlotRemoved { .. } => 4,
            Claim::EpochOpened { .. } => 5,
        };
        map.u64(1, kind);
        map.bytes(2, self.signer.as_bytes());
        map.list(3, &self.seen, |out, hash| cbor::push_bytes(out, hash.as_bytes()));
        map.i64(4, self.time_secs);
        match &self.claim {
            Claim::CredentialAdded { role, verifying, sealing, label, grants } => {
                map.u64(5, if *role == Role::Owner { 1 } else { 2 });
                map.bytes(6, verifying);
                map.bytes(7, sealing);
                map.bytes(8, label);
                map.list(9, grants, push_grant);
            }
            Claim::CredentialRemoved { credential, accepted } => {
                map.bytes(10, credential.as_bytes());
                map.list(11, accepted, |out, hash| cbor::push_bytes(out, hash.as_bytes()));
            }
            Claim::SlotAdded { slot, hash, credential } => {
                map.bytes(10, credential.as_bytes());
                map.bytes(12, slot.as_bytes());
                map.bytes(13, hash.as_bytes());
            }
            Claim::SlotRemoved { slot } => map.bytes(12, slot.as_bytes()),
            Claim::EpochOpened { epoch, public, grants } => {
                map.list(9, grants, push_grant);
                map.bytes(14, epoch.as_bytes());
                map.bytes(15, public);
            }
        }
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        const WHAT: &str = Statement::WHAT;
        let hashes = |decoder: &mut minicbor::Decoder<'_>| Ok(ObjectId::from_bytes(cbor::read_array(WHAT, decoder)?));
        let kind = map.u64(1)?;
        let signer = CredentialId::from_bytes(map.array(2)?);
        let seen = map.ascending(3, hashes)?;
        let time_secs = map.i64(4)?;
        let claim = match kind {
            1 => Claim::CredentialAdded {
                role: match map.u64(5)? {
                    1 => Role::Owner,
                    2 => Role::Writer,
                    other => return Err(DecodeError::unsupported(WHAT, format!("role {other}"))),
                },
                verifying: map.array(6)?,
                sealing: map.bytes(7)?.to_vec(),
                label: map.bytes(8)?.to_vec(),
                grants: map.list(9, read_grant)?,
            },
            2 => Claim::CredentialRemoved {
                credential: CredentialId::from_bytes(map.array(10)?),
                accepted: map.ascending(11, hashes)?,
            },
            3 => {
                let credential = CredentialId::from_bytes(map.array(10)?);
                let slot = SlotId::from_bytes(map.array(12)?);
                Claim::SlotAdded { slot, hash: ObjectId::from_bytes(map.array(13)?), credential }
            }
            4 => Claim::SlotRemoved { slot: SlotId::from_bytes(map.array(12)?) },
            5 => {
                let grants = map.list(9, read_grant)?;
                Claim::EpochOpened {
                    epoch: EpochId::from_bytes(map.array(14)?),
                    public: map.bytes(15)?.to_vec(),
                    grants,
                }
            }
            other => return Err(DecodeError::unsupported(WHAT, format!("kind {other}"))),
        };
        Ok(Self { signer, seen, time_secs, claim, extra: map.extra()? })
    }
}

/// The secrets of an epoch, as sealed in a grant. An owner also gets the private key.
#[derive(Clone, PartialEq, Eq)]
pub struct EpochSecrets {
    /// `K_id`, the same in every epoch.
    pub id_key: [u8; 32],
    /// `K_cdc`, the same in every epoch.
    pub chunker_key: [u8; 32],
    /// `K_index` of this epoch.
    pub index_key: [u8; 32],
    /// The pre-shared key of session envelopes.
    pub psk: [u8; 32],
    /// The X-Wing seed that opens session envelopes; owners only.
    pub private: Option<[u8; 32]>,
}

impl Record for EpochSecrets {
    const WHAT: &'static str = "epoch secrets";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.bytes(1, &self.id_key);
        map.bytes(2, &self.chunker_key);
        map.bytes(3, &self.index_key);
        map.bytes(4, &self.psk);
        if let Some(private) = &self.private {
            map.bytes(5, private);
        }
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        Ok(Self {
            id_key: map.array(1)?,
            chunker_key: map.array(2)?,
            index_key: map.array(3)?,
            psk: map.array(4)?,
            private: map.optional(5, |decoder| cbor::read_array(Self::WHAT, decoder))?,
        })
    }
}

impl Drop for EpochSecrets {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.id_key.zeroize();
        self.chunker_key.zeroize();
        self.index_key.zeroize();
        self.psk.zeroize();
        self.private.zeroize();
    }
}

/// What a grant's seal is bound to.
pub fn grant_info(repo: &crate::id::RepoId, epoch: &EpochId, to: &CredentialId) -> Vec<u8> {
    let mut info = b"esker v1 grant\0".to_vec();
    info.extend_from_slice(repo.as_bytes());
    info.extend_from_slice(epoch.as_bytes());
    info.extend_from_slice(to.as_bytes());
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_statement_decodes_to_what_was_encoded() {
        let credential = CredentialId::from_bytes([1; 32]);
        let grant = Grant { epoch: EpochId::from_bytes([2; 16]), credential, sealed: vec![3; 5] };
        let claims = [
            Claim::CredentialAdded {
                role: Role::Writer,
                verifying: [4; 32],
                sealing: vec![5; 10],
                label: vec![6; 3],
                grants: vec![grant.clone()],
            },
            Claim::CredentialRemoved { credential, accepted: vec![ObjectId::from_bytes([7; 32])] },
            Claim::SlotAdded { slot: SlotId::from_bytes([8; 16]), hash: ObjectId::from_bytes([9; 32]), credential },
            Claim::SlotRemoved { slot: SlotId::from_bytes([8; 16]) },
            Claim::EpochOpened { epoch: grant.epoch, public: vec![1; 9], grants: vec![grant.clone()] },
        ];
        for claim in claims {
            let seen = vec![ObjectId::from_bytes([1; 32]), ObjectId::from_bytes([2; 32])];
            let statement = Statement { signer: credential, seen, time_secs: -4, claim, extra: Extra::default() };
            let bytes = cbor::encode(&statement);
            assert_eq!(cbor::decode::<Statement>(&bytes), Ok(statement));
            for length in 0..bytes.len() {
                assert!(cbor::decode::<Statement>(&bytes[..length]).is_err());
            }
        }
    }
}
