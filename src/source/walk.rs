//! The walk: every entry below the roots, in one fixed order.
//!
//! Depth first, the names of each directory in byte order, beginning at `/` and passing through
//! the directories on the way to each root. The order is that of the file system's names alone,
//! whatever the threads that list ahead do.
//!
//! Only the deepest `OPEN_LEVELS` directories of the current path (and `/`) stay open; coming
//! back up, a parent is opened again through `..` if that is still the same directory, else by
//! its names from the top. So no depth overflows the stack, the descriptors or `PATH_MAX`.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::ahead::Ahead;
use super::dir::{Access, Dir};
use super::exclude::Patterns;
use super::list::{Entry, Found, Limits, Lister, Listing};
use super::node::Node;
use super::stat::Stat;
use super::tag::Tag;
use crate::path::{Name, PathError, TreePath};

/// Directories of the current path kept open.
const OPEN_LEVELS: usize = 32;

/// Says whether an entry below a root is kept; called from several threads.
pub type Filter = Arc<dyn Fn(&TreePath, &Stat) -> bool + Send + Sync>;

/// What to leave out, and how many threads to use.
#[derive(Clone)]
pub struct WalkOptions {
    /// Keep directories where another file system is mounted, but nothing in them.
    pub one_file_system: bool,
    /// Never enter these, whatever name leads there: the repository, the cache.
    pub leave_out: Vec<TreePath>,
    /// Leave out what these match. Asked before the entry is looked at.
    pub exclude: Patterns,
    /// Keep of a directory with one of these files only that file.
    pub tags: Vec<Tag>,
    /// Keep only that for which this is true. Asked after the entry was looked at.
    pub filter: Option<Filter>,
    /// Threads that list directories, the caller's own included.
    pub threads: usize,
    /// Where the names of a very large directory wait for their turn, in a file without a name.
    pub spill: PathBuf,
}

impl Default for WalkOptions {
    fn default() -> Self {
        Self {
            one_file_system: false,
            leave_out: Vec::new(),
            exclude: Patterns::new(),
            tags: Vec::new(),
            filter: None,
            threads: 1,
            spill: std::env::temp_dir(),
        }
    }
}

/// Whether a directory is backed up with what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// It leads to a root: of what is in it, only what leads there comes.
    OnTheWay,
    /// A root, or below one.
    Whole,
}

/// Why something is left out on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// It is in [`WalkOptions::leave_out`].
    #[error("left out: it belongs to the backup itself")]
    Always,
    /// A root that an exclude pattern or the filter matches; others are not reported.
    #[error("left out: an exclude option matches it")]
    Excluded,
    /// The entries of a directory where such a file system is mounted, or a file on one.
    #[error("left out: it shows the state of the system, not files")]
    PseudoFileSystem,
    /// The entries of a directory where another file system is mounted.
    #[error("left out: it is another file system")]
    OtherFileSystem,
    /// The entries of a directory with a [`Tag`], but for the tag.
    #[error("left out: it is tagged as a cache")]
    Tagged,
}

/// What could not be done; the entry, or some of the directory's entries, are missing.
#[derive(Debug, thiserror::Error)]
pub enum WalkFault {
    /// A directory's entries could not all be read.
    #[error("its entries cannot be listed: {0}")]
    List(io::Error),
    /// An entry could not be looked at.
    #[error("it cannot be looked at: {0}")]
    Look(io::Error),
    /// A name has no place in a snapshot.
    #[error("it holds an entry that cannot be stored: {0}")]
    Name(PathError),
    /// A directory was moved away while the walk was deep below it.
    #[error("it was moved while it was read, and the rest of it is missing: {0}")]
    Moved(io::Error),
}

/// A step of the walk.
#[derive(Debug)]
pub enum Event {
    /// A directory begins; its entries follow, then [`Event::Leave`].
    Enter {
        /// Its name; `None` for `/`.
        name: Option<Name>,
        /// A look at it taken before its entries were listed.
        stat: Stat,
        /// The directory, open.
        dir: Arc<Dir>,
        /// Whether all that is in it comes.
        scope: Scope,
    },
    /// Anything but a directory. Sockets come too.
    Item {
        /// Its name.
        name: Name,
        /// What it was when its directory was listed.
        stat: Stat,
        /// The directory it is in, open.
        dir: Arc<Dir>,
    },
    /// The directory last entered and not yet left ends.
    Leave {
        /// Whether some of its own entries could not be read (each was a [`Event::Problem`]).
        /// What lies deeper does not count.
        incomplete: bool,
    },
    /// Something is left out on purpose, and the user should know.
    LeftOut {
        /// What.
        path: TreePath,
        /// Why.
        why: LeftOut,
    },
    /// Something is missing that should be there.
    Problem {
        /// What, or the directory where.
        path: TreePath,
        /// Why.
        fault: WalkFault,
    },
}

/// A walk in progress: an iterator of [`Event`]s.
///
/// Each directory handed out stays open as long as it is referred to, so a caller that queues
/// entries holds descriptors for as many directories as its queue reaches over.
pub struct Walk {
    ahead: Ahead,
    frames: Vec<Frame>,
    path: TreePath,
    /// What comes before the next entry.
    pending: VecDeque<Event>,
    begun: bool,
}

/// A directory entered and not yet left.
struct Frame {
    node: Arc<Node>,
    identity: (u64, u64),
    entries: std::vec::IntoIter<Entry>,
    incomplete: bool,
}

impl Walk {
    /// Prepares a walk from `/` to all `roots` and through what is below them.
    ///
    /// The roots are taken as they are; see [`super::roots::resolve`]. One that is not there when
    /// the walk comes to it is a [`Event::Problem`].
    pub fn new(roots: &[TreePath], options: WalkOptions) -> Self {
        Self::with_limits(roots, options, Limits::default())
    }

