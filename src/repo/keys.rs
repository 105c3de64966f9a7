//! The keys an unlocked credential gives: ids, the chunker's table, and each epoch's secrets.

use std::fmt;
use std::sync::Arc;

use crate::crypto::credential::Credential;
use crate::crypto::envelope::{self, KemPrivate, KemPublic, Psk};
use crate::crypto::ident::IdKeys;
use crate::crypto::key::SecretKey;
use crate::crypto::{OpenError, seal};
use crate::error::{Context, Error, Kind, Result};
use crate::format::access::{EpochSecrets, Grant, Role, grant_info};
use crate::format::cbor;
use crate::format::session::{envelope_info, session_secret};
use crate::id::{CredentialId, EpochId, RepoId, SessionId};
use crate::repo::access::AccessList;
use crate::world::World;

/// One epoch's keys.
#[derive(Clone)]
pub struct EpochKeys {
    /// The epoch.
    pub id: EpochId,
    /// Session secrets are sealed to this key.
    pub public: KemPublic,
    /// Seals records, directories and segments.
    pub index_key: SecretKey,
    psk: SecretKey,
    private: Option<KemPrivate>,
}

/// What decides where content is cut and what it is called; the same in a repository's whole life.
#[derive(Debug, Clone)]
pub struct ContentKeys {
    /// `K_id`.
    pub(super) id_key: SecretKey,
    /// `K_cdc`.
    pub(super) chunker_key: SecretKey,
}

impl ContentKeys {
    /// Keys that no other repository has.
    pub(super) fn random(world: &World) -> Self {
        Self { id_key: SecretKey::random(world), chunker_key: SecretKey::random(world) }
    }
}

/// Everything an unlocked credential can use.
#[derive(Clone)]
pub struct Keys {
    /// The repository.
    pub repo: RepoId,
    /// The credential.
    pub credential: Arc<Credential>,
    /// Its role.
    pub role: Role,
    /// Names content.
    pub ids: IdKeys,
    id_key: SecretKey,
    chunker_key: SecretKey,
    /// Oldest first; never empty.
    epochs: Vec<EpochKeys>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?}, {:?}, {} epochs)", self.credential, self.role, self.epochs.len())
    }
}

impl Keys {
    /// Opens the grants of a credential in the access list.
    pub fn open(repo: RepoId, credential: Arc<Credential>, access: &AccessList) -> Result<Self> {
        let cannot = || format!("cannot use credential `{}`", credential.id().short());
        let member = access
            .member(&credential.id())
            .ok_or_else(|| Error::new(Kind::WrongKey, format!("{}: this repository does not know it", cannot())))?;
        if member.removed.is_some() {
            return Err(Error::new(Kind::Refused, format!("{}: an owner has removed it", cannot()))
                .hint("ask an owner for a new credential: `esker key add` or `esker key writer --out FILE`"));
        }
        let mut epochs = Vec::new();
        let mut content_keys = None;
        for epoch in access.epochs() {
            let Some(grant) = epoch.grants.iter().find(|grant| grant.credential == credential.id()) else { continue };
            let info = grant_info(&repo, &epoch.id, &credential.id());
            let plain = envelope::open_secret(credential.sealing(), None, &info, &grant.sealed, "epoch grant")
                .context(cannot)?;
            let secrets: EpochSecrets = cbor::decode_secret(&plain).context(cannot)?;
            let private = secrets.private.as_ref().map(|seed| KemPrivate::from_seed(SecretKey::from_bytes(seed)));
            if private.as_ref().is_some_and(|private| private.public() != epoch.public) {
                return Err(Error::new(
                    Kind::Damaged,
                    format!("{}: the private key of epoch `{}` is not its public key's", cannot(), epoch.id),
                ));
            }
            content_keys = Some((SecretKey::from_bytes(&secrets.id_key), SecretKey::from_bytes(&secrets.chunker_key)));
            epochs.push(EpochKeys {
                id: epoch.id,
                public: epoch.public.clone(),
                index_key: SecretKey::from_bytes(&secrets.index_key),
                psk: SecretKey::from_bytes(&secrets.psk),
                private,
            });
        }
        let (id_key, chunker_key) =
            content_keys.ok_or_else(|| Error::new(Kind::WrongKey, format!("{}: it was granted no epoch", cannot())))?;
        Ok(Self { repo, credential, role: member.role, ids: IdKeys::new(&id_key), id_key, chunker_key, epochs })
    }

    /// The key of the chunker's gear table.
    pub fn chunker_key(&self) -> &SecretKey {
        &self.chunker_key
    }

    /// The keys by which another repository is made alike, for an owner.
    pub fn content_keys(&self) -> Result<ContentKeys> {
        match self.role {
            Role::Owner => Ok(ContentKeys { id_key: self.id_key.clone(), chunker_key: self.chunker_key.clone() }),
            Role::Writer => Err(not_an_owner()),
        }
    }

    /// Whether content has the same ids by these keys as by those, and is cut at the same places.
    pub fn are_alike(&self, others: &Self) -> bool {
        self.id_key.expose() == others.id_key.expose() && self.chunker_key.expose() == others.chunker_key.expose()
    }

    /// The epoch new sessions use.
    pub fn current_epoch(&self) -> &EpochKeys {
        self.epochs.last().expect("a credential without epochs is not opened")
    }

