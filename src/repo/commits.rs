//! Which sessions have committed: reading `snapshots/`, with a cache of what each commit says.
//!
//! A commit's name is never used twice, so what was read once need not be read again; `check`
//! reads every commit anew. A commit by a removed credential counts only if an accepted head
//! reaches it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rayon::prelude::*;

use super::Repository;
use super::collections::Lists;
use crate::error::{Context, Error, Kind, Result};
use crate::format::access::Role;
use crate::format::cbor::{self, MapReader, MapWriter, Record};
use crate::format::record::RecordKind;
use crate::format::session::{Commit, CommitKind};
use crate::id::{CredentialId, EpochId, ObjectId, SessionId};
use crate::index::Catalog;
use crate::storage;
use crate::storage::parallel::try_map;

/// Commits that a thread decodes at a time.
const SHARE: usize = 256;

/// Folder of commits.
pub const SNAPSHOTS: &str = "snapshots/";

/// What is kept of a commit without its snapshot, envelope and inline segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitHeader {
    /// The session.
    pub session: SessionId,
    /// Its epoch.
    pub epoch: EpochId,
    /// Its writer.
    pub credential: CredentialId,
    /// BLAKE3 of the stored commit.
    pub hash: ObjectId,
    /// Why it was committed.
    pub kind: CommitKind,
    /// When, by the writer's clock.
    pub time_secs: i64,
    /// The writer's count of its commits.
    pub sequence: u64,
    /// The writer's commits before it.
    pub previous: Vec<ObjectId>,
    /// Its index segments.
    pub segments: Vec<ObjectId>,
    /// Whether it holds an index segment itself.
    pub has_inline_segment: bool,
    /// Sessions it takes the place of.
    pub supersedes: Vec<SessionId>,
    /// Lost index segments that its own take the place of.
    pub replaces: Vec<ObjectId>,
    /// How long the stored commit is.
    pub stored_bytes: u64,
}

impl Record for CommitHeader {
    const WHAT: &'static str = "cached commit";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.bytes(1, self.session.as_bytes());
        map.bytes(2, self.epoch.as_bytes());
        map.bytes(3, self.credential.as_bytes());
        map.bytes(4, self.hash.as_bytes());
        map.u64(
            5,
            match self.kind {
                CommitKind::Snapshot => 1,
                CommitKind::Checkpoint => 2,
                CommitKind::Maintenance => 3,
            },
        );
        map.i64(6, self.time_secs);
        map.u64(7, self.sequence);
        map.list(8, &self.previous, |out, hash| cbor::push_bytes(out, hash.as_bytes()));
        map.list(9, &self.segments, |out, hash| cbor::push_bytes(out, hash.as_bytes()));
        map.u64_unless_zero(10, u64::from(self.has_inline_segment));
        map.list(11, &self.supersedes, |out, session| cbor::push_bytes(out, session.as_bytes()));
        map.u64(12, self.stored_bytes);
        map.list(13, &self.replaces, |out, hash| cbor::push_bytes(out, hash.as_bytes()));
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> crate::format::Result<Self> {
        const WHAT: &str = CommitHeader::WHAT;
        let hash = |d: &mut minicbor::Decoder<'_>| Ok(ObjectId::from_bytes(cbor::read_array(WHAT, d)?));
        Ok(Self {
            session: SessionId::from_bytes(map.array(1)?),
            epoch: EpochId::from_bytes(map.array(2)?),
            credential: CredentialId::from_bytes(map.array(3)?),
            hash: ObjectId::from_bytes(map.array(4)?),
            kind: match map.u64(5)? {
                1 => CommitKind::Snapshot,
                2 => CommitKind::Checkpoint,
                3 => CommitKind::Maintenance,
                other => return Err(crate::format::DecodeError::unsupported(WHAT, other.to_string())),
            },
            time_secs: map.i64(6)?,
            sequence: map.u64(7)?,
            previous: map.list(8, hash)?,
            segments: map.list(9, hash)?,
            has_inline_segment: map.u64_or_zero(10)? == 1,
            supersedes: map.list(11, |d| Ok(SessionId::from_bytes(cbor::read_array(WHAT, d)?)))?,
            stored_bytes: map.u64(12)?,
            replaces: map.list(13, hash)?,
        })
    }
}

