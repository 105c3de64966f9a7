//! The risk: a storage that has lost its newest state, by accident or on purpose, passes for whole.
//! A backup would go on from it as if nothing had been, a removed key would open it again.
//!
//! Method: real replay. Whole commands on a repository in a directory, which is copied, used, and
//! put back as it was. What only a hostile storage does (a `config` of its own) is made by hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/cli.rs"]
mod support;

use support::Machine;

/// A machine with a state directory, a repository in the directory `repo` and some files.
fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.set("ESKER_REPOSITORY", "repo");
    machine.write("files/notes.txt", "one");
    machine.esker(["init", "--no-recovery"]).success();
    machine.esker(["backup", "files"]).success();
    machine
}

fn copy(machine: &Machine, from: &str, to: &str) {
    let to = machine.path(to);
    if to.exists() {
        fs::remove_dir_all(&to).unwrap();
    }
    let copied = Command::new("cp").arg("-a").arg(machine.path(from)).arg(&to).status().unwrap();
    assert!(copied.success());
}

/// Every file of a directory with its bytes.
fn content(path: &Path) -> BTreeSet<(PathBuf, Vec<u8>)> {
    let mut found = BTreeSet::new();
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => found.extend([(path.clone(), fs::read(path).unwrap())]),
            }
        }
    }
    found
}

