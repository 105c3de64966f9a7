//! Who runs command lines for the service.

use std::ffi::OsString;
use std::sync::Arc;

use serde_json::Value;

/// A command line to be run.
#[derive(Debug, Clone)]
pub struct Call {
    /// The configured repository it is about.
    pub repository: String,
    /// The configured one it brings things to.
    pub target: Option<String>,
    /// The verb and what follows it.
    pub args: Vec<OsString>,
}

/// What came of one.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The exit code.
    pub code: u8,
    /// The objects it printed, in order. Long listings are cut.
    pub lines: Vec<Value>,
    /// Warnings and errors, a line each, the first few.
    pub problems: Vec<String>,
    /// Why it failed, if it did.
    pub message: Option<String>,
}

/// Stops what is being run, softly: what was done stays done.
#[derive(Clone, Default)]
pub struct Stop {
    state: Arc<std::sync::Mutex<(bool, Vec<Box<dyn Fn() + Send>>)>>,
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stop({})", self.is_asked())
    }
}

impl Stop {
    fn lock(&self) -> std::sync::MutexGuard<'_, (bool, Vec<Box<dyn Fn() + Send>>)> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks for it.
    pub fn ask(&self) {
        let mut state = self.lock();
        state.0 = true;
        state.1.iter().for_each(|stop| stop());
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        self.lock().0
    }

    /// Has `stop` called when it is asked for, at once if it was.
    pub fn then(&self, stop: Box<dyn Fn() + Send>) {
        let mut state = self.lock();
        if state.0 {
            stop();
        }
        state.1.push(stop);
    }
}

/// Runs command lines in this process, as if they had been typed with `--json`.
///
/// A repository is unlocked once: what opened it is kept in memory until the runner is dropped.
pub trait Runner: Send + Sync {
    /// Runs one to its end, or until `stop` is asked for. A panic in it is a failure of it.
    fn run(&self, call: &Call, stop: &Stop) -> Answer;
}
