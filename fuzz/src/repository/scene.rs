//! The repository before it is changed: contents that refer to each other, an owner's snapshot and a writer's.

use std::collections::BTreeSet;
use std::ops::{Deref, Range};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io};

use esker::chunk::cut::Parameters;
use esker::crypto::ident::ChunkKind;
use esker::crypto::key::SecretKey;
use esker::crypto::slot::KdfCost;
use esker::error::Result;
use esker::format::access::Role;
use esker::format::cbor;
use esker::format::session::Snapshot;
use esker::format::tree::{
    Content, Detail, DirectoryLink, DirectoryNode, Entry, Hole, ListLink, ListNode, Piece, Totals, Xattr,
};
use esker::id::{ChunkId, LinkGroup, SessionId};
use esker::monitor::Monitor;
use esker::path::{Name, TreePath};
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::{FirstKey, InitOptions, Local};
use esker::repo::secret::{KeyFile, Secret};
use esker::restore;
use esker::storage::memory::{Content as Objects, Memory};
use esker::world::{Clock, Time, World};

use super::forge::{entry, link, snapshot};
use super::tree;

/// Bytes of a file or a node. Each refers only to those before it.
pub(super) struct Stored {
    pub(super) kind: ChunkKind,
    pub(super) bytes: Vec<u8>,
    pub(super) id: ChunkId,
}

/// A session: which contents are in which frames of which packs, and its snapshot.
pub(super) struct Made {
    pub(super) by_owner: bool,
    pub(super) session: SessionId,
    pub(super) secret: SecretKey,
    pub(super) envelope: Vec<u8>,
    pub(super) packs: Vec<Vec<Vec<usize>>>,
    pub(super) snapshot: Snapshot,
}

pub(super) struct Scene {
    pub(super) memory: Memory,
    pub(super) owner: Repository,
    pub(super) writer: Repository,
    key: KeyFile,
    /// What there is before anything is backed up.
    pub(super) empty: Objects,
    pub(super) contents: Vec<Stored>,
    pub(super) sessions: Vec<Made>,
    scratch: PathBuf,
}

/// What a restore left: what it reports, each entry as a line, and the regular files among them.
pub(super) struct Restored {
    pub(super) report: restore::Report,
    pub(super) lines: Vec<String>,
    pub(super) files: BTreeSet<TreePath>,
}

/// A repository, opened when it was whole or as it is now.
pub(super) enum Opened<'s> {
    Before(&'s Repository),
    Now(Box<Repository>),
}

impl Deref for Opened<'_> {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        match self {
            Self::Before(owner) => owner,
            Self::Now(owner) => owner,
        }
    }
}

/// Time passes when it is looked at and when somebody waits, and then at once.
struct Quick(AtomicU64);

impl Clock for Quick {
    fn now(&self) -> Time {
        Time::from_secs(1_000_000_000 + self.monotonic().as_secs().cast_signed())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(100, Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) {
        self.0.fetch_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2), Ordering::Relaxed);
    }
}

/// A world that repeats and in which nobody waits.
fn world(seed: u64) -> World {
    struct Seeded(World);
    impl esker::world::Rng for Seeded {
        fn fill(&self, bytes: &mut [u8]) {
            self.0.fill(bytes);
        }
    }
    World::new(Arc::new(Quick(AtomicU64::new(0))), Arc::new(Seeded(World::seeded(seed))))
}

impl Scene {
    pub(super) fn new() -> Self {
        let memory = Memory::new();
        let options = InitOptions {
            parity_percent: 0,
            key: FirstKey::KeyFile,
            kdf: KdfCost::FLOOR,
            chunker: Parameters::with_average(512),
            label: "owner".into(),
            like: None,
        };
        let made = Repository::init(Arc::new(memory.clone()), world(1), &options, Local::default());
        let (owner, key) = made.expect("nothing stands in its way");
        let key = key.expect("it was asked for");
        let writer = owner.add_member(Role::Writer, "writer", None).expect("an owner may");
        let [owner, writer] = [&key, &writer].map(|key| open(&memory, key, 2).expect("it was just made"));
        let (contents, sessions) = contents(&owner, &writer);
        let shm = Path::new("/dev/shm");
        let place = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let scratch = place.join(format!("esker-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(scratch.join("beside")).expect("the place can be written to");
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o700)).expect("it is one's own");
        fs::write(scratch.join("beside/precious"), PRECIOUS).expect("the place can be written to");
        let empty = memory.snapshot();
        Self { memory, owner, writer, key, empty, contents, sessions, scratch }
    }

    /// As it was in the beginning, randomness and time included.
    pub(super) fn begin(&mut self) {
        self.memory.restore(self.empty.clone());
        (self.owner.world, self.writer.world) = (world(3), world(4));
    }

