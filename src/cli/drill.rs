//! `drill`: is a snapshot restored, and how long does it take?

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::app::App;
use super::args::SnapshotArgs;
use super::choose::Chosen;
use super::drill_args::DrillArgs;
use super::fail::{Fail, Result, usage};
use super::time::rfc3339;
use super::{audited, choose, json as objects, place, text};
use crate::drill::command::{Check, Checked};
use crate::drill::{Options, Report, Told, Wrong, run as drill};
use crate::error::{Error, Kind};
use crate::monitor::Severity;
use crate::path::{TreePath, display_bytes};
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::drills::Outcome;
use crate::repo::snapshots::{BEFORE_RESTORE, SnapshotInfo};

/// Differences that are named.
const NAMED_MAX: u64 = 1000;

/// Longest line of the check command's output that is shown as one.
const LINE_BYTES_MAX: usize = 4096;

pub(super) fn run(app: &App, args: &DrillArgs) -> Result<()> {
    let began = app.world.monotonic();
    if args.check.as_ref().is_some_and(|command| command.as_bytes().contains(&0)) {
        return Err(usage("the check command has a NUL in it").into());
    }
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let chosen = choose_one(app, &reader, args)?;
    audited::note(app, &repository, "drill_begun", audited::of(&chosen))?;
    let Chosen { info, path } = chosen;
    let base = path.unwrap_or_else(TreePath::root);
    let target = match &args.target {
        Some(target) => app.path(target),
        None => app.path(&app.var("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)),
    };
    let options = Options {
        target,
        keep: args.keep,
        check: args.check.clone().map(|command| Check {
            command,
            env: app.env_of_commands().map(|(name, value)| (name.clone(), value.clone())).collect(),
            timeout: Duration::from_secs(args.check_timeout),
        }),
        max_duration: args.rto.map(Duration::from_secs),
        began,
        threads: app.threads().max(repository.storage.connections()),
        spill: repository.cache_directory().map_or_else(std::env::temp_dir, std::path::Path::to_owned),
    };
    let mut telling = Telling { app, named: 0, line: Vec::new(), failed: None };
    let work = app.work("drill");
    let done = drill(&reader, &app.world, &info, &base, &options, work.monitor(), &mut |told| telling.tell(&told));
    drop(work);
    telling.end();
    if let Some(fail) = telling.failed {
        return Err(fail);
    }
    let report = done?;
    let recorded = !args.no_record && record(app, &repository, &report, &info, &base);
    if app.global.json {
        app.out.json(&summary(app, args, &report, &info, &base, recorded))?;
    } else {
        show(app, args, &report, &info, &base)?;
    }
    end(app, report, &info, args)
}

/// The snapshot that was meant, or any one of those that may be.
fn choose_one(app: &App, reader: &Reader<'_>, args: &DrillArgs) -> Result<Chosen> {
    let typed = args.snapshot.as_deref().map(OsStr::as_bytes).unwrap_or_default();
    let (id, path) = match typed.iter().position(|&b| b == b':') {
        Some(colon) => (&typed[..colon], Some(&typed[colon + 1..])),
        None => (typed, None),
    };
    if !args.random {
        let typed = if id.is_empty() { [b"latest", typed].concat() } else { typed.to_vec() };
        let snapshot = OsStr::from_bytes(&typed).to_owned();
        let wanted = SnapshotArgs { snapshot, at: args.at.clone(), filter: args.filter.clone() };
        return choose::snapshot(app, reader, &wanted);
    }
    if !id.is_empty() {
        return Err(usage("`--random` chooses a snapshot, and another is named").hint("name only `:PATH`").into());
    }
    let filter = choose::filter(app, &args.filter)?;
    let (mut all, unreadable) = reader.snapshots(&filter)?;
    for (session, error) in &unreadable {
        let message = format!("snapshot `{}` cannot be chosen: {}", session.short(), error.with_causes());
        app.console.remark(Severity::Warning, &message);
    }
    if !filter.tags.iter().any(|tag| tag == BEFORE_RESTORE) {
        all.retain(|info| !info.is_before_restore());
    }
    if all.is_empty() {
        let what = "no drill: there is no snapshot to choose from";
        return Err(Error::new(Kind::Failed, what).hint("to see what there is, run `esker snapshots`").into());
    }
    let any = u64::from_le_bytes(app.world.random::<8>()) % all.len() as u64;
    let info = all.swap_remove(usize::try_from(any).unwrap_or(0));
    Ok(Chosen { info, path: path.map(choose::in_snapshot).transpose()? })
}

/// Tells what is found, as it is found.
struct Telling<'a> {
    app: &'a App,
    named: u64,
    /// What the check command wrote and has not ended with a line break.
    line: Vec<u8>,
    failed: Option<Fail>,
}

impl Telling<'_> {
    fn tell(&mut self, told: &Told<'_>) -> Result<(), Error> {
        let done = match told {
            Told::Wrong(path, wrong) => self.wrong(path, wrong),
            Told::Output(bytes) => self.output(bytes),
        };
        done.map_err(|fail| {
            self.failed.get_or_insert(fail);
            Error::new(Kind::Failed, "what was found was not written")
        })
    }

    fn wrong(&mut self, path: &TreePath, wrong: &Wrong) -> Result<()> {
        self.named += 1;
        if self.named > NAMED_MAX {
            return Ok(());
        }
        let word = match wrong {
            Wrong::Missing => "missing",
            Wrong::Extra => "extra",
            Wrong::Type => "type",
            Wrong::Content => "content",
            Wrong::Attributes => "attributes",
            Wrong::Links => "links",
            Wrong::Unread(error) => {
                let message = format!("`{path}` is not compared: {}", error.with_causes());
                self.app.console.remark(Severity::Error, &message);
                return Ok(());
            }
        };
        if !self.app.global.json {
            return self.app.out.line(&format!("{word:<12}{path}"));
        }
        let mut line = objects::message("difference", json!({ "path": path.to_string(), "what": word }));
        if path.to_string().as_bytes() != path.as_bytes() {
            line["path_hex"] = crate::id::hex(path.as_bytes()).into();
        }
        self.app.out.json(&line)
    }

    /// Shows whole lines; programs get the end of the output with the summary.
    fn output(&mut self, bytes: &[u8]) -> Result<()> {
        if self.app.global.json {
            return Ok(());
        }
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() > LINE_BYTES_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        self.app.say(&format!("check: {}", display_bytes(line)))
    }

    fn end(&mut self) {
        if !self.line.is_empty()
            && let Err(fail) = self.flush()
        {
            self.failed.get_or_insert(fail);
        }
        if self.named > NAMED_MAX {
            let more = text::count(self.named - NAMED_MAX, "difference is", "differences are");
            self.app.console.remark(Severity::Warning, &format!("{more} not named"));
        }
    }
}

