//! Beginning a repository and unlocking one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::Repository;
use super::access::{AccessList, NO_EPOCH};
use super::commits::SNAPSHOTS;
use super::keys::{ContentKeys, Keys, seal_grant};
use super::logs::{LOG, Shelf};
use super::pins::{Notices, Rollback, Watch};
use super::records::KnownRecords;
use super::secret::{KeyFile, Secret};
use crate::chunk::cut::Parameters;
use crate::crypto::credential::{self, Credential, SIGNATURE_ALGORITHM};
use crate::crypto::envelope::KemPrivate;
use crate::crypto::key::SecretKey;
use crate::crypto::slot::{KdfCost, KdfError, password_key};
use crate::crypto::{seal, wipe};
use crate::error::{Context, Error, Kind, Result};
use crate::format::access::{Claim, EpochSecrets, Role, Statement};
use crate::format::cbor::{self, Extra};
use crate::format::config::{ChunkerSettings, Config, FORMAT_VERSION, SLOT_BODY_BYTES, Slot, slot_aad, slot_seed};
use crate::format::record::{RecordKind, SignedRecord, push_digest, signed_message};
use crate::id::{EpochId, ObjectId, RepoId, SlotId};
use crate::storage::{self, Storage, WriteMode};
use crate::world::World;

/// Name of the repository's description.
pub const CONFIG: &str = "config";
/// Folder of second copies: `copies/config`, `copies/keys/<slot>`.
pub const COPIES: &str = "copies/";

/// How the first owner of a new repository will unlock it.
#[derive(Clone)]
pub enum FirstKey {
    /// By this password.
    Password(Zeroizing<String>),
    /// By the key file that `init` gives back.
    KeyFile,
}

impl fmt::Debug for FirstKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(…)",
            Self::KeyFile => "KeyFile",
        })
    }
}

/// What a new repository is like.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// How its owner unlocks it.
    pub key: FirstKey,
    /// Cost of one guess at the password.
    pub kdf: KdfCost,
    /// How content is cut.
    pub chunker: Parameters,
    /// The owner's name for `key list`.
    pub label: String,
    /// Take these keys of another repository, cut with the same parameters, so that the same content
    /// has the same ids in both.
    pub like: Option<ContentKeys>,
    /// How much parity writers add to each pack they make, in percent of it; zero for none.
    pub parity_percent: u32,
}

/// Where a repository keeps what it knows locally.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// The cache directory, all of which may be deleted at any time; without one everything is
    /// read from the storage each time.
    pub cache: Option<PathBuf>,
    /// The state directory, for pins; without one nobody notices a storage that goes back.
    pub state: Option<PathBuf>,
    /// What to do about a storage that went back.
    pub rollback: Rollback,
    /// Takes what went wrong with either directory and stops nothing.
    pub notices: Notices,
}

impl Repository {
    /// Makes a repository where there is none.
    ///
    /// `config` is put last: until it is there, there is no repository, and what an interrupted
    /// attempt left counts for nothing. Gives the key file if that was asked for.
    pub fn init(
        storage: Arc<dyn Storage>,
        world: World,
        options: &InitOptions,
        local: Local,
    ) -> Result<(Self, Option<KeyFile>)> {
        let mut file = None;
        let keep = |key: &KeyFile| {
            file = Some(key.clone());
            Ok(())
        };
        Ok((Self::init_keeping(storage, world, options, local, keep)?, file))
    }

    /// The same, giving the key file to `keep` while there is no repository yet. Once there is one, a
    /// key that was not kept could be asked for by nobody.
    pub fn init_keeping(
        storage: Arc<dyn Storage>,
        world: World,
        options: &InitOptions,
        local: Local,
        keep: impl FnOnce(&KeyFile) -> Result<()>,
    ) -> Result<Self> {
        wipe::after(|| Self::made(storage, world, options, local, keep))
    }

