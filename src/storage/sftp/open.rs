//! From a URL and its options to a storage, and advice where `ssh` does not get there.

use std::error::Error as _;

use super::session::Words;
use super::{Location, Options, Sftp};
use crate::storage::Error;
use crate::storage::remote::OpenError;
use crate::storage::remote::options;
use crate::storage::remote::url::Url;

/// Opens the storage a URL names, or makes its directory first.
pub fn reach(url: &Url, options: &options::Options, make: bool) -> Result<Sftp, OpenError> {
    let (location, options) = (Location::of(url)?, read(options)?);
    Ok(if make { Sftp::create(&location, &options) } else { Sftp::open(&location, &options) }?)
}

/// What a user can do about `error`, if it is `ssh` that did not get there.
pub fn advice(url: &Url, options: &options::Options, error: &Error) -> Option<String> {
    let location = Location::of(url).ok()?;
    let is_of_ssh = error.source()?.is::<Words>();
    is_of_ssh.then(|| Some(format!("to see what ssh needs, run `{}`", location.try_command(&read(options).ok()?))))?
}

fn read(options: &options::Options) -> Result<Options, OpenError> {
    let ssh_command = shell_words::split(options.get("ssh-command").unwrap_or_default())
        .map_err(|error| OpenError::usage(format!("option `ssh-command` cannot be split into words: {error}")))?;
    Ok(Options {
        ssh_command,
        identity_file: options.get("identity-file").map(Into::into),
        known_hosts: options.get("known-hosts").map(Into::into),
        connections: options.get("connections").map(|_| options.connections()).transpose()?,
    })
}
