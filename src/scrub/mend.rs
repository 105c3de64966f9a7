//! Putting back what is damaged or lost: from second copies, from parity, from a replica.
//!
//! Whatever the source says, bytes are put only once they are verified: a pack, a segment or a note by the hash
//! that is its name, a record by its digest and, where there is a key, its seal and signature; what has second
//! copies as `repair config` does it. So this only ever puts bytes that were there before; damage is not
//! carried over (borg#10410), and a replica that is another repository's has nothing that fits.

use std::collections::BTreeSet;

use super::keyless::fault_of;
use crate::error::{Context, Error, Kind, Result};
use crate::format::record::RecordKind;
use crate::id::{ObjectId, PackId, SlotId};
use crate::monitor::Monitor;
use crate::repo::Repository;
use crate::repo::kit::Kit;
use crate::repo::open::{CONFIG, COPIES, Local};
use crate::repo::parity::{self, Mended, PARITY, parity_of};
use crate::repo::repair;
use crate::repo::session::{PACKS, pack_of};
use crate::storage::{ErrorKind, Storage, WriteMode};

/// How much of an object of the replica is read at once.
const READ_BYTES: u64 = 8 << 20;
/// No pack is longer.
const PACK_BYTES_MAX: u64 = 1 << 31;

/// Where whole bytes were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The second copy, or the original.
    Copy,
    /// Parity.
    Parity,
    /// The pack that it is the parity of.
    Pack,
    /// The replica.
    Replica,
}

impl Source {
    /// As people and programs read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Parity => "parity",
            Self::Pack => "pack",
            Self::Replica => "replica",
        }
    }
}

/// What became of a damaged object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its name.
    pub object: String,
    /// Where its bytes are from, or why there are none.
    pub result: Result<Source, String>,
}

/// Puts back what it can of the objects that are at fault. Durable when it returns.
///
/// With an unlocked repository records are opened before they are put. `percent` is how much parity is made
/// where parity is what is damaged.
pub fn run(
    storage: &dyn Storage,
    replica: Option<&dyn Storage>,
    unlocked: Option<&Repository>,
    objects: &BTreeSet<String>,
    percent: u32,
    monitor: &Monitor,
) -> Result<Vec<Outcome>> {
    let mut mend = Mend { storage, replica, unlocked, percent };
    let (with_copies, others): (Vec<&String>, Vec<&String>) = objects.iter().partition(|name| has_copies(name));
    let mut outcomes = Vec::new();
    if !with_copies.is_empty() {
        outcomes.extend(mend.copies(&with_copies)?);
    }
    // Packs before the parity that is made of them: so they are in order of name.
    let (parity, others): (Vec<&String>, Vec<&String>) = others.into_iter().partition(|name| name.starts_with(PARITY));
    for name in others.into_iter().chain(parity) {
        if monitor.stopping() {
            return Err(Error::new(Kind::Interrupted, "the repair was interrupted; what was put back stays"));
        }
        outcomes.push(Outcome { object: name.clone(), result: mend.one(name)? });
    }
    storage.barrier().context(|| "cannot make what was put back durable")?;
    Ok(outcomes)
}

/// Whether an object has a second copy, or is one.
fn has_copies(name: &str) -> bool {
    [CONFIG, "access/", "keys/", COPIES].iter().any(|of| name.starts_with(of))
}

struct Mend<'a> {
    storage: &'a dyn Storage,
    replica: Option<&'a dyn Storage>,
    unlocked: Option<&'a Repository>,
    percent: u32,
}

