//! A whole repository, changed: hostile bytes in, `check` and `restore` of everything out.
//!
//! The input is a list of [`edit`]s. Some are what somebody with keys does: they change a node, a record, a table or
//! a frame before it is sealed, and all that is around it is made right again, hashes, ids, seals and signatures,
//! so that what reads it gets as far as it can. The others are what a storage does: objects lost, cut, swapped,
//! put in the place of others, made up.
//!
//! Whatever they are, nothing panics, nothing takes much memory or time, and nothing is written beside the target.
//! What `check` finds whole restores, what it says is affected does not, and what it finds in the
//! structure it finds when it reads everything too. Where only the storage lied, no file has other bytes or attributes
//! than it had, and none is missing unless that is said. A collection takes nothing from a snapshot that was whole.

mod build;
mod edit;
#[path = "../../../tests/support/forge.rs"]
#[allow(dead_code)]
mod forge;
mod scene;
#[path = "../../../tests/support/tree.rs"]
#[allow(dead_code)]
mod tree;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use esker::check;
use esker::dump::{Archive, dump_archive};
use esker::format::tree::Entry;
use esker::id::SessionId;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::prune;
use esker::prune::plan::{Limits, Unused};
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::pack_writer::PackSettings;
use esker::repo::session::Session;
use esker::repo::snapshots::Filter;
use esker::repo::walk::Walk;
use esker::stats;

use self::build::Build;
use self::edit::edits;
use self::scene::{Restored, Scene};
use super::memory;

/// Bytes all threads together may take, whatever a small repository says.
const MEMORY_BYTES_MAX: usize = 256 << 20;
/// What claims to be more is gone through but not written.
const WRITTEN_BYTES_MAX: u64 = 1 << 20;
const ENTRIES_MAX: usize = 2000;

/// The repository, and what its snapshots restore to before anything is changed.
struct Base {
    scene: Scene,
    trees: BTreeMap<SessionId, Vec<String>>,
}

impl Base {
    fn new() -> Self {
        let mut scene = Scene::new();
        scene.begin();
        Build::run(&scene, &[]);
        let mut trees = BTreeMap::new();
        {
            let reader = Reader::without_cache(&scene.owner).expect("nothing is wrong with it");
            assert_eq!(checked(&reader, check::ReadData::All).expect("it can be").faults.len(), 0);
            for info in reader.snapshots(&Filter::default()).expect("it can be read").0 {
                let restored = scene.restore(&reader, &info.snapshot.root).expect("it is whole");
                assert_eq!((restored.report.problems, restored.files.is_empty()), (0, false));
                trees.insert(info.id(), restored.lines);
            }
        }
        assert_eq!(trees.len(), 2);
        Self { scene, trees }
    }
}

/// The target: see the top.
pub(super) fn repository(data: &[u8]) {
    static BASE: OnceLock<Mutex<Base>> = OnceLock::new();
    let mut base = BASE.get_or_init(|| Mutex::new(Base::new())).lock().unwrap_or_else(PoisonError::into_inner);
    let edits = edits(data);
    let peak = memory::peak_of_all(|| {
        base.scene.begin();
        let build = Build::run(&base.scene, &edits);
        if let Some(owner) = base.scene.open() {
            Visit { base: &base, build: &build, owner: &owner }.everything(data.len() % 4 == 3);
        }
    });
    assert!(peak <= MEMORY_BYTES_MAX, "{peak} bytes taken");
}

struct Visit<'b> {
    base: &'b Base,
    build: &'b Build<'b>,
    owner: &'b Repository,
}

