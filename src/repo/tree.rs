//! Cutting directories and lists of pieces into nodes at content-defined places (SPEC §6.3).
//!
//! A directory is cut by a keyed hash of names alone, a list by the ids in it, so one changed
//! item rewrites the few nodes on the way to it. The same sequence always gives the same nodes.

use std::mem;

use crate::crypto::ident::{ChunkKind, IdKeys};
use crate::error::Result;
use crate::format::cbor;
use crate::format::tree::{
    Content, Detail, DirectoryLink, DirectoryNode, Entry, INLINE_PIECES_MAX, ListLink, ListNode, NODE_ITEMS_MAX, Piece,
};
use crate::id::ChunkId;
use crate::path::Name;

/// A node has 2^6 = 64 items on average.
const BITS_PER_LEVEL: u32 = 6;
/// A node is closed when its items weigh about this much.
const NODE_BYTES_MAX: usize = 1 << 20;

/// Takes finished nodes and gives their ids.
pub trait NodeSink {
    /// Stores a node unless it is there already.
    fn node(&mut self, kind: ChunkKind, bytes: &[u8]) -> Result<ChunkId>;
}

/// What the two kinds of sequences differ in.
trait Shape {
    type Item: Clone;
    type Link: Clone;
    const KIND: ChunkKind;
    /// Whether a node of items begins before this one.
    fn item_begins(ids: &IdKeys, item: &Self::Item) -> bool;
    /// Whether a node of links of this level begins before this one.
    fn link_begins(ids: &IdKeys, link: &Self::Link, level: u64) -> bool;
    /// About how many bytes the item takes.
    fn weight(item: &Self::Item) -> usize;
    fn encode_items(items: Vec<Self::Item>) -> (Vec<u8>, Summary<Self::Link>);
    fn encode_links(level: u64, links: Vec<Self::Link>) -> (Vec<u8>, Summary<Self::Link>);
}

/// Makes the link to a node once its id is known.
type Summary<L> = Box<dyn FnOnce(ChunkId) -> L>;

struct Builder<S: Shape> {
    items: Vec<S::Item>,
    weight: usize,
    /// `links[0]` are links to item nodes, `links[n]` to nodes of level n.
    links: Vec<Vec<S::Link>>,
}

impl<S: Shape> Clone for Builder<S> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), weight: self.weight, links: self.links.clone() }
    }
}

impl<S: Shape> Builder<S> {
    fn new() -> Self {
        Self { items: Vec::new(), weight: 0, links: Vec::new() }
    }

    fn push(&mut self, ids: &IdKeys, item: S::Item, sink: &mut dyn NodeSink) -> Result<()> {
        let full = self.items.len() >= NODE_ITEMS_MAX || self.weight >= NODE_BYTES_MAX;
        if !self.items.is_empty() && (full || S::item_begins(ids, &item)) {
            self.close_items(ids, sink)?;
        }
        self.weight += S::weight(&item);
        self.items.push(item);
        Ok(())
    }

    fn close_items(&mut self, ids: &IdKeys, sink: &mut dyn NodeSink) -> Result<()> {
        self.weight = 0;
        let (bytes, link) = S::encode_items(mem::take(&mut self.items));
        let id = sink.node(S::KIND, &bytes)?;
        self.push_link(ids, 0, link(id), sink)
    }

    fn push_link(&mut self, ids: &IdKeys, level: usize, link: S::Link, sink: &mut dyn NodeSink) -> Result<()> {
        if self.links.len() == level {
            self.links.push(Vec::new());
        }
        let full = self.links[level].len() >= NODE_ITEMS_MAX;
        if !self.links[level].is_empty() && (full || S::link_begins(ids, &link, level as u64 + 1)) {
            self.close_links(ids, level, sink)?;
        }
        self.links[level].push(link);
        Ok(())
    }

    fn close_links(&mut self, ids: &IdKeys, level: usize, sink: &mut dyn NodeSink) -> Result<()> {
        let (bytes, link) = S::encode_links(level as u64 + 1, mem::take(&mut self.links[level]));
        let id = sink.node(S::KIND, &bytes)?;
        self.push_link(ids, level + 1, link(id), sink)
    }

    /// Closes what is open and gives the link to the root with its level.
    fn finish(mut self, ids: &IdKeys, sink: &mut dyn NodeSink) -> Result<(S::Link, u64)> {
        // An empty sequence is one empty node.
        if !self.items.is_empty() || self.links.is_empty() {
            self.close_items(ids, sink)?;
        }
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.links.len();
            if is_top && self.links[level].len() == 1 {
                let root = self.links[level].pop().expect("there is one");
                return Ok((root, level as u64));
            }
            if !self.links[level].is_empty() {
                self.close_links(ids, level, sink)?;
            }
            level += 1;
        }
    }
}

struct DirectoryShape;

impl Shape for DirectoryShape {
    type Item = Entry;
    type Link = DirectoryLink;
    const KIND: ChunkKind = ChunkKind::Directory;

