//! Commands, run without a shell, for a limited time.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde_json::Value;

use super::{Failure, text};

/// The most bytes of what a command complains that are kept.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// Runs `words` with `context` on its stdin and its fields in `ESKER_ALERT_…`.
pub(super) fn send(words: &[OsString], context: &Value, timeout: Duration) -> Result<(), Failure> {
    let names = ["title", "state", "rule", "subject", "severity", "summary", "job", "tier", "repository", "host"];
    let env = names.map(|name| (format!("ESKER_ALERT_{}", name.to_uppercase()), text(context, name).to_owned()));
    output(words, &env, format!("{context}\n").as_bytes(), timeout, 0).map(|_| ())
}

/// What `words` print, at most `most` bytes; the rest is thrown away. It gets `input`, need not read it, and is killed
/// with its children when it takes longer than `timeout`. Exit code 75 (`EX_TEMPFAIL`) and what could not start may be tried again.
pub(super) fn output(
    words: &[OsString],
    env: &[(String, String)],
    input: &[u8],
    timeout: Duration,
    most: u64,
) -> Result<Vec<u8>, Failure> {
    let (program, args) = words.split_first().ok_or_else(|| Failure::never("the command is empty"))?;
    let name = program.to_string_lossy();
    let child = Command::new(program)
        .args(args)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .env_remove("ESKER_PASSWORD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = child.map_err(|error| Failure::later(format!("command `{name}` did not start: {error}")))?;
    let stdin = child.stdin.take();
    let input = input.to_vec();
    // Who does not read holds up only this thread, which ends with the command.
    let _ = thread::Builder::new().spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    let said = drain(child.stdout.take(), most);
    let complained = drain(child.stderr.take(), COMPLAINT_BYTES_MAX);
    let ended = wait(&mut child, timeout);
    let Some(status) = ended.map_err(|error| Failure::later(format!("command `{name}` was lost: {error}")))? else {
        return Err(Failure::later(format!(
            "command `{name}` took longer than {} s and was killed",
            timeout.as_secs()
        )));
    };
    // A grandchild may hold the pipes open; what was said by then is not waited for.
    let patience = Duration::from_secs(1);
    let said = said.recv_timeout(patience).unwrap_or_default();
    if status.success() {
        return Ok(said);
    }
    let complained = complained.recv_timeout(patience).unwrap_or_default();
    let complained = String::from_utf8_lossy(&complained);
    let last = complained.lines().rfind(|line| !line.trim().is_empty()).map(|line| format!(": {line}"));
    let failed = format!("command `{name}` failed, {status}{}", last.unwrap_or_default());
    Err(if status.code() == Some(75) { Failure::later(failed) } else { Failure::never(failed) })
}

/// Its status, or nothing when it was killed for taking too long.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return child.wait().map(Some) };
    let (tell, told) = mpsc::channel();
    // Waits and leaves the child to be reaped below: until then its number is its own, and the signal meets no other.
    let _ = thread::Builder::new().spawn(move || {
        let ended = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let _ = tell.send(ended.is_ok());
    });
    if told.recv_timeout(timeout).is_ok() {
        return child.wait().map(Some);
    }
    let _ = kill_process_group(pid, Signal::KILL);
    child.wait().map(|_| None)
}

/// Reads to the end in a thread, and keeps the first `most` bytes.
fn drain(from: Option<impl Read + Send + 'static>, most: u64) -> mpsc::Receiver<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    let _ = thread::Builder::new().spawn(move || {
        let Some(mut from) = from else { return };
        let mut kept = Vec::new();
        let _ = from.by_ref().take(most).read_to_end(&mut kept);
        let _ = std::io::copy(&mut from, &mut std::io::sink());
        let _ = tell.send(kept);
    });
    told
}
