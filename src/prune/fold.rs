//! Folding single records into logs (G7, SPEC §10.4).
//!
//! A repository that is backed up often gathers thousands of small objects: commits, notes, records of
//! collections. Here they are put together in logs, verbatim. The log is durable before a single object is
//! deleted, and readers list single objects before logs, so whoever looks sees one or both.
//!
//! Small logs are joined in the same way. One whose every item another log of a higher rank has is deleted,
//! but only if that one was there when this collection began: no list of logs, however many pages it has,
//! then misses both.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Context, Result};
use crate::format::cbor::{self, Extra};
use crate::format::gc::{Log, LogItem};
use crate::format::record::RecordKind;
use crate::id::{CollectionId, ObjectId, SessionId};
use crate::monitor::Monitor;
use crate::repo::Repository;
use crate::repo::collections::{Collections, FLAGS, GC, NOTES};
use crate::repo::commits::{SNAPSHOTS, session_of};
use crate::repo::logs::{LOG, Logs};
use crate::storage::ErrorKind;
use crate::storage::parallel::try_map;

/// How many single objects of a kind make a log worth it, unless told otherwise.
pub const WORTH_IT: usize = 64;
/// Bytes of a log, about.
const LOG_BYTES_TARGET: u64 = 8 << 20;
/// How many small logs of a kind are joined to one.
const JOINED_MIN: usize = 4;

/// What became of single objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Folded {
    /// Objects that stand in a log now and not by themselves.
    pub objects: u64,
    /// Logs that were written.
    pub logs_written: u64,
    /// Logs that were deleted, since others have all that was in them.
    pub logs_deleted: u64,
}

/// Commits lie in logs of their own: they are many, and seldom all wanted.
const KINDS: [&[&str]; 2] = [&[SNAPSHOTS], &[GC, NOTES]];

/// Folds what can be. `before` are the logs that were there when the collection began.
pub(super) fn run(repo: &Repository, before: &Logs, worth_it: usize, monitor: &Monitor) -> Result<Folded> {
    let mut folded = Folded::default();
    for prefixes in KINDS {
        if monitor.stopping() {
            break;
        }
        let collections = repo.load_collections()?;
        let logs = repo.known_logs();
        let singles = singles(repo, prefixes, &collections)?;
        let (again, new): (Vec<_>, Vec<_>) = singles.fold.into_iter().partition(|name| logs.find(name).is_some());
        let small = small_logs(&logs, prefixes);
        let mut gone = singles.delete;
        if new.len() >= worth_it.max(1) || small.len() >= JOINED_MIN {
            let joined = if small.len() >= JOINED_MIN { small } else { BTreeSet::new() };
            let (written, names) = write(repo, &logs, new, &joined)?;
            folded.logs_written += written;
            gone.extend(names);
        }
        // What stands in a log already, because another collection stopped here. A clone's may differ.
        let same = try_map(repo.storage.connections(), &again, |name| is_the_item(repo, &logs, name))?;
        gone.extend(again.into_iter().zip(same).filter_map(|(name, same)| same.then_some(name)));
        try_map(repo.storage.connections(), &gone, |name| remove(repo, name))?;
        folded.objects += gone.len() as u64;
    }
    let redundant = redundant(before);
    try_map(repo.storage.connections(), &redundant, |log| remove(repo, &format!("{LOG}{log}")))?;
    folded.logs_deleted = redundant.len() as u64;
    Ok(folded)
}

struct Singles {
    /// Names of objects for a log.
    fold: Vec<String>,
    /// Names of objects that say nothing any more.
    delete: Vec<String>,
}

/// The single objects of a kind of which nobody is waiting for anything.
fn singles(repo: &Repository, prefixes: &[&str], collections: &Collections) -> Result<Singles> {
    let mut names = Vec::new();
    for prefix in prefixes {
        let listed = repo.storage.list(prefix).context(|| format!("cannot list `{prefix}`"))?;
        names.extend(listed.into_iter().map(|object| object.name));
    }
    let faults: BTreeSet<&str> = collections.faults.iter().map(|(object, _)| &**object).collect();
    names.retain(|name| !faults.contains(&**name));
    let mut singles = Singles { fold: Vec::new(), delete: Vec::new() };
    if prefixes.contains(&SNAPSHOTS) {
        let commits = repo.load_commits(&mut repo.open_catalog())?;
        let flags = repo.load_flags(FLAGS)?;
        let is_calm = |session: &SessionId| commits.headers.contains_key(session) && !flags.contains_key(session);
        for name in names {
            match session_of(&name) {
                Some(session) if is_calm(&session) => singles.fold.push(name),
                _ => {}
            }
        }
        return Ok(singles);
    }
    for name in names {
        let Some((collection, part)) = name.strip_prefix(GC).and_then(|rest| rest.split_once('/')) else {
            let is_note = |hash: ObjectId| collections.notes.contains(&hash);
            if name.strip_prefix(NOTES).and_then(|hash| hash.parse().ok()).is_some_and(is_note) {
                singles.fold.push(name);
            }
            continue;
        };
        let is_finished = |id: CollectionId| collections.finished.contains(&id);
        if collection.parse().is_ok_and(is_finished) {
            match part {
                "swept" | "done" => singles.fold.push(name),
                // Of a finished collection nobody asks what it had condemned.
                "condemned" => singles.delete.push(name),
                _ => {}
            }
        }
    }
    // A log with `done` in it is durable before any `condemned` goes: without `done` it would count again.
    let is_done = |name: &String| {
        name.strip_suffix("condemned").is_some_and(|rest| {
            let done = format!("{rest}done");
            repo.known_logs().find(&done).is_some()
        })
    };
    singles.delete.retain(is_done);
    Ok(singles)
}

