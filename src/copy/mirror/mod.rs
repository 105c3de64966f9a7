//! Mirroring: the stored objects of a repository, as they are, at another place. Needs no key.
//!
//! [`order`] says which objects there are and in which order they come: at every moment a reader of the mirror
//! finds a repository there as it once was at the source, or none. [`object`] moves one, verified by its name or
//! by the digest at its end before it counts for anything at the mirror.
//!
//! Objects are never changed, so one that is there in its length is there. What is not at the source is left
//! alone unless it is to be deleted, and that is refused when it is suspiciously much.

mod object;
mod order;

use std::collections::BTreeMap;

use order::{Stage, stage};

use crate::error::{Context, Error, Kind, Result};
use crate::monitor::{Monitor, Severity};
use crate::repo::collections::GC;
use crate::repo::commits::SNAPSHOTS;
use crate::repo::open::{CONFIG, COPIES, read_config};
use crate::storage::parallel::try_map;
use crate::storage::{ErrorKind, Listed, Storage};

/// How often the source is listed until it stands still, and begun anew when a collection takes something
/// from under the mirror.
const ATTEMPTS_MAX: u32 = 8;

/// A mirror of less than this may lose any share of itself, as when something is tried out.
const MAX_DELETE_FROM_BYTES: u64 = 1 << 30;

/// What to do besides copying what is missing.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Delete at the mirror what is not at the source …
    pub delete: bool,
    /// … unless it is a larger share of a mirror of more than a gibibyte.
    pub max_delete_percent: f64,
    /// Read what is at the mirror already, and put it anew where it is damaged.
    pub verify: bool,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// Objects to be put, in order.
    pub put: Vec<Listed>,
    /// Objects that are there in another length, and are put anew.
    pub replace: Vec<Listed>,
    /// Objects that are there.
    pub there: Vec<Listed>,
    /// Objects to be deleted, in order.
    pub delete: Vec<Listed>,
    /// Objects at the mirror that are not at the source, and stay.
    pub others: u64,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects that were put.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Those among them that took the place of damaged ones.
    pub mended: u64,
    /// Objects that were there.
    pub there: u64,
    /// Objects that were deleted.
    pub deleted: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Objects at the mirror that are not at the source, and stayed.
    pub others: u64,
    /// Objects that are damaged at the source; each was reported.
    pub damaged: u64,
}

/// The bytes of objects.
pub fn bytes_of(objects: &[Listed]) -> u64 {
    objects.iter().map(|object| object.bytes).sum()
}

/// What a mirror holds, and whether it may hold this repository.
struct Mirrored {
    is_begun: bool,
    objects: BTreeMap<String, u64>,
}

/// Finds out what there is to do.
pub fn plan(source: &dyn Storage, target: &dyn Storage, options: &Options) -> Result<Plan> {
    let config = read_config(source, CONFIG).map_err(|error| match error.storage_kind() {
        Some(ErrorKind::NotFound) => {
            Error::new(Kind::NoRepository, format!("there is no repository at `{}`", source.place())).because(error)
        }
        _ => error,
    })?;
    let mirrored = look_at_mirror(target, config.repo)?;
    let objects = listed_standing_still(source)?;
    let mut plan = Plan::default();
    for object in objects.values() {
        match mirrored.objects.get(&object.name) {
            None => plan.put.push(object.clone()),
            Some(bytes) if *bytes == object.bytes => plan.there.push(object.clone()),
            Some(_) => plan.replace.push(object.clone()),
        }
    }
    let is_known = |name: &&String| stage(name).is_some() && !objects.contains_key(*name);
    let others: Vec<Listed> = (mirrored.objects.iter().filter(|(name, _)| is_known(name)))
        .map(|(name, bytes)| Listed { name: name.clone(), bytes: *bytes })
        .collect();
    order::sort(&mut plan.put);
    order::sort(&mut plan.replace);
    match options.delete {
        true => {
            plan.delete = others;
            order::sort(&mut plan.delete);
            // What comes first is needed by what comes after.
            plan.delete.reverse();
            refuse_too_much(&plan, &mirrored, &objects, options)?;
        }
        false => plan.others = others.len() as u64,
    }
    Ok(plan)
}

