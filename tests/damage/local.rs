//! Files of the local cache: the catalog, change records, and the journal of a run that was stopped. All
//! of them may be lost or damaged; that costs reading, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker::storage::fault::{Faulty, Plan};
use esker::storage::memory::Memory;
use esker::storage::record::Recording;

use super::repo::{Scene, noise};
use super::subject::copy_all;
use super::tree;

/// Every file below a directory, by its path there.
fn files(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => drop(found.insert(path.strip_prefix(top).unwrap().to_owned(), fs::read(&path).unwrap())),
            }
        }
    }
    found
}

/// What becomes of a file; `None` is that it is gone.
fn damages(
    name: &Path,
    now: &BTreeMap<PathBuf, Vec<u8>>,
    older: &BTreeMap<PathBuf, Vec<u8>>,
) -> Vec<(String, Option<Vec<u8>>)> {
    let good = &now[name];
    let mut all = vec![("deleted".to_owned(), None), ("appended".to_owned(), Some([good, &[7; 100][..]].concat()))];
    let cuts = [0, 10, good.len() / 3, good.len() / 2, good.len().saturating_sub(1)];
    all.extend(cuts.map(|length| (format!("cut to {length}"), Some(good[..length.min(good.len())].to_vec()))));
    let places = [
        0,
        9,
        80,
        good.len() / 4,
        good.len() / 2,
        good.len() * 3 / 4,
        good.len().saturating_sub(20),
        good.len().saturating_sub(1),
    ];
    for at in places.into_iter().filter(|at| *at < good.len()) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        all.push((format!("flipped at {at}"), Some(bytes)));
    }
    let other = now.iter().find(|(other, _)| *other != name && other.extension() == name.extension());
    all.extend(other.map(|(_, bytes)| ("swapped with kin".to_owned(), Some(bytes.clone()))));
    let stranger = now.iter().find(|(other, bytes)| other.extension() != name.extension() && !bytes.is_empty());
    all.extend(stranger.map(|(_, bytes)| ("swapped with a stranger".to_owned(), Some(bytes.clone()))));
    all.extend(older.get(name).map(|bytes| ("replayed".to_owned(), Some(bytes.clone()))));
    all.retain(|(_, bytes)| bytes.as_ref() != Some(good));
    all
}

#[test]
fn a_damaged_cache_costs_reading_and_nothing_else() {
    let memory = Memory::new();
    let mut scene = Scene::finely_cut(Arc::new(memory.clone()), 512, 1);
    scene = scene.with_tiny_packs();
    let source = scene.source();
    for n in 0..30_u64 {
        fs::create_dir_all(source.join(format!("{}", n % 3))).unwrap();
        fs::write(source.join(format!("{}/{n}", n % 3)), noise(n, 1500)).unwrap();
    }
    scene.backup();
    let older = files(&scene.cache());
    fs::write(source.join("0/new"), noise(100, 60_000)).unwrap();
    scene.backup();
    // A run that is killed leaves a journal and what it has seen.
    fs::write(source.join("1/newer"), noise(101, 60_000)).unwrap();
    let faulty = Faulty::new(Arc::new(memory.clone()), Plan::crash_at(6));
    scene.over(Arc::new(faulty)).try_backup().unwrap_err();
    let now = files(&scene.cache());
    let names: Vec<_> = now.keys().map(|name| name.display().to_string()).collect();
    for part in ["catalog.redb", ".run", ".open-", ".new-"] {
        assert!(names.iter().any(|name| name.contains(part)), "no {part}: {names:?}");
    }

    let base = memory.snapshot();
    let kept = scene.dir().join("kept");
    copy_all(&scene.cache(), &kept);
    let expected = tree::lines(&source);
    let run = |name: Option<&Path>, bytes: Option<&[u8]>, when: &str| {
        memory.restore(base.clone());
        let cache = scene.dir().join("damaged-cache");
        let _ = fs::remove_dir_all(&cache);
        copy_all(&kept, &cache);
        if let Some(name) = name {
            fs::remove_file(cache.join(name)).unwrap();
            if let Some(bytes) = bytes {
                fs::write(cache.join(name), bytes).unwrap();
            }
        }
        let recording = Recording::new(Arc::new(memory.clone()));
        let damaged = scene.over(Arc::new(recording.clone())).caching_in(cache);
        let made = damaged.try_backup().unwrap_or_else(|error| panic!("{when}: {error:?}"));
        let calls = recording.calls().len();
        assert_eq!(made.problems, 0, "{when}");
        // With the cache as it is by now, and without.
        for cache in [damaged.cache(), scene.dir().join("no-cache")] {
            let scene = scene.over(Arc::new(memory.clone())).caching_in(cache);
            let (report, target) = scene.try_restore(&made.id.to_string()).unwrap();
            assert_eq!(report.problems, 0, "{when}: {report:?}");
            assert!(tree::lines(&target) == expected, "{when}: restored otherwise");
            fs::remove_dir_all(target).unwrap();
        }
        let _ = fs::remove_dir_all(scene.dir().join("no-cache"));
        let report = scene.check();
        assert!(report.faults.is_empty(), "{when}: {report:?}");
        calls
    };
    let bound = 4 * run(None, None, "sound") + 100;
    let mut cells = 0;
    for name in now.keys().filter(|name| !name.ends_with("lock")) {
        for (how, bytes) in damages(name, &now, &older) {
            let when = format!("{} {how}", name.display());
            let calls = run(Some(name), bytes.as_deref(), &when);
            assert!(calls <= bound, "{when}: {calls} calls");
            cells += 1;
        }
    }
    assert!(cells >= 60, "{cells} cells");
}
