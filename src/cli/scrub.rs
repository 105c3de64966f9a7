//! `scrub`: is what is stored still what was stored, and if not, put it back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::app::App;
use super::check::tell_fault;
use super::fail::{Fail, Result};
use super::scrub_args::ScrubArgs;
use super::text::{Side, Table};
use super::{json as objects, place, text};
use crate::check::{Fault, Report, run_on};
use crate::error::{Error, Kind};
use crate::format::access::Role;
use crate::id::{DescriptionId, PackId};
use crate::monitor::Severity;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::parity::PARITY_PERCENT;
use crate::repo::pins::Behind;
use crate::repo::session::{PACKS, pack_name, pack_of};
use crate::scrub::ages::Ages;
use crate::scrub::mend::{self, Outcome};
use crate::scrub::{Budget, Chosen, choose, keyless};
use crate::storage::Storage;

/// Files named for one fault, unless all are asked for.
const AFFECTED_NAMED_MAX: usize = 100;

pub(super) fn run(app: &App, args: &ScrubArgs) -> Result<()> {
    let scrubbed = if args.without_key { without_key(app, args) } else { with_key(app, args) };
    scrubbed.map_err(|fail| match fail {
        // So damaged that it cannot even be opened or listed.
        Fail::Error(error) if error.kind() == Kind::Damaged => {
            Fail::Code(4, error.hint("to find all that is damaged, run `esker scrub --without-key`"))
        }
        other => other,
    })
}

fn budget(args: &ScrubArgs) -> Budget {
    Budget {
        max_age_secs: args.max_age,
        max_bytes: args.max_bytes,
        max_duration: args.max_duration.map(Duration::from_secs),
        shard: args.shard,
    }
}

fn is_limited(args: &ScrubArgs) -> bool {
    args.max_bytes.is_some() || args.max_duration.is_some()
}

/// The replica, if one was named.
fn replica(app: &App, args: &ScrubArgs) -> Result<Option<Arc<dyn Storage>>> {
    let Some(url) = &args.from else { return Ok(None) };
    Ok(Some(place::open_at(app, url, (!args.from_option.is_empty()).then_some(&*args.from_option))?))
}

pub(super) fn ages(app: &App, storage: &dyn Storage) -> Ages {
    let local = app.local();
    Ages::open(local.state.as_deref(), &storage.place(), local.notices)
}

/// What was read, for the summary.
struct Told {
    packs: u64,
    packs_due: u64,
    packs_read: u64,
    bytes_read: u64,
    objects: Option<u64>,
    /// Whether not all that is due was to be read.
    is_limited: bool,
    took: Duration,
}

fn without_key(app: &App, args: &ScrubArgs) -> Result<()> {
    let storage = place::open(app)?;
    let replica = replica(app, args)?;
    let mut ages = ages(app, &*storage);
    let budget = budget(args);
    let work = app.work("scrub");
    let threads = app.threads().max(storage.connections());
    let report = keyless::run(&*storage, &app.world, &ages, &budget, threads, work.monitor());
    let mut outcomes = Vec::new();
    if let Ok(report) = &report
        && args.repair
    {
        let faults = report.faults.iter().map(|(object, _)| object.clone()).collect();
        let percent = crate::repo::open::load_config(&*storage).map_or(0, |config| config.parity_percent);
        outcomes = mend::run(&*storage, replica.as_deref(), None, &faults, percent_or_usual(percent), work.monitor())?;
    }
    let took = work.elapsed();
    drop(work);
    let mut report = report?;
    // What was put back was verified before.
    report.hashed.extend(mended_packs(&outcomes));
    ages.remember(&report.hashed, app.world.now().secs, |pack| report.listed.contains(pack));
    app.tell_notices();
    let fault = |(object, message): &(String, String)| Fault {
        object: object.clone(),
        message: message.clone(),
        affected: vec![],
        affected_total: 0,
    };
    let faults: Vec<Fault> = report.faults.iter().map(fault).collect();
    let told = Told {
        packs: report.packs,
        packs_due: report.packs_due,
        packs_read: report.packs_read,
        bytes_read: report.bytes_read,
        objects: Some(report.objects),
        is_limited: is_limited(args),
        took,
    };
    let mended: BTreeSet<&str> = mended(&outcomes).collect();
    let left = faults.iter().filter(|fault| !mended.contains(&*fault.object)).count();
    tell(app, &faults, &outcomes, left, &told)?;
    end(&*storage, args, left)
}

