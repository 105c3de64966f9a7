//! `ls`: what is in a snapshot.

use super::app::App;
use super::args::LsArgs;
use super::fail::{Fail, Result, usage};
use super::{audited, choose, entry, json as objects, place, text};
use crate::error::{Error, Kind};
use crate::ls::{Depth, run as list};
use crate::monitor::Severity;
use crate::path::TreePath;
use crate::repo::content::Reader;

pub(super) fn run(app: &App, args: &LsArgs) -> Result<()> {
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let chosen = choose::snapshot(app, &reader, &args.snapshot)?;
    let mut about = audited::of(&chosen);
    let depth = if args.paths.is_empty() || args.recursive { Depth::All } else { Depth::Children };
    let starts = match chosen.path {
        Some(_) if !args.paths.is_empty() => {
            return Err(usage("a path stands after the colon and another after the snapshot").into());
        }
        Some(path) => vec![path],
        None if args.paths.is_empty() => vec![TreePath::root()],
        None => args.paths.iter().map(|path| app.tree_path(path)).collect::<Result<_>>()?,
    };
    if let [start] = &starts[..] {
        about["path"] = audited::path_of(start);
    }
    audited::note(app, &repository, "ls", about)?;
    if app.global.json {
        app.out.json(&objects::message("snapshot", objects::snapshot(app, &chosen.info)))?;
    }
    let mut unread = 0;
    // The walk stops at an error of its own kind; why is remembered here.
    let mut failed = None;
    for start in starts {
        let listed = list(&reader, &chosen.info.snapshot.root, &start, depth, &mut |path, entry| {
            let line = match entry {
                Ok(entry) if app.global.json => app.out.json(&objects::message("node", entry::json(app, path, &entry))),
                Ok(entry) if args.long => app.out.line(&entry::long(app, path, &entry)),
                Ok(_) => app.out.line(&path.to_string()),
                Err(error) if error.kind() == Kind::Damaged => {
                    unread += 1;
                    app.console
                        .remark(Severity::Error, &format!("`{path}` is not listed in full: {}", error.with_causes()));
                    Ok(())
                }
                Err(error) => return Err(error),
            };
            line.map_err(|fail| {
                failed = Some(fail);
                Error::new(Kind::Failed, "the list was not written")
            })
        });
        match failed.take() {
            Some(fail) => return Err(fail),
            None => listed?,
        }
    }
    if unread > 0 {
        let what =
            format!("the list is not complete: {} cannot be read", text::count(unread, "directory", "directories"));
        return Err(Fail::Code(1, Error::new(Kind::Damaged, what).hint("to see what is damaged, run `esker check`")));
    }
    Ok(())
}
