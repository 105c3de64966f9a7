//! Reading content back: from a chunk id to its bytes, checked.
//!
//! A [`Reader`] loads commits, then sweeps, then the index, and reads packs as they are asked
//! for. Nothing is believed: a frame must authenticate under its session's key, decompress to
//! its authenticated length, and every chunk must hash to its id. When one copy fails, others are
//! tried, and before a chunk is said to be gone the reader looks again ([`look_again`](super::look_again)).
//! Sharing a `Reader` between threads is what it is for.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Repository;
use super::collections::{Collections, Lists};
use super::commits::Commits;
use super::frames::{self, Buffers};
use super::look_again::Again;
use super::read_ahead::ReadAhead;
use super::reader::{FrameAt, Location, ReadNodes, ReadRepo};
use super::session::pack_name;
use super::standing::Standings;
use crate::chunk::compress::{Compression, Decompressor};
use crate::crypto::OpenError;
use crate::crypto::ident::ChunkKind;
use crate::crypto::key::SecretKey;
use crate::crypto::seal;
use crate::error::{Context, Error, Kind, Result};
use crate::format::pack::{FRAME_PLAIN_BYTES_MAX, Frame, FrameKind, frame_aad};
use crate::id::{ChunkId, PackId, SessionId};
use crate::index::{Catalog, ChunkRow, Found, OriginRow, PackRow};
use crate::storage::ErrorKind;

/// Plain bytes of open frames kept for single chunks that follow each other.
const OPEN_FRAMES_BYTES_MAX: usize = 32 << 20;

/// Reads content of a repository as it stood when this was made.
pub struct Reader<'r> {
    repo: &'r Repository,
    catalog: Catalog,
    commits: Commits,
    collections: Collections,
    /// By pack number: whether its session counts and no sweep lists it.
    alive: Vec<bool>,
    /// By pack number: whether what the index says of it is to be believed without having read it.
    trusted: Vec<bool>,
    /// Whether the catalog says what a cache has told.
    is_cached: bool,
    /// What looking again has found, once it was needed, and again each time others had moved things since.
    again: OnceLock<Box<Again>>,
    looking_again: Mutex<()>,
    /// Packs that were found gone before the last look was made, or when there was nothing new to look at.
    known_gone: Mutex<HashSet<PackId>>,
    secrets: Mutex<HashMap<OriginRow, SecretKey>>,
    pack_keys: Mutex<HashMap<u32, SecretKey>>,
    open_frames: Mutex<OpenFrames>,
    ahead: ReadAhead,
    faults: Vec<(String, Error)>,
}

#[derive(Default)]
struct OpenFrames {
    frames: VecDeque<(FrameAt, Arc<Vec<u8>>)>,
    bytes: usize,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({} packs)", self.alive.len())
    }
}

impl<'r> Reader<'r> {
    /// Loads what there is to read. Writes nothing to the storage.
    pub fn new(repo: &'r Repository) -> Result<Self> {
        Self::with_catalog(repo, repo.open_catalog(), repo.cache.is_some(), Lists::Once)
    }

    /// The same for a collector, whose lists must stand still.
    pub(crate) fn for_a_collection(repo: &'r Repository) -> Result<Self> {
        Self::with_catalog(repo, repo.open_catalog(), repo.cache.is_some(), Lists::Settled)
    }

    /// Loads everything from the storage, whatever the cache remembers: to check the repository.
    pub fn without_cache(repo: &'r Repository) -> Result<Self> {
        Self::with_catalog(repo, Catalog::temporary(), false, Lists::Once)
    }

