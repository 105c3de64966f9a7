//! Who runs command lines for the service.

use std::ffi::OsString;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::Value;

use super::facts::Seen;

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
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    asked: Condvar,
}

#[derive(Default)]
struct State {
    asked: bool,
    then: Vec<Box<dyn Fn() + Send>>,
    children: Vec<Weak<Shared>>,
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stop({})", self.is_asked())
    }
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for it.
    pub fn ask(&self) {
        let mut state = self.lock();
        state.asked = true;
        state.then.iter().for_each(|stop| stop());
        let children = std::mem::take(&mut state.children);
        self.shared.asked.notify_all();
        drop(state);
        children.iter().filter_map(Weak::upgrade).for_each(|shared| Self { shared }.ask());
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        self.lock().asked
    }

    /// Has `stop` called when it is asked for, at once if it was. `stop` must not call back.
    pub fn then(&self, stop: Box<dyn Fn() + Send>) {
        let mut state = self.lock();
        if state.asked {
            stop();
        }
        state.then.push(stop);
    }

    /// One that is asked for with this one, and by itself.
    pub fn child(&self) -> Self {
        let child = Self::default();
        let mut state = self.lock();
        if state.asked {
            child.lock().asked = true;
        }
        // What ended is not kept by a service that goes on for months.
        state.children.retain(|child| child.strong_count() > 0);
        state.children.push(Arc::downgrade(&child.shared));
        drop(state);
        child
    }

    /// Waits so long, or until it is asked for; says whether it was.
    pub fn wait(&self, most: Duration) -> bool {
        let state = self.lock();
        let waited = self.shared.asked.wait_timeout_while(state, most, |state| !state.asked);
        waited.unwrap_or_else(PoisonError::into_inner).0.asked
    }
}

/// Runs command lines in this process, as if they had been typed with `--json`.
///
/// A repository is unlocked once: what opened it is kept in memory until the runner is dropped.
pub trait Runner: Send + Sync {
    /// Runs one to its end, or until `stop` is asked for. A panic in it is a failure of it.
    fn run(&self, call: &Call, stop: &Stop) -> Answer;

    /// What there is to know about a repository.
    fn look(&self, repository: &str, stop: &Stop) -> Result<Seen, String>;

    /// Writes down in a repository what was done, as far as its credential may.
    fn note(&self, repository: &str, action: &str, detail: &str) -> Result<(), String>;
}
