//! The risk: a storage that keeps less than it acknowledged, or shows what it should not.
//! The method: what [`Storage`] promises in words, run on every implementation in [`STORAGES`]
//! and on every real server that `tests/servers/up` started, each below a prefix of its own.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};
use std::thread;

use esker::storage::fault::{Faulty, Plan};
use esker::storage::local::Local;
use esker::storage::memory::Memory;
use esker::storage::record::Recording;
use esker::storage::remote::{self, Settings};
use esker::storage::retry::{Policy, Retrying};
use esker::storage::throttle::Throttled;
use esker::storage::{ErrorKind, Result, Storage, WriteMode};
use support::servers::{self, Server};

#[path = "support/fusefs.rs"]
mod fusefs;

use WriteMode::{CreateNew, Replace};

#[path = "support"]
mod support {
    #[allow(dead_code)] // each test file uses a part of it
    pub(crate) mod servers;
}

/// An empty storage, and what must live as long as it.
struct Scene {
    storage: Arc<dyn Storage>,
    _home: Option<Box<dyn Any>>,
    /// Whether it refuses to create what is there already.
    creates_exactly: bool,
    /// Whether who reads while an object is replaced always finds one of the versions.
    replaces_at_once: bool,
}

impl Scene {
    fn of(storage: impl Storage + 'static) -> Self {
        Self::around(Arc::new(storage), None)
    }

    fn around(storage: Arc<dyn Storage>, home: Option<Box<dyn Any>>) -> Self {
        Self { storage, _home: home, creates_exactly: true, replaces_at_once: true }
    }

    fn at(server: &Server) -> Self {
        let settings = Settings { options: server.options.clone(), ..Settings::default() };
        let storage = remote::create(&server.fresh_url(), &settings).expect("the server's URL makes sense");
        Self {
            creates_exactly: server.create_new == servers::CreateNew::Exact,
            // Some WebDAV servers remove the old object before they move the new one.
            replaces_at_once: !["webdav", "weak-s3"].contains(&&*server.kind),
            ..Self::around(storage, None)
        }
    }

    /// Leaves nothing on a server that other tests use.
    fn clean(&self) {
        for object in self.storage.list("").unwrap() {
            self.storage.delete(&object.name).unwrap();
        }
    }
}

/// Opens an empty storage; `None`, aloud, where this machine cannot.
type Open = fn() -> Option<Scene>;

/// Every storage of this machine. A new one needs a line here and nothing else.
const STORAGES: &[(&str, Open)] = &[
    ("local", || Some(local())),
    ("local on exFAT", || local_on(&fusefs::EXFAT)),
    ("local on a stick behind FUSE", || local_on(&fusefs::FUSE_STICK)),
    ("local on CIFS", || local_on(&fusefs::CIFS)),
    ("local on NFS", || local_on(&fusefs::NFS)),
    ("memory", || Some(Scene::of(Memory::new()))),
    ("recording", || Some(Scene::of(Recording::new(Arc::new(Memory::new()))))),
    ("faulty", || Some(Scene::of(Faulty::new(Arc::new(Memory::new()), Plan::none())))),
    ("retrying", || Some(Scene::of(Retrying::new(Arc::new(Memory::new()), Policy::default())))),
    ("throttled", || Some(Scene::of(Throttled::new(Arc::new(Memory::new()), Some(1 << 40), Some(1 << 40))))),
    ("all three", || {
        let Scene { storage, _home, .. } = local();
        let faulty = Faulty::new(storage, Plan::none());
        Some(Scene::around(Arc::new(Recording::new(Arc::new(faulty))), _home))
    }),
];

fn local() -> Scene {
    let home = tempfile::tempdir().unwrap();
    let storage = Arc::new(Local::create(home.path().join("repository")).unwrap());
    Scene::around(storage, Some(Box::new(home)))
}

fn local_on(profile: &'static fusefs::Profile) -> Option<Scene> {
    let mount = fusefs::Mount::new(profile)?;
    // Not made as a repository's is: 256 directories each time take their time.
    let storage = Arc::new(Local::open(mount.path()).unwrap());
    Some(Scene::around(storage, Some(Box::new(mount))))
}

/// Runs a test on each storage. What it prints is seen when the test fails.
#[expect(clippy::print_stdout, reason = "names the storage a failure belongs to")]
fn each_scene(test: impl Fn(&Scene)) {
    for (name, open) in STORAGES {
        println!("storage: {name}");
        if let Some(scene) = open() {
            test(&scene);
        }
    }
    for server in servers::each_kind() {
        println!("storage: {}", server.name);
        let scene = Scene::at(&server);
        test(&scene);
        scene.clean();
    }
}