    fn with_catalog(repo: &'r Repository, mut catalog: Catalog, is_cached: bool, lists: Lists) -> Result<Self> {
        let mut commits = repo.load_commits_by(&mut catalog, lists)?;
        let mut collections = repo.load_collections()?;
        commits.leave_out(&collections.void);
        repo.pin_commits(&commits);
        let mut faults = std::mem::take(&mut commits.faults);
        faults.append(&mut collections.faults);
        faults.extend(repo.import_segments(&mut catalog, commits.headers.values())?);
        let counting: Vec<bool> =
            catalog.origins().iter().map(|origin| commits.headers.contains_key(&origin.session)).collect();
        let alive = catalog
            .packs()
            .iter()
            .map(|pack| counting.get(pack.origin as usize) == Some(&true) && !collections.dead.contains(&pack.id))
            .collect();
        let by_trusted: Vec<bool> = catalog.origins().iter().map(|origin| repo.trusts(&origin.credential)).collect();
        let is_trusted = |pack: &PackRow| {
            by_trusted.get(pack.origin as usize) == Some(&true) || collections.attested.contains_key(&pack.description)
        };
        let trusted = catalog.packs().iter().map(is_trusted).collect();
        Ok(Self {
            repo,
            catalog,
            commits,
            collections,
            alive,
            trusted,
            is_cached,
            again: OnceLock::new(),
            looking_again: Mutex::default(),
            known_gone: Mutex::default(),
            secrets: Mutex::default(),
            pack_keys: Mutex::default(),
            open_frames: Mutex::default(),
            ahead: ReadAhead::default(),
            faults,
        })
    }

