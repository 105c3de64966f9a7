//! The catalog as a whole. The risks: a row lost, doubled or taken for another; numbers that
//! change; processes in each other's way; damage that is believed, or that stops a backup.
//!
//! A `BTreeMap` model says what a lookup must find, whatever was merged, reopened or shared.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::Catalog;
use super::Import;
use super::ImportPack;
use super::Marks;
use super::NewOrigin;
use super::NewRow;
use crate::id::ChunkId;
use crate::id::CredentialId;
use crate::id::DescriptionId;
use crate::id::EpochId;
use crate::id::PackId;
use crate::id::SessionId;

fn id(n: u32) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn row(chunk: u32, frame: u32) -> NewRow {
    NewRow {
        id: id(chunk),
        frame,
        frame_offset: frame * 1000,
        frame_sealed: 900,
        frame_plain: 2000,
        chunk_offset: chunk,
        chunk_bytes: chunk + 1,
        kind: 1,
        compression: 2,
    }
}

/// A source with one pack of one session, and the chunks in it.
fn source(key: u32, session: u8, pack: u32, chunks: impl IntoIterator<Item = u32>) -> Import {
    Import {
        key: *id(key).as_bytes(),
        origins: vec![NewOrigin {
            session: SessionId::from_bytes([session; 16]),
            epoch: EpochId::from_bytes([1; 16]),
            credential: CredentialId::from_bytes([2; 32]),
            envelope: vec![session; 100],
        }],
        packs: vec![ImportPack {
            id: PackId::of(&pack.to_le_bytes()),
            origin: 0,
            salt: [3; 32],
            commitment: [4; 32],
            stored_bytes: 5,
            description: DescriptionId::from_bytes([6; 32]),
            rows: chunks.into_iter().map(|chunk| row(chunk, pack)).collect(),
        }],
    }
}

/// What is known of one copy of a chunk, without the catalog's own numbers.
type Copy = (PackId, SessionId, NewRow);

#[derive(Default)]
struct Model {
    keys: BTreeSet<[u8; 32]>,
    copies: BTreeMap<ChunkId, BTreeSet<Copy>>,
}

impl Model {
    fn import(&mut self, batch: &[Import]) {
        for import in batch {
            if !self.keys.insert(import.key) {
                continue;
            }
            for pack in &import.packs {
                for row in &pack.rows {
                    let copy = (pack.id, import.origins[pack.origin].session, *row);
                    self.copies.entry(row.id).or_default().insert(copy);
                }
            }
        }
    }

    /// Checks everything a catalog says of the chunks below `chunks`.
    fn check(&self, catalog: &Catalog, chunks: u32) {
        let mut seen = Marks::default();
        for n in 0..chunks {
            let wanted = self.copies.get(&id(n)).cloned().unwrap_or_default();
            assert_eq!(copies(catalog, n, &mut seen), wanted, "chunk {n}");
        }
        assert_eq!(seen.count(), catalog.rows(), "each row is found under one chunk");
        let mut all = BTreeMap::new();
        catalog.each_chunk(|found| {
            let one = found[0].row.id;
            let looked_up: BTreeSet<_> = catalog.lookup(&one).map(|found| found.row).collect();
            assert_eq!(found.iter().map(|found| found.row).collect::<BTreeSet<_>>(), looked_up);
            assert_eq!(found.len(), looked_up.len(), "a row came twice");
            assert_eq!(Some(found[0]), catalog.lookup(&one).next(), "the first is the first to be looked up");
            assert_eq!(all.insert(one, found.len()), None, "a chunk came twice");
        });
        assert!(all.keys().eq(self.copies.keys()), "a chunk was left out");
        assert!((0..100).all(|key| catalog.imported(id(key).as_bytes()) == self.keys.contains(id(key).as_bytes())));
        assert!(!catalog.is_damaged());
    }
}

fn copies(catalog: &Catalog, chunk: u32, seen: &mut Marks) -> BTreeSet<Copy> {
    let id = id(chunk);
    catalog
        .lookup(&id)
        .map(|found| {
            assert!(found.ordinal < catalog.rows());
            assert!(!seen.set(found.ordinal), "an ordinal was given twice");
            let pack = &catalog.packs()[found.row.pack as usize];
            let session = catalog.origins()[pack.origin as usize].session;
            let new = row(chunk, found.row.frame);
            assert_eq!(new.in_pack(found.row.pack), found.row);
            (pack.id, session, new)
        })
        .collect()
}

