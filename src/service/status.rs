//! Are we safe? For each backup job what was promised and what is so, for people and for programs.
//!
//! A job is safe when every promise of its tier is kept: it succeeded within the RPO, the last drill was as quick as the
//! RTO, as many places as promised have it, its data was verified and restored lately enough, and no damage is known in
//! its repository. A promise to verify or to drill that was made lately is not broken yet. Without an RPO the last
//! run must have succeeded.

use serde_json::{Map, Value, json};

use super::facts::{Facts, JobFacts, Seen};
use super::history::{History, Outcome, Run};
use super::plan::Kind;

/// What is promised of one backup job, and what is so.
#[derive(Debug, Clone)]
pub struct Standing<'a> {
    /// The job.
    pub facts: &'a JobFacts<'a>,
    /// The moment it is of, milliseconds since 1970.
    pub now_ms: i64,
    /// How old what is safe is, in seconds; `None` before the first success.
    pub age: Option<f64>,
    /// For how long something has been there that is not safe, in seconds.
    pub at_risk: f64,
    /// Of how long that may be.
    pub rpo: Promise,
    /// How long the last drill took, in seconds.
    pub restore: Option<f64>,
    /// Of how long a restore may take.
    pub rto: Promise,
    /// Where its snapshots go; its own repository first.
    pub places: Vec<Place<'a>>,
    /// Of how many places have it.
    pub copies: Promise,
    /// All data of its repository was verified, or stored, since then; without a look, when a check or scrub succeeded.
    pub verified_ms: Option<i64>,
    /// Of how long ago that may be.
    pub verified: Promise,
    /// When a drill last succeeded.
    pub drilled_ms: Option<i64>,
    /// Of how long ago that may be.
    pub drilled: Promise,
    /// Objects known to be damaged in its repository.
    pub damaged: u64,
    /// The jobs whose last run found damage there.
    pub found: Vec<&'a str>,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

/// A promise: how much, and whether it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Promise {
    /// Seconds, or places; `None` if nothing is promised.
    pub target: Option<f64>,
    /// `None` if nothing is promised, or nothing is known yet.
    pub kept: Option<bool>,
}

/// A repository that a job's snapshots are in, or should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Place<'a> {
    /// Its name.
    pub repository: &'a str,
    /// Whether it is the job's own, not a replica.
    pub own: bool,
    /// Whether it is somewhere else.
    pub offsite: bool,
    /// The newest snapshot of the job there, if any is known.
    pub newest_ms: Option<i64>,
    /// For how long it has lacked a snapshot that the job's own repository has, in seconds. `None` if there is none.
    pub lag: Option<f64>,
}

impl Promise {
    fn most(target: Option<std::time::Duration>, actual: Option<f64>) -> Self {
        let target = target.map(|most| most.as_secs_f64());
        Self { target, kept: target.and_then(|most| Some(actual? <= most)) }
    }

    fn is_broken(self) -> bool {
        self.kept == Some(false)
    }
}

impl Standing<'_> {
    /// Whether all that was promised is kept. A job that is switched off is not asked.
    pub fn is_safe(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many places have a snapshot of it.
    pub fn held(&self) -> usize {
        self.places.iter().filter(|place| place.newest_ms.is_some()).count()
    }
}

/// Every backup job's standing, in the order of their names.
pub fn standings<'a>(facts: &'a Facts<'a>) -> Vec<Standing<'a>> {
    facts.jobs.iter().filter(|job| job.job.kind == Kind::Backup).map(|job| standing(facts, job)).collect()
}

/// The exit code of `esker status`: 0 when all is safe, 4 when damage is known, else 1.
pub fn exit_code(facts: &Facts<'_>) -> u8 {
    let standings = standings(facts);
    let damaged = facts.repositories.iter().filter_map(|store| store.seen.as_ref()).any(|seen| damage(seen) > 0)
        || facts.jobs.iter().any(|job| job.job.enabled && found_damage(job));
    match standings.iter().all(Standing::is_safe) {
        _ if damaged => 4,
        true => 0,
        false => 1,
    }
}

fn damage(seen: &Seen) -> u64 {
    seen.damaged_chunks + seen.damaged_snapshots
}

