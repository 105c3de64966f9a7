//! What people should be told, and that it is over.
//!
//! [`evaluate`] looks at the facts and says what is wrong now: no memory, no clock, one rule beside the other
//! in `rules`. [`Book`] remembers what was told, and makes of each new evaluation the messages that are news.

mod book;
mod rules;

pub use book::{Book, Message, State};
pub use rules::evaluate;

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// To be looked at soon.
    #[default]
    Warning,
    /// Data is at risk.
    Critical,
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A run failed for good, retries included.
    Failed,
    /// What is safe is older than the tier allows, or than the schedule says.
    Overdue,
    /// A snapshot's size changed by more than it should, against the one before.
    SizeAnomaly,
    /// Too few runs succeed.
    SuccessRate,
    /// A repository holds more than its quota, or nearly.
    Quota,
    /// Damage was found.
    Damage,
    /// A drill failed, or took longer than the tier's RTO, or none succeeded for too long.
    Drill,
    /// Data was not verified for too long.
    Unverified,
    /// A replica lacks what it should have.
    ReplicaBehind,
    /// A repository cannot be reached.
    Unreachable,
    /// A notifier fails.
    Notifier,
    /// A changed configuration was not understood and the old one goes on.
    Configuration,
}

/// Something that is wrong now. Its identity is `rule` and `subject`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Alert {
    /// What it is about.
    pub rule: Rule,
    /// The job, repository or notifier.
    pub subject: String,
    /// How bad.
    pub severity: Severity,
    /// A sentence for people, with the figures.
    pub summary: String,
    /// More, such as the error's text and the hint.
    pub detail: String,
    /// Labels: job, tier, repository.
    pub labels: std::collections::BTreeMap<String, String>,
}

impl Severity {
    /// Its name in messages and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Rule {
    /// Its name in messages, metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Overdue => "overdue",
            Self::SizeAnomaly => "size-anomaly",
            Self::SuccessRate => "success-rate",
            Self::Quota => "quota",
            Self::Damage => "damage",
            Self::Drill => "drill",
            Self::Unverified => "unverified",
            Self::ReplicaBehind => "replica-behind",
            Self::Unreachable => "unreachable",
            Self::Notifier => "notifier",
            Self::Configuration => "configuration",
        }
    }
}

impl Alert {
    /// An alert without labels. What others chose, such as names of files in an error's text, cannot
    /// break out of its line, nor fill a message.
    pub fn new(rule: Rule, subject: &str, severity: Severity, summary: &str, detail: &str) -> Self {
        let lines: Vec<String> = detail.lines().take(40).map(|text| line(text, 400)).collect();
        Self {
            rule,
            subject: line(subject, 200),
            severity,
            summary: line(summary, 400),
            detail: lines.join("\n"),
            labels: std::collections::BTreeMap::new(),
        }
    }

    /// Adds a label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), line(value, 200));
        self
    }
}

/// `text` as one line of at most `most` characters: what controls a terminal, a mail or the direction of
/// writing is a space.
pub(super) fn line(text: &str, most: usize) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut kept: String = text.trim().chars().take(most + 1).map(|c| if hidden(c) { ' ' } else { c }).collect();
    if kept.chars().count() > most {
        kept.pop();
        kept.push('…');
    }
    kept
}

/// A stretch of time for people: `45 s`, `12 min`, `5 h 20 min`, `3 d 4 h`.
pub fn span(ms: i64) -> String {
    let secs = ms.max(0) / 1000;
    let two = |big: i64, unit: &str, small: i64, part: &str| match small {
        0 => format!("{big} {unit}"),
        _ => format!("{big} {unit} {small} {part}"),
    };
    match secs {
        ..120 => format!("{secs} s"),
        120..7200 => format!("{} min", secs / 60),
        7200..172_800 => two(secs / 3600, "h", secs % 3600 / 60, "min"),
        _ => two(secs / 86_400, "d", secs % 86_400 / 3600, "h"),
    }
}
