//! One command from its arguments to its exit code, and what all commands share.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use jiff::tz::TimeZone;
use serde_json::json;

use super::args::{Cli, Global, Verb};
use super::console::{Console, Progress, Style, Work};
use super::fail::{Fail, Result, usage};
use super::out::Out;
use super::{Context, OnInterrupt, Prompt, text};
use crate::error::{Error, Kind};
use crate::monitor::Severity;
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::open::Local;
use crate::repo::pins::{Notices, Rollback};
use crate::storage::memory::Memory;
use crate::world::{Time, World};

/// A command being run.
pub(super) struct App {
    pub(super) world: World,
    pub(super) env: BTreeMap<OsString, OsString>,
    pub(super) cwd: PathBuf,
    pub(super) user: String,
    pub(super) host: String,
    pub(super) time_zone: TimeZone,
    pub(super) stdout_is_terminal: bool,
    pub(super) prompt: Option<Prompt>,
    pub(super) memory: Option<Memory>,
    stdin: Mutex<Option<Box<dyn Read + Send>>>,
    pub(super) global: Global,
    pub(super) out: Out,
    pub(super) console: Arc<Console>,
    notices: Notices,
    on_interrupt: OnInterrupt,
}

/// Runs a command and gives its exit code.
pub(super) fn run(args: Vec<OsString>, context: Context) -> u8 {
    let wants_json = args.iter().any(|arg| arg == "--json");
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, wants_json, context),
    };
    let Context { stdout, stderr, stderr_is_terminal, env, .. } = context;
    let global = cli.global;
    let progress = match env.get(OsStr::new("ESKER_PROGRESS")).and_then(|value| value.to_str()) {
        _ if global.quiet => Progress::Off,
        Some("never") => Progress::Off,
        _ if global.json => Progress::Json,
        _ if stderr_is_terminal => Progress::Bar,
        Some("always") => Progress::Lines,
        _ => Progress::Off,
    };
    let style = Style { progress, json: global.json, quiet: global.quiet, verbose: global.verbose };
    let mut app = App {
        world: context.world,
        env,
        cwd: context.cwd,
        user: context.user,
        host: context.host,
        time_zone: context.time_zone,
        stdout_is_terminal: context.stdout_is_terminal,
        prompt: context.prompt,
        memory: context.memory,
        stdin: Mutex::new(Some(context.stdin)),
        global,
        out: Out::new(stdout),
        console: Console::new(stderr, style),
        notices: Notices::default(),
        on_interrupt: context.on_interrupt,
    };
    let done = app.dispatch(&cli.verb).and_then(|()| app.out.flush());
    app.tell_notices();
    match done {
        Ok(()) => 0,
        Err(fail) => {
            // What was found out before it failed still counts.
            let _ = app.out.flush();
            app.report(fail)
        }
    }
}

/// Tells of a command line that makes no sense, or gives the help that was asked for.
fn not_understood(error: &clap::Error, json: bool, mut context: Context) -> u8 {
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    let text = error.render().to_string();
    // Nobody is left to tell when this fails.
    let _ = match (error.use_stderr(), json) {
        (false, _) => write!(context.stdout, "{text}").and_then(|()| context.stdout.flush()),
        (true, false) => write!(context.stderr, "{text}"),
        (true, true) => {
            let message = text.lines().next().unwrap_or_default();
            let message = message.strip_prefix("error: ").unwrap_or(message);
            writeln!(context.stderr, "{}", json!({ "message_type": "exit_error", "code": code, "message": message }))
        }
    };
    code
}

impl App {
    fn dispatch(&mut self, verb: &Verb) -> Result<()> {
        // Before anything else uses the pool. That another run in this process has made it is fine.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(self.threads()).build_global();
        match verb {
            Verb::Init(args) => super::init::run(self, args),
            Verb::Backup(args) => super::backup::run(self, args),
            Verb::Snapshots(args) => super::snapshots::run(self, args),
            Verb::Ls(args) => super::ls::run(self, args),
            Verb::Restore(args) => super::restore::run(self, args),
            Verb::Dump(args) => super::dump::run(self, args),
            Verb::Check(args) => super::check::run(self, args),
            Verb::Key(args) => super::key::run(self, args),
            Verb::Repair(args) => super::repair::run(self, args),
            Verb::Demo(args) => super::demo::run(self, args),
            Verb::Completions(args) => super::about::completions(self, args),
            Verb::Version => super::about::version(self),
        }
    }

    /// Tells why the command failed; gives the exit code.
    fn report(&self, fail: Fail) -> u8 {
        let code = fail.code();
        let error = match fail {
            Fail::Error(error) | Fail::Code(_, error) => error,
            Fail::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return code,
            Fail::Output(error) => Error::new(Kind::Failed, "the result was not written").because(error),
        };
        if self.global.json {
            let mut line = json!({ "message_type": "exit_error", "code": code, "message": error.with_causes() });
            if let Some(hint) = error.hint_text() {
                line["hint"] = json!(hint);
            }
            self.console.print(&line.to_string());
        } else {
            self.console.print(&shape(&error));
        }
        code
    }

    /// A variable of the environment that is set and not empty.
    pub(super) fn var(&self, name: &str) -> Option<&OsStr> {
        self.env.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A path as it was typed, made absolute.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.cwd.join(path.strip_prefix(".").unwrap_or(path))
    }

