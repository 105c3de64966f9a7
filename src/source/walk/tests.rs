//! The risk: an entry that is missing, comes twice or out of order, is taken for empty, or hangs
//! or kills the walk. The method: compare with a simple recursive walk, for any number of threads.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, mkdirat, mknodat, unlinkat};

use super::super::exclude::Case;
use super::super::stat::Kind;
use super::super::testing::{has_root, skip};
use super::*;

/// An event, as far as it is the same in every run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Enter(TreePath, Scope),
    Item(TreePath, Kind),
    Leave { incomplete: bool },
    LeftOut(TreePath, LeftOut),
    Problem(TreePath),
}

/// Takes a whole walk down, and checks that every directory is handed out as itself and every
/// entry with the directory it is in.
fn steps_of(mut walk: Walk) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some(event) = walk.next() {
        steps.push(match event {
            Event::Enter { name, stat, dir, scope } => {
                assert_eq!(stat.kind, Kind::Directory);
                assert_eq!(dir.stat().unwrap().identity(), stat.identity());
                assert_eq!(name.as_ref(), walk.path().components().last().as_ref());
                Step::Enter(walk.path().clone(), scope)
            }
            Event::Item { name, stat, dir } => {
                assert_eq!(Stat::at(&*dir, &name).unwrap().identity(), stat.identity());
                Step::Item(walk.path().join(&name), stat.kind)
            }
            Event::Leave { incomplete } => Step::Leave { incomplete },
            Event::LeftOut { path, why } => Step::LeftOut(path, why),
            Event::Problem { path, .. } => Step::Problem(path),
        });
    }
    steps
}

fn steps(roots: &[&Path], options: &WalkOptions) -> Vec<Step> {
    steps_with(Limits::default(), roots, options)
}

/// Limits that every directory of a few entries is beyond.
const SMALL: Limits = Limits { batch_entries: 2, names_bytes: 100 };

fn steps_with(limits: Limits, roots: &[&Path], options: &WalkOptions) -> Vec<Step> {
    let roots: Vec<TreePath> = roots.iter().map(|root| tree_path(root)).collect();
    steps_of(Walk::with_limits(&roots, options.clone(), limits))
}

/// The steps at and below `top`, without those on the way to it.
fn steps_below(top: &Path, roots: &[&Path], options: &WalkOptions) -> Vec<Step> {
    let below = |path: &TreePath| path.starts_with(&tree_path(top));
    let mut depth = 0;
    let mut steps = steps(roots, options);
    steps.retain(|step| match step {
        Step::Enter(path, _) => {
            depth += usize::from(below(path));
            below(path)
        }
        Step::Leave { .. } if depth > 0 => {
            depth -= 1;
            true
        }
        Step::Leave { .. } => false,
        Step::Item(path, _) | Step::LeftOut(path, _) | Step::Problem(path) => below(path),
    });
    steps
}

fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    rustix::fs::rename(from.as_ref(), to.as_ref()).unwrap();
}

fn tree_path(path: &Path) -> TreePath {
    TreePath::from_os(path).unwrap()
}

/// The walk as it should be, by recursion over paths.
fn reference(at: &Path, roots: &[&Path], steps: &mut Vec<Step>) {
    let chosen = roots.iter().any(|root| at.starts_with(root));
    let leads = roots.iter().any(|root| root.starts_with(at));
    if !chosen && !leads {
        return;
    }
    let path = tree_path(at);
    let meta = fs::symlink_metadata(at).unwrap();
    if !meta.is_dir() {
        steps.push(Step::Item(path, kind(meta.file_type())));
        return;
    }
    steps.push(Step::Enter(path, if chosen { Scope::Whole } else { Scope::OnTheWay }));
    let mut names: Vec<PathBuf> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort_by(|a, b| a.file_name().unwrap().as_bytes().cmp(b.file_name().unwrap().as_bytes()));
    names.iter().for_each(|path| reference(path, roots, steps));
    steps.push(Step::Leave { incomplete: false });
}

