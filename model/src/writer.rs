//! A backup: W1 to W8, as `esker::repo::session` has them.

use crate::scene::{COLLECTIONS, Rule, SESSIONS, Scene};
use crate::set::Set;
use crate::store::{Change, SaidBy};
use crate::{Listed, Steps, Who};

/// What a writer does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[allow(missing_docs)]
pub enum Step {
    #[default]
    W1Announce,
    W2ReadGc,
    W3ListCommits,
    W3ListFlags,
    W3ReadSweeps,
    W4ListPacks,
    W5PutPack,
    W7Commit,
    W8ListFlags,
    W8ReadSweeps,
    Ended,
}

/// A backup and what it remembers. What is not needed any more is forgotten, so that states become equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Writer {
    /// Its next step.
    pub step: Step,
    /// How often it has begun anew.
    pub attempt: u8,
    /// The sessions it was told are made (W8).
    pub made: Set,
    /// Its sessions that were asked: the next commit takes their place.
    asked: Set,
    /// A list it is in the midst of.
    begun: Option<Set>,
    /// Packs that are condemned or dead.
    avoid: Set,
    /// Collections that have swept.
    swept: Set,
    /// Sessions that are void.
    void: Set,
    /// Who has said so, or that a session counts.
    said_by: SaidBy,
    /// Sessions that have committed; then those that are usable.
    sessions: Set,
    /// Flags, by collection.
    flags: [Set; COLLECTIONS],
    /// The chunks it has to store.
    stores: Set,
}

impl Writer {
    /// Its first step.
    pub fn begin(&mut self, scene: &Scene) {
        self.step = match scene.keeps(Rule::AnnounceBeforeLooking) {
            true => Step::W1Announce,
            false => Step::W2ReadGc,
        };
    }

    /// Begins anew in another session, if it tries that often.
    fn begin_anew(&mut self, scene: &Scene) {
        let Self { attempt, made, asked, .. } = *self;
        *self = Self { made, asked, step: Step::Ended, ..Self::default() };
        if usize::from(attempt) + 1 < scene.attempts {
            self.attempt = attempt + 1;
            self.begin(scene);
        } else {
            self.attempt = attempt;
        }
    }
}

