//! Making second copies count: what is lost or damaged of `config`, the key slots and the access
//! statements is put back from where it is whole (SPEC §3, §4.6).
//!
//! Needs no key. `config` is signed by the key it names, a statement's name is the hash of its
//! bytes, and a slot's hash stands in a statement; so whoever is asked (the original, its second
//! copy, a recovery kit) can only give the right bytes or none. Nothing that is whole is ever
//! written over: two whole and different configs are refused. [`plan`] only reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::access::AccessList;
use super::kit::Kit;
use super::open::{CONFIG, COPIES, Local, parse_config};
use super::pins::Watch;
use crate::error::{Context, Error, Kind, Result};
use crate::format::config::Config;
use crate::id::ObjectId;
use crate::storage::{ErrorKind, Storage, WriteMode};

/// Where whole bytes were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Under the object's own name.
    Original,
    /// Under `copies/`.
    Copy,
    /// In the recovery kit.
    Kit,
}

/// What was wrong with what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Was {
    /// There was no such object.
    Missing,
    /// Its bytes were not what they should be.
    Damaged,
}

impl fmt::Display for Was {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Missing { "missing" } else { "damaged" })
    }
}

/// One object to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What is there now.
    pub was: Was,
    /// Where the bytes are from.
    pub from: Source,
}

/// What is to be done, and what cannot be.
#[derive(Debug)]
pub struct Plan {
    /// The objects to put, in the order that keeps a repository from appearing before it is whole.
    pub puts: Vec<Put>,
    /// What is whole nowhere, with the reason.
    pub lost: Vec<(String, String)>,
    /// Whether access statements that this machine has seen are missing even so: a kit may be old.
    pub is_behind: bool,
}

/// What stands under a name.
enum Found {
    Whole(Vec<u8>),
    Not(Was),
}

struct Look<'a> {
    storage: &'a dyn Storage,
    kit: &'a Kit,
    puts: Vec<Put>,
    lost: Vec<(String, String)>,
}

impl Look<'_> {
    fn at(&self, name: &str, check: &dyn Fn(&[u8]) -> Result<()>) -> Result<Found> {
        match self.storage.get(name) {
            Ok(bytes) => match check(&bytes) {
                Ok(()) => Ok(Found::Whole(bytes)),
                Err(error) if error.kind() == Kind::Damaged => Ok(Found::Not(Was::Damaged)),
                Err(error) => Err(error),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Not(Was::Missing)),
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Found::Not(Was::Damaged)),
            Err(error) => Err(error).context(|| format!("cannot read `{name}`")),
        }
    }

    /// Looks at an object, its second copy and the kit. Gives its whole bytes, if they are anywhere,
    /// after having planned to put them where they are not.
    fn mend(&mut self, name: &str, check: &dyn Fn(&[u8]) -> Result<()>) -> Result<Option<Vec<u8>>> {
        let copy = format!("{COPIES}{name}");
        let sides = [(name.to_owned(), self.at(name, check)?), (copy.clone(), self.at(&copy, check)?)];
        let in_kit = self.kit.objects.get(name).filter(|bytes| check(bytes).is_ok());
        let whole = |found: &Found| if let Found::Whole(bytes) = found { Some(bytes.clone()) } else { None };
        let known = [
            (Source::Copy, whole(&sides[1].1)),
            (Source::Original, whole(&sides[0].1)),
            (Source::Kit, in_kit.cloned()),
        ];
        let mut found = known.into_iter().filter_map(|(from, bytes)| Some((from, bytes?)));
        let Some((from, bytes)) = found.next() else { return Ok(None) };
        if let Some((other, _)) = found.find(|(_, other)| *other != bytes) {
            return Err(differ(name, from, other, &self.storage.place()));
        }
        // The second copy first, as when it was made.
        for (name, found) in sides.into_iter().rev() {
            if let Found::Not(was) = found {
                self.puts.push(Put { name, bytes: bytes.clone(), was, from });
            }
        }
        Ok(Some(bytes))
    }
}

fn differ(name: &str, one: Source, other: Source, place: &str) -> Error {
    let call = |source| match source {
        Source::Original => format!("`{name}`"),
        Source::Copy => format!("`{COPIES}{name}`"),
        Source::Kit => "the one in the recovery kit".to_owned(),
    };
    let what =
        format!("nothing was repaired at `{place}`: {} and {} are both valid and differ", call(one), call(other));
    Error::new(Kind::Refused, what)
        .hint("one of them belongs to another repository: find out which, and move it out of the way")
}

