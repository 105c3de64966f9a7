//! Directories under watch, and what becomes of them.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::super::plan::Watch;
use crate::path::TreePath;
use crate::source::exclude::{Case, Patterns};

/// How often it is looked whether a place is still the one that is watched.
const LOOK: Duration = Duration::from_secs(3);
/// Longest wait before it is tried again to watch what cannot be.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Most events taken at once, so that what they mean is told in between.
const EVENTS_MAX: usize = 4096;

/// Sees which jobs' files change. Nothing happens but by [`Self::look`].
#[derive(Debug)]
pub(super) struct Eyes {
    fd: Option<OwnedFd>,
    jobs: Vec<Job>,
    roots: Vec<Root>,
    /// By the kernel's number of each. Jobs may share one, and so may two ways to it.
    dirs: HashMap<i32, Vec<Dir>>,
}

#[derive(Debug)]
struct Job {
    /// Its places among all.
    roots: Range<usize>,
    include: Patterns,
    exclude: Patterns,
    changed: bool,
}

/// A place that a job watches.
#[derive(Debug)]
struct Root {
    job: usize,
    path: PathBuf,
    state: State,
    tries: u32,
}

#[derive(Debug)]
enum State {
    Seen {
        place: Place,
        since: Instant,
        look: Instant,
    },
    Lost {
        why: String,
        retry: Instant,
    },
    /// Not tried yet.
    New,
}

/// What is at a root's path: a directory, or a file with its name in one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    dir: PathBuf,
    id: (u64, u64),
    file: Option<OsString>,
}

/// A directory that is watched for a root.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Dir {
    root: usize,
    path: PathBuf,
}

/// Why a place cannot be watched.
enum Fault {
    /// It is not there.
    Absent(String),
    /// It is, and too much of it; trying at once again would not help.
    Refused(String),
}

struct Event {
    dir: i32,
    flags: ReadFlags,
    name: Option<OsString>,
}

impl Eyes {
    pub(super) fn new(jobs: &[(String, Watch)]) -> Result<Self, String> {
        let mut eyes = Self { fd: None, jobs: Vec::new(), roots: Vec::new(), dirs: HashMap::new() };
        for (at, (name, watch)) in jobs.iter().enumerate() {
            let patterns = |list: &[String]| {
                let mut patterns = Patterns::new();
                for text in list {
                    let added = patterns.add(text.as_bytes(), Case::Sensitive);
                    added.map_err(|error| format!("job `{name}`: {error}"))?;
                }
                Ok::<_, String>(patterns)
            };
            let (include, exclude) = (patterns(&watch.include)?, patterns(&watch.exclude)?);
            let first = eyes.roots.len();
            let roots = super::places(watch).into_iter();
            eyes.roots.extend(roots.map(|path| Root { job: at, path, state: State::New, tries: 0 }));
            eyes.jobs.push(Job { roots: first..eyes.roots.len(), include, exclude, changed: false });
        }
        Ok(eyes)
    }

    /// What is to be waited on.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Whether something of a job changed since this was asked before.
    pub(super) fn take_changed(&mut self, job: usize) -> bool {
        std::mem::take(&mut self.jobs[job].changed)
    }

    /// Whether each place of a job was tried.
    pub(super) fn is_known(&self, job: usize) -> bool {
        !self.roots_of(job).iter().any(|root| matches!(root.state, State::New))
    }

    /// Why a job's files are not seen, if so.
    pub(super) fn lost(&self, job: usize) -> Option<String> {
        let mut all = self.roots_of(job).iter().filter_map(|root| match &root.state {
            State::Lost { why, .. } => Some(why),
            _ => None,
        });
        let first = all.next()?;
        Some(match all.count() {
            0 => first.clone(),
            more => format!("{first}, and {more} more"),
        })
    }

    fn roots_of(&self, job: usize) -> &[Root] {
        &self.roots[self.jobs[job].roots.clone()]
    }

    /// Takes what the kernel has to tell and tries to watch what is not watched. Says when to look again at the latest.
    pub(super) fn look(&mut self, now: Instant) -> Option<Instant> {
        let more = self.take_events(now);
        for at in 0..self.roots.len() {
            self.look_at(at, now);
        }
        let next = self.roots.iter().map(|root| match &root.state {
            State::Seen { look, .. } => *look,
            State::Lost { retry, .. } => *retry,
            State::New => now,
        });
        if more { Some(now) } else { next.min() }
    }

