//! Every schedule of a small cluster: three replicas, two of them coordinators, a few operations.
//!
//! The state machines are the production ones. The network is a set: what a coordinator asks may
//! arrive at any later moment, any number of times, or never, so loss, duplication and reordering
//! need no events of their own. The answer arrives at once or is lost; a copy of the question is
//! answered again, and so late answers come. Time is abstract: whatever timer is set may fire at
//! any moment. What a node sends itself arrives at once, and a replica's writes are durable at once.
//!
//! | bound | value |
//! |---|---|
//! | replicas, coordinators | 3, 2 |
//! | rounds | up to 3 in the scenarios `retry` and `duel`, up to 2 in the others |
//! | timers that fire | one a coordinator, none in the scenarios with three tries |
//! | operations | see [`Scenario`]; a retry runs at the other coordinator, hedged |
//!
//! Checked in every state: one stamp, one content; chosen states follow one another; what the
//! clients were told is explained by some order (all orders are tried).
//!
//! Caveat: no crashes, and no delay between a node and its own replica: the simulation has both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(clippy::print_stdout, reason = "figures, shown with --nocapture")]

use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    command::{Command, Condition, Context, Expiry, Reply, apply},
    effect::{Effect, Effects, Write},
    message::{Ask, Envelope, Message, Outcome, Promise, Request},
    recent::OpId,
    record::{Datum, Key, Record, Value, stamp_of},
    register::{
        acceptor::{Acceptor, Durable, Standing},
        proposer::{Config, Known, Proposer},
    },
    ring::NodeId,
    time::{Now, Time},
};
use stateright::{Checker, Model, Property};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// Replicas; the first two coordinate.
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const COORDINATORS: usize = 2;
const ROUTER: NodeId = NodeId(9);

/// A rule broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// A new owner builds on the lowest of the states that it was shown.
    AdoptLowest,
    /// One replica chooses.
    QuorumOfOne,
    /// States carry no record of what was applied.
    NoExactlyOnce,
}

/// One try of an operation at a coordinator.
#[derive(Clone, Debug)]
struct Try {
    op: usize,
    coordinator: usize,
    attempt: u32,
}

/// What is asked. Tries of one operation come in this order, any time apart.
#[derive(Clone, Debug)]
struct Scenario {
    operations: Vec<Command>,
    tries: Vec<Try>,
    rounds: u64,
    /// Time-outs and ends of pauses at each coordinator.
    timers: u8,
    mutant: Option<Mutant>,
}

/// What a client knows of its operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Seen {
    asked: bool,
    /// Operations that had ended when it was asked, as bits.
    after: u8,
    reply: Option<Reply>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cluster {
    acceptors: Vec<Acceptor>,
    rows: Vec<Option<Record>>,
    proposers: Vec<Proposer>,
    /// By a hash, so that its order does not depend on the way here.
    network: BTreeMap<u64, Envelope>,
    /// Tries that were made, as bits.
    tried: u8,
    clients: Vec<Seen>,
    /// Of each coordinator: its latest ballot and question, and the timers that have fired.
    latest: Vec<(Ballot, Ask, u8)>,
    /// Who stored each state.
    votes: BTreeMap<Stamp, (Record, u8)>,
    wrong: Option<&'static str>,
    /// Whether what a replica says arrives in this step.
    answered: bool,
    /// A ballot beyond the bound was asked for.
    beyond: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Try(usize),
    /// The message arrives; the answer arrives at once, or is lost.
    Deliver(Envelope, bool),
    Wake(usize),
}

const NOW: Now = Now { mono: Time(0), wall: 0 };

fn key() -> Key {
    Key::from("x")
}

fn index(id: NodeId) -> usize {
    NODES.iter().position(|node| *node == id).expect("a replica")
}

impl Model for Scenario {
    type State = Cluster;
    type Action = Action;

