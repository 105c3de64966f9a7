//! What garbage collections have said: packs condemned or dead, sessions void, chunks damaged.
//!
//! [`crate::prune`] writes them; every session reads them (W2), because a chunk in a condemned pack
//! must not be relied on by whoever announced after the condemnation.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Repository;
use super::drills::{DRILL, Drill, Drilled};
use super::logs::{LOG, Logs};
use crate::error::{Context, Error, Kind, Result};
use crate::format::access::Role;
use crate::format::cbor::{self, Record};
use crate::format::gc::{Condemned, Done, Note, NoteClaim, Swept};
use crate::format::record::RecordKind;
use crate::id::{ChunkId, CollectionId, CredentialId, DescriptionId, ObjectId, PackId, SessionId};
use crate::storage::parallel::try_map;
use crate::storage::{self, Listed};

/// Folder of collections' records.
pub const GC: &str = "gc/";
/// Folder of notes.
pub const NOTES: &str = "notes/";
/// Folder of flags.
pub const FLAGS: &str = "flags/";

/// How often a list is repeated until it stands still before that is an error.
const LISTS_MAX: usize = 100;

/// What is known of all collections and notes at one moment.
#[derive(Debug, Default)]
pub struct Collections {
    /// Packs that an unfinished collection may delete.
    pub condemned: BTreeSet<PackId>,
    /// Packs that are or will be deleted, for ever.
    pub dead: BTreeSet<PackId>,
    /// Sessions that do not count, by their [`Self::answers`].
    pub void: BTreeSet<SessionId>,
    /// What sweeps say of sessions that were asked: of each what the highest collection says.
    pub answers: BTreeMap<SessionId, Answer>,
    /// Chunks that were found damaged, and in which pack.
    pub damaged: BTreeSet<(ChunkId, PackId)>,
    /// The notes that say so, by pack, but for those an owner has taken back.
    pub damage_notes: BTreeMap<PackId, BTreeSet<ObjectId>>,
    /// Snapshots that owners have forgotten, with the hash of their commit.
    pub forgotten: BTreeMap<(SessionId, ObjectId), Forgotten>,
    /// Snapshots an owner has said cannot be whole; what they still have stays live.
    pub quarantined: BTreeSet<SessionId>,
    /// What each unfinished collection has condemned.
    pub unfinished: BTreeMap<CollectionId, BTreeSet<PackId>>,
    /// The sweep of each collection that has published one, by hash.
    pub sweeps: BTreeMap<CollectionId, ObjectId>,
    /// Notes of forgetting that a finished collection has seen: they take effect in later ones.
    pub notes_seen: BTreeSet<ObjectId>,
    /// What the index says of packs that an owner has read and found to be so, every id computed again; and
    /// when that was last, seconds since 1970.
    pub attested: HashMap<DescriptionId, i64>,
    /// Collections that are finished.
    pub finished: BTreeSet<CollectionId>,
    /// Every note that verifies.
    pub notes: BTreeSet<ObjectId>,
    /// Notes that others have seen and that are not there, whether they verify or not.
    pub lost_notes: BTreeSet<ObjectId>,
    /// Those that no other has seen: what a new one names.
    pub note_heads: BTreeSet<ObjectId>,
    /// What each credential has said that must go on counting when it is removed: all but what it
    /// vouched for.
    pub signed: BTreeMap<CredentialId, BTreeSet<ObjectId>>,
    /// The last drill of each snapshot that an owner tells of.
    pub drills: BTreeMap<SessionId, Drilled>,
    /// Objects that are no such record, with the reason. They count as absent.
    pub faults: Vec<(String, Error)>,
}

/// What a collection says of a session that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// The collection.
    pub by: CollectionId,
    /// Whether the session counts; else it is void.
    pub counts: bool,
}

/// The generation in a collection's id, which says before all else how high it is.
pub fn generation(collection: &CollectionId) -> u16 {
    let [high, low, ..] = *collection.as_bytes();
    u16::from(high) << 8 | u16::from(low)
}

/// What owners have said of a snapshot they forgot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Each note, and the end of the time in which it can be undone.
    pub notes: BTreeMap<ObjectId, i64>,
}

impl Forgotten {
    /// The end of the time in which it can be undone: the first note's that ends.
    pub fn until_secs(&self) -> i64 {
        self.notes.values().copied().min().unwrap_or(i64::MAX)
    }
}

