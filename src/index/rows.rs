//! What the catalog knows of a chunk, a pack and a pack's origin, and their bytes in its files.

use crate::id::ChunkId;
use crate::id::CredentialId;
use crate::id::DescriptionId;
use crate::id::EpochId;
use crate::id::PackId;
use crate::id::SessionId;

/// Bytes of a stored [`ChunkRow`]: one cache line.
pub(super) const CHUNK_ROW_BYTES: usize = 64;

/// Bytes of a stored [`PackRow`].
const PACK_ROW_BYTES: usize = 136;

/// Bytes of a stored [`OriginRow`].
const ORIGIN_ROW_BYTES: usize = 96;

/// Where one copy of a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkRow {
    /// The chunk.
    pub id: ChunkId,
    /// The catalog's number of its pack.
    pub pack: u32,
    /// Which frame of the pack, counted from 0.
    pub frame: u32,
    /// Where the sealed frame begins in the pack.
    pub frame_offset: u32,
    /// How long the sealed frame is.
    pub frame_sealed: u32,
    /// How long the frame is once opened and decompressed.
    pub frame_plain: u32,
    /// Where the chunk begins in the opened frame.
    pub chunk_offset: u32,
    /// How long the chunk is.
    pub chunk_bytes: u32,
    /// What sort of chunk it is.
    pub kind: u8,
    /// How the frame is compressed.
    pub compression: u8,
}

/// A [`ChunkRow`] on its way in, under a pack that has no number yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NewRow {
    /// The chunk.
    pub id: ChunkId,
    /// Which frame of the pack, counted from 0.
    pub frame: u32,
    /// Where the sealed frame begins in the pack.
    pub frame_offset: u32,
    /// How long the sealed frame is.
    pub frame_sealed: u32,
    /// How long the frame is once opened and decompressed.
    pub frame_plain: u32,
    /// Where the chunk begins in the opened frame.
    pub chunk_offset: u32,
    /// How long the chunk is.
    pub chunk_bytes: u32,
    /// What sort of chunk it is.
    pub kind: u8,
    /// How the frame is compressed.
    pub compression: u8,
}

/// A pack as some index segment describes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackRow {
    /// The pack.
    pub id: PackId,
    /// The catalog's number of its origin.
    pub origin: u32,
    /// The salt of its key.
    pub salt: [u8; 32],
    /// The commitment to its key.
    pub commitment: [u8; 32],
    /// How long it is in storage.
    pub stored_bytes: u32,
    /// All of that, and what it holds: another description is another pack to the catalog.
    pub description: DescriptionId,
}

/// The session that made a pack, as some index segment describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrigin {
    /// The session.
    pub session: SessionId,
    /// The epoch whose key its secret is sealed to.
    pub epoch: EpochId,
    /// The credential that ran it.
    pub credential: CredentialId,
    /// Its sealed secret.
    pub envelope: Vec<u8>,
}

/// A [`NewOrigin`] as it is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginRow {
    /// The session.
    pub session: SessionId,
    /// The epoch whose key its secret is sealed to.
    pub epoch: EpochId,
    /// The credential that ran it.
    pub credential: CredentialId,
    /// The BLAKE3 of its sealed secret.
    pub envelope: [u8; 32],
}

impl NewOrigin {
    /// All of it but the envelope.
    pub fn row(&self) -> OriginRow {
        OriginRow {
            session: self.session,
            epoch: self.epoch,
            credential: self.credential,
            envelope: *blake3::hash(&self.envelope).as_bytes(),
        }
    }
}

impl NewRow {
    /// The row once its pack has a number.
    pub fn in_pack(self, pack: u32) -> ChunkRow {
        let NewRow { id, frame, frame_offset, frame_sealed, frame_plain, chunk_offset, chunk_bytes, kind, compression } =
            self;
        ChunkRow {
            id,
            pack,
            frame,
            frame_offset,
            frame_sealed,
            frame_plain,
            chunk_offset,
            chunk_bytes,
            kind,
            compression,
        }
    }
}

impl ChunkRow {
    pub(super) fn encode(&self) -> [u8; CHUNK_ROW_BYTES] {
        let mut row = [0; CHUNK_ROW_BYTES];
        row[..32].copy_from_slice(self.id.as_bytes());
        let numbers = [
            self.pack,
            self.frame,
            self.frame_offset,
            self.frame_sealed,
            self.frame_plain,
            self.chunk_offset,
            self.chunk_bytes,
        ];
        for (place, number) in row[32..60].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        row[60] = self.kind;
        row[61] = self.compression;
        let check = check(&row);
        row[62..].copy_from_slice(&check.to_le_bytes());
        row
    }

    /// `None` when the row is not what was written.
    pub(super) fn decode(row: &[u8; CHUNK_ROW_BYTES]) -> Option<Self> {
        if check(row).to_le_bytes() != row[62..] {
            return None;
        }
        let mut fields = Fields(row);
        Some(Self {
            id: ChunkId::from_bytes(fields.array()?),
            pack: fields.u32()?,
            frame: fields.u32()?,
            frame_offset: fields.u32()?,
            frame_sealed: fields.u32()?,
            frame_plain: fields.u32()?,
            chunk_offset: fields.u32()?,
            chunk_bytes: fields.u32()?,
            kind: row[60],
            compression: row[61],
        })
    }
}

