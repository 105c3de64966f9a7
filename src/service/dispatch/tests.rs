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
        result: None,
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
                let protects = |job: &Job| matches!(job.kind, Kind::Backup | Kind::Copy);
                let patient = running().filter(|(name, _)| !protects(&self.plan.jobs[*name])).count();
                let kept = kept || !protects(job) && parallel > 2 && patient > 0 && patient + 2 >= parallel;
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

/// A run: its job, begin and end.
type Ran = (String, i64, i64);

/// Runs what begins until `end`, each job for as long as `take` says, and looks only when it was asked to.
fn drive(
    dispatcher: &mut Dispatcher,
    now: i64,
    end: i64,
    mut take: impl FnMut(&str, i64) -> (i64, Outcome),
) -> Vec<Ran> {
    let mut running: Vec<(i64, String, i64, Outcome)> = Vec::new();
    let mut ran = Vec::new();
    let mut now = now;
    while now < end {
        running.sort_by_key(|run| Reverse(run.0));
        while let Some((ends, job, began, outcome)) = running.pop_if(|run| run.0 <= now) {
            dispatcher.ended(&job, outcome, now);
            ran.push((job, began, ends));
        }
        for start in dispatcher.poll(now) {
            let (long, outcome) = take(&start.job, now);
            running.push((now + long, start.job, now, outcome));
        }
        let wake = earlier(dispatcher.wake_ms(), running.iter().map(|run| run.0).min()).unwrap();
        now = wake.max(now);
    }
    ran.extend(running.into_iter().map(|(ends, job, began, _)| (job, began, ends)));
    ran.sort_by_key(|run| run.1);
    ran
}

fn begins(ran: &[Ran], job: &str) -> Vec<i64> {
    ran.iter().filter(|run| run.0 == job).map(|run| run.1 - T0).collect()
}

/// Every job's RPO, while scrubs take for ever.
#[test]
fn what_is_safe_is_never_older_than_the_rpo_while_there_is_time_for_it() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let parallel = 2 + random.below(2) as usize;
        let mut jobs: Vec<(Job, Option<i64>)> = (0..6)
            .map(|at| {
                let when = if random.one_in(2) { When::default() } else { watching(1000, 10_000) };
                let rpo = random.of(&[MINUTE, 2 * MINUTE, 10 * MINUTE, HOUR]);
                (job(&format!("backup{at}"), Kind::Backup, when), Some(rpo))
            })
            .collect();
        jobs.push((job("scrub", Kind::Scrub, scheduled("@hourly")), None));
        jobs.push((job("check", Kind::Check, scheduled("@hourly")), None));
        let plan = plan(parallel, jobs);
        let mut dispatcher = new(&plan);
        let end = T0 + 6 * HOUR;
        let ran = drive(&mut dispatcher, T0, end, |job, _| {
            let long = if job.starts_with("backup") { random.below(3 * SECOND) } else { 10 * HOUR };
            (long, Outcome::Success)
        });
        for (name, job) in plan.jobs.iter().filter(|(_, job)| job.kind == Kind::Backup) {
            let rpo = ms(plan.tier(job).unwrap().rpo.unwrap());
            let mut safe = T0;
            for (_, began, ended) in ran.iter().filter(|run| run.0 == *name && run.2 <= end) {
                assert!(ended - safe <= rpo, "SEED={seed} {name}: {} ms old", ended - safe);
                safe = *began;
            }
            assert!(end - safe <= rpo, "SEED={seed} {name}");
        }
    }
}

