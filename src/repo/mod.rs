//! A repository: where `seal(encode(x))` and `storage.put` meet.
//!
//! Exactly this module sees plain text, keys and storage at once. [`access`] works out who may
//! do what, [`keys`] holds what an unlocked credential can use, [`open`] begins a repository or
//! unlocks one, [`members`] adds and removes credentials, [`recovery`] and [`kit`]
//! put a key on paper, [`repair`] makes second copies count, [`pins`] remembers what was seen so that a
//! storage that goes back is noticed, [`records`] reads and writes signed and
//! sealed records. [`commits`] and [`collections`] say which sessions and packs count, [`session`]
//! is one writer's passage from announcement to commit, [`pack_writer`] turns chunks into
//! packs, [`tree`] cuts directories and lists into nodes, [`import`] brings the local catalog up to
//! date, [`content`] and [`reader`] read everything back, [`frames`] many frames at once and
//! [`read_ahead`] nodes before they are asked for, [`directory`] what a pack says of itself, and [`look_again`]
//! finds what the index has lost; [`walk`] goes through a tree, [`reach`] finds all that is below it,
//! [`snapshots`] lists and finds snapshots, [`standing`] says which commits are roots, [`notes`] says things
//! about other objects, and [`parity`] makes damaged packs whole.

use std::path::PathBuf;
use std::sync::Arc;

use crate::format::config::Config;
use crate::storage::Storage;
use crate::world::World;

pub mod access;
pub mod collections;
pub mod commits;
pub mod content;
pub mod directory;
pub mod frames;
pub mod import;
pub mod keys;
pub mod kit;
mod look_again;
pub mod members;
pub mod notes;
pub mod open;
pub mod pack_writer;
pub mod parity;
pub mod pins;
pub mod reach;
mod read_ahead;
pub mod reader;
pub mod records;
pub mod recovery;
pub mod repair;
pub mod secret;
pub mod session;
pub mod snapshots;
pub mod standing;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
pub mod tree;
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
}

impl Repository {
    /// This repository's directory under the cache directory. All in it may be deleted.
    pub fn cache_directory(&self) -> Option<&std::path::Path> {
        self.cache.as_deref()
    }
}
