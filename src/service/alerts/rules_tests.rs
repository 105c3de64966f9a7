//! Risk: an alert that does not come, or that comes for nothing. Method: scenes of a few lines, each with the alerts it gives and,
//! beside it, the nearest one that gives none.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::service::facts::NotifierFacts;
use crate::service::history::{History, Trigger};
use crate::service::plan::{Plan, Store, Tier, Watch, When};

const MIN: i64 = 60_000;
const DAY: i64 = 86_400_000;
const NOW: i64 = 1000 * DAY;

/// Job `db` of tier `t` in repository `usb`, that all are told of.
struct Scene {
    plan: Plan,
    histories: BTreeMap<String, History>,
    seen: BTreeMap<String, Seen>,
    due: Option<i64>,
    watch_lost: Option<String>,
    notifiers: Vec<NotifierFacts>,
    reload_failed: Option<String>,
}

fn scene() -> Scene {
    let mut plan = Plan::default();
    plan.repositories
        .insert("usb".to_owned(), Store { place: "/mnt/usb".to_owned(), quota: Some(1000), offsite: false });
    plan.repositories.insert("far".to_owned(), Store { place: "s3://far".to_owned(), ..Store::default() });
    plan.tiers.insert("t".to_owned(), Tier::default());
    let scene = Scene {
        plan,
        histories: BTreeMap::new(),
        seen: BTreeMap::new(),
        due: None,
        watch_lost: None,
        notifiers: Vec::new(),
        reload_failed: None,
    };
    scene.job("db", Kind::Backup)
}

/// A run that began then, took a minute, and ended so.
fn run(began_ms: i64, outcome: Outcome) -> Run {
    let code = if outcome.is_success() { 0 } else { 1 };
    let (ended_ms, tried_ms) = (began_ms + MIN, began_ms);
    let message = (code == 1).then(|| "disk full".to_owned());
    let (trigger, tries) = (Trigger::Schedule, 1);
    Run {
        began_ms,
        ended_ms,
        tried_ms,
        outcome,
        code,
        trigger,
        tries,
        message,
        snapshot: None,
        result: None,
        numbers: BTreeMap::new(),
    }
}

fn good(began_ms: i64) -> Run {
    run(began_ms, Outcome::Success)
}

fn bad(began_ms: i64) -> Run {
    run(began_ms, Outcome::Failure)
}

fn snapshot(began_ms: i64, bytes: f64, files: f64) -> Run {
    let numbers = [("total_bytes_processed", bytes), ("total_files_processed", files)];
    let numbers = numbers.map(|(key, value)| (key.to_owned(), value)).into();
    Run { snapshot: Some("7c1e04".to_owned()), numbers, ..good(began_ms) }
}

impl Scene {
    fn job(mut self, name: &str, kind: Kind) -> Self {
        let job = Job {
            name: name.to_owned(),
            kind,
            args: Vec::new(),
            repository: "usb".to_owned(),
            target: (kind == Kind::Copy).then(|| "far".to_owned()),
            tier: Some("t".to_owned()),
            of: name.split_once(':').map(|(of, _)| of.to_owned()),
            when: When::default(),
            retries: 0,
            retry_wait: Duration::ZERO,
            timeout: None,
            nice: None,
            hooks: Default::default(),
            notify: None,
            enabled: true,
        };
        self.plan.jobs.insert(name.to_owned(), job);
        self.histories.insert(name.to_owned(), History { since_ms: NOW - DAY, ..History::default() });
        self
    }

    fn tier(mut self, set: impl Fn(&mut Tier)) -> Self {
        set(self.plan.tiers.get_mut("t").unwrap());
        self
    }

    fn runs(mut self, job: &str, runs: impl IntoIterator<Item = Run>) -> Self {
        runs.into_iter().for_each(|run| self.histories.get_mut(job).unwrap().add(run));
        self
    }

