//! Telling people: by webhooks, mail, pings and commands.
//!
//! [`queue::Queue`] takes messages and pings and never keeps a backup waiting; each notifier has a thread that
//! delivers with patience. What is sent is made by [`template`] of [`context`], what is delivered is delivered
//! by [`Sender`], once, with a [`Failure`] that says whether trying again may help.
//!
//! Addresses of webhooks are secrets as passwords are: they are found when they are needed ([`found`]), and
//! an error names the notifier and at most its host.

mod command;
pub mod context;
mod found;
mod http;
mod mail;
pub mod queue;
pub mod template;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::alerts::{Alert, Message, Rule, Severity, State, line};
use super::history::{Outcome, Run};
use super::plan::{Channel, Notifier};
use crate::world::World;

/// How long one try may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why something was not delivered: a line without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub text: String,
    /// Whether trying again may help.
    pub again: Again,
}

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It will not.
    Never,
    /// It may.
    Later,
    /// It may, and not before that.
    After(Duration),
}

impl Failure {
    fn never(text: impl AsRef<str>) -> Self {
        Self { text: line(text.as_ref(), 400), again: Again::Never }
    }

    fn later(text: impl AsRef<str>) -> Self {
        Self { text: line(text.as_ref(), 400), again: Again::Later }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// What is delivered.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// To people.
    Message(Box<Message>),
    /// To a dead man's switch.
    Ping(Ping),
}

/// A sign of life of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// The job.
    pub job: String,
    /// What happened.
    pub signal: Signal,
    /// The run it happened in, a UUID ([`Ping::run_id`]): begin and end of a run have the same.
    pub run: String,
    /// More to read, such as the summary or the end of the errors; its last 10,000 bytes are sent.
    pub body: String,
}

/// What is told to a dead man's switch. A run that was interrupted tells nothing: no backup was made, and the switch
/// will say so in its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A run began.
    Start,
    /// It succeeded.
    Success,
    /// It failed, with this exit code; 0 where there is none, as after a timeout.
    Failure(u8),
    /// Nothing: to be written down only.
    Log,
}

impl Ping {
    /// That a run of a job began.
    pub fn began(job: &str, run: &str) -> Self {
        Self { job: job.to_owned(), signal: Signal::Start, run: run.to_owned(), body: String::new() }
    }

    /// How it ended; nothing if it was interrupted.
    pub fn ended(job: &str, run: &str, how: &Run) -> Option<Self> {
        let signal = match how.outcome {
            Outcome::Success | Outcome::Warning => Signal::Success,
            Outcome::Interrupted => return None,
            // Its exit code is that of an interruption, which it was not.
            Outcome::Timeout => Signal::Failure(0),
            Outcome::Failure | Outcome::Damage => Signal::Failure(how.code),
        };
        let words = || format!("{} in {:.1} s", how.outcome.name(), how.seconds());
        let body = how.message.clone().unwrap_or_else(words);
        Some(Self { job: job.to_owned(), signal, run: run.to_owned(), body })
    }

    /// A fresh name for a run.
    pub fn run_id(world: &World) -> String {
        let mut bytes: [u8; 16] = world.random();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// Delivers, one thing at a time.
pub struct Sender {
    host: String,
    timeout: Duration,
    client: Option<(Option<PathBuf>, reqwest::blocking::Client)>,
}

impl Sender {
    /// One that says it is `host`.
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), timeout: TIMEOUT, client: None }
    }

    /// Delivers `item`, in one try. What is not for such a notifier, a ping by mail, is nothing to do.
    pub fn send(&mut self, notifier: &Notifier, item: &Item) -> Result<(), Failure> {
        match (item, &notifier.channel) {
            (Item::Ping(ping), Channel::Ping { url }) => http::ping(self, notifier, url, ping),
            (Item::Ping(_), _) | (_, Channel::Ping { .. }) => Ok(()),
            (Item::Message(message), channel) => {
                let context = context::of(message, &self.host);
                match channel {
                    Channel::Slack { url, channel } => http::slack(self, notifier, url, channel.as_deref(), &context),
                    Channel::Webhook { url, method, headers } => {
                        http::webhook(self, notifier, url, method, headers, &context)
                    }
                    Channel::Email { .. } => mail::send(self, notifier, &context),
                    Channel::Command(words) => command::send(words, &context, self.timeout * 3),
                    Channel::Ping { .. } => Ok(()),
                }
            }
        }
    }
}

/// Sends one test message to notifier `name`, whatever it listens to, in one try. A dead man's switch is sent a
/// line for its log, as of `job`.
pub fn send_test(name: &str, notifier: &Notifier, host: &str, job: &str, world: &World) -> Result<(), Failure> {
    let now = world.now();
    let at_ms = now.secs.saturating_mul(1000) + i64::from(now.nanos / 1_000_000);
    let summary = format!("this is a test of notifier `{name}`");
    let item = match &notifier.channel {
        Channel::Ping { .. } => {
            Item::Ping(Ping { job: job.to_owned(), signal: Signal::Log, run: Ping::run_id(world), body: summary })
        }
        _ => {
            let alert = Alert::new(Rule::Notifier, name, Severity::Info, &summary, "");
            Item::Message(Box::new(Message { state: State::Test, alert, since_ms: at_ms, until_ms: at_ms, at_ms }))
        }
    };
    let sent = Sender::new(host).send(notifier, &item);
    sent.map_err(|failure| Failure { text: format!("notifier `{name}`: {}", failure.text), ..failure })
}

/// A field of a context as text.
fn text<'a>(context: &'a Value, key: &str) -> &'a str {
    context[key].as_str().unwrap_or_default()
}
