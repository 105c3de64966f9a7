//! An index of packs that no segment names any more, made from the packs alone.
//!
//! A segment may be lost, or the commit that one stood in. What packs say of themselves is sealed and not
//! signed (SPEC §7.3), so little is believed:
//!
//! - A pack of a session that counts is described anew if its directory names the writer and envelope that
//!   the session's commit is of. Where somebody's key is, or was, a writer's, the pack is read whole before,
//!   and every id computed again.
//! - A session without announcement and commit does not count, and packs of it are not described. What is in
//!   them is read whole, and what is in no pack that counts is stored anew. Its snapshot is made again from the
//!   copy in its last pack, where nobody but owners could have put that there. A session of which nothing is
//!   left to be saved is noted as one that a collection may give up.
//! - What is open may go on, and what is void is dead: both are left alone.
//!
//! Segments that cannot be read, of sessions all of whose packs stand in some segment, are named in the commit
//! as lost, so that nobody looks for them any more. Memory does not grow with what is in packs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Context, Error, Kind, Result};
use crate::format::access::Role;
use crate::format::cbor;
use crate::format::gc::NoteClaim;
use crate::format::pack::Trailer;
use crate::format::segment::Origin;
use crate::format::session::{Original, Snapshot};
use crate::format::tree::Detail;
use crate::id::{ObjectId, PackId, SessionId};
use crate::monitor::Monitor;
use crate::repo::Repository;
use crate::repo::chunk_writer::ChunkWriter;
use crate::repo::content::Reader;
use crate::repo::import::INDEX;
use crate::repo::keys::not_an_owner;
use crate::repo::own_word::{OwnWord, Part};
use crate::repo::pack_writer::PackSettings;
use crate::repo::remake;
use crate::repo::segments::SegmentWriter;
use crate::repo::session::{Outcome, PACKS, SESSIONS, Session, pack_of};
use crate::repo::snapshots::Filter;
use crate::storage::Listed;
use crate::storage::parallel::try_map;

/// How much to read, and whether to write.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Reads every pack that is added whole, even where every key is an owner's.
    pub read_packs: bool,
    /// Only says what would be done.
    pub dry_run: bool,
}

/// A session that is known from its packs alone.
#[derive(Debug, Clone, Default)]
pub struct Saved {
    /// Packs of it that are there.
    pub packs: u64,
    /// Chunks of it that were in no pack that counts, and are stored anew.
    pub chunks: u64,
    /// The snapshot that was made again of it.
    pub snapshot: Option<SessionId>,
    /// Why that could not be, or what else keeps a collection from giving the session up.
    pub left: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Packs that no segment named and that are described now.
    pub packs_added: u64,
    /// How many of them were read whole.
    pub packs_read: u64,
    /// Chunks of packs that cannot be described, stored anew since they are in no pack that counts.
    pub chunks_saved: u64,
    /// Packs of sessions that have not committed, or are void.
    pub packs_left_alone: u64,
    /// Segments that nobody looks for any more.
    pub segments_replaced: BTreeSet<ObjectId>,
    /// Sessions without announcement and commit.
    pub lost: BTreeMap<SessionId, Saved>,
    /// Packs of which nothing is believed, and why.
    pub refused: Vec<(String, String)>,
}

impl Report {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        self.packs_added == 0 && self.chunks_saved == 0 && self.segments_replaced.is_empty() && self.lost.is_empty()
    }
}

/// What was found out about the session of a pack.
enum Standing {
    Counts,
    /// It may commit yet, or never will.
    LeftAlone,
    Lost,
}

/// Describes what no segment describes. Only adds.
pub fn run(repo: &Repository, options: &Options, monitor: &Monitor) -> Result<Report> {
    if repo.keys.role != Role::Owner {
        return Err(not_an_owner());
    }
    // Announced before anything is looked at, as by everyone.
    let session = if options.dry_run { None } else { Some(Arc::new(Session::begin(repo)?)) };
    let done = Rebuild::look(repo, options, session.as_ref())?.run(monitor);
    let (mut report, records) = done?;
    if options.dry_run || report.is_idle() {
        return Ok(report);
    }
    make_snapshots_again(repo, records, &mut report, monitor)?;
    let settled = report.lost.iter().filter(|(_, saved)| saved.left.is_none());
    repo.note(settled.map(|(session, _)| NoteClaim::Quarantined { session: *session }))?;
    Ok(report)
}

