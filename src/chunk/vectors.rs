//! The golden cuts: every `cut_*` and `zeros_*` file in `format-spec/vectors`.
//!
//! The risk is a dependency or an edit that moves cut points: nothing would fail, and every
//! repository would store everything once more. The files are written from [`CASES`] with
//! `ESKER_WRITE_VECTORS=1 cargo test --lib chunk::vectors`; a change to one that has been
//! released is a change of the format.
//!
//! The stream is not in the file but in its header, as parts joined by commas: `noise SEED N` is
//! the first N bytes of the BLAKE3 output of the seed's ASCII bytes, `repeat HEX N` is N bytes
//! of those bytes over and over. `cuts` lists the lengths of the pieces, with a `z` before
//! those of zeros.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cut::tests::noise;
use super::cut::{Cutter, Parameters};
use super::split::tests::{Owned, plain_split, split_whole};
use crate::id::{hex, unhex};

struct Case {
    name: &'static str,
    average: u32,
    content: &'static str,
    comment: &'static str,
}

const CASES: &[Case] = &[
    Case { name: "cut_empty", average: 65_536, content: "", comment: "no bytes, no chunks" },
    Case {
        name: "cut_below_minimum",
        average: 65_536,
        content: "noise short 16384",
        comment: "exactly the smallest chunk; the hash never starts",
    },
    Case { name: "cut_noise_512", average: 512, content: "noise a 16384", comment: "the smallest average" },
    Case { name: "cut_noise_64k", average: 65_536, content: "noise b 2000000", comment: "an even number of bytes" },
    Case { name: "cut_noise_1m", average: 1 << 20, content: "noise c 12000001", comment: "the largest average" },
    Case {
        name: "cut_odd_end",
        average: 512,
        content: "noise odd416 201",
        comment: "no cut is looked for before the last byte of an odd length, where the hash would match",
    },
    Case {
        name: "cut_even_end",
        average: 512,
        content: "noise odd416 202",
        comment: "cut_odd_end and one byte more: now the cut there is found",
    },
    Case {
        name: "cut_periodic",
        average: 4096,
        content: "repeat 616263 100000",
        comment: "no match in three bytes repeated, so every chunk is of the largest length",
    },
    Case {
        name: "cut_insertion",
        average: 4096,
        content: "noise d 50000, repeat 78 1, noise e 50000",
        comment: "one byte between two noises",
    },
    Case {
        name: "zeros_below",
        average: 16_384,
        content: "noise f 5000, repeat 00 65535, noise g 5000",
        comment: "one zero too few for a piece of its own",
    },
    Case {
        name: "zeros_exact",
        average: 16_384,
        content: "noise f 5000, repeat 00 65536, noise g 5000",
        comment: "just long enough; the chunk before it ends at it, the one after begins behind it",
    },
    Case { name: "zeros_only", average: 65_536, content: "repeat 00 5000000", comment: "nothing but zeros" },
    Case {
        name: "zeros_at_both_ends",
        average: 65_536,
        content: "repeat 00 70000, noise h 300000, repeat 00 131073",
        comment: "runs that begin and end the stream",
    },
    Case {
        name: "zeros_close",
        average: 16_384,
        content: "repeat 00 65536, repeat 01 1, repeat 00 65536, repeat 0100 50000, repeat 00 65535",
        comment: "one byte between two runs; the last run begins with the last byte of the part before",
    },
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/vectors")
}

fn content(description: &str) -> Vec<u8> {
    description
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .flat_map(|part| {
            let words: Vec<&str> = part.split(' ').collect();
            let [kind, what, length] = words[..] else { panic!("a part of content is three words: `{part}`") };
            let length = length.parse().unwrap();
            match kind {
                "noise" => noise(what, length),
                "repeat" => unhex(what).unwrap().into_iter().cycle().take(length).collect(),
                _ => panic!("unknown content `{part}`"),
            }
        })
        .collect()
}

fn cuts(pieces: &[Owned]) -> String {
    let cuts: Vec<String> = pieces
        .iter()
        .map(|piece| match piece {
            Owned::Chunk(bytes) => bytes.len().to_string(),
            Owned::Zeros(bytes) => format!("z{bytes}"),
        })
        .collect();
    cuts.join(" ")
}

fn write(case: &Case) {
    let key: Vec<u8> = (0..32).collect();
    let parameters = Parameters::with_average(case.average);
    let cutter = Cutter::new(parameters, &key.clone().try_into().unwrap());
    let data = content(case.content);
    let text = format!(
        "expect: success\nobject: cuts\nkey: {}\ngear_blake3: {}\nmin_bytes: {}\navg_bytes: {}\nmax_bytes: {}\n\
         content: {}\ncontent_blake3: {}\ncuts: {}\ncomment: {}\n\n",
        hex(&key),
        cutter.gear_blake3(),
        parameters.min_bytes,
        parameters.avg_bytes,
        parameters.max_bytes,
        case.content,
        blake3::hash(&data),
        cuts(&plain_split(&cutter, &data)),
        case.comment,
    );
    fs::create_dir_all(directory()).unwrap();
    fs::write(directory().join(format!("{}.txt", case.name)), text).unwrap();
}

fn check(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let (header, body) = text.split_once("\n\n").expect("a blank line ends the header");
    assert_eq!(body, "", "{}: the content is described in the header", path.display());
    let fields: BTreeMap<&str, &str> = header
        .lines()
        .map(|line| line.split_once(':').expect("a header line is `name: value`"))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let number = |name: &str| fields[name].parse().unwrap();
    let parameters =
        Parameters { min_bytes: number("min_bytes"), avg_bytes: number("avg_bytes"), max_bytes: number("max_bytes") };
    let key = unhex(fields["key"]).unwrap().try_into().unwrap();
    let cutter = Arc::new(Cutter::new(parameters, &key));
    let data = content(fields["content"]);
    let shown = path.display();
    assert_eq!((fields["expect"], fields["object"]), ("success", "cuts"), "{shown}");
    assert_eq!(cutter.gear_blake3(), fields["gear_blake3"], "{shown}");
    assert_eq!(blake3::hash(&data).to_hex().as_str(), fields["content_blake3"], "{shown}");
    assert_eq!(cuts(&split_whole(&cutter, &data)), fields["cuts"], "{shown}");
    assert_eq!(cuts(&plain_split(&cutter, &data)), fields["cuts"], "{shown}, by the definition");
}

#[test]
fn cuts_are_where_every_vector_says() {
    if std::env::var_os("ESKER_WRITE_VECTORS").is_some() {
        CASES.iter().for_each(write);
    }
    let mut checked = Vec::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name.starts_with("cut_") || name.starts_with("zeros_") {
            check(&path);
            checked.push(name);
        }
    }
    for case in CASES {
        assert!(checked.iter().any(|name| name == case.name), "{} has no file", case.name);
    }
}
