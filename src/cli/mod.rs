//! The command line: the only module that prints (CLI.md).
//!
//! [`run`] takes everything it uses from a [`Context`] (arguments aside): time, randomness, the
//! environment, where output goes. So a test runs whole commands in process and sees exactly what
//! a person would. [`args`] says what can be typed and one file a verb does it; [`app`] is what
//! all verbs share, [`console`] shows progress and problems, [`out`] takes results, [`text`] and
//! [`time`] put numbers and moments into words, [`unlock`] finds the password or key file ([`terminal`] has it typed),
//! [`place`] the storage (with [`storage_args`]), [`choose`] the snapshot that is meant, [`entry`] shows what is in one, [`inputs`] what
//! is backed up, [`safety`] what a restore would lose, [`config`] adds what is configured, [`trace`]
//! tells what is asked of the storage.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;
use zeroize::Zeroizing;

use crate::storage::Storage;
use crate::world::{Time, World};

mod about;
mod app;
mod args;
mod audit;
mod audited;
mod backup;
mod cache;
mod check;
mod choose;
mod config;
mod console;
mod copy;
mod copy_args;
mod demo;
mod diff;
mod drill;
mod drill_args;
mod dump;
mod entry;
mod fail;
mod find;
mod forget;
mod init;
mod inputs;
mod job;
mod json;
mod key;
mod ls;
#[cfg(feature = "mount")]
mod mount;
#[cfg(feature = "service")]
mod notify;
mod out;
mod parity;
mod place;
mod prune;
mod reencrypt;
mod remake_args;
mod repair;
mod repair_index;
mod repair_snapshots;
mod restore;
mod retention_args;
mod rewrite;
mod runner;
mod safety;
mod scrub;
mod scrub_args;
#[cfg(feature = "service")]
mod serve;
mod sessions;
mod snapshots;
mod stats;
mod status;
mod storage_args;
mod tag;
mod terminal;
mod text;
mod time;
mod trace;
mod unlock;
mod vault;

/// Asks for a secret on the terminal without showing it, with this prompt.
pub type Prompt = Box<dyn Fn(&str) -> io::Result<Zeroizing<String>> + Send + Sync>;

pub use terminal::ask as ask_on_terminal;

/// Calls what it is given at the first signal that asks to stop; ends the program at the second.
pub type OnInterrupt = Box<dyn Fn(Box<dyn Fn() + Send>) + Send + Sync>;

/// What the command line takes from its process.
pub struct Context {
    /// Clock and randomness.
    pub world: World,
    /// The environment.
    pub env: BTreeMap<OsString, OsString>,
    /// Where relative paths begin.
    pub cwd: PathBuf,
    /// Who runs it.
    pub user: String,
    /// On which machine.
    pub host: String,
    /// How times are shown and read.
    pub time_zone: TimeZone,
    /// What is piped in.
    pub stdin: Box<dyn Read + Send>,
    /// Where results go.
    pub stdout: Box<dyn Write + Send>,
    /// Where errors and progress go.
    pub stderr: Box<dyn Write + Send>,
    /// Whether results go to a terminal.
    pub stdout_is_terminal: bool,
    /// Whether errors go to a terminal, where a progress bar can be drawn.
    pub stderr_is_terminal: bool,
    /// Asks for passwords; `None` without a terminal.
    pub prompt: Option<Prompt>,
    /// What `memory:` stands for; `None` outside of tests.
    pub memory: Option<Arc<dyn Storage>>,
    /// Who tells of signals.
    pub on_interrupt: OnInterrupt,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("cwd", &self.cwd).field("user", &self.user).finish_non_exhaustive()
    }
}

/// Reads a size as an argument, for [`crate::fuzzing`].
pub(crate) fn parse_size(typed: &str) -> Option<u64> {
    text::parse_bytes(typed).ok()
}

/// Reads a moment as an argument, for [`crate::fuzzing`].
pub(crate) fn parse_time(typed: &str, now: Time) -> Option<Time> {
    time::parse(typed, now, &TimeZone::UTC, time::DayEnd::Last).ok()
}

/// Runs one command, the program's name included, and gives the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>, context: Context) -> u8 {
    app::run(args.into_iter().collect(), context)
}
