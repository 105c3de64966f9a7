//! Copying into a repository with other ids: files are cut anew, and directories built of them.
//!
//! Everything is read once. What a content or a directory of the source became is remembered for the rest
//! of the run, so the next snapshot costs what changed; and what earlier runs have copied is learned from
//! a snapshot that both repositories have ([`learn`](super::learn)). Zeros and holes stay what they were.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use super::damage::Damage;
use super::learn::Learned;
use super::target::{Halt, Target};
use crate::chunk::cut::{Cutter, Parameters};
use crate::chunk::split::{Split, Splitter};
use crate::crypto::ident::{ChunkKind, IdKeys};
use crate::error::{Context, Error, Kind, Result};
use crate::format::cbor::{self, Extra};
use crate::format::tree::{Attributes, Detail, Entry, Piece, Totals};
use crate::id::{ChunkId, LinkGroup, ObjectId};
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::fetch::{self, Broken, Part, Take};
use crate::repo::tree::{ContentBuilder, DirectoryBuilder};
use crate::repo::walk::Walk;

/// How a repository's files are cut.
pub(super) fn cutter(repo: &Repository) -> Arc<Cutter> {
    let chunker = &repo.config.chunker;
    let parameters =
        Parameters { min_bytes: chunker.min_bytes, avg_bytes: chunker.avg_bytes, max_bytes: chunker.max_bytes };
    Arc::new(Cutter::new(parameters, repo.keys.chunker_key().expose()))
}

/// What a file's content goes by.
pub(super) fn content_key(detail: &Detail) -> [u8; 32] {
    let mut detail = detail.clone();
    if let Detail::File { holes, .. } = &mut detail {
        holes.clear();
    }
    *ObjectId::of(&encode(detail)).as_bytes()
}

fn encode(detail: Detail) -> Vec<u8> {
    cbor::encode(&Entry { name: None, attributes: Attributes::default(), detail, extra: Extra::default() })
}

pub(super) fn remember(target: &mut Target<'_>, key: [u8; 32], became: &Detail) -> Result<()> {
    target.settled.became.insert(key, &encode(became.clone())).context(|| "cannot remember what was copied")
}

fn recall(target: &Target<'_>, key: &[u8; 32]) -> Option<Detail> {
    let entry: Entry = cbor::decode(&target.settled.became.get(key)?).ok()?;
    Some(entry.detail)
}

/// Stores all below `root` anew; gives the root of that.
pub(super) fn transfer(
    reader: &Reader<'_>,
    target: &mut Target<'_>,
    learned: &Learned<'_, '_>,
    root: &Entry,
    threads: usize,
    monitor: &Monitor,
    damage: &mut Damage,
) -> Result<Entry, Halt> {
    let repo = target.repo();
    let recut = RefCell::new(Recut {
        ids: &repo.keys.ids,
        splitter: Splitter::new(cutter(repo)),
        target,
        monitor,
        damage,
        decided: VecDeque::new(),
        open: vec![OpenDirectory::new(root.clone())],
        file: None,
        anew: false,
    });
    let mut walk = Walk::below(reader, TreePath::root(), root);
    let entries = std::iter::from_fn(|| {
        let entry = walk.next()?;
        let path = walk.path().clone();
        Some(match entry {
            Ok(entry) => match recut.borrow_mut().decide(&entry, learned) {
                Ok(known) => {
                    if known {
                        walk.pass_over();
                    }
                    Ok((path, entry))
                }
                Err(error) => Err((path, error)),
            },
            Err(error) => Err((path, error)),
        })
    });
    let done = fetch::run(reader, threads, &mut { entries }, &mut Taking(&recut));
    let mut recut = recut.into_inner();
    match done {
        Err(_) if recut.anew => Err(Halt::BeginAnew),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(recut.finish()?),
    }
}

/// A directory that was entered and not yet left: what it was, and what it becomes.
struct OpenDirectory {
    entry: Entry,
    builder: DirectoryBuilder,
    totals: Totals,
}

impl OpenDirectory {
    fn new(entry: Entry) -> Self {
        Self { entry, builder: DirectoryBuilder::default(), totals: Totals::default() }
    }
}

