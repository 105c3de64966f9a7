use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;

use esker::service::history::{History, Outcome};
use esker::service::metrics::{METRICS, intervals};

use super::scene::{DAY, HOUR, MINUTE, NOW, Scene, backup, run};

const INFRA: &str = r#"{job="infra",tier="critical",repository="main"}"#;

#[test]
fn every_metric_of_the_table_has_a_value_in_the_full_scene() {
    let mut scene = Scene::new();
    scene.reload_failed = Some("line 3".into());
    let text = scene.metrics();
    let typed: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let table: Vec<_> = METRICS.iter().map(|metric| format!("{} {}", metric.name, metric.shape.name())).collect();
    assert_eq!(typed, table);
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len(), "each is there once");
}

#[test]
fn what_the_plans_ask_for_is_what_happened() {
    let scene = Scene::new();
    let of_infra = |name: &str| scene.value(&format!("{name}{INFRA}"));
    assert_eq!(of_infra("backup_operations_total"), Some(3.0));
    assert_eq!(of_infra("backup_operations_successful_total"), Some(2.0));
    assert_eq!(of_infra("backup_size_bytes"), Some(500.0));
    assert_eq!(of_infra("backup_last_success_timestamp"), Some(((NOW - 30 * MINUTE) / 1000) as f64));
    assert_eq!(of_infra("seconds_since_last_backup"), Some(1800.0));
    assert_eq!(of_infra("backup_duration_seconds_count"), Some(3.0));
    assert_eq!(of_infra("backup_duration_seconds_sum"), Some(36.0));
    assert_eq!(of_infra("esker_backup_previous_size_bytes"), Some(400.0));
    let result = r#"restore_test_results_total{job="infra:drill",tier="critical",repository="main",result="success"}"#;
    assert_eq!(scene.value(result), Some(1.0));
    assert_eq!(of_infra("esker_rto_actual_seconds"), Some(90.0));
}

