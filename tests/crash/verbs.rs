//! Every verb, and how it is stopped: the table that the tests of this file walk.
//!
//! A verb is known by its manual page, and the program says which pages it has; one that is missing
//! here fails [`every_verb_stands_in_the_table`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker::storage::fault::{Faulty, Plan};

use crate::cli::{Machine, Output};
use crate::stops::{self, DISK, Excuse, Known, assert_calm, assert_checks, backup, noise};

/// A command that changes something, and what else must hold than what holds for all.
pub(crate) struct Case {
    /// Its manual page.
    pub(crate) page: &'static str,
    /// What of it.
    pub(crate) name: &'static str,
    /// Brings the machine, with a repository and two snapshots, to where the command begins.
    pub(crate) prepare: fn(&mut Machine),
    /// The command; says whether it reported success.
    pub(crate) run: fn(&Machine) -> bool,
    /// How many snapshots more there are when it reported success.
    pub(crate) snapshots: usize,
    /// How many of the oldest snapshots it may take away, or bring back.
    pub(crate) forgets: usize,
    /// What else must hold, given whether it reported success.
    pub(crate) after: fn(&Machine, bool, &str),
    /// Whether it changes anything in the repository.
    pub(crate) writes: bool,
    /// How many stops are tried, unless all are.
    pub(crate) most: usize,
}

/// A case of which nothing else is to be said.
const PLAIN: Case = Case {
    page: "",
    name: "",
    prepare: |_| {},
    run: |_| true,
    snapshots: 0,
    forgets: 0,
    after: |_, _, _| {},
    writes: true,
    most: 16,
};

/// Reads with nothing kept locally, so that all is imported.
const READS: Case = Case { prepare: forget, writes: false, ..PLAIN };