    fn init_states(&self) -> Vec<Cluster> {
        let quorum = if self.mutant == Some(Mutant::QuorumOfOne) { 1 } else { 2 };
        let config = |me| Config {
            me,
            replicas: NODES.to_vec(),
            read_quorum: quorum,
            write_quorum: quorum,
            // Any moment is late enough.
            round_timeout: Duration::ZERO,
            repeat_after: Duration::ZERO,
            value_bytes_max: 64,
            contended: false,
        };
        let ask = Ask { incarnation: 1, asker: 1, n: 0 };
        let voter = |id| Acceptor::new(id, Durable::default(), Standing::Voter);
        vec![Cluster {
            acceptors: NODES.into_iter().map(voter).collect(),
            rows: vec![None; NODES.len()],
            proposers: NODES[..COORDINATORS]
                .iter()
                .map(|id| {
                    let mut proposer = Proposer::new(key(), config(*id), Known::default(), ask, 1);
                    proposer.be_thrifty(*id == NODES[0]);
                    proposer
                })
                .collect(),
            network: BTreeMap::new(),
            tried: 0,
            latest: vec![(Ballot::ZERO, ask, 0); COORDINATORS],
            clients: vec![Seen::default(); self.operations.len()],
            votes: BTreeMap::new(),
            wrong: None,
            answered: true,
            beyond: false,
        }]
    }

    fn actions(&self, state: &Cluster, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        for (number, attempt) in self.tries.iter().enumerate() {
            let made = |number: usize| state.tried & (1 << number) != 0;
            let first = attempt.attempt == 1 || state.clients[attempt.op].asked;
            if !made(number) && first && state.clients[attempt.op].reply.is_none() {
                actions.push(Action::Try(number));
            }
        }
        for envelope in state.network.values() {
            actions.push(Action::Deliver(envelope.clone(), true));
            actions.push(Action::Deliver(envelope.clone(), false));
        }
        let timers = (0..COORDINATORS).filter(|at| {
            state.proposers[*at].next_wake().is_some() && state.latest[*at].2 < self.timers
        });
        actions.extend(timers.map(Action::Wake));
    }

    fn next_state(&self, last: &Cluster, action: Action) -> Option<Cluster> {
        let mut state = last.clone();
        match action {
            Action::Try(number) => self.ask(&mut state, number),
            Action::Deliver(envelope, answered) => {
                state.answered = answered;
                self.deliver(&mut state, envelope);
                state.answered = true;
            }
            Action::Wake(coordinator) => {
                state.latest[coordinator].2 += 1;
                let proposer = &mut state.proposers[coordinator];
                let now = Now { mono: proposer.next_wake()?, ..NOW };
                let mut effects = Effects::new();
                proposer.wake(now, || true, &mut effects);
                self.carry_out(&mut state, NODES[coordinator], effects);
            }
        }
        Self::forget_what_cannot_matter(&mut state);
        (!state.beyond && state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every rule holds", |_, state: &Cluster| state.wrong.is_none()),
            Property::sometimes("every operation can end", |_, state: &Cluster| {
                state.clients.iter().all(|client| client.reply.is_some())
            }),
        ]
    }
}

impl Scenario {
    fn ask(&self, state: &mut Cluster, number: usize) {
        let Try { op, coordinator, attempt } = self.tries[number];
        state.tried |= 1 << number;
        let command = self.operations[op].clone();
        if !state.clients[op].asked {
            let ended = state.clients.iter().enumerate().filter(|(_, seen)| seen.reply.is_some());
            let after = ended.map(|(place, _)| 1 << place).sum();
            state.clients[op] = Seen { asked: true, after, reply: None };
        }
        let request = Request {
            op: OpId { router: ROUTER, incarnation: 1, seq: op as u64 },
            attempt,
            done_below: 0,
            record: attempt > 1 && !command.is_read(),
            key: key(),
            command,
            patience: u32::MAX,
            expires: u64::MAX,
        };
        let mut effects = Effects::new();
        state.proposers[coordinator].request(NOW, request, &mut effects);
        self.carry_out(state, NODES[coordinator], effects);
    }

    fn deliver(&self, state: &mut Cluster, envelope: Envelope) {
        let Envelope { from, to, message } = envelope;
        let at = index(to);
        let (acceptor, stored) = (&mut state.acceptors[at], state.rows[at].clone());
        let mut effects = Effects::new();
        match message {
            Message::Prepare(ask) => acceptor.prepare(from, &ask, stored.as_ref(), &mut effects),
            Message::Accept(ask) => acceptor.accept(from, ask, stored.as_ref(), &mut effects),
            Message::Query(ask) => acceptor.query(from, &ask, stored.as_ref(), &mut effects),
            Message::Promise(promise) if self.mutant == Some(Mutant::AdoptLowest) && from != to => {
                let lower = stamp_of(stored.as_ref()) < stamp_of(promise.record.as_ref());
                let record = if lower { stored } else { promise.record.clone() };
                let lowest = Promise { record, ..promise };
                let proposer = &mut state.proposers[at];
                proposer.message(NOW, to, lowest.clone().into(), &mut effects);
                proposer.message(NOW, from, lowest.into(), &mut effects);
            }
            message => state.proposers[at].message(NOW, from, message, &mut effects),
        }
        self.carry_out(state, to, effects);
    }

