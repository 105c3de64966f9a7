//! Vectors of tables, containers, keys and what is sealed under them.

use esker::crypto::credential::{Credential, SIGNATURE_ALGORITHM};
use esker::crypto::envelope::{KemPrivate, Psk, seal_secret};
use esker::crypto::ident::{ChunkKind, IdKeys};
use esker::crypto::seal;
use esker::crypto::slot::{KdfCost, password_key};
use esker::format::access::{Claim, Statement, grant_info};
use esker::format::cbor::{self, Extra};
use esker::format::config::{SLOT_BODY_BYTES, Slot, slot_aad};
use esker::format::gc::NoteClaim;
use esker::format::pack::{ChunkEntry, Directory, Frame, FrameKind, Trailer, encode_frames, frame_aad, padme};
use esker::format::record::{
    DIGEST_BYTES, RecordKind, SealedRecord, Signed, SignedRecord, push_digest, sealed_aad, signed_message,
};
use esker::format::segment::{Origin, PackEntry, Segment};
use esker::format::session::{CommitKind, envelope_info};
use esker::id::{EpochId, ObjectId, PackId, hex};
use esker::world::World;

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
    let segment = good("index_segment_one_pack", "index segment", "one origin, one pack", segment.encode());
    let lengths = (0..40).chain([100, 1000, 65_537, 1_000_000, 33_554_433, 1 << 30, (1 << 40) + 1]);
    let lengths: String = lengths.map(|bytes: u64| format!("{bytes} {}\n", padme(bytes))).collect();
    vec![
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
        table.refused("frame_table_cut", "truncated", "the last byte is missing", |bytes| {
            bytes.truncate(bytes.len() - 1)
        }),
        table,
        directory.refused("pack_directory_padding", "malformed", "the last byte of padding is 1", |bytes| {
            *bytes.last_mut().unwrap() = 1;
        }),
        directory.refused("pack_directory_cut", "truncated", "cut within the envelope", |bytes| bytes.truncate(40)),
        directory,
        trailer.refused("pack_trailer_reserved", "malformed", "a reserved byte is 1", |bytes| bytes[133] = 1),
        trailer.refused("pack_trailer_magic", "malformed", "the last byte is 2", |bytes| bytes[143] = 2),
        trailer.refused("pack_trailer_cut", "truncated", "the first byte is missing", |bytes| {
            bytes.drain(..1);
        }),
        trailer,
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

/// A sealed record; `name` is empty for kinds that are named by their hash.
pub(super) fn seal_record(kind: RecordKind, name: &str, body: &[u8]) -> Vec<u8> {
    let credential = Credential::from_seed(SEED);
    let signature = credential.sign(&signed_message(&REPO, kind, name, &EPOCH, body));
    let signed = Signed { credential: credential.id(), algorithm: SIGNATURE_ALGORITHM, signature, body }.encode();
    let salt = [0x33; 32];
    let key = INDEX_KEY.derive_salted(&salt, &kind.key_purpose());
    let nonce = seal::hedged_nonce(&[0x34; 32], 0, blake3::hash(&signed).as_bytes());
    let mut sealed = Vec::new();
    seal::seal_into(&key.key, nonce, &sealed_aad(&REPO, kind, name, &EPOCH), &signed, &mut sealed);
    let record =
        SealedRecord { kind, suite: seal::SUITE, epoch: EPOCH, salt, commitment: key.commitment, sealed: &sealed };
    let mut stored = record.encode();
    push_digest(kind, &mut stored);
    stored
}

pub(super) fn sign_record(kind: RecordKind, name: &str, body: &[u8]) -> Vec<u8> {
    let message = signed_message(&REPO, kind, name, &EpochId::from_bytes([0; 16]), body);
    let signature = Credential::from_seed(SEED).sign(&message);
    let mut stored = SignedRecord { kind, algorithm: SIGNATURE_ALGORITHM, body, signature }.encode();
    push_digest(kind, &mut stored);
    stored
}

pub(super) fn containers() -> Vec<Vector> {
    let credential = Credential::from_seed(SEED);
    let commit_name = format!("snapshots/{SESSION}");
    let sealed = |case: &str, comment, kind: RecordKind, name: &str, body: &[u8], stored: Vec<u8>| {
        good(case, "sealed record", comment, stored)
            .with("kind", kind.what())
            .with("name", name)
            .hex("repo", REPO.as_bytes())
            .hex("index_key", INDEX_KEY.expose())
            .hex("verifying", credential.public().verifying)
            .hex("credential", credential.id().as_bytes())
            .hex("body", body)
    };
    let signed = |case: &str, comment, kind: RecordKind, name: &str, body: &[u8], stored: Vec<u8>| {
        good(case, "signed record", comment, stored)
            .with("kind", kind.what())
            .with("name", name)
            .hex("repo", REPO.as_bytes())
            .hex("verifying", credential.public().verifying)
            .hex("body", body)
    };
    let body = cbor::encode(&commit(CommitKind::Snapshot));
    let stored = seal_record(RecordKind::Commit, &commit_name, &body);
    let named = sealed(
        "sealed_record_commit",
        "named by its session; a digest at the end",
        RecordKind::Commit,
        &commit_name,
        &body,
        stored,
    );
    let body = cbor::encode(&note(NoteClaim::Quarantined { session: SESSION }));
    let stored = seal_record(RecordKind::Note, "", &body);
    let hashed_name = format!("notes/{}", ObjectId::of(&stored));
    let hashed = sealed(
        "sealed_record_note",
        "named by its hash; no digest",
        RecordKind::Note,
        &hashed_name,
        &body,
        stored.clone(),
    );
    let cut = &stored[..stored.len() - 1];
    let cut = sealed("", "", RecordKind::Note, &format!("notes/{}", ObjectId::of(cut)), &body, cut.to_vec());
    let body = cbor::encode(&config());
    let stored = sign_record(RecordKind::Config, "config", &body);
    let root =
        signed("signed_record_config", "the description of a repository", RecordKind::Config, "config", &body, stored);
    let claim = Claim::SlotRemoved { slot: SLOT };
    let statement = Statement { signer: SIGNER, seen: vec![], time_secs: SECS, claim, extra: Extra::default() };
    let body = cbor::encode(&statement);
    let stored = sign_record(RecordKind::Statement, "", &body);
    let name = format!("access/{}", ObjectId::of(&stored));
    let statement = signed("signed_record_statement", "named by its hash", RecordKind::Statement, &name, &body, stored);
    vec![
        named.refused("sealed_record_digest", "malformed", "the last byte is flipped", |bytes| {
            *bytes.last_mut().unwrap() ^= 1
        }),
        named.refused("sealed_record_reserved", "malformed", "a reserved byte is 1; the digest is right", |bytes| {
            bytes[10] = 1;
            digest_again(bytes);
        }),
        named.refused("sealed_record_suite", "unsupported", "suite 2; the digest is right", |bytes| {
            bytes[9] = 2;
            digest_again(bytes);
        }),
        named.refused("sealed_record_unknown_kind", "unsupported", "kind 99; the digest is right", |bytes| {
            bytes[8] = 99;
            digest_again(bytes);
        }),
        named.refused("sealed_record_other_kind", "malformed", "kind 10, a note; the digest is right", |bytes| {
            bytes[8] = 10;
            digest_again(bytes);
        }),
        named.refused(
            "sealed_record_tag",
            "not authentic",
            "a bit of the tag is flipped; the digest is right",
            |bytes| {
                let at = bytes.len() - DIGEST_BYTES - 1;
                bytes[at] ^= 1;
                digest_again(bytes);
            },
        ),
        named.refused("sealed_record_short", "truncated", "fewer bytes than a digest", |bytes| bytes.truncate(31)),
        named.under(
            "sealed_record_renamed",
            "not authentic",
            "the commit of another session",
            "name",
            "snapshots/00".into(),
        ),
        named.under(
            "sealed_record_other_key",
            "not authentic",
            "the commitment is another key's",
            "index_key",
            hex(&[0; 32]),
        ),
        named.under(
            "sealed_record_other_signer",
            "not authentic",
            "another credential's signature",
            "verifying",
            hex(&Credential::from_seed(PRIVATE).public().verifying),
        ),
        named,
        hashed.under(
            "sealed_record_renamed_note",
            "wrong identity",
            "the name is not the hash",
            "name",
            format!("notes/{}", object(0)),
        ),
        hashed,
        cut.refused(
            "sealed_record_cut",
            "truncated",
            "the last byte is missing; the name is the hash of the rest",
            |_| (),
        ),
        root.refused("signed_record_reserved", "malformed", "a reserved byte is 1; the digest is right", |bytes| {
            bytes[11] = 1;
            digest_again(bytes);
        }),
        root.refused(
            "signed_record_signature",
            "not authentic",
            "a bit of the body is flipped; the digest is right",
            |bytes| {
                bytes[30] ^= 1;
                digest_again(bytes);
            },
        ),
        root.refused("signed_record_algorithm", "unsupported", "signature algorithm 2; the digest is right", |bytes| {
            bytes[9] = 2;
            digest_again(bytes);
        }),
        root,
        statement.under(
            "signed_record_renamed",
            "wrong identity",
            "the name is not the hash",
            "name",
            format!("access/{}", object(0)),
        ),
        statement,
    ]
}

pub(super) fn slot() -> Vector {
    let (cost, salt, password) = (KdfCost::FLOOR, [0x35; 32], "correct horse");
    let credential = Credential::from_seed(SEED);
    let root_verifying = credential.public().verifying;
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
    let mut body = [0; SLOT_BODY_BYTES];
    body[..32].copy_from_slice(SEED.expose());
    let nonce = seal::hedged_nonce(&[0x36; 32], 0, blake3::hash(&body).as_bytes());
    seal::seal_into(&key.key, nonce, &slot_aad(&REPO, &SLOT, &root_verifying, &slot.header()), &body, &mut slot.sealed);
    good("key_slot_plain", "key slot", "the least cost that is accepted", slot.encode())
        .with("password", password)
        .hex("repo", REPO.as_bytes())
        .hex("slot", SLOT.as_bytes())
        .hex("root_verifying", root_verifying)
        .hex("seed", SEED.expose())
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
    let slot = slot();
    let data = chunk("chunk_data", "bytes of a file", ChunkKind::Data, b"hello");
    let ids = IdKeys::new(&ID_KEY);
    let last = (0..).map(|n| format!("name-{n}")).find(|name| ids.boundary_level(name.as_bytes(), 6) == 1).unwrap();
    let salt = [0x37; 32];
    let password = password_key(b"correct horse", &salt, KdfCost::FLOOR).unwrap();
    let credential = Credential::from_seed(SEED);
    let public = [&credential.public().verifying[..], credential.public().sealing.as_bytes()].concat();
    let signature = good("signature_plain", "signature", "Ed25519 over the message", credential.sign(b"message"))
        .hex("verifying", credential.public().verifying)
        .hex("message", b"message");
    vec![
        slot.refused("key_slot_digest", "malformed", "the last byte is flipped", |bytes| {
            *bytes.last_mut().unwrap() ^= 1
        }),
        slot.refused("key_slot_reserved", "malformed", "a reserved byte is 1; the digest is right", |bytes| {
            bytes[10] = 1;
            digest_again(bytes);
        }),
        slot.refused("key_slot_derivation", "unsupported", "key derivation 2; the digest is right", |bytes| {
            bytes[8] = 2;
            digest_again(bytes);
        }),
        slot.refused("key_slot_tag", "not authentic", "a bit of the tag is flipped; the digest is right", |bytes| {
            let at = bytes.len() - DIGEST_BYTES - 1;
            bytes[at] ^= 1;
            digest_again(bytes);
        }),
        slot.refused("key_slot_short", "truncated", "fewer bytes than a digest", |bytes| bytes.truncate(31)),
        slot.under("key_slot_password", "not authentic", "another password", "password", "wrong horse".into()),
        slot,
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
    ]
}

pub(super) fn frame() -> Vector {
    let salt = [0x38; 32];
    let key = SESSION_SECRET.derive_salted(&salt, "pack frames");
    let plain = b"hello";
    let chunks = vec![ChunkEntry { id: id(1), bytes: 5 }];
    let frame = Frame { kind: FrameKind::Data, compression: 0, sealed_bytes: 45, plain_bytes: 5, chunks };
    let nonce = seal::hedged_nonce(&[0x39; 32], 3, blake3::hash(plain).as_bytes());
    let mut bytes = Vec::new();
    seal::seal_into(&key.key, nonce, &frame_aad(&REPO, 3, &frame), plain, &mut bytes);
    good("frame_raw", "frame", "the fourth frame of a pack, not compressed", bytes)
        .hex("session_secret", SESSION_SECRET.expose())
        .hex("salt", salt)
        .hex("commitment", key.commitment)
        .hex("repo", REPO.as_bytes())
        .with("ordinal", 3)
        .with("kind", 1)
        .with("compression", 0)
        .with("plain_bytes", 5)
        .hex("plain", plain)
}

pub(super) fn envelopes() -> Vec<Vector> {
    let frame = frame();
    let sealed = seal::seal_box(&World::seeded(1), &INDEX_KEY, "credential label", REPO.as_bytes(), b"owner");
    let sealed = good("sealed_box_label", "sealed box", "the label of a credential", sealed)
        .hex("key", INDEX_KEY.expose())
        .with("purpose", "credential label")
        .hex("aad", REPO.as_bytes())
        .hex("plain", b"owner");
    let credential = Credential::from_seed(SEED);
    let info = grant_info(&REPO, &EPOCH, &credential.id());
    let plain = cbor::encode(&secrets(Some(*PRIVATE.expose())));
    let grant = seal_secret(&World::seeded(2), &credential.public().sealing, None, &info, &plain).unwrap();
    let grant = good("grant_owner", "grant", "an epoch's secrets for an owner; HPKE in base mode", grant)
        .hex("seed", SEED.expose())
        .hex("private", credential.sealing().seed().expose())
        .hex("repo", REPO.as_bytes())
        .hex("epoch", EPOCH.as_bytes())
        .hex("info", info)
        .hex("plain", plain);
    let private = KemPrivate::from_seed(PRIVATE);
    let info = envelope_info(&REPO, &SESSION, &EPOCH, &credential.id());
    let psk = Psk { key: &PSK, id: EPOCH.as_bytes() };
    let envelope =
        seal_secret(&World::seeded(3), &private.public(), Some(psk), &info, SESSION_SECRET.expose()).unwrap();
    let envelope = good("session_envelope_psk", "session envelope", "a session's secret; HPKE in PSK mode", envelope)
        .hex("private", PRIVATE.expose())
        .hex("psk", PSK.expose())
        .hex("psk_id", EPOCH.as_bytes())
        .hex("info", info)
        .hex("plain", SESSION_SECRET.expose());
    vec![
        frame.refused("frame_tag", "not authentic", "a bit of the tag is flipped", |bytes| {
            *bytes.last_mut().unwrap() ^= 1
        }),
        frame.refused("frame_cut", "truncated", "fewer bytes than a nonce and a tag", |bytes| bytes.truncate(39)),
        frame.under("frame_moved", "not authentic", "the first frame of a pack", "ordinal", "0".into()),
        frame.under("frame_kind", "unsupported", "frame kind 5", "kind", "5".into()),
        frame,
        sealed.refused("sealed_box_tag", "not authentic", "a bit of the tag is flipped", |bytes| {
            *bytes.last_mut().unwrap() ^= 1
        }),
        sealed.refused("sealed_box_cut", "truncated", "cut within the tag", |bytes| bytes.truncate(100)),
        sealed.under("sealed_box_purpose", "not authentic", "another purpose", "purpose", "snapshot".into()),
        sealed,
        grant.refused("grant_tag", "not authentic", "a bit of the tag is flipped", |bytes| {
            *bytes.last_mut().unwrap() ^= 1
        }),
        grant,
        envelope.refused("session_envelope_algorithm", "unsupported", "algorithm 2", |bytes| bytes[0] = 2),
        envelope.refused("session_envelope_cut", "truncated", "cut within the encapsulated key", |bytes| {
            bytes.truncate(1120)
        }),
        envelope.under("session_envelope_psk_differs", "not authentic", "another pre-shared key", "psk", hex(&[0; 32])),
        envelope,
    ]
}
