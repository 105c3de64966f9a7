//! `audit`: what happened, who did it, and whether anything was taken out of that.

use std::time::Duration;

use serde_json::{Value, json};

use super::app::App;
use super::args::{AuditArgs, AuditVerb};
use super::fail::{Fail, Result};
use super::json as objects;
use super::time::{DayEnd, rfc3339};
use super::{audited, choose, place, text};
use crate::error::{Error, Kind};
use crate::format::session::CommitKind;
use crate::id::CredentialId;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::drills::{DRILL, Drill};
use crate::repo::history::{Event, What};
use crate::world::Time;

pub(super) fn run(app: &App, args: &AuditArgs) -> Result<()> {
    let since = choose::moment(app, "--after", args.since.as_ref(), DayEnd::First)?;
    let before = choose::moment(app, "--before", args.before.as_ref(), DayEnd::Last)?;
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let wanted = |event: &Event| {
        since.is_none_or(|since| event.time_secs >= since.secs)
            && before.is_none_or(|before| event.time_secs <= before.secs)
            && (args.action.is_empty() || args.action.iter().any(|action| action == about(&event.what).0))
    };
    match args.verb {
        None => list(app, &repository, &reader, wanted),
        Some(AuditVerb::Verify) => verify(app, &repository, &reader),
    }
}

fn list(app: &App, repository: &Repository, reader: &Reader<'_>, wanted: impl Fn(&Event) -> bool) -> Result<()> {
    let events = repository.history(reader)?;
    for event in events.iter().filter(|event| wanted(event)) {
        let time = Time::from_secs(event.time_secs);
        if app.global.json {
            let mut object = json!({
                "time": rfc3339(time, &app.time_zone),
                "credential": event.by.to_string(),
                "label": label(repository, &event.by),
                "object": event.object,
            });
            let (action, about) = about(&event.what);
            object["action"] = action.into();
            object["about"] = about;
            object["hash"] = event.hash.to_string().into();
            object["previous"] = event.previous.iter().map(ToString::to_string).collect::<Vec<_>>().into();
            app.out.json(&objects::message("event", object))?;
        } else {
            let by = match label(repository, &event.by) {
                label if label.is_empty() => event.by.short(),
                label => format!("{} {}", event.by.short(), text::plain(&label)),
            };
            app.out.line(&format!("{}  {by}: {}", app.show_time(time), sentence(app, event)))?;
        }
    }
    Ok(())
}

fn label(repository: &Repository, id: &CredentialId) -> String {
    repository.access.member(id).map(|member| repository.keys.open_label(&member.label)).unwrap_or_default()
}

/// An action's name for programs, and what it was done to.
fn about(what: &What) -> (&str, Value) {
    match what {
        What::CredentialAdded(id, role) => ("key_added", json!({ "id": id.to_string(), "role": role.name() })),
        What::CredentialRemoved(id) => ("key_removed", json!({ "id": id.to_string() })),
        What::PasswordAdded(id, slot) => ("password_added", json!({ "id": id.to_string(), "slot": slot.to_string() })),
        What::PasswordRemoved(slot) => ("password_removed", json!({ "slot": slot.to_string() })),
        What::Rotated(epoch) => ("rotated", json!({ "epoch": epoch.to_string() })),
        What::Committed(session, CommitKind::Snapshot) => ("snapshot_made", json!({ "id": session.to_string() })),
        What::Committed(session, CommitKind::Checkpoint) => ("checkpoint_made", json!({ "id": session.to_string() })),
        What::Committed(session, CommitKind::Maintenance) => ("maintained", json!({ "id": session.to_string() })),
        What::Forgotten(session, until) => {
            ("snapshot_forgotten", json!({ "id": session.to_string(), "undelete_until": until }))
        }
        What::Verified(packs) => ("verified", json!({ "packs": packs })),
        What::Damaged(pack, chunks) => ("damage_found", json!({ "pack": pack.to_string(), "chunks": chunks })),
        What::Quarantined(session) => ("quarantined", json!({ "id": session.to_string() })),
        What::Collected(packs, sessions) => ("collected", json!({ "packs": packs, "sessions_closed": sessions })),
        What::Said(action, detail) => (action, object_in(detail).unwrap_or_else(|| json!({ "detail": detail }))),
    }
}

