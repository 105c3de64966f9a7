//! A storage that answers what it likes, and one that puts the objects of other repositories up.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use esker::crypto::ident::ChunkKind;
use esker::crypto::slot::KdfCost;
use esker::error::Kind;
use esker::format::access::{Claim, Statement};
use esker::format::cbor::{self, Extra};
use esker::format::config::Slot;
use esker::format::record::{RecordKind, SignedRecord, signed_message};
use esker::id::{CollectionId, EpochId, ObjectId, SessionId, SlotId};
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::{InitOptions, Local};
use esker::repo::secret::Secret;
use esker::repo::session::Session;
use esker::repo::snapshots::Filter;
use esker::storage::memory::Memory;
use esker::storage::{Listed, ObjectWriter, Result, Storage, WriteMode};
use esker::world::World;

use super::forge::{Forger, sealed_record};
use super::hook::Hooked;
use super::memory;
use super::repo::{Scene as Machine, init_options, noise};
use super::scene::Scene;

/// A storage whose lists have what it likes.
struct Lists<F> {
    inner: Memory,
    more: F,
}

impl<F> fmt::Debug for Lists<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lists({:?})", self.inner)
    }
}

impl<F: Fn(&str, &mut Vec<Listed>) + Send + Sync> Storage for Lists<F> {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        self.inner.put(name, bytes, mode)
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        self.inner.writer()
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.inner.get(name)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.inner.get_range(name, offset, length)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut listed = self.inner.list(prefix)?;
        (self.more)(prefix, &mut listed);
        Ok(listed)
    }

    fn stat(&self, name: &str) -> Result<u64> {
        self.inner.stat(name)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name)
    }

    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }

    fn cover(&self, name: &str) -> Result<()> {
        self.inner.cover(name)
    }
}

/// Each list of the collections has something new in it: whoever waited for two alike would wait for ever.
#[test]
fn a_list_that_never_stands_still_is_an_error() {
    let scene = Scene::new();
    let lists = AtomicU64::new(0);
    let storage = Lists {
        inner: scene.memory.clone(),
        more: move |prefix: &str, listed: &mut Vec<Listed>| {
            if prefix == "gc/" {
                let count = lists.fetch_add(1, Ordering::Relaxed);
                assert!(count < 10_000, "it goes on for ever");
                listed.push(Listed { name: format!("gc/{count:032x}/condemned"), bytes: 1 });
            }
        },
    };
    let owner = scene.owner_over(Arc::new(storage));
    let error = Session::begin(&owner).err().unwrap();
    assert!(error.to_string().contains("changes all the time"), "{error}");
}

/// The same of what is listed and never there.
#[test]
fn objects_that_are_listed_and_never_found_are_an_error() {
    let scene = Scene::new();
    let storage = Lists {
        inner: scene.memory.clone(),
        more: |prefix: &str, listed: &mut Vec<Listed>| {
            if prefix == "gc/" {
                listed.push(Listed { name: format!("gc/{}/condemned", "0".repeat(32)), bytes: 1 });
            }
        },
    };
    let owner = scene.owner_over(Arc::new(storage));
    let error = Session::begin(&owner).err().unwrap();
    assert!(error.to_string().contains("change all the time"), "{error}");
}

