//! Risk: a crash or a loss of power loses a snapshot that was reported as made, or leaves a
//! repository, a cache or pins with which one cannot go on.
//! Method: every command that changes something is stopped at each call of its storage (`calls`)
//! and at each write to its disk (`disk`), with what was being written lost, torn or done, and
//! with what was not yet durable lost as well. Then the machine goes on: every snapshot restores,
//! a check finds nothing, no rollback is cried, the next backup is whole. A verb that no case of
//! the table (`verbs`) stops is a failure.
//!
//! Here some of the stops are tried, evenly apart; with `ESKER_SOAK=1` all of them.

#[path = "crash/calls.rs"]
mod calls;
#[allow(dead_code)]
#[path = "support/cli.rs"]
mod cli;
#[path = "crash/disk.rs"]
mod disk;
#[path = "support/fusefs.rs"]
mod fusefs;
#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/stops.rs"]
mod stops;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;
#[path = "crash/verbs.rs"]
mod verbs;
