//! Risk: a file that should be in the backup is not, because a pattern means something else here
//! than in restic, whose patterns people bring along.
//! Method: a table of patterns, paths and outcomes by restic's documentation and the behaviour its
//! own tests of patterns state; then a few sets of patterns over a real tree through a walk.

use std::collections::BTreeSet;
use std::fs;

use esker::path::TreePath;
use esker::source::exclude::{Case, Patterns};
use esker::source::walk::{Event, Walk, WalkOptions};

const EXCLUDED: bool = true;
const INCLUDED: bool = false;

/// Patterns in order (several apart with spaces), a path, whether it is a directory, the outcome.
///
/// What lies below an excluded directory is excluded, whatever later patterns say of it: the
/// directory is never entered.
type Row = (&'static str, &'static str, bool, bool);

#[rustfmt::skip]
const SENSITIVE: &[Row] = &[
    // A name matches anywhere, whole components only.
    ("*.go", "/foo/bar/test.go", false, EXCLUDED),
    ("*.c", "/foo/bar/test.go", false, INCLUDED),
    ("*", "/foo/bar/test.go", false, EXCLUDED),
    ("foo*", "/foo/bar/test.go", false, EXCLUDED),
    ("bar*", "/foo/bar/test.go", false, EXCLUDED),
    ("test.go", "/foo/bar/test.go", false, EXCLUDED),
    ("test", "/foo/bar/test.go", false, INCLUDED),
    ("est.go", "/foo/bar/test.go", false, INCLUDED),
    ("test.*", "/foo/bar/test.go", false, EXCLUDED),
    ("tesT.*", "/foo/bar/test.go", false, INCLUDED),
    ("bar", "/foo/bar", true, EXCLUDED),
    ("bar", "/foo/bar", false, EXCLUDED),
    ("bar", "/foo/bar/baz", false, EXCLUDED),
    ("ba", "/foo/bar", true, INCLUDED),
    ("sdk", "/foo/bar/sdk", true, EXCLUDED),
    ("sdk", "/foo/bar/sdk/test/sdk_foo.go", false, EXCLUDED),
    ("sdk", "/foo/bar/sdk_foo.go", false, INCLUDED),
    (".*", "/home/u/.cache/x", false, EXCLUDED),
    ("*", "/home/.hidden", false, EXCLUDED),
    ("?", "/aa/bb", false, INCLUDED),
    ("?", "/a", true, EXCLUDED),
    // Runs of components, unanchored.
    ("bar/*", "/foo/bar/test.go", false, EXCLUDED),
    ("bar/*", "/foo/bar", true, INCLUDED),
    ("baz/*", "/foo/bar/test.go", false, INCLUDED),
    ("bar/test.go", "/foo/bar/test.go", false, EXCLUDED),
    ("bar/*.go", "/foo/bar/test.go", false, EXCLUDED),
    ("ba*/*.go", "/foo/bar/test.go", false, EXCLUDED),
    ("bb*/*.go", "/foo/bar/test.go", false, INCLUDED),
    ("foo/test.go", "/foo/bar/test.go", false, INCLUDED),
    ("foo/bar", "/x/foo/bar/y", false, EXCLUDED),
    ("sdk/*/cpp/*/*vars*.html", "/usr/share/doc/sdk/docs/cpp/ref/a00517.html", false, INCLUDED),
    ("sdk/*/cpp/*/*vars*.html", "/usr/share/doc/sdk/docs/cpp/ref/globvars_1.html", false, EXCLUDED),
    // Anchored at the top.
    ("/bar*", "/foo/bar/test.go", false, INCLUDED),
    ("/foo/bar", "/foo/bar", true, EXCLUDED),
    ("/foo/bar", "/x/foo/bar", true, INCLUDED),
    ("/foo/bar", "/foo/baz", true, INCLUDED),
    ("/foo", "/foo/baz", false, EXCLUDED),
    ("/foo/*", "/foo", true, INCLUDED),
    ("/foo/*", "/foo/baz", true, EXCLUDED),
    ("/foo/*test.*", "/foo/bar/test.go", false, INCLUDED),
    ("/foo/*/test.*", "/foo/bar/test.go", false, EXCLUDED),
    ("/foo/*/bar/test.*", "/foo/bar/test.go", false, INCLUDED),
    ("/*/*/bar/test.*", "/foo/bar/test.go", false, INCLUDED),
    ("/*/*/baz/test.*", "/foo/bar/baz/test.go", false, EXCLUDED),
    ("/*/foo/bar/test.*", "/foo/bar/baz/test.go", false, INCLUDED),
    ("/", "/foo", true, INCLUDED),
    ("/home/[uU]ser/?.go", "/home/user/F.go", false, EXCLUDED),
    ("/home/[uU]ser/?.go", "/home/xser/F.go", false, INCLUDED),
    // How a pattern is written does not matter: slashes at the end and doubled, `.` and `..`.
    ("/foo/bar/", "/foo/bar", true, EXCLUDED),
    ("/foo/bar/", "/foo/bar", false, EXCLUDED),
    ("bar/", "/foo/bar", false, EXCLUDED),
    ("/foo///bar", "/foo/bar", false, EXCLUDED),
    ("./bar", "/foo/bar", false, EXCLUDED),
    ("/./foo", "/foo", true, EXCLUDED),
    ("/foo/../bar", "/foo/bar", false, INCLUDED),
    ("/foo/../bar", "/bar", false, EXCLUDED),
    ("/../bar", "/bar", false, EXCLUDED),
    // `**` is any number of components, none included.
    ("**", "/foo/bar/test.go", false, EXCLUDED),
    ("/**", "/foo", true, EXCLUDED),
    ("foo/**", "/x/foo", true, EXCLUDED),
    ("foo/**/bar/*.go", "/home/user/foo/work/special/project/bar/test.go", false, EXCLUDED),
    ("foo/**/bar/*.go", "/home/user/foo/bar/test.go", false, EXCLUDED),
    ("foo/**/bar/*.go", "/foo/bar/baz/bar/test.go", false, EXCLUDED),
    ("foo/**/bar/*.go", "/home/user/foo/test.c", false, INCLUDED),
    ("foo/**/bar/*.go", "/bar/foo/main.go", false, INCLUDED),
    ("foo/**/bar/*.go", "/foo/bar/main.go", false, EXCLUDED),
    ("foo/**/bar/*.go", "/bar/main.go", false, INCLUDED),
    ("foo/**/bar", "/home/user/foo/x/y/bar", true, EXCLUDED),
    ("foo/**/bar", "/home/user/foo/x/y/bar/main.go", false, EXCLUDED),
    ("foo/**/bar/**/x", "/home/user/foo/bar/x", false, EXCLUDED),
    ("foo/**/bar/**/x", "/home/user/foo/blaaa/blaz/bar/shared/work/x", false, EXCLUDED),
    ("user/**/important*", "/home/user/work/x/y/hidden/x", false, INCLUDED),
    ("user/**/hidden*/**/c", "/home/user/work/x/y/hidden/z/a/b/c", false, EXCLUDED),
    ("/foo/**/test.c", "/foo/bar/foo/bar/test.c", false, EXCLUDED),
    ("/foo/*/test.c", "/foo/bar/foo/bar/test.c", false, INCLUDED),
    ("/**/bar", "/foo/x/bar", false, EXCLUDED),
    ("a**b", "/axyb", false, EXCLUDED),
    ("a**b", "/a/b", false, INCLUDED),
    // Sets and escapes.
    ("[a-c]x", "/bx", false, EXCLUDED),
    ("[a-c]x", "/dx", false, INCLUDED),
    ("[^a-c]x", "/dx", false, EXCLUDED),
    ("[^a-c]x", "/bx", false, INCLUDED),
    (r"a\*b", "/a*b", false, EXCLUDED),
    (r"a\*b", "/acb", false, INCLUDED),
    (r"\[x\]", "/[x]", false, EXCLUDED),
    (r"[\]]", "/]", false, EXCLUDED),
    // `!` takes back; the last match wins.
    ("*.log !keep.log", "/a/keep.log", false, INCLUDED),
    ("*.log !keep.log", "/a/other.log", false, EXCLUDED),
    ("!keep.log *.log", "/a/keep.log", false, EXCLUDED),
    ("*.log !keep.log /tmp/keep.log", "/tmp/keep.log", false, EXCLUDED),
    ("!*.log", "/a/b.log", false, INCLUDED),
    ("!*.log", "/a/b.txt", false, INCLUDED),
    ("/home/u/* !/home/u/docs", "/home/u/docs/a", false, INCLUDED),
    ("/home/u/* !/home/u/docs", "/home/u/music/a", false, EXCLUDED),
    ("/home/u/* !/home/u/docs", "/home/u", true, INCLUDED),
    // An excluded directory is not entered, so nothing below it can be taken back.
    ("docs !docs/keep", "/home/docs/keep", false, EXCLUDED),
    ("docs/* !docs/keep", "/home/docs/keep", false, INCLUDED),
    ("docs/* !docs/keep", "/home/docs/other", false, EXCLUDED),
    (r"\!x", "/!x", false, EXCLUDED),
    // A tilde is a tilde: it is the shell that knows better.
    ("~/x", "/home/u/x", false, INCLUDED),
    ("~", "/a/~", false, EXCLUDED),
];

