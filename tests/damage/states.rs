//! Damage that is more than one object: a folder as it was long before, a pack in the wrong folder, an
//! index lost together with a pack.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use esker::check::ReadData;
use esker::storage::Storage;
use esker::storage::memory::Memory;

use super::cell::{Damage, Matrix};
use super::repo::Scene;
use super::subject::subject;
use super::tree;

/// A storage that shows some of its folders as they were after the first backup.
#[test]
fn what_an_older_state_of_a_folder_lacks_is_named_and_the_rest_comes_back() {
    let subject = subject();
    let matrix = Matrix::new();
    let folders =
        [&["packs/"][..], &["snapshots/"], &["access/"], &["access/", "copies/access/"], &["gc/"], &["sessions/"]];
    for folders in folders {
        let is_old = |name: &String| folders.iter().any(|folder| name.starts_with(folder));
        let mut content = subject.base.clone();
        content.retain(|name, _| !is_old(name));
        content.extend(
            subject.first.iter().filter(|(name, _)| is_old(name)).map(|(name, bytes)| (name.clone(), bytes.clone())),
        );
        let lost: BTreeSet<_> = subject.base.keys().filter(|name| !content.contains_key(*name)).collect();
        assert!(!lost.is_empty(), "nothing in {folders:?} is newer");
        let when = format!("{folders:?} are old");
        let report = matrix.holds(content, &when);
        let named = |name: &str| {
            let session = name.rsplit('/').next().unwrap();
            report.faults.iter().any(|fault| fault.object == name || fault.message.contains(name))
                || report.notes.iter().any(|note| note.contains(session))
        };
        // Nobody misses a snapshot that is void.
        let void = format!("snapshots/{}", subject.void);
        let unnamed: Vec<_> = lost.iter().filter(|name| ***name != void && !named(name)).collect();
        // Of what is nobody's any more, of an older access list, and of announcements nothing tells, but
        // for what a machine remembers (tests/rollback.rs).
        match folders {
            ["packs/"] | ["snapshots/"] | ["access/"] => {
                assert!(unnamed.is_empty(), "{when}: {unnamed:#?} {report:#?}")
            }
            ["gc/"] => {
                assert!(report.faults.iter().any(|fault| fault.object.starts_with("packs/")), "{when}: {report:#?}")
            }
            ["access/", _] => {
                let is_refused = |fault: &esker::check::Fault| fault.message.contains("not in the access list");
                assert!(report.faults.iter().filter(|fault| is_refused(fault)).count() >= 3, "{when}: {report:#?}");
            }
            _ => assert!(report.faults.is_empty(), "{when}: {report:#?}"),
        }
    }
}

/// Readers look for a pack under its name and nowhere else; so must all who count on it.
#[test]
fn a_pack_in_the_wrong_folder_is_not_there() {
    let subject = subject();
    let name = &subject.packs["data"][1];
    let mut content = subject.base.clone();
    let bytes = content.remove(name).unwrap();
    let (folder, id) = name.rsplit_once('/').unwrap();
    let other = if folder == "packs/00" { "packs/01" } else { "packs/00" };
    content.insert(format!("{other}/{id}"), bytes);
    Matrix::new().holds_for(name, Damage::Deleted, &content);
}

/// With a lost index there may be a million chunks of which nobody knows where they were: that is one
/// fault, and not a million.
#[test]
fn chunks_that_are_in_no_pack_are_one_fault() {
    let subject = subject();
    let mut content = subject.base.clone();
    let segment = subject.names("index/").remove(0);
    content.remove(&segment).unwrap();
    content.remove(&subject.packs["data"][1]).unwrap();
    let report = Matrix::new().holds(content, "a segment and a pack are lost");
    let objects: Vec<_> = report.faults.iter().map(|fault| &*fault.object).collect();
    assert_eq!(objects.len(), 2, "{report:#?}");
    assert!(objects.contains(&&*segment), "{report:#?}");
    let chunks = report.faults.iter().find(|fault| fault.object.starts_with("chunk ")).unwrap();
    assert_eq!(chunks.message, "it and others are in no pack");
    assert!(chunks.affected_total > 0);
}

/// A commit that nobody's later ones name, and of whose packs others need nothing but nodes.
#[test]
fn a_lost_commit_is_named_though_only_nodes_of_it_are_needed() {
    let memory = Memory::new();
    let owner = Scene::finely_cut(Arc::new(memory.clone()), 512, 3);
    fs::create_dir_all(owner.source().join("dir/empty")).unwrap();
    symlink("nowhere", owner.source().join("dir/link")).unwrap();
    let lost = format!("snapshots/{}", owner.backup().id);
    let kept = owner.writer().backup().id.to_string();
    memory.delete(&lost).unwrap();
    for read_data in [ReadData::No, ReadData::All] {
        let report = owner.check_reading(read_data);
        assert!(report.faults.len() == 1 && report.faults[0].object == lost, "{report:#?}");
    }
    fs::remove_dir_all(owner.cache()).unwrap();
    assert_eq!(tree::lines(&owner.restore(&kept)), tree::lines(&owner.source()));
}