    /// Drops messages whose arrival changes nothing: questions that their coordinator has left, and
    /// what a replica would refuse to such a coordinator. (A late refusal could still raise the
    /// round at which a coordinator begins; that is left out.)
    fn forget_what_cannot_matter(state: &mut Cluster) {
        let Cluster { network, latest, acceptors, rows, .. } = state;
        network.retain(|_, Envelope { from, to, message }| {
            let (ballot, ask, _) = latest[index(*from)];
            let stored = rows[index(*to)].as_ref();
            let promise = acceptors[index(*to)].promised(&key(), stored);
            match message {
                Message::Query(m) => m.ask == ask,
                Message::Prepare(m) => m.ballot == ballot || m.ballot > promise,
                Message::Accept(m) => {
                    let stamp = m.record.stamp;
                    let news = stamp_of(stored) < Some(stamp);
                    stamp.ballot == ballot || (stamp.ballot >= promise && news)
                }
                _ => true,
            }
        });
    }

    fn carry_out(&self, state: &mut Cluster, id: NodeId, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Persist(Write::Put(_, record)) => Self::store(state, id, record),
                Effect::Persist(Write::Ceiling(_)) => {}
                Effect::Persist(write) => unreachable!("{write:?} is not part of the model"),
                Effect::List { .. } | Effect::Note(_) => {}
                Effect::Begin { key, above } => {
                    let at = index(id);
                    let stored = state.rows[at].clone();
                    let mut effects = Effects::new();
                    state.acceptors[at].begin(&key, above, stored.as_ref(), &mut effects);
                    self.carry_out(state, id, effects);
                }
                Effect::Send { to, message } => self.send(state, id, to, message),
            }
        }
    }

    fn send(&self, state: &mut Cluster, from: NodeId, to: NodeId, mut message: Message) {
        match &mut message {
            Message::Answer(answer) => {
                let op = answer.op.seq as usize;
                if let Outcome::Done { reply, recorded } = &answer.outcome {
                    self.answered(state, op, reply.clone(), *recorded);
                }
                return;
            }
            Message::Promise(promise) if from == to => {
                state.beyond |= promise.ballot.round > self.rounds;
                state.latest[index(from)].0 = promise.ballot;
            }
            Message::Query(query) => state.latest[index(from)].1 = query.ask,
            Message::Accept(accept) => {
                if self.mutant == Some(Mutant::NoExactlyOnce) {
                    accept.record.recent = Default::default();
                }
                let record = &accept.record;
                let first = state.votes.entry(record.stamp).or_insert_with(|| (record.clone(), 0));
                if first.0 != *record {
                    state.wrong = Some("one stamp names two contents");
                }
            }
            _ => {}
        }
        let is_answer = matches!(
            message,
            Message::Promise(_)
                | Message::Accepted(_)
                | Message::Refused(_)
                | Message::State(_)
                | Message::NoVote(_)
        );
        let envelope = Envelope { from, to, message };
        if from == to || (is_answer && state.answered) {
            self.deliver(state, envelope);
        } else if !is_answer {
            let mut hasher = DefaultHasher::new();
            envelope.hash(&mut hasher);
            state.network.insert(hasher.finish(), envelope);
        }
    }

    fn store(state: &mut Cluster, id: NodeId, record: Record) {
        let at = index(id);
        state.rows[at] = Some(record.clone());
        let (_, voters) = state.votes.entry(record.stamp).or_insert((record, 0));
        *voters |= 1 << at;
        let mut chosen = state.votes.values().filter(|(_, voters)| voters.count_ones() >= 2);
        let Some((mut before, _)) = chosen.next().cloned() else { return };
        for (next, _) in chosen {
            let same = (&before.datum, &before.recent) == (&next.datum, &next.recent);
            let (old, new) = (before.stamp.version, next.stamp.version);
            if new < old || (new == old && !same) {
                state.wrong = Some("a chosen state is not contained in a later one");
            }
            before = next.clone();
        }
    }

    /// What the router does with a result: one that left no trace counts only if nothing else runs.
    fn answered(&self, state: &mut Cluster, op: usize, reply: Reply, recorded: bool) {
        let tries = self
            .tries
            .iter()
            .enumerate()
            .filter(|(number, attempt)| attempt.op == op && state.tried & (1 << number) != 0);
        let certain = recorded || self.operations[op].is_read() || tries.count() == 1;
        if certain && state.clients[op].reply.is_none() {
            state.clients[op].reply = Some(reply);
            if !self.explained(state, None, 0) {
                state.wrong = Some("no order explains what the clients were told");
            }
        }
    }

    /// Whether the operations that are not `taken` can follow `datum` in some order.
    fn explained(&self, state: &Cluster, datum: Option<&Datum>, taken: u8) -> bool {
        let left = |op: &usize| taken & (1 << op) == 0;
        let mut must = (0..self.operations.len()).filter(left);
        if must.all(|op| state.clients[op].reply.is_none()) {
            return true;
        }
        (0..self.operations.len()).filter(left).any(|op| {
            let Seen { asked, after, reply } = &state.clients[op];
            // Whatever had ended before this was asked comes before it.
            if !asked || after & !taken != 0 {
                return false;
            }
            let context = Context { wall: 0, value_bytes_max: 64 };
            let applied = apply(&self.operations[op], datum, context);
            if reply.as_ref().is_some_and(|reply| *reply != applied.reply) {
                return false;
            }
            let next = applied.next.as_ref().or(datum);
            self.explained(state, next, taken | (1 << op))
        })
    }
}

