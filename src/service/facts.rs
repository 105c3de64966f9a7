//! What is true now of each job and repository: the one place from which metrics, status and alerts are made.

use super::history::{History, Run};
use super::plan::{Job, Plan, Store, Tier};

/// All there is to know at one moment.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The moment, milliseconds since 1970.
    pub now_ms: i64,
    /// What is configured.
    pub plan: &'a Plan,
    /// Jobs in the order of their names.
    pub jobs: Vec<JobFacts<'a>>,
    /// Repositories in the order of their names.
    pub repositories: Vec<StoreFacts<'a>>,
    /// Notifiers: name, messages delivered, messages given up, whether the last one failed.
    pub notifiers: Vec<NotifierFacts>,
    /// Whether the last reload of the configuration was understood.
    pub reload_failed: Option<String>,
}

/// Of one job.
#[derive(Debug, Clone)]
pub struct JobFacts<'a> {
    /// The job.
    pub job: &'a Job,
    /// Its tier.
    pub tier: Option<&'a Tier>,
    /// What is remembered of it.
    pub history: &'a History,
    /// When it runs next by schedule.
    pub next_ms: Option<i64>,
    /// Since when it should have run and has not (a change that is not captured, a missed schedule).
    pub due_since_ms: Option<i64>,
    /// Whether its watch was lost, and a scan takes its place.
    pub watch_lost: Option<String>,
}

/// Of one repository.
#[derive(Debug, Clone)]
pub struct StoreFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is configured.
    pub store: &'a Store,
    /// What was last found out about it; `None` before the first look.
    pub seen: Option<Seen>,
}

/// What was found out about a repository.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Seen {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Why it could not be looked at, if so; the rest is what was known before.
    pub error: Option<String>,
    /// Bytes stored, by kind of object (`packs`, `index`, `snapshots`, …).
    pub stored_bytes: std::collections::BTreeMap<String, u64>,
    /// Snapshots that are live.
    pub snapshots: u64,
    /// The newest snapshot of each job, milliseconds since 1970: by the tag `job:NAME`.
    pub newest_ms: std::collections::BTreeMap<String, i64>,
    /// How many snapshots of each job there are.
    pub counts: std::collections::BTreeMap<String, u64>,
    /// Chunks known to be damaged.
    pub damaged_chunks: u64,
    /// Snapshots that cannot be read.
    pub damaged_snapshots: u64,
    /// When the pack that was not verified for longest was, or was stored.
    pub oldest_unverified_ms: Option<i64>,
    /// Share of stored packs verified within the tier's or 30 days, 0 to 1.
    pub verified_share: Option<f64>,
}

/// Of one notifier.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NotifierFacts {
    /// Its name.
    pub name: String,
    /// Messages delivered.
    pub delivered: u64,
    /// Messages given up.
    pub given_up: u64,
    /// Why the last one failed, if it did.
    pub error: Option<String>,
}

impl JobFacts<'_> {
    /// How old what is safe is, in seconds: since the successful try of the last run began. `None` before any.
    pub fn age_secs(&self, now_ms: i64) -> Option<f64> {
        let last = self.history.last_success.as_ref()?;
        Some((now_ms - last.saved_ms()).max(0) as f64 / 1000.0)
    }

    /// Since when something has been there that is not safe, milliseconds since 1970; `None` when all is.
    ///
    /// That is when what is safe was saved; but what is watched and has not changed since is as safe as ever. Before
    /// any success it is when the job became known.
    pub fn at_risk_since_ms(&self) -> Option<i64> {
        let Some(last) = &self.history.last_success else { return Some(self.history.since_ms) };
        let watched = self.job.when.watch.is_some() && self.watch_lost.is_none();
        match self.due_since_ms {
            // A failure since then may have been for a change.
            _ if !watched || self.history.failures > 0 => Some(last.saved_ms()),
            Some(due) => Some(due.max(last.saved_ms())),
            None => None,
        }
    }

    /// For how long that has been so, in milliseconds.
    pub fn at_risk_ms(&self, now_ms: i64) -> i64 {
        self.at_risk_since_ms().map_or(0, |since| (now_ms - since).max(0))
    }

    /// The last run.
    pub fn last(&self) -> Option<&Run> {
        self.history.last()
    }
}
