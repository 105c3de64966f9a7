//! Progress, counters and problems of long work: reported here, never printed.
//!
//! The engine counts into [`Counters`] and reports problems as they happen; whoever started
//! the work (the command line, the service) supplies a [`Sink`] that shows or records them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How bad a reported problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Worth knowing; the result is complete (a skipped socket).
    Note,
    /// The result is complete, something deserves attention.
    Warning,
    /// Part of the work could not be done; the exit code says so.
    Error,
}

/// Something that did not go as asked while the work went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file or stored object, as text for people.
    pub item: String,
    /// What happened to it, lower case, one line.
    pub message: String,
}

/// Receives problems as they happen. Called from many threads.
pub trait Sink: Send + Sync {
    /// Reports one problem.
    fn problem(&self, problem: &Problem);
}

/// A sink that drops everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Sink for Silent {
    fn problem(&self, _: &Problem) {}
}

/// What has been done so far; `total_*` are zero until known.
#[derive(Debug, Default)]
pub struct Counters {
    /// Files and other entries finished.
    pub files_done: AtomicU64,
    /// Bytes of file content finished.
    pub bytes_done: AtomicU64,
    /// Files and other entries expected.
    pub files_total: AtomicU64,
    /// Bytes expected.
    pub bytes_total: AtomicU64,
    /// Bytes put into storage.
    pub bytes_stored: AtomicU64,
}

/// The handle long work reports to. Cheap to clone.
#[derive(Clone)]
pub struct Monitor {
    counters: Arc<Counters>,
    sink: Arc<dyn Sink>,
    stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Monitor({:?})", self.counters)
    }
}

impl Monitor {
    /// A monitor that tells `sink` of problems.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { counters: Arc::default(), sink, stop: Arc::default() }
    }

    /// A monitor nobody listens to.
    pub fn silent() -> Self {
        Self::new(Arc::new(Silent))
    }

    /// What has been done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts finished entries and bytes of content.
    pub fn done(&self, files: u64, bytes: u64) {
        self.counters.files_done.fetch_add(files, Ordering::Relaxed);
        self.counters.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back bytes that were counted and have to be done again.
    pub fn undone(&self, bytes: u64) {
        self.counters.bytes_done.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Reports a problem with `item`.
    pub fn problem(&self, severity: Severity, item: impl Into<String>, message: impl Into<String>) {
        self.sink.problem(&Problem { severity, item: item.into(), message: message.into() });
    }

    /// Asks the work to stop at the next safe point.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was asked for.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
