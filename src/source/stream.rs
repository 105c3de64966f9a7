//! Bytes that are in no file: they come through stdin, or from a command while it runs.
//!
//! A thread of its own reads ahead a few blocks, so that whoever takes them can give up at any
//! moment: a read from a pipe that nobody writes to lasts for ever. A thread that waits there
//! when the stream is dropped is left behind; of a command the pipe ends with it.
//!
//! **Process groups.** Without a terminal a command gets a group of its own and is stopped with
//! everything it started: a `sh -c "dump | filter"` does not leave half of itself running. With
//! a terminal it stays in ours: a program in the background that asks for a password there would
//! be stopped by the kernel and wait for ever, and Ctrl-C reaches the whole group anyway.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Bytes read at once.
const BLOCK_BYTES: usize = 512 << 10;
/// Blocks read ahead.
const BLOCKS_AHEAD: usize = 8;
/// How long a command that is to stop may take before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// A command to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program and its arguments; never empty.
    pub words: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it runs.
    pub directory: PathBuf,
}

/// Why a command's output is not all there is.
#[derive(Debug, thiserror::Error)]
pub enum StreamFault {
    /// Reading failed.
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    /// The command did not succeed.
    #[error("the command `{program}` {how}")]
    Command {
        /// The program's name.
        program: String,
        /// How it ended.
        how: String,
    },
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// These bytes, at least one.
    Block(Vec<u8>),
    /// Nothing yet.
    Waiting,
    /// That was all, and whoever wrote it says that it is.
    End,
}

/// A stream being read.
#[derive(Debug)]
pub struct Stream {
    blocks: Receiver<io::Result<Vec<u8>>>,
    ended: bool,
    command: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    program: String,
    own_group: bool,
    /// Set once it was waited for.
    status: Option<ExitStatus>,
}

impl Stream {
    /// Reads from what is open.
    pub fn of_reader(reader: impl Read + Send + 'static) -> Self {
        let (send, blocks) = bounded(BLOCKS_AHEAD);
        // Without the thread nothing ever comes, and the other end of the channel is gone.
        let _ = std::thread::Builder::new().name("esker-stream".into()).spawn(move || {
            let mut reader = reader;
            // A pipe gives a few pages at a time: only those are handed on.
            let mut buffer = vec![0; BLOCK_BYTES];
            loop {
                let outcome = match reader.read(&mut buffer) {
                    Ok(bytes) => Ok(buffer[..bytes].to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let over = outcome.as_ref().map_or(true, Vec::is_empty);
                if send.send(outcome).is_err() || over {
                    return;
                }
            }
        });
        Self { blocks, ended: false, command: None }
    }

    /// Starts a command and reads what it writes to its stdout. Its stderr is ours, its stdin empty.
    pub fn of_command(program: &Program) -> io::Result<Self> {
        let Some((first, arguments)) = program.words.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command was named"));
        };
        let mut command = Command::new(first);
        command.args(arguments).env_clear().envs(program.env.iter().cloned()).current_dir(&program.directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let own_group = std::fs::File::open("/dev/tty").is_err();
        if own_group {
            command.process_group(0);
        }
        let mut child = command.spawn()?;
        let name = first.to_string_lossy().into_owned();
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the command has no stdout"))?;
        let mut stream = Self::of_reader(stdout);
        stream.command = Some(Running { child, program: name, own_group, status: None });
        Ok(stream)
    }

    /// The next bytes, or after `wait` that there are none yet.
    ///
    /// The end of a command's output is [`Next::End`] only once it ended with success.
    pub fn next(&mut self, wait: Duration) -> Result<Next, StreamFault> {
        if !self.ended {
            match self.blocks.recv_timeout(wait) {
                Ok(Ok(block)) if block.is_empty() => self.ended = true,
                Ok(Ok(block)) => return Ok(Next::Block(block)),
                Ok(Err(error)) => return Err(StreamFault::Read(error)),
                Err(RecvTimeoutError::Timeout) => return Ok(Next::Waiting),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(StreamFault::Read(io::Error::other("the thread that reads it stopped")));
                }
            }
        }
        match &mut self.command {
            None => Ok(Next::End),
            Some(running) => match running.status_within(wait).map_err(StreamFault::Read)? {
                None => Ok(Next::Waiting),
                Some(status) if status.success() => Ok(Next::End),
                Some(status) => Err(StreamFault::Command { program: running.program.clone(), how: ending(status) }),
            },
        }
    }
}

impl Running {
    fn status_within(&mut self, wait: Duration) -> io::Result<Option<ExitStatus>> {
        let until = Instant::now() + wait;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.status = Some(status);
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        // That it has ended meanwhile is what was wanted.
        let _ = match i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            Some(pid) if self.own_group => kill_process_group(pid, signal),
            Some(pid) => kill_process(pid, signal),
            None => Ok(()),
        };
    }
}

/// A command that is not wanted any more is asked to stop, and killed if it does not.
impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_some() {
            return;
        }
        self.signal(Signal::TERM);
        if !matches!(self.status_within(GRACE), Ok(Some(_))) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => format!("ended with {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Stream {
        let words = ["sh", "-c", script].map(OsString::from).to_vec();
        let env = std::env::vars_os().collect();
        Stream::of_command(&Program { words, env, directory: "/".into() }).unwrap()
    }

    fn all(stream: &mut Stream) -> Result<Vec<u8>, StreamFault> {
        let mut bytes = Vec::new();
        loop {
            match stream.next(Duration::from_millis(50))? {
                Next::Block(block) => bytes.extend_from_slice(&block),
                Next::Waiting => {}
                Next::End => return Ok(bytes),
            }
        }
    }

    #[test]
    fn everything_comes_and_the_end_of_a_command_is_its_success() {
        assert_eq!(all(&mut Stream::of_reader(&b"hello"[..])).unwrap(), b"hello");
        assert_eq!(all(&mut shell("head -c 3000000 /dev/zero")).unwrap(), vec![0; 3_000_000]);
        // Closing its output is no end: it may yet find out that something is missing.
        let late = all(&mut shell("echo x; exec >&-; sleep 0.1; exit 7")).unwrap_err();
        assert_eq!(late.to_string(), "the command `sh` ended with exit status 7");
        let killed = all(&mut shell("echo x; kill -9 $$")).unwrap_err();
        assert_eq!(killed.to_string(), "the command `sh` was ended by signal 9");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_at_once() {
        let program = Program { words: vec!["/no/such".into()], env: vec![], directory: "/".into() };
        assert_eq!(Stream::of_command(&program).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_stream_given_up_stops_its_command() {
        let mut stream = shell("echo $$; exec sleep 1000");
        let Next::Block(pid) = stream.next(Duration::from_secs(60)).unwrap() else { panic!("it writes a line") };
        let pid = Pid::from_raw(String::from_utf8(pid).unwrap().trim().parse().unwrap()).unwrap();
        assert!(rustix::process::test_kill_process(pid).is_ok());
        drop(stream);
        assert!(rustix::process::test_kill_process(pid).is_err(), "it was waited for");
    }

    #[test]
    fn nothing_to_read_yet_does_not_hold_anybody() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(matches!(Stream::of_reader(reader).next(Duration::from_millis(1)), Ok(Next::Waiting)));
    }
}
