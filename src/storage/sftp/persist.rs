//! Making objects whole and durable on a server.
//!
//! An object is written to a file in `tmp/`, its length is checked, it is synced, and it is
//! linked or renamed into place: whoever sees its name sees all of it. The name itself is an
//! entry of a directory, which [`Server::barrier`] syncs: SFTP has no call for that, but OpenSSH
//! opens a directory like a file and syncs what is open. Where a server does not, its system
//! writes the entry some seconds later.
//!
//! A server that loses power between a put and a barrier may come back without the entry, and
//! take another session as if nothing had been. So when a session was lost since the last
//! barrier, the next one looks for every object put in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::calls::{Called, Handle, Refusal, write_failure};
use super::session::{Answer, Session};
use super::wire::{self, Code, FileType, Request};
use super::{Server, object_bytes};
use crate::id::hex;
use crate::storage::{Error, ErrorKind, Result, WriteMode, name};

/// Directories are the repository owner's alone, and so are files.
pub(super) const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Age in seconds at which a file in `tmp/` belongs to nobody any more.
const LEFTOVER_AGE_SECS: u32 = 24 * 60 * 60;

/// Directories that are open at once while they are synced.
const DIRECTORIES_AT_ONCE: usize = 32;

/// Requests in flight where there are many small ones.
const REQUESTS: usize = 64;

