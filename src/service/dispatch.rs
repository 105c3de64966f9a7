//! What may begin now: the pure core of the service. It is told what happens, and by which clock; it does nothing.
//!
//! A job becomes *due* by its schedule, by a change of what it watches, after the job it follows, because somebody asks,
//! because what it saved gets old, or because it failed. What comes due while it is due is one run, and while it runs
//! it is one more run after it: a job never overlaps itself.
//!
//! **Who comes first**: whom somebody asked for, then the shorter RPO, then who has waited longest, then the name. One place is kept
//! for backups, so that a long scrub holds none of them back. Nobody starves: every fourth start goes to who has waited longest, if that
//! is longer than its patience.
//!
//! **RPO.** A backup with an RPO that is not scheduled runs at half of it after the last that succeeded began, also when it is watched:
//! changes can get lost, and a run that finds none makes no snapshot. A backup that failed is due again after at most ten minutes,
//! then twice as long, up to an hour, and never more than half the RPO.
//!
//! **Clocks.** After a jump forwards each job is due once, however often it would have been. After one backwards no moment lies in the
//! future: what was due stays due, schedules go on from the new time, and what they said already is not said again
//! unless the jump was long. `wake_ms` is never far away, so that a jump is noticed.
//!
//! Times are milliseconds since 1970.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::debounce::{Debounce, ms};
use super::history::{History, Outcome, Run, Trigger};
use super::plan::{Job, Kind, Plan};
use super::schedule::Schedule;

/// Longest time without a look at the clock.
const LOOK_MS: i64 = 30_000;
/// First and longest wait after a failure.
const RETRY_MS: (i64, i64) = (600_000, 3_600_000);
/// How far a clock is put back without its schedules beginning anew.
const STEP_MS: i64 = 60_000;
/// Least time between runs that stand in for a lost watch.
const SCAN_MS: i64 = 5000;
/// Every which start goes to who has waited longest.
const FAIR: u64 = 4;

/// A run to be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The job.
    pub job: String,
    /// Why.
    pub trigger: Trigger,
    /// Since when it was due.
    pub due_since_ms: i64,
}

/// Whether what a job watches is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchState {
    /// It is.
    Fine,
    /// It is not, and why.
    Lost(String),
}

/// Decides what begins. [`Self::poll`] is to be called after anything else was, and at [`Self::wake_ms`].
#[derive(Debug)]
pub struct Dispatcher {
    entries: BTreeMap<String, Entry>,
    parallel: usize,
    seed: u64,
    now: i64,
    starts: u64,
    stopping: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    rules: Rules,
    /// The next occurrence, and the last that made it due.
    next: Option<i64>,
    taken: Option<i64>,
    debounce: Option<Debounce>,
    lost: Option<String>,
    due: Option<Due>,
    /// Since when it could have begun, had there been place.
    ready: Option<i64>,
    retry: Option<Retry>,
    failures: u64,
    running: Option<Running>,
    last_success: Option<i64>,
    last_begin: Option<i64>,
    scheduled: Option<i64>,
    /// Since when it is known: what never succeeded is too old from then on.
    known: i64,
    /// No longer in the plan; only its run goes on.
    gone: bool,
}

/// What the plan says of a job.
#[derive(Debug, Clone)]
struct Rules {
    backup: bool,
    /// Whether data is less safe for as long as it does not succeed.
    protects: bool,
    enabled: bool,
    rpo: Option<i64>,
    /// Most time from the begin of one that succeeded to the next.
    timer: Option<i64>,
    after: Option<String>,
    schedules: Vec<Schedule>,
    /// What schedules were made from: while it is the same they go on.
    written: (Vec<String>, i64, Option<String>),
    scan: i64,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    since: i64,
    trigger: Trigger,
    /// Whether it does not wait for the end of a pause after a failure.
    urgent: bool,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    at: i64,
    due: Due,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    began: i64,
    covers: Due,
}

impl Dispatcher {
    /// Begins with what is remembered. `seed` is the machine's and stays the same over restarts: phases and jitter come from it.
    /// Fails, naming the job, on a schedule that is none.
    pub fn new(plan: &Plan, histories: &BTreeMap<String, History>, now_ms: i64, seed: u64) -> Result<Self, String> {
        let mut new = Self { entries: BTreeMap::new(), parallel: 1, seed, now: now_ms, starts: 0, stopping: false };
        new.replace(plan, histories, now_ms)?;
        Ok(new)
    }

