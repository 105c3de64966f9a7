//! Trees: what a snapshot says about files and directories (SPEC §6).
//!
//! A directory is a sorted sequence of [`Entry`]s, a large file a sequence of [`Piece`]s. A
//! sequence too long for one node is cut at content-defined places into nodes of level 0, whose
//! references are cut into nodes of level 1, and so on to one root node. The cutting is
//! `repo::tree`'s work; this module owns the bytes.

use minicbor::Decoder;

use super::cbor::{self, Extra, MapReader, MapWriter, Record};
use super::pack::CHUNK_BYTES_MAX;
use super::{DecodeError, Result};
use crate::id::{ChunkId, LinkGroup, ObjectId};
use crate::path::Name;
use crate::world::Time;

/// Deepest a sequence of nodes may be stacked; 64-way nodes reach 2^64 items long before.
pub const LEVEL_MAX: u64 = 16;

/// Most items of a node: entries, pieces or links.
pub const NODE_ITEMS_MAX: usize = 4096;
/// Most pieces of a file that stand in its entry.
pub const INLINE_PIECES_MAX: usize = 32;
/// Most holes of a file.
pub const HOLES_MAX: usize = 65_536;
/// Most bytes of an entry's extended attributes, names and values.
pub const XATTR_BYTES_MAX: usize = 4 << 20;

/// What an entry is. Sockets are never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

const KINDS: [EntryKind; 6] = [
    EntryKind::File,
    EntryKind::Directory,
    EntryKind::Symlink,
    EntryKind::Fifo,
    EntryKind::CharDevice,
    EntryKind::BlockDevice,
];

/// A run of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Piece {
    /// A stored chunk and its length.
    Chunk {
        /// Its id.
        id: ChunkId,
        /// Its length in bytes, not zero.
        bytes: u32,
    },
    /// This many zero bytes, not stored.
    Zeros {
        /// How many, not zero.
        bytes: u64,
    },
}

impl Piece {
    /// How many bytes of the file this stands for.
    pub fn bytes(&self) -> u64 {
        match self {
            Piece::Chunk { bytes, .. } => u64::from(*bytes),
            Piece::Zeros { bytes } => *bytes,
        }
    }
}

/// A file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All pieces, in order.
    Inline(Vec<Piece>),
    /// The root of a list of pieces.
    List {
        /// The root list node.
        id: ChunkId,
        /// Its level.
        level: u64,
    },
}

/// What lies below a directory, itself not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Entries that are not directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of file content, hard links counted each time.
    pub bytes: u64,
}

impl Totals {
    /// Adds another directory's totals, stopping at the largest number rather than wrapping.
    pub fn add(&mut self, other: Totals) {
        self.files = self.files.saturating_add(other.files);
        self.directories = self.directories.saturating_add(other.directories);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Its full name, such as `user.comment`.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// A hole of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Where it begins.
    pub offset: u64,
    /// How long it is, not zero.
    pub bytes: u64,
}

/// What only some kinds of entries have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// The bytes.
        content: Content,
        /// Holes in ascending order, apart from each other and below `size`.
        holes: Vec<Hole>,
    },
    /// A directory.
    Directory {
        /// The root node of its entries.
        id: ChunkId,
        /// That node's level.
        level: u64,
        /// What lies below.
        totals: Totals,
        /// Whether its entries could not all be read.
        incomplete: bool,
    },
    /// A symbolic link and its target, not empty.
    Symlink {
        /// The target as it stands in the link.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// What every entry has besides its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky: the low 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name when the backup was made, if it had one.
    pub user: Option<String>,
    /// Group's name when the backup was made, if it had one.
    pub group: Option<String>,
    /// Last change of the content.
    pub mtime: Time,
    /// Extended attributes in order of name, each once.
    pub xattrs: Vec<Xattr>,
    /// The group of hard links this is one of.
    pub link_group: Option<LinkGroup>,
}

