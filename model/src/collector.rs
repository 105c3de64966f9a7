//! A collection: G1 to G8, as `esker::prune` has them.

use crate::scene::{COLLECTIONS, Rule, SESSIONS, Scene};
use crate::set::Set;
use crate::store::{Change, SaidBy, Store};
use crate::{Listed, State, Steps, Who};

/// What a collector does next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[allow(missing_docs)]
pub enum Step {
    #[default]
    G1ListPacks,
    G2ListSessions,
    G2ListCommits,
    G2ReadGc,
    G2ListFlags,
    G2ReadSweeps,
    G3ListPacks,
    /// Repacking, in a session of its own; it relies on nothing, so W2 to W4 are left out.
    W1Announce,
    W5ReadPacks,
    W5PutPack,
    W7Commit,
    W8ListFlags,
    W8ReadSweeps,
    G3Condemn,
    G4ListSessions,
    G5Wait,
    G5LookForCommit,
    G6ListCommits,
    G6ReadGc,
    G6ListFlags,
    G6ReadSweeps,
    G6ListPacks,
    G6Doubts,
    G6ReadAnswers,
    G6Sweep,
    G8ListDead,
    G8DeletePacks,
    G8Clear,
    G8Done,
    G8EndOthers,
    Ended,
    /// Something live was found nowhere: it has deleted nothing.
    Refused,
}

/// A collector and what it remembers. What is not needed any more is forgotten, so that states become equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Collector {
    /// Its next step.
    pub step: Step,
    /// How many collections it has made.
    pub round: u8,
    /// A list it is in the midst of.
    begun: Option<Set>,
    /// What it has seen of the repository.
    look: Look,
    /// Packs it rewrites, or has rewritten.
    repack: Set,
    /// The chunks it keeps of these.
    keeps: Set,
    /// Packs it condemns; those it has condemned; those it calls dead.
    garbage: Set,
    /// Sessions it waits for.
    waiting: Set,
    /// The session it has just asked.
    asking: Option<u8>,
    /// Sessions that others have asked and not answered for; they are asked again.
    again: Set,
    /// Those of them that counted when it looked, with all that they need.
    whole: Set,
    /// The generation in the collection's id.
    generation: u8,
    /// Sessions it has asked.
    asked: Set,
    /// Sessions that had not committed when they were asked; then those it calls void.
    void: Set,
    /// Sessions it says count.
    counted: Set,
    /// Packs it has still to delete.
    deletes: Set,
}

/// A look at the repository.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Look {
    /// The packs that were there before anything else was looked at.
    candidates: Set,
    /// Sessions that are announced; then those of them that are open.
    open: Set,
    /// Sessions that have committed; then those that count.
    counts: Set,
    /// Packs another unfinished collection condemns.
    condemned: Set,
    /// Packs that are dead.
    dead: Set,
    /// Sessions that are void.
    void: Set,
    /// Who has said that a session is void, or counts.
    said_by: SaidBy,
    /// Collections that have swept.
    swept: Set,
    /// Flags, by collection.
    flags: [Set; COLLECTIONS],
    /// Sessions that were asked by a collection that has not swept, or have become void since `gc/` was read.
    uncertain: Set,
    /// Sessions of which something is asked.
    again: Set,
    /// The highest generation of those who ask.
    generation: u8,
    /// Sessions that are void, unless what is asked is answered otherwise.
    doubtful: Set,
}

/// What one way of keeping all that is live comes to.
struct Choice {
    /// For each live chunk, the packs it is kept in.
    kept: Vec<(usize, Set)>,
    /// Packs another collection may delete though they hold the only copies of live chunks.
    rescue: Set,
}

impl Look {
    /// Whether commits or sweeps have changed since.
    fn is_outrun(&self, scene: &Scene, store: &Store) -> bool {
        let now = store.collections(scene, None);
        (now.dead, now.void) != (self.dead, self.void) || store.committed - now.void != self.counts
    }

    /// Packs that count.
    fn named(&self, scene: &Scene, store: &Store) -> Set {
        store.named(scene, self.counts, self.dead)
    }

