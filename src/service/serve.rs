//! The process that lives: begins what is due, notes what came of it, tells who should know.
//!
//! One thread decides and never waits for work: runs, looks at repositories and messages have threads of their own and
//! report back through one channel. What is known stands behind one lock, from which metrics, status and alerts are made whenever
//! they are asked for. Nothing in it is the truth: snapshots are in repositories and runs in the files of
//! [`super::shelf`], so a process that is killed is begun again and goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde_json::{Value, json};

use super::dispatch::{Start, WatchState};
use super::facts::Seen;
use super::history::{History, Outcome, Run, Trigger};
use super::http::{self, Server};
use super::moment::{BOOK, LAST_WORDS, SEEN, SERVICE, State, histories, intervals, used, wrong};
use super::notify::Ping;
use super::plan::{Job, Kind, Plan};
use super::run::{Machine, millis, once};
use super::runner::{Runner, Stop};
use super::shelf::{Held, Shelf};
use super::watch::{Change, Watcher, What};
use super::{status, systemd, textfile};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::world::World;

/// How often alerts are thought about at least and at most.
const TICK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// How often a repository is looked at, at least and at most.
const LOOK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(900));
/// A look may take this share of the time at most.
const LOOK_SHARE: u32 = 20;
/// How often the text file is written.
const TEXTFILE: Duration = Duration::from_secs(15);
/// What the process is asked from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To read the configuration again.
    Reload,
    /// To stop when what runs has come to a safe point.
    Stop,
}

/// A configuration that was read.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// What it says.
    pub plan: Arc<Plan>,
    /// The hash of its text, by which a change is noticed.
    pub digest: String,
}

/// A configuration that was read again, and what has runs go by it from then on.
pub struct Reloaded {
    /// What it says.
    pub configuration: Configuration,
    /// Called when all of it can be used.
    pub take_up: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Reloaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reloaded({})", self.configuration.digest)
    }
}

/// Runs a job in a process of its own, which writes down what came of it. Fails if it could not be run.
pub type Apart = dyn Fn(&Job, Trigger, &Stop) -> std::result::Result<(), String> + Send + Sync;

/// What the service takes from its process.
pub struct Inputs {
    /// Clock and randomness.
    pub world: World,
    /// Runs command lines.
    pub runner: Arc<dyn Runner>,
    /// Where jobs are remembered.
    pub shelf: Shelf,
    /// The environment of hooks.
    pub env: BTreeMap<OsString, OsString>,
    /// This machine.
    pub host: String,
    /// What is configured.
    pub configuration: Configuration,
    /// Reads the configuration again.
    pub reload: Box<dyn Fn() -> std::result::Result<Reloaded, String> + Send>,
    /// What the process is asked.
    pub signals: Receiver<Signal>,
    /// Takes lines for the log.
    pub tell: Arc<dyn Fn(&str) + Send + Sync>,
    /// Runs a job in a process of its own, and waits for it.
    pub apart: Arc<Apart>,
    /// Called with the address that is listened at.
    pub listening: Box<dyn Fn(SocketAddr) + Send>,
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inputs({})", self.host)
    }
}

/// What threads report.
enum Event {
    Ended { job: String, trigger: Trigger, ping: String, result: std::result::Result<Option<Run>, String> },
    Looked { repository: String, seen: std::result::Result<Seen, String>, took: Duration },
}

