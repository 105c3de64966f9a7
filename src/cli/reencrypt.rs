//! `rewrite --reencrypt`: what is sealed under older keys is stored anew.

use serde_json::json;

use super::app::App;
use super::fail::Result;
use super::text::{Side, Table};
use super::{json as objects, place, text};
use crate::prune::reencrypt::{Amount, Options, Report, run as store_anew};
use crate::repo::pack_writer::PackSettings;

pub(super) fn run(app: &App, max_bytes: Option<u64>, dry_run: bool) -> Result<()> {
    let repository = place::repository(app)?;
    let options = Options {
        max_bytes: max_bytes.unwrap_or(u64::MAX),
        packs: PackSettings::default(),
        dry_run,
        threads: app.threads(),
    };
    let work = app.work("rewrite");
    let report = store_anew(&repository, &options, work.monitor());
    drop(work);
    tell(app, &report?, dry_run)
}

fn tell(app: &App, report: &Report, dry_run: bool) -> Result<()> {
    let left = report.left();
    if app.global.json {
        return app.out.json(&objects::message(
            "summary",
            json!({
                "dry_run": dry_run,
                "older_keys_bytes_before": report.before.bytes,
                "older_keys_bytes": left.bytes,
                "older_keys_packs": left.packs,
                "writers_bytes": report.unvouched.bytes,
                "bytes_moved": report.moved.bytes,
                "packs_moved": report.moved.packs,
                "bytes_written": report.bytes_written,
                "packs_to_delete": report.spent.packs,
                "bytes_to_delete": report.spent.bytes,
            }),
        ));
    }
    let amount = |of: &Amount| format!("{} in {}", text::bytes(of.bytes), text::count(of.packs, "pack", "packs"));
    if report.before.packs == 0 {
        app.say("nothing that snapshots need is under older keys alone")?;
    } else {
        app.say("under keys that are not the newest")?;
        let mut table = Table::bare(&[Side::Left, Side::Left]);
        table.row(["  before".into(), amount(&report.before)]);
        table.row([if dry_run { "  would go" } else { "  stored anew" }.into(), amount(&report.moved)]);
        table.row([if dry_run { "  would be left" } else { "  left" }.into(), amount(&left)]);
        app.say(&table.lines().join("\n"))?;
    }
    if report.unvouched.packs > 0 {
        app.say(&format!(
            "{}: only a writer's key answers for them; to have them moved too, run `esker check --read-data --attest` \
             before",
            amount(&report.unvouched)
        ))?;
    }
    match (report.spent.packs, dry_run) {
        (0, _) => Ok(()),
        (_, false) => app.say(&format!("{} can go: run `esker prune`", amount(&report.spent))),
        (_, true) => app.say(&format!("{} could go then, by `esker prune`", amount(&report.spent))),
    }
}
