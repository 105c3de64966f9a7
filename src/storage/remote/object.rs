//! [`Remote`]: objects behind an HTTP service, through calls that wait.
//!
//! Each call runs its requests on a small runtime of its own (the rest of the program has
//! threads) and ends: a request ends when nothing moves for the timeout, a call when it takes
//! longer than its bytes can explain. Nothing is retried here; [`crate::storage::retry`] does.
//!
//! A put is one whole request, acknowledged when it is durable, so a barrier has nothing to do.
//! WebDAV alone promises no whole puts: there the bytes go to a temporary name, are measured,
//! and get their name by MOVE. Temporary names begin with a dot, as no object's name does.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use opendal::{EntryMode, Operator};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::client::{CALL, Call, Client, Seen};
use super::options::{Options, known};
use super::refusal::{self, About};
use super::url::Url;
use super::{Kind, OpenError, Settings, service};
use crate::id::hex;
use crate::storage::memory::{BufferedWriter, too_short};
use crate::storage::parallel::try_map;
use crate::storage::{Error, ErrorKind, GET_BYTES_MAX, Listed, ObjectWriter, Result, Storage, WriteMode, name};
use crate::world::World;

/// A call may take as long as its bytes take at this rate, beside the timeout.
const BYTES_PER_SEC_LEAST: u64 = 16 << 10;

/// How many timeouts a call without many bytes may take; a long list has many requests.
const TIMEOUTS_A_CALL: u32 = 4;

/// The most levels of WebDAV folders that are looked into; a repository has two.
const LEVELS_MAX: usize = 16;

/// Objects of one bucket, container or WebDAV folder. A clone is another handle.
#[derive(Clone)]
pub(super) struct Remote {
    service: Arc<Service>,
}

struct Service {
    operator: Operator,
    kind: Kind,
    place: String,
    /// Values that must stand in no message.
    secrets: Vec<String>,
    connections: usize,
    gate: Semaphore,
    timeout: Duration,
    /// Begins the names of this storage's temporary objects, and no other's.
    run: String,
    next_temporary: AtomicU64,
    /// Whether a call has succeeded: the place and the credentials are right.
    worked: AtomicBool,
    /// Whether the server has said that it knows no conditions.
    no_conditions: AtomicBool,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.service.place)
    }
}

/// Bytes that a request holds on to without a copy.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What must stand in no message: what is configured, and what the libraries find in the environment.
fn secrets(kind: Kind, options: &Options) -> Vec<String> {
    let variables: &[&str] = match kind {
        Kind::S3 => &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
        Kind::Azblob => &["AZURE_STORAGE_ACCOUNT_KEY", "AZBLOB_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"],
        Kind::Gcs | Kind::Webdav | Kind::Sftp => &[],
    };
    let configured = known(kind).filter(|known| known.is_secret).filter_map(|known| options.get(known.name));
    let found = variables.iter().filter_map(|name| std::env::var(name).ok());
    let mut secrets: Vec<String> = configured.map(str::to_owned).chain(found).filter(|text| !text.is_empty()).collect();
    // One that is part of another would leave the rest of it.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

/// The one runtime of all remote storages.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("esker-net").enable_all().build()
    });
    runtime.as_ref().map_err(|error| {
        Error::new(ErrorKind::Io, format!("cannot start the threads that talk to the network: {error}"))
    })
}

/// The result of a call's requests, and what its last answer was.
type Asked<T> = (std::result::Result<T, opendal::Error>, Seen);

impl Remote {
    /// The storage a URL names. Asks no server.
    pub(super) fn new(kind: Kind, url: &Url, options: &Options, settings: &Settings) -> Result<Self, OpenError> {
        // The client's connections belong to the runtime.
        let _entered = runtime()?.enter();
        let (timeout, connections) = (options.timeout()?, options.connections()?);
        let client = Client::new(settings, timeout, connections)?;
        // Those that fetch tokens by themselves use this one; the first is as good as any.
        opendal::HttpTransporter::install_default(client.clone());
        let (operator, place) = service::build(kind, url, options)?;
        let context = opendal::OperationContext::new().with_http_transport(opendal::HttpTransporter::new(client));
        let service = Service {
            operator: operator.with_context(context),
            kind,
            place,
            secrets: secrets(kind, options),
            connections,
            gate: Semaphore::new(connections),
            timeout,
            run: hex(&World::system().random::<8>()),
            next_temporary: AtomicU64::new(0),
            worked: AtomicBool::new(false),
            no_conditions: AtomicBool::new(false),
        };
        Ok(Self { service: Arc::new(service) })
    }

