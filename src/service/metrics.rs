//! What is true now in Prometheus' text format, version 0.0.4: `/metrics` and the textfile.
//!
//! All of it is worked out from [`Facts`], whose counts are kept on disk: counters go on after a restart, and a run by
//! hand writes the same figures as the service. [`METRICS`] names every metric once; `docs/metrics.md`, the rules and the
//! dashboard in `deploy/` are held to it by tests.
//!
//! A thing that is not known has no sample: a job that never succeeded has no time of success. Labels are names from the
//! configuration and words of this program, so there are never more series than the configuration asks for.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::alerts::{Alert, Rule, Severity};
use super::facts::{Facts, JobFacts, StoreFacts};
use super::history::{BUCKETS, History, Outcome, Run};
use super::plan::{Job, Kind, Plan};
use super::schedule::Schedule;
use super::status::{Standing, made, standings};

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub shape: Shape,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Shape {
    /// Its name in the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const BACKUP: &[&str] = &["job", "tier", "repository"];
const JOB: &[&str] = &["job", "kind", "tier", "repository"];
const REPOSITORY: &[&str] = &["repository"];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, shape: Shape::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, shape: Shape::Gauge, labels, help }
}

/// Every metric there is, in the order they are written.
pub const METRICS: &[Metric] = &[
    counter("backup_operations_total", BACKUP, "Backups that ended, except those stopped with the service."),
    counter(
        "backup_operations_successful_total",
        BACKUP,
        "Backups that succeeded: they made a snapshot, or found nothing changed.",
    ),
    Metric {
        name: "backup_duration_seconds",
        shape: Shape::Histogram,
        labels: BACKUP,
        help: "How long backups took; of one tried again, the last try.",
    },
    gauge("backup_size_bytes", BACKUP, "Bytes of the files in the last snapshot."),
    gauge(
        "backup_last_success_timestamp",
        BACKUP,
        "When the last successful backup began, seconds since 1970: what it saved is at least as new. Of one tried again, the last try.",
    ),
    gauge("seconds_since_last_backup", BACKUP, "Seconds since the last successful backup began."),
    counter("restore_test_results_total", &["job", "tier", "repository", "result"], "Drills, by how they ended."),
    gauge(
        "esker_rpo_actual_seconds",
        BACKUP,
        "For how long something has been there that is not safe; 0 if what is watched has not changed.",
    ),
    gauge("esker_rpo_at_risk_since_timestamp_seconds", BACKUP, "Since when that is so; absent if all is safe."),
    gauge("esker_rpo_target_seconds", BACKUP, "How long that may be, by the job's tier."),
    gauge("esker_rto_actual_seconds", BACKUP, "How long the last drill took that restored."),
    gauge("esker_rto_target_seconds", BACKUP, "How long a restore may take, by the job's tier."),
    gauge("esker_backup_safe", BACKUP, "1 if every promise of the job's tier is kept, else 0."),
    gauge("esker_backup_known_since_timestamp_seconds", BACKUP, "Since when the job is known on this machine."),
    gauge("esker_backup_places", BACKUP, "Repositories that have a snapshot of the job."),
    gauge("esker_backup_places_target", BACKUP, "How many should, by the job's tier."),
    gauge("esker_backup_snapshots", BACKUP, "Snapshots of the job in its repository."),
    gauge(
        "esker_backup_last_verified_timestamp_seconds",
        BACKUP,
        "All data of its repository was verified or stored since; before a look, when a check or scrub succeeded.",
    ),
    gauge("esker_backup_verified_target_seconds", BACKUP, "How long ago that may be, by the job's tier."),
    gauge("esker_backup_last_drill_timestamp_seconds", BACKUP, "When a drill last succeeded."),
    gauge("esker_backup_drill_target_seconds", BACKUP, "How long ago that may be, by the job's tier."),
    gauge("esker_backup_previous_size_bytes", BACKUP, "Bytes of the files in the snapshot before the last."),
    gauge("esker_backup_size_change_limit_ratio", BACKUP, "The change in size that is told of."),
    gauge(
        "esker_backup_files",
        &["job", "tier", "repository", "state"],
        "Files of the last snapshot, by what became of them.",
    ),
    gauge("esker_backup_added_bytes", BACKUP, "Bytes of the last snapshot that were new to the repository."),
    gauge("esker_backup_stored_bytes", BACKUP, "Bytes those became, compressed and encrypted."),
    gauge(
        "esker_replica_lag_seconds",
        &["job", "tier", "repository", "target"],
        "For how long a replica has lacked a snapshot of the job.",
    ),
    counter("esker_job_runs_total", &["job", "kind", "tier", "repository", "result"], "Runs that ended, by how."),
    gauge("esker_job_enabled", JOB, "1 if the job is switched on, else 0."),
    gauge("esker_job_running", JOB, "1 while the job runs, else 0."),
    gauge("esker_job_running_since_timestamp_seconds", JOB, "When the run that is going on began."),
    gauge("esker_job_last_start_timestamp_seconds", JOB, "When the last run began."),
    gauge("esker_job_last_end_timestamp_seconds", JOB, "When the last run ended."),
    gauge("esker_job_last_success_timestamp_seconds", JOB, "When the last successful run ended."),
    gauge(
        "esker_job_last_status",
        JOB,
        "The last run: 0 success, 1 with warnings, 2 failed, 3 stopped with the service.",
    ),
    gauge("esker_job_last_exit_code", JOB, "The exit code of the last run."),
    gauge("esker_job_last_duration_seconds", JOB, "How long the last run took."),
    gauge("esker_job_consecutive_failures", JOB, "Failures since the last success."),
    gauge("esker_job_success_ratio", JOB, "Share of runs that succeeded, over the time set for it."),
    gauge("esker_job_recent_runs", JOB, "Runs that share is of."),
    gauge("esker_job_recent_failures", JOB, "Those of them that did not succeed."),
    gauge("esker_job_success_target_ratio", JOB, "The least that share should be."),
    gauge("esker_job_expected_interval_seconds", JOB, "The longest time between two runs by the job's schedule."),
    gauge("esker_job_next_run_timestamp_seconds", JOB, "When the job runs next by its schedule."),
    gauge("esker_job_due_since_timestamp_seconds", JOB, "Since when the job should have run and has not."),
    gauge("esker_job_watch_lost", JOB, "1 if changes are not seen at once and scans take their place, else 0."),
    gauge("esker_repository_stored_bytes", &["repository", "kind"], "Bytes stored, by kind of object."),
    gauge("esker_repository_quota_bytes", REPOSITORY, "The most it should hold."),
    gauge("esker_repository_snapshots", REPOSITORY, "Snapshots that are live."),
    gauge("esker_repository_damaged_chunks", REPOSITORY, "Chunks known to be damaged."),
    gauge("esker_repository_damaged_snapshots", REPOSITORY, "Snapshots that cannot be read."),
    gauge("esker_repository_verified_ratio", REPOSITORY, "Share of stored data verified lately, 0 to 1."),
    gauge(
        "esker_repository_oldest_unverified_age_seconds",
        REPOSITORY,
        "Since the data not verified for longest was verified or stored.",
    ),
    gauge("esker_repository_reachable", REPOSITORY, "1 if the last look at it succeeded, else 0."),
    gauge("esker_repository_seen_timestamp_seconds", REPOSITORY, "When it was last looked at."),
    gauge("esker_alerts_open", &["rule", "severity"], "What people should know of now, by rule and severity."),
    counter("esker_notifications_total", &["notifier", "result"], "Messages delivered and given up."),
    gauge("esker_notifier_failing", &["notifier"], "1 if its last message failed, else 0."),
    gauge(
        "esker_config_reload_successful",
        &[],
        "1 if the configuration in use is the one on disk when it was last reloaded, else 0.",
    ),
    gauge("esker_build_info", &["version"], "1, with the version of the program."),
    gauge(
        "esker_facts_timestamp_seconds",
        &[],
        "The moment these figures are of: a textfile that is not written any more grows old.",
    ),
    gauge("esker_start_timestamp_seconds", &[], "When the service began."),
    gauge("esker_resident_memory_bytes", &[], "Memory the service holds."),
    gauge("esker_open_files", &[], "Descriptors the service has open."),
];