pub(crate) const CASES: &[Case] = &[
    Case { page: "esker-backup", name: "an increment", run: |machine| done(&backup(machine)), snapshots: 1, ..PLAIN },
    Case {
        page: "esker-backup",
        name: "of many packs, with checkpoints",
        prepare: |machine| fs::remove_dir_all(machine.path(DISK).join("cache")).unwrap(),
        run: |machine| stops::backup_in_many_packs(machine).is_ok(),
        snapshots: 1,
        most: 50,
        ..PLAIN
    },
    Case {
        page: "esker-backup",
        name: "that goes on where another was stopped",
        prepare: |machine| {
            fs::remove_dir_all(machine.path(DISK).join("cache")).unwrap();
            let stopping = Faulty::new(Arc::new(stops::local(machine)), Plan::crash_at(12));
            machine.instead = Some(Arc::new(stopping));
            stops::backup_in_many_packs(machine).unwrap_err();
            machine.instead = None;
            let left = fs::read_dir(records(machine)).unwrap().map(|entry| entry.unwrap().file_name());
            let left: Vec<_> = left.map(|name| name.into_string().unwrap()).collect();
            let has = |what: &str| left.iter().any(|name| name.contains(what));
            assert!(has(".new-") && has(".open-"), "a stopped run leaves its record and a journal: {left:?}");
        },
        run: |machine| stops::backup_in_many_packs(machine).is_ok(),
        snapshots: 1,
        most: 32,
        ..PLAIN
    },
    Case {
        page: "esker-backup",
        name: "from stdin",
        prepare: |machine| machine.piped = noise(77, 40_000),
        run: |machine| done(&machine.esker(["backup", "--stdin", "--stdin-filename", "/dump"])),
        snapshots: 1,
        ..PLAIN
    },
    Case {
        page: "esker-backup",
        name: "of the output of a command",
        run: |machine| {
            done(&machine.esker(["backup", "--stdin-from-command", "--stdin-filename", "/dump", "--", "echo", "hello"]))
        },
        snapshots: 1,
        ..PLAIN
    },
    Case {
        page: "esker-backup",
        name: "that keeps nothing here",
        run: |machine| done(&machine.esker(["backup", "--no-cache", "source"])),
        snapshots: 1,
        ..PLAIN
    },
    Case {
        page: "esker-backup",
        name: "of what has not changed",
        prepare: |machine| drop(backup(machine).success()),
        run: |machine| done(&machine.esker(["backup", "--skip-if-unchanged", "source"])),
        ..PLAIN
    },
    Case {
        page: "esker-backup",
        name: "that only says what it would do",
        run: |machine| done(&machine.esker(["backup", "--dry-run", "source"])),
        writes: false,
        ..PLAIN
    },
    Case { page: "esker-snapshots", name: "", run: |machine| done(&machine.esker(["snapshots"])), ..READS },
    Case { page: "esker-ls", name: "", run: |machine| done(&machine.esker(["ls", "latest"])), ..READS },
    Case { page: "esker-stats", name: "", run: |machine| done(&machine.esker(["stats"])), ..READS },
    Case {
        page: "esker-dump",
        name: "",
        run: |machine| done(&machine.esker(["dump", "--archive", "tar", "latest", "/"])),
        ..READS
    },
    Case {
        page: "esker-drill",
        name: "",
        run: |machine| done(&machine.esker(["drill"])),
        after: |machine, _, when| {
            let again = machine.esker(["drill"]);
            assert_eq!(again.code, 0, "{again}, {when}");
            let names = fs::read_dir(machine.path("")).unwrap().map(|entry| entry.unwrap().file_name());
            let left = names.filter(|name| name.to_string_lossy().starts_with("esker-drill")).count();
            assert_eq!(left, 0, "what was restored is still there, {when}");
        },
        ..PLAIN
    },
    Case { page: "esker-check", name: "", run: |machine| done(&machine.esker(["check"])), ..READS },
    Case {
        page: "esker-check",
        name: "with a note of what is whole",
        prepare: |machine| {
            machine.esker(["key", "writer", "--name", "w", "--out", "writer"]).success();
            machine.esker(["backup", "--key-file", "writer", "source"]).success();
        },
        run: |machine| done(&machine.esker(["check", "--read-data", "--attest"])),
        ..PLAIN
    },
    Case { page: "esker-scrub", name: "", run: |machine| done(&machine.esker(["scrub"])), ..PLAIN },
    Case {
        page: "esker-scrub",
        name: "without a key",
        run: |machine| done(&machine.esker(["scrub", "--without-key"])),
        writes: false,
        ..PLAIN
    },
    Case {
        page: "esker-scrub",
        name: "that repairs",
        prepare: |machine| {
            machine.esker(["parity", "add"]).success();
            let shards = fs::read_dir(machine.path(DISK).join("repository/packs")).unwrap();
            for pack in shards.flat_map(|shard| objects(&shard.unwrap().path())) {
                let mut bytes = fs::read(&pack).unwrap();
                bytes[50] ^= 1;
                fs::write(&pack, bytes).unwrap();
            }
            machine.esker(["scrub"]).fails(4);
        },
        run: |machine| done(&machine.esker(["scrub", "--repair"])),
        ..PLAIN
    },
    Case {
        page: "esker-parity-add",
        name: "",
        run: |machine| done(&machine.esker(["parity", "add"])),
        after: |machine, _, when| {
            let again = machine.esker(["parity", "add"]);
            assert_eq!(again.code, 0, "{again}, {when}");
        },
        ..PLAIN
    },
    Case {
        page: "esker-restore",
        name: "",
        run: |machine| done(&restore(machine, &[])),
        after: |machine, _, when| {
            let again = restore(machine, &[]);
            assert_eq!(again.code, 0, "{again}, {when}");
            // A directory that holds something is not given other attributes: it may be `/tmp`.
            let lines = |path| crate::tree::lines(path)[1..].to_vec();
            let (restored, whole) = (lines(&machine.path(DISK).join("home/restored")), lines(&machine.path("latest")));
            assert!(restored == whole, "restored again it differs, {when}");
        },
        prepare: |machine| {
            let snapshot = format!("latest:{}", stops::source(machine).display());
            machine.esker(["restore", &snapshot, "--target", "latest"]).success();
        },
        writes: false,
        ..PLAIN
    },
    Case {
        page: "esker-restore",
        name: "with a snapshot of what it replaces",
        prepare: |machine| {
            restore(machine, &[]).success();
            fs::write(machine.path(DISK).join("home/restored/note"), "mine").unwrap();
        },
        run: |machine| done(&restore(machine, &["--safety-snapshot"])),
        snapshots: 1,
        ..PLAIN
    },
    Case {
        page: "esker-forget",
        name: "",
        run: |machine| done(&machine.esker(["forget", "--keep-last", "1"])),
        forgets: 1,
        ..PLAIN
    },
    Case {
        page: "esker-undelete",
        name: "",
        prepare: |machine| {
            let listed = machine.esker(["snapshots", "--json"]).success().json();
            fs::write(machine.path("forgotten"), listed[0][0]["id"].as_str().unwrap()).unwrap();
            machine.esker(["forget", "--keep-last", "1"]).success();
        },
        run: |machine| done(&machine.esker(["undelete", &fs::read_to_string(machine.path("forgotten")).unwrap()])),
        snapshots: 1,
        forgets: 1,
        ..PLAIN
    },
    Case {
        page: "esker-prune",
        name: "",
        prepare: |machine| {
            machine.esker(["forget", "--keep-last", "1", "--undelete-window", "0d"]).success();
            // The first only sees what was forgotten.
            prune(machine).success();
        },
        run: |machine| done(&prune(machine)),
        forgets: 1,
        after: |machine, _, when| {
            for _ in 0..2 {
                // A torn commit, which only a storage that breaks its word leaves, stops a collection: who
                // knows what it named.
                let again = prune(machine);
                let is_torn = again.code == 6 && again.err().contains("it is damaged or torn");
                assert!(again.code == 0 || is_torn, "{again}, {when}");
            }
        },
        most: 32,
        ..PLAIN
    },
    Case {
        page: "esker-copy",
        name: "into other ids",
        prepare: |machine| other(machine, &[]),
        run: |machine| done(&copy(machine)),
        snapshots: 1,
        after: |machine, _, when| assert_copied(machine, when),
        ..PLAIN
    },
    Case {
        page: "esker-copy",
        name: "into the same ids",
        prepare: |machine| other(machine, &["--like", "disk/repository", "--from-key-file", "disk/home/key"]),
        run: |machine| done(&copy(machine)),
        snapshots: 1,
        after: |machine, _, when| assert_copied(machine, when),
        ..PLAIN
    },
    Case {
        page: "esker-copy",
        name: "that keeps a mirror",
        prepare: |machine| {
            let repository = machine.path(DISK).join("repository");
            let copied = std::process::Command::new("cp").arg("-r").arg(repository).arg(machine.path("other")).status();
            assert!(copied.unwrap().success());
            machine.esker(["backup", "--repo", "other", "source"]).success();
        },
        run: |machine| done(&mirror(machine)),
        snapshots: 1,
        after: |machine, _, when| {
            let again = mirror(machine);
            // What a storage has torn is mended, in the length it should have.
            assert_eq!(again.code, 0, "{again}, {when}");
        },
        ..PLAIN
    },
    Case {
        page: "esker-tag",
        name: "",
        run: |machine| done(&machine.esker(["tag", "--set", "kept", "latest"])),
        forgets: 2,
        after: |machine, reported, when| {
            let listed = machine.esker(["snapshots", "--json"]).json();
            let tagged = listed[0].as_array().unwrap().iter().filter(|one| one["tags"][0] == "kept").count();
            assert_eq!(listed[0].as_array().unwrap().len(), 2, "{when}");
            assert!(tagged == 1 || !reported && tagged == 0, "{tagged}, {when}");
        },
        ..PLAIN
    },
    Case {
        page: "esker-rewrite",
        name: "that forgets",
        prepare: |machine| drop(machine.esker(["backup", "source/sub"]).success()),
        run: |machine| {
            let args =
                ["rewrite", "--exclude", "file-3", "--forget", "--undelete-window", "0d", "--path", "source/sub"];
            done(&machine.esker(args))
        },
        snapshots: 1,
        after: |machine, _, when| {
            let again = machine.esker(["rewrite", "--exclude", "file-3", "--forget", "--path", "source/sub"]);
            assert_eq!(again.code, 0, "{again}, {when}");
            let listed = machine.esker(["snapshots", "--path", "source/sub", "--json"]).json();
            assert_eq!(listed[0].as_array().unwrap().len(), 1, "there are two of it, {when}");
            let list = machine.esker(["ls", "-R", "latest", "--path", "source/sub"]).success().out();
            assert!(list.contains("file-2") && !list.contains("file-3"), "{list}, {when}");
        },
        ..PLAIN
    },
    Case {
        page: "esker-rewrite",
        name: "that stores anew what is under older keys",
        prepare: |machine| drop(machine.esker(["key", "rotate"]).success()),
        run: |machine| done(&machine.esker(["rewrite", "--reencrypt"])),
        after: |machine, reported, when| {
            let left = |of: &Output| of.json()[0]["older_keys_bytes"].as_u64().unwrap();
            let planned = machine.esker(["rewrite", "--reencrypt", "--dry-run", "--json"]).success();
            let before = planned.json()[0]["older_keys_bytes_before"].as_u64().unwrap();
            assert!(!reported || before == 0, "{before} left, {when}");
            let again = machine.esker(["rewrite", "--reencrypt", "--json"]).success();
            assert_eq!(left(&again), 0, "{when}");
            prune(machine).success();
        },
        ..PLAIN
    },
    Case {
        page: "esker-repair-index",
        name: "after a commit was lost",
        prepare: |machine| {
            machine.esker(["backup", "source/sub"]).success();
            prune(machine).success();
            let listed = machine.esker(["snapshots", "--path", "source/sub", "--json"]).success().json();
            let commit = format!("repository/snapshots/{}", listed[0][0]["id"].as_str().unwrap());
            fs::remove_file(machine.path(DISK).join(commit)).unwrap();
            forget(machine);
        },
        run: |machine| done(&machine.esker(["repair", "index"])),
        snapshots: 1,
        after: |machine, _, when| {
            let again = machine.esker(["repair", "index"]);
            assert_eq!(again.code, 0, "{again}, {when}");
            let listed = machine.esker(["snapshots", "--path", "source/sub", "--json"]).json();
            assert_eq!(listed[0].as_array().unwrap().len(), 1, "there is not one of it, {when}");
            let pruned = prune(machine);
            // A torn note, which only a storage that breaks its word leaves, stops a collection.
            let is_torn = pruned.code == 6 && pruned.err().contains("its name is not the hash of its bytes");
            assert!(pruned.code == 0 || is_torn, "{pruned}, {when}");
        },
        ..PLAIN
    },
    Case {
        page: "esker-repair-snapshots",
        name: "of whole ones",
        run: |machine| done(&machine.esker(["repair", "snapshots", "--forget"])),
        ..PLAIN
    },
    Case { page: "esker-find", name: "", run: |machine| done(&machine.esker(["find", "file-3"])), ..READS },
    Case { page: "esker-diff", name: "", run: |machine| done(&machine.esker(["diff", "latest~1", "latest"])), ..READS },
    Case { page: "esker-sessions", name: "", run: |machine| done(&machine.esker(["sessions"])), ..READS },
    Case { page: "esker-status", name: "", run: |machine| done(&machine.esker(["status"])), ..READS },
    Case { page: "esker-audit-verify", name: "the list", run: |machine| done(&machine.esker(["audit"])), ..READS },
    Case { page: "esker-audit-verify", name: "", run: |machine| done(&machine.esker(["audit", "verify"])), ..READS },
    Case { page: "esker-key-list", name: "", run: |machine| done(&machine.esker(["key", "list"])), ..READS },
    Case {
        page: "esker-key-add",
        name: "with a key file",
        run: |machine| done(&machine.esker(["key", "add", "--out", "disk/home/second"])),
        after: |machine, reported, when| assert_opens(machine, "second", reported, when),
        ..PLAIN
    },
    Case {
        page: "esker-key-add",
        name: "with a password",
        prepare: |machine| fs::write(machine.path("new"), "correct horse").unwrap(),
        run: |machine| done(&machine.esker(["key", "add", "--name", "b", "--new-password-file", "new"])),
        after: |machine, reported, when| {
            if reported {
                assert_eq!(with_password(machine, "new"), 0, "{when}");
            }
        },
        ..PLAIN
    },
    Case {
        page: "esker-key-writer",
        name: "",
        run: |machine| done(&machine.esker(["key", "writer", "--name", "w", "--out", "disk/home/writer"])),
        after: |machine, reported, when| {
            if reported {
                let made = machine.esker(["backup", "--key-file", "disk/home/writer", "source"]);
                assert_eq!(made.code, 0, "{made}, {when}");
            }
        },
        ..PLAIN
    },
    Case {
        page: "esker-key-passwd",
        name: "",
        prepare: |machine| {
            fs::write(machine.path("old"), "correct horse").unwrap();
            fs::write(machine.path("new"), "battery staple").unwrap();
            machine.esker(["key", "passwd", "--new-password-file", "old"]).success();
        },
        run: |machine| done(&machine.esker(["key", "passwd", "--new-password-file", "new"])),
        after: |machine, reported, when| {
            let new = with_password(machine, "new");
            assert!(new == 0 || !reported && with_password(machine, "old") == 0, "nothing opens it, {when}");
            if reported {
                assert_eq!(with_password(machine, "old"), 12, "the old password opens it, {when}");
            }
        },
        ..PLAIN
    },
    Case {
        page: "esker-key-export",
        name: "",
        run: |machine| done(&machine.esker(["key", "export", "--out", "disk/home/kit"])),
        after: |machine, reported, when| assert_opens(machine, "kit", reported, when),
        ..PLAIN
    },
    Case {
        page: "esker-key-recover",
        name: "",
        prepare: |machine| {
            machine.esker(["key", "export", "--out", "kit"]).success();
            fs::write(machine.path("new"), "correct horse").unwrap();
        },
        run: |machine| done(&machine.esker(["key", "recover", "--words-file", "kit", "--new-password-file", "new"])),
        after: |machine, reported, when| {
            if reported {
                assert_eq!(with_password(machine, "new"), 0, "{when}");
            }
        },
        ..PLAIN
    },
    Case {
        page: "esker-key-rotate",
        name: "",
        prepare: |machine| {
            machine.esker(["key", "writer", "--name", "w", "--out", "writer"]).success();
        },
        run: |machine| done(&machine.esker(["key", "rotate"])),
        after: |machine, _, when| {
            // Whoever opened it before goes on, whatever came of it.
            let made = machine.esker(["backup", "--key-file", "writer", "source"]);
            assert_eq!(made.code, 0, "{made}, {when}");
        },
        ..PLAIN
    },
    Case {
        page: "esker-key-test-recovery",
        name: "",
        prepare: |machine| {
            machine.esker(["key", "export", "--out", "kit"]).success();
            forget(machine);
        },
        run: |machine| done(&machine.esker(["key", "test-recovery", "--words-file", "kit"])),
        ..READS
    },
    Case {
        page: "esker-key-remove",
        name: "",
        prepare: |machine| {
            machine.esker(["key", "add", "--name", "gone", "--out", "second"]).success();
            machine.esker(["backup", "--key-file", "second", "source"]).success();
        },
        run: |machine| done(&machine.esker(["key", "remove", &id_of(machine, "gone")])),
        after: |machine, reported, when| {
            if reported {
                let made = machine.esker(["backup", "--key-file", "second", "source"]);
                assert_ne!(made.code, 0, "who was removed makes a backup, {when}");
            }
        },
        ..PLAIN
    },
    Case {
        page: "esker-repair-config",
        name: "from the second copies",
        prepare: |machine| {
            let repository = machine.path(DISK).join("repository");
            fs::remove_file(repository.join("config")).unwrap();
            fs::remove_file(&objects(&repository.join("access"))[0]).unwrap();
            fs::remove_file(&objects(&repository.join("copies/access"))[1]).unwrap();
        },
        run: |machine| done(&machine.esker(["repair", "config"])),
        ..PLAIN
    },
    Case {
        page: "esker-repair-config",
        name: "from a kit",
        prepare: |machine| {
            machine.esker(["key", "export", "--out", "kit"]).success();
            let repository = machine.path(DISK).join("repository");
            for lost in ["config", "copies/config"] {
                fs::remove_file(repository.join(lost)).unwrap();
            }
            for lost in ["access", "copies/access"] {
                fs::remove_dir_all(repository.join(lost)).unwrap();
            }
        },
        run: |machine| done(&machine.esker(["repair", "config", "--from", "kit"])),
        ..PLAIN
    },
    Case {
        page: "esker-cache-clear",
        name: "",
        run: |machine| done(&machine.esker(["cache", "clear", "--all"])),
        after: |machine, _, when| {
            let again = machine.esker(["cache", "clear", "--all"]);
            assert_eq!(again.code, 0, "{again}, {when}");
            let left = fs::read_dir(machine.path(DISK).join("cache")).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{when}");
        },
        writes: false,
        ..PLAIN
    },
    Case {
        page: "esker-cache-prune",
        name: "",
        run: |machine| done(&machine.esker(["cache", "prune", "--max-age", "0h"])),
        writes: false,
        ..PLAIN
    },
];