impl Mend<'_> {
    /// `config`, slots and statements: from each other, then from the replica as from a recovery kit.
    fn copies(&mut self, names: &[&String]) -> Result<Vec<Outcome>> {
        let kit = match self.replica {
            Some(replica) => kit_of(replica)?,
            None => Kit::default(),
        };
        let plan = match repair::plan(self.storage, &kit, &Local::default()) {
            Ok(plan) => plan,
            Err(error) if error.storage_kind().is_some() => return Err(error),
            Err(error) => {
                let why = error.with_causes();
                let not = |name: &&String| Outcome { object: (*name).clone(), result: Err(why.clone()) };
                return Ok(names.iter().map(not).collect());
            }
        };
        repair::run(self.storage, &plan)?;
        let put = |put: &repair::Put| {
            let from = if put.from == repair::Source::Kit { Source::Replica } else { Source::Copy };
            Outcome { object: put.name.clone(), result: Ok(from) }
        };
        let mut outcomes: Vec<Outcome> = plan.puts.iter().map(put).collect();
        for name in names.iter().filter(|name| plan.puts.iter().all(|put| put.name != ***name)) {
            outcomes.push(Outcome { object: (*name).clone(), result: Err("no side has it whole".into()) });
        }
        Ok(outcomes)
    }

    fn one(&self, name: &str) -> Result<Result<Source, String>> {
        if let Some(pack) = pack_of(name).filter(|_| name.starts_with(PACKS)) {
            return self.pack(name, &pack);
        }
        if let Some(pack) = parity_of(name) {
            return Ok(match parity::add(self.storage, pack, self.percent) {
                Ok(Some(_)) => Ok(Source::Pack),
                Ok(None) => Err("its pack is not whole".into()),
                Err(error) if error.storage_kind() == Some(ErrorKind::NotFound) => Err("its pack is not there".into()),
                Err(error) => return Err(error),
            });
        }
        let folder = name.split('/').next().unwrap_or_default();
        match folder {
            "index" | "notes" | "log" | "snapshots" | "sessions" | "flags" | "gc" => self.record(name),
            "alive" | "cache" => Ok(Err("it is made anew by whoever needs it".into())),
            _ => Ok(Err("it is no stored object".into())),
        }
    }

    fn pack(&self, name: &str, pack: &PackId) -> Result<Result<Source, String>> {
        let mut whys = Vec::new();
        match parity::mend_stored(self.storage, pack)? {
            Some(Mended::Whole(bytes)) => {
                let what = || format!("cannot put back `{name}`");
                self.storage.put(name, &bytes, WriteMode::Replace).context(what)?;
                return Ok(Ok(Source::Parity));
            }
            Some(Mended::TooMuch { damaged, parity }) => {
                whys.push(format!("{damaged} parts of it are damaged, and its parity makes up for {parity}"));
            }
            Some(Mended::Wrong) => whys.push("its parity is damaged, or another pack's".into()),
            None => whys.push("it has no parity".into()),
        }
        let Some(replica) = self.replica else { return Ok(Err(whys.join("; "))) };
        if self.pack_from(replica, name, pack)? {
            return Ok(Ok(Source::Replica));
        }
        whys.push("the replica does not have it whole".into());
        Ok(Err(whys.join("; ")))
    }

    /// Copies a pack, a part at a time; it is seen under its name only once its hash is the name.
    fn pack_from(&self, replica: &dyn Storage, name: &str, pack: &PackId) -> Result<bool> {
        let reads = || format!("cannot read `{name}` of the replica");
        let bytes = match replica.stat(name) {
            Ok(bytes) if bytes <= PACK_BYTES_MAX => bytes,
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).context(reads),
        };
        let puts = || format!("cannot put back `{name}`");
        let mut writer = self.storage.writer().context(puts)?;
        let (mut hasher, mut part) = (blake3::Hasher::new(), Vec::new());
        for from in (0..bytes).step_by(READ_BYTES as usize) {
            match replica.get_range_into(name, from, READ_BYTES.min(bytes - from), &mut part) {
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) || error.is_of_the_medium() =>
                {
                    return Ok(false);
                }
                read => read.context(reads)?,
            }
            hasher.update(&part);
            writer.write(&part).context(puts)?;
        }
        if hasher.finalize().as_bytes() != pack.as_bytes() {
            return Ok(false);
        }
        writer.finish(name, WriteMode::Replace).context(puts)?;
        Ok(true)
    }

    /// A record, from the replica: whole by its name or digest and, where there is a key, by its seal.
    fn record(&self, name: &str) -> Result<Result<Source, String>> {
        let Some(replica) = self.replica else { return Ok(Err("there is no second copy of it".into())) };
        let stored = match replica.get(name) {
            Ok(stored) => stored,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                return Ok(Err("the replica does not have it".into()));
            }
            Err(error) => return Err(error).context(|| format!("cannot read `{name}` of the replica")),
        };
        let opens = |repo: &Repository| match kind_of(name) {
            Some(kind) => repo.open_record(kind, name, &stored).is_ok(),
            None => true,
        };
        if fault_of(name, &stored).is_some() || !self.unlocked.is_none_or(opens) {
            return Ok(Err("the replica does not have it whole".into()));
        }
        self.storage.put(name, &stored, WriteMode::Replace).context(|| format!("cannot put back `{name}`"))?;
        Ok(Ok(Source::Replica))
    }
}

/// The kind of record that a name asks for.
fn kind_of(name: &str) -> Option<RecordKind> {
    let (folder, rest) = name.split_once('/')?;
    match (folder, rest.rsplit('/').next()?) {
        ("index", _) => Some(RecordKind::Segment),
        ("notes", _) => Some(RecordKind::Note),
        ("log", _) => Some(RecordKind::Log),
        ("snapshots", _) => Some(RecordKind::Commit),
        ("sessions", _) => Some(RecordKind::Session),
        ("flags", _) => Some(RecordKind::Flag),
        ("gc", "condemned") => Some(RecordKind::Condemned),
        ("gc", "swept") => Some(RecordKind::Swept),
        ("gc", "done") => Some(RecordKind::Done),
        _ => None,
    }
}

/// What a replica has of the objects that have second copies, as a recovery kit: it is believed as little.
fn kit_of(replica: &dyn Storage) -> Result<Kit> {
    let mut names = vec![CONFIG.to_owned()];
    for folder in ["access/", "keys/"] {
        let listed = replica.list(folder).context(|| format!("cannot list `{folder}` of the replica"))?;
        let is_one = |name: &str| {
            let id = name.strip_prefix(folder).unwrap_or_default();
            id.parse::<ObjectId>().is_ok() || id.parse::<SlotId>().is_ok()
        };
        names.extend(listed.into_iter().map(|object| object.name).filter(|name| is_one(name)));
    }
    let mut kit = Kit::default();
    for name in names {
        match replica.get(&name) {
            Ok(bytes) => drop(kit.objects.insert(name, bytes)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
            Err(error) => return Err(error).context(|| format!("cannot read `{name}` of the replica")),
        }
    }
    Ok(kit)
}
