//! Local files of sealed blocks, readable up to where a crash cut them off.
//!
//! A backup keeps what it saw and what it has stored on its own machine, so that the next run,
//! after a kill too, need not do it again. Such a file is a cache: one that is missing, damaged
//! or another's means more work, nothing else, and nothing in it is believed without
//! authentication. It is sealed under a key of the credential and bound to what it is for, so no
//! file can stand in for another, nor a block for another block.
//!
//! File: `magic || salt || commitment || block…`, each block `length u32 || nonce || ciphertext ||
//! tag` with the file's subject, the block's ordinal and its mark as associated data.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use crate::crypto::key::SecretKey;
use crate::crypto::seal;
use crate::world::World;

const HEAD_BYTES: usize = 72;
/// The longest block that is read back. One of rows has a quarter of a mebibyte and one row more,
/// of a file with extended attributes or thousands of holes; the longest is the list of packs.
const BLOCK_BYTES_MAX: usize = 1 << 30;

/// Where a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// From the front of the file.
    pub(super) offset: u64,
    pub(super) ordinal: u64,
}

/// What a file is: its magic bytes, the purpose of its key, and what it is about.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// The first bytes of the file.
    pub(super) magic: [u8; 8],
    /// What its key is for.
    pub(super) purpose: &'static str,
    /// What it is about, such as a backup set.
    pub(super) about: Vec<u8>,
}

impl Subject {
    fn aad(&self, ordinal: u64, mark: u8) -> Vec<u8> {
        let mut aad = self.purpose.as_bytes().to_vec();
        aad.push(0);
        aad.extend_from_slice(&self.about);
        aad.extend_from_slice(&ordinal.to_le_bytes());
        aad.push(mark);
        aad
    }
}

pub(super) fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the file is damaged")
}

/// Appends sealed blocks to a file.
pub(super) struct BlockWriter {
    file: File,
    subject: Subject,
    key: SecretKey,
    world: World,
    next: Position,
}

impl BlockWriter {
    /// Begins an empty file.
    pub(super) fn begin(mut file: File, parent_key: &SecretKey, world: &World, subject: Subject) -> io::Result<Self> {
        let salt: [u8; 32] = world.random();
        let key = parent_key.derive_salted(&salt, subject.purpose);
        file.write_all(&[&subject.magic[..], &salt, &key.commitment].concat())?;
        let next = Position { offset: HEAD_BYTES as u64, ordinal: 0 };
        Ok(Self { file, subject, key: key.key, world: world.clone(), next })
    }

    fn seal(&self, ordinal: u64, mark: u8, plain: &[u8]) -> io::Result<Vec<u8>> {
        let nonce = seal::hedged_nonce(&self.world.random(), ordinal, blake3::hash(plain).as_bytes());
        let mut block = vec![0; 4];
        seal::seal_into(&self.key, nonce, &self.subject.aad(ordinal, mark), plain, &mut block);
        let length = u32::try_from(block.len() - 4).map_err(io::Error::other)?;
        block[..4].copy_from_slice(&length.to_le_bytes());
        Ok(block)
    }

    /// Appends a block with a mark of the caller's.
    pub(super) fn push(&mut self, mark: u8, plain: &[u8]) -> io::Result<()> {
        let block = self.seal(self.next.ordinal, mark, plain)?;
        self.file.write_all(&block)?;
        self.next.offset += block.len() as u64;
        self.next.ordinal += 1;
        Ok(())
    }

    /// Where the next block will stand.
    pub(super) fn position(&self) -> Position {
        self.next
    }

    /// Puts another block of the same length in the place of the first.
    pub(super) fn replace_first(&mut self, mark: u8, plain: &[u8]) -> io::Result<()> {
        let block = self.seal(0, mark, plain)?;
        self.file.write_all_at(&block, HEAD_BYTES as u64)
    }
}

/// Reads blocks in order.
pub(super) struct BlockReader {
    file: BufReader<File>,
    subject: Subject,
    key: SecretKey,
    next: Position,
}