    /// Every way of keeping what is live (G3). None when something is nowhere.
    fn choices(&self, scene: &Scene, store: &Store, stored: Set, avoid: Set) -> Option<Vec<Choice>> {
        let there = self.named(scene, store) & stored;
        let usable = there - self.condemned - scene.packs_of(self.uncertain);
        let trusted = match scene.keeps(Rule::KeepAtTrustedLocations) {
            true => scene.trusted(),
            false => Set::of(0..16),
        };
        let mut choices = vec![Choice { kept: Vec::new(), rescue: Set::EMPTY }];
        for chunk in store.live(scene, self.counts).iter() {
            let places = store.holders(scene, chunk, usable);
            let best = places & trusted;
            let best = if (best - avoid).is_empty() { best } else { best - avoid };
            let ways: Vec<(Set, Set)> = if !best.is_empty() {
                best.iter().map(|pack| (Set::only(pack), Set::EMPTY)).collect()
            } else if !places.is_empty() {
                vec![(places, Set::EMPTY)]
            } else {
                // It stays where it is: it is copied from there, or its session is asked by whoever flagged it.
                let all = store.holders(scene, chunk, there);
                if all.is_empty() {
                    return None;
                }
                vec![(all, all & self.condemned)]
            };
            let with = |choice: &Choice, (at, rescue): &(Set, Set)| {
                let kept = choice.kept.iter().copied().chain([(chunk, *at)]).collect();
                Choice { kept, rescue: choice.rescue | *rescue }
            };
            choices = choices.iter().flat_map(|choice| ways.iter().map(move |way| with(choice, way))).collect();
        }
        Some(choices)
    }

    /// Packs of which nothing is kept. None when a pack's session has neither announcement nor commit.
    fn garbage(&self, scene: &Scene, store: &Store, choice: &Choice) -> Option<Set> {
        let named = self.named(scene, store);
        let kept = choice.kept.iter().fold(Set::EMPTY, |all, (_, packs)| all | *packs);
        let uncertain = scene.packs_of(self.uncertain);
        let strays = self.candidates - named - self.dead;
        let closed = self.counts | self.void;
        let lost = |pack: usize| scene.session_of(pack).is_some_and(|of| !closed.has(of) && !self.open.has(of));
        if strays.iter().any(lost) {
            return None;
        }
        let strays = strays - scene.packs_of(self.open) - uncertain;
        Some(self.candidates & ((named - kept - uncertain) | strays))
    }
}

impl Choice {
    /// Packs of which something is kept, and not everything.
    fn partly_kept(&self, scene: &Scene, store: &Store) -> Set {
        let kept = |pack: usize| self.kept.iter().filter(move |(_, at)| at.has(pack)).map(|(chunk, _)| *chunk);
        Set::of((0..16).filter(|&pack| {
            let kept = Set::of(kept(pack));
            !kept.is_empty() && kept != store.holds(scene, pack)
        }))
    }

    /// The chunks that are kept in these packs.
    fn kept_in(&self, packs: Set) -> Set {
        Set::of(self.kept.iter().filter(|(_, at)| at.meets(packs)).map(|(chunk, _)| *chunk))
    }
}

impl Collector {
    /// Begins another collection, if it makes that many.
    fn begin_anew(&mut self, scene: &Scene, ended: Step) {
        let round = self.round + 1;
        *self = match usize::from(round) < scene.rounds {
            true => Self { round, ..Self::default() },
            false => Self { round: self.round, step: ended, ..Self::default() },
        };
    }
}