/// What a writer may do next.
pub(crate) fn steps(steps: &mut Steps<'_>, number: usize) {
    let (scene, state) = (steps.scene, steps.state);
    let (store, writer) = (&state.store, &state.writers[number]);
    let who = Who::Writer(number);
    let session = scene.session(number, writer.attempt.into());
    let may_retry = usize::from(writer.attempt) + 1 < scene.attempts;
    let stop = |state: &mut crate::State| state.writers[number].begin_anew(scene);
    let stop: Option<&dyn Fn(&mut crate::State)> = may_retry.then_some(&stop as _);
    match writer.step {
        Step::W1Announce => {
            let next = match scene.keeps(Rule::AnnounceBeforeLooking) {
                true => Step::W2ReadGc,
                false if writer.stores.is_empty() => Step::W7Commit,
                false => Step::W5PutPack,
            };
            let change = Change::Announce { session };
            let then = move |state: &mut crate::State| state.writers[number].step = next;
            steps.send(who, "W1 announces", Set::only(session), change, then, stop);
        }
        Step::W2ReadGc => {
            let said = store.collections(scene, None);
            steps.go(who, "W2 reads gc/, condemned:", said.condemned, |state| {
                let writer = &mut state.writers[number];
                writer.avoid = said.dead;
                if scene.keeps(Rule::CondemnedIsAvoided) {
                    writer.avoid |= said.condemned;
                }
                (writer.swept, writer.void, writer.said_by) = (said.swept, said.void, said.said_by);
                writer.step = match scene.keeps(Rule::CommitsBeforeFlags) {
                    true => Step::W3ListCommits,
                    false => Step::W3ListFlags,
                };
            });
        }
        Step::W3ListCommits => {
            let mut there = store.committed;
            if !scene.keeps(Rule::OnlyCommittedIsUsable) {
                there |= store.announced;
            }
            match steps.listed(writer.begun, there) {
                Listed::Begun(begun) => steps.go(who, "W3 begins to list commits", begun, |state| {
                    state.writers[number].begun = Some(begun);
                }),
                Listed::All(lists) => lists.into_iter().for_each(|seen| {
                    steps.go(who, "W3 lists commits", seen, |state| {
                        let writer = &mut state.writers[number];
                        writer.begun = None;
                        writer.sessions = seen - writer.void;
                        writer.step = match scene.keeps(Rule::CommitsBeforeFlags) {
                            true => Step::W3ListFlags,
                            false => Step::W3ReadSweeps,
                        };
                    });
                }),
            }
        }
        Step::W3ListFlags => steps.go(who, "W3 lists flags", store.flagged(), |state| {
            let writer = &mut state.writers[number];
            writer.flags = store.flags;
            if scene.keeps(Rule::CommitsBeforeFlags) {
                // Only these matter.
                writer.flags.iter_mut().for_each(|flags| *flags = *flags & writer.sessions);
                writer.step = Step::W3ReadSweeps;
            } else {
                writer.step = Step::W3ListCommits;
            }
        }),
        Step::W3ReadSweeps => {
            let said = store.collections(scene, None);
            let first = writer.said_by;
            let changed = Set::of((0..SESSIONS).filter(|&session| said.said_by[session] != first[session]));
            steps.go(who, "W3 reads gc/ again, condemned:", said.condemned, |state| {
                let writer = &mut state.writers[number];
                if scene.keeps(Rule::SweepsAreReadAgain) {
                    writer.avoid |= said.dead;
                    if scene.keeps(Rule::CondemnedIsAvoided) {
                        writer.avoid |= said.condemned;
                    }
                    writer.void |= said.void;
                    if scene.keeps(Rule::NewAnswersAreUncertain) {
                        writer.void |= changed;
                    }
                    writer.swept |= said.swept;
                }
                writer.sessions = writer.sessions - writer.void;
                if scene.keeps(Rule::FlaggedIsNotUsable) {
                    writer.sessions = writer.sessions - store.open(&writer.flags, 0, writer.swept, &first);
                }
                (writer.void, writer.said_by, writer.swept, writer.flags) = Default::default();
                writer.step = Step::W4ListPacks;
            });
        }
        Step::W4ListPacks => match steps.listed(writer.begun, store.packs) {
            Listed::Begun(begun) => steps.go(who, "W4 begins to list packs", begun, |state| {
                state.writers[number].begun = Some(begun);
            }),
            Listed::All(lists) => lists.into_iter().for_each(|seen| {
                let usable = (scene.base_packs() | scene.packs_of(writer.sessions)) & seen & scene.trusted();
                let found = (usable - writer.avoid).iter().fold(Set::EMPTY, |all, pack| all | store.holds(scene, pack));
                let stores = scene.wants[number] - found;
                steps.go(who, "W4 lists packs and has to store", stores, |state| {
                    let writer = &mut state.writers[number];
                    (writer.begun, writer.avoid, writer.sessions) = Default::default();
                    writer.stores = stores;
                    writer.step = match scene.keeps(Rule::AnnounceBeforeLooking) {
                        false => Step::W1Announce,
                        true if stores.is_empty() => Step::W7Commit,
                        true => Step::W5PutPack,
                    };
                });
            }),
        },
        Step::W5PutPack => {
            let holds = writer.stores;
            let same = (0..scene.base.len()).find(|&pack| scene.base[pack].chunks == holds);
            let change = match same {
                Some(pack) if !scene.keeps(Rule::FreshNames) => Change::Pack { pack, session, holds: Set::EMPTY },
                _ => Change::Pack { pack: scene.pack(session), session, holds },
            };
            let then = move |state: &mut crate::State| {
                state.writers[number].stores = Set::EMPTY;
                state.writers[number].step = Step::W7Commit;
            };
            steps.send(who, "W5 puts a pack with", holds, change, then, stop);
        }
        Step::W7Commit => {
            let change = Change::Commit { session, replaces: writer.asked };
            let then = move |state: &mut crate::State| {
                let writer = &mut state.writers[number];
                match scene.keeps(Rule::LookForFlags) {
                    true => writer.step = Step::W8ListFlags,
                    false => {
                        writer.made |= Set::only(session);
                        writer.step = Step::Ended;
                    }
                }
            };
            steps.send(who, "W7 commits", Set::only(session), change, then, stop);
        }
        Step::W8ListFlags => {
            let flagged = store.flagged().has(session);
            let what = if flagged { "W8 finds a flag" } else { "W8 finds no flag" };
            steps.go(who, what, Set::only(session), |state| {
                let writer = &mut state.writers[number];
                if flagged {
                    writer.asked |= Set::only(session);
                    writer.begin_anew(scene);
                } else if scene.keeps(Rule::LookAtSweeps) {
                    writer.step = Step::W8ReadSweeps;
                } else {
                    writer.made |= Set::only(session);
                    writer.step = Step::Ended;
                }
            });
        }
        Step::W8ReadSweeps => {
            // Whatever a sweep says of it, it has been asked.
            let void = store.collections(scene, None).said_by[session] != 0;
            let what = if void { "W8 finds a sweep" } else { "W8 says that the snapshot is made" };
            steps.go(who, what, Set::only(session), |state| {
                let writer = &mut state.writers[number];
                if void {
                    writer.asked |= Set::only(session);
                    writer.begin_anew(scene);
                } else {
                    writer.made |= Set::only(session);
                    writer.step = Step::Ended;
                }
            });
        }
        Step::Ended => {}
    }
    if scene.stops && may_retry && !matches!(writer.step, Step::W1Announce | Step::Ended) {
        steps.go(who, "stops and begins anew", Set::EMPTY, |state| state.writers[number].begin_anew(scene));
    }
}
