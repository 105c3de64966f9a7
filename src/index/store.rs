//! A catalog's directory: a lock, a database, and the run files the database names.
//!
//! ```text
//! lock              held, for moments, by whoever touches the rest
//! catalog.redb      which runs, sources, packs and origins there are; facts
//! runs/<name>.run   see `run`
//! ```
//!
//! The database admits one process at a time, so it is opened for moments only, under the lock.
//! Runs are written and merged outside those moments: a run's file is made, and locked, in one
//! moment, filled, and named by the database in a later one. Until then it is not part of the
//! catalog, and if its writer dies, the lock on it is gone and the next to open the catalog
//! removes it. Files are made and removed only in moments, so these never miss each other.
//!
//! Numbers are only ever added to; what a process has read stays true. If the catalog was begun
//! anew meanwhile, its *generation* is another one and [`Trouble::Replaced`] says so.
//!
//! Ordinary reads of the database check no page, and one that is damaged can mislead them. To check
//! all pages each time would cost more than all else that opening does, so what is read is checked
//! instead: two sums over all rows are kept beside them, envelopes have their hash in their
//! origin, facts carry a check. None of that is against malice: see [`super::rows`].

use std::collections::HashMap;
use std::collections::HashSet;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use redb::Database;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::TableDefinition;
use rustix::io::Errno;

use super::Error;
use super::io_error;
use super::rows::OriginRow;
use super::rows::PackRow;
use super::run::Fault;
use super::run::Run;
use super::run::Seal;
use super::state::NamedRun;
use super::state::State;
use super::state::Version;
use super::unnamed::unique;
use crate::storage::local::sync_directory;

/// The version of all that is in the directory. Another one is begun anew.
const FORMAT: u64 = 3;

const DATABASE: &str = "catalog.redb";
const CACHE_BYTES: usize = 4 << 20;
const RETRY_PAUSE: Duration = Duration::from_millis(5);

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const ORIGINS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("origins");
const PACKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("packs");
const IMPORTED: TableDefinition<'_, u32, &[u8; 32]> = TableDefinition::new("imported");
const RUNS: TableDefinition<'_, u64, &Seal> = TableDefinition::new("runs");
const ENVELOPES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("envelopes");
const FACTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("facts");

/// Why the catalog on disk cannot be used just now.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another process has it, for longer than we wait.
    Busy,
    /// It was begun anew since we opened it.
    Replaced,
    /// It is not what was written.
    Damaged(String),
    /// The file system failed.
    Failed(Error),
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::Busy,
            // That there is no room makes nothing of it wrong.
            redb::Error::Io(source) if refuses_writing(&source) => {
                Self::Failed(io_error("write the catalog database", DATABASE)(source))
            }
            error => Self::Damaged(error.to_string()),
        }
    }
}

