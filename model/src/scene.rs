//! What is explored: who is there, what lies in the repository at first, and which rule is broken.
//!
//! Everything has a number. Writer `w` in its `a`-th attempt is session `w * attempts + a`; after these come
//! the sessions in which collections repack, one for each. Round `r` of collector `k` is collection
//! `k * rounds + r`. The packs of the beginning come first, then one for each session.

use crate::set::Set;

/// As many sessions there may be.
pub const SESSIONS: usize = 8;
/// As many collections.
pub const COLLECTIONS: usize = 4;

/// A pack that is there at the beginning, of a session of its own that counts.
#[derive(Debug, Clone)]
pub struct Base {
    /// The chunks its segment names.
    pub chunks: Set,
    /// Whether an owner answers for it, and it holds what its segment says. Else a stolen credential put junk.
    pub genuine: bool,
}

/// A rule of the protocol that can be broken, to see that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// W1 before W2 and W3.
    AnnounceBeforeLooking,
    /// W2: condemned packs are not relied on.
    CondemnedIsAvoided,
    /// W3: only committed sessions are relied on.
    OnlyCommittedIsUsable,
    /// W3: sessions that were asked are not relied on until that is resolved.
    FlaggedIsNotUsable,
    /// W3: commits are listed before flags.
    CommitsBeforeFlags,
    /// W3: sweeps are read again after flags.
    SweepsAreReadAgain,
    /// G2, G6: a collector too reads sweeps again after flags.
    CollectorsReadSweepsAgain,
    /// W8: a writer looks for flags after its commit.
    LookForFlags,
    /// W8: and then at all sweeps.
    LookAtSweeps,
    /// G3, G6: one location is enough only where an owner answers for it.
    KeepAtTrustedLocations,
    /// G4: sessions that are open are waited for.
    DrainOpenSessions,
    /// G5: after the flag a collector looks for the commit.
    LookForCommit,
    /// G6: what is needed again is spared.
    Rescue,
    /// G6: what other collections condemn is no safe location.
    OthersCondemned,
    /// G6: nor is what a session has stored that was asked and not answered for.
    AskedIsNotSafe,
    /// G5: of what was live when it looked, nothing lies only where another collection may delete it: else a
    /// collection does not say of a session that it counts.
    WholeBeforeCounting,
    /// G5: nor of a session that had not committed when it looked.
    LookedBeforeCounting,
    /// G6: what a sweep says of a session that is asked again is said again.
    AnswersAreTakenOver,
    /// G6: where a session that is void was asked again, nothing is deleted until that is answered.
    DoubtSpares,
    /// §10.2: of what sweeps say of a session, that of the highest collection counts.
    HighestAnswerCounts,
    /// G2, G6, W3: a session of which something has just been said is not relied on.
    NewAnswersAreUncertain,
    /// G8: flags are deleted after the sweep.
    FlagsGoAfterSweep,
    /// A collection is not resumed.
    NeverResumed,
    /// Names of packs are never used again.
    FreshNames,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::AnnounceBeforeLooking,
        Self::CondemnedIsAvoided,
        Self::OnlyCommittedIsUsable,
        Self::FlaggedIsNotUsable,
        Self::CommitsBeforeFlags,
        Self::SweepsAreReadAgain,
        Self::CollectorsReadSweepsAgain,
        Self::LookForFlags,
        Self::LookAtSweeps,
        Self::KeepAtTrustedLocations,
        Self::DrainOpenSessions,
        Self::LookForCommit,
        Self::Rescue,
        Self::OthersCondemned,
        Self::AskedIsNotSafe,
        Self::WholeBeforeCounting,
        Self::LookedBeforeCounting,
        Self::AnswersAreTakenOver,
        Self::DoubtSpares,
        Self::HighestAnswerCounts,
        Self::NewAnswersAreUncertain,
        Self::FlagsGoAfterSweep,
        Self::NeverResumed,
        Self::FreshNames,
    ];
}

