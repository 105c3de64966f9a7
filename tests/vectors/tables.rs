//! The byte tables of the specification, compared with the constants of the code.

use esker::crypto::slot::KdfCost;
use esker::format::config::{SLOT_BODY_BYTES, SLOT_HEADER_BYTES, SLOT_MAGIC};
use esker::format::pack::{
    CHUNK_BYTES_MAX, DIRECTORY_BYTES_MAX, FRAME_PLAIN_BYTES_MAX, PACK_BYTES_MAX, TRAILER_BYTES, TRAILER_MAGIC,
};
use esker::format::parity::{PARITY_BYTES_MAX, PARITY_HEADER_BYTES, PARITY_MAGIC, SHARDS_MAX};
use esker::format::record::{DIGEST_BYTES, RECORD_BYTES_MAX, SEALED_HEADER_BYTES, SEALED_MAGIC, SIGNED_MAGIC};
use esker::format::tree;
use esker::id::unhex;

/// A fixed-width row of a table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    offset: usize,
    size: usize,
    field: String,
    /// A value given as hexadecimal bytes.
    value: Option<Vec<u8>>,
}

/// The rows of the table that stands under `<!-- table: NAME -->`.
fn table(spec: &str, name: &str) -> Vec<Row> {
    let marker = format!("<!-- table: {name} -->");
    spec.lines()
        .skip_while(|line| *line != marker)
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .filter_map(row)
        .collect()
}

/// A row whose offset and size are numbers; what follows a part of variable length has none.
fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim().strip_prefix('|')?.split('|').map(str::trim).collect();
    let [offset, size, field, rest @ ..] = &cells[..] else { return None };
    let value = rest.iter().flat_map(|cell| cell.split('`')).find_map(|text| {
        let bytes = text.split_whitespace().collect::<Vec<_>>();
        let is_bytes = bytes.len() > 1 && bytes.iter().all(|byte| byte.len() == 2);
        if is_bytes { unhex(&bytes.concat()) } else { None }
    });
    Some(Row {
        offset: offset.parse().ok()?,
        size: size.parse().ok()?,
        field: field.trim_matches('`').to_owned(),
        value,
    })
}

/// Says how a table differs from the code, if it does.
fn difference(rows: &[Row], totals: &[usize], magic: Option<[u8; 8]>) -> Result<(), String> {
    let mut at = 0;
    for row in rows {
        if row.offset != at {
            return Err(format!("`{}` is at {}, but what is before it ends at {at}", row.field, row.offset));
        }
        at += row.size;
    }
    if !totals.contains(&at) {
        return Err(format!("{at} bytes in all, where the code has {totals:?}"));
    }
    let stated = rows.iter().find(|row| row.field == "magic").map(|row| row.value.clone());
    if stated != magic.map(|magic| Some(magic.to_vec())) {
        return Err(format!("the magic is {magic:02x?}, not {stated:02x?}"));
    }
    Ok(())
}

const SIGNED_HEADER_BYTES: usize = 16;
const FRAME_ROW_BYTES: usize = 16;
const CHUNK_ROW_BYTES: usize = 36;
const SLOT_BYTES: usize = SLOT_HEADER_BYTES + SLOT_BODY_BYTES + esker::crypto::seal::OVERHEAD_BYTES + DIGEST_BYTES;

/// A table's name, the lengths its rows may add up to, and the magic it states.
type Case = (&'static str, &'static [usize], Option<[u8; 8]>);

