//! A service in which everything that is measured has a value.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use esker::service::alerts::{Alert, Rule, Severity};
use esker::service::facts::{Facts, JobFacts, NotifierFacts, Seen, StoreFacts};
use esker::service::history::{History, Outcome, Run, Trigger};
use esker::service::metrics::Process;
use esker::service::plan::{Hooks, Job, Kind, Plan, Store, Tier, Watch, When};

/// 2027-01-15T08:00:00Z.
pub(crate) const NOW: i64 = 1_800_000_000_000;
pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

pub(crate) struct Scene {
    pub(crate) plan: Plan,
    pub(crate) histories: BTreeMap<String, History>,
    pub(crate) seen: BTreeMap<String, Seen>,
    pub(crate) notifiers: Vec<NotifierFacts>,
    pub(crate) alerts: Vec<Alert>,
    pub(crate) process: Process,
    pub(crate) watch_lost: Option<String>,
    /// Since when `infra` should have run.
    pub(crate) due_since_ms: Option<i64>,
    pub(crate) reload_failed: Option<String>,
}

impl Scene {
    /// Two backup jobs: `infra` with all that can follow from one, `photos` that nothing is promised of.
    pub(crate) fn new() -> Self {
        let mut plan = Plan::default();
        let hours = |count: u64| Some(Duration::from_secs(count * 3600));
        let critical = Tier {
            rpo: hours(1),
            rto: Some(Duration::from_secs(600)),
            verified_within: hours(24 * 7),
            drilled_within: hours(24 * 30),
            places: Some(2),
        };
        plan.tiers.insert("critical".into(), critical);
        let store = |place: &str, offsite| Store { place: place.into(), quota: Some(1000), offsite };
        plan.repositories.insert("main".into(), store("/srv/backup", false));
        plan.repositories.insert("far".into(), store("s3://bucket/far", true));
        for (name, kind, of) in [
            ("infra", Kind::Backup, None),
            ("infra:copy", Kind::Copy, Some("infra")),
            ("infra:drill", Kind::Drill, Some("infra")),
            ("infra:scrub", Kind::Scrub, Some("infra")),
            ("photos", Kind::Backup, None),
        ] {
            plan.jobs.insert(name.into(), job(name, kind, of));
        }
        let infra = plan.jobs.get_mut("infra").unwrap();
        infra.when.watch = Some(Watch {
            paths: vec![PathBuf::from("/srv/infra")],
            include: vec![],
            exclude: vec![],
            debounce: Duration::from_secs(1),
            delay_max: Duration::from_secs(10),
        });
        for job in plan.jobs.values_mut().filter(|job| job.name.starts_with("infra")) {
            job.tier = Some("critical".into());
        }

        let mut histories = BTreeMap::new();
        let mut infra = History { since_ms: NOW - 90 * DAY, ..History::default() };
        infra.add(backup(NOW - 3 * HOUR, Outcome::Failure, 0.0));
        infra.add(backup(NOW - 2 * HOUR, Outcome::Success, 400.0));
        infra.add(backup(NOW - 30 * MINUTE, Outcome::Success, 500.0));
        infra.running_since_ms = Some(NOW - 1000);
        histories.insert("infra".into(), infra);
        for (name, ago) in [("infra:copy", 20 * MINUTE), ("infra:drill", 5 * DAY), ("infra:scrub", 2 * DAY)] {
            let mut history = History { since_ms: NOW - 90 * DAY, ..History::default() };
            history.add(run(NOW - ago, 90.0, Outcome::Success));
            histories.insert(name.into(), history);
        }
        let mut photos = History { since_ms: NOW - 90 * DAY, ..History::default() };
        photos.add(backup(NOW - DAY, Outcome::Warning, 7.0));
        histories.insert("photos".into(), photos);

        let seen = |newest: i64| Seen {
            at_ms: NOW - MINUTE,
            stored_bytes: BTreeMap::from([("packs".into(), 700), ("index".into(), 50)]),
            snapshots: 12,
            newest_ms: BTreeMap::from([("infra".into(), newest)]),
            counts: BTreeMap::from([("infra".into(), 11)]),
            oldest_unverified_ms: Some(NOW - 3 * DAY),
            verified_share: Some(0.75),
            ..Seen::default()
        };
        let seen = BTreeMap::from([("main", NOW - 30 * MINUTE), ("far", NOW - 2 * HOUR)])
            .into_iter()
            .map(|(name, newest)| (name.to_owned(), seen(newest)))
            .collect();
        let alert = Alert {
            rule: Rule::ReplicaBehind,
            subject: "infra".into(),
            severity: Severity::Warning,
            summary: "the replica far is 90 minutes behind".into(),
            detail: String::new(),
            labels: BTreeMap::new(),
        };
        let notifier = NotifierFacts { name: "ops".into(), delivered: 3, given_up: 1, error: None };
        let process = Process {
            version: "1.2.3".into(),
            started_ms: Some(NOW - DAY),
            resident_bytes: Some(50_000_000),
            open_files: Some(20),
            intervals: BTreeMap::from([("photos".into(), 86_400.0)]),
        };
        Self {
            plan,
            histories,
            seen,
            notifiers: vec![notifier],
            alerts: vec![alert],
            process,
            watch_lost: None,
            due_since_ms: Some(NOW - 2000),
            reload_failed: None,
        }
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            now_ms: NOW,
            plan: &self.plan,
            jobs: self.plan.jobs.values().map(|job| self.job_facts(job)).collect(),
            repositories: self
                .plan
                .repositories
                .iter()
                .map(|(name, store)| StoreFacts { name, store, seen: self.seen.get(name).cloned() })
                .collect(),
            notifiers: self.notifiers.clone(),
            reload_failed: self.reload_failed.clone(),
        }
    }

    fn job_facts<'a>(&'a self, job: &'a Job) -> JobFacts<'a> {
        JobFacts {
            job,
            tier: self.plan.tier(job),
            history: &self.histories[&job.name],
            next_ms: Some(NOW + 3 * HOUR + 5 * MINUTE),
            due_since_ms: self.due_since_ms.filter(|_| job.name == "infra"),
            watch_lost: self.watch_lost.clone().filter(|_| job.when.watch.is_some()),
        }
    }

    pub(crate) fn metrics(&self) -> String {
        esker::service::metrics::render(&self.facts(), &self.alerts, &self.process)
    }

    pub(crate) fn history(&mut self, job: &str) -> &mut History {
        self.histories.get_mut(job).unwrap()
    }

    /// The value of a line of the metrics, by all that stands before it.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        let text = self.metrics();
        let values: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).collect();
        assert!(values.len() < 2, "{series} is there once");
        values.first().map(|value| value.parse().unwrap())
    }
}

