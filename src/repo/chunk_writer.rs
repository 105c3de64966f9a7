//! New chunks of one session on their way into packs.
//!
//! Each chunk is looked up and, unless the session may reuse it or has stored it already, put into a
//! frame with those that came before it. What a snapshot is made of, files or another repository, is
//! its verb's matter; that nothing is stored twice, and that nothing is relied on that may not be, is this one's.

use std::sync::Arc;

use super::pack_writer::{OnStored, PackSettings, PackWriter};
use super::session::Session;
use super::tree::NodeSink;
use crate::chunk::frame::FrameBuilder;
use crate::crypto::ident::ChunkKind;
use crate::error::{Context, Result};
use crate::format::cbor;
use crate::format::pack::FrameKind;
use crate::format::segment::PackEntry;
use crate::format::session::Snapshot;
use crate::id::ChunkId;
use crate::index::SessionTable;
use crate::world::Time;

/// Chunks from one commit to the next at most: a session keeps 40 bytes of each until it commits.
const CHUNKS_MAX: u64 = 2_000_000;

/// Takes the chunks of one session in the order in which they are to lie.
pub struct ChunkWriter<'r> {
    session: Arc<Session<'r>>,
    claimed: SessionTable,
    data: FrameBuilder,
    directories: FrameBuilder,
    lists: FrameBuilder,
    packs: PackWriter<'r>,
    added: u64,
    added_bytes: u64,
}

impl std::fmt::Debug for ChunkWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChunkWriter({} of session {})", self.added, self.session.id().short())
    }
}

impl<'r> ChunkWriter<'r> {
    /// Begins with nothing stored.
    pub fn new(session: Arc<Session<'r>>, settings: PackSettings, on_stored: OnStored) -> Self {
        let spill = session.repo().spill_directory();
        let packs = PackWriter::new(session.clone(), settings, on_stored);
        Self {
            claimed: SessionTable::new(&spill, SessionTable::ENTRIES_MAX),
            data: packs.frames(),
            directories: packs.frames(),
            lists: packs.frames(),
            packs,
            added: 0,
            added_bytes: 0,
            session,
        }
    }

    /// The session.
    pub fn session(&self) -> &Arc<Session<'r>> {
        &self.session
    }

    /// How many chunks were new.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// Plain bytes of the chunks stored so far.
    pub fn added_bytes(&self) -> u64 {
        self.added_bytes
    }

    /// Sealed bytes of the frames that are done.
    pub fn sealed_bytes(&self) -> u64 {
        self.packs.sealed_bytes()
    }

    /// Whether a pack was begun, some of which may be stored by now.
    pub fn has_begun(&self) -> bool {
        self.packs.has_begun()
    }

    /// Whether so much was stored, or anything so long after `since`, that it is time to commit.
    pub fn commit_is_due(&self, bytes: u64, secs: i64, since: Time) -> bool {
        let stored = self.packs.sealed_bytes();
        let waited = self.session.repo().world.now().secs.saturating_sub(since.secs);
        stored >= bytes || self.added >= CHUNKS_MAX || (stored > 0 && waited >= secs)
    }

    /// Whether a chunk would be stored: it can neither be reused nor was it stored before.
    pub fn wants(&self, id: &ChunkId) -> bool {
        !self.claimed.contains(id) && !self.session.may_reuse(id)
    }

    /// Ends the last pack, with a copy of the snapshot record if there is one, and gives all packs.
    pub fn close(&mut self, snapshot: Option<&Snapshot>) -> Result<Vec<PackEntry>> {
        if let Some(snapshot) = snapshot {
            let frame = self.packs.bare_frame(&cbor::encode(snapshot));
            self.packs.add(FrameKind::Snapshot, frame)?;
        }
        self.packs.finish()
    }

    /// Gives all packs, of a session without a snapshot.
    pub fn finish(&mut self) -> Result<Vec<PackEntry>> {
        self.flush()?;
        self.close(None)
    }

    /// Stores a chunk unless it can be reused or this session has claimed it.
    pub fn add(&mut self, kind: ChunkKind, id: ChunkId, bytes: &[u8]) -> Result<()> {
        if self.session.may_reuse(&id) || !self.claimed.claim(id).context(|| "cannot remember a new chunk")? {
            return Ok(());
        }
        self.added += 1;
        self.added_bytes += bytes.len() as u64;
        let (builder, frame_kind) = match kind {
            ChunkKind::Data => (&mut self.data, FrameKind::Data),
            ChunkKind::Directory => (&mut self.directories, FrameKind::Directory),
            ChunkKind::List => (&mut self.lists, FrameKind::List),
        };
        match builder.push(id, bytes) {
            Some(frame) => self.packs.add(frame_kind, frame),
            None => Ok(()),
        }
    }

    /// Hands on what has not filled a frame.
    pub fn flush(&mut self) -> Result<()> {
        let frames = [
            (FrameKind::Data, self.data.take()),
            (FrameKind::List, self.lists.take()),
            (FrameKind::Directory, self.directories.take()),
        ];
        for (kind, frame) in frames {
            if let Some(frame) = frame {
                self.packs.add(kind, frame)?;
            }
        }
        self.packs.settle()
    }
}

impl NodeSink for ChunkWriter<'_> {
    fn node(&mut self, kind: ChunkKind, bytes: &[u8]) -> Result<ChunkId> {
        let id = self.session.repo().keys.ids.chunk(kind, bytes);
        self.add(kind, id, bytes)?;
        Ok(id)
    }
}