/// Verbs that change neither a repository nor anything that is kept of one: the command, or why none is run.
pub(crate) const HARMLESS: &[(&str, Result<&[&str], &str>)] = &[
    ("esker-cache-list", Ok(&["cache", "list"])),
    ("esker-config-check", Ok(&["config", "check"])),
    ("esker-config-show", Ok(&["config", "show"])),
    ("esker-completions", Ok(&["completions", "bash"])),
    ("esker-version", Ok(&["version"])),
    ("esker-man", Ok(&["man", "pages"])),
    ("esker-config-example", Ok(&["config", "example"])),
    ("esker-config-schema", Ok(&["config", "schema"])),
    ("esker-job-list", Err("reads what is remembered of jobs")),
    ("esker-job-run", Err("runs a command of this table in its process, and remembers it (tests/serve.rs)")),
    ("esker-serve", Err("runs commands of this table in its process; it is killed in tests/serve.rs")),
    ("esker-notify-test", Err("sends, and stores nothing")),
    ("esker-mount", Err("reads as `ls` and `dump` do, until it is stopped")),
    ("esker-demo", Err("works in a directory of its own, and removes it")),
];

/// The one verb that begins without a repository, and so has a test of its own.
pub(crate) const INIT: &str = "esker-init";

#[test]
fn every_verb_stands_in_the_table() {
    let machine = stops::machine(1);
    machine.esker(["man", "pages"]).success();
    let pages: BTreeSet<String> = (fs::read_dir(machine.path("pages")).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_suffix(".1").unwrap().to_owned())
        .collect();
    let is_group = |page: &String| pages.iter().any(|other| other.starts_with(&format!("{page}-")));
    let verbs: BTreeSet<_> = pages.iter().filter(|page| !is_group(page)).map(String::as_str).collect();
    let known = CASES.iter().map(|case| case.page).chain(HARMLESS.iter().map(|(page, _)| *page)).chain([INIT]);
    let known: BTreeSet<_> = known.collect();
    assert_eq!(verbs, known, "add how a new verb is stopped to CASES, or to HARMLESS why it need not be");
}

