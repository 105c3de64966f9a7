//! What was told of which alert, and when: of each evaluation, what is news.
//!
//! An alert is told when it is first there, again when it got worse, again each `repeat` while it lasts, and
//! once when it is over. It is over when it was away for [`super::super::plan::Settings::settle`]: one that comes
//! and goes within that time is one alert that goes on, told once. How long it lasted is counted
//! to the moment it was first away.
//!
//! The book is a value. Its owner writes it down after each evaluation, so that a process that was started again tells nothing
//! twice; what was told and did not arrive is told again after `repeat`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Alert, Rule, Severity};

/// Why something is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It began.
    Fired,
    /// It got worse.
    Worse,
    /// It goes on.
    Repeated,
    /// It is over.
    Resolved,
    /// It is a test.
    Test,
}

impl State {
    /// Its name in messages and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Worse => "worse",
            Self::Repeated => "repeated",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }
}

/// Something to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Why.
    pub state: State,
    /// Of what. A resolved one is as bad as it was told to be.
    pub alert: Alert,
    /// Since when it is there, milliseconds since 1970.
    pub since_ms: i64,
    /// Until when: now, or when it was first away.
    pub until_ms: i64,
    /// Now.
    pub at_ms: i64,
}

impl Message {
    /// As it stands in a log: `alert fired, critical: …`.
    pub fn log_line(&self) -> String {
        let Self { state, alert, .. } = self;
        match state {
            State::Resolved => format!("alert {}: {}", state.name(), alert.summary),
            _ => format!("alert {}, {}: {}", state.name(), alert.severity.name(), alert.summary),
        }
    }
}

/// What is open, and what was told of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Book {
    open: BTreeMap<(Rule, String), Entry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    alert: Alert,
    since_ms: i64,
    told_ms: i64,
    /// As how bad.
    told: Severity,
    /// Since when it is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    away_ms: Option<i64>,
}

impl Book {
    /// Takes in what is wrong now and returns what is news, the worst first.
    /// `repeat` of zero never repeats; what is worth knowing only is not repeated either.
    pub fn update(&mut self, alerts: Vec<Alert>, now_ms: i64, repeat: Duration, settle: Duration) -> Vec<Message> {
        let repeat_ms = i64::try_from(repeat.as_millis()).unwrap_or(i64::MAX);
        let settle_ms = i64::try_from(settle.as_millis()).unwrap_or(i64::MAX);
        let mut messages = Vec::new();
        let mut now: BTreeMap<(Rule, String), Alert> = BTreeMap::new();
        for alert in alerts {
            now.insert((alert.rule, alert.subject.clone()), alert);
        }

        self.open.retain(|key, entry| {
            entry.not_after(now_ms);
            if let Some(alert) = now.remove(key) {
                entry.away_ms = None;
                entry.alert = alert;
                let due =
                    repeat_ms > 0 && entry.told > Severity::Info && now_ms.saturating_sub(entry.told_ms) >= repeat_ms;
                let state = match () {
                    () if entry.alert.severity > entry.told => State::Worse,
                    () if due => State::Repeated,
                    () => return true,
                };
                entry.told_ms = now_ms;
                entry.told = entry.alert.severity;
                messages.push(entry.message(state, now_ms, now_ms));
                return true;
            }
            let away_ms = *entry.away_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(away_ms) < settle_ms {
                return true;
            }
            entry.alert.severity = entry.told;
            messages.push(entry.message(State::Resolved, away_ms, now_ms));
            false
        });

        for (key, alert) in now {
            let entry = Entry { told: alert.severity, alert, since_ms: now_ms, told_ms: now_ms, away_ms: None };
            messages.push(entry.message(State::Fired, now_ms, now_ms));
            self.open.insert(key, entry);
        }
        messages.sort_by_key(|message| (message.state == State::Resolved, std::cmp::Reverse(message.alert.severity)));
        messages
    }

    /// What is open: each alert and since when, in the order of rules.
    pub fn open(&self) -> impl Iterator<Item = (&Alert, i64)> {
        self.open.values().filter(|entry| entry.away_ms.is_none()).map(|entry| (&entry.alert, entry.since_ms))
    }

    /// As it is written down.
    pub fn to_json(&self) -> serde_json::Value {
        let open: Vec<_> = self.open.values().map(|entry| serde_json::json!(entry)).collect();
        serde_json::json!({ "version": 1, "open": open })
    }

