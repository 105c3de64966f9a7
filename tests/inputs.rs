//! Risk: what goes into a backup is not what was asked for: a stream cut off, a list misread, a
//! root forgotten, a snapshot where nothing was new or none where something was, a rehearsal that
//! changes something.
//! Method: whole commands in process over a repository in memory, and backups over a storage that
//! records every call.

#[allow(dead_code)]
#[path = "support/cli.rs"]
mod cli;
#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::sync::Arc;

use esker::backup::{self, Ending, StreamInput, Variation};
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::source::stream::Stream;
use esker::storage::Storage;
use esker::storage::dry_run::DryRun;
use esker::storage::memory::Memory;
use esker::storage::record::{Operation, Recording};

use cli::{Machine, Output};
use repo::{Scene, noise};

/// Names and lengths of everything in the repository.
fn objects(machine: &Machine) -> Vec<esker::storage::Listed> {
    machine.memory.list("").unwrap()
}

fn snapshots(machine: &Machine) -> Vec<serde_json::Value> {
    let list = machine.esker(["snapshots", "--json"]).success().out();
    serde_json::from_str::<Vec<serde_json::Value>>(&list).unwrap()
}

fn summary(output: &Output) -> serde_json::Value {
    output.json().into_iter().rfind(|line| line["message_type"] == "summary").expect("there is a summary")
}

/// The paths of files in the newest snapshot that lie in the machine's directory, from there.
fn files(machine: &Machine) -> Vec<String> {
    let top = format!("{}/", machine.path("").canonicalize().unwrap().display());
    let listed = machine.esker(["ls", "-R", "latest"]).success().out();
    let mut files: Vec<String> = listed.lines().filter_map(|line| line.strip_prefix(&top)).map(str::to_owned).collect();
    files.sort();
    files
}

// --- streams ------------------------------------------------------------------------------

#[test]
fn what_is_piped_in_is_one_file() {
    let mut machine = Machine::with_repository();
    machine.piped = noise(1, 3 << 20);
    machine.esker(["backup", "--stdin"]).success();
    assert_eq!(machine.esker(["dump", "latest", "/stdin"]).success().stdout, machine.piped);
    let listed = machine.esker(["ls", "-l", "latest"]).success().out();
    assert!(listed.starts_with("-rw-------") || listed.contains("\n-rw-------"), "{listed}");
    assert_eq!(snapshots(&machine)[0]["paths"][0], "/stdin");
    // A nested name makes its directories.
    machine.piped = b"select 1;".to_vec();
    machine.esker(["backup", "--stdin", "--stdin-filename", "db/main.sql"]).success();
    assert_eq!(machine.esker(["dump", "latest:/db/main.sql"]).success().stdout, b"select 1;");
    machine.esker(["restore", "latest", "--target", "out"]).success();
    assert_eq!(fs::metadata(machine.path("out/db/main.sql")).unwrap().permissions().mode() & 0o7777, 0o600);
    machine.esker(["check", "--read-data"]).success();
    for bad in ["", "/", "..", "a/../b", "a/", "."] {
        machine.esker(["backup", "--stdin", "--stdin-filename", bad]).fails(2);
    }
    machine.esker(["backup", "--stdin", "somewhere"]).fails(2);
    machine.esker(["backup", "db", "--stdin-filename", "x"]).fails(2);
}

/// rustic#392: ten megabytes of zeros through stdin made packs that held one blob twice.
#[test]
fn ten_megabytes_of_zeros_by_stdin_are_nothing_twice() {
    let mut machine = Machine::with_repository();
    machine.piped = vec![0; 10_000_000];
    let first = summary(&machine.esker(["backup", "--stdin", "--json"]).success());
    assert_eq!(first["total_bytes_processed"], 10_000_000);
    assert!(first["data_added"].as_u64().unwrap() < 4096, "zeros are not stored: {first}");
    let second = summary(&machine.esker(["backup", "--stdin", "--json"]).success());
    assert_eq!((&second["files_new"], &second["files_unmodified"]), (&0.into(), &1.into()), "{second}");
    assert_eq!(machine.esker(["dump", "latest", "/stdin"]).success().stdout, machine.piped);
    machine.esker(["check", "--read-data"]).success();
    // Zeros between data, and the same data twice.
    machine.piped = [noise(2, 300_000), vec![0; 5_000_000], noise(2, 300_000), vec![0; 70_000]].concat();
    machine.esker(["backup", "--stdin"]).success();
    assert_eq!(machine.esker(["dump", "latest", "/stdin"]).success().stdout, machine.piped);
    machine.esker(["check", "--read-data"]).success();
}

