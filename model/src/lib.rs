//! The protocol by which collections delete beside running backups, as a model (SPEC §9.5, §10).
//!
//! [`store`] is the storage, [`writer`] a backup (W1 to W8), [`collector`] a collection (G1 to G8), [`claims`] what
//! must hold whatever they do. Every request to the storage is a step of its own, and [`explore`] goes
//! through all orders in which the steps of several processes can follow one another. A process that
//! stops is one of which no step follows, so stops at every step are covered; [`scene::Scene`] says what else there is.
//! Where a rule is stated in `esker::repo::session` or `esker::prune` it is kept here as it is there, and each
//! can be broken ([`scene::Rule`]): a model in which nothing fails when a rule is left out says nothing.
//!
//! Left out: what the protocol has no part in (contents, keys, access); checkpoints, whose sessions are to a
//! collector like any other; forgetting, which only changes what is live before a collection begins; folding
//! (`log/`), which nothing does yet.

pub mod claims;
pub mod collector;
pub mod explore;
pub mod scene;
pub mod scenes;
pub mod set;
pub mod store;
pub mod writer;

use collector::Collector;
use scene::Scene;
use set::Set;
use store::{Change, Store};
use writer::Writer;

/// As many writers there may be.
pub const WRITERS: usize = 2;
/// As many collectors.
pub const COLLECTORS: usize = 3;

/// Everything at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The storage.
    pub store: Store,
    /// The backups.
    pub writers: [Writer; WRITERS],
    /// The collectors.
    pub collectors: [Collector; COLLECTORS],
    /// The one request that may arrive late.
    pub late: Late,
}

/// A request that is on its way for longer than its process knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Late {
    /// None yet.
    Unused,
    /// It will arrive some time, or never.
    OnItsWay(Change),
    /// It has arrived.
    Arrived,
}

/// Who does something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// A backup.
    Writer(usize),
    /// A collector.
    Collector(usize),
    /// The network.
    Network,
}

/// What is done, for people.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// By whom.
    pub who: Who,
    /// What, by its label in SPEC.
    pub what: &'static str,
    /// With which packs, sessions or chunks.
    pub on: Set,
}

impl State {
    /// How everything begins.
    pub fn new(scene: &Scene) -> Self {
        assert!(scene.wants.len() <= WRITERS && scene.collectors <= COLLECTORS);
        let mut state = Self {
            store: Store::new(scene),
            writers: [Writer::default(); WRITERS],
            collectors: [Collector::default(); COLLECTORS],
            late: Late::Unused,
        };
        state.writers.iter_mut().for_each(|writer| writer.begin(scene));
        state
    }

    /// Everything that may happen next.
    pub fn steps(&self, scene: &Scene, out: &mut Vec<(Action, Self)>) {
        let mut steps = Steps { scene, state: self, out };
        let begins = |writer: usize| !scene.staged || writer == 0 || self.store.committed.has(scene.session(0, 0));
        (0..scene.wants.len()).filter(|&writer| begins(writer)).for_each(|writer| writer::steps(&mut steps, writer));
        (0..scene.collectors).for_each(|collector| collector::steps(&mut steps, collector));
        if let Late::OnItsWay(change) = self.late {
            steps.go(Who::Network, "a late request arrives", Set::EMPTY, |state| {
                state.store.apply(change);
                state.late = Late::Arrived;
            });
        }
    }
}

/// Where steps are gathered.
pub struct Steps<'s> {
    scene: &'s Scene,
    state: &'s State,
    out: &'s mut Vec<(Action, State)>,
}

impl Steps<'_> {
    /// Adds a step.
    fn go(&mut self, who: Who, what: &'static str, on: Set, change: impl FnOnce(&mut State)) {
        let mut next = *self.state;
        change(&mut next);
        self.out.push((Action { who, what, on }, next));
    }

    /// Adds a request that is acknowledged, and what may become of one that is not: its process stops (if `stop`
    /// says how it goes on from there) and it arrives later; or it is repeated, and both arrive.
    fn send(
        &mut self,
        who: Who,
        what: &'static str,
        on: Set,
        change: Change,
        then: impl Fn(&mut State),
        stop: Option<&dyn Fn(&mut State)>,
    ) {
        self.go(who, what, on, |state| {
            state.store.apply(change);
            then(state);
        });
        if !self.scene.late || self.state.late != Late::Unused {
            return;
        }
        if let Some(stop) = stop {
            self.go(who, "stops, and its last request arrives later:", on, |state| {
                stop(state);
                state.late = Late::OnItsWay(change);
            });
        }
        // What is never deleted can as well arrive twice.
        if matches!(change, Change::Announce { .. } | Change::Pack { .. } | Change::Flag { .. }) {
            self.go(who, "repeats a request, and both arrive:", on, |state| {
                state.store.apply(change);
                then(state);
                state.late = Late::OnItsWay(change);
            });
        }
    }

    /// What a list may show that began when `begun` was there. In a scene without pages a list is of one moment.
    fn listed(&self, begun: Option<Set>, now: Set) -> Listed {
        match begun {
            _ if !self.scene.pages => Listed::All(vec![now]),
            None => Listed::Begun(now),
            Some(begun) => {
                let (sure, unsure) = (begun & now, (begun | now) - (begun & now));
                Listed::All(unsure.subsets().map(|seen| sure | seen).collect())
            }
        }
    }
}

/// How far a list has come.
enum Listed {
    /// It has begun when this was there.
    Begun(Set),
    /// It has ended, with one of these.
    All(Vec<Set>),
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.who {
            Who::Writer(number) => write!(f, "writer {number}: ")?,
            Who::Collector(number) => write!(f, "collector {number}: ")?,
            Who::Network => {}
        }
        write!(f, "{} {:?}", self.what, self.on)
    }
}
