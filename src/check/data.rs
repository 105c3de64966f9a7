//! Reading packs whole: name, directory, every frame and every chunk.
//!
//! From the first byte to the last, a few frames at a time: each byte is read once, hashed for the
//! pack's name and opened in the processor's cache, and threads hold megabytes and not packs.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Bad, Faults, Options, ReadData, Report};
use crate::crypto::seal;
use crate::error::{Kind, Result};
use crate::format::pack::{Directory, Frame, Pack, TRAILER_BYTES, Trailer, directory_aad};
use crate::format::segment::{Origin, PackEntry};
use crate::id::{ChunkId, DescriptionId, PackId};
use crate::monitor::Monitor;
use crate::repo::content::Reader;
use crate::repo::frames::spans;
use crate::repo::pack_writer::kind_of_chunks;
use crate::repo::reader::{FrameAt, ReadRepo};
use crate::repo::session::pack_name;

/// How much of a pack's end is read at first: with the directory, unless that is long. A pack that is
/// no longer costs one read.
const TAIL_BYTES: u64 = 256 << 10;
/// How much of a pack without a directory is read at once.
const HASHED_BYTES: usize = 1 << 20;

/// What reading one pack found.
#[derive(Debug, Default)]
struct Finding {
    /// What is wrong with the pack, the first thing first.
    message: Option<String>,
    /// Chunks that do not open to their ids.
    chunks: Vec<ChunkId>,
    /// Whether nothing of it can be relied on.
    whole: bool,
    bytes: u64,
}

/// Reads the packs that were asked for.
pub(super) fn check(
    reader: &Reader<'_>,
    options: &Options,
    wanted: Option<&BTreeSet<u32>>,
    monitor: &Monitor,
    faults: &mut Faults,
    bad: &mut Bad,
    report: &mut Report,
) -> Result<()> {
    let chosen = choose(reader, options.read_data, wanted, bad);
    let bytes = chosen.iter().map(|number| u64::from(reader.catalog().packs()[*number as usize].stored_bytes)).sum();
    monitor.counters().bytes_total.store(bytes, Ordering::Relaxed);
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                let mut memory = Memory::default();
                while let Some(number) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if monitor.stopping() || lock(&failed).is_some() {
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
        let pack = &reader.catalog().packs()[number as usize];
        let Some(message) = finding.message else {
            let writer = reader.catalog().origins().get(pack.origin as usize).map(|origin| origin.credential);
            if writer.is_some_and(|writer| !reader.repo().is_owner(&writer)) {
                report.whole.insert(pack.description);
            }
            continue;
        };
        let fault = faults.add(&pack_name(&pack.id), message);
        if finding.whole {
            bad.packs.insert(number, fault);
        }
        bad.chunks.extend(finding.chunks.into_iter().map(|id| ((number, id), fault)));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The packs to read, by number.
fn choose(reader: &Reader<'_>, read_data: ReadData, wanted: Option<&BTreeSet<u32>>, bad: &Bad) -> Vec<u32> {
    let packs = reader.catalog().packs();
    let mut all: Vec<(u32, PackId, u64)> = (0_u32..)
        .zip(packs)
        .filter(|(number, _)| reader.is_alive(*number) && !bad.packs.contains_key(number))
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
            Ok(Finding { message: Some(error.with_causes()), whole: true, ..Finding::default() })
        }
        read => read,
    }
}

fn try_read_pack(reader: &Reader<'_>, number: u32, memory: &mut Memory) -> Result<Finding> {
    let Memory { tail, sealed, plain } = memory;
    let pack = &reader.catalog().packs()[number as usize];
    let stored_bytes = u64::from(pack.stored_bytes);
    let mut finding = Finding { bytes: stored_bytes, ..Finding::default() };
    read_tail(reader, number, stored_bytes, tail)?;
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
            hasher.update(&tail[tail.len() - end..]);
        }
        Err(detail) => {
            // Without its directory it cannot be said which chunks are whole.
            (finding.message, finding.whole) = (Some(detail), true);
            for from in (0..stored_bytes).step_by(HASHED_BYTES) {
                reader.read_pack(number, from, (stored_bytes - from).min(HASHED_BYTES as u64), sealed)?;
                hasher.update(sealed);
            }
        }
    }
    if hasher.finalize() != *pack.id.as_bytes() {
        finding.message = Some("its bytes do not have the hash that is its name".into());
    }
    Ok(finding)
}

/// Reads the end of a pack, with all of the directory.
fn read_tail(reader: &Reader<'_>, number: u32, stored_bytes: u64, tail: &mut Vec<u8>) -> Result<()> {
    let bytes = stored_bytes.min(TAIL_BYTES);
    reader.read_pack(number, stored_bytes - bytes, bytes, tail)?;
    let directory_bytes = Trailer::decode(tail).map_or(0, |trailer| trailer.directory_bytes);
    let needed = TRAILER_BYTES as u64 + u64::from(directory_bytes);
    if (bytes + 1..=stored_bytes).contains(&needed) {
        reader.read_pack(number, stored_bytes - needed, needed, tail)?;
    }
    Ok(())
}

/// The directory of a pack, given its tail, if its parts add up to the pack; and how many bytes
/// it and the trailer take at the end.
fn read_directory(
    reader: &Reader<'_>,
    number: u32,
    stored_bytes: u64,
    tail: &[u8],
) -> std::result::Result<(Directory, usize), String> {
    let repo = reader.repo();
    let pack = &reader.catalog().packs()[number as usize];
    let parts = Pack::decode(tail).map_err(|error| error.to_string())?;
    let trailer = parts.trailer;
    if trailer.salt != pack.salt
        || trailer.frame_commitment != pack.commitment
        || Some(trailer.session) != reader.session_of_pack(number)
    {
        return Err("its trailer is not the one the index knows".into());
    }
    let key = repo.keys.index_key(&trailer.epoch, "pack directory").map_err(|error| error.to_string())?;
    let derived = key.derive_salted(&trailer.salt, "pack directory");
    let key =
        seal::committed(derived, &trailer.directory_commitment, "pack directory").map_err(|error| error.to_string())?;
    let plain = seal::open(&key, &directory_aad(&repo.config.repo, &trailer), parts.directory, "pack directory")
        .map_err(|error| error.to_string())?;
    let directory = Directory::decode(&plain).map_err(|error| error.to_string())?;
    if description(pack.id, stored_bytes, &trailer, &directory) != Some(pack.description) {
        return Err("what the index says of it is not what it says itself".into());
    }
    let end = parts.directory.len() + TRAILER_BYTES;
    directory.covers(stored_bytes - end as u64).map_err(|error| error.to_string())?;
    Ok((directory, end))
}

/// What an index would have to say of a pack.
fn description(id: PackId, stored_bytes: u64, trailer: &Trailer, directory: &Directory) -> Option<DescriptionId> {
    let Trailer { session, epoch, salt, frame_commitment, .. } = *trailer;
    let origin = Origin { session, epoch, credential: directory.credential, envelope: directory.envelope.clone() };
    let (stored_bytes, frames) = (u32::try_from(stored_bytes).ok()?, directory.frames.clone());
    Some(PackEntry { id, origin: 0, stored_bytes, salt, frame_commitment, frames }.description(&origin))
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
            finding.chunks.extend(frame.chunks.iter().map(|chunk| chunk.id));
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
            finding.chunks.push(chunk.id);
        }
        start += chunk.bytes as usize;
    }
}
