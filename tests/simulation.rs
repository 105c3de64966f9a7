//! Risk: an interleaving of backups, collections and failures that nobody thought of loses a snapshot, or
//! leaves garbage for ever.
//! Method: each seed is a story: two to four actors over one storage in memory, an owner's and others', who back
//! up, copy from elsewhere, forget, bring back, collect, make new keys, store anew under them, restore and check (`actor.rs` has the list), and dice decide at each call to
//! the storage who goes on (`turns.rs`). Some stories have crashes (the last change lost, done or torn; what was killed
//! is begun again), failing calls or a loss of power. A model knows what each snapshot that was reported as made
//! must hold, and what may be gone by when it was forgotten. Afterwards every snapshot must restore to what the
//! model says and `check --read-data` be clean. One story in eight goes on: two quiet collections must leave nothing
//! that nothing needs, what may be brought back must come back, and once all is forgotten no pack may be left.
//!
//! `ESKER_SIM_SEED` tells one story again; `ESKER_SIM_SECS` or `ESKER_SIM_COUNT` makes it a soak with seeds nobody
//! has seen.

#[path = "simulation/actor.rs"]
mod actor;
#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/model.rs"]
mod model;
#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[path = "simulation/story.rs"]
mod story;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;
#[path = "simulation/turns.rs"]
mod turns;

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use story::{Base, lock, tell};

/// Stories that every run of the tests tells.
const STORIES: u64 = 2000;
/// Faults that are told of before the rest is left.
const FAULTS_MAX: usize = 5;

/// Tells stories with every core until `next` gives no more seeds; gives how many, their turns and the first faults.
fn tell_all(next: impl Fn() -> Option<u64> + Sync) -> (u64, u64, Vec<String>) {
    let base = Base::new();
    let (count, turns, faults) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    let tell_some = || {
        while lock(&faults).len() < FAULTS_MAX
            && let Some(seed) = next()
        {
            let told = tell(&base, seed);
            count.fetch_add(1, Ordering::Relaxed);
            turns.fetch_add(told.turns, Ordering::Relaxed);
            if let Some(fault) = told.fault {
                let mut text = format!("SEED={seed}\n{fault}\n");
                told.log.iter().for_each(|line| writeln!(text, "  {line}").unwrap());
                lock(&faults).push(text);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(tell_some);
        }
    });
    (count.into_inner(), turns.into_inner(), faults.into_inner().unwrap())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
#[allow(clippy::print_stderr, reason = "how long a soak was is for people")]
fn no_interleaving_loses_a_snapshot_or_leaves_garbage() {
    let drawn = AtomicU64::new(0);
    let draw = || drawn.fetch_add(1, Ordering::Relaxed);
    let (seed, secs, wanted) = (number("ESKER_SIM_SEED"), number("ESKER_SIM_SECS"), number("ESKER_SIM_COUNT"));
    let began = Instant::now();
    let (count, turns, faults) = match (seed, secs, wanted) {
        (Some(seed), ..) => tell_all(|| (draw() == 0).then_some(seed)),
        (None, None, None) => tell_all(|| Some(draw()).filter(|n| *n < STORIES)),
        (None, secs, wanted) => {
            let first = u64::from_le_bytes(esker::world::World::system().random()) >> 1;
            tell_all(|| {
                let in_time = secs.is_none_or(|secs| began.elapsed() < Duration::from_secs(secs));
                let n = draw();
                (in_time && wanted.is_none_or(|wanted| n < wanted)).then(|| first + n)
            })
        }
    };
    eprintln!("{count} stories, {turns} turns, {:.1} s", began.elapsed().as_secs_f64());
    assert!(faults.is_empty(), "of {count} stories:\n{}", faults.join("\n"));
}
