//! A pack by what it says of itself, without an index: its directory, and all that is in it (SPEC §7.3).

use super::Repository;
use super::content::open_frame_of;
use super::directory::read_tail;
use super::frames::{span_bytes_max, spans};
use super::pack_writer::kind_of_chunks;
use super::reader::FrameAt;
use crate::crypto::seal;
use crate::error::{Context, Error, Kind, Result};
use crate::format::pack::{Directory, Frame, Trailer};
use crate::format::segment::{Origin, PackEntry};
use crate::id::PackId;
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
    /// secret, and every chunk has its id. `each` is given the frames, opened, before that is known of those
    /// behind. Takes an owner. [`Kind::Damaged`] when anything is not so.
    pub fn read_whole(&self, mut each: impl FnMut(&Frame, &[u8]) -> Result<()>) -> Result<()> {
        let what = || format!("cannot read pack `{}`", self.name);
        let Origin { session, epoch, credential, envelope } = self.origin();
        let secret = self.repo.keys.open_session_secret(&session, &epoch, &credential, &envelope).context(what)?;
        let derived = secret.derive_salted(&self.trailer.salt, "pack frames");
        let key = seal::committed(derived, &self.trailer.frame_commitment, "pack").context(what)?;
        let mut hasher = blake3::Hasher::new();
        let (mut sealed, mut plain) = (Vec::new(), Vec::new());
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
                let opened = open_frame_of(&key, &self.repo.config.repo, at, own, &mut plain).context(what)?;
                self.verify(frame, opened).context(what)?;
                each(frame, opened)?;
            }
        }
        self.range(self.body_bytes, u64::from(self.stored_bytes) - self.body_bytes, &mut sealed)?;
        hasher.update(&sealed);
        match PackId::from_bytes(*hasher.finalize().as_bytes()) == self.id {
            true => Ok(()),
            false => Err(Error::new(Kind::Damaged, what()).because("its bytes do not have the hash that is its name")),
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

    /// Every chunk of a frame has its id.
    fn verify(&self, frame: &Frame, plain: &[u8]) -> Result<()> {
        let Some(kind) = kind_of_chunks(frame.kind) else { return Ok(()) };
        let mut rest = plain;
        for chunk in &frame.chunks {
            let right = rest.split_at_checked(chunk.bytes as usize);
            let right = right.filter(|(bytes, _)| self.repo.keys.ids.chunk(kind, bytes) == chunk.id);
            let Some((_, behind)) = right else {
                let what = format!("chunk `{}`: its bytes do not have its id", chunk.id.short());
                return Err(Error::new(Kind::Damaged, what));
            };
            rest = behind;
        }
        Ok(())
    }
}
