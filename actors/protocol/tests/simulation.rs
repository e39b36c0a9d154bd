//! The register under random schedules and faults, and what happens when a rule is taken out.
//!
//! The cluster is simulated ([`sim`]); a run is a function of its seed. A fixed range of seeds is
//! tried every time, and a few that nobody has tried before. A failure names its seed; this shows
//! every event of it:
//!
//! ```text
//! SEED=17 cargo test -p simpledynamo-protocol --test simulation replay -- --nocapture
//! ```
//!
//! Each control breaks one rule on purpose. A safety rule must object within [`CONTROL_SEEDS`]
//! seeds; that nothing is answered any more, or that replicas never agree, does not count.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(clippy::print_stdout, reason = "figures, shown with --nocapture")]
#![allow(unreachable_pub, missing_docs, reason = "modules of a test")]
#![expect(clippy::disallowed_types, reason = "fresh seeds come from the clock")]

mod sim;

use sim::{
    invariants::Violation,
    mutant::Mutant,
    node::Strategy,
    world::{Ended, World},
};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seeds tried in every run of the tests: about 20 s of one core.
const SEEDS: u64 = 3_000;

/// Seeds drawn afresh each time.
const FRESH_SEEDS: u64 = 200;

/// A broken rule is found within so many seeds.
const CONTROL_SEEDS: u64 = 6_000;

fn run(seed: u64, strategy: Strategy) -> Ended {
    World::new(seed, strategy, None).run().unwrap_or_else(|Violation { rule, text }| {
        let name = format!("{strategy:?}").to_lowercase();
        panic!(
            "rule `{rule}` is broken: {text}\nreplay: STRATEGY={name} SEED={seed} cargo test -p \
             simpledynamo-protocol --test simulation replay -- --nocapture"
        )
    })
}

/// The strategy that the environment names; quorum where it names none.
fn strategy() -> Strategy {
    match std::env::var("STRATEGY").as_deref() {
        Ok("chain") => Strategy::Chain,
        _ => Strategy::Quorum,
    }
}

fn run_all(seeds: impl Iterator<Item = u64>, strategy: Strategy) {
    let (mut steps, mut operations, mut chosen, mut unknown, mut undecided) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let ended = run(seed, strategy);
        steps += ended.steps;
        operations += ended.history.operations.len();
        unknown += ended.history.outcomes().2;
        chosen += ended.chosen;
        undecided += ended.undecided;
    }
    println!(
        "{strategy:?}: {operations} operations ({unknown} unknown), {chosen} states chosen, {undecided} keys \
         undecided, {steps} steps"
    );
    assert!(undecided * 2_000 <= operations, "too much is left undecided");
}

fn fixed_seeds(strategy: Strategy) {
    let from = std::env::var("FROM").ok().and_then(|from| from.parse().ok()).unwrap_or(0);
    let count = std::env::var("COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(SEEDS);
    run_all(from..from + count, strategy);
}

#[test]
fn fixed_seeds_hold_every_rule() {
    fixed_seeds(Strategy::Quorum);
}

#[test]
fn fixed_seeds_hold_every_rule_of_the_chain() {
    fixed_seeds(Strategy::Chain);
}

fn fresh_seeds(strategy: Strategy) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let first = since.as_micros() as u64;
    run_all(first..first + FRESH_SEEDS, strategy);
}

#[test]
fn fresh_seeds_hold_every_rule() {
    fresh_seeds(Strategy::Quorum);
    fresh_seeds(Strategy::Chain);
}