/// One name in a directory and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name; `None` only for the root entry of a snapshot.
    pub name: Option<Name>,
    /// What every kind has.
    pub attributes: Attributes,
    /// What this kind has.
    pub detail: Detail,
    /// Fields from a newer program.
    pub extra: Extra,
}

impl Attributes {
    /// What can be given to an entry of this owner and group by somebody who may not give it away: no setuid or
    /// setgid bit that would lend other powers than were recorded, nothing that belongs to the system.
    pub fn without_privilege(&self, uid: u32, gid: u32) -> Self {
        let lent = if self.uid == uid { 0 } else { 0o4000 } | if self.gid == gid { 0 } else { 0o2000 };
        let is_settable =
            |xattr: &&Xattr| !xattr.name.starts_with(b"security.") && !xattr.name.starts_with(b"trusted.");
        Self {
            mode: self.mode & !lent,
            uid,
            gid,
            user: None,
            group: None,
            xattrs: self.xattrs.iter().filter(is_settable).cloned().collect(),
            ..self.clone()
        }
    }

    /// Writes the fields that say who owns the entry.
    pub fn encode_owners(&self, map: &mut MapWriter<'_>) {
        map.u64_unless_zero(4, u64::from(self.uid));
        map.u64_unless_zero(5, u64::from(self.gid));
        if let Some(user) = &self.user {
            map.text(6, user);
        }
        if let Some(group) = &self.group {
            map.text(7, group);
        }
    }
}

impl EntryKind {
    /// How it is encoded.
    pub fn number(self) -> u64 {
        KINDS.iter().position(|kind| *kind == self).expect("every kind is listed") as u64
    }
}

impl Entry {
    /// What this entry is.
    pub fn kind(&self) -> EntryKind {
        match self.detail {
            Detail::File { .. } => EntryKind::File,
            Detail::Directory { .. } => EntryKind::Directory,
            Detail::Symlink { .. } => EntryKind::Symlink,
            Detail::Fifo => EntryKind::Fifo,
            Detail::CharDevice { .. } => EntryKind::CharDevice,
            Detail::BlockDevice { .. } => EntryKind::BlockDevice,
        }
    }

    /// Whether it is a device node.
    pub fn is_device(&self) -> bool {
        matches!(self.detail, Detail::CharDevice { .. } | Detail::BlockDevice { .. })
    }

    /// File length, or zero.
    pub fn size(&self) -> u64 {
        if let Detail::File { size, .. } = self.detail { size } else { 0 }
    }

    /// What tells the files of link groups apart (SPEC §6.5): entries that name one group but not the same
    /// content are not one file, and making a link of one would give it the other's bytes.
    pub fn linked_file(&self) -> Option<LinkGroup> {
        let link_group = Some(self.attributes.link_group?);
        let mut detail = self.detail.clone();
        if let Detail::File { holes, .. } = &mut detail {
            holes.clear();
        }
        let attributes = Attributes { link_group, ..Attributes::default() };
        let hash = ObjectId::of(&cbor::encode(&Self { name: None, attributes, detail, extra: Extra::default() }));
        hash.as_bytes().first_chunk().copied().map(LinkGroup::from_bytes)
    }

    /// How many entries it says are below it, directories and all else.
    pub fn entries_below(&self) -> u64 {
        match self.detail {
            Detail::Directory { totals, .. } => totals.files.saturating_add(totals.directories),
            _ => 0,
        }
    }

    /// What this entry adds to its directory's totals.
    pub fn totals(&self) -> Totals {
        match self.detail {
            Detail::Directory { mut totals, .. } => {
                totals.directories = totals.directories.saturating_add(1);
                totals
            }
            _ => Totals { files: 1, directories: 0, bytes: self.size() },
        }
    }
}

