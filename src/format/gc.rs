//! Records of collections and notes (SPEC §10). Written by later verbs; read by every session,
//! because what a collection has condemned or swept must not be relied on.

use super::cbor::{self, Extra, MapReader, MapWriter, Record};
use super::{DecodeError, Result};
use crate::id::{ChunkId, CollectionId, DescriptionId, ObjectId, PackId, SessionId};

/// `gc/<cid>/condemned`: packs this collection wants to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// The collection.
    pub collection: CollectionId,
    /// When, seconds since 1970.
    pub time_secs: i64,
    /// The packs, in ascending order.
    pub packs: Vec<PackId>,
    /// Fields from a newer program.
    pub extra: Extra,
}

/// `gc/<cid>/swept`: packs that are dead, for ever; and sessions that are void or count, unless a higher
/// collection says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// The collection.
    pub collection: CollectionId,
    /// When, seconds since 1970.
    pub time_secs: i64,
    /// Dead packs, in ascending order.
    pub dead: Vec<PackId>,
    /// Void sessions, in ascending order.
    pub void: Vec<SessionId>,
    /// Sessions that count though others have asked them and said nothing, in ascending order.
    pub counted: Vec<SessionId>,
    /// Fields from a newer program.
    pub extra: Extra,
}

/// `gc/<cid>/done`: every dead pack of this collection has been deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The collection.
    pub collection: CollectionId,
    /// When, seconds since 1970.
    pub time_secs: i64,
    /// BLAKE3 of the sweeps it stands for, in ascending order.
    pub sweeps: Vec<ObjectId>,
    /// Notes of forgetting that take effect in later collections, in ascending order.
    pub seen_notes: Vec<ObjectId>,
    /// Fields from a newer program.
    pub extra: Extra,
}

fn read_packs(map: &mut MapReader<'_, '_>, key: u64, what: &'static str) -> Result<Vec<PackId>> {
    map.ascending(key, |decoder| Ok(PackId::from_bytes(cbor::read_array(what, decoder)?)))
}

fn read_objects(map: &mut MapReader<'_, '_>, key: u64, what: &'static str) -> Result<Vec<ObjectId>> {
    map.ascending(key, |decoder| Ok(ObjectId::from_bytes(cbor::read_array(what, decoder)?)))
}

impl Record for Condemned {
    const WHAT: &'static str = "condemned list";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.bytes(1, self.collection.as_bytes());
        map.i64(2, self.time_secs);
        map.list(3, &self.packs, |out, pack| cbor::push_bytes(out, pack.as_bytes()));
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        Ok(Self {
            collection: CollectionId::from_bytes(map.array(1)?),
            time_secs: map.i64(2)?,
            packs: read_packs(map, 3, Self::WHAT)?,
            extra: map.extra()?,
        })
    }
}

impl Record for Swept {
    const WHAT: &'static str = "sweep";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.bytes(1, self.collection.as_bytes());
        map.i64(2, self.time_secs);
        map.list(3, &self.dead, |out, pack| cbor::push_bytes(out, pack.as_bytes()));
        map.list(4, &self.void, |out, session| cbor::push_bytes(out, session.as_bytes()));
        map.list(5, &self.counted, |out, session| cbor::push_bytes(out, session.as_bytes()));
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        let collection = CollectionId::from_bytes(map.array(1)?);
        let time_secs = map.i64(2)?;
        let dead = read_packs(map, 3, Self::WHAT)?;
        let mut sessions =
            |key| map.ascending(key, |decoder| Ok(SessionId::from_bytes(cbor::read_array(Self::WHAT, decoder)?)));
        let (void, counted) = (sessions(4)?, sessions(5)?);
        if counted.iter().any(|session| void.binary_search(session).is_ok()) {
            return Err(DecodeError::malformed(Self::WHAT, "a session is void and counts"));
        }
        Ok(Self { collection, time_secs, dead, void, counted, extra: map.extra()? })
    }
}

impl Record for Done {
    const WHAT: &'static str = "collection end";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.bytes(1, self.collection.as_bytes());
        map.i64(2, self.time_secs);
        map.list(3, &self.sweeps, |out, sweep| cbor::push_bytes(out, sweep.as_bytes()));
        map.list(4, &self.seen_notes, |out, note| cbor::push_bytes(out, note.as_bytes()));
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        Ok(Self {
            collection: CollectionId::from_bytes(map.array(1)?),
            time_secs: map.i64(2)?,
            sweeps: read_objects(map, 3, Self::WHAT)?,
            seen_notes: read_objects(map, 4, Self::WHAT)?,
            extra: map.extra()?,
        })
    }
}