/// What a collector may do next.
pub(crate) fn steps(steps: &mut Steps<'_>, number: usize) {
    let (scene, state) = (steps.scene, steps.state);
    let (store, one) = (&state.store, &state.collectors[number]);
    let who = Who::Collector(number);
    let id = scene.collection(number, one.round.into());
    let repacker = scene.repacker(id);
    let may_retry = usize::from(one.round) + 1 < scene.rounds;
    let to = |step: Step| move |state: &mut State| state.collectors[number].step = step;
    let stop = |state: &mut State| state.collectors[number].begin_anew(scene, Step::Ended);
    let stop: Option<&dyn Fn(&mut State)> = may_retry.then_some(&stop as _);
    let refuse = |state: &mut State| state.collectors[number].begin_anew(scene, Step::Refused);
    let before = number.checked_sub(1).map(|before| &state.collectors[before]);
    let has_asked = |one: &Collector| one.step > Step::G5Wait || one.step == Step::G5Wait && !one.asked.is_empty();
    if scene.staged && !before.is_none_or(has_asked) {
        return;
    }
    match one.step {
        Step::G1ListPacks if number > 0 && !scene.keeps(Rule::NeverResumed) => {
            if store.has_condemned.has(id) {
                steps.go(who, "takes up the first collector's collection", store.condemned[id], |state| {
                    state.collectors[number].garbage = store.condemned[id];
                    state.collectors[number].step = Step::G4ListSessions;
                });
            }
        }
        Step::G1ListPacks => steps.go(who, "G1 lists packs", store.packs, |state| {
            state.collectors[number].look.candidates = store.packs;
            state.collectors[number].step = Step::G2ListSessions;
        }),
        Step::G2ListSessions => steps.go(who, "G2 lists sessions", store.announced, |state| {
            state.collectors[number].look.open = store.announced;
            state.collectors[number].step = Step::G2ListCommits;
        }),
        Step::G2ListCommits => list_commits(steps, number, "G2 lists commits", Step::G2ReadGc),
        Step::G2ReadGc => read_gc(steps, number, "G2 reads gc/, condemned:", Step::G2ListFlags),
        Step::G2ListFlags => list_flags(steps, number, "G2 lists flags", Step::G2ReadSweeps),
        Step::G2ReadSweeps => read_sweeps(steps, number, "G2 reads sweeps again, void:", Step::G3ListPacks),
        Step::G3ListPacks => mark(steps, number),
        Step::W1Announce => {
            let change = Change::Announce { session: repacker };
            steps.send(who, "W1 announces", Set::only(repacker), change, to(Step::W5ReadPacks), stop);
        }
        Step::W5ReadPacks => match (one.repack - store.packs).is_empty() {
            true => steps.go(who, "W5 reads packs", one.repack, to(Step::W5PutPack)),
            false => steps.go(who, "W5 finds packs gone", one.repack - store.packs, refuse),
        },
        Step::W5PutPack => {
            let change = Change::Pack { pack: scene.pack(repacker), session: repacker, holds: one.keeps };
            let then = |state: &mut State| {
                state.collectors[number].keeps = Set::EMPTY;
                state.collectors[number].step = Step::W7Commit;
            };
            steps.send(who, "W5 puts a pack with", one.keeps, change, then, stop);
        }
        Step::W7Commit => {
            let change = Change::Commit { session: repacker, replaces: Set::EMPTY };
            steps.send(who, "W7 commits", Set::only(repacker), change, to(Step::W8ListFlags), stop);
        }
        Step::W8ListFlags => match store.flagged().has(repacker) {
            true => steps.go(who, "W8 finds a flag", Set::only(repacker), refuse),
            false => steps.go(who, "W8 finds no flag", Set::only(repacker), to(Step::W8ReadSweeps)),
        },
        Step::W8ReadSweeps => match store.collections(scene, None).said_by[repacker] != 0 {
            true => steps.go(who, "W8 finds a sweep", Set::only(repacker), refuse),
            // What was rewritten has a place in the new pack; everything is looked at afresh.
            false => steps.go(who, "W8 has repacked", one.repack, to(Step::G1ListPacks)),
        },
        Step::G3Condemn => {
            let change = Change::Condemned { collection: id, packs: one.garbage };
            steps.send(who, "G3 condemns", one.garbage, change, to(Step::G4ListSessions), stop);
        }
        Step::G4ListSessions => {
            // Sessions that are void are left out, by a look at `gc/` just before.
            let waiting = match scene.keeps(Rule::DrainOpenSessions) {
                true => store.announced - store.collections(scene, None).void,
                false => Set::EMPTY,
            };
            steps.go(who, "G4 lists sessions", waiting, |state| {
                state.collectors[number].waiting = waiting;
                state.collectors[number].step = Step::G5Wait;
            });
        }
        Step::G5Wait => {
            if one.waiting.meets(store.committed) {
                steps.go(who, "G5 sees commits", one.waiting & store.committed, |state| {
                    state.collectors[number].waiting = one.waiting - store.committed;
                });
            }
            for session in (one.waiting | one.again).iter() {
                let change = Change::Flag { session, collection: id, generation: one.generation };
                let then = |state: &mut State| {
                    let one = &mut state.collectors[number];
                    one.asking = Some(session as u8);
                    one.asked |= Set::only(session);
                    one.step = Step::G5LookForCommit;
                };
                steps.send(who, "G5 asks", Set::only(session), change, then, stop);
            }
            // Whoever condemns nothing need not wait.
            if one.again.is_empty() && (one.waiting.is_empty() || one.garbage.is_empty()) {
                steps.go(who, "G5 waits no more", one.waiting, |state| {
                    let one = &mut state.collectors[number];
                    one.waiting = Set::EMPTY;
                    one.step = match (one.garbage.is_empty(), !one.asked.is_empty()) {
                        (false, _) => Step::G6ListCommits,
                        (true, true) => Step::G6ReadAnswers,
                        (true, false) => Step::G8ListDead,
                    };
                });
            }
        }
        Step::G5LookForCommit => {
            let asked = Set::of(one.asking.map(usize::from));
            let counts = asked.meets(store.committed) && scene.keeps(Rule::LookForCommit);
            let what = if counts { "G5 finds the commit of" } else { "G5 finds no commit of" };
            steps.go(who, what, asked, |state| {
                let one = &mut state.collectors[number];
                one.waiting = one.waiting - asked;
                one.again = one.again - asked;
                one.asking = None;
                if !counts {
                    one.void |= asked;
                }
                one.step = Step::G5Wait;
                if !scene.keeps(Rule::FlagsGoAfterSweep) {
                    state.store.apply(Change::DeleteFlags { sessions: asked, collection: id });
                }
            });
        }
        Step::G6ListCommits => list_commits(steps, number, "G6 lists commits", Step::G6ReadGc),
        Step::G6ReadGc => read_gc(steps, number, "G6 reads gc/, condemned by others:", Step::G6ListFlags),
        Step::G6ListFlags => list_flags(steps, number, "G6 lists flags", Step::G6ReadSweeps),
        Step::G6ReadSweeps => read_sweeps(steps, number, "G6 reads sweeps again, void:", Step::G6ListPacks),
        Step::G6ListPacks => look_again(steps, number),
        Step::G6Doubts => steps.go(who, "G6 spares all, for a doubt", one.garbage, |state| {
            let one = &mut state.collectors[number];
            one.garbage = Set::EMPTY;
            one.step = if one.asked.is_empty() { Step::G6Sweep } else { Step::G6ReadAnswers };
        }),
        Step::G6ReadAnswers => {
            let said = store.collections(scene, None);
            let answered = match scene.keeps(Rule::AnswersAreTakenOver) {
                true => Set::of(one.asked.iter().filter(|&session| said.said_by[session] != 0)),
                false => Set::EMPTY,
            };
            steps.go(who, "G6 reads answers of others:", answered, |state| {
                let one = &mut state.collectors[number];
                let counts = match scene.keeps(Rule::LookedBeforeCounting) {
                    true => (one.whole & one.asked) - one.void,
                    false => one.asked - one.void,
                };
                one.void = (answered & said.void) | (one.void - answered);
                one.counted = (answered - said.void) | (counts - answered);
                (one.asked, one.whole) = Default::default();
                one.step = Step::G6Sweep;
            });
        }
        Step::G6Sweep => {
            let Collector { generation, garbage: dead, void, counted, .. } = *one;
            let change = Change::Swept { collection: id, generation, dead, void, counted };
            let then = |state: &mut State| {
                let one = &mut state.collectors[number];
                *one = Collector { round: one.round, step: Step::G8ListDead, ..Collector::default() };
                if scene.staged && number + 1 < scene.collectors {
                    one.begin_anew(scene, Step::Ended);
                }
            };
            steps.send(who, "G6 sweeps", one.garbage, change, then, stop);
        }
        Step::G8ListDead => {
            let dead = store.collections(scene, None).dead & store.packs;
            steps.go(who, "G8 lists dead packs", dead, |state| {
                state.collectors[number].deletes = dead;
                state.collectors[number].step = Step::G8DeletePacks;
            });
        }
        Step::G8DeletePacks => match one.deletes.first() {
            Some(pack) => {
                let then = |state: &mut State| {
                    let one = &mut state.collectors[number];
                    one.deletes = one.deletes - Set::only(pack);
                };
                steps.send(who, "G8 deletes", Set::only(pack), Change::DeletePack { pack }, then, stop);
            }
            None => steps.go(who, "G8 has deleted all", Set::EMPTY, to(Step::G8Clear)),
        },
        Step::G8Clear => {
            let said = store.collections(scene, None);
            let answered = |one: usize| {
                let answered = |&session: &usize| !store.asks(one, session, said.swept, &said.said_by);
                Set::of(store.flags[one].iter().filter(answered))
            };
            let answered = (0..COLLECTIONS).map(|one| (one, answered(one))).find(|(_, of)| !of.is_empty());
            let over = (store.announced & (store.committed | said.void)).first();
            if let Some((collection, sessions)) = answered {
                let change = Change::DeleteFlags { sessions, collection };
                steps.send(who, "G8 deletes flags of", sessions, change, |_| {}, stop);
            } else if let Some(session) = over {
                let change = Change::DeleteAnnouncement { session };
                steps.send(who, "G8 deletes the announcement of", Set::only(session), change, |_| {}, stop);
            } else {
                steps.go(who, "G8 has cleared all", Set::EMPTY, to(Step::G8Done));
            }
        }
        Step::G8Done if store.has_swept.has(id) => {
            let change = Change::Done { collection: id };
            steps.send(who, "G8 is done", Set::EMPTY, change, to(Step::G8EndOthers), stop);
        }
        Step::G8Done => steps.go(who, "G8 has nothing to say", Set::EMPTY, to(Step::G8EndOthers)),
        Step::G8EndOthers => {
            let gone = |&other: &usize| !store.condemned[other].meets(store.packs);
            match (store.unfinished() - Set::only(id)).iter().find(gone) {
                Some(collection) => {
                    let change = Change::Done { collection };
                    steps.send(who, "G8 ends a collection that was abandoned", Set::EMPTY, change, |_| {}, stop);
                }
                None => steps.go(who, "G8 has ended", Set::EMPTY, |state| {
                    state.collectors[number].begin_anew(scene, Step::Ended);
                }),
            }
        }
        Step::Ended | Step::Refused => {}
    }
    if scene.stops && may_retry && !matches!(one.step, Step::G1ListPacks | Step::Ended | Step::Refused) {
        steps.go(who, "stops; its collection is abandoned", Set::EMPTY, |state| {
            state.collectors[number].begin_anew(scene, Step::Ended);
        });
    }
}

