//! One target for each decoder: a function of any bytes that must not panic, must not take more
//! memory than the bytes justify, and checks what has been decoded. What decodes encodes to the
//! same bytes, and neither a part of it nor more than it decodes. And one for all of them together,
//! [`repository`].
//!
//! libFuzzer calls them from `fuzz/src/main.rs`, and `tests/corpora.rs` replays what it found.
//! Where a digest or checksum would stop every changed input, the target makes it right first.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use esker::chunk::compress::{Compression, Compressor, Decompressor, Level, Outcome};
use esker::chunk::cut::{Cutter, Parameters};
use esker::chunk::split::{Split, Splitter, ZEROS_BYTES_MIN};
use esker::crypto::envelope::{KemPrivate, Psk, open_secret};
use esker::crypto::key::SecretKey;
use esker::crypto::seal;
use esker::crypto::words::words_of;
use esker::error::{Error, Kind};
use esker::format::access::{EpochSecrets, Statement};
use esker::format::bytes::Fields;
use esker::format::cbor::{self, Record};
use esker::format::config::{Config, Slot, slot_seed};
use esker::format::gc::{Condemned, Done, Log, Note, Swept};
use esker::format::pack::{self, Directory, Pack, Trailer};
use esker::format::parity::Parity;
use esker::format::record::{DIGEST_BYTES, RecordKind, SealedRecord, Signed, SignedRecord, push_digest};
use esker::format::segment::Segment;
use esker::format::session::{Announcement, Commit, Flag, Snapshot};
use esker::format::tree::{Content, DirectoryNode, Entry, ListNode};
use esker::fuzzing;
use esker::id::{ChunkId, ObjectId, SessionId};
use esker::path::TreePath;
use esker::repo::commits::CommitHeader;
use esker::repo::kit::Kit;
use esker::repo::reader::{Entries, Pieces, ReadNodes};
use esker::repo::recovery::{secret_from_text, words_from_text};
use esker::repo::secret::KeyFile;
use esker::source::exclude::{Case, Patterns};
use esker::storage::remote::url::{Url, of_ssh_place};
use esker::world::{Time, World};

use super::memory;

#[path = "repository/mod.rs"]
mod repository;

/// A decoder and what it may take.
pub(crate) struct Target {
    /// The directory of its corpus; with spaces for `_`, the `object` of the vectors it begins with.
    pub(crate) name: &'static str,
    decode: fn(&[u8]),
    /// How many bytes it may take whatever its input is, and how many for each byte of it.
    memory: (usize, usize),
    /// What it begins with, besides vectors; `tests/corpora.rs` writes it.
    #[allow(dead_code)]
    pub(crate) seeds: &'static [&'static [u8]],
}

