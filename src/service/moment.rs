//! What is known at a moment: what is remembered of jobs and repositories, and what comes of it. The service holds one that lives;
//! `status` and runs by hand load one ([`Moment`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::alerts::{Alert, Book, Message, Rule, evaluate};
use super::dispatch::Dispatcher;
use super::facts::{Facts, JobFacts, Seen, StoreFacts};
use super::history::{History, Run};
use super::metrics::{self, Process};
use super::notify::Ping;
use super::notify::queue::Queue;
use super::plan::{Channel, Job, Notifier, Plan};
use super::run::millis;
use super::runner::{Runner, Stop};
use super::shelf::Shelf;
use super::textfile;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::world::World;

/// How long the last messages are tried at the end.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(15);

/// Who sees changes of what is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seeing {
    /// This process.
    Here,
    /// Another one: that it does is believed for as long as backups are young enough.
    Elsewhere,
    /// Nobody.
    Nobody,
}

/// What is known.
pub(super) struct State {
    pub(super) plan: Arc<Plan>,
    pub(super) dispatcher: Dispatcher,
    pub(super) histories: BTreeMap<String, History>,
    pub(super) seen: BTreeMap<String, Seen>,
    pub(super) book: Book,
    pub(super) queue: Option<Queue>,
    pub(super) reload_failed: Option<String>,
    pub(super) stopping: bool,
    /// The longest times between runs by schedule, in seconds.
    pub(super) intervals: BTreeMap<String, f64>,
    /// Who sees changes.
    pub(super) seeing: Seeing,
}

/// The name the service itself is held by: no job is called that.
pub(super) const SERVICE: &str = "@service";
/// Where it is remembered what people were told.
pub(super) const BOOK: &str = "alerts.book";
/// Where it is remembered what repositories looked like.
pub(super) const SEEN: &str = "seen.book";

/// What is asked, or told, once: without a service, or beside it.
pub struct Moment {
    state: State,
    shelf: Shelf,
    world: World,
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Moment({:?})", self.shelf)
    }
}

impl Moment {
    /// What is remembered of the jobs of a plan.
    ///
    /// # Errors
    ///
    /// Schedules that mean nothing.
    pub fn load(plan: Arc<Plan>, shelf: &Shelf, world: &World, host: &str, tell: &dyn Fn(&str)) -> Result<Self> {
        let mut state = State::load(plan, shelf, millis(world.now()), host, tell)?;
        // A run that was killed is not going on.
        for (name, history) in state.histories.iter_mut().filter(|(_, history)| history.running_since_ms.is_some()) {
            if !shelf.is_running(name) {
                history.running_since_ms = None;
            }
        }
        state.seeing = if matches!(shelf.hold(SERVICE), Ok(None)) { Seeing::Elsewhere } else { Seeing::Nobody };
        Ok(Self { state, shelf: shelf.clone(), world: world.clone() })
    }

    /// Looks at all repositories there are jobs for.
    pub fn look(&mut self, runner: &dyn Runner) {
        for name in used(&self.state.plan) {
            let known = self.state.seen.entry(name.clone()).or_default();
            match runner.look(&name, &Stop::default()) {
                Ok(seen) => *known = seen,
                Err(why) => known.error = Some(why),
            }
        }
    }

    /// Calls with what is true now.
    pub fn with_facts<T>(&self, work: impl FnOnce(&Facts<'_>) -> T) -> T {
        self.state.with_facts(millis(self.world.now()), work)
    }

    /// Does what the service does after a run, unless there is a service: tells who should know, and waits until they
    /// are told; writes the text file.
    pub fn tell(mut self, host: &str, tell: &dyn Fn(&str)) {
        let Ok(Some(_held)) = self.shelf.hold(SERVICE) else { return };
        let (now_ms, plan) = (millis(self.world.now()), self.state.plan.clone());
        self.state.begin_to_tell(host, &self.world);
        for message in self.state.think(now_ms) {
            tell(&message.log_line());
        }
        let _ = std::fs::write(self.shelf.path(BOOK), self.state.book.to_json().to_string());
        if let Some(path) = &plan.settings.textfile
            && let Err(error) = textfile::write(path, &self.state.metrics(now_ms, None))
        {
            tell(&error.with_causes());
        }
        let undelivered = self.state.queue.take().map(|queue| queue.deliver_all(LAST_WORDS));
        undelivered.iter().flatten().for_each(|line| tell(line));
    }
}

/// The signs of life of runs by hand: dead man's switches hear of every run, whoever began it.
pub struct Pings {
    queue: Queue,
    world: World,
}

impl std::fmt::Debug for Pings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pings")
    }
}

impl Pings {
    /// For the dead man's switches of a plan, from this machine.
    pub fn new(plan: &Plan, host: &str, world: &World) -> Self {
        let is_ping = |notifier: &Notifier| matches!(notifier.channel, Channel::Ping { .. });
        let pings = plan.notifiers.iter().filter(|(_, notifier)| is_ping(notifier));
        let pings = pings.map(|(name, notifier)| (name.clone(), notifier.clone())).collect();
        Self { queue: Queue::new(&pings, host, world), world: world.clone() }
    }

    /// A run begins; gives what it is called until it ends.
    pub fn began(&self, job: &Job) -> String {
        let run = Ping::run_id(&self.world);
        self.queue.ping(job, &Ping::began(&job.name, &run));
        run
    }

    /// A run ended.
    pub fn ended(&self, job: &Job, run: &str, how: &Run) {
        Ping::ended(&job.name, run, how).iter().for_each(|ping| self.queue.ping(job, ping));
    }

