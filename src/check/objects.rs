//! Objects that stand on their own: everything but what is in packs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Bad, Faults, Report};
use crate::error::{Context, Error, Kind, Result};
use crate::format::record::RecordKind;
use crate::id::{ObjectId, PackId};
use crate::repo::content::Reader;
use crate::repo::open::{CONFIG, COPIES, read_config};
use crate::repo::session::{PACKS, SESSIONS, pack_name};
use crate::storage::ErrorKind;
use crate::storage::parallel::try_map;

pub(super) fn check(reader: &Reader<'_>, faults: &mut Faults, bad: &mut Bad, report: &mut Report) -> Result<()> {
    for (object, error) in reader.repo().access.faults.iter().chain(reader.faults()) {
        faults.add(object, error.with_causes());
    }
    for behind in reader.repo().behind() {
        faults.add(&behind.object(), "it is missing: this machine has seen it at this place before");
    }
    check_copies(reader, faults)?;
    check_slots(reader, faults)?;
    check_announcements(reader, faults)?;
    check_commits(reader, faults)?;
    check_packs(reader, faults, bad, report)
}

/// `config` and its second copy, and the second copies of statements that count: an `init` that was
/// interrupted, before the one that made this repository, may have left others.
fn check_copies(reader: &Reader<'_>, faults: &mut Faults) -> Result<()> {
    let storage = &*reader.repo().storage;
    for name in [CONFIG.to_owned(), format!("{COPIES}{CONFIG}")] {
        match read_config(storage, &name) {
            Ok(config) if config == reader.repo().config => {}
            Ok(_) => drop(faults.add(&name, "it describes another repository")),
            Err(error) if is_damage(&error) => drop(faults.add(&name, error.with_causes())),
            Err(error) => return Err(error),
        }
    }
    for object in storage.list("access/").context(|| "cannot list the access statements")? {
        let name = format!("{COPIES}{}", object.name);
        let hash = object.name.rsplit('/').next().and_then(|hash| hash.parse().ok());
        if hash.is_some_and(|hash| !reader.repo().access.counts(&hash)) {
            continue;
        }
        match storage.get(&name) {
            Ok(stored) if name.ends_with(&ObjectId::of(&stored).to_string()) => {}
            Ok(_) => drop(faults.add(&name, "its bytes do not have the hash that is its name")),
            Err(error) if error.kind() == ErrorKind::NotFound => drop(faults.add(&name, "it is missing")),
            Err(error) => return Err(error).context(|| format!("cannot check `{name}`")),
        }
    }
    Ok(())
}

/// Every announcement that is there verifies. One that is missing harms nobody.
fn check_announcements(reader: &Reader<'_>, faults: &mut Faults) -> Result<()> {
    let repo = reader.repo();
    let sessions = repo.storage.list(SESSIONS).context(|| "cannot list the sessions")?;
    let checked = try_map(repo.storage.connections(), &sessions, |object| {
        let what = || format!("cannot read session `{}`", object.name);
        let opened = repo.storage.get(&object.name).context(what);
        match opened.and_then(|stored| repo.open_record(RecordKind::Session, &object.name, &stored)) {
            Ok(_) => Ok(None),
            Err(error) if is_damage(&error) => Ok(Some(error)),
            Err(error) => Err(error),
        }
    })?;
    for (object, error) in sessions.iter().zip(checked) {
        if let Some(error) = error {
            faults.add(&object.name, error.with_causes());
        }
    }
    Ok(())
}

/// Whether an error is a finding and not a storage that does not answer.
fn is_damage(error: &Error) -> bool {
    error.kind() == Kind::Damaged || error.storage_kind() == Some(ErrorKind::NotFound)
}

/// Every slot is what its owner stored, or its second copy is.
fn check_slots(reader: &Reader<'_>, faults: &mut Faults) -> Result<()> {
    let storage = &reader.repo().storage;
    for slot in reader.repo().access.slots() {
        for name in [format!("keys/{}", slot.slot), format!("{COPIES}keys/{}", slot.slot)] {
            match storage.get(&name) {
                Ok(stored) if ObjectId::of(&stored) == slot.hash => {}
                Ok(_) => drop(faults.add(&name, "it is not the slot its owner stored")),
                Err(error) if error.kind() == ErrorKind::NotFound => drop(faults.add(&name, "it is missing")),
                Err(error) => return Err(error).context(|| format!("cannot check `{name}`")),
            }
        }
    }
    Ok(())
}

/// Reads every commit and segment anew, whatever the cache remembers, and follows the chains.
fn check_commits(reader: &Reader<'_>, faults: &mut Faults) -> Result<()> {
    let repo = reader.repo();
    let hashes: BTreeSet<_> = reader.commits().headers.values().map(|header| header.hash).collect();
    for header in reader.commits().headers.values() {
        let name = format!("snapshots/{}", header.session);
        match repo.load_commit(&header.session) {
            Ok(loaded) if loaded.header.hash == header.hash => {}
            Ok(_) => drop(faults.add(&name, "it is not the commit that was read before: it was replaced")),
            Err(error) if is_damage(&error) => {
                faults.add(&name, error.with_causes());
            }
            Err(error) => return Err(error),
        }
        for previous in header.previous.iter().filter(|hash| !hashes.contains(hash)) {
            let object = format!("commit with hash {}", previous.short());
            let message = format!("it is missing: `{name}` by the same credential was made after it");
            faults.add(&object, message);
        }
        for segment in &header.segments {
            match repo.load_segment(segment, header) {
                Ok(_) => {}
                Err(error) if is_damage(&error) => {
                    faults.add(&format!("index/{segment}"), error.with_causes());
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Every pack the index names is there in its length.
fn check_packs(reader: &Reader<'_>, faults: &mut Faults, bad: &mut Bad, report: &mut Report) -> Result<()> {
    let listed = reader.repo().storage.list(PACKS).context(|| "cannot list the packs")?;
    let mut stored: BTreeMap<String, u64> = listed.into_iter().map(|object| (object.name, object.bytes)).collect();
    let mut known: BTreeSet<PackId> = BTreeSet::new();
    for (number, pack) in (0_u32..).zip(reader.catalog().packs()) {
        if !reader.is_alive(number) {
            continue;
        }
        let name = pack_name(&pack.id);
        if known.insert(pack.id) {
            report.packs += 1;
        }
        match stored.get(&name) {
            Some(bytes) if *bytes == u64::from(pack.stored_bytes) => {}
            Some(bytes) => {
                let message = format!("it has {bytes} bytes where {} belong", pack.stored_bytes);
                bad.packs.insert(number, faults.add(&name, message));
            }
            None => drop(bad.packs.insert(number, faults.add(&name, "it is missing"))),
        }
    }
    stored
        .retain(|name, _| name.rsplit('/').next().and_then(|id| id.parse().ok()).is_none_or(|id| !known.contains(&id)));
    if !stored.is_empty() {
        let bytes: u64 = stored.values().sum();
        report.notes.push(format!("{} packs of {bytes} bytes belong to no finished session", stored.len()));
    }
    Ok(())
}