fn job(name: &str, kind: Kind, of: Option<&str>) -> Job {
    Job {
        name: name.into(),
        kind,
        args: vec![kind.name().into()],
        repository: "main".into(),
        target: (kind == Kind::Copy).then(|| "far".into()),
        tier: None,
        of: of.map(str::to_owned),
        when: When::default(),
        retries: 0,
        retry_wait: Duration::ZERO,
        timeout: None,
        nice: None,
        hooks: Hooks::default(),
        notify: None,
        enabled: true,
    }
}

pub(crate) fn run(began_ms: i64, seconds: f64, outcome: Outcome) -> Run {
    Run {
        began_ms,
        ended_ms: began_ms + (seconds * 1000.0) as i64,
        tried_ms: began_ms,
        outcome,
        code: if outcome.is_success() { 0 } else { 1 },
        trigger: Trigger::Schedule,
        tries: 1,
        message: (!outcome.is_success()).then(|| "the storage is full\nsecond line".into()),
        snapshot: None,
        result: None,
        numbers: BTreeMap::new(),
    }
}

pub(crate) fn backup(began_ms: i64, outcome: Outcome, size: f64) -> Run {
    let numbers = [
        ("total_bytes_processed", size),
        ("files_new", 1.0),
        ("files_changed", 2.0),
        ("files_unmodified", 3.0),
        ("files_unreadable", 0.0),
        ("data_added", 60.0),
        ("data_added_packed", 40.0),
    ];
    let numbers = numbers.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    Run { numbers: if outcome.is_success() { numbers } else { BTreeMap::new() }, ..run(began_ms, 12.0, outcome) }
}
