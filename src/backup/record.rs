//! The change record: what backups of a set saw, kept on this machine.
//!
//! One file per backup set holds the tree in walk order with what tells whether a file changed
//! (size, mtime, ctime, inode) and the chunks it had. The next run reads it beside its walk and
//! opens only files that differ. A run writes its record from the start; one that was stopped
//! leaves it unfinished, and the next run follows that one as far as it goes, and the last
//! finished one as well: so a file that was read is not read again. A writer, who cannot read the
//! repository's trees, still makes increments.
//!
//! The files are [`super::blocks`]: a cache. A row says what a file was when it was read, which
//! stays true whatever became of that run. What chunks it names is used only if every pack the run
//! relied on may still be relied on (a finished record ends with the list of them), or else after the
//! index was asked for each.
//!
//! The pieces of a large file stand in rows of their own before the file's, a few hundred in each,
//! so that no file is too large: who wants them goes back to where they began. What a row is, is
//! [`super::rows`]' to say.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

use super::blocks::{BlockReader, BlockWriter, Position, Subject, broken, claim};
use super::rows::{Left, Row, push_left, push_pieces, push_seen, push_session};
use super::unchanged::Digest;
use crate::chunk::compress::{Compression, Compressor, Decompressor, Level};
use crate::crypto::key::SecretKey;
use crate::format::tree::Entry;
use crate::id::{ChunkId, PackId, SessionId};
use crate::monitor::{Monitor, Severity};
use crate::repo::session::Reliance;
use crate::world::{Time, World};

const BLOCK_BYTES_TARGET: usize = 256 << 10;
/// The longest block once it is decompressed.
const BLOCK_PLAIN_BYTES_MAX: usize = 1 << 30;
const PURPOSE: &str = "change record";
/// Marks of blocks.
const ROWS: u8 = 0;
const LAST: u8 = 1;
const HEAD: u8 = 2;
const RELIED: u8 = 3;
/// Unfinished records that are followed; older ones are removed.
pub(super) const UNFINISHED_MAX: usize = 8;

/// Where a backup set's records are, and who may read them.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The finished record.
    pub(super) path: PathBuf,
    /// A key only the credential has.
    pub(super) key: SecretKey,
    /// The backup set.
    pub(super) set: [u8; 16],
}

impl Place {
    fn subject(&self) -> Subject {
        Subject { magic: *b"ESKCHG\x00\x03", purpose: PURPOSE, about: self.set.to_vec() }
    }

    /// The name of a file of this set that is of one session.
    pub(super) fn beside(&self, what: &str, session: &SessionId) -> PathBuf {
        self.path.with_extension(format!("{what}-{session}"))
    }

    /// The files of this set whose names say they are such, and of which session.
    pub(super) fn files(&self, what: &str) -> Vec<(PathBuf, SessionId)> {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name().and_then(|name| name.to_str()))
        else {
            return Vec::new();
        };
        let prefix = format!("{name}.{what}-");
        // Without a list there is nothing to follow: more is read again.
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let session = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
                Some((entry.path(), session))
            })
            .collect();
        found.sort();
        found
    }
}

/// Says what it means that this run leaves no record.
pub(super) fn warn_lost(monitor: &Monitor, item: impl Into<String>, error: &dyn std::fmt::Display) {
    monitor.problem(Severity::Warning, item, format!("the next backup will read every file again: {error}"));
}

/// Which run wrote the record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Header {
    /// The session it began with; of a finished run, the snapshot it made.
    pub(super) session: SessionId,
    /// When the run began.
    pub(super) began: Time,
    /// Of a finished run, what the roots held.
    pub(super) chosen: Option<Digest>,
    /// Of a finished run, where it says what it relied on.
    relied_at: Position,
}

const HEADER_BYTES: usize = 77;

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..16].copy_from_slice(self.session.as_bytes());
        bytes[16..24].copy_from_slice(&self.began.secs.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.began.nanos.to_le_bytes());
        if let Some(chosen) = &self.chosen {
            bytes[28] = 1;
            bytes[29..61].copy_from_slice(chosen);
        }
        bytes[61..69].copy_from_slice(&self.relied_at.offset.to_le_bytes());
        bytes[69..].copy_from_slice(&self.relied_at.ordinal.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.try_into().ok()?;
        let (session, rest) = bytes.split_first_chunk::<16>()?;
        let (secs, rest) = rest.split_first_chunk::<8>()?;
        let (nanos, rest) = rest.split_first_chunk::<4>()?;
        let (finished, rest) = rest.split_first()?;
        let (chosen, rest) = rest.split_first_chunk::<32>()?;
        let (offset, ordinal) = rest.split_first_chunk::<8>()?;
        Some(Self {
            session: SessionId::from_bytes(*session),
            began: Time { secs: i64::from_le_bytes(*secs), nanos: u32::from_le_bytes(*nanos) },
            chosen: (*finished == 1).then_some(*chosen),
            relied_at: Position {
                offset: u64::from_le_bytes(*offset),
                ordinal: u64::from_le_bytes(ordinal.try_into().ok()?),
            },
        })
    }
}

