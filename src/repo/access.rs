//! The access list: what follows from all statements of owners (SPEC §4.5).
//!
//! Everything here is readable without any key: statements are signed, and the chain of
//! signatures begins at the root owner's key in `config`. A statement counts when its signer is
//! an owner by statements it has seen, and is not removed, or the removal accepted the statement.
//!
//! Evaluation is repeated with one more removal each time until none is left to apply. Of
//! removals that contradict each other the one by the senior signer (added in fewer steps from
//! the root, then of smaller id) applies first and silences the other, so that a stolen and
//! removed credential cannot remove in return, whatever it claims to have seen.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::credential::{self, PublicCredential};
use crate::crypto::envelope::KemPublic;
use crate::error::{Context, Error, Kind, Result};
use crate::format::access::{Claim, Grant, Role, Statement};
use crate::format::cbor;
use crate::format::config::Config;
use crate::format::record::{RecordKind, SignedRecord, signed_message};
use crate::id::{CredentialId, EpochId, ObjectId, SlotId};
use crate::repo::open::COPIES;
use crate::storage::parallel::try_map;
use crate::storage::{self, Storage};

/// The epoch field of signatures over records in clear.
pub const NO_EPOCH: EpochId = EpochId::from_bytes([0; 16]);

/// A credential in the list.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its public keys.
    pub public: PublicCredential,
    /// What it may do.
    pub role: Role,
    /// Its sealed name.
    pub label: Vec<u8>,
    /// When it was added, by the signer's clock.
    pub added_secs: i64,
    /// Set once an owner has removed it: the objects of its own that still count.
    pub removed: Option<BTreeSet<ObjectId>>,
    /// Steps from the root owner.
    pub(super) seniority: u32,
}

/// A slot in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotEntry {
    /// Its name under `keys/`.
    pub slot: SlotId,
    /// BLAKE3 of its stored bytes.
    pub hash: ObjectId,
    /// What it unlocks.
    pub credential: CredentialId,
}

/// An epoch in the list.
#[derive(Debug, Clone)]
pub struct EpochEntry {
    /// The epoch.
    pub id: EpochId,
    /// Its public key.
    pub public: KemPublic,
    /// Its secrets for each credential.
    pub grants: Vec<Grant>,
}

/// What all statements together say.
#[derive(Debug, Default)]
pub struct AccessList {
    members: BTreeMap<CredentialId, Member>,
    slots: Vec<SlotEntry>,
    removed_slots: BTreeSet<SlotId>,
    epochs: Vec<EpochEntry>,
    heads: Vec<ObjectId>,
    /// Statements that are there with all they have seen, whether they count or not.
    known: BTreeSet<ObjectId>,
    /// Statements that count.
    counted: BTreeSet<ObjectId>,
    /// What those say.
    statements: BTreeMap<ObjectId, Statement>,
    /// Statements that others have seen and that are not there.
    lost: BTreeSet<ObjectId>,
    /// Objects that are no statement of this repository, with the reason.
    pub faults: Vec<(String, Error)>,
}

impl AccessList {
    /// Reads and evaluates every statement of a repository.
    pub fn load(storage: &dyn Storage, config: &Config) -> Result<Self> {
        let mut statements = BTreeMap::new();
        let mut faults = Vec::new();
        let folders = ["access/".to_owned(), format!("{COPIES}access/")];
        let listed = try_map(storage.connections(), &folders, |folder| storage.list(folder))
            .context(|| "cannot list the access statements")?;
        let hashes = listed.iter().flatten().filter_map(|object| object.name.rsplit('/').next());
        let names: BTreeSet<String> = hashes.map(|hash| format!("access/{hash}")).collect();
        let names: Vec<_> = names.into_iter().collect();
        let loaded = try_map(storage.connections(), &names, |name| {
            let (loaded, fault) = match load_statement(storage, name, name) {
                // Its second copy may be whole. That the first is not is said all the same.
                Err(error) if error.kind() == Kind::Damaged => {
                    (load_statement(storage, &format!("{COPIES}{name}"), name), Some((name.clone(), error)))
                }
                loaded => (loaded, None),
            };
            match loaded {
                Ok(statement) => Ok((Some(statement), fault)),
                Err(error) if error.kind() == Kind::Damaged => Ok((None, fault)),
                Err(error) => Err(error),
            }
        })?;
        for (statement, fault) in loaded {
            statements.extend(statement);
            faults.extend(fault);
        }
        let mut list = evaluate(config, &statements);
        list.faults = faults;
        let counted = statements.into_iter().filter(|(hash, _)| list.counted.contains(hash));
        list.statements = counted.map(|(hash, parsed)| (hash, parsed.statement)).collect();
        if list.members.is_empty() {
            return Err(Error::new(
                Kind::Damaged,
                "cannot read the access list: no statement by the root owner is there",
            )
            .hint("to put them back from a recovery kit, run `esker repair config --from KIT`"));
        }
        Ok(list)
    }

