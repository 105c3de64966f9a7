//! A local directory, to compare a snapshot with.
//!
//! It is gone through as a backup would. Two files of the same size and mtime are taken to be the same unless
//! asked; of those of the same size and another mtime the bytes decide: they are read here, cut where the
//! snapshot's are, and identified. Nothing of the repository but its trees is read for that.

use std::path::PathBuf;
use std::sync::Arc;

use super::side::{Item, Step};
use crate::error::{Context, Error, Kind, Result};
use crate::format::cbor::Extra;
use crate::format::tree::{Attributes, Content, Detail, Entry, Piece, Totals};
use crate::id::ChunkId;
use crate::monitor::Monitor;
use crate::path::{Name, TreePath};
use crate::repo::reader::{Pieces, ReadRepo};
use crate::source::dir::Dir;
use crate::source::file::{OpenFile, Segment, open_file};
use crate::source::meta::{Owner, link_target, xattrs};
use crate::source::stat::{Kind as FileKind, Stat};
use crate::source::walk::{Event, Walk, WalkOptions};

/// Bytes that are looked through at once for being zero.
const BLOCK: usize = 64 << 10;

/// A directory or file on this machine.
#[derive(Debug, Clone)]
pub struct Local {
    /// Where it is, resolved.
    pub path: TreePath,
    /// Which parts of it are compared: itself, or paths below it.
    pub roots: Vec<TreePath>,
    /// Whether extended attributes are read.
    pub with_xattrs: bool,
    /// How many threads list directories.
    pub threads: usize,
    /// Where the names of a very large directory wait for their turn.
    pub spill: PathBuf,
    /// Is told of each entry and of the bytes read, and may ask to stop.
    pub monitor: Monitor,
}

/// Where an entry is found again.
#[derive(Debug)]
pub(super) struct File {
    dir: Arc<Dir>,
    /// `None` for the directory itself.
    name: Option<Name>,
    stat: Stat,
    monitor: Monitor,
}

/// The entries below a local directory.
pub(super) struct Steps {
    walk: Walk,
    from: TreePath,
    base: TreePath,
    with_xattrs: bool,
    monitor: Monitor,
}

impl Local {
    /// What is at the path itself.
    pub(super) fn start(&self, base: &TreePath) -> Result<Item> {
        let mut steps = self.steps(base);
        while let Some(event) = steps.walk.next() {
            match steps.step(event) {
                Some((path, Step::Item(item))) if path == self.path => return Ok(*item),
                Some((path, Step::Unread(_, error))) if self.path.starts_with(&path) => return Err(error),
                _ => {}
            }
        }
        Err(Error::new(Kind::Failed, format!("`{}` is nothing that a snapshot has", self.path)))
    }

    /// What is below it, with paths as if it were at `base`.
    pub(super) fn steps(&self, base: &TreePath) -> Steps {
        let options = WalkOptions { threads: self.threads, spill: self.spill.clone(), ..WalkOptions::default() };
        Steps {
            walk: Walk::new(&self.roots, options),
            from: self.path.clone(),
            base: base.clone(),
            with_xattrs: self.with_xattrs,
            monitor: self.monitor.clone(),
        }
    }
}

impl Steps {
    /// What an event says, and the path on this machine that it is about.
    fn step(&self, event: Event) -> Option<(TreePath, Step)> {
        let file = |dir, name, stat| File { dir, name, stat, monitor: self.monitor.clone() };
        let (path, file) = match event {
            Event::Enter { stat, dir, .. } => (self.walk.path().clone(), file(dir, None, stat)),
            Event::Item { stat: Stat { kind: FileKind::Socket, .. }, .. } => return None,
            Event::Item { name, stat, dir } => (self.walk.path().join(&name), file(dir, Some(name), stat)),
            Event::Leave { .. } | Event::LeftOut { .. } => return None,
            Event::Problem { path, fault } => {
                let error = Error::new(Kind::Failed, format!("cannot read `{path}`")).because(fault);
                return Some((path.clone(), Step::Unread(self.shown(&path), error)));
            }
        };
        if !path.starts_with(&self.from) {
            return None;
        }
        let shown = self.shown(&path);
        let step = match self.entry(&path, &file) {
            Ok(entry) => Step::Item(Box::new(Item { path: shown, entry, file: Some(file) })),
            Err(error) => Step::Unread(shown, error),
        };
        Some((path, step))
    }

