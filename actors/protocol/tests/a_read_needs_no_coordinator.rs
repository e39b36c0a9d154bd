//! Reads that a router makes itself: the rules, one test each. It fails when the rule is taken out of
//! `routing/reading.rs`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    command::{Command, Reply},
    message::{Answer, Held, Message, NoVote, Outcome, Query, Reason, Round, State},
    recent::OpId,
    record::{Datum, Key, Record, Value},
    ring::{NodeId, Ring},
    routing::{Asked, Config, Routing, Step, Verdict},
    time::{Now, Time},
};
use std::{collections::BTreeSet, time::Duration};

const WALL: u64 = 1_700_000_000_000;
const TIMEOUT: Duration = Duration::from_millis(100);

fn ring() -> Ring {
    Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3)
}

fn config(replicas: usize) -> Config {
    Config {
        request_timeout: TIMEOUT,
        deadline: Duration::from_secs(2),
        hedge: Duration::from_millis(10),
        lifetime: Duration::from_secs(1_800),
        reads: Some(replicas / 2 + 1),
        chains: false,
    }
}

/// The replicas of `x`.
fn replicas() -> Vec<NodeId> {
    ring().replicas_of(b"x")
}

/// Of no replica of `x`.
fn stranger() -> NodeId {
    let mut all = [5554, 5556, 5558, 5560, 5562].map(NodeId).into_iter();
    all.find(|node| !replicas().contains(node)).unwrap()
}

fn stamp(version: u64) -> Stamp {
    Stamp { ballot: Ballot { round: 1, node: replicas()[0] }, version }
}

/// What replicas hold after so many writes.
fn holds(version: u64) -> Held {
    let value = Value::from(version.to_string().as_str());
    expiring(version, Datum::Live { value, expires_at: None })
}

fn expiring(version: u64, datum: Datum) -> Held {
    Held::Record(Record { stamp: stamp(version), datum, recent: Default::default() })
}

fn value(version: u64) -> Option<Verdict> {
    Some(Verdict::Reply(Reply::Bulk(Value::from(version.to_string().as_str()))))
}

/// A router and what it wants done.
struct Bench {
    routing: Routing,
    now: Time,
    suspected: Vec<NodeId>,
    steps: Vec<Step>,
}

impl Bench {
    fn new(me: NodeId) -> Bench {
        Bench::of(me, 3)
    }

    /// With so many replicas of a key.
    fn of(me: NodeId, replicas: usize) -> Bench {
        let ring = Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), replicas);
        let routing = Routing::new(me, 7, ring, config(replicas));
        Bench { routing, now: Time(0), suspected: Vec::new(), steps: Vec::new() }
    }

    /// One whose reads take a millisecond as a rule.
    fn measured(me: NodeId) -> Bench {
        let mut bench = Bench::new(me);
        for _ in 0..20 {
            bench.submit(Command::Get);
            let asked = bench.asked();
            bench.now = bench.now + Duration::from_millis(1);
            for (to, query) in asked {
                bench.says(to, &query, holds(1));
            }
            assert_eq!(bench.told(), value(1));
        }
        bench
    }

    fn submit(&mut self, command: Command) -> OpId {
        let now = Now { mono: self.now, wall: WALL };
        let suspected = |node| self.suspected.contains(&node);
        self.routing.submit(now, Key::from("x"), command, suspected, &mut self.steps)
    }

    fn tell(&mut self, from: NodeId, message: Message) {
        let now = Now { mono: self.now, wall: WALL };
        let suspected = |node| self.suspected.contains(&node);
        self.routing.told(now, from, message, suspected, &mut self.steps);
    }

    fn says(&mut self, from: NodeId, query: &Query, held: Held) {
        self.tell(from, State { key: query.key.clone(), ask: query.ask, held }.into());
    }

    fn refuses(&mut self, from: NodeId, query: &Query) {
        let round = Round::Query(query.ask);
        self.tell(from, NoVote { key: query.key.clone(), round, reason: Reason::Learning }.into());
    }

    /// At so many milliseconds.
    fn wake_at(&mut self, millis: u64) {
        self.now = Time(millis * 1_000);
        let suspected = |node| self.suspected.contains(&node);
        self.routing.wake(self.now, suspected, &mut self.steps);
    }

    /// The replicas that are asked what they hold.
    fn asked(&mut self) -> Vec<(NodeId, Query)> {
        let query = |step: &Step| match step {
            Step::Query { to, query, .. } => Some((*to, query.clone())),
            _ => None,
        };
        let asked = self.steps.iter().filter_map(query).collect();
        self.steps.retain(|step| query(step).is_none());
        asked
    }

    fn asked_whom(&mut self) -> Vec<NodeId> {
        self.asked().into_iter().map(|(to, _)| to).collect()
    }

    /// The coordinators that are asked.
    fn coordinators(&mut self) -> Vec<NodeId> {
        let asked = self.steps.iter().filter_map(|step| match step {
            Step::Ask { to, .. } => Some(*to),
            _ => None,
        });
        asked.collect()
    }

    fn told(&mut self) -> Option<Verdict> {
        let told = self.steps.iter().find_map(|step| match step {
            Step::Finish { verdict, .. } => Some(verdict.clone()),
            _ => None,
        });
        self.steps.clear();
        told
    }
}