/// What is explored.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Packs at the beginning.
    pub base: Vec<Base>,
    /// Chunks that a snapshot of the beginning needs.
    pub rooted: Set,
    /// By writer, the chunks it backs up.
    pub wants: Vec<Set>,
    /// How often a writer tries: after it was asked, and after it stopped.
    pub attempts: usize,
    /// How many collectors there are.
    pub collectors: usize,
    /// How many collections each makes, one after the other.
    pub rounds: usize,
    /// Whether a collection may rewrite packs of which not everything is kept.
    pub repack: bool,
    /// Whether processes stop at any step and begin anew: an open session, an abandoned collection.
    pub stops: bool,
    /// Whether one request may arrive late: after its process stopped, or a second time.
    pub late: bool,
    /// Whether the second writer begins only when the first has committed, a collector begins only when the one before it has asked somebody, or need not; and all but the last
    /// end with their sweep, so that it clears up after all.
    pub staged: bool,
    /// Whether a list may show some of what comes and goes meanwhile, and miss the rest.
    pub pages: bool,
    /// The rule nobody keeps.
    pub broken: Option<Rule>,
}

impl Scene {
    /// Writers that each back up these chunks, beside so many collectors; packs of the beginning hold `base`.
    pub fn new(base: &[&[usize]], rooted: &[usize], wants: &[&[usize]], collectors: usize) -> Self {
        let set = |members: &[usize]| Set::of(members.iter().copied());
        Self {
            base: base.iter().map(|chunks| Base { chunks: set(chunks), genuine: true }).collect(),
            rooted: set(rooted),
            wants: wants.iter().map(|chunks| set(chunks)).collect(),
            attempts: 1,
            collectors,
            rounds: 1,
            repack: false,
            stops: false,
            late: false,
            staged: false,
            pages: false,
            broken: None,
        }
    }

    /// The same with a rule broken.
    pub fn without(&self, rule: Rule) -> Self {
        Self { broken: Some(rule), ..self.clone() }
    }

    /// Whether a rule is kept.
    pub fn keeps(&self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    /// A writer's session.
    pub fn session(&self, writer: usize, attempt: usize) -> usize {
        writer * self.attempts + attempt
    }

    /// The session in which a collection repacks.
    pub fn repacker(&self, collection: usize) -> usize {
        self.wants.len() * self.attempts + collection
    }

    /// A collector's collection.
    pub fn collection(&self, collector: usize, round: usize) -> usize {
        match self.keeps(Rule::NeverResumed) {
            true => collector * self.rounds + round,
            false => 0,
        }
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.wants.len() * self.attempts + self.collectors * self.rounds
    }

    /// The writer whose session this is; none for a collector's.
    pub fn writer_of(&self, session: usize) -> Option<usize> {
        Some(session / self.attempts).filter(|&writer| writer < self.wants.len())
    }

    /// The chunks a session's snapshot needs; none for a collector's.
    pub fn needs(&self, session: usize) -> Set {
        self.writer_of(session).map_or(Set::EMPTY, |writer| self.wants[writer])
    }

    /// A session's pack.
    pub fn pack(&self, session: usize) -> usize {
        self.base.len() + session
    }

    /// The session of a pack; none for one of the beginning, whose session counts and is nobody's here.
    pub fn session_of(&self, pack: usize) -> Option<usize> {
        pack.checked_sub(self.base.len())
    }

    /// The packs of these sessions.
    pub fn packs_of(&self, sessions: Set) -> Set {
        Set::of(sessions.iter().map(|session| self.pack(session)))
    }

    /// The packs of the beginning.
    pub fn base_packs(&self) -> Set {
        Set::of(0..self.base.len())
    }

    /// The packs an owner answers for. All writers here are owners, so what they rely on these is the same.
    pub fn trusted(&self) -> Set {
        Set::of((0..16).filter(|&pack| self.base.get(pack).is_none_or(|base| base.genuine)))
    }
}
