//! The router's rules, one test each: it fails when the rule is taken out of `routing.rs`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use simpledynamo_protocol::{
    command::{Command, Condition, Expiry, Reply},
    message::{Answer, Outcome, Reason, Request},
    recent::OpId,
    record::{Key, Value},
    ring::{NodeId, Ring},
    routing::{Asked, Config, RETRY_PAUSE, Routing, Step, Verdict},
    time::{Now, Time},
};
use std::time::Duration;

/// No replica of `x`.
const ME: NodeId = NodeId(5560);

/// The router's wall clock, milliseconds.
const WALL: u64 = 5_000;

/// A router of the shipped ring with its clock.
struct Router {
    routing: Routing,
    now: Time,
    suspected: Vec<NodeId>,
}

impl Router {
    fn new() -> Router {
        let ring = Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3);
        let config = Config {
            request_timeout: Duration::from_millis(100),
            deadline: Duration::from_millis(1_000),
            hedge: Duration::MAX,
            lifetime: Duration::from_millis(60_000),
            reads: None,
            chains: false,
        };
        let routing = Routing::new(ME, 7, ring, config);
        Router { routing, now: Time(0), suspected: Vec::new() }
    }

    fn replicas(key: &str) -> Vec<NodeId> {
        Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3).replicas_of(key.as_bytes())
    }

    fn submit(&mut self, key: &str, command: Command) -> (OpId, Vec<Step>) {
        let mut out = Vec::new();
        let suspected = |node| self.suspected.contains(&node);
        let op = {
            let now = Now { mono: self.now, wall: WALL };
            self.routing.submit(now, Key::from(key), command, suspected, &mut out)
        };
        (op, out)
    }

    fn answer(&mut self, from: NodeId, op: OpId, attempt: u32, outcome: Outcome) -> Vec<Step> {
        let mut out = Vec::new();
        let suspected = |node| self.suspected.contains(&node);
        let answer = Answer { op, attempt, outcome };
        self.routing.answer(self.now, from, answer, suspected, &mut out);
        out
    }

    fn wake_at(&mut self, millis: u64) -> Vec<Step> {
        self.now = Time(millis * 1_000);
        let mut out = Vec::new();
        let suspected = |node| self.suspected.contains(&node);
        self.routing.wake(self.now, suspected, &mut out);
        out
    }
}

fn asked(steps: &[Step]) -> Vec<(NodeId, Request)> {
    let ask = |step: &Step| match step {
        Step::Ask { to, request } => Some((*to, request.clone())),
        _ => None,
    };
    steps.iter().filter_map(ask).collect()
}

fn verdict(steps: &[Step]) -> Option<Verdict> {
    steps.iter().find_map(|step| match step {
        Step::Finish { verdict, .. } => Some(verdict.clone()),
        _ => None,
    })
}

fn set_nx() -> Command {
    let value = Value::from("v");
    Command::Set { value, condition: Condition::IfAbsent, expiry: Expiry::Clear, get: false }
}

fn unrecorded(reply: Reply) -> Outcome {
    Outcome::Done { reply, recorded: false }
}

fn recorded(reply: Reply) -> Outcome {
    Outcome::Done { reply, recorded: true }
}

#[test]
fn the_first_coordinator_is_the_keys_owner() {
    let (op, steps) = Router::new().submit("x", Command::Get);
    let (to, request) = asked(&steps)[0].clone();
    assert_eq!(to, Router::replicas("x")[0]);
    assert_eq!((request.op, request.attempt), (op, 1));
    assert_eq!(request.expires, WALL + 60_000, "nobody applies it later");
    assert_eq!((op.router, op.incarnation), (ME, 7));
}

#[test]
fn a_suspected_coordinator_is_passed_over() {
    let replicas = Router::replicas("x");
    let mut router = Router::new();
    router.suspected = vec![replicas[0]];
    let (_, steps) = router.submit("x", Command::Get);
    assert_eq!(asked(&steps)[0].0, replicas[1]);
}

#[test]
fn every_replica_is_tried_before_one_is_tried_twice() {
    let replicas = Router::replicas("x");
    let mut router = Router::new();
    let (_, first) = router.submit("x", Command::Get);
    let mut tried = asked(&first);
    tried.extend([100, 200, 300].iter().flat_map(|at| asked(&router.wake_at(*at))));
    let tried: Vec<_> = tried.into_iter().map(|(to, _)| to).collect();
    assert_eq!(tried, [replicas[0], replicas[1], replicas[2], replicas[0]]);
}

#[test]
fn a_suspected_replica_is_asked_only_while_all_are_suspected() {
    let replicas = Router::replicas("x");
    let mut router = Router::new();
    router.suspected = vec![replicas[0], replicas[2]];
    let (_, first) = router.submit("x", Command::Get);
    assert_eq!(asked(&first)[0].0, replicas[1]);
    assert_eq!(asked(&router.wake_at(100))[0].0, replicas[1]);
    router.suspected = replicas.clone();
    assert_eq!(asked(&router.wake_at(200))[0].0, replicas[0]);
}

