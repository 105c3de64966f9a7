//! A small repository in memory for tests of the reading verbs: real trees and real frames,
//! without keys. Chunks can be lost or damaged, and what is read is recorded.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use crate::error::{Error, Kind, Result};
use crate::format::cbor::{self, Extra};
use crate::format::tree::{
    Attributes, Content, Detail, DirectoryLink, DirectoryNode, Entry, Hole, ListLink, ListNode, Piece, Totals, Xattr,
};
use crate::id::{ChunkId, LinkGroup};
use crate::path::Name;
use crate::repo::reader::{FrameAt, Location, ReadNodes, ReadRepo};
use crate::world::Time;

#[path = "../../tests/support/tree.rs"]
pub(crate) mod disk_tree;

/// Items in a node, so small that a handful of entries makes several levels.
const NODE_ITEMS: usize = 4;
const CHUNKS_IN_FRAME: usize = 5;
const ZERO_RUN: usize = 64 * 1024;

type Hook = Box<dyn Fn(usize) + Send + Sync>;

/// The repository.
#[derive(Default)]
pub(crate) struct FakeRepo {
    /// Length of the chunks that files are cut into; 10,000 unless set.
    pub(crate) chunk_bytes: usize,
    frames: Vec<Vec<u8>>,
    in_last: usize,
    at: HashMap<ChunkId, Location>,
    nodes: HashMap<ChunkId, Vec<u8>>,
    /// Not found anywhere.
    pub(crate) lost: HashSet<ChunkId>,
    /// Damaged in its frame, with no other copy.
    pub(crate) corrupt: HashSet<ChunkId>,
    /// Damaged in its frame, and found elsewhere.
    pub(crate) healable: HashSet<ChunkId>,
    /// The frames read, in order.
    pub(crate) frames_read: Mutex<Vec<u32>>,
    /// Called before a frame is read, with how many were read before.
    pub(crate) on_frame: Option<Hook>,
    links: HashMap<(u64, u64), LinkGroup>,
}

fn id_of(bytes: &[u8]) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(bytes).as_bytes())
}

/// Attributes as a plain file of the current user has them.
pub(crate) fn plain(mode: u32) -> Attributes {
    Attributes {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: Time { secs: 1_000_000_000, nanos: 123_456_789 },
        ..Attributes::default()
    }
}

/// An entry of these parts.
pub(crate) fn entry(name: &[u8], attributes: Attributes, detail: Detail) -> Entry {
    let name = (!name.is_empty()).then(|| Name::new(name).unwrap());
    Entry { name, attributes, detail, extra: Extra::default() }
}

impl FakeRepo {
    pub(crate) fn new() -> Self {
        Self { chunk_bytes: 10_000, ..Self::default() }
    }

