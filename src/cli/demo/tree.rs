//! The files of a demo: made up or copied, changed, and described so that two trees compare.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::monitor::{Monitor, Severity};

/// Bytes that do not compress, the same for the same name.
fn noise(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new_derive_key("esker demo noise");
    hasher.update(name.as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Text as people write it: it compresses.
fn prose(name: &str, words: usize) -> String {
    const WORDS: [&str; 32] = [
        "backup", "river", "because", "the", "glacier", "left", "a", "ridge", "of", "gravel", "that", "winds",
        "through", "forest", "and", "lake", "every", "chunk", "is", "stored", "once", "then", "sealed", "under", "key",
        "so", "nobody", "reads", "what", "you", "wrote", "here",
    ];
    let numbers = noise(name, words);
    let mut text = String::new();
    for (position, number) in numbers.iter().enumerate() {
        text.push_str(WORDS[usize::from(number % 32)]);
        text.push(if position % 12 == 11 { '\n' } else { ' ' });
    }
    text
}

/// Makes a small tree with what backups meet: text, noise, copies, links, odd names.
pub(super) fn make(dir: &Path) -> io::Result<()> {
    for sub in ["letters", "photos", "machines", "empty"] {
        fs::create_dir(dir.join(sub))?;
    }
    for year in 1..=40 {
        let name = format!("letters/{:02}-to-a-friend.txt", year);
        fs::write(dir.join(&name), prose(&name, 400 + 37 * year))?;
    }
    for number in 1..=4 {
        let name = format!("photos/{number}.raw");
        fs::write(dir.join(&name), noise(&name, 1 << 20))?;
    }
    fs::copy(dir.join("photos/1.raw"), dir.join("photos/1 (copy).raw"))?;
    // Two states of one disk: most of it is the same, and some of it was never written.
    let mut disk = noise("disk", 3 << 20);
    disk.extend(vec![0; 5 << 20]);
    fs::write(dir.join("machines/monday.img"), &disk)?;
    disk[1_000_000..1_100_000].copy_from_slice(&noise("tuesday", 100_000));
    fs::write(dir.join("machines/tuesday.img"), &disk)?;
    fs::write(dir.join("run.sh"), "#!/bin/sh\necho done\n")?;
    fs::set_permissions(dir.join("run.sh"), Permissions::from_mode(0o755))?;
    fs::write(dir.join("caf\u{e9} \u{2014} notes.txt"), prose("notes", 2000))?;
    symlink("letters/01-to-a-friend.txt", dir.join("newest"))?;
    fs::hard_link(dir.join("photos/2.raw"), dir.join("photos/best.raw"))
}

/// What was copied and what was not.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Files that would have been more than the limit.
    pub(super) over_limit: u64,
    /// What could not be read, or is no file, directory or link; each was reported.
    pub(super) unreadable: u64,
}

/// Copies what lies at `from` into the directory `to`, about `bytes_max` of it: files, directories
/// and links on one file system, with their permissions and times. `apart` is not entered.
pub(super) fn copy(from: &Path, to: &Path, bytes_max: u64, apart: &Path, monitor: &Monitor) -> io::Result<Copied> {
    let mut copier = Copier {
        left: bytes_max,
        apart: fs::metadata(apart).map(|found| (found.dev(), found.ino()))?,
        links: HashMap::new(),
        monitor,
        copied: Copied::default(),
    };
    let top = fs::metadata(from)?;
    if !top.is_dir() {
        let name = from.file_name().unwrap_or(from.as_os_str());
        copier.entry(from, &to.join(name), &top);
        return Ok(copier.copied);
    }
    // Directories get their times once nothing is made in them any more.
    let mut made: Vec<(PathBuf, Metadata)> = Vec::new();
    let mut waiting = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = waiting.pop() {
        if monitor.stopping() {
            break;
        }
        let names = match names(&from) {
            Ok(names) => names,
            Err(error) => {
                copier.failed(&from, &error);
                continue;
            }
        };
        for name in names {
            let (from, to) = (from.join(&name), to.join(&name));
            match fs::symlink_metadata(&from) {
                Ok(found) if !found.is_dir() => copier.entry(&from, &to, &found),
                Ok(found) if found.dev() != top.dev() || (found.dev(), found.ino()) == copier.apart => {}
                Ok(found) => match fs::create_dir(&to) {
                    Ok(()) => {
                        made.push((to.clone(), found));
                        waiting.push((from, to));
                    }
                    Err(error) => copier.failed(&from, &error),
                },
                Err(error) => copier.failed(&from, &error),
            }
        }
    }
    for (dir, found) in made.iter().rev() {
        dress(dir, found, 0o700)?;
    }
    Ok(copier.copied)
}

fn names(dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Gives a copy the permissions and the time of what it was copied from; we must be able to use it.
fn dress(path: &Path, found: &Metadata, at_least: u32) -> io::Result<()> {
    let file = File::open(path)?;
    file.set_permissions(Permissions::from_mode(found.mode() & 0o777 | at_least))?;
    file.set_modified(found.modified()?)
}

struct Copier<'m> {
    left: u64,
    apart: (u64, u64),
    links: HashMap<(u64, u64), PathBuf>,
    monitor: &'m Monitor,
    copied: Copied,
}

impl Copier<'_> {
    fn failed(&mut self, path: &Path, error: &io::Error) {
        self.copied.unreadable += 1;
        self.monitor.problem(Severity::Warning, path.display().to_string(), format!("not part of the demo: {error}"));
    }

    fn entry(&mut self, from: &Path, to: &Path, found: &Metadata) {
        if let Err(error) = self.try_entry(from, to, found) {
            let _ = fs::remove_file(to);
            self.failed(from, &error);
        }
    }

    fn try_entry(&mut self, from: &Path, to: &Path, found: &Metadata) -> io::Result<()> {
        let kind = found.file_type();
        if kind.is_symlink() {
            return symlink(fs::read_link(from)?, to);
        }
        if kind.is_socket() || kind.is_fifo() || !kind.is_file() {
            return Ok(());
        }
        let identity = (found.dev(), found.ino());
        if let Some(first) = self.links.get(&identity) {
            return fs::hard_link(first, to);
        }
        if found.len() > self.left {
            self.copied.over_limit += 1;
            return Ok(());
        }
        // What says it is empty is not opened: in /proc and its like, reading may never end.
        let mut target = BufWriter::new(File::options().write(true).create_new(true).mode(0o600).open(to)?);
        let bytes = match found.len() {
            0 => 0,
            length => io::copy(&mut File::open(from)?.take(length), &mut target)?,
        };
        target.flush()?;
        dress(to, found, 0o600)?;
        self.left -= bytes;
        self.monitor.done(1, bytes);
        if found.nlink() > 1 {
            self.links.insert(identity, to.to_owned());
        }
        Ok(())
    }
}

