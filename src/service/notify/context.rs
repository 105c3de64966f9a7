//! What is known of a message, by name: the body of webhooks, the stdin of commands and what templates see are
//! this one object (`docs/notify.md`).

use serde_json::{Value, json};

use crate::service::alerts::{Message, State, span};

/// The object of `message`, told by `host`.
pub fn of(message: &Message, host: &str) -> Value {
    let alert = &message.alert;
    let label = |name: &str| alert.labels.get(name).map(String::as_str).unwrap_or_default();
    let lasted_ms = (message.until_ms - message.since_ms).max(0);
    let (severity, lasted) = (alert.severity.name(), span(lasted_ms));
    let head = match message.state {
        State::Fired => severity.to_owned(),
        State::Worse => format!("now {severity}"),
        State::Repeated => format!("still {severity} after {lasted}"),
        State::Resolved => format!("resolved after {lasted}"),
        State::Test => "test".to_owned(),
    };
    json!({
        "title": format!("{head}: {}", alert.summary),
        "state": message.state.name(),
        "rule": alert.rule.name(),
        "subject": alert.subject,
        "severity": severity,
        "summary": alert.summary,
        "detail": alert.detail,
        "job": label("job"),
        "tier": label("tier"),
        "repository": label("repository"),
        "labels": alert.labels,
        "host": host,
        "since": stamp(message.since_ms),
        "time": stamp(message.at_ms),
        "lasted": lasted,
        "lasted_seconds": lasted_ms / 1000,
    })
}

fn stamp(ms: i64) -> String {
    let time = jiff::Timestamp::from_second(ms.div_euclid(1000)).unwrap_or_default();
    time.to_string()
}
