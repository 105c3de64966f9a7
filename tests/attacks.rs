//! Risk: somebody who may write to a repository, with a key or without, does more than the threat
//! model (SPEC §2.2) grants: writes outside of a restore's target, keeps a reader busy or takes its
//! memory, makes others rest on wrong bytes, forges what only owners may say, hides or replays.
//! Method: each attack of that table carried out, by a writer that seals and signs what it likes
//! (`support/forge.rs`) or by a storage that answers what it likes; and the table itself read, so
//! that no defence is claimed that no test holds.

#[path = "attacks/bombs.rs"]
mod bombs;
#[path = "attacks/escape.rs"]
mod escape;
#[path = "attacks/forgery.rs"]
mod forgery;
#[path = "attacks/hook.rs"]
mod hook;
#[allow(dead_code)]
#[path = "../fuzz/src/memory.rs"]
mod memory;
#[path = "attacks/poison.rs"]
mod poison;
#[path = "attacks/scene.rs"]
mod scene;
#[path = "attacks/screen.rs"]
mod screen;
#[path = "attacks/storage.rs"]
mod storage;
#[path = "attacks/table.rs"]
mod table;

#[allow(dead_code)]
#[path = "support/cli.rs"]
mod cli;
#[allow(dead_code)]
#[path = "support/forge.rs"]
mod forge;
#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

#[global_allocator]
static ALLOCATOR: memory::Counted = memory::Counted;