/// All commits of a repository.
#[derive(Debug, Default)]
pub struct Commits {
    /// Those that verify and count by their credential, in order of session id. Whether a sweep
    /// voids one is for [`super::collections`] to say.
    pub headers: BTreeMap<SessionId, CommitHeader>,
    /// Objects under `snapshots/` that are no commit, with the reason. They count as absent.
    pub faults: Vec<(String, Error)>,
    /// The hashes of those that a sweep calls void, once they were left out.
    pub void: BTreeSet<ObjectId>,
}

impl Commits {
    /// Leaves out those of void sessions.
    pub fn leave_out(&mut self, void: &BTreeSet<SessionId>) {
        for session in void {
            self.void.extend(self.headers.remove(session).map(|header| header.hash));
        }
    }

    /// The sequence for a credential's next commit, and the commits it names as previous.
    pub fn newest_of(&self, credential: &CredentialId) -> (u64, Vec<ObjectId>) {
        let own = || self.headers.values().filter(|header| header.credential == *credential);
        let sequence = own().map(|header| header.sequence).max().unwrap_or(0);
        let named: HashSet<_> = own().flat_map(|header| &header.previous).collect();
        let mut heads: Vec<_> = own().map(|header| header.hash).filter(|hash| !named.contains(hash)).collect();
        heads.sort();
        (sequence.saturating_add(1), heads)
    }
}

/// A commit as read from the storage.
#[derive(Debug)]
pub struct LoadedCommit {
    /// What is kept of it.
    pub header: CommitHeader,
    /// All of it.
    pub commit: Commit,
    /// Whether its credential has been removed.
    pub removed: bool,
}

/// The session a name under `snapshots/` is of.
pub fn session_of(name: &str) -> Option<SessionId> {
    name.strip_prefix(SNAPSHOTS)?.parse().ok()
}

impl Repository {
    /// Reads one commit, by itself or in a log. [`Kind::Damaged`] when it does not verify.
    pub fn load_commit(&self, session: &SessionId) -> Result<LoadedCommit> {
        let name = format!("{SNAPSHOTS}{session}");
        let what = || format!("cannot read commit `{name}`");
        match self.get_logged(&name)? {
            Some(stored) => self.open_commit(session, &stored),
            None => Err(storage::Error::not_found(&name)).context(what),
        }
    }

    /// Opens a stored commit.
    pub(super) fn open_commit(&self, session: &SessionId, stored: &[u8]) -> Result<LoadedCommit> {
        let name = format!("{SNAPSHOTS}{session}");
        let what = || format!("cannot read commit `{name}`");
        let opened = self.open_record(RecordKind::Commit, &name, stored)?;
        let commit: Commit = cbor::decode(&opened.body).context(what)?;
        if commit.session != *session {
            return Err(Error::new(Kind::Damaged, what()).because("it is another session's"));
        }
        let header = CommitHeader {
            session: *session,
            epoch: opened.epoch,
            credential: opened.credential,
            hash: opened.hash,
            kind: commit.kind,
            time_secs: commit.time_secs,
            sequence: commit.sequence,
            previous: commit.previous.clone(),
            segments: commit.segments.clone(),
            has_inline_segment: !commit.inline_segment.is_empty(),
            supersedes: commit.supersedes.clone(),
            replaces: commit.replaces.clone(),
            stored_bytes: stored.len() as u64,
        };
        Ok(LoadedCommit { header, commit, removed: opened.removed })
    }

    /// Lists and reads all commits; those `catalog` remembers, of the same length, are not read again.
    pub fn load_commits(&self, catalog: &mut Catalog) -> Result<Commits> {
        self.load_commits_by(catalog, Lists::Once)
    }