impl Target {
    /// Gives the decoder these bytes. Panics where it misbehaves.
    pub(crate) fn run(&self, data: &[u8]) {
        let (fixed, for_each) = self.memory;
        let bound = fixed + for_each * data.len();
        let peak = memory::peak_of(|| (self.decode)(data));
        assert!(peak <= bound, "{}: {peak} bytes taken for {} bytes, not {bound} at most", self.name, data.len());
    }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const fn target(name: &'static str, decode: fn(&[u8])) -> Target {
    // An item of a list can be one byte and becomes a struct, thrice while its list grows.
    Target { name, decode, memory: (64 * KIB, 512), seeds: &[] }
}

const fn seeded(name: &'static str, decode: fn(&[u8]), seeds: &'static [&'static [u8]]) -> Target {
    Target { seeds, ..target(name, decode) }
}

/// Every target.
pub(crate) const TARGETS: &[Target] = &[
    target("access_statement", record::<Statement>),
    seeded("cached_commit", record::<CommitHeader>, CACHED_COMMITS),
    seeded("change_record", change_record, CHANGE_RECORDS),
    target("collection_end", record::<Done>),
    target("commit", record::<Commit>),
    Target { memory: (8 * MIB, 16), ..seeded("compression", compression, TEXTS) },
    target("condemned_list", record::<Condemned>),
    target("config", config),
    Target { memory: (4 * MIB, 64), ..seeded("decompression", decompression, ZSTD_FRAMES) },
    target("directory_node", record::<DirectoryNode>),
    target("epoch_secrets", record::<EpochSecrets>),
    target("flag", record::<Flag>),
    target("frame_table", frame_table),
    seeded("id", id, &[b"000102030405060708090a0b0c0d0e0f", b"0A"]),
    target("index_segment", segment),
    target("key_file", key_file),
    seeded("kit", kit, KITS),
    target("key_slot", slot),
    seeded("level", level, &[b"auto", b"off", b"19", b"20"]),
    target("list_node", record::<ListNode>),
    target("log", record::<Log>),
    target("note", record::<Note>),
    target("pack", whole_pack),
    target("pack_directory", directory),
    target("pack_trailer", trailer),
    target("parity_object", parity),
    seeded("path", path, &[b"/", b"/a/b", b"/a/../b", b"a//b/."]),
    seeded("patterns", patterns, PATTERNS),
    seeded("pins", pins, PINS),
    seeded("recovery_text", recovery_text, RECOVERY_TEXTS),
    Target { memory: (64 * MIB, 0), ..seeded("repository", repository::repository, REPOSITORIES) },
    Target { memory: (8 * MIB, 64), ..seeded("run", run, &[&RUN]) },
    target("sealed_box", sealed_box),
    target("sealed_record", sealed_record),
    target("session", record::<Announcement>),
    target("session_envelope", envelope),
    target("signed_record", signed_record),
    seeded("signed_text", signed_text, &[&[1; 100]]),
    seeded("size", size, &[b"10M", b"64KiB", b"1.5 g", b"99999999999999999999"]),
    seeded("scrub_ages", scrub_ages, SCRUB_AGES),
    seeded("sftp_packet", sftp_packet, SFTP_PACKETS),
    target("snapshot", record::<Snapshot>),
    Target { memory: (24 * MIB, 512), ..seeded("split", split, SPLITS) },
    seeded("storage_url", storage_url, URLS),
    target("sweep", record::<Swept>),
    seeded("time", time, &[b"2h ago", b"2026-01-15 10:30", b"2026-01-15T10:30:00+01:00", b"2026-01-15"]),
    target("tree_entry", record::<Entry>),
    Target { memory: (MIB, 4 * KIB), ..seeded("tree_walk", tree_walk, TREES) },
];

/// What decodes must be the one encoding of its value.
fn exact<T, E>(data: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>, encode: impl Fn(&T) -> Vec<u8>) -> Option<T> {
    let value = decode(data).ok()?;
    assert!(encode(&value) == data, "what was decoded encodes to other bytes");
    for length in [0, data.len() / 2, data.len().saturating_sub(1)] {
        assert!(length == data.len() || decode(&data[..length]).is_err(), "its first {length} bytes decode as well");
    }
    assert!(decode(&[data, &[0]].concat()).is_err(), "it decodes with a byte more");
    Some(value)
}

fn record<R: Record>(data: &[u8]) {
    exact(data, cbor::decode::<R>, cbor::encode);
}

fn config(data: &[u8]) {
    let Some(config) = exact(data, cbor::decode::<Config>, cbor::encode) else { return };
    let chunker = config.chunker;
    let parameters =
        Parameters { min_bytes: chunker.min_bytes, avg_bytes: chunker.avg_bytes, max_bytes: chunker.max_bytes };
    if parameters.check().is_ok() {
        drop(Cutter::new(parameters, &[1; 32]));
    }
}

fn frame_table(data: &[u8]) {
    let decode = |bytes: &[u8]| {
        let mut fields = Fields::new("frame table", bytes);
        let frames = pack::decode_frames(&mut fields)?;
        fields.end().map(|()| frames)
    };
    let frames = exact(data, decode, |frames| {
        let mut out = Vec::new();
        pack::encode_frames(frames, &mut out);
        out
    });
    for frame in frames.iter().flatten().filter(|frame| !frame.chunks.is_empty()) {
        let covered: u64 = frame.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        assert_eq!(covered, u64::from(frame.plain_bytes));
    }
}

/// Not [`exact`]: a directory ends with zeros, as many as there are.
fn directory(data: &[u8]) {
    let Ok(directory) = Directory::decode(data) else { return };
    assert!(directory.encode() == data);
    let bare = data.len() - directory.padding_bytes as usize;
    assert!(Directory::decode(&data[..bare]).is_ok() && Directory::decode(&data[..bare - 1]).is_err());
}

/// Not [`exact`]: a trailer is the end of what it is read from.
fn trailer(data: &[u8]) {
    if let Ok(trailer) = Trailer::decode(data) {
        assert!(data.ends_with(&trailer.encode()));
    }
}

fn whole_pack(data: &[u8]) {
    let Ok(pack) = Pack::decode(data) else { return };
    assert!([pack.body, pack.directory, &pack.trailer.encode()].concat() == data);
    if let Ok(directory) = Directory::decode(pack.directory)
        && let Ok(frames) = pack.frames(&directory)
    {
        assert!(frames.concat() == pack.body);
    }
}

/// With its digest made right; and a pack that it says is all gone is not made whole out of nothing.
fn parity(data: &[u8]) {
    let body = &data[..data.len().saturating_sub(DIGEST_BYTES)];
    let stored = [body, blake3_of(body).as_bytes()].concat();
    let Ok(parity) = Parity::decode(&stored) else { return };
    assert!(parity.encode() == stored);
    assert_eq!(Parity::decode_damaged(&stored).as_ref(), Ok(&parity));
    for number in 0..parity.layout.parity_shards {
        parity.parity_shard(number);
    }
}

fn segment(data: &[u8]) {
    let Some(segment) = exact(data, Segment::decode, Segment::encode) else { return };
    assert!(segment.packs.iter().all(|pack| (pack.origin as usize) < segment.origins.len()));
}

/// The kind a record says it is, and the record with the digest that it should have.
fn with_digest(data: &[u8]) -> (RecordKind, Vec<u8>) {
    let number = data.get(8).copied().unwrap_or_default();
    let kind = RecordKind::ALL.into_iter().find(|kind| *kind as u8 == number).unwrap_or(RecordKind::Commit);
    if kind.is_named_by_hash() {
        return (kind, data.to_vec());
    }
    let mut stored = data[..data.len().saturating_sub(DIGEST_BYTES)].to_vec();
    push_digest(kind, &mut stored);
    (kind, stored)
}

fn sealed_record(data: &[u8]) {
    let (kind, stored) = with_digest(data);
    exact(
        &stored,
        |bytes| SealedRecord::decode(kind, bytes).map(drop),
        |()| {
            let mut again = SealedRecord::decode(kind, &stored).expect("it was decoded before").encode();
            push_digest(kind, &mut again);
            again
        },
    );
}

fn signed_record(data: &[u8]) {
    let (kind, stored) = with_digest(data);
    exact(
        &stored,
        |bytes| SignedRecord::decode(kind, bytes).map(drop),
        |()| {
            let mut again = SignedRecord::decode(kind, &stored).expect("it was decoded before").encode();
            push_digest(kind, &mut again);
            again
        },
    );
}

/// Not [`exact`]: the body is all there is behind the signature.
fn signed_text(data: &[u8]) {
    if let Ok(signed) = Signed::decode(RecordKind::Note, data) {
        assert!(signed.encode() == data);
    }
}

fn slot(data: &[u8]) {
    let bare = &data[..data.len().saturating_sub(DIGEST_BYTES)];
    let stored = [bare, blake3_of(bare).as_bytes()].concat();
    exact(&stored, Slot::decode, Slot::encode);
    if let Ok(seed) = slot_seed(data) {
        assert!(data.starts_with(seed) && data[32..].iter().all(|byte| *byte == 0));
    }
}

fn blake3_of(bytes: &[u8]) -> ObjectId {
    ObjectId::of(bytes)
}

fn key_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The check made right in what would be the key's line.
    let key = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    let body = key.rsplit_once(' ').map_or(key, |(body, _)| body);
    let checked = format!("{body} {}", &blake3_of(body.as_bytes()).to_string()[..8]);
    for text in [text, &checked] {
        if let Ok(file) = KeyFile::parse(text) {
            let again = KeyFile::parse(&file.to_text()).expect("what is written reads back");
            assert_eq!(again.to_text(), file.to_text());
        }
    }
}

fn envelope(data: &[u8]) {
    let private = KemPrivate::from_seed(SecretKey::from_bytes(&[1; 32]));
    let psk = SecretKey::from_bytes(&[2; 32]);
    for psk in [None, Some(Psk { key: &psk, id: b"epoch" })] {
        assert!(open_secret(&private, psk, b"info", data, "envelope").is_err(), "nobody has sealed it");
    }
}

fn sealed_box(data: &[u8]) {
    let key = SecretKey::from_bytes(&[1; 32]);
    assert!(seal::open_box(&key, "fuzz", b"", data, "box").is_err(), "nobody has sealed it");
    let (aad, plain) = data.split_at(data.len() / 2);
    let sealed = seal::seal_box(&World::seeded(1), &key, "fuzz", aad, plain);
    assert_eq!(seal::open_box(&key, "fuzz", aad, &sealed, "box").as_deref(), Ok(plain));
}

/// A frame of up to 1 MiB: `compression u8 || plain_bytes u24 || text`.
fn decompression(data: &[u8]) {
    let Some(([compression, plain @ ..], text)) = data.split_first_chunk::<4>() else { return };
    let Some(compression) = Compression::from_u8(*compression) else { return };
    let plain_bytes = u32::from_le_bytes([plain[0], plain[1], plain[2], 0]) as usize;
    let limit = MIB;
    match Decompressor::new().decompress(text, compression, plain_bytes, limit) {
        Ok(plain) => assert!(plain.len() == plain_bytes && plain_bytes <= limit),
        Err(error) => assert!(plain_bytes <= limit || error.to_string().contains("expected at most"), "{error}"),
    }
}

fn compression(data: &[u8]) {
    let mut stored = Vec::new();
    let outcome = Compressor::new(Level::default()).compress(data, &mut stored);
    assert_ne!(outcome, Outcome::Faulty);
    let plain = Decompressor::new().decompress(&stored, outcome.compression(), data.len(), data.len());
    assert_eq!(plain.as_deref(), Ok(data));
}

/// A stream written as steps of three bytes, `what, u16`: so many bytes that vary or are zero, or
/// a hole. Pieces depend on its bytes, not on how they came.
fn split(data: &[u8]) {
    let parameters = Parameters::with_average(512);
    let cutter = Arc::new(Cutter::new(parameters, &[1; 32]));
    let mut splitter = Splitter::new(cutter.clone());
    let mut whole: Vec<u8> = Vec::new();
    let mut pieces = Vec::new();
    let keep = |pieces: &mut Vec<(bool, u64)>, piece: Split<'_>| {
        pieces.push(match piece {
            Split::Chunk { bytes, .. } => (true, bytes.len() as u64),
            Split::Zeros(bytes) => (false, bytes),
        });
        Ok::<_, Infallible>(())
    };
    for (step, [what, low, high]) in data.as_chunks::<3>().0.iter().enumerate().take(64) {
        let length = usize::from(u16::from_le_bytes([*low, *high])) + usize::from(*what >> 4);
        let from = whole.len();
        match what % 3 {
            0 => whole.extend((0..length as u64).map(|n| mixed(n ^ (step as u64) << 32 ^ u64::from(*what)))),
            _ => whole.resize(from + length, 0),
        }
        let done = match what % 3 {
            2 => splitter.push_zeros(length as u64, &mut |piece| keep(&mut pieces, piece)),
            _ => splitter.push(&whole[from..], &mut |piece| keep(&mut pieces, piece)),
        };
        let Ok(()) = done;
    }
    let Ok(()) = splitter.finish(&mut |piece| keep(&mut pieces, piece));
    let mut at_once = Vec::new();
    let Ok(()) = splitter.push(&whole, &mut |piece| keep(&mut at_once, piece));
    let Ok(()) = splitter.finish(&mut |piece| keep(&mut at_once, piece));
    assert_eq!(pieces, at_once);
    let mut at = 0;
    for (is_chunk, length) in pieces {
        let bytes = &whole[at..at + length as usize];
        at += bytes.len();
        if is_chunk {
            assert!(!bytes.is_empty() && bytes.len() <= parameters.max_bytes as usize);
        } else {
            assert!(length >= ZEROS_BYTES_MIN && bytes.iter().all(|byte| *byte == 0));
        }
    }
    assert_eq!(at, whole.len());
}

