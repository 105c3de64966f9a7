//! What opened repositories in this process, so that a process that opens them again and again unlocks each once.
//!
//! A password is made into a key slowly, on purpose; what is kept is the credential it gave. It is wiped
//! from memory with the vault. The access list is read anew each time: a credential that was removed opens nothing.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::repo::Repository;
use crate::repo::secret::{KeyFile, Secret};

/// Credentials by the place of their repository. One that keeps nothing is what commands have that are typed.
#[derive(Default)]
pub(super) struct Vault {
    credentials: Option<Mutex<BTreeMap<OsString, KeyFile>>>,
}

impl Vault {
    /// One that keeps what opens.
    pub(super) fn keeping() -> Self {
        Self { credentials: Some(Mutex::default()) }
    }

    fn lock(&self) -> Option<MutexGuard<'_, BTreeMap<OsString, KeyFile>>> {
        Some(self.credentials.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What opened the repository at a place.
    pub(super) fn get(&self, place: &OsStr) -> Option<Secret> {
        self.lock()?.get(place).cloned().map(Secret::KeyFile)
    }

    /// Forgets that.
    pub(super) fn forget(&self, place: &OsStr) {
        self.lock().and_then(|mut credentials| credentials.remove(place));
    }

    /// Keeps what opened a repository.
    pub(super) fn keep(&self, place: &OsStr, repository: &Repository) {
        let Some(mut credentials) = self.lock() else { return };
        let (keys, config) = (&repository.keys, &repository.config);
        let credential = KeyFile {
            role: keys.role,
            repo: config.repo,
            root_verifying: config.root_verifying,
            seed: keys.credential.seed().clone(),
        };
        credentials.insert(place.to_owned(), credential);
    }
}
