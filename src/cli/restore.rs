//! `restore`: files back from a snapshot.

use std::path::Path;

use serde_json::json;

use super::app::App;
use super::args::{OverwriteArg, RestoreArgs};
use super::backup::own_places;
use super::fail::{Fail, Result, usage};
use super::{audited, choose, place, safety, text};
use crate::error::{Error, Kind};
use crate::format::session::Snapshot;
use crate::id::SessionId;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::restore::{Change, Filter, Options, Overwrite, Report, Selection, run as bring_back};
use crate::source::exclude::{Case, Patterns};

pub(super) fn run(app: &App, args: &RestoreArgs) -> Result<()> {
    let patterns = |given: &[std::ffi::OsString]| {
        choose::patterns(given.iter().map(|pattern| (pattern.as_os_str(), Case::Sensitive)))
    };
    let (include, exclude) = (patterns(&args.include)?, patterns(&args.exclude)?);
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let chosen = choose::snapshot(app, &reader, &args.snapshot)?;
    let id = chosen.info.id().short();
    let mut about = audited::of(&chosen);
    let base = chosen.path.unwrap_or_else(TreePath::root);
    check_delete(args, &app.path(&args.target), &base)?;
    if args.delete && chosen.info.is_before_restore() {
        let what =
            format!("nothing was restored: snapshot `{id}` holds only what a restore replaced, not all that was there");
        return Err(usage(what).hint("leave out --delete").into());
    }
    about["to"] = audited::text_of(&app.path(&args.target).display().to_string());
    if args.dry_run {
        about["dry_run"] = true.into();
    }
    audited::note(app, &repository, "restore", about)?;
    let select = |path: &TreePath, is_directory: bool| selection(&include, &exclude, path, is_directory);
    let filter: &Filter<'_> = &select;
    let options = Options {
        target: app.path(&args.target),
        filter: (!include.is_empty() || !exclude.is_empty()).then_some(filter),
        numeric_ids: args.numeric_ids,
        threads: app.threads().max(repository.storage.connections()),
        dry_run: args.dry_run,
        overwrite: match args.overwrite {
            OverwriteArg::Always => Overwrite::Always,
            OverwriteArg::IfChanged => Overwrite::IfChanged,
            OverwriteArg::IfNewer => Overwrite::IfNewer,
            OverwriteArg::Never => Overwrite::Never,
        },
        delete: args.delete,
        roots: roots(&chosen.info.snapshot),
        spare: own_places(&repository).iter().map(TreePath::to_os).collect(),
        spill: repository.cache_directory().map_or_else(std::env::temp_dir, Path::to_owned),
        observer: None,
        verify: args.verify,
        devices: true,
        privileged: true,
    };
    let observer = |path: &TreePath, change: Change| tell_change(app, args, path, change);
    let shown = app.verbose() || args.dry_run;
    let safety = match args.safety_snapshot {
        true => safety::make(app, &repository, &reader, &chosen.info.snapshot.root, &base, &options)?,
        false => None,
    };
    let options = Options { observer: if shown { Some(&observer) } else { None }, ..options };
    let work = app.work("restore");
    let report = bring_back(&reader, &chosen.info.snapshot.root, &base, &options, work.monitor());
    let took = work.elapsed();
    drop(work);
    let report = report?;
    if app.global.json {
        tell_json(app, args, &report, took, safety)?;
    } else {
        tell(app, args, &id, &options, &report, took)?;
    }
    if report.problems > 0 {
        let problems = text::count(report.problems, "file or attribute", "files and attributes");
        let what = format!("snapshot `{id}` was not restored in full: {problems} could not be restored; see above");
        let files = match report.damaged_count {
            0 => None,
            count => Some(format!("the data of {} is missing or damaged", text::count(count, "file", "files"))),
        };
        let directories = match report.directories_damaged {
            0 => None,
            count => Some(format!(
                "{} not be read in full: more may be missing than is named",
                text::count(count, "directory could", "directories could")
            )),
        };
        let damage: Vec<_> = files.into_iter().chain(directories).collect();
        let mut error = Error::new(Kind::Failed, what);
        if !damage.is_empty() {
            error = error
                .because(damage.join("; "))
                .hint(format!("to see every affected file, run `esker check --read-data {id}`"));
        }
        return Err(Fail::Code(5, error));
    }
    Ok(())
}

/// What was backed up. A snapshot of nothing has nothing in whose place something could be deleted.
fn roots(snapshot: &Snapshot) -> Vec<TreePath> {
    snapshot.paths.iter().filter_map(|path| TreePath::from_bytes(path).ok()).collect()
}

/// Refuses what would tidy up a whole machine.
fn check_delete(args: &RestoreArgs, target: &Path, base: &TreePath) -> Result<()> {
    let everywhere = target.canonicalize().is_ok_and(|target| target == Path::new("/"));
    if args.delete && everywhere && base.is_root() && args.include.is_empty() {
        let what = "nothing was restored: `--delete` with `--target /` could remove files anywhere";
        let hint = "name what is to be restored: `--include /srv/app`, or `SNAPSHOT:/srv/app --target /srv/app`";
        return Err(usage(what).hint(hint).into());
    }
    Ok(())
}

