//! One `ssh` with an SFTP server at its other end, and requests in flight on it.
//!
//! Any number of threads send requests; each gets an [`Answer`] to wait for, so that many are
//! under way at once. Three threads serve a session: one writes packets to `ssh`, one reads
//! replies and hands them out by number, one keeps the last words of `ssh` for messages.
//!
//! A session that is lost stays lost: every answer outstanding and every later request is an
//! [`ErrorKind::Transient`] error, and [`super::pool`] opens another in its place. Lost is also a
//! session on which nothing arrives for [`STALL`] while something is awaited. Whatever
//! ends it, `ssh` is ended and waited for, with all it started.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::process::{Pid, Signal, kill_process_group};

use super::ssh;
use super::wire::{self, Reply, Request};
use crate::storage::{Error, ErrorKind, Result};

/// How long a server may be silent while it owes an answer. Long, since a disk may have to spin
/// up or a sync to wait for others; a dead network is noticed sooner, by `ssh` itself.
const STALL: Duration = Duration::from_secs(180);

/// How long it may take until an SFTP server says hello.
const HELLO: Duration = Duration::from_secs(60);

/// How long a session that is done with may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many requests wait for `ssh` to take them.
const QUEUE: usize = 16;

/// How much of the last words of `ssh` is kept.
const WORDS_BYTES: usize = 2048;

/// What a server takes in one request if it does not say: what all must take.
const PIECE_BYTES: u32 = 32 * 1024;

/// What a server can do beyond version 3, and how much at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) sync: bool,
    pub(super) hard_link: bool,
    pub(super) posix_rename: bool,
    pub(super) space: bool,
    pub(super) read_bytes: u32,
    pub(super) write_bytes: u32,
}

/// Why `ssh` did not get to a server, in its own words.
#[derive(Debug)]
pub(super) struct Words(String);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Words {}

/// A connection to an SFTP server.
#[derive(Debug)]
pub(super) struct Session {
    requests: Option<Sender<Vec<u8>>>,
    shared: Arc<Shared>,
    features: Features,
}

#[derive(Debug)]
struct Shared {
    /// The server, for messages.
    server: String,
    state: Mutex<State>,
    /// Notified when nothing is awaited any more, and when the session is lost.
    idle: Condvar,
    /// Counts packets, to tell slow from stalled.
    arrived: AtomicU64,
    /// Until it was waited for. Its number is that of its process group.
    process: Mutex<Option<Child>>,
    words: Mutex<Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<u32, Sender<Reply>>,
    last: u32,
    lost: Option<String>,
}

/// Every lock here guards what is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Runs `command`, an `ssh` to `server`, and greets the SFTP server behind it.
    pub(super) fn open(mut command: Command, server: &str) -> Result<Self> {
        let mut child = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy();
            Error::new(ErrorKind::Io, format!("cannot run `{program}`")).because(error)
        })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            state: Mutex::default(),
            idle: Condvar::new(),
            arrived: AtomicU64::new(0),
            process: Mutex::new(Some(child)),
            words: Mutex::default(),
        });
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            unreachable!("the command has three pipes");
        };
        let (requests, queue) = bounded(QUEUE);
        let (greeted, hello) = bounded(1);
        let (silent, all_said) = bounded(0);
        start("sftp-words", {
            let shared = Arc::clone(&shared);
            move || shared.listen(stderr, silent)
        })?;
        start("sftp-write", move || write(&queue, stdin))?;
        start("sftp-read", {
            let shared = Arc::clone(&shared);
            move || shared.read(stdout, &greeted, &all_said)
        })?;
        let mut session = Self { requests: Some(requests), shared, features: Features::default() };
        // Refused only if `ssh` has ended, and then the reader says why.
        let _ = session.requests.as_ref().map(|requests| requests.send(wire::hello()));
        let extensions: Vec<String> = match hello.recv_timeout(HELLO) {
            Ok(greeting) => greeting?,
            Err(RecvTimeoutError::Timeout) => {
                session.shared.kill();
                let message = format!("no SFTP server answered at `{server}` for {} seconds", HELLO.as_secs());
                return Err(Error::new(ErrorKind::Transient, message));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(session.shared.lost()),
        };
        session.features = session.ask_features(&extensions)?;
        Ok(session)
    }

    fn ask_features(&self, extensions: &[String]) -> Result<Features> {
        let has = |name: &str| extensions.iter().any(|extension| extension == name);
        let mut features = Features {
            sync: has("fsync@openssh.com"),
            hard_link: has("hardlink@openssh.com"),
            posix_rename: has("posix-rename@openssh.com"),
            space: has("statvfs@openssh.com"),
            read_bytes: PIECE_BYTES,
            write_bytes: PIECE_BYTES,
        };
        if has("limits@openssh.com")
            && let Reply::Extended(limits) = self.send(&Request::Limits)?.wait()?
            && let Ok((read, write)) = wire::decode_limits(&limits)
        {
            // A reply must fit into a packet that is taken, and a zero says nothing.
            let piece = |limit: u64| match u32::try_from(limit.min(256 * 1024)) {
                Ok(limit) if limit > 0 => limit,
                _ => PIECE_BYTES,
            };
            (features.read_bytes, features.write_bytes) = (piece(read), piece(write));
        }
        Ok(features)
    }

    pub(super) fn features(&self) -> Features {
        self.features
    }

    /// Sends a request. Its answer need not be waited for.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Answer<'_>> {
        let (sender, reply) = bounded(1);
        let id = {
            let mut state = lock(&self.shared.state);
            if state.lost.is_some() {
                drop(state);
                return Err(self.shared.lost());
            }
            // A number comes round again after four billion requests, when its answer is long in.
            state.last = state.last.wrapping_add(1);
            let id = state.last;
            state.waiting.insert(id, sender);
            id
        };
        self.send_packet(request.encode(id))?;
        Ok(Answer { session: self, reply })
    }

    fn send_packet(&self, packet: Vec<u8>) -> Result<()> {
        let requests = self.requests.as_ref().expect("only dropping takes it");
        requests.send_timeout(packet, STALL).map_err(|error| {
            let why = if error.is_timeout() { "it took nothing for minutes" } else { "the connection is closed" };
            self.shared.give_up(why)
        })
    }

    pub(super) fn is_lost(&self) -> bool {
        lock(&self.shared.state).lost.is_some()
    }
}

