//! `dump`: one file, or a directory as an archive, to stdout.

use super::app::App;
use super::args::{ArchiveArg, DumpArgs};
use super::fail::{Fail, Result, usage};
use super::{audited, choose, place};
use crate::dump::{Archive, dump_archive, dump_file};
use crate::error::{Error, Kind};
use crate::repo::content::Reader;
use crate::repo::reader::find;

pub(super) fn run(app: &App, args: &DumpArgs) -> Result<()> {
    if args.archive.is_some() && app.stdout_is_terminal {
        return Err(usage("an archive is not for a terminal").hint("add `> FILE`, or `| tar t`").into());
    }
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let chosen = choose::snapshot(app, &reader, &args.snapshot)?;
    let mut about = audited::of(&chosen);
    let root = &chosen.info.snapshot.root;
    let path = match (chosen.path, &args.entry) {
        (Some(path), None) => path,
        (None, Some(path)) => app.tree_path(path)?,
        (Some(_), Some(_)) => {
            return Err(usage("a path stands after the colon and another after the snapshot").into());
        }
        (None, None) => return Err(usage("nothing was dumped: name a path in the snapshot").into()),
    };
    about["path"] = audited::path_of(&path);
    audited::note(app, &repository, "dump", about)?;
    // Progress would stand between the lines of a file that goes to the same terminal.
    let work = (!app.stdout_is_terminal).then(|| app.work("dump"));
    let silent = crate::monitor::Monitor::new(app.console.clone());
    let monitor = work.as_ref().map_or(&silent, |work| work.monitor());
    let done = app.out.with_stream(|stream| match args.archive {
        None => dump_file(&reader, &find(&reader, root, &path)?, stream),
        Some(ArchiveArg::Tar) => dump_archive(&reader, root, &path, Archive::Tar, stream, monitor),
        Some(ArchiveArg::Zip) => dump_archive(&reader, root, &path, Archive::Zip, stream, monitor),
    });
    drop(work);
    done.map_err(|error| match broken_pipe(&error) {
        Some(broken) => Fail::Output(broken),
        None if error.kind() == Kind::Damaged => error.hint("to see what is damaged, run `esker check`").into(),
        None => Fail::Error(error),
    })
}

/// Whoever read the pipe has seen enough.
fn broken_pipe(error: &Error) -> Option<std::io::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<std::io::Error>()
            && found.kind() == std::io::ErrorKind::BrokenPipe
        {
            return Some(std::io::ErrorKind::BrokenPipe.into());
        }
        cause = error.source();
    }
    None
}