    fn look_at(&mut self, at: usize, now: Instant) {
        match &self.roots[at].state {
            State::Seen { place, look, since } if *look <= now => {
                let same = find(&self.roots[at].path).is_ok_and(|found| found == *place);
                if same {
                    let (place, since) = (place.clone(), *since);
                    if now.duration_since(since) > RETRY_MAX {
                        self.roots[at].tries = 0;
                    }
                    self.roots[at].state = State::Seen { place, since, look: now + LOOK };
                } else {
                    // Something else is there: a link that points elsewhere, a mount.
                    self.forget(at);
                    self.arm(at, now);
                }
            }
            State::Lost { retry, .. } if *retry <= now => self.arm(at, now),
            State::New => self.arm(at, now),
            _ => {}
        }
    }

    /// Begins to watch a place.
    fn arm(&mut self, at: usize, now: Instant) {
        let path = self.roots[at].path.clone();
        let armed = find(&path).and_then(|place| {
            let dir = if place.file.is_some() { place.dir.clone() } else { path.clone() };
            self.add(at, dir, place.file.is_none())?;
            Ok(place)
        });
        match armed {
            Ok(place) => {
                self.roots[at].state = State::Seen { place, since: now, look: now + LOOK };
                self.jobs[self.roots[at].job].changed = true;
            }
            Err(Fault::Absent(why)) => self.lose(at, why, now, LOOK),
            Err(Fault::Refused(why)) => self.lose(at, why, now, RETRY_MAX),
        }
    }

    /// Watches a directory, and all in it. It is watched before it is read, so nothing in it appears unseen.
    fn add(&mut self, root: usize, top: PathBuf, deep: bool) -> Result<(), Fault> {
        let flags = WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MODIFY
            | WatchFlags::MOVE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::EXCL_UNLINK
            | WatchFlags::ONLYDIR;
        if self.fd.is_none() {
            let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
            self.fd = Some(fd.map_err(|error| Fault::Refused(format!("the kernel gives no watch: {}", text(error))))?);
        }
        let mut stack = vec![top];
        let mut first = true;
        while let Some(path) = stack.pop() {
            let fd = self.fd.as_ref().expect("made above");
            // Only where a job's path itself is a link it is followed.
            let is_root = !deep || path == self.roots[root].path;
            let follow = if is_root { WatchFlags::empty() } else { WatchFlags::DONT_FOLLOW };
            let number = match inotify::add_watch(fd, &path, flags | follow) {
                Ok(number) => number,
                Err(Errno::NOSPC) => {
                    return Err(Fault::Refused(
                        "more directories than the kernel lets one user watch; raise fs.inotify.max_user_watches"
                            .to_owned(),
                    ));
                }
                Err(error @ (Errno::NOMEM | Errno::NFILE | Errno::MFILE)) => {
                    return Err(Fault::Refused(format!("{} cannot be watched: {}", quote(&path), text(error))));
                }
                Err(error) if first => {
                    return Err(Fault::Absent(format!("{} cannot be watched: {}", quote(&path), text(error))));
                }
                // It vanished meanwhile, or cannot be read by a backup either.
                Err(_) => continue,
            };
            first = false;
            let dirs = self.dirs.entry(number).or_default();
            let dir = Dir { root, path };
            if !dirs.contains(&dir) {
                dirs.push(dir.clone());
            }
            if !deep {
                return Ok(());
            }
            let Ok(entries) = std::fs::read_dir(&dir.path) else { continue };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let path = entry.path();
                    if self.jobs[self.roots[root].job].may_hold(&path) {
                        stack.push(path);
                    }
                }
            }
        }
        Ok(())
    }

    /// Stops watching what `gone` says.
    fn drop_dirs(&mut self, gone: impl Fn(&Dir) -> bool) {
        let fd = self.fd.as_ref();
        self.dirs.retain(|number, dirs| {
            dirs.retain(|dir| !gone(dir));
            if let (true, Some(fd)) = (dirs.is_empty(), fd) {
                // It may be gone already.
                let _ = inotify::remove_watch(fd, *number);
            }
            !dirs.is_empty()
        });
    }

    fn forget(&mut self, root: usize) {
        self.drop_dirs(|dir| dir.root == root);
    }

    fn lose(&mut self, root: usize, why: String, now: Instant, longest: Duration) {
        self.forget(root);
        let lost = &mut self.roots[root];
        let wait = Duration::from_millis(250 << lost.tries.min(10)).min(longest);
        lost.tries += 1;
        lost.state = State::Lost { why, retry: now + wait };
    }

    /// Reads what has happened. True when there may be more of it.
    fn take_events(&mut self, now: Instant) -> bool {
        let Some(fd) = &self.fd else { return false };
        let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
        let mut reader = Reader::new(fd, &mut buffer);
        let mut events = Vec::new();
        let mut overflow = false;
        let more = loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => overflow = true,
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    events.push(Event { dir: event.wd(), flags: event.events(), name });
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break false,
                Err(_) => {
                    overflow = true;
                    break false;
                }
            }
            if events.len() >= EVENTS_MAX && reader.is_buffer_empty() {
                break true;
            }
        };
        if overflow {
            self.overflow(now);
            return false;
        }
        let mut moved = BTreeSet::new();
        for event in events {
            self.see(event, &mut moved, now);
        }
        self.drop_moved(&mut moved);
        more
    }

    /// Events are lost: new directories may not be watched. All begins anew.
    fn overflow(&mut self, now: Instant) {
        self.fd = None;
        self.dirs.clear();
        for root in 0..self.roots.len() {
            if matches!(self.roots[root].state, State::Seen { .. }) {
                self.lose(root, "more happened at once than the kernel keeps".to_owned(), now, RETRY_MAX);
            }
        }
    }

    fn see(&mut self, event: Event, moved: &mut BTreeSet<(usize, PathBuf)>, now: Instant) {
        let Some(dirs) = self.dirs.get(&event.dir).cloned() else { return };
        let is_dir = event.flags.contains(ReadFlags::ISDIR);
        let over = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
        if event.flags.contains(ReadFlags::IGNORED) {
            self.dirs.remove(&event.dir);
        }
        for dir in dirs {
            let root = dir.root;
            let State::Seen { place, .. } = &self.roots[root].state else { continue };
            let top = if place.file.is_some() { &place.dir } else { &self.roots[root].path };
            if event.flags.intersects(over) {
                if dir.path == *top {
                    let why = if event.flags.contains(ReadFlags::UNMOUNT) { "was unmounted" } else { "is gone" };
                    self.lose(root, format!("{} {why}", quote(&dir.path)), now, LOOK);
                }
                self.jobs[self.roots[root].job].changed |= event.flags.contains(ReadFlags::UNMOUNT);
                continue;
            }
            let job = self.roots[root].job;
            let Some(name) = &event.name else {
                // The directory itself, such as its mode. Of one below, its own directory tells as well.
                if place.file.is_none() && dir.path == *top && event.flags.contains(ReadFlags::ATTRIB) {
                    self.jobs[job].changed |= self.jobs[job].wants(&dir.path);
                }
                continue;
            };
            if let Some(file) = &place.file {
                if file == name {
                    self.jobs[job].changed = true;
                }
                continue;
            }
            let path = dir.path.join(name);
            if !is_dir {
                self.jobs[job].changed |= self.jobs[job].wants(&path);
                continue;
            }
            if !self.jobs[job].may_hold(&path) {
                continue;
            }
            if event.flags.contains(ReadFlags::MOVED_FROM) {
                moved.insert((root, path));
            } else if event.flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                self.drop_moved(moved);
                if let Err(Fault::Refused(why)) = self.add(root, path, true) {
                    self.lose(root, why, now, RETRY_MAX);
                }
            }
            // Set after what is in it is watched: what was written before that is there for whoever looks now.
            self.jobs[job].changed = true;
        }
    }

    /// Stops watching directories that went elsewhere, with all in them.
    fn drop_moved(&mut self, moved: &mut BTreeSet<(usize, PathBuf)>) {
        let moved = std::mem::take(moved);
        if !moved.is_empty() {
            self.drop_dirs(|dir| dir.path.ancestors().any(|above| moved.contains(&(dir.root, above.to_owned()))));
        }
    }
}

