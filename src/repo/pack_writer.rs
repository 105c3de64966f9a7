//! From chunks to packs: frames are compressed and sealed in parallel and packed in order.
//!
//! The caller adds plain frames one after the other. Each is given its pack and its place there
//! at once, because its key and associated data depend on them; then a rayon task compresses,
//! verifies and seals it. Results are taken in order, never more than a fixed number behind,
//! and handed to one thread that streams packs into the storage, and where that is far away has
//! [`uploads`](super::uploads) put several at once.
//!
//! A pack is closed when what it holds, and what its frames in work will probably add, reach
//! the target. That guess rests only on frames taken already, so runs repeat exactly.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::parity;
use super::session::{Session, pack_name};
use super::uploads::Uploads;
use crate::chunk::compress::{Compressor, Level};
use crate::chunk::frame::{FrameBuilder, PlainFrame};
use crate::chunk::pool::Pool;
use crate::crypto::ident::{ChunkKind, IdKeys};
use crate::crypto::key::SecretKey;
use crate::crypto::seal;
use crate::error::{Context, Error, Kind, Result};
use crate::format::pack::{
    ChunkEntry, Directory, FRAME_PLAIN_BYTES_MAX, Frame, FrameKind, SEALING_ADDS_BYTES, TRAILER_BYTES, Trailer,
    directory_aad, frame_aad, padme,
};
use crate::format::segment::PackEntry;
use crate::id::{CredentialId, EpochId, PackId, RepoId, SessionId};
use crate::storage::{ObjectWriter, Storage, WriteMode};

/// How packs are made; none of it is part of the format.
#[derive(Debug, Clone, Copy)]
pub struct PackSettings {
    /// How frames are compressed.
    pub level: Level,
    /// About how large a data pack grows.
    pub data_pack_bytes: u64,
    /// About how large a tree pack grows.
    pub tree_pack_bytes: u64,
    /// Plain bytes of a frame.
    pub frame_bytes: usize,
    /// A session keeps data and tree in one pack until it has stored this much.
    pub mixed_pack_bytes: u64,
    /// Frames in work at once.
    pub frames_in_work: usize,
}

impl Default for PackSettings {
    fn default() -> Self {
        Self {
            level: Level::default(),
            data_pack_bytes: 32 << 20,
            tree_pack_bytes: 8 << 20,
            frame_bytes: 1 << 20,
            mixed_pack_bytes: 4 << 20,
            frames_in_work: 2 * rayon::current_num_threads() + 4,
        }
    }
}

impl PackSettings {
    /// Where the buffers of frames on their way come from.
    fn pool(&self) -> Arc<Pool> {
        let kept_max = self.frames_in_work + STORE_WAITING_MAX;
        Arc::new(Pool::new(self.frame_bytes + seal::OVERHEAD_BYTES, kept_max))
    }
}

// What a frame table says of sealed lengths rests on it.
const _: () = assert!(SEALING_ADDS_BYTES as usize == seal::OVERHEAD_BYTES);

/// Sealed frames the storage may be behind.
const STORE_WAITING_MAX: usize = 4;

/// A full pack is padded to a multiple of this.
const FULL_PACK_STEP: u64 = 64 << 10;

/// The keys of one pack, drawn when it is begun.
struct PackKeys {
    salt: [u8; 32],
    frame_key: SecretKey,
    frame_commitment: [u8; 32],
    directory_key: SecretKey,
    directory_commitment: [u8; 32],
    directory_random: [u8; 32],
}

/// A pack that still takes frames.
struct OpenPack {
    number: u64,
    keys: Arc<PackKeys>,
    next_ordinal: u32,
    /// Sealed bytes of frames taken, plain bytes of frames in work.
    sealed_bytes: u64,
    plain_in_work: u64,
}

struct SealedFrame {
    frame: Frame,
    bytes: Vec<u8>,
}

struct InWork {
    pack: u64,
    keys: Arc<PackKeys>,
    plain_bytes: u64,
    result: Receiver<Result<SealedFrame>>,
}

enum ToStore {
    Frame { pack: u64, keys: Arc<PackKeys>, sealed: SealedFrame },
    Close { pack: u64, last: bool },
}

/// Told of every pack as soon as it is put, from the thread that put it.
pub type OnStored = Arc<dyn Fn(&PackEntry) + Send + Sync>;