    /// Stores a chunk once.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Piece {
        let id = id_of(bytes);
        let length = u32::try_from(bytes.len()).unwrap();
        if !self.at.contains_key(&id) {
            if self.frames.is_empty() || self.in_last == CHUNKS_IN_FRAME {
                self.frames.push(Vec::new());
                self.in_last = 0;
            }
            self.in_last += 1;
            let frame = u32::try_from(self.frames.len() - 1).unwrap();
            let bytes_before = self.frames.last().unwrap().len();
            self.frames.last_mut().unwrap().extend_from_slice(bytes);
            let frame = FrameAt { pack: frame / 2, frame, offset: 0, sealed: 0, plain: 0, compression: 0, kind: 0 };
            let chunk_offset = u32::try_from(bytes_before).unwrap();
            self.at.insert(id, Location { frame, chunk_offset, chunk_bytes: length });
        }
        Piece::Chunk { id, bytes: length }
    }

    /// Stores bytes that are a node.
    pub(crate) fn put_node(&mut self, bytes: Vec<u8>) -> ChunkId {
        let id = id_of(&bytes);
        self.nodes.insert(id, bytes);
        id
    }

    /// The pieces of a file's bytes, long runs of zeros apart.
    fn cut(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let zeros = rest.iter().take_while(|&&b| b == 0).count();
            let run = if zeros >= ZERO_RUN { zeros } else { rest.len().min(self.chunk_bytes) };
            let (piece, after) = rest.split_at(run);
            pieces.push(if zeros >= ZERO_RUN { Piece::Zeros { bytes: run as u64 } } else { self.put(piece) });
            rest = after;
        }
        pieces
    }

    /// The content made of these pieces: inline when few, else a list of several levels.
    pub(crate) fn content(&mut self, pieces: Vec<Piece>) -> Content {
        if pieces.len() <= NODE_ITEMS {
            return Content::Inline(pieces);
        }
        let mut links: Vec<ListLink> = pieces
            .chunks(NODE_ITEMS)
            .map(|pieces| ListLink {
                id: self.put_node(cbor::encode(&ListNode::Pieces(pieces.to_vec()))),
                bytes: pieces.iter().map(Piece::bytes).sum(),
            })
            .collect();
        let mut level = 0;
        while links.len() > 1 {
            level += 1;
            links = links
                .chunks(NODE_ITEMS)
                .map(|links| ListLink {
                    id: self.put_node(cbor::encode(&ListNode::Links { level, links: links.to_vec() })),
                    bytes: links.iter().map(|link| link.bytes).sum(),
                })
                .collect();
        }
        Content::List { id: links[0].id, level }
    }

    /// A file with these bytes and no holes.
    pub(crate) fn file(&mut self, name: &str, bytes: &[u8]) -> Entry {
        self.sparse_file(name.as_bytes(), plain(0o644), bytes, Vec::new())
    }

    /// A file with everything.
    pub(crate) fn sparse_file(&mut self, name: &[u8], attributes: Attributes, bytes: &[u8], holes: Vec<Hole>) -> Entry {
        let pieces = self.cut(bytes);
        let content = self.content(pieces);
        entry(name, attributes, Detail::File { size: bytes.len() as u64, content, holes })
    }

    /// A directory; no name is the root.
    pub(crate) fn directory(&mut self, name: &[u8], attributes: Attributes, mut entries: Vec<Entry>) -> Entry {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut totals = Totals::default();
        entries.iter().for_each(|entry| totals.add(entry.totals()));
        let first = |entries: &[Entry]| entries[0].name.clone().unwrap();
        let mut links: Vec<DirectoryLink> = Vec::new();
        if entries.is_empty() {
            let id = self.put_node(cbor::encode(&DirectoryNode::Entries(entries)));
            return entry(name, attributes, Detail::Directory { id, level: 0, totals, incomplete: false });
        }
        for entries in entries.chunks(NODE_ITEMS) {
            let id = self.put_node(cbor::encode(&DirectoryNode::Entries(entries.to_vec())));
            links.push(DirectoryLink { first: first(entries), id });
        }
        let mut level = 0;
        while links.len() > 1 {
            level += 1;
            let mut above = Vec::new();
            for links in links.chunks(NODE_ITEMS) {
                let id = self.put_node(cbor::encode(&DirectoryNode::Links { level, links: links.to_vec() }));
                above.push(DirectoryLink { first: links[0].first.clone(), id });
            }
            links = above;
        }
        entry(name, attributes, Detail::Directory { id: links[0].id, level, totals, incomplete: false })
    }

    /// A root with these entries.
    pub(crate) fn root(&mut self, entries: Vec<Entry>) -> Entry {
        self.directory(b"", plain(0o755), entries)
    }

    /// Stores a tree on disk, as a backup would, under `name`.
    pub(crate) fn store(&mut self, name: &[u8], path: &Path) -> Entry {
        use std::os::unix::fs::FileTypeExt;
        let meta = std::fs::symlink_metadata(path).unwrap();
        let parent = std::fs::File::open(path.parent().unwrap()).unwrap().into();
        let last = path.file_name().unwrap().as_bytes();
        let link_group = (!meta.is_dir() && meta.nlink() > 1).then(|| {
            let next = LinkGroup::from_bytes((self.links.len() as u128).to_le_bytes());
            *self.links.entry((meta.dev(), meta.ino())).or_insert(next)
        });
        let xattrs = disk_tree::xattrs(&parent, last).into_iter().map(|(name, value)| Xattr { name, value });
        let attributes = Attributes {
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            user: None,
            group: None,
            mtime: Time { secs: meta.mtime(), nanos: u32::try_from(meta.mtime_nsec()).unwrap() },
            xattrs: xattrs.collect(),
            link_group,
        };
        let kind = meta.file_type();
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        if kind.is_dir() {
            let mut entries = Vec::new();
            let mut found: Vec<_> = std::fs::read_dir(path).unwrap().map(|found| found.unwrap()).collect();
            found.sort_by_key(std::fs::DirEntry::file_name);
            for found in found {
                entries.push(self.store(found.file_name().as_bytes(), &found.path()));
            }
            self.directory(name, attributes, entries)
        } else if kind.is_file() {
            let file = std::fs::File::open(path).unwrap().into();
            let holes = disk_tree::holes(&file, meta.len());
            let holes = holes.into_iter().map(|(offset, bytes)| Hole { offset, bytes }).collect();
            self.sparse_file(name, attributes, &std::fs::read(path).unwrap(), holes)
        } else if kind.is_symlink() {
            let target = std::fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec();
            entry(name, attributes, Detail::Symlink { target })
        } else if kind.is_fifo() {
            entry(name, attributes, Detail::Fifo)
        } else if kind.is_char_device() {
            entry(name, attributes, Detail::CharDevice { major, minor })
        } else {
            entry(name, attributes, Detail::BlockDevice { major, minor })
        }
    }

    /// The chunks of a file of this repository, in order.
    pub(crate) fn chunks_of(&self, file: &Entry) -> Vec<ChunkId> {
        let Detail::File { content, .. } = &file.detail else { panic!("not a file") };
        let pieces = crate::repo::reader::Pieces::new(self, content).map(|piece| piece.unwrap());
        pieces.filter_map(|piece| if let Piece::Chunk { id, .. } = piece { Some(id) } else { None }).collect()
    }
}