/// Snapshot records that were found in packs of lost sessions.
type Records = BTreeMap<SessionId, Snapshot>;

struct Rebuild<'r, 's> {
    repo: &'r Repository,
    reader: Reader<'r>,
    options: Options,
    session: Option<&'s Arc<Session<'r>>>,
    /// Packs that no segment of a session that counts names, and that are not dead.
    strays: Vec<(PackId, Listed)>,
    announced: BTreeSet<SessionId>,
    /// The sessions of strays as their commits name them.
    origins: BTreeMap<SessionId, Origin>,
    /// Whether only owners have, or had, what a directory is sealed with.
    only_owners: bool,
    report: Report,
    /// Sessions of packs that were refused; `None` stands for one that cannot be told.
    in_doubt: BTreeSet<Option<SessionId>>,
    records: Records,
}

impl<'r, 's> Rebuild<'r, 's> {
    fn look(repo: &'r Repository, options: &Options, session: Option<&'s Arc<Session<'r>>>) -> Result<Self> {
        let reader = Reader::without_cache(repo)?;
        let mut announced = BTreeSet::new();
        let listed = repo.storage.list(PACKS).context(|| "cannot list the packs")?;
        for object in repo.storage.list(SESSIONS).context(|| "cannot list the sessions")? {
            announced.extend(object.name.strip_prefix(SESSIONS).and_then(|id| id.parse::<SessionId>().ok()));
        }
        let alive = (0_u32..).zip(reader.catalog().packs()).filter(|(number, _)| reader.is_alive(*number));
        let named: BTreeSet<PackId> = alive.map(|(_, pack)| pack.id).collect();
        let packs = listed.into_iter().filter_map(|object| Some((pack_of(&object.name)?, object)));
        let dead = &reader.collections().dead;
        let strays = packs.filter(|(id, _)| !named.contains(id) && !dead.contains(id)).collect();
        let only_owners = repo.access.members().all(|(_, member)| member.role == Role::Owner);
        Ok(Self {
            repo,
            reader,
            options: *options,
            session,
            strays,
            announced,
            origins: BTreeMap::new(),
            only_owners,
            report: Report::default(),
            in_doubt: BTreeSet::new(),
            records: BTreeMap::new(),
        })
    }

    fn run(mut self, monitor: &Monitor) -> Result<(Report, Records)> {
        let mut segments = self.session.map(|session| SegmentWriter::new(session));
        let nothing = Arc::new(|_: &_| {});
        let settings = PackSettings::default();
        let mut chunks = self.session.map(|session| ChunkWriter::new(session.clone(), settings, nothing));
        let at_once = self.repo.storage.connections().max(1);
        let strays = std::mem::take(&mut self.strays);
        for strays in strays.chunks(at_once) {
            if monitor.stopping() {
                return Err(Error::new(Kind::Interrupted, "the index was not repaired: interrupted"));
            }
            self.session.iter().for_each(|session| session.show_alive());
            let repo = self.repo;
            let read = try_map(at_once, strays, |(id, object)| match OwnWord::of(repo, *id, object) {
                Err(error) if error.kind() == Kind::Damaged => Ok(Err(error)),
                read => read.map(Ok),
            })?;
            for ((_, object), read) in strays.iter().zip(read) {
                match read {
                    Ok(Some(pack)) => self.take(&object.name, &pack, segments.as_mut(), chunks.as_mut())?,
                    Ok(None) => {}
                    Err(error) => self.refuse_unread(object, &error)?,
                }
                monitor.done(1, object.bytes);
            }
        }
        self.find_lost_segments();
        let adds = self.report.packs_added > 0 || !self.report.segments_replaced.is_empty();
        if let (Some(session), Some(mut segments), Some(mut chunks)) = (self.session, segments, chunks) {
            if !adds && chunks.added() == 0 {
                session.withdraw();
                return Ok((self.report, self.records));
            }
            let own = chunks.finish()?;
            self.repo.storage.barrier().context(|| "cannot store what was saved")?;
            let origin = session.origin();
            own.into_iter().try_for_each(|pack| segments.add(&origin, pack))?;
            let replaces = self.report.segments_replaced.iter().copied().collect();
            if session.commit_index(segments.finish()?, replaces)? == Outcome::Flagged {
                let what = "the index was not repaired: a collection under way has asked for it before";
                return Err(Error::new(Kind::Failed, what).hint("run the same command again"));
            }
        }
        Ok((self.report, self.records))
    }