    fn made(
        storage: Arc<dyn Storage>,
        world: World,
        options: &InitOptions,
        local: Local,
        keep: impl FnOnce(&KeyFile) -> Result<()>,
    ) -> Result<Self> {
        let what = || "cannot make a repository";
        options.chunker.check().map_err(|detail| Error::new(Kind::Usage, format!("{}: {detail}", what())))?;
        match storage.stat(CONFIG) {
            Err(error) if error.kind() == storage::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(what),
            Ok(_) => {
                return Err(Error::new(
                    Kind::Refused,
                    format!("{}: there is one already at `{}`", what(), storage.place()),
                ));
            }
        }
        refuse_over_a_lost_config(&*storage, what)?;
        let root = Credential::from_seed(SecretKey::random(&world));
        let config = Config {
            version: FORMAT_VERSION,
            repo: RepoId::from_bytes(world.random()),
            created_secs: world.now().secs,
            chunker: ChunkerSettings {
                algorithm: 1,
                min_bytes: options.chunker.min_bytes,
                avg_bytes: options.chunker.avg_bytes,
                max_bytes: options.chunker.max_bytes,
            },
            features: vec![],
            root_verifying: root.public().verifying,
            parity_percent: options.parity_percent,
            extra: Extra::default(),
        };
        let access = Statements { storage: &*storage, config: &config, signer: &root, world: &world };
        let epoch = EpochId::from_bytes(world.random());
        let private = KemPrivate::from_seed(SecretKey::random(&world));
        let content = options.like.clone().unwrap_or_else(|| ContentKeys::random(&world));
        let secrets = EpochSecrets {
            id_key: *content.id_key.expose(),
            chunker_key: *content.chunker_key.expose(),
            index_key: world.random(),
            psk: world.random(),
            private: Some(*private.seed().expose()),
        };
        let label_key = SecretKey::from_bytes(&secrets.index_key);
        let label =
            seal::seal_box(&world, &label_key, "credential label", config.repo.as_bytes(), options.label.as_bytes());
        let added = access.say(
            &[],
            Claim::CredentialAdded {
                role: Role::Owner,
                verifying: root.public().verifying,
                sealing: root.public().sealing.as_bytes().to_vec(),
                label,
                grants: vec![],
            },
        )?;
        let grant = seal_grant(&world, &config.repo, &epoch, &root.id(), &root.public().sealing, &secrets)?;
        let public = private.public().as_bytes().to_vec();
        let opened = access.say(&[added], Claim::EpochOpened { epoch, public, grants: vec![grant] })?;
        if let FirstKey::Password(password) = &options.key {
            let (slot, hash) = put_slot(&*storage, &world, &config, &root, password, options.kdf)?;
            access.say(&[opened], Claim::SlotAdded { slot, hash, credential: root.id() })?;
        }
        let body = cbor::encode(&config);
        let message = signed_message(&config.repo, RecordKind::Config, CONFIG, &NO_EPOCH, &body);
        let record = SignedRecord {
            kind: RecordKind::Config,
            algorithm: SIGNATURE_ALGORITHM,
            body: &body,
            signature: root.sign(&message),
        };
        let mut stored = record.encode();
        push_digest(RecordKind::Config, &mut stored);
        storage.put(&format!("{COPIES}{CONFIG}"), &stored, WriteMode::Replace).context(what)?;
        storage.barrier().context(what)?;
        if matches!(options.key, FirstKey::KeyFile) {
            keep(&KeyFile {
                role: Role::Owner,
                repo: config.repo,
                root_verifying: config.root_verifying,
                seed: root.seed().clone(),
            })?;
        }
        storage.put(CONFIG, &stored, WriteMode::CreateNew).context(what)?;
        storage.barrier().context(what)?;
        let mut watch = Watch::begin(&*storage, &config, &local)?;
        let access = AccessList::load(&*storage, &config)?;
        watch.look_at_access(&access);
        Self::with_credential(storage, world, config, access, Arc::new(root), local, watch)
    }

    /// Unlocks a repository.
    pub fn open(storage: Arc<dyn Storage>, world: World, secret: &Secret, local: Local) -> Result<Self> {
        let config = load_config(&*storage)?;
        Self::unlock(storage, config, world, secret, local)
    }

