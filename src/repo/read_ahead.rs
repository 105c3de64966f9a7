//! Nodes read over a network before they are asked for.
//!
//! Which node a walk needs next stands in the one it reads now, so each frame of nodes would cost
//! the walk a round trip. A backup stores a directory after all that is below it; so what lies
//! before a frame is likely to be wanted soon. The more frames were asked for, the more is read
//! with the next: looking up one path reads little that it does not need, a walk through a large
//! tree waits a few times in all.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::reader::FrameAt;
use crate::error::Result;

/// How much is read with the second frame. The first is read alone; from the second on it doubles.
const STRETCH_BYTES_MIN: u32 = 128 << 10;

/// How many stretches are kept.
const STRETCHES_MAX: usize = 2;

/// Stretches of packs in memory, sealed.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How much to read next.
    bytes: u32,
    kept: VecDeque<Stretch>,
}

#[derive(Debug)]
struct Stretch {
    pack: u32,
    offset: u32,
    bytes: Vec<u8>,
}

impl Stretch {
    fn frame(&self, at: &FrameAt) -> Option<&[u8]> {
        let start = at.offset.checked_sub(self.offset).filter(|_| at.pack == self.pack)? as usize;
        self.bytes.get(start..start.checked_add(at.sealed as usize)?)
    }
}

impl ReadAhead {
    /// The sealed bytes of a frame. `read` reads so many bytes from an offset of its pack, at most
    /// `bytes_max` unless the frame is longer.
    pub(super) fn frame(
        &self,
        at: &FrameAt,
        bytes_max: u32,
        read: impl Fn(u32, u32) -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let state = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = {
            let mut state = state();
            if let Some(frame) = state.kept.iter().find_map(|stretch| stretch.frame(at)) {
                return Ok(frame.to_vec());
            }
            let bytes = state.bytes.min(bytes_max);
            state.bytes = bytes.saturating_mul(2).max(STRETCH_BYTES_MIN);
            bytes.saturating_sub(at.sealed).min(at.offset)
        };
        let bytes = read(at.offset - before, before.saturating_add(at.sealed))?;
        let stretch = Stretch { pack: at.pack, offset: at.offset - before, bytes };
        let frame = stretch.frame(at).map(<[u8]>::to_vec);
        let mut state = state();
        if before > 0 {
            state.kept.truncate(STRETCHES_MAX - 1);
            state.kept.push_front(stretch);
        }
        Ok(frame.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn at(pack: u32, offset: u32) -> FrameAt {
        FrameAt { pack, frame: 0, offset, sealed: 10 << 10, plain: 1, compression: 0, kind: 2 }
    }

    /// A walk goes through what it has seen the end of from there to the front, more or less.
    #[test]
    fn a_walk_waits_a_few_times_and_a_lookup_reads_little() {
        let reads = RefCell::new(Vec::new());
        let ahead = ReadAhead::default();
        let ask = |at: FrameAt| {
            let bytes = ahead.frame(&at, 1 << 20, |offset, bytes| {
                reads.borrow_mut().push((offset >> 10, bytes >> 10));
                Ok((offset..offset + bytes).map(|place| (place >> 10).to_le_bytes()[0]).collect())
            });
            assert_eq!(
                bytes.unwrap(),
                (at.offset..at.offset + at.sealed).map(|place| (place >> 10).to_le_bytes()[0]).collect::<Vec<_>>()
            );
        };
        for kib in (0..200).rev() {
            ask(at(0, (kib * 10) << 10));
        }
        let expected = [(1990, 10), (1862, 128), (1614, 256), (1108, 512), (86, 1024), (0, 90)];
        assert_eq!(*reads.borrow(), expected);
        ask(at(1, 0));
        assert_eq!(reads.borrow().last(), Some(&(0, 10)));
    }
}
