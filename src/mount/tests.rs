//! The parts of a mount without a kernel: windows onto directories, bytes from any offset, names and numbers.

use std::collections::BTreeSet;
use std::sync::Arc;

use fuser::FileType;

use super::bytes::Chunks;
use super::served::Served;
use super::windows::{Directory, Windows};
use super::*;
use crate::format::cbor::Extra;
use crate::format::session::{CommitKind, Snapshot, Summary};
use crate::format::tree::{Totals, Xattr};
use crate::id::{ChunkId, SessionId};
use crate::path::Name;
use crate::repo::Repository;
use crate::repo::reader::ReadNodes;
use crate::repo::session::Session;
use crate::repo::testing::{FakeRepo, entry, plain};
use crate::repo::tests::repository;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn directory_of(entry: &Entry) -> Directory {
    let Detail::Directory { id, level, .. } = entry.detail else { unreachable!() };
    Directory { id, level }
}

fn large_directory(repo: &mut FakeRepo, count: usize) -> Directory {
    let files = (0..count).map(|n| entry(format!("f{n:05}").as_bytes(), plain(0o600), Detail::Fifo)).collect();
    let directory = repo.directory(b"d", plain(0o755), files);
    directory_of(&directory)
}

#[test]
fn windows_find_every_name_and_no_other_in_any_order() {
    let mut repo = FakeRepo::new();
    let directory = large_directory(&mut repo, 2000);
    let other = large_directory(&mut repo, 3);
    let windows = Windows::default();
    let finds = |of, text: &str| windows.entry(&repo, of, &name(text)).unwrap().is_some();
    let order = (0..2000).chain((0..2000).rev()).chain((0..2000).map(|n| n * 769 % 2000));
    for n in order {
        assert!(finds(directory, &format!("f{n:05}")));
        assert!(!finds(directory, &format!("f{n:05}-")), "{n}");
        assert_eq!(finds(other, &format!("f{n:05}")), n < 3);
    }
    assert!(!finds(directory, "a") && !finds(directory, "z"));
}

#[test]
fn windows_follow_one_another_to_the_end() {
    let mut repo = FakeRepo::new();
    for count in [0, 1, 255, 256, 257, 1000] {
        let directory = large_directory(&mut repo, count);
        let windows = Windows::default();
        // A look-up in the middle leaves a window that the list may come upon.
        let _ = windows.entry(&repo, directory, &name("f00400")).unwrap();
        let (mut last, mut seen) = (None, Vec::new());
        loop {
            let window = windows.following(&repo, directory, last.as_ref()).unwrap();
            let behind = window.behind(last.as_ref());
            if behind.is_empty() {
                break;
            }
            seen.extend(behind.iter().map(|entry| entry.name.clone().unwrap()));
            last = seen.last().cloned();
        }
        assert_eq!(seen, (0..count).map(|n| name(&format!("f{n:05}"))).collect::<Vec<_>>());
    }
}

#[test]
fn bytes_come_from_any_offset_and_one_chunk_is_read_for_all_of_its_parts() {
    let mut repo = FakeRepo::new();
    let mut bytes: Vec<u8> = (0..60_000_u32).flat_map(u32::to_le_bytes).collect();
    bytes.splice(100_000..100_000, vec![0; 150_000]);
    let file = repo.file("f", &bytes);
    let Detail::File { size, content, .. } = &file.detail else { unreachable!() };
    let chunks = Chunks::default();
    let read = |offset: usize, wanted: usize| chunks.read(&repo, content, *size, offset as u64, wanted).unwrap();
    for (offset, wanted) in
        [(0, 10), (0, 500_000), (9_999, 2), (99_990, 20), (120_000, 200_000), (389_999, 5), (390_000, 5), (1 << 40, 5)]
    {
        let from = offset.min(bytes.len());
        assert!(read(offset, wanted) == bytes[from..bytes.len().min(from + wanted)], "{wanted} from {offset}");
    }
    let longer = chunks.read(&repo, content, size + 1, *size - 1, 2);
    assert_eq!(longer.unwrap_err().kind(), Kind::Damaged);
}

fn snapshot(repo: &Repository, host: &str, tags: &[&str], secs: i64) -> SessionId {
    let id = ChunkId::from_bytes([1; 32]);
    let detail = Detail::Directory { id, level: 0, totals: Totals::default(), incomplete: false };
    let snapshot = Snapshot {
        time: Time { secs, nanos: 0 },
        hostname: host.into(),
        username: String::new(),
        uid: 0,
        gid: 0,
        paths: vec![b"/".to_vec()],
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        parent: None,
        root: entry(b"", plain(0o755), detail),
        summary: Summary::default(),
        program: String::new(),
        original: None,
        extra: Extra::default(),
    };
    let session = Session::begin(repo).unwrap();
    session.commit(CommitKind::Snapshot, Vec::new(), Some(&snapshot), Vec::new()).unwrap();
    session.id()
}