impl Record for Entry {
    const WHAT: &'static str = "tree entry";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        if let Some(name) = &self.name {
            map.bytes(1, name.as_bytes());
        }
        map.u64(2, self.kind().number());
        let a = &self.attributes;
        map.u64(3, u64::from(a.mode));
        a.encode_owners(map);
        map.i64(8, a.mtime.secs);
        map.u64_unless_zero(9, u64::from(a.mtime.nanos));
        map.list(10, &a.xattrs, |out, xattr| {
            cbor::list(out, &[&xattr.name, &xattr.value], |out, bytes| cbor::push_bytes(out, bytes));
        });
        if let Some(group) = &a.link_group {
            map.bytes(11, group.as_bytes());
        }
        match &self.detail {
            Detail::File { size, content, holes } => {
                map.u64_unless_zero(12, *size);
                match content {
                    Content::Inline(pieces) => map.list(13, pieces, push_piece),
                    Content::List { id, level } => {
                        map.bytes(14, id.as_bytes());
                        map.u64_unless_zero(15, *level);
                    }
                }
                map.list(16, holes, |out, hole| {
                    cbor::list(out, &[hole.offset, hole.bytes], |out, number| cbor::push_u64(out, *number));
                });
            }
            Detail::Directory { id, level, totals, incomplete } => {
                map.bytes(14, id.as_bytes());
                map.u64_unless_zero(15, *level);
                map.u64_unless_zero(17, totals.files);
                map.u64_unless_zero(18, totals.directories);
                map.u64_unless_zero(19, totals.bytes);
                map.u64_unless_zero(20, u64::from(*incomplete));
            }
            Detail::Symlink { target } => map.bytes(21, target),
            Detail::Fifo => {}
            Detail::CharDevice { major, minor } | Detail::BlockDevice { major, minor } => {
                map.u64_unless_zero(22, u64::from(*major));
                map.u64_unless_zero(23, u64::from(*minor));
            }
        }
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        const WHAT: &str = Entry::WHAT;
        let malformed = |detail: String| DecodeError::malformed(WHAT, detail);
        let small = |number: u64, field: &str| {
            u32::try_from(number).map_err(|_| malformed(format!("{field} {number} is too large")))
        };
        let name = map.optional_bytes(1)?.map(Name::new).transpose().map_err(|error| malformed(error.to_string()))?;
        let kind = map.u64(2)?;
        let kind = *usize::try_from(kind)
            .ok()
            .and_then(|kind| KINDS.get(kind))
            .ok_or_else(|| DecodeError::unsupported(WHAT, format!("kind {kind}")))?;
        let mode = map.u32(3)?;
        if mode > 0o7777 {
            return Err(malformed(format!("mode {mode:o} has more than permission bits")));
        }
        let uid = small(map.u64_or_zero(4)?, "owner")?;
        let gid = small(map.u64_or_zero(5)?, "group")?;
        let user = map.optional_text(6)?.map(str::to_owned);
        let group = map.optional_text(7)?.map(str::to_owned);
        let secs = map.i64(8)?;
        let nanos = small(map.u64_or_zero(9)?, "nanoseconds")?;
        if nanos >= 1_000_000_000 {
            return Err(malformed(format!("{nanos} nanoseconds")));
        }
        let xattrs = map.list(10, |decoder| {
            let mut pair = cbor::read_list(WHAT, decoder, |decoder| Ok(cbor::read_bytes(WHAT, decoder)?.to_vec()))?;
            match (pair.pop(), pair.pop(), pair.pop()) {
                (Some(value), Some(name), None) if !name.is_empty() && !name.contains(&0) => Ok(Xattr { name, value }),
                _ => Err(malformed("an extended attribute is not a name and a value".into())),
            }
        })?;
        if !xattrs.is_sorted_by(|a, b| a.name < b.name) {
            return Err(malformed("extended attributes out of order or repeated".into()));
        }
        let xattr_bytes: usize = xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
        if xattr_bytes > XATTR_BYTES_MAX {
            return Err(malformed(format!("extended attributes of {xattr_bytes} bytes")));
        }
        let link_group = map.optional(11, |decoder| cbor::read_array(WHAT, decoder))?.map(LinkGroup::from_bytes);
        let detail = match kind {
            EntryKind::File => {
                let size = map.u64_or_zero(12)?;
                let pieces = map.list_of_at_most(13, INLINE_PIECES_MAX, read_piece)?;
                let id = map.optional(14, |decoder| cbor::read_array(WHAT, decoder))?.map(ChunkId::from_bytes);
                let level = map.u64_or_zero(15)?;
                let content = match id {
                    Some(id) if pieces.is_empty() && level <= LEVEL_MAX => Content::List { id, level },
                    None if level == 0 => Content::Inline(pieces),
                    _ => return Err(malformed("content both inline and in a list, or too deep".into())),
                };
                if let Content::Inline(pieces) = &content {
                    let total = pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.bytes()));
                    if total != Some(size) {
                        return Err(malformed(format!("pieces do not add up to the size {size}")));
                    }
                }
                let holes = map.list_of_at_most(16, HOLES_MAX, |decoder| {
                    match *cbor::read_list(WHAT, decoder, |d| cbor::read_u64(WHAT, d))? {
                        [offset, bytes] if bytes > 0 => Ok(Hole { offset, bytes }),
                        _ => Err(malformed("a hole is not an offset and a length".into())),
                    }
                })?;
                check_holes(&holes, size)?;
                Detail::File { size, content, holes }
            }
            EntryKind::Directory => {
                let id = ChunkId::from_bytes(map.array(14)?);
                let level = map.u64_or_zero(15)?;
                if level > LEVEL_MAX {
                    return Err(malformed(format!("level {level} is too deep")));
                }
                let totals = Totals {
                    files: map.u64_or_zero(17)?,
                    directories: map.u64_or_zero(18)?,
                    bytes: map.u64_or_zero(19)?,
                };
                let incomplete = match map.u64_or_zero(20)? {
                    0 => false,
                    1 => true,
                    other => return Err(malformed(format!("incomplete is {other}"))),
                };
                Detail::Directory { id, level, totals, incomplete }
            }
            EntryKind::Symlink => {
                let target = map.bytes(21)?;
                if target.is_empty() || target.contains(&0) {
                    return Err(malformed("a link target is empty or contains NUL".into()));
                }
                Detail::Symlink { target: target.to_vec() }
            }
            EntryKind::Fifo => Detail::Fifo,
            EntryKind::CharDevice | EntryKind::BlockDevice => {
                let major = small(map.u64_or_zero(22)?, "major number")?;
                let minor = small(map.u64_or_zero(23)?, "minor number")?;
                if kind == EntryKind::CharDevice {
                    Detail::CharDevice { major, minor }
                } else {
                    Detail::BlockDevice { major, minor }
                }
            }
        };
        let attributes = Attributes { mode, uid, gid, user, group, mtime: Time { secs, nanos }, xattrs, link_group };
        Ok(Self { name, attributes, detail, extra: map.extra()? })
    }
}

