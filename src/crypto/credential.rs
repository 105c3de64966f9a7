//! A credential: one secret seed, from which a signing key and a sealing key pair follow (SPEC §5.4).

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::OpenError;
use super::envelope::{KemPrivate, KemPublic};
use super::key::SecretKey;
use crate::id::CredentialId;

/// The number of the signature algorithm in headers: Ed25519.
pub const SIGNATURE_ALGORITHM: u8 = 1;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The public half: who a signature is by and whom a secret is sealed to.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicCredential {
    /// Ed25519 verifying key.
    pub verifying: [u8; 32],
    /// X-Wing public key.
    pub sealing: KemPublic,
}

impl PublicCredential {
    /// The id: a hash of both keys.
    pub fn id(&self) -> CredentialId {
        let mut hasher = blake3::Hasher::new_derive_key("esker v1 credential id");
        hasher.update(&self.verifying);
        hasher.update(self.sealing.as_bytes());
        CredentialId::from_bytes(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for PublicCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicCredential({})", self.id().short())
    }
}

/// The secret half.
#[derive(Clone)]
pub struct Credential {
    seed: SecretKey,
    signing: Box<SigningKey>,
    sealing: KemPrivate,
    public: PublicCredential,
    id: CredentialId,
}

impl Credential {
    /// The credential of a seed.
    pub fn from_seed(seed: SecretKey) -> Self {
        let signing = Box::new(SigningKey::from_bytes(seed.derive("credential signing").expose()));
        let sealing = KemPrivate::from_seed(seed.derive("credential sealing"));
        let public = PublicCredential { verifying: signing.verifying_key().to_bytes(), sealing: sealing.public() };
        let id = public.id();
        Self { seed, signing, sealing, public, id }
    }

    /// The seed, for a slot or a key file.
    pub fn seed(&self) -> &SecretKey {
        &self.seed
    }

    /// Who this is.
    pub fn id(&self) -> CredentialId {
        self.id
    }

    /// The public half.
    pub fn public(&self) -> &PublicCredential {
        &self.public
    }

    /// The private key that opens what is sealed to this credential.
    pub fn sealing(&self) -> &KemPrivate {
        &self.sealing
    }

    /// A key for things only this credential reads: its local change records.
    pub fn private_key(&self) -> SecretKey {
        self.seed.derive("credential private")
    }

    /// Signs a message. The caller begins every message with a domain of its own.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.signing.sign(message).to_bytes()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.id.short())
    }
}

/// Checks a signature strictly: no malleable forms, no weak keys.
pub fn verify(
    verifying: &[u8; 32],
    message: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
    what: &'static str,
) -> Result<(), OpenError> {
    VerifyingKey::from_bytes(verifying)
        .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
        .map_err(|_| OpenError::NotAuthentic(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_by_one_credential_over_one_message() {
        let alice = Credential::from_seed(SecretKey::from_bytes(&[1; 32]));
        let bob = Credential::from_seed(SecretKey::from_bytes(&[2; 32]));
        let signature = alice.sign(b"m");
        assert_eq!(verify(&alice.public().verifying, b"m", &signature, "t"), Ok(()));
        assert!(verify(&alice.public().verifying, b"n", &signature, "t").is_err());
        assert!(verify(&bob.public().verifying, b"m", &signature, "t").is_err());
        assert_ne!(alice.id(), bob.id());
        assert_eq!(alice.id(), Credential::from_seed(SecretKey::from_bytes(&[1; 32])).id());
    }
}