    /// The path as it is told.
    fn shown(&self, path: &TreePath) -> TreePath {
        let mut shown = self.base.clone();
        path.components().skip(self.from.components().count()).for_each(|name| shown.push(&name));
        shown
    }

    /// The entry as a backup would store it, but for its content and the names of its owners: who has which
    /// number is a matter of the machine.
    fn entry(&self, path: &TreePath, file: &File) -> Result<Entry> {
        let File { dir, name, stat, .. } = file;
        let xattrs = match name {
            _ if !self.with_xattrs => Vec::new(),
            None => xattrs(Owner::Directory(dir)).0,
            Some(name) => xattrs(Owner::Named(dir, name)).0,
        };
        let device = (stat.rdev_major, stat.rdev_minor);
        let detail = match (stat.kind, name) {
            (FileKind::Symlink, Some(name)) => {
                Detail::Symlink { target: link_target(dir, name).context(|| format!("cannot read the link `{path}`"))? }
            }
            (FileKind::File, _) => {
                Detail::File { size: stat.size, content: Content::Inline(Vec::new()), holes: Vec::new() }
            }
            (FileKind::CharDevice, _) => Detail::CharDevice { major: device.0, minor: device.1 },
            (FileKind::BlockDevice, _) => Detail::BlockDevice { major: device.0, minor: device.1 },
            (FileKind::Fifo, _) => Detail::Fifo,
            _ => {
                let id = ChunkId::from_bytes([0; 32]);
                Detail::Directory { id, level: 0, totals: Totals::default(), incomplete: false }
            }
        };
        let attributes = Attributes {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            user: None,
            group: None,
            mtime: stat.mtime,
            xattrs,
            link_group: None,
        };
        let name = name.clone().or_else(|| path.components().last());
        Ok(Entry { name, attributes, detail, extra: Extra::default() })
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            if self.monitor.stopping() {
                return Some(Step::Unread(self.base.clone(), interrupted()));
            }
            let event = self.walk.next()?;
            match self.step(event) {
                Some((path, step)) if path != self.from => {
                    self.monitor.done(1, 0);
                    return Some(step);
                }
                Some((_, step @ Step::Unread(..))) => return Some(step),
                _ => {}
            }
        }
    }
}

fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "the comparison was interrupted")
}

impl File {
    pub(super) fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Whether the file has other bytes than `content`, which is as long.
    pub(super) fn is_other_than<R: ReadRepo + ?Sized>(&self, repo: &R, content: &Content) -> Result<bool> {
        let Some(name) = &self.name else { return Ok(true) };
        let what = || format!("cannot read the file `{name}`");
        let opened = open_file(&self.dir, name, &self.stat);
        let mut bytes =
            Bytes { file: opened.map_err(|error| Error::new(Kind::Failed, what()).because(error))?, zeros: 0 };
        let mut buffer = Vec::new();
        for piece in Pieces::new(repo, content) {
            if self.monitor.stopping() {
                return Err(interrupted());
            }
            let piece = piece?;
            self.monitor.done(0, piece.bytes());
            match piece {
                Piece::Chunk { id, bytes: length } => {
                    buffer.resize(length as usize, 0);
                    if bytes.fill(&mut buffer).context(what)? < buffer.len() || !repo.verify(&id, &buffer) {
                        return Ok(true);
                    }
                }
                Piece::Zeros { bytes: mut left } => {
                    while left > 0 {
                        buffer.resize(usize::try_from(left).unwrap_or(BLOCK).min(BLOCK), 0);
                        if bytes.fill(&mut buffer).context(what)? < buffer.len() || buffer.iter().any(|b| *b != 0) {
                            return Ok(true);
                        }
                        left -= buffer.len() as u64;
                    }
                }
            }
        }
        Ok(bytes.fill(&mut [0]).context(what)? > 0)
    }
}

/// The bytes of a file, those of its holes too.
struct Bytes {
    file: OpenFile,
    /// Zeros of a hole that are still to come.
    zeros: u64,
}

impl Bytes {
    /// Fills the buffer; less only at the end.
    fn fill(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let room = &mut buffer[filled..];
            if self.zeros > 0 {
                let count = usize::try_from(self.zeros).unwrap_or(usize::MAX).min(room.len());
                room[..count].fill(0);
                self.zeros -= count as u64;
                filled += count;
                continue;
            }
            match self.file.next(room)? {
                Segment::Data(bytes) => filled += bytes,
                Segment::Hole(bytes) => self.zeros = bytes,
                Segment::End => break,
            }
        }
        Ok(filled)
    }
}
