//! Vectors of tables, containers, keys and what is sealed under them.

use esker::crypto::credential::{Credential, SIGNATURE_ALGORITHM};
use esker::crypto::envelope::{KemPrivate, Psk, seal_secret};
use esker::crypto::ident::{ChunkKind, IdKeys};
use esker::crypto::seal;
use esker::crypto::slot::{KdfCost, password_key};
use esker::format::access::grant_info;
use esker::format::cbor;
use esker::format::config::{SLOT_BODY_BYTES, Slot, slot_aad};
use esker::format::pack::{ChunkEntry, Directory, Frame, FrameKind, Trailer, encode_frames, frame_aad, padme};
use esker::format::record::{
    DIGEST_BYTES, RecordKind, SealedRecord, Signed, SignedRecord, push_digest, sealed_aad, signed_message,
};
use esker::format::segment::{Origin, PackEntry, Segment};
use esker::format::session::envelope_info;
use esker::id::{EpochId, ObjectId, PackId, hex};
use esker::world::World;
use sha2::{Digest, Sha512};

use super::make::*;
use super::plain::*;

pub(super) fn frames() -> Vec<Frame> {
    let chunks = vec![ChunkEntry { id: id(1), bytes: 100 }, ChunkEntry { id: id(2), bytes: 200 }];
    vec![
        Frame { kind: FrameKind::Data, compression: 1, sealed_bytes: 140, plain_bytes: 300, chunks },
        Frame {
            kind: FrameKind::Directory,
            compression: 0,
            sealed_bytes: 90,
            plain_bytes: 50,
            chunks: vec![ChunkEntry { id: id(3), bytes: 50 }],
        },
        Frame { kind: FrameKind::Snapshot, compression: 0, sealed_bytes: 50, plain_bytes: 10, chunks: vec![] },
    ]
}

