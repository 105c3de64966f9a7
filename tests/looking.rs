//! Risk: somebody looks for a lost file and does not find it although it is there, or is told that something did
//! not change, or that nothing blocks a collection.
//! Method: whole commands in process, all of what they print as literals; what is open, lost and void is made
//! with the real thing stopped on its way.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use esker::crypto::ident::ChunkKind;
use esker::repo::Repository;
use esker::repo::open::Local;
use esker::repo::secret::{KeyFile, Secret};
use esker::repo::session::Session;
use esker::world::World;

#[path = "support/forge.rs"]
#[allow(dead_code)]
mod forge;
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
            (r#""age_secs":\d+"#, r#""age_secs":[AGE]"#),
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
    prints!(machine.esker(["find", "notes.*", "main.c", "--tag", "middle", "--long"]), @"
    in snapshot 92143f95 of difference, 2001-02-03 04:05:19:
    -rw-r--r-- [OWNER]               12 2001-09-09 01:46:40 [DIR]/files/docs/notes.txt
    -rw------- [OWNER]               10 2001-09-09 01:46:40 [DIR]/files/src/main.c
    [exit 0]
    ");
    prints!(machine.esker(["find", "-i", "notes.txt"]), @"
    in snapshot 371a5713 of difference, 2001-02-03 04:05:09:
    [DIR]/files/docs/notes.txt

    in snapshot 92143f95 of difference, 2001-02-03 04:05:19:
    [DIR]/files/docs/new/Notes.TXT
    [DIR]/files/docs/notes.txt

    in snapshot 5f19cd89 of difference, 2001-02-03 04:05:29:
    [DIR]/files/docs/new/Notes.TXT
    [DIR]/files/docs/notes.txt
    [exit 0]
    ");
    prints!(machine.esker(["find", "docs/n*", "-s", "latest~2"]), @"
    in snapshot 371a5713 of difference, 2001-02-03 04:05:09:
    [DIR]/files/docs/notes.txt
    [exit 0]
    ");
    prints!(machine.esker(["find", "--json", "plan.txt", "--before", "2001-02-03 04:05:18"]), @r#"
    [{"matches":[{"name":"plan.txt","type":"file","path":"[DIR]/files/docs/plan.txt","uid":0,"gid":0,"user":"somebody","group":"somebody","mode":420,"permissions":"-rw-r--r--","mtime":"2001-09-09T01:46:40+00:00","size":5}],"hits":1,"snapshot":"371a571337242babfc421fc1c76229c7"}]
    [exit 0]
    "#);
    prints!(machine.esker(["find", "nothing"]), @"
    nothing is like that
    [exit 0]
    ");
    prints!(machine.esker(["find", "--json", "nothing"]), @"
    []
    [exit 0]
    ");
    prints!(machine.esker(["find", "["]), @"
    error: `[` is not a pattern: a `[` without `]`
    [exit 2]
    ");
    prints!(machine.esker(["find", "x", "--oldest", "soon"]), @"
    error: cannot use `--oldest`: expected a time such as `2026-01-15 10:30`, `2026-01-15T10:30:00Z` or `2h ago`, found `soon`
    [exit 2]
    ");
    prints!(machine.esker(["find", "plan.txt", "--newest", "2001-09-08"]), @"
    nothing is like that
    [exit 0]
    ");
}

#[test]
fn a_history_has_each_version_once() {
    let machine = machine();
    prints!(machine.esker(["find", "--history", "files/docs/plan.txt", "files/src/main.c", "files/nothing"]), @"
    [DIR]/files/docs/plan.txt on difference:
    Seen                 Change   Mode        Size  Modified             Snapshots
    2001-02-03 04:05:09  new      -rw-r--r--   5 B  2001-09-09 01:46:40  371a5713
    2001-02-03 04:05:19  deleted                                         92143f95
    2001-02-03 04:05:29  back     -rw-r--r--   5 B  2001-09-09 01:46:40  5f19cd89

    [DIR]/files/src/main.c on difference:
    Seen                 Change    Mode        Size  Modified             Snapshots
    2001-02-03 04:05:09  new       -rw-r--r--  10 B  2001-09-09 01:46:40  371a5713
    2001-02-03 04:05:19  metadata  -rw-------  10 B  2001-09-09 01:46:40  92143f95..5f19cd89 (2)

    `[DIR]/files/nothing` is in no snapshot
    [exit 0]
    ");
    prints!(machine.esker(["find", "--history", "--json", "files/docs/plan.txt"]), @r#"
    {"message_type":"version","path":"[DIR]/files/docs/plan.txt","hostname":"difference","change":"new","first":{"id":"371a571337242babfc421fc1c76229c7","time":"2001-02-03T04:05:09+00:00"},"last":{"id":"371a571337242babfc421fc1c76229c7","time":"2001-02-03T04:05:09+00:00"},"snapshots":1,"node":{"name":"plan.txt","type":"file","path":"[DIR]/files/docs/plan.txt","uid":0,"gid":0,"user":"somebody","group":"somebody","mode":420,"permissions":"-rw-r--r--","mtime":"2001-09-09T01:46:40+00:00","size":5}}
    {"message_type":"version","path":"[DIR]/files/docs/plan.txt","hostname":"difference","change":"deleted","first":{"id":"92143f9594f326feae658b5f69fc8a61","time":"2001-02-03T04:05:19+00:00"},"last":{"id":"92143f9594f326feae658b5f69fc8a61","time":"2001-02-03T04:05:19+00:00"},"snapshots":1,"node":null}
    {"message_type":"version","path":"[DIR]/files/docs/plan.txt","hostname":"difference","change":"back","first":{"id":"5f19cd89c5ab1d6ff4390d6dd4dfecd1","time":"2001-02-03T04:05:29+00:00"},"last":{"id":"5f19cd89c5ab1d6ff4390d6dd4dfecd1","time":"2001-02-03T04:05:29+00:00"},"snapshots":1,"node":{"name":"plan.txt","type":"file","path":"[DIR]/files/docs/plan.txt","uid":0,"gid":0,"user":"somebody","group":"somebody","mode":420,"permissions":"-rw-r--r--","mtime":"2001-09-09T01:46:40+00:00","size":5}}
    [exit 0]
    "#);
}

#[test]
fn diff_tells_what_changed() {
    let machine = machine();
    prints!(machine.esker(["diff", "latest~2", "latest~1"]), @"
    comparing snapshot 371a5713 with 92143f95

    +    [DIR]/files/docs/new/
    +    [DIR]/files/docs/new/Notes.TXT
    M    [DIR]/files/docs/notes.txt
    -    [DIR]/files/docs/plan.txt

                  new  removed  changed
    files           1        1        1
    directories     1        0
    others          0        0        0
    bytes        16 B      9 B
    [exit 0]
    ");
    prints!(machine.esker(["diff", "--json", "latest~2", "latest"]), @r#"
    {"message_type":"change","path":"[DIR]/files/docs/new/","modifier":"+"}
    {"message_type":"change","path":"[DIR]/files/docs/new/Notes.TXT","modifier":"+"}
    {"message_type":"change","path":"[DIR]/files/docs/notes.txt","modifier":"T"}
    {"message_type":"statistics","source_snapshot":"371a571337242babfc421fc1c76229c7","target_snapshot":"5f19cd89c5ab1d6ff4390d6dd4dfecd1","changed_files":0,"changed_others":0,"changed_types":1,"changed_metadata":0,"unread":0,"added":{"files":1,"dirs":1,"others":0,"bytes":4},"removed":{"files":0,"dirs":0,"others":0,"bytes":4}}
    [exit 0]
    "#);
    let docs = machine.path("files/docs");
    let docs = fs::canonicalize(docs).unwrap().display().to_string();
    prints!(machine.esker(["diff", &format!("latest~2:{docs}"), &format!("latest:{docs}/new")]), @"
    comparing snapshot 371a5713 with 5f19cd89

    +    /Notes.TXT
    -    /notes.txt
    -    /plan.txt

                 new  removed  changed
    files          1        2        0
    directories    0        0
    others         0        0        0
    bytes        4 B      9 B
    [exit 0]
    ");
    prints!(machine.esker(["diff", "latest", "latest"]), @"
    comparing snapshot 5f19cd89 with 5f19cd89


                 new  removed  changed
    files          0        0        0
    directories    0        0
    others         0        0        0
    bytes        0 B      0 B
    [exit 0]
    ");
    machine.write("files/docs/more", "more");
    prints!(machine.esker(["diff", "latest", "files"]), @"
    comparing snapshot 5f19cd89 with [DIR]/files

    +    [DIR]/files/docs/more

                 new  removed  changed
    files          1        0        0
    directories    0        0
    others         0        0        0
    bytes        4 B      0 B
    [exit 0]
    ");
    prints!(machine.esker(["diff", "latest", "/"]), @"
    comparing snapshot 5f19cd89 with /

    +    [DIR]/files/docs/more

                 new  removed  changed
    files          1        0        0
    directories    0        0
    others         0        0        0
    bytes        4 B      0 B
    [exit 0]
    ");
    prints!(machine.esker(["diff", "latest", "./nowhere"]), @"
    error: cannot compare with `[DIR]/nowhere`
      Caused by: No such file or directory (os error 2)
    [exit 1]
    ");
    prints!(machine.esker(["diff", "latest", "latest", "--content"]), @"
    error: `--content` goes with a local directory: in snapshots all content is compared
    [exit 2]
    ");
    prints!(machine.esker(["diff", "latest:/nowhere", "latest"]), @"
    error: there is no `/nowhere` in the snapshot
    [exit 1]
    ");
}

/// What this machine's key opens.
fn open(machine: &Machine) -> Repository {
    let key = KeyFile::parse(&fs::read_to_string(machine.path("key")).unwrap()).unwrap();
    let storage = Arc::new(machine.memory.clone());
    Repository::open(storage, World::seeded(99), &Secret::KeyFile(key), Local::default()).unwrap()
}

#[test]
fn sessions_tells_what_prune_waits_for_and_what_to_do() {
    let machine = machine();
    prints!(machine.esker(["sessions"]), @"
    0 open sessions, 0 lost, 0 void; 3 that have committed not shown
    [exit 0]
    ");
    let repo = open(&machine);
    drop(Session::begin(&repo).unwrap());
    prints!(machine.esker(["sessions"]), @"
    ID        State  Announced            Last sign of life  By              Stored
    7cd6cf27  open   2001-02-03 04:05:06  -                  ada@difference  ?

    1 open session, 0 lost, 0 void; 3 that have committed not shown

    `prune` waits for an open session until it commits or has been silent for --patience; if nothing is running any more: esker prune --patience 0s
    [exit 0]
    ");
    // A pack of a session that nobody has announced.
    let mut forger = forge::Forger::new(&repo);
    forger.chunk(ChunkKind::Data, b"what was stored");
    forger.put_pack();
    prints!(machine.esker(["sessions", "--packs"]), @"
    ID        State  Announced            Last sign of life  By              Stored
    7cd6cf27  open   2001-02-03 04:05:06  -                  ada@difference  0 B in 0 packs
    a767d69d  lost   -                    -                  -               1.5 KiB in 1 pack

    1 open session, 1 lost, 0 void; 3 that have committed not shown

    `prune` waits for an open session until it commits or has been silent for --patience; if nothing is running any more: esker prune --patience 0s
    `prune` refuses beside a lost session, of which a snapshot may be lost; to find out: esker check; to give it up: esker prune --close-lost-sessions
    [exit 0]
    ");
    prints!(machine.esker(["sessions", "--packs", "--json"]), @r#"
    [{"type":"session","id":"7cd6cf273042c7550c980531bb8797ef","short_id":"7cd6cf27","state":"open","announced":"2001-02-03T04:05:06+00:00","age_secs":[AGE],"alive":null,"credential":"54219f88358d6e45195974cab2d28f64b9c98343bf9b09965acd1bfbdde74a4a","label":"ada@difference","asked":false,"packs":0,"bytes":0},{"type":"session","id":"a767d69d046f9428178348c5ac98d74b","short_id":"a767d69d","state":"lost","announced":null,"age_secs":null,"alive":null,"credential":null,"label":null,"asked":false,"packs":1,"bytes":1498}]
    [exit 0]
    "#);
    machine.esker(["prune", "--patience", "0s"]).fails(6);
    machine.esker(["prune", "--patience", "0s", "--close-lost-sessions"]).success();
    prints!(machine.esker(["sessions", "--packs"]), @"
    ID        State  Announced  Last sign of life  By  Stored
    a767d69d  void   -          -                  -   1.5 KiB in 1 pack

    0 open sessions, 0 lost, 1 void

    what void sessions have stored goes with the next: esker prune
    [exit 0]
    ");
    prints!(machine.esker(["sessions", "--all"]), @"
    0 open sessions, 0 lost, 0 void
    [exit 0]
    ");
}
