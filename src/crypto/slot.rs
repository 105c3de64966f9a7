//! Passwords: Argon2id turns one into a key (SPEC §5.6).

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroize;

use super::key::SecretKey;

/// Cost of one guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl KdfCost {
    /// RFC 9106's second choice: 64 MiB, 3 passes, 4 lanes; about 0.15 s.
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
    /// The least that is accepted: OWASP's 19 MiB and 2 passes.
    pub const FLOOR: Self = Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 };
    /// The most that is accepted, so that a hostile slot cannot take all memory or hours.
    pub const CEILING: Self = Self { memory_kib: 1024 * 1024, passes: 16, lanes: 16 };

    /// Whether a stored cost lies between floor and ceiling.
    pub fn is_acceptable(&self) -> bool {
        let between = |value, floor, ceiling| (floor..=ceiling).contains(&value);
        between(self.memory_kib, Self::FLOOR.memory_kib, Self::CEILING.memory_kib)
            && between(self.passes, Self::FLOOR.passes, Self::CEILING.passes)
            && between(self.lanes, Self::FLOOR.lanes, Self::CEILING.lanes)
    }
}

/// The password could not be turned into a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KdfError {
    /// The cost lies outside what is accepted.
    #[error("the slot asks for {0} KiB of memory, {1} passes and {2} lanes, which is not acceptable")]
    Cost(u32, u32, u32),
    /// The memory is not there.
    #[error("cannot allocate {0} KiB of memory for the password")]
    Memory(u32),
    /// The password is too long for the function.
    #[error("the password cannot be used: {0}")]
    Password(String),
}

/// Argon2id of a password. Takes `memory_kib` of memory, freed and wiped before it returns.
pub fn password_key(password: &[u8], salt: &[u8; 32], cost: KdfCost) -> Result<SecretKey, KdfError> {
    if !cost.is_acceptable() {
        return Err(KdfError::Cost(cost.memory_kib, cost.passes, cost.lanes));
    }
    let failed = |error: argon2::Error| KdfError::Password(error.to_string());
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(failed)?;
    let blocks = params.block_count();
    let mut memory: Vec<Block> = Vec::new();
    memory.try_reserve_exact(blocks).map_err(|_| KdfError::Memory(cost.memory_kib))?;
    memory.resize(blocks, Block::default());
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut result = Ok(());
    let key = SecretKey::filled(|key| result = argon2.hash_password_into_with_memory(password, salt, key, &mut memory));
    memory.iter_mut().for_each(Zeroize::zeroize);
    result.map(|()| key).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_cost_is_refused_before_any_memory_is_taken() {
        for cost in [
            KdfCost { memory_kib: u32::MAX, passes: 3, lanes: 4 },
            KdfCost { memory_kib: 8, passes: 3, lanes: 4 },
            KdfCost { memory_kib: 65536, passes: u32::MAX, lanes: 4 },
            KdfCost { memory_kib: 65536, passes: 3, lanes: 0 },
        ] {
            assert!(matches!(password_key(b"x", &[0; 32], cost), Err(KdfError::Cost(..))));
        }
    }

    #[test]
    fn password_salt_and_cost_decide_the_key() {
        let key = |password: &[u8], salt| *password_key(password, &[salt; 32], KdfCost::FLOOR).unwrap().expose();
        assert_eq!(key(b"a", 1), key(b"a", 1));
        assert_ne!(key(b"a", 1), key(b"b", 1));
        assert_ne!(key(b"a", 1), key(b"a", 2));
    }
}
