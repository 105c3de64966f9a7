//! `config` and key slots: what is read before anything is unlocked (SPEC §4.3, §4.4).

use super::bytes::Fields;
use super::cbor::{Extra, MapReader, MapWriter, Record};
use super::record::DIGEST_BYTES;
use super::{DecodeError, Result};
use crate::id::{RepoId, SlotId};

/// The version of the format this program writes and reads.
pub const FORMAT_VERSION: u64 = 1;

/// Most parity, in percent of a pack.
pub const PARITY_PERCENT_MAX: u32 = 100;
/// A field that may be ignored: who knows nothing of parity adds none, and harms nothing.
const PARITY_KEY: u64 = 64;

/// How content is cut into chunks; frozen at `init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkerSettings {
    /// The chunker: 1 is FastCDC v2020 with a keyed gear table (SPEC §6.1).
    pub algorithm: u64,
    /// Shortest chunk in bytes.
    pub min_bytes: u32,
    /// Average chunk in bytes.
    pub avg_bytes: u32,
    /// Longest chunk in bytes.
    pub max_bytes: u32,
}

/// The repository's frozen description, signed by its root owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The format.
    pub version: u64,
    /// The repository.
    pub repo: RepoId,
    /// When it was made, seconds since 1970.
    pub created_secs: i64,
    /// How content is cut.
    pub chunker: ChunkerSettings,
    /// Named features a reader must know (SPEC §11).
    pub features: Vec<String>,
    /// The root owner's verifying key.
    pub root_verifying: [u8; 32],
    /// How much parity writers add to each pack they make, in percent of it; zero for none.
    pub parity_percent: u32,
    /// Fields from a newer program.
    pub extra: Extra,
}

impl Record for Config {
    const WHAT: &'static str = "config";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.u64(1, self.version);
        map.bytes(2, self.repo.as_bytes());
        map.i64(3, self.created_secs);
        map.u64(4, self.chunker.algorithm);
        map.u64(5, u64::from(self.chunker.min_bytes));
        map.u64(6, u64::from(self.chunker.avg_bytes));
        map.u64(7, u64::from(self.chunker.max_bytes));
        map.list(8, &self.features, |out, feature| super::cbor::push_text(out, feature));
        map.bytes(9, &self.root_verifying);
        map.u64_unless_zero(PARITY_KEY, u64::from(self.parity_percent));
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        let version = map.u64(1)?;
        if version != FORMAT_VERSION {
            return Err(DecodeError::unsupported(Self::WHAT, format!("format version {version}")));
        }
        let config = Self {
            version,
            repo: RepoId::from_bytes(map.array(2)?),
            created_secs: map.i64(3)?,
            chunker: ChunkerSettings {
                algorithm: map.u64(4)?,
                min_bytes: map.u32(5)?,
                avg_bytes: map.u32(6)?,
                max_bytes: map.u32(7)?,
            },
            features: map.list(8, |decoder| Ok(super::cbor::read_text(Self::WHAT, decoder)?.to_owned()))?,
            root_verifying: map.array(9)?,
            parity_percent: u32::try_from(map.u64_or_zero(PARITY_KEY)?).unwrap_or(u32::MAX),
            extra: map.extra()?,
        };
        if config.chunker.algorithm != 1 {
            return Err(DecodeError::unsupported(Self::WHAT, format!("chunker {}", config.chunker.algorithm)));
        }
        if config.parity_percent > PARITY_PERCENT_MAX {
            return Err(DecodeError::malformed(Self::WHAT, "more parity than 100 percent"));
        }
        if let Some(feature) = config.features.first() {
            return Err(DecodeError::unsupported(Self::WHAT, format!("feature `{feature}`")));
        }
        Ok(config)
    }
}

/// The AEAD of a slot: XChaCha20-Poly1305 (SPEC §5.2).
const SUITE: u8 = 1;
/// First bytes of a key slot.
pub const SLOT_MAGIC: [u8; 8] = *b"ESKKEY\x00\x01";
/// The one way a slot turns what a person knows into a key: Argon2id.
pub const KDF_ARGON2ID: u8 = 1;
/// Bytes of a slot's sealed body in clear: the seed and zeros kept for later use.
pub const SLOT_BODY_BYTES: usize = 64;
/// Bytes of that body sealed: with a nonce and a tag.
pub const SLOT_SEALED_BYTES: usize = 24 + SLOT_BODY_BYTES + 16;
/// Bytes of a slot that are bound as associated data: everything before the sealed body.
pub const SLOT_HEADER_BYTES: usize = 88;

/// A key slot before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The AEAD.
    pub suite: u8,
    /// Argon2id memory in KiB.
    pub memory_kib: u32,
    /// Argon2id passes.
    pub passes: u32,
    /// Argon2id lanes.
    pub lanes: u32,
    /// Salt of the password and of the key.
    pub salt: [u8; 32],
    /// Commits to the key.
    pub commitment: [u8; 32],
    /// Nonce, ciphertext and tag: [`SLOT_SEALED_BYTES`] of them.
    pub sealed: Vec<u8>,
}

impl Slot {
    /// What stands before the sealed body.
    pub fn header(&self) -> [u8; SLOT_HEADER_BYTES] {
        let mut out = Vec::with_capacity(SLOT_HEADER_BYTES);
        out.extend_from_slice(&SLOT_MAGIC);
        out.extend_from_slice(&[KDF_ARGON2ID, self.suite, 0, 0]);
        out.extend_from_slice(&self.memory_kib.to_le_bytes());
        out.extend_from_slice(&self.passes.to_le_bytes());
        out.extend_from_slice(&self.lanes.to_le_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.commitment);
        out.try_into().expect("the fields add up to the header")
    }