/// Writes it down; says so when that cannot be done.
fn record(app: &App, repository: &Repository, report: &Report, info: &SnapshotInfo, base: &TreePath) -> bool {
    match repository.note_drill(&report.note(info, base, &app.user, &app.host)) {
        Ok(()) => true,
        Err(error) => {
            let message = format!("the drill is not recorded in the repository: {}", error.with_causes());
            app.console.remark(Severity::Warning, &message);
            false
        }
    }
}

/// How a command ended, for people.
fn ending(check: &Checked) -> String {
    match (check.timed_out, check.exit, check.signal) {
        (true, ..) => "was ended since it took too long".into(),
        (_, Some(code), _) => format!("ended with exit status {code}"),
        (_, None, Some(signal)) => format!("was ended by signal {signal}"),
        (_, None, None) => "did not end".into(),
    }
}

fn named(info: &SnapshotInfo, base: &TreePath) -> String {
    match base.is_root() {
        true => info.id().short(),
        false => format!("{}:{base}", info.id().short()),
    }
}

fn show(app: &App, args: &DrillArgs, report: &Report, info: &SnapshotInfo, base: &TreePath) -> Result<()> {
    let verdict = text::outcome(report.outcome);
    let made = app.show_time(info.snapshot.time);
    app.say(&format!("drill of snapshot {} of {made}: {verdict}", named(info, base)))?;
    let mut table = text::Table::bare(&[text::Side::Left, text::Side::Left]);
    let mut row = |name: &str, value: String| table.row([format!("  {name}"), value]);
    let restored = &report.restored;
    let what = format!("{} in {}", text::bytes(restored.bytes_restored), text::count(restored.files, "file", "files"));
    row("restored", format!("{what}, in {}", text::duration(report.restore_time)));
    let differences = match report.found.differences() {
        0 => "all is as it was recorded".into(),
        some => text::count(some, "difference", "differences"),
    };
    row("compared", format!("{differences}, in {}", text::duration(report.verify_time)));
    match &report.check {
        Some(check) => row("check", format!("{}, in {}", ending(check), text::duration(report.check_time))),
        None if args.check.is_some() => row("check", "not run, since what was restored is not right".into()),
        None => {}
    }
    let most = args.rto.map(|most| format!(", of at most {}", text::duration(Duration::from_secs(most))));
    row("in all", format!("{}{}", text::duration(report.total_time), most.unwrap_or_default()));
    if report.found.devices > 0 {
        row("left out", text::count(report.found.devices, "device node", "device nodes"));
    }
    if !report.privileged {
        row("not tried", "owners, and what else only root can set".into());
    }
    if args.keep {
        row("kept in", text::plain(&report.place.display().to_string()));
    }
    app.say(&table.lines().join("\n"))
}