/// Twelve backups that want three times what there is, of the shortest RPO there is, and others beside them.
#[test]
fn nobody_starves_however_much_others_want() {
    for parallel in 1..4 {
        let mut jobs: Vec<(Job, Option<i64>)> = (0..12 * parallel)
            .map(|at| (job(&format!("hungry{at}"), Kind::Backup, When::default()), Some(10 * SECOND)))
            .collect();
        jobs.push((job("daily", Kind::Backup, scheduled("@hourly")), Some(24 * HOUR)));
        jobs.push((job("plain", Kind::Backup, scheduled("@hourly")), None));
        jobs.push((job("prune", Kind::Prune, scheduled("@hourly")), None));
        jobs.push((job("check", Kind::Check, scheduled("@hourly")), None));
        let count = jobs.len() as i64;
        let plan = plan(parallel, jobs);
        let mut dispatcher = new(&plan);
        let long = 5 * SECOND;
        let ran = drive(&mut dispatcher, T0, T0 + 24 * HOUR, |_, _| (long, Outcome::Success));
        let most = plan.jobs["prune"].when.schedule.len() as i64 * RETRY_MS.0 + FAIR as i64 * count * long;
        for name in ["daily", "plain", "prune", "check"] {
            let begins = begins(&ran, name);
            assert!(begins.len() >= 22, "{parallel}: {name} ran {} times", begins.len());
            for (at, begin) in begins.iter().enumerate() {
                let due = (T0 / HOUR + 1 + at as i64) * HOUR - T0;
                assert!(begin - due <= most, "{parallel}: {name} waited {} s", (begin - due) / 1000);
            }
        }
        let hungry: Vec<usize> = (0..12 * parallel).map(|at| begins(&ran, &format!("hungry{at}")).len()).collect();
        let (least, most) = (hungry.iter().min().unwrap(), hungry.iter().max().unwrap());
        assert!(most - least <= most / 10, "those who are alike are served alike: {hungry:?}");
    }
}

/// The clock that is shown is real time and a shift that jumps; the process wakes by real time.
#[test]
fn a_clock_that_jumps_neither_floods_nor_stalls() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let jobs = [
            (job("every", Kind::Backup, scheduled("every 20s")), None),
            (job("timed", Kind::Backup, When::default()), Some(MINUTE)),
            (job("nightly", Kind::Backup, scheduled("30 2 * * *")), None),
            (job("watched", Kind::Backup, watching(1000, 5000)), None),
        ];
        let plan = plan(4, jobs);
        let mut dispatcher = new(&plan);
        let (mut real, mut shift, mut jumps) = (0, 0, 0);
        let mut begins: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut changed = None;
        let mut jump_at = random.below(5 * MINUTE);
        while real < 2 * HOUR {
            let shown = T0 + real + shift;
            if changed.is_none() && random.one_in(20) {
                changed = Some(real);
                dispatcher.changed("watched", shown);
            }
            for start in dispatcher.poll(shown) {
                if start.job == "watched" {
                    let waited = real - changed.take().expect("it was changed");
                    assert!(waited <= LOOK_MS + 6000, "SEED={seed} a change waited {waited} ms");
                }
                begins.entry(start.job.clone()).or_default().push(real);
                dispatcher.began(&start.job, shown);
                dispatcher.ended(&start.job, Outcome::Success, shown);
            }
            let sleep = dispatcher.wake_ms().unwrap() - shown;
            assert!(sleep > 0 && sleep <= LOOK_MS, "SEED={seed} sleeps {sleep}");
            real += sleep;
            if real >= jump_at {
                shift = match random.below(4) {
                    0 => shift + random.below(4001) - 2000,
                    1 => shift - random.below(100 * SECOND),
                    2 => random.below(20 * 365 * 24 * HOUR) - 10 * 365 * 24 * HOUR,
                    _ => 0,
                };
                jumps += 1;
                jump_at = real + 2 * MINUTE + random.below(10 * MINUTE);
            }
        }
        for (name, period) in [("every", 20 * SECOND), ("timed", 30 * SECOND)] {
            let gaps = begins[name].windows(2).map(|pair| pair[1] - pair[0]);
            let longest = gaps.max().unwrap();
            assert!(longest <= 3 * period / 2 + LOOK_MS, "SEED={seed} {name} stalled for {longest} ms");
            let count = begins[name].len() as i64;
            assert!(count <= real / period + 2 * jumps + 2, "SEED={seed} {name} ran {count} times, {jumps} jumps");
        }
        let nightly = begins.get("nightly").map_or(0, Vec::len) as i64;
        assert!(nightly <= jumps + 1, "SEED={seed} nightly ran {nightly} times, {jumps} jumps");
    }
}

