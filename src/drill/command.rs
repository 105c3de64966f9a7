//! The user's own check: a command of the shell, run where the snapshot was restored.
//!
//! It has no stdin, its output comes here, and nothing of it outlives it ([`crate::process`]).

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::{Context, Error, Kind, Result};
use crate::monitor::Monitor;
use crate::process::{self, Ended};

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
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(&check.command).env_clear().envs(check.env.iter().cloned()).current_dir(dir);
    command.stdin(Stdio::null());
    let ended = process::run(command, check.timeout, &|| monitor.stopping(), each);
    let Ended { status, timed_out, output, output_cut } =
        ended.context(|| format!("the check command `{}` was not run", check.command.display()))?;
    let interrupted = || Error::new(Kind::Interrupted, "the check command was interrupted");
    let status = status.ok_or_else(interrupted)?;
    Ok(Checked { exit: status.code(), signal: status.signal(), timed_out, output, output_cut })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::TAIL_BYTES;

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