/// Lists a mirror, which must be one of this repository, or nothing yet.
fn look_at_mirror(target: &dyn Storage, repo: crate::id::RepoId) -> Result<Mirrored> {
    let place = target.place();
    let copy = format!("{COPIES}{CONFIG}");
    let mut is_begun = false;
    for name in [CONFIG, &copy] {
        match read_config(target, name) {
            Ok(config) if config.repo == repo => is_begun = true,
            Ok(config) => {
                let what = format!(
                    "nothing was mirrored: at `{place}` is repository `{}`, and the source is `{}`",
                    config.repo.short(),
                    repo.short()
                );
                return Err(Error::new(Kind::Refused, what)
                    .hint("to copy snapshots between repositories, leave out `--mirror`"));
            }
            Err(error) if error.storage_kind() == Some(ErrorKind::NotFound) => {}
            // The other one tells; this one is put anew.
            Err(error) if error.kind() == Kind::Damaged => {}
            Err(error) => return Err(error),
        }
    }
    let listed = target.list("").context(|| format!("cannot list what is at `{place}`"))?;
    let objects: BTreeMap<_, _> = listed.into_iter().map(|object| (object.name, object.bytes)).collect();
    let foreign = objects.keys().find(|name| stage(name).is_some());
    match foreign {
        Some(found) if !is_begun => {
            let what =
                format!("nothing was mirrored: `{place}` holds `{found}` and no configuration of this repository");
            Err(Error::new(Kind::Refused, what).hint("take an empty place, or put back what is lost there"))
        }
        _ => Ok(Mirrored { is_begun, objects }),
    }
}

/// The source's objects. Commits and collections are listed before all else and after it: when they are the
/// same, all that the commits name is listed, but what the collections have called dead.
fn listed_standing_still(source: &dyn Storage) -> Result<BTreeMap<String, Listed>> {
    let list = |prefix: &str| source.list(prefix).context(|| format!("cannot list `{prefix}` at the source"));
    let heads = || Ok::<_, Error>((list(SNAPSHOTS)?, list(GC)?));
    let mut before = heads()?;
    for _ in 0..ATTEMPTS_MAX {
        let all = list("")?;
        let after = heads()?;
        if before == after {
            let known = all.into_iter().filter(|object| stage(&object.name).is_some());
            return Ok(known.map(|object| (object.name.clone(), object)).collect());
        }
        before = after;
    }
    Err(Error::new(Kind::Failed, "nothing was mirrored: the source did not stand still while it was listed")
        .hint("try again when fewer backups end at once"))
}

/// Refuses to delete more than is usual: a source that was emptied empties no mirror.
fn refuse_too_much(
    plan: &Plan,
    mirrored: &Mirrored,
    source: &BTreeMap<String, Listed>,
    options: &Options,
) -> Result<()> {
    let commits =
        |mut names: Box<dyn Iterator<Item = &String> + '_>| names.any(|name| stage(name) == Some(Stage::Commits));
    if mirrored.is_begun && commits(Box::new(mirrored.objects.keys())) && !commits(Box::new(source.keys())) {
        let what = "nothing was mirrored: the source has no snapshots left, and the mirror has some";
        return Err(Error::new(Kind::Refused, what).hint("without `--delete` nothing at the mirror is touched"));
    }
    let stored: u64 = mirrored.objects.values().sum();
    let percent = bytes_of(&plan.delete) as f64 * 100.0 / (stored.max(1) as f64);
    if stored < MAX_DELETE_FROM_BYTES || percent <= options.max_delete_percent {
        return Ok(());
    }
    let what = format!(
        "nothing was mirrored: {percent:.0} % of the mirror would be deleted, and {:.0} % may be",
        options.max_delete_percent
    );
    Err(Error::new(Kind::Refused, what).hint("see what with `--dry-run`; if that is right, add `--max-delete 100%`"))
}

