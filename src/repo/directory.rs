//! What a pack says of itself: its end read, its directory opened (SPEC §7.3).

use super::Repository;
use crate::crypto::seal;
use crate::error::{Context, Result};
use crate::format::pack::{Directory, Pack, TRAILER_BYTES, Trailer, directory_aad};
use crate::format::segment::{Origin, PackEntry};
use crate::id::{DescriptionId, PackId};

/// How much of a pack's end is read at first: with the directory, unless that is long. A pack that is
/// no longer costs one read.
const TAIL_BYTES: u64 = 256 << 10;

/// Reads the end of a pack of so many bytes, with all of its directory. `read` reads so many bytes from
/// an offset.
pub fn read_tail(
    stored_bytes: u64,
    tail: &mut Vec<u8>,
    read: impl Fn(u64, u64, &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let bytes = stored_bytes.min(TAIL_BYTES);
    read(stored_bytes - bytes, bytes, tail)?;
    let directory_bytes = Trailer::decode(tail).map_or(0, |trailer| trailer.directory_bytes);
    let needed = TRAILER_BYTES as u64 + u64::from(directory_bytes);
    if (bytes + 1..=stored_bytes).contains(&needed) {
        read(stored_bytes - needed, needed, tail)?;
    }
    Ok(())
}

impl Repository {
    /// The directory of a pack of so many bytes, given its tail, if its parts add up to the pack; and how
    /// many bytes it and the trailer take at the end. [`Kind::Damaged`](crate::error::Kind) if not.
    pub fn open_directory(&self, tail: &[u8], stored_bytes: u64) -> Result<(Trailer, Directory, u64)> {
        let what = || "its directory cannot be read";
        let parts = Pack::decode(tail).context(what)?;
        let trailer = parts.trailer;
        let key = self.keys.index_key(&trailer.epoch, "pack directory").context(what)?;
        let derived = key.derive_salted(&trailer.salt, "pack directory");
        let key = seal::committed(derived, &trailer.directory_commitment, "pack directory").context(what)?;
        let aad = directory_aad(&self.config.repo, &trailer);
        let plain = seal::open(&key, &aad, parts.directory, "pack directory").context(what)?;
        let directory = Directory::decode(&plain).context(what)?;
        let end = (parts.directory.len() + TRAILER_BYTES) as u64;
        directory.covers(stored_bytes.saturating_sub(end)).context(what)?;
        Ok((trailer, directory, end))
    }
}

/// What an index would have to say of a pack that says this of itself.
pub fn described(id: PackId, stored_bytes: u32, trailer: &Trailer, directory: &Directory) -> DescriptionId {
    let Trailer { session, epoch, salt, frame_commitment, .. } = *trailer;
    let origin = Origin { session, epoch, credential: directory.credential, envelope: directory.envelope.clone() };
    let frames = directory.frames.clone();
    PackEntry { id, origin: 0, stored_bytes, salt, frame_commitment, frames }.description(&origin)
}