pub(super) fn tables() -> Vec<Vector> {
    let mut table = Vec::new();
    encode_frames(&frames(), &mut table);
    let table =
        good("frame_table_three", "frame table", "a frame of data, of directory nodes and of the snapshot", table);
    let directory = Directory { credential: SIGNER, envelope: vec![0x21; 8], frames: frames(), padding_bytes: 5 };
    let directory = good(
        "pack_directory_padded",
        "pack directory",
        "five bytes of padding; the envelope is a stand-in",
        directory.encode(),
    );
    let trailer = Trailer {
        suite: 1,
        directory_bytes: 250,
        epoch: EPOCH,
        session: SESSION,
        salt: [0x30; 32],
        frame_commitment: [0x31; 32],
        directory_commitment: [0x32; 32],
    };
    let trailer = good("pack_trailer_plain", "pack trailer", "salt and commitments are stand-ins", trailer.encode());
    let segment = Segment {
        origins: vec![Origin { session: SESSION, epoch: EPOCH, credential: SIGNER, envelope: vec![0x21; 8] }],
        packs: vec![PackEntry {
            id: PackId::from_bytes([4; 32]),
            origin: 0,
            stored_bytes: 1000,
            salt: [0x30; 32],
            frame_commitment: [0x31; 32],
            frames: frames(),
        }],
    };
    let mut stray = segment.clone();
    stray.packs[0].origin = 1;
    let mut small = segment.clone();
    small.packs[0].stored_bytes = 279;
    let description = segment.packs[0].description(&segment.origins[0]);
    let described = good("pack_description", "pack description", "of the pack in this index segment", segment.encode())
        .hex("description", description.as_bytes());
    let segment = good("index_segment_one_pack", "index segment", "one origin, one pack", segment.encode());
    let lengths = (0..40).chain([100, 1000, 65_537, 1_000_000, 33_554_433, 1 << 30, (1 << 40) + 1]);
    let lengths: String = lengths.map(|bytes: u64| format!("{bytes} {}\n", padme(bytes))).collect();
    vec![
        described,
        table.refused("frame_table_reserved", "malformed", "a reserved byte of the first row is 1", |bytes| {
            bytes[6] = 1
        }),
        table.refused("frame_table_kind", "unsupported", "frame kind 5", |bytes| bytes[4] = 5),
        table.refused("frame_table_giant", "truncated", "2^32 - 1 rows are claimed", |bytes| bytes[..4].fill(0xff)),
        table.refused(
            "frame_table_not_covered",
            "malformed",
            "the chunks do not add up to the plain length",
            |bytes| bytes[12] += 1,
        ),
        table.refused("frame_table_empty_frame", "malformed", "a frame of no plain bytes", |bytes| {
            bytes[12..16].fill(0);
        }),
        table.refused("frame_table_large_frame", "malformed", "a frame of 32 MiB and a byte", |bytes| {
            bytes[12..16].copy_from_slice(&((32_u32 << 20) + 1).to_le_bytes());
        }),
        table.refused("frame_table_snapshot_chunks", "malformed", "a frame of kind 4 with a chunk", |bytes| {
            bytes[48] = 1
        }),
        table.refused("frame_table_no_chunks", "malformed", "a frame of kind 2 without chunks", |bytes| {
            bytes[32..36].fill(0);
        }),
        table.refused(
            "frame_table_empty_chunk",
            "malformed",
            "the first chunk has no bytes, the second 300",
            |bytes| {
                bytes[84..88].fill(0);
                bytes[120..124].copy_from_slice(&300_u32.to_le_bytes());
            },
        ),
        table.refused("frame_table_large_chunk", "malformed", "one chunk of data of 16 MiB and a byte", |bytes| {
            let large = (16_u32 << 20) + 1;
            bytes[12..16].copy_from_slice(&(large + 200).to_le_bytes());
            bytes[84..88].copy_from_slice(&large.to_le_bytes());
        }),
        table.refused("frame_table_large_pack", "malformed", "33 frames of 32 MiB and 40 bytes", |bytes| {
            let chunks = vec![ChunkEntry { id: id(1), bytes: 32 << 20 }];
            let (kind, plain_bytes) = (FrameKind::Directory, 32 << 20);
            let frame = Frame { kind, compression: 0, sealed_bytes: plain_bytes + 40, plain_bytes, chunks };
            bytes.clear();
            encode_frames(&vec![frame; 33], bytes);
        }),
        table.refused("frame_table_long_frame", "malformed", "341 sealed bytes for 300 plain ones", |bytes| {
            bytes[8..12].copy_from_slice(&341_u32.to_le_bytes());
        }),
        table.refused("frame_table_no_text", "malformed", "40 sealed bytes, of which the text has none", |bytes| {
            bytes[8..12].copy_from_slice(&40_u32.to_le_bytes());
        }),
        table.refused("frame_table_trailing_byte", "malformed", "a byte behind the chunks", |bytes| bytes.push(0)),
        table.refused("frame_table_cut", "truncated", "the last byte is missing", |bytes| {
            bytes.truncate(bytes.len() - 1)
        }),
        table,
        directory.refused("pack_directory_padding", "malformed", "the last byte of padding is 1", |bytes| {
            *bytes.last_mut().unwrap() = 1;
        }),
        directory.refused("pack_directory_cut", "truncated", "cut within the envelope", |bytes| bytes.truncate(40)),
        directory.refused("pack_directory_kind", "unsupported", "a frame of kind 5", |bytes| bytes[46] = 5),
        directory,
        trailer.refused("pack_trailer_large_directory", "malformed", "a directory of 128 MiB and a byte", |bytes| {
            bytes[128..132].copy_from_slice(&((128_u32 << 20) + 1).to_le_bytes());
        }),
        trailer.refused("pack_trailer_suite", "unsupported", "suite 2", |bytes| bytes[132] = 2),
        trailer.refused("pack_trailer_reserved", "malformed", "a reserved byte is 1", |bytes| bytes[133] = 1),
        trailer.refused("pack_trailer_magic", "malformed", "the last byte is 2", |bytes| bytes[143] = 2),
        trailer.refused("pack_trailer_cut", "truncated", "the first byte is missing", |bytes| {
            bytes.drain(..1);
        }),
        trailer,
        segment.refused("index_segment_small_pack", "malformed", "frames of 280 bytes in a pack of 279", |bytes| {
            *bytes = small.encode();
        }),
        segment.refused("index_segment_kind", "unsupported", "a frame of kind 5", |bytes| {
            let at = bytes.len() - 3 * 36 - 3 * 16;
            bytes[at] = 5;
        }),
        segment
            .refused("index_segment_giant", "truncated", "2^32 - 1 origins are claimed", |bytes| bytes[..4].fill(0xff)),
        segment.refused("index_segment_trailing_byte", "malformed", "a byte behind the packs", |bytes| bytes.push(0)),
        segment.refused("index_segment_stray_origin", "malformed", "origin 1 of one", |bytes| *bytes = stray.encode()),
        segment.refused("index_segment_cut", "truncated", "the last byte is missing", |bytes| {
            bytes.truncate(bytes.len() - 1)
        }),
        segment,
        good("index_segment_empty", "index segment", "nothing", Segment::default().encode()),
        good("padme_lengths", "padded lengths", "a length and its padded length on each line", lengths),
    ]
}

/// The text of a sealed record, signed; `name` is empty for kinds that are named by their hash.
pub(super) fn signed_text(kind: RecordKind, name: &str, body: &[u8]) -> Vec<u8> {
    let credential = Credential::from_seed(SEED.clone());
    let signature = credential.sign(&signed_message(&REPO, kind, name, &EPOCH, body));
    Signed { credential: credential.id(), algorithm: SIGNATURE_ALGORITHM, signature, body }.encode()
}

