//! The file that pins are kept in.
//!
//! Lines of text with a checksum at the end, replaced whole by rename and synced. Changes are
//! made under a lock, to what the file holds at that moment, so two commands at once lose nothing
//! of each other. Nothing that goes wrong here stops a command: it is told, and what can be seen is
//! learned anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::Notices;
use crate::id::{CredentialId, ObjectId, SessionId, hex, unhex};
use crate::storage::local::{make_directories, sync_directory};

/// What is remembered of a repository at a place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pins {
    /// The hash of its description, and its root owner's verifying key.
    pub(super) config: Option<(ObjectId, [u8; 32])>,
    /// Heads of the access statements.
    pub(super) access: BTreeSet<ObjectId>,
    /// Heads of the commits of each credential that was used here.
    pub(super) commits: BTreeMap<CredentialId, BTreeSet<(SessionId, ObjectId)>>,
}

const FIRST_LINE: &str = "esker-pins-1";

impl Pins {
    fn to_text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        if let Some((hash, root)) = &self.config {
            text.push_str(&format!("config {hash} {}\n", hex(root)));
        }
        for hash in &self.access {
            text.push_str(&format!("access {hash}\n"));
        }
        for (credential, heads) in &self.commits {
            for (session, hash) in heads {
                text.push_str(&format!("commit {credential} {session} {hash}\n"));
            }
        }
        let check = checksum(&text);
        text.push_str(&format!("check {check}\n"));
        text
    }

    /// Reads the text, or nothing when any of it is not as it was written.
    fn from_text(text: &str) -> Option<Self> {
        let (body, check) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let body = format!("{body}\n");
        if check.strip_prefix("check ") != Some(&checksum(&body)) {
            return None;
        }
        let mut lines = body.lines();
        if lines.next() != Some(FIRST_LINE) {
            return None;
        }
        let mut pins = Self::default();
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["config", hash, root] => pins.config = Some((hash.parse().ok()?, unhex(root)?.try_into().ok()?)),
                ["access", hash] => drop(pins.access.insert(hash.parse().ok()?)),
                ["commit", credential, session, hash] => {
                    let head = (session.parse().ok()?, hash.parse().ok()?);
                    pins.commits.entry(credential.parse().ok()?).or_default().insert(head);
                }
                _ => return None,
            }
        }
        Some(pins)
    }
}

/// Reads a text with its checksum made right; gives it written again.
pub(crate) fn rewritten(body: &str) -> Option<String> {
    Some(Pins::from_text(&format!("{body}check {}\n", checksum(body)))?.to_text())
}

fn checksum(text: &str) -> String {
    hex(&blake3::hash(text.as_bytes()).as_bytes()[..8])
}

/// How often a lock that another command holds is asked for, and how long apart.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A pins file by its path.
#[derive(Debug)]
pub(super) struct PinFile {
    path: PathBuf,
    notices: Notices,
}

impl PinFile {
    pub(super) fn new(path: PathBuf, notices: Notices) -> Self {
        Self { path, notices }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is pinned; nothing when there is no file, or none that can be used.
    pub(super) fn read(&self) -> Pins {
        let text = match std::fs::read(&self.path) {
            Ok(bytes) => String::from_utf8(bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Pins::default(),
            Err(error) => {
                self.warn(&format!("cannot read it: {error}"));
                return Pins::default();
            }
        };
        text.and_then(|text| Pins::from_text(&text)).unwrap_or_else(|| {
            self.warn("it is damaged; what is there now is taken for the newest");
            Pins::default()
        })
    }

    /// Changes what the file holds. Durable on return, or told why not.
    pub(super) fn update(&self, change: impl Fn(&mut Pins)) {
        if let Err(error) = self.try_update(change) {
            self.warn(&format!("cannot write it: {error}"));
        }
    }

    fn warn(&self, what: &str) {
        let path = self.path.display();
        self.notices.add(format!("what was seen of this repository is not remembered in `{path}`: {what}"));
    }

    fn try_update(&self, change: impl Fn(&mut Pins)) -> io::Result<()> {
        // Mostly there is nothing to change, and the directory may be one that is only read.
        let mut pins = self.read();
        let before = pins.clone();
        change(&mut pins);
        if pins == before {
            return Ok(());
        }
        let parent = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        make_directories(parent)?;
        let _lock = lock(&self.path.with_extension("lock"))?;
        let mut pins = self.read();
        change(&mut pins);
        replace(&self.path, pins.to_text().as_bytes())
    }
}

/// Puts a file in the place of another, whole and durable.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let unique = format!("{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let temporary = path.with_extension(unique);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
    let written = file
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| Ok(rustix::fs::rename(&temporary, path)?))
        .and_then(|()| sync_directory(parent));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Holds off other commands until the file is closed. Where the file system has no locks the
/// change is made without: the worst is that a head is forgotten until it is seen again.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOLCK) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(LOCK_PAUSE),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "another command holds its lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Pins {
        let mut pins = Pins { config: Some((ObjectId::from_bytes([1; 32]), [2; 32])), ..Pins::default() };
        pins.access.insert(ObjectId::from_bytes([3; 32]));
        let heads = pins.commits.entry(CredentialId::from_bytes([4; 32])).or_default();
        heads.insert((SessionId::from_bytes([5; 16]), ObjectId::from_bytes([6; 32])));
        heads.insert((SessionId::from_bytes([7; 16]), ObjectId::from_bytes([8; 32])));
        pins
    }

    #[test]
    fn pins_read_back_and_every_changed_byte_is_found() {
        let text = some().to_text();
        assert_eq!(Pins::from_text(&text), Some(some()));
        assert_eq!(Pins::from_text(&Pins::default().to_text()), Some(Pins::default()));
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1;
            assert_eq!(Pins::from_text(&String::from_utf8(bad).unwrap()), None, "byte {at}");
            assert_eq!(Pins::from_text(&text[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn many_at_once_lose_nothing_of_each_other() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b/pins");
        std::thread::scope(|scope| {
            for thread in 0..8_u8 {
                let path = &path;
                scope.spawn(move || {
                    for n in 0..8 {
                        let file = PinFile::new(path.clone(), Notices::default());
                        let hash = ObjectId::from_bytes([8 * thread + n; 32]);
                        file.update(|pins| pins.access.extend([hash]));
                        assert_eq!(file.notices.take(), [""; 0]);
                    }
                });
            }
        });
        let file = PinFile::new(path.clone(), Notices::default());
        assert_eq!(file.read().access.len(), 64);
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
    }

    #[test]
    fn what_cannot_be_read_or_written_is_told_and_stops_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("pins");
        let file = PinFile::new(path.clone(), Notices::default());
        assert_eq!(file.read(), Pins::default());
        assert_eq!(file.notices.take(), [""; 0], "a first time is nothing to tell");
        std::fs::write(&path, "esker-pins-1\nnonsense\n").unwrap();
        assert_eq!(file.read(), Pins::default());
        assert!(file.notices.take()[0].contains("damaged"));
        file.update(|pins| *pins = some());
        assert_eq!(file.read(), some());
        let below_a_file = PinFile::new(path.join("pins"), Notices::default());
        below_a_file.update(|pins| *pins = some());
        assert!(below_a_file.notices.take().iter().any(|told| told.contains("cannot write")));
    }
}
