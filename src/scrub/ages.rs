//! When this machine last found each pack whole: a file in the state directory, one for each place.
//!
//! Lines of text with a checksum at the end, replaced whole by rename. It may be lost: one that cannot be used
//! is told and begun anew (kopia#3497: a damaged schedule must not stop maintenance).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::id::{PackId, hex};
use crate::repo::pins::Notices;
use crate::repo::pins::file::{lock, replace};
use crate::storage::local::make_directories;
use crate::world::World;

const FIRST_LINE: &str = "esker-scrub-1";

/// What is remembered of the packs at a place.
#[derive(Debug)]
pub struct Ages {
    path: Option<PathBuf>,
    notices: Notices,
    times: BTreeMap<PackId, i64>,
    /// Where nothing is remembered packs are taken in another order each time, so that each has its turn.
    shuffle: Option<[u8; 32]>,
}

impl Ages {
    /// Reads what is remembered in this state directory of the storage at `place`.
    pub fn open(state: Option<&Path>, place: &str, notices: Notices) -> Self {
        let file = |state: &Path| state.join("scrub").join(hex(&blake3::hash(place.as_bytes()).as_bytes()[..8]));
        let path = state.map(file);
        let shuffle = path.is_none().then(|| World::system().random());
        let mut ages = Self { path, notices, times: BTreeMap::new(), shuffle };
        ages.times = ages.read();
        ages
    }

    /// When a pack was last found whole, seconds since 1970.
    pub fn get(&self, pack: &PackId) -> Option<i64> {
        self.times.get(pack).copied()
    }

    /// In which order packs of the same age come.
    pub(super) fn order(&self, pack: &PackId) -> [u8; 32] {
        self.shuffle.map_or(*pack.as_bytes(), |key| *blake3::keyed_hash(&key, pack.as_bytes()).as_bytes())
    }

    /// Remembers that these packs were found whole just now, and forgets those that are not `there` any more.
    pub fn remember(&mut self, whole: &BTreeSet<PackId>, now_secs: i64, there: impl Fn(&PackId) -> bool) {
        let Some(path) = self.path.clone() else { return };
        if let Err(error) = self.try_remember(&path, whole, now_secs, there) {
            self.notices.add(format!("when packs were scrubbed is not remembered in `{}`: {error}", path.display()));
        }
    }

    fn try_remember(
        &mut self,
        path: &Path,
        whole: &BTreeSet<PackId>,
        now_secs: i64,
        there: impl Fn(&PackId) -> bool,
    ) -> io::Result<()> {
        make_directories(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        let _lock = lock(&path.with_extension("lock"))?;
        // Another shard may have ended meanwhile.
        let mut times = self.read();
        times.retain(|pack, _| there(pack));
        times.extend(whole.iter().map(|pack| (*pack, now_secs)));
        self.times = times;
        replace(path, to_text(&self.times).as_bytes())
    }

    fn read(&self) -> BTreeMap<PackId, i64> {
        let Some(path) = &self.path else { return BTreeMap::new() };
        let damaged = |why: String| {
            let path = path.display();
            self.notices.add(format!("when packs were scrubbed is not known by `{path}`, and is begun anew: {why}"));
        };
        match std::fs::read(path) {
            Ok(bytes) => String::from_utf8(bytes).ok().and_then(|text| from_text(&text)).unwrap_or_else(|| {
                damaged("it is damaged".into());
                BTreeMap::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                damaged(error.to_string());
                BTreeMap::new()
            }
        }
    }
}

fn checksum(text: &str) -> String {
    hex(&blake3::hash(text.as_bytes()).as_bytes()[..8])
}

fn to_text(times: &BTreeMap<PackId, i64>) -> String {
    let mut text = format!("{FIRST_LINE}\n");
    for (pack, secs) in times {
        text.push_str(&format!("{pack} {secs}\n"));
    }
    let check = checksum(&text);
    text + &format!("check {check}\n")
}

fn from_text(text: &str) -> Option<BTreeMap<PackId, i64>> {
    let (lines, check) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let body = format!("{lines}\n");
    if check.strip_prefix("check ") != Some(&checksum(&body)) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next() != Some(FIRST_LINE) {
        return None;
    }
    let pair = |line: &str| {
        let (pack, secs) = line.split_once(' ')?;
        Some((pack.parse().ok()?, secs.parse().ok()?))
    };
    lines.map(pair).collect()
}

/// Reads the body of a file, its checksum made right; gives it written again.
pub(crate) fn rewritten(body: &str) -> Option<String> {
    Some(to_text(&from_text(&format!("{body}check {}\n", checksum(body)))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_known_again_and_what_is_gone_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let notices = Notices::default();
        let open = |place| Ages::open(Some(dir.path()), place, notices.clone());
        let [a, b, c] = [1, 2, 3].map(|n| PackId::from_bytes([n; 32]));
        open("here").remember(&[a, b].into(), 100, |_| true);
        open("here").remember(&[b, c].into(), 200, |pack| *pack != a);
        let ages = open("here");
        assert_eq!([ages.get(&a), ages.get(&b), ages.get(&c)], [None, Some(200), Some(200)]);
        assert_eq!(open("elsewhere").get(&b), None);
        assert!(notices.take().is_empty());
    }

    /// kopia#3497: a damaged schedule stopped all maintenance.
    #[test]
    fn a_damaged_file_is_told_and_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let notices = Notices::default();
        let open = || Ages::open(Some(dir.path()), "here", notices.clone());
        let pack = PackId::from_bytes([1; 32]);
        open().remember(&[pack].into(), 100, |_| true);
        let file = std::fs::read_dir(dir.path().join("scrub")).unwrap().map(|entry| entry.unwrap().path());
        let file = file.into_iter().find(|path| path.extension().is_none()).unwrap();
        let whole = std::fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            std::fs::write(&file, &bad).unwrap();
            assert_eq!(open().get(&pack), None, "byte {at}");
            std::fs::write(&file, &whole[..at]).unwrap();
            assert_eq!(open().get(&pack), None, "{at} bytes");
        }
        assert!(notices.take()[0].contains("begun anew"));
        open().remember(&[pack].into(), 300, |_| true);
        assert_eq!(open().get(&pack), Some(300));
    }
}
