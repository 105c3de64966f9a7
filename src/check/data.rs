//! Reading packs whole: name, directory, every frame and every chunk.
//!
//! From the first byte to the last, a few frames at a time: each byte is read once, hashed for the
//! pack's name and opened in the processor's cache, and threads hold megabytes and not packs. Of a
//! pack that is cut off, or whose directory cannot be read, the index says what was in it; so it is
//! known of every chunk whether it is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Bad, Faults, Options, ReadData, Report};
use crate::error::{Error, Kind, Result};
use crate::format::pack::{Directory, Frame, FrameKind};
use crate::id::{ChunkId, PackId};
use crate::index::ChunkRow;
use crate::monitor::Monitor;
use crate::repo::content::Reader;
use crate::repo::directory::{described, read_tail};
use crate::repo::frames::spans;
use crate::repo::pack_writer::kind_of_chunks;
use crate::repo::reader::{FrameAt, ReadRepo};
use crate::repo::session::pack_name;

/// How much of a pack without a directory is read at once.
const HASHED_BYTES: usize = 1 << 20;
/// Packs checked by what the index says of them at a time: it is in memory for these.
const BY_INDEX_MAX: usize = 256;

/// What reading one pack found.
#[derive(Debug, Default)]
struct Finding {
    /// What is wrong with the pack, the first thing first.
    message: Option<String>,
    /// Chunks that do not open to their ids, and their frames.
    chunks: Vec<(u32, ChunkId)>,
    /// Whether the pack does not say itself what is in it.
    by_index: bool,
    /// Whether nothing of it is there any more.
    gone: bool,
    /// Whether its bytes have the hash that is its name.
    is_named: bool,
    bytes: u64,
}

