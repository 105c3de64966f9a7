//! The catalog: chunk rows of many index segments, looked up by id.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redb::Database;

use super::Error;
use super::envelopes::Envelopes;
use super::rows::CHUNK_ROW_BYTES;
use super::rows::ChunkRow;
use super::rows::NewOrigin;
use super::rows::NewRow;
use super::rows::OriginRow;
use super::rows::PackRow;
use super::run;
use super::run::Fault;
use super::run::Seal;
use super::state::ChunkRun;
use super::state::NamedRun;
use super::state::PackNumbers;
use super::state::State;
use super::store;
use super::store::Change;
use super::store::Draft;
use super::store::Store;
use super::store::Trouble;
use crate::id::ChunkId;
use crate::id::DescriptionId;
use crate::id::PackId;

/// How long to wait for another process to let go of the catalog.
const PATIENCE: Duration = Duration::from_secs(2);

/// One source of rows: an index segment, or a commit with its index entries in it.
#[derive(Debug, Clone)]
pub struct Import {
    /// Names the source, for [`Catalog::imported`].
    pub key: [u8; 32],
    /// The sessions that made the packs.
    pub origins: Vec<NewOrigin>,
    /// The packs and what is in them.
    pub packs: Vec<ImportPack>,
}

/// A pack of an [`Import`].
#[derive(Debug, Clone)]
pub struct ImportPack {
    /// The pack.
    pub id: PackId,
    /// Which of the import's origins made it.
    pub origin: usize,
    /// The salt of its key.
    pub salt: [u8; 32],
    /// The commitment to its key.
    pub commitment: [u8; 32],
    /// How long it is in storage.
    pub stored_bytes: u32,
    /// All of that, and what it holds.
    pub description: DescriptionId,
    /// The chunks in it.
    pub rows: Vec<NewRow>,
}

/// A row that was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The row. Its pack is less than the length of [`Catalog::packs`].
    pub row: ChunkRow,
    /// The row's number below [`Catalog::rows`], the same until the next import or refresh.
    pub ordinal: u64,
}

/// What the repository's index segments say, as far as they were imported.
///
/// Lookups only read memory maps and may be made from many threads. Several processes may have
/// one catalog open; each sees what was there when it opened it or last imported or refreshed.
/// The numbers of packs and origins never change while a catalog is open.
///
/// When the files cannot be used (another process holds them, the disk is full or failing, they
/// were damaged or begun anew since), the catalog turns *private*: it keeps all it knows, and
/// what is imported from then on is in files that vanish with it, or in memory where there is no
/// room for those either.
#[derive(Debug)]
pub struct Catalog {
    place: Place,
    state: State,
    /// The facts of a private catalog.
    facts: HashMap<Vec<u8>, Vec<u8>>,
    /// The envelopes that a private catalog has imported.
    envelopes: Option<Envelopes>,
    /// Whether a lookup met a row that is not what was written.
    damaged: AtomicBool,
    /// Why the file system refused the catalog's files, if it did.
    trouble: Option<String>,
}

#[derive(Debug)]
enum Place {
    Kept { store: Store, dir: PathBuf },
    Private { dir: PathBuf },
}

