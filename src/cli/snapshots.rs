//! `snapshots`: what there is to restore, oldest first.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::app::App;
use super::args::{GroupBy, SnapshotsArgs};
use super::fail::{Fail, Result};
use super::text::{Side, Table};
use super::{choose, json as objects, place, text};
use crate::error::{Error, Kind};
use crate::monitor::Severity;
use crate::path::display_bytes;
use crate::repo::commits::SNAPSHOTS;
use crate::repo::content::Reader;
use crate::repo::snapshots::SnapshotInfo;

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
    if app.global.json {
        tell_json(app, &groups, !args.group_by.is_empty())?;
    } else {
        tell(app, &groups, args.compact)?;
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

fn tell_json(app: &App, groups: &BTreeMap<Group, Vec<SnapshotInfo>>, grouped: bool) -> Result<()> {
    let list = |infos: &Vec<SnapshotInfo>| infos.iter().map(|info| objects::snapshot(app, info)).collect::<Vec<_>>();
    if grouped {
        let groups: Vec<_> = (groups.iter())
            .map(|(group, infos)| json!({ "group_key": group.key(), "snapshots": list(infos) }))
            .collect();
        return app.out.json(&groups);
    }
    app.out.json(&groups.values().flat_map(list).collect::<Vec<_>>())
}

fn tell(app: &App, groups: &BTreeMap<Group, Vec<SnapshotInfo>>, compact: bool) -> Result<()> {
    for (group, infos) in groups {
        let heading = group.heading();
        if !heading.is_empty() {
            app.out.line(&heading)?;
        }
        for line in table(app, infos, compact).lines() {
            app.out.line(&line)?;
        }
        app.out.line("")?;
    }
    let count: usize = groups.values().map(Vec::len).sum();
    app.out.line(&text::count(count as u64, "snapshot", "snapshots"))
}

fn table(app: &App, infos: &[SnapshotInfo], compact: bool) -> Table {
    let columns = [
        ("ID", Side::Left),
        ("Time", Side::Left),
        ("Host", Side::Left),
        ("Tags", Side::Left),
        ("Size", Side::Right),
        ("Added", Side::Right),
        ("Paths", Side::Left),
    ];
    let mut table = Table::new(if compact { &columns[..5] } else { &columns });
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
            row.extend(paths.next());
        }
        table.row(row);
        if !compact {
            paths.for_each(|path| table.row((0..6).map(|_| String::new()).chain([path])));
        }
    }
    table
}