    /// The stored form, digest included.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.header().to_vec();
        out.extend_from_slice(&self.sealed);
        let digest = blake3::hash(&out);
        out.extend_from_slice(digest.as_bytes());
        out
    }

    /// Reads the stored form.
    pub fn decode(stored: &[u8]) -> Result<Self> {
        const WHAT: &str = "key slot";
        let (bytes, digest) = stored.split_last_chunk::<DIGEST_BYTES>().ok_or(DecodeError::Truncated {
            what: WHAT,
            needed: DIGEST_BYTES as u64,
            found: stored.len() as u64,
        })?;
        if blake3::hash(bytes).as_bytes() != digest {
            return Err(DecodeError::malformed(WHAT, "its digest is not that of its bytes: it is damaged or torn"));
        }
        let mut fields = Fields::new(WHAT, bytes);
        fields.expect(&SLOT_MAGIC, "it does not begin with the magic of a key slot")?;
        let kdf = fields.u8()?;
        if kdf != KDF_ARGON2ID {
            return Err(DecodeError::unsupported(WHAT, format!("key derivation {kdf}")));
        }
        let suite = fields.u8()?;
        if suite != SUITE {
            return Err(DecodeError::unsupported(WHAT, format!("suite {suite}")));
        }
        fields.expect(&[0, 0], "reserved bytes are not zero")?;
        let (memory_kib, passes, lanes) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let salt = fields.array()?;
        let commitment = fields.array()?;
        let sealed = fields.take(SLOT_SEALED_BYTES)?.to_vec();
        fields.end()?;
        Ok(Self { suite, memory_kib, passes, lanes, salt, commitment, sealed })
    }
}

/// The seed in the opened body of a slot. What follows it is kept for later and must be zeros.
pub fn slot_seed(body: &[u8]) -> Result<&[u8; 32]> {
    const WHAT: &str = "key slot";
    let mut fields = Fields::new(WHAT, body);
    let seed = fields.take(32)?.try_into().expect("as many bytes as were asked for");
    fields.expect(&[0; SLOT_BODY_BYTES - 32], "the bytes behind its seed are not zero")?;
    fields.end()?;
    Ok(seed)
}

/// The associated data of a slot's body: the repository, the slot, the root owner, the header.
pub fn slot_aad(repo: &RepoId, slot: &SlotId, root_verifying: &[u8; 32], header: &[u8; SLOT_HEADER_BYTES]) -> Vec<u8> {
    let mut aad = b"esker v1 slot\0".to_vec();
    aad.extend_from_slice(repo.as_bytes());
    aad.extend_from_slice(slot.as_bytes());
    aad.extend_from_slice(root_verifying);
    aad.extend_from_slice(header);
    aad
}

#[cfg(test)]
mod tests {
    use super::super::cbor;
    use super::*;

    fn config() -> Config {
        Config {
            version: 1,
            repo: RepoId::from_bytes([1; 16]),
            created_secs: 5,
            chunker: ChunkerSettings { algorithm: 1, min_bytes: 1024, avg_bytes: 4096, max_bytes: 16384 },
            features: vec![],
            root_verifying: [2; 32],
            parity_percent: 0,
            extra: Extra::default(),
        }
    }

    #[test]
    fn a_config_of_a_newer_program_is_unsupported_not_malformed() {
        let bytes = cbor::encode(&config());
        assert_eq!(cbor::decode::<Config>(&bytes), Ok(config()));
        let with_parity = Config { parity_percent: 5, ..config() };
        assert_eq!(cbor::decode::<Config>(&cbor::encode(&with_parity)), Ok(with_parity));
        let too_much = cbor::encode(&Config { parity_percent: 101, ..config() });
        assert!(matches!(cbor::decode::<Config>(&too_much), Err(DecodeError::Malformed { .. })));
        for newer in [
            Config { version: 2, ..config() },
            Config { features: vec!["erasure-v2".into()], ..config() },
            Config { chunker: ChunkerSettings { algorithm: 2, ..config().chunker }, ..config() },
        ] {
            let result = cbor::decode::<Config>(&cbor::encode(&newer));
            assert!(matches!(result, Err(DecodeError::Unsupported { .. })), "{result:?}");
        }
    }

    #[test]
    fn a_slot_decodes_to_what_was_encoded_and_finds_every_flipped_byte() {
        let slot = Slot {
            suite: 1,
            memory_kib: 65536,
            passes: 3,
            lanes: 4,
            salt: [1; 32],
            commitment: [2; 32],
            sealed: vec![3; 104],
        };
        let bytes = slot.encode();
        assert_eq!(Slot::decode(&bytes), Ok(slot));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Slot::decode(&bad).is_err() && Slot::decode(&bytes[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn a_slot_whose_body_holds_more_than_a_seed_is_refused() {
        let mut body = [0; SLOT_BODY_BYTES];
        body[..32].fill(7);
        assert_eq!(slot_seed(&body), Ok(&[7; 32]));
        for length in 0..body.len() {
            assert!(slot_seed(&body[..length]).is_err(), "{length} bytes");
        }
        assert!(slot_seed(&[0; SLOT_BODY_BYTES + 1]).is_err());
        body[63] = 1;
        assert!(matches!(slot_seed(&body), Err(DecodeError::Malformed { .. })));
    }
}
