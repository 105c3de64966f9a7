//! Who is writing, who was, and what of that a collection waits for.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::id::{CollectionId, CredentialId, SessionId};
use crate::repo::Repository;
use crate::repo::collections::FLAGS;
use crate::repo::content::Reader;
use crate::repo::session::{SESSIONS, alive_at_secs};
use crate::storage::parallel::try_map;

/// What to look for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Those that have committed and whose announcement is still there, too.
    pub committed: bool,
    /// Read the trailer of each pack that no commit names: whose it is, and which sessions are lost.
    pub packs: bool,
}

/// What became of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Announced, and nobody knows more: it may be at work. A collection waits for it.
    Open,
    /// It has packs, and neither announcement nor commit. No collection begins until it is given up.
    Lost,
    /// A collection has given it up.
    Void,
    /// Its commit is there.
    Committed,
}

/// Packs that no commit names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uploaded {
    /// How many.
    pub packs: u64,
    /// How long they are together.
    pub bytes: u64,
}

/// A session.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// What became of it.
    pub state: State,
    /// When it was announced, by its writer's clock.
    pub announced_secs: Option<i64>,
    /// When it at least was alive, by that clock.
    pub alive_secs: Option<i64>,
    /// Whose it is.
    pub credential: Option<CredentialId>,
    /// What that credential is called.
    pub label: Option<String>,
    /// Whether a collection has asked it to end.
    pub asked: bool,
    /// What it has stored that no commit names; `None` when that was not looked for.
    pub uploaded: Option<Uploaded>,
}

/// A collection that has not finished.
#[derive(Debug, Clone, Copy)]
pub struct CollectionInfo {
    /// Its id.
    pub id: CollectionId,
    /// How many packs it may delete.
    pub condemned: usize,
    /// Whether it has said which of them are dead.
    pub swept: bool,
}

/// What there is.
#[derive(Debug)]
pub struct Report {
    /// Sessions, those first that a collection waits for.
    pub sessions: Vec<SessionInfo>,
    /// Collections that have not finished.
    pub collections: Vec<CollectionInfo>,
    /// How many sessions have committed and are left out.
    pub committed: u64,
    /// Packs that no commit names and that say nothing of a session; `None` when that was not looked for.
    pub nobodys: Option<Uploaded>,
    /// Records that cannot be read, with the reason.
    pub faults: Vec<(String, String)>,
}

/// Looks at all sessions. In a collection's order: what is looked at later can only be further on.
pub fn run(repo: &Repository, options: Options) -> Result<Report> {
    let packs = if options.packs { repo.list_packs()? } else { Default::default() };
    let listed = repo.list_settled(SESSIONS)?;
    let announced: BTreeSet<SessionId> =
        listed.iter().filter_map(|object| object.name.strip_prefix(SESSIONS)?.parse().ok()).collect();
    let reader = Reader::new(repo)?;
    let flags = repo.load_flags(FLAGS)?;
    let mut uploaded: BTreeMap<SessionId, Uploaded> = BTreeMap::new();
    let mut nobodys = options.packs.then(Uploaded::default);
    for stray in reader.strays(&packs)? {
        let of = match stray.session {
            Some(session) => uploaded.entry(session).or_default(),
            None => nobodys.get_or_insert_default(),
        };
        of.packs += 1;
        of.bytes += stray.bytes;
    }
    let state = |session: &SessionId| {
        if reader.commits().headers.contains_key(session) {
            State::Committed
        } else if reader.is_void(session) {
            State::Void
        } else if announced.contains(session) {
            State::Open
        } else {
            State::Lost
        }
    };
    let all: BTreeSet<SessionId> = announced.iter().chain(uploaded.keys()).copied().collect();
    let (told, left_out): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|session| options.committed || state(session) != State::Committed);
    let labels: BTreeMap<CredentialId, String> =
        repo.member_list().into_iter().map(|member| (member.id, member.label)).collect();
    let mut sessions = try_map(repo.storage.connections(), &told, |session| {
        let announcement = repo.announcement(session)?;
        let announced_secs = announcement.as_ref().map(|(announcement, _)| announcement.time_secs);
        let sign = repo.sign_of_life(session)?;
        let committed = reader.commits().headers.get(session).map(|header| header.credential);
        let credential = announcement.map(|(_, credential)| credential).or(committed);
        Ok::<_, crate::error::Error>(SessionInfo {
            id: *session,
            state: state(session),
            announced_secs,
            alive_secs: announced_secs.zip(sign).and_then(|(secs, sign)| alive_at_secs(secs, &sign)),
            credential,
            label: credential.and_then(|credential| labels.get(&credential).cloned()),
            asked: flags.contains_key(session),
            uploaded: options.packs.then(|| uploaded.get(session).copied().unwrap_or_default()),
        })
    })?;
    sessions.sort_by_key(|session| (session.state, session.announced_secs, session.id));
    let collections = reader.collections();
    let unfinished = collections.unfinished.iter().map(|(id, packs)| CollectionInfo {
        id: *id,
        condemned: packs.len(),
        swept: collections.sweeps.contains_key(id),
    });
    let faults = reader.faults().iter().map(|(object, error)| (object.clone(), error.with_causes()));
    Ok(Report {
        sessions,
        collections: unfinished.collect(),
        committed: left_out.len() as u64,
        nobodys,
        faults: faults.collect(),
    })
}
