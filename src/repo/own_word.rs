//! A pack by what it says of itself, without an index: its directory, and all that is in it (SPEC §7.3).

use super::Repository;
use super::content::open_frame_of;
use super::directory::read_tail;
use super::frames::{span_bytes_max, spans};
use super::pack_writer::kind_of_chunks;
use super::reader::FrameAt;
use crate::crypto::ident::ChunkKind;
use crate::crypto::seal;
use crate::error::{Context, Error, Kind, Result};
use crate::format::pack::{Directory, Frame, Trailer};
use crate::format::segment::{Origin, PackEntry};
use crate::id::{ChunkId, PackId};
use crate::storage::{ErrorKind, Listed};

/// A pack whose directory was opened.
#[derive(Debug)]
pub struct OwnWord<'r> {
    repo: &'r Repository,
    name: String,
    /// Its name.
    pub id: PackId,
    /// Its length.
    pub stored_bytes: u32,
    /// What locates its directory.
    pub trailer: Trailer,
    /// What is in it.
    pub directory: Directory,
    /// Where its directory begins.
    body_bytes: u64,
}

/// What is in a pack.
#[derive(Debug)]
pub enum Part<'b> {
    /// A chunk that has its id.
    Chunk(ChunkKind, ChunkId, &'b [u8]),
    /// A copy of a snapshot record. Nobody has signed it.
    Record(&'b [u8]),
}

impl<'r> OwnWord<'r> {
    /// Reads the end of a pack as it was listed. `None` when it is gone; [`Kind::Damaged`] when it does not say.
    pub fn of(repo: &'r Repository, id: PackId, object: &Listed) -> Result<Option<Self>> {
        let what = || format!("cannot read pack `{}`", object.name);
        let Ok(stored_bytes) = u32::try_from(object.bytes) else {
            return Err(Error::new(Kind::Damaged, what()).because("it is longer than a pack can be"));
        };
        let mut tail = Vec::new();
        let read = read_tail(object.bytes, &mut tail, |offset, bytes, into| {
            repo.storage.get_range_into(&object.name, offset, bytes, into).context(what)
        });
        match read {
            Err(error) if error.storage_kind() == Some(ErrorKind::NotFound) => return Ok(None),
            read => read?,
        }
        let (trailer, directory, end) = repo.open_directory(&tail, object.bytes).context(what)?;
        let (name, body_bytes) = (object.name.clone(), object.bytes - end);
        Ok(Some(Self { repo, name, id, stored_bytes, trailer, directory, body_bytes }))
    }

    /// The session it says it is of. Nobody has signed that.
    pub fn origin(&self) -> Origin {
        let Trailer { session, epoch, .. } = self.trailer;
        let Directory { credential, ref envelope, .. } = self.directory;
        Origin { session, epoch, credential, envelope: envelope.clone() }
    }

    /// What an index would have to say of it.
    pub fn entry(&self) -> PackEntry {
        PackEntry {
            id: self.id,
            origin: 0,
            stored_bytes: self.stored_bytes,
            salt: self.trailer.salt,
            frame_commitment: self.trailer.frame_commitment,
            frames: self.directory.frames.clone(),
        }
    }

    /// Reads all of it, a few frames at a time: it is what its name says, every frame opens under its session's
    /// secret, and every chunk has its id. `each` is given what is whole, chunks and the copy of a snapshot
    /// record. Takes an owner. [`Kind::Damaged`] in the end when anything was not so.
    pub fn read_whole(&self, mut each: impl FnMut(Part<'_>) -> Result<()>) -> Result<()> {
        let what = || format!("cannot read pack `{}`", self.name);
        let Origin { session, epoch, credential, envelope } = self.origin();
        let secret = self.repo.keys.open_session_secret(&session, &epoch, &credential, &envelope).context(what)?;
        let derived = secret.derive_salted(&self.trailer.salt, "pack frames");
        let key = seal::committed(derived, &self.trailer.frame_commitment, "pack").context(what)?;
        let mut hasher = blake3::Hasher::new();
        let (mut sealed, mut plain) = (Vec::new(), Vec::new());
        let mut damage = None;
        let places = self.places();
        for span in spans(&places, span_bytes_max(&*self.repo.storage)) {
            let (first, last) = (&places[span.start], &places[span.end - 1]);
            let bytes = u64::from(last.offset) + u64::from(last.sealed) - u64::from(first.offset);
            self.range(first.offset.into(), bytes, &mut sealed)?;
            hasher.update(&sealed);
            let mut rest = &mut sealed[..];
            for ordinal in span {
                let (at, frame) = (&places[ordinal], &self.directory.frames[ordinal]);
                let (own, behind) = rest.split_at_mut(at.sealed as usize);
                rest = behind;
                let done = open_frame_of(&key, &self.repo.config.repo, at, own, &mut plain)
                    .and_then(|opened| self.parts(frame, opened, &mut each));
                match done {
                    Err(error) if error.kind() == Kind::Damaged => drop(damage.get_or_insert(error)),
                    done => done?,
                }
            }
        }
        self.range(self.body_bytes, u64::from(self.stored_bytes) - self.body_bytes, &mut sealed)?;
        hasher.update(&sealed);
        if let Some(damage) = damage {
            return Err(damage).context(what);
        }
        match PackId::from_bytes(*hasher.finalize().as_bytes()) == self.id {
            true => Ok(()),
            false => Err(Error::new(Kind::Damaged, what()).because("its bytes do not have the hash that is its name")),
        }
    }

    /// Gives the parts of an opened frame that are whole; an error when one is not.
    fn parts(&self, frame: &Frame, plain: &[u8], each: &mut impl FnMut(Part<'_>) -> Result<()>) -> Result<()> {
        let Some(kind) = kind_of_chunks(frame.kind) else { return each(Part::Record(plain)) };
        let (mut rest, mut damage) = (plain, None);
        for chunk in &frame.chunks {
            let Some((bytes, behind)) = rest.split_at_checked(chunk.bytes as usize) else { break };
            rest = behind;
            if self.repo.keys.ids.chunk(kind, bytes) == chunk.id {
                each(Part::Chunk(kind, chunk.id, bytes))?;
            } else {
                damage.get_or_insert(chunk.id);
            }
        }
        match damage {
            None => Ok(()),
            Some(id) => Err(Error::new(Kind::Damaged, format!("chunk `{}`: its bytes do not have its id", id.short()))),
        }
    }

    fn range(&self, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Result<()> {
        let what = || format!("cannot read pack `{}`", self.name);
        let read = self.repo.storage.get_range_into(&self.name, offset, bytes, into);
        read.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::Corrupt => Error::new(Kind::Damaged, what()).because(error),
            _ => Error::new(Kind::Failed, what()).because(error),
        })
    }

    fn places(&self) -> Vec<FrameAt> {
        let mut offset = 0_u32;
        let place = |(ordinal, frame): (u32, &Frame)| {
            let at = FrameAt {
                pack: 0,
                frame: ordinal,
                offset,
                sealed: frame.sealed_bytes,
                plain: frame.plain_bytes,
                compression: frame.compression,
                kind: frame.kind as u8,
            };
            offset += frame.sealed_bytes;
            at
        };
        (0_u32..).zip(&self.directory.frames).map(place).collect()
    }
}
