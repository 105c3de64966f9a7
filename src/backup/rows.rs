//! Rows of the change record, taken apart no further than is wanted.
//!
//! A backup of a million files that did not change reads a million rows, looks at four numbers of
//! each and writes them again. So a row stays as it was read, and goes into the next record as it is.
//!
//! Row: `tag` and then, of a directory (1) or anything else (2), `ctime secs, ctime nanos, inode, entry
//! in a byte string`; of a directory's end (3) `node, level, files, directories, bytes, incomplete`; of a
//! checkpoint (4) the session; of pieces (5) a byte string. All CBOR, one after the other.

use std::ops::Range;

use minicbor::Decoder;

use crate::format::cbor;
use crate::format::tree::{Attributes, Entry, EntryKind, Piece, Totals, push_piece, read_piece};
use crate::format::{DecodeError, Result};
use crate::id::{ChunkId, SessionId};
use crate::source::stat::{Kind, Stat};
use crate::world::Time;

const WHAT: &str = "change record";

/// Pieces in one row.
const PIECES_MAX: usize = 512;

/// What a directory was when it was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// The root node of its entries.
    pub(super) id: ChunkId,
    pub(super) level: u64,
    pub(super) totals: Totals,
    /// Whether its entries could not all be read.
    pub(super) incomplete: bool,
}

/// One row, in walk order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Row {
    /// A directory begins.
    Enter(Seen),
    /// Anything else.
    Item(Seen),
    /// The directory ends.
    Leave(Left),
    /// What was stored so far was committed by this session.
    Checkpoint(SessionId),
    /// The next pieces of the large file whose row follows; none at all says that those before
    /// are void.
    Pieces(Vec<u8>),
}

/// What a run saw of an entry. The entry is as it stands in the tree, but for what a directory holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// The whole row.
    pub(super) row: Vec<u8>,
    /// Where in it the entry stands.
    entry: Range<usize>,
    /// Its last change of any kind.
    pub(super) ctime: Time,
    /// Its inode.
    pub(super) ino: u64,
}

impl Seen {
    fn entry_bytes(&self) -> &[u8] {
        &self.row[self.entry.clone()]
    }

    /// The name's bytes; `None` for the top directory, and where there is no entry.
    pub(super) fn name(&self) -> Option<&[u8]> {
        let mut decoder = Decoder::new(self.entry_bytes());
        decoder.map().ok()??;
        (decoder.u64().ok()? == 1).then(|| decoder.bytes().ok())?
    }

    /// All of it.
    pub(super) fn entry(&self) -> Result<Entry> {
        cbor::decode(self.entry_bytes())
    }

    /// The fields that tell whether a file was written or given to another owner, if they are
    /// there, and it is neither one of several links nor a file with a list.
    fn look(&self) -> Option<Look<'_>> {
        let bytes = self.entry_bytes();
        let mut decoder = Decoder::new(bytes);
        let mut fields = decoder.map().ok()??;
        let (mut look, mut owners) = (Look { kind: 0, mtime: Time::default(), size: 0, owners: &[] }, 0);
        while fields > 0 {
            fields -= 1;
            let at = decoder.position();
            match decoder.u64().ok()? {
                2 => look.kind = decoder.u64().ok()?,
                3 => {
                    decoder.u64().ok()?;
                    owners = decoder.position();
                }
                8 => {
                    look.owners = bytes.get(owners..at)?;
                    look.mtime.secs = decoder.i64().ok()?;
                }
                9 => look.mtime.nanos = decoder.u32().ok()?,
                11 | 14 => return None,
                12 => look.size = decoder.u64().ok()?,
                1 | 4..=7 | 10 => decoder.skip().ok()?,
                // The pieces, or what no file has.
                _ => break,
            }
        }
        Some(look)
    }

    /// Whether the entry is just as the file system says, not even its attributes written since, and
    /// may be taken as it is. `owners` is what [`owners`] gives for its owner.
    pub(super) fn is_untouched(&self, stat: &Stat, settled_before: Time, owners: &[u8]) -> bool {
        self.ctime == stat.ctime
            && self.ino == stat.ino
            && stat.ctime < settled_before
            && stat.mtime < settled_before
            && stat.nlink == 1
            && self.look().is_some_and(|look| {
                let kind = kind_of(stat.kind);
                kind.is_some_and(|kind| kind.number() == look.kind)
                    && look.mtime == stat.mtime
                    && (stat.kind != Kind::File || look.size == stat.size)
                    && look.owners == owners
            })
    }
}

