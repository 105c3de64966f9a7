//! The one sealing construction: XChaCha20-Poly1305 under a derived, committed key (SPEC §5.2).
//!
//! A nonce is *hedged*: a keyed hash over fresh randomness, an ordinal and what is sealed, so a
//! machine cloned with equal random state repeats a nonce only for equal content.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};

use super::OpenError;
use super::key::{CommittedKey, KEY_BYTES, SecretKey};
use crate::world::World;

/// The number of the AEAD in headers: XChaCha20-Poly1305. 2 is kept for AES-256-GCM.
pub const SUITE: u8 = 1;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of an authentication tag.
pub const TAG_BYTES: usize = 16;
/// What sealing adds to a text: its nonce before and its tag behind.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;
/// What [`seal_box`] adds: salt, commitment, nonce and tag.
pub const BOX_OVERHEAD_BYTES: usize = 2 * KEY_BYTES + OVERHEAD_BYTES;

/// A nonce over fresh randomness, an ordinal and a digest of what is sealed.
pub fn hedged_nonce(fresh: &[u8; 32], ordinal: u64, content: &[u8; 32]) -> [u8; NONCE_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(fresh);
    hasher.update(b"esker v1 nonce");
    hasher.update(&ordinal.to_le_bytes());
    hasher.update(content);
    let mut nonce = [0; NONCE_BYTES];
    hasher.finalize_xof().fill(&mut nonce);
    nonce
}

/// Appends `nonce || ciphertext || tag` of `plain` to `out`.
pub fn seal_into(key: &SecretKey, nonce: [u8; NONCE_BYTES], aad: &[u8], plain: &[u8], out: &mut Vec<u8>) {
    out.reserve(plain.len() + OVERHEAD_BYTES);
    out.extend_from_slice(&nonce);
    let start = out.len();
    out.extend_from_slice(plain);
    let tag = encrypt(key, nonce, aad, &mut out[start..]);
    out.extend_from_slice(&tag);
}

/// Turns a buffer of [`NONCE_BYTES`] of room and then a text into `nonce || ciphertext || tag`.
///
/// # Panics
///
/// When the buffer is shorter than a nonce.
pub fn seal_in_place(key: &SecretKey, nonce: [u8; NONCE_BYTES], aad: &[u8], buffer: &mut Vec<u8>) {
    let (head, text) = buffer.split_at_mut(NONCE_BYTES);
    head.copy_from_slice(&nonce);
    let tag = encrypt(key, nonce, aad, text);
    buffer.extend_from_slice(&tag);
}

/// Encrypts `text` where it stands and gives its tag.
fn encrypt(key: &SecretKey, nonce: [u8; NONCE_BYTES], aad: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
    XChaCha20Poly1305::new(key.expose().into())
        .encrypt_inout_detached(&XNonce::from(nonce), aad, text.into())
        .expect("the cipher takes up to 256 GiB")
        .into()
}

/// Opens `nonce || ciphertext || tag`. Nothing is released unless all of it is authentic.
pub fn open(key: &SecretKey, aad: &[u8], sealed: &[u8], what: &'static str) -> Result<Vec<u8>, OpenError> {
    let (nonce, text, tag) = split(sealed, what)?;
    let mut plain = text.to_vec();
    decrypt(key, aad, nonce, &mut plain, tag, what)?;
    Ok(plain)
}

/// The same where it lies: gives the part of `sealed` that is plain now. After an error it is as it was.
pub fn open_in_place<'s>(
    key: &SecretKey,
    aad: &[u8],
    sealed: &'s mut [u8],
    what: &'static str,
) -> Result<&'s mut [u8], OpenError> {
    let (&nonce, text, &tag) = split(sealed, what)?;
    let plain = NONCE_BYTES..NONCE_BYTES + text.len();
    let plain = &mut sealed[plain];
    decrypt(key, aad, &nonce, plain, &tag, what)?;
    Ok(plain)
}

type Parts<'s> = (&'s [u8; NONCE_BYTES], &'s [u8], &'s [u8; TAG_BYTES]);

fn split<'s>(sealed: &'s [u8], what: &'static str) -> Result<Parts<'s>, OpenError> {
    let (nonce, rest) = sealed.split_first_chunk().ok_or(OpenError::Truncated(what))?;
    let (text, tag) = rest.split_last_chunk().ok_or(OpenError::Truncated(what))?;
    Ok((nonce, text, tag))
}

fn decrypt(
    key: &SecretKey,
    aad: &[u8],
    nonce: &[u8; NONCE_BYTES],
    text: &mut [u8],
    tag: &[u8; TAG_BYTES],
    what: &'static str,
) -> Result<(), OpenError> {
    XChaCha20Poly1305::new(key.expose().into())
        .decrypt_inout_detached(&XNonce::from(*nonce), aad, text.into(), &(*tag).into())
        .map_err(|_| OpenError::NotAuthentic(what))
}

