//! Risk: a snapshot that is made of another has something it should not have, lacks something it should, or
//! rests on what a collection takes; what was to be erased is still there.
//! Method: random trees are rewritten and backed up afresh without the same files, and both must be one tree,
//! to the id of its root; a marker is looked for in all that is stored and in everything that opens; a whole
//! collection runs before each storage call of a command.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[allow(dead_code)]
#[path = "support/between.rs"]
mod between;
#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use between::Between;
use esker::error::Kind;
use esker::format::tree::{Detail, Entry};
use esker::id::{ChunkId, SessionId};
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::prune::plan::{Limits, Unused};
use esker::prune::{self, Options as PruneOptions};
use esker::repo::content::Reader;
use esker::repo::reader::{ReadRepo, find};
use esker::repo::snapshots::{Filter, SnapshotInfo};
use esker::repo::trim::Verdict;
use esker::repo::walk::Walk;
use esker::rewrite::{self, Became, Options};
use esker::source::exclude::{Case, Patterns};
use esker::storage::Storage;
use esker::storage::memory::Memory;
use esker::tag::{self, Change};
use repo::{Scene, noise};

fn scene(memory: &Memory) -> Scene {
    Scene::finely_cut(Arc::new(memory.clone()), 1 << 12, 7)
}

/// Every moment is tried, whatever it takes: `just soak`.
fn soaking() -> bool {
    std::env::var_os("ESKER_SOAK").is_some_and(|value| !value.is_empty() && value != "0")
}

fn patterns(given: &[&str]) -> Patterns {
    let mut patterns = Patterns::new();
    given.iter().for_each(|pattern| patterns.add(pattern.as_bytes(), Case::Sensitive).unwrap());
    patterns
}

fn without(given: &[&str]) -> Options {
    Options { exclude: patterns(given), ..Options::default() }
}

fn prune(scene: &Scene) {
    let options = PruneOptions {
        limits: Limits { max_unused: Unused::Bytes(0), ..Limits::default() },
        packs: scene.packs,
        patience: Duration::ZERO,
        ignore_clock: false,
        close_lost: false,
        fold_from: 64,
        threads: 1,
    };
    prune::run(&scene.open(), &options, &Monitor::silent(), |_| Ok(())).unwrap();
}

fn snapshots(scene: &Scene) -> Vec<SnapshotInfo> {
    let repo = scene.open();
    let (found, unreadable) = Reader::new(&repo).unwrap().snapshots(&Filter::default()).unwrap();
    assert!(unreadable.is_empty(), "{unreadable:?}");
    found
}

fn snapshot(scene: &Scene, id: SessionId) -> SnapshotInfo {
    snapshots(scene).into_iter().find(|info| info.id() == id).unwrap()
}

fn try_rewrite(scene: &Scene, id: SessionId, options: &Options) -> esker::error::Result<rewrite::Report> {
    let repo = scene.try_open()?;
    let reader = Reader::new(&repo)?;
    let (there, _) = reader.snapshots(&Filter::default())?;
    let info = reader.find_snapshot(&id.to_string(), &Filter::default())?;
    rewrite::run(&reader, &info, &there, options, &Monitor::silent())
}

fn made(report: &rewrite::Report) -> SessionId {
    match report.became {
        Became::Made(id) => id,
        ref other => panic!("no snapshot was made: {other:?}"),
    }
}

/// Numbers that repeat for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

const NAMES: [&str; 6] = ["a", "b", "c.log", "d", "keep", "z"];

/// Directories, files, links of both kinds, and one directory of several nodes.
fn random_tree(dice: &mut Dice, at: &Path, depth: u64, files: &mut Vec<std::path::PathBuf>) {
    for name in NAMES {
        let path = at.join(name);
        match dice.below(8) {
            0..3 if depth > 0 => {
                fs::create_dir(&path).unwrap();
                random_tree(dice, &path, depth - 1, files);
            }
            3 => std::os::unix::fs::symlink("nowhere", &path).unwrap(),
            4 if !files.is_empty() => {
                let first = usize::try_from(dice.below(files.len() as u64)).unwrap();
                fs::hard_link(&files[first], &path).unwrap();
            }
            5 => fs::create_dir(&path).unwrap(),
            _ => {
                fs::write(&path, noise(dice.below(50), usize::try_from(dice.below(4000)).unwrap())).unwrap();
                files.push(path);
            }
        }
    }
    if depth == 2 {
        let many = at.join("many");
        fs::create_dir(&many).unwrap();
        (0..200).for_each(|n| fs::write(many.join(format!("f{n}.{}", n % 3)), [1]).unwrap());
    }
}

