//! Risk: a restore destroys what it should have left alone, leaves what it should have put right,
//! or does another thing than its rehearsal said.
//! Method: whole commands in process, into targets prepared in every way; what a dry run counts
//! and names is compared with what the run then does.

#[allow(dead_code)]
#[path = "support/cli.rs"]
mod cli;
#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use esker::error::Result;
use esker::id::ChunkId;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::repo::content::Reader;
use esker::repo::reader::{FrameAt, Location, ReadNodes, ReadRepo};
use esker::repo::snapshots::Filter;
use esker::restore;
use esker::storage::memory::Memory;

use cli::{Machine, Output};
use repo::{Scene, noise};

/// The time of every file that `Machine::write` makes.
const TIME: u64 = 1_000_000_000;

fn set_time(path: &Path, secs: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// The numbers of a run, without what a rehearsal cannot know.
fn numbers(output: &Output) -> serde_json::Value {
    let mut line = output.json().into_iter().rfind(|line| line["message_type"] == "summary").expect("a summary");
    for key in ["seconds_elapsed", "dry_run", "safety_snapshot_id"] {
        line.as_object_mut().unwrap().remove(key);
    }
    line
}

/// What is done to which entry, in any order: a rehearsal's words are taken as done.
fn changes(output: &Output) -> Vec<String> {
    let lines = output.json().into_iter().filter(|line| line["message_type"] == "verbose_status");
    let mut lines: Vec<_> = lines.map(|line| format!("{} {}", line["action"], line["item"])).collect();
    lines.sort();
    lines
}

/// Rehearses a restore, restores, and compares the two; gives what was done.
fn rehearse_and_run(machine: &Machine, target: &Path, args: &[&str], code: u8) -> serde_json::Value {
    let all: Vec<&str> = [&["restore"], args, &["--json", "-v"]].concat();
    let before = target.exists().then(|| tree::lines(target));
    let rehearsed = machine.esker([&all[..], &["--dry-run"]].concat()).fails(code);
    assert_eq!(target.exists().then(|| tree::lines(target)), before, "{args:?}: a rehearsal changed something");
    let done = machine.esker(all).fails(code);
    assert_eq!(numbers(&rehearsed), numbers(&done), "{args:?}");
    assert_eq!(changes(&rehearsed), changes(&done), "{args:?}");
    numbers(&done)
}

/// A snapshot of `src` with one file `f`, and a target `out` with something in its place.
fn with_in_place(make: impl Fn(&Path)) -> (Machine, PathBuf, String) {
    let machine = Machine::with_repository();
    machine.write("src/f", "from the snapshot");
    machine.esker(["backup", "src"]).success();
    let target = machine.path("out");
    fs::create_dir(&target).unwrap();
    make(&target.join("f"));
    let from = format!("latest:{}", machine.path("src").canonicalize().unwrap().display());
    (machine, target, from)
}

#[test]
fn each_policy_does_what_it_says_to_each_state() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Then {
        /// The file is the snapshot's, and was written.
        Written,
        /// It stays, being taken for the same.
        Same,
        /// It stays because the policy says so.
        Skipped,
        /// It stays, and exit code 5 says that the file could not be restored.
        Refused,
    }
    use Then::{Refused, Same, Skipped, Written};
    type Make = fn(&Path);
    fn file(path: &Path, content: &str, secs: u64) {
        fs::write(path, content).unwrap();
        set_time(path, secs);
    }
    let policies = ["always", "if-changed", "if-newer", "never"];
    let table: [(&str, Make, [Then; 4]); 10] = [
        ("nothing", |_| {}, [Written, Written, Written, Written]),
        ("the same", |f| file(f, "from the snapshot", TIME), [Same, Same, Skipped, Skipped]),
        (
            "other bytes of that size and time",
            |f| file(f, "from another hand", TIME),
            [Written, Same, Skipped, Skipped],
        ),
        ("longer, of that time", |f| file(f, "longer than the snapshot's", TIME), [Written, Written, Skipped, Skipped]),
        ("an older one", |f| file(f, "from another hand", TIME - 9), [Written, Written, Written, Skipped]),
        ("a newer one", |f| file(f, "from another hand", TIME + 9), [Written, Written, Skipped, Skipped]),
        (
            "an empty directory, older",
            |f| {
                fs::create_dir(f).unwrap();
                set_time(f, TIME - 9);
            },
            [Written, Written, Written, Skipped],
        ),
        (
            "a directory with something in it, older",
            |f| {
                fs::create_dir(f).unwrap();
                fs::write(f.join("mine"), "mine").unwrap();
                set_time(f, TIME - 9);
            },
            [Refused, Refused, Refused, Skipped],
        ),
        ("a link to a file", |f| symlink("elsewhere", f).unwrap(), [Written, Written, Skipped, Skipped]),
        (
            "a fifo",
            |f| {
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, f, kind, rustix::fs::Mode::RUSR, 0).unwrap();
            },
            [Written, Written, Skipped, Skipped],
        ),
    ];
    for (state, make, expected) in table {
        for (policy, then) in policies.into_iter().zip(expected) {
            let (machine, target, from) = with_in_place(make);
            fs::write(target.join("elsewhere"), "not to be touched").unwrap();
            let code = if then == Refused { 5 } else { 0 };
            let args = [&from, "--target", target.to_str().unwrap(), "--overwrite", policy];
            let before = tree::lines(&target);
            let done = rehearse_and_run(&machine, &target, &args, code);
            let what = format!("{policy}, in its place {state}: {done}");
            let count = |key: &str| done[key].as_u64().unwrap();
            let counts =
                (count("files_restored"), count("files_unchanged"), count("files_skipped"), count("num_errors"));
            match then {
                Written => {
                    assert_eq!(counts, (1, 0, 0, 0), "{what}");
                    assert_eq!(fs::read(target.join("f")).unwrap(), b"from the snapshot", "{what}");
                }
                Same => assert_eq!(counts, (0, 1, 0, 0), "{what}"),
                Skipped => assert_eq!(counts, (0, 0, 1, 0), "{what}"),
                Refused => assert_eq!(counts, (0, 0, 0, 1), "{what}"),
            }
            if then != Written {
                // But for the target itself, which was no part of it.
                assert_eq!(tree::lines(&target)[1..], before[1..], "{what}");
            }
            assert_eq!(fs::read(target.join("elsewhere")).unwrap(), b"not to be touched", "{what}");
        }
    }
}

