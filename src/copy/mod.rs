//! Copying snapshots into another repository.
//!
//! The source is only read; the target is written to in ordinary sessions, one for each snapshot, oldest
//! first, so that a copy that is stopped has copied what it has said. [`alike`] copies chunks as they are
//! into a repository that was made alike, [`recut`] makes them anew for any other, [`target`] passes through
//! the sessions, [`verify`] reads back what was made. A copy names the snapshot it is of, and so is
//! made once: by an owner that is read at the target, and a writer, which can not, keeps a record
//! ([`copied`]). Damage is never carried over: every id is computed again, and a snapshot of which anything
//! cannot be read is not made.
//!
//! [`mirror`] is another thing: it copies a repository's stored objects, and needs no key.

mod alike;
mod copied;
mod damage;
mod learn;
pub mod mirror;
mod recut;
mod target;
mod verify;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use copied::Copied;
use damage::Damage;
use learn::Learned;
use target::{Halt, Target};

use crate::error::{Error, Kind, Result};
use crate::format::access::Role;
use crate::format::session::{CommitKind, Original, Snapshot};
use crate::format::tree::Detail;
use crate::id::{ChunkId, RepoId, SessionId};
use crate::monitor::{Monitor, Severity};
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::keys::not_an_owner;
use crate::repo::pack_writer::PackSettings;
use crate::repo::session::Outcome;
use crate::repo::snapshots::{Filter, SnapshotInfo};

/// A snapshot is begun anew at most this often when collectors get in its way.
const ATTEMPTS_MAX: u32 = 5;

/// What to copy, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which snapshots, but for those that are named.
    pub filter: Filter,
    /// Only these: ids, the beginnings of some, `latest`.
    pub snapshots: Vec<String>,
    /// Read every snapshot back from the target once it is made.
    pub verify: bool,
    /// How packs are made.
    pub packs: PackSettings,
    /// Threads that read.
    pub threads: usize,
    /// What is stored is committed when it is this much …
    pub checkpoint_bytes: u64,
    /// … or anything, and this long ago.
    pub checkpoint_secs: i64,
}

/// How ids of content at the target relate to the source's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// They are the same: chunks are copied as they are.
    Same,
    /// They are others: content is cut anew.
    Other,
}

/// What a copy would do.
#[derive(Debug)]
pub struct Plan {
    /// How ids relate.
    pub ids: Ids,
    /// The snapshots to copy, oldest first.
    pub wanted: Vec<SnapshotInfo>,
    /// How many of those asked for are at the target already.
    pub there: u64,
    /// Snapshots that were asked for and cannot be read, with the reason.
    pub unreadable: Vec<(SessionId, Error)>,
    /// Of snapshots in both, the source's and its copy.
    pairs: Vec<(SnapshotInfo, SnapshotInfo)>,
    /// Of snapshots that are there, what they are called there.
    names: HashMap<SessionId, SessionId>,
}

/// What became of one snapshot.
#[derive(Debug, Clone)]
pub struct Done {
    /// The snapshot at the source.
    pub from: SnapshotInfo,
    /// Its copy; `None` when it was not made.
    pub made: Option<SessionId>,
    /// Whether the copy was read back.
    pub verified: bool,
    /// Directories and files of it that cannot be read, here or there; each was reported.
    pub damaged: u64,
    /// Plain bytes of chunks that were stored for it.
    pub added_bytes: u64,
    /// What they became.
    pub stored_bytes: u64,
}

/// What a copy did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Snapshots that were copied.
    pub copied: u64,
    /// Snapshots that were not, or whose copy did not read back as it should.
    pub failed: u64,
    /// Plain bytes of chunks that were stored.
    pub added_bytes: u64,
    /// What they became.
    pub stored_bytes: u64,
}

fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "not every snapshot was copied: interrupted")
        .hint("what was stored is kept for a week: the same command goes on from there")
}

/// How the ids of two repositories relate.
fn ids(source: &Repository, target: &Repository) -> Ids {
    let cut = |repo: &Repository| {
        (repo.config.chunker.min_bytes, repo.config.chunker.avg_bytes, repo.config.chunker.max_bytes)
    };
    match source.keys.are_alike(&target.keys) && cut(source) == cut(target) {
        true => Ids::Same,
        false => Ids::Other,
    }
}

/// The snapshot that another is a version of, seen from neither repository.
fn origin(repo: &Repository, info: &SnapshotInfo) -> (RepoId, SessionId) {
    let here = repo.config.repo;
    info.snapshot.original.map_or((here, info.id()), |original| (original.repo.unwrap_or(here), original.session))
}