/// A sealed record of this text.
pub(super) fn seal_text(kind: RecordKind, name: &str, text: &[u8]) -> Vec<u8> {
    let salt = [0x33; 32];
    let key = INDEX_KEY.derive_salted(&salt, &kind.key_purpose());
    let nonce = seal::hedged_nonce(&[0x34; 32], 0, blake3::hash(text).as_bytes());
    let mut sealed = Vec::new();
    seal::seal_into(&key.key, nonce, &sealed_aad(&REPO, kind, name, &EPOCH), text, &mut sealed);
    let record =
        SealedRecord { kind, suite: seal::SUITE, epoch: EPOCH, salt, commitment: key.commitment, sealed: &sealed };
    let mut stored = record.encode();
    push_digest(kind, &mut stored);
    stored
}

fn sign_record(kind: RecordKind, name: &str, body: &[u8]) -> Vec<u8> {
    let message = signed_message(&REPO, kind, name, &EpochId::from_bytes([0; 16]), body);
    let signature = Credential::from_seed(SEED.clone()).sign(&message);
    let mut stored = SignedRecord { kind, algorithm: SIGNATURE_ALGORITHM, body, signature }.encode();
    push_digest(kind, &mut stored);
    stored
}

/// The folder of a kind that is named by its hash, or the whole name of another.
fn name_of(kind: RecordKind) -> String {
    match kind {
        RecordKind::Config => "config".into(),
        RecordKind::Statement => "access/".into(),
        RecordKind::Session => format!("sessions/{SESSION}"),
        RecordKind::Commit => format!("snapshots/{SESSION}"),
        RecordKind::Segment => "index/".into(),
        RecordKind::Flag => format!("flags/{SESSION}/{COLLECTION}"),
        RecordKind::Condemned => format!("gc/{COLLECTION}/condemned"),
        RecordKind::Swept => format!("gc/{COLLECTION}/swept"),
        RecordKind::Done => format!("gc/{COLLECTION}/done"),
        RecordKind::Note => "notes/".into(),
        RecordKind::Log => "log/".into(),
    }
}

/// The name that a record of these bytes has, and the one that is bound.
fn names_of(kind: RecordKind, stored: &[u8]) -> String {
    let name = name_of(kind);
    if kind.is_named_by_hash() { format!("{name}{}", ObjectId::of(stored)) } else { name }
}

/// Changes a record, and makes right again what is only there to find damage: its digest or name.
fn changed(
    record: &Vector,
    kind: RecordKind,
    case: &str,
    expect: &'static str,
    comment: &str,
    change: impl FnOnce(&mut Vec<u8>),
) -> Vector {
    let name = format!("{}_{case}", record.name);
    let other = record.refused(&name, expect, comment, |bytes| {
        change(bytes);
        if !kind.is_named_by_hash() {
            digest_again(bytes);
        }
    });
    let named = names_of(kind, &other.bytes);
    other.under(&name, expect, comment, "name", named)
}

/// Where the last byte before the digest is.
fn last(kind: RecordKind, bytes: &[u8]) -> usize {
    bytes.len() - 1 - if kind.is_named_by_hash() { 0 } else { DIGEST_BYTES }
}

fn container(object: &'static str, kind: RecordKind, comment: &'static str, body: &[u8], stored: Vec<u8>) -> Vector {
    let verifying = Credential::from_seed(SEED.clone()).public().verifying;
    let name = names_of(kind, &stored);
    good(&format!("{object}_{}", kind.what()).replace([' ', '-'], "_"), object, comment, stored)
        .with("kind", kind.what())
        .with("name", name)
        .hex("repo", REPO.as_bytes())
        .hex("verifying", verifying)
        .hex("body", body)
}

fn sealed_container(kind: RecordKind, body: &[u8]) -> Vector {
    let bound = if kind.is_named_by_hash() { String::new() } else { name_of(kind) };
    let comment =
        if kind.is_named_by_hash() { "named by its hash; no digest" } else { "named by ids; a digest at the end" };
    container("sealed record", kind, comment, body, seal_text(kind, &bound, &signed_text(kind, &bound, body)))
        .hex("index_key", INDEX_KEY.expose())
        .hex("credential", Credential::from_seed(SEED.clone()).id().as_bytes())
}