#[test]
fn a_directory_takes_the_place_of_a_file_and_never_of_a_link() {
    for (policy, code) in [("always", 0), ("if-changed", 0), ("if-newer", 0), ("never", 5)] {
        for link in [false, true] {
            let machine = Machine::with_repository();
            machine.write("src/d/inside", "x");
            machine.esker(["backup", "src"]).success();
            let target = machine.path("out");
            fs::create_dir_all(target.join("real")).unwrap();
            let in_place = target.join("d");
            if link {
                symlink("real", &in_place).unwrap();
            } else {
                fs::write(&in_place, "a file").unwrap();
            }
            let from = format!("latest:{}", machine.path("src").canonicalize().unwrap().display());
            let args = [&from, "--target", target.to_str().unwrap(), "--overwrite", policy];
            rehearse_and_run(&machine, &target, &args, if link { 5 } else { code });
            assert_eq!(target.join("d/inside").is_file(), code == 0 && !link, "{policy}");
            assert_eq!(fs::read_dir(target.join("real")).unwrap().count(), 0, "what the link leads to is untouched");
            assert_eq!(in_place.is_symlink(), link);
        }
    }
}

/// Everything that counts differently, at once: new and old directories, links of both kinds.
#[test]
fn a_rehearsal_counts_and_names_what_a_run_does() {
    let machine = Machine::with_repository();
    for name in ["src/a/one", "src/a/two", "src/b/deep/three", "src/c/four", "src/linked"] {
        machine.write(name, name);
    }
    let src = machine.path("src");
    fs::hard_link(src.join("linked"), src.join("a/linked-too")).unwrap();
    fs::hard_link(src.join("linked"), src.join("b/deep/linked-three")).unwrap();
    fs::hard_link(src.join("b/deep/three"), src.join("b/deep/three-too")).unwrap();
    symlink("one", src.join("a/symlink")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, src.join("a/fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    fs::create_dir(src.join("empty")).unwrap();
    machine.esker(["backup", "src"]).success();
    let from = format!("latest:{}", src.canonicalize().unwrap().display());
    let target = machine.path("out");
    let at = target.to_str().unwrap();
    // Where nothing is.
    let done = rehearse_and_run(&machine, &target, &[&from, "--target", at], 0);
    assert_eq!((&done["files_restored"], &done["directories_restored"]), (&10.into(), &6.into()), "{done}");
    // Where all of it is.
    let done = rehearse_and_run(&machine, &target, &[&from, "--target", at], 0);
    assert_eq!((&done["files_restored"], &done["files_unchanged"]), (&0.into(), &10.into()), "{done}");
    // Where some of it is, and something else.
    fs::remove_dir_all(target.join("b")).unwrap();
    fs::write(target.join("a/one"), "changed").unwrap();
    fs::remove_file(target.join("a/linked-too")).unwrap();
    fs::remove_file(target.join("a/symlink")).unwrap();
    symlink("two", target.join("a/symlink")).unwrap();
    fs::set_permissions(target.join("a/two"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_dir(target.join("empty")).unwrap();
    fs::write(target.join("empty"), "a file").unwrap();
    fs::create_dir_all(target.join("c/extra/deep")).unwrap();
    fs::write(target.join("c/extra/deep/x"), "x").unwrap();
    for more in [&[][..], &["--delete"], &["--overwrite", "never"], &["--exclude", "deep", "--delete"]] {
        let copy = machine.path("copy");
        let _ = fs::remove_dir_all(&copy);
        let copied = std::process::Command::new("cp").args(["-a", at]).arg(&copy).status().unwrap();
        assert!(copied.success());
        let code = if more.contains(&"never") { 5 } else { 0 };
        let args = [&[&from[..], "--target", copy.to_str().unwrap()], more].concat();
        rehearse_and_run(&machine, &copy, &args, code);
        // And as the whole snapshot, below the directories that lead to it, some of them new.
        let args = [&["latest", "--target", copy.to_str().unwrap()], more].concat();
        rehearse_and_run(&machine, &copy, &args, 0);
    }
}

#[test]
fn a_rehearsal_names_what_would_be_lost() {
    let machine = Machine::with_repository();
    machine.write("src/a", "1");
    machine.esker(["backup", "src"]).success();
    machine.write("src/a", "2");
    machine.write("src/extra/x", "3");
    let said = machine.esker(["restore", "latest", "--target", "/", "--include", "src", "--delete", "-n"]).success();
    let top = machine.path("src").canonicalize().unwrap().display().to_string();
    for line in [
        format!("would be replaced  {top}/a"),
        format!("would be deleted  {top}/extra"),
        format!("would be deleted  {top}/extra/x"),
    ] {
        assert!(said.out().contains(&line), "{line}: {said}");
    }
    assert_eq!(fs::read(machine.path("src/a")).unwrap(), b"2");
    assert!(machine.path("src/extra/x").exists());
}

// --- in place, and deleting ------------------------------------------------------------------

#[test]
fn in_place_only_what_was_backed_up_is_put_right() {
    let machine = Machine::with_repository();
    for name in ["home/ada/notes", "home/ada/work/a", "home/bob/secret"] {
        machine.write(name, name);
    }
    machine.esker(["backup", "home/ada"]).success();
    let was = tree::lines(&machine.path("home/ada"));
    machine.write("home/ada/notes", "changed");
    machine.write("home/ada/work/new", "new");
    fs::remove_file(machine.path("home/ada/work/a")).unwrap();
    fs::set_permissions(machine.path("home"), fs::Permissions::from_mode(0o711)).unwrap();
    let above = fs::metadata(machine.path("home")).unwrap();
    // Without saying what, that could tidy up the whole machine.
    let refused = machine.esker(["restore", "latest", "--target", "/", "--delete"]).fails(2).err();
    assert!(refused.contains("could remove files anywhere"), "{refused}");
    assert!(machine.path("home/ada/work/new").exists());
    let include = machine.path("home").canonicalize().unwrap();
    let include = include.to_str().unwrap();
    machine.esker(["restore", "latest", "--target", "/", "--delete", "--include", include]).success();
    assert_eq!(tree::lines(&machine.path("home/ada")), was);
    assert_eq!(fs::read(machine.path("home/bob/secret")).unwrap(), b"home/bob/secret", "bob was never asked for");
    let still = fs::metadata(machine.path("home")).unwrap();
    assert_eq!((still.permissions(), still.modified().unwrap()), (above.permissions(), above.modified().unwrap()));
}

#[test]
fn what_filters_leave_out_is_not_deleted_at_any_depth() {
    let machine = Machine::with_repository();
    machine.write("src/kept/a", "1");
    machine.esker(["backup", "src"]).success();
    for name in ["src/old/x.log", "src/old/deep/y", "src/old/deep/z.log", "src/gone/w", "src/kept/b.log"] {
        machine.write(name, "2");
    }
    let src = machine.path("src").canonicalize().unwrap();
    let from = format!("latest:{}", src.display());
    let target = src.to_str().unwrap();
    let done = rehearse_and_run(&machine, &src, &[&from, "--target", target, "--delete", "--exclude", "*.log"], 0);
    assert_eq!(done["files_deleted"], 3, "old/deep/y, gone/w and gone: {done}");
    for (name, there) in [
        ("old/x.log", true),
        ("old/deep/y", false),
        ("old/deep/z.log", true),
        ("gone", false),
        ("kept/b.log", true),
        ("kept/a", true),
    ] {
        assert_eq!(src.join(name).exists(), there, "{name}");
    }
    // Only below what is included.
    machine.write("src/gone/w", "2");
    let include = format!("{target}/old/deep");
    rehearse_and_run(&machine, &src, &[&from, "--target", target, "--delete", "--include", &include], 0);
    assert!(!src.join("old/deep").exists() && src.join("old/x.log").exists() && src.join("gone/w").exists());
}

#[test]
fn deleting_makes_way_for_a_file_where_a_full_directory_is() {
    let (machine, target, from) = with_in_place(|f| {
        fs::create_dir_all(f.join("deep")).unwrap();
        fs::write(f.join("deep/mine"), "mine").unwrap();
    });
    let args = [&from, "--target", target.to_str().unwrap(), "--delete"];
    let done = rehearse_and_run(&machine, &target, &args, 0);
    assert_eq!((&done["files_deleted"], &done["files_restored"]), (&3.into(), &1.into()), "{done}");
    assert_eq!(fs::read(target.join("f")).unwrap(), b"from the snapshot");
}

/// The repository is left out of a backup of what is around it; deleting it would be the end.
#[test]
fn the_repository_and_the_cache_are_never_deleted() {
    let mut machine = Machine::new();
    let repository = machine.path("all/backups/repository");
    machine.set("ESKER_REPOSITORY", &repository);
    machine.set("ESKER_CACHE_DIR", machine.path("all/cache"));
    machine.write("all/notes", "1");
    fs::create_dir_all(repository.parent().unwrap()).unwrap();
    machine.esker(["init"]).success();
    machine.esker(["backup", "all", "--exclude", "backups"]).success();
    machine.write("all/extra", "2");
    let all = machine.path("all").canonicalize().unwrap();
    let from = format!("latest:{}", all.display());
    let said = machine.esker(["restore", &from, "--target", all.to_str().unwrap(), "--delete"]).success().err();
    assert!(said.contains("it belongs to the backup itself"), "{said}");
    assert!(!all.join("extra").exists() && all.join("notes").exists());
    machine.esker(["check", "--read-data"]).success();
    machine.esker(["check", "--read-data", "--no-cache"]).success();
}

// --- verify ----------------------------------------------------------------------------------

/// Passes on reads, and writes into the file being restored just before its last frame is read.
struct Scribbler<'r> {
    inner: &'r Reader<'r>,
    target: PathBuf,
    reads: AtomicU32,
    strike_at: u32,
}

impl ReadNodes for Scribbler<'_> {
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.inner.node(id)
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.inner.list_node(id)
    }
}

impl ReadRepo for Scribbler<'_> {
    fn frame(&self, at: &FrameAt) -> Result<Vec<u8>> {
        if self.reads.fetch_add(1, Ordering::Relaxed) + 1 == self.strike_at {
            let mut files = fs::read_dir(&self.target).unwrap();
            let file = fs::File::options().write(true).open(files.next().unwrap().unwrap().path()).unwrap();
            file.write_all_at(b"SCRIBBLE", 0).unwrap();
        }
        self.inner.frame(at)
    }

    fn locate(&self, id: &ChunkId) -> Result<Location> {
        self.inner.locate(id)
    }

    fn verify(&self, id: &ChunkId, bytes: &[u8]) -> bool {
        self.inner.verify(id, bytes)
    }

    fn chunk(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.inner.chunk(id)
    }
}