/// A check of a row's first 62 bytes, against decay and not against malice: who can write to the
/// cache can write what they like, and every chunk's id is computed anew when it is read.
fn check(row: &[u8; CHUNK_ROW_BYTES]) -> u16 {
    let mut sum = 0x9e37_79b9_7f4a_7c15_u64;
    for (i, word) in row.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let word = if i == 7 { word & 0x0000_ffff_ffff_ffff } else { word };
        sum = (sum ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        sum ^= sum >> 32;
    }
    let [.., low, high] = sum.wrapping_mul(0xc4ce_b9fe_1a85_ec53).to_le_bytes();
    u16::from_le_bytes([low, high])
}

impl PackRow {
    pub(super) fn encode(&self) -> [u8; PACK_ROW_BYTES] {
        let mut row = [0; PACK_ROW_BYTES];
        row[..32].copy_from_slice(self.id.as_bytes());
        row[32..36].copy_from_slice(&self.origin.to_le_bytes());
        row[36..68].copy_from_slice(&self.salt);
        row[68..100].copy_from_slice(&self.commitment);
        row[100..104].copy_from_slice(&self.stored_bytes.to_le_bytes());
        row[104..].copy_from_slice(self.description.as_bytes());
        row
    }

    pub(super) fn decode(row: &[u8]) -> Option<Self> {
        if row.len() != PACK_ROW_BYTES {
            return None;
        }
        let mut fields = Fields(row);
        Some(Self {
            id: PackId::from_bytes(fields.array()?),
            origin: fields.u32()?,
            salt: fields.array()?,
            commitment: fields.array()?,
            stored_bytes: fields.u32()?,
            description: DescriptionId::from_bytes(fields.array()?),
        })
    }
}

impl OriginRow {
    pub(super) fn encode(&self) -> [u8; ORIGIN_ROW_BYTES] {
        let mut row = [0; ORIGIN_ROW_BYTES];
        row[..16].copy_from_slice(self.session.as_bytes());
        row[16..32].copy_from_slice(self.epoch.as_bytes());
        row[32..64].copy_from_slice(self.credential.as_bytes());
        row[64..].copy_from_slice(&self.envelope);
        row
    }

    pub(super) fn decode(row: &[u8]) -> Option<Self> {
        if row.len() != ORIGIN_ROW_BYTES {
            return None;
        }
        let mut fields = Fields(row);
        Some(Self {
            session: SessionId::from_bytes(fields.array()?),
            epoch: EpochId::from_bytes(fields.array()?),
            credential: CredentialId::from_bytes(fields.array()?),
            envelope: fields.array()?,
        })
    }
}

/// Takes fixed-width fields off the front of some bytes.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> ChunkRow {
        ChunkRow {
            id: ChunkId::from_bytes(*b"an id of thirty-two bytes, exact"),
            pack: 0x0403_0201,
            frame: 5,
            frame_offset: u32::MAX,
            frame_sealed: 7,
            frame_plain: 8,
            chunk_offset: 9,
            chunk_bytes: 10,
            kind: 11,
            compression: 12,
        }
    }

    #[test]
    fn a_chunk_row_is_its_id_then_its_numbers_little_endian() {
        let bytes = row().encode();
        assert_eq!(&bytes[..40], b"an id of thirty-two bytes, exact\x01\x02\x03\x04\x05\0\0\0");
        assert_eq!(bytes[60..62], [11, 12]);
        assert_eq!(ChunkRow::decode(&bytes), Some(row()));
    }

    #[test]
    fn a_chunk_row_with_any_bit_flipped_is_refused() {
        let bytes = row().encode();
        for bit in 0..8 * CHUNK_ROW_BYTES {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ChunkRow::decode(&flipped), None, "bit {bit}");
        }
        assert_eq!(ChunkRow::decode(&[0; CHUNK_ROW_BYTES]), None);
        assert_eq!(ChunkRow::decode(&[0xff; CHUNK_ROW_BYTES]), None);
    }

    #[test]
    fn packs_and_origins_are_read_as_they_were_written_and_refused_when_cut() {
        let (id, description) = (PackId::of(b"pack"), DescriptionId::from_bytes([7; 32]));
        let pack = PackRow { id, origin: 3, salt: [4; 32], commitment: [5; 32], stored_bytes: 6, description };
        assert_eq!(PackRow::decode(&pack.encode()), Some(pack.clone()));
        assert_eq!(PackRow::decode(&pack.encode()[..135]), None);
        let origin = OriginRow {
            session: SessionId::from_bytes([1; 16]),
            epoch: EpochId::from_bytes([2; 16]),
            credential: CredentialId::from_bytes([3; 32]),
            envelope: [4; 32],
        };
        assert_eq!(OriginRow::decode(&origin.encode()), Some(origin));
        assert_eq!(OriginRow::decode(&origin.encode()[..95]), None);
    }
}
