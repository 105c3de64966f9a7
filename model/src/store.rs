//! The storage: what has been put, and how a request changes it.
//!
//! A put is seen whole or not at all, and by whoever looks after it was acknowledged. There are no locks, no
//! clocks and no put-if-absent.

use crate::scene::{COLLECTIONS, SESSIONS, Scene};
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
    Flag { session: usize, collection: usize },
    Condemned { collection: usize, packs: Set },
    Swept { collection: usize, dead: Set, void: Set },
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
    /// Sessions that are void, for ever.
    pub void: Set,
    /// Collections that have swept.
    pub swept: Set,
}

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
            Change::Flag { session, collection } => self.flags[collection] |= Set::only(session),
            Change::Condemned { collection, packs } => {
                self.condemned[collection] = packs;
                self.has_condemned |= Set::only(collection);
            }
            Change::Swept { collection, dead, void } => {
                (self.dead[collection], self.void[collection]) = (dead, void);
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
    pub fn collections(&self, own: Option<usize>) -> Collections {
        let union = |sets: &[Set], of: Set| of.iter().fold(Set::EMPTY, |all, one| all | sets[one]);
        let unfinished = self.unfinished() - own.map_or(Set::EMPTY, Set::only);
        Collections {
            condemned: union(&self.condemned, unfinished),
            dead: union(&self.dead, self.has_swept),
            void: union(&self.void, self.has_swept),
            swept: self.has_swept,
        }
    }

    /// Sessions with a flag of a collection that is not among `swept`.
    pub fn asked(&self, swept: Set) -> Set {
        let open = (0..COLLECTIONS).filter(|&collection| !swept.has(collection));
        open.fold(Set::EMPTY, |all, collection| all | self.flags[collection])
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
        let said = self.collections(None);
        let there = self.named(scene, self.committed - said.void, said.dead) & self.packs & scene.trusted();
        let found = there.iter().fold(Set::EMPTY, |all, pack| all | self.holds(scene, pack));
        (chunks - found).is_empty()
    }
}