fn with_key(app: &App, args: &ScrubArgs) -> Result<()> {
    let repository = place::repository(app)?;
    if repository.keys.role != Role::Owner {
        let what = "nothing was scrubbed: a writer's key opens no content";
        return Err(Error::new(Kind::Refused, what).hint("run `esker scrub --without-key`").into());
    }
    let storage = repository.storage.clone();
    let replica = replica(app, args)?;
    let mut ages = ages(app, &*storage);
    let budget = budget(args);
    let affected_max = if app.verbose() { usize::MAX } else { AFFECTED_NAMED_MAX };
    let threads = app.threads().max(storage.connections());
    let work = app.work("scrub");
    let reader = Reader::without_cache(&repository)?;
    let chosen = choose(&reader, &ages, &budget);
    let first = run_on(&chosen.packs, &budget.clock(&app.world), affected_max, &reader, threads, work.monitor())?;
    let mut found = Found::of(&repository, &reader, first)?;
    let faults = found.report.faults.clone();
    let mut outcomes = Vec::new();
    if args.repair && !faults.is_empty() {
        let names = faults.iter().map(|fault| fault.object.clone()).collect();
        let percent = percent_or_usual(repository.config.parity_percent);
        let replica = replica.as_deref();
        outcomes = mend::run(&*storage, replica, Some(&repository), &names, percent, work.monitor())?;
        if outcomes.iter().any(|outcome| outcome.result.is_ok()) {
            // What was put back is read as everything else: its hash is right, and what is in it?
            let reader = Reader::without_cache(&repository)?;
            let packs: Vec<PackId> = mended_packs(&outcomes).collect();
            let again = run_on(&packs, &|| false, affected_max, &reader, threads, work.monitor())?;
            found.add(Found::of(&repository, &reader, again)?, &packs);
            // What was found when the repository was opened, and is whole by now.
            let is_back = |fault: &Fault| {
                let behind = repository.behind().iter().map(Behind::object);
                let is_old = behind.chain(repository.access.faults.iter().map(|(object, _)| object.clone()));
                is_old.into_iter().any(|object| object == fault.object)
                    && mended(&outcomes).any(|object| object == fault.object)
            };
            found.report.faults.retain(|fault| !is_back(fault));
        }
    }
    let took = work.elapsed();
    drop(work);
    let Found { report, known, .. } = &found;
    ages.remember(&report.hashed, app.world.now().secs, |pack| known.contains(pack));
    app.tell_notices();
    let Chosen { known, due, .. } = chosen;
    let told = Told {
        packs: known,
        packs_due: due,
        packs_read: report.packs_read,
        bytes_read: report.bytes_read,
        objects: None,
        is_limited: is_limited(args),
        took,
    };
    tell(app, &faults, &outcomes, report.faults.len(), &told)?;
    found.note(app, &repository)?;
    end(&*storage, args, found.report.faults.len())
}

/// What a scrub with a key knows, once or after repairs.
struct Found {
    report: Report,
    /// The packs the index names.
    known: BTreeSet<PackId>,
    /// Notes of damage of packs that are whole.
    mended: BTreeSet<crate::id::ObjectId>,
}

impl Found {
    fn of(repository: &Repository, reader: &Reader<'_>, mut report: Report) -> Result<Self> {
        let (catalog, collections) = (reader.catalog(), reader.collections());
        let known = catalog.packs().iter().map(|pack| pack.id).collect();
        let is_whole = |description: &DescriptionId| report.verified.contains(description);
        let whole: BTreeSet<PackId> =
            catalog.packs().iter().filter(|pack| is_whole(&pack.description)).map(|pack| pack.id).collect();
        let notes = collections.damage_notes.iter().filter(|(pack, _)| whole.contains(pack));
        let mended = notes.flat_map(|(_, notes)| notes).copied().collect();
        // What was noted before need not be said again.
        report
            .damaged
            .retain(|pack, chunks| !chunks.iter().all(|chunk| collections.damaged.contains(&(*chunk, *pack))));
        let damaged = report.faults.iter().filter_map(|fault| pack_of(&fault.object));
        let read: BTreeSet<PackId> = report.hashed.iter().copied().chain(damaged).collect();
        let parity = keyless::parity_faults(&*repository.storage, &read)?;
        report.faults.extend(parity.into_iter().map(|(object, message)| Fault {
            object,
            message: format!("{message}; nothing that is restored needs it"),
            affected: vec![],
            affected_total: 0,
        }));
        Ok(Self { report, known, mended })
    }