fn kind(kind: fs::FileType) -> Kind {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        _ if kind.is_symlink() => Kind::Symlink,
        _ if kind.is_fifo() => Kind::Fifo,
        _ if kind.is_socket() => Kind::Socket,
        _ => Kind::File,
    }
}

fn expected(roots: &[&Path]) -> Vec<Step> {
    let mut steps = Vec::new();
    reference(Path::new("/"), roots, &mut steps);
    steps
}

fn with_threads(threads: usize) -> WalkOptions {
    WalkOptions { threads, ..WalkOptions::default() }
}

/// A temporary directory by its real path.
fn scene() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().canonicalize().unwrap();
    (dir, top)
}

/// The same in memory where there is such a place: for trees that take a disk seconds to make.
fn large_scene() -> (tempfile::TempDir, PathBuf) {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(dir) => {
            let top = dir.path().canonicalize().unwrap();
            (dir, top)
        }
        Err(_) => scene(),
    }
}

/// Makes files and, where a path ends in a slash, directories, with all directories around them.
fn make(top: &Path, paths: &[&str]) {
    for path in paths {
        let at = top.join(path);
        if path.ends_with('/') {
            fs::create_dir_all(at).unwrap();
        } else {
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, path).unwrap();
        }
    }
}

/// Paths of entries below `top`, relative to it; directories end in a slash.
fn names(top: &Path, steps: &[Step]) -> Vec<String> {
    let relative = |path: &TreePath| path.to_os().strip_prefix(top).unwrap().display().to_string();
    let name = |step: &Step| match step {
        Step::Enter(path, _) => Some(relative(path) + "/"),
        Step::Item(path, _) => Some(relative(path)),
        _ => None,
    };
    steps.iter().filter_map(name).collect()
}

// ---- order and completeness -------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Made {
    Directory(Vec<(Vec<u8>, Made)>),
    File,
    Symlink,
    Fifo,
    Socket,
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "a.b", "a0", "a-", "b", "A", "...", " ", "-", "new\nline", "é", "\\x41"])
            .prop_map(|name| name.as_bytes().to_vec()),
        2 => prop::collection::vec(1_u8..=255, 1..6)
            .prop_map(|bytes| bytes.into_iter().map(|b| if b == b'/' { b'_' } else { b }).collect())
            .prop_filter("dots", |name: &Vec<u8>| name != b"." && name != b".."),
        1 => (1_u8..=255).prop_map(|b| vec![if b == b'/' || b == b'.' { b'_' } else { b }; 255]),
    ]
}

fn any_tree() -> impl Strategy<Value = Made> {
    let leaf = prop_oneof![
        4 => Just(Made::File),
        1 => Just(Made::Symlink),
        1 => Just(Made::Fifo),
        1 => Just(Made::Socket),
        2 => Just(Made::Directory(vec![])),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| prop::collection::vec((any_name(), inner), 0..8).prop_map(Made::Directory))
}

/// Relative to open directories, because five names of 255 bytes are near `PATH_MAX`, and a
/// socket's address takes 108 bytes. A name that was there before is left as it is.
fn build(dir: impl AsFd, name: &[u8], made: &Made) {
    let name = OsStr::from_bytes(name);
    let mode = Mode::from(0o700);
    match made {
        Made::Directory(children) => {
            if mkdirat(&dir, name, mode).is_ok() {
                let dir = fs::File::from(open_dir(&dir, name));
                children.iter().for_each(|(name, made)| build(&dir, name, made));
            }
        }
        Made::File => drop(mknodat(&dir, name, FileType::RegularFile, mode, 0)),
        Made::Symlink => drop(rustix::fs::symlinkat("/etc", &dir, name)),
        Made::Fifo => drop(mknodat(&dir, name, FileType::Fifo, mode, 0)),
        Made::Socket => drop(mknodat(&dir, name, FileType::Socket, mode, 0)),
    }
}

