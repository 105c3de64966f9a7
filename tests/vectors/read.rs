//! Reads an object of a vector with the keys in its header, as a stranger's program would.

use std::collections::BTreeMap;

use esker::chunk::compress::{Compression, Decompressor};
use esker::chunk::cut::Parameters;
use esker::crypto::OpenError;
use esker::crypto::credential::{self, Credential, SIGNATURE_ALGORITHM};
use esker::crypto::envelope::{KemPrivate, Psk, open_secret};
use esker::crypto::ident::{ChunkKind, IdKeys};
use esker::crypto::key::SecretKey;
use esker::crypto::seal;
use esker::crypto::slot::{KdfCost, password_key};
use esker::format::DecodeError;
use esker::format::access::{EpochSecrets, Statement, grant_info};
use esker::format::bytes::Fields;
use esker::format::cbor::{self, Record};
use esker::format::config::{ChunkerSettings, Config, Slot, slot_aad, slot_seed};
use esker::format::gc::{Condemned, Done, Log, Note, Swept};
use esker::format::pack::{
    self, Directory, FRAME_PLAIN_BYTES_MAX, Frame, FrameKind, Pack, Trailer, directory_aad, frame_aad, padme,
};
use esker::format::parity::Parity;
use esker::format::record::{RecordKind, SealedRecord, Signed, SignedRecord, sealed_aad, signed_message};
use esker::format::segment::Segment;
use esker::format::session::{Announcement, Commit, Flag, Snapshot, session_secret};
use esker::format::tree::{DirectoryNode, Entry, ListNode};
use esker::id::{EpochId, ObjectId, PackId, RepoId, SlotId, hex, unhex};
use esker::repo::secret::{KeyFile, KeyFileError};
use minicbor::Decoder;
use minicbor::data::Type;
use sha2::{Digest, Sha256};

/// The keys and expected values of a vector.
pub(crate) struct Header(pub(crate) BTreeMap<String, String>);

impl Header {
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("the header has no `{name}`"))
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        unhex(self.text(name)).unwrap_or_else(|| panic!("`{name}` is not hexadecimal"))
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap_or_else(|_| panic!("`{name}` is not {N} bytes"))
    }

    fn key(&self, name: &str) -> SecretKey {
        SecretKey::from_bytes(&self.array(name))
    }

    fn number(&self, name: &str) -> u32 {
        self.text(name).parse().unwrap_or_else(|_| panic!("`{name}` is not a number"))
    }
}

/// Why an object was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) &'static str);

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Malformed { .. } => Self("malformed"),
            DecodeError::Truncated { .. } => Self("truncated"),
            DecodeError::Unsupported { .. } => Self("unsupported"),
        }
    }
}

impl From<OpenError> for Refused {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NotAuthentic(_) => Self("not authentic"),
            OpenError::WrongIdentity(_) => Self("wrong identity"),
            OpenError::Truncated(_) => Self("truncated"),
            OpenError::Unsupported(..) => Self("unsupported"),
        }
    }
}

type Read = Result<(), Refused>;

