//! `forget` and `undelete`: which snapshots are wanted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::app::App;
use super::fail::{Result, usage};
use super::retention_args::{ForgetArgs, UndeleteArgs};
use super::snapshots::Group;
use super::text::{Side, Table};
use super::{choose, json as objects, place, prune, text};
use crate::error::{Error, Kind};
use crate::forget::policy::{Count, PERIODS, Policy};
use crate::format::access::Role;
use crate::id::CredentialId;
use crate::repo::content::Reader;
use crate::repo::keys::not_an_owner;
use crate::repo::snapshots::{Filter, SnapshotInfo};

/// A snapshot and why it is kept; without a reason it goes.
struct Decision {
    info: SnapshotInfo,
    reasons: Vec<String>,
}

pub(super) fn run(app: &App, args: &ForgetArgs) -> Result<()> {
    let policy = policy(args);
    if args.snapshots.is_empty() && policy.is_empty() {
        let hint = "say what to keep, such as `--keep-daily 7 --keep-monthly 12`, or name snapshots";
        return Err(usage("nothing was forgotten: there is no policy").hint(hint).into());
    }
    let filter = choose::filter(app, &args.filter)?;
    let repository = place::repository(app)?;
    if repository.keys.role != Role::Owner {
        return Err(not_an_owner().into());
    }
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let mut groups = Vec::new();
    if !args.snapshots.is_empty() {
        let mut named = BTreeMap::new();
        // One that is forgotten already may be forgotten for good sooner.
        let (forgotten, _) = reader.forgotten_snapshots(&filter)?;
        for wanted in &args.snapshots {
            let mut matching = forgotten.iter().filter(|info| info.id().to_string().starts_with(wanted.as_str()));
            let info = match (reader.find_snapshot(wanted, &filter), matching.next(), matching.next()) {
                (Err(_), Some(info), None) => info.clone(),
                (found, ..) => found?,
            };
            named.insert(info.id(), info);
        }
        let decisions = named.into_values().map(|info| Decision { info, reasons: Vec::new() }).collect();
        groups.push((None, decisions));
    }
    if !policy.is_empty() {
        let (found, unreadable) = reader.snapshots(&filter)?;
        if let Some((id, error)) = unreadable.into_iter().next() {
            let what = format!("nothing was forgotten: snapshot `{}` cannot be read", id.short());
            return Err(Error::new(error.kind(), what).because(error).hint("run `esker check`").into());
        }
        let named =
            |info: &SnapshotInfo| args.snapshots.iter().any(|id| info.id().to_string().starts_with(id.as_str()));
        groups.extend(decide(app, args, &policy, found.into_iter().filter(|info| !named(info)).collect())?);
    }
    tell(app, &groups, args.dry_run)?;
    let gone: Vec<SnapshotInfo> = groups
        .into_iter()
        .flat_map(|(_, decisions)| decisions)
        .filter(|decision| decision.reasons.is_empty())
        .map(|decision| decision.info)
        .collect();
    if !args.dry_run {
        let window = i64::try_from(args.undelete_window).unwrap_or(i64::MAX);
        crate::forget::run(&repository, &gone, window)?;
        if !app.global.json && !gone.is_empty() && window > 0 {
            let until = app.show_time(app.world.now().plus_secs(window));
            app.say(&format!("until {until} they can be brought back: `esker undelete ID`"))?;
        }
    }
    drop(reader);
    match args.prune {
        true => prune::collect(app, &repository, &args.collect, args.dry_run),
        false => Ok(()),
    }
}

fn policy(args: &ForgetArgs) -> Policy {
    let counts = [args.keep_hourly, args.keep_daily, args.keep_weekly, args.keep_monthly, args.keep_yearly];
    let spans = [
        args.keep_within_hourly,
        args.keep_within_daily,
        args.keep_within_weekly,
        args.keep_within_monthly,
        args.keep_within_yearly,
    ];
    let periods = || PERIODS.iter().map(|(period, _)| *period);
    Policy {
        last: args.keep_last.filter(|count| *count != Count::Of(0)),
        periods: periods().zip(counts).filter_map(|(period, count)| Some((period, count?))).collect(),
        within: args.keep_within,
        within_periods: periods().zip(spans).filter_map(|(period, span)| Some((period, span?))).collect(),
        tags: args.keep_tag.iter().map(|tags| tags.split(',').map(str::to_owned).collect()).collect(),
    }
}

type Decided = (Option<Group>, Vec<Decision>);

/// Applies the policy to each group. What each key signed is a group of its own, and what a restore put
/// aside is too.
fn decide(app: &App, args: &ForgetArgs, policy: &Policy, found: Vec<SnapshotInfo>) -> Result<Vec<Decided>> {
    let mut groups: BTreeMap<(Group, bool, CredentialId), Vec<SnapshotInfo>> = BTreeMap::new();
    for info in found {
        let key = (Group::of(&info, &args.group_by), info.is_before_restore(), info.header.credential);
        groups.entry(key).or_default().push(info);
    }
    let mut decided = Vec::new();
    for ((group, ..), infos) in groups {
        let reasons = policy.reasons(&infos, app.world.now(), &app.time_zone)?;
        let decisions = infos.into_iter().zip(reasons).map(|(info, reasons)| Decision { info, reasons }).collect();
        decided.push((Some(group), decisions));
    }
    Ok(decided)
}

