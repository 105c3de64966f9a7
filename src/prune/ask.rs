//! Waiting for writers, and asking those that are silent (G4, G5).
//!
//! A session that was announced before the packs were condemned may not know it. Each such session is
//! waited for until it commits. One that shows no sign of life is *flagged*, and only *then* is its commit
//! looked for: it is there, and counts; or it is not, and the session is void. A writer looks for flags
//! after its commit, so it cannot report a snapshot as made that was called void here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Options;
use crate::error::{Context, Error, Kind, Result};
use crate::format::cbor::{self, Extra};
use crate::format::record::RecordKind;
use crate::format::session::Flag;
use crate::id::{CollectionId, SessionId};
use crate::monitor::{Monitor, Severity};
use crate::repo::Repository;
use crate::repo::collections::{Collections, FLAGS};
use crate::repo::commits::SNAPSHOTS;
use crate::repo::session::SESSIONS;

/// How often writers are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A session older than this is asked though it shows signs of life: a backup commits every few minutes.
const AGE_SECS_MAX: u64 = 48 * 3600;

/// What became of the sessions that were open.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Those that were asked.
    pub(super) asked: BTreeSet<SessionId>,
    /// Those that had not committed when they were asked; then those that are void.
    pub(super) void: BTreeSet<SessionId>,
    /// Those that count, whatever others who asked may say.
    pub(super) counted: BTreeSet<SessionId>,
}

/// An open session that is waited for.
struct Waiting {
    announced_secs: i64,
    /// The last sign of life, and when that was first seen here.
    sign: Option<(Vec<u8>, Duration)>,
}

/// Whether all open sessions are to be answered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// All: packs are condemned that one of them may rely on.
    ForAll,
    /// Only those that are silent; the others have nothing to fear.
    ForNone,
}

impl Answers {
    /// Settles what the sweep says of those that were asked: what another sweep has said by now; and of those that
    /// counted when all was looked at, that they do. `said` was read after the last flag was put.
    pub(super) fn settle(&mut self, said: &Collections, counted: &BTreeSet<SessionId>) {
        for session in &self.asked {
            let counts = match said.answers.get(session) {
                Some(answer) => answer.counts,
                None if self.void.contains(session) => false,
                None if counted.contains(session) => true,
                None => continue,
            };
            match counts {
                true => self.counted.insert(*session) | self.void.remove(session),
                false => self.void.insert(*session),
            };
        }
    }
}

/// Waits until every session that is open now has committed or been called void. Those `at_once` are not waited
/// for: they are lost, or others have asked them.
pub(super) fn all(
    repo: &Repository,
    collection: &CollectionId,
    at_once: &BTreeSet<SessionId>,
    wait: Wait,
    options: &Options,
    monitor: &Monitor,
) -> Result<Answers> {
    let mut answers = Answers::default();
    let mut waiting: BTreeMap<SessionId, Waiting> = BTreeMap::new();
    let closed = repo.load_collections()?.void;
    for object in repo.list_settled(SESSIONS)? {
        let Some(session) = object.name.strip_prefix(SESSIONS).and_then(|id| id.parse().ok()) else { continue };
        if !closed.contains(&session) {
            waiting.insert(session, Waiting { announced_secs: announced(repo, &session)?, sign: None });
        }
    }
    for session in at_once {
        ask(repo, collection, session, &mut answers)?;
        waiting.remove(session);
    }
    let mut told = false;
    loop {
        let committed = repo.committed_sessions()?;
        waiting.retain(|session, _| !committed.contains(session));
        let mut asked = Vec::new();
        for (session, one) in &mut waiting {
            if one.is_silent(repo, session, options.patience)? {
                ask(repo, collection, session, &mut answers)?;
                asked.push(*session);
            }
        }
        asked.iter().for_each(|session| drop(waiting.remove(session)));
        if waiting.is_empty() || wait == Wait::ForNone {
            return Ok(answers);
        }
        if !told {
            let message = format!("waiting for {} under way; to ask them sooner, see --patience", waiting.len());
            monitor.problem(Severity::Note, "sessions", message);
            told = true;
        }
        if monitor.stopping() {
            return Err(Error::new(Kind::Interrupted, "the collection was interrupted while it waited for backups")
                .hint("nothing was deleted; the next `esker prune` begins anew"));
        }
        repo.world.sleep(LOOK_EVERY);
    }
}

impl Waiting {
    /// Whether there has been no sign of life for too long. Clocks only decide when to ask.
    fn is_silent(&mut self, repo: &Repository, session: &SessionId, patience: Duration) -> Result<bool> {
        let age = u64::try_from(repo.world.now().secs.saturating_sub(self.announced_secs)).unwrap_or(0);
        if age >= AGE_SECS_MAX || patience.is_zero() {
            return Ok(true);
        }
        let sign = repo.sign_of_life(session)?.unwrap_or_default();
        match &self.sign {
            // No sign was ever left: only the announcement says how long.
            _ if sign.is_empty() => Ok(age >= patience.as_secs()),
            Some((known, since)) if *known == sign => Ok(repo.world.monotonic().saturating_sub(*since) >= patience),
            _ => {
                self.sign = Some((sign, repo.world.monotonic()));
                Ok(false)
            }
        }
    }
}

/// When a session says it began. One that cannot be read is as old as can be.
fn announced(repo: &Repository, session: &SessionId) -> Result<i64> {
    Ok(repo.announcement(session)?.map_or(i64::MIN, |(announcement, _)| announcement.time_secs))
}

/// Flags a session and then looks for its commit.
fn ask(repo: &Repository, collection: &CollectionId, session: &SessionId, answers: &mut Answers) -> Result<()> {
    let flag =
        Flag { session: *session, collection: *collection, time_secs: repo.world.now().secs, extra: Extra::default() };
    let name = format!("{FLAGS}{session}/{collection}");
    answers.asked.insert(*session);
    repo.put_named_record(RecordKind::Flag, &name, &cbor::encode(&flag))?;
    repo.storage.barrier().context(|| "cannot ask a session")?;
    if !repo.is_there(&format!("{SNAPSHOTS}{session}"))? {
        answers.void.insert(*session);
    }
    Ok(())
}