    fn item_begins(ids: &IdKeys, entry: &Entry) -> bool {
        ids.boundary_level(name_of(entry).as_bytes(), BITS_PER_LEVEL) >= 1
    }

    fn link_begins(ids: &IdKeys, link: &DirectoryLink, level: u64) -> bool {
        u64::from(ids.boundary_level(link.first.as_bytes(), BITS_PER_LEVEL)) > level
    }

    fn weight(entry: &Entry) -> usize {
        let attributes = &entry.attributes;
        let xattrs: usize = attributes.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 6).sum();
        let detail = match &entry.detail {
            Detail::File { content: Content::Inline(pieces), holes, .. } => 40 * pieces.len() + 20 * holes.len(),
            Detail::File { content: Content::List { .. }, holes, .. } => 60 + 20 * holes.len(),
            Detail::Symlink { target } => target.len(),
            _ => 60,
        };
        80 + name_of(entry).as_bytes().len() + xattrs + detail
    }

    fn encode_items(entries: Vec<Entry>) -> (Vec<u8>, Summary<DirectoryLink>) {
        let first = entries.first().map(|entry| name_of(entry).clone());
        let bytes = cbor::encode(&DirectoryNode::Entries(entries));
        (bytes, Box::new(move |id| DirectoryLink { first: first.unwrap_or_else(placeholder), id }))
    }

    fn encode_links(level: u64, links: Vec<DirectoryLink>) -> (Vec<u8>, Summary<DirectoryLink>) {
        let first = links[0].first.clone();
        let bytes = cbor::encode(&DirectoryNode::Links { level, links });
        (bytes, Box::new(move |id| DirectoryLink { first, id }))
    }
}

fn name_of(entry: &Entry) -> &Name {
    entry.name.as_ref().expect("every entry below the root has a name")
}

/// The first name of an empty directory, which is never stored: its only node is the root.
fn placeholder() -> Name {
    Name::new(*b"-").expect("a dash is a name")
}

struct ListShape;

fn begins(id: &ChunkId) -> bool {
    let low = u64::from_le_bytes(*id.as_bytes().first_chunk().expect("an id has 32 bytes"));
    low.trailing_zeros() >= BITS_PER_LEVEL
}

impl Shape for ListShape {
    type Item = Piece;
    type Link = ListLink;
    const KIND: ChunkKind = ChunkKind::List;

    fn item_begins(_: &IdKeys, piece: &Piece) -> bool {
        matches!(piece, Piece::Chunk { id, .. } if begins(id))
    }

    fn link_begins(_: &IdKeys, link: &ListLink, _: u64) -> bool {
        begins(&link.id)
    }

    fn weight(_: &Piece) -> usize {
        40
    }

    fn encode_items(pieces: Vec<Piece>) -> (Vec<u8>, Summary<ListLink>) {
        let bytes = pieces.iter().map(Piece::bytes).sum();
        (cbor::encode(&ListNode::Pieces(pieces)), Box::new(move |id| ListLink { id, bytes }))
    }

    fn encode_links(level: u64, links: Vec<ListLink>) -> (Vec<u8>, Summary<ListLink>) {
        let bytes = links.iter().map(|link| link.bytes).sum();
        (cbor::encode(&ListNode::Links { level, links }), Box::new(move |id| ListLink { id, bytes }))
    }
}

/// Takes a directory's entries in order of name and gives its root node.
#[derive(Clone)]
pub struct DirectoryBuilder(Builder<DirectoryShape>);

impl std::fmt::Debug for DirectoryBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DirectoryBuilder({} open entries)", self.0.items.len())
    }
}

impl Default for DirectoryBuilder {
    fn default() -> Self {
        Self(Builder::new())
    }
}

impl DirectoryBuilder {
    /// Adds the next entry, whose name is greater than the last one's.
    pub fn push(&mut self, ids: &IdKeys, entry: Entry, sink: &mut dyn NodeSink) -> Result<()> {
        self.0.push(ids, entry, sink)
    }

    /// Gives the root node and its level.
    pub fn finish(self, ids: &IdKeys, sink: &mut dyn NodeSink) -> Result<(ChunkId, u64)> {
        let (link, level) = self.0.finish(ids, sink)?;
        Ok((link.id, level))
    }
}

/// Takes a file's pieces one after the other and gives its content: inline when they are few, else
/// a list. It never holds more of them than a node takes.
#[derive(Clone, Default)]
pub struct ContentBuilder {
    /// All there are, as long as they are few.
    few: Vec<Piece>,
    list: Option<Builder<ListShape>>,
}

impl std::fmt::Debug for ContentBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContentBuilder({} pieces inline, a list: {})", self.few.len(), self.list.is_some())
    }
}

impl ContentBuilder {
    /// Adds the next piece.
    pub fn push(&mut self, ids: &IdKeys, piece: Piece, sink: &mut dyn NodeSink) -> Result<()> {
        if self.list.is_none() && self.few.len() < INLINE_PIECES_MAX {
            self.few.push(piece);
            return Ok(());
        }
        let list = self.list.get_or_insert_with(Builder::new);
        for early in self.few.drain(..) {
            list.push(ids, early, sink)?;
        }
        list.push(ids, piece, sink)
    }