fn mixed(n: u64) -> u8 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
}

/// A run file as it stands; what it does not hold is asked for by the bytes at its end.
fn run(data: &[u8]) {
    let path = std::env::temp_dir().join(format!("esker-fuzz-run-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(data).unwrap();
    let strangers: Vec<[u8; 32]> = data.last_chunk().into_iter().copied().chain([[0; 32], [255; 32]]).collect();
    if let Some(rows) = fuzzing::ask_run(&file, &strangers) {
        assert!(rows <= data.len() as u64);
    }
}

/// Rows are not a format: what is read is the same when it is written and read again.
fn change_record(data: &[u8]) {
    if let Ok(again) = fuzzing::rewritten_change_record(data) {
        assert_eq!(fuzzing::rewritten_change_record(&again), Ok(again.clone()));
    }
}

fn id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = text.parse::<SessionId>() {
        assert_eq!(id.to_string(), text);
    }
}

fn level(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(level) = text.parse::<Level>() {
        assert_eq!(level.to_string().parse(), Ok(level));
        drop(Compressor::new(level));
    }
}

const KITS: &[&[u8]] = &[
    b"begin esker kit 1\nobject config 3 00\n616263\nend esker kit 1\n",
    b"begin esker kit 1\nobject keys/00000000000000000000000000000000 1 aa\nff\nobject access/x 0 \nend esker kit 2",
];

/// What a kit holds comes back from its text, and only what is as it was described.
fn kit(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Nobody can guess the hash of an object: the input is an object, too.
    let mut made = Kit::default();
    made.objects.insert("config".into(), data.to_vec());
    let again = Kit::from_text(&made.to_text()).expect("it is a kit");
    assert!(again.objects == made.objects && again.faults.is_empty());
    if let Ok(kit) = Kit::from_text(text) {
        let again = Kit::from_text(&kit.to_text()).expect("it is a kit");
        assert_eq!(again.objects, kit.objects);
    }
}

const RECOVERY_TEXTS: &[&[u8]] = &[
    b"abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
      abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art",
    b"1. aban 2 ABANDON, able about\nabove absent absorb abstract absurd abuse access accident acct",
    b"ESKER RECOVERY SHEET  (esker-sheet-1)\nRepository: 00\nWords:\n 1 abandon\nRoot: 00\nCheck: 00\n",
];

/// What is typed from paper: words, a sheet, or a key file.
fn recovery_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = secret_from_text(text);
    if let Ok(seed) = words_from_text(text) {
        let again = words_from_text(&words_of(&seed)).expect("they are the words of a seed");
        assert_eq!(again.expose(), seed.expose());
    }
}

