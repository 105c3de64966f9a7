//! `ls`: what is in a snapshot.

use serde_json::{Value, json};

use super::app::App;
use super::args::LsArgs;
use super::fail::{Fail, Result, usage};
use super::{choose, json as objects, place, text};
use crate::error::{Error, Kind};
use crate::format::tree::{Detail, Entry, EntryKind};
use crate::id::hex;
use crate::ls::{Depth, run as list};
use crate::monitor::Severity;
use crate::path::{TreePath, display_bytes};
use crate::repo::content::Reader;

pub(super) fn run(app: &App, args: &LsArgs) -> Result<()> {
    let repository = place::repository(app)?;
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let chosen = choose::snapshot(app, &reader, &args.snapshot)?;
    let depth = if args.paths.is_empty() || args.recursive { Depth::All } else { Depth::Children };
    let starts = match chosen.path {
        Some(_) if !args.paths.is_empty() => {
            return Err(usage("a path stands after the colon and another after the snapshot").into());
        }
        Some(path) => vec![path],
        None if args.paths.is_empty() => vec![TreePath::root()],
        None => args.paths.iter().map(|path| app.tree_path(path)).collect::<Result<_>>()?,
    };
    if app.global.json {
        app.out.json(&objects::message("snapshot", objects::snapshot(app, &chosen.info)))?;
    }
    let mut unread = 0;
    // The walk stops at an error of its own kind; why is remembered here.
    let mut failed = None;
    for start in starts {
        let listed = list(&reader, &chosen.info.snapshot.root, &start, depth, &mut |path, entry| {
            let line = match entry {
                Ok(entry) if app.global.json => app.out.json(&node(app, path, &entry)),
                Ok(entry) if args.long => app.out.line(&long(app, path, &entry)),
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

/// `drwxr-xr-x`, as `ls -l` has it.
pub(super) fn permissions(entry: &Entry) -> String {
    let kind = match entry.kind() {
        EntryKind::File => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::CharDevice => 'c',
        EntryKind::BlockDevice => 'b',
    };
    let mode = entry.attributes.mode;
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
        });
    }
    text
}

fn long(app: &App, path: &TreePath, entry: &Entry) -> String {
    let attributes = &entry.attributes;
    let name = |name: &Option<String>, id: u32| match name {
        Some(name) => text::plain(name),
        None => id.to_string(),
    };
    let size = match entry.detail {
        Detail::CharDevice { major, minor } | Detail::BlockDevice { major, minor } => format!("{major},{minor}"),
        _ => entry.size().to_string(),
    };
    let target = match &entry.detail {
        Detail::Symlink { target } => format!(" -> {}", display_bytes(target)),
        _ => String::new(),
    };
    format!(
        "{} {:<8} {:<8} {size:>12} {} {path}{target}",
        permissions(entry),
        name(&attributes.user, attributes.uid),
        name(&attributes.group, attributes.gid),
        app.show_time(attributes.mtime),
    )
}

fn node(app: &App, path: &TreePath, entry: &Entry) -> Value {
    let attributes = &entry.attributes;
    let kind = match entry.kind() {
        EntryKind::File => "file",
        EntryKind::Directory => "dir",
        EntryKind::Symlink => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::CharDevice => "chardev",
        EntryKind::BlockDevice => "dev",
    };
    let mut node = json!({
        "message_type": "node",
        "name": entry.name.as_ref().map(ToString::to_string),
        "type": kind,
        "path": path.to_string(),
        "uid": attributes.uid,
        "gid": attributes.gid,
        "user": attributes.user,
        "group": attributes.group,
        "mode": attributes.mode,
        "permissions": permissions(entry),
        "mtime": super::time::rfc3339(attributes.mtime, &app.time_zone),
    });
    // Text stands for the bytes unless some of them had to be escaped.
    if path.to_string().as_bytes() != path.as_bytes() {
        node["path_hex"] = hex(path.as_bytes()).into();
    }
    match &entry.detail {
        Detail::File { size, .. } => node["size"] = (*size).into(),
        Detail::Symlink { target } => node["linktarget"] = display_bytes(target).into(),
        Detail::Directory { incomplete: true, .. } => node["incomplete"] = true.into(),
        Detail::CharDevice { major, minor } | Detail::BlockDevice { major, minor } => {
            node["device"] = json!([major, minor]);
        }
        _ => {}
    }
    node
}