struct Look<'a> {
    kind: u64,
    mtime: Time,
    size: u64,
    owners: &'a [u8],
}

fn kind_of(kind: Kind) -> Option<EntryKind> {
    Some(match kind {
        Kind::File => EntryKind::File,
        Kind::Symlink => EntryKind::Symlink,
        Kind::Fifo => EntryKind::Fifo,
        Kind::CharDevice => EntryKind::CharDevice,
        Kind::BlockDevice => EntryKind::BlockDevice,
        Kind::Directory | Kind::Socket => return None,
    })
}

/// The part of an entry's encoding that says who owns it.
pub(super) fn owners(attributes: &Attributes) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut map = cbor::MapWriter::new(&mut bytes);
    attributes.encode_owners(&mut map);
    map.end();
    bytes.remove(0);
    bytes
}

pub(super) fn push_seen(out: &mut Vec<u8>, directory: bool, entry: &Entry, ctime: Time, ino: u64) {
    cbor::push_u64(out, if directory { 1 } else { 2 });
    cbor::push_u64(out, ctime.secs.cast_unsigned());
    cbor::push_u64(out, u64::from(ctime.nanos));
    cbor::push_u64(out, ino);
    cbor::push_bytes(out, &cbor::encode(entry));
}

pub(super) fn push_left(out: &mut Vec<u8>, left: &Left) {
    let Left { id, level, totals, incomplete } = left;
    cbor::push_u64(out, 3);
    cbor::push_bytes(out, id.as_bytes());
    for number in [*level, totals.files, totals.directories, totals.bytes, u64::from(*incomplete)] {
        cbor::push_u64(out, number);
    }
}

pub(super) fn push_session(out: &mut Vec<u8>, session: &SessionId) {
    cbor::push_u64(out, 4);
    cbor::push_bytes(out, session.as_bytes());
}

pub(super) fn push_pieces(out: &mut Vec<u8>, pieces: &[u8]) {
    cbor::push_u64(out, 5);
    cbor::push_bytes(out, pieces);
}

/// Pieces on their way into a row.
#[derive(Debug, Default)]
pub(super) struct PiecesRow {
    bytes: Vec<u8>,
    pieces: usize,
}

impl PiecesRow {
    /// Adds a piece; gives the row when it is full.
    pub(super) fn push(&mut self, piece: &Piece) -> Option<Vec<u8>> {
        push_piece(&mut self.bytes, piece);
        self.pieces += 1;
        if self.pieces == PIECES_MAX { self.take() } else { None }
    }

    /// What has not filled a row.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        self.pieces = 0;
        Some(std::mem::take(&mut self.bytes)).filter(|bytes| !bytes.is_empty())
    }
}

/// Takes apart the pieces in a row. Ends after the first that is none.
pub(super) fn pieces_of(row: &[u8]) -> impl Iterator<Item = Result<Piece>> {
    let mut decoder = Decoder::new(row);
    let mut sound = true;
    std::iter::from_fn(move || {
        let piece = (sound && decoder.position() < row.len()).then(|| read_piece(&mut decoder))?;
        sound = piece.is_ok();
        Some(piece)
    })
}

/// Takes apart rows that follow each other. Ends after the first that is none.
pub(super) fn rows_of(rows: &[u8]) -> impl Iterator<Item = Result<Row>> {
    let mut at = 0;
    std::iter::from_fn(move || (at < rows.len()).then(|| Row::read(rows, &mut at).inspect_err(|_| at = rows.len())))
}

