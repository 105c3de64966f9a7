//! Publishing index segments of a session: what is in which packs, its own or, by an owner, others' (SPEC §8).

use super::import::INDEX;
use super::session::Session;
use crate::error::Result;
use crate::format::record::RecordKind;
use crate::format::segment::{Origin, PackEntry, Segment};
use crate::id::ObjectId;

/// A session with no more than this much of an index keeps it in its commit.
const INLINE_SEGMENT_BYTES_MAX: usize = 32 << 10;
/// Packs go into one segment until their tables reach this.
const SEGMENT_BYTES_TARGET: usize = 4 << 20;

/// Takes descriptions of packs and puts full segments, so that no more than one is in memory.
#[derive(Debug)]
pub struct SegmentWriter<'s, 'r> {
    session: &'s Session<'r>,
    published: Vec<ObjectId>,
    open: Segment,
    bytes: usize,
}

/// What a commit says of its index: segments, and one that stands in it.
#[derive(Debug, Default)]
pub struct Published {
    pub(super) segments: Vec<ObjectId>,
    pub(super) inline_segment: Vec<u8>,
}

impl<'s, 'r> SegmentWriter<'s, 'r> {
    /// Nothing published.
    pub fn new(session: &'s Session<'r>) -> Self {
        Self { session, published: Vec::new(), open: Segment::default(), bytes: 0 }
    }

    /// Adds a pack, which is durable, and the session it is of.
    pub fn add(&mut self, origin: &Origin, pack: PackEntry) -> Result<()> {
        let weight = 128 + pack.frames.iter().map(|frame| 16 + 36 * frame.chunks.len()).sum::<usize>();
        if self.bytes + weight > SEGMENT_BYTES_TARGET && !self.open.packs.is_empty() {
            let full = std::mem::take(&mut self.open);
            self.bytes = 0;
            self.put(&full.encode())?;
        }
        let known = self.open.origins.iter().position(|one| one == origin);
        let number = known.unwrap_or_else(|| {
            self.bytes += 68 + origin.envelope.len();
            self.open.origins.push(origin.clone());
            self.open.origins.len() - 1
        });
        let number = u32::try_from(number).expect("a segment has few origins");
        self.bytes += weight;
        self.open.packs.push(PackEntry { origin: number, ..pack });
        Ok(())
    }

    fn put(&mut self, segment: &[u8]) -> Result<()> {
        self.published.push(self.session.repo().put_hashed_record(RecordKind::Segment, INDEX, segment)?);
        Ok(())
    }

    /// Puts what is left, unless it is little enough to stand in the commit.
    pub fn finish(mut self) -> Result<Published> {
        if self.open.packs.is_empty() {
            return Ok(Published { segments: self.published, ..Published::default() });
        }
        let last = self.open.encode();
        if self.published.is_empty() && last.len() <= INLINE_SEGMENT_BYTES_MAX {
            return Ok(Published { inline_segment: last, ..Published::default() });
        }
        self.put(&last)?;
        self.published.sort();
        Ok(Published { segments: self.published, ..Published::default() })
    }
}
