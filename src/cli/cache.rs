//! `cache`: what is kept locally of repositories, and removing it.
//!
//! Each repository has a directory for each place it was used at. One is removed by first giving
//! it another name, all at once: a command that uses it meanwhile finds it whole or gone, as if
//! it had never been, and goes on reading from the repository. What is not a cache (pins and other
//! state, if somebody keeps them in one directory) is not touched: only directories named like a
//! repository and a place are.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;

use super::app::App;
use super::args::{CacheArgs, CacheVerb};
use super::fail::{Result, usage};
use super::text::{self, Side, Table};
use super::time::rfc3339;
use crate::error::{Context, Error, Kind};
use crate::id::RepoId;
use crate::repo::Repository;
use crate::world::Time;

/// Says which place a directory is of; when it was written last, it was used.
const PLACE: &str = "place";

/// How directories that are being removed begin.
const REMOVED: &str = ".removed-";

/// Remembers that a repository's cache was used, and where the repository is.
///
/// Writing says when, by the file system's clock. That it cannot be written, such as on a full
/// disk, is of no importance.
pub(super) fn note_use(repository: &Repository) {
    let Some(dir) = repository.cache_directory() else { return };
    let note = || -> std::io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let place = repository.storage.place();
        // Not truncated first: who reads meanwhile finds a place.
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(PLACE))?;
        file.write_all(place.as_bytes())?;
        file.set_len(place.len() as u64)
    };
    let _ = note();
}

/// What is kept of a repository at a place.
struct Kept {
    repo: RepoId,
    /// Which place; not known of a cache that an older program made.
    place: Option<String>,
    path: PathBuf,
    bytes: u64,
    used: Time,
}

pub(super) fn run(app: &App, args: &CacheArgs) -> Result<()> {
    let Some(root) = app.cache_place().filter(|_| !app.global.no_cache) else {
        return Err(usage("there is no cache directory").hint("name it with `--cache-dir DIR`").into());
    };
    refuse_state(app, &root)?;
    let all = find(&root)?;
    match &args.verb {
        CacheVerb::List => list(app, &all),
        CacheVerb::Clear { repository: Some(wanted), .. } => {
            let matches = |kept: &&Kept| !wanted.is_empty() && kept.repo.to_string().starts_with(wanted.as_str());
            let chosen: Vec<_> = all.iter().filter(matches).collect();
            if chosen.is_empty() {
                let what = format!("nothing is kept of a repository whose id begins with `{wanted}`");
                return Err(usage(what).hint("to see what there is, run `esker cache list`").into());
            }
            if chosen.iter().any(|kept| kept.repo != chosen[0].repo) {
                return Err(usage(format!("more than one repository's id begins with `{wanted}`")).into());
            }
            remove(app, &root, &chosen)
        }
        CacheVerb::Clear { repository: None, .. } => remove(app, &root, &all.iter().collect::<Vec<_>>()),
        CacheVerb::Prune { max_age } => {
            let now = app.world.now();
            let most = i64::try_from(*max_age).unwrap_or(i64::MAX);
            let old = all.iter().filter(|kept| now.secs_since(kept.used) > most).collect::<Vec<_>>();
            remove(app, &root, &old)
        }
    }
}

/// One directory for both would make a cleared cache look like lost state.
fn refuse_state(app: &App, cache: &Path) -> Result<()> {
    let state = app.local_place(app.global.state_dir.as_deref(), "ESKER_STATE_DIR", "XDG_STATE_HOME", ".local/state");
    let same = |state: PathBuf| match (state.canonicalize(), cache.canonicalize()) {
        (Ok(state), Ok(cache)) => state.starts_with(&cache) || cache.starts_with(&state),
        _ => false,
    };
    if state.is_some_and(same) {
        let what = format!("the cache `{}` and the state directory lie in each other", cache.display());
        return Err(usage(what).hint("give each a directory of its own: `--cache-dir`, `--state-dir`").into());
    }
    Ok(())
}

