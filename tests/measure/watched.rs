use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use esker::service::history::{History, Outcome};
use esker::service::http::{Limits, Source, start};
use esker::service::metrics::render;
use esker::service::status::status_json;

use super::scene::{DAY, HOUR, Scene, backup};
use super::watchers::Watchers;

const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "a real Prometheus goes by the real clock")]
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The scene by the real clock: one job, the last backup so old.
struct Told(Mutex<Scene>);

impl Told {
    fn set(&self, age_ms: i64) {
        let mut scene = self.0.lock().unwrap();
        let history = scene.history("infra");
        *history = History { since_ms: now() - 90 * DAY, ..History::default() };
        history.add(backup(now() - age_ms, Outcome::Success, 500.0));
    }
}

impl Source for Told {
    fn metrics(&self) -> String {
        let scene = self.0.lock().unwrap();
        let mut facts = scene.facts();
        facts.now_ms = now();
        render(&facts, &[], &scene.process)
    }

    fn status(&self) -> serde_json::Value {
        status_json(&self.0.lock().unwrap().facts())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn a_real_prometheus_fires_the_overdue_alert_a_real_alertmanager_tells_and_it_ends_with_a_backup() {
    let mut scene = Scene::new();
    scene.plan.jobs.retain(|name, _| name == "infra");
    scene.plan.tiers.get_mut("critical").unwrap().places = None;
    scene.plan.tiers.get_mut("critical").unwrap().drilled_within = None;
    scene.plan.tiers.get_mut("critical").unwrap().verified_within = None;
    scene.plan.repositories.values_mut().for_each(|store| store.quota = None);
    scene.plan.jobs.get_mut("infra").unwrap().when.watch = None;
    scene.seen.clear();
    let told = Arc::new(Told(Mutex::new(scene)));
    told.set(0);
    let server =
        start("127.0.0.1:0".parse().unwrap(), Arc::clone(&told) as Arc<dyn Source>, Limits::default()).unwrap();
    let Some(mut watchers) = Watchers::start(server.address()) else { return };

    // A backup older than the RPO of an hour.
    told.set(2 * HOUR);
    let alert = watchers.wait_for("firing", "EskerBackupOverdue", "infra", PATIENCE);
    assert_eq!(alert.labels["severity"], "critical");
    assert_eq!(alert.annotations["summary"], "Backup infra is overdue");
    assert_eq!(watchers.scrape_error(), None);
    watchers.wait_until_firing(&[("EskerBackupOverdue", "infra")], PATIENCE);
    assert!(watchers.held().contains(&"EskerBackupOverdue".to_owned()));
    assert_eq!(watchers.value(r#"esker_rpo_target_seconds{job="infra"}"#), Some(3600.0));

    told.set(0);
    watchers.wait_for("resolved", "EskerBackupOverdue", "infra", PATIENCE);
    watchers.wait_until_firing(&[], PATIENCE);

    // And when nobody answers any more.
    server.stop();
    watchers.wait_for("firing", "EskerDown", "esker", PATIENCE);
    let others: Vec<_> = watchers
        .heard()
        .iter()
        .map(|told| told.labels["alertname"].clone())
        .filter(|alert| !["EskerBackupOverdue", "EskerDown", "EskerAbsent"].contains(&&**alert))
        .collect();
    assert_eq!(others, Vec::<String>::new());
}