/// Objects that are none, in every folder there is and in some there is not; twice in every list, the last first.
#[test]
fn objects_that_mean_nothing_are_in_nobodys_way() {
    let scene = Scene::new();
    let owner = scene.owner();
    let mut forger = Forger::new(&owner);
    let file = forger.file("file", b"content");
    let snapshot = forger.snapshot(vec![file]);
    let id = owner.keys.ids.chunk(ChunkKind::Data, b"content");
    let folders = [
        "",
        "access/",
        "alive/",
        "cache/",
        "copies/",
        "copies/access/",
        "copies/keys/",
        "flags/",
        "gc/",
        "index/",
        "keys/",
        "log/",
        "notes/",
        "packs/",
        "packs/00/",
        "parity/",
        "sessions/",
        "snapshots/",
        "wal/",
    ];
    let (hex16, hex32) = ("0".repeat(32), "f".repeat(64));
    for folder in folders {
        for name in
            ["x", "x/y/z", &hex16, &hex32, &format!("{hex16}/swept"), &format!("{hex16}/{hex16}"), &"a".repeat(900)]
        {
            for (end, bytes) in [("", &b""[..]), (".1", b"ESKREC\0\x01 and then something else")] {
                scene.memory.put(&format!("{folder}{name}{end}"), bytes, WriteMode::Replace).unwrap();
            }
        }
    }
    let twice = |_: &str, listed: &mut Vec<Listed>| {
        listed.extend(listed.clone());
        listed.reverse();
    };
    let owner = scene.owner_over(Arc::new(Lists { inner: scene.memory.clone(), more: twice }));
    assert_eq!(owner.member_list().len(), 3);
    let session = Session::begin(&owner).unwrap();
    assert!(session.counts(&snapshot) && session.may_reuse(&id));
    let reader = Reader::without_cache(&owner).unwrap();
    let restored = scene.restore_with(&reader, snapshot, &esker::restore::Options::new(scene.target())).unwrap();
    assert_eq!(restored.report.problems, 0);
    let faults = scene.check().faults;
    let of_ours = |fault: &&esker::check::Fault| fault.affected.iter().any(|one| one.snapshot == snapshot);
    assert!(faults.iter().find(of_ours).is_none(), "they affect what is ours");
    assert!(faults.iter().any(|fault| fault.object == "snapshots/x"), "what is named like no commit is said");
}

/// Whoever may put objects, without any key, can ask every session whether it has committed. Nothing is reported as
/// made then, and nobody waits for ever.
#[test]
fn a_backup_that_is_asked_each_time_ends_and_says_that_nothing_was_made() {
    let memory = Memory::new();
    let machine = Machine::new(Arc::new(memory.clone()));
    fs::write(machine.source().join("file"), noise(1, 50_000)).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let (counted, flags) = (asked.clone(), memory.clone());
    let hook = move |name: &str| {
        if let Some(session) = name.strip_prefix("snapshots/").filter(|session| session.len() == 32) {
            assert!(counted.fetch_add(1, Ordering::Relaxed) < 50, "it goes on for ever");
            let collection = CollectionId::from_bytes([7; 16]);
            flags.put(&format!("flags/{session}/{collection}"), b"no flag", WriteMode::Replace).unwrap();
        }
    };
    let hooked = Hooked::new(Arc::new(memory), hook);
    hooked.armed().store(true, Ordering::Relaxed);
    let error = machine.over(Arc::new(hooked)).try_backup().unwrap_err();
    assert!(error.to_string().contains("no snapshot was made"), "{error}");
    assert!(asked.load(Ordering::Relaxed) > 1);
}

/// A writer commits each session of an owner before the owner can, under the owner's session id.
#[test]
fn a_session_that_somebody_else_commits_first_is_not_reported_as_made() {
    let memory = Memory::new();
    let machine = Machine::new(Arc::new(memory.clone()));
    fs::write(machine.source().join("file"), noise(1, 50_000)).unwrap();
    let before = machine.backup().id;
    let writer = machine.writer().open();
    let commits = Arc::new(AtomicUsize::new(0));
    let (counted, forged) = (commits.clone(), memory.clone());
    let hook = move |name: &str| {
        let session = name.strip_prefix("snapshots/").and_then(|id| id.parse::<SessionId>().ok());
        if let Some(session) = session.filter(|_| forged.stat(name).is_err()) {
            assert!(counted.fetch_add(1, Ordering::Relaxed) < 50, "it goes on for ever");
            let commit = cbor::encode(&Forger::of_session(&writer, session).commit(None));
            let stored = sealed_record(&writer, RecordKind::Commit, name, &commit);
            forged.put(name, &stored, WriteMode::CreateNew).unwrap();
        }
    };
    let hooked = Hooked::new(Arc::new(memory), hook);
    hooked.armed().store(true, Ordering::Relaxed);
    let error = machine.over(Arc::new(hooked)).try_backup().unwrap_err();
    assert!(error.to_string().contains("no snapshot was made"), "{error}");
    assert!(commits.load(Ordering::Relaxed) > 1);
    // What was made before is what there is, and the next backup is made as ever.
    machine.restore(&before.to_string());
    let after = machine.backup().id;
    machine.restore(&after.to_string());
}

