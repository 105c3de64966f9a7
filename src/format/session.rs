//! Sessions and their commits (SPEC §9): the announcement, the commit and the snapshot record.

use super::cbor::{self, Extra, MapReader, MapWriter, Record};
use super::tree::Entry;
use super::{DecodeError, Result};
use crate::id::{CollectionId, CredentialId, EpochId, ObjectId, RepoId, SessionId};
use crate::path::TreePath;
use crate::world::Time;

/// `sessions/<sid>`: a writer announces itself before it writes anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The session.
    pub session: SessionId,
    /// When, by the writer's clock, seconds since 1970.
    pub time_secs: i64,
    /// The session secret, sealed to the epoch's public key.
    pub envelope: Vec<u8>,
    /// Fields from a newer program.
    pub extra: Extra,
}

impl Record for Announcement {
    const WHAT: &'static str = "session";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.bytes(1, self.session.as_bytes());
        map.i64(2, self.time_secs);
        map.bytes(3, &self.envelope);
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        Ok(Self {
            session: SessionId::from_bytes(map.array(1)?),
            time_secs: map.i64(2)?,
            envelope: map.bytes(3)?.to_vec(),
            extra: map.extra()?,
        })
    }
}

/// What the seal of a session's secret is bound to.
pub fn envelope_info(repo: &RepoId, session: &SessionId, epoch: &EpochId, signer: &CredentialId) -> Vec<u8> {
    let mut info = b"esker v1 session\0".to_vec();
    info.extend_from_slice(repo.as_bytes());
    info.extend_from_slice(session.as_bytes());
    info.extend_from_slice(epoch.as_bytes());
    info.extend_from_slice(signer.as_bytes());
    info
}

/// A session's secret as it was in its envelope.
pub fn session_secret(plain: &[u8]) -> Result<&[u8; 32]> {
    let detail = || format!("a secret of {} bytes where 32 belong", plain.len());
    plain.try_into().map_err(|_| DecodeError::malformed("session envelope", detail()))
}

/// Why a session was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommitKind {
    /// A finished snapshot.
    Snapshot,
    /// What an unfinished backup has so far.
    Checkpoint,
    /// A repack or compaction; no snapshot.
    Maintenance,
}

const COMMIT_KINDS: [CommitKind; 3] = [CommitKind::Snapshot, CommitKind::Checkpoint, CommitKind::Maintenance];

/// `snapshots/<sid>`: the session counts from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The session.
    pub session: SessionId,
    /// Why.
    pub kind: CommitKind,
    /// When, by the writer's clock, seconds since 1970.
    pub time_secs: i64,
    /// One more than the highest sequence of this credential's commits that the writer knew.
    pub sequence: u64,
    /// BLAKE3 of this credential's newest commits that the writer knew, in ascending order.
    pub previous: Vec<ObjectId>,
    /// The session secret, sealed to the epoch's public key.
    pub envelope: Vec<u8>,
    /// Index segments of this session, in ascending order.
    pub segments: Vec<ObjectId>,
    /// A small session's index segment itself; empty when there is none.
    pub inline_segment: Vec<u8>,
    /// Sessions of this backup that this commit takes the place of, in ascending order.
    pub supersedes: Vec<SessionId>,
    /// The [`Snapshot`], sealed under the session's key; empty in maintenance.
    pub snapshot: Vec<u8>,
    /// Index segments that are lost and that this commit's own take the place of, in ascending order.
    pub replaces: Vec<ObjectId>,
    /// Fields from a newer program.
    pub extra: Extra,
}

