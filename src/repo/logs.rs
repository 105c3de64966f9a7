//! Logs: many records in one object (SPEC §10.4).
//!
//! A log is a container and nothing more. Its items are stored objects under their own names, each verified
//! by itself, so whoever put the log adds nothing to them and takes nothing away; the log of an owner who was
//! removed since goes on counting. Single objects are listed before logs: who folds puts the log first and
//! deletes the single ones after, so one of the two is always seen.
//!
//! What is in a log is remembered by its hash: in memory, and its names in the catalog and its bytes in the
//! cache directory, so that later commands read neither again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Repository;
use super::collections::{Lists, Word};
use crate::error::{Context, Error, Kind, Result};
use crate::format::cbor::{self, MapReader, MapWriter, Record};
use crate::format::gc::Log;
use crate::format::record::RecordKind;
use crate::id::{ObjectId, hex};
use crate::storage::{ErrorKind, Listed};

/// Folder of logs.
pub const LOG: &str = "log/";

/// How often a list is repeated until it stands still before that is an error.
const TRIES_MAX: usize = 100;
/// Bytes of opened logs kept, so that items of one log that are read in a row open it once.
const OPEN_BYTES_MAX: usize = 32 << 20;

/// What is in a log, without the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// One more than the highest of the logs that were there when it was made.
    pub generation: u64,
    /// In ascending order of name.
    pub items: Vec<Item>,
}

/// An object in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its full name.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub hash: ObjectId,
}

impl Record for Contents {
    const WHAT: &'static str = "cached log";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.u64_unless_zero(1, self.generation);
        map.list(2, &self.items, |out, item| {
            out.push(0x83);
            cbor::push_text(out, &item.name);
            cbor::push_u64(out, item.bytes);
            cbor::push_bytes(out, item.hash.as_bytes());
        });
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> crate::format::Result<Self> {
        const WHAT: &str = Contents::WHAT;
        let generation = map.u64_or_zero(1)?;
        let items = map.list(2, |decoder| {
            if decoder.array().map_err(|error| cbor::fault(WHAT, &error))? != Some(3) {
                return Err(crate::format::DecodeError::malformed(WHAT, "an item that is not of three"));
            }
            Ok(Item {
                name: cbor::read_text(WHAT, decoder)?.to_owned(),
                bytes: cbor::read_u64(WHAT, decoder)?,
                hash: ObjectId::from_bytes(cbor::read_array(WHAT, decoder)?),
            })
        })?;
        Ok(Self { generation, items })
    }
}

impl Contents {
    fn of(log: &Log) -> Self {
        let item = |item: &crate::format::gc::LogItem| Item {
            name: item.name.clone(),
            bytes: item.stored.len() as u64,
            hash: ObjectId::of(&item.stored),
        };
        Self { generation: log.generation, items: log.items.iter().map(item).collect() }
    }

    fn find(&self, name: &str) -> Option<&Item> {
        let at = self.items.binary_search_by(|item| (*item.name).cmp(name)).ok()?;
        self.items.get(at)
    }
}

/// The logs that are there at one moment.
#[derive(Debug, Default)]
pub struct Logs {
    /// By rank, the highest last: generation, then hash.
    logs: Vec<(ObjectId, Arc<Contents>)>,
    /// Logs that are damaged, with the reason. What is in them counts as absent.
    pub faults: Vec<(String, String)>,
}

impl Logs {
    /// The item of a name, and its log: of several logs the one of the highest rank.
    pub fn find(&self, name: &str) -> Option<(&Item, &ObjectId)> {
        self.logs.iter().rev().find_map(|(log, contents)| Some((contents.find(name)?, log)))
    }

    /// The items whose names begin so, each once, with their logs.
    pub fn below(&self, prefix: &str) -> BTreeMap<&str, (&Item, &ObjectId)> {
        let mut items = BTreeMap::new();
        for (log, contents) in &self.logs {
            let from = contents.items.partition_point(|item| *item.name < *prefix);
            let all = contents.items[from..].iter().take_while(|item| item.name.starts_with(prefix));
            items.extend(all.map(|item| (&*item.name, (item, log))));
        }
        items
    }

    /// Every log with what is in it, the highest rank last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&ObjectId, &Contents)> {
        self.logs.iter().map(|(hash, contents)| (hash, &**contents))
    }

    /// The generation of a new log.
    pub fn next_generation(&self) -> u64 {
        self.logs.last().map_or(1, |(_, contents)| contents.generation.saturating_add(1))
    }
}

