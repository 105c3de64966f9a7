//! Index segments: which packs, frames and chunks exist (SPEC §8).
//!
//! The same bytes stand in an `index/` object or, for a small session, inside its commit.
//! A segment repeats each pack's frame table as it stands in the pack's directory, with the
//! pack's salt and commitment, so that one ranged read is all it takes to open a frame.

use super::bytes::Fields;
use super::pack::{Frame, decode_frames, encode_frames};
use super::{DecodeError, Result};
use crate::id::{CredentialId, DescriptionId, EpochId, PackId, SessionId};

/// A session that packs of a segment come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The session.
    pub session: SessionId,
    /// Its epoch.
    pub epoch: EpochId,
    /// Its writer.
    pub credential: CredentialId,
    /// Its secret, sealed to the epoch's public key.
    pub envelope: Vec<u8>,
}

/// A pack and everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackEntry {
    /// Its name.
    pub id: PackId,
    /// Which of the segment's origins it comes from.
    pub origin: u32,
    /// Its stored length.
    pub stored_bytes: u32,
    /// The salt in its trailer.
    pub salt: [u8; 32],
    /// The frame key's commitment in its trailer.
    pub frame_commitment: [u8; 32],
    /// Its frames.
    pub frames: Vec<Frame>,
}

/// An index segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segment {
    /// Where the packs come from.
    pub origins: Vec<Origin>,
    /// The packs.
    pub packs: Vec<PackEntry>,
}

impl Origin {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.session.as_bytes());
        out.extend_from_slice(self.epoch.as_bytes());
        out.extend_from_slice(self.credential.as_bytes());
        out.extend_from_slice(&count(self.envelope.len()));
        out.extend_from_slice(&self.envelope);
    }
}

impl PackEntry {
    /// What goes for all that is said here of the pack: anybody may say something else of it.
    pub fn description(&self, origin: &Origin) -> DescriptionId {
        let mut said = Vec::new();
        origin.encode(&mut said);
        said.extend_from_slice(self.id.as_bytes());
        self.encode_rest(&mut said);
        DescriptionId::from_bytes(blake3::derive_key("esker v1 pack description", &said))
    }

    /// What follows the origin in a segment.
    fn encode_rest(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stored_bytes.to_le_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.frame_commitment);
        encode_frames(&self.frames, out);
    }
}

fn count(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a segment is far smaller").to_le_bytes()
}

impl Segment {
    /// `origin count u32 || origins || pack count u32 || packs`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&count(self.origins.len()));
        self.origins.iter().for_each(|origin| origin.encode(&mut out));
        out.extend_from_slice(&count(self.packs.len()));
        for pack in &self.packs {
            out.extend_from_slice(pack.id.as_bytes());
            out.extend_from_slice(&pack.origin.to_le_bytes());
            pack.encode_rest(&mut out);
        }
        out
    }

    /// Reads a segment.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        const WHAT: &str = "index segment";
        let mut fields = Fields::new(WHAT, bytes);
        let mut segment = Self::default();
        for _ in 0..fields.u32()? {
            let session = SessionId::from_bytes(fields.array()?);
            let epoch = EpochId::from_bytes(fields.array()?);
            let credential = CredentialId::from_bytes(fields.array()?);
            let envelope_bytes = fields.u32()? as usize;
            let envelope = fields.take(envelope_bytes)?.to_vec();
            segment.origins.push(Origin { session, epoch, credential, envelope });
        }
        for _ in 0..fields.u32()? {
            let id = PackId::from_bytes(fields.array()?);
            let origin = fields.u32()?;
            if origin as usize >= segment.origins.len() {
                return Err(DecodeError::malformed(WHAT, format!("origin {origin} is not in the table")));
            }
            let stored_bytes = fields.u32()?;
            let salt = fields.array()?;
            let frame_commitment = fields.array()?;
            let frames = decode_frames(&mut fields)?;
            let body: u64 = frames.iter().map(|frame| u64::from(frame.sealed_bytes)).sum();
            if body > u64::from(stored_bytes) {
                return Err(DecodeError::malformed(WHAT, "frames longer than their pack"));
            }
            segment.packs.push(PackEntry { id, origin, stored_bytes, salt, frame_commitment, frames });
        }
        fields.end()?;
        Ok(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::{ChunkEntry, FrameKind};
    use crate::id::ChunkId;

    #[test]
    fn a_segment_decodes_to_what_was_encoded_and_no_prefix_of_it_does() {
        let frame = Frame {
            kind: FrameKind::Data,
            compression: 0,
            sealed_bytes: 45,
            plain_bytes: 5,
            chunks: vec![ChunkEntry { id: ChunkId::from_bytes([1; 32]), bytes: 5 }],
        };
        let segment = Segment {
            origins: vec![Origin {
                session: SessionId::from_bytes([1; 16]),
                epoch: EpochId::from_bytes([2; 16]),
                credential: CredentialId::from_bytes([3; 32]),
                envelope: vec![4; 7],
            }],
            packs: vec![PackEntry {
                id: PackId::from_bytes([5; 32]),
                origin: 0,
                stored_bytes: 1000,
                salt: [6; 32],
                frame_commitment: [7; 32],
                frames: vec![frame],
            }],
        };
        let bytes = segment.encode();
        assert_eq!(Segment::decode(&bytes), Ok(segment.clone()));
        for length in 0..bytes.len() {
            assert!(Segment::decode(&bytes[..length]).is_err(), "{length}");
        }
        let mut stray = segment;
        stray.packs[0].origin = 1;
        assert!(Segment::decode(&stray.encode()).is_err());
    }
}
