//! A few kilobytes that say they are more than any disk, memory or patience holds.
//!
//! What a test here is afraid of is that it never ends; each claims so much that no machine could
//! get through it.

use std::fs;
use std::time::{Duration, Instant};

use esker::check::ReadData;
use esker::chunk::compress::{Compressor, Level, Outcome};
use esker::crypto::ident::ChunkKind;
use esker::format::cbor;
use esker::format::pack::FrameKind;
use esker::format::tree::{Content, Detail, DirectoryNode, Entry, Hole, ListLink, ListNode, Piece, Totals};
use esker::id::SessionId;
use esker::monitor::Monitor;
use esker::path::{Name, TreePath};
use esker::repo::content::Reader;
use esker::repo::reader::ReadRepo;
use esker::stats;
use esker::storage::Storage;

use super::forge::{Forger, entry};
use super::memory;
use super::scene::{Scene, names};

/// Two names in each directory, both of the same directory below: 2^60 directories in 60 nodes.
fn directories_without_end(forger: &mut Forger<'_>, claimed: impl Fn(Totals) -> Totals) -> Entry {
    let file = forger.file("file", b"at the bottom");
    let mut below = forger.directory("a", vec![file]);
    for _ in 0..60 {
        let mut twice = vec![below.clone(), below];
        let mut totals = Totals::default();
        for (entry, name) in twice.iter_mut().zip(["a", "b"]) {
            entry.name = Some(Name::new(name.as_bytes()).unwrap());
            totals.add(entry.totals());
        }
        let node = cbor::encode(&DirectoryNode::Entries(twice));
        below = forger.directory_of_node("a", &node, claimed(totals));
    }
    below
}

/// A list in which each node names the one below it so often that all of it is 2^60 bytes long.
fn list_without_end(forger: &mut Forger<'_>, name: &str) -> Entry {
    let id = forger.chunk(ChunkKind::Data, b"sixteen bytes ..");
    let pieces = ListNode::Pieces(vec![Piece::Chunk { id, bytes: 16 }; 1 << 8]);
    let mut link = ListLink { id: forger.chunk(ChunkKind::List, &cbor::encode(&pieces)), bytes: 1 << 12 };
    for level in 1..=6 {
        let node = ListNode::Links { level, links: vec![link; 1 << 8] };
        link = ListLink { id: forger.chunk(ChunkKind::List, &cbor::encode(&node)), bytes: link.bytes << 8 };
    }
    assert_eq!(link.bytes, 1 << 60);
    entry(name, Detail::File { size: link.bytes, content: Content::List { id: link.id, level: 6 }, holes: vec![] })
}

/// The time an attack may take, which is a thousand times less than it asks for and much more than is needed.
fn within_a_minute<T>(work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    result
}

/// What everybody does with a snapshot but restore it.
fn is_read_to_its_end(scene: &Scene, snapshot: SessionId) {
    within_a_minute(|| {
        for read_data in [ReadData::All, ReadData::No] {
            let faults = scene.check_with(read_data).faults;
            assert!(faults.iter().all(|fault| fault.affected.len() <= 100), "{faults:?}");
        }
        let owner = scene.owner();
        let reader = Reader::new(&owner).unwrap();
        let root = owner.load_snapshot(&snapshot).unwrap().snapshot.root;
        stats::selection(&reader, &[root], &[], &Monitor::silent()).unwrap();
        let options = esker::check::Options { read_data: ReadData::All, snapshot: Some(snapshot), threads: 2 };
        esker::check::run(&reader, &options, &Monitor::silent()).unwrap();
    });
}

/// All of it is true, and no file system has room for it.
#[test]
fn directories_that_share_all_below_them_end() {
    let scene = Scene::new();
    let writer = scene.writer();
    let mut forger = Forger::new(&writer);
    let directories = directories_without_end(&mut forger, |totals| totals);
    let snapshot = forger.snapshot(vec![directories]);
    is_read_to_its_end(&scene, snapshot);
    assert!(scene.check().faults.is_empty());
    let error = within_a_minute(|| scene.try_restore(snapshot).err().unwrap());
    assert!(error.to_string().contains("directories in the snapshot"), "{error}");
    assert_eq!(names(&scene.target()), [""; 0]);
}