    /// Evaluates stored statements that are at hand by their names; what is none is left out.
    pub(super) fn of_objects(config: &Config, objects: &BTreeMap<String, Vec<u8>>) -> Self {
        let parsed = objects.iter().filter_map(|(name, stored)| parse_statement(name, name, stored).ok());
        evaluate(config, &parsed.collect())
    }

    /// Whether these bytes are a statement of that name, by whomever.
    pub(super) fn is_statement(name: &str, stored: &[u8]) -> Result<()> {
        parse_statement(name, name, stored).map(|_| ())
    }

    /// Whether nobody is in it: not even the root owner's statement is there.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a statement is there and counts.
    pub fn counts(&self, hash: &ObjectId) -> bool {
        self.counted.contains(hash)
    }

    /// The statements that count.
    pub fn statements(&self) -> &BTreeMap<ObjectId, Statement> {
        &self.statements
    }

    /// Statements that others have seen and that are not there.
    pub(super) fn lost(&self) -> &BTreeSet<ObjectId> {
        &self.lost
    }

    /// A credential, removed or not.
    pub fn member(&self, id: &CredentialId) -> Option<&Member> {
        self.members.get(id)
    }

    /// All credentials, removed ones too, in order of id.
    pub fn members(&self) -> impl Iterator<Item = (&CredentialId, &Member)> {
        self.members.iter()
    }

    /// The ids of owners that were removed, one after another.
    pub(super) fn removed_owners(&self) -> Vec<u8> {
        let removed = self.members.iter().filter(|(_, member)| member.role == Role::Owner && member.removed.is_some());
        removed.flat_map(|(id, _)| *id.as_bytes()).collect()
    }

    /// Slots of credentials that are not removed.
    pub fn slots(&self) -> impl Iterator<Item = &SlotEntry> {
        self.slots
            .iter()
            .filter(|slot| self.members.get(&slot.credential).is_some_and(|member| member.removed.is_none()))
    }

    /// Slots that were taken away, of whomever: they open nothing any more.
    pub fn removed_slots(&self) -> &BTreeSet<SlotId> {
        &self.removed_slots
    }

    /// Epochs, oldest first.
    pub fn epochs(&self) -> &[EpochEntry] {
        &self.epochs
    }

    /// Whether a statement is there, with all it has seen.
    pub fn knows(&self, hash: &ObjectId) -> bool {
        self.known.contains(hash)
    }

    /// The newest statements: what a new one names as seen.
    pub fn heads(&self) -> &[ObjectId] {
        &self.heads
    }
}

/// A statement with what its signature is checked against.
struct Parsed {
    statement: Statement,
    message: Vec<u8>,
    signature: [u8; 64],
}

/// Reads the statement that goes by `name` from the object `from`: itself or its second copy.
fn load_statement(storage: &dyn Storage, from: &str, name: &str) -> Result<(ObjectId, Parsed)> {
    let what = || format!("cannot read access statement `{from}`");
    match storage.get(from) {
        Ok(stored) => parse_statement(from, name, &stored),
        Err(error) if error.kind() == storage::ErrorKind::NotFound => {
            Err(Error::new(Kind::Damaged, what()).because(error))
        }
        Err(error) => Err(error).context(what),
    }
}

