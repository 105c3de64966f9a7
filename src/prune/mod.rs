//! Collecting garbage, beside any number of backups and other collections (SPEC §10.5, G1 to G8).
//!
//! [`survey`] looks at the repository and marks what is live, [`mod@plan`] chooses what to delete and what to
//! rewrite, [`repack`] rewrites it in an ordinary session, [`ask`] waits for the writers that may not have
//! seen what is condemned, [`fold`] puts single records together, and this file puts the steps in their order.
//! [`mod@reencrypt`] goes as far as rewriting, for another reason. A collection has a random
//! id and is never gone on with: one that stops costs the next its work, nothing else.

mod ask;
pub mod fold;
pub mod plan;
pub mod reencrypt;
mod repack;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::{Context, Error, Kind, Result};
use crate::format::access::Role;
use crate::format::cbor::{self, Extra};
use crate::format::gc::{Condemned, Done, Swept};
use crate::format::record::RecordKind;
use crate::id::{CollectionId, ObjectId, PackId, SessionId};
use crate::monitor::{Monitor, Severity};
use crate::repo::Repository;
use crate::repo::collections::{Collections, FLAGS, GC, Lists};
use crate::repo::keys::not_an_owner;
use crate::repo::pack_writer::PackSettings;
use crate::repo::parity::{PARITY, parity_of};
use crate::repo::session::{ALIVE, Outcome, PACKS, SESSIONS, pack_name};
use crate::storage::ErrorKind;
use crate::storage::parallel::try_map;
use ask::{Answers, Wait};
use fold::Folded;
use plan::{Limits, Plan};
use survey::{Live, Looking, Survey};

/// How long a writer may be silent before a collection asks it, unless told otherwise. A writer shows a sign
/// of life each minute, and asking one that lives after all costs it little.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What to collect, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is worth rewriting, and how much may be deleted.
    pub limits: Limits,
    /// How packs are made of what is rewritten.
    pub packs: PackSettings,
    /// How long a writer may be silent before it is asked whether it has committed. Asking early costs
    /// that writer looking at everything again, nothing else.
    pub patience: Duration,
    /// Goes by this machine's clock though it is far from what others have signed.
    pub ignore_clock: bool,
    /// Sessions that have lost their announcement and their commit are called void.
    pub close_lost: bool,
    /// How many single records of a kind are put together in a log.
    pub fold_from: usize,
    /// How many snapshots are gone through at once.
    pub threads: usize,
}

impl Options {
    fn looking<'m>(&self, monitor: &'m Monitor) -> Looking<'m> {
        Looking { close_lost: self.close_lost, threads: self.threads, own: None, monitor }
    }
}

/// What a collection did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What it set out to do.
    pub plan: Plan,
    /// Packs that were deleted.
    pub packs_deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// Packs that were rewritten.
    pub packs_repacked: u64,
    /// Bytes of the packs that took their place.
    pub bytes_written: u64,
    /// Packs that were condemned and not deleted, since somebody uses them again.
    pub packs_spared: u64,
    /// Sessions that never committed and were given up.
    pub sessions_closed: u64,
    /// What became of single records.
    pub folded: Folded,
}

/// Looks at the repository and says what a collection would do.
pub fn plan(repo: &Repository, options: &Options, monitor: &Monitor) -> Result<Plan> {
    if repo.keys.role != Role::Owner {
        return Err(not_an_owner());
    }
    let looking = options.looking(monitor);
    let plan = |survey: &Survey<'_>, live: &Live| survey.plan(live, &options.limits);
    Survey::look(repo, looking)?.settled(looking, None, plan).map(|(.., plan)| plan)
}

