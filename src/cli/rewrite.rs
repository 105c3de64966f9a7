//! `rewrite`: snapshots without some of what is in them.

use serde_json::json;

use super::app::App;
use super::fail::{Result, usage};
use super::remake_args::RewriteArgs;
use super::time::{DayEnd, parse};
use super::{choose, json as objects, place, reencrypt, text};
use crate::format::access::Role;
use crate::repo::content::Reader;
use crate::repo::keys::not_an_owner;
use crate::repo::snapshots::{Filter, SnapshotInfo};
use crate::rewrite::{Became, Options, Report, run as make_again};

pub(super) fn run(app: &App, args: &RewriteArgs) -> Result<()> {
    if args.reencrypt {
        return reencrypt::run(app, args.max_bytes, args.dry_run);
    }
    let exclude = choose::excludes(app, &args.excludes, "nothing was rewritten")?;
    if exclude.is_empty() && args.new_host.is_none() && args.new_time.is_none() {
        let hint = "say what to leave out with `--exclude`, or what to change with `--new-host` or `--new-time`; or `--reencrypt`";
        return Err(usage("nothing was rewritten: there is nothing to do").hint(hint).into());
    }
    let time = args.new_time.as_deref().map(|text| parse(text, app.world.now(), &app.time_zone, DayEnd::First));
    let time = time.transpose().map_err(|error| usage(format!("cannot use `--new-time`: {error}")))?;
    let window = i64::try_from(args.undelete_window).unwrap_or(i64::MAX);
    let options = Options {
        exclude,
        hostname: args.new_host.clone(),
        time,
        forget: args.forget.then_some(window),
        dry_run: args.dry_run,
    };
    let filter = choose::filter(app, &args.filter)?;
    let repository = place::repository(app)?;
    if repository.keys.role != Role::Owner {
        return Err(not_an_owner().into());
    }
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let chosen = choose::several(&reader, &args.snapshots, &filter, "nothing was rewritten")?;
    let (there, _) = reader.snapshots(&Filter::default())?;
    let mut changed = 0;
    for info in &chosen {
        let work = app.work("rewrite");
        let report = make_again(&reader, info, &there, &options, work.monitor());
        drop(work);
        let report = report?;
        changed += u64::from(report.became != Became::Unchanged);
        tell(app, info, &report)?;
    }
    if app.global.json {
        let totals = json!({ "changed_snapshots": changed, "snapshots": chosen.len(), "dry_run": args.dry_run });
        return app.out.json(&objects::message("summary", totals));
    }
    let snapshots = text::count(changed, "snapshot", "snapshots");
    app.say(&match (changed, args.dry_run) {
        (0, _) => "no snapshot has anything of that: all stay as they are".to_owned(),
        (_, true) => format!("{snapshots} would be rewritten"),
        (_, false) if !args.forget => format!(
            "{snapshots} rewritten; the old ones stay, with all that is in them, until they are forgotten: see --forget"
        ),
        (_, false) if window > 0 => {
            format!("{snapshots} rewritten; the old ones can be brought back with `esker undelete`")
        }
        (_, false) => format!(
            "{snapshots} rewritten; to erase what only the old ones have, run `esker prune --max-unused 0%` twice"
        ),
    })
}

fn tell(app: &App, info: &SnapshotInfo, report: &Report) -> Result<()> {
    let old = info.id();
    let gone = &report.trimmed.gone;
    let made = match report.became {
        Became::Made(id) | Became::MadeBefore(id) => Some(id),
        Became::Unchanged | Became::WouldChange => None,
    };
    if app.global.json {
        let kind = if report.became == Became::Unchanged { "unchanged" } else { "changed" };
        return app.out.json(&objects::message(
            kind,
            json!({
                "old_snapshot_id": old.to_string(),
                "new_snapshot_id": made.map(|id| id.to_string()),
                "files_removed": gone.files,
                "dirs_removed": gone.directories,
                "bytes_removed": gone.bytes,
            }),
        ));
    }
    let (files, directories) =
        (text::count(gone.files, "file", "files"), text::count(gone.directories, "directory", "directories"));
    let without = match (gone.files, gone.directories) {
        (0, 0) => String::new(),
        (_, 0) => format!(" without {files}, {}", text::bytes(gone.bytes)),
        _ => format!(" without {files} and {directories}, {}", text::bytes(gone.bytes)),
    };
    app.say(&match report.became {
        Became::Unchanged => format!("snapshot {} stays as it is", old.short()),
        Became::WouldChange => format!("snapshot {} would be made again{without}", old.short()),
        Became::Made(id) => format!("snapshot {} is made again as {}{without}", old.short(), id.short()),
        Became::MadeBefore(id) => format!("snapshot {} was made again before, as {}", old.short(), id.short()),
    })
}
