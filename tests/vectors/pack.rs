//! Vectors of whole packs: what a reader has handed out when a later part turns out to be wrong.

use esker::crypto::ident::{ChunkKind, IdKeys};
use esker::crypto::seal;
use esker::format::pack::{ChunkEntry, Directory, Frame, FrameKind, Trailer, directory_aad, frame_aad};
use esker::id::{PackId, hex};

use super::make::*;
use super::sealed::ZSTD;

/// A pack under construction, each part of which a vector can spoil.
struct Draft {
    /// Kind, compression, plain bytes and their text before sealing.
    frames: Vec<(FrameKind, u8, Vec<u8>, Vec<u8>)>,
    /// A byte behind the frames that no frame has.
    stray: Vec<u8>,
    /// Spoils the directory before it is sealed.
    directory: fn(&mut Directory),
    /// Spoils sealed frames, in which nothing else changes.
    sealed: fn(&mut Vec<u8>),
    /// Spoils the trailer, which the directory is bound to.
    trailer: fn(&mut Trailer),
}

fn draft() -> Draft {
    let data = b"hello, pack".to_vec();
    Draft {
        frames: vec![
            (FrameKind::Data, 0, data.clone(), data),
            (FrameKind::Data, 1, vec![b'a'; 300], ZSTD.to_vec()),
            (FrameKind::Directory, 0, vec![0xa0], vec![0xa0]),
        ],
        stray: vec![],
        directory: |_| (),
        sealed: |_| (),
        trailer: |_| (),
    }
}

impl Draft {
    fn stored(self) -> Vec<u8> {
        let salt = [0x3a; 32];
        let (frame_key, directory_key) =
            (SESSION_SECRET.derive_salted(&salt, "pack frames"), INDEX_KEY.derive_salted(&salt, "pack directory"));
        let ids = IdKeys::new(&ID_KEY);
        let (mut body, mut frames) = (Vec::new(), Vec::new());
        for ((ordinal, fresh), (kind, compression, plain, text)) in (0_u32..).zip(0x40..).zip(self.frames) {
            let chunk = if kind == FrameKind::Data { ChunkKind::Data } else { ChunkKind::Directory };
            let bytes = u32::try_from(plain.len()).unwrap();
            let chunks = vec![ChunkEntry { id: ids.chunk(chunk, &plain), bytes }];
            let mut frame = Frame { kind, compression, sealed_bytes: 0, plain_bytes: bytes, chunks };
            let mut sealed = Vec::new();
            let nonce = seal::hedged_nonce(&[fresh; 32], u64::from(ordinal), blake3::hash(&plain).as_bytes());
            seal::seal_into(&frame_key.key, nonce, &frame_aad(&REPO, ordinal, &frame), &text, &mut sealed);
            frame.sealed_bytes = u32::try_from(sealed.len()).unwrap();
            body.extend_from_slice(&sealed);
            frames.push(frame);
        }
        (self.sealed)(&mut body);
        body.extend_from_slice(&self.stray);
        let mut directory = Directory { credential: SIGNER, envelope: vec![0x21; 8], frames, padding_bytes: 7 };
        (self.directory)(&mut directory);
        let plain = directory.encode();
        let mut trailer = Trailer {
            suite: seal::SUITE,
            directory_bytes: u32::try_from(plain.len() + seal::OVERHEAD_BYTES).unwrap(),
            epoch: EPOCH,
            session: SESSION,
            salt,
            frame_commitment: frame_key.commitment,
            directory_commitment: directory_key.commitment,
        };
        (self.trailer)(&mut trailer);
        let nonce = seal::hedged_nonce(&[0x3b; 32], 0, blake3::hash(&plain).as_bytes());
        seal::seal_into(&directory_key.key, nonce, &directory_aad(&REPO, &trailer), &plain, &mut body);
        body.extend_from_slice(&trailer.encode());
        body
    }
}

fn vector(name: &str, comment: &'static str, stored: Vec<u8>) -> Vector {
    let id = PackId::of(&stored);
    good(name, "pack", comment, stored)
        .hex("id", id.as_bytes())
        .hex("repo", REPO.as_bytes())
        .hex("index_key", INDEX_KEY.expose())
        .hex("session_secret", SESSION_SECRET.expose())
        .hex("id_key", ID_KEY.expose())
        .hex("plain", draft().frames.iter().map(|frame| frame.2.clone()).collect::<Vec<_>>().concat())
}

/// A pack that is wrong in one way, and has the name of its bytes.
fn bad(name: &str, expect: &'static str, comment: &'static str, draft: Draft) -> Vector {
    vector(name, comment, draft.stored()).refused(name, expect, comment, |_| ())
}

pub(super) fn vectors() -> Vec<Vector> {
    let first = draft().frames[0].2.clone();
    let second = [&first[..], &draft().frames[1].2].concat();
    let whole =
        vector("pack_whole", "two frames of data, one compressed, and one of a directory node", draft().stored());
    let stored = draft().stored();
    let named = |name: &str, expect, comment, bytes: &[u8]| {
        vector(name, comment, bytes.to_vec()).refused(name, expect, comment, |_| ())
    };
    let mut two_zstd = draft();
    two_zstd.frames[1].3 = [ZSTD, ZSTD].concat();
    let mut newer = draft();
    newer.frames[1].1 = 2;
    vec![
        bad(
            "pack_stray_byte",
            "malformed",
            "a byte between the frames and the directory",
            Draft { stray: vec![0], ..draft() },
        ),
        bad(
            "pack_missing_frame",
            "malformed",
            "the directory names two of the three frames",
            Draft { directory: |directory| drop(directory.frames.pop()), ..draft() },
        ),
        bad(
            "pack_long_directory",
            "malformed",
            "a directory longer than the pack",
            Draft { trailer: |trailer| trailer.directory_bytes = 10_000, ..draft() },
        ),
        bad("pack_suite", "unsupported", "suite 2", Draft { trailer: |trailer| trailer.suite = 2, ..draft() }),
        bad(
            "pack_changed_trailer",
            "not authentic",
            "a bit of the directory's commitment is flipped",
            Draft { trailer: |trailer| trailer.directory_commitment[0] ^= 1, ..draft() },
        ),
        bad(
            "pack_frame_tag",
            "not authentic",
            "a bit of the second frame's tag is flipped",
            Draft { sealed: |body| body[51 + 40 + ZSTD.len() - 1] ^= 1, ..draft() },
        )
        .releasing(&first),
        bad("pack_zstd_twice", "malformed", "two zstd frames in the second frame", two_zstd).releasing(&first),
        bad("pack_frame_compression", "unsupported", "compression 2 in the second frame", newer).releasing(&first),
        bad(
            "pack_other_chunk",
            "wrong identity",
            "the third frame's chunk is said to have another id",
            Draft { directory: |directory| directory.frames[2].chunks[0].id = super::plain::id(1), ..draft() },
        )
        .releasing(&second),
        named("pack_short", "truncated", "shorter than a trailer", &stored[stored.len() - 143..]),
        named(
            "pack_beginning",
            "malformed",
            "a torn upload: the trailer's last byte is missing",
            &stored[..stored.len() - 1],
        ),
        whole.under("pack_renamed", "wrong identity", "another pack's name", "id", hex(&[0; 32])),
        whole.under("pack_other_session", "not authentic", "another session's secret", "session_secret", hex(&[0; 32])),
        whole,
    ]
}
