//! `diff`: what changed between two snapshots, or a snapshot and a local directory.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::json;

use super::app::App;
use super::args::{DiffArgs, SnapshotArgs};
use super::choose::Chosen;
use super::fail::{Fail, Result, usage};
use super::text::{Side, Table};
use super::{audited, choose, json as objects, place, text};
use crate::diff::local::Local;
use crate::diff::{Change, Counts, Found, Modified, Options, Summary, With, run as diff};
use crate::error::{Context, Error, Kind};
use crate::format::tree::{Detail, Entry};
use crate::id::hex;
use crate::monitor::{Monitor, Severity};
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::reader::find;
use crate::source::roots::{self, RootError};

pub(super) fn run(app: &App, args: &DiffArgs) -> Result<()> {
    let local = if choose::is_snapshot(&args.second) {
        if args.content {
            return Err(usage("`--content` goes with a local directory: in snapshots all content is compared").into());
        }
        None
    } else {
        let path = app.path(Path::new(&args.second));
        let resolved = roots::resolve(&path).map_err(|error| {
            let what = format!("cannot compare with `{}`", path.display());
            match error {
                RootError::Unreachable { source, .. } => Error::new(Kind::Failed, what).because(source),
                error => Error::new(Kind::Failed, what).because(error),
            }
        });
        Some(resolved?)
    };
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let choose = |typed: &OsStr| {
        let filter = args.filter.clone();
        choose::snapshot(app, &reader, &SnapshotArgs { snapshot: typed.to_owned(), at: None, filter })
    };
    let before = choose(&args.first)?;
    let mut about = audited::of(&before);
    let root = &before.info.snapshot.root;
    let top = |chosen: &Chosen| chosen.path.clone().unwrap_or_else(TreePath::root);
    let (from, to, target, with) = match local {
        Some(local) => {
            let from = before.path.clone().unwrap_or_else(|| local.clone());
            let with = With::Local(Local {
                roots: roots_in(&before, &from, &local),
                path: local.clone(),
                with_xattrs: args.metadata,
                threads: app.threads(),
                spill: std::env::temp_dir(),
                monitor: Monitor::silent(),
            });
            (from, local.clone(), local.to_string(), with)
        }
        None => {
            let after = choose(&args.second)?;
            let to = top(&after);
            let entry = find(&reader, &after.info.snapshot.root, &to)?;
            about["with"] = after.info.id().to_string().into();
            (top(&before), to, after.info.id().to_string(), With::Entry(Box::new(entry)))
        }
    };
    audited::note(app, &repository, "diff", about)?;
    let entry = find(&reader, root, &from)?;
    // Directories of two names are told of as if both were the top.
    let is_directory = matches!(entry.detail, Detail::Directory { .. });
    let base = if from == to || !is_directory { from } else { TreePath::root() };
    let source = before.info.id();
    if !app.global.json {
        let with =
            if matches!(with, With::Entry(_)) { target[..8.min(target.len())].to_owned() } else { target.clone() };
        app.say(&format!("comparing snapshot {} with {with}\n", source.short()))?;
    }
    let options = Options { metadata: args.metadata, content: args.content, restored: None };
    let mut failed = None;
    let done = diff(&reader, &entry, with, &base, options, &mut |found| {
        let told = match found {
            Found::Change(change, path, entry) => tell_change(app, change, path, entry),
            Found::Unread(path, error) => {
                app.console
                    .remark(Severity::Error, &format!("`{path}` is not compared in full: {}", error.with_causes()));
                Ok(())
            }
        };
        told.map_err(|fail| {
            failed = Some(fail);
            Error::new(Kind::Failed, "the differences were not written")
        })
    });
    let summary = match failed {
        Some(fail) => return Err(fail),
        None => done.context(|| format!("snapshot `{}` was not compared", source.short()))?,
    };
    if app.global.json {
        app.out.json(&statistics(&source.to_string(), &target, &summary))?;
    } else {
        tell(app, &summary)?;
    }
    if summary.unread > 0 {
        let places = text::count(summary.unread, "place", "places");
        let what = format!("the comparison is not complete: {places} cannot be read");
        return Err(Fail::Code(1, Error::new(Kind::Damaged, what).hint("to see what is damaged, run `esker check`")));
    }
    Ok(())
}

