//! `status`: is what should be protected protected?

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::app::App;
use super::args::{GroupBy, StatusArgs};
use super::fail::{Fail, Result};
use super::json as objects;
use super::snapshots::Group;
use super::text::{Side, Table};
use super::time::rfc3339;
use super::{choose, place, text};
use crate::error::{Error, Kind};
use crate::repo::content::Reader;
use crate::repo::drills::Drilled;
use crate::repo::history::What;
use crate::repo::snapshots::SnapshotInfo;
use crate::world::Time;

/// Of one host and its paths.
struct Line {
    group: Group,
    newest: SnapshotInfo,
    count: u64,
    age_secs: u64,
}

pub(super) fn run(app: &App, args: &StatusArgs) -> Result<()> {
    let is_named = app.global.repo.is_some() || app.var("ESKER_REPOSITORY").is_some();
    if args.jobs || (!is_named && super::config::has_jobs(app)) {
        return super::job::status(app);
    }
    let filter = choose::filter(app, &args.filter)?;
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let (found, unreadable) = reader.snapshots(&filter)?;
    let now = app.world.now().secs;
    let mut groups: BTreeMap<Group, (SnapshotInfo, u64)> = BTreeMap::new();
    // Oldest first: the last one stays.
    for info in found.into_iter().filter(|info| !info.is_before_restore()) {
        let group = Group::of(&info, &[GroupBy::Host, GroupBy::Paths]);
        let count = groups.get(&group).map_or(0, |(_, count)| *count);
        groups.insert(group, (info, count + 1));
    }
    let lines: Vec<Line> = groups
        .into_iter()
        .map(|(group, (newest, count))| {
            let age_secs = u64::try_from(now.saturating_sub(newest.snapshot.time.secs)).unwrap_or(0);
            Line { group, newest, count, age_secs }
        })
        .collect();
    let history = repository.history(&reader)?;
    let last = |is: fn(&What) -> bool| history.iter().rev().find(|event| is(&event.what)).map(|event| event.time_secs);
    let verified = last(|what| matches!(what, What::Verified(packs) if *packs > 0));
    let collected = last(|what| matches!(what, What::Collected(..)));
    let drilled = reader.collections().drills.values().max_by_key(|drilled| drilled.time_secs);
    let damaged = reader.collections().damaged.len();
    let forgotten = reader.collections().forgotten.len();
    let is_late = |line: &&Line| args.max_age.is_some_and(|most| line.age_secs > most);
    let late: Vec<&Line> = lines.iter().filter(is_late).collect();
    if app.global.json {
        let time = |secs: i64| rfc3339(Time::from_secs(secs), &app.time_zone);
        let groups = lines.iter().map(|line| {
            let mut object = line.group.key();
            object["snapshots"] = line.count.into();
            object["latest"] = line.newest.id().to_string().into();
            object["latest_time"] = rfc3339(line.newest.snapshot.time, &app.time_zone).into();
            object["age_seconds"] = line.age_secs.into();
            object["files_unreadable"] = line.newest.snapshot.summary.files_unreadable.into();
            object["late"] = is_late(&line).into();
            object
        });
        let object = json!({
            "groups": groups.collect::<Vec<_>>(),
            "last_verified": verified.map(time),
            "last_collected": collected.map(time),
            "last_drill": drilled.map(|drilled| {
                let mut object = objects::drill(app, drilled);
                object["snapshot_id"] = drilled.drill.snapshot.to_string().into();
                object
            }),
            "chunks_damaged": damaged,
            "snapshots_forgotten": forgotten,
            "snapshots_unreadable": unreadable.len(),
        });
        app.out.json(&objects::message("status", object))?;
    } else {
        tell(app, &lines, verified, collected, drilled, damaged)?;
    }
    if let Some(line) = late.first() {
        let what = match late.len() {
            1 => format!("{}: the newest snapshot is {} old", line.group.heading(), age(line.age_secs)),
            more => format!("the newest snapshots of {more} hosts and paths are too old"),
        };
        return Err(Error::new(Kind::Failed, what).into());
    }
    if args.max_age.is_some() && lines.is_empty() {
        return Err(Error::new(Kind::Failed, "there is no snapshot").into());
    }
    if damaged > 0 || !unreadable.is_empty() {
        let what = format!(
            "{} and {} are known to be damaged",
            text::count(damaged as u64, "chunk", "chunks"),
            text::count(unreadable.len() as u64, "snapshot", "snapshots")
        );
        return Err(Fail::Code(4, Error::new(Kind::Damaged, what).hint("to see what that affects, run `esker check`")));
    }
    // Until one has passed again.
    if let Some(Drilled { drill, .. }) = drilled.filter(|drilled| !drilled.drill.result.is_passed()) {
        let what = format!("the last drill, of snapshot `{}`, did not pass", drill.snapshot.short());
        let hint = format!("to see why, run `esker drill {}`", drill.snapshot.short());
        return Err(Fail::Code(4, Error::new(Kind::Failed, what).hint(hint)));
    }
    Ok(())
}

fn tell(
    app: &App,
    lines: &[Line],
    verified: Option<i64>,
    collected: Option<i64>,
    drilled: Option<&Drilled>,
    damaged: usize,
) -> Result<()> {
    if lines.is_empty() {
        app.say("there are no snapshots")?;
    } else {
        let columns =
            [("Host and paths", Side::Left), ("Newest", Side::Left), ("Age", Side::Right), ("Snapshots", Side::Right)];
        let mut table = Table::new(&columns);
        for line in lines {
            table.row([
                line.group.heading(),
                format!("{} {}", line.newest.id().short(), app.show_time(line.newest.snapshot.time)),
                age(line.age_secs),
                line.count.to_string(),
            ]);
        }
        table.lines().iter().try_for_each(|line| app.out.line(line))?;
    }
    let at = |secs: Option<i64>| secs.map_or_else(|| "never".to_owned(), |secs| app.show_time(Time::from_secs(secs)));
    app.say("")?;
    app.say(&format!("last verified   {}", at(verified)))?;
    app.say(&format!("last collected  {}", at(collected)))?;
    let drill = drilled.map(|Drilled { time_secs, drill, .. }| {
        let (of, took) = (drill.snapshot.short(), text::duration(Duration::from_millis(drill.total_ms)));
        format!("{} of snapshot {of}: {}, in {took}", at(Some(*time_secs)), text::outcome(drill.result))
    });
    app.say(&format!("last drill      {}", drill.unwrap_or_else(|| at(None))))?;
    if damaged > 0 {
        app.say(&format!("damaged         {}", text::count(damaged as u64, "chunk", "chunks")))?;
    }
    Ok(())
}

/// An age in its two largest units.
fn age(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m"),
        (0, hours) => format!("{hours}h {minutes}m"),
        (days, hours) => format!("{days}d {hours}h"),
    }
}
