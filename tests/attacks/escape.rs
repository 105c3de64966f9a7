//! A snapshot, or somebody beside the restore, that leads it out of its target.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use esker::format::cbor;
use esker::format::tree::{DirectoryNode, Totals};
use esker::id::LinkGroup;
use esker::repo::content::Reader;
use esker::restore::{Options, Overwrite};

use super::forge::{Forger, entry, link, patched};
use super::hook::Hooked;
use super::scene::{Scene, names};

/// A file of this name, in bytes no encoder of ours would write, in a directory beside one that is whole.
fn snapshot_with_name(scene: &Scene, name: &[u8]) -> esker::id::SessionId {
    let writer = scene.writer();
    let mut forger = Forger::new(&writer);
    let placeholder = "N".repeat(name.len().max(1));
    let file = forger.file(&placeholder, b"hostile");
    let node = cbor::encode(&DirectoryNode::Entries(vec![file]));
    let node = match name {
        b"" => patched(&node, b"\x01\x41N", b"\x01\x40"),
        _ => patched(&node, placeholder.as_bytes(), name),
    };
    hostile_and_honest(forger, &node)
}

/// A snapshot of two directories: one of this node, one that is what it should be.
fn hostile_and_honest(mut forger: Forger<'_>, node: &[u8]) -> esker::id::SessionId {
    let totals = Totals { files: 1, directories: 0, bytes: 7 };
    let kept = forger.file("kept", b"kept");
    let honest = forger.directory("honest", vec![kept]);
    let hostile = forger.directory_of_node("hostile", node, totals);
    forger.snapshot(vec![honest, hostile])
}

#[test]
fn a_name_that_leads_elsewhere_costs_its_directory_and_writes_nothing() {
    let scene = Scene::new();
    let deep = scene.dir.path().join("beside/new").display().to_string();
    let absolute = deep.as_bytes();
    let hostile: [&[u8]; 9] = [b"..", b".", b"/", b"a/b", b"../beside/precious", b"../../x", absolute, b"a\0b", b""];
    for name in hostile {
        let snapshot = snapshot_with_name(&scene, name);
        let _ = fs::remove_dir_all(scene.target());
        let restored = scene.restore(snapshot);
        let shown = name.escape_ascii();
        assert!(restored.says("/hostile", "cannot read the directory node"), "{shown}: {:?}", restored.problems);
        assert_eq!(names(&scene.target().join("hostile")), [""; 0], "{shown}");
        assert_eq!(fs::read(scene.target().join("honest/kept")).unwrap(), b"kept", "{shown}");
    }
    let faults = scene.check().faults;
    assert!(faults.iter().any(|fault| fault.object == "nodes of `/hostile`"), "{faults:?}");
}

#[test]
fn a_name_longer_than_any_is_refused() {
    let scene = Scene::new();
    let writer = scene.writer();
    let mut forger = Forger::new(&writer);
    let file = forger.file(&"N".repeat(1024), b"hostile");
    let mut node = cbor::encode(&DirectoryNode::Entries(vec![file]));
    // Its length, 0x0400, and one more letter.
    let at = node.windows(4).position(|bytes| bytes == b"\x59\x04\x00N").unwrap();
    node.splice(at + 1..at + 3, [0x04, 0x01]);
    node.insert(at + 3, b'N');
    let snapshot = hostile_and_honest(forger, &node);
    let restored = scene.restore(snapshot);
    assert!(restored.says("/hostile", "cannot read the directory node"), "{:?}", restored.problems);
}

