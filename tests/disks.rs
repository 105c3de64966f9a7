//! The risk: a file system that lacks what we rely on, a disk that is full or failing, and an
//! error that names the wrong one of them, or none.
//! The method: whole commands on a FUSE file system that lacks or fails what a test tells it to,
//! and on real small ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;

#[allow(dead_code)]
#[path = "support/cli.rs"]
mod cli;
#[path = "support/fusefs.rs"]
mod fusefs;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use cli::{Machine, Output};
use fusefs::{Mount, Op, PLAIN, POOR, Profile};

/// A machine of which some directories lie on a file system of their own.
struct Scene {
    machine: Machine,
    mount: Mount,
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl Scene {
    /// A machine with a source tree, whose repository, cache and so on the test places.
    fn new(profile: &'static Profile) -> Option<Self> {
        let mount = Mount::new(profile)?;
        let mut machine = Machine::new();
        machine.set("ESKER_REPOSITORY", machine.path("repository"));
        machine.write("source/big", noise(1, 3 << 20));
        machine.write("source/text", "hello");
        for n in 0..20 {
            machine.write(&format!("source/d/{n}"), noise(n, 3000));
        }
        std::os::unix::fs::symlink("text", machine.path("source/link")).unwrap();
        Some(Self { machine, mount })
    }

    /// The same with the repository on the mount.
    fn with_repository(profile: &'static Profile) -> Option<Self> {
        let mut scene = Self::new(profile)?;
        let place = scene.on_mount("repository");
        scene.machine.set("ESKER_REPOSITORY", place);
        scene.machine.esker(["init"]).success();
        Some(scene)
    }

    /// The same with the repository beside it, and the source tree on the mount.
    fn with_source(profile: &'static Profile) -> Option<Self> {
        let scene = Self::new(profile)?;
        scene.machine.esker(["init"]).success();
        let from = scene.machine.path("source");
        let copied = Command::new("cp").arg("-r").arg(from).arg(scene.mount.path()).status();
        assert!(copied.unwrap().success());
        Some(scene)
    }

    fn on_mount(&self, below: &str) -> PathBuf {
        self.mount.path().join(below)
    }

    fn backup(&self, source: &Path) -> Output {
        self.machine.esker(["backup".as_ref(), source.as_os_str()])
    }

    fn backup_source(&self) -> Output {
        self.backup(&self.machine.path("source"))
    }

    fn restore(&self, source: &Path, target: &Path) -> Output {
        let snapshot = format!("latest:{}", source.canonicalize().unwrap().display());
        self.machine.esker(["restore".as_ref(), snapshot.as_ref(), "--target".as_ref(), target.as_os_str()])
    }

    /// Asserts that the newest snapshot is whole: a clean check, and the tree comes back as it is.
    #[track_caller]
    fn assert_whole(&self, source: &Path) {
        self.machine.esker(["check", "--read-data"]).success();
        self.assert_restores(source);
    }

    #[track_caller]
    fn assert_restores(&self, source: &Path) {
        let target = tempfile::tempdir_in(self.machine.path("")).unwrap();
        self.restore(source, target.path()).success();
        assert_eq!(tree::lines(target.path()), tree::lines(source));
    }

    /// How many snapshots are listed.
    fn snapshots(&self) -> usize {
        let listed = self.machine.esker(["snapshots", "--json"]).success();
        listed.json()[0].as_array().unwrap().len()
    }
}

/// All regular files below a directory, by path.
fn files(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[track_caller]
fn assert_says(output: &Output, words: &[&str]) {
    let said = output.err();
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
}

#[test]
fn the_file_system_itself_passes_everything_through_and_fails_on_demand() {
    let Some(mount) = Mount::new(&PLAIN) else { return };
    let at = |name: &str| mount.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/f"), vec![7; 300_000]).unwrap();
    rustix::fs::rename(at("d/f"), at("d/g")).unwrap();
    assert_eq!(fs::read(at("d/g")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::read(mount.backing().join("d/g")).unwrap().len(), 300_000);
    fs::hard_link(at("d/g"), at("h")).unwrap();
    std::os::unix::fs::symlink("d/g", at("l")).unwrap();
    assert_eq!(fs::read_link(at("l")).unwrap().to_str(), Some("d/g"));
    let mut names: Vec<_> = fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["d", "h", "l"]);

    let failed = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
    mount.fail_from(Op::Read, "d/g", 200_000, Errno::IO);
    assert_eq!(failed(fs::read(at("d/g")).map(drop)), Some(5));
    mount.fail_from(Op::List, "d", 2, Errno::IO);
    assert_eq!(failed(fs::read_dir(at("d")).unwrap().try_for_each(|entry| entry.map(drop))), Some(5));
    mount.fill(1000, Errno::NOSPC);
    assert_eq!(failed(fs::write(at("full"), vec![1; 5000])), Some(28));
    assert!(mount.mend().iter().any(|(op, path)| *op == Op::Read && path == "d/g"));
    fs::write(at("full"), vec![1; 5000]).unwrap();
    fs::read(at("d/g")).unwrap();
}

#[test]
fn a_repository_works_on_every_poor_file_system() {
    for profile in POOR {
        let Some(scene) = Scene::with_repository(profile) else { return };
        let source = scene.machine.path("source");
        scene.backup_source().success();
        scene.machine.write("source/text", "changed");
        scene.backup_source().success();
        assert_eq!(scene.snapshots(), 2, "{}", profile.name);
        scene.assert_whole(&source);
        assert!(files(&scene.on_mount("repository/tmp")).is_empty(), "{}", profile.name);
    }
}

#[test]
fn a_cache_and_a_key_file_work_on_every_poor_file_system() {
    for profile in POOR {
        let Some(mut scene) = Scene::new(profile) else { return };
        scene.machine.set("ESKER_KEY_FILE", scene.on_mount("key"));
        scene.machine.set("ESKER_CACHE_DIR", scene.on_mount("cache"));
        scene.machine.esker(["init"]).success();
        scene.backup_source().success();
        let second = scene.backup_source().success();
        if profile.flock.is_some() {
            assert_says(&second, &["not used", "No locks available"]);
        } else {
            assert_eq!(second.err(), "", "{}", profile.name);
        }
        // The change record needs no locks.
        assert!(second.out().contains("files        0 new"), "{second}");
        scene.assert_whole(&scene.machine.path("source"));
    }
}

/// What goes wrong, and words that tell it.
type Case = (&'static str, fn(&Mount), &'static [&'static str]);

/// borg reported a full repository as an error of the file it was reading, and left that file
/// out (docs/changes.rst:444). Here nothing is left out, and the repository is named.
#[test]
fn a_failing_repository_is_named_and_the_same_backup_works_once_it_is_mended() {
    let cases: &[Case] = &[
        ("full", |mount| mount.fill(1 << 20, Errno::NOSPC), &["cannot write", "/repository/", "No space left"]),
        ("full at once", |mount| mount.fill(0, Errno::NOSPC), &["cannot write", "/repository/", "No space left"]),
        ("full by quota", |mount| mount.fill(1 << 20, Errno::DQUOT), &["cannot write", "/repository/", "quota"]),
        (
            "write",
            |mount| mount.fail_from(Op::Write, "repository/tmp/", 1 << 20, Errno::IO),
            &["/repository/tmp/", "os error 5"],
        ),
        (
            "sync of a pack",
            |mount| mount.fail(Op::Sync, "repository/tmp/", Errno::IO),
            &["/repository/tmp/", "os error 5"],
        ),
        (
            "sync of a directory",
            |mount| mount.fail(Op::Sync, "repository/packs", Errno::IO),
            &["/repository/packs", "os error 5"],
        ),
        (
            "sync of the commit",
            |mount| mount.fail(Op::Sync, "repository/snapshots", Errno::IO),
            &["/repository/snapshots", "os error 5"],
        ),
        (
            "rename",
            |mount| mount.fail(Op::Rename, "repository/packs/", Errno::IO),
            &["/repository/packs/", "os error 5"],
        ),
        (
            "rename of the commit",
            |mount| mount.fail(Op::Rename, "repository/snapshots/", Errno::NOSPC),
            &["/repository/snapshots/", "No space left"],
        ),
        (
            "list",
            |mount| mount.fail_from(Op::List, "repository/packs/1", 2, Errno::IO),
            &["cannot list", "/repository/packs/1", "os error 5"],
        ),
        (
            "list of commits",
            |mount| mount.fail(Op::List, "repository/snapshots", Errno::IO),
            &["cannot list", "/repository/snapshots", "os error 5"],
        ),
        (
            "stale",
            |mount| mount.fail(Op::Open, "repository/snapshots", Errno::STALE),
            &["/repository/snapshots", "Stale file handle"],
        ),
        ("config", |mount| mount.fail(Op::Read, "repository/config", Errno::IO), &["/repository/config", "os error 5"]),
        (
            "config is gone for now",
            |mount| mount.fail(Op::Look, "repository/config", Errno::STALE),
            &["/repository/config", "Stale"],
        ),
        ("access", |mount| mount.fail(Op::Read, "repository/access", Errno::IO), &["/repository/access", "os error 5"]),
    ];
    let Some(scene) = Scene::with_repository(&PLAIN) else { return };
    let source = scene.machine.path("source");
    scene.backup_source().success();
    for (n, (what, fault, words)) in cases.iter().enumerate() {
        scene.machine.write("source/new", noise(100 + n as u64, 4 << 20));
        let before = scene.snapshots();
        fault(&scene.mount);
        let failed = scene.backup_source();
        assert!(what.starts_with("full") || !scene.mount.mend().is_empty(), "{what}: the fault was met");
        scene.mount.mend();
        assert_eq!(failed.code, 1, "{what}: {failed}");
        assert!(!failed.err().contains("/source"), "{what}: {failed}");
        assert_says(&failed, words);
        assert_eq!(files(&scene.on_mount("repository/tmp")), Vec::<PathBuf>::new(), "{what}");
        // A commit that could not be synced may be there: it is whole then.
        assert!(scene.snapshots() >= before, "{what}");
        scene.machine.esker(["check"]).success();
        scene.backup_source().success();
    }
    scene.assert_whole(&source);
}

#[test]
fn a_failing_source_is_named_and_its_files_are_never_cut_short() {
    let cases: &[Case] = &[
        ("read", |mount| mount.fail_from(Op::Read, "source/big", 1 << 20, Errno::IO), &["/source/big", "os error 5"]),
        ("read of nothing", |mount| mount.fail(Op::Read, "source/text", Errno::IO), &["/source/text", "os error 5"]),
        ("stale", |mount| mount.fail_from(Op::Read, "source/big", 1 << 20, Errno::STALE), &["/source/big", "Stale"]),
        (
            "short",
            |mount| mount.fail_from(Op::ReadShort, "source/big", 1 << 20, Errno::IO),
            &["/source/big", "of its 3145728 bytes"],
        ),
        ("open", |mount| mount.fail(Op::Open, "source/text", Errno::IO), &["/source/text", "os error 5"]),
        ("look", |mount| mount.fail(Op::Look, "source/text", Errno::IO), &["/source/text", "os error 5"]),
        (
            "list",
            |mount| mount.fail_from(Op::List, "source/d", 7, Errno::IO),
            &["/source/d", "entries cannot be listed", "os error 5"],
        ),
        (
            "list at once",
            |mount| mount.fail(Op::List, "source/d", Errno::IO),
            &["/source/d", "entries cannot be listed", "os error 5"],
        ),
        ("open a directory", |mount| mount.fail(Op::Open, "source/d", Errno::IO), &["/source/d", "os error 5"]),
        (
            "attributes",
            |mount| mount.fail(Op::Xattr, "source/text", Errno::IO),
            &["/source/text", "extended attributes", "os error 5"],
        ),
        ("link", |mount| mount.fail(Op::ReadLink, "source/link", Errno::IO), &["/source/link", "os error 5"]),
    ];
    // Without maps, so that no answer comes from the kernel's memory.
    static UNCACHED: Profile = Profile { mmap: false, ..PLAIN };
    let Some(scene) = Scene::with_source(&UNCACHED) else { return };
    let source = scene.on_mount("source");
    for (n, (what, fault, words)) in cases.iter().enumerate() {
        fault(&scene.mount);
        let failed = scene.backup(&source);
        assert!(!scene.mount.mend().is_empty(), "{what}: the fault was met");
        assert_eq!(failed.code, 3, "{what}: {failed}");
        assert!(!failed.err().contains("/repository"), "{what}: {failed}");
        assert_says(&failed, words);
        assert_eq!(scene.snapshots(), n + 1, "{what}");
        let target = tempfile::tempdir_in(scene.machine.path("")).unwrap();
        scene.restore(&source, target.path()).success();
        for file in files(target.path()) {
            let from = source.join(file.strip_prefix(target.path()).unwrap());
            assert!(fs::read(&file).unwrap() == fs::read(from).unwrap(), "{what}: {}", file.display());
        }
    }
    scene.backup(&source).success();
    scene.assert_whole(&source);
}

#[test]
fn a_full_or_failing_cache_is_told_of_and_never_fails_a_backup() {
    let cases: &[Case] = &[
        ("full", |mount| mount.fill(2000, Errno::NOSPC), &["cache", "No space left"]),
        ("full at once", |mount| mount.fill(0, Errno::NOSPC), &["cache", "No space left"]),
        ("full by quota", |mount| mount.fill(2000, Errno::DQUOT), &["cache", "quota"]),
        (
            "read only",
            |mount| {
                mount.fail(Op::Make, "", Errno::ROFS);
                mount.fail(Op::Write, "", Errno::ROFS)
            },
            &["cache", "Read-only"],
        ),
        ("write", |mount| mount.fail(Op::Write, "", Errno::IO), &["cache", "os error 5"]),
        ("sync", |mount| mount.fail(Op::Sync, "", Errno::IO), &["cache", "os error 5"]),
        ("open", |mount| mount.fail(Op::Open, "cache/", Errno::IO), &["cache", "os error 5"]),
        ("read", |mount| mount.fail(Op::Read, "catalog.redb", Errno::IO), &[]),
        ("read of runs", |mount| mount.fail(Op::Read, ".run", Errno::IO), &[]),
        ("read of all", |mount| mount.fail(Op::Read, "", Errno::IO), &[]),
        ("look", |mount| mount.fail(Op::Look, "cache", Errno::IO), &["cache", "os error 5"]),
    ];
    for (what, fault, words) in cases {
        for used_before in [false, true] {
            let Some(mut scene) = Scene::new(&PLAIN) else { return };
            scene.machine.set("ESKER_CACHE_DIR", scene.on_mount("cache"));
            scene.machine.esker(["init"]).success();
            if used_before {
                scene.backup_source().success();
            }
            scene.machine.write("source/new", noise(7, 1 << 20));
            fault(&scene.mount);
            let warned = scene.backup_source();
            assert_eq!(warned.code, 0, "{what}: {warned}");
            assert_says(&warned, words);
            let restored = scene.restore(&scene.machine.path("source"), &scene.machine.path("back"));
            assert_eq!(restored.code, 0, "{what}: {restored}");
            let met = scene.mount.mend();
            assert!(!used_before || what.starts_with("full") || !met.is_empty(), "{what}: the fault was met");
            assert!(!files(scene.mount.path()).iter().any(|path| path.to_string_lossy().contains("new-")), "{what}");
            scene.backup_source().success();
            let quiet = scene.backup_source().success();
            assert_eq!(quiet.err(), "", "{what}");
            scene.assert_restores(&scene.machine.path("source"));
        }
    }
}

#[test]
fn a_failing_restore_target_is_named_and_nothing_in_it_is_cut_short() {
    type Case = (&'static str, u8, fn(&Mount), &'static [&'static str]);
    let cases: &[Case] = &[
        ("full", 1, |mount| mount.fill(1 << 20, Errno::NOSPC), &["the target takes no more", "No space left"]),
        ("full by quota", 1, |mount| mount.fill(1 << 20, Errno::DQUOT), &["the target takes no more", "quota"]),
        (
            "write",
            5,
            |mount| mount.fail_from(Op::Write, "back/big", 1 << 20, Errno::IO),
            &["/source/big", "os error 5"],
        ),
        ("make", 5, |mount| mount.fail(Op::Make, "back/d/7", Errno::IO), &["/source/d/7", "os error 5"]),
        ("directory", 5, |mount| mount.fail(Op::Make, "back/d", Errno::IO), &["/source/d", "os error 5"]),
        ("link", 5, |mount| mount.fail(Op::Make, "back/link", Errno::PERM), &["/source/link", "os error 1"]),
    ];
    for (what, code, fault, words) in cases {
        let Some(scene) = Scene::new(&PLAIN) else { return };
        let source = scene.machine.path("source");
        scene.machine.esker(["init"]).success();
        scene.backup_source().success();
        let back = scene.on_mount("back");
        fault(&scene.mount);
        let failed = scene.restore(&source, &back);
        scene.mount.mend();
        assert_eq!(failed.code, *code, "{what}: {failed}");
        assert!(!failed.err().contains("/repository"), "{what}: {failed}");
        assert_says(&failed, words);
        for file in files(&back) {
            let from = source.join(file.strip_prefix(&back).unwrap());
            assert!(fs::read(&file).unwrap() == fs::read(from).unwrap(), "{what}: {}", file.display());
        }
        scene.restore(&source, &back).success();
        // A target that was there keeps its own attributes.
        assert_eq!(tree::lines(&back)[1..], tree::lines(&source)[1..], "{what}");
    }
}

#[test]
fn a_restore_to_a_poor_file_system_brings_back_all_bytes_and_names_the_rest() {
    for profile in POOR {
        let Some(scene) = Scene::new(profile) else { return };
        let source = scene.machine.path("source");
        scene.machine.esker(["init"]).success();
        scene.backup_source().success();
        let back = scene.on_mount("back");
        let restored = scene.restore(&source, &back);
        let expected = if profile.special.is_some() { 5 } else { 0 };
        assert_eq!(restored.code, expected, "{}: {restored}", profile.name);
        for file in files(&source) {
            let there = back.join(file.strip_prefix(&source).unwrap());
            assert!(fs::read(&there).unwrap() == fs::read(&file).unwrap(), "{}: {}", profile.name, there.display());
        }
    }
}

#[test]
fn what_cannot_be_replaced_stays_as_it_was() {
    for (op, path, code) in [(Op::Rename, "back/text", 5), (Op::Write, "back/.esker-restore", 5)] {
        let Some(scene) = Scene::new(&PLAIN) else { return };
        let source = scene.machine.path("source");
        scene.machine.esker(["init"]).success();
        scene.backup_source().success();
        let back = scene.on_mount("back");
        fs::create_dir(&back).unwrap();
        fs::write(back.join("text"), "what was there").unwrap();
        scene.mount.fail(op, path, Errno::IO);
        let failed = scene.restore(&source, &back).fails(code);
        scene.mount.mend();
        assert_says(&failed, &["/source/text", "os error 5"]);
        assert_eq!(fs::read(back.join("text")).unwrap(), b"what was there");
        assert_eq!(fs::read_dir(&back).unwrap().count(), 4, "no temporary file is left");
        scene.restore(&source, &back).success();
        assert_eq!(fs::read(back.join("text")).unwrap(), b"hello");
    }
}

#[test]
fn a_repository_that_cannot_be_read_is_no_damage_and_no_fault_of_the_target() {
    static UNCACHED: Profile = Profile { mmap: false, ..PLAIN };
    let Some(scene) = Scene::with_repository(&UNCACHED) else { return };
    let source = scene.machine.path("source");
    scene.backup_source().success();
    let (back, packs) = (scene.machine.path("back"), "repository/packs/");
    for (op, errno, words) in [(Op::Read, Errno::IO, "os error 5"), (Op::Open, Errno::STALE, "Stale")] {
        scene.mount.fail(op, packs, errno);
        let checked = scene.machine.esker(["check", "--read-data"]).fails(1);
        let restored = scene.restore(&source, &back).fails(1);
        scene.mount.mend();
        for output in [&checked, &restored] {
            assert_says(output, &["/repository/packs/", words]);
        }
        assert!(!back.exists());
    }
    // The tree, at the end of the pack, can be read, and some of the data.
    scene.mount.fail_in(Op::Read, packs, 0..1 << 20, Errno::IO);
    let restored = scene.restore(&source, &back).fails(5);
    assert_says(&restored, &["/source/big: not restored", "/repository/packs/", "os error 5"]);
    assert!(!back.join("big").exists());
    for file in files(&back) {
        assert!(fs::read(&file).unwrap() == fs::read(source.join(file.strip_prefix(&back).unwrap())).unwrap());
    }
    scene.mount.mend();
    scene.restore(&source, &back).success();
    scene.assert_whole(&source);
}

/// To a scrub without a key, which is what runs where the disks are, a lost sector is damage like any other: it is
/// named, and parity makes up for it.
#[test]
fn what_a_disk_has_lost_is_found_without_a_key_and_made_whole_by_parity() {
    static UNCACHED: Profile = Profile { mmap: false, ..PLAIN };
    let Some(scene) = Scene::with_repository(&UNCACHED) else { return };
    let source = scene.machine.path("source");
    scene.backup_source().success();
    scene.machine.esker(["parity", "add", "--parity", "100%"]).success();
    let packs = files(&scene.on_mount("repository/packs"));
    let before: Vec<_> = packs.iter().map(|pack| fs::read(pack).unwrap()).collect();
    scene.mount.fail_in(Op::Read, "repository/packs/", 0..1000, Errno::IO);
    let found = scene.machine.esker(["scrub", "--without-key"]).fails(4);
    assert_says(&found, &["damaged: packs/", "it cannot be read from the disk"]);
    let repaired = scene.machine.esker(["scrub", "--without-key", "--repair"]).success();
    assert!(repaired.out().contains("from parity"), "{repaired}");
    scene.mount.mend();
    let after: Vec<_> = packs.iter().map(|pack| fs::read(pack).unwrap()).collect();
    assert!(before == after);
    scene.assert_whole(&source);
}

/// The real program, with stdout on a device that is always full.
#[test]
fn a_dump_to_a_full_disk_says_so() {
    let machine = {
        let mut machine = Machine::new();
        machine.set("ESKER_REPOSITORY", machine.path("repository"));
        machine
    };
    machine.write("source/big", noise(1, 3 << 20));
    machine.write("source/text", "hello");
    machine.esker(["init"]).success();
    machine.esker(["backup", "source"]).success();
    let source = machine.path("source").canonicalize().unwrap();
    for (file, archive) in [("big", None), ("text", None), ("", Some("tar")), ("", Some("zip"))] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
        command.current_dir(machine.path("")).envs(&machine.env).arg("dump");
        command.arg(format!("latest:{}", source.join(file).display()));
        command.args(archive.iter().flat_map(|kind| ["--archive", kind]));
        let output = command.stdout(fs::File::options().write(true).open("/dev/full").unwrap()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{file} {archive:?}: {said}");
        assert!(said.contains("No space left on device"), "{file} {archive:?}: {said}");
        assert!(!said.contains("repository"), "{file} {archive:?}: {said}");
    }
}

#[test]
fn the_ids_of_a_session_are_remembered_whatever_becomes_of_their_directory() {
    let Some(mount) = Mount::new(&PLAIN) else { return };
    let id = |n: u32| esker::id::ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes());
    let mut table = esker::index::SessionTable::new(mount.path(), 50);
    let faults: [fn(&Mount); 4] = [
        |mount| mount.fill(5000, Errno::NOSPC),
        |mount| mount.fail(Op::Write, "unnamed", Errno::IO),
        |mount| mount.fail(Op::Sync, "unnamed", Errno::IO),
        |mount| mount.fail(Op::Make, "unnamed", Errno::ROFS),
    ];
    for (part, fault) in (0..).zip(faults) {
        fault(&mount);
        let some = part * 1000..part * 1000 + 700;
        assert!(some.clone().all(|n| table.claim(id(n)).unwrap()));
        mount.mend();
        assert!((0..some.end).all(|n| table.contains(&id(n)) == (n % 1000 < 700)));
    }
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0, "nothing is left");
}

/// A file system in a file, mounted through a loop device.
struct Loop(tempfile::TempDir);

impl Loop {
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn new(kind: &str, mebibytes: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return fusefs::skip("mounting needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let (image, place) = (dir.path().join("image"), dir.path().join("mount"));
        fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        fs::create_dir(&place).unwrap();
        let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        if !done(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image))
            || !done(Command::new("mount").args(["-t", kind, "-o", "loop"]).arg(&image).arg(&place))
        {
            // Never required: a newcomer's root may have neither the programs nor the devices.
            eprintln!("skipped: {kind} cannot be made and mounted here");
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join("mount").join(below)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path("")).output();
    }
}

/// What room there really is, file systems tell in their own ways.
#[test]
fn a_real_file_system_that_runs_full_takes_the_same_backup_once_there_is_room() {
    for (kind, mebibytes) in [("ext4", 24), ("btrfs", 128), ("xfs", 320)] {
        let Some(disk) = Loop::new(kind, mebibytes) else { continue };
        let mut machine = Machine::new();
        machine.set("ESKER_REPOSITORY", disk.path("repository"));
        machine.write("source/first", noise(1, 1 << 20));
        machine.esker(["init"]).success();
        machine.esker(["backup", "source"]).success();
        machine.write("source/second", noise(2, 6 << 20));
        let filler = fs::File::create(disk.path("filler")).unwrap();
        let mut room: u64 = 512 << 20;
        while room >= 1 << 20 {
            let end = filler.metadata().unwrap().len();
            if rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), end, room).is_err() {
                room /= 2;
            }
        }
        let failed = machine.esker(["backup", "source"]).fails(1);
        assert_says(&failed, &["/repository/", "No space left on device"]);
        assert!(!failed.err().contains("/source"), "{kind}: {failed}");
        assert_eq!(files(&disk.path("repository/tmp")), Vec::<PathBuf>::new(), "{kind}");
        machine.esker(["check", "--read-data"]).success();
        drop(filler);
        fs::remove_file(disk.path("filler")).unwrap();
        machine.esker(["backup", "source"]).success();
        machine.esker(["check", "--read-data"]).success();
        let back = machine.path("back");
        let snapshot = format!("latest:{}", machine.path("source").canonicalize().unwrap().display());
        machine.esker(["restore".as_ref(), snapshot.as_ref(), "--target".as_ref(), back.as_os_str()]).success();
        assert_eq!(tree::lines(&back)[1..], tree::lines(&machine.path("source"))[1..], "{kind}");
    }
}

#[test]
fn an_init_that_found_no_room_is_repeated_once_there_is_some() {
    for bytes in [0, 40_000, 67_000] {
        let Some(mut scene) = Scene::new(&PLAIN) else { return };
        scene.machine.set("ESKER_REPOSITORY", scene.on_mount("repository"));
        scene.mount.fill(bytes, Errno::NOSPC);
        let failed = scene.machine.esker(["init"]).fails(1);
        assert_says(&failed, &["/repository", "No space left"]);
        assert!(!scene.machine.path("key").exists(), "a key that opens nothing");
        scene.mount.mend();
        scene.machine.esker(["init"]).success();
        scene.backup_source().success();
        scene.assert_whole(&scene.machine.path("source"));
    }
}
