//! Negative controls: the swarm must object to every rule that is taken out, within so many seeds.
//!
//! A test that cannot fail shows nothing. Only what was done wrong counts as found (an invariant, or
//! what clients saw), not that something took too long.

#![allow(clippy::print_stdout, reason = "the seed that found each")]

use simpledynamo_actors::harness::{
    broken::Rule,
    swarm::{Broke, Case, Outcome},
};

/// A rule that is taken out is noticed within so many seeds.
const SEEDS: u64 = 150;

/// The first seed at which the swarm objects.
fn found(rule: Rule) -> Outcome {
    for seed in 0..SEEDS {
        let outcome = Case::draw(seed).without(rule).run();
        if matches!(outcome.broke, Some(Broke::Invariant | Broke::History)) {
            let why = outcome.verdict.as_ref().err().map(ToString::to_string).unwrap_or_default();
            println!("{rule:?}: seed {seed}: {}", why.lines().next().unwrap_or_default());
            if std::env::var_os("SHOW").is_some() {
                println!("{outcome}");
            }
            return outcome;
        }
    }
    panic!("nothing objects to a ring without {rule:?} in {SEEDS} seeds");
}

macro_rules! controls {
    ($($name:ident: $rule:ident,)+) => {
        $(#[test]
        fn $name() {
            assert!(found(Rule::$rule).verdict.is_err());
        })+

        #[test]
        fn every_rule_has_a_control() {
            assert_eq!(Rule::ALL, [$(Rule::$rule,)+]);
        }
    };
}

controls! {
    a_quorum_of_one: Majority,
    a_read_without_write_back: WriteBack,
    no_exactly_once_record: ExactlyOnce,
    a_volatile_ceiling: DurableCeiling,
    an_answer_before_the_sync: AnswerAfterSync,
    a_ballot_used_again_after_a_time_out: FreshBallot,
    catch_up_that_copies_whatever_is_larger: InstallChosen,
    a_failed_condition_of_a_retry_unrecorded: RecordFailure,
    a_learner_that_votes: LearnerSilent,
    unknown_told_as_not_applied: HonestUnknown,
}
