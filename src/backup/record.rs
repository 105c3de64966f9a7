//! The change record: what the last backup of a set saw, kept on this machine.
//!
//! One file per backup set holds the tree in walk order with what tells whether a file changed
//! (size, mtime, ctime, inode) and the chunks it had. The next run reads it beside its walk and
//! opens only files that differ. It is sealed under a key of the credential, so that a writer,
//! who cannot read the repository's trees, still makes increments.
//!
//! It is a cache: one that is missing, damaged or of another credential means that files are
//! read again, nothing else. Nothing in it is believed without authentication, and a chunk it
//! names is used only after the index was asked for it.
//!
//! File: `magic || salt || commitment || block…`, each block `length u32 || nonce || ciphertext
//! || tag` with its ordinal and whether it is the last as associated data, its text compressed.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use minicbor::Decoder;

use crate::chunk::compress::{Compression, Compressor, Decompressor, Level};
use crate::crypto::key::SecretKey;
use crate::crypto::seal;
use crate::format::cbor::{self, Record};
use crate::format::tree::Entry;
use crate::id::{ChunkId, SessionId};
use crate::path::Name;
use crate::world::{Time, World};

const MAGIC: [u8; 8] = *b"ESKCHG\x00\x01";
const BLOCK_BYTES_TARGET: usize = 256 << 10;
/// The longest block that is read back; one file of a terabyte has a row of 600 MB.
const BLOCK_BYTES_MAX: usize = 1 << 30;
const PURPOSE: &str = "change record";

/// What a run recorded about an entry besides the entry itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// The entry; a file's content is inline, a directory's is not filled in.
    pub(super) entry: Entry,
    /// Its last change of any kind.
    pub(super) ctime: Time,
    /// Its inode.
    pub(super) ino: u64,
}

/// One row, in walk order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Row {
    /// A directory begins.
    Enter(Seen),
    /// Anything else.
    Item(Seen),
    /// The directory ends; the root node it had.
    Leave { id: ChunkId, level: u64 },
}

/// Which run wrote the record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Header {
    /// The snapshot it made.
    pub(super) session: SessionId,
    /// When the run began.
    pub(super) began: Time,
}

impl Row {
    fn encode_into(&self, out: &mut Vec<u8>) {
        let seen = |out: &mut Vec<u8>, tag: u64, seen: &Seen| {
            cbor::push_u64(out, tag);
            cbor::push_u64(out, seen.ctime.secs.cast_unsigned());
            cbor::push_u64(out, u64::from(seen.ctime.nanos));
            cbor::push_u64(out, seen.ino);
            seen.entry.encode_into(out);
        };
        match self {
            Self::Enter(row) => seen(out, 1, row),
            Self::Item(row) => seen(out, 2, row),
            Self::Leave { id, level } => {
                cbor::push_u64(out, 3);
                cbor::push_bytes(out, id.as_bytes());
                cbor::push_u64(out, *level);
            }
        }
    }

    fn decode_from(decoder: &mut Decoder<'_>) -> crate::format::Result<Self> {
        const WHAT: &str = "change record";
        let tag = cbor::read_u64(WHAT, decoder)?;
        if tag == 3 {
            let id = ChunkId::from_bytes(cbor::read_array(WHAT, decoder)?);
            return Ok(Self::Leave { id, level: cbor::read_u64(WHAT, decoder)? });
        }
        let secs = cbor::read_u64(WHAT, decoder)?.cast_signed();
        let nanos = cbor::read_u64(WHAT, decoder)?;
        let ctime = Time { secs, nanos: u32::try_from(nanos).unwrap_or(u32::MAX) };
        let ino = cbor::read_u64(WHAT, decoder)?;
        let row = Seen { entry: Entry::decode_from(decoder)?, ctime, ino };
        Ok(if tag == 1 { Self::Enter(row) } else { Self::Item(row) })
    }
}

/// Writes a record beside the one it will take the place of.
pub(super) struct RecordWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    key: SecretKey,
    world: World,
    compressor: Compressor,
    block: Vec<u8>,
    ordinal: u64,
}