fn refuses_writing(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT | Errno::ROFS))
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A change to the database, made whole or not at all. Slices begin at the number given with them.
#[derive(Default)]
pub(super) struct Change<'a> {
    pub(super) origins: (usize, &'a [OriginRow]),
    /// The new origins' among others, by their BLAKE3.
    pub(super) envelopes: HashMap<[u8; 32], &'a [u8]>,
    pub(super) packs: (usize, &'a [PackRow]),
    pub(super) imported: (usize, &'a [[u8; 32]]),
    pub(super) run_added: Option<(u64, Seal)>,
    pub(super) runs_removed: &'a [NamedRun],
}

/// A run file being written: part of the catalog only once the database names it.
pub(super) struct Draft {
    pub(super) name: u64,
    pub(super) path: PathBuf,
    /// Keeps the file locked, which says that its writer lives.
    _lock: File,
}

impl Draft {
    /// Removes the name again. What is open and mapped stays so.
    pub(super) fn discard(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The directory of a catalog that was opened.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    generation: u64,
    patience: Duration,
}

impl Store {
    /// Opens the catalog in `dir`, anew if it is damaged or of another version, and fills `state`.
    pub(super) fn open(dir: &Path, patience: Duration, state: &mut State) -> Result<Self, Trouble> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create the directory", dir))?;
        let _lock = lock(dir, patience)?;
        let open = |state: &mut State| {
            caught(|| {
                let db = open_database(dir, patience, OpenMode::Create)?;
                let store = Self { dir: dir.into(), generation: generation(&db)?, patience };
                store.load(&db, state)?;
                store.remove_leftovers(state)?;
                Ok(store)
            })
        };
        match open(state) {
            Err(Trouble::Damaged(_)) => {}
            other => return other,
        }
        *state = State::default();
        wipe(dir)?;
        open(state).map_err(|trouble| match trouble {
            Trouble::Damaged(message) => Trouble::Failed(Error::Database { path: database_path(dir), message }),
            other => other,
        })
    }

    /// Does `work` with the database, alone. Keep it short: other processes wait.
    pub(super) fn moment<T>(&self, work: impl FnOnce(&Database) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let _lock = lock(&self.dir, self.patience)?;
        caught(|| {
            let db = open_database(&self.dir, self.patience, OpenMode::Existing)?;
            if generation(&db)? != self.generation {
                return Err(Trouble::Replaced);
            }
            work(&db)
        })
    }

    /// Brings `state` up to what the database says. On failure it is as it was.
    pub(super) fn load(&self, db: &Database, state: &mut State) -> Result<(), Trouble> {
        let Some(news) = read_news(db, state)? else { return Ok(()) };
        let mut runs = Vec::with_capacity(news.runs.len());
        for (name, seal) in &news.runs {
            let open = state.runs.iter().find(|run| run.name == Some(*name));
            runs.push(open.cloned().map_or_else(|| self.open_run(*name, seal), Ok)?);
        }
        state.origins.extend(news.origins);
        state.packs.extend(news.packs);
        state.imported.extend(news.imported);
        state.runs = runs;
        state.version = news.version;
        Ok(())
    }

    /// Makes an empty run file. Only in a moment.
    pub(super) fn create_run(&self) -> Result<(Draft, File), Trouble> {
        loop {
            let name = unique();
            let path = self.run_path(name);
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("create the catalog run", path)(error).into()),
                Ok(file) => {
                    file.try_lock().map_err(|_| Trouble::Busy)?;
                    let lock = file.try_clone().map_err(io_error("open the catalog run", &path))?;
                    return Ok((Draft { name, path, _lock: lock }, file));
                }
            }
        }
    }

    /// Makes the names of new runs durable. Before the database names them.
    pub(super) fn sync_runs(&self) -> Result<(), Error> {
        let path = self.runs_dir();
        sync_directory(&path).map_err(io_error("synchronise the directory", path))
    }

    /// Unlinks runs that the database names no more. Who has them open keeps them.
    pub(super) fn unlink_runs(&self, runs: &[NamedRun]) {
        for name in runs.iter().filter_map(|run| run.name) {
            // If this fails the next to open the catalog does it.
            let _ = std::fs::remove_file(self.run_path(name));
        }
    }

    /// Removes the catalog, unless it is another one by now. Then or when this fails it stays.
    pub(super) fn wipe(&self) -> Result<(), Trouble> {
        let _lock = lock(&self.dir, self.patience)?;
        let ours = caught(|| Ok(generation(&open_database(&self.dir, self.patience, OpenMode::Existing)?)?));
        match ours {
            Ok(generation) if generation != self.generation => Ok(()),
            Err(Trouble::Busy) => Err(Trouble::Busy),
            _ => Ok(wipe(&self.dir)?),
        }
    }

    fn open_run(&self, name: u64, seal: &Seal) -> Result<NamedRun, Trouble> {
        let path = self.run_path(name);
        let damaged = |fault: Fault| Trouble::Damaged(fault.about("read the catalog run", &path).to_string());
        let file = File::open(&path).map_err(|error| damaged(error.into()))?;
        let run = Run::open(&file, Some(seal)).map_err(damaged)?;
        Ok(NamedRun { name: Some(name), run: Arc::new(run) })
    }

    /// Removes run files that no database names and nobody is writing, and makes the directory.
    fn remove_leftovers(&self, state: &State) -> Result<(), Trouble> {
        let dir = self.runs_dir();
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(io_error("create the directory", dir)(error).into());
            }
            _ => {}
        }
        let named: HashSet<PathBuf> =
            state.runs.iter().filter_map(|run| run.name).map(|name| self.run_path(name)).collect();
        // A file where the directory should be is damage too.
        let damaged = |error: std::io::Error| Trouble::Damaged(error.to_string());
        for entry in std::fs::read_dir(&dir).map_err(damaged)? {
            let path = entry.map_err(damaged)?.path();
            let unused = || File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            if !named.contains(&path) && unused() {
                let _ = std::fs::remove_file(&path);
            }
        }
        Ok(())
    }

    fn runs_dir(&self) -> PathBuf {
        self.dir.join("runs")
    }

    fn run_path(&self, name: u64) -> PathBuf {
        self.runs_dir().join(format!("{name:016x}.run"))
    }
}