    /// Runs requests that move about `bytes` to their end, a good or a bad one.
    fn ask<T, F>(&self, name: &str, bytes: u64, call: Call, requests: impl FnOnce(Operator) -> F) -> Result<Asked<T>>
    where
        F: Future<Output = std::result::Result<T, opendal::Error>>,
    {
        let service = &*self.service;
        let most = service.timeout * TIMEOUTS_A_CALL + Duration::from_secs(bytes / BYTES_PER_SEC_LEAST);
        let call = Arc::new(call);
        let requests = requests(service.operator.clone());
        let runtime = runtime()?;
        let wait = || {
            runtime.block_on(async {
                // Never closed, so this waits for a turn and does not fail.
                let _turn = service.gate.acquire().await;
                tokio::time::timeout(most, CALL.scope(call.clone(), requests)).await
            })
        };
        // The library panics at some answers, such as names of 64 KiB; nothing of ours is half
        // changed when it does.
        let done = catch_unwind(AssertUnwindSafe(wait)).map_err(|_| {
            let text = format!("`{name}` at `{}` failed: the answer makes no sense", service.place);
            Error::new(ErrorKind::Io, text)
        })?;
        match done {
            Ok(result) => {
                if result.is_ok() {
                    service.worked.store(true, Ordering::Relaxed);
                }
                Ok((result, call.seen()))
            }
            Err(_) => {
                let text = format!("`{name}` at `{}` took longer than {} s", service.place, most.as_secs());
                Err(Error::new(ErrorKind::Transient, text))
            }
        }
    }

    /// Like [`Self::ask`], with the storage's error.
    fn run<T, F>(&self, name: &str, bytes: u64, requests: impl FnOnce(Operator) -> F) -> Result<(T, Seen)>
    where
        F: Future<Output = std::result::Result<T, opendal::Error>>,
    {
        let (result, seen) = self.ask(name, bytes, Call::default(), requests)?;
        match result {
            Ok(value) => Ok((value, seen)),
            Err(fault) => Err(self.error(name, &fault, &seen)),
        }
    }

    fn error(&self, name: &str, fault: &opendal::Error, seen: &Seen) -> Error {
        let Service { kind, place, secrets, worked, .. } = &*self.service;
        let worked = worked.load(Ordering::Relaxed);
        refusal::error(About { kind: *kind, place, name, secrets, worked }, fault, seen)
    }

    fn put_body(&self, name: &str, body: opendal::Buffer, mode: WriteMode) -> Result<()> {
        name::check(name)?;
        match self.service.kind {
            Kind::Webdav => self.put_and_move(name, body, mode),
            _ => self.put_at_once(name, body, mode),
        }
    }

    /// One request that stores all of it.
    fn put_at_once(&self, name: &str, body: opendal::Buffer, mode: WriteMode) -> Result<()> {
        let service = &*self.service;
        let can = service.operator.info().capability().write_with_if_not_exists;
        let create = mode == WriteMode::CreateNew && can && !service.no_conditions.load(Ordering::Relaxed);
        let bytes = body.len() as u64;
        let put = |create: bool, body: opendal::Buffer| {
            self.ask(name, bytes, Call::default(), |operator| async move {
                operator.write_with(name, body).if_not_exists(create).await
            })
        };
        let (result, seen) = put(create, body.clone())?;
        let (result, seen) = match result {
            // The server knows no conditions: the next puts do not ask.
            Err(_) if create && refusal::is_unsupported(&seen) => {
                service.no_conditions.store(true, Ordering::Relaxed);
                put(false, body)?
            }
            result => (result, seen),
        };
        match result {
            Ok(_) => Ok(()),
            Err(fault) => Err(self.error(name, &fault, &seen)),
        }
    }

