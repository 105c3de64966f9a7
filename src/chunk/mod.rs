//! From a file's bytes to frames ready for sealing, and back (SPEC §6): pure CPU work, no
//! storage, and no keys but the bytes handed in.
//!
//! ```text
//! bytes of a file ─▶ split ─▶ chunks and runs of zeros        (split.rs, which asks cut.rs)
//! new chunks      ─▶ frame ─▶ about 1 MiB of neighbours        (frame.rs)
//! a frame         ─▶ compress ─▶ what is sealed and stored     (compress.rs)
//! ```
//!
//! Where a file is cut depends on its bytes and the repository's key alone: never on how reads
//! were split, on where its holes are, or on what was read before it. `format-spec/vectors`
//! (`cut_*`, `zeros_*`) holds the cuts still for as long as there are repositories.

pub mod compress;
pub mod cut;
pub mod frame;
pub mod pool;
pub mod split;

#[cfg(test)]
mod vectors;
