//! The serving side: each request is carried out on the backing directory, through descriptors
//! that stay with their inodes whatever is renamed or removed meanwhile.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, CWD, Dir, FileType as Kind, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::trace::{self, Change};
use super::{ENTRY_BYTES, Faults, Op, Profile};

/// Nothing is remembered by the kernel, so that faults and repairs show at once.
const TTL: Duration = Duration::ZERO;

/// An inode the kernel knows of.
struct Node {
    /// Opened with `O_PATH`: keeps the inode, and so its number, from being used again.
    fd: Arc<OwnedFd>,
    lookups: u64,
}

/// An open file or a directory's entries at the time it was opened.
enum Handle {
    File(Arc<OwnedFd>),
    Entries(Arc<Vec<(u64, FileType, OsString)>>),
}

#[derive(Default)]
struct Tables {
    nodes: HashMap<u64, Node>,
    handles: HashMap<u64, Handle>,
    next_handle: u64,
}

pub(super) struct Passthrough {
    profile: &'static Profile,
    faults: Arc<Faults>,
    trace: trace::Shared,
    top: PathBuf,
    top_ino: u64,
    tables: Mutex<Tables>,
}

type Result<T> = std::result::Result<T, Errno>;

fn answer(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

/// A path that leads to exactly the inode of `fd`.
fn through(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn inode(fd: &OwnedFd) -> Result<u64> {
    Ok(rustix::fs::fstat(fd)?.st_ino)
}

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Passthrough {
    pub(super) fn new(
        top: &Path,
        profile: &'static Profile,
        faults: Arc<Faults>,
        trace: trace::Shared,
    ) -> Result<Self> {
        let fd = Arc::new(rustix::fs::open(top, PATH, Mode::empty())?);
        let top_ino = rustix::fs::fstat(&fd)?.st_ino;
        let mut tables = Tables::default();
        tables.nodes.insert(INodeNo::ROOT.0, Node { fd, lookups: 1 });
        let top = top.canonicalize().map_err(|_| Errno::NOENT)?;
        Ok(Self { profile, faults, trace, top, top_ino, tables: Mutex::new(tables) })
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn node(&self, ino: INodeNo) -> Result<Arc<OwnedFd>> {
        self.tables().nodes.get(&ino.0).map(|node| Arc::clone(&node.fd)).ok_or(Errno::STALE)
    }

    fn open_file(&self, handle: FileHandle) -> Result<Arc<OwnedFd>> {
        match self.tables().handles.get(&handle.0) {
            Some(Handle::File(fd)) => Ok(Arc::clone(fd)),
            _ => Err(Errno::BADF),
        }
    }

    fn keep(&self, handle: Handle) -> FileHandle {
        let mut tables = self.tables();
        tables.next_handle += 1;
        let number = tables.next_handle;
        tables.handles.insert(number, handle);
        FileHandle(number)
    }

    /// The path below the mount, for faults.
    fn path(&self, fd: &OwnedFd) -> String {
        let path = std::fs::read_link(through(fd)).unwrap_or_default();
        path.strip_prefix(&self.top).unwrap_or(&path).to_string_lossy().into_owned()
    }

    fn meet(&self, op: Op, fd: &OwnedFd, at: u64) -> Result<()> {
        self.faults.meet(op, &self.path(fd), at, at)
    }

    fn meet_at(&self, op: Op, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        self.faults.meet(op, &Path::new(&self.path(parent)).join(name).to_string_lossy(), 0, 0)
    }

    /// The name an entry has, where case does not matter.
    fn real_name(&self, parent: &OwnedFd, name: &OsStr) -> Result<OsString> {
        if name.as_bytes().iter().any(|byte| self.profile.forbidden.contains(byte)) {
            return Err(Errno::INVAL);
        }
        if self.profile.folds_case {
            let listed = Dir::read_from(rustix::fs::open(through(parent), OFlags::RDONLY, Mode::empty())?)?;
            for entry in listed {
                let entry = entry?;
                if entry.file_name().to_bytes().eq_ignore_ascii_case(name.as_bytes()) {
                    return Ok(OsString::from_vec(entry.file_name().to_bytes().to_vec()));
                }
            }
        }
        Ok(name.to_owned())
    }

    fn attributes(&self, stat: &Stat) -> FileAttr {
        let time = |secs: i64, nanos: u64| {
            let (secs, nanos) = match self.profile.time_secs {
                0 => (secs, nanos),
                unit => (secs - secs.rem_euclid(unit), 0),
            };
            match u64::try_from(secs) {
                Ok(secs) => UNIX_EPOCH + Duration::new(secs, u32::try_from(nanos).unwrap_or(0)),
                Err(_) => UNIX_EPOCH - Duration::from_secs(secs.unsigned_abs()) + Duration::from_nanos(nanos),
            }
        };
        FileAttr {
            ino: if stat.st_ino == self.top_ino { INodeNo::ROOT } else { INodeNo(stat.st_ino) },
            size: stat.st_size.cast_unsigned(),
            blocks: stat.st_blocks.cast_unsigned(),
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            crtime: UNIX_EPOCH,
            kind: file_type(Kind::from_raw_mode(stat.st_mode)),
            perm: if self.profile.modes { (stat.st_mode & 0o7777) as u16 } else { 0o755 },
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: u32::try_from(stat.st_rdev).unwrap_or(0),
            blksize: 4096,
            flags: 0,
        }
    }

    /// Looks an entry up, and counts that the kernel knows it.
    fn enter(&self, parent: &OwnedFd, name: &OsStr) -> Result<FileAttr> {
        let fd = rustix::fs::openat(parent, name, PATH, Mode::empty())?;
        let attributes = self.attributes(&rustix::fs::fstat(&fd)?);
        let mut tables = self.tables();
        let node = tables.nodes.entry(attributes.ino.0).or_insert_with(|| Node { fd: Arc::new(fd), lookups: 0 });
        node.lookups += 1;
        Ok(attributes)
    }

    /// Prepares for making `name`: the directory and the name it will have.
    fn make(&self, parent: INodeNo, name: &OsStr, lacking: Option<Errno>) -> Result<(Arc<OwnedFd>, OsString)> {
        let fd = self.node(parent)?;
        lacking.map_or(Ok(()), Err)?;
        self.meet_at(Op::Make, &fd, name)?;
        let name = self.real_name(&fd, name)?;
        self.faults.take_room(ENTRY_BYTES)?;
        Ok((fd, name))
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, flags: AtFlags) -> Result<()> {
        let fd = self.node(parent)?;
        self.meet_at(Op::Remove, &fd, name)?;
        let name = self.real_name(&fd, name)?;
        let stat = rustix::fs::statat(&*fd, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::unlinkat(&*fd, &*name, flags)?;
        let parent = inode(&fd)?;
        self.trace.note(|number| Change::Remove { at: (number(parent), name.clone()) });
        let bytes = if Kind::from_raw_mode(stat.st_mode).is_file() { stat.st_size.cast_unsigned() } else { 0 };
        self.faults.give_room(bytes + ENTRY_BYTES);
        Ok(())
    }

    fn open_as(&self, fd: &OwnedFd, flags: i32) -> Result<FileHandle> {
        self.meet(Op::Open, fd, 0)?;
        let wanted = OFlags::from_bits_retain(flags.cast_unsigned());
        // Where to write is said with each write.
        let kept = wanted & (OFlags::RDONLY | OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        let file = rustix::fs::open(through(fd), kept | OFlags::CLOEXEC, Mode::empty())?;
        if kept.contains(OFlags::TRUNC) {
            let file = inode(fd)?;
            self.trace.note(|number| Change::Cut { file: number(file), length: 0 });
        }
        Ok(self.keep(Handle::File(Arc::new(file))))
    }

    /// Notes in the trace what was just made under this name.
    fn note_made(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        change: impl FnOnce(trace::Entry, trace::Number) -> Change,
    ) -> Result<()> {
        let made = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino;
        let parent = inode(parent)?;
        self.trace.note_new(made, |number, new| change((number(parent), name.to_owned()), new));
        Ok(())
    }

    fn synced(&self, ino: INodeNo) -> Result<()> {
        let fd = self.node(ino)?;
        self.meet(Op::Sync, &fd, 0)?;
        let inode = inode(&fd)?;
        self.trace.note(|number| Change::Sync { number: number(inode) });
        Ok(())
    }

    fn open_flags(&self) -> FopenFlags {
        if self.profile.mmap { FopenFlags::empty() } else { FopenFlags::FOPEN_DIRECT_IO }
    }

    fn entries(&self, ino: INodeNo) -> Result<Vec<(u64, FileType, OsString)>> {
        let fd = self.node(ino)?;
        self.meet(Op::Open, &fd, 0)?;
        let dir = Dir::read_from(rustix::fs::open(through(&fd), OFlags::RDONLY, Mode::empty())?)?;
        dir.map(|entry| {
            let entry = entry?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            Ok((entry.ino(), file_type(entry.file_type()), name))
        })
        .collect()
    }

    fn read(&self, handle: FileHandle, offset: u64, size: u32) -> Result<Vec<u8>> {
        let fd = self.open_file(handle)?;
        if self.meet(Op::ReadShort, &fd, offset).is_err() {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; size as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::io::pread(&fd, &mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        if filled > 0 {
            self.faults.meet(Op::Read, &self.path(&fd), offset, offset + filled as u64 - 1)?;
        }
        Ok(bytes)
    }

    fn write(&self, handle: FileHandle, offset: u64, data: &[u8]) -> Result<usize> {
        let fd = self.open_file(handle)?;
        self.faults.meet(Op::Write, &self.path(&fd), offset, offset + data.len() as u64)?;
        let length = self.faults.take_room(data.len() as u64)?;
        let data = &data[..usize::try_from(length).unwrap_or(data.len())];
        let mut written = 0;
        while written < data.len() {
            written += rustix::io::pwrite(&fd, &data[written..], offset + written as u64)?;
        }
        let file = inode(&fd)?;
        self.trace.note(|number| Change::Write { file: number(file), offset, bytes: data.to_vec() });
        Ok(written)
    }

    fn set(
        &self,
        ino: INodeNo,
        mode: Option<u32>,
        owner: (Option<u32>, Option<u32>),
        size: Option<u64>,
        times: [Option<TimeOrNow>; 2],
    ) -> Result<FileAttr> {
        let fd = self.node(ino)?;
        let stat = rustix::fs::fstat(&fd)?;
        let changes = |wanted: Option<u32>, now: u32| wanted.is_some_and(|wanted| wanted != now);
        if changes(owner.0, stat.st_uid) || changes(owner.1, stat.st_gid) {
            self.profile.chown.map_or(Ok(()), Err)?;
            let (uid, gid) = (owner.0.map(Uid::from_raw), owner.1.map(Gid::from_raw));
            rustix::fs::chownat(&*fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = mode.filter(|_| self.profile.modes) {
            rustix::fs::chmodat(CWD, through(&fd), Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?;
        }
        if let Some(size) = size {
            self.meet(Op::Write, &fd, size)?;
            rustix::fs::ftruncate(rustix::fs::open(through(&fd), OFlags::WRONLY, Mode::empty())?, size)?;
            self.trace.note(|number| Change::Cut { file: number(stat.st_ino), length: size });
        }
        if times.iter().any(Option::is_some) {
            let [last_access, last_modification] = times.map(timespec);
            rustix::fs::utimensat(CWD, through(&fd), &Timestamps { last_access, last_modification }, AtFlags::empty())?;
        }
        Ok(self.attributes(&rustix::fs::fstat(&fd)?))
    }

    fn rename(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr), flags: RenameFlags) -> Result<()> {
        let (from_fd, to_fd) = (self.node(from.0)?, self.node(to.0)?);
        if !flags.is_empty() {
            self.profile.rename_flags.map_or(Ok(()), Err)?;
        }
        self.meet_at(Op::Rename, &to_fd, to.1)?;
        let (from, to) = (self.real_name(&from_fd, from.1)?, self.real_name(&to_fd, to.1)?);
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        rustix::fs::renameat_with(&*from_fd, &*from, &*to_fd, &*to, flags)?;
        let moved = rustix::fs::statat(&*to_fd, &*to, AtFlags::SYMLINK_NOFOLLOW)?.st_ino;
        let (from_parent, to_parent) = (inode(&from_fd)?, inode(&to_fd)?);
        self.trace.note(|number| {
            let (from, to) = ((number(from_parent), from.clone()), (number(to_parent), to.clone()));
            Change::Rename { from, to, number: number(moved) }
        });
        Ok(())
    }

    fn xattr(&self, ino: INodeNo, read: impl Fn(&str, &mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
        self.profile.xattr.map_or(Ok(()), Err)?;
        let fd = self.node(ino)?;
        self.meet(Op::Xattr, &fd, 0)?;
        let mut bytes = vec![0; 64 << 10];
        let length = read(&through(&fd), &mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Socket => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timespec { tv_sec: after.as_secs().cast_signed(), tv_nsec: after.subsec_nanos().into() },
            // The tests set no times before 1970 but whole seconds.
            Err(before) => Timespec { tv_sec: -before.duration().as_secs().cast_signed(), tv_nsec: 0 },
        },
    }
}

fn answer_empty(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(answer(errno)),
    }
}

fn answer_entry(reply: ReplyEntry, result: Result<FileAttr>) {
    match result {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(errno) => reply.error(answer(errno)),
    }
}

fn answer_xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>>) {
    match result {
        Ok(bytes) if size == 0 => reply.size(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        Ok(bytes) if bytes.len() > size as usize => reply.error(answer(Errno::RANGE)),
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(answer(errno)),
    }
}

impl Filesystem for Passthrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        if self.profile.flock.is_some() {
            // Else the kernel does it by itself.
            let _ = config.add_capabilities(InitFlags::FUSE_FLOCK_LOCKS);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = || {
            let fd = self.node(parent)?;
            self.meet_at(Op::Look, &fd, name)?;
            self.enter(&fd, &self.real_name(&fd, name)?)
        };
        answer_entry(reply, found());
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        let mut tables = self.tables();
        if let Some(node) = tables.nodes.get_mut(&ino.0) {
            node.lookups = node.lookups.saturating_sub(lookups);
            if node.lookups == 0 {
                tables.nodes.remove(&ino.0);
            }
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let looked = self.node(ino).and_then(|fd| {
            self.meet(Op::Look, &fd, 0)?;
            rustix::fs::fstat(&fd)
        });
        match looked {
            Ok(stat) => reply.attr(&TTL, &self.attributes(&stat)),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.set(ino, mode, (uid, gid), size, [atime, mtime]) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self.node(ino).and_then(|fd| {
            self.meet(Op::ReadLink, &fd, 0)?;
            rustix::fs::readlinkat(&*fd, "", Vec::new())
        });
        match target {
            Ok(target) => reply.data(target.as_bytes()),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let kind = Kind::from_raw_mode(mode);
        let made = || {
            let (fd, name) = self.make(parent, name, self.profile.special.filter(|_| !kind.is_file()))?;
            rustix::fs::mknodat(&*fd, &*name, kind, Mode::from_raw_mode(mode & !umask & 0o7777), rdev.into())?;
            self.enter(&fd, &name)
        };
        answer_entry(reply, made());
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = || {
            let (fd, name) = self.make(parent, name, None)?;
            rustix::fs::mkdirat(&*fd, &*name, Mode::from_raw_mode(mode & !umask & 0o7777))?;
            let attributes = self.enter(&fd, &name)?;
            self.note_made(&fd, &name, |at, number| Change::MakeDirectory { at, number })?;
            Ok(attributes)
        };
        answer_entry(reply, made());
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let made = || {
            let (fd, name) = self.make(parent, name, self.profile.special)?;
            rustix::fs::symlinkat(target, &*fd, &*name)?;
            self.enter(&fd, &name)
        };
        answer_entry(reply, made());
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let made = || {
            let (fd, name) = self.make(parent, name, self.profile.link)?;
            rustix::fs::linkat(CWD, through(&*self.node(ino)?), &*fd, &*name, AtFlags::SYMLINK_FOLLOW)?;
            let (parent, file) = (inode(&fd)?, inode(&*self.node(ino)?)?);
            self.trace.note(|number| Change::MakeFile { at: (number(parent), name.clone()), number: number(file) });
            self.enter(&fd, &name)
        };
        answer_entry(reply, made());
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(reply, self.remove(parent, name, AtFlags::empty()));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(reply, self.remove(parent, name, AtFlags::REMOVEDIR));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer_empty(reply, Passthrough::rename(self, (parent, name), (new_parent, new_name), flags));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made = || {
            self.meet_at(Op::Open, &*self.node(parent)?, name)?;
            let (fd, name) = self.make(parent, name, None)?;
            let exclusive = OFlags::from_bits_retain(flags.cast_unsigned()) & OFlags::EXCL;
            let mode = Mode::from_raw_mode(mode & !umask & 0o7777);
            let made = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let is_new = rustix::fs::statat(&*fd, &*name, AtFlags::SYMLINK_NOFOLLOW).is_err();
            rustix::fs::openat(&*fd, &*name, made | exclusive, mode)?;
            let attributes = self.enter(&fd, &name)?;
            if is_new {
                self.note_made(&fd, &name, |at, number| Change::MakeFile { at, number })?;
            }
            let handle = self.open_as(&*self.node(attributes.ino)?, flags)?;
            Ok((attributes, handle))
        };
        match made() {
            Ok((attributes, handle)) => reply.created(&TTL, &attributes, Generation(0), handle, self.open_flags()),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.node(ino).and_then(|fd| self.open_as(&fd, flags.0)) {
            Ok(handle) => reply.opened(handle, self.open_flags()),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match Passthrough::read(self, handle, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match Passthrough::write(self, handle, offset, data) {
            Ok(written) => reply.written(u32::try_from(written).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.tables().handles.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer_empty(reply, self.synced(ino));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let lacking = self.profile.sync_directory.map_or(Ok(()), Err);
        answer_empty(reply, lacking.and_then(|()| self.synced(ino)));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.entries(ino) {
            Ok(entries) => reply.opened(self.keep(Handle::Entries(Arc::new(entries))), FopenFlags::empty()),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.tables().handles.get(&handle.0) {
            Some(Handle::Entries(entries)) => Arc::clone(entries),
            _ => return reply.error(answer(Errno::BADF)),
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (n, (number, kind, name)) in entries.iter().enumerate().skip(start) {
            let met = self.node(ino).and_then(|fd| self.meet(Op::List, &fd, n as u64 + 1));
            match met {
                // What was read before the fault is still handed out; the fault comes with the next call.
                Err(errno) if n == start => return reply.error(answer(errno)),
                Err(_) => break,
                Ok(()) if reply.add(INodeNo(*number), n as u64 + 1, *kind, name) => break,
                Ok(()) => {}
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.tables().handles.remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let found = self
            .node(ino)
            .and_then(|fd| rustix::fs::fstatvfs(rustix::fs::open(through(&fd), OFlags::PATH, Mode::empty())?));
        let room = self.faults.lock().room.map(|(room, _)| room);
        match found {
            Ok(found) => {
                let free = room.map_or(found.f_bavail, |room| room / found.f_frsize.max(1));
                let size = u32::try_from(found.f_frsize).unwrap_or(4096);
                reply.statfs(found.f_blocks, free, free, found.f_files, found.f_ffree, size, 255, size);
            }
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn setxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, value: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        let set = || {
            self.profile.xattr.map_or(Ok(()), Err)?;
            let fd = self.node(ino)?;
            rustix::fs::setxattr(through(&fd), name, value, rustix::fs::XattrFlags::empty())
        };
        answer_empty(reply, set());
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        answer_xattr(reply, size, self.xattr(ino, |path, buf| rustix::fs::getxattr(path, name, buf)));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        answer_xattr(reply, size, self.xattr(ino, |path, buf| rustix::fs::listxattr(path, buf)));
    }

    fn setlk(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _: u64,
        _: u64,
        _: i32,
        _: u32,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(answer(self.profile.flock.unwrap_or(Errno::NOSYS)));
    }
}
