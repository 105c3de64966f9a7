//! Runs command lines for the service, in this process.
//!
//! Each is a command like any other, with the configuration's way to its repository; only the vault of what has
//! opened repositories is shared. Results are taken from what it prints as JSON, so a job is told no less and no more
//! than a script that runs the same line.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::tz::TimeZone;
use serde_json::Value;

use super::app::{App, run_added};
use super::config::Configured;
use super::fail::{Fail, Result};
use super::vault::Vault;
use super::{Context, place, scrub};
use crate::error::Context as _;
use crate::format::gc::NoteClaim;
use crate::repo::content::Reader;
use crate::repo::snapshots::Filter;
use crate::scrub::coverage;
use crate::service::facts::Seen;
use crate::service::plan::{JOB_TAG, Plan};
use crate::service::run::millis;
use crate::service::runner::{Answer, Call, Runner, Stop};
use crate::storage::Storage;
use crate::world::World;

/// Lines kept of what a command prints.
const LINES_MAX: usize = 64;
/// Problems named in a message.
const NAMED_MAX: usize = 3;
/// Problems kept.
const PROBLEMS_MAX: usize = 50;
/// A longer line is not kept.
const LINE_BYTES_MAX: usize = 1 << 20;
/// What is verified within this time counts as verified when no tier says otherwise.
const VERIFIED_SECS: u64 = 30 * 86_400;

/// Runs command lines in this process.
pub(super) struct InProcess {
    world: World,
    env: BTreeMap<OsString, OsString>,
    cwd: PathBuf,
    user: String,
    host: String,
    time_zone: TimeZone,
    memory: Option<Arc<dyn Storage>>,
    /// What was typed of global flags for all.
    global: Vec<OsString>,
    vault: Arc<Vault>,
    configured: RwLock<Arc<Configured>>,
}

impl InProcess {
    pub(super) fn new(app: &App, configured: Arc<Configured>) -> Self {
        let mut env = app.env.clone();
        // Nobody sees it.
        env.insert("ESKER_PROGRESS".into(), "never".into());
        // What the environment says of a repository is about none that is configured.
        env.remove(OsStr::new("ESKER_REPOSITORY"));
        let global = &app.global;
        let path = |flag: &str, path: &Option<PathBuf>| {
            path.as_ref().map(|path| {
                let mut typed = OsString::from(flag);
                typed.push(app.path(path));
                typed
            })
        };
        let flags = [
            path("--cache-dir=", &global.cache_dir),
            path("--state-dir=", &global.state_dir),
            global.no_cache.then(|| "--no-cache".into()),
            global.threads.map(|threads| format!("--threads={threads}").into()),
        ];
        Self {
            world: app.world.clone(),
            env,
            cwd: app.cwd.clone(),
            user: app.user.clone(),
            host: app.host.clone(),
            time_zone: app.time_zone.clone(),
            memory: app.memory.clone(),
            global: flags.into_iter().flatten().collect(),
            vault: Arc::new(Vault::keeping()),
            configured: RwLock::new(configured),
        }
    }

    /// What is configured now.
    pub(super) fn configured(&self) -> Arc<Configured> {
        self.configured.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The plan of what is configured now.
    pub(super) fn plan(&self) -> Arc<Plan> {
        self.configured().plan.clone()
    }

    /// Goes on with another configuration.
    #[cfg(feature = "service")]
    pub(super) fn replace(&self, configured: Arc<Configured>) {
        *self.configured.write().unwrap_or_else(PoisonError::into_inner) = configured;
    }

    fn context(&self, taken: &Taken, stop: &Stop) -> Context {
        let stop = stop.clone();
        Context {
            world: self.world.clone(),
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            host: self.host.clone(),
            time_zone: self.time_zone.clone(),
            stdin: Box::new(io::empty()),
            stdout: Box::new(taken.stdout.clone()),
            stderr: Box::new(taken.stderr.clone()),
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            prompt: None,
            memory: self.memory.clone(),
            on_interrupt: Box::new(move |asked| stop.then(asked)),
        }
    }

    /// Does something with a configured repository, as a command would.
    fn with_app<T>(
        &self,
        repository: &str,
        stop: &Stop,
        work: impl FnOnce(&App) -> Result<T>,
    ) -> std::result::Result<T, String> {
        let taken = Taken::default();
        let call = Call { repository: repository.to_owned(), target: None, args: vec!["status".into()] };
        let added = self.configured().added(&call, &self.global).map_err(|error| error.with_causes())?;
        let begun = App::begin(added, self.context(&taken, stop), self.vault.clone());
        let (app, _) = begun.map_err(|_| taken.answer(2).message.unwrap_or_else(|| "cannot be begun".to_owned()))?;
        let done = catch_unwind(AssertUnwindSafe(|| work(&app)));
        match done {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(Fail::Error(error) | Fail::Code(_, error))) => Err(error.with_causes()),
            Ok(Err(Fail::Output(error))) => Err(error.to_string()),
            Err(_) => Err("a defect of this program ended it".to_owned()),
        }
    }
}