    /// Goes on with another plan. What is due or runs is not lost, unless its job is gone; a run of such a one goes on to its end.
    /// Fails, and changes nothing, on a schedule that is none. Histories are those of jobs that are new.
    pub fn replace(&mut self, plan: &Plan, histories: &BTreeMap<String, History>, now_ms: i64) -> Result<(), String> {
        let zone = zone(plan)?;
        let none = History::default();
        let mut entries = BTreeMap::new();
        for (name, job) in &plan.jobs {
            let rules = Rules::new(plan, job, &zone, self.seed)?;
            let watch = job.when.watch.as_ref();
            let entry = match self.entries.get(name) {
                Some(old) => {
                    let mut entry = Entry { gone: false, ..old.clone() };
                    entry.take_schedule(now_ms);
                    entry.debounce = watch.map(|watch| {
                        entry.debounce.take().map_or_else(|| Debounce::new(watch), |pending| pending.with(watch))
                    });
                    entry.lost = entry.lost.filter(|_| watch.is_some());
                    if entry.rules.written != rules.written || !entry.rules.enabled {
                        entry.next = rules.next_after(now_ms);
                        entry.taken = None;
                    }
                    if !rules.enabled {
                        entry.due = entry.due.filter(|due| due.trigger == Trigger::Hand);
                        entry.ready = entry.ready.filter(|_| entry.due.is_some());
                        (entry.retry, entry.lost) = (None, None);
                        entry.debounce = watch.map(Debounce::new);
                    }
                    Entry { rules, ..entry }
                }
                None => {
                    let history = histories.get(name).unwrap_or(&none);
                    let before =
                        job.when.after.as_ref().and_then(|before| histories.get(before)?.last_success.as_ref());
                    let mut entry =
                        Entry::new(rules, watch.map(Debounce::new), history, now_ms, plan.settings.catch_up);
                    let before = before.filter(|_| job.enabled && plan.settings.catch_up).map(|run| run.ended_ms);
                    if let Some(ended) = before.filter(|ended| entry.last_begin.is_none_or(|began| began < *ended)) {
                        entry.owe(ended.min(now_ms), Trigger::CatchUp);
                    }
                    entry
                }
            };
            entries.insert(name.clone(), entry);
        }
        for (name, old) in std::mem::take(&mut self.entries) {
            if old.running.is_some() && !entries.contains_key(&name) {
                entries.insert(name, Entry { gone: true, ..old });
            }
        }
        self.entries = entries;
        self.parallel = plan.settings.parallel.max(1);
        Ok(())
    }

    /// What begins now. Each counts as running from here on.
    pub fn poll(&mut self, now_ms: i64) -> Vec<Start> {
        if now_ms < self.now {
            self.entries.values_mut().for_each(|entry| entry.put_back(now_ms));
        }
        self.now = now_ms;
        self.entries.values_mut().for_each(|entry| entry.look(now_ms));
        let mut begun = Vec::new();
        while let Some(name) = self.choose() {
            let entry = self.entries.get_mut(&name).expect("chosen among them");
            let due = entry.start(now_ms);
            self.starts += 1;
            begun.push(Start { job: name, trigger: due.trigger, due_since_ms: due.since });
        }
        begun
    }

    fn choose(&self) -> Option<String> {
        let running = || self.entries.values().filter(|entry| entry.running.is_some());
        if self.stopping || running().count() >= self.parallel {
            return None;
        }
        let others = running().filter(|entry| !entry.rules.backup).count();
        let only_backups = others > 0 && others + 1 >= self.parallel;
        // Copies do not wait for a scrub of many hours either, where there is place for both.
        let patient = running().filter(|entry| !entry.rules.protects).count();
        let only_protecting = self.parallel > 2 && patient > 0 && patient + 2 >= self.parallel;
        let ready = || {
            let able = move |entry: &&Entry| {
                (!only_backups || entry.rules.backup) && (!only_protecting || entry.rules.protects)
            };
            self.entries
                .iter()
                .filter_map(move |(name, entry)| Some((name, entry, self.now - entry.ready.filter(|_| able(&entry))?)))
        };
        let longest = || {
            ready()
                .filter(|(_, entry, waited)| *waited >= entry.rules.patience())
                .max_by_key(|(name, _, waited)| (*waited, Reverse(*name)))
        };
        let first = || ready().min_by_key(|(name, entry, waited)| (entry.rank(), Reverse(*waited), *name));
        let fair = self.starts % FAIR == FAIR - 1;
        let chosen = fair.then(longest).flatten().or_else(first)?;
        Some(chosen.0.clone())
    }

