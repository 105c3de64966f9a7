use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use esker::service::metrics::{METRICS, Shape};

const RULES: &str = "deploy/prometheus/esker.rules.yml";

/// A program of Prometheus'. Without it the test is skipped aloud, and fails where `ESKER_REQUIRE` names `prometheus`.
#[allow(clippy::print_stderr)] // a skipped test says so
pub(crate) fn tool(name: &str) -> Option<Command> {
    if Command::new(name).arg("--version").output().is_ok() {
        return Some(Command::new(name));
    }
    let required = std::env::var("ESKER_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == "prometheus"));
    assert!(!required, "ESKER_REQUIRE names prometheus, and there is no `{name}`");
    eprintln!("skipped: needs `{name}` (deploy/check installs it)");
    None
}

/// The names of series that Prometheus makes of the metrics.
fn series() -> BTreeSet<String> {
    let suffixes = |shape| match shape {
        Shape::Histogram => &["_bucket", "_sum", "_count"][..],
        Shape::Counter | Shape::Gauge => &[""],
    };
    METRICS
        .iter()
        .flat_map(|metric| suffixes(metric.shape).iter().map(|suffix| format!("{}{suffix}", metric.name)))
        .collect()
}

/// Words of an expression that look like metrics of ours.
fn named(expression: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    expression
        .split(|c| !is_word(c))
        .filter(|word| ["esker_", "backup_", "restore_", "seconds_since"].iter().any(|start| word.starts_with(start)))
        .map(str::to_owned)
        .collect()
}

fn assert_all_are_ours(what: &str, names: &BTreeSet<String>) {
    let ours = series();
    let unknown: Vec<_> = names.iter().filter(|name| !ours.contains(*name)).collect();
    assert!(unknown.is_empty(), "{what} names metrics that there are not: {unknown:?}");
}

#[test]
fn rules_name_only_metrics_that_there_are() {
    let rules = fs::read_to_string(RULES).unwrap();
    // An expression is what is further in than `expr: |`, up to the next key.
    let expressions: String = rules
        .lines()
        .filter(|line| line.starts_with("          ") && !line.contains("summary:") && !line.contains("description:"))
        .collect::<Vec<_>>()
        .join("\n");
    let names = named(&expressions);
    assert!(names.len() > 30, "{names:?}");
    assert_all_are_ours(RULES, &names);
}

#[test]
fn the_tests_of_the_rules_give_them_only_metrics_that_there_are() {
    let tests = fs::read_to_string("deploy/prometheus/esker.rules.test.yml").unwrap();
    let given: BTreeSet<String> = tests
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- series: '")?.split_once('{'))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name != "up")
        .collect();
    assert!(given.len() > 30, "{given:?}");
    assert_all_are_ours("esker.rules.test.yml", &given);
}

#[test]
fn each_alert_is_expected_by_a_test() {
    let rules = fs::read_to_string(RULES).unwrap();
    let tests = fs::read_to_string("deploy/prometheus/esker.rules.test.yml").unwrap();
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 20, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("- labels: '{{alertname=\"{alert}\"}}'")), "{alert} has no test");
    }
}

#[test]
fn the_dashboard_names_only_metrics_that_there_are_and_hides_nothing_the_plans_ask_for() {
    let text = fs::read_to_string("deploy/grafana/esker.json").unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut names = BTreeSet::new();
    for expression in panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten()) {
        names.extend(named(expression["expr"].as_str().unwrap()));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        names.extend(variable["definition"].as_str().map(named).unwrap_or_default());
    }
    assert_all_are_ours("the dashboard", &names);
    for metric in METRICS.iter().filter(|metric| !metric.name.starts_with("esker_")) {
        // Its age is worked out from the time of success, so that it grows when nothing is told any more.
        let shown =
            names.iter().any(|name| name.starts_with(metric.name)) || metric.name == "seconds_since_last_backup";
        assert!(shown, "{} is on no panel", metric.name);
    }
}

#[test]
fn panels_of_the_dashboard_have_numbers_of_their_own_and_do_not_overlap() {
    let text = fs::read_to_string("deploy/grafana/esker.json").unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            assert!(x < 24, "{}", panel["title"]);
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} lies on another", panel["title"]);
            }
        }
    }
}

#[test]
fn the_page_about_metrics_says_what_the_table_says() {
    let page = fs::read_to_string("docs/metrics.md").unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
    let table: Vec<_> = METRICS
        .iter()
        .map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
            format!("| `{}` | {} | {labels} | {} |", metric.name, metric.shape.name(), metric.help)
        })
        .collect();
    if std::env::var_os("ESKER_WRITE_METRICS").is_some() {
        fs::write("/tmp/metrics-table.md", table.join("\n")).unwrap();
    }
    assert_eq!(rows, table);
}