const PINS: &[&[u8]] =
    &[b"esker-pins-1\n", b"esker-pins-1\naccess 0000000000000000000000000000000000000000000000000000000000000000\n"];

/// A pins file is read as it was written, or not at all.
fn pins(data: &[u8]) {
    let Ok(body) = std::str::from_utf8(data) else { return };
    if let Some(written) = fuzzing::rewritten_pins(body) {
        let body = written.rsplit_once("check ").expect("it ends with a checksum").0;
        assert_eq!(fuzzing::rewritten_pins(body), Some(written.clone()));
    }
}

const SCRUB_AGES: &[&[u8]] =
    &[b"esker-scrub-1\n", b"esker-scrub-1\n0000000000000000000000000000000000000000000000000000000000000000 -5\n"];

/// The file of a scrub's ages is read as it was written, or not at all.
fn scrub_ages(data: &[u8]) {
    let Ok(body) = std::str::from_utf8(data) else { return };
    if let Some(written) = fuzzing::rewritten_ages(body) {
        let body = written.rsplit_once("check ").expect("it ends with a checksum").0;
        assert_eq!(fuzzing::rewritten_ages(body), Some(written.clone()));
    }
}

const SFTP_PACKETS: &[&[u8]] = &[
    b"\x02\0\0\0\x03\0\0\0\x19posix-rename@openssh.com\0\0\0\x011",
    b"\x65\0\0\0\x01\0\0\0\x02\0\0\0\x07No such\0\0\0\0",
    b"\x68\0\0\0\x01\0\0\0\x01\0\0\0\x01a\0\0\0\x01a\0\0\0\x01\0\0\0\0\0\0\0\x05",
    b"\x69\0\0\0\x01\0\0\0\x0d\0\0\0\0\0\0\0\x05\0\0\x81\xa4\0\0\0\0\0\0\0\0",
];

