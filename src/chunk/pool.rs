//! Buffers that are used again.
//!
//! A large buffer that is freed goes back to the system, which clears every page of it before it
//! gives it out once more: for data that is only passed on, that costs as much as hashing it.

use std::sync::{Mutex, PoisonError};

/// Keeps emptied buffers of about one size for whoever needs the next.
#[derive(Debug)]
pub struct Pool {
    buffer_bytes: usize,
    kept_max: usize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    /// Keeps at most `kept_max` buffers that have room for `buffer_bytes`.
    pub fn new(buffer_bytes: usize, kept_max: usize) -> Self {
        Self { buffer_bytes, kept_max, spare: Mutex::default() }
    }

    /// An empty buffer with room for `buffer_bytes`.
    pub fn take(&self) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(self.buffer_bytes))
    }

    /// Takes a buffer back, whatever it holds. Outsized ones are given up, so that they do not add up.
    pub fn give(&self, mut buffer: Vec<u8>) {
        if (self.buffer_bytes..=2 * self.buffer_bytes).contains(&buffer.capacity()) {
            buffer.clear();
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < self.kept_max {
                spare.push(buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_not_too_many_nor_too_large_are_kept() {
        let pool = Pool::new(100, 2);
        let mut first = pool.take();
        first.extend_from_slice(b"text");
        let address = first.as_ptr();
        pool.give(first);
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        for capacity in [0, 99, 201, 100, 150, 200] {
            pool.give(Vec::with_capacity(capacity));
        }
        let kept: Vec<usize> = pool.spare.lock().unwrap().iter().map(Vec::capacity).collect();
        assert_eq!(kept, [100, 150]);
    }
}