/// Collects garbage. What it deletes is in [`Report::plan`] before; `agree` is shown that and may refuse.
pub fn run(
    repo: &Repository,
    options: &Options,
    monitor: &Monitor,
    agree: impl FnOnce(&Plan) -> Result<()>,
) -> Result<Report> {
    if repo.keys.role != Role::Owner {
        return Err(not_an_owner());
    }
    repo.refuse_if_behind()?;
    // G1 to G3.
    let logs_before = repo.load_logs(Lists::Settled)?;
    let looking = options.looking(monitor);
    let survey = Survey::look(repo, looking)?;
    if !options.ignore_clock {
        survey.refuse_a_wrong_clock()?;
    }
    if survey.is_in_doubt() {
        let message = "another collection has yet to say what becomes of one; nothing is deleted until it has";
        monitor.problem(Severity::Note, "sessions", message.to_owned());
    }
    let (mut survey, mut live, plan) =
        survey.settled(looking, None, |survey, live| survey.plan(live, &options.limits))?;
    plan.refuse_too_much(&options.limits)?;
    agree(&plan)?;
    let notes = survey.notes_to_see();
    let mut report = Report { plan, ..Report::default() };
    let mut garbage = report.plan.garbage.clone();
    let mut is_safe = true;
    if !report.plan.repack.is_empty() {
        report.bytes_written = repack::run(&survey, &live, &report.plan.repack, options.packs, monitor)
            .context(|| "nothing was collected")?;
        report.packs_repacked = report.plan.repack.len() as u64;
        // What was rewritten has a place in the new packs; looked at afresh, since others went on meanwhile.
        let avoid = report.plan.repack.clone();
        let garbage_of = |survey: &Survey<'_>, live: &Live| survey.garbage(live, &avoid);
        (survey, live, (garbage, is_safe)) =
            Survey::look(repo, looking)?.settled(looking, Some((&survey, &live)), garbage_of)?;
    }
    let collection = Collection { repo, id: new_id(repo, survey.generation()) };
    // What others have asked and not answered is asked again.
    let at_once = &survey.lost_sessions() | survey.asked();
    let counted = if is_safe { survey.asked_and_counted() } else { BTreeSet::new() };
    if !garbage.is_empty() {
        collection.condemn(&garbage)?;
    }
    // G4, G5.
    let wait = if garbage.is_empty() { Wait::ForNone } else { Wait::ForAll };
    let mut answers = ask::all(repo, &collection.id, &at_once, wait, options, monitor)?;
    // G6.
    if !garbage.is_empty() {
        let spared = survey.look_again(&live, &collection.id, &garbage, looking)?;
        report.packs_spared = spared.len() as u64;
        garbage.retain(|pack| !spared.contains(pack));
    }
    if !answers.asked.is_empty() {
        answers.settle(&repo.load_collections()?, &counted);
    }
    report.sessions_closed = answers.void.len() as u64;
    // Whoever was asked is told, whatever came of it.
    let mut swept = None;
    if wait == Wait::ForAll || !answers.asked.is_empty() {
        swept = Some(collection.sweep(&garbage, &answers)?);
    }
    // G8.
    let collections = repo.load_collections()?;
    (report.packs_deleted, report.bytes_deleted) = collection.delete(&collections)?;
    collection.clear_sessions(&collections)?;
    collection.clear_slots()?;
    if swept.is_some() || !notes.is_empty() {
        collection.finish(swept.into_iter().collect(), notes)?;
    }
    collection.finish_abandoned(&collections)?;
    // G7, last: what this collection has put is then folded, too.
    report.folded = fold::run(repo, &logs_before, options.fold_from, monitor)?;
    Ok(report)
}

/// An id for a collection: random, but for the generation it begins with.
fn new_id(repo: &Repository, generation: u16) -> CollectionId {
    let mut id: [u8; 16] = repo.world.random();
    (id[0], id[1]) = ((generation >> 8) as u8, generation as u8);
    CollectionId::from_bytes(id)
}

/// One collection's records.
struct Collection<'r> {
    repo: &'r Repository,
    id: CollectionId,
}