impl Collections {
    /// Adds what a later look has found. What was condemned at either look is not relied on.
    pub fn add(&mut self, later: Self) {
        self.condemned.extend(later.condemned);
        self.dead.extend(later.dead);
        later.answers.into_iter().for_each(|(session, answer)| self.answer(session, answer));
        self.damaged.extend(later.damaged);
        self.damage_notes.extend(later.damage_notes);
        for (snapshot, forgotten) in later.forgotten {
            self.forgotten.entry(snapshot).or_default().notes.extend(forgotten.notes);
        }
        self.attested.extend(later.attested);
        self.quarantined.extend(later.quarantined);
        self.unfinished = later.unfinished;
        self.sweeps.extend(later.sweeps);
        self.notes_seen.extend(later.notes_seen);
        self.finished.extend(later.finished);
        self.notes.extend(later.notes);
        self.note_heads = later.note_heads;
        self.lost_notes = later.lost_notes;
        for (signer, hashes) in later.signed {
            self.signed.entry(signer).or_default().extend(hashes);
        }
        later.drills.into_values().for_each(|drilled| self.drilled(drilled));
        for (object, error) in later.faults {
            if !self.faults.iter().any(|(known, _)| *known == object) {
                self.faults.push((object, error));
            }
        }
    }

    /// Takes what a sweep says of a session, unless a higher one says something.
    fn answer(&mut self, session: SessionId, answer: Answer) {
        let known = self.answers.entry(session).or_insert(answer);
        *known = answer.max(*known);
        match known.counts {
            true => self.void.remove(&session),
            false => self.void.insert(session),
        };
    }

    /// Whether a collection's flag on a session still asks: it has not swept, and no higher one has said what
    /// becomes of the session.
    pub fn asks(&self, collection: &CollectionId, session: &SessionId) -> bool {
        !self.sweeps.contains_key(collection) && self.answers.get(session).is_none_or(|answer| answer.by < *collection)
    }

    /// Those of `flags` that still ask, where they were listed after this look and before a later one. What only
    /// the later one has answered asks still, unless by the collection's own sweep: a higher collection may have
    /// been told something else meanwhile.
    pub fn questions<'f>(
        &self,
        later: &Self,
        flags: &'f BTreeMap<SessionId, Vec<CollectionId>>,
    ) -> impl Iterator<Item = (&'f SessionId, &'f CollectionId)> {
        let each = flags.iter().flat_map(|(session, by)| by.iter().map(move |collection| (session, collection)));
        each.filter(|(session, by)| self.asks(by, session) && !later.sweeps.contains_key(by))
    }

    /// Sessions of which a later look finds something said that this one did not.
    pub fn newly_answered<'c>(&self, later: &'c Self) -> impl Iterator<Item = &'c SessionId> {
        later
            .answers
            .iter()
            .filter(|(session, answer)| self.answers.get(session) != Some(answer))
            .map(|(session, _)| session)
    }

    /// Takes a drill, unless a later one of the snapshot is known.
    fn drilled(&mut self, drilled: Drilled) {
        let known = self.drills.get(&drilled.drill.snapshot);
        if known.is_none_or(|known| known.time_secs <= drilled.time_secs) {
            self.drills.insert(drilled.drill.snapshot, drilled);
        }
    }

    /// Whether chunks of this pack may be relied on.
    pub fn spares(&self, pack: &PackId) -> bool {
        !self.condemned.contains(pack) && !self.dead.contains(pack)
    }
}

/// How a list is made that may come in several pages while objects come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// Once. An object that is folded or joined meanwhile could be missed if a whole collection ran while
    /// the list was made; who misses it relies on less, or shows less.
    Once,
    /// Until a second list adds and removes nothing: for collectors, who delete what they miss the reason for.
    Settled,
}

impl Repository {
    /// Lists `prefix`.
    pub(super) fn listed(&self, prefix: &str, lists: Lists) -> Result<Vec<Listed>> {
        match lists {
            Lists::Once => self.storage.list(prefix).context(|| format!("cannot list `{prefix}`")),
            Lists::Settled => self.list_settled(prefix),
        }
    }

