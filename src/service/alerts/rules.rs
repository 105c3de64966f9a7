//! What is wrong now: every rule beside the others, each in a function of its own.
//!
//! Pure: facts in, alerts out. What must be remembered to decide lies in the facts. A job that is switched off
//! is not looked at.

use super::{Alert, Rule, Severity, span};
use crate::service::facts::{Facts, JobFacts, Seen, StoreFacts};
use crate::service::history::{Outcome, Run, TOO_SLOW};
use crate::service::plan::{Job, Kind};

/// Failures in a row after which data is at risk.
const FAILURES_CRITICAL: u64 = 3;

/// How late a job without an RPO may be.
const LATE_MS: i64 = 3_600_000;

/// Where a tier says nothing, how far a replica may be behind.
const REPLICA_MS: i64 = 86_400_000;

/// Runs and failures from which on a share says something: one failure of three is told of as a failure.
const RATED: (usize, usize) = (5, 2);

/// Shares of a quota.
const QUOTA: (f64, f64) = (0.85, 1.0);

/// All that is wrong now, at most one alert of each rule and subject.
pub fn evaluate(facts: &Facts<'_>) -> Vec<Alert> {
    let mut found = Vec::new();
    for job in facts.jobs.iter().filter(|job| job.job.enabled) {
        found.extend(failed(job));
        found.extend(success_rate(facts, job));
        match job.job.kind {
            Kind::Backup => {
                found.extend(overdue(facts, job));
                found.extend(size_anomaly(facts, job));
                found.extend(not_drilled(facts, job));
            }
            Kind::Copy => found.extend(replica_behind(facts, job)),
            Kind::Drill => found.extend(drill(job)),
            _ => {}
        }
    }
    for store in &facts.repositories {
        found.extend(quota(store));
        found.extend(damage(facts, store));
        found.extend(unverified(facts, store));
        found.extend(unreachable(store));
    }
    for notifier in &facts.notifiers {
        let Some(error) = &notifier.error else { continue };
        let summary = format!("notifier `{}` does not deliver; {} given up so far", notifier.name, notifier.given_up);
        found.push(Alert::new(Rule::Notifier, &notifier.name, Severity::Warning, &summary, error));
    }
    if let Some(error) = &facts.reload_failed {
        let summary = "the changed configuration was not understood; the one before goes on";
        found.push(Alert::new(Rule::Configuration, "configuration", Severity::Warning, summary, error));
    }
    found
}

/// An alert about a job.
fn about(job: &Job, rule: Rule, severity: Severity, summary: &str, detail: &str) -> Alert {
    let alert = Alert::new(rule, &job.name, severity, summary, detail)
        .label("job", &job.name)
        .label("repository", &job.repository);
    match &job.tier {
        Some(tier) => alert.label("tier", tier),
        None => alert,
    }
}

fn of_store(store: &StoreFacts<'_>, rule: Rule, severity: Severity, summary: &str, detail: &str) -> Alert {
    Alert::new(rule, store.name, severity, summary, detail).label("repository", store.name)
}

/// The last run that came to an end of its own.
fn last<'a>(job: &JobFacts<'a>) -> Option<&'a Run> {
    job.history.runs.iter().rev().find(|run| run.outcome != Outcome::Interrupted)
}

/// The last run, if it failed.
fn last_failure<'a>(job: &JobFacts<'a>) -> Option<&'a Run> {
    last(job).filter(|run| !run.outcome.is_success())
}

fn why(run: &Run) -> String {
    let message = run.message.as_deref().unwrap_or("it did not say why");
    let tries = if run.tries > 1 { format!("; tried {} times", run.tries) } else { String::new() };
    format!("{message}\nexit code {}{tries}", run.code)
}

/// Checks and scrubs that find damage, and drills and copies that fail, have rules of their own.
fn failed(job: &JobFacts<'_>) -> Option<Alert> {
    let run = last_failure(job)?;
    let has_own_rule = match job.job.kind {
        Kind::Drill | Kind::Copy => true,
        Kind::Check | Kind::Scrub => run.outcome == Outcome::Damage,
        _ => false,
    };
    if has_own_rule {
        return None;
    }
    let failures = job.history.failures.max(1);
    let severity = match job.job.kind {
        Kind::Backup if failures >= FAILURES_CRITICAL => Severity::Critical,
        _ => Severity::Warning,
    };
    let how = match run.outcome {
        Outcome::Timeout => "took too long and was stopped",
        Outcome::Damage => "failed: damage was found",
        _ => "failed",
    };
    let times = if failures > 1 { format!(", {failures} times in a row") } else { String::new() };
    let summary = format!("job `{}` {how}{times}", job.job.name);
    Some(about(job.job, Rule::Failed, severity, &summary, &why(run)))
}

