//! What is remembered of each job on this machine: a file a job, in the state directory.
//!
//! The repository says what snapshots there are; only this machine knows what was tried and failed. A job's
//! file is replaced as a whole after each run, under the lock that keeps the job from running twice, so the service and `esker job run`
//! can stand beside each other. A file that cannot be read is put aside, told of, and begun anew: no backup waits for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most runs remembered one by one.
pub const RUNS_MAX: usize = 500;

/// Upper bounds of the buckets durations are counted in, in seconds.
pub const BUCKETS: [f64; 14] =
    [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];

/// What a drill says of itself that found nothing wrong, and took longer than its RTO.
pub const TOO_SLOW: &str = "too_slow";

/// What is remembered of a job. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct History {
    /// Since when.
    pub since_ms: i64,
    /// Runs in all, by how they ended.
    pub totals: BTreeMap<Outcome, u64>,
    /// How long runs took.
    pub durations: Durations,
    /// The last runs, oldest first. A run that was tried again counts once.
    pub runs: Vec<Run>,
    /// The last run that succeeded (or warned), also when it is no longer among the last.
    pub last_success: Option<Run>,
    /// Failures since then.
    pub failures: u64,
    /// Since when a run has been going on, in the process that runs it.
    pub running_since_ms: Option<i64>,
    /// The moments up to which schedules were looked at: what lay before was done or made up for.
    pub scheduled_ms: Option<i64>,
}

impl History {
    /// Of a job of which nothing is known.
    pub const NEW: Self = Self {
        since_ms: 0,
        totals: BTreeMap::new(),
        durations: Durations { counts: Vec::new(), sum: 0.0 },
        runs: Vec::new(),
        last_success: None,
        failures: 0,
        running_since_ms: None,
        scheduled_ms: None,
    };
}

/// A histogram of durations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Durations {
    /// Counts by bucket, each for itself; what is longer than all is the last one.
    pub counts: Vec<u64>,
    /// The sum, in seconds.
    pub sum: f64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All of it was done.
    Success,
    /// It was done, and something could not be read or restored (exit codes 3 and 5).
    Warning,
    /// It was not done.
    Failure,
    /// Damage was found (exit code 4).
    Damage,
    /// It was stopped because it took too long.
    Timeout,
    /// The service was stopped.
    Interrupted,
}

impl Outcome {
    /// Whether what the job is for was achieved.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Success | Self::Warning)
    }

    /// Its name in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Failure => "failure",
            Self::Damage => "damage",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// It was time.
    Schedule,
    /// It had been time while nothing ran.
    CatchUp,
    /// Something changed.
    Watch,
    /// The job it follows from succeeded.
    After,
    /// Somebody asked for it.
    Hand,
}

impl std::str::FromStr for Trigger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        serde_json::from_value(text.into()).map_err(|_| format!("nothing runs for the reason `{text}`"))
    }
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Run {
    /// When the first try began.
    pub began_ms: i64,
    /// When the last try ended.
    pub ended_ms: i64,
    /// When the last try began.
    pub tried_ms: i64,
    /// How it ended.
    pub outcome: Outcome,
    /// The exit code of the last try.
    pub code: u8,
    /// Why it began.
    pub trigger: Trigger,
    /// How often it was tried.
    pub tries: u32,
    /// Why it failed, or what was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The snapshot it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// How a drill went, in its own word: [`TOO_SLOW`], `check_failed`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// What the verb counted: the numbers of its summary by their JSON names, such as
    /// `total_bytes_processed`.
    #[serde(default)]
    pub numbers: BTreeMap<String, f64>,
}

impl Run {
    /// As of when what it saved is: since the try began that saved it, all that was there then is safe.
    pub fn saved_ms(&self) -> i64 {
        self.tried_ms
    }

    /// How long the last try took, in seconds.
    pub fn seconds(&self) -> f64 {
        (self.ended_ms - self.tried_ms).max(0) as f64 / 1000.0
    }
}

impl History {
    /// Adds a run that ended.
    pub fn add(&mut self, run: Run) {
        *self.totals.entry(run.outcome).or_default() += 1;
        self.durations.add(run.seconds());
        self.running_since_ms = None;
        if run.outcome.is_success() {
            self.failures = 0;
            // Whoever began it: what was due before is done.
            self.scheduled_ms = self.scheduled_ms.max(Some(run.saved_ms()));
            self.last_success = Some(run.clone());
        } else if run.outcome != Outcome::Interrupted {
            self.failures += 1;
        }
        self.runs.push(run);
        let more = self.runs.len().saturating_sub(RUNS_MAX);
        self.runs.drain(..more);
    }

    /// The last run.
    pub fn last(&self) -> Option<&Run> {
        self.runs.last()
    }
}

impl Durations {
    /// Counts one.
    pub fn add(&mut self, seconds: f64) {
        self.counts.resize(BUCKETS.len() + 1, 0);
        let bucket = BUCKETS.iter().position(|most| seconds <= *most).unwrap_or(BUCKETS.len());
        self.counts[bucket] += 1;
        self.sum += seconds;
    }
}