/// What every container is refused for, whatever its kind.
fn common_faults(record: &Vector, kind: RecordKind, last_is: &str) -> Vec<Vector> {
    let other_name = format!("{}{}", name_of(kind), object(0));
    let misnamed = if kind.is_named_by_hash() { "wrong identity" } else { "not authentic" };
    let mut all = vec![
        changed(record, kind, "cut", "truncated", "the last byte before the digest is missing", |bytes| {
            bytes.remove(last(kind, bytes));
        }),
        changed(record, kind, "magic", "malformed", "the magic is of version 2", |bytes| bytes[7] = 2),
        changed(record, kind, "reserved", "malformed", "a reserved byte is 1", |bytes| bytes[10] = 1),
        changed(record, kind, "unknown_kind", "unsupported", "kind 99", |bytes| bytes[8] = 99),
        changed(record, kind, "other_kind", "malformed", "a kind that its name does not ask for", |bytes| {
            bytes[8] = if kind == RecordKind::Note { 4 } else { 10 };
        }),
        changed(record, kind, "algorithm", "unsupported", "suite or algorithm 2", |bytes| bytes[9] = 2),
        changed(record, kind, "changed", "not authentic", last_is, |bytes| {
            let at = last(kind, bytes);
            bytes[at] ^= 1;
        }),
        changed(record, kind, "long", "malformed", "a byte behind the last field", |bytes| {
            bytes.insert(last(kind, bytes) + 1, 0);
        }),
        record.under(&format!("{}_renamed", record.name), misnamed, "the name of another object", "name", other_name),
    ];
    if !kind.is_named_by_hash() {
        all.push(record.refused(&format!("{}_digest", record.name), "malformed", "its digest differs", |bytes| {
            *bytes.last_mut().unwrap() ^= 1;
        }));
        all.push(record.refused(
            &format!("{}_short", record.name),
            "truncated",
            "fewer bytes than a digest",
            |bytes| {
                bytes.truncate(31);
            },
        ));
    }
    all
}

pub(super) fn containers() -> Vec<Vector> {
    let plain = [sessions(), collections(), access(), tables()].concat();
    let body =
        |name: &str| plain.iter().find(|vector| vector.name == name).expect("a vector of the body").bytes.clone();
    let mut all = Vec::new();
    for (kind, of) in [
        (RecordKind::Session, "session_announcement"),
        (RecordKind::Commit, "commit_snapshot"),
        (RecordKind::Segment, "index_segment_one_pack"),
        (RecordKind::Flag, "flag_asked"),
        (RecordKind::Condemned, "condemned_packs"),
        (RecordKind::Swept, "swept_packs"),
        (RecordKind::Done, "done_collection"),
        (RecordKind::Note, "note_quarantined"),
        (RecordKind::Log, "log_items"),
    ] {
        let record = sealed_container(kind, &body(of));
        all.extend(common_faults(&record, kind, "a bit of the tag is flipped"));
        all.push(record);
    }
    for (kind, of) in [(RecordKind::Config, "config_plain"), (RecordKind::Statement, "statement_slot_removed")] {
        let bound = if kind.is_named_by_hash() { String::new() } else { name_of(kind) };
        let body = body(of);
        let record = container("signed record", kind, "in clear", &body, sign_record(kind, &bound, &body));
        all.extend(common_faults(&record, kind, "a bit of the signature is flipped"));
        all.push(changed(&record, kind, "body_changed", "not authentic", "a bit of the body is flipped", |bytes| {
            bytes[30] ^= 1;
        }));
        all.push(record);
    }
    all.extend(signed_inside(&body("commit_snapshot")));
    all
}

/// What only shows when a sealed record has been opened, or is tried with another key.
fn signed_inside(body: &[u8]) -> Vec<Vector> {
    let kind = RecordKind::Commit;
    let (record, name) = (sealed_container(kind, body), name_of(kind));
    let text = signed_text(kind, &name, body);
    let resealed = |case: &str, expect, comment, change: &dyn Fn(&mut Vec<u8>)| {
        let mut text = text.clone();
        change(&mut text);
        record.refused(case, expect, comment, |bytes| *bytes = seal_text(kind, &name, &text))
    };
    let other = hex(&Credential::from_seed(PRIVATE.clone()).public().verifying);
    vec![
        resealed("sealed_record_signature_algorithm", "unsupported", "signature algorithm 2", &|text| text[32] = 2),
        resealed("sealed_record_signature", "not authentic", "a bit of the signature is flipped", &|text| {
            text[40] ^= 1
        }),
        resealed("sealed_record_body", "not authentic", "another body than the one signed", &|text| text[100] ^= 1),
        resealed("sealed_record_short_text", "truncated", "the text ends in the signature", &|text| text.truncate(96)),
        record.under(
            "sealed_record_other_key",
            "not authentic",
            "the commitment is another key's",
            "index_key",
            hex(&[0; 32]),
        ),
        record.under("sealed_record_other_signer", "not authentic", "another credential's key", "verifying", other),
    ]
}

pub(super) fn slot(name: &str, cost: KdfCost, body: [u8; SLOT_BODY_BYTES]) -> Vector {
    let (salt, password) = ([0x35; 32], "correct horse");
    let root_verifying = Credential::from_seed(SEED.clone()).public().verifying;
    let key = password_key(password.as_bytes(), &salt, cost).unwrap().derive_salted(&salt, "slot");
    let mut slot = Slot {
        suite: seal::SUITE,
        memory_kib: cost.memory_kib,
        passes: cost.passes,
        lanes: cost.lanes,
        salt,
        commitment: key.commitment,
        sealed: vec![],
    };
    let nonce = seal::hedged_nonce(&[0x36; 32], 0, blake3::hash(&body).as_bytes());
    seal::seal_into(&key.key, nonce, &slot_aad(&REPO, &SLOT, &root_verifying, &slot.header()), &body, &mut slot.sealed);
    good(name, "key slot", "the least cost that is accepted", slot.encode())
        .with("password", password)
        .hex("repo", REPO.as_bytes())
        .hex("slot", SLOT.as_bytes())
        .hex("root_verifying", root_verifying)
        .hex("seed", SEED.expose())
}