/// Whether the last run that ended by itself found damage.
fn found_damage(job: &JobFacts<'_>) -> bool {
    let last = job.history.runs.iter().rfind(|run| run.outcome != Outcome::Interrupted);
    last.is_some_and(|run| run.outcome == Outcome::Damage)
}

fn seen<'a>(facts: &'a Facts<'a>, repository: &str) -> Option<&'a Seen> {
    facts.repositories.iter().find(|store| store.name == repository)?.seen.as_ref()
}

/// The jobs of some kinds that are about a backup job: those that follow from it, and those that follow from none and are
/// about its repository as a whole.
fn about<'a>(facts: &'a Facts<'a>, of: &'a JobFacts<'a>, kinds: &'a [Kind]) -> impl Iterator<Item = &'a JobFacts<'a>> {
    facts.jobs.iter().filter(move |other| {
        let whole = other.job.of.is_none() && other.job.repository == of.job.repository;
        kinds.contains(&other.job.kind) && (whole || other.job.of.as_ref() == Some(&of.job.name))
    })
}

fn standing<'a>(facts: &'a Facts<'a>, job: &'a JobFacts<'a>) -> Standing<'a> {
    let now = facts.now_ms;
    let tier = job.tier;
    let since = |ms: i64| (now - ms).max(0) as f64 / 1000.0;
    let age = job.age_secs(now);

    let at_risk = job.at_risk_ms(now) as f64 / 1000.0;

    let drills: Vec<&JobFacts<'_>> = about(facts, job, &[Kind::Drill]).collect();
    let last_drill = drills.iter().filter_map(|drill| drill.last()).max_by_key(|run| run.ended_ms);
    let good_drill =
        drills.iter().filter_map(|drill| drill.history.last_success.as_ref()).max_by_key(|run| run.ended_ms);
    // One that was too slow failed, and says how slow.
    let is_timed = |run: &&Run| run.outcome.is_success() || run.numbers.contains_key(DRILL_SECONDS);
    let timed = drills.iter().filter_map(|drill| drill.history.runs.iter().rfind(is_timed)).chain(good_drill);
    let restore = timed.max_by_key(|run| run.ended_ms).map(drill_seconds);

    let seen_here = seen(facts, &job.job.repository);
    // Whoever's promise they keep, they verify the repository.
    let checks = facts.jobs.iter().filter(|other| matches!(other.job.kind, Kind::Check | Kind::Scrub));
    let checked_ms = checks
        .filter(|check| check.job.repository == job.job.repository)
        .filter_map(|check| check.history.last_success.as_ref())
        .map(|run| run.ended_ms)
        .max();
    // What a repository says of itself is about all of its data; a scrub that succeeded may have read a part.
    let verified_ms = seen_here.and_then(|seen| seen.oldest_unverified_ms).or(checked_ms);

    // Nothing done yet is no broken promise until there was time to do it.
    let lately = |target: Option<std::time::Duration>, done_ms: Option<i64>| {
        let known = job.history.since_ms;
        let begun = done_ms.or((known > 0).then_some(known));
        Promise::most(target, begun.map(since))
    };

    let places = places(facts, job);
    let held = places.iter().filter(|place| place.newest_ms.is_some()).count();
    let copies = tier.and_then(|tier| tier.places);
    let mut standing = Standing {
        facts: job,
        now_ms: now,
        age,
        at_risk,
        rpo: Promise::most(tier.and_then(|tier| tier.rpo), Some(at_risk)),
        restore,
        rto: Promise::most(tier.and_then(|tier| tier.rto), restore),
        places,
        copies: Promise { target: copies.map(f64::from), kept: copies.map(|least| held >= least as usize) },
        verified_ms,
        verified: lately(tier.and_then(|tier| tier.verified_within), verified_ms),
        drilled_ms: good_drill.map(|run| run.ended_ms),
        drilled: lately(tier.and_then(|tier| tier.drilled_within), good_drill.map(|run| run.ended_ms)),
        damaged: seen_here.map_or(0, damage),
        found: Vec::new(),
        problems: Vec::new(),
    };
    let found = facts.jobs.iter().filter(|other| other.job.enabled && other.job.repository == job.job.repository);
    standing.found = found.filter(|other| found_damage(other)).map(|other| &*other.job.name).collect();
    let drill_failed = last_drill.filter(|run| !run.outcome.is_success() && run.outcome != Outcome::Interrupted);
    if job.job.enabled {
        standing.problems = problems(&standing, drill_failed, held);
    }
    standing
}