/// How many runs ahead are looked at: a week of one that runs on working days, and a bit.
const RUNS_AHEAD: usize = 8;

/// What is known besides the facts.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// The program's version.
    pub version: String,
    /// When the service began, milliseconds since 1970; none for a run by hand.
    pub started_ms: Option<i64>,
    /// Memory held, in bytes.
    pub resident_bytes: Option<u64>,
    /// Descriptors open.
    pub open_files: Option<u64>,
    /// The longest time between two runs by a job's schedule, in seconds, by the job's name.
    pub intervals: BTreeMap<String, f64>,
}

impl Process {
    /// Of this process as it is now. What the system does not tell is left out.
    pub fn now(started_ms: Option<i64>) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB")?.trim().parse().ok());
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms,
            resident_bytes: resident.map(|kib: u64| kib * 1024),
            // One is the listing's own.
            open_files: std::fs::read_dir("/proc/self/fd").ok().map(|all| (all.count() as u64).saturating_sub(1)),
            intervals: BTreeMap::new(),
        }
    }
}

/// The longest time between two runs by each job's schedule, in seconds, among the next few: [`Process::intervals`]. A
/// schedule that means nothing has none.
pub fn intervals(plan: &Plan, zone: &jiff::tz::TimeZone, now_ms: i64) -> BTreeMap<String, f64> {
    let longest = |job: &Job| {
        let schedules: Vec<Schedule> =
            job.when.schedule.iter().filter_map(|text| Schedule::parse(text, zone).ok()).collect();
        let next = |after| schedules.iter().filter_map(|schedule| schedule.next_after(after)).min();
        let runs: Vec<i64> = std::iter::successors(next(now_ms), |last| next(*last)).take(RUNS_AHEAD).collect();
        runs.windows(2).map(|pair| pair[1] - pair[0]).max().map(secs)
    };
    plan.jobs.values().filter_map(|job| Some((job.name.clone(), longest(job)?))).collect()
}