/// What two versions of one snapshot differ in, if they do; but for ids, if those are others.
fn version(info: &SnapshotInfo, ids: Ids) -> Snapshot {
    let mut version = Snapshot { parent: None, original: None, ..(*info.snapshot).clone() };
    if let (Ids::Other, Detail::Directory { id, level, .. }) = (ids, &mut version.root.detail) {
        (*id, *level) = (ChunkId::from_bytes([0; 32]), 0);
    }
    version
}

/// Finds out what is to be copied.
pub fn plan(source: &Reader<'_>, target: &Reader<'_>, options: &Options) -> Result<Plan> {
    let (from, to) = (source.repo(), target.repo());
    if from.keys.role != Role::Owner {
        return Err(not_an_owner().hint("the source is read: open it with an owner's key"));
    }
    if from.config.repo == to.config.repo {
        return Err(Error::new(
            Kind::Usage,
            "nothing was copied: the target is the same repository, or a mirror of it",
        )
        .hint("to copy stored objects to a mirror, add `--mirror`"));
    }
    if options.verify && to.keys.role != Role::Owner {
        return Err(Error::new(Kind::Refused, "nothing was copied: a writer's key reads nothing back")
            .hint("leave out `--verify`, or open the target with an owner's key"));
    }
    to.refuse_if_behind()?;
    let (asked, unreadable) = match options.snapshots.is_empty() {
        true => source.snapshots(&options.filter)?,
        false => {
            let named = options.snapshots.iter().map(|wanted| source.find_snapshot(wanted, &options.filter));
            let named = named.map(|info| info.map(|info| (info.id(), info))).collect::<Result<BTreeMap<_, _>>>()?;
            let mut named: Vec<_> = named.into_values().collect();
            named.sort_by_key(|info| (info.snapshot.time, info.header.sequence, info.header.session));
            (named, Vec::new())
        }
    };
    let ids = ids(from, to);
    let mut plan = Plan { ids, wanted: Vec::new(), there: 0, unreadable, pairs: Vec::new(), names: HashMap::new() };
    if to.keys.role != Role::Owner {
        let copied = Copied::load(to, from, target);
        for info in asked {
            match copied.get(&info.id()) {
                Some(made) => {
                    plan.names.insert(info.id(), made);
                    plan.there += 1;
                }
                None => plan.wanted.push(info),
            }
        }
        return Ok(plan);
    }
    // A stolen writer's key could say that it has copied what it has not.
    let (mut there, _) = target.snapshots(&Filter::default())?;
    there.retain(|info| to.trusts(&info.header.credential));
    let mut by_origin: HashMap<_, Vec<SnapshotInfo>> = HashMap::new();
    there.into_iter().for_each(|info| by_origin.entry(origin(to, &info)).or_default().push(info));
    for info in asked {
        let versions = by_origin.get(&origin(from, &info)).map_or(&[][..], Vec::as_slice);
        let own = version(&info, ids);
        match versions.iter().find(|there| version(there, ids) == own) {
            Some(copy) => {
                plan.names.insert(info.id(), copy.id());
                plan.pairs.push((info, copy.clone()));
                plan.there += 1;
            }
            None => plan.wanted.push(info),
        }
    }
    Ok(plan)
}