fn list_commits(steps: &mut Steps<'_>, number: usize, what: &'static str, next: Step) {
    let (who, begun) = (Who::Collector(number), steps.state.collectors[number].begun);
    match steps.listed(begun, steps.state.store.committed) {
        Listed::Begun(begun) => steps.go(who, "begins to list commits", begun, |state| {
            state.collectors[number].begun = Some(begun);
        }),
        Listed::All(lists) => lists.into_iter().for_each(|seen| {
            steps.go(who, what, seen, |state| {
                let one = &mut state.collectors[number];
                one.begun = None;
                one.look.counts = seen;
                one.look.open = one.look.open - seen;
                one.step = next;
            });
        }),
    }
}

fn read_gc(steps: &mut Steps<'_>, number: usize, what: &'static str, next: Step) {
    let id = steps.scene.collection(number, steps.state.collectors[number].round.into());
    let said = steps.state.store.collections(steps.scene, Some(id));
    steps.go(Who::Collector(number), what, said.condemned, |state| {
        let look = &mut state.collectors[number].look;
        look.open = look.open - said.void;
        look.counts = look.counts - said.void;
        (look.condemned, look.dead, look.void, look.swept) = (said.condemned, said.dead, said.void, said.swept);
        look.said_by = said.said_by;
        state.collectors[number].step = next;
    });
}

