//! Bringing the local catalog up to date with the segments that commits name.

use std::collections::BTreeSet;

use super::Repository;
use super::commits::{CommitHeader, SNAPSHOTS};
use crate::error::{Context, Error, Kind, Result};
use crate::format::access::Role;
use crate::format::pack::Frame;
use crate::format::record::RecordKind;
use crate::format::segment::Segment;
use crate::id::{ObjectId, SessionId};
use crate::index::{Catalog, Import, ImportPack, NewOrigin, NewRow};
use crate::storage::parallel::try_map;

/// Chunk rows imported in one batch: bounds memory at about 16 MiB.
pub(super) const BATCH_ROWS: usize = 128 * 1024;

/// The fact of a catalog that says which owners had been removed when it was begun.
const REMOVED_OWNERS: &[u8] = b"removed owners";

/// Folder of index segments.
pub const INDEX: &str = "index/";

impl Repository {
    /// Opens the catalog of this repository at this place. Without a cache, or with one that
    /// cannot be used (a full or read-only disk), it is a temporary one, imported anew.
    pub fn open_catalog(&self) -> Catalog {
        let Some(dir) = &self.cache else { return Catalog::temporary() };
        let open = || Catalog::open(dir).unwrap_or_else(|error| Catalog::instead_of(&error));
        let mut catalog = open();
        // An owner speaks of everybody's packs. When one is removed, what it said of them goes too, and a
        // row does not tell who said it.
        let removed = self.access.removed_owners();
        let known = if removed.is_empty() { None } else { Some(catalog.fact(REMOVED_OWNERS).unwrap_or_default()) };
        if known.is_some_and(|known| known != removed) {
            catalog.condemn();
            drop(catalog);
            catalog = open();
            catalog.put_facts(&[(REMOVED_OWNERS, &removed)]);
        }
        catalog
    }

    /// The cache and why it is not used, when the disk would not have it.
    pub(crate) fn cache_fault(&self, catalog: &Catalog) -> Option<(String, Error)> {
        Some((self.cache.as_ref()?.display().to_string(), Error::new(Kind::Failed, catalog.trouble()?)))
    }