fn served(repo: &Repository, refresh: Duration) -> Served<'_> {
    let named: Named = Arc::new(|time| time.secs.to_string());
    let options = Options { allow_other: false, owner_root: false, threads: 1, named, refresh };
    let reader = Reader::new(repo).unwrap();
    Served::new(reader, Top::Snapshots(Filter::default()), options, Monitor::silent()).unwrap()
}

/// The names at a path.
fn listed(served: &Served<'_>, path: &[&str]) -> Vec<String> {
    let mut ino = 1;
    for name in path {
        ino = served.lookup(ino, name.as_bytes()).unwrap().0.ino.0;
    }
    let handle = served.open_directory(ino).unwrap();
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let before = offset;
        // Room for two at a time.
        let mut room = 2;
        served
            .list(ino, handle, offset, &mut |_, next, kind, name| {
                if room == 0 {
                    return true;
                }
                room -= 1;
                offset = next;
                let mark = if kind == FileType::Symlink { "@" } else { "" };
                names.push(format!("{}{mark}", String::from_utf8_lossy(name)));
                false
            })
            .unwrap();
        if offset == before {
            break;
        }
    }
    served.close_directory(handle);
    names.split_off(2)
}

#[test]
fn snapshots_have_names_by_time_host_tag_and_id() {
    let (_, repo) = repository();
    let ids = [
        snapshot(&repo, "one", &["a"], 10),
        snapshot(&repo, "one", &["a", "b/c"], 20),
        snapshot(&repo, "..", &["before-restore"], 30),
    ];
    let served = served(&repo, Duration::MAX);
    let dated = |n: usize| format!("{}_{}", (n + 1) * 10, ids[n].short());
    let latest = "latest@".to_owned();
    assert_eq!(listed(&served, &[]), ["hosts", "ids", "snapshots", "tags"]);
    assert_eq!(listed(&served, &["snapshots"]), [dated(0), dated(1), dated(2), latest.clone()]);
    assert_eq!(listed(&served, &["hosts"]), ["_", "one"]);
    assert_eq!(listed(&served, &["hosts", "one"]), [dated(0), dated(1), latest.clone()]);
    assert_eq!(listed(&served, &["tags"]), ["a", "b_c", "before-restore"]);
    assert_eq!(listed(&served, &["tags", "b_c"]), [dated(1), latest]);
    assert_eq!(listed(&served, &["ids"]).into_iter().collect::<BTreeSet<_>>(), ids.map(|id| id.short()).into());
    // What a restore was about to lose is not the latest, but where there is nothing else.
    let target = |path: &[&str]| {
        let mut ino = 1;
        for name in path {
            ino = served.lookup(ino, name.as_bytes()).unwrap().0.ino.0;
        }
        String::from_utf8(served.link_target(ino).unwrap()).unwrap()
    };
    assert_eq!(target(&["snapshots", "latest"]), dated(1));
    assert_eq!(target(&["tags", "before-restore", "latest"]), dated(2));
    assert!(served.lookup(1, b"nothing").is_err());
}

#[test]
fn new_snapshots_appear_once_the_list_is_old() {
    let (_, repo) = repository();
    snapshot(&repo, "one", &[], 10);
    let (old, fresh) = (served(&repo, Duration::MAX), served(&repo, Duration::ZERO));
    snapshot(&repo, "two", &[], 20);
    assert_eq!(listed(&old, &["hosts"]), ["one"]);
    assert_eq!(listed(&fresh, &["hosts"]), ["one", "two"]);
}

#[test]
fn what_the_kernel_forgets_is_forgotten() {
    let (_, repo) = repository();
    let id = snapshot(&repo, "one", &[], 10);
    let served = served(&repo, Duration::MAX);
    let before = served.remembered();
    let ids = served.lookup(1, b"ids").unwrap().0.ino.0;
    let of_snapshot = served.lookup(ids, id.short().as_bytes()).unwrap().0.ino.0;
    assert_eq!(served.lookup(ids, id.short().as_bytes()).unwrap().0.ino.0, of_snapshot);
    assert_eq!(served.remembered(), before + 2);
    served.forget(of_snapshot, 1);
    assert!(served.attributes(of_snapshot).is_ok());
    served.forget(of_snapshot, 1);
    assert!(served.attributes(of_snapshot).is_err());
    served.forget(ids, 1);
    served.forget(1, 100);
    assert_eq!(served.remembered(), before);
    assert!(served.attributes(1).is_ok());
}

/// A writer may give entries attributes of megabytes each.
#[test]
fn a_window_onto_entries_with_large_attributes_is_short() {
    let mut repo = FakeRepo::new();
    let files = (0..100).map(|n| {
        let xattrs = vec![Xattr { name: b"user.x".to_vec(), value: vec![7; 100_000] }];
        entry(format!("{n:03}").as_bytes(), crate::format::tree::Attributes { xattrs, ..plain(0o600) }, Detail::Fifo)
    });
    let files = files.collect();
    let directory = directory_of(&repo.directory(b"d", plain(0o755), files));
    assert!(repo.node(&directory.id).is_ok());
    let window = Windows::default().following(&repo, directory, None).unwrap();
    assert_eq!(window.entries.len(), 3);
}