/// Waits until what was asked is answered, a moment at most, and ends `ssh`.
impl Drop for Session {
    fn drop(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        let state = lock(&self.shared.state);
        let open = |state: &mut State| !state.waiting.is_empty() && state.lost.is_none();
        let waited = self.shared.idle.wait_timeout_while(state, FAREWELL, open);
        drop(waited);
        // Ends the writer, which closes the input of `ssh`.
        self.requests = None;
        while lock(&self.shared.process).is_some() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        self.shared.kill();
    }
}

/// The reply to a request, when it comes.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    session: &'a Session,
    reply: Receiver<Reply>,
}

impl<'a> Answer<'a> {
    pub(super) fn session(&self) -> &'a Session {
        self.session
    }

    pub(super) fn wait(self) -> Result<Reply> {
        let shared = &self.session.shared;
        loop {
            let arrived = shared.arrived.load(Ordering::Relaxed);
            match self.reply.recv_timeout(STALL) {
                Ok(reply) => return Ok(reply),
                Err(RecvTimeoutError::Disconnected) => return Err(shared.lost()),
                Err(RecvTimeoutError::Timeout) if shared.arrived.load(Ordering::Relaxed) != arrived => {}
                Err(RecvTimeoutError::Timeout) => return Err(shared.give_up("it was silent for minutes")),
            }
        }
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(work);
    thread.map(drop).map_err(|error| Error::new(ErrorKind::Io, "cannot start a thread").because(error))
}

/// Hands packets to `ssh` until there are no more, or it takes no more.
fn write(queue: &Receiver<Vec<u8>>, mut stdin: ChildStdin) {
    for packet in queue {
        if stdin.write_all(&packet).is_err() {
            return;
        }
    }
}

impl Shared {
    /// Keeps the last words of `ssh`; `_silent` tells by its end that these are all.
    fn listen(&self, mut stderr: ChildStderr, _silent: Sender<()>) {
        let mut buffer = [0; 512];
        while let Ok(count @ 1..) = stderr.read(&mut buffer) {
            let mut words = lock(&self.words);
            words.extend_from_slice(&buffer[..count]);
            let excess = words.len().saturating_sub(WORDS_BYTES);
            words.drain(..excess);
        }
    }