#[test]
fn what_reads_back_differently_is_named_and_not_left_there() {
    let scene = Scene::new(Arc::new(Memory::new()));
    fs::write(scene.source().join("file"), noise(1, 6 << 20)).unwrap();
    let id = scene.backup().id.to_string();
    let repository = scene.open();
    let reader = Reader::without_cache(&repository).unwrap();
    let info = reader.find_snapshot(&id, &Filter::default()).unwrap();
    let base = TreePath::from_os(&scene.source()).unwrap();
    let run = |verify, strike_at, name: &str| {
        let target = scene.source().with_file_name(name);
        let scribbler = Scribbler { inner: &reader, target: target.clone(), reads: AtomicU32::new(0), strike_at };
        let options = restore::Options { threads: 1, verify, ..restore::Options::new(&target) };
        let report = restore::run(&scribbler, &info.snapshot.root, &base, &options, &Monitor::silent()).unwrap();
        (report, fs::read(target.join("file")).ok(), scribbler.reads.into_inner())
    };
    let (clean, content, frames) = run(true, u32::MAX, "clean");
    assert_eq!((clean.problems, content), (0, Some(noise(1, 6 << 20))));
    assert!(frames > 1, "the file is in {frames} frames");
    let (unnoticed, content, _) = run(false, frames, "unnoticed");
    assert_eq!(unnoticed.problems, 0);
    assert!(content.unwrap().starts_with(b"SCRIBBLE"), "without --verify nobody looks again");
    let (noticed, content, _) = run(true, frames, "noticed");
    assert_eq!((noticed.problems, noticed.damaged_count, content), (1, 1, None));
    assert_eq!(noticed.damaged[0], TreePath::from_os(&scene.source().join("file")).unwrap());
}