fn check_holes(holes: &[Hole], size: u64) -> Result<()> {
    let mut end = 0;
    for (ordinal, hole) in holes.iter().enumerate() {
        let apart = ordinal == 0 || hole.offset > end;
        match hole.offset.checked_add(hole.bytes) {
            Some(hole_end) if apart && hole_end <= size => end = hole_end,
            _ => return Err(DecodeError::malformed(Entry::WHAT, "holes overlap, touch or pass the end")),
        }
    }
    Ok(())
}

/// Appends the encoding of one piece, as it stands in lists.
pub fn push_piece(out: &mut Vec<u8>, piece: &Piece) {
    match piece {
        Piece::Chunk { id, bytes } => {
            out.push(0x82);
            cbor::push_bytes(out, id.as_bytes());
            cbor::push_u64(out, u64::from(*bytes));
        }
        Piece::Zeros { bytes } => cbor::push_u64(out, *bytes),
    }
}

/// Reads one piece of a list.
pub fn read_piece(decoder: &mut Decoder<'_>) -> Result<Piece> {
    const WHAT: &str = "piece";
    let malformed = |detail: &str| DecodeError::malformed(WHAT, detail);
    if let Ok(minicbor::data::Type::Array) = decoder.datatype() {
        if decoder.array().map_err(|error| cbor::fault(WHAT, &error))? != Some(2) {
            return Err(malformed("a chunk is not an id and a length"));
        }
        let id = ChunkId::from_bytes(cbor::read_array(WHAT, decoder)?);
        let bytes = decoder.u32().map_err(|error| cbor::fault(WHAT, &error))?;
        if bytes == 0 || bytes > CHUNK_BYTES_MAX {
            return Err(DecodeError::malformed(WHAT, format!("a chunk of {bytes} bytes")));
        }
        Ok(Piece::Chunk { id, bytes })
    } else {
        match cbor::read_u64(WHAT, decoder)? {
            0 => Err(malformed("a run of no zeros")),
            bytes => Ok(Piece::Zeros { bytes }),
        }
    }
}

