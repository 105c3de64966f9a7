//! The keys of the service's tables: what each takes and means. Reading a file, refusing what is wrong in it and the
//! JSON schema are made from these lists.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::document::Settings;
use crate::service::plan::Found;

/// A key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) about: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// A string.
    Text,
    /// One of these.
    Word(&'static [&'static str]),
    /// A list of strings, or one.
    Texts,
    /// A length of time.
    Length,
    /// A size in bytes.
    Size,
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// A number of percent.
    Percent,
    Switch,
    /// A path, from the file's directory.
    Path,
    Paths,
    /// A cron expression or `every LENGTH`; or several.
    Schedule,
    /// An address, or `false`.
    Address,
    /// A command: a string that is split as a shell would, or a list of words.
    Command,
    /// One command as a string, or a list of commands.
    Commands,
    /// Where a secret is found.
    Secret,
    /// A string, or where it is found.
    Found,
    /// Names with values, each as [`Form::Found`].
    Founds,
    /// `true`, or a table of these keys.
    Switched(&'static [Key]),
    /// A schedule, or a table with `schedule` and flags of that verb.
    Task(&'static str),
    /// Flags of that verb.
    Flags(&'static str),
}

/// A value that was read.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Text(String),
    Texts(Vec<String>),
    Schedule(Vec<String>),
    Length(Duration),
    Number(u64),
    Signed(i64),
    Percent(f64),
    Switch(bool),
    Path(PathBuf),
    Paths(Vec<PathBuf>),
    Address(Option<SocketAddr>),
    Commands(Vec<Vec<OsString>>),
    Found(Found),
    Founds(BTreeMap<String, Found>),
    Table(Table),
    Task(Task),
    Flags(Settings),
}

/// A schedule with flags.
#[derive(Debug, Clone, Default)]
pub(super) struct Task {
    pub(super) schedule: Vec<String>,
    pub(super) settings: Settings,
}

/// A table that was read, each value with its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) at: usize,
    pub(super) cells: BTreeMap<&'static str, (usize, Cell)>,
}

macro_rules! getters {
    ($($name:ident $variant:ident $type:ty;)*) => {$(
        pub(super) fn $name(&self, key: &str) -> Option<&$type> {
            match self.cells.get(key) {
                Some((_, Cell::$variant(value))) => Some(value),
                _ => None,
            }
        }
    )*};
}

impl Table {
    getters! {
        text Text String;
        length Length Duration;
        number Number u64;
        signed Signed i64;
        percent Percent f64;
        switch Switch bool;
        path Path PathBuf;
        address Address Option<SocketAddr>;
        found Found Found;
        table Table Table;
        task Task Task;
        flags Flags Settings;
        texts_at Texts Vec<String>;
        schedule_at Schedule Vec<String>;
        paths_at Paths Vec<PathBuf>;
        commands_at Commands Vec<Vec<OsString>>;
        founds_at Founds BTreeMap<String, Found>;
    }

    pub(super) fn texts(&self, key: &str) -> Vec<String> {
        self.texts_at(key).cloned().unwrap_or_default()
    }

    pub(super) fn schedule(&self, key: &str) -> Vec<String> {
        self.schedule_at(key).cloned().unwrap_or_default()
    }

    pub(super) fn commands(&self, key: &str) -> Vec<Vec<OsString>> {
        self.commands_at(key).cloned().unwrap_or_default()
    }

    /// The place of a value, or of the table.
    pub(super) fn at(&self, key: &str) -> usize {
        self.cells.get(key).map_or(self.at, |(at, _)| *at)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.cells.contains_key(key)
    }
}

const fn key(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, form, about }
}

/// `[service]`.
pub(super) const SERVICE: &[Key] = &[
    key("parallel", Form::Number(1, 256), "Most jobs at a time; 3 by default"),
    key("listen", Form::Address, "Where metrics and status are served, such as 127.0.0.1:9187; not at all by default"),
    key("textfile", Form::Path, "A file the metrics are written to, for node_exporter's textfile collector"),
    key("time-zone", Form::Text, "The IANA time zone of cron expressions; the system's by default"),
    key("jitter", Form::Length, "How long after its time a scheduled run may begin, chosen by chance"),
    key("catch-up", Form::Switch, "Whether what was due while nothing ran is made up for, once; true by default"),
    key("success-rate", Form::Percent, "Least share of runs that succeed before people are told; 99 by default"),
    key("success-over", Form::Length, "The time that share is taken over; 7d by default"),
    key("size-change", Form::Percent, "Change in size from one snapshot to the next that is told; 50 by default"),
    key("repeat", Form::Length, "How long an alert that goes on is not told again; 4h by default"),
    key("settle", Form::Length, "How long an alert has to be away until it is over; 5m by default"),
    key("notify", Form::Texts, "The notifiers that are told of what is about no job; all by default"),
];