/// Writes a run's record. Until it is finished it stands beside the finished one; dropped, it
/// stays there for the next run.
pub(super) struct RecordWriter {
    place: Place,
    temporary: PathBuf,
    blocks: BlockWriter,
    header: Header,
    compressor: Compressor,
    rows: Vec<u8>,
}

impl RecordWriter {
    pub(super) fn create(place: &Place, world: &World, session: SessionId, began: Time) -> io::Result<Self> {
        if let Some(folder) = place.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let temporary = place.beside("new", &session);
        let header = Header { session, began, chosen: None, relied_at: Position { offset: 0, ordinal: 0 } };
        let begin = || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temporary)?;
            claim(&file, true);
            let mut blocks = BlockWriter::begin(file, &place.key, world, place.subject())?;
            blocks.push(HEAD, &header.encode()).map(|()| blocks)
        };
        let blocks = begin().inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })?;
        let compressor = Compressor::without_verification(Level::Number(1));
        Ok(Self { place: place.clone(), temporary, blocks, header, compressor, rows: Vec::new() })
    }

    /// A directory begins.
    pub(super) fn enter(&mut self, entry: &Entry, ctime: Time, ino: u64) -> io::Result<()> {
        push_seen(&mut self.rows, true, entry, ctime, ino);
        self.pushed()
    }

    /// Anything else. The rows of a large file's pieces come before.
    pub(super) fn item(&mut self, entry: &Entry, ctime: Time, ino: u64) -> io::Result<()> {
        push_seen(&mut self.rows, false, entry, ctime, ino);
        self.pushed()
    }

    /// A directory ends.
    pub(super) fn leave(&mut self, left: &Left) -> io::Result<()> {
        push_left(&mut self.rows, left);
        self.pushed()
    }

    /// The next pieces of the large file whose row follows; none says that those before are void.
    pub(super) fn pieces(&mut self, pieces: &[u8]) -> io::Result<()> {
        if pieces.is_empty() {
            push_pieces(&mut self.rows, pieces);
            return self.pushed();
        }
        // In a block of their own, as they are: ids do not compress, and trying takes its time.
        if !self.rows.is_empty() {
            self.flush(ROWS)?;
        }
        push_pieces(&mut self.rows, pieces);
        self.seal(ROWS, self.rows.len(), Compression::Raw)
    }

    /// Rows as an earlier record has them.
    pub(super) fn rows(&mut self, rows: &[u8]) -> io::Result<()> {
        self.rows.extend_from_slice(rows);
        self.pushed()
    }

    fn pushed(&mut self) -> io::Result<()> {
        if self.rows.len() >= BLOCK_BYTES_TARGET { self.flush(ROWS) } else { Ok(()) }
    }

    /// Notes that what was stored so far is committed; the next run learns of it even if this one
    /// is killed at once.
    pub(super) fn checkpoint(&mut self, session: SessionId) -> io::Result<()> {
        push_session(&mut self.rows, &session);
        self.flush(ROWS)
    }

    fn flush(&mut self, mark: u8) -> io::Result<()> {
        let plain_bytes = self.rows.len();
        let compression = self.compressor.compress_in_place(&mut self.rows, 0).compression();
        self.seal(mark, plain_bytes, compression)
    }

    fn seal(&mut self, mark: u8, plain_bytes: usize, compression: Compression) -> io::Result<()> {
        let plain_bytes = u32::try_from(plain_bytes).map_err(io::Error::other)?;
        let mut plain = plain_bytes.to_le_bytes().to_vec();
        plain.push(compression as u8);
        plain.extend_from_slice(&self.rows);
        self.rows.clear();
        self.blocks.push(mark, &plain)
    }

    /// Puts the record of the run that made this snapshot in the place of the last one, and
    /// removes those of stopped runs. Not synced: a record that a power loss tore does not
    /// authenticate, and is a cache anyway.
    pub(super) fn finish(mut self, session: SessionId, chosen: Digest, relied: &Reliance) -> io::Result<()> {
        self.flush(LAST)?;
        let relied_at = self.blocks.position();
        self.blocks.push(RELIED, &encode_reliance(relied))?;
        self.header = Header { session, chosen: Some(chosen), relied_at, ..self.header };
        self.blocks.replace_first(HEAD, &self.header.encode())?;
        rustix::fs::rename(&self.temporary, &self.place.path)?;
        for (path, _) in self.place.files("new") {
            // Those of runs at work are theirs.
            if File::open(&path).is_ok_and(|file| claim(&file, true)) {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(())
    }
}

impl Drop for RecordWriter {
    fn drop(&mut self) {
        // What was seen up to here helps the next run; without it that run does more.
        if !self.rows.is_empty() {
            let _ = self.flush(ROWS);
        }
    }
}

fn encode_reliance(relied: &Reliance) -> Vec<u8> {
    let mut bytes = (relied.packs.len() as u64).to_le_bytes().to_vec();
    relied.packs.iter().for_each(|pack| bytes.extend_from_slice(pack.as_bytes()));
    for (chunk, pack) in &relied.damaged {
        bytes.extend_from_slice(chunk.as_bytes());
        bytes.extend_from_slice(pack.as_bytes());
    }
    bytes
}

fn decode_reliance(bytes: &[u8]) -> Option<Reliance> {
    let (count, rest) = bytes.split_first_chunk::<8>()?;
    let packs_bytes = usize::try_from(u64::from_le_bytes(*count)).ok()?.checked_mul(32)?;
    let (packs, damaged) = rest.split_at_checked(packs_bytes)?;
    let (pairs, []) = damaged.as_chunks::<64>() else { return None };
    let pair = |pair: &[u8; 64]| {
        let (chunk, pack) = pair.split_first_chunk::<32>()?;
        Some((ChunkId::from_bytes(*chunk), PackId::from_bytes(pack.try_into().ok()?)))
    };
    Some(Reliance {
        packs: packs.as_chunks::<32>().0.iter().map(|pack| PackId::from_bytes(*pack)).collect(),
        damaged: pairs.iter().map(pair).collect::<Option<_>>()?,
    })
}

/// Reads a record row by row.
pub(super) struct RecordReader {
    blocks: BlockReader,
    decompressor: Decompressor,
    /// Where the block being read stands, and its rows.
    block: Position,
    rows: Vec<u8>,
    at: usize,
    ended: bool,
}

/// A place between two rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    block: Position,
    at: usize,
}