impl Job {
    /// Whether a change of this is one.
    fn wants(&self, path: &Path) -> bool {
        let Ok(path) = TreePath::from_os(path) else { return true };
        !self.exclude.matches(&path) && (self.include.is_empty() || self.include.matches(&path))
    }

    /// Whether something in this directory may be wanted. What is left out is not entered, as in a backup.
    fn may_hold(&self, path: &Path) -> bool {
        let Ok(path) = TreePath::from_os(path) else { return true };
        let include = &self.include;
        !self.exclude.matches(&path) && (include.is_empty() || include.matches(&path) || include.may_match_below(&path))
    }
}

fn find(path: &Path) -> Result<Place, Fault> {
    let fault = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Fault::Absent(format!("{} is not there", quote(path))),
        _ => Fault::Absent(format!("{} cannot be looked at: {error}", quote(path))),
    };
    let is_dir = std::fs::metadata(path).map_err(fault)?.is_dir();
    let whole = std::fs::canonicalize(path).map_err(fault)?;
    let (dir, file) = match (whole.parent(), whole.file_name()) {
        (Some(dir), Some(name)) if !is_dir => (dir.to_owned(), Some(name.to_owned())),
        _ => (whole, None),
    };
    let meta = std::fs::metadata(&dir).map_err(fault)?;
    Ok(Place { dir, id: (meta.dev(), meta.ino()), file })
}

fn quote(path: &Path) -> String {
    format!("`{}`", path.display())
}

fn text(error: Errno) -> String {
    std::io::Error::from(error).to_string()
}