    /// Lists `prefix` until a second list adds and removes nothing.
    pub(crate) fn list_settled(&self, prefix: &str) -> Result<Vec<Listed>> {
        let what = || format!("cannot list `{prefix}`");
        let mut last = self.storage.list(prefix).context(what)?;
        for _ in 0..LISTS_MAX {
            let next = self.storage.list(prefix).context(what)?;
            if next == last {
                return Ok(next);
            }
            last = next;
        }
        Err(Error::new(Kind::Failed, format!("{}: it changes all the time", what())))
    }

    /// Reads all collections and notes (W2). What vanishes between list and read is read anew.
    pub fn load_collections(&self) -> Result<Collections> {
        for _ in 0..LISTS_MAX {
            if let Some(collections) = self.try_load_collections()? {
                return Ok(collections);
            }
        }
        Err(Error::new(Kind::Failed, "cannot read the collections: they change all the time"))
    }

    fn try_load_collections(&self) -> Result<Option<Collections>> {
        let mut said = Said::default();
        let Some(logs) = self.each_word(|name, word| said.take(name, word))? else { return Ok(None) };
        let mut all = said.finish();
        let faults = logs.faults.iter().map(|(log, why)| (log.clone(), Error::new(Kind::Damaged, why.clone())));
        all.faults.extend(faults);
        Ok(Some(all))
    }

    /// Reads every object of a collection and every note; an item that several logs have comes several times.
    /// `None` when one vanished between list and read.
    pub(super) fn each_word(&self, mut take: impl FnMut(&str, Option<&Word>)) -> Result<Option<Arc<Logs>>> {
        // Which of the two is listed first is all one: neither says anything about the other. Logs are listed
        // after what single objects are taken from, which is the first of two lists that are the same.
        let list = |prefixes: &[&str]| {
            let what = |prefix: &&str| self.storage.list(prefix).context(|| format!("cannot list `{prefix}`"));
            try_map(self.storage.connections(), prefixes, what)
        };
        let mut listed = list(&[GC, NOTES])?;
        let mut lists = 1;
        let of_logs = loop {
            let mut again = list(&[GC, NOTES, LOG])?;
            let of_logs = again.split_off(2).swap_remove(0);
            if again == listed {
                break of_logs;
            }
            (listed, lists) = (again, lists + 1);
            if lists > LISTS_MAX {
                return Err(Error::new(
                    Kind::Failed,
                    "cannot list the collections: what is there changes all the time",
                ));
            }
        };
        let Some(logs) = self.logs_of(&of_logs)? else { return Ok(None) };
        let singles = listed.iter().flatten().filter(|object| logs.find(&object.name).is_none());
        let singles: Vec<&str> = singles.map(|object| &*object.name).collect();
        let read = |name: &&str| match self.storage.get(name) {
            Ok(stored) => Ok(Some(self.word(name, &stored))),
            Err(error) if error.kind() == storage::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| format!("cannot read `{name}`")),
        };
        for (name, word) in singles.iter().zip(try_map(self.storage.connections(), &singles, read)?) {
            match word {
                None => return Ok(None),
                Some(word) => take(name, word.as_ref()),
            }
        }
        let with_words = logs.iter().filter(|(_, contents)| {
            contents.items.iter().any(|item| item.name.starts_with(GC) || item.name.starts_with(NOTES))
        });
        for (log, _) in with_words {
            let Some(words) = self.words_in(log)? else { return Ok(None) };
            // An item that another log has, too, says the same there.
            words.iter().for_each(|(name, word)| take(name, Some(word)));
        }
        Ok(Some(logs))
    }

    /// What an object of a collection, or a note, says. `None` for what is neither by its name.
    pub(super) fn word(&self, name: &str, stored: &[u8]) -> Option<Word> {
        let bad = |error: Error| Word::Bad(error.kind(), error.innermost());
        let word = match parse_gc_name(name) {
            Some((collection, "condemned")) => self
                .record::<Condemned>(RecordKind::Condemned, name, stored)
                .of(collection, |record| record.collection)
                .map(|record, _, _, _| Word::Condemned(collection, record.packs)),
            Some((collection, "swept")) => self
                .record::<Swept>(RecordKind::Swept, name, stored)
                .of(collection, |record| record.collection)
                .map(|record, hash, signer, _| Word::Swept(collection, record, hash, signer)),
            Some((collection, "done")) => self
                .record::<Done>(RecordKind::Done, name, stored)
                .of(collection, |record| record.collection)
                .map(|record, hash, signer, _| Word::Done(collection, record, hash, signer)),
            Some(_) => return None,
            None if name.starts_with(NOTES) => self.record::<Note>(RecordKind::Note, name, stored).map(Word::Note),
            None => return None,
        };
        Some(match word {
            Read::Good(word) => word,
            Read::Bad(error) => bad(error),
            Read::Passed => Word::Passed,
        })
    }

    /// Why an object of a log is not what its name says.
    pub(super) fn fault_of(&self, name: &str, stored: &[u8]) -> Option<Error> {
        if let Some(session) = super::commits::session_of(name) {
            return self.open_commit(&session, stored).err();
        }
        match self.word(name, stored) {
            Some(Word::Bad(kind, why)) => Some(Error::new(kind, why)),
            _ => None,
        }
    }

    /// The collections that have flagged each session.
    pub fn load_flags(&self, prefix: &str) -> Result<BTreeMap<SessionId, Vec<CollectionId>>> {
        let mut flags: BTreeMap<SessionId, Vec<CollectionId>> = BTreeMap::new();
        for object in self.storage.list(prefix).context(|| "cannot list the flags")? {
            // A flag that cannot be read still asks: its name says everything.
            let parts = object.name.strip_prefix(FLAGS).and_then(|rest| rest.split_once('/'));
            let parsed =
                parts.and_then(|(session, collection)| Some((session.parse().ok()?, collection.parse().ok()?)));
            if let Some((session, collection)) = parsed {
                flags.entry(session).or_default().push(collection);
            }
        }
        Ok(flags)
    }

    /// A record that counts as absent when it does not verify.
    fn record<R: Record>(
        &self,
        kind: RecordKind,
        name: &str,
        stored: &[u8],
    ) -> Read<(R, ObjectId, CredentialId, Role)> {
        let opened = match self.open_record(kind, name, stored) {
            Ok(opened) => opened,
            Err(error) => return Read::Bad(error),
        };
        let member = self.access.member(&opened.credential);
        // What a removed owner said counts as far as the removal accepts it.
        if let Some(accepted) = member.and_then(|member| member.removed.as_ref())
            && !accepted.contains(&opened.hash)
        {
            return Read::Passed;
        }
        let role = member.map_or(Role::Writer, |member| member.role);
        match cbor::decode(&opened.body).context(|| format!("cannot read `{name}`")) {
            Ok(record) => Read::Good((record, opened.hash, opened.credential, role)),
            Err(error) => Read::Bad(error),
        }
    }
}

