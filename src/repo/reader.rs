//! Reading a repository: chunks by id, and directories and files as sequences of their parts.
//!
//! [`ReadRepo`] is all that the reading verbs ask of a repository, [`ReadNodes`] the part of it that walks need: who
//! does something at each node of a walk stands before that part alone. [`Entries`] and [`Pieces`] walk
//! the nodes of a directory or a large file with a stack of their own, so that no stored bytes can
//! make the program recurse; what the nodes claim about order, level and length is checked, so a
//! node that refers to itself or is out of its place is damage and never an endless walk.

use super::frames::Buffers;
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

/// The nodes of trees: all that a walk asks of a repository. Every method may be called from many threads at once.
pub trait ReadNodes: Sync {
    /// The verified bytes of a directory node.
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>>;

    /// The verified bytes of a list node.
    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>>;
}

/// A repository opened for reading. Every method may be called from many threads at once.
pub trait ReadRepo: ReadNodes {
    /// Where the best copy of a chunk lies; [`Kind::Damaged`] when there is none.
    fn locate(&self, id: &ChunkId) -> Result<Location>;

    /// Reads, opens and decompresses one whole frame.
    fn frame(&self, at: &FrameAt) -> Result<Vec<u8>>;

    /// How many bytes of a pack are best read at once, for cutting [`spans`](super::frames::spans).
    fn span_bytes_max(&self) -> u32 {
        0
    }

    /// Reads the frames of a span at once, and calls `each` with the ordinal in it and the opened
    /// bytes of one after the other. Where that cannot be, it is as if each were read by itself.
    fn frames(&self, span: &[FrameAt], _: &mut Buffers, each: &mut dyn FnMut(usize, Result<&[u8]>)) {
        for (ordinal, at) in span.iter().enumerate() {
            match self.frame(at) {
                Ok(frame) => each(ordinal, Ok(&frame)),
                Err(error) => each(ordinal, Err(error)),
            }
        }
    }

    /// One verified chunk from any location, trying others when one is damaged.
    fn chunk(&self, id: &ChunkId) -> Result<Vec<u8>>;

    /// Whether `bytes` are the data chunk `id`.
    fn verify(&self, id: &ChunkId, bytes: &[u8]) -> bool;
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
    stack: Vec<Links>,
    leaf: std::vec::IntoIter<Entry>,
    start: Option<(ChunkId, u64)>,
    /// Names before this are passed over, and this one too if it was done already.
    from: Option<(Name, Done)>,
    /// The last name that was given out, or that a link which was followed begins with.
    reached: Option<Name>,
}

/// Whether the entry that a sequence is taken up at was given out before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Yes,
    No,
}

/// The links of a directory node that are still to be followed.
#[derive(Debug)]
struct Links {
    level: u64,
    rest: std::vec::IntoIter<DirectoryLink>,
    /// Whether one has been followed. The first begins with the name that its parent's link does.
    begun: bool,
}

impl<'r, R: ReadNodes + ?Sized> Entries<'r, R> {
    /// The entries below the node `id` of that level.
    pub fn new(repo: &'r R, id: ChunkId, level: u64) -> Self {
        let (stack, leaf) = (Vec::new(), Vec::new().into_iter());
        Self { repo, stack, leaf, start: Some((id, level)), from: None, reached: None }
    }

    /// Those whose name is `name` or after it. Nodes before it are not read.
    pub fn from_name(repo: &'r R, id: ChunkId, level: u64, name: Name) -> Self {
        Self { from: Some((name, Done::No)), ..Self::new(repo, id, level) }
    }

    /// Those whose name is after `name`, to take up again what was left there.
    pub fn after(repo: &'r R, id: ChunkId, level: u64, name: Name) -> Self {
        Self { from: Some((name, Done::Yes)), ..Self::new(repo, id, level) }
    }

