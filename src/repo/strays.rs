//! Packs that no segment of a commit names, and whose they are, by what their trailers say.

use std::collections::{BTreeSet, HashMap};

use super::Repository;
use super::content::Reader;
use super::session::{PACKS, pack_name};
use crate::error::{Context, Result};
use crate::format::pack::{TRAILER_BYTES, Trailer};
use crate::id::{PackId, SessionId};
use crate::storage::ErrorKind;
use crate::storage::parallel::try_map;

/// A pack that no segment names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray {
    /// Its id.
    pub id: PackId,
    /// How long it is.
    pub bytes: u64,
    /// The session it says it is of; `None` when it is no pack, or gone.
    pub session: Option<SessionId>,
}

impl Repository {
    /// The packs that are there, and how long each is.
    pub fn list_packs(&self) -> Result<HashMap<PackId, u64>> {
        let listed = self.list_settled(PACKS)?;
        let pack = |name: &str| name.rsplit('/').next()?.parse().ok();
        Ok(listed.iter().filter_map(|object| Some((pack(&object.name)?, object.bytes))).collect())
    }

    fn session_of_pack(&self, id: &PackId, bytes: u64) -> Result<Option<SessionId>> {
        let trailer_bytes = TRAILER_BYTES as u64;
        let Some(offset) = bytes.checked_sub(trailer_bytes) else { return Ok(None) };
        let name = pack_name(id);
        match self.storage.get_range(&name, offset, trailer_bytes) {
            Ok(tail) => Ok(Trailer::decode(&tail).ok().map(|trailer| trailer.session)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => Ok(None),
            Err(error) => Err(error).context(|| format!("cannot read pack `{name}`")),
        }
    }
}

impl Reader<'_> {
    /// Those of `packs` that no segment that counts names and that are not dead; reads the trailer of each.
    pub fn strays<'a>(&self, packs: impl IntoIterator<Item = (&'a PackId, &'a u64)>) -> Result<Vec<Stray>> {
        let named: BTreeSet<PackId> = (0_u32..)
            .zip(self.catalog().packs())
            .filter(|(number, _)| self.is_alive(*number))
            .map(|(_, pack)| pack.id)
            .collect();
        let dead = &self.collections().dead;
        let unnamed: Vec<(PackId, u64)> = packs
            .into_iter()
            .filter(|(id, _)| !named.contains(id) && !dead.contains(id))
            .map(|(id, bytes)| (*id, *bytes))
            .collect();
        try_map(self.repo().storage.connections(), &unnamed, |(id, bytes)| {
            let session = self.repo().session_of_pack(id, *bytes)?;
            Ok(Stray { id: *id, bytes: *bytes, session })
        })
    }
}