/// Takes frames and gives packs.
pub struct PackWriter<'r> {
    session: Arc<Session<'r>>,
    ids: Arc<IdKeys>,
    settings: PackSettings,
    data: Option<OpenPack>,
    tree: Option<OpenPack>,
    packs_begun: u64,
    in_work: VecDeque<InWork>,
    pool: Arc<Pool>,
    plain_taken: u64,
    sealed_taken: u64,
    to_store: Option<Sender<ToStore>>,
    store: Option<JoinHandle<Result<Vec<PackEntry>>>>,
}

impl std::fmt::Debug for PackWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackWriter({} packs begun, {} frames in work)", self.packs_begun, self.in_work.len())
    }
}

impl<'r> PackWriter<'r> {
    /// Begins to write packs of a session.
    pub fn new(session: Arc<Session<'r>>, settings: PackSettings, on_stored: OnStored) -> Self {
        let repo = session.repo();
        let (to_store, from_writer) = bounded(STORE_WAITING_MAX);
        let pool = settings.pool();
        let store = Store {
            pool: pool.clone(),
            storage: repo.storage.clone(),
            repo: repo.config.repo,
            epoch: repo.keys.current_epoch().id,
            session: session.id(),
            credential: repo.keys.credential.id(),
            envelope: session.envelope().to_vec(),
            parity_percent: repo.config.parity_percent,
            uploads: Uploads::new(repo.storage.connections()),
            on_stored,
            open: BTreeMap::new(),
            finished: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new().name("esker-store".into()).spawn(move || store.run(&from_writer));
        // Without the thread the first frame fails with what went wrong.
        let (to_store, store) = match thread {
            Ok(handle) => (Some(to_store), Some(handle)),
            Err(_) => (None, None),
        };
        Self {
            ids: Arc::new(repo.keys.ids.clone()),
            session,
            settings,
            data: None,
            tree: None,
            packs_begun: 0,
            in_work: VecDeque::new(),
            pool,
            plain_taken: 0,
            sealed_taken: 0,
            to_store,
            store,
        }
    }

    /// Sealed bytes of all frames so far.
    pub fn sealed_bytes(&self) -> u64 {
        self.sealed_taken
    }

    /// Whether a pack was begun, some of which may be stored by now.
    pub fn has_begun(&self) -> bool {
        self.packs_begun > 0
    }

    /// Collects chunks into frames that are sealed where they stand.
    pub fn frames(&self) -> FrameBuilder {
        FrameBuilder::new(self.settings.frame_bytes, seal::NONCE_BYTES, self.pool.clone())
    }

    /// A frame of these bytes, which hold no chunks.
    pub fn bare_frame(&self, bytes: &[u8]) -> PlainFrame {
        let buffer = [&[0; seal::NONCE_BYTES], bytes].concat();
        PlainFrame { buffer, head_bytes: seal::NONCE_BYTES, chunks: Vec::new() }
    }

    /// Adds the next frame, of a builder of [`Self::frames`]. Blocks while too many are in work.
    pub fn add(&mut self, kind: FrameKind, plain: PlainFrame) -> Result<()> {
        while self.in_work.len() >= self.settings.frames_in_work {
            self.take_oldest()?;
        }
        let plain_bytes = plain.plain().len() as u64;
        if plain_bytes > u64::from(FRAME_PLAIN_BYTES_MAX) {
            let what = format!("cannot store {plain_bytes} bytes of {kind:?} in one frame: that is too much");
            return Err(Error::new(Kind::Failed, what));
        }
        let world = &self.session.repo().world;
        let random: [u8; 32] = world.random();
        let (pack, keys, ordinal) = self.place(kind, plain_bytes);
        let (done, result) = bounded(1);
        let job = SealJob {
            repo: self.session.repo().config.repo,
            ids: self.ids.clone(),
            keys: keys.clone(),
            ordinal,
            kind,
            level: self.settings.level,
            random,
        };
        rayon::spawn(move || {
            // The receiver is gone only when the backup has failed; then nobody wants this.
            let _ = done.send(job.seal(plain));
        });
        self.in_work.push_back(InWork { pack, keys, plain_bytes, result });
        self.close_if_full(kind)
    }

    /// Which pack a frame goes to, and where in it.
    fn place(&mut self, kind: FrameKind, plain_bytes: u64) -> (u64, Arc<PackKeys>, u32) {
        let separate = kind != FrameKind::Data && (self.tree.is_some() || !self.session_is_small());
        let slot = if separate { &mut self.tree } else { &mut self.data };
        let pack = slot.get_or_insert_with(|| {
            let number = self.packs_begun;
            self.packs_begun += 1;
            let keys = Arc::new(new_pack_keys(&self.session));
            OpenPack { number, keys, next_ordinal: 0, sealed_bytes: 0, plain_in_work: 0 }
        });
        let ordinal = pack.next_ordinal;
        pack.next_ordinal += 1;
        pack.plain_in_work += plain_bytes;
        (pack.number, pack.keys.clone(), ordinal)
    }

    fn session_is_small(&self) -> bool {
        let in_work: u64 = self.in_work.iter().map(|frame| frame.plain_bytes).sum();
        self.sealed_taken + self.estimate(in_work) < self.settings.mixed_pack_bytes
    }

    /// What plain bytes in work will probably be once sealed, by the ratio so far.
    fn estimate(&self, plain_bytes: u64) -> u64 {
        match self.plain_taken {
            0 => plain_bytes,
            taken => (u128::from(plain_bytes) * u128::from(self.sealed_taken) / u128::from(taken)) as u64,
        }
    }

    fn close_if_full(&mut self, kind: FrameKind) -> Result<()> {
        let is_full = |pack: &OpenPack, target: u64, writer: &Self| {
            pack.sealed_bytes + writer.estimate(pack.plain_in_work) >= target
        };
        if self.data.as_ref().is_some_and(|pack| is_full(pack, self.settings.data_pack_bytes, self)) {
            let pack = self.data.take().expect("it was just there");
            self.close(&pack, false)?;
        }
        let tree_is_full = self.tree.as_ref().is_some_and(|pack| is_full(pack, self.settings.tree_pack_bytes, self));
        if tree_is_full && kind != FrameKind::Data {
            let pack = self.tree.take().expect("it was just there");
            self.close(&pack, false)?;
        }
        Ok(())
    }

    /// Tells the store that a pack takes no more frames, once its last is taken.
    fn close(&mut self, pack: &OpenPack, last: bool) -> Result<()> {
        while self.in_work.iter().any(|frame| frame.pack == pack.number) {
            self.take_oldest()?;
        }
        self.send(ToStore::Close { pack: pack.number, last })
    }

    fn take_oldest(&mut self) -> Result<()> {
        let Some(oldest) = self.in_work.pop_front() else { return Ok(()) };
        let result = oldest.result.recv();
        let sealed = result.map_err(|_| Error::new(Kind::Failed, "cannot seal a frame: its worker stopped"))??;
        let sealed_bytes = sealed.bytes.len() as u64;
        self.plain_taken += oldest.plain_bytes;
        self.sealed_taken += sealed_bytes;
        let open = [&mut self.data, &mut self.tree].into_iter().flatten().find(|open| open.number == oldest.pack);
        if let Some(open) = open {
            open.sealed_bytes += sealed_bytes;
            open.plain_in_work -= oldest.plain_bytes;
        }
        self.send(ToStore::Frame { pack: oldest.pack, keys: oldest.keys, sealed })
    }

    fn send(&mut self, message: ToStore) -> Result<()> {
        let sent = self.to_store.as_ref().is_some_and(|sender| sender.send(message).is_ok());
        if sent { Ok(()) } else { Err(self.store_error()) }
    }

    /// Why the store thread stopped.
    fn store_error(&mut self) -> Error {
        self.to_store = None;
        match self.store.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error,
            _ => Error::new(Kind::Failed, "cannot store packs: the thread that does it stopped"),
        }
    }

