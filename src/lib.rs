//! Esker: a content-addressed, deduplicating, encrypted backup engine.
//!
//! The map, lowest layer first; a module imports only from rows above it
//! (`tests/layering.rs` holds this):
//!
//! | modules | what |
//! |---|---|
//! | [`id`], [`path`], [`world`] | identifiers; names in a snapshot; clock and randomness as values |
//! | [`mod@format`], [`crypto`], [`chunk`], [`storage`] | bytes to structs; keys and sealing; cutting and frames; where objects are kept |
//! | [`index`] | the local catalog and chunk lookup |
//! | [`error`] | the error of every public operation |
//! | [`monitor`], [`process`] | progress and problems; commands that others wrote |
//! | [`repo`] | a repository: access, sessions, packs, snapshots |
//! | [`source`] | reading a file system |
//! | [`backup`], [`restore`], [`check`], [`scrub`], [`dump`], [`ls`], [`find`], [`diff`], [`mount`], [`stats`], [`forget`], [`prune`], [`copy`], [`tag`], [`rewrite`], [`repair`], [`sessions`] | one verb each |
//! | [`drill`] | restore, compare and check, in one |
//! | [`service`] | jobs and their schedules, watching, metrics, alerts, those who are told |
//! | [`cli`] | the command line |
//! | [`fuzzing`] | doors for the targets of `fuzz/`, no part of the API |

pub mod backup;
pub mod check;
pub mod chunk;
pub mod cli;
pub mod copy;
pub mod crypto;
pub mod diff;
pub mod drill;
pub mod dump;
pub mod error;
pub mod find;
pub mod forget;
pub mod format;
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
pub mod index;
pub mod ls;
pub mod monitor;
#[cfg(feature = "mount")]
pub mod mount;
pub mod path;
pub mod process;
pub mod prune;
pub mod repair;
pub mod repo;
pub mod restore;
pub mod rewrite;
pub mod scrub;
pub mod service;
pub mod sessions;
pub mod source;
pub mod stats;
pub mod storage;
pub mod tag;
pub mod world;
