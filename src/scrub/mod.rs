//! Is what is stored still what was stored? A little at a time, what was looked at longest ago first.
//!
//! [`ages`] remembers when each pack was last found whole, [`choose`] picks those that are due within a
//! budget. With a key, [`crate::check`] reads them to the last chunk and owners' notes say what was found;
//! [`keyless`] hashes stored bytes and needs no key. [`mend`] puts back what is damaged: from second copies,
//! parity, or a replica.
//!
//! Bytes are verified before they are put anywhere, and only ever under the name that says what they are.

pub mod ages;
pub mod keyless;
pub mod mend;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::PackId;
use crate::repo::content::Reader;
use crate::world::{Time, World};
use ages::Ages;

/// One of several parts into which packs are divided by their names: they stay the same while packs come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 1.
    pub part: u32,
    /// Of how many.
    pub parts: u32,
}

impl Shard {
    fn holds(self, pack: &PackId) -> bool {
        let number = u32::from_le_bytes(*pack.as_bytes().first_chunk().expect("an id has 32 bytes"));
        number % self.parts.max(1) == self.part.wrapping_sub(1)
    }
}

/// How much is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    /// Only what was not found whole within so many seconds.
    pub max_age_secs: Option<u64>,
    /// About so many bytes of packs.
    pub max_bytes: Option<u64>,
    /// No pack is begun after so long.
    pub max_duration: Option<Duration>,
    /// Only packs of this part.
    pub shard: Option<Shard>,
}

impl Budget {
    /// Says from now on whether the time is over.
    pub fn clock(&self, world: &World) -> impl Fn() -> bool + Sync + use<> {
        let (end, world) = (self.max_duration.map(|allowed| add(world.now(), allowed)), world.clone());
        move || end.is_some_and(|end| world.now() >= end)
    }
}

fn add(time: Time, duration: Duration) -> Time {
    time.plus_secs(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 2))
}

/// A pack that may be read.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    bytes: u64,
    /// When it was last found whole, seconds since 1970.
    whole_secs: Option<i64>,
    /// Whether a note says that it is damaged. Such are read each time: damage does not go away by being old.
    is_damaged: bool,
}

/// The packs to read, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Those that are due and within the budget, longest unread first.
    pub packs: Vec<PackId>,
    /// How many there are, due or not.
    pub known: u64,
    /// How many are due.
    pub due: u64,
}

fn pick(candidates: BTreeMap<PackId, Candidate>, budget: &Budget, now_secs: i64, ages: &Ages) -> Chosen {
    let mine = candidates.into_iter().filter(|(pack, _)| budget.shard.is_none_or(|shard| shard.holds(pack)));
    let mut mine: Vec<_> = mine.collect();
    let known = mine.len() as u64;
    for (_, candidate) in &mut mine {
        // By a clock that was ahead: who knows.
        candidate.whole_secs = candidate.whole_secs.filter(|secs| *secs <= now_secs);
    }
    let is_due = |candidate: &Candidate| match (budget.max_age_secs, candidate.whole_secs) {
        (Some(max), Some(secs)) => candidate.is_damaged || now_secs.saturating_sub(secs).unsigned_abs() >= max,
        _ => true,
    };
    mine.retain(|(_, candidate)| is_due(candidate));
    let due = mine.len() as u64;
    mine.sort_by_key(|(pack, candidate)| (!candidate.is_damaged, candidate.whole_secs, ages.order(pack)));
    let mut left = budget.max_bytes.unwrap_or(u64::MAX);
    mine.retain(|(_, candidate)| {
        let take = candidate.is_damaged || left > 0;
        if !candidate.is_damaged {
            left = left.saturating_sub(candidate.bytes);
        }
        take
    });
    Chosen { packs: mine.into_iter().map(|(pack, _)| pack).collect(), known, due }
}

/// Chooses among the packs that the index names.
///
/// What an owner has attested counts, whichever machine it was on. What this machine has hashed counts for packs
/// of owners; those of writers are due until they are attested.
pub fn choose(reader: &Reader<'_>, ages: &Ages, budget: &Budget) -> Chosen {
    pick(candidates(reader, ages), budget, reader.repo().world.now().secs, ages)
}

/// How much of what is stored was verified, and when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Packs the index names.
    pub known: u64,
    /// Packs found whole at or after the moment asked about, and not known to be damaged.
    pub verified: u64,
    /// When the one that was found whole longest ago was, or was stored if it was never read; seconds since 1970.
    pub oldest_secs: Option<i64>,
}