impl Row {
    /// Reads the row at `at` and goes on to the next.
    pub(super) fn read(rows: &[u8], at: &mut usize) -> Result<Self> {
        let decoder = &mut Decoder::new(rows);
        decoder.set_position(*at);
        let row = match cbor::read_u64(WHAT, decoder)? {
            tag @ (1 | 2) => {
                let secs = cbor::read_u64(WHAT, decoder)?.cast_signed();
                let nanos = u32::try_from(cbor::read_u64(WHAT, decoder)?).ok().filter(|nanos| *nanos < 1_000_000_000);
                let nanos =
                    nanos.ok_or_else(|| DecodeError::malformed(WHAT, "a second of more than 10^9 nanoseconds"))?;
                let ino = cbor::read_u64(WHAT, decoder)?;
                let length = cbor::read_bytes(WHAT, decoder)?.len();
                let end = decoder.position() - *at;
                let row = rows[*at..decoder.position()].to_vec();
                let seen = Seen { row, entry: end - length..end, ctime: Time { secs, nanos }, ino };
                if tag == 1 { Self::Enter(seen) } else { Self::Item(seen) }
            }
            3 => {
                let id = ChunkId::from_bytes(cbor::read_array(WHAT, decoder)?);
                let mut number = || cbor::read_u64(WHAT, decoder);
                let level = number()?;
                let totals = Totals { files: number()?, directories: number()?, bytes: number()? };
                let incomplete = match number()? {
                    0 => false,
                    1 => true,
                    other => return Err(DecodeError::malformed(WHAT, format!("incomplete is {other}"))),
                };
                Self::Leave(Left { id, level, totals, incomplete })
            }
            4 => Self::Checkpoint(SessionId::from_bytes(cbor::read_array(WHAT, decoder)?)),
            5 => Self::Pieces(cbor::read_bytes(WHAT, decoder)?.to_vec()),
            tag => return Err(DecodeError::unsupported(WHAT, format!("row {tag}"))),
        };
        *at = decoder.position();
        Ok(row)
    }
}