/// The file whose bytes come.
struct AtHand {
    entry: Entry,
    /// What it becomes, if that is known; what comes of it is then not looked at.
    known: Option<Detail>,
    content: ContentBuilder,
}

/// What comes of a file.
enum More<'a> {
    Bytes(&'a [u8]),
    Zeros(u64),
    /// That was all.
    Nothing,
}

struct Recut<'t, 'r> {
    ids: &'r IdKeys,
    splitter: Splitter,
    target: &'t mut Target<'r>,
    monitor: &'t Monitor,
    damage: &'t mut Damage,
    /// Of each file and directory that was walked to and not begun yet: what it becomes, if that is known.
    decided: VecDeque<Option<Detail>>,
    open: Vec<OpenDirectory>,
    file: Option<AtHand>,
    anew: bool,
}

/// The parts are taken where the entries are asked for too.
struct Taking<'a, 't, 'r>(&'a RefCell<Recut<'t, 'r>>);

impl Take for Taking<'_, '_, '_> {
    fn wants(&mut self, _: &TreePath, _: &Entry) -> bool {
        matches!(self.0.borrow().decided.back(), Some(None))
    }

    fn take(&mut self, part: Result<Part, Broken>) -> Result<()> {
        self.0.borrow_mut().take(part)
    }
}

impl Recut<'_, '_> {
    /// Decides whether to go through a directory, or to read a file; says whether what it becomes is known.
    fn decide(&mut self, entry: &Entry, learned: &Learned<'_, '_>) -> Result<bool> {
        let known = match &entry.detail {
            Detail::Directory { id, .. } => recall(self.target, id.as_bytes()),
            detail @ Detail::File { .. } => {
                let key = content_key(detail);
                match recall(self.target, &key) {
                    Some(known) => Some(known),
                    None => match learned.get(&key, self.target)? {
                        Some(detail) => {
                            remember(self.target, key, &detail)?;
                            Some(detail)
                        }
                        None => None,
                    },
                }
            }
            _ => return Ok(false),
        };
        let is_known = known.is_some();
        self.decided.push_back(known);
        Ok(is_known)
    }

    fn take(&mut self, part: Result<Part, Broken>) -> Result<()> {
        if self.monitor.stopping() {
            return Err(super::interrupted());
        }
        match part {
            Ok(Part::Begin(begun)) => self.begin(&begun.0, begun.1),
            Ok(Part::Bytes(bytes)) => self.cut(More::Bytes(&bytes)),
            Ok(Part::Zeros(bytes)) => self.cut(More::Zeros(bytes)),
            Ok(Part::End) => self.end(),
            Err((path, error)) => {
                self.splitter.reset();
                self.file = None;
                self.damage.add(&path, error)
            }
        }
    }

    fn begin(&mut self, path: &TreePath, mut entry: Entry) -> Result<()> {
        // As many slashes as directories around it.
        self.leave_below(path.as_bytes().iter().filter(|byte| **byte == b'/').count())?;
        self.monitor.done(1, 0);
        if let Some(group) = entry.attributes.link_group {
            entry.attributes.link_group = Some(self.link_group(group, path)?);
        }
        match &entry.detail {
            Detail::Directory { incomplete, .. } => match self.decided.pop_front().flatten() {
                Some(Detail::Directory { id, level, totals, .. }) => {
                    self.monitor.done(entry.entries_below(), totals.bytes);
                    let detail = Detail::Directory { id, level, totals, incomplete: *incomplete };
                    self.push(Entry { detail, ..entry })
                }
                _ => {
                    self.open.push(OpenDirectory::new(entry));
                    Ok(())
                }
            },
            Detail::File { .. } => {
                let known = self.decided.pop_front().flatten();
                self.file = Some(AtHand { entry, known, content: ContentBuilder::default() });
                Ok(())
            }
            _ => self.push(entry),
        }
    }

