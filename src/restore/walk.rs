//! Through the snapshot in tree order, a window at a time.
//!
//! While the [`Engine`] restores one window on threads of its own, the walk gathers the next, so two
//! are in memory. The first is small, to have something to do soon; each after it is twice as large,
//! since the more is in a window, the fewer frames are opened for more than one.
//!
//! The walk has a stack of its own, so depth costs a few hundred bytes a level; far above the
//! current directory only the place to go on from is kept, and its node read again on the way back.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::attributes::Owners;
use super::engine::{Engine, Link, Window};
use super::extra::{self, Removal};
use super::file::{Existing, File, Files, LinkSource, made_or_replaced};
use super::links::Links;
use super::special;
use super::tally::{Report, Tally, count};
use super::target::{DEPTH_MAX, Dir, Made, Target, file_type, look};
use super::{Change, Options, Overwrite, Selection};
use crate::error::Result;
use crate::format::tree::{Attributes, Content, Detail, Entry, Totals};
use crate::id::{ChunkId, LinkGroup};
use crate::monitor::{Monitor, Severity};
use crate::path::{Name, TreePath};
use crate::repo::reader::{Entries, ReadRepo, find};
use crate::repo::walk::more_than_said;

/// Entries in the first window, and in the largest.
const FIRST_WINDOW_ENTRIES: usize = 1000;
const WINDOW_ENTRIES_MAX: usize = 100_000;
/// About how many bytes of memory the entries of a window take.
const WINDOW_BYTES_MAX: usize = 32 << 20;

/// Levels whose nodes stay in memory.
const LEVELS_HELD: usize = 64;

pub(super) fn run<R: ReadRepo>(
    repo: &R,
    root: &Entry,
    base: &TreePath,
    options: &Options<'_>,
    monitor: &Monitor,
) -> Result<Report> {
    let top = find(repo, root, base)?;
    let mut base = base.clone();
    let single = if matches!(top.detail, Detail::Directory { .. }) {
        None
    } else {
        base.pop();
        Some(top.clone())
    };
    let Totals { files, directories, bytes } = top.totals();
    monitor.counters().files_total.store(files.saturating_add(directories), std::sync::atomic::Ordering::Relaxed);
    monitor.counters().bytes_total.store(bytes, std::sync::atomic::Ordering::Relaxed);

    let exists = !options.dry_run || options.target.is_dir();
    let target = if exists { Some(Target::open(&options.target, base.clone())?) } else { None };
    // A dry run into a directory that is not there looks at nothing and needs any directory.
    let target = match target {
        Some(target) => target,
        None => Target::open(std::path::Path::new("/"), base.clone())?,
    };
    if options.filter.is_none() {
        target.refuse_too_many(directories)?;
    }
    let owners = Owners::new(options.numeric_ids, options.privileged);
    let tally = Tally::new(monitor, options.observer);
    let top_is_ours = !base.is_root() && single.is_none() && (!exists || takes_attributes(&target, &base, options));
    let engine = Engine::new(repo, Files::new(&target, &owners, &tally), options);
    std::thread::scope(|scope| {
        // Whoever gathers a window waits with it until the one before is restored.
        let (hand_over, windows) = sync_channel(0);
        scope.spawn(|| windows.into_iter().for_each(|window| engine.run(window)));
        let mut walk = Walk {
            engine: &engine,
            hand_over,
            window: Window::default(),
            window_bytes: 0,
            window_entries_max: FIRST_WINDOW_ENTRIES,
            next_file: 0,
            links: Links::new(&options.spill),
            absent_links: HashSet::new(),
            removal: Removal::new(&target, &tally, options),
            path: base,
            stack: Vec::new(),
            left: top.entries_below(),
        };
        let place = if exists { Place::Made(Arc::clone(target.top())) } else { Place::Absent };
        match single {
            Some(entry) => walk.lone(entry, place),
            None => walk.all(top, place, top_is_ours),
        }
        walk.flush();
    });
    if exists && !options.dry_run {
        target.sync()?;
    }
    let stopped = tally.stopped();
    let report = tally.finish();
    stopped.map_or(Ok(report), Err)
}