/// Reads the rows in an opened block and writes them again, for [`crate::fuzzing`].
pub(crate) fn rewritten_rows(block: &[u8]) -> Result<Vec<u8>> {
    let mut again = Vec::new();
    for row in rows_of(block) {
        let row = row?;
        // Those who look at a row without taking it apart must bear anything too.
        match &row {
            Row::Enter(seen) | Row::Item(seen) => {
                let _ = (seen.name(), seen.look().map(|look| look.size));
            }
            Row::Pieces(pieces) => pieces_of(pieces).for_each(drop),
            Row::Leave(_) | Row::Checkpoint(_) => {}
        }
        match row {
            Row::Enter(seen) => push_seen(&mut again, true, &seen.entry()?, seen.ctime, seen.ino),
            Row::Item(seen) => push_seen(&mut again, false, &seen.entry()?, seen.ctime, seen.ino),
            Row::Leave(left) => push_left(&mut again, &left),
            Row::Checkpoint(session) => push_session(&mut again, &session),
            Row::Pieces(pieces) => push_pieces(&mut again, &pieces),
        }
    }
    Ok(again)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::cbor::Extra;
    use crate::format::tree::{Content, Detail, Hole, Xattr};
    use crate::id::LinkGroup;
    use crate::path::Name;

    const NOW: Time = Time { secs: 1_700_000_000, nanos: 5 };

    fn entry(attributes: Attributes, detail: Detail) -> Entry {
        Entry { name: Some(Name::new(*b"a").unwrap()), attributes, detail, extra: Extra::default() }
    }

    fn file(size: u64, content: Content) -> Entry {
        let xattrs = vec![Xattr { name: b"user.a".to_vec(), value: vec![7; 300] }];
        let (user, group) = (Some("ada".to_owned()), None);
        let attributes =
            Attributes { mode: 0o644, uid: 1000, gid: 0, user, group, mtime: NOW, xattrs, link_group: None };
        entry(attributes, Detail::File { size, content, holes: vec![Hole { offset: 0, bytes: 1 }] })
    }

    fn seen(entry: &Entry, ctime: Time) -> Seen {
        let mut row = Vec::new();
        push_seen(&mut row, false, entry, ctime, 7);
        match Row::read(&row, &mut 0).unwrap() {
            Row::Item(seen) => seen,
            other => panic!("{other:?}"),
        }
    }

    fn stat(size: u64) -> Stat {
        Stat {
            kind: Kind::File,
            mode: 0o644,
            uid: 1000,
            gid: 0,
            size,
            mtime: NOW,
            ctime: NOW,
            ino: 7,
            dev: 1,
            nlink: 1,
            rdev_major: 0,
            rdev_minor: 0,
            blocks: 8,
        }
    }

    /// A row in a form that no writer gives would be taken for another, or for a moment that is none.
    #[test]
    fn rows_are_written_as_they_were_read_and_what_is_no_row_is_refused() {
        let mut block = Vec::new();
        let fifo = entry(Attributes::default(), Detail::Fifo);
        push_seen(&mut block, false, &fifo, Time { secs: -1, nanos: 999_999_999 }, 7);
        let totals = Totals { files: 1, directories: 2, bytes: 3 };
        push_left(&mut block, &Left { id: ChunkId::from_bytes([1; 32]), level: 0, totals, incomplete: true });
        push_session(&mut block, &SessionId::from_bytes([2; 16]));
        push_pieces(&mut block, &[1, 2, 3]);
        assert_eq!(rewritten_rows(&block), Ok(block.clone()));
        assert!(rewritten_rows(&block[..block.len() - 1]).is_err());
        block[0] = 6;
        assert!(matches!(rewritten_rows(&block), Err(DecodeError::Unsupported { .. })));
        let mut block = Vec::new();
        push_seen(&mut block, false, &fifo, Time { secs: 0, nanos: 1_000_000_000 }, 7);
        assert!(matches!(rewritten_rows(&block), Err(DecodeError::Malformed { .. })));
    }

    /// What is taken as it is must be what the file system says in every respect a snapshot tells of.
    #[test]
    fn an_entry_is_untouched_only_if_nothing_differs() {
        let later = NOW.plus_secs(1);
        let chunk = Piece::Chunk { id: ChunkId::from_bytes([3; 32]), bytes: 10 };
        let kept = file(10, Content::Inline(vec![chunk]));
        let own = owners(&kept.attributes);
        assert_eq!(seen(&kept, NOW).entry().unwrap(), kept);
        assert_eq!(seen(&kept, NOW).name(), Some(&b"a"[..]));
        let untouched = |entry: &Entry, stat: &Stat| seen(entry, NOW).is_untouched(stat, later, &own);
        assert!(untouched(&kept, &stat(10)));
        let empty = file(0, Content::Inline(vec![]));
        let empty =
            Entry { detail: Detail::File { size: 0, content: Content::Inline(vec![]), holes: vec![] }, ..empty };
        assert!(untouched(&empty, &stat(0)));
        // Written, changed, another file, one of two, or just now.
        for changed in [
            stat(11),
            Stat { mtime: later, ..stat(10) },
            Stat { ctime: later, ..stat(10) },
            Stat { ino: 8, ..stat(10) },
            Stat { nlink: 2, ..stat(10) },
            Stat { kind: Kind::Fifo, ..stat(10) },
        ] {
            assert!(!untouched(&kept, &changed), "{changed:?}");
        }
        assert!(!seen(&kept, NOW).is_untouched(&stat(10), NOW, &own));
        // The owner's name is another now.
        let renamed = Attributes { user: Some("eve".to_owned()), ..kept.attributes.clone() };
        assert!(!seen(&kept, NOW).is_untouched(&stat(10), later, &owners(&renamed)));
        // A list's pieces, and links, are for those who look closer.
        let list = file(10, Content::List { id: ChunkId::from_bytes([4; 32]), level: 0 });
        assert!(!untouched(&list, &stat(10)));
        let group = Some(LinkGroup::from_bytes([5; 16]));
        let linked = Entry { attributes: Attributes { link_group: group, ..kept.attributes.clone() }, ..kept.clone() };
        assert!(!untouched(&linked, &stat(10)));
        let link = entry(kept.attributes.clone(), Detail::Symlink { target: b"x".to_vec() });
        assert!(untouched(&link, &Stat { kind: Kind::Symlink, size: 1, ..stat(1) }));
    }

    #[test]
    fn pieces_come_back_from_rows_and_what_is_none_ends_them() {
        let mut row = PiecesRow::default();
        let piece = |n: u32| match n % 3 {
            0 => Piece::Zeros { bytes: 70_000 + u64::from(n) },
            _ => Piece::Chunk { id: ChunkId::from_bytes([n.to_le_bytes()[0]; 32]), bytes: 1 + n },
        };
        let mut rows: Vec<_> = (0..1000).filter_map(|n| row.push(&piece(n))).collect();
        rows.extend(row.take());
        assert_eq!((rows.len(), row.take()), (2, None));
        let back: Vec<_> = rows.iter().flat_map(|row| pieces_of(row)).map(Result::unwrap).collect();
        assert_eq!(back, (0..1000).map(piece).collect::<Vec<_>>());
        let cut = &rows[0][..rows[0].len() - 1];
        assert_eq!(pieces_of(cut).filter(Result::is_err).count(), 1);
    }
}
