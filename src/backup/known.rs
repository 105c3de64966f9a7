//! What earlier runs saw of each entry, found beside the walk.
//!
//! The last finished record tells what changed since the parent. Records of runs that were stopped
//! on the way since are followed with it: what they read need not be read again. All are in the
//! walk's order, so none is held in memory.

use std::fs::File;

use super::blocks::claim;
use super::record::{Header, Mark, Place, RecordReader, UNFINISHED_MAX};
use super::rows::{Left, Row, Seen};
use crate::format::tree::Entry;
use crate::id::SessionId;
use crate::path::Name;
use crate::repo::session::{Reliance, Session};
use crate::source::stat::Stat;
use crate::world::Time;

/// Timestamps younger than this when a run began are not trusted by the next: the file may have
/// been written again within the granularity of the clock.
const SETTLED_SECS: i64 = 2;

/// What a run saw of an entry.
pub(super) struct Old {
    pub(super) entry: Entry,
    pub(super) ctime: Time,
    pub(super) ino: u64,
    /// Times before this can be relied on.
    pub(super) settled_before: Time,
    /// Every chunk the run named may still be relied on.
    pub(super) upheld: bool,
    /// Which run.
    run: usize,
}

/// What all followed runs saw of an entry.
#[derive(Default)]
pub(super) struct Known {
    /// What runs that were stopped saw, the newest first, and then the parent's.
    olds: Vec<Old>,
    has_parent: bool,
}

impl Known {
    /// Everything known, the newest first.
    pub(super) fn all(&self) -> &[Old] {
        &self.olds
    }

    /// What the parent's run saw.
    pub(super) fn parent(&self) -> Option<&Old> {
        self.olds.last().filter(|_| self.has_parent)
    }
}

/// Follows the walk through the records of earlier runs.
pub(super) struct Followers {
    /// The newest first, and the parent last.
    runs: Vec<Follower>,
    has_parent: bool,
}

impl Followers {
    /// Followers of nothing: everything is new.
    pub(super) fn none() -> Self {
        Self { runs: Vec::new(), has_parent: false }
    }