fn snapshots(machine: &Machine) -> BTreeSet<String> {
    fs::read_dir(machine.path("repo/snapshots"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn pins(machine: &Machine) -> Vec<PathBuf> {
    let files = content(&machine.path("state")).into_iter().map(|(path, _)| path);
    files.filter(|path| path.extension().is_none()).collect()
}

#[test]
fn an_old_copy_put_back_is_read_with_a_warning_and_written_only_when_told_to() {
    let machine = machine();
    copy(&machine, "repo", "old");
    machine.write("files/notes.txt", "two");
    machine.esker(["backup", "files"]).success();
    assert_eq!(machine.esker(["snapshots"]).success().err(), "");
    copy(&machine, "old", "repo");

    let before = content(&machine.path("repo"));
    let refused = machine.esker(["backup", "files"]).fails(6);
    assert!(refused.err().contains("is older than what was seen before"), "{refused}");
    assert!(refused.err().contains("--accept-rollback"), "{refused}");
    let refused = machine.esker(["key", "add", "--out", "k"]).fails(6);
    assert!(refused.err().contains("nothing was written"), "{refused}");
    assert!(!machine.path("k").exists());
    assert_eq!(content(&machine.path("repo")), before, "a refused command wrote something");

    let listed = machine.esker(["snapshots"]).success();
    assert!(listed.err().starts_with("warning: the storage at "), "{listed}");
    assert_eq!(listed.out().matches("files").count(), 1, "{listed}");
    machine.esker(["restore", "latest", "--target", "out"]).success();
    let restored = machine.path("out").join(machine.path("files").canonicalize().unwrap().strip_prefix("/").unwrap());
    assert_eq!(fs::read(restored.join("notes.txt")).unwrap(), b"one");
    let checked = machine.esker(["check"]).fails(4);
    assert!(checked.err().contains("this machine has seen it"), "{checked}");
    // Reading does not make it forget.
    machine.esker(["backup", "files"]).fails(6);

    machine.esker(["backup", "files", "--accept-rollback"]).success();
    let after = machine.esker(["backup", "files"]).success();
    assert_eq!(after.err(), "");
    machine.esker(["check"]).success();
}

#[test]
fn accepting_it_while_reading_is_enough() {
    let machine = machine();
    copy(&machine, "repo", "old");
    machine.esker(["backup", "files"]).success();
    copy(&machine, "old", "repo");
    assert_eq!(machine.esker(["snapshots", "--accept-rollback"]).success().err(), "");
    assert_eq!(machine.esker(["snapshots"]).success().err(), "");
    machine.esker(["backup", "files"]).success();
}

#[test]
fn the_newest_own_snapshot_that_is_gone_is_missed() {
    let machine = machine();
    let first = snapshots(&machine);
    machine.esker(["backup", "files"]).success();
    let newest = snapshots(&machine).difference(&first).next().unwrap().clone();
    fs::remove_file(machine.path("repo/snapshots").join(&newest)).unwrap();
    let listed = machine.esker(["snapshots"]).success();
    assert!(listed.err().contains(&format!("snapshot `{}` is missing", &newest[..8])), "{listed}");
    let checked = machine.esker(["check"]).fails(4);
    assert!(checked.err().contains(&newest), "{checked}");
    machine.esker(["backup", "files"]).fails(6);
}

/// A storage that shows the list from before a removal would let the removed key in again.
#[test]
fn access_statements_that_are_gone_are_missed() {
    let machine = machine();
    machine.esker(["key", "add", "--name", "thief", "--out", "thief"]).success();
    copy(&machine, "repo", "old");
    let list = machine.esker(["key", "list", "--json"]).success().json();
    let thief = list[0].as_array().unwrap().iter().find(|key| key["label"] == "thief").unwrap()["id"].clone();
    machine.esker(["key", "remove", thief.as_str().unwrap()]).success();
    machine.esker(["snapshots", "--key-file", "thief"]).fails(6);
    copy(&machine, "old", "repo");
    let listed = machine.esker(["snapshots"]).success();
    assert!(listed.err().contains("access statement"), "{listed}");
    machine.esker(["backup", "files"]).fails(6);
    machine.esker(["backup", "files", "--key-file", "thief"]).fails(6);
    // A key that the old state does not know: the reason is told.
    copy(&machine, "repo", "old");
    machine.esker(["key", "add", "--name", "new", "--out", "new", "--accept-rollback"]).success();
    copy(&machine, "old", "repo");
    let unknown = machine.esker(["snapshots", "--key-file", "new"]).fails(12);
    assert!(unknown.err().contains("older than what was seen before"), "{unknown}");
}

#[test]
fn a_mirror_is_compared_with_what_was_seen_there() {
    let machine = machine();
    copy(&machine, "repo", "mirror");
    copy(&machine, "repo", "old");
    machine.esker(["backup", "files"]).success();
    let on_mirror = |args: &[&str]| machine.esker(args.iter().copied().chain(["--repo", "mirror"]));
    assert_eq!(on_mirror(&["snapshots"]).success().err(), "", "behind the original, as mirrors are");
    copy(&machine, "repo", "mirror");
    assert_eq!(on_mirror(&["snapshots"]).success().err(), "", "it has caught up");
    copy(&machine, "old", "mirror");
    let lagging = on_mirror(&["snapshots"]).success();
    assert!(lagging.err().contains("is older than what was seen before"), "{lagging}");
    on_mirror(&["restore", "latest", "--target", "out"]).success();
    assert_eq!(machine.esker(["snapshots"]).success().err(), "", "the original is where it was");
    assert_eq!(pins(&machine).len(), 2);
}

/// The password's slot would not open under it, but a key file's grants could be made for it.
#[test]
fn another_config_under_the_same_id_is_refused_whatever_is_accepted() {
    use esker::crypto::credential::Credential;
    use esker::crypto::key::SecretKey;
    use esker::format::cbor;
    use esker::format::config::Config;
    use esker::format::record::{RecordKind, SignedRecord, push_digest, signed_message};
    let machine = machine();
    let config = machine.path("repo/config");
    let right = fs::read(&config).unwrap();
    let record = SignedRecord::decode(RecordKind::Config, &right).unwrap();
    let mut other: Config = cbor::decode(record.body).unwrap();
    let stranger = Credential::from_seed(SecretKey::from_bytes(&[9; 32]));
    other.root_verifying = stranger.public().verifying;
    let body = cbor::encode(&other);
    let message = signed_message(&other.repo, RecordKind::Config, "config", &esker::repo::access::NO_EPOCH, &body);
    let mut stored =
        SignedRecord { kind: RecordKind::Config, algorithm: 1, body: &body, signature: stranger.sign(&message) }
            .encode();
    push_digest(RecordKind::Config, &mut stored);
    fs::write(&config, &stored).unwrap();
    fs::write(machine.path("pw"), "secret").unwrap();
    for args in [&["snapshots"][..], &["backup", "files"], &["key", "list"], &["repair", "config"]] {
        for more in [&["--password-file", "pw"][..], &["--password-file", "pw", "--accept-rollback"]] {
            let refused = machine.esker(args.iter().chain(more).copied()).fails(6);
            assert!(refused.err().contains("another root owner") || args[0] == "repair", "{refused}");
        }
    }
    assert_eq!(fs::read(&config).unwrap(), stored);
    fs::write(&config, &right).unwrap();
    assert_eq!(machine.esker(["snapshots"]).success().err(), "");
}

#[test]
fn commands_at_once_remember_all_that_each_has_made() {
    let machine = machine();
    for n in 0..6 {
        machine.write(&format!("set{n}/file"), format!("{n}"));
    }
    let before = snapshots(&machine);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let machine = &machine;
            scope.spawn(move || {
                let made = machine.esker(["backup", &format!("set{n}")]).success();
                assert_eq!(made.err(), "");
            });
        }
    });
    assert_eq!(machine.esker(["snapshots"]).success().err(), "");
    // Those that no other reaches are the heads; each of them is missed when it is gone.
    let pinned = fs::read_to_string(&pins(&machine)[0]).unwrap();
    let heads: BTreeSet<_> = pinned
        .lines()
        .filter(|line| line.starts_with("commit "))
        .map(|line| line.split(' ').nth(2).unwrap().to_owned())
        .collect();
    let made: BTreeSet<_> = snapshots(&machine).difference(&before).cloned().collect();
    assert_eq!(made.len(), 6);
    assert!(!heads.is_empty() && heads.is_subset(&made), "{pinned}");
    for head in heads {
        let path = machine.path("repo/snapshots").join(&head);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(machine.esker(["snapshots"]).success().err().contains(&head[..8]), "{head}");
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(machine.esker(["snapshots"]).success().err(), "");
    machine.esker(["check"]).success();
}

/// The same between processes: what one has pinned the other does not take for its own memory's.
#[test]
fn programs_at_once_never_take_each_others_work_for_a_loss() {
    let machine = machine();
    let run = |set: u32| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_esker"));
        program.current_dir(machine.path("")).env_clear().envs(&machine.env).args(["backup", &format!("set{set}")]);
        program
    };
    (0..3).for_each(|set| machine.write(&format!("set{set}/file"), format!("{set}")));
    let before = snapshots(&machine).len();
    std::thread::scope(|scope| {
        for set in 0..3 {
            let run = &run;
            scope.spawn(move || {
                for _ in 0..4 {
                    let output = run(set).output().unwrap();
                    let said = String::from_utf8(output.stderr).unwrap();
                    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
                }
            });
        }
    });
    assert_eq!(snapshots(&machine).len(), before + 12);
    assert_eq!(machine.esker(["check"]).success().err(), "");
}