fn open_dir(dir: impl AsFd, name: &OsStr) -> std::os::fd::OwnedFd {
    use rustix::fs::OFlags;
    rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_order_is_that_of_a_simple_walk_for_any_tree_and_number_of_threads(tree in any_tree()) {
        let (_keep, top) = scene();
        build(fs::File::open(&top).unwrap(), b"root", &tree);
        let root = top.join("root");
        let expected = expected(&[&root]);
        for threads in [1, 2, 5] {
            prop_assert_eq!(&steps(&[&root], &with_threads(threads)), &expected);
            prop_assert_eq!(&steps_with(SMALL, &[&root], &with_threads(threads)), &expected);
        }
    }
}

#[test]
fn many_directories_come_in_order_however_threads_fall() {
    let (_keep, top) = large_scene();
    for a in 0..30 {
        for b in 0..30 {
            make(&top, &[&format!("{a}/{b}/x"), &format!("{a}/{b}/sub/"), &format!("{a}/z")]);
        }
    }
    let expected = expected(&[&top]);
    for threads in [1, 2, 3, 8, 16] {
        assert_eq!(steps(&[&top], &with_threads(threads)), expected, "{threads} threads");
        assert_eq!(steps_with(SMALL, &[&top], &with_threads(threads)), expected, "{threads} threads");
    }
}

#[test]
fn a_directory_of_more_names_than_one_run_is_walked_as_any_other() {
    let (_keep, top) = large_scene();
    for n in 0..3000 {
        let n = n * 7_919 % 3000;
        make(&top, &[&if n % 10 == 0 { format!("{n}/{n}/x") } else { format!("{n}") }]);
    }
    let (expected, spill) = (expected(&[&top]), tempfile::tempdir().unwrap());
    let limits = Limits { batch_entries: 64, names_bytes: 4000 };
    for threads in [1, 2, 3, 8] {
        let options = WalkOptions { spill: spill.path().into(), ..with_threads(threads) };
        assert_eq!(steps_with(limits, &[&top], &options), expected, "{threads} threads");
        assert_eq!(fs::read_dir(spill.path()).unwrap().count(), 0);
    }
}

#[test]
fn several_roots_are_one_walk() {
    let (_keep, top) = scene();
    make(&top, &["a/x", "a/y/z", "b/c/d/e", "b/c/other", "b/f", "c.file", "c/in", "untouched/x"]);
    symlink("a", top.join("link")).unwrap();
    let at = |path: &str| top.join(path);
    for roots in [
        &["b/c", "a"][..],
        &["a", "a/y", "a/y/z"],
        &["a/y/z", "a"],
        &["c.file", "link", "b/c/d"],
        &["b/c/d", "b"],
        &["a", "a"],
        &["c", "c.file"],
    ] {
        let roots: Vec<PathBuf> = roots.iter().map(|root| at(root)).collect();
        let roots: Vec<&Path> = roots.iter().map(PathBuf::as_path).collect();
        for threads in [1, 4] {
            assert_eq!(steps(&roots, &with_threads(threads)), expected(&roots), "{roots:?}");
        }
    }
}

#[test]
fn a_root_that_is_not_there_is_a_problem_and_the_others_come() {
    let (_keep, top) = scene();
    make(&top, &["a", "file"]);
    let found = steps_below(
        &top,
        &[&top.join("a"), &top.join("gone"), &top.join("gone2/x"), &top.join("file/x")],
        &with_threads(2),
    );
    let at = |path: &str| tree_path(&top.join(path));
    assert_eq!(
        found,
        [
            Step::Enter(tree_path(&top), Scope::OnTheWay),
            Step::Item(at("a"), Kind::File),
            Step::Problem(at("file")),
            Step::Problem(at("gone")),
            Step::Problem(at("gone2")),
            Step::Leave { incomplete: true },
        ]
    );
}

