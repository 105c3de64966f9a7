//! An entry of a tree, for people and for programs.

use serde_json::{Value, json};

use super::app::App;
use super::text;
use crate::format::tree::{Detail, Entry, EntryKind};
use crate::id::hex;
use crate::path::{TreePath, display_bytes};

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

/// As `ls -l` has it, with the whole path.
pub(super) fn long(app: &App, path: &TreePath, entry: &Entry) -> String {
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

/// With restic's keys.
pub(super) fn json(app: &App, path: &TreePath, entry: &Entry) -> Value {
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