fn list_flags(steps: &mut Steps<'_>, number: usize, what: &'static str, next: Step) {
    let one = &steps.state.collectors[number];
    let store = &steps.state.store;
    let asked = store.open(&store.flags, 0, one.look.swept, &one.look.said_by);
    steps.go(Who::Collector(number), what, asked, |state| {
        let look = &mut state.collectors[number].look;
        for (known, now) in look.flags.iter_mut().zip(state.store.flags) {
            // Only these matter.
            *known = now & (look.counts | look.open | look.void);
        }
        state.collectors[number].step = next;
    });
}

/// Whoever misses a flag since it was answered sees the answer.
fn read_sweeps(steps: &mut Steps<'_>, number: usize, what: &'static str, next: Step) {
    let (scene, store) = (steps.scene, &steps.state.store);
    let said = store.collections(scene, None);
    let id = scene.collection(number, steps.state.collectors[number].round.into());
    let again = scene.keeps(Rule::CollectorsReadSweepsAgain);
    steps.go(Who::Collector(number), what, said.void, |state| {
        let look = &mut state.collectors[number].look;
        if again {
            look.swept = said.swept;
            if scene.keeps(Rule::NewAnswersAreUncertain) {
                look.uncertain =
                    Set::of((0..SESSIONS).filter(|&session| said.said_by[session] != look.said_by[session]));
                look.doubtful = look.uncertain & look.void;
            } else {
                look.uncertain = said.void - look.void;
            }
        }
        look.uncertain |= store.open(&look.flags, 0, look.swept, &look.said_by);
        let mut others = look.flags;
        others[id] = Set::EMPTY;
        look.again = store.open(&others, 0, look.swept, &look.said_by);
        let asks = |&one: &usize| {
            others[one].iter().any(|session| store.asks(one, session, look.swept, &look.said_by))
        };
        look.generation = (0..COLLECTIONS).filter(asks).map(|one| store.generation[one] + 1).max().unwrap_or(0);
        look.doubtful |= look.void & store.open(&others, 1, look.swept, &look.said_by);
        if !scene.keeps(Rule::DoubtSpares) {
            look.doubtful = Set::EMPTY;
        }
        (look.swept, look.said_by, look.flags) = Default::default();
        state.collectors[number].step = next;
    });
}

