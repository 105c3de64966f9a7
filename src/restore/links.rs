//! Where the first name of each group of hard links was restored, in bounded memory.
//!
//! Nobody knows how many names of a group are still to come, so none is forgotten. When there are
//! many, the paths go to a file without a name, and where they lie there is [`Spilled`]. What is
//! read back is looked at as anything in the target is: the directory is entered anew, and the link
//! made must lead to the inode that was restored.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::file::LinkSource;
use super::target::{Dir, Inode, Target, lock};
use crate::id::LinkGroup;
use crate::index::{Spilled, UnnamedWriter, unnamed_files};
use crate::path::TreePath;

/// The group twice, for a key of 32 bytes; then [`Place`].
const ROW_BYTES: usize = 64;

/// Groups kept in memory from one window to the next.
const GROUPS_MAX: usize = 1 << 16;

/// The groups seen so far.
pub(super) struct Links {
    recent: HashMap<LinkGroup, Arc<LinkSource>>,
    groups_max: usize,
    spilled: Spilled<ROW_BYTES>,
    paths: UnnamedWriter,
    /// Those that paths were written to.
    files: Vec<Arc<File>>,
    /// The directory entered last for a spilled name.
    entered: Option<(TreePath, Arc<Dir>)>,
}

/// Where the path of a first name is, and the inode that was restored there, if it was.
struct Place {
    file: u16,
    path_bytes: u16,
    start: u64,
    inode: Option<Inode>,
}

impl Links {
    /// No groups, and a directory for what memory has no room for.
    pub(super) fn new(dir: &Path) -> Self {
        Self::with_max(dir, GROUPS_MAX)
    }

    fn with_max(dir: &Path, groups_max: usize) -> Self {
        Self {
            recent: HashMap::new(),
            groups_max,
            spilled: Spilled::new(dir),
            paths: UnnamedWriter::new(unnamed_files(dir)),
            files: Vec::new(),
            entered: None,
        }
    }

    /// Notes the first name of a group.
    pub(super) fn insert(&mut self, group: LinkGroup, source: Arc<LinkSource>) {
        self.recent.insert(group, source);
    }

    /// Whether a first name of the group is noted.
    pub(super) fn contains(&self, group: &LinkGroup) -> bool {
        self.recent.contains_key(group) || self.spilled.find(&key(group)).is_some()
    }

    /// The first name of a group, if one is noted. An error when it cannot be come to again.
    pub(super) fn get(&mut self, group: &LinkGroup, target: &Target) -> Result<Option<Arc<LinkSource>>, Errno> {
        if let Some(source) = self.recent.get(group) {
            return Ok(Some(source.clone()));
        }
        let Some(row) = self.spilled.find(&key(group)) else { return Ok(None) };
        let place = Place::decode(row);
        let path = self.read(&place).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let name = path.components().last().ok_or(Errno::IO)?;
        let mut around = path;
        around.pop();
        let dir = match self.entered.take() {
            Some((known, dir)) if known == around => dir,
            _ => target.enter_path(&around)?,
        };
        self.entered = Some((around, dir.clone()));
        Ok(Some(Arc::new(LinkSource { dir, name, inode: Mutex::new(place.inode) })))
    }

    /// Whether there are so many that [`Self::settle`] is due.
    pub(super) fn is_full(&self) -> bool {
        self.recent.len() > self.groups_max
    }

    /// Makes room. Only between windows, when it is known what became of every first name. What no
    /// disk has room for stays in memory.
    pub(super) fn settle(&mut self) {
        if !self.is_full() {
            return;
        }
        let mut rows = Vec::with_capacity(self.recent.len());
        for (group, source) in &self.recent {
            let path = source.dir.path_of(&source.name);
            let (Ok(path_bytes), Ok((file, start))) =
                (u16::try_from(path.as_bytes().len()), self.paths.append(path.as_bytes()))
            else {
                continue;
            };
            let number = self.files.iter().position(|known| Arc::ptr_eq(known, &file)).unwrap_or_else(|| {
                self.files.push(file);
                self.files.len() - 1
            });
            let number = u16::try_from(number).expect("there are only a few places for files");
            let place = Place { file: number, path_bytes, start, inode: *lock(&source.inode) };
            rows.push(place.encode(group));
        }
        let groups: Vec<LinkGroup> = rows.iter().map(group_of).collect();
        if self.spilled.add(rows).is_ok() {
            groups.iter().for_each(|group| drop(self.recent.remove(group)));
        }
    }