/// Reads packs, by their numbers.
pub(super) fn check(
    reader: &Reader<'_>,
    packs: &[u32],
    enough: &(dyn Fn() -> bool + Sync),
    options: &Options,
    monitor: &Monitor,
    (faults, bad): (&mut Faults, &mut Bad),
    report: &mut Report,
) -> Result<()> {
    // A pack of another length does not say what is in it.
    let (mut by_index, packs): (Vec<u32>, Vec<u32>) = packs.iter().partition(|number| bad.packs.contains_key(number));
    let stored = packs.iter().filter_map(|number| reader.pack(*number).ok()).map(|pack| u64::from(pack.stored_bytes));
    monitor.counters().bytes_total.store(stored.sum(), Ordering::Relaxed);
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                let mut memory = Memory::default();
                while let Some(number) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if monitor.stopping() || lock(&failed).is_some() || enough() {
                        return;
                    }
                    match read_pack(reader, *number, &mut memory) {
                        Ok(finding) => {
                            monitor.done(0, finding.bytes);
                            lock(&found).push((*number, finding));
                        }
                        Err(error) => *lock(&failed) = Some(error),
                    }
                }
            });
        }
    });
    if let Some(error) = lock(&failed).take() {
        return Err(error);
    }
    let mut found = std::mem::take(&mut *lock(&found));
    found.sort_by_key(|(number, _)| *number);
    for (number, finding) in found {
        report.packs_read += 1;
        report.bytes_read += finding.bytes;
        let pack = reader.pack(number)?;
        if finding.is_named {
            report.hashed.insert(pack.id);
        }
        let Some(message) = finding.message else {
            report.verified.insert(pack.description);
            if !reader.repo().is_owner(&reader.origin_of(number)?.credential) {
                report.whole.insert(pack.description);
            }
            continue;
        };
        let fault = faults.add(&pack_name(&pack.id), message);
        if finding.gone {
            bad.packs.insert(number, (0, fault));
        } else if finding.by_index {
            bad.packs.insert(number, (pack.stored_bytes.into(), fault));
            by_index.push(number);
        }
        bad.chunks.extend(finding.chunks.into_iter().map(|(frame, id)| ((number, frame, id), fault)));
    }
    by_index.sort_unstable();
    for packs in by_index.chunks(BY_INDEX_MAX) {
        check_by_index(reader, packs, bad)?;
        for number in packs {
            let Some((bytes, fault)) = bad.packs.get(number) else { continue };
            let first = (*number, 0, ChunkId::from_bytes([0; 32]));
            let is_bad = bad.chunks.range(first..).next().is_some_and(|((pack, ..), _)| pack == number);
            if !is_bad && *bytes >= u64::from(reader.pack(*number)?.stored_bytes) {
                faults.add_to(*fault, "all that is in it can be read");
            }
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The packs to read, by number: those that are there.
pub(super) fn choose(reader: &Reader<'_>, read_data: ReadData, wanted: Option<&BTreeSet<u32>>, bad: &Bad) -> Vec<u32> {
    let packs = reader.catalog().packs();
    let mut all: Vec<(u32, PackId, u64)> = (0_u32..)
        .zip(packs)
        .filter(|(number, _)| reader.is_alive(*number) && bad.packs.get(number).is_none_or(|(bytes, _)| *bytes > 0))
        .filter(|(number, _)| wanted.is_none_or(|wanted| wanted.contains(number)))
        .map(|(number, pack)| (number, pack.id, u64::from(pack.stored_bytes)))
        .collect();
    let total: u64 = all.iter().map(|pack| pack.2).sum();
    let budget = match read_data {
        ReadData::No => 0,
        ReadData::All => u64::MAX,
        ReadData::Part { part, parts } => {
            // By name: the parts stay the same while packs come and go.
            all.retain(|(_, id, _)| {
                let number = u32::from_le_bytes(*id.as_bytes().first_chunk().expect("an id has 32 bytes"));
                number % parts.max(1) == part.wrapping_sub(1)
            });
            u64::MAX
        }
        ReadData::Percent(percent) => (total as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as u64,
        ReadData::Bytes(bytes) => bytes,
    };
    if budget != u64::MAX {
        let order: [u8; 32] = reader.repo().world.random();
        all.sort_by_key(|(_, id, _)| *blake3::keyed_hash(&order, id.as_bytes()).as_bytes());
        let mut left = budget;
        all.retain(|(_, _, bytes)| {
            let take = left > 0;
            left = left.saturating_sub(*bytes);
            take
        });
    }
    all.sort();
    all.into_iter().map(|(number, _, _)| number).collect()
}

/// The numbers of these packs, in this order: of each all that is said of it.
pub(super) fn in_order(reader: &Reader<'_>, packs: &[PackId], bad: &Bad) -> Vec<u32> {
    let mut numbers: BTreeMap<PackId, Vec<u32>> = packs.iter().map(|pack| (*pack, Vec::new())).collect();
    for (number, pack) in (0_u32..).zip(reader.catalog().packs()) {
        let is_there = bad.packs.get(&number).is_none_or(|(bytes, _)| *bytes > 0);
        if let Some(of_pack) = numbers.get_mut(&pack.id)
            && reader.is_alive(number)
            && is_there
        {
            of_pack.push(number);
        }
    }
    packs.iter().filter_map(|pack| numbers.remove(pack)).flatten().collect()
}

/// The memory in which one thread reads packs, a few frames at a time.
#[derive(Default)]
struct Memory {
    tail: Vec<u8>,
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

/// Reads one pack and everything in it. An error is the storage's, not the pack's.
fn read_pack(reader: &Reader<'_>, number: u32, memory: &mut Memory) -> Result<Finding> {
    match try_read_pack(reader, number, memory) {
        // Gone, or cut off, since the packs were listed.
        Err(error) if error.kind() == Kind::Damaged => {
            Ok(Finding { message: Some(error.with_causes()), gone: true, ..Finding::default() })
        }
        read => read,
    }
}

fn try_read_pack(reader: &Reader<'_>, number: u32, memory: &mut Memory) -> Result<Finding> {
    let Memory { tail, sealed, plain } = memory;
    let pack = reader.pack(number)?;
    let stored_bytes = u64::from(pack.stored_bytes);
    let mut finding = Finding { bytes: stored_bytes, ..Finding::default() };
    read_tail(stored_bytes, tail, |offset, bytes, into| reader.read_pack(number, offset, bytes, into))?;
    let mut hasher = blake3::Hasher::new();
    match read_directory(reader, number, stored_bytes, tail) {
        Ok((directory, end)) => {
            let tail_at = stored_bytes - tail.len() as u64;
            let places = places(number, &directory.frames);
            for span in spans(&places, reader.span_bytes_max()) {
                let (from, to) = (u64::from(places[span.start].offset), end_of(&places[span.end - 1]));
                match from.checked_sub(tail_at) {
                    // A small pack is all tail.
                    Some(start) => {
                        let start = as_index(start);
                        sealed.clear();
                        sealed.extend_from_slice(&tail[start..start + as_index(to - from)]);
                    }
                    None => reader.read_pack(number, from, to - from, sealed)?,
                }
                hasher.update(sealed);
                for ordinal in span {
                    let (at, frame) = (&places[ordinal], &directory.frames[ordinal]);
                    let start = as_index(u64::from(at.offset) - from);
                    let opened = reader.open_frame(at, &mut sealed[start..start + at.sealed as usize], plain);
                    check_frame(reader, at, frame, opened, &mut finding);
                }
            }
            hasher.update(&tail[tail.len() - as_index(end)..]);
        }
        Err(error) => {
            (finding.message, finding.by_index) = (Some(error.with_causes()), true);
            for from in (0..stored_bytes).step_by(HASHED_BYTES) {
                reader.read_pack(number, from, (stored_bytes - from).min(HASHED_BYTES as u64), sealed)?;
                hasher.update(sealed);
            }
        }
    }
    let hash = PackId::from_bytes(*hasher.finalize().as_bytes());
    finding.is_named = hash == pack.id;
    if hash != pack.id {
        let is_other = reader.catalog().packs().iter().any(|other| other.id == hash);
        let found = if is_other {
            format!("its bytes are those of `{}`", pack_name(&hash))
        } else {
            "its bytes do not have the hash that is its name".into()
        };
        finding.message = Some(match finding.message {
            Some(first) if !is_other => format!("{found}: {first}"),
            _ => found,
        });
    }
    Ok(finding)
}

/// The directory of a pack, given its tail, if its parts add up to the pack, and it is the one the
/// index knows; and how many bytes it and the trailer take at the end.
fn read_directory(reader: &Reader<'_>, number: u32, stored_bytes: u64, tail: &[u8]) -> Result<(Directory, u64)> {
    let pack = reader.pack(number)?;
    let (trailer, directory, end) = reader.repo().open_directory(tail, stored_bytes)?;
    if trailer.salt != pack.salt
        || trailer.frame_commitment != pack.commitment
        || trailer.session != reader.origin_of(number)?.session
    {
        return Err(Error::new(Kind::Damaged, "its trailer is not the one the index knows"));
    }
    if described(pack.id, pack.stored_bytes, &trailer, &directory) != pack.description {
        return Err(Error::new(Kind::Damaged, "what the index says of it is not what it says itself"));
    }
    Ok((directory, end))
}

/// Finds out which chunks of packs are whole by what the index says of them.
fn check_by_index(reader: &Reader<'_>, packs: &[u32], bad: &mut Bad) -> Result<()> {
    let (mut sealed, mut plain) = (Vec::new(), Vec::new());
    let rows = reader.rows_of(&packs.iter().copied().collect());
    for rows in rows.chunk_by(|a, b| (a.pack, a.frame) == (b.pack, b.frame)) {
        let row = rows[0];
        let Some((bytes, fault)) = bad.packs.get(&row.pack).copied() else { continue };
        if u64::from(row.frame_offset) + u64::from(row.frame_sealed) > bytes {
            // That it is cut off is known.
            continue;
        }
        let at = FrameAt {
            pack: row.pack,
            frame: row.frame,
            offset: row.frame_offset,
            sealed: row.frame_sealed,
            plain: row.frame_plain,
            compression: row.compression,
            kind: row.kind,
        };
        let opened = reader
            .read_pack(at.pack, at.offset.into(), at.sealed.into(), &mut sealed)
            .and_then(|()| reader.open_frame(&at, &mut sealed, &mut plain));
        let opened = match opened {
            Ok(opened) => Some(opened),
            Err(error) if error.kind() == Kind::Damaged => None,
            Err(error) => return Err(error),
        };
        for row in rows.iter().filter(|row| !opened.is_some_and(|plain| is_right(reader, row, plain))) {
            bad.chunks.insert((row.pack, row.frame, row.id), fault);
        }
    }
    Ok(())
}

/// Whether a row's chunk is in an opened frame.
fn is_right(reader: &Reader<'_>, row: &ChunkRow, plain: &[u8]) -> bool {
    let start = row.chunk_offset as usize;
    let bytes = plain.get(start..start.saturating_add(row.chunk_bytes as usize));
    let kind = FrameKind::from_u8(row.kind).ok().and_then(kind_of_chunks);
    kind.zip(bytes).is_some_and(|(kind, bytes)| reader.repo().keys.ids.chunk(kind, bytes) == row.id)
}

/// Where the frames of a pack lie.
fn places(pack: u32, frames: &[Frame]) -> Vec<FrameAt> {
    let mut offset = 0_u32;
    let place = |(ordinal, frame): (u32, &Frame)| {
        let at = FrameAt {
            pack,
            frame: ordinal,
            offset,
            sealed: frame.sealed_bytes,
            plain: frame.plain_bytes,
            compression: frame.compression,
            kind: frame.kind as u8,
        };
        offset += frame.sealed_bytes;
        at
    };
    (0_u32..).zip(frames).map(place).collect()
}

fn end_of(at: &FrameAt) -> u64 {
    u64::from(at.offset) + u64::from(at.sealed)
}

/// A length within a pack in memory as an index into it.
fn as_index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it is within a buffer in memory")
}

/// Whether a frame opened, to chunks of their ids.
fn check_frame(reader: &Reader<'_>, at: &FrameAt, frame: &Frame, opened: Result<&[u8]>, finding: &mut Finding) {
    let plain = match opened {
        Ok(plain) => plain,
        Err(error) => {
            finding.message.get_or_insert(error.with_causes());
            finding.chunks.extend(frame.chunks.iter().map(|chunk| (at.frame, chunk.id)));
            return;
        }
    };
    let Some(kind) = kind_of_chunks(frame.kind) else { return };
    let mut start = 0_usize;
    for chunk in &frame.chunks {
        let bytes = plain.get(start..start + chunk.bytes as usize);
        if bytes.is_none_or(|bytes| reader.repo().keys.ids.chunk(kind, bytes) != chunk.id) {
            let (id, frame) = (chunk.id.short(), at.frame);
            finding.message.get_or_insert(format!("chunk `{id}` in frame {frame}: its bytes do not have its id"));
            finding.chunks.push((at.frame, chunk.id));
        }
        start += chunk.bytes as usize;
    }
}