fn slots() -> Vec<Vector> {
    let mut body = [0; SLOT_BODY_BYTES];
    body[..32].copy_from_slice(SEED.expose());
    let slot = slot("key_slot_plain", KdfCost::FLOOR, body);
    body[63] = 1;
    let spare = self::slot("", KdfCost::FLOOR, body);
    let changed = |case: &str, expect, comment, change: &dyn Fn(&mut Vec<u8>)| {
        slot.refused(case, expect, comment, |bytes| {
            change(bytes);
            digest_again(bytes);
        })
    };
    let cost =
        |at: usize, value: u32| move |bytes: &mut Vec<u8>| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    vec![
        slot.refused("key_slot_digest", "malformed", "the last byte is flipped", |bytes| {
            *bytes.last_mut().unwrap() ^= 1
        }),
        changed("key_slot_magic", "malformed", "the magic is of version 2", &|bytes| bytes[7] = 2),
        changed("key_slot_reserved", "malformed", "a reserved byte is 1", &|bytes| bytes[10] = 1),
        changed("key_slot_derivation", "unsupported", "key derivation 2", &|bytes| bytes[8] = 2),
        changed("key_slot_suite", "unsupported", "suite 2", &|bytes| bytes[9] = 2),
        changed("key_slot_little_memory", "malformed", "19455 KiB", &cost(12, 19_455)),
        changed("key_slot_much_memory", "malformed", "4 TiB", &cost(12, u32::MAX)),
        changed("key_slot_few_passes", "malformed", "one pass", &cost(16, 1)),
        changed("key_slot_many_passes", "malformed", "17 passes", &cost(16, 17)),
        changed("key_slot_no_lanes", "malformed", "no lanes", &cost(20, 0)),
        changed("key_slot_many_lanes", "malformed", "17 lanes", &cost(20, 17)),
        changed("key_slot_tag", "not authentic", "a bit of the tag is flipped", &|bytes| {
            let at = bytes.len() - DIGEST_BYTES - 1;
            bytes[at] ^= 1;
        }),
        changed("key_slot_commitment", "not authentic", "a bit of the commitment is flipped", &|bytes| bytes[56] ^= 1),
        changed("key_slot_cut", "truncated", "the last byte before the digest is missing", &|bytes| {
            bytes.remove(bytes.len() - DIGEST_BYTES - 1);
        }),
        changed("key_slot_long", "malformed", "a byte before the digest", &|bytes| {
            bytes.insert(bytes.len() - DIGEST_BYTES, 0);
        }),
        slot.refused("key_slot_spare_byte", "malformed", "the last byte behind the seed is 1", |bytes| {
            *bytes = spare.bytes.clone();
        }),
        slot.refused("key_slot_short", "truncated", "fewer bytes than a digest", |bytes| bytes.truncate(31)),
        slot.under("key_slot_password", "not authentic", "another password", "password", "wrong horse".into()),
        slot.under("key_slot_other_root", "not authentic", "another root owner", "root_verifying", hex(&[0; 32])),
        slot.under("key_slot_moved", "not authentic", "another slot's name", "slot", hex(&[0; 16])),
        slot,
    ]
}

pub(super) fn chunk(case: &str, comment: &'static str, kind: ChunkKind, content: &[u8]) -> Vector {
    let kind_name = match kind {
        ChunkKind::Data => "data",
        ChunkKind::Directory => "directory",
        ChunkKind::List => "list",
    };
    good(case, "chunk", comment, content)
        .with("kind", kind_name)
        .hex("id_key", ID_KEY.expose())
        .hex("id", IdKeys::new(&ID_KEY).chunk(kind, content).as_bytes())
}

pub(super) fn derived(case: &str, comment: &'static str, salt: &[u8], purpose: &str) -> Vector {
    let derived = INDEX_KEY.derive_salted(salt, purpose);
    good(case, "derived key", comment, [*derived.key.expose(), derived.commitment].concat())
        .hex("key", INDEX_KEY.expose())
        .hex("salt", salt)
        .with("purpose", purpose)
}

pub(super) fn boundary(case: &str, comment: &'static str, name: &str) -> Vector {
    let level = IdKeys::new(&ID_KEY).boundary_level(name.as_bytes(), 6);
    good(case, "boundary level", comment, name)
        .hex("id_key", ID_KEY.expose())
        .with("bits_per_level", 6)
        .with("level", level)
}

