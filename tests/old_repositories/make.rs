//! Makes a repository for the museum, with a little of everything.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use esker::backup::{self, Options};
use esker::chunk::cut::Parameters;
use esker::crypto::slot::KdfCost;
use esker::format::access::Role;
use esker::monitor::Monitor;
use esker::repo::Repository;
use esker::repo::open::{FirstKey, InitOptions, Local};
use esker::repo::pack_writer::PackSettings;
use esker::repo::secret::Secret;
use esker::storage::local::Local as LocalStorage;
use esker::world::World;

use super::museum::{Museum, options};
use super::repo::noise;

/// Where the files are meanwhile; it stands in the snapshots.
const SOURCE: &str = "/tmp/esker-museum";
const PASSWORD: &str = "museum piece";

/// Makes the directory with the repository, its keys, and what restoring it gives.
pub(crate) fn make(at: &Path) {
    assert!(!at.exists(), "{} is there already, and is never made again", at.display());
    let (source, repository) = (PathBuf::from(SOURCE), at.join("repository"));
    assert!(!source.exists(), "{SOURCE} is in the way");
    write_source(&source);
    fs::create_dir_all(at).unwrap();

    let storage = Arc::new(LocalStorage::create(&repository).unwrap());
    let first = InitOptions {
        key: FirstKey::KeyFile,
        kdf: KdfCost::FLOOR,
        chunker: Parameters::with_average(512),
        label: "owner".into(),
        like: None,
        parity_percent: 0,
    };
    let (owner, key) = Repository::init(storage.clone(), World::seeded(1), &first, Local::default()).unwrap();
    let second = owner.add_member(Role::Owner, "second", None).unwrap();
    let key = key.unwrap();
    // Each with a seed of its own: two of one seed would draw the same key.
    let reopen = |seed| {
        let secret = Secret::KeyFile(key.clone());
        Repository::open(storage.clone(), World::seeded(seed), &secret, Local::default()).unwrap()
    };
    let owner = reopen(2);
    owner.add_member(Role::Owner, "by password", Some((PASSWORD, KdfCost::FLOOR))).unwrap();
    let owner = reopen(3);
    let writer_key = owner.add_member(Role::Writer, "writer", None).unwrap();
    fs::write(at.join("owner.key"), key.to_text().as_bytes()).unwrap();
    fs::write(at.join("second-owner.key"), second.to_text().as_bytes()).unwrap();
    fs::write(at.join("writer.key"), writer_key.to_text().as_bytes()).unwrap();
    fs::write(at.join("password"), format!("{PASSWORD}\n")).unwrap();

    let run = |world, secret: Secret, options: &Options| {
        let repo = Repository::open(storage.clone(), World::seeded(world), &secret, Local::default()).unwrap();
        assert_eq!(backup::run(&repo, options, &Monitor::silent()).unwrap().problems, 0);
    };
    // With checkpoints on the way.
    let usual = options(&source, "first");
    let quick = PackSettings { frames_in_work: 1, frame_bytes: 4 << 10, ..usual.packs };
    let checkpoints = Options { checkpoint_bytes: 8 << 10, packs: quick, ..usual };
    run(11, Secret::KeyFile(key.clone()), &checkpoints);
    // Each chunk in a frame of its own: a session whose index is too long for its commit.
    write_many(&source, 0);
    let usual = options(&source, "second");
    let small = Options { packs: PackSettings { frame_bytes: 1, ..usual.packs }, ..usual };
    run(12, Secret::password(PASSWORD), &small);
    fs::write(source.join("changed"), "by a writer\n").unwrap();
    settle(&source);
    run(13, Secret::KeyFile(writer_key), &options(&source, "third"));
    fs::remove_dir_all(&source).unwrap();
    remove_empty_directories(&repository);

    let museum = Museum::at(at.to_owned());
    let manifest = museum.restored(&museum.open(&museum.owner()));
    fs::write(at.join("manifest"), manifest).unwrap();
}

fn write_source(source: &Path) {
    for dir in ["split", "deep/er", "empty"] {
        fs::create_dir_all(source.join(dir)).unwrap();
    }
    for n in 0..90_u64 {
        fs::write(source.join(format!("split/{n:02}")), noise(n, 10)).unwrap();
    }
    let numbers: String = (0..8_000).map(|n| format!("{n}\n")).collect();
    let files: BTreeMap<&str, Vec<u8>> = [
        ("empty-file", vec![]),
        ("changed", b"as it was\n".to_vec()),
        ("deep/er/numbers", numbers.into_bytes()),
        ("deep/noise", noise(1000, 9_000)),
        ("zeros", [&noise(1001, 500)[..], &vec![0; 200_000], &noise(1002, 500)].concat()),
        ("private", b"for nobody else\n".to_vec()),
    ]
    .into();
    for (name, content) in files {
        fs::write(source.join(name), content).unwrap();
    }
    let holes = fs::File::create(source.join("holes")).unwrap();
    holes.write_all_at(&noise(1003, 4096), 1 << 20).unwrap();
    holes.set_len(3 << 20).unwrap();
    fs::set_permissions(source.join("private"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::hard_link(source.join("deep/noise"), source.join("link")).unwrap();
    std::os::unix::fs::symlink("deep/noise", source.join("symlink")).unwrap();
    rustix::fs::setxattr(source.join("changed"), "user.note", b"a value", rustix::fs::XattrFlags::empty()).unwrap();
    settle(source);
}

/// Files of a few bytes that no other has.
fn write_many(source: &Path, from: u64) {
    fs::create_dir(source.join("many")).unwrap();
    for n in from..from + 640 {
        fs::write(source.join(format!("many/{n:03}")), noise(2000 + n, 8)).unwrap();
    }
    settle(source);
}

/// Gives everything one time.
fn settle(source: &Path) {
    let time = UNIX_EPOCH + Duration::from_secs(981_173_106);
    let mut open = vec![source.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_symlink() {
                let times = rustix::fs::Timespec { tv_sec: 981_173_106, tv_nsec: 0 };
                let times = rustix::fs::Timestamps { last_access: times, last_modification: times };
                rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
            } else if path.is_dir() {
                open.push(path);
            } else {
                fs::File::open(&path).unwrap().set_modified(time).unwrap();
            }
        }
        fs::File::open(&dir).unwrap().set_modified(time).unwrap();
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
