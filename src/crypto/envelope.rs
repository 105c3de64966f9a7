//! Secrets sealed to public keys: HPKE (RFC 9180) with X-Wing, HKDF-SHA256 and
//! ChaCha20-Poly1305 (SPEC §5.5).
//!
//! Grants seal an epoch's secrets to a credential in base mode; session envelopes seal a session
//! secret to an epoch's public key in PSK mode, so that only who holds the epoch's PSK can make one.

use std::convert::Infallible;
use std::fmt;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, PskBundle, Serializable};
use zeroize::Zeroizing;

use super::OpenError;
use super::key::SecretKey;
use crate::world::World;

/// The number of the KEM in sealed secrets: X-Wing with HKDF-SHA256 and ChaCha20-Poly1305.
pub const KEM_ALGORITHM: u8 = 1;
/// Bytes of an X-Wing public key.
pub const PUBLIC_BYTES: usize = 1216;
/// Bytes of an X-Wing encapsulated key.
pub const ENCAPSULATED_BYTES: usize = 1120;
/// What sealing adds: the algorithm's number, the encapsulated key and a tag.
pub const OVERHEAD_BYTES: usize = 1 + ENCAPSULATED_BYTES + TAG_BYTES;
const TAG_BYTES: usize = 16;

/// A public key that secrets are sealed to.
#[derive(Clone, PartialEq, Eq)]
pub struct KemPublic(Box<[u8; PUBLIC_BYTES]>);

impl KemPublic {
    /// Takes stored bytes; whether they are a usable key shows when sealing to it.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.to_vec().into_boxed_slice().try_into().ok().map(Self)
    }

    /// The stored form.
    pub fn as_bytes(&self) -> &[u8] {
        &*self.0
    }
}

impl fmt::Debug for KemPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemPublic(…)")
    }
}

/// The private key of a pair: the 32-byte X-Wing seed.
#[derive(Clone)]
pub struct KemPrivate(SecretKey);

impl KemPrivate {
    /// The pair of a seed.
    pub fn from_seed(seed: SecretKey) -> Self {
        Self(seed)
    }

    /// The seed, for sealing it to another owner.
    pub fn seed(&self) -> &SecretKey {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> KemPublic {
        let public = XWing::sk_to_pk(&self.key()).to_bytes();
        KemPublic::from_slice(&public).expect("an X-Wing public key has 1216 bytes")
    }

    fn key(&self) -> <XWing as Kem>::PrivateKey {
        <XWing as Kem>::PrivateKey::from_bytes(self.0.expose()).expect("any 32 bytes are an X-Wing seed")
    }
}

impl fmt::Debug for KemPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemPrivate(…)")
    }
}

/// A pre-shared key that both sides must hold.
#[derive(Debug, Clone, Copy)]
pub struct Psk<'a> {
    /// The shared secret.
    pub key: &'a SecretKey,
    /// Which one it is.
    pub id: &'a [u8],
}

/// Seals `secret` to `to`: `algorithm || encapsulated key || ciphertext || tag`.
///
/// `info` binds everything the secret belongs to. Fails when `to` is not a usable key.
pub fn seal_secret(
    world: &World,
    to: &KemPublic,
    psk: Option<Psk<'_>>,
    info: &[u8],
    secret: &[u8],
) -> Result<Vec<u8>, OpenError> {
    let bad_key = |_| OpenError::NotAuthentic("public key");
    let public = <XWing as Kem>::PublicKey::from_bytes(to.as_bytes()).map_err(bad_key)?;
    let mode = match &psk {
        Some(psk) => OpModeS::Psk(bundle(psk)),
        None => OpModeS::Base,
    };
    let (encapsulated, sealed) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &mode,
        &public,
        info,
        secret,
        &[],
        &mut WorldRng(world),
    )
    .map_err(bad_key)?;
    let mut out = Vec::with_capacity(secret.len() + OVERHEAD_BYTES);
    out.push(KEM_ALGORITHM);
    out.extend_from_slice(&encapsulated.to_bytes());
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// Opens what [`seal_secret`] made.
pub fn open_secret(
    with: &KemPrivate,
    psk: Option<Psk<'_>>,
    info: &[u8],
    sealed: &[u8],
    what: &'static str,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (algorithm, rest) = sealed.split_first().ok_or(OpenError::Truncated(what))?;
    if *algorithm != KEM_ALGORITHM {
        return Err(OpenError::Unsupported(what, *algorithm));
    }
    let (encapsulated, text) = rest.split_at_checked(ENCAPSULATED_BYTES).ok_or(OpenError::Truncated(what))?;
    if text.len() < TAG_BYTES {
        return Err(OpenError::Truncated(what));
    }
    let not_authentic = |_| OpenError::NotAuthentic(what);
    let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(encapsulated).map_err(not_authentic)?;
    let mode = match &psk {
        Some(psk) => OpModeR::Psk(bundle(psk)),
        None => OpModeR::Base,
    };
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(&mode, &with.key(), &encapsulated, info, text, &[])
        .map(Zeroizing::new)
        .map_err(not_authentic)
}

fn bundle<'a>(psk: &Psk<'a>) -> PskBundle<'a> {
    PskBundle::new(psk.key.expose(), psk.id).expect("a key and an id, both not empty")
}

/// The world's randomness as the trait the library asks for.
struct WorldRng<'a>(&'a World);

impl TryRng for WorldRng<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.0.random()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.0.random()))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        dst.chunks_mut(32).for_each(|part| part.copy_from_slice(&self.0.random::<32>()[..part.len()]));
        Ok(())
    }
}

impl TryCryptoRng for WorldRng<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_with_the_private_key_psk_and_info_it_was_sealed_for() {
        let world = World::seeded(3);
        let pair = KemPrivate::from_seed(SecretKey::from_bytes(&[1; 32]));
        let psk = SecretKey::from_bytes(&[2; 32]);
        let psk = Psk { key: &psk, id: b"epoch" };
        let sealed = seal_secret(&world, &pair.public(), Some(psk), b"info", b"secret").unwrap();
        assert_eq!(sealed.len(), 6 + OVERHEAD_BYTES);
        assert_eq!(open_secret(&pair, Some(psk), b"info", &sealed, "t").unwrap().as_slice(), b"secret");
        let other = KemPrivate::from_seed(SecretKey::from_bytes(&[3; 32]));
        let wrong_psk = SecretKey::from_bytes(&[4; 32]);
        for result in [
            open_secret(&other, Some(psk), b"info", &sealed, "t"),
            open_secret(&pair, None, b"info", &sealed, "t"),
            open_secret(&pair, Some(Psk { key: &wrong_psk, ..psk }), b"info", &sealed, "t"),
            open_secret(&pair, Some(psk), b"else", &sealed, "t"),
            open_secret(&pair, Some(psk), b"info", &sealed[..sealed.len() - 1], "t"),
        ] {
            assert_eq!(result, Err(OpenError::NotAuthentic("t")));
        }
        for length in [0, 1, ENCAPSULATED_BYTES, OVERHEAD_BYTES - 1] {
            let result = open_secret(&pair, Some(psk), b"info", &sealed[..length], "t");
            assert_eq!(result, Err(OpenError::Truncated("t")), "{length} bytes");
        }
        let mut unknown = sealed.clone();
        unknown[0] = 9;
        assert_eq!(open_secret(&pair, Some(psk), b"info", &unknown, "t"), Err(OpenError::Unsupported("t", 9)));
    }
}
