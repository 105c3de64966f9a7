//! What a snapshot says of itself, on its way to a terminal.

use std::fs;
use std::sync::Arc;

use esker::format::access::Role;
use esker::format::tree::{Attributes, Detail, Xattr};
use esker::repo::Repository;
use esker::repo::open::Local;
use esker::repo::secret::{KeyFile, Secret};
use esker::world::{Time, World};

use super::cli::Machine;
use super::forge::{Forger, entry, link, snapshot};

/// Clears the screen, in seven bits and in eight; turns text around; ends a line, in two ways.
const HOSTILE: &str = "\x1b[2J\u{9b}2J\x07\u{202e}gpj\u{2066}\r\n\u{2028}\x7f";

fn repository(machine: &Machine) -> Repository {
    let key = KeyFile::parse(&fs::read_to_string(machine.path("key")).unwrap()).unwrap();
    let storage = Arc::new(machine.memory.clone());
    Repository::open(storage, World::seeded(9), &Secret::KeyFile(key), Local::default()).unwrap()
}

/// Every text that a writer chooses: names, targets, users, hosts, tags, roots, labels, attributes.
#[test]
fn nothing_a_writer_says_steers_a_terminal() {
    let machine = Machine::with_repository();
    let owner = repository(&machine);
    owner.add_member(Role::Writer, HOSTILE, None).unwrap();
    let mut forger = Forger::new(&owner);
    let mut file = forger.file(&format!("f{HOSTILE}"), b"content");
    file.attributes.user = Some(HOSTILE.into());
    file.attributes.group = Some(HOSTILE.into());
    file.attributes.mtime = Time { secs: i64::MAX, nanos: 999_999_999 };
    file.attributes.xattrs = vec![Xattr { name: HOSTILE.into(), value: HOSTILE.into() }];
    let lost = Detail::Directory {
        id: owner.keys.ids.chunk(esker::crypto::ident::ChunkKind::Directory, b"nowhere"),
        level: 0,
        totals: Default::default(),
        incomplete: false,
    };
    let lost = entry(&format!("g{HOSTILE}"), lost);
    let device = entry(&format!("h{HOSTILE}"), Detail::CharDevice { major: u32::MAX, minor: u32::MAX });
    let mut symlink = link(&format!("i{HOSTILE}"), HOSTILE);
    symlink.attributes = Attributes { mtime: Time { secs: i64::MIN, nanos: 0 }, ..symlink.attributes };
    let root = forger.directory("", vec![file, lost, device, symlink]);
    forger.put_pack();
    let mut said = snapshot(root);
    said.hostname = HOSTILE.into();
    said.username = HOSTILE.into();
    said.program = HOSTILE.into();
    said.tags = vec![HOSTILE.into()];
    said.paths = vec![format!("/{}", HOSTILE.replace('/', "")).into_bytes()];
    said.time = Time { secs: i64::MIN, nanos: 0 };
    forger.put_commit(&forger.commit(Some(&said)));

    let paths = format!("latest:/f{HOSTILE}");
    let commands: &[&[&str]] = &[
        &["snapshots"],
        &["snapshots", "--group-by", "host,paths,tags"],
        &["ls", "latest"],
        &["ls", "-l", "latest"],
        &["ls", "latest", HOSTILE],
        &["ls", &paths],
        &["stats", "latest"],
        &["check", "--read-data", "-v"],
        &["restore", "latest", "--target", "out", "-v"],
        &["restore", "latest", "--target", "out", "--dry-run", "-v"],
        &["restore", &paths, "--target", "out", "--host", HOSTILE],
        &["dump", "latest", HOSTILE],
        &["dump", "latest", "/", "--archive", "tar", "--host", HOSTILE],
        &["key", "list"],
    ];
    for command in commands {
        for json in [false, true] {
            if json && command[0] == "dump" {
                continue;
            }
            let args = command.iter().copied().chain(json.then_some("--json"));
            let output = machine.esker(args);
            let shown = if command[0] == "dump" { output.err() } else { output.out() + &output.err() };
            let steers = |c: &char| (c.is_control() && *c != '\n') || "\u{202e}\u{2066}\u{2028}".contains(*c);
            assert_eq!(shown.chars().find(steers), None, "{command:?}: {shown:?}");
            assert!(!shown.contains("\n\\x") && !shown.trim().is_empty(), "{command:?}: {shown:?}");
            // A line for each thing: no name has made one of its own.
            if !json && *command == ["ls", "latest"] {
                assert_eq!(output.out().lines().count(), 4, "{shown}");
            }
        }
    }
    // Programs get what is really there, escaped as JSON has it.
    let listed = machine.esker(["snapshots", "--json"]).success().json();
    assert_eq!(listed[0][0]["hostname"], HOSTILE);
}
