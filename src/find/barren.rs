//! Directories below which there is nothing to find.

use std::collections::HashSet;
use std::mem;

/// Most that one half remembers.
const HALF: usize = 1 << 17;

/// A set that forgets what was not asked for in a long time: it has a young half and an old one, and when
/// the young one is full it becomes the old one.
#[derive(Debug, Default)]
pub(super) struct Barren {
    young: HashSet<[u8; 32]>,
    old: HashSet<[u8; 32]>,
}

impl Barren {
    /// Whether it was added and is not forgotten.
    pub(super) fn has(&mut self, key: &[u8; 32]) -> bool {
        if self.young.contains(key) {
            return true;
        }
        let known = self.old.remove(key);
        if known {
            self.add(*key);
        }
        known
    }

    pub(super) fn add(&mut self, key: [u8; 32]) {
        if self.young.len() >= HALF {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_forgotten() {
        let key = |n: usize| *blake3::hash(n.to_string().as_bytes()).as_bytes();
        let mut barren = Barren::default();
        (0..4 * HALF).for_each(|n| {
            barren.add(key(n));
            assert!(barren.has(&key(0)), "{n}");
        });
        assert!(barren.has(&key(4 * HALF - 1)));
        assert!(!barren.has(&key(1)));
        assert!(barren.young.len() + barren.old.len() <= 2 * HALF);
    }
}
