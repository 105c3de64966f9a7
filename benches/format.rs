//! Trees and index segments, from structs to bytes and back: `cargo bench --bench format`.
//!
//! A directory node has some 64 entries; a backup of a million files encodes each once, and an
//! owner who lists or restores them decodes each once. Throughput is in entries.

use std::hint::black_box;

use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use esker::format::cbor;
use esker::format::cbor::Extra;
use esker::format::pack::ChunkEntry;
use esker::format::pack::Frame;
use esker::format::pack::FrameKind;
use esker::format::segment::Origin;
use esker::format::segment::PackEntry;
use esker::format::segment::Segment;
use esker::format::tree::Attributes;
use esker::format::tree::Content;
use esker::format::tree::Detail;
use esker::format::tree::DirectoryNode;
use esker::format::tree::Entry;
use esker::format::tree::Piece;
use esker::id::ChunkId;
use esker::id::CredentialId;
use esker::id::EpochId;
use esker::id::PackId;
use esker::id::SessionId;
use esker::path::Name;
use esker::world::Time;

const ENTRIES: u32 = 64;
const PACKS: u32 = 16;
const FRAMES_PER_PACK: u32 = 32;
const CHUNKS_PER_FRAME: u32 = 16;

fn id(n: u32) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn file(n: u32) -> Entry {
    let pieces = (0..2).map(|piece| Piece::Chunk { id: id(2 * n + piece), bytes: 40_000 }).collect();
    Entry {
        name: Some(Name::new(format!("file-{n:05}.txt").as_bytes()).expect("a name")),
        attributes: Attributes {
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            user: Some("user".into()),
            group: Some("group".into()),
            mtime: Time { secs: 1_700_000_000 + i64::from(n), nanos: 123_456_789 },
            ..Attributes::default()
        },
        detail: Detail::File { size: 80_000, content: Content::Inline(pieces), holes: vec![] },
        extra: Extra::default(),
    }
}

fn directory(c: &mut Criterion) {
    let node = DirectoryNode::Entries((0..ENTRIES).map(file).collect());
    let bytes = cbor::encode(&node);
    assert_eq!(cbor::decode::<DirectoryNode>(&bytes), Ok(node.clone()));
    let mut group = c.benchmark_group("directory node");
    group.throughput(Throughput::Elements(u64::from(ENTRIES)));
    group.bench_function("encode", |b| b.iter(|| cbor::encode(black_box(&node))));
    group.bench_function("decode", |b| b.iter(|| cbor::decode::<DirectoryNode>(black_box(&bytes))));
    group.finish();
}

fn pack(number: u32) -> PackEntry {
    let first = number * FRAMES_PER_PACK * CHUNKS_PER_FRAME;
    let frame = |frame: u32| Frame {
        kind: FrameKind::Data,
        compression: 1,
        sealed_bytes: 700_000,
        plain_bytes: CHUNKS_PER_FRAME << 16,
        chunks: (0..CHUNKS_PER_FRAME)
            .map(|chunk| ChunkEntry { id: id(first + frame * CHUNKS_PER_FRAME + chunk), bytes: 1 << 16 })
            .collect(),
    };
    PackEntry {
        id: PackId::of(&number.to_le_bytes()),
        origin: 0,
        stored_bytes: 32 << 20,
        salt: [1; 32],
        frame_commitment: [2; 32],
        frames: (0..FRAMES_PER_PACK).map(frame).collect(),
    }
}

fn segment(c: &mut Criterion) {
    let origin = Origin {
        session: SessionId::from_bytes([1; 16]),
        epoch: EpochId::from_bytes([2; 16]),
        credential: CredentialId::from_bytes([3; 32]),
        envelope: vec![4; 1169],
    };
    let segment = Segment { origins: vec![origin], packs: (0..PACKS).map(pack).collect() };
    let bytes = segment.encode();
    assert_eq!(Segment::decode(&bytes), Ok(segment.clone()));
    let mut group = c.benchmark_group("index segment");
    group.throughput(Throughput::Elements(u64::from(PACKS * FRAMES_PER_PACK * CHUNKS_PER_FRAME)));
    group.bench_function("encode", |b| b.iter(|| black_box(&segment).encode()));
    group.bench_function("decode", |b| b.iter(|| Segment::decode(black_box(&bytes))));
    group.finish();
}

criterion_group!(benches, directory, segment);
criterion_main!(benches);