#[test]
fn two_replicas_that_agree_answer() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let asked = bench.asked();
    let whom: Vec<_> = asked.iter().map(|(to, _)| *to).collect();
    assert_eq!(whom, replicas()[..2]);
    bench.says(asked[0].0, &asked[0].1, holds(3));
    assert_eq!(bench.told(), None, "one is no quorum");
    bench.says(asked[1].0, &asked[1].1, holds(3));
    assert_eq!(bench.told(), value(3));
    assert_eq!(bench.routing.in_flight(), 0);
}

#[test]
fn the_own_replica_is_asked_first_and_another_what_it_has_beyond_that() {
    for me in replicas() {
        let mut bench = Bench::new(me);
        let other = replicas().into_iter().find(|node| *node != me).unwrap();
        for theirs in [Held::Same(stamp(3)), holds(3)] {
            bench.submit(Command::Get);
            let own = bench.asked();
            assert_eq!((own.len(), own[0].0, own[0].1.have), (1, me, None));
            bench.says(me, &own[0].1, holds(3));
            let asked = bench.asked();
            assert_eq!((asked.len(), asked[0].0, asked[0].1.have), (1, other, Some(stamp(3))));
            bench.says(other, &asked[0].1, theirs);
            assert_eq!(bench.told(), value(3));
        }
    }
}

#[test]
fn the_same_as_something_else_is_no_answer() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    for (to, query) in bench.asked() {
        bench.says(to, &query, Held::Same(stamp(3)));
    }
    assert_eq!(bench.told(), None);

    // Nor as something that the own replica does not hold.
    let me = replicas()[0];
    let mut bench = Bench::new(me);
    bench.submit(Command::Get);
    let own = bench.asked().remove(0);
    bench.says(me, &own.1, holds(3));
    let other = bench.asked().remove(0);
    bench.says(other.0, &other.1, holds(4));
    let third = bench.asked().remove(0);
    bench.says(third.0, &third.1, Held::Same(stamp(4)));
    assert_eq!(bench.told(), None);
}

#[test]
fn a_node_that_learns_does_not_ask_itself() {
    let me = replicas()[0];
    let mut bench = Bench::new(me);
    bench.suspected = vec![me];
    bench.submit(Command::Get);
    assert_eq!(bench.asked_whom(), replicas()[1..]);
}

#[test]
fn the_own_replica_owes_nothing() {
    let mut bench = Bench::new(replicas()[0]);
    bench.submit(Command::Get);
    bench.asked();
    bench.wake_at(100);
    assert!(!bench.steps.iter().any(|step| matches!(step, Step::TimedOut { .. })));
}

#[test]
fn what_is_agreed_on_is_told() {
    let mut bench = Bench::new(stranger());
    let op = bench.submit(Command::Get);
    for (to, query) in bench.asked() {
        bench.says(to, &query, holds(3));
    }
    assert_eq!(bench.steps[0], Step::Agreed { op, stamp: stamp(3) });
}