    /// Takes more of the file at hand and what the splitter makes of it.
    fn cut(&mut self, more: More<'_>) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let (ids, chunks) = (self.ids, self.target.chunks());
        let mut sink = |split: Split<'_>| {
            let piece = match split {
                Split::Zeros(bytes) => Piece::Zeros { bytes },
                Split::Chunk { bytes, .. } => {
                    let id = ids.chunk(ChunkKind::Data, bytes);
                    chunks.add(ChunkKind::Data, id, bytes)?;
                    Piece::Chunk { id, bytes: u32::try_from(bytes.len()).expect("a chunk is at most 16 MiB") }
                }
            };
            file.content.push(ids, piece, chunks)
        };
        match more {
            More::Bytes(bytes) => {
                self.splitter.push(bytes, &mut sink)?;
                self.monitor.done(0, bytes.len() as u64);
            }
            More::Zeros(bytes) => {
                self.splitter.push_zeros(bytes, &mut sink)?;
                self.monitor.done(0, bytes);
            }
            More::Nothing => self.splitter.finish(&mut sink)?,
        }
        match self.target.go_on() {
            Ok(()) => Ok(()),
            Err(Halt::Failed(error)) => Err(error),
            Err(Halt::BeginAnew) => {
                self.anew = true;
                Err(Error::new(Kind::Failed, "a collector interfered"))
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        if self.file.as_ref().is_some_and(|file| file.known.is_none()) {
            self.cut(More::Nothing)?;
        }
        let Some(AtHand { entry, known, content }) = self.file.take() else { return Ok(()) };
        let Detail::File { size, holes, .. } = &entry.detail else { return Ok(()) };
        let (size, holes) = (*size, holes.clone());
        let content = match known {
            Some(Detail::File { content, .. }) => {
                self.monitor.done(0, size);
                content
            }
            _ => {
                let content = content.finish(self.ids, self.target.chunks())?;
                let became = Detail::File { size, content: content.clone(), holes: Vec::new() };
                remember(self.target, content_key(&entry.detail), &became)?;
                content
            }
        };
        self.push(Entry { detail: Detail::File { size, content, holes }, ..entry })
    }

    /// Adds an entry that is complete to the directory it is in.
    fn push(&mut self, entry: Entry) -> Result<()> {
        let Some(around) = self.open.last_mut() else {
            return Err(Error::new(Kind::Damaged, "an entry stands outside of any directory"));
        };
        around.totals.add(entry.totals());
        around.builder.push(self.ids, entry, self.target.chunks())
    }

    /// Leaves directories until so many are open.
    fn leave_below(&mut self, depth: usize) -> Result<()> {
        while self.open.len() > depth.max(1) {
            let left = self.leave()?;
            self.push(left)?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<Entry> {
        let nothing = || Error::new(Kind::Failed, "the walk left more directories than it entered");
        let OpenDirectory { entry, builder, totals } = self.open.pop().ok_or_else(nothing)?;
        let Detail::Directory { id: was, incomplete, .. } = entry.detail else { return Ok(entry) };
        let (id, level) = builder.finish(self.ids, self.target.chunks())?;
        let detail = Detail::Directory { id, level, totals, incomplete };
        remember(self.target, *was.as_bytes(), &detail)?;
        Ok(Entry { detail, ..entry })
    }

    fn finish(&mut self) -> Result<Entry> {
        self.leave_below(1)?;
        self.leave()
    }

    /// The group of a file with several names: that of the path at which it is met first.
    fn link_group(&mut self, was: LinkGroup, path: &TreePath) -> Result<LinkGroup> {
        let key = *blake3::hash(&[b"link group ", &was.as_bytes()[..]].concat()).as_bytes();
        let known = self.target.settled.became.get(&key);
        if let Some(group) = known.and_then(|group| Some(LinkGroup::from_bytes(*group.first_chunk()?))) {
            return Ok(group);
        }
        let group = self.ids.link_group(path.as_bytes());
        let remembered = self.target.settled.became.insert(key, group.as_bytes());
        remembered.context(|| "cannot remember what was copied")?;
        Ok(group)
    }
}

/// The chunks among pieces.
pub(super) fn chunk_ids(pieces: &[Piece]) -> impl Iterator<Item = &ChunkId> {
    pieces.iter().filter_map(|piece| if let Piece::Chunk { id, .. } = piece { Some(id) } else { None })
}