/// The metrics of a moment.
pub fn render(facts: &Facts<'_>, open_alerts: &[Alert], process: &Process) -> String {
    let mut samples = Samples::default();
    for job in &facts.jobs {
        of_job(&mut samples, facts, job, process);
        if job.job.kind == Kind::Drill {
            for outcome in OUTCOMES {
                let count = job.history.totals.get(&outcome).copied().unwrap_or(0);
                samples.add("restore_test_results_total", &with(&backup_labels(job), outcome.name()), count as f64);
            }
        }
    }
    for standing in standings(facts) {
        of_backup(&mut samples, facts, &standing, process);
    }
    for store in &facts.repositories {
        of_repository(&mut samples, facts, store);
    }
    of_service(&mut samples, facts, open_alerts, process);
    samples.written()
}

const OUTCOMES: [Outcome; 6] =
    [Outcome::Success, Outcome::Warning, Outcome::Failure, Outcome::Damage, Outcome::Timeout, Outcome::Interrupted];

fn backup_labels<'a>(job: &'a JobFacts<'_>) -> [&'a str; 3] {
    [&job.job.name, job.job.tier.as_deref().unwrap_or_default(), &job.job.repository]
}

fn with<'a>(labels: &[&'a str], more: &'a str) -> Vec<&'a str> {
    [labels, &[more]].concat()
}

