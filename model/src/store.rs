//! The storage: what has been put, and how a request changes it.
//!
//! A put is seen whole or not at all, and by whoever looks after it was acknowledged. There are no locks, no
//! clocks and no put-if-absent.

use crate::scene::{COLLECTIONS, Rule, SESSIONS, Scene};
use crate::set::Set;

/// All objects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Store {
    /// `sessions/`
    pub announced: Set,
    /// `snapshots/`, each with the segment that names its session's pack.
    pub committed: Set,
    /// `packs/`
    pub packs: Set,
    /// The chunks in each session's pack, which stay known when it is gone.
    pub holds: [Set; SESSIONS],
    /// Sessions whose place a later commit of the same writer takes, if that counts.
    pub replaced: Set,
    /// `flags/`, by collection.
    pub flags: [Set; COLLECTIONS],
    /// `gc/…/condemned`: packs, by collection.
    pub condemned: [Set; COLLECTIONS],
    /// `gc/…/swept`: dead packs, by collection.
    pub dead: [Set; COLLECTIONS],
    /// `gc/…/swept`: void sessions, by collection.
    pub void: [Set; COLLECTIONS],
    /// `gc/…/swept`: sessions that count, by collection.
    pub counted: [Set; COLLECTIONS],
    /// The generation in each collection's id.
    pub generation: [u8; COLLECTIONS],
    /// Collections that have put `condemned`.
    pub has_condemned: Set,
    /// Collections that have put `swept`.
    pub has_swept: Set,
    /// Collections that have put `done`, or for which another has.
    pub has_done: Set,
}

/// A request that changes something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Change {
    Announce { session: usize },
    Pack { pack: usize, session: usize, holds: Set },
    Commit { session: usize, replaces: Set },
    Flag { session: usize, collection: usize, generation: u8 },
    Condemned { collection: usize, packs: Set },
    Swept { collection: usize, generation: u8, dead: Set, void: Set, counted: Set },
    Done { collection: usize },
    DeletePack { pack: usize },
    DeleteFlags { sessions: Set, collection: usize },
    DeleteAnnouncement { session: usize },
}

/// What collections have said, as one look finds it.
#[derive(Clone, Copy, Default)]
pub struct Collections {
    /// Packs unfinished collections have condemned.
    pub condemned: Set,
    /// Packs that are dead, for ever.
    pub dead: Set,
    /// Sessions that are void.
    pub void: Set,
    /// Who has said so, or that a session counts.
    pub said_by: SaidBy,
    /// Collections that have swept.
    pub swept: Set,
}

/// For each session the highest collection that has said whether it counts: one more than its number, or 0.
pub type SaidBy = [u8; SESSIONS];

impl Store {
    /// What there is at the beginning.
    pub fn new(scene: &Scene) -> Self {
        assert!(scene.sessions() <= SESSIONS && scene.collectors * scene.rounds <= COLLECTIONS);
        Self { packs: scene.base_packs(), ..Self::default() }
    }

