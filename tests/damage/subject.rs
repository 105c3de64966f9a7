//! What is damaged: a repository with an object of every kind, six snapshots that build on each other,
//! and what each of them restores to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use esker::backup::{self, KeepRecord, Options};
use esker::crypto::credential::SIGNATURE_ALGORITHM;
use esker::crypto::seal;
use esker::crypto::slot::KdfCost;
use esker::format::access::Role;
use esker::format::cbor::{self, Extra};
use esker::format::gc::{Condemned, Done, Log, LogItem, Swept};
use esker::format::record::{RecordKind, SealedRecord, Signed, push_digest, sealed_aad, signed_message};
use esker::format::session::Flag;
use esker::id::{CollectionId, ObjectId, PackId, SessionId};
use esker::monitor::{Monitor, Problem, Sink};
use esker::path::TreePath;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::Local;
use esker::repo::pack_writer::PackSettings;
use esker::repo::secret::Secret;
use esker::repo::session::Session;
use esker::repo::snapshots::Filter;
use esker::storage::memory::{Content, Memory};
use esker::storage::{Storage, WriteMode};

use super::repo::{Scene, later, noise};
use super::tree;

/// The password of an owner, here and in the foreign repository.
pub(crate) const PASSWORD: &str = "correct horse";

/// What a snapshot restores to: of each path, its line.
pub(crate) type Lines = BTreeMap<String, String>;

pub(crate) struct Subject {
    pub(crate) scene: Scene,
    /// Everything in the repository.
    pub(crate) base: Content,
    /// What it was after the first backup.
    pub(crate) first: Content,
    /// What it was when its last objects had not been replaced yet.
    pub(crate) older: Content,
    /// Another repository with the same password and files.
    pub(crate) foreign: Content,
    /// Oldest first: three of an owner, three of a writer.
    pub(crate) snapshots: Vec<(SessionId, Lines)>,
    /// A session whose snapshot a sweep calls void.
    pub(crate) void: SessionId,
    /// The packs of file content and of trees, and those with both.
    pub(crate) packs: BTreeMap<&'static str, Vec<String>>,
    /// The cache with the change record of the owner's last backup.
    pub(crate) cache: PathBuf,
}

/// The subject: never changed, made once for as long as somebody has it. Its directory goes with it.
pub(crate) fn subject() -> Arc<Subject> {
    static SUBJECT: Mutex<Weak<Subject>> = Mutex::new(Weak::new());
    let mut known = SUBJECT.lock().unwrap_or_else(PoisonError::into_inner);
    known.upgrade().unwrap_or_else(|| {
        let made = Arc::new(make());
        *known = Arc::downgrade(&made);
        made
    })
}

/// Packs of a few frames each.
fn packs(settings: PackSettings) -> PackSettings {
    PackSettings {
        data_pack_bytes: 48 << 10,
        tree_pack_bytes: 16 << 10,
        frame_bytes: 8 << 10,
        mixed_pack_bytes: 40 << 10,
        ..settings
    }
}

fn write_source(source: &Path) {
    for dir in ["docs", "long", "many", "deep/er/and/deeper", "empty"] {
        fs::create_dir_all(source.join(dir)).unwrap();
    }
    for n in 0..8 {
        fs::write(source.join(format!("docs/{n}")), noise(n, 400 + 700 * usize::try_from(n).unwrap())).unwrap();
    }
    // Their pieces stand in list nodes.
    for n in 0..5 {
        fs::write(source.join(format!("long/{n}")), noise(100 + n, 90_000)).unwrap();
    }
    let zeros = [&noise(150, 3000)[..], &vec![0; 200_000], &noise(151, 3000)].concat();
    fs::write(source.join("long/zeros"), zeros).unwrap();
    // So many that their directory is cut into several nodes.
    for n in 0..100_u64 {
        fs::write(source.join(format!("many/{n:03}")), noise(200 + n, 40)).unwrap();
    }
    fs::write(source.join("deep/er/and/deeper/leaf"), noise(400, 900)).unwrap();
    fs::hard_link(source.join("docs/1"), source.join("many/link")).unwrap();
    std::os::unix::fs::symlink("docs/1", source.join("symlink")).unwrap();
}

/// Adds a file, changes another one and one in the split directory.
fn edit(source: &Path, n: u64) {
    fs::write(source.join(format!("docs/new-{n}")), noise(500 + n, 5000)).unwrap();
    fs::write(source.join("deep/er/and/deeper/leaf"), noise(600 + n, 900)).unwrap();
    fs::write(source.join(format!("many/{n:03}")), noise(700 + n, 50)).unwrap();
}

