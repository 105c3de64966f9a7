//! Every call of the storage that changes something: a server that is gone, a stick pulled out.
//!
//! Unlike a machine that stops, the command goes on: it is told, and may clean up. What the call
//! in question did is nothing, half of it, or all of it; what no barrier followed may be lost.

use std::sync::Arc;

use esker::error::Kind;
use esker::repo::Repository;
use esker::repo::open::{FirstKey, InitOptions, Local};
use esker::repo::secret::Secret;
use esker::storage::Storage;
use esker::storage::fault::{Faulty, LastChange, Plan, PowerLoss};
use esker::storage::memory::Memory;
use esker::world::World;

use crate::cli::Machine;
use crate::fusefs::trace::Disk;
use crate::repo::init_options;
use crate::stops::{DISK, Known, chosen, local};
use crate::verbs::{CASES, Case, assert_sound, begun};

const LAST: [LastChange; 3] = [LastChange::Lost, LastChange::Torn, LastChange::Done];
const POWER: [PowerLoss; 3] = [PowerLoss::None, PowerLoss::TakesAll, PowerLoss::KeepsNewest];

#[test]
fn every_command_may_stop_at_every_call() {
    let mut stopped = 0;
    for (n, case) in CASES.iter().enumerate() {
        stopped += stops(case, 100 + n as u64);
    }
    assert!(stopped > 200, "only {stopped} stops");
}

/// Runs the command over a storage with faults.
fn run_over(machine: &mut Machine, case: &Case, plan: Plan) -> (Faulty, bool) {
    let faulty = Faulty::new(Arc::new(local(machine)), plan);
    machine.instead = Some(Arc::new(faulty.clone()));
    let place = machine.env["ESKER_REPOSITORY".as_ref() as &std::ffi::OsStr].clone();
    machine.set("ESKER_REPOSITORY", "memory:");
    let reported = (case.run)(machine);
    machine.instead = None;
    machine.set("ESKER_REPOSITORY", place);
    (faulty, reported)
}

fn stops(case: &Case, seed: u64) -> usize {
    let what = format!("{} {}", case.page, case.name);
    let mut machine = begun(seed);
    let known = Known::now(&machine).forgetting(&machine, case.forgets);
    (case.prepare)(&mut machine);
    let base = Disk::of(&machine.path(DISK));
    let (faulty, reported) = run_over(&mut machine, case, Plan::none());
    assert!(reported, "{what} failed");
    let changes = faulty.changes();
    assert_eq!(changes > 0, case.writes, "{what}: {changes} changes");
    let all: Vec<_> = (1..=changes)
        .flat_map(|stop| LAST.into_iter().flat_map(move |last| POWER.map(|power| (stop, last, power))))
        .collect();
    let chosen = chosen(&all, case.most / 2);
    for (stop, last, power) in &chosen {
        base.write_to(&machine.path(DISK));
        let plan = Plan::crash_at(*stop).last(*last).power(*power);
        let (faulty, reported) = run_over(&mut machine, case, plan);
        let torn = faulty.interrupted().filter(|_| *last == LastChange::Torn);
        let when = format!("{what} stopped at call {stop} of {changes} ({torn:?}), {last:?}, {power:?}");
        assert_sound(&mut machine, case, &known, reported, torn.as_deref(), &when);
    }
    chosen.len()
}

/// Every stop of `init`: there is a repository or there is none, and in either case a way on.
#[test]
fn an_init_that_stops_anywhere_can_be_begun_again_or_was_made() {
    let options = InitOptions { key: FirstKey::Password("secret".to_owned().into()), ..init_options() };
    let init = |storage| Repository::init(storage, World::system(), &options, Local::default()).map(|_| ());
    let counting = Faulty::new(Arc::new(Memory::new()), Plan::none());
    init(Arc::new(counting.clone())).unwrap();
    for stop in 0..=counting.changes() {
        for last in LAST {
            for power in POWER {
                let memory = Memory::new();
                let plan = Plan::crash_at(stop).last(last).power(power);
                let made = init(Arc::new(Faulty::new(Arc::new(memory.clone()), plan)));
                let when = format!("stopped at {stop}, {last:?}, {power:?}");
                let open = || {
                    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
                    Repository::open(storage, World::system(), &Secret::password("secret"), Local::default())
                };
                match open() {
                    Ok(_) => {}
                    Err(error) => {
                        assert!(made.is_err(), "reported as made, {when}");
                        assert_eq!(error.kind(), Kind::NoRepository, "{error:?}, {when}");
                        init(Arc::new(memory.clone())).unwrap_or_else(|error| panic!("{error:?}, {when}"));
                        open().unwrap_or_else(|error| panic!("{error:?}, {when}"));
                    }
                }
            }
        }
    }
}