/// Checks the bytes of a statement that goes by `name` and was found under `from`.
fn parse_statement(from: &str, name: &str, stored: &[u8]) -> Result<(ObjectId, Parsed)> {
    let what = || format!("cannot read access statement `{from}`");
    let hash = ObjectId::of(stored);
    if name.strip_prefix("access/") != Some(&hash.to_string()) {
        return Err(Error::new(Kind::Damaged, what()).because("its name is not the hash of its bytes"));
    }
    let record = SignedRecord::decode(RecordKind::Statement, stored).context(what)?;
    let statement: Statement = cbor::decode(record.body).context(what)?;
    Ok((hash, Parsed { statement, message: record.body.to_vec(), signature: record.signature }))
}

fn evaluate(config: &Config, statements: &BTreeMap<ObjectId, Parsed>) -> AccessList {
    let order = topological(statements);
    let mut removals: BTreeMap<CredentialId, BTreeSet<ObjectId>> = BTreeMap::new();
    loop {
        let (list, mut asked) = evaluate_once(config, statements, &order, &removals);
        // The senior's removal first; see the module's story.
        asked.retain(|(_, credential, _)| !removals.contains_key(credential));
        asked.sort_by_key(|removal| removal.0);
        match asked.into_iter().next() {
            Some((_, credential, accepted)) => drop(removals.insert(credential, accepted)),
            None => return list,
        }
    }
}

/// How it ranks (seniority and id of its signer, then its hash, which a signer could choose),
/// whom it removes, and what it accepts.
type Removal = ((u32, CredentialId, ObjectId), CredentialId, BTreeSet<ObjectId>);

fn evaluate_once(
    config: &Config,
    statements: &BTreeMap<ObjectId, Parsed>,
    order: &[ObjectId],
    removals: &BTreeMap<CredentialId, BTreeSet<ObjectId>>,
) -> (AccessList, Vec<Removal>) {
    let mut list = AccessList { known: order.iter().copied().collect(), ..AccessList::default() };
    let mut asked = Vec::new();
    let mut counted = BTreeSet::new();
    let mut removed_slots = BTreeSet::new();
    for hash in order {
        let Parsed { statement, message, signature } = &statements[hash];
        let verifying = match list.members.get(&statement.signer) {
            Some(member) if member.role == Role::Owner => member.public.verifying,
            // The one statement that vouches for its own signer: the root owner's.
            None if list.members.is_empty() => config.root_verifying,
            _ => continue,
        };
        if let Some(accepted) = removals.get(&statement.signer)
            && !accepted.contains(hash)
        {
            continue;
        }
        let message = signed_message(&config.repo, RecordKind::Statement, "", &NO_EPOCH, message);
        if credential::verify(&verifying, &message, signature, "access statement").is_err() {
            continue;
        }
        let seniority = list.members.get(&statement.signer).map_or(0, |member| member.seniority);
        match &statement.claim {
            Claim::CredentialAdded { role, verifying, sealing, label, grants } => {
                let Some(sealing) = KemPublic::from_slice(sealing) else { continue };
                let public = PublicCredential { verifying: *verifying, sealing };
                let id = public.id();
                if list.members.is_empty() && (*verifying != config.root_verifying || id != statement.signer) {
                    continue;
                }
                list.members.entry(id).or_insert_with(|| Member {
                    public,
                    role: *role,
                    label: label.clone(),
                    added_secs: statement.time_secs,
                    removed: removals.get(&id).cloned(),
                    seniority: if id == statement.signer { 0 } else { seniority.saturating_add(1) },
                });
                for grant in grants.iter().filter(|grant| grant.credential == id) {
                    if let Some(epoch) = list.epochs.iter_mut().find(|epoch| epoch.id == grant.epoch) {
                        epoch.grants.push(grant.clone());
                    }
                }
            }
            Claim::CredentialRemoved { credential, accepted } => {
                // The root owner answers to nobody.
                if list.members.get(credential).is_some_and(|member| member.seniority > 0) {
                    let rank = (seniority, statement.signer, *hash);
                    asked.push((rank, *credential, closure(statements, accepted)));
                }
            }
            Claim::SlotAdded { slot, hash, credential } => {
                list.slots.push(SlotEntry { slot: *slot, hash: *hash, credential: *credential });
            }
            Claim::SlotRemoved { slot } => drop(removed_slots.insert(*slot)),
            Claim::EpochOpened { epoch, public, grants } => {
                let Some(public) = KemPublic::from_slice(public) else { continue };
                if !list.epochs.iter().any(|known| known.id == *epoch) {
                    list.epochs.push(EpochEntry { id: *epoch, public, grants: grants.clone() });
                }
            }
        }
        counted.insert(*hash);
    }
    list.slots.retain(|slot| !removed_slots.contains(&slot.slot));
    list.removed_slots = removed_slots;
    let seen: BTreeSet<_> = counted.iter().flat_map(|hash| &statements[hash].statement.seen).copied().collect();
    list.heads = counted.difference(&seen).copied().collect();
    list.counted = counted;
    let seen_by_any = statements.values().flat_map(|parsed| &parsed.statement.seen);
    list.lost = seen_by_any.filter(|hash| !statements.contains_key(hash)).copied().collect();
    (list, asked)
}