impl RecordWriter {
    pub(super) fn create(path: &Path, parent_key: &SecretKey, world: &World, header: Header) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let temporary = path.with_extension(format!("new-{}", header.session));
        let mut file = File::create(&temporary)?;
        let salt: [u8; 32] = world.random();
        let key = parent_key.derive_salted(&salt, PURPOSE);
        file.write_all(&[&MAGIC[..], &salt, &key.commitment].concat())?;
        let mut writer = Self {
            path: path.to_owned(),
            temporary,
            file,
            key: key.key,
            world: world.clone(),
            compressor: Compressor::without_verification(Level::Number(1)),
            block: Vec::new(),
            ordinal: 0,
        };
        cbor::push_bytes(&mut writer.block, header.session.as_bytes());
        cbor::push_u64(&mut writer.block, header.began.secs.cast_unsigned());
        cbor::push_u64(&mut writer.block, u64::from(header.began.nanos));
        Ok(writer)
    }

    pub(super) fn push(&mut self, row: &Row) -> io::Result<()> {
        row.encode_into(&mut self.block);
        if self.block.len() >= BLOCK_BYTES_TARGET { self.flush(false) } else { Ok(()) }
    }

    fn flush(&mut self, last: bool) -> io::Result<()> {
        let mut text = std::mem::take(&mut self.block);
        let plain_bytes = u32::try_from(text.len()).map_err(io::Error::other)?;
        let nonce = seal::hedged_nonce(&self.world.random(), self.ordinal, blake3::hash(&text).as_bytes());
        let compression = self.compressor.compress_in_place(&mut text).compression();
        let mut plain = plain_bytes.to_le_bytes().to_vec();
        plain.push(compression as u8);
        plain.extend_from_slice(&text);
        let mut sealed = Vec::new();
        seal::seal_into(&self.key, nonce, &block_aad(self.ordinal, last), &plain, &mut sealed);
        let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&sealed)?;
        self.ordinal += 1;
        Ok(())
    }

    /// Puts the record in the place of the last one. Not synced: a record that a power loss
    /// tore does not authenticate, and is a cache anyway.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush(true)?;
        Ok(rustix::fs::rename(&self.temporary, &self.path)?)
    }
}

impl Drop for RecordWriter {
    fn drop(&mut self) {
        // Gone already when it was finished.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn block_aad(ordinal: u64, last: bool) -> Vec<u8> {
    let mut aad = PURPOSE.as_bytes().to_vec();
    aad.extend_from_slice(&ordinal.to_le_bytes());
    aad.push(u8::from(last));
    aad
}

/// Reads a record row by row.
struct RecordReader {
    file: BufReader<File>,
    key: SecretKey,
    block: Vec<u8>,
    at: usize,
    ordinal: u64,
    ended: bool,
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the change record is damaged")
}

impl RecordReader {
    fn open(path: &Path, parent_key: &SecretKey) -> io::Result<(Self, Header)> {
        let mut file = BufReader::new(File::open(path)?);
        let mut head = [0; 72];
        file.read_exact(&mut head)?;
        let (magic, rest) = head.split_first_chunk::<8>().ok_or_else(broken)?;
        let (salt, commitment) = rest.split_first_chunk::<32>().ok_or_else(broken)?;
        let commitment = commitment.first_chunk::<32>().ok_or_else(broken)?;
        if *magic != MAGIC {
            return Err(broken());
        }
        let key = seal::committed(parent_key.derive_salted(salt, PURPOSE), commitment, PURPOSE);
        let key = key.map_err(io::Error::other)?;
        let mut reader = Self { file, key, block: Vec::new(), at: 0, ordinal: 0, ended: false };
        reader.read_block()?;
        let mut decoder = Decoder::new(&reader.block);
        let mut header = || -> crate::format::Result<Header> {
            let session = SessionId::from_bytes(cbor::read_array(PURPOSE, &mut decoder)?);
            let secs = cbor::read_u64(PURPOSE, &mut decoder)?.cast_signed();
            let nanos = u32::try_from(cbor::read_u64(PURPOSE, &mut decoder)?).unwrap_or(0);
            Ok(Header { session, began: Time { secs, nanos } })
        };
        let header = header().map_err(io::Error::other)?;
        reader.at = decoder.position();
        Ok((reader, header))
    }

