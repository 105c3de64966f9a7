//! One run of one job: its hooks, its tries, what came of it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::history::{History, Outcome, Run, Trigger};
use super::plan::{Job, Kind};
use super::runner::{Answer, Call, Runner, Stop};
use super::shelf::Shelf;
use crate::process;
use crate::world::{Time, World};

/// How long a hook may take when its job says nothing.
const HOOK_TIMEOUT: Duration = Duration::from_secs(3600);
/// The longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Milliseconds since 1970.
pub fn millis(time: Time) -> i64 {
    time.secs.saturating_mul(1000).saturating_add(i64::from(time.nanos / 1_000_000))
}

/// What a run takes from its process.
pub struct Machine<'a> {
    /// The clock.
    pub world: &'a World,
    /// Who runs the command line.
    pub runner: &'a dyn Runner,
    /// The environment of hooks.
    pub env: &'a BTreeMap<OsString, OsString>,
    /// Told what happens, a line each.
    pub tell: &'a (dyn Fn(&str) + Sync),
}

impl std::fmt::Debug for Machine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machine")
    }
}

impl Machine<'_> {
    fn now_ms(&self) -> i64 {
        millis(self.world.now())
    }

    /// Runs a job to its end: hooks and tries included.
    pub fn run(&self, job: &Job, trigger: Trigger, stop: &Stop) -> Run {
        let began_ms = self.now_ms();
        let mut run = Run {
            began_ms,
            ended_ms: began_ms,
            tried_ms: began_ms,
            outcome: Outcome::Failure,
            code: 1,
            trigger,
            tries: 0,
            message: None,
            snapshot: None,
            result: None,
            numbers: BTreeMap::new(),
        };
        let mut wait = job.retry_wait;
        loop {
            run.tries += 1;
            run.tried_ms = self.now_ms();
            self.attempt(job, &mut run, stop);
            let more = run.outcome == Outcome::Failure && may_be_better(run.code) && run.tries <= job.retries;
            if !more || stop.is_asked() {
                break;
            }
            let why = run.message.as_deref().unwrap_or("no reason is known");
            (self.tell)(&format!("{}: try {} failed, again in {} s: {why}", job.name, run.tries, wait.as_secs()));
            if stop.wait(wait) {
                run.outcome = Outcome::Interrupted;
                break;
            }
            wait = (wait * 2).min(WAIT_MAX);
        }
        run.ended_ms = self.now_ms();
        let env = outcome_env(&run);
        self.hooks(job, "after", &job.hooks.after, &env, &mut run);
        if !run.outcome.is_success() && run.outcome != Outcome::Interrupted {
            self.hooks(job, "on-failure", &job.hooks.on_failure, &env, &mut run);
        }
        run
    }

    /// Hooks that change nothing about the outcome.
    fn hooks(&self, job: &Job, what: &str, hooks: &[Vec<OsString>], env: &[(&str, OsString)], run: &mut Run) {
        for hook in hooks {
            // Also after the service was asked to stop: what `before` did is undone.
            if let Err(why) = self.hook(job, hook, env, &Stop::default()) {
                let message = format!("the `{what}` command failed: {why}");
                (self.tell)(&format!("{}: {message}", job.name));
                if run.outcome == Outcome::Success {
                    run.outcome = Outcome::Warning;
                    run.message = Some(message);
                }
            }
        }
    }

    fn attempt(&self, job: &Job, run: &mut Run, stop: &Stop) {
        // What the try before left.
        (run.snapshot, run.result) = (None, None);
        run.numbers.clear();
        for hook in &job.hooks.before {
            if let Err(why) = self.hook(job, hook, &[], stop) {
                run.outcome = if stop.is_asked() { Outcome::Interrupted } else { Outcome::Failure };
                run.code = 1;
                run.message = Some(format!("the `before` command failed: {why}"));
                return;
            }
        }
        let call = Call { repository: job.repository.clone(), target: job.target.clone(), args: job.args.clone() };
        let (answer, late) = self.within(job.timeout, stop, |stop| self.runner.run(&call, stop));
        read_summary(job.kind, &answer, run);
        run.code = answer.code;
        run.outcome = match answer.code {
            0 => Outcome::Success,
            3 | 5 => Outcome::Warning,
            // A drill ends with that, too, when it was slow, or somebody's own check did not like what was restored.
            4 if run.result.as_deref().is_some_and(|result| result != "damaged") => Outcome::Failure,
            4 => Outcome::Damage,
            _ if late => Outcome::Timeout,
            130 => Outcome::Interrupted,
            _ => Outcome::Failure,
        };
        run.message = match (run.outcome, job.timeout) {
            (Outcome::Timeout, Some(most)) => {
                Some(format!("stopped after {} s, which is its `timeout`", most.as_secs()))
            }
            _ => answer
                .message
                .clone()
                .or_else(|| (run.outcome != Outcome::Success).then(|| answer.problems.first().cloned()).flatten()),
        };
    }

    /// Calls `work` with a stop that is asked for when so much time has passed; says whether it was.
    fn within<T>(&self, most: Option<Duration>, stop: &Stop, work: impl FnOnce(&Stop) -> T) -> (T, bool) {
        let Some(most) = most else { return (work(stop), false) };
        let (own, ended, late) = (stop.child(), Stop::default(), Arc::new(AtomicBool::new(false)));
        std::thread::scope(|scope| {
            let (watched, over, is_late) = (own.clone(), ended.clone(), late.clone());
            scope.spawn(move || {
                if !over.wait(most) {
                    is_late.store(true, Ordering::Relaxed);
                    watched.ask();
                }
            });
            let result = work(&own);
            ended.ask();
            (result, late.load(Ordering::Relaxed))
        })
    }

    fn hook(&self, job: &Job, words: &[OsString], env: &[(&str, OsString)], stop: &Stop) -> Result<(), String> {
        let Some((program, args)) = words.split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(self.env).stdin(Stdio::null());
        command.env("ESKER_JOB", &job.name).env("ESKER_REPOSITORY_NAME", &job.repository);
        command.envs(env.iter().map(|(name, value)| (OsStr::new(*name), value)));
        let most = job.timeout.unwrap_or(HOOK_TIMEOUT);
        let ended = process::run(command, most, &|| stop.is_asked(), &mut |_| {});
        let failed = |why: &dyn std::fmt::Display| Err(format!("`{}`: {why}", program.to_string_lossy()));
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => return failed(&error),
        };
        let said = String::from_utf8_lossy(&ended.output).split_whitespace().collect::<Vec<_>>().join(" ");
        let said = if said.is_empty() { said } else { format!(": {said}") };
        match ended.status {
            Some(status) if status.success() && !ended.timed_out => Ok(()),
            Some(status) if !ended.timed_out => failed(&format!("{status}{said}")),
            _ if ended.timed_out => {
                failed(&format!("stopped after {} s, which is all it may take{said}", most.as_secs()))
            }
            _ => failed(&format!("it was stopped{said}")),
        }
    }
}

