//! What waits to be delivered: a line and a thread for each notifier, so that a server that hangs holds up
//! nobody else, and no backup at all.
//!
//! A line is bounded: when it is full, what is new is given up. What fails and may do better later is tried again after
//! 5 s, 15 s, 45 s, … at most 15 min, or when the server says; it is given up after [`TRIES`] tries or an hour. Pings are worth
//! nothing when they are late: three more tries within seconds. What was given up shows in [`Queue::facts`].
//!
//! [`Line`] decides, without a thread or a clock; the thread around it only waits.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Again, Failure, Item, Ping, Sender};
use crate::service::alerts::{Message, Rule};
use crate::service::facts::NotifierFacts;
use crate::service::plan::{Channel, Job, Kind, Notifier, Plan};
use crate::world::World;

/// The most that waits in a line.
const LINE_MAX: usize = 256;

/// How often a message is tried.
const TRIES: u32 = 8;

/// How often a ping is.
const PING_TRIES: u32 = 4;

/// How old a message gets in line, tried at least once.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// The longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(900);

/// How long a last try may take.
const LAST_TRY: Duration = Duration::from_secs(2);

/// Delivers once.
pub type Deliver = Box<dyn FnMut(&Notifier, &Item) -> Result<(), Failure> + Send>;

/// All notifiers and what waits for them.
pub struct Queue {
    world: World,
    make: Box<dyn Fn(&str) -> Deliver + Send + Sync>,
    lanes: BTreeMap<String, Arc<Lane>>,
}

struct Lane {
    state: Mutex<LaneState>,
    changed: Condvar,
}

struct LaneState {
    notifier: Notifier,
    line: Line,
    facts: NotifierFacts,
    /// Until when what is left may be tried; set when it is to end.
    ends: Option<Duration>,
    ended: bool,
}

impl Queue {
    /// A queue for notifiers that say they are `host`.
    pub fn new(notifiers: &BTreeMap<String, Notifier>, host: &str, world: &World) -> Self {
        let host = host.to_owned();
        Self::with(notifiers, world, move |_| {
            let mut sender = Sender::new(&host);
            Box::new(move |notifier, item| sender.send(notifier, item))
        })
    }

    /// A queue that delivers by what `make` makes for each name.
    pub fn with(
        notifiers: &BTreeMap<String, Notifier>,
        world: &World,
        make: impl Fn(&str) -> Deliver + Send + Sync + 'static,
    ) -> Self {
        let mut queue = Self { world: world.clone(), make: Box::new(make), lanes: BTreeMap::new() };
        queue.reload(notifiers);
        queue
    }

    /// Takes over changed notifiers. What waits is delivered the new way; what waits for one that is gone is tried once more.
    pub fn reload(&mut self, notifiers: &BTreeMap<String, Notifier>) {
        let now = self.world.monotonic();
        self.lanes.retain(|name, lane| {
            let stays = notifiers.contains_key(name);
            if !stays {
                lane.end(now.saturating_add(Duration::from_secs(60)));
            }
            stays
        });
        for (name, notifier) in notifiers {
            match self.lanes.get(name) {
                Some(lane) => lane.lock().notifier = notifier.clone(),
                None => {
                    let lane = Lane::start(name, notifier, (self.make)(name), &self.world);
                    self.lanes.insert(name.clone(), lane);
                }
            }
        }
    }

    /// Puts `message` in line for all who are to hear of it. Never waits.
    pub fn tell(&self, message: &Message, plan: &Plan) {
        let now = self.world.monotonic();
        for (name, lane) in &self.lanes {
            let mut state = lane.lock();
            if hears(name, &state.notifier, message, plan) {
                state.push(Item::Message(Box::new(message.clone())), now);
                lane.changed.notify_all();
            }
        }
    }

    /// Puts a sign of life of a backup in line for dead man's switches. Never waits.
    pub fn ping(&self, job: &Job, ping: &Ping) {
        let now = self.world.monotonic();
        let told = |name: &String| job.notify.as_ref().is_none_or(|names| names.contains(name));
        for (_, lane) in self.lanes.iter().filter(|(name, _)| job.kind == Kind::Backup && told(name)) {
            let mut state = lane.lock();
            if matches!(state.notifier.channel, Channel::Ping { .. }) {
                state.push(Item::Ping(ping.clone()), now);
                lane.changed.notify_all();
            }
        }
    }