/// How much was verified since a moment, by what [`choose`] goes by.
pub fn coverage(reader: &Reader<'_>, ages: &Ages, since_secs: i64) -> Coverage {
    let mut stored: BTreeMap<PackId, i64> = BTreeMap::new();
    let (catalog, headers) = (reader.catalog(), &reader.commits().headers);
    for pack in catalog.packs() {
        let origin = catalog.origins().get(pack.origin as usize);
        let header = origin.and_then(|origin| headers.get(&origin.session));
        stored.extend(header.map(|header| (pack.id, header.time_secs)));
    }
    let mut coverage = Coverage::default();
    for (pack, candidate) in candidates(reader, ages) {
        coverage.known += 1;
        let whole = candidate.whole_secs.filter(|_| !candidate.is_damaged);
        coverage.verified += u64::from(whole.is_some_and(|secs| secs >= since_secs));
        let since = whole.or_else(|| stored.get(&pack).copied());
        coverage.oldest_secs = [coverage.oldest_secs, since].into_iter().flatten().min();
    }
    coverage
}

fn candidates(reader: &Reader<'_>, ages: &Ages) -> BTreeMap<PackId, Candidate> {
    let (catalog, collections) = (reader.catalog(), reader.collections());
    let mut candidates: BTreeMap<PackId, Candidate> = BTreeMap::new();
    let mut unattested = std::collections::BTreeSet::new();
    for (_, pack) in (0_u32..).zip(catalog.packs()).filter(|(number, _)| reader.is_alive(*number)) {
        let attested = collections.attested.get(&pack.description).copied();
        let origin = catalog.origins().get(pack.origin as usize);
        if attested.is_none() && origin.is_none_or(|origin| !reader.repo().is_owner(&origin.credential)) {
            unattested.insert(pack.id);
        }
        let candidate = candidates.entry(pack.id).or_insert(Candidate {
            bytes: u64::from(pack.stored_bytes),
            whole_secs: None,
            is_damaged: collections.damage_notes.contains_key(&pack.id),
        });
        candidate.whole_secs = candidate.whole_secs.max(attested);
    }
    for (pack, candidate) in &mut candidates {
        if candidate.whole_secs.is_some() || !unattested.contains(pack) {
            candidate.whole_secs = candidate.whole_secs.max(ages.get(pack));
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::pins::Notices;

    fn pack(n: u8) -> PackId {
        PackId::from_bytes([n; 32])
    }

    fn candidates(of: &[(u8, Option<i64>, bool)]) -> BTreeMap<PackId, Candidate> {
        let candidate = |&(n, whole_secs, is_damaged)| (pack(n), Candidate { bytes: 10, whole_secs, is_damaged });
        of.iter().map(candidate).collect()
    }

    fn picked(budget: Budget) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let ages = Ages::open(Some(dir.path()), "place", Notices::default());
        let all =
            [(1, Some(50), false), (2, None, false), (3, Some(10), false), (4, Some(95), true), (5, Some(900), false)];
        let chosen = pick(candidates(&all), &budget, 100, &ages);
        chosen.packs.iter().map(|pack| pack.as_bytes()[0]).collect()
    }

    /// Damaged ones each time; then those never read, a time in the future being none; then the oldest.
    #[test]
    fn what_was_read_longest_ago_comes_first_within_the_budget() {
        assert_eq!(picked(Budget::default()), [4, 2, 5, 3, 1]);
        assert_eq!(picked(Budget { max_age_secs: Some(60), ..Budget::default() }), [4, 2, 5, 3]);
        assert_eq!(picked(Budget { max_bytes: Some(11), ..Budget::default() }), [4, 2, 5]);
        assert_eq!(picked(Budget { max_bytes: Some(0), ..Budget::default() }), [4]);
    }

    #[test]
    fn every_pack_is_in_one_shard() {
        for parts in [1, 2, 7] {
            for n in 0..=255 {
                let holding = (1..=parts).filter(|part| Shard { part: *part, parts }.holds(&pack(n)));
                assert_eq!(holding.count(), 1);
            }
        }
        let odd = Some(Shard { part: 2, parts: 2 });
        assert_eq!(picked(Budget { shard: odd, ..Budget::default() }), [5, 3, 1]);
    }

    #[test]
    fn the_time_is_over_when_it_is() {
        let world = World::seeded(1);
        assert!(!Budget::default().clock(&world)());
        assert!(Budget { max_duration: Some(Duration::ZERO), ..Budget::default() }.clock(&world)());
        assert!(!Budget { max_duration: Some(Duration::from_secs(3600)), ..Budget::default() }.clock(&world)());
    }
}
