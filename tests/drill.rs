//! Risk: a drill says that a snapshot can be restored when it cannot, leaves somebody's files lying about, or changes
//! what it should only try; who reads is not written down although that was demanded.
//! Method: whole commands on real trees; packs are damaged, storages refuse, commands fail, signals come.

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/cli.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use esker::repo::Repository;
use esker::repo::open::Local;
use esker::repo::secret::{KeyFile, Secret};
use esker::storage::fault::{Faulty, Plan};
use esker::storage::record::Operation;
use esker::storage::{ErrorKind, Storage, WriteMode};
use esker::world::World;
use serde_json::{Value, json};
use support::{Machine, Output};

/// A machine with three snapshots of a tree with links, pipes and a device.
fn machine() -> Machine {
    let machine = Machine::with_repository();
    for n in 0..3 {
        machine.write("files/docs/notes.txt", format!("{n}\n"));
        machine.write("files/docs/big", noise(n, 300_000));
        if n == 0 {
            symlink("notes.txt", machine.path("files/docs/link")).unwrap();
            fs::hard_link(machine.path("files/docs/big"), machine.path("files/again")).unwrap();
            use rustix::fs::{CWD, FileType, Mode};
            let made = |name: &str, kind| rustix::fs::mknodat(CWD, machine.path(name), kind, Mode::RUSR, 0);
            made("files/pipe", FileType::Fifo).unwrap();
            // The one device that anybody may make, which stands for nothing.
            made("files/device", FileType::CharacterDevice).unwrap();
        }
        machine.esker(["backup", "files"]).success();
    }
    machine
}

/// What stands in the directory drills take place in, and does not stand there always.
fn left_over(machine: &Machine) -> Vec<String> {
    let names = fs::read_dir(machine.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("esker-")).collect()
}

fn objects(machine: &Machine) -> BTreeSet<String> {
    machine.memory.list("").unwrap().into_iter().map(|object| object.name).collect()
}

fn summary(output: &Output) -> Value {
    output.json().pop().unwrap()
}

fn snapshots(machine: &Machine) -> Vec<Value> {
    machine.esker(["snapshots", "--json"]).success().json().remove(0).as_array().unwrap().clone()
}

/// Content that takes as much room as it is long.
fn noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    World::seeded(u64::from(seed)).fill(&mut noise);
    noise
}

/// Each pack with a version of the large file has a byte that is another.
fn damage(machine: &Machine) {
    let packs = machine.memory.list("packs/").unwrap();
    for object in packs.iter().filter(|object| object.bytes > 200_000) {
        let mut bytes = machine.memory.get(&object.name).unwrap();
        bytes[100_000] ^= 1;
        machine.memory.delete(&object.name).unwrap();
        machine.memory.put(&object.name, &bytes, WriteMode::CreateNew).unwrap();
    }
}

#[test]
fn a_snapshot_that_is_whole_passes_and_is_said_to_have_wherever_one_looks() {
    let machine = machine();
    let before = objects(&machine);
    let told = machine.esker(["drill"]).success().out();
    assert!(told.contains(": passed\n") && told.contains("all is as it was recorded"), "{told}");
    assert!(told.contains("left out  1 device node"), "{told}");
    assert_eq!(left_over(&machine), Vec::<String>::new());
    let after = objects(&machine);
    let new: Vec<&String> = after.difference(&before).collect();
    assert!(new.len() == 1 && new[0].starts_with("notes/") && before.is_subset(&after), "{new:?}");

    let listed = snapshots(&machine);
    let tested: Vec<&Value> = listed.iter().map(|one| &one["restoration_tested"]).collect();
    assert_eq!(tested[..2], [&Value::Null, &Value::Null]);
    assert_eq!((&tested[2]["result"], &tested[2]["path"]), (&json!("passed"), &json!("/")));
    assert!(tested[2]["time"].is_string() && tested[2]["duration"].is_number(), "{}", tested[2]);
    let table = machine.esker(["snapshots"]).success().out();
    assert!(table.contains("Drilled") && table.contains("2001-02-03 passed"), "{table}");
    let status = machine.esker(["status", "--json"]).success().json();
    assert_eq!(status[0]["last_drill"]["result"], "passed");
    assert_eq!(status[0]["last_drill"]["snapshot_id"], listed[2]["id"]);
    let told = machine.esker(["status"]).success().out();
    assert!(told.contains("last drill      2001-02-03"), "{told}");
    let audit = machine.esker(["audit", "--action", "drill"]).success().out();
    assert!(audit.contains(": drill of snapshot ") && audit.contains(": passed, in "), "{audit}");
    assert!(audit.contains("as ada on difference"), "{audit}");

    // A later one of the same snapshot counts, and the record is kept when it is folded into a log.
    machine.esker(["drill", "--max-duration", "0s"]).fails(4);
    assert!(machine.esker(["status"]).fails(4).err().contains("the last drill"));
    machine.esker(["prune", "--fold-from", "1"]).success();
    assert_eq!(snapshots(&machine)[2]["restoration_tested"]["result"], "too_slow");
}