/// Chooses what to keep, and with it what to rewrite or what to condemn (G3).
fn mark(steps: &mut Steps<'_>, number: usize) {
    let (scene, store, who) = (steps.scene, &steps.state.store, Who::Collector(number));
    let one = &steps.state.collectors[number];
    let look = &one.look;
    let refuse = |state: &mut State| state.collectors[number].begin_anew(scene, Step::Refused);
    let Some(choices) = look.choices(scene, store, store.packs, one.repack) else {
        if look.is_outrun(scene, store) {
            // Another has moved it, or it is not live any more.
            return steps.go(who, "G3 looks again", Set::EMPTY, |state| {
                state.collectors[number].look = Look::default();
                state.collectors[number].step = Step::G1ListPacks;
            });
        }
        return steps.go(who, "G3 refuses: something live is nowhere", Set::EMPTY, refuse);
    };
    let whole = |rescue: Set| match rescue.is_empty() || !scene.keeps(Rule::WholeBeforeCounting) {
        true => look.again & look.counts,
        false => Set::EMPTY,
    };
    // Ways that come to the same are one.
    let mut known = Vec::new();
    for choice in &choices {
        let Some(garbage) = look.garbage(scene, store, choice) else {
            return steps.go(who, "G3 refuses: a session has lost its commit", Set::EMPTY, refuse);
        };
        let certain = look.candidates & scene.trusted() & (look.named(scene, store) - scene.packs_of(look.uncertain));
        let partly = (choice.partly_kept(scene, store) & certain) - garbage;
        // Once it has rewritten it rewrites no more.
        let ways = match (one.repack.is_empty(), scene.repack && !partly.is_empty()) {
            (false, _) => vec![Set::EMPTY],
            (true, false) => vec![choice.rescue],
            (true, true) => vec![choice.rescue, choice.rescue | partly],
        };
        for repack in ways {
            let way = match repack.is_empty() {
                _ if !look.doubtful.is_empty() => (Set::EMPTY, Set::EMPTY, Set::EMPTY, whole(choice.rescue)),
                true => (Set::EMPTY, Set::EMPTY, garbage, whole(choice.rescue)),
                false => (repack, choice.kept_in(repack), Set::EMPTY, Set::EMPTY),
            };
            if !known.contains(&way) {
                known.push(way);
            }
        }
    }
    let (again, generation) = (look.again, look.generation);
    for (repack, keeps, garbage, whole) in known {
        let (what, on, step) = match (repack.is_empty(), garbage.is_empty()) {
            (false, _) => ("G3 chooses to rewrite", repack, Step::W1Announce),
            (true, false) => ("G3 finds garbage", garbage, Step::G3Condemn),
            (true, true) => ("G3 finds no garbage", garbage, Step::G4ListSessions),
        };
        steps.go(who, what, on, |state| {
            let one = &mut state.collectors[number];
            *one = Collector { round: one.round, step, repack, keeps, garbage, ..Collector::default() };
            if step != Step::W1Announce {
                (one.again, one.whole, one.generation) = (again, whole, generation);
            }
        });
    }
}

