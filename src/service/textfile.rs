//! The metrics as a file, for a collector that reads files (node_exporter's `--collector.textfile.directory`).
//!
//! It is replaced as a whole: a reader sees the old one or the new one. It holds no secret and others have to read it, so
//! its mode is 0644 whatever the umask. It is not made durable: after a crash it is written anew.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// Puts `text` in the place of what is at `path`.
///
/// # Errors
///
/// When the directory is missing or may not be written to. What was there stays.
#[allow(clippy::disallowed_methods)] // not durable: whoever reads it after a crash wants new figures
pub fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |error: std::io::Error| {
        let what = format!("cannot write the metrics to `{}`", path.display());
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "make the directory, or change `textfile` in the configuration",
            std::io::ErrorKind::PermissionDenied => "the directory has to be writable by who runs esker",
            _ => "set another `textfile` in the configuration",
        };
        Error::new(Kind::Failed, what).because(error).hint(hint)
    };
    let name = path.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
    // The collector reads `*.prom` only, and two processes must not write to one file.
    let mut other = std::ffi::OsString::from(".");
    other.push(name);
    other.push(format!(".{}.tmp", std::process::id()));
    let other = path.with_file_name(other);
    let put = || {
        // What an earlier process with our number left is taken away, for its owner may be another.
        match fs::remove_file(&other) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&other)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        fs::rename(&other, path)
    };
    put().map_err(|error| {
        let _ = fs::remove_file(&other);
        failed(error)
    })
}
