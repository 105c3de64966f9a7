//! What `stats` says is so, and it says it without reading the packs.
//!
//! The risk: numbers people pay for or delete by, that are wrong where chunks are shared, stored
//! twice or damaged. They are compared with what is in the storage and with what was made.

use serde_json::Value;

#[path = "support/cli.rs"]
#[allow(dead_code, reason = "each file of tests uses its part")]
mod support;

use support::Machine;

/// Bytes that neither compress nor repeat.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn stats(machine: &Machine, args: &[&str]) -> Value {
    machine.esker(["stats", "--json"].iter().chain(args)).success().json().remove(0)
}

fn stored(machine: &Machine, prefix: &str) -> u64 {
    let objects = machine.memory.snapshot();
    objects.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, bytes)| bytes.len() as u64).sum()
}

const KINDS: [&str; 6] = ["data_packs", "tree_packs", "mixed_packs", "unused_packs", "index", "rest"];

#[test]
fn every_object_is_counted_once_and_every_chunk_too() {
    let machine = Machine::with_repository();
    machine.write("files/a", noise(1, 300_000));
    machine.write("files/same", noise(1, 300_000));
    machine.write("files/zeros", vec![0; 1 << 20]);
    machine.esker(["backup", "files"]).success();
    machine.write("files/b", noise(2, 100_000));
    machine.esker(["backup", "files"]).success();
    // What an interrupted session left is in nobody's way, and counted.
    let mut content = machine.memory.snapshot();
    content.insert(format!("packs/00/{}", "0".repeat(64)), vec![7; 1000].into());
    machine.memory.restore(content);

    let report = stats(&machine, &[]);
    let sum: u64 = KINDS.iter().map(|kind| report["stored"][kind]["bytes"].as_u64().unwrap()).sum();
    assert_eq!(sum, stored(&machine, ""));
    assert_eq!(report["total_size"], sum);
    let packs: u64 = KINDS[..4].iter().map(|kind| report["stored"][kind]["bytes"].as_u64().unwrap()).sum();
    assert_eq!(packs, stored(&machine, "packs/"));
    assert_eq!(report["stored"]["unused_packs"], serde_json::json!({ "count": 1, "bytes": 1000 }));
    assert_eq!(report["data"]["plain_bytes"], 400_000, "equal files and zeros are stored once or not at all");
    let restored = 2 * (600_000 + (1 << 20)) + 100_000;
    assert_eq!((&report["restore_size"], &report["snapshots_count"]), (&restored.into(), &2.into()));
    assert_eq!(report["total_file_count"], 7);
    assert_eq!(report["deduplication_ratio"], f64::from(restored) / 400_000.0);
    assert_eq!(report["untrusted_copies"]["chunks"], 0);
    assert_eq!(report["other_copies"]["chunks"], 0);
    // Without copies the frames are what their chunks are, rounding aside.
    for kind in ["data", "trees"] {
        let (frames, chunks) = (&report[if kind == "data" { "data_frames" } else { "tree_frames" }], &report[kind]);
        assert_eq!(frames["plain_bytes"], chunks["plain_bytes"], "{kind}");
        let (sealed, shares) = (frames["sealed_bytes"].as_u64().unwrap(), chunks["stored_bytes"].as_u64().unwrap());
        assert!(shares <= sealed && sealed - shares < chunks["chunks"].as_u64().unwrap(), "{kind}: {sealed} {shares}");
    }
}