/// Everything that is kept, the last used first.
fn find(root: &Path) -> Result<Vec<Kept>> {
    let mut all = Vec::new();
    for (name, path) in directories(root)? {
        let Ok(repo) = name.parse::<RepoId>() else { continue };
        for (name, path) in directories(&path)? {
            if name.len() != 16 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
                continue;
            }
            let place = fs::read_to_string(path.join(PLACE)).ok();
            let (bytes, newest) = measure(&path)?;
            let used = fs::metadata(path.join(PLACE)).and_then(|data| data.modified()).map_or(newest, time_of);
            all.push(Kept { repo, place, path, bytes, used });
        }
    }
    all.sort_by_key(|kept| (std::cmp::Reverse(kept.used), kept.path.clone()));
    Ok(all)
}

fn time_of(time: SystemTime) -> Time {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time::from_secs(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The directories in a directory, links not followed. One that is not there has none.
fn directories(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let what = || format!("cannot read the cache `{}`", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(what)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.context(what)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(name) = entry.file_name().into_string()
        {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// The bytes of all files below, and when one was changed last. What vanishes meanwhile has none.
fn measure(dir: &Path) -> Result<(u64, Time)> {
    let (mut bytes, mut newest) = (0_u64, Time::default());
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        open.extend(directories(&dir)?.into_iter().map(|(_, path)| path));
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(data) = entry.metadata() else { continue };
            if data.is_file() {
                bytes = bytes.saturating_add(data.len());
                newest = newest.max(data.modified().map(time_of).unwrap_or_default());
            }
        }
    }
    Ok((bytes, newest))
}

fn list(app: &App, all: &[Kept]) -> Result<()> {
    if app.global.json {
        let list: Vec<_> = (all.iter())
            .map(|kept| {
                json!({
                    "repository": kept.repo.to_string(),
                    "place": kept.place,
                    "path": kept.path.display().to_string(),
                    "bytes": kept.bytes,
                    "last_used": rfc3339(kept.used, &app.time_zone),
                })
            })
            .collect();
        return app.out.json(&list);
    }
    let columns = [("Repository", Side::Left), ("Last used", Side::Left), ("Size", Side::Right), ("Place", Side::Left)];
    let mut table = Table::new(&columns);
    for kept in all {
        let place = kept.place.as_deref().map_or_else(|| "unknown".into(), text::plain);
        table.row([kept.repo.short(), app.show_time(kept.used), text::bytes(kept.bytes), place]);
    }
    if !all.is_empty() {
        table.lines().iter().try_for_each(|line| app.out.line(line))?;
    }
    let bytes = all.iter().map(|kept| kept.bytes).fold(0, u64::saturating_add);
    let caches = text::count(all.len() as u64, "cache", "caches");
    app.say(&format!("{}{caches}, {}", if all.is_empty() { "" } else { "\n" }, text::bytes(bytes)))
}

/// Removes a directory with all that is in it, and with what a command that had found it under its
/// old name puts into it meanwhile.
fn remove_all(path: &Path) -> std::io::Result<()> {
    for _ in 0..10 {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
            result => return result,
        }
    }
    fs::remove_dir_all(path)
}

fn remove(app: &App, root: &Path, chosen: &[&Kept]) -> Result<()> {
    let (mut removed, mut freed) = (0, 0_u64);
    for kept in chosen {
        let what = || format!("the cache `{}` was not removed", kept.path.display());
        let aside = root.join(format!("{REMOVED}{}", crate::id::hex(&app.world.random::<8>())));
        match rustix::fs::rename(&kept.path, &aside) {
            // Somebody else was quicker.
            Err(rustix::io::Errno::NOENT) => continue,
            result => result.map_err(std::io::Error::from).context(what)?,
        }
        remove_all(&aside).context(what)?;
        removed += 1;
        freed = freed.saturating_add(kept.bytes);
        if let Some(repository) = kept.path.parent() {
            // It stays while another place has a cache in it.
            let _ = fs::remove_dir(repository);
        }
    }
    // What a removal that was interrupted has left.
    for (name, path) in directories(root)? {
        if name.starts_with(REMOVED) {
            match remove_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let what = format!("the removed cache `{}` is still there", path.display());
                    return Err(Error::new(Kind::Failed, what).because(error).into());
                }
                _ => {}
            }
        }
    }
    if app.global.json {
        return app.out.json(&json!({ "message_type": "summary", "caches_removed": removed, "bytes_freed": freed }));
    }
    app.say(&format!("removed {}, {}", text::count(removed, "cache", "caches"), text::bytes(freed)))
}
