//! `demo`: a newcomer's tour on a copy of their files, with real figures.
//!
//! In a directory of its own it makes a repository with a key file, a snapshot, some changes and
//! a second snapshot, restores the first one and compares every byte and attribute with what was
//! there before. Nothing outside of that directory is written.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::about::PROGRAM;
use super::app::App;
use super::args::{CHUNK_AVERAGE_BYTES, DemoArgs};
use super::fail::{Result, usage};
use super::text;
use super::text::Side;
use super::unlock::NewKeyFile;
use crate::backup::{CHECKPOINT_BYTES, CHECKPOINT_SECS, KeepRecord, Options, Report, run as make_snapshot};
use crate::chunk::cut::Parameters;
use crate::crypto::slot::KdfCost;
use crate::error::{Context, Error, Kind};
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::open::{FirstKey, InitOptions, Local};
use crate::repo::pack_writer::PackSettings;
use crate::repo::secret::KeyFile;
use crate::source::walk::WalkOptions;
use crate::storage;

mod tree;

/// At most so much of somebody's files is copied.
const SOURCE_BYTES_MAX: u64 = 2 << 30;

/// Differences that are named.
const DIFFERENCES_NAMED_MAX: usize = 20;

/// The directory a demo takes place in.
struct Stage {
    dir: PathBuf,
    keep: bool,
}

