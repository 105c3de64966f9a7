//! Storages behind a URL: what a URL and its options say, and which program part serves them.
//!
//! [`url`] takes a URL apart, [`options`] knows the options of each kind and which of them are
//! secrets. [`open`] brings both together and gives a storage that retries what may be retried
//! and keeps within the bandwidth it was given.
//!
//! A secret never comes from a command line, where every user of the machine could read it: not
//! in the URL and not in `-o`. [`Settings::options`], filled from the configuration file, may
//! hold secrets; nothing here prints them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::retry::{Policy, Retrying};
use super::throttle::Throttled;
use super::{Error, Storage};
use crate::world::Time;

#[cfg(feature = "http-storage")]
mod client;
#[cfg(feature = "http-storage")]
mod object;
pub mod options;
#[cfg(feature = "http-storage")]
mod past;
#[cfg(feature = "http-storage")]
mod refusal;
#[cfg(feature = "http-storage")]
mod service;
pub mod url;

use options::Options;
use url::Url;

/// What opening a storage depends on beside its URL.
#[derive(Clone, Default)]
pub struct Settings {
    /// Options as typed on the command line, `-o KEY=VALUE`; they win, and no secret is taken.
    pub typed: Vec<(String, String)>,
    /// Options from the configuration or the environment, which may be secrets.
    pub options: BTreeMap<String, String>,
    /// A PEM file of certificate authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether any certificate will do.
    pub insecure_tls: bool,
    /// The most bytes a second that go out; no limit if absent.
    pub upload_bytes_per_sec: Option<u64>,
    /// The most bytes a second that come in; no limit if absent.
    pub download_bytes_per_sec: Option<u64>,
    /// The storage is shown as it was at this moment, by the versions it keeps, and not changed.
    pub as_of: Option<Time>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.typed.iter().map(|(key, _)| key).chain(self.options.keys()).collect();
        write!(f, "Settings({names:?})")
    }
}

/// Why a storage was not opened.
#[derive(Debug)]
pub enum OpenError {
    /// The URL or an option makes no sense, or is not for this program.
    Usage {
        /// What is wrong with it.
        what: String,
        /// What to write instead, if that is known.
        hint: Option<String>,
    },
    /// It was understood and could not be opened.
    Storage(Error),
}

impl OpenError {
    /// A URL or an option that makes no sense.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), hint: None }
    }

    /// The same with advice.
    pub fn hinted(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), hint: Some(hint.into()) }
    }
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}

/// The kinds of storage a URL can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Amazon S3 and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azblob,
    /// WebDAV over HTTP or HTTPS.
    Webdav,
    /// SFTP over SSH.
    Sftp,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::S3, Self::Gcs, Self::Azblob, Self::Webdav, Self::Sftp];

    /// What the scheme of a URL means.
    pub fn of_scheme(scheme: &str) -> Option<Self> {
        Some(match scheme {
            "s3" => Self::S3,
            "gs" => Self::Gcs,
            "azblob" => Self::Azblob,
            "webdav" | "webdav+http" => Self::Webdav,
            "sftp" => Self::Sftp,
            _ => return None,
        })
    }

    /// The feature of this program that serves it.
    pub fn feature(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azblob => "azblob",
            Self::Webdav => "webdav",
            Self::Sftp => "sftp",
        }
    }

    /// Whether this program was built with it.
    pub fn is_built_in(self) -> bool {
        match self {
            Self::S3 => cfg!(feature = "s3"),
            Self::Gcs => cfg!(feature = "gcs"),
            Self::Azblob => cfg!(feature = "azblob"),
            Self::Webdav => cfg!(feature = "webdav"),
            Self::Sftp => cfg!(feature = "sftp"),
        }
    }
}

/// Opens the storage a URL names. Nothing is asked of a server yet but for SFTP, which logs in.
pub fn open(url: &str, settings: &Settings) -> Result<Arc<dyn Storage>, OpenError> {
    reach(url, settings, false)
}

/// The same for a repository that is to be made: over SFTP, makes its directory. Buckets and
/// containers are not made.
pub fn create(url: &str, settings: &Settings) -> Result<Arc<dyn Storage>, OpenError> {
    reach(url, settings, true)
}

/// What a user can do about `error` of opening the storage, where that is known.
pub fn advice(url: &str, settings: &Settings, error: &Error) -> Option<String> {
    let url = Url::parse(&url::of_ssh_place(url)).ok()?;
    match Kind::of_scheme(&url.scheme)? {
        #[cfg(feature = "sftp")]
        Kind::Sftp => super::sftp::advice(&url, &Options::gather(Kind::Sftp, &url, settings).ok()?, error),
        _ => {
            let _ = (settings, error);
            None
        }
    }
}

fn reach(url: &str, settings: &Settings, make: bool) -> Result<Arc<dyn Storage>, OpenError> {
    let url = Url::parse(&url::of_ssh_place(url))?;
    let kind = Kind::of_scheme(&url.scheme).ok_or_else(|| {
        let what = format!("there is no kind of storage `{}:`", url.scheme);
        OpenError::hinted(what, "one of `s3:`, `gs:`, `azblob:`, `sftp:`, `webdav:`, or a directory")
    })?;
    if !kind.is_built_in() {
        let what = format!("this program was built without storages of the kind `{}:`", url.scheme);
        return Err(OpenError::hinted(what, format!("build it with `--features {}`", kind.feature())));
    }
    let options = Options::gather(kind, &url, settings)?;
    let (storage, policy) = (unwrapped(kind, &url, &options, settings, make)?, policy(&options)?);
    // Limits below retries: what is sent again counts again.
    let storage = limited(storage, settings.upload_bytes_per_sec, settings.download_bytes_per_sec);
    Ok(Arc::new(Retrying::new(storage, policy)))
}

/// The storage itself, which neither retries nor keeps within limits.
fn unwrapped(
    kind: Kind,
    url: &Url,
    options: &Options,
    settings: &Settings,
    make: bool,
) -> Result<Arc<dyn Storage>, OpenError> {
    let _ = make;
    match kind {
        // A client of its own: see `storage::sftp`.
        #[cfg(feature = "sftp")]
        Kind::Sftp if settings.as_of.is_some() => {
            let what = "what was once in a storage of the kind `sftp:` cannot be asked for";
            Err(OpenError::hinted(what, "`--storage-time` is for buckets of S3 that keep versions"))
        }
        #[cfg(feature = "sftp")]
        Kind::Sftp => Ok(Arc::new(super::sftp::reach(url, options, make)?)),
        #[cfg(feature = "http-storage")]
        _ => {
            let remote = object::Remote::new(kind, url, options, settings)?;
            match settings.as_of {
                Some(at) => Ok(Arc::new(past::Past::new(remote, kind, at)?)),
                None => Ok(Arc::new(remote)),
            }
        }
        #[cfg(not(feature = "http-storage"))]
        _ => {
            let _ = (url, options, settings);
            Err(OpenError::usage("this program was built without storages over HTTP"))
        }
    }
}

fn policy(options: &Options) -> Result<Policy, OpenError> {
    Ok(Policy { retries: options.retries()?, ..Policy::default() })
}

/// Keeps a storage within a bandwidth, if one is given.
pub fn limited(storage: Arc<dyn Storage>, upload: Option<u64>, download: Option<u64>) -> Arc<dyn Storage> {
    match (upload, download) {
        (None, None) => storage,
        (upload, download) => Arc::new(Throttled::new(storage, upload, download)),
    }
}
