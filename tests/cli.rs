//! The command line keeps CLI.md's promises to scripts and to people.
//!
//! The risk: a script that cannot tell success from failure, a person misled, a secret in a log.
//! Commands run in process on a machine whose clock and randomness repeat, so that all of their
//! output is one literal; what belongs to the process is tested with the real program.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

#[path = "support/cli.rs"]
mod support;

use esker::storage::Storage;
use support::{Machine, Output};

/// The whole output of a command is this.
macro_rules! prints {
    ($output:expr, @$expected:literal) => {
        insta::with_settings!({ filters => [
            (r"\b\d+(\.\d)? m?s\b", "[TIME]"),
            // The directories on the way are this machine's.
            (r"(directories  ).*new.*", "$1[COUNTS]"),
            (r"(lost: \w+:/: chunk `)\w+", "$1[ROOT]"),
            (r"(directory node `)\w+(`: chunk `)\w+", "$1[ROOT]$2[ROOT]"),
            (r"(added  +).*", "$1[SIZES]"),
            (r" +Added  Paths", "  Added  Paths"),
            (r" +[\d.]+ \w+  \[DIR\]", "  [SIZE]  [DIR]"),
            (r"(read  +)[\d.]+ \w+ in", "$1[SIZE] in"),
            (r"(?m)^([dlpcb-][rwxst-]{9} )\S+ +\S+ ", "$1[OWNER] "),
        ]}, { insta::assert_snapshot!($output.to_string(), @$expected) })
    };
}

fn machine_with_files() -> Machine {
    let machine = Machine::with_repository();
    machine.write("files/notes.txt", "hello\n");
    machine.write("files/img/a.raw", [7; 3000]);
    machine
}

