//! Risk: bytes rot and nobody finds out until they are needed; or a repair makes it worse: puts what is not right,
//! gives damage a name by which it looks whole, or lets everybody rely on what is gone.
//! Method: whole commands over a repository in memory of which every object is changed or taken away in turn,
//! with a replica in a directory. What is put back is compared byte by byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use esker::storage::Storage;
use serde_json::Value;

#[path = "support/repo.rs"]
#[allow(dead_code, reason = "each file of tests uses its part")]
mod repo;
#[path = "support/cli.rs"]
#[allow(dead_code, reason = "each file of tests uses its part")]
mod support;

use repo::noise;
use support::{Machine, Output};

/// A repository made with these flags, and a snapshot of two files, on a machine that trusts their times.
fn begun(flags: &[&str]) -> Machine {
    let machine = Machine::with(repo::later(), tempfile::tempdir().unwrap());
    machine.esker(["init", "--no-recovery"].iter().chain(flags)).success();
    machine.write("files/a", noise(1, 200_000));
    machine.write("files/b", noise(2, 50_000));
    machine.esker(["backup", "files"]).success();
    machine
}

fn names(machine: &Machine, folder: &str) -> BTreeSet<String> {
    machine.memory.snapshot().into_keys().filter(|name| name.starts_with(folder)).collect()
}

fn bytes_of(machine: &Machine, name: &str) -> Vec<u8> {
    machine.memory.get(name).unwrap()
}

/// The pack that holds the files.
fn data_pack(machine: &Machine) -> String {
    names(machine, "packs/").into_iter().max_by_key(|name| bytes_of(machine, name).len()).unwrap()
}

fn change(machine: &Machine, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut all = machine.memory.snapshot();
    let mut bytes = all[name].to_vec();
    change(&mut bytes);
    all.insert(name.to_owned(), bytes.into());
    machine.memory.restore(all);
}

fn flip(machine: &Machine, name: &str, at: usize) {
    change(machine, name, |bytes| bytes[at] ^= 0x10);
}

fn scrub(machine: &Machine, args: &[&str]) -> Output {
    machine.esker(["scrub", "--json"].iter().chain(args))
}

fn summary(output: &Output) -> Value {
    output.json().pop().unwrap()
}

/// The objects that are told to be damaged.
fn damaged(output: &Output) -> BTreeSet<String> {
    let lines = output.json();
    let faults = lines.iter().filter(|line| line["message_type"] == "error");
    faults.map(|line| line["object"].as_str().unwrap().to_owned()).collect()
}

/// A machine that knows where the repository is, and nothing that opens it.
fn without_key(machine: &Machine) -> Machine {
    let mut other = Machine::new();
    other.memory = machine.memory.clone();
    other.unset("ESKER_KEY_FILE");
    other
}

/// The same objects in a directory.
fn replica(machine: &Machine) -> PathBuf {
    let directory = machine.path("replica");
    for (name, bytes) in machine.memory.snapshot() {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &*bytes).unwrap();
    }
    directory
}

