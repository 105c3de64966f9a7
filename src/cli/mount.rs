//! `mount`: snapshots as directories.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::app::App;
use super::args::{MountArgs, SnapshotArgs};
use super::fail::{Result, usage};
use super::{audited, choose, json as objects, place, text};
use crate::monitor::Monitor;
use crate::mount::{Options, Top, run as mount};
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::reader::find;

/// How old a list of snapshots may be when somebody looks at it.
const REFRESH: Duration = Duration::from_secs(5);
/// Requests answered at a time: near a disk the cores are what there is to use, far from it most of them wait.
const THREADS_MIN: usize = 4;
const THREADS_MAX: usize = 16;

pub(super) fn run(app: &App, args: &MountArgs) -> Result<()> {
    let dir = app.path(&args.dir);
    if !dir.is_dir() {
        return Err(usage(format!("nothing was mounted: `{}` is not a directory", dir.display())).into());
    }
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let mut about = json!({});
    let top = match &args.snapshot {
        None => Top::Snapshots(choose::filter(app, &args.filter)?),
        Some(snapshot) => {
            let filter = args.filter.clone();
            let wanted = SnapshotArgs { snapshot: snapshot.clone(), at: args.at.clone(), filter };
            let chosen = choose::snapshot(app, &reader, &wanted)?;
            about = audited::of(&chosen);
            let path = chosen.path.unwrap_or_else(TreePath::root);
            Top::Entry(Box::new(find(&reader, &chosen.info.snapshot.root, &path)?))
        }
    };
    about["to"] = audited::text_of(&dir.display().to_string());
    audited::note(app, &repository, "mount", about)?;
    // A hold that is let go of stops all threads at once.
    let (hold, stop) = crossbeam_channel::bounded(0);
    let hold = Mutex::new(Some(hold));
    app.when_interrupted(Box::new(move || drop(hold.lock().unwrap_or_else(PoisonError::into_inner).take())));
    let zone = app.time_zone.clone();
    let options = Options {
        allow_other: args.allow_other,
        owner_root: args.owner_root,
        threads: app.threads().max(repository.storage.connections()).clamp(THREADS_MIN, THREADS_MAX),
        named: Arc::new(move |time| super::time::file_name(time, &zone)),
        refresh: REFRESH,
    };
    let monitor = Monitor::new(app.console.clone());
    Ok(mount(reader, top, &dir, &options, &monitor, &stop, || tell(app, &dir))?)
}

/// Says that it is there. If nobody hears that, it is there all the same.
fn tell(app: &App, dir: &Path) {
    let dir = dir.display().to_string();
    let _ = if app.global.json {
        app.out.json(&objects::message("mounted", json!({ "mountpoint": dir }))).and_then(|()| app.out.flush())
    } else {
        app.say(&format!("mounted at {}\nto unmount, press Ctrl-C or run `umount` on it", text::plain(&dir)))
    };
}