/// Seals `plain` under a key derived from `parent` and a fresh salt:
/// `salt || commitment || nonce || ciphertext || tag`.
pub fn seal_box(world: &World, parent: &SecretKey, purpose: &str, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let salt: [u8; KEY_BYTES] = world.random();
    let derived = parent.derive_salted(&salt, purpose);
    let nonce = hedged_nonce(&world.random(), 0, blake3::hash(plain).as_bytes());
    let mut out = Vec::with_capacity(plain.len() + BOX_OVERHEAD_BYTES);
    out.extend_from_slice(&salt);
    out.extend_from_slice(&derived.commitment);
    seal_into(&derived.key, nonce, aad, plain, &mut out);
    out
}

/// Opens what [`seal_box`] made.
pub fn open_box(
    parent: &SecretKey,
    purpose: &str,
    aad: &[u8],
    sealed: &[u8],
    what: &'static str,
) -> Result<Vec<u8>, OpenError> {
    let (salt, rest) = sealed.split_first_chunk::<KEY_BYTES>().ok_or(OpenError::Truncated(what))?;
    let (commitment, rest) = rest.split_first_chunk::<KEY_BYTES>().ok_or(OpenError::Truncated(what))?;
    let derived = committed(parent.derive_salted(salt, purpose), commitment, what)?;
    open(&derived, aad, rest, what)
}

/// The key, if the stored commitment is its own.
pub fn committed(
    derived: CommittedKey,
    commitment: &[u8; KEY_BYTES],
    what: &'static str,
) -> Result<SecretKey, OpenError> {
    if derived.matches(commitment) { Ok(derived.key) } else { Err(OpenError::NotAuthentic(what)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed() -> (SecretKey, Vec<u8>) {
        let key = SecretKey::from_bytes(&[9; 32]);
        let sealed = seal_box(&World::seeded(1), &key, "test", b"aad", b"hello");
        (key, sealed)
    }

    #[test]
    fn a_box_opens_with_its_key_purpose_and_associated_data_only() {
        let (key, sealed) = boxed();
        assert_eq!(sealed.len(), 5 + BOX_OVERHEAD_BYTES);
        assert_eq!(open_box(&key, "test", b"aad", &sealed, "box").unwrap(), b"hello");
        let other = SecretKey::from_bytes(&[8; 32]);
        for result in [
            open_box(&other, "test", b"aad", &sealed, "box"),
            open_box(&key, "tesT", b"aad", &sealed, "box"),
            open_box(&key, "test", b"aax", &sealed, "box"),
        ] {
            assert_eq!(result, Err(OpenError::NotAuthentic("box")));
        }
    }

    #[test]
    fn sealing_in_place_gives_the_same_bytes() {
        let (key, nonce) = (SecretKey::from_bytes(&[9; 32]), [3; NONCE_BYTES]);
        for text in [&b""[..], b"some text", &[7; 100_000]] {
            let mut apart = Vec::new();
            seal_into(&key, nonce, b"aad", text, &mut apart);
            let mut in_place = [&[0xee; NONCE_BYTES][..], text].concat();
            seal_in_place(&key, nonce, b"aad", &mut in_place);
            assert_eq!(in_place, apart);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_a_box_is_found() {
        let (key, sealed) = boxed();
        for at in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(open_box(&key, "test", b"aad", &bad, "box").is_err(), "bit {at}");
        }
        for length in 0..sealed.len() {
            assert!(open_box(&key, "test", b"aad", &sealed[..length], "box").is_err(), "{length} bytes");
        }
    }

    #[test]
    fn opening_in_place_gives_what_opening_gives_and_leaves_alone_what_does_not_open() {
        let key = SecretKey::from_bytes(&[9; 32]);
        let mut sealed = Vec::new();
        seal_into(&key, [7; NONCE_BYTES], b"aad", b"hello", &mut sealed);
        let before = sealed.clone();
        for aad in [&b"other"[..], b"aad"] {
            let opened = open(&key, aad, &before, "text");
            assert_eq!(open_in_place(&key, aad, &mut sealed, "text").map(|plain| plain.to_vec()), opened);
            assert_eq!(sealed == before, opened.is_err());
        }
        assert_eq!(
            open_in_place(&key, b"aad", &mut [0; OVERHEAD_BYTES - 1], "text"),
            Err(OpenError::Truncated("text"))
        );
    }

    #[test]
    fn two_seals_of_one_text_differ_and_a_hedged_nonce_depends_on_content() {
        let world = World::seeded(1);
        let key = SecretKey::from_bytes(&[9; 32]);
        assert_ne!(seal_box(&world, &key, "p", b"", b"x"), seal_box(&world, &key, "p", b"", b"x"));
        let same_random = [5; 32];
        assert_ne!(hedged_nonce(&same_random, 0, &[1; 32]), hedged_nonce(&same_random, 0, &[2; 32]));
        assert_ne!(hedged_nonce(&same_random, 0, &[1; 32]), hedged_nonce(&same_random, 1, &[1; 32]));
    }
}
