//! What is dumped is what is in the snapshot, told by readers that are not ours: the `tar` crate,
//! the `tar` program where there is one, and the `zip` crate.

#![allow(clippy::print_stderr)] // a skipped test says so

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::format::tree::{Hole, Xattr};
use crate::id::LinkGroup;
use crate::repo::testing::{FakeRepo, entry, plain};
use crate::world::Time;

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn dump(repo: &FakeRepo, entry: &Entry) -> (Result<()>, Vec<u8>) {
    let mut out = Vec::new();
    (dump_file(repo, entry, &mut out), out)
}

#[test]
fn a_file_is_dumped_whole_across_batches_and_frames_are_read_once() {
    let mut repo = FakeRepo::new();
    repo.chunk_bytes = 1_000_000;
    let bytes = [noise(1, 20_000_000), vec![0; 3_000_000], noise(1, 20_000_000), noise(2, 5_000_001)].concat();
    let file = repo.file("file", &bytes);
    let (outcome, out) = dump(&repo, &file);
    outcome.unwrap();
    assert!(out == bytes);
    let mut read = repo.frames_read.lock().unwrap().clone();
    // The second copy of the first bytes comes two batches later, when its frames are forgotten.
    read.sort_unstable();
    assert!(read.len() <= 2 * 9 + 1, "{read:?}");
    let empty = repo.file("empty", b"");
    assert_eq!(dump(&repo, &empty).1, b"");
}

#[test]
fn a_damaged_file_ends_in_an_error_after_only_right_bytes() {
    let mut repo = FakeRepo::new();
    let bytes = noise(1, 200_000);
    let file = repo.file("file", &bytes);
    let chunks = repo.chunks_of(&file);
    repo.healable.insert(chunks[3]);
    assert_eq!(dump(&repo, &file).1, bytes, "another copy is as good");
    repo.corrupt.insert(chunks[11]);
    let (outcome, out) = dump(&repo, &file);
    assert_eq!(outcome.unwrap_err().kind(), Kind::Damaged);
    assert_eq!(out, bytes[..110_000]);
    let directory = repo.directory(b"d", plain(0o755), Vec::new());
    assert_eq!(dump(&repo, &directory).0.unwrap_err().kind(), Kind::Usage);
}

/// A tree with what is hard to write down in an old header.
fn odd_tree(repo: &mut FakeRepo) -> Entry {
    let mut attributed = plain(0o6755);
    attributed.mtime = Time { secs: -2, nanos: 500_000_001 };
    attributed.uid = 3_000_000_000;
    attributed.user = Some("someone with a name of more than thirty-two bytes".into());
    attributed.xattrs = vec![Xattr { name: b"user.a=b%".to_vec(), value: b"\x00\xff".to_vec() }];
    let holes = vec![Hole { offset: 0, bytes: 65_536 }];
    let sparse = repo.sparse_file(b"sparse", attributed, &[vec![0; 131_072], noise(5, 100)].concat(), holes);
    let mut linked = repo.file("z-first", b"linked");
    linked.attributes.link_group = Some(LinkGroup::from_bytes([1; 16]));
    let mut again = repo.file("z-second", b"linked");
    again.attributes.link_group = linked.attributes.link_group;
    let long = repo.file(&"l".repeat(255), &noise(6, 30_000));
    let odd = repo.sparse_file(b"\xff\xfe", plain(0o600), b"odd", Vec::new());
    let deep = repo.directory(&[b'd'; 200], plain(0o700), vec![long, odd]);
    let link = entry(b"link", plain(0o777), Detail::Symlink { target: vec![b't'; 300] });
    let fifo = entry(b"fifo", plain(0o600), Detail::Fifo);
    let device = entry(b"device", plain(0o600), Detail::BlockDevice { major: 259, minor: 70_000 });
    let empty = repo.file("empty", b"");
    let d = repo.directory(b"d", plain(0o755), vec![sparse, linked, again, deep, link, fifo, device, empty]);
    repo.root(vec![d])
}

fn archive(repo: &FakeRepo, root: &Entry, format: Archive) -> Vec<u8> {
    let mut out = Vec::new();
    let path = TreePath::from_os(Path::new("/d")).unwrap();
    dump_archive(repo, root, &path, format, &mut out, &Monitor::silent()).unwrap();
    out
}

