//! What a lost tree pack takes with it, for trees of other shapes: a chain of directories, a wide
//! directory of several levels of nodes, many small directories. All that is outside comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use esker::repo::pack_writer::PackSettings;
use esker::storage::memory::Memory;

use super::cell::{affected, compare, is_directory, parent};
use super::repo::{Scene, noise};
use super::subject::{packs_by_kind, restore};

#[test]
fn a_lost_tree_pack_takes_what_is_below_its_nodes_and_nothing_else() {
    let memory = Memory::new();
    let mut scene = Scene::finely_cut(Arc::new(memory.clone()), 512, 1);
    scene.packs =
        PackSettings { tree_pack_bytes: 1 << 10, frame_bytes: 1 << 10, mixed_pack_bytes: 1 << 10, ..scene.packs };
    let source = scene.source();
    let mut chain = source.join("chain");
    for n in 0..25_u64 {
        fs::create_dir(&chain).unwrap();
        fs::write(chain.join("file"), noise(n, 50)).unwrap();
        chain = chain.join(format!("{n}"));
    }
    fs::create_dir(source.join("wide")).unwrap();
    for n in 0..400_u64 {
        fs::write(source.join(format!("wide/{n:04}")), noise(100 + n, 20)).unwrap();
    }
    for n in 0..25_u64 {
        fs::create_dir_all(source.join(format!("small/{n}"))).unwrap();
        fs::write(source.join(format!("small/{n}/file")), noise(1000 + n, 20)).unwrap();
    }
    let id = scene.backup().id;
    let base = memory.snapshot();
    let sound = restore(&scene, &id).unwrap();
    assert!(sound.problems.is_empty());
    let packs = packs_by_kind(&scene.open());
    assert!(packs["tree"].len() >= 5, "{packs:?}");

    let (mut subtrees, mut parts) = (0, 0);
    for name in &packs["tree"] {
        let mut content = base.clone();
        content.remove(name).unwrap();
        memory.restore(content);
        fs::remove_dir_all(scene.cache()).unwrap();
        let report = scene.check();
        assert!(report.faults.iter().all(|fault| fault.object == *name), "{name}: {report:?}");
        let affected: BTreeMap<_, BTreeSet<String>> = affected(&report, name);
        let affected = affected.get(&id).cloned().unwrap_or_default();
        let restored = restore(&scene, &id).unwrap();
        compare(&sound.lines, &restored, &affected, name);
        let is_missing = |path: &str| !restored.lines.contains_key(path);
        let lost = sound.lines.iter().filter(|(path, line)| is_missing(path) && is_directory(line));
        subtrees += usize::from(lost.count() > 0);
        let partly = affected.iter().filter(|directory| {
            let children = restored.lines.keys().filter(|path| parent(path) == Some(directory));
            children.count() > 0
        });
        parts += usize::from(partly.count() > 0);
    }
    assert!(subtrees > 0, "no pack took a directory with it");
    assert!(parts > 0, "no pack took a part of a directory with it");
}
