//! `backup`: a snapshot of files and directories.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::about::PROGRAM;
use super::app::App;
use super::args::{BackupArgs, CHUNK_AVERAGE_BYTES, InitArgs};
use super::choose::patterns;
use super::fail::{Fail, Result, usage};
use super::{init, json, place, text};
use crate::backup::{CHECKPOINT_SECS, KeepRecord, Options, Report, resolve_roots, run as make_snapshot};
use crate::error::{Context, Error, Kind};
use crate::monitor::{Counters, Severity};
use crate::path::{Name, TreePath};
use crate::repo::Repository;
use crate::repo::pack_writer::PackSettings;
use crate::source::exclude::{Case, Patterns};
use crate::source::stat::Kind as EntryKind;
use crate::source::tag::Tag;
use crate::source::walk::{Event, Walk, WalkOptions};

pub(super) fn run(app: &App, args: &BackupArgs) -> Result<()> {
    let exclude = excludes(app, args)?;
    let tags = tags(args)?;
    let given: Vec<_> = args.paths.iter().map(|path| app.path(path)).collect();
    let (roots, missing) = resolve_roots(&given);
    for (path, error) in &missing {
        let message = format!("`{}` is not backed up: {}", path.display(), root_cause(error));
        app.console.remark(Severity::Error, &message);
    }
    if roots.is_empty() {
        return Err(Error::new(Kind::Failed, "no snapshot was made: none of the paths is there").into());
    }
    tell_resolved(app, &given, &roots);

    let repository = if args.init && !place::has_repository(app)? {
        let (made, key_file) = init::make(app, &InitArgs { chunk_average: CHUNK_AVERAGE_BYTES, name: None })?;
        init::tell(app, &made, key_file)?;
        made
    } else {
        place::repository(app)?
    };

    let larger = args.exclude_larger_than;
    let filter = larger.map(|most| -> crate::source::walk::Filter {
        Arc::new(move |_: &TreePath, stat| stat.kind != EntryKind::File || stat.size <= most)
    });
    let options = Options {
        roots,
        walk: WalkOptions {
            one_file_system: args.one_file_system,
            leave_out: own_places(&repository),
            exclude,
            tags,
            filter,
            threads: app.threads(),
        },
        hostname: args.host.clone().unwrap_or_else(|| app.host.clone()),
        username: app.user.clone(),
        tags: args.tag.clone(),
        packs: PackSettings { level: args.compression, ..PackSettings::default() },
        threads: app.threads(),
        keep_record: if app.global.no_cache { KeepRecord::InRepository } else { KeepRecord::Locally },
        checkpoint_bytes: args.checkpoint.max(1),
        checkpoint_secs: CHECKPOINT_SECS,
        force: args.force,
        ignore_ctime: args.ignore_ctime,
        program: PROGRAM.to_owned(),
    };
    let work = app.work("backup");
    let report = if work.is_shown() {
        let found_all = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| count_ahead(&options, work.monitor().counters(), &found_all));
            let report = make_snapshot(&repository, &options, work.monitor());
            found_all.store(true, Ordering::Relaxed);
            report
        })
    } else {
        make_snapshot(&repository, &options, work.monitor())
    };
    drop(work);
    let report = report?;
    tell(app, &report)?;
    let missed = report.problems + missing.len() as u64;
    if missed > 0 {
        let what = format!(
            "snapshot `{}` is not complete: {} could not be read in full; each is named above",
            report.id.short(),
            text::count(missed, "file or directory", "files or directories"),
        );
        return Err(Fail::Code(3, Error::new(Kind::Failed, what)));
    }
    Ok(())
}