    /// What is remembered of a notifier from before: it does not deliver, until it does.
    pub fn recall(&self, name: &str, error: &str) {
        if let Some(lane) = self.lanes.get(name) {
            lane.lock().facts.error = Some(error.to_owned());
        }
    }

    /// How each notifier is doing, in the order of names.
    pub fn facts(&self) -> Vec<NotifierFacts> {
        self.lanes.values().map(|lane| lane.lock().facts.clone()).collect()
    }

    /// Delivers what waits, with all its tries, as far as `patience` goes; says what did not arrive and why. For a process
    /// that ends after it: nothing of it is told again.
    pub fn deliver_all(self, patience: Duration) -> Vec<String> {
        self.drain(patience);
        let lanes = self.lanes.clone();
        let left = self.finish(LAST_TRY);
        let given_up = lanes.iter().filter_map(|(name, lane)| {
            let facts = lane.lock().facts.clone();
            let why = facts.error.filter(|_| facts.given_up > 0)?;
            Some(format!("notifier `{name}`: {} not delivered: {why}", facts.given_up))
        });
        let left = (left > 0).then(|| format!("{left} messages were not delivered"));
        given_up.chain(left).collect()
    }

    /// Waits until nothing waits to be delivered any more, with all tries, or `patience` is over.
    fn drain(&self, patience: Duration) {
        let ends = self.world.monotonic().saturating_add(patience);
        for lane in self.lanes.values() {
            let mut state = lane.lock();
            while !state.ended && (state.line.trying || !state.line.waiting.is_empty()) {
                let patience = ends.saturating_sub(self.world.monotonic());
                if patience.is_zero() {
                    return;
                }
                state = lane.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Tries all that waits once more, at once, and returns when that is done or `patience` is over, with how many are left.
    pub fn finish(self, patience: Duration) -> usize {
        let ends = self.world.monotonic().saturating_add(patience);
        self.lanes.values().for_each(|lane| lane.end(ends));
        let mut left = 0;
        for lane in self.lanes.values() {
            let mut state = lane.lock();
            while !state.ended {
                let patience = ends.saturating_sub(self.world.monotonic());
                if patience.is_zero() {
                    break;
                }
                state = lane.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
            }
            left += state.line.waiting.len() + usize::from(state.line.trying);
        }
        left
    }
}

impl Drop for Queue {
    /// Threads end after what they are at.
    fn drop(&mut self) {
        self.lanes.values().filter(|lane| lane.lock().ends.is_none()).for_each(|lane| lane.end(Duration::ZERO));
    }
}

/// Whether a notifier is told of something: nobody is told that he himself does not hear.
fn hears(name: &str, notifier: &Notifier, message: &Message, plan: &Plan) -> bool {
    let alert = &message.alert;
    let job = alert.labels.get("job").and_then(|job| plan.jobs.get(job));
    // What is about no job is for those who hear of the service.
    let names = job.map_or(plan.settings.notify.as_ref(), |job| job.notify.as_ref());
    !matches!(notifier.channel, Channel::Ping { .. })
        && alert.severity >= notifier.least
        && !(alert.rule == Rule::Notifier && alert.subject == name)
        && names.is_none_or(|names| names.iter().any(|other| other == name))
}

impl Lane {
    fn start(name: &str, notifier: &Notifier, deliver: Deliver, world: &World) -> Arc<Self> {
        let facts = NotifierFacts { name: name.to_owned(), ..NotifierFacts::default() };
        let state = LaneState { notifier: notifier.clone(), line: Line::default(), facts, ends: None, ended: false };
        let lane = Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() });
        let (own, world) = (lane.clone(), world.clone());
        let thread = thread::Builder::new().name(format!("notify {name}")).spawn(move || own.work(deliver, &world));
        if let Err(error) = thread {
            let mut state = lane.lock();
            state.facts.error = Some(format!("its thread did not start: {error}"));
            state.ended = true;
        }
        lane
    }

    fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, at: Duration) {
        self.lock().ends = Some(at);
        self.changed.notify_all();
    }