impl Runner for InProcess {
    fn run(&self, call: &Call, stop: &Stop) -> Answer {
        let taken = Taken::default();
        let added = match self.configured().added(call, &self.global) {
            Ok(added) => added,
            Err(error) => return Answer { code: 2, message: Some(error.with_causes()), ..Answer::default() },
        };
        let context = self.context(&taken, stop);
        match catch_unwind(AssertUnwindSafe(|| run_added(added, context, self.vault.clone()))) {
            Ok(code) => taken.answer(code),
            Err(panic) => {
                let why = panic.downcast_ref::<&str>().map(|why| (*why).to_owned());
                let why = why.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                let message = format!("a defect of this program ended it: {why}");
                Answer { code: 1, message: Some(message), ..taken.answer(1) }
            }
        }
    }

    fn look(&self, repository: &str, stop: &Stop) -> std::result::Result<Seen, String> {
        let plan = self.plan();
        let tiers = plan.jobs.values().filter(|job| job.repository == repository).filter_map(|job| plan.tier(job));
        let within = tiers.filter_map(|tier| tier.verified_within).min().map_or(VERIFIED_SECS, |least| least.as_secs());
        self.with_app(repository, stop, |app| {
            let repository = place::repository(app)?;
            let reader = Reader::new(&repository)?;
            let now = app.world.now();
            let (snapshots, unreadable) = reader.snapshots(&Filter::default())?;
            let since = now.secs.saturating_sub(i64::try_from(within).unwrap_or(i64::MAX));
            let covered = coverage(&reader, &scrub::ages(app, &*repository.storage), since);
            let mut seen = Seen {
                at_ms: millis(now),
                snapshots: snapshots.len() as u64,
                damaged_chunks: reader.collections().damaged.len() as u64,
                damaged_snapshots: unreadable.len() as u64,
                oldest_unverified_ms: covered.oldest_secs.map(|secs| secs.saturating_mul(1000)),
                verified_share: (covered.known > 0).then(|| covered.verified as f64 / covered.known as f64),
                ..Seen::default()
            };
            for info in &snapshots {
                let made = millis(info.snapshot.time);
                for job in info.snapshot.tags.iter().filter_map(|tag| tag.strip_prefix(JOB_TAG)) {
                    let newest = seen.newest_ms.entry(job.to_owned()).or_insert(made);
                    *newest = made.max(*newest);
                    *seen.counts.entry(job.to_owned()).or_default() += 1;
                }
            }
            for object in repository.storage.list("").context(|| "cannot list what is stored")? {
                let kind = object.name.split('/').next().unwrap_or_default();
                *seen.stored_bytes.entry(kind.to_owned()).or_default() += object.bytes;
            }
            Ok(seen)
        })
    }

    fn note(&self, repository: &str, action: &str, detail: &str) -> std::result::Result<(), String> {
        self.with_app(repository, &Stop::default(), |app| {
            let repository = place::repository(app)?;
            Ok(repository.note([NoteClaim::Audit { action: action.to_owned(), detail: detail.to_owned() }])?)
        })
    }
}