/// Runs a job, if nobody else does, and remembers it: the run, and all that is remembered.
///
/// # Errors
///
/// When nobody can tell whether the job is being run.
pub fn once(
    machine: &Machine<'_>,
    shelf: &Shelf,
    job: &Job,
    trigger: Trigger,
    scheduled_ms: Option<i64>,
    stop: &Stop,
) -> io::Result<Option<(Run, History)>> {
    let Some(held) = shelf.hold(&job.name)? else { return Ok(None) };
    let (mut history, told) = shelf.begin(&job.name, machine.now_ms(), trigger, scheduled_ms);
    told.iter().for_each(|line| (machine.tell)(line));
    let run = machine.run(job, trigger, stop);
    history.add(run.clone());
    if let Err(error) = shelf.save(&job.name, &history) {
        (machine.tell)(&format!("that job `{}` ran is not remembered: {error}", job.name));
    }
    drop(held);
    Ok(Some((run, history)))
}

/// Whether another try may end better: not so for a wrong command line, a wrong key, a refusal, nor for what a drill
/// found.
fn may_be_better(code: u8) -> bool {
    !matches!(code, 2 | 4 | 6 | 12 | 13)
}

fn outcome_env(run: &Run) -> Vec<(&'static str, OsString)> {
    let text = |value: &Option<String>| OsString::from(value.as_deref().unwrap_or_default());
    vec![
        ("ESKER_OUTCOME", run.outcome.name().into()),
        ("ESKER_EXIT_CODE", run.code.to_string().into()),
        ("ESKER_SNAPSHOT", text(&run.snapshot)),
        ("ESKER_ERROR", text(&run.message)),
    ]
}

/// What the verb counted.
fn read_summary(kind: Kind, answer: &Answer, run: &mut Run) {
    let is_summary = |line: &&serde_json::Value| {
        let message = line.get("message_type").and_then(|value| value.as_str());
        matches!(message, Some("summary" | "drill"))
    };
    let Some(summary) = answer.lines.iter().rev().find(is_summary).and_then(|line| line.as_object()) else { return };
    let numbers = summary.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
    run.numbers = numbers.collect();
    if kind == Kind::Drill {
        run.result = summary.get("result").and_then(|result| result.as_str()).map(str::to_owned);
    }
    if kind == Kind::Backup {
        run.snapshot = summary.get("snapshot_id").and_then(|id| id.as_str()).map(str::to_owned);
    }
}
