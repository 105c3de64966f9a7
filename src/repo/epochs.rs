//! Opening epochs: new keys for all that is stored from now on (SPEC §4.5, §5.1).
//!
//! A new epoch has a fresh key pair, pre-shared key and index key; nothing of it follows from an older
//! secret. It is granted to every credential that is left, by their public keys alone, so nobody's
//! password is asked for. Chunk ids and cuts stay as they are, so everything stored is still reused, and
//! nothing is uploaded again. What was stored before stays readable to who holds the older keys.

use super::Repository;
use super::access::Member;
use super::keys::seal_grant;
use crate::crypto::envelope::KemPrivate;
use crate::crypto::key::SecretKey;
use crate::crypto::wipe;
use crate::error::Result;
use crate::format::access::{Claim, EpochSecrets, Grant, Role};
use crate::id::{CredentialId, EpochId};

/// What a rotation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The new epoch.
    pub epoch: EpochId,
    /// How many credentials have it.
    pub credentials: usize,
    /// How many were granted older epochs they had missed, because somebody else rotated while they were
    /// being added.
    pub completed: usize,
}

impl Repository {
    /// Opens an epoch for every credential that is not removed. Sessions that begin afterwards use it.
    /// Durable when it returns.
    pub fn rotate(&self) -> Result<Rotation> {
        wipe::after(|| self.rotated())
    }

    fn rotated(&self) -> Result<Rotation> {
        let statements = self.statements()?;
        let mut seen = self.access.heads().to_vec();
        let mut completed = 0;
        for (id, member) in self.remaining() {
            let grants = self.missing_grants(id, member)?;
            if !grants.is_empty() {
                // Said of a credential that is there, it adds nothing but the grants.
                let claim = Claim::CredentialAdded {
                    role: member.role,
                    verifying: member.public.verifying,
                    sealing: member.public.sealing.as_bytes().to_vec(),
                    label: member.label.clone(),
                    grants,
                };
                seen = vec![self.say(&statements, &seen, claim)?];
                completed += 1;
            }
        }
        let epoch = EpochId::from_bytes(self.world.random());
        let private = KemPrivate::from_seed(SecretKey::random(&self.world));
        let keys = self.keys.new_epoch(&self.world, &private);
        let grants: Vec<Grant> = self
            .remaining()
            .map(|(id, member)| {
                let secrets = EpochSecrets { private: keys.private.filter(|_| member.role == Role::Owner), ..keys };
                seal_grant(&self.world, &self.config.repo, &epoch, id, &member.public.sealing, &secrets)
            })
            .collect::<Result<_>>()?;
        let credentials = grants.len();
        let public = private.public().as_bytes().to_vec();
        self.say(&statements, &seen, Claim::EpochOpened { epoch, public, grants })?;
        Ok(Rotation { epoch, credentials, completed })
    }

    fn remaining(&self) -> impl Iterator<Item = (&CredentialId, &Member)> {
        self.access.members().filter(|(_, member)| member.removed.is_none())
    }

    /// Grants of epochs that this credential holds and another lacks.
    fn missing_grants(&self, id: &CredentialId, member: &Member) -> Result<Vec<Grant>> {
        let has = |epoch: &EpochId| {
            let entry = self.access.epochs().iter().find(|entry| entry.id == *epoch);
            entry.is_some_and(|entry| entry.grants.iter().any(|grant| grant.credential == *id))
        };
        self.keys.grants_of(&self.world, id, &member.public.sealing, member.role, |epoch| !has(epoch))
    }
}

impl Repository {
    /// Whether a credential can use the newest epoch.
    pub fn is_up_to_date(&self, id: &CredentialId) -> bool {
        self.access.epochs().last().is_some_and(|epoch| epoch.grants.iter().any(|grant| grant.credential == *id))
    }
}