    /// The repository as its owner opens it now, if it can be. Where nothing of that was changed it was open before,
    /// for opening takes long.
    pub(super) fn open(&self) -> Option<Opened<'_>> {
        let now = self.memory.snapshot();
        let of_keys = |objects: &'_ Objects| {
            let folders = ["config", "access/", "keys/", "copies/"];
            let all = objects.iter().filter(|(name, _)| folders.iter().any(|folder| name.starts_with(folder)));
            all.map(|(name, bytes)| (name.clone(), bytes.clone())).collect::<Vec<_>>()
        };
        if of_keys(&now) == of_keys(&self.empty) {
            return Some(Opened::Before(&self.owner));
        }
        open(&self.memory, &self.key, 5).ok().map(|owner| Opened::Now(Box::new(owner)))
    }

    /// Restores a tree. Nothing is written beside the target.
    pub(super) fn restore(&self, reader: &Reader<'_>, root: &Entry) -> Result<Restored> {
        let target = self.scratch.join("target");
        let spill = self.scratch.clone();
        let options = restore::Options { threads: 1, numeric_ids: true, spill, ..restore::Options::new(&target) };
        let report = restore::run(reader, root, &TreePath::root(), &options, &Monitor::silent());
        let files = regular_files(&target);
        // What a hostile mode has closed is read by nobody but root.
        let read = rustix::process::geteuid().is_root() && target.is_dir();
        // The target itself is nobody's.
        let lines = if read { tree::lines(&target).split_off(1) } else { Vec::new() };
        remove(&target);
        let left: Vec<_> =
            fs::read_dir(&self.scratch).expect("it is there").map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["beside"], "something was written beside the target");
        let precious = self.scratch.join("beside/precious");
        assert_eq!(fs::read(&precious).expect("it stays"), PRECIOUS, "what is beside the target has changed");
        assert_eq!(fs::metadata(&precious).expect("it stays").nlink(), 1, "what is beside the target has another name");
        report.map(|report| Restored { report, lines, files })
    }
}

const PRECIOUS: &[u8] = b"precious";

fn open(memory: &Memory, key: &KeyFile, seed: u64) -> Result<Repository> {
    Repository::open(Arc::new(memory.clone()), world(seed), &Secret::KeyFile(key.clone()), Local::default())
}

/// The paths of regular files; what cannot be listed has none.
fn regular_files(top: &Path) -> BTreeSet<TreePath> {
    let (mut files, mut open) = (BTreeSet::new(), vec![top.to_owned()]);
    while let Some(directory) = open.pop() {
        for found in fs::read_dir(&directory).into_iter().flatten().filter_map(io::Result::ok) {
            match found.file_type() {
                Ok(kind) if kind.is_dir() => open.push(found.path()),
                Ok(kind) if kind.is_file() => {
                    let path = Path::new("/").join(found.path().strip_prefix(top).expect("it is below"));
                    files.insert(TreePath::from_os(&path).expect("it was one"));
                }
                _ => {}
            }
        }
    }
    files
}

/// Removes a tree whatever modes its directories have.
fn remove(target: &Path) {
    if fs::remove_dir_all(target).is_err() && target.exists() {
        let mut open = vec![target.to_owned()];
        while let Some(path) = open.pop() {
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o700));
            let below = fs::read_dir(&path).into_iter().flatten().filter_map(io::Result::ok);
            open.extend(
                below.map(|found| found.path()).filter(|path| path.symlink_metadata().is_ok_and(|m| m.is_dir())),
            );
        }
        fs::remove_dir_all(target).expect("what was restored can be removed");
    }
}

/// Collects contents as trees are built of them.
struct Contents<'r> {
    owner: &'r Repository,
    all: Vec<Stored>,
}