/// Whether the target directory is the snapshot's directory, rather than one that merely takes
/// its contents (`/tmp` must not get another mode): when it was made for it, was empty, or is at
/// the same path.
fn takes_attributes(target: &Target, base: &TreePath, options: &Options<'_>) -> bool {
    let empty = || target.fd(target.top()).and_then(|fd| extra::names_in(&fd)).is_ok_and(|names| names.is_empty());
    target.top().fresh || options.target == base.to_os() || empty()
}

/// Where a directory of the snapshot stands in the target.
#[derive(Clone)]
enum Place {
    Made(Arc<Dir>),
    /// To be made if something below it is restored.
    Wanted,
    /// Not there, and not made because nothing is (dry run).
    Absent,
    /// Something in its place could not be removed; said so already.
    Barred,
}

/// A directory of the snapshot being walked.
struct Level<'r, R> {
    /// `None` while it is far above: to be taken up again after `last`.
    entries: Option<Entries<'r, R>>,
    id: ChunkId,
    level: u64,
    last: Option<Name>,
    /// `None` for the top.
    name: Option<Name>,
    attributes: Attributes,
    /// Whether the attributes are to be set.
    ours: bool,
    /// Whether it was asked for itself: not only what lies below it, and not above all roots. Else
    /// a directory that is there already stays as it is.
    asked: bool,
    place: Place,
    /// Whether it is certain what the snapshot has in it.
    whole: bool,
}

struct Walk<'a, R> {
    engine: &'a Engine<'a, R>,
    hand_over: SyncSender<Window>,
    window: Window,
    window_bytes: usize,
    window_entries_max: usize,
    next_file: u64,
    /// The first restored name of each group of hard links.
    links: Links,
    /// Those of which a dry run would make the first name in a directory that is not there.
    absent_links: HashSet<LinkGroup>,
    removal: Removal<'a>,
    path: TreePath,
    stack: Vec<Level<'a, R>>,
    /// How many more entries the snapshot says it has.
    left: u64,
}

impl<'a, R: ReadRepo> Walk<'a, R> {
    fn options(&self) -> &'a Options<'a> {
        self.engine.options
    }

    fn tally(&self) -> &'a Tally<'a> {
        self.engine.files.tally
    }

