//! Reading a repository: chunks by id, and directories and files as sequences of their parts.
//!
//! [`ReadRepo`] is all that the reading verbs ask of a repository. [`Entries`] and [`Pieces`] walk
//! the nodes of a directory or a large file with a stack of their own, so that no stored bytes can
//! make the program recurse; what the nodes claim about order, level and length is checked, so a
//! node that refers to itself or is out of its place is damage and never an endless walk.

use crate::error::{Context, Error, Kind, Result};
use crate::format::cbor;
use crate::format::tree::{Content, Detail, DirectoryLink, DirectoryNode, Entry, LEVEL_MAX, ListLink, ListNode, Piece};
use crate::id::ChunkId;
use crate::path::{Name, TreePath};

/// Where a frame lies. Ordered by pack, then by place in the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameAt {
    /// The pack's number in this process.
    pub pack: u32,
    /// The frame's ordinal in the pack.
    pub frame: u32,
    /// Where the sealed frame begins in the pack.
    pub offset: u32,
    /// Its sealed length.
    pub sealed: u32,
    /// Its length when opened and decompressed.
    pub plain: u32,
    /// How it is compressed.
    pub compression: u8,
    /// What sort of chunks it holds.
    pub kind: u8,
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Its frame.
    pub frame: FrameAt,
    /// Where it begins in the opened frame.
    pub chunk_offset: u32,
    /// Its length.
    pub chunk_bytes: u32,
}

/// A repository opened for reading. Every method may be called from many threads at once.
pub trait ReadRepo: Sync {
    /// Where the best copy of a chunk lies; [`Kind::Damaged`] when there is none.
    fn locate(&self, id: &ChunkId) -> Result<Location>;

    /// Reads, opens and decompresses one whole frame.
    fn frame(&self, at: &FrameAt) -> Result<Vec<u8>>;

    /// One verified chunk from any location, trying others when one is damaged.
    fn chunk(&self, id: &ChunkId) -> Result<Vec<u8>>;

    /// Whether `bytes` are the data chunk `id`.
    fn verify(&self, id: &ChunkId, bytes: &[u8]) -> bool;

    /// The verified bytes of a directory node.
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>>;

    /// The verified bytes of a list node.
    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>>;
}

fn damaged(what: impl Into<String>) -> Error {
    Error::new(Kind::Damaged, what)
}

/// The entries of one directory in ascending order of name.
///
/// A node that cannot be read is an `Err`, after which the entries of the nodes behind it follow.
#[derive(Debug)]
pub struct Entries<'r, R: ?Sized> {
    repo: &'r R,
    /// Links still to follow, the deepest level last; every item is one level below the one before.
    stack: Vec<(u64, std::vec::IntoIter<DirectoryLink>)>,
    leaf: std::vec::IntoIter<Entry>,
    start: Option<(ChunkId, u64)>,
    /// Names before this are passed over.
    from: Option<Name>,
    last: Option<Name>,
}

impl<'r, R: ReadRepo + ?Sized> Entries<'r, R> {
    /// The entries below the node `id` of that level.
    pub fn new(repo: &'r R, id: ChunkId, level: u64) -> Self {
        Self { repo, stack: Vec::new(), leaf: Vec::new().into_iter(), start: Some((id, level)), from: None, last: None }
    }

    /// Those whose name is `name` or after it. Nodes before it are not read.
    pub fn from_name(repo: &'r R, id: ChunkId, level: u64, name: Name) -> Self {
        Self { from: Some(name), ..Self::new(repo, id, level) }
    }

    /// Reads a node and puts its links or entries in line.
    fn descend(&mut self, id: &ChunkId, level: u64, first: Option<&Name>) -> Result<()> {
        let what = || format!("cannot read the directory node `{}`", id.short());
        if level > LEVEL_MAX {
            return Err(damaged(format!("directory node `{}` lies too deep", id.short())));
        }
        let bytes = self.repo.node(id).context(what)?;
        let node: DirectoryNode = cbor::decode(&bytes).context(what)?;
        let misplaced = |why: &str| damaged(format!("directory node `{}` {why}", id.short()));
        match node {
            DirectoryNode::Entries(mut entries) if level == 0 => {
                let begins = entries.first().and_then(|entry| entry.name.as_ref());
                if first.is_some() && begins != first {
                    return Err(misplaced("does not begin with the name its parent says"));
                }
                if begins.is_some() && begins <= self.last.as_ref() {
                    return Err(misplaced("is out of order"));
                }
                if let Some(from) = &self.from {
                    entries.drain(..entries.partition_point(|entry| entry.name.as_ref() < Some(from)));
                }
                self.leaf = entries.into_iter();
            }
            DirectoryNode::Links { level: found, mut links } if found == level && level > 0 => {
                if first.is_some_and(|first| links[0].first != *first) {
                    return Err(misplaced("does not begin with the name its parent says"));
                }
                if let Some(from) = &self.from {
                    let before = links.partition_point(|link| link.first <= *from);
                    links.drain(..before.saturating_sub(1));
                }
                self.stack.push((level, links.into_iter()));
            }
            _ => return Err(misplaced(&format!("is not of level {level}"))),
        }
        Ok(())
    }
}

