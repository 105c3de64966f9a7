//! Risk: damage to a stored object is not noticed, is blamed on the wrong thing, or takes more
//! with it than it must; at worst, wrong bytes come back.
//! Method: a matrix. A repository with an object of every kind and several snapshots; each kind lost,
//! cut short, flipped, added to, swapped and replayed. After each, `check` must name just that object
//! and just the paths that a restore lacks, which the test finds out by itself; everything else must
//! come back as it was; what reads must say what it could not; and a further backup must make a
//! snapshot that is whole, resting on nothing that can be known to be damaged. Nothing may panic, and no
//! operation may ask the storage for much more than it does of a sound one.

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

#[path = "damage/cell.rs"]
mod cell;
#[path = "damage/local.rs"]
mod local;
#[allow(dead_code)]
#[path = "support/cli.rs"]
mod machine;
#[path = "damage/shapes.rs"]
mod shapes;
#[path = "damage/states.rs"]
mod states;
#[path = "damage/subject.rs"]
mod subject;
#[path = "damage/told.rs"]
mod told;

use cell::{Damage, Matrix};
use subject::subject;

/// The first, one in the middle and the last of some names.
fn some(names: &[String]) -> Vec<String> {
    let mut chosen = vec![names[0].clone(), names[names.len() / 2].clone(), names[names.len() - 1].clone()];
    chosen.dedup();
    chosen
}

#[test]
fn the_subject_is_sound_and_has_objects_of_every_kind() {
    let subject = subject();
    Matrix::new().sound();
    for kind in ["data", "tree", "mixed"] {
        assert!(!subject.packs.get(kind).is_none_or(Vec::is_empty), "no {kind} pack: {:?}", subject.packs);
    }
    assert!(subject.packs["data"].len() >= 5 && subject.packs["tree"].len() >= 3, "{:?}", subject.packs);
    let folders = "access alive cache copies/access copies/keys flags gc index keys log notes sessions snapshots";
    for folder in folders.split(' ') {
        assert!(!subject.names(&format!("{folder}/")).is_empty(), "nothing in {folder}");
    }
}

#[test]
fn config_and_its_copy() {
    Matrix::new().run(&["config".into(), "copies/config".into()]);
}

#[test]
fn password_slots_and_their_copies() {
    let subject = subject();
    Matrix::new().run(&[subject.names("keys/"), subject.names("copies/keys/")].concat());
}

#[test]
fn access_statements_and_their_copies() {
    let subject = subject();
    Matrix::new().run(&[subject.names("access/"), some(&subject.names("copies/access/"))].concat());
}

#[test]
fn announcements_and_signs_of_life() {
    let subject = subject();
    Matrix::new().run(&[some(&subject.names("sessions/")), some(&subject.names("alive/"))].concat());
}

#[test]
fn packs_of_data() {
    Matrix::new().run(&some(&subject().packs["data"]));
}

#[test]
fn packs_of_trees() {
    Matrix::new().run(&some(&subject().packs["tree"]));
}

#[test]
fn packs_of_both() {
    Matrix::new().run(&some(&subject().packs["mixed"]));
}

#[test]
fn index_segments() {
    Matrix::new().run(&subject().names("index/"));
}

/// Of the owner and of the writer: the first, on which all others rest, and the last, of which none speaks.
#[test]
fn commits() {
    // Held on to: the next would be made anew, with other names.
    let subject = subject();
    let names: Vec<_> = subject.snapshots.iter().map(|(id, _)| format!("snapshots/{id}")).collect();
    Matrix::new().run(&[names[0].clone(), names[2].clone(), names[3].clone(), names[5].clone()]);
}

#[test]
fn records_of_collections() {
    Matrix::new().run(&subject().names("gc/"));
}

#[test]
fn notes_flags_and_logs() {
    let subject = subject();
    Matrix::new().run(&[subject.names("notes/"), some(&subject.names("flags/")), subject.names("log/")].concat());
}

#[test]
fn change_records_of_machines_without_a_disk() {
    Matrix::new().run(&subject().names("cache/"));
}

/// Every single pack, not only some of them: what a lost one takes with it is known path by path.
#[test]
fn any_pack_that_is_lost() {
    let subject = subject();
    let all: Vec<_> = subject.packs.values().flatten().cloned().collect();
    let mut matrix = Matrix::new();
    matrix.damages = vec![Damage::Deleted];
    matrix.run(&all);
}
