//! One writer's passage from announcement to commit: W1 to W8 (SPEC §9).
//!
//! Two parties that could collide each *announce, then look*. A session announces itself before
//! it reads what collections have condemned, so a collector that condemns later sees it; it
//! commits before it looks for flags, so a collector that flagged earlier is seen. Only when
//! the last look finds nothing has a snapshot been made.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::Repository;
use super::collections::{Collections, FLAGS};
use super::commits::{Commits, SNAPSHOTS};
use super::import::INDEX;
use super::segments::{Published, SegmentWriter};
use super::snapshots::SnapshotInfo;
use super::standing::{Standing, Standings};
use crate::crypto::key::SecretKey;
use crate::crypto::seal;
use crate::error::{Context, Error, Kind, Result};
use crate::format::cbor::{self, Extra};
use crate::format::record::RecordKind;
use crate::format::segment::{Origin, PackEntry};
use crate::format::session::{Announcement, Commit, CommitKind, Snapshot};
use crate::id::{ChunkId, CredentialId, ObjectId, PackId, SessionId};
use crate::index::Catalog;
use crate::storage::parallel::try_map;
use crate::storage::{ErrorKind, Listed, WriteMode};

/// Folder of announcements.
pub const SESSIONS: &str = "sessions/";
/// Folder of signs of life.
pub const ALIVE: &str = "alive/";
/// Folder of packs.
pub const PACKS: &str = "packs/";

/// How often a session shows that it is alive.
const ALIVE_SECS: i64 = 60;

/// The full name of a pack.
pub fn pack_name(id: &PackId) -> String {
    let hash = id.to_string();
    format!("{PACKS}{}/{hash}", &hash[..2])
}

/// The pack a name is of, if it is just the name of a pack.
pub fn pack_of(name: &str) -> Option<PackId> {
    let id = name.rsplit('/').next()?.parse().ok()?;
    (pack_name(&id) == name).then_some(id)
}

/// Whether a commit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was looked for and nobody asked: the snapshot is made.
    Made,
    /// A collector had asked before: it may be declared void, so nothing may rest on it.
    Flagged,
}

/// An announced session.
pub struct Session<'r> {
    repo: &'r Repository,
    id: SessionId,
    secret: SecretKey,
    envelope: Vec<u8>,
    catalog: Catalog,
    commits: Commits,
    /// By pack number: whether it is there, of a session that counts, and no collection is about to take it.
    safe: Vec<bool>,
    /// By pack number: whether its chunks may be reused. It is safe, and who stored it is trusted.
    usable: Vec<bool>,
    collections: Collections,
    /// Sessions that a collection has asked and not answered for yet.
    asked: HashSet<SessionId>,
    faults: Vec<(String, Error)>,
    alive: Mutex<Alive>,
}

/// Packs whose chunks a session may have named, and the chunks known to be damaged then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reliance {
    /// In ascending order, each once.
    pub packs: Vec<PackId>,
    /// Which chunk, and in which pack.
    pub damaged: BTreeSet<(ChunkId, PackId)>,
}

/// When the session last showed that it is alive, and how often.
struct Alive {
    last_secs: i64,
    beats: u64,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.id.short())
    }
}

impl<'r> Session<'r> {
    /// Announces a session, then looks at what may be relied on (W1 to W3).
    pub fn begin(repo: &'r Repository) -> Result<Self> {
        repo.refuse_if_behind()?;
        let id = SessionId::from_bytes(repo.world.random());
        let secret = SecretKey::random(&repo.world);
        let envelope = repo.keys.seal_session_secret(&repo.world, &id, &secret)?;
        // W1: announce.
        let announcement = Announcement {
            session: id,
            time_secs: repo.world.now().secs,
            envelope: envelope.clone(),
            extra: Extra::default(),
        };
        repo.put_named_record(RecordKind::Session, &format!("{SESSIONS}{id}"), &cbor::encode(&announcement))?;
        repo.storage.barrier().context(|| "cannot announce the session")?;
        Self::look(repo, id, secret, envelope)
    }