/// Reads the object and compares what comes out with the header.
///
/// What it hands out goes to `released` at once, as it would go to a file: that is what somebody
/// has in hand when the rest turns out to be wrong.
pub(crate) fn read(header: &Header, bytes: &[u8], released: &mut Vec<u8>) -> Read {
    match header.text("object") {
        "tree entry" => record::<Entry>(header, bytes),
        "directory node" => record::<DirectoryNode>(header, bytes),
        "list node" => record::<ListNode>(header, bytes),
        "snapshot" => record::<Snapshot>(header, bytes),
        "commit" => record::<Commit>(header, bytes),
        "session" => record::<Announcement>(header, bytes),
        "flag" => record::<Flag>(header, bytes),
        "condemned list" => record::<Condemned>(header, bytes),
        "sweep" => record::<Swept>(header, bytes),
        "collection end" => record::<Done>(header, bytes),
        "note" => record::<Note>(header, bytes),
        "log" => record::<Log>(header, bytes),
        "config" => config(header, bytes),
        "access statement" => record::<Statement>(header, bytes),
        "epoch secrets" => record::<EpochSecrets>(header, bytes),
        "frame table" => frame_table(bytes),
        "pack directory" => same(&Directory::decode(bytes)?.encode(), bytes),
        "pack trailer" => same(&Trailer::decode(bytes)?.encode(), bytes),
        "index segment" => same(&Segment::decode(bytes)?.encode(), bytes),
        "pack description" => {
            let segment = Segment::decode(bytes)?;
            same(segment.packs[0].description(&segment.origins[0]).as_bytes(), &header.bytes("description"))
        }
        "parity object" => parity(header, bytes),
        "key slot" => slot(header, bytes, released),
        "key file" => key_file(header, bytes, released),
        "pack" => whole_pack(header, bytes, released),
        "sealed record" => sealed_record(header, bytes, released),
        "signed record" => signed_record(header, bytes, released),
        "derived key" => derived_key(header, bytes),
        "chunk" => chunk(header, bytes),
        "link group" => {
            let group = IdKeys::new(&header.key("id_key")).link_group(bytes);
            same(group.as_bytes(), &header.bytes("link_group"))
        }
        "boundary level" => {
            let level = IdKeys::new(&header.key("id_key")).boundary_level(bytes, header.number("bits_per_level"));
            same(&[level], &[header.number("level")])
        }
        "frame" => frame(header, bytes, released),
        "sealed box" => {
            let (key, aad) = (header.key("key"), header.bytes("aad"));
            let plain = seal::open_box(&key, header.text("purpose"), &aad, bytes, "box")?;
            hand_out(&plain, &header.bytes("plain"), released)
        }
        "credential" => {
            let credential = Credential::from_seed(header.key("seed"));
            same(&[&credential.public().verifying[..], credential.public().sealing.as_bytes()].concat(), bytes)?;
            same(credential.id().as_bytes(), &header.bytes("credential"))
        }
        "signature" => {
            let signature = bytes.try_into().map_err(|_| Refused("truncated"))?;
            Ok(credential::verify(&header.array("verifying"), &header.bytes("message"), signature, "signature")?)
        }
        "grant" => grant(header, bytes, released),
        "session envelope" => session_envelope(header, bytes, released),
        "password key" => {
            let (cost, password) = (cost(header), header.text("password"));
            let key = password_key(password.as_bytes(), &header.array("salt"), cost).unwrap();
            same(key.expose(), bytes)
        }
        "padded lengths" => padded_lengths(bytes),
        other => panic!("no reader for a `{other}`"),
    }
}

/// What is read must be what stands in the file: anything else is a fault of this program.
fn same<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T]) -> Read {
    assert_eq!(found, expected, "the object was read, but as something else");
    Ok(())
}