/// Two trees are one, to the nodes: what is below the scene's own directory. Others change what is around it.
fn assert_same_tree(scene: &Scene, one: &Entry, other: &Entry, when: &str) {
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let source = TreePath::from_os(&scene.source()).unwrap();
    let [one, other] = [one, other].map(|root| find(&reader, root, &source).ok());
    if one == other {
        return;
    }
    let (one, other) = (one.unwrap(), other.unwrap());
    let entries = |root: &Entry| {
        let mut walk = Walk::below(&reader, source.clone(), root);
        std::iter::from_fn(move || Some((walk.next()?.unwrap(), walk.path().to_string()))).collect::<Vec<_>>()
    };
    let (one, other) = (entries(&one), entries(&other));
    let mut differs = one.iter().zip(&other).filter(|(a, b)| a != b);
    // Below a directory that differs stands what does.
    panic!("{when}: {} and {} entries, {:#?}", one.len(), other.len(), differs.next_back());
}

/// The strong one: the same nodes, totals and link groups as of a backup that never saw the files.
#[test]
fn a_rewritten_tree_is_the_one_that_a_backup_without_the_files_makes() {
    let choices: [&[&str]; 9] = [
        &["c.log"],
        &["a"],
        &["*.1"],
        &["many"],
        &["b/**/d", "z"],
        &["/nothing"],
        &["*", "!keep"],
        &["a", "!a/b"],
        &["f1??.*"],
    ];
    let (mut changed, mut unchanged) = (0, 0);
    for seed in 0..10 {
        let mut dice = Dice(seed);
        let scene = scene(&Memory::new());
        random_tree(&mut dice, &scene.source(), 3, &mut Vec::new());
        let whole = scene.backup().id;
        for exclude in choices {
            let report = try_rewrite(&scene, whole, &without(exclude)).unwrap();
            let mut options = scene.options();
            options.walk.exclude = patterns(exclude);
            options.force = true;
            let fresh = esker::backup::run(&scene.open(), &options, &Monitor::silent()).unwrap();
            assert_same_tree(
                &scene,
                &report.trimmed.root,
                &fresh.snapshot.root,
                &format!("seed {seed}, without {exclude:?}"),
            );
            match report.became {
                Became::Unchanged => unchanged += 1,
                Became::Made(id) => {
                    changed += 1;
                    let info = snapshot(&scene, id);
                    assert_eq!(info.snapshot.root, report.trimmed.root);
                    assert_eq!(info.snapshot.original.unwrap().session, whole);
                    let totals = info.snapshot.root.totals();
                    assert_eq!(info.snapshot.summary.total_files_processed, totals.files);
                }
                // Other patterns left out the same.
                Became::MadeBefore(_) => {}
                other => panic!("{other:?}"),
            }
            let again = try_rewrite(&scene, whole, &Options { dry_run: true, ..without(exclude) }).unwrap();
            assert_eq!(again.trimmed.root, report.trimmed.root);
        }
        let report = scene.check();
        assert!(report.faults.is_empty(), "{report:?}");
    }
    assert!(changed > 50 && unchanged > 5, "{changed} changed, {unchanged} did not");
}

#[test]
fn what_is_restored_is_the_tree_without_what_was_excluded() {
    let scene = scene(&Memory::new());
    random_tree(&mut Dice(77), &scene.source(), 3, &mut Vec::new());
    fs::create_dir_all(scene.source().join("sub/private")).unwrap();
    fs::write(scene.source().join("sub/private/diary"), noise(1, 100_000)).unwrap();
    fs::write(scene.source().join("sub/public"), noise(2, 100_000)).unwrap();
    let whole = scene.backup().id;
    let before = tree::lines(&scene.source());
    let rewritten = made(&try_rewrite(&scene, whole, &without(&["private"])).unwrap());
    assert_eq!(tree::lines(&scene.restore(&whole.to_string())), before, "the old one is another");
    let expected: Vec<_> = before.into_iter().filter(|line| !line.starts_with("sub/private")).collect();
    assert_eq!(tree::lines(&scene.restore(&rewritten.to_string())), expected);
}