/// What `drill` calls the time from its beginning until the data was there, compared and checked.
const DRILL_SECONDS: &str = "seconds_total";

/// How long a drill's restore took, as it says itself, or else the run.
fn drill_seconds(run: &Run) -> f64 {
    run.numbers.get(DRILL_SECONDS).copied().unwrap_or_else(|| run.seconds())
}

/// The runs that made a snapshot, newest first. A run that finds nothing changed may make none.
pub(super) fn made(history: &History) -> impl Iterator<Item = &Run> {
    let is_said = history.last_success.iter().chain(&history.runs).any(|run| run.snapshot.is_some());
    let kept_ms = history.runs.first().map_or(i64::MAX, |run| run.ended_ms);
    let older = history.last_success.iter().filter(move |run| run.ended_ms < kept_ms);
    let runs = history.runs.iter().rev().chain(older);
    runs.filter(move |run| run.outcome.is_success() && (!is_said || run.snapshot.is_some()))
}

fn places<'a>(facts: &'a Facts<'a>, job: &'a JobFacts<'a>) -> Vec<Place<'a>> {
    let offsite = |name: &str| facts.plan.repositories.get(name).is_some_and(|store| store.offsite);
    let newest = |name: &str| seen(facts, name).and_then(|seen| seen.newest_ms.get(&job.job.name).copied());
    let made_ms = made(job.history).next().map(|run| (run.saved_ms(), run.ended_ms));
    let here = newest(&job.job.repository).max(made_ms.map(|(saved, _)| saved));
    let own = &*job.job.repository;
    let mut places =
        vec![Place { repository: own, own: true, offsite: offsite(own), newest_ms: here, lag: here.map(|_| 0.0) }];
    for copy in about(facts, job, &[Kind::Copy]) {
        let Some(target) = copy.job.target.as_deref() else { continue };
        if places.iter().any(|place| place.repository == target) {
            continue;
        }
        // The last look may be older than the last copy, and that brought what had been made before it.
        let copied_ms = copy.history.last_success.as_ref().map(Run::saved_ms);
        let brought = copied_ms.and_then(|copied| made(job.history).find(|run| run.ended_ms <= copied));
        let there = newest(target).max(brought.map(Run::saved_ms));
        // A snapshot bears the time its backup began, a moment after its run: a copy after that run brought it all the same.
        let is_there = |run: &&Run| Some(run.saved_ms()) <= there || copied_ms.is_some_and(|at| run.ended_ms <= at);
        let lacked = made(job.history).take_while(|run| !is_there(run)).last().map(|run| run.ended_ms);
        // What others made here, by hand or on another machine.
        let is_brought =
            made_ms.zip(copied_ms).is_some_and(|((_, ended), copied)| ended <= copied && here <= Some(ended));
        let since = lacked.or_else(|| here.filter(|_| !is_brought && here > there));
        let lag = here.map(|_| since.map_or(0.0, |since| (facts.now_ms - since).max(0) as f64 / 1000.0));
        places.push(Place { repository: target, own: false, offsite: offsite(target), newest_ms: there, lag });
    }
    places
}

