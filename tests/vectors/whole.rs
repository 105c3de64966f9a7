//! A small repository, whole, as it was stored once: what reads it reads every repository since.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use esker::backup;
use esker::check;
use esker::chunk::cut::Parameters;
use esker::crypto::slot::KdfCost;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::{FirstKey, InitOptions, Local};
use esker::repo::pack_writer::PackSettings;
use esker::repo::secret::Secret;
use esker::repo::snapshots::Filter;
use esker::restore;
use esker::source::walk::WalkOptions;
use esker::storage;
use esker::world::World;

use super::{directory, writing};

/// Where the files were when the repository was made; fixed, for it stands in the snapshot.
const SOURCE: &str = "/tmp/esker-vector";

fn files() -> [(&'static str, Vec<u8>); 4] {
    let numbers: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    [
        ("empty", vec![]),
        ("hello.txt", b"hello, vector\n".to_vec()),
        ("deep/er/numbers", numbers.into_bytes()),
        ("deep/zeros", vec![0; 300_000]),
    ]
}

fn make_source() {
    let source = Path::new(SOURCE);
    fs::create_dir_all(source.join("deep/er")).unwrap();
    let time = UNIX_EPOCH + Duration::from_secs(981_173_106);
    for (name, content) in files() {
        fs::write(source.join(name), content).unwrap();
    }
    std::os::unix::fs::symlink("hello.txt", source.join("link")).unwrap();
    let names = files().map(|(name, _)| name);
    for name in names.into_iter().chain(["deep/er", "deep", ""]) {
        fs::File::open(source.join(name)).unwrap().set_modified(time).unwrap();
    }
}

/// Removes directories that hold nothing: git does not keep them.
fn remove_empty_directories(at: &Path) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            remove_empty_directories(&path);
            let _ = fs::remove_dir(&path);
        }
    }
}

fn make_repository(at: &Path, key: &Path) {
    make_source();
    let storage = Arc::new(storage::local::Local::create(at).unwrap());
    let options = InitOptions {
        key: FirstKey::KeyFile,
        kdf: KdfCost::FLOOR,
        chunker: Parameters::with_average(16 << 10),
        label: "owner".into(),
        like: None,
        parity_percent: 0,
    };
    let (repo, file) = Repository::init(storage, World::seeded(1), &options, Local::default()).unwrap();
    fs::write(key, file.unwrap().to_text().as_bytes()).unwrap();
    let options = backup::Options {
        roots: vec![TreePath::from_os(Path::new(SOURCE)).unwrap()],
        walk: WalkOptions { threads: 1, ..WalkOptions::default() },
        hostname: "vector".into(),
        username: "esker".into(),
        tags: vec!["vector".into()],
        packs: PackSettings::default(),
        threads: 1,
        keep_record: backup::KeepRecord::Locally,
        checkpoint_bytes: backup::CHECKPOINT_BYTES,
        checkpoint_secs: backup::CHECKPOINT_SECS,
        force: false,
        ignore_ctime: false,
        program: "esker vectors".into(),
        variation: backup::Variation::default(),
    };
    let report = backup::run(&repo, &options, &Monitor::silent()).unwrap();
    assert_eq!(report.problems, 0);
    fs::remove_dir_all(SOURCE).unwrap();
    remove_empty_directories(at);
}

/// Copies files and the directories they are in, which is what a checkout by git has.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::create_dir_all(to).unwrap();
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Every path below a directory, with what a file holds or a link points to.
fn content(at: &Path, below: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(below).unwrap().to_owned();
        if path.is_symlink() {
            found.push((name, fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()));
        } else if path.is_dir() {
            content(&path, below, found);
        } else {
            found.push((name, fs::read(&path).unwrap()));
        }
    }
    found.sort();
}

#[test]
fn a_repository_of_this_format_opens_checks_and_restores() {
    let (stored, key) = (directory().join("repository"), directory().join("repository.key"));
    if writing() && !stored.exists() {
        make_repository(&stored, &key);
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&stored, &dir.path().join("repository"));
    let storage = Arc::new(storage::local::Local::open(dir.path().join("repository")).unwrap());
    let secret = Secret::KeyFile(fs::read_to_string(key).unwrap().parse().unwrap());
    let repo = Repository::open(storage, World::system(), &secret, Local::default()).unwrap();
    let reader = Reader::without_cache(&repo).unwrap();

    let options = check::Options { read_data: check::ReadData::All, snapshot: None, threads: 2 };
    let report = check::run(&reader, &options, &Monitor::silent()).unwrap();
    assert!(report.faults.is_empty(), "{report:?}");
    assert_eq!(report.snapshots, 1);
    assert!(report.packs > 0 && report.packs_read == report.packs, "{report:?}");

    let (snapshots, unreadable) = reader.snapshots(&Filter::default()).unwrap();
    assert!(unreadable.is_empty());
    let [info] = &snapshots[..] else { panic!("{} snapshots", snapshots.len()) };
    let snapshot = &info.snapshot;
    assert_eq!((&*snapshot.hostname, &*snapshot.username), ("vector", "esker"));
    assert_eq!((&snapshot.tags[..], &snapshot.paths[..]), (&["vector".to_owned()][..], &[SOURCE.into()][..]));

    let target = dir.path().join("restored");
    let base = TreePath::from_os(Path::new(SOURCE)).unwrap();
    let options = restore::Options::new(&target);
    restore::run(&reader, &snapshot.root, &base, &options, &Monitor::silent()).unwrap();
    let mut found = Vec::new();
    content(&target, &target, &mut found);
    let mut expected = files().map(|(name, content)| (PathBuf::from(name), content)).to_vec();
    expected.push(("link".into(), b"hello.txt".to_vec()));
    expected.sort();
    assert!(found == expected, "restored: {:?}", found.iter().map(|(name, _)| name).collect::<Vec<_>>());
    let modified = fs::metadata(target.join("hello.txt")).unwrap().modified().unwrap();
    assert_eq!(modified, UNIX_EPOCH + Duration::from_secs(981_173_106));
}
