//! Snapshots and summaries as JSON, with restic's keys (CLI.md, Output).

use serde_json::{Value, json};

use super::app::App;
use super::time::rfc3339;
use crate::format::session::Summary;
use crate::format::tree::Detail;
use crate::path::display_bytes;
use crate::repo::drills::Drilled;
use crate::repo::snapshots::SnapshotInfo;
use crate::world::Time;

/// An object that begins with what it is.
pub(super) fn message(kind: &str, mut value: Value) -> Value {
    let mut message = json!({ "message_type": kind });
    if let (Value::Object(message), Value::Object(value)) = (&mut message, &mut value) {
        message.append(value);
    }
    message
}

/// The numbers of a backup.
pub(super) fn summary(summary: &Summary) -> Value {
    json!({
        "files_new": summary.files_new,
        "files_changed": summary.files_changed,
        "files_unmodified": summary.files_unmodified,
        "files_unreadable": summary.files_unreadable,
        "dirs_new": summary.dirs_new,
        "dirs_changed": summary.dirs_changed,
        "dirs_unmodified": summary.dirs_unmodified,
        "data_added": summary.data_added,
        "data_added_packed": summary.data_added_packed,
        "total_files_processed": summary.total_files_processed,
        "total_bytes_processed": summary.total_bytes_processed,
        "total_duration": summary.duration_ms as f64 / 1000.0,
    })
}

/// A snapshot.
pub(super) fn snapshot(app: &App, info: &SnapshotInfo) -> Value {
    let snapshot = &info.snapshot;
    let tree = match &snapshot.root.detail {
        Detail::Directory { id, .. } => json!(id.to_string()),
        _ => Value::Null,
    };
    json!({
        "id": info.id().to_string(),
        "short_id": info.id().short(),
        "time": rfc3339(snapshot.time, &app.time_zone),
        "hostname": snapshot.hostname,
        "username": snapshot.username,
        "uid": snapshot.uid,
        "gid": snapshot.gid,
        "tags": snapshot.tags,
        "paths": snapshot.paths.iter().map(|path| display_bytes(path)).collect::<Vec<_>>(),
        "tree": tree,
        "parent": snapshot.parent.map(|parent| parent.to_string()),
        "original": snapshot.original.map(|original| original.session.to_string()),
        "program_version": snapshot.program,
        "summary": summary(&snapshot.summary),
    })
}

/// A drill.
pub(super) fn drill(app: &App, drilled: &Drilled) -> Value {
    let drill = &drilled.drill;
    let seconds = |millis: u64| millis as f64 / 1000.0;
    json!({
        "time": rfc3339(Time::from_secs(drilled.time_secs), &app.time_zone),
        "result": drill.result.name(),
        "duration": seconds(drill.total_ms),
        "restore_duration": seconds(drill.restore_ms),
        "path": drill.path.as_deref().unwrap_or("/"),
        "files": drill.files,
        "bytes": drill.bytes,
        "check_exit": drill.check_exit,
        "hostname": drill.host,
        "username": drill.user,
    })
}