    /// Takes in what was found after these packs were put back.
    fn add(&mut self, later: Self, mended: &[PackId]) {
        let mended: BTreeSet<String> = mended.iter().map(pack_name).collect();
        let earlier = std::mem::replace(&mut self.report, later.report);
        let report = &mut self.report;
        // Only what was read is at fault for what is in it; all else was looked at again.
        let has = |report: &Report, object: &str| report.faults.iter().any(|fault| fault.object == object);
        for fault in earlier.faults {
            if fault.object.starts_with(PACKS) && !mended.contains(&fault.object) && !has(report, &fault.object) {
                report.faults.push(fault);
            }
        }
        report.damaged.extend(earlier.damaged.into_iter().filter(|(pack, _)| !mended.contains(&pack_name(pack))));
        report.verified.extend(earlier.verified);
        report.hashed.extend(earlier.hashed);
        report.packs_read = earlier.packs_read;
        report.bytes_read = earlier.bytes_read;
        self.known.extend(later.known);
        self.mended.extend(later.mended);
    }

    /// Tells every machine.
    fn note(&self, app: &App, repository: &Repository) -> Result<()> {
        if !repository.behind().is_empty() {
            let what =
                "what was found is not noted for other machines: the storage was older than what was seen before";
            app.console.remark(Severity::Warning, what);
            return Ok(());
        }
        repository.note_scrubbed(&self.report.verified, &self.mended, &self.report.damaged)?;
        Ok(())
    }
}

fn percent_or_usual(percent: u32) -> u32 {
    if percent == 0 { PARITY_PERCENT } else { percent }
}

fn mended(outcomes: &[Outcome]) -> impl Iterator<Item = &str> {
    outcomes.iter().filter(|outcome| outcome.result.is_ok()).map(|outcome| &*outcome.object)
}

fn mended_packs(outcomes: &[Outcome]) -> impl Iterator<Item = PackId> {
    mended(outcomes).filter_map(pack_of)
}

fn tell(app: &App, faults: &[Fault], outcomes: &[Outcome], left: usize, told: &Told) -> Result<()> {
    for fault in faults {
        tell_fault(app, fault)?;
    }
    for Outcome { object, result } in outcomes {
        match (app.global.json, result) {
            (true, _) => app.out.json(&objects::message(
                "repair",
                json!({
                    "object": object,
                    "repaired": result.is_ok(),
                    "from": result.as_ref().ok().map(|from| from.name()),
                    "reason": result.as_ref().err(),
                }),
            ))?,
            (false, Ok(from)) => app.say(&format!("repaired: {} from {}", text::plain(object), from.name()))?,
            (false, Err(why)) => {
                app.console.print(&format!("not repaired: {}: {}", text::plain(object), text::plain(why)));
            }
        }
    }
    let repaired = mended(outcomes).count();
    if app.global.json {
        return app.out.json(&objects::message(
            "summary",
            json!({
                "num_errors": left,
                "found": faults.len(),
                "repaired": repaired,
                "packs": told.packs,
                "packs_due": told.packs_due,
                "packs_read": told.packs_read,
                "bytes_read": told.bytes_read,
                "total_duration": told.took.as_secs_f64(),
            }),
        ));
    }
    let damage = match (faults.len(), repaired) {
        (0, _) => "no damage found".to_owned(),
        (found, 0) => format!("{} damaged", text::count(found as u64, "object", "objects")),
        (found, repaired) => {
            format!("{} damaged, {repaired} repaired", text::count(found as u64, "object", "objects"))
        }
    };
    let read = text::count(told.packs_read, "pack", "packs");
    let (bytes, took) = (text::bytes(told.bytes_read), text::duration(told.took));
    app.say(&format!("scrubbed {read}, {bytes} in {took}: {damage}"))?;
    let mut table = Table::bare(&[Side::Left, Side::Left]);
    let later = if told.is_limited { told.packs_due.saturating_sub(told.packs_read) } else { 0 };
    table.row(["  packs".into(), text::number(told.packs)]);
    table.row([
        "  due".into(),
        match later {
            0 => text::number(told.packs_due),
            later => format!("{}; {} left for a next run", text::number(told.packs_due), text::number(later)),
        },
    ]);
    if let Some(objects) = told.objects {
        table.row(["  other objects".into(), text::number(objects)]);
    }
    app.say(&table.lines().join("\n"))
}

/// The exit code, and what to do.
fn end(storage: &dyn Storage, args: &ScrubArgs, left: usize) -> Result<()> {
    if left == 0 {
        return Ok(());
    }
    let objects = text::count(left as u64, "object", "objects");
    let what = format!("the repository at `{}` is damaged: {objects}; each is named above", storage.place());
    let anew = match args.without_key {
        true => "run `esker scrub` with a key: the next backup then stores anew what the source still has",
        false => "run `esker backup`: it stores anew what the source still has",
    };
    let hint = match (args.repair, args.from.is_some()) {
        (false, _) => format!("to put back what can be, add `--repair`; {anew}"),
        (true, false) => format!("if there is a copy of the repository, add `--from URL`; {anew}"),
        (true, true) => anew.to_owned(),
    };
    Err(Fail::Code(4, Error::new(Kind::Damaged, what).hint(hint)))
}
