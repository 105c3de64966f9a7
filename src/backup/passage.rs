//! The sessions one backup passes through (SPEC §9.5, W6).
//!
//! A backup that takes long commits checkpoints on its way: what is stored so far becomes that
//! session's commit, and the backup goes on in a new session. The new one looks at the
//! repository afresh; as long as it may rely on every pack the one before did, all chunks named so
//! far stand. A session that was killed before it could commit is taken up by the next run.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::Options;
use super::journal::{Journal, unfinished};
use super::record::Place;
use crate::error::{Context, Result};
use crate::format::cbor::Extra;
use crate::format::segment::PackEntry;
use crate::format::session::{CommitKind, Snapshot, Summary};
use crate::format::tree::Entry;
use crate::id::{PackId, SessionId};
use crate::monitor::{Monitor, Severity};
use crate::repo::Repository;
use crate::repo::pack_writer::OnStored;
use crate::repo::session::{Outcome, Session, pack_name};
use crate::storage::ErrorKind;
use crate::world::Time;

/// One session, and where what it stores is noted.
struct Leg<'r> {
    session: Arc<Session<'r>>,
    journal: Option<Arc<Journal>>,
}

/// A backup on its way.
pub(super) struct Passage<'r> {
    repo: &'r Repository,
    options: &'r Options,
    monitor: &'r Monitor,
    place: Option<Place>,
    began: Time,
    parent: Option<SessionId>,
    leg: RwLock<Leg<'r>>,
    /// Sessions whose commits the next commit takes the place of.
    superseded: Mutex<Vec<SessionId>>,
}

impl<'r> Passage<'r> {
    /// Begins the first session. `superseded` are sessions of the same backup that have
    /// committed, or may have.
    pub(super) fn begin(
        repo: &'r Repository,
        options: &'r Options,
        monitor: &'r Monitor,
        place: Option<Place>,
        superseded: Vec<SessionId>,
    ) -> Result<Self> {
        let began = repo.world.now();
        let leg = Leg::begin(repo, place.as_ref(), monitor)?;
        Ok(Self {
            repo,
            options,
            monitor,
            place,
            began,
            parent: None,
            leg: RwLock::new(leg),
            superseded: Mutex::new(superseded),
        })
    }

