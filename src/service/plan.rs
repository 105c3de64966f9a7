//! What is configured, worked out: jobs and what they are promised to achieve.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How the tag of what a job makes begins; its name follows.
pub const JOB_TAG: &str = "job:";

/// All that the service is to do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Of the process as a whole.
    pub settings: Settings,
    /// Promises, by name.
    pub tiers: BTreeMap<String, Tier>,
    /// Jobs by name, those that follow from others included.
    pub jobs: BTreeMap<String, Job>,
    /// What is known of repositories, by name.
    pub repositories: BTreeMap<String, Store>,
    /// Ways to tell people, by name.
    pub notifiers: BTreeMap<String, Notifier>,
}

/// `[service]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Most jobs at a time.
    pub parallel: usize,
    /// Where `/metrics`, `/status` and `/health` are served.
    pub listen: Option<SocketAddr>,
    /// The file the same metrics are written to, for a collector that reads files.
    pub textfile: Option<PathBuf>,
    /// The zone of cron expressions, by its IANA name; the system's otherwise.
    pub time_zone: Option<String>,
    /// How long after its time a scheduled run may begin, at random, so that machines do not all begin at once.
    pub jitter: Duration,
    /// Whether what was due while nothing ran is made up for, once.
    pub catch_up: bool,
    /// Least share of runs that succeed, in percent, over `success_over`.
    pub success_rate: f64,
    /// The time over which that share is taken.
    pub success_over: Duration,
    /// Change in size from one snapshot to the next that is told of, in percent.
    pub size_change: f64,
    /// How long an alert that goes on is not told again.
    pub repeat: Duration,
    /// The notifiers told of what is about no job; all without a list.
    pub notify: Option<Vec<String>>,
    /// How long an alert must be away until it is over.
    pub settle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            parallel: 3,
            listen: None,
            textfile: None,
            time_zone: None,
            jitter: Duration::ZERO,
            catch_up: true,
            success_rate: 99.0,
            success_over: Duration::from_secs(7 * 86_400),
            size_change: 50.0,
            repeat: Duration::from_secs(4 * 3600),
            notify: None,
            settle: Duration::from_secs(5 * 60),
        }
    }
}

/// `[tiers.NAME]`: what is promised to jobs of a tier. What a tier says of schedule, retention and verification has
/// become jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tier {
    /// The most that may be lost: how old the last successful backup may be.
    pub rpo: Option<Duration>,
    /// The longest a restore may take.
    pub rto: Option<Duration>,
    /// How long ago a job's data may have been verified.
    pub verified_within: Option<Duration>,
    /// How long ago a drill may have succeeded.
    pub drilled_within: Option<Duration>,
    /// How many places are to hold the data, the first repository included.
    pub places: Option<u32>,
}

/// What is known of a repository besides how to reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Store {
    /// Its URL without secrets, for people.
    pub place: String,
    /// The most it should hold, in bytes.
    pub quota: Option<u64>,
    /// Whether it is somewhere else than the machine and its data: of 3-2-1, the one.
    pub offsite: bool,
}

/// A job: a command line, when it runs, and what becomes of its result.
#[derive(Debug, Clone)]
pub struct Job {
    /// Unique; derived jobs have `OF:what`.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// The command line from the verb on.
    pub args: Vec<OsString>,
    /// The repository it is about.
    pub repository: String,
    /// The replica it brings snapshots to.
    pub target: Option<String>,
    /// Whose promises it keeps.
    pub tier: Option<String>,
    /// The backup job it follows from.
    pub of: Option<String>,
    /// When it runs.
    pub when: When,
    /// How often a failed run is tried again, and how long after; the wait doubles each time.
    pub retries: u32,
    /// The first wait.
    pub retry_wait: Duration,
    /// How long a run may take before it is stopped.
    pub timeout: Option<Duration>,
    /// The niceness of a process of its own for it; in the service's process otherwise.
    pub nice: Option<i32>,
    /// Commands around it.
    pub hooks: Hooks,
    /// The notifiers that are told; all without a list.
    pub notify: Option<Vec<String>>,
    /// Whether it runs: a job can be switched off without being taken out.
    pub enabled: bool,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Makes snapshots.
    Backup,
    /// Brings snapshots to a replica.
    Copy,
    /// Forgets by a policy.
    Forget,
    /// Collects.
    Prune,
    /// Verifies structure, or what is asked of data.
    Check,
    /// Verifies data by and by.
    Scrub,
    /// Restores and compares.
    Drill,
    /// Anything else.
    Other,
}

