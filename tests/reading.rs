//! Risk: reading a repository costs a request for each small thing in it, so that over a network the
//! round trips are what is waited for; or it reads far more than is wanted.
//! Method: the exact calls of commands are recorded. A storage in memory is read as one far away is.

#[path = "support/repo.rs"]
#[allow(dead_code)]
mod repo;
#[path = "support/tree.rs"]
#[allow(dead_code)]
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use esker::check;
use esker::error::Kind;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::repo::content::Reader;
use esker::repo::snapshots::Filter;
use esker::restore;
use esker::storage::fault::{Faulty, Plan};
use esker::storage::memory::Memory;
use esker::storage::record::{Operation, Recording};
use esker::storage::{ErrorKind, Storage, WriteMode};
use repo::{Scene, noise};

const MIB: usize = 1 << 20;

/// Forty files of half a megabyte in four directories, cut alike each time: twenty frames in one pack.
fn scene() -> (Recording, Scene) {
    let storage = Recording::new(Arc::new(Memory::new()));
    let scene = Scene::new_seeded(Arc::new(storage.clone()), 1);
    for n in 0..40 {
        let dir = scene.source().join(format!("dir-{}", n / 10));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("file-{n:02}")), noise(n, MIB / 2)).unwrap();
    }
    scene.backup();
    storage.clear();
    (storage, scene)
}

/// How often each folder was asked for what, in the order of the first call.
fn calls(storage: &Recording) -> Vec<String> {
    let mut counted: Vec<((Operation, String), usize)> = Vec::new();
    for call in storage.calls() {
        let folder = call.name.split('/').next().unwrap().to_owned();
        let key = (call.operation, folder);
        match counted.iter_mut().find(|(known, _)| *known == key) {
            Some((_, times)) => *times += 1,
            None => counted.push((key, 1)),
        }
    }
    counted.into_iter().map(|((operation, folder), times)| format!("{operation:?} {folder} {times}")).collect()
}

/// Bytes of packs read, and of all there are.
fn bytes_of_packs(storage: &Recording) -> (u64, u64) {
    let read = storage.calls().iter().filter(|call| call.operation == Operation::GetRange).map(|call| call.bytes).sum();
    (read, storage.list("packs/").unwrap().iter().map(|pack| pack.bytes).sum())
}

#[test]
fn a_restore_costs_a_few_requests_for_a_pack_and_not_one_for_each_frame() {
    let (storage, scene) = scene();
    let restored = scene.restore("latest");
    assert_eq!(tree::lines(&restored), tree::lines(&scene.source()));
    // Twenty megabytes in three spans, and the frame that all nodes are in.
    let expected = [
        "Get config 1",
        "List access 1",
        "List copies 1",
        "Get access 2",
        "List snapshots 1",
        "List log 2",
        "Get snapshots 2",
        "List gc 2",
        "List notes 2",
        "Get index 1",
        "GetRange packs 4",
    ];
    assert_eq!(calls(&storage), expected);
    let (read, stored) = bytes_of_packs(&storage);
    assert!(read < stored + 4 * MIB as u64, "{read} of {stored}");
}

#[test]
fn a_restore_of_one_file_reads_little_else() {
    let (storage, scene) = scene();
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let info = reader.find_snapshot("latest", &Filter::default()).unwrap();
    let base = TreePath::from_os(&scene.source().join("dir-2/file-25")).unwrap();
    let target = tempfile::tempdir().unwrap();
    let options = restore::Options::new(target.path());
    let report = restore::run(&reader, &info.snapshot.root, &base, &options, &Monitor::silent()).unwrap();
    assert_eq!((report.files, report.problems), (1, 0));
    let (read, _) = bytes_of_packs(&storage);
    assert!(read < 3 * MIB as u64, "{read}");
}

#[test]
fn a_check_reads_every_pack_once_in_a_few_requests() {
    let (storage, scene) = scene();
    assert!(scene.check().faults.is_empty());
    // The tails of two packs and more of one, which is padded; three spans of that; a frame of nodes.
    let expected = [
        "Get config 2",
        "List access 2",
        "List copies 1",
        "Get access 2",
        "List snapshots 2",
        "List log 4",
        "Get snapshots 3",
        "List gc 2",
        "List notes 2",
        "Get index 2",
        "Get copies 3",
        "List sessions 1",
        "Get sessions 1",
        "List flags 1",
        "List alive 1",
        "Get alive 1",
        "List cache 1",
        "List packs 1",
        "GetRange packs 7",
    ];
    assert_eq!(calls(&storage), expected);
    let (read, stored) = bytes_of_packs(&storage);
    assert!((stored..stored + MIB as u64).contains(&read), "{read} of {stored}");
}

/// A pack that has lost its end still gives what is before that, though it is asked for at once.
#[test]
fn what_is_left_of_a_pack_that_was_cut_off_is_restored() {
    let (storage, scene) = scene();
    let packs: BTreeMap<u64, String> =
        storage.list("packs/").unwrap().into_iter().map(|pack| (pack.bytes, pack.name)).collect();
    let largest = packs.values().last().unwrap();
    let bytes = storage.get(largest).unwrap();
    storage.put(largest, &bytes[..5 * MIB], WriteMode::Replace).unwrap();
    let (report, target) = scene.try_restore("latest").unwrap();
    assert!((7..=10).contains(&report.files), "{}", report.files);
    assert_eq!(report.files + report.damaged_count, 40);
    for file in fs::read_dir(target.join("dir-0")).unwrap() {
        let file = file.unwrap().file_name();
        let content = |dir: std::path::PathBuf| fs::read(dir.join("dir-0").join(&file)).unwrap();
        assert!(content(target.clone()) == content(scene.source()));
    }
}

/// What is no damage, but a storage that does not answer, is not said to be damage.
#[test]
fn a_check_that_cannot_read_a_pack_is_not_done() {
    let (storage, scene) = scene();
    let plan = Plan::none().failing_from(Operation::GetRange, "packs/", 3, ErrorKind::Io);
    let scene = scene.over(Arc::new(Faulty::new(Arc::new(storage), plan)));
    let repo = scene.open();
    let reader = Reader::without_cache(&repo).unwrap();
    let options = check::Options { read_data: check::ReadData::All, snapshot: None, threads: 2 };
    let error = check::run(&reader, &options, &Monitor::silent()).unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
}

/// To open a snapshot costs a signature and private key operations: a list of very many has done that before.
#[test]
fn a_list_of_snapshots_reads_each_of_them_once() {
    let (storage, scene) = scene();
    for n in 0..3 {
        fs::write(scene.source().join("more"), [n]).unwrap();
        scene.backup();
    }
    let list = |reader: &Reader<'_>| {
        storage.clear();
        let (found, faults) = reader.snapshots(&Filter::default()).unwrap();
        assert!(faults.is_empty());
        (found, calls(&storage))
    };
    let repo = scene.open();
    let (first, of_first) = list(&Reader::new(&repo).unwrap());
    assert_eq!(of_first, ["Get snapshots 4"]);
    let (again, of_again) = list(&Reader::new(&scene.open()).unwrap());
    assert_eq!(of_again, [""; 0]);
    let said = |found: &[esker::repo::snapshots::SnapshotInfo]| {
        found.iter().map(|info| (info.id(), info.snapshot.clone())).collect::<Vec<_>>()
    };
    assert_eq!(said(&first), said(&again));
    // `check` believes no cache.
    assert_eq!(list(&Reader::without_cache(&repo).unwrap()).1, ["Get snapshots 4"]);
}
