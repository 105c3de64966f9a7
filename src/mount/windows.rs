//! Parts of directories, kept while somebody is looking through them.
//!
//! Whoever lists a directory asks for each of its names next, one by one. A window is some hundred entries
//! that follow one another; it answers for all names from where it begins to its last one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::format::tree::Entry;
use crate::id::ChunkId;
use crate::path::Name;
use crate::repo::reader::{Entries, ReadRepo};

/// Entries of a window.
const ENTRIES_MAX: usize = 256;
/// Bytes of their extended attributes and targets after which it ends earlier.
const WEIGHT_MAX: usize = 256 << 10;
/// Windows kept.
const WINDOWS: usize = 64;

/// A directory in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) id: ChunkId,
    pub(super) level: u64,
}

/// Entries that follow one another.
#[derive(Debug)]
pub(super) struct Window {
    of: Directory,
    /// There are no entries of the directory between this and the first.
    after: Bound,
    pub(super) entries: Vec<Arc<Entry>>,
    /// Whether nothing follows the last.
    ends: bool,
}

/// Where a window begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Bound {
    Beginning,
    At(Name),
    After(Name),
}

impl Window {
    fn load<R: ReadRepo + ?Sized>(repo: &R, of: Directory, after: Bound) -> Result<Self> {
        let mut all = match &after {
            Bound::Beginning => Entries::new(repo, of.id, of.level),
            Bound::At(name) => Entries::from_name(repo, of.id, of.level, name.clone()),
            Bound::After(name) => Entries::after(repo, of.id, of.level, name.clone()),
        };
        let (mut entries, mut weight) = (Vec::new(), 0);
        while entries.len() < ENTRIES_MAX && weight < WEIGHT_MAX {
            match all.next() {
                None => return Ok(Self { of, after, entries, ends: true }),
                Some(Ok(entry)) => {
                    let xattrs = &entry.attributes.xattrs;
                    weight += xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum::<usize>();
                    entries.push(Arc::new(entry));
                }
                // What comes before the damage can be had.
                Some(Err(_)) if !entries.is_empty() => break,
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(Self { of, after, entries, ends: false })
    }

    fn begins_before(&self, name: &Name) -> bool {
        match &self.after {
            Bound::Beginning => true,
            Bound::At(first) => name >= first,
            Bound::After(before) => name > before,
        }
    }

    fn last(&self) -> Option<&Name> {
        self.entries.last()?.name.as_ref()
    }

    fn answers_for(&self, name: &Name) -> bool {
        self.begins_before(name) && (self.ends || self.last() >= Some(name))
    }

    /// Whether it has what follows a name, or the beginning.
    fn follows(&self, name: Option<&Name>) -> bool {
        match name {
            None => self.after == Bound::Beginning,
            Some(name) => {
                let begins = self.begins_before(name) || self.after == Bound::After(name.clone());
                begins && (self.ends || self.last() > Some(name))
            }
        }
    }

    /// The entries behind a name.
    pub(super) fn behind(&self, name: Option<&Name>) -> &[Arc<Entry>] {
        let from = name.map_or(0, |name| self.entries.partition_point(|entry| entry.name.as_ref() <= Some(name)));
        &self.entries[from..]
    }
}

/// The windows used last.
#[derive(Debug, Default)]
pub(super) struct Windows(Mutex<VecDeque<Arc<Window>>>);

impl Windows {
    /// The entry of a name.
    pub(super) fn entry<R: ReadRepo + ?Sized>(
        &self,
        repo: &R,
        of: Directory,
        name: &Name,
    ) -> Result<Option<Arc<Entry>>> {
        let window = match self.kept(|window| window.of == of && window.answers_for(name)) {
            Some(window) => window,
            None => self.keep(Window::load(repo, of, Bound::At(name.clone()))?),
        };
        let found = window.entries.binary_search_by(|entry| entry.name.as_ref().cmp(&Some(name)));
        Ok(found.ok().map(|at| window.entries[at].clone()))
    }

    /// A window with what follows a name, or the beginning; see [`Window::behind`].
    pub(super) fn following<R: ReadRepo + ?Sized>(
        &self,
        repo: &R,
        of: Directory,
        name: Option<&Name>,
    ) -> Result<Arc<Window>> {
        if let Some(window) = self.kept(|window| window.of == of && window.follows(name)) {
            return Ok(window);
        }
        let bound = name.map_or(Bound::Beginning, |name| Bound::After(name.clone()));
        Ok(self.keep(Window::load(repo, of, bound)?))
    }

    fn kept(&self, wanted: impl Fn(&Window) -> bool) -> Option<Arc<Window>> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = windows.iter().rposition(|window| wanted(window))?;
        let window = windows.remove(at)?;
        windows.push_back(window.clone());
        Some(window)
    }

    fn keep(&self, window: Window) -> Arc<Window> {
        let window = Arc::new(window);
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= WINDOWS {
            windows.pop_front();
        }
        windows.push_back(window.clone());
        window
    }
}