    /// Waits until every frame so far has been sealed, so that [`Self::sealed_bytes`] is exact.
    pub fn settle(&mut self) -> Result<()> {
        while !self.in_work.is_empty() {
            self.take_oldest()?;
        }
        Ok(())
    }

    /// Closes the open packs and gives all packs in the order they were begun. They are put, and
    /// durable after the storage's next barrier. Nothing can be added any more.
    pub fn finish(&mut self) -> Result<Vec<PackEntry>> {
        for pack in [self.data.take(), self.tree.take()].into_iter().flatten() {
            self.close(&pack, true)?;
        }
        self.to_store = None;
        match self.store.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(Error::new(Kind::Failed, "cannot store packs: the thread that does it stopped")),
        }
    }
}

impl Drop for PackWriter<'_> {
    fn drop(&mut self) {
        // Let the store thread end; what it had not finished is never listed.
        self.to_store = None;
        if let Some(store) = self.store.take() {
            let _ = store.join();
        }
    }
}

fn new_pack_keys(session: &Session<'_>) -> PackKeys {
    let repo = session.repo();
    let salt: [u8; 32] = repo.world.random();
    let frames = session.secret().derive_salted(&salt, "pack frames");
    let directory = repo.keys.current_epoch().index_key.derive_salted(&salt, "pack directory");
    PackKeys {
        salt,
        frame_key: frames.key,
        frame_commitment: frames.commitment,
        directory_key: directory.key,
        directory_commitment: directory.commitment,
        directory_random: repo.world.random(),
    }
}