#[test]
fn the_time_to_the_next_attempt_doubles_with_each_time_round_the_replicas() {
    let mut router = Router::new();
    router.submit("x", Command::Get);
    let mut times = Vec::new();
    while let Some(at) = router.routing.next_wake() {
        let steps = router.wake_at(at.0 / 1_000);
        times.extend(asked(&steps).iter().map(|_| at.0 / 1_000));
    }
    assert_eq!(times, [100, 200, 300, 500, 700, 900]);
}

#[test]
fn coordinators_give_up_before_the_router_does() {
    let mut router = Router::new();
    let (_, first) = router.submit("x", Command::Get);
    assert_eq!(asked(&first)[0].1.patience, 900);
    assert_eq!(asked(&router.wake_at(100))[0].1.patience, 810);
    assert_eq!(asked(&router.wake_at(900))[0].1.patience, 75);
}

#[test]
fn the_client_is_told_at_the_deadline_whatever_is_due_later() {
    let mut router = Router::new();
    router.submit("x", Command::Get);
    router.wake_at(950);
    assert_eq!(router.routing.next_wake(), Some(Time(1_000_000)));
}

#[test]
fn silence_is_reported_with_the_time_the_request_left() {
    let mut router = Router::new();
    router.submit("x", Command::Get);
    let steps = router.wake_at(100);
    let node = Router::replicas("x")[0];
    let [(_, ref request)] = asked(&steps)[..] else { panic!("{steps:?}") };
    assert_eq!(
        steps[0],
        Step::TimedOut { op: request.op, node, by: Asked::Coordinator, sent: Time(0) }
    );
}

#[test]
fn from_the_second_attempt_on_a_write_is_recorded_and_a_read_is_not() {
    for (command, expected) in [(set_nx(), true), (Command::Get, false)] {
        let mut router = Router::new();
        let (_, first) = router.submit("x", command);
        assert!(!asked(&first)[0].1.record);
        assert_eq!(asked(&router.wake_at(100))[0].1.record, expected);
    }
}

#[test]
fn a_failed_condition_that_left_no_trace_is_believed_if_nobody_else_was_asked() {
    let mut router = Router::new();
    let (op, _) = router.submit("x", set_nx());
    let steps = router.answer(Router::replicas("x")[0], op, 1, unrecorded(Reply::Nil));
    assert_eq!(verdict(&steps), Some(Verdict::Reply(Reply::Nil)));
}

#[test]
fn a_failed_condition_that_left_no_trace_waits_for_the_other_attempt() {
    let replicas = Router::replicas("x");
    let mut router = Router::new();
    let (op, _) = router.submit("x", set_nx());
    router.wake_at(100);
    let late = router.answer(replicas[0], op, 1, unrecorded(Reply::Nil));
    assert_eq!(verdict(&late), None, "the other attempt may yet apply it");
    let steps = router.answer(replicas[1], op, 2, recorded(Reply::Ok));
    assert_eq!(verdict(&steps), Some(Verdict::Reply(Reply::Ok)));
}

#[test]
fn a_failed_condition_that_left_no_trace_is_believed_once_the_others_never_proposed() {
    let replicas = Router::replicas("x");
    let mut router = Router::new();
    let (op, _) = router.submit("x", set_nx());
    router.wake_at(100);
    router.answer(replicas[0], op, 1, unrecorded(Reply::Nil));
    let never = Outcome::NotProposed(Reason::NoQuorum);
    let steps = router.answer(replicas[1], op, 2, never);
    assert_eq!(verdict(&steps), Some(Verdict::Reply(Reply::Nil)));
}

#[test]
fn not_applied_is_said_only_if_every_coordinator_said_so() {
    let mut router = Router::new();
    let (op, _) = router.submit("x", Command::IncrBy(1));
    for (attempt, node) in (1..).zip(Router::replicas("x")) {
        router.answer(node, op, attempt, Outcome::NotProposed(Reason::Overloaded));
    }
    let said = verdict(&router.wake_at(1_000));
    assert_eq!(said, Some(Verdict::NotApplied(Reason::Overloaded)));
}

#[test]
fn one_coordinator_that_did_not_answer_makes_a_write_unknown() {
    let replicas = Router::replicas("x");
    let mut router = Router::new();
    let (op, _) = router.submit("x", Command::IncrBy(1));
    router.wake_at(100);
    router.answer(replicas[1], op, 2, Outcome::NotProposed(Reason::NoQuorum));
    assert_eq!(verdict(&router.wake_at(1_000)), Some(Verdict::Unknown));
}

#[test]
fn a_read_that_nobody_answered_was_not_applied() {
    let mut router = Router::new();
    router.submit("x", Command::Get);
    router.wake_at(100);
    assert_eq!(verdict(&router.wake_at(1_000)), Some(Verdict::NotApplied(Reason::NoQuorum)));
}