    /// Goes on with a session that this machine announced and that was stopped before it could
    /// commit. To everyone else it has only been slow: W8 tells whether it may still commit.
    pub fn resume(repo: &'r Repository, id: SessionId, secret: SecretKey, envelope: Vec<u8>) -> Result<Self> {
        repo.refuse_if_behind()?;
        Self::look(repo, id, secret, envelope)
    }

    fn look(repo: &'r Repository, id: SessionId, secret: SecretKey, envelope: Vec<u8>) -> Result<Self> {
        let now = repo.world.now().secs;
        // W2: only then read what collections have said.
        let mut collections = repo.load_collections()?;
        // W3: commits, then flags.
        let mut catalog = repo.open_catalog();
        let mut commits = repo.load_commits(&mut catalog)?;
        let flags = repo.load_flags(FLAGS)?;
        // … and then the sweeps once more: a flag is deleted only after its collection's sweep is
        // there, so whoever missed the flag sees the sweep.
        let later = repo.load_collections()?;
        repo.refuse_with_old_keys()?;
        // A session that was asked is usable only once that is answered, and was before the flags were listed:
        // of what has just been said a higher collection may say something else.
        let asked: HashSet<SessionId> = collections
            .questions(&later, &flags)
            .map(|(session, _)| session)
            .chain(collections.newly_answered(&later))
            .copied()
            .collect();
        collections.add(later);
        commits.leave_out(&collections.void);
        repo.pin_commits(&commits);
        let mut faults = std::mem::take(&mut commits.faults);
        faults.append(&mut collections.faults);
        faults.extend(repo.import_segments(&mut catalog, commits.headers.values())?);
        faults.extend(repo.cache_fault(&catalog));
        let listed = try_map(repo.storage.connections(), &[PACKS, INDEX], |prefix| {
            repo.storage.list(prefix).context(|| format!("cannot list `{prefix}`"))
        })?;
        let stored: HashMap<PackId, u64> =
            listed[0].iter().filter_map(|object| Some((pack_of(&object.name)?, object.bytes))).collect();
        let unnamed =
            without_a_segment(&commits, &repo.replaced_segments(commits.headers.values()), &listed[1], &mut faults);
        let origins: Vec<_> = catalog
            .origins()
            .iter()
            .map(|origin| {
                let session = &origin.session;
                let counts =
                    commits.headers.contains_key(session) && !asked.contains(session) && !unnamed.contains(session);
                (counts, repo.trusts(&origin.credential))
            })
            .collect();
        let looks = catalog.packs().iter().map(|pack| {
            let (counts, trusted) = origins.get(pack.origin as usize).copied().unwrap_or_default();
            let safe =
                counts && collections.spares(&pack.id) && stored.get(&pack.id) == Some(&u64::from(pack.stored_bytes));
            // An owner who has read all of a pack stands for what is said of it here, whoever wrote it.
            (safe, safe && (trusted || collections.attested.contains_key(&pack.description)))
        });
        let (safe, usable) = looks.unzip();
        Ok(Self {
            repo,
            id,
            secret,
            envelope,
            catalog,
            commits,
            safe,
            usable,
            collections,
            asked,
            faults,
            alive: Mutex::new(Alive { last_secs: now, beats: 0 }),
        })
    }

    /// What this session relies on, with the packs it has committed.
    pub fn reliance(&self, committed: &[PackId]) -> Reliance {
        let mut packs: Vec<PackId> = self.usable_packs().chain(committed).copied().collect();
        packs.sort_unstable();
        packs.dedup();
        Reliance { packs, damaged: self.collections.damaged.clone() }
    }