fn each(test: impl Fn(&Arc<dyn Storage>)) {
    each_scene(|scene| test(&scene.storage));
}

/// Those that can tell whether an object is there already, and do.
fn each_that_creates_exactly(test: impl Fn(&Arc<dyn Storage>)) {
    each_scene(|scene| {
        if scene.creates_exactly {
            test(&scene.storage);
        }
    });
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("this call fails").kind()
}

fn list(storage: &Arc<dyn Storage>, prefix: &str) -> Vec<(String, u64)> {
    storage.list(prefix).unwrap().into_iter().map(|listed| (listed.name, listed.bytes)).collect()
}

fn names(storage: &Arc<dyn Storage>, prefix: &str) -> Vec<String> {
    storage.list(prefix).unwrap().into_iter().map(|listed| listed.name).collect()
}

/// Bytes without a pattern, the same at each run.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn an_object_is_read_listed_and_measured_once_it_is_put() {
    each(|storage| {
        storage.put("packs/9f/9f3c", b"hello", CreateNew).unwrap();
        storage.put("config", b"", CreateNew).unwrap();
        assert_eq!(storage.get("packs/9f/9f3c").unwrap(), b"hello");
        assert_eq!(storage.get("config").unwrap(), b"");
        assert_eq!(storage.stat("packs/9f/9f3c").unwrap(), 5);
        assert_eq!(storage.stat("config").unwrap(), 0);
        assert_eq!(list(storage, ""), [("config".to_owned(), 0), ("packs/9f/9f3c".to_owned(), 5)]);
        storage.barrier().unwrap();
        storage.barrier().unwrap();
        assert_eq!(storage.get("packs/9f/9f3c").unwrap(), b"hello");
    });
}

#[test]
fn a_range_is_exact_or_an_error() {
    each(|storage| {
        storage.put("a", b"0123456789", CreateNew).unwrap();
        // Into memory that held more, or less, it is the same.
        let range = |offset, length| {
            let whole = storage.get_range("a", offset, length);
            for held in [0, 3, 100] {
                let mut into = vec![7; held];
                match (storage.get_range_into("a", offset, length, &mut into), &whole) {
                    (Ok(()), Ok(bytes)) => assert_eq!(into, *bytes, "{length} from {offset}"),
                    (Err(error), Err(other)) => assert_eq!(error.kind(), other.kind(), "{length} from {offset}"),
                    (into, whole) => panic!("{length} from {offset}: {into:?} and {whole:?}"),
                }
            }
            whole
        };
        assert_eq!(range(0, 10).unwrap(), b"0123456789");
        assert_eq!(range(3, 4).unwrap(), b"3456");
        assert_eq!(range(9, 1).unwrap(), b"9");
        assert_eq!(range(10, 0).unwrap(), b"");
        for (offset, length) in [(0, 11), (9, 2), (10, 1), (11, 0), (u64::MAX, 1), (1, u64::MAX), (0, u64::MAX)] {
            assert_eq!(kind(range(offset, length)), ErrorKind::Corrupt, "{length} from {offset}");
        }
    });
}

#[test]
fn a_new_object_does_not_replace_another() {
    each_that_creates_exactly(|storage| {
        storage.put("a", b"first", CreateNew).unwrap();
        assert_eq!(kind(storage.put("a", b"second", CreateNew)), ErrorKind::Exists);
        let mut writer = storage.writer().unwrap();
        writer.write(b"third").unwrap();
        assert_eq!(kind(writer.finish("a", CreateNew)), ErrorKind::Exists);
        assert_eq!(storage.get("a").unwrap(), b"first");
    });
}

#[test]
fn a_replacement_takes_the_place_of_what_was_there() {
    each(|storage| {
        storage.put("alive/a", b"a longer one", Replace).unwrap();
        storage.put("alive/a", b"short", Replace).unwrap();
        assert_eq!(storage.get("alive/a").unwrap(), b"short");
        assert_eq!(list(storage, "alive/"), [("alive/a".to_owned(), 5)]);
        let mut writer = storage.writer().unwrap();
        writer.write(b"streamed").unwrap();
        writer.finish("alive/a", Replace).unwrap();
        assert_eq!(storage.get("alive/a").unwrap(), b"streamed");
    });
}

