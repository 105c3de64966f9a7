//! Risk: the model agrees with anything, and so says nothing of the protocol.
//! Method: each rule is broken in turn, in a scene in which everything holds as long as it is kept. Some claim
//! must fail. (That a superseded `log/` object is not deleted at once waits for something that folds.)

use esker_model::explore::explore;
use esker_model::scene::{Rule, Scene};

const STATES_MAX: usize = 12_000_000;

/// Two backups want a chunk that is garbage.
fn garbage() -> Scene {
    Scene::new(&[&[0]], &[], &[&[0], &[0]], 1)
}

/// A snapshot needs a chunk of which there are two copies, each of which one of two collectors may keep.
fn copies() -> Scene {
    Scene::new(&[&[0], &[0]], &[0], &[&[0]], 2)
}

fn assert_is_needed(scene: &Scene, rule: Rule, claim: &str) {
    let report = explore(&scene.without(rule), STATES_MAX);
    let (found, way) = report.broken.unwrap_or_else(|| panic!("{} states, and nothing fails", report.states));
    way.iter().for_each(|action| println!("{action}"));
    assert!(found.contains(claim), "found instead: {found}");
}

macro_rules! rules {
    ($($name:ident: $scene:ident without $rule:ident, $claim:literal;)*) => {
        $(#[test]
        fn $name() {
            assert_is_needed(&$scene(), Rule::$rule, $claim);
        })*

        #[test]
        fn every_rule_is_broken_here() {
            let broken = [$(Rule::$rule),*];
            assert!(Rule::ALL.iter().all(|rule| broken.contains(rule)));
        }
    };
}

rules! {
    a_writer_announces_before_it_looks: garbage without AnnounceBeforeLooking, "has lost something";
    condemned_packs_are_not_relied_on: garbage without CondemnedIsAvoided, "has lost something";
    sessions_without_a_commit_are_not_relied_on: garbage without OnlyCommittedIsUsable, "has lost something";
    flagged_sessions_are_not_relied_on: garbage without FlaggedIsNotUsable, "has lost something";
    commits_are_listed_before_flags: garbage without CommitsBeforeFlags, "has lost something";
    sweeps_are_read_again_after_flags: garbage without SweepsAreReadAgain, "has lost something";
    collectors_read_sweeps_again_after_flags: copies without CollectorsReadSweepsAgain, "has lost something";
    a_writer_looks_for_flags_after_its_commit: garbage without LookForFlags, "is void";
    a_writer_looks_at_the_sweeps_too: garbage without LookAtSweeps, "is void";
    junk_under_the_name_of_a_chunk_is_not_kept_instead: junk without KeepAtTrustedLocations, "has lost something";
    open_sessions_are_waited_for: garbage without DrainOpenSessions, "has lost something";
    a_collector_looks_for_the_commit_after_its_flag: garbage without LookForCommit, "is void";
    what_is_needed_again_is_spared: garbage without Rescue, "has lost something";
    what_other_collections_condemn_is_not_safe: copies without OthersCondemned, "has lost something";
    what_a_session_that_was_asked_has_stored_is_not_safe: garbage without AskedIsNotSafe, "has lost something";
    what_lies_only_where_others_delete_does_not_count: rewritten without WholeBeforeCounting, "has lost something";
    what_committed_after_the_look_does_not_count: asked without LookedBeforeCounting, "has lost something";
    what_a_sweep_says_is_said_again: answered without AnswersAreTakenOver, "has lost something";
    a_doubt_spares_all: asked without DoubtSpares, "has lost something";
    the_highest_answer_counts: relied without HighestAnswerCounts, "has lost something";
    what_has_just_been_said_is_uncertain: relied without NewAnswersAreUncertain, "has lost something";
    flags_are_deleted_after_the_sweep: garbage without FlagsGoAfterSweep, "is void";
    a_collection_is_not_resumed: copies without NeverResumed, "is void";
    names_of_packs_are_not_used_again: garbage without FreshNames, "has lost something";
}

/// A backup is asked by three collectors, one after the other.
fn asked() -> Scene {
    Scene { staged: true, ..Scene::new(&[&[0]], &[], &[&[0]], 3) }
}

/// A backup relies on what another has stored that is asked by three collectors.
fn relied() -> Scene {
    Scene { staged: true, ..Scene::new(&[], &[], &[&[0], &[0]], 3) }
}

/// What a backup has stored is asked for by two collectors, of which each may collect twice.
fn answered() -> Scene {
    Scene { rounds: 2, ..Scene::new(&[], &[], &[&[0]], 2) }
}

/// Another pack is worth rewriting, so that a collector looks twice.
fn rewritten() -> Scene {
    Scene { staged: true, repack: true, ..Scene::new(&[&[0], &[1, 2]], &[1], &[&[0]], 2) }
}

/// What a stolen credential has put lies beside the true copy.
fn junk() -> Scene {
    let mut scene = copies();
    scene.base[1].genuine = false;
    scene
}

/// The scenes above are sound as long as nothing is broken.
#[test]
fn with_every_rule_kept_nothing_fails() {
    // Of `relied` and `asked` that is the work of `just model-full`.
    for scene in [garbage(), copies(), junk(), answered(), rewritten()] {
        let report = explore(&scene, STATES_MAX);
        assert!(report.complete && report.broken.is_none(), "{:?}", report.broken);
    }
}
