//! Following the file system and the change record together: what to do with each entry.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::Options;
use super::known::{Followers, Known, Old};
use super::passage::Passage;
use super::rows::{Left, owners, pieces_of};
use super::units::{Batch, FileJob, Unit};
use crate::error::{Context, Error};
use crate::format::cbor::Extra;
use crate::format::tree::{Attributes, Content, Detail, Entry, Hole, Piece, Totals, Xattr};
use crate::id::{ChunkId, LinkGroup};
use crate::monitor::{Monitor, Severity};
use crate::path::{Name, TreePath};
use crate::source::dir::Dir;
use crate::source::links::LinkTable;
use crate::source::meta::{self, Owner, Owners};
use crate::source::stat::{Kind, Stat};
use crate::source::walk::{Event, Scope, Walk};
use crate::world::Time;

/// A unit is closed when its files have this many bytes or this many there are.
const UNIT_BYTES: u64 = 1 << 20;
const UNIT_FILES_MAX: usize = 32;
/// … or when this many steps have passed, so that the sequencer never waits for a unit that
/// waits for it.
const UNIT_STEPS_MAX: usize = 256;
const _: () = assert!(UNIT_STEPS_MAX < super::STEPS_WAITING_MAX);

/// Rows of untouched entries handed on at once.
const UNTOUCHED_BYTES: usize = 16 << 10;

/// What an entry is compared with what the last run saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    New,
    Changed,
    Unmodified,
}

/// An entry and what tells the next run whether it changed.
pub(super) struct Fresh {
    pub(super) entry: Entry,
    pub(super) ctime: Time,
    pub(super) ino: u64,
}

/// One step for the sequencer, in walk order.
pub(super) enum Step {
    /// A directory begins; its root node is not known yet. `whole` unless it only leads to roots;
    /// `untouched` if its own attributes are those recorded.
    Enter { fresh: Fresh, known: bool, whole: bool, untouched: bool },
    /// It ends. `old` is what it was, and whether all that was in it came and may be relied on.
    Leave { incomplete: bool, old: Option<(Left, bool)> },
    /// Entries that are as they were in every respect, as the record has them.
    Untouched { rows: Vec<u8>, entries: u64, bytes: u64 },
    /// The next pieces, as a record has them, of the large unmodified file that follows. Where not
    /// all the run relied on stands, its list is made anew.
    Pieces { pieces: Vec<u8>, upheld: bool },
    /// An entry that is complete.
    Ready { fresh: Fresh, status: Status },
    /// A file whose content comes from the unit being read.
    File { fresh: Fresh, path: TreePath, known: bool },
    /// A file that comes from the unit being read and from nowhere else; what it was last time.
    Stream { fresh: Fresh, path: TreePath, old: Option<Detail> },
    /// The files that follow are in this unit.
    Unit { ordinal: u64, batches: Receiver<Batch> },
}

/// What is known when everything has been handed on.
#[derive(Default)]
pub(super) struct Walked {
    /// How many problems were reported.
    pub(super) problems: u64,
    /// Why there must be no snapshot.
    pub(super) failure: Option<Error>,
}

/// The sequencer has gone.
struct Gone;

#[derive(Default)]
struct Untouched {
    rows: Vec<u8>,
    entries: u64,
    bytes: u64,
}

struct Driver<'a, 'r> {
    passage: &'a Passage<'r>,
    options: &'a Options,
    known: Followers,
    monitor: &'a Monitor,
    /// Nobody takes steps any more.
    halted: &'a AtomicBool,
    steps: &'a Sender<Step>,
    units: &'a Sender<Unit>,
    owners: Owners,
    links: LinkTable,
    /// Steps held back until their unit is closed.
    held: Vec<Step>,
    /// Untouched entries that are not handed on yet.
    untouched: Untouched,
    /// What entries say of these owners, encoded.
    owners_encoded: HashMap<(u32, u32), Vec<u8>>,
    /// For each directory the walk is in, whether it is a root or below one.
    whole: Vec<bool>,
    jobs: Vec<FileJob>,
    job_bytes: u64,
    next_unit: u64,
    problems: u64,
}

