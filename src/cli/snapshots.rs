//! `snapshots`: what there is to restore, oldest first.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::app::App;
use super::args::{GroupBy, SnapshotsArgs};
use super::fail::{Fail, Result};
use super::text::{Side, Table};
use super::{choose, json as objects, place, text};
use crate::error::{Error, Kind};
use crate::id::SessionId;
use crate::monitor::Severity;
use crate::path::display_bytes;
use crate::repo::commits::SNAPSHOTS;
use crate::repo::content::Reader;
use crate::repo::drills::Drilled;
use crate::repo::snapshots::SnapshotInfo;
use crate::world::Time;

/// What the snapshots of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    host: Option<String>,
    paths: Option<Vec<Vec<u8>>>,
    tags: Option<Vec<String>>,
}

impl Group {
    pub(super) fn of(info: &SnapshotInfo, by: &[GroupBy]) -> Self {
        let snapshot = &info.snapshot;
        Self {
            host: by.contains(&GroupBy::Host).then(|| snapshot.hostname.clone()),
            paths: by.contains(&GroupBy::Paths).then(|| snapshot.paths.clone()),
            tags: by.contains(&GroupBy::Tags).then(|| snapshot.tags.clone()),
        }
    }

    pub(super) fn heading(&self) -> String {
        let host = self.host.as_ref().map(|host| format!("host {}", text::plain(host)));
        let paths = self.paths.as_ref().map(|paths| {
            format!("paths {}", paths.iter().map(|path| display_bytes(path)).collect::<Vec<_>>().join(", "))
        });
        let tags = self.tags.as_ref().map(|tags| match tags.is_empty() {
            true => "no tags".to_owned(),
            false => format!("tags {}", text::plain(&tags.join(", "))),
        });
        [host, paths, tags].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    pub(super) fn key(&self) -> Value {
        let paths = |paths: &Vec<Vec<u8>>| paths.iter().map(|path| display_bytes(path)).collect::<Vec<_>>();
        json!({ "hostname": self.host, "paths": self.paths.as_ref().map(paths), "tags": self.tags })
    }
}

pub(super) fn run(app: &App, args: &SnapshotsArgs) -> Result<()> {
    let filter = choose::filter(app, &args.filter)?;
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let (mut found, faults) = reader.snapshots(&filter)?;
    for (id, error) in &faults {
        app.console
            .remark(Severity::Error, &format!("snapshot `{}` is not listed: {}", id.short(), error.with_causes()));
    }
    if let Some(latest) = args.latest {
        let usual = [GroupBy::Host, GroupBy::Paths];
        keep_latest(&mut found, latest, if args.group_by.is_empty() { &usual } else { &args.group_by });
    }
    let mut groups: BTreeMap<Group, Vec<SnapshotInfo>> = BTreeMap::new();
    for info in found {
        groups.entry(Group::of(&info, &args.group_by)).or_default().push(info);
    }
    let drills = &reader.collections().drills;
    if app.global.json {
        tell_json(app, &groups, !args.group_by.is_empty(), drills)?;
    } else {
        tell(app, &groups, args.compact, drills)?;
    }
    let unread = faults.len() + reader.faults().iter().filter(|(object, _)| object.starts_with(SNAPSHOTS)).count();
    if unread > 0 {
        let objects = text::count(unread as u64, "object", "objects");
        let what = format!("the list may not be complete: {objects} of the repository cannot be read");
        let hint = "to see what is damaged, run `esker check`";
        return Err(Fail::Code(1, Error::new(Kind::Damaged, what).hint(hint)));
    }
    Ok(())
}

/// Keeps the newest `count` of each group; the list is oldest first.
fn keep_latest(found: &mut Vec<SnapshotInfo>, count: usize, by: &[GroupBy]) {
    let mut left: BTreeMap<Group, usize> = BTreeMap::new();
    let mut kept: Vec<SnapshotInfo> = Vec::new();
    for info in std::mem::take(found).into_iter().rev() {
        let taken = left.entry(Group::of(&info, by)).or_default();
        if *taken < count {
            *taken += 1;
            kept.push(info);
        }
    }
    kept.reverse();
    *found = kept;
}

/// The last drill of each snapshot.
type Drills = BTreeMap<SessionId, Drilled>;

fn tell_json(app: &App, groups: &BTreeMap<Group, Vec<SnapshotInfo>>, grouped: bool, drills: &Drills) -> Result<()> {
    let list = |infos: &Vec<SnapshotInfo>| {
        let object = |info: &SnapshotInfo| {
            let mut object = objects::snapshot(app, info);
            if let Some(drilled) = drills.get(&info.id()) {
                object["restoration_tested"] = objects::drill(app, drilled);
            }
            object
        };
        infos.iter().map(object).collect::<Vec<_>>()
    };
    if grouped {
        let groups: Vec<_> = (groups.iter())
            .map(|(group, infos)| json!({ "group_key": group.key(), "snapshots": list(infos) }))
            .collect();
        return app.out.json(&groups);
    }
    app.out.json(&groups.values().flat_map(list).collect::<Vec<_>>())
}

fn tell(app: &App, groups: &BTreeMap<Group, Vec<SnapshotInfo>>, compact: bool, drills: &Drills) -> Result<()> {
    for (group, infos) in groups {
        let heading = group.heading();
        if !heading.is_empty() {
            app.out.line(&heading)?;
        }
        for line in table(app, infos, compact, drills).lines() {
            app.out.line(&line)?;
        }
        app.out.line("")?;
    }
    let count: usize = groups.values().map(Vec::len).sum();
    app.out.line(&text::count(count as u64, "snapshot", "snapshots"))
}

fn table(app: &App, infos: &[SnapshotInfo], compact: bool, drills: &Drills) -> Table {
    let mut columns = vec![
        ("ID", Side::Left),
        ("Time", Side::Left),
        ("Host", Side::Left),
        ("Tags", Side::Left),
        ("Size", Side::Right),
    ];
    // A column that is empty for most who look is shown to those for whom it is not.
    let with_drills = !compact && infos.iter().any(|info| drills.contains_key(&info.id()));
    if !compact {
        columns.push(("Added", Side::Right));
        columns.extend(with_drills.then_some(("Drilled", Side::Left)));
        columns.push(("Paths", Side::Left));
    }
    let mut table = Table::new(&columns);
    for info in infos {
        let snapshot = &info.snapshot;
        let mut row = vec![
            info.id().short(),
            app.show_time(snapshot.time),
            text::plain(&snapshot.hostname),
            text::plain(&snapshot.tags.join(",")),
            text::bytes(snapshot.summary.total_bytes_processed),
        ];
        let mut paths = snapshot.paths.iter().map(|path| display_bytes(path));
        if !compact {
            row.push(text::bytes(snapshot.summary.data_added_packed));
            row.extend(with_drills.then(|| drills.get(&info.id()).map(|one| drilled(app, one)).unwrap_or_default()));
            row.extend(paths.next());
        }
        table.row(row);
        if !compact {
            paths.for_each(|path| table.row((1..columns.len()).map(|_| String::new()).chain([path])));
        }
    }
    table
}

/// When a snapshot was drilled, and how that ended, for people: `2026-01-15 passed`, in part if it was.
fn drilled(app: &App, drilled: &Drilled) -> String {
    let time = app.show_time(Time::from_secs(drilled.time_secs));
    let part = if drilled.drill.path.is_some() { " (part)" } else { "" };
    format!("{} {}{part}", time.split(' ').next().unwrap_or_default(), text::outcome(drilled.drill.result))
}