impl Catalog {
    /// Opens the catalog in a directory of its own, which is made if need be.
    ///
    /// One that is damaged or of another version is begun anew, so it is empty then. If another
    /// process holds it for two seconds the catalog is private, and empty. Reads what the
    /// database has of packs, origins and sources, and the fan-out and tags of every run: about a megabyte
    /// and a half for each million chunks.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_with(dir, PATIENCE)
    }

    pub(super) fn open_with(dir: &Path, patience: Duration) -> Result<Self, Error> {
        let mut state = State::default();
        let dir = dir.to_path_buf();
        match Store::open(&dir, patience, &mut state) {
            Ok(store) => Ok(Self::new(Place::Kept { store, dir }, state)),
            Err(Trouble::Failed(error)) => Err(error),
            Err(_) => Ok(Self::new(Place::Private { dir }, State::default())),
        }
    }

    /// An empty private catalog with its files, if there will be any, in the system's temporary directory.
    pub fn temporary() -> Self {
        Self::new(Place::Private { dir: std::env::temp_dir() }, State::default())
    }

    /// The same, in place of one that could not be opened.
    pub fn instead_of(error: &Error) -> Self {
        let mut catalog = Self::temporary();
        catalog.trouble = Some(with_cause(error));
        catalog
    }

    fn new(place: Place, state: State) -> Self {
        Self { place, state, facts: HashMap::new(), envelopes: None, damaged: AtomicBool::new(false), trouble: None }
    }

    /// Why the file system would not have the catalog, if that is why it is private: a user can
    /// do something about it.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether what is imported now will be gone with this catalog.
    pub fn is_private(&self) -> bool {
        matches!(self.place, Place::Private { .. })
    }

    /// Whether a lookup has met a damaged row, and left it out. Such a catalog is removed from
    /// disk when it is dropped, so opening it again gives an empty one.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Sees to it that the catalog is removed from disk when it is dropped: for a caller that has
    /// found it to say what is not so.
    pub fn condemn(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// Whether the source of that name is in.
    pub fn imported(&self, key: &[u8; 32]) -> bool {
        self.state.imported.contains(key)
    }

    /// How many rows there are; a copy of a chunk may be counted more than once.
    pub fn rows(&self) -> u64 {
        self.state.runs.iter().map(|run| run.run.rows()).sum()
    }

    /// The packs, by number.
    pub fn packs(&self) -> &[PackRow] {
        self.state.packs.items()
    }

    /// The origins, by number.
    pub fn origins(&self) -> &[OriginRow] {
        self.state.origins.items()
    }

    /// The sealed secret of an origin, if it is at hand; it is in its session's commit too. Costs an opening of
    /// the database.
    pub fn envelope(&self, origin: &OriginRow) -> Option<Vec<u8>> {
        let envelope = match &self.place {
            Place::Kept { store, .. } => {
                store.moment(|db| Ok(store::read_envelope(db, &origin.envelope)?)).ok().flatten()
            }
            Place::Private { .. } => self.envelopes.as_ref().and_then(|envelopes| envelopes.get(&origin.envelope)),
        };
        envelope.filter(|envelope| *blake3::hash(envelope).as_bytes() == origin.envelope)
    }

    /// Every row of a chunk, in no order that means anything; the same row may come twice.
    pub fn lookup<'a>(&'a self, id: &'a ChunkId) -> impl Iterator<Item = Found> + 'a {
        let mut base = 0;
        self.state.runs.iter().flat_map(move |run| {
            let first = base;
            base += run.run.rows();
            run.run
                .find(id.as_bytes())
                .filter_map(move |(n, row)| Some(Found { row: self.decode(row)?, ordinal: first + n }))
        })
    }

    /// Calls `each` with every chunk: all of its rows, each once and in the order of
    /// [`Catalog::lookup`]. Reads every run once from front to back and holds one chunk's rows.
    pub fn each_chunk(&self, mut each: impl FnMut(&[Found])) {
        let mut base = 0;
        let mut heads = Vec::with_capacity(self.state.runs.len());
        for run in &self.state.runs {
            heads.push((base, 0_usize, &*run.run));
            base += run.run.rows();
        }
        let id_of = |run: &ChunkRun, n: usize| run.row(n).and_then(|row| row.first_chunk::<32>().copied());
        let mut rows: Vec<Found> = Vec::new();
        while let Some(id) = heads.iter().filter_map(|(_, n, run)| id_of(run, *n)).min() {
            rows.clear();
            for (base, n, run) in &mut heads {
                while let Some(row) = run.row(*n).filter(|row| row.first_chunk() == Some(&id)) {
                    let ordinal = *base + *n as u64;
                    *n += 1;
                    let Some(row) = self.decode(row) else { continue };
                    if !rows.iter().any(|known| known.row == row) {
                        rows.push(Found { row, ordinal });
                    }
                }
            }
            if !rows.is_empty() {
                each(&rows);
            }
        }
    }

    fn decode(&self, row: &[u8; CHUNK_ROW_BYTES]) -> Option<ChunkRow> {
        let sound = ChunkRow::decode(row).filter(|row| (row.pack as usize) < self.packs().len());
        if sound.is_none() {
            self.condemn();
        }
        sound
    }

    /// Takes in what other processes have imported since.
    pub fn refresh(&mut self) {
        self.moment(|store, state, db| store.load(db, state));
    }

    /// Takes in the sources that are not in yet: one new run and two commits, durable on return
    /// unless the catalog is private.
    ///
    /// Give as many sources at once as have about 128 thousand rows in all: fewer cost more
    /// merging, more cost memory (128 bytes a row).
    pub fn import(&mut self, mut batch: Vec<Import>) -> Result<(), Error> {
        for import in &mut batch {
            // A pack whose origin the source does not have cannot be opened; nor can it be in a sound one.
            import.packs.retain(|pack| pack.origin < import.origins.len());
        }
        let (numbers, draft) = self.number(&batch)?;
        let (keys, mut rows) = encode(batch, numbers);
        let run = if rows.is_empty() {
            draft.into_iter().for_each(|(draft, _)| draft.discard());
            None
        } else {
            rows.sort_unstable();
            Some(self.write(draft, &rows)?)
        };
        drop(rows);
        if keys.is_empty() {
            return Ok(());
        }
        self.adopt(keys, run);
        while self.merge() {}
        Ok(())
    }

    /// Numbers the packs and origins of a batch and, in a kept catalog, makes a file for its rows.
    fn number(&mut self, batch: &[Import]) -> Result<(PackNumbers, Option<(Draft, File)>), Error> {
        let kept = self.moment(|store, state, db| {
            store.load(db, state)?;
            let (origins, packs) = (state.origins.items().len(), state.packs.items().len());
            let numbers = state.number(batch)?;
            let change = Change {
                envelopes: envelopes_of(batch),
                origins: (origins, &state.origins.items()[origins..]),
                packs: (packs, &state.packs.items()[packs..]),
                ..Change::default()
            };
            if !change.origins.1.is_empty() || !change.packs.1.is_empty() {
                state.version = store::commit(db, &change)?;
            }
            Ok((numbers, Some(store.create_run()?)))
        });
        match kept {
            Some(kept) => Ok(kept),
            None => {
                let envelopes = self.envelopes.get_or_insert_with(|| Envelopes::new(self.place.dir()));
                envelopes_of(batch).into_iter().for_each(|(hash, envelope)| envelopes.put(hash, envelope));
                Ok((self.state.number(batch)?, None))
            }
        }
    }

    /// Makes a written run and the sources it came from part of the catalog.
    fn adopt(&mut self, mut keys: Vec<[u8; 32]>, mut run: Option<WrittenRun>) {
        let kept = self.moment(|store, state, db| {
            store.load(db, state)?;
            // Another process may have been quicker with some. If with all, there is no need for this run.
            keys.retain(|key| !state.imported.contains(key));
            if keys.is_empty() {
                run.take().into_iter().for_each(WrittenRun::discard);
                return Ok(());
            }
            if run.is_some() {
                store.sync_runs()?;
            }
            let change = Change {
                imported: (state.imported.len(), &keys),
                run_added: run.as_ref().and_then(WrittenRun::name_and_seal),
                ..Change::default()
            };
            state.version = store::commit(db, &change)?;
            state.runs.extend(run.take().map(WrittenRun::keep));
            Ok(())
        });
        if kept.is_none() {
            self.state.runs.extend(run.map(WrittenRun::unlink));
        }
        self.state.imported.extend(keys);
    }

    /// Merges the runs that are due, if any are; says whether there may be more. Where that
    /// cannot be, the runs stay as they are: more of them are asked, to the same answer.
    fn merge(&mut self) -> bool {
        if self.is_damaged() {
            return false;
        }
        let sizes: Vec<u64> = self.state.runs.iter().map(|run| run.run.rows()).collect();
        let sources: Vec<NamedRun> = run::due(&sizes).into_iter().map(|i| self.state.runs[i].clone()).collect();
        if sources.is_empty() {
            return false;
        }
        let draft = self.moment(|store, _, _| store.create_run());
        let runs: Vec<&ChunkRun> = sources.iter().map(|source| &*source.run).collect();
        let written = match draft {
            Some((draft, file)) => match run::merge(&runs, file) {
                Ok((run, seal)) => Ok(WrittenRun { run, seal, draft: Some(draft) }),
                Err(fault) => {
                    draft.discard();
                    Err(fault)
                }
            },
            None => run::write_unnamed(self.dir(), |file| run::merge(&runs, file)).map(|(run, seal)| WrittenRun {
                run,
                seal,
                draft: None,
            }),
        };
        let mut merged = match written {
            Ok(merged) => Some(merged),
            Err(fault) => {
                // Rows that have lost their order can still be looked up, most of them.
                if matches!(fault, Fault::Damaged(_)) {
                    self.condemn();
                }
                return false;
            }
        };
        let kept = self.moment(|store, state, db| {
            store.load(db, state)?;
            if !state.has_runs(&sources) {
                // Another process has merged some of them.
                merged.take().into_iter().for_each(WrittenRun::discard);
                return Ok(());
            }
            store.sync_runs()?;
            let change = Change {
                run_added: merged.as_ref().and_then(WrittenRun::name_and_seal),
                runs_removed: &sources,
                ..Change::default()
            };
            state.version = store::commit(db, &change)?;
            if let Some(merged) = merged.take() {
                state.replace_runs(&sources, merged.keep());
            }
            store.unlink_runs(&sources);
            Ok(())
        });
        match (kept, merged) {
            (None, Some(merged)) if self.state.has_runs(&sources) => {
                self.state.replace_runs(&sources, merged.unlink());
            }
            (None, Some(merged)) => merged.discard(),
            _ => {}
        }
        true
    }

    /// Writes rows to a run: to the draft's file or, when the file system will not have that, to
    /// one without a name.
    fn write(&mut self, draft: Option<(Draft, File)>, rows: &[[u8; CHUNK_ROW_BYTES]]) -> Result<WrittenRun, Error> {
        if let Some((draft, file)) = draft {
            match run::write_sorted(rows, file) {
                Ok((run, seal)) => return Ok(WrittenRun { run, seal, draft: Some(draft) }),
                Err(fault) => {
                    let error = fault.about("write the catalog run", &draft.path);
                    draft.discard();
                    self.turn_private(Some(&error));
                }
            }
        }
        let written = run::write_unnamed(self.dir(), |file| run::write_sorted(rows, file));
        let (run, seal) = written.map_err(|fault| fault.about("write a temporary file in", self.dir()))?;
        Ok(WrittenRun { run, seal, draft: None })
    }

    /// What was last remembered under a key. It may have been forgotten: this is a cache.
    pub fn fact(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.facts(&[key]).pop().flatten()
    }

    /// What was last remembered under each key; one opening of the database for all.
    pub fn facts(&self, keys: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        match &self.place {
            Place::Kept { store, .. } => {
                store.moment(|db| Ok(store::read_facts(db, keys)?)).unwrap_or_else(|_| vec![None; keys.len()])
            }
            Place::Private { .. } => keys.iter().map(|key| self.facts.get(*key).cloned()).collect(),
        }
    }

    /// Remembers values under keys, in the place of those before. A private catalog keeps them in
    /// memory until it is dropped.
    pub fn put_facts(&mut self, batch: &[(&[u8], &[u8])]) {
        if self.moment(|_, _, db| Ok(store::write_facts(db, batch)?)).is_none() {
            self.facts.extend(batch.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        }
    }

    /// Does `work` alone with the files, or turns private when that cannot be.
    ///
    /// Whatever fails in `work`, the state must be of a piece: it is all there is from then on.
    fn moment<T>(&mut self, work: impl FnOnce(&Store, &mut State, &Database) -> Result<T, Trouble>) -> Option<T> {
        let Place::Kept { store, .. } = &self.place else { return None };
        match store.moment(|db| work(store, &mut self.state, db)) {
            Ok(answer) => Some(answer),
            Err(trouble) => {
                let error = if let Trouble::Failed(error) = trouble { Some(error) } else { None };
                self.turn_private(error.as_ref());
                None
            }
        }
    }

    fn turn_private(&mut self, why: Option<&Error>) {
        self.trouble = why.map(with_cause).or_else(|| self.trouble.take());
        self.place = Place::Private { dir: self.dir().to_path_buf() };
    }

    fn dir(&self) -> &Path {
        self.place.dir()
    }
}

impl Place {
    fn dir(&self) -> &Path {
        let (Self::Kept { dir, .. } | Self::Private { dir }) = self;
        dir
    }
}

/// The envelopes of a batch by their BLAKE3.
fn envelopes_of(batch: &[Import]) -> HashMap<[u8; 32], &[u8]> {
    let origins = batch.iter().flat_map(|import| &import.origins);
    origins.map(|origin| (origin.row().envelope, &*origin.envelope)).collect()
}

fn with_cause(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

impl Drop for Catalog {
    fn drop(&mut self) {
        if let Place::Kept { store, .. } = &self.place
            && self.is_damaged()
        {
            // If this fails, the next to meet the damage tries again.
            let _ = store.wipe();
        }
    }
}

/// A run that is complete but not yet part of a catalog.
struct WrittenRun {
    run: ChunkRun,
    seal: Seal,
    draft: Option<Draft>,
}

impl WrittenRun {
    fn name_and_seal(&self) -> Option<(u64, Seal)> {
        self.draft.as_ref().map(|draft| (draft.name, self.seal))
    }

    /// The run under its name, once the database has that.
    fn keep(self) -> NamedRun {
        NamedRun { name: self.draft.map(|draft| draft.name), run: Arc::new(self.run) }
    }

    /// The run without its name.
    fn unlink(self) -> NamedRun {
        self.draft.into_iter().for_each(Draft::discard);
        NamedRun { name: None, run: Arc::new(self.run) }
    }

    fn discard(self) {
        self.draft.into_iter().for_each(Draft::discard);
    }
}

/// The keys and rows of the sources that have numbers; takes the batch apart as it goes.
fn encode(batch: Vec<Import>, numbers: PackNumbers) -> (Vec<[u8; 32]>, Vec<[u8; CHUNK_ROW_BYTES]>) {
    let mut keys = Vec::new();
    let mut rows = Vec::new();
    for (import, numbers) in batch.into_iter().zip(numbers) {
        let Some(numbers) = numbers else { continue };
        keys.push(import.key);
        for (pack, number) in import.packs.into_iter().zip(numbers) {
            rows.extend(pack.rows.into_iter().map(|row| row.in_pack(number).encode()));
        }
    }
    (keys, rows)
}
