//! `repair snapshots`: snapshots of what is whole of those that lack something.

use serde_json::json;

use super::app::App;
use super::fail::Result;
use super::remake_args::RepairSnapshotsArgs;
use super::{choose, json as objects, place, text};
use crate::format::access::Role;
use crate::repair::snapshots::{Became, Options, Repair, Report};
use crate::repo::content::Reader;
use crate::repo::keys::not_an_owner;
use crate::repo::snapshots::{Filter, SnapshotInfo};

/// Paths named for one snapshot unless all are asked for.
const NAMED_MAX: u64 = 100;

pub(super) fn run(app: &App, args: &RepairSnapshotsArgs) -> Result<()> {
    let filter = choose::filter(app, &args.filter)?;
    let repository = place::repository(app)?;
    if repository.keys.role != Role::Owner {
        return Err(not_an_owner().into());
    }
    let reader = Reader::without_cache(&repository)?;
    app.tell_faults(&reader);
    let chosen = choose::several(&reader, &args.snapshots, &filter, "nothing was repaired")?;
    let (there, _) = reader.snapshots(&Filter::default())?;
    let window = i64::try_from(args.undelete_window).unwrap_or(i64::MAX);
    let options = Options { forget: args.forget.then_some(window), dry_run: args.dry_run };
    let mut repair = Repair::new(&reader, args.read_data)?;
    let mut repaired = 0;
    for info in &chosen {
        let work = app.work("repair");
        let mut named = 0_u64;
        let report = repair.run(info, &there, &options, work.monitor(), &mut |path, error| {
            named += 1;
            if app.global.json {
                let lost = json!({
                    "message_type": "error",
                    "snapshot_id": info.id().to_string(),
                    "path": path.to_string(),
                    "error": { "message": error.with_causes() },
                });
                app.console.print_json(&lost);
            } else if named <= NAMED_MAX || app.verbose() {
                let why = text::plain(&error.innermost());
                app.console.print(&format!("lost: {}:{path}: {why}", info.id().short()));
            }
        });
        drop(work);
        let report = report?;
        if !app.global.json && report.lost > NAMED_MAX && !app.verbose() {
            let more = text::count(report.lost - NAMED_MAX, "path", "paths");
            app.console.print(&format!("lost: {more} more; add -v to see all"));
        }
        repaired += u64::from(report.became != Became::Whole);
        tell(app, info, &report)?;
    }
    if app.global.json {
        let totals = json!({ "repaired_snapshots": repaired, "snapshots": chosen.len(), "dry_run": args.dry_run });
        return app.out.json(&objects::message("summary", totals));
    }
    let count = text::count(repaired, "snapshot", "snapshots");
    app.say(&match (repaired, args.dry_run) {
        (0, _) => format!("nothing to repair: {} whole", text::count(chosen.len() as u64, "snapshot is", "snapshots are")),
        (_, true) => format!("{count} would be repaired"),
        (_, false) if !args.forget => format!(
            "{count} repaired; the damaged ones stay, and no garbage is collected until they are forgotten: see --forget"
        ),
        (_, false) => format!("{count} repaired, and the damaged ones forgotten"),
    })
}

fn tell(app: &App, info: &SnapshotInfo, report: &Report) -> Result<()> {
    let old = info.id();
    let gone = &report.trimmed.gone;
    let made = match report.became {
        Became::Made(id) | Became::MadeBefore(id) => Some(id),
        _ => None,
    };
    if app.global.json {
        let kind = if report.became == Became::Whole { "unchanged" } else { "changed" };
        return app.out.json(&objects::message(
            kind,
            json!({
                "old_snapshot_id": old.to_string(),
                "new_snapshot_id": made.map(|id| id.to_string()),
                "paths_lost": report.lost,
                "files_removed": gone.files,
                "dirs_removed": gone.directories,
                "bytes_removed": gone.bytes,
            }),
        ));
    }
    let without = format!("without {}, {}", text::count(gone.files, "file", "files"), text::bytes(gone.bytes));
    let old = old.short();
    match report.became {
        Became::Whole if app.verbose() => app.say(&format!("snapshot {old} is whole")),
        Became::Whole => Ok(()),
        Became::WouldChange => app.say(&format!("of snapshot {old} one would be made {without}")),
        Became::Made(id) => app.say(&format!("of snapshot {old} is made {} {without}", id.short())),
        Became::MadeBefore(id) => app.say(&format!("of snapshot {old} was made {} before", id.short())),
        Became::NothingLeft => app.say(&format!("of snapshot {old} nothing is left")),
    }
}