#[test]
fn of_five_replicas_three_must_agree() {
    let mut bench = Bench::of(NodeId(1), 5);
    bench.submit(Command::Get);
    let asked = bench.asked();
    assert_eq!(asked.len(), 3);
    for ((to, query), version) in asked.iter().zip([3, 4, 4]) {
        bench.says(*to, query, holds(version));
    }
    let fourth = bench.asked();
    assert_eq!(fourth.len(), 1);
    bench.says(fourth[0].0, &fourth[0].1, holds(3));
    let fifth = bench.asked();
    assert_eq!((fifth.len(), bench.coordinators()), (1, vec![]));
    bench.says(fifth[0].0, &fifth[0].1, holds(4));
    assert_eq!(bench.told(), value(4));

    bench.submit(Command::Get);
    let asked = bench.asked();
    bench.refuses(asked[0].0, &asked[0].1);
    let fourth = bench.asked();
    bench.refuses(asked[1].0, &asked[1].1);
    let fifth = bench.asked();
    for (to, query) in [&asked[2], &fourth[0], &fifth[0]] {
        bench.says(*to, query, holds(4));
    }
    assert_eq!(bench.told(), value(4));
}

#[test]
fn nothing_anywhere_is_an_answer() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    for (to, query) in bench.asked() {
        bench.says(to, &query, Held::Nothing);
    }
    assert_eq!(bench.told(), Some(Verdict::Reply(Reply::Nil)));
}

#[test]
fn one_replica_that_says_it_twice_is_one() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let (to, query) = bench.asked().remove(0);
    bench.says(to, &query, holds(3));
    bench.says(to, &query, holds(3));
    assert_eq!(bench.told(), None);
    bench.says(replicas()[2], &query, holds(3));
    assert_eq!(bench.told(), None, "it was not asked");
}

#[test]
fn where_two_differ_the_third_decides() {
    for third in [3, 4] {
        let mut bench = Bench::new(stranger());
        bench.submit(Command::Get);
        for ((to, query), version) in bench.asked().into_iter().zip([3, 4]) {
            bench.says(to, &query, holds(version));
        }
        let asked = bench.asked();
        assert_eq!(asked[0].0, replicas()[2]);
        bench.says(asked[0].0, &asked[0].1, holds(third));
        assert_eq!(bench.told(), value(third));
    }
}

#[test]
fn where_none_agree_the_coordinator_is_asked_and_believed() {
    let mut bench = Bench::new(stranger());
    let op = bench.submit(Command::Get);
    for ((to, query), version) in bench.asked().into_iter().zip([3, 4]) {
        bench.says(to, &query, holds(version));
    }
    let (to, query) = bench.asked().remove(0);
    bench.says(to, &query, holds(5));
    assert_eq!(bench.coordinators(), replicas()[..1]);
    assert_eq!(bench.told(), None, "the largest is no answer");
    let outcome = Outcome::Done { reply: Reply::Nil, recorded: false };
    let now = bench.now;
    let answer = Answer { op, attempt: 1, outcome };
    bench.routing.answer(now, replicas()[0], answer, |_| false, &mut bench.steps);
    assert_eq!(bench.told(), Some(Verdict::Reply(Reply::Nil)));
}

#[test]
fn one_that_does_not_vote_is_replaced_at_once() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let asked = bench.asked();
    bench.refuses(asked[0].0, &asked[0].1);
    let (third, query) = bench.asked().remove(0);
    bench.says(third, &query, holds(3));
    bench.says(asked[1].0, &asked[1].1, holds(3));
    assert_eq!(bench.told(), value(3));
}

#[test]
fn where_too_few_vote_a_coordinator_is_asked() {
    let mut bench = Bench::new(stranger());
    let op = bench.submit(Command::Get);
    let asked = bench.asked();
    bench.refuses(asked[0].0, &asked[0].1);
    assert_eq!(bench.coordinators(), []);
    bench.refuses(asked[1].0, &asked[1].1);
    assert_eq!(bench.coordinators().len(), 1);
    let why = "too few replicas to ask";
    assert!(bench.steps.contains(&Step::Leave { op, why }));
}