fn one(op: usize, coordinator: usize, attempt: u32) -> Try {
    Try { op, coordinator, attempt }
}

impl Scenario {
    /// An increment, tried at both coordinators.
    fn retry() -> Scenario {
        Scenario {
            operations: vec![Command::IncrBy(1)],
            tries: vec![one(0, 0, 1), one(0, 1, 2)],
            rounds: 3,
            timers: 1,
            mutant: None,
        }
    }

    /// Two increments at two coordinators.
    fn duel() -> Scenario {
        Scenario {
            operations: vec![Command::IncrBy(1), Command::IncrBy(10)],
            tries: vec![one(0, 0, 1), one(1, 1, 1)],
            ..Scenario::retry()
        }
    }

    /// The same with a read, and without time-outs.
    fn read() -> Scenario {
        let duel = Scenario::duel();
        Scenario {
            operations: [duel.operations, vec![Command::Get]].concat(),
            tries: [duel.tries, vec![one(2, 0, 1)]].concat(),
            rounds: 2,
            timers: 0,
            mutant: None,
        }
    }

    /// A conditional write, tried at both coordinators, beside a write that decides its condition.
    fn condition() -> Scenario {
        let set = |value, condition| Command::Set {
            value: Value::from(value),
            condition,
            expiry: Expiry::Clear,
            get: false,
        };
        Scenario {
            operations: vec![set("a", Condition::IfAbsent), set("b", Condition::Always)],
            tries: vec![one(0, 0, 1), one(0, 1, 2), one(1, 1, 1)],
            rounds: 2,
            timers: 0,
            mutant: None,
        }
    }

    fn with(self, mutant: Mutant) -> Scenario {
        Scenario { mutant: Some(mutant), ..self }
    }

    /// Visits every state; the rule that one breaks, if any does.
    fn explore(self) -> Option<&'static str> {
        let name = self.mutant;
        let checker = self.checker().spawn_bfs().join();
        let states = checker.unique_state_count();
        let depth = checker.max_depth();
        let wrong = checker.discovery("every rule holds").and_then(|path| path.last_state().wrong);
        println!("{name:?}: {states} states, at most {depth} steps, {wrong:?}");
        assert!(wrong.is_some() || checker.discovery("every operation can end").is_some());
        wrong
    }
}

#[test]
fn every_schedule_of_a_retried_increment() {
    assert_eq!(Scenario::retry().explore(), None);
}

#[test]
fn every_schedule_of_two_increments() {
    assert_eq!(Scenario::duel().explore(), None);
}

#[test]
fn every_schedule_of_two_increments_and_a_read() {
    assert_eq!(Scenario::read().explore(), None);
}

#[test]
fn every_schedule_of_a_retried_condition() {
    assert_eq!(Scenario::condition().explore(), None);
}

#[test]
fn control_adopting_the_lowest_state() {
    assert!(Scenario::duel().with(Mutant::AdoptLowest).explore().is_some());
}

#[test]
fn control_a_quorum_of_one() {
    assert!(Scenario::duel().with(Mutant::QuorumOfOne).explore().is_some());
}

#[test]
fn control_no_exactly_once_record() {
    assert!(Scenario::retry().with(Mutant::NoExactlyOnce).explore().is_some());
}