pub(super) fn keys() -> Vec<Vector> {
    let data = chunk("chunk_data", "bytes of a file", ChunkKind::Data, b"hello");
    let ids = IdKeys::new(&ID_KEY);
    let last = (0..).map(|n| format!("name-{n}")).find(|name| ids.boundary_level(name.as_bytes(), 6) == 1).unwrap();
    let salt = [0x37; 32];
    let password = password_key(b"correct horse", &salt, KdfCost::FLOOR).unwrap();
    let credential = Credential::from_seed(SEED.clone());
    let public = [&credential.public().verifying[..], credential.public().sealing.as_bytes()].concat();
    let signature = good("signature_plain", "signature", "Ed25519 over the message", credential.sign(b"message"))
        .hex("verifying", credential.public().verifying)
        .hex("message", b"message");
    let mut all = slots();
    all.extend(strict_signatures());
    all.extend([
        data.under(
            "chunk_other_kind",
            "wrong identity",
            "a list node of the same bytes is another chunk",
            "kind",
            "list".into(),
        ),
        data.refused("chunk_changed", "wrong identity", "a bit is flipped", |bytes| bytes[0] ^= 1),
        data,
        chunk("chunk_empty", "no bytes", ChunkKind::Data, b""),
        chunk("chunk_directory", "an empty directory node", ChunkKind::Directory, &[0xa0]),
        chunk("chunk_list", "the same bytes as a list node", ChunkKind::List, &[0xa0]),
        derived("derived_key_plain", "key, then commitment; without a salt", &[], "id data"),
        derived("derived_key_salted", "key, then commitment; with a salt", &salt, "pack frames"),
        derived("derived_key_record", "the key of a commit", &salt, &RecordKind::Commit.key_purpose()),
        good("link_group_path", "link group", "the first path of the group", b"/home/a.txt")
            .hex("id_key", ID_KEY.expose())
            .hex("link_group", ids.link_group(b"/home/a.txt").as_bytes()),
        boundary("boundary_level_within", "no node ends before this name", "name-0"),
        boundary("boundary_level_ends", "a node of level 0 ends before this name", &last),
        good("password_key_floor", "password key", "Argon2id at the least cost that is accepted", *password.expose())
            .with("password", "correct horse")
            .hex("salt", salt)
            .with("memory_kib", KdfCost::FLOOR.memory_kib)
            .with("passes", KdfCost::FLOOR.passes)
            .with("lanes", KdfCost::FLOOR.lanes),
        good("credential_public", "credential", "verifying key, then sealing key", public)
            .hex("seed", SEED.expose())
            .hex("credential", credential.id().as_bytes()),
        signature.refused("signature_changed", "not authentic", "a bit is flipped", |bytes| bytes[0] ^= 1),
        signature
            .refused("signature_cut", "truncated", "the last byte is missing", |bytes| bytes.truncate(bytes.len() - 1)),
        signature.under("signature_other_message", "not authentic", "another message", "message", hex(b"massage")),
        signature,
    ]);
    all
}

/// What only a strict verifier refuses: each satisfies the equation `S B = R + k A` (RFC 8032 §5.1.7).
fn strict_signatures() -> Vec<Vector> {
    // The order of the base point, 2^252 + 27742317777372353535851937790883648493, little-endian.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut base = [0x66; 32];
    base[0] = 0x58;
    let number = |n: u8| {
        let mut bytes = [0; 32];
        bytes[0] = n;
        bytes
    };
    let neutral = number(1);
    let case = |name, comment, verifying: [u8; 32], r: [u8; 32], s: [u8; 32]| {
        good("", "signature", "", [r, s].concat()).hex("verifying", verifying).hex("message", b"message").refused(
            name,
            "not authentic",
            comment,
            |_| (),
        )
    };
    // A is the neutral point, so k does not matter: S = 1 and R = B.
    let small_key = case("signature_small_key", "the verifying key is of order 1", neutral, base, number(1));
    // A is B, so with R neutral S = k.
    let k: [u8; 64] = Sha512::digest([&neutral[..], &base, b"message"].concat()).into();
    let small_r = case("signature_small_r", "R is of order 1", base, neutral, modulo(&k, &ORDER));
    let credential = Credential::from_seed(SEED.clone());
    let signature = credential.sign(b"message");
    let mut carry = 0_u16;
    let unreduced: [u8; 32] = std::array::from_fn(|at| {
        carry = (carry >> 8) + u16::from(signature[32 + at]) + u16::from(ORDER[at]);
        carry.to_le_bytes()[0]
    });
    let r = *signature.first_chunk().unwrap();
    let unreduced =
        case("signature_unreduced", "S is larger by the order", credential.public().verifying, r, unreduced);
    vec![small_key, small_r, unreduced]
}