#[test]
fn a_value_that_expired_is_the_coordinators() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    for (to, query) in bench.asked() {
        let datum = Datum::Live { value: Value::from("old"), expires_at: Some(WALL) };
        bench.says(to, &query, expiring(3, datum));
    }
    assert_eq!(bench.coordinators(), replicas()[..1], "who writes the tombstone");
    assert_eq!(bench.told(), None);

    // Once it is asked, another late answer does not ask it again.
    let mut bench = Bench::measured(stranger());
    let from = bench.now.0 / 1_000;
    bench.submit(Command::Get);
    let mut asked = bench.asked();
    bench.wake_at(from + 10);
    asked.extend(bench.asked());
    for (to, query) in asked {
        let datum = Datum::Live { value: Value::from("old"), expires_at: Some(WALL) };
        bench.says(to, &query, expiring(3, datum));
    }
    assert_eq!(bench.coordinators().len(), 1);
}

#[test]
fn writes_and_what_comes_beside_others_of_the_key_are_the_coordinators() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::IncrBy(1));
    bench.submit(Command::Get);
    assert_eq!(bench.asked(), []);
    assert_eq!(bench.coordinators(), [replicas()[0]; 2]);
}

#[test]
fn suspected_replicas_are_not_asked() {
    let mut bench = Bench::new(stranger());
    bench.suspected = vec![replicas()[0]];
    bench.submit(Command::Get);
    let asked = bench.asked();
    assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), replicas()[1..]);
    for ((to, query), version) in asked.into_iter().zip([3, 4]) {
        bench.says(to, &query, holds(version));
    }
    assert_eq!(bench.coordinators(), [replicas()[1]], "not even to decide");

    let mut bench = Bench::new(stranger());
    bench.suspected = replicas()[..2].to_vec();
    bench.submit(Command::Get);
    assert_eq!((bench.asked(), bench.coordinators()), (vec![], vec![replicas()[2]]));
}

#[test]
fn answers_to_other_questions_do_not_count() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let asked = bench.asked();
    let right = asked[0].1.clone();
    let mut wrong = vec![right.clone(); 4];
    wrong[0].ask.incarnation += 1;
    wrong[1].ask.asker += 1;
    wrong[2].ask.n += 1;
    wrong[3].key = Key::from("y");
    for query in wrong {
        for (to, _) in &asked {
            bench.says(*to, &query, holds(3));
            bench.refuses(*to, &query);
        }
        assert_eq!(bench.steps, [], "{query:?}");
    }
}

#[test]
fn what_a_node_said_before_it_lost_its_store_is_forgotten() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let asked = bench.asked();
    bench.says(asked[0].0, &asked[0].1, holds(3));
    bench.routing.forget(bench.now, asked[0].0);
    bench.says(asked[1].0, &asked[1].1, holds(3));
    assert_eq!(bench.told(), None);
    bench.says(asked[0].0, &asked[0].1, holds(3));
    assert_eq!(bench.told(), None, "nor is it asked again");

    // After a coordinator was asked, too.
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let mut asked = bench.asked();
    bench.says(asked[0].0, &asked[0].1, holds(3));
    bench.wake_at(100);
    asked.extend(bench.asked());
    bench.wake_at(200);
    assert_eq!(bench.coordinators().len(), 1);
    bench.routing.forget(bench.now, asked[0].0);
    bench.steps.clear();
    bench.wake_at(200);
    assert_eq!(bench.steps, [], "the coordinator has its time");
    bench.says(asked[1].0, &asked[1].1, holds(3));
    assert_eq!(bench.told(), None);
    bench.says(asked[2].0, &asked[2].1, holds(3));
    assert_eq!(bench.told(), value(3));
}

#[test]
fn a_node_that_starts_anew_is_not_waited_for() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let asked = bench.asked();
    bench.says(asked[1].0, &asked[1].1, holds(3));
    bench.routing.restarted(bench.now, asked[0].0);
    bench.wake_at(0);
    let (third, query) = bench.asked().remove(0);
    bench.says(third, &query, holds(3));
    assert_eq!(bench.told(), value(3));
}

/// A read of which the second node that is asked holds version 3 and the first says nothing; gives the
/// question to the third, after 10 ms and not before.
fn third_beside_a_silent_one(bench: &mut Bench) -> (NodeId, Query) {
    let from = bench.now.0 / 1_000;
    bench.submit(Command::Get);
    let asked = bench.asked();
    bench.says(asked[1].0, &asked[1].1, holds(3));
    bench.wake_at(from + 9);
    assert_eq!(bench.asked(), []);
    bench.wake_at(from + 10);
    bench.asked().remove(0)
}