/// What a note says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoteClaim {
    /// A snapshot is forgotten; it may be undeleted until the time given.
    Forgotten {
        /// The snapshot's session.
        session: SessionId,
        /// BLAKE3 of its commit.
        commit: ObjectId,
        /// End of the undelete window, seconds since 1970.
        until_secs: i64,
    },
    /// Packs were read and every chunk in them recomputed.
    Verified {
        /// What the index says of them, in ascending order.
        descriptions: Vec<DescriptionId>,
        /// Notes of damage that no longer holds: their packs were found whole. In ascending order.
        mended: Vec<ObjectId>,
    },
    /// Chunks in a pack do not open to their ids.
    Damaged {
        /// The chunks, in ascending order.
        chunks: Vec<ChunkId>,
        /// The pack.
        pack: PackId,
    },
    /// A snapshot cannot be whole any more; what it still has stays live.
    Quarantined {
        /// The snapshot's session.
        session: SessionId,
    },
    /// Something worth keeping: an action and its details, in words.
    Audit {
        /// What was done, such as `restore`.
        action: String,
        /// To what, by whom, with what result.
        detail: String,
    },
}

/// `notes/<hash>`: one statement about other objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// When, seconds since 1970.
    pub time_secs: i64,
    /// The newest notes the signer had seen, in ascending order.
    pub seen: Vec<ObjectId>,
    /// What it says.
    pub claim: NoteClaim,
    /// Fields from a newer program.
    pub extra: Extra,
}

impl Record for Note {
    const WHAT: &'static str = "note";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        let kind = match self.claim {
            NoteClaim::Forgotten { .. } => 1,
            NoteClaim::Verified { .. } => 2,
            NoteClaim::Damaged { .. } => 3,
            NoteClaim::Quarantined { .. } => 4,
            NoteClaim::Audit { .. } => 5,
        };
        map.u64(1, kind);
        map.i64(2, self.time_secs);
        map.list(3, &self.seen, |out, note| cbor::push_bytes(out, note.as_bytes()));
        match &self.claim {
            NoteClaim::Forgotten { session, commit, until_secs } => {
                map.bytes(4, session.as_bytes());
                map.bytes(5, commit.as_bytes());
                map.i64(6, *until_secs);
            }
            NoteClaim::Verified { descriptions, mended } => {
                map.list(7, descriptions, |out, description| cbor::push_bytes(out, description.as_bytes()));
                map.list(12, mended, |out, note| cbor::push_bytes(out, note.as_bytes()));
            }
            NoteClaim::Damaged { chunks, pack } => {
                map.list(8, chunks, |out, chunk| cbor::push_bytes(out, chunk.as_bytes()));
                map.bytes(9, pack.as_bytes());
            }
            NoteClaim::Quarantined { session } => map.bytes(4, session.as_bytes()),
            NoteClaim::Audit { action, detail } => {
                map.text(10, action);
                map.text(11, detail);
            }
        }
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        let kind = map.u64(1)?;
        let time_secs = map.i64(2)?;
        let seen = read_objects(map, 3, Self::WHAT)?;
        let claim = match kind {
            1 => NoteClaim::Forgotten {
                session: SessionId::from_bytes(map.array(4)?),
                commit: ObjectId::from_bytes(map.array(5)?),
                until_secs: map.i64(6)?,
            },
            2 => NoteClaim::Verified {
                descriptions: map
                    .ascending(7, |decoder| Ok(DescriptionId::from_bytes(cbor::read_array(Self::WHAT, decoder)?)))?,
                mended: read_objects(map, 12, Self::WHAT)?,
            },
            3 => NoteClaim::Damaged {
                chunks: map.ascending(8, |decoder| Ok(ChunkId::from_bytes(cbor::read_array(Self::WHAT, decoder)?)))?,
                pack: PackId::from_bytes(map.array(9)?),
            },
            4 => NoteClaim::Quarantined { session: SessionId::from_bytes(map.array(4)?) },
            5 => NoteClaim::Audit { action: map.text(10)?.to_owned(), detail: map.text(11)?.to_owned() },
            other => return Err(DecodeError::unsupported(Self::WHAT, format!("kind {other}"))),
        };
        if matches!(&claim, NoteClaim::Damaged { chunks, .. } if chunks.is_empty()) {
            return Err(DecodeError::malformed(Self::WHAT, "no chunk is damaged"));
        }
        Ok(Self { time_secs, seen, claim, extra: map.extra()? })
    }
}