    fn read(&self, place: &Place) -> std::io::Result<TreePath> {
        let file = self.files.get(usize::from(place.file)).ok_or(std::io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; usize::from(place.path_bytes)];
        file.read_exact_at(&mut bytes, place.start)?;
        TreePath::from_bytes(&bytes).map_err(std::io::Error::other)
    }
}

fn key(group: &LinkGroup) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(group.as_bytes());
    key[16..].copy_from_slice(group.as_bytes());
    key
}

fn group_of(row: &[u8; ROW_BYTES]) -> LinkGroup {
    LinkGroup::from_bytes(*row.first_chunk().expect("a row begins with its group"))
}

impl Place {
    fn encode(&self, group: &LinkGroup) -> [u8; ROW_BYTES] {
        let mut row = [0; ROW_BYTES];
        row[..32].copy_from_slice(&key(group));
        row[32..34].copy_from_slice(&self.file.to_le_bytes());
        row[34..36].copy_from_slice(&self.path_bytes.to_le_bytes());
        row[36] = u8::from(self.inode.is_some());
        row[40..48].copy_from_slice(&self.start.to_le_bytes());
        let Inode { device, number } = self.inode.unwrap_or_default();
        row[48..56].copy_from_slice(&device.to_le_bytes());
        row[56..].copy_from_slice(&number.to_le_bytes());
        row
    }

    fn decode(row: &[u8; ROW_BYTES]) -> Self {
        let short = |at: usize| u16::from_le_bytes([row[at], row[at + 1]]);
        let long = |at: usize| u64::from_le_bytes(*row[at..].first_chunk().expect("a row has 64 bytes"));
        let inode = (row[36] != 0).then(|| Inode { device: long(48), number: long(56) });
        Self { file: short(32), path_bytes: short(34), start: long(40), inode }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::path::Name;

    fn group(n: u64) -> LinkGroup {
        LinkGroup::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes().first_chunk().unwrap())
    }

    /// However few may be in memory, every first name is found again, and not through what has
    /// taken the place of its directory.
    #[test]
    fn groups_beyond_the_bound_are_found_again() {
        let (top, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        (0..10).for_each(|n| fs::create_dir_all(top.path().join(format!("a/{n}"))).unwrap());
        let base = TreePath::from_bytes(b"/srv/base").unwrap();
        let target = Target::open(top.path(), base.clone()).unwrap();
        let at =
            |n: u64| base.join(&Name::new(*b"a").unwrap()).join(&Name::new((n % 10).to_string().into_bytes()).unwrap());
        let mut links = Links::with_max(spill.path(), 10);
        for n in 0..100 {
            let (dir, name) = (target.enter_path(&at(n)).unwrap(), Name::new(n.to_string().into_bytes()).unwrap());
            let inode = (n % 7 > 0).then_some(Inode { device: n, number: n << 40 });
            links.insert(group(n), Arc::new(LinkSource { dir, name, inode: Mutex::new(inode) }));
            links.settle();
            assert!(links.recent.len() <= 10);
        }
        assert!(links.spilled.rows() > 80);
        for n in 0..100 {
            let source = links.get(&group(n), &target).unwrap().unwrap();
            assert_eq!(source.dir.path_of(&source.name).as_bytes(), format!("/srv/base/a/{}/{n}", n % 10).as_bytes());
            assert_eq!(*lock(&source.inode), (n % 7 > 0).then_some(Inode { device: n, number: n << 40 }));
            assert!(links.contains(&group(n)));
        }
        assert!(!links.contains(&group(100)) && links.get(&group(100), &target).unwrap().is_none());
        assert_eq!(fs::read_dir(spill.path()).unwrap().count(), 0);

        rustix::fs::rename(top.path().join("a/3"), top.path().join("a/3.old")).unwrap();
        std::os::unix::fs::symlink("3.old", top.path().join("a/3")).unwrap();
        assert!(links.get(&group(3), &target).is_err());
        assert!(links.get(&group(4), &target).is_ok());
    }
}