/// They say that they are few. Nothing makes more of them than they say.
#[test]
fn directories_that_say_they_are_few_are_no_more_than_that() {
    let scene = Scene::new();
    let writer = scene.writer();
    let mut forger = Forger::new(&writer);
    let few = Totals { files: 10, directories: 20, bytes: 0 };
    let directories = directories_without_end(&mut forger, |_| few);
    let snapshot = forger.snapshot(vec![directories]);
    is_read_to_its_end(&scene, snapshot);
    let faults = scene.check().faults;
    assert!(faults.iter().any(|fault| fault.message.contains("than the snapshot says")), "{faults:?}");
    let restored = within_a_minute(|| scene.restore(snapshot));
    assert!(restored.problems.iter().any(|problem| problem.message.contains("than the snapshot says")));
    assert!(restored.report.directories <= 32, "{:?}", restored.report);
    // Whatever lists or dumps it.
    let owner = scene.owner();
    let reader = Reader::new(&owner).unwrap();
    let root = owner.load_snapshot(&snapshot).unwrap().snapshot.root;
    let mut entries = esker::repo::walk::Walk::below(&reader, TreePath::root(), &root);
    assert!(entries.by_ref().take(1000).last().unwrap().is_err());
    assert!(entries.next().is_none());
}

/// Progress, the room a restore asks for and the end of every walk rest on what directories say of themselves.
#[test]
fn a_directory_that_says_it_has_more_than_it_has_is_a_fault() {
    let scene = Scene::new();
    let writer = scene.writer();
    let mut forger = Forger::new(&writer);
    let file = forger.file("file", b"seven b");
    let node = cbor::encode(&DirectoryNode::Entries(vec![file]));
    let wrong = forger.directory_of_node("wrong", &node, Totals { files: 1, directories: 1 << 40, bytes: 7 });
    forger.snapshot(vec![wrong]);
    let faults = scene.check_with(ReadData::No).faults;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].object, "directory `/wrong`");
    assert_eq!(
        faults[0].message,
        "it says that it has 1 files, 1099511627776 directories and 7 bytes below it, and has 1 files, 0 directories \
         and 7 bytes"
    );
}

/// At the very bottom something is missing, so that none of it is whole.
#[test]
fn damage_below_directories_without_end_is_named_and_the_check_ends() {
    let scene = Scene::new();
    let writer = scene.writer();
    for (what, bytes) in [("missing", None), ("no node", Some(&b"no node"[..]))] {
        let mut forger = Forger::new(&writer);
        let id = writer.keys.ids.chunk(ChunkKind::Directory, bytes.unwrap_or(b"nowhere"));
        bytes.into_iter().for_each(|bytes| forger.chunk_as(ChunkKind::Directory, id, bytes));
        let lost = entry("lost", Detail::Directory { id, level: 0, totals: Totals::default(), incomplete: false });
        let mut below = forger.directory("a", vec![lost]);
        for _ in 0..60 {
            let mut twice = vec![below.clone(), below];
            twice[1].name = Some(Name::new(*b"b").unwrap());
            below = forger.directory("a", twice);
        }
        let snapshot = forger.snapshot(vec![below]);
        is_read_to_its_end(&scene, snapshot);
        let faults = scene.check_with(ReadData::No).faults;
        let worst = faults.iter().max_by_key(|fault| fault.affected_total).unwrap();
        assert_eq!((worst.affected.len(), worst.affected_total), (100, 1 << 60), "{what}: {worst:?}");
        assert!(faults.len() < 5, "{what}: {}", faults.len());
        scene.memory.delete(&format!("snapshots/{snapshot}")).unwrap();
    }
}

#[test]
fn a_list_that_repeats_itself_without_end_is_read_once_and_not_restored() {
    let scene = Scene::new();
    let writer = scene.writer();
    let mut forger = Forger::new(&writer);
    let huge = list_without_end(&mut forger, "huge");
    // The same list, said to be of another length.
    let mut longer = huge.clone();
    longer.name = Some(Name::new(*b"longer").unwrap());
    if let Detail::File { size, .. } = &mut longer.detail {
        *size += 1;
    }
    let honest = forger.file("z", b"honest");
    let snapshot = forger.snapshot(vec![huge, longer, honest]);
    is_read_to_its_end(&scene, snapshot);
    let faults = scene.check().faults;
    let lengths: Vec<_> = faults.iter().map(|fault| (&fault.object[..], &fault.message[..])).collect();
    let size = (1_u64 << 60) + 1;
    assert_eq!(lengths, [("file `/longer`", &format!("pieces of {} bytes, size {size}", size - 1)[..])]);
    let restored = within_a_minute(|| scene.restore(snapshot));
    for name in ["/huge", "/longer"] {
        assert!(restored.says(name, "more than the target's file system can hold"), "{:?}", restored.problems);
    }
    assert_eq!(names(&scene.target()), ["z"]);
}

