//! Commands that others wrote, run with all they start as one group, for a limited time.
//!
//! A command is in a process group of its own, and whatever of that is left when it ends, or when its time is over, is
//! ended too: nothing goes on reading what is about to be removed, or holds open what is waited for. Both of its
//! outputs come here, as one. It is not reaped before its group was signalled, so that no signal meets another's.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How often it is looked whether it has ended, or should.
const TICK: Duration = Duration::from_millis(10);

/// How long a command has to stop once it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// How long output may still come from what outlived the command.
const DRAIN: Duration = Duration::from_millis(200);

/// So much of the end of the output is remembered.
pub const TAIL_BYTES: usize = 4096;

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// What it ended with; none when it was stopped because `stopping` said so.
    pub status: Option<ExitStatus>,
    /// Its time was over.
    pub timed_out: bool,
    /// The end of what it wrote.
    pub output: Vec<u8>,
    /// Whether that is not all.
    pub output_cut: bool,
}

/// Runs a command; `each` is given what it writes as it comes. Its stdin is the caller's to set.
///
/// # Errors
///
/// When it did not start, or was lost.
pub fn run(
    mut command: Command,
    timeout: Duration,
    stopping: &dyn Fn() -> bool,
    each: &mut dyn FnMut(&[u8]),
) -> io::Result<Ended> {
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let child = command.spawn()?;
    // What it holds of the pipe would keep the pipe open.
    drop(command);
    let mut running = Running { child, ended: false };
    let blocks = read_in_thread(reader);
    let mut tail = Tail::default();
    let began = Instant::now();
    let (mut timed_out, mut kill_at, mut drained_by) = (false, None, None);
    let mut is_open = true;
    loop {
        match is_open.then(|| blocks.recv_timeout(TICK)) {
            Some(Ok(block)) => {
                each(&block);
                tail.add(&block);
            }
            Some(Err(RecvTimeoutError::Timeout)) => {}
            Some(Err(RecvTimeoutError::Disconnected)) => is_open = false,
            None => std::thread::sleep(TICK / 5),
        }
        let now = Instant::now();
        if drained_by.is_none() && running.has_ended() {
            running.signal(Signal::KILL);
            drained_by = Some(now + DRAIN);
        }
        if drained_by.is_some_and(|by| !is_open || now >= by) {
            break;
        }
        if stopping() {
            // Dropped, it is ended.
            return Ok(Ended { status: None, timed_out: false, output: tail.bytes, output_cut: tail.cut });
        }
        if kill_at.is_none() && now.duration_since(began) >= timeout {
            running.signal(Signal::TERM);
            (timed_out, kill_at) = (true, Some(now + GRACE));
        }
        if kill_at.is_some_and(|at| now >= at) {
            running.signal(Signal::KILL);
        }
    }
    let status = Some(running.wait()?);
    Ok(Ended { status, timed_out, output: tail.bytes, output_cut: tail.cut })
}

/// Hands on what comes, in order; ends when nobody wants it.
fn read_in_thread(mut reader: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = bounded(16);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return,
                Ok(bytes) if send.send(buffer[..bytes].to_vec()).is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    });
    receive
}

/// A command, and all it has started in its group.
struct Running {
    child: Child,
    ended: bool,
}

impl Running {
    fn group(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn signal(&self, signal: Signal) {
        // That nobody is left to take it is what was wanted.
        let _ = self.group().map(|group| kill_process_group(group, signal));
    }

    /// Whether it has ended. It is not waited for yet, so that its number stays its own.
    fn has_ended(&self) -> bool {
        let Some(pid) = self.group() else { return true };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }

    fn wait(&mut self) -> io::Result<ExitStatus> {
        self.ended = true;
        self.child.wait()
    }
}

/// One that is not wanted any more is asked to stop, and ended if it does not.
impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.signal(Signal::TERM);
        let until = Instant::now() + GRACE;
        while !self.has_ended() && Instant::now() < until {
            std::thread::sleep(TICK);
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The end of what was written.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    fn add(&mut self, block: &[u8]) {
        self.bytes.extend_from_slice(block);
        if let Some(more) = self.bytes.len().checked_sub(TAIL_BYTES).filter(|more| *more > 0) {
            self.bytes.drain(..more);
            self.cut = true;
        }
    }
}
