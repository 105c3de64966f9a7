//! Going through all that can happen, breadth first, so that what is found comes with a shortest way to it.
//!
//! Of a state only a fingerprint of 64 bits is kept, and that of the state it came from. Two states of a
//! hundred million share one with a chance of three in ten thousand; one would then be passed over.
//!
//! The crate `stateright` does the same and more. What is needed of it is this file, without its web server.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::scene::Scene;
use crate::set::Set;
use crate::{Action, State, claims};

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// How many states there are, as far as was looked.
    pub states: usize,
    /// How many steps all of them are within.
    pub depth: usize,
    /// Whether that is all.
    pub complete: bool,
    /// The claim that does not hold, and how that came about.
    pub broken: Option<(&'static str, Vec<Action>)>,
    /// Which of [`claims::MARKS`] came about.
    pub marks: Set,
}

/// Goes through every state, up to so many of them.
pub fn explore(scene: &Scene, states_max: usize) -> Report {
    let first = State::new(scene);
    let mut from: HashMap<u64, u64, BuildHasherDefault<Plain>> = HashMap::default();
    from.insert(fingerprint(&first), 0);
    let (mut layer, mut next, mut steps) = (vec![first], Vec::new(), Vec::new());
    let mut report = Report { states: 1, depth: 0, complete: false, broken: None, marks: Set::EMPTY };
    while !layer.is_empty() {
        for state in &layer {
            let at = fingerprint(state);
            steps.clear();
            state.steps(scene, &mut steps);
            for (_, after) in &steps {
                let to = fingerprint(after);
                if let std::collections::hash_map::Entry::Vacant(new) = from.entry(to) {
                    new.insert(at);
                    report.states += 1;
                    report.marks |= claims::marks(scene, after);
                    if let Some(claim) = claims::broken(scene, after) {
                        report.broken = Some((claim, way_to(scene, to, &from)));
                        return report;
                    }
                    next.push(*after);
                }
            }
            if report.states >= states_max {
                return report;
            }
        }
        layer.clear();
        std::mem::swap(&mut layer, &mut next);
        report.depth += 1;
    }
    report.complete = true;
    report
}

/// The steps that lead to a state, found by going them again.
fn way_to(scene: &Scene, end: u64, from: &HashMap<u64, u64, BuildHasherDefault<Plain>>) -> Vec<Action> {
    let mut way = vec![end];
    while let Some(&before) = from.get(&way[way.len() - 1]).filter(|&&before| before != 0) {
        way.push(before);
    }
    let mut state = State::new(scene);
    let mut actions = Vec::new();
    for wanted in way.into_iter().rev().skip(1) {
        let mut steps = Vec::new();
        state.steps(scene, &mut steps);
        let step = steps.into_iter().find(|(_, after)| fingerprint(after) == wanted);
        let (action, after) = step.expect("a state has the steps it had before");
        actions.push(action);
        state = after;
    }
    actions
}

fn fingerprint(state: &State) -> u64 {
    let mut mixer = Mixer(0x9e37_79b9_7f4a_7c15);
    state.hash(&mut mixer);
    mixer.finish()
}

/// Folds what is hashed by wide multiplications.
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, value: u64) {
        let wide = u128::from(self.0 ^ value ^ 0xa076_1d64_78bd_642f) * u128::from(0xe703_7ed1_a0b4_28db_u64);
        self.0 = (wide as u64 ^ (wide >> 64) as u64).wrapping_add(value);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.0.max(1)
    }
}

/// Fingerprints are as good as hashes.
#[derive(Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are kept");
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
