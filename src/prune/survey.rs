//! What is there, what of it is live, and where the live is kept (G1 to G3, G6).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::plan::{Limits, PackUse, Plan};
use super::reencrypt::Amount;
use crate::error::{Error, Kind, Result};
use crate::format::pack::FrameKind;
use crate::format::session::CommitKind;
use crate::id::{CollectionId, ObjectId, PackId, SessionId};
use crate::index::{Found, Marks};
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::collections::{FLAGS, generation};
use crate::repo::commits::CommitHeader;
use crate::repo::content::Reader;
use crate::repo::import::INDEX;
use crate::repo::reach::{Reach, is_marked};
use crate::repo::session::{SESSIONS, pack_name};
use crate::repo::standing::Standing;
use crate::repo::strays::Stray;
use crate::storage::parallel::try_map;

/// How often it is looked again, when others collect at the same time.
const LOOKS_MAX: usize = 5;
/// How far this machine's clock may be behind the newest commit of an owner.
const CLOCK_BEHIND_SECS_MAX: i64 = 24 * 3600;
/// How far it may be ahead of it: a repository may rest for a while.
const CLOCK_AHEAD_SECS_MAX: i64 = 400 * 24 * 3600;

/// How it is looked.
#[derive(Clone, Copy)]
pub(super) struct Looking<'m> {
    /// Sessions that have lost their announcement and their commit are no reason to stop.
    pub(super) close_lost: bool,
    /// How many snapshots are gone through at once.
    pub(super) threads: usize,
    /// The collection that looks, once it has asked somebody itself.
    pub(super) own: Option<CollectionId>,
    pub(super) monitor: &'m Monitor,
}

/// A look at the repository.
pub(super) struct Survey<'r> {
    pub(super) reader: Reader<'r>,
    /// The packs that were there before anything else was looked at.
    candidates: BTreeMap<PackId, u64>,
    /// The packs that were there after.
    stored: HashMap<PackId, u64>,
    /// Of packs no segment that counts names: the session each is of.
    strays: BTreeMap<PackId, SessionId>,
    /// Sessions that are announced and neither committed nor void.
    open: BTreeSet<SessionId>,
    /// Sessions of which something is asked and not answered, or of which a sweep has just said something.
    uncertain: BTreeSet<SessionId>,
    /// Sessions of which collections have asked something and not answered it.
    asked: BTreeSet<SessionId>,
    /// The highest generation of those collections.
    asked_by: Option<u16>,
    /// Sessions that are void, unless a collection that has asked them again says otherwise.
    doubtful: BTreeSet<SessionId>,
    /// Sessions that are known from their packs alone.
    lost: BTreeSet<SessionId>,
}

/// What the roots refer to.
pub(super) struct Live {
    all: Marks,
    /// Without what only quarantined snapshots do, if there are any: that may be gone.
    needed: Option<Marks>,
}

impl Live {
    fn has(&self, rows: &[Found]) -> bool {
        is_marked(&self.all, rows)
    }

    fn needs(&self, rows: &[Found]) -> bool {
        is_marked(self.needed.as_ref().unwrap_or(&self.all), rows)
    }
}