impl Contents<'_> {
    fn add(&mut self, kind: ChunkKind, bytes: Vec<u8>) -> ChunkId {
        let id = self.owner.keys.ids.chunk(kind, &bytes);
        self.all.push(Stored { kind, bytes, id });
        id
    }

    fn data(&mut self, seed: u8, length: u32) -> Piece {
        let bytes = (0..length).map(|n| seed.wrapping_mul(31).wrapping_add((n / 3) as u8)).collect();
        Piece::Chunk { id: self.add(ChunkKind::Data, bytes), bytes: length }
    }

    fn list(&mut self, node: &ListNode) -> ListLink {
        let bytes = match node {
            ListNode::Pieces(pieces) => pieces.iter().map(Piece::bytes).sum(),
            ListNode::Links { links, .. } => links.iter().map(|link| link.bytes).sum(),
        };
        ListLink { id: self.add(ChunkKind::List, cbor::encode(node)), bytes }
    }

    /// A node of these entries, and what they are in all.
    fn node(&mut self, entries: Vec<Entry>) -> (DirectoryLink, Totals) {
        let mut totals = Totals::default();
        entries.iter().for_each(|entry| totals.add(entry.totals()));
        let first = entries.first().and_then(|entry| entry.name.clone());
        let first = first.unwrap_or_else(|| Name::new(*b"none").expect("it is a name"));
        let id = self.add(ChunkKind::Directory, cbor::encode(&DirectoryNode::Entries(entries)));
        (DirectoryLink { first, id }, totals)
    }

    fn directory(&mut self, name: &str, entries: Vec<Entry>) -> Entry {
        let (DirectoryLink { id, .. }, totals) = self.node(entries);
        entry(name, Detail::Directory { id, level: 0, totals, incomplete: false })
    }
}

fn file(name: &str, pieces: Vec<Piece>, holes: Vec<Hole>) -> Entry {
    let size = pieces.iter().map(Piece::bytes).sum();
    entry(name, Detail::File { size, content: Content::Inline(pieces), holes })
}

/// Everything a tree can have: files of several chunks, of lists of lists, with zeros and holes; a directory of
/// several nodes; links of both kinds; attributes. The writer has something of its own beside what the owner has.
fn contents(owner: &Repository, writer: &Repository) -> (Vec<Stored>, Vec<Made>) {
    let mut contents = Contents { owner, all: Vec::new() };
    let (a, b, c) = (contents.data(1, 100), contents.data(2, 700), contents.data(3, 333));
    let leaf = contents.list(&ListNode::Pieces(vec![a, Piece::Zeros { bytes: 70_000 }, b]));
    let other = contents.list(&ListNode::Pieces(vec![c, c, a]));
    let list = contents.list(&ListNode::Links { level: 1, links: vec![leaf, other, leaf] });
    let content = Content::List { id: list.id, level: 1 };
    let listed = entry("list", Detail::File { size: list.bytes, content, holes: vec![] });
    let inner = contents.directory("inner", vec![file("x", vec![a, b], vec![]), link("y", "../up")]);
    let empty = contents.directory("empty", vec![]);
    let linked = ["l1", "l2"].map(|name| {
        let mut linked = file(name, vec![c], vec![]);
        linked.attributes.link_group = Some(LinkGroup::from_bytes([7; 16]));
        linked
    });
    let mut special = file("special", vec![b], vec![]);
    special.attributes.xattrs = vec![Xattr { name: b"user.a".to_vec(), value: vec![1, 2, 3] }];
    special.attributes.mode = 0o4755;
    let sparse = vec![a, Piece::Zeros { bytes: 80_000 }, c];
    let sparse = file("sparse", sparse, vec![Hole { offset: 4096, bytes: 65_536 }]);
    let [l1, l2] = linked;
    let (first, mut totals) = contents.node(vec![empty, inner.clone(), l1, l2]);
    let (second, more) = contents.node(vec![listed, entry("pipe", Detail::Fifo), sparse, special]);
    totals.add(more);
    let top = cbor::encode(&DirectoryNode::Links { level: 1, links: vec![first, second] });
    let id = contents.add(ChunkKind::Directory, top);
    let root = entry("", Detail::Directory { id, level: 1, totals, incomplete: false });
    let owners = contents.all.len();
    let d = contents.data(4, 500);
    let again = contents.directory("again", vec![file("mine", vec![d, a], vec![]), link("to", "/etc/passwd")]);
    let of_writer = contents.directory("", vec![again, inner]);

    let all = contents.all;
    let of = |kind, range: Range<usize>| range.filter(|n| all[*n].kind == kind).collect::<Vec<_>>();
    let (data, list, directory) = (ChunkKind::Data, ChunkKind::List, ChunkKind::Directory);
    let of_owner = vec![vec![of(data, 0..2), of(data, 2..owners)], vec![of(list, 0..owners), of(directory, 0..owners)]];
    let mine = vec![vec![of(data, owners..all.len()), of(directory, owners..all.len())]];
    let made = |by_owner: bool, packs, root| {
        let repo = if by_owner { owner } else { writer };
        let session = SessionId::from_bytes([1 + u8::from(by_owner); 16]);
        let secret = SecretKey::from_bytes(&repo.world.random());
        let envelope = repo.keys.seal_session_secret(&repo.world, &session, &secret).expect("it holds what it takes");
        Made { by_owner, session, secret, envelope, packs, snapshot: snapshot(root) }
    };
    let sessions = vec![made(true, of_owner, root), made(false, mine, of_writer)];
    (all, sessions)
}