#[test]
fn people_read_a_table() {
    let machine = Machine::with_repository();
    machine.write("files/a", noise(1, 300_000));
    machine.write("files/same", noise(1, 300_000));
    machine.esker(["backup", "files"]).success();
    let output = machine.esker(["stats"]).success();
    insta::with_settings!({ filters => [
        // Names of owners and times are in trees.
        (r"((?:the rest|in all|packs of both) +\d+) +[\d.]+ \w+", "$1  [SIZE]"),
        (r"trees  .*", "[TREES]"),
        (r"of trees [\d.]+", "of trees [RATIO]"),
    ] }, {
        insta::assert_snapshot!(output.to_string(), @"
        repository eea3f5b9 at memory

        Stored         Objects       Size
        data packs           0        0 B
        tree packs           0        0 B
        packs of both        1  [SIZE]
        unused packs         0        0 B
        index                0        0 B
        the rest             8  [SIZE]
        in all               9  [SIZE]

        restored       585.9 KiB in 2 files of 1 snapshot
        deduplication  2.0 to 1
        compression    1.0 to 1, 1 frame; of trees [RATIO] to 1, 1 frame
        data           293.0 KiB in 5 chunks (293.0 KiB stored)
        [TREES]
        stored again   0 B in 0 chunks (0 B stored) by keys that do not build on each other
        [exit 0]
        ");
    });
    let output = machine.esker(["stats", "latest"]).success();
    let filter = (r"[\d.]+ KiB in \d+ chunks? \([\d.]+ KiB stored\)", "[SIZE] in [CHUNKS] ([SIZE] stored)");
    insta::with_settings!({ filters => [filter] }, {
        insta::assert_snapshot!(output.to_string(), @"
        snapshot 371a5713
          restored      585.9 KiB in 2 files
          distinct      [SIZE] in [CHUNKS] ([SIZE] stored)
          nowhere else  [SIZE] in [CHUNKS] ([SIZE] stored)
        [exit 0]
        ");
    });
}

#[test]
fn what_keys_store_again_for_lack_of_trust_is_told() {
    let machine = Machine::with_repository();
    machine.write("files/shared", noise(1, 200_000));
    machine.esker(["backup", "files"]).success();
    let writers = [("one", 11), ("two", 12)].map(|(name, seed)| {
        machine.esker(["key", "writer", "--out", name, "--name", name]).success();
        let mut writer = Machine::seeded(seed);
        writer.memory = machine.memory.clone();
        writer.set("ESKER_KEY_FILE", machine.path(name));
        writer.write("own/shared", noise(1, 200_000));
        writer.write("own/theirs", noise(2, 100_000));
        writer.esker(["backup", "own"]).success();
        writer
    });
    // Writers build on what owners stored, not on each other.
    let report = stats(&machine, &[]);
    let copied = report["untrusted_copies"]["plain_bytes"].as_u64().unwrap();
    assert!((100_000..105_000).contains(&copied), "the file's content and a few nodes: {copied}");
    assert_eq!(report["data"]["plain_bytes"], 300_000);
    assert_eq!(report["restore_size"], 200_000 + 2 * 300_000);
    // A writer reads no snapshot, and still learns what the index says.
    let seen = stats(&writers[0], &[]);
    assert_eq!((&seen["data"], &seen["untrusted_copies"]), (&report["data"], &report["untrusted_copies"]));
    assert_eq!((&seen["snapshots_count"], &seen["restore_size"]), (&Value::Null, &Value::Null));
    assert!(writers[0].esker(["stats"]).success().out().contains("not for this key to tell"));
    writers[0].esker(["stats", "latest"]).fails(6);
    writers[0].esker(["stats", "--host", "x"]).fails(6);
}

#[test]
fn a_snapshot_is_told_apart_from_what_others_have_too() {
    let machine = Machine::with_repository();
    machine.write("files/deep/kept", noise(1, 150_000));
    machine.write("files/gone", noise(2, 50_000));
    machine.esker(["backup", "files", "--tag", "first"]).success();
    std::fs::remove_file(machine.path("files/gone")).unwrap();
    machine.write("files/added", noise(3, 70_000));
    machine.write("files/copy", noise(1, 150_000));
    machine.esker(["backup", "files", "--tag", "second"]).success();

    let data = |args: &[&str]| {
        let found = stats(&machine, args);
        let number = |value: &Value| value.as_u64().unwrap();
        let (distinct, only) =
            (number(&found["distinct"]["plain_bytes"]), number(&found["nowhere_else"]["plain_bytes"]));
        assert_eq!(found["damaged"], 0);
        (number(&found["total_size"]), distinct, only)
    };
    // Trees take some hundred bytes of their own.
    let about = |(size, distinct, only): (u64, u64, u64), expected: (u64, u64, u64)| {
        assert_eq!(size, expected.0);
        assert!((expected.1..expected.1 + 5000).contains(&distinct), "{distinct} for {expected:?}");
        assert!((expected.2..expected.2 + 5000).contains(&only), "{only} for {expected:?}");
    };
    about(data(&["latest~1"]), (200_000, 200_000, 50_000));
    about(data(&["latest"]), (370_000, 220_000, 70_000));
    about(data(&["--tag", "first"]), (200_000, 200_000, 50_000));
    about(data(&["--host", "difference"]), (570_000, 270_000, 270_000));
    let top = machine.path("files").canonicalize().unwrap();
    about(data(&[&format!("latest:{}/deep", top.display())]), (150_000, 150_000, 0));
    about(data(&[&format!("latest:{}/added", top.display())]), (70_000, 70_000, 70_000));
    machine.esker(["stats", &format!("latest:{}/gone", top.display())]).fails(1);
    machine.esker(["stats", "ffff"]).fails(1);
    assert_eq!(stats(&machine, &["--tag", "none"])["total_size"], 0);
}

#[test]
fn damage_is_said_and_not_counted_over() {
    let machine = Machine::with_repository();
    for number in 0..20 {
        machine.write(&format!("files/{number}/file"), noise(number, 10_000));
    }
    machine.esker(["backup", "files"]).success();
    let content = machine.memory.snapshot().into_iter().filter(|(name, _)| !name.starts_with("packs/")).collect();
    machine.memory.restore(content);
    let output = machine.esker(["stats", "latest", "--json"]).success();
    assert!(output.json()[0]["damaged"].as_u64().unwrap() > 0, "{output}");
    assert!(output.err().contains("run `esker check`"), "{output}");
}

#[test]
fn counting_the_whole_repository_reads_no_pack() {
    let machine = Machine::with_repository();
    machine.write("files/a", noise(1, 300_000));
    machine.esker(["backup", "files"]).success();
    let output = machine.esker(["stats", "-vv"]).success();
    assert!(output.err().contains("storage: list"), "{output}");
    assert!(!output.err().contains("storage: get packs/"), "{output}");
}
