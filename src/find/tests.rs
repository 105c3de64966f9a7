//! Searching trees of a repository in memory, the nodes read counted.

use std::cell::RefCell;
use std::sync::Mutex;

use super::*;
use crate::error::{Error, Kind};
use crate::find::history::{Change, Version};
use crate::format::session::{CommitKind, Snapshot, Summary};
use crate::id::{CredentialId, EpochId, ObjectId, SessionId};
use crate::repo::commits::CommitHeader;
use crate::repo::reader::ReadNodes;
use crate::repo::snapshots::SnapshotInfo;
use crate::repo::testing::{FakeRepo, entry, plain};
use crate::source::exclude::Case;

/// A repository that counts the nodes it is asked for.
struct Counting<'a> {
    repo: &'a FakeRepo,
    nodes: Mutex<Vec<ChunkId>>,
}

impl<'a> Counting<'a> {
    fn new(repo: &'a FakeRepo) -> Self {
        Self { repo, nodes: Mutex::default() }
    }

    fn taken(&self) -> usize {
        std::mem::take(&mut *self.nodes.lock().unwrap()).len()
    }
}

impl ReadNodes for Counting<'_> {
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.nodes.lock().unwrap().push(*id);
        self.repo.node(id)
    }
    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.repo.list_node(id)
    }
}

fn path(text: &str) -> TreePath {
    TreePath::from_bytes(text.as_bytes()).unwrap()
}

fn wanted(patterns: &[&str]) -> Wanted {
    let mut wanted = Wanted::default();
    patterns.iter().for_each(|pattern| wanted.patterns.add(pattern.as_bytes(), Case::Sensitive).unwrap());
    wanted
}

fn found<R: ReadNodes>(finder: &mut Finder<'_, R>, root: &Entry) -> Vec<String> {
    let found = RefCell::new(Vec::new());
    let mut each = |path: &TreePath, entry: Result<Entry>| {
        found.borrow_mut().push(match entry {
            Ok(_) => path.to_string(),
            Err(error) => error.to_string(),
        });
        Ok(())
    };
    finder.search(root, &mut each).unwrap();
    found.into_inner()
}

/// `/a/x`, `/b/a/x`, `/b/y/x/z`, all directories of them small.
fn scene(repo: &mut FakeRepo) -> Entry {
    let (x, z) = (repo.file("x", b"1"), repo.file("z", b"2"));
    let a = repo.directory(b"a", plain(0o755), vec![x.clone()]);
    let x_directory = repo.directory(b"x", plain(0o755), vec![z]);
    let y = repo.directory(b"y", plain(0o755), vec![x_directory]);
    let b = repo.directory(b"b", plain(0o755), vec![a.clone(), y]);
    repo.root(vec![a, b])
}

#[test]
fn a_pattern_matches_names_and_paths_but_not_what_lies_below() {
    let mut repo = FakeRepo::new();
    let root = scene(&mut repo);
    for (patterns, expected) in [
        (&["x"][..], &["/a/x", "/b/a/x", "/b/y/x"][..]),
        (&["/a/x"], &["/a/x"]),
        (&["a/x"], &["/a/x", "/b/a/x"]),
        (&["/b/**/x"], &["/b/a/x", "/b/y/x"]),
        (&["/b/**"], &["/b", "/b/a", "/b/a/x", "/b/y", "/b/y/x", "/b/y/x/z"]),
        (&["[xz]", "!/b/y/x"], &["/a/x", "/b/a/x", "/b/y/x/z"]),
        (&["a", "z"], &["/a", "/b/a", "/b/y/x/z"]),
        (&["q"], &[]),
    ] {
        // Whether something is remembered of an earlier search makes no difference.
        let mut finder = Finder::new(&repo, wanted(patterns));
        for _ in 0..3 {
            assert_eq!(found(&mut finder, &root), expected, "{patterns:?}");
        }
    }
}

#[test]
fn times_are_bounds_of_what_is_found() {
    let mut repo = FakeRepo::new();
    let aged = |name: &[u8], secs| {
        let attributes = crate::format::tree::Attributes { mtime: Time { secs, nanos: 0 }, ..plain(0o600) };
        entry(name, attributes, Detail::Fifo)
    };
    let root = repo.root(vec![aged(b"a", 10), aged(b"b", 20), aged(b"c", 30)]);
    let bounds = |oldest: Option<i64>, newest: Option<i64>| {
        let time = |secs| Time { secs, nanos: 0 };
        let wanted = Wanted { oldest: oldest.map(time), newest: newest.map(time), ..wanted(&["*"]) };
        found(&mut Finder::new(&repo, wanted), &root)
    };
    assert_eq!(bounds(Some(20), None), ["/b", "/c"]);
    assert_eq!(bounds(None, Some(20)), ["/a", "/b"]);
    assert_eq!(bounds(Some(11), Some(19)), Vec::<String>::new());
}

