//! Parity of packs: made when a pack is made or at any time after, used when it is damaged (SPEC §7.4).
//!
//! Takes no key, neither to make nor to use: it is computed over stored bytes, which are named by their
//! hash. So parity is made only of bytes that have the name, and what comes of it counts only if it has
//! the name again: whatever is wrong with a parity object, it cannot make a pack worse.
//!
//! A pack is in memory while this goes on, and of the code some columns of its shards at a time.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

use super::session::{PACKS, pack_name, pack_of};
use crate::error::{Context, Error, Kind, Result};
use crate::format::parity::{Layout, PARITY_BYTES_MAX, Parity, SHARD_STEP, SHARDS_MAX};
use crate::id::PackId;
use crate::monitor::Monitor;
use crate::storage::parallel::try_map;
use crate::storage::{self, ErrorKind, Storage, WriteMode};

/// How much parity is made unless told otherwise, in percent of a pack.
pub const PARITY_PERCENT: u32 = 5;

/// Folder of parity objects.
pub const PARITY: &str = "parity/";

/// Into about so many shards a pack is cut.
const SHARDS_TARGET: u32 = 512;
/// No shard is shorter: each has a hash.
const SHARD_BYTES_MIN: u32 = 1024;
/// Packs in memory at once.
const IN_MEMORY_MAX: usize = 4;
/// Bytes of shards the code works on at a time.
const CODE_BYTES: usize = 16 << 20;
/// How much of a pack is read at once.
const READ_BYTES: u64 = 4 << 20;
/// The same where a disk has lost some of it.
const BLOCK_BYTES: u64 = 4096;

/// The full name of a pack's parity.
pub fn parity_name(pack: &PackId) -> String {
    format!("{PARITY}{pack}")
}

/// The pack a name is the parity of, if it is just such a name.
pub fn parity_of(name: &str) -> Option<PackId> {
    name.strip_prefix(PARITY)?.parse().ok()
}

/// How this program cuts a pack. None for a pack of no bytes, or longer than any.
fn layout_of(pack: PackId, bytes: usize, percent: u32) -> Option<Layout> {
    let pack_bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes > 0 && *bytes <= 1 << 31)?;
    let shard_bytes = pack_bytes.div_ceil(SHARDS_TARGET).next_power_of_two().max(SHARD_BYTES_MIN);
    let data_shards = pack_bytes.div_ceil(shard_bytes);
    let wanted = (u64::from(data_shards) * u64::from(percent)).div_ceil(100);
    // Half a limit leaves room for hashes.
    let most = (PARITY_BYTES_MAX / 2 / u64::from(shard_bytes)).min(SHARDS_MAX.into());
    let parity_shards = u32::try_from(wanted.clamp(1, most.max(1))).ok()?;
    Some(Layout { pack, pack_bytes, shard_bytes, parity_shards })
}

/// Makes the parity of a pack of these bytes, whose hash is the pack's name: about so many percent of it.
pub fn make(pack: PackId, bytes: &[u8], percent: u32) -> Result<Vec<u8>> {
    let none = || Error::new(Kind::Failed, format!("cannot make parity of `{}`: its length is none", pack_name(&pack)));
    make_in(layout_of(pack, bytes.len(), percent).ok_or_else(none)?, bytes)
}

/// The same in shards of this layout, which fits the pack.
pub fn make_in(layout: Layout, bytes: &[u8]) -> Result<Vec<u8>> {
    let pack = layout.pack;
    let shard_bytes = layout.shard_bytes as usize;
    let padded = |shard: &[u8]| [shard, &vec![0; shard_bytes - shard.len()]].concat();
    let mut shards: Vec<std::borrow::Cow<'_, [u8]>> = bytes.chunks(shard_bytes).map(Into::into).collect();
    if let Some(last) = shards.last_mut() {
        *last = padded(last).into();
    }
    let counts = (shards.len(), layout.parity_shards as usize);
    let mut parity = vec![0; counts.1 * shard_bytes];
    for columns in columns(shard_bytes, counts.0 + counts.1) {
        let mut encoder = HighRateEncoder::new(counts.0, counts.1, columns.len(), DefaultEngine::new(), None)
            .map_err(|error| code_failed(&pack, error))?;
        for shard in &shards {
            encoder.add_original_shard(&shard[columns.clone()]).map_err(|error| code_failed(&pack, error))?;
        }
        let encoded = encoder.encode().map_err(|error| code_failed(&pack, error))?;
        for (into, made) in parity.chunks_mut(shard_bytes).zip(encoded.recovery_iter()) {
            into[columns.clone()].copy_from_slice(made);
        }
    }
    let all = shards.iter().map(|shard| &**shard).chain(parity.chunks(shard_bytes));
    let hashes = all.map(|shard| *blake3::hash(shard).as_bytes()).collect();
    Ok(Parity { layout, hashes, shards: &parity }.encode())
}