#[test]
fn where_one_is_silent_the_third_is_asked_as_well() {
    let mut bench = Bench::measured(stranger());
    let third = third_beside_a_silent_one(&mut bench);
    assert_eq!((third.0, bench.routing.hedges()), (replicas()[2], 1));
    bench.says(third.0, &third.1, holds(3));
    assert_eq!(bench.told(), value(3));
}

#[test]
fn where_two_differ_a_third_that_is_silent_is_not_waited_for_long() {
    for mut bench in [Bench::new(stranger()), Bench::measured(stranger())] {
        let from = bench.now.0 / 1_000;
        bench.submit(Command::Get);
        for ((to, query), version) in bench.asked().into_iter().zip([3, 4]) {
            bench.says(to, &query, holds(version));
        }
        assert_eq!(bench.asked().len(), 1);
        bench.wake_at(from + 9);
        assert_eq!(bench.coordinators(), []);
        bench.wake_at(from + 10);
        assert_eq!(bench.coordinators(), replicas()[..1]);
    }
}

/// The other order: one is silent, the third that is asked in its place says something else.
#[test]
fn where_two_differ_the_first_that_is_silent_is_not_waited_for_long_either() {
    let mut bench = Bench::measured(stranger());
    let from = bench.now.0 / 1_000;
    let third = third_beside_a_silent_one(&mut bench);
    bench.says(third.0, &third.1, holds(4));
    bench.wake_at(from + 19);
    assert_eq!(bench.coordinators(), []);
    bench.wake_at(from + 20);
    assert_eq!(bench.coordinators().len(), 1);
}

#[test]
fn a_dead_node_does_not_make_the_next_reads_wait_longer() {
    let mut bench = Bench::measured(stranger());
    for _ in 0..50 {
        let third = third_beside_a_silent_one(&mut bench);
        bench.now = bench.now + Duration::from_millis(1);
        bench.says(third.0, &third.1, holds(3));
        assert_eq!(bench.told(), value(3));
    }
}

#[test]
fn late_answers_have_others_asked_within_a_budget() {
    let mut bench = Bench::measured(stranger());
    let mut hedged = |reads: usize| {
        let before = bench.routing.hedges();
        for _ in 0..reads {
            let from = bench.now.0 / 1_000;
            bench.submit(Command::Get);
            let asked = bench.asked();
            bench.wake_at(from + 10);
            bench.asked();
            // Not one of the times that are measured: they would make it wait longer.
            asked.iter().for_each(|(to, query)| bench.refuses(*to, query));
            bench.wake_at(from + 2_100);
            bench.steps.clear();
        }
        bench.routing.hedges() - before
    };
    assert_eq!(hedged(600), 512 + 599 / 20, "what was saved up, and one for every twenty reads");
    assert_eq!(hedged(100), 100 / 20);
}

#[test]
fn who_does_not_vote_is_not_silent() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let asked = bench.asked();
    bench.refuses(asked[0].0, &asked[0].1);
    bench.asked();
    bench.wake_at(100);
    let silent = |step: &Step| match step {
        Step::TimedOut { node, .. } => Some(*node),
        _ => None,
    };
    let silent: BTreeSet<_> = bench.steps.iter().filter_map(silent).collect();
    assert_eq!(silent, replicas()[1..].iter().copied().collect());
}