impl Kind {
    /// What a verb does.
    pub fn of_verb(verb: &str) -> Self {
        match verb {
            "backup" => Self::Backup,
            "copy" => Self::Copy,
            "forget" => Self::Forget,
            "prune" => Self::Prune,
            "check" => Self::Check,
            "scrub" => Self::Scrub,
            "drill" => Self::Drill,
            _ => Self::Other,
        }
    }

    /// Its name in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Copy => "copy",
            Self::Forget => "forget",
            Self::Prune => "prune",
            Self::Check => "check",
            Self::Scrub => "scrub",
            Self::Drill => "drill",
            Self::Other => "other",
        }
    }
}

/// When a job runs.
#[derive(Debug, Clone, Default)]
pub struct When {
    /// Cron expressions, or `every 10m`, as written; checked by [`super::schedule`].
    pub schedule: Vec<String>,
    /// Its own jitter.
    pub jitter: Option<Duration>,
    /// Runs after each success of this job.
    pub after: Option<String>,
    /// Runs when what it reads changes.
    pub watch: Option<Watch>,
}

/// What of a file system is watched, and how patiently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Where.
    pub paths: Vec<PathBuf>,
    /// Restic's patterns of names that matter; all do without any.
    pub include: Vec<String>,
    /// Patterns of names that do not.
    pub exclude: Vec<String>,
    /// How long it has to be quiet before a run begins.
    pub debounce: Duration,
    /// How long after the first change a run begins though it is not quiet.
    pub delay_max: Duration,
}

/// Commands around a run; each with the job's name and what happened in its environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before it; when one fails the run has failed.
    pub before: Vec<Vec<OsString>>,
    /// After it, whatever came of it.
    pub after: Vec<Vec<OsString>>,
    /// When it failed for good.
    pub on_failure: Vec<Vec<OsString>>,
}

/// A way to tell people.
#[derive(Debug, Clone)]
pub struct Notifier {
    /// How.
    pub channel: Channel,
    /// Only alerts of at least this weight.
    pub least: super::alerts::Severity,
    /// The message, in minijinja's language; each channel has its own otherwise.
    pub template: Option<String>,
    /// Certificate authorities that are trusted besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
}

/// How people are told.
#[derive(Debug, Clone)]
pub enum Channel {
    /// Slack's incoming webhooks, which others understand too.
    Slack {
        /// Where; a secret.
        url: Found,
        /// The channel, if not the webhook's own.
        channel: Option<String>,
    },
    /// Any HTTP endpoint: JSON by default, or what the template makes.
    Webhook {
        /// Where; may be a secret.
        url: Found,
        /// `POST` or `PUT`.
        method: String,
        /// What else is sent.
        headers: BTreeMap<String, Found>,
    },
    /// Mail by SMTP.
    Email {
        /// `smtps://HOST` (TLS from the start), `smtp://HOST?tls=required` (STARTTLS) or `smtp://HOST` (no TLS),
        /// each with a port if it is not the usual one.
        server: String,
        /// Who logs in, if anybody.
        user: Option<String>,
        /// With which password.
        password: Option<Found>,
        /// Sender.
        from: String,
        /// Receivers.
        to: Vec<String>,
    },
    /// A dead man's switch as healthchecks.io has it: told of each begin, success and failure of backups.
    Ping {
        /// Where; `{job}` stands for the job's name.
        url: Found,
    },
    /// A command, with the alert as JSON on its stdin.
    Command(Vec<OsString>),
}

/// A value, or where it is found when it is needed.
#[derive(Clone, PartialEq, Eq)]
pub enum Found {
    /// As it is; only for what is no secret.
    Text(String),
    /// The first line of a file.
    File(PathBuf),
    /// What a command prints, run without a shell.
    Command(String),
    /// A variable of the environment.
    Variable(String),
    /// A file in the directory that `CREDENTIALS_DIRECTORY` names (systemd).
    Credential(String),
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Found(…)")
    }
}

impl Plan {
    /// The tier of a job.
    pub fn tier(&self, job: &Job) -> Option<&Tier> {
        self.tiers.get(job.tier.as_ref()?)
    }

    /// The jobs that follow from one.
    pub fn derived<'a>(&'a self, of: &'a str) -> impl Iterator<Item = &'a Job> {
        self.jobs.values().filter(move |job| job.of.as_deref() == Some(of))
    }
}