/// Makes the mirror what the source is. `agree` is shown what is to be done and may refuse.
pub fn run(
    source: &dyn Storage,
    target: &dyn Storage,
    options: &Options,
    monitor: &Monitor,
    mut agree: impl FnMut(&Plan) -> Result<()>,
) -> Result<Report> {
    let mut report = Report::default();
    for _ in 0..ATTEMPTS_MAX {
        let plan = plan(source, target, options)?;
        agree(&plan)?;
        let moving = Moving { source, target, monitor };
        match moving.run(&plan, options, &mut report)? {
            Ended::Whole => return Ok(report),
            Ended::Anew => {}
        }
    }
    Err(Error::new(Kind::Failed, "the mirror is not up to date: the source changed again and again")
        .hint("try again when no collection is under way there"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Whole,
    /// Something was deleted at the source meanwhile.
    Anew,
}

/// What became of one object.
enum Moved {
    Put,
    Whole,
    Gone,
    Damaged,
}

struct Moving<'a> {
    source: &'a dyn Storage,
    target: &'a dyn Storage,
    monitor: &'a Monitor,
}

impl Moving<'_> {
    fn run(&self, plan: &Plan, options: &Options, report: &mut Report) -> Result<Ended> {
        (report.there, report.others) = (plan.there.len() as u64, plan.others);
        let mut put: Vec<(&Listed, bool)> = plan.put.iter().map(|object| (object, false)).collect();
        put.extend(plan.replace.iter().map(|object| (object, true)));
        put.sort_by_key(|(object, _)| order::key(object));
        self.monitor
            .counters()
            .bytes_total
            .store(put.iter().map(|(object, _)| object.bytes).sum(), std::sync::atomic::Ordering::Relaxed);
        if options.verify && self.mend(&plan.there, report)? == Ended::Anew {
            return Ok(Ended::Anew);
        }
        for group in put.chunk_by(|a, b| stage(&a.0.name) == stage(&b.0.name)) {
            let moved = self.each(group, |(object, replace)| self.move_one(object, *replace))?;
            self.target.barrier().context(|| "cannot make the mirror durable")?;
            let mut names = Vec::new();
            for ((object, replace), moved) in group.iter().zip(moved) {
                match moved {
                    Moved::Put | Moved::Whole => {
                        names.push(*object);
                        report.copied += 1;
                        report.copied_bytes += object.bytes;
                        report.mended += u64::from(*replace);
                    }
                    Moved::Damaged => report.damaged += 1,
                    Moved::Gone => return Ok(Ended::Anew),
                }
            }
            self.look_after(&names)?;
        }
        for group in plan.delete.chunk_by(|a, b| stage(&a.name) == stage(&b.name)) {
            self.each(group, |object| match self.target.delete(&object.name) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                done => done.context(|| format!("cannot delete `{}` at the mirror", object.name)),
            })?;
            report.deleted += group.len() as u64;
            report.deleted_bytes += bytes_of(group);
        }
        Ok(Ended::Whole)
    }

    /// Does something with each object, several at once.
    fn each<T: Sync, U: Send>(&self, objects: &[T], work: impl Fn(&T) -> Result<U> + Sync) -> Result<Vec<U>> {
        let at_once = self.source.connections().max(self.target.connections()).max(2);
        try_map(at_once, objects, |object| {
            if self.monitor.stopping() {
                return Err(Error::new(Kind::Interrupted, "the mirror is not up to date: interrupted")
                    .hint("the same command goes on from there"));
            }
            work(object)
        })
    }

    fn move_one(&self, object: &Listed, replace: bool) -> Result<Moved> {
        match object::copy(self.source, self.target, object, replace) {
            Ok(()) => {
                self.monitor.done(1, object.bytes);
                Ok(Moved::Put)
            }
            Err(error) if error.storage_kind() == Some(ErrorKind::NotFound) => Ok(Moved::Gone),
            Err(error) if error.kind() == Kind::Damaged => {
                let message = format!("it is not mirrored: {}", error.with_causes());
                self.monitor.problem(Severity::Error, object.name.as_str(), message);
                Ok(Moved::Damaged)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes sure that objects are there in their lengths, before anything is put that rests on them.
    fn look_after(&self, objects: &[&Listed]) -> Result<()> {
        self.each(objects, |object| {
            let what = || format!("cannot look after `{}` at the mirror", object.name);
            let found = self.target.stat(&object.name).context(what)?;
            if found == object.bytes {
                return Ok(());
            }
            let short = format!("{}: it has {found} bytes where {} belong", what(), object.bytes);
            Err(Error::new(Kind::Failed, short))
        })
        .map(drop)
    }

    /// Reads what is there, and puts anew what is damaged.
    fn mend(&self, there: &[Listed], report: &mut Report) -> Result<Ended> {
        let moved = self.each(there, |object| match object::check(self.target, object) {
            Ok(()) => Ok(Moved::Whole),
            Err(error) if error.kind() == Kind::Damaged => {
                let message = format!("damaged at the mirror: {}", error.with_causes());
                self.monitor.problem(Severity::Warning, object.name.as_str(), message);
                self.move_one(object, true)
            }
            Err(error) => Err(error),
        })?;
        self.target.barrier().context(|| "cannot make the mirror durable")?;
        for (object, moved) in there.iter().zip(moved) {
            match moved {
                Moved::Whole => {}
                Moved::Put => {
                    report.mended += 1;
                    report.copied += 1;
                    report.copied_bytes += object.bytes;
                }
                Moved::Damaged => report.damaged += 1,
                Moved::Gone => return Ok(Ended::Anew),
            }
        }
        Ok(Ended::Whole)
    }
}