#[test]
fn a_walk_may_be_dropped_at_any_step() {
    let (_keep, top) = scene();
    for a in 0..12 {
        make(&top, &[&format!("{a}/x/y/z"), &format!("{a}/w")]);
    }
    let all = expected(&[&top]).len();
    for taken in (0..all).step_by(7) {
        let mut walk = Walk::new(&[tree_path(&top)], with_threads(4));
        assert_eq!(walk.by_ref().take(taken).count(), taken);
    }
}

// ---- things that go wrong ---------------------------------------------------------------------

/// A thread has its own user id in Linux, and the walk's threads inherit it.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_directory_that_cannot_be_read_is_incomplete_and_not_empty() {
    if !has_root() {
        return;
    }
    let (_keep, top) = scene();
    make(&top, &["open/x", "sealed/x", "unlisted/root/x", "unsearchable/x"]);
    let mode = |path: &str, mode| fs::set_permissions(top.join(path), fs::Permissions::from_mode(mode)).unwrap();
    mode("", 0o755);
    mode("sealed", 0o700);
    mode("unlisted", 0o711);
    mode("unsearchable", 0o744);
    let at = |path: &str| tree_path(&top.join(path));
    let enter = |path: &str| Step::Enter(at(path), Scope::Whole);
    let (done, missing) = (Step::Leave { incomplete: false }, Step::Leave { incomplete: true });
    for threads in [1, 3] {
        let found = as_nobody(|| steps_below(&top, &[&top], &with_threads(threads)));
        let sealed = |path| [enter(path), Step::Problem(at(path)), missing.clone()];
        let mut expected = vec![enter(""), enter("open"), Step::Item(at("open/x"), Kind::File), done.clone()];
        expected.extend(sealed("sealed"));
        expected.extend(sealed("unlisted"));
        expected.extend([enter("unsearchable"), Step::Problem(at("unsearchable/x")), missing.clone(), done.clone()]);
        assert_eq!(found, expected, "{threads} threads");

        let faults = as_nobody(|| {
            let of = |event| if let Event::Problem { fault, .. } = event { Some(fault.to_string()) } else { None };
            Walk::new(&[tree_path(&top)], with_threads(threads)).filter_map(of).collect::<Vec<_>>()
        });
        assert!(faults.len() == 3 && faults.iter().all(|fault| fault.contains("Permission denied")), "{faults:?}");

        // On the way to a root, permission to pass is enough.
        let root = top.join("unlisted/root");
        let found = as_nobody(|| steps_below(&root, &[&root], &with_threads(threads)));
        let expected = [enter("unlisted/root"), Step::Item(at("unlisted/root/x"), Kind::File), done.clone()];
        assert_eq!(found, expected);
    }
}

/// One thread, so that it is known what was listed before the change.
#[test]
fn what_vanishes_after_it_was_listed_is_skipped_or_told() {
    let (_keep, top) = scene();
    make(&top, &["1dir/x", "2dir/x", "3dir/x", "4dir/x"]);
    let mut walk = Walk::new(&[tree_path(&top)], with_threads(1));
    while walk.path() != &tree_path(&top.join("1dir")) {
        walk.next().unwrap();
    }
    fs::remove_dir_all(top.join("2dir")).unwrap();
    fs::remove_dir_all(top.join("3dir")).unwrap();
    fs::write(top.join("3dir"), "now a file").unwrap();
    fs::remove_dir_all(top.join("4dir")).unwrap();
    symlink("/etc", top.join("4dir")).unwrap();
    let rest = steps_of(walk);
    let at = |path: &str| tree_path(&top.join(path));
    assert_eq!(
        rest[..5],
        [
            Step::Item(at("1dir/x"), Kind::File),
            Step::Leave { incomplete: false },
            Step::Problem(at("3dir")),
            Step::Problem(at("4dir")),
            Step::Leave { incomplete: true },
        ]
    );
}

// ---- size -------------------------------------------------------------------------------------

