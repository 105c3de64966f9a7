//! What requests are answered with.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, select};
use fuser::{FileAttr, FileType, INodeNo};
use rustix::io::Errno;

use super::bytes::Chunks;
use super::door::{FOR_EVER, Job};
use super::inodes::{Inodes, Node, TOP, What, identity_in, number};
use super::layout::{Group, View};
use super::windows::{Directory, Windows};
use super::{Options, Top};
use crate::error::{Error, Result as EngineResult};
use crate::format::tree::{Detail, Entry, Hole};
use crate::monitor::{Monitor, Severity};
use crate::path::Name;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::snapshots::{Filter, Unreadable};
use crate::world::Time;

/// How long the kernel may believe the list of snapshots.
const FOR_NOW: Duration = Duration::from_secs(1);
/// Faults that are told; after so many they repeat themselves.
const TOLD_MAX: usize = 1000;
const BLOCK_BYTES: u64 = 512;

type Result<T> = std::result::Result<T, Errno>;

/// A directory that is being listed.
enum Listing {
    Group(Vec<(Vec<u8>, bool)>),
    /// Which entry comes at which offset.
    Directory(Directory, Mutex<Cursor>),
}

/// Where a list of a directory has come to.
#[derive(Debug, Clone, Default)]
struct Cursor {
    /// How many entries were given.
    given: u64,
    /// The last of them.
    last: Option<Name>,
}

/// Takes an entry of a list: its number, where the next one begins, its kind and name. Says whether there was
/// no room.
pub(super) type Add<'a> = dyn FnMut(u64, u64, FileType, &[u8]) -> bool + 'a;

/// A mounted repository.
pub(super) struct Served<'r> {
    repo: &'r Repository,
    options: Options,
    /// Which snapshots are shown; `None` when it is one directory of one.
    filter: Option<Filter>,
    view: RwLock<Arc<View<'r>>>,
    /// When the snapshots were listed.
    listed: Mutex<Duration>,
    inodes: Inodes,
    listings: Mutex<HashMap<u64, Arc<Listing>>>,
    next_listing: AtomicU64,
    windows: Windows,
    chunks: Chunks,
    monitor: Monitor,
    told: Mutex<HashSet<String>>,
}

impl<'r> Served<'r> {
    pub(super) fn new(reader: Reader<'r>, top: Top, options: Options, monitor: Monitor) -> EngineResult<Self> {
        let repo = reader.repo();
        let (filter, what) = match top {
            Top::Snapshots(filter) => (Some(filter), What::Group(Group::Top)),
            Top::Entry(entry) => (None, What::Entry(entry.into())),
        };
        let (view, unreadable) = View::new(reader, filter.as_ref(), &options.named)?;
        let identity = [0; 16];
        let served = Self {
            repo,
            options,
            filter,
            view: RwLock::new(Arc::new(view)),
            listed: Mutex::new(repo.world.monotonic()),
            inodes: Inodes::new(Node { what, parent: TOP, name: Vec::new(), identity, snapshot: identity }),
            listings: Mutex::default(),
            next_listing: AtomicU64::new(1),
            windows: Windows::default(),
            chunks: Chunks::default(),
            monitor,
            told: Mutex::default(),
        };
        served.tell_unreadable(&unreadable);
        Ok(served)
    }

    /// Answers requests until there will be no more, or `stop` is closed.
    pub(super) fn work(&self, jobs: &Receiver<Job>, stop: &Receiver<()>) {
        loop {
            select! {
                recv(jobs) -> job => match job {
                    Ok(job) => job(self),
                    Err(_) => return,
                },
                recv(stop) -> _ => return,
            }
        }
    }