fn summary(
    app: &App,
    args: &DrillArgs,
    report: &Report,
    info: &SnapshotInfo,
    base: &TreePath,
    recorded: bool,
) -> Value {
    let restored = &report.restored;
    let check = args.check.as_ref().map(|command| {
        let mut value = json!({ "command": command.to_string_lossy(), "run": report.check.is_some() });
        if let Some(check) = &report.check {
            value["passed"] = check.passed().into();
            value["exit_code"] = check.exit.into();
            value["signal"] = check.signal.into();
            value["timed_out"] = check.timed_out.into();
            value["output"] = String::from_utf8_lossy(&check.output).into();
            value["output_cut"] = check.output_cut.into();
            value["seconds"] = report.check_time.as_secs_f64().into();
        }
        value
    });
    objects::message(
        "summary",
        json!({
            "snapshot_id": info.id().to_string(),
            "snapshot_time": rfc3339(info.snapshot.time, &app.time_zone),
            "path": base.to_string(),
            "result": report.outcome.name(),
            "passed": report.outcome == Outcome::Passed,
            "files_restored": restored.files,
            "directories_restored": restored.directories,
            "others_restored": restored.others,
            "hard_links_restored": restored.hard_links,
            "bytes_restored": restored.bytes_restored,
            "files_damaged": restored.damaged_count,
            "directories_damaged": restored.directories_damaged,
            "num_errors": restored.problems,
            "missing": report.found.missing,
            "different": report.found.different,
            "attributes_different": report.found.attributes,
            "unread": report.found.unread + report.found.damaged,
            "devices_left_out": report.found.devices,
            "owners_tried": report.privileged,
            "seconds_restore": report.restore_time.as_secs_f64(),
            "seconds_verify": report.verify_time.as_secs_f64(),
            "seconds_check": report.check.is_some().then_some(report.check_time.as_secs_f64()),
            "seconds_total": report.total_time.as_secs_f64(),
            "seconds_max": args.rto,
            "check": check,
            "recorded": recorded,
            "kept": args.keep.then(|| report.place.display().to_string()),
        }),
    )
}

/// Whether it passed, as an exit code.
fn end(app: &App, report: Report, info: &SnapshotInfo, args: &DrillArgs) -> Result<()> {
    let id = info.id().short();
    let failed = |what: String| Error::new(Kind::Failed, what);
    let ended = match report.outcome {
        Outcome::Passed => Ok(()),
        Outcome::Damaged => {
            let what = format!("snapshot `{id}` cannot be restored in full: its data is missing or damaged");
            let hint = format!("to see every affected file, run `esker check --read-data {id}`");
            Err(Fail::Code(4, Error::new(Kind::Damaged, what).hint(hint)))
        }
        Outcome::Different => {
            let differences = text::count(report.found.differences(), "difference", "differences");
            let what = format!("what was restored of snapshot `{id}` is not what was recorded: {differences}");
            Err(Fail::Code(4, failed(what).hint("to look at it, run the drill again with `--keep`")))
        }
        Outcome::CheckFailed => {
            let how = report.check.as_ref().map(ending).unwrap_or_default();
            let what = format!("snapshot `{id}` was restored as it was recorded, and the check command {how}");
            Err(Fail::Code(4, failed(what).hint("to look at it, run the drill again with `--keep`")))
        }
        Outcome::TooSlow => {
            let most = text::duration(Duration::from_secs(args.rto.unwrap_or_default()));
            let took = text::duration(report.total_time);
            Err(Fail::Code(4, failed(format!("the drill of snapshot `{id}` took {took}, and may take {most}"))))
        }
        Outcome::Incomplete => {
            let count = report.restored.problems + report.found.unread;
            let what = text::count(count, "file or attribute", "files and attributes");
            let what = format!("snapshot `{id}` was not tried in full: {what} could not be restored here; see above");
            Err(Fail::Code(5, failed(what)))
        }
    };
    match report.not_removed {
        Some(error) if ended.is_ok() => Err(Fail::Code(5, error)),
        Some(error) => {
            app.console.remark(Severity::Warning, &error.with_causes());
            ended
        }
        None => ended,
    }
}
