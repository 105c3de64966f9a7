//! A real file system on a loop device whose power can be cut.
//!
//! FS_IOC_SHUTDOWN without flushing the log: from then on every call fails, and what had not
//! reached the device never does. Mounting it again plays the log back, as after a loss of power.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// So that nothing is written back by the clock while a test runs.
    fn options(self) -> &'static str {
        match self {
            Self::Ext4 => "noatime,commit=600",
            Self::Xfs => "noatime",
        }
    }
}

/// The least that mkfs.xfs takes; the image has holes.
const IMAGE_BYTES: u64 = 320 << 20;

/// How often unmounting is tried, and how long apart.
const UNMOUNTS: u32 = 400;
const PAUSE: Duration = Duration::from_millis(10);

/// A mounted file system; unmounted when dropped, whatever is still open.
pub(crate) struct LoopDisk {
    kind: Kind,
    place: PathBuf,
    device: String,
    _image: TempDir,
}

impl LoopDisk {
    /// Makes one and mounts it at a directory. `None`, aloud, where this machine cannot.
    pub(crate) fn mount(kind: Kind, place: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skip("mounting needs root");
        }
        let mkfs = format!("mkfs.{}", kind.name());
        for tool in [&*mkfs, "losetup", "xfs_io"] {
            if Command::new(tool).arg("-V").output().is_err() {
                return skip(&format!("there is no {tool}"));
            }
        }
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let image = directory.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
        run(Command::new(mkfs).arg("-q").arg(&image));
        let attached = Command::new("losetup").args(["--find", "--show"]).arg(&image).output().unwrap();
        if !attached.status.success() {
            return skip(&format!("there is no loop device: {}", String::from_utf8_lossy(&attached.stderr)));
        }
        let device = String::from_utf8(attached.stdout).unwrap().trim().to_owned();
        let disk = Self { kind, place: place.to_owned(), device, _image: directory };
        disk.mount_again();
        Some(disk)
    }

    /// Cuts the power.
    pub(crate) fn cut(&self) {
        // `-f` would flush the log first.
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.place));
    }

    /// Brings it back. Nothing on it may be open, but in a child that another thread is just starting.
    pub(crate) fn restart(&self) {
        for _ in 0..UNMOUNTS {
            let output = Command::new("umount").arg(&self.place).output().unwrap();
            if output.status.success() {
                return self.mount_again();
            }
            assert!(String::from_utf8_lossy(&output.stderr).contains("busy"), "{output:?}");
            std::thread::sleep(PAUSE);
        }
        panic!("something is open below `{}`", self.place.display());
    }

    /// Makes everything on it durable.
    pub(crate) fn sync(&self) {
        run(Command::new("sync").arg("-f").arg(&self.place));
    }

    fn mount_again(&self) {
        run(Command::new("mount")
            .args(["-t", self.kind.name(), "-o", self.kind.options(), &self.device])
            .arg(&self.place));
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // Lazily: a test that failed may have something open.
        let _ = Command::new("umount").arg("-l").arg(&self.place).output();
        let _ = Command::new("losetup").args(["--detach", &self.device]).output();
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Skips aloud, or fails where `ESKER_REQUIRE` says that nothing may be skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skip<T>(why: &str) -> Option<T> {
    let required = std::env::var("ESKER_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == "root"));
    assert!(!required, "root required: {why}");
    eprintln!("skipped: {why}");
    None
}