#[test]
fn the_tables_of_the_specification_are_those_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/format-spec/SPEC.md");
    let spec = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let cases: [Case; 7] = [
        ("sealed record", &[SEALED_HEADER_BYTES], Some(SEALED_MAGIC)),
        ("signed record", &[SIGNED_HEADER_BYTES], Some(SIGNED_MAGIC)),
        ("slot", &[SLOT_HEADER_BYTES, SLOT_BYTES], Some(SLOT_MAGIC)),
        ("pack trailer", &[TRAILER_BYTES], Some(TRAILER_MAGIC)),
        ("parity object", &[PARITY_HEADER_BYTES], Some(PARITY_MAGIC)),
        ("frame row", &[FRAME_ROW_BYTES], None),
        ("chunk row", &[CHUNK_ROW_BYTES], None),
    ];
    let faults: Vec<String> = cases
        .iter()
        .filter_map(|(structure, totals, magic)| {
            let fault = difference(&table(&spec, structure), totals, *magic).err()?;
            Some(format!("`{structure}`: {fault}"))
        })
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The limits that stand under `<!-- limits -->` are the code's.
#[test]
fn the_limits_of_the_specification_are_those_of_the_code() {
    let spec = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/format-spec/SPEC.md")).unwrap();
    let limit = |name: &str| -> u64 {
        let row = format!("| `{name}` | ");
        let line = spec.lines().find_map(|line| line.strip_prefix(&row)).unwrap_or_else(|| panic!("no limit `{name}`"));
        line.split(' ').next().unwrap().parse().unwrap()
    };
    let (floor, ceiling) = (KdfCost::FLOOR, KdfCost::CEILING);
    for (name, value) in [
        ("record", RECORD_BYTES_MAX as u64),
        ("pack", PACK_BYTES_MAX),
        ("directory", DIRECTORY_BYTES_MAX.into()),
        ("parity", PARITY_BYTES_MAX),
        ("parity_shards", SHARDS_MAX.into()),
        ("frame", FRAME_PLAIN_BYTES_MAX.into()),
        ("chunk", CHUNK_BYTES_MAX.into()),
        ("chunk", esker::chunk::cut::CHUNK_BYTES_MAX.into()),
        ("zeros", esker::chunk::split::ZEROS_BYTES_MIN),
        ("inline_pieces", tree::INLINE_PIECES_MAX as u64),
        ("items", tree::NODE_ITEMS_MAX as u64),
        ("holes", tree::HOLES_MAX as u64),
        ("attributes", tree::XATTR_BYTES_MAX as u64),
        ("level", tree::LEVEL_MAX),
        ("name", esker::path::NAME_BYTES_MAX as u64),
        ("argon2_memory_kib_min", floor.memory_kib.into()),
        ("argon2_memory_kib_max", ceiling.memory_kib.into()),
        ("argon2_passes_min", floor.passes.into()),
        ("argon2_passes_max", ceiling.passes.into()),
        ("argon2_lanes_min", floor.lanes.into()),
        ("argon2_lanes_max", ceiling.lanes.into()),
    ] {
        assert_eq!(limit(name), value, "{name}");
    }
}

#[test]
fn a_table_that_differs_is_found() {
    let sample = "\
<!-- table: other -->\n| 0 | 9 | `x` | |\n\n### 1.1 Sample\nProse.\n\n<!-- table: sample -->\n| offset | size | field | value |\n|---|---|---|---|\n\
| 0 | 8 | `magic` | `45 53 4b 50 41 4b 00 01` (`ESKPAK`) |\n| 8 | 4 | `n` | u32 |\n| 12 | n | `body` | |\n\
| 12 + n | 32 | `digest` | |\n\n| 12 | 4 | `y` | |\n";
    let rows = table(sample, "sample");
    assert_eq!(rows.len(), 2);
    assert_eq!(difference(&rows, &[12], Some(TRAILER_MAGIC)), Ok(()));
    assert!(difference(&rows, &[16], Some(TRAILER_MAGIC)).is_err(), "another length");
    assert!(difference(&rows, &[12], Some(SLOT_MAGIC)).is_err(), "another magic");
    let gap = table(&sample.replace("| 8 | 4 |", "| 9 | 3 |"), "sample");
    assert!(difference(&gap, &[12], Some(TRAILER_MAGIC)).is_err(), "a gap");
    assert!(difference(&table(sample, "absent"), &[12], None).is_err(), "no table");
}

/// `Example (NAME from OFFSET): BYTES` is what stands there in that vector, from its end where the
/// offset is below zero.
#[test]
fn the_examples_of_the_specification_are_bytes_of_its_vectors() {
    let spec = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/format-spec/SPEC.md")).unwrap();
    let examples: Vec<_> = spec.lines().filter_map(|line| line.strip_prefix("Example (`")).collect();
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        let (name, rest) = example.split_once("` from ").expect("a vector");
        let (offset, bytes) = rest.split_once("): `").expect("an offset");
        let bytes = unhex(&bytes.trim_end_matches('`').replace(' ', "")).expect("hexadecimal bytes");
        let vectors = super::make::vectors();
        let vector = vectors.iter().find(|vector| vector.name == name).unwrap_or_else(|| panic!("no vector `{name}`"));
        let offset: isize = offset.parse().unwrap();
        let start = if offset < 0 { vector.bytes.len() - offset.unsigned_abs() } else { offset.unsigned_abs() };
        assert_eq!(vector.bytes.get(start..start + bytes.len()), Some(&bytes[..]), "{name}");
    }
}

/// What the specification says there are vectors of, there are vectors of.
#[test]
fn every_vector_the_specification_names_is_there() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/format-spec");
    let spec = std::fs::read_to_string(format!("{root}/SPEC.md")).unwrap();
    let files = std::fs::read_dir(format!("{root}/vectors")).unwrap();
    let files: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let named: Vec<&str> = spec
        .lines()
        .filter(|line| line.starts_with("Vectors: "))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        let found = match name.strip_suffix('*') {
            Some(prefix) => files.iter().any(|file| file.starts_with(prefix)),
            None => files.contains(&format!("{name}.txt")),
        };
        assert!(found, "no vector `{name}`");
    }
}