    /// Follows a link, if its name is behind all that was reached before.
    ///
    /// Without that, nodes that share the nodes below them, level upon level, would be walked
    /// through as often as there are ways to each.
    fn follow(&mut self, link: &DirectoryLink, level: u64, begun: bool) -> Result<()> {
        let reached = self.reached.as_ref();
        if Some(&link.first) < reached || begun && Some(&link.first) == reached {
            return Err(damaged(format!("directory node `{}` is out of order", link.id.short())));
        }
        self.reached = Some(link.first.clone());
        self.descend(&link.id, level, Some(&link.first))
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
                if let Some((from, done)) = &self.from {
                    let before = |entry: &Entry| match done {
                        Done::Yes => entry.name.as_ref() <= Some(from),
                        Done::No => entry.name.as_ref() < Some(from),
                    };
                    entries.drain(..entries.partition_point(before));
                }
                self.leaf = entries.into_iter();
            }
            DirectoryNode::Links { level: found, mut links } if found == level && level > 0 => {
                if first.is_some_and(|first| links[0].first != *first) {
                    return Err(misplaced("does not begin with the name its parent says"));
                }
                if let Some((from, _)) = &self.from {
                    let before = links.partition_point(|link| link.first <= *from);
                    links.drain(..before.saturating_sub(1));
                }
                self.stack.push(Links { level, rest: links.into_iter(), begun: false });
            }
            _ => return Err(misplaced(&format!("is not of level {level}"))),
        }
        Ok(())
    }
}