    fn work(&self, mut deliver: Deliver, world: &World) {
        let mut state = self.lock();
        loop {
            let now = world.monotonic();
            let over = state.ends.is_some_and(|ends| now >= ends);
            let ending = state.ends.is_some();
            match state.line.next(now, ending) {
                Next::Try(waiting) if !over => {
                    let notifier = state.notifier.clone();
                    drop(state);
                    let tried = catch_unwind(AssertUnwindSafe(|| deliver(&notifier, &waiting.item)));
                    let tried = tried.unwrap_or_else(|_| Err(Failure::never("telling it panicked, which is a bug")));
                    state = self.lock();
                    state.settle(waiting, tried, world.monotonic(), ending);
                    self.changed.notify_all();
                }
                Next::Wait(patience) if !ending => {
                    let waited = self.changed.wait_timeout(state, patience);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Next::Idle if !ending => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                next => {
                    if let Next::Try(waiting) = next {
                        state.line.put_back(waiting);
                    }
                    state.ended = true;
                    self.changed.notify_all();
                    return;
                }
            }
        }
    }
}

impl LaneState {
    fn push(&mut self, item: Item, now: Duration) {
        if !self.line.push(item, now) {
            self.facts.given_up += 1;
            self.facts.error = Some(format!("{LINE_MAX} messages wait already"));
        }
    }

    /// `ending` is whether the try began at the end: one that began before is not the last.
    fn settle(&mut self, waiting: Waiting, tried: Result<(), Failure>, now: Duration, ending: bool) {
        match self.line.settle(waiting, tried, now, ending) {
            Settled::Delivered => {
                self.facts.delivered += 1;
                self.facts.error = None;
            }
            Settled::GivenUp(failure) => {
                self.facts.given_up += 1;
                self.facts.error = Some(failure.text);
            }
            Settled::Later => {}
        }
    }
}

/// What waits for one notifier, and what is to be done with it when.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    /// Whether one is being tried.
    trying: bool,
    /// Failures in a row.
    failures: u32,
    /// No try before that.
    not_before: Duration,
}

#[derive(Debug, PartialEq)]
struct Waiting {
    item: Item,
    since: Duration,
    tries: u32,
}

#[derive(Debug, PartialEq)]
enum Next {
    /// Nothing waits.
    Idle,
    /// It is too early.
    Wait(Duration),
    /// This one; [`Line::settle`] is told what came of it.
    Try(Waiting),
}

#[derive(Debug, PartialEq)]
enum Settled {
    Delivered,
    GivenUp(Failure),
    Later,
}

impl Line {
    fn push(&mut self, item: Item, now: Duration) -> bool {
        let fits = self.waiting.len() < LINE_MAX;
        if fits {
            self.waiting.push_back(Waiting { item, since: now, tries: 0 });
        }
        fits
    }

    fn next(&mut self, now: Duration, ending: bool) -> Next {
        if !ending && !self.waiting.is_empty() && now < self.not_before {
            return Next::Wait(self.not_before - now);
        }
        let Some(waiting) = self.waiting.pop_front() else { return Next::Idle };
        self.trying = true;
        Next::Try(waiting)
    }

    fn put_back(&mut self, waiting: Waiting) {
        self.trying = false;
        self.waiting.push_front(waiting);
    }

    fn settle(&mut self, mut waiting: Waiting, tried: Result<(), Failure>, now: Duration, ending: bool) -> Settled {
        self.trying = false;
        waiting.tries += 1;
        let Err(failure) = tried else {
            self.failures = 0;
            self.not_before = Duration::ZERO;
            return Settled::Delivered;
        };
        let (tries, first, factor) = match waiting.item {
            Item::Ping(_) => (PING_TRIES, Duration::from_secs(1), 2u32),
            Item::Message(_) => (TRIES, Duration::from_secs(5), 3),
        };
        let hopeless = failure.again == Again::Never;
        let too_old = waiting.tries >= tries || now.saturating_sub(waiting.since) >= AGE_MAX;
        if hopeless || ending || too_old {
            // The next in line is tried at once: it may be another matter, and once is what each may expect.
            return Settled::GivenUp(failure);
        }
        let wait = first.saturating_mul(factor.saturating_pow(waiting.tries - 1));
        let wait = match failure.again {
            Again::After(after) => after.max(first),
            _ => wait,
        };
        self.failures += 1;
        self.not_before = now.saturating_add(wait.min(WAIT_MAX));
        self.put_back(waiting);
        Settled::Later
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
