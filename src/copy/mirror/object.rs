//! One object: read piece by piece, verified by its name or its digest, and only then seen at the mirror.

use crate::error::{Context, Error, Kind, Result};
use crate::storage::{Listed, Storage, WriteMode};

/// How much of an object is read at once.
const PIECE_BYTES: u64 = 8 << 20;
/// Length of the digest that ends an object whose name is no hash.
const DIGEST_BYTES: u64 = 32;

/// Copies an object. [`Kind::Damaged`], and nothing at the mirror, when it is not what it should be.
pub(super) fn copy(source: &dyn Storage, target: &dyn Storage, object: &Listed, replace: bool) -> Result<()> {
    let stored = || format!("cannot store `{}` at the mirror", object.name);
    // What is there in another length is torn or damaged: nothing whole is ever written over.
    let mode = if replace { WriteMode::Replace } else { WriteMode::CreateNew };
    if object.bytes <= PIECE_BYTES {
        let mut bytes = Vec::new();
        pieces(source, object, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        return target.put(&object.name, &bytes, mode).context(stored);
    }
    let mut writer = target.writer().context(stored)?;
    pieces(source, object, |piece| writer.write(piece).context(stored))?;
    writer.finish(&object.name, mode).context(stored)
}

/// Reads an object and finds out whether it is what it should be.
pub(super) fn check(storage: &dyn Storage, object: &Listed) -> Result<()> {
    pieces(storage, object, |_| Ok(()))
}

/// Reads an object and gives each piece to `each`; an error at the end if it is not what it should be.
fn pieces(storage: &dyn Storage, object: &Listed, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let Listed { name, bytes } = object;
    let damaged = |why: &str| Error::new(Kind::Damaged, format!("`{name}` {why}"));
    let mut hasher = blake3::Hasher::new();
    let hash: Option<blake3::Hash> = match is_named_by_hash(name) {
        true => Some(name.rsplit('/').next().and_then(|hash| blake3::Hash::from_hex(hash).ok()))
            .map(|hash| hash.ok_or_else(|| damaged("has a name that is no hash")))
            .transpose()?,
        false => None,
    };
    let hashed = match hash {
        Some(_) => *bytes,
        None => bytes.checked_sub(DIGEST_BYTES).ok_or_else(|| damaged("is cut off"))?,
    };
    let (mut piece, mut digest, mut offset) = (Vec::new(), Vec::new(), 0);
    while offset < *bytes {
        let length = (*bytes - offset).min(PIECE_BYTES);
        let read = storage.get_range_into(name, offset, length, &mut piece);
        read.context(|| format!("cannot read `{name}` at `{}`", storage.place()))?;
        let until = usize::try_from(hashed.saturating_sub(offset).min(length)).expect("a piece is in memory");
        hasher.update(&piece[..until]);
        digest.extend_from_slice(&piece[until..]);
        each(&piece)?;
        offset += length;
    }
    let found = hasher.finalize();
    match hash {
        Some(hash) if found != hash => Err(damaged("does not have the hash that is its name")),
        None if digest != found.as_bytes() => Err(damaged("does not end with its digest")),
        _ => Ok(()),
    }
}

/// Whether an object's name says what its bytes are (SPEC §3).
fn is_named_by_hash(name: &str) -> bool {
    let original = name.strip_prefix("copies/").unwrap_or(name);
    ["access/", "packs/", "index/", "notes/", "log/"].iter().any(|folder| original.starts_with(folder))
}