#[test]
fn changes_become_a_run_after_quiet_or_the_longest_delay_and_one_more_for_what_changes_meanwhile() {
    let mut dispatcher = new(&plan(2, [(job("a", Kind::Backup, watching(1000, 5000)), None)]));
    assert_eq!(dispatcher.poll(T0), []);
    dispatcher.changed("a", T0 + 100);
    assert_eq!(dispatcher.wake_ms(), Some(T0 + 1100));
    assert_eq!(dispatcher.due_since_ms("a"), Some(T0 + 100));
    assert_eq!(dispatcher.poll(T0 + 1099), []);
    let starts = dispatcher.poll(T0 + 1100);
    assert_eq!(starts, [Start { job: "a".into(), trigger: Trigger::Watch, due_since_ms: T0 + 100 }]);
    // Before it has begun in earnest it is part of it; after that it is not.
    dispatcher.changed("a", T0 + 1150);
    dispatcher.began("a", T0 + 1200);
    dispatcher.changed("a", T0 + 1300);
    assert_eq!(dispatcher.poll(T0 + 9000), []);
    dispatcher.ended("a", Outcome::Success, T0 + 9000);
    assert_eq!(dispatcher.due_since_ms("a"), Some(T0 + 1300));
    assert_eq!(names(&dispatcher.poll(T0 + 9000)), ["a"]);
    dispatcher.ended("a", Outcome::Success, T0 + 9001);
    assert_eq!((dispatcher.poll(T0 + 60_000), dispatcher.due_since_ms("a")), (vec![], None));
    // Never quiet.
    let mut begun = Vec::new();
    for now in (T0 + 60_000..T0 + 90_000).step_by(10) {
        dispatcher.changed("a", now);
        if !dispatcher.poll(now).is_empty() {
            begun.push(now - T0);
            dispatcher.ended("a", Outcome::Success, now);
        }
    }
    assert_eq!(begun, [65_000, 70_010, 75_020, 80_030, 85_040]);
}

#[test]
fn a_lost_watch_is_a_run_at_once_and_every_longest_delay_until_it_is_back_and_then_one_more() {
    let mut dispatcher = new(&plan(2, [(job("a", Kind::Backup, watching(0, 7000)), None)]));
    dispatcher.poll(T0);
    dispatcher.watch_state("a", WatchState::Lost("queue".to_owned()), T0);
    assert_eq!(dispatcher.watch_lost("a"), Some("queue"));
    let ran = drive(&mut dispatcher, T0, T0 + 30_000, |_, _| (10, Outcome::Success));
    assert_eq!(begins(&ran, "a"), [0, 7000, 14_000, 21_000, 28_000]);
    dispatcher.watch_state("a", WatchState::Lost("limit".to_owned()), T0 + 30_000);
    assert_eq!(drive(&mut dispatcher, T0 + 30_000, T0 + 34_000, |_, _| (10, Outcome::Success)), []);
    dispatcher.watch_state("a", WatchState::Fine, T0 + 34_000);
    let ran = drive(&mut dispatcher, T0 + 34_000, T0 + 100_000, |_, _| (10, Outcome::Success));
    assert_eq!((begins(&ran, "a"), dispatcher.watch_lost("a")), (vec![34_000], None));
}

/// A directory that was moved away and made again: the run that found none failed, and the next waits for nothing.
#[test]
fn what_is_seen_again_ends_the_pause_after_a_failure() {
    let mut dispatcher = new(&plan(2, [(job("a", Kind::Backup, watching(0, 1000)), None)]));
    dispatcher.watch_state("a", WatchState::Lost("it is gone".to_owned()), T0);
    assert_eq!(names(&dispatcher.poll(T0)), ["a"]);
    dispatcher.ended("a", Outcome::Failure, T0 + 1);
    assert_eq!(dispatcher.poll(T0 + 9_000), []);
    dispatcher.watch_state("a", WatchState::Fine, T0 + 10_000);
    assert_eq!(names(&dispatcher.poll(T0 + 10_000)), ["a"]);
}

