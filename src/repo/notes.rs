//! Saying things about other objects: notes (SPEC §10.3).

use std::collections::{BTreeMap, BTreeSet};

use super::Repository;
use super::collections::NOTES;
use super::keys::not_an_owner;
use super::snapshots::SnapshotInfo;
use crate::error::{Context, Result};
use crate::format::access::Role;
use crate::format::cbor::{self, Extra};
use crate::format::gc::{Note, NoteClaim};
use crate::format::record::RecordKind;
use crate::id::{ChunkId, DescriptionId, ObjectId, PackId};

/// Packs, chunks or notes named by one note.
const IDS_MAX: usize = 100_000;

/// The notes that say that these packs were read whole, and that these notes of damage no longer hold.
fn verified(packs: &BTreeSet<DescriptionId>, mended: &BTreeSet<ObjectId>) -> Vec<NoteClaim> {
    let (packs, mended): (Vec<_>, Vec<_>) = (packs.iter().copied().collect(), mended.iter().copied().collect());
    let packs = packs.chunks(IDS_MAX).map(|part| (part.to_vec(), Vec::new()));
    let mended = mended.chunks(IDS_MAX).map(|part| (Vec::new(), part.to_vec()));
    packs.chain(mended).map(|(descriptions, mended)| NoteClaim::Verified { descriptions, mended }).collect()
}

impl Repository {
    /// Vouches, as an owner, for what the index says of packs that were read whole with every id
    /// computed again: every writer may reuse what is in them, whoever stored it (W4). What others
    /// say of the same packs gains nothing by it. Durable when it returns.
    pub fn attest(&self, packs: &BTreeSet<DescriptionId>) -> Result<()> {
        if self.keys.role != Role::Owner {
            return Err(not_an_owner());
        }
        self.note(verified(packs, &BTreeSet::new()))
    }

    /// Says, as an owner, what a scrub has found: packs that were read whole with every id computed again,
    /// notes of damage that no longer holds since their packs are whole, and chunks that are damaged, by pack.
    /// Durable when it returns.
    pub fn note_scrubbed(
        &self,
        whole: &BTreeSet<DescriptionId>,
        mended: &BTreeSet<ObjectId>,
        damaged: &BTreeMap<PackId, BTreeSet<ChunkId>>,
    ) -> Result<()> {
        if self.keys.role != Role::Owner {
            return Err(not_an_owner());
        }
        let damage = damaged.iter().flat_map(|(pack, chunks)| {
            let chunks: Vec<_> = chunks.iter().copied().collect();
            let parts: Vec<_> = chunks.chunks(IDS_MAX).map(<[_]>::to_vec).collect();
            parts.into_iter().map(|chunks| NoteClaim::Damaged { chunks, pack: *pack })
        });
        // Damage first: what comes of it should not wait for the rest.
        self.note(damage.chain(verified(whole, mended)))
    }

    /// Says of these snapshots that they are not wanted any more, and for how long that can be undone. Takes an
    /// owner. Durable when it returns.
    pub fn forget(&self, snapshots: &[SnapshotInfo], undelete_secs: i64) -> Result<()> {
        if self.keys.role != Role::Owner {
            return Err(not_an_owner());
        }
        let until_secs = self.world.now().secs.saturating_add(undelete_secs.max(0));
        let forgotten =
            |info: &SnapshotInfo| NoteClaim::Forgotten { session: info.id(), commit: info.header.hash, until_secs };
        self.note(snapshots.iter().map(forgotten))
    }

    /// Says things about other objects, one note each. Durable when it returns; saying nothing costs nothing.
    pub fn note(&self, claims: impl IntoIterator<Item = NoteClaim>) -> Result<()> {
        let mut claims = claims.into_iter().peekable();
        if claims.peek().is_none() {
            return Ok(());
        }
        self.refuse_if_behind()?;
        let mut seen: Vec<ObjectId> = self.load_collections()?.note_heads.into_iter().collect();
        for claim in claims {
            let note = Note { time_secs: self.world.now().secs, seen, claim, extra: Extra::default() };
            seen = vec![self.put_hashed_record(RecordKind::Note, NOTES, &cbor::encode(&note))?];
        }
        self.storage.barrier().context(|| "cannot store a note")
    }
}
