//! One cell of the matrix: an object, a kind of damage, and all that must hold afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use esker::check::{Fault, ReadData, Report};
use esker::dump::dump_file;
use esker::error::Kind;
use esker::format::tree::{Detail, Entry};
use esker::id::SessionId;
use esker::ls;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::Local;
use esker::repo::reader::find;
use esker::repo::secret::Secret;
use esker::repo::snapshots::Filter;
use esker::stats;
use esker::storage::Storage;
use esker::storage::memory::{Content, Memory};
use esker::storage::record::Recording;

use super::repo::{Scene, later};
use super::subject::{Lines, PASSWORD, Restored, Subject, copy_all, lines, restore_root, subject};
use super::tree;

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    Deleted,
    Emptied,
    CutInHeader,
    CutInHalf,
    CutByOne,
    FlippedInHeader,
    /// So many eighths into it.
    Flipped(usize),
    /// In the middle of what the last 144 bytes are: a trailer, a digest.
    FlippedInTrailer,
    FlippedAtEnd,
    Appended,
    /// Another of its kind stands under its name.
    SwappedWithKin,
    /// One of another kind does.
    SwappedWithStranger,
    /// What the storage had under its name, or under its kind, before the last objects were put.
    Replayed,
    /// One of its kind from another repository with the same password.
    Foreign,
}

pub(crate) const DAMAGES: [Damage; 16] = [
    Damage::Deleted,
    Damage::Emptied,
    Damage::CutInHeader,
    Damage::CutInHalf,
    Damage::CutByOne,
    Damage::FlippedInHeader,
    Damage::Flipped(1),
    Damage::Flipped(4),
    Damage::Flipped(7),
    Damage::FlippedInTrailer,
    Damage::FlippedAtEnd,
    Damage::Appended,
    Damage::SwappedWithKin,
    Damage::SwappedWithStranger,
    Damage::Replayed,
    Damage::Foreign,
];

/// The kind of an object: its name up to what differs.
fn kind_of(name: &str) -> String {
    let parts: Vec<_> = name.split('/').collect();
    match parts[..] {
        ["copies", kind, _] => format!("copies/{kind}/"),
        ["gc", _, part] => part.to_owned(),
        ["copies", _] => "config".to_owned(),
        [only] => only.to_owned(),
        [kind, ..] => format!("{kind}/"),
        [] => unreachable!(),
    }
}

impl Subject {
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        self.base.keys().filter(|name| name.starts_with(folder)).cloned().collect()
    }

    /// What the damage leaves under the name; `None` when that is what was there.
    fn damaged(&self, name: &str, damage: Damage) -> Option<Option<Vec<u8>>> {
        let stored = self.base[name].to_vec();
        let length = stored.len();
        let flipped = |at: usize| {
            let mut bytes = stored.clone();
            bytes[at] ^= 0x10;
            bytes
        };
        let first_of = |content: &Content, like: &dyn Fn(&str) -> bool| {
            content.iter().find(|(other, _)| like(other)).map(|(_, bytes)| bytes.to_vec())
        };
        // Packs of the same length stand first: that is the swap that is hard to find.
        let kin = || {
            let kind = kind_of(name);
            let mut kin: Vec<_> = self
                .base
                .iter()
                .filter(|(other, bytes)| *other != name && kind_of(other) == kind && ***bytes != *stored)
                .collect();
            kin.sort_by_key(|(_, bytes)| bytes.len().abs_diff(length));
            kin.first().map(|(_, bytes)| bytes.to_vec())
        };
        let bytes = match damage {
            Damage::Deleted => return Some(None),
            Damage::Emptied => vec![],
            Damage::CutInHeader => stored[..10.min(length)].to_vec(),
            Damage::CutInHalf => stored[..length / 2].to_vec(),
            Damage::CutByOne => stored[..length - 1].to_vec(),
            Damage::FlippedInHeader => flipped(length.min(9) - 1),
            Damage::Flipped(eighths) => flipped(length * eighths / 8),
            Damage::FlippedInTrailer => flipped(length - 72.min(length)),
            Damage::FlippedAtEnd => flipped(length - 1),
            Damage::Appended => [&stored[..], &[0x5a; 100]].concat(),
            Damage::SwappedWithKin => kin()?,
            Damage::SwappedWithStranger => {
                first_of(&self.base, &|other| kind_of(other) != kind_of(name) && kind_of(other) != "config")?
            }
            Damage::Replayed => self.older.get(name)?.to_vec(),
            Damage::Foreign => first_of(&self.foreign, &|other| kind_of(other) == kind_of(name))?,
        };
        (bytes != stored).then_some(Some(bytes))
    }
}