    /// Opens all records of a set that are not those of runs at work.
    pub(super) fn open(place: &Place) -> Self {
        let parent = File::open(&place.path).ok().and_then(|file| Follower::open(place, file));
        let parent = parent.filter(|parent| parent.header.chosen.is_some());
        let mut stopped = Vec::new();
        for (path, _) in place.files("new") {
            let Some(file) = File::open(&path).ok().filter(|file| claim(file, true)) else { continue };
            match Follower::open(place, file) {
                Some(follower) => stopped.push((path, follower)),
                None => {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
        stopped.sort_by_key(|(_, follower)| std::cmp::Reverse(follower.header.began));
        for (path, _) in stopped.drain(stopped.len().min(UNFINISHED_MAX)..) {
            let _ = std::fs::remove_file(path);
        }
        let has_parent = parent.is_some();
        Self { runs: stopped.into_iter().map(|(_, follower)| follower).chain(parent).collect(), has_parent }
    }

    /// The finished run that is compared with.
    pub(super) fn parent(&self) -> Option<Header> {
        self.runs.last().filter(|_| self.has_parent).map(|parent| parent.header)
    }

    /// Leaves out the finished run.
    pub(super) fn forget_parent(&mut self) {
        if std::mem::take(&mut self.has_parent) {
            self.runs.pop();
        }
    }

    /// Looks whether all that the finished run relied on may still be relied on.
    pub(super) fn hold_against(&mut self, session: &Session<'_>) {
        if let Some(parent) = self.runs.last_mut().filter(|_| self.has_parent) {
            parent.upheld = parent.relied().is_some_and(|relied| session.upholds(&relied));
        }
    }

    fn known(&mut self, mut ask: impl FnMut(&mut Follower) -> Option<Seen>) -> Known {
        let mut known = Known::default();
        let last = self.runs.len().wrapping_sub(1);
        for (run, follower) in self.runs.iter_mut().enumerate() {
            let Some(seen) = ask(follower) else { continue };
            let Ok(entry) = seen.entry() else { continue };
            let (settled_before, upheld) = (follower.settled_before, follower.upheld);
            known.olds.push(Old { entry, ctime: seen.ctime, ino: seen.ino, settled_before, upheld, run });
            known.has_parent = self.has_parent && run == last;
        }
        known
    }

    /// The walk enters a directory.
    pub(super) fn enter(&mut self, name: Option<&Name>) -> Known {
        self.known(|follower| follower.enter(name))
    }

    /// The walk meets anything else.
    pub(super) fn item(&mut self, name: &Name) -> Known {
        self.known(|follower| follower.item(name))
    }

    /// The parent's row of what the walk meets, if that is just as it was and may be taken as it is:
    /// then nothing else is asked about it. `owners` is what [`super::rows::owners`] gives.
    pub(super) fn untouched(&mut self, name: &Name, stat: &Stat, owners: &[u8]) -> Option<Vec<u8>> {
        let parent = self.runs.last_mut().filter(|parent| self.has_parent && parent.upheld)?;
        parent.untouched(name, stat, owners)
    }

    /// Calls `each` with the pieces of the large file the walk has just met, some hundred at a time,
    /// until it answers false. False when it did, and when they are not there, or not all of them.
    pub(super) fn each_pieces(&mut self, old: &Old, each: impl FnMut(Vec<u8>) -> bool) -> bool {
        self.runs[old.run].each_pieces(each)
    }

    /// The walk leaves the directory; what it was in the parent, and whether all that was in it then,
    /// and nothing else but directories, was taken as it was, so that it may be too.
    pub(super) fn leave(&mut self) -> Option<(Left, bool)> {
        let mut left = None;
        for follower in &mut self.runs {
            left = follower.leave();
        }
        left.filter(|_| self.has_parent)
    }

    /// The checkpoints of runs that were stopped; all of them once the walk is over.
    pub(super) fn checkpoints(&self) -> Vec<SessionId> {
        let stopped = &self.runs[..self.runs.len() - usize::from(self.has_parent)];
        stopped.iter().flat_map(|follower| &follower.checkpoints).copied().collect()
    }
}

/// A directory the walk is in.
struct Level {
    /// Whether the record is in it too.
    matched: bool,
    /// Whether all that was in it so far came and was taken as it was.
    whole: bool,
}

/// Follows the walk through one run's record, which is in the same order.
///
/// A record that ends early, cut off or damaged, ends there: everything after is as if it were new.
struct Follower {
    reader: Option<RecordReader>,
    header: Header,
    settled_before: Time,
    upheld: bool,
    peeked: Option<Row>,
    /// Where the pieces of the item peeked at begin, and those of the item last taken.
    pieces_peeked: Option<Mark>,
    pieces_taken: Option<Mark>,
    /// The directories the walk is in.
    levels: Vec<Level>,
    /// The checkpoints it has told of so far.
    checkpoints: Vec<SessionId>,
}

impl Follower {
    fn open(place: &Place, file: File) -> Option<Self> {
        // One that cannot be read is none.
        let (reader, header) = RecordReader::open(place, file).ok()?;
        let settled_before = header.began.plus_secs(-SETTLED_SECS);
        Some(Self {
            reader: Some(reader),
            header,
            settled_before,
            upheld: false,
            peeked: None,
            pieces_peeked: None,
            pieces_taken: None,
            levels: Vec::new(),
            checkpoints: Vec::new(),
        })
    }

    fn relied(&mut self) -> Option<Reliance> {
        self.reader.as_mut()?.relied(&self.header).ok()
    }

    fn peek(&mut self) -> Option<&Row> {
        while self.peeked.is_none() {
            let Some(reader) = &mut self.reader else { break };
            let mark = reader.mark();
            match reader.next() {
                Ok(Some(Row::Checkpoint(session))) => self.checkpoints.push(session),
                Ok(Some(Row::Pieces(pieces))) if pieces.is_empty() => self.pieces_peeked = None,
                Ok(Some(Row::Pieces(_))) => drop(self.pieces_peeked.get_or_insert(mark)),
                Ok(Some(row)) => self.peeked = Some(row),
                _ => self.reader = None,
            }
        }
        self.peeked.as_ref()
    }

    fn take(&mut self) -> Option<Row> {
        self.peek();
        self.pieces_taken = self.pieces_peeked.take();
        self.peeked.take()
    }

    fn each_pieces(&mut self, mut each: impl FnMut(Vec<u8>) -> bool) -> bool {
        let (Some(begin), Some(reader)) = (self.pieces_taken, &mut self.reader) else { return false };
        let mut read = || {
            let back = reader.mark();
            reader.go_to(begin)?;
            let whole = loop {
                match reader.next()? {
                    Some(Row::Pieces(pieces)) => {
                        if !each(pieces) {
                            break false;
                        }
                    }
                    Some(Row::Checkpoint(_)) => {}
                    _ => break true,
                }
            };
            reader.go_to(back)?;
            Ok::<_, std::io::Error>(whole)
        };
        let whole = read();
        if whole.is_err() {
            self.reader = None;
        }
        whole.unwrap_or(false)
    }

    /// Passes rows up to the one of this name in the current directory.
    fn seek(&mut self, name: Option<&Name>) -> bool {
        if self.levels.last().is_some_and(|level| !level.matched) {
            return false;
        }
        let name = name.map(Name::as_bytes);
        loop {
            let (is_directory, found) = match self.peek() {
                Some(Row::Enter(seen)) => (true, seen.name()),
                Some(Row::Item(seen)) => (false, seen.name()),
                Some(Row::Leave(_) | Row::Checkpoint(_) | Row::Pieces(_)) | None => return false,
            };
            match found.cmp(&name) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Greater => return false,
                std::cmp::Ordering::Less => {
                    self.take();
                    if is_directory {
                        self.pass_directory();
                    }
                    self.levels.iter_mut().last().into_iter().for_each(|level| level.whole = false);
                }
            }
        }
    }

    /// Passes everything to the end of the directory the record is in; what it was, and whether there
    /// was nothing to pass.
    fn pass_directory(&mut self) -> Option<(Left, bool)> {
        let (mut depth, mut at_end) = (0, true);
        while let Some(row) = self.take() {
            match row {
                Row::Enter(_) => depth += 1,
                Row::Item(_) | Row::Checkpoint(_) | Row::Pieces(_) => {}
                Row::Leave(left) if depth == 0 => return Some((left, at_end)),
                Row::Leave(_) => depth -= 1,
            }
            at_end = false;
        }
        None
    }

    /// The walk enters a directory; what the run saw of it, if it was one.
    fn enter(&mut self, name: Option<&Name>) -> Option<Seen> {
        let matched = self.seek(name) && matches!(self.peek(), Some(Row::Enter(_)));
        self.levels.push(Level { matched, whole: true });
        match matched.then(|| self.take()) {
            Some(Some(Row::Enter(seen))) => Some(seen),
            _ => None,
        }
    }

    /// The walk meets anything else; what the run saw of it, if it was no directory.
    fn item(&mut self, name: &Name) -> Option<Seen> {
        // What is looked at closer may come out as something else, or not at all.
        self.levels.iter_mut().last().into_iter().for_each(|level| level.whole = false);
        if self.seek(Some(name)) && matches!(self.peek(), Some(Row::Item(_))) {
            match self.take() {
                Some(Row::Item(seen)) => return Some(seen),
                _ => return None,
            }
        }
        None
    }

    fn untouched(&mut self, name: &Name, stat: &Stat, owners: &[u8]) -> Option<Vec<u8>> {
        let settled_before = self.settled_before;
        if !self.seek(Some(name)) {
            return None;
        }
        match self.peek() {
            Some(Row::Item(seen)) if seen.is_untouched(stat, settled_before, owners) => {}
            _ => return None,
        }
        match self.take() {
            Some(Row::Item(seen)) => Some(seen.row),
            _ => None,
        }
    }

    /// The walk leaves the directory; what it was, and whether every row of it was taken as it was.
    fn leave(&mut self) -> Option<(Left, bool)> {
        let level = self.levels.pop().filter(|level| level.matched);
        let left = level.and_then(|level| {
            let (left, at_end) = self.pass_directory()?;
            Some((left, level.whole && at_end && self.upheld))
        });
        if self.levels.is_empty() {
            // What it still tells of checkpoints is wanted all the same.
            while self.take().is_some() {}
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::record::RecordWriter;
    use super::*;
    use crate::crypto::key::SecretKey;
    use crate::format::cbor::Extra;
    use crate::format::tree::{Attributes, Detail, Totals};
    use crate::id::{ChunkId, PackId};
    use crate::source::stat::Kind;
    use crate::world::World;

    /// A row of a directory, of anything else, and of a directory's end, as written.
    enum Made {
        Enter(Option<&'static str>),
        Item(&'static str),
        Leave(u8),
        Pieces(Vec<u8>),
    }

    const CTIME: Time = Time { secs: -1, nanos: 5 };

    impl Made {
        fn write(&self, writer: &mut RecordWriter) {
            let entry = |name: Option<&str>, detail| {
                let name = name.map(|name| Name::new(name.as_bytes()).unwrap());
                Entry { name, attributes: Attributes::default(), detail, extra: Extra::default() }
            };
            match self {
                Made::Enter(name) => {
                    let id = ChunkId::from_bytes([0; 32]);
                    let detail = Detail::Directory { id, level: 0, totals: Totals::default(), incomplete: false };
                    writer.enter(&entry(*name, detail), CTIME, 7)
                }
                Made::Item(name) => writer.item(&entry(Some(name), Detail::Fifo), CTIME, 7),
                Made::Leave(n) => writer.leave(&left(*n)),
                Made::Pieces(pieces) => writer.pieces(pieces),
            }
            .unwrap();
        }
    }

    fn left(n: u8) -> Left {
        Left { id: ChunkId::from_bytes([n; 32]), level: 0, totals: Totals::default(), incomplete: false }
    }

    /// `/` with `a/` (`x`), `b`, `c/` (`y`).
    fn rows() -> Vec<Made> {
        vec![
            Made::Enter(None),
            Made::Enter(Some("a")),
            Made::Item("x"),
            Made::Leave(1),
            Made::Item("b"),
            Made::Enter(Some("c")),
            Made::Item("y"),
            Made::Leave(2),
            Made::Leave(3),
        ]
    }

    fn place(dir: &Path, key: u8, set: u8) -> Place {
        Place { path: dir.join("record"), key: SecretKey::from_bytes(&[key; 32]), set: [set; 16] }
    }

    fn session(n: u8) -> SessionId {
        SessionId::from_bytes([n; 16])
    }

    fn relied() -> Reliance {
        let damaged = [(ChunkId::from_bytes([6; 32]), PackId::from_bytes([5; 32]))].into();
        Reliance { packs: vec![PackId::from_bytes([4; 32]), PackId::from_bytes([5; 32])], damaged }
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    /// A run that saw the first `count` rows and then finished, or was stopped.
    fn run(place: &Place, n: u8, count: usize, finished: bool) {
        let began = Time::from_secs(i64::from(n) * 100);
        let mut writer = RecordWriter::create(place, &World::seeded(u64::from(n)), session(n), began).unwrap();
        rows()[..count].iter().for_each(|row| row.write(&mut writer));
        if finished {
            writer.finish(session(n + 100), [n; 32], &relied()).unwrap();
        }
    }

    #[test]
    fn a_record_reads_back_and_only_with_its_key_and_for_its_set() {
        let dir = tempfile::tempdir().unwrap();
        run(&place(dir.path(), 1, 1), 9, rows().len(), true);
        let file = || File::open(dir.path().join("record")).unwrap();
        let (mut reader, found) = RecordReader::open(&place(dir.path(), 1, 1), file()).unwrap();
        assert_eq!((found.session, found.chosen, found.began), (session(109), Some([9; 32]), Time::from_secs(900)));
        assert_eq!(reader.relied(&found).unwrap(), relied());
        let mut names = String::new();
        while let Some(row) = reader.next().unwrap() {
            match row {
                Row::Enter(seen) | Row::Item(seen) => {
                    assert_eq!((seen.ctime, seen.ino), (CTIME, 7));
                    names += seen.name().map_or("/", |name| std::str::from_utf8(name).unwrap());
                }
                Row::Leave(left) => names += &format!("{}", left.id.as_bytes()[0]),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(names, "/ax1bcy23");
        assert!(RecordReader::open(&place(dir.path(), 2, 1), file()).is_err());
        assert!(RecordReader::open(&place(dir.path(), 1, 2), file()).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_walk_that_differs_finds_what_both_have() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), 1, 1);
        run(&place, 9, rows().len(), true);
        let mut known = Followers::open(&place);
        let enter = |known: &mut Followers, text: &str| known.enter(Some(&name(text))).parent().is_some();
        assert!(known.enter(None).parent().is_some());
        // `a` has vanished, `aa/` is new, `b` is a directory now, `c/` has a new file before `y`.
        assert!(!enter(&mut known, "aa"));
        assert!(known.item(&name("x")).parent().is_none());
        assert_eq!(known.leave(), None);
        assert!(!enter(&mut known, "b"));
        assert_eq!(known.leave(), None);
        assert!(enter(&mut known, "c"));
        assert!(known.item(&name("w")).parent().is_none());
        assert!(known.item(&name("y")).parent().is_some());
        assert_eq!(known.leave(), Some((left(2), false)));
        assert_eq!(known.leave(), Some((left(3), false)));
    }

    /// A directory is taken as it was only if it holds what it held, no more and no less.
    #[test]
    fn a_directory_is_whole_if_every_row_of_it_was_taken_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), 1, 1);
        run(&place, 9, rows().len(), true);
        let stat = Stat {
            kind: Kind::Fifo,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            ctime: CTIME,
            ino: 7,
            dev: 1,
            nlink: 1,
            rdev_major: 0,
            rdev_minor: 0,
            blocks: 0,
        };
        // What is met but looked at closer, such as something that cannot be read any more, counts too.
        for (odd, met) in [("", false), ("x", false), ("b", false), ("y", false), ("x", true), ("b", true)] {
            let mut known = Followers::open(&place);
            known.runs[0].upheld = true;
            let meet = |known: &mut Followers, item: &str| {
                if item != odd {
                    assert!(known.untouched(&name(item), &stat, &[]).is_some());
                } else if met {
                    assert!(known.item(&name(item)).parent().is_some());
                }
            };
            known.enter(None);
            known.enter(Some(&name("a")));
            meet(&mut known, "x");
            assert_eq!(known.leave(), Some((left(1), odd != "x")));
            meet(&mut known, "b");
            known.enter(Some(&name("c")));
            meet(&mut known, "y");
            assert_eq!(known.leave(), Some((left(2), odd != "y")));
            // What is missing from a directory below is not missing from this one.
            assert_eq!(known.leave(), Some((left(3), odd != "b")));
        }
        // A directory that is gone, and a record that is not upheld.
        let mut known = Followers::open(&place);
        known.runs[0].upheld = true;
        known.enter(None);
        assert_eq!(known.leave(), Some((left(3), false)));
        let mut known = Followers::open(&place);
        known.enter(None);
        known.enter(Some(&name("a")));
        assert!(known.untouched(&name("x"), &stat, &[]).is_none());
    }

    #[test]
    fn runs_that_were_stopped_are_followed_as_far_as_they_went_and_forgotten_once_one_finishes() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), 1, 1);
        run(&place, 1, rows().len(), true);
        {
            let mut writer = RecordWriter::create(&place, &World::seeded(2), session(2), Time::from_secs(200)).unwrap();
            rows()[..3].iter().for_each(|row| row.write(&mut writer));
            writer.checkpoint(session(77)).unwrap();
            // A run at work is not followed.
            assert_eq!(Followers::open(&place).runs.len(), 1);
        }
        run(&place, 3, 5, false);
        let mut known = Followers::open(&place);
        assert_eq!(known.parent().map(|header| header.session), Some(session(101)));
        known.enter(None);
        known.enter(Some(&name("a")));
        let began =
            |known: &Known| known.all().iter().map(|old| old.settled_before.secs + SETTLED_SECS).collect::<Vec<_>>();
        assert_eq!(began(&known.item(&name("x"))), [300, 200, 100]);
        assert_eq!(known.leave(), Some((left(1), false)));
        assert_eq!(began(&known.item(&name("b"))), [300, 100]);
        assert_eq!(began(&known.enter(Some(&name("c")))), [100]);
        known.leave();
        known.leave();
        assert_eq!(known.checkpoints(), [session(77)]);
        drop(known);
        run(&place, 4, rows().len(), true);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Pieces of another file, or of one that was read again, would make a file of wrong bytes.
    #[test]
    fn pieces_are_those_of_the_item_that_follows_unless_they_were_void() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), 1, 1);
        let mut writer = RecordWriter::create(&place, &World::seeded(1), session(1), Time::from_secs(100)).unwrap();
        let pieces = |n: u8| Made::Pieces(vec![n; 200_000]);
        let mut rows = vec![Made::Enter(None), pieces(1), Made::Pieces(Vec::new()), pieces(2), pieces(3)];
        rows.extend([Made::Item("a"), Made::Item("b"), pieces(4), Made::Item("c"), pieces(5), Made::Leave(1)]);
        rows.iter().for_each(|row| row.write(&mut writer));
        writer.finish(session(2), [0; 32], &relied()).unwrap();
        let mut known = Followers::open(&place);
        known.enter(None);
        for (item, expected) in [("a", Some(vec![2, 3])), ("b", None), ("c", Some(vec![4]))] {
            let old = known.item(&name(item)).olds.pop().unwrap();
            // Twice: once to look for them, once to hand them on.
            for _ in 0..2 {
                let mut found = Vec::new();
                let whole = known.each_pieces(&old, |pieces| {
                    found.push(pieces[0]);
                    true
                });
                assert_eq!(whole.then_some(found), expected, "{item}");
            }
        }
        assert_eq!(known.leave(), Some((left(1), false)));
    }

    #[test]
    fn a_damaged_record_is_as_good_as_none_and_never_gives_a_wrong_row() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), 1, 1);
        run(&place, 9, rows().len(), true);
        let good = std::fs::read(&place.path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            for bytes in [&bad, &good[..at]] {
                std::fs::write(&place.path, bytes).unwrap();
                let mut known = Followers::open(&place);
                let relied = known.runs.last_mut().and_then(Follower::relied);
                assert!(relied.is_none() || known.enter(None).parent().is_none(), "{} bytes, {at}", bytes.len());
            }
        }
    }
}
