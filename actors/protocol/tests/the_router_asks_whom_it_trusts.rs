//! The router's decisions: whom it asks, how often, how long, and what it tells.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use simpledynamo_protocol::{
    command::{Command, Condition, Expiry, Reply},
    message::{Answer, Outcome, Reason, Request},
    record::{Key, Value},
    ring::{NodeId, Ring},
    routing::{Asked, Config, LAST_WORD, RETRY_PAUSE, Routing, STANDSTILL_MAX, Step, Verdict},
    time::{Now, Time},
};
use std::time::Duration;

/// No replica of `x`.
const ROUTER: NodeId = NodeId(5560);
const WALL: u64 = 1_700_000_000_000;

/// Of every operation here.
const DEADLINE: Duration = Duration::from_secs(20);

fn ms(ms: u64) -> Time {
    Time(ms * 1000)
}

fn write() -> Command {
    let (value, condition) = (Value::from("a"), Condition::Always);
    Command::Set { value, condition, expiry: Expiry::Clear, get: false }
}

struct Bench {
    routing: Routing,
    replicas: Vec<NodeId>,
    steps: Vec<Step>,
}

impl Bench {
    /// A router with one write submitted at time 0, that never hedges.
    fn new(deadline: Duration, suspected: impl Fn(NodeId) -> bool) -> Bench {
        Bench::hedging(Duration::MAX, deadline, suspected)
    }

    fn hedging(hedge: Duration, deadline: Duration, suspected: impl Fn(NodeId) -> bool) -> Bench {
        let ring = Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3);
        let key = Key::from("x");
        let replicas = ring.replicas_of(&key);
        let config = Config {
            request_timeout: Duration::from_millis(100),
            deadline,
            hedge,
            lifetime: Duration::from_secs(1_800),
            reads: None,
            chains: false,
        };
        let mut routing = Routing::new(ROUTER, 1, ring, config);
        let mut steps = Vec::new();
        let now = Now { mono: Time(0), wall: WALL };
        routing.submit(now, key, write(), suspected, &mut steps);
        Bench { routing, replicas, steps }
    }

    /// What was asked since.
    fn asked(&mut self) -> Vec<(NodeId, Request)> {
        let asked = |step| match step {
            Step::Ask { to, request } => Some((to, request)),
            _ => None,
        };
        std::mem::take(&mut self.steps).into_iter().filter_map(asked).collect()
    }

    fn told(&mut self) -> Option<Verdict> {
        std::mem::take(&mut self.steps).into_iter().find_map(|step| match step {
            Step::Finish { verdict, .. } => Some(verdict),
            _ => None,
        })
    }

    fn answer(&mut self, now: Time, ask: &(NodeId, Request), outcome: Outcome) {
        let Request { op, attempt, .. } = ask.1;
        let answer = Answer { op, attempt, outcome };
        self.routing.answer(now, ask.0, answer, |_| false, &mut self.steps);
    }

    /// Wakes it whenever it wants to be, until it says how the operation ended; gives the times and
    /// targets of all attempts.
    fn run(
        &mut self,
        suspected: impl Fn(NodeId) -> bool + Copy,
    ) -> (Vec<(Time, Request, NodeId)>, Time) {
        let mut attempts: Vec<_> =
            self.asked().into_iter().map(|(to, request)| (Time(0), request, to)).collect();
        loop {
            let now = self.routing.next_wake().expect("an operation in flight");
            self.routing.wake(now, suspected, &mut self.steps);
            for step in std::mem::take(&mut self.steps) {
                match step {
                    Step::Ask { to, request } => attempts.push((now, request, to)),
                    Step::Finish { .. } => return (attempts, now),
                    Step::Query { .. }
                    | Step::Agreed { .. }
                    | Step::Leave { .. }
                    | Step::TimedOut { .. } => {}
                }
            }
        }
    }
}

