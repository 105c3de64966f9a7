//! One command from its arguments to its exit code, and what all commands share.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use jiff::tz::TimeZone;
use serde_json::json;

use super::args::{Cli, Global, Verb};
use super::config::{self, Added, OptionValue};
use super::console::{Console, Progress, Style, Work};
use super::fail::{Fail, Result, usage};
use super::out::Out;
use super::trace::Traced;
use super::vault::Vault;
use super::{Context, OnInterrupt, Prompt, text};
use crate::error::{Error, Kind};
use crate::monitor::Severity;
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::open::Local;
use crate::repo::pins::{Notices, Rollback};
use crate::storage::Storage;
use crate::storage::local::make_directories;
use crate::world::{Time, World};

/// Variables whose values are secrets themselves.
const SECRET_VARIABLES: [&str; 5] =
    ["ESKER_PASSWORD", "ESKER_FROM_PASSWORD", "ESKER_TO_PASSWORD", "ESKER_WEBDAV_PASSWORD", "ESKER_WEBDAV_TOKEN"];

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
    pub(super) memory: Option<Arc<dyn Storage>>,
    stdin: Mutex<Option<Box<dyn Read + Send>>>,
    pub(super) global: Global,
    /// Options of the configured repository's storage, by name.
    pub(super) options: Vec<(String, OptionValue)>,
    /// Those of the configured repository that things are brought to.
    pub(super) to_options: Vec<(String, OptionValue)>,
    /// What has opened repositories in this process.
    pub(super) vault: Arc<Vault>,
    pub(super) out: Out,
    pub(super) console: Arc<Console>,
    notices: Notices,
    on_interrupt: OnInterrupt,
}

/// Runs a command and gives its exit code.
pub(super) fn run(args: Vec<OsString>, context: Context) -> u8 {
    let wants_json = is_json(&args);
    match config::add(args, &context.env, &context.cwd) {
        Ok(added) => run_added(added, context, Arc::default()),
        Err(error) => stop(error.into(), wants_json, context),
    }
}

fn is_json(args: &[OsString]) -> bool {
    args.iter().any(|arg| arg == "--json")
}

/// Runs a command with what is configured for it. What opens repositories is looked for in `vault` first.
pub(super) fn run_added(added: Added, context: Context, vault: Arc<Vault>) -> u8 {
    let (mut app, verb) = match App::begin(added, context, vault) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    let done = app.dispatch(&verb).and_then(|()| app.out.flush());
    app.tell_notices();
    match done {
        Ok(()) => 0,
        Err(fail) => {
            // What was found out before it failed still counts.
            let _ = app.out.flush();
            report(&app.console, app.global.json, fail)
        }
    }
}

/// How progress is to be shown.
fn progress(global: &Global, context: &Context) -> Result<Progress, Error> {
    let wanted = context.env.get(OsStr::new("ESKER_PROGRESS")).map(OsString::as_os_str).unwrap_or_default();
    Ok(match wanted.to_str() {
        Some("auto" | "always" | "never" | "") if global.quiet => Progress::Off,
        Some("never") => Progress::Off,
        Some("auto" | "always" | "") if global.json => Progress::Json,
        Some("auto" | "always" | "") if context.stderr_is_terminal => Progress::Bar,
        Some("always") => Progress::Lines,
        Some("auto" | "") => Progress::Off,
        _ => {
            let what = format!("ESKER_PROGRESS is `{}`", wanted.to_string_lossy());
            return Err(usage(what).hint("set it to auto, always or never"));
        }
    })
}

/// Ends before there is a command to run.
fn stop(fail: Fail, json: bool, context: Context) -> u8 {
    let style = Style { progress: Progress::Off, json, quiet: false, verbose: false };
    report(&Console::new(context.stderr, style), json, fail)
}