/// What must be said of a cell.
#[derive(Debug, PartialEq)]
enum Said {
    /// The object is named, and no other.
    Named,
    /// Nothing: it is missed by nobody, or whole as far as anybody can tell.
    Nothing,
    /// That there is a session that may have lost its commit.
    Noted,
}

fn said_of(name: &str, damage: Damage) -> Said {
    let subject = subject();
    let newest = format!("snapshots/{}", subject.snapshots.last().unwrap().0);
    match (&*kind_of(name), damage) {
        // An announcement is for those that were at work then, and so are signs of life and flags.
        ("sessions/" | "alive/" | "flags/" | "cache/" | "log/" | "condemned" | "done", Damage::Deleted) => {
            Said::Nothing
        }
        // Nothing refers to the newest note, or to the newest commit of all.
        ("notes/", Damage::Deleted) => Said::Nothing,
        ("snapshots/", Damage::Deleted) if name == newest => Said::Noted,
        // They are replaced in place, and are nobody's business but their writer's.
        ("alive/" | "cache/", Damage::Replayed | Damage::SwappedWithKin) => Said::Nothing,
        _ => Said::Named,
    }
}

/// What may be said besides: what follows from the loss.
fn may_follow(name: &str, object: &str) -> bool {
    // Without the sweep the void session counts again, and its packs are gone.
    name.ends_with("/swept") && (object.starts_with("packs/") || *object == format!("snapshots/{}", subject().void))
}

/// The calls that operations make of the sound repository: those of a damaged one are bounded by these.
#[derive(Debug, Clone, Copy, Default)]
struct Calls {
    check: usize,
    restore: usize,
    backup: usize,
}

pub(crate) struct Matrix {
    subject: Arc<Subject>,
    memory: Memory,
    scene: Scene,
    calls: Calls,
    /// How objects are damaged.
    pub(crate) damages: Vec<Damage>,
    /// Holds the cache.
    _dir: tempfile::TempDir,
}

impl Matrix {
    /// A matrix over a storage of its own.
    pub(crate) fn new() -> Self {
        let memory = Memory::new();
        let subject = subject();
        let dir = tempfile::tempdir_in(subject.scene.dir()).unwrap();
        let scene = subject.scene.over(Arc::new(memory.clone())).caching_in(dir.path().join("cache"));
        let mut matrix = Self { subject, memory, scene, calls: Calls::default(), damages: DAMAGES.to_vec(), _dir: dir };
        matrix.sound();
        matrix
    }

    /// Asserts that nothing is wrong with the repository as it is, and counts calls.
    pub(crate) fn sound(&mut self) {
        let subject = self.subject.clone();
        self.memory.restore(subject.base.clone());
        self.forget();
        let (report, check) = self.counted(|scene| scene.check());
        assert!(report.faults.is_empty(), "{report:?}");
        self.calls.check = check;
        for (id, expected) in &subject.snapshots {
            self.forget();
            let (found, calls) = self.counted(|scene| super::subject::restore(scene, id).unwrap());
            compare(expected, &found, &BTreeSet::new(), "sound");
            self.calls.restore = self.calls.restore.max(calls);
        }
        self.forget();
        let (made, calls) = self.counted(|scene| scene.backup());
        self.calls.backup = calls;
        assert_eq!(made.problems, 0);
        assert_eq!(tree::lines(&self.scene.restore(&made.id.to_string())), tree::lines(&self.scene.source()));
    }