/// Like [`same`], of what a reader gives to who asked for it.
fn hand_out(found: &[u8], expected: &[u8], released: &mut Vec<u8>) -> Read {
    released.extend_from_slice(found);
    same(found, expected)
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn config(header: &Header, bytes: &[u8]) -> Read {
    let config: Config = cbor::decode(bytes)?;
    let ChunkerSettings { min_bytes, avg_bytes, max_bytes, .. } = config.chunker;
    Parameters { min_bytes, avg_bytes, max_bytes }.check().map_err(|_| Refused("malformed"))?;
    record::<Config>(header, bytes)
}

fn record<R: Record>(header: &Header, bytes: &[u8]) -> Read {
    let record: R = cbor::decode(bytes)?;
    same(&cbor::encode(&record), bytes)?;
    same(diagnostic(&mut Decoder::new(bytes)).as_bytes(), header.text("value").as_bytes())
}

fn parity(header: &Header, bytes: &[u8]) -> Result<(), Refused> {
    let parity = Parity::decode(bytes)?;
    same(&parity.encode(), bytes)?;
    let content = header.bytes("content");
    if parity.layout.pack != PackId::of(&content) {
        return Err(Refused("wrong identity"));
    }
    same(&esker::repo::parity::make_in(parity.layout, &content).unwrap(), bytes)
}

fn frame_table(bytes: &[u8]) -> Read {
    let mut fields = Fields::new("frame table", bytes);
    let frames = pack::decode_frames(&mut fields)?;
    fields.end()?;
    let mut again = Vec::new();
    pack::encode_frames(&frames, &mut again);
    same(&again, bytes)
}

fn cost(header: &Header) -> KdfCost {
    KdfCost { memory_kib: header.number("memory_kib"), passes: header.number("passes"), lanes: header.number("lanes") }
}

fn slot(header: &Header, bytes: &[u8], released: &mut Vec<u8>) -> Read {
    let slot = Slot::decode(bytes)?;
    same(&slot.encode(), bytes)?;
    let cost = KdfCost { memory_kib: slot.memory_kib, passes: slot.passes, lanes: slot.lanes };
    let key = password_key(header.text("password").as_bytes(), &slot.salt, cost).map_err(|_| Refused("malformed"))?;
    let key = seal::committed(key.derive_salted(&slot.salt, "slot"), &slot.commitment, "key slot")?;
    let (repo, id) = (header.array("repo"), header.array("slot"));
    let aad =
        slot_aad(&RepoId::from_bytes(repo), &SlotId::from_bytes(id), &header.array("root_verifying"), &slot.header());
    let body = seal::open(&key, &aad, &slot.sealed, "key slot")?;
    hand_out(slot_seed(&body)?, &header.bytes("seed"), released)
}

fn key_file(header: &Header, bytes: &[u8], released: &mut Vec<u8>) -> Read {
    let text = std::str::from_utf8(bytes).map_err(|_| Refused("malformed"))?;
    let file = KeyFile::parse(text).map_err(|error| match error {
        KeyFileError::Truncated => Refused("truncated"),
        KeyFileError::Malformed(_) => Refused("malformed"),
        KeyFileError::Unsupported => Refused("unsupported"),
        KeyFileError::WrongIdentity => Refused("wrong identity"),
    })?;
    same(file.role.name().as_bytes(), header.text("role").as_bytes())?;
    same(file.repo.as_bytes(), &header.bytes("repo"))?;
    same(&file.root_verifying, &header.bytes("root_verifying"))?;
    same(file.credential().id().as_bytes(), &header.bytes("credential"))?;
    hand_out(file.seed.expose(), &header.bytes("seed"), released)
}

fn kind(header: &Header) -> RecordKind {
    let kind = esker::format::record::RecordKind::ALL.into_iter().find(|kind| kind.what() == header.text("kind"));
    kind.unwrap_or_else(|| panic!("no records are of kind `{}`", header.text("kind")))
}

/// Refuses an object that is named by its hash and has another's name; gives the name that is bound.
fn bound_name<'a>(header: &'a Header, kind: RecordKind, bytes: &[u8]) -> Result<&'a str, Refused> {
    let name = header.text("name");
    if !kind.is_named_by_hash() {
        return Ok(name);
    }
    let is_its_own = name.rsplit('/').next() == Some(&ObjectId::of(bytes).to_string());
    if is_its_own { Ok("") } else { Err(Refused("wrong identity")) }
}