/// What HTTP tells.
struct Told {
    world: World,
    started_ms: i64,
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http::Source for Told {
    fn metrics(&self) -> String {
        lock(&self.state).metrics(millis(self.world.now()), Some(self.started_ms))
    }

    fn status(&self) -> Value {
        lock(&self.state).with_facts(millis(self.world.now()), status::status_json)
    }

    fn ready(&self) -> std::result::Result<(), String> {
        match lock(&self.state).stopping {
            true => Err("it is stopping".to_owned()),
            false => Ok(()),
        }
    }
}

/// Serves until it is asked to stop.
///
/// # Errors
///
/// When it cannot begin: schedules or patterns that mean nothing, an address that is taken.
pub fn serve(inputs: Inputs) -> Result<()> {
    Service::begin(inputs)?.run()
}

struct Service {
    inputs: Inputs,
    _held: Held,
    state: Arc<Mutex<State>>,
    events: (Sender<Event>, Receiver<Event>),
    changes: (Sender<Change>, Receiver<Change>),
    watcher: Option<Watcher>,
    server: Option<Server>,
    /// Where it was asked to listen: port 0 is any.
    listen: Option<SocketAddr>,
    stop: Stop,
    started_ms: i64,
    looks: BTreeMap<String, Look>,
    ticked: Option<Instant>,
    written: Option<Instant>,
    book_text: String,
    /// When the files of jobs were written that were read last.
    stamps: BTreeMap<String, SystemTime>,
}

/// When a repository is looked at.
#[derive(Default)]
struct Look {
    last: Option<Instant>,
    took: Duration,
    /// Something was done to it since.
    wanted: bool,
    running: bool,
}

impl Service {
    fn begin(inputs: Inputs) -> Result<Self> {
        let started_ms = millis(inputs.world.now());
        let plan = inputs.configuration.plan.clone();
        let tell = inputs.tell.clone();
        let failed = |error| Error::new(ErrorKind::Failed, "cannot hold the state directory").because(error);
        let held = inputs.shelf.hold(SERVICE).map_err(failed)?.ok_or_else(|| {
            let what = "another `esker serve` uses this state directory";
            Error::new(ErrorKind::Refused, what).hint("stop it, or name another directory with `--state-dir DIR`")
        })?;
        let mut state = State::load(plan.clone(), &inputs.shelf, started_ms, &inputs.host, &*tell)?;
        state.begin_to_tell(&inputs.host, &inputs.world);
        let state = Arc::new(Mutex::new(state));
        let mut service = Self {
            inputs,
            _held: held,
            state,
            events: unbounded(),
            // A watcher waits when nobody takes what it tells, and joins it.
            changes: crossbeam_channel::bounded(1024),
            watcher: None,
            server: None,
            listen: None,
            stop: Stop::default(),
            started_ms,
            looks: BTreeMap::new(),
            ticked: None,
            written: None,
            book_text: String::new(),
            stamps: BTreeMap::new(),
        };
        service.listen(plan.settings.listen)?;
        service.watcher = service.watch(&plan)?;
        service.note_configuration(&service.inputs.configuration.clone());
        Ok(service)
    }

    fn now_ms(&self) -> i64 {
        millis(self.inputs.world.now())
    }

    fn tell(&self, line: &str) {
        (self.inputs.tell)(line);
    }

    /// Listens where it is to, or where it did when that cannot be.
    fn listen(&mut self, wanted: Option<SocketAddr>) -> Result<()> {
        if self.listen == wanted {
            return Ok(());
        }
        let before = self.listen;
        // The same port at another address is free when the one before is.
        if wanted.zip(before).is_none_or(|(wanted, before)| wanted.port() == before.port()) {
            (self.server, self.listen) = (None, None);
        }
        let Some(address) = wanted else { return Ok(()) };
        match self.listen_at(address) {
            Err(error) => {
                if let (None, Some(before)) = (self.listen, before) {
                    self.listen_at(before)?;
                }
                Err(error)
            }
            done => done,
        }
    }

    fn listen_at(&mut self, address: SocketAddr) -> Result<()> {
        let told = Told { world: self.inputs.world.clone(), started_ms: self.started_ms, state: self.state.clone() };
        let server = http::start(address, Arc::new(told), http::Limits::default())?;
        (self.inputs.listening)(server.address());
        (self.server, self.listen) = (Some(server), Some(address));
        Ok(())
    }

    /// Begins to watch what a plan has watched.
    fn watch(&self, plan: &Plan) -> Result<Option<Watcher>> {
        let watched = plan.jobs.values().filter(|job| job.enabled);
        let watched: Vec<_> = watched.filter_map(|job| Some((job.name.clone(), job.when.watch.clone()?))).collect();
        if watched.is_empty() {
            return Ok(None);
        }
        let world = self.inputs.world.clone();
        let watcher = Watcher::start(&watched, self.changes.0.clone(), move || millis(world.now()));
        watcher.map(Some).map_err(wrong)
    }