    /// A temporary object that gets its name once it is whole.
    fn put_and_move(&self, name: &str, body: opendal::Buffer, mode: WriteMode) -> Result<()> {
        let service = &*self.service;
        let number = service.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = format!(".tmp-{}-{number}", service.run);
        let bytes = body.len() as u64;
        let moved = self.put_at_once(&temporary, body, WriteMode::Replace).and_then(|()| {
            let (found, _) = self.run(&temporary, 0, |operator| {
                let temporary = &temporary;
                async move { operator.stat(temporary).await }
            })?;
            if found.content_length() != bytes {
                return Err(too_short(name, 0, bytes, found.content_length()));
            }
            let call = Call { never_overwrite: mode == WriteMode::CreateNew, ..Call::default() };
            let (result, seen) = self.ask(name, 0, call, |operator| {
                let temporary = &temporary;
                async move { operator.rename(temporary, name).await }
            })?;
            result.map_err(|fault| self.error(name, &fault, &seen))
        });
        if moved.is_err() {
            // What is left is never listed; that it could not be removed says nothing new.
            let _ = self.run(&temporary, 0, |operator| {
                let temporary = &temporary;
                async move { operator.delete(temporary).await }
            });
        }
        moved
    }

    /// Bytes of an object, all or a range.
    /// Whether older versions of objects can be listed and read.
    pub(super) fn knows_versions(&self) -> bool {
        let can = self.service.operator.info().capability();
        can.list_with_versions && can.list_with_deleted && can.read_with_version
    }

    /// Every version of every object, and when each was deleted.
    pub(super) fn list_versions(&self) -> Result<Vec<opendal::Entry>> {
        let listed = self.run("", 0, |operator| async move {
            operator.list_with("").recursive(true).versions(true).deleted(true).await
        });
        Ok(listed?.0)
    }

    /// An object or a part of it; of a version, or of the newest.
    pub(super) fn read(&self, name: &str, version: Option<&str>, range: Option<(u64, u64)>) -> Result<(Vec<u8>, Seen)> {
        let bytes = range.map_or(64 << 20, |(_, length)| length);
        // A little more than was asked for, to tell a server that does not know ranges.
        let answer_bytes_max = range.map_or(GET_BYTES_MAX, |(_, length)| length.saturating_add(1 << 20));
        let call = Call { answer_bytes_max, ..Call::default() };
        let (result, seen) = self.ask(name, bytes, call, |operator| async move {
            let mut read = operator.read_with(name);
            if let Some(version) = version {
                read = read.version(version);
            }
            if let Some((offset, length)) = range {
                read = read.range(offset..offset + length);
            }
            read.await
        })?;
        // A WebDAV folder where an object should be answers with a page for a browser, or refuses
        // in some way of its own.
        let may_be_folder = seen.is_page || (result.is_err() && seen.status.is_some());
        if self.service.kind == Kind::Webdav && may_be_folder {
            self.stat(name)?;
        }
        let body = result.map_err(|fault| self.error(name, &fault, &seen))?;
        Ok((body.to_vec(), seen))
    }

    /// What is below a WebDAV folder, level by level, several folders at once: it has no way to
    /// ask for all of it that servers agree on.
    fn list_folders(&self, prefix: &str) -> Result<Vec<opendal::Entry>> {
        let (mut folders, mut all) = (vec![prefix.to_owned()], Vec::new());
        for _ in 0..LEVELS_MAX {
            let found = try_map(self.service.connections, &folders, |folder| {
                self.run(folder, 0, |operator| async move { operator.list(folder).await }).map(|(entries, _)| entries)
            })?;
            let mut below = Vec::new();
            for (folder, entries) in folders.iter().zip(found) {
                for entry in entries {
                    // Only what is directly in it, whatever the server says.
                    let Some(rest) = entry.path().strip_prefix(&folder[..]) else { continue };
                    match rest.strip_suffix('/') {
                        Some(inner) if name::is_component(inner) => below.push(format!("{folder}{inner}/")),
                        None if name::is_component(rest) => all.push(entry),
                        _ => {}
                    }
                }
            }
            if below.is_empty() {
                return Ok(all);
            }
            folders = below;
        }
        let place = self.place();
        Err(Error::new(ErrorKind::Io, format!("cannot list `{prefix}` at `{place}`: its folders lie too deep")))
    }