    /// The repository.
    pub(super) fn repo(&self) -> &'r Repository {
        self.repo
    }

    /// When the backup began.
    pub(super) fn began(&self) -> Time {
        self.began
    }

    /// Names the snapshot this one is compared with.
    pub(super) fn set_parent(&mut self, parent: Option<SessionId>) {
        self.parent = parent;
    }

    /// The session at work.
    pub(super) fn session(&self) -> Arc<Session<'r>> {
        self.leg.read().unwrap_or_else(PoisonError::into_inner).session.clone()
    }

    /// Notes what the session at work stores.
    pub(super) fn on_stored(&self) -> OnStored {
        let journal = self.leg.read().unwrap_or_else(PoisonError::into_inner).journal.clone();
        Arc::new(move |pack| journal.iter().for_each(|journal| journal.stored(pack)))
    }

    /// Adds sessions whose commits the next commit takes the place of.
    pub(super) fn supersede(&self, sessions: impl IntoIterator<Item = SessionId>) {
        self.superseded.lock().unwrap_or_else(PoisonError::into_inner).extend(sessions);
    }

    /// The sessions whose commits the next commit takes the place of.
    pub(super) fn superseded(&self) -> Vec<SessionId> {
        let mut sessions = self.superseded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sessions.sort();
        sessions.dedup();
        sessions
    }

    /// The record of the snapshot with this root.
    pub(super) fn snapshot(&self, root: Entry, mut summary: Summary) -> Snapshot {
        let (now, began) = (self.repo.world.now(), self.began);
        let millis = (i128::from(now.secs) - i128::from(began.secs)) * 1000
            + (i128::from(now.nanos) - i128::from(began.nanos)) / 1_000_000;
        summary.duration_ms = u64::try_from(millis).unwrap_or(0);
        let mut paths: Vec<_> = self.options.roots.iter().map(|root| root.as_bytes().to_vec()).collect();
        paths.sort();
        paths.dedup();
        let mut tags = self.options.tags.clone();
        tags.sort();
        tags.dedup();
        Snapshot {
            time: began,
            hostname: self.options.hostname.clone(),
            username: self.options.username.clone(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            paths,
            tags,
            parent: self.parent,
            root,
            summary,
            program: self.options.program.clone(),
            original: None,
            extra: Extra::default(),
        }
    }

    /// Commits the session at work. Whatever comes of it, the next commit takes its place.
    pub(super) fn commit(&self, kind: CommitKind, packs: Vec<PackEntry>, snapshot: &Snapshot) -> Result<Outcome> {
        let session = self.session();
        let outcome = session.commit(kind, packs, Some(snapshot), self.superseded())?;
        if let Some(journal) = &self.leg.read().unwrap_or_else(PoisonError::into_inner).journal {
            journal.remove();
        }
        self.supersede([session.id()]);
        Ok(outcome)
    }

    /// Goes on in a new session after a checkpoint with these packs. False when not everything
    /// named so far may be relied on any more: then the backup begins anew.
    pub(super) fn go_on(&self, committed: &[PackId]) -> Result<bool> {
        let next = Leg::begin(self.repo, self.place.as_ref(), self.monitor)?;
        let mut leg = self.leg.write().unwrap_or_else(PoisonError::into_inner);
        let continues = next.session.upholds(&leg.session.reliance(committed));
        *leg = next;
        Ok(continues)
    }
}

impl<'r> Leg<'r> {
    fn begin(repo: &'r Repository, place: Option<&Place>, monitor: &Monitor) -> Result<Self> {
        let session = Session::begin(repo)?;
        for (object, error) in session.faults() {
            monitor.problem(Severity::Warning, object.as_str(), format!("not used: {}", error.with_causes()));
        }
        let journal = place.map(|place| Arc::new(Journal::new(place, &session)));
        Ok(Self { session: Arc::new(session), journal })
    }
}

/// Commits what sessions of this backup set that were stopped have stored, as checkpoints; gives
/// those that count, for the next commit to take their place.
pub(super) fn take_up(repo: &Repository, place: &Place) -> Result<Vec<SessionId>> {
    let mut checkpoints = Vec::new();
    for stopped in unfinished(repo, place) {
        let session = Session::resume(repo, stopped.session, stopped.secret.clone(), stopped.envelope.clone())?;
        match session.kind_of(&stopped.session) {
            // Killed between its commit and the end.
            Some(CommitKind::Checkpoint) => checkpoints.push(stopped.session),
            Some(_) => {}
            None if stopped.epoch == repo.keys.current_epoch().id => {
                let mut packs = Vec::new();
                for pack in &stopped.packs {
                    let name = pack_name(&pack.id);
                    match repo.storage.stat(&name) {
                        Ok(bytes) if bytes == u64::from(pack.stored_bytes) => {
                            // The killed process may not have come to the barrier.
                            repo.storage.cover(&name).context(|| format!("cannot rely on pack `{name}`"))?;
                            packs.push(pack.clone());
                        }
                        Ok(_) => {}
                        // It was not durable yet.
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        Err(error) => return Err(error).context(|| format!("cannot look for pack `{name}`")),
                    }
                }
                if !packs.is_empty() {
                    match session.commit(CommitKind::Checkpoint, packs, None, Vec::new()) {
                        Ok(Outcome::Made) => checkpoints.push(stopped.session),
                        // A collector has asked, or a clone of this machine was faster.
                        Ok(Outcome::Flagged) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            None => {}
        }
        stopped.remove();
    }
    Ok(checkpoints)
}
