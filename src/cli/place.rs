//! From what `--repo` says to a storage.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::app::App;
use super::fail::{Fail, Result, usage};
use crate::error::{Context, Error, Kind};
use crate::format::config::Config;
use crate::monitor::Severity;
use crate::repo::Repository;
use crate::repo::commits::SNAPSHOTS;
use crate::repo::logs::LOG;
use crate::repo::open::{CONFIG, load_config};
use crate::repo::secret::Secret;
use crate::storage::local::Local;
use crate::storage::probe::{self, Creates};
use crate::storage::remote::{self, OpenError};
use crate::storage::{ErrorKind, Storage};

/// What `--repo` names.
enum Place {
    Directory(PathBuf),
    Memory,
    /// Behind a URL of a scheme that [`remote`] knows.
    Remote(String),
}

/// Words before a colon that mean another kind of storage, here or in restic.
const SCHEMES: [&str; 14] = [
    "s3",
    "gs",
    "azblob",
    "azure",
    "b2",
    "sftp",
    "webdav",
    "webdav+http",
    "http",
    "https",
    "rest",
    "rclone",
    "swift",
    "memory",
];

fn given(app: &App) -> Result<&OsStr> {
    let given = app.global.repo.as_deref().filter(|repo| !repo.is_empty()).or_else(|| app.var("ESKER_REPOSITORY"));
    let none = || usage("no repository was named").hint("add `--repo DIR`, or set ESKER_REPOSITORY");
    Ok(given.ok_or_else(none)?)
}

fn place(app: &App, given: &OsStr) -> Result<Place> {
    let bytes = given.as_bytes();
    if let Some(path) = bytes.strip_prefix(b"file://") {
        return Ok(Place::Directory(app.cwd.join(OsStr::from_bytes(path))));
    }
    let scheme = bytes.split(|&b| b == b':').next().filter(|scheme| scheme.len() < bytes.len());
    let scheme = scheme.and_then(|scheme| std::str::from_utf8(scheme).ok()).unwrap_or_default();
    let is_url = bytes.get(scheme.len()..).is_some_and(|rest| rest.starts_with(b"://"));
    match scheme {
        "memory" if app.memory.is_some() => Ok(Place::Memory),
        "memory" => Err(usage("a repository in memory would be gone at the end: `memory:` is for tests")
            .hint("to try things out, run `esker demo`")
            .into()),
        _ if remote::Kind::of_scheme(scheme).is_some() => {
            let url = given.to_str().ok_or_else(|| usage(format!("the URL `{scheme}:…` is not UTF-8")))?;
            Ok(Place::Remote(url.to_owned()))
        }
        _ if SCHEMES.contains(&scheme) || (is_url && !scheme.is_empty()) => {
            let what = format!("there is no kind of storage `{scheme}:`");
            let hint = match scheme {
                "azure" => "Azure Blob Storage is `azblob://CONTAINER/PREFIX`",
                "http" | "https" => "WebDAV is `webdav://HOST/PATH`, without TLS `webdav+http://HOST/PATH`",
                "b2" => "Backblaze B2 speaks S3: `s3://BUCKET/PREFIX?endpoint=https://s3.REGION.backblazeb2.com`",
                _ => {
                    "there are s3://, gs://, azblob://, sftp:// and webdav://; \
                     for a directory whose name looks like that, write `./` before it"
                }
            };
            Err(usage(what).hint(hint).into())
        }
        _ => Ok(Place::Directory(app.cwd.join(given))),
    }
}

/// How a storage is reached.
#[derive(Default)]
struct Options<'a> {
    /// Options the configuration has for the repository, by name.
    configured: Vec<(String, Zeroizing<String>)>,
    /// Those typed for another repository than `--repo`, if it is to be reached by its own.
    own: Option<&'a [String]>,
}

impl Options<'_> {
    fn of_repo(app: &App) -> Result<Self> {
        Ok(Self { configured: super::unlock::options(app, &app.options)?, own: None })
    }

    /// Of another repository than `--repo`, with what was typed for it.
    fn of_other<'a>(app: &App, own: Option<&'a [String]>) -> Result<Options<'a>> {
        Ok(Options { configured: super::unlock::options(app, &app.to_options)?, own })
    }

    /// For a place without options: one that is not behind a URL.
    fn refuse(&self) -> Result<()> {
        match self.configured.first() {
            Some((name, _)) => Err(usage(format!("a local repository has no option `{name}`")).into()),
            None => Ok(()),
        }
    }
}