#[test]
fn a_state_directory_that_is_lost_or_broken_stops_nothing() {
    let mut machine = machine();
    let file = pins(&machine)[0].clone();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let told = machine.esker(["backup", "files"]).success();
    assert!(told.err().contains("damaged"), "{told}");
    assert_eq!(told.err().lines().count(), 1, "told once: {told}");
    assert_eq!(machine.esker(["backup", "files"]).success().err(), "", "learned anew");
    fs::remove_dir_all(machine.path("state")).unwrap();
    let told = machine.esker(["backup", "files"]).success();
    assert!(told.err().contains("what is there now is taken for the newest"), "{told}");
    assert_eq!(told.err().lines().count(), 1, "{told}");
    assert_eq!(machine.esker(["backup", "files"]).success().err(), "");
    assert_eq!(pins(&machine).len(), 1);
    // A directory that cannot be: a file is in its way.
    machine.write("in-the-way", "");
    machine.set("ESKER_STATE_DIR", "in-the-way");
    let told = machine.esker(["backup", "files"]).success();
    assert!(told.err().contains("there is no state directory, nothing is remembered"), "{told}");
    machine.set("ESKER_STATE_DIR", "state");
    fs::remove_dir_all(machine.path("state/pins")).unwrap();
    machine.write("state/pins", "");
    let told = machine.esker(["backup", "files"]).success();
    assert!(told.err().contains("is not remembered in"), "{told}");
}

#[test]
fn the_flag_wins_over_the_environment_and_custom_comes_last() {
    let mut machine = machine();
    machine.esker(["snapshots", "--state-dir", "elsewhere"]).success();
    assert!(machine.path("elsewhere/pins").is_dir());
    machine.unset("ESKER_STATE_DIR");
    let home = machine.path("home");
    machine.set("HOME", &home);
    machine.esker(["snapshots"]).success();
    assert!(home.join(".local/state/esker/pins").is_dir());
    let xdg = machine.path("xdg");
    machine.set("XDG_STATE_HOME", &xdg);
    machine.esker(["snapshots"]).success();
    assert!(xdg.join("esker/pins").is_dir());
}