fn restored(machine: &Machine, snapshot: &str, target: &str) -> BTreeMap<String, Vec<u8>> {
    let files = format!("{snapshot}:{}", fs::canonicalize(machine.path("files")).unwrap().display());
    machine.esker(["restore", &files, "--target", target]).success();
    let entries = fs::read_dir(machine.path(target)).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn files() -> BTreeMap<String, Vec<u8>> {
    [("a".to_owned(), noise(1, 200_000)), ("b".to_owned(), noise(2, 50_000))].into()
}

/// W2, W4: end to end. Nothing but a scrub's note tells the backup, which finds its files unchanged.
#[test]
fn what_is_damaged_is_noted_and_the_next_backup_stores_it_anew() {
    let machine = begun(&[]);
    let first = machine.esker(["snapshots", "--json"]).json()[0][0]["id"].as_str().unwrap().to_owned();
    flip(&machine, &data_pack(&machine), 10_000);
    let packs = names(&machine, "packs/");
    machine.esker(["backup", "files"]).success();
    assert_eq!(names(&machine, "packs/").len(), packs.len() + 1, "without a note only the record of a snapshot");

    let found = scrub(&machine, &[]).fails(4);
    assert_eq!(damaged(&found), [data_pack(&machine)].into());
    let affected = found.json()[0]["affected"].as_array().unwrap().clone();
    assert!(affected.iter().any(|one| one["snapshot"] == first && one["path"].as_str().unwrap().ends_with("/a")));
    let notes = names(&machine, "notes/").len();
    // Said once: the damage is known, and what else is whole is named again.
    scrub(&machine, &["--max-bytes", "0"]).fails(4);
    assert_eq!(names(&machine, "notes/").len(), notes);

    let report = machine.esker(["backup", "--json", "files"]).success().json().pop().unwrap();
    assert!(report["data_added"].as_u64().unwrap() >= 64 << 10, "{report}");
    assert_eq!(restored(&machine, "latest", "new"), files());
    assert_eq!(restored(&machine, &first, "old"), files(), "an earlier snapshot gains by it too");
    let report = machine.esker(["backup", "--json", "files"]).success().json().pop().unwrap();
    assert!(report["data_added"].as_u64().unwrap() < 1000, "once is enough: {report}");
}

#[test]
fn what_parity_made_whole_is_relied_on_again_and_the_note_is_taken_back() {
    let machine = begun(&["--parity", "5%"]);
    let packs = names(&machine, "packs/");
    let parity: BTreeSet<_> = packs.iter().map(|pack| pack.replace(&pack[..9], "parity/")).collect();
    assert_eq!(names(&machine, "parity/"), parity);
    let (pack, before) = (data_pack(&machine), bytes_of(&machine, &data_pack(&machine)));
    flip(&machine, &pack, 10_000);
    scrub(&machine, &[]).fails(4);

    let repaired = scrub(&machine, &["--repair"]).success();
    assert_eq!(summary(&repaired)["repaired"], 1);
    assert!(repaired.json().iter().any(|line| line["message_type"] == "repair" && line["from"] == "parity"));
    assert!(bytes_of(&machine, &pack) == before);
    assert_eq!(damaged(&scrub(&machine, &[]).success()), BTreeSet::new());
    let report = machine.esker(["backup", "--json", "files"]).success().json().pop().unwrap();
    assert!(report["data_added"].as_u64().unwrap() < 1000, "it is relied on: {report}");
}

/// Each object, changed at its begin, its middle and its end.
#[test]
fn without_a_key_every_changed_object_is_found_and_named() {
    let machine = begun(&["--parity", "5%"]);
    scrub(&machine, &[]).success();
    let other = without_key(&machine);
    assert_eq!(damaged(&scrub(&other, &["--without-key"]).success()), BTreeSet::new());
    let whole = machine.memory.snapshot();
    let kinds: BTreeSet<&str> = whole.keys().map(|name| name.split('/').next().unwrap()).collect();
    let expected = ["access", "config", "copies", "notes", "packs", "parity", "sessions", "snapshots"];
    assert_eq!(kinds, expected.into());
    for (name, bytes) in &whole {
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            flip(&machine, name, at);
            assert_eq!(damaged(&scrub(&other, &["--without-key"]).fails(4)), [name.clone()].into(), "{name}, {at}");
            machine.memory.restore(whole.clone());
        }
        change(&machine, name, |bytes| bytes.truncate(bytes.len() - 1));
        assert_eq!(damaged(&scrub(&other, &["--without-key"]).fails(4)), [name.clone()].into(), "{name}, cut");
        machine.memory.restore(whole.clone());
    }
    assert!(other.prompts.lock().unwrap().is_empty());
}

#[test]
fn with_a_replica_every_object_that_is_changed_comes_back_with_or_without_a_key() {
    let machine = begun(&[]);
    scrub(&machine, &[]).success();
    let (whole, replica) = (machine.memory.snapshot(), replica(&machine));
    let replica = replica.to_str().unwrap();
    let other = without_key(&machine);
    for name in whole.keys() {
        flip(&machine, name, 20);
        let repaired = scrub(&other, &["--without-key", "--repair", "--from", replica]).success();
        assert_eq!(summary(&repaired)["repaired"], 1, "{name}");
        assert!(machine.memory.snapshot() == whole, "{name}");
        if name == "config" {
            continue; // With a damaged one its second copy is used, and that is all that a key sees.
        }
        flip(&machine, name, 20);
        scrub(&machine, &["--repair", "--from", replica]).success();
        assert!(machine.memory.snapshot()[name] == whole[name], "{name}");
        machine.memory.restore(whole.clone());
    }
}

#[test]
fn with_a_key_what_is_lost_is_missed_and_comes_back_from_a_replica() {
    let machine = begun(&[]);
    let (whole, replica) = (machine.memory.snapshot(), replica(&machine));
    let lost = |name: &String| ["packs/", "snapshots/", "access/", "copies/"].iter().any(|of| name.starts_with(of));
    for name in whole.keys().filter(|name| lost(name)) {
        machine.memory.delete(name).unwrap();
        let found = scrub(&machine, &["--repair", "--from", replica.to_str().unwrap()]).success();
        assert!(damaged(&found).contains(name), "{name}: {found}");
        assert!(machine.memory.snapshot()[name] == whole[name], "{name}");
        machine.memory.restore(whole.clone());
    }
}