/// A reference from a node to a node one level below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryLink {
    /// The first name below it.
    pub first: Name,
    /// The node.
    pub id: ChunkId,
}

/// A node of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryNode {
    /// Level 0: entries in ascending order of name.
    Entries(Vec<Entry>),
    /// Nodes one level below, in ascending order of first name; at least one.
    Links {
        /// The level of this node, from 1.
        level: u64,
        /// The nodes below.
        links: Vec<DirectoryLink>,
    },
}

impl Record for DirectoryNode {
    const WHAT: &'static str = "directory node";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        match self {
            Self::Entries(entries) => map.list(2, entries, |out, entry| entry.encode_into(out)),
            Self::Links { level, links } => {
                map.u64(1, *level);
                map.list(3, links, |out, link| {
                    out.push(0x82);
                    cbor::push_bytes(out, link.first.as_bytes());
                    cbor::push_bytes(out, link.id.as_bytes());
                });
            }
        }
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        const WHAT: &str = DirectoryNode::WHAT;
        let malformed = |detail: &str| DecodeError::malformed(WHAT, detail);
        let level = map.u64_or_zero(1)?;
        if level == 0 {
            let entries = map.list_of_at_most(2, NODE_ITEMS_MAX, Entry::decode_from)?;
            if entries.iter().any(|entry| entry.name.is_none()) || !entries.is_sorted_by(|a, b| a.name < b.name) {
                return Err(malformed("entries without name, out of order or repeated"));
            }
            return Ok(Self::Entries(entries));
        }
        if level > LEVEL_MAX {
            return Err(malformed("too deep"));
        }
        let links = map.list_of_at_most(3, NODE_ITEMS_MAX, |decoder| {
            match *cbor::read_list(WHAT, decoder, |decoder| cbor::read_bytes(WHAT, decoder))? {
                [first, id] => Ok(DirectoryLink {
                    first: Name::new(first).map_err(|error| DecodeError::malformed(WHAT, error.to_string()))?,
                    id: ChunkId::from_slice(id).ok_or_else(|| malformed("a node id is not 32 bytes"))?,
                }),
                _ => Err(malformed("a link is not a name and an id")),
            }
        })?;
        if links.is_empty() || !links.is_sorted_by(|a, b| a.first < b.first) {
            return Err(malformed("links missing, out of order or repeated"));
        }
        Ok(Self::Links { level, links })
    }
}

/// A reference from a list node to one a level below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLink {
    /// The node.
    pub id: ChunkId,
    /// How many bytes of the file it covers.
    pub bytes: u64,
}

/// A node of a large file's list of pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListNode {
    /// Level 0: pieces in order; at least one.
    Pieces(Vec<Piece>),
    /// Nodes one level below, in order; at least one.
    Links {
        /// The level of this node, from 1.
        level: u64,
        /// The nodes below.
        links: Vec<ListLink>,
    },
}

