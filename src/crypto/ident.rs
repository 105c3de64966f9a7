//! Chunk ids: keyed BLAKE3 of content, with a key for each kind of content (SPEC §5.3).
//!
//! The kinds have separate keys so that a file whose bytes are a tree node's is not that node.

use super::key::SecretKey;
use crate::id::{ChunkId, LinkGroup};

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// Bytes of a file.
    Data = 1,
    /// A directory node.
    Directory = 2,
    /// A list node.
    List = 3,
}

/// The keys that name content, the same in a repository's whole life.
#[derive(Debug, Clone)]
pub struct IdKeys {
    data: SecretKey,
    directory: SecretKey,
    list: SecretKey,
    link_group: SecretKey,
    boundary: SecretKey,
}

impl IdKeys {
    /// Derives the keys from `K_id`.
    pub fn new(id_key: &SecretKey) -> Self {
        Self {
            data: id_key.derive("id data"),
            directory: id_key.derive("id directory"),
            list: id_key.derive("id list"),
            link_group: id_key.derive("id link group"),
            boundary: id_key.derive("directory boundary"),
        }
    }

    /// The id of content.
    pub fn chunk(&self, kind: ChunkKind, content: &[u8]) -> ChunkId {
        let key = match kind {
            ChunkKind::Data => &self.data,
            ChunkKind::Directory => &self.directory,
            ChunkKind::List => &self.list,
        };
        ChunkId::from_bytes(*blake3::keyed_hash(key.expose(), content).as_bytes())
    }

    /// The name of a group of hard links, from the first path of the group.
    pub fn link_group(&self, first_path: &[u8]) -> LinkGroup {
        let hash = blake3::keyed_hash(self.link_group.expose(), first_path);
        LinkGroup::from_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }

    /// How many levels of directory nodes end before this name: the number of trailing zero
    /// bits of a keyed hash, over `bits_per_level`.
    pub fn boundary_level(&self, name: &[u8], bits_per_level: u32) -> u32 {
        let hash = blake3::keyed_hash(self.boundary.expose(), name);
        let low = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
        low.trailing_zeros() / bits_per_level
    }
}