/// Names what is done to an entry: with `-v` everything, in a dry run what would be lost.
fn tell_change(app: &App, args: &RestoreArgs, path: &TreePath, change: Change) {
    let word = match change {
        Change::Made => "made",
        Change::Replaced => "replaced",
        Change::Adjusted => "adjusted",
        Change::Unchanged => "unchanged",
        Change::Skipped => "skipped",
        Change::Deleted => "deleted",
    };
    if !app.verbose() && !matches!(change, Change::Replaced | Change::Deleted) {
        return;
    }
    // A pipe nobody reads is found out by whoever writes the summary.
    let _ = if app.global.json {
        let line = json!({ "message_type": "verbose_status", "action": word, "item": path.to_string() });
        app.out.json(&line)
    } else {
        let would = if args.dry_run { "would be " } else { "" };
        app.say(&format!("{would}{word}  {}", text::plain(&path.to_string())))
    };
}

/// What filters say of a path: `--exclude` wins over `--include`.
fn selection(include: &Patterns, exclude: &Patterns, path: &TreePath, is_directory: bool) -> Selection {
    if exclude.matches(path) {
        Selection::Skip
    } else if include.is_empty() || include.matches(path) {
        Selection::Take
    } else if is_directory && include.may_match_below(path) {
        Selection::Look
    } else {
        Selection::Skip
    }
}

fn tell(
    app: &App,
    args: &RestoreArgs,
    id: &str,
    options: &Options<'_>,
    report: &Report,
    took: std::time::Duration,
) -> Result<()> {
    let target = text::plain(&options.target.display().to_string());
    app.say(&match args.dry_run {
        true => format!("snapshot {id} would be restored to {target}; nothing was changed"),
        false => format!("snapshot {id} restored to {target} in {}", text::duration(took)),
    })?;
    let mut table = text::Table::bare(&[text::Side::Left, text::Side::Left]);
    let mut row = |name: &str, value: String| table.row([format!("  {name}"), value]);
    row("written", format!("{} in {}", text::bytes(report.bytes_restored), text::count(report.files, "file", "files")));
    let more = [
        (report.directories, "directories"),
        (report.hard_links, "hard links"),
        (report.others, "links, fifos and devices"),
        (report.skipped, "left alone"),
        (report.deleted, "deleted"),
    ];
    if report.unchanged > 0 {
        let bytes = text::bytes(report.bytes_unchanged);
        row("in place", format!("{bytes} in {}", text::count(report.unchanged, "entry", "entries")));
    }
    for (count, name) in more.into_iter().filter(|(count, _)| *count > 0) {
        row(name, text::number(count));
    }
    app.say(&table.lines().join("\n"))
}

fn tell_json(
    app: &App,
    args: &RestoreArgs,
    report: &Report,
    took: std::time::Duration,
    safety: Option<SessionId>,
) -> Result<()> {
    let done = report.files + report.others + report.hard_links;
    let mut line = json!({
        "message_type": "summary",
        "seconds_elapsed": took.as_secs(),
        "total_files": done + report.unchanged + report.skipped,
        "files_restored": done,
        "files_skipped": report.skipped,
        "files_unchanged": report.unchanged,
        "files_deleted": report.deleted,
        "files_damaged": report.damaged_count,
        "directories_damaged": report.directories_damaged,
        "directories_restored": report.directories,
        "total_bytes": report.bytes_restored + report.bytes_unchanged,
        "bytes_restored": report.bytes_restored,
        "bytes_skipped": report.bytes_unchanged,
        "num_errors": report.problems,
    });
    if args.dry_run {
        line["dry_run"] = true.into();
    }
    if let Some(safety) = safety {
        line["safety_snapshot_id"] = safety.to_string().into();
    }
    app.out.json(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_included_is_reached_and_what_is_excluded_is_not() {
        let patterns = |list: &[&str]| {
            let mut patterns = Patterns::new();
            list.iter().for_each(|pattern| patterns.add(pattern.as_bytes(), Case::Sensitive).unwrap());
            patterns
        };
        let (include, exclude) = (patterns(&["/srv/app"]), patterns(&["*.log"]));
        let at = |path: &str, is_directory| {
            selection(&include, &exclude, &TreePath::from_bytes(path.as_bytes()).unwrap(), is_directory)
        };
        assert_eq!(at("/srv", true), Selection::Look);
        assert_eq!(at("/srv/app", true), Selection::Take);
        assert_eq!(at("/srv/app/x", false), Selection::Take);
        assert_eq!(at("/srv/app/x.log", false), Selection::Skip);
        assert_eq!(at("/etc", true), Selection::Skip);
        assert_eq!(selection(&patterns(&[]), &exclude, &TreePath::root(), true), Selection::Take);
    }
}
