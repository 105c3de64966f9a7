//! Risk: a `kill -9` at the wrong moment loses a snapshot that was reported, or wedges what comes
//! after: a lock that stays, a cache that is believed, a session that is never taken up.
//! Method: the program itself, killed after so many changes to its files, a number that a seed
//! says; the kernel tells of the changes. One machine lives through all the kills. What is asserted
//! holds wherever a kill strikes, so it does not matter that it strikes a little later each time.
//!
//! `ESKER_SEED` picks another series; with `ESKER_SOAK=1` there are many more kills.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

#[allow(dead_code)]
#[path = "support/cli.rs"]
mod cli;
#[allow(dead_code)]
#[path = "support/stops.rs"]
mod stops;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use cli::Machine;
use stops::{DISK, Excuse, Known, assert_calm, assert_checks, backup, noise};

/// What is killed: mostly backups, and what else writes.
const COMMANDS: [&[&str]; 8] = [
    &["backup", "--json", "--pack-size", "4M", "--checkpoint", "1M", "source"],
    &["backup", "--json", "source"],
    &["backup", "--json", "--pack-size", "4M", "--checkpoint", "1M", "--force", "source"],
    &["key", "writer", "--name", "w", "--out", "key-NUMBER"],
    &["backup", "--json", "--pack-size", "4M", "--checkpoint", "1M", "source"],
    &["cache", "clear", "--all"],
    &["backup", "--json", "--no-cache", "source"],
    &["check", "--read-data"],
];

/// How long is waited for the kernel to tell of more.
const PAUSE: Duration = Duration::from_micros(200);

/// Tells of changes to what is in some directories.
struct Watch(OwnedFd);

impl Watch {
    /// All directories below this one that are there now.
    fn new(top: &Path) -> Self {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        let mut open = vec![top.to_owned()];
        while let Some(directory) = open.pop() {
            let changes = WatchFlags::CREATE
                | WatchFlags::MODIFY
                | WatchFlags::MOVED_TO
                | WatchFlags::DELETE
                | WatchFlags::CLOSE_WRITE;
            inotify::add_watch(&fd, &directory, changes).unwrap();
            let entries = fs::read_dir(&directory).unwrap().map(Result::unwrap);
            open.extend(entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()));
        }
        Self(fd)
    }

    /// How many changes there were since it was asked last, at most about so many at once.
    fn changes(&self) -> u64 {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut changes = 0;
        loop {
            match reader.next() {
                Ok(_) => changes += 1,
                Err(Errno::WOULDBLOCK) => return changes,
                Err(errno) => panic!("{errno}"),
            }
            if reader.is_buffer_empty() {
                return changes;
            }
        }
    }
}

/// Runs the program until it ends or has made so many changes: then it is killed. Says how many it made.
fn run(machine: &Machine, args: &[String], kill_after: u64) -> (Output, u64) {
    let watch = Watch::new(&machine.path(DISK));
    let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
    command.args(args).current_dir(machine.path("")).env_clear().envs(&machine.env);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built");
    let mut changes = 0;
    while changes < kill_after && child.try_wait().unwrap().is_none() {
        match watch.changes() {
            0 => std::thread::sleep(PAUSE),
            more => changes += more,
        }
    }
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    loop {
        match watch.changes() {
            0 => return (output, changes),
            more => changes += more,
        }
    }
}

/// The source as it is before a kill: some megabytes, a part of which is new each time.
fn write_source(machine: &Machine, generation: u64) {
    stops::write_source(machine, generation);
    fs::create_dir_all(machine.path("source/bulk")).unwrap();
    for n in 0..40 {
        let seed = 5000 + n + if n % 4 == generation % 4 { 100 * generation } else { 0 };
        fs::write(machine.path(&format!("source/bulk/{n}")), noise(seed, 150_000)).unwrap();
    }
}

#[test]
fn whatever_is_killed_whenever_all_that_was_reported_is_there_and_the_next_backup_works() {
    let seed = std::env::var("ESKER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1_u64);
    let kills = if stops::soaking() { 1000 } else { 32 };
    let mut machine = stops::machine(seed);
    machine.set("HOME", machine.path("home"));
    machine.esker(["init", "--no-recovery"]).success();
    write_source(&machine, 0);
    backup(&machine).success();
    let mut known = Known::now(&machine);
    let (mut killed, mut backups_killed, mut reported) = (0, 0, 0);
    // How many changes each command makes when it is let alone, so far as that is known.
    let mut lasts = [60_u64; COMMANDS.len()];
    for number in 0..kills {
        write_source(&machine, number + 1);
        let random = u64::from_le_bytes(noise(seed << 32 | number, 8).try_into().unwrap());
        let which = usize::try_from(number).unwrap() % COMMANDS.len();
        let kill_after = 1 + random % (lasts[which] * 9 / 8);
        let args: Vec<_> =
            COMMANDS[which].iter().map(|arg| arg.replace("NUMBER", &format!("{seed}-{number}"))).collect();
        let (output, changes) = run(&machine, &args, kill_after);
        let when = format!("seed {seed}, kill {number}, `{}` after {kill_after}: {output:?}", args.join(" "));
        match output.status.signal() {
            Some(signal) => {
                assert_eq!(signal, 9, "{when}");
                killed += 1;
                backups_killed += u32::from(args[0] == "backup");
                lasts[which] = lasts[which].max(changes + changes / 4);
            }
            None => {
                assert_eq!(output.status.code(), Some(0), "{when}");
                lasts[which] = changes.max(1);
            }
        }
        let others = known.assert_still_stand(&machine, Excuse::default(), &when);
        if args[0] == "backup" && output.status.success() {
            let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(others.contains(line["snapshot_id"].as_str().unwrap()), "it was reported: {when}");
            reported += 1;
        }
        assert_checks(&machine, Excuse { one_copy: args[0] == "key", torn: None }, &when);
        assert_calm(&backup(&machine), Excuse::default(), &when);
        let others = known.assert_still_stand(&machine, Excuse::default(), &when);
        assert!(!others.is_empty(), "{when}");
        known.learn_of_source(&machine, others);
    }
    let end = format!("seed {seed}, in the end");
    known.assert_stand(&machine, Excuse::default(), &end);
    assert_checks(&machine, Excuse::default(), &end);
    assert!(
        killed > kills / 2 && backups_killed > 4,
        "{killed} of {kills} killed, {backups_killed} backups, {reported} reported"
    );
}