fn sftp_packet(data: &[u8]) {
    assert!(fuzzing::read_sftp_packet(data) <= 4);
}

const URLS: &[&[u8]] = &[
    b"s3://bucket/a/b?endpoint=http://127.0.0.1:5300&region=eu",
    b"sftp:user@host:path",
    b"sftp://user@[::1]:22//srv/%41",
    b"webdav+http://h:1/x",
];

/// A URL of a storage: its place reads as a URL again, without what may be secret.
fn storage_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let text = of_ssh_place(text);
    if let Ok(url) = Url::parse(&text) {
        let place = url.place();
        assert!(
            url.user.is_none_or(|user| user.is_empty() || !place.starts_with(&format!("{}://{user}@", url.scheme)))
        );
        assert!(!url.path.split('/').any(|part| part == ".." || part == "."));
    }
}

fn size(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(bytes) = fuzzing::parse_size(text) {
        assert_eq!(fuzzing::parse_size(&bytes.to_string()), Some(bytes));
    }
}

fn time(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for now in [i64::MIN, 0, 1_768_473_000, i64::MAX] {
        if let Some(time) = fuzzing::parse_time(text, Time::from_secs(now)) {
            assert!(time.nanos < 1_000_000_000);
        }
    }
}

fn path(data: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    if let Ok(path) = TreePath::from_bytes(data) {
        assert!(path.as_bytes() == data);
    }
    let os = Path::new(std::ffi::OsStr::from_bytes(data));
    let Ok(path) = TreePath::from_os(os) else { return };
    assert_eq!(TreePath::from_bytes(path.as_bytes()).as_ref(), Ok(&path));
    let mut again = TreePath::root();
    path.components().for_each(|name| again.push(&name));
    assert_eq!(again, path);
    assert!(path.as_bytes().split(|byte| *byte == b'/').all(|name| name != b".." && name != b"."));
}

