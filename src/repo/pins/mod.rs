//! Pins: what this machine has seen of a repository at a place, so that a storage that goes back
//! to an older state is noticed (SPEC §9.9).
//!
//! Kept in the state directory, one small text file for each repository id *and* place, because a
//! mirror has the same id and may lag behind. It holds what `config` is, the heads of the access
//! statements, and the heads of each own credential's commits. [`file`] reads and writes it; here
//! it is compared with what the storage shows and brought up to date.
//!
//! The storage is *behind* when a pinned head is neither there, nor reached from one that is, nor
//! covered by an owner's tombstone or sweep. Pins are read before anything they are compared with:
//! another command may say something new and pin it in between.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Repository;
use super::access::AccessList;
use super::commits::{Commits, SNAPSHOTS};
use super::open::cache_directory;
use crate::error::{Context, Error, Kind, Result};
use crate::format::cbor;
use crate::format::config::Config;
use crate::id::{ObjectId, RepoId, SessionId};
use crate::storage::{self, Storage};

pub(crate) mod file;

use file::{PinFile, Pins};

/// What to do about a storage that is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rollback {
    /// Write nothing to it.
    #[default]
    Refuse,
    /// Go on from what is there, and pin that.
    Accept,
}

/// What should be told once, collected while there is nobody to tell it to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    /// Adds a warning, unless it waits to be told already.
    pub fn add(&self, message: String) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.contains(&message) {
            waiting.push(message);
        }
    }

    /// All that waits, and forgets it.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Something that was seen before and is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behind {
    /// An access statement.
    Statement(ObjectId),
    /// A commit of the credential in use: its session and the hash of its bytes.
    Commit(SessionId, ObjectId),
}

impl Behind {
    /// The object's name.
    pub fn object(&self) -> String {
        match self {
            Self::Statement(hash) => format!("access/{hash}"),
            Self::Commit(session, _) => format!("{SNAPSHOTS}{session}"),
        }
    }
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement(hash) => write!(f, "access statement `{}`", hash.short()),
            Self::Commit(session, _) => write!(f, "snapshot `{}`", session.short()),
        }
    }
}

/// A repository's pins while it is open.
#[derive(Debug, Default)]
pub(super) struct Watch {
    file: Option<PinFile>,
    pinned: Pins,
    rollback: Rollback,
    behind: Vec<Behind>,
    /// Heads that need not be pinned any more: covered, or given up by [`Rollback::Accept`].
    settled: BTreeSet<Behind>,
}

/// The file of a repository at a place.
fn path_in(state: &Path, repo: &RepoId, place: &str) -> PathBuf {
    let place = crate::id::hex(&blake3::hash(place.as_bytes()).as_bytes()[..8]);
    state.join("pins").join(repo.to_string()).join(place)
}

impl Watch {
    /// Reads the pins, and refuses another `config` under an id and place that are known.
    pub(super) fn begin(storage: &dyn Storage, config: &Config, local: &super::open::Local) -> Result<Self> {
        let Some(state) = &local.state else { return Ok(Self::default()) };
        let place = storage.place();
        let file = PinFile::new(path_in(state, &config.repo, &place), local.notices.clone());
        let cache = local.cache.as_ref().map(|cache| cache_directory(cache, &config.repo, &place));
        if !file.path().exists() && cache.is_some_and(|cache| cache.exists()) {
            local.notices.add(format!(
                "what was seen of this repository before is not remembered: there is no `{}`; what is there now is \
                 taken for the newest",
                file.path().display()
            ));
        }
        let pinned = file.read();
        let hash = config_hash(config);
        if let Some((known, root)) = pinned.config
            && (known != hash || root != config.root_verifying)
        {
            let detail = match root == config.root_verifying {
                true => "its root owner has signed another one",
                false => "it has another root owner: someone may have put a repository of their own in its place",
            };
            let what = format!("cannot use the repository at `{place}`: its `config` is not the one seen here before");
            return Err(Error::new(Kind::Refused, what).because(detail).hint(format!(
                "bring back the right `config` from a copy of the repository; what was seen before stands in `{}`",
                file.path().display()
            )));
        }
        Ok(Self { file: Some(file), pinned, rollback: local.rollback, behind: vec![], settled: BTreeSet::new() })
    }

    /// Compares the statements. What is missing is known even if the repository cannot be unlocked.
    pub(super) fn look_at_access(&mut self, access: &AccessList) {
        let missing = self.pinned.access.iter().filter(|hash| !access.knows(hash));
        self.behind.extend(missing.map(|hash| Behind::Statement(*hash)));
    }

    /// Whether statements that were seen before are gone.
    pub(super) fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }
}

fn config_hash(config: &Config) -> ObjectId {
    ObjectId::of(&cbor::encode(config))
}

