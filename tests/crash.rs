//! Risk: a crash or a loss of power loses a snapshot that was reported as made, or leaves a
//! repository that cannot be used on.
//! Method: count the storage calls of `init` and `backup` that change something, then stop at
//! each one in turn, with the last write lost, torn or done but unanswered, and with what was not
//! yet durable lost as well. Then reopen, check, restore every committed snapshot, back up again.

use std::fs;
use std::path::Path;
use std::sync::Arc;

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::error::Kind;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::{FirstKey, InitOptions, Local};
use esker::repo::secret::Secret;
use esker::repo::snapshots::Filter;
use esker::storage::fault::{Faulty, LastChange, Plan, PowerLoss};
use esker::storage::memory::Memory;
use esker::world::World;
use repo::{Scene, init_options, noise};

const LAST: [LastChange; 3] = [LastChange::Lost, LastChange::Torn, LastChange::Done];
const POWER: [PowerLoss; 3] = [PowerLoss::None, PowerLoss::TakesAll, PowerLoss::KeepsNewest];

fn write_tree(root: &Path, generation: u64) {
    fs::create_dir_all(root.join("sub")).unwrap();
    for n in 0..80 {
        // Half of them are other files in the next generation.
        let seed = n + generation * 100 * (n % 2);
        fs::write(root.join(format!("sub/file-{n}")), noise(seed, 3000)).unwrap();
    }
    fs::write(root.join("changing"), noise(100 + generation, 9000)).unwrap();
    fs::write(root.join("note"), format!("generation {generation}")).unwrap();
}

/// Every stop of a backup over a repository that holds one snapshot already.
#[test]
fn a_backup_that_stops_anywhere_loses_no_snapshot_that_was_made() {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone())).with_tiny_packs();
    write_tree(&scene.source(), 1);
    let first = scene.backup().id;
    let first_tree = tree::lines(&scene.source());
    let base = memory.snapshot();
    write_tree(&scene.source(), 2);
    let second_tree = tree::lines(&scene.source());

    let count = {
        let faulty = Faulty::new(Arc::new(memory.clone()), Plan::none());
        scene.over(Arc::new(faulty.clone())).backup();
        faulty.changes()
    };
    assert!(count >= 14, "{count} changes are too few for the tree to have been cut into packs");
    let mut stops = 0;
    for stop in 0..=count {
        for last in LAST {
            for power in POWER {
                memory.restore(base.clone());
                let plan = Plan::crash_at(stop).last(last).power(power);
                let faulty = Faulty::new(Arc::new(memory.clone()), plan);
                let made = scene.over(Arc::new(faulty.clone())).try_backup();
                let when = format!("stopped at {stop} of {count}, {last:?}, {power:?}");
                stops += 1;

                let after = scene.over(Arc::new(memory.clone()));
                assert_restores(&after, &first.to_string(), &first_tree, &when);
                let repo = after.open();
                let (snapshots, _) = Reader::new(&repo).unwrap().snapshots(&Filter::default()).unwrap();
                if let Ok(report) = &made {
                    assert!(snapshots.iter().any(|info| info.id() == report.id), "reported as made, {when}");
                }
                for info in snapshots.iter().filter(|info| info.id() != first) {
                    assert_restores(&after, &info.id().to_string(), &second_tree, &when);
                }
                let report = after.check();
                // A torn commit or announcement stays under its name; it is said to be damaged and
                // counts for nothing.
                let torn = report
                    .faults
                    .iter()
                    .filter(|fault| fault.object.starts_with("snapshots/") || fault.object.starts_with("sessions/"))
                    .count();
                assert!(torn == report.faults.len() && (torn == 0 || last == LastChange::Torn), "{report:?}, {when}");
                let again = after.backup();
                assert_restores(&after, &again.id.to_string(), &second_tree, &when);
            }
        }
    }
    assert!(stops >= 135, "only {stops} stops");
}

fn assert_restores(scene: &Scene, snapshot: &str, lines: &[String], when: &str) {
    let target = scene.restore(snapshot);
    assert!(tree::lines(&target) == lines, "{snapshot} differs, {when}");
    fs::remove_dir_all(target).unwrap();
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
                    Repository::open(
                        Arc::new(memory.clone()),
                        World::system(),
                        &Secret::password("secret"),
                        Local::default(),
                    )
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