    fn read_block(&mut self) -> io::Result<()> {
        let mut length = [0; 4];
        self.file.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > BLOCK_BYTES_MAX {
            return Err(broken());
        }
        let mut sealed = Vec::new();
        if (&mut self.file).take(length as u64).read_to_end(&mut sealed)? != length {
            return Err(broken());
        }
        let open = |last| seal::open(&self.key, &block_aad(self.ordinal, last), &sealed, PURPOSE);
        let plain = match open(false) {
            Ok(plain) => plain,
            Err(_) => {
                self.ended = true;
                open(true).map_err(io::Error::other)?
            }
        };
        let (plain_bytes, rest) = plain.split_first_chunk::<4>().ok_or_else(broken)?;
        let (compression, text) = rest.split_first().ok_or_else(broken)?;
        let compression = Compression::from_u8(*compression).ok_or_else(broken)?;
        let plain_bytes = u32::from_le_bytes(*plain_bytes) as usize;
        self.block = Decompressor::new()
            .decompress(text, compression, plain_bytes, BLOCK_BYTES_MAX)
            .map_err(io::Error::other)?;
        self.at = 0;
        self.ordinal += 1;
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<Row>> {
        while self.at == self.block.len() {
            if self.ended {
                return Ok(None);
            }
            self.read_block()?;
        }
        let mut decoder = Decoder::new(&self.block);
        decoder.set_position(self.at);
        let row = Row::decode_from(&mut decoder).map_err(io::Error::other)?;
        self.at = decoder.position();
        Ok(Some(row))
    }
}

/// Follows the walk through the last run's record, which is in the same order.
///
/// A record that turns out to be damaged ends there: everything after is as if it were new.
pub(super) struct Follower {
    reader: Option<RecordReader>,
    header: Option<Header>,
    peeked: Option<Row>,
    /// For each directory the walk is in: whether the record is in it too.
    matched: Vec<bool>,
}

impl Follower {
    /// A follower of nothing: everything is new.
    pub(super) fn none() -> Self {
        Self { reader: None, header: None, peeked: None, matched: Vec::new() }
    }

    /// Opens a record; one that cannot be read is none.
    pub(super) fn open(path: &Path, parent_key: &SecretKey) -> Self {
        match RecordReader::open(path, parent_key) {
            Ok((reader, header)) => {
                Self { reader: Some(reader), header: Some(header), peeked: None, matched: Vec::new() }
            }
            Err(_) => Self::none(),
        }
    }

    /// The run that wrote the record.
    pub(super) fn header(&self) -> Option<Header> {
        self.header
    }

    fn peek(&mut self) -> Option<&Row> {
        if self.peeked.is_none() {
            let next = self.reader.as_mut().map(RecordReader::next);
            match next {
                Some(Ok(Some(row))) => self.peeked = Some(row),
                _ => self.reader = None,
            }
        }
        self.peeked.as_ref()
    }

    fn take(&mut self) -> Option<Row> {
        self.peek();
        self.peeked.take()
    }

    /// Passes rows up to the one of this name in the current directory.
    fn seek(&mut self, name: Option<&Name>) -> bool {
        if self.matched.last() == Some(&false) {
            return false;
        }
        loop {
            let (is_directory, found) = match self.peek() {
                Some(Row::Enter(seen)) => (true, seen.entry.name.as_ref()),
                Some(Row::Item(seen)) => (false, seen.entry.name.as_ref()),
                Some(Row::Leave { .. }) | None => return false,
            };
            match found.cmp(&name) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Greater => return false,
                std::cmp::Ordering::Less => {
                    self.take();
                    if is_directory {
                        self.pass_directory();
                    }
                }
            }
        }
    }

    /// Passes everything to the end of the directory the record is in.
    fn pass_directory(&mut self) -> Option<(ChunkId, u64)> {
        let mut depth = 0;
        while let Some(row) = self.take() {
            match row {
                Row::Enter(_) => depth += 1,
                Row::Item(_) => {}
                Row::Leave { id, level } if depth == 0 => return Some((id, level)),
                Row::Leave { .. } => depth -= 1,
            }
        }
        None
    }

    /// The walk enters a directory; what the last run saw of it, if it was one.
    pub(super) fn enter(&mut self, name: Option<&Name>) -> Option<Seen> {
        let found = self.seek(name) && matches!(self.peek(), Some(Row::Enter(_)));
        self.matched.push(found);
        match found.then(|| self.take()) {
            Some(Some(Row::Enter(seen))) => Some(seen),
            _ => None,
        }
    }

