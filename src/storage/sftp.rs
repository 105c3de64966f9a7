//! A storage in a directory of another machine, over SSH and SFTP.
//!
//! The layout is that of [`super::local`], so a repository that is reached over SSH is the same
//! one that is reached on its server. [`ssh`] knows where it is and runs the system's `ssh`;
//! [`wire`] is the protocol, [`session`] one connection, [`calls`] what is asked of it, and
//! [`pool`] keeps several; [`open`] begins from a URL. [`persist`] makes objects, whole and as durable as the server allows;
//! [`walk`] lists them.
//!
//! The protocol is spoken here rather than by a library, for three things no library offers at
//! once: syncing a directory (OpenSSH opens one like a file, and syncs it), a rename that is sure
//! to replace nothing, and replies of which none can end or fill this program.
//!
//! Links are not followed to an object, as in a local directory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, Once, OnceLock};

use super::memory::{BufferedWriter, refuse_to_read_whole, too_short};
use super::{Error, ErrorKind, Listed, ObjectWriter, Result, Storage, WriteMode, name};
use crate::id::hex;
use crate::world::World;

mod calls;
mod open;
mod persist;
mod pool;
mod session;
mod ssh;
mod walk;
pub(crate) mod wire;

use calls::{Refusal, failure};
use pool::Pool;
use session::Session;
use wire::{Attributes, FileType, Request};

pub use open::{advice, reach};
pub use ssh::{Location, Options};

/// Connections to a server unless it is said otherwise: one moves at most a window's worth for
/// each round trip, and a server lets in ten at a time who have not logged in yet.
const CONNECTIONS: usize = 4;

/// How much of an object of unknown length is made room for at once.
const READ_STEP_BYTES: u64 = 64 << 20;

/// Objects as files below a directory of another machine.
#[derive(Debug, Clone)]
pub struct Sftp {
    server: Arc<Server>,
}

/// What is durable once a barrier has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Objects and their names.
    Names,
    /// Objects, but a loss of power may still take their names.
    Contents,
    /// Nothing that the server's system has not written by itself: it cannot be asked to.
    Nothing,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Names => "objects and their names are durable once they are acknowledged",
            Self::Contents => {
                "this server does not sync directories: if it loses power, objects of the last minute may be gone"
            }
            Self::Nothing => {
                "this server does not sync files (no fsync@openssh.com): if it loses power, objects of the last minute \
                 may be damaged or gone"
            }
        })
    }
}

/// The directory and what is known of its state.
#[derive(Debug)]
struct Server {
    pool: Pool,
    /// The directory, absolute; `/` is empty, so that a slash and a name may follow.
    root: String,
    /// Begins the names of this storage's temporary files, and no other's.
    run: String,
    next_temporary: AtomicU64,
    leftovers: Once,
    changed: Mutex<Changed>,
    barrier: Mutex<()>,
    /// Whether the server refused to link, so that it is not asked again.
    no_links: AtomicBool,
    /// Whether the server syncs directories, once that was tried.
    directory_sync: OnceLock<bool>,
    /// Why nothing may be written any more.
    broken: OnceLock<String>,
}

/// What was put and deleted. Directories are by their paths below the root, the empty path.
#[derive(Debug, Default)]
struct Changed {
    /// Directories that gained or lost an entry since the last barrier.
    directories: BTreeSet<String>,
    /// Those whose own entries in their parents are seen to.
    ever: HashSet<String>,
    /// Objects put since the last barrier, with their lengths.
    objects: BTreeMap<String, u64>,
    /// How many sessions had been lost at the last barrier.
    lost: u64,
}

