//! Packs on their way to the storage, several at once where each waits for a network.
//!
//! How many is bounded twice: by the requests the storage takes at once and by the bytes they
//! hold in memory. In which order they arrive is of no consequence: no index names a pack
//! before all of them are put and the storage's barrier has returned.
//!
//! A storage that takes one request at a time is asked in the caller's thread, so calls to it
//! come in the same order at each run.

use std::collections::VecDeque;
use std::thread::JoinHandle;

use crate::error::{Context, Error, Kind, Result};

/// Bytes on their way at once; a single larger pack still goes.
const BYTES_MAX: u64 = 64 << 20;

struct Upload<T> {
    bytes: u64,
    what: T,
    thread: JoinHandle<Result<()>>,
}

/// Puts that are under way, each with what it is for.
pub(super) struct Uploads<T> {
    at_once: usize,
    running: VecDeque<Upload<T>>,
}

impl<T> Uploads<T> {
    /// At most so many at once.
    pub(super) fn new(at_once: usize) -> Self {
        Self { at_once, running: VecDeque::new() }
    }

    /// Begins a put of so many bytes, once there is room for it. Gives what has been put since
    /// the last call; after an error nothing more should be begun.
    pub(super) fn begin(
        &mut self,
        bytes: u64,
        what: T,
        put: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Vec<T>> {
        if self.at_once <= 1 {
            put()?;
            return Ok(vec![what]);
        }
        let mut done = Vec::new();
        while let Some(index) = self.running.iter().position(|upload| upload.thread.is_finished()) {
            done.extend(self.running.remove(index).map(end).transpose()?);
        }
        while self.running.len() >= self.at_once || self.bytes() > BYTES_MAX.saturating_sub(bytes) {
            let Some(oldest) = self.running.pop_front() else { break };
            done.push(end(oldest)?);
        }
        let thread = std::thread::Builder::new().name("esker-put".into()).spawn(put);
        let thread = thread.context(|| "cannot store a pack: there is no thread for it")?;
        self.running.push_back(Upload { bytes, what, thread });
        Ok(done)
    }

    /// Waits for all that are under way. After a failure the others are waited for when this is dropped.
    pub(super) fn finish(&mut self) -> Result<Vec<T>> {
        std::iter::from_fn(|| self.running.pop_front()).map(end).collect()
    }

    fn bytes(&self) -> u64 {
        self.running.iter().map(|upload| upload.bytes).sum()
    }
}

impl<T> Drop for Uploads<T> {
    fn drop(&mut self) {
        // Who is told that it failed may rely on nothing being put any more.
        for upload in self.running.drain(..) {
            let _ = upload.thread.join();
        }
    }
}

fn end<T>(upload: Upload<T>) -> Result<T> {
    match upload.thread.join() {
        Ok(result) => result.map(|()| upload.what),
        Err(_) => Err(Error::new(Kind::Failed, "cannot store a pack: the thread that does it stopped")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn one_at_a_time_runs_in_the_callers_thread_in_order() {
        let mut uploads = Uploads::new(1);
        let caller = std::thread::current().id();
        for number in 0..3 {
            let here = move || {
                assert_eq!(std::thread::current().id(), caller);
                Ok(())
            };
            assert_eq!(uploads.begin(u64::MAX, number, here).unwrap(), [number]);
        }
        assert!(uploads.finish().unwrap().is_empty());
    }

    /// Three that wait for each other are done only if they run at once.
    #[test]
    fn several_run_at_once_and_each_is_given_back_once() {
        let mut uploads = Uploads::new(3);
        let meet = Arc::new(Barrier::new(3));
        let mut done = Vec::new();
        for number in 0..6 {
            let meet = meet.clone();
            let put = move || {
                meet.wait();
                Ok(())
            };
            done.extend(uploads.begin(1, number, put).unwrap());
        }
        done.extend(uploads.finish().unwrap());
        done.sort_unstable();
        assert_eq!(done, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn bytes_under_way_are_bounded_and_a_larger_one_goes_alone() {
        let mut uploads = Uploads::new(64);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for bytes in [BYTES_MAX / 2; 8].into_iter().chain([2 * BYTES_MAX]) {
            let (running, most) = (running.clone(), most.clone());
            let put = move || {
                let now = running.fetch_add(bytes as usize, Ordering::SeqCst) + bytes as usize;
                most.fetch_max(now, Ordering::SeqCst);
                running.fetch_sub(bytes as usize, Ordering::SeqCst);
                Ok(())
            };
            uploads.begin(bytes, (), put).unwrap();
            assert!(uploads.bytes() <= BYTES_MAX || uploads.running.len() == 1);
        }
        uploads.finish().unwrap();
        assert_eq!(most.load(Ordering::SeqCst) as u64, 2 * BYTES_MAX);
    }

    #[test]
    fn a_failure_is_told_and_the_others_have_ended_when_it_is() {
        let ended = Arc::new(AtomicBool::new(false));
        let mut uploads = Uploads::new(2);
        let flag = ended.clone();
        uploads.begin(1, 1, || Err(Error::new(Kind::Failed, "no space"))).unwrap();
        let late = move || {
            flag.store(true, Ordering::SeqCst);
            Ok(())
        };
        let error = match uploads.begin(1, 2, late) {
            Err(error) => error,
            Ok(_) => uploads.finish().unwrap_err(),
        };
        assert_eq!(error.to_string(), "no space");
        drop(uploads);
        // Begun or not, none is under way.
        assert!(ended.load(Ordering::SeqCst) || Arc::strong_count(&ended) == 1);
    }

    #[test]
    fn a_thread_that_panics_is_an_error() {
        let mut uploads = Uploads::new(2);
        uploads.begin(1, (), || panic!("on purpose")).unwrap();
        assert!(uploads.finish().unwrap_err().to_string().contains("stopped"));
    }
}