#[test]
fn damage_is_found_named_and_written_down_and_the_check_command_is_not_asked() {
    let machine = machine();
    damage(&machine);
    let output = machine.esker(["drill", "--json", "--check", "touch ../../checked"]).fails(4);
    let found = summary(&output);
    assert_eq!((&found["result"], &found["passed"]), (&json!("damaged"), &json!(false)), "{output}");
    assert!(found["files_damaged"].as_u64().unwrap() > 0 && found["check"]["run"] == false, "{output}");
    let missing = output.json().iter().filter(|line| line["what"] == "missing").count();
    assert!(missing > 0, "{output}");
    assert!(!machine.path("checked").exists());
    assert_eq!(left_over(&machine), Vec::<String>::new());
    assert_eq!(snapshots(&machine)[2]["restoration_tested"]["result"], "damaged");
    let told = machine.esker(["drill", "--no-record"]).fails(4);
    assert!(told.out().contains("FAILED: damaged") && told.err().contains("missing or damaged"), "{told}");
}

#[test]
fn the_check_command_sees_what_was_restored_and_has_the_last_word() {
    let mut machine = machine();
    machine.set("ESKER_FROM_PASSWORD", "secret");
    machine.set("ESKER_DRILL_HOST", "an old one");
    let dir = machine.path("files").canonicalize().unwrap();
    let inside = dir.to_str().unwrap();
    let check = format!(
        "cmp .{inside}/docs/notes.txt {inside}/docs/notes.txt && test \"$PWD\" -ef \"$ESKER_DRILL_DIR\" && \
         test -p .{inside}/pipe && test ! -e .{inside}/device && echo $ESKER_DRILL_SNAPSHOT $ESKER_DRILL_HOST \
         $ESKER_DRILL_PATH [$ESKER_FROM_PASSWORD]; echo again >&2"
    );
    let output = machine.esker(["drill", "--json", "--check", &check]).success();
    let found = summary(&output);
    let id = found["snapshot_id"].as_str().unwrap();
    assert_eq!(found["check"]["output"], format!("{id} difference / []\nagain\n"), "{output}");
    assert_eq!(found["check"]["exit_code"], 0);

    let told = machine.esker(["drill", "--check", "echo one; echo; printf 'tw\\033[2Jo'; exit 3"]).fails(4);
    let out = told.out();
    assert!(out.starts_with("check: one\ncheck: \ncheck: tw\\x1b[2Jo\n"), "{told}");
    assert!(out.contains("FAILED: check command") && told.err().contains("ended with exit status 3"), "{told}");
    assert_eq!(snapshots(&machine)[2]["restoration_tested"]["check_exit"], 3);

    let output = machine.esker(["drill", "--json", "--check", "sleep 1000", "--check-timeout", "0s"]).fails(4);
    assert_eq!(summary(&output)["check"]["timed_out"], true, "{output}");
    // What the command does to the files is its own affair; they are gone all the same.
    let mess = "mkdir -p a/b/c; ln -s / a/root; chmod 0 a; ln -s /etc/passwd x; rm -rf usr";
    machine.esker(["drill", "--check", mess]).success();
    assert_eq!(left_over(&machine), Vec::<String>::new());
}

#[test]
fn any_snapshot_and_any_part_of_one_can_be_tried() {
    let machine = machine();
    let ids: Vec<String> = snapshots(&machine).iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    let docs = machine.path("files/docs").canonicalize().unwrap();
    let docs = docs.to_str().unwrap();
    let tried = |args: &[&str]| {
        let output = machine.esker(["drill", "--no-record", "--json"].iter().chain(args)).success();
        let found = summary(&output);
        (found["snapshot_id"].as_str().unwrap().to_owned(), found["files_restored"].as_u64().unwrap())
    };
    assert_eq!(tried(&[&ids[1]]), (ids[1].clone(), 2));
    assert_eq!(tried(&["latest~2"]).0, ids[0]);
    assert_eq!(tried(&[&format!(":{docs}")]), (ids[2].clone(), 2));
    assert_eq!(tried(&[&format!("latest~1:{docs}/notes.txt"), "--check", "grep -qx 1 notes.txt"]), (ids[1].clone(), 1));
    assert_eq!(tried(&[&format!(":{docs}/link")]).1, 0);
    let at = snapshots(&machine)[0]["time"].as_str().unwrap().to_owned();
    assert_eq!(tried(&["--at", &at]).0, ids[0]);
    let chosen: BTreeSet<String> = (0..20).map(|_| tried(&["--random", &format!(":{docs}/notes.txt")]).0).collect();
    assert_eq!(chosen.len(), 3, "the old ones are tried, too");
    assert_eq!(tried(&["--random", "--before", &at]).0, ids[0]);
    machine.esker(["drill", "--random", &ids[0]]).fails(2);
    machine.esker(["drill", "--random", "--host", "nowhere"]).fails(1);
    machine.esker(["drill", ":/nowhere"]).fails(1);
    machine.esker(["drill", "--target", "nowhere"]).fails(1);
    machine.esker(["drill", "--check-timeout", "soon"]).fails(2);
    assert_eq!(left_over(&machine), Vec::<String>::new());
}

