//! What users fear of a restore: something missing, something wrong, something else destroyed.
//!
//! Trees are made on disk, stored in a repository in memory, restored and compared line by line
//! with the original by code that shares nothing with the restore.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};

use super::*;
use crate::error::Kind;
use crate::format::tree::{Detail, Hole, Totals};
use crate::id::LinkGroup;
use crate::monitor::{Problem, Sink};
use crate::path::Name;
use crate::repo::reader::ReadNodes;
use crate::repo::testing::disk_tree as tree;
use crate::repo::testing::{FakeRepo, entry, plain};
use crate::world::Time;

fn is_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    if std::env::var("ESKER_REQUIRE").is_ok_and(|v| v.split(',').any(|x| x == "root")) {
        panic!("root required")
    }
    false
}

macro_rules! needs_root {
    () => {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
    };
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Sink for Heard {
    fn problem(&self, problem: &Problem) {
        self.0.lock().unwrap().push(format!("{}: {}", problem.item, problem.message));
    }
}

/// A repository, a place to restore to, and what was said.
struct Scene {
    repo: FakeRepo,
    dir: tempfile::TempDir,
    heard: Arc<Heard>,
}

impl Scene {
    fn new() -> Self {
        Self { repo: FakeRepo::new(), dir: tempfile::tempdir().unwrap(), heard: Arc::default() }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    fn options(&self) -> Options<'static> {
        Options { threads: 3, ..Options::new(self.target()) }
    }

    fn monitor(&self) -> Monitor {
        Monitor::new(Arc::clone(&self.heard) as Arc<dyn Sink>)
    }

    fn restore(&self, root: &Entry) -> Report {
        self.restore_with(root, &self.options())
    }

    fn restore_with(&self, root: &Entry, options: &Options<'_>) -> Report {
        run(&self.repo, root, &TreePath::root(), options, &self.monitor()).unwrap()
    }

    fn said(&self) -> Vec<String> {
        let mut said = self.heard.0.lock().unwrap().clone();
        said.sort();
        said
    }

    fn frames_read(&self) -> Vec<u32> {
        let mut read = std::mem::take(&mut *self.repo.frames_read.lock().unwrap());
        read.sort_unstable();
        read
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.target().join(path)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let lines = tree::lines(&self.target());
        lines.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn set_time(path: &Path, secs: i64, nanos: u32) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: secs, tv_nsec: i64::from(nanos) },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// An ACL that lets user 1234 read, as Linux stores it.
fn acl() -> Vec<u8> {
    let mut out = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 4, 1234), (4, 4, u32::MAX), (0x10, 5, u32::MAX), (0x20, 0, u32::MAX)]
    {
        out.extend(tag.to_le_bytes());
        out.extend(perm.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

/// A sparse file: data only in the ranges given.
fn write_sparse(path: &Path, size: u64, data: &[(u64, Vec<u8>)]) {
    let file = fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in data {
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, *offset).unwrap();
    }
}

/// One of everything that Linux keeps.
fn make_everything(top: &Path) {
    fs::create_dir(top).unwrap();
    let at = |name: &str| top.join(name);
    fs::write(at("empty"), b"").unwrap();
    fs::write(at("plain"), b"some text").unwrap();
    fs::write(at("large"), [noise(1, 200_000), noise(1, 50_000), noise(2, 70_001)].concat()).unwrap();
    fs::write(at("setuid"), b"#!/bin/true").unwrap();
    rustix::fs::chown(at("setuid"), Some(rustix::fs::Uid::from_raw(12345)), Some(rustix::fs::Gid::from_raw(54321)))
        .unwrap();
    fs::set_permissions(at("setuid"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::write(at("shut"), b"nobody reads this").unwrap();
    fs::set_permissions(at("shut"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::write(at("old"), b"1969").unwrap();
    set_time(&at("old"), -2, 500_000_001);
    fs::write(at("future"), b"2150").unwrap();
    set_time(&at("future"), 5_680_281_600, 999_999_999);

    fs::write(at("attributed"), b"x").unwrap();
    set_xattr(&at("attributed"), "user.empty", b"");
    set_xattr(&at("attributed"), "user.binary", &noise(3, 500));
    set_xattr(&at("attributed"), "trusted.for-root", b"yes");
    set_xattr(&at("attributed"), "system.posix_acl_access", &acl());
    fs::write(at("capable"), b"#!/bin/true").unwrap();
    set_xattr(&at("capable"), "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    rustix::fs::chown(at("capable"), Some(rustix::fs::Uid::from_raw(7)), None).unwrap();
    set_xattr(&at("capable"), "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

    // Holes at both ends and between, a hole shorter than a run of zeros, and zeros that are no hole.
    let data = noise(4, 8192);
    write_sparse(
        &at("sparse"),
        1_000_000,
        &[(131_072, data.clone()), (147_456, data.clone()), (409_600, vec![0; 204_800])],
    );
    write_sparse(&at("all-hole"), 300_000, &[]);
    fs::write(at("all-zero"), vec![0; 300_000]).unwrap();

    symlink("../anywhere/\u{e9}", at("link")).unwrap();
    set_time(&at("link"), -1, 7);
    rustix::fs::chownat(CWD, at("link"), Some(rustix::fs::Uid::from_raw(99)), None, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    set_xattr(&at("link"), "trusted.on-a-link", b"1");
    let node = |name: &str, kind, mode, device| {
        rustix::fs::mknodat(CWD, at(name), kind, Mode::from_raw_mode(mode), device).unwrap();
        set_time(&at(name), 1_234_567_890, 42);
    };
    node("fifo", FileType::Fifo, 0o640, 0);
    node("char", FileType::CharacterDevice, 0o620, rustix::fs::makedev(5, 300));
    node("block", FileType::BlockDevice, 0o600, rustix::fs::makedev(259, 70_000));

    fs::create_dir(at("d")).unwrap();
    for (name, to) in
        [("plain", "d/2nd"), ("plain", "a-third"), ("link", "link2"), ("fifo", "d/fifo2"), ("empty", "d/e")]
    {
        fs::hard_link(at(name), at(to)).unwrap();
    }
    let odd = at("d").join(std::ffi::OsStr::from_bytes(b"not \xff\xfe UTF-8\n\x1b"));
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("n".repeat(255)), b"long name").unwrap();
    fs::create_dir(at("no-permission")).unwrap();
    fs::write(at("no-permission/inside"), b"still here").unwrap();
    set_xattr(&at("no-permission"), "system.posix_acl_default", &acl());
    fs::set_permissions(at("no-permission"), fs::Permissions::from_mode(0o0000)).unwrap();
    fs::create_dir(at("sticky")).unwrap();
    fs::set_permissions(at("sticky"), fs::Permissions::from_mode(0o7777)).unwrap();
    set_time(&at("sticky"), -300_000_000, 3);
    set_time(&at("d"), 4_294_967_296 + 5, 1);
    set_time(top, 1, 1);
}

#[test]
fn everything_linux_keeps_comes_back() {
    needs_root!();
    let mut scene = Scene::new();
    let original = scene.dir.path().join("original");
    make_everything(&original);
    let stored = scene.repo.store(b"srv", &original);
    let root = scene.repo.root(vec![stored]);
    for verify in [false, true] {
        let report = scene.restore_with(&root, &Options { verify, ..scene.options() });
        assert_eq!(scene.said(), [""; 0]);
        assert_eq!(tree::lines(&scene.target().join("srv")), tree::lines(&original));
        assert_eq!((report.problems, report.damaged_count, report.hard_links), (0, 0, 5), "{report:?}");
        let read = scene.frames_read();
        assert!(read.windows(2).all(|pair| pair[0] != pair[1]), "each frame is opened once: {read:?}");
        fs::remove_dir_all(scene.target()).unwrap();
    }
}

#[test]
fn restoring_again_changes_nothing_and_reads_nothing() {
    needs_root!();
    let mut scene = Scene::new();
    let original = scene.dir.path().join("original");
    make_everything(&original);
    let stored = scene.repo.store(b"srv", &original);
    let root = scene.repo.root(vec![stored]);
    scene.restore(&root);
    scene.frames_read();
    let inode = fs::metadata(scene.target().join("srv/large")).unwrap().ino();
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never] {
        let report = scene.restore_with(&root, &Options { overwrite, delete: true, ..scene.options() });
        assert_eq!((report.files, report.others, report.hard_links, report.deleted), (0, 0, 0, 0), "{overwrite:?}");
        assert!(scene.frames_read().is_empty());
        assert_eq!(scene.said(), [""; 0]);
        assert_eq!(tree::lines(&scene.target().join("srv")), tree::lines(&original), "{overwrite:?}");
        assert_eq!(fs::metadata(scene.target().join("srv/large")).unwrap().ino(), inode);
    }
}

#[test]
fn changed_attributes_of_equal_files_are_put_right() {
    needs_root!();
    let mut scene = Scene::new();
    let original = scene.dir.path().join("original");
    make_everything(&original);
    let stored = scene.repo.store(b"srv", &original);
    let root = scene.repo.root(vec![stored]);
    scene.restore(&root);
    scene.frames_read();
    let at = |name: &str| scene.target().join("srv").join(name);
    for name in ["plain", "large", "sparse", "d", "sticky"] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o4711)).unwrap();
        set_xattr(&at(name), "user.extra", b"to go");
        set_xattr(&at(name), "system.posix_acl_access", &acl());
    }
    set_xattr(&at("attributed"), "user.binary", b"another");
    set_time(&at("link"), 5, 5);
    scene.restore(&root);
    assert_eq!(tree::lines(&at("")), tree::lines(&original));
    assert!(scene.frames_read().is_empty());
}

#[test]
fn depth_and_paths_beyond_path_max_are_no_limit() {
    const DEPTH: usize = 5000;
    let mut scene = Scene::new();
    // In memory where that is possible: ext4 is slow to reuse inodes just deleted.
    scene.dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut below = scene.repo.file("leaf", b"found");
    let name = [b'd'; 100];
    for _ in 0..DEPTH {
        let beside = scene.repo.file("z-beside", b"at every level, after the directory");
        below = scene.repo.directory(&name, plain(0o750), vec![below, beside]);
    }
    let root = scene.repo.root(vec![below]);
    let report = scene.restore(&root);
    assert_eq!((report.problems, report.directories), (0, DEPTH as u64), "{:?}", scene.said());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = rustix::fs::open(scene.target(), flags, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        at = rustix::fs::openat(&at, &name[..], flags, Mode::empty()).unwrap();
        let stat = rustix::fs::fstat(&at).unwrap();
        assert_eq!((stat.st_mode & 0o7777, stat.st_mtime_nsec), (0o750, 123_456_789));
    }
    let leaf = rustix::fs::openat(&at, "leaf", OFlags::RDONLY, Mode::empty()).unwrap();
    assert_eq!(std::io::read_to_string(fs::File::from(leaf)).unwrap(), "found");

    // And it can be removed again, which the standard library could not do with few descriptors.
    let nothing = scene.repo.root(Vec::new());
    let report = scene.restore_with(&nothing, &Options { delete: true, ..scene.options() });
    assert_eq!(report.deleted, 2 * DEPTH as u64 + 1);
    assert_eq!(scene.names(), ["."]);
}

#[test]
fn a_missing_or_damaged_chunk_costs_its_files_and_no_others() {
    let mut scene = Scene::new();
    let content = noise(1, 100_000);
    let mut lost = scene.repo.file("lost", &content);
    let group = Some(LinkGroup::from_bytes([7; 16]));
    lost.attributes.link_group = group;
    let mut link = scene.repo.file("z-link", &content);
    link.attributes.link_group = group;
    let shares = scene.repo.file("shares", &[&content[50_000..60_000], b"more"].concat());
    let corrupt = scene.repo.file("corrupt", &noise(2, 30_000));
    let healed = scene.repo.file("healed", &noise(3, 30_000));
    let fine = scene.repo.file("fine", &noise(4, 30_000));
    scene.repo.lost.insert(scene.repo.chunks_of(&lost)[5]);
    scene.repo.corrupt.insert(scene.repo.chunks_of(&corrupt)[1]);
    scene.repo.healable.insert(scene.repo.chunks_of(&healed)[1]);
    let root = scene.repo.root(vec![lost, link, shares, corrupt, healed, fine]);
    let report = scene.restore(&root);
    assert_eq!(scene.names(), [".", "fine", "healed"]);
    assert_eq!(scene.read("healed"), noise(3, 30_000));
    assert_eq!((report.files, report.problems, report.damaged_count), (2, 4, 4));
    let mut damaged: Vec<String> = report.damaged.iter().map(ToString::to_string).collect();
    damaged.sort();
    assert_eq!(damaged, ["/corrupt", "/lost", "/shares", "/z-link"]);
    let said = scene.said();
    assert!(said[0].starts_with("/corrupt: not restored: chunk `") && said[0].ends_with("is damaged"), "{said:?}");
    assert!(said[1].ends_with("is nowhere"), "{said:?}");
    assert_eq!(said[3], "/z-link: not restored: it is a hard link to `/lost`, which was not restored");
}

#[test]
fn a_missing_list_or_directory_node_costs_what_is_below_it() {
    let mut scene = Scene::new();
    let large = scene.repo.file("large", &noise(1, 500_000));
    let Detail::File { content: crate::format::tree::Content::List { id, .. }, .. } = &large.detail else {
        panic!("a list is expected")
    };
    scene.repo.lost.insert(*id);
    let many = (0..20).map(|n| scene.repo.file(&format!("f{n:02}"), b"x")).collect();
    let many = scene.repo.directory(b"many", plain(0o755), many);
    let Detail::Directory { id, .. } = many.detail else { unreachable!() };
    let crate::format::tree::DirectoryNode::Links { links, .. } =
        crate::format::cbor::decode(&scene.repo.node(&id).unwrap()).unwrap()
    else {
        panic!("several levels are expected")
    };
    scene.repo.lost.insert(links[0].id);
    let root = scene.repo.root(vec![large, many]);
    let report = scene.restore_with(&root, &Options { delete: true, ..scene.options() });
    assert_eq!(report.problems, 2);
    assert_eq!(scene.names(), [".", "many", "many/f16", "many/f17", "many/f18", "many/f19"]);
    assert!(scene.said()[1].starts_with("/many: some of what was in it is not restored"), "{:?}", scene.said());
}

#[test]
fn a_node_that_lies_about_its_place_is_damage() {
    let mut scene = Scene::new();
    let good = scene.repo.file("good", b"good");
    let files = (0..9).map(|n| scene.repo.file(&n.to_string(), b"x")).collect();
    let dir = scene.repo.directory(b"d", plain(0o755), files);
    let Detail::Directory { id, level, .. } = dir.detail else { unreachable!() };
    let totals = Totals::default();
    let detail = |id, level| Detail::Directory { id, level, totals, incomplete: false };
    let higher = entry(b"higher", plain(0o755), detail(id, level + 1));
    let lower = entry(b"lower", plain(0o755), detail(id, level - 1));
    let long = match scene.repo.file("long", &noise(1, 100_000)).detail {
        Detail::File { content, .. } => Detail::File { size: 100_001, content, holes: Vec::new() },
        _ => unreachable!(),
    };
    let short = match &long {
        Detail::File { content, .. } => Detail::File { size: 99_999, content: content.clone(), holes: Vec::new() },
        _ => unreachable!(),
    };
    let (long, short) = (entry(b"long", plain(0o644), long), entry(b"short", plain(0o644), short));
    let root = scene.repo.root(vec![good, higher, long, lower, short]);
    let report = scene.restore(&root);
    assert_eq!(scene.names(), [".", "good", "higher", "lower"]);
    assert_eq!(report.problems, 4, "{:?}", scene.said());
}

#[test]
fn a_planted_link_is_reported_and_never_followed() {
    let mut scene = Scene::new();
    let outside = scene.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), b"precious").unwrap();
    fs::create_dir(scene.target()).unwrap();
    symlink(&outside, scene.target().join("etc")).unwrap();
    symlink(outside.join("precious"), scene.target().join("file")).unwrap();
    symlink(outside.join("new"), scene.target().join("file2")).unwrap();
    let shadow = scene.repo.file("shadow", b"root::");
    let etc = scene.repo.directory(b"etc", plain(0o777), vec![shadow]);
    let (file, file2) = (scene.repo.file("file", b"mine"), scene.repo.file("file2", b"mine too"));
    let root = scene.repo.root(vec![etc, file, file2]);
    let before = tree::lines(&outside);
    let report = scene.restore_with(&root, &Options { delete: true, ..scene.options() });
    assert_eq!(tree::lines(&outside), before);
    assert_eq!(report.problems, 1);
    assert_eq!(
        scene.said(),
        ["/etc: the directory and what is below it were not restored: a symbolic link is in its place"]
    );
    assert_eq!(scene.read("file"), b"mine");
    assert_eq!(scene.read("file2"), b"mine too");
    assert!(fs::symlink_metadata(scene.target().join("file")).unwrap().is_file());
}

/// While data is on its way, another user replaces a directory by a link to elsewhere.
#[test]
fn a_directory_swapped_during_the_restore_is_not_followed() {
    let mut scene = Scene::new();
    let outside = scene.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    // More directories than are kept open, so that the first has to be opened again.
    let mut dirs = Vec::new();
    for n in 0..300 {
        let file = scene.repo.file("file", format!("content {n}").as_bytes());
        dirs.push(scene.repo.directory(format!("d{n:03}").as_bytes(), plain(0o755), vec![file]));
    }
    let root = scene.repo.root(dirs);
    let (target, to) = (scene.target(), outside.clone());
    scene.repo.on_frame = Some(Box::new(move |before| {
        if before == 0 {
            rustix::fs::renameat(CWD, target.join("d000"), CWD, target.join("moved")).unwrap();
            symlink(&to, target.join("d000")).unwrap();
        }
    }));
    let report = scene.restore_with(&root, &Options { threads: 1, ..scene.options() });
    assert_eq!(tree::lines(&outside).len(), 1, "nothing was written there");
    let said = scene.said();
    assert!(said.iter().any(|line| line.starts_with("/d000/file: not restored")), "{said:?}");
    assert!(report.problems >= 1 && report.files == 299, "{report:?}");
}

#[test]
fn only_what_differs_is_fetched_and_the_old_file_stays_until_the_new_is_whole() {
    let mut scene = Scene::new();
    let content = noise(1, 200_000);
    let file = scene.repo.file("file", &content);
    let chunks = scene.repo.chunks_of(&file);
    let root = scene.repo.root(vec![file]);
    fs::create_dir(scene.target()).unwrap();
    let path = scene.target().join("file");
    let mut changed = content.clone();
    changed[12_345] ^= 1;
    fs::write(&path, &changed).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();

    scene.repo.lost.insert(chunks[1]);
    let report = scene.restore(&root);
    assert_eq!((report.problems, report.files), (1, 0));
    assert_eq!(scene.read("file"), changed);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(scene.names(), [".", "file"], "no temporary file stays");
    assert!(scene.frames_read().is_empty());

    scene.repo.lost.clear();
    let report = scene.restore(&root);
    assert_eq!((report.problems, report.files, report.bytes_restored), (0, 1, 200_000), "{:?}", scene.said());
    assert_eq!(scene.read("file"), content);
    assert_eq!(scene.frames_read(), [0], "one frame of four holds the changed chunk");
    assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(scene.names(), [".", "file"]);
}

#[test]
fn a_file_of_another_kind_gives_way_and_a_full_directory_does_not() {
    needs_root!();
    let mut scene = Scene::new();
    fs::create_dir(scene.target()).unwrap();
    let target = scene.target();
    let at = |name: &str| target.join(name);
    fs::create_dir(at("a-file")).unwrap();
    fs::create_dir(at("b-file")).unwrap();
    fs::write(at("b-file/mine"), b"kept").unwrap();
    fs::write(at("c-link"), b"a file").unwrap();
    symlink("elsewhere", at("d-link")).unwrap();
    fs::write(at("e-dir"), b"a file").unwrap();
    rustix::fs::mknodat(CWD, at("f-file"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    fs::write(at("g-fifo"), b"a file").unwrap();
    let link = || Detail::Symlink { target: b"to".to_vec() };
    let inside = scene.repo.file("inside", b"inside");
    let entries = vec![
        scene.repo.file("a-file", b"a"),
        scene.repo.file("b-file", b"b"),
        entry(b"c-link", plain(0o777), link()),
        entry(b"d-link", plain(0o777), link()),
        scene.repo.directory(b"e-dir", plain(0o755), vec![inside]),
        scene.repo.file("f-file", b"f"),
        entry(b"g-fifo", plain(0o600), Detail::Fifo),
    ];
    let root = scene.repo.root(entries);
    scene.restore(&root);
    assert_eq!(scene.said().len(), 1);
    assert!(scene.said()[0].starts_with("/b-file: not restored: Directory not empty"), "{:?}", scene.said());
    let kinds: Vec<String> = tree::lines(&scene.target())
        .iter()
        .map(|line| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        kinds,
        [
            ". Directory",
            "a-file RegularFile",
            "b-file Directory",
            "b-file/mine RegularFile",
            "c-link Symlink",
            "d-link Symlink",
            "e-dir Directory",
            "e-dir/inside RegularFile",
            "f-file RegularFile",
            "g-fifo Fifo"
        ]
    );
    assert_eq!(fs::read_link(at("d-link")).unwrap(), Path::new("to"));
}

#[test]
fn overwrite_says_what_happens_to_files_that_are_there() {
    let kept = |overwrite, secs: i64, content: &str| {
        let mut scene = Scene::new();
        let file = scene.repo.file("file", b"from snapshot");
        let root = scene.repo.root(vec![file]);
        fs::create_dir(scene.target()).unwrap();
        fs::write(scene.target().join("file"), content).unwrap();
        set_time(&scene.target().join("file"), secs, 123_456_789);
        let report = scene.restore_with(&root, &Options { overwrite, ..scene.options() });
        assert_eq!(report.problems, 0);
        (scene.read("file") != b"from snapshot", report.skipped)
    };
    let same = 1_000_000_000;
    assert_eq!(kept(Overwrite::Always, same, "other content"), (false, 0));
    assert_eq!(kept(Overwrite::Always, same, "longer other content"), (false, 0));
    assert_eq!(kept(Overwrite::IfChanged, same, "other content"), (true, 0), "equal size and time are trusted");
    assert_eq!(kept(Overwrite::IfChanged, same + 1, "other content"), (false, 0));
    assert_eq!(kept(Overwrite::IfChanged, same, "longer other content"), (false, 0));
    assert_eq!(kept(Overwrite::IfNewer, same, "other content"), (true, 1));
    assert_eq!(kept(Overwrite::IfNewer, same + 1, "other content"), (true, 1));
    assert_eq!(kept(Overwrite::IfNewer, same - 1, "other content"), (false, 0));
    assert_eq!(kept(Overwrite::Never, same - 1, "other content"), (true, 1));
}

#[test]
fn delete_removes_what_the_snapshot_does_not_have_and_the_filter_does_not_leave_out() {
    let mut scene = Scene::new();
    let make = |scene: &Scene| {
        for dir in ["d/extra/deep", "whole", "torn", "untouched"] {
            fs::create_dir_all(scene.target().join(dir)).unwrap();
        }
        for file in ["d/kept", "d/extra/deep/x", "d/extra/y", "d/extra.log", "whole/z", "torn/z", "untouched/z", "top"]
        {
            fs::write(scene.target().join(file), b"old").unwrap();
        }
        symlink("/etc", scene.target().join("d/link")).unwrap();
    };
    let kept = scene.repo.file("kept", b"new");
    let d = scene.repo.directory(b"d", plain(0o755), vec![kept]);
    let whole = scene.repo.directory(b"whole", plain(0o755), Vec::new());
    let mut torn = scene.repo.directory(b"torn", plain(0o755), Vec::new());
    let Detail::Directory { incomplete, .. } = &mut torn.detail else { unreachable!() };
    *incomplete = true;
    let root = scene.repo.root(vec![d, whole, torn]);
    let filter = |path: &TreePath, _: bool| match path.as_bytes() {
        b"/untouched" => Selection::Skip,
        path if path.ends_with(b".log") => Selection::Skip,
        _ => Selection::Take,
    };
    make(&scene);
    let options = Options { delete: true, filter: Some(&filter), dry_run: true, ..scene.options() };
    let before = tree::lines(&scene.target());
    let report = scene.restore_with(&root, &options);
    assert_eq!(tree::lines(&scene.target()), before);
    assert_eq!((report.deleted, report.files), (7, 1), "a dry run counts all that it would remove");

    let report = scene.restore_with(&root, &Options { dry_run: false, ..options });
    assert_eq!(
        scene.names(),
        [".", "d", "d/extra.log", "d/kept", "torn", "torn/z", "untouched", "untouched/z", "whole"]
    );
    assert_eq!((report.deleted, report.problems), (7, 0), "{:?}", scene.said());
    assert_eq!(scene.read("d/kept"), b"new");
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn a_filter_makes_only_the_directories_that_lead_to_something() {
    let mut scene = Scene::new();
    let wanted = scene.repo.file("wanted", b"w");
    let b = scene.repo.directory(b"b", plain(0o711), vec![wanted]);
    let other = scene.repo.file("other", b"o");
    let a = scene.repo.directory(b"a", plain(0o755), vec![b, other.clone()]);
    let c = scene.repo.directory(b"c", plain(0o755), vec![other]);
    let root = scene.repo.root(vec![a, c]);
    let filter = |path: &TreePath, directory: bool| match (path.as_bytes(), directory) {
        (b"/a/b/wanted", _) => Selection::Take,
        (_, true) => Selection::Look,
        _ => Selection::Skip,
    };
    scene.restore_with(&root, &Options { filter: Some(&filter), ..scene.options() });
    assert_eq!(scene.names(), [".", "a", "a/b", "a/b/wanted"]);
    let mode = fs::metadata(scene.target().join("a/b")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o711);
}

#[test]
fn a_base_is_stripped_and_gives_a_new_target_its_attributes() {
    let mut scene = Scene::new();
    let file = scene.repo.file("file", b"x");
    let app = scene.repo.directory(b"app", plain(0o751), vec![file]);
    let srv = scene.repo.directory(b"srv", plain(0o755), vec![app]);
    let root = scene.repo.root(vec![srv]);
    let base = |path: &str| TreePath::from_os(Path::new(path)).unwrap();
    let go = |path: &str, options: &Options<'_>| run(&scene.repo, &root, &base(path), options, &scene.monitor());
    go("/srv/app", &scene.options()).unwrap();
    assert_eq!(scene.names(), [".", "file"]);
    assert_eq!(fs::metadata(scene.target()).unwrap().mode() & 0o7777, 0o751);

    // A directory in use keeps its own attributes.
    let used = scene.dir.path().join("used");
    fs::create_dir(&used).unwrap();
    fs::write(used.join("mine"), b"mine").unwrap();
    fs::set_permissions(&used, fs::Permissions::from_mode(0o1777)).unwrap();
    go("/srv/app/file", &Options::new(&used)).unwrap();
    assert_eq!(fs::read(used.join("file")).unwrap(), b"x");
    go("/srv/app", &Options::new(&used)).unwrap();
    assert_eq!(fs::metadata(&used).unwrap().mode() & 0o7777, 0o1777);

    let error = go("/srv/none", &scene.options()).unwrap_err();
    assert_eq!(error.to_string(), "there is no `/srv/none` in the snapshot");
    let error = go("/srv/app/file/x", &scene.options()).unwrap_err();
    assert_eq!(error.to_string(), "`/srv/app/file` in the snapshot is not a directory");
}

#[test]
fn another_name_of_a_file_in_place_does_not_change_with_it() {
    let mut scene = Scene::new();
    fs::create_dir(scene.target()).unwrap();
    let outside = scene.dir.path().join("outside");
    fs::write(&outside, b"same content").unwrap();
    fs::hard_link(&outside, scene.target().join("file")).unwrap();
    let before = tree::lines(scene.dir.path()).iter().find(|line| line.starts_with("outside")).cloned();
    let mut file = scene.repo.file("file", b"same content");
    file.attributes.mode = 0o777;
    let root = scene.repo.root(vec![file]);
    scene.restore(&root);
    let after = tree::lines(scene.dir.path()).iter().find(|line| line.starts_with("outside")).cloned();
    assert_eq!(after, before);
    assert_eq!(fs::metadata(scene.target().join("file")).unwrap().mode() & 0o7777, 0o777);
}

#[test]
fn hard_links_are_made_over_separate_files_in_place() {
    let mut scene = Scene::new();
    fs::create_dir(scene.target()).unwrap();
    for name in ["a", "b"] {
        fs::write(scene.target().join(name), b"linked").unwrap();
    }
    let mut entries: Vec<Entry> = ["a", "b", "c"].iter().map(|name| scene.repo.file(name, b"linked")).collect();
    entries.iter_mut().for_each(|entry| entry.attributes.link_group = Some(LinkGroup::from_bytes([1; 16])));
    let root = scene.repo.root(entries);
    let report = scene.restore(&root);
    assert_eq!((report.unchanged, report.hard_links), (1, 2));
    let inode = |name: &str| fs::metadata(scene.target().join(name)).unwrap().ino();
    assert!(inode("a") == inode("b") && inode("b") == inode("c"));
    assert_eq!(scene.names().len(), 4);
}

/// SPEC §6.5: a hostile writer's tree must not give a file another's bytes.
#[test]
fn entries_of_one_link_group_with_other_content_are_files_of_their_own() {
    let mut scene = Scene::new();
    let mut entries: Vec<Entry> =
        [("a", "one"), ("b", "two"), ("c", "one")].map(|(name, text)| scene.repo.file(name, text.as_bytes())).into();
    entries.push(entry(b"d", plain(0o644), Detail::Fifo));
    entries.iter_mut().for_each(|entry| entry.attributes.link_group = Some(LinkGroup::from_bytes([1; 16])));
    let root = scene.repo.root(entries);
    let report = scene.restore(&root);
    assert_eq!((report.files, report.others, report.hard_links, report.problems), (2, 1, 1, 0));
    assert_eq!(["a", "b", "c"].map(|name| scene.read(name)), [b"one", b"two", b"one"].map(|text| text.to_vec()));
    let stat = |name: &str| fs::metadata(scene.target().join(name)).unwrap();
    assert!(stat("a").ino() == stat("c").ino() && stat("d").file_type().is_fifo());
}

#[test]
fn zeros_outside_holes_are_written_and_data_in_a_hole_wins() {
    let mut scene = Scene::new();
    let mut bytes = vec![0; 400_000];
    bytes[150_000..160_000].copy_from_slice(&noise(1, 10_000));
    // A hole is claimed over the data, and another over half of the zeros behind it.
    let holes = vec![Hole { offset: 0, bytes: 204_800 }, Hole { offset: 286_720, bytes: 113_280 }];
    let file = scene.repo.sparse_file(b"file", plain(0o644), &bytes, holes);
    let root = scene.repo.root(vec![file]);
    scene.restore(&root);
    assert_eq!(scene.read("file"), bytes);
    let file = fs::File::open(scene.target().join("file")).unwrap().into();
    assert_eq!(tree::holes(&file, 400_000), [(0, 147_456), (163_840, 40_960), (286_720, 113_280)]);
}

#[test]
fn a_time_the_file_system_does_not_have_is_said() {
    let mut scene = Scene::new();
    let mut file = scene.repo.file("file", b"x");
    file.attributes.mtime = Time { secs: i64::MAX / 4, nanos: 0 };
    let root = scene.repo.root(vec![file]);
    let report = scene.restore(&root);
    assert_eq!((report.files, report.problems), (1, 1));
    assert!(scene.said()[0].starts_with("/file: the time could not be restored"), "{:?}", scene.said());
}

#[test]
fn an_interrupted_restore_leaves_no_half_files() {
    let mut scene = Scene::new();
    let files = (0..10).map(|n| scene.repo.file(&format!("f{n}"), &noise(n, 60_000))).collect();
    let root = scene.repo.root(files);
    fs::create_dir(scene.target()).unwrap();
    fs::write(scene.target().join("f9"), b"old").unwrap();
    let monitor = scene.monitor();
    let stop = monitor.clone();
    scene.repo.on_frame = Some(Box::new(move |before| {
        if before == 3 {
            stop.stop();
        }
    }));
    let options = Options { threads: 1, ..scene.options() };
    let error = run(&scene.repo, &root, &TreePath::root(), &options, &monitor).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    // Frames of 50,000 bytes: after three, two files are whole.
    assert_eq!(scene.names(), [".", "f0", "f1", "f9"]);
    assert_eq!(scene.read("f1"), noise(1, 60_000));
    assert_eq!(scene.read("f9"), b"old");
    assert_eq!(scene.said(), [""; 0]);
}

/// A file system of one megabyte, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path) -> Self {
        fs::create_dir(path).unwrap();
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "esker-test"]).arg(path).status();
        assert!(mount.unwrap().success());
        Self(path.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_target_ends_the_restore_and_keeps_what_is_whole() {
    needs_root!();
    let mut scene = Scene::new();
    let _small = Small::mount(&scene.target());
    let files = (0..10).map(|n| scene.repo.file(&format!("f{n}"), &noise(n, 300_000))).collect();
    let root = scene.repo.root(files);
    let options = Options { threads: 1, ..scene.options() };
    let error = run(&scene.repo, &root, &TreePath::root(), &options, &scene.monitor()).unwrap_err();
    assert_eq!(error.to_string(), "the restore stopped at `/f3`: the target takes no more");
    assert_eq!(scene.names(), [".", "f0", "f1", "f2"]);
    assert_eq!(scene.said(), [""; 0]);
    (0..3).for_each(|n| assert_eq!(scene.read(&format!("f{n}")), noise(n, 300_000)));
}

/// A backup that stays on its file systems has an empty directory where another is mounted.
#[test]
fn nothing_is_deleted_in_a_mount_that_was_not_backed_up() {
    needs_root!();
    let mut scene = Scene::new();
    fs::create_dir(scene.target()).unwrap();
    let _mount = Small::mount(&scene.target().join("mounted"));
    fs::create_dir(scene.target().join("plain")).unwrap();
    fs::write(scene.target().join("mounted/mine"), b"mine").unwrap();
    fs::write(scene.target().join("plain/extra"), b"extra").unwrap();
    let mounted = scene.repo.directory(b"mounted", plain(0o755), Vec::new());
    let ordinary = scene.repo.directory(b"plain", plain(0o755), Vec::new());
    let root = scene.repo.root(vec![mounted, ordinary]);
    let report = scene.restore_with(&root, &Options { delete: true, ..scene.options() });
    assert_eq!((report.deleted, report.problems), (1, 0));
    assert_eq!(scene.read("mounted/mine"), b"mine");
    assert!(scene.said()[0].starts_with("/mounted: nothing was deleted in it"), "{:?}", scene.said());
}

#[test]
fn a_dry_run_counts_the_same_and_makes_nothing() {
    let mut scene = Scene::new();
    let files = (0..10).map(|n| scene.repo.file(&format!("f{n}"), &noise(n, 20_000))).collect();
    let dir = scene.repo.directory(b"d", plain(0o755), files);
    let root = scene.repo.root(vec![dir]);
    let dry = scene.restore_with(&root, &Options { dry_run: true, ..scene.options() });
    assert!(!scene.target().exists());
    assert_eq!((dry.files, dry.bytes_restored), (10, 200_000));
    fs::create_dir_all(scene.target().join("d")).unwrap();
    fs::write(scene.target().join("d/f3"), noise(3, 20_000)).unwrap();
    let dry = scene.restore_with(&root, &Options { dry_run: true, ..scene.options() });
    assert_eq!((dry.files, dry.unchanged), (9, 1));
    assert_eq!(scene.names(), [".", "d", "d/f3"]);
    assert!(scene.frames_read().is_empty());
    let wet = scene.restore(&root);
    assert_eq!((wet.files, wet.unchanged), (9, 1));
}

/// Runs in a thread that is `nobody`, whose files land in a directory of its own.
#[test]
fn without_root_what_cannot_be_set_is_said_once_a_kind() {
    needs_root!();
    let mut scene = Scene::new();
    let original = scene.dir.path().join("original");
    make_everything(&original);
    let stored = scene.repo.store(b"srv", &original);
    let root = scene.repo.root(vec![stored]);
    let nobody = (rustix::fs::Uid::from_raw(65534), rustix::fs::Gid::from_raw(65534));
    rustix::fs::chown(scene.dir.path(), Some(nobody.0), Some(nobody.1)).unwrap();
    let report = std::thread::scope(|scope| {
        let as_nobody = || {
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(nobody.1, nobody.1, nobody.1).unwrap();
            rustix::thread::set_thread_res_uid(nobody.0, nobody.0, nobody.0).unwrap();
            scene.restore(&root)
        };
        scope.spawn(as_nobody).join().unwrap()
    });
    let kinds: Vec<String> = scene.said().iter().map(|line| line.split(": ").nth(1).unwrap().to_owned()).collect();
    let kind = |what: &str| kinds.iter().filter(|kind| kind.contains(what)).count();
    for what in ["device nodes", "the owner", "file capabilities", "attributes of `trusted`", "setuid or setgid"] {
        assert_eq!(kind(what), 1, "{what}: {kinds:?}");
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
    assert!(report.problems > 20);
    assert_eq!(report.damaged_count, 0);
    // All the content and everything else that may be set is there.
    let stripped = |top: &Path| -> Vec<String> {
        let lines = tree::lines(top)
            .into_iter()
            .filter(|line| !line.contains("Device") && !line.starts_with("setuid") && !line.starts_with("sticky"));
        lines
            .map(|line| {
                let line = line.replace(" 0:0 ", " o ").replace(" 65534:65534 ", " o ").replace(" 99:0 ", " o ");
                let line = line.replace(" 7:0 ", " o ");
                let keep = |word: &&str| !word.starts_with("[trusted.") && !word.starts_with("[security.");
                line.split(' ').filter(keep).collect::<Vec<_>>().join(" ")
            })
            .collect()
    };
    assert_eq!(stripped(&scene.target().join("srv")), stripped(&original));
    assert_eq!(fs::metadata(scene.target().join("srv/sticky")).unwrap().mode() & 0o7777, 0o1777);
    let setuid = fs::metadata(scene.target().join("srv/setuid")).unwrap();
    assert_eq!((setuid.uid(), setuid.mode() & 0o7777), (65534, 0o751), "setuid of somebody else's is not given away");
}

#[test]
fn names_count_before_ids_unless_numeric() {
    needs_root!();
    for (numeric_ids, expected) in [(false, (65534, 4321)), (true, (1234, 4321))] {
        let mut scene = Scene::new();
        let mut file = scene.repo.file("file", b"x");
        file.attributes.uid = 1234;
        file.attributes.gid = 4321;
        file.attributes.user = Some("nobody".into());
        file.attributes.group = Some("a group nobody has here".into());
        let root = scene.repo.root(vec![file]);
        scene.restore_with(&root, &Options { numeric_ids, ..scene.options() });
        let meta = fs::metadata(scene.target().join("file")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), expected);
    }
}

#[test]
fn more_files_than_descriptors_are_written_out_of_order() {
    let mut scene = Scene::new();
    scene.repo.chunk_bytes = 100;
    // Every file's first chunk is stored before any file's second one.
    let content = |n: u64| noise(n, 300);
    for part in 0..3 {
        for n in 0..600 {
            scene.repo.put(&content(n)[part * 100..][..100]);
        }
    }
    let files = (0..600).map(|n| scene.repo.file(&format!("f{n:03}"), &content(n))).collect();
    let root = scene.repo.root(files);
    let report = scene.restore(&root);
    assert_eq!((report.files, report.problems), (600, 0), "{:?}", scene.said());
    (0..600).for_each(|n| assert_eq!(scene.read(&format!("f{n:03}")), content(n)));
}

#[test]
fn entries_from_a_name_are_the_rest_of_the_directory() {
    use crate::repo::reader::Entries;
    let mut repo = FakeRepo::new();
    let names: Vec<String> = (0..50).map(|n| format!("n{:02}", n * 2)).collect();
    let entries = names.iter().map(|name| repo.file(name, b"x")).collect();
    let Detail::Directory { id, level, .. } = repo.root(entries).detail else { unreachable!() };
    let from = |name: &str| -> Vec<String> {
        let entries = Entries::from_name(&repo, id, level, Name::new(name.as_bytes()).unwrap());
        entries.map(|entry| entry.unwrap().name.unwrap().to_string()).collect()
    };
    for n in 0..101 {
        let expected: Vec<String> = names.iter().filter(|name| **name >= format!("n{n:02}")).cloned().collect();
        assert_eq!(from(&format!("n{n:02}")), expected);
    }
    assert_eq!(from("a"), names);
}