fn make() -> Subject {
    let memory = Memory::new();
    let mut scene = Scene::finely_cut(Arc::new(memory.clone()), 512, 1);
    scene.packs = packs(scene.packs);
    let source = scene.source();
    write_source(&source);
    let owner = scene.open();
    owner.add_member(Role::Owner, "anna", Some((PASSWORD, KdfCost::FLOOR))).unwrap();
    let mut ids = vec![scene.backup().id];
    let first = memory.snapshot();
    edit(&source, 1);
    ids.push(scene.backup().id);
    let void = sweep_a_session(&scene, &memory, &source);
    edit(&source, 2);
    ids.push(scene.backup().id);
    let cache = scene.dir().join("cache-after-three");
    copy_all(&scene.cache(), &cache);

    let secret = Secret::KeyFile(scene.open().add_member(Role::Writer, "job", None).unwrap());
    let job = |hostname: &str| {
        let repo = Repository::open(Arc::new(memory.clone()), later(), &secret, Local::default()).unwrap();
        let options = Options { keep_record: KeepRecord::InRepository, hostname: hostname.into(), ..scene.options() };
        backup::run(&repo, &options, &Monitor::silent()).unwrap().id
    };
    edit(&source, 3);
    ids.push(job("pod"));
    let owner = scene.open();
    let open: Vec<SessionId> = (0..2).map(|_| Session::begin(&owner).unwrap().id()).collect();
    alive(&memory, &open, 1);
    let older = memory.snapshot();
    edit(&source, 4);
    ids.push(job("pod"));
    ids.push(job("other"));
    alive(&memory, &open, 2);

    // Two notes, the second of which has seen the first.
    let whole = scene.check().whole;
    let (one, others): (BTreeSet<_>, BTreeSet<_>) = whole.iter().copied().partition(|id| Some(id) == whole.first());
    assert!(!one.is_empty() && !others.is_empty(), "{whole:?}");
    owner.attest(&one).unwrap();
    owner.attest(&others).unwrap();
    let collection = CollectionId::from_bytes([2; 16]);
    for session in &open {
        let flag = Flag { session: *session, collection, time_secs: 1, extra: Extra::default() };
        put(&owner, RecordKind::Flag, &format!("flags/{session}/{collection}"), &cbor::encode(&flag));
    }
    // A third, which stands in a log.
    let before = memory.list("notes/").unwrap();
    owner.attest(&whole).unwrap();
    let third = memory.list("notes/").unwrap().into_iter().find(|object| !before.contains(object)).unwrap().name;
    let items = vec![LogItem { name: third.clone(), stored: memory.get(&third).unwrap() }];
    memory.delete(&third).unwrap();
    let log = Log { time_secs: 1, generation: 1, items, extra: Extra::default() };
    put_hashed(&owner, RecordKind::Log, "log/", &cbor::encode(&log));

    let packs = packs_by_kind(&owner);
    // An unfinished collection.
    let one = packs["data"][0].rsplit('/').next().unwrap().parse().unwrap();
    let condemned = Condemned { collection, time_secs: 1, packs: vec![one], extra: Extra::default() };
    put(&owner, RecordKind::Condemned, &format!("gc/{collection}/condemned"), &cbor::encode(&condemned));

    let base = memory.snapshot();
    let snapshots = ids.into_iter().map(|id| (id, restore(&scene, &id).unwrap().lines)).collect();
    Subject { foreign: foreign(&source), scene, base, first, older, snapshots, void, packs, cache }
}

/// A snapshot that a finished collection has called void, with its packs, which are gone.
fn sweep_a_session(scene: &Scene, memory: &Memory, source: &Path) -> SessionId {
    let before = memory.snapshot();
    fs::write(source.join("void"), noise(800, 9000)).unwrap();
    let void = scene.backup().id;
    fs::remove_file(source.join("void")).unwrap();
    let new = memory.snapshot();
    let names: Vec<_> = new.keys().filter(|name| name.starts_with("packs/") && !before.contains_key(*name)).collect();
    let mut dead: Vec<PackId> = names.iter().map(|name| name.rsplit('/').next().unwrap().parse().unwrap()).collect();
    dead.sort();
    let owner = scene.open();
    let collection = CollectionId::from_bytes([1; 16]);
    let condemned = Condemned { collection, time_secs: 1, packs: dead.clone(), extra: Extra::default() };
    put(&owner, RecordKind::Condemned, &format!("gc/{collection}/condemned"), &cbor::encode(&condemned));
    let swept = Swept { collection, time_secs: 1, dead, void: vec![void], counted: vec![], extra: Extra::default() };
    let swept = put(&owner, RecordKind::Swept, &format!("gc/{collection}/swept"), &cbor::encode(&swept));
    names.iter().for_each(|name| memory.delete(name).unwrap());
    let done = Done { collection, time_secs: 1, sweeps: vec![swept], seen_notes: vec![], extra: Extra::default() };
    put(&owner, RecordKind::Done, &format!("gc/{collection}/done"), &cbor::encode(&done));
    void
}

fn foreign(source: &Path) -> Content {
    let memory = Memory::new();
    let mut scene = Scene::finely_cut(Arc::new(memory.clone()), 512, 2);
    scene.packs = packs(scene.packs);
    scene.open().add_member(Role::Owner, "anna", Some((PASSWORD, KdfCost::FLOOR))).unwrap();
    let options = Options { roots: vec![TreePath::from_os(source).unwrap()], ..scene.options() };
    backup::run(&scene.open(), &options, &Monitor::silent()).unwrap();
    memory.snapshot()
}

