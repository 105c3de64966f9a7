//! `job`: what is configured to be done, and doing it once.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::app::App;
use super::args::{JobArgs, JobVerb};
use super::config::Configured;
use super::fail::{Fail, Result, usage};
use super::runner::InProcess;
use super::text::{Side, Table};
use super::{text, time};
use crate::error::{Error, Kind};
use crate::monitor::Severity;
use crate::service::history::{History, Outcome, Run, Trigger};
#[cfg(feature = "service")]
use crate::service::moment::{Moment, Pings};
use crate::service::plan::{Job, Plan, When};
use crate::service::run::{Machine, millis, once};
use crate::service::runner::Stop;
use crate::service::shelf::Shelf;
use crate::world::Time;

pub(super) fn run(app: &App, args: &JobArgs) -> Result<()> {
    let configured = Arc::new(Configured::load(app)?);
    match &args.verb {
        JobVerb::List => list(app, &configured.plan),
        JobVerb::Run { names, follow, trigger } => run_jobs(app, &configured, names, *follow, *trigger),
    }
}

/// Where jobs are remembered.
pub(super) fn shelf(app: &App) -> Result<Shelf> {
    let none = || Error::new(Kind::Failed, "jobs need a state directory").hint("name one with `--state-dir DIR`");
    let state: PathBuf = app.local().state.ok_or_else(none)?;
    let failed = |error| {
        Error::new(Kind::Failed, format!("cannot use the state directory `{}`", state.display())).because(error)
    };
    Ok(Shelf::open(&state).map_err(failed)?)
}

/// A job that was named.
fn named<'p>(plan: &'p Plan, name: &str) -> Result<&'p Job> {
    if let Some(job) = plan.jobs.get(name) {
        return Ok(job);
    }
    let error = usage(format!("there is no job `{name}`"));
    let names: Vec<_> = plan.jobs.keys().map(|name| format!("`{name}`")).collect();
    Err(match names.is_empty() {
        true => error.hint("write one as `[jobs.NAME]` in the configuration"),
        false => error.hint(format!("there are {}", names.join(", "))),
    }
    .into())
}

/// `trigger` is what the service says that has this process run a job; it tells of that run itself.
fn run_jobs(
    app: &App,
    configured: &Arc<Configured>,
    names: &[String],
    follow: bool,
    trigger: Option<Trigger>,
) -> Result<()> {
    let plan = configured.plan.clone();
    let mut jobs = names.iter().map(|name| named(&plan, name)).collect::<Result<Vec<_>>>()?;
    let runner = InProcess::new(app, configured.clone());
    let (shelf, stop) = (shelf(app)?, Stop::default());
    let asked = stop.clone();
    app.when_interrupted(Box::new(move || asked.ask()));
    let env = app.env_of_commands().map(|(name, value)| (name.clone(), value.clone())).collect();
    let tell = |line: &str| app.console.remark(Severity::Warning, line);
    let machine = Machine { world: &app.world, runner: &runner, env: &env, tell: &tell };
    #[cfg(feature = "service")]
    let pings = trigger.is_none().then(|| Pings::new(&plan, &app.host, &app.world));
    let mut failed = None;
    let mut next = 0;
    while let Some(job) = jobs.get(next).copied() {
        next += 1;
        if let Some(nice) = job.nice {
            let now = rustix::process::getpriority_process(None).unwrap_or(0);
            if let Err(error) = rustix::process::nice(nice - now) {
                tell(&format!("{}: the niceness {nice} was refused: {error}", job.name));
            }
        }
        let unheld = |error| Error::new(Kind::Failed, format!("cannot hold job `{}`", job.name)).because(error);
        #[cfg(feature = "service")]
        let began = pings.iter().filter(|_| !shelf.is_running(&job.name)).map(|pings| pings.began(job)).next();
        let run = match once(&machine, &shelf, job, trigger.unwrap_or(Trigger::Hand), None, &stop).map_err(unheld)? {
            Some((run, _)) => run,
            None => return Err(Error::new(Kind::Refused, format!("job `{}` is being run already", job.name)).into()),
        };
        #[cfg(feature = "service")]
        pings.iter().zip(&began).for_each(|(pings, began)| pings.ended(job, began, &run));
        tell_run(app, job, &run)?;
        if run.outcome.is_success() && follow {
            jobs.extend(plan.jobs.values().filter(|other| other.when.after.as_deref() == Some(&job.name)));
        }
        if run.outcome != Outcome::Success && failed.is_none() {
            failed = Some((job, run));
        }
    }
    #[cfg(feature = "service")]
    Moment::load(plan.clone(), &shelf, &app.world, &app.host, &tell)?.tell(&app.host, &tell);
    #[cfg(feature = "service")]
    pings.into_iter().for_each(|pings| pings.finish(&tell));
    let Some((job, run)) = failed else { return Ok(()) };
    let code = if run.code == 0 { u8::from(!run.outcome.is_success()) } else { run.code };
    let why = run.message.unwrap_or_else(|| "see above".to_owned());
    let what = match run.outcome.is_success() {
        true => format!("job `{}` was done, but not in full: {why}", job.name),
        false => format!("job `{}` failed: {why}", job.name),
    };
    match code {
        0 => Ok(()),
        code => Err(Fail::Code(code, Error::new(Kind::Failed, what))),
    }
}