#[test]
fn a_backup_that_failed_is_tried_again_soon_and_then_less_often() {
    let secs = |ran: &[Ran], job: &str| -> Vec<i64> { begins(ran, job).iter().map(|ms| ms / SECOND).collect() };
    let daily = T0 / (24 * HOUR) * 24 * HOUR + 24 * HOUR;
    for (rpo, kind, expected) in [
        (None, Kind::Backup, vec![0, 600, 1800, 4200, 7800, 11_400]),
        (Some(4 * HOUR), Kind::Backup, vec![0, 600, 1800, 4200, 7800, 11_400]),
        (Some(30 * MINUTE), Kind::Backup, vec![0, 600, 1500, 2400]),
        (Some(MINUTE), Kind::Copy, vec![0, 30, 60, 90]),
        (None, Kind::Prune, vec![0, 86_400]),
    ] {
        let mut dispatcher = new(&plan(2, [(job("a", kind, scheduled("@daily")), rpo)]));
        let ran = drive(&mut dispatcher, daily, daily + 25 * HOUR, |_, _| (0, Outcome::Failure));
        let times: Vec<i64> = secs(&ran, "a").iter().map(|secs| secs - (daily - T0) / SECOND).collect();
        assert_eq!(times[..expected.len()], expected, "{rpo:?} {kind:?}");
        let since = dispatcher.due_since_ms("a");
        assert_eq!(since.is_some_and(|since| since == daily), kind != Kind::Prune, "{since:?}");
    }
    // Success ends it.
    let mut dispatcher = new(&plan(2, [(job("a", Kind::Backup, scheduled("@daily")), None)]));
    let mut outcomes = vec![Outcome::Success, Outcome::Timeout, Outcome::Damage].into_iter();
    let ran =
        drive(&mut dispatcher, daily, daily + 25 * HOUR, |_, _| (0, outcomes.next_back().unwrap_or(Outcome::Success)));
    let times: Vec<i64> = secs(&ran, "a").iter().map(|secs| secs - (daily - T0) / SECOND).collect();
    assert_eq!((times, dispatcher.due_since_ms("a")), (vec![0, 600, 1800, 86_400], None));
}

#[test]
fn what_a_later_try_saved_is_as_of_that_try() {
    let mut dispatcher = new(&plan(2, [(job("a", Kind::Backup, When::default()), Some(MINUTE))]));
    assert_eq!(names(&dispatcher.poll(T0)), ["a"]);
    // The first try failed, the second began half a minute later.
    dispatcher.tried("a", T0 + 40_000);
    dispatcher.ended("a", Outcome::Success, T0 + 41_000);
    assert_eq!((dispatcher.poll(T0 + 41_000), dispatcher.next_ms("a")), (vec![], Some(T0 + 70_000)));
    // And so it is after a restart.
    let mut history = History::default();
    history.add(Run { tried_ms: T0 + 40_000, tries: 2, ..run(T0, T0 + 41_000, Outcome::Success) });
    let plan = plan(2, [(job("a", Kind::Backup, When::default()), Some(MINUTE))]);
    let again = Dispatcher::new(&plan, &[("a".to_owned(), history)].into(), T0 + 42_000, 1).unwrap();
    assert_eq!(again.next_ms("a"), Some(T0 + 70_000));
}

/// What another process ran, such as `esker job run`, counts: nothing is done twice for it, and nothing is forgotten.
#[test]
fn a_run_of_another_process_counts() {
    let jobs = || {
        [
            (
                job("a", Kind::Backup, When { schedule: vec!["@daily".to_owned()], ..watching(1000, 5000) }),
                Some(MINUTE),
            ),
            (job("copy", Kind::Copy, after("a")), None),
        ]
    };
    let learned = |dispatcher: &mut Dispatcher, run: Run| {
        let mut history = History::default();
        history.add(run.clone());
        dispatcher.learned("a", &history, run.ended_ms);
    };
    let mut dispatcher = new(&plan(3, jobs()));
    assert_eq!(names(&dispatcher.poll(T0)), ["a"]);
    dispatcher.ended("a", Outcome::Failure, T0 + 1000);
    dispatcher.changed("a", T0 + 2000);
    assert_eq!(dispatcher.poll(T0 + 9000), [], "in the pause");
    learned(&mut dispatcher, run(T0 + 10_000, T0 + 12_000, Outcome::Success));
    // The change was before it and the failure is made good for; the replica is to have it.
    assert_eq!(names(&dispatcher.poll(T0 + 12_000)), ["copy"]);
    assert_eq!((dispatcher.due_since_ms("a"), dispatcher.next_ms("a")), (None, Some(T0 + 40_000)));
    dispatcher.ended("copy", Outcome::Success, T0 + 13_000);
    assert_eq!(dispatcher.poll(T0 + 20_000), []);
    // What changes while it runs is another matter.
    dispatcher.changed("a", T0 + 22_000);
    learned(&mut dispatcher, run(T0 + 21_000, T0 + 23_000, Outcome::Success));
    assert_eq!(names(&dispatcher.poll(T0 + 23_000)), ["a", "copy"]);
    dispatcher.ended("copy", Outcome::Success, T0 + 24_000);
    dispatcher.ended("a", Outcome::Success, T0 + 24_000);
    dispatcher.poll(T0 + 24_000);
    dispatcher.ended("copy", Outcome::Success, T0 + 25_000);
    // One that could not be begun, because somebody else ran it, is begun when that is over.
    assert_eq!(names(&dispatcher.poll(T0 + 54_000)), ["a"]);
    dispatcher.ended("a", Outcome::Interrupted, T0 + 54_001);
    learned(&mut dispatcher, run(T0 + 53_500, T0 + 56_000, Outcome::Success));
    assert_eq!(names(&dispatcher.poll(T0 + 56_000)), ["copy"], "it was due before that run began");
    // A failure has the pause of a failure.
    learned(&mut dispatcher, run(T0 + 57_000, T0 + 58_000, Outcome::Failure));
    assert_eq!(dispatcher.next_ms("a"), Some(T0 + 88_000));
}

