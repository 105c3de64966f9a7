//! Looking again, before it is said that a chunk is gone (SPEC §9.7).
//!
//! The cache may be wrong, or a collection may have moved the chunk since: so what a cache has told is
//! read anew. And a commit or an index segment may be lost with its packs still there: the directory
//! of each says what is in it and holds the key, so the directories of packs that the index does not
//! name, *strays*, are read too. Nobody has signed a directory; but a chunk is what its id says wherever
//! it comes from.
//!
//! Only readers do. A writer relies on nothing that is found so (W4), and stores it anew.

use std::collections::HashSet;

use super::Repository;
use super::collections::Collections;
use super::content::Reader;
use super::import::{BATCH_ROWS, rows_of};
use super::own_word::OwnWord;
use super::session::{PACKS, pack_of};
use crate::error::{Context, Kind, Result};
use crate::id::PackId;
use crate::index::{Catalog, Import, ImportPack, NewOrigin};
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

impl Repository {
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
