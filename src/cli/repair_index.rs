//! `repair index`: an index of packs that no segment names any more.

use serde_json::json;

use super::app::App;
use super::fail::Result;
use super::{json as objects, place, text};
use crate::error::{Error, Kind};
use crate::repair::index::{Options, Report, run as rebuild};

pub(super) fn run(app: &App, read_packs: bool, dry_run: bool) -> Result<()> {
    let repository = place::repository(app)?;
    let work = app.work("repair");
    let report = rebuild(&repository, &Options { read_packs, dry_run }, work.monitor());
    drop(work);
    let report = report?;
    tell(app, &report, dry_run)?;
    let Some((object, why)) = report.refused.first() else { return Ok(()) };
    let others = match report.refused.len() {
        1 => String::new(),
        many => format!(" and {} more", many - 1),
    };
    let what = format!("not all of the index was repaired: `{object}`{others} cannot be believed");
    let hint = "if there is a copy of the repository, put the packs back from there";
    Err(Error::new(Kind::Failed, what).because(why.clone()).hint(hint).into())
}

fn tell(app: &App, report: &Report, dry_run: bool) -> Result<()> {
    if app.global.json {
        for (object, why) in &report.refused {
            let refused = json!({ "message_type": "error", "object": object, "error": { "message": why } });
            app.console.print_json(&refused);
        }
        for (session, saved) in &report.lost {
            app.out.json(&objects::message(
                "lost_session",
                json!({
                    "session": session.to_string(),
                    "packs": saved.packs,
                    "chunks_saved": saved.chunks,
                    "snapshot_id": saved.snapshot.map(|id| id.to_string()),
                    "left": saved.left,
                }),
            ))?;
        }
        return app.out.json(&objects::message(
            "summary",
            json!({
                "packs_added": report.packs_added,
                "packs_read": report.packs_read,
                "chunks_saved": report.chunks_saved,
                "packs_refused": report.refused.len(),
                "segments_replaced": report.segments_replaced.len(),
                "lost_sessions": report.lost.len(),
                "dry_run": dry_run,
            }),
        ));
    }
    for (object, why) in &report.refused {
        app.console.print(&format!("refused: {}: {}", text::plain(object), text::plain(why)));
    }
    for (session, saved) in &report.lost {
        let (packs, chunks) = (text::count(saved.packs, "pack", "packs"), text::count(saved.chunks, "chunk", "chunks"));
        let stored = if dry_run { String::new() } else { format!("; {chunks} stored anew") };
        app.say(&format!("session {} is known from {packs} alone{stored}", session.short()))?;
        match (saved.snapshot, &saved.left) {
            (Some(id), _) => app.say(&format!("  its snapshot is back as {}", id.short()))?,
            (None, Some(left)) => app.say(&format!("  {}", text::plain(left)))?,
            (None, None) => {}
        }
    }
    let packs = text::count(report.packs_added, "pack", "packs");
    let would = if dry_run { " would be" } else { "" };
    if report.is_idle() {
        return app.say(if report.refused.is_empty() {
            "nothing to repair: the index names every pack of every snapshot"
        } else {
            "nothing could be repaired"
        });
    }
    app.say(&format!("{packs}{would} added to the index, {} of all read whole", text::number(report.packs_read)))?;
    match report.segments_replaced.len() as u64 {
        0 => Ok(()),
        lost => app.say(&format!("{}{would} replaced", text::count(lost, "lost segment", "lost segments"))),
    }
}
