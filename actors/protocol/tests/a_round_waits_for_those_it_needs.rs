//! When a coordinator gives a round up: at once where a quorum is out of reach, soon where its
//! ballot is refused, and otherwise only after its time. Before its router's patience ends it says
//! what it knows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    command::{Command, Condition, Expiry, Reply},
    effect::{Effect, Effects},
    message::{
        Accept, Accepted, Ask, Held, Message, NoVote, Outcome, Prepare, Promise, Reason, Refused,
        Request, Round, State,
    },
    recent::{OpId, Recent},
    record::{Datum, Key, Record, Value},
    register::proposer::{Config, Known, LAST_REPLICA_WAIT, Proposer},
    ring::{NodeId, Ring},
    routing::{self, Routing, Step, Verdict},
    time::{Now, Time},
};
use std::time::Duration;

const ME: NodeId = NodeId(5554);
const B: NodeId = NodeId(5558);
const C: NodeId = NodeId(5560);
const ROUTER: NodeId = NodeId(5562);
const ROUND: Duration = Duration::from_millis(100);
const REPEAT: Duration = Duration::from_millis(30);
const WALL: u64 = 1_700_000_000_000;

fn key() -> Key {
    Key::from("x")
}

fn at(ms: u64) -> Now {
    Now { mono: Time(ms * 1000), wall: WALL + ms }
}

fn set(value: &str) -> Command {
    let (value, condition) = (Value::from(value), Condition::Always);
    Command::Set { value, condition, expiry: Expiry::Clear, get: false }
}

fn request(patience: u32) -> Request {
    Request {
        op: OpId { router: ROUTER, incarnation: 1, seq: 1 },
        attempt: 1,
        done_below: 1,
        record: false,
        key: key(),
        command: set("a"),
        patience,
        expires: WALL + 1_000_000,
    }
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, node: ME }
}

/// A coordinator, what it sent last, and what it answered so far.
struct Bench {
    proposer: Proposer,
    sent: Vec<(NodeId, Message)>,
    begins: u64,
    answers: Vec<Outcome>,
}

impl Bench {
    fn new(known: Known) -> Bench {
        Bench::repeating(known, ROUND)
    }

    fn repeating(known: Known, repeat_after: Duration) -> Bench {
        let config = Config {
            me: ME,
            replicas: vec![ME, B, C],
            read_quorum: 2,
            write_quorum: 2,
            round_timeout: ROUND,
            repeat_after,
            value_bytes_max: 1 << 20,
            contended: false,
        };
        let proposer = Proposer::new(key(), config, known, Ask::default(), 7);
        Bench { proposer, sent: Vec::new(), begins: 0, answers: Vec::new() }
    }

    /// With a write under way that waits for promises of ballot 1, its own given.
    fn preparing() -> Bench {
        let mut bench = Bench::new(Known::default());
        bench.request(0, request(2_000));
        assert_eq!(bench.begins, 1);
        bench.message(0, ME, Promise { key: key(), ballot: ballot(1), record: None });
        bench
    }

    /// With a write proposed under ballot 1.
    fn accepting() -> Bench {
        Bench::accepting_again(ROUND)
    }

    fn accepting_again(repeat_after: Duration) -> Bench {
        let owned = Known { owned: Some(ballot(1)), record: None, chosen: true };
        let mut bench = Bench::repeating(owned, repeat_after);
        bench.request(0, request(2_000));
        assert!(bench.sent.iter().all(|(_, message)| matches!(message, Message::Accept(_))));
        assert_eq!(bench.sent.len(), 3);
        bench
    }

    fn request(&mut self, ms: u64, request: Request) {
        let mut out = Effects::new();
        self.proposer.request(at(ms), request, &mut out);
        self.carry_out(out);
    }

    fn message(&mut self, ms: u64, from: NodeId, message: impl Into<Message>) {
        let mut out = Effects::new();
        self.proposer.message(at(ms), from, message.into(), &mut out);
        self.carry_out(out);
    }

