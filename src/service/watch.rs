//! Sees what changes: one thread that watches the directories of all jobs, by inotify.
//!
//! It promises that a change is told after it happened, or that the watch is told to be *lost*: the kernel's queue overflowed, there are
//! more directories than may be watched, the place is gone or not there yet. Then whoever listens looks for himself now and again, and this
//! thread tries to watch again. When it does it says so, and that something has changed: nobody knows what was missed.
//!
//! Changes are told a few times a second at most, once for each job however many there were, so what is kept does not grow with them. Only
//! what changes files is listened to, not what reads them: a backup does not see itself. (The crate `notify` listens to
//! each opening of a file, so that a backup could overflow the queue by itself, and gives up a subtree
//! silently when a directory in it vanishes while it is looked at.)
//!
//! What inotify cannot see: writes through a memory map before it is closed, through a hard link outside, and on other
//! machines of a network file system. For those a backup job has its RPO.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use self::eyes::Eyes;
use super::plan::Watch;

mod eyes;

/// Least time between two tellings of changes of a job, and before a full channel is tried again.
const TELL: Duration = Duration::from_millis(50);

/// Something about what a job watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The job.
    pub job: String,
    /// When it was seen, milliseconds since 1970.
    pub at_ms: i64,
    /// What.
    pub what: What,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Something in it changed.
    Changed,
    /// It is not seen, and why.
    Lost(String),
    /// It is seen.
    Fine,
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Begins to watch, and returns before it sees: each job is told to be fine and changed once it does. `now_ms` is the
    /// clock. Fails on patterns that mean nothing.
    pub fn start(
        jobs: &[(String, Watch)],
        sender: Sender<Change>,
        now_ms: impl Fn() -> i64 + Send + 'static,
    ) -> Result<Self, String> {
        let eyes = Eyes::new(jobs)?;
        let told = jobs.iter().map(|(name, _)| Told::new(name)).collect();
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| error.to_string())?;
        let stop = Arc::new(stop);
        let teller = Teller { eyes, told, sender, now_ms: Box::new(now_ms), stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(|| teller.run());
        Ok(Self { stop, thread: Some(thread.map_err(|error| error.to_string())?) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1_u64.to_le_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What has been told of a job, and what is to be.
#[derive(Debug)]
struct Told {
    job: String,
    /// Why it is not seen, as it was told; `None` before anything was.
    lost: Option<Option<String>>,
    changed_ms: Option<i64>,
    at: Option<Instant>,
}

impl Told {
    fn new(job: &str) -> Self {
        Self { job: job.to_owned(), lost: None, changed_ms: None, at: None }
    }
}

struct Teller {
    eyes: Eyes,
    told: Vec<Told>,
    sender: Sender<Change>,
    now_ms: Box<dyn Fn() -> i64 + Send>,
    stop: Arc<OwnedFd>,
}

impl Teller {
    fn run(mut self) {
        loop {
            let now = Instant::now();
            let again = self.eyes.look(now);
            let Ok(later) = self.tell(now) else { return };
            let next = [again, later].into_iter().flatten().min();
            if self.wait(next) {
                return;
            }
        }
    }

    /// Sends what is new; fails when nobody listens any more. Says when to try again, if not all could be told now.
    fn tell(&mut self, now: Instant) -> Result<Option<Instant>, ()> {
        let at_ms = (self.now_ms)();
        let mut later: Option<Instant> = None;
        for (at, told) in self.told.iter_mut().enumerate() {
            if self.eyes.take_changed(at) {
                told.changed_ms = Some(at_ms);
            }
            let lost = self.eyes.lost(at);
            let send = |at_ms, what| match self.sender.try_send(Change { job: told.job.clone(), at_ms, what }) {
                Ok(()) => Ok(true),
                Err(TrySendError::Full(_)) => Ok(false),
                Err(TrySendError::Disconnected(_)) => Err(()),
            };
            // Between the begin and the first success or failure there is nothing to say.
            if told.lost.as_ref() != Some(&lost) && self.eyes.is_known(at) {
                let what = lost.clone().map_or(What::Fine, What::Lost);
                if send(at_ms, what)? {
                    told.lost = Some(lost);
                } else {
                    later = Some(now + TELL);
                }
            }
            if let Some(changed_ms) = told.changed_ms {
                let due = told.at.map_or(now, |at| at + TELL);
                if due <= now && send(changed_ms, What::Changed)? {
                    (told.changed_ms, told.at) = (None, Some(now));
                } else {
                    let again = due.max(now + Duration::from_millis(1));
                    later = Some(later.map_or(again, |later| later.min(again)));
                }
            }
        }
        Ok(later)
    }

    /// Waits for an event or a moment. True when it is to stop.
    fn wait(&self, until: Option<Instant>) -> bool {
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = wait.map(|wait| rustix::event::Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        let mut ends = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        ends.extend(self.eyes.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // An interrupted wait is a short one.
        let _ = rustix::event::poll(&mut ends, timeout.as_ref());
        !ends[0].revents().is_empty()
    }
}

/// The places of a job's watch, absolute.
fn places(watch: &Watch) -> Vec<PathBuf> {
    watch.paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect()
}

#[cfg(test)]
mod tests;
