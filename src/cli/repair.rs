//! `repair`: puts back what is lost or damaged, from what is there.

use std::path::Path;

use serde_json::json;

use super::app::App;
use super::args::{RepairArgs, RepairVerb};
use super::fail::Result;
use super::{place, text, unlock};
use crate::error::{Error, Kind};
use crate::monitor::Severity;
use crate::repo::kit::Kit;
use crate::repo::open::COPIES;
use crate::repo::repair::{Plan, Put, Source, plan, run as put_back};

pub(super) fn run(app: &App, args: &RepairArgs) -> Result<()> {
    match &args.verb {
        RepairVerb::Config { from, dry_run } => config(app, from.as_deref(), *dry_run),
        RepairVerb::Index { read_packs, dry_run } => super::repair_index::run(app, *read_packs, *dry_run),
        RepairVerb::Snapshots(args) => super::repair_snapshots::run(app, args),
    }
}

fn config(app: &App, from: Option<&Path>, dry_run: bool) -> Result<()> {
    let kit = match from {
        Some(path) => unlock::read_kit(&app.path(path))?,
        None => Kit::default(),
    };
    for fault in &kit.faults {
        app.console.remark(Severity::Warning, &format!("the recovery kit is used without what is damaged: {fault}"));
    }
    let storage = place::open(app)?;
    let plan = plan(&*storage, &kit, &app.local())?;
    app.tell_notices();
    if !dry_run {
        put_back(&*storage, &plan)?;
    }
    tell(app, &plan, dry_run)?;
    if plan.is_behind {
        let what = "access statements that this machine has seen are missing even so: the kit is older than they are";
        app.console.remark(Severity::Warning, what);
    }
    let Some((object, detail)) = plan.lost.first() else { return Ok(()) };
    let what = match plan.lost.len() {
        1 => format!("the repository at `{}` is not whole: `{object}` was not put back", storage.place()),
        many => format!(
            "the repository at `{}` is not whole: `{object}` and {} more were not put back",
            storage.place(),
            many - 1
        ),
    };
    let error = Error::new(Kind::Failed, what).because(detail.clone());
    Err(match from {
        Some(_) => error,
        None => error.hint("if you have a recovery kit, run `esker repair config --from KIT`"),
    }
    .into())
}

/// Where the bytes are from, for people and programs.
fn source_of(put: &Put) -> String {
    let original = put.name.strip_prefix(COPIES).unwrap_or(&put.name);
    match put.from {
        Source::Original => original.to_owned(),
        Source::Copy => format!("{COPIES}{original}"),
        Source::Kit => "recovery kit".to_owned(),
    }
}

fn tell(app: &App, plan: &Plan, dry_run: bool) -> Result<()> {
    if app.global.json {
        for put in &plan.puts {
            let (from, was) = (source_of(put), put.was.to_string());
            app.out.json(&json!({ "message_type": "repair", "object": put.name, "was": was, "from": from }))?;
        }
        return app.out.json(&json!({
            "message_type": "summary",
            "repaired": plan.puts.len(),
            "lost": plan.lost.iter().map(|(object, _)| object).collect::<Vec<_>>(),
            "dry_run": dry_run,
        }));
    }
    for put in &plan.puts {
        app.say(&format!("{} from {}: it was {}", put.name, source_of(put), put.was))?;
    }
    for (object, detail) in &plan.lost {
        app.console.print(&format!("lost: {}: {}", text::plain(object), text::plain(detail)));
    }
    let count = text::count(plan.puts.len() as u64, "object", "objects");
    app.say(&match (plan.puts.len(), dry_run) {
        (0, _) if plan.lost.is_empty() => {
            "nothing to repair: the configuration and both copies of all it needs are whole".to_owned()
        }
        (0, _) => "nothing could be repaired".to_owned(),
        (_, true) => format!("{count} would be put back"),
        (_, false) => format!("{count} put back"),
    })
}