/// Walks, decides and hands on.
pub(super) fn follow(
    passage: &Passage<'_>,
    options: &Options,
    known: Followers,
    monitor: &Monitor,
    halted: &AtomicBool,
    steps: &Sender<Step>,
    units: &Sender<Unit>,
) -> Walked {
    let mut driver = Driver {
        passage,
        options,
        known,
        monitor,
        halted,
        steps,
        units,
        owners: Owners::new(),
        links: LinkTable::new(&options.walk.spill, LinkTable::ENTRIES_MAX),
        held: Vec::new(),
        untouched: Untouched::default(),
        owners_encoded: HashMap::new(),
        whole: Vec::new(),
        jobs: Vec::new(),
        job_bytes: 0,
        next_unit: 0,
        problems: 0,
    };
    // A sequencer that has gone has its reason, which is reported there.
    let _ = driver.run();
    // Whatever checkpoints of earlier runs there are, this backup takes their place.
    driver.passage.supersede(driver.known.checkpoints());
    Walked { problems: driver.problems, failure: None }
}

/// What became of an entry since the parent.
fn status(known: &Known, entry: &Entry) -> Status {
    match known.parent() {
        None => Status::New,
        Some(old) if old.entry == *entry => Status::Unmodified,
        Some(_) => Status::Changed,
    }
}

impl Driver<'_, '_> {
    fn run(&mut self) -> Result<(), Gone> {
        let mut walk = Walk::new(&self.options.roots, self.options.walk.clone());
        while let Some(event) = walk.next() {
            if self.monitor.stopping() || self.halted.load(Ordering::Relaxed) {
                return Ok(());
            }
            match event {
                Event::Enter { name, stat, dir, scope } => {
                    let path = walk.path().clone();
                    self.enter(name, &stat, &dir, &path, scope == Scope::Whole)?;
                }
                Event::Item { name, stat, dir } => {
                    if !self.take_untouched(&name, &stat)? {
                        let path = walk.path().join(&name);
                        self.item(name, stat, dir, path)?;
                    }
                }
                Event::Leave { incomplete } => {
                    self.whole.pop();
                    let old = self.known.leave();
                    self.step(Step::Leave { incomplete, old })?;
                }
                Event::LeftOut { path, why } => {
                    self.monitor.problem(Severity::Note, path.to_string(), why.to_string());
                }
                Event::Problem { path, fault } => self.problem(&path, fault.to_string()),
            }
        }
        self.hand_on_untouched()?;
        self.close_unit()
    }

    /// Whether an entry is as it was and taken for that, without another look.
    fn take_untouched(&mut self, name: &Name, stat: &Stat) -> Result<bool, Gone> {
        // At a root the entry itself is wanted.
        if self.options.ignore_ctime || self.whole.last() != Some(&true) {
            return Ok(false);
        }
        let key = (stat.uid, stat.gid);
        if !self.owners_encoded.contains_key(&key) {
            let own = owners(&self.owner_attributes(stat));
            self.owners_encoded.insert(key, own);
        }
        let Some(mut row) = self.known.untouched(name, stat, &self.owners_encoded[&key]) else { return Ok(false) };
        self.untouched.rows.append(&mut row);
        self.untouched.entries += 1;
        self.untouched.bytes += if stat.kind == Kind::File { stat.size } else { 0 };
        if self.untouched.rows.len() >= UNTOUCHED_BYTES {
            self.hand_on_untouched()?;
        }
        Ok(true)
    }

    fn hand_on_untouched(&mut self) -> Result<(), Gone> {
        if self.untouched.entries == 0 {
            return Ok(());
        }
        let Untouched { rows, entries, bytes } = std::mem::take(&mut self.untouched);
        self.put(Step::Untouched { rows, entries, bytes })
    }

    fn problem(&mut self, path: &TreePath, message: String) {
        self.problems += 1;
        self.monitor.problem(Severity::Error, path.to_string(), message);
    }

    fn attributes(&mut self, stat: &Stat, path: &TreePath, xattrs: Vec<Xattr>) -> Attributes {
        let link_group = match stat.kind {
            Kind::Directory => None,
            _ => self.link_group(stat, path),
        };
        Attributes { mode: stat.mode, mtime: stat.mtime, xattrs, link_group, ..self.owner_attributes(stat) }
    }

    fn owner_attributes(&mut self, stat: &Stat) -> Attributes {
        Attributes {
            uid: stat.uid,
            gid: stat.gid,
            user: self.owners.user(stat.uid).map(str::to_owned),
            group: self.owners.group(stat.gid).map(str::to_owned),
            ..Attributes::default()
        }
    }