    /// The repository.
    pub fn repo(&self) -> &'r Repository {
        self.repo
    }

    /// The commits that count.
    pub fn commits(&self) -> &Commits {
        &self.commits
    }

    /// What collections and notes say.
    pub fn collections(&self) -> &Collections {
        &self.collections
    }

    /// What each commit is good for.
    pub fn standings(&self) -> Standings<'_> {
        Standings::new(self.repo, &self.commits, &self.collections)
    }

    /// Whether a sweep calls a session void.
    pub fn is_void(&self, session: &SessionId) -> bool {
        self.collections.void.contains(session)
    }

    /// The local catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Whether this reader may believe what a cache has told.
    pub(super) fn is_cached(&self) -> bool {
        self.is_cached
    }

    /// Commits, segments, and records of collections that could not be read; they count as absent.
    pub fn faults(&self) -> &[(String, Error)] {
        &self.faults
    }

    /// Which cache is done without, and why, when the disk would not have it. Nothing that is
    /// read is worse for it.
    pub fn cache_fault(&self) -> Option<(String, Error)> {
        self.repo.cache_fault(&self.catalog)
    }

    /// Whether a pack, by its number in the catalog, is of a session that counts and is not dead.
    pub fn is_alive(&self, pack: u32) -> bool {
        self.alive.get(pack as usize) == Some(&true)
    }

    /// The sessions of packs that the index does not name, as the packs say. Of a reader without a cache.
    pub fn stray_sessions(&self) -> Result<&[OriginRow]> {
        Ok(self.again()?.catalog.origins())
    }

    /// What the index says of a pack, by its number; of one found by looking again, what the pack says.
    pub fn pack(&self, number: u32) -> Result<&PackRow> {
        let (catalog, number) = self.catalog_of(number);
        catalog
            .and_then(|catalog| catalog.packs().get(number))
            .ok_or_else(|| Error::new(Kind::Failed, "the cache names a pack it does not hold"))
    }

    /// The session that made a pack, by the pack's number.
    pub fn origin_of(&self, pack: u32) -> Result<&OriginRow> {
        let origin = self.pack(pack)?.origin;
        let (catalog, _) = self.catalog_of(pack);
        catalog
            .and_then(|catalog| catalog.origins().get(origin as usize))
            .ok_or_else(|| Error::new(Kind::Failed, "the cache names a session it does not hold"))
    }

    /// The reader's catalog and those of its later looks, each with the number its packs begin at.
    fn catalogs(&self) -> impl Iterator<Item = (&Catalog, usize)> {
        let later = std::iter::successors(self.again.get(), |again| again.later.get());
        std::iter::once((&self.catalog, 0)).chain(later.map(|again| (&again.catalog, again.first_pack)))
    }

    /// Which catalog has a pack, and under which number.
    fn catalog_of(&self, pack: u32) -> (Option<&Catalog>, usize) {
        let found = self.catalogs().filter(|(_, first)| pack as usize >= *first).last();
        found.map_or((None, 0), |(catalog, first)| (Some(catalog), pack as usize - first))
    }

    /// The places a chunk lies at, packs that count only.
    pub fn places<'a>(&'a self, id: &'a ChunkId) -> impl Iterator<Item = Found> + 'a {
        self.catalog.lookup(id).filter(|found| self.is_alive(found.row.pack))
    }

    fn is_trusted(&self, found: &Found) -> bool {
        self.trusted.get(found.row.pack as usize) == Some(&true)
    }

    /// The places a chunk lies at that the index did not say, or that only a cache did, by every look that was
    /// made. The first call makes one, and reads what there is to read.
    pub fn other_places<'a>(&'a self, id: &'a ChunkId) -> Result<impl Iterator<Item = Found> + 'a> {
        let looks = std::iter::successors(Some(self.again()?), |again| again.later.get().map(|later| &**later));
        Ok(looks.flat_map(|again| again.places(id)))
    }

    /// Every chunk row of some packs, by their numbers, in the order in which they lie there.
    pub fn rows_of(&self, packs: &BTreeSet<u32>) -> Vec<ChunkRow> {
        let mut rows = Vec::new();
        for (catalog, base) in self.catalogs() {
            let wanted = |row: &ChunkRow| {
                let pack = u32::try_from(base + row.pack as usize).ok()?;
                packs.contains(&pack).then_some(ChunkRow { pack, ..*row })
            };
            if packs.range(u32::try_from(base).unwrap_or(u32::MAX)..).next().is_some() {
                catalog.each_chunk(|copies| rows.extend(copies.iter().filter_map(|found| wanted(&found.row))));
            }
        }
        rows.sort_unstable_by_key(|row| (row.pack, row.frame, row.chunk_offset));
        rows
    }

    /// Whether the index, or of a stray the pack itself, has a chunk at this place in a pack.
    pub fn has_row(&self, pack: u32, frame: u32, chunk_offset: u32, id: &ChunkId) -> bool {
        let (catalog, number) = self.catalog_of(pack);
        catalog.is_some_and(|catalog| {
            catalog.lookup(id).any(|Found { row, .. }| {
                row.pack as usize == number && row.frame == frame && row.chunk_offset == chunk_offset
            })
        })
    }

    fn again(&self) -> Result<&Again> {
        if let Some(again) = self.again.get() {
            return Ok(again);
        }
        let _alone = self.looking_again.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(again) = self.again.get() {
            return Ok(again);
        }
        let alive = (0_u32..).zip(self.catalog.packs()).filter(|(number, _)| self.is_alive(*number));
        let named = Arc::new(alive.map(|(_, pack)| pack.id).collect());
        let again = Again::look(self.repo, named, self.is_cached, self.alive.len())?;
        Ok(self.again.get_or_init(|| again))
    }

    /// Looks once more after `last`, if a chunk was in a pack that is gone and others have said something since.
    ///
    /// Each pack is a reason once, so that a repository that has lost some is not looked through for each chunk.
    fn after<'a>(&self, last: &'a Again, gone: &HashSet<PackId>) -> Result<Option<&'a Again>> {
        if let Some(later) = last.later.get() {
            return Ok(Some(later));
        }
        let _alone = self.looking_again.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(later) = last.later.get() {
            return Ok(Some(later));
        }
        let mut known = self.known_gone.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.is_subset(&known) {
            return Ok(None);
        }
        if !last.is_outrun(self.repo)? {
            known.extend(gone);
            return Ok(None);
        }
        let later = last.look_again(self.repo, self.is_cached)?;
        known.extend(gone);
        Ok(Some(last.later.get_or_init(|| later)))
    }

    /// The secret of the session that made a pack.
    fn session_secret(&self, pack: u32) -> Result<SecretKey> {
        let row = *self.origin_of(pack)?;
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = secrets.get(&row) {
            return Ok(secret.clone());
        }
        let envelope = match self.catalog_of(pack).0.and_then(|catalog| catalog.envelope(&row)) {
            Some(envelope) => envelope,
            // The cache has lost it.
            None => self.repo.load_commit(&row.session)?.commit.envelope,
        };
        let secret = self.repo.keys.open_session_secret(&row.session, &row.epoch, &row.credential, &envelope)?;
        secrets.insert(row, secret.clone());
        Ok(secret)
    }

    /// The key of a pack's frames.
    pub fn pack_key(&self, pack: u32) -> Result<SecretKey> {
        let mut keys = self.pack_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get(&pack) {
            return Ok(key.clone());
        }
        let row = self.pack(pack)?;
        let secret = self.session_secret(pack)?;
        let derived = secret.derive_salted(&row.salt, "pack frames");
        let key = seal::committed(derived, &row.commitment, "pack")
            .context(|| format!("cannot open pack `{}`", row.id.short()))?;
        // Bounded: each key is 32 bytes and packs are few, but a hostile index may name many.
        if keys.len() >= 4096 {
            keys.clear();
        }
        keys.insert(pack, key.clone());
        Ok(key)
    }

    /// A chunk of any kind, from the first place where it is whole. Where a writer alone says it is
    /// comes last: it can say so of any number of places.
    fn verified(&self, kind: ChunkKind, id: &ChunkId) -> Result<Vec<u8>> {
        let (mut last, mut gone) = (None, HashSet::new());
        let of_trust = |wanted: bool| self.places(id).filter(move |found| self.is_trusted(found) == wanted);
        for found in of_trust(true).chain(of_trust(false)) {
            match self.verified_at(kind, id, &location(&found)) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    gone.extend(self.gone_for(&found, &error));
                    last = Some(error);
                }
            }
        }
        let mut look = Some(self.again()?);
        while let Some(again) = look {
            for found in again.places(id) {
                match self.verified_at(kind, id, &location(&found)) {
                    Ok(bytes) => {
                        self.doubt_the_cache(&found);
                        return Ok(bytes);
                    }
                    Err(error) => {
                        gone.extend(self.gone_for(&found, &error));
                        last.get_or_insert(error);
                    }
                }
            }
            look = self.after(again, &gone)?;
        }
        Err(last.unwrap_or_else(|| missing(id)))
    }

    /// The pack, if it is for this that a chunk was not read there.
    fn gone_for(&self, found: &Found, error: &Error) -> Option<PackId> {
        let is_gone = error.storage_kind() == Some(ErrorKind::NotFound);
        self.pack(found.row.pack).ok().filter(|_| is_gone).map(|pack| pack.id)
    }

    /// A chunk was found only by looking again. If the cache knows of its pack, what that says is not so:
    /// the next to come makes it anew.
    fn doubt_the_cache(&self, found: &Found) {
        if self.is_cached
            && let (Ok(again), Ok(pack)) = (self.again(), self.pack(found.row.pack))
            && again.named.contains(&pack.id)
        {
            self.catalog.condemn();
        }
    }

    /// The chunk at one place, if it is whole there.
    pub fn read_at(&self, kind: ChunkKind, found: &Found) -> Result<Vec<u8>> {
        self.verified_at(kind, &found.row.id, &location(found))
    }

    fn verified_at(&self, kind: ChunkKind, id: &ChunkId, location: &Location) -> Result<Vec<u8>> {
        let frame = self.open_frame_kept(&location.frame)?;
        let bytes = slice_of(&frame, location).filter(|bytes| self.repo.keys.ids.chunk(kind, bytes) == *id);
        bytes.map(<[u8]>::to_vec).ok_or_else(|| {
            let name = self.pack_label(location.frame.pack);
            Error::new(Kind::Damaged, format!("chunk `{}` in pack `{name}` is wrong", id.short()))
                .because(OpenError::WrongIdentity("chunk"))
        })
    }

    fn open_frame_kept(&self, at: &FrameAt) -> Result<Arc<Vec<u8>>> {
        let kept = |frames: &mut OpenFrames| {
            let position = frames.frames.iter().position(|(known, _)| known == at)?;
            let entry = frames.frames.remove(position)?;
            let frame = entry.1.clone();
            frames.frames.push_back(entry);
            Some(frame)
        };
        if let Some(frame) = kept(&mut self.open_frames.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(frame);
        }
        let frame = Arc::new(self.frame_ahead(at)?);
        let mut frames = self.open_frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames.bytes += frame.len();
        frames.frames.push_back((*at, frame.clone()));
        while frames.bytes > OPEN_FRAMES_BYTES_MAX && frames.frames.len() > 1 {
            if let Some((_, old)) = frames.frames.pop_front() {
                frames.bytes -= old.len();
            }
        }
        Ok(frame)
    }

    /// A frame, with what is likely to be asked for next where each request waits for a network.
    fn frame_ahead(&self, at: &FrameAt) -> Result<Vec<u8>> {
        if self.repo.storage.local_directory().is_some() || at.kind == FrameKind::Data as u8 {
            return self.frame(at);
        }
        let mut sealed = self.ahead.frame(at, self.span_bytes_max(), |offset, bytes| {
            let mut stretch = Vec::new();
            self.read_pack(at.pack, offset.into(), bytes.into(), &mut stretch)?;
            Ok(stretch)
        })?;
        let mut plain = Vec::new();
        Ok(self.open_frame(at, &mut sealed, &mut plain)?.to_vec())
    }

    /// What people call a pack, by its number.
    pub fn pack_label(&self, pack: u32) -> String {
        self.pack(pack).map_or_else(|_| "unknown".into(), |row| row.id.short())
    }

    /// Reads a part of a pack, by its number, into `into`, in place of what that held.
    pub fn read_pack(&self, pack: u32, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Result<()> {
        let name = pack_name(&self.pack(pack)?.id);
        self.repo
            .storage
            .get_range_into(&name, offset, bytes, into)
            .map_err(|error| Error::new(pack_read_kind(&error), format!("cannot read pack `{name}`")).because(error))
    }

    /// Opens a frame where its sealed bytes lie, which were read from its pack. Its plain bytes are
    /// there afterwards, or in `plain`.
    pub fn open_frame<'b>(&self, at: &FrameAt, sealed: &'b mut [u8], plain: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        let what = || format!("cannot open frame {} of pack `{}`", at.frame, self.pack_label(at.pack));
        let key = self.pack_key(at.pack)?;
        open_frame(&key, &self.repo.config.repo, at, sealed, plain).map_err(|error| error.called(what()))
    }
}