/// A stream has more pieces than an entry holds; its list is built as it comes.
#[test]
fn a_long_stream_is_stored_as_a_file_of_the_same_bytes_would_be() {
    let storage = Recording::new(Arc::new(Memory::new()));
    let scene = Scene::new(Arc::new(storage.clone()));
    let content = [noise(7, 6 << 20), vec![0; 1 << 20], noise(8, 2 << 20)].concat();
    fs::write(scene.source().join("file"), &content).unwrap();
    let as_file = scene.backup();
    let path = TreePath::from_bytes(b"/in/stream").unwrap();
    let stream = Stream::of_reader(std::io::Cursor::new(content));
    let variation = Variation { stream: Some(StreamInput::new(path.clone(), stream)), ..Variation::default() };
    let options = backup::Options { roots: vec![path], variation, ..scene.options() };
    let report = backup::run(&scene.open(), &options, &Monitor::silent()).unwrap();
    let summary = report.snapshot.summary;
    assert_eq!(summary.total_bytes_processed, as_file.snapshot.summary.total_bytes_processed);
    assert!(summary.data_added < 8192, "every chunk and list node was there: {summary:?}");
}

#[test]
fn the_output_of_a_command_is_one_file_and_a_failing_command_makes_no_snapshot() {
    let machine = Machine::with_repository();
    let run = |script: &str| {
        machine.esker(["backup", "--stdin-from-command", "--stdin-filename", "out", "--", "sh", "-c", script])
    };
    run("head -c 2000000 /dev/zero; echo end").success();
    assert_eq!(machine.esker(["dump", "latest", "/out"]).success().stdout.len(), 2_000_004);
    assert_eq!(snapshots(&machine).len(), 1);
    let before = objects(&machine);
    for (script, says) in [
        ("echo much; exit 3", "the command `sh` ended with exit status 3"),
        ("exit 1", "exit status 1"),
        ("echo x; kill -9 $$", "was ended by signal 9"),
        ("echo all; exec >&-; sleep 0.2; exit 5", "exit status 5"),
    ] {
        let failed = run(script).fails(1).err();
        assert!(failed.contains("no snapshot was made") && failed.contains(says), "{script}: {failed}");
    }
    assert_eq!(objects(&machine), before, "their announcements were taken back");
    assert!(run("head -c 9000000 /dev/urandom; exit 4").fails(1).err().contains("exit status 4"));
    let absent = machine.esker(["backup", "--stdin-from-command", "--", "no-such-program"]).fails(1).err();
    assert!(absent.contains("the command `no-such-program` cannot be run"), "{absent}");
    machine.esker(["backup", "--stdin-from-command"]).fails(2);
    assert_eq!(snapshots(&machine).len(), 1, "none of them made a snapshot");
    machine.esker(["check", "--read-data"]).success();
}

#[test]
fn a_command_is_stopped_when_the_backup_stops() {
    let mut machine = Machine::with_repository();
    let pid_file = machine.path("pid");
    machine.interrupted = true;
    let script = format!("echo $$ > {}; exec sleep 1000", pid_file.display());
    // Interrupted at once: the command may or may not have got as far as to write its number.
    machine.esker(["backup", "--stdin-from-command", "--", "sh", "-c", &script]).fails(130);
    if let Ok(pid) = fs::read_to_string(&pid_file)
        && let Ok(pid) = pid.trim().parse::<u32>()
    {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it was waited for");
    }
    machine.interrupted = false;
    assert!(snapshots(&machine).is_empty());
}