    fn tell(&self, item: String, error: &Error) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD_MAX && told.insert(item.clone()) {
            self.monitor.problem(Severity::Error, item, error.with_causes());
        }
    }

    fn tell_unreadable(&self, unreadable: &Unreadable) {
        for (session, error) in unreadable {
            self.tell(format!("snapshot {}", session.short()), error);
        }
    }

    /// Tells what is wrong with an entry; gives what the kernel is answered.
    fn failed(&self, node: &Node, error: &Error) -> Errno {
        self.tell(self.inodes.path(node), error);
        Errno::IO
    }

    fn view(&self) -> Arc<View<'r>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, listed anew if that was some time ago.
    fn fresh_view(&self) -> Arc<View<'r>> {
        // Who comes while another looks takes what there was.
        if let (Some(filter), Ok(mut listed)) = (&self.filter, self.listed.try_lock())
            && self.repo.world.monotonic().saturating_sub(*listed) >= self.options.refresh
        {
            let renewed =
                Reader::new(self.repo).and_then(|reader| View::new(reader, Some(filter), &self.options.named));
            match renewed {
                Ok((view, unreadable)) => {
                    self.tell_unreadable(&unreadable);
                    let ids = |view: &View<'_>| view.snapshots.iter().map(|info| info.id()).collect::<Vec<_>>();
                    // What the old one has open stays of use if nothing is new.
                    if ids(&view) != ids(&self.view()) {
                        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
                    }
                }
                Err(error) => self.tell("the list of snapshots".into(), &error),
            }
            *listed = self.repo.world.monotonic();
        }
        self.view()
    }

    fn node(&self, ino: u64) -> Result<Arc<Node>> {
        self.inodes.get(ino).ok_or(Errno::STALE)
    }

    fn entry(&self, ino: u64) -> Result<(Arc<Node>, Arc<Entry>)> {
        let node = self.node(ino)?;
        match &node.what {
            What::Entry(entry) => Ok((node.clone(), entry.clone())),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn lookup(&self, parent: u64, name: &[u8]) -> Result<(FileAttr, Duration)> {
        let above = self.node(parent)?;
        let what = match &above.what {
            What::Group(group) => self.fresh_view().child(group, name).ok_or(Errno::NOENT)?,
            What::Link(_) => return Err(Errno::NOTDIR),
            What::Entry(entry) => {
                let directory = directory_of(entry)?;
                let name = Name::new(name).map_err(|_| Errno::NOENT)?;
                let found = self.windows.entry(&self.view().reader, directory, &name);
                What::Entry(found.map_err(|error| self.failed(&above, &error))?.ok_or(Errno::NOENT)?)
            }
        };
        let identity = identity_in(&above, name, &what);
        let snapshot = if matches!(above.what, What::Group(_)) { identity } else { above.snapshot };
        let node = Arc::new(Node { what, parent, name: name.to_vec(), identity, snapshot });
        let ino = self.inodes.remember(&node);
        Ok((self.attributes_of(ino, &node), ttl(&node)))
    }

    pub(super) fn forget(&self, ino: u64, lookups: u64) {
        self.inodes.forget(ino, lookups);
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.inodes.len()
    }

    pub(super) fn attributes(&self, ino: u64) -> Result<(FileAttr, Duration)> {
        let node = self.node(ino)?;
        Ok((self.attributes_of(ino, &node), ttl(&node)))
    }

    fn attributes_of(&self, ino: u64, node: &Node) -> FileAttr {
        let (mut size, mut holes, mut rdev) = (0, 0, 0);
        let mut mtime = self.view().snapshots.last().map_or(UNIX_EPOCH, |info| system_time(info.snapshot.time));
        let own = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let (mut perm, mut owner) = (0o555, own);
        match &node.what {
            What::Group(_) => {}
            What::Link(target) => (size, perm) = (target.len() as u64, 0o777),
            What::Entry(entry) => {
                let attributes = &entry.attributes;
                mtime = system_time(attributes.mtime);
                perm = (attributes.mode & 0o7777) as u16;
                owner = (attributes.uid, attributes.gid);
                match &entry.detail {
                    Detail::File { size: bytes, holes: all, .. } => {
                        size = *bytes;
                        holes = all.iter().map(|hole| hole.bytes).fold(0, u64::saturating_add);
                    }
                    Detail::Symlink { target } => size = target.len() as u64,
                    Detail::CharDevice { major, minor } | Detail::BlockDevice { major, minor } => {
                        rdev = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
                    }
                    _ => {}
                }
            }
        }
        if self.options.owner_root {
            owner = (0, 0);
        }
        let kind = kind(&node.what);
        let is_linked = matches!(&node.what, What::Entry(entry) if entry.attributes.link_group.is_some());
        FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.saturating_sub(holes).div_ceil(BLOCK_BYTES),
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: mtime,
            kind,
            perm,
            // How many names a file has is not known, only whether it has several. One of a directory says that
            // nobody has counted.
            nlink: if is_linked { 2 } else { 1 },
            uid: owner.0,
            gid: owner.1,
            rdev,
            blksize: 4096,
            flags: 0,
        }
    }

    pub(super) fn link_target(&self, ino: u64) -> Result<Vec<u8>> {
        match &self.node(ino)?.what {
            What::Link(target) => Ok(target.clone()),
            What::Entry(entry) => match &entry.detail {
                Detail::Symlink { target } => Ok(target.clone()),
                _ => Err(Errno::INVAL),
            },
            What::Group(_) => Err(Errno::INVAL),
        }
    }

    pub(super) fn read(&self, ino: u64, offset: u64, wanted: u32) -> Result<Vec<u8>> {
        let (node, entry) = self.entry(ino)?;
        let Detail::File { size, content, .. } = &entry.detail else { return Err(Errno::INVAL) };
        let read = self.chunks.read(&self.view().reader, content, *size, offset, wanted as usize);
        read.map_err(|error| self.failed(&node, &error))
    }

    /// Where data or a hole begins at or after an offset.
    pub(super) fn seek(&self, ino: u64, offset: i64, whence: i32) -> Result<i64> {
        const DATA: i32 = 3;
        const HOLE: i32 = 4;
        let (_, entry) = self.entry(ino)?;
        let Detail::File { size, holes, .. } = &entry.detail else { return Err(Errno::INVAL) };
        let from = u64::try_from(offset).ok().filter(|from| from < size).ok_or(Errno::NXIO)?;
        let end = |hole: &Hole| hole.offset.saturating_add(hole.bytes);
        let found = match whence {
            DATA => match holes.iter().find(|hole| (hole.offset..end(hole)).contains(&from)) {
                // Holes stand apart from each other, so data follows, or the end.
                Some(hole) if end(hole) < *size => end(hole),
                Some(_) => return Err(Errno::NXIO),
                None => from,
            },
            HOLE => holes.iter().find(|hole| end(hole) > from).map_or(*size, |hole| hole.offset.max(from)),
            _ => return Err(Errno::INVAL),
        };
        i64::try_from(found).map_err(|_| Errno::OVERFLOW)
    }

    pub(super) fn open_directory(&self, ino: u64) -> Result<u64> {
        let listing = match &self.node(ino)?.what {
            What::Group(group) => Listing::Group(self.fresh_view().list(group)),
            What::Link(_) => return Err(Errno::NOTDIR),
            What::Entry(entry) => Listing::Directory(directory_of(entry)?, Mutex::default()),
        };
        let number = self.next_listing.fetch_add(1, Ordering::Relaxed);
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(listing));
        Ok(number)
    }

    pub(super) fn close_directory(&self, number: u64) {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Gives `add` the entries of an open directory from `offset` on, until there is no room.
    pub(super) fn list(&self, ino: u64, listing: u64, offset: u64, add: &mut Add<'_>) -> Result<()> {
        let node = self.node(ino)?;
        let listing = self.listings.lock().unwrap_or_else(PoisonError::into_inner).get(&listing).cloned();
        let listing = listing.ok_or(Errno::BADF)?;
        for (at, ino, name) in [(0, ino, &b"."[..]), (1, node.parent, b"..")] {
            if offset <= at && add(ino, at + 1, FileType::Directory, name) {
                return Ok(());
            }
        }
        let given = offset.saturating_sub(2);
        match &*listing {
            Listing::Group(names) => {
                let from = usize::try_from(given).unwrap_or(usize::MAX);
                for (at, (name, is_link)) in names.iter().enumerate().skip(from) {
                    let what = if *is_link { What::Link(Vec::new()) } else { What::Group(Group::Top) };
                    let ino = number(&identity_in(&node, name, &what));
                    if add(ino, at as u64 + 3, kind(&what), name) {
                        break;
                    }
                }
                Ok(())
            }
            Listing::Directory(directory, cursor) => {
                let mut cursor = cursor.lock().unwrap_or_else(PoisonError::into_inner);
                self.list_directory(&node, *directory, &mut cursor, given, add)
            }
        }
    }

    fn list_directory(
        &self,
        node: &Node,
        directory: Directory,
        cursor: &mut Cursor,
        given: u64,
        add: &mut Add<'_>,
    ) -> Result<()> {
        if cursor.given > given {
            *cursor = Cursor::default();
        }
        let view = self.view();
        let mut any = false;
        loop {
            let window = match self.windows.following(&view.reader, directory, cursor.last.as_ref()) {
                Ok(window) => window,
                // What there was before is given first; the next request finds the fault.
                Err(_) if any => return Ok(()),
                Err(error) => return Err(self.failed(node, &error)),
            };
            let behind = window.behind(cursor.last.as_ref());
            if behind.is_empty() {
                return Ok(());
            }
            for entry in behind {
                let Some(name) = &entry.name else { continue };
                // Those before the offset are passed over: somebody has gone back.
                if cursor.given >= given {
                    let what = What::Entry(entry.clone());
                    let ino = number(&identity_in(node, name.as_bytes(), &what));
                    if add(ino, cursor.given + 3, kind(&what), name.as_bytes()) {
                        return Ok(());
                    }
                    any = true;
                }
                cursor.given += 1;
                cursor.last = Some(name.clone());
            }
        }
    }

    pub(super) fn xattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        let What::Entry(entry) = &self.node(ino)?.what else { return Err(Errno::NODATA) };
        let found = entry.attributes.xattrs.iter().find(|xattr| xattr.name == name);
        found.map(|xattr| xattr.value.clone()).ok_or(Errno::NODATA)
    }

    pub(super) fn xattr_names(&self, ino: u64) -> Result<Vec<u8>> {
        let What::Entry(entry) = &self.node(ino)?.what else { return Ok(Vec::new()) };
        Ok(entry.attributes.xattrs.iter().flat_map(|xattr| xattr.name.iter().copied().chain([0])).collect())
    }
}