fn overdue(facts: &Facts<'_>, job: &JobFacts<'_>) -> Option<Alert> {
    let name = &job.job.name;
    let why = last_failure(job).map(why).unwrap_or_default();
    if let Some(rpo) = job.tier.and_then(|tier| tier.rpo) {
        let (at_risk, rpo) = (job.at_risk_ms(facts.now_ms), millis(rpo));
        if at_risk <= rpo {
            return None;
        }
        let summary = match job.history.last_success {
            Some(_) => {
                format!("what job `{name}` saves is safe only as of {} ago; {} are allowed", span(at_risk), span(rpo))
            }
            None => format!("job `{name}` never succeeded, for {}; {} are allowed", span(at_risk), span(rpo)),
        };
        return Some(about(job.job, Rule::Overdue, Severity::Critical, &summary, &why));
    }
    // Without a promise it is late when its time has come and nothing happens.
    let late = facts.now_ms - job.due_since_ms?;
    let jitter = millis(job.job.when.jitter.unwrap_or(facts.plan.settings.jitter));
    if job.history.running_since_ms.is_some() || late <= LATE_MS.saturating_add(jitter) {
        return None;
    }
    let summary = format!("job `{name}` should have run {} ago and has not", span(late));
    Some(about(job.job, Rule::Overdue, Severity::Warning, &summary, &why))
}

fn size_anomaly(facts: &Facts<'_>, job: &JobFacts<'_>) -> Option<Alert> {
    let made = |run: &&Run| run.outcome.is_success() && run.snapshot.is_some();
    let mut runs = job.history.runs.iter().rev().filter(made);
    let (new, old) = (runs.next()?, runs.next()?);
    let most = facts.plan.settings.size_change;
    let change = |key: &str| {
        let (new, old) = (*new.numbers.get(key)?, *old.numbers.get(key)?);
        (old > 0.0).then(|| (old, new, (new - old) / old * 100.0))
    };
    let mut found = Vec::new();
    if let Some((old, new, percent)) = change("total_bytes_processed").filter(|(.., percent)| percent.abs() > most) {
        found.push(format!("size changed by {percent:+.0} %, from {} to {}", bytes(old), bytes(new)));
    }
    if let Some((old, new, percent)) = change("total_files_processed").filter(|(.., percent)| -percent > most) {
        found.push(format!("number of files fell by {:.0} %, from {old} to {new}", -percent));
    }
    if found.is_empty() {
        return None;
    }
    let summary = format!("job `{}`: {}", job.job.name, found.join("; "));
    let ids: Vec<&str> = [old, new].iter().filter_map(|run| run.snapshot.as_deref()).collect();
    let detail = format!("to see what changed, run `esker diff {}`", ids.join(" "));
    Some(about(job.job, Rule::SizeAnomaly, Severity::Warning, &summary, &detail))
}

fn success_rate(facts: &Facts<'_>, job: &JobFacts<'_>) -> Option<Alert> {
    let settings = &facts.plan.settings;
    let since = facts.now_ms.saturating_sub(millis(settings.success_over));
    let counts = |run: &&Run| run.ended_ms >= since && run.outcome != Outcome::Interrupted;
    let runs = job.history.runs.iter().filter(counts).count();
    let good = job.history.runs.iter().filter(counts).filter(|run| run.outcome.is_success()).count();
    let share = good as f64 / runs as f64 * 100.0;
    if runs < RATED.0 || runs - good < RATED.1 || share >= settings.success_rate {
        return None;
    }
    let summary = format!(
        "job `{}`: {good} of {runs} runs succeeded in the last {}, {share:.1} %; {} % should",
        job.job.name,
        span(millis(settings.success_over)),
        settings.success_rate
    );
    Some(about(job.job, Rule::SuccessRate, Severity::Warning, &summary, ""))
}

