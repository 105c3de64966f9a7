//! Risk: somebody looks for a lost file and does not find it although it is there, or is told that something did
//! not change, or that nothing blocks a collection.
//! Method: whole commands in process, all of what they print as literals; what is open, lost and void is made
//! with the real thing stopped on its way.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

#[path = "support/cli.rs"]
#[allow(dead_code)]
mod support;

use support::Machine;

/// The whole output of a command is this.
macro_rules! prints {
    ($output:expr, @$expected:literal) => {
        insta::with_settings!({ filters => [
            (r"(?m)^([dlpcb-][rwxst-]{9} )\S+ +\S+ ", "$1[OWNER] "),
            (r#""(uid|gid)":\d+"#, r#""$1":0"#),
            (r#""(user|group)":"[^"]*""#, r#""$1":"somebody""#),
        ]}, { insta::assert_snapshot!($output.to_string(), @$expected) })
    };
}

/// Three snapshots in which files come, change and go.
fn machine() -> Machine {
    let machine = Machine::with_repository();
    machine.write("files/docs/notes.txt", "one\n");
    machine.write("files/docs/plan.txt", "plan\n");
    machine.write("files/src/main.c", "int main;\n");
    machine.esker(["backup", "files"]).success();
    machine.write("files/docs/notes.txt", "two, longer\n");
    fs::remove_file(machine.path("files/docs/plan.txt")).unwrap();
    fs::set_permissions(machine.path("files/src/main.c"), fs::Permissions::from_mode(0o600)).unwrap();
    machine.write("files/docs/new/Notes.TXT", "new\n");
    machine.esker(["backup", "files", "--tag", "middle"]).success();
    machine.write("files/docs/plan.txt", "plan\n");
    fs::remove_file(machine.path("files/docs/notes.txt")).unwrap();
    symlink("plan.txt", machine.path("files/docs/notes.txt")).unwrap();
    // A link's time cannot be what the others' is; it is not shown.
    machine.esker(["backup", "files"]).success();
    machine
}

#[test]
fn find_tells_where_a_name_is() {
    let machine = machine();
    prints!(machine.esker(["find", "notes.*", "main.c", "--tag", "middle", "--long"]), @"");
    prints!(machine.esker(["find", "-i", "notes.txt"]), @"");
    prints!(machine.esker(["find", "docs/n*", "-s", "latest~2"]), @"");
    prints!(machine.esker(["find", "--json", "plan.txt", "--before", "2001-02-03 04:05:18"]), @"");
    prints!(machine.esker(["find", "nothing"]), @"");
    prints!(machine.esker(["find", "--json", "nothing"]), @"");
    prints!(machine.esker(["find", "["]), @"");
    prints!(machine.esker(["find", "x", "--oldest", "soon"]), @"");
    prints!(machine.esker(["find", "plan.txt", "--newest", "2001-09-08"]), @"");
}

#[test]
fn a_history_has_each_version_once() {
    let machine = machine();
    prints!(machine.esker(["find", "--history", "files/docs/plan.txt", "files/src/main.c", "files/nothing"]), @"");
    prints!(machine.esker(["find", "--history", "--json", "files/docs/plan.txt"]), @"");
}

#[test]
fn diff_tells_what_changed() {
    let machine = machine();
    prints!(machine.esker(["diff", "latest~2", "latest~1"]), @"");
    prints!(machine.esker(["diff", "--json", "latest~2", "latest"]), @"");
    let docs = machine.path("files/docs");
    let docs = fs::canonicalize(docs).unwrap().display().to_string();
    prints!(machine.esker(["diff", &format!("latest~2:{docs}"), &format!("latest:{docs}/new")]), @"");
    prints!(machine.esker(["diff", "latest", "latest"]), @"");
    machine.write("files/docs/more", "more");
    prints!(machine.esker(["diff", "latest", "files"]), @"");
    prints!(machine.esker(["diff", "latest", "/"]), @"");
    prints!(machine.esker(["diff", "latest", "./nowhere"]), @"");
    prints!(machine.esker(["diff", "latest", "latest", "--content"]), @"");
    prints!(machine.esker(["diff", "latest:/nowhere", "latest"]), @"");
}