#[test]
fn changes_wait_for_the_pause_after_a_failure_and_schedules_and_people_do_not() {
    let jobs = [(job("a", Kind::Backup, When { schedule: vec!["every 5m".to_owned()], ..watching(0, 1000) }), None)];
    let mut dispatcher = new(&plan(2, jobs));
    dispatcher.changed("a", T0);
    assert_eq!(names(&dispatcher.poll(T0)), ["a"]);
    dispatcher.ended("a", Outcome::Failure, T0 + 1);
    dispatcher.changed("a", T0 + 2);
    assert_eq!(dispatcher.poll(T0 + 1000), []);
    let wake = dispatcher.wake_ms().unwrap();
    assert!(wake > T0 + 1000);
    assert!(dispatcher.asked("a", T0 + 1001));
    assert_eq!(dispatcher.poll(T0 + 1001), [Start { job: "a".into(), trigger: Trigger::Hand, due_since_ms: T0 + 2 }]);
    dispatcher.ended("a", Outcome::Failure, T0 + 1002);
    let next = dispatcher.next_ms("a").unwrap();
    assert!(next <= T0 + 5 * MINUTE);
    assert_eq!(names(&dispatcher.poll(next)), ["a"]);
    assert!(!dispatcher.asked("b", T0));
}

#[test]
fn a_place_is_kept_for_backups_and_the_shorter_rpo_comes_first() {
    let jobs = [
        (job("scrub", Kind::Scrub, When::default()), None),
        (job("check", Kind::Check, When::default()), None),
        (job("later", Kind::Backup, scheduled("@yearly")), Some(HOUR)),
        (job("plain", Kind::Backup, scheduled("@yearly")), None),
        (job("first", Kind::Backup, scheduled("@yearly")), Some(MINUTE)),
    ];
    let plan = plan(2, jobs);
    let mut dispatcher = new(&plan);
    for job in ["scrub", "check"] {
        dispatcher.asked(job, T0);
    }
    assert_eq!(names(&dispatcher.poll(T0)), ["check"], "one place is kept");
    let due = |dispatcher: &mut Dispatcher, now: i64| {
        for job in ["plain", "later", "first"] {
            // As if by schedule.
            dispatcher.entries.get_mut(job).unwrap().owe(now, Trigger::Schedule);
        }
    };
    due(&mut dispatcher, T0 + 1);
    let mut order = Vec::new();
    let mut now = T0 + 1;
    for _ in 0..3 {
        let starts = dispatcher.poll(now);
        assert_eq!(starts.len(), 1);
        now += 1000;
        dispatcher.ended(&starts[0].job, Outcome::Success, now);
        order.push(starts[0].job.clone());
    }
    assert_eq!(order, ["first", "later", "plain"]);
    dispatcher.ended("check", Outcome::Success, now);
    assert_eq!(names(&dispatcher.poll(now)), ["scrub"]);
}

