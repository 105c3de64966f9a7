//! `--audit`: what is given out of a repository is written down in it first.
//!
//! Verbs that read write nothing, unless this is asked for; then nothing is given out that was not written down
//! and durable before. Who reads what is signed by the key it is read with.

use std::ffi::OsStr;

use serde_json::{Value, json};

use super::app::App;
use super::choose::Chosen;
use super::fail::{Result, usage};
use super::text;
use crate::error::{Error, Kind};
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::notes::cut;

/// Longest text that stands in a note in full, and who wrote it: in JSON a byte may become six.
const TEXT_BYTES_MAX: usize = 240;
const WHO_BYTES_MAX: usize = 64;

/// What is about to be read, as the note says it.
pub(super) fn of(chosen: &Chosen) -> Value {
    let mut about = json!({ "snapshot": chosen.info.id().to_string() });
    if let Some(path) = &chosen.path {
        about["path"] = path_of(path);
    }
    about
}

/// A path for a note.
pub(super) fn path_of(path: &TreePath) -> Value {
    text_of(&path.to_string())
}

/// A text for a note.
pub(super) fn text_of(text: &str) -> Value {
    cut(text, TEXT_BYTES_MAX).into()
}

/// Writes down, if that was asked for, what is about to be done. An error means that it must not be.
pub(super) fn note(app: &App, repository: &Repository, action: &str, about: Value) -> Result<()> {
    if !wanted(app)? {
        return Ok(());
    }
    let mut about = about;
    about["user"] = cut(&app.user, WHO_BYTES_MAX).into();
    about["host"] = cut(&app.host, WHO_BYTES_MAX).into();
    repository.note_audit(action, &about.to_string()).map_err(|error| {
        let what = format!("nothing was read: `{action}` cannot be written down in the repository first");
        let hint = "`--audit` takes a storage that can be written to; without it, leave out `--audit`";
        Error::new(Kind::Refused, what).because(error).hint(hint).into()
    })
}

/// Whether that was asked for.
pub(super) fn wanted(app: &App) -> Result<bool> {
    if app.global.audit {
        return Ok(true);
    }
    match app.var("ESKER_AUDIT").map(OsStr::as_encoded_bytes) {
        None | Some(b"0" | b"false" | b"no") => Ok(false),
        Some(b"1" | b"true" | b"yes") => Ok(true),
        // Who meant to be audited and mistyped it must not go on unaudited.
        Some(_) => Err(usage("ESKER_AUDIT is neither 1 nor 0").into()),
    }
}

/// A note of something that was read, or of a drill, for people. `None` for other notes.
pub(super) fn sentence(action: &str, detail: &Value) -> Option<String> {
    let text_at = |key: &str| detail[key].as_str().map(text::plain);
    let short = |key: &str| text_at(key).map(|id| id.chars().take(8).collect::<String>());
    let path = text_at("path").map(|path| format!(":{path}")).unwrap_or_default();
    let verb = match action {
        "restore" => "began to restore",
        "dump" => "began to write out",
        "mount" => "mounted",
        "ls" => "listed",
        "find" => "searched",
        "diff" => "compared",
        "copy" => "began to copy",
        "drill_begun" => "began a drill of",
        _ => return None,
    };
    let what = match short("snapshot") {
        Some(id) => format!("snapshot {id}{path}"),
        None => "snapshots".to_owned(),
    };
    let with = short("with").map(|id| format!(" with {id}")).unwrap_or_default();
    let searched = text_at("for").map(|what| format!(" for {what}")).unwrap_or_default();
    let to = text_at("to").map(|to| format!(" to {to}")).unwrap_or_default();
    let dry = if detail["dry_run"] == true { ", not for real" } else { "" };
    let who = match (text_at("user"), text_at("host")) {
        (Some(user), Some(host)) => format!(", as {user} on {host}"),
        _ => String::new(),
    };
    Some(format!("{verb} {what}{with}{searched}{to}{dry}{who}"))
}