#[test]
fn what_is_kept_is_closed_to_others_and_what_is_interrupted_is_not_kept() {
    let mut machine = machine();
    fs::create_dir(machine.path("drills")).unwrap();
    fs::set_permissions(machine.path("drills"), fs::Permissions::from_mode(0o777)).unwrap();
    let output = machine.esker(["drill", "--json", "--keep", "--target", "drills"]).success();
    let kept = PathBuf::from(summary(&output)["kept"].as_str().unwrap());
    let meta = fs::metadata(&kept).unwrap();
    assert_eq!((meta.mode() & 0o7777, kept.parent().unwrap().file_name().unwrap()), (0o700, "drills".as_ref()));
    let files = machine.path("files").canonicalize().unwrap();
    let restored = kept.join("restored").join(files.strip_prefix("/").unwrap());
    let linked = (restored.join("again"), restored.join("docs/big"));
    assert_eq!(fs::metadata(linked.0).unwrap().ino(), fs::metadata(linked.1).unwrap().ino());

    machine.interrupted = true;
    let before = objects(&machine);
    machine.esker(["drill", "--target", "drills"]).fails(130);
    assert_eq!(objects(&machine), before);
    assert_eq!(fs::read_dir(machine.path("drills")).unwrap().count(), 1);
}

#[test]
fn a_drill_counts_where_it_cannot_be_written_down_and_a_writers_word_for_one_does_not() {
    let mut machine = machine();
    let before = objects(&machine);
    machine.esker(["drill", "--no-record"]).success();
    assert_eq!(objects(&machine), before);
    let refusing = Plan::none().failing_from(Operation::Put, "notes/", 0, ErrorKind::Denied);
    machine.instead = Some(Arc::new(Faulty::new(Arc::new(machine.memory.clone()), refusing)));
    let output = machine.esker(["drill", "--json"]).success();
    assert_eq!(summary(&output)["recorded"], false, "{output}");
    assert!(output.err().contains("is not recorded in the repository"), "{output}");
    machine.instead = None;

    machine.esker(["key", "writer", "--out", "writer.key", "--name", "web-1"]).success();
    let key = KeyFile::parse(&fs::read_to_string(machine.path("writer.key")).unwrap()).unwrap();
    let storage = Arc::new(machine.memory.clone());
    let writer = Repository::open(storage, World::seeded(98), &Secret::KeyFile(key), Local::default()).unwrap();
    let id = snapshots(&machine)[2]["id"].clone();
    let forged = json!({
        "snapshot": id, "result": "passed", "files": 1, "bytes": 1, "restore_ms": 1, "total_ms": 1,
        "user": "ada", "host": "difference",
    });
    writer.note_audit("drill", &forged.to_string()).unwrap();
    assert_eq!(snapshots(&machine)[2]["restoration_tested"], Value::Null);
    let audit = machine.esker(["audit", "--action", "drill"]).success().out();
    assert!(audit.contains("web-1: drill of snapshot"), "it is in the history with who said so: {audit}");
    assert!(writer.note_audit("Drill it", "").is_err() && writer.note_audit("drill", &"x".repeat(5000)).is_err());
}