    pub(super) fn with_limits(roots: &[TreePath], options: WalkOptions, limits: Limits) -> Self {
        let threads = options.threads;
        Self {
            ahead: Ahead::new(Lister::new(roots, options, limits), threads),
            frames: Vec::new(),
            path: TreePath::root(),
            pending: VecDeque::new(),
            begun: false,
        }
    }

    /// The directory whose entries are coming: after [`Event::Enter`] the one entered, after
    /// [`Event::Leave`] the one around the one left.
    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// Enters `node`, or says why not.
    fn enter(&mut self, node: Arc<Node>) {
        let listing = self.ahead.take(&node);
        if let Some(name) = node.name() {
            self.path.push(name);
        }
        match listing {
            Listing::Open(contents) => {
                let path = &self.path;
                let (name, scope) = (node.name().cloned(), contents.scope);
                let incomplete = contents.batch.fault.is_some();
                self.pending.push_back(Event::Enter { name, stat: contents.stat.clone(), dir: contents.dir, scope });
                let left_out = contents.left_out.map(|why| Event::LeftOut { path: path.clone(), why });
                let problem = contents.batch.fault.map(|fault| Event::Problem { path: path.clone(), fault });
                self.pending.extend(left_out.into_iter().chain(problem));
                self.frames.push(Frame {
                    node,
                    identity: contents.stat.identity(),
                    entries: contents.batch.entries.into_iter(),
                    incomplete,
                });
                // The top is never closed: from there everything can be found again.
                if let Some(far) = self.frames.len().checked_sub(OPEN_LEVELS + 1).filter(|far| *far > 0) {
                    self.frames[far].node.set_dir(None);
                }
                return;
            }
            Listing::Gone => {}
            Listing::Refused(fault) => {
                self.pending.push_back(Event::Problem { path: self.path.clone(), fault });
                if let Some(around) = self.frames.last_mut() {
                    around.incomplete = true;
                }
            }
        }
        self.path.pop();
    }

    /// Leaves the directory the walk is in, and makes sure that the one around it is open.
    fn leave(&mut self, left: Frame) {
        self.pending.push_back(Event::Leave { incomplete: left.incomplete });
        self.path.pop();
        let Some(around) = self.frames.last() else { return };
        if around.node.dir().is_none() {
            match self.reopen(left.node.dir()) {
                Ok(dir) => around.node.set_dir(dir.map(Arc::new)),
                Err(error) => {
                    self.ahead.forget_below(&around.node);
                    let fault = WalkFault::Moved(error);
                    self.pending.push_back(Event::Problem { path: self.path.clone(), fault });
                    let around = self.frames.last_mut().expect("it was there");
                    around.entries = Vec::new().into_iter();
                    around.incomplete = true;
                }
            }
        }
        left.node.set_dir(None);
    }

    /// Opens the directory of the last frame again, from `below` it or from the top; the latter,
    /// which costs its depth, only if there is something left to do in it.
    fn reopen(&self, below: Option<Arc<Dir>>) -> io::Result<Option<Dir>> {
        let wanted = |frame: &Frame, dir: Dir| match dir.stat()?.identity() {
            identity if identity == frame.identity => Ok(dir),
            _ => Err(io::Error::other("another directory is in its place")),
        };
        let last = self.frames.last().expect("the caller has a frame");
        if let Some(dir) = below.and_then(|below| below.open_parent(Access::Pass).ok())
            && let Ok(dir) = wanted(last, dir)
        {
            return Ok(Some(dir));
        }
        if last.entries.as_slice().is_empty() && !self.ahead.has_rest(&last.node) {
            return Ok(None);
        }
        let mut dir = Dir::open_top(Access::Pass)?;
        for frame in &self.frames {
            if let Some(name) = frame.node.name() {
                dir = wanted(frame, dir.open_child(name, Access::Pass)?)?;
            }
        }
        Ok(Some(dir))
    }

    /// Goes on with the next entry of the directory the walk is in, or leaves it.
    fn advance(&mut self) {
        let Some(frame) = self.frames.last_mut() else { return };
        if let Some(entry) = frame.entries.next() {
            return self.visit(entry);
        }
        // It is closed when the walk came back to it and nothing was left.
        match frame.node.dir().and_then(|dir| self.ahead.take_batch(&frame.node, &dir)) {
            Some(batch) => {
                frame.entries = batch.entries.into_iter();
                if let Some(fault) = batch.fault {
                    frame.incomplete = true;
                    self.pending.push_back(Event::Problem { path: self.path.clone(), fault });
                }
            }
            None => {
                if let Some(left) = self.frames.pop() {
                    self.leave(left);
                }
            }
        }
    }

    fn visit(&mut self, entry: Entry) {
        let Entry { name, found } = entry;
        let frame = self.frames.last_mut().expect("an entry is in a directory");
        let dir = frame.node.dir().expect("the directory the walk is in is open");
        match found {
            Found::Item(stat) => self.pending.push_back(Event::Item { name, stat, dir }),
            Found::Directory(node) => self.enter(node),
            Found::LeftOut(why) => self.pending.push_back(Event::LeftOut { path: self.path.join(&name), why }),
            Found::Failed(fault) => {
                frame.incomplete = true;
                self.pending.push_back(Event::Problem { path: self.path.join(&name), fault });
            }
        }
    }
}

impl Iterator for Walk {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if !self.begun {
                self.begun = true;
                self.enter(Node::top());
            } else if self.frames.is_empty() {
                return None;
            } else {
                self.advance();
            }
        }
    }
}

#[cfg(test)]
mod tests;