// --- safety snapshots ------------------------------------------------------------------------

/// A tree that was backed up and then changed in every way; gives it, and from what to restore it.
fn changed_tree(machine: &Machine) -> (PathBuf, String) {
    for name in ["src/same", "src/changed", "src/mode", "src/d/same", "src/was-a-file"] {
        machine.write(name, name);
    }
    machine.esker(["backup", "src"]).success();
    let from = format!("latest:{}", machine.path("src").canonicalize().unwrap().display());
    machine.write("src/changed", "changed since");
    fs::set_permissions(machine.path("src/mode"), fs::Permissions::from_mode(0o600)).unwrap();
    machine.write("src/extra/deep/x", "extra");
    fs::remove_file(machine.path("src/was-a-file")).unwrap();
    machine.write("src/was-a-file/inside", "inside");
    (machine.path("src").canonicalize().unwrap(), from)
}

#[test]
fn a_safety_snapshot_holds_what_is_lost_and_nothing_else() {
    let machine = Machine::with_repository();
    let (src, from) = changed_tree(&machine);
    let before = tree::lines(&src);
    let target = src.to_str().unwrap();
    let restored =
        machine.esker(["restore", &from, "--target", target, "--delete", "--safety-snapshot", "--json"]).success();
    let summary = restored.json().into_iter().rfind(|line| line["message_type"] == "summary").unwrap();
    let id = summary["safety_snapshot_id"].as_str().expect("it is named").to_owned();
    let list: Vec<serde_json::Value> =
        serde_json::from_str(&machine.esker(["snapshots", "--json"]).success().out()).unwrap();
    let safety = list.iter().find(|snapshot| snapshot["id"] == id.as_str()).unwrap();
    assert_eq!(safety["tags"], serde_json::json!(["before-restore"]));
    assert_eq!(safety["paths"], serde_json::json!([target]));
    let listed = machine.esker(["ls", "-R", &format!("{id}:{target}")]).success().out();
    let listed: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix(target)).collect();
    assert_eq!(
        listed,
        ["", "/changed", "/extra", "/extra/deep", "/extra/deep/x", "/mode", "/was-a-file", "/was-a-file/inside"]
    );
    // Restored in place it undoes the restore, but for what that made new.
    fs::remove_file(src.join("was-a-file")).unwrap();
    machine.esker(["restore", &format!("{id}:{target}"), "--target", target]).success();
    assert_eq!(tree::lines(&src), before);
    // The next backup goes on from where the last one was.
    let next = machine.esker(["backup", "src", "--json"]).success().json();
    assert!(
        next.last().unwrap()["files_unmodified"].as_u64().unwrap()
            + next.last().unwrap()["files_changed"].as_u64().unwrap()
            >= 4,
        "{next:?}"
    );
}

