//! Comparing trees of a repository in memory with each other and with directories on disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::monitor::Monitor;
use crate::repo::testing::{FakeRepo, entry, plain};
use crate::world::Time;

fn letters(change: Change) -> String {
    match change {
        Change::Added => "+".into(),
        Change::Removed => "-".into(),
        Change::Modified(Modified { kind, content, silent, metadata, links: _ }) => {
            let all = [(kind, 'T'), (content, 'M'), (silent, '?'), (metadata, 'U')];
            all.into_iter().filter_map(|(is, letter)| is.then_some(letter)).collect()
        }
    }
}

fn compared(repo: &FakeRepo, before: &Entry, with: With, options: Options) -> (Vec<String>, Summary) {
    let mut told = Vec::new();
    let summary = run(repo, before, with, &TreePath::root(), options, &mut |found| {
        told.push(match found {
            Found::Change(change, path, _) => format!("{} {path}", letters(change)),
            Found::Unread(path, _) => format!("unread {path}"),
        });
        Ok(())
    });
    (told, summary.unwrap())
}

const METADATA: Options = Options { metadata: true, content: false, restored: None };

fn trees(repo: &FakeRepo, before: &Entry, after: &Entry) -> Vec<String> {
    compared(repo, before, With::Entry(Box::new(after.clone())), METADATA).0
}

#[test]
fn what_differs_is_told_in_the_order_of_a_walk() {
    let mut repo = FakeRepo::new();
    let same: Vec<Entry> = (0..9).map(|n| repo.file(&format!("same-{n}"), &[n])).collect();
    let same = repo.directory(b"same", plain(0o755), same);
    let (gone, new) = (repo.file("gone", b"12345"), repo.file("new", b"123"));
    let (old, changed) = (repo.file("changed", b"old"), repo.file("changed", b"newer"));
    let mut mode = same.clone();
    mode.attributes.mode = 0o700;
    let link = |target: &[u8]| entry(b"link", plain(0o777), Detail::Symlink { target: target.to_vec() });
    // A file takes the place of a directory, and the other way round; `a-b` is behind `a/b` in a walk.
    let b = repo.file("b", b"b");
    let a = repo.directory(b"a", plain(0o755), vec![b.clone()]);
    let (a_file, a_b) = (repo.file("a", b"a"), repo.file("a-b", b"ab"));
    let x = repo.directory(b"x", plain(0o755), vec![b]);
    let x_file = repo.file("x", b"x");
    let before = repo.root(vec![a, gone, old, same, link(b"1"), x_file]);
    let after = repo.root(vec![a_file, a_b, new, changed, mode, link(b"2"), x]);
    let (told, summary) = compared(&repo, &before, With::Entry(Box::new(after.clone())), METADATA);
    let expected =
        ["TU /a", "- /a/b", "+ /a-b", "M /changed", "- /gone", "M /link", "+ /new", "U /same", "TU /x", "+ /x/b"];
    assert_eq!(told, expected);
    assert_eq!(
        summary,
        Summary {
            added: Counts { files: 3, directories: 0, others: 0, bytes: 2 + 5 + 3 + 1 + 1 },
            removed: Counts { files: 2, directories: 0, others: 0, bytes: 1 + 5 + 3 + 1 },
            changed_files: 1,
            changed_others: 1,
            changed_types: 2,
            changed_metadata: 1,
            unread: 0,
            changed_links: 0,
        }
    );
    assert_eq!(trees(&repo, &before, &before), Vec::<String>::new());
    let quiet = compared(&repo, &before, With::Entry(Box::new(after)), Options::default()).0;
    assert!(!quiet.contains(&"U /same".to_owned()), "{quiet:?}");
}

#[test]
fn content_that_changed_behind_the_same_size_and_time_is_marked() {
    let mut repo = FakeRepo::new();
    let (good, rotten) = (repo.file("f", b"good"), repo.file("f", b"evil"));
    let (before, after) = (repo.root(vec![good]), repo.root(vec![rotten]));
    assert_eq!(trees(&repo, &before, &after), ["M? /f"]);
}

#[test]
fn directories_that_are_the_same_are_not_read() {
    let mut repo = FakeRepo::new();
    let f = repo.file("f", b"f");
    let same = repo.directory(b"same", plain(0o755), vec![f]);
    let Detail::Directory { id, .. } = same.detail else { unreachable!() };
    let (one, two) = (repo.file("z", b"1"), repo.file("z", b"22"));
    let (before, after) = (repo.root(vec![same.clone(), one]), repo.root(vec![same, two]));
    repo.lost.insert(id);
    assert_eq!(trees(&repo, &before, &after), ["M /z"]);
}