fn problems(standing: &Standing<'_>, drill_failed: Option<&Run>, held: usize) -> Vec<String> {
    let mut problems = Vec::new();
    let history = standing.facts.history;
    let target = |promise: Promise| span(promise.target.unwrap_or_default());
    match standing.age {
        None => {
            let why = history.last().map(|run| match &run.message {
                Some(why) => format!(", the last run failed: {}", one_line(why)),
                None => format!(", the last run ended as {}", run.outcome.name()),
            });
            // Another machine, or one whose state was lost.
            let newest = standing.places.iter().find(|place| place.own).and_then(|place| place.newest_ms);
            let elsewhere = newest.filter(|_| why.is_none()).map(|ms| {
                let age = span((standing.now_ms - ms).max(0) as f64 / 1000.0);
                format!(" as far as this machine knows; its newest snapshot is {age} old")
            });
            let why = why.or(elsewhere);
            problems.push(format!("it has never succeeded{}", why.unwrap_or_default()));
        }
        Some(_) if standing.rpo.is_broken() => {
            let at_risk = span(standing.at_risk);
            problems.push(format!("what is safe is as of {at_risk} ago, and may be {} (RPO)", target(standing.rpo)));
        }
        Some(_) => {}
    }
    if history.failures > 0 && standing.rpo.kept != Some(true) && standing.age.is_some() {
        let times = if history.failures == 1 { "once".to_owned() } else { format!("{} times", history.failures) };
        let why = history.last().and_then(|run| run.message.as_deref()).map(|why| format!(": {}", one_line(why)));
        problems.push(format!("it failed {times} since it last succeeded{}", why.unwrap_or_default()));
    }
    if let Some(seconds) = standing.restore.filter(|_| standing.rto.is_broken()) {
        problems.push(format!("the last restore took {}, and may take {} (RTO)", span(seconds), target(standing.rto)));
    }
    if let (true, Some(least)) = (standing.copies.is_broken(), standing.copies.target) {
        problems.push(format!("{held} of the {least} places promised have it"));
    }
    if standing.verified.is_broken() {
        problems.push(format!("its data was not all verified in {}", target(standing.verified)));
    }
    if standing.drilled.is_broken() {
        problems.push(format!("no drill succeeded in {}", target(standing.drilled)));
    }
    if let Some(run) = drill_failed {
        let why = run.message.as_deref().map(|why| format!(": {}", one_line(why)));
        problems.push(format!("the last drill failed ({}){}", run.outcome.name(), why.unwrap_or_default()));
    }
    if standing.damaged > 0 {
        let objects = if standing.damaged == 1 { "object" } else { "objects" };
        problems.push(format!("{} {objects} of its repository are known to be damaged", standing.damaged));
    }
    for job in &standing.found {
        problems.push(format!("{} found damage in its repository", plain(job)));
    }
    problems
}

/// The answer for programs: `esker status --json`, and `/status`.
pub fn status_json(facts: &Facts<'_>) -> Value {
    let standings = standings(facts);
    let jobs: Vec<Value> = facts
        .jobs
        .iter()
        .map(|job| {
            let mut value = job_json(job);
            if let Some(standing) = standings.iter().find(|standing| standing.facts.job.name == job.job.name) {
                value["protection"] = protection_json(standing);
            }
            value
        })
        .collect();
    let repositories = facts.repositories.iter().map(|store| {
        json!({
            "name": store.name,
            "place": store.store.place,
            "offsite": store.store.offsite,
            "quota_bytes": store.store.quota,
            "seen": store.seen.as_ref().map(|seen| json!({
                "time": time(seen.at_ms),
                "error": seen.error,
                "stored_bytes": seen.stored_bytes,
                "snapshots": seen.snapshots,
                "damaged_chunks": seen.damaged_chunks,
                "damaged_snapshots": seen.damaged_snapshots,
                "oldest_unverified": seen.oldest_unverified_ms.map(time),
                "verified_share": seen.verified_share,
            })),
        })
    });
    let notifiers = facts.notifiers.iter().map(|notifier| {
        json!({
            "name": notifier.name,
            "delivered": notifier.delivered,
            "given_up": notifier.given_up,
            "error": notifier.error,
        })
    });
    let code = exit_code(facts);
    json!({
        "message_type": "status",
        "time": time(facts.now_ms),
        "safe": code == 0,
        "code": code,
        "jobs": jobs,
        "repositories": repositories.collect::<Vec<_>>(),
        "notifiers": notifiers.collect::<Vec<_>>(),
        "reload_failed": facts.reload_failed,
    })
}

