//! Parity objects: what a damaged pack can be made whole from (SPEC §7.4).
//!
//! A header, the hash of each shard of the pack and of each parity shard, the parity shards, and a
//! digest. The hashes say which shards are damaged, which is half of what mending takes. This module
//! owns the layout; the code itself is computed in `repo::parity`.

use super::bytes::Fields;
use super::record::DIGEST_BYTES;
use super::{DecodeError, Result};
use crate::id::PackId;

/// First bytes of a parity object.
pub const PARITY_MAGIC: [u8; 8] = *b"ESKPAR\x00\x01";
/// The one code there is: Reed-Solomon over 16-bit symbols, SPEC §7.4.
pub const CODE_REED_SOLOMON: u8 = 1;
/// Bytes before the hashes.
pub const PARITY_HEADER_BYTES: usize = 56;
/// Most shards of a pack, and most parity shards.
pub const SHARDS_MAX: u32 = 4096;
/// A shard's length is a multiple of this.
pub const SHARD_STEP: u32 = 64;
/// Most bytes of a parity object, so that it can be read whole.
pub const PARITY_BYTES_MAX: u64 = 128 << 20;

const WHAT: &str = "parity object";
const HASH_BYTES: usize = 32;

/// How a pack is cut into shards, and how many there are beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The pack.
    pub pack: PackId,
    /// Its stored length.
    pub pack_bytes: u32,
    /// Length of a shard; the pack's last one is filled up with zeros.
    pub shard_bytes: u32,
    /// How many parity shards there are: so many damaged shards can be made whole.
    pub parity_shards: u32,
}

impl Layout {
    /// How many shards the pack is cut into.
    pub fn data_shards(&self) -> u32 {
        self.pack_bytes.div_ceil(self.shard_bytes)
    }

    /// The length of the parity object.
    pub fn stored_bytes(&self) -> u64 {
        let hashes = (u64::from(self.data_shards()) + u64::from(self.parity_shards)) * HASH_BYTES as u64;
        let shards = u64::from(self.parity_shards) * u64::from(self.shard_bytes);
        (PARITY_HEADER_BYTES + DIGEST_BYTES) as u64 + hashes + shards
    }

    fn check(&self) -> Result<()> {
        let refuse = |detail: &str| Err(DecodeError::malformed(WHAT, detail));
        if self.shard_bytes == 0 || !self.shard_bytes.is_multiple_of(SHARD_STEP) {
            return refuse("the length of its shards is no multiple of 64");
        }
        if self.pack_bytes == 0 || self.data_shards() > SHARDS_MAX {
            return refuse("the pack has no shards, or too many");
        }
        if self.parity_shards == 0 || self.parity_shards > SHARDS_MAX || self.stored_bytes() > PARITY_BYTES_MAX {
            return refuse("it has no parity shards, or too many");
        }
        Ok(())
    }
}

/// A parity object as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parity<'a> {
    /// How the pack is cut.
    pub layout: Layout,
    /// The hash of each shard of the pack, then of each parity shard.
    pub hashes: Vec<[u8; HASH_BYTES]>,
    /// The parity shards, one after another.
    pub shards: &'a [u8],
}

