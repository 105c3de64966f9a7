//! From what `--repo` says to a storage.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::app::App;
use super::fail::{Result, usage};
use crate::error::{Context, Error, Kind};
use crate::repo::Repository;
use crate::repo::open::CONFIG;
use crate::repo::secret::Secret;
use crate::storage::local::Local;
use crate::storage::{ErrorKind, Storage};

/// What `--repo` names.
enum Place {
    Directory(PathBuf),
    Memory,
}

/// Words before a colon that mean another kind of storage, here or in restic.
const SCHEMES: [&str; 13] =
    ["s3", "gs", "azblob", "azure", "b2", "sftp", "webdav", "http", "https", "rest", "rclone", "swift", "memory"];

fn given(app: &App) -> Result<&OsStr> {
    let given = app.global.repo.as_deref().filter(|repo| !repo.is_empty()).or_else(|| app.var("ESKER_REPOSITORY"));
    let none = || usage("no repository was named").hint("add `--repo DIR`, or set ESKER_REPOSITORY");
    Ok(given.ok_or_else(none)?)
}

fn place(app: &App, given: &OsStr) -> Result<Place> {
    if let Some((name, _)) = super::unlock::options(app)?.first() {
        return Err(usage(format!("a local repository has no option `{name}`")).into());
    }
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
        _ if SCHEMES.contains(&scheme) || (is_url && !scheme.is_empty()) => {
            let what = format!("storage of the kind `{scheme}:` is not built yet: a repository is a local directory");
            Err(usage(what).hint("for a directory whose name looks like that, write `./` before it").into())
        }
        _ => Ok(Place::Directory(app.cwd.join(given))),
    }
}

/// The storage of a repository that should be there.
pub(super) fn open(app: &App) -> Result<Arc<dyn Storage>> {
    open_at(app, given(app)?)
}

/// The storage of another repository that should be there.
pub(super) fn open_at(app: &App, given: &OsStr) -> Result<Arc<dyn Storage>> {
    Ok(app.traced(opened(app, given)?))
}

fn opened(app: &App, given: &OsStr) -> Result<Arc<dyn Storage>> {
    match (place(app, given)?, &app.memory) {
        (Place::Memory, Some(memory)) => Ok(Arc::new(memory.clone())),
        (Place::Memory, None) => Err(usage("`memory:` is for tests").into()),
        (Place::Directory(path), _) => match Local::open(&path) {
            Ok(local) => Ok(Arc::new(local)),
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
    Ok(app.traced(created(app)?))
}

fn created(app: &App) -> Result<Arc<dyn Storage>> {
    match (place(app, given(app)?)?, &app.memory) {
        (Place::Directory(path), _) => {
            if let Ok(storage) = Local::open(&path)
                && storage.stat(CONFIG).is_ok()
            {
                let what = format!("no repository was made: there is one already at `{}`", storage.place());
                return Err(Error::new(Kind::Refused, what).into());
            }
            let local = Local::create(&path);
            Ok(Arc::new(local.context(|| format!("no repository was made at `{}`", path.display()))?))
        }
        (Place::Memory, Some(memory)) => Ok(Arc::new(memory.clone())),
        (Place::Memory, None) => Err(usage("`memory:` is for tests").into()),
    }
}

/// Whether there is a repository where `--repo` says.
pub(super) fn has_repository(app: &App) -> Result<bool> {
    match open(app) {
        Err(super::fail::Fail::Error(error)) if error.kind() == Kind::NoRepository => Ok(false),
        Err(error) => Err(error),
        Ok(storage) => match crate::repo::open::load_config(&*storage) {
            Err(error) if error.kind() == Kind::NoRepository => Ok(false),
            _ => Ok(true),
        },
    }
}

/// Unlocks the repository.
pub(super) fn repository(app: &App) -> Result<Repository> {
    let storage = open(app)?;
    // Before a password is asked for: that there is something it could open.
    crate::repo::open::load_config(&*storage)?;
    let secret = super::unlock::secret(app)?;
    unlock(app, storage, &secret)
}

/// Unlocks the repository in a storage, and tells what this machine knows of it.
pub(super) fn unlock(app: &App, storage: Arc<dyn Storage>, secret: &Secret) -> Result<Repository> {
    let repository = Repository::open(storage, app.world.clone(), secret, app.local());
    app.tell_notices();
    let repository = repository?;
    app.tell_behind(&repository);
    super::cache::note_use(&repository);
    Ok(repository)
}
