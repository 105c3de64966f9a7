//! Secret keys and the one way to derive a key from another (SPEC §5.1).

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::world::World;

/// Bytes of a key, salt or commitment.
pub const KEY_BYTES: usize = 32;

/// A secret of 32 bytes, wiped when dropped, never printed.
///
/// It lies on the heap: what is moved is a pointer, and no copy of the key stays behind in a frame
/// of the stack that nobody wipes.
#[derive(Clone)]
pub struct SecretKey(Box<[u8; KEY_BYTES]>);

impl SecretKey {
    /// A copy of raw bytes; whoever has them wipes them.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self::filled(|key| key.copy_from_slice(bytes))
    }

    /// A new key.
    pub fn random(world: &World) -> Self {
        Self::filled(|key| world.fill(key))
    }

    /// A key that is written where it stays.
    pub(super) fn filled(write: impl FnOnce(&mut [u8; KEY_BYTES])) -> Self {
        let mut key = Self(Box::new([0; KEY_BYTES]));
        write(&mut key.0);
        key
    }

    /// The raw bytes, for writing them where they are sealed.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// A key for one purpose, from nothing but this key.
    pub fn derive(&self, purpose: &str) -> SecretKey {
        self.derive_salted(&[], purpose).key
    }

    /// A key and its commitment for one object with a salt of its own:
    /// `BLAKE3-derive("esker v1 " || purpose, key || salt)`, read to 64 bytes.
    pub fn derive_salted(&self, salt: &[u8], purpose: &str) -> CommittedKey {
        let mut hasher = blake3::Hasher::new_derive_key(&format!("esker v1 {purpose}"));
        hasher.update(self.expose());
        hasher.update(salt);
        let mut output = hasher.finalize_xof();
        let mut commitment = [0; KEY_BYTES];
        let key = Self::filled(|key| output.fill(key));
        output.fill(&mut commitment);
        hasher.zeroize();
        output.zeroize();
        CommittedKey { key, commitment }
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// A derived key with the public value that commits to it.
#[derive(Debug, Clone)]
pub struct CommittedKey {
    /// The key.
    pub key: SecretKey,
    /// Stands in clear in the object's header; another key has another commitment.
    pub commitment: [u8; KEY_BYTES],
}

impl CommittedKey {
    /// Whether a stored commitment is this key's, in constant time.
    pub fn matches(&self, stored: &[u8; KEY_BYTES]) -> bool {
        blake3::Hash::from_bytes(self.commitment) == blake3::Hash::from_bytes(*stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivation_depends_on_key_salt_and_purpose() {
        let base = SecretKey::from_bytes(&[1; 32]).derive_salted(&[2; 32], "a");
        let others = [
            SecretKey::from_bytes(&[3; 32]).derive_salted(&[2; 32], "a"),
            SecretKey::from_bytes(&[1; 32]).derive_salted(&[3; 32], "a"),
            SecretKey::from_bytes(&[1; 32]).derive_salted(&[2; 32], "b"),
        ];
        for other in others {
            assert_ne!(other.key.expose(), base.key.expose());
            assert!(!base.matches(&other.commitment));
        }
        assert!(base.matches(&base.clone().commitment));
        assert_ne!(base.key.expose(), &base.commitment);
    }

    #[test]
    fn a_key_does_not_print() {
        assert_eq!(format!("{:?}", SecretKey::from_bytes(&[7; 32])), "SecretKey(…)");
    }
}
