//! The entries that the kernel knows of, by their numbers.
//!
//! A number comes from where an entry is: the snapshot, and the names on the way; of a file with several names,
//! from what they have in common. So it is the same at every mount, and programs that remember numbers
//! are not misled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::layout::Group;
use crate::format::tree::Entry;

/// The number of the top.
pub(super) const TOP: u64 = 1;

/// What an entry is known by, whatever its number.
pub(super) type Identity = [u8; 16];

/// What an entry is.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// A directory of directories of snapshots.
    Group(Group),
    /// A link to a snapshot beside it.
    Link(Vec<u8>),
    /// An entry of a snapshot.
    Entry(Arc<Entry>),
}

/// An entry, and how it was reached.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) what: What,
    pub(super) parent: u64,
    pub(super) name: Vec<u8>,
    pub(super) identity: Identity,
    /// The directory of the snapshot it is in.
    pub(super) snapshot: Identity,
}

/// What an entry in a directory is known by.
pub(super) fn identity_in(parent: &Node, name: &[u8], what: &What) -> Identity {
    let mut hash = blake3::Hasher::new();
    match what {
        What::Entry(entry) if entry.attributes.link_group.is_some() => {
            let group = entry.linked_file().map(|group| *group.as_bytes());
            hash.update(b"links").update(&parent.snapshot).update(&group.unwrap_or_default());
        }
        _ => {
            hash.update(b"name").update(&parent.identity).update(name);
        }
    }
    *hash.finalize().as_bytes().first_chunk().expect("a hash is longer")
}

/// The number an entry has, unless another one has it.
pub(super) fn number(identity: &Identity) -> u64 {
    let number = u64::from_le_bytes(*identity.first_chunk().expect("it is longer"));
    // Some programs take a number for a signed one.
    (number >> 1).max(TOP + 1)
}

/// Those the kernel has asked for and not forgotten.
#[derive(Debug)]
pub(super) struct Inodes(Mutex<HashMap<u64, (Arc<Node>, u64)>>);

impl Inodes {
    pub(super) fn new(top: Node) -> Self {
        Self(Mutex::new(HashMap::from([(TOP, (Arc::new(top), 1))])))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Arc<Node>, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, ino: u64) -> Option<Arc<Node>> {
        self.lock().get(&ino).map(|(node, _)| node.clone())
    }

    /// Notes that the kernel knows an entry; gives its number.
    pub(super) fn remember(&self, node: &Arc<Node>) -> u64 {
        let mut known = self.lock();
        let mut ino = number(&node.identity);
        // Two entries that want one number are not met in practice; still they must not be taken for one.
        while known.get(&ino).is_some_and(|(other, _)| other.identity != node.identity) {
            ino = ino.wrapping_add(1).max(TOP + 1);
        }
        let (kept, lookups) = known.entry(ino).or_insert_with(|| (node.clone(), 0));
        *lookups += 1;
        // A file of several names was reached by another; a link may lead elsewhere now.
        *kept = node.clone();
        ino
    }

    pub(super) fn forget(&self, ino: u64, lookups: u64) {
        let mut known = self.lock();
        if ino != TOP
            && let Some((_, count)) = known.get_mut(&ino)
        {
            *count = count.saturating_sub(lookups);
            if *count == 0 {
                known.remove(&ino);
            }
        }
    }

    /// The names on the way to an entry, for people.
    pub(super) fn path(&self, node: &Node) -> String {
        let known = self.lock();
        let mut names = vec![crate::path::display_bytes(&node.name)];
        let mut at = node.parent;
        // Names that go round are nobody's.
        while at != TOP && names.len() < 4096 {
            let Some((above, _)) = known.get(&at) else { break };
            names.push(crate::path::display_bytes(&above.name));
            at = above.parent;
        }
        names.reverse();
        format!("/{}", names.join("/").trim_start_matches('/'))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}