/// What the system said, at the bottom of an error.
fn root_cause(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

fn excludes(app: &App, args: &BackupArgs) -> Result<Patterns> {
    let exact = args.exclude.iter().map(|pattern| (pattern.as_os_str(), Case::Sensitive));
    let folded = args.iexclude.iter().map(|pattern| (pattern.as_os_str(), Case::Insensitive));
    let mut exclude = patterns(exact.chain(folded))?;
    for file in &args.exclude_file {
        let path = app.path(file);
        let what = || format!("no snapshot was made: cannot use the exclude file `{}`", path.display());
        let lines = std::fs::read(&path).context(what)?;
        exclude.add_lines(&lines, Case::Sensitive).map_err(|error| usage(what()).because(error))?;
    }
    Ok(exclude)
}

fn tags(args: &BackupArgs) -> Result<Vec<Tag>> {
    let mut tags: Vec<Tag> = args.exclude_caches.then(Tag::cache_directory).into_iter().collect();
    for given in &args.exclude_if_present {
        let mut parts = given.as_bytes().splitn(2, |&b| b == b':');
        let name = Name::new(parts.next().unwrap_or_default()).map_err(|error| usage(error.to_string()))?;
        tags.push(Tag::new(name, parts.next().unwrap_or_default()));
    }
    Ok(tags)
}

/// The repository's own files and the cache, which no snapshot should hold.
fn own_places(repository: &Repository) -> Vec<TreePath> {
    // Each repository has a directory for each of its places in the cache: all of it is left out.
    let cache = repository.cache_directory().and_then(|own| own.ancestors().nth(2));
    let own = [repository.storage.local_directory(), cache];
    let canonical = own.into_iter().flatten().filter_map(|path| path.canonicalize().ok());
    canonical.filter_map(|path| TreePath::from_os(&path).ok()).collect()
}

/// Says where a path leads that goes through a symbolic link.
fn tell_resolved(app: &App, given: &[std::path::PathBuf], roots: &[TreePath]) {
    let typed: Vec<TreePath> = given.iter().filter_map(|path| TreePath::from_os(path).ok()).collect();
    for root in roots.iter().filter(|root| typed.len() == given.len() && !typed.contains(root)) {
        app.console.remark(Severity::Note, &format!("a path leads through a link and is backed up as `{root}`"));
    }
}

/// Counts what there is to do, for the time left.
fn count_ahead(options: &Options, counters: &Counters, done: &AtomicBool) {
    let walk = WalkOptions { threads: 1, ..options.walk.clone() };
    let (mut files, mut bytes) = (0, 0);
    for event in Walk::new(&options.roots, walk) {
        if done.load(Ordering::Relaxed) {
            return;
        }
        match event {
            Event::Enter { .. } => files += 1,
            Event::Item { stat, .. } => {
                files += 1;
                bytes += if stat.kind == EntryKind::File { stat.size } else { 0 };
            }
            _ => {}
        }
    }
    counters.files_total.store(files, Ordering::Relaxed);
    counters.bytes_total.store(bytes, Ordering::Relaxed);
}

fn tell(app: &App, report: &Report) -> Result<()> {
    let summary = &report.snapshot.summary;
    if app.global.json {
        let mut line = json::message("summary", json::summary(summary));
        line["snapshot_id"] = report.id.to_string().into();
        return app.out.json(&line);
    }
    let mut table = text::Table::bare(&[text::Side::Left, text::Side::Left]);
    let mut row = |name: &str, value: String| table.row([format!("  {name}"), value]);
    let counts = |new, changed, same| {
        format!("{} new, {} changed, {} unmodified", text::number(new), text::number(changed), text::number(same))
    };
    row("files", counts(summary.files_new, summary.files_changed, summary.files_unmodified));
    row("directories", counts(summary.dirs_new, summary.dirs_changed, summary.dirs_unmodified));
    row("in all", {
        let files = text::count(summary.total_files_processed, "file", "files");
        format!("{} in {files}", text::bytes(summary.total_bytes_processed))
    });
    let stored = text::bytes(summary.data_added_packed);
    row("added", format!("{} ({stored} stored)", text::bytes(summary.data_added)));
    for notes in app.console.take_notes() {
        let others =
            if notes.count > 1 { format!(" and {} more", text::number(notes.count - 1)) } else { String::new() };
        row("note", format!("{}{others}: {}", text::plain(&notes.first), text::plain(&notes.message)));
    }
    let took = text::duration(std::time::Duration::from_millis(summary.duration_ms));
    app.say(&format!("snapshot {} made in {took}", report.id.short()))?;
    app.say(&table.lines().join("\n"))
}
