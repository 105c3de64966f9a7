//! Scrubbing without a key: every object is what its name or its digest says (SPEC §3).
//!
//! Finds each changed byte of what is there. What is *not* there it cannot know, but for second copies: the index
//! is sealed. Packs are hashed as they are read, one or two megabytes to a thread, in the processor's cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ages::Ages;
use super::{Budget, Candidate, pick};
use crate::error::{Context, Error, Kind, Result};
use crate::format::parity::Parity;
use crate::format::record::DIGEST_BYTES;
use crate::id::{ObjectId, PackId};
use crate::monitor::Monitor;
use crate::repo::access::AccessList;
use crate::repo::kit::Kit;
use crate::repo::open::{CONFIG, COPIES, Local, load_config};
use crate::repo::parity::{PARITY, parity_name, parity_of};
use crate::repo::repair::{Was, plan};
use crate::repo::session::{PACKS, pack_name, pack_of};
use crate::storage::parallel::try_map;
use crate::storage::{self, ErrorKind, Listed, Storage};
use crate::world::World;

/// Folders of objects that are named by their hash; what has second copies is looked at by [`plan`].
const NAMED_BY_HASH: [&str; 3] = ["index/", "notes/", "log/"];
/// Folders of objects that end with their digest.
const WITH_DIGEST: [&str; 6] = ["sessions/", "alive/", "snapshots/", "flags/", "gc/", "cache/"];
/// How much of a pack is read at once where nothing waits: it stays in the processor's cache until it is hashed.
const NEAR_BYTES: u64 = 1 << 20;
/// The same over a network.
const FAR_BYTES: u64 = 8 << 20;

/// What a scrub without a key found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Objects that are not what they should be, and why.
    pub faults: Vec<(String, String)>,
    /// Objects that are small, all of which were read.
    pub objects: u64,
    /// Packs that are there, in the shard.
    pub packs: u64,
    /// Packs that are due.
    pub packs_due: u64,
    /// Packs that were read.
    pub packs_read: u64,
    /// Bytes read of packs and their parity.
    pub bytes_read: u64,
    /// Packs whose bytes have the hash that is their name.
    pub hashed: BTreeSet<PackId>,
    /// Every pack that is there.
    pub listed: BTreeSet<PackId>,
}

/// Reads all small objects, and packs within the budget. Damage is in the report; an error means that the
/// scrub was not done.
pub fn run(
    storage: &dyn Storage,
    world: &World,
    ages: &Ages,
    budget: &Budget,
    threads: usize,
    monitor: &Monitor,
) -> Result<Report> {
    let enough = budget.clock(world);
    let mut report = Report::default();
    look_at_copies(storage, &mut report)?;
    look_at_records(storage, threads, &mut report)?;
    let parity: BTreeSet<PackId> = list(storage, PARITY)?.iter().filter_map(|object| parity_of(&object.name)).collect();
    let listed: BTreeMap<PackId, u64> =
        list(storage, PACKS)?.iter().filter_map(|object| Some((pack_of(&object.name)?, object.bytes))).collect();
    let candidate = |(pack, bytes): (&PackId, &u64)| {
        (*pack, Candidate { bytes: *bytes, whole_secs: ages.get(pack), is_damaged: false })
    };
    let chosen = pick(listed.iter().map(candidate).collect(), budget, world.now().secs, ages);
    (report.packs, report.packs_due) = (chosen.known, chosen.due);
    let packs: Vec<(PackId, u64)> = chosen.packs.iter().map(|pack| (*pack, listed[pack])).collect();
    monitor.counters().bytes_total.store(packs.iter().map(|(_, bytes)| bytes).sum(), Ordering::Relaxed);
    report.listed = listed.into_keys().collect();
    let (next, failed, report_of) = (AtomicUsize::new(0), Mutex::new(None), Mutex::new(report));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut buffer = Vec::new();
                while let Some((pack, bytes)) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if monitor.stopping() || lock(&failed).is_some() || enough() {
                        return;
                    }
                    match look_at_pack(storage, pack, *bytes, parity.contains(pack), &mut buffer) {
                        Ok(found) => {
                            monitor.done(0, *bytes);
                            found.into_report(*pack, &mut lock(&report_of));
                        }
                        Err(error) => *lock(&failed) = Some(error),
                    }
                }
            });
        }
    });
    if let Some(error) = lock(&failed).take() {
        return Err(error);
    }
    if monitor.stopping() {
        return Err(Error::new(Kind::Interrupted, "the scrub was interrupted"));
    }
    let mut report = report_of.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.faults.sort();
    Ok(report)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn list(storage: &dyn Storage, prefix: &str) -> Result<Vec<Listed>> {
    storage.list(prefix).context(|| format!("cannot list `{prefix}`"))
}

/// `config`, key slots and access statements, against their second copies.
fn look_at_copies(storage: &dyn Storage, report: &mut Report) -> Result<()> {
    let plan = match plan(storage, &Kit::default(), &Local::default()) {
        Ok(plan) => plan,
        Err(error) if error.storage_kind().is_some() || error.kind() == Kind::NoRepository => return Err(error),
        Err(error) => {
            report.faults.push((CONFIG.into(), error.with_causes()));
            return Ok(());
        }
    };
    // An `init` that did not finish may have left statements that count for nothing.
    let access = match load_config(storage) {
        Ok(config) => Some(AccessList::load(storage, &config)?),
        Err(_) => None,
    };
    let counts = |name: &str| {
        let original = name.strip_prefix(COPIES).unwrap_or(name);
        let hash = original.strip_prefix("access/").and_then(|hash| hash.parse::<ObjectId>().ok());
        hash.zip(access.as_ref()).is_none_or(|(hash, access)| access.counts(&hash))
    };
    for put in plan.puts.iter().filter(|put| put.was == Was::Damaged || counts(&put.name)) {
        report.faults.push((put.name.clone(), format!("it is {}; another copy is whole", put.was)));
    }
    report.faults.extend(plan.lost);
    for folder in ["access/", "keys/", "copies/"] {
        report.objects += list(storage, folder)?.len() as u64;
    }
    report.objects += 1;
    Ok(())
}