/// Patterns, one a line; the last line is the path they are asked about.
fn patterns(data: &[u8]) {
    let end = data.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let (lines, path) = data.split_at(end);
    let Ok(path) = TreePath::from_bytes(path.strip_prefix(b"\n").unwrap_or(path)) else { return };
    for case in [Case::Sensitive, Case::Insensitive] {
        let mut patterns = Patterns::new();
        let all_good = patterns.add_lines(lines, case, &|name: &[u8]| Some(name.to_vec())).is_ok();
        let (matches, mut above) = (patterns.matches(&path), path.clone());
        assert!(!(matches && patterns.is_empty()));
        while all_good && matches && !above.is_root() {
            above.pop();
            assert!(patterns.may_match_below(&above), "{path} matches and nothing below {above} may");
        }
    }
}

/// Nodes that refer to each other by number: each is `length u16 || bytes`, its id its number 32
/// times. Whatever they say, a walk ends, and its names ascend.
struct Nodes<'a>(Vec<&'a [u8]>);

impl Nodes<'_> {
    fn get(&self, id: &ChunkId) -> Result<Vec<u8>, Error> {
        let node = self.0.get(usize::from(id.as_bytes()[0])).filter(|_| *id.as_bytes() == [id.as_bytes()[0]; 32]);
        node.map(|node| node.to_vec()).ok_or_else(|| Error::new(Kind::Damaged, "no such node"))
    }
}

impl ReadNodes for Nodes<'_> {
    fn node(&self, id: &ChunkId) -> Result<Vec<u8>, Error> {
        self.get(id)
    }

    fn list_node(&self, id: &ChunkId) -> Result<Vec<u8>, Error> {
        self.get(id)
    }
}

