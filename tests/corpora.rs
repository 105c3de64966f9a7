//! Risk: bytes from a storage, a key file or a command line make the program panic, or take memory
//! for a length that is only claimed, or are accepted in a second encoding.
//! Method: the fuzz targets of `fuzz/`, without libFuzzer, over everything that fuzzing has kept
//! (`fuzz/corpus/TARGET`) and over every vector, each also cut short and with a byte changed.
//!
//! `ESKER_WRITE_CORPORA=1 cargo test --test corpora` writes what fuzzing begins with: the vectors
//! and the seeds that targets name. `fuzz/run` adds to it.

#[path = "../fuzz/src/memory.rs"]
mod memory;
#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: memory::Counted = memory::Counted;

/// All corpora together stay below this: they are in every clone.
const CORPORA_BYTES_MAX: usize = 3 << 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn corpus(target: &Target) -> PathBuf {
    root().join("fuzz/corpus").join(target.name)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// The objects of the vectors that a target reads.
fn vectors(target: &Target) -> Vec<(String, Vec<u8>)> {
    let object = format!("object: {}", target.name.replace('_', " "));
    let files = files(&root().join("format-spec/vectors"));
    let vectors = files.iter().filter_map(|path| {
        let file = fs::read(path).unwrap();
        let end = file.windows(2).position(|pair| pair == b"\n\n")?;
        let header = std::str::from_utf8(&file[..end]).ok()?;
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        header.lines().any(|line| line == object).then(|| (name, file[end + 2..].to_vec()))
    });
    vectors.collect()
}

fn write(target: &Target) {
    let directory = corpus(target);
    fs::create_dir_all(&directory).unwrap();
    let seeds = target.seeds.iter().enumerate().map(|(n, seed)| (format!("seed_{n}"), seed.to_vec()));
    for (name, bytes) in vectors(target).into_iter().chain(seeds) {
        fs::write(directory.join(name), bytes).unwrap();
    }
}

#[test]
fn every_kept_input_passes_its_target() {
    let mut total = 0;
    for target in TARGETS {
        if std::env::var_os("ESKER_WRITE_CORPORA").is_some() {
            write(target);
        }
        let files = files(&corpus(target));
        assert!(!files.is_empty(), "target `{}` has no corpus", target.name);
        for path in files {
            let input = fs::read(&path).unwrap();
            total += input.len();
            replay(target, &path.display().to_string(), &input);
        }
    }
    assert!(total < CORPORA_BYTES_MAX, "the corpora have {total} bytes: minimise them with `fuzz/run --minimize`");
}

#[test]
fn every_vector_cut_and_changed_passes_its_target() {
    let mut read = 0;
    for target in TARGETS {
        for (name, bytes) in vectors(target) {
            read += 1;
            for at in places(bytes.len()) {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                replay(target, &format!("{name}, byte {at} changed"), &changed);
                replay(target, &format!("{name}, cut at {at}"), &bytes[..at]);
            }
        }
    }
    assert!(read > 150, "{read} vectors have a target");
}

/// Every place in short inputs; so many in longer ones, for some targets do public-key arithmetic.
fn places(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(length.div_ceil(64).max(1))
}

fn replay(target: &Target, what: &str, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| target.run(input));
    assert!(outcome.is_ok(), "target `{}` fails with {what}", target.name);
}

/// A directory that belongs to no target is a target that was renamed, and tests nothing.
#[test]
fn every_corpus_belongs_to_a_target() {
    let known: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(known.len(), TARGETS.len(), "two targets have one name");
    for entry in fs::read_dir(root().join("fuzz/corpus")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name), "no target is named `{name}`");
    }
}

/// Without it the bound on memory would be one that nothing exceeds.
#[test]
fn memory_that_is_taken_is_counted() {
    let peak = memory::peak_of(|| drop(std::hint::black_box(vec![0_u8; 1 << 20])));
    assert!((1 << 20..1 << 21).contains(&peak), "{peak}");
    let peak = memory::peak_of(|| {
        let mut grown = vec![0_u8; 1 << 20];
        grown.resize(1 << 21, 1);
        std::hint::black_box(&grown);
    });
    assert!(peak >= 3 << 20, "both copies are there while it grows: {peak}");
}