/// Makes a change; returns what the database is then.
pub(super) fn commit(db: &Database, change: &Change<'_>) -> Result<Version, redb::Error> {
    let number = |first: usize, i: usize| u32::try_from(first + i).map_err(|_| corrupted("a number is too large"));
    let txn = db.begin_write()?;
    let version = {
        let mut meta = txn.open_table(META)?;
        let Version { mut commits, mut sum } = version(&meta)?;
        let mut runs_sum = value(&meta, "runs sum")?;
        let mut origins = txn.open_table(ORIGINS)?;
        let mut envelopes = txn.open_table(ENVELOPES)?;
        for (i, row) in change.origins.1.iter().enumerate() {
            let (number, bytes) = (number(change.origins.0, i)?, row.encode());
            sum = sum.wrapping_add(weight(Kind::Origin, number.into(), &bytes));
            origins.insert(number, &bytes[..])?;
            if let Some(envelope) = change.envelopes.get(&row.envelope) {
                envelopes.insert(&row.envelope, envelope)?;
            }
        }
        let mut packs = txn.open_table(PACKS)?;
        for (i, row) in change.packs.1.iter().enumerate() {
            let (number, bytes) = (number(change.packs.0, i)?, row.encode());
            sum = sum.wrapping_add(weight(Kind::Pack, number.into(), &bytes));
            packs.insert(number, &bytes[..])?;
        }
        let mut imported = txn.open_table(IMPORTED)?;
        for (i, key) in change.imported.1.iter().enumerate() {
            let number = number(change.imported.0, i)?;
            sum = sum.wrapping_add(weight(Kind::Imported, number.into(), key));
            imported.insert(number, key)?;
        }
        let mut runs = txn.open_table(RUNS)?;
        for name in change.runs_removed.iter().filter_map(|run| run.name) {
            if let Some(seal) = runs.remove(name)? {
                runs_sum = runs_sum.wrapping_sub(weight(Kind::Run, name, seal.value()));
            }
        }
        if let Some((name, seal)) = &change.run_added {
            runs_sum = runs_sum.wrapping_add(weight(Kind::Run, *name, seal));
            runs.insert(name, seal)?;
        }
        commits += 1;
        meta.insert("commits", commits)?;
        meta.insert("sum", sum)?;
        meta.insert("runs sum", runs_sum)?;
        Version { commits, sum }
    };
    txn.commit()?;
    Ok(version)
}

fn value(meta: &impl ReadableTable<&'static str, u64>, key: &str) -> Result<u64, redb::Error> {
    Ok(meta.get(key)?.map_or(0, |value| value.value()))
}

fn version(meta: &impl ReadableTable<&'static str, u64>) -> Result<Version, redb::Error> {
    Ok(Version { commits: value(meta, "commits")?, sum: value(meta, "sum")? })
}

/// What a row says something about.
#[derive(Clone, Copy)]
enum Kind {
    Origin = 1,
    Pack = 2,
    Imported = 3,
    Run = 4,
    Fact = 5,
}