fn quota(store: &StoreFacts<'_>) -> Option<Alert> {
    let quota = store.store.quota.filter(|quota| *quota > 0)? as f64;
    let stored = store.seen.as_ref()?.stored_bytes.values().fold(0u64, |sum, more| sum.saturating_add(*more)) as f64;
    let severity = match stored / quota {
        share if share >= QUOTA.1 => Severity::Critical,
        share if share >= QUOTA.0 => Severity::Warning,
        _ => return None,
    };
    let percent = stored / quota * 100.0;
    let summary =
        format!("repository `{}` holds {percent:.0} % of its quota, {} of {}", store.name, bytes(stored), bytes(quota));
    Some(of_store(store, Rule::Quota, severity, &summary, "to see what can go, run `esker prune --dry-run`"))
}

/// One alert for a repository, whoever found it.
fn damage(facts: &Facts<'_>, store: &StoreFacts<'_>) -> Option<Alert> {
    let mut found = Vec::new();
    if let Some(seen) = &store.seen {
        let known = [(seen.damaged_chunks, "chunks are damaged"), (seen.damaged_snapshots, "snapshots cannot be read")];
        found.extend(known.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    }
    for job in facts.jobs.iter().filter(|job| job.job.enabled && job.job.repository == store.name) {
        if let Some(run) = last(job).filter(|run| run.outcome == Outcome::Damage) {
            found.push(format!(
                "job `{}` found damage: {}",
                job.job.name,
                run.message.as_deref().unwrap_or("no details")
            ));
        }
    }
    if found.is_empty() {
        return None;
    }
    let summary = format!("repository `{}` is damaged", store.name);
    Some(of_store(store, Rule::Damage, Severity::Critical, &summary, &found.join("\n")))
}

/// A restore that does not work is no backup; one that is slower than promised is worth a look.
fn drill(job: &JobFacts<'_>) -> Option<Alert> {
    let name = &job.job.name;
    if let Some(run) = last_failure(job).filter(|run| run.result.as_deref() == Some(TOO_SLOW)) {
        return Some(about(
            job.job,
            Rule::Drill,
            Severity::Warning,
            &format!("restore drill `{name}` took longer than the RTO allows"),
            &why(run),
        ));
    }
    if let Some(run) = last_failure(job) {
        return Some(about(
            job.job,
            Rule::Drill,
            Severity::Critical,
            &format!("restore drill `{name}` failed"),
            &why(run),
        ));
    }
    let rto = millis(job.tier?.rto?);
    let took = (last(job)?.seconds() * 1000.0) as i64;
    if took <= rto {
        return None;
    }
    let summary = format!("restore drill `{name}` took {}; {} are allowed", span(took), span(rto));
    Some(about(job.job, Rule::Drill, Severity::Warning, &summary, ""))
}

/// Whether `other` looks after what `backup` saves: it follows from it, or stands for itself at the same repository.
fn looks_after(other: &Job, backup: &Job) -> bool {
    other.enabled
        && match &other.of {
            Some(of) => *of == backup.name,
            None => other.repository == backup.repository,
        }
}

fn not_drilled(facts: &Facts<'_>, backup: &JobFacts<'_>) -> Option<Alert> {
    let within = millis(backup.tier?.drilled_within?);
    let drills = facts.jobs.iter().filter(|job| job.job.kind == Kind::Drill && looks_after(job.job, backup.job));
    let last = drills.filter_map(|job| job.history.last_success.as_ref()).map(|run| run.ended_ms).max();
    let ago = facts.now_ms - last.unwrap_or(backup.history.since_ms);
    if ago <= within {
        return None;
    }
    let name = &backup.job.name;
    let summary = match last {
        Some(_) => format!("no restore of job `{name}` was tried for {}; {} are allowed", span(ago), span(within)),
        None => format!("no restore of job `{name}` was ever tried; {} are allowed", span(within)),
    };
    Some(about(backup.job, Rule::Drill, Severity::Warning, &summary, ""))
}

/// The strictest tier of the backups in a repository counts. What the repository itself knows of its packs goes before
/// what jobs say that verify.
fn unverified(facts: &Facts<'_>, store: &StoreFacts<'_>) -> Option<Alert> {
    let enabled = || facts.jobs.iter().filter(|job| job.job.enabled && job.job.repository == store.name);
    let backups = || enabled().filter(|job| job.job.kind == Kind::Backup);
    let strictest = backups().filter_map(|job| Some((millis(job.tier?.verified_within?), job)));
    let (within, backup) = strictest.min_by_key(|(within, _)| *within)?;
    let known = store.seen.as_ref().and_then(|seen| seen.oldest_unverified_ms);
    let verifies = || enabled().filter(|job| matches!(job.job.kind, Kind::Check | Kind::Scrub));
    let last = || verifies().filter_map(|job| job.history.last_success.as_ref()).map(|run| run.ended_ms).max();
    let ago = facts.now_ms - known.or_else(last).unwrap_or(backup.history.since_ms);
    if ago <= within {
        return None;
    }
    let summary =
        format!("repository `{}` has data not verified for {}; {} are allowed", store.name, span(ago), span(within));
    let detail = format!("tier `{}` of job `{}` says so", backup.job.tier.as_deref().unwrap_or("-"), backup.job.name);
    Some(of_store(store, Rule::Unverified, Severity::Warning, &summary, &detail))
}

/// How long the replica has lacked a snapshot, and what is wrong with the job that should bring it.
fn replica_behind(facts: &Facts<'_>, copy: &JobFacts<'_>) -> Option<Alert> {
    let job = copy.job;
    let target = job.target.as_deref()?;
    let seen =
        |name: &str| facts.repositories.iter().find(|store| store.name == name).and_then(|store| store.seen.as_ref());
    let brings = |backup: &&JobFacts<'_>| {
        backup.job.enabled
            && backup.job.kind == Kind::Backup
            && backup.job.repository == job.repository
            && job.of.as_ref().is_none_or(|of| *of == backup.job.name)
    };
    let mut behind = Vec::new();
    if let Some(held) = seen(target) {
        for backup in facts.jobs.iter().filter(brings) {
            let allowed = backup.tier.or(copy.tier).and_then(|tier| tier.rpo).map_or(REPLICA_MS, millis);
            let Some(since) = missing_since(backup, copy, seen(&job.repository), held) else { continue };
            let lacks = facts.now_ms.min(held.at_ms.max(copied_ms(copy))) - since;
            if lacks > allowed {
                behind.push(format!("`{}` by {}, {} are allowed", backup.job.name, span(lacks), span(allowed)));
            }
        }
    }
    let failure = last_failure(copy);
    let (severity, summary) = match (failure, behind.first()) {
        (None, None) => return None,
        (Some(_), None) => {
            (Severity::Warning, format!("job `{}` fails to bring snapshots to replica `{target}`", job.name))
        }
        (None, Some(_)) => (Severity::Warning, format!("replica `{target}` is behind: {}", behind.join("; "))),
        (Some(_), Some(_)) => {
            let summary = format!("replica `{target}` is behind, and job `{}` fails: {}", job.name, behind.join("; "));
            (Severity::Critical, summary)
        }
    };
    let detail = failure.map(why).unwrap_or_default();
    Some(about(job, Rule::ReplicaBehind, severity, &summary, &detail).label("target", target))
}

