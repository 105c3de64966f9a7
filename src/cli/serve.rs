//! `serve`: the service, until a signal ends it. SIGHUP has the configuration read again.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::app::App;
use super::config::Configured;
use super::fail::Result;
use super::runner::InProcess;
use super::{job, time};
use crate::error::{Error, Kind};
use crate::monitor::Severity;
use crate::service::history::Trigger;
use crate::service::plan::{Job, Plan};
use crate::service::runner::Stop;
use crate::service::serve::{Configuration, Inputs, Reloaded, Signal, serve};

/// How often a process of its own is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn run(app: &App) -> Result<()> {
    let configured = Arc::new(Configured::load(app)?);
    if configured.plan.jobs.is_empty() {
        app.console.remark(Severity::Warning, "there are no jobs: write some as `[jobs.NAME]` in the configuration");
    }
    let signals = signals()?;
    let shelf = job::shelf(app)?;
    let runner = Arc::new(InProcess::new(app, configured.clone()));
    let (console, world, zone) = (app.console.clone(), app.world.clone(), app.time_zone.clone());
    // The journal has its own clock.
    let has_clock = app.var("JOURNAL_STREAM").is_some();
    let tell: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(move |line| {
        let line = super::text::plain(line);
        match has_clock {
            true => console.print(&line),
            false => console.print(&format!("{} {line}", time::show(world.now(), &zone))),
        }
    });
    // The closure that reads it again is called from one thread only, and lives as long as this function.
    let (ask, asked) = unbounded::<()>();
    let (give, given) = unbounded();
    let reload = move || {
        let gone = |_| "the service is ending".to_owned();
        ask.send(()).map_err(gone)?;
        given.recv().map_err(|_| "the service is ending".to_owned())?
    };
    let path = configured.path.clone();
    let typed = typed(app, &path);
    let told = tell.clone();
    let apart = move |job: &Job, trigger: Trigger, stop: &Stop| apart(&typed, job, trigger, stop, &*told);
    let listening_console = app.console.clone();
    let inputs = Inputs {
        world: app.world.clone(),
        runner: runner.clone(),
        shelf,
        env: app.env_of_commands().map(|(name, value)| (name.clone(), value.clone())).collect(),
        host: app.host.clone(),
        configuration: configuration(app, &configured),
        reload: Box::new(reload),
        signals,
        tell: tell.clone(),
        apart: Arc::new(apart),
        listening: Box::new(move |address| {
            listening_console.print(&format!("metrics and status at http://{address}/"))
        }),
    };
    tell(&format!("{} jobs of `{}`", configured.plan.jobs.len(), path.display()));
    let result = std::thread::scope(|scope| {
        let served = scope.spawn(|| serve(inputs));
        // Ends when the service drops the other side.
        for () in asked {
            let again = Configured::load(app).map(Arc::new).map_err(|error| error.with_causes());
            let _ = give.send(again.map(|configured| {
                let (runner, configuration) = (runner.clone(), configuration(app, &configured));
                Reloaded { configuration, take_up: Box::new(move || runner.replace(configured)) }
            }));
        }
        served.join()
    });
    let died = |_| Error::new(Kind::Failed, "a defect of this program ended the service");
    Ok(result.map_err(died)??)
}

/// The plan, with what nobody should watch left out: what the service itself writes.
fn configuration(app: &App, configured: &Configured) -> Configuration {
    let local = app.local();
    let mut own: Vec<String> = [local.cache, local.state]
        .into_iter()
        .flatten()
        .filter_map(|path| path.into_os_string().into_string().ok())
        .collect();
    own.extend(
        configured.local_places().filter_map(|path| path.canonicalize().ok()?.into_os_string().into_string().ok()),
    );
    let mut plan = Plan::clone(&configured.plan);
    own.extend(plan.settings.textfile.iter().filter_map(|path| Some(path.to_str()?.to_owned())));
    for job in plan.jobs.values_mut() {
        if let Some(watch) = &mut job.when.watch {
            watch.exclude.extend(own.iter().cloned());
        }
    }
    Configuration { plan: Arc::new(plan), digest: configured.digest.clone() }
}

/// What the process is asked by signals. At the second that asks to stop it ends at once.
fn signals() -> Result<Receiver<Signal>> {
    let failed = |error| Error::new(Kind::Failed, "cannot listen to signals").because(error);
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(failed)?;
    let (send, receive) = unbounded();
    let stopping = AtomicBool::new(false);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let asked = match signal {
                SIGHUP => Signal::Reload,
                _ if stopping.swap(true, Ordering::Relaxed) => std::process::exit(130),
                _ => Signal::Stop,
            };
            // The service ends by itself when it is over.
            let _ = send.send(asked);
        }
    });
    Ok(receive)
}

/// The exit code of a run that another process holds.
const HELD: i32 = 6;

/// The beginning of a command line that means the same configuration.
fn typed(app: &App, config: &std::path::Path) -> Vec<OsString> {
    let mut args = vec![OsString::from("--json"), "--config".into(), config.into()];
    for (flag, path) in [("--cache-dir", &app.global.cache_dir), ("--state-dir", &app.global.state_dir)] {
        args.extend(path.iter().flat_map(|path| [flag.into(), app.path(path).into()]));
    }
    args
}

/// Runs a job in a process of its own. What came of it that process writes down; what it warns of is told.
fn apart(
    typed: &[OsString],
    job: &Job,
    trigger: Trigger,
    stop: &Stop,
    tell: &(dyn Fn(&str) + Sync),
) -> std::result::Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let trigger = serde_json::to_value(trigger).ok().and_then(|name| name.as_str().map(str::to_owned));
    let mut command = Command::new(program);
    command.args(typed).args(["job", "run", "--trigger"]).arg(trigger.unwrap_or_else(|| "hand".into())).arg(&job.name);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let stderr = child.stderr.take();
    std::thread::scope(|scope| {
        let heard = scope.spawn(|| stderr.map(|stderr| hear(stderr, tell)).unwrap_or_default());
        let status = wait(&mut child, stop)?;
        let why = heard.join().ok().flatten();
        match status.code() {
            Some(0 | HELD) => Ok(()),
            _ => Err(why.unwrap_or_else(|| format!("its process ended with {status}"))),
        }
    })
}

/// Tells what a process warns of, and gives why it failed.
fn hear(stderr: impl std::io::Read, tell: &(dyn Fn(&str) + Sync)) -> Option<String> {
    let mut why = None;
    for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
        let value: Value = serde_json::from_str(&line).unwrap_or_default();
        let message = value["message"].as_str().map(str::to_owned).unwrap_or(line);
        match value["message_type"].as_str() {
            // The service says what came of a run.
            Some("exit_error") => why = Some(message),
            _ => tell(&message),
        }
    }
    why
}

/// Waits for a process; asks it to stop when it is asked.
fn wait(child: &mut Child, stop: &Stop) -> std::result::Result<ExitStatus, String> {
    let mut asked = false;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
        if stop.wait(LOOK) {
            if !asked {
                asked = true;
                let _ = kill_process(Pid::from_child(child), rustix::process::Signal::TERM);
            }
            std::thread::sleep(LOOK);
        }
    }
}
