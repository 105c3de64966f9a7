//! The cache can go at any time, and nothing else goes with it.
//!
//! The risk: a cleared cache takes state with it, or breaks a command that is running. Commands
//! run in process; one test clears the cache of backups that are being made.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

#[path = "support/cli.rs"]
#[allow(dead_code, reason = "each file of tests uses its part")]
mod support;

use support::Machine;

/// A machine with a repository in a directory and one in memory, both used.
fn machine() -> Machine {
    let mut machine = Machine::with_repository();
    machine.write("files/x", [7; 5000]);
    machine.esker(["backup", "files"]).success();
    machine.set("ESKER_REPOSITORY", "repo");
    machine.esker(["init", "--key-file", "key2"]).success();
    machine.esker(["backup", "files", "--key-file", "key2"]).success();
    machine.set("ESKER_REPOSITORY", "memory:");
    machine
}

/// Has the cache at `path` used at a time, in seconds since 1970. The machine's clock stands in 2001.
fn used_at(path: &str, secs: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
    fs::File::open(format!("{path}/place")).unwrap().set_modified(time).unwrap();
}

fn path(kept: &serde_json::Value) -> &str {
    kept["path"].as_str().unwrap()
}

fn kept(machine: &Machine) -> Vec<serde_json::Value> {
    machine.esker(["cache", "list", "--json"]).success().json()[0].as_array().unwrap().clone()
}

#[test]
fn each_repository_is_listed_with_its_place_and_when_it_was_used() {
    let machine = machine();
    for (number, kept) in kept(&machine).iter().enumerate() {
        used_at(path(kept), 981_173_106 - number as u64);
    }
    let output = machine.esker(["cache", "list"]).success();
    insta::with_settings!({ filters => [
        (r"\d+\.\d [KM]iB", "[SIZE]"),
        (r" +Size  Place", "  Size  Place"),
        (r"  +\[SIZE\]", "  [SIZE]"),
    ] }, {
        insta::assert_snapshot!(output.to_string(), @"
        Repository  Last used  Size  Place
        5a802c86    2001-02-03 04:05:06  [SIZE]  [DIR]/repo
        eea3f5b9    2001-02-03 04:05:05  [SIZE]  memory

        2 caches, [SIZE]
        [exit 0]
        ");
    });
    let list = kept(&machine);
    assert_eq!(list[1]["place"], "memory");
    assert_eq!(list[1]["last_used"], "2001-02-03T04:05:05+00:00");
    assert!(list[0]["bytes"].as_u64().unwrap() > 0);
    // A copy of the repository elsewhere has a cache of its own.
    let copied = Command::new("cp").args(["-r", "repo", "mirror"]).current_dir(machine.path("")).status();
    assert!(copied.unwrap().success());
    machine.esker(["snapshots", "--repo", "mirror", "--key-file", "key2"]).success();
    let list = kept(&machine);
    assert_eq!(list.len(), 3);
    assert_eq!(
        list[0]["place"],
        machine.path("mirror").canonicalize().unwrap().to_str().unwrap(),
        "the last used first"
    );
    assert_eq!(list[0]["repository"], list[1]["repository"]);
}

#[test]
fn clearing_takes_what_was_named_and_commands_go_on() {
    let machine = machine();
    let list = kept(&machine);
    machine.esker(["cache", "clear"]).fails(2);
    machine.esker(["cache", "clear", "--repository", "zz"]).fails(2);
    machine.esker(["cache", "clear", "--repository", ""]).fails(2);
    machine.esker(["cache", "clear", "--repository", list[0]["repository"].as_str().unwrap()]).success();
    assert_eq!(kept(&machine), list[1..]);
    let summary = machine.esker(["cache", "clear", "--all", "--json"]).success().json().remove(0);
    assert_eq!((&summary["caches_removed"], &summary["bytes_freed"]), (&1.into(), &list[1]["bytes"]));
    assert!(kept(&machine).is_empty());
    machine.esker(["cache", "clear", "--all"]).success();
    machine.esker(["check"]).success();
    // The first backup after it reads files again; the snapshot is as good.
    let summary = machine.esker(["backup", "files", "--json"]).success().json().pop().unwrap();
    assert_eq!(summary["files_new"], 1, "{summary}");
    assert!(summary["data_added"].as_u64().unwrap() < 5000, "{summary}");
}

#[test]
fn only_what_is_a_cache_is_removed() {
    let machine = machine();
    let repo = kept(&machine)[0]["repository"].as_str().unwrap().to_owned();
    for stranger in ["cache/notes", "cache/dir/notes", &format!("cache/{repo}/notes"), &format!("cache/{repo}/pins/x")]
    {
        machine.write(stranger, "mine");
    }
    fs::create_dir(machine.path("elsewhere")).unwrap();
    fs::write(machine.path("elsewhere/x"), "").unwrap();
    std::os::unix::fs::symlink(machine.path("elsewhere"), machine.path("cache").join("f".repeat(32))).unwrap();
    machine.esker(["cache", "clear", "--all"]).success();
    for stranger in ["cache/notes", "cache/dir/notes", &format!("cache/{repo}/notes"), &format!("cache/{repo}/pins/x")]
    {
        assert!(machine.path(stranger).exists(), "{stranger}");
    }
    assert!(machine.path("elsewhere/x").exists());
}

#[test]
fn a_state_directory_is_not_taken_for_a_cache() {
    let mut machine = machine();
    fs::create_dir_all(machine.path("cache/state")).unwrap();
    for state in ["cache", "cache/state", "."] {
        machine.set("ESKER_STATE_DIR", state);
        let output = machine.esker(["cache", "clear", "--all"]).fails(2);
        assert!(output.err().contains("lie in each other"), "{output}");
    }
    machine.unset("ESKER_STATE_DIR");
    assert_eq!(kept(&machine).len(), 2);
    machine.esker(["cache", "list", "--no-cache"]).fails(2);
    machine.unset("ESKER_CACHE_DIR");
    machine.esker(["cache", "list"]).fails(2);
}

#[test]
fn pruning_keeps_what_was_used_of_late() {
    let machine = machine();
    let list = kept(&machine);
    machine.esker(["cache", "prune", "--max-age", "1d"]).success();
    assert_eq!(kept(&machine).len(), 2, "a clock that runs behind is no reason to remove anything");
    used_at(path(&list[0]), 981_173_000);
    used_at(path(&list[1]), 900_000_000);
    machine.esker(["cache", "prune", "--max-age", "2y"]).fails(2);
    let output = machine.esker(["cache", "prune"]).success();
    assert!(output.out().starts_with("removed 1 cache, "), "{output}");
    let left = kept(&machine);
    assert!(left.len() == 1 && path(&left[0]) == path(&list[0]), "{left:?}");
    machine.esker(["cache", "prune", "--max-age", "0s"]).success();
    assert!(kept(&machine).is_empty());
}

#[test]
fn what_an_interrupted_removal_left_goes_with_the_next() {
    let machine = machine();
    machine.write("cache/.removed-0123456789abcdef/runs/x", "x");
    assert_eq!(kept(&machine).len(), 2);
    machine.esker(["cache", "prune"]).success();
    assert!(!machine.path("cache/.removed-0123456789abcdef").exists());
}

#[test]
fn a_cache_can_be_cleared_while_backups_are_made() {
    let machine = machine();
    for number in 0..200 {
        machine.write(&format!("files/{number}"), blake3::hash(&[number]).as_bytes().repeat(100));
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                machine.esker(["cache", "clear", "--all"]).success();
            }
        });
        for _ in 0..8 {
            let output = machine.esker(["backup", "files", "--json"]);
            done.store(output.code != 0, Ordering::Relaxed);
            output.success();
        }
        done.store(true, Ordering::Relaxed);
    });
    machine.esker(["check", "--read-data"]).success();
    machine.esker(["restore", "latest", "--target", "out"]).success();
}

