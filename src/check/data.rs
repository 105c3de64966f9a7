//! Reading packs whole: name, directory, every frame and every chunk.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Bad, Faults, Options, ReadData, Report};
use crate::crypto::seal;
use crate::error::{Context, Result};
use crate::format::pack::{Directory, Pack, directory_aad};
use crate::id::{ChunkId, PackId};
use crate::monitor::Monitor;
use crate::repo::content::Reader;
use crate::repo::pack_writer::kind_of_chunks;
use crate::repo::reader::FrameAt;
use crate::repo::session::pack_name;
use crate::storage::ErrorKind;

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
    monitor.counters().files_total.store(chosen.len() as u64, Ordering::Relaxed);
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                while let Some(number) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if monitor.stopping() || lock(&failed).is_some() {
                        return;
                    }
                    match read_pack(reader, *number) {
                        Ok(finding) => {
                            monitor.done(1, finding.bytes);
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
                report.whole.insert(pack.id);
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

/// Reads one pack and everything in it. An error is the storage's, not the pack's.
fn read_pack(reader: &Reader<'_>, number: u32) -> Result<Finding> {
    let pack = &reader.catalog().packs()[number as usize];
    let name = pack_name(&pack.id);
    let stored = match reader.repo().storage.get(&name) {
        Ok(stored) => stored,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
            return Ok(Finding { message: Some(error.to_string()), whole: true, ..Finding::default() });
        }
        Err(error) => return Err(error).context(|| format!("cannot read pack `{name}`")),
    };
    let mut finding = Finding { bytes: stored.len() as u64, ..Finding::default() };
    if PackId::of(&stored) != pack.id {
        finding.message = Some("its bytes do not have the hash that is its name".into());
    }
    match read_directory(reader, number, &stored) {
        Ok(directory) => read_frames(reader, number, &stored, &directory, &mut finding),
        Err(detail) => {
            // Without its directory it cannot be said which chunks are whole.
            finding.message.get_or_insert(detail);
            finding.whole = true;
        }
    }
    Ok(finding)
}

/// The frames a pack's directory names, if its parts add up to the pack.
fn read_directory(reader: &Reader<'_>, number: u32, stored: &[u8]) -> std::result::Result<Directory, String> {
    let repo = reader.repo();
    let pack = &reader.catalog().packs()[number as usize];
    let parts = Pack::decode(stored).map_err(|error| error.to_string())?;
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
    parts.frames(&directory).map_err(|error| error.to_string())?;
    Ok(directory)
}

fn read_frames(reader: &Reader<'_>, number: u32, stored: &[u8], directory: &Directory, finding: &mut Finding) {
    let mut offset = 0_u32;
    for (ordinal, frame) in (0_u32..).zip(&directory.frames) {
        let at = FrameAt {
            pack: number,
            frame: ordinal,
            offset,
            sealed: frame.sealed_bytes,
            plain: frame.plain_bytes,
            compression: frame.compression,
            kind: frame.kind as u8,
        };
        offset = offset.saturating_add(frame.sealed_bytes);
        let sealed = stored.get(at.offset as usize..offset as usize);
        let plain = match sealed.map(|sealed| reader.open_frame(&at, sealed)) {
            Some(Ok(plain)) => plain,
            Some(Err(error)) => {
                finding.message.get_or_insert(error.with_causes());
                finding.chunks.extend(frame.chunks.iter().map(|chunk| chunk.id));
                continue;
            }
            None => {
                finding.message.get_or_insert(format!("frame {ordinal} lies outside of the pack"));
                finding.chunks.extend(frame.chunks.iter().map(|chunk| chunk.id));
                continue;
            }
        };
        let Some(kind) = kind_of_chunks(frame.kind) else { continue };
        let mut start = 0_usize;
        for chunk in &frame.chunks {
            let bytes = plain.get(start..start + chunk.bytes as usize);
            let right = bytes.is_some_and(|bytes| reader.repo().keys.ids.chunk(kind, bytes) == chunk.id);
            let indexed = reader.catalog().lookup(&chunk.id).any(|found| {
                let row = &found.row;
                row.pack == number && row.frame == ordinal && row.chunk_offset as usize == start
            });
            if !right || !indexed {
                let id = chunk.id.short();
                let why = if right { "the index does not have it there" } else { "its bytes do not have its id" };
                finding.message.get_or_insert(format!("chunk `{id}` in frame {ordinal}: {why}"));
                finding.chunks.push(chunk.id);
            }
            start += chunk.bytes as usize;
        }
    }
}