    fn run(mut self) -> Result<()> {
        systemd::tell(systemd::Tell::Ready);
        let signals = self.inputs.signals.clone();
        loop {
            let now_ms = self.now_ms();
            // Not in the head of the loop, where the lock would be held through its body.
            let starts = lock(&self.state).dispatcher.poll(now_ms);
            starts.into_iter().for_each(|start| self.start(start, now_ms));
            self.look_around();
            self.tick();
            systemd::tell(systemd::Tell::Alive);
            if self.is_over() {
                break;
            }
            let timeout = self.until_next();
            crossbeam_channel::select! {
                recv(self.events.1) -> event => event.into_iter().for_each(|event| self.take(event)),
                recv(self.changes.1) -> change => change.into_iter().for_each(|change| self.change(&change)),
                recv(signals) -> signal => match signal {
                    Ok(Signal::Reload) => self.reload(),
                    // Without anybody who could ask, nobody asks to go on either.
                    Ok(Signal::Stop) | Err(_) => self.begin_to_stop(),
                },
                default(timeout) => {}
            }
        }
        self.end();
        Ok(())
    }

    fn is_over(&self) -> bool {
        let state = lock(&self.state);
        state.stopping && state.dispatcher.running() == 0 && !self.looks.values().any(|look| look.running)
    }

    fn until_next(&self) -> Duration {
        let state = lock(&self.state);
        let wake = state
            .dispatcher
            .wake_ms()
            .map_or(TICK.1, |at| Duration::from_millis(u64::try_from(at.saturating_sub(self.now_ms())).unwrap_or(0)));
        wake.min(tick(&state.plan)).max(Duration::from_millis(1))
    }

    fn begin_to_stop(&mut self) {
        let mut state = lock(&self.state);
        if !state.stopping {
            systemd::tell(systemd::Tell::Stopping);
            state.stopping = true;
            state.dispatcher.stop();
            let running = state.dispatcher.running();
            drop(state);
            self.watcher = None;
            self.tell(&format!("stopping; {running} jobs are brought to a safe point"));
            self.stop.ask();
        }
        // Whoever asks has gone: not to be asked again and again.
        self.inputs.signals = crossbeam_channel::never();
    }

    fn end(&mut self) {
        self.ticked = None;
        self.written = None;
        self.tick();
        self.server = None;
        let queue = lock(&self.state).queue.take();
        let left = queue.map_or(0, |queue| queue.finish(LAST_WORDS));
        if left > 0 {
            self.tell(&format!("{left} messages were not delivered"));
        }
        self.tell("stopped");
    }

    fn start(&self, start: Start, now_ms: i64) {
        let mut state = lock(&self.state);
        let Some(job) = state.plan.jobs.get(&start.job).cloned() else { return };
        state.dispatcher.began(&job.name, now_ms);
        if let Some(history) = state.histories.get_mut(&job.name) {
            history.running_since_ms = Some(now_ms);
        }
        let ping = Ping::run_id(&self.inputs.world);
        let began = Ping::began(&job.name, &ping);
        state.queue.iter().for_each(|queue| queue.ping(&job, &began));
        let scheduled_ms = state.dispatcher.scheduled_ms(&job.name);
        drop(state);
        let (world, runner) = (self.inputs.world.clone(), self.inputs.runner.clone());
        let (shelf, env) = (self.inputs.shelf.clone(), self.inputs.env.clone());
        let (tell, apart) = (self.inputs.tell.clone(), self.inputs.apart.clone());
        let (stop, events) = (self.stop.child(), self.events.0.clone());
        let (name, trigger, run_id) = (job.name.clone(), start.trigger, ping.clone());
        let work = move || {
            let run = || match job.nice {
                Some(_) => {
                    let done = apart(&job, trigger, &stop);
                    match (ran_since(&shelf, &job.name, now_ms), done) {
                        (Some(run), _) => Ok(Some(run)),
                        (None, Ok(())) => Ok(None),
                        (None, Err(why)) => {
                            Ok(Some(put_down(&shelf, &job.name, trigger, now_ms, millis(world.now()), why)))
                        }
                    }
                }
                None => {
                    let tell = |line: &str| tell(line);
                    let machine = Machine { world: &world, runner: &*runner, env: &env, tell: &tell };
                    let ran = once(&machine, &shelf, &job, trigger, scheduled_ms, &stop);
                    ran.map(|ran| ran.map(|(run, _)| run)).map_err(|error| error.to_string())
                }
            };
            // Whatever happens the end is reported, or the job would run for ever.
            let result = catch_unwind(AssertUnwindSafe(run))
                .unwrap_or_else(|_| Err("a defect of this program ended it".to_owned()));
            let _ = events.send(Event::Ended { job: job.name.clone(), trigger, ping: run_id, result });
        };
        if let Err(error) = std::thread::Builder::new().name("job".to_owned()).spawn(work) {
            let result = Err(format!("no thread: {error}"));
            let _ = self.events.0.send(Event::Ended { job: name, trigger, ping, result });
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Ended { job, trigger, ping, result } => self.ended(&job, trigger, &ping, result),
            Event::Looked { repository, seen, took } => self.looked(repository, seen, took),
        }
    }