/// Of a directory into which no pattern leads no node is read or stored.
#[test]
fn what_no_pattern_can_match_in_is_taken_over_unopened() {
    use esker::repo::remake::would_be;
    use esker::repo::trim::Choice;

    struct Never(Vec<String>);
    impl Choice for Never {
        fn of(
            &mut self,
            path: &esker::path::TreePath,
            entry: &esker::format::tree::Entry,
        ) -> esker::error::Result<Verdict> {
            self.0.push(path.to_string());
            let is_directory = matches!(entry.detail, Detail::Directory { .. });
            Ok(if path.to_string().ends_with("/large") || !is_directory { Verdict::Keep } else { Verdict::Look })
        }

        fn lost(&mut self, _: &esker::path::TreePath, error: esker::error::Error) -> esker::error::Result<()> {
            Err(error)
        }
    }
    let scene = scene(&Memory::new());
    fs::create_dir(scene.source().join("large")).unwrap();
    (0..1000).for_each(|n| fs::write(scene.source().join(format!("large/{n}")), []).unwrap());
    fs::write(scene.source().join("note"), "x").unwrap();
    let id = scene.backup().id;
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let info = snapshot(&scene, id);
    let mut choice = Never(Vec::new());
    let trimmed = would_be(&reader, &reader, &info, &mut choice, &Monitor::silent()).unwrap();
    assert!(!trimmed.is_other);
    assert_eq!(trimmed.root, info.snapshot.root);
    assert!(!choice.0.iter().any(|path| path.contains("/large/")), "{:?}", choice.0);
}

#[test]
fn tags_change_in_place_and_the_first_version_stays_the_original() {
    let memory = Memory::new();
    let scene = scene(&memory);
    fs::write(scene.source().join("f"), noise(1, 9000)).unwrap();
    let first = scene.backup().id;
    let set = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<BTreeSet<_>>();
    let change = Change::Set(set(&["b", "a"]));
    let second = tag::run(&scene.open(), &snapshot(&scene, first), &change).unwrap().unwrap();
    assert_eq!(tag::run(&scene.open(), &snapshot(&scene, second), &change).unwrap(), None);
    let change = Change::Edit { add: set(&["c"]), remove: set(&["a"]) };
    let third = tag::run(&scene.open(), &snapshot(&scene, second), &change).unwrap().unwrap();
    let all = snapshots(&scene);
    assert_eq!(all.iter().map(SnapshotInfo::id).collect::<Vec<_>>(), [third]);
    assert_eq!(all[0].snapshot.tags, ["b", "c"]);
    assert_eq!(all[0].snapshot.original.unwrap().session, first);
    // Who lists before and changes after is refused: another has taken its place.
    let stale = SnapshotInfo { header: all[0].header.clone(), snapshot: all[0].snapshot.clone() };
    tag::run(&scene.open(), &stale, &Change::Set(set(&["x"]))).unwrap().unwrap();
    let error = tag::run(&scene.open(), &stale, &Change::Set(set(&["y"]))).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    prune(&scene);
    prune(&scene);
    let lines = tree::lines(&scene.source());
    assert_eq!(tree::lines(&scene.restore("latest")), lines);
    assert!(scene.check().faults.is_empty());
}

/// A snapshot of a writer, whose packs no owner answers for, can be tagged and rewritten by an owner.
#[test]
fn an_owner_makes_snapshots_of_those_of_writers() {
    let scene = scene(&Memory::new());
    let writer = scene.writer();
    fs::create_dir(scene.source().join("sub")).unwrap();
    fs::write(scene.source().join("sub/secret"), noise(1, 9000)).unwrap();
    fs::write(scene.source().join("sub/other"), noise(2, 9000)).unwrap();
    let id = writer.backup().id;
    let tagged =
        tag::run(&scene.open(), &snapshot(&scene, id), &Change::Set(["t".to_owned()].into())).unwrap().unwrap();
    let report = try_rewrite(&scene, tagged, &Options { forget: Some(0), ..without(&["secret"]) }).unwrap();
    let id = made(&report);
    for _ in 0..3 {
        prune(&scene);
    }
    let expected: Vec<_> =
        tree::lines(&scene.source()).into_iter().filter(|line| !line.starts_with("sub/secret")).collect();
    assert_eq!(tree::lines(&scene.restore(&id.to_string())), expected);
    assert!(scene.check().faults.is_empty());
    let error = tag::run(&writer.open(), &snapshot(&scene, id), &Change::Set(["u".to_owned()].into())).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
}

