//! New chunks of one session on their way into packs: none that may be reused or was claimed before.

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

/// Takes chunks of all kinds and gives packs.
#[derive(Debug)]
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

impl<'r> ChunkWriter<'r> {
    /// Begins to write chunks of a session.
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

    /// Their bytes.
    pub fn added_bytes(&self) -> u64 {
        self.added_bytes
    }

    /// Sealed bytes of all frames so far.
    pub fn sealed_bytes(&self) -> u64 {
        self.packs.sealed_bytes()
    }

    /// Whether a pack was begun, some of which may be stored by now.
    pub fn has_begun(&self) -> bool {
        self.packs.has_begun()
    }

    /// Ends the last pack with a copy of the snapshot record and gives all packs.
    pub fn close(&mut self, snapshot: &Snapshot) -> Result<Vec<PackEntry>> {
        let frame = self.packs.bare_frame(&cbor::encode(snapshot));
        self.packs.add(FrameKind::Snapshot, frame)?;
        self.packs.finish()
    }

    /// Gives all packs, of a session without a snapshot.
    pub fn finish(&mut self) -> Result<Vec<PackEntry>> {
        self.flush()?;
        self.packs.finish()
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
