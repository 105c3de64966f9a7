//! Packs: many sealed frames in one stored object (SPEC §7).
//!
//! `frame… || sealed directory || trailer`. The trailer at the end, in clear, says whose key
//! opens the directory; the directory says where the frames lie and which chunks are in them.
//! Sealing is `crypto`'s work; `repo::pack_writer` brings both together.
//!
//! Invariant: frames lie in order from offset 0 and cover the body exactly, with no gap or
//! overlap, so a frame's offset is the sum of the lengths before it.

use super::bytes::Fields;
use super::{DecodeError, Result};
use crate::id::{ChunkId, CredentialId, EpochId, SessionId};

/// First bytes of a pack's trailer.
pub const TRAILER_MAGIC: [u8; 8] = *b"ESKPAK\x00\x01";
/// The AEAD of packs: XChaCha20-Poly1305 (SPEC §5.2).
const SUITE: u8 = 1;
/// Bytes of a trailer.
pub const TRAILER_BYTES: usize = 144;
/// Longest a pack may be.
pub const PACK_BYTES_MAX: u64 = 1 << 30;
/// Longest a chunk of a file may be; nodes may be as long as a frame.
pub const CHUNK_BYTES_MAX: u32 = 16 << 20;
/// Longest plain text a frame may have: bounds what a reader allocates.
pub const FRAME_PLAIN_BYTES_MAX: u32 = 32 << 20;
/// What sealing adds to a text (SPEC §5.2).
pub const SEALING_ADDS_BYTES: u32 = 40;
/// Longest a sealed directory may be.
pub const DIRECTORY_BYTES_MAX: u32 = 128 << 20;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Chunks of files.
    Data = 1,
    /// Directory nodes.
    Directory = 2,
    /// List nodes.
    List = 3,
    /// A copy of the session's sealed snapshot record; no chunks.
    Snapshot = 4,
}

impl FrameKind {
    /// Reads the stored number.
    pub fn from_u8(number: u8) -> Result<Self> {
        match number {
            1 => Ok(Self::Data),
            2 => Ok(Self::Directory),
            3 => Ok(Self::List),
            4 => Ok(Self::Snapshot),
            _ => Err(DecodeError::unsupported("frame kind", number.to_string())),
        }
    }
}

/// A chunk in a frame; its offset is the sum of the lengths before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Its id.
    pub id: ChunkId,
    /// Its plain length, not zero.
    pub bytes: u32,
}

const CHUNK_ROW_BYTES: usize = 36;

/// One frame of a pack: how long it is sealed and plain, and the chunks in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: FrameKind,
    /// How its text is compressed before sealing (SPEC §7.2).
    pub compression: u8,
    /// Length in the pack: nonce, ciphertext and tag.
    pub sealed_bytes: u32,
    /// Length once opened and decompressed.
    pub plain_bytes: u32,
    /// Its chunks, which cover the plain text exactly (none in a snapshot frame).
    pub chunks: Vec<ChunkEntry>,
}

const FRAME_ROW_BYTES: usize = 16;

