//! The catalog at a million chunks: lookups that find and that do not, importing, and opening; and one of ten
//! thousand sessions.
//!
//! `ESKER_BENCH_ROWS` sets another number of rows, `ESKER_BENCH_DIR` another place than below
//! `target`. Goals: a million lookups a second on one core, ten million chunks imported in a
//! minute in memory that stays the same, and a catalog of them opened in a few milliseconds:
//! every command does that.

use std::hint::black_box;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use criterion::BatchSize;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use esker::id::ChunkId;
use esker::id::CredentialId;
use esker::id::DescriptionId;
use esker::id::EpochId;
use esker::id::PackId;
use esker::id::SessionId;
use esker::index::Catalog;
use esker::index::Import;
use esker::index::ImportPack;
use esker::index::NewOrigin;
use esker::index::NewRow;

const ROWS_PER_PACK: u32 = 500;
const PACKS_PER_BATCH: u32 = 256;

fn id(n: u32) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn pack(number: u32) -> ImportPack {
    let row = |n: u32| NewRow {
        id: id(number * ROWS_PER_PACK + n),
        frame: n / 16,
        frame_offset: n / 16 * 700_000,
        frame_sealed: 700_000,
        frame_plain: 1 << 20,
        chunk_offset: n % 16 * 65_536,
        chunk_bytes: 65_536,
        kind: 0,
        compression: 1,
    };
    ImportPack {
        id: PackId::of(&number.to_le_bytes()),
        origin: 0,
        salt: [1; 32],
        commitment: [2; 32],
        stored_bytes: 32 << 20,
        description: DescriptionId::from_bytes([3; 32]),
        rows: (0..ROWS_PER_PACK).map(row).collect(),
    }
}

/// Sources of so many rows in all, in batches of 128 thousand.
fn batches(rows: u32) -> impl Iterator<Item = Vec<Import>> {
    let packs = rows / ROWS_PER_PACK;
    (0..packs).step_by(PACKS_PER_BATCH as usize).map(move |first| {
        let origin = NewOrigin {
            session: SessionId::from_bytes([1; 16]),
            epoch: EpochId::from_bytes([2; 16]),
            credential: CredentialId::from_bytes([3; 32]),
            envelope: vec![4; 1200],
        };
        let last = packs.min(first + PACKS_PER_BATCH);
        vec![Import {
            key: *id(u32::MAX - first).as_bytes(),
            origins: vec![origin],
            packs: (first..last).map(pack).collect(),
        }]
    })
}

fn filled(dir: &Path, batches: impl Iterator<Item = Vec<Import>>) -> Catalog {
    let mut catalog = Catalog::open(dir).expect("the directory is ours");
    for batch in batches {
        catalog.import(batch).expect("there is room");
    }
    assert!(!catalog.is_private());
    catalog
}

fn directory() -> tempfile::TempDir {
    let place = std::env::var_os("ESKER_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    tempfile::Builder::new().tempdir_in(place).expect("a directory")
}

/// The most memory that was ever in use, files mapped and not: KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells it");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it is one of the lines");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// The anonymous memory in use now: KiB.
fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells it");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("it is one of the lines");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

fn index(c: &mut Criterion) {
    let rows: u32 = std::env::var("ESKER_BENCH_ROWS").map_or(1_000_000, |rows| rows.parse().expect("a number"));
    let dir = directory();
    let began = Instant::now();
    let mut most = 0;
    let catalog = filled(dir.path(), batches(rows).inspect(|_| most = most.max(anonymous_kib())));
    #[allow(clippy::print_stdout)]
    {
        let (secs, peak) = (began.elapsed().as_secs_f64(), peak_kib() >> 10);
        println!(
            "{rows} rows imported in {secs:.1} s; anonymous memory up to {} MiB, {peak} MiB with files",
            most >> 10
        );
    }
    let mut group = c.benchmark_group(format!("catalog of {rows}"));

    group.throughput(Throughput::Elements(100_000));
    for (what, first) in [("lookup hit", 0), ("lookup miss", rows)] {
        // Ids all over the catalog, made beforehand.
        let ids: Vec<ChunkId> = (0..100_000_u64)
            .map(|n| id(first + u32::try_from(n * 7_919 % u64::from(rows)).expect("below the rows")))
            .collect();
        let found = ids.iter().filter(|id| catalog.lookup(id).next().is_some()).count();
        assert_eq!(found, if first == 0 { ids.len() } else { 0 });
        group.bench_function(what, |b| {
            b.iter(|| ids.iter().filter(|id| catalog.lookup(black_box(id)).next().is_some()).count())
        });
    }

    group.throughput(Throughput::Elements(u64::from(rows)));
    group.sample_size(10);
    group.bench_function("import", |b| {
        b.iter_batched(
            || (directory(), batches(rows).collect::<Vec<_>>()),
            |(dir, batches)| (filled(dir.path(), batches.into_iter()), dir),
            BatchSize::PerIteration,
        )
    });
    group.bench_function("open", |b| b.iter(|| Catalog::open(dir.path()).expect("the directory is ours")));
    group.finish();
}

/// Many sessions of a few chunks each, as small backups leave them.
fn sessions(c: &mut Criterion) {
    const SESSIONS: u32 = 10_000;
    let dir = directory();
    let import = |n: u32| {
        let session = SessionId::from_bytes(*id(n).as_bytes().first_chunk().expect("an id has 32 bytes"));
        let origin = NewOrigin {
            session,
            epoch: EpochId::from_bytes([2; 16]),
            credential: CredentialId::from_bytes([3; 32]),
            envelope: vec![4; 1200],
        };
        let mut pack = pack(n);
        pack.rows.truncate(10);
        Import { key: *id(u32::MAX - n).as_bytes(), origins: vec![origin], packs: vec![pack] }
    };
    let batches = (0..SESSIONS / 1000).map(|batch| (batch * 1000..(batch + 1) * 1000).map(import).collect());
    let mut catalog = filled(dir.path(), batches);
    let facts: Vec<_> = (0..SESSIONS).map(|n| (n.to_le_bytes(), [5; 300])).collect();
    catalog.put_facts(&facts.iter().map(|(key, value)| (&key[..], &value[..])).collect::<Vec<_>>());
    let keys: Vec<&[u8]> = facts.iter().map(|(key, _)| &key[..]).collect();
    let mut group = c.benchmark_group(format!("catalog of {SESSIONS} sessions"));
    group.bench_function("open", |b| b.iter(|| Catalog::open(dir.path()).expect("the directory is ours")));
    group.bench_function("facts", |b| b.iter(|| catalog.facts(black_box(&keys))));
    group.finish();
}

criterion_group!(benches, index, sessions);
criterion_main!(benches);
