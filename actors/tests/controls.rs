//! Negative controls: the swarm must object to every rule that is taken out, within so many seeds.
//!
//! A test that cannot fail shows nothing. Only what was done wrong counts as found (an invariant, or
//! what clients saw), not that something took too long.
//!
//! `SHOW=1` prints what was found, `OPERATIONS=60` lets clients do no more than that: small pictures.
//! `COUNT=300` goes on to the end of 300 seeds, and tells in how many of them the swarm objects.

#![allow(clippy::print_stdout, reason = "the seed that found each")]

use simpledynamo_actors::harness::{
    broken::Rule,
    swarm::{Broke, Case, Outcome, Selection},
};
use simpledynamo_actors::settings::Replication;
use std::str::FromStr;

/// A rule that is taken out is noticed within so many seeds in which it can matter. The rarest shows in
/// 6 of 1,000: no change of what seeds draw must decide whether a control finds its rule.
const SEEDS: usize = 1_000;

/// Whether anything a seed does can show that the rule is missing: nobody learns anew where no disk
/// is emptied, and most seeds empty none.
fn matters(rule: Rule, case: &Case) -> bool {
    let emptied = |(_, fault): &(usize, String)| fault.ends_with("on an empty disk");
    rule != Rule::LearnerSilent || case.schedule().iter().any(emptied)
}

/// What whoever runs this by hand asks for.
fn number<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The first seed at which the swarm objects.
#[expect(clippy::print_stdout, reason = "which seed found it, for who runs a control by hand")]
fn found(rule: Rule, strategy: Replication) -> Outcome {
    let name = strategy.name();
    let (count, operations) = (number("COUNT"), number("OPERATIONS"));
    let selection = Selection { replication: Some(strategy), operations, ..Selection::default() };
    let all = (0..).map(|seed| (seed, Case::draw(seed).select(selection.clone())));
    let runs = all.filter(|(_, case)| matters(rule, case)).take(count.unwrap_or(SEEDS));
    let (mut first, mut objections) = (None, 0);
    for (seed, case) in runs {
        let outcome = case.without(rule).run();
        if !matches!(outcome.broke, Some(Broke::Invariant | Broke::History)) {
            continue;
        }
        objections += 1;
        let why = outcome.verdict.as_ref().err().map(ToString::to_string).unwrap_or_default();
        println!("{rule:?}, {name}: seed {seed}: {}", why.lines().next().unwrap_or_default());
        if std::env::var_os("SHOW").is_some() {
            println!("{outcome}");
        }
        first.get_or_insert(outcome);
        if count.is_none() {
            break;
        }
    }
    if let Some(count) = count {
        println!("{rule:?}, {name}: {objections} of {count} seeds object");
    }
    let Some(first) = first else {
        panic!(
            "nothing objects to a ring of {name}s without {rule:?} in {} seeds",
            count.unwrap_or(SEEDS)
        );
    };
    first
}

macro_rules! controls {
    ($($name:ident: $rule:ident $strategy:ident,)+) => {
        $(#[test]
        fn $name() {
            assert!(found(Rule::$rule, Replication::$strategy).verdict.is_err());
        })+

        #[test]
        fn every_rule_has_a_control() {
            let all = Rule::ALL.iter();
            let needed: Vec<_> = all
                .flat_map(|rule| rule.strategies().iter().map(|strategy| (*rule, *strategy)))
                .collect();
            let mut controls = vec![$((Rule::$rule, Replication::$strategy),)+];
            controls.sort_by_key(|control| needed.iter().position(|it| it == control));
            assert_eq!(controls, needed);
        }
    };
}

controls! {
    a_quorum_of_one: Majority Quorum,
    a_read_without_write_back: WriteBack Quorum,
    no_exactly_once_record: ExactlyOnce Quorum,
    a_volatile_ceiling: DurableCeiling Quorum,
    an_answer_before_the_sync: AnswerAfterSync Quorum,
    a_ballot_used_again_after_a_time_out: FreshBallot Quorum,
    catch_up_that_copies_whatever_is_larger: InstallChosen Quorum,
    a_failed_condition_of_a_retry_unrecorded: RecordFailure Quorum,
    a_learner_that_votes: LearnerSilent Quorum,
    unknown_told_as_not_applied: HonestUnknown Quorum,
    a_tail_that_asks_nobody: TailConfirms Chain,
    a_suspicion_that_changes_the_chain: RegisterDecides Chain,
    an_old_epoch_that_is_accepted: OldEpochRefused Chain,
    a_new_head_that_forgets: HeadKeeps Chain,
    a_member_that_joins_without_copying: JoinerCopies Chain,
    a_volatile_seat: DurableSeat Chain,
    no_exactly_once_record_in_a_chain: ExactlyOnce Chain,
    an_answer_before_the_sync_in_a_chain: AnswerAfterSync Chain,
    unknown_told_as_not_applied_in_a_chain: HonestUnknown Chain,
}