    /// The walk meets anything else; what the last run saw of it, if it was no directory.
    pub(super) fn item(&mut self, name: &Name) -> Option<Seen> {
        if self.seek(Some(name)) && matches!(self.peek(), Some(Row::Item(_))) {
            match self.take() {
                Some(Row::Item(seen)) => return Some(seen),
                _ => return None,
            }
        }
        None
    }

    /// The walk leaves the directory; the root node it had.
    pub(super) fn leave(&mut self) -> Option<(ChunkId, u64)> {
        if self.matched.pop() == Some(true) { self.pass_directory() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::cbor::Extra;
    use crate::format::tree::{Attributes, Detail, Totals};

    fn seen(name: Option<&str>, directory: bool) -> Seen {
        let id = ChunkId::from_bytes([0; 32]);
        let detail = if directory {
            Detail::Directory { id, level: 0, totals: Totals::default(), incomplete: false }
        } else {
            Detail::Fifo
        };
        let name = name.map(|name| Name::new(name.as_bytes()).unwrap());
        let entry = Entry { name, attributes: Attributes::default(), detail, extra: Extra::default() };
        Seen { entry, ctime: Time { secs: -1, nanos: 5 }, ino: 7 }
    }

    fn leave(n: u8) -> Row {
        Row::Leave { id: ChunkId::from_bytes([n; 32]), level: 0 }
    }

    /// `/` with `a/` (`x`), `b`, `c/` (`y`).
    fn rows() -> Vec<Row> {
        vec![
            Row::Enter(seen(None, true)),
            Row::Enter(seen(Some("a"), true)),
            Row::Item(seen(Some("x"), false)),
            leave(1),
            Row::Item(seen(Some("b"), false)),
            Row::Enter(seen(Some("c"), true)),
            Row::Item(seen(Some("y"), false)),
            leave(2),
            leave(3),
        ]
    }

    fn written(dir: &Path) -> (PathBuf, SecretKey, Header) {
        let path = dir.join("record");
        let key = SecretKey::from_bytes([1; 32]);
        let header = Header { session: SessionId::from_bytes([9; 16]), began: Time::from_secs(5) };
        let mut writer = RecordWriter::create(&path, &key, &World::seeded(1), header).unwrap();
        rows().iter().for_each(|row| writer.push(row).unwrap());
        writer.finish().unwrap();
        (path, key, header)
    }

    #[test]
    fn a_record_reads_back_and_only_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key, header) = written(dir.path());
        let (mut reader, found) = RecordReader::open(&path, &key).unwrap();
        assert_eq!(found, header);
        let mut back = Vec::new();
        while let Some(row) = reader.next().unwrap() {
            back.push(row);
        }
        assert_eq!(back, rows());
        assert!(Follower::open(&path, &SecretKey::from_bytes([2; 32])).header().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_walk_that_differs_finds_what_both_have() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key, _) = written(dir.path());
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let mut follower = Follower::open(&path, &key);
        assert!(follower.enter(None).is_some());
        // `a` has vanished, `aa/` is new, `b` is a directory now, `c/` has a new file before `y`.
        assert!(follower.enter(Some(&name("aa"))).is_none());
        assert!(follower.item(&name("x")).is_none());
        assert_eq!(follower.leave(), None);
        assert!(follower.enter(Some(&name("b"))).is_none());
        assert_eq!(follower.leave(), None);
        assert!(follower.enter(Some(&name("c"))).is_some());
        assert!(follower.item(&name("w")).is_none());
        assert!(follower.item(&name("y")).is_some());
        assert_eq!(follower.leave(), Some((ChunkId::from_bytes([2; 32]), 0)));
        assert_eq!(follower.leave(), Some((ChunkId::from_bytes([3; 32]), 0)));
    }

    #[test]
    fn a_damaged_record_is_as_good_as_none_and_never_gives_a_wrong_row() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key, _) = written(dir.path());
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            assert!(Follower::open(&path, &key).enter(None).is_none(), "byte {at}");
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(Follower::open(&path, &key).enter(None).is_none(), "{at} bytes");
        }
    }
}