    /// Imports every segment that these commits name and the catalog lacks. Segments that are
    /// missing or damaged are given back with the reason; what is in them counts as absent.
    ///
    /// Nobody misses a segment that others have taken the place of.
    pub fn import_segments<'c>(
        &self,
        catalog: &mut Catalog,
        commits: impl Iterator<Item = &'c CommitHeader> + Clone,
    ) -> Result<Vec<(String, Error)>> {
        let replaced = self.replaced_segments(commits.clone());
        let mut faults = Vec::new();
        let mut batch = Vec::new();
        let mut rows = 0;
        let mut wanted = Vec::new();
        for header in commits {
            let inline = header.has_inline_segment.then_some((header.hash, true, header));
            let named = header.segments.iter().filter(|hash| !replaced.contains(hash));
            let keys = named.map(|hash| (*hash, false, header)).chain(inline);
            wanted.extend(keys.filter(|(key, ..)| !catalog.imported(key.as_bytes())));
        }
        // As many at a time as are read at once, so that no more than those are in memory.
        let at_once = self.storage.connections().max(1);
        for wanted in wanted.chunks(at_once) {
            let loaded = try_map(at_once, wanted, |(key, inline, header)| {
                let loaded =
                    if *inline { self.load_inline_segment(&header.session) } else { self.load_segment(key, header) };
                match loaded {
                    Ok(loaded) => Ok(Ok(loaded)),
                    Err(error) if error.kind() == Kind::Damaged || error.storage_kind().is_some_and(is_absent) => {
                        Ok(Err(error))
                    }
                    Err(error) => Err(error),
                }
            })?;
            for ((key, inline, header), loaded) in wanted.iter().zip(loaded) {
                let (name, segment) = match loaded {
                    Ok(loaded) => loaded,
                    Err(error) => {
                        // What stands in a commit is no object of its own.
                        let name =
                            if *inline { format!("{SNAPSHOTS}{}", header.session) } else { format!("{INDEX}{key}") };
                        faults.push((name, error));
                        continue;
                    }
                };
                if let Err(error) = self.check_origins(&segment, header, &name) {
                    faults.push((name, error));
                    continue;
                }
                let import = to_import(*key, &segment);
                rows += import.packs.iter().map(|pack| pack.rows.len()).sum::<usize>();
                batch.push(import);
                if rows >= BATCH_ROWS {
                    let full = std::mem::take(&mut batch);
                    catalog.import(full).context(|| "cannot import index segments into the cache")?;
                    rows = 0;
                }
            }
        }
        if !batch.is_empty() {
            catalog.import(batch).context(|| "cannot import index segments into the cache")?;
        }
        Ok(faults)
    }

    /// The lost segments that others have taken the place of, as owners say.
    pub fn replaced_segments<'c>(&self, commits: impl Iterator<Item = &'c CommitHeader>) -> BTreeSet<ObjectId> {
        let by_owners = commits.filter(|header| self.is_owner(&header.credential));
        by_owners.flat_map(|header| &header.replaces).copied().collect()
    }

    /// Reads one index segment of a commit. [`Kind::Damaged`] when it does not verify.
    pub fn load_segment(&self, hash: &ObjectId, header: &CommitHeader) -> Result<(String, Segment)> {
        let name = format!("{INDEX}{hash}");
        let what = || format!("cannot read index segment `{name}`");
        let stored = self.storage.get(&name).context(what)?;
        let opened = self.open_record(RecordKind::Segment, &name, &stored)?;
        if opened.credential != header.credential {
            return Err(Error::new(Kind::Damaged, what()).because("its writer is not the commit's"));
        }
        let segment = Segment::decode(&opened.body).context(what)?;
        Ok((name, segment))
    }

    fn load_inline_segment(&self, session: &SessionId) -> Result<(String, Segment)> {
        let loaded = self.load_commit(session)?;
        let name = format!("{SNAPSHOTS}{session}");
        let segment = Segment::decode(&loaded.commit.inline_segment)
            .context(|| format!("cannot read the index segment in commit `{name}`"))?;
        Ok((name, segment))
    }

    /// A writer may speak of its own session's packs only; an owner may compact anyone's.
    fn check_origins(&self, segment: &Segment, header: &CommitHeader, name: &str) -> Result<()> {
        let role = self.access.member(&header.credential).map(|member| member.role);
        let own = |session: &SessionId, credential| *session == header.session && credential == header.credential;
        let honest =
            role == Some(Role::Owner) || segment.origins.iter().all(|origin| own(&origin.session, origin.credential));
        if honest {
            return Ok(());
        }
        let what = format!("cannot use index segment `{name}`");
        Err(Error::new(Kind::Damaged, what).because("a writer lists packs not its own"))
    }
}

fn is_absent(kind: crate::storage::ErrorKind) -> bool {
    matches!(kind, crate::storage::ErrorKind::NotFound | crate::storage::ErrorKind::Corrupt)
}

fn to_import(key: ObjectId, segment: &Segment) -> Import {
    let origins = segment
        .origins
        .iter()
        .map(|origin| NewOrigin {
            session: origin.session,
            epoch: origin.epoch,
            credential: origin.credential,
            envelope: origin.envelope.clone(),
        })
        .collect();
    let packs = segment
        .packs
        .iter()
        .map(|pack| ImportPack {
            id: pack.id,
            origin: pack.origin as usize,
            salt: pack.salt,
            commitment: pack.frame_commitment,
            stored_bytes: pack.stored_bytes,
            description: pack.description(&segment.origins[pack.origin as usize]),
            rows: rows_of(&pack.frames),
        })
        .collect();
    Import { key: *key.as_bytes(), origins, packs }
}

/// A row for each chunk of a pack.
pub(super) fn rows_of(frames: &[Frame]) -> Vec<NewRow> {
    let mut rows = Vec::new();
    let mut frame_offset = 0;
    for (ordinal, frame) in (0_u32..).zip(frames) {
        let mut chunk_offset = 0;
        for chunk in &frame.chunks {
            rows.push(NewRow {
                id: chunk.id,
                frame: ordinal,
                frame_offset,
                frame_sealed: frame.sealed_bytes,
                frame_plain: frame.plain_bytes,
                chunk_offset,
                chunk_bytes: chunk.bytes,
                kind: frame.kind as u8,
                compression: frame.compression,
            });
            chunk_offset += chunk.bytes;
        }
        frame_offset += frame.sealed_bytes;
    }
    rows
}