    fn sees(mut self, store: &str, seen: Seen) -> Self {
        self.seen.insert(store.to_owned(), seen);
        self
    }

    fn change(mut self, change: impl Fn(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn alerts(&self) -> Vec<Alert> {
        let jobs = self.plan.jobs.values().map(|job| JobFacts {
            job,
            tier: self.plan.tier(job),
            history: &self.histories[&job.name],
            next_ms: None,
            due_since_ms: self.due,
            watch_lost: self.watch_lost.clone(),
        });
        let stores = self.plan.repositories.iter();
        let repositories = stores.map(|(name, store)| StoreFacts { name, store, seen: self.seen.get(name).cloned() });
        evaluate(&Facts {
            now_ms: NOW,
            plan: &self.plan,
            jobs: jobs.collect(),
            repositories: repositories.collect(),
            notifiers: self.notifiers.clone(),
            reload_failed: self.reload_failed.clone(),
        })
    }

    /// `rule subject severity: summary`, a line each.
    fn says(&self) -> String {
        let line = |alert: &Alert| {
            format!("{} {} {}: {}", alert.rule.name(), alert.subject, alert.severity.name(), alert.summary)
        };
        self.alerts().iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn nothing_is_wrong_with_a_job_that_does_what_it_should() {
    assert_eq!(scene().says(), "");
    assert_eq!(scene().runs("db", [good(NOW - DAY), run(NOW - MIN, Outcome::Warning)]).says(), "");
}

#[test]
fn a_failure_is_told_of_and_three_in_a_row_are_critical() {
    let once = scene().runs("db", [good(NOW - DAY), bad(NOW - MIN)]);
    assert_eq!(once.says(), "failed db warning: job `db` failed");
    assert_eq!(once.alerts()[0].detail, "disk full\nexit code 1");
    assert_eq!(once.alerts()[0].labels["tier"], "t");
    let stopped = scene().runs("db", [bad(NOW - 3 * MIN), run(NOW - MIN, Outcome::Interrupted)]);
    assert_eq!(stopped.says(), "failed db warning: job `db` failed", "that the service was stopped says nothing new");
    let thrice = scene().runs("db", [bad(1), bad(2), run(NOW, Outcome::Timeout)]);
    assert_eq!(thrice.says(), "failed db critical: job `db` took too long and was stopped, 3 times in a row");
    assert_eq!(scene().runs("db", [bad(1), good(2)]).says(), "");
}

#[test]
fn a_job_that_is_switched_off_is_not_told_of() {
    let off = scene().tier(|tier| tier.rpo = Some(Duration::from_secs(60))).runs("db", [bad(1), bad(2), bad(3)]);
    assert_ne!(off.says(), "");
    assert_eq!(off.change(|scene| scene.plan.jobs.get_mut("db").unwrap().enabled = false).says(), "");
}

#[test]
fn what_is_safe_may_not_be_older_than_the_rpo() {
    let rpo = || scene().tier(|tier| tier.rpo = Some(Duration::from_secs(600)));
    assert_eq!(rpo().runs("db", [good(NOW - 10 * MIN)]).says(), "");
    let late = rpo().runs("db", [good(NOW - 11 * MIN)]).says();
    assert_eq!(late, "overdue db critical: what job `db` saves is safe only as of 11 min ago; 10 min are allowed");
    assert_eq!(rpo().says(), "overdue db critical: job `db` never succeeded, for 24 h; 10 min are allowed");
}

#[test]
fn what_is_watched_and_has_not_changed_is_not_overdue() {
    let watched = |due: Option<i64>| {
        scene().tier(|tier| tier.rpo = Some(Duration::from_secs(600))).runs("db", [good(NOW - DAY)]).change(|scene| {
            let (include, exclude, paths) = (Vec::new(), Vec::new(), Vec::new());
            let watch = Watch { paths, include, exclude, debounce: Duration::ZERO, delay_max: Duration::ZERO };
            scene.plan.jobs.get_mut("db").unwrap().when.watch = Some(watch);
            scene.due = due;
        })
    };
    assert_eq!(watched(None).says(), "");
    assert_eq!(watched(Some(NOW - 10 * MIN)).says(), "");
    let late = "overdue db critical: what job `db` saves is safe only as of 11 min ago; 10 min are allowed";
    assert_eq!(watched(Some(NOW - 11 * MIN)).says(), late);
    let lost = watched(None).change(|scene| scene.watch_lost = Some("queue overflow".to_owned()));
    assert!(lost.says().contains("safe only as of 24 h ago"), "a lost watch sees no change: {}", lost.says());
    let failed = watched(None).runs("db", [bad(NOW - MIN)]).says();
    assert!(failed.contains("overdue db critical"), "what failed may have been for a change: {failed}");
}

#[test]
fn without_an_rpo_a_missed_schedule_is_overdue() {
    let due = |at: i64| scene().change(|scene| scene.due = Some(at));
    assert_eq!(due(NOW - 60 * MIN).says(), "");
    assert_eq!(due(NOW - 121 * MIN).says(), "overdue db warning: job `db` should have run 2 h 1 min ago and has not");
    let running =
        due(NOW - 121 * MIN).change(|scene| scene.histories.get_mut("db").unwrap().running_since_ms = Some(1));
    assert_eq!(running.says(), "");
}

#[test]
fn a_size_that_changes_by_half_is_an_anomaly() {
    let sizes = |old: (f64, f64), new: (f64, f64)| {
        let between = good(NOW - 2 * MIN); // made no snapshot
        scene().runs("db", [snapshot(1, old.0, old.1), between, snapshot(NOW - MIN, new.0, new.1)]).says()
    };
    assert_eq!(sizes((100.0, 10.0), (150.0, 10.0)), "");
    assert_eq!(sizes((100.0, 10.0), (50.0, 5.0)), "");
    assert_eq!(sizes((0.0, 0.0), (50.0, 5.0)), "", "there is nothing to compare with");
    let grew = "size-anomaly db warning: job `db`: size changed by +51 %, from 100 B to 151 B";
    assert_eq!(sizes((100.0, 10.0), (151.0, 100.0)), grew);
    let fell = "size-anomaly db warning: job `db`: number of files fell by 60 %, from 10 to 4";
    assert_eq!(sizes((100.0, 10.0), (100.0, 4.0)), fell);
}

#[test]
fn too_few_successes_are_told_of_once_there_are_enough_runs() {
    let of = |good_runs: i64, bad_runs: i64| {
        let bads = (0..bad_runs).map(|n| bad(NOW - DAY + n));
        scene().runs("db", bads.chain((0..good_runs).map(|n| good(NOW - MIN + n)))).says()
    };
    assert_eq!(of(2, 1), "");
    assert_eq!(of(20, 1), "", "one failure was told of when it happened");
    assert_eq!(of(198, 2), "");
    let few = "success-rate db warning: job `db`: 4 of 6 runs succeeded in the last 7 d, 66.7 %; 99 % should";
    assert_eq!(of(4, 2), few);
    let long_ago = (0..5).map(|n| bad(NOW - 8 * DAY + n)).chain((0..9).map(|n| good(NOW - MIN + n)));
    assert_eq!(scene().runs("db", long_ago).says(), "");
    let stops = (0..9).map(|n| run(NOW - DAY + n, Outcome::Interrupted)).chain([good(NOW)]);
    assert_eq!(scene().runs("db", stops).says(), "");
}

#[test]
fn a_quota_warns_before_it_is_reached() {
    let holds = |packs: u64| {
        let stored_bytes = [("packs".to_owned(), packs), ("index".to_owned(), 50)].into();
        scene().sees("usb", Seen { stored_bytes, ..Seen::default() }).says()
    };
    assert_eq!(holds(799), "");
    assert_eq!(holds(800), "quota usb warning: repository `usb` holds 85 % of its quota, 850 B of 1000 B");
    assert_eq!(holds(950), "quota usb critical: repository `usb` holds 100 % of its quota, 1000 B of 1000 B");
    assert!(holds(u64::MAX).contains("critical"));
}

/// What is safe is as of the try that saved it, not of those before that failed.
#[test]
fn a_backup_that_succeeded_at_a_later_try_is_as_young_as_that_try() {
    let late = |tried_ms: i64| {
        let run = Run { tried_ms, ended_ms: NOW - 1, tries: 3, ..good(NOW - 10 * MIN) };
        scene().tier(|tier| tier.rpo = Some(Duration::from_secs(300))).runs("db", [run]).says()
    };
    assert_eq!(late(NOW - 2 * MIN), "");
    assert!(late(NOW - 6 * MIN).starts_with("overdue db critical"));
}

#[test]
fn damage_is_one_alert_of_the_repository_whoever_found_it() {
    let found = run(NOW - MIN, Outcome::Damage);
    let seen = Seen { damaged_chunks: 3, ..Seen::default() };
    let scene = scene().job("db:scrub", Kind::Scrub).runs("db:scrub", [found.clone()]).sees("usb", seen);
    assert_eq!(scene.says(), "damage usb critical: repository `usb` is damaged");
    assert_eq!(scene.alerts()[0].detail, "3 chunks are damaged\njob `db:scrub` found damage: disk full");
    let of_backup = self::scene().runs("db", [found]).says();
    assert_eq!(
        of_backup,
        "failed db warning: job `db` failed: damage was found\ndamage usb critical: repository `usb` is damaged"
    );
}

#[test]
fn a_drill_must_succeed_in_time_and_often_enough() {
    let drilled = |runs: Vec<Run>| scene().job("db:drill", Kind::Drill).runs("db:drill", runs);
    let promised = |scene: Scene| {
        scene.tier(|tier| {
            (tier.rto, tier.drilled_within) = (Some(Duration::from_secs(59)), Some(Duration::from_secs(3600)))
        })
    };
    assert_eq!(drilled(vec![bad(NOW - MIN)]).says(), "drill db:drill critical: restore drill `db:drill` failed");
    assert_eq!(drilled(vec![good(NOW - MIN)]).says(), "");
    let late = Run { result: Some("too_slow".to_owned()), ..bad(NOW - MIN) };
    assert_eq!(
        drilled(vec![late]).says(),
        "drill db:drill warning: restore drill `db:drill` took longer than the RTO allows"
    );
    let slow = "drill db:drill warning: restore drill `db:drill` took 60 s; 59 s are allowed";
    assert_eq!(promised(drilled(vec![good(NOW - MIN)])).says(), slow);
    let rare = promised(drilled(vec![good(NOW - 62 * MIN)])).says();
    assert_eq!(
        rare,
        format!("drill db warning: no restore of job `db` was tried for 61 min; 60 min are allowed\n{slow}")
    );
    assert_eq!(promised(scene()).says(), "drill db warning: no restore of job `db` was ever tried; 60 min are allowed");
}

#[test]
fn what_is_not_verified_for_longer_than_the_tier_says_is_told_of() {
    let promised = || scene().tier(|tier| tier.verified_within = Some(Duration::from_secs(3600)));
    let told = "unverified usb warning: repository `usb` has data not verified for 24 h; 60 min are allowed";
    assert_eq!(promised().says(), told);
    assert_eq!(promised().job("usb", Kind::Check).runs("usb", [good(NOW - MIN)]).says(), "");
    let seen = Seen { oldest_unverified_ms: Some(NOW - DAY), ..Seen::default() };
    let scrubbed = promised().job("usb", Kind::Scrub).runs("usb", [good(NOW - MIN)]).sees("usb", seen);
    assert_eq!(scrubbed.says(), told, "a scrub that did a part has not done all");
}

#[test]
fn a_replica_that_lacks_a_snapshot_for_too_long_is_behind() {
    let newest =
        |at_ms: i64, newest: i64| Seen { at_ms, newest_ms: [("db".to_owned(), newest)].into(), ..Seen::default() };
    let scene = |held: Seen, copies: Vec<Run>| {
        let scene = scene().tier(|tier| tier.rpo = Some(Duration::from_secs(3600))).job("db:copy", Kind::Copy);
        let backups = [snapshot(NOW - 90 * MIN, 1.0, 1.0), snapshot(NOW - 10 * MIN, 1.0, 1.0)];
        scene.runs("db", backups).runs("db:copy", copies).sees("far", held)
    };
    let (first, second) = (NOW - 90 * MIN + 5, NOW - 10 * MIN + 5);
    assert_eq!(scene(newest(NOW, second), vec![]).says(), "");
    assert_eq!(scene(newest(NOW, first), vec![]).says(), "", "it lacks the second for nine minutes only");
    let behind = "replica-behind db:copy warning: replica `far` is behind: `db` by 89 min, 60 min are allowed";
    assert_eq!(scene(newest(NOW, NOW - DAY), vec![]).says(), behind);
    assert_eq!(scene(Seen { at_ms: NOW, ..Seen::default() }, vec![]).says(), behind, "it has none");
    assert_eq!(scene(newest(NOW - 2 * DAY, NOW - 3 * DAY), vec![]).says(), "", "nobody has looked since");
    assert_eq!(
        scene(newest(NOW - 5 * MIN, NOW - DAY), vec![good(NOW - 3 * MIN)]).says(),
        "",
        "copied since it was seen"
    );
    let fails = "replica-behind db:copy warning: job `db:copy` fails to bring snapshots to replica `far`";
    assert_eq!(scene(newest(NOW, second), vec![bad(NOW - MIN)]).says(), fails);
    let both = scene(newest(NOW, NOW - DAY), vec![bad(NOW - MIN)]).says();
    let worse = "replica-behind db:copy critical: replica `far` is behind, and job `db:copy` fails: ";
    assert!(both.starts_with(worse), "{both}");
}

#[test]
fn what_cannot_be_reached_and_who_does_not_deliver_is_told_of() {
    let unreachable = Seen { error: Some("connection refused".to_owned()), ..Seen::default() };
    let scene = scene().sees("far", unreachable).change(|scene| {
        let error = Some("it answered 500".to_owned());
        scene.notifiers = vec![NotifierFacts { name: "ops".to_owned(), given_up: 2, error, ..Default::default() }];
        scene.notifiers.push(NotifierFacts { name: "well".to_owned(), ..Default::default() });
        scene.reload_failed = Some("line 3".to_owned());
    });
    assert_eq!(
        scene.says(),
        "unreachable far warning: repository `far` at `s3://far` cannot be reached\n\
         notifier ops warning: notifier `ops` does not deliver; 2 given up so far\n\
         configuration configuration warning: the changed configuration was not understood; the one before goes on"
    );
    assert_eq!(scene.alerts()[0].detail, "connection refused");
}

#[test]
fn what_others_wrote_cannot_break_out_of_its_line_nor_fill_a_message() {
    let hostile = format!("a\r\nBcc: x@y\u{202e}\u{7}{}", "b".repeat(100_000));
    let alert = Alert::new(Rule::Failed, &hostile, Severity::Warning, &hostile, &hostile);
    assert!(alert.summary.starts_with("a  Bcc: x@y  bb"), "{}", alert.summary);
    assert_eq!(alert.summary.chars().count(), 401);
    assert!(alert.subject.chars().all(|c| !c.is_control()));
    assert_eq!(alert.detail.lines().count(), 2);
    assert!(Alert::new(Rule::Failed, "", Severity::Info, "", &"x\n".repeat(999)).detail.len() < 100);
}