    /// What is to be done about a pack.
    fn take(
        &mut self,
        name: &str,
        pack: &OwnWord<'_>,
        segments: Option<&mut SegmentWriter<'_, '_>>,
        chunks: Option<&mut ChunkWriter<'_>>,
    ) -> Result<()> {
        let session = pack.trailer.session;
        match self.standing(&session) {
            Standing::LeftAlone => {
                self.report.packs_left_alone += 1;
                Ok(())
            }
            Standing::Counts => {
                let described = self.describe(pack, segments);
                if described.as_ref().is_err_and(|error| error.kind() == Kind::Damaged) {
                    // What is whole in it is what its id says, whoever put it there.
                    let (chunks, ..) = save(pack, chunks)?;
                    self.report.chunks_saved += chunks;
                }
                self.unless_refused(name, session, described)
            }
            Standing::Lost => {
                let (chunks, record, read) = save(pack, chunks)?;
                let saved = self.report.lost.entry(session).or_default();
                saved.packs += 1;
                saved.chunks += chunks;
                if read.is_err() {
                    saved.left = Some("a pack of it cannot be read whole".to_owned());
                }
                self.report.chunks_saved += chunks;
                self.report.packs_read += 1;
                self.records.extend(record.map(|record| (session, record)));
                self.unless_refused(name, session, read)
            }
        }
    }

    fn unless_refused(&mut self, name: &str, session: SessionId, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if error.kind() == Kind::Damaged => {
                self.report.refused.push((name.to_owned(), error.innermost()));
                self.in_doubt.insert(Some(session));
                Ok(())
            }
            done => done,
        }
    }

    /// A pack whose directory says nothing. Its trailer, in clear, may still say whose it is.
    fn refuse_unread(&mut self, object: &Listed, error: &Error) -> Result<()> {
        let bytes = crate::format::pack::TRAILER_BYTES as u64;
        let tail = match object.bytes.checked_sub(bytes) {
            None => None,
            Some(offset) => self.repo.storage.get_range(&object.name, offset, bytes).ok(),
        };
        let session = tail.and_then(|tail| Trailer::decode(&tail).ok()).map(|trailer| trailer.session);
        if session.is_some_and(|session| matches!(self.standing(&session), Standing::LeftAlone)) {
            self.report.packs_left_alone += 1;
            return Ok(());
        }
        if let Some(session) = session.filter(|session| matches!(self.standing(session), Standing::Lost)) {
            let saved = self.report.lost.entry(session).or_default();
            saved.packs += 1;
            saved.left = Some("a pack of it cannot be read".to_owned());
        }
        self.report.refused.push((object.name.clone(), error.innermost()));
        self.in_doubt.insert(session);
        Ok(())
    }

    fn standing(&self, session: &SessionId) -> Standing {
        // Of one that is quarantined everything was saved before.
        if self.reader.is_void(session) || self.reader.collections().quarantined.contains(session) {
            Standing::LeftAlone
        } else if self.reader.commits().headers.contains_key(session) {
            Standing::Counts
        } else if self.announced.contains(session) || self.has_unreadable_commit(session) {
            Standing::LeftAlone
        } else {
            Standing::Lost
        }
    }

    /// A commit that is there and cannot be read may be read again some day, or be put back.
    fn has_unreadable_commit(&self, session: &SessionId) -> bool {
        let name = format!("{}{session}", crate::repo::commits::SNAPSHOTS);
        self.reader.faults().iter().any(|(object, _)| *object == name)
    }

    /// Describes a pack of a session that counts.
    fn describe(&mut self, pack: &OwnWord<'_>, segments: Option<&mut SegmentWriter<'_, '_>>) -> Result<()> {
        let session = pack.trailer.session;
        let origin = pack.origin();
        if self.commit_of(&session)? != Some(&origin) {
            return Err(Error::new(Kind::Damaged, "its directory is not of the writer who committed its session"));
        }
        if self.options.read_packs || !self.only_owners {
            pack.read_whole(|_| Ok(()))?;
            self.report.packs_read += 1;
        }
        if let Some(segments) = segments {
            segments.add(&origin, pack.entry())?;
        }
        self.report.packs_added += 1;
        Ok(())
    }

    /// The session as its own commit names it.
    fn commit_of(&mut self, session: &SessionId) -> Result<Option<&Origin>> {
        if !self.origins.contains_key(session) {
            let loaded = self.repo.load_commit(session)?;
            let (epoch, credential) = (loaded.header.epoch, loaded.header.credential);
            let origin = Origin { session: *session, epoch, credential, envelope: loaded.commit.envelope };
            self.origins.insert(*session, origin);
        }
        Ok(self.origins.get(session))
    }

    /// The segments that cannot be read and tell nothing more than others do.
    fn find_lost_segments(&mut self) {
        let unread: BTreeSet<ObjectId> =
            (self.reader.faults().iter()).filter_map(|(object, _)| object.strip_prefix(INDEX)?.parse().ok()).collect();
        // A pack that cannot be told from any other may be one that a lost segment alone describes.
        if self.in_doubt.contains(&None) {
            return;
        }
        for header in self.reader.commits().headers.values() {
            if !self.in_doubt.contains(&Some(header.session)) {
                let lost = header.segments.iter().filter(|segment| unread.contains(segment));
                self.report.segments_replaced.extend(lost);
            }
        }
    }
}