#[test]
fn a_write_is_not_sent_to_a_suspected_node_while_a_trusted_replica_is_left() {
    let replicas = Bench::new(DEADLINE, |_| false).replicas;
    for trusted in &replicas {
        let suspected = |node| node != *trusted;
        let (attempts, _) = Bench::new(DEADLINE, suspected).run(suspected);
        assert!(attempts.len() > 3);
        assert!(attempts.iter().all(|(_, _, to)| to == trusted), "{attempts:?}");
    }
    let suspected = |node| node == replicas[0];
    let (attempts, _) = Bench::new(DEADLINE, suspected).run(suspected);
    let order: Vec<_> = attempts.iter().map(|(_, _, to)| *to).take(4).collect();
    assert_eq!(order, [replicas[1], replicas[2], replicas[1], replicas[2]]);
}

#[test]
fn while_all_are_suspected_all_are_asked_in_ring_order() {
    let mut bench = Bench::new(DEADLINE, |_| true);
    let (attempts, _) = bench.run(|_| true);
    let order: Vec<_> = attempts.iter().map(|(_, _, to)| *to).take(3).collect();
    assert_eq!(order, bench.replicas);
}

#[test]
fn the_pause_doubles_each_time_round_all_replicas() {
    let (attempts, _) = Bench::new(DEADLINE, |_| false).run(|_| false);
    let pauses: Vec<_> =
        attempts.windows(2).map(|pair| pair[1].0.since(pair[0].0).as_millis()).take(16).collect();
    let expected =
        [100, 100, 100, 200, 200, 200, 400, 400, 400, 800, 800, 800, 1_600, 1_600, 1_600, 1_600];
    assert_eq!(pauses, expected);
}

#[test]
fn a_coordinator_gives_up_before_its_router() {
    for deadline in [100, 250, 2_000, 20_000].map(Duration::from_millis) {
        let (attempts, ended) = Bench::new(deadline, |_| false).run(|_| false);
        assert_eq!(ended, Time(0) + deadline);
        for (sent, request, _) in attempts {
            let left = ended.since(sent);
            let patience = Duration::from_millis(u64::from(request.patience));
            let early = left.saturating_sub(patience);
            assert!(early >= LAST_WORD.min(left) && early >= left / 10, "{left:?} {patience:?}");
        }
    }
}

#[test]
fn every_attempt_carries_the_same_end_by_the_wall_clock() {
    let (attempts, _) = Bench::new(DEADLINE, |_| false).run(|_| false);
    assert!(attempts.iter().all(|(_, request, _)| request.expires == WALL + 1_800_000));
}

#[test]
fn a_standstill_gives_its_time_back() {
    let mut bench = Bench::new(Duration::from_secs(2), |_| false);
    let first = bench.asked();
    bench.routing.stood_still(Duration::from_secs(5));
    // Not due at once: the answer may lie here unread.
    bench.routing.wake(ms(5_099), |_| false, &mut bench.steps);
    assert!(bench.steps.is_empty());
    bench.answer(ms(5_099), &first[0], Outcome::Done { reply: Reply::Ok, recorded: true });
    assert_eq!(bench.told(), Some(Verdict::Reply(Reply::Ok)));

    let mut bench = Bench::new(Duration::from_secs(2), |_| false);
    bench.routing.stood_still(Duration::from_secs(5));
    assert_eq!(bench.run(|_| false).1, ms(7_000));
}

#[test]
fn a_silence_in_a_standstill_is_not_held_against_the_coordinator() {
    let mut bench = Bench::new(Duration::from_secs(2), |_| false);
    bench.asked();
    bench.routing.stood_still(Duration::from_secs(5));
    bench.routing.wake(ms(5_100), |_| false, &mut bench.steps);
    let [Step::TimedOut { node, sent, .. }, ..] = bench.steps[..] else {
        panic!("{:?}", bench.steps)
    };
    assert_eq!((node, sent), (bench.replicas[0], ms(5_000)));
}

