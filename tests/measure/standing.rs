use esker::service::history::{History, Outcome};
use esker::service::status::{exit_code, span, status_json, status_lines};

use super::scene::{DAY, HOUR, MINUTE, NOW, Scene, backup, run};

fn lines(scene: &Scene) -> String {
    status_lines(&scene.facts()).join("\n")
}

#[test]
fn a_table_says_who_is_safe() {
    let scene = Scene::new();
    assert_eq!(exit_code(&scene.facts()), 0);
    insta::assert_snapshot!(lines(&scene), @r"
    Job     Safe  Last success  RPO       RTO            Places           Verified  Drill   Next run
    infra   yes   29m 48s       2s of 1h  1m 30s of 10m  2 of 2, offsite  3d        4d 23h  running
    photos  yes   23h 59m       1d        -              1                3d        never   in 3h 5m

    all 2 jobs are safe
    ");
}

#[test]
fn each_broken_promise_is_a_sentence() {
    let mut scene = Scene::new();
    let infra = scene.history("infra");
    *infra = History { since_ms: NOW - 90 * DAY, ..History::default() };
    infra.add(backup(NOW - 26 * HOUR, Outcome::Success, 500.0));
    infra.add(backup(NOW - 2 * HOUR, Outcome::Failure, 0.0));
    let drill = scene.history("infra:drill");
    *drill = History { since_ms: NOW - 90 * DAY, ..History::default() };
    drill.add(run(NOW - 40 * DAY, 1200.0, Outcome::Success));
    drill.add(run(NOW - DAY, 1.0, Outcome::Failure));
    *scene.history("infra:copy") = History::default();
    scene.seen.remove("far");
    let main = scene.seen.get_mut("main").unwrap();
    main.oldest_unverified_ms = Some(NOW - 60 * DAY);
    main.damaged_chunks = 2;
    main.error = Some("it does not answer".into());
    scene.watch_lost = Some("too many directories".into());
    scene.reload_failed = Some("line 3: no such key".into());
    *scene.history("photos") = History { since_ms: NOW - MINUTE, ..History::default() };
    assert_eq!(exit_code(&scene.facts()), 4);
    insta::assert_snapshot!(lines(&scene), @r"
    Job     Safe  Last success  RPO          RTO         Places  Verified  Drill    Next run
    infra   NO    1d 1h         1d 2h of 1h  20m of 10m  1 of 2  60d       39d 23h  in 3h 5m
    photos  NO    never         -            -           0       60d       never    in 3h 5m

    infra: what is safe is as of 1d 2h ago, and may be 1h (RPO)
    infra: it failed once since it last succeeded: the storage is full
    infra: the last restore took 20m, and may take 10m (RTO)
    infra: 1 of the 2 places promised have it
    infra: its data was not all verified in 7d
    infra: no drill succeeded in 30d
    infra: the last drill failed (failure): the storage is full
    infra: 2 objects of its repository are known to be damaged
    photos: it has never succeeded
    photos: 2 objects of its repository are known to be damaged
    infra: changes are not seen at once: too many directories
    repository main: it does not answer
    the changed configuration is not in use: line 3: no such key

    2 of 2 jobs are not safe
    ");
    let value = status_json(&scene.facts());
    let infra = &value["jobs"][0]["protection"];
    for met in ["safe", "rpo_met", "rto_met", "places_met", "verified_met", "drilled_met"] {
        assert_eq!(infra[met], false, "{met}");
    }
    assert_eq!((&value["safe"], &value["code"]), (&false.into(), &4.into()));
}

#[test]
fn a_promise_made_lately_is_not_broken_yet() {
    let mut scene = Scene::new();
    for job in ["infra:drill", "infra:scrub"] {
        *scene.history(job) = History::default();
    }
    scene.seen.get_mut("main").unwrap().oldest_unverified_ms = None;
    scene.history("infra").since_ms = NOW - DAY;
    assert_eq!(exit_code(&scene.facts()), 0, "{}", lines(&scene));
    scene.history("infra").since_ms = NOW - 8 * DAY;
    assert!(lines(&scene).contains("infra: its data was not all verified in 7d"), "{}", lines(&scene));
    scene.history("infra").since_ms = NOW - 31 * DAY;
    assert!(lines(&scene).contains("infra: no drill succeeded in 30d"), "{}", lines(&scene));
    assert_eq!(exit_code(&scene.facts()), 1);
}

#[test]
fn a_scrub_that_found_damage_makes_its_repository_unsafe_until_one_finds_none() {
    let mut scene = Scene::new();
    scene.history("infra:scrub").add(run(NOW - HOUR, 5.0, Outcome::Damage));
    scene.history("infra:scrub").add(run(NOW - MINUTE, 5.0, Outcome::Interrupted));
    assert_eq!(exit_code(&scene.facts()), 4);
    assert!(lines(&scene).contains("photos: infra:scrub found damage in its repository"), "{}", lines(&scene));
    scene.history("infra:scrub").add(run(NOW - 1000, 0.5, Outcome::Success));
    assert_eq!(exit_code(&scene.facts()), 0);
}

#[test]
fn a_drill_that_was_too_slow_says_how_slow() {
    let mut scene = Scene::new();
    let mut slow = run(NOW - HOUR, 700.0, Outcome::Failure);
    slow.numbers.insert("seconds_total".into(), 660.0);
    scene.history("infra:drill").add(slow);
    assert!(lines(&scene).contains("infra: the last restore took 11m, and may take 10m (RTO)"), "{}", lines(&scene));
    // One that restored nothing says nothing of how long a restore takes.
    scene.history("infra:drill").add(run(NOW - MINUTE, 1.0, Outcome::Failure));
    assert!(lines(&scene).contains("11m of 10m"), "{}", lines(&scene));
}

#[test]
fn a_job_that_is_switched_off_is_not_asked() {
    let mut scene = Scene::new();
    *scene.history("photos") = History::default();
    assert_eq!(exit_code(&scene.facts()), 1);
    scene.plan.jobs.get_mut("photos").unwrap().enabled = false;
    assert_eq!(exit_code(&scene.facts()), 0);
    assert!(lines(&scene).ends_with("the job is safe"), "{}", lines(&scene));
}

#[test]
fn programs_get_all_of_it() {
    let scene = Scene::new();
    let value = serde_json::to_string_pretty(&status_json(&scene.facts())["jobs"][0]).unwrap();
    insta::assert_snapshot!(value, @r#"
    {
      "job": "infra",
      "kind": "backup",
      "of": null,
      "repository": "main",
      "target": null,
      "tier": "critical",
      "enabled": true,
      "running_since": "2027-01-15T07:59:59Z",
      "last_run": {
        "began": "2027-01-15T07:30:00Z",
        "ended": "2027-01-15T07:30:12Z",
        "seconds": 12.0,
        "outcome": "success",
        "code": 0,
        "trigger": "schedule",
        "tries": 1,
        "message": null,
        "snapshot": null,
        "numbers": {
          "data_added": 60.0,
          "data_added_packed": 40.0,
          "files_changed": 2.0,
          "files_new": 1.0,
          "files_unmodified": 3.0,
          "files_unreadable": 0.0,
          "total_bytes_processed": 500.0
        }
      },
      "last_success": {
        "began": "2027-01-15T07:30:00Z",
        "ended": "2027-01-15T07:30:12Z",
        "seconds": 12.0,
        "outcome": "success",
        "code": 0,
        "trigger": "schedule",
        "tries": 1,
        "message": null,
        "snapshot": null,
        "numbers": {
          "data_added": 60.0,
          "data_added_packed": 40.0,
          "files_changed": 2.0,
          "files_new": 1.0,
          "files_unmodified": 3.0,
          "files_unreadable": 0.0,
          "total_bytes_processed": 500.0
        }
      },
      "failures": 0,
      "runs": {
        "success": 2,
        "failure": 1
      },
      "next_run": "2027-01-15T11:05:00Z",
      "due_since": "2027-01-15T07:59:58Z",
      "watch_lost": null,
      "protection": {
        "safe": true,
        "problems": [],
        "age_seconds": 1800.0,
        "at_risk_seconds": 2.0,
        "rpo_seconds": 3600.0,
        "rpo_met": true,
        "restore_seconds": 90.0,
        "rto_seconds": 600.0,
        "rto_met": true,
        "places": [
          {
            "repository": "main",
            "replica": false,
            "offsite": false,
            "newest": "2027-01-15T07:30:00Z",
            "lag_seconds": 0.0
          },
          {
            "repository": "far",
            "replica": true,
            "offsite": true,
            "newest": "2027-01-15T07:30:00Z",
            "lag_seconds": 0.0
          }
        ],
        "places_held": 2,
        "places_target": 2,
        "places_met": true,
        "offsite": true,
        "last_verified": "2027-01-12T08:00:00Z",
        "verified_within_seconds": 604800.0,
        "verified_met": true,
        "last_drill": "2027-01-10T08:01:30Z",
        "drilled_within_seconds": 2592000.0,
        "drilled_met": true,
        "damaged": 0
      }
    }
    "#);
}

#[test]
fn lengths_of_time_have_two_units() {
    let shown = [0.0, 0.25, 59.6, 61.0, 3600.0, 90_061.0, 86_400.0].map(span);
    assert_eq!(shown, ["0s", "0.2s", "1m", "1m 1s", "1h", "1d 1h", "1d"]);
}