/// Statements after all they have seen, ties by hash; those in a cycle or that have seen
/// something that is not here are left out.
fn topological(statements: &BTreeMap<ObjectId, Parsed>) -> Vec<ObjectId> {
    let mut missing: BTreeMap<ObjectId, usize> = BTreeMap::new();
    let mut followers: BTreeMap<ObjectId, Vec<ObjectId>> = BTreeMap::new();
    let mut ready = BTreeSet::new();
    for (hash, parsed) in statements {
        missing.insert(*hash, parsed.statement.seen.len());
        if parsed.statement.seen.is_empty() {
            ready.insert(*hash);
        }
        for seen in &parsed.statement.seen {
            followers.entry(*seen).or_default().push(*hash);
        }
    }
    let mut order = Vec::with_capacity(statements.len());
    while let Some(hash) = ready.pop_first() {
        order.push(hash);
        for follower in followers.remove(&hash).unwrap_or_default() {
            let left = missing.get_mut(&follower).expect("every follower is a statement");
            *left -= 1;
            if *left == 0 {
                ready.insert(follower);
            }
        }
    }
    order
}

/// These statements and everything they have seen. Hashes that are no statement stay in: they
/// are the removed credential's commits.
fn closure(statements: &BTreeMap<ObjectId, Parsed>, heads: &[ObjectId]) -> BTreeSet<ObjectId> {
    let mut reached = BTreeSet::new();
    let mut open = heads.to_vec();
    while let Some(hash) = open.pop() {
        if reached.insert(hash)
            && let Some(parsed) = statements.get(&hash)
        {
            open.extend(&parsed.statement.seen);
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::credential::Credential;
    use crate::crypto::key::SecretKey;
    use crate::format::cbor::Extra;
    use crate::format::config::ChunkerSettings;
    use crate::id::RepoId;

    /// A repository of statements, made by hand.
    struct Scene {
        config: Config,
        statements: BTreeMap<ObjectId, Parsed>,
    }

    fn credential(n: u8) -> Credential {
        Credential::from_seed(SecretKey::from_bytes(&[n; 32]))
    }

    impl Scene {
        fn new(root: &Credential) -> Self {
            let config = Config {
                version: 1,
                repo: RepoId::from_bytes([1; 16]),
                created_secs: 0,
                chunker: ChunkerSettings { algorithm: 1, min_bytes: 1, avg_bytes: 2, max_bytes: 3 },
                features: vec![],
                root_verifying: root.public().verifying,
                parity_percent: 0,
                extra: Extra::default(),
            };
            Self { config, statements: BTreeMap::new() }
        }

        fn say(&mut self, signer: &Credential, seen: &[ObjectId], claim: Claim) -> ObjectId {
            let mut seen = seen.to_vec();
            seen.sort();
            let statement = Statement { signer: signer.id(), seen, time_secs: 0, claim, extra: Extra::default() };
            let body = cbor::encode(&statement);
            let signature =
                signer.sign(&signed_message(&self.config.repo, RecordKind::Statement, "", &NO_EPOCH, &body));
            let record = SignedRecord { kind: RecordKind::Statement, algorithm: 1, body: &body, signature };
            let hash = ObjectId::of(&record.encode());
            self.statements.insert(hash, Parsed { statement, message: body, signature });
            hash
        }

        fn add(&mut self, signer: &Credential, seen: &[ObjectId], who: &Credential, role: Role) -> ObjectId {
            let public = who.public();
            let claim = Claim::CredentialAdded {
                role,
                verifying: public.verifying,
                sealing: public.sealing.as_bytes().to_vec(),
                label: vec![],
                grants: vec![],
            };
            self.say(signer, seen, claim)
        }

        fn remove(
            &mut self,
            signer: &Credential,
            seen: &[ObjectId],
            who: &Credential,
            accepted: &[ObjectId],
        ) -> ObjectId {
            self.say(signer, seen, Claim::CredentialRemoved { credential: who.id(), accepted: accepted.to_vec() })
        }

        fn active(&self) -> Vec<CredentialId> {
            let list = evaluate(&self.config, &self.statements);
            list.members().filter(|(_, member)| member.removed.is_none()).map(|(id, _)| *id).collect()
        }
    }

    fn ids(credentials: &[&Credential]) -> Vec<CredentialId> {
        let mut ids: Vec<_> = credentials.iter().map(|credential| credential.id()).collect();
        ids.sort();
        ids
    }

    #[test]
    fn only_owners_add_and_only_the_root_begins() {
        let (root, owner, writer, stranger) = (credential(1), credential(2), credential(3), credential(4));
        let mut scene = Scene::new(&root);
        scene.add(&stranger, &[], &stranger, Role::Owner);
        let first = scene.add(&root, &[], &root, Role::Owner);
        let second = scene.add(&root, &[first], &owner, Role::Owner);
        let third = scene.add(&owner, &[second], &writer, Role::Writer);
        scene.add(&writer, &[third], &stranger, Role::Owner);
        scene.add(&stranger, &[third], &stranger, Role::Owner);
        assert_eq!(scene.active(), ids(&[&root, &owner, &writer]));
    }

    #[test]
    fn a_removed_owner_keeps_what_was_accepted_and_nothing_it_backdates() {
        let (root, thief, friend, accomplice) = (credential(1), credential(2), credential(3), credential(4));
        let mut scene = Scene::new(&root);
        let first = scene.add(&root, &[], &root, Role::Owner);
        let second = scene.add(&root, &[first], &thief, Role::Owner);
        let third = scene.add(&thief, &[second], &friend, Role::Writer);
        scene.remove(&root, &[third], &thief, &[third]);
        // Claims to have been said before the removal.
        scene.add(&thief, &[second], &accomplice, Role::Owner);
        scene.remove(&thief, &[second], &friend, &[]);
        assert_eq!(scene.active(), ids(&[&root, &friend]));
    }

    #[test]
    fn a_removed_credential_cannot_remove_its_senior_in_return() {
        let (root, senior, junior) = (credential(1), credential(2), credential(3));
        for order in [true, false] {
            let mut scene = Scene::new(&root);
            let first = scene.add(&root, &[], &root, Role::Owner);
            let second = scene.add(&root, &[first], &senior, Role::Owner);
            let third = scene.add(&senior, &[second], &junior, Role::Owner);
            if order {
                scene.remove(&junior, &[third], &senior, &[third]);
            }
            scene.remove(&senior, &[third], &junior, &[]);
            scene.remove(&junior, &[third], &senior, &[third]);
            scene.remove(&junior, &[third], &root, &[third]);
            assert_eq!(scene.active(), ids(&[&root, &senior]));
        }
    }

    #[test]
    fn a_statement_with_another_signature_or_repository_does_not_count() {
        let (root, owner) = (credential(1), credential(2));
        let mut scene = Scene::new(&root);
        let first = scene.add(&root, &[], &root, Role::Owner);
        let second = scene.add(&root, &[first], &owner, Role::Owner);
        scene.statements.get_mut(&second).unwrap().signature[0] ^= 1;
        assert_eq!(scene.active(), ids(&[&root]));
        let mut scene = Scene::new(&root);
        scene.add(&root, &[], &root, Role::Owner);
        scene.config.repo = RepoId::from_bytes([9; 16]);
        assert_eq!(scene.active(), ids(&[]));
    }
}