/// A local storage within the limits that were asked for.
fn limited(app: &App, local: Local) -> Arc<dyn Storage> {
    let args = &app.global.storage;
    remote::limited(Arc::new(local), args.limit_upload, args.limit_download)
}

/// The storage behind a URL, or one to be made there.
fn reach_url(app: &App, url: &str, options: Options<'_>, make: bool) -> Result<Arc<dyn Storage>> {
    let mut settings = app.global.storage.settings(app, url, options.own)?;
    settings.options.extend(options.configured.into_iter().map(|(name, value)| (name, value.to_string())));
    let reached = if make { remote::create(url, &settings) } else { remote::open(url, &settings) };
    reached.map_err(|error| match error {
        OpenError::Usage { what, hint: Some(hint) } => usage(what).hint(hint).into(),
        OpenError::Usage { what, hint: None } => usage(what).into(),
        OpenError::Storage(error) => {
            let kind = match error.kind() {
                ErrorKind::NotFound => Kind::NoRepository,
                ErrorKind::Denied | ErrorKind::Exists => Kind::Refused,
                _ => Kind::Failed,
            };
            let hint = remote::advice(url, &settings, &error);
            let what = if make { "no repository was made" } else { "cannot open the storage of the repository" };
            let error = Error::new(kind, what).because(error);
            match hint {
                Some(hint) => error.hint(hint).into(),
                None if kind == Kind::NoRepository && !make => {
                    error.hint("to make one, run `esker init` with the same --repo").into()
                }
                None => error.into(),
            }
        }
    })
}

/// The storage of a repository that should be there.
pub(super) fn open(app: &App) -> Result<Arc<dyn Storage>> {
    Ok(app.traced(opened(app, given(app)?, Options::of_repo(app)?)?))
}

/// The storage of another repository that should be there, reached with the options typed for it, or else with
/// those typed for all.
pub(super) fn open_at(app: &App, given: &OsStr, own: Option<&[String]>) -> Result<Arc<dyn Storage>> {
    Ok(app.traced(opened(app, given, Options::of_other(app, own)?)?))
}

/// The storage that a mirror is to be kept in: one that is begun, or one that is to be.
pub(super) fn mirror_at(app: &App, given: &OsStr, own: Option<&[String]>) -> Result<Arc<dyn Storage>> {
    let begun = |storage: &Arc<dyn Storage>| [CONFIG, "copies/config"].iter().any(|name| storage.stat(name).is_ok());
    match opened(app, given, Options::of_other(app, own)?) {
        Err(Fail::Error(error)) if error.kind() == Kind::NoRepository => {}
        Ok(storage) if !begun(&storage) => {}
        reached => return Ok(app.traced(reached?)),
    }
    Ok(app.traced(created(app, given, Options::of_other(app, own)?)?))
}

fn opened(app: &App, given: &OsStr, options: Options<'_>) -> Result<Arc<dyn Storage>> {
    let place = place(app, given)?;
    if !matches!(place, Place::Remote(_)) {
        options.refuse()?;
    }
    match (place, &app.memory) {
        (Place::Memory, Some(memory)) => Ok(memory.clone()),
        (Place::Memory, None) => Err(usage("`memory:` is for tests").into()),
        (Place::Remote(url), _) => reach_url(app, &url, options, false),
        (Place::Directory(path), _) => match Local::open(&path) {
            Ok(local) => Ok(limited(app, local)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let what = format!("there is no repository at `{}`", path.display());
                let hint = "to make one, run `esker init` with the same --repo";
                Err(Error::new(Kind::NoRepository, what).because(error).hint(hint).into())
            }
            Err(error) => {
                Err(error).context(|| format!("cannot open the repository at `{}`", path.display())).map_err(Into::into)
            }
        },
    }
}

/// The storage of a repository that is to be made.
pub(super) fn create(app: &App) -> Result<Arc<dyn Storage>> {
    Ok(app.traced(created(app, given(app)?, Options::of_repo(app)?)?))
}

fn created(app: &App, given: &OsStr, options: Options<'_>) -> Result<Arc<dyn Storage>> {
    let place = place(app, given)?;
    if !matches!(place, Place::Remote(_)) {
        options.refuse()?;
    }
    match (place, &app.memory) {
        (Place::Directory(path), _) => {
            if let Ok(storage) = Local::open(&path)
                && storage.stat(CONFIG).is_ok()
            {
                return Err(there_already(&storage));
            }
            let local = Local::create(&path).context(|| format!("no repository was made at `{}`", path.display()))?;
            Ok(limited(app, local))
        }
        (Place::Remote(url), _) => {
            let storage = reach_url(app, &url, options, true)?;
            find_out(app, &*storage)?;
            Ok(storage)
        }
        (Place::Memory, Some(memory)) => Ok(memory.clone()),
        (Place::Memory, None) => Err(usage("`memory:` is for tests").into()),
    }
}