/// Works out what there is to put back, and from where. Writes nothing.
pub fn plan(storage: &dyn Storage, kit: &Kit, local: &Local) -> Result<Plan> {
    let mut look = Look { storage, kit, puts: vec![], lost: vec![] };
    let stored = look.mend(CONFIG, &|bytes| parse_config(CONFIG, bytes).map(|_| ()))?;
    let config_puts = std::mem::take(&mut look.puts);
    let Some(stored) = stored else { return Err(no_config(storage)?) };
    let config = parse_config(CONFIG, &stored)?;
    let mut watch = Watch::begin(storage, &config, local)?;

    let statements = statement_names(storage, kit)?;
    let list = mend_statements(&mut look, &config, statements)?;
    for slot in list.slots() {
        let name = format!("keys/{}", slot.slot);
        let check = |bytes: &[u8]| match ObjectId::of(bytes) == slot.hash {
            true => Ok(()),
            false => Err(Error::new(Kind::Damaged, "it is not the slot its owner stored")),
        };
        if look.mend(&name, &check)?.is_none() {
            look.lost.push((name, "no side has it whole: the password it is for opens nothing".into()));
        }
    }
    watch.look_at_access(&list);
    let mut puts = look.puts;
    // Until `config` is there, there is no repository.
    puts.extend(config_puts);
    Ok(Plan { puts, lost: look.lost, is_behind: watch.is_behind() })
}

/// There is no `config` anywhere: either no repository, or one that has lost it.
fn no_config(storage: &dyn Storage) -> Result<Error> {
    let place = storage.place();
    let mut is_empty = true;
    for folder in ["access/", "copies/", "snapshots/"] {
        is_empty &= storage.list(folder).context(|| format!("cannot list `{folder}`"))?.is_empty();
    }
    for name in [CONFIG.to_owned(), format!("{COPIES}{CONFIG}")] {
        is_empty &= matches!(storage.stat(&name), Err(error) if error.kind() == ErrorKind::NotFound);
    }
    Ok(match is_empty {
        true => Error::new(Kind::NoRepository, format!("there is no repository at `{place}`"))
            .hint("to make one, run `esker init` with the same --repo"),
        false => {
            let what = format!("nothing was repaired at `{place}`: neither `config` nor its second copy is whole");
            Error::new(Kind::Failed, what)
                .hint("to put it back from a recovery kit or a copy of one, run `esker repair config --from KIT`")
        }
    })
}

/// The names of all statements, wherever they are.
fn statement_names(storage: &dyn Storage, kit: &Kit) -> Result<BTreeSet<String>> {
    let mut names: BTreeSet<_> = kit.objects.keys().filter(|name| name.starts_with("access/")).cloned().collect();
    for folder in ["access/".to_owned(), format!("{COPIES}access/")] {
        for object in storage.list(&folder).context(|| "cannot list the access statements")? {
            let hash = object.name.rsplit('/').next().and_then(|hash| hash.parse::<ObjectId>().ok());
            names.extend(hash.map(|hash| format!("access/{hash}")));
        }
    }
    Ok(names)
}

/// Plans for the statements and gives the access list there will be.
fn mend_statements(look: &mut Look<'_>, config: &Config, names: BTreeSet<String>) -> Result<AccessList> {
    let mut whole = BTreeMap::new();
    let before = look.puts.len();
    for name in names {
        match look.mend(&name, &|bytes| AccessList::is_statement(&name, bytes))? {
            Some(bytes) => drop(whole.insert(name, bytes)),
            None => look.lost.push((name, "no side has it whole".into())),
        }
    }
    let list = AccessList::of_objects(config, &whole);
    // Anyone can make a statement. From a kit only those are taken that count.
    let counts = |name: &str| {
        let hash = name.rsplit('/').next().and_then(|hash| hash.parse().ok());
        hash.is_some_and(|hash| list.counts(&hash))
    };
    let mut at = 0;
    look.puts.retain(|put| {
        at += 1;
        at <= before || put.from != Source::Kit || counts(&put.name)
    });
    if list.is_empty() {
        look.lost
            .push(("access/".into(), "no statement by the root owner is there: nothing opens the repository".into()));
    }
    let named: BTreeSet<_> = look.lost.iter().map(|(name, _)| name.clone()).collect();
    for hash in list.lost() {
        let name = format!("access/{hash}");
        if !named.contains(&name) {
            look.lost.push((name, "it is nowhere, and statements that have seen it do not count".into()));
        }
    }
    Ok(list)
}

/// Does what was planned. What is there by now under a name that was missing stays.
pub fn run(storage: &dyn Storage, plan: &Plan) -> Result<()> {
    for put in &plan.puts {
        let what = || format!("cannot put back `{}`", put.name);
        if put.name == CONFIG {
            storage.barrier().context(what)?;
        }
        let mode = if put.was == Was::Missing { WriteMode::CreateNew } else { WriteMode::Replace };
        match storage.put(&put.name, &put.bytes, mode) {
            // Another repair was faster; whether it is whole the next look says.
            Err(error) if error.kind() == ErrorKind::Exists => {}
            result => result.context(what)?,
        }
    }
    storage.barrier().context(|| "cannot make what was put back durable")
}