/// What a row adds to the sum over all of them.
fn weight(kind: Kind, key: u64, row: &[u8]) -> u64 {
    let mix = |sum: u64, word: u64| {
        let sum = (sum ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        sum ^ sum >> 32
    };
    let mut sum = mix(mix(0x9e37_79b9_7f4a_7c15, kind as u64), key);
    let (words, rest) = row.as_chunks::<8>();
    sum = words.iter().fold(sum, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(sum, u64::from_le_bytes(last)), row.len() as u64)
}

/// What is remembered under each key.
pub(super) fn read_facts(db: &Database, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, redb::Error> {
    let facts = db.begin_read()?.open_table(FACTS)?;
    let sound = |key: &[u8], stored: &[u8]| {
        let (check, value) = stored.split_first_chunk()?;
        (fact_check(key, value) == *check).then(|| value.to_vec())
    };
    keys.iter().map(|key| Ok(facts.get(*key)?.and_then(|stored| sound(key, stored.value())))).collect()
}

/// Remembers values under keys.
pub(super) fn write_facts(db: &Database, batch: &[(&[u8], &[u8])]) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    {
        let mut facts = txn.open_table(FACTS)?;
        for (key, value) in batch {
            facts.insert(*key, &*[&fact_check(key, value), *value].concat())?;
        }
    }
    Ok(txn.commit()?)
}

/// What stands before a fact.
fn fact_check(key: &[u8], value: &[u8]) -> [u8; 8] {
    weight(Kind::Fact, weight(Kind::Fact, 0, key), value).to_le_bytes()
}

/// The envelope with this BLAKE3, or what has taken its place.
pub(super) fn read_envelope(db: &Database, hash: &[u8; 32]) -> Result<Option<Vec<u8>>, redb::Error> {
    let envelopes = db.begin_read()?.open_table(ENVELOPES)?;
    Ok(envelopes.get(hash)?.map(|envelope| envelope.value().to_vec()))
}

/// What the database has that a state has not.
struct News {
    origins: Vec<OriginRow>,
    packs: Vec<PackRow>,
    imported: HashSet<[u8; 32]>,
    runs: HashMap<u64, Seal>,
    version: Version,
}

/// `None` when nothing was committed since `state` was loaded.
fn read_news(db: &Database, state: &State) -> Result<Option<News>, redb::Error> {
    let txn = db.begin_read()?;
    let meta = txn.open_table(META)?;
    let version = version(&meta)?;
    if version == state.version {
        return Ok(None);
    }
    let mut sum = state.version.sum;
    let mut weigh = |kind, number: u32, row: &[u8]| sum = sum.wrapping_add(weight(kind, number.into(), row));
    let origins = rows_from(&txn.open_table(ORIGINS)?, state.origins.items().len(), |number, row: &[u8]| {
        weigh(Kind::Origin, number, row);
        OriginRow::decode(row)
    })?;
    let packs = rows_from(&txn.open_table(PACKS)?, state.packs.items().len(), |number, row: &[u8]| {
        weigh(Kind::Pack, number, row);
        PackRow::decode(row)
    })?;
    let origins_count = state.origins.items().len() + origins.len();
    if packs.iter().any(|pack| pack.origin as usize >= origins_count) {
        return Err(corrupted("a pack has no origin"));
    }
    let keys = rows_from(&txn.open_table(IMPORTED)?, state.imported.len(), |number, key: &[u8; 32]| {
        weigh(Kind::Imported, number, key);
        Some(*key)
    })?;
    let keys_count = keys.len();
    let imported: HashSet<[u8; 32]> = keys.into_iter().filter(|key| !state.imported.contains(key)).collect();
    if imported.len() != keys_count {
        return Err(corrupted("a source is there twice"));
    }
    let mut runs = HashMap::new();
    let mut runs_sum = 0_u64;
    for row in txn.open_table(RUNS)?.iter()? {
        let (name, seal) = row?;
        runs_sum = runs_sum.wrapping_add(weight(Kind::Run, name.value(), seal.value()));
        runs.insert(name.value(), *seal.value());
    }
    if sum != version.sum || runs_sum != value(&meta, "runs sum")? {
        return Err(corrupted("the rows are not those that were written"));
    }
    Ok(Some(News { origins, packs, imported, runs, version }))
}

/// The rows from number `first` on.
fn rows_from<V: redb::Value + 'static, T>(
    table: &impl ReadableTable<u32, V>,
    first: usize,
    mut decode: impl FnMut(u32, V::SelfType<'_>) -> Option<T>,
) -> Result<Vec<T>, redb::Error> {
    let start = u32::try_from(first).map_err(|_| corrupted("a number is too large"))?;
    let mut rows = Vec::new();
    for row in table.range(start..)? {
        let (number, value) = row?;
        if number.value() as usize != first + rows.len() {
            return Err(corrupted("a number is missing"));
        }
        rows.push(decode(number.value(), value.value()).ok_or_else(|| corrupted("a row is malformed"))?);
    }
    Ok(rows)
}

fn corrupted(message: &str) -> redb::Error {
    redb::Error::Corrupted(message.into())
}

/// Whether a database that is not there is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OpenMode {
    Create,
    Existing,
}