impl Stage {
    fn new(app: &App, keep: Option<&Path>) -> Result<Self> {
        let dir = match keep {
            Some(dir) => app.path(dir),
            None => {
                let base = app.var("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
                app.path(&base).join(format!("esker-demo-{}", crate::id::hex(&app.world.random::<4>())))
            }
        };
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let what = format!("the demo needs a new directory, and `{}` is there already", dir.display());
                Err(usage(what).into())
            }
            made => {
                made.context(|| format!("cannot make the directory `{}`", dir.display()))?;
                // Paths in snapshots have no links in them.
                let canonical = dir.canonicalize().context(|| "cannot find the new directory")?;
                Ok(Self { dir: canonical, keep: keep.is_some() })
            }
        }
    }

    fn sub(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::create_dir(&path).context(|| format!("cannot make the directory `{}`", path.display()))?;
        Ok(path)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// A snapshot, what it cost and how long it took.
struct Step {
    report: Report,
    stored: u64,
    took: Duration,
}

pub(super) fn run(app: &App, args: &DemoArgs) -> Result<()> {
    let stage = Stage::new(app, args.keep.as_deref())?;
    let source = stage.sub("source")?;
    let copied = prepare(app, args, &stage, &source)?;
    let read = |what: &str| format!("cannot look through the {what}");
    let before = tree::describe(&source).context(|| read("copy"))?;
    let (files, bytes) = tree::totals(&before);
    if before.is_empty() {
        return Err(Error::new(Kind::Failed, "no demo: there is nothing that can be read").into());
    }

    let repository = make_repository(app, &stage)?;
    let first = snapshot(app, &repository, &source, 0)?;
    let changed = tree::change(&source, &before).context(|| "cannot change the copy")?;
    let second = snapshot(app, &repository, &source, first.stored)?;

    let restored = stage.sub("restored")?;
    let took = restore(app, &repository, &first.report, &source, &restored)?;
    let after = tree::describe(&restored).context(|| read("restored files"))?;
    let differences = tree::differences(&before, &after);

    if app.global.json {
        let step = |step: &Step| {
            json!({
                "snapshot_id": step.report.id.to_string(),
                "total_bytes_processed": step.report.snapshot.summary.total_bytes_processed,
                "stored_bytes": step.stored,
                "seconds": step.took.as_secs_f64(),
            })
        };
        app.out.json(&json!({
            "message_type": "summary",
            "source_files": files,
            "source_bytes": bytes,
            "first": step(&first),
            "second": step(&second),
            "restore_seconds": took.as_secs_f64(),
            "entries_compared": before.len(),
            "differences": differences,
        }))?;
    } else {
        let what = args.path.as_ref().map_or("files made up for the purpose".into(), |path| {
            format!("a copy of {}", text::plain(&path.display().to_string()))
        });
        let files = text::count(files, "file", "files");
        app.out.say(&format!("Esker on {what}: {files}, {}\n", text::bytes(bytes)))?;
        tell_left_out(app, &copied)?;
        let equal = match (differences.len(), before.len()) {
            (0, 1) => "it is equal in every byte and attribute".into(),
            (0, entries) => {
                format!("all {} entries are equal in every byte and attribute", text::number(entries as u64))
            }
            _ => "NOT the same".to_owned(),
        };
        let notes = [saved(bytes, first.stored), what_changed(&changed), equal];
        app.out.say(&table(bytes, &first, &second, took, notes).lines().join("\n"))?;
        tell_next(app, &stage)?;
    }
    if differences.is_empty() {
        return Ok(());
    }
    let named = differences.iter().take(DIFFERENCES_NAMED_MAX);
    named.for_each(|line| app.console.remark(crate::monitor::Severity::Error, line));
    let what = format!("the restored files differ from the original in {} places", differences.len());
    Err(Error::new(Kind::Failed, what).into())
}

fn prepare(app: &App, args: &DemoArgs, stage: &Stage, source: &Path) -> Result<tree::Copied> {
    let Some(path) = &args.path else {
        tree::make(source).context(|| "cannot make the files of the demo")?;
        return Ok(tree::Copied::default());
    };
    let work = app.work("copy");
    // The copy, the repository and what is restored, and some to spare.
    let room = rustix::fs::statvfs(&stage.dir).map_err(std::io::Error::from);
    let room = room.context(|| "cannot tell how much space there is for a copy")?;
    let limit = SOURCE_BYTES_MAX.min(room.f_bavail.saturating_mul(room.f_frsize) / 4);
    let from = app.path(path);
    let copied = tree::copy(&from, source, limit, &stage.dir, work.monitor());
    if work.monitor().stopping() {
        return Err(Error::new(Kind::Interrupted, "the demo was interrupted").into());
    }
    Ok(copied.context(|| format!("cannot copy `{}`", from.display()))?)
}

fn make_repository(app: &App, stage: &Stage) -> Result<Repository> {
    let place = stage.dir.join("repository");
    let storage = storage::local::Local::create(&place).context(|| "cannot make a repository")?;
    let key_file = NewKeyFile::reserve(&stage.dir.join("key"))?;
    let options = InitOptions {
        key: FirstKey::KeyFile,
        kdf: KdfCost::DEFAULT,
        chunker: Parameters::with_average(CHUNK_AVERAGE_BYTES),
        label: app.label(),
        like: None,
        parity_percent: 0,
    };
    let local = Local { cache: Some(stage.sub("cache")?), ..Local::default() };
    let keep = |key: &KeyFile| key_file.write(key);
    Ok(Repository::init_keeping(Arc::new(storage), app.world.clone(), &options, local, keep)?)
}

/// Makes a snapshot; what it stored is told by the storage, all that is not content included.
fn snapshot(app: &App, repository: &Repository, source: &Path, before: u64) -> Result<Step> {
    let root = TreePath::from_os(source).map_err(|error| Error::new(Kind::Failed, error.to_string()))?;
    let options = Options {
        roots: vec![root],
        walk: WalkOptions { threads: app.threads(), ..WalkOptions::default() },
        hostname: app.host.clone(),
        username: app.user.clone(),
        tags: Vec::new(),
        packs: PackSettings::default(),
        threads: app.threads(),
        keep_record: KeepRecord::Locally,
        checkpoint_bytes: CHECKPOINT_BYTES,
        checkpoint_secs: CHECKPOINT_SECS,
        force: false,
        ignore_ctime: false,
        program: PROGRAM.to_owned(),
        variation: crate::backup::Variation::default(),
    };
    let work = app.work("backup");
    let began = Instant::now();
    let report = make_snapshot(repository, &options, work.monitor())?;
    let took = began.elapsed();
    let objects = repository.storage.list("").context(|| "cannot list the repository")?;
    let stored = objects.iter().map(|object| object.bytes).sum::<u64>();
    Ok(Step { report, stored: stored.saturating_sub(before), took })
}

fn restore(app: &App, repository: &Repository, report: &Report, source: &Path, target: &Path) -> Result<Duration> {
    let work = app.work("restore");
    let began = Instant::now();
    let reader = Reader::new(repository)?;
    let base = TreePath::from_os(source).map_err(|error| Error::new(Kind::Failed, error.to_string()))?;
    let options = crate::restore::Options { threads: app.threads(), ..crate::restore::Options::new(target) };
    crate::restore::run(&reader, &report.snapshot.root, &base, &options, work.monitor())?;
    Ok(began.elapsed())
}

fn saved(source: u64, stored: u64) -> String {
    match source.checked_sub(stored) {
        Some(saved) if source > 0 && saved * 100 >= source => {
            format!("{} saved by finding duplicates and compressing", text::percent(saved, source))
        }
        _ => "nothing saved: too few files, or such as do not compress".into(),
    }
}

fn what_changed(changed: &tree::Changed) -> String {
    let mut parts = vec![format!("after {} appended to", text::count(changed.appended, "file was", "files were"))];
    if changed.deleted > 0 {
        parts.push(format!("{} deleted", changed.deleted));
    }
    parts.push(format!("{} added", changed.added));
    parts.join(", ")
}

fn table(bytes: u64, first: &Step, second: &Step, restored: Duration, notes: [String; 3]) -> text::Table {
    let columns =
        [("", Side::Left), ("files", Side::Right), ("stored", Side::Right), ("took", Side::Right), ("", Side::Left)];
    let mut table = text::Table::new(&columns);
    let size = |step: &Step| text::bytes(step.report.snapshot.summary.total_bytes_processed);
    let [saved, changed, equal] = notes;
    table.row(["first snapshot".into(), size(first), text::bytes(first.stored), text::duration(first.took), saved]);
    let grown = format!("+{}", text::bytes(second.stored));
    table.row(["second snapshot".into(), size(second), grown, text::duration(second.took), changed]);
    table.row(["first restored".into(), text::bytes(bytes), String::new(), text::duration(restored), equal]);
    table
}

fn tell_left_out(app: &App, copied: &tree::Copied) -> Result<()> {
    if copied.over_limit > 0 {
        let files = text::count(copied.over_limit, "file was", "files were");
        app.out.say(&format!("{files} not copied: a demo takes at most 2 GiB, and a quarter of the free space\n"))?;
    }
    if copied.unreadable > 0 {
        let files = text::count(copied.unreadable, "entry", "entries");
        app.out.say(&format!("{files} could not be read and had no part in it; each is named above\n"))?;
    }
    Ok(())
}

fn tell_next(app: &App, stage: &Stage) -> Result<()> {
    if stage.keep {
        let dir = stage.dir.display();
        app.out.say(&format!(
            "\nTo look around in {dir}:\n  \
             esker snapshots --repo {dir}/repository --key-file {dir}/key\n  \
             esker ls latest --repo {dir}/repository --key-file {dir}/key"
        ))?;
    }
    app.out.say(
        "\nTo begin with your own files:\n  \
         esker init --repo /path/to/backups\n  \
         esker backup ~/Documents --repo /path/to/backups\n  \
         esker restore latest --target /tmp/restored --repo /path/to/backups",
    )
}
