//! `parity add`: something to make damaged packs whole from.

use serde_json::json;

use super::app::App;
use super::fail::{Fail, Result};
use super::scrub_args::{ParityArgs, ParityVerb};
use super::{json as objects, place, text};
use crate::error::{Error, Kind};
use crate::repo::open::load_config;
use crate::repo::parity::{PARITY_PERCENT, add_missing};
use crate::repo::session::pack_name;

pub(super) fn run(app: &App, args: &ParityArgs) -> Result<()> {
    match args.verb {
        ParityVerb::Add { parity } => add(app, parity),
    }
}

fn add(app: &App, wanted: Option<u32>) -> Result<()> {
    let storage = place::open(app)?;
    let config = load_config(&*storage)?;
    let usual = if config.parity_percent == 0 { PARITY_PERCENT } else { config.parity_percent };
    let percent = wanted.unwrap_or(usual);
    let work = app.work("parity");
    let report = add_missing(&*storage, percent, app.threads(), work.monitor());
    let took = work.elapsed();
    drop(work);
    let report = report?;
    if app.global.json {
        app.out.json(&objects::message(
            "summary",
            json!({
                "packs": report.packs,
                "packs_added": report.added,
                "bytes_added": report.bytes,
                "packs_damaged": report.damaged.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "percent": percent,
                "total_duration": took.as_secs_f64(),
            }),
        ))?;
    } else {
        for pack in &report.damaged {
            app.console.print(&format!("damaged: {}: of it no parity is made", pack_name(pack)));
        }
        let added = text::count(report.added, "pack", "packs");
        let (bytes, all) = (text::bytes(report.bytes), text::count(report.packs, "pack", "packs"));
        app.say(&match report.added {
            0 if report.damaged.is_empty() => format!("nothing to add: {all}, each with parity"),
            _ => format!("added {bytes} of parity for {added} of {}, in {}", report.packs, text::duration(took)),
        })?;
    }
    if report.damaged.is_empty() {
        return Ok(());
    }
    let packs = text::count(report.damaged.len() as u64, "pack is", "packs are");
    let what = format!("{packs} damaged in the repository at `{}`; each is named above", storage.place());
    Err(Fail::Code(4, Error::new(Kind::Damaged, what).hint("run `esker scrub`")))
}