impl BlockReader {
    /// Opens a file; fails when it is another's or about something else.
    pub(super) fn open(file: File, parent_key: &SecretKey, subject: Subject) -> io::Result<Self> {
        let mut file = BufReader::new(file);
        let mut head = [0; HEAD_BYTES];
        file.read_exact(&mut head)?;
        let (magic, rest) = head.split_first_chunk::<8>().ok_or_else(broken)?;
        let (salt, commitment) = rest.split_first_chunk::<32>().ok_or_else(broken)?;
        let commitment = commitment.first_chunk::<32>().ok_or_else(broken)?;
        if *magic != subject.magic {
            return Err(broken());
        }
        let key = seal::committed(parent_key.derive_salted(salt, subject.purpose), commitment, subject.purpose);
        let next = Position { offset: HEAD_BYTES as u64, ordinal: 0 };
        Ok(Self { file, key: key.map_err(io::Error::other)?, subject, next })
    }

    /// Where the next block stands.
    pub(super) fn position(&self) -> Position {
        self.next
    }

    /// Goes on with the block that stands there, as a writer or an earlier reading said.
    pub(super) fn seek(&mut self, to: Position) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(to.offset))?;
        self.next = to;
        Ok(())
    }

    /// The next block and its mark, one of `marks`; `None` at the clean end of the file.
    pub(super) fn next(&mut self, marks: &[u8]) -> io::Result<Option<(u8, Vec<u8>)>> {
        let mut length = [0; 4];
        match self.file.read(&mut length)? {
            0 => return Ok(None),
            read => self.file.read_exact(&mut length[read..])?,
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > BLOCK_BYTES_MAX {
            return Err(broken());
        }
        let mut sealed = Vec::new();
        if (&mut self.file).take(length as u64).read_to_end(&mut sealed)? != length {
            return Err(broken());
        }
        for mark in marks {
            let aad = self.subject.aad(self.next.ordinal, *mark);
            if let Ok(plain) = seal::open(&self.key, &aad, &sealed, self.subject.purpose) {
                self.next.offset += 4 + length as u64;
                self.next.ordinal += 1;
                return Ok(Some((*mark, plain)));
            }
        }
        Err(broken())
    }
}

/// Takes the file for this process; false when another that is alive has it. A lock ends with its
/// process, a kill included. Where the file system has no locks the answer is `without_locks`.
pub(super) fn claim(file: &File, without_locks: bool) -> bool {
    match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => true,
        Err(error) => without_locks && error != rustix::io::Errno::WOULDBLOCK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(about: &[u8]) -> Subject {
        Subject { magic: *b"ESKTEST\x01", purpose: "test", about: about.to_vec() }
    }

    fn reopened(file: &File, key: u8, about: &[u8]) -> io::Result<BlockReader> {
        use std::io::Seek;
        let mut file = file.try_clone()?;
        file.rewind()?;
        BlockReader::open(file, &SecretKey::from_bytes(&[key; 32]), subject(about))
    }

    #[test]
    fn blocks_read_back_up_to_the_cut_and_only_for_the_key_and_subject_they_were_written_for() {
        let file = tempfile::tempfile().unwrap();
        let key = SecretKey::from_bytes(&[1; 32]);
        let mut writer =
            BlockWriter::begin(file.try_clone().unwrap(), &key, &World::seeded(1), subject(b"set")).unwrap();
        writer.push(0, b"head").unwrap();
        let rows = writer.position();
        writer.push(0, b"rows").unwrap();
        writer.push(1, b"last").unwrap();
        writer.replace_first(0, b"HEAD").unwrap();
        let mut reader = reopened(&file, 1, b"set").unwrap();
        assert_eq!(reader.next(&[0, 1]).unwrap(), Some((0, b"HEAD".to_vec())));
        assert_eq!(reader.next(&[0, 1]).unwrap(), Some((0, b"rows".to_vec())));
        assert_eq!(reader.next(&[0, 1]).unwrap(), Some((1, b"last".to_vec())));
        assert_eq!(reader.next(&[0, 1]).unwrap(), None);
        reader.seek(rows).unwrap();
        assert_eq!(reader.next(&[0, 1]).unwrap(), Some((0, b"rows".to_vec())));
        reader.seek(Position { ordinal: 0, ..rows }).unwrap();
        assert!(reader.next(&[0, 1]).is_err());
        assert!(reopened(&file, 2, b"set").is_err());
        assert!(reopened(&file, 1, b"other").unwrap().next(&[0, 1]).is_err());
        let length = file.metadata().unwrap().len();
        file.set_len(length - 1).unwrap();
        let mut reader = reopened(&file, 1, b"set").unwrap();
        assert!(reader.next(&[0, 1]).is_ok() && reader.next(&[0, 1]).is_ok());
        assert!(reader.next(&[0, 1]).is_err());
    }
}