/// What is left of a number, little-endian, bit by bit from the top.
fn modulo(number: &[u8; 64], order: &[u8; 32]) -> [u8; 32] {
    let below = |a: &[u8; 32], b: &[u8; 32]| a.iter().rev().lt(b.iter().rev());
    let mut left = [0_u8; 32];
    for bit in (0..512).rev() {
        let mut carry = number[bit / 8] >> (bit % 8) & 1;
        for byte in &mut left {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        if !below(&left, order) {
            let mut borrow = 0_i16;
            for (byte, own) in left.iter_mut().zip(order) {
                let difference = i16::from(*byte) - i16::from(*own) - borrow;
                borrow = i16::from(difference < 0);
                *byte = difference.to_le_bytes()[0];
            }
        }
    }
    left
}

/// A frame sealed as the fourth of a pack, whatever it says of its text.
pub(super) fn frame_of(name: &str, kind: u8, compression: u8, plain: &[u8], text: &[u8]) -> Vector {
    let salt = [0x38; 32];
    let key = SESSION_SECRET.derive_salted(&salt, "pack frames");
    let plain_bytes = u32::try_from(plain.len()).unwrap();
    let kind_of = FrameKind::from_u8(kind).unwrap();
    let frame = Frame { kind: kind_of, compression, sealed_bytes: 0, plain_bytes, chunks: vec![] };
    let nonce = seal::hedged_nonce(&[0x39; 32], 3, blake3::hash(plain).as_bytes());
    let mut bytes = Vec::new();
    seal::seal_into(&key.key, nonce, &frame_aad(&REPO, 3, &frame), text, &mut bytes);
    good(name, "frame", "the fourth frame of a pack", bytes)
        .hex("session_secret", SESSION_SECRET.expose())
        .hex("salt", salt)
        .hex("commitment", key.commitment)
        .hex("repo", REPO.as_bytes())
        .with("ordinal", 3)
        .with("kind", kind)
        .with("compression", compression)
        .with("plain_bytes", plain_bytes)
        .hex("plain", plain)
}

/// "a" 300 times in one zstd frame as §7.2 has it: a window of 1 KiB, then one block, the last, of
/// one byte repeated. By hand, since another version of the library may write another.
pub(super) const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd\x00\x00\x63\x09\x00\x61";

fn frames_sealed() -> Vec<Vector> {
    let raw = frame_of("frame_data", 1, 0, b"hello", b"hello");
    let plain = [b'a'; 300];
    let zstd = frame_of("frame_zstd", 1, 1, &plain, ZSTD);
    let bad = |name: &str, expect, comment, compression, plain: &[u8], text: &[u8]| {
        frame_of(name, 1, compression, plain, text).refused(name, expect, comment, |_| ())
    };
    let changed = |at: usize, to: &[u8]| [&ZSTD[..at], to, &ZSTD[at + 1..]].concat();
    let mut all = vec![
        bad("frame_zstd_longer", "malformed", "it gives 300 bytes, not 299", 1, &plain[..299], ZSTD),
        bad("frame_zstd_shorter", "malformed", "it gives 300 bytes, not 301", 1, &[b'a'; 301], ZSTD),
        bad("frame_zstd_not_smaller", "malformed", "as long as what it stands for", 1, &plain[..ZSTD.len()], ZSTD),
        bad("frame_zstd_checksum", "malformed", "a descriptor that announces a checksum", 1, &plain, &changed(4, &[4])),
        bad("frame_zstd_magic", "malformed", "a skippable frame's magic", 1, &plain, &changed(0, &[0x50])),
        bad("frame_zstd_twice", "malformed", "two zstd frames", 1, &plain, &[ZSTD, ZSTD].concat()),
        bad(
            "frame_zstd_cut",
            "malformed",
            "the last byte of the zstd frame is missing",
            1,
            &plain,
            &ZSTD[..ZSTD.len() - 1],
        ),
        bad("frame_raw_longer", "malformed", "five bytes, not four", 0, b"hell", b"hello"),
        bad("frame_compression", "unsupported", "compression 2", 2, b"hello", b"hello"),
        raw.refused("frame_tag", "not authentic", "a bit of the tag is flipped", |bytes| {
            *bytes.last_mut().unwrap() ^= 1
        }),
        raw.refused("frame_cut", "truncated", "fewer bytes than a nonce and a tag", |bytes| bytes.truncate(39)),
        raw.under("frame_moved", "not authentic", "the first frame of a pack", "ordinal", "0".into()),
        raw.under("frame_length", "not authentic", "said to be of six bytes", "plain_bytes", "6".into()),
        raw.under("frame_commitment", "not authentic", "another key's", "commitment", hex(&[0; 32])),
        raw.under("frame_unknown_kind", "unsupported", "frame kind 5", "kind", "5".into()),
        zstd,
    ];
    for (name, kind) in [("frame_directory", 2), ("frame_list", 3), ("frame_snapshot", 4)] {
        let frame = frame_of(name, kind, 0, b"hello", b"hello");
        all.push(frame.under(&format!("{name}_as_data"), "not authentic", "said to be of data", "kind", "1".into()));
        all.push(frame.refused(&format!("{name}_cut"), "truncated", "fewer bytes than a nonce and a tag", |bytes| {
            bytes.truncate(39);
        }));
        all.push(frame);
    }
    all.push(raw);
    all
}

pub(super) fn envelopes() -> Vec<Vector> {
    let sealed = seal::seal_box(&World::seeded(1), &INDEX_KEY, "credential label", REPO.as_bytes(), b"owner");
    let sealed = good("sealed_box_label", "sealed box", "the label of a credential", sealed)
        .hex("key", INDEX_KEY.expose())
        .with("purpose", "credential label")
        .hex("aad", REPO.as_bytes())
        .hex("plain", b"owner");
    let credential = Credential::from_seed(SEED.clone());
    let grant_info = grant_info(&REPO, &EPOCH, &credential.id());
    let plain = cbor::encode(&secrets(Some(*PRIVATE.expose())));
    let grant = seal_secret(&World::seeded(2), &credential.public().sealing, None, &grant_info, &plain).unwrap();
    let grant = good("grant_owner", "grant", "an epoch's secrets for an owner; HPKE in base mode", grant)
        .hex("seed", SEED.expose())
        .hex("private", credential.sealing().seed().expose())
        .hex("repo", REPO.as_bytes())
        .hex("epoch", EPOCH.as_bytes())
        .hex("info", &grant_info)
        .hex("plain", plain);
    let private = KemPrivate::from_seed(PRIVATE.clone());
    let info = envelope_info(&REPO, &SESSION, &EPOCH, &credential.id());
    let psk = Psk { key: &PSK, id: EPOCH.as_bytes() };
    let envelope =
        seal_secret(&World::seeded(3), &private.public(), Some(psk), &info, SESSION_SECRET.expose()).unwrap();
    let envelope = good("session_envelope_psk", "session envelope", "a session's secret; HPKE in PSK mode", envelope)
        .hex("private", PRIVATE.expose())
        .hex("psk", PSK.expose())
        .hex("psk_id", EPOCH.as_bytes())
        .hex("info", &info)
        .hex("plain", SESSION_SECRET.expose());
    let plain_of = |psk, secret: &[u8]| seal_secret(&World::seeded(3), &private.public(), psk, &info, secret).unwrap();
    let short = plain_of(Some(psk), &[0x1a; 31]);
    let to_credential =
        |plain: &[u8]| seal_secret(&World::seeded(2), &credential.public().sealing, None, &grant_info, plain).unwrap();
    let bare = to_credential(&[0xa0]);
    let newer = to_credential(&{
        let mut secrets = cbor::encode(&secrets(None));
        set(6, [0])(&mut secrets);
        secrets
    });
    let mut all = frames_sealed();
    all.extend([
        sealed.refused("sealed_box_tag", "not authentic", "a bit of the tag is flipped", |bytes| {
            *bytes.last_mut().unwrap() ^= 1
        }),
        sealed.refused("sealed_box_cut", "truncated", "cut within the tag", |bytes| bytes.truncate(100)),
        sealed.refused("sealed_box_commitment", "not authentic", "a bit of it is flipped", |bytes| bytes[40] ^= 1),
        sealed.under("sealed_box_key", "not authentic", "another key", "key", hex(&[0; 32])),
        sealed.under("sealed_box_data", "not authentic", "other associated data", "aad", hex(b"aad")),
        sealed.under("sealed_box_purpose", "not authentic", "another purpose", "purpose", "snapshot".into()),
        sealed,
        grant.refused("grant_tag", "not authentic", "a bit of the tag is flipped", |bytes| {
            *bytes.last_mut().unwrap() ^= 1
        }),
        grant.refused("grant_algorithm", "unsupported", "algorithm 2", |bytes| bytes[0] = 2),
        grant.refused("grant_cut", "truncated", "cut within the tag", |bytes| bytes.truncate(1 + 1120 + 15)),
        grant.refused("grant_no_secrets", "malformed", "the secrets inside are an empty map", |bytes| *bytes = bare),
        grant.refused("grant_unknown_secret", "unsupported", "a field 6 in the secrets inside", |bytes| *bytes = newer),
        grant,
        envelope.refused("session_envelope_short_secret", "malformed", "a secret of 31 bytes", |bytes| *bytes = short),
        envelope.refused("session_envelope_empty", "truncated", "no bytes", |bytes| bytes.clear()),
        envelope.refused("session_envelope_tag", "not authentic", "a bit of the tag is flipped", |bytes| {
            *bytes.last_mut().unwrap() ^= 1
        }),
        envelope.refused("session_envelope_algorithm", "unsupported", "algorithm 2", |bytes| bytes[0] = 2),
        envelope.refused("session_envelope_cut", "truncated", "cut within the encapsulated key", |bytes| {
            bytes.truncate(1120)
        }),
        envelope.under("session_envelope_psk_differs", "not authentic", "another pre-shared key", "psk", hex(&[0; 32])),
        envelope.under("session_envelope_moved", "not authentic", "another session's", "info", hex(b"info")),
        envelope,
    ]);
    all
}