/// Everything else that is small.
fn look_at_records(storage: &dyn Storage, threads: usize, report: &mut Report) -> Result<()> {
    let folders: Vec<&str> = NAMED_BY_HASH.into_iter().chain(WITH_DIGEST).collect();
    let at_once = threads.max(storage.connections());
    let listed: Vec<Listed> =
        try_map(at_once, &folders, |folder| list(storage, folder))?.into_iter().flatten().collect();
    let looked = try_map(at_once, &listed, |object| {
        let stored = match storage.get(&object.name) {
            Ok(stored) => stored,
            Err(error) => return unreadable(error, &object.name),
        };
        Ok(fault_of(&object.name, &stored))
    })?;
    report.objects += listed.len() as u64;
    let faults = listed.into_iter().zip(looked).filter_map(|(object, fault)| Some((object.name, fault?)));
    report.faults.extend(faults);
    Ok(())
}

/// What an error of reading says of an object: nothing if it was taken away meanwhile.
fn unreadable(error: storage::Error, name: &str) -> Result<Option<String>> {
    match error.kind() {
        ErrorKind::NotFound => Ok(None),
        ErrorKind::Corrupt => Ok(Some(error.to_string())),
        _ if error.is_of_the_medium() => Ok(Some("it cannot be read from the disk".into())),
        _ => Err(error).context(|| format!("cannot read `{name}`")),
    }
}

/// What is wrong with a small object, by its name or its digest alone.
pub(super) fn fault_of(name: &str, stored: &[u8]) -> Option<String> {
    if NAMED_BY_HASH.iter().any(|folder| name.starts_with(folder)) {
        let is_whole = name.rsplit('/').next() == Some(&ObjectId::of(stored).to_string());
        return (!is_whole).then(|| "its bytes do not have the hash that is its name".into());
    }
    let digest = stored.split_last_chunk::<DIGEST_BYTES>();
    let is_whole = digest.is_some_and(|(bytes, digest)| blake3::hash(bytes).as_bytes() == digest);
    (!is_whole).then(|| "it does not end with its digest".into())
}

/// What reading a pack and its parity found.
struct Found {
    /// `None` when the pack was taken away meanwhile.
    pack: Option<Option<String>>,
    parity: Option<String>,
    bytes: u64,
}

impl Found {
    fn into_report(self, pack: PackId, report: &mut Report) {
        report.bytes_read += self.bytes;
        if let Some(fault) = self.pack {
            report.packs_read += 1;
            match fault {
                None => drop(report.hashed.insert(pack)),
                Some(fault) => report.faults.push((pack_name(&pack), fault)),
            }
        }
        report.faults.extend(self.parity.map(|fault| (parity_name(&pack), fault)));
    }
}

fn look_at_pack(
    storage: &dyn Storage,
    pack: &PackId,
    bytes: u64,
    has_parity: bool,
    buffer: &mut Vec<u8>,
) -> Result<Found> {
    let mut found = Found { pack: None, parity: None, bytes };
    let name = pack_name(pack);
    match hash_of(storage, &name, bytes, buffer) {
        Ok(hash) if hash == *pack => found.pack = Some(None),
        Ok(_) => found.pack = Some(Some("its bytes do not have the hash that is its name".into())),
        Err(error) => found.pack = unreadable(error, &name)?.map(Some),
    }
    if has_parity {
        found.parity = parity_fault(storage, pack)?;
    }
    Ok(found)
}

/// What is wrong with the parity of a pack that has some.
fn parity_fault(storage: &dyn Storage, pack: &PackId) -> Result<Option<String>> {
    let name = parity_name(pack);
    match storage.get(&name) {
        Ok(stored) => Ok(match Parity::decode(&stored) {
            Ok(parity) if parity.layout.pack == *pack => None,
            Ok(_) => Some("it is another pack's".into()),
            Err(error) => Some(error.to_string()),
        }),
        Err(error) => unreadable(error, &name),
    }
}

/// What is wrong with the parity of these packs, as far as they have some.
pub fn parity_faults(storage: &dyn Storage, packs: &BTreeSet<PackId>) -> Result<Vec<(String, String)>> {
    let have = list(storage, PARITY)?;
    let have: Vec<PackId> =
        have.iter().filter_map(|object| parity_of(&object.name)).filter(|pack| packs.contains(pack)).collect();
    let faults = try_map(storage.connections(), &have, |pack| parity_fault(storage, pack))?;
    Ok(have.iter().zip(faults).filter_map(|(pack, fault)| Some((parity_name(pack), fault?))).collect())
}

/// The hash of an object of so many bytes, read a part at a time.
pub fn hash_of(storage: &dyn Storage, name: &str, bytes: u64, buffer: &mut Vec<u8>) -> storage::Result<PackId> {
    let step = if storage.local_directory().is_some() { NEAR_BYTES } else { FAR_BYTES };
    let mut hasher = blake3::Hasher::new();
    let mut from = 0;
    while from < bytes {
        storage.get_range_into(name, from, step.min(bytes - from), buffer)?;
        hasher.update(buffer);
        from += step;
    }
    Ok(PackId::from_bytes(*hasher.finalize().as_bytes()))
}
