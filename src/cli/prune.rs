//! `prune`: collect garbage.

use std::time::Duration;

use serde_json::json;

use super::app::App;
use super::fail::Result;
use super::retention_args::{CollectArgs, PruneArgs};
use super::text::{Side, Table};
use super::{json as objects, place, text};
use crate::prune::plan::{Limits, Plan};
use crate::prune::{Options, Report, plan, run as collect_garbage};
use crate::repo::Repository;
use crate::repo::pack_writer::PackSettings;

pub(super) fn run(app: &App, args: &PruneArgs) -> Result<()> {
    let repository = place::repository(app)?;
    collect(app, &repository, &args.collect, args.dry_run)
}

/// Collects garbage, or says what would be.
pub(super) fn collect(app: &App, repository: &Repository, args: &CollectArgs, dry_run: bool) -> Result<()> {
    let options = Options {
        limits: Limits {
            max_unused: args.max_unused,
            max_repack_bytes: args.max_repack_size.unwrap_or(u64::MAX),
            max_delete_percent: args.max_delete,
            ..Limits::default()
        },
        packs: PackSettings::default(),
        patience: Duration::from_secs(args.patience),
        ignore_clock: args.ignore_clock,
        close_lost: args.close_lost_sessions,
        fold_from: args.fold_from,
        threads: app.threads(),
    };
    let work = app.work("prune");
    if dry_run {
        let planned = plan(repository, &options, work.monitor());
        drop(work);
        return tell_plan(app, &planned?, true);
    }
    let mut told = Ok(());
    let report = collect_garbage(repository, &options, work.monitor(), |planned| {
        told = tell_plan(app, planned, false);
        Ok(())
    });
    let took = work.elapsed();
    drop(work);
    told?;
    tell(app, &report?, took)
}

fn tell_plan(app: &App, plan: &Plan, dry_run: bool) -> Result<()> {
    if app.global.json {
        return app.out.json(&objects::message(
            "plan",
            json!({
                "dry_run": dry_run,
                "packs_to_delete": plan.garbage.len(),
                "bytes_to_delete": plan.garbage_bytes,
                "packs_to_repack": plan.repack.len(),
                "packs_to_join": plan.joined,
                "bytes_to_rewrite": plan.repack_bytes,
                "bytes_freed": plan.frees_bytes(),
                "packs_kept": plan.kept,
                "bytes_kept": plan.kept_bytes,
                "bytes_unused": plan.unused_bytes,
                "snapshots": plan.snapshots,
                "snapshots_forgotten": plan.forgotten,
                "open_sessions": plan.open_sessions,
            }),
        ));
    }
    let packs = |count: usize| text::count(count as u64, "pack", "packs");
    let mut table = Table::bare(&[Side::Left, Side::Left]);
    let rewritten = plan.repack.len() - usize::try_from(plan.joined).unwrap_or(0);
    table.row(["  delete".into(), format!("{} in {}", text::bytes(plan.garbage_bytes), packs(plan.garbage.len()))]);
    table.row([
        "  rewrite".into(),
        format!(
            "{} of {}, which frees {}",
            text::bytes(plan.repack_bytes),
            packs(rewritten),
            text::bytes(plan.repack_frees_bytes)
        ),
    ]);
    if plan.joined > 0 {
        table.row(["  join".into(), text::count(plan.joined, "small pack", "small packs")]);
    }
    table.row([
        "  keep".into(),
        format!(
            "{} in {}, {} of it unused",
            text::bytes(plan.kept_bytes),
            text::count(plan.kept, "pack", "packs"),
            text::bytes(plan.unused_bytes)
        ),
    ]);
    app.say(if dry_run { "a collection would" } else { "collecting garbage" })?;
    app.say(&table.lines().join("\n"))?;
    if plan.forgotten > 0 {
        let forgotten = text::count(plan.forgotten, "forgotten snapshot keeps", "forgotten snapshots keep");
        app.say(&format!(
            "{forgotten} its data: a collection takes it once the time to undelete is over and an earlier one has seen it"
        ))?;
    }
    Ok(())
}

fn tell(app: &App, report: &Report, took: Duration) -> Result<()> {
    if app.global.json {
        return app.out.json(&objects::message(
            "summary",
            json!({
                "packs_deleted": report.packs_deleted,
                "bytes_deleted": report.bytes_deleted,
                "packs_repacked": report.packs_repacked,
                "bytes_written": report.bytes_written,
                "packs_spared": report.packs_spared,
                "sessions_closed": report.sessions_closed,
                "records_folded": report.folded.objects,
                "logs_written": report.folded.logs_written,
                "logs_deleted": report.folded.logs_deleted,
                "total_duration": took.as_secs_f64(),
            }),
        ));
    }
    let packs = text::count(report.packs_deleted, "pack", "packs");
    let freed = report.bytes_deleted.saturating_sub(report.bytes_written);
    app.say(&format!("deleted {packs} and freed {} in {}", text::bytes(freed), text::duration(took)))?;
    if report.packs_spared > 0 {
        let spared = text::count(report.packs_spared, "pack was", "packs were");
        app.say(&format!("{spared} spared: a backup has come to need them meanwhile"))?;
    }
    if report.folded.logs_written > 0 {
        let records = text::count(report.folded.objects, "record was", "records were");
        app.say(&format!("{records} put together in {}", text::count(report.folded.logs_written, "log", "logs")))?;
    }
    if report.sessions_closed > 0 {
        let closed =
            text::count(report.sessions_closed, "backup that never finished was", "backups that never finished were");
        app.say(&format!("{closed} given up: what they stored goes with the next collection"))?;
    }
    Ok(())
}
