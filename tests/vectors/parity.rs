//! Vectors of parity objects: what is computed, and what is refused.

use esker::format::parity::Layout;
use esker::id::{PackId, hex};
use esker::repo::parity::make_in;

use super::make::*;

/// Of no meaning, and each byte different from its neighbours.
fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"parity").finalize_xof().fill(&mut bytes);
    bytes
}

fn parity(name: &str, comment: &'static str, pack_bytes: usize, shard_bytes: u32, parity_shards: u32) -> Vector {
    let content = content(pack_bytes);
    let pack = PackId::of(&content);
    let layout = Layout { pack, pack_bytes: u32::try_from(pack_bytes).unwrap(), shard_bytes, parity_shards };
    let stored = make_in(layout, &content).unwrap();
    good(name, "parity object", comment, stored).with("content", hex(&content))
}

pub(super) fn vectors() -> Vec<Vector> {
    let small = parity("parity_small", "five data shards in two polynomials, the last shard not full", 300, 64, 3);
    let with = |name: &str, expect, comment: &str, at: usize, bytes: &[u8]| {
        small.refused(name, expect, comment, |stored| {
            stored[at..at + bytes.len()].copy_from_slice(bytes);
            digest_again(stored);
        })
    };
    let number =
        |name: &str, comment: &str, at: usize, number: u32| with(name, "malformed", comment, at, &number.to_le_bytes());
    vec![
        small.refused("parity_digest", "malformed", "a byte of its shards is changed", |stored| {
            let at = stored.len() - 40;
            stored[at] ^= 1;
        }),
        with("parity_magic", "malformed", "another magic", 0, b"ESKPAR\x00\x02"),
        with("parity_code", "unsupported", "code 2", 8, &[2]),
        with("parity_reserved", "malformed", "a reserved byte is 1", 9, &[1]),
        with("parity_other_pack", "wrong identity", "another pack of the same length", 24, &[7; 32]),
        number("parity_shard_of_65", "a shard has 65 bytes", 12, 65),
        number("parity_shard_of_none", "a shard has no bytes", 12, 0),
        number("parity_none", "no parity shards", 16, 0),
        number("parity_many", "4097 parity shards", 16, 4097),
        number("parity_of_nothing", "a pack of no bytes", 20, 0),
        number("parity_of_many", "4097 data shards", 20, 4097 * 64),
        small.refused("parity_cut", "truncated", "without its last shard", |stored| stored.truncate(stored.len() - 64)),
        small.refused("parity_long", "malformed", "a byte behind its shards", |stored| {
            stored.insert(stored.len() - 32, 0);
            digest_again(stored);
        }),
        parity("parity_one", "one data shard, one parity shard: the same bytes", 50, 64, 1),
        parity("parity_wide", "more parity than data, and two groups of 64 bytes to a shard", 300, 128, 5),
        small,
    ]
}