/// Opens a frame under the key of its pack's frames, as [`Reader::open_frame`] does.
pub(super) fn open_frame_of<'b>(
    key: &SecretKey,
    repo: &crate::id::RepoId,
    at: &FrameAt,
    sealed: &'b mut [u8],
    plain: &'b mut Vec<u8>,
) -> Result<&'b [u8]> {
    open_frame(key, repo, at, sealed, plain).map_err(|error| error.called(format!("cannot open frame {}", at.frame)))
}

/// Why a frame was not opened.
#[derive(Debug)]
enum FrameError {
    Open(OpenError),
    Text(String),
}

impl FrameError {
    fn called(self, what: String) -> Error {
        match self {
            Self::Open(error) => Error::new(Kind::Damaged, what).because(error),
            Self::Text(detail) => Error::new(Kind::Damaged, format!("{what}: {detail}")),
        }
    }
}

/// Opens and decompresses one frame.
fn open_frame<'b>(
    key: &SecretKey,
    repo: &crate::id::RepoId,
    at: &FrameAt,
    sealed: &'b mut [u8],
    plain: &'b mut Vec<u8>,
) -> Result<&'b [u8], FrameError> {
    thread_local! {
        static DECOMPRESSOR: std::cell::RefCell<Decompressor> = std::cell::RefCell::new(Decompressor::new());
    }
    let kind = FrameKind::from_u8(at.kind).map_err(|error| FrameError::Text(error.to_string()))?;
    let compression = Compression::from_u8(at.compression)
        .ok_or_else(|| FrameError::Text(format!("unknown compression {}", at.compression)))?;
    let frame =
        Frame { kind, compression: at.compression, sealed_bytes: at.sealed, plain_bytes: at.plain, chunks: Vec::new() };
    let text =
        seal::open_in_place(key, &frame_aad(repo, at.frame, &frame), sealed, "frame").map_err(FrameError::Open)?;
    if compression == Compression::Raw {
        // What is raw is plain already.
        return if text.len() == at.plain as usize {
            Ok(text)
        } else {
            Err(FrameError::Text(format!("{} bytes where {} belong", text.len(), at.plain)))
        };
    }
    DECOMPRESSOR
        .with_borrow_mut(|decompressor| {
            let (plain_bytes, limit_bytes) = (at.plain as usize, FRAME_PLAIN_BYTES_MAX as usize);
            decompressor.decompress_into(text, compression, plain_bytes, limit_bytes, plain)
        })
        .map_err(|error| FrameError::Text(error.to_string()))?;
    Ok(plain)
}