impl Record for Commit {
    const WHAT: &'static str = "commit";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.bytes(1, self.session.as_bytes());
        let kind = COMMIT_KINDS.iter().position(|kind| *kind == self.kind).expect("every kind is listed");
        map.u64(2, kind as u64 + 1);
        map.i64(3, self.time_secs);
        map.u64(4, self.sequence);
        map.list(5, &self.previous, |out, hash| cbor::push_bytes(out, hash.as_bytes()));
        map.bytes(6, &self.envelope);
        map.list(7, &self.segments, |out, hash| cbor::push_bytes(out, hash.as_bytes()));
        map.bytes(8, &self.inline_segment);
        map.list(9, &self.supersedes, |out, session| cbor::push_bytes(out, session.as_bytes()));
        map.bytes(10, &self.snapshot);
        map.list(11, &self.replaces, |out, hash| cbor::push_bytes(out, hash.as_bytes()));
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        const WHAT: &str = Commit::WHAT;
        let hashes = |decoder: &mut minicbor::Decoder<'_>| Ok(ObjectId::from_bytes(cbor::read_array(WHAT, decoder)?));
        let session = SessionId::from_bytes(map.array(1)?);
        let number = map.u64(2)?;
        let kind = usize::try_from(number).ok().and_then(|number| COMMIT_KINDS.get(number.checked_sub(1)?));
        let commit = Self {
            session,
            kind: *kind.ok_or_else(|| DecodeError::unsupported(WHAT, format!("kind {number}")))?,
            time_secs: map.i64(3)?,
            sequence: map.u64(4)?,
            previous: map.ascending(5, hashes)?,
            envelope: map.bytes(6)?.to_vec(),
            segments: map.ascending(7, hashes)?,
            inline_segment: map.bytes(8)?.to_vec(),
            supersedes: map.ascending(9, |decoder| Ok(SessionId::from_bytes(cbor::read_array(WHAT, decoder)?)))?,
            snapshot: map.bytes(10)?.to_vec(),
            replaces: map.ascending(11, hashes)?,
            extra: map.extra()?,
        };
        if commit.kind == CommitKind::Maintenance && !commit.snapshot.is_empty() {
            return Err(DecodeError::malformed(WHAT, "maintenance with a snapshot"));
        }
        Ok(commit)
    }
}

/// What a backup did, kept in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Files not in the parent.
    pub files_new: u64,
    /// Files whose content or attributes differ from the parent's.
    pub files_changed: u64,
    /// Files as in the parent.
    pub files_unmodified: u64,
    /// Files that could not be read, or kept changing.
    pub files_unreadable: u64,
    /// Directories not in the parent.
    pub dirs_new: u64,
    /// Directories that differ from the parent's.
    pub dirs_changed: u64,
    /// Directories as in the parent.
    pub dirs_unmodified: u64,
    /// Plain bytes of new chunks and nodes.
    pub data_added: u64,
    /// Stored bytes they became.
    pub data_added_packed: u64,
    /// Files in the snapshot.
    pub total_files_processed: u64,
    /// Bytes of the files in the snapshot.
    pub total_bytes_processed: u64,
    /// How long the backup took, in milliseconds.
    pub duration_ms: u64,
}

impl Summary {
    fn fields(&self) -> [u64; 12] {
        [
            self.files_new,
            self.files_changed,
            self.files_unmodified,
            self.files_unreadable,
            self.dirs_new,
            self.dirs_changed,
            self.dirs_unmodified,
            self.data_added,
            self.data_added_packed,
            self.total_files_processed,
            self.total_bytes_processed,
            self.duration_ms,
        ]
    }

    fn from_fields(numbers: [u64; 12]) -> Self {
        Self {
            files_new: numbers[0],
            files_changed: numbers[1],
            files_unmodified: numbers[2],
            files_unreadable: numbers[3],
            dirs_new: numbers[4],
            dirs_changed: numbers[5],
            dirs_unmodified: numbers[6],
            data_added: numbers[7],
            data_added_packed: numbers[8],
            total_files_processed: numbers[9],
            total_bytes_processed: numbers[10],
            duration_ms: numbers[11],
        }
    }
}

/// The snapshot itself: what was backed up, where, by whom, and the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When the backup began, by the writer's clock.
    pub time: Time,
    /// Whose files.
    pub hostname: String,
    /// Who ran the backup.
    pub username: String,
    /// Their ids.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
    /// The roots, absolute, in ascending order.
    pub paths: Vec<Vec<u8>>,
    /// Labels, in ascending order.
    pub tags: Vec<String>,
    /// The snapshot this one was compared with.
    pub parent: Option<SessionId>,
    /// The entry of `/`, without a name.
    pub root: Entry,
    /// What the backup did.
    pub summary: Summary,
    /// The program that made it.
    pub program: String,
    /// The snapshot this one was made of, and by that is a version of: a copy, or with other tags.
    pub original: Option<Original>,
    /// Fields from a newer program.
    pub extra: Extra,
}

