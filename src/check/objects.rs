//! Objects that stand on their own: everything but what is in packs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Bad, Fault, Faults, ReadData, Report};
use crate::error::{Context, Error, Kind, Result};
use crate::format::cbor::{self, Record};
use crate::format::record::RecordKind;
use crate::format::session::{Announcement, Flag};
use crate::id::{CredentialId, ObjectId, PackId, SessionId};
use crate::repo::collections::FLAGS;
use crate::repo::commits::{SNAPSHOTS, session_of};
use crate::repo::content::Reader;
use crate::repo::logs::LOG;
use crate::repo::open::{CONFIG, COPIES, read_config};
use crate::repo::session::{ALIVE, PACKS, SESSIONS, pack_name};
use crate::storage::parallel::try_map;
use crate::storage::{self, ErrorKind, Listed};

/// Folder of change records.
const CACHE: &str = "cache/";
/// Bytes of the digest at the end of an object that is not named by its hash.
const DIGEST_BYTES: usize = 32;
/// Sessions named in one note or message.
const SESSIONS_NAMED_MAX: usize = 10;

pub(super) fn check(
    reader: &Reader<'_>,
    read_data: ReadData,
    faults: &mut Faults,
    bad: &mut Bad,
    report: &mut Report,
) -> Result<Sessions> {
    for (object, error) in reader.repo().access.faults.iter().chain(reader.faults()) {
        add(faults, object, found(error));
    }
    for behind in reader.repo().behind() {
        add(faults, &behind.object(), "it is missing: this machine has seen it at this place before");
    }
    check_copies(reader, faults)?;
    check_slots(reader, faults)?;
    let announced = check_announcements(reader, faults)?;
    check_records::<Flag>(reader, RecordKind::Flag, FLAGS, faults)?;
    check_logs(reader, faults)?;
    check_digests(reader, ALIVE, faults)?;
    if read_data == ReadData::All {
        check_digests(reader, CACHE, faults)?;
    }
    let lost = check_commits(reader, faults)?;
    check_packs(reader, faults, bad, report)?;
    let committed = reader.repo().committed_sessions()?;
    Ok(Sessions { announced, committed, lost })
}

/// Notes what is wrong with an object. What is wrong with a commit affects all of its snapshot.
fn add(faults: &mut Faults, object: &str, message: impl Into<String>) {
    match session_of(object) {
        Some(session) => faults.add_commit(session, message),
        None => faults.add(object, message),
    };
}

/// What was found of an object that could not be read, whose name is said elsewhere.
fn found(error: &Error) -> String {
    match error.storage_kind() {
        Some(ErrorKind::NotFound) => MISSING.to_owned(),
        _ => error.innermost(),
    }
}

/// Whether an error is a finding and not a storage that does not answer.
fn is_damage(error: &Error) -> bool {
    error.kind() == Kind::Damaged || error.storage_kind() == Some(ErrorKind::NotFound)
}