/// A chain of directories `d`, each with files `a` and `z` at every hundredth level.
fn make_chain(top: &Path, levels: usize) {
    let mode = Mode::from(0o700);
    let mut dir = open_dir(CWD, top.as_os_str());
    for level in 0..levels {
        mkdirat(&dir, "d", mode).unwrap();
        if level % 100 == 0 {
            mknodat(&dir, "a", FileType::RegularFile, mode, 0).unwrap();
            mknodat(&dir, "z", FileType::RegularFile, mode, 0).unwrap();
        }
        dir = open_dir(&dir, OsStr::new("d"));
    }
}

/// `remove_dir_all` holds a descriptor a level.
fn remove_chain(top: &Path, levels: usize) {
    let mut dir = open_dir(CWD, top.as_os_str());
    for _ in 0..levels {
        dir = open_dir(&dir, OsStr::new("d"));
    }
    for _ in 0..levels {
        dir = open_dir(&dir, OsStr::new(".."));
        unlinkat(&dir, "d", AtFlags::REMOVEDIR).unwrap();
        let _ = unlinkat(&dir, "a", AtFlags::empty());
        let _ = unlinkat(&dir, "z", AtFlags::empty());
    }
}

/// Descriptors of directories below `top`; the system shows no path longer than a page.
fn descriptors_below(top: &Path) -> usize {
    let own = |entry: std::io::Result<fs::DirEntry>| match fs::read_link(entry.ok()?.path()) {
        Ok(path) => path.starts_with(top).then_some(()),
        Err(error) => (error.raw_os_error() == Some(rustix::io::Errno::NAMETOOLONG.raw_os_error())).then_some(()),
    };
    fs::read_dir("/proc/self/fd").unwrap().filter_map(own).count()
}

#[test]
fn twenty_thousand_levels_take_neither_stack_nor_descriptors() {
    const LEVELS: usize = 20_000;
    let (_keep, top) = large_scene();
    make_chain(&top, LEVELS);
    for threads in [1, 3] {
        let root = tree_path(&top);
        let walk = move |top: &Path| {
            let walk = Walk::new(&[root], with_threads(threads));
            let (mut depth, mut deepest, mut items, mut descriptors) = (0_usize, 0, 0, 0);
            for event in walk {
                match event {
                    Event::Enter { .. } => depth += 1,
                    Event::Leave { incomplete } => {
                        assert!(!incomplete);
                        depth -= 1;
                    }
                    Event::Item { name, dir, .. } => {
                        Stat::at(&*dir, &name).unwrap();
                        items += 1;
                        if items % 20 == 0 {
                            descriptors = descriptors.max(descriptors_below(top));
                        }
                    }
                    other => panic!("{other:?}"),
                }
                deepest = deepest.max(depth);
            }
            assert_eq!(depth, 0);
            (deepest - root_depth(top), items, descriptors)
        };
        let top = top.clone();
        let small = std::thread::Builder::new().stack_size(128 << 10);
        let (levels, items, descriptors) = small.spawn(move || walk(&top)).unwrap().join().unwrap();
        assert_eq!((levels, items), (LEVELS, LEVELS / 100 * 2), "{threads} threads");
        let bound = OPEN_LEVELS + 4 + if threads == 1 { 0 } else { 256 + 4 };
        assert!(descriptors <= bound, "{descriptors} descriptors with {threads} threads");
    }
    // Let go of in the middle, and with everything ahead of it.
    for threads in [1, 3] {
        let root = tree_path(&top);
        let small = std::thread::Builder::new().stack_size(128 << 10);
        small.spawn(move || Walk::new(&[root], with_threads(threads)).take(15_000).count()).unwrap().join().unwrap();
    }
    remove_chain(&top, LEVELS);
}

fn root_depth(top: &Path) -> usize {
    tree_path(top).components().count() + 1
}