#[test]
fn standstills_give_back_no_more_than_their_most() {
    let mut bench = Bench::new(Duration::from_secs(2), |_| false);
    for _ in 1..=10 {
        bench.routing.stood_still(Duration::from_secs(10));
    }
    let now = ms(100_000);
    bench.routing.wake(now, |_| false, &mut bench.steps);
    assert_eq!(bench.told(), Some(Verdict::Unknown));

    let mut bench = Bench::new(Duration::from_secs(2), |_| false);
    bench.routing.stood_still(Duration::from_secs(3_600));
    assert_eq!(bench.run(|_| false).1, Time(0) + Duration::from_secs(2) + STANDSTILL_MAX);
}

#[test]
fn all_that_turn_it_away_are_asked_at_once_and_then_at_a_pace() {
    let mut bench = Bench::new(DEADLINE, |_| false);
    let mut asked = bench.asked();
    for expected in 1..3 {
        let outcome = Outcome::NotProposed(Reason::Overloaded);
        bench.answer(ms(expected), &asked[0], outcome);
        asked = bench.asked();
        assert_eq!(asked[0].0, bench.replicas[expected as usize]);
    }
    bench.answer(ms(3), &asked[0], Outcome::NotProposed(Reason::Overloaded));
    assert!(bench.asked().is_empty());
    assert_eq!(bench.routing.next_wake(), Some(ms(3) + RETRY_PAUSE));
}

#[test]
fn not_applied_is_said_only_when_all_have_said_so() {
    let ends = [
        (Outcome::NotProposed(Reason::NoQuorum), Verdict::NotApplied(Reason::NoQuorum)),
        // Too late to be recognised: an earlier attempt may have been applied.
        (Outcome::NotProposed(Reason::Stale), Verdict::Unknown),
        (Outcome::Unknown, Verdict::Unknown),
    ];
    for (outcome, verdict) in ends {
        let mut bench = Bench::new(Duration::from_millis(100), |_| true);
        let (mut told, mut now) = (None, Time(0));
        while told.is_none() {
            let mut asked = Vec::new();
            for step in std::mem::take(&mut bench.steps) {
                match step {
                    Step::Ask { to, request } => asked.push((to, request)),
                    Step::Finish { verdict, .. } => told = Some(verdict),
                    Step::Query { .. }
                    | Step::Agreed { .. }
                    | Step::Leave { .. }
                    | Step::TimedOut { .. } => {}
                }
            }
            if let Some(ask) = asked.first() {
                bench.answer(now, ask, outcome.clone());
            } else if let Some(at) = bench.routing.next_wake() {
                now = at;
                bench.routing.wake(now, |_| true, &mut bench.steps);
            }
        }
        assert_eq!(told, Some(verdict), "{outcome:?}");
    }
}

/// A router that has measured a latency of a millisecond and has just asked again.
fn measured() -> (Bench, (NodeId, Request)) {
    let mut bench = Bench::hedging(Duration::from_millis(10), DEADLINE, |_| false);
    for at in 0..10 {
        let ask = bench.asked().pop().unwrap();
        assert_eq!(ask.0, bench.replicas[0]);
        bench.answer(ms(at * 10 + 1), &ask, done());
        bench.steps.clear();
        let now = Now { mono: ms(at * 10 + 10), wall: WALL };
        bench.routing.submit(now, Key::from("x"), write(), |_| false, &mut bench.steps);
    }
    let ask = bench.asked().pop().unwrap();
    (bench, ask)
}

fn done() -> Outcome {
    Outcome::Done { reply: Reply::Ok, recorded: true }
}