    /// Whether the bucket is there, when an answer without a body could not tell.
    fn tell_missing_object(&self, error: Error) -> Error {
        if self.service.worked.load(Ordering::Relaxed) || error.kind() != ErrorKind::NotFound {
            return error;
        }
        match self.run("", 0, |operator| async move { operator.list_with("no-such-folder/").limit(1).await }) {
            Ok(_) => error,
            Err(other) if other.kind() == ErrorKind::NotFound => error,
            Err(other) => other,
        }
    }
}

impl Storage for Remote {
    fn place(&self) -> String {
        self.service.place.clone()
    }

    fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
        self.put_body(name, opendal::Buffer::from(bytes.to_vec()), mode)
    }

    fn put_shared(&self, name: &str, bytes: &Arc<Vec<u8>>, mode: WriteMode) -> Result<()> {
        self.put_body(name, opendal::Buffer::from(Bytes::from_owner(Shared(bytes.clone()))), mode)
    }

    fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(BufferedWriter::new(self.clone())))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        name::check(name)?;
        Ok(self.read(name, None, None)?.0)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        name::check(name)?;
        let end = offset.checked_add(length);
        if length == 0 || end.is_none() {
            let found = self.stat(name)?;
            return match end {
                Some(end) if end <= found => Ok(Vec::new()),
                _ => Err(too_short(name, offset, length, found)),
            };
        }
        match self.read(name, None, Some((offset, length))) {
            // By what it says of the part, not by the status: some send parts with the wrong one.
            Ok((_, seen)) if seen.part_begins.unwrap_or(0) != offset => {
                let text =
                    format!("the server of `{}` sends another part of objects than it is asked for", self.place());
                Err(Error::new(ErrorKind::Io, text))
            }
            Ok((bytes, _)) if bytes.len() as u64 == length => Ok(bytes),
            // Shorter, or it begins behind the end: said with the true length.
            Ok(_) => Err(too_short(name, offset, length, self.stat(name)?)),
            Err(error) if error.kind() == ErrorKind::Corrupt => Err(too_short(name, offset, length, self.stat(name)?)),
            Err(error) => match self.stat(name) {
                // Some servers end the connection instead; what the range is of decides.
                Ok(found) if offset + length > found => Err(too_short(name, offset, length, found)),
                _ => Err(error),
            },
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        name::check_prefix(prefix)?;
        // WebDAV would list the object itself, and the library takes that for a contradiction.
        if let Some(name) = prefix.strip_suffix('/').filter(|_| self.service.kind == Kind::Webdav)
            && self.stat(name).is_ok()
        {
            return Ok(Vec::new());
        }
        let entries = match self.service.kind {
            Kind::Webdav => self.list_folders(prefix)?,
            _ => self.run(prefix, 0, |operator| async move { operator.list_with(prefix).recursive(true).await })?.0,
        };
        let mut listed = Vec::with_capacity(entries.len());
        for entry in entries {
            let (name, meta) = entry.into_parts();
            // Folders, temporary objects and whatever else lies there are no objects.
            if meta.mode() == EntryMode::FILE && name.starts_with(prefix) && name::check(&name).is_ok() {
                listed.push(Listed { name, bytes: meta.content_length() });
            }
        }
        listed.sort();
        // A server may say a name twice.
        listed.dedup_by(|a, b| a.name == b.name);
        Ok(listed)
    }

    fn stat(&self, name: &str) -> Result<u64> {
        name::check(name)?;
        let found = self.run(name, 0, |operator| async move { operator.stat(name).await });
        match found {
            Ok((meta, _)) if meta.mode() == EntryMode::FILE => Ok(meta.content_length()),
            Ok(_) => Err(Error::not_found(name)),
            Err(error) => Err(self.tell_missing_object(error)),
        }
    }

    fn delete(&self, name: &str) -> Result<()> {
        // S3 says the same whether there was one or not, and WebDAV would remove a whole folder.
        self.stat(name)?;
        self.run(name, 0, |operator| async move { operator.delete(name).await }).map(drop)
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn cover(&self, name: &str) -> Result<()> {
        name::check(name)
    }

    fn connections(&self) -> usize {
        self.service.connections
    }
}