    fn ended(&mut self, name: &str, trigger: Trigger, ping: &str, result: std::result::Result<Option<Run>, String>) {
        let now_ms = self.now_ms();
        let (history, told) = self.inputs.shelf.load(name, now_ms);
        told.iter().for_each(|line| self.tell(line));
        let mut state = lock(&self.state);
        let (run, why) = match result {
            Ok(run) => (run, None),
            Err(why) => (None, Some(why)),
        };
        let outcome = run.as_ref().map_or(Outcome::Failure, |run| run.outcome);
        let held = run.is_none() && why.is_none();
        run.iter().for_each(|run| state.dispatcher.tried(name, run.tried_ms));
        // Somebody else runs it just now; it is tried again as after an interruption.
        state.dispatcher.ended(name, if held { Outcome::Interrupted } else { outcome }, now_ms);
        if held && history.running_since_ms.is_none() {
            // It has ended meanwhile.
            state.dispatcher.learned(name, &history, now_ms);
        }
        state.histories.insert(name.to_owned(), history);
        let job = state.plan.jobs.get(name).cloned();
        let queue = state.queue.as_ref();
        if let (Some(job), Some(run), Some(queue)) = (&job, &run, queue) {
            Ping::ended(name, ping, run).iter().for_each(|ping| queue.ping(job, ping));
        }
        drop(state);
        let line = match (&run, why) {
            (_, Some(why)) => format!("{name}: not run: {why}"),
            (None, None) => format!("{name}: left to another process that runs it"),
            (Some(run), None) => {
                let message = run.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
                let snapshot = run.snapshot.as_ref().map(|id| format!(", snapshot {}", id.get(..8).unwrap_or(id)));
                let why = trigger_word(trigger);
                let outcome = run.outcome.name();
                format!("{name}: {outcome} in {:.1} s ({why}){}{message}", run.seconds(), snapshot.unwrap_or_default())
            }
        };
        self.tell(&line);
        if let Some(job) = job {
            for repository in [Some(&job.repository), job.target.as_ref()].into_iter().flatten() {
                self.looks.entry(repository.clone()).or_default().wanted = true;
            }
        }
        self.ticked = None;
    }

    fn change(&self, change: &Change) {
        let now_ms = self.now_ms();
        let mut state = lock(&self.state);
        match &change.what {
            What::Changed => state.dispatcher.changed(&change.job, change.at_ms),
            What::Fine => {
                let was_lost = state.dispatcher.watch_lost(&change.job).is_some();
                state.dispatcher.watch_state(&change.job, WatchState::Fine, now_ms);
                drop(state);
                if was_lost {
                    self.tell(&format!("{}: changes are seen again", change.job));
                }
            }
            What::Lost(why) => {
                state.dispatcher.watch_state(&change.job, WatchState::Lost(why.clone()), now_ms);
                drop(state);
                self.tell(&format!(
                    "{}: changes are not seen at once, backups now and again find them: {why}",
                    change.job
                ));
            }
        }
    }

    /// Begins to look at one repository, if one is due: never two at a time.
    fn look_around(&mut self) {
        let (plan, stopping) = {
            let state = lock(&self.state);
            (state.plan.clone(), state.stopping)
        };
        if stopping || self.looks.values().any(|look| look.running) {
            return;
        }
        self.looks.retain(|name, _| plan.repositories.contains_key(name));
        let used = used(&plan);
        let least = least_rpo(&plan).map_or(LOOK.1, |rpo| (rpo / 4).clamp(LOOK.0, LOOK.1));
        let is_due = |look: &Look| {
            let Some(last) = look.last else { return true };
            let pause = least.max(look.took * LOOK_SHARE);
            last.elapsed() >= if look.wanted { pause } else { LOOK.1.max(pause) }
        };
        let never = Look::default();
        let due = used.iter().filter(|name| is_due(self.looks.get(*name).unwrap_or(&never)));
        let Some(name) = due.min_by_key(|name| self.looks.get(*name).and_then(|look| look.last)).cloned() else {
            return;
        };
        let look = self.looks.entry(name.clone()).or_default();
        (look.running, look.wanted) = (true, false);
        let (runner, stop, events) = (self.inputs.runner.clone(), self.stop.child(), self.events.0.clone());
        let repository = name.clone();
        let work = move || {
            let began = Instant::now();
            let seen = runner.look(&repository, &stop);
            let _ = events.send(Event::Looked { repository, seen, took: began.elapsed() });
        };
        if let Err(error) = std::thread::Builder::new().name("look".to_owned()).spawn(work) {
            let seen = Err(format!("no thread: {error}"));
            let _ = self.events.0.send(Event::Looked { repository: name, seen, took: Duration::ZERO });
        }
    }