/// Every chunk of every pack that is there, opened.
fn every_plain_byte(scene: &Scene) -> Vec<(ChunkId, Vec<u8>)> {
    let repo = scene.open();
    let reader = Reader::without_cache(&repo).unwrap();
    let stored: BTreeSet<String> = repo.storage.list("packs/").unwrap().into_iter().map(|object| object.name).collect();
    let mut rows = Vec::new();
    reader.catalog().each_chunk(|copies| rows.extend(copies.iter().copied()));
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for found in rows {
        let name = esker::repo::session::pack_name(&reader.catalog().packs()[found.row.pack as usize].id);
        if !stored.contains(&name) {
            continue;
        }
        seen.insert(name);
        let row = &found.row;
        let at = esker::repo::reader::FrameAt {
            pack: row.pack,
            frame: row.frame,
            offset: row.frame_offset,
            sealed: row.frame_sealed,
            plain: row.frame_plain,
            compression: row.compression,
            kind: row.kind,
        };
        let frame = reader.frame(&at).unwrap();
        all.push((row.id, frame[row.chunk_offset as usize..][..row.chunk_bytes as usize].to_vec()));
    }
    assert_eq!(seen, stored, "a pack is there that no index names, and may hold anything");
    all
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

const MARKER: &[u8] = b"the account number is 4711-0815";

/// Rewrite, forget, collect: the bytes are in no pack, and so are the file's name and chunk ids.
#[test]
fn what_was_erased_is_in_no_pack_any_more() {
    let memory = Memory::new();
    let scene = scene(&memory).with_tiny_packs();
    for n in 0..20 {
        fs::write(scene.source().join(format!("f{n}")), noise(n, 3000)).unwrap();
    }
    // Among others in a frame, in a file of its own, and in a list of many pieces.
    fs::write(scene.source().join("f7-secret"), [&noise(100, 500), MARKER, &noise(101, 500)].concat()).unwrap();
    fs::write(scene.source().join("large-secret"), [&noise(102, 900_000), MARKER, &noise(103, 900_000)].concat())
        .unwrap();
    let first = scene.backup().id;
    fs::write(scene.source().join("more"), noise(104, 5000)).unwrap();
    let second = scene.backup().id;
    let before = every_plain_byte(&scene);
    assert!(before.iter().any(|(_, bytes)| contains(bytes, MARKER)));
    assert!(before.iter().any(|(_, bytes)| contains(bytes, b"f7-secret")));

    let options = Options { forget: Some(0), ..without(&["*-secret"]) };
    let made: Vec<_> = [first, second].iter().map(|id| made(&try_rewrite(&scene, *id, &options).unwrap())).collect();
    assert!(every_plain_byte(&scene).iter().any(|(_, bytes)| contains(bytes, MARKER)), "nothing is erased yet");
    prune(&scene);
    prune(&scene);
    let after = every_plain_byte(&scene);
    for (id, bytes) in &after {
        assert!(!contains(bytes, MARKER) && !contains(bytes, b"-secret"), "chunk {id} has it still");
    }
    let kept: BTreeSet<_> = after.iter().map(|(id, _)| *id).collect();
    let gone: Vec<_> = before.iter().filter(|(id, _)| !kept.contains(id)).collect();
    assert!(gone.iter().any(|(_, bytes)| contains(bytes, MARKER)));

    let expected: Vec<_> = tree::lines(&scene.source()).into_iter().filter(|line| !line.contains("-secret ")).collect();
    assert_eq!(tree::lines(&scene.restore(&made[1].to_string())), expected);
    assert!(scene.check().faults.is_empty());
    // A next backup, which the record of the last one guides, rests on nothing that is gone.
    fs::remove_file(scene.source().join("f7-secret")).unwrap();
    scene.backup();
    assert!(scene.check().faults.is_empty());
    assert_eq!(tree::lines(&scene.restore("latest")), tree::lines(&scene.source()));
}

/// Stopped between making the one and forgetting the other, the same command does the rest and makes no second.
#[test]
fn a_rewrite_that_was_stopped_before_it_forgot_is_finished_by_the_next() {
    let scene = scene(&Memory::new());
    fs::write(scene.source().join("a"), "a").unwrap();
    fs::write(scene.source().join("b"), "b").unwrap();
    let old = scene.backup().id;
    let new = made(&try_rewrite(&scene, old, &without(&["a"])).unwrap());
    let again = try_rewrite(&scene, old, &Options { forget: Some(0), ..without(&["a"]) }).unwrap();
    assert_eq!(again.became, Became::MadeBefore(new));
    assert_eq!(snapshots(&scene).iter().map(SnapshotInfo::id).collect::<Vec<_>>(), [new]);
    assert_eq!(try_rewrite(&scene, new, &without(&["a"])).unwrap().became, Became::Unchanged);
}

/// A whole collection, which takes what a forgotten snapshot alone had, before each storage call of a command.
#[test]
fn a_collection_at_any_moment_takes_nothing_that_the_new_snapshot_has() {
    let memory = Memory::new();
    let scene = scene(&memory).with_tiny_packs();
    for n in 0..8 {
        fs::create_dir_all(scene.source().join(format!("d{}", n % 2))).unwrap();
        fs::write(scene.source().join(format!("d{}/f{n}", n % 2)), noise(n, 2000)).unwrap();
    }
    let old = scene.backup().id;
    fs::write(scene.source().join("d0/f0"), noise(50, 2000)).unwrap();
    let id = scene.backup().id;
    let lines = tree::lines(&scene.source());
    esker::forget::run(&scene.open(), &[snapshot(&scene, old)], 0).unwrap();
    prune(&scene);
    let base = memory.snapshot();
    type Work = fn(&Scene, SessionId) -> Option<SessionId>;
    let rewriting: Work = |scene, id| {
        let options = Options { forget: Some(0), ..without(&["f3"]) };
        try_rewrite(scene, id, &options).ok().map(|report| made(&report))
    };
    let tagging: Work = |scene, id| {
        let change = Change::Set(["t".to_owned()].into());
        let repo = scene.open();
        let info = Reader::new(&repo).unwrap().find_snapshot(&id.to_string(), &Filter::default()).unwrap();
        tag::run(&repo, &info, &change).ok().flatten()
    };
    for (name, work) in [("rewrite", rewriting), ("tag", tagging)] {
        memory.restore(base.clone());
        let counting = Between::counting(Arc::new(memory.clone()));
        assert!(work(&scene.over(Arc::new(counting.clone())), id).is_some());
        let calls = counting.calls();
        let mut reported = 0_u64;
        let width = if soaking() { 1 } else { 3 };
        for k in (0..calls).step_by(width) {
            memory.restore(base.clone());
            let _ = fs::remove_dir_all(scene.cache());
            let other = scene.over(Arc::new(memory.clone())).caching_in(scene.dir().join("other"));
            let _ = fs::remove_dir_all(scene.dir().join("other"));
            let storage = Between::new(Arc::new(memory.clone()), k, move || prune(&other));
            let new = work(&scene.over(Arc::new(storage)), id);
            reported += u64::from(new.is_some());
            let when = format!("{name}, a collection before call {k}");
            for _ in 0..2 {
                prune(&scene);
            }
            let has = |wanted: &str| lines.iter().any(|line| line.starts_with(wanted));
            assert!(has("d1/f3"));
            let kept = |line: &&String| name != "rewrite" || !line.starts_with("d1/f3 ");
            let expected: Vec<_> = match new {
                Some(_) => lines.iter().filter(kept).collect(),
                None => lines.iter().collect(),
            };
            let shown = new.unwrap_or(id);
            assert_eq!(tree::lines(&scene.restore(&shown.to_string())).iter().collect::<Vec<_>>(), expected, "{when}");
            let report = scene.check();
            assert!(report.faults.is_empty(), "{report:?}, {when}");
        }
        assert!(reported * width as u64 > calls / 2, "{reported} of {calls}");
    }
}

#[test]
fn nothing_is_stored_by_a_dry_run_or_where_nothing_changes() {
    let memory = Memory::new();
    let scene = scene(&memory);
    fs::write(scene.source().join("a"), "a").unwrap();
    let id = scene.backup().id;
    let names = || memory.list("").unwrap().into_iter().map(|object| object.name).collect::<Vec<_>>();
    let before = names();
    assert_eq!(
        try_rewrite(&scene, id, &Options { dry_run: true, forget: Some(0), ..without(&["a"]) }).unwrap().became,
        Became::WouldChange
    );
    assert_eq!(try_rewrite(&scene, id, &without(&["b"])).unwrap().became, Became::Unchanged);
    assert_eq!(names(), before);
}
