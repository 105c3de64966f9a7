//! How two entries differ that are, or were, at one place.

use crate::format::tree::{Attributes, Detail, Entry};

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Differences {
    /// What it is: a link, and not a file.
    pub kind: bool,
    /// A file's bytes, where a link leads, which device it is; of a directory, anything below it. What
    /// is of another kind has no content to compare.
    pub content: bool,
    /// Owner, mode, time of change or extended attributes.
    pub attributes: bool,
}

/// Compares two entries, but for their names and for the groups of hard links they are in. Where a file has
/// holes is no difference either: its bytes are the same.
pub fn compare(before: &Entry, after: &Entry) -> Differences {
    let kind = before.kind() != after.kind();
    let content = match (&before.detail, &after.detail) {
        (Detail::File { size, content, .. }, Detail::File { size: size_after, content: content_after, .. }) => {
            (size, content) != (size_after, content_after)
        }
        (Detail::Directory { id, level, .. }, Detail::Directory { id: id_after, level: level_after, .. }) => {
            (id, level) != (id_after, level_after)
        }
        (before, after) => !kind && before != after,
    };
    Differences { kind, content, attributes: plain(&before.attributes) != plain(&after.attributes) }
}

/// All but the link group, which is another in every backup that meets the links anew.
fn plain(attributes: &Attributes) -> impl PartialEq {
    let Attributes { mode, uid, gid, user, group, mtime, xattrs, link_group: _ } = attributes.clone();
    (mode, uid, gid, user, group, mtime, xattrs)
}
