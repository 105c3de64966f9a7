//! Risk: an edit or a dependency changes the stored form of something, or what is accepted, and
//! repositories that exist become unreadable; or the specification says other than the code does.
//! Method: a file for each structure in `format-spec/vectors`, made again from fixed values and
//! compared byte for byte, and read with nothing but what its header says; a small repository, whole.
//!
//! `ESKER_WRITE_VECTORS=1 cargo test --test vectors` writes the files; a change to one that has been
//! released is a change of the format. The repository is made only where there is none.

#[path = "vectors/classes.rs"]
mod classes;
#[path = "vectors/keyfile.rs"]
mod keyfile;
#[path = "vectors/make.rs"]
mod make;
#[path = "vectors/pack.rs"]
mod pack;
#[path = "vectors/parity.rs"]
mod parity;
#[path = "vectors/plain.rs"]
mod plain;
#[path = "vectors/read.rs"]
mod read;
#[path = "vectors/refused.rs"]
mod refused;
#[path = "vectors/rules.rs"]
mod rules;
#[path = "vectors/sealed.rs"]
mod sealed;
#[path = "vectors/tables.rs"]
mod tables;
#[path = "vectors/whole.rs"]
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use make::Vector;
use read::{Header, Refused};

/// Whether the files are to be written.
pub(crate) fn writing() -> bool {
    std::env::var_os("ESKER_WRITE_VECTORS").is_some()
}

/// Where the files are.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/vectors")
}

fn split(file: &[u8]) -> (Header, &[u8]) {
    let end = file.windows(2).position(|pair| pair == b"\n\n").expect("a blank line ends the header");
    let header = std::str::from_utf8(&file[..end]).expect("the header is text");
    let fields = header.lines().map(|line| {
        let (name, value) = line.split_once(':').expect("a header line is `name: value`");
        (name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned())
    });
    (Header(fields.collect::<BTreeMap<_, _>>()), &file[end + 2..])
}

#[test]
fn every_structure_is_stored_as_its_vector_says() {
    let mut names = BTreeSet::new();
    for vector in make::vectors() {
        let path = directory().join(format!("{}.txt", vector.name));
        assert!(names.insert(vector.name.clone()), "two vectors are named {}", vector.name);
        if writing() {
            fs::write(&path, vector.file()).unwrap();
        }
        let committed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(committed == vector.file(), "{}: made again, it is another", path.display());
    }
}

#[test]
fn every_vector_reads_as_its_header_says() {
    for vector in make::vectors() {
        let Vector { name, .. } = vector;
        let committed = fs::read(directory().join(format!("{name}.txt"))).unwrap();
        let (header, bytes) = split(&committed);
        let expected = match header.text("expect") {
            "success" => Ok(()),
            "malformed" => Err(Refused("malformed")),
            "unsupported" => Err(Refused("unsupported")),
            "not authentic" => Err(Refused("not authentic")),
            "wrong identity" => Err(Refused("wrong identity")),
            "truncated" => Err(Refused("truncated")),
            other => panic!("{name}: `{other}` is no class"),
        };
        let mut released = Vec::new();
        assert_eq!(read::read(&header, bytes, &mut released), expected, "{name}");
        if expected.is_err() {
            assert_eq!(
                read::sha256(&released),
                header.text("released"),
                "{name}: what was handed out before it failed"
            );
        }
    }
}

#[test]
fn every_file_of_the_vectors_is_known() {
    let known: BTreeSet<String> = make::vectors().iter().map(|vector| format!("{}.txt", vector.name)).collect();
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // Cuts are tested where the chunker is.
        let elsewhere = ["cut_", "zeros_"].iter().any(|prefix| name.starts_with(prefix));
        let other = ["repository", "repository.key", ".gitattributes"].contains(&&*name);
        assert!(elsewhere || other || known.contains(&name), "no case makes {name}");
    }
}