/// First a link that leads out, then a directory of the same name whose files would go through it.
#[test]
fn a_link_with_something_beneath_it_is_refused_with_its_node() {
    let scene = Scene::new();
    let writer = scene.writer();
    let out = scene.dir.path().join("beside").display().to_string();
    for order in [[0, 1], [1, 0]] {
        let mut forger = Forger::new(&writer);
        let file = forger.file("precious", b"overwritten");
        let both = [link("x", &out), forger.directory("x", vec![file])];
        let node = cbor::encode(&DirectoryNode::Entries(order.map(|n: usize| both[n].clone()).to_vec()));
        let snapshot = hostile_and_honest(forger, &node);
        let restored = scene.restore(snapshot);
        assert!(restored.says("/hostile", "cannot read the directory node"), "{:?}", restored.problems);
        assert_eq!(names(&scene.target().join("hostile")), [""; 0]);
        fs::remove_dir_all(scene.target()).unwrap();
    }
}

/// Two snapshots into one target: the first leaves a link, the second has a directory there. The same
/// for a file, and for a hard link to what a link points to.
#[test]
fn a_link_that_an_earlier_restore_left_is_not_gone_through() {
    let scene = Scene::new();
    let writer = scene.writer();
    let beside = scene.dir.path().join("beside");
    let out = |name: &str| beside.join(name).display().to_string();
    let mut first = Forger::new(&writer);
    let links = vec![link("dir", &out("")), link("file", &out("precious")), link("new", &out("new"))];
    let first = first.snapshot(links);
    let mut second = Forger::new(&writer);
    let inside = second.file("precious", b"overwritten");
    let (file, new) = (second.file("file", b"a file"), second.file("new", b"a new file"));
    let dir = second.directory("dir", vec![inside]);
    let second = second.snapshot(vec![dir, file, new]);
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never] {
        for delete in [false, true] {
            assert_eq!(scene.restore(first).report.problems, 0);
            let owner = scene.owner();
            let reader = Reader::new(&owner).unwrap();
            let options = Options { overwrite, delete, ..Options::new(scene.target()) };
            let restored = scene.restore_with(&reader, second, &options).unwrap();
            assert!(restored.says("/dir", "a symbolic link is in its place"), "{:?}", restored.problems);
            fs::remove_dir_all(scene.target()).unwrap();
        }
    }
}

/// Names of one link group, the first of which is a symbolic link that leads out: the file is not
/// written through it.
#[test]
fn a_hard_link_to_a_symbolic_link_leads_nowhere() {
    let scene = Scene::new();
    let writer = scene.writer();
    let mut forger = Forger::new(&writer);
    let group = Some(LinkGroup::from_bytes([7; 16]));
    let mut first = link("a", &scene.dir.path().join("beside/precious").display().to_string());
    let mut second = forger.file("b", b"overwritten");
    (first.attributes.link_group, second.attributes.link_group) = (group, group);
    second.attributes.mode = 0o777;
    let snapshot = forger.snapshot(vec![first, second]);
    scene.restore(snapshot);
    scene.restore(snapshot);
}

/// A file in the target has a second name outside of it. What the restore writes, it writes to a file
/// of its own.
#[test]
fn a_hard_link_out_of_the_target_is_not_written_through() {
    let scene = Scene::new();
    let writer = scene.writer();
    let mut forger = Forger::new(&writer);
    let mut precious = forger.file("precious", b"overwritten");
    precious.attributes.mode = 0o777;
    let mut grouped = forger.file("second", b"overwritten too");
    grouped.attributes.link_group = Some(LinkGroup::from_bytes([7; 16]));
    let snapshot = forger.snapshot(vec![precious, grouped]);
    fs::create_dir(scene.target()).unwrap();
    let outside = scene.dir.path().join("beside/precious");
    fs::hard_link(&outside, scene.target().join("precious")).unwrap();
    fs::hard_link(&outside, scene.target().join("second")).unwrap();
    assert_eq!(scene.restore(snapshot).report.problems, 0);
    assert_eq!(fs::metadata(&outside).unwrap().nlink(), 1);
}

