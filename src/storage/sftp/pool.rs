//! Several sessions, opened as they are needed and replaced when they are lost.
//!
//! One `ssh` moves at most its window's worth of bytes (2 MiB) for each round trip, and one
//! `sftp-server` does one thing at a time. So threads that work at once get sessions of their
//! own, up to a limit, and share them beyond it. A server that does not let in as many as we
//! would like sets the limit.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::session::{Features, Session};
use super::ssh::{Location, Options};
use super::wire::Request;
use crate::storage::{Error, ErrorKind, Result};

/// Sessions to one place.
#[derive(Debug)]
pub(super) struct Pool {
    location: Location,
    options: Options,
    sessions: Mutex<Sessions>,
    /// Notified when a session was opened or could not be.
    opened: Condvar,
}

#[derive(Debug)]
struct Sessions {
    open: Vec<Arc<Session>>,
    opening: usize,
    limit: usize,
    /// How many were lost since the beginning.
    lost: u64,
    /// What the server can do; known since the first session.
    features: Option<Features>,
}

/// A session in use.
#[derive(Debug)]
pub(super) struct Lease(Arc<Session>);

impl Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl Pool {
    pub(super) fn new(location: Location, options: Options) -> Self {
        let limit = options.connections.unwrap_or(super::CONNECTIONS).max(1);
        let sessions = Sessions { open: Vec::new(), opening: 0, limit, lost: 0, features: None };
        Self { location, options, sessions: Mutex::new(sessions), opened: Condvar::new() }
    }

    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    pub(super) fn limit(&self) -> usize {
        self.lock().limit
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that nobody else uses, or the least used one once there are enough.
    pub(super) fn session(&self) -> Result<Lease> {
        let mut gone = Vec::new();
        let mut sessions = self.lock();
        loop {
            gone.extend(sessions.take_lost());
            // All leases are handles beside the one kept here.
            let least = sessions.open.iter().min_by_key(|session| Arc::strong_count(session)).cloned();
            let is_idle = |session: &Arc<Session>| Arc::strong_count(session) == 2;
            match least {
                Some(session) if is_idle(&session) => return Ok(Lease(session)),
                _ if sessions.open.len() + sessions.opening < sessions.limit => {
                    sessions.opening += 1;
                    drop(sessions);
                    let result = Session::open(self.location.command(&self.options), &self.location.server());
                    sessions = self.lock();
                    sessions.opening -= 1;
                    self.opened.notify_all();
                    match result {
                        Ok(session) => {
                            sessions.features = Some(session.features());
                            let session = Arc::new(session);
                            sessions.open.push(Arc::clone(&session));
                            return Ok(Lease(session));
                        }
                        // It lets in no more than are there.
                        Err(_) if sessions.open.iter().any(|session| !session.is_lost()) => {
                            sessions.limit = sessions.open.len();
                        }
                        Err(error) => return Err(sessions.again(error)),
                    }
                }
                Some(session) => return Ok(Lease(session)),
                None => sessions = self.opened.wait(sessions).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// What the server can do.
    pub(super) fn features(&self) -> Result<Features> {
        let known = self.lock().features;
        match known {
            Some(features) => Ok(features),
            None => Ok(self.session()?.features()),
        }
    }

    /// How many sessions have been lost so far. Asks each one that is open, so that a server
    /// which was gone meanwhile is noticed.
    pub(super) fn lost(&self) -> u64 {
        let open = self.lock().open.clone();
        let path = self.location.path();
        let asked: Vec<_> = open.iter().map(|session| session.send(&Request::LinkStatus { path })).collect();
        for answer in asked.into_iter().flatten() {
            // Only whether one comes matters; a session without it is lost.
            let _ = answer.wait();
        }
        drop(open);
        let mut sessions = self.lock();
        let gone = sessions.take_lost();
        let lost = sessions.lost;
        drop(sessions);
        drop(gone);
        lost
    }
}

impl Sessions {
    /// Takes out what is lost, for the caller to drop when nothing is locked.
    fn take_lost(&mut self) -> Vec<Arc<Session>> {
        let (lost, open) = std::mem::take(&mut self.open).into_iter().partition(|session| session.is_lost());
        self.open = open;
        let lost: Vec<_> = lost;
        self.lost += lost.len() as u64;
        lost
    }

    /// An error of reaching a server that has been reached before: whatever it is, it may pass.
    fn again(&self, error: Error) -> Error {
        let passes = self.features.is_some() && error.kind() == ErrorKind::Io;
        if passes { Error::new(ErrorKind::Transient, error.to_string()).because(error) } else { error }
    }
}