/// The state under these locks is whole between any two calls, whatever panicked meanwhile.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The directory an object or directory stands in; empty for the root.
fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Server {
    /// Stores an object, seen whole or not at all.
    pub(super) fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        name::check(name)?;
        self.check_usable()?;
        let session = self.pool.session()?;
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path(&format!("{}/{}-{number}", name::TEMPORARY, self.run));
        let handle = self.create_temporary(&session, &temporary, name, bytes.len() as u64)?;
        let written = self.fill(&session, handle, name, bytes);
        let published = written.and_then(|()| self.publish(&session, &temporary, name, mode));
        if !matches!(published, Ok(Left::Nothing)) {
            // What is not removed is never listed, and goes with the leftovers another day.
            let _ = session.send(&Request::Remove { path: &temporary });
        }
        published?;
        self.note(name, Some(bytes.len() as u64));
        Ok(())
    }

    /// Makes an empty file. The storage's first also clears away old leftovers.
    fn create_temporary<'a>(&self, session: &'a Session, path: &str, name: &str, bytes: u64) -> Result<Handle<'a>> {
        let flags = wire::WRITE | wire::CREATE | wire::EXCLUSIVE;
        let create = || session.send(&Request::Open { path, flags, mode: FILE_MODE })?.handle();
        let created = match create() {
            Err(refusal) if refusal.is_no_such_file() => {
                self.make_directory(session, name::TEMPORARY)?;
                create()
            }
            created => created,
        };
        let handle = created.map_err(|refusal| self.write_failure(session, name, bytes, refusal))?;
        self.leftovers.call_once(|| {
            // They cost space, nothing else.
            let _ = self.remove_leftovers(session, &handle);
        });
        Ok(handle)
    }

    /// Writes all of a file and syncs it.
    fn fill(&self, session: &Session, handle: Handle<'_>, name: &str, bytes: &[u8]) -> Result<()> {
        let length = bytes.len() as u64;
        let fault = |refusal| self.write_failure(session, name, length, refusal);
        session.write(&handle, bytes).map_err(fault)?;
        let looked = session.send(&Request::HandleStatus { handle: handle.bytes() })?;
        let sync = session.features().sync;
        let synced = sync.then(|| session.send(&Request::Sync { handle: handle.bytes() })).transpose()?;
        let found = looked.attributes().map_err(fault)?.bytes;
        if found.is_some_and(|found| found != length) {
            let found = found.unwrap_or_default();
            let message = format!("`{}` is {found} bytes long on the server, expected {length}", self.place_of(name));
            return Err(Error::new(ErrorKind::Io, message));
        }
        match synced {
            Some(synced) => synced.done().map_err(fault),
            // Some file systems say only now that there was no room.
            None => handle.close().map_err(fault),
        }
    }

    /// Gives a file its name.
    fn publish(&self, session: &Session, temporary: &str, name: &str, mode: WriteMode) -> Result<Left> {
        let to = self.path(name);
        let publish = || match mode {
            WriteMode::CreateNew => self.create_new(session, temporary, name, &to),
            WriteMode::Replace => self.replace(session, temporary, name, &to),
        };
        let published = match publish() {
            Err(refusal) if refusal.is_no_such_file() => {
                self.make_directories_of(session, name)?;
                publish()
            }
            published => published,
        };
        match published {
            Ok(Some(left)) => Ok(left),
            Ok(None) => Err(Error::exists(name)),
            Err(refusal) => Err(self.write_failure(session, name, 0, refusal)),
        }
    }

    /// Gives a file a name that nothing has yet; `None` if something has.
    ///
    /// A link is exact on every server that has them. A rename is exact on OpenSSH; others may
    /// replace what came between look and rename, which the storage contract allows.
    fn create_new(&self, session: &Session, from: &str, name: &str, to: &str) -> Called<Option<Left>> {
        if session.features().hard_link && !self.no_links.load(Ordering::Relaxed) {
            match session.send(&Request::HardLink { from, to })?.done() {
                Ok(()) => return Ok(Some(Left::Temporary)),
                // A taken name is a mere failure, as are many other things.
                Err(Refusal::Status(status)) if status.code != Code::NoSuchFile => {
                    if self.is_there(session, name)? {
                        return Ok(None);
                    }
                }
                Err(refusal) => return Err(refusal),
            }
        } else if self.is_there(session, name)? {
            return Ok(None);
        }
        match session.send(&Request::Rename { from, to })?.done() {
            Ok(()) => {
                // What could be renamed could not be linked: such is the file system.
                self.no_links.store(true, Ordering::Relaxed);
                Ok(Some(Left::Nothing))
            }
            Err(Refusal::Status(status)) if status.code == Code::Failure && self.is_there(session, name)? => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Gives a file a name, whatever has it now.
    fn replace(&self, session: &Session, from: &str, name: &str, to: &str) -> Called<Option<Left>> {
        if session.features().posix_rename {
            session.send(&Request::PosixRename { from, to })?.done()?;
            return Ok(Some(Left::Nothing));
        }
        // Without the extension there is a moment in which the name is nobody's.
        match session.send(&Request::Rename { from, to })?.done() {
            Err(Refusal::Status(status)) if status.code == Code::Failure && self.is_there(session, name)? => {
                session.send(&Request::Remove { path: to })?.done()?;
                session.send(&Request::Rename { from, to })?.done()?;
            }
            renamed => renamed?,
        }
        Ok(Some(Left::Nothing))
    }

    fn is_there(&self, session: &Session, name: &str) -> Called<bool> {
        match self.look(session, name) {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.is_no_such_file() => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    /// Removes an object. A barrier makes that durable too, so that a key slot stays removed.
    pub(super) fn delete(&self, name: &str) -> Result<()> {
        name::check(name)?;
        self.check_usable()?;
        let session = self.pool.session()?;
        match session.send(&Request::Remove { path: &self.path(name) })?.done() {
            Ok(()) => {
                self.note(name, None);
                Ok(())
            }
            Err(refusal) => {
                let looked = self.look(&session, name);
                let is_directory = looked.is_ok_and(|found| found.file_type() == FileType::Directory);
                // A directory is no object.
                if is_directory {
                    Err(Error::not_found(name))
                } else {
                    Err(self.failure("cannot delete", name, refusal))
                }
            }
        }
    }

    /// Makes one directory, unless it is there.
    fn make_directory(&self, session: &Session, path: &str) -> Result<()> {
        let full = self.path(path);
        let made = session.send(&Request::MakeDirectory { path: &full, mode: DIRECTORY_MODE })?.done();
        made.or_else(|refusal| self.accept_directory(session, path, refusal))
    }

    /// Accepts that a directory was not made if it is there.
    fn accept_directory(&self, session: &Session, path: &str, refusal: Refusal) -> Result<()> {
        let is_status = refusal.code().is_some();
        match is_status.then(|| self.look(session, path)) {
            Some(Ok(found)) if found.file_type() == FileType::Directory => Ok(()),
            _ => Err(self.write_failure(session, path, 0, refusal)),
        }
    }

    /// Makes the directories an object stands in.
    fn make_directories_of(&self, session: &Session, name: &str) -> Result<()> {
        name.match_indices('/').try_for_each(|(end, _)| self.make_directory(session, &name[..end]))
    }

    /// Makes `tmp/` and the directories of packs, durably.
    pub(super) fn make_pack_directories(&self) -> Result<()> {
        let session = self.pool.session()?;
        self.make_directory(&session, name::TEMPORARY)?;
        self.make_directory(&session, "packs")?;
        let shards: Vec<String> = (0..=255).map(|shard| format!("packs/{}", hex(&[shard]))).collect();
        for shards in shards.chunks(REQUESTS) {
            let make =
                |path: &String| session.send(&Request::MakeDirectory { path: &self.path(path), mode: DIRECTORY_MODE });
            let asked: Vec<Answer<'_>> = shards.iter().map(make).collect::<Result<_>>()?;
            for (path, answer) in shards.iter().zip(asked) {
                answer.done().or_else(|refusal| self.accept_directory(&session, path, refusal))?;
            }
        }
        self.touch("packs");
        drop(session);
        self.barrier()?;
        self.sync_parent()
    }

    /// Removes files in `tmp/` that were last written a day before `new` was. Both times are the
    /// server's own, so its clock may differ from ours.
    fn remove_leftovers(&self, session: &Session, new: &Handle<'_>) -> Called<()> {
        let now = session.send(&Request::HandleStatus { handle: new.bytes() })?.attributes()?.modified;
        let path = self.path(name::TEMPORARY);
        let directory = session.send(&Request::OpenDirectory { path: &path })?.handle()?;
        let is_old = |modified: Option<u32>| {
            now.zip(modified).is_some_and(|(now, modified)| now.saturating_sub(modified) > LEFTOVER_AGE_SECS)
        };
        while let Some(entries) = session.send(&Request::ReadDirectory { handle: directory.bytes() })?.names()? {
            let old = entries
                .iter()
                .filter(|entry| entry.attributes.file_type() == FileType::File && is_old(entry.attributes.modified));
            for name in old.filter_map(|entry| std::str::from_utf8(&entry.name).ok()).filter(|name| !name.contains('/'))
            {
                // Not ours to remove, or just removed by another: no matter.
                session.send(&Request::Remove { path: &format!("{path}/{name}") })?;
            }
        }
        Ok(())
    }

    /// Fails once a barrier has failed.
    fn check_usable(&self) -> Result<()> {
        match self.broken.get() {
            None => Ok(()),
            Some(why) => {
                let message = format!("nothing more is written to `{}`: {why}", self.place_of(""));
                Err(Error::new(ErrorKind::Io, message))
            }
        }
    }

    /// Notes that an object was put, with its length, or deleted.
    fn note(&self, name: &str, bytes: Option<u64>) {
        self.touch(parent(name));
        let objects = &mut lock(&self.changed).objects;
        match bytes {
            Some(bytes) => objects.insert(name.to_owned(), bytes),
            None => objects.remove(name),
        };
    }

    /// Makes the next barrier stand for an object that another process has put. Objects are synced
    /// before they have their names; what may be lost is the name.
    pub(super) fn cover(&self, name: &str) {
        self.touch(parent(name));
    }

    /// Notes that entries of a directory changed, so that the next barrier makes them durable; at
    /// the first touch also its ancestors, which whoever made them may not have synced.
    fn touch(&self, directory: &str) {
        let mut changed = lock(&self.changed);
        changed.directories.insert(directory.to_owned());
        let mut directory = directory;
        while changed.ever.insert(directory.to_owned()) && !directory.is_empty() {
            directory = parent(directory);
            changed.directories.insert(directory.to_owned());
        }
    }

    /// Returns once all that was put before is durable, as far as the server can.
    ///
    /// A lost connection leaves everything noted for another try. Anything else that fails ends
    /// all writing: nobody knows what the server's disk holds.
    pub(super) fn barrier(&self) -> Result<()> {
        // One at a time: another barrier may be syncing what was put before this one.
        let _barrier = lock(&self.barrier);
        self.check_usable()?;
        let (directories, objects, lost_before) = {
            let mut changed = lock(&self.changed);
            (std::mem::take(&mut changed.directories), std::mem::take(&mut changed.objects), changed.lost)
        };
        if directories.is_empty() && objects.is_empty() {
            return Ok(());
        }
        let mut lost = lost_before;
        let result = self.sync_directories(&directories).and_then(|()| {
            lost = self.pool.lost();
            if lost == lost_before { Ok(()) } else { self.look_for(&objects) }
        });
        match &result {
            Ok(()) => lock(&self.changed).lost = lost,
            Err(error) if matches!(error.kind(), ErrorKind::Transient | ErrorKind::Throttled) => {
                let mut changed = lock(&self.changed);
                changed.directories.extend(directories);
                for (name, bytes) in objects {
                    changed.objects.entry(name).or_insert(bytes);
                }
            }
            // Set once, under the lock above.
            Err(error) => drop(self.broken.set(error.to_string())),
        }
        result
    }

    fn syncs_directories(&self, session: &Session) -> bool {
        session.features().sync && self.directory_sync.get() != Some(&false)
    }

    fn sync_directories(&self, directories: &BTreeSet<String>) -> Result<()> {
        let session = self.pool.session()?;
        let directories: Vec<&String> = directories.iter().collect();
        for some in directories.chunks(DIRECTORIES_AT_ONCE) {
            if !self.syncs_directories(&session) {
                return Ok(());
            }
            let open = |directory: &&String| open_directory(&session, &self.path(directory));
            let opened: Vec<Answer<'_>> = some.iter().map(open).collect::<Result<_>>()?;
            let mut handles = Vec::new();
            for (directory, answer) in some.iter().zip(opened) {
                handles.extend(self.accept_sync(directory, answer.handle())?.map(|handle| (directory, handle)));
            }
            let sync = |handle: &Handle<'_>| session.send(&Request::Sync { handle: handle.bytes() });
            let synced: Vec<_> = handles.iter().map(|(_, handle)| sync(handle)).collect::<Result<_>>()?;
            for ((directory, _), answer) in handles.iter().zip(synced) {
                if self.accept_sync(directory, answer.done())?.is_some() {
                    self.directory_sync.get_or_init(|| true);
                }
            }
        }
        Ok(())
    }

    /// What a refusal to open or sync a directory means. From a server that never did, that it
    /// does not; from one that did, that its disk fails, unless the directory is gone.
    fn accept_sync<T>(&self, directory: &str, called: Called<T>) -> Result<Option<T>> {
        let refusal = match called {
            Ok(done) => return Ok(Some(done)),
            Err(refusal) => refusal,
        };
        if refusal.code().is_some() {
            let session = self.pool.session()?;
            // Removed by someone who may.
            if !directory.is_empty() && !self.is_there(&session, directory).unwrap_or(true) {
                return Ok(None);
            }
            if !self.directory_sync.get_or_init(|| false) {
                return Ok(None);
            }
        }
        Err(self.failure("cannot sync directory", directory, refusal))
    }

    /// Makes the entry of the root in its own parent durable, if that is ours to ask for.
    fn sync_parent(&self) -> Result<()> {
        let session = self.pool.session()?;
        if self.root.is_empty() || !self.syncs_directories(&session) {
            return Ok(());
        }
        let path = match parent(&self.root) {
            "" => "/",
            path => path,
        };
        let handle = match open_directory(&session, path)?.handle() {
            Ok(handle) => handle,
            // A directory that only others may read: it is theirs to keep.
            Err(Refusal::Status(_)) => return Ok(()),
            Err(Refusal::Session(error)) => return Err(error),
        };
        match session.send(&Request::Sync { handle: handle.bytes() })?.done() {
            Err(Refusal::Status(status)) if status.code == Code::Failure => {
                let place = self.pool.location().at(path);
                Err(super::failure("cannot sync directory", &place, &place, Refusal::Status(status)))
            }
            Err(Refusal::Session(error)) => Err(error),
            Ok(()) | Err(Refusal::Status(_)) => Ok(()),
        }
    }

    /// Fails unless every object is there, as long as it was put.
    fn look_for(&self, objects: &BTreeMap<String, u64>) -> Result<()> {
        let session = self.pool.session()?;
        let objects: Vec<_> = objects.iter().collect();
        for some in objects.chunks(REQUESTS) {
            let look = |(name, _): &(&String, &u64)| session.send(&Request::LinkStatus { path: &self.path(name) });
            let looked: Vec<Answer<'_>> = some.iter().map(look).collect::<Result<_>>()?;
            for (&(name, bytes), answer) in some.iter().zip(looked) {
                let found = match answer.attributes() {
                    Ok(attributes) => Some(object_bytes(self, name, &attributes)?),
                    Err(refusal) if refusal.is_no_such_file() => None,
                    Err(refusal) => return Err(self.failure("cannot look at", name, refusal)),
                };
                if found != Some(*bytes) {
                    let place = self.place_of("");
                    let message = format!("`{place}` lost `{name}`, which it had acknowledged, with the connection");
                    return Err(Error::new(ErrorKind::Io, message));
                }
            }
        }
        Ok(())
    }

    /// An error of making something `bytes` long. A server has no word for a full disk, so it is
    /// asked how much room is left.
    fn write_failure(&self, session: &Session, name: &str, bytes: u64, refusal: Refusal) -> Error {
        if refusal.code() == Some(Code::Failure)
            && let Some(space) = session.space(&self.path(""))
            && (space.bytes_available <= bytes.max(4096) || space.files_available == 0)
        {
            let message = format!("no space left for `{name}` in `{}`", self.place_of(""));
            return Error::new(ErrorKind::Full, message);
        }
        write_failure(&self.place_of(name), refusal)
    }
}

/// What a published object leaves behind.
enum Left {
    /// A second name in `tmp/`.
    Temporary,
    Nothing,
}

/// Opens a directory like a file.
fn open_directory<'a>(session: &'a Session, path: &str) -> Result<Answer<'a>> {
    session.send(&Request::Open { path, flags: wire::READ, mode: 0 })
}