    /// A cache would hide what the storage has lost.
    fn forget(&self) {
        let _ = fs::remove_dir_all(self.scene.cache());
    }

    fn counted<T>(&self, work: impl FnOnce(&Scene) -> T) -> (T, usize) {
        let recording = Recording::new(Arc::new(self.memory.clone()));
        let scene = self.scene.over(Arc::new(recording.clone())).caching_in(self.scene.cache());
        let done = work(&scene);
        (done, recording.calls().len())
    }

    /// Damages each object in every way, and asserts all that must hold.
    pub(crate) fn run(&self, names: &[String]) {
        let cells: Vec<_> =
            names.iter().flat_map(|name| self.damages.iter().map(move |damage| (name, *damage))).collect();
        let made = cells.iter().filter_map(|(name, damage)| {
            let bytes = self.subject.damaged(name, *damage)?;
            // All of them are gone through: which ones fail says more than the first that does.
            let cell = catch_unwind(AssertUnwindSafe(|| self.cell(name, *damage, bytes)));
            Some((format!("{name} {damage:?}"), cell.is_ok()))
        });
        let made: Vec<_> = made.collect();
        assert!(made.len() > cells.len() / 2, "{} cells of {names:?}", made.len());
        let failed: Vec<_> = made.iter().filter(|(_, held)| !held).map(|(cell, _)| cell).collect();
        assert!(failed.is_empty(), "{} of {} cells: {failed:#?}", failed.len(), made.len());
    }

    fn cell(&self, name: &str, damage: Damage, bytes: Option<Vec<u8>>) {
        let mut content = self.subject.base.clone();
        match bytes {
            Some(bytes) => drop(content.insert(name.to_owned(), bytes.into())),
            None => drop(content.remove(name)),
        }
        self.holds_for(name, damage, &content);
    }

    /// Asserts all that must hold when this is what is there, and the object is so damaged.
    pub(crate) fn holds_for(&self, name: &str, damage: Damage, content: &Content) {
        let subject = &self.subject;
        let when = format!("{name} {damage:?}");
        self.memory.restore(content.clone());
        self.forget();
        if name == "config" && matches!(damage, Damage::Deleted | Damage::Foreign) {
            return self.without_config(damage);
        }
        let (report, calls) = self.counted(|scene| scene.check());
        assert!(calls <= 3 * self.calls.check, "{when}: the check asked {calls} times");
        self.is_named(name, damage, &report, &when);
        if name.starts_with("keys/") || name.starts_with("copies/keys/") {
            let storage = Arc::new(self.memory.clone());
            let opened = Repository::open(storage, later(), &Secret::password(PASSWORD), Local::default());
            opened.unwrap_or_else(|error| panic!("{when}: {error:?}"));
        }
        let structure = self.scene.check_reading(ReadData::No);
        let objects = |report: &Report| report.faults.iter().map(|fault| fault.object.clone()).collect::<BTreeSet<_>>();
        assert!(objects(&structure).is_subset(&objects(&report)), "{when}: without reading data: {structure:?}");
        let is_unread = name.starts_with("packs/") || name.starts_with("cache/");
        assert!(is_unread || objects(&structure) == objects(&report), "{when}: without reading data: {structure:?}");

        let affected = affected(&report, &when);
        // What nothing that is restored rests on is looked at as closely only where it is gone or another's.
        let matters = ["config", "packs/", "index/", "snapshots/", "gc/"].iter().any(|kind| name.starts_with(kind));
        if !matters && !matches!(damage, Damage::Deleted | Damage::Flipped(4) | Damage::SwappedWithKin) {
            assert!(affected.is_empty(), "{when}: {affected:?}");
            return;
        }
        self.reads(&affected, &report, &when);
        let undetected = name.starts_with("packs/")
            && content.get(name).is_some_and(|bytes| bytes.len() == subject.base[name].len());
        for keep_cache in [false, true] {
            self.memory.restore(content.clone());
            self.forget();
            if keep_cache {
                copy_all(&subject.cache, &self.scene.cache());
            }
            self.backs_up(name, undetected, &affected, &format!("{when}, cache kept: {keep_cache}"));
        }
    }