/// What each object of a log says, by name.
type Words = Vec<(String, Word)>;

/// What one process has learned of logs. Their names are hashes, so nothing here grows old.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    contents: Mutex<HashMap<ObjectId, Arc<Contents>>>,
    open: Mutex<VecDeque<(ObjectId, Arc<Log>)>>,
    /// The logs that were there last.
    current: Mutex<Arc<Logs>>,
    /// What collections and notes in a log say.
    words: Mutex<HashMap<ObjectId, Arc<Words>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Repository {
    /// Lists the logs and learns what is in them.
    pub fn load_logs(&self, lists: Lists) -> Result<Arc<Logs>> {
        for _ in 0..TRIES_MAX {
            if let Some(logs) = self.logs_of(&self.listed(LOG, lists)?)? {
                return Ok(logs);
            }
        }
        Err(Error::new(Kind::Failed, "cannot read the logs: they change all the time"))
    }

    /// The logs that were there when they were listed last.
    pub(crate) fn known_logs(&self) -> Arc<Logs> {
        locked(&self.shelf.current).clone()
    }

    /// What is in the logs of a list. `None` when one vanished between list and read.
    pub(super) fn logs_of(&self, listed: &[Listed]) -> Result<Option<Arc<Logs>>> {
        let mut logs = Logs::default();
        let hashes = listed.iter().filter_map(|object| object.name.strip_prefix(LOG)?.parse::<ObjectId>().ok());
        let hashes: Vec<ObjectId> = hashes.collect();
        let mut unknown = Vec::new();
        for hash in &hashes {
            match locked(&self.shelf.contents).get(hash) {
                Some(contents) => logs.logs.push((*hash, contents.clone())),
                None => unknown.push(*hash),
            }
        }
        let mut learned = Vec::new();
        let mut catalog = (!unknown.is_empty() && self.cache.is_some()).then(|| self.open_catalog());
        for hash in unknown {
            let fact = catalog.as_ref().and_then(|catalog| catalog.fact(&fact_key(&hash)));
            let contents = match fact.and_then(|fact| cbor::decode::<Contents>(&fact).ok()) {
                Some(contents) => contents,
                None => match self.open_log(&hash) {
                    Ok(Some(log)) => {
                        let contents = Contents::of(&log);
                        learned.push((fact_key(&hash), cbor::encode(&contents)));
                        contents
                    }
                    Ok(None) => return Ok(None),
                    Err(error) if error.kind() == Kind::Damaged => {
                        logs.faults.push((format!("{LOG}{hash}"), error.innermost()));
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let contents = Arc::new(contents);
            locked(&self.shelf.contents).insert(hash, contents.clone());
            logs.logs.push((hash, contents));
        }
        if let Some(catalog) = &mut catalog
            && !learned.is_empty()
        {
            let learned: Vec<_> = learned.iter().map(|(key, value)| (&key[..], &value[..])).collect();
            catalog.put_facts(&learned);
            self.tidy_cached_logs(&hashes);
        }
        logs.logs.sort_by_key(|(hash, contents)| (contents.generation, *hash));
        let logs = Arc::new(logs);
        *locked(&self.shelf.current) = logs.clone();
        Ok(Some(logs))
    }

    /// A log, opened. `None` when it is not there; [`Kind::Damaged`] when it does not verify.
    fn open_log(&self, hash: &ObjectId) -> Result<Option<Arc<Log>>> {
        // Who else wants it waits, rather than open it once more.
        let mut open = locked(&self.shelf.open);
        if let Some((_, log)) = open.iter().find(|(known, _)| known == hash) {
            return Ok(Some(log.clone()));
        }
        let name = format!("{LOG}{hash}");
        let kept = self.cached_log(hash);
        let cached = fs::read(kept.clone().unwrap_or_default()).ok();
        let (stored, is_new) = match cached.filter(|bytes| ObjectId::of(bytes) == *hash) {
            Some(stored) => (stored, false),
            None => match self.storage.get(&name) {
                Ok(stored) => (stored, true),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error).context(|| format!("cannot read `{name}`")),
            },
        };
        let opened = self.open_record(RecordKind::Log, &name, &stored)?;
        let log: Log = cbor::decode(&opened.body).context(|| format!("cannot read `{name}`"))?;
        let log = Arc::new(log);
        if let Some(kept) = kept.filter(|_| is_new) {
            keep(&kept, &stored, &hex(&self.world.random::<8>()));
        }
        open.push_back((*hash, log.clone()));
        let bytes = |log: &Log| log.items.iter().map(|item| item.stored.len()).sum::<usize>();
        while open.len() > 1 && open.iter().map(|(_, log)| bytes(log)).sum::<usize>() > OPEN_BYTES_MAX {
            open.pop_front();
        }
        Ok(Some(log))
    }

    /// The bytes of an object that stands in a log, or by itself. An item goes before an object: it was there
    /// first. `None` when there is neither.
    pub(crate) fn get_logged(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut logs = self.known_logs();
        for _ in 0..TRIES_MAX {
            if let Some((_, log)) = logs.find(name) {
                if let Some(log) = self.open_log(log)? {
                    let at = log.items.binary_search_by(|item| (*item.name).cmp(name)).ok();
                    return Ok(at.map(|at| log.items[at].stored.clone()));
                }
            } else {
                match self.storage.get(name) {
                    Ok(stored) => return Ok(Some(stored)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error).context(|| format!("cannot read `{name}`")),
                }
            }
            // It was folded, or its log was joined with others, since the logs were listed.
            logs = self.load_logs(Lists::Once)?;
            if logs.find(name).is_none() {
                return Ok(None);
            }
        }
        Err(Error::new(Kind::Failed, format!("cannot read `{name}`: the logs change all the time")))
    }

    /// Whether an object is there, by itself or in a log, as of now.
    pub(crate) fn is_there(&self, name: &str) -> Result<bool> {
        match self.storage.stat(name) {
            Ok(_) => Ok(true),
            // Only then the logs: who folds puts the log first.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(self.load_logs(Lists::Once)?.find(name).is_some()),
            Err(error) => Err(error).context(|| format!("cannot look for `{name}`")),
        }
    }

    /// What the collections and notes in a log say, each verified. `None` when the log is not there.
    pub(super) fn words_in(&self, hash: &ObjectId) -> Result<Option<Arc<Words>>> {
        if let Some(words) = locked(&self.shelf.words).get(hash) {
            return Ok(Some(words.clone()));
        }
        let Some(log) = self.open_log(hash)? else { return Ok(None) };
        let said = log.items.iter().filter_map(|item| Some((item.name.clone(), self.word(&item.name, &item.stored)?)));
        let words = Arc::new(said.collect::<Words>());
        locked(&self.shelf.words).insert(*hash, words.clone());
        Ok(Some(words))
    }

    /// Every item of a log that is none, with the reason. Reads the log from the storage.
    pub(crate) fn faults_of_log(&self, name: &str, stored: &[u8]) -> Result<Vec<(String, Error)>> {
        let opened = self.open_record(RecordKind::Log, name, stored)?;
        let log: Log = cbor::decode(&opened.body).context(|| format!("cannot read `{name}`"))?;
        let faults = log.items.iter().filter_map(|item| {
            let error = self.fault_of(&item.name, &item.stored)?;
            Some((item.name.clone(), error))
        });
        Ok(faults.collect())
    }

    fn cached_log(&self, hash: &ObjectId) -> Option<PathBuf> {
        Some(self.cache.as_ref()?.join("log").join(hash.to_string()))
    }

    /// Forgets logs that are there no more.
    fn tidy_cached_logs(&self, there: &[ObjectId]) {
        let Some(dir) = self.cache.as_ref().map(|cache| cache.join("log")) else { return };
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let is_there = |hash: ObjectId| there.contains(&hash);
            if !entry.file_name().to_str().and_then(|name| name.parse().ok()).is_some_and(is_there) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Keeps a log's stored bytes in the cache. What fails is read from the storage next time.
fn keep(path: &std::path::Path, stored: &[u8], suffix: &str) {
    let Some(dir) = path.parent() else { return };
    let draft = dir.join(format!("draft-{suffix}"));
    let kept = crate::storage::local::make_directories(dir)
        .and_then(|()| fs::write(&draft, stored))
        .and_then(|()| Ok(rustix::fs::rename(&draft, path)?));
    if kept.is_err() {
        let _ = fs::remove_file(&draft);
    }
}

fn fact_key(hash: &ObjectId) -> Vec<u8> {
    [b"log ", &hash.as_bytes()[..]].concat()
}