impl<'a> Parity<'a> {
    /// The stored form, digest included. The parts must fit the layout.
    pub fn encode(&self) -> Vec<u8> {
        let layout = &self.layout;
        let mut out = Vec::with_capacity(usize::try_from(layout.stored_bytes()).unwrap_or(0));
        out.extend_from_slice(&PARITY_MAGIC);
        out.extend_from_slice(&[CODE_REED_SOLOMON, 0, 0, 0]);
        for number in [layout.shard_bytes, layout.parity_shards, layout.pack_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(layout.pack.as_bytes());
        out.extend_from_slice(self.hashes.as_flattened());
        out.extend_from_slice(self.shards);
        let digest = blake3::hash(&out);
        out.extend_from_slice(digest.as_bytes());
        assert_eq!(out.len() as u64, layout.stored_bytes(), "the parts of a parity object fit its layout");
        out
    }

    /// Reads a whole parity object.
    pub fn decode(stored: &'a [u8]) -> Result<Self> {
        let parity = Self::decode_damaged(stored)?;
        let (bytes, digest) = stored.split_last_chunk::<DIGEST_BYTES>().expect("it was longer than that");
        match blake3::hash(bytes).as_bytes() == digest {
            true => Ok(parity),
            false => Err(DecodeError::malformed(WHAT, "its digest is not that of its bytes: it is damaged or torn")),
        }
    }

    /// Reads one whose bytes may be damaged, as long as its header makes sense. Every shard has a hash, and
    /// what is mended has its name: nothing wrong comes of it.
    pub fn decode_damaged(stored: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::new(WHAT, stored);
        fields.expect(&PARITY_MAGIC, "it does not begin with the magic of a parity object")?;
        let code = fields.u8()?;
        if code != CODE_REED_SOLOMON {
            return Err(DecodeError::unsupported(WHAT, format!("code {code}")));
        }
        fields.expect(&[0; 3], "reserved bytes are not zero")?;
        let (shard_bytes, parity_shards, pack_bytes) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let layout = Layout { pack: PackId::from_bytes(fields.array()?), pack_bytes, shard_bytes, parity_shards };
        layout.check()?;
        let hashes = fields.rows(layout.data_shards() + parity_shards, HASH_BYTES)?;
        let hashes = hashes.map(|hash| hash.try_into().expect("rows have that length")).collect();
        let shards = fields.take(parity_shards as usize * shard_bytes as usize)?;
        fields.take(DIGEST_BYTES)?;
        fields.end()?;
        Ok(Self { layout, hashes, shards })
    }

    /// One parity shard, by its number, if its bytes have the hash that is theirs.
    pub fn parity_shard(&self, number: u32) -> Option<&'a [u8]> {
        let bytes = self.layout.shard_bytes as usize;
        let shard = self.shards.get(number as usize * bytes..)?.get(..bytes)?;
        let hash = self.hashes.get((self.layout.data_shards() + number) as usize)?;
        (blake3::hash(shard).as_bytes() == hash).then_some(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout { pack: PackId::from_bytes([7; 32]), pack_bytes: 150, shard_bytes: 64, parity_shards: 2 }
    }

    #[test]
    fn it_decodes_to_what_was_encoded_and_finds_every_changed_byte() {
        let shards = [[1; 64], [2; 64]].concat();
        let mut hashes = vec![[3; 32]; 3];
        hashes.extend(shards.chunks(64).map(|shard| *blake3::hash(shard).as_bytes()));
        let parity = Parity { layout: layout(), hashes, shards: &shards };
        let stored = parity.encode();
        assert_eq!(Parity::decode(&stored).unwrap(), parity);
        assert_eq!((parity.parity_shard(1), parity.parity_shard(2)), (Some(&[2; 64][..]), None));
        for at in 0..stored.len() {
            let mut bad = stored.clone();
            bad[at] ^= 1;
            assert!(Parity::decode(&bad).is_err() && Parity::decode(&stored[..at]).is_err(), "{at}");
        }
        let mut bad = stored;
        let at = bad.len() - 33;
        bad[at] ^= 1;
        let damaged = Parity::decode_damaged(&bad).unwrap();
        assert!(damaged.parity_shard(0).is_some() && damaged.parity_shard(1).is_none());
    }

    #[test]
    fn a_giant_layout_is_refused_without_allocating() {
        for bad in [
            Layout { shard_bytes: 0, ..layout() },
            Layout { shard_bytes: 65, ..layout() },
            Layout { pack_bytes: 0, ..layout() },
            Layout { pack_bytes: u32::MAX, ..layout() },
            Layout { parity_shards: 0, ..layout() },
            Layout { parity_shards: u32::MAX, ..layout() },
            Layout { pack_bytes: u32::MAX, shard_bytes: !63, parity_shards: 4096, ..layout() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