fn finds(catalog: &Catalog, chunk: u32) -> bool {
    catalog.lookup(&id(chunk)).next().is_some()
}

fn run_files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir.join("runs")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Opens with more patience than any test needs, so that none depends on timing.
fn open(dir: &Path) -> Catalog {
    Catalog::open_with(dir, Duration::from_secs(60)).unwrap()
}

/// Opens without patience: what is held is taken for held at once.
fn open_at_once(dir: &Path) -> Catalog {
    Catalog::open_with(dir, Duration::ZERO).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Import(usize, Vec<Import>),
    Reopen(usize),
    Refresh(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let import = (0..60_u32, 0..3_u8, 0..6_u32, prop::collection::vec(0..50_u32, 0..12))
        .prop_map(|(key, session, pack, chunks)| source(key, session, pack, chunks));
    let step = prop_oneof![
        6 => (0..2_usize, prop::collection::vec(import, 0..4)).prop_map(|(who, batch)| Step::Import(who, batch)),
        1 => (0..2_usize).prop_map(Step::Reopen),
        1 => (0..2_usize).prop_map(Step::Refresh),
    ];
    prop::collection::vec(step, 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Two catalogs open on one directory take turns; each finds what the model holds once it
    /// has looked, and the numbers it gave stay what they were.
    #[test]
    fn catalogs_that_share_a_directory_find_what_either_imported(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        let mut catalogs = [open(dir.path()), open(dir.path())];
        for step in steps {
            let (Step::Import(who, _) | Step::Reopen(who) | Step::Refresh(who)) = step;
            let packs = catalogs[who].packs().to_vec();
            match step {
                Step::Import(_, batch) => {
                    model.import(&batch);
                    catalogs[who].import(batch).unwrap();
                }
                Step::Reopen(_) => catalogs[who] = open(dir.path()),
                Step::Refresh(_) => catalogs[who].refresh(),
            }
            prop_assert!(!catalogs[who].is_private());
            prop_assert!(catalogs[who].packs().starts_with(&packs));
            model.check(&catalogs[who], 60);
        }
        drop(catalogs);
        let catalog = open(dir.path());
        model.check(&catalog, 60);
        prop_assert!(run_files(dir.path()).len() < 4);
    }

    #[test]
    fn a_temporary_catalog_finds_what_was_imported(steps in steps()) {
        let mut model = Model::default();
        let mut catalog = Catalog::temporary();
        for step in steps {
            if let Step::Import(_, batch) = step {
                model.import(&batch);
                catalog.import(batch).unwrap();
            }
        }
        model.check(&catalog, 60);
    }
}

#[test]
fn merging_keeps_few_runs_and_drops_rows_that_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut catalog = open(dir.path());
    for key in 0..13 {
        catalog.import(vec![source(key, 1, 7, 0..100)]).unwrap();
        assert!(run_files(dir.path()).len() < 4);
    }
    // 13 imports: 4 to 1, then 3 more at a time.
    assert_eq!((catalog.rows(), run_files(dir.path()).len(), catalog.packs().len()), (100, 1, 1));
}

#[test]
fn a_pack_described_in_two_ways_has_two_numbers_and_neither_hides_the_other() {
    let mut catalog = Catalog::temporary();
    let honest = source(0, 1, 7, [1]);
    let mut lying = source(1, 1, 7, [1]);
    lying.packs[0].commitment = [9; 32];
    // The same pack of the same session, said to hold something else.
    let mut more = source(2, 1, 7, [1, 2]);
    more.packs[0].description = DescriptionId::from_bytes([8; 32]);
    catalog.import(vec![lying, honest, more]).unwrap();
    let id = id(1);
    let row = |found: super::Found| &catalog.packs()[found.row.pack as usize];
    let said: BTreeSet<_> = catalog.lookup(&id).map(row).map(|row| (row.commitment[0], row.description)).collect();
    let description = |n| DescriptionId::from_bytes([n; 32]);
    assert_eq!(said, BTreeSet::from([(4, description(6)), (9, description(6)), (4, description(8))]));
}

#[test]
fn a_pack_whose_origin_its_source_does_not_have_is_left_out() {
    let mut catalog = Catalog::temporary();
    let mut bad = source(0, 1, 7, [1]);
    bad.packs[0].origin = 1;
    catalog.import(vec![bad, source(1, 1, 8, [2])]).unwrap();
    assert!(!finds(&catalog, 1) && finds(&catalog, 2));
    assert_eq!(catalog.packs().len(), 1);
}

#[test]
fn an_empty_source_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let empty = Import { key: [1; 32], origins: vec![], packs: vec![] };
    open(dir.path()).import(vec![empty]).unwrap();
    let catalog = open(dir.path());
    assert!(catalog.imported(&[1; 32]));
    assert_eq!((catalog.rows(), run_files(dir.path()).len()), (0, 0));
}