/// What one object says.
#[derive(Debug)]
pub(super) enum Word {
    Condemned(CollectionId, Vec<PackId>),
    Swept(CollectionId, Swept, ObjectId, CredentialId),
    Done(CollectionId, Done, ObjectId, CredentialId),
    Note(Note, ObjectId, CredentialId, Role),
    /// It does not verify.
    Bad(Kind, String),
    /// Its writer was removed.
    Passed,
}

/// What all objects say, as they come.
#[derive(Default)]
struct Said {
    all: Collections,
    condemned: BTreeMap<CollectionId, Vec<PackId>>,
    done: BTreeMap<CollectionId, Done>,
    seen_notes: BTreeSet<ObjectId>,
    stored_notes: BTreeSet<ObjectId>,
    /// Notes of damage, and those that an owner has found to hold no longer.
    damage: Vec<(ObjectId, PackId, Vec<ChunkId>)>,
    mended: BTreeSet<ObjectId>,
}

impl Said {
    fn take(&mut self, name: &str, word: Option<&Word>) {
        self.stored_notes.extend(name.strip_prefix(NOTES).and_then(|hash| hash.parse::<ObjectId>().ok()));
        let all = &mut self.all;
        match word {
            None | Some(Word::Passed) => {}
            Some(Word::Bad(kind, why)) => all.faults.push((name.to_owned(), Error::new(*kind, why.clone()))),
            Some(Word::Condemned(collection, packs)) => drop(self.condemned.insert(*collection, packs.clone())),
            Some(Word::Swept(collection, record, hash, signer)) => {
                all.dead.extend(&record.dead);
                let of = |sessions: &[SessionId], counts| {
                    sessions.iter().map(|session| (*session, Answer { by: *collection, counts })).collect::<Vec<_>>()
                };
                let said = of(&record.void, false).into_iter().chain(of(&record.counted, true));
                said.for_each(|(session, answer)| all.answer(session, answer));
                all.sweeps.insert(*collection, *hash);
                all.signed.entry(*signer).or_default().insert(*hash);
            }
            Some(Word::Done(collection, record, hash, signer)) => {
                self.done.insert(*collection, record.clone());
                all.signed.entry(*signer).or_default().insert(*hash);
            }
            Some(Word::Note(note, hash, signer, role)) => {
                // Who stops trusting an owner stops trusting what it vouched for.
                if !matches!(note.claim, NoteClaim::Verified { .. }) {
                    all.signed.entry(*signer).or_default().insert(*hash);
                }
                all.note_heads.insert(*hash);
                self.seen_notes.extend(&note.seen);
                all.notes.insert(*hash);
                match (&note.claim, role) {
                    (NoteClaim::Damaged { chunks, pack }, _) => self.damage.push((*hash, *pack, chunks.clone())),
                    (NoteClaim::Forgotten { session, commit, until_secs }, Role::Owner) => {
                        let forgotten = all.forgotten.entry((*session, *commit)).or_default();
                        forgotten.notes.insert(*hash, *until_secs);
                    }
                    (NoteClaim::Quarantined { session }, Role::Owner) => drop(all.quarantined.insert(*session)),
                    // A writer could vouch for what it has planted itself.
                    (NoteClaim::Verified { descriptions, mended }, Role::Owner) => {
                        for description in descriptions {
                            let newest = all.attested.entry(*description).or_insert(note.time_secs);
                            *newest = note.time_secs.max(*newest);
                        }
                        self.mended.extend(mended);
                    }
                    (NoteClaim::Audit { action, detail }, Role::Owner) if action == DRILL => {
                        if let Some(drill) = Drill::from_detail(detail) {
                            all.drilled(Drilled { time_secs: note.time_secs, by: *signer, drill });
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn finish(self) -> Collections {
        let Self { mut all, condemned, mut done, seen_notes, stored_notes, damage, mended } = self;
        let hashes: BTreeSet<ObjectId> = all.sweeps.values().copied().collect();
        for (collection, record) in &done {
            let name = format!("{GC}{collection}/swept");
            let is_known = all.faults.iter().any(|(known, _)| *known == name);
            if !is_known && !record.sweeps.iter().all(|sweep| hashes.contains(sweep)) {
                let why = format!("it is missing: `{GC}{collection}/done` names it");
                all.faults.push((name, Error::new(Kind::Damaged, why)));
            }
        }
        // `done` names its sweeps: until all are read the collection is unfinished.
        done.retain(|_, record| record.sweeps.iter().all(|sweep| hashes.contains(sweep)));
        all.notes_seen.extend(done.values().flat_map(|record| &record.seen_notes));
        for (collection, packs) in condemned {
            if !done.contains_key(&collection) {
                all.condemned.extend(&packs);
                all.unfinished.insert(collection, packs.into_iter().collect());
            }
        }
        for (note, pack, chunks) in damage.into_iter().filter(|(note, ..)| !mended.contains(note)) {
            all.damaged.extend(chunks.into_iter().map(|chunk| (chunk, pack)));
            all.damage_notes.entry(pack).or_default().insert(note);
        }
        all.finished.extend(done.into_keys());
        all.note_heads.retain(|note| !seen_notes.contains(note));
        all.lost_notes = seen_notes.difference(&stored_notes).copied().collect();
        all
    }
}

enum Read<R> {
    Good(R),
    /// It does not verify.
    Bad(Error),
    /// Its writer was removed.
    Passed,
}

impl<R> Read<(R, ObjectId, CredentialId, Role)> {
    /// A record of another collection than its name says is none.
    fn of(self, collection: CollectionId, named: impl Fn(&R) -> CollectionId) -> Self {
        match self {
            Self::Good((record, ..)) if named(&record) != collection => {
                Self::Bad(Error::new(Kind::Damaged, "it is another collection's"))
            }
            other => other,
        }
    }

    fn map<T>(self, make: impl FnOnce(R, ObjectId, CredentialId, Role) -> T) -> Read<T> {
        match self {
            Self::Good((record, hash, signer, role)) => Read::Good(make(record, hash, signer, role)),
            Self::Bad(error) => Read::Bad(error),
            Self::Passed => Read::Passed,
        }
    }
}

fn parse_gc_name(name: &str) -> Option<(CollectionId, &str)> {
    let (collection, part) = name.strip_prefix(GC)?.split_once('/')?;
    Some((collection.parse().ok()?, part))
}