    /// Whether whatever an earlier session relied on may be relied on in this one too, so that no
    /// chunk it named need be looked for again (W4, W6).
    ///
    /// Compares packs, which are few, instead of chunks, which are many: no pack has been taken
    /// back and no more chunks are damaged.
    pub fn upholds(&self, earlier: &Reliance) -> bool {
        let usable: HashSet<&PackId> = self.usable_packs().collect();
        earlier.packs.iter().all(|pack| usable.contains(pack)) && self.collections.damaged.is_subset(&earlier.damaged)
    }

    fn usable_packs(&self) -> impl Iterator<Item = &PackId> {
        self.catalog.packs().iter().zip(&self.usable).filter(|(_, usable)| **usable).map(|(pack, _)| &pack.id)
    }

    /// The session's id, which is its snapshot's id once committed.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The repository.
    pub fn repo(&self) -> &'r Repository {
        self.repo
    }

    /// The key everything of this session is sealed under.
    pub fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// That key, sealed to the epoch's public key.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// Stored objects that were unreadable while beginning; they count as absent.
    pub fn faults(&self) -> &[(String, Error)] {
        &self.faults
    }

    /// Whether a session's commit counted when this one looked.
    pub fn counts(&self, session: &SessionId) -> bool {
        self.kind_of(session).is_some()
    }

    /// Why a session was committed, if its commit counted when this one looked.
    pub fn kind_of(&self, session: &SessionId) -> Option<CommitKind> {
        self.commits.headers.get(session).map(|header| header.kind)
    }

    /// Whether a chunk may be reused: it lies in a usable session's pack that is there, whole,
    /// neither condemned nor dead, and not known to be damaged (W4).
    pub fn may_reuse(&self, id: &ChunkId) -> bool {
        self.lies_in_one_of(&self.usable, id)
    }

    /// Whether a chunk of an earlier snapshot may be named in one that is made of it: it lies where it could be
    /// reused, or somebody stored it whom only the earlier snapshot has to trust (W4).
    pub fn may_name_again(&self, id: &ChunkId) -> bool {
        self.lies_in_one_of(&self.safe, id)
    }

    fn lies_in_one_of(&self, packs: &[bool], id: &ChunkId) -> bool {
        self.catalog.lookup(id).any(|found| {
            let pack = found.row.pack as usize;
            packs.get(pack).is_some_and(|may| *may)
                && (self.collections.damaged.is_empty()
                    || !self.collections.damaged.contains(&(*id, self.catalog.packs()[pack].id)))
        })
    }

    /// Makes sure that a snapshot made of this one may name whatever that names, without looking for each
    /// chunk (W4): it is live, and no collection is about to call its session void.
    ///
    /// A collection that condemned before this session looked kept what a live snapshot names; one that
    /// condemns later waits for this session.
    pub fn may_name_all_of(&self, info: &SnapshotInfo) -> Result<()> {
        let refuse = |why: &str| {
            let what = format!("snapshot `{}` stays as it is: {why}", info.id().short());
            Err(Error::new(Kind::Refused, what))
        };
        let header = self.commits.headers.get(&info.id()).filter(|header| header.hash == info.header.hash);
        let standings = Standings::new(self.repo, &self.commits, &self.collections);
        match header.map(|header| standings.of(header)) {
            Some(Standing::Live) if self.asked.contains(&info.id()) => {
                refuse("a collection under way has asked its session and not answered for it yet")
            }
            Some(Standing::Live) => Ok(()),
            Some(Standing::Superseded) => refuse("another has taken its place meanwhile"),
            _ => refuse("it was forgotten meanwhile"),
        }
    }

    /// Shows a sign of life if the last one is a minute old. A hint for collectors, nothing
    /// more: a failure to leave it is ignored.
    pub fn show_alive(&self) {
        let now = self.repo.world.now().secs;
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(alive.last_secs) >= ALIVE_SECS {
            alive.last_secs = now;
            alive.beats += 1;
            let mut bytes = alive.beats.to_le_bytes().to_vec();
            let digest = blake3::hash(&bytes);
            bytes.extend_from_slice(digest.as_bytes());
            let name = format!("{ALIVE}{}", self.id);
            let _ = self.repo.storage.put(&name, &bytes, WriteMode::Replace);
        }
    }

    /// Takes the announcement back, for a session that ends without a commit.
    ///
    /// Only for one that has put no pack. Such a session names nothing and nobody relies on it, so
    /// whether a collector ever saw the announcement is all one: one that did finds no commit when
    /// it asks, and calls the session void. That is also why a failure is ignored (a writer's
    /// storage may not let it delete): a collector clears the announcement away some day. With a
    /// pack it would be otherwise: its trailer names the session, and a session that is known but
    /// neither announced nor committed looks like one whose commit was lost (G3).
    pub fn withdraw(&self) {
        let storage = &self.repo.storage;
        // The sign of life first: alone it would be one of nobody.
        if self.alive.lock().unwrap_or_else(PoisonError::into_inner).beats > 0 {
            let _ = storage.delete(&format!("{ALIVE}{}", self.id));
        }
        let _ = storage.delete(&format!("{SESSIONS}{}", self.id));
    }

    /// Makes the session's packs known and commits (the end of W5, W7 and W8).
    ///
    /// The packs are put already. Durable when it returns; only [`Outcome::Made`] may be
    /// reported as made.
    pub fn commit(
        &self,
        kind: CommitKind,
        packs: Vec<PackEntry>,
        snapshot: Option<&Snapshot>,
        mut supersedes: Vec<SessionId>,
    ) -> Result<Outcome> {
        supersedes.sort();
        supersedes.dedup();
        // W5: packs are durable before any segment names them …
        self.repo.storage.barrier().context(|| self.not_committed())?;
        let origin = self.origin();
        let mut segments = SegmentWriter::new(self);
        packs.into_iter().try_for_each(|pack| segments.add(&origin, pack))?;
        self.commit_published(kind, segments.finish()?, snapshot, supersedes, Vec::new())
    }

    /// Commits an index of packs that are there: of this session, or of any whatever (SPEC §8). What
    /// stands in segments that are lost is in it: `replaces` names those, so that nobody misses them.
    pub fn commit_index(&self, published: Published, mut replaces: Vec<ObjectId>) -> Result<Outcome> {
        replaces.sort();
        replaces.dedup();
        self.commit_published(CommitKind::Maintenance, published, None, Vec::new(), replaces)
    }

    fn not_committed(&self) -> String {
        format!("cannot commit session `{}`", self.id.short())
    }

    /// The session as its own segments name it.
    pub fn origin(&self) -> Origin {
        Origin {
            session: self.id,
            epoch: self.repo.keys.current_epoch().id,
            credential: self.repo.keys.credential.id(),
            envelope: self.envelope.clone(),
        }
    }

    fn commit_published(
        &self,
        kind: CommitKind,
        published: Published,
        snapshot: Option<&Snapshot>,
        supersedes: Vec<SessionId>,
        replaces: Vec<ObjectId>,
    ) -> Result<Outcome> {
        let repo = self.repo;
        let name = format!("{SNAPSHOTS}{}", self.id);
        let what = || self.not_committed();
        let Published { segments, inline_segment } = published;
        if !segments.is_empty() {
            // … and segments before the commit does.
            repo.storage.barrier().context(what)?;
        }
        let (sequence, previous) = self.commits.newest_of(&repo.keys.credential.id());
        let sealed = snapshot.map(|snapshot| self.seal_snapshot(snapshot)).unwrap_or_default();
        let commit = Commit {
            session: self.id,
            kind,
            time_secs: repo.world.now().secs,
            sequence,
            previous: previous.clone(),
            envelope: self.envelope.clone(),
            segments,
            inline_segment,
            supersedes,
            snapshot: sealed,
            replaces,
            extra: Extra::default(),
        };
        // W7: commit.
        let hash = match repo.put_named_record(RecordKind::Commit, &name, &cbor::encode(&commit)) {
            // Somebody else has committed this session: a clone of this machine, or worse. Like a flag.
            Err(error) if error.storage_kind() == Some(ErrorKind::Exists) => return Ok(Outcome::Flagged),
            put => put?,
        };
        repo.storage.barrier().context(what)?;
        // W8: only then look for flags, then at all sweeps.
        let flagged = repo.load_flags(&format!("{FLAGS}{}/", self.id))?.contains_key(&self.id);
        let answered = repo.load_collections()?.answers.contains_key(&self.id);
        repo.refuse_with_old_keys().context(what)?;
        // A commit of this session that was folded before this one was put is a clone's: like a flag.
        let cloned = repo.known_logs().find(&name).is_some_and(|(item, _)| item.hash != hash);
        if flagged || answered || cloned {
            return Ok(Outcome::Flagged);
        }
        repo.pin_commit(self.id, hash, &previous);
        Ok(Outcome::Made)
    }

    fn seal_snapshot(&self, snapshot: &Snapshot) -> Vec<u8> {
        let aad = snapshot_aad(self.repo, &self.id);
        seal::seal_box(&self.repo.world, &self.secret, "snapshot", &aad, &cbor::encode(snapshot))
    }
}