#[test]
fn buckets_count_all_that_is_not_longer() {
    let mut scene = Scene::new();
    let mut history = History::default();
    for seconds in [0.05, 0.5, 0.6, 100_000.0] {
        history.add(run(NOW - DAY, seconds, Outcome::Success));
    }
    *scene.history("infra") = history;
    let bucket = |le: &str| {
        let series =
            format!(r#"backup_duration_seconds_bucket{{job="infra",tier="critical",repository="main",le="{le}"}}"#);
        scene.value(&series)
    };
    let counts: Vec<_> = ["0.1", "0.5", "1", "86400", "+Inf"].into_iter().map(|le| bucket(le).unwrap()).collect();
    assert_eq!(counts, [1.0, 2.0, 3.0, 3.0, 4.0]);
}

#[test]
fn a_job_that_never_succeeded_has_no_time_of_success_and_is_known_since() {
    let mut scene = Scene::new();
    let mut history = History { since_ms: NOW - 2 * HOUR, ..History::default() };
    history.add(backup(NOW - HOUR, Outcome::Failure, 0.0));
    *scene.history("infra") = history;
    let of_infra = |name: &str| scene.value(&format!("{name}{INFRA}"));
    for absent in ["backup_last_success_timestamp", "seconds_since_last_backup", "backup_size_bytes"] {
        assert_eq!(of_infra(absent), None, "{absent}");
    }
    assert_eq!(of_infra("esker_backup_known_since_timestamp_seconds"), Some(((NOW - 2 * HOUR) / 1000) as f64));
    assert_eq!(of_infra("backup_operations_total"), Some(1.0));
    assert_eq!(of_infra("backup_operations_successful_total"), Some(0.0));
}

#[test]
fn nothing_is_promised_of_a_job_that_is_switched_off() {
    let mut scene = Scene::new();
    scene.plan.jobs.get_mut("infra").unwrap().enabled = false;
    let text = scene.metrics();
    let promised: Vec<_> =
        text.lines().filter(|line| line.contains("job=\"infra\"") && line.contains("_target_seconds")).collect();
    assert_eq!(promised, Vec::<&str>::new());
    assert_eq!(scene.value(&format!("esker_backup_safe{INFRA}")), None);
}

#[test]
fn a_run_stopped_with_the_service_is_no_failed_backup() {
    let mut scene = Scene::new();
    scene.history("infra").add(backup(NOW - MINUTE, Outcome::Interrupted, 0.0));
    let of_infra = |name: &str| scene.value(&format!("{name}{INFRA}"));
    assert_eq!(of_infra("backup_operations_total"), Some(3.0));
    let job = r#"{job="infra",kind="backup",tier="critical",repository="main"}"#;
    assert_eq!(scene.value(&format!("esker_job_last_status{job}")), Some(3.0));
    let ratio = scene.value(&format!("esker_job_success_ratio{job}")).unwrap();
    assert!((ratio - 2.0 / 3.0).abs() < 1e-9, "{ratio}");
}

#[test]
fn the_share_of_success_is_of_the_time_set_for_it() {
    let mut scene = Scene::new();
    let history = scene.history("photos");
    history.runs.insert(0, backup(NOW - 8 * DAY, Outcome::Failure, 0.0));
    let series = r#"esker_job_success_ratio{job="photos",kind="backup",tier="",repository="main"}"#;
    assert_eq!(scene.value(series), Some(1.0));
    scene.plan.settings.success_over *= 2;
    assert_eq!(scene.value(series), Some(0.5));
}

#[test]
fn names_with_quotes_backslashes_and_newlines_are_read_back() {
    let mut scene = Scene::new();
    let mut job = scene.plan.jobs["infra"].clone();
    job.name = "a\\b\"c\nd".into();
    scene.histories.insert(job.name.clone(), History::default());
    scene.plan.jobs.insert(job.name.clone(), job);
    let text = scene.metrics();
    assert!(text.contains(r#"esker_job_enabled{job="a\\b\"c\nd",kind="backup""#), "{text}");
    promtool_accepts(&text);
}

#[test]
fn a_replica_is_behind_since_the_first_snapshot_that_it_lacks() {
    let mut scene = Scene::new();
    let series = r#"esker_replica_lag_seconds{job="infra",tier="critical",repository="main",target="far"}"#;
    // The last look was before the last copy, and that was after the last backup.
    assert_eq!(scene.value(series), Some(0.0));
    // A snapshot's own time is a little after its run's.
    scene.seen.get_mut("main").unwrap().newest_ms.insert("infra".into(), NOW - 30 * MINUTE + 700);
    assert_eq!(scene.value(series), Some(0.0));
    scene.seen.get_mut("main").unwrap().newest_ms.insert("infra".into(), NOW - 30 * MINUTE);
    // The last copy was before the last backup, after the one at two hours.
    let mut history = History { since_ms: NOW - 90 * DAY, ..History::default() };
    history.add(run(NOW - HOUR, 5.0, Outcome::Success));
    *scene.history("infra:copy") = history;
    // What it lacks was there when the backup ended.
    assert_eq!(scene.value(series), Some(1788.0));
    // Of several that it lacks, the first counts.
    scene.history("infra").add(backup(NOW - MINUTE, Outcome::Success, 500.0));
    assert_eq!(scene.value(series), Some(1788.0));
    // Somebody else copied since: the look says so.
    scene.seen.get_mut("far").unwrap().newest_ms.insert("infra".into(), NOW - MINUTE);
    assert_eq!(scene.value(series), Some(0.0));
    // And somebody else backed up.
    scene.seen.get_mut("main").unwrap().newest_ms.insert("infra".into(), NOW - 5000);
    assert_eq!(scene.value(series), Some(5.0));
}

#[test]
fn what_is_watched_and_has_not_changed_is_at_no_risk() {
    let mut scene = Scene::new();
    let of_infra = |scene: &Scene, name: &str| scene.value(&format!("{name}{INFRA}"));
    // A change two seconds ago is not captured yet.
    assert_eq!(of_infra(&scene, "esker_rpo_actual_seconds"), Some(2.0));
    scene.watch_lost = Some("too many directories".into());
    assert_eq!(of_infra(&scene, "esker_rpo_actual_seconds"), Some(1800.0));
    scene.watch_lost = None;
    scene.due_since_ms = None;
    assert_eq!(of_infra(&scene, "esker_rpo_actual_seconds"), Some(0.0));
    assert_eq!(of_infra(&scene, "esker_rpo_at_risk_since_timestamp_seconds"), None);
    assert_eq!(of_infra(&scene, "seconds_since_last_backup"), Some(1800.0));
}

#[test]
fn intervals_are_the_longest_of_the_next_few() {
    let mut scene = Scene::new();
    for (job, schedules) in [
        ("infra", vec!["0 6 * * 1-5"]),
        ("infra:copy", vec!["every 10m"]),
        ("infra:drill", vec!["0 0 * * *", "0 6 * * *"]),
        ("photos", vec!["nonsense"]),
    ] {
        let when = &mut scene.plan.jobs.get_mut(job).unwrap().when;
        when.schedule = schedules.into_iter().map(str::to_owned).collect();
    }
    let intervals = intervals(&scene.plan, &jiff::tz::TimeZone::UTC, NOW);
    let hours: Vec<_> = intervals.iter().map(|(job, secs)| (job.as_str(), secs / 3600.0)).collect();
    assert_eq!(hours, [("infra", 72.0), ("infra:copy", 1.0 / 6.0), ("infra:drill", 18.0)]);
}

#[test]
fn a_run_that_made_no_snapshot_changes_neither_sizes_nor_what_a_replica_lacks() {
    let mut scene = Scene::new();
    let history = scene.history("infra");
    for (run, id) in history.runs.iter_mut().filter(|run| run.outcome.is_success()).zip(["one", "two"]) {
        run.snapshot = Some(id.into());
    }
    history.add(backup(NOW - MINUTE, Outcome::Success, 500.0));
    let of_infra = |name: &str| scene.value(&format!("{name}{INFRA}"));
    assert_eq!(of_infra("seconds_since_last_backup"), Some(60.0));
    assert_eq!(of_infra("esker_backup_previous_size_bytes"), Some(400.0));
    assert_eq!(of_infra("backup_size_bytes"), Some(500.0));
    let series = r#"esker_replica_lag_seconds{job="infra",tier="critical",repository="main",target="far"}"#;
    assert_eq!(scene.value(series), Some(0.0));
}

#[test]
fn promtool_finds_nothing_wrong() {
    promtool_accepts(&Scene::new().metrics());
}

/// Prometheus' own reader and its advice on names, besides the names that the plans have.
fn promtool_accepts(text: &str) {
    let Some(mut promtool) = super::deploy::tool("promtool") else { return };
    let mut child = promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert_eq!((output.status.code(), &*said), (Some(0), ""));
}
