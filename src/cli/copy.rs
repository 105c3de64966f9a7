//! `copy`: snapshots into another repository, or a mirror of this one.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::app::App;
use super::copy_args::CopyArgs;
use super::fail::{Fail, Result, usage};
use super::text::{Side, Table};
use super::unlock::other_secret;
use super::{audited, choose, json as objects, place, text};
use crate::backup::{CHECKPOINT_BYTES, CHECKPOINT_SECS};
use crate::copy::{Done, Ids, Options, Plan, Report, mirror, plan, run as copy};
use crate::error::{Error, Kind};
use crate::repo::content::Reader;
use crate::repo::open::load_config;
use crate::repo::pack_writer::PackSettings;
use crate::repo::snapshots::SnapshotInfo;
use crate::storage::Storage;
use crate::storage::memory::Memory;

pub(super) fn run(app: &App, args: &CopyArgs) -> Result<()> {
    let named = args.to.to.as_deref().filter(|to| !to.is_empty()).or_else(|| app.var("ESKER_TO_REPOSITORY"));
    let none = || usage("nothing was copied: no target was named").hint("add `--to URL`, or set ESKER_TO_REPOSITORY");
    let to = named.ok_or_else(none)?;
    match args.mirror {
        true => run_mirror(app, args, to),
        false => run_copy(app, args, to),
    }
}

fn run_copy(app: &App, args: &CopyArgs, to: &OsStr) -> Result<()> {
    let filter = choose::filter(app, &args.filter)?;
    let storage = place::open_at(app, to, args.to.options())?;
    // Before a password is asked for: that both are there.
    load_config(&*storage).map_err(|error| match error.kind() {
        Kind::NoRepository => {
            let hint = format!(
                "to make one in which nothing is stored twice, run `esker init --like {}` with its place in `--repo`",
                shell_words::quote(
                    &app.global.repo.clone().unwrap_or_else(|| OsString::from("REPO")).to_string_lossy()
                )
            );
            error.hint(hint)
        }
        _ => error,
    })?;
    let from = place::repository(app)?;
    let secret = || other_secret(app, args.to.given(), "ESKER_TO_", "password of the target: ");
    let target = place::unlock_kept(app, to, storage, secret)?;
    let (source, there) = (Reader::new(&from)?, Reader::new(&target)?);
    app.tell_faults(&source);
    app.tell_faults(&there);
    let options = Options {
        filter,
        snapshots: args.snapshots.clone(),
        verify: args.verify,
        packs: PackSettings { level: args.compression, ..PackSettings::default() },
        threads: app.threads().max(from.storage.connections()),
        checkpoint_bytes: CHECKPOINT_BYTES,
        checkpoint_secs: CHECKPOINT_SECS,
    };
    let planned = plan(&source, &there, &options)?;
    tell_plan(app, &planned, args.dry_run)?;
    if args.dry_run {
        return Ok(());
    }
    let to = there.repo().storage.place();
    audited::note(app, &from, "copy", json!({ "to": audited::text_of(&to) }))?;
    let (ids, skipped) = (planned.ids, planned.there);
    let work = app.work("copy");
    let mut told = Ok(());
    let report = copy(&source, &there, planned, &options, work.monitor(), &mut |done| {
        if told.is_ok() {
            told = tell_done(app, done);
        }
        Ok(())
    });
    let took = work.elapsed();
    drop(work);
    told?;
    let report = report?;
    tell(app, &report, ids, skipped, took)?;
    if report.failed == 0 {
        return Ok(());
    }
    let failed = text::count(report.failed, "snapshot was", "snapshots were");
    let what = format!("{failed} not copied in full: what cannot be read is named above");
    Err(Error::new(Kind::Failed, what).hint("to see all damage of the source, run `esker check --read-data`").into())
}