#[test]
fn after_the_time_out_the_third_is_asked_and_then_a_coordinator_that_owes_nothing() {
    let mut bench = Bench::new(stranger());
    let op = bench.submit(Command::Get);
    let asked = bench.asked();
    bench.says(asked[1].0, &asked[1].1, holds(3));
    bench.wake_at(99);
    assert_eq!(bench.steps, []);
    // The other's answer is too old to say that it is only slow.
    bench.wake_at(100);
    let third = bench.asked();
    let silent = Step::TimedOut { op, node: asked[0].0, by: Asked::Replica, sent: Time(0) };
    assert_eq!(bench.steps, [silent], "the other has answered");
    assert_eq!((third[0].0, bench.routing.hedges()), (replicas()[2], 0));
    bench.wake_at(199);
    assert_eq!(bench.coordinators(), []);
    bench.wake_at(200);
    assert_eq!(bench.coordinators(), [replicas()[1]]);
    let why = "the replicas asked do not answer";
    assert!(bench.steps.contains(&Step::Leave { op, why }));
    // Whatever comes first is believed; what decides nothing changes nothing.
    bench.steps.clear();
    bench.says(third[0].0, &third[0].1, holds(4));
    assert_eq!(bench.steps, []);
    bench.says(asked[0].0, &asked[0].1, holds(3));
    assert_eq!(bench.told(), value(3));
}

#[test]
fn one_more_is_waited_for_as_long_as_the_first() {
    let mut bench = Bench::measured(stranger());
    let from = bench.now.0 / 1_000;
    bench.submit(Command::Get);
    bench.wake_at(from + 5);
    for ((to, query), version) in bench.asked().into_iter().zip([3, 4]) {
        bench.says(to, &query, holds(version));
    }
    bench.asked();
    bench.wake_at(from + 14);
    assert_eq!(bench.coordinators(), []);
    bench.wake_at(from + 15);
    assert_eq!(bench.coordinators(), replicas()[..1]);
}

#[test]
fn nobody_is_asked_in_place_of_the_late_where_the_third_is_suspected() {
    let mut bench = Bench::measured(stranger());
    let from = bench.now.0 / 1_000;
    bench.suspected = vec![replicas()[2]];
    bench.submit(Command::Get);
    bench.asked();
    bench.wake_at(from + 10);
    assert_eq!((bench.asked(), bench.routing.hedges()), (vec![], 0));
}

#[test]
fn those_that_answer_others_are_slow_and_waited_for() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let asked = bench.asked();
    let others_answered = |bench: &mut Bench, millis: u64, who: &[(NodeId, Query)]| {
        bench.now = Time(millis * 1_000 - 1);
        who.iter().for_each(|(node, _)| bench.routing.heard(bench.now, *node));
        bench.wake_at(millis);
        bench.asked().len()
    };
    for millis in [100, 200, 300, 400] {
        assert_eq!(others_answered(&mut bench, millis, &asked), 0, "at {millis} ms");
    }
    assert_eq!(others_answered(&mut bench, 500, &asked), 1, "not for ever");

    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let asked = bench.asked();
    assert_eq!(others_answered(&mut bench, 100, &asked[..1]), 1, "both must");
}

#[test]
fn a_standstill_of_the_router_gives_its_time_back() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let asked = bench.asked();
    bench.routing.stood_still(Duration::from_secs(5));
    bench.wake_at(5_099);
    assert_eq!(bench.steps, []);
    bench.says(asked[1].0, &asked[1].1, holds(3));
    // It is not late beyond all measure, as it would be were it counted from the beginning.
    bench.routing.heard(Time(5_099_000), asked[0].0);
    bench.wake_at(5_100);
    assert_eq!(bench.coordinators(), []);
    bench.says(asked[0].0, &asked[0].1, holds(3));
    assert_eq!(bench.told(), value(3));
}

#[test]
fn a_read_ends_in_time_however_much_its_replicas_answer_others() {
    let mut bench = Bench::new(stranger());
    bench.routing =
        Routing::new(stranger(), 7, ring(), Config { deadline: TIMEOUT / 2, ..config(3) });
    bench.submit(Command::Get);
    bench.asked();
    bench.wake_at(49);
    assert_eq!(bench.told(), None);
    bench.wake_at(50);
    assert_eq!(bench.told(), Some(Verdict::NotApplied(Reason::NoQuorum)));
    assert_eq!(bench.routing.in_flight(), 0);
}

#[test]
fn a_read_that_nobody_answers_was_not_applied() {
    let mut bench = Bench::new(stranger());
    bench.submit(Command::Get);
    let mut told = None;
    for millis in (0..=2_000).step_by(5) {
        bench.wake_at(millis);
        told = told.or(bench.told());
    }
    assert_eq!(told, Some(Verdict::NotApplied(Reason::NoQuorum)));
}