/// Appends the table of a pack's frames and chunks, as it stands in directories and index segments:
/// `frame count u32 || frame rows || chunk rows`.
pub fn encode_frames(frames: &[Frame], out: &mut Vec<u8>) {
    out.extend_from_slice(&count(frames.len()).to_le_bytes());
    for frame in frames {
        out.extend_from_slice(&[frame.kind as u8, frame.compression, 0, 0]);
        out.extend_from_slice(&frame.sealed_bytes.to_le_bytes());
        out.extend_from_slice(&frame.plain_bytes.to_le_bytes());
        out.extend_from_slice(&count(frame.chunks.len()).to_le_bytes());
    }
    for chunk in frames.iter().flat_map(|frame| &frame.chunks) {
        out.extend_from_slice(chunk.id.as_bytes());
        out.extend_from_slice(&chunk.bytes.to_le_bytes());
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a pack has far fewer than 2^32 frames and chunks")
}

/// Reads what [`encode_frames`] wrote.
pub fn decode_frames(fields: &mut Fields<'_>) -> Result<Vec<Frame>> {
    const WHAT: &str = "frame table";
    let malformed = |detail: String| DecodeError::malformed(WHAT, detail);
    let frame_count = fields.u32()?;
    let mut frames = Vec::new();
    let mut chunk_counts = Vec::new();
    let mut body = 0_u64;
    for row in fields.rows(frame_count, FRAME_ROW_BYTES)? {
        let mut row = Fields::new(WHAT, row);
        let kind = FrameKind::from_u8(row.u8()?)?;
        let compression = row.u8()?;
        row.expect(&[0, 0], "reserved bytes are not zero")?;
        let (sealed_bytes, plain_bytes, chunk_count) = (row.u32()?, row.u32()?, row.u32()?);
        if plain_bytes == 0 || plain_bytes > FRAME_PLAIN_BYTES_MAX {
            return Err(malformed(format!("a frame of {plain_bytes} plain bytes")));
        }
        if (chunk_count == 0) != (kind == FrameKind::Snapshot) {
            return Err(malformed(format!("a {kind:?} frame with {chunk_count} chunks")));
        }
        // Compressed, a text is shorter than what it stands for; raw, as long.
        if sealed_bytes <= SEALING_ADDS_BYTES || sealed_bytes - SEALING_ADDS_BYTES > plain_bytes {
            return Err(malformed(format!("a frame of {plain_bytes} plain bytes in {sealed_bytes} sealed ones")));
        }
        body += u64::from(sealed_bytes);
        frames.push(Frame { kind, compression, sealed_bytes, plain_bytes, chunks: Vec::new() });
        chunk_counts.push(chunk_count);
    }
    if body > PACK_BYTES_MAX {
        return Err(malformed(format!("frames of {body} bytes in all")));
    }
    for (frame, chunk_count) in frames.iter_mut().zip(chunk_counts) {
        let mut plain = 0_u64;
        for row in fields.rows(chunk_count, CHUNK_ROW_BYTES)? {
            let mut row = Fields::new(WHAT, row);
            let id = ChunkId::from_bytes(row.array()?);
            let bytes = row.u32()?;
            if bytes == 0 || (frame.kind == FrameKind::Data && bytes > CHUNK_BYTES_MAX) {
                return Err(malformed(format!("a chunk of {bytes} bytes")));
            }
            plain += u64::from(bytes);
            frame.chunks.push(ChunkEntry { id, bytes });
        }
        if frame.kind != FrameKind::Snapshot && plain != u64::from(frame.plain_bytes) {
            return Err(malformed(format!("chunks of {plain} bytes in a frame of {}", frame.plain_bytes)));
        }
    }
    Ok(frames)
}

/// What the sealed directory of a pack says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Whose session made the pack.
    pub credential: CredentialId,
    /// The session secret, sealed to the epoch's public key.
    pub envelope: Vec<u8>,
    /// The frames.
    pub frames: Vec<Frame>,
    /// Zero bytes at the end that hide the pack's true length.
    pub padding_bytes: u32,
}

impl Directory {
    /// `credential || envelope length u16 || envelope || frame table || zeros`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(self.credential.as_bytes());
        let envelope_bytes = u16::try_from(self.envelope.len()).expect("an envelope has 1,169 bytes");
        out.extend_from_slice(&envelope_bytes.to_le_bytes());
        out.extend_from_slice(&self.envelope);
        encode_frames(&self.frames, &mut out);
        out.resize(out.len() + self.padding_bytes as usize, 0);
        out
    }

    /// Reads a directory.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        const WHAT: &str = "pack directory";
        let mut fields = Fields::new(WHAT, bytes);
        let credential = CredentialId::from_bytes(fields.array()?);
        let envelope_bytes = usize::from(fields.u16()?);
        let envelope = fields.take(envelope_bytes)?.to_vec();
        let frames = decode_frames(&mut fields)?;
        if fields.rest().iter().any(|byte| *byte != 0) {
            return Err(DecodeError::malformed(WHAT, "padding that is not zero"));
        }
        let padding_bytes = u32::try_from(fields.rest().len())
            .map_err(|_| DecodeError::malformed(WHAT, "more than 4 GiB of padding"))?;
        Ok(Self { credential, envelope, frames, padding_bytes })
    }

    /// Refuses a body of another length than the frames have in all.
    pub fn covers(&self, body_bytes: u64) -> Result<()> {
        let total: u64 = self.frames.iter().map(|frame| u64::from(frame.sealed_bytes)).sum();
        if total == body_bytes {
            return Ok(());
        }
        Err(DecodeError::malformed("pack", format!("frames of {total} bytes in all, where there are {body_bytes}")))
    }
}

/// The end of a pack, in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// The AEAD.
    pub suite: u8,
    /// Length of the sealed directory before the trailer.
    pub directory_bytes: u32,
    /// The epoch whose index key opens the directory.
    pub epoch: EpochId,
    /// The session that made the pack.
    pub session: SessionId,
    /// Salt of the pack's keys.
    pub salt: [u8; 32],
    /// Commits to the key of the frames.
    pub frame_commitment: [u8; 32],
    /// Commits to the key of the directory.
    pub directory_commitment: [u8; 32],
}