impl Repository {
    /// What was seen at this place before and is gone, unless that was accepted.
    pub fn behind(&self) -> &[Behind] {
        &self.watch.behind
    }

    /// The refusal of everything that writes to a storage that is behind.
    pub(crate) fn refuse_if_behind(&self) -> Result<()> {
        let Some(first) = self.watch.behind.first() else { return Ok(()) };
        let place = self.storage.place();
        let what = format!("nothing was written to the repository at `{place}`: it is older than what was seen before");
        let hint = "find out why; to go on from what is there, run the same command with `--accept-rollback`";
        Err(Error::new(Kind::Refused, what).because(format!("{first} is missing")).hint(hint))
    }

    /// Compares own commits with the pins, then pins the statements that are there. A head that is
    /// there costs one `stat`; all commits are read only when one is not.
    pub(super) fn look_at_pins(&mut self) -> Result<()> {
        let own = self.keys.credential.id();
        let pinned: Vec<_> = self.watch.pinned.commits.get(&own).into_iter().flatten().copied().collect();
        let mut missing = Vec::new();
        for (session, hash) in pinned {
            let name = format!("{SNAPSHOTS}{session}");
            match self.storage.stat(&name) {
                Ok(_) => {}
                Err(error) if error.kind() == storage::ErrorKind::NotFound => missing.push((session, hash)),
                Err(error) => return Err(error).context(|| format!("cannot look for `{name}`")),
            }
        }
        if !missing.is_empty() {
            let commits = self.load_commits(&mut self.open_catalog())?;
            let reached: BTreeSet<_> = commits.headers.values().flat_map(|header| &header.previous).copied().collect();
            let collections = self.load_collections()?;
            for (session, hash) in missing {
                let is_there = commits.headers.get(&session).is_some_and(|header| header.hash == hash);
                if is_there {
                    // It has been folded into a log.
                    continue;
                }
                let covered = reached.contains(&hash)
                    || collections.void.contains(&session)
                    || collections.forgotten.contains_key(&(session, hash));
                match covered {
                    true => drop(self.watch.settled.insert(Behind::Commit(session, hash))),
                    false => self.watch.behind.push(Behind::Commit(session, hash)),
                }
            }
        }
        if self.watch.is_behind() {
            if self.watch.rollback == Rollback::Refuse {
                return Ok(());
            }
            self.watch.settled.extend(self.watch.behind.drain(..));
        }
        let heads = self.access.heads();
        let known = |hash: &ObjectId| self.access.knows(hash);
        self.learn(|pins| {
            pins.access.retain(|hash| !known(hash));
            pins.access.extend(heads);
        });
        Ok(())
    }

    /// Pins the newest of its own commits that it sees.
    pub(crate) fn pin_commits(&self, commits: &Commits) {
        if self.watch.is_behind() {
            return;
        }
        let own = self.keys.credential.id();
        let (_, heads) = commits.newest_of(&own);
        let own_headers = || commits.headers.values().filter(|header| header.credential == own);
        // A pinned head that is here is either a head still or reached from one.
        let seen: BTreeSet<_> =
            own_headers().flat_map(|header| header.previous.iter().chain([&header.hash])).copied().collect();
        self.learn(|pins| {
            let pinned = pins.commits.entry(own).or_default();
            pinned.retain(|(_, hash)| !seen.contains(hash));
            pinned.extend(
                own_headers().filter(|header| heads.contains(&header.hash)).map(|header| (header.session, header.hash)),
            );
        });
    }

    /// Pins a commit that was just made.
    pub(crate) fn pin_commit(&self, session: SessionId, hash: ObjectId, previous: &[ObjectId]) {
        let own = self.keys.credential.id();
        self.learn(|pins| {
            let pinned = pins.commits.entry(own).or_default();
            pinned.retain(|(_, hash)| !previous.contains(hash));
            pinned.insert((session, hash));
        });
    }

    /// Pins a statement that was just made.
    pub(crate) fn pin_statement(&self, hash: ObjectId, seen: &[ObjectId]) {
        self.learn(|pins| {
            pins.access.retain(|hash| !seen.contains(hash));
            pins.access.insert(hash);
        });
    }

    /// Changes the pins as they are by now: another command may have changed them meanwhile.
    fn learn(&self, change: impl Fn(&mut Pins)) {
        let Some(file) = &self.watch.file else { return };
        file.update(|pins| {
            pins.config = Some((config_hash(&self.config), self.config.root_verifying));
            for settled in &self.watch.settled {
                match settled {
                    Behind::Statement(hash) => drop(pins.access.remove(hash)),
                    Behind::Commit(session, hash) => {
                        for pinned in pins.commits.values_mut() {
                            pinned.remove(&(*session, *hash));
                        }
                    }
                }
            }
            change(pins);
        });
    }
}

#[cfg(test)]
mod tests;
