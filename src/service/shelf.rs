//! The files in the state directory in which jobs are remembered, and the locks that keep a job from running twice.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::history::{History, Outcome, Run, Trigger};
use crate::repo::pins::file::replace;
use crate::storage::local::make_directories;

/// The directory of the service.
#[derive(Debug, Clone)]
pub struct Shelf {
    dir: PathBuf,
}

/// A job that nobody else runs until this is dropped.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

impl Shelf {
    /// Makes the directory below the state directory if need be.
    pub fn open(state: &Path) -> io::Result<Self> {
        let dir = state.join("service");
        make_directories(&dir)?;
        Ok(Self { dir })
    }

    /// Where a file of this name is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Takes a job, unless somebody runs it.
    pub fn hold(&self, job: &str) -> io::Result<Option<Held>> {
        let path = self.path(&format!("{job}.lock"));
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Held { _lock: lock })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What is remembered of a job. Of a file that cannot be read, why it is not used; it is put aside.
    pub fn load(&self, job: &str, now_ms: i64) -> (History, Option<String>) {
        let path = self.path(&format!("{job}.json"));
        let new = || History { since_ms: now_ms, ..History::default() };
        let read = std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        match read {
            Ok(history) => (history, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (new(), None),
            Err(error) => {
                let aside = path.with_extension("json.unreadable");
                let what = format!("what was remembered of job `{job}` is begun anew: `{}`: {error}", path.display());
                // It may be the reading that failed.
                let moved = rustix::fs::rename(&path, &aside);
                let told = moved.map_or(what.clone(), |()| format!("{what}; it is kept as `{}`", aside.display()));
                (new(), Some(told))
            }
        }
    }

    /// Remembers, durably. Whoever runs the job holds it.
    pub fn save(&self, job: &str, history: &History) -> io::Result<()> {
        replace(&self.path(&format!("{job}.json")), &serde_json::to_vec(history)?)
    }

    /// Begins a run of a job that is held: one of which only the beginning is known was killed, and is put down as that.
    pub fn begin(&self, job: &str, now_ms: i64, trigger: Trigger, scheduled_ms: Option<i64>) -> (History, Vec<String>) {
        let (mut history, told) = self.load(job, now_ms);
        let mut told: Vec<String> = told.into_iter().collect();
        if let Some(began) = history.running_since_ms {
            history.add(Run {
                began_ms: began,
                ended_ms: began,
                tried_ms: began,
                outcome: Outcome::Interrupted,
                code: 130,
                trigger,
                tries: 1,
                message: Some("the process was killed, or the machine went down".to_owned()),
                snapshot: None,
                result: None,
                numbers: Default::default(),
            });
        }
        history.running_since_ms = Some(now_ms);
        history.scheduled_ms = scheduled_ms.max(history.scheduled_ms);
        if let Err(error) = self.save(job, &history) {
            told.push(format!("that job `{job}` runs is not remembered: {error}"));
        }
        (history, told)
    }

    /// When what is remembered of a job was written.
    pub fn stamp(&self, job: &str) -> Option<std::time::SystemTime> {
        std::fs::metadata(self.path(&format!("{job}.json"))).ok()?.modified().ok()
    }

    /// Whether somebody runs a job now.
    pub fn is_running(&self, job: &str) -> bool {
        matches!(self.hold(job), Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(began_ms: i64, outcome: Outcome) -> Run {
        Run {
            began_ms,
            ended_ms: began_ms + 1500,
            tried_ms: began_ms,
            outcome,
            code: 0,
            trigger: Trigger::Hand,
            tries: 1,
            message: None,
            snapshot: None,
            result: None,
            numbers: Default::default(),
        }
    }

    #[test]
    fn what_was_remembered_comes_back_and_a_killed_run_is_put_down() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let (mut history, told) = shelf.begin("states", 1000, Trigger::Hand, Some(900));
        assert_eq!((history.since_ms, history.running_since_ms, told.len()), (1000, Some(1000), 0));
        history.add(run(1000, Outcome::Success));
        shelf.save("states", &history).unwrap();
        assert_eq!(shelf.load("states", 9), (history, None));
        // Begun, and never ended.
        shelf.begin("states", 5000, Trigger::Schedule, None);
        let (history, _) = shelf.begin("states", 9000, Trigger::Schedule, None);
        assert_eq!(history.totals, [(Outcome::Success, 1), (Outcome::Interrupted, 1)].into());
        assert_eq!((history.last().unwrap().began_ms, history.scheduled_ms), (5000, Some(1000)));
        assert_eq!((history.failures, history.last_success.unwrap().began_ms), (0, 1000));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_put_aside_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        std::fs::write(shelf.path("states.json"), "{\"since-ms\": tr").unwrap();
        let (history, told) = shelf.load("states", 7);
        assert_eq!(history, History { since_ms: 7, ..History::default() });
        assert!(told.unwrap().contains("states.json.unreadable"));
        assert!(shelf.path("states.json.unreadable").exists());
        assert_eq!(shelf.load("states", 8).1, None);
    }

    #[test]
    fn a_job_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let held = shelf.hold("a").unwrap();
        assert!(held.is_some() && shelf.hold("a").unwrap().is_none() && shelf.hold("b").unwrap().is_some());
        assert!(shelf.is_running("a") && !shelf.is_running("b"));
        drop(held);
        assert!(shelf.hold("a").unwrap().is_some());
    }
}