    /// From what was written down. What is not understood is an error: its owner begins a new book, and what is
    /// open is told once more.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, String> {
        if value["version"] != 1 {
            return Err("the book of alerts is of another version".to_owned());
        }
        let entries =
            Vec::<Entry>::deserialize(&value["open"]).map_err(|error| format!("the book of alerts: {error}"))?;
        let key = |entry: &Entry| (entry.alert.rule, entry.alert.subject.clone());
        Ok(Self { open: entries.into_iter().map(|entry| (key(&entry), entry)).collect() })
    }
}

impl Entry {
    /// A clock that was set back puts nothing off.
    fn not_after(&mut self, now_ms: i64) {
        self.since_ms = self.since_ms.min(now_ms);
        self.told_ms = self.told_ms.min(now_ms);
        self.away_ms = self.away_ms.map(|away| away.min(now_ms));
    }

    fn message(&self, state: State, until_ms: i64, at_ms: i64) -> Message {
        Message { state, alert: self.alert.clone(), since_ms: self.since_ms, until_ms, at_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: i64 = 60_000;

    /// Each minute a set of alerts, written as `w` (a warning), `c` (a critical one) or `-`; gives what is told, by minute.
    fn told(minutes: &str) -> String {
        let mut book = Book::default();
        let mut said = Vec::new();
        for (minute, what) in (0i64..).zip(minutes.chars()) {
            let alert = |severity| vec![Alert::new(Rule::Failed, "db", severity, "it failed", "")];
            let alerts = match what {
                'i' => alert(Severity::Info),
                'w' => alert(Severity::Warning),
                'c' => alert(Severity::Critical),
                _ => Vec::new(),
            };
            let (repeat, settle) = (Duration::from_secs(600), Duration::from_secs(180));
            for message in book.update(alerts, minute * MIN, repeat, settle) {
                let lasted = (message.until_ms - message.since_ms) / MIN;
                said.push(format!("{minute}:{} {}+{lasted}", message.state.name(), message.alert.severity.name()));
            }
            // As if the process had been started again.
            book = Book::from_json(&book.to_json()).unwrap();
        }
        said.join(" ")
    }

    #[test]
    fn what_goes_on_is_told_once_and_again_after_a_while() {
        assert_eq!(told("-wwww"), "1:fired warning+0");
        assert_eq!(told("wwwwwwwwwwwwww"), "0:fired warning+0 10:repeated warning+10");
        assert_eq!(told("iiiiiiiiiiiiii"), "0:fired info+0");
    }

    #[test]
    fn what_is_over_is_told_with_how_long_it_lasted() {
        assert_eq!(told("ww-----"), "0:fired warning+0 5:resolved warning+2");
    }

    #[test]
    fn what_comes_and_goes_is_one_alert() {
        assert_eq!(told("w-w--w-ww----"), "0:fired warning+0 12:resolved warning+9");
        assert_eq!(told("w---w"), "0:fired warning+0");
        assert_eq!(told("w----w"), "0:fired warning+0 4:resolved warning+1 5:fired warning+0");
    }

    #[test]
    fn what_gets_worse_is_told_at_once_and_what_gets_better_is_not() {
        assert_eq!(told("wc"), "0:fired warning+0 1:worse critical+1");
        assert_eq!(told("wcwcw---"), "0:fired warning+0 1:worse critical+1");
        assert_eq!(told("cw----"), "0:fired critical+0 5:resolved critical+2");
    }

    #[test]
    fn a_clock_that_is_set_back_puts_nothing_off() {
        let mut book = Book::default();
        let alerts = || vec![Alert::new(Rule::Quota, "usb", Severity::Warning, "", "")];
        let mut at = |minute: i64| book.update(alerts(), minute * MIN, Duration::from_secs(600), Duration::ZERO).len();
        assert_eq!([at(1_000_000), at(0), at(9), at(10)], [1, 0, 0, 1]);
    }

    #[test]
    fn the_worst_is_told_first_and_what_is_over_last() {
        let mut book = Book::default();
        let one = |rule, severity| Alert::new(rule, "db", severity, "", "");
        book.update(vec![one(Rule::Damage, Severity::Critical)], 0, Duration::ZERO, Duration::ZERO);
        let now = vec![one(Rule::Failed, Severity::Warning), one(Rule::Overdue, Severity::Critical)];
        let told = book.update(now, 1, Duration::ZERO, Duration::ZERO);
        assert_eq!(told.iter().map(|m| m.alert.rule).collect::<Vec<_>>(), [Rule::Overdue, Rule::Failed, Rule::Damage]);
        assert_eq!(book.open().count(), 2);
    }

    #[test]
    fn a_book_of_another_version_is_refused() {
        assert!(Book::from_json(&serde_json::json!({ "version": 2, "open": [] })).is_err());
        assert!(Book::from_json(&serde_json::json!([])).is_err());
    }
}