/// The sessions of which an index segment is not there any more. The cache may know what was in it, and
/// nobody else would.
fn without_a_segment(
    commits: &Commits,
    replaced: &BTreeSet<ObjectId>,
    listed: &[Listed],
    faults: &mut Vec<(String, Error)>,
) -> HashSet<SessionId> {
    let there: HashSet<&str> = listed.iter().map(|object| &*object.name).collect();
    let mut sessions = HashSet::new();
    for header in commits.headers.values() {
        let wanted = header.segments.iter().filter(|segment| !replaced.contains(segment));
        for name in wanted.map(|segment| format!("{INDEX}{segment}")) {
            if !there.contains(&*name) {
                sessions.insert(header.session);
                if !faults.iter().any(|(known, _)| *known == name) {
                    faults.push((name, Error::new(Kind::Damaged, "it is missing")));
                }
            }
        }
    }
    sessions
}

impl Repository {
    /// What a session said when it began, and who says so. `None` when it has been cleared away, or does not
    /// verify.
    pub fn announcement(&self, session: &SessionId) -> Result<Option<(Announcement, CredentialId)>> {
        let name = format!("{SESSIONS}{session}");
        let stored = match self.storage.get(&name) {
            Ok(stored) => stored,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(|| format!("cannot read `{name}`")),
        };
        let opened = self.open_record(RecordKind::Session, &name, &stored).ok();
        Ok(opened.and_then(|opened| Some((cbor::decode(&opened.body).ok()?, opened.credential))))
    }

    /// The sign of life a session left last; it is another one each time. `None` if it left none.
    pub fn sign_of_life(&self, session: &SessionId) -> Result<Option<Vec<u8>>> {
        let name = format!("{ALIVE}{session}");
        match self.storage.get(&name) {
            Ok(sign) => Ok(Some(sign)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| format!("cannot read `{name}`")),
        }
    }
}

/// When a session at least was alive that said it began at a time and left this sign.
pub fn alive_at_secs(announced_secs: i64, sign: &[u8]) -> Option<i64> {
    let beats = u64::from_le_bytes(*sign.first_chunk()?);
    let signed = *blake3::hash(sign.first_chunk::<8>()?).as_bytes() == *sign.get(8..)?;
    let secs = i64::try_from(beats).ok()?.checked_mul(ALIVE_SECS)?;
    signed.then_some(announced_secs.saturating_add(secs))
}

/// What a sealed snapshot record is bound to.
pub(crate) fn snapshot_aad(repo: &Repository, session: &SessionId) -> Vec<u8> {
    [b"esker v1 snapshot\0", &repo.config.repo.as_bytes()[..], session.as_bytes()].concat()
}