/// What was done to a tree.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) appended: u64,
    pub(super) deleted: u64,
    pub(super) added: u64,
}

/// Appends to a few of the files, deletes one and adds one.
pub(super) fn change(dir: &Path, before: &Tree) -> io::Result<Changed> {
    let files: Vec<&PathBuf> = before.iter().filter(|(_, facts)| facts.kind == "file").map(|(path, _)| path).collect();
    let mut changed = Changed { added: 1, ..Changed::default() };
    fs::write(dir.join("added by the demo.txt"), prose("added", 3000))?;
    let last = files.len().saturating_sub(1);
    let mut chosen = vec![0, last / 2, last];
    chosen.dedup();
    for path in chosen.iter().filter_map(|at| files.get(*at)) {
        File::options().append(true).open(dir.join(path))?.write_all(b"appended by the demo\n")?;
        changed.appended += 1;
    }
    if let Some(path) = (1..last).find(|at| !chosen.contains(at)).and_then(|at| files.get(at)) {
        fs::remove_file(dir.join(path))?;
        changed.deleted += 1;
    }
    Ok(changed)
}

/// What one entry is, to every byte and attribute a copy has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    links: u64,
    size: u64,
    /// BLAKE3 of a file's bytes or a link's target.
    content: blake3::Hash,
}