    /// The group of a file with several names.
    fn link_group(&mut self, stat: &Stat, path: &TreePath) -> Option<LinkGroup> {
        let ids = &self.passage.repo().keys.ids;
        let group = self.links.group(stat, || ids.link_group(path.as_bytes()));
        group.context(|| "it is kept apart from its other names").unwrap_or_else(|error| {
            self.problem(path, error.with_causes());
            None
        })
    }

    /// Reads extended attributes unless an earlier run saw the entry just as it is.
    fn xattrs(&mut self, known: &Known, stat: &Stat, owner: Owner<'_>, path: &TreePath) -> Vec<Xattr> {
        if let Some(old) = known.all().iter().find(|old| self.is_untouched(old, stat)) {
            return old.entry.attributes.xattrs.clone();
        }
        let (xattrs, problems) = meta::xattrs(owner);
        for problem in problems {
            self.problem(path, problem.to_string());
        }
        xattrs
    }

    /// Whether not even the entry's attributes were written since that run saw it.
    fn is_untouched(&self, old: &Old, stat: &Stat) -> bool {
        !self.options.ignore_ctime
            && old.ctime == stat.ctime
            && old.ino == stat.ino
            && old.entry.attributes.mtime == stat.mtime
            && stat.ctime < old.settled_before
            && stat.mtime < old.settled_before
    }

    /// Whether a file's content can be taken from what that run recorded.
    fn is_unmodified(&mut self, old: &Old, stat: &Stat) -> bool {
        let entry = &old.entry;
        let Detail::File { size, content, .. } = &entry.detail else { return false };
        let by_size_and_mtime =
            || self.options.ignore_ctime && entry.attributes.mtime == stat.mtime && stat.mtime < old.settled_before;
        if *size != stat.size || !(self.is_untouched(old, stat) || by_size_and_mtime()) {
            return false;
        }
        if old.upheld {
            return true;
        }
        // W4: every chunk the snapshot will name is looked for, those of unchanged files too.
        let session = self.passage.session();
        let may_reuse = |piece: &Piece| match piece {
            Piece::Chunk { id, .. } => session.may_reuse(id),
            Piece::Zeros { .. } => true,
        };
        match content {
            Content::Inline(pieces) => pieces.iter().all(may_reuse),
            Content::List { .. } => self
                .known
                .each_pieces(old, |row| pieces_of(&row).all(|piece| piece.is_ok_and(|piece| may_reuse(&piece)))),
        }
    }

    /// Hands on the pieces of an unmodified file, if it is a large one; false when they are not
    /// there any more, and it is to be read.
    fn hand_on_pieces(&mut self, old: &Old) -> Result<bool, Gone> {
        let Detail::File { content: Content::List { .. }, .. } = &old.entry.detail else { return Ok(true) };
        // They go to the sequencer at once, so what waits goes before them.
        self.hand_on_untouched()?;
        self.close_unit()?;
        let mut gone = false;
        let steps = self.steps;
        let whole = self.known.each_pieces(old, |pieces| {
            gone = steps.send(Step::Pieces { pieces, upheld: old.upheld }).is_err();
            !gone
        });
        if gone { Err(Gone) } else { Ok(whole) }
    }

    fn enter(
        &mut self,
        name: Option<Name>,
        stat: &Stat,
        dir: &Arc<Dir>,
        path: &TreePath,
        whole: bool,
    ) -> Result<(), Gone> {
        let known = self.known.enter(name.as_ref());
        let xattrs = self.xattrs(&known, stat, Owner::Directory(dir), path);
        let attributes = self.attributes(stat, path, xattrs);
        let id = ChunkId::from_bytes([0; 32]);
        let detail = Detail::Directory { id, level: 0, totals: Totals::default(), incomplete: false };
        let entry = Entry { name, attributes, detail, extra: Extra::default() };
        let fresh = Fresh { entry, ctime: stat.ctime, ino: stat.ino };
        self.whole.push(whole);
        let untouched = known.parent().is_some_and(|old| old.entry.attributes == fresh.entry.attributes);
        self.step(Step::Enter { fresh, known: known.parent().is_some(), whole, untouched })
    }