    /// The same, by lists of that kind.
    pub(super) fn load_commits_by(&self, catalog: &mut Catalog, lists: Lists) -> Result<Commits> {
        let mut commits = Commits::default();
        // Singles before logs: who folds puts the log first.
        let listed = self.listed(SNAPSHOTS, lists)?;
        let logs = self.load_logs(lists)?;
        let logged = logs.below(SNAPSHOTS);
        let mut sessions = Vec::new();
        for object in listed.into_iter().filter(|object| !logged.contains_key(&*object.name)) {
            match session_of(&object.name) {
                Some(session) => sessions.push((None, fact_key(&session), session, object.bytes)),
                None => {
                    let error = Error::new(Kind::Damaged, "it is not named like a commit");
                    commits.faults.push((object.name, error));
                }
            }
        }
        for (name, (item, log)) in &logged {
            if let Some(session) = session_of(name) {
                sessions.push((Some(**log), fact_key(&session), session, item.bytes));
            }
        }
        // Those of one log in a row: it is opened once.
        sessions.sort_unstable_by_key(|(log, _, session, _)| (*log, *session));
        let keys: Vec<&[u8]> = sessions.iter().map(|(_, key, ..)| &key[..]).collect();
        let facts = catalog.facts(&keys).into_par_iter().with_min_len(SHARE);
        let known: Vec<_> = facts.map(|fact| cbor::decode::<CommitHeader>(fact?.as_slice()).ok()).collect();
        let mut unknown = Vec::new();
        for ((_, key, session, bytes), known) in sessions.iter().zip(known) {
            match known.filter(|header| header.session == *session && header.stored_bytes == *bytes) {
                Some(header) => drop(commits.headers.insert(*session, header)),
                None => unknown.push((&key[..], *session)),
            }
        }
        // Only what is kept of a commit stays in memory.
        let loaded = try_map(self.storage.connections(), &unknown, |(_, session)| match self.load_commit(session) {
            Ok(loaded) => Ok(Some(Ok(loaded.header))),
            Err(error) if error.kind() == Kind::Damaged => Ok(Some(Err(error))),
            // Expired or folded between the list and the read.
            Err(error) if error.storage_kind() == Some(storage::ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        })?;
        let mut learned = Vec::new();
        for ((key, session), loaded) in unknown.into_iter().zip(loaded) {
            match loaded {
                Some(Ok(header)) => {
                    learned.push((key, cbor::encode(&header)));
                    commits.headers.insert(session, header);
                }
                Some(Err(error)) => commits.faults.push((format!("{SNAPSHOTS}{session}"), error)),
                None => {}
            }
        }
        if !learned.is_empty() {
            let learned: Vec<_> = learned.iter().map(|(key, value)| (*key, &value[..])).collect();
            catalog.put_facts(&learned);
        }
        self.drop_commits_of_removed_credentials(&mut commits);
        Ok(commits)
    }

    /// The sessions of which a commit is there, whatever is in it.
    pub(crate) fn committed_sessions(&self) -> Result<BTreeSet<SessionId>> {
        let listed = self.storage.list(SNAPSHOTS).context(|| "cannot list the snapshots")?;
        let logs = self.load_logs(Lists::Once)?;
        let names = listed.iter().map(|object| &*object.name).chain(logs.below(SNAPSHOTS).into_keys());
        Ok(names.filter_map(session_of).collect())
    }

    fn drop_commits_of_removed_credentials(&self, commits: &mut Commits) {
        let removed = || self.access.members().filter_map(|(id, member)| Some((id, member.removed.as_ref()?)));
        if removed().next().is_none() {
            return;
        }
        let by_hash: BTreeMap<_, _> =
            commits.headers.values().map(|header| (header.hash, header.previous.clone())).collect();
        for (id, accepted) in removed() {
            let mut reached = BTreeSet::new();
            let mut open: Vec<_> = accepted.iter().copied().collect();
            while let Some(hash) = open.pop() {
                if reached.insert(hash) {
                    open.extend(by_hash.get(&hash).into_iter().flatten());
                }
            }
            commits.headers.retain(|_, header| header.credential != *id || reached.contains(&header.hash));
        }
    }

    /// Whether this credential's stored chunks may be relied on without having been read: its
    /// own, and owners'. A stolen writer credential could plant wrong bytes under a chunk id.
    pub fn trusts(&self, credential: &CredentialId) -> bool {
        *credential == self.keys.credential.id() || self.is_owner(credential)
    }

    /// Whether the access list has this credential as an owner.
    pub fn is_owner(&self, credential: &CredentialId) -> bool {
        self.access.member(credential).is_some_and(|member| member.role == Role::Owner)
    }
}

fn fact_key(session: &SessionId) -> Vec<u8> {
    [b"commit ", &session.as_bytes()[..]].concat()
}