    fn looked(&mut self, repository: String, seen: std::result::Result<Seen, String>, took: Duration) {
        let look = self.looks.entry(repository.clone()).or_default();
        (look.running, look.last, look.took) = (false, Some(Instant::now()), took);
        if seen.is_err() {
            // Soon again: whether it is back is worth knowing.
            look.wanted = true;
        }
        let mut state = lock(&self.state);
        if state.stopping {
            return;
        }
        let known = state.seen.entry(repository).or_default();
        match seen {
            Ok(seen) => *known = seen,
            Err(why) => known.error = Some(why),
        }
        let text = serde_json::to_vec(&state.seen);
        drop(state);
        // It is learned anew if it is lost.
        if let Ok(text) = text {
            let _ = std::fs::write(self.inputs.shelf.path(SEEN), text);
        }
        self.ticked = None;
    }

    /// Thinks about alerts and tells what is news; writes the text file.
    fn tick(&mut self) {
        let every = tick(&lock(&self.state).plan);
        if self.ticked.is_none_or(|last| last.elapsed() >= every) {
            self.ticked = Some(Instant::now());
            self.think();
        }
        let textfile = lock(&self.state).plan.settings.textfile.clone();
        if let Some(path) = textfile.filter(|_| self.written.is_none_or(|last| last.elapsed() >= TEXTFILE)) {
            self.written = Some(Instant::now());
            let text = lock(&self.state).metrics(self.now_ms(), Some(self.started_ms));
            if let Err(error) = textfile::write(&path, &text) {
                self.tell(&error.with_causes());
            }
        }
    }

    fn think(&mut self) {
        self.read_of_others();
        let now_ms = self.now_ms();
        let mut state = lock(&self.state);
        let messages = state.think(now_ms);
        let text = state.book.to_json().to_string();
        drop(state);
        for message in &messages {
            self.tell(&message.log_line());
        }
        if text != self.book_text {
            // Lost, it is told once more.
            let _ = std::fs::write(self.inputs.shelf.path(BOOK), &text);
            self.book_text = text;
        }
    }

    /// Takes in what others wrote down of jobs: runs by hand.
    fn read_of_others(&mut self) {
        let (plan, now_ms) = (lock(&self.state).plan.clone(), self.now_ms());
        for name in plan.jobs.keys() {
            let Some(stamp) = self.inputs.shelf.stamp(name) else { continue };
            if self.stamps.insert(name.clone(), stamp) == Some(stamp) {
                continue;
            }
            let (history, _) = self.inputs.shelf.load(name, now_ms);
            let mut state = lock(&self.state);
            if state.dispatcher.is_running(name) {
                continue;
            }
            let ended = |history: &History| history.last().map(|run| run.ended_ms);
            if ended(&history) != state.histories.get(name).and_then(ended) {
                state.dispatcher.learned(name, &history, now_ms);
            }
            state.histories.insert(name.clone(), history);
        }
    }

    fn reload(&mut self) {
        systemd::tell(systemd::Tell::Reloading);
        let result = self.try_reload();
        let mut state = lock(&self.state);
        state.reload_failed = result.as_ref().err().cloned();
        drop(state);
        match result {
            Ok(what) => self.tell(&format!("the configuration was read again: {what}")),
            Err(why) => self.tell(&format!("the configuration is not used, the one before goes on: {why}")),
        }
        self.ticked = None;
        systemd::tell(systemd::Tell::Ready);
    }