/// What belongs to the process: real pipes, and what a command says to people.
#[test]
fn the_program_reads_its_stdin_and_passes_on_what_a_command_says() {
    let dir = tempfile::tempdir().unwrap();
    let esker = |args: &[&str], piped: &[u8]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
        command.args(args).current_dir(dir.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("ESKER_REPOSITORY", "repository");
        command.env("ESKER_KEY_FILE", "key").env("ESKER_CACHE_DIR", "cache");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A program that does not want it may have closed it.
        let _ = child.stdin.take().unwrap().write_all(piped);
        child.wait_with_output().unwrap()
    };
    assert!(esker(&["init"], b"").status.success());
    let content = noise(9, 2 << 20);
    let made = esker(&["backup", "--stdin", "--stdin-filename", "a/b"], &content);
    assert!(made.status.success(), "{made:?}");
    assert!(esker(&["dump", "latest:/a/b"], b"").stdout == content);
    let failed = esker(&["backup", "--stdin-from-command", "--", "sh", "-c", "echo oh dear >&2; exit 3"], b"");
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(failed.status.code() == Some(1) && said.starts_with("oh dear\nerror: no snapshot was made"), "{said}");
    // A command has nothing to read: what is piped in is not its business.
    let made = esker(&["backup", "--stdin-from-command", "--stdin-filename", "c", "--", "cat"], b"not for cat");
    assert!(made.status.success(), "{made:?}");
    assert!(esker(&["dump", "latest:/c"], b"").stdout.is_empty());
}

// --- nothing new ---------------------------------------------------------------------------

#[test]
fn nothing_new_makes_no_snapshot_and_leaves_nothing() {
    let storage = Recording::new(Arc::new(Memory::new()));
    let scene = Scene::new(Arc::new(storage.clone()));
    fs::create_dir_all(scene.source().join("a/b")).unwrap();
    fs::write(scene.source().join("a/b/file"), noise(1, 100_000)).unwrap();
    let skipping = || backup::Options {
        variation: Variation { skip_if_unchanged: true, ..Variation::default() },
        ..scene.options()
    };
    let first = backup::run(&scene.open(), &skipping(), &Monitor::silent()).unwrap();
    assert_eq!(first.ending, Ending::Made, "there is no parent yet");
    let before = storage.list("").unwrap();
    // What only leads to the roots does not count: somebody writes to /tmp all the time.
    fs::write(scene.source().parent().unwrap().join("beside"), "x").unwrap();
    storage.clear();
    let second = backup::run(&scene.open(), &skipping(), &Monitor::silent()).unwrap();
    assert_eq!(second.ending, Ending::Unchanged { parent: first.id });
    assert_eq!(storage.list("").unwrap(), before, "the announcement was taken back");
    assert_eq!(storage.puts().len(), 1);
    assert_eq!(storage.names(Operation::Delete), [format!("sessions/{}", second.id)]);
    // Without a change record an owner compares with the snapshot itself.
    fs::remove_dir_all(scene.cache()).unwrap();
    let third = backup::run(&scene.open(), &skipping(), &Monitor::silent()).unwrap();
    assert_eq!(third.ending, Ending::Unchanged { parent: first.id });
    assert_eq!(storage.list("").unwrap(), before);
    // Anything below a root counts, attributes of the root included.
    for change in 0..5 {
        let (dir, file) = (scene.source().join("a/b"), scene.source().join("a/b/file"));
        match change {
            0 => fs::write(&file, noise(2, 100_000)).unwrap(),
            1 => fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).unwrap(),
            2 => fs::set_permissions(scene.source(), fs::Permissions::from_mode(0o711)).unwrap(),
            3 => fs::write(dir.join("more"), "").unwrap(),
            _ => fs::remove_file(dir.join("more")).unwrap(),
        }
        let changed = backup::run(&scene.open(), &skipping(), &Monitor::silent()).unwrap();
        assert_eq!(changed.ending, Ending::Made, "change {change}");
        let same = backup::run(&scene.open(), &skipping(), &Monitor::silent()).unwrap();
        assert_eq!(same.ending, Ending::Unchanged { parent: changed.id }, "change {change}");
    }
    assert_eq!(scene.check().faults.len(), 0);
}