    /// Asserts what must hold of readers whatever is there. Gives what the check says of it.
    pub(crate) fn holds(&self, content: Content, when: &str) -> Report {
        self.memory.restore(content);
        self.forget();
        let report = self.scene.check();
        self.reads(&affected(&report, when), &report, when);
        report
    }

    /// Nothing can be done before it is put back, and that is what is said.
    fn without_config(&self, damage: Damage) {
        let error = self.scene.try_open().unwrap_err();
        match damage {
            Damage::Deleted => {
                assert_eq!(error.kind(), Kind::NoRepository);
                assert!(error.hint_text().unwrap().contains("esker repair config"), "{error:?}");
            }
            // The key file knows whose repository it is for.
            _ => assert_eq!(error.kind(), Kind::WrongKey),
        }
    }

    /// The check names the object, and nothing else, and says something of it.
    fn is_named(&self, name: &str, damage: Damage, report: &Report, when: &str) {
        let named: BTreeSet<&str> = report.faults.iter().map(|fault| &*fault.object).collect();
        let others: Vec<_> = named.iter().filter(|object| **object != name && !may_follow(name, object)).collect();
        assert!(others.is_empty(), "{when}: {report:#?}");
        match said_of(name, damage) {
            Said::Named => assert!(named.contains(name), "{when}: {report:#?}"),
            Said::Nothing => assert!(named.is_empty(), "{when}: {report:#?}"),
            Said::Noted => {
                let session = name.rsplit('/').next().unwrap();
                assert!(
                    named.is_empty() && report.notes.iter().any(|note| note.contains(session)),
                    "{when}: {report:#?}"
                );
            }
        }
        let is_swapped = damage == Damage::SwappedWithKin && name.starts_with("packs/");
        let stored = self.memory.stat(name).ok();
        if is_swapped && stored == Some(self.subject.base[name].len() as u64) {
            assert!(report.faults[0].message.contains("its bytes are those of `packs/"), "{when}: {report:#?}");
        }
        for fault in &report.faults {
            let message = &fault.message;
            assert!(!message.is_empty() && !message.contains('\n'), "{when}: {message}");
            // The object is said beside it already.
            assert!(fault.object == "config" || !message.contains(&fault.object), "{when}: {message}");
        }
    }

    /// All that reads: what is intact comes back, what is not is named, and nobody lies.
    fn reads(&self, affected: &BTreeMap<SessionId, BTreeSet<String>>, report: &Report, when: &str) {
        let subject = &self.subject;
        self.forget();
        let repo = self.scene.open();
        let reader = Reader::new(&repo).unwrap();
        let (listed, unreadable) = reader.snapshots(&Filter::default()).unwrap();
        assert!(unreadable.is_empty(), "{when}: {unreadable:?}");
        let none = BTreeSet::new();
        for (id, expected) in &subject.snapshots {
            let affected = affected.get(id).unwrap_or(&none);
            let Some(info) = listed.iter().find(|info| info.id() == *id) else {
                // Of a lost commit its snapshot is lost, with all that is in it; or nobody knows of it, but
                // that there is a session.
                let is_noted = report.notes.iter().any(|note| note.contains(&id.to_string()));
                assert!(affected.contains("/") || is_noted, "{when}: {id} is not listed: {report:?}");
                let error = reader.find_snapshot(&id.to_string(), &Filter::default()).unwrap_err();
                assert_eq!(error.kind(), Kind::Failed, "{when}: {error:?}");
                continue;
            };
            let root = &info.snapshot.root;
            let (restored, calls) = self.counted(|_| restore_root(&self.scene, &reader, root).unwrap());
            assert!(calls <= 3 * self.calls.restore, "{when}: a restore asked {calls} times");
            compare(expected, &restored, affected, &format!("{when}: {id}"));
            lists(&reader, root, expected, &restored.lines, affected, &format!("{when}: {id}"));
        }
        let (_, expected) = &subject.snapshots[0];
        if let Some(info) = listed.iter().find(|info| info.id() == subject.snapshots[0].0) {
            let affected = affected.get(&info.id()).unwrap_or(&none);
            dumps(&reader, &info.snapshot.root, expected, affected, when);
            let selection =
                stats::selection(&reader, std::slice::from_ref(&info.snapshot.root), &[], &Monitor::silent()).unwrap();
            let files = expected.values().filter(|line| !is_directory(line)).count();
            assert_eq!(selection.snapshots.totals.files, files as u64, "{when}");
            stats::repository(&reader).unwrap();
        }
    }