fn secs(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn of_job(samples: &mut Samples, facts: &Facts<'_>, job: &JobFacts<'_>, process: &Process) {
    let [name, tier, repository] = backup_labels(job);
    let labels = [name, job.job.kind.name(), tier, repository];
    let history = job.history;
    for outcome in OUTCOMES {
        let count = history.totals.get(&outcome).copied().unwrap_or(0);
        samples.add("esker_job_runs_total", &with(&labels, outcome.name()), count as f64);
    }
    let mut add = |name, value: Option<f64>| samples.add_known(name, &labels, value);
    add("esker_job_enabled", Some(flag(job.job.enabled)));
    add("esker_job_running", Some(flag(history.running_since_ms.is_some())));
    add("esker_job_running_since_timestamp_seconds", history.running_since_ms.map(secs));
    let last = job.last();
    add("esker_job_last_start_timestamp_seconds", last.map(|run| secs(run.began_ms)));
    add("esker_job_last_end_timestamp_seconds", last.map(|run| secs(run.ended_ms)));
    let success = history.last_success.as_ref();
    add("esker_job_last_success_timestamp_seconds", success.map(|run| secs(run.ended_ms)));
    add("esker_job_last_status", last.map(|run| status(run.outcome)));
    add("esker_job_last_exit_code", last.map(|run| f64::from(run.code)));
    add("esker_job_last_duration_seconds", last.map(Run::seconds));
    add("esker_job_consecutive_failures", Some(history.failures as f64));
    let (runs, good) = recent(facts, history);
    add("esker_job_success_ratio", (runs > 0).then(|| good as f64 / runs as f64));
    add("esker_job_recent_runs", Some(runs as f64));
    add("esker_job_recent_failures", Some((runs - good) as f64));
    add("esker_job_success_target_ratio", Some(facts.plan.settings.success_rate / 100.0));
    add("esker_job_expected_interval_seconds", process.intervals.get(name).copied());
    add("esker_job_next_run_timestamp_seconds", job.next_ms.map(secs));
    add("esker_job_due_since_timestamp_seconds", job.due_since_ms.map(secs));
    add("esker_job_watch_lost", job.job.when.watch.as_ref().map(|_| flag(job.watch_lost.is_some())));
}

fn status(outcome: Outcome) -> f64 {
    match outcome {
        Outcome::Success => 0.0,
        Outcome::Warning => 1.0,
        Outcome::Failure | Outcome::Damage | Outcome::Timeout => 2.0,
        Outcome::Interrupted => 3.0,
    }
}

/// How many runs ended lately, and how many of them succeeded. A stopped service is no failure.
fn recent(facts: &Facts<'_>, history: &History) -> (usize, usize) {
    let over_ms = i64::try_from(facts.plan.settings.success_over.as_millis()).unwrap_or(i64::MAX);
    let from_ms = facts.now_ms.saturating_sub(over_ms);
    let counts = |run: &&Run| run.ended_ms >= from_ms && run.outcome != Outcome::Interrupted;
    let runs = || history.runs.iter().filter(counts);
    (runs().count(), runs().filter(|run| run.outcome.is_success()).count())
}

fn of_backup(samples: &mut Samples, facts: &Facts<'_>, standing: &Standing<'_>, process: &Process) {
    let job = standing.facts;
    let labels = backup_labels(job);
    let history = job.history;
    let total = |of: &[Outcome]| of.iter().filter_map(|outcome| history.totals.get(outcome)).sum::<u64>() as f64;
    let ended = total(&OUTCOMES) - total(&[Outcome::Interrupted]);
    samples.add("backup_operations_total", &labels, ended);
    samples.add("backup_operations_successful_total", &labels, total(&[Outcome::Success, Outcome::Warning]));
    samples.histogram("backup_duration_seconds", &labels, &history.durations);

    let success = history.last_success.as_ref();
    let mut snapshots = made(history);
    let (newest, previous) = (snapshots.next(), snapshots.next());
    let number = |name: &str| newest.and_then(|run| run.numbers.get(name).copied());
    for (state, number) in [
        ("new", number("files_new")),
        ("changed", number("files_changed")),
        ("unmodified", number("files_unmodified")),
        ("unreadable", number("files_unreadable")),
    ] {
        samples.add_known("esker_backup_files", &with(&labels, state), number);
    }
    for place in standing.places.iter().filter(|place| !place.own && job.job.enabled) {
        samples.add_known("esker_replica_lag_seconds", &with(&labels, place.repository), place.lag);
    }

    let size = |run: &Run| run.numbers.get("total_bytes_processed").copied();
    let seen = facts.repositories.iter().find(|store| store.name == job.job.repository);
    let seen = seen.and_then(|store| store.seen.as_ref());
    let known_ms = Some(history.since_ms).filter(|ms| *ms > 0).or(process.started_ms);
    let mut add = |name, value: Option<f64>| samples.add_known(name, &labels, value);
    add("backup_size_bytes", newest.and_then(size));
    add("backup_last_success_timestamp", success.map(|run| secs(run.saved_ms())));
    add("seconds_since_last_backup", standing.age);
    add("esker_rpo_actual_seconds", Some(standing.at_risk).filter(|_| known_ms.is_some() || standing.age.is_some()));
    let since_ms = job.at_risk_since_ms().filter(|ms| *ms > 0);
    add("esker_rpo_at_risk_since_timestamp_seconds", since_ms.map(secs));
    add("esker_rto_actual_seconds", standing.restore);
    add("esker_backup_known_since_timestamp_seconds", known_ms.map(secs));
    add("esker_backup_places", Some(standing.held() as f64));
    add("esker_backup_snapshots", seen.map(|seen| seen.counts.get(&job.job.name).copied().unwrap_or(0) as f64));
    add("esker_backup_last_verified_timestamp_seconds", standing.verified_ms.map(secs));
    add("esker_backup_last_drill_timestamp_seconds", standing.drilled_ms.map(secs));
    add("esker_backup_previous_size_bytes", previous.and_then(size));
    add("esker_backup_size_change_limit_ratio", Some(facts.plan.settings.size_change / 100.0));
    add("esker_backup_added_bytes", number("data_added"));
    add("esker_backup_stored_bytes", number("data_added_packed"));
    // Nothing is promised of a job that is switched off, so that no rule fires for it.
    if job.job.enabled {
        add("esker_backup_safe", Some(flag(standing.is_safe())));
        add("esker_rpo_target_seconds", standing.rpo.target);
        add("esker_rto_target_seconds", standing.rto.target);
        add("esker_backup_places_target", standing.copies.target);
        add("esker_backup_verified_target_seconds", standing.verified.target);
        add("esker_backup_drill_target_seconds", standing.drilled.target);
    }
}

fn of_repository(samples: &mut Samples, facts: &Facts<'_>, store: &StoreFacts<'_>) {
    let labels = [store.name];
    samples.add_known("esker_repository_quota_bytes", &labels, store.store.quota.map(|quota| quota as f64));
    let Some(seen) = &store.seen else { return };
    for (kind, bytes) in &seen.stored_bytes {
        samples.add("esker_repository_stored_bytes", &[store.name, kind], *bytes as f64);
    }
    let mut add = |name, value: Option<f64>| samples.add_known(name, &labels, value);
    add("esker_repository_snapshots", Some(seen.snapshots as f64));
    add("esker_repository_damaged_chunks", Some(seen.damaged_chunks as f64));
    add("esker_repository_damaged_snapshots", Some(seen.damaged_snapshots as f64));
    add("esker_repository_verified_ratio", seen.verified_share);
    let age = seen.oldest_unverified_ms.map(|ms| secs((facts.now_ms - ms).max(0)));
    add("esker_repository_oldest_unverified_age_seconds", age);
    add("esker_repository_reachable", Some(flag(seen.error.is_none())));
    add("esker_repository_seen_timestamp_seconds", Some(secs(seen.at_ms)));
}

/// The rules that always have a sample, so that a graph of them has no holes.
const RULES: [Rule; 12] = [
    Rule::Failed,
    Rule::Overdue,
    Rule::SizeAnomaly,
    Rule::SuccessRate,
    Rule::Quota,
    Rule::Damage,
    Rule::Drill,
    Rule::Unverified,
    Rule::ReplicaBehind,
    Rule::Unreachable,
    Rule::Notifier,
    Rule::Configuration,
];

fn of_service(samples: &mut Samples, facts: &Facts<'_>, open: &[Alert], process: &Process) {
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    for rule in RULES {
        for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
            counts.insert((word(&rule), word(&severity)), 0);
        }
    }
    for alert in open {
        *counts.entry((word(&alert.rule), word(&alert.severity))).or_default() += 1;
    }
    for ((rule, severity), count) in &counts {
        samples.add("esker_alerts_open", &[rule, severity], *count as f64);
    }
    for notifier in &facts.notifiers {
        let name = &*notifier.name;
        samples.add("esker_notifications_total", &[name, "delivered"], notifier.delivered as f64);
        samples.add("esker_notifications_total", &[name, "given_up"], notifier.given_up as f64);
        samples.add("esker_notifier_failing", &[name], flag(notifier.error.is_some()));
    }
    samples.add("esker_config_reload_successful", &[], flag(facts.reload_failed.is_none()));
    samples.add("esker_build_info", &[&process.version], 1.0);
    samples.add("esker_facts_timestamp_seconds", &[], secs(facts.now_ms));
    samples.add_known("esker_start_timestamp_seconds", &[], process.started_ms.map(secs));
    samples.add_known("esker_resident_memory_bytes", &[], process.resident_bytes.map(|bytes| bytes as f64));
    samples.add_known("esker_open_files", &[], process.open_files.map(|count| count as f64));
}