    /// Gives the content.
    pub fn finish(self, ids: &IdKeys, sink: &mut dyn NodeSink) -> Result<Content> {
        match self.list {
            None => Ok(Content::Inline(self.few)),
            Some(list) => {
                let (link, level) = list.finish(ids, sink)?;
                Ok(Content::List { id: link.id, level })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::crypto::key::SecretKey;
    use crate::format::cbor::Extra;
    use crate::format::tree::Attributes;

    struct Nodes {
        ids: IdKeys,
        stored: BTreeMap<ChunkId, Vec<u8>>,
    }

    impl NodeSink for Nodes {
        fn node(&mut self, kind: ChunkKind, bytes: &[u8]) -> Result<ChunkId> {
            let id = self.ids.chunk(kind, bytes);
            self.stored.insert(id, bytes.to_vec());
            Ok(id)
        }
    }

    fn nodes() -> Nodes {
        Nodes { ids: IdKeys::new(&SecretKey::from_bytes(&[1; 32])), stored: BTreeMap::new() }
    }

    fn entry(name: &str, mode: u32) -> Entry {
        let attributes = Attributes { mode, ..Attributes::default() };
        Entry {
            name: Some(Name::new(name.as_bytes()).unwrap()),
            attributes,
            detail: Detail::Fifo,
            extra: Extra::default(),
        }
    }

    fn build(nodes: &mut Nodes, entries: &[Entry]) -> (ChunkId, u64) {
        let ids = nodes.ids.clone();
        let mut builder = DirectoryBuilder::default();
        for entry in entries {
            builder.push(&ids, entry.clone(), nodes).unwrap();
        }
        builder.finish(&ids, nodes).unwrap()
    }

    fn read(nodes: &Nodes, id: ChunkId, level: u64, out: &mut Vec<Entry>) {
        match cbor::decode(&nodes.stored[&id]).unwrap() {
            DirectoryNode::Entries(entries) => {
                assert_eq!(level, 0);
                out.extend(entries);
            }
            DirectoryNode::Links { level: found, links } => {
                assert_eq!(level, found);
                links.iter().for_each(|link| read(nodes, link.id, level - 1, out));
            }
        }
    }

    #[test]
    fn a_directory_reads_back_and_a_changed_entry_rewrites_one_node_a_level() {
        for count in [0, 1, 2, 63, 500, 20_000] {
            let mut nodes = nodes();
            let mut entries: Vec<_> = (0..count).map(|n| entry(&format!("file-{n:06}"), 0o644)).collect();
            let (root, level) = build(&mut nodes, &entries);
            let mut back = Vec::new();
            read(&nodes, root, level, &mut back);
            assert_eq!(back, entries);
            if count > 0 {
                let before = nodes.stored.len();
                entries[count / 2].attributes.mode = 0o600;
                let (changed, changed_level) = build(&mut nodes, &entries);
                assert_ne!(changed, root);
                assert_eq!(changed_level, level);
                assert_eq!((nodes.stored.len() - before) as u64, level + 1);
            }
        }
    }

    #[test]
    fn an_inserted_entry_rewrites_few_nodes() {
        let mut nodes = nodes();
        let mut entries: Vec<_> = (0..20_000).map(|n| entry(&format!("file-{n:06}"), 0o644)).collect();
        build(&mut nodes, &entries);
        let before = nodes.stored.len();
        entries.insert(10_000, entry("file-009999-x", 0o644));
        build(&mut nodes, &entries);
        assert!(nodes.stored.len() - before <= 8, "{}", nodes.stored.len() - before);
    }

    #[test]
    fn a_list_is_inline_when_short_and_rewrites_few_nodes_after_an_insertion() {
        let mut nodes = nodes();
        let ids = nodes.ids.clone();
        let piece = |n: u32| Piece::Chunk { id: ids.chunk(ChunkKind::Data, &n.to_le_bytes()), bytes: 1000 };
        let mut pieces: Vec<_> = (0..50_000).map(piece).collect();
        let few = pieces[..INLINE_PIECES_MAX].to_vec();
        let content_of = |nodes: &mut Nodes, pieces: &[Piece]| {
            let mut builder = ContentBuilder::default();
            pieces.iter().for_each(|piece| builder.push(&ids, *piece, nodes).unwrap());
            builder.finish(&ids, nodes).unwrap()
        };
        assert_eq!(content_of(&mut nodes, &[]), Content::Inline(vec![]));
        assert_eq!(content_of(&mut nodes, &few), Content::Inline(few.clone()));
        let more = content_of(&mut nodes, &pieces[..=INLINE_PIECES_MAX]);
        assert!(matches!(more, Content::List { .. }));
        assert!(matches!(content_of(&mut nodes, &pieces), Content::List { level: 1.., .. }));
        let before = nodes.stored.len();
        pieces.insert(25_000, piece(60_000));
        content_of(&mut nodes, &pieces);
        assert!(nodes.stored.len() - before <= 8, "{}", nodes.stored.len() - before);
    }
}