/// Takes the walk to `depth` levels below `top` in a chain of 100 and calls `change`, then
/// returns the rest.
fn change_at(top: &Path, depth: usize, change: impl FnOnce()) -> Vec<Step> {
    let mut walk = Walk::new(&[tree_path(top)], with_threads(1));
    let wanted = tree_path(&top.join("d/".repeat(depth)));
    while walk.path() != &wanted {
        walk.next().unwrap();
    }
    change();
    let mut steps = Vec::new();
    while let Some(event) = walk.next() {
        steps.push(match event {
            Event::Enter { scope, .. } => Step::Enter(walk.path().clone(), scope),
            Event::Item { name, stat, .. } => Step::Item(walk.path().join(&name), stat.kind),
            Event::Leave { incomplete } => Step::Leave { incomplete },
            Event::LeftOut { path, why } => Step::LeftOut(path, why),
            Event::Problem { path, .. } => Step::Problem(path),
        });
    }
    steps
}

/// A chain of 100 with a file after the subdirectory on every level.
fn make_filed_chain(top: &Path) {
    let mut at = top.to_owned();
    for _ in 0..100 {
        fs::create_dir(at.join("d")).unwrap();
        fs::write(at.join("z"), "").unwrap();
        at.push("d");
    }
}

#[test]
fn directories_moved_under_the_walk_are_found_again() {
    // Of the level the walk is below: near ones are open, far ones were closed.
    for moved in [1, 5, 40, 75, 79] {
        let (_keep, top) = scene();
        fs::create_dir(top.join("root")).unwrap();
        let root = top.join("root");
        make_filed_chain(&root);
        let rest = change_at(&root, 80, || {
            rename(root.join("d/".repeat(moved)), top.join("elsewhere"));
        });
        let files = rest.iter().filter(|step| matches!(step, Step::Item(..))).count();
        assert_eq!(files, 100, "after moving level {moved}");
        assert!(!rest.iter().any(|step| matches!(step, Step::Problem(_) | Step::Leave { incomplete: true })));
    }
}

#[test]
fn a_directory_that_cannot_be_found_again_is_incomplete() {
    let (_keep, top) = scene();
    fs::create_dir(top.join("root")).unwrap();
    let root = top.join("root");
    make_filed_chain(&root);
    // Level 40 is below a closed directory and moved away from it; that one's own way is cut too.
    let rest = change_at(&root, 80, || {
        rename(root.join("d/".repeat(40)), top.join("one"));
        rename(root.join("d/".repeat(10)), top.join("two"));
    });
    let lost: Vec<&TreePath> =
        rest.iter().filter_map(|s| if let Step::Problem(path) = s { Some(path) } else { None }).collect();
    let expected: Vec<TreePath> = (10..40).rev().map(|level| tree_path(&root.join("d/".repeat(level)))).collect();
    assert_eq!(lost, expected.iter().collect::<Vec<_>>());
    assert_eq!(rest.iter().filter(|step| **step == Step::Leave { incomplete: true }).count(), 30);
    assert_eq!(rest.iter().filter(|step| matches!(step, Step::Item(..))).count(), 70);
}

#[test]
fn a_hundred_thousand_entries_come_in_order() {
    let (_keep, top) = large_scene();
    let dir = fs::File::open(&top).unwrap();
    let count = 100_000;
    for i in 0..count {
        // Not in the order of their names.
        let name = format!("{:08}", (i * 7_919) % count);
        if i % 20_000 == 0 {
            mkdirat(&dir, &name, Mode::from(0o700)).unwrap();
            fs::write(top.join(&name).join("in"), "").unwrap();
        } else {
            mknodat(&dir, &name, FileType::RegularFile, Mode::from(0o600), 0).unwrap();
        }
    }
    let mut excluding = with_threads(2);
    excluding.exclude.add(b"/**/0*7", Case::Sensitive).unwrap();
    for (options, excluded) in [(with_threads(1), 0), (with_threads(3), 0), (excluding, count / 10)] {
        let found = names(&top, &steps_below(&top, &[&top], &options));
        let flat: Vec<&str> =
            found[1..].iter().filter(|name| !name.ends_with("/in")).map(|n| n.trim_end_matches('/')).collect();
        assert!(flat.is_sorted() && flat.len() == count - excluded, "{}", flat.len());
        assert_eq!(found.len() - 1 - flat.len(), 5, "files in directories among them");
    }
}

