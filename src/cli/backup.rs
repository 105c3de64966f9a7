//! `backup`: a snapshot of files and directories, or of a stream.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::about::PROGRAM;
use super::app::App;
use super::args::{BackupArgs, InitArgs};
use super::choose::{excludes, patterns};
use super::fail::{Fail, Result, usage};
use super::{init, inputs, json, place, text};
use crate::backup::{
    CHECKPOINT_SECS, Ending, KeepRecord, Options, Report, StreamInput, Variation, run as make_snapshot,
};
use crate::error::{Error, Kind};
use crate::id::SessionId;
use crate::monitor::Counters;
use crate::path::{Name, TreePath};
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::pack_writer::PackSettings;
use crate::repo::snapshots::Filter;
use crate::source::exclude::Case;
use crate::source::stat::Kind as EntryKind;
use crate::source::tag::Tag;
use crate::source::walk::{Event, Walk, WalkOptions};
use crate::storage::dry_run::DryRun;

pub(super) fn run(app: &App, args: &BackupArgs) -> Result<()> {
    let exclude = excludes(app, &args.excludes, "no snapshot was made")?;
    let tags = tags(args)?;
    let from_stream = args.stdin || args.stdin_from_command;
    if args.stdin_filename.is_some() && !from_stream {
        return Err(usage("`--stdin-filename` goes with `--stdin` or `--stdin-from-command`").into());
    }
    let (roots, missing) = if from_stream { (vec![stream_path(args)?], 0) } else { inputs::roots(app, args)? };

    let repository = if args.init && !place::has_repository(app)? {
        let (made, told) = init::make(app, &InitArgs::plain())?;
        init::tell(app, &made, told)?;
        made
    } else {
        place::repository(app)?
    };
    let repository = if args.dry_run { without_changes(repository) } else { repository };
    let parent = args.parent.as_ref().map(|wanted| parent(&repository, args, app, wanted)).transpose()?;
    let stream = from_stream.then(|| inputs::stream(app, args)).transpose()?;
    let stream = stream.map(|stream| StreamInput::new(roots[0].clone(), stream));

    let filter = filter(args)?;
    let options = Options {
        roots,
        walk: WalkOptions {
            one_file_system: args.one_file_system,
            leave_out: own_places(&repository),
            exclude,
            tags,
            filter,
            threads: app.threads(),
            spill: repository.cache_directory().map_or_else(std::env::temp_dir, Path::to_owned),
        },
        hostname: args.host.clone().unwrap_or_else(|| app.host.clone()),
        username: app.user.clone(),
        tags: args.tag.clone(),
        packs: PackSettings {
            level: args.compression,
            frame_bytes: usize::try_from(args.frame_size).expect("a frame has 8 MiB at the most"),
            data_pack_bytes: args.pack_size,
            ..PackSettings::default()
        },
        threads: app.threads(),
        keep_record: if app.global.no_cache { KeepRecord::InRepository } else { KeepRecord::Locally },
        checkpoint_bytes: args.checkpoint.max(1),
        checkpoint_secs: CHECKPOINT_SECS,
        force: args.force,
        ignore_ctime: args.ignore_ctime,
        program: PROGRAM.to_owned(),
        variation: Variation {
            stream,
            skip_if_unchanged: args.skip_if_unchanged,
            dry_run: args.dry_run,
            parent,
            unrecorded: false,
        },
    };
    let work = app.work("backup");
    // How much a stream is nobody knows.
    let report = if work.is_shown() && !from_stream {
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
    let missed = report.problems + missing;
    if missed > 0 {
        let which = match report.ending {
            Ending::Made => format!("snapshot `{}` is", report.id.short()),
            Ending::Unchanged { .. } => "the comparison was".to_owned(),
            Ending::DryRun => "the snapshot would be".to_owned(),
        };
        let missed = text::count(missed, "file or directory", "files or directories");
        let what = format!("{which} not complete: {missed} could not be read in full; each is named above");
        return Err(Fail::Code(3, Error::new(Kind::Failed, what)));
    }
    Ok(())
}

/// What of files is taken, if not all is.
fn filter(args: &BackupArgs) -> Result<Option<crate::source::walk::Filter>> {
    let (most, include) =
        (args.exclude_larger_than, patterns(args.include.iter().map(|p| (p.as_os_str(), Case::Sensitive)))?);
    if most.is_none() && include.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(move |path: &TreePath, stat| {
        let is_small = stat.kind != EntryKind::File || most.is_none_or(|most| stat.size <= most);
        let leads = || stat.kind == EntryKind::Directory && include.may_match_below(path);
        let is_meant = include.is_empty() || include.matches(path) || leads();
        is_small && is_meant
    })))
}