    /// Carries out a request.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Announce { session } => self.announced |= Set::only(session),
            Change::Pack { pack, session, holds } => {
                self.packs |= Set::only(pack);
                self.holds[session] = holds;
            }
            Change::Commit { session, replaces } => {
                self.committed |= Set::only(session);
                self.replaced |= replaces;
            }
            Change::Flag { session, collection, generation } => {
                self.flags[collection] |= Set::only(session);
                self.generation[collection] = generation;
            }
            Change::Condemned { collection, packs } => {
                self.condemned[collection] = packs;
                self.has_condemned |= Set::only(collection);
            }
            Change::Swept { collection, generation, dead, void, counted } => {
                (self.dead[collection], self.void[collection], self.counted[collection]) = (dead, void, counted);
                self.generation[collection] = generation;
                self.has_swept |= Set::only(collection);
            }
            Change::Done { collection } => self.has_done |= Set::only(collection),
            Change::DeletePack { pack } => self.packs = self.packs - Set::only(pack),
            Change::DeleteFlags { sessions, collection } => {
                self.flags[collection] = self.flags[collection] - sessions;
            }
            Change::DeleteAnnouncement { session } => self.announced = self.announced - Set::only(session),
        }
    }

    /// Collections that have condemned something and are not done.
    pub fn unfinished(&self) -> Set {
        self.has_condemned - self.has_done
    }

    /// Reads `gc/`. What `own` has condemned is left out.
    pub fn collections(&self, scene: &Scene, own: Option<usize>) -> Collections {
        let union = |sets: &[Set], of: Set| of.iter().fold(Set::EMPTY, |all, one| all | sets[one]);
        let unfinished = self.unfinished() - own.map_or(Set::EMPTY, Set::only);
        let mut said_by = SaidBy::default();
        for (session, said_by) in said_by.iter_mut().enumerate() {
            let says = |&one: &usize| (self.void[one] | self.counted[one]).has(session);
            let highest = self.has_swept.iter().filter(says).max_by_key(|&one| self.rank(one));
            *said_by = highest.map_or(0, |one| one as u8 + 1);
        }
        let void = match scene.keeps(Rule::HighestAnswerCounts) {
            true => Set::of((0..SESSIONS).filter(|&session| {
                let by = usize::from(said_by[session]);
                by > 0 && self.void[by - 1].has(session)
            })),
            false => union(&self.void, self.has_swept),
        };
        Collections {
            condemned: union(&self.condemned, unfinished),
            dead: union(&self.dead, self.has_swept),
            void,
            said_by,
            swept: self.has_swept,
        }
    }

    /// Where an id stands among others: by its generation, then as chance has it.
    pub fn rank(&self, collection: usize) -> (u8, usize) {
        (self.generation[collection], collection)
    }

    /// Whether a flag of this collection still asks: it has not swept, and no higher one has said what is asked.
    pub fn asks(&self, collection: usize, session: usize, swept: Set, said_by: &SaidBy) -> bool {
        let by = usize::from(said_by[session]);
        !swept.has(collection) && (by == 0 || self.rank(by - 1) < self.rank(collection))
    }

    /// Of flags, by collection, the sessions of which something is still asked; by the collections from a
    /// generation on.
    pub fn open(&self, flags: &[Set; COLLECTIONS], from: u8, swept: Set, said_by: &SaidBy) -> Set {
        let of = |one: usize| flags[one].iter().filter(move |&session| self.asks(one, session, swept, said_by));
        Set::of((0..COLLECTIONS).filter(|&one| self.generation[one] >= from).flat_map(of))
    }

    /// Sessions that have a flag.
    pub fn flagged(&self) -> Set {
        self.flags.iter().fold(Set::EMPTY, |all, flags| all | *flags)
    }

    /// Sessions of which something is asked, by what is there now.
    pub fn asked(&self, said: &Collections) -> Set {
        self.open(&self.flags, 0, said.swept, &said.said_by)
    }

    /// The chunks that segments say are in a pack.
    pub fn holds(&self, scene: &Scene, pack: usize) -> Set {
        match scene.session_of(pack) {
            None => scene.base[pack].chunks,
            Some(session) => self.holds[session],
        }
    }

    /// Which of `packs` are said to hold a chunk.
    pub fn holders(&self, scene: &Scene, chunk: usize, packs: Set) -> Set {
        Set::of(packs.iter().filter(|&pack| self.holds(scene, pack).has(chunk)))
    }

    /// The sessions of which another that counts has taken the place.
    pub fn superseded(&self, scene: &Scene, counts: Set) -> Set {
        let later = |session: usize| {
            let same = counts.iter().filter(|&other| scene.writer_of(other) == scene.writer_of(session));
            same.max().is_some_and(|newest| newest > session)
        };
        Set::of(self.replaced.iter().filter(|&session| later(session)))
    }

    /// The chunks that roots need, if these sessions count.
    pub fn live(&self, scene: &Scene, counts: Set) -> Set {
        let roots = counts - self.superseded(scene, counts);
        roots.iter().fold(scene.rooted, |all, session| all | scene.needs(session))
    }

    /// Packs that a reader finds named, if these sessions count and these packs are dead.
    pub fn named(&self, scene: &Scene, counts: Set, dead: Set) -> Set {
        let with_pack = Set::of(counts.iter().filter(|&session| !self.holds[session].is_empty()));
        (scene.base_packs() | scene.packs_of(with_pack)) - dead
    }

    /// Whether a reader finds every one of these chunks, and finds it whole.
    pub fn reads(&self, scene: &Scene, chunks: Set) -> bool {
        let said = self.collections(scene, None);
        let there = self.named(scene, self.committed - said.void, said.dead) & self.packs & scene.trusted();
        let found = there.iter().fold(Set::EMPTY, |all, pack| all | self.holds(scene, pack));
        (chunks - found).is_empty()
    }
}
