//! Where requests of the kernel come in: each is handed to the threads that serve, with its reply.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crossbeam_channel::Sender;
use fuser::{
    FileHandle, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use rustix::io::Errno;

use super::served::Served;

/// What is to be done for a request.
pub(super) type Job = Box<dyn for<'r> FnOnce(&Served<'r>) + Send>;

/// Hands on requests until the kernel is done. A request that nobody takes is answered with an error.
#[derive(Debug)]
pub(super) struct Door {
    jobs: Sender<Job>,
}

impl Door {
    pub(super) fn new(jobs: Sender<Job>) -> Self {
        Self { jobs }
    }

    fn ask(&self, job: impl for<'r> FnOnce(&Served<'r>) + Send + 'static) {
        // Dropping the reply says EIO.
        let _ = self.jobs.send(Box::new(job));
    }
}

fn answer(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

fn answer_xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, Errno>) {
    match result {
        Ok(bytes) if size == 0 => reply.size(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        Ok(bytes) if bytes.len() > size as usize => reply.error(answer(Errno::RANGE)),
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(answer(errno)),
    }
}

impl Filesystem for Door {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.ask(move |served| match served.lookup(parent.0, &name) {
            Ok((attributes, ttl)) => reply.entry(&ttl, &attributes, Generation(0)),
            Err(errno) => reply.error(answer(errno)),
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.ask(move |served| served.forget(ino.0, lookups));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.ask(move |served| match served.attributes(ino.0) {
            Ok((attributes, ttl)) => reply.attr(&ttl, &attributes),
            Err(errno) => reply.error(answer(errno)),
        });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.ask(move |served| match served.link_target(ino.0) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(answer(errno)),
        });
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Content never changes: what the kernel has of it stays good.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.ask(move |served| match served.read(ino.0, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(answer(errno)),
        });
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.ask(move |served| match served.seek(ino.0, offset, whence) {
            Ok(offset) => reply.offset(offset),
            Err(errno) => reply.error(answer(errno)),
        });
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.ask(move |served| match served.open_directory(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(errno) => reply.error(answer(errno)),
        });
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.ask(move |served| {
            let mut add = |ino, next, kind, name: &[u8]| reply.add(INodeNo(ino), next, kind, OsStr::from_bytes(name));
            match served.list(ino.0, handle.0, offset, &mut add) {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(answer(errno)),
            }
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.ask(move |served| {
            served.close_directory(handle.0);
            reply.ok();
        });
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.as_bytes().to_vec();
        self.ask(move |served| answer_xattr(reply, size, served.xattr(ino.0, &name)));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.ask(move |served| answer_xattr(reply, size, served.xattr_names(ino.0)));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const NAME_MAX: u32 = 255;
        reply.statfs(0, 0, 0, 0, 0, 4096, NAME_MAX, 4096);
    }
}

/// How long the kernel may believe what is true for ever.
pub(super) const FOR_EVER: Duration = Duration::from_secs(3600);
