//! Many frames in a row: neighbours read with one request, opened in memory that is used again.
//!
//! A frame is some hundred kilobytes in its pack. Where a request waits for a network, one for
//! each would wait most of the time; so frames that lie close together are read as one *span*,
//! with what lies between them. As many threads as a storage takes requests read a span each and
//! open it, so while some wait others work, and what is in flight stays within
//! [`IN_FLIGHT_BYTES_MAX`].

use std::ops::Range;

use super::reader::FrameAt;
use crate::storage::Storage;

/// Bytes of packs read and not yet opened, on all threads.
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// Longest span: longer ones would save little more of the waiting.
const SPAN_BYTES_MAX: u32 = 8 << 20;
/// The same where nothing waits: what is read is to be in the processor's cache still when it is opened.
const NEAR_SPAN_BYTES_MAX: u32 = 1 << 20;

/// The memory in which one thread reads and opens frames, over and over.
#[derive(Debug, Default)]
pub struct Buffers {
    pub(super) sealed: Vec<u8>,
    pub(super) plain: Vec<u8>,
}

/// How many bytes one read of a pack best has.
pub(super) fn span_bytes_max(storage: &dyn Storage) -> u32 {
    match storage.local_directory() {
        Some(_) => NEAR_SPAN_BYTES_MAX,
        None => far_span_bytes_max(storage.connections()),
    }
}

fn far_span_bytes_max(connections: usize) -> u32 {
    let share = IN_FLIGHT_BYTES_MAX / connections.max(1);
    u32::try_from(share).unwrap_or(u32::MAX).min(SPAN_BYTES_MAX)
}

/// Cuts frames, which are in order, into spans of one pack each.
///
/// A span has at most `bytes_max`, unless it is a single frame. What lies between two frames is
/// read too when it is at most an eighth of that: less than a further request costs.
pub fn spans(frames: &[FrameAt], bytes_max: u32) -> impl Iterator<Item = Range<usize>> {
    let mut begin = 0;
    std::iter::from_fn(move || {
        let first = frames.get(begin)?;
        let joined = frames[begin..].windows(2).take_while(|pair| {
            let (end, next) = (u64::from(pair[0].offset) + u64::from(pair[0].sealed), &pair[1]);
            next.pack == first.pack
                && u64::from(next.offset) >= end
                && u64::from(next.offset) - end <= u64::from(bytes_max / 8)
                && u64::from(next.offset) + u64::from(next.sealed) - u64::from(first.offset) <= u64::from(bytes_max)
        });
        let span = begin..begin + 1 + joined.count();
        begin = span.end;
        Some(span)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_together_have_in_flight_what_they_may() {
        for connections in 0..=200 {
            let bytes = far_span_bytes_max(connections) as usize;
            assert!(bytes * connections <= IN_FLIGHT_BYTES_MAX, "{connections}");
        }
        assert_eq!((far_span_bytes_max(5), far_span_bytes_max(64)), (8 << 20, 1 << 20));
    }

    fn frames(places: &[(u32, u32, u32)]) -> Vec<FrameAt> {
        let at =
            |&(pack, offset, sealed)| FrameAt { pack, frame: 0, offset, sealed, plain: 1, compression: 0, kind: 1 };
        places.iter().map(at).collect()
    }

    fn cut(places: &[(u32, u32, u32)], bytes_max: u32) -> Vec<Range<usize>> {
        spans(&frames(places), bytes_max).collect()
    }

    #[test]
    fn neighbours_of_one_pack_are_one_span_up_to_its_length() {
        assert_eq!(cut(&[(0, 0, 30), (0, 30, 30), (0, 60, 40), (0, 100, 10)], 100), [0..3, 3..4]);
        assert_eq!(cut(&[(0, 0, 30), (1, 30, 30), (1, 60, 30)], 100), [0..1, 1..3]);
        assert_eq!(cut(&[(0, 0, 500), (0, 500, 30)], 100), [0..1, 1..2]);
        assert_eq!(cut(&[], 100), []);
    }

    #[test]
    fn what_lies_between_is_read_when_it_is_little() {
        assert_eq!(cut(&[(0, 0, 10), (0, 22, 10), (0, 45, 10)], 100), [0..2, 2..3]);
    }

    /// What a forged index may say: places that overlap, or end beyond what a number holds.
    #[test]
    fn places_that_make_no_sense_are_spans_of_their_own() {
        let (all, most) = (u32::MAX, u32::MAX - 5);
        assert_eq!(cut(&[(0, 0, 50), (0, 40, 50), (0, most, all), (0, all, all)], all), [0..1, 1..2, 2..3, 3..4]);
    }
}
