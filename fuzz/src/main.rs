//! One binary with every target, since linking takes longer than building them:
//! `ESKER_FUZZ_TARGET=NAME fuzz [libFuzzer's arguments]`. `fuzz/run` is how it is meant to be run.

#![no_main]

mod memory;
mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: memory::Counted = memory::Counted;

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn choose() -> &'static Target {
    let name = std::env::var("ESKER_FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
        eprintln!(
            "ESKER_FUZZ_TARGET is `{name}`, which is no target: they are named as the directories of fuzz/corpus"
        );
        std::process::exit(2)
    })
}

fuzz_target!(|data: &[u8]| {
    let target = CHOSEN.get_or_init(choose);
    target.run(data);
});