/// borg#10410: what is copied is verified first. Here no side has it whole.
#[test]
fn damage_is_not_taken_from_a_replica_and_nothing_is_put() {
    let machine = begun(&["--parity", "1%"]);
    let replica = replica(&machine);
    let pack = data_pack(&machine);
    let mut bad = bytes_of(&machine, &pack);
    bad[30_000] ^= 1;
    fs::write(replica.join(&pack), &bad).unwrap();
    // More than its parity makes up for, far apart.
    change(&machine, &pack, |bytes| bytes.iter_mut().step_by(20_000).for_each(|byte| *byte ^= 1));
    let before = machine.memory.snapshot();
    let other = without_key(&machine);
    let from = replica.to_str().unwrap();
    let kept = scrub(&other, &["--without-key", "--repair", "--from", from]).fails(4);
    assert!(kept.json().iter().any(|line| {
        let reason = line["reason"].as_str().unwrap_or_default();
        line["repaired"] == false && reason.contains("parity makes up for") && reason.contains("the replica does not")
    }));
    assert!(machine.memory.snapshot() == before);
    machine.esker(["parity", "add"]).success();
    machine.memory.delete(&pack.replace(&pack[..9], "parity/")).unwrap();
    let refused = machine.esker(["parity", "add"]).fails(4);
    assert!(refused.err().contains(&format!("damaged: {pack}: of it no parity is made")), "{refused}");
}

/// Another repository has nothing that fits, and its `config` is not taken for this one's.
#[test]
fn another_repository_is_no_replica() {
    let machine = begun(&[]);
    let mut stranger = Machine::seeded(99);
    stranger.env = machine.env.clone();
    stranger.set("ESKER_KEY_FILE", machine.path("other-key"));
    stranger.esker(["init", "--no-recovery"]).success();
    let from = replica(&stranger);
    let other = without_key(&machine);
    let pack = data_pack(&machine);
    flip(&machine, &pack, 5);
    flip(&machine, "copies/config", 20);
    let before = machine.memory.snapshot();
    let found = scrub(&other, &["--without-key", "--repair", "--from", from.to_str().unwrap()]).fails(4);
    assert_eq!(damaged(&found), [pack, "copies/config".into()].into());
    assert!(machine.memory.snapshot() == before, "{found}");
}

#[test]
fn budgets_and_shards_go_round_all_packs() {
    let machine = begun(&[]);
    for n in 3..8 {
        machine.write(&format!("files/{n}"), noise(n, 3000));
        machine.esker(["backup", "files"]).success();
    }
    let packs = names(&machine, "packs/").len() as u64;
    let other = without_key(&machine);
    let read = |args: &[&str]| summary(&scrub(&other, &[&["--without-key"], args].concat()).success());
    let shards: u64 = (1..=3).map(|i| read(&["--shard", &format!("{i}/3")])["packs_read"].as_u64().unwrap()).sum();
    assert_eq!(shards, packs);
    assert_eq!(read(&["--max-age", "30d"])["packs_read"], 0, "each was read a moment ago");
    fs::remove_dir_all(other.path("state")).unwrap();
    for n in 0..packs {
        let one = read(&["--max-age", "30d", "--max-bytes", "1"]);
        assert_eq!((&one["packs_read"], &one["packs_due"]), (&1.into(), &(packs - n).into()));
    }
    assert_eq!(read(&["--max-age", "30d"])["packs_due"], 0);
    assert_eq!(read(&["--max-duration", "0s"])["packs_read"], 0);
    // With a key it is known to every machine what an owner has read.
    scrub(&machine, &[]).success();
    fs::remove_dir_all(machine.path("state")).unwrap();
    assert_eq!(summary(&scrub(&machine, &["--max-age", "30d"]).success())["packs_read"], 0);
}

