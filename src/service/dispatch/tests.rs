//! Risk: a job that should have run did not, ran twice at once, or was held back for ever, in an order of events that nobody
//! thought of. Method: random plans, events, outcomes, reloads, restarts and clocks by seed, against a model that only knows what is
//! owed to each job and since when; then the rules one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::history::{History, Outcome, Run, Trigger};
use super::super::plan::{Hooks, Job, Kind, Plan, Tier, Watch, When};
use super::super::schedule::Schedule;
use super::*;

const T0: i64 = 1_800_000_000_000;
const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

struct Random(u64);

impl Random {
    fn below(&mut self, end: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.unsigned_abs()).cast_signed()
    }

    fn one_in(&mut self, of: i64) -> bool {
        self.below(of) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as i64) as usize]
    }
}

fn job(name: &str, kind: Kind, when: When) -> Job {
    Job {
        name: name.to_owned(),
        kind,
        args: Vec::new(),
        repository: "main".to_owned(),
        target: None,
        tier: None,
        of: None,
        when,
        retries: 0,
        retry_wait: Duration::ZERO,
        timeout: None,
        nice: None,
        hooks: Hooks::default(),
        notify: None,
        enabled: true,
    }
}

fn scheduled(text: &str) -> When {
    When { schedule: vec![text.to_owned()], ..When::default() }
}

fn watching(debounce_ms: i64, delay_max_ms: i64) -> When {
    let watch = Watch {
        paths: vec!["/data".into()],
        include: Vec::new(),
        exclude: Vec::new(),
        debounce: Duration::from_millis(debounce_ms as u64),
        delay_max: Duration::from_millis(delay_max_ms as u64),
    };
    When { watch: Some(watch), ..When::default() }
}

fn after(name: &str) -> When {
    When { after: Some(name.to_owned()), ..When::default() }
}

/// A plan of jobs, each in a tier of its own with this RPO, in UTC.
fn plan(parallel: usize, jobs: impl IntoIterator<Item = (Job, Option<i64>)>) -> Plan {
    let mut plan = Plan::default();
    plan.settings.parallel = parallel;
    plan.settings.time_zone = Some("UTC".to_owned());
    for (mut job, rpo_ms) in jobs {
        if let Some(rpo_ms) = rpo_ms {
            let tier = Tier { rpo: Some(Duration::from_millis(rpo_ms as u64)), ..Tier::default() };
            plan.tiers.insert(job.name.clone(), tier);
            job.tier = Some(job.name.clone());
        }
        plan.jobs.insert(job.name.clone(), job);
    }
    plan
}

fn new(plan: &Plan) -> Dispatcher {
    Dispatcher::new(plan, &BTreeMap::new(), T0, 1).unwrap()
}

fn names(starts: &[Start]) -> Vec<&str> {
    starts.iter().map(|start| start.job.as_str()).collect()
}

fn run(began_ms: i64, ended_ms: i64, outcome: Outcome) -> Run {
    Run {
        began_ms,
        ended_ms,
        tried_ms: began_ms,
        outcome,
        code: 0,
        trigger: Trigger::Schedule,
        tries: 1,
        message: None,
        snapshot: None,
        numbers: BTreeMap::new(),
    }
}

/// What is owed to a job, and what it did: all that the model knows.
#[derive(Debug, Clone, Default)]
struct Model {
    /// The first occurrence, and the first other reason, that no run has begun after.
    occurrence: Option<i64>,
    other: Option<i64>,
    /// What the run that goes on is to make good for.
    covered: (Option<i64>, Option<i64>),
    /// Whether the last run failed: it is then the pause that says when.
    failed: bool,
    /// Whether its schedule became another one: after a restart nothing knows of the old one.
    rewritten: bool,
    running: Option<(i64, i64, Outcome)>,
    starts: Vec<i64>,
}

struct Sim {
    random: Random,
    plan: Plan,
    dispatcher: Dispatcher,
    histories: BTreeMap<String, History>,
    models: BTreeMap<String, Model>,
    now: i64,
}

fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    [a, b].into_iter().flatten().min()
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let plan = random_plan(&mut random);
        let dispatcher = new(&plan);
        let models = plan.jobs.keys().map(|name| (name.clone(), Model::default())).collect();
        let histories =
            plan.jobs.keys().map(|name| (name.clone(), History { since_ms: T0, ..History::default() })).collect();
        Self { random, plan, dispatcher, histories, models, now: T0 }
    }

    /// Goes to `now`, notes what has become due on the way, and ends what ends.
    fn go(&mut self, now: i64) {
        for (name, model) in &mut self.models {
            let job = &self.plan.jobs[name];
            if job.enabled {
                for text in &job.when.schedule {
                    let schedule = Schedule::parse(text, &TimeZone::UTC).unwrap().of(name, 1, Duration::ZERO);
                    let next = schedule.next_after(self.now).filter(|at| *at <= now);
                    model.occurrence = earlier(model.occurrence, next);
                }
            }
        }
        self.now = now;
        let ended: Vec<(String, Outcome, i64)> = self
            .models
            .iter()
            .filter_map(|(name, model)| {
                let (began, ends, outcome) = model.running?;
                (ends <= now).then(|| (name.clone(), outcome, began))
            })
            .collect();
        for (name, outcome, began) in ended {
            self.end(&name, outcome, began);
        }
    }

    fn end(&mut self, name: &str, outcome: Outcome, began: i64) {
        self.dispatcher.ended(name, outcome, self.now);
        let history = self.histories.get_mut(name).unwrap();
        history.add(run(began, self.now, outcome));
        history.scheduled_ms = self.dispatcher.scheduled_ms(name);
        let job = &self.plan.jobs[name];
        let model = self.models.get_mut(name).unwrap();
        model.running = None;
        let (occurrence, other) = std::mem::take(&mut model.covered);
        let again = matches!(job.kind, Kind::Backup | Kind::Copy) || outcome == Outcome::Interrupted;
        model.failed = !outcome.is_success() && again && job.enabled;
        if model.failed {
            model.occurrence = earlier(model.occurrence, occurrence);
            model.other = earlier(model.other, other);
        }
        if outcome.is_success() {
            for (next, job) in &self.plan.jobs {
                if job.enabled && job.when.after.as_deref() == Some(name) {
                    let model = self.models.get_mut(next).unwrap();
                    model.other = earlier(model.other, Some(self.now));
                }
            }
        }
    }

    fn event(&mut self) {
        let names: Vec<String> = self.plan.jobs.keys().cloned().collect();
        let name = &names[self.random.below(names.len() as i64) as usize];
        let job = &self.plan.jobs[name];
        let model = self.models.get_mut(name).unwrap();
        let watched = job.enabled && job.when.watch.is_some();
        match self.random.below(12) {
            0..6 if watched => {
                self.dispatcher.changed(name, self.now);
                model.other = earlier(model.other, Some(self.now));
            }
            6 if watched => {
                let lost = self.dispatcher.watch_lost(name).is_some();
                let state = if lost { WatchState::Fine } else { WatchState::Lost("gone".to_owned()) };
                self.dispatcher.watch_state(name, state, self.now);
                model.other = earlier(model.other, Some(self.now));
            }
            7 => {
                assert!(self.dispatcher.asked(name, self.now));
                model.other = earlier(model.other, Some(self.now));
            }
            8 => self.reload(),
            9 if self.random.one_in(3) => self.restart(),
            _ => {}
        }
    }

    /// Another plan, in which a job was switched off or on or has another schedule.
    fn reload(&mut self) {
        self.plan.settings.parallel = self.random.below(4) as usize;
        let names: Vec<String> = self.plan.jobs.keys().cloned().collect();
        let name = &names[self.random.below(names.len() as i64) as usize];
        let job = self.plan.jobs.get_mut(name).unwrap();
        if self.random.one_in(2) && !job.when.schedule.is_empty() {
            job.when.schedule = vec![format!("every {}s", 30 + self.random.below(600))];
            self.models.get_mut(name).unwrap().rewritten = true;
        } else {
            job.enabled = !job.enabled;
            if !job.enabled {
                let model = self.models.get_mut(name).unwrap();
                (model.occurrence, model.other, model.failed) = (None, None, false);
            }
        }
        self.dispatcher.replace(&self.plan, &self.histories, self.now).unwrap();
    }

    /// Stops, is away for a while, and begins anew.
    fn restart(&mut self) {
        let killed = self.random.one_in(2);
        self.dispatcher.stop();
        assert_eq!(self.dispatcher.poll(self.now), []);
        assert_eq!(self.dispatcher.wake_ms(), None);
        for (name, model) in self.models.clone() {
            let Some((began, ..)) = model.running else { continue };
            if killed {
                self.histories.get_mut(&name).unwrap().running_since_ms = Some(began);
                let model = self.models.get_mut(&name).unwrap();
                model.running = None;
                let (occurrence, _) = std::mem::take(&mut model.covered);
                model.occurrence = earlier(model.occurrence, occurrence);
            } else {
                self.end(&name, Outcome::Interrupted, began);
            }
        }
        let away = self.random.of(&[10, SECOND, 10 * MINUTE, 5 * HOUR]);
        self.go(self.now + away);
        for (name, model) in &mut self.models {
            // What was asked for or seen is gone with the process; watches look at everything when they begin.
            model.other = None;
            if std::mem::take(&mut model.rewritten) || !self.plan.jobs[name].enabled {
                model.occurrence = None;
            }
            model.failed = self.histories[name].failures > 0 || killed;
        }
        self.dispatcher = Dispatcher::new(&self.plan, &self.histories, self.now, 1).unwrap();
    }

    fn poll(&mut self) {
        let starts = self.dispatcher.poll(self.now);
        for start in &starts {
            let model = self.models.get_mut(&start.job).unwrap();
            assert!(model.running.is_none(), "`{}` overlaps itself", start.job);
            assert!(start.due_since_ms <= self.now);
            model.starts.push(self.now);
            model.covered = (model.occurrence.take(), model.other.take());
            let outcome = self.random.of(&[Outcome::Success, Outcome::Success, Outcome::Warning, Outcome::Failure]);
            let long = self.random.of(&[0, 10, SECOND, 10 * SECOND, MINUTE, 20 * MINUTE]);
            model.running = Some((self.now, self.now + self.random.below(long + 1), outcome));
            self.dispatcher.began(&start.job, self.now);
        }
        self.check();
    }

    fn check(&self) {
        let parallel = self.plan.settings.parallel.max(1);
        let running = || self.models.iter().filter(|(_, model)| model.running.is_some());
        let others = running().filter(|(name, _)| self.plan.jobs[*name].kind != Kind::Backup).count();
        assert_eq!(running().count(), self.dispatcher.running());
        let wake = self.dispatcher.wake_ms().unwrap();
        assert!(wake > self.now && wake <= self.now + LOOK_MS, "it would be asked again at once");
        for (name, model) in &self.models {
            let job = &self.plan.jobs[name];
            let told = self.dispatcher.due_since_ms(name);
            let owed = earlier(model.occurrence, model.other);
            let covered = earlier(model.covered.0, model.covered.1);
            if let Some(owed) = earlier(owed, covered) {
                assert!(told.is_some_and(|told| told <= owed), "`{name}` is owed since {owed}, told is {told:?}");
            }
            if model.running.is_none() && model.occurrence.is_some() && !model.failed {
                let full = running().count() >= parallel;
                let kept = job.kind != Kind::Backup && others > 0 && others + 1 >= parallel;
                assert!(full || kept, "`{name}` is due, there is place, and it did not begin");
            }
        }
    }
}