    fn target(&self) -> &'a Target {
        self.engine.files.target
    }

    fn push(&mut self, entry: Entry, place: Place, ours: bool, asked: bool) {
        let Detail::Directory { id, level, incomplete, .. } = entry.detail else {
            unreachable!("only directories are entered");
        };
        if let Some(above) = self.stack.len().checked_sub(LEVELS_HELD) {
            self.stack[above].entries = None;
        }
        self.stack.push(Level {
            entries: Some(Entries::new(self.engine.repo, id, level)),
            id,
            level,
            last: None,
            name: entry.name,
            attributes: entry.attributes,
            ours,
            asked,
            place,
            whole: !incomplete,
        });
    }

    fn all(&mut self, top: Entry, place: Place, ours: bool) {
        self.push(top, place, ours, ours);
        while let Some(level) = self.stack.last_mut() {
            if self.engine.files.tally.stopping() {
                return;
            }
            let repo = self.engine.repo;
            let (id, height, last) = (level.id, level.level, &level.last);
            let entries = level.entries.get_or_insert_with(|| match last {
                Some(last) => Entries::after(repo, id, height, last.clone()),
                None => Entries::new(repo, id, height),
            });
            match entries.next() {
                Some(Ok(_)) if self.left == 0 => return self.end(),
                Some(Ok(entry)) => {
                    self.left -= 1;
                    level.last.clone_from(&entry.name);
                    self.entry(entry);
                }
                Some(Err(error)) => {
                    level.whole = false;
                    self.tally().not_read(&self.path, &error);
                }
                None => self.leave(),
            }
            if self.window.files.len() + self.window.links.len() + self.window.left.len() >= self.window_entries_max
                || self.window_bytes >= WINDOW_BYTES_MAX
            {
                self.flush();
            }
        }
    }

    /// Leaves all directories, since the rest is not to be believed.
    fn end(&mut self) {
        self.tally().problem(&self.path, format!("not restored: {}", more_than_said(&self.path)));
        self.stack.iter_mut().for_each(|level| level.whole = false);
        while !self.stack.is_empty() {
            self.leave();
        }
    }

    /// Restores a single entry that is no directory.
    fn lone(&mut self, entry: Entry, place: Place) {
        let name = entry.name.clone();
        let dir = Level {
            entries: None,
            id: ChunkId::from_bytes([0; 32]),
            level: 0,
            last: None,
            name: None,
            attributes: Attributes::default(),
            ours: false,
            asked: false,
            place,
            whole: false,
        };
        self.stack.push(dir);
        if name.is_some() {
            self.entry(entry);
        }
        self.stack.pop();
    }

    /// Hands the window over to be restored.
    fn flush(&mut self) {
        self.window_bytes = 0;
        self.window_entries_max = (2 * self.window_entries_max).min(WINDOW_ENTRIES_MAX);
        // Nobody takes it when the engine has panicked, which ends the restore.
        let _ = self.hand_over.send(std::mem::take(&mut self.window));
        if self.links.is_full() {
            // Another window is taken once this one is restored, and with it every first name.
            let _ = self.hand_over.send(Window::default());
            self.links.settle();
        }
    }

    fn entry(&mut self, entry: Entry) {
        let Some(name) = entry.name.clone() else { return };
        self.path.push(&name);
        let directory = matches!(entry.detail, Detail::Directory { .. });
        let selection = self.options().filter.map_or(Selection::Take, |filter| filter(&self.path, directory));
        let entered = match (selection, directory) {
            (Selection::Skip, _) | (Selection::Look, false) => false,
            _ if entry.is_device() && !self.options().devices => false,
            (_, true) => self.directory(entry, selection),
            (_, false) => {
                self.other(entry, name);
                false
            }
        };
        if !entered {
            self.path.pop();
        }
    }

    /// Whether the walk goes on below the directory.
    fn directory(&mut self, entry: Entry, selection: Selection) -> bool {
        if self.stack.len() >= DEPTH_MAX {
            self.tally().problem(&self.path, format!("not restored: it lies more than {DEPTH_MAX} directories deep"));
            return false;
        }
        let asked = selection == Selection::Take && self.is_below_root();
        self.push(entry, Place::Wanted, true, asked);
        if selection == Selection::Take && !matches!(self.place(), Place::Made(_) | Place::Absent) {
            self.stack.pop();
            return false;
        }
        true
    }

    /// The place of the current directory, made now if it is not there yet, with those above it.
    fn place(&mut self) -> Place {
        let settled = |place: &Place| !matches!(place, Place::Wanted);
        let from = self.stack.iter().rposition(|level| settled(&level.place)).expect("the target is there or absent");
        for ordinal in from + 1..self.stack.len() {
            let place = match self.stack[ordinal - 1].place.clone() {
                Place::Made(parent) => self.make(ordinal, &parent),
                Place::Absent => {
                    self.tally().changed(Change::Made, || {
                        let mut path = self.path.clone();
                        (ordinal + 1..self.stack.len()).for_each(|_| path.pop());
                        path
                    });
                    Place::Absent
                }
                other => other,
            };
            self.stack[ordinal].place = place;
        }
        self.stack.last().expect("the target is never left").place.clone()
    }

    fn make(&mut self, ordinal: usize, parent: &Arc<Dir>) -> Place {
        let (options, target) = (self.options(), self.target());
        let name = self.stack[ordinal].name.clone().expect("only the top has no name");
        let path = || parent.path_of(&name);
        let mut how = Change::Made;
        let made = if options.dry_run {
            match target.enter_dir(parent, &name) {
                Err(Errno::NOENT) => {
                    self.tally().changed(how, path);
                    return Place::Absent;
                }
                entered => entered.map(|dir| (dir, Made::Existing)),
            }
        } else {
            target.make_dir(parent, &name)
        };
        let made = match made {
            Err(why @ (Errno::NOTDIR | Errno::LOOP)) => match self.clear(parent, &name) {
                Ok(()) => {
                    how = Change::Replaced;
                    if options.dry_run {
                        self.tally().changed(how, path);
                        return Place::Absent;
                    }
                    target.make_dir(parent, &name)
                }
                Err(Some(message)) => {
                    self.tally().problem(&path(), message);
                    return Place::Barred;
                }
                Err(None) => Err(why),
            },
            made => made,
        };
        match made {
            Ok((dir, made)) => {
                let level = &mut self.stack[ordinal];
                level.ours = made == Made::New || (level.asked && options.overwrite != Overwrite::Never);
                if level.ours && made == Made::New {
                    self.engine.files.tally.changed(how, path);
                } else if level.ours {
                    let stat = target.fd(&dir).and_then(|fd| rustix::fs::fstat(&*fd));
                    let change = stat.map(|stat| Existing::of(&stat).adjusted_to(&level.attributes));
                    self.engine.files.tally.changed(change.unwrap_or(Change::Adjusted), path);
                }
                Place::Made(dir)
            }
            Err(why) => {
                self.tally().refused(&path(), "the directory and what is below it were not restored", why);
                Place::Barred
            }
        }
    }

    /// Removes what stands where a directory belongs. A symbolic link stays: whoever put it there
    /// may mean the restore to go elsewhere, which it must not, or may need it.
    fn clear(&self, parent: &Arc<Dir>, name: &Name) -> Result<(), Option<String>> {
        let fd = self.target().fd(parent).map_err(|_| None)?;
        let Some(stat) = look(&fd, name).map_err(|_| None)? else { return Ok(()) };
        if file_type(&stat) == FileType::Symlink {
            let message = "the directory and what is below it were not restored: a symbolic link is in its place";
            return Err(Some(message.to_owned()));
        }
        if self.options().overwrite == Overwrite::Never {
            return Err(Some("the directory was not restored: a file is in its place".to_owned()));
        }
        if !self.options().dry_run {
            rustix::fs::unlinkat(&*fd, name.as_os(), AtFlags::empty()).map_err(|_| None)?;
        }
        Ok(())
    }

    /// Goes up from a directory whose entries have all been seen.
    fn leave(&mut self) {
        let Some(level) = self.stack.pop() else { return };
        match level.place {
            Place::Made(dir) => {
                if self.options().delete && !dir.fresh {
                    self.delete_extra(&dir, level.id, level.level, level.whole);
                }
                if level.ours && self.options().dry_run {
                    count(&self.tally().counts.directories, 1);
                } else if level.ours {
                    self.window_bytes += memory(&level.attributes);
                    self.window.left.push((dir, level.attributes));
                }
            }
            Place::Absent if level.ours => count(&self.tally().counts.directories, 1),
            Place::Absent | Place::Wanted | Place::Barred => {}
        }
        if !self.stack.is_empty() {
            self.path.pop();
        }
    }

    fn delete_extra(&self, dir: &Arc<Dir>, id: ChunkId, level: u64, whole: bool) {
        let (target, tally) = (self.target(), self.tally());
        // What only leads to the roots was never asked for: `/home` is in a snapshot of
        // `/home/ada`, but nobody else's home is, and all of them would go.
        if !self.is_below_root() {
            return;
        }
        if !whole {
            let message = "nothing was deleted in it: the snapshot does not say all that was there";
            return tally.monitor.problem(Severity::Warning, self.path.to_string(), message);
        }
        let names = match target.fd(dir).and_then(|fd| extra::names_in(&fd)) {
            Ok(names) => names,
            Err(why) => return tally.refused(&self.path, "nothing was deleted in it", why),
        };
        let mut wanted = Entries::new(self.engine.repo, id, level);
        let mut next = None;
        if self.is_mount(dir) && Entries::new(self.engine.repo, id, level).next().is_none() {
            let message = "nothing was deleted in it: a file system is mounted there that was not backed up";
            return tally.monitor.problem(Severity::Note, self.path.to_string(), message);
        }
        for name in names {
            while next.as_ref().is_none_or(|next| *next < name) {
                match wanted.next() {
                    Some(Ok(entry)) => next = entry.name,
                    Some(Err(error)) => {
                        return tally
                            .problem(&self.path, format!("nothing more was deleted in it: {}", error.with_causes()));
                    }
                    None => break,
                }
            }
            if next.as_ref() == Some(&name) || target.is_temporary(&name) || tally.stopping() {
                continue;
            }
            self.removal.remove(dir, &name, &self.path.join(&name));
        }
    }

    /// Whether the current path was backed up with all that is in it.
    fn is_below_root(&self) -> bool {
        self.options().roots.iter().any(|root| self.path.starts_with(root))
    }

    /// Whether another file system begins at `dir`, which was just left.
    fn is_mount(&self, dir: &Arc<Dir>) -> bool {
        let device = |dir: &Arc<Dir>| self.target().fd(dir).and_then(|fd| rustix::fs::fstat(&*fd)).map(|s| s.st_dev);
        let around = self.stack.last().and_then(|level| match &level.place {
            Place::Made(around) => Some(around),
            _ => None,
        });
        around.is_some_and(|around| match (device(around), device(dir)) {
            (Ok(around), Ok(own)) => around != own,
            _ => true,
        })
    }

    /// Takes a file, link, fifo or device into the window, or makes it at once.
    fn other(&mut self, mut entry: Entry, name: Name) {
        entry.attributes.link_group = entry.linked_file();
        let dir = match self.place() {
            Place::Made(dir) => dir,
            Place::Absent => {
                self.count_absent(&entry);
                return;
            }
            Place::Wanted | Place::Barred => return,
        };
        let existing = match self.existing(&dir, &name, &entry) {
            Ok(existing) => existing,
            Err(Kept::Skipped) => {
                count(&self.tally().counts.skipped, 1);
                self.tally().changed(Change::Skipped, || self.path.clone());
                self.tally().monitor.done(1, entry.size());
                return;
            }
            Err(Kept::Refused(why)) => return self.tally().refused(&self.path, "not restored", why),
        };
        if entry.attributes.link_group.is_some_and(|group| self.absent_links.contains(&group)) {
            count(&self.tally().counts.hard_links, 1);
            self.tally().changed(made_or_replaced(existing.as_ref()), || self.path.clone());
            return;
        }
        let mut group = entry.attributes.link_group;
        let target = self.target();
        let first = match group.map_or(Ok(None), |group| self.links.get(&group, target)) {
            Ok(first) => first,
            Err(why) => {
                // It is restored for itself, as where there are no hard links.
                self.tally().unset("hard links", || self.path.clone(), why);
                group = None;
                None
            }
        };
        self.window_bytes += memory(&entry.attributes) + name.as_bytes().len();
        let Entry { attributes, detail, .. } = entry;
        let Some(source) = first else {
            let link = group.map(|group| {
                let source = LinkSource { dir: Arc::clone(&dir), name: name.clone(), inode: Mutex::new(None) };
                let source = Arc::new(source);
                self.links.insert(group, Arc::clone(&source));
                source
            });
            match detail {
                Detail::File { size, content, holes } => {
                    let file = self.file(dir, name, attributes, (size, content, holes), link, existing);
                    self.window.files.push(file);
                }
                _ => {
                    let make = if self.options().dry_run { special::rehearse } else { special::restore };
                    make(&self.engine.files, (&dir, &name), &attributes, &detail, existing, link.as_deref());
                }
            }
            return;
        };
        let alone = match detail {
            Detail::File { size, content, holes } => {
                let (dir, name) = (Arc::clone(&dir), name.clone());
                Some(Box::new(self.file(dir, name, attributes, (size, content, holes), None, existing)))
            }
            _ => None,
        };
        self.window.links.push(Link { source, dir, name, existing, alone });
    }

    fn file(
        &mut self,
        dir: Arc<Dir>,
        name: Name,
        attributes: Attributes,
        (size, content, holes): (u64, Content, Vec<crate::format::tree::Hole>),
        link: Option<Arc<LinkSource>>,
        existing: Option<Existing>,
    ) -> File {
        let pieces = if let Content::Inline(pieces) = &content { pieces.len() } else { 0 };
        self.window_bytes += 48 * pieces + 16 * holes.len();
        self.next_file += 1;
        File::new(self.next_file, (dir, name), attributes, (size, content, holes), link, existing)
    }

    /// What stands where the entry belongs, if it is to be replaced.
    fn existing(&self, dir: &Arc<Dir>, name: &Name, entry: &Entry) -> Result<Option<Existing>, Kept> {
        if dir.fresh {
            return Ok(None);
        }
        let fd = self.target().fd(dir).map_err(Kept::Refused)?;
        let Some(stat) = look(&fd, name).map_err(Kept::Refused)? else { return Ok(None) };
        let existing = Existing::of(&stat);
        let time = (entry.attributes.mtime.secs, u64::from(entry.attributes.mtime.nanos));
        match self.options().overwrite {
            Overwrite::Never => return Err(Kept::Skipped),
            Overwrite::IfNewer if time <= existing.mtime => return Err(Kept::Skipped),
            _ => {}
        }
        if file_type(&stat) == FileType::Directory {
            self.clear_directory(dir, &fd, name).map_err(Kept::Refused)?;
        }
        Ok(Some(existing))
    }

    /// Removes a directory that stands where something else belongs. Only an empty one gives way,
    /// unless what the snapshot does not have is to be deleted anyway.
    fn clear_directory(&self, dir: &Arc<Dir>, fd: &OwnedFd, name: &Name) -> Result<(), Errno> {
        if self.options().delete {
            let gone = self.removal.remove(dir, name, &self.path);
            return if gone { Ok(()) } else { Err(Errno::NOTEMPTY) };
        }
        if self.options().dry_run {
            let inside = self.target().enter_dir(dir, name)?;
            let empty = extra::names_in(&*self.target().fd(&inside)?)?.is_empty();
            return if empty { Ok(()) } else { Err(Errno::NOTEMPTY) };
        }
        rustix::fs::unlinkat(fd, name.as_os(), AtFlags::REMOVEDIR)
    }

    /// Counts what a restore into a directory that is not there would do.
    fn count_absent(&mut self, entry: &Entry) {
        let counts = &self.engine.files.tally.counts;
        self.tally().changed(Change::Made, || self.path.clone());
        if let Some(group) = entry.attributes.link_group
            && (self.links.contains(&group) || !self.absent_links.insert(group))
        {
            return count(&counts.hard_links, 1);
        }
        match &entry.detail {
            Detail::File { size, .. } => {
                count(&counts.files, 1);
                count(&counts.bytes_restored, *size);
            }
            _ => count(&counts.others, 1),
        }
    }
}

/// Why what stands in an entry's place stays there.
enum Kept {
    /// `overwrite` says so.
    Skipped,
    /// It cannot be looked at or removed.
    Refused(Errno),
}

/// About how much memory attributes take.
fn memory(attributes: &Attributes) -> usize {
    let xattrs: usize = attributes.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 64).sum();
    400 + xattrs
}
