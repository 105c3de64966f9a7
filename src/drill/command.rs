//! The user's own check: a command of the shell, run where the snapshot was restored.
//!
//! It is in a process group of its own, and whatever of that is left when it ends, or when its time is over, is
//! ended too: nothing goes on reading what is about to be removed. It has no stdin, and its output comes here.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::error::{Context, Error, Kind, Result};
use crate::monitor::Monitor;

/// How often it is looked whether it has ended, or should.
const TICK: Duration = Duration::from_millis(10);

/// How long a command has to stop once it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// How long output may still come from what outlived the command.
const DRAIN: Duration = Duration::from_millis(200);

/// So much of the end of the output is remembered.
const TAIL_BYTES: usize = 4096;

/// A command to run.
#[derive(Debug, Clone)]
pub struct Check {
    /// Handed to `sh -c`.
    pub command: OsString,
    /// Its environment, all of it.
    pub env: Vec<(OsString, OsString)>,
    /// How long it may take.
    pub timeout: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its exit status, if it ended by itself.
    pub exit: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its time was over.
    pub timed_out: bool,
    /// The end of what it wrote.
    pub output: Vec<u8>,
    /// Whether that is not all.
    pub output_cut: bool,
}

impl Checked {
    /// Whether it says that all is well.
    pub fn passed(&self) -> bool {
        self.exit == Some(0) && !self.timed_out
    }
}

/// Runs the command in `dir`; `each` is given what it writes as it comes.
pub(super) fn run(check: &Check, dir: &Path, monitor: &Monitor, each: &mut dyn FnMut(&[u8])) -> Result<Checked> {
    let what = || format!("the check command `{}` was not run", check.command.display());
    let (reader, writer) = std::io::pipe().context(what)?;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(&check.command).env_clear().envs(check.env.iter().cloned()).current_dir(dir);
    command.stdin(Stdio::null()).stdout(writer.try_clone().context(what)?).stderr(writer).process_group(0);
    let child = command.spawn().context(what)?;
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
        if monitor.stopping() {
            return Err(Error::new(Kind::Interrupted, "the check command was interrupted"));
        }
        if kill_at.is_none() && now.duration_since(began) >= check.timeout {
            running.signal(Signal::TERM);
            (timed_out, kill_at) = (true, Some(now + GRACE));
        }
        if kill_at.is_some_and(|at| now >= at) {
            running.signal(Signal::KILL);
        }
    }
    let status = running.wait().context(|| format!("the check command `{}` was lost", check.command.display()))?;
    let (exit, signal) = (status.code(), status.signal());
    Ok(Checked { exit, signal, timed_out, output: tail.bytes, output_cut: tail.cut })
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
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
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

    fn wait(&mut self) -> std::io::Result<ExitStatus> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(command: &str, timeout: Duration) -> (Checked, String) {
        let env = vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())];
        let check = Check { command: command.into(), env, timeout };
        let mut said = Vec::new();
        let done = run(&check, Path::new("/"), &Monitor::silent(), &mut |block| said.extend_from_slice(block)).unwrap();
        (done, String::from_utf8(said).unwrap())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_command_says_how_it_ended_and_what_it_wrote() {
        let (done, said) = checked("pwd; echo wrong >&2; exit 3", LONG);
        assert_eq!((done.exit, done.signal, done.passed(), said.as_str()), (Some(3), None, false, "/\nwrong\n"));
        assert!(checked("true", LONG).0.passed());
        let (done, _) = checked("kill -9 $$", LONG);
        assert_eq!((done.exit, done.signal), (None, Some(9)));
        let (done, said) = checked("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done", LONG);
        assert!(done.output_cut && done.output.len() == TAIL_BYTES && done.output.ends_with(b"line 1999\n"));
        assert_eq!(said.lines().count(), 2000);
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended_with_all_it_started() {
        let (done, _) = checked("sleep 1000 & sleep 1000", Duration::ZERO);
        assert!(done.timed_out && !done.passed(), "{done:?}");
        // What it leaves behind is ended although it holds the output open.
        let (done, said) = checked("sleep 1000 & echo $!", LONG);
        assert!(done.passed());
        let left: i32 = said.trim().parse().unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{left}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")
        };
        // Killed it is; that it is gone from the table is for the kernel to show.
        while !gone() {
            std::thread::yield_now();
        }
    }
}