fn sealed_record(header: &Header, bytes: &[u8], released: &mut Vec<u8>) -> Read {
    let kind = kind(header);
    let repo = RepoId::from_bytes(header.array("repo"));
    let name = bound_name(header, kind, bytes)?;
    let record = SealedRecord::decode(kind, bytes)?;
    if record.suite != seal::SUITE {
        return Err(Refused("unsupported"));
    }
    let derived = header.key("index_key").derive_salted(&record.salt, &kind.key_purpose());
    let key = seal::committed(derived, &record.commitment, "record")?;
    let plain = seal::open(&key, &sealed_aad(&repo, kind, name, &record.epoch), record.sealed, "record")?;
    let signed = Signed::decode(kind, &plain)?;
    if signed.algorithm != SIGNATURE_ALGORITHM {
        return Err(Refused("unsupported"));
    }
    let message = signed_message(&repo, kind, name, &record.epoch, signed.body);
    credential::verify(&header.array("verifying"), &message, &signed.signature, "record")?;
    same(signed.credential.as_bytes(), &header.bytes("credential"))?;
    hand_out(signed.body, &header.bytes("body"), released)
}

fn signed_record(header: &Header, bytes: &[u8], released: &mut Vec<u8>) -> Read {
    let kind = kind(header);
    let name = bound_name(header, kind, bytes)?;
    let record = SignedRecord::decode(kind, bytes)?;
    if record.algorithm != SIGNATURE_ALGORITHM {
        return Err(Refused("unsupported"));
    }
    let repo = RepoId::from_bytes(header.array("repo"));
    let message = signed_message(&repo, kind, name, &EpochId::from_bytes([0; 16]), record.body);
    credential::verify(&header.array("verifying"), &message, &record.signature, "record")?;
    hand_out(record.body, &header.bytes("body"), released)
}

fn derived_key(header: &Header, bytes: &[u8]) -> Read {
    let derived = header.key("key").derive_salted(&header.bytes("salt"), header.text("purpose"));
    same(&[*derived.key.expose(), derived.commitment].concat(), bytes)?;
    if header.text("salt").is_empty() {
        return same(header.key("key").derive(header.text("purpose")).expose(), &bytes[..32]);
    }
    Ok(())
}

fn chunk(header: &Header, bytes: &[u8]) -> Read {
    let kind = match header.text("kind") {
        "data" => ChunkKind::Data,
        "directory" => ChunkKind::Directory,
        "list" => ChunkKind::List,
        other => panic!("no chunks are of kind `{other}`"),
    };
    let id = IdKeys::new(&header.key("id_key")).chunk(kind, bytes);
    if id.as_bytes()[..] == header.bytes("id")[..] { Ok(()) } else { Err(OpenError::WrongIdentity("chunk").into()) }
}

fn frame(header: &Header, bytes: &[u8], released: &mut Vec<u8>) -> Read {
    let frame = Frame {
        kind: FrameKind::from_u8(header.number("kind").try_into().unwrap())?,
        compression: header.number("compression").try_into().unwrap(),
        sealed_bytes: u32::try_from(bytes.len()).unwrap(),
        plain_bytes: header.number("plain_bytes"),
        chunks: vec![],
    };
    let derived = header.key("session_secret").derive_salted(&header.bytes("salt"), "pack frames");
    let key = seal::committed(derived, &header.array("commitment"), "frame")?;
    let repo = RepoId::from_bytes(header.array("repo"));
    hand_out(&open_frame(&key, &repo, header.number("ordinal"), &frame, bytes)?, &header.bytes("plain"), released)
}

fn open_frame(key: &SecretKey, repo: &RepoId, ordinal: u32, frame: &Frame, sealed: &[u8]) -> Result<Vec<u8>, Refused> {
    let text = seal::open(key, &frame_aad(repo, ordinal, frame), sealed, "frame")?;
    let compression = Compression::from_u8(frame.compression).ok_or(Refused("unsupported"))?;
    let plain =
        Decompressor::new().decompress(&text, compression, frame.plain_bytes as usize, FRAME_PLAIN_BYTES_MAX as usize);
    plain.map_err(|_| Refused("malformed"))
}