/// What became of a pack that was to be made whole.
#[derive(Debug)]
pub enum Mended {
    /// Its bytes, which have the hash that is its name.
    Whole(Vec<u8>),
    /// More is damaged than there is parity.
    TooMuch {
        /// So many shards are damaged.
        damaged: u32,
        /// So many could be made whole.
        parity: u32,
    },
    /// What came of it does not have the name: the parity is another pack's, or damaged where it matters.
    Wrong,
}

/// Makes a pack whole, given the bytes that were found of it.
pub fn mend(parity: &Parity<'_>, mut bytes: Vec<u8>) -> Result<Mended> {
    let layout = &parity.layout;
    let (shard_bytes, data_shards) = (layout.shard_bytes as usize, layout.data_shards() as usize);
    // Shards behind the end are damaged as any other: before there is memory for them it is known how many.
    let behind = data_shards.saturating_sub(bytes.len() / shard_bytes + 1);
    let good: Vec<u32> = (0..layout.parity_shards).filter(|number| parity.parity_shard(*number).is_some()).collect();
    let too_much = |damaged: usize| Mended::TooMuch {
        damaged: u32::try_from(damaged).unwrap_or(u32::MAX),
        parity: u32::try_from(good.len()).unwrap_or(u32::MAX),
    };
    if behind > good.len() {
        return Ok(too_much(behind));
    }
    bytes.truncate(layout.pack_bytes as usize);
    bytes.resize(data_shards * shard_bytes, 0);
    let is_damaged = |(shard, hash): (&[u8], &[u8; 32])| blake3::hash(shard).as_bytes() != hash;
    let damaged: Vec<bool> = bytes.chunks(shard_bytes).zip(&parity.hashes).map(is_damaged).collect();
    let count = damaged.iter().filter(|damaged| **damaged).count();
    if count > good.len() {
        return Ok(too_much(count));
    }
    if count > 0 {
        restore(parity, &mut bytes, &damaged, &good)?;
    }
    bytes.truncate(layout.pack_bytes as usize);
    let is_right = blake3::hash(&bytes).as_bytes() == layout.pack.as_bytes();
    Ok(if is_right { Mended::Whole(bytes) } else { Mended::Wrong })
}

/// Computes the damaged shards anew, in their places.
fn restore(parity: &Parity<'_>, bytes: &mut [u8], damaged: &[bool], good: &[u32]) -> Result<()> {
    let layout = &parity.layout;
    let shard_bytes = layout.shard_bytes as usize;
    let counts = (damaged.len(), layout.parity_shards as usize);
    for columns in columns(shard_bytes, counts.0 + counts.1) {
        let failed = |error| code_failed(&layout.pack, error);
        let mut decoder =
            HighRateDecoder::new(counts.0, counts.1, columns.len(), DefaultEngine::new(), None).map_err(failed)?;
        for (number, shard) in bytes.chunks(shard_bytes).enumerate().filter(|(number, _)| !damaged[*number]) {
            decoder.add_original_shard(number, &shard[columns.clone()]).map_err(failed)?;
        }
        for number in good {
            let at = *number as usize * shard_bytes;
            let shard = &parity.shards[at..at + shard_bytes];
            decoder.add_recovery_shard(*number as usize, &shard[columns.clone()]).map_err(failed)?;
        }
        let decoded = decoder.decode().map_err(failed)?;
        for (number, restored) in decoded.restored_original_iter() {
            let at = number * shard_bytes;
            bytes[at..at + shard_bytes][columns.clone()].copy_from_slice(restored);
        }
    }
    Ok(())
}

fn code_failed(pack: &PackId, error: reed_solomon_simd::Error) -> Error {
    Error::new(Kind::Failed, format!("cannot compute parity of `{}`", pack_name(pack))).because(error)
}

/// The code works on each 64 bytes of all shards by themselves: so many columns at a time are enough.
fn columns(shard_bytes: usize, shards: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let step = SHARD_STEP as usize;
    let width = (CODE_BYTES / shards.max(1) / step * step).max(step);
    (0..shard_bytes).step_by(width).map(move |begin| begin..(begin + width).min(shard_bytes))
}

/// All of a pack, whatever its bytes are. What the disk has lost of it is zeros.
fn read_whole(storage: &dyn Storage, name: &str, bytes: u64) -> storage::Result<Vec<u8>> {
    let mut all = Vec::new();
    read_into(storage, name, 0..bytes, READ_BYTES, &mut all)?;
    Ok(all)
}