/// Makes sure that a repository can be made at a storage that others provide.
fn find_out(app: &App, storage: &dyn Storage) -> Result<()> {
    let what = || format!("no repository was made at `{}`", storage.place());
    match storage.stat(CONFIG) {
        Ok(_) => return Err(there_already(storage)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).context(what).map_err(Into::into),
    }
    if !storage.list(SNAPSHOTS).context(what)?.is_empty() || !storage.list(LOG).context(what)?.is_empty() {
        let message = format!("{}: there are the snapshots of one whose `config` is lost", what());
        let hint = "put its `copies/config` in the place of `config`, or take another prefix";
        return Err(Error::new(Kind::Refused, message).hint(hint).into());
    }
    let findings = probe::probe(storage, app.world.random()).context(what)?;
    let creates = match findings.creates {
        Creates::Exactly => "this storage keeps an object from being replaced when asked to: a policy can demand it",
        Creates::NotInRaces => {
            "this storage keeps an object from being replaced when asked to, but not by several at the same time; \
             that does no harm"
        }
        Creates::Replacing => {
            "this storage cannot keep an object from being replaced; that does no harm, but a policy cannot demand it"
        }
    };
    app.console.remark(Severity::Note, creates);
    if findings.deletes_late {
        app.console.remark(Severity::Note, "this storage shows deleted objects for a while; that does no harm");
    }
    if let Some(caveat) = storage.caveat().context(what)? {
        app.console.remark(Severity::Warning, &caveat);
    }
    if !findings.leftovers.is_empty() {
        let message = format!("these credentials may not delete: {} stay", findings.leftovers.join(", "));
        app.console.remark(Severity::Note, &message);
    }
    Ok(())
}

fn there_already(storage: &dyn Storage) -> Fail {
    let what = format!("no repository was made: there is one already at `{}`", storage.place());
    Error::new(Kind::Refused, what).into()
}

/// Whether there is a repository where `--repo` says.
pub(super) fn has_repository(app: &App) -> Result<bool> {
    match open(app) {
        Err(Fail::Error(error)) if error.kind() == Kind::NoRepository => Ok(false),
        Err(error) => Err(error),
        Ok(storage) => match load_config(&*storage) {
            Err(error) if error.kind() == Kind::NoRepository => Ok(false),
            // A storage that does not answer, or not us, may hold one or not.
            Err(error) if error.kind() != Kind::Damaged && error.storage_kind().is_some() => Err(error.into()),
            _ => Ok(true),
        },
    }
}

/// Unlocks the repository.
pub(super) fn repository(app: &App) -> Result<Repository> {
    let storage = open(app)?;
    unlock_kept(app, given(app)?, storage, || super::unlock::secret(app))
}

/// Unlocks another repository, with what opened it before in this process or else with what `secret` finds.
pub(super) fn unlock_kept(
    app: &App,
    given: &OsStr,
    storage: Arc<dyn Storage>,
    secret: impl FnOnce() -> Result<Secret>,
) -> Result<Repository> {
    // Before a password is asked for: that there is something it could open.
    let config = load_config(&*storage)?;
    if let Some(kept) = app.vault.get(given) {
        match unlock_described(app, storage.clone(), config.clone(), &kept) {
            // Another repository may stand there now, or the credential was removed.
            Err(Fail::Error(error)) if matches!(error.kind(), Kind::WrongKey | Kind::Refused) => {
                app.vault.forget(given);
            }
            result => return result,
        }
    }
    let repository = unlock_described(app, storage, config, &secret()?)?;
    app.vault.keep(given, &repository);
    Ok(repository)
}

/// Unlocks the repository in a storage, and tells what this machine knows of it.
pub(super) fn unlock(app: &App, storage: Arc<dyn Storage>, secret: &Secret) -> Result<Repository> {
    let config = load_config(&*storage)?;
    unlock_described(app, storage, config, secret)
}

fn unlock_described(app: &App, storage: Arc<dyn Storage>, config: Config, secret: &Secret) -> Result<Repository> {
    let repository = Repository::unlock(storage, config, app.world.clone(), secret, app.local());
    app.tell_notices();
    let repository = repository?;
    app.tell_behind(&repository);
    super::cache::note_use(&repository);
    Ok(repository)
}