fn database_path(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

/// Opens the database. Under the lock nobody of ours has it, but something else may.
fn open_database(dir: &Path, patience: Duration, mode: OpenMode) -> Result<Database, Trouble> {
    let path = database_path(dir);
    let is_new = mode == OpenMode::Create && !path.exists();
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let opened = wait(patience, || match if is_new { builder.create(&path) } else { builder.open(&path) } {
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => None,
        other => Some(other),
    });
    let db = opened.ok_or(Trouble::Busy)?.map_err(redb::Error::from)?;
    if is_new {
        begin_database(&db)?;
    }
    Ok(db)
}

fn begin_database(db: &Database) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    {
        let mut meta = txn.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("generation", unique())?;
    }
    txn.open_table(FACTS)?;
    txn.open_table(ENVELOPES)?;
    txn.commit()?;
    commit(db, &Change::default())?;
    Ok(())
}

/// The generation of a database of our version.
fn generation(db: &Database) -> Result<u64, redb::Error> {
    let meta = db.begin_read()?.open_table(META)?;
    let value = |key| Ok::<_, redb::Error>(meta.get(key)?.map(|value| value.value()));
    if value("format")? != Some(FORMAT) {
        return Err(corrupted("the catalog is of another version"));
    }
    value("generation")?.ok_or_else(|| corrupted("the catalog has no generation"))
}

/// Turns a panic into [`Trouble::Damaged`]: redb asserts what it finds in allocation maps that no
/// checksum covers (seen in 2 of 3,000 files with one byte changed). What the panic interrupted
/// is dropped, and the transaction with it.
fn caught<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Trouble::Damaged("the database panicked".into())))
}

/// The lock, while this lives.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do: a child that another thread is just forking has the file too, until it execs.
        let _ = self.0.unlock();
    }
}

fn lock(dir: &Path, patience: Duration) -> Result<Lock, Trouble> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(io_error("open the lock file", &path))?;
    let locked = wait(patience, || match file.try_lock() {
        Err(TryLockError::WouldBlock) => None,
        other => Some(other),
    });
    match locked {
        Some(Ok(())) => Ok(Lock(file)),
        // A file system that knows no locks.
        Some(Err(TryLockError::Error(error))) => Err(io_error("lock", &path)(error).into()),
        _ => Err(Trouble::Busy),
    }
}

/// Tries until there is an answer or patience is at its end; at least once.
fn wait<T>(patience: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let answer = attempt();
        if answer.is_some() || start.elapsed() >= patience {
            return answer;
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

/// Removes all that is in the directory but the lock.
fn wipe(dir: &Path) -> Result<(), Error> {
    for path in [database_path(dir), dir.join("runs")] {
        let removed = match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error("remove the damaged catalog", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}