    fn wake(&mut self, now: Time) {
        let mut out = Effects::new();
        self.proposer.wake(Now { mono: now, wall: WALL }, || true, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Effects) {
        self.sent.clear();
        for effect in out {
            match effect {
                Effect::Send { message: Message::Answer(answer), .. } => {
                    self.answers.push(answer.outcome);
                }
                Effect::Send { to, message } => self.sent.push((to, message)),
                Effect::List { .. } | Effect::Note(_) => {}
                Effect::Begin { .. } => self.begins += 1,
                Effect::Persist(_) => unreachable!("coordinators write nothing"),
            }
        }
    }

    fn no_vote(&mut self, ms: u64, from: NodeId, round: u64) {
        let (round, reason) = (Round::Ballot(ballot(round)), Reason::Learning);
        self.message(ms, from, NoVote { key: key(), round, reason });
    }

    fn refused(&mut self, ms: u64, from: NodeId) {
        let promised = Ballot { round: 5, node: C };
        self.message(ms, from, Refused { key: key(), asked: ballot(1), promised });
    }

    /// Its accept of this ballot is refused; whether it begins a new one at once.
    fn taken_over(&mut self, round: u64) -> bool {
        let (begun, asked) = (self.begins, ballot(round));
        for from in [B, C] {
            let promised = Ballot { round, node: C };
            self.message(5, from, Refused { key: key(), asked, promised });
        }
        self.begins > begun
    }

    /// It owns this ballot and its write is accepted; the next one is under way.
    fn succeeds(&mut self, round: u64) {
        for from in [ME, B] {
            self.message(5, from, Promise { key: key(), ballot: ballot(round), record: None });
        }
        for from in [ME, B] {
            let stamp = Stamp { ballot: ballot(round), version: 1 };
            self.message(5, from, Accepted { key: key(), stamp });
        }
        assert!(self.proposer.is_idle());
        let op = OpId { router: ROUTER, incarnation: 1, seq: round };
        self.request(5, Request { op, ..request(2_000) });
    }

    fn accepted(&mut self, ms: u64, from: NodeId) {
        let stamp = Stamp { ballot: ballot(1), version: 1 };
        self.message(ms, from, Accepted { key: key(), stamp });
    }
}

fn done() -> Outcome {
    Outcome::Done { reply: Reply::Ok, recorded: true }
}

#[test]
fn a_replica_that_does_not_vote_leaves_the_others_their_full_time() {
    for mut bench in [Bench::preparing(), Bench::accepting()] {
        bench.no_vote(3, B, 1);
        assert_eq!(bench.proposer.next_wake(), Some(Time(0) + ROUND));
    }
}

#[test]
fn who_keeps_silent_is_asked_the_same_again_and_nobody_else_is() {
    let owned = Known { owned: Some(ballot(1)), record: None, chosen: true };
    let get = || Request { command: Command::Get, ..request(2_000) };
    for (known, request) in [
        (Known::default(), request(2_000)),
        (owned.clone(), request(2_000)),
        (owned, get()),
        (Known::default(), get()),
    ] {
        let mut bench = Bench::repeating(known, REPEAT);
        bench.request(0, request);
        if bench.begins > 0 {
            bench.message(0, ME, Promise { key: key(), ballot: ballot(1), record: None });
        }
        let first: Vec<_> = bench.sent.iter().filter(|(to, _)| *to != ME).cloned().collect();
        assert_eq!(first.len(), 2);
        for n in 1..=3 {
            let again = Time(0) + REPEAT * n;
            assert_eq!(bench.proposer.next_wake(), Some(again));
            bench.wake(again);
            assert_eq!(bench.sent, first);
        }
        assert_eq!(bench.proposer.next_wake(), Some(Time(0) + ROUND), "then it is given up");
    }
    let mut bench = Bench::accepting_again(REPEAT);
    bench.accepted(3, B);
    bench.no_vote(4, C, 1);
    bench.wake(Time(0) + REPEAT);
    assert_eq!((bench.sent.len(), bench.begins), (0, 0), "both have answered, the own is slow");
    bench.accepted(31, ME);
    assert_eq!(bench.answers, [done()]);
    assert!(bench.proposer.is_idle());
    assert_eq!(bench.proposer.next_wake(), None);
}

#[test]
fn a_refusal_leaves_the_others_a_moment() {
    for mut bench in [Bench::preparing(), Bench::accepting()] {
        bench.refused(3, B);
        assert_eq!(bench.proposer.next_wake(), Some(at(3).mono + LAST_REPLICA_WAIT));
    }
}

#[test]
fn a_round_that_cannot_find_a_quorum_ends_at_once() {
    for mut bench in [Bench::preparing(), Bench::accepting()] {
        let begun = bench.begins;
        bench.no_vote(3, B, 1);
        bench.no_vote(4, C, 1);
        let back_off = bench.proposer.next_wake().expect("a pause");
        assert!(back_off < at(4).mono + ROUND / 2, "{back_off}");
        bench.wake(back_off);
        assert_eq!(bench.begins, begun + 1, "a fresh ballot is begun");
    }
}

#[test]
fn a_key_taken_over_is_taken_back_at_once_and_after_a_pause_only_by_who_loses_again() {
    let mut bench = Bench::accepting();
    bench.refused(3, B);
    bench.refused(3, C);
    assert_eq!(bench.begins, 1, "nobody duels yet");
    let promise = |from: NodeId| (from, Promise { key: key(), ballot: ballot(6), record: None });
    for (from, promise) in [promise(ME), promise(B)] {
        bench.message(4, from, promise);
    }
    assert!(bench.sent.iter().all(|(_, message)| matches!(message, Message::Accept(_))));
    for from in [B, C] {
        let promised = Ballot { round: 7, node: C };
        bench.message(5, from, Refused { key: key(), asked: ballot(6), promised });
    }
    assert_eq!(bench.begins, 1, "the other is still at it");
    let back_off = bench.proposer.next_wake().expect("a pause");
    assert!(back_off > at(5).mono);
    bench.wake(back_off);
    assert_eq!(bench.begins, 2);
    assert!(bench.answers.is_empty());
}

#[test]
fn who_takes_a_key_back_is_not_eager_again_after_one_success() {
    let mut bench = Bench::accepting();
    assert!(bench.taken_over(1), "taken back at once");
    bench.succeeds(2);
    assert!(!bench.taken_over(2), "it pauses: this is a duel");
    let back_off = bench.proposer.next_wake().expect("a pause");
    bench.wake(back_off);
    bench.succeeds(3);
    assert!(!bench.taken_over(3), "and still");
}

#[test]
fn a_vote_counts_after_a_late_no_vote_to_the_prepare_of_the_same_ballot() {
    let mut bench = Bench::accepting();
    bench.no_vote(1, C, 1);
    bench.accepted(2, C);
    bench.no_vote(3, B, 1);
    bench.accepted(4, ME);
    assert_eq!(bench.answers, [done()]);
}

#[test]
fn a_no_vote_that_overtakes_nothing_does_not_take_a_vote_back() {
    let mut bench = Bench::accepting();
    bench.accepted(1, C);
    bench.no_vote(2, C, 1);
    bench.no_vote(3, B, 1);
    bench.accepted(4, ME);
    assert_eq!(bench.answers, [done()]);
}

#[test]
fn a_request_past_its_end_is_refused_as_stale() {
    let mut bench = Bench::new(Known::default());
    bench.request(10, Request { expires: WALL + 9, ..request(2_000) });
    assert_eq!(bench.answers, [Outcome::NotProposed(Reason::Stale)]);
    assert!(bench.sent.is_empty() && bench.begins == 0 && bench.proposer.is_idle());
    bench.request(10, Request { expires: WALL + 10, ..request(2_000) });
    assert_eq!((bench.answers.len(), bench.begins), (1, 1), "in time, it is begun");
}

#[test]
fn patience_ends_a_round_that_can_do_no_harm() {
    let mut bench = Bench::new(Known::default());
    bench.request(0, request(30));
    bench.message(0, ME, Promise { key: key(), ballot: ballot(1), record: None });
    assert_eq!(bench.proposer.next_wake(), Some(at(30).mono));
    bench.wake(at(30).mono);
    assert_eq!(bench.answers, [Outcome::NotProposed(Reason::NoQuorum)]);
}

/// A router that makes no reads itself.
fn coordinators_only() -> routing::Config {
    routing::Config {
        request_timeout: ROUND,
        deadline: ROUND,
        hedge: ROUND,
        lifetime: Duration::from_secs(1_800),
        reads: None,
        chains: false,
    }
}

/// A router and the coordinator at the only replica left of three, in simulated time.
fn with_two_dead(known: Known, deadline: Duration, latency: u64) -> Verdict {
    let ring = Ring::new([ME, B, C], 3);
    let config = routing::Config { deadline, ..coordinators_only() };
    let mut routing = Routing::new(ROUTER, 1, ring, config);
    let suspected = |node| node != ME;
    let mut bench = Bench::new(known);
    let mut steps = Vec::new();
    let now = |us: u64| Now { mono: Time(us), wall: WALL + us / 1000 };
    routing.submit(now(0), key(), set("a"), suspected, &mut steps);
    let (mut us, mut begun, mut told) = (0, 0, 0);
    let mut requests = Vec::new();
    let mut words: Vec<(u64, _)> = Vec::new();
    while us < 10_000_000 {
        for step in std::mem::take(&mut steps) {
            match step {
                Step::Ask { to, request } => {
                    assert_eq!(to, ME);
                    requests.push((us + latency, request));
                }
                Step::Finish { verdict, .. } => return verdict,
                Step::Query { .. }
                | Step::Agreed { .. }
                | Step::Leave { .. }
                | Step::TimedOut { .. } => {}
            }
        }
        us += 500;
        let mut out = Effects::new();
        requests.retain(|(when, request)| {
            let due = *when <= us;
            if due {
                bench.proposer.request(now(us), request.clone(), &mut out);
            }
            !due
        });
        bench.proposer.wake(now(us), || true, &mut out);
        while out.iter().any(|effect| matches!(effect, Effect::Begin { .. })) {
            out.retain(|effect| !matches!(effect, Effect::Begin { .. }));
            begun += 1;
            let promise = Promise { key: key(), ballot: ballot(10 + begun), record: None };
            bench.proposer.message(now(us), ME, promise.into(), &mut out);
        }
        for effect in out {
            let Effect::Send { to, message } = effect else { continue };
            match message {
                Message::Answer(answer) => words.push((us + latency, answer)),
                Message::Accept(Accept { record, key }) if to == ME => {
                    let stamp = record.stamp;
                    let mut none = Effects::new();
                    let vote = Accepted { key, stamp }.into();
                    bench.proposer.message(now(us), ME, vote, &mut none);
                    assert!(none.is_empty(), "one vote is no quorum");
                }
                Message::Accept(_) | Message::Prepare(Prepare { .. }) => told += 1,
                other => panic!("unforeseen: {other}"),
            }
        }
        words.retain(|(when, answer)| {
            let due = *when <= us;
            if due {
                routing.answer(Time(us), ME, answer.clone(), suspected, &mut steps);
            }
            !due
        });
        if routing.next_wake().is_some_and(|at| at <= Time(us)) {
            routing.wake(Time(us), suspected, &mut steps);
        }
    }
    panic!("no end; {told} messages to the dead");
}

#[test]
fn with_two_replicas_dead_and_nothing_proposed_the_write_is_told_as_not_applied() {
    for deadline in [250, 2_000, 5_000] {
        for latency in [0, 1_000, 5_000] {
            let verdict = with_two_dead(Known::default(), Duration::from_millis(deadline), latency);
            let told = Verdict::NotApplied(Reason::NoQuorum);
            assert_eq!(verdict, told, "deadline {deadline} ms, latency {latency} µs");
        }
    }
}

#[test]
fn with_two_replicas_dead_an_owner_has_proposed_and_cannot_tell() {
    let owned = Known { owned: Some(ballot(1)), record: None, chosen: true };
    assert_eq!(with_two_dead(owned, Duration::from_millis(2_000), 1_000), Verdict::Unknown);
}

/// An owner's read finds no agreement and writes its state back. Acknowledgements of the time when
/// that state was first written may still be under way: they must not confirm the read, because
/// somebody else may have taken the key over since. Found by the swarm.
#[test]
fn an_old_acknowledgement_does_not_confirm_a_later_write_back() {
    let mut bench = Bench::accepting();
    bench.accepted(1, ME);
    bench.accepted(2, B);
    assert_eq!(bench.answers, [done()]);
    let mut get = request(2_000);
    (get.command, get.op.seq) = (Command::Get, 2);
    bench.request(3, get);
    let newer = Record {
        stamp: Stamp { ballot: Ballot { round: 5, node: C }, version: 2 },
        datum: Datum::Tombstone { at: WALL },
        recent: Recent::default(),
    };
    let Some((_, Message::Query(query))) = bench.sent.first().cloned() else {
        panic!("a read asks: {:?}", bench.sent)
    };
    let state = |held| State { key: key(), ask: query.ask, held };
    let old = Stamp { ballot: ballot(1), version: 1 };
    bench.message(4, ME, state(Held::Same(old)));
    bench.message(4, B, state(Held::Record(newer)));
    bench.wake(at(4).mono + LAST_REPLICA_WAIT);
    let proposed: Vec<_> = bench
        .sent
        .iter()
        .filter_map(|(_, message)| match message {
            Message::Accept(accept) => Some(accept.record.stamp),
            _ => None,
        })
        .collect();
    assert!(proposed.iter().all(|stamp| *stamp != old), "{proposed:?}");
    bench.message(16, ME, Accepted { key: key(), stamp: old });
    bench.message(16, C, Accepted { key: key(), stamp: old });
    assert_eq!(bench.answers, [done()], "a read was confirmed by what is long past");
}

/// A thrifty read whose two answers differ asks the third; if that one is dead and nobody knows it yet, the
/// read must not wait for a whole round time-out. Found by the benchmark: a read of 503 ms.
#[test]
fn a_spared_replica_is_waited_for_no_longer_than_any_last_one() {
    let record = Record {
        stamp: Stamp { ballot: ballot(1), version: 2 },
        datum: Datum::Tombstone { at: WALL },
        recent: Recent::default(),
    };
    let mut bench = Bench::new(Known { owned: None, record: Some(record), chosen: true });
    bench.proposer.be_thrifty(true);
    bench.request(0, Request { command: Command::Get, ..request(2_000) });
    let Some((_, Message::Query(query))) = bench.sent.first().cloned() else {
        panic!("a read asks: {:?}", bench.sent)
    };
    let asked = |bench: &Bench| bench.sent.iter().map(|(to, _)| *to).collect::<Vec<_>>();
    assert_eq!(asked(&bench), [ME, B]);
    let state = |held| State { key: key(), ask: query.ask, held };
    bench.message(1, ME, state(Held::Same(Stamp { ballot: ballot(1), version: 2 })));
    bench.message(2, B, state(Held::Nothing));
    assert_eq!(asked(&bench), [C], "two differ, so the third is asked");
    assert_eq!(bench.proposer.next_wake(), Some(at(2).mono + LAST_REPLICA_WAIT));
    let begun = bench.begins;
    bench.wake(at(2).mono + LAST_REPLICA_WAIT);
    assert_eq!(bench.begins, begun + 1, "a ballot is begun to write the state back");
    // Where one of the two is silent, the third is what makes the quorum: it has its full time.
    let mut silent = Bench::new(Known::default());
    silent.proposer.be_thrifty(true);
    silent.request(0, Request { command: Command::Get, ..request(2_000) });
    silent.message(1, ME, state(Held::Nothing));
    let late = silent.proposer.next_wake().expect("the spared is asked a little later");
    silent.wake(late);
    assert_eq!(silent.proposer.next_wake(), Some(late + ROUND));
}