/// Somebody swaps a directory of the target for a link that leads out, at each call of the storage in turn.
#[test]
fn a_directory_swapped_for_a_link_at_any_moment_is_not_followed() {
    let scene = Scene::new();
    let owner = scene.owner();
    let mut forger = Forger::new(&owner);
    let mut directories = Vec::new();
    for n in 0..4 {
        let files =
            (0..3).map(|f| forger.file(&format!("precious{f}"), format!("file {f} of {n}").as_bytes())).collect();
        let below = forger.directory("below", files);
        let file = forger.file("precious", format!("own file of {n}").as_bytes());
        directories.push(forger.directory(&format!("d{n}"), vec![below, file]));
        forger.put_pack();
    }
    let snapshot = forger.snapshot(directories);
    let mut moments = 0;
    loop {
        for place in ["d0", "d1", "d2/below", "d3"] {
            let count = Arc::new(AtomicUsize::new(0));
            let (target, to) = (scene.target(), scene.dir.path().join("beside"));
            let calls = count.clone();
            let hook = move |_: &str| {
                // Once it is there, and then at the call in question.
                if calls.fetch_add(1, Ordering::Relaxed) == moments && target.join(place).is_dir() {
                    rustix::fs::rename(target.join(place), target.join("moved")).unwrap();
                    symlink(&to, target.join(place)).unwrap();
                }
            };
            let hooked = Hooked::new(Arc::new(scene.memory.clone()), hook);
            let armed = hooked.armed();
            let owner = scene.owner_over(Arc::new(hooked));
            let reader = Reader::new(&owner).unwrap();
            armed.store(true, Ordering::Relaxed);
            scene.restore_with(&reader, snapshot, &Options { threads: 1, ..Options::new(scene.target()) }).unwrap();
            fs::remove_dir_all(scene.target()).unwrap();
            if count.load(Ordering::Relaxed) <= moments {
                assert!(moments > 8, "a restore of {moments} calls tells little");
                return;
            }
        }
        moments += 1;
    }
}

/// A program that lends its owner's powers, a device, a directory open to all: what a snapshot has is made,
/// but while that goes on nobody else gets at it, and no bit lends powers before its owner is set.
#[test]
fn until_a_file_is_whole_nobody_else_gets_at_it() {
    let scene = Scene::new();
    let owner = scene.owner();
    let mut forger = Forger::new(&owner);
    let mut entries = Vec::new();
    for n in 0..6 {
        let mut file = forger.file(&format!("f{n}"), format!("program {n}").as_bytes());
        file.attributes.mode = 0o6777;
        let mut directory = forger.directory(&format!("d{n}"), vec![file]);
        directory.attributes.mode = 0o7777;
        forger.put_pack();
        entries.push(directory);
    }
    let mut fifo = entry("p", esker::format::tree::Detail::Fifo);
    fifo.attributes.mode = 0o666;
    entries.push(fifo);
    let snapshot = forger.snapshot(entries);
    let seen = Arc::new(AtomicUsize::new(0));
    let (target, counted) = (scene.target(), seen.clone());
    let hook = move |_: &str| {
        let mut open = vec![target.clone()];
        while let Some(path) = open.pop() {
            let Ok(stat) = fs::symlink_metadata(&path) else { continue };
            if stat.is_dir() {
                assert_eq!(stat.permissions().mode() & 0o7777, 0o700, "{}", path.display());
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let hooked = Hooked::new(Arc::new(scene.memory.clone()), hook);
    let armed = hooked.armed();
    let owner = scene.owner_over(Arc::new(hooked));
    let reader = Reader::new(&owner).unwrap();
    armed.store(true, Ordering::Relaxed);
    let restored =
        scene.restore_with(&reader, snapshot, &Options { threads: 1, ..Options::new(scene.target()) }).unwrap();
    assert_eq!(restored.report.problems, 0, "{:?}", restored.problems);
    assert!(seen.load(Ordering::Relaxed) > 20, "the hook saw nothing");
    let mode = |path: &str| fs::metadata(scene.target().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("d3"), mode("d3/f3")), (0o7777, 0o6777), "in the end it is what the snapshot says");
}