impl Sftp {
    /// Makes the directory, whose parent must exist, and the pack directories in it.
    ///
    /// An empty directory will do, and one left by the making of a repository that was interrupted.
    /// [`ErrorKind::Exists`] when it holds anything else.
    pub fn create(location: &Location, options: &Options) -> Result<Self> {
        let pool = Pool::new(location.clone(), options.clone());
        let session = pool.session()?;
        let path = location.path();
        match session.send(&Request::MakeDirectory { path, mode: persist::DIRECTORY_MODE })?.done() {
            // It may be there; if not, opening it says so.
            Ok(()) | Err(Refusal::Status(_)) => {}
            Err(Refusal::Session(error)) => return Err(error),
        }
        drop(session);
        let sftp = Self::connect(pool).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let message =
                    format!("cannot create `{location}`: is the directory above it there, and ours to change?");
                Error::new(ErrorKind::Denied, message).because(error)
            }
            _ => error,
        })?;
        sftp.refuse_what_is_not_ours()?;
        sftp.server.make_pack_directories()?;
        Ok(sftp)
    }

    /// Opens a directory that exists; [`ErrorKind::NotFound`] when it does not. Writes nothing.
    pub fn open(location: &Location, options: &Options) -> Result<Self> {
        Self::connect(Pool::new(location.clone(), options.clone()))
    }

    fn connect(pool: Pool) -> Result<Self> {
        let location = pool.location().clone();
        let fault = |refusal| failure("cannot open", &location.to_string(), &location.to_string(), refusal);
        let session = pool.session()?;
        // First, since some servers know a real path of what is not there.
        let answer = session.send(&Request::Status { path: location.path() })?;
        let attributes = answer.attributes().map_err(fault)?;
        if !matches!(attributes.file_type(), FileType::Directory | FileType::Unknown) {
            return Err(Error::new(ErrorKind::Io, format!("`{location}` is not a directory")));
        }
        let root = session.real_path(location.path()).map_err(fault)?;
        drop(session);
        let server = Server {
            pool,
            root: root.trim_end_matches('/').to_owned(),
            run: hex(&World::system().random::<8>()),
            next_temporary: AtomicU64::new(0),
            leftovers: Once::new(),
            changed: Mutex::default(),
            barrier: Mutex::default(),
            no_links: AtomicBool::new(false),
            directory_sync: OnceLock::new(),
            broken: OnceLock::new(),
        };
        Ok(Self { server: Arc::new(server) })
    }

    /// What a barrier of this storage is worth, as far as is known: a server that syncs files
    /// may turn out at the first barrier not to sync directories.
    pub fn durability(&self) -> Result<Durability> {
        Ok(match self.server.pool.features()?.sync {
            false => Durability::Nothing,
            true if self.server.directory_sync.get() == Some(&false) => Durability::Contents,
            true => Durability::Names,
        })
    }

    fn refuse_what_is_not_ours(&self) -> Result<()> {
        let place = self.place();
        let refuse = |found: &str| {
            Err(Error::new(ErrorKind::Exists, format!("directory `{place}` is not empty: it holds `{found}`")))
        };
        let fault = |refusal| failure("cannot list", &place, &place, refusal);
        let session = self.server.pool.session()?;
        let handle = session.send(&Request::OpenDirectory { path: &self.server.path("") })?.handle().map_err(fault)?;
        loop {
            let answer = session.send(&Request::ReadDirectory { handle: handle.bytes() })?;
            let Some(entries) = answer.names().map_err(fault)? else { break };
            let may_exist = |entry: &[u8]| {
                matches!(entry, b"." | b"..") || name::MAY_EXIST.iter().any(|name| name.as_bytes() == entry)
            };
            if let Some(entry) = entries.iter().find(|entry| !may_exist(&entry.name)) {
                return refuse(&String::from_utf8_lossy(&entry.name).escape_debug().to_string());
            }
        }
        match self.list("")?.iter().find(|object| !name::is_of_a_making(&object.name)) {
            Some(object) => refuse(&object.name),
            None => Ok(()),
        }
    }
}

impl Server {
    /// Where a name is on the server; empty for the root.
    fn path(&self, name: &str) -> String {
        match (self.root.as_str(), name) {
            ("", "") => "/".to_owned(),
            (root, "") => root.to_owned(),
            (root, name) => format!("{root}/{name}"),
        }
    }

    /// The same for people.
    fn place_of(&self, name: &str) -> String {
        self.pool.location().at(&self.path(name.trim_end_matches('/')))
    }