impl Trailer {
    /// The stored form; magic last.
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.frame_commitment);
        out.extend_from_slice(&self.directory_commitment);
        out.extend_from_slice(self.epoch.as_bytes());
        out.extend_from_slice(self.session.as_bytes());
        out.extend_from_slice(&self.directory_bytes.to_le_bytes());
        out.extend_from_slice(&[self.suite, 0, 0, 0]);
        out.extend_from_slice(&TRAILER_MAGIC);
        out.try_into().expect("the fields add up to the trailer")
    }

    /// Reads the trailer at the end of a pack or of its tail.
    pub fn decode(tail: &[u8]) -> Result<Self> {
        const WHAT: &str = "pack trailer";
        let bytes = tail.last_chunk::<TRAILER_BYTES>().ok_or(DecodeError::Truncated {
            what: WHAT,
            needed: TRAILER_BYTES as u64,
            found: tail.len() as u64,
        })?;
        let mut fields = Fields::new(WHAT, bytes);
        let salt = fields.array()?;
        let frame_commitment = fields.array()?;
        let directory_commitment = fields.array()?;
        let epoch = EpochId::from_bytes(fields.array()?);
        let session = SessionId::from_bytes(fields.array()?);
        let directory_bytes = fields.u32()?;
        let suite = fields.u8()?;
        fields.expect(&[0, 0, 0], "reserved bytes are not zero")?;
        fields.expect(&TRAILER_MAGIC, "it does not end with the magic of a pack")?;
        if suite != SUITE {
            return Err(DecodeError::unsupported(WHAT, format!("suite {suite}")));
        }
        if directory_bytes > DIRECTORY_BYTES_MAX {
            return Err(DecodeError::malformed(WHAT, format!("a directory of {directory_bytes} bytes")));
        }
        Ok(Self { suite, directory_bytes, epoch, session, salt, frame_commitment, directory_commitment })
    }
}

/// A whole pack, taken apart by its trailer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack<'a> {
    /// The sealed frames, one after another.
    pub body: &'a [u8],
    /// The sealed directory.
    pub directory: &'a [u8],
    /// The trailer.
    pub trailer: Trailer,
}

impl<'a> Pack<'a> {
    /// Reads the trailer and says where the other parts lie.
    pub fn decode(stored: &'a [u8]) -> Result<Self> {
        let trailer = Trailer::decode(stored)?;
        let before = &stored[..stored.len() - TRAILER_BYTES];
        let too_long =
            || DecodeError::malformed("pack", format!("a directory of {} bytes in it", trailer.directory_bytes));
        let start = before.len().checked_sub(trailer.directory_bytes as usize).ok_or_else(too_long)?;
        let (body, directory) = before.split_at(start);
        Ok(Self { body, directory, trailer })
    }

    /// The sealed frames, if those of the directory cover the body exactly.
    pub fn frames(&self, directory: &Directory) -> Result<Vec<&'a [u8]>> {
        directory.covers(self.body.len() as u64)?;
        let mut fields = Fields::new("pack", self.body);
        directory.frames.iter().map(|frame| fields.take(frame.sealed_bytes as usize)).collect()
    }
}

/// The associated data of a frame: what it is, where it stands and how long it will be.
pub fn frame_aad(repo: &crate::id::RepoId, ordinal: u32, frame: &Frame) -> Vec<u8> {
    let mut aad = Vec::with_capacity(48);
    aad.extend_from_slice(b"esker v1 frame");
    aad.extend_from_slice(repo.as_bytes());
    aad.extend_from_slice(&ordinal.to_le_bytes());
    aad.extend_from_slice(&[frame.kind as u8, frame.compression]);
    aad.extend_from_slice(&frame.plain_bytes.to_le_bytes());
    aad
}

/// The associated data of a directory: everything the trailer says.
pub fn directory_aad(repo: &crate::id::RepoId, trailer: &Trailer) -> Vec<u8> {
    let mut aad = b"esker v1 pack directory".to_vec();
    aad.extend_from_slice(repo.as_bytes());
    aad.extend_from_slice(&trailer.encode());
    aad
}