/// When the last copy ended that succeeded.
fn copied_ms(copy: &JobFacts<'_>) -> i64 {
    copy.history.last_success.as_ref().map_or(i64::MIN, |run| run.ended_ms)
}

/// Since when the replica lacks a snapshot of `backup`: when the first was there that it does not have.
///
/// What was seen of the replica may be older than the last copy; then what that copy must have found counts.
fn missing_since(backup: &JobFacts<'_>, copy: &JobFacts<'_>, source: Option<&Seen>, held: &Seen) -> Option<i64> {
    let mut newest = held.newest_ms.get(&backup.job.name).copied().unwrap_or(i64::MIN);
    if let Some(run) = copy.history.last_success.as_ref().filter(|run| run.ended_ms > held.at_ms) {
        newest = newest.max(run.saved_ms());
    }
    let made = |run: &&Run| run.outcome.is_success() && run.snapshot.is_some() && run.saved_ms() > newest;
    let first = backup.history.runs.iter().find(made).map(|run| run.ended_ms);
    let elsewhere = || source?.newest_ms.get(&backup.job.name).copied().filter(|at| *at > newest);
    first.or_else(elsewhere)
}

fn unreachable(store: &StoreFacts<'_>) -> Option<Alert> {
    let error = store.seen.as_ref()?.error.as_ref()?;
    let summary = format!("repository `{}` at `{}` cannot be reached", store.name, store.store.place);
    Some(of_store(store, Rule::Unreachable, Severity::Warning, &summary, error))
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut at = 0;
    let mut left = count;
    while left >= 1024.0 && at + 1 < units.len() {
        left /= 1024.0;
        at += 1;
    }
    if at == 0 { format!("{left:.0} B") } else { format!("{left:.1} {}", units[at]) }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