impl Collection<'_> {
    fn name(&self, part: &str) -> String {
        format!("{GC}{}/{part}", self.id)
    }

    /// Tells everybody who announces from now on not to rely on these packs.
    fn condemn(&self, packs: &BTreeSet<PackId>) -> Result<()> {
        let record = Condemned {
            collection: self.id,
            time_secs: self.repo.world.now().secs,
            packs: packs.iter().copied().collect(),
            extra: Extra::default(),
        };
        self.repo.put_named_record(RecordKind::Condemned, &self.name("condemned"), &cbor::encode(&record))?;
        self.repo.storage.barrier().context(|| "cannot condemn packs")
    }

    /// Says for ever what is dead and void; gives the sweep's hash.
    fn sweep(&self, dead: &BTreeSet<PackId>, answers: &Answers) -> Result<ObjectId> {
        let record = Swept {
            collection: self.id,
            time_secs: self.repo.world.now().secs,
            dead: dead.iter().copied().collect(),
            void: answers.void.iter().copied().collect(),
            counted: answers.counted.iter().copied().collect(),
            extra: Extra::default(),
        };
        let hash = self.repo.put_named_record(RecordKind::Swept, &self.name("swept"), &cbor::encode(&record))?;
        self.repo.storage.barrier().context(|| "cannot publish a sweep")?;
        Ok(hash)
    }

    /// Deletes every dead pack that is still there, and then its parity; those of collections that stopped before
    /// it too.
    fn delete(&self, collections: &Collections) -> Result<(u64, u64)> {
        let storage = &self.repo.storage;
        let listed = storage.list(PACKS).context(|| "cannot list the packs")?;
        let dead = |name: &str| {
            name.rsplit('/').next().and_then(|id| id.parse().ok()).is_some_and(|id| collections.dead.contains(&id))
        };
        let dead: Vec<_> = listed.into_iter().filter(|object| dead(&object.name)).collect();
        try_map(storage.connections(), &dead, |object| self.remove(&object.name))?;
        let parity = storage.list(PARITY).context(|| "cannot list the parity objects")?;
        let of_dead = |name: &str| parity_of(name).is_some_and(|pack| collections.dead.contains(&pack));
        let parity: Vec<_> = parity.into_iter().filter(|object| of_dead(&object.name)).collect();
        try_map(storage.connections(), &parity, |object| self.remove(&object.name))?;
        Ok((dead.len() as u64, dead.iter().map(|object| object.bytes).sum()))
    }

    /// Deletes an object, which somebody else may have done.
    fn remove(&self, name: &str) -> Result<()> {
        match self.repo.storage.delete(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.context(|| format!("cannot delete `{name}`")),
        }
    }

    /// Deletes flags that were answered, and what sessions that are over have left.
    fn clear_sessions(&self, collections: &Collections) -> Result<()> {
        let storage = &self.repo.storage;
        let flags = self.repo.load_flags(FLAGS)?;
        // Only after a sweep that answers it is there may a flag go: whoever misses it sees the sweep.
        let answered = flags.iter().flat_map(|(session, by)| {
            let by = by.iter().filter(|collection| !collections.asks(collection, session));
            by.map(move |collection| format!("{FLAGS}{session}/{collection}"))
        });
        let mut names: Vec<String> = answered.collect();
        let commits = self.repo.load_commits(&mut self.repo.open_catalog())?;
        for folder in [ALIVE, SESSIONS] {
            for object in storage.list(folder).context(|| format!("cannot list `{folder}`"))? {
                let session = object.name.strip_prefix(folder).and_then(|id| id.parse::<SessionId>().ok());
                if session.is_some_and(|id| commits.headers.contains_key(&id) || collections.void.contains(&id)) {
                    names.push(object.name);
                }
            }
        }
        try_map(storage.connections(), &names, |name| self.remove(name)).map(drop)
    }

    /// Deletes passwords that were taken away.
    fn clear_slots(&self) -> Result<()> {
        let storage = &self.repo.storage;
        for folder in ["keys/", "copies/keys/"] {
            for object in storage.list(folder).context(|| format!("cannot list `{folder}`"))? {
                let slot = object.name.strip_prefix(folder).and_then(|id| id.parse().ok());
                if slot.is_some_and(|slot| self.repo.access.removed_slots().contains(&slot)) {
                    self.remove(&object.name)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the collection: all it called dead is deleted.
    fn finish(&self, sweeps: Vec<ObjectId>, seen_notes: BTreeSet<ObjectId>) -> Result<()> {
        self.done(&self.id, sweeps, seen_notes.into_iter().collect())
    }

    /// Ends collections that stopped on their way and of whose packs none is left.
    fn finish_abandoned(&self, collections: &Collections) -> Result<()> {
        let abandoned: BTreeMap<_, _> =
            collections.unfinished.iter().filter(|(collection, _)| **collection != self.id).collect();
        if abandoned.is_empty() {
            return Ok(());
        }
        let listed = self.repo.storage.list(PACKS).context(|| "cannot list the packs")?;
        let there: BTreeSet<_> = listed.into_iter().map(|object| object.name).collect();
        for (collection, packs) in abandoned {
            if !packs.iter().any(|pack| there.contains(&pack_name(pack))) {
                let sweeps = collections.sweeps.get(collection).copied().into_iter().collect();
                self.done(collection, sweeps, Vec::new())?;
            }
        }
        Ok(())
    }

    fn done(&self, collection: &CollectionId, sweeps: Vec<ObjectId>, seen_notes: Vec<ObjectId>) -> Result<()> {
        let record = Done {
            collection: *collection,
            time_secs: self.repo.world.now().secs,
            sweeps,
            seen_notes,
            extra: Extra::default(),
        };
        let name = format!("{GC}{collection}/done");
        match self.repo.put_named_record(RecordKind::Done, &name, &cbor::encode(&record)) {
            // Another collection has said the same.
            Err(error) if error.storage_kind() == Some(ErrorKind::Exists) => Ok(()),
            put => {
                put?;
                self.repo.storage.barrier().context(|| "cannot end a collection")
            }
        }
    }
}

/// What a session that was flagged or found void costs: a collector's own session is no exception.
fn refused(outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::Made => Ok(()),
        Outcome::Flagged => Err(Error::new(Kind::Failed, "another collection is under way and has asked this one")
            .hint("run the same command again when the other is done")),
    }
}

/// What was to be rewritten is gone: another collection has moved it.
fn outrun() -> Error {
    Error::new(Kind::Failed, "another collection is under way and has moved what this one was rewriting")
        .hint("run the same command again when the other is done")
}

fn warn(monitor: &Monitor, object: &str, message: impl Into<String>) {
    monitor.problem(Severity::Warning, object, message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::session::CommitKind;
    use crate::repo::content::Reader;
    use crate::repo::reader::ReadRepo;
    use crate::repo::session::Session;
    use crate::repo::tests::{COLLECTION, flag, repository, store_as, sweep_by};
    use crate::storage::Storage;

    fn collect(repo: &Repository) -> Report {
        let options = Options {
            limits: Limits::default(),
            packs: PackSettings::default(),
            patience: Duration::ZERO,
            ignore_clock: true,
            close_lost: false,
            fold_from: fold::WORTH_IT,
            threads: 1,
        };
        run(repo, &options, &Monitor::silent(), |_| Ok(())).unwrap()
    }

    #[test]
    fn what_a_collection_that_stopped_has_asked_the_next_answers_for_ever() {
        let (memory, repo) = repository();
        let (counts, id, _) = store_as(&repo, CommitKind::Checkpoint, b"some content");
        let open = Session::begin(&repo).unwrap().id();
        let gone = SessionId::from_bytes([3; 16]);
        [counts, open, gone].into_iter().for_each(|session| flag(&repo, session));
        assert!(!Session::begin(&repo).unwrap().may_reuse(&id), "asked");
        collect(&repo);
        assert!(memory.list(FLAGS).unwrap().is_empty());
        assert!(Session::begin(&repo).unwrap().may_reuse(&id), "answered");
        let void = repo.load_collections().unwrap().void;
        assert!(void.contains(&open) && void.contains(&gone) && !void.contains(&counts));
        // It was slow, and finds now what it would have found then.
        sweep_by(&repo, COLLECTION, &[counts], &[]);
        assert!(Reader::new(&repo).unwrap().chunk(&id).is_ok());
        collect(&repo);
        assert!(Reader::new(&repo).unwrap().chunk(&id).is_ok());
    }

    #[test]
    fn what_another_has_said_meanwhile_is_said_again() {
        let [void, counted, silent] = [[1; 16], [2; 16], [3; 16]].map(SessionId::from_bytes);
        let (_, repo) = repository();
        sweep_by(&repo, COLLECTION, &[counted], &[void]);
        let mut answers =
            Answers { asked: [void, counted, silent].into(), void: [void].into(), counted: BTreeSet::new() };
        answers.settle(&repo.load_collections().unwrap(), &[counted].into());
        assert_eq!((answers.void, answers.counted), ([counted].into(), [void].into()));
    }
}
