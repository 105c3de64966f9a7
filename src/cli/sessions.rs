//! `sessions`: who is writing, who was, and what `prune` waits for.

use serde_json::{Value, json};

use super::app::App;
use super::args::SessionsArgs;
use super::fail::{Fail, Result};
use super::text::{Side, Table};
use super::time::rfc3339;
use super::{place, text};
use crate::error::{Error, Kind};
use crate::monitor::Severity;
use crate::sessions::{CollectionInfo, Options, Report, SessionInfo, State, Uploaded, run as look};
use crate::world::Time;

pub(super) fn run(app: &App, args: &SessionsArgs) -> Result<()> {
    let repository = place::repository(app)?;
    let report = look(&repository, Options { committed: args.all, packs: args.packs })?;
    for (object, error) in &report.faults {
        app.console.remark(Severity::Warning, &format!("`{object}` is not used: {error}"));
    }
    if app.global.json {
        let sessions = report.sessions.iter().map(|session| session_json(app, session));
        let collections = report.collections.iter().map(collection_json);
        app.out.json(&sessions.chain(collections).collect::<Vec<Value>>())?;
    } else {
        tell(app, args, &report)?;
    }
    if report.faults.is_empty() {
        return Ok(());
    }
    let objects = text::count(report.faults.len() as u64, "object", "objects");
    let what = format!("the list may not be complete: {objects} of the repository cannot be read");
    Err(Fail::Code(1, Error::new(Kind::Damaged, what).hint("to see what is damaged, run `esker check`")))
}

fn word(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::Lost => "lost",
        State::Void => "void",
        State::Committed => "committed",
    }
}

fn at(secs: i64) -> Time {
    Time { secs, nanos: 0 }
}

fn uploaded(uploaded: Uploaded) -> String {
    format!("{} in {}", text::bytes(uploaded.bytes), text::count(uploaded.packs, "pack", "packs"))
}

fn tell(app: &App, args: &SessionsArgs, report: &Report) -> Result<()> {
    if !report.sessions.is_empty() {
        let mut table = Table::new(&[
            ("ID", Side::Left),
            ("State", Side::Left),
            ("Announced", Side::Left),
            ("Last sign of life", Side::Left),
            ("By", Side::Left),
            ("Stored", Side::Left),
        ]);
        for session in &report.sessions {
            let time = |secs: Option<i64>| secs.map_or_else(|| "-".into(), |secs| app.show_time(at(secs)));
            let state = word(session.state);
            table.row([
                session.id.short(),
                if session.asked && session.state == State::Open { format!("{state}, asked") } else { state.into() },
                time(session.announced_secs),
                time(session.alive_secs),
                session.label.as_deref().map_or_else(|| "-".into(), text::plain),
                session.uploaded.map_or_else(|| "?".into(), uploaded),
            ]);
        }
        for line in table.lines() {
            app.out.line(&line)?;
        }
        app.out.line("")?;
    }
    for collection in &report.collections {
        let packs = text::count(collection.condemned as u64, "pack", "packs");
        let state = if collection.swept { "has swept and is not done" } else { "may delete" };
        app.out.line(&format!("collection {} {state}: {packs} condemned", collection.id.short()))?;
    }
    if let Some(nobodys) = report.nobodys.filter(|nobodys| nobodys.packs > 0) {
        app.out.line(&format!("{} of nobody: torn, or no packs", uploaded(nobodys)))?;
    }
    let of = |state: State| report.sessions.iter().filter(|session| session.state == state).count() as u64;
    let mut summary = format!(
        "{}, {} lost, {} void",
        text::count(of(State::Open), "open session", "open sessions"),
        of(State::Lost),
        of(State::Void)
    );
    if report.committed > 0 {
        let committed = text::count(report.committed, "that has", "that have");
        summary.push_str(&format!("; {committed} committed not shown"));
    }
    app.out.line(&summary)?;
    tell_what_to_do(app, args, report, of)
}

/// What keeps a collection waiting, and the command for it.
fn tell_what_to_do(app: &App, args: &SessionsArgs, report: &Report, of: impl Fn(State) -> u64) -> Result<()> {
    let mut hints = Vec::new();
    if of(State::Open) > 0 {
        hints.push(
            "`prune` waits for an open session until it commits or has been silent for --patience; \
             if nothing is running any more: esker prune --patience 0s",
        );
    }
    if of(State::Lost) > 0 {
        hints.push(
            "`prune` refuses beside a lost session, of which a snapshot may be lost; to find out: esker check; \
             to give it up: esker prune --close-lost-sessions",
        );
    }
    if of(State::Void) > 0 && args.packs {
        hints.push("what void sessions have stored goes with the next: esker prune");
    }
    if !report.collections.is_empty() {
        hints.push("a collection that was broken off is finished by the next: esker prune");
    }
    if !hints.is_empty() {
        app.say("")?;
    }
    hints.into_iter().try_for_each(|hint| app.say(hint))
}

fn session_json(app: &App, session: &SessionInfo) -> Value {
    let time = |secs: Option<i64>| secs.map(|secs| rfc3339(at(secs), &app.time_zone));
    let age = |secs: i64| app.world.now().secs.saturating_sub(secs);
    json!({
        "type": "session",
        "id": session.id.to_string(),
        "short_id": session.id.short(),
        "state": word(session.state),
        "announced": time(session.announced_secs),
        "age_secs": session.announced_secs.map(age),
        "alive": time(session.alive_secs),
        "credential": session.credential.map(|credential| credential.to_string()),
        "label": session.label,
        "asked": session.asked,
        "packs": session.uploaded.map(|uploaded| uploaded.packs),
        "bytes": session.uploaded.map(|uploaded| uploaded.bytes),
    })
}

fn collection_json(collection: &CollectionInfo) -> Value {
    json!({
        "type": "collection",
        "id": collection.id.to_string(),
        "short_id": collection.id.short(),
        "state": if collection.swept { "swept" } else { "condemned" },
        "packs": collection.condemned,
    })
}
