//! What must hold at every moment.

use crate::State;
use crate::collector;
use crate::scene::Scene;
use crate::set::Set;

/// What is wrong, if anything is.
pub fn broken(scene: &Scene, state: &State) -> Option<&'static str> {
    let store = &state.store;
    let said = store.collections(scene, None);
    if !store.reads(scene, scene.rooted) {
        return Some("a snapshot of the beginning has lost something");
    }
    for (number, writer) in state.writers[..scene.wants.len()].iter().enumerate() {
        if writer.made.meets(said.void) {
            return Some("a snapshot that was reported as made is void");
        }
        if !writer.made.is_empty() && !store.reads(scene, scene.wants[number]) {
            return Some("a snapshot that was reported as made has lost something");
        }
    }
    // A commit that was asked may be incomplete until that is resolved: nobody relies on it. Any other that
    // counts is there for everybody to restore.
    let counts = store.committed - said.void;
    let roots = counts - store.asked(&said) - store.superseded(scene, counts);
    if roots.iter().any(|session| !store.reads(scene, scene.needs(session))) {
        return Some("a snapshot that counts has lost something");
    }
    None
}

/// Things that happen in a run worth its while.
pub const MARKS: [&str; 11] = [
    "a snapshot was made",
    "a pack was deleted",
    "a session is void though it has committed",
    "a session that was asked counts",
    "a pack was condemned and spared",
    "packs were rewritten",
    "an abandoned collection was ended by another",
    "a collection refused",
    "a collection answered for another",
    "a late sweep was overruled",
    "a collection spared all for a doubt",
];

/// Which of [`MARKS`] have come about.
pub fn marks(scene: &Scene, state: &State) -> Set {
    let store = &state.store;
    let said = store.collections(scene, None);
    let dead = said.dead - store.packs;
    let swept = store.has_swept & store.has_condemned;
    let spared = swept.iter().any(|one| !(store.condemned[one] - store.dead[one]).is_empty());
    let repacked = (0..scene.collectors * scene.rounds).any(|one| store.committed.has(scene.repacker(one)));
    let refused = state.collectors.iter().any(|collector| collector.step == collector::Step::Refused);
    let void = store.has_swept.iter().fold(Set::EMPTY, |all, one| all | store.void[one]);
    let overruled = !(void - said.void).is_empty();
    let found = [
        state.writers.iter().any(|writer| !writer.made.is_empty()),
        !dead.is_empty(),
        store.committed.meets(said.void),
        (store.committed - said.void).meets(store.flagged() - store.asked(&said)),
        spared,
        repacked,
        !(store.has_done - store.has_swept).is_empty(),
        refused,
        store.counted.iter().any(|counted| !counted.is_empty()),
        overruled,
        state.collectors.iter().any(|collector| collector.step == collector::Step::G6Doubts),
    ];
    Set::of(found.iter().enumerate().filter(|(_, found)| **found).map(|(mark, _)| mark))
}