/// Tells of a command line that makes no sense, or gives the help that was asked for.
fn not_understood(error: &clap::Error, json: bool, configured: Option<&str>, mut context: Context) -> u8 {
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    let mut text = error.render().to_string();
    if let Some(by) = configured.filter(|_| error.use_stderr()) {
        text.push_str(&format!("\nnote: {} adds to what was typed\n", text::plain(by)));
    }
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
    /// A command of which the line makes sense; otherwise the exit code, its reason told.
    pub(super) fn begin(added: Added, context: Context, vault: Arc<Vault>) -> Result<(Self, Verb), u8> {
        let cli = match Cli::try_parse_from(&added.args) {
            Ok(cli) => cli,
            Err(error) => return Err(not_understood(&error, is_json(&added.args), added.by.as_deref(), context)),
        };
        let global = cli.global;
        let progress = match progress(&global, &context) {
            Ok(progress) => progress,
            Err(error) => return Err(stop(error.into(), global.json, context)),
        };
        let Context { stdout, stderr, env, .. } = context;
        let style = Style { progress, json: global.json, quiet: global.quiet, verbose: global.verbose > 0 };
        let app = Self {
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
            options: added.options,
            to_options: added.to_options,
            vault,
            out: Out::new(stdout),
            console: Console::new(stderr, style),
            notices: Notices::default(),
            on_interrupt: context.on_interrupt,
        };
        added.warnings.iter().for_each(|warning| app.console.remark(Severity::Warning, warning));
        Ok((app, cli.verb))
    }

    fn dispatch(&mut self, verb: &Verb) -> Result<()> {
        // Before anything else uses the pool. That another run in this process has made it is fine.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(self.threads()).build_global();
        match verb {
            Verb::Init(args) => super::init::run(self, args),
            Verb::Backup(args) => super::backup::run(self, args),
            Verb::Snapshots(args) => super::snapshots::run(self, args),
            Verb::Ls(args) => super::ls::run(self, args),
            Verb::Find(args) => super::find::run(self, args),
            Verb::Diff(args) => super::diff::run(self, args),
            #[cfg(feature = "mount")]
            Verb::Mount(args) => super::mount::run(self, args),
            Verb::Audit(args) => super::audit::run(self, args),
            Verb::Status(args) => super::status::run(self, args),
            Verb::Sessions(args) => super::sessions::run(self, args),
            Verb::Restore(args) => super::restore::run(self, args),
            Verb::Dump(args) => super::dump::run(self, args),
            Verb::Drill(args) => super::drill::run(self, args),
            Verb::Check(args) => super::check::run(self, args),
            Verb::Scrub(args) => super::scrub::run(self, args),
            Verb::Parity(args) => super::parity::run(self, args),
            Verb::Forget(args) => super::forget::run(self, args),
            Verb::Undelete(args) => super::forget::undelete(self, args),
            Verb::Copy(args) => super::copy::run(self, args),
            Verb::Prune(args) => super::prune::run(self, args),
            Verb::Tag(args) => super::tag::run(self, args),
            Verb::Rewrite(args) => super::rewrite::run(self, args),
            Verb::Key(args) => super::key::run(self, args),
            Verb::Repair(args) => super::repair::run(self, args),
            Verb::Demo(args) => super::demo::run(self, args),
            Verb::Stats(args) => super::stats::run(self, args),
            Verb::Cache(args) => super::cache::run(self, args),
            #[cfg(feature = "service")]
            Verb::Serve => super::serve::run(self),
            #[cfg(feature = "service")]
            Verb::Notify(args) => super::notify::run(self, args),
            Verb::Job(args) => super::job::run(self, args),
            Verb::Config(args) => super::config::run(self, args),
            Verb::Completions(args) => super::about::completions(self, args),
            Verb::Man(args) => super::about::man(self, args),
            Verb::Version => super::about::version(self),
        }
    }

    /// A variable of the environment that is set and not empty.
    pub(super) fn var(&self, name: &str) -> Option<&OsStr> {
        self.env.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The environment of commands that are run: nothing they do needs what opens the repository or its storage.
    pub(super) fn env_of_commands(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.env.iter().filter(|(name, _)| !SECRET_VARIABLES.iter().any(|secret| *name == secret))
    }

    /// Whether `-v` was given.
    pub(super) fn verbose(&self) -> bool {
        self.global.verbose > 0
    }

    /// The storage as commands use it: at `-vv` with each of its calls told.
    pub(super) fn traced(&self, storage: Arc<dyn Storage>) -> Arc<dyn Storage> {
        if self.global.verbose < 2 {
            return storage;
        }
        Arc::new(Traced::new(storage, self.console.clone()))
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
        if self.global.storage.storage_time.is_some() {
            // What once was is nothing to remember, nor has the storage gone back.
            return Local { rollback, notices: self.notices.clone(), ..Local::default() };
        }
        let cache = self.cache_place().filter(|_| !self.global.no_cache);
        let cache = cache.and_then(|path| self.made(&path, make_directory, "cache", "all is read again"));
        let state =
            self.local_place(self.global.state_dir.as_deref(), "ESKER_STATE_DIR", "XDG_STATE_HOME", ".local/state");
        let state = state.and_then(|path| self.made(&path, make_directories, "state", "nothing is remembered"));
        Local { cache, state, rollback, notices: self.notices.clone() }
    }

    /// Where local copies go.
    pub(super) fn cache_place(&self) -> Option<PathBuf> {
        self.local_place(self.global.cache_dir.as_deref(), "ESKER_CACHE_DIR", "XDG_CACHE_HOME", ".cache")
    }

    /// A directory of this user's for this program: as typed, as the environment has it, or as is usual.
    pub(super) fn local_place(&self, typed: Option<&Path>, own: &str, base: &str, usual: &str) -> Option<PathBuf> {
        if let Some(given) = typed.or_else(|| self.var(own).map(Path::new)) {
            return Some(self.path(given));
        }
        let absolute = |name: &str| self.var(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute(base).or_else(|| absolute("HOME").map(|home| home.join(usual)));
        base.map(|base| base.join("esker"))
    }

    /// Makes a directory if need be.
    fn made(&self, path: &Path, make: Make, what: &str, without: &str) -> Option<PathBuf> {
        match make(path).and_then(|()| path.canonicalize()) {
            Ok(path) => Some(path),
            Err(error) => {
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
        self.when_interrupted(Box::new(move || {
            monitor.stop();
            console.remark(Severity::Note, "stopping; once more to abort at once");
        }));
        work
    }

    /// Does this, and not more, when a signal asks to stop.
    pub(super) fn when_interrupted(&self, stop: Box<dyn Fn() + Send>) {
        (self.on_interrupt)(stop);
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

/// Makes a directory and those above it.
type Make = fn(&Path) -> io::Result<()>;

/// Makes one that may be lost.
fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Tells why the command failed; gives the exit code.
fn report(console: &Console, json: bool, fail: Fail) -> u8 {
    let code = fail.code();
    let error = match fail {
        Fail::Error(error) | Fail::Code(_, error) => error,
        Fail::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return code,
        Fail::Output(error) => Error::new(Kind::Failed, "the result was not written").because(error),
    };
    if json {
        let mut line = json!({ "message_type": "exit_error", "code": code, "message": error.with_causes() });
        if let Some(hint) = error.hint_text() {
            line["hint"] = json!(hint);
        }
        console.print_json(&line);
    } else {
        console.print(&shape(&error));
    }
    code
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