/// What a worker needs to seal one frame, but for the frame.
struct SealJob {
    repo: RepoId,
    ids: Arc<IdKeys>,
    keys: Arc<PackKeys>,
    ordinal: u32,
    kind: FrameKind,
    level: Level,
    random: [u8; 32],
}

impl SealJob {
    /// Checks, compresses, verifies and seals one frame. Runs on a rayon thread, which keeps its
    /// compressor.
    ///
    /// Every chunk is identified once more, from the bytes that are about to be compressed:
    /// whatever mixed them up on the way, or flipped a bit in memory, must not become a chunk of
    /// that id.
    fn seal(&self, plain: PlainFrame) -> Result<SealedFrame> {
        check_chunks(&self.ids, self.kind, &plain)?;
        thread_local! {
            static COMPRESSOR: RefCell<Option<(Level, Compressor)>> = const { RefCell::new(None) };
        }
        let plain_bytes = u32::try_from(plain.plain().len()).expect("a frame is far smaller than 4 GiB");
        let mut content = blake3::Hasher::new();
        if plain.chunks.is_empty() {
            content.update(plain.plain());
        }
        for (id, _) in &plain.chunks {
            content.update(id.as_bytes());
        }
        let chunks = plain.chunks.iter().map(|(id, bytes)| ChunkEntry { id: *id, bytes: *bytes }).collect();
        let PlainFrame { buffer: mut bytes, head_bytes, .. } = plain;
        assert_eq!(head_bytes, seal::NONCE_BYTES, "there is room for the nonce");
        let compression = COMPRESSOR.with_borrow_mut(|slot| {
            if slot.as_ref().is_none_or(|(made_for, _)| *made_for != self.level) {
                *slot = Some((self.level, Compressor::new(self.level)));
            }
            let (_, compressor) = slot.as_mut().expect("it was just made");
            compressor.compress_in_place(&mut bytes, head_bytes).compression()
        });
        let sealed_bytes = u32::try_from(bytes.len() + seal::TAG_BYTES).expect("a frame is far smaller than 4 GiB");
        let frame = Frame { kind: self.kind, compression: compression as u8, sealed_bytes, plain_bytes, chunks };
        let nonce = seal::hedged_nonce(&self.random, u64::from(self.ordinal), content.finalize().as_bytes());
        seal::seal_in_place(&self.keys.frame_key, nonce, &frame_aad(&self.repo, self.ordinal, &frame), &mut bytes);
        Ok(SealedFrame { frame, bytes })
    }
}

/// What the chunks of a frame hold; a snapshot's copy has no chunks.
pub fn kind_of_chunks(frame: FrameKind) -> Option<ChunkKind> {
    match frame {
        FrameKind::Data => Some(ChunkKind::Data),
        FrameKind::Directory => Some(ChunkKind::Directory),
        FrameKind::List => Some(ChunkKind::List),
        FrameKind::Snapshot => None,
    }
}

/// Whether each chunk of a frame has the id it goes by.
fn check_chunks(ids: &IdKeys, kind: FrameKind, frame: &PlainFrame) -> Result<()> {
    let Some(kind) = kind_of_chunks(kind) else { return Ok(()) };
    let mut rest = frame.plain();
    for (id, bytes) in &frame.chunks {
        let right = rest.split_at_checked(*bytes as usize).filter(|(chunk, _)| ids.chunk(kind, chunk) == *id);
        let Some((_, behind)) = right else {
            let what = format!("chunk `{}` is not what was read: its bytes changed in memory", id.short());
            return Err(Error::new(Kind::Failed, what)
                .hint("run the backup again; if this happens twice, test the machine's memory"));
        };
        rest = behind;
    }
    Ok(())
}

/// What the thread that streams packs into the storage holds.
struct Store {
    pool: Arc<Pool>,
    storage: Arc<dyn Storage>,
    repo: RepoId,
    epoch: EpochId,
    session: SessionId,
    credential: CredentialId,
    envelope: Vec<u8>,
    parity_percent: u32,
    on_stored: OnStored,
    open: BTreeMap<u64, OpenObject>,
    uploads: Uploads<(u64, Arc<PackEntry>)>,
    finished: BTreeMap<u64, PackEntry>,
}