    /// When to poll again if nothing happens before; `None` if there is nothing to wait for.
    pub fn wake_ms(&self) -> Option<i64> {
        if self.stopping || self.entries.is_empty() {
            return None;
        }
        let next = self.entries.values().filter_map(Entry::wake).min();
        Some(next.unwrap_or(i64::MAX).min(self.now.saturating_add(LOOK_MS)))
    }

    /// Something a job watches has changed.
    pub fn changed(&mut self, job: &str, at_ms: i64) {
        let entry = self.entries.get_mut(job).filter(|entry| entry.rules.enabled && !entry.gone);
        if let Some(debounce) = entry.and_then(|entry| entry.debounce.as_mut()) {
            debounce.changed(at_ms);
        }
    }

    /// What a job watches is no longer seen, or again. Either way something may have changed unseen.
    pub fn watch_state(&mut self, job: &str, state: WatchState, now_ms: i64) {
        let Some(entry) = self.entries.get_mut(job).filter(|entry| entry.rules.enabled && entry.debounce.is_some())
        else {
            return;
        };
        let lost = match state {
            WatchState::Fine => None,
            WatchState::Lost(why) => Some(why),
        };
        if entry.lost.is_some() != lost.is_some() {
            entry.debounce.iter_mut().for_each(|debounce| debounce.changed(now_ms));
        }
        if entry.lost.is_some() && lost.is_none() {
            // What was away is back, and with it perhaps why it failed.
            entry.retry.iter_mut().for_each(|retry| retry.at = retry.at.min(now_ms));
        }
        entry.lost = lost;
    }

    /// Somebody asks for a job, also for one that is switched off. False if there is none of the name.
    pub fn asked(&mut self, job: &str, now_ms: i64) -> bool {
        let Some(entry) = self.entries.get_mut(job).filter(|entry| !entry.gone) else { return false };
        entry.owe(now_ms, Trigger::Hand);
        true
    }

    /// A run has begun in earnest: what became due until now is taken up by it.
    pub fn began(&mut self, job: &str, now_ms: i64) {
        if let Some(entry) = self.entries.get_mut(job) {
            entry.began(now_ms);
        }
    }

    /// Of the run that goes on this try is the last: what it saves is as of then. What changed before it and was not
    /// seen to is saved as well, what changed since its beginning is due again.
    pub fn tried(&mut self, job: &str, at_ms: i64) {
        if let Some(running) = self.entries.get_mut(job).and_then(|entry| entry.running.as_mut()) {
            running.began = running.began.max(at_ms);
        }
    }

    /// A run has ended, retries included.
    pub fn ended(&mut self, job: &str, outcome: Outcome, now_ms: i64) {
        let entry = self.entries.get_mut(job).filter(|entry| entry.running.is_some());
        let Some(entry) = entry else { return };
        entry.ended(outcome, now_ms);
        if entry.gone {
            self.entries.remove(job);
        }
        if outcome.is_success() {
            for next in self.entries.values_mut().filter(|next| next.rules.after.as_deref() == Some(job)) {
                if next.rules.enabled && !next.gone {
                    next.owe(now_ms, Trigger::After);
                }
            }
        }
    }

    /// Another process ran a job to its end, and wrote down what came of it: that counts as if it had been run here.
    pub fn learned(&mut self, job: &str, history: &History, now_ms: i64) {
        let Some(entry) = self.entries.get_mut(job).filter(|entry| entry.running.is_none() && !entry.gone) else {
            return;
        };
        let Some(last) = history.last().cloned() else { return };
        entry.learned(history, &last, now_ms);
        if last.outcome.is_success() {
            for next in self.entries.values_mut().filter(|next| next.rules.after.as_deref() == Some(job)) {
                if next.rules.enabled && !next.gone && next.last_begin.is_none_or(|began| began < last.ended_ms) {
                    next.owe(now_ms, Trigger::After);
                }
            }
        }
    }

    /// Begins nothing more.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether a run goes on.
    pub fn is_running(&self, job: &str) -> bool {
        self.entries.get(job).is_some_and(|entry| entry.running.is_some())
    }