    /// Hands out replies until the session ends, and sees to the end.
    fn read(&self, mut stdout: ChildStdout, greeted: &Sender<Result<Vec<String>>>, all_said: &Receiver<()>) {
        let greeting = greet(&mut stdout);
        let (why, before_hello) = match greeting {
            Ok(Ok(extensions)) => {
                // Banners and warnings of the way here are not why the session will end.
                lock(&self.words).clear();
                let _ = greeted.send(Ok(extensions));
                let end = self.hand_out(&mut stdout);
                (end.err().map_or_else(String::new, |error| error.to_string()), false)
            }
            Ok(Err(why)) => (why, true),
            Err(error) => (error.to_string(), true),
        };
        // What ended may end as a whole, or only its output.
        let status = self.reap();
        // Someone it started may hold its error output open for longer than it matters.
        let _ = all_said.recv_timeout(Duration::from_millis(500));
        let words = self.words();
        let said = match (words.is_empty(), status) {
            (false, _) => words,
            (true, Some(status)) if !status.success() => format!("{why} ({status})"),
            _ => why.clone(),
        };
        if before_hello {
            let kind = ssh::kind_of_refusal(&said);
            let message = format!("cannot open an SFTP session at `{}`", self.server);
            let _ = greeted.send(Err(Error::new(kind, message).because(Words(said.clone()))));
        }
        let mut state = lock(&self.state);
        state.lost.get_or_insert(said);
        // Whoever waits sees that the answer will never come.
        state.waiting.clear();
        self.idle.notify_all();
    }

    fn hand_out(&self, stdout: &mut ChildStdout) -> io::Result<()> {
        loop {
            let packet = read_packet(stdout)?;
            let (id, reply) = Reply::decode(&packet).map_err(|_| io::Error::other("a reply was no SFTP packet"))?;
            self.arrived.fetch_add(1, Ordering::Relaxed);
            let mut state = lock(&self.state);
            let Some(waiting) = state.waiting.remove(&id) else {
                return Err(io::Error::other("a reply answers nothing that was asked"));
            };
            if state.waiting.is_empty() {
                self.idle.notify_all();
            }
            drop(state);
            // Nobody may wait for it.
            let _ = waiting.send(reply);
        }
    }

    /// Waits for `ssh` a moment, then ends it. How it ended, if it is known.
    fn reap(&self) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + FAREWELL;
        loop {
            let mut process = lock(&self.process);
            let child = process.as_mut()?;
            match child.try_wait() {
                Ok(None) if Instant::now() < deadline => {}
                Ok(None) => {
                    kill_group(child);
                    let status = child.wait().ok();
                    *process = None;
                    return status;
                }
                Ok(Some(status)) => {
                    *process = None;
                    return Some(status);
                }
                Err(_) => {
                    *process = None;
                    return None;
                }
            }
            drop(process);
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends `ssh` and what it started. The reader waits for it.
    fn kill(&self) {
        if let Some(child) = &*lock(&self.process) {
            kill_group(child);
        }
    }

    /// Declares the session lost.
    fn give_up(&self, why: &str) -> Error {
        self.kill();
        let words = self.words();
        let why = if words.is_empty() { why.to_owned() } else { words };
        lock(&self.state).lost.get_or_insert(why);
        self.lost()
    }

    /// The error of a request that will not be answered.
    fn lost(&self) -> Error {
        let error = Error::new(ErrorKind::Transient, format!("lost the connection to `{}`", self.server));
        match &lock(&self.state).lost {
            Some(why) if !why.is_empty() => error.because(why.clone()),
            _ => error,
        }
    }

    /// The last lines that `ssh` said, as one.
    fn words(&self) -> String {
        let words = lock(&self.words);
        let words = String::from_utf8_lossy(&words);
        let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let clean = |text: String| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        clean(lines[lines.len().saturating_sub(6)..].join("; "))
    }
}

/// Kills by the number of a process that was not waited for yet, so it is no other's.
fn kill_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Reads the server's hello: its extensions, or what is wrong with it.
fn greet(stdout: &mut ChildStdout) -> io::Result<std::result::Result<Vec<String>, String>> {
    let packet = match read_packet(stdout) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let why = "what the server sent is not SFTP: a start-up script there may print something".to_owned();
            return Ok(Err(why));
        }
        packet => packet?,
    };
    Ok(match wire::decode_hello(&packet) {
        Ok((wire::VERSION, extensions)) => Ok(extensions),
        Ok((version, _)) => Err(format!("the server speaks version {version} of SFTP, expected {}", wire::VERSION)),
        Err(wire::Malformed) => Err("what the server sent is not SFTP".to_owned()),
    })
}

fn read_packet(stdout: &mut ChildStdout) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stdout.read_exact(&mut length).map_err(closed)?;
    let length = wire::packet_bytes(length);
    if length > wire::PACKET_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a reply of {length} bytes is too long")));
    }
    let mut packet = vec![0; length];
    stdout.read_exact(&mut packet).map_err(closed)?;
    Ok(packet)
}

fn closed(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the connection was closed"),
        _ => error,
    }
}
