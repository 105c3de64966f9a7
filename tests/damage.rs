//! Risk: damage to a stored object is not noticed, is blamed on the wrong thing, or takes more
//! with it than it must; at worst, wrong bytes come back.
//! Method: each kind of object deleted, cut short and with a flipped bit; `check` must name the
//! object and what it affects, and everything that does not depend on it must restore.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::error::Kind;
use esker::storage::memory::Memory;
use repo::{Scene, noise};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Damage {
    Deleted,
    Truncated,
    FlippedAtFront,
    FlippedInTheMiddle,
    FlippedAtEnd,
    ReplacedByAnother,
}

const DAMAGES: [Damage; 6] = [
    Damage::Deleted,
    Damage::Truncated,
    Damage::FlippedAtFront,
    Damage::FlippedInTheMiddle,
    Damage::FlippedAtEnd,
    Damage::ReplacedByAnother,
];

type Content = BTreeMap<String, Arc<[u8]>>;

fn damage(content: &mut Content, name: &str, how: Damage) {
    let mut bytes = content[name].to_vec();
    let length = bytes.len();
    match how {
        Damage::Deleted => {
            content.remove(name);
            return;
        }
        Damage::Truncated => bytes.truncate(length / 2),
        Damage::FlippedAtFront => bytes[0] ^= 1,
        Damage::FlippedInTheMiddle => bytes[length / 2] ^= 1,
        Damage::FlippedAtEnd => bytes[length - 1] ^= 1,
        Damage::ReplacedByAnother => {
            let folder = name.split('/').next().unwrap();
            let other = content.iter().find(|(other, _)| other.starts_with(folder) && *other != name);
            bytes = other.map_or_else(|| vec![0; length], |(_, bytes)| bytes.to_vec());
        }
    }
    content.insert(name.to_owned(), bytes.into());
}

/// A repository with two snapshots, of which the first needs none of the second's packs.
fn scene() -> (Memory, Scene, [String; 2]) {
    let memory = Memory::new();
    let scene = Scene::new(Arc::new(memory.clone())).with_tiny_packs();
    for n in 0..40 {
        fs::create_dir_all(scene.source().join(format!("dir-{}", n % 4))).unwrap();
        fs::write(scene.source().join(format!("dir-{}/file-{n}", n % 4)), noise(n, 3000)).unwrap();
    }
    let first = scene.backup().id.to_string();
    fs::write(scene.source().join("dir-0/later"), noise(1000, 20_000)).unwrap();
    let second = scene.backup().id.to_string();
    (memory, scene, [first, second])
}

#[test]
fn every_damage_to_every_kind_of_object_is_named_and_never_gives_wrong_bytes() {
    let (memory, scene, snapshots) = scene();
    let base = memory.snapshot();
    let expected: Vec<_> = snapshots.iter().map(|id| file_contents(&scene.restore(id))).collect();
    assert!(scene.check().faults.is_empty());
    let kinds = ["access", "copies", "packs", "index", "sessions", "snapshots"];
    for kind in kinds {
        let names: Vec<_> = base.keys().filter(|name| name.starts_with(&format!("{kind}/"))).cloned().collect();
        assert!(kind == "index" || !names.is_empty(), "no {kind}");
        for name in names {
            for how in DAMAGES {
                let mut content = base.clone();
                damage(&mut content, &name, how);
                memory.restore(content);
                // A cache would hide what the storage lost.
                let _ = fs::remove_dir_all(scene.cache());
                let when = format!("{name} {how:?}");
                match scene.try_open() {
                    Ok(_) => {
                        let report = scene.check();
                        // A session that is over is not missed.
                        if kind == "sessions" && how == Damage::Deleted {
                            continue;
                        }
                        let named =
                            report.faults.iter().any(|fault| fault.object == name || fault.object.contains("hash"));
                        // Nothing refers to the newest commit: without it its session is one that
                        // never finished, and that is what is said.
                        let newest_is_gone = how == Damage::Deleted && name.ends_with(&snapshots[1]);
                        assert!(named || (newest_is_gone && !report.notes.is_empty()), "{when}: {report:?}");
                        if kind == "packs" {
                            assert!(
                                report.faults.iter().any(|fault| fault.affected_total > 0 || how != Damage::Deleted),
                                "{when}: {report:?}"
                            );
                        }
                    }
                    // Configuration and statements have second copies.
                    Err(error) => panic!("{when}: {error:?}"),
                }
                for (id, expected) in snapshots.iter().zip(&expected) {
                    if let Ok((report, target)) = scene.try_restore(id) {
                        let found = file_contents(&target);
                        for (path, bytes) in &found {
                            assert!(expected.get(path) == Some(bytes), "{when}: wrong bytes in {path}");
                        }
                        assert!(
                            report.problems > 0 || found.len() == expected.len(),
                            "{when}: {id} lacks files in silence"
                        );
                        fs::remove_dir_all(target).unwrap();
                    } else {
                        assert!(kind == "snapshots" || kind == "packs", "{when}: {id} was not restored at all");
                    }
                }
            }
        }
    }
}

#[test]
fn a_damaged_config_is_read_from_its_copy() {
    let (memory, scene, snapshots) = scene();
    let base = memory.snapshot();
    for how in [Damage::Truncated, Damage::FlippedAtFront, Damage::FlippedInTheMiddle, Damage::FlippedAtEnd] {
        let mut content = base.clone();
        damage(&mut content, "config", how);
        memory.restore(content);
        scene.restore(&snapshots[0]);
    }
    let mut content = base;
    damage(&mut content, "config", Damage::FlippedAtEnd);
    damage(&mut content, "copies/config", Damage::FlippedAtEnd);
    memory.restore(content);
    assert_eq!(scene.try_open().unwrap_err().kind(), Kind::Damaged);
}

/// Relative path to content of every regular file.
fn file_contents(top: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(top).unwrap().display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    found
}