/// `[tiers.NAME]`.
pub(super) const TIER: &[Key] = &[
    key("rpo", Form::Length, "The most that may be lost: how old the last successful backup may be"),
    key("rto", Form::Length, "The longest a restore may take, as drills measure it"),
    key("schedule", Form::Schedule, "When its backup jobs run that do not say so; every half RPO by default"),
    key("retention", Form::Flags("forget"), "Which snapshots are kept: the flags of `forget`, without `--`"),
    key("check", Form::Task("check"), "When the repositories of its jobs are checked"),
    key("scrub", Form::Task("scrub"), "When they are scrubbed"),
    key("drill", Form::Task("drill"), "When the restore of its jobs is tried"),
    key("verified-within", Form::Length, "How long ago a repository's data may have been verified"),
    key("drilled-within", Form::Length, "How long ago a drill may have succeeded"),
    key("places", Form::Number(1, 16), "How many repositories are to hold the data"),
];

/// What `[repositories.NAME]` has for the service.
pub(super) const STORE: &[Key] = &[
    key("quota", Form::Size, "The most it should hold"),
    key("offsite", Form::Switch, "Whether it is at another site than what is backed up to it"),
    key("check", Form::Task("check"), "When it is checked"),
    key("scrub", Form::Task("scrub"), "When it is scrubbed"),
    key("prune", Form::Task("prune"), "When what no snapshot needs is deleted"),
];

const WATCH: &[Key] = &[
    key("paths", Form::Paths, "What is watched; the job's paths by default"),
    key("include", Form::Texts, "Patterns of names that matter; the job's `include` by default"),
    key("exclude", Form::Texts, "Patterns of names that do not; the job's `exclude` by default"),
    key("debounce", Form::Length, "How long it has to be quiet before a run begins; 2s by default"),
    key("max-delay", Form::Length, "How long after the first change a run begins anyway; a quarter of the RPO or 60s"),
];

/// What `[jobs.NAME]` has besides the flags of its verb.
pub(super) const JOB: &[Key] = &[
    key("repository", Form::Text, "The repository, by its name in [repositories]"),
    key("tier", Form::Text, "Whose promises it keeps, by its name in [tiers]"),
    key("verb", Form::Text, "What it does; backup by default"),
    key("command", Form::Command, "Of a backup: the command whose output is saved, without a shell"),
    key("schedule", Form::Schedule, "When it runs"),
    key("jitter", Form::Length, "How long after its time a scheduled run may begin"),
    key("watch", Form::Switched(WATCH), "Whether it runs when what it reads changes"),
    key("retries", Form::Number(0, 100), "How often a failed run is tried again; 2 by default"),
    key("retry-wait", Form::Length, "How long until the first of them, twice as long until the next; 30s by default"),
    key("timeout", Form::Length, "How long a run may take before it is stopped"),
    key("nice", Form::Number(-20, 19), "Run in a process of its own of this niceness"),
    key("before", Form::Commands, "Commands before it; when one fails, the run has failed"),
    key("after", Form::Commands, "Commands after it, whatever came of it"),
    key("on-failure", Form::Commands, "Commands when it failed for good"),
    key("notify", Form::Texts, "The notifiers that are told; all by default"),
    key("replicate", Form::Texts, "Repositories its snapshots are copied to, after each success"),
    key("retention", Form::Flags("forget"), "Which snapshots are kept; the tier's by default"),
    key("drill", Form::Task("drill"), "When its restore is tried; the tier's by default"),
    key("enabled", Form::Switch, "Whether it runs; true by default"),
];

/// `[notifiers.NAME]`.
pub(super) const NOTIFIER: &[Key] = &[
    key("kind", Form::Word(&["slack", "webhook", "email", "ping", "command"]), "How people are told"),
    key("url", Form::Found, "Where: of slack, webhook and ping"),
    key("channel", Form::Text, "Of slack: another channel than the webhook's own"),
    key("method", Form::Word(&["POST", "PUT"]), "Of webhook; POST by default"),
    key("headers", Form::Founds, "Of webhook: what else is sent"),
    key("server", Form::Text, "Of email: smtp://HOST:PORT, smtps://HOST or smtp://HOST?tls=required"),
    key("user", Form::Text, "Of email: who logs in"),
    key("password", Form::Secret, "Of email: where the password is found"),
    key("from", Form::Text, "Of email: the sender"),
    key("to", Form::Texts, "Of email: the receivers"),
    key("command", Form::Command, "Of command: run with the alert as JSON on its standard input"),
    key("least", Form::Word(&["info", "warning", "critical"]), "The least severity that is told; warning by default"),
    key("template", Form::Text, "The message, in minijinja's language"),
    key("ca-file", Form::Path, "Certificates of who vouches for the server, in PEM, besides the system's"),
];
