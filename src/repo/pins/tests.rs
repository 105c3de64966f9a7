//! The risk: a storage shows an old state as the newest and nobody notices, or one that is right is
//! refused. Whole commands over copied directories are in `tests/rollback.rs`; here is what takes
//! collections and notes, which no verb makes yet.

use std::sync::Arc;

use super::*;
use crate::chunk::cut::Parameters;
use crate::crypto::slot::KdfCost;
use crate::format::access::Role;
use crate::format::cbor::Extra;
use crate::format::gc::{Note, NoteClaim, Swept};
use crate::format::record::RecordKind;
use crate::format::session::CommitKind;
use crate::id::CollectionId;
use crate::repo::content::Reader;
use crate::repo::open::{FirstKey, InitOptions, Local};
use crate::repo::secret::{KeyFile, Secret};
use crate::repo::session::{Outcome, Session};
use crate::storage::memory::Memory;
use crate::world::World;

struct Scene {
    memory: Memory,
    key: KeyFile,
    state: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let (memory, state) = (Memory::new(), tempfile::tempdir().unwrap());
        let options = InitOptions {
            key: FirstKey::KeyFile,
            kdf: KdfCost::FLOOR,
            chunker: Parameters::with_average(4096),
            label: "owner".into(),
            like: None,
            parity_percent: 0,
        };
        let local = Local { state: Some(state.path().to_owned()), ..Local::default() };
        let (_, key) = Repository::init(Arc::new(memory.clone()), World::seeded(1), &options, local).unwrap();
        Self { memory, key: key.unwrap(), state }
    }

    fn open_as(&self, key: &KeyFile) -> Repository {
        let local = Local { state: Some(self.state.path().to_owned()), ..Local::default() };
        let secret = Secret::KeyFile(key.clone());
        Repository::open(Arc::new(self.memory.clone()), World::system(), &secret, local).unwrap()
    }

    fn open(&self) -> Repository {
        self.open_as(&self.key)
    }

    fn lose(&self, session: &SessionId) {
        self.memory.delete(&format!("{SNAPSHOTS}{session}")).unwrap();
    }
}

fn commit(repo: &Repository) -> SessionId {
    let session = Session::begin(repo).unwrap();
    assert_eq!(session.commit(CommitKind::Maintenance, vec![], None, vec![]).unwrap(), Outcome::Made);
    session.id()
}

fn hash_of(repo: &Repository, session: &SessionId) -> ObjectId {
    repo.load_commit(session).unwrap().header.hash
}

fn forget(repo: &Repository, session: SessionId, commit: ObjectId) {
    let claim = NoteClaim::Forgotten { session, commit, until_secs: 0 };
    let note = Note { time_secs: 1, seen: vec![], claim, extra: Extra::default() };
    repo.put_hashed_record(RecordKind::Note, "notes/", &cbor::encode(&note)).unwrap();
}

#[test]
fn the_newest_own_commit_is_missed_and_an_older_one_that_it_reaches_is_not() {
    let scene = Scene::new();
    let first = commit(&scene.open());
    let second = commit(&scene.open());
    scene.lose(&first);
    assert_eq!(scene.open().behind(), []);
    let hash = hash_of(&scene.open(), &second);
    scene.lose(&second);
    assert_eq!(scene.open().behind(), [Behind::Commit(second, hash)]);
    let refused = Session::begin(&scene.open()).map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(scene.memory.list("sessions/").unwrap().len() == 2, "a refused session is not announced");
}

#[test]
fn a_commit_that_an_owner_has_forgotten_or_swept_may_go() {
    let scene = Scene::new();
    let repo = scene.open();
    let session = commit(&repo);
    forget(&repo, session, hash_of(&repo, &session));
    scene.lose(&session);
    assert_eq!(scene.open().behind(), []);

    let session = commit(&scene.open());
    let collection = CollectionId::from_bytes([7; 16]);
    let swept =
        Swept { collection, time_secs: 1, dead: vec![], void: vec![session], counted: vec![], extra: Extra::default() };
    repo.put_named_record(RecordKind::Swept, &format!("gc/{collection}/swept"), &cbor::encode(&swept)).unwrap();
    scene.lose(&session);
    assert_eq!(scene.open().behind(), []);
}

/// A stolen writer credential could otherwise cover up what the storage has dropped.
#[test]
fn what_a_writer_says_is_forgotten_covers_nothing() {
    let scene = Scene::new();
    let owner = scene.open();
    let writer = scene.open_as(&owner.add_member(Role::Writer, "writer", None).unwrap());
    let session = commit(&scene.open());
    let hash = hash_of(&owner, &session);
    forget(&writer, session, hash);
    scene.lose(&session);
    assert_eq!(scene.open().behind(), [Behind::Commit(session, hash)]);
}

#[test]
fn each_credential_has_heads_of_its_own() {
    let scene = Scene::new();
    let key = scene.open().add_member(Role::Writer, "writer", None).unwrap();
    let own = commit(&scene.open());
    let of_writer = commit(&scene.open_as(&key));
    scene.lose(&of_writer);
    assert_eq!(scene.open().behind(), []);
    assert_eq!(scene.open_as(&key).behind().len(), 1);
    scene.lose(&own);
    assert_eq!(scene.open().behind().len(), 1);
}

#[test]
fn what_another_machine_made_with_the_same_key_is_pinned_once_it_is_seen() {
    let scene = Scene::new();
    let elsewhere = Scene { state: tempfile::tempdir().unwrap(), memory: scene.memory.clone(), key: scene.key.clone() };
    let session = commit(&elsewhere.open());
    assert_eq!(scene.open().behind(), []);
    Reader::new(&scene.open()).unwrap();
    scene.lose(&session);
    assert_eq!(scene.open().behind().len(), 1);
}