impl RecordReader {
    pub(super) fn open(place: &Place, file: File) -> io::Result<(Self, Header)> {
        let mut blocks = BlockReader::open(file, &place.key, place.subject())?;
        let head = blocks.next(&[HEAD])?.and_then(|(_, plain)| Header::decode(&plain));
        let (block, decompressor) = (blocks.position(), Decompressor::new());
        Ok((Self { blocks, decompressor, block, rows: Vec::new(), at: 0, ended: false }, head.ok_or_else(broken)?))
    }

    /// What the run relied on, if it finished. Before the first row is read.
    pub(super) fn relied(&mut self, header: &Header) -> io::Result<Reliance> {
        let back = self.blocks.position();
        self.blocks.seek(header.relied_at)?;
        let (_, plain) = self.blocks.next(&[RELIED])?.ok_or_else(broken)?;
        self.blocks.seek(back)?;
        decode_reliance(&plain).ok_or_else(broken)
    }

    /// The place of the next row.
    pub(super) fn mark(&self) -> Mark {
        Mark { block: self.block, at: self.at }
    }

    /// Goes on with the row at that place.
    pub(super) fn go_to(&mut self, mark: Mark) -> io::Result<()> {
        if mark.block != self.block {
            self.blocks.seek(mark.block)?;
            self.read_block()?;
        }
        self.at = mark.at;
        Ok(())
    }

    fn read_block(&mut self) -> io::Result<()> {
        self.block = self.blocks.position();
        let (mark, plain) = self.blocks.next(&[ROWS, LAST])?.ok_or_else(broken)?;
        self.ended = mark == LAST;
        let (plain_bytes, rest) = plain.split_first_chunk::<4>().ok_or_else(broken)?;
        let (compression, text) = rest.split_first().ok_or_else(broken)?;
        let compression = Compression::from_u8(*compression).ok_or_else(broken)?;
        let plain_bytes = u32::from_le_bytes(*plain_bytes) as usize;
        self.decompressor
            .decompress_into(text, compression, plain_bytes, BLOCK_PLAIN_BYTES_MAX, &mut self.rows)
            .map_err(io::Error::other)?;
        self.at = 0;
        Ok(())
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Row>> {
        while self.at == self.rows.len() {
            if self.ended {
                return Ok(None);
            }
            self.read_block()?;
        }
        Row::read(&self.rows, &mut self.at).map(Some).map_err(io::Error::other)
    }
}