    /// What is piped in; it can be had once.
    pub(super) fn stdin(&self) -> Result<Box<dyn Read + Send>> {
        let stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
        stdin.ok_or_else(|| usage("stdin can be read for one thing only").into())
    }

    /// How many threads work.
    pub(super) fn threads(&self) -> usize {
        match self.global.threads {
            Some(threads) => threads as usize,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// Where the cache and the state are, made if need be; without such places everything works,
    /// slower, and nobody notices a storage that goes back.
    pub(super) fn local(&self) -> Local {
        let rollback = if self.global.accept_rollback { Rollback::Accept } else { Rollback::Refuse };
        let cache = self.place_for("CACHE", self.global.cache_dir.as_deref(), ".cache", "all is read again");
        let state = self.place_for("STATE", self.global.state_dir.as_deref(), ".local/state", "nothing is remembered");
        Local { cache, state, rollback, notices: self.notices.clone() }
    }

    /// A directory by its flag, `ESKER_…_DIR`, `XDG_…_HOME` or the place that goes by custom.
    fn place_for(&self, what: &str, given: Option<&Path>, custom: &str, without: &str) -> Option<PathBuf> {
        if what == "CACHE" && self.global.no_cache {
            return None;
        }
        let base = |name: &str| self.var(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let usual = || {
            let base = base(&format!("XDG_{what}_HOME")).or_else(|| base("HOME").map(|home| home.join(custom)));
            base.map(|base| base.join("esker"))
        };
        let given = given.map(Path::to_owned).or_else(|| self.var(&format!("ESKER_{what}_DIR")).map(PathBuf::from));
        let path = given.map(|path| self.path(&path)).or_else(usual)?;
        let made = std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
            .create(&path)
            .and_then(|()| path.canonicalize());
        match made {
            Ok(path) => Some(path),
            Err(error) => {
                let what = what.to_lowercase();
                let message = format!("there is no {what} directory, {without}: `{}`: {error}", path.display());
                self.console.remark(Severity::Warning, &message);
                None
            }
        }
    }

    /// Tells what went wrong with the state directory, and that a storage has gone back.
    pub(super) fn tell_notices(&self) {
        for notice in self.notices.take() {
            self.console.remark(Severity::Warning, &notice);
        }
    }

    /// Says what of this repository was seen before and is gone.
    pub(super) fn tell_behind(&self, repository: &Repository) {
        let behind = repository.behind();
        let Some(first) = behind.first() else { return };
        let missing = match behind.len() {
            1 => format!("{first} is missing"),
            many => format!("{first} and {} more are missing", many - 1),
        };
        let place = repository.storage.place();
        let message = format!("the storage at `{place}` is older than what was seen before: {missing}");
        self.console.remark(Severity::Warning, &message);
    }

    /// Begins work that may take long: shown, and stopped when a signal asks for it.
    pub(super) fn work(&self, what: &'static str) -> Work {
        let work = Work::begin(&self.console, &self.out, what);
        let (monitor, console) = (work.monitor().clone(), self.console.clone());
        (self.on_interrupt)(Box::new(move || {
            monitor.stop();
            console.remark(Severity::Note, "stopping; once more to abort at once");
        }));
        work
    }

    /// Says what of the repository cannot be read and so counts as absent.
    pub(super) fn tell_faults(&self, reader: &Reader<'_>) {
        for (object, error) in reader.faults().iter().chain(&reader.cache_fault()) {
            let message = format!("`{object}` is not used: {}", error.with_causes());
            self.console.remark(Severity::Warning, &message);
        }
    }

    /// Results for people, unless `-q` was given.
    pub(super) fn say(&self, text: &str) -> Result<()> {
        if self.global.quiet { Ok(()) } else { self.out.say(text) }
    }

    /// Whether what is printed is seen by the person who runs this and kept by nobody.
    pub(super) fn may_show_secrets(&self) -> bool {
        self.prompt.is_some() && self.stdout_is_terminal && !self.global.json && !self.global.quiet
    }

    /// A time as people here read it.
    pub(super) fn show_time(&self, time: Time) -> String {
        super::time::show(time, &self.time_zone)
    }

    /// A path in a snapshot, as it was typed.
    pub(super) fn tree_path(&self, path: &Path) -> Result<TreePath> {
        TreePath::from_os(&self.path(path)).map_err(|error| usage(error.to_string()).into())
    }

    /// What a key is called unless told otherwise.
    pub(super) fn label(&self) -> String {
        format!("{}@{}", self.user, self.host)
    }
}

/// `error:`, `Caused by:` and `hint:`.
fn shape(error: &Error) -> String {
    let mut lines = vec![format!("error: {}", text::plain(&error.to_string()))];
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        lines.push(format!("  Caused by: {}", text::plain(&error.to_string())));
        cause = error.source();
    }
    if let Some(hint) = error.hint_text() {
        lines.push(String::new());
        lines.extend(hint.lines().enumerate().map(|(number, line)| match number {
            0 => format!("hint: {}", text::plain(line)),
            _ => format!("      {}", text::plain(line)),
        }));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_one_shape_and_cannot_steer_a_terminal() {
        let inner = Error::new(Kind::Failed, "object not found: `packs/9f\x1b[2J`").hint("run `esker check`");
        let error = Error::new(Kind::Failed, "nothing was restored").because(inner);
        let lines: Vec<String> = shape(&error).lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "error: nothing was restored",
                r"  Caused by: object not found: `packs/9f\x1b[2J`",
                "",
                "hint: run `esker check`",
            ]
        );
    }
}