impl<R: ReadRepo + ?Sized> Iterator for Entries<'_, R> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                self.last.clone_from(&entry.name);
                return Some(Ok(entry));
            }
            let went = if let Some((id, level)) = self.start.take() {
                self.descend(&id, level, None)
            } else {
                let (level, links) = self.stack.last_mut()?;
                let below = level.saturating_sub(1);
                match links.next() {
                    Some(link) => self.descend(&link.id, below, Some(&link.first)),
                    None => {
                        self.stack.pop();
                        Ok(())
                    }
                }
            };
            if let Err(error) = went {
                return Some(Err(error));
            }
        }
    }
}

/// The pieces of one file in order. Ends after the first error.
#[derive(Debug)]
pub struct Pieces<'r, R: ?Sized> {
    repo: &'r R,
    /// Links still to follow, the deepest level last.
    stack: Vec<(u64, std::vec::IntoIter<ListLink>)>,
    leaf: std::vec::IntoIter<Piece>,
    start: Option<(ChunkId, u64)>,
}

impl<'r, R: ReadRepo + ?Sized> Pieces<'r, R> {
    /// The pieces of `content`. That they add up to the file's size is the caller's to check.
    pub fn new(repo: &'r R, content: &Content) -> Self {
        let (leaf, start) = match content {
            Content::Inline(pieces) => (pieces.clone(), None),
            Content::List { id, level } => (Vec::new(), Some((*id, *level))),
        };
        Self { repo, stack: Vec::new(), leaf: leaf.into_iter(), start }
    }

    fn descend(&mut self, id: &ChunkId, level: u64, covers: Option<u64>) -> Result<()> {
        let what = || format!("cannot read the list node `{}`", id.short());
        if level > LEVEL_MAX {
            return Err(damaged(format!("list node `{}` lies too deep", id.short())));
        }
        let bytes = self.repo.list_node(id).context(what)?;
        let node: ListNode = cbor::decode(&bytes).context(what)?;
        let total = match &node {
            ListNode::Pieces(pieces) => pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.bytes())),
            ListNode::Links { links, .. } => links.iter().try_fold(0_u64, |sum, link| sum.checked_add(link.bytes)),
        };
        if total.is_none() || covers.is_some() && covers != total {
            return Err(damaged(format!("list node `{}` covers another length than its parent says", id.short())));
        }
        match node {
            ListNode::Pieces(pieces) if level == 0 => self.leaf = pieces.into_iter(),
            ListNode::Links { level: found, links } if found == level && level > 0 => {
                self.stack.push((level, links.into_iter()));
            }
            _ => return Err(damaged(format!("list node `{}` is not of level {level}", id.short()))),
        }
        Ok(())
    }
}

impl<R: ReadRepo + ?Sized> Iterator for Pieces<'_, R> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        loop {
            if let Some(piece) = self.leaf.next() {
                return Some(Ok(piece));
            }
            let went = if let Some((id, level)) = self.start.take() {
                self.descend(&id, level, None)
            } else {
                let (level, links) = self.stack.last_mut()?;
                let below = level.saturating_sub(1);
                match links.next() {
                    Some(link) => self.descend(&link.id, below, Some(link.bytes)),
                    None => {
                        self.stack.pop();
                        Ok(())
                    }
                }
            };
            if let Err(error) = went {
                self.stack.clear();
                return Some(Err(error));
            }
        }
    }
}

/// The entry at `path` below `root`, reading one node a level on the way.
pub fn find<R: ReadRepo + ?Sized>(repo: &R, root: &Entry, path: &TreePath) -> Result<Entry> {
    let mut at = root.clone();
    let mut walked = TreePath::root();
    for name in path.components() {
        let Detail::Directory { id, level, .. } = at.detail else {
            return Err(Error::new(Kind::Failed, format!("`{walked}` in the snapshot is not a directory")));
        };
        walked.push(&name);
        let next = Entries::from_name(repo, id, level, name.clone()).next().transpose();
        at = next
            .context(|| format!("cannot look up `{walked}` in the snapshot"))?
            .filter(|entry| entry.name.as_ref() == Some(&name))
            .ok_or_else(|| Error::new(Kind::Failed, format!("there is no `{walked}` in the snapshot")))?;
    }
    Ok(at)
}