fn tell_plan(app: &App, plan: &Plan, dry_run: bool) -> Result<()> {
    if app.global.json {
        return plan
            .wanted
            .iter()
            .filter(|_| dry_run)
            .try_for_each(|info| app.out.json(&objects::message("would_copy", objects::snapshot(app, info))));
    }
    let count = text::count(plan.wanted.len() as u64, "snapshot", "snapshots");
    let there = match plan.there {
        0 => String::new(),
        there => format!(", {} there already", text::number(there)),
    };
    app.say(&format!("{count} to copy{there}"))?;
    if !plan.wanted.is_empty() {
        app.say(match plan.ids {
            Ids::Same => {
                "the repositories are alike: chunks are copied as they are, and what is there is not copied again"
            }
            Ids::Other => {
                "the target has other ids: files are cut anew, and only what the target itself has is not stored again"
            }
        })?;
    }
    for info in plan.wanted.iter().filter(|_| dry_run) {
        app.say(&format!("  {}", described(app, info)))?;
    }
    Ok(())
}

fn described(app: &App, info: &SnapshotInfo) -> String {
    let snapshot = &info.snapshot;
    let paths: Vec<_> = snapshot.paths.iter().map(|path| crate::path::display_bytes(path)).collect();
    let time = app.show_time(snapshot.time);
    format!("{}  {time}  {}  {}", info.id().short(), text::plain(&snapshot.hostname), text::plain(&paths.join(" ")))
}

fn tell_done(app: &App, done: &Done) -> Result<()> {
    if app.global.json {
        let mut value = json!({
            "source_id": done.from.id().to_string(),
            "data_added": done.added_bytes,
            "data_added_packed": done.stored_bytes,
            "verified": done.verified,
            "damaged": done.damaged,
        });
        if let Some(made) = done.made {
            (value["id"], value["short_id"]) = (json!(made.to_string()), json!(made.short()));
        }
        return app.out.json(&objects::message(if done.made.is_some() { "copied" } else { "not_copied" }, value));
    }
    let from = done.from.id().short();
    let damaged = text::count(done.damaged, "file or directory", "files or directories");
    match (done.made, done.damaged) {
        (None, _) => app.say(&format!("snapshot {from} was not copied: {damaged} of it cannot be read")),
        (Some(made), 0) => {
            let verified = if done.verified { ", and read back" } else { "" };
            let added = text::bytes(done.added_bytes);
            app.say(&format!("snapshot {from} is copied as {}: {added} added{verified}", made.short()))
        }
        (Some(made), _) => app
            .say(&format!("snapshot {from} is copied as {}, and {damaged} of that cannot be read back", made.short())),
    }
}

fn tell(app: &App, report: &Report, ids: Ids, skipped: u64, took: Duration) -> Result<()> {
    if app.global.json {
        return app.out.json(&objects::message(
            "summary",
            json!({
                "snapshots_copied": report.copied,
                "snapshots_skipped": skipped,
                "snapshots_failed": report.failed,
                "chunk_ids": if ids == Ids::Same { "same" } else { "other" },
                "data_added": report.added_bytes,
                "data_added_packed": report.stored_bytes,
                "total_duration": took.as_secs_f64(),
            }),
        ));
    }
    if report.copied + report.failed == 0 {
        return Ok(());
    }
    app.say(&format!(
        "copied {} in {}: {} added ({} stored)",
        text::count(report.copied, "snapshot", "snapshots"),
        text::duration(took),
        text::bytes(report.added_bytes),
        text::bytes(report.stored_bytes)
    ))
}

