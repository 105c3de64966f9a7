//! Frames: neighbouring new chunks joined, to be compressed and sealed as one (SPEC §7.2).
//!
//! Joined, they compress far better than alone; and since frames come in walk order, what was
//! together in a file or directory is together in the repository. This module only collects:
//! chunks of one kind go to one builder, and the caller looks at the end of a file, a pack or
//! a session whether to [`take`](FrameBuilder::take) what there is.

use std::sync::Arc;

use super::pool::Pool;
use crate::id::ChunkId;

/// How large frames grow unless a setting says otherwise.
pub const FRAME_BYTES_TARGET: usize = 1 << 20;

/// A frame before compression.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlainFrame {
    /// Room for what will stand before the frame, and then the chunks' bytes, one after another.
    pub buffer: Vec<u8>,
    /// How much room that is.
    pub head_bytes: usize,
    /// Each chunk and its length; together they cover the plain bytes.
    pub chunks: Vec<(ChunkId, u32)>,
}

impl PlainFrame {
    /// The chunks' bytes.
    pub fn plain(&self) -> &[u8] {
        &self.buffer[self.head_bytes..]
    }
}

/// Collects chunks into frames.
#[derive(Debug)]
pub struct FrameBuilder {
    frame_bytes_target: usize,
    head_bytes: usize,
    frame: PlainFrame,
    pool: Arc<Pool>,
}

impl FrameBuilder {
    /// A builder of frames up to `frame_bytes_target`; a larger chunk is a frame of its own. Each
    /// leaves `head_bytes` of room at its front, in a buffer of `pool`.
    pub fn new(frame_bytes_target: usize, head_bytes: usize, pool: Arc<Pool>) -> Self {
        Self { frame_bytes_target, head_bytes, frame: PlainFrame::default(), pool }
    }

    /// Adds a chunk. Returns the frame before it when that would have become too large with it.
    ///
    /// # Panics
    ///
    /// When the chunk is empty or 4 GiB large, which no cutter makes.
    pub fn push(&mut self, id: ChunkId, bytes: &[u8]) -> Option<PlainFrame> {
        assert!(!bytes.is_empty(), "a chunk is never empty");
        let length = u32::try_from(bytes.len()).expect("a chunk is at most 16 MiB");
        let full = self.frame.plain().len() + bytes.len() > self.frame_bytes_target;
        let finished = if full { self.take() } else { None };
        if self.frame.chunks.is_empty() {
            self.frame.buffer = self.pool.take();
            self.frame.head_bytes = self.head_bytes;
            self.frame.buffer.resize(self.head_bytes, 0);
        }
        self.frame.buffer.extend_from_slice(bytes);
        self.frame.chunks.push((id, length));
        finished
    }

    /// Returns the frame under way, unless it is empty.
    pub fn take(&mut self) -> Option<PlainFrame> {
        (!self.frame.chunks.is_empty()).then(|| std::mem::take(&mut self.frame))
    }

    /// How many plain bytes the frame under way has.
    pub fn bytes(&self) -> usize {
        self.frame.plain().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ChunkId {
        ChunkId::from_bytes([number; 32])
    }

    fn builder(target: usize) -> FrameBuilder {
        FrameBuilder::new(target, 3, Arc::new(Pool::new(target + 3, 1)))
    }

    fn lengths(frame: Option<PlainFrame>) -> Vec<u32> {
        let frame = frame.expect("a frame");
        assert_eq!(frame.plain().len(), frame.chunks.iter().map(|(_, bytes)| *bytes as usize).sum::<usize>());
        frame.chunks.iter().map(|(_, bytes)| *bytes).collect()
    }

    #[test]
    fn chunks_are_joined_in_order_up_to_the_target() {
        let mut builder = builder(10);
        assert_eq!(builder.push(id(1), b"abcd"), None);
        assert_eq!(builder.push(id(2), b"efghij"), None);
        assert_eq!(builder.bytes(), 10);
        let first = builder.push(id(3), b"k").unwrap();
        assert_eq!((first.plain(), first.head_bytes), (&b"abcdefghij"[..], 3));
        assert_eq!(first.chunks, [(id(1), 4), (id(2), 6)]);
        assert_eq!(lengths(builder.take()), [1]);
        assert_eq!(builder.take(), None);
        assert_eq!(builder.bytes(), 0);
    }

    #[test]
    fn a_larger_chunk_is_a_frame_of_its_own() {
        let mut builder = builder(10);
        assert_eq!(builder.push(id(1), &[0; 11]), None);
        assert_eq!(lengths(builder.push(id(2), &[0; 1])), [11]);
        assert_eq!(lengths(builder.push(id(3), &[0; 30])), [1]);
        assert_eq!(lengths(builder.push(id(4), &[0; 10])), [30]);
        assert_eq!(lengths(builder.take()), [10]);
    }
}