fn alive(memory: &Memory, sessions: &[SessionId], beats: u64) {
    for session in sessions {
        let mut bytes = beats.to_le_bytes().to_vec();
        bytes.extend_from_slice(blake3::hash(&beats.to_le_bytes()).as_bytes());
        memory.put(&format!("alive/{session}"), &bytes, WriteMode::Replace).unwrap();
    }
}

/// Seals a record as §4.1 says.
fn sealed(repo: &Repository, kind: RecordKind, name: &str, body: &[u8]) -> Vec<u8> {
    let (epoch, credential) = (repo.keys.current_epoch(), &repo.keys.credential);
    let signature = credential.sign(&signed_message(&repo.config.repo, kind, name, &epoch.id, body));
    let signed = Signed { credential: credential.id(), algorithm: SIGNATURE_ALGORITHM, signature, body }.encode();
    let salt = [9; 32];
    let key = epoch.index_key.derive_salted(&salt, &kind.key_purpose());
    let mut text = Vec::new();
    seal::seal_into(&key.key, [9; 24], &sealed_aad(&repo.config.repo, kind, name, &epoch.id), &signed, &mut text);
    let record =
        SealedRecord { kind, suite: seal::SUITE, epoch: epoch.id, salt, commitment: key.commitment, sealed: &text };
    let mut stored = record.encode();
    push_digest(kind, &mut stored);
    stored
}

fn put(repo: &Repository, kind: RecordKind, name: &str, body: &[u8]) -> ObjectId {
    let stored = sealed(repo, kind, name, body);
    repo.storage.put(name, &stored, WriteMode::CreateNew).unwrap();
    ObjectId::of(&stored)
}

fn put_hashed(repo: &Repository, kind: RecordKind, folder: &str, body: &[u8]) {
    let stored = sealed(repo, kind, "", body);
    repo.storage.put(&format!("{folder}{}", ObjectId::of(&stored)), &stored, WriteMode::CreateNew).unwrap();
}

pub(crate) fn packs_by_kind(repo: &Repository) -> BTreeMap<&'static str, Vec<String>> {
    let reader = Reader::without_cache(repo).unwrap();
    let mut kinds: BTreeMap<u32, (bool, bool)> = BTreeMap::new();
    reader.catalog().each_chunk(|copies| {
        for row in copies.iter().map(|found| &found.row).filter(|row| reader.is_alive(row.pack)) {
            let kinds = kinds.entry(row.pack).or_default();
            if row.kind == 1 { kinds.0 = true } else { kinds.1 = true }
        }
    });
    let mut packs: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for (number, kinds) in kinds {
        let kind = match kinds {
            (true, false) => "data",
            (false, _) => "tree",
            (true, true) => "mixed",
        };
        let id = reader.catalog().packs()[number as usize].id;
        packs.entry(kind).or_default().push(esker::repo::session::pack_name(&id));
    }
    packs
}

pub(crate) fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => assert!(fs::copy(entry.path(), target).is_ok()),
        }
    }
}

/// What problems were reported, as path and message.
#[derive(Default)]
pub(crate) struct Problems(pub(crate) Mutex<Vec<(String, String)>>);

impl Sink for Problems {
    fn problem(&self, problem: &Problem) {
        self.0.lock().unwrap().push((problem.item.clone(), problem.message.clone()));
    }
}

/// What a restore did.
pub(crate) struct Restored {
    pub(crate) lines: Lines,
    /// The paths it named, once each.
    pub(crate) problems: BTreeSet<String>,
}

/// Restores a snapshot from the top of its tree.
pub(crate) fn restore(scene: &Scene, id: &SessionId) -> esker::error::Result<Restored> {
    let repo = scene.try_open()?;
    let reader = Reader::new(&repo)?;
    let info = reader.find_snapshot(&id.to_string(), &Filter::default())?;
    restore_root(scene, &reader, &info.snapshot.root)
}

pub(crate) fn restore_root(
    scene: &Scene,
    reader: &Reader<'_>,
    root: &esker::format::tree::Entry,
) -> esker::error::Result<Restored> {
    let target = tempfile::tempdir_in(scene.dir()).unwrap();
    let problems = Arc::new(Problems::default());
    let options = esker::restore::Options { threads: 2, ..esker::restore::Options::new(target.path()) };
    let monitor = Monitor::new(problems.clone());
    let report = esker::restore::run(reader, root, &TreePath::root(), &options, &monitor)?;
    let problems = std::mem::take(&mut *problems.0.lock().unwrap());
    assert_eq!(report.problems, problems.len() as u64, "every problem is named: {problems:?}");
    Ok(Restored { lines: lines(target.path()), problems: problems.into_iter().map(|(path, _)| path).collect() })
}

/// Lines of what is on disk, by path in the snapshot; of the top nothing but that it is there.
pub(crate) fn lines(top: &Path) -> Lines {
    let path = |line: &str| format!("/{}", line.split(' ').next().unwrap());
    let lines = tree::lines(top).into_iter().skip(1).map(|line| (path(&line), line));
    lines.chain([("/".to_owned(), ". Directory".to_owned())]).collect()
}