#[test]
fn what_snapshots_share_and_has_nothing_is_read_once() {
    let mut repo = FakeRepo::new();
    let mut shared = repo.file("leaf", b"1");
    for _ in 0..30 {
        shared = repo.directory(b"d", plain(0o755), vec![shared]);
    }
    let roots: Vec<Entry> = (0..20)
        .map(|n| {
            let other = repo.file(&format!("other-{n}"), b"2");
            let hit = repo.file("hit", &[n]);
            let with = repo.directory(b"with", plain(0o755), vec![hit]);
            repo.root(vec![shared.clone(), other, with])
        })
        .collect();
    let counting = Counting::new(&repo);
    for (pattern, hit) in [("hit", "/with/hit"), ("/with/hit", "/with/hit"), ("with/*", "/with/hit")] {
        let mut finder = Finder::new(&counting, wanted(&[pattern]));
        assert_eq!(found(&mut finder, &roots[0]), [hit]);
        // Its root, what is with it, and once what they share, unless the pattern leads elsewhere.
        assert_eq!(counting.taken(), if pattern.starts_with('/') { 2 } else { 32 }, "{pattern}");
        for root in &roots[1..] {
            assert_eq!(found(&mut finder, root), [hit]);
            assert_eq!(counting.taken(), 2, "{pattern}");
        }
    }
    let mut finder = Finder::new(&counting, wanted(&["nothing"]));
    assert_eq!(found(&mut finder, &roots[0]).len(), 0);
    counting.taken();
    assert_eq!(found(&mut finder, &roots[0]).len(), 0);
    assert_eq!(counting.taken(), 0);
}

/// The same directory at two places: a pattern for one of them does not find it at the other, nor is it
/// taken there for one without anything.
#[test]
fn a_directory_without_a_match_at_one_place_has_one_at_another() {
    let mut repo = FakeRepo::new();
    let root = scene(&mut repo);
    let mut finder = Finder::new(&repo, wanted(&["/b/a/x"]));
    assert_eq!(found(&mut finder, &root), ["/b/a/x"]);
    let mut finder = Finder::new(&repo, wanted(&["b/a/x"]));
    assert_eq!(found(&mut finder, &root), ["/b/a/x"]);
}

#[test]
fn what_cannot_be_read_is_told_of_each_snapshot() {
    let mut repo = FakeRepo::new();
    let root = scene(&mut repo);
    let y = crate::repo::reader::find(&repo, &root, &path("/b/y")).unwrap();
    let Detail::Directory { id, .. } = y.detail else { unreachable!() };
    repo.lost.insert(id);
    let mut finder = Finder::new(&repo, wanted(&["x"]));
    for _ in 0..2 {
        let expected = ["/a/x", "/b/a/x", "cannot read all of the directory `/b/y`"];
        assert_eq!(found(&mut finder, &root), expected);
    }
}

fn snapshot(number: u8, roots: &[&str], root: Entry) -> SnapshotInfo {
    let time = Time { secs: i64::from(number), nanos: 0 };
    let session = SessionId::from_bytes([number; 16]);
    let header = CommitHeader {
        replaces: vec![],
        session,
        epoch: EpochId::from_bytes([0; 16]),
        credential: CredentialId::from_bytes([0; 32]),
        hash: ObjectId::from_bytes([number; 32]),
        kind: CommitKind::Snapshot,
        time_secs: time.secs,
        sequence: u64::from(number),
        previous: Vec::new(),
        segments: Vec::new(),
        has_inline_segment: false,
        supersedes: Vec::new(),
        stored_bytes: 0,
    };
    let snapshot = Snapshot {
        time,
        hostname: String::new(),
        username: String::new(),
        uid: 0,
        gid: 0,
        paths: roots.iter().map(|root| root.as_bytes().to_vec()).collect(),
        tags: Vec::new(),
        parent: None,
        root,
        summary: Summary::default(),
        program: String::new(),
        original: None,
        extra: Default::default(),
    };
    SnapshotInfo { header, snapshot: Box::new(snapshot) }
}

