//! Every write to the disk: the repository's, the cache's, the state's and the key files'.
//!
//! A command runs once on a file system that records what it is asked to change; see
//! [`crate::fusefs::trace`]. Then the disk is made as a stop after each of the changes leaves it.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;

use crate::cli::Machine;
use crate::fusefs::trace::{Change, Disk, Stop, Trace};
use crate::fusefs::{Mount, PLAIN};
use crate::stops::{self, DISK, Excuse, Known, assert_calm, assert_checks, backup, chosen, source};
use crate::tree;
use crate::verbs::{CASES, Case, HARMLESS, assert_sound, begun};

/// What a stop may leave. The repository may be on another disk than what is kept of it, so either
/// may outlive a loss of power that the other does not.
const STOPS: [Stop; 8] = [
    Stop::Kill,
    Stop::KillTears,
    Stop::PowerLoss,
    Stop::PowerLossKeepsNames,
    Stop::PowerLossSpares(&["repository"]),
    Stop::PowerLossSpares(&["cache", "state", "home"]),
    Stop::PowerLossKeepsSome(1),
    Stop::PowerLossKeepsSome(2),
];

/// Runs a command with its disk recorded. `None` where this machine cannot.
fn traced<T>(machine: &Machine, run: impl FnOnce() -> T) -> Option<(Trace, T)> {
    let (disk, backing) = (machine.path(DISK), machine.path("backing"));
    rustix::fs::rename(&disk, &backing).unwrap();
    fs::create_dir(&disk).unwrap();
    let mount = Mount::between(&PLAIN, &disk, &backing)?;
    mount.record();
    let result = run();
    let trace = mount.recorded();
    drop(mount);
    fs::remove_dir(&disk).unwrap();
    rustix::fs::rename(&backing, &disk).unwrap();
    Some((trace, result))
}

/// The stops of a trace that leave different disks, in order, each with how many changes had been made.
fn stops_of(trace: &Trace) -> Vec<(usize, Stop)> {
    let mut seen = HashSet::new();
    let mut stops = Vec::new();
    for made in 0..=trace.changes.len() {
        for stop in STOPS {
            // Those of the end are told from others by what must hold.
            if seen.insert((trace.left_by(made, stop).digest(), made == trace.changes.len())) {
                stops.push((made, stop));
            }
        }
    }
    stops
}

/// Files below a directory of the disk that are not locks.
fn kept<'a>(disk: &'a Disk, below: &str) -> BTreeMap<PathBuf, &'a [u8]> {
    let listing = disk.listing().into_iter().filter(|(path, _)| path.starts_with(below));
    listing
        .filter(|(path, _)| path.extension().is_none_or(|extension| extension != "lock"))
        .filter_map(|(path, bytes)| Some((path, bytes?)))
        .collect()
}

#[test]
fn every_command_may_stop_at_every_write() {
    let (mut tried, mut merged) = (0, false);
    for (n, case) in CASES.iter().enumerate() {
        let Some((trace, stops)) = case_stops(case, n as u64) else { return };
        tried += stops;
        merged |= trace.removes(".run");
    }
    assert!(tried > 400, "only {tried} stops");
    assert!(merged, "no index was merged");
}

fn case_stops(case: &Case, seed: u64) -> Option<(Trace, usize)> {
    let mut machine = begun(seed);
    let known = Known::now(&machine).forgetting(&machine, case.forgets);
    (case.prepare)(&mut machine);
    let (trace, reported) = traced(&machine, || (case.run)(&machine))?;
    let what = format!("{} {}", case.page, case.name);
    assert!(reported, "{what} failed");
    assert!(!trace.changes.is_empty(), "{what} writes nothing");
    assert_eq!(trace.changes_below("repository"), case.writes, "{what}: whether it writes to the repository");
    let whole = trace.left_by(trace.changes.len(), Stop::Kill);
    let stops = chosen(&stops_of(&trace), case.most);
    for (made, stop) in &stops {
        let disk = trace.left_by(*made, *stop);
        let when = format!("{what} stopped at write {made} of {}, {stop:?}", trace.changes.len());
        let is_end = *made == trace.changes.len();
        if is_end && *stop != Stop::PowerLossSpares(&["repository"]) {
            assert!(kept(&disk, "state") == kept(&whole, "state"), "pins are lost, {when}");
        }
        disk.write_to(&machine.path(DISK));
        // A snapshot on a disk that was spared the loss is one that was reported.
        assert_sound(&mut machine, case, &known, is_end, None, &when);
    }
    Some((trace, stops.len()))
}

#[test]
fn verbs_that_are_harmless_change_nothing() {
    let machine = begun(1);
    for (page, run) in HARMLESS {
        let Ok(args) = run else { continue };
        let Some((trace, output)) = traced(&machine, || machine.esker(args.iter().copied())) else { return };
        assert_eq!(output.code, 0, "{page}: {output}");
        assert!(trace.changes.is_empty(), "{page}: {:?}", trace.changes);
    }
}

#[test]
fn an_init_may_stop_at_every_write() {
    init_stops(&["init", "--recovery-key-file", "disk/home/sheet"]);
    init_stops(&["backup", "--init", "source"]);
}

fn init_stops(args: &[&str]) -> Option<()> {
    let machine = stops::machine(1);
    let (trace, output) = traced(&machine, || machine.esker(args.iter().copied()))?;
    output.success();
    let whole = trace.left_by(trace.changes.len(), Stop::Kill);
    let sheet = machine.path(DISK).join("home/sheet");
    // It begins by making hundreds of directories for packs.
    let is_last = |change: &Change| matches!(change, Change::MakeDirectory { at, .. } if at.1 == "ff");
    let last = trace.changes.iter().position(is_last).unwrap();
    let (making, after) = stops_of(&trace).into_iter().partition::<Vec<_>, _>(|(made, _)| *made <= last);
    let excuse = Excuse { one_copy: true, torn: None };
    for (made, stop) in [chosen(&making, 15), chosen(&after, 70)].concat() {
        let when = format!("{args:?} stopped at write {made} of {}, {stop:?}", trace.changes.len());
        let disk = trace.left_by(made, stop);
        let is_end = made == trace.changes.len();
        if is_end && stop != Stop::PowerLossSpares(&["repository"]) {
            assert!(kept(&disk, "state") == kept(&whole, "state"), "pins are lost, {when}");
        }
        disk.write_to(&machine.path(DISK));
        let opened = machine.esker(["snapshots"]);
        if opened.code != 0 {
            assert!(!is_end, "reported as made: {opened}, {when}");
            assert!(opened.code == 10, "neither made nor not: {opened}, {when}");
            fs::remove_dir_all(machine.path(DISK).join("home")).unwrap();
            fs::create_dir(machine.path(DISK).join("home")).unwrap();
            let again = machine.esker(args.iter().copied());
            assert_eq!(again.code, 0, "{again}, {when}");
        } else if is_end && sheet.exists() {
            assert_calm(&machine.esker(["snapshots", "--key-file", "disk/home/sheet"]), excuse, &when);
        }
        assert_calm(&backup(&machine), excuse, &when);
        assert_checks(&machine, excuse, &when);
        let target = machine.path("restored");
        let snapshot = format!("latest:{}", source(&machine).display());
        assert_calm(&machine.esker(["restore", &snapshot, "--quiet", "--target", "restored"]), excuse, &when);
        assert!(tree::lines(&target) == tree::lines(&source(&machine)), "{when}");
        fs::remove_dir_all(target).unwrap();
    }
    Some(())
}