fn done(output: &Output) -> bool {
    output.code == 0
}

/// Removes what is kept of the repository.
fn forget(machine: &mut Machine) {
    fs::remove_dir_all(machine.path(DISK).join("cache")).unwrap();
    fs::remove_dir_all(machine.path(DISK).join("state")).unwrap();
}

fn prune(machine: &Machine) -> Output {
    machine.esker(["prune", "--patience", "0s", "--max-unused", "0%"])
}

/// Makes another repository with a snapshot of the source, to copy from.
fn other(machine: &mut Machine, how: &[&str]) {
    let init = ["init", "--no-recovery", "--repo", "other", "--key-file", "other.key"];
    machine.esker(init.iter().chain(how).copied()).success();
    machine.esker(["backup", "--repo", "other", "--key-file", "other.key", "source"]).success();
}

/// The repository that is stopped: where it is, or what is there instead.
fn place(machine: &Machine) -> std::ffi::OsString {
    machine.env["ESKER_REPOSITORY".as_ref() as &std::ffi::OsStr].clone()
}

fn copy(machine: &Machine) -> Output {
    let from = ["copy", "--repo", "other", "--key-file", "other.key", "--to-key-file", "disk/home/key", "--to"];
    machine.esker(from.into_iter().map(Into::into).chain([place(machine)]))
}