#[test]
fn where_one_side_cannot_be_read_nothing_is_added_or_removed() {
    let mut repo = FakeRepo::new();
    let (f, g) = (repo.file("f", b"f"), repo.file("g", b"g"));
    let d = repo.directory(b"d", plain(0o755), vec![f.clone()]);
    let other = repo.directory(b"d", plain(0o755), vec![f.clone(), g]);
    let (z, extra) = (repo.file("z", b"z"), repo.file("extra", b""));
    let before = repo.root(vec![d, z.clone()]);
    let after = repo.root(vec![other.clone(), extra, z]);
    let Detail::Directory { id, .. } = other.detail else { unreachable!() };
    repo.lost.insert(id);
    assert_eq!(trees(&repo, &before, &after), ["unread /d", "+ /extra"]);
    assert_eq!(trees(&repo, &after, &before), ["unread /d", "- /extra"]);
}

fn local(path: &Path) -> With {
    let path = TreePath::from_os(&path.canonicalize().unwrap()).unwrap();
    let spill = std::env::temp_dir();
    With::Local(Local {
        roots: vec![path.clone()],
        path,
        with_xattrs: true,
        threads: 1,
        spill,
        monitor: Monitor::silent(),
    })
}

fn set_time(path: &Path, time: Time) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(time.secs.unsigned_abs(), time.nanos);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_directory_is_compared_by_size_and_time_and_then_by_its_bytes() {
    let mut repo = FakeRepo::new();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("top").join(name);
    fs::create_dir_all(at("d")).unwrap();
    let long: Vec<u8> = (0..70_000_u32).flat_map(u32::to_le_bytes).collect();
    let with_zeros = [vec![7; 100], vec![0; 200_000], vec![9; 50]].concat();
    for (name, bytes) in [
        ("same", &b"same"[..]),
        ("touched", &long),
        ("zeros", &with_zeros),
        ("grown", b"1"),
        ("silent", b"good"),
        ("rewritten", b"one"),
        ("d/gone", b"gone"),
        ("mode", b"mode"),
    ] {
        fs::write(at(name), bytes).unwrap();
    }
    symlink("there", at("link")).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    let before = repo.store(b"", &dir.path().join("top"));
    let now = |options| compared(&repo, &before, local(&dir.path().join("top")), options);
    assert_eq!(now(METADATA).0, Vec::<String>::new());
    assert_eq!(now(Options { metadata: true, content: true, restored: None }).0, Vec::<String>::new());

    let later = Time { secs: 2_000_000_000, nanos: 0 };
    let time_of = |name: &str| {
        let since = at(name).metadata().unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        Time { secs: since.as_secs().cast_signed(), nanos: since.subsec_nanos() }
    };
    let silently = time_of("silent");
    for name in ["touched", "zeros", "sparse"] {
        set_time(&at(name), later);
    }
    fs::write(at("grown"), "12").unwrap();
    fs::write(at("silent"), "evil").unwrap();
    set_time(&at("silent"), silently);
    fs::write(at("rewritten"), "two").unwrap();
    set_time(&at("rewritten"), later);
    fs::remove_file(at("d/gone")).unwrap();
    fs::write(at("d/new"), "new").unwrap();
    fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o604)).unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("elsewhere", at("link")).unwrap();
    let expected = ["- /d/gone", "+ /d/new", "M /grown", "M /link", "M /rewritten"];
    assert_eq!(now(Options::default()).0, expected);
    let expected = [
        "U /d",
        "- /d/gone",
        "+ /d/new",
        "M /grown",
        "M /link",
        "U /mode",
        "M /rewritten",
        "M? /silent",
        "U /sparse",
        "U /touched",
        "U /zeros",
    ];
    assert_eq!(now(Options { metadata: true, content: true, restored: None }).0, expected);
}

#[test]
fn a_file_is_compared_with_a_file_whatever_they_are_called() {
    let mut repo = FakeRepo::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other");
    fs::write(&path, "one").unwrap();
    let (one, two) = (repo.file("f", b"one"), repo.file("f", b"two"));
    let root = repo.root(vec![one.clone()]);
    let told = |before: &Entry| compared(&repo, before, local(&path), Options::default()).0;
    assert_eq!(told(&one), Vec::<String>::new());
    assert_eq!(told(&two), ["M /"]);
    assert_eq!(told(&root), ["T /", "- /f"]);
    assert_eq!(compared(&repo, &one, local(dir.path()), Options::default()).0, ["T /", "+ /other"]);
}
