//! A writer that says what only owners may say, or speaks for sessions that are not its own; and what
//! was taken from a credential that was removed.

use esker::crypto::credential::{Credential, SIGNATURE_ALGORITHM};
use esker::crypto::ident::ChunkKind;
use esker::format::access::{Claim, Role, Statement};
use esker::format::cbor::{self, Extra};
use esker::format::gc::{Condemned, Done, Log, LogItem, Note, NoteClaim, Swept};
use esker::format::record::{RecordKind, SignedRecord, signed_message};
use esker::id::{CollectionId, CredentialId, EpochId, ObjectId, SessionId, SlotId};
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::session::Session;
use esker::storage::{Storage, WriteMode};

use super::forge::{Forger, put_body, put_record, sealed_record};
use super::scene::Scene;

const COLLECTION: CollectionId = CollectionId::from_bytes([7; 16]);

/// A statement with this signer in it, signed with that key.
fn put_statement(repo: &Repository, signer: CredentialId, key: &Credential, claim: Claim) {
    let seen = repo.access.heads().to_vec();
    let body = cbor::encode(&Statement { signer, seen, time_secs: 1, claim, extra: Extra::default() });
    let no_epoch = EpochId::from_bytes([0; 16]);
    let message = signed_message(&repo.config.repo, RecordKind::Statement, "", &no_epoch, &body);
    let signature = key.sign(&message);
    let record = SignedRecord { kind: RecordKind::Statement, algorithm: SIGNATURE_ALGORITHM, body: &body, signature };
    let stored = record.encode();
    for folder in ["access/", "copies/access/"] {
        let name = format!("{folder}{}", ObjectId::of(&stored));
        repo.storage.put(&name, &stored, WriteMode::Replace).unwrap();
    }
}

/// An owner's snapshot of one file, and the pack it is in.
fn owners_snapshot(owner: &Repository) -> (SessionId, esker::id::PackId, esker::id::ChunkId) {
    let mut forger = Forger::new(owner);
    let file = forger.file("file", b"an owner's");
    let snapshot = forger.snapshot(vec![file]);
    (snapshot, forger.packs[0].id, owner.keys.ids.chunk(ChunkKind::Data, b"an owner's"))
}

/// Every statement of an owner, by a writer: collections, tombstones, attestations, logs, keys.
#[test]
fn what_only_owners_may_say_does_not_count_when_a_writer_says_it() {
    let scene = Scene::new();
    let (owner, writer) = (scene.owner(), scene.writer());
    let (snapshot, pack, chunk) = owners_snapshot(&owner);
    let commit = ObjectId::of(&scene.memory.get(&format!("snapshots/{snapshot}")).unwrap());
    let members = owner.member_list().len();

    let extra = Extra::default;
    let condemned = Condemned { collection: COLLECTION, time_secs: 1, packs: vec![pack], extra: extra() };
    put_record(&writer, RecordKind::Condemned, &format!("gc/{COLLECTION}/condemned"), &condemned);
    let swept = Swept {
        collection: COLLECTION,
        time_secs: 1,
        dead: vec![pack],
        void: vec![snapshot],
        counted: vec![],
        extra: extra(),
    };
    let name = format!("gc/{COLLECTION}/swept");
    put_record(&writer, RecordKind::Swept, &name, &swept);
    let sweep = ObjectId::of(&scene.memory.get(&name).unwrap());
    let done = Done { collection: COLLECTION, time_secs: 1, sweeps: vec![sweep], seen_notes: vec![], extra: extra() };
    put_record(&writer, RecordKind::Done, &format!("gc/{COLLECTION}/done"), &done);
    for claim in [
        NoteClaim::Forgotten { session: snapshot, commit, until_secs: 0 },
        NoteClaim::Quarantined { session: snapshot },
        NoteClaim::Verified { descriptions: vec![esker::id::DescriptionId::from_bytes([1; 32])], mended: vec![] },
    ] {
        put_record(&writer, RecordKind::Note, "notes/", &Note { time_secs: 1, seen: vec![], claim, extra: extra() });
    }
    let item = LogItem { name: name.clone(), stored: sealed_record(&writer, RecordKind::Swept, &name, b"\xa0") };
    put_record(
        &writer,
        RecordKind::Log,
        "log/",
        &Log { time_secs: 1, generation: 1, items: vec![item], extra: extra() },
    );
    let (itself, root) = (writer.keys.credential.id(), owner.keys.credential.id());
    let added = Claim::CredentialAdded {
        role: Role::Owner,
        verifying: writer.keys.credential.public().verifying,
        sealing: writer.keys.credential.public().sealing.as_bytes().to_vec(),
        label: vec![],
        grants: vec![],
    };
    let claims = [
        added,
        Claim::CredentialRemoved { credential: root, accepted: vec![] },
        Claim::SlotAdded { slot: SlotId::from_bytes([1; 16]), hash: ObjectId::of(b"slot"), credential: root },
        Claim::EpochOpened {
            epoch: EpochId::from_bytes([1; 16]),
            public: writer.keys.current_epoch().public.as_bytes().to_vec(),
            grants: vec![],
        },
    ];
    for claim in claims {
        // In its own name, and in the root owner's.
        put_statement(&writer, itself, &writer.keys.credential, claim.clone());
        put_statement(&writer, root, &writer.keys.credential, claim);
    }

    for reads in [scene.owner(), scene.another_writer()] {
        let said = reads.load_collections().unwrap();
        assert!(said.condemned.is_empty() && said.dead.is_empty() && said.void.is_empty(), "{said:?}");
        assert!(said.forgotten.is_empty() && said.attested.is_empty() && said.sweeps.is_empty(), "{said:?}");
        let session = Session::begin(&reads).unwrap();
        assert!(session.counts(&snapshot) && session.may_reuse(&chunk));
        assert_eq!(reads.access.epochs().len(), 1);
        assert_eq!(reads.access.slots().count(), 0);
    }
    let owner = scene.owner();
    assert_eq!(owner.member_list().len(), members);
    assert!(!owner.is_owner(&itself));
    assert_eq!(scene.restore(snapshot).report.problems, 0);
}

