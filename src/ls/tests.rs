//! Listing trees of a repository in memory.

use super::*;
use crate::repo::testing::{FakeRepo, plain};

fn scene() -> (FakeRepo, Entry) {
    let mut repo = FakeRepo::new();
    let x = repo.file("x", b"x");
    let inner = repo.directory(b"inner", plain(0o755), vec![x.clone()]);
    let a = repo.directory(b"a", plain(0o755), vec![inner, x.clone()]);
    let z = repo.file("z", b"z");
    let root = repo.root(vec![a, z]);
    (repo, root)
}

fn paths(repo: &FakeRepo, root: &Entry, path: &str, depth: Depth) -> Vec<String> {
    let mut out = Vec::new();
    let mut each = |path: &TreePath, entry: Result<Entry>| {
        out.push(match entry {
            Ok(_) => path.to_string(),
            Err(error) => error.to_string(),
        });
        Ok(())
    };
    run(repo, root, &TreePath::from_bytes(path.as_bytes()).unwrap(), depth, &mut each).unwrap();
    out
}

#[test]
fn entries_come_in_tree_order_with_their_full_paths() {
    let (repo, root) = scene();
    assert_eq!(paths(&repo, &root, "/", Depth::All), ["/a", "/a/inner", "/a/inner/x", "/a/x", "/z"]);
    assert_eq!(paths(&repo, &root, "/", Depth::Children), ["/a", "/z"]);
    assert_eq!(paths(&repo, &root, "/a", Depth::Children), ["/a", "/a/inner", "/a/x"]);
    assert_eq!(paths(&repo, &root, "/a/inner/x", Depth::All), ["/a/inner/x"]);
}

#[test]
fn deeper_than_what_is_held_in_memory_nothing_is_lost_or_repeated() {
    let mut repo = FakeRepo::new();
    let mut below = repo.file("leaf", b"x");
    for _ in 0..200 {
        let (before, after) = (repo.file("a", b"x"), repo.file("z", b"x"));
        below = repo.directory(b"d", plain(0o755), vec![before, below, after]);
    }
    let root = repo.root(vec![below]);
    let found = paths(&repo, &root, "/", Depth::All);
    assert_eq!(found.len(), 601);
    assert!(found.iter().zip(&found[1..]).all(|(a, b)| a < b));
}

#[test]
fn a_missing_node_is_told_and_the_rest_is_listed() {
    let (mut repo, root) = scene();
    let inner = find(&repo, &root, &TreePath::from_bytes(b"/a/inner").unwrap()).unwrap();
    let Detail::Directory { id, .. } = inner.detail else { unreachable!() };
    repo.lost.insert(id);
    let found = paths(&repo, &root, "/", Depth::All);
    assert_eq!(found, ["/a", "/a/inner", "cannot read all of the directory `/a/inner`", "/a/x", "/z"]);
}