/// Logs of a kind that are small enough to be joined.
fn small_logs(logs: &Logs, prefixes: &[&str]) -> BTreeSet<ObjectId> {
    let redundant: BTreeSet<ObjectId> = redundant(logs).into_iter().collect();
    let is_small = |(hash, contents): &(&ObjectId, &crate::repo::logs::Contents)| {
        let is_kind = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        !redundant.contains(hash)
            && contents.items.iter().all(|item| is_kind(&item.name))
            && contents.items.iter().map(|item| item.bytes).sum::<u64>() < LOG_BYTES_TARGET / 2
    };
    logs.iter().filter(is_small).map(|(hash, _)| *hash).collect()
}

/// Puts logs of these objects and of all that is in some logs. Durable when it returns; gives how many, and
/// the names of the single objects that are in them.
fn write(repo: &Repository, logs: &Logs, new: Vec<String>, joined: &BTreeSet<ObjectId>) -> Result<(u64, Vec<String>)> {
    let of_logs = logs.iter().filter(|(hash, _)| joined.contains(hash));
    let names: BTreeSet<&str> = of_logs.flat_map(|(_, contents)| &contents.items).map(|item| &*item.name).collect();
    let mut names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
    names.extend(new.iter().cloned());
    let generation = logs.next_generation();
    let (mut items, mut bytes, mut written) = (Vec::new(), 0, 0);
    let put = |items: &mut Vec<LogItem>| {
        let log =
            Log { time_secs: repo.world.now().secs, generation, items: std::mem::take(items), extra: Extra::default() };
        repo.put_hashed_record(RecordKind::Log, LOG, &cbor::encode(&log))
    };
    let names: Vec<String> = names.into_iter().collect();
    // As many at a time as are read at once.
    for names in names.chunks(repo.storage.connections().max(1) * 8) {
        let read = try_map(repo.storage.connections(), names, |name| repo.get_logged(name))?;
        for (name, stored) in names.iter().zip(read) {
            // Another collection has just folded it, and it is in a log of that one.
            let Some(stored) = stored else { continue };
            bytes += stored.len() as u64;
            items.push(LogItem { name: name.clone(), stored });
            if bytes >= LOG_BYTES_TARGET {
                put(&mut items)?;
                (bytes, written) = (0, written + 1);
            }
        }
    }
    if !items.is_empty() {
        put(&mut items)?;
        written += 1;
    }
    repo.storage.barrier().context(|| "cannot store a log")?;
    Ok((written, new))
}

/// Whether a single object is byte for byte what a log has under its name.
fn is_the_item(repo: &Repository, logs: &Logs, name: &str) -> Result<bool> {
    match repo.storage.get(name) {
        Ok(stored) => Ok(logs.find(name).is_some_and(|(item, _)| item.hash == ObjectId::of(&stored))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context(|| format!("cannot read `{name}`")),
    }
}

/// The logs of which every item is, byte for byte, in one of a higher rank. All who look at the same logs
/// find the same ones, and of an item the one of the highest rank is never among them.
fn redundant(logs: &Logs) -> Vec<ObjectId> {
    let mut above: BTreeMap<&str, &ObjectId> = BTreeMap::new();
    let mut redundant = Vec::new();
    for (hash, contents) in logs.iter().rev() {
        if contents.items.iter().all(|item| above.get(&*item.name) == Some(&&item.hash)) {
            redundant.push(*hash);
        }
        for item in &contents.items {
            above.entry(&item.name).or_insert(&item.hash);
        }
    }
    redundant
}

fn remove(repo: &Repository, name: &str) -> Result<()> {
    match repo.storage.delete(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.context(|| format!("cannot delete `{name}`")),
    }
}