/// A tree by path.
pub(super) type Tree = BTreeMap<PathBuf, Facts>;

/// Describes everything below a directory. Reads every byte.
pub(super) fn describe(dir: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        for name in names(&dir.join(&below))? {
            let path = below.join(name);
            let full = dir.join(&path);
            let found = fs::symlink_metadata(&full)?;
            let mut hasher = blake3::Hasher::new();
            let kind = if found.is_dir() {
                waiting.push(path.clone());
                "directory"
            } else if found.is_symlink() {
                hasher.update(fs::read_link(&full)?.as_os_str().as_encoded_bytes());
                "link"
            } else {
                hasher.update_reader(File::open(&full)?)?;
                "file"
            };
            // The length and the number of links of a directory are the file system's own affair.
            let counted = |number| if found.is_dir() { 0 } else { number };
            tree.insert(
                path,
                Facts {
                    kind,
                    mode: found.mode(),
                    owner: (found.uid(), found.gid()),
                    mtime: (found.mtime(), found.mtime_nsec()),
                    links: counted(found.nlink()),
                    size: counted(found.len()),
                    content: hasher.finalize(),
                },
            );
        }
    }
    Ok(tree)
}

/// How many files there are, and their bytes.
pub(super) fn totals(tree: &Tree) -> (u64, u64) {
    let files = tree.values().filter(|facts| facts.kind == "file");
    files.fold((0, 0), |(count, bytes), facts| (count + 1, bytes + facts.size))
}

/// What differs between two trees, in words.
pub(super) fn differences(expected: &Tree, found: &Tree) -> Vec<String> {
    let mut differences = Vec::new();
    for (path, facts) in expected {
        let shown = path.display();
        match found.get(path) {
            None => differences.push(format!("`{shown}` is missing")),
            Some(other) if facts.content != other.content || facts.size != other.size => {
                differences.push(format!("`{shown}` has other bytes"));
            }
            Some(other) if facts != other => differences.push(format!("`{shown}` has other attributes")),
            Some(_) => {}
        }
    }
    let extra = found.keys().filter(|path| !expected.contains_key(*path));
    differences.extend(extra.map(|path| format!("`{}` was not there before", path.display())));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_equals_its_original_and_every_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        make(&from).unwrap();
        let copied = copy(&from, &to, 1 << 30, &to, &Monitor::silent()).unwrap();
        assert_eq!((copied.over_limit, copied.unreadable), (0, 0));
        let before = describe(&from).unwrap();
        let mut copy = describe(&to).unwrap();
        // A link has the time it was made.
        let link = Path::new("newest");
        copy.get_mut(link).unwrap().mtime = before[link].mtime;
        assert_eq!(differences(&before, &copy), [] as [String; 0]);
        let changed = change(&to, &copy).unwrap();
        assert_eq!((changed.appended, changed.deleted, changed.added), (3, 1, 1));
        let mut after = describe(&to).unwrap();
        after.get_mut(Path::new("letters/10-to-a-friend.txt")).unwrap().mode ^= 1;
        let seen = differences(&copy, &after);
        let of = |sort: &str| seen.iter().filter(|line| line.contains(sort)).count();
        assert_eq!((of("other bytes"), of("missing"), of("not there before")), (3, 1, 1), "{seen:?}");
        assert!(of("other attributes") >= 1, "{seen:?}");
    }

    #[test]
    fn a_copy_stops_at_its_limit_and_takes_a_single_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), [1; 100]).unwrap();
        fs::write(dir.path().join("b"), [2; 100]).unwrap();
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        let copied = copy(dir.path(), &to, 150, &to, &Monitor::silent()).unwrap();
        assert_eq!((copied.over_limit, totals(&describe(&to).unwrap())), (1, (1, 100)));
        copy(&dir.path().join("b"), &to, 150, &to, &Monitor::silent()).unwrap();
        assert_eq!(totals(&describe(&to).unwrap()), (2, 200));
    }
}