fn job_json(facts: &JobFacts<'_>) -> Value {
    let (job, history) = (facts.job, facts.history);
    let runs: Map<String, Value> =
        history.totals.iter().map(|(outcome, count)| (outcome.name().to_owned(), json!(count))).collect();
    json!({
        "job": job.name,
        "kind": job.kind.name(),
        "of": job.of,
        "repository": job.repository,
        "target": job.target,
        "tier": job.tier,
        "enabled": job.enabled,
        "running_since": history.running_since_ms.map(time),
        "last_run": history.last().map(run_json),
        "last_success": history.last_success.as_ref().map(run_json),
        "failures": history.failures,
        "runs": runs,
        "next_run": facts.next_ms.map(time),
        "due_since": facts.due_since_ms.map(time),
        "watch_lost": facts.watch_lost,
    })
}

fn run_json(run: &Run) -> Value {
    json!({
        "began": time(run.began_ms),
        "ended": time(run.ended_ms),
        "seconds": run.seconds(),
        "outcome": run.outcome.name(),
        "code": run.code,
        "trigger": run.trigger,
        "tries": run.tries,
        "message": run.message,
        "snapshot": run.snapshot,
        "numbers": run.numbers,
    })
}

fn protection_json(standing: &Standing<'_>) -> Value {
    let places = standing.places.iter().map(|place| {
        json!({
            "repository": place.repository,
            "replica": !place.own,
            "offsite": place.offsite,
            "newest": place.newest_ms.map(time),
            "lag_seconds": place.lag,
        })
    });
    json!({
        "safe": standing.is_safe(),
        "problems": standing.problems,
        "age_seconds": standing.age,
        "at_risk_seconds": standing.at_risk,
        "rpo_seconds": standing.rpo.target,
        "rpo_met": standing.rpo.kept,
        "restore_seconds": standing.restore,
        "rto_seconds": standing.rto.target,
        "rto_met": standing.rto.kept,
        "places": places.collect::<Vec<_>>(),
        "places_held": standing.held(),
        "places_target": standing.copies.target.map(|places| places as u64),
        "places_met": standing.copies.kept,
        "offsite": standing.places.iter().any(|place| place.offsite && place.newest_ms.is_some()),
        "last_verified": standing.verified_ms.map(time),
        "verified_within_seconds": standing.verified.target,
        "verified_met": standing.verified.kept,
        "last_drill": standing.drilled_ms.map(time),
        "drilled_within_seconds": standing.drilled.target,
        "drilled_met": standing.drilled.kept,
        "damaged": standing.damaged,
    })
}

/// The answer for people, a line each: a table of the backup jobs, then what is wrong with each, then the verdict.
pub fn status_lines(facts: &Facts<'_>) -> Vec<String> {
    let standings = standings(facts);
    if standings.is_empty() {
        return vec!["no backup job is configured: nothing is protected".to_owned()];
    }
    let now = facts.now_ms;
    let ago = |ms: Option<i64>| ms.map_or_else(|| "never".to_owned(), |ms| span((now - ms).max(0) as f64 / 1000.0));
    let of = |actual: Option<f64>, promise: Promise| match (actual, promise.target) {
        (Some(actual), Some(most)) => format!("{} of {}", span(actual), span(most)),
        (Some(actual), None) => span(actual),
        (None, Some(most)) => format!("? of {}", span(most)),
        (None, None) => "-".to_owned(),
    };
    let mut rows = vec![
        ["Job", "Safe", "Last success", "RPO", "RTO", "Places", "Verified", "Drill", "Next run"].map(str::to_owned),
    ];
    for standing in &standings {
        let job = standing.facts;
        let held = standing.held();
        let offsite = standing.places.iter().any(|place| place.offsite && place.newest_ms.is_some());
        let places = standing.copies.target.map_or_else(|| held.to_string(), |least| format!("{held} of {least}"));
        rows.push([
            plain(&job.job.name),
            match (job.job.enabled, standing.is_safe()) {
                (false, _) => "off",
                (true, true) => "yes",
                (true, false) => "NO",
            }
            .to_owned(),
            ago(job.history.last_success.as_ref().map(|run| run.ended_ms)),
            of(standing.age.map(|_| standing.at_risk), standing.rpo),
            of(standing.restore, standing.rto),
            if offsite { format!("{places}, offsite") } else { places },
            ago(standing.verified_ms),
            ago(standing.drilled_ms),
            match (job.history.running_since_ms, job.next_ms) {
                (Some(_), _) => "running".to_owned(),
                (None, Some(next)) => format!("in {}", span((next - now).max(0) as f64 / 1000.0)),
                (None, None) if job.job.when.watch.is_some() => "on change".to_owned(),
                (None, None) => "-".to_owned(),
            },
        ]);
    }
    let mut lines = aligned(&rows);
    let wrong: Vec<String> = standings
        .iter()
        .flat_map(|standing| {
            let name = plain(&standing.facts.job.name);
            standing.problems.iter().map(move |problem| format!("{name}: {problem}"))
        })
        .chain(other_problems(facts))
        .collect();
    if !wrong.is_empty() {
        lines.push(String::new());
        lines.extend(wrong);
    }
    let asked: Vec<_> = standings.iter().filter(|standing| standing.facts.job.enabled).collect();
    let safe = asked.iter().filter(|standing| standing.is_safe()).count();
    lines.push(String::new());
    // What is safe is then known from before.
    let is_seen = !facts.repositories.iter().filter_map(|store| store.seen.as_ref()).any(|seen| seen.error.is_some());
    lines.push(match (exit_code(facts), asked.len()) {
        (0, 1) if !is_seen => "the job is safe by what was seen before; not all repositories can be reached".to_owned(),
        (0, all) if !is_seen => {
            format!("all {all} jobs are safe by what was seen before; not all repositories can be reached")
        }
        (0, 1) => "the job is safe".to_owned(),
        (0, all) => format!("all {all} jobs are safe"),
        (_, all) if safe == all => "the jobs are safe, and damage is known".to_owned(),
        (_, all) => format!("{} of {all} jobs are not safe", all - safe),
    });
    lines
}

