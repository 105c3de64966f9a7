//! The versions of one path over snapshots, oldest first.
//!
//! Only the directories on the way are looked at, one node a level, and none that was the same in the
//! snapshot before. A snapshot says that a path is gone only if it was made of that path: one of
//! another root, or of a directory that could not all be read then, says nothing of it.

use crate::error::{Context, Error, Result};
use crate::format::tree::{Detail, Entry};
use crate::id::ChunkId;
use crate::path::TreePath;
use crate::repo::compare::{Differences, compare};
use crate::repo::reader::{Entries, ReadNodes};
use crate::repo::snapshots::SnapshotInfo;

/// How a version differs from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is the first.
    New,
    /// It is something else: a link where a file was.
    Type,
    /// Other content; of a directory, anything below it.
    Content,
    /// The same content with other attributes.
    Metadata,
    /// It is not there any more.
    Deleted,
    /// It is there again.
    Back,
}

/// What a path was in some snapshots that follow one another.
#[derive(Debug, Clone)]
pub struct Version {
    /// How it differs from the one before.
    pub change: Change,
    /// The entry; `None` while it is gone.
    pub entry: Option<Entry>,
    /// The first snapshot it is in, as a place in the list that was given.
    pub first: usize,
    /// The last one.
    pub last: usize,
    /// How many there are.
    pub snapshots: usize,
}

/// What a snapshot says of the path.
enum Found {
    There(Box<Entry>),
    Gone,
    Unknown,
}

/// Calls `each` with every version of `path` in `snapshots`, which are of one host and oldest first. A
/// snapshot in which it cannot be looked up is given to `unread`, and passed over if that returns `Ok`.
pub fn run<R: ReadNodes + ?Sized>(
    repo: &R,
    snapshots: &[&SnapshotInfo],
    path: &TreePath,
    each: &mut dyn FnMut(Version) -> Result<()>,
    unread: &mut dyn FnMut(&SnapshotInfo, Error) -> Result<()>,
) -> Result<()> {
    let mut lookup = Lookup { repo, path, way: Vec::new(), last: None };
    let mut open: Option<Version> = None;
    for (number, info) in snapshots.iter().enumerate() {
        let found = match lookup.find(info) {
            Ok(found) => found,
            Err(error) => {
                lookup.way.clear();
                unread(info, error)?;
                continue;
            }
        };
        let entry = match found {
            Found::There(entry) => Some(*entry),
            // What a restore was about to replace is a version; that it lacks the rest means nothing.
            Found::Gone if info.is_before_restore() => continue,
            Found::Gone => None,
            Found::Unknown => continue,
        };
        let change = match (&open, &entry) {
            (None, None) => continue,
            (None, Some(_)) => Change::New,
            (Some(Version { entry: None, .. }), Some(_)) => Change::Back,
            (Some(Version { entry: Some(_), .. }), None) => Change::Deleted,
            (Some(Version { entry: None, .. }), None) => {
                extend(open.as_mut(), number);
                continue;
            }
            (Some(Version { entry: Some(before), .. }), Some(after)) => match change(before, after) {
                Some(change) => change,
                None => {
                    extend(open.as_mut(), number);
                    continue;
                }
            },
        };
        let next = Version { change, entry, first: number, last: number, snapshots: 1 };
        if let Some(done) = open.replace(next) {
            each(done)?;
        }
    }
    open.map_or(Ok(()), each)
}

fn extend(version: Option<&mut Version>, number: usize) {
    if let Some(version) = version {
        version.last = number;
        version.snapshots += 1;
    }
}

/// How two entries of one name differ.
fn change(before: &Entry, after: &Entry) -> Option<Change> {
    match compare(before, after) {
        Differences { kind: true, .. } => Some(Change::Type),
        Differences { content: true, .. } => Some(Change::Content),
        Differences { attributes: true, .. } => Some(Change::Metadata),
        _ => None,
    }
}

/// Looks a path up in one snapshot after the other.
struct Lookup<'a, R: ?Sized> {
    repo: &'a R,
    path: &'a TreePath,
    /// The directories on the way in the snapshot before.
    way: Vec<ChunkId>,
    /// What the way led to, and whether its last directory was complete.
    last: Option<(Option<Entry>, bool)>,
}

impl<R: ReadNodes + ?Sized> Lookup<'_, R> {
    fn find(&mut self, info: &SnapshotInfo) -> Result<Found> {
        let (entry, complete) = self.walk(&info.snapshot.root)?;
        Ok(match entry {
            Some(entry) => Found::There(Box::new(entry)),
            None if complete && self.is_of(info) => Found::Gone,
            None => Found::Unknown,
        })
    }

    /// Whether the snapshot was made of the path.
    fn is_of(&self, info: &SnapshotInfo) -> bool {
        let roots = info.snapshot.paths.iter().filter_map(|root| TreePath::from_bytes(root).ok());
        roots.into_iter().any(|root| self.path.starts_with(&root))
    }

    fn walk(&mut self, root: &Entry) -> Result<(Option<Entry>, bool)> {
        let (mut way, mut at, mut complete) = (Vec::new(), root.clone(), true);
        for name in self.path.components() {
            let Detail::Directory { id, level, incomplete, .. } = at.detail else {
                return Ok(self.arrive(way, None, true));
            };
            complete = !incomplete;
            // From the same directory the rest of the way is the same.
            if self.way.get(way.len()) == Some(&id)
                && let Some(last) = &self.last
            {
                self.way[..way.len()].copy_from_slice(&way);
                return Ok(last.clone());
            }
            way.push(id);
            let next = Entries::from_name(self.repo, id, level, name.clone()).next().transpose();
            let next = next.context(|| format!("cannot look up `{}`", self.path))?;
            match next.filter(|entry| entry.name.as_ref() == Some(&name)) {
                Some(entry) => at = entry,
                None => return Ok(self.arrive(way, None, complete)),
            }
        }
        Ok(self.arrive(way, Some(at), complete))
    }

    fn arrive(&mut self, way: Vec<ChunkId>, entry: Option<Entry>, complete: bool) -> (Option<Entry>, bool) {
        self.way = way;
        self.last.insert((entry, complete)).clone()
    }
}
