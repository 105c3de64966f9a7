//! Risk: who reads beside collections says that a chunk is gone which they have only moved; or, in a repository
//! that has lost something, looks through all of it again for each chunk that is gone.
//! Method: one reader reads a file at a time, and between two everything is moved, so that each file was moved more
//! often than the one before; packs are taken away, and the calls are counted.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::format::tree::{Detail, Entry};
use esker::id::ChunkId;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::prune::plan::Limits;
use esker::prune::{self, Options};
use esker::repo::content::Reader;
use esker::repo::reader::{Pieces, ReadRepo, find};
use esker::repo::snapshots::Filter;
use esker::storage::Storage;
use esker::storage::memory::Memory;
use esker::storage::record::{Operation, Recording};
use repo::{Scene, noise};

const FILES: u64 = 5;

fn scene(storage: Arc<dyn Storage>) -> Scene {
    let scene = Scene::finely_cut(storage, 1 << 10, 5).with_tiny_packs();
    for n in 0..FILES {
        fs::write(scene.source().join(format!("file-{n}")), noise(n, 12_000)).unwrap();
    }
    scene.backup();
    scene
}

/// A collection that writes every pack anew: all of them are small, and joined.
fn move_everything(scene: &Scene) {
    let options = Options {
        limits: Limits { small_pack_bytes: u64::MAX, join_bytes: 0, ..Limits::default() },
        packs: scene.packs,
        patience: Duration::ZERO,
        ignore_clock: false,
        close_lost: false,
        fold_from: 64,
        threads: 1,
    };
    let packs = |scene: &Scene| scene.open().list_packs().unwrap().into_keys().collect::<BTreeSet<_>>();
    let before = packs(scene);
    prune::run(&scene.open(), &options, &Monitor::silent(), |_| Ok(())).unwrap();
    // What holds the copy of a snapshot's record alone stays.
    let stayed = packs(scene).intersection(&before).count();
    assert!(stayed <= 1 && before.len() > 5, "{stayed} of {}", before.len());
}

fn entry(scene: &Scene, reader: &Reader<'_>, n: u64) -> Entry {
    let info = reader.find_snapshot("latest", &Filter::default()).unwrap();
    let path = TreePath::from_os(&scene.source().join(format!("file-{n}"))).unwrap();
    find(reader, &info.snapshot.root, &path).unwrap()
}

fn chunks(reader: &Reader<'_>, entry: &Entry) -> Vec<ChunkId> {
    let Detail::File { content, .. } = &entry.detail else { panic!("{entry:?}") };
    let id = |piece| match piece {
        esker::format::tree::Piece::Chunk { id, .. } => Some(id),
        _ => None,
    };
    Pieces::new(reader, content).filter_map(|piece| id(piece.unwrap())).collect()
}

#[test]
fn what_was_moved_more_than_once_since_a_reader_began_is_found() {
    for is_cached in [true, false] {
        let memory = Memory::new();
        let scene = scene(Arc::new(memory.clone()));
        let repo = scene.open();
        let reader = if is_cached { Reader::new(&repo) } else { Reader::without_cache(&repo) }.unwrap();
        let other = scene.over(Arc::new(memory.clone())).caching_in(scene.dir().join("other"));
        for n in 0..FILES {
            let read: Vec<u8> = chunks(&reader, &entry(&scene, &reader, n))
                .iter()
                .flat_map(|id| {
                    // Between two chunks of a file, too.
                    let bytes = reader.chunk(id).unwrap_or_else(|error| panic!("file {n}: {error:?}"));
                    assert!(reader.verify(id, &bytes));
                    bytes
                })
                .collect();
            assert_eq!(read, noise(n, 12_000), "file {n}");
            move_everything(&other);
        }
    }
}

#[test]
fn a_repository_that_has_lost_packs_is_looked_through_once_and_not_for_each_chunk() {
    let memory = Memory::new();
    let storage = Recording::new(Arc::new(memory.clone()));
    let scene = scene(Arc::new(storage.clone()));
    let repo = scene.open();
    let reader = Reader::new(&repo).unwrap();
    let wanted: Vec<_> = (0..FILES).flat_map(|n| chunks(&reader, &entry(&scene, &reader, n))).collect();
    let packs: BTreeSet<u32> = wanted.iter().map(|id| reader.places(id).next().unwrap().row.pack).collect();
    for pack in &packs {
        memory.delete(&esker::repo::session::pack_name(&reader.pack(*pack).unwrap().id)).unwrap();
    }
    assert!(wanted.len() > 3 * packs.len(), "{} chunks in {}", wanted.len(), packs.len());
    storage.clear();
    for id in &wanted {
        assert!(reader.chunk(id).unwrap_err().with_causes().contains("not found"));
    }
    let commits = storage.names(Operation::Get).iter().filter(|name| name.starts_with("snapshots/")).count();
    assert!(commits <= 2, "{commits}: one look reads a commit twice, its head and its index");
    let asked = storage.names(Operation::List).iter().filter(|name| *name == "snapshots/").count();
    assert!(asked <= 2 + packs.len(), "{asked} times for {} packs", packs.len());
}