/// What is named above on a terminal is named in the message, the first few of it.
fn named_here(message: &str, problems: &[String]) -> String {
    let Some(what) = message.strip_suffix("; each is named above").filter(|_| !problems.is_empty()) else {
        return message.to_owned();
    };
    let more = problems.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{what}: {}{more}", problems[..problems.len().min(NAMED_MAX)].join("; "))
}

/// What a command prints, as far as it is kept.
#[derive(Clone, Default)]
struct Taken {
    stdout: Lines,
    stderr: Lines,
}

/// Takes JSON a line at a time.
#[derive(Clone, Default)]
struct Lines {
    state: Arc<Mutex<LinesState>>,
}

#[derive(Default)]
struct LinesState {
    begun: Vec<u8>,
    first: Vec<Value>,
    last: std::collections::VecDeque<Value>,
}

impl LinesState {
    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.begun);
        if line.is_empty() || line.len() > LINE_BYTES_MAX {
            return;
        }
        let value = serde_json::from_slice(&line)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&line).into_owned()));
        // The first say what went wrong, the last what came of it.
        if self.first.len() < LINES_MAX {
            self.first.push(value);
        } else {
            self.last.push_back(value);
            if self.last.len() > LINES_MAX {
                self.last.pop_front();
            }
        }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            // One byte more than is kept says that it was longer.
            let room = (LINE_BYTES_MAX + 1).saturating_sub(state.begun.len());
            state.begun.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                state.end_line();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn take(&self) -> Vec<Value> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.end_line();
        let LinesState { first, last, .. } = std::mem::take(&mut *state);
        first.into_iter().chain(last).collect()
    }
}

impl Taken {
    fn answer(&self, code: u8) -> Answer {
        let mut answer = Answer { code, lines: self.stdout.take(), ..Answer::default() };
        // What a check finds is its result, and stands there.
        let found = answer.lines.iter().filter(|line| line["message_type"] == "error").filter_map(|line| {
            let object = line["object"].as_str().map(|object| format!("`{object}`: ")).unwrap_or_default();
            Some(format!("{object}{}", line["error"]["message"].as_str()?))
        });
        answer.problems = found.take(PROBLEMS_MAX).collect();
        for line in self.stderr.take() {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let message = line.get("message").and_then(text);
            let message = message.or_else(|| text(line.get("error")?.get("message")?)).or_else(|| text(&line));
            let Some(message) = message else { continue };
            match line.get("message_type").and_then(Value::as_str) {
                Some("exit_error") => {
                    let hint = line.get("hint").and_then(text).map(|hint| format!("; hint: {hint}"));
                    let message = named_here(&message, &answer.problems);
                    answer.message = Some(format!("{message}{}", hint.unwrap_or_default()));
                }
                Some("note") => {}
                _ if answer.problems.len() < PROBLEMS_MAX => {
                    let item = line.get("item").and_then(text).map(|item| format!("{item}: ")).unwrap_or_default();
                    answer.problems.push(format!("{item}{message}"));
                }
                _ => {}
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A log has nothing above.
    #[test]
    fn what_was_named_above_is_named_in_the_message() {
        let problems: Vec<String> = (1..6).map(|at| format!("file{at}: gone")).collect();
        let named = |message: &str, count: usize| named_here(message, &problems[..count]);
        assert_eq!(
            named("2 could not be read; each is named above", 2),
            "2 could not be read: file1: gone; file2: gone"
        );
        assert_eq!(
            named("5 could not be read; each is named above", 5),
            "5 could not be read: file1: gone; file2: gone; file3: gone; and 2 more"
        );
        assert_eq!(named("it failed", 1), "it failed");
    }

    #[test]
    fn what_a_check_found_is_named() {
        let mut taken = Taken::default();
        writeln!(
            taken.stdout,
            "{}",
            json!({ "message_type": "error", "object": "packs/9f", "error": { "message": "gone" } })
        )
        .unwrap();
        let said = json!({ "message_type": "exit_error", "message": "1 object is damaged; each is named above" });
        writeln!(taken.stderr, "{said}").unwrap();
        assert_eq!(taken.answer(4).message.as_deref(), Some("1 object is damaged: `packs/9f`: gone"));
    }
}
