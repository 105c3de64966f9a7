//! How fast files become frames: `cargo bench --bench chunk`.
//!
//! The figures to hold against are in DESIGN.md's baselines: one core cuts 3.4 GB/s, zstd's
//! level 3 gives about 0.5 GB/s on a disk image, verification costs a fifth of that.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use esker::chunk::compress::{Compressor, Decompressor, Level};
use esker::chunk::cut::{Cutter, End, Parameters};
use esker::chunk::split::{Split, Splitter};

const MIB: usize = 1 << 20;

fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Half noise, half runs of zeros of 1 KiB to 1 MiB.
fn zero_rich(length: usize) -> Vec<u8> {
    let mut bytes = noise("zeros", length);
    let mut at = 0;
    for step in 0.. {
        let run = 1 << (10 + step * 7 % 11);
        let Some(zeros) = bytes.get_mut(at..at + run) else { break };
        zeros.fill(0);
        at += 2 * run;
    }
    bytes
}

/// Compresses about as a disk image does: half of it noise, half text.
fn mixed(length: usize) -> Vec<u8> {
    let mut bytes = noise("mixed", length);
    for (number, block) in bytes.chunks_mut(2048).enumerate() {
        let text = format!("entry {number}: size {} owner root mode 0644\n", number * 37);
        let half = block.len() / 2;
        for (byte, letter) in block[..half].iter_mut().zip(text.bytes().cycle()) {
            *byte = letter;
        }
    }
    bytes
}

fn cutter() -> Arc<Cutter> {
    Arc::new(Cutter::new(Parameters::with_average(64 << 10), &[7; 32]))
}

fn cut(criterion: &mut Criterion) {
    let cutter = cutter();
    let data = noise("cut", 16 * MIB);
    let mut group = criterion.benchmark_group("cut");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("crate", |bencher| {
        bencher.iter(|| {
            let mut rest = &data[..];
            while let Some(length) = cutter.cut(rest, End::Here) {
                rest = &rest[length..];
            }
        });
    });
    group.bench_function("definition", |bencher| {
        bencher.iter(|| {
            let mut rest = &data[..];
            while !rest.is_empty() {
                rest = &rest[black_box(cutter.scan(rest))..];
            }
        });
    });
    group.finish();
}

fn split(criterion: &mut Criterion) {
    let mut splitter = Splitter::new(cutter());
    let mut sink = |split: Split<'_>| {
        black_box(split);
        Ok::<_, Infallible>(())
    };
    let mut group = criterion.benchmark_group("split");
    for (name, data) in
        [("random", noise("split", 16 * MIB)), ("zero-rich", zero_rich(16 * MIB)), ("zeros", vec![0; 16 * MIB])]
    {
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let Ok(()) = splitter.push(&data, &mut sink);
                let Ok(()) = splitter.finish(&mut sink);
            });
        });
    }
    let file = noise("file", 12 << 10);
    group.throughput(Throughput::Elements(1));
    group.bench_function("file of 12 KiB", |bencher| {
        bencher.iter(|| {
            let Ok(()) = splitter.push(&file, &mut sink);
            let Ok(()) = splitter.finish(&mut sink);
        });
    });
    group.finish();
}

fn compress(criterion: &mut Criterion) {
    let frame = mixed(MIB);
    let mut group = criterion.benchmark_group("compress");
    group.throughput(Throughput::Bytes(frame.len() as u64)).sample_size(20);
    for level in ["fast", "auto", "better", "max"] {
        let level: Level = level.parse().expect("a level");
        for (name, mut compressor) in
            [("verified", Compressor::new(level)), ("unverified", Compressor::without_verification(level))]
        {
            let mut stored = Vec::new();
            group.bench_function(BenchmarkId::new(name, level), |bencher| {
                bencher.iter(|| compressor.compress(&frame, &mut stored));
            });
        }
    }
    let random = noise("frame", MIB);
    let mut stored = Vec::new();
    let mut compressor = Compressor::new(Level::default());
    group.bench_function("random", |bencher| bencher.iter(|| compressor.compress(&random, &mut stored)));
    group.finish();
}

fn decompress(criterion: &mut Criterion) {
    let frame = mixed(MIB);
    let mut stored = Vec::new();
    let compression = Compressor::new(Level::default()).compress(&frame, &mut stored).compression();
    let mut decompressor = Decompressor::new();
    let mut plain = Vec::new();
    let mut group = criterion.benchmark_group("decompress");
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("auto", |bencher| {
        bencher.iter(|| decompressor.decompress_into(&stored, compression, MIB, MIB, &mut plain));
    });
    group.finish();
}

criterion_group!(benches, cut, split, compress, decompress);
criterion_main!(benches);