/// Padmé (Nikitin et al., PURBs, 2019): the padded length hides all but O(log log n) bits of a
/// length and adds at most 12 %, less the longer it is.
pub fn padme(bytes: u64) -> u64 {
    if bytes < 2 {
        return bytes;
    }
    let exponent = u64::from(bytes.ilog2());
    let kept_bits = u64::from(exponent.ilog2()) + 1;
    let mask = (1_u64 << exponent.saturating_sub(kept_bits)) - 1;
    bytes.saturating_add(mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let chunk = |n: u8, bytes| ChunkEntry { id: ChunkId::from_bytes([n; 32]), bytes };
        vec![
            Frame {
                kind: FrameKind::Data,
                compression: 1,
                sealed_bytes: 90,
                plain_bytes: 300,
                chunks: vec![chunk(1, 100), chunk(2, 200)],
            },
            Frame { kind: FrameKind::Snapshot, compression: 0, sealed_bytes: 50, plain_bytes: 10, chunks: vec![] },
        ]
    }

    fn directory() -> Directory {
        let credential = CredentialId::from_bytes([7; 32]);
        Directory { credential, envelope: vec![1; 40], frames: frames(), padding_bytes: 9 }
    }

    #[test]
    fn a_directory_decodes_to_what_was_encoded_and_no_prefix_of_it_does() {
        let bytes = directory().encode();
        assert_eq!(Directory::decode(&bytes), Ok(directory()));
        for length in 0..bytes.len() - 9 {
            assert!(Directory::decode(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn chunks_must_cover_their_frame() {
        let mut bad = directory();
        bad.frames[0].plain_bytes += 1;
        assert!(Directory::decode(&bad.encode()).is_err());
        let mut bad = directory();
        bad.frames[1].kind = FrameKind::Data;
        assert!(Directory::decode(&bad.encode()).is_err());
    }

    #[test]
    fn a_giant_count_is_refused_without_allocating() {
        let mut bytes = vec![0; 34];
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Directory::decode(&bytes), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn a_trailer_decodes_to_what_was_encoded() {
        let trailer = Trailer {
            suite: 1,
            directory_bytes: 45,
            epoch: EpochId::from_bytes([1; 16]),
            session: SessionId::from_bytes([2; 16]),
            salt: [3; 32],
            frame_commitment: [4; 32],
            directory_commitment: [5; 32],
        };
        let bytes = trailer.encode();
        assert_eq!(Trailer::decode(&bytes), Ok(trailer));
        for at in TRAILER_BYTES - 11..TRAILER_BYTES {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert!(Trailer::decode(&bad).is_err(), "byte {at}");
        }
        assert!(Trailer::decode(&bytes[1..]).is_err());
    }

    #[test]
    fn a_pack_is_taken_apart_only_if_its_parts_add_up() {
        let directory = directory();
        let trailer = Trailer {
            suite: 1,
            directory_bytes: 7,
            epoch: EpochId::from_bytes([1; 16]),
            session: SessionId::from_bytes([2; 16]),
            salt: [3; 32],
            frame_commitment: [4; 32],
            directory_commitment: [5; 32],
        };
        let stored = [&[8; 140][..], &[9; 7], &trailer.encode()].concat();
        let pack = Pack::decode(&stored).unwrap();
        assert_eq!((pack.body.len(), pack.directory), (140, &[9; 7][..]));
        assert_eq!(pack.frames(&directory).unwrap().iter().map(|frame| frame.len()).collect::<Vec<_>>(), [90, 50]);
        assert!(Pack::decode(&stored[1..]).unwrap().frames(&directory).is_err(), "a byte of a frame is missing");
        assert!(Pack::decode(&stored[141..]).is_err(), "the directory is longer than the pack");
        let other = Trailer { suite: 2, ..trailer }.encode();
        assert!(matches!(Pack::decode(&other), Err(DecodeError::Unsupported { .. })));
    }

    #[test]
    fn a_chunk_of_a_file_over_the_limit_is_refused_and_a_node_is_not() {
        let frame = |kind, bytes| {
            let chunks = vec![ChunkEntry { id: ChunkId::from_bytes([1; 32]), bytes }];
            Frame { kind, compression: 1, sealed_bytes: 90, plain_bytes: bytes, chunks }
        };
        let decode = |frame| {
            let mut table = Vec::new();
            encode_frames(&[frame], &mut table);
            decode_frames(&mut Fields::new("frame table", &table))
        };
        assert!(decode(frame(FrameKind::Data, CHUNK_BYTES_MAX)).is_ok());
        assert!(decode(frame(FrameKind::Data, CHUNK_BYTES_MAX + 1)).is_err());
        assert!(decode(frame(FrameKind::Directory, FRAME_PLAIN_BYTES_MAX)).is_ok());
        assert!(decode(frame(FrameKind::Directory, FRAME_PLAIN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn padme_adds_at_most_twelve_percent_and_never_shrinks() {
        for bytes in (0..4000).chain((1..60).map(|shift| (1_u64 << shift) + 1)) {
            let padded = padme(bytes);
            assert!(padded >= bytes && padded as f64 <= bytes as f64 * 1.12 + 1.0, "{bytes} -> {padded}");
            assert_eq!(padme(padded), padded, "{bytes}");
        }
        assert_eq!((padme(9), padme(1000), padme(1_000_000)), (10, 1024, 1_015_808));
    }
}