    /// A further backup makes a snapshot that is whole, but for what nobody can know without reading it.
    fn backs_up(&self, name: &str, undetected: bool, before: &BTreeMap<SessionId, BTreeSet<String>>, when: &str) {
        let (made, calls) = self.counted(|scene| scene.backup());
        assert!(calls <= 3 * self.calls.backup, "{when}: a backup asked {calls} times");
        self.forget();
        let restored = super::subject::restore(&self.scene, &made.id).unwrap();
        let report = self.scene.check();
        let affected = affected(&report, when);
        let none = BTreeSet::new();
        let new = affected.get(&made.id).unwrap_or(&none);
        assert_eq!(new, &restored.problems, "{when}: {report:?}");
        if !undetected {
            assert!(new.is_empty(), "{when}: the new snapshot is not whole: {report:#?}");
            let prefix = self.scene.source().display().to_string();
            for (path, line) in lines(&self.scene.source()).iter().filter(|(path, _)| *path != "/") {
                let path = format!("{prefix}{path}");
                let found = restored.lines.get(&path).unwrap_or_else(|| panic!("{when}: no {path}"));
                assert!(rest(found) == rest(line), "{when}: {found} for {line}");
            }
        }
        // What was stored anew may mend older snapshots; it never harms one.
        for (id, after) in &affected {
            assert!(
                *id == made.id || before.get(id).is_some_and(|before| after.is_subset(before)),
                "{when}: {id}: {report:?}"
            );
        }
        // Which of several commits is lost cannot always be told: then it is one of those that are named.
        let is_it = |fault: &Fault| fault.object == name || fault.message.contains(name);
        let follows = |fault: &Fault| may_follow(name, &fault.object);
        assert!(report.faults.iter().all(|fault| is_it(fault) || follows(fault)), "{when}: {report:#?}");
    }
}

/// A line without its path, but for which file it is another name of.
fn rest(line: &str) -> &str {
    let line = line.split_once(' ').unwrap().1;
    line.split(" same as ").next().unwrap()
}

/// The paths of each snapshot that faults affect.
pub(crate) fn affected(report: &Report, when: &str) -> BTreeMap<SessionId, BTreeSet<String>> {
    let mut affected: BTreeMap<SessionId, BTreeSet<String>> = BTreeMap::new();
    for fault in &report.faults {
        assert_eq!(fault.affected_total, fault.affected.len() as u64, "{when}: more than are named");
        let once: BTreeSet<_> = fault.affected.iter().collect();
        assert_eq!(once.len(), fault.affected.len(), "{when}: named twice");
        for one in &fault.affected {
            affected.entry(one.snapshot).or_default().insert(one.path.to_string());
        }
    }
    affected
}

pub(crate) fn parent(path: &str) -> Option<&str> {
    let (parent, _) = path.rsplit_once('/').filter(|_| path != "/")?;
    Some(if parent.is_empty() { "/" } else { parent })
}

pub(crate) fn is_directory(line: &str) -> bool {
    line.split(' ').nth(1) == Some("Directory")
}

