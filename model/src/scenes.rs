//! The scenes that are explored. Chunks and packs have numbers; the packs of the beginning come first.

use crate::scene::Scene;

/// How much of a scene is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// With every change of the project.
    Ci,
    /// Before a release: all of it within minutes.
    Full,
    /// As deep as time and memory allow.
    Soak,
}

/// Their names, how large they are, and they themselves.
pub fn all() -> Vec<(&'static str, Size, Scene)> {
    use Size::{Ci, Full, Soak};
    // Two backups want what is garbage, in one pack and in two.
    let garbage = Scene::new(&[&[0, 1]], &[], &[&[0, 1], &[0]], 1);
    // A snapshot needs one chunk of two that lie in one pack; the other chunk has another copy.
    let shared = Scene::new(&[&[0, 1], &[0]], &[1], &[&[0, 1], &[0]], 1);
    // Two collectors may each keep what the other condemns.
    let copies = Scene::new(&[&[0], &[0]], &[0], &[&[0]], 2);
    let junk = |scene: &Scene| {
        let mut scene = scene.clone();
        scene.base[1].genuine = false;
        scene
    };
    let again = |scene: &Scene| Scene { stops: true, attempts: 2, rounds: 2, ..scene.clone() };
    let alone = Scene::new(&[&[0, 1]], &[1], &[&[0, 1]], 1);
    let repack = |scene: &Scene| Scene { repack: true, ..scene.clone() };
    let pages = |scene: &Scene| Scene { pages: true, ..scene.clone() };
    let late = |scene: &Scene| Scene { late: true, ..scene.clone() };
    // A backup is asked by three collectors, one after the other.
    let asked = Scene::new(&[&[0]], &[], &[&[0]], 3);
    // Another relies on what it has stored.
    let relied = Scene::new(&[], &[], &[&[0], &[0]], 3);
    // Two collectors ask, and may collect again.
    let answered = Scene::new(&[], &[], &[&[0]], 2);
    // Another pack is worth rewriting, so that a collector looks twice.
    let rewritten = Scene::new(&[&[0], &[1, 2]], &[1], &[&[0]], 2);
    let staged = |scene: &Scene| Scene { staged: true, ..scene.clone() };
    let retry = |scene: &Scene| Scene { attempts: 2, ..scene.clone() };
    let many = Scene::new(&[&[0, 1], &[0, 2]], &[1], &[&[0, 2], &[0, 1]], 2);
    vec![
        ("garbage", Ci, pages(&repack(&garbage))),
        ("shared", Ci, pages(&repack(&shared))),
        ("copies", Ci, copies.clone()),
        ("junk", Ci, junk(&copies)),
        ("again", Ci, again(&repack(&alone))),
        ("late", Ci, late(&again(&Scene::new(&[&[0]], &[], &[&[0]], 1)))),
        ("answered", Ci, Scene { rounds: 2, ..answered.clone() }),
        ("rewritten", Ci, staged(&repack(&rewritten))),
        ("full-asked", Full, staged(&asked)),
        ("full-relied", Full, staged(&relied)),
        ("full-garbage", Full, late(&pages(&repack(&retry(&garbage))))),
        ("full-shared", Full, late(&pages(&repack(&retry(&shared))))),
        ("full-again", Full, late(&pages(&again(&repack(&alone))))),
        ("full-copies", Full, pages(&repack(&retry(&copies)))),
        ("soak", Soak, late(&pages(&again(&repack(&many))))),
    ]
}
