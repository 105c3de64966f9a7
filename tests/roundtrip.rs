//! Risk: a snapshot that was reported as made is not what was there, or costs more than it should.
//! Method: real trees through backup and restore in process, compared attribute by attribute,
//! with the exact storage calls recorded.

#[allow(dead_code)] // each file of tests uses a part of it
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use esker::storage::memory::Memory;
use esker::storage::record::{Operation, Recording};
use repo::{Scene, noise};

/// The directories above the source change when other tests run; their nodes are this small.
const DIRECTORIES_ABOVE: u64 = 4096;

fn sample(root: &Path) {
    fs::create_dir_all(root.join("img/deep/er")).unwrap();
    fs::write(root.join("notes.txt"), "hello").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("img/a.raw"), noise(1, 3 << 20)).unwrap();
    fs::write(root.join("img/b.raw"), noise(1, 3 << 20)).unwrap();
    fs::write(root.join("img/deep/er/zeros"), vec![0; 1 << 20]).unwrap();
    symlink("notes.txt", root.join("link")).unwrap();
    fs::hard_link(root.join("notes.txt"), root.join("img/other-name")).unwrap();
    for n in 0..300 {
        fs::write(root.join(format!("img/deep/file-{n:03}")), format!("content {n}")).unwrap();
    }
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let scene = Scene::new(Arc::new(Memory::new()));
    sample(&scene.source());
    let report = scene.backup();
    assert_eq!(report.problems, 0);
    let restored = scene.restore(&report.id.to_string());
    assert_eq!(tree::lines(&restored), tree::lines(&scene.source()));
}

#[test]
fn an_unchanged_tree_stores_a_session_a_pack_and_a_commit_only() {
    let storage = Recording::new(Arc::new(Memory::new()));
    let scene = Scene::new(Arc::new(storage.clone()));
    sample(&scene.source());
    scene.backup();
    storage.clear();
    let report = scene.backup();
    assert_eq!((report.snapshot.summary.files_unmodified, report.snapshot.summary.files_new), (307, 0));
    let puts: Vec<_> = storage.puts().iter().map(|name| name.split('/').next().unwrap().to_owned()).collect();
    assert_eq!(puts, ["sessions", "packs", "snapshots"]);
    assert!(report.snapshot.summary.data_added < DIRECTORIES_ABOVE);
    assert!(storage.names(Operation::GetRange).is_empty(), "an unchanged tree reads no pack");
}

#[test]
fn a_lost_cache_loses_nothing_and_stores_nothing_twice() {
    let scene = Scene::new(Arc::new(Memory::new()));
    sample(&scene.source());
    scene.backup();
    fs::remove_dir_all(scene.cache()).unwrap();
    let report = scene.backup();
    assert!(report.snapshot.summary.data_added < DIRECTORIES_ABOVE);
    fs::remove_dir_all(scene.cache()).unwrap();
    let restored = scene.restore("latest");
    assert_eq!(tree::lines(&restored), tree::lines(&scene.source()));
}

#[test]
fn a_writer_makes_increments_it_cannot_read() {
    let scene = Scene::new(Arc::new(Memory::new()));
    sample(&scene.source());
    scene.backup();
    let writer = scene.writer();
    let report = writer.backup();
    assert!(report.snapshot.summary.data_added < DIRECTORIES_ABOVE, "a writer reuses what owners stored");
    fs::write(scene.source().join("notes.txt"), "changed").unwrap();
    let report = writer.backup();
    assert!(report.snapshot.summary.data_added > 0 && report.snapshot.summary.data_added < 100_000);
    let error = writer.try_restore(&report.id.to_string()).unwrap_err();
    assert_eq!(error.kind(), esker::error::Kind::Refused, "{error:?}");
    let restored = scene.restore(&report.id.to_string());
    assert_eq!(tree::lines(&restored), tree::lines(&scene.source()));
}

#[test]
fn an_owner_does_not_rest_on_what_only_a_writer_stored() {
    let scene = Scene::new(Arc::new(Memory::new()));
    sample(&scene.source());
    let writer = scene.writer();
    writer.backup();
    let report = scene.backup();
    assert!(report.snapshot.summary.data_added > 3_000_000, "{:?}", report.snapshot.summary);
}

#[test]
fn a_lost_pack_is_stored_anew_by_the_next_backup() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone()));
    sample(&scene.source());
    scene.backup();
    let mut content = memory.snapshot();
    let packs: Vec<_> = content.keys().filter(|name| name.starts_with("packs/")).cloned().collect();
    packs.iter().for_each(|name| drop(content.remove(name)));
    memory.restore(content);
    let report = scene.backup();
    assert!(report.snapshot.summary.data_added > 3_000_000);
    let restored = scene.restore(&report.id.to_string());
    assert_eq!(tree::lines(&restored), tree::lines(&scene.source()));
}

#[test]
fn equal_worlds_make_equal_repositories() {
    // Not where other tests work: the times of the directories above are in the snapshot.
    let quiet = Path::new("/dev/shm");
    let source = tempfile::tempdir_in(if quiet.is_dir() { quiet } else { Path::new(env!("CARGO_TARGET_TMPDIR")) });
    let source = source.unwrap();
    sample(source.path());
    let content = || {
        let memory = Memory::new();
        Scene::seeded(Arc::new(memory.clone()), 7, source.path()).backup();
        memory.snapshot()
    };
    assert!(content() == content());
}

/// The case Esker began with: one state file of two thousand changes, every few minutes.
#[test]
fn one_changed_file_among_two_thousand_directories_costs_kilobytes() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone()));
    for n in 0..2000 {
        let workspace = scene.source().join(format!("ws-{n:05}"));
        fs::create_dir(&workspace).unwrap();
        fs::write(workspace.join("terraform.tfstate"), noise(n, 2000)).unwrap();
    }
    scene.backup();
    let stored = || memory.snapshot().values().map(|bytes| bytes.len() as u64).sum::<u64>();
    let before = stored();
    fs::write(scene.source().join("ws-01000/terraform.tfstate"), noise(9999, 2000)).unwrap();
    let report = scene.backup();
    assert_eq!((report.snapshot.summary.files_changed, report.snapshot.summary.files_unmodified), (1, 1999));
    let growth = stored() - before;
    assert!(growth < 24_000, "{growth} bytes");
}

/// Anyone can verify what is stored, without a key: `b3sum` is enough.
#[test]
fn every_stored_object_is_named_by_its_hash_or_ends_with_it() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone())).with_tiny_packs();
    sample(&scene.source());
    scene.backup();
    let mut kinds = std::collections::BTreeSet::new();
    for (name, bytes) in memory.snapshot() {
        let name = name.strip_prefix("copies/").unwrap_or(&name);
        let (kind, last) = (name.split('/').next().unwrap(), name.rsplit('/').next().unwrap());
        kinds.insert(kind.to_owned());
        if ["packs", "index", "access"].contains(&kind) {
            assert_eq!(blake3::hash(&bytes).to_hex().as_str(), last, "{name}");
        } else {
            let (front, digest) = bytes.split_last_chunk::<32>().unwrap();
            assert_eq!(blake3::hash(front).as_bytes(), digest, "{name}");
        }
    }
    let kinds: Vec<_> = kinds.iter().map(String::as_str).collect();
    assert_eq!(kinds, ["access", "config", "index", "packs", "sessions", "snapshots"]);
}