impl Visit<'_> {
    fn everything(&self, and_collect: bool) {
        let Ok(reader) = Reader::without_cache(self.owner) else { return };
        let report = checked(&reader, check::ReadData::All);
        if report.as_ref().is_ok_and(|report| report.faults.is_empty()) {
            let structure = checked(&reader, check::ReadData::No).expect("more could be checked");
            assert!(structure.faults.is_empty(), "{structure:?}");
        }
        let _ = stats::repository(&reader);
        let Ok((snapshots, _)) = reader.snapshots(&Filter::default()) else { return };
        let mut whole = Vec::new();
        for info in snapshots {
            let restored = self.snapshot(&reader, info.id(), &info.snapshot.root, report.as_ref().ok());
            whole.extend(restored.filter(|restored| restored.report.problems == 0).map(|restored| (info, restored)));
        }
        drop(reader);
        if and_collect {
            self.nothing_rests_on_a_writer();
            let _ = prune::run(self.owner, &collecting(), &Monitor::silent(), |_| Ok(()));
            let Ok(reader) = Reader::without_cache(self.owner) else { return };
            for (info, before) in whole.iter().filter(|_| !self.build.by_owner) {
                let after = self.base.scene.restore(&reader, &info.snapshot.root).expect("it could be restored before");
                assert!(after.lines == before.lines && after.report.problems == 0, "a collection has taken something");
            }
        }
    }

    /// Reads all of one snapshot in every way; gives what was restored of it if it was.
    fn snapshot(
        &self,
        reader: &Reader<'_>,
        id: SessionId,
        root: &Entry,
        report: Option<&check::Report>,
    ) -> Option<Restored> {
        let original = self.base.trees.get(&id).filter(|_| !self.build.keyed);
        assert!(self.build.keyed || original.is_some(), "a snapshot that nobody with a key has made");
        let _ = stats::selection(reader, std::slice::from_ref(root), &[], &Monitor::silent());
        let _ = dump_archive(reader, root, &TreePath::root(), Archive::Tar, &mut Bounded(1 << 20), &Monitor::silent());
        // Listed before: what says it is too much is not written.
        let mut entries = Walk::below(reader, TreePath::root(), root);
        let listed: Vec<_> = entries.by_ref().take(ENTRIES_MAX).collect();
        let bytes = listed.iter().flatten().map(Entry::size).fold(0, u64::saturating_add);
        if entries.next().is_some() || bytes > WRITTEN_BYTES_MAX {
            return None;
        }
        let restored = self.base.scene.restore(reader, root).ok()?;
        let lost = restored.report.damaged_count + restored.report.directories_damaged;
        if let Some(report) = report {
            assert!(lost == 0 || !report.faults.is_empty(), "{:?}: and check finds nothing", restored.report);
            let affected = report.faults.iter().flat_map(|fault| &fault.affected).filter(|path| path.snapshot == id);
            for path in affected.map(|affected| &affected.path) {
                assert!(!restored.files.contains(path), "`{path}` restores: {:?}", report.faults);
            }
        }
        if let Some(original) = original {
            let changed = restored.lines.iter().find(|line| !original.contains(line));
            assert_eq!(changed, None, "it was another");
            assert!(
                restored.report.problems > 0 || restored.lines == *original,
                "something is missing and nobody says so"
            );
        }
        Some(restored)
    }

    /// A chunk that only the writer has stored is in a pack that nobody vouches for.
    fn nothing_rests_on_a_writer(&self) {
        if let Ok(session) = Session::begin(self.owner)
            && !self.build.by_owner
        {
            let own = self.base.scene.contents.iter().find(|stored| stored.bytes.len() == 500).expect("it is there");
            assert!(!session.may_reuse(&own.id), "an owner rests on what only a writer has stored");
            session.withdraw();
        }
    }
}

fn checked(reader: &Reader<'_>, read_data: check::ReadData) -> esker::error::Result<check::Report> {
    let options = check::Options { read_data, snapshot: None, threads: 1 };
    check::run(reader, &options, &Monitor::silent())
}

/// Rewrites whatever has a byte that nobody needs.
fn collecting() -> prune::Options {
    let limits =
        Limits { max_unused: Unused::Percent(0.0), join_bytes: 1, max_delete_percent: 100.0, ..Limits::default() };
    let packs = PackSettings { frame_bytes: 1 << 10, frames_in_work: 1, ..PackSettings::default() };
    prune::Options {
        limits,
        packs,
        patience: prune::PATIENCE,
        ignore_clock: true,
        close_lost: false,
        fold_from: 2,
        threads: 1,
    }
}

/// Takes so many bytes and then no more.
struct Bounded(usize);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
