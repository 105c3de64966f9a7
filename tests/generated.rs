//! Risk: some shape of tree, or some sequence of changes, is backed up wrongly.
//! Method: generated histories. A tree is changed at random and backed up, several times; then
//! every snapshot must restore to what the tree was then, attribute by attribute, and the check
//! must be clean.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::backup;
use esker::format::tree::Entry;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::repo::content::Reader;
use esker::repo::reader::find;
use esker::storage::memory::Memory;
use proptest::prelude::*;
use repo::{Scene, noise};

/// One change of the tree. What does not apply (removing what is not there) does nothing.
#[derive(Debug, Clone)]
enum Change {
    Write { path: String, content: Content },
    Remove { path: String },
    Symlink { path: String, target: String },
    HardLink { from: String, to: String },
    Rename { from: String, to: String },
    Mode { path: String, mode: u32 },
}

#[derive(Debug, Clone)]
enum Content {
    Noise {
        seed: u64,
        bytes: usize,
    },
    Text {
        seed: u64,
        bytes: usize,
    },
    Zeros {
        bytes: usize,
    },
    /// Noise, a hole, noise.
    Sparse {
        seed: u64,
        hole_bytes: u64,
    },
}

fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c.txt"), Just("é"), Just("x y"), Just("-")];
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn content() -> impl Strategy<Value = Content> {
    let size = prop_oneof![4 => 0..200_usize, 3 => 1_000..40_000_usize, 1 => 100_000..400_000_usize];
    prop_oneof![
        (0..4_u64, size.clone()).prop_map(|(seed, bytes)| Content::Noise { seed, bytes }),
        (0..4_u64, size.clone()).prop_map(|(seed, bytes)| Content::Text { seed, bytes }),
        size.prop_map(|bytes| Content::Zeros { bytes }),
        (0..4_u64, 1..300_000_u64).prop_map(|(seed, hole_bytes)| Content::Sparse { seed, hole_bytes }),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (path(), content()).prop_map(|(path, content)| Change::Write { path, content }),
        2 => path().prop_map(|path| Change::Remove { path }),
        1 => (path(), path()).prop_map(|(path, target)| Change::Symlink { path, target }),
        1 => (path(), path()).prop_map(|(from, to)| Change::HardLink { from, to }),
        2 => (path(), path()).prop_map(|(from, to)| Change::Rename { from, to }),
        1 => (path(), 0..0o1000_u32).prop_map(|(path, mode)| Change::Mode { path, mode: mode | 0o700 }),
    ]
}

fn apply(root: &Path, change: &Change) {
    // Half of what is generated does not fit the tree; that it fails is fine.
    let at = |path: &String| root.join(path);
    let make_parent = |path: &String| drop(fs::create_dir_all(at(path).parent().unwrap()));
    match change {
        Change::Write { path, content } => {
            make_parent(path);
            let _ = write(&at(path), content);
        }
        Change::Remove { path } => {
            let _ = fs::remove_file(at(path)).or_else(|_| fs::remove_dir_all(at(path)));
        }
        Change::Symlink { path, target } => {
            make_parent(path);
            let _ = symlink(target, at(path));
        }
        Change::HardLink { from, to } => {
            make_parent(to);
            let _ = fs::hard_link(at(from), at(to));
        }
        Change::Rename { from, to } => {
            make_parent(to);
            let _ = rustix::fs::rename(at(from), at(to));
        }
        Change::Mode { path, mode } => {
            if at(path).symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) {
                let _ = fs::set_permissions(at(path), fs::Permissions::from_mode(*mode));
            }
        }
    }
}

fn write(path: &Path, content: &Content) -> std::io::Result<()> {
    match content {
        Content::Noise { seed, bytes } => fs::write(path, noise(*seed, *bytes)),
        Content::Text { seed, bytes } => {
            let text: String = (0..).map(|n| format!("line {} of {seed}\n", n * seed)).take(bytes / 10 + 1).collect();
            fs::write(path, &text.as_bytes()[..(*bytes).min(text.len())])
        }
        Content::Zeros { bytes } => fs::write(path, vec![0; *bytes]),
        Content::Sparse { seed, hole_bytes } => {
            use std::os::unix::fs::FileExt;
            let file = fs::File::create(path)?;
            file.write_all_at(&noise(*seed, 5000), 0)?;
            file.write_all_at(&noise(*seed + 9, 5000), 5000 + hole_bytes)
        }
    }
}

/// A snapshot for which every file was read, whatever the change record says.
fn anew(scene: &Scene) -> backup::Report {
    let mut options = scene.options();
    options.variation.unrecorded = true;
    let report = backup::run(&scene.open(), &options, &Monitor::silent()).unwrap();
    assert_eq!(report.snapshot.summary.files_unmodified, 0);
    report
}

/// What a snapshot has for the source; somebody may write beside it, to `/tmp`.
fn source_in(scene: &Scene, report: &backup::Report) -> Entry {
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    find(&reader, &report.snapshot.root, &TreePath::from_os(&scene.source()).unwrap()).unwrap()
}

/// A directory of more rows than are held is rebuilt, one of fewer is taken as it was; both must be
/// what they would be anew, whatever changed in or below them.
#[test]
fn a_directory_is_the_same_whether_it_is_taken_as_it_was_or_rebuilt() {
    let scene = Scene::new(Arc::new(Memory::new())).with_tiny_packs();
    let file = |path: &str, bytes: &[u8]| {
        let path = scene.source().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for number in 0..4000_u64 {
        file(&format!("many/{number}"), &noise(number, 10));
        file(&format!("few/{}/deep/{number}", number % 100), b"same");
    }
    file("few/5/deep/large", &noise(9, 3 << 20));
    let same = |what: &str, unmodified: u64| {
        let report = scene.backup();
        assert_eq!((report.problems, report.snapshot.summary.files_unmodified), (0, unmodified), "{what}");
        assert_eq!(source_in(&scene, &report), source_in(&scene, &anew(&scene)), "{what}");
    };
    same("first", 0);
    same("unchanged", 8001);
    file("many/3999", b"changed");
    file("few/5/deep/105", b"changed");
    same("changed", 7999);
    fs::remove_file(scene.source().join("many/0")).unwrap();
    fs::remove_dir_all(scene.source().join("few/99")).unwrap();
    file("few/98/deep/new", b"new");
    same("removed and added", 7960);
    fs::set_permissions(scene.source().join("few/50"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(scene.source().join("few/51/deep/51"), fs::Permissions::from_mode(0o711)).unwrap();
    same("other modes", 7960);
    same("unchanged again", 7961);
    // What takes a file's place and is not stored must not leave the file.
    let place = scene.source().join("few/60/deep/60");
    fs::remove_file(&place).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&place).unwrap();
    same("a socket instead of a file", 7960);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_snapshot_of_a_history_restores(history in prop::collection::vec(prop::collection::vec(change(), 1..25), 1..4)) {
        let scene = Scene::new(Arc::new(Memory::new())).with_tiny_packs();
        let mut made = Vec::new();
        for changes in &history {
            for change in changes {
                apply(&scene.source(), change);
            }
            let report = scene.backup();
            prop_assert_eq!(report.problems, 0);
            // What was taken from the change record is what reading everything again makes.
            prop_assert_eq!(source_in(&scene, &report), source_in(&scene, &anew(&scene)));
            made.push((report.id.to_string(), tree::lines(&scene.source())));
        }
        for (id, lines) in &made {
            prop_assert_eq!(&tree::lines(&scene.restore(id)), lines);
        }
        let report = scene.check();
        prop_assert!(report.faults.is_empty(), "{:?}", report);
    }
}
