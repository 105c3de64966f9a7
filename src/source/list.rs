//! Listing one directory: open it, read its names, look at each, decide what is left out.
//!
//! A directory of many entries is looked at in batches, the first with the listing. Each is done by
//! whoever comes first, a thread ahead of the walk or the walk itself; the result is the same, so
//! nothing here may depend on what was listed before.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io::Errno;

use super::dir::{Access, Dir, is_pseudo};
use super::names::{self, Names, NamesWriter};
use super::node::{Node, Place};
use super::roots::{Route, ends_with};
use super::stat::{Kind, Stat};
use super::walk::{LeftOut, Scope, WalkFault, WalkOptions};
use crate::path::{Name, TreePath};

/// How many entries are looked at in one go: of more than these only the names are in memory.
pub(super) const BATCH_ENTRIES: usize = 4096;

/// What came of listing a directory.
#[derive(Debug)]
pub(super) enum Listing {
    /// It was removed since its parent was listed.
    Gone,
    /// It could not even be opened to pass.
    Refused(WalkFault),
    /// It is open, in its node.
    Open(Box<Contents>),
}

#[derive(Debug)]
pub(super) struct Contents {
    pub(super) dir: Arc<Dir>,
    pub(super) stat: Stat,
    pub(super) scope: Scope,
    /// The first of its entries.
    pub(super) batch: Batch,
    /// The names of the others.
    pub(super) rest: Names,
    /// Why there are no entries, or few, on purpose.
    pub(super) left_out: Option<LeftOut>,
}

/// Entries of a directory that follow each other in order of name.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    /// Why entries of the directory may be missing.
    pub(super) fault: Option<WalkFault>,
}

impl Listing {
    /// The names of what was not looked at yet.
    pub(super) fn take_rest(&mut self) -> Names {
        if let Self::Open(contents) = self { std::mem::take(&mut contents.rest) } else { Names::default() }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        if let Self::Open(contents) = self { &contents.batch.entries } else { &[] }
    }

    /// Whether this failed for want of descriptors, which the walk itself may get later.
    pub(super) fn lacks_descriptors(&self) -> bool {
        let lacking = |fault: &WalkFault| match fault {
            WalkFault::List(error) | WalkFault::Look(error) => {
                matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
            }
            _ => false,
        };
        match self {
            Self::Refused(fault) => lacking(fault),
            Self::Open(contents) => contents.batch.fault.as_ref().is_some_and(lacking),
            Self::Gone => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) found: Found,
}

#[derive(Debug)]
pub(super) enum Found {
    Item(Stat),
    Directory(Arc<Node>),
    LeftOut(LeftOut),
    Failed(WalkFault),
}

/// An open directory and the file system it is on.
pub(super) struct At<'a> {
    pub(super) dir: &'a Dir,
    pub(super) dev: u64,
}

/// Lists directories under one set of options.
pub(super) struct Lister {
    route: Route,
    options: WalkOptions,
    /// Identities of what is always left out.
    forbidden: HashSet<(u64, u64)>,
    limits: Limits,
}

/// How much there may be in memory of one directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Entries looked at in one go.
    pub(super) batch_entries: usize,
    /// Memory for names before they are spilled.
    pub(super) names_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch_entries: BATCH_ENTRIES, names_bytes: names::RUN_BYTES }
    }
}

impl Lister {
    pub(super) fn new(roots: &[TreePath], options: WalkOptions, limits: Limits) -> Self {
        let forbidden = options.leave_out.iter().filter_map(identity).collect();
        Self { route: Route::new(roots), options, forbidden, limits }
    }

    fn is_root(&self, place: Place) -> bool {
        place.stop.is_some_and(|stop| self.route.is_chosen(stop))
    }

    fn scope(&self, place: Place) -> Scope {
        if place.below_root || self.is_root(place) { Scope::Whole } else { Scope::OnTheWay }
    }

    /// Opens and lists `node`; `around` is the directory it is in, `None` for the top. A true
    /// `stop` ends it soon, with a listing nobody may use.
    pub(super) fn list(&self, node: &Arc<Node>, around: Option<&Dir>, stop: &dyn Fn() -> bool) -> Listing {
        match self.open(node, around) {
            Ok(mut contents) => {
                node.set_dir(Some(contents.dir.clone()));
                self.fill(node, &mut contents, stop);
                Listing::Open(Box::new(contents))
            }
            Err(WalkFault::List(error)) if is_gone(&error) && node.place.stop.is_none() => Listing::Gone,
            Err(fault) => Listing::Refused(fault),
        }
    }