#[test]
fn a_job_follows_each_success_of_another_and_no_failure() {
    let jobs = [
        (job("backup", Kind::Backup, scheduled("@yearly")), None),
        (job("copy", Kind::Copy, after("backup")), None),
        (job("drill", Kind::Drill, after("copy")), None),
    ];
    let mut dispatcher = new(&plan(3, jobs));
    for (outcome, expected) in
        [(Outcome::Warning, vec!["copy"]), (Outcome::Failure, vec![]), (Outcome::Success, vec!["copy"])]
    {
        dispatcher.asked("backup", T0);
        assert_eq!(names(&dispatcher.poll(T0)), ["backup"]);
        dispatcher.ended("backup", outcome, T0 + 1);
        assert_eq!(names(&dispatcher.poll(T0 + 1)), expected);
        dispatcher.ended("copy", Outcome::Success, T0 + 2);
        let drills = if expected.is_empty() { vec![] } else { vec!["drill"] };
        assert_eq!(names(&dispatcher.poll(T0 + 2)), drills);
        dispatcher.ended("drill", Outcome::Failure, T0 + 3);
        assert_eq!(dispatcher.poll(T0 + 3), []);
    }
}

#[test]
fn what_was_missed_while_nothing_ran_is_made_up_for_once() {
    let jobs = || {
        [
            (job("hourly", Kind::Backup, scheduled("@hourly")), None),
            (job("new", Kind::Backup, scheduled("@hourly")), None),
            (job("fresh", Kind::Backup, When::default()), Some(24 * HOUR)),
            (job("killed", Kind::Prune, scheduled("@yearly")), None),
            (job("copy", Kind::Copy, after("hourly")), None),
        ]
    };
    let day = T0 / (24 * HOUR) * 24 * HOUR;
    let at = day + 10 * HOUR + 1;
    let mut histories = BTreeMap::new();
    let mut hourly = History { since_ms: 1, scheduled_ms: Some(day + 5 * HOUR), ..History::default() };
    hourly.add(run(day + 5 * HOUR, day + 5 * HOUR + 1, Outcome::Success));
    histories.insert("hourly".to_owned(), hourly);
    let mut fresh = History::default();
    fresh.add(run(at - HOUR, at - HOUR, Outcome::Success));
    histories.insert("fresh".to_owned(), fresh);
    histories.insert("killed".to_owned(), History { running_since_ms: Some(at - HOUR), ..History::default() });
    let mut plan = plan(9, jobs());
    let mut dispatcher = Dispatcher::new(&plan, &histories, at, 1).unwrap();
    let start = |job: &str, due_since_ms| Start { job: job.to_owned(), trigger: Trigger::CatchUp, due_since_ms };
    assert_eq!(
        dispatcher.poll(at),
        [start("copy", day + 5 * HOUR + 1), start("hourly", day + 6 * HOUR), start("killed", at - HOUR)],
        "and not what has no past, nor what is fresh"
    );
    dispatcher.ended("hourly", Outcome::Success, at + 1);
    assert_eq!(dispatcher.scheduled_ms("hourly"), Some(at));
    assert_eq!(dispatcher.next_ms("hourly"), Some(day + 11 * HOUR));
    plan.settings.catch_up = false;
    let mut dispatcher = Dispatcher::new(&plan, &histories, at, 1).unwrap();
    assert_eq!(names(&dispatcher.poll(at)), ["killed"], "a run that was cut off is no missed schedule");
}

#[test]
fn a_reload_keeps_what_is_due_and_what_runs_and_changes_nothing_when_it_is_refused() {
    let a = || (job("a", Kind::Backup, watching(1000, 5000)), None);
    let b = || (job("b", Kind::Backup, scheduled("@hourly")), None);
    let none = BTreeMap::new();
    let mut dispatcher = new(&plan(1, [a(), b()]));
    dispatcher.asked("b", T0);
    dispatcher.changed("a", T0);
    assert_eq!(names(&dispatcher.poll(T0)), ["b"]);
    let error = dispatcher.replace(&plan(1, [(job("c", Kind::Backup, scheduled("nonsense")), None)]), &none, T0 + 10);
    assert!(error.unwrap_err().starts_with("job `c`: `nonsense` is not a schedule: "));
    assert!(dispatcher.is_running("b") && dispatcher.due_since_ms("a") == Some(T0));
    // `b` is gone, and still takes its place.
    dispatcher.replace(&plan(1, [a()]), &none, T0 + 20).unwrap();
    assert_eq!(dispatcher.poll(T0 + 2000), []);
    assert!(dispatcher.is_running("b") && dispatcher.running() == 1 && !dispatcher.asked("b", T0));
    // It comes back while it runs.
    dispatcher.replace(&plan(1, [a(), b()]), &none, T0 + 2000).unwrap();
    dispatcher.asked("b", T0 + 2000);
    assert_eq!(dispatcher.poll(T0 + 2000), [], "it does not overlap itself");
    dispatcher.replace(&plan(1, [a()]), &none, T0 + 2001).unwrap();
    dispatcher.ended("b", Outcome::Success, T0 + 3000);
    assert_eq!(names(&dispatcher.poll(T0 + 3000)), ["a"]);
    assert_eq!((dispatcher.next_ms("b"), dispatcher.running()), (None, 1));
    let unknown = Dispatcher::new(
        &{
            let mut plan = plan(1, [a()]);
            plan.settings.time_zone = Some("Europe/Atlantis".to_owned());
            plan
        },
        &none,
        T0,
        1,
    );
    assert_eq!(unknown.unwrap_err(), "`Europe/Atlantis` is not the name of a time zone");
}