fn sentence(app: &App, event: &Event) -> String {
    match &event.what {
        What::CredentialAdded(id, role) => format!("added {} {}", role.name(), id.short()),
        What::CredentialRemoved(id) => format!("removed key {}", id.short()),
        What::PasswordAdded(id, slot) => format!("gave key {} the password {}", id.short(), slot.short()),
        What::PasswordRemoved(slot) => format!("took away the password {}", slot.short()),
        What::Rotated(epoch) => format!("gave everybody new keys, epoch {}", epoch.short()),
        What::Committed(session, CommitKind::Snapshot) => format!("made snapshot {}", session.short()),
        What::Committed(session, CommitKind::Checkpoint) => format!("made checkpoint {}", session.short()),
        What::Committed(session, CommitKind::Maintenance) => {
            format!("rewrote packs or index, session {}", session.short())
        }
        What::Forgotten(session, until) => {
            let until = app.show_time(Time::from_secs(*until));
            format!("forgot snapshot {}, to be undone until {until}", session.short())
        }
        What::Verified(packs) => format!("read {} whole", text::count(*packs, "pack", "packs")),
        What::Damaged(pack, chunks) => {
            format!("found {} of pack {} damaged", text::count(*chunks, "chunk", "chunks"), pack.short())
        }
        What::Quarantined(session) => format!("gave up what is missing of snapshot {}", session.short()),
        What::Collected(packs, sessions) => {
            let sessions = match sessions {
                0 => String::new(),
                some => format!(" and gave up {}", text::count(*some, "backup", "backups")),
            };
            format!("deleted {}{sessions}", text::count(*packs, "pack", "packs"))
        }
        What::Said(action, detail) => said(action, detail),
    }
}

/// What a note says, if that is for programs.
fn object_in(detail: &str) -> Option<Value> {
    serde_json::from_str(detail).ok().filter(Value::is_object)
}

fn said(action: &str, detail: &str) -> String {
    if action == DRILL
        && let Some(drill) = Drill::from_detail(detail)
    {
        let path = drill.path.as_deref().map(|path| format!(":{}", text::plain(path))).unwrap_or_default();
        let took = text::duration(Duration::from_millis(drill.total_ms));
        let (id, outcome) = (drill.snapshot.short(), text::outcome(drill.result));
        let (user, host) = (text::plain(&drill.user), text::plain(&drill.host));
        return format!("drill of snapshot {id}{path}: {outcome}, in {took}, as {user} on {host}");
    }
    let sentence = object_in(detail).and_then(|object| audited::sentence(action, &object));
    sentence.unwrap_or_else(|| format!("{}: {}", text::plain(action), text::plain(detail)))
}

fn verify(app: &App, repository: &Repository, reader: &Reader<'_>) -> Result<()> {
    let events = repository.history(reader)?.len();
    let gaps = repository.gaps(reader);
    let unread = reader.faults().len();
    for gap in &gaps {
        if app.global.json {
            let object = json!({ "kind": gap.kind, "hash": gap.hash.to_string() });
            app.out.json(&objects::message("gap", object))?;
        } else {
            app.out.line(&format!("missing: the {} with hash {}, which later ones name", gap.kind, gap.hash))?;
        }
    }
    if app.global.json {
        let object = json!({ "events": events, "gaps": gaps.len(), "unreadable": unread });
        app.out.json(&objects::message("summary", object))?;
    }
    if gaps.is_empty() && unread == 0 {
        let whole = format!("{} in unbroken chains", text::count(events as u64, "event", "events"));
        return if app.global.json { Ok(()) } else { app.say(&whole) };
    }
    let what = match gaps.len() {
        0 => format!("the history is not whole: {} cannot be read", text::count(unread as u64, "record", "records")),
        gaps => format!("the history is not whole: {} missing", text::count(gaps as u64, "record is", "records are")),
    };
    Err(Fail::Code(4, Error::new(Kind::Damaged, what).hint("to see what that affects, run `esker check`")))
}