pub(super) fn missing(id: &ChunkId) -> Error {
    Error::new(Kind::Damaged, format!("chunk `{}` is in no pack of the repository", id.short()))
}

/// Where a catalog row says a chunk lies.
pub(crate) fn location(found: &Found) -> Location {
    let row = &found.row;
    Location {
        frame: FrameAt {
            pack: row.pack,
            frame: row.frame,
            offset: row.frame_offset,
            sealed: row.frame_sealed,
            plain: row.frame_plain,
            compression: row.compression,
            kind: row.kind,
        },
        chunk_offset: row.chunk_offset,
        chunk_bytes: row.chunk_bytes,
    }
}

fn slice_of<'f>(frame: &'f [u8], location: &Location) -> Option<&'f [u8]> {
    let start = location.chunk_offset as usize;
    frame.get(start..start.checked_add(location.chunk_bytes as usize)?)
}

impl ReadNodes for Reader<'_> {
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.verified(ChunkKind::Directory, id)
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.verified(ChunkKind::List, id)
    }
}

impl ReadRepo for Reader<'_> {
    fn locate(&self, id: &ChunkId) -> Result<Location> {
        match self.places(id).min_by_key(|found| (!self.is_trusted(found), location(found).frame)) {
            Some(best) => Ok(location(&best)),
            None => {
                let found = self.other_places(id)?.next().ok_or_else(|| missing(id))?;
                self.doubt_the_cache(&found);
                Ok(location(&found))
            }
        }
    }

    fn frame(&self, at: &FrameAt) -> Result<Vec<u8>> {
        let (mut sealed, mut plain) = (Vec::new(), Vec::new());
        self.read_pack(at.pack, at.offset.into(), at.sealed.into(), &mut sealed)?;
        Ok(self.open_frame(at, &mut sealed, &mut plain)?.to_vec())
    }

    fn span_bytes_max(&self) -> u32 {
        frames::span_bytes_max(&*self.repo.storage)
    }

    fn frames(&self, span: &[FrameAt], buffers: &mut Buffers, each: &mut dyn FnMut(usize, Result<&[u8]>)) {
        let (Some(first), Some(last)) = (span.first(), span.last()) else { return };
        let (from, to) = (u64::from(first.offset), u64::from(last.offset) + u64::from(last.sealed));
        match self.read_pack(first.pack, from, to.saturating_sub(from), &mut buffers.sealed) {
            Ok(()) => {
                for (ordinal, at) in span.iter().enumerate() {
                    let start = (at.offset - first.offset) as usize;
                    let sealed = &mut buffers.sealed[start..start + at.sealed as usize];
                    each(ordinal, self.open_frame(at, sealed, &mut buffers.plain));
                }
            }
            // A pack that is cut off has some of them.
            Err(_) if span.len() > 1 => {
                for ordinal in 0..span.len() {
                    self.frames(&span[ordinal..=ordinal], buffers, &mut |_, frame| each(ordinal, frame));
                }
            }
            Err(error) => each(0, Err(error)),
        }
    }

    fn chunk(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.verified(ChunkKind::Data, id)
    }

    fn verify(&self, id: &ChunkId, bytes: &[u8]) -> bool {
        self.repo.keys.ids.chunk(ChunkKind::Data, bytes) == *id
    }
}

/// A pack that is gone or too short is damage; a storage that does not answer is not.
fn pack_read_kind(error: &crate::storage::Error) -> Kind {
    match error.kind() {
        crate::storage::ErrorKind::NotFound | crate::storage::ErrorKind::Corrupt => Kind::Damaged,
        crate::storage::ErrorKind::Denied => Kind::Refused,
        _ => Kind::Failed,
    }
}