/// What is wrong besides the backup jobs; nothing of it by itself makes them unsafe.
fn other_problems<'a>(facts: &'a Facts<'a>) -> impl Iterator<Item = String> + 'a {
    // Of backups and their drills it was said.
    let is_other = |job: &&JobFacts<'_>| {
        let said = job.job.kind == Kind::Backup || (job.job.kind == Kind::Drill && job.job.of.is_some());
        job.job.enabled && !said
    };
    let failed = facts.jobs.iter().filter(is_other).filter_map(|job| {
        let run = job.last().filter(|_| job.history.failures > 0)?;
        let why = run.message.as_deref().map_or_else(|| run.outcome.name().to_owned(), one_line);
        Some(format!("{}: the last run failed: {why}", plain(&job.job.name)))
    });
    let watches = facts.jobs.iter().filter_map(|job| {
        let why = job.watch_lost.as_deref()?;
        Some(format!("{}: changes are not seen at once: {}", plain(&job.job.name), one_line(why)))
    });
    let stores = facts.repositories.iter().filter_map(|store| {
        let why = store.seen.as_ref()?.error.as_deref()?;
        Some(format!("repository {}: {}", plain(store.name), one_line(why)))
    });
    let notifiers = facts.notifiers.iter().filter_map(|notifier| {
        let why = notifier.error.as_deref()?;
        Some(format!("notifier {}: {}", plain(&notifier.name), one_line(why)))
    });
    let reload = facts.reload_failed.as_deref();
    let reload = reload.map(|why| format!("the changed configuration is not in use: {}", one_line(why)));
    failed.chain(watches).chain(stores).chain(notifiers).chain(reload)
}

/// Columns, left, two spaces between them.
fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let widths: Vec<usize> =
        (0..N).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A time as programs read it; UTC.
fn time(ms: i64) -> Value {
    jiff::Timestamp::from_millisecond(ms).map_or(Value::Null, |time| Value::String(time.to_string()))
}

/// A length of time in its two largest units.
pub fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    let units = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")];
    let Some(first) = units.iter().position(|(count, _)| *count > 0) else {
        return if seconds > 0.0 { format!("{seconds:.1}s") } else { "0s".to_owned() };
    };
    let shown = units[first..].iter().take(2).filter(|(count, _)| *count > 0);
    shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn one_line(text: &str) -> String {
    plain(text.lines().next().unwrap_or_default())
}
