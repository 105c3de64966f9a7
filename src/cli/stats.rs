//! `stats`: what the repository holds, and what that takes.

use serde_json::{Value, json};

use super::app::App;
use super::args::{FilterArgs, SnapshotArgs, StatsArgs};
use super::fail::{Result, usage};
use super::text::{Side, Table};
use super::{choose, place, text};
use crate::format::tree::Entry;
use crate::monitor::Severity;
use crate::repo::content::Reader;
use crate::repo::reader::find;
use crate::repo::snapshots::Filter;
use crate::stats::{Chunks, Frames, Objects, Report, Selection, repository, selection};

pub(super) fn run(app: &App, args: &StatsArgs) -> Result<()> {
    let opened = place::repository(app)?;
    let reader = Reader::new(&opened)?;
    app.tell_faults(&reader);
    let filter = choose::filter(app, &args.filter)?;
    let is_filtered = !filter.hosts.is_empty()
        || !filter.tags.is_empty()
        || !filter.paths.is_empty()
        || filter.before.is_some()
        || filter.after.is_some();
    match &args.snapshot {
        Some(_) => one(app, &reader, args),
        None if is_filtered => several(app, &reader, &filter),
        None => {
            let report = repository(&reader)?;
            if app.global.json { app.out.json(&report_json(&report)) } else { tell(app, &reader, &report) }
        }
    }
}

/// A snapshot, or a path in it.
fn one(app: &App, reader: &Reader<'_>, args: &StatsArgs) -> Result<()> {
    let Some(snapshot) = args.snapshot.clone() else { return Err(usage("no snapshot was named").into()) };
    let filter = FilterArgs { ..args.filter.clone() };
    let chosen = choose::snapshot(app, reader, &SnapshotArgs { snapshot, at: None, filter })?;
    let (id, root) = (chosen.info.id(), &chosen.info.snapshot.root);
    let entry = match &chosen.path {
        Some(path) => find(reader, root, path)?,
        None => root.clone(),
    };
    let others = reader.snapshots(&Filter::default())?.0.into_iter().filter(|info| info.id() != id);
    let others: Vec<_> = others.map(|info| info.snapshot.root).collect();
    let what = match &chosen.path {
        Some(path) => format!("{path} in snapshot {}", id.short()),
        None => format!("snapshot {}", id.short()),
    };
    count(app, reader, &what, &[entry], &others)
}

/// The snapshots that a filter takes.
fn several(app: &App, reader: &Reader<'_>, filter: &Filter) -> Result<()> {
    let (all, unreadable) = reader.snapshots(&Filter::default())?;
    for (session, error) in &unreadable {
        let message = format!("snapshot `{}` is not counted: {}", session.short(), error.with_causes());
        app.console.remark(Severity::Warning, &message);
    }
    let (chosen, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|info| filter.takes(&info.snapshot));
    let roots = |infos: Vec<crate::repo::snapshots::SnapshotInfo>| -> Vec<Entry> {
        infos.into_iter().map(|info| info.snapshot.root).collect()
    };
    let what = text::count(chosen.len() as u64, "snapshot", "snapshots");
    count(app, reader, &what, &roots(chosen), &roots(others))
}

fn count(app: &App, reader: &Reader<'_>, what: &str, chosen: &[Entry], others: &[Entry]) -> Result<()> {
    let work = app.work("count");
    let found = selection(reader, chosen, others, work.monitor());
    drop(work);
    let found = found?;
    if found.damaged > 0 {
        let parts = text::count(found.damaged, "file or directory is", "files or directories are");
        app.console.remark(Severity::Warning, &format!("{parts} damaged and not counted in full: run `esker check`"));
    }
    if app.global.json {
        return app.out.json(&selection_json(&found));
    }
    app.say(what)?;
    let mut table = Table::bare(&[Side::Left, Side::Left]);
    let totals = &found.snapshots.totals;
    let files = text::count(totals.files, "file", "files");
    table.row(["  restored".into(), format!("{} in {files}", text::bytes(totals.bytes))]);
    table.row(["  distinct".into(), chunks_text(&found.chunks)]);
    table.row(["  nowhere else".into(), chunks_text(&found.only)]);
    app.say(&table.lines().join("\n"))
}

fn chunks_text(chunks: &Chunks) -> String {
    let count = text::count(chunks.count, "chunk", "chunks");
    format!("{} in {count} ({} stored)", text::bytes(chunks.plain_bytes), text::bytes(chunks.stored_bytes))
}

/// `2.4 to 1`, or a dash where there is nothing to compare.
fn ratio(plain: u64, stored: u64) -> String {
    if stored == 0 { "-".into() } else { format!("{:.1} to 1", plain as f64 / stored as f64) }
}

fn ratio_json(plain: u64, stored: u64) -> Value {
    if stored == 0 { Value::Null } else { json!(plain as f64 / stored as f64) }
}

