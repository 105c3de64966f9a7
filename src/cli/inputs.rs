//! What a backup is made of: the paths typed, lists of paths, stdin, or a command.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::app::App;
use super::args::BackupArgs;
use super::fail::{Result, usage};
use crate::backup::resolve_roots;
use crate::error::{Context, Error, Kind};
use crate::monitor::Severity;
use crate::path::TreePath;
use crate::source::files_from;
use crate::source::stream::{Program, Stream};

/// The roots asked for, and how many paths are not there; each of those was reported.
pub(super) fn roots(app: &App, args: &BackupArgs) -> Result<(Vec<TreePath>, u64)> {
    let mut given: Vec<PathBuf> = Vec::new();
    if !args.stdin_from_command {
        given.extend(args.paths.iter().cloned());
    }
    for list in &args.files_from {
        let (paths, unmatched) =
            files_from::patterns(&read_list(app, list)?, &app.cwd).map_err(|e| unusable(list, e))?;
        for pattern in unmatched {
            let message = format!("nothing matches `{}` in the list `{}`", pattern.display(), list.display());
            app.console.remark(Severity::Warning, &message);
        }
        given.extend(paths);
    }
    for list in &args.files_from_verbatim {
        given.extend(files_from::verbatim(&read_list(app, list)?));
    }
    for list in &args.files_from_raw {
        given.extend(files_from::raw(&read_list(app, list)?).map_err(|error| unusable(list, error))?);
    }
    if given.is_empty() {
        return Err(usage("no snapshot was made: the lists name nothing to back up").into());
    }
    let given: Vec<_> = given.iter().map(|path| app.path(path)).collect();
    let (roots, missing) = resolve_roots(&given);
    for (path, error) in &missing {
        let message = format!("`{}` is not backed up: {}", path.display(), root_cause(error));
        app.console.remark(Severity::Error, &message);
    }
    if roots.is_empty() {
        return Err(Error::new(Kind::Failed, "no snapshot was made: none of the paths is there").into());
    }
    tell_resolved(app, &given, &roots);
    Ok((roots, missing.len() as u64))
}

/// The stream asked for; a command is running when it returns.
pub(super) fn stream(app: &App, args: &BackupArgs) -> Result<Stream> {
    if !args.stdin_from_command {
        return Ok(Stream::of_reader(app.stdin()?));
    }
    let program = Program {
        words: args.paths.iter().map(|word| word.clone().into_os_string()).collect(),
        env: app.env_of_commands().map(|(name, value)| (name.clone(), value.clone())).collect(),
        directory: app.cwd.clone(),
    };
    let name = program.words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    Stream::of_command(&program)
        .context(|| format!("no snapshot was made: the command `{name}` cannot be run"))
        .map_err(Into::into)
}

fn read_list(app: &App, list: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = match list.as_os_str() == "-" {
        true => app.stdin()?.read_to_end(&mut text).map(|_| text),
        false => std::fs::read(app.path(list)),
    };
    read.context(|| format!("no snapshot was made: cannot read the list `{}`", list.display())).map_err(Into::into)
}

fn unusable(list: &Path, error: files_from::ListError) -> Error {
    usage(format!("no snapshot was made: cannot use the list `{}`", list.display())).because(error)
}

/// What the system said, at the bottom of an error.
fn root_cause(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

/// Says where a path leads that goes through a symbolic link.
fn tell_resolved(app: &App, given: &[PathBuf], roots: &[TreePath]) {
    let typed: Vec<TreePath> = given.iter().filter_map(|path| TreePath::from_os(path).ok()).collect();
    for root in roots.iter().filter(|root| typed.len() == given.len() && !typed.contains(root)) {
        app.console.remark(Severity::Note, &format!("a path leads through a link and is backed up as `{root}`"));
    }
}
