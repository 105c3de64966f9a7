//! What a directory can do that other storages cannot: hold foreign files, run full, be
//! read-only, keep leftovers. The contract common to all storages is in `tests/contract.rs`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::*;

/// A storage, and the directory above it.
fn scene() -> (TempDir, Local) {
    let home = tempfile::tempdir().unwrap();
    let local = Local::create(home.path().join("repository")).unwrap();
    (home, local)
}

/// All files below `tmp/`.
fn temporary_files(local: &Local) -> usize {
    fs::read_dir(local.disk.path.join("tmp")).unwrap().count()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

fn names(local: &Local, prefix: &str) -> Vec<String> {
    local.list(prefix).unwrap().into_iter().map(|listed| listed.name).collect()
}

/// Skips aloud, or fails where `ESKER_REQUIRE` says that nothing may be skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skip(why: &str) {
    if std::env::var("ESKER_REQUIRE").is_ok_and(|v| v.split(',').any(|x| x == "root")) {
        panic!("root required: {why}");
    }
    eprintln!("skipped: {why}");
}

/// A small file system of its own, unmounted at the end.
struct Mount(TempDir);

impl Mount {
    fn tmpfs(options: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("needs root");
            return None;
        }
        let mount = Self(tempfile::tempdir().unwrap());
        if !mount.run(&["-t", "tmpfs", "-o", options, "none"]) {
            skip("needs a root that may mount");
            return None;
        }
        Some(mount)
    }

    fn run(&self, arguments: &[&str]) -> bool {
        let output = Command::new("mount").args(arguments).arg(self.0.path()).output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn creating_makes_private_directories_for_packs() {
    let (_home, local) = scene();
    let mode = |path: &str| fs::metadata(local.disk.path.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(fs::read_dir(local.disk.path.join("packs")).unwrap().count(), 256);
    assert_eq!([mode(""), mode("packs"), mode("packs/00"), mode("packs/ff"), mode("tmp")], [0o700; 5]);
    local.put("config", b"x", WriteMode::CreateNew).unwrap();
    assert_eq!(mode("config"), 0o600);
    assert_eq!(local.local_directory(), Some(&*local.disk.path));
}

#[test]
fn creating_refuses_what_is_there_and_finishes_what_was_begun() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    assert_eq!(kind(Local::create(path("no/parent"))), ErrorKind::NotFound);
    fs::write(path("file"), "x").unwrap();
    assert_eq!(kind(Local::create(path("file"))), ErrorKind::Io);

    fs::create_dir_all(path("begun/packs/00")).unwrap();
    fs::create_dir_all(path("begun/lost+found")).unwrap();
    Local::create(path("begun")).unwrap();
    let again = Local::create(path("begun")).unwrap();

    again.put("packs/00/a", b"x", WriteMode::CreateNew).unwrap();
    let error = Local::create(path("begun")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(error.to_string().ends_with("/begun` is not empty: it holds `packs/00/a`"), "{error}");
    again.delete("packs/00/a").unwrap();
    fs::write(path("begun/Letter.txt"), "x").unwrap();
    let error = Local::create(path("begun")).unwrap_err();
    assert!(error.to_string().ends_with("/begun` is not empty: it holds `Letter.txt`"), "{error}");
}

#[test]
fn opening_needs_a_directory_and_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let error = Local::open(home.path().join("missing")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("missing`"), "{error}");
    let local = Local::open(home.path()).unwrap();
    assert!(names(&local, "").is_empty());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_copy_without_its_empty_directories_still_takes_objects() {
    let home = tempfile::tempdir().unwrap();
    let local = Local::open(home.path()).unwrap();
    local.put("packs/9f/9f00", b"x", WriteMode::CreateNew).unwrap();
    local.barrier().unwrap();
    assert_eq!(names(&local, "packs/"), ["packs/9f/9f00"]);
}

#[test]
fn files_that_are_no_objects_are_not_listed() {
    let (_home, local) = scene();
    local.put("index/a", b"x", WriteMode::CreateNew).unwrap();
    let path = |name: &str| local.disk.path.join(name);
    for foreign in ["tmp/0123-4", "index/.nfs0001", "index/A", "Thumbs.db", ".hidden"] {
        fs::write(path(foreign), "x").unwrap();
    }
    fs::create_dir_all(path("lost+found/a")).unwrap();
    assert_eq!(names(&local, ""), ["index/a"]);
    assert_eq!(names(&local, "index/"), ["index/a"]);
    assert!(names(&local, "index/a/").is_empty(), "an object is not a directory");
    assert_eq!(kind(local.get("index")), ErrorKind::NotFound, "a directory is not an object");
    assert_eq!(kind(local.stat("index")), ErrorKind::NotFound);
    assert_eq!(kind(local.delete("index")), ErrorKind::NotFound);
    assert_eq!(kind(local.get("index/a/b")), ErrorKind::NotFound);
}

#[test]
fn a_symbolic_link_is_an_error_and_never_an_empty_list() {
    let (home, local) = scene();
    let elsewhere = home.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("a"), "secret").unwrap();
    symlink(&elsewhere, local.disk.path.join("index")).unwrap();
    assert_eq!(kind(local.list("index/")), ErrorKind::Io);
    assert_eq!(kind(local.list("")), ErrorKind::Io);
    symlink(elsewhere.join("a"), local.disk.path.join("config")).unwrap();
    assert_eq!(kind(local.get("config")), ErrorKind::Io);
    assert_eq!(kind(local.stat("config")), ErrorKind::Io);
    assert!(names(&local, "packs/").is_empty());
}

#[test]
fn a_fifo_in_place_of_an_object_does_not_hold_us() {
    let (_home, local) = scene();
    rustix::fs::mknodat(&local.disk.root, "config", FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert_eq!(kind(local.get("config")), ErrorKind::Io);
}

#[test]
fn an_object_is_not_seen_while_it_is_streamed() {
    let (_home, local) = scene();
    let mut writer = local.writer().unwrap();
    for _ in 0..3 {
        writer.write(&[7; 100_000]).unwrap();
        assert!(names(&local, "").is_empty());
        assert_eq!(kind(local.stat("packs/07/object")), ErrorKind::NotFound);
    }
    writer.finish("packs/07/object", WriteMode::CreateNew).unwrap();
    assert_eq!(local.stat("packs/07/object").unwrap(), 300_000);
    assert_eq!(temporary_files(&local), 0);
}

#[test]
fn what_is_not_finished_leaves_no_file() {
    let (_home, local) = scene();
    let mut writer = local.writer().unwrap();
    writer.write(b"some").unwrap();
    assert_eq!(temporary_files(&local), 1);
    drop(writer);
    assert_eq!(temporary_files(&local), 0);
    local.put("a", b"1", WriteMode::CreateNew).unwrap();
    assert_eq!(kind(local.put("a", b"2", WriteMode::CreateNew)), ErrorKind::Exists);
    assert_eq!(kind(local.writer().unwrap().finish("../a", WriteMode::CreateNew)), ErrorKind::Io);
    assert_eq!(kind(local.put("a/b", b"2", WriteMode::CreateNew)), ErrorKind::Io);
    assert_eq!(temporary_files(&local), 0);
    assert_eq!(names(&local, ""), ["a"]);
}

#[test]
fn the_first_put_removes_leftovers_older_than_a_day() {
    let (_home, local) = scene();
    let aged = |name: &str, hours: i64| {
        let path = local.disk.path.join("tmp").join(name);
        fs::write(&path, "x").unwrap();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let then = rustix::fs::Timespec { tv_sec: now.tv_sec - hours * 3600, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: then, last_modification: then };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::empty()).unwrap();
        path
    };
    let (old, recent, ahead) = (aged("old", 25), aged("recent", 23), aged("ahead", -48));
    local.list("").unwrap();
    assert!(old.exists(), "reading removes nothing");
    local.put("a", b"x", WriteMode::CreateNew).unwrap();
    assert!(!old.exists());
    assert!(recent.exists() && ahead.exists());
}

#[test]
fn a_failed_barrier_ends_all_writing() {
    let (_home, local) = scene();
    local.put("config", b"x", WriteMode::CreateNew).unwrap();
    local.put("index/a", b"x", WriteMode::CreateNew).unwrap();
    let writer = local.writer().unwrap();
    fs::remove_dir_all(local.disk.path.join("index")).unwrap();
    let error = local.barrier().unwrap_err();
    assert!(error.to_string().ends_with("/index`"), "{error}");

    let error = local.put("b", b"x", WriteMode::CreateNew).unwrap_err();
    assert!(error.to_string().contains("could not be synced"), "{error}");
    assert!(local.barrier().is_err(), "what was lost stays lost");
    assert!(local.writer().is_err());
    assert!(writer.finish("c", WriteMode::CreateNew).is_err());
    assert!(local.delete("config").is_err());
    assert_eq!(local.get("config").unwrap(), b"x");
    assert_eq!(names(&local, ""), ["config"]);
}

#[test]
fn a_huge_sparse_file_is_an_error_and_no_panic() {
    let (_home, local) = scene();
    let file = fs::File::create(local.disk.path.join("config")).unwrap();
    file.set_len(1 << 43).unwrap();
    assert_eq!(local.get_range("config", (1 << 43) - 2, 2).unwrap(), [0, 0]);
    assert_eq!(kind(local.get_range("config", 0, 1 << 62)), ErrorKind::Corrupt);
    assert_eq!(kind(local.get("config")), ErrorKind::Corrupt, "too long to be read whole");
    file.set_len(crate::storage::GET_BYTES_MAX + 1).unwrap();
    assert_eq!(kind(local.get("config")), ErrorKind::Corrupt);
    assert_eq!(kind(local.get_range("config", u64::MAX, 2)), ErrorKind::Corrupt);
}

#[test]
fn an_unwritable_directory_denies() {
    if rustix::process::geteuid().is_root() {
        return; // Root may write anywhere; the read-only file system below is for root.
    }
    let (_home, local) = scene();
    fs::set_permissions(local.disk.path.join("tmp"), fs::Permissions::from_mode(0o500)).unwrap();
    assert_eq!(kind(local.put("a", b"x", WriteMode::CreateNew)), ErrorKind::Denied);
    fs::set_permissions(local.disk.path.join("packs"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(kind(local.list("packs/")), ErrorKind::Denied);
    fs::set_permissions(local.disk.path.join("packs"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_read_only_file_system_denies() {
    let Some(mount) = Mount::tmpfs("size=4m") else { return };
    let local = Local::create(mount.0.path().join("repository")).unwrap();
    local.put("a", b"x", WriteMode::CreateNew).unwrap();
    assert!(mount.run(&["-o", "remount,ro"]));
    assert_eq!(kind(local.put("b", b"x", WriteMode::CreateNew)), ErrorKind::Denied);
    assert_eq!(kind(local.delete("a")), ErrorKind::Denied);
    assert_eq!(kind(Local::create(mount.0.path().join("other"))), ErrorKind::Denied);
    let local = Local::open(mount.0.path().join("repository")).unwrap();
    assert_eq!(local.get("a").unwrap(), b"x");
}

#[test]
fn a_full_disk_is_told_apart_and_a_failed_write_leaves_nothing() {
    let Some(mount) = Mount::tmpfs("size=1m") else { return };
    let local = Local::create(mount.0.path().join("repository")).unwrap();
    assert_eq!(kind(local.put("a", &[1; 2_000_000], WriteMode::CreateNew)), ErrorKind::Full);
    assert_eq!(temporary_files(&local), 0);
    assert!(names(&local, "").is_empty());

    let mut writer = local.writer().unwrap();
    assert_eq!(kind(writer.write(&[1; 2_000_000])), ErrorKind::Full);
    assert!(writer.finish("a", WriteMode::CreateNew).is_err(), "it may end in half a write");
    assert_eq!(temporary_files(&local), 0);

    local.put("a", &[1; 500_000], WriteMode::CreateNew).unwrap();
    assert_eq!(names(&local, ""), ["a"]);
}
