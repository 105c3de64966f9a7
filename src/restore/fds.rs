//! A bounded number of open descriptors, the least recently used closed first.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::target::lock;

/// Descriptors by a number that stands for what they are open on.
///
/// A descriptor that falls out stays open as long as somebody still holds it.
#[derive(Debug)]
pub(super) struct Descriptors {
    max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    fds: HashMap<u64, (Arc<OwnedFd>, u64)>,
    clock: u64,
}

impl Descriptors {
    /// Keeps at most `max` open.
    pub(super) fn new(max: usize) -> Self {
        Self { max, open: Mutex::default() }
    }

    /// The descriptor kept for `number`.
    pub(super) fn get(&self, number: u64) -> Option<Arc<OwnedFd>> {
        let mut open = lock(&self.open);
        open.clock += 1;
        let clock = open.clock;
        open.fds.get_mut(&number).map(|(fd, used)| {
            *used = clock;
            Arc::clone(fd)
        })
    }

    /// Keeps a descriptor for `number`.
    pub(super) fn keep(&self, number: u64, fd: Arc<OwnedFd>) {
        let mut open = lock(&self.open);
        open.clock += 1;
        let clock = open.clock;
        if open.fds.len() >= self.max {
            // An eighth at a time: closing is rare and needs no list in order of use.
            let mut used: Vec<u64> = open.fds.values().map(|(_, used)| *used).collect();
            let (_, oldest_kept, _) = used.select_nth_unstable(self.max / 8);
            let oldest_kept = *oldest_kept;
            open.fds.retain(|_, (_, used)| *used >= oldest_kept);
        }
        open.fds.insert(number, (fd, clock));
    }

    /// Keeps no descriptor for `number` any more.
    pub(super) fn forget(&self, number: u64) {
        lock(&self.open).fds.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_is_closed_first() {
        let fds = Descriptors::new(8);
        let null = || Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        (0..8).for_each(|number| fds.keep(number, null()));
        assert!(fds.get(0).is_some());
        fds.keep(8, null());
        assert!(fds.get(1).is_none());
        assert!(fds.get(0).is_some() && fds.get(2).is_some() && fds.get(8).is_some());
        fds.forget(0);
        assert!(fds.get(0).is_none());
    }
}