    fn no_file(&self, name: &str) -> Error {
        Error::new(ErrorKind::Io, format!("`{}` is not a file", self.place_of(name)))
    }

    fn failure(&self, what: &str, name: &str, refusal: Refusal) -> Error {
        failure(what, &self.place_of(name), name, refusal)
    }

    /// Reads an object: all of it, or exactly a range.
    fn read(&self, name: &str, range: Option<(u64, u64)>) -> Result<Vec<u8>> {
        name::check(name)?;
        let session = self.pool.session()?;
        let path = self.path(name);
        let fault = |refusal| self.failure("cannot read", name, refusal);
        // Together, since a server follows a link when it opens.
        let looked = session.send(&Request::LinkStatus { path: &path })?;
        let opened = session.send(&Request::Open { path: &path, flags: wire::READ, mode: 0 })?;
        object_bytes(self, name, &looked.attributes().map_err(fault)?)?;
        let handle = opened.handle().map_err(fault)?;
        // An object may have been replaced meanwhile: what counts is the length of what is open.
        let answer = session.send(&Request::HandleStatus { handle: handle.bytes() })?;
        let found = object_bytes(self, name, &answer.attributes().map_err(fault)?)?;
        if range.is_none() {
            refuse_to_read_whole(name, found)?;
        }
        let (offset, length) = range.unwrap_or((0, found));
        if offset.checked_add(length).is_none_or(|end| end > found) {
            return Err(too_short(name, offset, length, found));
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            // A server may claim any length, so room is made for what it also sends.
            let begin = bytes.len();
            let step = usize::try_from(READ_STEP_BYTES.min(length - begin as u64)).unwrap_or(usize::MAX);
            bytes
                .try_reserve_exact(step)
                .map_err(|error| Error::new(ErrorKind::Io, format!("no memory for object `{name}`")).because(error))?;
            bytes.resize(begin + step, 0);
            let count = session.read(&handle, offset + begin as u64, &mut bytes[begin..]).map_err(fault)?;
            if count < step {
                return Err(too_short(name, offset, length, offset + (begin + count) as u64));
            }
        }
        Ok(bytes)
    }

    fn look(&self, session: &Session, name: &str) -> calls::Called<Attributes> {
        session.send(&Request::LinkStatus { path: &self.path(name) })?.attributes()
    }
}

/// The length of an object, given what the server says of its file.
fn object_bytes(server: &Server, name: &str, attributes: &Attributes) -> Result<u64> {
    match (attributes.file_type(), attributes.bytes) {
        (FileType::File, Some(bytes)) => Ok(bytes),
        (FileType::Directory, _) => Err(Error::not_found(name)),
        _ => Err(server.no_file(name)),
    }
}

impl Storage for Sftp {
    fn place(&self) -> String {
        self.server.place_of("")
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        self.server.put(name, bytes, mode)
    }

    /// Gathers the object in memory, so that all of it can be sent again over another
    /// connection when one is lost.
    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(BufferedWriter::new(self.clone())))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.server.read(name, None)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.server.read(name, Some((offset, length)))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        name::check_prefix(prefix)?;
        self.server.list(prefix)
    }

    fn stat(&self, name: &str) -> Result<u64> {
        name::check(name)?;
        let session = self.server.pool.session()?;
        let looked = self.server.look(&session, name);
        let attributes = looked.map_err(|refusal| self.server.failure("cannot look at", name, refusal))?;
        object_bytes(&self.server, name, &attributes)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.server.delete(name)
    }

    fn barrier(&self) -> Result<()> {
        self.server.barrier()
    }

    fn cover(&self, name: &str) -> Result<()> {
        name::check(name)?;
        self.server.cover(name);
        Ok(())
    }

    fn connections(&self) -> usize {
        self.server.pool.limit()
    }

    fn caveat(&self) -> Result<Option<String>> {
        let durability = self.durability()?;
        Ok((durability != Durability::Names).then(|| durability.to_string()))
    }
}
