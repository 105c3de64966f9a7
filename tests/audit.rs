//! Risk: what happened is not in the history, or what was taken out of it is not missed; or somebody is told
//! that all is well when the newest snapshot is weeks old.
//! Method: whole commands, and every record that can be missed taken away in turn.

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/cli.rs"]
mod support;

use esker::storage::{Storage, WriteMode};
use support::Machine;

/// A machine with three snapshots, one of them forgotten, a writer, and a collection.
fn machine() -> Machine {
    let machine = Machine::with_repository();
    for n in 0..3 {
        machine.write("files/notes.txt", format!("{n}\n"));
        machine.esker(["backup", "files"]).success();
    }
    machine.esker(["key", "writer", "--out", "writer.key", "--name", "web-1"]).success();
    machine.esker(["key", "rotate"]).success();
    machine.esker(["scrub"]).success();
    machine.esker(["forget", "--keep-last", "2"]).success();
    machine.esker(["prune"]).success();
    machine
}

fn actions(machine: &Machine) -> Vec<String> {
    let events = machine.esker(["audit", "--json"]).success().json();
    events.iter().map(|event| event["action"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn everything_that_was_done_is_in_the_history_with_who_did_it() {
    let machine = machine();
    let mut found = actions(&machine);
    found.sort();
    found.dedup();
    let wanted = ["key_added", "rotated", "snapshot_forgotten", "snapshot_made", "verified"];
    assert!(wanted.iter().all(|action| found.iter().any(|have| have == action)), "{found:?}");
    let told = machine.esker(["audit"]).success().out();
    assert_eq!(told.matches(": made snapshot ").count(), 3, "{told}");
    assert!(told.contains(": added writer "), "{told}");
    assert!(told.lines().all(|line| line.contains("owner") || line.contains(": ")), "{told}");
    // It is the same when the records stand in logs, and each event comes once.
    machine.esker(["prune", "--fold-from", "1"]).success();
    let folded = actions(&machine);
    assert_eq!(folded.iter().filter(|action| *action == "snapshot_made").count(), 3, "{folded:?}");
    assert_eq!(folded.iter().filter(|action| *action == "snapshot_forgotten").count(), 1, "{folded:?}");
    machine.esker(["audit", "--after", "2000-01-01"]).success();
    machine.esker(["audit", "--since", "7d"]).success();
    machine.esker(["audit", "--since", "soon"]).fails(2);
}

#[test]
fn what_is_taken_out_of_the_history_is_missed() {
    let machine = machine();
    machine.esker(["audit", "verify"]).success();
    // All but the newest of each chain, which only pins can miss.
    for (folder, kind, least) in [("snapshots", "commit", 2), ("notes", "note", 1)] {
        let mut missed = 0;
        for object in machine.memory.list(&format!("{folder}/")).unwrap() {
            let kept = machine.memory.get(&object.name).unwrap();
            machine.memory.delete(&object.name).unwrap();
            let verified = machine.esker(["audit", "verify", "--json"]);
            if verified.code == 4 {
                assert_eq!(verified.json()[0]["kind"], kind, "{verified}");
                missed += 1;
            }
            machine.memory.put(&object.name, &kept, WriteMode::CreateNew).unwrap();
        }
        assert!(missed >= least, "{missed} of {folder} were missed");
    }
    machine.esker(["audit", "verify"]).success();
}

#[test]
fn status_says_how_old_the_newest_snapshots_are_and_fails_when_they_are_too_old() {
    let machine = machine();
    let told = machine.esker(["status"]).success().out();
    assert!(told.contains("last verified") && !told.contains("last verified   never"), "{told}");
    machine.esker(["status", "--max-age", "365d"]).success();
    let status = machine.esker(["status", "--json"]).success().json();
    assert_eq!(status[0]["groups"][0]["snapshots"], 2, "{status:?}");
    assert_eq!(status[0]["groups"][0]["late"], false);
    machine.esker(["status", "--max-age", "0s"]).fails(1);
    let empty = Machine::with_repository();
    empty.esker(["status"]).success();
    empty.esker(["status", "--max-age", "1d"]).fails(1);
}