    /// Waits until all is delivered or given up, and says what was not.
    pub fn finish(self, tell: &dyn Fn(&str)) {
        let finished = self.queue.deliver_all(LAST_WORDS);
        finished.iter().for_each(|line| tell(line));
    }
}

pub(super) fn intervals(plan: &Plan, now_ms: i64) -> BTreeMap<String, f64> {
    let zone = plan.settings.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok());
    metrics::intervals(plan, &zone.unwrap_or_else(TimeZone::system), now_ms)
}

pub(super) fn used(plan: &Plan) -> BTreeSet<String> {
    let of_jobs = plan.jobs.values().flat_map(|job| [Some(&job.repository), job.target.as_ref()]);
    of_jobs.flatten().cloned().collect()
}

impl State {
    pub(super) fn load(plan: Arc<Plan>, shelf: &Shelf, now_ms: i64, host: &str, tell: &dyn Fn(&str)) -> Result<Self> {
        let histories = histories(&plan, shelf, now_ms, tell);
        let seed = u64::from_le_bytes(*blake3::hash(host.as_bytes()).as_bytes().first_chunk().expect("32 bytes"));
        let dispatcher = Dispatcher::new(&plan, &histories, now_ms, seed).map_err(wrong)?;
        let intervals = intervals(&plan, now_ms);
        // Both are learned anew when they are lost.
        let read = |name: &str| std::fs::read(shelf.path(name)).ok();
        let parsed = |name: &str| read(name).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let book = parsed(BOOK).and_then(|value| Book::from_json(&value).ok()).unwrap_or_default();
        let seen = read(SEEN).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Ok(Self {
            plan,
            dispatcher,
            histories,
            seen,
            book,
            queue: None,
            reload_failed: None,
            stopping: false,
            intervals,
            seeing: Seeing::Here,
        })
    }

    /// Begins to tell, as those who did not deliver are remembered.
    pub(super) fn begin_to_tell(&mut self, host: &str, world: &World) {
        let queue = Queue::new(&self.plan.notifiers, host, world);
        for (alert, _) in self.book.open().filter(|(alert, _)| alert.rule == Rule::Notifier) {
            queue.recall(&alert.subject, &alert.detail);
        }
        self.queue = Some(queue);
    }

    /// What is news now; those who are to hear of it are told.
    pub(super) fn think(&mut self, now_ms: i64) -> Vec<Message> {
        let alerts = self.with_facts(now_ms, evaluate);
        let (repeat, settle) = (self.plan.settings.repeat, self.plan.settings.settle);
        let messages = self.book.update(alerts, now_ms, repeat, settle);
        for message in &messages {
            self.queue.iter().for_each(|queue| queue.tell(message, &self.plan));
        }
        messages
    }

    /// All that is true at a moment.
    pub(super) fn with_facts<T>(&self, now_ms: i64, work: impl FnOnce(&Facts<'_>) -> T) -> T {
        static NOTHING: History = History::NEW;
        let jobs = self.plan.jobs.values().map(|job| JobFacts {
            job,
            tier: self.plan.tier(job),
            history: self.histories.get(&job.name).unwrap_or(&NOTHING),
            next_ms: self.dispatcher.next_ms(&job.name),
            due_since_ms: self.dispatcher.due_since_ms(&job.name),
            watch_lost: self.watch_lost(job, now_ms),
        });
        let repositories = self.plan.repositories.iter().map(|(name, store)| StoreFacts {
            name,
            store,
            seen: self.seen.get(name).cloned(),
        });
        let facts = Facts {
            now_ms,
            plan: &self.plan,
            jobs: jobs.collect(),
            repositories: repositories.collect(),
            notifiers: self.queue.as_ref().map(Queue::facts).unwrap_or_default(),
            reload_failed: self.reload_failed.clone(),
        };
        work(&facts)
    }

    fn watch_lost(&self, job: &Job, now_ms: i64) -> Option<String> {
        job.when.watch.as_ref()?;
        let last = self.histories.get(&job.name).and_then(|history| history.last_success.as_ref());
        let rpo = self.plan.tier(job).and_then(|tier| tier.rpo);
        let is_old = || rpo.zip(last).is_some_and(|(rpo, last)| now_ms - last.saved_ms() > rpo.as_millis() as i64);
        match self.seeing {
            Seeing::Here => self.dispatcher.watch_lost(&job.name).map(str::to_owned),
            Seeing::Elsewhere if is_old() => {
                Some("whether the service sees them is not known, it has not backed up within the RPO".to_owned())
            }
            Seeing::Elsewhere => None,
            Seeing::Nobody => Some("no service is running".to_owned()),
        }
    }

    pub(super) fn metrics(&self, now_ms: i64, started_ms: Option<i64>) -> String {
        let open: Vec<Alert> = self.book.open().map(|(alert, _)| alert.clone()).collect();
        let process = Process { intervals: self.intervals.clone(), ..Process::now(started_ms) };
        self.with_facts(now_ms, |facts| metrics::render(facts, &open, &process))
    }
}

/// Reads what is remembered of the jobs of a plan.
pub fn histories(plan: &Plan, shelf: &Shelf, now_ms: i64, tell: &dyn Fn(&str)) -> BTreeMap<String, History> {
    let load = |name: &String| {
        let (history, told) = shelf.load(name, now_ms);
        told.iter().for_each(|line| tell(line));
        (name.clone(), history)
    };
    plan.jobs.keys().map(load).collect()
}

pub(super) fn wrong(what: String) -> Error {
    Error::new(ErrorKind::Usage, what)
}