/// Where a live chunk is kept.
enum Keep<'f> {
    /// At one place, which an owner answers for.
    One(&'f Found),
    /// At each of these: no owner answers for any.
    All(Vec<&'f Found>),
    /// Nowhere, or as an owner's nowhere, but in packs that another collection may delete, or in packs whose
    /// session may turn out void.
    Nowhere,
}

impl<'r> Survey<'r> {
    /// Looks in the order that makes it safe: packs, then sessions, then commits, then flags.
    pub(super) fn look(repo: &'r Repository, looking: Looking<'_>) -> Result<Self> {
        // G1.
        let candidates: BTreeMap<PackId, u64> = repo.list_packs()?.into_iter().collect();
        // G2.
        let mut announced = BTreeSet::new();
        for object in repo.list_settled(SESSIONS)? {
            announced.extend(object.name.strip_prefix(SESSIONS).and_then(|id| id.parse::<SessionId>().ok()));
        }
        let reader = Reader::for_a_collection(repo)?;
        if let Some((object, error)) = reader.faults().first() {
            let what = format!("nothing was collected: `{object}` cannot be read, and what it names would be lost");
            return Err(Error::new(Kind::Refused, what).because(error.with_causes()).hint("run `esker check`"));
        }
        refuse_without_segments(&reader)?;
        let flags = repo.load_flags(FLAGS)?;
        // … and then the sweeps once more, as a writer does (W3): a flag is deleted only after its collection's
        // sweep is there, so whoever missed the flag sees the sweep.
        let later = repo.load_collections()?;
        let collections = reader.collections();
        let committed = |session: &SessionId| reader.commits().headers.contains_key(session);
        let questions: Vec<_> = collections.questions(&later, &flags).collect();
        let of_others = || questions.iter().filter(|(_, by)| looking.own.as_ref() != Some(*by));
        let answered: BTreeSet<SessionId> = collections.newly_answered(&later).copied().collect();
        // Only a collection of a higher generation says that what was asked counts.
        let again = of_others().filter(|(_, by)| generation(by) > 0).map(|(session, _)| **session);
        let doubtful = again.chain(answered.iter().copied()).filter(|session| collections.void.contains(session));
        let doubtful = doubtful.collect();
        let asked = of_others().map(|(session, _)| **session).collect();
        let asked_by = of_others().map(|(_, by)| generation(by)).max();
        let uncertain = questions.iter().map(|(session, _)| **session).chain(answered).collect();
        let open: BTreeSet<_> = announced
            .into_iter()
            .filter(|session| !committed(session) && !collections.void.contains(session))
            .collect();
        let mut survey = Self {
            candidates,
            stored: repo.list_packs()?,
            strays: BTreeMap::new(),
            open,
            uncertain,
            asked,
            asked_by,
            doubtful,
            lost: BTreeSet::new(),
            reader,
        };
        survey.look_at_strays(looking)?;
        Ok(survey)
    }

    /// Marks what is live, and asks of it what `then` does. Another collection may have moved what is live since
    /// this look, and deleted where it was: then it is looked again, instead of saying that something is lost.
    pub(super) fn settled<T>(
        mut self,
        looking: Looking<'_>,
        before: Option<(&Self, &Live)>,
        then: impl Fn(&Self, &Live) -> Result<T>,
    ) -> Result<(Self, Live, T)> {
        let mut looks = 1;
        loop {
            match self.mark(looking, before).and_then(|live| then(&self, &live).map(|value| (live, value))) {
                Ok((live, value)) => return Ok((self, live, value)),
                Err(error) if error.kind() == Kind::Refused && looks < LOOKS_MAX && self.reader.is_outrun()? => {}
                Err(error) => return Err(error),
            }
            self = Self::look(self.reader.repo(), looking)?;
            looks += 1;
        }
    }

    /// Finds out whose the packs are that no segment names.
    fn look_at_strays(&mut self, looking: Looking<'_>) -> Result<()> {
        let reader = &self.reader;
        for Stray { id, session, .. } in reader.strays(&self.candidates)? {
            match session {
                Some(session) => drop(self.strays.insert(id, session)),
                // Torn, or no pack: it is nobody's, and stays.
                None => super::warn(looking.monitor, &pack_name(&id), "it is no pack; it is left alone"),
            }
        }
        let is_closed = |session: &SessionId| {
            reader.commits().headers.contains_key(session) || reader.collections().void.contains(session)
        };
        let lost: BTreeSet<SessionId> = self
            .strays
            .values()
            .filter(|session| !is_closed(session) && !self.open.contains(session))
            .copied()
            .collect();
        // Of one that an owner has quarantined all is saved that could be.
        let quarantined = &reader.collections().quarantined;
        if let Some(session) = lost.iter().find(|session| !quarantined.contains(session))
            && !looking.close_lost
        {
            let what = format!(
                "nothing was collected: session `{}` has packs but neither announcement nor commit; \
                 a snapshot may have been lost",
                session.short()
            );
            let hint = "to save what is in them, run `esker repair index`; to give it up, add `--close-lost-sessions`";
            return Err(Error::new(Kind::Refused, what).hint(hint));
        }
        self.lost = lost;
        Ok(())
    }

    /// Refuses when this machine's time is far from that of the newest commit: by a clock that is wrong, the
    /// time to undelete would be over too soon.
    pub(super) fn refuse_a_wrong_clock(&self) -> Result<()> {
        let repo = self.reader.repo();
        let now = repo.world.now().secs;
        let owned = self.reader.commits().headers.values().filter(|header| repo.trusts(&header.credential));
        let Some(newest) = owned.map(|header| header.time_secs).max() else { return Ok(()) };
        let found = match now.saturating_sub(newest) {
            behind if behind < -CLOCK_BEHIND_SECS_MAX => "behind",
            ahead if ahead > CLOCK_AHEAD_SECS_MAX => "ahead of",
            _ => return Ok(()),
        };
        let days = now.saturating_sub(newest).unsigned_abs() / (24 * 3600);
        let what = format!("nothing was collected: this machine's clock is {days} days {found} the newest snapshot");
        Err(Error::new(Kind::Refused, what).hint("set the clock; if it is right, add `--ignore-clock`"))
    }

    /// Sessions of which others have asked something and not answered it.
    pub(super) fn asked(&self) -> &BTreeSet<SessionId> {
        &self.asked
    }

    /// Those of them that count.
    pub(super) fn asked_and_counted(&self) -> BTreeSet<SessionId> {
        let counts = |session: &&SessionId| self.reader.commits().headers.contains_key(session);
        self.asked.iter().filter(counts).copied().collect()
    }

    /// The generation of a collection whose answers go before those of all who have asked.
    pub(super) fn generation(&self) -> u16 {
        self.asked_by.map_or(0, |highest| highest.saturating_add(1))
    }

    /// Whether a session that is void may yet be said to count: then nobody knows what is live.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// The sessions that are to be given up.
    pub(super) fn lost_sessions(&self) -> BTreeSet<SessionId> {
        self.lost.clone()
    }

    /// Notes of forgetting that no finished collection has seen yet.
    pub(super) fn notes_to_see(&self) -> BTreeSet<ObjectId> {
        let collections = self.reader.collections();
        let notes = collections.forgotten.values().flat_map(|forgotten| forgotten.notes.keys());
        notes.filter(|note| !collections.notes_seen.contains(note)).copied().collect()
    }

    /// Marks what the roots refer to (G3). An error when anything of it is missing. What was live by a look before
    /// is not gone through again: trees do not change.
    fn mark(&self, looking: Looking<'_>, before: Option<(&Self, &Live)>) -> Result<Live> {
        let reader = &self.reader;
        let standings = reader.standings();
        let roots: Vec<_> = reader.commits().headers.values().filter(|header| standings.of(header).is_root()).collect();
        let quarantined = &reader.collections().quarantined;
        let (lacking, roots): (Vec<_>, Vec<_>) =
            roots.into_iter().partition(|header| quarantined.contains(&header.session));
        let reach =
            before.and_then(|(survey, live)| survey.carried(live, reader)).unwrap_or_else(|| Reach::new(reader));
        let walk = |header: &&CommitHeader| {
            let loaded = reader.repo().load_commit(&header.session)?;
            if loaded.commit.snapshot.is_empty() {
                return Ok(());
            }
            let root = reader.repo().open_snapshot(loaded)?.snapshot.root;
            reach.walk(&root, TreePath::root(), looking.monitor, |gap| match quarantined.contains(&header.session) {
                true => Ok(()),
                false => {
                    let path = gap.path;
                    let what =
                        format!("nothing was collected: snapshot `{}` lacks data of `{path}`", header.session.short());
                    Err(Error::new(Kind::Refused, what).because(gap.error).hint("run `esker check`"))
                }
            })
        };
        try_map(looking.threads, &roots, walk)?;
        let mut needed = (!lacking.is_empty()).then(|| reach.marks());
        try_map(looking.threads, &lacking, walk)?;
        let mut all = reach.marks();
        // A checkpoint stands for all of its packs, whether or not its tree names them.
        let checkpoints = roots.iter().chain(&lacking).filter(|header| header.kind == CommitKind::Checkpoint);
        let whole: BTreeSet<_> = checkpoints.map(|header| header.session).collect();
        if !whole.is_empty() {
            let of_checkpoint =
                |found: &Found| self.session_of(found.row.pack).is_some_and(|session| whole.contains(&session));
            reader.catalog().each_chunk(|rows| {
                if rows.iter().any(of_checkpoint) {
                    all.set(rows[0].ordinal);
                    if let Some(needed) = &mut needed {
                        needed.set(rows[0].ordinal);
                    }
                }
            });
        }
        Ok(Live { all, needed })
    }

    /// What was live, as another reader has it; nothing if that lacks any of it, or if only quarantined snapshots
    /// need some.
    fn carried<'a>(&self, live: &Live, reader: &'a Reader<'r>) -> Option<Reach<'a, 'r>> {
        if live.needed.is_some() {
            return None;
        }
        let (reach, mut is_whole) = (Reach::new(reader), true);
        self.reader.catalog().each_chunk(|rows| {
            is_whole &= !live.has(rows) || reach.mark(&rows[0].row.id).is_ok();
        });
        is_whole.then_some(reach)
    }

    fn session_of(&self, pack: u32) -> Option<SessionId> {
        let origin = self.reader.catalog().packs().get(pack as usize)?.origin;
        self.reader.catalog().origins().get(origin as usize).map(|origin| origin.session)
    }

    /// Whether a session's commit is a root.
    fn is_root(&self, session: &SessionId) -> bool {
        let header = self.reader.commits().headers.get(session);
        header.is_some_and(|header| self.reader.standings().of(header).is_root())
    }

    /// By pack number, whether a live chunk may be kept there: the pack is there in its length, its session
    /// is certain, and no other collection may delete it.
    fn usable(&self, spared: impl Fn(&PackId) -> bool) -> Vec<bool> {
        let catalog = self.reader.catalog();
        (0_u32..)
            .zip(catalog.packs())
            .map(|(number, pack)| {
                self.reader.is_alive(number)
                    && spared(&pack.id)
                    && self.stored.get(&pack.id) == Some(&u64::from(pack.stored_bytes))
                    && self.session_of(number).is_some_and(|session| !self.uncertain.contains(&session))
            })
            .collect()
    }

    /// By pack number, whether an owner answers for what it says it holds.
    fn trusted(&self) -> Vec<bool> {
        let (repo, catalog) = (self.reader.repo(), self.reader.catalog());
        let trusted = |origin: u32| {
            catalog.origins().get(origin as usize).is_some_and(|origin| repo.is_owner(&origin.credential))
        };
        let attested = &self.reader.collections().attested;
        catalog.packs().iter().map(|pack| trusted(pack.origin) || attested.contains_key(&pack.description)).collect()
    }

    /// By pack number, how many epochs are newer than the one it says it is sealed under.
    fn epochs_behind(&self) -> Vec<usize> {
        let catalog = self.reader.catalog();
        let epochs = self.reader.repo().access.epochs();
        let behind = |epoch| epochs.iter().rev().position(|known| known.id == epoch).unwrap_or(epochs.len());
        let of_origins: Vec<usize> = catalog.origins().iter().map(|origin| behind(origin.epoch)).collect();
        let of_pack = |origin: u32| of_origins.get(origin as usize).copied().unwrap_or(epochs.len());
        catalog.packs().iter().map(|pack| of_pack(pack.origin)).collect()
    }

    /// Calls `each` with every chunk's rows and, if it is live, where it is kept: of several places where it is
    /// sealed under the newest keys. What lies in packs to `avoid` is kept elsewhere if it can be.
    fn each_chunk(&self, live: &Live, avoid: &BTreeSet<PackId>, mut each: impl FnMut(&[Found], Option<Keep<'_>>)) {
        let reader = &self.reader;
        let usable = self.usable(|pack| !reader.collections().condemned.contains(pack));
        let trusted = self.trusted();
        let behind = self.epochs_behind();
        let packs = reader.catalog().packs();
        let (damaged, condemned) = (&reader.collections().damaged, &reader.collections().condemned);
        reader.catalog().each_chunk(|rows| {
            if !live.has(rows) {
                return each(rows, None);
            }
            let id_of = |found: &Found| packs[found.row.pack as usize].id;
            let places: Vec<&Found> = rows.iter().filter(|found| usable[found.row.pack as usize]).collect();
            // One place is enough if an owner answers for it. A writer could have planted junk under this id.
            let best = places.iter().filter(|found| trusted[found.row.pack as usize]).min_by_key(|found| {
                let pack = id_of(found);
                let number = found.row.pack;
                (damaged.contains(&(found.row.id, pack)), avoid.contains(&pack), behind[number as usize], number)
            });
            // An owner's copy that another collection may delete is saved, even beside a writer's that stays:
            // else that collection could never be finished (G6), for a writer's copy is not enough.
            let to_save = |found: &Found| {
                trusted[found.row.pack as usize] && self.is_there(found.row.pack) && condemned.contains(&id_of(found))
            };
            let keep = match best {
                Some(best) => Keep::One(best),
                None if places.is_empty() || rows.iter().any(to_save) => Keep::Nowhere,
                None => Keep::All(places),
            };
            each(rows, Some(keep));
        });
    }

    /// Whether a pack, by its number, counts and is there in its length.
    fn is_there(&self, number: u32) -> bool {
        let pack = &self.reader.catalog().packs()[number as usize];
        self.reader.is_alive(number) && self.stored.get(&pack.id) == Some(&u64::from(pack.stored_bytes))
    }

    /// How much of every pack is kept. An error when something live is nowhere.
    fn uses(&self, live: &Live, avoid: &BTreeSet<PackId>) -> Result<Uses> {
        let catalog = self.reader.catalog();
        let none = || vec![0; catalog.packs().len()];
        let mut uses = Uses { kept: none(), plain: none(), trees: none(), rescue: BTreeSet::new() };
        let mut missing = None;
        self.each_chunk(live, avoid, |rows, keep| {
            for Found { row, .. } in rows {
                let bytes = u64::from(row.chunk_bytes);
                uses.plain[row.pack as usize] += bytes;
                uses.trees[row.pack as usize] += if row.kind == FrameKind::Data as u8 { 0 } else { bytes };
            }
            let kept: Vec<&Found> = match keep {
                None => return,
                Some(Keep::One(found)) => vec![found],
                Some(Keep::All(places)) => places,
                // It stays where it is: it is copied from there, or its session is asked by whoever flagged it.
                Some(Keep::Nowhere) => {
                    let there: Vec<_> = rows.iter().filter(|found| self.is_there(found.row.pack)).collect();
                    if there.is_empty() && live.needs(rows) {
                        missing = missing.or(Some(rows[0].row.id));
                    }
                    let condemned = &self.reader.collections().condemned;
                    let packs = there.iter().map(|found| catalog.packs()[found.row.pack as usize].id);
                    uses.rescue.extend(packs.filter(|pack| condemned.contains(pack)));
                    there
                }
            };
            for Found { row, .. } in kept {
                uses.kept[row.pack as usize] += u64::from(row.chunk_bytes);
            }
        });
        match missing {
            None => Ok(uses),
            Some(id) => {
                let what =
                    format!("nothing was collected: chunk `{}`, which snapshots need, is in no pack", id.short());
                Err(Error::new(Kind::Refused, what).hint("to see what that affects, run `esker check`"))
            }
        }
    }

    /// Packs of which nothing is kept: those of certain and of void sessions. And whether everything live lies
    /// where no other collection may delete it.
    pub(super) fn garbage(&self, live: &Live, avoid: &BTreeSet<PackId>) -> Result<(BTreeSet<PackId>, bool)> {
        let uses = self.uses(live, avoid)?;
        Ok((self.garbage_of(&uses), uses.rescue.is_empty()))
    }

    fn garbage_of(&self, uses: &Uses) -> BTreeSet<PackId> {
        if self.is_in_doubt() {
            return BTreeSet::new();
        }
        let catalog = self.reader.catalog();
        // A pack may stand in segments of several sessions; all of them must be done with it.
        let mut done: BTreeMap<PackId, bool> = BTreeMap::new();
        for (number, pack) in (0_u32..).zip(catalog.packs()) {
            if !self.reader.is_alive(number) {
                continue;
            }
            let session = self.session_of(number);
            let certain = session.is_some_and(|session| !self.uncertain.contains(&session));
            // Without chunks it holds the copy of a snapshot's record, and goes when that does.
            let is_copy = uses.plain[number as usize] == 0 && session.is_some_and(|session| self.is_root(&session));
            *done.entry(pack.id).or_insert(true) &= certain && !is_copy && uses.kept[number as usize] == 0;
        }
        for (pack, session) in &self.strays {
            let closed = !self.open.contains(session) && !self.uncertain.contains(session);
            // What a session that counts stored and names nowhere is nobody's, unless a backup is
            // just taking it up: then its journal names it, and that session has not committed.
            *done.entry(*pack).or_insert(true) &= closed && !self.lost.contains(session);
        }
        done.retain(|pack, done| *done && self.candidates.contains_key(pack));
        done.into_keys().collect()
    }

    /// What is to be done (G3).
    pub(super) fn plan(&self, live: &Live, limits: &Limits) -> Result<Plan> {
        let uses = self.uses(live, &BTreeSet::new())?;
        let garbage = self.garbage_of(&uses);
        let packs = self.in_use(&uses, &garbage);
        let stored_bytes = self.candidates.values().sum();
        let garbage_bytes = garbage.iter().filter_map(|pack| self.candidates.get(pack)).sum();
        let mut plan = if self.is_in_doubt() { Plan::default() } else { Plan::choose(&packs, limits) };
        plan.repack.extend(uses.rescue.iter().copied());
        plan.forgotten = self.counted(|standing| matches!(standing, Standing::Forgotten { in_effect: false, .. }));
        plan.snapshots = self.counted(|standing| standing == Standing::Live);
        Ok(Plan { garbage, garbage_bytes, stored_bytes, open_sessions: self.open.len() as u64, ..plan })
    }

    /// How the packs are used of which something is kept; and how much of the others is under older keys.
    pub(super) fn packs_in_use(&self, live: &Live) -> Result<(BTreeMap<PackId, PackUse>, Amount)> {
        let uses = self.uses(live, &BTreeSet::new())?;
        let garbage = self.garbage_of(&uses);
        let packs = self.reader.catalog().packs().iter().zip(self.epochs_behind());
        let older = packs.filter(|(pack, behind)| *behind > 0 && garbage.contains(&pack.id));
        let older: BTreeSet<&PackId> = older.map(|(pack, _)| &pack.id).collect();
        let mut spent = Amount::default();
        older.into_iter().for_each(|pack| spent.add(self.candidates.get(pack).copied().unwrap_or_default()));
        Ok((self.in_use(&uses, &garbage), spent))
    }

    fn in_use(&self, uses: &Uses, garbage: &BTreeSet<PackId>) -> BTreeMap<PackId, PackUse> {
        let (trusted, behind) = (self.trusted(), self.epochs_behind());
        let catalog = self.reader.catalog();
        let mut packs: BTreeMap<PackId, PackUse> = BTreeMap::new();
        for (number, pack) in (0_u32..).zip(catalog.packs()) {
            if !self.reader.is_alive(number) || garbage.contains(&pack.id) || !self.candidates.contains_key(&pack.id) {
                continue;
            }
            let at = number as usize;
            let certain = self.session_of(number).is_some_and(|session| !self.uncertain.contains(&session));
            let pack_use = PackUse {
                stored_bytes: u64::from(pack.stored_bytes),
                plain_bytes: uses.plain[at],
                kept_bytes: uses.kept[at],
                has_trees: uses.trees[at] > 0,
                movable: certain && trusted[at],
                epochs_behind: behind[at],
            };
            packs.entry(pack.id).and_modify(|known| known.join(&pack_use)).or_insert(pack_use);
        }
        packs
    }

    fn counted(&self, wanted: impl Fn(Standing) -> bool) -> u64 {
        let standings = self.reader.standings();
        let headers = self.reader.commits().headers.values().filter(|header| header.kind == CommitKind::Snapshot);
        headers.filter(|header| wanted(standings.of(header))).count() as u64
    }

    /// The live chunks of packs, in the order in which they lie there: what is to be rewritten.
    pub(super) fn kept_in(&self, live: &Live, packs: &BTreeSet<PackId>) -> Vec<Found> {
        let catalog = self.reader.catalog();
        let wanted = |found: &Found| packs.contains(&catalog.packs()[found.row.pack as usize].id);
        let mut found = Vec::new();
        self.each_chunk(live, &BTreeSet::new(), |rows, keep| match keep {
            Some(Keep::One(at)) if wanted(at) => found.push(*at),
            None | Some(Keep::One(_)) => {}
            // One copy will do: its id is computed again before it is written.
            Some(Keep::All(places)) => found.extend(places.iter().find(|at| wanted(at)).copied()),
            Some(Keep::Nowhere) => {
                found.extend(rows.iter().find(|at| self.is_there(at.row.pack) && wanted(at)));
            }
        });
        found.sort_unstable_by_key(|found| (found.row.pack, found.row.frame, found.row.chunk_offset));
        found
    }

    /// Looks at everything once more after all writers that may not have seen the condemnation have
    /// committed or are void (G6): the packs of `own` that something live still needs.
    pub(super) fn look_again(
        &self,
        live: &Live,
        collection: &CollectionId,
        own: &BTreeSet<PackId>,
        looking: Looking<'_>,
    ) -> Result<BTreeSet<PackId>> {
        let looking = Looking { close_lost: true, own: Some(*collection), ..looking };
        let fresh = Survey::look(self.reader.repo(), looking)?;
        if fresh.reader.commits().headers.keys().eq(self.reader.commits().headers.keys()) {
            // Nobody has committed, so what was live still is all that is, and lies where it lay.
            return Ok(self.needed(live, &fresh, collection, own));
        }
        let needed = |fresh: &Survey<'_>, live: &Live| Ok(fresh.needed(live, fresh, collection, own));
        fresh.settled(looking, Some((self, live)), needed).map(|(.., needed)| needed)
    }

    /// The packs of `own` that hold a live chunk which is not safe elsewhere, by what `now` has seen.
    ///
    /// What a session has stored is not safe while that session is asked and not answered for, by this collection
    /// or another: it may have committed after it was found not to have, and a sweep is about to call it void.
    fn needed(
        &self,
        live: &Live,
        now: &Survey<'_>,
        collection: &CollectionId,
        own: &BTreeSet<PackId>,
    ) -> BTreeSet<PackId> {
        if now.is_in_doubt() {
            return own.clone();
        }
        let catalog = self.reader.catalog();
        let collections = now.reader.collections();
        let taken = |pack: &PackId| {
            let by_others = collections.unfinished.iter().filter(|(id, _)| *id != collection);
            own.contains(pack)
                || collections.dead.contains(pack)
                || by_others.into_iter().any(|(_, packs)| packs.contains(pack))
        };
        let safe: Vec<bool> = (0_u32..)
            .zip(catalog.packs())
            .zip(self.trusted())
            .map(|((number, pack), trusted)| {
                trusted
                    && self.reader.is_alive(number)
                    && self.session_of(number).is_some_and(|session| {
                        !collections.void.contains(&session) && !now.uncertain.contains(&session)
                    })
                    && !taken(&pack.id)
                    && now.stored.get(&pack.id) == Some(&u64::from(pack.stored_bytes))
            })
            .collect();
        let mut needed = BTreeSet::new();
        catalog.each_chunk(|rows| {
            if live.has(rows) && !rows.iter().any(|found| safe[found.row.pack as usize]) {
                let packs = rows.iter().map(|found| catalog.packs()[found.row.pack as usize].id);
                needed.extend(packs.filter(|pack| own.contains(pack)));
            }
        });
        needed
    }
}

/// Refuses when a segment is gone, though the cache may remember what was in it: where it says that something is
/// nobody else would look, and what lies elsewhere, too, must not be deleted for it.
fn refuse_without_segments(reader: &Reader<'_>) -> Result<()> {
    let repo = reader.repo();
    let listed = repo.list_settled(INDEX)?;
    let there: BTreeSet<&str> = listed.iter().map(|object| &*object.name).collect();
    let replaced = repo.replaced_segments(reader.commits().headers.values());
    let wanted = reader.commits().headers.values().flat_map(|header| &header.segments);
    let mut names = wanted.filter(|segment| !replaced.contains(segment)).map(|segment| format!("{INDEX}{segment}"));
    match names.find(|name| !there.contains(&**name)) {
        None => Ok(()),
        Some(name) => {
            let what = format!("nothing was collected: `{name}` is missing, and what it names would be lost");
            Err(Error::new(Kind::Refused, what).hint("to make it again from packs, run `esker repair index`"))
        }
    }
}

/// How much of each pack, by number, is kept.
struct Uses {
    /// Bytes of chunks that are kept there.
    kept: Vec<u64>,
    /// Bytes of all chunks.
    plain: Vec<u64>,
    /// Bytes of directories and lists.
    trees: Vec<u64>,
    /// Packs another collection may delete though they hold the only copies of live chunks.
    rescue: BTreeSet<PackId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::tests::{COLLECTION, LOW, LOW_TOO, flag, flag_by, repository, store_as, sweep, sweep_by};

    /// Found by `model/`: what this collection, or another, has asked without finding a commit may have committed
    /// since, and a sweep that is about to be published calls it void.
    #[test]
    fn what_a_session_that_was_asked_has_stored_is_not_safe_elsewhere() {
        let (_, repo) = repository();
        let (asked, ..) = store_as(&repo, CommitKind::Maintenance, b"some content");
        // All a checkpoint has stored is live.
        let (_, _, pack) = store_as(&repo, CommitKind::Checkpoint, b"some content");
        let monitor = Monitor::silent();
        let looking = Looking { close_lost: false, threads: 2, own: None, monitor: &monitor };
        let survey = Survey::look(&repo, looking).unwrap();
        let live = survey.mark(looking, None).unwrap();
        let condemned = BTreeSet::from([pack]);
        let own = CollectionId::from_bytes([8; 16]);
        let spared = || survey.look_again(&live, &own, &condemned, looking).unwrap();
        assert!(spared().is_empty(), "the other session has a copy");
        flag(&repo, asked);
        assert_eq!(spared(), condemned, "which a sweep may be about to call void");
        sweep(&repo, vec![], vec![]);
        assert!(spared().is_empty(), "it does not");
    }

    #[test]
    fn what_was_live_before_is_carried_over_if_all_of_it_is_still_somewhere() {
        let (_, repo) = repository();
        let (.., pack) = store_as(&repo, CommitKind::Checkpoint, b"some content");
        let monitor = Monitor::silent();
        let looking = Looking { close_lost: false, threads: 2, own: None, monitor: &monitor };
        let look = || Survey::look(&repo, looking).unwrap();
        let before = look();
        let live = before.mark(looking, None).unwrap();
        store_as(&repo, CommitKind::Checkpoint, b"other content");
        let after = look();
        assert_eq!(before.carried(&live, &after.reader).map(|reach| reach.marks().count()), Some(1));
        let [carried, afresh] = [Some((&before, &live)), None].map(|known| after.mark(looking, known).unwrap());
        assert_eq!((carried.all.count(), &carried.all), (2, &afresh.all));
        sweep(&repo, vec![pack], vec![]);
        let swept = look();
        assert!(before.carried(&live, &swept.reader).is_none(), "a part is in no pack that counts");
    }

    /// A session that is void and asked again may yet be said to count: then nobody knows what is live.
    #[test]
    fn where_a_void_session_is_asked_again_nothing_is_garbage_until_that_is_answered() {
        let (_, repo) = repository();
        let (session, _, pack) = store_as(&repo, CommitKind::Maintenance, b"some content");
        let monitor = Monitor::silent();
        let looking = Looking { close_lost: false, threads: 1, own: None, monitor: &monitor };
        let garbage = || {
            let survey = Survey::look(&repo, looking).unwrap();
            let live = survey.mark(looking, None).unwrap();
            survey.garbage(&live, &BTreeSet::new()).unwrap().0
        };
        sweep_by(&repo, LOW, &[session], &[]);
        assert_eq!(garbage(), [pack].into(), "void");
        // Of the first generation only what is open is asked.
        flag_by(&repo, LOW_TOO, session);
        assert!(garbage().is_empty(), "its packs wait, no others");
        assert!(!Survey::look(&repo, looking).unwrap().is_in_doubt());
        flag_by(&repo, COLLECTION, session);
        let survey = Survey::look(&repo, looking).unwrap();
        assert!(survey.is_in_doubt() && garbage().is_empty(), "asked again");
        let own = Survey::look(&repo, Looking { own: Some(COLLECTION), ..looking }).unwrap();
        assert!(!own.is_in_doubt(), "by itself");
        sweep_by(&repo, COLLECTION, &[session], &[]);
        assert_eq!(garbage(), [pack].into(), "void it is");
    }
}