/// kopia#3497: what is remembered locally may be lost or damaged; a scrub says so and goes on.
#[test]
fn a_damaged_record_of_ages_stops_no_scrub() {
    let machine = begun(&[]);
    let other = without_key(&machine);
    scrub(&other, &["--without-key"]).success();
    let state = fs::read_dir(other.path("state/scrub")).unwrap().map(|entry| entry.unwrap().path());
    let state = state.into_iter().find(|path| path.extension().is_none()).unwrap();
    fs::write(&state, "esker-scrub-1\nrubbish\n").unwrap();
    let output = other.esker(["scrub", "--without-key", "--max-age", "30d"]).success();
    assert!(output.err().contains("is begun anew: it is damaged"), "{output}");
    let again = other.esker(["scrub", "--without-key", "--max-age", "30d", "--json"]).success();
    assert_eq!((&*again.err(), &summary(&again)["packs_read"]), ("", &0.into()));
}

#[test]
fn parity_takes_no_key_and_goes_with_its_pack() {
    let machine = begun(&[]);
    let other = without_key(&machine);
    let added = other.esker(["parity", "add", "--json"]).success();
    let packs = names(&machine, "packs/");
    assert_eq!((&summary(&added)["packs_added"], &summary(&added)["percent"]), (&packs.len().into(), &5.into()));
    assert_eq!(other.esker(["parity", "add", "--json"]).success().json()[0]["packs_added"], 0);
    machine.write("files/a", noise(9, 200_000));
    machine.esker(["backup", "files"]).success();
    other.esker(["parity", "add", "--parity", "20%"]).success();
    machine.esker(["forget", "--keep-last", "1", "--undelete-window", "0d"]).success();
    for _ in 0..3 {
        machine.esker(["prune", "--patience", "0s", "--max-delete", "100%"]).success();
    }
    let left: BTreeSet<_> = names(&machine, "packs/").into_iter().map(|pack| pack[9..].to_owned()).collect();
    assert!(!packs.iter().all(|pack| left.contains(&pack[9..])), "something was deleted");
    let parity: BTreeSet<_> = names(&machine, "parity/").into_iter().map(|name| name[7..].to_owned()).collect();
    assert!(parity.is_subset(&left), "{parity:?} of {left:?}");
    assert!(!parity.is_empty());
}

/// A repository made with parity adds it whenever packs are made: a prune that rewrites them too.
#[test]
fn packs_that_a_prune_rewrites_have_parity_too() {
    let machine = begun(&["--parity", "10%"]);
    machine.write("files/a", noise(9, 200_000));
    machine.esker(["backup", "files"]).success();
    machine.esker(["forget", "--keep-last", "1", "--undelete-window", "0d"]).success();
    for _ in 0..3 {
        machine.esker(["prune", "--patience", "0s", "--max-delete", "100%", "--max-unused", "0%"]).success();
    }
    let packs: BTreeSet<_> = names(&machine, "packs/").into_iter().map(|pack| pack[9..].to_owned()).collect();
    let parity: BTreeSet<_> = names(&machine, "parity/").into_iter().map(|name| name[7..].to_owned()).collect();
    assert_eq!(parity, packs);
    scrub(&machine, &[]).success();
}

#[test]
fn damaged_parity_is_found_and_made_again_from_its_pack() {
    let machine = begun(&["--parity", "5%"]);
    let before = machine.memory.snapshot();
    for name in names(&machine, "parity/") {
        for args in [&["--without-key"][..], &[]] {
            flip(&machine, &name, 100);
            assert_eq!(damaged(&scrub(&machine, args).fails(4)), [name.clone()].into());
            let repaired = scrub(&machine, &[args, &["--repair"]].concat()).success();
            assert!(repaired.json().iter().any(|line| line["from"] == "pack"), "{repaired}");
            assert!(machine.memory.snapshot()[&name] == before[&name]);
        }
    }
}

#[test]
fn wrong_use_is_refused_and_a_writer_is_told_what_it_can_do() {
    let machine = begun(&[]);
    for wrong in [
        &["--shard", "3/2"][..],
        &["--max-age", "soon"],
        &["--from", "somewhere"],
        &["--repair", "--from-option", "a=b"],
        &["--repair", "--from", "s3://x", "--from-option", "no-value"],
    ] {
        machine.esker(["scrub"].iter().chain(wrong)).fails(2);
    }
    for wrong in ["0%", "101%", "5", "x"] {
        machine.esker(["parity", "add", "--parity", wrong]).fails(2);
    }
    machine.esker(["key", "writer", "--name", "w", "--out", "writer"]).success();
    let refused = machine.esker(["scrub", "--key-file", "writer"]).fails(6);
    insta::assert_snapshot!(refused.err(), @"
    error: nothing was scrubbed: a writer's key opens no content

    hint: run `esker scrub --without-key`
    ");
    assert!(names(&machine, "notes/").is_empty());
}