/// A writer can cause everybody to store a chunk anew, which the threat model grants. Once it is removed it cannot.
#[test]
fn a_removed_writer_has_no_more_to_say_of_damage() {
    let scene = Scene::new();
    let (owner, writer) = (scene.owner(), scene.writer());
    let (_, pack, chunk) = owners_snapshot(&owner);
    let claim = NoteClaim::Damaged { chunks: vec![chunk], pack };
    let note = Note { time_secs: 1, seen: vec![], claim, extra: Extra::default() };
    put_record(&writer, RecordKind::Note, "notes/", &note);
    assert!(!Session::begin(&scene.owner()).unwrap().may_reuse(&chunk));
    owner.remove_member(&writer.keys.credential.id(), vec![]).unwrap();
    assert!(Session::begin(&scene.owner()).unwrap().may_reuse(&chunk));
}

/// Whole and rightly signed, but of another session than its name says.
#[test]
fn a_commit_counts_for_its_own_session_only() {
    let scene = Scene::new();
    let (owner, writer) = (scene.owner(), scene.writer());
    let (first, ..) = owners_snapshot(&owner);
    let (second, ..) = owners_snapshot(&owner);
    let name = |session: SessionId| format!("snapshots/{session}");
    let stored = |session| scene.memory.get(&name(session)).unwrap();
    let before = scene.memory.snapshot();
    let counting = || {
        let owner = scene.owner();
        let reader = Reader::without_cache(&owner).unwrap();
        (reader.commits().headers.len(), reader.faults().len())
    };
    assert_eq!(counting(), (2, 0));
    // The storage swaps two, and puts one a second time under a name of its own.
    let (one, two) = (stored(first), stored(second));
    scene.memory.put(&name(first), &two, WriteMode::Replace).unwrap();
    scene.memory.put(&name(second), &one, WriteMode::Replace).unwrap();
    scene.memory.put(&name(SessionId::from_bytes([9; 16])), &one, WriteMode::Replace).unwrap();
    assert_eq!(counting(), (0, 3));
    // A writer puts one under another's name, sealed and signed for that name.
    scene.memory.restore(before);
    let forger = Forger::new(&writer);
    put_body(&writer, RecordKind::Commit, &name(SessionId::from_bytes([9; 16])), &cbor::encode(&forger.commit(None)));
    assert_eq!(counting(), (2, 1));
}
