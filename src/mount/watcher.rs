//! Unmounting for a program that cannot do it any more.
//!
//! A mount of a program that was killed stays, and whoever looks at it gets errors. So a shell waits for the
//! end of a pipe, which comes when this program ends in whatever way, and unmounts then.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The shell; it is ended when this is dropped.
#[derive(Debug)]
pub(super) struct Watcher(Option<Child>);

const SCRIPT: &str = r#"cat >/dev/null; umount -l -- "$1" 2>/dev/null || fusermount3 -uzq -- "$1""#;

impl Watcher {
    /// Watches over the mount at `dir`. Where there is no shell nobody does.
    pub(super) fn begin(dir: &Path) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(SCRIPT).arg("esker-mount").arg(dir);
        // A signal for this program's group is not for it.
        shell.process_group(0).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(shell.spawn().ok())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let Some(mut shell) = self.0.take() else { return };
        // With what it has started; before the pipe ends, or it would unmount what is there next.
        let group = rustix::process::Pid::from_child(&shell);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = shell.wait();
    }
}