#[test]
fn a_tar_says_everything_to_another_reader() {
    let mut repo = FakeRepo::new();
    let root = odd_tree(&mut repo);
    let bytes = archive(&repo, &root, Archive::Tar);
    assert!(bytes.len().is_multiple_of(512));
    let mut archive = ::tar::Archive::new(&*bytes);
    let mut lines = Vec::new();
    for found in archive.entries().unwrap() {
        let mut found = found.unwrap();
        let mut pax = Vec::new();
        for record in found.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            if !matches!(record.key_bytes(), b"path" | b"linkpath" | b"mtime" | b"hdrcharset") {
                pax.push(format!("{}={}", record.key().unwrap(), record.value_bytes().escape_ascii()));
            }
        }
        let path = found.path_bytes().escape_ascii().to_string();
        let path = path.replace(&"d".repeat(200), "DEEP").replace(&"l".repeat(255), "LONG");
        let link = found.link_name_bytes().map(|link| link.escape_ascii().to_string()).unwrap_or_default();
        let mut content = Vec::new();
        found.read_to_end(&mut content).unwrap();
        let header = found.header();
        lines.push(format!(
            "{path} {:?} {:o} {} {} {} {}",
            header.entry_type(),
            header.mode().unwrap(),
            content.len(),
            blake3::hash(&content).to_hex().split_at(8).0,
            link.replace(&"t".repeat(300), "TARGET"),
            pax.join(" ")
        ));
    }
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..8].to_owned();
    let nothing = hash(b"");
    let expected = [
        format!("DEEP/ Directory 700 0 {nothing}  "),
        format!("DEEP/LONG Regular 644 30000 {}  ", hash(&noise(6, 30_000))),
        format!("DEEP/\\xff\\xfe Regular 600 3 {}  ", hash(b"odd")),
        format!("device Block 600 0 {nothing}  "),
        format!("empty Regular 644 0 {nothing}  "),
        format!("fifo Fifo 600 0 {nothing}  "),
        format!("link Symlink 777 0 {nothing} TARGET "),
        format!(
            "sparse Regular 6755 131172 {}  uid=3000000000 uname=someone with a name of more than thirty-two bytes \
             SCHILY.xattr.user.a%3Db%25=\\x00\\xff",
            hash(&[vec![0; 131_072], noise(5, 100)].concat())
        ),
        format!("z-first Regular 644 6 {}  ", hash(b"linked")),
        format!("z-second Link 644 0 {nothing} z-first "),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_tar_program_unpacks_a_dump() {
    let mut repo = FakeRepo::new();
    let root = odd_tree(&mut repo);
    let bytes = archive(&repo, &root, Archive::Tar);
    let dir = tempfile::tempdir().unwrap();
    let tar = Command::new("tar")
        .args(["-x", "-p", "--no-same-owner", "--exclude=device", "-C"])
        .arg(dir.path())
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut tar) = tar else {
        eprintln!("skipped: needs the tar program");
        return;
    };
    std::io::Write::write_all(&mut tar.stdin.take().unwrap(), &bytes).unwrap();
    assert!(tar.wait().unwrap().success());
    let at = |name: &str| dir.path().join(name);
    let sparse = std::fs::metadata(at("sparse")).unwrap();
    assert_eq!((sparse.mtime(), sparse.mtime_nsec(), sparse.len()), (-2, 500_000_001, 131_172));
    let (first, second) = (std::fs::metadata(at("z-first")).unwrap(), std::fs::metadata(at("z-second")).unwrap());
    assert_eq!(first.ino(), second.ino());
    assert_eq!(std::fs::read(at("z-second")).unwrap(), b"linked");
    let deep = at(&"d".repeat(200));
    assert_eq!(std::fs::read(deep.join("l".repeat(255))).unwrap(), noise(6, 30_000));
    assert_eq!(std::fs::metadata(deep).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(std::fs::read_link(at("link")).unwrap().as_os_str().len(), 300);
}

#[test]
fn a_damaged_file_makes_an_archive_fail_by_name() {
    let mut repo = FakeRepo::new();
    let good = repo.file("good", b"good");
    let bad = repo.file("bad", &noise(1, 50_000));
    repo.lost.insert(repo.chunks_of(&bad)[2]);
    let root = repo.root(vec![good, bad]);
    for format in [Archive::Tar, Archive::Zip] {
        let outcome = dump_archive(&repo, &root, &TreePath::root(), format, &mut Vec::new(), &Monitor::silent());
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (Kind::Damaged, "cannot read `/bad`".to_owned()));
    }
}

#[test]
fn a_zip_says_what_it_can_to_another_reader() {
    let mut repo = FakeRepo::new();
    let root = odd_tree(&mut repo);
    let bytes = archive(&repo, &root, Archive::Zip);
    let mut archive = ::zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    let mut lines = Vec::new();
    for ordinal in 0..archive.len() {
        let mut found = archive.by_index(ordinal).unwrap();
        let mut content = Vec::new();
        found.read_to_end(&mut content).unwrap();
        let name = found.name().unwrap().replace(&"d".repeat(200), "DEEP").replace(&"l".repeat(255), "LONG");
        lines.push(format!("{name} {:o} {}", found.unix_mode().unwrap(), content.len()));
    }
    let expected = [
        "DEEP/ 40700 0",
        "DEEP/LONG 100644 30000",
        "DEEP/%FF%FE 100600 3",
        "empty 100644 0",
        "link 120777 300",
        "sparse 100755 131172",
        "z-first 100644 6",
        "z-second 100644 6",
    ];
    assert_eq!(lines, expected);
}