fn random_plan(random: &mut Random) -> Plan {
    let parallel = 1 + random.below(3) as usize;
    let mut jobs = Vec::new();
    for at in 0..2 + random.below(6) {
        let kind = random.of(&[Kind::Backup, Kind::Backup, Kind::Copy, Kind::Scrub, Kind::Prune]);
        let mut when = match random.below(5) {
            0 => When::default(),
            1 => scheduled(&format!("every {}s", 30 + random.below(3600))),
            2 => scheduled(random.of(&["*/5 * * * *", "@hourly", "30 2 * * *", "*/20 * * * * *"])),
            3 => watching(random.below(5000), 5000 + random.below(60_000)),
            _ if at > 0 => after(&format!("job{}", random.below(at))),
            _ => When::default(),
        };
        if random.one_in(5) {
            when.watch = watching(random.below(3000), 10_000).watch;
        }
        let rpo = random.of(&[None, Some(20 * SECOND), Some(5 * MINUTE), Some(4 * HOUR)]);
        jobs.push((job(&format!("job{at}"), kind, when), rpo));
    }
    plan(parallel, jobs)
}

/// No job overlaps itself, bounds hold, what is owed is told and begins as soon as there is place, nothing is forgotten over
/// failures, reloads and restarts, and it is never asked again at once.
#[test]
fn whatever_happens_what_is_owed_is_begun_as_soon_as_there_is_place() {
    for seed in 0..2000 {
        let seen = std::panic::catch_unwind(|| {
            let mut sim = Sim::new(seed);
            sim.poll();
            for _ in 0..150 {
                let ends = sim.models.values().filter_map(|model| Some(model.running?.1)).min();
                let wake = earlier(sim.dispatcher.wake_ms(), ends).unwrap();
                let event = sim.now + 1 + sim.random.of(&[10, 1000, 60_000]).min(1 + sim.random.below(60_000));
                sim.go(wake.min(event).max(sim.now));
                if event <= wake {
                    sim.event();
                }
                sim.poll();
            }
            // Whatever is owed now has begun before long, with nobody in the way for longer than 20 minutes.
            let owed: Vec<String> = sim
                .models
                .iter()
                .filter(|(_, model)| model.occurrence.is_some())
                .map(|(name, _)| name.clone())
                .collect();
            let at = sim.now;
            while sim.now < at + 12 * HOUR
                && !owed.iter().all(|name| sim.models[name].starts.last().is_some_and(|last| *last >= at))
            {
                let ends = sim.models.values().filter_map(|model| Some(model.running?.1)).min();
                sim.go(earlier(sim.dispatcher.wake_ms(), ends).unwrap().max(sim.now));
                sim.poll();
            }
            for name in owed {
                assert!(sim.models[&name].starts.last().is_some_and(|last| *last >= at), "`{name}` never began");
            }
        });
        assert!(seen.is_ok(), "SEED={seed}");
    }
}