#[test]
fn facts_are_remembered_until_put_anew() {
    let dir = tempfile::tempdir().unwrap();
    for mut catalog in [Catalog::temporary(), open(dir.path())] {
        catalog.put_facts(&[(b"a", b"1"), (b"b", b"2")]);
        catalog.put_facts(&[(b"b", b"3")]);
        assert_eq!(catalog.facts(&[b"b", b"c", b"a"]), [Some(b"3".to_vec()), None, Some(b"1".to_vec())]);
    }
    assert_eq!(open(dir.path()).fact(b"b"), Some(b"3".to_vec()));
}

#[test]
fn a_catalog_whose_files_were_merged_away_by_another_still_finds_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = open(dir.path());
    first.import(vec![source(0, 1, 0, [0])]).unwrap();
    let files = run_files(dir.path());
    let mut second = open(dir.path());
    for n in 1..20 {
        second.import(vec![source(n, 1, n, [n])]).unwrap();
    }
    assert!(!files[0].exists());
    assert!(finds(&first, 0) && !finds(&first, 19));
    first.import(vec![source(20, 1, 20, [20])]).unwrap();
    assert!((0..=20).all(|n| finds(&first, n)));
    assert!(!first.is_private());
}

#[test]
fn threads_that_import_the_same_sources_at_once_leave_each_row_a_few_times_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let work = || {
        let mut catalog = open(dir.path());
        for key in 0..12 {
            catalog.import(vec![source(key, 1, key, 10 * key..10 * key + 10)]).unwrap();
        }
        assert!(!catalog.is_private());
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let mut model = Model::default();
    model.import(&(0..12).map(|key| source(key, 1, key, 10 * key..10 * key + 10)).collect::<Vec<_>>());
    let catalog = open(dir.path());
    model.check(&catalog, 130);
    assert!((120..=240).contains(&catalog.rows()), "{}", catalog.rows());
    assert_eq!(catalog.packs().len(), 12);
}

const CHILD_DIR: &str = "ESKER_TEST_CATALOG_DIR";

/// The other process of the test below.
#[test]
fn child_process() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let mut catalog = open(Path::new(&dir));
    for n in 0..10 {
        catalog.import(vec![source(n, 1, n, [n])]).unwrap();
        catalog.import(vec![source(50 + n, 2, 50 + n, [50 + n])]).unwrap();
    }
    assert!(!catalog.is_private());
    // As when killed: nothing is closed.
    std::mem::forget(catalog);
    std::process::abort();
}

#[test]
fn processes_share_a_catalog_and_one_that_dies_leaves_it_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "index::tests::child_process"])
        .env(CHILD_DIR, dir.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut catalog = open(dir.path());
    for n in 0..20 {
        catalog.import(vec![source(n, 1, n, [n])]).unwrap();
    }
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(6));
    catalog.refresh();
    assert!(!catalog.is_private());
    for catalog in [&catalog, &open(dir.path())] {
        assert!((0..20).chain(50..60).all(|n| finds(catalog, n)));
        assert_eq!(catalog.packs().len(), 30);
    }
}

#[test]
fn what_a_dead_writer_left_is_removed_and_what_a_live_one_writes_is_not() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).import(vec![source(0, 1, 0, [0])]).unwrap();
    let [dead, live] = ["dead", "live"].map(|name| dir.path().join("runs").join(name));
    fs::write(&dead, "half a run").unwrap();
    let writer = fs::File::create(&live).unwrap();
    writer.try_lock().unwrap();
    assert!(finds(&open(dir.path()), 0));
    assert!(!dead.exists() && live.exists());
    writer.unlock().unwrap();
    assert!(finds(&open(dir.path()), 0));
    assert!(!live.exists());
}