/// Looks at every object below a prefix. What is taken away meanwhile is not missed.
fn each<T: Send>(
    reader: &Reader<'_>,
    prefix: &str,
    faults: &mut Faults,
    look: impl Fn(&Listed, &[u8]) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let storage = &*reader.repo().storage;
    let listed = storage.list(prefix).context(|| format!("cannot list `{prefix}`"))?;
    let looked = try_map(storage.connections(), &listed, |object| match storage.get(&object.name) {
        Ok(stored) => match look(object, &stored) {
            Err(error) if !is_damage(&error) => Err(error),
            looked => Ok(Some(looked)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("cannot read `{}`", object.name)),
    })?;
    let mut good = Vec::new();
    for (object, looked) in listed.iter().zip(looked) {
        match looked {
            Some(Ok(found)) => good.push(found),
            Some(Err(error)) => drop(faults.add(&object.name, found(&error))),
            None => {}
        }
    }
    Ok(good)
}

/// `config` and its second copy, and the second copies of statements that count: an `init` that was
/// interrupted, before the one that made this repository, may have left others.
fn check_copies(reader: &Reader<'_>, faults: &mut Faults) -> Result<()> {
    let storage = &*reader.repo().storage;
    for name in [CONFIG.to_owned(), format!("{COPIES}{CONFIG}")] {
        match read_config(storage, &name) {
            Ok(config) if config == reader.repo().config => {}
            Ok(_) => drop(faults.add(&name, "it describes another repository")),
            Err(error) if is_damage(&error) => drop(faults.add(&name, found(&error))),
            Err(error) => return Err(error),
        }
    }
    for object in storage.list("access/").context(|| "cannot list the access statements")? {
        let name = format!("{COPIES}{}", object.name);
        let hash = object.name.rsplit('/').next().and_then(|hash| hash.parse().ok());
        if hash.is_some_and(|hash| !reader.repo().access.counts(&hash)) {
            continue;
        }
        let is_whole = |stored: &[u8]| name.ends_with(&ObjectId::of(stored).to_string());
        check_bytes(storage, &name, is_whole, "its bytes do not have the hash that is its name", faults)?;
    }
    Ok(())
}

/// Every slot is what its owner stored, and so is its second copy.
fn check_slots(reader: &Reader<'_>, faults: &mut Faults) -> Result<()> {
    let storage = &*reader.repo().storage;
    for slot in reader.repo().access.slots() {
        for name in [format!("keys/{}", slot.slot), format!("{COPIES}keys/{}", slot.slot)] {
            let is_whole = |stored: &[u8]| ObjectId::of(stored) == slot.hash;
            check_bytes(storage, &name, is_whole, "it is not the slot its owner stored", faults)?;
        }
    }
    Ok(())
}

fn check_bytes(
    storage: &dyn storage::Storage,
    name: &str,
    is_whole: impl Fn(&[u8]) -> bool,
    otherwise: &str,
    faults: &mut Faults,
) -> Result<()> {
    match storage.get(name) {
        Ok(stored) if is_whole(&stored) => {}
        Ok(_) => drop(faults.add(name, otherwise)),
        Err(error) if error.kind() == ErrorKind::NotFound => drop(faults.add(name, MISSING)),
        Err(error) if error.kind() == ErrorKind::Corrupt => drop(faults.add(name, error.to_string())),
        Err(error) => return Err(error).context(|| format!("cannot check `{name}`")),
    }
    Ok(())
}

/// Every announcement that is there verifies. One that is missing harms nobody. Gives the others'
/// sessions.
fn check_announcements(reader: &Reader<'_>, faults: &mut Faults) -> Result<Vec<(SessionId, CredentialId)>> {
    each(reader, SESSIONS, faults, |object, stored| {
        let opened = reader.repo().open_record(RecordKind::Session, &object.name, stored)?;
        let announcement: Announcement = cbor::decode(&opened.body).context(|| "cannot read the announcement")?;
        match object.name.strip_prefix(SESSIONS) == Some(&*announcement.session.to_string()) {
            true => Ok((announcement.session, opened.credential)),
            false => Err(Error::new(Kind::Damaged, "it is another session's")),
        }
    })
}

/// Every record of a kind that is there verifies.
fn check_records<R: Record>(reader: &Reader<'_>, kind: RecordKind, prefix: &str, faults: &mut Faults) -> Result<()> {
    each(reader, prefix, faults, |object, stored| {
        let opened = reader.repo().open_record(kind, &object.name, stored)?;
        cbor::decode::<R>(&opened.body).context(|| "cannot read it").map(drop)
    })
    .map(drop)
}

/// Every log verifies, and every item of it.
fn check_logs(reader: &Reader<'_>, faults: &mut Faults) -> Result<()> {
    let looked = each(reader, LOG, faults, |object, stored| {
        let within = reader.repo().faults_of_log(&object.name, stored)?;
        Ok(within.into_iter().map(|(item, error)| (object.name.clone(), item, error)).collect::<Vec<_>>())
    })?;
    for (log, item, error) in looked.into_iter().flatten() {
        add(faults, &item, format!("in `{log}`: {}", found(&error)));
    }
    Ok(())
}

/// Every object that is its writer's own business ends with its digest.
fn check_digests(reader: &Reader<'_>, prefix: &str, faults: &mut Faults) -> Result<()> {
    each(reader, prefix, faults, |_, stored| {
        let digest = stored.split_last_chunk::<DIGEST_BYTES>();
        match digest.is_some_and(|(bytes, digest)| blake3::hash(bytes).as_bytes() == digest) {
            true => Ok(()),
            false => {
                Err(Error::new(Kind::Damaged, "it does not end with its digest; nothing that is restored needs it"))
            }
        }
    })
    .map(drop)
}

/// A commit that others of its credential name and that is not there.
struct Lost {
    hash: ObjectId,
    credential: CredentialId,
    /// The session of one that names it.
    named_by: SessionId,
}

/// Reads every commit and segment anew, whatever the cache remembers, and follows the chains.
fn check_commits(reader: &Reader<'_>, faults: &mut Faults) -> Result<Vec<Lost>> {
    let (repo, commits) = (reader.repo(), reader.commits());
    let mut hashes: BTreeSet<_> = commits.headers.values().map(|header| header.hash).collect();
    hashes.extend(&commits.void);
    let replaced = repo.replaced_segments(commits.headers.values());
    let mut lost = BTreeMap::new();
    for header in commits.headers.values() {
        match repo.load_commit(&header.session) {
            Ok(loaded) if loaded.header.hash == header.hash => {}
            Ok(_) => drop(faults.add_commit(header.session, "it was replaced while it was checked")),
            Err(error) if is_damage(&error) => drop(faults.add_commit(header.session, found(&error))),
            Err(error) => return Err(error),
        }
        for hash in header.previous.iter().filter(|hash| !hashes.contains(hash)) {
            let (hash, credential, named_by) = (*hash, header.credential, header.session);
            lost.entry(hash).or_insert(Lost { hash, credential, named_by });
        }
        for segment in header.segments.iter().filter(|segment| !replaced.contains(segment)) {
            match repo.load_segment(segment, header) {
                Ok(_) => {}
                Err(error) if is_damage(&error) => drop(faults.add(&format!("index/{segment}"), found(&error))),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(lost.into_values().collect())
}

/// What is known of sessions and their commits.
pub(super) struct Sessions {
    announced: Vec<(SessionId, CredentialId)>,
    /// Those of which a commit is there, whatever is in it.
    committed: BTreeSet<SessionId>,
    lost: Vec<Lost>,
}

impl Sessions {
    /// Says which commits are lost, as far as can be told, and which sessions have none and nobody can
    /// tell why. What the walk has found to be lost is known by now.
    pub(super) fn name_lost_commits(
        &self,
        reader: &Reader<'_>,
        faults: &mut Faults,
        report: &mut Report,
    ) -> Result<()> {
        // One that is damaged may be what others miss.
        let may_be_lost = |session: &SessionId, faults: &Faults| {
            (!self.committed.contains(session) || faults.has_commit(session)) && !reader.is_void(session)
        };
        for lost in &self.lost {
            let strays = reader.stray_sessions()?.iter().map(|origin| (origin.session, origin.credential));
            let all = self.announced.iter().copied().chain(strays).filter(|(_, by)| *by == lost.credential);
            let candidates: BTreeSet<SessionId> =
                all.map(|(session, _)| session).filter(|session| may_be_lost(session, faults)).collect();
            if candidates.iter().any(|session| faults.has_commit(session)) {
                continue;
            }
            let message = format!("it is missing: `{SNAPSHOTS}{}` by the same key was made after it", lost.named_by);
            if candidates.len() == 1 {
                for session in candidates {
                    faults.add_commit(session, &*message);
                }
                continue;
            }
            let names = listed(candidates.iter().map(|session| format!("`{SNAPSHOTS}{session}`")));
            let which = if names.is_empty() { names } else { format!("; it is one of {names}") };
            faults.add(&format!("commit with hash {}", lost.hash.short()), message + &which);
        }
        let unfinished = self
            .announced
            .iter()
            .map(|(session, _)| session)
            .filter(|session| may_be_lost(session, faults) && !faults.has_commit(session));
        let names = listed(unfinished.map(|session| format!("`{SESSIONS}{session}`")));
        if !names.is_empty() {
            report.notes.push(format!("open, stopped, or with a commit that is lost: {names}"));
        }
        Ok(())
    }
}

/// The first few names, and how many more there are.
fn listed(names: impl Iterator<Item = String>) -> String {
    let all: Vec<_> = names.collect();
    let first = all.iter().take(SESSIONS_NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(SESSIONS_NAMED_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

const MISSING: &str = "it is missing";

/// Whether a fault says that a pack is missing.
pub(super) fn is_missing_pack(fault: &Fault) -> bool {
    fault.object.starts_with(PACKS) && fault.message == MISSING
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
                bad.packs.insert(number, (*bytes, faults.add(&name, message)));
            }
            None => drop(bad.packs.insert(number, (0, faults.add(&name, MISSING)))),
        }
    }
    for id in &known {
        stored.remove(&pack_name(id));
    }
    if !stored.is_empty() {
        let bytes: u64 = stored.values().sum();
        report.notes.push(format!("{} packs of {bytes} bytes belong to no finished session", stored.len()));
    }
    Ok(())
}