/// A writer cannot read snapshots: with its own record it knows, without it has to make one.
#[test]
fn a_writer_tells_that_nothing_is_new_by_its_record() {
    let owner = Scene::new(Arc::new(Memory::new()));
    fs::write(owner.source().join("file"), "x").unwrap();
    let writer = owner.writer();
    let skipping = || backup::Options {
        variation: Variation { skip_if_unchanged: true, ..Variation::default() },
        ..writer.options()
    };
    let run = || backup::run(&writer.open(), &skipping(), &Monitor::silent()).unwrap();
    let first = run();
    assert_eq!(run().ending, Ending::Unchanged { parent: first.id });
    fs::remove_dir_all(writer.cache()).unwrap();
    assert_eq!(run().ending, Ending::Made);
}

#[test]
fn nothing_new_is_said_and_has_no_snapshot_id() {
    let machine = Machine::with_repository();
    machine.write("files/notes.txt", "hello\n");
    let made = summary(&machine.esker(["backup", "files", "--json"]).success());
    assert!(made["snapshot_id"].is_string());
    let said = machine.esker(["backup", "files", "--skip-if-unchanged"]).success().out();
    let id = made["snapshot_id"].as_str().unwrap();
    assert!(said.starts_with("no snapshot made in "), "{said}");
    assert!(said.contains(&format!("nothing has changed since snapshot {}", &id[..8])), "{said}");
    let skipped = summary(&machine.esker(["backup", "files", "--skip-if-unchanged", "--json"]).success());
    assert!(skipped.get("snapshot_id").is_none(), "{skipped}");
    machine.write("files/notes.txt", "hello again\n");
    assert!(
        summary(&machine.esker(["backup", "files", "--skip-if-unchanged", "--json"]).success())["snapshot_id"]
            .is_string()
    );
    assert_eq!(snapshots(&machine).len(), 2);
}

#[test]
fn a_stream_of_the_same_bytes_is_nothing_new() {
    let mut machine = Machine::with_repository();
    machine.piped = noise(3, 200_000);
    machine.esker(["backup", "--stdin"]).success();
    machine.esker(["backup", "--stdin", "--skip-if-unchanged"]).success();
    machine.esker(["backup", "--stdin", "--skip-if-unchanged", "--no-cache"]).success();
    assert_eq!(snapshots(&machine).len(), 1);
    machine.piped.push(1);
    machine.esker(["backup", "--stdin", "--skip-if-unchanged"]).success();
    assert_eq!(snapshots(&machine).len(), 2);
}

// --- rehearsals -----------------------------------------------------------------------------

#[test]
fn a_dry_run_makes_no_changing_call_and_says_what_a_run_then_does() {
    let storage = Recording::new(Arc::new(Memory::new()));
    let scene = Scene::new(Arc::new(storage.clone()));
    fs::write(scene.source().join("a"), noise(1, 300_000)).unwrap();
    let run = |scene: &Scene, dry_run| {
        let variation = Variation { dry_run, ..Variation::default() };
        let options = backup::Options { variation, ..scene.options() };
        backup::run(&scene.open(), &options, &Monitor::silent()).unwrap()
    };
    run(&scene, false);
    fs::write(scene.source().join("b"), noise(2, 500_000)).unwrap();
    let record = |scene: &Scene| {
        let repository = scene.open();
        let mut found = fs::read_dir(repository.cache_directory().unwrap().join("records")).unwrap();
        fs::read(found.next().unwrap().unwrap().path()).unwrap()
    };
    let (before, recorded) = (storage.list("").unwrap(), record(&scene));
    storage.clear();
    let dry = scene.over(Arc::new(DryRun::new(Arc::new(storage.clone()))));
    let rehearsed = run(&dry, true);
    assert_eq!(rehearsed.ending, Ending::DryRun);
    let changing = [Operation::Put, Operation::Delete, Operation::Barrier];
    let changes: Vec<_> = storage.calls().into_iter().filter(|call| changing.contains(&call.operation)).collect();
    assert!(changes.is_empty(), "{changes:?}");
    assert_eq!(storage.list("").unwrap(), before);
    assert_eq!(record(&scene), recorded, "the change record is as it was");
    let done = run(&scene, false);
    let count = |report: &backup::Report| {
        let summary = &report.snapshot.summary;
        (summary.files_new, summary.files_unmodified, summary.files_changed, summary.total_bytes_processed)
    };
    assert_eq!(count(&rehearsed), count(&done));
    assert!(rehearsed.snapshot.summary.data_added >= 500_000);
}

