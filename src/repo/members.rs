//! Adding and removing credentials and passwords, by an owner.

use super::Repository;
use super::keys::not_an_owner;
use super::open::{Statements, put_slot};
use super::secret::KeyFile;
use crate::crypto::credential::Credential;
use crate::crypto::key::SecretKey;
use crate::crypto::slot::KdfCost;
use crate::crypto::wipe;
use crate::error::{Error, Kind, Result};
use crate::format::access::{Claim, Role};
use crate::id::{CredentialId, ObjectId, SlotId};

/// A credential as `key list` shows it.
#[derive(Debug, Clone)]
pub struct MemberInfo {
    /// Its id.
    pub id: CredentialId,
    /// What it may do.
    pub role: Role,
    /// Its name.
    pub label: String,
    /// When it was added, seconds since 1970.
    pub added_secs: i64,
    /// Whether it has been removed.
    pub removed: bool,
    /// Whether it unlocked this repository now.
    pub current: bool,
    /// Whether it can use the newest epoch; another rotation mends that.
    pub up_to_date: bool,
    /// Its password slots.
    pub slots: Vec<SlotId>,
}

impl Repository {
    /// All credentials, seniors first.
    pub fn member_list(&self) -> Vec<MemberInfo> {
        let mut members: Vec<_> = self.access.members().collect();
        members.sort_by_key(|(id, member)| (member.seniority, member.added_secs, **id));
        members
            .into_iter()
            .map(|(id, member)| MemberInfo {
                id: *id,
                role: member.role,
                label: self.keys.open_label(&member.label),
                added_secs: member.added_secs,
                removed: member.removed.is_some(),
                up_to_date: self.is_up_to_date(id),
                current: *id == self.keys.credential.id(),
                slots: self.access.slots().filter(|slot| slot.credential == *id).map(|slot| slot.slot).collect(),
            })
            .collect()
    }

    /// Adds a credential and gives its key file. With a password, a slot opens it too.
    pub fn add_member(&self, role: Role, label: &str, password: Option<(&str, KdfCost)>) -> Result<KeyFile> {
        wipe::after(|| self.member_added(role, label, password))
    }

    fn member_added(&self, role: Role, label: &str, password: Option<(&str, KdfCost)>) -> Result<KeyFile> {
        let statements = self.statements()?;
        let member = Credential::from_seed(SecretKey::random(&self.world));
        let public = member.public();
        let grants = self.keys.grants_for(&self.world, &member.id(), &public.sealing, role)?;
        // The slot first: a credential that nothing unlocks would only be in the way.
        let slot = match password {
            Some((password, cost)) => {
                Some(put_slot(&*self.storage, &self.world, &self.config, &member, password, cost)?)
            }
            None => None,
        };
        let added = self.say(
            &statements,
            self.access.heads(),
            Claim::CredentialAdded {
                role,
                verifying: public.verifying,
                sealing: public.sealing.as_bytes().to_vec(),
                label: self.keys.seal_label(&self.world, label),
                grants,
            },
        )?;
        if let Some((slot, hash)) = slot {
            self.say(&statements, &[added], Claim::SlotAdded { slot, hash, credential: member.id() })?;
        }
        Ok(KeyFile {
            role,
            repo: self.config.repo,
            root_verifying: self.config.root_verifying,
            seed: member.seed().clone(),
        })
    }

    /// Gives this credential a new password in the place of its old ones.
    pub fn change_password(&self, password: &str, cost: KdfCost) -> Result<()> {
        wipe::after(|| self.password_changed(password, cost))
    }

    fn password_changed(&self, password: &str, cost: KdfCost) -> Result<()> {
        let statements = self.statements()?;
        let own = self.keys.credential.id();
        let old: Vec<_> = self.access.slots().filter(|slot| slot.credential == own).map(|slot| slot.slot).collect();
        let (slot, hash) = put_slot(&*self.storage, &self.world, &self.config, &self.keys.credential, password, cost)?;
        let mut seen =
            vec![self.say(&statements, self.access.heads(), Claim::SlotAdded { slot, hash, credential: own })?];
        for slot in old {
            seen = vec![self.say(&statements, &seen, Claim::SlotRemoved { slot })?];
        }
        Ok(())
    }

    /// Removes a credential. What it has committed until now stays; what it commits later does
    /// not count. `accepted` are the newest commits of that credential, and what it has said of collections.
    pub fn remove_member(&self, id: &CredentialId, mut accepted: Vec<ObjectId>) -> Result<()> {
        let statements = self.statements()?;
        let refuse = |detail: &str| {
            Err(Error::new(Kind::Refused, format!("credential `{}` was not removed: {detail}", id.short())))
        };
        match self.access.member(id) {
            None => return refuse("this repository does not know it"),
            Some(member) if member.removed.is_some() => return refuse("it has been removed already"),
            Some(member) if member.public.verifying == self.config.root_verifying => {
                return refuse("it is the root owner, whose key the repository rests on");
            }
            Some(_) if *id == self.keys.credential.id() => {
                return refuse("it is the one in use; another owner can do it");
            }
            Some(_) => {}
        }
        accepted.extend(self.access.heads());
        accepted.sort();
        accepted.dedup();
        self.say(&statements, self.access.heads(), Claim::CredentialRemoved { credential: *id, accepted })?;
        Ok(())
    }

    /// Takes a password from whoever it opens.
    pub fn remove_slot(&self, slot: SlotId) -> Result<()> {
        let statements = self.statements()?;
        self.say(&statements, self.access.heads(), Claim::SlotRemoved { slot })?;
        Ok(())
    }

    /// Makes a statement and remembers it.
    pub(super) fn say(&self, statements: &Statements<'_>, seen: &[ObjectId], claim: Claim) -> Result<ObjectId> {
        let hash = statements.say(seen, claim)?;
        self.pin_statement(hash, seen);
        Ok(hash)
    }

    pub(super) fn statements(&self) -> Result<Statements<'_>> {
        if self.keys.role != Role::Owner {
            return Err(not_an_owner());
        }
        self.refuse_if_behind()?;
        Ok(Statements {
            storage: &*self.storage,
            config: &self.config,
            signer: &self.keys.credential,
            world: &self.world,
        })
    }
}