/// Where in the snapshot a stream stands: `--stdin-filename`, from the top.
fn stream_path(args: &BackupArgs) -> Result<TreePath> {
    let name = args.stdin_filename.as_deref().unwrap_or(Path::new("stdin"));
    let wrong = |why: &str| usage(format!("cannot use `--stdin-filename {}`: {why}", name.display()));
    let path = TreePath::from_os(&Path::new("/").join(name)).map_err(|error| wrong(&error.to_string()))?;
    if path.is_root() || name.as_os_str().as_bytes().ends_with(b"/") {
        return Err(wrong("it names no file").into());
    }
    Ok(path)
}

/// The repository as it is, to which nothing is added from here on.
fn without_changes(mut repository: Repository) -> Repository {
    repository.storage = Arc::new(DryRun::new(repository.storage.clone()));
    repository
}

/// The snapshot that `--parent` means. A writer cannot read snapshots, but knows their ids.
fn parent(repository: &Repository, args: &BackupArgs, app: &App, wanted: &str) -> Result<SessionId> {
    let whole: std::result::Result<SessionId, _> = wanted.parse();
    if let Ok(id) = whole {
        return Ok(id);
    }
    let host = args.host.clone().unwrap_or_else(|| app.host.clone());
    let filter = Filter { hosts: vec![host], ..Filter::default() };
    Ok(Reader::new(repository)?.find_snapshot(wanted, &filter)?.id())
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
pub(super) fn own_places(repository: &Repository) -> Vec<TreePath> {
    // Each repository has a directory for each of its places in the cache: all of it is left out.
    let cache = repository.cache_directory().and_then(|own| own.ancestors().nth(2));
    let own = [repository.storage.local_directory(), cache];
    let canonical = own.into_iter().flatten().filter_map(|path| path.canonicalize().ok());
    canonical.filter_map(|path| TreePath::from_os(&path).ok()).collect()
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
        match report.ending {
            Ending::Made => line["snapshot_id"] = report.id.to_string().into(),
            // As in restic there is no id where there is no snapshot.
            Ending::Unchanged { .. } => {}
            Ending::DryRun => line["dry_run"] = true.into(),
        }
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
    match report.ending {
        Ending::Unchanged { .. } => {}
        Ending::Made => row("added", format!("{} ({stored} stored)", text::bytes(summary.data_added))),
        Ending::DryRun => row("to add", format!("{} ({stored} to store)", text::bytes(summary.data_added))),
    }
    for notes in app.console.take_notes() {
        let others =
            if notes.count > 1 { format!(" and {} more", text::number(notes.count - 1)) } else { String::new() };
        row("note", format!("{}{others}: {}", text::plain(&notes.first), text::plain(&notes.message)));
    }
    let took = text::duration(std::time::Duration::from_millis(summary.duration_ms));
    app.say(&match report.ending {
        Ending::Made => format!("snapshot {} made in {took}", report.id.short()),
        Ending::Unchanged { parent } => {
            format!("no snapshot made in {took}: nothing has changed since snapshot {}", parent.short())
        }
        Ending::DryRun => format!("a snapshot would be made; nothing was stored ({took})"),
    })?;
    app.say(&table.lines().join("\n"))
}