#[test]
fn a_dry_run_is_marked_and_needs_a_repository() {
    let machine = Machine::with_repository();
    machine.write("files/notes.txt", "hello\n");
    let before = objects(&machine);
    let said = machine.esker(["backup", "-n", "files"]).success().out();
    assert!(said.starts_with("a snapshot would be made; nothing was stored"), "{said}");
    assert!(said.contains("to add") && !said.contains("added"), "{said}");
    let line = summary(&machine.esker(["backup", "--dry-run", "files", "--json"]).success());
    assert_eq!(line["dry_run"], true);
    assert!(line.get("snapshot_id").is_none() && line["files_new"] == 1, "{line}");
    assert_eq!(objects(&machine), before);
    machine.esker(["backup", "--dry-run", "--init", "files"]).fails(2);
    Machine::new().esker(["backup", "--dry-run", machine.path("files").to_str().unwrap()]).fails(10);
}

// --- the parent -----------------------------------------------------------------------------

#[test]
fn a_parent_that_cannot_be_one_is_refused() {
    let machine = Machine::with_repository();
    machine.write("files/a", "1");
    machine.esker(["backup", "files"]).success();
    machine.esker(["backup", "files"]).success();
    let ids: Vec<String> = snapshots(&machine).iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect();
    let before = objects(&machine);
    let refused = machine.esker(["backup", "files", "--parent", &ids[0]]).fails(1).err();
    assert!(refused.contains("cannot be its parent") && refused.contains(&ids[1][..8]), "{refused}");
    assert_eq!(objects(&machine), before, "the announcement was taken back");
    machine.esker(["backup", "files", "--parent", "latest"]).success();
    let newest = snapshots(&machine).last().unwrap().clone();
    assert_eq!(newest["parent"], ids[1].as_str());
    machine.esker(["backup", "files", "--parent", newest["id"].as_str().unwrap()]).success();
    machine.esker(["backup", "files", "--parent", "latest", "--no-cache"]).fails(1);
    machine.esker(["backup", "files", "--parent", "ffffffff"]).fails(1);
    machine.esker(["backup", "files", "--parent", "latest", "--force"]).fails(2);
    // Forced, everything is read and there is no parent.
    let forced = summary(&machine.esker(["backup", "files", "--force", "--json"]).success());
    assert_eq!((&forced["files_new"], &forced["files_unmodified"]), (&1.into(), &0.into()));
}

// --- lists and roots ------------------------------------------------------------------------