    /// Unlocks the repository of which this is the description, read from the storage just now.
    pub fn unlock(
        storage: Arc<dyn Storage>,
        config: Config,
        world: World,
        secret: &Secret,
        local: Local,
    ) -> Result<Self> {
        wipe::after(|| Self::unlocked(storage, config, world, secret, local))
    }

    fn unlocked(
        storage: Arc<dyn Storage>,
        config: Config,
        world: World,
        secret: &Secret,
        local: Local,
    ) -> Result<Self> {
        match secret {
            Secret::KeyFile(file) if file.repo != config.repo => {
                return Err(Error::new(
                    Kind::WrongKey,
                    format!(
                        "cannot unlock repository `{}`: the key file is for repository `{}`",
                        config.repo.short(),
                        file.repo.short()
                    ),
                ));
            }
            Secret::KeyFile(file) if file.root_verifying != config.root_verifying => {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "cannot unlock repository `{}`: its root owner is not the one the key file knows; \
                         someone may have put another `config` in its place",
                        config.repo.short()
                    ),
                ));
            }
            _ => {}
        }
        // Pins first: what is pinned after the storage was read could not be found in what was read.
        let mut watch = Watch::begin(&*storage, &config, &local)?;
        let access = AccessList::load(&*storage, &config)?;
        watch.look_at_access(&access);
        let is_behind = watch.is_behind();
        let opened = match secret {
            Secret::KeyFile(file) => Ok(file.credential()),
            Secret::Words(seed) => Ok(Credential::from_seed(seed.clone())),
            Secret::Password(password) => unlock(&*storage, &config, &access, password),
        };
        opened
            .and_then(|credential| {
                Self::with_credential(storage, world, config, access, Arc::new(credential), local, watch)
            })
            .map_err(|error| match is_behind {
                true => {
                    error.hint("the storage is older than what was seen before: what opens it now may not be in it")
                }
                false => error,
            })
    }

    fn with_credential(
        storage: Arc<dyn Storage>,
        world: World,
        config: Config,
        access: AccessList,
        credential: Arc<Credential>,
        local: Local,
        watch: Watch,
    ) -> Result<Self> {
        let keys = Keys::open(config.repo, credential, &access)?;
        let cache = local.cache.map(|cache| cache_directory(&cache, &config.repo, &storage.place()));
        let mut repository = Self {
            storage,
            world,
            config,
            access,
            keys,
            cache,
            watch,
            shelf: Shelf::default(),
            known_records: KnownRecords::default(),
        };
        repository.look_at_pins()?;
        Ok(repository)
    }
}

/// Where a repository at a place has its cache: per repository *and* place, because a mirror
/// has the same id and may lag behind.
pub(super) fn cache_directory(cache: &Path, repo: &RepoId, place: &str) -> PathBuf {
    let place = crate::id::hex(&blake3::hash(place.as_bytes()).as_bytes()[..8]);
    cache.join(repo.to_string()).join(place)
}

/// A second copy of `config` alone may be what an interrupted attempt left; with snapshots beside it, it
/// is all that is left of a repository, and would be written over.
fn refuse_over_a_lost_config(storage: &dyn Storage, what: impl Fn() -> &'static str) -> Result<()> {
    match storage.stat(&format!("{COPIES}{CONFIG}")) {
        Err(error) if error.kind() == storage::ErrorKind::NotFound => return Ok(()),
        result => result.context(&what)?,
    };
    if storage.list(SNAPSHOTS).context(&what)?.is_empty() && storage.list(LOG).context(&what)?.is_empty() {
        return Ok(());
    }
    let place = storage.place();
    let found = format!("{}: there is one at `{place}` that has lost its `config`", what());
    Err(Error::new(Kind::Refused, found).hint("to put it back, run `esker repair config` with the same --repo"))
}