#[test]
fn a_first_day_from_init_to_restore() {
    let machine = Machine::new();
    prints!(machine.esker(["init"]), @"
    made repository eea3f5b9 at memory

    Only the key file [DIR]/key opens it: keep a copy somewhere else.
    Without it there is no way to the data.
    warning: there is no recovery sheet, for when the key is lost; to make one, run `esker --repo memory key export --out recovery.txt`
    [exit 0]
    ");
    machine.write("files/notes.txt", "hello\n");
    machine.write("files/img/a.raw", [7; 3000]);
    prints!(machine.esker(["backup", "files", "--tag", "b,a"]), @"
    snapshot 371a5713 made in [TIME]
      files        2 new, 0 changed, 0 unmodified
      directories  [COUNTS]
      in all       2.9 KiB in 2 files
      added        [SIZES]
    [exit 0]
    ");
    machine.write("files/notes.txt", "hello again\n");
    prints!(machine.esker(["backup", "files"]), @"
    snapshot 92143f95 made in [TIME]
      files        0 new, 2 changed, 0 unmodified
      directories  [COUNTS]
      in all       2.9 KiB in 2 files
      added        [SIZES]
    [exit 0]
    ");
    prints!(machine.esker(["snapshots"]), @"
    ID        Time                 Host        Tags     Size  Added  Paths
    371a5713  2001-02-03 04:05:09  difference  a,b   2.9 KiB  [SIZE]  [DIR]/files
    92143f95  2001-02-03 04:05:18  difference        2.9 KiB  [SIZE]  [DIR]/files

    2 snapshots
    [exit 0]
    ");
    prints!(machine.esker(["snapshots", "--group-by", "host,tags", "--compact", "--latest", "1"]), @"
    host difference; no tags
    ID        Time                 Host        Tags     Size
    92143f95  2001-02-03 04:05:18  difference        2.9 KiB

    host difference; tags a, b
    ID        Time                 Host        Tags     Size
    371a5713  2001-02-03 04:05:09  difference  a,b   2.9 KiB

    2 snapshots
    [exit 0]
    ");
    let below = format!("latest~1:{}", machine.path("files").canonicalize().unwrap().display());
    prints!(machine.esker(["ls", "-l", &below]), @"
    drwxr-xr-x [OWNER]                0 2001-09-09 01:46:40 [DIR]/files
    drwxr-xr-x [OWNER]                0 2001-09-09 01:46:40 [DIR]/files/img
    -rw-r--r-- [OWNER]             3000 2001-09-09 01:46:40 [DIR]/files/img/a.raw
    -rw-r--r-- [OWNER]                6 2001-09-09 01:46:40 [DIR]/files/notes.txt
    [exit 0]
    ");
    prints!(machine.esker(["restore", &below, "--target", "out"]), @"
    snapshot 371a5713 restored to [DIR]/out in [TIME]
      written      2.9 KiB in 2 files
      directories  2
    [exit 0]
    ");
    assert_eq!(fs::read(machine.path("out/notes.txt")).unwrap(), b"hello\n");
    prints!(machine.esker(["dump", &format!("{below}/notes.txt")]), @"
    hello
    [exit 0]
    ");
    prints!(machine.esker(["check", "--read-data"]), @"
    checked 2 snapshots in [TIME]: no damage found
      packs  2
      read   [SIZE] in 2 packs
    [exit 0]
    ");
}

#[test]
fn help_lists_the_verbs_that_work_and_no_other() {
    let help = Machine::new().esker(["--help"]).success().out();
    let verbs = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let verbs: Vec<_> = verbs.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let expected = "init backup snapshots ls find diff restore dump mount drill check scrub parity stats forget undelete prune copy \
                    tag rewrite audit status sessions key repair demo cache serve notify job config completions man version";
    assert_eq!(verbs.join(" "), expected);
    for verb in verbs {
        Machine::new().esker([verb, "--help"]).success();
    }
    Machine::new().esker(["serve"]).fails(2);
}

/// What a copy says: into other ids, again, and a mirror of which nobody asks a key.
#[test]
fn a_copy_says_what_it_does_and_what_becomes_of_deduplication() {
    let machine = machine_with_files();
    machine.esker(["backup", "files"]).success();
    machine.esker(["init", "--no-recovery", "--repo", "second", "--key-file", "second.key"]).success();
    let copy = |more: &[&str]| {
        let to = ["copy", "--to", "second", "--to-key-file", "second.key"];
        machine.esker(to.iter().chain(more).copied()).success()
    };
    let first = copy(&["--verify"]).out();
    assert!(first.starts_with("1 snapshot to copy\nthe target has other ids: files are cut anew"), "{first}");
    assert!(first.contains("added, and read back\ncopied 1 snapshot in "), "{first}");
    assert_eq!(copy(&[]).out(), "0 snapshots to copy, 1 there already\n");
    assert_eq!(copy(&["--json"]).json()[0]["snapshots_skipped"], 1);

    machine.esker(["backup", "--tag", "t", "files"]).success();
    let planned = copy(&["--dry-run", "--json"]).json();
    assert_eq!(
        (planned.len(), &planned[0]["message_type"], &planned[0]["tags"][0]),
        (1, &"would_copy".into(), &"t".into())
    );
    let copied = copy(&["--json"]).json();
    assert_eq!(
        (copied.len(), &copied[0]["message_type"], &copied[1]["message_type"]),
        (2, &"copied".into(), &"summary".into())
    );
    assert_eq!(copied[0]["source_id"], planned[0]["id"]);
    let there = machine.esker(["snapshots", "--repo", "second", "--key-file", "second.key", "--json"]).success().json();
    assert_eq!((&there[0][1]["id"], &there[0][1]["original"]), (&copied[0]["id"], &planned[0]["id"]));
    assert_eq!(copied[1]["chunk_ids"], "other");

    let mirror = |more: &[&str]| {
        let to = ["copy", "--mirror", "--to", "mirror", "--key-file", "none"];
        machine.esker(to.iter().chain(more).copied())
    };
    mirror(&["--dry-run"]).success();
    assert!(!machine.path("mirror").exists());
    mirror(&[]).success();
    assert_eq!(mirror(&["--json"]).success().json()[0]["objects_copied"], 0);
    machine.esker(["check", "--read-data", "--repo", "mirror"]).success();
    machine.esker(["copy", "--to", "mirror", "--to-key-file", "key"]).fails(2);
    machine.esker(["copy", "--mirror", "--to", "second"]).fails(6);
    machine.esker(["copy", "--to", "nowhere", "--to-key-file", "key"]).fails(10);
    machine.esker(["copy", "--to", "second", "--to-key-file", "key"]).fails(12);
}

// --- exit codes ---------------------------------------------------------------------------

#[test]
fn wrong_usage_is_2() {
    let machine = Machine::with_repository();
    for args in [
        &["backup"][..],
        &["frobnicate"],
        &["snapshots", "--before", "yesterday"],
        &["restore", "latest"],
        &["restore", "nothexadecimal", "--target", "x"],
        &["ls", "latest", "--at", "2020-01-01", "--before", "2020-01-01"],
        &["check", "--read-data-subset", "3/2"],
        &["init", "--chunk-average", "3000", "--key-file", "other"],
        &["init", "--key-file", "key"],
        &["key", "remove", "ffffffff"],
        &["--repo", "s3://bucket/x", "-o", "no-such=x", "snapshots"],
        &["--repo", "carrier-pigeon://x", "snapshots"],
        &["--repo", "sftp://", "snapshots"],
        &["backup", ".", "--exclude", "[z-a"],
        &["backup", ".", "--exclude-if-present", "a/b"],
        &["--key-file", "key", "--password-file", "x", "snapshots"],
        &["copy"],
        &["copy", "--to", "memory:", "--to-key-file", "key"],
        &["copy", "--to", "x", "--mirror", "--host", "h"],
        &["copy", "--to", "x", "--delete"],
        &["copy", "--to", "x", "--to-key-file", "key", "--to-password-file", "x"],
        &["copy", "--to", "s3://bucket/x", "--to-option", "region"],
    ] {
        let output = machine.esker(args).fails(2);
        assert!(output.err().starts_with("error: ") && output.out().is_empty(), "{args:?}: {output}");
    }
    assert!(!machine.path("other").exists(), "a key file of nothing was left");
    // Well said, but there is no snapshot yet.
    machine.esker(["restore", "latest", "--target", "x"]).fails(1);
}

#[test]
fn a_snapshot_that_is_not_made_is_1_and_one_that_is_not_complete_is_3() {
    let machine = machine_with_files();
    prints!(machine.esker(["backup", "gone", "lost"]), @"
    error: `[DIR]/gone` is not backed up: No such file or directory (os error 2)
    error: `[DIR]/lost` is not backed up: No such file or directory (os error 2)
    error: no snapshot was made: none of the paths is there
    [exit 1]
    ");
    prints!(machine.esker(["backup", "files", "gone"]), @"
    snapshot 371a5713 made in [TIME]
      files        2 new, 0 changed, 0 unmodified
      directories  [COUNTS]
      in all       2.9 KiB in 2 files
      added        [SIZES]
    error: `[DIR]/gone` is not backed up: No such file or directory (os error 2)
    error: snapshot `371a5713` is not complete: 1 file or directory could not be read in full; each is named above
    [exit 3]
    ");
    let output = machine.esker(["backup", "files", "gone", "--json"]).fails(3);
    let summary = output.json().pop().unwrap();
    assert_eq!(summary["message_type"], "summary");
    let errors = output.json_err();
    assert_eq!((&errors[0]["message_type"], &errors[1]["message_type"]), (&"error".into(), &"exit_error".into()));
    assert_eq!(errors[1]["code"], 3);
}

/// Changes a byte of every object for which `choose` is true.
fn damage(machine: &Machine, at: usize, choose: impl Fn(&str) -> bool) {
    let mut content = machine.memory.snapshot();
    for (_, bytes) in content.iter_mut().filter(|(name, _)| choose(name)) {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        *bytes = changed.into();
    }
    machine.memory.restore(content);
}

#[test]
fn damage_is_4_when_checked_and_5_when_restored_and_names_what_it_affects() {
    let machine = machine_with_files();
    machine.write("files/noise", blake3::hash(b"noise").as_bytes());
    machine.esker(["backup", "files"]).success();
    // The first frame holds data; the tree after it stays whole.
    damage(&machine, 10, |name| name.starts_with("packs/"));
    machine.esker(["check"]).success();
    let output = machine.esker(["check", "--read-data"]).fails(4);
    let files = machine.path("files").canonicalize().unwrap();
    assert!(output.err().contains(&format!("{}/notes.txt", files.display())), "{output}");
    assert!(output.err().contains("damaged: packs/"), "{output}");

    let output = machine.esker(["check", "--read-data", "--json"]).fails(4);
    let mut lines = output.json();
    let summary = lines.pop().unwrap();
    assert_eq!(summary["num_errors"], lines.len());
    let fault = &lines[0];
    assert_eq!(fault["message_type"], "error");
    assert!(fault["object"].as_str().unwrap().starts_with("packs/"), "{fault}");
    assert_eq!(fault["affected"].as_array().unwrap().len(), fault["affected_total"], "{fault}");
    assert_eq!(output.json_err().pop().unwrap()["code"], 4);

    let output = machine.esker(["restore", "latest", "--target", "out"]).fails(5);
    assert!(output.err().contains("notes.txt"), "{output}");
    assert!(output.err().contains("hint: to see every affected file, run `esker check"), "{output}");
    let output = machine.esker(["restore", "latest", "--target", "out2", "--json"]).fails(5);
    assert_eq!(output.json().pop().unwrap()["files_damaged"], 3);

    machine
        .memory
        .restore(machine.memory.snapshot().into_iter().filter(|(name, _)| !name.starts_with("packs/")).collect());
    machine.esker(["check"]).fails(4);
}

#[test]
fn a_repository_too_damaged_to_open_is_4_to_check_and_1_to_others() {
    let machine = machine_with_files();
    damage(&machine, 30, |name| name.ends_with("config"));
    machine.esker(["check"]).fails(4);
    machine.esker(["snapshots"]).fails(1);
}

#[test]
fn what_a_credential_may_not_do_is_6() {
    let machine = machine_with_files();
    machine.esker(["key", "writer", "--out", "writer", "--name", "laptop"]).success();
    let writer = machine.other_user(&machine.path("writer"));
    writer.write("own/file", "x");
    writer.esker(["backup", "own"]).success();
    for args in [
        &["snapshots"][..],
        &["ls", "latest"],
        &["restore", "latest", "--target", "out"],
        &["key", "add", "--out", "k"],
    ] {
        let output = writer.esker(args).fails(6);
        assert!(output.out().is_empty(), "{output}");
    }
    assert!(!writer.path("k").exists(), "a key file of nobody was left");
    assert_eq!(machine.esker(["snapshots", "--json"]).success().json()[0].as_array().unwrap().len(), 1);

    let mut again = Machine::new();
    again.set("ESKER_REPOSITORY", again.path("repo"));
    again.esker(["init"]).success();
    again.esker(["init", "--key-file", "other"]).fails(6);
}

#[test]
fn no_repository_is_10() {
    let mut machine = Machine::new();
    fs::write(machine.path("key"), "").unwrap();
    prints!(machine.esker(["snapshots"]), @"
    error: there is no repository at `memory`
      Caused by: cannot read `config`
      Caused by: object not found: `config`

    hint: to make one, run `esker init` with the same --repo
    [exit 10]
    ");
    machine.set("ESKER_REPOSITORY", "nowhere");
    prints!(machine.esker(["check"]), @"
    error: there is no repository at `[DIR]/nowhere`
      Caused by: cannot open `[DIR]/nowhere`
      Caused by: No such file or directory (os error 2)

    hint: to make one, run `esker init` with the same --repo
    [exit 10]
    ");
    fs::create_dir(machine.path("nowhere")).unwrap();
    machine.esker(["backup", "."]).fails(10);
}

#[test]
fn a_wrong_password_or_key_is_12() {
    let mut machine = Machine::with_repository();
    machine.esker(["key", "add", "--out", "second"]).success();
    let other = Machine::seeded(8);
    other.esker(["init"]).success();
    let foreign = other.path("key");
    let output = machine.esker(["snapshots", "--key-file", foreign.to_str().unwrap()]).fails(12);
    assert!(output.err().contains("the key file is for repository"), "{output}");
    fs::write(machine.path("junk"), "esker-key-2 owner x").unwrap();
    machine.esker(["snapshots", "--key-file", "junk"]).fails(12);
    machine.unset("ESKER_KEY_FILE");
    machine.set("ESKER_PASSWORD", "wrong");
    machine.esker(["snapshots"]).fails(12);
    machine.esker(["snapshots", "--key-file", "second"]).success();
}

#[test]
fn a_repository_of_a_newer_program_is_13() {
    use esker::format::cbor;
    use esker::format::config::Config;
    use esker::format::record::{RecordKind, SignedRecord, push_digest};
    let machine = Machine::with_repository();
    let mut content = machine.memory.snapshot();
    let stored = content["config"].clone();
    let record = SignedRecord::decode(RecordKind::Config, &stored).unwrap();
    let mut config: Config = cbor::decode(record.body).unwrap();
    config.version += 1;
    let body = cbor::encode(&config);
    let mut newer = SignedRecord { body: &body, ..record }.encode();
    push_digest(RecordKind::Config, &mut newer);
    content.insert("config".into(), newer.into());
    machine.memory.restore(content);
    let output = machine.esker(["snapshots"]).fails(13);
    assert!(output.err().contains("version 2"), "{output}");
}

#[test]
fn an_interrupted_command_is_130_and_the_next_one_is_whole() {
    let mut machine = machine_with_files();
    machine.interrupted = true;
    machine.esker(["backup", "files"]).fails(130);
    machine.interrupted = false;
    machine.esker(["backup", "files"]).success();
    machine.interrupted = true;
    machine.esker(["restore", "latest", "--target", "out"]).fails(130);
    machine.interrupted = false;
    machine.esker(["check", "--read-data"]).success();
}

// --- secrets ------------------------------------------------------------------------------

const PASSWORD: &str = "correct horse";

#[test]
fn a_password_comes_from_where_it_is_said_to_be() {
    let mut machine = Machine::new();
    machine.unset("ESKER_KEY_FILE");
    fs::write(machine.path("pw"), format!("{PASSWORD}\n")).unwrap();
    fs::write(machine.path("pw.dos"), format!("{PASSWORD}\r\n")).unwrap();
    fs::write(machine.path("pw.bare"), PASSWORD).unwrap();
    fs::write(machine.path("pw.other"), format!("{PASSWORD}\n\n")).unwrap();
    fs::write(machine.path("empty"), "\n").unwrap();
    machine.esker(["init", "--password-file", "empty"]).fails(2);
    machine.esker(["init", "--password-file", "pw"]).success();
    machine.esker(["snapshots", "--password-file", "pw.dos"]).success();
    machine.esker(["snapshots", "--password-file", "pw.bare"]).success();
    // Only what ends a line is not meant.
    machine.esker(["snapshots", "--password-file", "pw.other"]).fails(12);
    machine.esker(["snapshots", "--password-file", "gone"]).fails(1);
    machine.esker(["snapshots", "--password-command", "sh -c 'echo correct \"horse\"'"]).success();
    machine.esker(["snapshots", "--password-command", "sh -c 'echo correct horse; exit 1'"]).fails(1);
    machine.esker(["snapshots", "--password-command", "sh -c 'unfinished"]).fails(2);
    machine.esker(["snapshots", "--password-command", "esker-no-such-program"]).fails(1);
    let file = fs::File::open(machine.path("pw")).unwrap();
    machine.esker(["snapshots", "--password-fd", &file.as_raw_fd().to_string()]).success();

    machine.set("ESKER_PASSWORD", PASSWORD);
    machine.esker(["snapshots"]).success();
    // What the command line says wins.
    machine.esker(["snapshots", "--password-file", "pw.other"]).fails(12);
    machine.set("ESKER_PASSWORD_FILE", "pw");
    let output = machine.esker(["snapshots"]).fails(2);
    assert!(output.err().contains("more than one"), "{output}");
    machine.unset("ESKER_PASSWORD");
    machine.esker(["snapshots"]).success();
}

#[test]
fn a_password_is_asked_for_on_a_terminal_only_and_twice_when_it_is_new() {
    let mut machine = Machine::new();
    machine.unset("ESKER_KEY_FILE");
    prints!(machine.esker(["init"]), @"
    error: no password was given, and there is no terminal to ask on

    hint: add `--password-file FILE` or `--key-file FILE`, or set ESKER_PASSWORD_COMMAND
    [exit 2]
    ");
    machine.type_next(&["one", "two"]);
    machine.esker(["init"]).fails(2);
    machine.type_next(&[""]);
    machine.esker(["init"]).fails(2);
    assert!(machine.memory.snapshot().is_empty(), "something was made");
    machine.type_next(&[PASSWORD, PASSWORD]);
    machine.esker(["init"]).success();
    machine.prompts.lock().unwrap().clear();
    machine.type_next(&[PASSWORD]);
    machine.esker(["snapshots"]).success();
    assert_eq!(*machine.prompts.lock().unwrap(), ["password: "]);
    machine.type_next(&[PASSWORD, "new one", "new one"]);
    machine.esker(["key", "passwd"]).success();
    machine.type_next(&[PASSWORD]);
    machine.esker(["snapshots"]).fails(12);
    machine.type_next(&["new one"]);
    machine.esker(["snapshots"]).success();
}

#[test]
fn a_password_is_not_asked_for_where_nothing_could_be_opened() {
    let mut machine = Machine::new();
    machine.unset("ESKER_KEY_FILE");
    machine.type_next(&[PASSWORD]);
    machine.esker(["snapshots"]).fails(10);
    assert!(machine.prompts.lock().unwrap().is_empty());
}

#[test]
fn no_secret_is_in_any_output() {
    let mut machine = Machine::new();
    machine.write("files/x", "x");
    machine.esker(["init"]).success();
    fs::write(machine.path("pw"), PASSWORD).unwrap();
    let key = fs::read_to_string(machine.path("key")).unwrap();
    let seed = key.lines().last().unwrap().split(' ').nth(5).unwrap().to_owned();
    assert_eq!(seed.len(), 64);
    let mut said = Vec::new();
    let mut run = |machine: &Machine, args: &[&str]| {
        for mode in ["--json", "-v"] {
            let Output { stdout, .. } = machine.esker(args.iter().copied().chain([mode])).also(&mut said);
            said.extend(stdout);
        }
    };
    run(&machine, &["backup", "files"]);
    run(&machine, &["key", "list"]);
    run(&machine, &["key", "passwd", "--new-password-file", "pw"]);
    run(&machine, &["key", "add", "--out", "k"]);
    run(&machine, &["demo"]);
    machine.unset("ESKER_KEY_FILE");
    machine.set("ESKER_PASSWORD", PASSWORD);
    run(&machine, &["snapshots"]);
    run(&machine, &["snapshots", "--before", "x"]);
    run(&machine, &["--repo", "nowhere", "snapshots"]);
    machine.set("ESKER_PASSWORD", format!("{PASSWORD}!"));
    run(&machine, &["snapshots"]);
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("wrong password") && !said.contains(PASSWORD) && !said.contains(&seed), "{said}");
}

impl Output {
    fn also(self, said: &mut Vec<u8>) -> Self {
        said.extend(self.err().bytes());
        self
    }
}

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::with_repository();
    assert_eq!(fs::metadata(machine.path("key")).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(machine.path("key")).unwrap();
    machine.esker(["key", "add", "--out", "key"]).fails(2);
    assert_eq!(fs::read(machine.path("key")).unwrap(), before);
    // Without a place for the key, nobody is added.
    machine.esker(["key", "add", "--out", "no/such/directory/key"]).fails(1);
    assert_eq!(machine.esker(["key", "list", "--json"]).success().json()[0].as_array().unwrap().len(), 1);
}

#[test]
fn people_come_and_go() {
    let machine = Machine::with_repository();
    machine.esker(["key", "add", "--out", "second", "--name", "grace"]).success();
    machine.esker(["key", "writer", "--out", "writer", "--name", "laptop"]).success();
    let list = machine.esker(["key", "list", "--json"]).success().json().remove(0);
    let of = |label: &str| list.as_array().unwrap().iter().find(|one| one["label"] == label).unwrap().clone();
    let keys: BTreeSet<_> = of("grace").as_object().unwrap().keys().cloned().collect();
    let expected =
        ["created", "current", "id", "label", "passwords", "removed", "role", "short_id", "slots", "up_to_date"];
    assert_eq!(keys, expected.map(String::from).into());
    assert_eq!((&of("ada@difference")["current"], &of("laptop")["role"]), (&true.into(), &"writer".into()));
    let writer = machine.other_user(&machine.path("writer"));
    writer.write("own/file", "x");
    writer.esker(["backup", "own"]).success();
    machine.esker(["key", "remove", of("laptop")["short_id"].as_str().unwrap()]).success();
    writer.esker(["backup", "own"]).fails(6);
    // What was made before stays.
    let second = machine.other_user(&machine.path("second"));
    assert_eq!(second.esker(["snapshots", "--json"]).success().json()[0].as_array().unwrap().len(), 1);
    prints!(second.esker(["key", "list"]), @"
    ID        Role    Name            Added
    54219f88  owner   ada@difference  2001-02-03 04:05:07  key file
    22ffa258  owner   grace           2001-02-03 04:05:09  in use now, key file
    7df55f85  writer  laptop          2001-02-03 04:05:10  removed, key file
    [exit 0]
    ");
}

// --- JSON ---------------------------------------------------------------------------------

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn json_has_the_keys_that_scripts_rely_on() {
    let machine = machine_with_files();
    let summary = machine.esker(["backup", "files", "--tag", "x", "--json"]).success().json().pop().unwrap();
    let numbers = [
        "files_new",
        "files_changed",
        "files_unmodified",
        "files_unreadable",
        "dirs_new",
        "dirs_changed",
        "dirs_unmodified",
        "data_added",
        "data_added_packed",
        "total_files_processed",
        "total_bytes_processed",
        "total_duration",
    ];
    assert_eq!(keys(&summary).into_iter().collect::<BTreeSet<_>>(), {
        numbers.into_iter().chain(["message_type", "snapshot_id"]).collect()
    });
    assert_eq!((&summary["files_new"], &summary["total_bytes_processed"]), (&2.into(), &3006.into()));

    let list = machine.esker(["snapshots", "--json"]).success().json();
    let snapshot = &list[0][0];
    for key in ["id", "short_id", "time", "hostname", "username", "tags", "paths", "tree", "parent", "summary"] {
        assert!(keys(snapshot).contains(&key), "{key}");
    }
    assert_eq!(snapshot["id"], summary["snapshot_id"]);
    assert_eq!(snapshot["tags"], serde_json::json!(["x"]));
    assert_eq!(keys(&snapshot["summary"]), numbers);

    let nodes = machine.esker(["ls", "latest", "--json"]).success().json();
    assert_eq!(nodes[0]["message_type"], "snapshot");
    let file = nodes.iter().find(|node| node["name"] == "notes.txt").unwrap();
    assert_eq!((&file["type"], &file["size"], &file["message_type"]), (&"file".into(), &6.into(), &"node".into()));

    let restored = machine.esker(["restore", "latest", "--target", "o", "--json"]).success().json().pop().unwrap();
    assert_eq!((&restored["message_type"], &restored["files_restored"]), (&"summary".into(), &2.into()));
    let checked = machine.esker(["check", "--json"]).success().json().pop().unwrap();
    assert_eq!((&checked["message_type"], &checked["num_errors"]), (&"summary".into(), &0.into()));
    let version = machine.esker(["version", "--json"]).success().json().pop().unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_first_backup_can_make_the_repository() {
    let machine = Machine::new();
    machine.write("files/x", "x");
    let lines = machine.esker(["backup", "files", "--init", "--json"]).success().json();
    let types: Vec<_> = lines.iter().map(|line| line["message_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["initialized", "summary"]);
    let again = machine.esker(["backup", "files", "--init"]).success();
    assert!(!again.out().contains("made repository"), "{again}");
}

#[test]
fn json_errors_end_with_exit_error() {
    let machine = Machine::new();
    for (args, code) in [
        (&["snapshots", "--json"][..], 10),
        (&["snapshots", "--json", "--frob"], 2),
        (&["--repo", "memory:", "--json", "backup", "gone"], 1),
    ] {
        let output = machine.esker(args).fails(code);
        let last = output.json_err().pop().unwrap();
        assert_eq!((&last["message_type"], &last["code"]), (&"exit_error".into(), &code.into()), "{output}");
        assert!(!last["message"].as_str().unwrap().is_empty());
    }
}

// --- what is backed up and restored -------------------------------------------------------

fn listed(machine: &Machine, args: &[&str]) -> Vec<String> {
    let top = machine.path("files").canonicalize().unwrap();
    let output = machine.esker(["ls"].iter().chain(args)).success();
    let below = |line: &str| Path::new(line).strip_prefix(&top).ok().map(|path| path.display().to_string());
    output.out().lines().filter_map(below).filter(|path| !path.is_empty()).collect()
}

#[test]
fn excluded_files_are_left_out_for_every_reason() {
    let machine = Machine::with_repository();
    for name in ["a.LOG", "a.log", "keep.log", "large", "sub/x", "scratch/x", "tagged/x"] {
        machine.write(&format!("files/{name}"), "x");
    }
    machine.write("files/large", vec![0; 2000]);
    machine.write("files/tagged/.nobackup", "");
    machine.write("files/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55");
    machine.write("files/cache/x", "x");
    machine.write("excludes", "# comment\nscratch\n");
    let flags = "--exclude *.log --exclude !keep.log --iexclude *.Log --exclude-file excludes --exclude-caches \
                 --exclude-if-present .nobackup --exclude-larger-than 1K";
    machine.esker(["backup", "files"].into_iter().chain(flags.split_whitespace())).success();
    let expected = ["cache", "cache/CACHEDIR.TAG", "sub", "sub/x", "tagged", "tagged/.nobackup"];
    assert_eq!(listed(&machine, &["latest"]), expected);
}

#[test]
fn the_repository_and_the_cache_are_left_out_and_that_is_said() {
    let mut machine = Machine::new();
    machine.write("files/x", "x");
    machine.set("ESKER_REPOSITORY", "files/repo");
    machine.set("ESKER_CACHE_DIR", "files/cache");
    let output = machine.esker(["backup", "files", "--init", "--key-file", "files/k"]).success();
    assert!(output.out().contains("files/cache and 1 more: left out: it belongs to the backup itself"), "{output}");
    assert_eq!(listed(&machine, &["latest", "--key-file", "files/k"]), ["k", "x"]);
    let output = machine.esker(["backup", "files", "-v", "--key-file", "files/k"]).success();
    assert_eq!(output.err().matches("left out: it belongs to the backup itself").count(), 2, "{output}");
}

#[test]
fn filters_and_times_choose_the_snapshot() {
    let machine = Machine::with_repository();
    for (host, tag) in [("web", "a"), ("db", "b"), ("web", "a,b")] {
        machine.write("files/who", format!("{host} {tag}"));
        machine.esker(["backup", "files", "--host", host, "--tag", tag, "--force"]).success();
    }
    let top = machine.path("files").canonicalize().unwrap();
    let who = |flags: &[&str]| {
        let path = top.join("who");
        machine.esker([&["dump", "latest", path.to_str().unwrap()], flags].concat()).success().out()
    };
    assert_eq!(who(&[]), "web a,b");
    assert_eq!(who(&["--host", "db"]), "db b");
    assert_eq!(who(&["--tag", "b", "--host", "web"]), "web a,b");
    assert_eq!(who(&["--path", "files"]), "web a,b");
    machine.esker(["ls", "latest", "--path", "elsewhere"]).fails(1);
    let list = machine.esker(["snapshots", "--json"]).success().json().remove(0);
    let time = |number: usize| list[number]["time"].as_str().unwrap();
    assert_eq!(who(&["--at", time(1)]), "db b");
    assert_eq!(who(&["--before", time(0)]), "web a");
    let count = |flags: &[&str]| {
        let output = machine.esker([&["snapshots", "--json"], flags].concat()).success();
        output.json()[0].as_array().unwrap().len()
    };
    assert_eq!(count(&["--after", time(1)]), 2);
    assert_eq!(count(&["--after", "1h ago"]), 3);
    assert_eq!(count(&["--before", "1h ago"]), 0);
    assert_eq!(count(&["--latest", "1"]), 2, "one for each host and paths");
    let groups = machine.esker(["snapshots", "--json", "--group-by", "host"]).success().json().remove(0);
    assert_eq!((groups.as_array().unwrap().len(), &groups[0]["group_key"]["hostname"]), (2, &"db".into()));
    machine.esker(["ls", list[0]["short_id"].as_str().unwrap(), "--at", "2020-01-01"]).fails(2);
}

#[test]
fn restore_puts_things_where_it_was_told() {
    let machine = machine_with_files();
    machine.esker(["backup", "files"]).success();
    let top = machine.path("files").canonicalize().unwrap();
    let there = |path: &str| fs::read(machine.path(path)).is_ok();
    machine.esker(["restore", "latest", "--target", "whole"]).success();
    assert!(there(&format!("whole{}/notes.txt", top.display())));
    let file = format!("latest:{}/notes.txt", top.display());
    machine.esker(["restore", &file, "--target", "one"]).success();
    assert!(there("one/notes.txt"));
    let all = format!("latest:{}", top.display());
    machine.esker(["restore", &all, "--target", "dry", "--dry-run"]).success();
    assert!(!machine.path("dry").exists());
    machine.esker(["restore", &all, "--target", "some", "--include", "*.txt"]).success();
    assert!(there("some/notes.txt") && !there("some/img/a.raw"));
    machine.esker(["restore", &all, "--target", "others", "--exclude", "*.txt"]).success();
    assert!(!there("others/notes.txt") && there("others/img/a.raw"));

    machine.write("some/extra", "x");
    machine.write("some/notes.txt", "mine");
    machine.esker(["restore", &all, "--target", "some", "--overwrite", "never"]).success();
    assert_eq!(fs::read(machine.path("some/notes.txt")).unwrap(), b"mine");
    machine.esker(["restore", &all, "--target", "some", "--delete", "--verify"]).success();
    assert_eq!(fs::read(machine.path("some/notes.txt")).unwrap(), b"hello\n");
    assert!(!there("some/extra"));
}

#[test]
fn names_cannot_steer_a_terminal() {
    let machine = Machine::with_repository();
    let hostile = std::ffi::OsStr::from_bytes(b"a\x1b[2J\xff\n");
    machine.write("files/x", "x");
    fs::write(machine.path("files").join(hostile), "x").unwrap();
    machine.esker(["backup", "files", "--tag", "t\x1b", "--host", "h\x1b"]).success();
    for args in
        [&["snapshots"][..], &["ls", "latest"], &["ls", "-l", "latest"], &["ls", "latest", "--json"], &["ls", "\x1b"]]
    {
        let output = machine.esker(args);
        let all = output.out() + &output.err();
        assert!(!all.contains('\x1b'), "{all}");
    }
    let output = machine.esker(["ls", "latest", "--json"]).success();
    let node = output.json().into_iter().find(|node| node.get("path_hex").is_some()).unwrap();
    assert!(node["path_hex"].as_str().unwrap().ends_with("2f611b5b324aff0a"), "{node}");
}

#[test]
fn a_directory_is_dumped_as_an_archive_and_refused_without() {
    let machine = machine_with_files();
    machine.esker(["backup", "files"]).success();
    let top = machine.path("files").canonicalize().unwrap();
    let top = top.to_str().unwrap();
    prints!(machine.esker(["dump", "latest", top]), @"
    error: only a regular file can be dumped by itself

    hint: to dump a directory, add `--archive tar`
    [exit 2]
    ");
    let tar = machine.esker(["dump", "latest", top, "--archive", "tar"]).success().stdout;
    let mut archive = tar::Archive::new(&tar[..]);
    let names: BTreeSet<_> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, ["img/", "img/a.raw", "notes.txt"].map(String::from).into());
    machine.esker(["dump", "latest", &format!("{top}/gone")]).fails(1);
}

#[test]
fn the_demo_tells_the_truth_and_leaves_nothing() {
    let machine = Machine::new();
    let summary = machine.esker(["demo", "--json"]).success().json().pop().unwrap();
    assert_eq!(summary["differences"], serde_json::json!([]));
    let stored = summary["first"]["stored_bytes"].as_u64().unwrap();
    assert!((1..summary["source_bytes"].as_u64().unwrap()).contains(&stored), "{summary}");
    machine.write("mine/x", "x");
    machine.esker(["demo", "mine", "--keep", "kept"]).success();
    let names: BTreeSet<_> = fs::read_dir(machine.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["kept", "mine"].map(String::from).into());
    let output = machine.esker(["snapshots", "--json", "--repo", "kept/repository", "--key-file", "kept/key"]);
    assert_eq!(output.success().json()[0].as_array().unwrap().len(), 2);
    assert_eq!(fs::read(machine.path("mine/x")).unwrap(), b"x");
    machine.esker(["demo", "mine", "--keep", "kept"]).fails(2);
}

// --- the real program ---------------------------------------------------------------------

fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
    command.current_dir(dir).env_clear().env("ESKER_CACHE_DIR", dir.join("cache")).stdin(Stdio::null());
    command.env("ESKER_REPOSITORY", dir.join("repo")).env("ESKER_KEY_FILE", dir.join("key"));
    command
}

fn code(command: &mut Command) -> i32 {
    command.output().unwrap().status.code().unwrap()
}

#[test]
fn the_program_works_and_ends_with_the_codes() {
    let dir = tempfile::tempdir().unwrap();
    let esker = || program(dir.path());
    fs::write(dir.path().join("x"), "x").unwrap();
    assert_eq!(code(esker().arg("snapshots")), 10);
    assert_eq!(code(esker().arg("init")), 0);
    assert_eq!(code(esker().args(["backup", "x"])), 0);
    assert_eq!(code(esker().args(["restore", "latest", "--target", "out"])), 0);
    assert_eq!(code(esker().args(["backup", "x", "y"])), 3);
    assert_eq!(code(esker().args(["check", "--read-data"])), 0);
    assert_eq!(code(esker().args(["snapshots", "--repo", "memory:"])), 2);
    assert_eq!(code(&mut esker()), 2);
    assert_eq!(code(esker().arg("--version")), 0);
    for shell in ["bash", "zsh", "fish"] {
        let output = esker().args(["completions", shell]).output().unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().contains("snapshots"), "{shell}");
    }
    // The password goes through a pipe that only the program can read.
    fs::write(dir.path().join("pw"), PASSWORD).unwrap();
    assert_eq!(code(esker().args(["key", "passwd", "--new-password-file", "pw"])), 0);
    let script = format!("printf '{PASSWORD}' | {{ exec 3<&0 \"$0\" snapshots --password-fd 3 </dev/null; }}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_esker")]).current_dir(dir.path()).env("ESKER_REPOSITORY", "repo");
    shell.env("ESKER_CACHE_DIR", "cache").env("ESKER_STATE_DIR", "state").env_remove("ESKER_KEY_FILE");
    assert_eq!(code(shell.arg("x")), 0);
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("many")).unwrap();
    for number in 0..3000 {
        fs::write(dir.path().join(format!("many/a file with a rather long name, number {number}")), "x").unwrap();
    }
    assert_eq!(code(program(dir.path()).args(["backup", "many", "--init"])), 0);
    let many = dir.path().join("many").canonicalize().unwrap();
    for args in [vec!["ls", "latest"], vec!["dump", "latest", many.to_str().unwrap(), "--archive", "tar"]] {
        let mut child = program(dir.path()).args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{args:?}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
}

#[test]
fn tags_are_changed_and_files_taken_out_of_snapshots() {
    let machine = machine_with_files();
    machine.write("files/secret.txt", "4711\n");
    machine.esker(["backup", "files", "--tag", "a"]).success();
    prints!(machine.esker(["tag"]), @"
    error: no tags were changed: there is nothing to do

    hint: say which with `--set`, `--add` or `--remove`
    [exit 2]
    ");
    prints!(machine.esker(["tag", "--set", "b", "--add", "c"]), @"
    error: the argument '--set <TAG[,TAG]>' cannot be used with '--add <TAG[,TAG]>'

    Usage: esker tag --set <TAG[,TAG]> [SNAPSHOT]...

    For more information, try '--help'.
    [exit 2]
    ");
    prints!(machine.esker(["tag", "--add", "b,c", "--remove", "a", "latest"]), @"
    snapshot 371a5713 is now 92143f95
    changed the tags of 1 snapshot
    [exit 0]
    ");
    prints!(machine.esker(["tag", "--add", "b"]), @"
    no tags were changed
    [exit 0]
    ");
    prints!(machine.esker(["tag", "--set", "", "--json"]), @r#"
    {"message_type":"changed","old_snapshot_id":"92143f9594f326feae658b5f69fc8a61","new_snapshot_id":"bf6756d38cdd6affbe62513c34f84b22"}
    {"message_type":"summary","changed_snapshots":1}
    [exit 0]
    "#);
    prints!(machine.esker(["rewrite"]), @"
    error: nothing was rewritten: there is nothing to do

    hint: say what to leave out with `--exclude`, or what to change with `--new-host` or `--new-time`; or `--reencrypt`
    [exit 2]
    ");
    prints!(machine.esker(["rewrite", "--exclude", "[", "latest"]), @"
    error: `[` is not a pattern: a `[` without `]`
    [exit 2]
    ");
    prints!(machine.esker(["rewrite", "--exclude", "nothing"]), @"
    snapshot bf6756d3 stays as it is
    no snapshot has anything of that: all stay as they are
    [exit 0]
    ");
    prints!(machine.esker(["rewrite", "--exclude", "secret*", "--dry-run"]), @"
    snapshot bf6756d3 would be made again without 1 file, 5 B
    1 snapshot would be rewritten
    [exit 0]
    ");
    prints!(machine.esker(["rewrite", "--exclude", "secret*", "--json"]), @r#"
    {"message_type":"changed","old_snapshot_id":"bf6756d38cdd6affbe62513c34f84b22","new_snapshot_id":"e2f9b6775ae0ea8f4f4be3ceb0aecada","files_removed":1,"dirs_removed":0,"bytes_removed":5}
    {"message_type":"summary","changed_snapshots":1,"snapshots":1,"dry_run":false}
    [exit 0]
    "#);
    prints!(machine.esker(["rewrite", "--exclude", "secret*", "--forget", "--undelete-window", "0d"]), @"
    snapshot bf6756d3 was made again before, as e2f9b677
    snapshot e2f9b677 stays as it is
    1 snapshot rewritten; to erase what only the old ones have, run `esker prune --max-unused 0%` twice
    [exit 0]
    ");
    prints!(machine.esker(["rewrite", "--new-host", "other", "--new-time", "2001-01-01 00:00"]), @"
    snapshot e2f9b677 is made again as 13f4e143
    1 snapshot rewritten; the old ones stay, with all that is in them, until they are forgotten: see --forget
    [exit 0]
    ");
    prints!(machine.esker(["ls", "-R", "latest:/"]), @"
    /tmp
    [DIR]
    [DIR]/files
    [DIR]/files/img
    [DIR]/files/img/a.raw
    [DIR]/files/notes.txt
    [exit 0]
    ");
}

#[test]
fn repairs_say_what_they_did() {
    let machine = machine_with_files();
    machine.esker(["backup", "files"]).success();
    let first: Vec<_> = machine.memory.list("packs/").unwrap().into_iter().map(|object| object.name).collect();
    prints!(machine.esker(["repair", "index"]), @"
    nothing to repair: the index names every pack of every snapshot
    [exit 0]
    ");
    prints!(machine.esker(["repair", "snapshots"]), @"
    nothing to repair: 1 snapshot is whole
    [exit 0]
    ");
    machine.write("files/img/b.raw", [8; 5000]);
    machine.esker(["backup", "files"]).success();
    first.iter().for_each(|pack| machine.memory.delete(pack).unwrap());
    prints!(machine.esker(["repair", "snapshots", "--dry-run"]), @"
    of snapshot 371a5713 nothing is left
    of snapshot 89a1c501 one would be made without 2 files, 2.9 KiB
    2 snapshots would be repaired
    lost: 371a5713:/: chunk `[ROOT]` is in no pack of the repository
    lost: 89a1c501:[DIR]/files/img/a.raw: chunk `f755bb49` is in no pack of the repository
    lost: 89a1c501:[DIR]/files/notes.txt: chunk `228b1df8` is in no pack of the repository
    [exit 0]
    ");
    prints!(machine.esker(["repair", "snapshots", "--json"]), @r#"
    {"message_type":"changed","old_snapshot_id":"371a571337242babfc421fc1c76229c7","new_snapshot_id":null,"paths_lost":1,"files_removed":2,"dirs_removed":4,"bytes_removed":3006}
    {"message_type":"changed","old_snapshot_id":"89a1c501e28c500bdcdd80be051e9b3e","new_snapshot_id":"48b7f30140732d2f8a2c4361cbe71c41","paths_lost":2,"files_removed":2,"dirs_removed":0,"bytes_removed":3006}
    {"message_type":"summary","repaired_snapshots":2,"snapshots":2,"dry_run":false}
    {"message_type":"error","snapshot_id":"371a571337242babfc421fc1c76229c7","path":"/","error":{"message":"cannot read all of the directory `/`: cannot read the directory node `[ROOT]`: chunk `[ROOT]` is in no pack of the repository"}}
    {"message_type":"error","snapshot_id":"89a1c501e28c500bdcdd80be051e9b3e","path":"[DIR]/files/img/a.raw","error":{"message":"chunk `f755bb49` is in no pack of the repository"}}
    {"message_type":"error","snapshot_id":"89a1c501e28c500bdcdd80be051e9b3e","path":"[DIR]/files/notes.txt","error":{"message":"chunk `228b1df8` is in no pack of the repository"}}
    [exit 0]
    "#);
    prints!(machine.esker(["repair", "snapshots", "--forget"]), @"
    of snapshot 371a5713 nothing is left
    of snapshot 89a1c501 was made 48b7f301 before
    2 snapshots repaired, and the damaged ones forgotten
    lost: 371a5713:/: chunk `[ROOT]` is in no pack of the repository
    lost: 89a1c501:[DIR]/files/img/a.raw: chunk `f755bb49` is in no pack of the repository
    lost: 89a1c501:[DIR]/files/notes.txt: chunk `228b1df8` is in no pack of the repository
    [exit 0]
    ");
    prints!(machine.esker(["repair", "index", "--json"]), @r#"
    {"message_type":"summary","packs_added":0,"packs_read":0,"chunks_saved":0,"packs_refused":0,"segments_replaced":0,"lost_sessions":0,"dry_run":false}
    [exit 0]
    "#);
}