/// An enumeration's name, as it is in JSON.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Lines by metric.
#[derive(Default)]
struct Samples(BTreeMap<&'static str, String>);

impl Samples {
    fn metric(name: &str) -> &'static Metric {
        METRICS.iter().find(|metric| metric.name == name).expect("the table has every metric that is written")
    }

    fn add_known(&mut self, name: &str, values: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.add(name, values, value);
        }
    }

    fn add(&mut self, name: &str, values: &[&str], value: f64) {
        let metric = Self::metric(name);
        debug_assert_eq!(metric.labels.len(), values.len(), "{name}");
        let labels: Vec<_> = metric.labels.iter().copied().zip(values.iter().copied()).collect();
        self.line(metric, "", &labels, value);
    }

    fn histogram(&mut self, name: &str, values: &[&str], durations: &super::history::Durations) {
        let metric = Self::metric(name);
        let labels: Vec<_> = metric.labels.iter().copied().zip(values.iter().copied()).collect();
        let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        let mut below = 0;
        for (at, bound) in bounds.enumerate() {
            below += durations.counts.get(at).copied().unwrap_or(0);
            let labels = [&*labels, &[("le", &*bound)]].concat();
            self.line(metric, "_bucket", &labels, below as f64);
        }
        self.line(metric, "_sum", &labels, durations.sum);
        self.line(metric, "_count", &labels, below as f64);
    }

    fn line(&mut self, metric: &'static Metric, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let lines = self.0.entry(metric.name).or_default();
        lines.push_str(metric.name);
        lines.push_str(suffix);
        for (at, (label, value)) in labels.iter().enumerate() {
            let _ = write!(lines, "{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, escaped(value));
        }
        let _ = writeln!(lines, "{} {}", if labels.is_empty() { "" } else { "}" }, number(value));
    }

    fn written(self) -> String {
        let mut text = String::new();
        for metric in METRICS {
            if let Some(lines) = self.0.get(metric.name) {
                let _ = writeln!(text, "# HELP {} {}", metric.name, metric.help);
                let _ = writeln!(text, "# TYPE {} {}", metric.name, metric.shape.name());
                text.push_str(lines);
            }
        }
        text
    }
}

/// A label's value: backslash, quote and newline are what the format escapes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}