impl<R: ReadNodes + ?Sized> Iterator for Entries<'_, R> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                self.reached.clone_from(&entry.name);
                return Some(Ok(entry));
            }
            let went = if let Some((id, level)) = self.start.take() {
                self.descend(&id, level, None)
            } else {
                let links = self.stack.last_mut()?;
                let (below, begun) = (links.level.saturating_sub(1), std::mem::replace(&mut links.begun, true));
                match links.rest.next() {
                    Some(link) => self.follow(&link, below, begun),
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
pub struct Pieces<'r, R: ?Sized> {
    repo: &'r R,
    /// Links still to follow, the deepest level last.
    stack: Vec<(u64, std::vec::IntoIter<ListLink>)>,
    leaf: std::vec::IntoIter<Piece>,
    start: Option<(ChunkId, u64)>,
    /// Says of a list node whether to pass over what is below it.
    known: Option<Box<Known<'r>>>,
    bytes_passed_over: u64,
    /// Bytes of the file before the piece to begin with.
    skip: u64,
    begun: bool,
}

type Known<'r> = dyn FnMut(&ChunkId) -> bool + 'r;

impl<R: ?Sized> std::fmt::Debug for Pieces<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").field("stack", &self.stack).field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

impl<'r, R: ReadNodes + ?Sized> Pieces<'r, R> {
    /// The pieces of `content`. That they add up to the file's size is the caller's to check.
    pub fn new(repo: &'r R, content: &Content) -> Self {
        let (leaf, start) = match content {
            Content::Inline(pieces) => (pieces.clone(), None),
            Content::List { id, level } => (Vec::new(), Some((*id, *level))),
        };
        Self {
            repo,
            stack: Vec::new(),
            leaf: leaf.into_iter(),
            start,
            known: None,
            bytes_passed_over: 0,
            skip: 0,
            begun: false,
        }
    }

    /// Those from the piece on in which `offset` lies; one node a level is read on the way there.
    pub fn from_offset(repo: &'r R, content: &Content, offset: u64) -> Self {
        Self { skip: offset, ..Self::new(repo, content) }
    }

    /// How far behind the beginning of the first piece it begins, once that was given.
    pub fn skipped_of_first(&self) -> u64 {
        self.skip
    }

    /// Whether the next so many bytes are before the offset.
    fn skips(&mut self, bytes: u64) -> bool {
        let skips = self.skip >= bytes;
        if skips {
            self.skip -= bytes;
        }
        skips
    }

    /// The same without what is below list nodes that `known` says yes of. It is asked of each node
    /// once that was read and fits where it stands.
    ///
    /// A list may name one node any number of times, so a few kilobytes can be a file of more pieces
    /// than anybody can go through. Whoever only wants to know what there is sees each node once.
    pub fn unless(mut self, known: impl FnMut(&ChunkId) -> bool + 'r) -> Self {
        self.known = Some(Box::new(known));
        self
    }

    /// How many bytes of the file lie below the nodes that were passed over.
    pub fn bytes_passed_over(&self) -> u64 {
        self.bytes_passed_over
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
        let fits = match &node {
            ListNode::Pieces(_) => level == 0,
            ListNode::Links { level: found, .. } => *found == level,
        };
        if !fits {
            return Err(damaged(format!("list node `{}` is not of level {level}", id.short())));
        }
        if self.known.as_mut().is_some_and(|known| known(id)) {
            self.bytes_passed_over = self.bytes_passed_over.saturating_add(total.unwrap_or_default());
            return Ok(());
        }
        match node {
            ListNode::Pieces(pieces) => self.leaf = pieces.into_iter(),
            ListNode::Links { level, links } => self.stack.push((level, links.into_iter())),
        }
        Ok(())
    }
}

impl<R: ReadNodes + ?Sized> Iterator for Pieces<'_, R> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        loop {
            if let Some(piece) = self.leaf.next() {
                if !self.begun && self.skips(piece.bytes()) {
                    continue;
                }
                self.begun = true;
                return Some(Ok(piece));
            }
            let went = if let Some((id, level)) = self.start.take() {
                self.descend(&id, level, None)
            } else {
                let (level, links) = self.stack.last_mut()?;
                let below = level.saturating_sub(1);
                match links.next() {
                    Some(link) if !self.begun && self.skips(link.bytes) => Ok(()),
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
pub fn find<R: ReadNodes + ?Sized>(repo: &R, root: &Entry, path: &TreePath) -> Result<Entry> {
    let mut at = root.clone();
    let mut walked = TreePath::root();
    for name in path.components() {
        let Detail::Directory { id, level, .. } = at.detail else {
            return Err(Error::new(Kind::Failed, format!("`{walked}` in the snapshot is not a directory")));
        };
        walked.push(&name);
        let next = Entries::from_name(repo, id, level, name.clone()).next().transpose();
        at = next
            .context(|| format!("cannot look up `{walked}` in the snapshot"))
            .map_err(|error| match error.kind() {
                Kind::Damaged => error.hint("to see what is damaged, run `esker check`"),
                _ => error,
            })?
            .filter(|entry| entry.name.as_ref() == Some(&name))
            .ok_or_else(|| Error::new(Kind::Failed, format!("there is no `{walked}` in the snapshot")))?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::format::cbor::Extra;
    use crate::format::tree::Attributes;

    const NAMES: u8 = 24;

    fn id(level: u64, first: u8) -> ChunkId {
        let mut id = [0; 32];
        (id[0], id[1]) = (u8::try_from(level).unwrap(), first);
        ChunkId::from_bytes(id)
    }

    fn name(n: u8) -> Name {
        Name::new([b'a' + n]).unwrap()
    }

    /// A node for each level and name: it links to those of that name and all after it, one level
    /// below. Few bytes, and more ways from top to bottom than anybody can walk.
    #[derive(Default)]
    struct Lattice {
        nodes_read: AtomicUsize,
    }

    impl ReadNodes for Lattice {
        fn node(&self, of: &ChunkId) -> Result<Vec<u8>> {
            assert!(self.nodes_read.fetch_add(1, Ordering::Relaxed) < 100_000, "the walk does not end");
            let [level, first, ..] = *of.as_bytes();
            let node = if level == 0 {
                let (name, detail) = (Some(name(first)), Detail::Fifo);
                DirectoryNode::Entries(vec![Entry {
                    name,
                    attributes: Attributes::default(),
                    detail,
                    extra: Extra::default(),
                }])
            } else {
                let below = u64::from(level) - 1;
                let links = (first..NAMES).map(|n| DirectoryLink { first: name(n), id: id(below, n) });
                DirectoryNode::Links { level: level.into(), links: links.collect() }
            };
            Ok(cbor::encode(&node))
        }

        fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>> {
            self.node(id)
        }
    }

    /// Found while writing the fuzz target `tree_walk`: a snapshot of a few kilobytes kept every reader busy for ever.
    #[test]
    fn nodes_that_share_all_that_is_below_them_are_walked_once() {
        let lattice = Lattice::default();
        let (entries, errors): (Vec<_>, Vec<_>) =
            Entries::new(&lattice, id(LEVEL_MAX, 0), LEVEL_MAX).partition(|entry| entry.is_ok());
        let names: Vec<_> = entries.into_iter().map(|entry| entry.unwrap().name.unwrap()).collect();
        assert_eq!(names, (0..NAMES).map(name).collect::<Vec<_>>());
        assert!(errors.iter().all(|error| error.as_ref().unwrap_err().to_string().ends_with("is out of order")));
        assert!(!errors.is_empty());
    }
}