fn read_into(
    storage: &dyn Storage,
    name: &str,
    range: std::ops::Range<u64>,
    step: u64,
    all: &mut Vec<u8>,
) -> storage::Result<()> {
    let mut part = Vec::new();
    let mut from = range.start;
    while from < range.end {
        let to = (from + step).min(range.end);
        match storage.get_range_into(name, from, to - from, &mut part) {
            Ok(()) => all.extend_from_slice(&part),
            Err(error) if !error.is_of_the_medium() => return Err(error),
            // As little as can be is given up.
            Err(_) if step > BLOCK_BYTES => read_into(storage, name, from..to, BLOCK_BYTES, all)?,
            Err(_) => all.resize(all.len() + usize::try_from(to - from).unwrap_or(0), 0),
        }
        from = to;
    }
    Ok(())
}

/// Stores the parity of a pack that is there; says how many bytes it has. `None` when the bytes of the pack do
/// not have its name: of damage no parity is made.
pub fn add(storage: &dyn Storage, pack: PackId, percent: u32) -> Result<Option<u64>> {
    let name = pack_name(&pack);
    let what = || format!("cannot read pack `{name}`");
    let bytes = storage.stat(&name).context(what)?;
    // A pack has no more, and so much is in memory.
    if bytes == 0 || bytes > 1 << 31 {
        return Ok(None);
    }
    let bytes = match read_whole(storage, &name, bytes) {
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(None),
        read => read.context(what)?,
    };
    if blake3::hash(&bytes).as_bytes() != pack.as_bytes() {
        return Ok(None);
    }
    let stored = make(pack, &bytes, percent)?;
    put(storage, &pack, &stored)?;
    Ok(Some(stored.len() as u64))
}

/// What adding parity did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Added {
    /// Packs that are there.
    pub packs: u64,
    /// Packs that have parity now and had none.
    pub added: u64,
    /// Bytes of that parity.
    pub bytes: u64,
    /// Packs that are damaged, and so get none.
    pub damaged: Vec<PackId>,
}

/// Stores parity for every pack that has none. Durable when it returns.
pub fn add_missing(storage: &dyn Storage, percent: u32, threads: usize, monitor: &Monitor) -> Result<Added> {
    let list = |prefix: &str| storage.list(prefix).context(|| format!("cannot list `{prefix}`"));
    let have: BTreeSet<PackId> = list(PARITY)?.iter().filter_map(|object| parity_of(&object.name)).collect();
    let packs: Vec<(PackId, u64)> =
        list(PACKS)?.iter().filter_map(|object| Some((pack_of(&object.name)?, object.bytes))).collect();
    let without: Vec<_> = packs.iter().filter(|(pack, _)| !have.contains(pack)).copied().collect();
    monitor.counters().bytes_total.store(without.iter().map(|(_, bytes)| bytes).sum(), Ordering::Relaxed);
    // Each holds a pack in memory.
    let at_once = threads.max(storage.connections()).min(IN_MEMORY_MAX);
    let results = try_map(at_once, &without, |(pack, bytes)| {
        if monitor.stopping() {
            return Err(Error::new(Kind::Interrupted, "no more parity was added: interrupted; what was added stays"));
        }
        let added = match add(storage, *pack, percent) {
            // A collection has deleted it meanwhile.
            Err(error) if error.storage_kind() == Some(ErrorKind::NotFound) => Ok(Some(0)),
            added => added,
        };
        monitor.done(0, *bytes);
        added
    });
    storage.barrier().context(|| "cannot make parity durable")?;
    let mut report = Added { packs: packs.len() as u64, ..Added::default() };
    for ((pack, _), result) in without.iter().zip(results?) {
        match result {
            Some(0) => {}
            Some(bytes) => (report.added, report.bytes) = (report.added + 1, report.bytes + bytes),
            None => report.damaged.push(*pack),
        }
    }
    Ok(report)
}

/// Stores a parity object, in the place of one that may be damaged.
pub(crate) fn put(storage: &dyn Storage, pack: &PackId, stored: &[u8]) -> Result<()> {
    let name = parity_name(pack);
    storage.put(&name, stored, WriteMode::Replace).context(|| format!("cannot store `{name}`"))
}