fn versions<R: ReadNodes>(
    repo: &R,
    snapshots: &[SnapshotInfo],
    of: &str,
) -> (Vec<(Change, usize, usize, usize)>, usize) {
    let (mut versions, mut unread) = (Vec::new(), 0);
    let snapshots: Vec<_> = snapshots.iter().collect();
    let mut each = |Version { change, first, last, snapshots, .. }| {
        versions.push((change, first, last, snapshots));
        Ok(())
    };
    history::run(repo, &snapshots, &path(of), &mut each, &mut |_, error: Error| {
        assert_eq!(error.kind(), Kind::Damaged);
        unread += 1;
        Ok(())
    })
    .unwrap();
    (versions, unread)
}

#[test]
fn a_file_has_versions_and_gaps() {
    use Change::{Back, Content, Deleted, Metadata, New, Type};
    let mut repo = FakeRepo::new();
    let with = |repo: &mut FakeRepo, file: Option<Entry>| {
        let mut entries = vec![repo.file("beside", b"beside")];
        entries.extend(file);
        let d = repo.directory(b"d", plain(0o755), entries);
        repo.root(vec![d])
    };
    let one = repo.file("f", b"one");
    let two = repo.file("f", b"two");
    let mut private = two.clone();
    private.attributes.mode = 0o600;
    let link = entry(b"f", plain(0o777), Detail::Symlink { target: b"x".to_vec() });
    let elsewhere = repo.root(vec![]);
    let mut incomplete = with(&mut repo, None);
    let d = crate::repo::reader::find(&repo, &incomplete, &path("/d")).unwrap();
    let mut d_incomplete = d;
    if let Detail::Directory { incomplete, .. } = &mut d_incomplete.detail {
        *incomplete = true;
    }
    incomplete = repo.root(vec![d_incomplete]);
    let list = [
        (&["/d"][..], with(&mut repo, None)),
        (&["/d"], with(&mut repo, Some(one.clone()))),
        (&["/d/f"], with(&mut repo, Some(one.clone()))),
        // Says nothing of the file.
        (&["/etc"], elsewhere.clone()),
        (&["/d"], incomplete),
        (&["/"], with(&mut repo, Some(one))),
        (&["/d"], with(&mut repo, Some(two.clone()))),
        (&["/d"], with(&mut repo, Some(private))),
        (&["/d"], with(&mut repo, Some(link))),
        (&["/d"], with(&mut repo, None)),
        (&["/d"], elsewhere),
        (&["/d"], with(&mut repo, Some(two))),
    ];
    let mut snapshots: Vec<_> = (0..).zip(list).map(|(number, (roots, root))| snapshot(number, roots, root)).collect();
    let expected = [
        (New, 1, 5, 3),
        (Content, 6, 6, 1),
        (Metadata, 7, 7, 1),
        (Type, 8, 8, 1),
        (Deleted, 9, 10, 2),
        (Back, 11, 11, 1),
    ];
    assert_eq!(versions(&repo, &snapshots, "/d/f"), (expected.to_vec(), 0));
    assert_eq!(versions(&repo, &snapshots, "/d/f/below"), (vec![], 0));
    // What a restore was about to replace has what it has; what it lacks was not deleted.
    snapshots[9].snapshot.tags = vec!["before-restore".into()];
    snapshots[10].snapshot.tags = vec!["before-restore".into()];
    let (found, _) = versions(&repo, &snapshots, "/d/f");
    assert_eq!(found[4..], [(Type, 11, 11, 1)]);
}

#[test]
fn a_history_reads_the_way_once_for_each_change_on_it_and_passes_over_what_is_damaged() {
    let mut repo = FakeRepo::new();
    let f = repo.file("f", b"f");
    let deep = repo.directory(b"deep", plain(0o755), vec![f]);
    let snapshots: Vec<_> = (0..10)
        .map(|number| {
            let other = repo.file("other", &[number / 5]);
            let d = repo.directory(b"d", plain(0o755), vec![deep.clone(), other]);
            let root = repo.root(vec![d]);
            snapshot(number, &["/"], root)
        })
        .collect();
    let counting = Counting::new(&repo);
    assert_eq!(versions(&counting, &snapshots, "/d/deep/f"), (vec![(Change::New, 0, 9, 10)], 0));
    // Root, `d` and `deep`, then the other root and `d`.
    assert_eq!(counting.taken(), 5);
    let d = crate::repo::reader::find(&repo, &snapshots[7].snapshot.root, &path("/d")).unwrap();
    let Detail::Directory { id, .. } = d.detail else { unreachable!() };
    repo.lost.insert(id);
    assert_eq!(versions(&repo, &snapshots, "/d/deep/f"), (vec![(Change::New, 0, 4, 5)], 5));
}