#[test]
fn of_sixteen_creators_of_one_name_exactly_one_wins() {
    const THREADS: u8 = 16;
    each_that_creates_exactly(|storage| {
        for round in 0..4 {
            let name = format!("round-{round}/object");
            let start = Barrier::new(usize::from(THREADS));
            let create = |me: u8| {
                start.wait();
                storage.put(&name, &[me; 1000], CreateNew).map(|()| me).map_err(|error| error.kind())
            };
            let results: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|me| scope.spawn(move || create(me))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let winners: Vec<u8> = results.iter().filter_map(|result| result.ok()).collect();
            let &[winner] = &winners[..] else { panic!("winners: {winners:?}") };
            assert_eq!(storage.get(&name).unwrap(), [winner; 1000]);
            let others = results.iter().filter_map(|result| result.err());
            assert!(others.clone().all(|kind| kind == ErrorKind::Exists), "{:?}", others.collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_deleted_object_is_gone_and_its_name_is_free() {
    each(|storage| {
        storage.put("index/a", b"x", CreateNew).unwrap();
        storage.put("index/b", b"y", CreateNew).unwrap();
        storage.delete("index/a").unwrap();
        assert_eq!(kind(storage.get("index/a")), ErrorKind::NotFound);
        assert_eq!(names(storage, ""), ["index/b"]);
        assert_eq!(kind(storage.delete("index/a")), ErrorKind::NotFound);
        storage.barrier().unwrap();
        storage.put("index/a", b"z", CreateNew).unwrap();
        assert_eq!(storage.get("index/a").unwrap(), b"z");
    });
}

#[test]
fn what_is_not_there_is_not_found_by_any_call() {
    each(|storage| {
        storage.put("index/a", b"x", CreateNew).unwrap();
        for name in ["config", "index", "index/b", "index/a/b", "packs/00/00", "no/such/place"] {
            assert_eq!(kind(storage.get(name)), ErrorKind::NotFound, "{name}");
            assert_eq!(kind(storage.get_range(name, 0, 1)), ErrorKind::NotFound, "{name}");
            assert_eq!(kind(storage.stat(name)), ErrorKind::NotFound, "{name}");
            assert_eq!(kind(storage.delete(name)), ErrorKind::NotFound, "{name}");
        }
    });
}

#[test]
fn a_list_is_in_name_order_and_keeps_to_its_prefix() {
    each(|storage| {
        let all = ["a", "a-/z", "a.b", "ab/c", "ab0", "b/a/1", "b/a/10", "b/a/2", "b/b", "b0/a"];
        for name in ["b/a/2", "a.b", "ab0", "b/b", "a-/z", "b/a/10", "a", "b0/a", "ab/c", "b/a/1"] {
            storage.put(name, name.as_bytes(), CreateNew).unwrap();
        }
        assert_eq!(names(storage, ""), all);
        assert_eq!(names(storage, "b/"), all[5..9]);
        assert_eq!(names(storage, "b/a/"), all[5..8]);
        assert_eq!(list(storage, "ab/"), [("ab/c".to_owned(), 4)]);
    });
}

#[test]
fn a_list_of_nothing_is_empty() {
    each(|storage| {
        assert!(names(storage, "").is_empty());
        assert!(names(storage, "packs/").is_empty());
        assert!(names(storage, "no/such/place/").is_empty());
        storage.put("a", b"x", CreateNew).unwrap();
        assert!(names(storage, "a/").is_empty(), "an object is not a prefix");
    });
}

#[test]
fn odd_but_legal_names_are_kept_apart() {
    each(|storage| {
        let long = format!("{}/{}", "x".repeat(200), "0".repeat(255));
        let odd = ["0", "-", "_", "a.", "a..b", "a.b-c_d", "con", "tmp2", "x/tmp", "x/y/z/w/v", &long];
        for name in odd {
            storage.put(name, name.as_bytes(), CreateNew).unwrap();
        }
        for name in odd {
            assert_eq!(storage.get(name).unwrap(), name.as_bytes());
        }
        assert_eq!(names(storage, "").into_iter().collect::<BTreeSet<_>>(), odd.map(str::to_owned).into());
    });
}

#[test]
fn illegal_names_are_refused_by_every_call() {
    each(|storage| {
        for name in ["", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/.b", "A", "a b", "ü", "a\0b", "tmp/a"] {
            assert_eq!(kind(storage.put(name, b"x", CreateNew)), ErrorKind::Io, "{name:?}");
            assert_eq!(kind(storage.writer().unwrap().finish(name, Replace)), ErrorKind::Io, "{name:?}");
            assert_eq!(kind(storage.get(name)), ErrorKind::Io, "{name:?}");
            assert_eq!(kind(storage.get_range(name, 0, 0)), ErrorKind::Io, "{name:?}");
            assert_eq!(kind(storage.stat(name)), ErrorKind::Io, "{name:?}");
            assert_eq!(kind(storage.delete(name)), ErrorKind::Io, "{name:?}");
        }
        for prefix in ["/", "a", "../", "a//", "a/../", "A/"] {
            assert_eq!(kind(storage.list(prefix)), ErrorKind::Io, "{prefix:?}");
        }
        assert!(names(storage, "").is_empty());
    });
}

#[test]
fn a_large_object_is_put_whole_and_streamed_whole() {
    let bytes = noise(8 << 20);
    each(|storage| {
        storage.put("packs/00/put", &bytes, CreateNew).unwrap();
        let mut writer = storage.writer().unwrap();
        // Pieces of uneven lengths, some of them empty.
        let (mut rest, mut piece) = (&bytes[..], 0);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            writer.write(now).unwrap();
            (rest, piece) = (later, piece * 3 % 1_000_003 + 1);
        }
        writer.finish("packs/01/streamed", CreateNew).unwrap();
        for name in ["packs/00/put", "packs/01/streamed"] {
            assert!(storage.get(name).unwrap() == bytes, "{name}");
            assert!(storage.get_range(name, 5 << 20, 1 << 20).unwrap() == bytes[5 << 20..6 << 20], "{name}");
        }
        assert_eq!(list(storage, "packs/").len(), 2);
    });
}

#[test]
fn a_writer_dropped_or_not_yet_finished_shows_nothing() {
    each(|storage| {
        let mut dropped = storage.writer().unwrap();
        dropped.write(b"never").unwrap();
        drop(dropped);
        let mut open = storage.writer().unwrap();
        open.write(b"later").unwrap();
        assert!(names(storage, "").is_empty());
        open.finish("a", CreateNew).unwrap();
        assert_eq!(storage.get("a").unwrap(), b"later");
        storage.writer().unwrap().finish("empty", CreateNew).unwrap();
        assert_eq!(list(storage, ""), [("a".to_owned(), 5), ("empty".to_owned(), 0)]);
    });
}

#[test]
fn puts_lists_and_barriers_from_many_threads_lose_nothing() {
    each(|storage| {
        thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for number in 0..12 {
                        let name = format!("packs/{thread:02x}/{number:02}");
                        storage.put(&name, name.as_bytes(), CreateNew).unwrap();
                        assert_eq!(storage.get(&name).unwrap(), name.as_bytes());
                        let listed = names(storage, &format!("packs/{thread:02x}/"));
                        assert_eq!(listed.len(), number + 1, "list after write");
                    }
                    storage.barrier().unwrap();
                });
            }
        });
        assert_eq!(names(storage, "packs/").len(), 96);
    });
}