    fn item(&mut self, name: Name, stat: Stat, dir: Arc<Dir>, path: TreePath) -> Result<(), Gone> {
        let known = self.known.item(&name);
        let detail = match stat.kind {
            Kind::File => return self.file(name, stat, dir, path, known),
            Kind::Socket => {
                self.monitor.problem(Severity::Note, path.to_string(), "skipped: it is a socket");
                return Ok(());
            }
            Kind::Symlink => match meta::link_target(&dir, &name) {
                Ok(target) if !target.is_empty() => Detail::Symlink { target },
                Ok(_) => {
                    self.problem(&path, "its target is empty".into());
                    return Ok(());
                }
                // Gone since its directory was listed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(error) => {
                    self.problem(&path, format!("its target cannot be read: {error}"));
                    return Ok(());
                }
            },
            Kind::Fifo => Detail::Fifo,
            Kind::CharDevice => Detail::CharDevice { major: stat.rdev_major, minor: stat.rdev_minor },
            Kind::BlockDevice => Detail::BlockDevice { major: stat.rdev_major, minor: stat.rdev_minor },
            // The walk enters directories.
            Kind::Directory => return Ok(()),
        };
        let xattrs = self.xattrs(&known, &stat, Owner::Named(&dir, &name), &path);
        let attributes = self.attributes(&stat, &path, xattrs);
        let entry = Entry { name: Some(name), attributes, detail, extra: Extra::default() };
        let status = status(&known, &entry);
        self.step(Step::Ready { fresh: Fresh { entry, ctime: stat.ctime, ino: stat.ino }, status })
    }

    fn file(&mut self, name: Name, stat: Stat, dir: Arc<Dir>, path: TreePath, known: Known) -> Result<(), Gone> {
        let mut unmodified = None;
        for old in known.all() {
            if self.is_unmodified(old, &stat) && self.hand_on_pieces(old)? {
                unmodified = Some(old);
                break;
            }
        }
        if let Some(old) = unmodified {
            let detail = old.entry.detail.clone();
            let xattrs = self.xattrs(&known, &stat, Owner::Named(&dir, &name), &path);
            let attributes = self.attributes(&stat, &path, xattrs);
            let entry = Entry { name: Some(name), attributes, detail, extra: Extra::default() };
            let status = status(&known, &entry);
            return self.step(Step::Ready { fresh: Fresh { entry, ctime: stat.ctime, ino: stat.ino }, status });
        }
        self.hand_on_untouched()?;
        let known = known.parent().is_some();
        // Extended attributes and content come from the open file.
        let attributes = self.attributes(&stat, &path, Vec::new());
        let detail = Detail::File { size: 0, content: Content::Inline(Vec::new()), holes: Vec::<Hole>::new() };
        let entry = Entry { name: Some(name.clone()), attributes, detail, extra: Extra::default() };
        let fresh = Fresh { entry, ctime: stat.ctime, ino: stat.ino };
        if self.job_bytes > 0 && self.job_bytes + stat.size > UNIT_BYTES {
            self.close_unit()?;
        }
        self.job_bytes += stat.size.max(1);
        self.jobs.push(FileJob { dir, name, stat });
        self.held.push(Step::File { fresh, path, known });
        if self.job_bytes >= UNIT_BYTES || self.jobs.len() >= UNIT_FILES_MAX || self.held.len() >= UNIT_STEPS_MAX {
            self.close_unit()?;
        }
        Ok(())
    }

    /// Hands on a step, after untouched entries and those that wait for their unit.
    fn step(&mut self, step: Step) -> Result<(), Gone> {
        self.hand_on_untouched()?;
        self.put(step)
    }

    fn put(&mut self, step: Step) -> Result<(), Gone> {
        if self.jobs.is_empty() {
            return self.steps.send(step).map_err(|_| Gone);
        }
        self.held.push(step);
        if self.held.len() >= UNIT_STEPS_MAX { self.close_unit() } else { Ok(()) }
    }

    /// Gives the gathered files to the readers and the held steps to the sequencer.
    fn close_unit(&mut self) -> Result<(), Gone> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let ordinal = self.next_unit;
        self.next_unit += 1;
        self.job_bytes = 0;
        let (unit, batches) = Unit::new(ordinal, std::mem::take(&mut self.jobs));
        self.steps.send(Step::Unit { ordinal, batches }).map_err(|_| Gone)?;
        self.units.send(unit).map_err(|_| Gone)?;
        for step in self.held.drain(..) {
            self.steps.send(step).map_err(|_| Gone)?;
        }
        Ok(())
    }
}