/// One object kept verbatim in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogItem {
    /// Its full name.
    pub name: String,
    /// Its stored bytes.
    pub stored: Vec<u8>,
}

/// `log/<hash>`: many commits, notes, sweeps and ends of collections in one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// When, seconds since 1970.
    pub time_secs: i64,
    /// One more than the highest of the logs that were there.
    pub generation: u64,
    /// The objects, in ascending order of name.
    pub items: Vec<LogItem>,
    /// Fields from a newer program.
    pub extra: Extra,
}

impl Record for Log {
    const WHAT: &'static str = "log";

    fn encode_map(&self, map: &mut MapWriter<'_>) {
        map.i64(1, self.time_secs);
        map.u64_unless_zero(2, self.generation);
        map.list(3, &self.items, |out, item| {
            out.push(0x82);
            cbor::push_text(out, &item.name);
            cbor::push_bytes(out, &item.stored);
        });
        map.extra(&self.extra);
    }

    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
        const WHAT: &str = Log::WHAT;
        let time_secs = map.i64(1)?;
        let generation = map.u64_or_zero(2)?;
        let items = map.list(3, |decoder| {
            if decoder.array().map_err(|error| cbor::fault(WHAT, &error))? != Some(2) {
                return Err(DecodeError::malformed(WHAT, "an item is not a name and an object"));
            }
            let name = cbor::read_text(WHAT, decoder)?.to_owned();
            Ok(LogItem { name, stored: cbor::read_bytes(WHAT, decoder)?.to_vec() })
        })?;
        if !items.is_sorted_by(|a, b| a.name < b.name) {
            return Err(DecodeError::malformed(WHAT, "items out of order or repeated"));
        }
        Ok(Self { time_secs, generation, items, extra: map.extra()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<R: Record + PartialEq + std::fmt::Debug>(record: R) {
        let bytes = cbor::encode(&record);
        assert_eq!(cbor::decode::<R>(&bytes), Ok(record));
        for length in 0..bytes.len() {
            assert!(cbor::decode::<R>(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn every_record_decodes_to_what_was_encoded_and_no_prefix_of_it_does() {
        let collection = CollectionId::from_bytes([1; 16]);
        let session = SessionId::from_bytes([2; 16]);
        let packs = vec![PackId::from_bytes([3; 32]), PackId::from_bytes([4; 32])];
        let object = ObjectId::from_bytes([5; 32]);
        let extra = Extra::default;
        round_trip(Condemned { collection, time_secs: 1, packs: packs.clone(), extra: extra() });
        let counted = vec![SessionId::from_bytes([3; 16])];
        let swept =
            Swept { collection, time_secs: 1, dead: packs.clone(), void: vec![session], counted, extra: extra() };
        assert!(cbor::decode::<Swept>(&cbor::encode(&Swept { counted: vec![session], ..swept.clone() })).is_err());
        round_trip(swept);
        round_trip(Done { collection, time_secs: 1, sweeps: vec![object], seen_notes: vec![], extra: extra() });
        for claim in [
            NoteClaim::Forgotten { session, commit: object, until_secs: 9 },
            NoteClaim::Verified { descriptions: vec![DescriptionId::from_bytes([7; 32])], mended: vec![object] },
            NoteClaim::Damaged { chunks: vec![ChunkId::from_bytes([6; 32])], pack: packs[0] },
            NoteClaim::Quarantined { session },
            NoteClaim::Audit { action: "restore".into(), detail: "x".into() },
        ] {
            round_trip(Note { time_secs: 2, seen: vec![object], claim, extra: extra() });
        }
        let item = LogItem { name: "snapshots/00".into(), stored: vec![1, 2] };
        round_trip(Log { time_secs: 3, generation: 2, items: vec![item], extra: extra() });
    }

    #[test]
    fn a_list_out_of_order_is_refused() {
        let packs = vec![PackId::from_bytes([4; 32]), PackId::from_bytes([3; 32])];
        let record =
            Condemned { collection: CollectionId::from_bytes([1; 16]), time_secs: 1, packs, extra: Extra::default() };
        assert!(cbor::decode::<Condemned>(&cbor::encode(&record)).is_err());
    }
}