#[test]
fn unknown_stale_and_lost_results_are_never_told_as_not_applied() {
    let replicas = Router::replicas("x");
    for outcome in [Outcome::Unknown, Outcome::NotProposed(Reason::Stale)] {
        let mut router = Router::new();
        let (op, _) = router.submit("x", Command::IncrBy(1));
        router.answer(replicas[0], op, 1, outcome);
        router.answer(replicas[1], op, 2, Outcome::NotProposed(Reason::NoQuorum));
        router.answer(replicas[2], op, 3, Outcome::NotProposed(Reason::NoQuorum));
        assert_eq!(verdict(&router.wake_at(1_000)), Some(Verdict::Unknown));
    }
    let mut router = Router::new();
    let (op, _) = router.submit("x", Command::IncrBy(1));
    let steps = router.answer(replicas[0], op, 1, Outcome::ResultLost);
    assert_eq!(verdict(&steps), Some(Verdict::Unknown));
}

#[test]
fn a_coordinator_that_turns_away_is_followed_at_once_by_the_next_then_after_a_pause() {
    let replicas = Router::replicas("x");
    let mut router = Router::new();
    let (op, _) = router.submit("x", Command::Get);
    let never = || Outcome::NotProposed(Reason::Overloaded);
    assert_eq!(asked(&router.answer(replicas[0], op, 1, never()))[0].0, replicas[1]);
    assert_eq!(asked(&router.answer(replicas[1], op, 2, never()))[0].0, replicas[2]);
    assert!(asked(&router.answer(replicas[2], op, 3, never())).is_empty());
    assert_eq!(router.routing.next_wake(), Some(Time(0) + RETRY_PAUSE));
    assert_eq!(asked(&router.wake_at(20))[0].0, replicas[0]);
}

#[test]
fn answers_that_are_not_to_the_question_do_not_count() {
    let replicas = Router::replicas("x");
    let mut router = Router::new();
    let (op, _) = router.submit("x", Command::Get);
    let done = || unrecorded(Reply::Nil);
    assert!(router.answer(replicas[1], op, 1, done()).is_empty(), "from another node");
    assert!(router.answer(replicas[0], op, 2, done()).is_empty(), "of another attempt");
    let former = OpId { incarnation: 6, ..op };
    assert!(router.answer(replicas[0], former, 1, done()).is_empty(), "of another life");
    assert!(verdict(&router.answer(replicas[0], op, 1, done())).is_some());
    assert!(router.answer(replicas[0], op, 1, done()).is_empty(), "once only");
}

#[test]
fn done_below_is_the_oldest_operation_in_flight_on_that_very_key() {
    let mut router = Router::new();
    let (first, _) = router.submit("x", Command::IncrBy(1));
    let (_, other) = router.submit("y", Command::IncrBy(1));
    let (third, second) = router.submit("x", Command::IncrBy(1));
    assert_eq!(asked(&other)[0].1.done_below, 2, "operations on other keys do not count");
    assert_eq!(asked(&second)[0].1.done_below, first.seq);
    router.answer(Router::replicas("x")[0], first, 1, recorded(Reply::Int(1)));
    let retry = asked(&router.wake_at(100));
    let retried = retry.iter().find(|(_, request)| request.op == third).unwrap();
    assert_eq!(retried.1.done_below, third.seq);
}

#[test]
fn time_that_this_node_stood_still_is_given_back() {
    let mut router = Router::new();
    router.submit("x", Command::Get);
    router.now = Time(5_000_000);
    router.routing.stood_still(Duration::from_millis(4_900));
    assert!(router.wake_at(4_999).is_empty(), "nobody is blamed, nothing is given up");
    assert_eq!(asked(&router.wake_at(5_000)).len(), 1);
    assert_eq!(verdict(&router.wake_at(5_900)), Some(Verdict::NotApplied(Reason::NoQuorum)));
}

#[test]
fn a_coordinator_that_answers_others_is_slow_and_keeps_its_request_for_a_while() {
    let mut router = Router::new();
    let owner = Router::replicas("x")[0];
    router.submit("x", Command::Get);
    router.routing.heard(Time(50_000), owner);
    let steps = router.wake_at(100);
    let again = asked(&steps);
    assert_eq!((steps.len(), again.len()), (1, 1), "it answers: it is not blamed: {steps:?}");
    assert_eq!(again[0].0, owner, "and not robbed, but this very request may be lost");
    router.routing.heard(Time(190_000), owner);
    assert!(router.wake_at(200).is_empty(), "once");
    router.routing.heard(Time(290_000), owner);
    let steps = router.wake_at(300);
    let others = asked(&steps);
    assert_eq!(others.len(), 1, "not for ever: {steps:?}");
    assert_ne!(others[0].0, owner);
}

#[test]
fn a_coordinator_that_fell_silent_is_left_after_one_time_out() {
    let mut router = Router::new();
    router.routing.heard(Time(0), Router::replicas("x")[0]);
    router.submit("x", Command::Get);
    assert_eq!(asked(&router.wake_at(100)).len(), 1);
}

#[test]
fn what_a_restarted_node_was_asked_is_asked_again_at_once() {
    let mut router = Router::new();
    let owner = Router::replicas("x")[0];
    router.submit("x", Command::Get);
    router.routing.restarted(Time(10_000), owner);
    assert_eq!(asked(&router.wake_at(10)).len(), 1);
}
