//! Mounting: snapshots as directories of a read-only file system, by FUSE.
//!
//! ```text
//! kernel ──> fuser ──> door ──────────> served, on several threads
//!            one       a job for each   layout: names of snapshots; windows: parts of directories;
//!            thread    request          bytes: chunks of files
//! ```
//!
//! No C library takes part: the kernel's protocol is `fuser`'s, and mounting is a system call of root's, or
//! `fusermount3`. What is read is checked like everything else; what is damaged is an I/O error, and told.
//!
//! Memory is bounded but for one thing: the kernel says which entries it wants remembered, and forgets them
//! when it needs memory.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use fuser::{Config, MountOption, Session, SessionACL};
use rustix::mount::UnmountFlags;

use crate::error::{Context, Error, Kind, Result};
use crate::format::tree::{Detail, Entry};
use crate::monitor::Monitor;
use crate::repo::content::Reader;
use crate::repo::snapshots::Filter;
use crate::world::Time;

mod bytes;
mod door;
mod inodes;
mod layout;
mod served;
#[cfg(test)]
mod tests;
mod watcher;
mod windows;

use door::Door;
use served::Served;
use watcher::Watcher;

/// Requests that wait for a thread.
const WAITING_MAX: usize = 64;

/// What is shown.
#[derive(Debug)]
pub enum Top {
    /// All snapshots that a filter takes: by time, by host, by tag and by id.
    Snapshots(Filter),
    /// A directory of a snapshot.
    Entry(Box<Entry>),
}

/// Puts a moment into the name of a directory.
pub type Named = Arc<dyn Fn(Time) -> String + Send + Sync>;

/// How it is shown.
#[derive(Clone)]
pub struct Options {
    /// To other users, too, as far as the stored modes let them.
    pub allow_other: bool,
    /// As if root owned everything.
    pub owner_root: bool,
    /// How many requests are answered at a time.
    pub threads: usize,
    /// How a snapshot's directory is called.
    pub named: Named,
    /// How old a list of snapshots may be.
    pub refresh: Duration,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Mounts at `dir` and serves until it is unmounted or `stop` is closed; calls `mounted` once it is there.
pub fn run(
    reader: Reader<'_>,
    top: Top,
    dir: &Path,
    options: &Options,
    monitor: &Monitor,
    stop: &Receiver<()>,
    mounted: impl FnOnce(),
) -> Result<()> {
    if let Top::Entry(entry) = &top
        && !matches!(entry.detail, Detail::Directory { .. })
    {
        return Err(Error::new(Kind::Usage, "nothing was mounted: what is to be shown is not a directory"));
    }
    let what = || format!("cannot mount at `{}`", dir.display());
    let dir = dir.canonicalize().context(what)?;
    if !dir.is_dir() {
        return Err(Error::new(Kind::Usage, format!("{}: it is not a directory", what())));
    }
    let served = Served::new(reader, top, options.clone(), monitor.clone())?;
    let (jobs, work) = bounded(WAITING_MAX);
    let session = Session::new(Door::new(jobs), &dir, &config(options)).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "without root, mounting needs `fusermount3` (of the package fuse3)",
            _ => "mounting needs /dev/fuse, and root or `fusermount3`",
        };
        Error::new(Kind::Failed, what()).because(error).hint(hint)
    })?;
    // Without it nobody unmounts what is left of a program that was killed; all else works.
    let watcher = Watcher::begin(&dir);
    let session = session.spawn().context(what)?;
    mounted();
    thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| served.work(&work, stop));
        }
    });
    // Lazily: what is open somewhere stays so until it is closed, with errors instead of content.
    if !session.guard.is_finished() {
        let _ = rustix::mount::unmount(&dir, UnmountFlags::DETACH);
    }
    drop(session);
    drop(watcher);
    Ok(())
}

fn config(options: &Options) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("esker".into()),
        MountOption::Subtype("esker".into()),
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
    ];
    if options.allow_other {
        // Then what a mode forbids is forbidden; alone, whoever has the key may read all.
        config.acl = SessionACL::All;
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config
}
