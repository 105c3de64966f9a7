//! Risk: what is seen through a mount is not what was backed up; damage is read as content; a mount outlives the
//! program, or the program its mount.
//! Method: the program itself mounts a repository with a tree of all that can be stored. The mount is
//! read with the system's own calls and compared with the tree; bytes of packs are flipped below it; it is
//! stopped in every way there is. Needs root and FUSE.

#![cfg(feature = "mount")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};
use rustix::process::{Pid, Signal, kill_process};

#[path = "support/fusefs.rs"]
mod fusefs;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

const MIB: usize = 1 << 20;

/// A repository, a source and a place to mount at.
struct Scene(tempfile::TempDir);

impl Scene {
    /// `None`, aloud, where this machine cannot mount.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return fusefs::skip("mounting needs root");
        }
        if !Path::new("/dev/fuse").exists() {
            return fusefs::skip("there is no /dev/fuse");
        }
        let scene = Self(tempfile::tempdir().unwrap());
        ["source", "mnt"].iter().for_each(|name| fs::create_dir(scene.path(name)).unwrap());
        scene.esker(&["init", "--no-recovery"]);
        Some(scene)
    }

    fn path(&self, name: &str) -> PathBuf {
        // Snapshots have the path without links.
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
        command.args(args).current_dir(self.path("")).env_clear().env("ESKER_REPOSITORY", self.path("repo"));
        command.env("ESKER_KEY_FILE", self.path("key")).env("ESKER_CACHE_DIR", self.path("cache"));
        command.env("ESKER_STATE_DIR", self.path("state")).env("PATH", std::env::var_os("PATH").unwrap());
        command.stdin(Stdio::null());
        command
    }

    fn esker(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Mounts; returns once it is there.
    fn mount(&self, args: &[&str]) -> Mounted {
        let mut command = self.command(&[&["mount", "mnt"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mounted = Mounted { child, at: self.path("mnt") };
        assert!(line.starts_with("mounted at"), "{line}{}", mounted.stop(Signal::TERM).1);
        mounted
    }

    /// The stored packs.
    fn packs(&self) -> BTreeSet<PathBuf> {
        let folders = fs::read_dir(self.path("repo/packs")).unwrap().map(|folder| folder.unwrap().path());
        folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|pack| pack.unwrap().path())).collect()
    }
}

/// A mount, and the program behind it.
struct Mounted {
    child: Child,
    at: PathBuf,
}

impl Mounted {
    /// Where a source path is in the newest snapshot.
    fn latest(&self, path: &Path) -> PathBuf {
        self.at.join("snapshots/latest").join(path.strip_prefix("/").unwrap())
    }

    /// Sends a signal; gives the exit code and what was told.
    fn stop(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = self.child.wait().unwrap();
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        (status.code().or(status.signal().map(|signal| -signal)), told)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("umount").arg("-lq").arg(&self.at).output();
    }
}

fn is_mounted(at: &Path) -> bool {
    let mounts = fs::read("/proc/self/mountinfo").unwrap();
    mounts.split(|&b| b == b'\n').any(|line| line.split(|&b| b == b' ').nth(4) == Some(at.as_os_str().as_bytes()))
}

/// Waits until nothing is mounted there: the kernel tells of every change of the mounts.
fn until_unmounted(at: &Path) {
    let mounts = File::open("/proc/self/mountinfo").unwrap();
    while is_mounted(at) {
        poll(&mut [PollFd::new(mounts.as_fd(), PollFlags::POLLPRI)], PollTimeout::NONE).unwrap();
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// All that can be in a snapshot.
fn make_everything(at: &Path) {
    let path = |name: &str| at.join(name);
    fs::create_dir_all(path("deep/er/still")).unwrap();
    fs::create_dir(path("empty directory")).unwrap();
    fs::create_dir(path("many")).unwrap();
    (0..3000).for_each(|n| fs::write(path(&format!("many/file-{n}")), n.to_string()).unwrap());
    fs::write(path("empty"), "").unwrap();
    fs::write(path("small"), "small\n").unwrap();
    fs::write(path("large"), [noise(1, 5 * MIB), vec![0; MIB], noise(2, 3 * MIB + 17)].concat()).unwrap();
    fs::write(at.join(std::ffi::OsStr::from_bytes(b"odd \xff\n name")), "odd").unwrap();
    let sparse = File::create(path("sparse")).unwrap();
    sparse.write_all_at(&noise(3, 70_000), 2 * MIB as u64).unwrap();
    sparse.set_len(9 * MIB as u64).unwrap();
    fs::hard_link(path("large"), path("deep/large again")).unwrap();
    fs::hard_link(path("large"), path("zz large again")).unwrap();
    symlink("../nowhere", path("deep/link")).unwrap();
    let kinds = [
        ("pipe", FileType::Fifo, 0),
        ("char", FileType::CharacterDevice, makedev(5, 70_000)),
        ("block", FileType::BlockDevice, makedev(259, 3)),
    ];
    for (name, kind, device) in kinds {
        mknodat(CWD, path(name), kind, Mode::from(0o640), device).unwrap();
    }
    for (name, value) in [("user.note", &b"\0\xff"[..]), ("trusted.note", b"t"), ("user.empty", b"")] {
        setxattr(path("small"), name, value, XattrFlags::empty()).unwrap();
    }
    setxattr(path("many"), "user.of", b"a directory", XattrFlags::empty()).unwrap();
    std::os::unix::fs::chown(path("empty"), Some(1234), Some(4321)).unwrap();
    fs::set_permissions(path("empty"), fs::Permissions::from_mode(0o6751)).unwrap();
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::new(300_000_000, 5);
    File::open(path("empty")).unwrap().set_modified(before_1970).unwrap();
}

#[test]
fn a_mounted_snapshot_is_what_was_backed_up() {
    let Some(scene) = Scene::new() else { return };
    let source = scene.path("source");
    make_everything(&source);
    scene.esker(&["backup", "source", "--tag", "a/b", "--host", "there"]);
    let mounted = scene.mount(&[]);
    let expected = tree::lines(&source);
    let seen = tree::lines(&mounted.latest(&source));
    assert_eq!(seen, expected);
    // Once more, from what the kernel remembers.
    assert_eq!(tree::lines(&mounted.latest(&source)), expected);

    let names = |at: &str| {
        let names = fs::read_dir(mounted.at.join(at)).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["hosts", "ids", "snapshots", "tags"]);
    assert_eq!((names("hosts"), names("tags")), (vec!["there".to_owned()], vec!["a_b".to_owned()]));
    let snapshots = names("snapshots");
    assert_eq!((snapshots.len(), &*snapshots[1]), (2, "latest"));
    assert_eq!((names("hosts/there"), names("tags/a_b")), (snapshots.clone(), snapshots.clone()));
    let id = snapshots[0].rsplit('_').next().unwrap();
    assert_eq!(names("ids"), [id]);
    let below = source.strip_prefix("/").unwrap();
    for view in [format!("ids/{id}"), "hosts/there/latest".into(), format!("tags/a_b/{}", snapshots[0])] {
        assert_eq!(tree::lines(&mounted.at.join(view).join(below)), expected);
    }

    // Names of one file are one file; other files are not, nor is it the file of another view.
    let ino = |name: &str| fs::symlink_metadata(mounted.latest(&source).join(name)).unwrap().ino();
    let of_large = ["large", "deep/large again", "zz large again"].map(ino);
    assert!(of_large.iter().all(|ino| *ino == of_large[0]) && of_large[0] != ino("small"));
    let listed = fs::read_dir(mounted.latest(&source)).unwrap().map(|entry| entry.unwrap());
    let of_list: Vec<_> =
        listed.map(|entry| (entry.metadata().unwrap().ino(), std::os::unix::fs::DirEntryExt::ino(&entry))).collect();
    assert!(of_list.iter().all(|(told, listed)| told == listed));
    let (code, told) = mounted.stop(Signal::TERM);
    assert_eq!((code, &*told), (Some(0), ""));
    assert!(!is_mounted(&scene.path("mnt")));

    // The same numbers at the next mount; a part of a snapshot, given to root.
    let again = scene.mount(&[]);
    assert_eq!(fs::symlink_metadata(again.latest(&source).join("large")).unwrap().ino(), of_large[0]);
    drop(again);
    let part = scene.mount(&[&format!("latest:{}", source.display()), "--owner-root"]);
    let empty = fs::symlink_metadata(part.at.join("empty")).unwrap();
    assert_eq!((empty.uid(), empty.gid(), empty.mode() & 0o7777), (0, 0, 0o6751));
    assert_eq!(fs::read(part.at.join("small")).unwrap(), b"small\n");
    assert!(File::create(part.at.join("new")).is_err());
    assert_eq!(fs::symlink_metadata(part.at.join("nothing")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn every_part_of_a_file_is_read_from_anywhere_and_by_many_at_once() {
    let Some(scene) = Scene::new() else { return };
    let source = scene.path("source");
    let content = [noise(5, 6 * MIB), vec![0; 3 * MIB], noise(6, 5 * MIB + 12_345)].concat();
    fs::write(source.join("f"), &content).unwrap();
    scene.esker(&["backup", "source"]);
    let mounted = scene.mount(&[]);
    let path = mounted.latest(&source).join("f");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (path, content) = (&path, &content);
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                for n in 0..100 {
                    let random = noise(1000 * thread + n, 16);
                    let number = |at: usize| u64::from_le_bytes(*random[at..].first_chunk().unwrap()) as usize;
                    let (from, length) = (number(0) % (content.len() + 10), number(8) % 300_000);
                    let mut bytes = vec![0; length];
                    let mut filled = 0;
                    loop {
                        match file.read_at(&mut bytes[filled..], (from + filled) as u64).unwrap() {
                            0 => break,
                            count => filled += count,
                        }
                    }
                    let end = content.len().min(from + length).max(from.min(content.len()));
                    assert!(bytes[..filled] == content[from.min(content.len())..end], "{length} bytes from {from}");
                }
            });
        }
    });
}

#[test]
fn damage_is_an_error_and_is_named() {
    let Some(scene) = Scene::new() else { return };
    let source = scene.path("source");
    fs::write(source.join("whole"), noise(7, 3 * MIB)).unwrap();
    scene.esker(&["backup", "source"]);
    let before = scene.packs();
    fs::write(source.join("damaged"), noise(8, 20 * MIB)).unwrap();
    scene.esker(&["backup", "source"]);
    let after = scene.packs();
    let pack = after.difference(&before).max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    fs::set_permissions(pack, fs::Permissions::from_mode(0o600)).unwrap();
    let stored = File::options().read(true).write(true).open(pack).unwrap();
    let middle = stored.metadata().unwrap().len() / 2;
    let mut byte = [0];
    stored.read_exact_at(&mut byte, middle).unwrap();
    stored.write_all_at(&[byte[0] ^ 1], middle).unwrap();

    let mounted = scene.mount(&[]);
    let at = mounted.latest(&source);
    assert_eq!(fs::read(at.join("whole")).unwrap(), noise(7, 3 * MIB));
    assert_eq!(fs::read(at.join("damaged")).unwrap_err().raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    // What is not damaged of it can be had.
    let mut begin = vec![0; 100_000];
    File::open(at.join("damaged")).unwrap().read_exact(&mut begin).unwrap();
    assert!(begin == noise(8, 100_000));
    let (code, told) = mounted.stop(Signal::INT);
    assert_eq!(code, Some(0));
    assert!(told.contains("source/damaged") && told.contains("cannot open frame"), "{told}");
    assert!(!told.contains("whole"), "{told}");
}

#[test]
fn a_mount_and_its_program_end_together() {
    let Some(scene) = Scene::new() else { return };
    let source = scene.path("source");
    fs::write(source.join("f"), noise(9, MIB)).unwrap();
    scene.esker(&["backup", "source"]);
    // While something is open: what was not read yet is an error from then on.
    for (signal, expected) in [(Signal::TERM, Some(0)), (Signal::HUP, Some(0)), (Signal::KILL, Some(-9))] {
        let mounted = scene.mount(&[]);
        let open = File::open(mounted.latest(&source).join("f")).unwrap();
        let at = mounted.at.clone();
        let mut child_gone = mounted;
        kill_process(Pid::from_child(&child_gone.child), signal).unwrap();
        let status = child_gone.child.wait().unwrap();
        assert_eq!(status.code().or(status.signal().map(|signal| -signal)), expected);
        until_unmounted(&at);
        assert!(open.read_at(&mut [0; 10], MIB as u64 / 2).is_err());
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    }
    // Unmounted by somebody else, the program ends.
    let mut mounted = scene.mount(&[]);
    assert!(Command::new("umount").arg(&mounted.at).status().unwrap().success());
    assert!(mounted.child.wait().unwrap().success());
}
