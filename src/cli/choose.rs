//! Which snapshot, and what of it: `latest~2:/srv/app`, `--host`, `--at` and their like.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::app::App;
use super::args::{ExcludeArgs, FilterArgs, SnapshotArgs};
use super::fail::{Result, usage};
use super::time::{DayEnd, parse};
use crate::error::{Context, Error};
use crate::monitor::Severity;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::snapshots::{Filter, SnapshotInfo};
use crate::source::exclude::{Case, Patterns};
use crate::world::Time;

pub(super) fn moment(app: &App, flag: &str, text: Option<&String>, day: DayEnd) -> Result<Option<Time>> {
    let parsed = text.map(|text| parse(text, app.world.now(), &app.time_zone, day)).transpose();
    parsed.map_err(|error| usage(format!("cannot use `{flag}`: {error}")).into())
}

/// The snapshots that filter flags leave.
pub(super) fn filter(app: &App, args: &FilterArgs) -> Result<Filter> {
    Ok(Filter {
        hosts: args.host.clone(),
        tags: args.tag.clone(),
        paths: args.path.iter().map(|path| app.tree_path(path)).collect::<Result<_>>()?,
        before: moment(app, "--before", args.before.as_ref(), DayEnd::Last)?,
        after: moment(app, "--after", args.after.as_ref(), DayEnd::First)?,
    })
}

/// A snapshot and a path in it.
pub(super) struct Chosen {
    pub(super) info: SnapshotInfo,
    /// What stood after the colon, if there was one.
    pub(super) path: Option<TreePath>,
}

/// What stands before the colon, and the path after it.
fn parts(typed: &OsStr) -> (&[u8], Option<&[u8]>) {
    let typed = typed.as_bytes();
    match typed.iter().position(|&b| b == b':') {
        Some(colon) => (&typed[..colon], Some(&typed[colon + 1..])),
        None => (typed, None),
    }
}

/// Whether what was typed can be a snapshot: `latest`, or hexadecimal digits.
pub(super) fn is_snapshot(typed: &OsStr) -> bool {
    let (id, _) = parts(typed);
    id.starts_with(b"latest") && !id.contains(&b'/')
        || !id.is_empty() && id.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
}

/// Finds the snapshot that was meant.
pub(super) fn snapshot(app: &App, reader: &Reader<'_>, args: &SnapshotArgs) -> Result<Chosen> {
    let (id, path) = parts(&args.snapshot);
    let id = String::from_utf8_lossy(id);
    let path = path.map(in_snapshot).transpose()?;
    let mut filter = filter(app, &args.filter)?;
    if args.at.is_some() {
        if !id.starts_with("latest") {
            return Err(usage(format!("`--at` goes with `latest`, not with `{id}`")).into());
        }
        filter.before = moment(app, "--at", args.at.as_ref(), DayEnd::Last)?;
    }
    let (info, unreadable) = reader.find_readable_snapshot(&id, &filter)?;
    for (session, error) in unreadable {
        let (short, why) = (session.short(), error.with_causes());
        let message = match session == info.id() {
            true => format!("snapshot `{short}` is damaged, and used as it was when it was read last: {why}"),
            false => format!("snapshot `{short}` is newer and cannot be read: {why}"),
        };
        app.console.remark(Severity::Warning, &message);
    }
    Ok(Chosen { info, path })
}

/// A path in a snapshot: it begins at the top, with or without a slash.
pub(super) fn in_snapshot(path: &[u8]) -> Result<TreePath> {
    let absolute = Path::new("/").join(OsStr::from_bytes(path));
    TreePath::from_os(&absolute).map_err(|error| usage(error.to_string()).into())
}

/// Patterns given as arguments.
pub(super) fn patterns<'a>(given: impl IntoIterator<Item = (&'a OsStr, Case)>) -> Result<Patterns> {
    let mut patterns = Patterns::new();
    for (pattern, case) in given {
        patterns.add(pattern.as_bytes(), case).map_err(|error| usage(error.to_string()))?;
    }
    Ok(patterns)
}

/// Patterns of what is left out. `not` says what was not done because of one that cannot be used.
pub(super) fn excludes(app: &App, args: &ExcludeArgs, not: &str) -> Result<Patterns> {
    let exact = args.exclude.iter().map(|pattern| (pattern.as_os_str(), Case::Sensitive));
    let folded = args.iexclude.iter().map(|pattern| (pattern.as_os_str(), Case::Insensitive));
    let mut exclude = patterns(exact.chain(folded))?;
    let variable = |name: &[u8]| app.env.get(OsStr::from_bytes(name)).map(|value| value.as_bytes().to_vec());
    let exact = args.exclude_file.iter().map(|file| (file, Case::Sensitive));
    for (file, case) in exact.chain(args.iexclude_file.iter().map(|file| (file, Case::Insensitive))) {
        let path = app.path(file);
        let what = || format!("{not}: cannot use the exclude file `{}`", path.display());
        let lines = std::fs::read(&path).context(what)?;
        exclude.add_lines(&lines, case, &variable).map_err(|error| usage(what()).because(error))?;
    }
    Ok(exclude)
}

/// The snapshots that are named, or all that the filter takes where none is. `not` says what was not done
/// when one of these cannot be read.
pub(super) fn several(reader: &Reader<'_>, named: &[String], filter: &Filter, not: &str) -> Result<Vec<SnapshotInfo>> {
    if named.is_empty() {
        let (found, unreadable) = reader.snapshots(filter)?;
        if let Some((id, error)) = unreadable.into_iter().next() {
            let what = format!("{not}: snapshot `{}` cannot be read", id.short());
            return Err(Error::new(error.kind(), what).because(error).hint("run `esker check`").into());
        }
        return Ok(found);
    }
    let mut chosen: Vec<SnapshotInfo> = Vec::new();
    for wanted in named {
        let info = reader.find_snapshot(wanted, filter)?;
        if chosen.iter().all(|other| other.id() != info.id()) {
            chosen.push(info);
        }
    }
    Ok(chosen)
}
