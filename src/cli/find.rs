//! `find`: where names are in snapshots, and the versions of a path.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::app::App;
use super::args::FindArgs;
use super::fail::{Fail, Result};
use super::text::{Side, Table};
use super::time::{DayEnd, rfc3339};
use super::{audited, choose, entry, json as objects, place, text};
use crate::error::{Error, Kind};
use crate::find::history::{Change, Version, run as history};
use crate::find::{Finder, Wanted};
use crate::format::tree::{Detail, Entry};
use crate::monitor::Severity;
use crate::path::{TreePath, display_bytes};
use crate::repo::content::Reader;
use crate::repo::snapshots::SnapshotInfo;
use crate::source::exclude::Case;

pub(super) fn run(app: &App, args: &FindArgs) -> Result<()> {
    let case = if args.ignore_case { Case::Insensitive } else { Case::Sensitive };
    let wanted = Wanted {
        patterns: choose::patterns(args.patterns.iter().map(|pattern| (&**pattern, case)))?,
        oldest: choose::moment(app, "--oldest", args.oldest.as_ref(), DayEnd::First)?,
        newest: choose::moment(app, "--newest", args.newest.as_ref(), DayEnd::Last)?,
    };
    let filter = choose::filter(app, &args.filter)?;
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let patterns = args.patterns.iter().map(|pattern| pattern.to_string_lossy()).collect::<Vec<_>>().join(" ");
    audited::note(app, &repository, "find", json!({ "for": audited::text_of(&patterns) }))?;
    let mut unread = 0;
    let snapshots = if args.snapshot.is_empty() {
        let (found, faults) = reader.snapshots(&filter)?;
        for (id, error) in faults {
            unread += 1;
            let message = format!("snapshot `{}` is not searched: {}", id.short(), error.with_causes());
            app.console.remark(Severity::Error, &message);
        }
        found
    } else {
        args.snapshot.iter().map(|id| reader.find_snapshot(id, &filter)).collect::<Result<_, _>>()?
    };
    if args.history {
        for path in &args.patterns {
            unread += tell_history(app, &reader, &snapshots, &app.tree_path(Path::new(path))?)?;
        }
    } else {
        unread += search(app, &reader, &snapshots, wanted, args.long)?;
    }
    if unread > 0 {
        let what = "what was found may not be all: something cannot be read";
        return Err(Fail::Code(1, Error::new(Kind::Damaged, what).hint("to see what is damaged, run `esker check`")));
    }
    Ok(())
}

/// Tells what is found as it is found; gives how much cannot be read.
fn search(app: &App, reader: &Reader<'_>, snapshots: &[SnapshotInfo], wanted: Wanted, long: bool) -> Result<u64> {
    let mut finder = Finder::new(reader, wanted);
    let mut told = Told { app, long, snapshots: 0, hits: 0 };
    let (mut unread, mut failed) = (0, None);
    for info in snapshots {
        let searched = finder.search(&info.snapshot.root, &mut |path, entry| {
            let told = match entry {
                Ok(entry) => told.hit(info, path, &entry),
                Err(error) => {
                    unread += 1;
                    let id = info.id().short();
                    let message =
                        format!("`{path}` of snapshot `{id}` is not searched in full: {}", error.with_causes());
                    app.console.remark(Severity::Error, &message);
                    Ok(())
                }
            };
            told.map_err(|fail| {
                failed = Some(fail);
                Error::new(Kind::Failed, "what was found was not written")
            })
        });
        match failed.take() {
            Some(fail) => return Err(fail),
            None => searched?,
        }
        told.end(info)?;
    }
    told.finish()?;
    Ok(unread)
}

/// Hits on their way out. As JSON they are one array of snapshots, written as it grows.
struct Told<'a> {
    app: &'a App,
    long: bool,
    /// How many snapshots something was found in.
    snapshots: u64,
    /// How much was found in this one.
    hits: u64,
}