#[rustfmt::skip]
const INSENSITIVE: &[Row] = &[
    ("*.JPG", "/a/B.jpg", false, EXCLUDED),
    ("*.jpg", "/a/B.JPG", false, EXCLUDED),
    ("/FOO/*/Test.*", "/foo/BAR/tEST.go", false, EXCLUDED),
    ("ÄRGER", "/x/ärger", true, EXCLUDED),
    ("*.jpg !KEEP.*", "/a/keep.JPG", false, INCLUDED),
    ("[A-C]X", "/bx", false, EXCLUDED),
    ("/foo", "/FOOBAR", true, INCLUDED),
];

fn patterns(list: &str, case: Case) -> Patterns {
    let mut patterns = Patterns::new();
    list.split(' ').for_each(|pattern| patterns.add(pattern.as_bytes(), case).unwrap());
    patterns
}

/// Whether a walk never comes to the path: it or a directory above it is excluded.
fn is_excluded(patterns: &Patterns, path: &str) -> bool {
    let path = TreePath::from_bytes(path.as_bytes()).unwrap();
    let mut at = TreePath::root();
    path.components().any(|name| {
        at.push(&name);
        patterns.matches(&at)
    })
}

#[test]
fn each_row_of_the_table_is_as_in_restic() {
    assert!(SENSITIVE.len() + INSENSITIVE.len() >= 80);
    let mut wrong = Vec::new();
    for (rows, case) in [(SENSITIVE, Case::Sensitive), (INSENSITIVE, Case::Insensitive)] {
        for (list, path, is_directory, expected) in rows {
            if is_excluded(&patterns(list, case), path) != *expected {
                wrong.push(format!("`{list}` and {path} (directory: {is_directory}): expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same table over real entries, so that what the walk makes of patterns is held as well.
#[test]
fn a_walk_leaves_out_what_the_table_says() {
    for (list, path, is_directory, expected) in SENSITIVE {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let real = top.join(path.trim_start_matches('/'));
        fs::create_dir_all(real.parent().unwrap()).unwrap();
        if *is_directory {
            fs::create_dir_all(&real).unwrap();
        } else {
            fs::write(&real, "x").unwrap();
        }
        // Anchored patterns are anchored at the top of this row's tree.
        let anchored = |pattern: &str| match pattern
            .strip_prefix("!/")
            .map(|rest| ("!", rest))
            .or_else(|| pattern.strip_prefix('/').map(|rest| ("", rest)))
        {
            Some((not, rest)) if !rest.starts_with("..") => format!("{not}{}/{rest}", top.display()),
            Some((not, rest)) => format!("{not}{}/x/{rest}", top.display()),
            None => pattern.to_owned(),
        };
        let list_here: Vec<_> = list.split(' ').map(anchored).collect();
        let exclude = patterns(&list_here.join(" "), Case::Sensitive);
        // A pattern that takes every name takes the directory of the test, too: each has its own root.
        let roots: Vec<_> = [TreePath::from_os(&top).unwrap()].into();
        if is_excluded(&exclude, &top.display().to_string()) {
            continue;
        }
        let mut walk = Walk::new(&roots, WalkOptions { exclude, ..WalkOptions::default() });
        let mut seen = BTreeSet::new();
        while let Some(event) = walk.next() {
            match event {
                Event::Enter { .. } => drop(seen.insert(walk.path().to_os())),
                Event::Item { name, .. } => drop(seen.insert(walk.path().join(&name).to_os())),
                Event::Problem { path, fault } => panic!("{path}: {fault}"),
                Event::Leave { .. } | Event::LeftOut { .. } => {}
            }
        }
        // `/` alone names the top of all trees, which cannot be moved.
        if *list != "/" {
            assert_eq!(!seen.contains(&real), *expected, "`{list}` and {path}");
        }
    }
}

#[test]
fn lines_of_a_file_have_their_variables_filled_in() {
    let variable = |name: &[u8]| match name {
        b"HOME" => Some(b"/home/u".to_vec()),
        b"EXT" => Some(b"tmp".to_vec()),
        _ => None,
    };
    for (line, path, expected) in [
        ("$HOME/x", "/home/u/x", EXCLUDED),
        ("${HOME}/x", "/home/u/x", EXCLUDED),
        ("*.$EXT", "/a/b.tmp", EXCLUDED),
        ("a$$b", "/a$b", EXCLUDED),
        ("$UNSET/x", "/x", EXCLUDED),
        ("$UNSET/x", "/y/x", INCLUDED),
        ("~/x", "/home/u/x", INCLUDED),
        ("# $HOME", "/home/u", INCLUDED),
        ("   *.bak   ", "/a.bak", EXCLUDED),
    ] {
        let mut patterns = Patterns::new();
        patterns.add_lines(line.as_bytes(), Case::Sensitive, &variable).unwrap();
        assert_eq!(is_excluded(&patterns, path), expected, "`{line}` and {path}");
    }
}

#[test]
fn what_is_no_pattern_is_refused_before_anything_is_left_out() {
    for bad in ["[", "a/[b", "test/**/[", "[]", "[a-]", "x\\", "!", "!["] {
        let error = Patterns::new().add(bad.as_bytes(), Case::Sensitive).unwrap_err().to_string();
        assert!(error.contains("is not a pattern"), "{bad}: {error}");
    }
}