    /// Looks at these entries of `node`, which was listed and is open as `dir`. A true `stop` ends it soon.
    pub(super) fn look(&self, node: &Arc<Node>, dir: &Dir, names: Vec<Name>, stop: &dyn Fn() -> bool) -> Batch {
        match dir.stat() {
            Ok(stat) => Batch { entries: self.entries(node, &At { dir, dev: stat.dev }, names, stop), fault: None },
            Err(error) => Batch { entries: Vec::new(), fault: Some(WalkFault::Look(error)) },
        }
    }

    /// Takes the names of the next batch from the rest of a directory.
    pub(super) fn next_names(&self, rest: &mut Names) -> (Vec<Name>, Option<WalkFault>) {
        let (names, error) = rest.take(self.limits.batch_entries);
        (names, error.map(WalkFault::List))
    }

    fn entries(&self, node: &Arc<Node>, at: &At<'_>, names: Vec<Name>, stop: &dyn Fn() -> bool) -> Vec<Entry> {
        let mut path = if self.wants_paths() { node.path() } else { TreePath::root() };
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            path.push(&name);
            let found = self.examine(node, at, self.place_in(node.place, &name), &name, &path);
            path.pop();
            entries.extend(found.map(|found| Entry { name, found }));
            if stop() {
                break;
            }
        }
        entries
    }

    /// Opens `node` as far as it is wanted and allowed.
    fn open(&self, node: &Arc<Node>, around: Option<&Dir>) -> Result<Contents, WalkFault> {
        let open = |access| match (around, node.name()) {
            (Some(around), Some(name)) => around.open_child(name, access),
            _ => Dir::open_top(access),
        };
        let contents = |dir: Dir, scope, fault, left_out| {
            let stat = dir.stat().map_err(WalkFault::Look)?;
            let batch = Batch { fault, ..Batch::default() };
            Ok(Contents { dir: Arc::new(dir), stat, scope, batch, rest: Names::default(), left_out })
        };
        let scope = self.scope(node.place);
        if scope == Scope::OnTheWay {
            return contents(open(Access::Pass).map_err(WalkFault::List)?, scope, None, None);
        }
        if node.dev != node.dev_around {
            // A mount: nothing of it is opened for reading before it is known to be wanted.
            let dir = open(Access::Pass).map_err(WalkFault::List)?;
            if let Some(why) = self.bar(node.place, &dir) {
                return contents(dir, Scope::OnTheWay, None, Some(why));
            }
        }
        let dir = match open(Access::Read) {
            Ok(dir) => dir,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(WalkFault::List(error)),
                // It may still be opened to pass: what it is itself is kept.
                _ => match open(Access::Pass) {
                    Ok(dir) => return contents(dir, scope, Some(WalkFault::List(error)), None),
                    Err(_) => return Err(WalkFault::List(error)),
                },
            },
        };
        let contents = contents(dir, scope, None, None)?;
        if contents.stat.dev != node.dev
            && let Some(why) = self.bar(node.place, &contents.dir)
        {
            // Opening it mounted something.
            return Ok(Contents { scope: Scope::OnTheWay, left_out: Some(why), ..contents });
        }
        Ok(contents)
    }

    /// Finds the entries of a directory that [`Lister::open`] opened.
    fn fill(&self, node: &Arc<Node>, contents: &mut Contents, stop: &dyn Fn() -> bool) {
        let dir = contents.dir.clone();
        let at = At { dir: &dir, dev: contents.stat.dev };
        if contents.scope == Scope::OnTheWay {
            let Some(stop_id) = node.place.stop else { return };
            let mut path = node.path();
            for (name, next) in self.route.next(stop_id) {
                path.push(name);
                let place = Place { stop: Some(next), below_root: false };
                let found = self.examine(node, &at, place, name, &path);
                path.pop();
                contents.batch.entries.extend(found.map(|found| Entry { name: name.clone(), found }));
            }
            return;
        }
        if contents.batch.fault.is_some() {
            return;
        }
        let (mut names, fault) = self.names(contents, stop);
        let (first, late) = self.next_names(&mut names);
        contents.batch = Batch { entries: self.entries(node, &at, first, stop), fault: fault.or(late) };
        contents.rest = names;
    }

    /// All names in order; on failure those read before it. Of a directory with a tag, only that.
    fn names(&self, contents: &mut Contents, stop: &dyn Fn() -> bool) -> (Names, Option<WalkFault>) {
        let dir = contents.dir.clone();
        let mut names = NamesWriter::new(&self.options.spill, self.limits.names_bytes);
        let mut fault = None;
        let mut tags = Vec::new();
        let mut buffer = Vec::with_capacity(64 << 10);
        let mut raw = RawDir::new(&*dir, buffer.spare_capacity_mut());
        while let Some(entry) = raw.next() {
            match entry {
                Ok(entry) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => match Name::new(name) {
                        Ok(name) => {
                            tags.extend(self.options.tags.iter().filter(|tag| *tag.name() == name));
                            if let Err(error) = names.push(name) {
                                return (Names::default(), Some(WalkFault::List(error)));
                            }
                        }
                        Err(error) => fault = Some(WalkFault::Name(error)),
                    },
                },
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    fault = Some(WalkFault::List(errno.into()));
                    break;
                }
            }
            if stop() {
                break;
            }
        }
        if let Some(tag) = tags.into_iter().find(|tag| tag.is_on(&dir)) {
            contents.left_out = Some(LeftOut::Tagged);
            return (Names::one(tag.name().clone()), fault);
        }
        match names.finish() {
            Ok(names) => (names, fault),
            Err(error) => (Names::default(), Some(WalkFault::List(error))),
        }
    }

    /// Looks at one entry, unless its name alone says that it is left out: not even looking at
    /// an excluded mount keeps a dead server from hanging the backup.
    fn examine(&self, node: &Arc<Node>, at: &At<'_>, place: Place, name: &Name, path: &TreePath) -> Option<Found> {
        let is_root = self.is_root(place);
        let on_the_way = self.scope(place) == Scope::OnTheWay;
        if !on_the_way && self.options.exclude.matches(path) {
            return is_root.then_some(Found::LeftOut(LeftOut::Excluded));
        }
        if self.options.leave_out.iter().any(|out| ends_with(out, name.as_os()) && node.path().join(name) == *out) {
            return Some(Found::LeftOut(LeftOut::Always));
        }
        let stat = match Stat::at(at.dir, name) {
            Ok(stat) => stat,
            Err(error) if is_gone(&error) && place.stop.is_none() => return None,
            Err(error) => return Some(Found::Failed(WalkFault::Look(error))),
        };
        if self.forbidden.contains(&stat.identity()) {
            return Some(Found::LeftOut(LeftOut::Always));
        }
        if !on_the_way && self.options.filter.as_ref().is_some_and(|keep| !keep(path, &stat)) {
            return is_root.then_some(Found::LeftOut(LeftOut::Excluded));
        }
        if stat.kind == Kind::Directory {
            return Some(Found::Directory(Node::child(node, name, place, at.dev, stat.dev)));
        }
        if on_the_way {
            return Some(Found::Failed(WalkFault::Look(Errno::NOTDIR.into())));
        }
        // Single files can be mounted too; namespaces are.
        if stat.dev != at.dev && !is_root && stat.kind == Kind::File {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if openat(at.dir, name.as_os(), flags, Mode::empty()).is_ok_and(is_pseudo) {
                return Some(Found::LeftOut(LeftOut::PseudoFileSystem));
            }
        }
        Some(Found::Item(stat))
    }

    /// Why what lies in a directory on another file system than the directory around it is left
    /// out, if it is.
    fn bar(&self, place: Place, dir: &Dir) -> Option<LeftOut> {
        if self.is_root(place) {
            None
        } else if is_pseudo(dir) {
            Some(LeftOut::PseudoFileSystem)
        } else if self.options.one_file_system {
            Some(LeftOut::OtherFileSystem)
        } else {
            None
        }
    }

    /// The place of `name` in a directory that is a root or below one.
    fn place_in(&self, around: Place, name: &Name) -> Place {
        Place { stop: around.stop.and_then(|stop| self.route.child(stop, name)), below_root: true }
    }

    fn wants_paths(&self) -> bool {
        !self.options.exclude.is_empty() || self.options.filter.is_some()
    }
}

fn is_gone(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NOENT)
}

fn identity(path: &TreePath) -> Option<(u64, u64)> {
    let fd = openat(CWD, path.to_os(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    Some(Stat::of(fd).ok()?.identity())
}