/// Two repositories with the same keys of content. Every object of one is put up in the other, under its own name and,
/// where there is one of that kind, in the place of another.
#[test]
fn nothing_of_a_repository_made_alike_is_taken_for_ones_own() {
    let (memory, other) = (Memory::new(), Memory::new());
    let machine = Machine::new(Arc::new(memory.clone()));
    let owner = machine.open();
    let like = Some(owner.keys.content_keys().unwrap());
    let options = InitOptions { like, ..init_options() };
    let (theirs, _) = Repository::init(Arc::new(other.clone()), World::seeded(5), &options, Local::default()).unwrap();
    fs::write(machine.source().join("file"), noise(1, 50_000)).unwrap();
    let snapshot = machine.backup().id.to_string();
    let mut forger = Forger::new(&theirs);
    let file = forger.file("theirs", b"another repository's");
    let foreign = forger.snapshot(vec![file]);
    let note = esker::format::gc::NoteClaim::Forgotten {
        session: snapshot.parse().unwrap(),
        commit: ObjectId::of(&memory.get(&format!("snapshots/{snapshot}")).unwrap()),
        until_secs: 0,
    };
    let note = esker::format::gc::Note { time_secs: 1, seen: vec![], claim: note, extra: Extra::default() };
    super::forge::put_record(&theirs, RecordKind::Note, "notes/", &note);
    Session::begin(&theirs).unwrap();
    assert_eq!(owner.keys.ids.chunk(ChunkKind::Data, b"x"), theirs.keys.ids.chunk(ChunkKind::Data, b"x"), "made alike");

    let before = memory.snapshot();
    let mut kinds = BTreeSet::new();
    for (name, bytes) in other.snapshot() {
        let folder = name.split('/').next().unwrap().to_owned();
        let same: Vec<_> = before.keys().filter(|own| own.split('/').next() == Some(&folder)).cloned().collect();
        kinds.insert(folder);
        for place in same.into_iter().chain([name.clone()]) {
            memory.restore(before.clone());
            memory.put(&place, &bytes, WriteMode::Replace).unwrap();
            let _ = fs::remove_dir_all(machine.cache());
            let when = format!("{name} as {place}");
            let owner = match machine.try_open() {
                Ok(owner) => owner,
                // Another `config` is refused by whoever has a key file.
                Err(error) => {
                    assert!(place == "config" && error.kind() != Kind::Failed, "{when}: {error:?}");
                    continue;
                }
            };
            let members = owner.member_list().len();
            assert_eq!(members, 1, "{when}");
            let reader = Reader::without_cache(&owner).unwrap();
            assert!(!reader.commits().headers.contains_key(&foreign), "{when}");
            assert!(owner.load_collections().unwrap().forgotten.is_empty(), "{when}");
            let unchanged = !before.contains_key(&place);
            let faults = machine.check().faults;
            // A pack under its own name is nobody's, and a statement that does not count is no part of the list: neither
            // is in the way.
            let quiet = ["packs/", "notes/", "access/"].iter().any(|folder| place.starts_with(folder));
            assert!(!faults.is_empty() || (unchanged && quiet), "{when}: {faults:?}");
            if unchanged {
                machine.restore(&snapshot);
            }
        }
    }
    let all = ["access", "config", "copies", "notes", "packs", "sessions", "snapshots"].map(String::from);
    assert_eq!(kinds, BTreeSet::from(all));
}

