//! What garbage collections have said: packs condemned or dead, sessions void, chunks damaged.
//!
//! [`crate::prune`] writes them; every session reads them (W2), because a chunk in a condemned pack
//! must not be relied on by whoever announced after the condemnation.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Repository;
use crate::error::{Context, Error, Kind, Result};
use crate::format::access::Role;
use crate::format::cbor::{self, Record};
use crate::format::gc::{Condemned, Done, Note, NoteClaim, Swept};
use crate::format::record::RecordKind;
use crate::id::{ChunkId, CollectionId, DescriptionId, ObjectId, PackId, SessionId};
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
    /// Sessions that do not count, for ever.
    pub void: BTreeSet<SessionId>,
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
    /// Objects that are no such record, with the reason. They count as absent.
    pub faults: Vec<(String, Error)>,
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
        self.void.extend(later.void);
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
        for (object, error) in later.faults {
            if !self.faults.iter().any(|(known, _)| *known == object) {
                self.faults.push((object, error));
            }
        }
    }

    /// Whether chunks of this pack may be relied on.
    pub fn spares(&self, pack: &PackId) -> bool {
        !self.condemned.contains(pack) && !self.dead.contains(pack)
    }
}

impl Repository {
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
        let mut all = Collections::default();
        let mut condemned: BTreeMap<CollectionId, Vec<PackId>> = BTreeMap::new();
        let mut done: BTreeMap<CollectionId, Done> = BTreeMap::new();
        // Which of the two is listed first is all one: neither says anything about the other.
        let listed = try_map(self.storage.connections(), &[GC, NOTES], |prefix| self.list_settled(prefix))?;
        for object in &listed[0] {
            let Some((collection, part)) = parse_gc_name(&object.name) else { continue };
            match part {
                "condemned" => match self
                    .read_record::<Condemned>(RecordKind::Condemned, &object.name)?
                    .of(collection, |record| record.collection)
                {
                    Read::Gone => return Ok(None),
                    Read::Good(record, ..) => drop(condemned.insert(collection, record.packs)),
                    Read::Bad(error) => all.faults.push((object.name.clone(), error)),
                    Read::Passed => {}
                },
                "swept" => match self
                    .read_record::<Swept>(RecordKind::Swept, &object.name)?
                    .of(collection, |record| record.collection)
                {
                    Read::Gone => return Ok(None),
                    Read::Good(record, hash, _) => {
                        all.dead.extend(record.dead);
                        all.void.extend(record.void);
                        all.sweeps.insert(collection, hash);
                    }
                    Read::Bad(error) => all.faults.push((object.name.clone(), error)),
                    Read::Passed => {}
                },
                "done" => match self
                    .read_record::<Done>(RecordKind::Done, &object.name)?
                    .of(collection, |record| record.collection)
                {
                    Read::Gone => return Ok(None),
                    Read::Good(record, ..) => drop(done.insert(collection, record)),
                    Read::Bad(error) => all.faults.push((object.name.clone(), error)),
                    Read::Passed => {}
                },
                _ => {}
            }
        }
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
        let (mut damage, mut mended) = (Vec::new(), BTreeSet::new());
        let read = |object: &storage::Listed| self.read_record::<Note>(RecordKind::Note, &object.name);
        for (object, note) in listed[1].iter().zip(try_map(self.storage.connections(), &listed[1], read)?) {
            match note {
                Read::Gone => return Ok(None),
                Read::Bad(error) => all.faults.push((object.name.clone(), error)),
                Read::Good(Note { claim: NoteClaim::Damaged { chunks, pack }, .. }, hash, _) => {
                    damage.push((hash, pack, chunks));
                }
                Read::Good(
                    Note { claim: NoteClaim::Forgotten { session, commit, until_secs }, .. },
                    hash,
                    Role::Owner,
                ) => {
                    all.forgotten.entry((session, commit)).or_default().notes.insert(hash, until_secs);
                }
                Read::Good(Note { claim: NoteClaim::Quarantined { session }, .. }, _, Role::Owner) => {
                    all.quarantined.insert(session);
                }
                // A writer could vouch for what it has planted itself.
                Read::Good(
                    Note { claim: NoteClaim::Verified { descriptions, mended: taken_back }, time_secs, .. },
                    _,
                    Role::Owner,
                ) => {
                    for description in descriptions {
                        let newest = all.attested.entry(description).or_insert(time_secs);
                        *newest = time_secs.max(*newest);
                    }
                    mended.extend(taken_back);
                }
                _ => {}
            }
        }
        for (note, pack, chunks) in damage.into_iter().filter(|(note, ..)| !mended.contains(note)) {
            all.damaged.extend(chunks.into_iter().map(|chunk| (chunk, pack)));
            all.damage_notes.entry(pack).or_default().insert(note);
        }
        Ok(Some(all))
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

    /// Reads a record that counts as absent when it does not verify.
    fn read_record<R: Record>(&self, kind: RecordKind, name: &str) -> Result<Read<R>> {
        let stored = match self.storage.get(name) {
            Ok(stored) => stored,
            Err(error) if error.kind() == storage::ErrorKind::NotFound => return Ok(Read::Gone),
            Err(error) => return Err(error).context(|| format!("cannot read `{name}`")),
        };
        let opened = match self.open_record(kind, name, &stored) {
            Ok(opened) if opened.removed => return Ok(Read::Passed),
            Ok(opened) => opened,
            Err(error) => return Ok(Read::Bad(error)),
        };
        let role = self.access.member(&opened.credential).map_or(Role::Writer, |member| member.role);
        Ok(match cbor::decode(&opened.body).context(|| format!("cannot read `{name}`")) {
            Ok(record) => Read::Good(record, opened.hash, role),
            Err(error) => Read::Bad(error),
        })
    }
}

enum Read<R> {
    /// The record, the hash of its bytes and its signer's role.
    Good(R, ObjectId, Role),
    /// It does not verify.
    Bad(Error),
    /// Its writer was removed.
    Passed,
    Gone,
}

impl<R> Read<R> {
    /// A record of another collection than its name says is none.
    fn of(self, collection: CollectionId, named: impl Fn(&R) -> CollectionId) -> Self {
        match self {
            Self::Good(record, ..) if named(&record) != collection => {
                Self::Bad(Error::new(Kind::Damaged, "it is another collection's"))
            }
            other => other,
        }
    }
}

fn parse_gc_name(name: &str) -> Option<(CollectionId, &str)> {
    let (collection, part) = name.strip_prefix(GC)?.split_once('/')?;
    Some((collection.parse().ok()?, part))
}
