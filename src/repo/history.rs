//! What happened in a repository, as its records tell it.
//!
//! Every record is signed, and names the newest of its kind its writer had seen: statements, notes and the
//! commits of each credential are chains of hashes. So what happened cannot be changed afterwards, and what is
//! taken out of it is missed by what came later ([`Repository::gaps`]); only the newest of a chain can go unnoticed
//! by the chain itself, which is what pins are for.

use std::collections::BTreeSet;

use super::Repository;
use super::collections::Word;
use super::content::Reader;
use crate::error::{Error, Kind, Result};
use crate::format::access::{Claim, Role};
use crate::format::gc::NoteClaim;
use crate::format::session::CommitKind;
use crate::id::{CredentialId, EpochId, ObjectId, PackId, SessionId, SlotId};

/// How often everything is read anew while it changes before that is an error.
const TRIES_MAX: usize = 100;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, by the clock of who did it; seconds since 1970.
    pub time_secs: i64,
    /// Who did it.
    pub by: CredentialId,
    /// The record that tells of it.
    pub object: String,
    /// The BLAKE3 of that record's bytes.
    pub hash: ObjectId,
    /// The hashes of the records of its kind that were the newest its writer had seen: what came before it.
    pub previous: Vec<ObjectId>,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A credential was added, or granted epochs it had missed.
    CredentialAdded(CredentialId, Role),
    /// A credential was removed.
    CredentialRemoved(CredentialId),
    /// A password was given to a credential.
    PasswordAdded(CredentialId, SlotId),
    /// A password was taken away.
    PasswordRemoved(SlotId),
    /// New keys for what is stored from then on.
    Rotated(EpochId),
    /// A session committed.
    Committed(SessionId, CommitKind),
    /// A snapshot was forgotten; until when that could be undone.
    Forgotten(SessionId, i64),
    /// So many packs were read whole and found to be so.
    Verified(u64),
    /// So many chunks of a pack were found damaged.
    Damaged(PackId, u64),
    /// A snapshot was said to be past saving.
    Quarantined(SessionId),
    /// A collection decided to delete so many packs, and that so many sessions never committed.
    Collected(u64, u64),
    /// What somebody wrote down: an action, and more about it.
    Said(String, String),
}

/// A record that others name and that is not there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// What it is: `statement`, `note`, or `commit`.
    pub kind: &'static str,
    /// Its hash.
    pub hash: ObjectId,
}

impl Repository {
    /// All that happened, oldest first. Whether a record counts as of now is all one: it was signed.
    pub fn history(&self, reader: &Reader<'_>) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for (hash, statement) in self.access.statements() {
            let what = match &statement.claim {
                Claim::CredentialAdded { role, verifying, sealing, .. } => {
                    let member = self.access.members().find(|(_, member)| {
                        member.public.verifying == *verifying && member.public.sealing.as_bytes()[..] == sealing[..]
                    });
                    let Some((id, _)) = member else { continue };
                    What::CredentialAdded(*id, *role)
                }
                Claim::CredentialRemoved { credential, .. } => What::CredentialRemoved(*credential),
                Claim::SlotAdded { slot, credential, .. } => What::PasswordAdded(*credential, *slot),
                Claim::SlotRemoved { slot } => What::PasswordRemoved(*slot),
                Claim::EpochOpened { epoch, .. } => What::Rotated(*epoch),
            };
            let object = format!("access/{hash}");
            events.push(Event {
                time_secs: statement.time_secs,
                by: statement.signer,
                object,
                hash: *hash,
                previous: statement.seen.clone(),
                what,
            });
        }
        events.extend(reader.commits().headers.values().map(|header| Event {
            time_secs: header.time_secs,
            by: header.credential,
            object: format!("snapshots/{}", header.session),
            hash: header.hash,
            previous: header.previous.clone(),
            what: What::Committed(header.session, header.kind),
        }));
        events.extend(self.words()?);
        events.sort_by(|one, other| (one.time_secs, &one.object).cmp(&(other.time_secs, &other.object)));
        events.dedup_by(|one, other| one.object == other.object);
        Ok(events)
    }

    fn words(&self) -> Result<Vec<Event>> {
        for _ in 0..TRIES_MAX {
            let mut events = Vec::new();
            let read = self.each_word(|name, word| {
                let event = |time_secs, by: &CredentialId, hash: &ObjectId, previous: &[ObjectId], what| Event {
                    time_secs,
                    by: *by,
                    object: name.to_owned(),
                    hash: *hash,
                    previous: previous.to_vec(),
                    what,
                };
                match word {
                    Some(Word::Swept(_, record, hash, signer)) => {
                        let what = What::Collected(record.dead.len() as u64, record.void.len() as u64);
                        events.push(event(record.time_secs, signer, hash, &[], what));
                    }
                    Some(Word::Note(note, hash, signer, _)) => {
                        let what = match &note.claim {
                            NoteClaim::Forgotten { session, until_secs, .. } => What::Forgotten(*session, *until_secs),
                            NoteClaim::Verified { descriptions, .. } => What::Verified(descriptions.len() as u64),
                            NoteClaim::Damaged { chunks, pack } => What::Damaged(*pack, chunks.len() as u64),
                            NoteClaim::Quarantined { session } => What::Quarantined(*session),
                            NoteClaim::Audit { action, detail } => What::Said(action.clone(), detail.clone()),
                        };
                        events.push(event(note.time_secs, signer, hash, &note.seen, what));
                    }
                    _ => {}
                }
            })?;
            if read.is_some() {
                return Ok(events);
            }
        }
        Err(Error::new(Kind::Failed, "cannot read the history: it changes all the time"))
    }

    /// What was taken out of the history: records that later ones name and that are not there.
    pub fn gaps(&self, reader: &Reader<'_>) -> Vec<Gap> {
        let commits = reader.commits();
        let mut there: BTreeSet<ObjectId> = commits.headers.values().map(|header| header.hash).collect();
        there.extend(&commits.void);
        let previous = commits.headers.values().flat_map(|header| &header.previous);
        let commits = previous.filter(|hash| !there.contains(hash)).map(|hash| ("commit", *hash));
        let statements = self.access.lost().iter().map(|hash| ("statement", *hash));
        let notes = reader.collections().lost_notes.iter().map(|hash| ("note", *hash));
        let gaps: BTreeSet<Gap> =
            statements.chain(notes).chain(commits).map(|(kind, hash)| Gap { kind, hash }).collect();
        gaps.into_iter().collect()
    }
}