fn run_mirror(app: &App, args: &CopyArgs, to: &OsStr) -> Result<()> {
    let source = place::open(app)?;
    load_config(&*source)?;
    let options = mirror::Options { delete: args.delete, max_delete_percent: args.max_delete, verify: args.verify };
    if args.dry_run {
        // Nothing is made, not even a directory.
        let target: Arc<dyn Storage> = match place::open_at(app, to, args.to.options()) {
            Err(Fail::Error(error)) if error.kind() == Kind::NoRepository => Arc::new(Memory::new()),
            reached => reached?,
        };
        return tell_mirror_plan(app, &mirror::plan(&*source, &*target, &options)?, &options, true);
    }
    let target = place::mirror_at(app, to, args.to.options())?;
    if source.place() == target.place() {
        return Err(usage("nothing was mirrored: source and target are one place").into());
    }
    if audited::wanted(app)? {
        // A mirror is made without a key; a note takes one.
        let about = json!({ "to": audited::text_of(&target.place()), "mirror": true });
        audited::note(app, &place::repository(app)?, "copy", about)?;
    }
    let work = app.work("mirror");
    let report = mirror::run(&*source, &*target, &options, work.monitor(), |_| Ok(()));
    let took = work.elapsed();
    drop(work);
    let report = report?;
    tell_mirror(app, &report, took)?;
    if report.damaged == 0 {
        return Ok(());
    }
    let damaged = text::count(report.damaged, "object is", "objects are");
    let what = format!("the mirror at `{}` is not whole: {damaged} damaged at the source", target.place());
    Err(Fail::Error(
        Error::new(Kind::Failed, what).hint("each is named above; to see what it affects, run `esker check`"),
    ))
}

fn tell_mirror_plan(app: &App, plan: &mirror::Plan, options: &mirror::Options, dry_run: bool) -> Result<()> {
    let sum = |objects: &[crate::storage::Listed]| -> (u64, u64) { (objects.len() as u64, mirror::bytes_of(objects)) };
    let (put, replace, there, delete) = (sum(&plan.put), sum(&plan.replace), sum(&plan.there), sum(&plan.delete));
    if app.global.json {
        let some = |(count, bytes): (u64, u64)| -> Value { json!({ "count": count, "bytes": bytes }) };
        return app.out.json(&objects::message(
            "plan",
            json!({
                "dry_run": dry_run,
                "to_copy": some(put),
                "to_replace": some(replace),
                "there": some(there),
                "to_delete": some(delete),
                "others": plan.others,
            }),
        ));
    }
    let shown = |(count, bytes)| format!("{} in {}", text::bytes(bytes), text::count(count, "object", "objects"));
    let mut table = Table::bare(&[Side::Left, Side::Left]);
    table.row(["  copy".into(), shown(put)]);
    if replace.0 > 0 {
        table.row(["  replace".into(), shown(replace)]);
    }
    table.row(["  there".into(), shown(there)]);
    if options.delete {
        table.row(["  delete".into(), shown(delete)]);
    }
    app.say("the mirror would")?;
    app.say(&table.lines().join("\n"))?;
    tell_others(app, plan.others)
}

fn tell_others(app: &App, others: u64) -> Result<()> {
    if others == 0 {
        return Ok(());
    }
    let others = text::count(others, "object at the mirror is", "objects at the mirror are");
    app.say(&format!("{others} not in the repository and left alone; to delete what is not there, add `--delete`"))
}

fn tell_mirror(app: &App, report: &mirror::Report, took: Duration) -> Result<()> {
    if app.global.json {
        return app.out.json(&objects::message(
            "summary",
            json!({
                "objects_copied": report.copied,
                "bytes_copied": report.copied_bytes,
                "objects_mended": report.mended,
                "objects_there": report.there,
                "objects_deleted": report.deleted,
                "bytes_deleted": report.deleted_bytes,
                "objects_others": report.others,
                "num_errors": report.damaged,
                "total_duration": took.as_secs_f64(),
            }),
        ));
    }
    let objects = text::count(report.copied, "object", "objects");
    let copied = text::bytes(report.copied_bytes);
    app.say(&format!(
        "mirrored {copied} in {objects} in {}, {} there already",
        text::duration(took),
        text::number(report.there)
    ))?;
    if report.mended > 0 {
        app.say(&format!(
            "{} put anew in the place of damaged ones",
            text::count(report.mended, "object was", "objects were")
        ))?;
    }
    if report.deleted > 0 {
        let deleted = text::count(report.deleted, "object", "objects");
        app.say(&format!("deleted {} in {deleted}", text::bytes(report.deleted_bytes)))?;
    }
    tell_others(app, report.others)
}