    fn try_reload(&mut self) -> std::result::Result<String, String> {
        let before = lock(&self.state).plan.clone();
        let Reloaded { configuration, take_up } = (self.inputs.reload)()?;
        let (plan, now_ms) = (configuration.plan.clone(), self.now_ms());
        // All of it is used, or nothing: first what may not work.
        let watcher = self.watch(&plan).map_err(|error| error.with_causes())?;
        self.listen(plan.settings.listen).map_err(|error| error.with_causes())?;
        let tell = self.inputs.tell.clone();
        let mut histories = histories(&plan, &self.inputs.shelf, now_ms, &*tell);
        {
            let mut state = lock(&self.state);
            state.dispatcher.replace(&plan, &histories, now_ms)?;
            // What runs goes on, and ends as it began.
            for (name, known) in std::mem::take(&mut state.histories) {
                if state.dispatcher.is_running(&name) {
                    histories.insert(name, known);
                }
            }
            state.histories = histories;
            state.plan = plan.clone();
            state.intervals = intervals(&plan, now_ms);
            if let Some(queue) = &mut state.queue {
                queue.reload(&plan.notifiers);
            }
        }
        take_up();
        self.watcher = watcher;
        self.note_configuration(&configuration);
        Ok(difference(&before, &plan))
    }

    /// Writes down in each repository that the configuration is another one than before.
    fn note_configuration(&self, configuration: &Configuration) {
        let path = self.inputs.shelf.path("configuration.digest");
        if std::fs::read_to_string(&path).is_ok_and(|known| known == configuration.digest) {
            return;
        }
        let plan = configuration.plan.clone();
        let jobs: Vec<&String> = plan.jobs.keys().collect();
        let detail = json!({ "host": self.inputs.host, "digest": configuration.digest, "jobs": jobs });
        // Notes are bounded; how many jobs there are is enough then.
        let mut detail = detail.to_string();
        if detail.len() > 4000 {
            let short = json!({ "host": self.inputs.host, "digest": configuration.digest, "jobs": jobs.len() });
            detail = short.to_string();
        }
        let used: BTreeSet<String> = plan.jobs.values().map(|job| job.repository.clone()).collect();
        let (runner, tell, digest) =
            (self.inputs.runner.clone(), self.inputs.tell.clone(), configuration.digest.clone());
        let work = move || {
            let mut all = true;
            for repository in used {
                if let Err(why) = runner.note(&repository, "configuration", &detail) {
                    all = false;
                    tell(&format!("{repository}: that the configuration changed is not written down: {why}"));
                }
            }
            if all {
                let _ = std::fs::write(path, digest);
            }
        };
        let _ = std::thread::Builder::new().name("note".to_owned()).spawn(work);
    }
}

/// The run that a process of its own wrote down, if it began since.
fn ran_since(shelf: &Shelf, job: &str, since_ms: i64) -> Option<Run> {
    let (history, _) = shelf.load(job, since_ms);
    history.runs.last().filter(|run| run.began_ms >= since_ms).cloned()
}

/// Puts down a run whose process did not begin: it failed, and people are told.
fn put_down(shelf: &Shelf, job: &str, trigger: Trigger, began_ms: i64, ended_ms: i64, why: String) -> Run {
    let run = Run {
        began_ms,
        ended_ms,
        tried_ms: began_ms,
        outcome: Outcome::Failure,
        code: 1,
        trigger,
        tries: 1,
        message: Some(why),
        snapshot: None,
        result: None,
        numbers: BTreeMap::new(),
    };
    if let Ok(Some(_held)) = shelf.hold(job) {
        let (mut history, _) = shelf.begin(job, began_ms, trigger, None);
        history.add(run.clone());
        let _ = shelf.save(job, &history);
    }
    run
}

fn trigger_word(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Schedule => "schedule",
        Trigger::CatchUp => "made up for",
        Trigger::Watch => "change",
        Trigger::After => "follows",
        Trigger::Hand => "by hand",
    }
}

fn least_rpo(plan: &Plan) -> Option<Duration> {
    plan.jobs.values().filter(|job| job.kind == Kind::Backup).filter_map(|job| plan.tier(job)?.rpo).min()
}

fn tick(plan: &Plan) -> Duration {
    least_rpo(plan).map_or(TICK.1, |rpo| (rpo / 20).clamp(TICK.0, TICK.1))
}

/// What became of the jobs, in words.
fn difference(before: &Plan, after: &Plan) -> String {
    let added = after.jobs.keys().filter(|name| !before.jobs.contains_key(*name)).count();
    let removed = before.jobs.keys().filter(|name| !after.jobs.contains_key(*name)).count();
    format!("{} jobs, {added} new, {removed} gone", after.jobs.len())
}