/// Reads and checks `config`, or its second copy when it is damaged or lost.
pub fn load_config(storage: &dyn Storage) -> Result<Config> {
    match read_config(storage, CONFIG) {
        Err(error) if error.kind() == Kind::Damaged || error.storage_kind() == Some(storage::ErrorKind::NotFound) => {
            match read_config(storage, &format!("{COPIES}{CONFIG}")) {
                Ok(config) if error.kind() == Kind::Damaged => Ok(config),
                Err(_) if error.kind() == Kind::Damaged => {
                    Err(error.hint("to put it back from a recovery kit, run `esker repair config --from KIT`"))
                }
                copy => {
                    let none = format!("there is no repository at `{}`", storage.place());
                    // A copy without the original is an interrupted `init`, or all that is left.
                    Err(Error::new(Kind::NoRepository, none).because(error).hint(match copy {
                        Ok(_) => "if there was one, its `config` is lost: to put it back, run `esker repair config`",
                        Err(_) => "to make one, run `esker init` with the same --repo",
                    }))
                }
            }
        }
        result => result,
    }
}

/// Reads and checks `config`, or its second copy under that name.
pub(crate) fn read_config(storage: &dyn Storage, name: &str) -> Result<Config> {
    parse_config(name, &storage.get(name).context(|| format!("cannot read `{name}`"))?)
}

/// Checks the stored bytes of a `config` that was found under this name.
pub(super) fn parse_config(name: &str, stored: &[u8]) -> Result<Config> {
    let what = || format!("cannot read `{name}`");
    let record = SignedRecord::decode(RecordKind::Config, stored).context(what)?;
    let config: Config = cbor::decode(record.body).context(what)?;
    // The signature is by the key inside: it finds damage; that it is the right key is what key
    // files and the associated data of slots say.
    let message = signed_message(&config.repo, RecordKind::Config, CONFIG, &NO_EPOCH, record.body);
    credential::verify(&config.root_verifying, &message, &record.signature, "config").context(what)?;
    Parameters {
        min_bytes: config.chunker.min_bytes,
        avg_bytes: config.chunker.avg_bytes,
        max_bytes: config.chunker.max_bytes,
    }
    .check()
    .map_err(|detail| Error::new(Kind::Damaged, format!("{}: {detail}", what())))?;
    Ok(config)
}

/// Makes statements in the name of an owner.
pub(crate) struct Statements<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) config: &'a Config,
    pub(crate) signer: &'a Credential,
    pub(crate) world: &'a World,
}

impl Statements<'_> {
    /// Signs and puts a statement, and its second copy; gives its hash. Durable when it returns.
    pub(crate) fn say(&self, seen: &[ObjectId], claim: Claim) -> Result<ObjectId> {
        let mut seen = seen.to_vec();
        seen.sort();
        let time_secs = self.world.now().secs;
        let statement = Statement { signer: self.signer.id(), seen, time_secs, claim, extra: Extra::default() };
        let body = cbor::encode(&statement);
        let message = signed_message(&self.config.repo, RecordKind::Statement, "", &NO_EPOCH, &body);
        let record = SignedRecord {
            kind: RecordKind::Statement,
            algorithm: SIGNATURE_ALGORITHM,
            body: &body,
            signature: self.signer.sign(&message),
        };
        let stored = record.encode();
        let hash = ObjectId::of(&stored);
        let name = format!("access/{hash}");
        let what = || format!("cannot store access statement `{name}`");
        self.storage.put(&name, &stored, WriteMode::CreateNew).context(what)?;
        self.storage.put(&format!("{COPIES}{name}"), &stored, WriteMode::CreateNew).context(what)?;
        self.storage.barrier().context(what)?;
        Ok(hash)
    }
}