/// Stores anew what a pack has and no pack that can be relied on does. Gives how many chunks that were, the copy
/// of a snapshot record in it, and whether all of it is whole.
fn save(pack: &OwnWord<'_>, mut chunks: Option<&mut ChunkWriter<'_>>) -> Result<(u64, Option<Snapshot>, Result<()>)> {
    let added = |chunks: &Option<&mut ChunkWriter<'_>>| chunks.as_ref().map_or(0, |chunks| chunks.added());
    let before = added(&chunks);
    let mut record = None;
    let read = pack.read_whole(|part| match (part, chunks.as_mut()) {
        (Part::Chunk(kind, id, bytes), Some(chunks)) => chunks.add(kind, id, bytes),
        (Part::Chunk(..), None) => Ok(()),
        (Part::Record(plain), _) => {
            record = Some(cbor::decode::<Snapshot>(plain).context(|| "cannot read its copy of a snapshot record")?);
            Ok(())
        }
    });
    match read {
        Err(error) if error.kind() != Kind::Damaged => Err(error),
        read => Ok((added(&chunks) - before, record, read)),
    }
}

/// Makes snapshots again whose commits are lost, from the copies of their records.
///
/// Whoever has a writer's key could put up packs of a session that never was, with a record that says anything;
/// an owner's snapshot must not come of that.
fn make_snapshots_again(repo: &Repository, records: Records, report: &mut Report, monitor: &Monitor) -> Result<()> {
    let only_owners = repo.access.members().all(|(_, member)| member.role == Role::Owner);
    let there = if records.is_empty() { Vec::new() } else { Reader::new(repo)?.snapshots(&Filter::default())?.0 };
    for (session, record) in records {
        let Some(saved) = report.lost.get_mut(&session) else { continue };
        // What a checkpoint has is a part of a tree.
        if matches!(record.root.detail, Detail::Directory { incomplete: true, .. }) || saved.left.is_some() {
            continue;
        }
        if !only_owners {
            let why = "its snapshot is not made again: a writer could have made it up";
            saved.left = Some(why.to_owned());
            continue;
        }
        let original = Some(record.original.unwrap_or(Original { session, repo: None }));
        let snapshot = Snapshot { original, ..record };
        if let Some(before) = there.iter().find(|info| *info.snapshot == snapshot) {
            saved.snapshot = Some(before.id());
            continue;
        }
        let reader = Reader::without_cache(repo)?;
        match remake::looked_for(&reader, &snapshot, remake::Trust::Own, monitor) {
            Ok(made) => saved.snapshot = Some(made),
            Err(error) if matches!(error.kind(), Kind::Damaged | Kind::Refused) => {
                saved.left = Some(format!("its snapshot is not whole: {}", error.innermost()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