/// An envelope comes back as it was or not at all: kept, after another opening, and private.
#[test]
fn envelopes_are_found_and_never_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let batch = |key: u32| vec![source(key, u8::try_from(key).unwrap(), key, [key])];
    for mut catalog in [Catalog::temporary(), open(dir.path())] {
        (0..4).for_each(|key| catalog.import(batch(key)).unwrap());
        for (n, origin) in (0..).zip(catalog.origins()) {
            assert_eq!(catalog.envelope(origin), Some(vec![n; 100]));
        }
    }
    {
        let db = redb::Database::open(dir.path().join("catalog.redb")).unwrap();
        let txn = db.begin_write().unwrap();
        let table: redb::TableDefinition<'_, &[u8; 32], &[u8]> = redb::TableDefinition::new("envelopes");
        let mut envelopes = txn.open_table(table).unwrap();
        envelopes.insert(blake3::hash(&[1; 100]).as_bytes(), &[2; 100][..]).unwrap();
        envelopes.remove(blake3::hash(&[2; 100]).as_bytes()).unwrap();
        drop(envelopes);
        txn.commit().unwrap();
    }
    let catalog = open(dir.path());
    let found: Vec<_> = catalog.origins().iter().map(|origin| catalog.envelope(origin)).collect();
    assert_eq!(found, [Some(vec![0; 100]), None, None, Some(vec![3; 100])]);
}

#[test]
fn a_catalog_that_something_holds_is_private_and_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = open_at_once(dir.path());
    before.import(vec![source(0, 1, 0, [0])]).unwrap();
    type Holder = fn(&Path) -> Box<dyn std::any::Any>;
    let holders: [Holder; 2] = [
        |dir| Box::new(redb::Database::open(dir.join("catalog.redb")).unwrap()),
        |dir| {
            let lock = fs::File::create(dir.join("lock")).unwrap();
            lock.lock().unwrap();
            Box::new(lock)
        },
    ];
    for holder in holders {
        let held = holder(dir.path());
        let mut catalog = open_at_once(dir.path());
        assert!(catalog.is_private());
        catalog.import(vec![source(1, 1, 1, [1])]).unwrap();
        assert!(finds(&catalog, 1) && !finds(&catalog, 0));
        catalog.put_facts(&[(b"a", b"1")]);
        assert_eq!(catalog.fact(b"a"), Some(b"1".to_vec()));
        // One that was open already keeps what it has.
        before.put_facts(&[]);
        before.import((2..9).map(|n| source(n, 1, n, [n])).collect()).unwrap();
        assert!(before.is_private() && finds(&before, 0) && finds(&before, 8));
        drop(held);
    }
    let after = open(dir.path());
    assert!(!after.is_private() && finds(&after, 0) && !finds(&after, 1) && !finds(&after, 2));
    assert_eq!(run_files(dir.path()).len(), 1);
}

/// A forked child has the lock file open until it execs, so closing the file would not unlock it.
#[test]
fn a_thread_that_starts_processes_does_not_make_catalogs_private() {
    let dir = tempfile::tempdir().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let private = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::process::Command::new("true").status().unwrap();
            }
        });
        let private = (0..200).filter(|_| open_at_once(dir.path()).is_private()).count();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        private
    });
    assert_eq!(private, 0);
}

#[test]
fn a_catalog_that_was_begun_anew_by_another_goes_on_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = open(dir.path());
    first.import(vec![source(0, 1, 0, [0]), source(1, 1, 1, [1])]).unwrap();
    fs::write(dir.path().join("catalog.redb"), "damaged").unwrap();
    let mut second = open(dir.path());
    second.import(vec![source(2, 1, 2, [2])]).unwrap();
    first.condemn();
    first.import(vec![source(3, 1, 3, [3])]).unwrap();
    assert!(first.is_private() && finds(&first, 0) && finds(&first, 3) && !finds(&first, 2));
    drop(first);
    let after = open(dir.path());
    assert!(finds(&after, 2) && !finds(&after, 0) && !finds(&after, 3));
}

