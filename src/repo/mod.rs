//! A repository: where `seal(encode(x))` and `storage.put` meet.
//!
//! Exactly this module sees plain text, keys and storage at once.
//!
//! - **Who may do what**: [`access`] works it out, [`keys`] holds what an unlocked credential can use, [`open`] begins a
//!   repository or unlocks one, [`members`] adds and removes credentials, [`epochs`] gives them new keys, [`recovery`]
//!   and [`kit`] put a key on paper, [`repair`] makes second copies count, [`pins`] notices a storage that goes back,
//!   [`parity`] makes damaged packs whole.
//! - **What counts**: [`records`] reads and writes signed and sealed records, [`commits`], [`collections`] and
//!   [`standing`] say which sessions, packs and snapshots count, [`logs`] hold many of their records, [`notes`] says
//!   things about other objects, [`history`] tells what happened.
//! - **Writing**: [`session`] is one writer's passage from announcement to commit, [`chunk_writer`] stores what is new
//!   in it, [`pack_writer`] turns that into packs, [`tree`] cuts directories and lists into nodes, [`remake`] and
//!   [`trim`] make a snapshot of another.
//! - **Reading**: [`import`] brings the local catalog up to date, [`content`] and [`reader`] read everything back,
//!   [`frames`] many frames at once, [`fetch`] content in the order wanted and [`read_ahead`] nodes before they are
//!   asked for; [`directory`] and [`own_word`] are what a pack says of itself, [`look_again`] finds what the index has
//!   lost; [`walk`] goes through a tree, [`reach`] finds all that is below it, [`compare`] says how two
//!   entries differ, [`snapshots`] lists and finds snapshots, [`snapshot_records`] remembers what they say, [`strays`]
//!   are packs no commit names.

use std::path::PathBuf;
use std::sync::Arc;

use crate::format::config::Config;
use crate::storage::Storage;
use crate::world::World;

pub mod access;
pub mod chunk_writer;
pub mod collections;
pub mod commits;
pub mod compare;
pub mod content;
pub mod directory;
pub mod drills;
pub mod epochs;
pub mod fetch;
pub mod frames;
pub mod history;
pub mod import;
pub mod keys;
pub mod kit;
pub mod logs;
mod look_again;
pub mod members;
pub mod notes;
pub mod open;
pub mod own_word;
pub mod pack_writer;
pub mod parity;
pub mod pins;
pub mod reach;
mod read_ahead;
pub mod reader;
pub mod records;
pub mod recovery;
pub mod remake;
pub mod repair;
pub mod secret;
pub mod segments;
pub mod session;
mod snapshot_records;
pub mod snapshots;
pub mod standing;
pub mod strays;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
pub mod tree;
pub mod trim;
mod uploads;
pub mod walk;

/// An unlocked repository. Holds no connection and no lock; any number may be open at once.
#[derive(Debug)]
pub struct Repository {
    /// Where its objects are.
    pub storage: Arc<dyn Storage>,
    /// Clock and randomness.
    pub world: World,
    /// Its frozen description.
    pub config: Config,
    /// Who may do what.
    pub access: access::AccessList,
    /// What the credential that unlocked it can use.
    pub keys: keys::Keys,
    /// Its directory under the cache directory, if there is one.
    cache: Option<PathBuf>,
    /// What this machine has seen of it before.
    watch: pins::Watch,
    /// What this process has learned of its logs.
    shelf: logs::Shelf,
    known_records: records::KnownRecords,
}

impl Repository {
    /// This repository's directory under the cache directory. All in it may be deleted.
    pub fn cache_directory(&self) -> Option<&std::path::Path> {
        self.cache.as_deref()
    }

    /// Where files go that memory has no room for.
    pub fn spill_directory(&self) -> PathBuf {
        self.cache.clone().unwrap_or_else(std::env::temp_dir)
    }
}
