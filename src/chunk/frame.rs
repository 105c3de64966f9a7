//! Frames: neighbouring new chunks joined, to be compressed and sealed as one (SPEC §7.2).
//!
//! Joined, they compress far better than alone; and since frames come in walk order, what was
//! together in a file or directory is together in the repository. This module only collects:
//! chunks of one kind go to one builder, and the caller looks at the end of a file, a pack or
//! a session whether to [`take`](FrameBuilder::take) what there is.

use crate::id::ChunkId;

/// How large frames grow unless a setting says otherwise.
pub const FRAME_BYTES_TARGET: usize = 1 << 20;

/// How many emptied frames a builder keeps for their buffers.
const SPARES_MAX: usize = 4;

/// A frame before compression.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlainFrame {
    /// The chunks' bytes, one after another.
    pub plain: Vec<u8>,
    /// Each chunk and its length; together they cover `plain`.
    pub chunks: Vec<(ChunkId, u32)>,
}

/// Collects chunks into frames.
#[derive(Debug)]
pub struct FrameBuilder {
    frame_bytes_target: usize,
    frame: PlainFrame,
    spares: Vec<PlainFrame>,
}

impl FrameBuilder {
    /// A builder of frames up to `frame_bytes_target`; a larger chunk is a frame of its own.
    pub fn new(frame_bytes_target: usize) -> Self {
        Self { frame_bytes_target, frame: PlainFrame::default(), spares: Vec::new() }
    }

    /// Adds a chunk. Returns the frame before it when that would have become too large with it.
    ///
    /// # Panics
    ///
    /// When the chunk is empty or 4 GiB large, which no cutter makes.
    pub fn push(&mut self, id: ChunkId, bytes: &[u8]) -> Option<PlainFrame> {
        assert!(!bytes.is_empty(), "a chunk is never empty");
        let length = u32::try_from(bytes.len()).expect("a chunk is at most 16 MiB");
        let full = self.frame.plain.len() + bytes.len() > self.frame_bytes_target;
        let finished = if full { self.take() } else { None };
        if self.frame.chunks.is_empty() {
            // At once what a full frame needs: growing would copy it, and take up to twice that.
            self.frame.plain.reserve_exact(self.frame_bytes_target.max(bytes.len()));
        }
        self.frame.plain.extend_from_slice(bytes);
        self.frame.chunks.push((id, length));
        finished
    }

    /// Returns the frame under way, unless it is empty.
    pub fn take(&mut self) -> Option<PlainFrame> {
        if self.frame.chunks.is_empty() {
            return None;
        }
        let next = self.spares.pop().unwrap_or_default();
        Some(std::mem::replace(&mut self.frame, next))
    }

    /// How many plain bytes the frame under way has.
    pub fn bytes(&self) -> usize {
        self.frame.plain.len()
    }

    /// Takes back the buffers of a frame that is no longer needed, whatever they hold.
    pub fn recycle(&mut self, mut frame: PlainFrame) {
        // The buffers of outsized frames are given up, so that they do not add up.
        if self.spares.len() < SPARES_MAX && frame.plain.capacity() <= 2 * self.frame_bytes_target {
            frame.plain.clear();
            frame.chunks.clear();
            self.spares.push(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ChunkId {
        ChunkId::from_bytes([number; 32])
    }

    fn lengths(frame: Option<PlainFrame>) -> Vec<u32> {
        let frame = frame.expect("a frame");
        assert_eq!(frame.plain.len(), frame.chunks.iter().map(|(_, bytes)| *bytes as usize).sum::<usize>());
        frame.chunks.iter().map(|(_, bytes)| *bytes).collect()
    }

    #[test]
    fn chunks_are_joined_in_order_up_to_the_target() {
        let mut builder = FrameBuilder::new(10);
        assert_eq!(builder.push(id(1), b"abcd"), None);
        assert_eq!(builder.push(id(2), b"efghij"), None);
        assert_eq!(builder.bytes(), 10);
        let expected = PlainFrame { plain: b"abcdefghij".to_vec(), chunks: vec![(id(1), 4), (id(2), 6)] };
        assert_eq!(builder.push(id(3), b"k"), Some(expected));
        assert_eq!(lengths(builder.take()), [1]);
        assert_eq!(builder.take(), None);
    }

    #[test]
    fn a_larger_chunk_is_a_frame_of_its_own() {
        let mut builder = FrameBuilder::new(10);
        assert_eq!(builder.push(id(1), &[0; 11]), None);
        assert_eq!(lengths(builder.push(id(2), &[0; 1])), [11]);
        assert_eq!(lengths(builder.push(id(3), &[0; 30])), [1]);
        assert_eq!(lengths(builder.push(id(4), &[0; 10])), [30]);
        assert_eq!(lengths(builder.take()), [10]);
    }

    #[test]
    fn recycled_buffers_are_empty_and_used_again() {
        let mut builder = FrameBuilder::new(100);
        builder.push(id(1), b"first");
        let first = builder.take().unwrap();
        let address = first.plain.as_ptr();
        builder.recycle(first);
        builder.push(id(2), b"second");
        builder.take().unwrap();
        builder.push(id(3), b"third");
        let third = builder.take().unwrap();
        assert_eq!((third.plain.as_ptr(), &third.plain[..], third.chunks.len()), (address, &b"third"[..], 1));
    }

    #[test]
    fn buffers_of_outsized_frames_are_not_kept() {
        let mut builder = FrameBuilder::new(100);
        builder.push(id(1), &[0; 1000]);
        let frame = builder.take().unwrap();
        builder.recycle(frame);
        assert!(builder.spares.is_empty());
    }
}