fn tree_walk(data: &[u8]) {
    let Some((level, mut rest)) = data.split_first() else { return };
    let mut nodes = Nodes(Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (node, after) = after.split_at(after.len().min(usize::from(u16::from_le_bytes(*length))));
        nodes.0.push(node);
        rest = after;
    }
    let (id, level) = (ChunkId::from_bytes([0; 32]), u64::from(*level));
    // Names ascend, so a walk of a directory ends by itself, and soon.
    let mut last = None;
    for entry in Entries::new(&nodes, id, level).flatten() {
        assert!(entry.name.is_some() && entry.name > last, "names do not ascend");
        last = entry.name;
    }
    // Equal nodes are one node, so a file may say 2^64 zeros in a few bytes.
    let covered = Pieces::new(&nodes, &Content::List { id, level }).take(1 << 12).map_while(Result::ok);
    assert!(covered.map(|piece| piece.bytes()).all(|bytes| bytes > 0));
}

const TEXTS: &[&[u8]] =
    &[b"", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", b"one two one two one two one two one two"];

/// Raw, and "a" 300 times in one zstd frame.
const ZSTD_FRAMES: &[&[u8]] = &[
    b"\x00\x05\x00\x00hello",
    b"\x01\x2c\x01\x00\x28\xb5\x2f\xfd\x00\x00\x63\x09\x00\x61",
    b"\x01\xff\xff\xff\x28\xb5\x2f\xfd\x00\x00\x63\x09\x00\x61",
];

/// Bytes, 65,536 zeros in two ways, bytes.
const SPLITS: &[&[u8]] =
    &[b"\x00\xff\x1f\x11\xff\xff\x02\xff\x00\x00\x10\x01", b"\x11\xff\xff\x22\xfe\xff\x00\x01\x00"];

const PATTERNS: &[&[u8]] = &[
    b"*.txt\n!keep.txt\n/home/**/cache\n/home/a/b/cache",
    b"[a-z]?\\*\n/ab*",
    b"# comment\n\n**\n!/a/b\n/a/b/c",
    b"/a/..\n/a",
];

/// Without lists.
const CACHED_COMMITS: &[&[u8]] =
    &[b"\xa7\x01\x50................\x02\x50................\x03\x58\x20................................\
    \x04\x58\x20................................\x05\x01\x06\x00\x07\x01"];

/// One row of 64 bytes, all zero, in one bucket.
const RUN: [u8; 256] = {
    let mut run = [0; 256];
    let (mut at, magic) = (0, b"ESKRRUN\x01");
    while at < magic.len() {
        run[at] = magic[at];
        at += 1;
    }
    (run[8], run[16], run[24], run[68]) = (64, 1, 1, 1);
    run
};

/// The root directory, a pipe in it, the end.
const CHANGE_RECORDS: &[&[u8]] = &[
    b"\x03\x58\x20................................\x00\x01\x02\x03\x00",
    b"\x05\x44\x1a\x00\x01\x00\x02\x05\x06\x07\x4a\xa4\x01\x41\x61\x02\x03\x03\x00\x08\x00\x03\x58\x20................................\x00\x01\x02\x03\x00",
];

/// Nothing changed; a lost object; a byte of a node xored; a number in one; a frame of 32 MiB; all of these, a content
/// under its old id, two objects swapped and one made up; a record by the other key, then collected; a name `..`.
const REPOSITORIES: &[&[u8]] = &[
    b"",
    b"\x0f\x05\0\0\0\0\0\0",
    b"\0\x04\x09\0\x01\0\0\0",
    b"\x09\x0a\x03\0\x0b\0\0\0",
    b"\x0e\x14\x01\0\x06\0\0\0",
    b"\x0f\x05\0\0\0\0\0\0\0\x04\x09\0\x01\0\0\0\x09\x0a\x03\0\x0b\0\0\0\x0e\x14\x01\0\x06\0\0\0\x07\x02\0\0\0\0\0\0\
      \x12\x06\0\0\x07\0\0\0\x15\x08\0\0\x04\0\0\0abcd",
    b"\x08\x24\0\0\0\0\0\0...",
    b"\x0a\x0d\x05\0\0\0\0\0",
];

/// An empty directory; a node of level 1 that links to it twice and to itself.
const TREES: &[&[u8]] = &[
    b"\x00\x01\x00\xa0",
    b"\x01\x50\x00\xa2\x01\x01\x03\x82\x82\x41\x61\x58\x20\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x82\x41\x62\x58\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0e\x00\xa1\x02\x81\xa4\x01\x41\x61\x02\x03\x03\x00\x08\x00",
];