/// Frame by frame, as who reads a whole pack gets it: each is handed out when all its chunks are right.
fn whole_pack(header: &Header, bytes: &[u8], released: &mut Vec<u8>) -> Read {
    if PackId::of(bytes).as_bytes()[..] != header.bytes("id")[..] {
        return Err(Refused("wrong identity"));
    }
    let repo = RepoId::from_bytes(header.array("repo"));
    let pack = Pack::decode(bytes)?;
    let trailer = pack.trailer;
    let derived = header.key("index_key").derive_salted(&trailer.salt, "pack directory");
    let key = seal::committed(derived, &trailer.directory_commitment, "pack directory")?;
    let plain = seal::open(&key, &directory_aad(&repo, &trailer), pack.directory, "pack directory")?;
    let directory = Directory::decode(&plain)?;
    let derived = header.key("session_secret").derive_salted(&trailer.salt, "pack frames");
    let key = seal::committed(derived, &trailer.frame_commitment, "frame")?;
    let ids = IdKeys::new(&header.key("id_key"));
    for ((ordinal, frame), sealed) in (0..).zip(&directory.frames).zip(pack.frames(&directory)?) {
        let plain = open_frame(&key, &repo, ordinal, frame, sealed)?;
        let mut at = 0;
        for chunk in &frame.chunks {
            let kind = if frame.kind == FrameKind::Data { ChunkKind::Data } else { ChunkKind::Directory };
            let content = &plain[at..at + chunk.bytes as usize];
            if ids.chunk(kind, content) != chunk.id {
                return Err(Refused("wrong identity"));
            }
            at += content.len();
        }
        released.extend_from_slice(&plain);
    }
    same(released, &header.bytes("plain"))
}

fn grant(header: &Header, bytes: &[u8], released: &mut Vec<u8>) -> Read {
    let credential = Credential::from_seed(header.key("seed"));
    let repo = RepoId::from_bytes(header.array("repo"));
    let info = grant_info(&repo, &EpochId::from_bytes(header.array("epoch")), &credential.id());
    same(&info, &header.bytes("info"))?;
    same(credential.sealing().seed().expose(), &header.bytes("private"))?;
    let plain = open_secret(credential.sealing(), None, &info, bytes, "grant")?;
    let _: EpochSecrets = cbor::decode(&plain)?;
    hand_out(&plain, &header.bytes("plain"), released)
}

fn session_envelope(header: &Header, bytes: &[u8], released: &mut Vec<u8>) -> Read {
    let private = KemPrivate::from_seed(header.key("private"));
    let (psk, psk_id) = (header.key("psk"), header.bytes("psk_id"));
    let psk = Psk { key: &psk, id: &psk_id };
    let plain = open_secret(&private, Some(psk), &header.bytes("info"), bytes, "session envelope")?;
    hand_out(session_secret(&plain)?, &header.bytes("plain"), released)
}

fn padded_lengths(bytes: &[u8]) -> Read {
    for line in std::str::from_utf8(bytes).unwrap().lines() {
        let (bytes, padded) = line.split_once(' ').unwrap();
        assert_eq!(padme(bytes.parse().unwrap()).to_string(), padded, "{bytes} bytes");
    }
    Ok(())
}

/// The next item in the diagnostic notation of RFC 8949 §8.
pub(crate) fn diagnostic(decoder: &mut Decoder<'_>) -> String {
    match decoder.datatype().unwrap() {
        Type::Bytes => format!("h'{}'", hex(decoder.bytes().unwrap())),
        Type::String => format!("{:?}", decoder.str().unwrap()),
        Type::Array => {
            let count = decoder.array().unwrap().unwrap();
            format!("[{}]", (0..count).map(|_| diagnostic(decoder)).collect::<Vec<_>>().join(", "))
        }
        Type::Map => {
            let count = decoder.map().unwrap().unwrap();
            let field = |_| format!("{}: {}", diagnostic(decoder), diagnostic(decoder));
            format!("{{{}}}", (0..count).map(field).collect::<Vec<_>>().join(", "))
        }
        _ => decoder.int().unwrap().to_string(),
    }
}