fn tell(app: &App, reader: &Reader<'_>, report: &Report) -> Result<()> {
    let repository = reader.repo();
    let (id, place) = (repository.config.repo.short(), repository.storage.place());
    app.out.line(&format!("repository {id} at {}\n", text::plain(&place)))?;
    let mut table = Table::new(&[("Stored", Side::Left), ("Objects", Side::Right), ("Size", Side::Right)]);
    let stored = &report.stored;
    let kinds = [
        ("data packs", stored.data_packs),
        ("tree packs", stored.tree_packs),
        ("packs of both", stored.mixed_packs),
        ("unused packs", stored.unused_packs),
        ("index", stored.index),
        ("the rest", stored.rest),
        ("in all", stored.total()),
    ];
    for (name, Objects { count, bytes }) in kinds {
        table.row([name.into(), text::number(count), text::bytes(bytes)]);
    }
    table.lines().iter().try_for_each(|line| app.out.line(line))?;

    let mut table = Table::bare(&[Side::Left, Side::Left]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    let plain = report.data.plain_bytes;
    match &report.snapshots {
        Some(snapshots) => {
            let files = text::count(snapshots.totals.files, "file", "files");
            let count = text::count(snapshots.count, "snapshot", "snapshots");
            row("restored", format!("{} in {files} of {count}", text::bytes(snapshots.totals.bytes)));
            row("deduplication", ratio(snapshots.totals.bytes, plain));
        }
        None => row("restored", "not for this key to tell".into()),
    }
    let (data, trees) = (&report.data_frames, &report.tree_frames);
    let frames = |frames: &Frames| {
        let count = text::count(frames.count, "frame", "frames");
        format!("{}, {count}", ratio(frames.plain_bytes, frames.sealed_bytes))
    };
    row("compression", format!("{}; of trees {}", frames(data), frames(trees)));
    row("data", chunks_text(&report.data));
    row("trees", chunks_text(&report.trees));
    row("stored again", format!("{} by keys that do not build on each other", chunks_text(&report.untrusted_copies)));
    if report.other_copies.count > 0 {
        row("", format!("{} for other reasons", chunks_text(&report.other_copies)));
    }
    app.out.line("")?;
    table.lines().iter().try_for_each(|line| app.out.line(line))
}

fn report_json(report: &Report) -> Value {
    let objects = |objects: &Objects| json!({ "count": objects.count, "bytes": objects.bytes });
    let frames = |frames: &Frames| {
        json!({
            "count": frames.count,
            "plain_bytes": frames.plain_bytes,
            "sealed_bytes": frames.sealed_bytes,
        })
    };
    let stored = &report.stored;
    let total = stored.total();
    let (plain, sealed) = (
        report.data_frames.plain_bytes.saturating_add(report.tree_frames.plain_bytes),
        report.data_frames.sealed_bytes.saturating_add(report.tree_frames.sealed_bytes),
    );
    let snapshots = report.snapshots.as_ref();
    json!({
        "message_type": "summary",
        "total_size": total.bytes,
        "total_uncompressed_size": plain,
        "compression_ratio": ratio_json(plain, sealed),
        "total_blob_count": report.data.count + report.trees.count,
        "snapshots_count": snapshots.map(|snapshots| snapshots.count),
        "total_file_count": snapshots.map(|snapshots| snapshots.totals.files),
        "restore_size": snapshots.map(|snapshots| snapshots.totals.bytes),
        "deduplication_ratio": snapshots.map(|snapshots| ratio_json(snapshots.totals.bytes, report.data.plain_bytes)),
        "stored": {
            "data_packs": objects(&stored.data_packs),
            "tree_packs": objects(&stored.tree_packs),
            "mixed_packs": objects(&stored.mixed_packs),
            "unused_packs": objects(&stored.unused_packs),
            "index": objects(&stored.index),
            "rest": objects(&stored.rest),
        },
        "data": chunks_json(&report.data),
        "trees": chunks_json(&report.trees),
        "data_frames": frames(&report.data_frames),
        "tree_frames": frames(&report.tree_frames),
        "untrusted_copies": chunks_json(&report.untrusted_copies),
        "other_copies": chunks_json(&report.other_copies),
    })
}

fn selection_json(found: &Selection) -> Value {
    json!({
        "message_type": "summary",
        "total_size": found.snapshots.totals.bytes,
        "total_file_count": found.snapshots.totals.files,
        "snapshots_count": found.snapshots.count,
        "distinct": chunks_json(&found.chunks),
        "nowhere_else": chunks_json(&found.only),
        "damaged": found.damaged,
    })
}

fn chunks_json(chunks: &Chunks) -> Value {
    json!({
        "chunks": chunks.count,
        "plain_bytes": chunks.plain_bytes,
        "stored_bytes": chunks.stored_bytes,
    })
}
