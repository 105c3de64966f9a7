//! One repository of the museum, copied so that nothing touches the original.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker::backup;
use esker::check;
use esker::format::access::Role;
use esker::format::session::CommitKind;
use esker::format::tree::{Content, Detail, Piece};
use esker::id::SessionId;
use esker::monitor::Monitor;
use esker::path::TreePath;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::Local;
use esker::repo::pack_writer::PackSettings;
use esker::repo::reader::Pieces;
use esker::repo::secret::Secret;
use esker::repo::snapshots::Filter;
use esker::repo::walk::Walk;
use esker::restore;
use esker::source::walk::WalkOptions;
use esker::storage::local::Local as LocalStorage;

use super::repo::later;
use super::tree;

/// Where the repositories are.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/repositories")
}

pub(crate) struct Museum {
    original: PathBuf,
    dir: tempfile::TempDir,
}

/// Copies files and the directories they are in, which is what a checkout by git has.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => assert!(fs::copy(&path, &target).is_ok()),
        }
    }
}

impl Museum {
    /// A copy of the repository of that name, that may be written to.
    pub(crate) fn copy_of(name: &str) -> Self {
        Self::at(directory().join(name))
    }

    /// The same of one somewhere else.
    pub(crate) fn at(original: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(&original.join("repository"), &dir.path().join("repository"));
        Self { original, dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Every file of it, as committed.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut open) = (Vec::new(), vec![self.original.clone()]);
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { files.push(path) }
            }
        }
        files
    }

    fn text(&self, name: &str) -> String {
        let path = self.original.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn key_file(&self, name: &str) -> Secret {
        Secret::KeyFile(self.text(name).parse().unwrap())
    }

    /// What unlocks it for an owner.
    pub(crate) fn owner(&self) -> Secret {
        self.key_file("owner.key")
    }

    /// All that unlocks it.
    pub(crate) fn secrets(&self) -> Vec<(&'static str, Secret)> {
        vec![
            ("owner", self.owner()),
            ("second owner", self.key_file("second-owner.key")),
            ("password", Secret::password(self.text("password").trim_end())),
            ("writer", self.key_file("writer.key")),
        ]
    }

    /// What restoring gave when it was made.
    pub(crate) fn manifest(&self) -> String {
        self.text("manifest")
    }

    pub(crate) fn open(&self, secret: &Secret) -> Repository {
        let storage = Arc::new(LocalStorage::open(self.dir().join("repository")).unwrap());
        Repository::open(storage, later(), secret, Local::default()).unwrap()
    }

    /// Reads every stored byte and finds nothing wrong.
    pub(crate) fn is_sound(&self, repo: &Repository, when: &str) {
        let reader = Reader::without_cache(repo).unwrap();
        let options = check::Options { read_data: check::ReadData::All, snapshot: None, threads: 2 };
        let report = check::run(&reader, &options, &Monitor::silent()).unwrap();
        assert!(report.faults.is_empty() && report.notes.is_empty(), "{when}: {report:?}");
        assert!(report.packs > 0 && report.packs_read == report.packs, "{when}: {report:?}");
    }

    pub(crate) fn restore(&self, repo: &Repository, id: &SessionId, base: &Path, target: &Path) {
        let reader = Reader::without_cache(repo).unwrap();
        let info = reader.find_snapshot(&id.to_string(), &Filter::default()).unwrap();
        let base = TreePath::from_os(base).unwrap();
        let options = restore::Options::new(target);
        let report = restore::run(&reader, &info.snapshot.root, &base, &options, &Monitor::silent()).unwrap();
        assert_eq!(report.problems, 0, "{id}: {report:?}");
    }

    /// What restoring every snapshot gives now, in the manifest's form.
    pub(crate) fn restored(&self, repo: &Repository) -> String {
        let reader = Reader::without_cache(repo).unwrap();
        let (snapshots, unreadable) = reader.snapshots(&Filter::default()).unwrap();
        assert!(unreadable.is_empty(), "{unreadable:?}");
        let mut text = String::new();
        for info in &snapshots {
            let snapshot = &info.snapshot;
            let root = TreePath::from_bytes(&snapshot.paths[0]).unwrap();
            let target = tempfile::tempdir_in(self.dir()).unwrap();
            self.restore(repo, &info.id(), &root.to_os(), target.path());
            let (host, tags) = (&snapshot.hostname, snapshot.tags.join(","));
            writeln!(text, "snapshot {} of {root} on {host}, tags {tags}", info.id()).unwrap();
            text.push_str(&lines(target.path()));
        }
        text
    }

    pub(crate) fn back_up(&self, repo: &Repository, source: &Path) -> SessionId {
        let report = backup::run(repo, &options(source, "today"), &Monitor::silent()).unwrap();
        assert_eq!(report.problems, 0);
        report.id
    }

    /// What the repository has of all that a format can say.
    pub(crate) fn what_is_in(&self, repo: &Repository) -> BTreeSet<&'static str> {
        let mut found = BTreeSet::new();
        for info in repo.member_list() {
            found.insert(match (info.role, info.slots.is_empty()) {
                (Role::Writer, _) => "a writer",
                (Role::Owner, true) => "a key file of an owner",
                (Role::Owner, false) => "a password",
            });
        }
        let reader = Reader::without_cache(repo).unwrap();
        for header in reader.commits().headers.values() {
            found.extend((header.kind == CommitKind::Checkpoint).then_some("a checkpoint"));
            found.extend(header.has_inline_segment.then_some("a segment in a commit"));
            found.extend((!header.segments.is_empty()).then_some("a segment by itself"));
        }
        found.extend((reader.catalog().packs().len() > 3).then_some("several packs"));
        reader.catalog().each_chunk(|copies| {
            for row in copies.iter().map(|found| found.row) {
                found.insert(if row.compression == 0 { "a raw frame" } else { "a compressed frame" });
            }
        });
        for pack in repo.storage.list("packs/").unwrap() {
            let stored = repo.storage.get(&pack.name).unwrap();
            let (_, directory, _) = repo.open_directory(&stored, stored.len() as u64).unwrap();
            found.extend((directory.padding_bytes > 0).then_some("padding"));
        }
        for info in reader.snapshots(&Filter::default()).unwrap().0 {
            for entry in Walk::below(&reader, TreePath::root(), &info.snapshot.root).map(Result::unwrap) {
                found.extend((!entry.attributes.xattrs.is_empty()).then_some("an extended attribute"));
                found.extend(entry.attributes.link_group.map(|_| "a hard link"));
                match &entry.detail {
                    Detail::Directory { level: 1.., .. } => drop(found.insert("a directory of several nodes")),
                    Detail::Symlink { .. } => drop(found.insert("a symbolic link")),
                    Detail::File { content, holes, .. } => {
                        found.extend((!holes.is_empty()).then_some("a hole"));
                        found.extend(matches!(content, Content::List { .. }).then_some("a list of pieces"));
                        let zeros = Pieces::new(&reader, content).any(|piece| matches!(piece, Ok(Piece::Zeros { .. })));
                        found.extend(zeros.then_some("zeros"));
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

/// A backup of `source` whose packs are only as long as they must be: full ones are padded to 64 KiB.
pub(crate) fn options(source: &Path, hostname: &str) -> backup::Options {
    backup::Options {
        roots: vec![TreePath::from_os(source).unwrap()],
        walk: WalkOptions { threads: 1, ..WalkOptions::default() },
        hostname: hostname.into(),
        username: "esker".into(),
        tags: vec!["museum".into()],
        packs: PackSettings {
            data_pack_bytes: 1 << 20,
            tree_pack_bytes: 1 << 20,
            frame_bytes: 8 << 10,
            mixed_pack_bytes: 12 << 10,
            ..PackSettings::default()
        },
        threads: 1,
        keep_record: backup::KeepRecord::Locally,
        checkpoint_bytes: backup::CHECKPOINT_BYTES,
        checkpoint_secs: i64::MAX,
        force: false,
        ignore_ctime: false,
        program: "esker museum".into(),
        variation: backup::Variation::default(),
    }
}

/// Entries of one directory beyond which they are summed up.
const LINES_MAX: usize = 40;

/// What is in a directory, without the owners, who may be others where this runs. Of a directory with
/// very many entries, the hash of their lines.
pub(crate) fn lines(top: &Path) -> String {
    let mut text = String::new();
    let lines: Vec<String> = tree::lines(top).iter().map(|line| without_owner(line)).collect();
    let directory =
        |line: &str| line.split(' ').next().unwrap().rsplit_once('/').map_or(String::new(), |(dir, _)| dir.to_owned());
    for together in lines.chunk_by(|a, b| directory(a) == directory(b)) {
        if together.len() <= LINES_MAX {
            together.iter().for_each(|line| writeln!(text, "{line}").unwrap());
        } else {
            let hash = blake3::hash(together.join("\n").as_bytes()).to_hex();
            writeln!(text, "{}/* {} entries {}", directory(&together[0]), together.len(), &hash[..32]).unwrap();
        }
    }
    text
}

fn without_owner(line: &str) -> String {
    let mut fields = line.splitn(5, ' ');
    let mut next = || fields.next().unwrap_or_default().to_owned();
    let (path, kind, mode, _owner, rest) = (next(), next(), next(), next(), next());
    format!("{path} {kind} {mode} {rest}")
}