struct OpenObject {
    writer: Box<dyn ObjectWriter>,
    /// All of it, where parity is to be made.
    whole: Option<Vec<u8>>,
    hasher: blake3::Hasher,
    keys: Arc<PackKeys>,
    frames: Vec<Frame>,
    body_bytes: u64,
}

impl OpenObject {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.body_bytes += bytes.len() as u64;
        if let Some(whole) = &mut self.whole {
            whole.extend_from_slice(bytes);
        }
        self.writer.write(bytes).context(|| "cannot store a pack")
    }
}

impl Store {
    fn run(mut self, messages: &Receiver<ToStore>) -> Result<Vec<PackEntry>> {
        while let Ok(message) = messages.recv() {
            match message {
                ToStore::Frame { pack, keys, sealed } => {
                    let object = match self.open.entry(pack) {
                        std::collections::btree_map::Entry::Occupied(slot) => slot.into_mut(),
                        std::collections::btree_map::Entry::Vacant(slot) => slot.insert(OpenObject {
                            writer: self.storage.writer().context(|| "cannot store a pack")?,
                            whole: (self.parity_percent > 0).then(Vec::new),
                            hasher: blake3::Hasher::new(),
                            keys,
                            frames: Vec::new(),
                            body_bytes: 0,
                        }),
                    };
                    object.write(&sealed.bytes)?;
                    self.pool.give(sealed.bytes);
                    object.frames.push(sealed.frame);
                }
                ToStore::Close { pack, last } => {
                    if let Some(object) = self.open.remove(&pack) {
                        let done = self.close(pack, object, last)?;
                        self.stored(done);
                    }
                }
            }
        }
        let done = self.uploads.finish()?;
        self.stored(done);
        Ok(std::mem::take(&mut self.finished).into_values().collect())
    }

    /// Takes note of packs that are put.
    fn stored(&mut self, packs: Vec<(u64, Arc<PackEntry>)>) {
        self.finished.extend(packs.into_iter().map(|(number, entry)| (number, Arc::unwrap_or_clone(entry))));
    }

    /// Completes a pack and begins to put it; gives those that are put.
    fn close(&mut self, number: u64, mut object: OpenObject, last: bool) -> Result<Vec<(u64, Arc<PackEntry>)>> {
        let keys = object.keys.clone();
        let mut directory = Directory {
            credential: self.credential,
            envelope: self.envelope.clone(),
            frames: std::mem::take(&mut object.frames),
            padding_bytes: 0,
        };
        let bare = object.body_bytes + (directory.encode().len() + seal::OVERHEAD_BYTES + TRAILER_BYTES) as u64;
        let padded = if last { padme(bare) } else { bare.next_multiple_of(FULL_PACK_STEP) };
        directory.padding_bytes = u32::try_from(padded - bare).expect("padding is a small part of a pack");
        let plain = directory.encode();
        let trailer = Trailer {
            suite: seal::SUITE,
            directory_bytes: u32::try_from(plain.len() + seal::OVERHEAD_BYTES).expect("a directory is small"),
            epoch: self.epoch,
            session: self.session,
            salt: keys.salt,
            frame_commitment: keys.frame_commitment,
            directory_commitment: keys.directory_commitment,
        };
        let nonce = seal::hedged_nonce(&keys.directory_random, 0, blake3::hash(&plain).as_bytes());
        let mut tail = Vec::new();
        seal::seal_into(&keys.directory_key, nonce, &directory_aad(&self.repo, &trailer), &plain, &mut tail);
        tail.extend_from_slice(&trailer.encode());
        object.write(&tail)?;
        let id = PackId::from_bytes(*object.hasher.finalize().as_bytes());
        let name = pack_name(&id);
        let entry = Arc::new(PackEntry {
            id,
            origin: 0,
            stored_bytes: u32::try_from(object.body_bytes).expect("a pack is smaller than 4 GiB"),
            salt: keys.salt,
            frame_commitment: keys.frame_commitment,
            frames: directory.frames,
        });
        let (writer, bytes, on_stored) = (object.writer, object.body_bytes, self.on_stored.clone());
        let (whole, percent, storage) = (object.whole, self.parity_percent, self.storage.clone());
        self.uploads.begin(bytes, (number, entry.clone()), move || {
            writer.finish(&name, WriteMode::CreateNew).context(|| format!("cannot store pack `{name}`"))?;
            // Only then: parity that is listed is of a pack that was there.
            if let Some(whole) = whole {
                parity::put(&*storage, &id, &parity::make(id, &whole, percent)?)?;
            }
            on_stored(&entry);
            Ok(())
        })
    }
}