fn mirror(machine: &Machine) -> Output {
    machine.esker(["copy", "--mirror", "--repo", "other", "--to"].into_iter().map(Into::into).chain([place(machine)]))
}

/// Copied again it is there, once.
fn assert_copied(machine: &Machine, when: &str) {
    let again = copy(machine);
    assert_eq!(again.code, 0, "{again}, {when}");
    let listed = machine.esker(["snapshots", "--json"]).json();
    let originals = listed[0].as_array().unwrap().iter().filter(|one| !one["original"].is_null());
    assert_eq!(originals.count(), 1, "{when}");
}

fn restore(machine: &Machine, more: &[&str]) -> Output {
    let snapshot = format!("latest:{}", stops::source(machine).display());
    machine.esker(["restore", &snapshot, "--target", "disk/home/restored"].into_iter().chain(more.iter().copied()))
}

/// The key file was made before the command said so; until then it may be there or not.
fn assert_opens(machine: &Machine, key: &str, reported: bool, when: &str) {
    if reported {
        let listed = machine.esker(["key", "list", "--key-file", &format!("disk/home/{key}")]);
        assert_eq!(listed.code, 0, "{listed}, {when}");
    }
}

/// Where change records and journals are.
fn records(machine: &Machine) -> PathBuf {
    let mut at = machine.path(DISK).join("cache");
    for _ in 0..2 {
        at = fs::read_dir(at).unwrap().next().unwrap().unwrap().path();
    }
    at.join("records")
}

