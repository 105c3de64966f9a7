//! A directory of the walk, and its place among the roots.

use std::sync::{Arc, Mutex, PoisonError};

use super::dir::Dir;
use super::roots::{Route, StopId};
use crate::path::{Name, TreePath};

/// A directory of the walk. Knows the way up, so that it can be found again and named.
#[derive(Debug)]
pub(super) struct Node {
    parent: Option<Arc<Node>>,
    name: Option<Name>,
    pub(super) place: Place,
    /// The file system the directory around it is on, and the one it was found on itself.
    pub(super) dev_around: u64,
    pub(super) dev: u64,
    /// Open while something in it is being looked at.
    dir: Mutex<Option<Arc<Dir>>>,
}

/// Where a directory stands in relation to the roots. Roots may lie below roots: one that is
/// named is kept though its file system or what is around it is left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its place on the route, when it is a root or roots lie below it.
    pub(super) stop: Option<StopId>,
    /// Whether there is a root above it.
    pub(super) below_root: bool,
}

impl Node {
    /// `/`.
    pub(super) fn top() -> Arc<Self> {
        let place = Place { stop: Some(Route::TOP), below_root: false };
        Arc::new(Self { parent: None, name: None, place, dev_around: 0, dev: 0, dir: Mutex::default() })
    }

    /// The directory `name` in `parent`, found on the file system `dev`.
    pub(super) fn child(parent: &Arc<Node>, name: &Name, place: Place, dev_around: u64, dev: u64) -> Arc<Self> {
        let (parent, name) = (Some(parent.clone()), Some(name.clone()));
        Arc::new(Self { parent, name, place, dev_around, dev, dir: Mutex::default() })
    }

    pub(super) fn parent(&self) -> Option<&Arc<Node>> {
        self.parent.as_ref()
    }

    pub(super) fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// The directory, while it is open.
    pub(super) fn dir(&self) -> Option<Arc<Dir>> {
        self.dir.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_dir(&self, dir: Option<Arc<Dir>>) {
        *self.dir.lock().unwrap_or_else(PoisonError::into_inner) = dir;
    }

    /// Whether `other` is on its way up. Costs the depth.
    pub(super) fn is_below(&self, other: &Arc<Node>) -> bool {
        let mut at = self.parent.as_ref();
        while let Some(node) = at {
            if Arc::ptr_eq(node, other) {
                return true;
            }
            at = node.parent.as_ref();
        }
        false
    }

    /// Costs its depth.
    pub(super) fn path(&self) -> TreePath {
        let mut names = Vec::new();
        let mut at = Some(self);
        while let Some(node) = at {
            names.extend(&node.name);
            at = node.parent.as_deref();
        }
        let mut path = TreePath::root();
        names.into_iter().rev().for_each(|name| path.push(name));
        path
    }
}

impl Drop for Node {
    /// Lets go of the way up in a loop: in a deep tree a recursion would overflow the stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            next = node.parent.take();
        }
    }
}