/// What came back is right, and what did not is just what was named, by the restore and by the check.
pub(crate) fn compare(expected: &Lines, restored: &Restored, affected: &BTreeSet<String>, when: &str) {
    for (path, line) in &restored.lines {
        let right = expected.get(path).unwrap_or_else(|| panic!("{when}: {path} is not in the snapshot"));
        // Where the first name of a file is missing, another is the first.
        let first = right.split_once(" same as ").map(|(_, first)| format!("/{first}"));
        let is_first = first.is_some_and(|first| !restored.lines.contains_key(&first));
        assert!(line == right || is_first && rest(line) == rest(right), "{when}: {line} for {right}");
    }
    assert_eq!(&restored.problems, affected, "{when}: what the restore and the check name");
    let missing: BTreeSet<&str> =
        expected.keys().filter(|path| !restored.lines.contains_key(*path)).map(|path| &**path).collect();
    for path in &missing {
        let above = std::iter::successors(Some(*path), |path| parent(path));
        assert!(above.into_iter().any(|path| affected.contains(path)), "{when}: {path} is missing in silence");
        let is_first = !missing.contains(parent(path).unwrap());
        assert!(is_first || is_directory(&expected[parent(path).unwrap()]), "{when}: {path}");
    }
    for path in affected {
        let line = &expected[path];
        if is_directory(line) {
            let below = |other: &&String| parent(other) == Some(path);
            let lacks = expected.keys().filter(below).any(|other| missing.contains(&**other));
            let is_empty = !expected.keys().any(|other| below(&other));
            assert!(!missing.contains(&**path) && (lacks || is_empty), "{when}: {path} has all that was in it");
        } else {
            assert!(missing.contains(&**path), "{when}: {path} is there");
        }
    }
}

/// The list has all that can be known: what came back, and the names of files that did not.
fn lists(reader: &Reader<'_>, root: &Entry, expected: &Lines, found: &Lines, affected: &BTreeSet<String>, when: &str) {
    let (mut listed, mut unread) = (BTreeSet::from(["/".to_owned()]), BTreeSet::new());
    ls::run(reader, root, &TreePath::root(), ls::Depth::All, &mut |path, entry| {
        match entry {
            Ok(_) => drop(listed.insert(path.to_string())),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Damaged, "{when}: {error:?}");
                unread.insert(path.to_string());
            }
        }
        Ok(())
    })
    .unwrap();
    let (directories, files): (BTreeSet<_>, BTreeSet<_>) =
        affected.iter().cloned().partition(|path| is_directory(&expected[path]));
    assert_eq!(unread, directories, "{when}: what the list says cannot be read");
    assert_eq!(listed, found.keys().cloned().chain(files).collect(), "{when}: what is listed");
}

/// What is affected is dumped up to the damage and not beyond it; some others are dumped whole.
fn dumps(reader: &Reader<'_>, root: &Entry, expected: &Lines, affected: &BTreeSet<String>, when: &str) {
    let source = subject().scene.source();
    let sample = ["docs/0", "docs/7", "long/0", "long/zeros", "many/099", "deep/er/and/deeper/leaf"];
    let sample = sample.iter().map(|path| source.join(path).display().to_string());
    let files = affected.iter().filter(|path| !is_directory(&expected[*path]));
    for path in files.cloned().chain(sample) {
        let tree_path = TreePath::from_bytes(path.as_bytes()).unwrap();
        let Ok(entry) = find(reader, root, &tree_path) else {
            let above = std::iter::successors(Some(&*path), |path| parent(path));
            assert!(above.into_iter().any(|path| affected.contains(path)), "{when}: {path} is not found");
            continue;
        };
        let Detail::File { size, .. } = entry.detail else { continue };
        let mut bytes = Vec::new();
        let dumped = dump_file(reader, &entry, &mut bytes);
        assert_eq!(dumped.is_err(), affected.contains(&path), "{when}: {path}: {dumped:?}");
        match dumped {
            Ok(()) => {
                let hash = blake3::hash(&bytes).to_hex()[..16].to_owned();
                assert!(bytes.len() as u64 == size && expected[&path].contains(&hash), "{when}: wrong bytes of {path}");
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Damaged, "{when}: {error:?}");
                assert!((bytes.len() as u64) < size, "{when}: {path}");
            }
        }
    }
}
