//! Local files of another version: what an older or a newer program has left is passed over, and a
//! backup goes on without it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker::storage::fault::{Faulty, Plan};
use esker::storage::memory::Memory;

use super::repo::{Scene, noise};
use super::tree;

fn files(top: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![top.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found
}

/// Writes another version where a file of blocks has its own.
fn change_version(path: &Path, magic: &[u8; 7], version: u8) -> bool {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut found = [0; 8];
    if file.read_exact_at(&mut found, 0).is_err() || found[..7] != *magic {
        return false;
    }
    assert_ne!(found[7], version, "that is its version");
    file.write_all_at(&[version], 7).unwrap();
    true
}

#[test]
fn cache_files_of_another_version_are_passed_over() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone())).with_tiny_packs();
    for n in 0..20_u64 {
        fs::write(scene.source().join(format!("{n}")), noise(n, 3000)).unwrap();
    }
    for version in [0, 2, 200] {
        scene.backup();
        fs::write(scene.source().join(format!("new-{version}")), noise(version.into(), 40_000)).unwrap();
        // A journal and an unfinished record too.
        let faulty = Faulty::new(Arc::new(memory.clone()), Plan::crash_at(5));
        scene.over(Arc::new(faulty)).try_backup().unwrap_err();
        let files = files(&scene.cache());
        let changed = |magic| files.iter().filter(|path| change_version(path, magic, version)).count();
        assert_eq!(changed(b"ESKCHG\x00"), 2, "a finished and an unfinished record: {files:?}");
        assert_eq!(changed(b"ESKJRN\x00"), 1, "a journal: {files:?}");
        let catalog = files.iter().find(|path| path.ends_with("catalog.redb")).unwrap();
        let database = redb::Database::open(catalog).unwrap();
        let change = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        let format = u64::from(version) + 100;
        assert!(change.open_table(meta).unwrap().insert("format", format).unwrap().is_some());
        change.commit().unwrap();
        drop(database);

        let made = scene.backup();
        assert_eq!(made.problems, 0);
        assert_eq!(made.snapshot.summary.files_unmodified, 0, "no record was believed: every file was read");
        assert_eq!(tree::lines(&scene.restore(&made.id.to_string())), tree::lines(&scene.source()));
        let repo = scene.open();
        assert!(esker::repo::content::Reader::new(&repo).unwrap().cache_fault().is_none());
        // And what this program has written since is believed again.
        assert!(scene.backup().snapshot.summary.files_unmodified >= 20);
        assert!(scene.check().faults.is_empty());
    }
}
