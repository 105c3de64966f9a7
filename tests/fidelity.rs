//! Risk: something that Linux keeps about a file does not survive backup and restore.
//! Method: a tree with all of it, through the whole engine, compared with `tests/support/tree.rs`,
//! which reads the file system with its own code. As root also what only root can make.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::monitor::{Monitor, Problem, Severity, Sink};
use esker::source::exclude::{Case, Patterns};
use esker::storage::memory::Memory;
use repo::{Scene, noise};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};

fn scene() -> Scene {
    Scene::new(Arc::new(Memory::new()))
}

fn assert_round_trip(scene: &Scene) {
    let report = scene.backup();
    assert_eq!(report.problems, 0);
    let restored = scene.restore(&report.id.to_string());
    let (found, expected) = (tree::lines(&restored), tree::lines(&scene.source()));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

/// Sets the modification time of anything, links too.
fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[allow(clippy::print_stderr)] // a skipped test says so
fn is_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    if std::env::var("ESKER_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == "root")) {
        panic!("root required");
    }
    eprintln!("skipped: needs root");
    false
}

#[test]
fn times_modes_links_and_names_come_back() {
    let scene = scene();
    let at = |name: &[u8]| scene.source().join(OsStr::from_bytes(name));
    for (name, mode) in [(&b"plain"[..], 0o644), (b"setuid", 0o4755), (b"setgid", 0o2711), (b"none", 0o000)] {
        fs::write(at(name), name).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(at(b"sticky")).unwrap();
    fs::set_permissions(at(b"sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    for name in [&b"new\nline"[..], b"\xff\xfe not utf-8", &[b'n'; 255], b" ", b"\\", b"-rf", "é".as_bytes()] {
        fs::write(at(name), b"x").unwrap();
    }
    symlink("/nowhere/\u{fc}", at(b"dangling")).unwrap();
    symlink(OsStr::from_bytes(b"\xff"), at(b"odd link")).unwrap();
    fs::hard_link(at(b"plain"), at(b"sticky/second name")).unwrap();
    rustix::fs::mknodat(CWD, at(b"fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    // Before 1970, with nanoseconds; after 2106; at the edges.
    set_mtime(&at(b"plain"), -1_000_000_000, 1);
    set_mtime(&at(b"setuid"), -1, 999_999_999);
    set_mtime(&at(b"dangling"), 4_300_000_000, 123_456_789);
    set_mtime(&at(b"fifo"), 0, 0);
    set_mtime(&at(b"sticky"), 5_000_000_000, 5);
    assert_round_trip(&scene);
}

#[test]
fn holes_come_back_where_they_were() {
    let scene = scene();
    let sparse = |name: &str, parts: &[(u64, usize)], size: u64| {
        let file = fs::File::create(scene.source().join(name)).unwrap();
        for (offset, length) in parts {
            std::os::unix::fs::FileExt::write_all_at(&file, &noise(*offset, *length), *offset).unwrap();
        }
        file.set_len(size).unwrap();
    };
    sparse("hole in front", &[(1 << 20, 5000)], (1 << 20) + 5000);
    sparse("hole behind", &[(0, 5000)], 9 << 20);
    sparse("many", &[(64 << 10, 4096), (256 << 10, 4096), (3 << 20, 100_000)], 5 << 20);
    sparse("nothing but a hole", &[], 100 << 20);
    fs::write(scene.source().join("written zeros"), vec![0; 300_000]).unwrap();
    fs::write(scene.source().join("empty"), b"").unwrap();
    assert_round_trip(&scene);
}

#[test]
fn extended_attributes_and_access_lists_come_back() {
    let scene = scene();
    let file = scene.source().join("file");
    fs::write(&file, b"x").unwrap();
    fs::create_dir(scene.source().join("dir")).unwrap();
    for (name, value) in [("user.comment", &b"hello"[..]), ("user.empty", b""), ("user.binary", &[0, 255, 10])] {
        rustix::fs::setxattr(&file, name, value, XattrFlags::empty()).unwrap();
    }
    rustix::fs::setxattr(scene.source().join("dir"), "user.on a directory", b"1", XattrFlags::empty()).unwrap();
    // POSIX ACL, version 2: owner rwx, uid 1000 r--, group r--, mask r--, others ---.
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1_u16, 7_u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    rustix::fs::setxattr(&file, "system.posix_acl_access", &acl, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(scene.source().join("dir"), "system.posix_acl_default", &acl, XattrFlags::empty()).unwrap();
    assert_round_trip(&scene);
}

#[test]
fn owners_devices_and_capabilities_come_back() {
    if !is_root() {
        return;
    }
    let scene = scene();
    let at = |name: &str| scene.source().join(name);
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, at("null"), FileType::CharacterDevice, mode, rustix::fs::makedev(1, 3)).unwrap();
    rustix::fs::mknodat(CWD, at("loop"), FileType::BlockDevice, mode, rustix::fs::makedev(7, 300)).unwrap();
    for (name, uid, gid) in [("daemon", 1, 1), ("nameless", 54_321, 12_345), ("large", 4_000_000_000, 3_000_000_000)] {
        fs::write(at(name), name).unwrap();
        rustix::fs::chown(at(name), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o6755)).unwrap();
    }
    symlink("x", at("link")).unwrap();
    rustix::fs::chownat(CWD, at("link"), Some(Uid::from_raw(7)), None, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    // vfs_cap_data version 2 with CAP_NET_RAW permitted and effective.
    let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
    capability.extend_from_slice(&(1_u32 << 13).to_le_bytes());
    capability.extend_from_slice(&[0; 12]);
    rustix::fs::setxattr(at("daemon"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(at("daemon"), "trusted.note", b"root only", XattrFlags::empty()).unwrap();
    fs::create_dir(at("closed")).unwrap();
    fs::write(at("closed/inside"), b"x").unwrap();
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_round_trip(&scene);
}

/// A path of 40 components of 200 bytes is twice what the system takes in one call.
#[test]
fn a_path_beyond_path_max_comes_back() {
    let scene = scene();
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut dir: OwnedFd = rustix::fs::openat(CWD, scene.source(), flags, Mode::empty()).unwrap();
    for n in 0..40 {
        let name = format!("{n:02}{}", "d".repeat(198));
        rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).unwrap();
        dir = rustix::fs::openat(&dir, &name, flags, Mode::empty()).unwrap();
    }
    let file = rustix::fs::openat(&dir, "deep", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
    rustix::io::write(&file, b"still here").unwrap();
    assert_round_trip(&scene);
}

#[derive(Default)]
struct Seen(Mutex<Vec<Problem>>);

impl Sink for Seen {
    fn problem(&self, problem: &Problem) {
        self.0.lock().unwrap().push(problem.clone());
    }
}

#[test]
fn a_socket_is_skipped_with_a_note_and_the_rest_is_made() {
    let scene = scene();
    fs::write(scene.source().join("file"), b"x").unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(scene.source().join("socket")).unwrap();
    let seen = Arc::new(Seen::default());
    let report = esker::backup::run(&scene.open(), &scene.options(), &Monitor::new(seen.clone())).unwrap();
    assert_eq!(report.problems, 0);
    let seen = seen.0.lock().unwrap();
    let notes: Vec<_> = seen.iter().filter(|problem| problem.severity == Severity::Note).collect();
    assert!(matches!(&notes[..], [note] if note.item.ends_with("/socket")), "{seen:?}");
    assert_eq!(fs::read_dir(scene.restore("latest")).unwrap().count(), 1);
}

#[test]
fn a_mount_is_not_entered_with_one_file_system() {
    if !is_root() {
        return;
    }
    let scene = scene();
    let mount = scene.source().join("mount");
    fs::create_dir(&mount).unwrap();
    let run =
        |args: &[&OsStr]| assert!(std::process::Command::new(args[0]).args(&args[1..]).status().unwrap().success());
    let word = OsStr::new;
    run(&[word("mount"), word("-t"), word("tmpfs"), word("none"), mount.as_os_str()]);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fs::write(mount.join("on another file system"), b"x").unwrap();
        fs::write(scene.source().join("here"), b"x").unwrap();
        let mut options = scene.options();
        options.walk.one_file_system = true;
        esker::backup::run(&scene.open(), &options, &Monitor::silent()).unwrap();
        let restored = scene.restore("latest");
        assert!(restored.join("here").exists() && restored.join("mount").is_dir());
        assert_eq!(fs::read_dir(restored.join("mount")).unwrap().count(), 0);
    }));
    run(&[word("umount"), mount.as_os_str()]);
    result.unwrap();
}

#[test]
fn what_is_excluded_is_not_there_and_the_rest_is() {
    let scene = scene();
    for name in ["keep.txt", "drop.o", "sub/keep.txt", "sub/drop.o", "cache/x"] {
        let path: PathBuf = scene.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    let mut options = scene.options();
    let mut patterns = Patterns::new();
    patterns.add(b"*.o", Case::Sensitive).unwrap();
    patterns.add(b"cache", Case::Sensitive).unwrap();
    options.walk.exclude = patterns;
    esker::backup::run(&scene.open(), &options, &Monitor::silent()).unwrap();
    let restored = scene.restore("latest");
    let names: Vec<_> = ["keep.txt", "drop.o", "sub/keep.txt", "sub/drop.o", "cache"]
        .into_iter()
        .filter(|name| restored.join(name).exists())
        .collect();
    assert_eq!(names, ["keep.txt", "sub/keep.txt"]);
}
