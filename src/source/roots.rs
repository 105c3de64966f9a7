//! The paths a backup was asked for: made absolute, and folded into one tree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::path::{Name, PathError, TreePath};

/// Why a path cannot be a root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It is not there, or cannot be looked at.
    #[error("`{path}` cannot be backed up")]
    Unreachable {
        /// The path as it was asked for.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It has no place in a snapshot.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Finds the place in a snapshot of a path someone typed.
///
/// The directory it is in is resolved, symbolic links and `..` included; the last component is
/// not, so a link stands for itself (unless a slash, `.` or `..` follows it). Where the result
/// differs from `given` beyond being absolute, the caller should say so. A path that does not
/// exist is an error.
pub fn resolve(given: &Path) -> Result<TreePath, RootError> {
    let unreachable =
        |source| RootError::Unreachable { path: crate::path::display_bytes(given.as_os_str().as_bytes()), source };
    let follow = given.as_os_str().as_bytes().ends_with(b"/") || given.as_os_str().as_bytes().ends_with(b"/.");
    let path = match (given.components().next_back(), given.file_name()) {
        (Some(Component::Normal(_)), Some(name)) if !follow => {
            let parent = given.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
            let path = parent.canonicalize().map_err(unreachable)?.join(name);
            path.symlink_metadata().map_err(unreachable)?;
            path
        }
        _ => given.canonicalize().map_err(unreachable)?,
    };
    Ok(TreePath::from_os(&path)?)
}

/// The roots as a tree of names.
#[derive(Debug)]
pub(super) struct Route {
    nodes: Vec<Stop>,
}

/// A directory on the way to roots, or a root.
#[derive(Debug, Default)]
struct Stop {
    chosen: bool,
    next: BTreeMap<Name, StopId>,
}

/// A place in a [`Route`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StopId(usize);

impl Route {
    /// Where `/` is.
    pub(super) const TOP: StopId = StopId(0);

    pub(super) fn new(roots: &[TreePath]) -> Self {
        let mut route = Self { nodes: vec![Stop::default()] };
        for root in roots {
            let mut at = Self::TOP;
            for name in root.components() {
                let fresh = StopId(route.nodes.len());
                let next = *route.nodes[at.0].next.entry(name).or_insert(fresh);
                if next == fresh {
                    route.nodes.push(Stop::default());
                }
                at = next;
            }
            route.nodes[at.0].chosen = true;
        }
        route
    }

    /// Whether this is a root itself.
    pub(super) fn is_chosen(&self, at: StopId) -> bool {
        self.nodes[at.0].chosen
    }

    /// Where `name` leads from here, if roots lie there.
    pub(super) fn child(&self, at: StopId, name: &Name) -> Option<StopId> {
        self.nodes[at.0].next.get(name).copied()
    }

    /// The names to follow from here, in order.
    pub(super) fn next(&self, at: StopId) -> impl Iterator<Item = (&Name, StopId)> {
        self.nodes[at.0].next.iter().map(|(name, next)| (name, *next))
    }
}

/// Whether `name` is the last component of `path`.
pub(super) fn ends_with(path: &TreePath, name: &OsStr) -> bool {
    path.as_bytes().rsplit(|&b| b == b'/').next() == Some(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_root_is_found_through_links_but_a_link_stands_for_itself() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("real/sub")).unwrap();
        symlink("real", top.join("link")).unwrap();
        symlink("nowhere", top.join("real/dangling")).unwrap();
        for (given, expected) in [
            ("real/sub", "real/sub"),
            ("link/sub", "real/sub"),
            ("link", "link"),
            ("link/", "real"),
            ("link/.", "real"),
            ("link/..", ""),
            ("link/sub/../dangling", "real/dangling"),
            ("real//sub", "real/sub"),
        ] {
            let expected = TreePath::from_os(&top.join(expected)).unwrap();
            assert_eq!(resolve(&top.join(given)).unwrap(), expected, "{given}");
        }
        assert!(resolve(Path::new("/")).unwrap().is_root());
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(resolve(Path::new(".")).unwrap().to_os(), here);
        assert_eq!(resolve(Path::new("Cargo.toml")).unwrap().to_os(), here.join("Cargo.toml"));
    }

    #[test]
    fn a_root_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for given in ["gone", "gone/x", "gone/", ""] {
            let path = if given.is_empty() { "".into() } else { dir.path().join(given) };
            assert!(matches!(resolve(&path), Err(RootError::Unreachable { .. })), "{given:?}");
        }
    }

    #[test]
    fn roots_share_their_way() {
        let path = |text: &str| TreePath::from_bytes(text.as_bytes()).unwrap();
        let route = Route::new(&[path("/b/x"), path("/a"), path("/b"), path("/b/y/z")]);
        let names = |at| route.next(at).map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(Route::TOP), ["a", "b"]);
        let b = route.child(Route::TOP, &Name::new(*b"b").unwrap()).unwrap();
        assert_eq!(names(b), ["x", "y"]);
        assert!(route.is_chosen(b) && !route.is_chosen(Route::TOP));
        let y = route.child(b, &Name::new(*b"y").unwrap()).unwrap();
        assert!(!route.is_chosen(y) && route.child(y, &Name::new(*b"x").unwrap()).is_none());
    }
}