#[test]
fn a_catalog_of_another_version_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).import(vec![source(0, 1, 0, [0])]).unwrap();
    {
        let db = redb::Database::open(dir.path().join("catalog.redb")).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 1).unwrap();
        txn.commit().unwrap();
    }
    let mut catalog = open(dir.path());
    assert!(!catalog.is_private() && !finds(&catalog, 0) && !catalog.imported(id(0).as_bytes()));
    catalog.import(vec![source(0, 1, 0, [0])]).unwrap();
    assert!(finds(&open(dir.path()), 0));
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = Catalog::open(&dir.path().join("file/catalog")).unwrap_err();
    assert!(error.to_string().starts_with("cannot create the directory `"), "{error}");
}

/// Copies a catalog's directory.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to.join("runs")).unwrap();
    fs::copy(from.join("catalog.redb"), to.join("catalog.redb")).unwrap();
    for run in run_files(from) {
        fs::copy(&run, to.join("runs").join(run.file_name().unwrap())).unwrap();
    }
}

/// Every file, cut, flipped or replaced: the catalog is empty or right, and works again.
#[test]
fn a_damaged_catalog_is_never_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    let mut model = Model::default();
    let mut catalog = open(&good);
    for key in 0..6 {
        let batch = vec![source(key, u8::try_from(key).unwrap(), key, 10 * key..10 * key + 15)];
        model.import(&batch);
        catalog.import(batch).unwrap();
    }
    drop(catalog);
    assert_eq!(run_files(&good).len(), 3);

    let damage = |what: &str, spoil: &dyn Fn(&Path)| {
        copy(&good, &bad);
        spoil(&bad);
        for attempt in 0..2 {
            let mut catalog = open(&bad);
            assert!(!catalog.is_private());
            for n in 0..69 {
                let wanted = model.copies.get(&id(n)).cloned().unwrap_or_default();
                let found = copies(&catalog, n, &mut Marks::default());
                assert!(found.is_subset(&wanted), "{what}: chunk {n}");
                // A row's id that was flipped is the one thing no lookup can notice.
                let noticed = !catalog.imported(id(0).as_bytes()) || catalog.is_damaged() || what.contains("run flip");
                assert!(found == wanted || noticed, "{what}, attempt {attempt}: chunk {n} is gone unseen");
            }
            catalog.import(vec![source(90, 1, 90, [69])]).unwrap();
            assert!(finds(&catalog, 69), "{what}");
        }
    };
    let mut files = run_files(&good);
    files.push(good.join("catalog.redb"));
    for file in files {
        let name = file.strip_prefix(&good).unwrap();
        let what = name.to_str().unwrap();
        let bytes = fs::read(&file).unwrap();
        damage(&format!("{what} gone"), &|dir| fs::remove_file(dir.join(name)).unwrap());
        damage(&format!("{what} garbage"), &|dir| fs::write(dir.join(name), [0x5a; 9999]).unwrap());
        damage(&format!("{what} zeros"), &|dir| fs::write(dir.join(name), vec![0; bytes.len()]).unwrap());
        damage(&format!("{what} a directory"), &|dir| {
            fs::remove_file(dir.join(name)).unwrap();
            fs::create_dir(dir.join(name)).unwrap();
        });
        for length in [0, 1, 63, 64, bytes.len() / 2, bytes.len() - 1] {
            damage(&format!("{what} cut at {length}"), &|dir| fs::write(dir.join(name), &bytes[..length]).unwrap());
        }
        // The places where there is something, evenly spread.
        let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        // Of the database no page is checked as such; see `store`.
        let places = if what.ends_with(".redb") { 256 } else { 16 };
        for at in written.iter().step_by((written.len() / places).max(1)) {
            let mut flipped = bytes.clone();
            flipped[*at] ^= 0x81;
            damage(&format!("{what} flipped at {at}"), &|dir| fs::write(dir.join(name), &flipped).unwrap());
        }
    }
    damage("runs a file", &|dir| {
        fs::remove_dir_all(dir.join("runs")).unwrap();
        fs::write(dir.join("runs"), "").unwrap();
    });
}

#[test]
fn a_damaged_row_is_left_out_and_the_catalog_gone_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).import(vec![source(0, 1, 0, 0..20)]).unwrap();
    let path = &run_files(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    // The pack number of the last row.
    let at = bytes.len() - 32;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    let catalog = open(dir.path());
    assert_eq!((0..20).filter(|n| finds(&catalog, *n)).count(), 19);
    assert!(catalog.is_damaged());
    drop(catalog);
    let catalog = open(dir.path());
    assert!(!catalog.is_damaged() && catalog.rows() == 0 && !catalog.imported(id(0).as_bytes()));
}