// ---- what is left out -------------------------------------------------------------------------

#[test]
fn the_repository_is_never_entered_whatever_leads_there() {
    let (_keep, top) = scene();
    make(&top, &["data/x", "repo/packs/p", "sub/repo/x", "later/x"]);
    let options = WalkOptions {
        leave_out: vec![tree_path(&top.join("repo")), tree_path(&top.join("data/cache"))],
        threads: 2,
        ..WalkOptions::default()
    };
    let repo = Step::LeftOut(tree_path(&top.join("repo")), LeftOut::Always);
    let found = steps_below(&top, &[&top], &options);
    assert_eq!(names(&top, &found), ["/", "data/", "data/x", "later/", "later/x", "sub/", "sub/repo/", "sub/repo/x"]);
    assert!(found.contains(&repo));
    // As a root, and on the way to one.
    assert_eq!(steps_below(&top.join("repo"), &[&top.join("repo")], &options), std::slice::from_ref(&repo));
    assert_eq!(steps_below(&top.join("repo"), &[&top.join("repo/packs")], &options), [repo]);
    // By another name: what was a directory when the walk began is known by its identity.
    let walk = Walk::new(&[tree_path(&top)], options.clone());
    rename(top.join("repo"), top.join("zz"));
    make(&top, &["data/cache/c", "dada/cache/kept"]);
    let found = steps_of(walk);
    assert!(found.contains(&Step::LeftOut(tree_path(&top.join("zz")), LeftOut::Always)));
    assert!(found.contains(&Step::LeftOut(tree_path(&top.join("data/cache")), LeftOut::Always)));
    assert!(found.contains(&Step::Item(tree_path(&top.join("dada/cache/kept")), Kind::File)));
}

#[test]
fn patterns_and_filters_leave_entries_out() {
    let (_keep, top) = scene();
    make(&top, &["a/x.o", "a/x.c", "node_modules/deep/y", "b/node_modules/z", "b/large", "empty/"]);
    fs::write(top.join("b/large"), vec![0; 5000]).unwrap();
    let mut options = with_threads(3);
    options.exclude.add(b"*.o", Case::Sensitive).unwrap();
    options.exclude.add(b"NODE_modules", Case::Insensitive).unwrap();
    options.filter = Some(Arc::new(|path, stat| {
        assert!(path.as_bytes().len() > 1);
        stat.kind != Kind::File || stat.size < 4096
    }));
    let found = steps_below(&top, &[&top], &options);
    assert_eq!(names(&top, &found), ["/", "a/", "a/x.c", "b/", "empty/"]);
    assert!(!found.iter().any(|step| matches!(step, Step::LeftOut(..))), "patterns are quiet");
    let root = top.join("node_modules");
    let left_out = Step::LeftOut(tree_path(&root), LeftOut::Excluded);
    assert_eq!(steps_below(&root, &[&root], &options), [left_out], "but not about a root");
    // What is around a root may be excluded without it.
    let mut options = with_threads(1);
    options.exclude.add(top.as_os_str().as_bytes(), Case::Sensitive).unwrap();
    options.exclude.add(format!("!{}/a", top.display()).as_bytes(), Case::Sensitive).unwrap();
    let found = steps_below(&top.join("a"), &[&top.join("a"), &top.join("b")], &options);
    assert_eq!(names(&top, &found), ["a/", "a/x.c", "a/x.o"]);
}

