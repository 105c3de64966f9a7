//! `check`: is everything there, and is it what it should be?

use serde_json::json;

use super::app::App;
use super::args::CheckArgs;
use super::fail::{Fail, Result, usage};
use super::{place, text};
use crate::check::{Fault, Options, ReadData, Report, run as look, run_naming};
use crate::error::{Error, Kind};
use crate::format::access::Role;
use crate::repo::content::Reader;
use crate::repo::keys::not_an_owner;
use crate::repo::snapshots::Filter;

pub(super) fn run(app: &App, args: &CheckArgs) -> Result<()> {
    check(app, args).map_err(|fail| match fail {
        // So damaged that it cannot even be opened or listed.
        Fail::Error(error) if error.kind() == Kind::Damaged => Fail::Code(4, error),
        other => other,
    })
}

fn check(app: &App, args: &CheckArgs) -> Result<()> {
    let repository = place::repository(app)?;
    let reader = Reader::without_cache(&repository)?;
    let snapshot = match &args.snapshot {
        Some(wanted) => Some(reader.find_snapshot(wanted, &Filter::default())?.id()),
        None => None,
    };
    let read_data = match args.read_data_subset {
        Some(subset) => subset,
        None if args.read_data => ReadData::All,
        None => ReadData::No,
    };
    if args.attest {
        if read_data == ReadData::No {
            let what = "nothing was attested: only what is read can be";
            return Err(usage(what).hint("add `--read-data` or `--read-data-subset`").into());
        }
        if repository.keys.role != Role::Owner {
            return Err(not_an_owner().into());
        }
    }
    let work = app.work("check");
    let threads = app.threads().max(repository.storage.connections());
    let options = Options { read_data, snapshot, threads };
    let report = match app.verbose() {
        true => run_naming(usize::MAX, &reader, &options, work.monitor()),
        false => look(&reader, &options, work.monitor()),
    };
    let took = work.elapsed();
    drop(work);
    let report = report?;
    for fault in &report.faults {
        tell_fault(app, fault)?;
    }
    if args.attest {
        repository.attest(&report.whole)?;
    }
    if app.global.json {
        app.out.json(&json!({
            "message_type": "summary",
            "num_errors": report.faults.len(),
            "snapshots": report.snapshots,
            "packs": report.packs,
            "packs_read": report.packs_read,
            "bytes_read": report.bytes_read,
            "packs_attested": if args.attest { report.whole.len() } else { 0 },
            "notes": report.notes,
        }))?;
    } else {
        tell(app, &report, read_data, took)?;
        if args.attest {
            let packs = text::count(report.whole.len() as u64, "pack", "packs");
            app.say(&format!("  attested  {packs} of writers, for every machine to reuse"))?;
        }
    }
    if report.faults.is_empty() {
        return Ok(());
    }
    let faults = text::count(report.faults.len() as u64, "object", "objects");
    let what = format!("the repository at `{}` is damaged: {faults}; each is named above", repository.storage.place());
    let mut error = Error::new(Kind::Damaged, what);
    let any =
        |names: &[&str]| report.faults.iter().any(|fault| names.iter().any(|name| fault.object.starts_with(name)));
    let copies = "to put back the configuration, slots and statements, run `esker repair config`";
    let index = "to put back the index of packs that are there, run `esker repair index`";
    let packs = "to put back damaged packs, or have the next backup store anew what is in them, run \
                 `esker scrub --repair`; to make snapshots of what is whole, run `esker repair snapshots`";
    let hints = [
        (&["config", "keys/", "access/", "copies/"][..], copies),
        (&["index/", "snapshots/", "commit "], index),
        (&["packs/", "chunk "], packs),
    ];
    let hints: Vec<_> = hints.into_iter().filter(|(names, _)| any(names)).map(|(_, hint)| hint).collect();
    if !hints.is_empty() {
        error = error.hint(hints.join("; "));
    }
    Err(Fail::Code(4, error))
}

pub(super) fn tell_fault(app: &App, fault: &Fault) -> Result<()> {
    if app.global.json {
        let affected: Vec<_> = (fault.affected.iter())
            .map(|one| json!({ "snapshot": one.snapshot.to_string(), "path": one.path.to_string() }))
            .collect();
        return app.out.json(&json!({
            "message_type": "error",
            "object": fault.object,
            "error": { "message": fault.message },
            "affected": affected,
            "affected_total": fault.affected_total,
        }));
    }
    // Results, but such that nobody wants them lost with a redirected stdout.
    let mut lines = vec![format!("damaged: {}: {}", text::plain(&fault.object), text::plain(&fault.message))];
    let affected = fault.affected.iter().map(|one| format!("  affects {}:{}", one.snapshot.short(), one.path));
    lines.extend(affected);
    let more = fault.affected_total.saturating_sub(fault.affected.len() as u64);
    if more > 0 {
        lines.push(format!("  and {} more; add -v to see all", text::count(more, "path", "paths")));
    }
    app.console.print(&lines.join("\n"));
    Ok(())
}

fn tell(app: &App, report: &Report, read_data: ReadData, took: std::time::Duration) -> Result<()> {
    for note in report.notes.iter().filter(|_| app.verbose()) {
        app.say(&format!("note: {}", text::plain(note)))?;
    }
    let found = match report.faults.len() {
        0 => "no damage found".to_owned(),
        faults => format!("{} damaged", text::count(faults as u64, "object", "objects")),
    };
    app.say(&format!(
        "checked {} in {}: {found}",
        text::count(report.snapshots, "snapshot", "snapshots"),
        text::duration(took)
    ))?;
    let mut table = text::Table::bare(&[text::Side::Left, text::Side::Left]);
    table.row(["  packs".into(), text::number(report.packs)]);
    table.row([
        "  read".into(),
        match read_data {
            ReadData::No => "structure only; add --read-data to read every stored byte".into(),
            _ => format!("{} in {}", text::bytes(report.bytes_read), text::count(report.packs_read, "pack", "packs")),
        },
    ]);
    if !report.notes.is_empty() && !app.verbose() {
        table.row(["  notes".into(), format!("{}; add -v to see them", report.notes.len())]);
    }
    app.say(&table.lines().join("\n"))
}