/// A list with a missing chunk: each file that has it is said to be affected, and each node read once.
#[test]
fn damage_in_a_list_without_end_is_named_and_the_check_ends() {
    let scene = Scene::new();
    let writer = scene.writer();
    let mut forger = Forger::new(&writer);
    let missing = writer.keys.ids.chunk(ChunkKind::Data, b"nowhere");
    let pieces = ListNode::Pieces(vec![Piece::Chunk { id: missing, bytes: 7 }]);
    let mut link = ListLink { id: forger.chunk(ChunkKind::List, &cbor::encode(&pieces)), bytes: 7 };
    for level in 1..=7 {
        let node = ListNode::Links { level, links: vec![link; 1 << 8] };
        link = ListLink { id: forger.chunk(ChunkKind::List, &cbor::encode(&node)), bytes: link.bytes << 8 };
    }
    let content = Content::List { id: link.id, level: 7 };
    let files = (0..3)
        .map(|n| entry(&format!("f{n}"), Detail::File { size: link.bytes, content: content.clone(), holes: vec![] }));
    let files = files.collect();
    let snapshot = forger.snapshot(files);
    is_read_to_its_end(&scene, snapshot);
    let faults = scene.check_with(ReadData::No).faults;
    assert_eq!(faults.iter().map(|fault| fault.affected_total).collect::<Vec<_>>(), [3], "{faults:?}");
}

/// 2^63 bytes of zeros in twenty bytes of snapshot: written, they would fill any disk; as one hole they are more
/// than a file can be. As much as a file can be, in a hole, is a file of a moment.
#[test]
fn zeros_without_end_neither_fill_the_disk_nor_keep_anybody() {
    let scene = Scene::new();
    let writer = scene.writer();
    let mut forger = Forger::new(&writer);
    let zeros = |name: &str, bytes: u64, hole: bool| {
        let holes = if hole { vec![Hole { offset: 0, bytes }] } else { vec![] };
        entry(name, Detail::File { size: bytes, content: Content::Inline(vec![Piece::Zeros { bytes }]), holes })
    };
    let honest = forger.file("z", b"honest");
    let snapshot = forger.snapshot(vec![
        zeros("all-zeros", 1 << 63, false),
        zeros("hole", 1 << 40, true),
        zeros("hole-beyond", 1 << 63, true),
        zeros("most", u64::MAX, false),
        honest,
    ]);
    is_read_to_its_end(&scene, snapshot);
    let restored = within_a_minute(|| scene.restore(snapshot));
    assert!(restored.says("/all-zeros", "more than the target's file system can hold"), "{:?}", restored.problems);
    assert!(restored.says("/most", "more than the target's file system can hold"), "{:?}", restored.problems);
    assert!(restored.says("/hole-beyond", "not restored"), "{:?}", restored.problems);
    assert_eq!(names(&scene.target()), ["hole", "z"]);
    let hole = fs::metadata(scene.target().join("hole")).unwrap();
    assert_eq!((hole.len(), std::os::unix::fs::MetadataExt::blocks(&hole)), (1 << 40, 0));
}

/// What a frame says it will be is authenticated, and what it becomes must be that: neither a claim of more than a
/// frame may be nor a text that grows beyond its claim takes memory.
#[test]
fn a_frame_that_grows_beyond_its_claim_is_refused() {
    let scene = Scene::new();
    let writer = scene.writer();
    // A megabyte of zeros in a few bytes, said to be five hundred.
    let (zeros, mut text) = (vec![0; 1 << 20], Vec::new());
    assert_eq!(Compressor::new(Level::default()).compress(&zeros, &mut text), Outcome::Compressed);
    let mut forger = Forger::new(&writer);
    let id = writer.keys.ids.chunk(ChunkKind::Data, &zeros);
    forger.frame(FrameKind::Data, 1, 500, &[(id, 500)], &text);
    let pieces = vec![Piece::Chunk { id, bytes: 500 }];
    let bomb = entry("bomb", Detail::File { size: 500, content: Content::Inline(pieces), holes: vec![] });
    let honest = forger.file("honest", b"honest");
    let snapshot = forger.snapshot(vec![bomb, honest]);
    let owner = scene.owner();
    let reader = Reader::new(&owner).unwrap();
    let at = reader.locate(&id).unwrap().frame;
    let peak = memory::peak_of(|| drop(reader.frame(&at).unwrap_err()));
    assert!(peak < 64 << 10, "{peak} bytes for a frame of 500");
    let restored = scene.restore(snapshot);
    assert!(restored.says("/bomb", "not restored"), "{:?}", restored.problems);
    assert_eq!(names(&scene.target()), ["honest"]);
}