fn tell(app: &App, groups: &[Decided], dry_run: bool) -> Result<()> {
    if app.global.json {
        let list: Vec<Value> =
            groups.iter().map(|(group, decisions)| group_json(app, group.as_ref(), decisions)).collect();
        return app.out.json(&list);
    }
    let (mut kept, mut gone) = (0_u64, 0_u64);
    for (group, decisions) in groups {
        if let Some(heading) = group.as_ref().map(Group::heading).filter(|heading| !heading.is_empty()) {
            app.say(&heading)?;
        }
        let mut table = Table::new(&[
            ("", Side::Left),
            ("ID", Side::Left),
            ("Time", Side::Left),
            ("Host", Side::Left),
            ("Why", Side::Left),
        ]);
        for Decision { info, reasons } in decisions {
            let word = if reasons.is_empty() { "forget" } else { "keep" };
            *(if reasons.is_empty() { &mut gone } else { &mut kept }) += 1;
            table.row([
                word.into(),
                info.id().short(),
                app.show_time(info.snapshot.time),
                text::plain(&info.snapshot.hostname),
                reasons.join(", "),
            ]);
        }
        app.say(&table.lines().join("\n"))?;
        app.say("")?;
    }
    let would = if dry_run { " would be" } else { "" };
    app.say(&format!("{}{would} forgotten, {kept} kept", text::count(gone, "snapshot", "snapshots")))
}

fn group_json(app: &App, group: Option<&Group>, decisions: &[Decision]) -> Value {
    let some = |kept: bool| -> Vec<Value> {
        let wanted = decisions.iter().filter(|decision| decision.reasons.is_empty() != kept);
        wanted.map(|decision| objects::snapshot(app, &decision.info)).collect()
    };
    let reasons: Vec<Value> = decisions
        .iter()
        .filter(|decision| !decision.reasons.is_empty())
        .map(|decision| json!({ "snapshot": objects::snapshot(app, &decision.info), "matches": decision.reasons }))
        .collect();
    json!({
        "group_key": group.map_or(Value::Null, Group::key),
        "keep": some(true),
        "remove": some(false),
        "reasons": reasons,
    })
}

pub(super) fn undelete(app: &App, args: &UndeleteArgs) -> Result<()> {
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let (forgotten, _) = reader.forgotten_snapshots(&Filter::default())?;
    if args.snapshots.is_empty() {
        return list_forgotten(app, &reader, &forgotten);
    }
    for wanted in &args.snapshots {
        let mut matching = forgotten.iter().filter(|info| info.id().to_string().starts_with(wanted.as_str()));
        let info = match (matching.next(), matching.next()) {
            (Some(info), None) => info,
            (Some(_), Some(_)) => {
                return Err(usage(format!("more than one forgotten snapshot begins with `{wanted}`")).into());
            }
            _ => {
                let what = format!(
                    "snapshot `{wanted}` cannot be brought back: there is none that is forgotten and still here"
                );
                return Err(Error::new(Kind::Failed, what).hint("to list them, run `esker undelete`").into());
            }
        };
        let work = app.work("look");
        let made = crate::forget::undelete(&reader, info, work.monitor());
        drop(work);
        let made = made?;
        if app.global.json {
            let done = json!({ "id": made.to_string(), "short_id": made.short(), "original": info.id().to_string() });
            app.out.json(&objects::message("undeleted", done))?;
        } else {
            app.say(&format!("snapshot {} is back as {}", info.id().short(), made.short()))?;
        }
    }
    Ok(())
}

fn list_forgotten(app: &App, reader: &Reader<'_>, forgotten: &[SnapshotInfo]) -> Result<()> {
    let until = |info: &SnapshotInfo| {
        let key = (info.id(), info.header.hash);
        reader.collections().forgotten.get(&key).map_or(i64::MAX, crate::repo::collections::Forgotten::until_secs)
    };
    let time = |secs| crate::world::Time { secs, nanos: 0 };
    if app.global.json {
        let list: Vec<Value> = forgotten
            .iter()
            .map(|info| {
                let mut value = objects::snapshot(app, info);
                value["undelete_until"] = json!(super::time::rfc3339(time(until(info)), &app.time_zone));
                value
            })
            .collect();
        return app.out.json(&list);
    }
    let mut table =
        Table::new(&[("ID", Side::Left), ("Time", Side::Left), ("Host", Side::Left), ("Until", Side::Left)]);
    for info in forgotten {
        table.row([
            info.id().short(),
            app.show_time(info.snapshot.time),
            text::plain(&info.snapshot.hostname),
            app.show_time(time(until(info))),
        ]);
    }
    for line in table.lines() {
        app.out.line(&line)?;
    }
    app.out.line(&text::count(forgotten.len() as u64, "forgotten snapshot", "forgotten snapshots"))
}