/// Copies what is planned, and tells `each` of every snapshot when it is done with it.
pub fn run(
    source: &Reader<'_>,
    to: &Reader<'_>,
    mut plan: Plan,
    options: &Options,
    monitor: &Monitor,
    each: &mut dyn FnMut(&Done) -> Result<()>,
) -> Result<Report> {
    let repo = to.repo();
    let mut report = Report { failed: plan.unreadable.len() as u64, ..Report::default() };
    for (session, error) in &plan.unreadable {
        monitor.problem(Severity::Error, session.short(), format!("it is not copied: {}", error.with_causes()));
    }
    let counters = monitor.counters();
    let totals = plan.wanted.iter().map(|info| info.snapshot.root.totals());
    let (files, bytes) = totals.fold((0_u64, 0_u64), |(files, bytes), totals| {
        let all = totals.files.saturating_add(totals.directories).saturating_sub(1);
        (files.saturating_add(all), bytes.saturating_add(totals.bytes))
    });
    counters.files_total.store(files, Ordering::Relaxed);
    counters.bytes_total.store(bytes, Ordering::Relaxed);
    let mut learned = Learned::new(to);
    if plan.ids == Ids::Other {
        for (from, copy) in newest_pairs(&plan) {
            learned.learn(source, &from.snapshot.root, &copy.snapshot.root, monitor)?;
        }
    }
    let mut copied = (repo.keys.role != Role::Owner).then(|| Copied::load(repo, source.repo(), to));
    let mut verifier = options.verify.then(|| verify::Verifier::new(repo, options.threads));
    let mut copying = Copying {
        source,
        ids: plan.ids,
        options,
        monitor,
        learned: &learned,
        target: Target::new(repo, options, monitor),
    };
    for info in std::mem::take(&mut plan.wanted) {
        let before = (copying.target.added_bytes, copying.target.stored_bytes);
        let mut damage = Damage::new(&info, monitor);
        let outcome = copying.snapshot(&info, &plan.names, &mut damage);
        if outcome.is_err() {
            // Whatever it was: what is stored need not be stored again.
            let _ = copying.target.end();
        }
        let made = outcome?;
        let mut done = Done {
            made,
            verified: false,
            damaged: damage.count,
            added_bytes: copying.target.added_bytes - before.0,
            stored_bytes: copying.target.stored_bytes - before.1,
            from: info,
        };
        if let Some(id) = made {
            plan.names.insert(done.from.id(), id);
            if let Some(copied) = &mut copied
                && let Err(error) = copied.add(&done.from.id(), &id)
            {
                let message = format!("that it was copied is not remembered, and it will be copied again: {error}");
                monitor.problem(Severity::Warning, done.from.id().short(), message);
            }
            if let Some(verifier) = &mut verifier {
                done.damaged += verifier.verify(&id, &done.from, monitor)?;
                done.verified = done.damaged == 0;
            }
        }
        match done.damaged {
            0 => report.copied += 1,
            _ => report.failed += 1,
        }
        each(&done)?;
    }
    copying.target.end()?;
    (report.added_bytes, report.stored_bytes) = (copying.target.added_bytes, copying.target.stored_bytes);
    Ok(report)
}

/// For each set of files of which something is to be copied, the newest snapshot that is in both.
fn newest_pairs(plan: &Plan) -> Vec<&(SnapshotInfo, SnapshotInfo)> {
    let set = |info: &SnapshotInfo| (info.snapshot.hostname.clone(), info.snapshot.paths.clone());
    let mut newest = BTreeMap::new();
    for pair in &plan.pairs {
        if plan.wanted.iter().any(|info| set(info) == set(&pair.0)) {
            newest.insert(set(&pair.0), pair);
        }
    }
    newest.into_values().collect()
}

/// A copy on its way.
struct Copying<'a, 's, 'r> {
    source: &'a Reader<'s>,
    ids: Ids,
    options: &'a Options,
    monitor: &'a Monitor,
    learned: &'a Learned<'a, 'r>,
    target: Target<'r>,
}

impl Copying<'_, '_, '_> {
    /// Copies a snapshot; gives its copy, unless the source has not all of it.
    fn snapshot(
        &mut self,
        info: &SnapshotInfo,
        names: &HashMap<SessionId, SessionId>,
        damage: &mut Damage,
    ) -> Result<Option<SessionId>> {
        for _ in 0..ATTEMPTS_MAX {
            self.target.begin_snapshot()?;
            damage.clear();
            let root = &info.snapshot.root;
            let (reader, threads, monitor) = (self.source, self.options.threads, self.monitor);
            let copied = match self.ids {
                Ids::Same => {
                    alike::transfer(reader, &mut self.target, root, threads, monitor, damage).map(|()| root.clone())
                }
                Ids::Other => recut::transfer(reader, &mut self.target, self.learned, root, threads, monitor, damage),
            };
            let root = match copied {
                Ok(root) => root,
                Err(Halt::BeginAnew) => continue,
                Err(Halt::Failed(error)) => return Err(error),
            };
            if damage.count > 0 {
                self.target.give_up();
                return Ok(None);
            }
            let snapshot = Snapshot { root, ..self.described(info, names) };
            if let (Outcome::Made, id) = self.target.commit(CommitKind::Snapshot, Some(&snapshot))? {
                return Ok(Some(id));
            }
        }
        let what =
            format!("snapshot `{}` was not copied: a collector interfered {ATTEMPTS_MAX} times", info.id().short());
        Err(Error::new(Kind::Failed, what).hint("run the copy again once `esker prune` has finished there"))
    }

    /// What the copy says of itself: what the snapshot says, and what it is a copy of.
    fn described(&self, info: &SnapshotInfo, names: &HashMap<SessionId, SessionId>) -> Snapshot {
        let (repo, session) = origin(self.source.repo(), info);
        let elsewhere = repo != self.target.repo().config.repo;
        let original = Some(Original { session, repo: elsewhere.then_some(repo) });
        let parent = info.snapshot.parent.and_then(|parent| names.get(&parent).copied());
        Snapshot { original, parent, ..(*info.snapshot).clone() }
    }
}