    /// The index key of an epoch.
    pub fn index_key(&self, epoch: &EpochId, what: &'static str) -> Result<&SecretKey, OpenError> {
        let found = self.epochs.iter().find(|known| known.id == *epoch);
        found.map(|known| &known.index_key).ok_or(OpenError::NotAuthentic(what))
    }

    /// Seals a new session's secret to the current epoch.
    pub fn seal_session_secret(&self, world: &World, session: &SessionId, secret: &SecretKey) -> Result<Vec<u8>> {
        let epoch = self.current_epoch();
        let info = envelope_info(&self.repo, session, &epoch.id, &self.credential.id());
        let psk = Psk { key: &epoch.psk, id: epoch.id.as_bytes() };
        envelope::seal_secret(world, &epoch.public, Some(psk), &info, secret.expose())
            .context(|| format!("cannot seal the secret of session `{}`", session.short()))
    }

    /// Opens a session's secret. Only an owner holds the private key this takes.
    pub fn open_session_secret(
        &self,
        session: &SessionId,
        epoch: &EpochId,
        signer: &CredentialId,
        sealed: &[u8],
    ) -> Result<SecretKey> {
        let what = || format!("cannot read session `{}`", session.short());
        let keys = self
            .epochs
            .iter()
            .find(|known| known.id == *epoch)
            .ok_or_else(|| Error::new(Kind::Refused, format!("{}: its epoch was not granted", what())))?;
        let private = keys.private.as_ref().ok_or_else(|| {
            Error::new(Kind::Refused, format!("{}: a writer credential holds no key that opens it", what()))
                .hint("use an owner's password or key file")
        })?;
        let info = envelope_info(&self.repo, session, epoch, signer);
        let psk = Psk { key: &keys.psk, id: epoch.as_bytes() };
        let secret = envelope::open_secret(private, Some(psk), &info, sealed, "session envelope").context(what)?;
        Ok(SecretKey::from_bytes(session_secret(&secret).context(what)?))
    }

    /// The secrets of an epoch that is being opened: fresh but for what stays in a repository's whole life.
    pub fn new_epoch(&self, world: &World, private: &KemPrivate) -> EpochSecrets {
        EpochSecrets {
            id_key: *self.id_key.expose(),
            chunker_key: *self.chunker_key.expose(),
            index_key: world.random(),
            psk: world.random(),
            private: Some(*private.seed().expose()),
        }
    }

    /// Grants of every epoch this credential holds, to another.
    pub fn grants_for(&self, world: &World, to: &CredentialId, sealing: &KemPublic, role: Role) -> Result<Vec<Grant>> {
        self.grants_of(world, to, sealing, role, |_| true)
    }

    /// Grants of the epochs this credential holds that are wanted, to another.
    pub fn grants_of(
        &self,
        world: &World,
        to: &CredentialId,
        sealing: &KemPublic,
        role: Role,
        wanted: impl Fn(&EpochId) -> bool,
    ) -> Result<Vec<Grant>> {
        let mut grants = Vec::new();
        for epoch in self.epochs.iter().filter(|epoch| wanted(&epoch.id)) {
            let private = match role {
                Role::Writer => None,
                Role::Owner => Some(*epoch.private.as_ref().ok_or_else(not_an_owner)?.seed().expose()),
            };
            let secrets = EpochSecrets {
                id_key: *self.id_key.expose(),
                chunker_key: *self.chunker_key.expose(),
                index_key: *epoch.index_key.expose(),
                psk: *epoch.psk.expose(),
                private,
            };
            grants.push(seal_grant(world, &self.repo, &epoch.id, to, sealing, &secrets)?);
        }
        Ok(grants)
    }

    /// A key for names that people give credentials.
    pub fn seal_label(&self, world: &World, label: &str) -> Vec<u8> {
        let key = &self.epochs[0].index_key;
        seal::seal_box(world, key, "credential label", self.repo.as_bytes(), label.as_bytes())
    }

    /// Opens a credential's name; an unreadable one is shown as nothing.
    pub fn open_label(&self, sealed: &[u8]) -> String {
        let open = |epoch: &EpochKeys| {
            seal::open_box(&epoch.index_key, "credential label", self.repo.as_bytes(), sealed, "label").ok()
        };
        self.epochs.iter().find_map(open).and_then(|label| String::from_utf8(label).ok()).unwrap_or_default()
    }
}

/// Seals an epoch's secrets to a credential.
pub fn seal_grant(
    world: &World,
    repo: &RepoId,
    epoch: &EpochId,
    to: &CredentialId,
    sealing: &KemPublic,
    secrets: &EpochSecrets,
) -> Result<Grant> {
    let info = grant_info(repo, epoch, to);
    let sealed = envelope::seal_secret(world, sealing, None, &info, &cbor::encode_secret(secrets))
        .context(|| format!("cannot grant epoch `{}` to credential `{}`", epoch.short(), to.short()))?;
    Ok(Grant { epoch: *epoch, credential: *to, sealed })
}

/// The refusal of what only owners may do.
pub fn not_an_owner() -> Error {
    Error::new(Kind::Refused, "only an owner may do this, and this is a writer credential")
        .hint("use an owner's password or key file")
}