/// The snapshot that one was first made as, before it was copied or rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Original {
    /// Its session.
    pub session: SessionId,
    /// Its repository, if it was made in another.
    pub repo: Option<RepoId>,
}

impl Record for Snapshot {
    const WHAT: &'static str = "snapshot";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.i64(1, self.time.secs);
        map.u64_unless_zero(2, u64::from(self.time.nanos));
        map.text(3, &self.hostname);
        map.text(4, &self.username);
        map.u64_unless_zero(5, u64::from(self.uid));
        map.u64_unless_zero(6, u64::from(self.gid));
        map.list(7, &self.paths, |out, path| cbor::push_bytes(out, path));
        map.list(8, &self.tags, |out, tag| cbor::push_text(out, tag));
        if let Some(parent) = &self.parent {
            map.bytes(9, parent.as_bytes());
        }
        map.record(10, &self.root);
        map.list(11, &self.summary.fields(), |out, number| cbor::push_u64(out, *number));
        map.text(12, &self.program);
        if let Some(original) = &self.original {
            map.bytes(13, original.session.as_bytes());
            if let Some(repo) = &original.repo {
                map.bytes(14, repo.as_bytes());
            }
        }
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        const WHAT: &str = Snapshot::WHAT;
        let malformed = |detail: &str| DecodeError::malformed(WHAT, detail);
        let secs = map.i64(1)?;
        let nanos = u32::try_from(map.u64_or_zero(2)?).ok().filter(|nanos| *nanos < 1_000_000_000);
        let hostname = map.text(3)?.to_owned();
        let username = map.text(4)?.to_owned();
        let uid = u32::try_from(map.u64_or_zero(5)?).map_err(|_| malformed("an owner that is too large"))?;
        let gid = u32::try_from(map.u64_or_zero(6)?).map_err(|_| malformed("a group that is too large"))?;
        let paths = map.ascending(7, |decoder| {
            let path = cbor::read_bytes(WHAT, decoder)?;
            TreePath::from_bytes(path).map_err(|error| malformed(&error.to_string()))?;
            Ok(path.to_vec())
        })?;
        let tags = map.ascending(8, |decoder| Ok(cbor::read_text(WHAT, decoder)?.to_owned()))?;
        let parent = map.optional(9, |decoder| cbor::read_array(WHAT, decoder))?.map(SessionId::from_bytes);
        let root: Entry = map.record(10)?;
        if root.name.is_some() || root.kind() != super::tree::EntryKind::Directory {
            return Err(malformed("the root is not a directory without a name"));
        }
        let numbers = map.list(11, |decoder| cbor::read_u64(WHAT, decoder))?;
        let numbers: [u64; 12] = numbers.try_into().map_err(|_| malformed("a summary that is not 12 numbers"))?;
        let summary = Summary::from_fields(numbers);
        let time = Time { secs, nanos: nanos.ok_or_else(|| malformed("a second of more than 10^9 nanoseconds"))? };
        let program = map.text(12)?.to_owned();
        let session = map.optional(13, |decoder| cbor::read_array(WHAT, decoder))?.map(SessionId::from_bytes);
        let repo = map.optional(14, |decoder| cbor::read_array(WHAT, decoder))?.map(RepoId::from_bytes);
        let original = match (session, repo) {
            (None, Some(_)) => return Err(malformed("the repository of an original, and no original")),
            (session, repo) => session.map(|session| Original { session, repo }),
        };
        let extra = map.extra()?;
        Ok(Self { time, hostname, username, uid, gid, paths, tags, parent, root, summary, program, original, extra })
    }
}

/// `flags/<sid>/<cid>`: a collector asks an open session whether it has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The session asked.
    pub session: SessionId,
    /// The collection that asks.
    pub collection: CollectionId,
    /// When, seconds since 1970.
    pub time_secs: i64,
    /// Fields from a newer program.
    pub extra: Extra,
}

impl Record for Flag {
    const WHAT: &'static str = "flag";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.bytes(1, self.session.as_bytes());
        map.bytes(2, self.collection.as_bytes());
        map.i64(3, self.time_secs);
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        Ok(Self {
            session: SessionId::from_bytes(map.array(1)?),
            collection: CollectionId::from_bytes(map.array(2)?),
            time_secs: map.i64(3)?,
            extra: map.extra()?,
        })
    }
}