#[test]
fn a_request_that_is_late_at_a_silent_node_is_hedged_once() {
    let (mut bench, first) = measured();
    let at = bench.routing.next_wake().unwrap();
    assert_eq!(at, ms(110), "submitted at 100, no latency near the least wait");
    bench.routing.wake(at, |_| false, &mut bench.steps);
    let hedge = bench.asked().pop().expect("a second coordinator is asked");
    assert_eq!((hedge.0, hedge.1.attempt, hedge.1.op), (bench.replicas[1], 2, first.1.op));
    assert!(hedge.1.record, "a second attempt leaves a trace");
    bench.routing.wake(ms(150), |_| false, &mut bench.steps);
    assert!(bench.steps.is_empty(), "one hedge, and nobody is suspected before the time-out");
    bench.answer(ms(151), &hedge, done());
    assert_eq!(bench.told(), Some(Verdict::Reply(Reply::Ok)));
    assert_eq!(bench.routing.next_wake(), Some(ms(200)), "the first still owes an answer");
    bench.routing.wake(ms(200), |_| false, &mut bench.steps);
    let dunned =
        Step::TimedOut { op: first.1.op, node: first.0, by: Asked::Coordinator, sent: ms(100) };
    assert_eq!(std::mem::take(&mut bench.steps), [dunned]);
    bench.routing.wake(ms(900), |_| false, &mut bench.steps);
    assert!(bench.steps.is_empty(), "each debt is named once");
}

#[test]
fn a_request_that_is_late_at_a_node_that_answers_others_is_not_hedged() {
    let (mut bench, first) = measured();
    for at in (104..190).step_by(5) {
        bench.routing.heard(ms(at), first.0);
        bench.routing.wake(ms(at + 1), |_| false, &mut bench.steps);
    }
    assert!(bench.asked().is_empty());
    bench.routing.wake(ms(205), |_| false, &mut bench.steps);
    let blamed = |step: &Step| matches!(step, Step::TimedOut { .. });
    assert!(!bench.steps.iter().any(blamed), "nor does it owe anything");
    assert!(bench.asked().iter().all(|(to, _)| *to == first.0), "nor is it robbed");
}

#[test]
fn a_node_that_answers_others_is_asked_once_more_for_what_may_be_lost() {
    let (mut bench, first) = measured();
    let mut asked = Vec::new();
    for at in (104..5_150).step_by(5) {
        bench.routing.heard(ms(at), first.0);
        bench.routing.wake(ms(at + 1), |_| false, &mut bench.steps);
        asked.extend(bench.asked().into_iter().map(|ask| (at, ask)));
    }
    let [(at, again), (later, other)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((again.0, again.1.attempt, again.1.op), (first.0, 2, first.1.op));
    assert!((199..205).contains(at), "after one time-out: {at}");
    assert!(again.1.record, "a second attempt leaves a trace");
    assert_eq!(other.0, bench.replicas[1], "that is not waited for again");
    assert!((5_099..5_205).contains(later), "a quarter of the deadline after the first: {later}");
    bench.answer(ms(5_201), again, done());
    assert_eq!(bench.told(), Some(Verdict::Reply(Reply::Ok)));
}

#[test]
fn what_another_router_of_the_node_was_answered_counts_from_then() {
    let (mut bench, first) = measured();
    for at in (104..190).step_by(5) {
        bench.routing.heard_elsewhere(ms(at), first.0);
        bench.routing.wake(ms(at + 1), |_| false, &mut bench.steps);
    }
    assert!(bench.asked().is_empty(), "it answers others");
    bench.routing.heard_elsewhere(ms(120), first.0);
    assert_eq!(bench.routing.last_heard(first.0), Some(ms(189)), "what is known late is not newer");
    let (mut bench, first) = measured();
    bench.routing.heard_elsewhere(ms(99), first.0);
    bench.routing.wake(ms(200), |_| false, &mut bench.steps);
    let dunned =
        Step::TimedOut { op: first.1.op, node: first.0, by: Asked::Coordinator, sent: ms(100) };
    assert_eq!(bench.steps.first(), Some(&dunned), "an answer before the request is none to it");
}

#[test]
fn a_hedge_goes_to_no_suspected_node() {
    let (mut bench, first) = measured();
    let suspected = |node| node != first.0;
    bench.routing.wake(ms(112), suspected, &mut bench.steps);
    assert!(bench.asked().is_empty());
    assert_eq!(bench.routing.next_wake(), Some(ms(200)));
}
