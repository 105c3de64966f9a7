//! What a session has stored, kept on this machine until it commits.
//!
//! Packs that no commit names are garbage. A run that is killed leaves some, so each session notes
//! every pack it has put, and its secret, in a file that is sealed for its credential alone. The
//! next run of the same backup commits that session as a checkpoint, with these packs, exactly
//! as the killed run would have: it is the same session, only slower, and passes W8 like any. The
//! file is removed as soon as the session has committed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use super::blocks::{BlockReader, BlockWriter, Subject, broken, claim};
use super::record::Place;
use crate::crypto::key::SecretKey;
use crate::format::segment::{Origin, PackEntry, Segment};
use crate::id::{CredentialId, EpochId, SessionId};
use crate::repo::Repository;
use crate::repo::session::Session;
use crate::world::World;

/// Marks of blocks.
const SESSION: u8 = 0;
const PACK: u8 = 1;

fn subject(place: &Place, session: &SessionId) -> Subject {
    let about = [&place.set[..], session.as_bytes()].concat();
    Subject { magic: *b"ESKJRN\x00\x01", purpose: "session journal", about }
}

/// Notes what one session stores. A failure to note costs a later run work, nothing else.
pub(super) struct Journal {
    place: Place,
    session: SessionId,
    start: Zeroizing<Vec<u8>>,
    origin: Origin,
    world: World,
    file: Mutex<Option<BlockWriter>>,
}

impl Journal {
    /// A journal of a session; its file is made with the first pack.
    pub(super) fn new(place: &Place, session: &Session<'_>) -> Self {
        let repo = session.repo();
        let epoch = repo.keys.current_epoch().id;
        // Of one size from the start: what it grew out of would not be wiped.
        let parts = [&session.secret().expose()[..], epoch.as_bytes(), session.envelope()];
        let mut start = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        parts.iter().for_each(|part| start.extend_from_slice(part));
        let origin = Origin {
            session: session.id(),
            epoch,
            credential: repo.keys.credential.id(),
            envelope: session.envelope().to_vec(),
        };
        Self {
            place: place.clone(),
            session: session.id(),
            start,
            origin,
            world: repo.world.clone(),
            file: Mutex::new(None),
        }
    }

    fn path(&self) -> PathBuf {
        self.place.beside("open", &self.session)
    }

    fn begin(&self) -> io::Result<BlockWriter> {
        if let Some(folder) = self.place.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path())?;
        claim(&file, true);
        let subject = subject(&self.place, &self.session);
        let mut writer = BlockWriter::begin(file, &self.place.key, &self.world, subject)?;
        writer.push(SESSION, &self.start)?;
        Ok(writer)
    }

    /// Notes a pack that has been put.
    pub(super) fn stored(&self, pack: &PackEntry) {
        let segment = Segment { origins: vec![self.origin.clone()], packs: vec![pack.clone()] };
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = self.begin().ok();
        }
        if slot.as_mut().is_some_and(|writer| writer.push(PACK, &segment.encode()).is_err()) {
            *slot = None;
        }
    }

    /// Forgets everything: the session has committed, or nothing of it is wanted.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(self.path());
    }
}

/// What a session that did not commit had stored.
pub(super) struct Unfinished {
    /// The session.
    pub(super) session: SessionId,
    /// The key of everything in it.
    pub(super) secret: SecretKey,
    /// The epoch it belongs to.
    pub(super) epoch: EpochId,
    /// That key, sealed to the epoch's public key.
    pub(super) envelope: Vec<u8>,
    /// The packs it has put.
    pub(super) packs: Vec<PackEntry>,
    path: PathBuf,
    /// Held: no other run takes the same session up.
    _file: File,
}

impl Unfinished {
    /// Removes the journal: the session has committed, or can not any more.
    pub(super) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The sessions of a backup set that were stopped before they could commit.
pub(super) fn unfinished(repo: &Repository, place: &Place) -> Vec<Unfinished> {
    let mut found = Vec::new();
    for (path, session) in place.files("open") {
        // Without locks nobody knows whether its run is still at work: then it is left alone.
        let Some(file) = File::open(&path).ok().filter(|file| claim(file, false)) else { continue };
        match read(place, session, &path, file, &repo.keys.credential.id()) {
            Ok(unfinished) => found.push(unfinished),
            // Made in the moment of the kill, or another credential's.
            Err(_) => {
                let _ = std::fs::remove_file(path);
            }
        }
    }
    found
}

fn read(
    place: &Place,
    session: SessionId,
    path: &std::path::Path,
    file: File,
    credential: &CredentialId,
) -> io::Result<Unfinished> {
    let held = file.try_clone()?;
    let mut blocks = BlockReader::open(file, &place.key, subject(place, &session))?;
    let (_, start) = blocks.next(&[SESSION])?.ok_or_else(broken)?;
    let start = Zeroizing::new(start);
    let (secret, rest) = start.split_first_chunk::<32>().ok_or_else(broken)?;
    let (epoch, envelope) = rest.split_first_chunk::<16>().ok_or_else(broken)?;
    let mut packs = Vec::new();
    // A kill may have cut the last block off; those before it count.
    while let Ok(Some((_, block))) = blocks.next(&[PACK]) {
        let segment = Segment::decode(&block).map_err(io::Error::other)?;
        let own = |origin: &Origin| origin.session == session && origin.credential == *credential;
        if !segment.origins.iter().all(own) {
            return Err(broken());
        }
        packs.extend(segment.packs);
    }
    Ok(Unfinished {
        session,
        secret: SecretKey::from_bytes(secret),
        epoch: EpochId::from_bytes(*epoch),
        envelope: envelope.to_vec(),
        packs,
        path: path.to_owned(),
        _file: held,
    })
}