#[test]
fn a_safety_snapshot_is_named_and_not_made_for_nothing() {
    let machine = Machine::with_repository();
    let (src, from) = changed_tree(&machine);
    let target = src.to_str().unwrap();
    let restore = || machine.esker(["restore", &from, "--target", target, "--delete", "--safety-snapshot"]).success();
    let said = restore().out();
    assert!(said.starts_with("safety snapshot "), "{said}");
    // `latest` is still the snapshot it was: that of before the restore is found by its tag.
    let said = restore().err();
    assert!(said.contains("no safety snapshot was made: nothing would be replaced or removed"), "{said}");
    machine.esker(["restore", &from, "--target", "new", "--safety-snapshot"]).success();
    machine.esker(["restore", &from, "--target", "new", "--safety-snapshot", "--dry-run"]).fails(2);
    let list: Vec<serde_json::Value> =
        serde_json::from_str(&machine.esker(["snapshots", "--json"]).success().out()).unwrap();
    assert_eq!(list.len(), 2);
    let back = &["restore", &from, "--target", target, "--tag", "before-restore"];
    assert!(
        machine
            .esker([&back[..], &["--delete"]].concat())
            .fails(2)
            .err()
            .contains("holds only what a restore replaced")
    );
    fs::remove_file(src.join("was-a-file")).unwrap();
    machine.esker(back).success();
    assert_eq!(fs::read(src.join("changed")).unwrap(), b"changed since");
}

#[test]
fn without_its_safety_snapshot_a_restore_changes_nothing() {
    let mut machine = Machine::new();
    let repository = machine.path("repository");
    machine.set("ESKER_REPOSITORY", &repository);
    machine.esker(["init"]).success();
    let (src, from) = changed_tree(&machine);
    let before = tree::lines(&src);
    // A storage that can be read and takes no session any more.
    fs::remove_dir_all(repository.join("sessions")).unwrap();
    fs::write(repository.join("sessions"), "in the way").unwrap();
    let target = src.to_str().unwrap();
    let said = machine.esker(["restore", &from, "--target", target, "--delete", "--safety-snapshot"]).fails(1).err();
    assert!(said.contains("nothing was restored: what it would replace cannot be kept"), "{said}");
    assert_eq!(tree::lines(&src), before);
    machine.esker(["restore", &from, "--target", target, "--delete"]).success();
    assert_ne!(tree::lines(&src), before);
}