/// What the cache holds of a snapshot was verified when it was read. A commit that is damaged since is told of,
/// and the snapshot is good to restore from, whether it is named or is the latest. `check` believes no cache.
#[test]
fn a_snapshot_that_is_remembered_and_damaged_since_is_used_aloud_however_it_is_named() {
    let mut machine = machine();
    machine.set("ESKER_REPOSITORY", "repo");
    machine.set("ESKER_KEY_FILE", "key2");
    let listed = machine.esker(["snapshots", "--json"]).success().json();
    let id = listed[0][0]["id"].as_str().unwrap().to_owned();
    let commit = machine.path(&format!("repo/snapshots/{id}"));
    let mut bytes = fs::read(&commit).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&commit, bytes).unwrap();
    for named in ["latest", &id, &id[..8]] {
        let output = machine.esker(["ls", named]).success();
        assert!(output.out().contains("files"), "{output}");
        let told = format!("snapshot `{}` is damaged, and used as it was when it was read last", &id[..8]);
        assert!(output.err().contains(&told), "{output}");
        assert!(output.err().contains(&format!("snapshots/{id}")), "the object is named: {output}");
    }
    let output = machine.esker(["check"]).fails(4);
    assert!(output.to_string().contains(&format!("snapshots/{id}")), "{output}");
    // Who remembers nothing has nothing to go on with.
    fs::remove_dir_all(machine.path("cache")).unwrap();
    for named in ["latest", &id] {
        assert_ne!(machine.esker(["ls", named]).code, 0);
    }
}
