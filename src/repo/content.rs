//! Reading content back: from a chunk id to its bytes, checked.
//!
//! A [`Reader`] loads commits, then sweeps, then the index, and reads packs as they are asked
//! for. Nothing is believed: a frame must authenticate under its session's key, decompress to
//! its authenticated length, and every chunk must hash to its id. When one copy fails, others are
//! tried. Sharing a `Reader` between threads is what it is for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::Repository;
use super::collections::Collections;
use super::commits::Commits;
use super::frames::{self, Buffers};
use super::read_ahead::ReadAhead;
use super::reader::{FrameAt, Location, ReadRepo};
use super::session::pack_name;
use super::standing::Standings;
use crate::chunk::compress::{Compression, Decompressor};
use crate::crypto::OpenError;
use crate::crypto::ident::ChunkKind;
use crate::crypto::key::SecretKey;
use crate::crypto::seal;
use crate::error::{Context, Error, Kind, Result};
use crate::format::pack::{FRAME_PLAIN_BYTES_MAX, Frame, FrameKind, frame_aad};
use crate::id::{ChunkId, SessionId};
use crate::index::{Catalog, Found, PackRow};

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
    secrets: Mutex<HashMap<u32, SecretKey>>,
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
        Self::with_catalog(repo, repo.open_catalog())
    }

    /// Loads everything from the storage, whatever the cache remembers: to check the repository,
    /// or to make sure before saying that something is missing.
    pub fn without_cache(repo: &'r Repository) -> Result<Self> {
        Self::with_catalog(repo, Catalog::temporary())
    }

    fn with_catalog(repo: &'r Repository, mut catalog: Catalog) -> Result<Self> {
        let mut commits = repo.load_commits(&mut catalog)?;
        let collections = repo.load_collections()?;
        commits.headers.retain(|session, _| !collections.void.contains(session));
        repo.pin_commits(&commits);
        let mut faults = std::mem::take(&mut commits.faults);
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
            by_trusted.get(pack.origin as usize) == Some(&true) || collections.attested.contains(&pack.description)
        };
        let trusted = catalog.packs().iter().map(is_trusted).collect();
        Ok(Self {
            repo,
            catalog,
            commits,
            collections,
            alive,
            trusted,
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

    /// The local catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Commits and segments that could not be read; they count as absent.
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

    /// The places a chunk lies at, packs that count only.
    pub fn places<'a>(&'a self, id: &'a ChunkId) -> impl Iterator<Item = Found> + 'a {
        self.catalog.lookup(id).filter(|found| self.is_alive(found.row.pack))
    }

    fn is_trusted(&self, found: &Found) -> bool {
        self.trusted.get(found.row.pack as usize) == Some(&true)
    }

    /// The secret of a session, given one of the catalog's origins.
    fn session_secret(&self, origin: u32) -> Result<SecretKey> {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = secrets.get(&origin) {
            return Ok(secret.clone());
        }
        let row = self
            .catalog
            .origins()
            .get(origin as usize)
            .ok_or_else(|| Error::new(Kind::Failed, "the cache names a session it does not hold"))?;
        let envelope = match self.catalog.envelope(row) {
            Some(envelope) => envelope,
            // The cache has lost it.
            None => self.repo.load_commit(&row.session)?.commit.envelope,
        };
        let secret = self.repo.keys.open_session_secret(&row.session, &row.epoch, &row.credential, &envelope)?;
        secrets.insert(origin, secret.clone());
        Ok(secret)
    }

    /// The key of a pack's frames.
    pub fn pack_key(&self, pack: u32) -> Result<SecretKey> {
        let mut keys = self.pack_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get(&pack) {
            return Ok(key.clone());
        }
        let row = self
            .catalog
            .packs()
            .get(pack as usize)
            .ok_or_else(|| Error::new(Kind::Failed, "the cache names a pack it does not hold"))?;
        let secret = self.session_secret(row.origin)?;
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
        let mut last = None;
        let of_trust = |wanted: bool| self.places(id).filter(move |found| self.is_trusted(found) == wanted);
        for found in of_trust(true).chain(of_trust(false)) {
            let location = location(&found);
            let frame = match self.open_frame_kept(&location.frame) {
                Ok(frame) => frame,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            let bytes = slice_of(&frame, &location);
            match bytes.filter(|bytes| self.repo.keys.ids.chunk(kind, bytes) == *id) {
                Some(bytes) => return Ok(bytes.to_vec()),
                None => {
                    let name = self.pack_label(location.frame.pack);
                    let error = OpenError::WrongIdentity("chunk");
                    last = Some(
                        Error::new(Kind::Damaged, format!("chunk `{}` in pack `{name}` is wrong", id.short()))
                            .because(error),
                    );
                }
            }
        }
        Err(last.unwrap_or_else(|| missing(id)))
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
        self.catalog.packs().get(pack as usize).map_or_else(|| "unknown".into(), |row| row.id.short())
    }

    /// Reads a part of a pack, by its number, into `into`, in place of what that held.
    pub fn read_pack(&self, pack: u32, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Result<()> {
        let pack = self
            .catalog
            .packs()
            .get(pack as usize)
            .ok_or_else(|| Error::new(Kind::Failed, "the cache names a pack it does not hold"))?;
        let name = pack_name(&pack.id);
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
        open_frame(&key, &self.repo.config.repo, at, sealed, plain).map_err(|error| match error {
            FrameError::Open(error) => Error::new(Kind::Damaged, what()).because(error),
            FrameError::Text(detail) => Error::new(Kind::Damaged, format!("{}: {detail}", what())),
        })
    }

    /// Which session a pack came from.
    pub fn session_of_pack(&self, pack: u32) -> Option<SessionId> {
        let origin = self.catalog.packs().get(pack as usize)?.origin;
        self.catalog.origins().get(origin as usize).map(|origin| origin.session)
    }
}

/// Why a frame was not opened.
#[derive(Debug)]
enum FrameError {
    Open(OpenError),
    Text(String),
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

impl ReadRepo for Reader<'_> {
    fn locate(&self, id: &ChunkId) -> Result<Location> {
        let best = self.places(id).min_by_key(|found| (!self.is_trusted(found), location(found).frame));
        best.map(|found| location(&found)).ok_or_else(|| missing(id))
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

    fn node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.verified(ChunkKind::Directory, id)
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.verified(ChunkKind::List, id)
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