/// Takes off what is needed after all (G6).
fn look_again(steps: &mut Steps<'_>, number: usize) {
    let (scene, store, who) = (steps.scene, &steps.state.store, Who::Collector(number));
    let one = &steps.state.collectors[number];
    let look = &one.look;
    let named = look.named(scene, store);
    let mut safe = (named & store.packs) - one.garbage;
    if scene.keeps(Rule::KeepAtTrustedLocations) {
        safe = safe & scene.trusted();
    }
    if scene.keeps(Rule::OthersCondemned) {
        safe = safe - look.condemned;
    }
    if scene.keeps(Rule::AskedIsNotSafe) {
        safe = safe - scene.packs_of(look.uncertain);
    }
    let mut spared = Set::EMPTY;
    for chunk in store.live(scene, look.counts).iter() {
        if store.holders(scene, chunk, named).is_empty() && look.is_outrun(scene, store) {
            return steps.go(who, "G6 looks again", Set::EMPTY, |state| {
                state.collectors[number].look = Look::default();
                state.collectors[number].step = Step::G6ListCommits;
            });
        }
        if store.holders(scene, chunk, named).is_empty() {
            return steps.go(who, "G6 refuses: something live is nowhere", Set::EMPTY, |state| {
                state.collectors[number].begin_anew(scene, Step::Refused);
            });
        }
        if store.holders(scene, chunk, safe).is_empty() {
            spared |= store.holders(scene, chunk, one.garbage);
        }
    }
    if !scene.keeps(Rule::Rescue) {
        spared = Set::EMPTY;
    }
    let doubts = !look.doubtful.is_empty();
    steps.go(who, "G6 spares", spared, |state| {
        let one = &mut state.collectors[number];
        one.look = Look::default();
        one.garbage = one.garbage - spared;
        one.step = match (doubts, one.asked.is_empty()) {
            (true, _) => Step::G6Doubts,
            (false, true) => Step::G6Sweep,
            (false, false) => Step::G6ReadAnswers,
        };
    });
}