#[test]
fn lists_name_roots_beside_those_typed() {
    let mut machine = Machine::with_repository();
    for name in ["in/a.txt", "in/b.txt", "in/c.raw", "in/with space", "in/star*", "other/x", "typed/y"] {
        machine.write(name, name);
    }
    machine.write("list", "# a comment\n\n  in/*.txt  \nin/none*\n");
    let said = machine.esker(["backup", "--files-from", "list"]).success().err();
    assert!(said.contains("nothing matches `in/none*`"), "{said}");
    assert_eq!(files(&machine), ["in", "in/a.txt", "in/b.txt"]);
    machine.write("verbatim", "in/star*\nin/with space\n");
    machine.esker(["backup", "typed", "--files-from-verbatim", "verbatim"]).success();
    assert_eq!(files(&machine), ["in", "in/star*", "in/with space", "typed", "typed/y"]);
    machine.write("raw", "in/c.raw\0other\0");
    machine.esker(["backup", "--files-from-raw", "raw", "--files-from", "list"]).success();
    assert_eq!(files(&machine), ["in", "in/a.txt", "in/b.txt", "in/c.raw", "other", "other/x"]);
    machine.piped = b"other\0".to_vec();
    machine.esker(["backup", "--files-from-raw", "-"]).success();
    assert_eq!(files(&machine), ["other", "other/x"]);

    machine.write("cut-off", "in/c.raw\0oth");
    machine.esker(["backup", "--files-from-raw", "cut-off"]).fails(2);
    machine.write("bad", "in/[\n");
    machine.esker(["backup", "--files-from", "bad"]).fails(2);
    machine.write("empty", "# nothing\n");
    machine.esker(["backup", "--files-from", "empty"]).fails(2);
    machine.esker(["backup", "--files-from", "not-there"]).fails(1);
    machine.esker(["backup", "--files-from", "-", "--files-from-raw", "-"]).fails(2);
    machine.esker(["backup", "--stdin", "--files-from", "list"]).fails(2);
    machine.esker(["backup"]).fails(2);
}

#[test]
fn roots_may_repeat_overlap_and_be_written_in_any_way() {
    let machine = Machine::with_repository();
    for name in ["top/a", "top/sub/b", "top/sub/deep/c", "beside/d"] {
        machine.write(name, name);
    }
    symlink("top", machine.path("link")).unwrap();
    let whole = ["top", "top/a", "top/sub", "top/sub/b", "top/sub/deep", "top/sub/deep/c"];
    for roots in [
        &["top"][..],
        &["top", "top"],
        &["top/", "top/."],
        &["top/sub", "top"],
        &["top", "top/sub/deep", "top/a"],
        &["./top", "beside/../top"],
        &["link/"],
    ] {
        machine.esker([&["backup"], roots].concat()).success();
        assert_eq!(files(&machine), whole, "{roots:?}");
        let summary = snapshots(&machine).last().unwrap()["summary"].clone();
        assert_eq!(summary["total_files_processed"], 3, "{roots:?}");
    }
    // A link stands for itself.
    machine.esker(["backup", "link"]).success();
    assert_eq!(files(&machine), ["link"]);
    machine.esker(["backup", "top/sub", "beside"]).success();
    assert_eq!(
        files(&machine),
        ["beside", "beside/d", "top", "top/sub", "top/sub/b", "top/sub/deep", "top/sub/deep/c"]
    );
}

#[test]
fn a_root_that_vanished_costs_itself_alone() {
    let machine = Machine::with_repository();
    machine.write("here/a", "1");
    machine.write("list", "here\ngone-too\n");
    let said = machine.esker(["backup", "gone", "--files-from", "list"]).fails(3).err();
    for name in ["gone", "gone-too"] {
        assert!(said.contains(&format!("/{name}` is not backed up")), "{said}");
    }
    assert!(said.contains("2 files or directories"), "{said}");
    assert_eq!(files(&machine), ["here", "here/a"]);
    machine.esker(["backup", "gone", "gone-too"]).fails(1);
}

#[test]
fn large_files_and_files_of_patterns_leave_out_what_they_say() {
    let mut machine = Machine::with_repository();
    machine.set("PROJECT", "img");
    for (name, bytes) in [("d/small", 10), ("d/large", 5000), ("d/img/x", 10), ("d/A.TMP", 10), ("d/b.tmp", 10)] {
        machine.write(name, vec![1; bytes]);
    }
    machine.write("exact", "# images\n$PROJECT\n*.tmp\n");
    machine.write("folded", "*.tmp\n");
    machine.esker(["backup", "d", "--exclude-larger-than", "4K", "--exclude-file", "exact"]).success();
    assert_eq!(files(&machine), ["d", "d/A.TMP", "d/small"]);
    machine.esker(["backup", "d", "--iexclude-file", "folded"]).success();
    assert_eq!(files(&machine), ["d", "d/img", "d/img/x", "d/large", "d/small"]);
    machine.write("bad", "[\n");
    machine.esker(["backup", "d", "--iexclude-file", "bad"]).fails(2);
}