    /// How many runs go on.
    pub fn running(&self) -> usize {
        self.entries.values().filter(|entry| entry.running.is_some()).count()
    }

    /// Since when a job should have run and has not, or has not succeeded.
    pub fn due_since_ms(&self, job: &str) -> Option<i64> {
        let entry = self.entries.get(job)?;
        let overdue = entry.timer_ms().filter(|at| *at <= self.now);
        [
            entry.due.map(|due| due.since),
            entry.running.map(|running| running.covers.since),
            entry.retry.map(|retry| retry.due.since),
            entry.debounce.as_ref().and_then(Debounce::first_ms),
            overdue,
            entry.next.filter(|at| *at <= self.now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When a job runs next, unless something else has it run before.
    pub fn next_ms(&self, job: &str) -> Option<i64> {
        let entry = self.entries.get(job)?;
        let again = entry.retry.map(|retry| retry.at).or_else(|| entry.timer_ms());
        [entry.next, again].into_iter().flatten().min().filter(|_| !entry.gone)
    }

    /// Why what a job watches is not seen, if so.
    pub fn watch_lost(&self, job: &str) -> Option<&str> {
        self.entries.get(job)?.lost.as_deref()
    }

    /// Up to when a job's schedule was done or made up for: [`History::scheduled_ms`], to be remembered with each run.
    pub fn scheduled_ms(&self, job: &str) -> Option<i64> {
        self.entries.get(job)?.scheduled
    }
}

impl Rules {
    fn new(plan: &Plan, job: &Job, zone: &TimeZone, seed: u64) -> Result<Self, String> {
        let when = &job.when;
        let jitter = when.jitter.unwrap_or(plan.settings.jitter);
        let schedules = when.schedule.iter().map(|text| {
            let schedule = Schedule::parse(text, zone).map_err(|why| format!("job `{}`: {why}", job.name))?;
            Ok(schedule.of(&job.name, seed, jitter))
        });
        let protects = matches!(job.kind, Kind::Backup | Kind::Copy);
        let rpo = plan.tier(job).and_then(|tier| tier.rpo).map(|rpo| ms(rpo).max(1)).filter(|_| protects);
        let by_itself = when.schedule.is_empty() && when.after.is_none();
        Ok(Self {
            backup: job.kind == Kind::Backup,
            protects,
            enabled: job.enabled,
            rpo,
            timer: rpo.map(|rpo| (rpo / 2).max(1)).filter(|_| job.enabled && (by_itself || when.watch.is_some())),
            after: when.after.clone(),
            schedules: schedules.collect::<Result<_, String>>()?,
            written: (when.schedule.clone(), ms(jitter), plan.settings.time_zone.clone()),
            scan: when.watch.as_ref().map_or(SCAN_MS, |watch| ms(watch.delay_max).max(SCAN_MS)),
        })
    }

    fn next_after(&self, ms: i64) -> Option<i64> {
        let next = self.schedules.iter().filter_map(|schedule| schedule.next_after(ms)).min();
        next.filter(|_| self.enabled)
    }

    /// How long it waits before it is somebody's turn who waits too long.
    fn patience(&self) -> i64 {
        self.rpo.map_or(RETRY_MS.0, |rpo| (rpo / 2).min(RETRY_MS.0))
    }

    /// The wait after so many failures.
    fn pause(&self, failures: u64) -> i64 {
        let most = self.rpo.map_or(RETRY_MS.1, |rpo| (rpo / 2).clamp(1, RETRY_MS.1));
        let doublings = failures.saturating_sub(1).min(10);
        (RETRY_MS.0 << doublings).min(most)
    }
}

impl Entry {
    fn new(rules: Rules, debounce: Option<Debounce>, history: &History, now: i64, catch_up: bool) -> Self {
        let last = history.last();
        let mut entry = Self {
            next: rules.next_after(now),
            taken: None,
            debounce,
            lost: None,
            due: None,
            ready: None,
            retry: None,
            failures: history.failures,
            running: None,
            last_success: history.last_success.as_ref().map(Run::saved_ms),
            last_begin: last.map(|run| run.began_ms),
            scheduled: history.scheduled_ms,
            known: now,
            gone: false,
            rules,
        };
        if !entry.rules.enabled {
            return entry;
        }
        if let Some(last) = last.filter(|last| !last.outcome.is_success()) {
            let failed = history.runs.iter().rev().take_while(|run| !run.outcome.is_success());
            let since = failed.last().map_or(last.began_ms, |first| first.began_ms);
            let due = Due { since, trigger: Trigger::CatchUp, urgent: false };
            if last.outcome == Outcome::Interrupted {
                entry.due = Some(due);
            } else if entry.rules.protects {
                entry.retry = Some(Retry { at: last.ended_ms + entry.rules.pause(history.failures), due });
            }
        }
        if let Some(since) = history.running_since_ms {
            // Killed.
            entry.due = Some(Due { since, trigger: Trigger::CatchUp, urgent: false }.with(entry.due));
        }
        // What was known before a schedule was ever looked at is the first thing that is remembered.
        let since = history.scheduled_ms.or(Some(history.since_ms).filter(|ms| *ms > 0)).or(entry.last_begin);
        if let Some(since) = since.filter(|_| catch_up) {
            let missed = entry.rules.next_after(since).filter(|missed| *missed <= now);
            if let Some(missed) = missed {
                entry.owe(missed, Trigger::CatchUp);
            }
        }
        entry.put_back(now);
        entry
    }

    /// Becomes due.
    fn owe(&mut self, since: i64, trigger: Trigger) {
        let urgent = matches!(trigger, Trigger::Schedule | Trigger::CatchUp | Trigger::Hand);
        self.due = Some(Due { since, trigger, urgent }.with(self.due));
    }

    /// When what it saved gets old.
    fn timer_ms(&self) -> Option<i64> {
        let timer = self.rules.timer?;
        Some(self.last_success.map_or(self.known, |last| last.saturating_add(timer)))
    }

    /// When a run is to stand in for a watch that was lost.
    fn scan_ms(&self) -> Option<i64> {
        self.lost.as_ref()?;
        Some(self.last_begin.map_or(self.known, |last| last.saturating_add(self.rules.scan)))
    }

    /// Sees what has become due.
    fn look(&mut self, now: i64) {
        if self.gone {
            return;
        }
        self.take_schedule(now);
        if self.rules.enabled && self.debounce.as_ref().and_then(Debounce::due_ms).is_some_and(|at| at <= now) {
            let first = self.debounce.as_mut().and_then(Debounce::take);
            self.owe(first.unwrap_or(now), Trigger::Watch);
        }
        if self.running.is_some() {
            return;
        }
        match self.retry {
            Some(retry) if retry.at <= now => {
                self.retry = None;
                self.due = Some(Due { urgent: true, ..retry.due }.with(self.due));
            }
            Some(_) => {}
            None if self.rules.enabled => {
                if let Some(at) = self.timer_ms().filter(|at| *at <= now) {
                    self.owe(at, Trigger::Schedule);
                }
                if let Some(at) = self.scan_ms().filter(|at| *at <= now) {
                    self.owe(at, Trigger::Watch);
                }
            }
            None => {}
        }
        if self.due.is_some_and(|due| due.urgent || self.retry.is_none()) {
            self.ready.get_or_insert(now);
        }
    }

    fn take_schedule(&mut self, now: i64) {
        if let Some(at) = self.next.filter(|at| *at <= now) {
            self.owe(at, Trigger::Schedule);
            self.taken = Some(at);
            self.next = self.rules.next_after(now);
        }
    }

    /// When it may become ready, if it is not.
    fn wake(&self) -> Option<i64> {
        if self.running.is_some() || self.ready.is_some() || self.gone {
            return None;
        }
        if self.due.is_some_and(|due| due.urgent || self.retry.is_none()) {
            return Some(i64::MIN);
        }
        let changed = self.debounce.as_ref().and_then(Debounce::due_ms);
        let again = match self.retry {
            Some(retry) => Some(retry.at),
            None => [self.timer_ms(), self.scan_ms(), changed].into_iter().flatten().min(),
        };
        [self.next, again.filter(|_| self.rules.enabled || self.retry.is_some())].into_iter().flatten().min()
    }

    fn rank(&self) -> (bool, i64) {
        let asked = self.due.is_some_and(|due| due.trigger == Trigger::Hand);
        let other = if self.rules.protects { i64::MAX - 1 } else { i64::MAX };
        (!asked, self.rules.rpo.unwrap_or(other))
    }

    fn start(&mut self, now: i64) -> Due {
        let due = self.due.take().expect("ready because due");
        let covers = self.retry.take().map_or(due, |retry| due.with(Some(retry.due)));
        self.ready = None;
        self.running = Some(Running { began: now, covers });
        self.began(now);
        due
    }

    fn began(&mut self, now: i64) {
        let Some(running) = &mut self.running else { return };
        running.began = now;
        running.covers = running.covers.with(self.due.take());
        if let Some(since) = self.debounce.as_mut().and_then(Debounce::take) {
            running.covers.since = running.covers.since.min(since);
        }
        self.last_begin = Some(now);
    }

    fn ended(&mut self, outcome: Outcome, now: i64) {
        let Some(Running { began, covers }) = self.running.take() else { return };
        if outcome.is_success() {
            self.last_success = Some(began);
            self.failures = 0;
        } else if outcome == Outcome::Interrupted || self.rules.protects {
            self.failures += u64::from(outcome != Outcome::Interrupted);
            let at = now.saturating_add(self.rules.pause(self.failures));
            self.retry = Some(Retry { at, due: covers }).filter(|_| self.rules.enabled);
        }
        if outcome.is_success() || (outcome != Outcome::Interrupted && !self.rules.protects) {
            self.scheduled = Some(began);
        }
    }

    /// What came due before a run of another process is done by it if it succeeded; if not, there is a pause as after
    /// a failure of one's own.
    fn learned(&mut self, history: &History, last: &Run, now: i64) {
        let saved = last.saved_ms().min(now);
        self.failures = history.failures;
        self.last_begin = self.last_begin.max(Some(last.began_ms.min(now)));
        if last.outcome.is_success() {
            self.last_success = self.last_success.max(Some(saved));
            self.scheduled = self.scheduled.max(Some(saved));
            let left = |due: &Due| due.since >= saved || due.trigger == Trigger::Hand;
            self.due = self.due.filter(left);
            self.ready = self.ready.filter(|_| self.due.is_some());
            // What is left has waited for that run alone.
            self.retry = self.retry.filter(|retry| left(&retry.due)).map(|retry| Retry { at: now, ..retry });
            self.debounce.iter_mut().for_each(|debounce| debounce.take_before(saved));
        } else if last.outcome != Outcome::Interrupted && self.rules.protects && self.rules.enabled {
            let due = Due { since: last.began_ms.min(now), trigger: Trigger::CatchUp, urgent: false };
            let due = due.with(self.retry.map(|retry| retry.due));
            self.retry = Some(Retry { at: now.saturating_add(self.rules.pause(self.failures)), due });
        }
    }

    /// Goes on by a clock that says less than it said.
    fn put_back(&mut self, now: i64) {
        let clamp = |at: &mut i64| *at = (*at).min(now);
        self.due.iter_mut().for_each(|due| clamp(&mut due.since));
        self.ready.iter_mut().for_each(clamp);
        self.last_success.iter_mut().for_each(clamp);
        self.last_begin.iter_mut().for_each(clamp);
        self.scheduled.iter_mut().for_each(clamp);
        self.debounce.iter_mut().for_each(|debounce| debounce.clamp(now));
        let pause = self.rules.pause(self.failures);
        if let Some(retry) = &mut self.retry {
            retry.at = retry.at.min(now.saturating_add(pause));
            clamp(&mut retry.due.since);
        }
        if let Some(running) = &mut self.running {
            clamp(&mut running.began);
            clamp(&mut running.covers.since);
        }
        clamp(&mut self.known);
        // A step does not have what was said before it said again; after a long way back nothing else will do.
        self.taken = self.taken.filter(|taken| {
            let gap = self.rules.next_after(*taken).map_or(i64::MAX, |next| next - taken);
            taken - now <= STEP_MS.min(gap / 2)
        });
        self.next = self.rules.next_after(self.taken.map_or(now, |taken| taken.max(now)));
    }
}

impl Due {
    /// Both at once: the longer wait, and the reason that came first, unless somebody asked.
    fn with(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        let (first, second) = if other.since <= self.since { (other, self) } else { (self, other) };
        let trigger = if second.trigger == Trigger::Hand { Trigger::Hand } else { first.trigger };
        Self { since: first.since, trigger, urgent: self.urgent || other.urgent }
    }
}

fn zone(plan: &Plan) -> Result<TimeZone, String> {
    match &plan.settings.time_zone {
        Some(name) => TimeZone::get(name).map_err(|_| format!("`{name}` is not the name of a time zone")),
        None => Ok(TimeZone::system()),
    }
}

#[cfg(test)]
mod tests;