impl Told<'_> {
    fn hit(&mut self, info: &SnapshotInfo, path: &TreePath, entry: &Entry) -> Result<()> {
        let out = &self.app.out;
        self.hits += 1;
        if self.app.global.json {
            let before = match (self.hits, self.snapshots) {
                (1, 0) => "[{\"matches\":[",
                (1, _) => ",{\"matches\":[",
                _ => ",",
            };
            out.part(before)?;
            return out.json_part(&entry::json(self.app, path, entry));
        }
        if self.hits == 1 {
            if self.snapshots > 0 {
                out.line("")?;
            }
            let snapshot = &info.snapshot;
            let (id, host) = (info.id().short(), text::plain(&snapshot.hostname));
            out.line(&format!("in snapshot {id} of {host}, {}:", self.app.show_time(snapshot.time)))?;
        }
        out.line(&if self.long { entry::long(self.app, path, entry) } else { path.to_string() })
    }

    fn end(&mut self, info: &SnapshotInfo) -> Result<()> {
        if self.hits > 0 {
            if self.app.global.json {
                self.app.out.part(&format!("],\"hits\":{},\"snapshot\":\"{}\"}}", self.hits, info.id()))?;
            }
            self.snapshots += 1;
            self.hits = 0;
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        match (self.app.global.json, self.snapshots) {
            (true, 0) => self.app.out.line("[]"),
            (true, _) => self.app.out.line("]"),
            (false, 0) => self.app.say("nothing is like that"),
            (false, _) => Ok(()),
        }
    }
}

/// Tells the versions of a path on each host; gives how many snapshots cannot be read.
fn tell_history(app: &App, reader: &Reader<'_>, snapshots: &[SnapshotInfo], path: &TreePath) -> Result<u64> {
    let mut hosts: BTreeMap<&str, Vec<&SnapshotInfo>> = BTreeMap::new();
    for info in snapshots {
        hosts.entry(&info.snapshot.hostname).or_default().push(info);
    }
    let (mut unread, mut any) = (0, false);
    for (host, snapshots) in &hosts {
        let mut versions = Vec::new();
        let mut unreadable = |info: &SnapshotInfo, error: Error| {
            if error.kind() != Kind::Damaged {
                return Err(error);
            }
            unread += 1;
            let message = format!("snapshot `{}` is passed over: {}", info.id().short(), error.with_causes());
            app.console.remark(Severity::Error, &message);
            Ok(())
        };
        let mut each = |version| {
            versions.push(version);
            Ok(())
        };
        history(reader, snapshots, path, &mut each, &mut unreadable)?;
        if versions.is_empty() {
            continue;
        }
        any = true;
        if app.global.json {
            for version in &versions {
                app.out.json(&version_json(app, path, host, snapshots, version))?;
            }
        } else {
            app.out.line(&format!("{path} on {}:", text::plain(host)))?;
            for line in table(app, snapshots, &versions).lines() {
                app.out.line(&line)?;
            }
            app.out.line("")?;
        }
    }
    if !any && !app.global.json {
        app.say(&format!("`{path}` is in no snapshot"))?;
    }
    Ok(unread)
}

fn word(change: Change) -> &'static str {
    match change {
        Change::New => "new",
        Change::Type => "type",
        Change::Content => "content",
        Change::Metadata => "metadata",
        Change::Deleted => "deleted",
        Change::Back => "back",
    }
}

fn table(app: &App, snapshots: &[&SnapshotInfo], versions: &[Version]) -> Table {
    let mut table = Table::new(&[
        ("Seen", Side::Left),
        ("Change", Side::Left),
        ("Mode", Side::Left),
        ("Size", Side::Right),
        ("Modified", Side::Left),
        ("Snapshots", Side::Left),
    ]);
    for version in versions {
        let (first, last) = (snapshots[version.first], snapshots[version.last]);
        let range = match version.snapshots {
            1 => first.id().short(),
            count => format!("{}..{} ({count})", first.id().short(), last.id().short()),
        };
        let [mode, size, mtime] = match &version.entry {
            None => Default::default(),
            Some(entry) => {
                let size = match &entry.detail {
                    Detail::File { size, .. } => text::bytes(*size),
                    Detail::Symlink { target } => format!("-> {}", display_bytes(target)),
                    _ => String::new(),
                };
                [entry::permissions(entry), size, app.show_time(entry.attributes.mtime)]
            }
        };
        table.row([app.show_time(first.snapshot.time), word(version.change).to_owned(), mode, size, mtime, range]);
    }
    table
}

fn version_json(app: &App, path: &TreePath, host: &str, snapshots: &[&SnapshotInfo], version: &Version) -> Value {
    let snapshot = |info: &SnapshotInfo| json!({ "id": info.id().to_string(), "time": rfc3339(info.snapshot.time, &app.time_zone) });
    objects::message(
        "version",
        json!({
            "path": path.to_string(),
            "hostname": host,
            "change": word(version.change),
            "first": snapshot(snapshots[version.first]),
            "last": snapshot(snapshots[version.last]),
            "snapshots": version.snapshots,
            "node": version.entry.as_ref().map(|entry| entry::json(app, path, entry)),
        }),
    )
}