/// Whether each job keeps what it promised, and what is known of repositories now.
#[cfg(feature = "service")]
pub(super) fn status(app: &App) -> Result<()> {
    use crate::service::status;
    let configured = Arc::new(Configured::load(app)?);
    let tell = |line: &str| app.console.remark(Severity::Warning, line);
    let mut moment = Moment::load(configured.plan.clone(), &shelf(app)?, &app.world, &app.host, &tell)?;
    moment.look(&InProcess::new(app, configured));
    moment.with_facts(|facts| {
        match app.global.json {
            true => app.out.json(&status::status_json(facts))?,
            false => status::status_lines(facts).iter().try_for_each(|line| app.out.line(line))?,
        }
        let unsafe_jobs = status::standings(facts).iter().filter(|standing| !standing.is_safe()).count() as u64;
        match status::exit_code(facts) {
            0 => Ok(()),
            4 => Err(Fail::Code(
                4,
                Error::new(Kind::Damaged, "damage is known").hint("to see what it affects, run `esker check`"),
            )),
            code => {
                let jobs = text::count(unsafe_jobs, "job does", "jobs do");
                Err(Fail::Code(
                    code,
                    Error::new(Kind::Failed, format!("{jobs} not keep what was promised, said above")),
                ))
            }
        }
    })
}

#[cfg(not(feature = "service"))]
pub(super) fn status(_: &App) -> Result<()> {
    Err(usage("this program was built without the service").into())
}

fn tell_run(app: &App, job: &Job, run: &Run) -> Result<()> {
    if app.global.json {
        let mut line = json!({ "message_type": "job", "job": job.name });
        let run = serde_json::to_value(run).unwrap_or(Value::Null);
        if let (Some(line), Value::Object(run)) = (line.as_object_mut(), run) {
            line.extend(run.into_iter().map(|(key, value)| (key.replace('-', "_"), value)));
        }
        return app.out.json(&line);
    }
    let took = text::duration(std::time::Duration::from_secs_f64(run.seconds()));
    let snapshot = run.snapshot.as_ref().map(|id| format!(", snapshot {}", id.get(..8).unwrap_or(id)));
    let tries = if run.tries > 1 { format!(", {} tries", run.tries) } else { String::new() };
    app.say(&format!("{}: {} in {took}{}{tries}", job.name, run.outcome.name(), snapshot.unwrap_or_default()))
}

/// When a job runs, in words.
pub(super) fn when(when: &When) -> String {
    let mut parts = when.schedule.clone();
    parts.extend(when.watch.as_ref().map(|_| "on changes".to_owned()));
    parts.extend(when.after.as_ref().map(|after| format!("after {after}")));
    if parts.is_empty() { "by its RPO, or by hand".to_owned() } else { parts.join(", ") }
}

fn list(app: &App, plan: &Plan) -> Result<()> {
    let shelf = shelf(app)?;
    let now = millis(app.world.now());
    let loaded: Vec<(&Job, History)> = plan.jobs.values().map(|job| (job, shelf.load(&job.name, now).0)).collect();
    if app.global.json {
        let jobs = loaded.iter().map(|(job, history)| {
            let args: Vec<_> = job.args.iter().map(|arg| arg.to_string_lossy()).collect();
            json!({
                "job": job.name,
                "kind": job.kind.name(),
                "repository": job.repository,
                "target": job.target,
                "tier": job.tier,
                "when": { "schedule": job.when.schedule, "watch": job.when.watch.is_some(), "after": job.when.after },
                "args": args,
                "enabled": job.enabled,
                "running": shelf.is_running(&job.name),
                "last_run": history.last(),
                "last_success": history.last_success,
            })
        });
        return app.out.json(&jobs.collect::<Vec<_>>());
    }
    if loaded.is_empty() {
        return app.say("there are no jobs");
    }
    let columns = ["Job", "Does", "Repository", "When", "Last run", ""].map(|name| (name, Side::Left));
    let mut table = Table::new(&columns);
    for (job, history) in &loaded {
        let last = history.last().map(|run| time::show(Time::from_secs(run.began_ms / 1000), &app.time_zone));
        let outcome = history.last().map_or("", |run| run.outcome.name());
        let place = match &job.target {
            Some(target) => format!("{} -> {target}", job.repository),
            None => job.repository.clone(),
        };
        let when = if job.enabled { when(&job.when) } else { "not: it is off".to_owned() };
        let kind = job.args.first().map_or(OsStr::new(""), |verb| verb).to_string_lossy().into_owned();
        table.row([job.name.clone(), kind, place, when, last.unwrap_or_else(|| "never".into()), outcome.into()]);
    }
    table.lines().iter().try_for_each(|line| app.out.line(line))
}