/// What a storage shows cannot have been made by a key of this repository, or says that it has been. Shown an older
/// commit for a newer one, or none, the next commit of the same key tells.
#[test]
fn a_commit_that_was_taken_away_is_missed_by_the_one_after_it() {
    let memory = Memory::new();
    let machine = Machine::new(Arc::new(memory.clone()));
    let ids: Vec<_> = (0..3)
        .map(|n| {
            fs::write(machine.source().join("file"), noise(n, 50_000)).unwrap();
            machine.backup().id
        })
        .collect();
    let hidden = ObjectId::of(&memory.get(&format!("snapshots/{}", ids[1])).unwrap());
    memory.delete(&format!("snapshots/{}", ids[1])).unwrap();
    let _ = fs::remove_dir_all(machine.cache());
    let faults = machine.check().faults;
    let named = [format!("snapshots/{}", ids[1]), format!("commit with hash {}", hidden.short())];
    assert!(faults.iter().any(|fault| named.contains(&fault.object)), "{faults:?}");
    let owner = machine.open();
    let (snapshots, _) = Reader::new(&owner).unwrap().snapshots(&Filter::default()).unwrap();
    assert_eq!(snapshots.iter().map(|info| info.id()).collect::<Vec<_>>(), [ids[0], ids[2]]);
}

fn slot_of_cost(memory_kib: u32, passes: u32) -> Slot {
    Slot { suite: 1, memory_kib, passes, lanes: 1, salt: [1; 32], commitment: [2; 32], sealed: vec![3; 104] }
}

/// A terabyte of memory to try a password, or so little that it is guessed at once; first by the storage alone,
/// then with the help of a stolen owner key, which can say that the slot is one.
#[test]
fn a_slot_of_hostile_cost_takes_neither_memory_nor_a_password() {
    let memory = Memory::new();
    let options = InitOptions {
        key: esker::repo::open::FirstKey::Password("correct".to_owned().into()),
        kdf: KdfCost::FLOOR,
        ..init_options()
    };
    let (owner, _) = Repository::init(Arc::new(memory.clone()), World::seeded(5), &options, Local::default()).unwrap();
    let open = |password: &str| {
        let secret = Secret::password(password);
        Repository::open(Arc::new(memory.clone()), World::seeded(6), &secret, Local::default())
    };
    let before = memory.snapshot();
    let genuine = owner.access.slots().next().unwrap().slot;
    let costs = [(1 << 30, 3), (u32::MAX, u32::MAX), (1 << 20, 1 << 20), (64, 3), (19_455, 2), (65_536, 1), (0, 0)];
    for (memory_kib, passes) in costs {
        let stored = slot_of_cost(memory_kib, passes).encode();
        memory.restore(before.clone());
        for folder in ["keys/", "copies/keys/"] {
            memory.put(&format!("{folder}{genuine}"), &stored, WriteMode::Replace).unwrap();
        }
        let peak = memory::peak_of(|| assert_eq!(open("correct").unwrap_err().kind(), Kind::Damaged));
        assert!(peak < 1 << 20, "{peak} bytes taken");

        // Said to be a slot, and the first there is.
        memory.restore(before.clone());
        let slot = SlotId::from_bytes([0; 16]);
        let claim = Claim::SlotAdded { slot, hash: ObjectId::of(&stored), credential: owner.keys.credential.id() };
        let (signer, seen) = (owner.keys.credential.id(), owner.access.heads().to_vec());
        let body = cbor::encode(&Statement { signer, seen, time_secs: 1, claim, extra: Extra::default() });
        let no_epoch = EpochId::from_bytes([0; 16]);
        let message = signed_message(&owner.config.repo, RecordKind::Statement, "", &no_epoch, &body);
        let signature = owner.keys.credential.sign(&message);
        let statement = SignedRecord { kind: RecordKind::Statement, algorithm: 1, body: &body, signature }.encode();
        memory.put(&format!("access/{}", ObjectId::of(&statement)), &statement, WriteMode::Replace).unwrap();
        memory.put(&format!("keys/{slot}"), &stored, WriteMode::Replace).unwrap();
        assert_eq!(open("correct").unwrap().access.slots().count(), 2);
        let peak = memory::peak_of(|| drop(open("wrong").unwrap_err()));
        // One try at the genuine slot, at the floor's cost of 19 MiB.
        assert!(peak < 40 << 20, "{peak} bytes taken");
    }
}
