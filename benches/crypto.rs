//! Sealing, opening and naming: `cargo bench --bench crypto`.
//!
//! What to hold the figures against: keyed BLAKE3 names 7.5 GB/s of 64 KiB chunks on one core, and
//! the cipher seals 2.7 GB/s with AVX-512 and 1.2 GB/s without.

use std::hint::black_box;

use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use esker::crypto::envelope::KemPrivate;
use esker::crypto::envelope::open_secret;
use esker::crypto::envelope::seal_secret;
use esker::crypto::ident::ChunkKind;
use esker::crypto::ident::IdKeys;
use esker::crypto::key::SecretKey;
use esker::crypto::seal;
use esker::crypto::slot::KdfCost;
use esker::crypto::slot::password_key;
use esker::world::World;

const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"crypto").finalize_xof().fill(&mut bytes);
    bytes
}

/// A frame's way to the storage and back.
fn frames(c: &mut Criterion) {
    let key = SecretKey::from_bytes(&[1; 32]);
    let mut group = c.benchmark_group("frame");
    for size in SIZES {
        let plain = noise(size);
        let mut sealed = Vec::new();
        seal::seal_into(&key, [2; seal::NONCE_BYTES], b"ordinal", &plain, &mut sealed);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("seal", size), |b| {
            let mut out = Vec::with_capacity(sealed.len());
            b.iter(|| {
                out.clear();
                seal::seal_into(&key, [2; seal::NONCE_BYTES], b"ordinal", black_box(&plain), &mut out);
            });
        });
        group.bench_function(BenchmarkId::new("open", size), |b| {
            b.iter(|| seal::open(&key, b"ordinal", black_box(&sealed), "frame").expect("it was just sealed"));
        });
    }
    group.finish();
}

fn names(c: &mut Criterion) {
    let keys = IdKeys::new(&SecretKey::from_bytes(&[3; 32]));
    let mut group = c.benchmark_group("chunk id");
    for size in SIZES {
        let content = noise(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| keys.chunk(ChunkKind::Data, black_box(&content)));
        });
    }
    group.finish();
}

/// What each session, and each unlocking with a password, costs once.
fn once(c: &mut Criterion) {
    let world = World::seeded(1);
    let pair = KemPrivate::from_seed(SecretKey::from_bytes(&[4; 32]));
    let public = pair.public();
    let envelope = seal_secret(&world, &public, None, b"info", &[5; 32]).expect("the key is ours");
    c.bench_function("session secret, seal", |b| {
        b.iter(|| seal_secret(&world, black_box(&public), None, b"info", &[5; 32]).expect("the key is ours"));
    });
    c.bench_function("session secret, open", |b| {
        b.iter(|| open_secret(&pair, None, b"info", black_box(&envelope), "secret").expect("it was just sealed"));
    });
    let mut group = c.benchmark_group("password");
    group.sample_size(10);
    group.bench_function("default cost", |b| {
        b.iter(|| password_key(black_box(b"correct horse"), &[6; 32], KdfCost::DEFAULT).expect("there is memory"));
    });
    group.finish();
}

criterion_group!(benches, frames, names, once);
criterion_main!(benches);
