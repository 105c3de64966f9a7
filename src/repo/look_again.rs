//! Looking again, before it is said that a chunk is gone (SPEC §9.7).
//!
//! The cache may be wrong, or a collection may have moved the chunk since: so what a cache has told is
//! read anew. And a commit or an index segment may be lost with its packs still there: the directory
//! of each says what is in it and holds the key, so the directories of packs that the index does not
//! name, *strays*, are read too. Nobody has signed a directory; but a chunk is what its id says wherever
//! it comes from.
//!
//! While it reads, a collection may move the same chunk more than once. So it looks again as often as
//! a pack it was told of is gone *and* somebody has committed or collected since the look before: each look has
//! something new to find, and a repository at rest is looked through once.
//!
//! Only readers do. A writer relies on nothing that is found so (W4), and stores it anew.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use super::Repository;
use super::collections::{Collections, GC};
use super::commits::SNAPSHOTS;
use super::content::Reader;
use super::import::{BATCH_ROWS, rows_of};
use super::logs::LOG;
use super::own_word::OwnWord;
use super::session::{PACKS, pack_of};
use crate::error::{Context, Kind, Result};
use crate::id::{ChunkId, ObjectId, PackId};
use crate::index::{Catalog, ChunkRow, Found, Import, ImportPack, NewOrigin};
use crate::storage::Listed;
use crate::storage::parallel::try_map;

impl Reader<'_> {
    /// Whether somebody has committed or collected since this reader looked: what it misses may have been moved.
    pub fn is_outrun(&self) -> Result<bool> {
        let repo = self.repo();
        let collections = repo.load_collections()?;
        if collections.dead.len() > self.collections().dead.len() {
            return Ok(true);
        }
        // Not from the cache: what has become unreadable is there still, and nobody has committed it since.
        let mut commits = repo.load_commits(&mut Catalog::temporary())?;
        commits.leave_out(&collections.void);
        Ok(commits.headers.keys().any(|session| !self.commits().headers.contains_key(session)))
    }
}

/// What looking again has found.
pub(super) struct Again {
    /// What the index says by now, or else what strays do.
    pub(super) catalog: Catalog,
    /// The number of its first pack: they follow those of the looks before.
    pub(super) first_pack: usize,
    /// The packs that count by the reader's own catalog.
    pub(super) named: Arc<HashSet<PackId>>,
    /// The look after this one, if one was needed.
    pub(super) later: OnceLock<Box<Self>>,
    /// What collections had said by then.
    collections: Collections,
    /// What tells whether anybody has said anything since.
    said: ObjectId,
}

impl Again {
    pub(super) fn look(
        repo: &Repository,
        named: Arc<HashSet<PackId>>,
        is_cached: bool,
        first_pack: usize,
    ) -> Result<Box<Self>> {
        // Before anything is read: what is said meanwhile is then a reason to look once more.
        let said = repo.said()?;
        let collections = repo.load_collections()?;
        let catalog = repo.look_again((!is_cached).then_some(&*named), &collections)?;
        Ok(Box::new(Self { catalog, first_pack, named, later: OnceLock::new(), collections, said }))
    }

    /// The look after this one.
    pub(super) fn look_again(&self, repo: &Repository, is_cached: bool) -> Result<Box<Self>> {
        Self::look(repo, self.named.clone(), is_cached, self.first_pack + self.catalog.packs().len())
    }

    /// Whether anybody has committed or collected since this look.
    pub(super) fn is_outrun(&self, repo: &Repository) -> Result<bool> {
        Ok(repo.said()? != self.said)
    }

    /// The places a chunk lies at by this look.
    pub(super) fn places<'a>(&'a self, id: &'a ChunkId) -> impl Iterator<Item = Found> + 'a {
        self.catalog.lookup(id).filter_map(|found| {
            let row = self.catalog.packs().get(found.row.pack as usize)?;
            let origin = self.catalog.origins().get(row.origin as usize);
            let is_void = origin.is_some_and(|origin| self.collections.void.contains(&origin.session));
            let pack = u32::try_from(self.first_pack + found.row.pack as usize).ok()?;
            let counts = !is_void && !self.collections.dead.contains(&row.id);
            counts.then_some(Found { row: ChunkRow { pack, ..found.row }, ..found })
        })
    }
}

impl Repository {
    /// Changes whenever a commit or a record of a collection is put: a hash of their names.
    fn said(&self) -> Result<ObjectId> {
        let mut names = Vec::new();
        for folder in [SNAPSHOTS, GC, LOG] {
            let listed = self.storage.list(folder).context(|| format!("cannot list `{folder}`"))?;
            names.extend(listed.into_iter().map(|object| object.name));
        }
        names.sort_unstable();
        Ok(ObjectId::of(names.join("\n").as_bytes()))
    }

    /// Where chunks lie in packs of which the index does not say it, or of which only a cache did.
    ///
    /// `named` are the packs of which the index itself has told. Without them it is read anew.
    pub(super) fn look_again(&self, named: Option<&HashSet<PackId>>, collections: &Collections) -> Result<Catalog> {
        let mut catalog = Catalog::temporary();
        let read_anew: HashSet<PackId>;
        let named = match named {
            Some(named) => named,
            None => {
                let mut commits = self.load_commits(&mut catalog)?;
                commits.leave_out(&collections.void);
                self.import_segments(&mut catalog, commits.headers.values())?;
                read_anew = catalog.packs().iter().map(|pack| pack.id).collect();
                &read_anew
            }
        };
        let listed = self.storage.list(PACKS).context(|| "cannot list the packs")?;
        let packs = listed.into_iter().filter_map(|object| Some((pack_of(&object.name)?, object)));
        let strays: Vec<_> = packs.filter(|(id, _)| !named.contains(id)).collect();
        let at_once = self.storage.connections().max(1);
        let (mut batch, mut rows) = (Vec::new(), 0);
        for strays in strays.chunks(at_once) {
            for stray in try_map(at_once, strays, |(id, object)| self.read_stray(id, object))?.into_iter().flatten() {
                rows += stray.packs.iter().map(|pack| pack.rows.len()).sum::<usize>();
                batch.push(stray);
            }
            if rows >= BATCH_ROWS {
                catalog.import(std::mem::take(&mut batch)).context(|| "cannot keep what packs say of themselves")?;
                rows = 0;
            }
        }
        catalog.import(batch).context(|| "cannot keep what packs say of themselves")?;
        Ok(catalog)
    }

    /// What a pack says of itself. `None` when it cannot be read.
    fn read_stray(&self, id: &PackId, object: &Listed) -> Result<Option<Import>> {
        let pack = match OwnWord::of(self, *id, object) {
            Ok(Some(pack)) => pack,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == Kind::Damaged => return Ok(None),
            Err(error) => return Err(error),
        };
        let (origin, entry) = (pack.origin(), pack.entry());
        let description = entry.description(&origin);
        let origin = NewOrigin {
            session: origin.session,
            epoch: origin.epoch,
            credential: origin.credential,
            envelope: origin.envelope,
        };
        let pack = ImportPack {
            id: *id,
            origin: 0,
            salt: entry.salt,
            commitment: entry.frame_commitment,
            stored_bytes: entry.stored_bytes,
            rows: rows_of(&entry.frames),
            description,
        };
        Ok(Some(Import { key: *id.as_bytes(), origins: vec![origin], packs: vec![pack] }))
    }
}