fn with_password(machine: &Machine, file: &str) -> u8 {
    // What is typed wins over the key file that the environment names.
    machine.esker(["key", "list", "--password-file", file]).code
}

fn id_of(machine: &Machine, name: &str) -> String {
    let listed = machine.esker(["key", "list", "--json"]).success().json();
    let members = listed[0].as_array().unwrap();
    members.iter().find(|member| member["label"] == name).unwrap()["id"].as_str().unwrap().to_owned()
}

fn objects(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

/// A machine with a repository, two snapshots and a source that has changed since.
pub(crate) fn begun(seed: u64) -> Machine {
    let machine = stops::machine(seed);
    stops::begin(&machine);
    machine
}

/// The machine goes on as if nothing had been.
pub(crate) fn assert_sound(
    machine: &mut Machine,
    case: &Case,
    known: &Known,
    reported: bool,
    torn: Option<&str>,
    when: &str,
) {
    if case.page == "esker-repair-config" || case.name == "that repairs" {
        // Until it is repaired it need not open; and it may be repaired again.
        assert!((case.run)(machine), "it cannot be repaired any more, {when}");
    }
    let excuse = Excuse { one_copy: case.page.starts_with("esker-key"), torn };
    let others = known.assert_stand(machine, excuse, when);
    assert!(!reported || others.len() >= case.snapshots, "a snapshot that was reported is not there, {when}");
    assert_checks(machine, excuse, when);
    (case.after)(machine, reported, when);
    assert_calm(&backup(machine), excuse, when);
    assert!(!known.assert_still_stand(machine, excuse, when).is_empty(), "{when}");
    let excuse = Excuse { one_copy: false, ..excuse };
    assert_checks(machine, excuse, when);
}