#[test]
fn of_a_tagged_directory_only_the_tag_comes() {
    const SIGNATURE: &str = "Signature: 8a477f597d28d172789f06886806bc55";
    let (_keep, top) = scene();
    make(&top, &["cache/x", "cache/sub/y", "fake/x", "short/x", "linked/x", "none/.nobackup", "none/x"]);
    fs::write(top.join("cache/CACHEDIR.TAG"), format!("{SIGNATURE}\n# more")).unwrap();
    fs::write(top.join("fake/CACHEDIR.TAG"), "Signature: none of it, but as long as the real one").unwrap();
    fs::write(top.join("short/CACHEDIR.TAG"), &SIGNATURE[..20]).unwrap();
    symlink("../cache/CACHEDIR.TAG", top.join("linked/CACHEDIR.TAG")).unwrap();
    let mut options = with_threads(2);
    options.tags = vec![Tag::cache_directory(), Tag::new(Name::new(*b".nobackup").unwrap(), [])];
    let found = steps_below(&top, &[&top], &options);
    assert_eq!(
        names(&top, &found),
        [
            "/",
            "cache/",
            "cache/CACHEDIR.TAG",
            "fake/",
            "fake/CACHEDIR.TAG",
            "fake/x",
            "linked/",
            "linked/CACHEDIR.TAG",
            "linked/x",
            "none/",
            "none/.nobackup",
            "short/",
            "short/CACHEDIR.TAG",
            "short/x",
        ]
    );
    assert!(found.contains(&Step::LeftOut(tree_path(&top.join("cache")), LeftOut::Tagged)));
    assert!(!found.contains(&Step::Leave { incomplete: true }));
}

/// A mount that goes when this does.
struct Mount(PathBuf);

impl Mount {
    fn new(kind: &str, at: PathBuf) -> Option<Self> {
        if !has_root() {
            return None;
        }
        let mounted = std::process::Command::new("mount").args(["-t", kind, "none"]).arg(&at).status().unwrap();
        if !mounted.success() {
            skip("root that may mount");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn another_file_system_is_entered_only_when_asked_or_named() {
    let (_keep, top) = scene();
    make(&top, &["mount/", "x"]);
    let Some(_mount) = Mount::new("tmpfs", top.join("mount")) else { return };
    make(&top, &["mount/a/b/c", "mount/d"]);
    let all = ["/", "mount/", "mount/a/", "mount/a/b/", "mount/a/b/c", "mount/d", "x"];
    assert_eq!(names(&top, &steps_below(&top, &[&top], &with_threads(2))), all);

    let options = WalkOptions { one_file_system: true, ..with_threads(2) };
    let left_out = Step::LeftOut(tree_path(&top.join("mount")), LeftOut::OtherFileSystem);
    let found = steps_below(&top, &[&top], &options);
    assert_eq!(names(&top, &found), ["/", "mount/", "x"]);
    assert!(found.contains(&left_out) && !found.contains(&Step::Leave { incomplete: true }));
    // Roots below roots: each is kept, whatever is around it.
    let found = steps_below(&top, &[&top, &top.join("mount")], &options);
    assert_eq!(names(&top, &found), all);
    let found = steps_below(&top, &[&top, &top.join("mount/a/b")], &options);
    assert_eq!(names(&top, &found), ["/", "mount/", "mount/a/", "mount/a/b/", "mount/a/b/c", "x"]);
    assert!(found.contains(&Step::Enter(tree_path(&top.join("mount/a")), Scope::OnTheWay)));
    assert!(found.contains(&Step::Enter(tree_path(&top.join("mount/a/b")), Scope::Whole)));
    assert!(found.contains(&left_out));
}

#[test]
fn the_kernels_own_file_systems_are_left_out_unless_named() {
    let (_keep, top) = scene();
    make(&top, &["proc/", "x"]);
    let Some(_mount) = Mount::new("proc", top.join("proc")) else { return };
    let found = steps_below(&top, &[&top], &with_threads(2));
    assert_eq!(names(&top, &found), ["/", "proc/", "x"]);
    assert!(found.contains(&Step::LeftOut(tree_path(&top.join("proc")), LeftOut::PseudoFileSystem)));
    let named = top.join("proc/sys/kernel/hostname");
    let found = steps_below(&top, &[&top, &named], &with_threads(2));
    assert_eq!(names(&top, &found), ["/", "proc/", "proc/sys/", "proc/sys/kernel/", "proc/sys/kernel/hostname", "x"]);
}