impl Record for ListNode {
    const WHAT: &'static str = "list node";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        match self {
            Self::Pieces(pieces) => map.list(2, pieces, push_piece),
            Self::Links { level, links } => {
                map.u64(1, *level);
                map.list(3, links, |out, link| {
                    out.push(0x82);
                    cbor::push_bytes(out, link.id.as_bytes());
                    cbor::push_u64(out, link.bytes);
                });
            }
        }
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        const WHAT: &str = ListNode::WHAT;
        let malformed = |detail: &str| DecodeError::malformed(WHAT, detail);
        let level = map.u64_or_zero(1)?;
        if level == 0 {
            let pieces = map.list_of_at_most(2, NODE_ITEMS_MAX, read_piece)?;
            return if pieces.is_empty() { Err(malformed("no pieces")) } else { Ok(Self::Pieces(pieces)) };
        }
        if level > LEVEL_MAX {
            return Err(malformed("too deep"));
        }
        let links = map.list_of_at_most(3, NODE_ITEMS_MAX, |decoder| {
            if decoder.array().map_err(|error| cbor::fault(WHAT, &error))? != Some(2) {
                return Err(malformed("a link is not an id and a length"));
            }
            let id = ChunkId::from_bytes(cbor::read_array(WHAT, decoder)?);
            Ok(ListLink { id, bytes: cbor::read_u64(WHAT, decoder)? })
        })?;
        if links.is_empty() { Err(malformed("no links")) } else { Ok(Self::Links { level, links }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: Vec<u8>, detail: Detail, xattrs: Vec<Xattr>) -> Entry {
        let attributes = Attributes { xattrs, ..Attributes::default() };
        Entry { name: Some(Name::new(name).unwrap()), attributes, detail, extra: Extra::default() }
    }

    /// What is a byte in a node, or a few, is many in memory.
    #[test]
    fn a_node_or_an_entry_has_as_many_parts_as_the_specification_allows_and_no_more() {
        let takes = |most: usize, decodes: &dyn Fn(usize) -> bool| {
            assert!(decodes(most) && !decodes(most + 1), "not {most}");
        };
        let name = |n: usize| format!("{n:05}").into_bytes();
        let id = ChunkId::from_bytes([1; 32]);
        takes(NODE_ITEMS_MAX, &|items| {
            let entries = (0..items).map(|n| entry(name(n), Detail::Fifo, vec![])).collect();
            cbor::decode::<DirectoryNode>(&cbor::encode(&DirectoryNode::Entries(entries))).is_ok()
        });
        takes(NODE_ITEMS_MAX, &|items| {
            let links = (0..items).map(|n| DirectoryLink { first: Name::new(name(n)).unwrap(), id }).collect();
            cbor::decode::<DirectoryNode>(&cbor::encode(&DirectoryNode::Links { level: 1, links })).is_ok()
        });
        takes(NODE_ITEMS_MAX, &|items| {
            let pieces = vec![Piece::Zeros { bytes: 1 }; items];
            cbor::decode::<ListNode>(&cbor::encode(&ListNode::Pieces(pieces))).is_ok()
        });
        takes(NODE_ITEMS_MAX, &|items| {
            let links = vec![ListLink { id, bytes: 1 }; items];
            cbor::decode::<ListNode>(&cbor::encode(&ListNode::Links { level: 1, links })).is_ok()
        });
        let file = |pieces: usize, holes: usize| {
            let size = (pieces as u64).max(2 * holes as u64);
            let mut all = vec![Piece::Zeros { bytes: 1 }; pieces];
            all[0] = Piece::Zeros { bytes: size - pieces as u64 + 1 };
            let holes = (0..holes as u64).map(|n| Hole { offset: 2 * n, bytes: 1 }).collect();
            let detail = Detail::File { size, content: Content::Inline(all), holes };
            cbor::decode::<Entry>(&cbor::encode(&entry(name(0), detail, vec![]))).is_ok()
        };
        takes(INLINE_PIECES_MAX, &|pieces| file(pieces, 0));
        takes(HOLES_MAX, &|holes| file(1, holes));
        takes(XATTR_BYTES_MAX, &|bytes| {
            let xattr = Xattr { name: b"user.a".to_vec(), value: vec![0; bytes - 6] };
            cbor::decode::<Entry>(&cbor::encode(&entry(name(0), Detail::Fifo, vec![xattr]))).is_ok()
        });
    }
}