#[test]
fn what_comes_due_between_start_and_begin_is_part_of_the_run() {
    let mut dispatcher = new(&plan(2, [(job("a", Kind::Backup, When::default()), None)]));
    dispatcher.asked("a", T0);
    assert_eq!(names(&dispatcher.poll(T0)), ["a"]);
    dispatcher.asked("a", T0 + 1);
    dispatcher.began("a", T0 + 2);
    dispatcher.ended("a", Outcome::Success, T0 + 3);
    assert_eq!((dispatcher.poll(T0 + 3), dispatcher.due_since_ms("a")), (vec![], None));
}

#[test]
fn a_clock_put_back_a_little_repeats_nothing_and_put_back_far_repeats_it_once() {
    let nightly = || new(&plan(2, [(job("a", Kind::Backup, scheduled("30 2 * * *")), None)]));
    let time = T0 / (24 * HOUR) * 24 * HOUR + 26 * HOUR + 30 * MINUTE;
    for (back, expected) in [(5 * SECOND, vec![0, 24 * HOUR]), (2 * HOUR, vec![0, 0, 24 * HOUR])] {
        let mut dispatcher = nightly();
        let mut ran = drive(&mut dispatcher, time, time + 1, |_, _| (0, Outcome::Success));
        dispatcher.ended("a", Outcome::Success, time);
        ran.extend(drive(&mut dispatcher, time - back, time + 25 * HOUR, |_, _| (0, Outcome::Success)));
        let times: Vec<i64> = begins(&ran, "a").iter().map(|at| at + T0 - time).collect();
        assert_eq!(times, expected);
    }
}

#[test]
fn whom_somebody_asks_for_comes_first_and_a_job_without_a_schedule_says_when_it_is_next() {
    let jobs = [
        (job("a", Kind::Backup, When::default()), Some(MINUTE)),
        (job("b", Kind::Backup, When::default()), Some(MINUTE)),
        (job("z", Kind::Backup, scheduled("@yearly")), None),
    ];
    let mut dispatcher = new(&plan(1, jobs));
    dispatcher.asked("z", T0);
    assert_eq!(names(&dispatcher.poll(T0)), ["z"]);
    dispatcher.ended("z", Outcome::Success, T0 + 1);
    assert_eq!(names(&dispatcher.poll(T0 + 1)), ["a"]);
    assert_eq!(dispatcher.due_since_ms("b"), Some(T0));
    dispatcher.ended("a", Outcome::Success, T0 + 2);
    assert_eq!(dispatcher.next_ms("a"), Some(T0 + 1 + MINUTE / 2));
}

/// A scrub of many hours and a drill that is due: the copy of each backup begins all the same.
#[test]
fn copies_do_not_wait_for_what_can_wait() {
    let mut copy = job("copy", Kind::Copy, When::default());
    copy.when = after("states");
    let jobs = [
        (job("states", Kind::Backup, scheduled("@hourly")), Some(HOUR)),
        (copy, None),
        (job("scrub", Kind::Scrub, scheduled("@hourly")), None),
        (job("drill", Kind::Drill, scheduled("@hourly")), None),
    ];
    let plan = plan(3, jobs);
    let mut dispatcher = new(&plan);
    let ran = drive(&mut dispatcher, T0, T0 + 10 * HOUR, |name, _| match name {
        "scrub" | "drill" => (5 * HOUR, Outcome::Success),
        _ => (SECOND, Outcome::Success),
    });
    assert!(begins(&ran, "copy").len() >= 9, "{:?}", begins(&ran, "copy"));
}