/// Shows the run of `SEED`, every event; without it there is nothing to replay.
#[test]
fn replay() {
    let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) else { return };
    let mut world = World::new(seed, strategy(), None);
    world.log = Some(Vec::new());
    println!("{:?}", world.chaos());
    let ended = world.run();
    for line in world.log.into_iter().flatten() {
        println!("{line}");
    }
    ended.unwrap_or_else(|violation| panic!("rule `{}`: {}", violation.rule, violation.text));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let log = |seed| {
        let strategy = if seed % 2 == 0 { Strategy::Quorum } else { Strategy::Chain };
        let mut world = World::new(seed, strategy, None);
        world.log = Some(Vec::new());
        world.run().expect("a seed that holds every rule");
        world.log
    };
    for seed in [1, 2, 3, 4, 5] {
        assert_eq!(log(seed), log(seed));
    }
    assert_ne!(log(1), log(2));
}

/// The first seed at which a safety rule objects to `mutant`.
fn caught(
    mutant: Mutant,
    strategy: Strategy,
    without: &'static [&'static str],
) -> (u64, Violation) {
    for seed in 0..CONTROL_SEEDS {
        let mut world = World::new(seed, strategy, Some(mutant));
        world.without = without;
        match world.run() {
            Err(violation) if violation.is_about_safety() => {
                println!("{strategy:?} {mutant:?}: seed {seed}, rule `{}`", violation.rule);
                return (seed, violation);
            }
            Ok(_) | Err(_) => {}
        }
    }
    panic!("nothing objects to {mutant:?} in {CONTROL_SEEDS} seeds");
}

macro_rules! controls {
    ($($name:ident: $strategy:ident $mutant:ident,)+) => {
        $(#[test]
        fn $name() {
            caught(Mutant::$mutant, Strategy::$strategy, &[]);
        })+
    };
}

controls! {
    control_a_quorum_of_one: Quorum QuorumOfOne,
    control_a_read_answers_without_write_back: Quorum NoWriteBack,
    control_no_exactly_once_record: Quorum NoExactlyOnce,
    control_a_volatile_ceiling: Quorum VolatileCeiling,
    control_an_answer_before_the_sync: Quorum AnswerBeforeSync,
    control_a_ballot_used_again_after_a_time_out: Quorum BallotReused,
    control_installing_whatever_is_larger: Quorum InstallLarger,
    control_a_failed_condition_of_a_retry_unrecorded: Quorum FailureUnrecorded,
    control_a_learner_votes_at_once: Quorum LearnerVotes,
    control_votes_of_a_life_before_the_store_was_lost: Quorum FormerLifeVotes,
    control_unknown_told_as_not_applied: Quorum UnknownToldAsNotApplied,
    control_chain_a_tail_answers_without_confirming: Chain TailUnconfirmed,
    control_chain_a_suspicion_alone_changes_it: Chain SuspicionChanges,
    control_chain_an_old_epoch_is_accepted: Chain OldEpochAccepted,
    control_chain_a_new_head_forgets_what_is_in_flight: Chain HeadForgets,
    control_chain_who_joins_copies_nothing: Chain CopiesNothing,
    control_chain_a_restarted_node_forgets_its_epoch: Chain VolatileSeat,
    control_chain_no_exactly_once_record: Chain NoExactlyOnce,
    control_chain_an_answer_before_the_sync: Chain AnswerBeforeSync,
    control_chain_unknown_told_as_not_applied: Chain UnknownToldAsNotApplied,
}

/// Not only the rule about what replicas hold objects: what clients saw is lost.
#[test]
fn installing_whatever_is_larger_loses_what_was_chosen_or_read() {
    let (_, violation) = caught(Mutant::InstallLarger, Strategy::Quorum, &["held"]);
    assert!(["chosen", "linearizability"].contains(&violation.rule), "{violation:?}");
}

/// Nor only the rules about what members hold and which chains there are.
#[test]
fn broken_rules_of_the_chain_are_seen_by_clients() {
    for mutant in [Mutant::HeadForgets, Mutant::VolatileSeat] {
        let inner = &["order", "epochs", "stamps", "chosen"];
        let (_, violation) = caught(mutant, Strategy::Chain, inner);
        assert!(["linearizability", "counts"].contains(&violation.rule), "{violation:?}");
    }
}