#[test]
fn who_reads_is_written_down_first_or_reads_nothing() {
    let mut machine = machine();
    let notes = machine.path("files/docs/notes.txt").canonicalize().unwrap();
    let notes = notes.to_str().unwrap();
    let reads: [&[&str]; 7] = [
        &["restore", "latest", "--target", "back"],
        &["dump", "latest", notes],
        &["ls", "latest"],
        &["find", "notes.txt"],
        &["diff", "latest~1", "latest"],
        &["diff", "latest", "files"],
        &["drill", "--no-record"],
    ];
    let before = objects(&machine);
    for read in reads {
        machine.esker(read.iter().copied()).success();
    }
    assert_eq!(objects(&machine), before, "unless it is asked for, nothing is written");
    fs::remove_dir_all(machine.path("back")).unwrap();

    let actions = |machine: &Machine| {
        let events = machine.esker(["audit", "--json"]).success().json();
        events.into_iter().filter(|event| event["object"].as_str().unwrap().starts_with("notes/")).collect::<Vec<_>>()
    };
    for (n, read) in reads.iter().enumerate() {
        // By a flag or by the environment.
        let flag = if n % 2 == 0 { Some("--audit") } else { None };
        machine.set("ESKER_AUDIT", if n % 2 == 0 { "0" } else { "1" });
        machine.esker(read.iter().copied().chain(flag)).success();
        assert_eq!(actions(&machine).len(), n + 1, "{read:?}");
    }
    machine.unset("ESKER_AUDIT");
    let events = actions(&machine);
    let named: Vec<&str> = events.iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(named, ["restore", "dump", "ls", "find", "diff", "diff", "drill_begun"]);
    let restore = &events[0]["about"];
    assert!(restore["to"].as_str().unwrap().ends_with("/back") && restore["user"] == "ada", "{restore}");
    assert_eq!(events[1]["about"]["path"], notes);
    let told = machine.esker(["audit"]).success().out();
    for said in
        [": began to restore snapshot ", ": began to write out snapshot ", " for notes.txt, as ada on difference"]
    {
        assert!(told.contains(said), "{told}");
    }

    // Each names the one before, so that none can be taken out; and it can be seen in what is exported.
    let all = machine.esker(["audit", "--json"]).success().json();
    let hashes: BTreeSet<&str> = all.iter().map(|event| event["hash"].as_str().unwrap()).collect();
    for (event, before) in events[1..].iter().zip(&events) {
        assert_eq!(event["previous"], json!([before["hash"]]));
        assert_eq!(event["object"], format!("notes/{}", event["hash"].as_str().unwrap()));
    }
    let previous = all.iter().flat_map(|event| event["previous"].as_array().unwrap());
    assert!(previous.map(|hash| hash.as_str().unwrap()).all(|hash| hashes.contains(hash)));
    let first = events[0]["time"].as_str().unwrap();
    let count = |args: &[&str]| machine.esker(["audit", "--json"].iter().chain(args)).success().json().len();
    assert_eq!(count(&["--action", "restore,dump"]), 2);
    assert_eq!(count(&["--action", "restore", "--before", "2001-01-01"]), 0);
    assert_eq!(count(&["--after", first]), 7);
    assert!(count(&["--before", first]) >= 4);
    machine.esker(["audit", "--before", "soon"]).fails(2);

    // Where it cannot be written down, nothing is given out.
    let refusing = Plan::none().failing_from(Operation::Put, "notes/", 0, ErrorKind::Denied);
    machine.instead = Some(Arc::new(Faulty::new(Arc::new(machine.memory.clone()), refusing)));
    fs::remove_dir_all(machine.path("back")).unwrap();
    for read in reads {
        let output = machine.esker(read.iter().copied().chain(["--audit"])).fails(6);
        assert_eq!(output.out(), "", "{output}");
        assert!(output.err().contains("nothing was read"), "{output}");
    }
    assert!(!machine.path("back").exists() && left_over(&machine).is_empty());
    machine.set("ESKER_AUDIT", "on");
    machine.esker(["ls", "latest"]).fails(2);
}

#[test]
fn copying_elsewhere_is_reading() {
    let machine = machine();
    machine.esker(["init", "--no-recovery", "--repo", "other", "--key-file", "other.key"]).success();
    let copied = machine.esker(["copy", "--audit", "--to", "other", "--to-key-file", "other.key"]).success();
    assert!(!copied.out().is_empty());
    let told = machine.esker(["audit", "--action", "copy"]).success().out();
    assert!(told.contains(": began to copy snapshots to ") && told.contains("/other, as ada"), "{told}");
    // A mirror takes no key, and its note does.
    machine.esker(["copy", "--audit", "--mirror", "--to", "mirror"]).success();
    let told = machine.esker(["audit", "--action", "copy"]).success().out();
    assert!(told.contains("/mirror, as ada"), "{told}");
    // The replica is tried by itself, and keeps its own record.
    machine.esker(["drill", "--repo", "other", "--key-file", "other.key"]).success();
    let there = machine.esker(["status", "--json", "--repo", "other", "--key-file", "other.key"]).success().json();
    assert_eq!(there[0]["last_drill"]["result"], "passed");
    assert_eq!(machine.esker(["status", "--json"]).success().json()[0]["last_drill"], Value::Null);
}