/// Makes a slot for a credential and puts it, and its second copy. Durable when it returns.
pub(crate) fn put_slot(
    storage: &dyn Storage,
    world: &World,
    config: &Config,
    credential: &Credential,
    password: &str,
    cost: KdfCost,
) -> Result<(SlotId, ObjectId)> {
    let what = || "cannot make a password slot";
    let id = SlotId::from_bytes(world.random());
    let salt: [u8; 32] = world.random();
    let key = password_key(password.as_bytes(), &salt, cost).map_err(|error| kdf_failed(error, what()))?;
    let key = key.derive_salted(&salt, "slot");
    let mut slot = Slot {
        suite: seal::SUITE,
        memory_kib: cost.memory_kib,
        passes: cost.passes,
        lanes: cost.lanes,
        salt,
        commitment: key.commitment,
        sealed: vec![],
    };
    let mut body = Zeroizing::new([0; SLOT_BODY_BYTES]);
    body[..32].copy_from_slice(credential.seed().expose());
    let aad = slot_aad(&config.repo, &id, &config.root_verifying, &slot.header());
    let nonce = seal::hedged_nonce(&world.random(), 0, blake3::hash(&*body).as_bytes());
    seal::seal_into(&key.key, nonce, &aad, &*body, &mut slot.sealed);
    let stored = slot.encode();
    let name = format!("keys/{id}");
    storage.put(&name, &stored, WriteMode::CreateNew).context(what)?;
    storage.put(&format!("{COPIES}{name}"), &stored, WriteMode::CreateNew).context(what)?;
    storage.barrier().context(what)?;
    Ok((id, ObjectId::of(&stored)))
}

fn kdf_failed(error: KdfError, what: &str) -> Error {
    Error::new(Kind::Failed, what).because(error)
}

/// Tries a password on every slot the access list knows.
fn unlock(storage: &dyn Storage, config: &Config, access: &AccessList, password: &str) -> Result<Credential> {
    let mut unusable = Vec::new();
    let mut refused = 0;
    for entry in access.slots() {
        match try_slot(storage, config, entry.slot, entry.hash, password) {
            Ok(Some(credential)) if credential.id() == entry.credential => return Ok(credential),
            Ok(_) => refused += 1,
            Err(error) => unusable.push(error),
        }
    }
    let place = storage.place();
    let slots = unusable.len() + refused;
    Err(match unusable.into_iter().next() {
        // The password may be right, and the slot it opens the one that is damaged.
        Some(error) => {
            let lost = slots - refused;
            let what = match refused {
                0 => format!("cannot unlock the repository at `{place}`: {lost} of {slots} password slots are lost"),
                _ => format!(
                    "cannot unlock the repository at `{place}`: the password is not that of {refused} of {slots} slots, \
                     and {lost} cannot be read"
                ),
            };
            let hint =
                "to put lost slots back, run `esker repair config`, with `--from KIT` if you have a recovery kit";
            Error::new(error.kind(), what).because(error).hint(hint)
        }
        None if slots == 0 => {
            Error::new(Kind::WrongKey, format!("no password opens the repository at `{place}`: it has key files only"))
                .hint("give the key file or the recovery sheet: `--key-file FILE`")
        }
        None => Error::new(Kind::WrongKey, format!("wrong password for the repository at `{place}`"))
            .hint("with a recovery sheet, set a new one: `esker key recover`"),
    })
}

fn try_slot(
    storage: &dyn Storage,
    config: &Config,
    id: SlotId,
    hash: ObjectId,
    password: &str,
) -> Result<Option<Credential>> {
    let name = format!("keys/{id}");
    let what = || format!("cannot read key slot `{name}`");
    let stored = match storage.get(&name) {
        Ok(stored) if ObjectId::of(&stored) == hash => stored,
        first => match storage.get(&format!("{COPIES}{name}")) {
            Ok(stored) if ObjectId::of(&stored) == hash => stored,
            _ => {
                first.context(what)?;
                return Err(Error::new(Kind::Damaged, format!("{}: it is not the one its owner stored", what())));
            }
        },
    };
    let slot = Slot::decode(&stored).context(what)?;
    let cost = KdfCost { memory_kib: slot.memory_kib, passes: slot.passes, lanes: slot.lanes };
    let key = password_key(password.as_bytes(), &slot.salt, cost).map_err(|error| kdf_failed(error, &what()))?;
    let Ok(key) = seal::committed(key.derive_salted(&slot.salt, "slot"), &slot.commitment, "key slot") else {
        return Ok(None);
    };
    let aad = slot_aad(&config.repo, &id, &config.root_verifying, &slot.header());
    let body = Zeroizing::new(seal::open(&key, &aad, &slot.sealed, "key slot").context(what)?);
    let seed = slot_seed(&body).context(what)?;
    Ok(Some(Credential::from_seed(SecretKey::from_bytes(seed))))
}