impl ReadNodes for FakeRepo {
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        let node = self.nodes.get(id).filter(|_| !self.lost.contains(id));
        node.cloned().ok_or_else(|| Error::new(Kind::Damaged, format!("node `{}` is nowhere", id.short())))
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.node(id)
    }
}

impl ReadRepo for FakeRepo {
    fn locate(&self, id: &ChunkId) -> Result<Location> {
        let missing = || Error::new(Kind::Damaged, format!("chunk `{}` is nowhere", id.short()));
        if self.lost.contains(id) { Err(missing()) } else { self.at.get(id).copied().ok_or_else(missing) }
    }

    fn frame(&self, at: &FrameAt) -> Result<Vec<u8>> {
        let before = {
            let mut read = self.frames_read.lock().unwrap();
            read.push(at.frame);
            read.len() - 1
        };
        if let Some(hook) = &self.on_frame {
            hook(before);
        }
        let mut frame = self.frames[at.frame as usize].clone();
        for id in self.corrupt.iter().chain(&self.healable) {
            let location = self.at[id];
            if location.frame == *at {
                frame[location.chunk_offset as usize] ^= 1;
            }
        }
        Ok(frame)
    }

    fn chunk(&self, id: &ChunkId) -> Result<Vec<u8>> {
        let at = self.locate(id)?;
        if self.corrupt.contains(id) {
            return Err(Error::new(Kind::Damaged, format!("chunk `{}` is damaged", id.short())));
        }
        let start = at.chunk_offset as usize;
        Ok(self.frames[at.frame.frame as usize][start..start + at.chunk_bytes as usize].to_vec())
    }

    fn verify(&self, id: &ChunkId, bytes: &[u8]) -> bool {
        id_of(bytes) == *id
    }
}
