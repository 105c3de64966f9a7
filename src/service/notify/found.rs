//! Secrets, found when they are needed: what was changed meanwhile is what is used.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Failure;
use super::command;
use crate::service::plan::Found;

/// The most bytes of a secret.
const BYTES_MAX: u64 = 64 << 10;

impl Found {
    /// The value. An error says where it was looked for, never what was there.
    pub fn resolve(&self) -> Result<Zeroizing<String>, Failure> {
        self.resolve_in(&|name| std::env::var_os(name))
    }

    /// The same in another environment.
    pub(super) fn resolve_in(&self, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Zeroizing<String>, Failure> {
        let (place, bytes) = match self {
            Self::Text(text) => return Ok(Zeroizing::new(text.clone())),
            Self::File(path) => (format!("file `{}`", path.display()), read(path)),
            Self::Variable(name) => {
                let value = env(name).ok_or_else(|| Failure::never(format!("variable `{name}` is not set")))?;
                (format!("variable `{name}`"), Ok(value.into_encoded_bytes()))
            }
            Self::Credential(name) => {
                let path = credential(name, env)?;
                (format!("credential `{name}`"), read(&path))
            }
            Self::Command(text) => {
                let (program, bytes) = ask(text)?;
                (format!("command `{program}`"), Ok(bytes))
            }
        };
        // What cannot be read now may be there later: a mount that comes, a directory being replaced.
        let bytes = bytes.map_err(|error| Failure::later(format!("{place} cannot be read: {error}")))?;
        let bytes = Zeroizing::new(bytes);
        let text = std::str::from_utf8(&bytes).map_err(|_| Failure::never(format!("{place} is not text")))?;
        match text.lines().next().map(str::trim_end) {
            None | Some("") => Err(Failure::never(format!("{place} is empty"))),
            Some(first) => Ok(Zeroizing::new(first.to_owned())),
        }
    }
}

fn credential(name: &str, env: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, Failure> {
    if name.is_empty() || name.contains('/') || name == ".." || name == "." {
        return Err(Failure::never(format!("credential `{name}` is no name of a file")));
    }
    let dir = env("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty());
    let dir = dir.ok_or_else(|| {
        Failure::never(format!("credential `{name}`: CREDENTIALS_DIRECTORY is not set; systemd sets it for a service"))
    })?;
    Ok(Path::new(&dir).join(name))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn ask(text: &str) -> Result<(String, Vec<u8>), Failure> {
    let words = shell_words::split(text).map_err(|_| Failure::never("the command of a secret has an open quote"))?;
    let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    let program = words.first().map(OsString::as_os_str).unwrap_or(OsStr::new("")).to_string_lossy().into_owned();
    let bytes = command::output(&words, &[], b"", super::TIMEOUT * 3, BYTES_MAX)?;
    Ok((program, bytes))
}
