//! Saying things about other objects: notes (SPEC §10.3).

use std::collections::{BTreeMap, BTreeSet};

use super::Repository;
use super::collections::NOTES;
use super::keys::not_an_owner;
use super::snapshots::SnapshotInfo;
use crate::error::{Context, Error, Kind, Result};
use crate::format::access::Role;
use crate::format::cbor::{self, Extra};
use crate::format::gc::{Note, NoteClaim};
use crate::format::record::RecordKind;
use crate::id::{ChunkId, DescriptionId, ObjectId, PackId};

/// Packs, chunks or notes named by one note.
const IDS_MAX: usize = 100_000;

/// Longest action of an audit note.
const ACTION_BYTES_MAX: usize = 64;

/// Longest detail of one.
const DETAIL_BYTES_MAX: usize = 4096;

/// The beginning of a text that is longer than so many bytes, with a mark that there was more.
pub fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max.saturating_sub('…'.len_utf8())).rev().find(|end| text.is_char_boundary(*end));
    format!("{}…", &text[..end.unwrap_or(0)])
}

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

    /// Writes down that something was done, or is about to be: an action in a word, and more about it, best as an
    /// object in JSON. Durable when it returns, so what is written down first cannot have happened unnoticed.
    pub fn note_audit(&self, action: &str, detail: &str) -> Result<()> {
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
        if action.is_empty() || action.len() > ACTION_BYTES_MAX || !action.chars().all(is_word) {
            return Err(Error::new(Kind::Usage, format!("cannot write down `{}`: no action is called so", action)));
        }
        if detail.len() > DETAIL_BYTES_MAX {
            let what = format!("cannot write down `{action}`: {} bytes are more than a note takes", detail.len());
            return Err(Error::new(Kind::Usage, what));
        }
        self.note([NoteClaim::Audit { action: action.to_owned(), detail: detail.to_owned() }])
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