/// Which parts of a local directory there can be in the snapshot: all of it, or, where it lies above what
/// was backed up, those of the snapshot's roots that are there.
fn roots_in(before: &Chosen, from: &TreePath, local: &TreePath) -> Vec<TreePath> {
    let roots: Vec<TreePath> =
        before.info.snapshot.paths.iter().filter_map(|path| TreePath::from_bytes(path).ok()).collect();
    if roots.iter().any(|root| from.starts_with(root)) {
        return vec![local.clone()];
    }
    let below = roots.iter().filter(|root| root.starts_with(from)).map(|root| {
        let mut path = local.clone();
        root.components().skip(from.components().count()).for_each(|name| path.push(&name));
        path
    });
    let mut there: Vec<TreePath> = below.filter(|path| path.to_os().symlink_metadata().is_ok()).collect();
    // The walk needs somewhere to go; a directory with nothing of it in the snapshot is compared whole.
    if there.is_empty() {
        there.push(local.clone());
    }
    there
}

fn modifier(change: Change) -> String {
    let Modified { kind, content, silent, metadata, links: _ } = match change {
        Change::Added => return "+".into(),
        Change::Removed => return "-".into(),
        Change::Modified(modified) => modified,
    };
    let letters = [(kind, 'T'), (content, 'M'), (silent, '?'), (metadata, 'U')];
    letters.into_iter().filter_map(|(is, letter)| is.then_some(letter)).collect()
}

fn tell_change(app: &App, change: Change, path: &TreePath, entry: &Entry) -> Result<()> {
    let modifier = modifier(change);
    let slash = if matches!(entry.detail, Detail::Directory { .. }) && !path.is_root() { "/" } else { "" };
    if !app.global.json {
        return app.out.line(&format!("{modifier:<5}{path}{slash}"));
    }
    let mut line = objects::message("change", json!({ "path": format!("{path}{slash}"), "modifier": modifier }));
    if path.to_string().as_bytes() != path.as_bytes() {
        line["path_hex"] = hex(path.as_bytes()).into();
    }
    app.out.json(&line)
}

fn statistics(source: &str, target: &str, summary: &Summary) -> serde_json::Value {
    let counts = |counts: &Counts| {
        json!({
            "files": counts.files,
            "dirs": counts.directories,
            "others": counts.others,
            "bytes": counts.bytes,
        })
    };
    objects::message(
        "statistics",
        json!({
            "source_snapshot": source,
            "target_snapshot": target,
            "changed_files": summary.changed_files,
            "changed_others": summary.changed_others,
            "changed_types": summary.changed_types,
            "changed_metadata": summary.changed_metadata,
            "unread": summary.unread,
            "added": counts(&summary.added),
            "removed": counts(&summary.removed),
        }),
    )
}

fn tell(app: &App, summary: &Summary) -> Result<()> {
    let Summary { added, removed, .. } = summary;
    let mut table =
        Table::new(&[("", Side::Left), ("new", Side::Right), ("removed", Side::Right), ("changed", Side::Right)]);
    let rows = [
        ("files", added.files, removed.files, Some(summary.changed_files)),
        ("directories", added.directories, removed.directories, None),
        ("others", added.others, removed.others, Some(summary.changed_others)),
    ];
    for (name, new, gone, changed) in rows {
        let changed = changed.map(text::number).unwrap_or_default();
        table.row([name.to_owned(), text::number(new), text::number(gone), changed]);
    }
    table.row(["bytes".to_owned(), text::bytes(added.bytes), text::bytes(removed.bytes)]);
    app.say(&format!("\n{}", table.lines().join("\n")))?;
    if summary.changed_types > 0 {
        app.say(&text::count(summary.changed_types, "entry became something else", "entries became something else"))?;
    }
    if summary.changed_metadata > 0 {
        let other = text::count(summary.changed_metadata, "entry has", "entries have");
        app.say(&format!("{other} other attributes only"))?;
    }
    Ok(())
}