/// Reads what there is of a damaged pack and makes it whole by its parity, if it has some. Stores nothing.
pub fn mend_stored(storage: &dyn Storage, pack: &PackId) -> Result<Option<Mended>> {
    let name = parity_name(pack);
    let stored = match storage.get(&name) {
        Ok(stored) => stored,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => return Ok(None),
        Err(error) => return Err(error).context(|| format!("cannot read `{name}`")),
    };
    let Ok(parity) = Parity::decode_damaged(&stored) else { return Ok(None) };
    if parity.layout.pack != *pack {
        return Ok(Some(Mended::Wrong));
    }
    let name = pack_name(pack);
    let found = match storage.stat(&name) {
        // Of what stands behind its end nothing is of the pack.
        Ok(bytes) => read_whole(storage, &name, bytes.min(parity.layout.pack_bytes.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    mend(&parity, found.context(|| format!("cannot read pack `{name}`"))?).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::Memory;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"parity").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn pack_of(bytes: &[u8]) -> PackId {
        PackId::from_bytes(*blake3::hash(bytes).as_bytes())
    }

    fn whole(stored: &[u8], found: Vec<u8>) -> Option<Vec<u8>> {
        match mend(&Parity::decode_damaged(stored).unwrap(), found).unwrap() {
            Mended::Whole(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Every length about those of a shard, and a pack in several columns.
    #[test]
    fn as_many_damaged_shards_as_there_is_parity_are_made_whole_and_no_more() {
        for length in [1, 63, 64, 1023, 1024, 1025, 40_000, 512 * 1024, 512 * 1024 + 1, 3 << 20] {
            let bytes = noise(length);
            let stored = make(pack_of(&bytes), &bytes, 5).unwrap();
            let layout = Parity::decode(&stored).unwrap().layout;
            assert!(length < 100_000 || stored.len() * 100 < length * 9, "{} for {length}", stored.len());
            let (shard, shards) = (layout.shard_bytes as usize, layout.data_shards());
            let spoil = |count: u32| {
                let mut bad = bytes.clone();
                // Apart from each other, the last shard among them.
                for nth in 0..count {
                    let at = (shards - 1 - nth * (shards / count.max(1))) as usize * shard;
                    bad[at] ^= 0x80;
                }
                bad
            };
            assert_eq!(whole(&stored, bytes.clone()).as_ref(), Some(&bytes), "{length}");
            assert_eq!(whole(&stored, spoil(layout.parity_shards)).as_ref(), Some(&bytes), "{length}");
            if layout.parity_shards < shards {
                assert_eq!(whole(&stored, spoil(layout.parity_shards + 1)), None, "{length}");
            }
        }
    }

    #[test]
    fn a_pack_that_is_cut_off_or_grew_is_made_whole() {
        let bytes = noise(700_000);
        let stored = make(pack_of(&bytes), &bytes, 5).unwrap();
        assert_eq!(whole(&stored, bytes[..690_000].to_vec()).as_ref(), Some(&bytes));
        assert_eq!(whole(&stored, [&bytes[..], b"more"].concat()).as_ref(), Some(&bytes));
        assert_eq!(whole(&stored, bytes[..100_000].to_vec()), None);
        assert_eq!(whole(&stored, Vec::new()), None);
    }

    /// As much as it has: then even a pack that is gone comes back.
    #[test]
    fn with_as_much_parity_as_pack_a_missing_pack_comes_back() {
        let bytes = noise(20_000);
        let storage = Memory::new();
        let pack = pack_of(&bytes);
        storage.put(&pack_name(&pack), &bytes, WriteMode::CreateNew).unwrap();
        assert!(add(&storage, pack, 100).unwrap().is_some());
        storage.delete(&pack_name(&pack)).unwrap();
        assert!(matches!(mend_stored(&storage, &pack).unwrap(), Some(Mended::Whole(found)) if found == bytes));
    }

    /// A damaged parity object helps as far as it can, and what it says never counts unless it is right.
    #[test]
    fn damaged_parity_mends_with_what_is_whole_of_it_and_lies_make_nothing() {
        let bytes = noise(200_000);
        let stored = make(pack_of(&bytes), &bytes, 5).unwrap();
        let layout = Parity::decode(&stored).unwrap().layout;
        assert!(layout.parity_shards >= 10);
        let mut bad = bytes.clone();
        bad[5] ^= 1;
        bad[100_000] ^= 1;
        for at in (0..stored.len()).step_by(131) {
            let mut spoilt = stored.clone();
            spoilt[at] ^= 1;
            let Ok(parity) = Parity::decode_damaged(&spoilt) else { continue };
            match mend(&parity, bad.clone()).unwrap() {
                Mended::Whole(found) => assert!(found == bytes, "byte {at}"),
                Mended::TooMuch { .. } => panic!("byte {at}"),
                // A hash of a shard that is whole, or of the pack.
                Mended::Wrong => assert!(at < 60 + 32 * layout.data_shards() as usize, "byte {at}"),
            }
        }
    }

    /// borg#10410: damage is never given a hash that makes it look whole.
    #[test]
    fn no_parity_is_made_of_a_damaged_pack() {
        let mut bytes = noise(20_000);
        let pack = pack_of(&bytes);
        bytes[100] ^= 1;
        let storage = Memory::new();
        storage.put(&pack_name(&pack), &bytes, WriteMode::CreateNew).unwrap();
        assert_eq!(add(&storage, pack, 5).unwrap(), None);
        assert!(storage.list(PARITY).unwrap().is_empty());
    }
}