/// A list of more names than S3 gives at once is whole, in order and without one twice.
#[test]
fn a_list_of_several_pages_is_whole() {
    const OBJECTS: usize = 1030;
    let names_of = |thread: usize| (thread..OBJECTS).step_by(16).map(|number| format!("packs/{number:04}"));
    for server in ["s3", "weak-s3"].into_iter().flat_map(servers::of_kind) {
        let scene = Scene::at(&server);
        thread::scope(|scope| {
            for thread in 0..16 {
                let storage = &scene.storage;
                scope.spawn(move || names_of(thread).for_each(|name| storage.put(&name, b"x", CreateNew).unwrap()));
            }
        });
        let expected: Vec<_> = (0..OBJECTS).map(|number| (format!("packs/{number:04}"), 1)).collect();
        assert_eq!(list(&scene.storage, ""), expected);
        assert_eq!(list(&scene.storage, "packs/"), expected);
        thread::scope(|scope| {
            for thread in 0..16 {
                let storage = &scene.storage;
                scope.spawn(move || names_of(thread).for_each(|name| storage.delete(&name).unwrap()));
            }
        });
        scene.clean();
    }
}

/// A reader beside a writer that replaces an object sees one whole version or another.
#[test]
fn a_replaced_object_is_never_seen_in_part() {
    each_scene(|scene| {
        let storage = &scene.storage;
        storage.put("alive/a", &[0; 50_000], Replace).unwrap();
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for version in 1..40_u8 {
                    storage.put("alive/a", &vec![version; 50_000 + usize::from(version)], Replace).unwrap();
                }
            });
            while !writer.is_finished() {
                let seen = match storage.get("alive/a") {
                    Err(error) if error.kind() == ErrorKind::NotFound && !scene.replaces_at_once => continue,
                    seen => seen.unwrap(),
                };
                let is_whole = seen.len() == 50_000 + usize::from(seen[0]) && seen.iter().all(|byte| *byte == seen[0]);
                // Such a server, under load, was seen to give the new bytes in the old length. What is
                // replaced ends with its digest, and is a hint or a cache.
                assert!(is_whole || !scene.replaces_at_once, "{} bytes, the first {}", seen.len(), seen[0]);
            }
        });
    });
}