/// How long the kernel may believe what it was told of an entry.
fn ttl(node: &Node) -> Duration {
    match node.what {
        What::Entry(_) => FOR_EVER,
        _ => FOR_NOW,
    }
}

fn directory_of(entry: &Entry) -> Result<Directory> {
    match entry.detail {
        Detail::Directory { id, level, .. } => Ok(Directory { id, level }),
        _ => Err(Errno::NOTDIR),
    }
}

fn kind(what: &What) -> FileType {
    let entry = match what {
        What::Group(_) => return FileType::Directory,
        What::Link(_) => return FileType::Symlink,
        What::Entry(entry) => entry,
    };
    match entry.detail {
        Detail::File { .. } => FileType::RegularFile,
        Detail::Directory { .. } => FileType::Directory,
        Detail::Symlink { .. } => FileType::Symlink,
        Detail::Fifo => FileType::NamedPipe,
        Detail::CharDevice { .. } => FileType::CharDevice,
        Detail::BlockDevice { .. } => FileType::BlockDevice,
    }
}

/// A stored time as the system has it; what it cannot have is the nearest.
fn system_time(time: Time) -> SystemTime {
    let nanos = Duration::from_nanos(time.nanos.into());
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    let whole = if time.secs < 0 { UNIX_EPOCH.checked_sub(secs) } else { UNIX_EPOCH.checked_add(secs) };
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}
