//! Every schedule of a small chain: three nodes, a few operations, one of which may be tried at
//! another member, and time-outs.
//!
//! The state machines are the production ones. What a node says may arrive at any later moment or
//! never, so loss and reordering need no events of their own; what it says to itself, and what is
//! durable, comes at once, and so do the answers to surveys and of the register, or they are lost.
//! Time is abstract: a node's time-outs may come at any moment. Acknowledgements are left out: they
//! only let members forget what they would send again.
//!
//! | bound | value |
//! |---|---|
//! | nodes, chain | 3, of three members |
//! | time-outs | of one node, once: enough to change the chain |
//! | operations | see [`Scenario`] |
//!
//! Checked in every state: one epoch, one chain; one stamp, one content; of each member and its
//! successor in one epoch the successor never holds more; what the clients were told is explained by
//! some order (all orders are tried).
//!
//! Caveat: no crashes, no copying, no doubled frames: the simulation has all three.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(clippy::print_stdout, reason = "figures, shown with --nocapture")]

use simpledynamo_protocol::{
    ballot::Stamp,
    chain::{
        self, Chain,
        config::Config,
        wire::{ConfigRound, Confirmed, RegisterMessage},
    },
    command::{Command, Condition, Context, Expiry, Reply, apply},
    effect::{Effect, Effects, Write},
    message::{Envelope, Message, Outcome, Request},
    recent::OpId,
    record::{Datum, Key, Record, Value, stamp_of},
    register::acceptor::{Durable, Standing},
    ring::{NodeId, RangeId, Ring},
    time::{Now, Time},
};
use stateright::{Checker, Model, Property};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// The chain, in order.
const NODES: [NodeId; 3] = [NodeId(5554), NodeId(5558), NodeId(5560)];
const ROUTER: NodeId = NodeId(9);

/// More than any of a node's time-outs, microseconds.
const LONG: u64 = 250_000;

/// A rule broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// The tail answers reads without asking.
    TailUnconfirmed,
    /// States carry no record of what was applied.
    NoExactlyOnce,
}

/// One try of an operation at a member.
#[derive(Clone, Debug)]
struct Try {
    op: usize,
    node: usize,
    attempt: u32,
}

/// What is asked, and whose time-outs may come. Tries of one operation come in this order.
#[derive(Clone, Debug)]
struct Scenario {
    operations: Vec<Command>,
    tries: Vec<Try>,
    /// The node whose time-outs may come.
    late: usize,
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
    chains: Vec<Chain>,
    rows: Vec<Option<Record>>,
    clocks: Vec<u64>,
    /// By a hash, so that its order does not depend on the way here.
    network: BTreeMap<u64, Envelope>,
    tried: u8,
    timers: u8,
    clients: Vec<Seen>,
    named: BTreeMap<Stamp, Record>,
    epochs: BTreeMap<u64, Config>,
    wrong: Option<&'static str>,
    /// Whether answers that come at once come in this step.
    answered: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Try(usize),
    /// The message arrives; the answer arrives at once, or is lost.
    Deliver(u64, bool),
    TimeOut,
}

fn ring() -> Ring {
    Ring::new(NODES, 3)
}

fn key() -> Key {
    let fits = |key: &Key| ring().replicas_of(key) == NODES;
    (0..).map(|n: u32| Key::from(format!("x{n}").as_str())).find(fits).expect("one of many")
}

fn range() -> RangeId {
    ring().range_of(&key())
}

fn index(id: NodeId) -> usize {
    NODES.iter().position(|node| *node == id).expect("a member")
}

impl Model for Scenario {
    type State = Cluster;
    type Action = Action;

    fn init_states(&self) -> Vec<Cluster> {
        let chain = |me| {
            let request_timeout = Duration::from_millis(100);
            let settings =
                chain::Settings { me, ring: ring(), request_timeout, value_bytes_max: 64 };
            let (durable, kept) = (Durable::default(), chain::Kept::first(&ring(), me));
            // As if it had compared itself with its predecessor long ago.
            let now = Time(LONG * 1_000);
            Chain::new(settings, 1, durable, &kept, Standing::Voter, now)
        };
        vec![Cluster {
            chains: NODES.into_iter().map(chain).collect(),
            rows: vec![None; NODES.len()],
            clocks: vec![0; NODES.len()],
            network: BTreeMap::new(),
            tried: 0,
            timers: 0,
            clients: vec![Seen::default(); self.operations.len()],
            named: BTreeMap::new(),
            epochs: BTreeMap::new(),
            wrong: None,
            answered: true,
        }]
    }

    fn actions(&self, state: &Cluster, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        let asked = |number: usize| state.tried & (1 << number) != 0;
        for (number, attempt) in self.tries.iter().enumerate() {
            let before = self.tries[..number].iter().rposition(|it| it.op == attempt.op);
            if !asked(number) && before.is_none_or(asked) {
                actions.push(Action::Try(number));
            }
        }
        for (hash, envelope) in &state.network {
            actions.push(Action::Deliver(*hash, true));
            let accept = |round: &ConfigRound| matches!(round.body, RegisterMessage::Accept(_));
            if matches!(&envelope.message, Message::ConfigRound(round) if accept(round)) {
                actions.push(Action::Deliver(*hash, false));
            }
        }
        if state.timers == 0 && state.tried > 0 {
            actions.push(Action::TimeOut);
        }
    }

    fn next_state(&self, last: &Cluster, action: Action) -> Option<Cluster> {
        let mut state = last.clone();
        state.answered = true;
        match action {
            Action::Try(number) => self.ask(&mut state, number),
            Action::Deliver(hash, answered) => {
                let envelope = state.network.remove(&hash)?;
                state.answered = answered;
                self.deliver(&mut state, envelope);
            }
            Action::TimeOut => {
                state.timers += 1;
                state.clocks[self.late] += LONG;
                self.act(&mut state, self.late, |chain, now, rows, out| chain.wake(now, rows, out));
            }
        }
        state.answered = true;
        Self::forget_what_cannot_matter(&mut state);
        self.judge(&mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every rule holds", |_, state: &Cluster| state.wrong.is_none()),
            Property::sometimes("every operation can end", |_, state: &Cluster| {
                state.clients.iter().all(|client| client.reply.is_some())
            }),
            Property::sometimes("the chain can change", |_, state: &Cluster| {
                !state.epochs.is_empty()
            }),
        ]
    }
}

impl Scenario {
    fn ask(&self, state: &mut Cluster, number: usize) {
        let Try { op, node, attempt } = self.tries[number];
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
        let to = NODES[node];
        self.deliver(state, Envelope { from: ROUTER, to, message: request.into() });
    }

    fn deliver(&self, state: &mut Cluster, envelope: Envelope) {
        let Envelope { from, to, message } = envelope;
        let at = index(to);
        self.act(state, at, |chain, now, rows, out| chain.message(now, from, message, rows, out));
    }

    /// Drops questions and news of epochs that their receiver has left behind: all that comes of them
    /// is that somebody is told of the present one, and everyone is, or is not, by other messages.
    fn forget_what_cannot_matter(state: &mut Cluster) {
        let Cluster { network, chains, .. } = state;
        let epoch =
            |node: NodeId| chains[index(node)].seat(range()).map_or(0, |seat| seat.config.epoch);
        network.retain(|_, Envelope { to, message, .. }| match message {
            Message::Survey(survey) => survey.config.epoch >= epoch(*to),
            Message::Announce(announce) => announce.config.epoch > epoch(*to),
            Message::Confirm(confirm) => confirm.config.epoch >= epoch(*to),
            Message::Confirmed(confirmed) => confirmed.epoch >= epoch(*to),
            _ => true,
        });
    }

    fn act(
        &self,
        state: &mut Cluster,
        at: usize,
        act: impl FnOnce(&mut Chain, Now, chain::Rows<'_>, &mut Effects),
    ) {
        let now = Now { mono: Time(state.clocks[at]), wall: 0 };
        let (row, mut effects) = (state.rows[at].clone(), Effects::new());
        act(&mut state.chains[at], now, &mut |_| row.clone(), &mut effects);
        self.carry_out(state, at, effects);
        let (row, mut effects) = (state.rows[at].clone(), Effects::new());
        state.chains[at].flush(now, &mut |_| row.clone(), &mut effects);
        self.carry_out(state, at, effects);
    }

    fn carry_out(&self, state: &mut Cluster, at: usize, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Persist(Write::Put(_, mut record)) => {
                    if self.mutant == Some(Mutant::NoExactlyOnce) {
                        record.recent = Default::default();
                    }
                    let first = state.named.entry(record.stamp).or_insert_with(|| record.clone());
                    if *first != record {
                        state.wrong = Some("one stamp names two contents");
                    }
                    state.rows[at] = Some(record);
                }
                Effect::Persist(Write::Seat(of, seat)) if of == range() => {
                    let epoch = seat.config.epoch;
                    let first = state.epochs.entry(epoch).or_insert_with(|| seat.config.clone());
                    if *first != seat.config {
                        state.wrong = Some("one epoch names two chains");
                    }
                }
                Effect::Persist(_) => {}
                Effect::Send { to, message } => self.send(state, NODES[at], to, message),
                Effect::Begin { .. } | Effect::List { .. } | Effect::Note(_) => {
                    unreachable!("chains begin their ballots themselves, and note nothing")
                }
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
            Message::Confirm(confirm) if self.mutant == Some(Mutant::TailUnconfirmed) => {
                let (range, epoch, ask) = (confirm.range, confirm.config.epoch, confirm.ask);
                let message = Confirmed { range, epoch, ask }.into();
                return self.deliver(state, Envelope { from: to, to: from, message });
            }
            Message::Forward(forward) if self.mutant == Some(Mutant::NoExactlyOnce) => {
                if let Some(record) = &mut forward.record {
                    record.recent = Default::default();
                }
            }
            Message::Acked(_) | Message::Attach(_) => return,
            Message::Announce(_) if from == to || to == ROUTER => return,
            _ => {}
        }
        let at_once = match &message {
            Message::Present(_) => true,
            Message::ConfigRound(round) => !matches!(
                round.body,
                RegisterMessage::Prepare(_)
                    | RegisterMessage::Accept(_)
                    | RegisterMessage::Query(_)
                    | RegisterMessage::Settle
            ),
            _ => false,
        };
        let envelope = Envelope { from, to, message };
        if from == to || (at_once && state.answered) {
            self.deliver(state, envelope);
        } else if !at_once {
            let mut hasher = DefaultHasher::new();
            envelope.hash(&mut hasher);
            state.network.insert(hasher.finish(), envelope);
        }
    }

    /// No successor holds more than its predecessor of the same epoch.
    fn judge(&self, state: &mut Cluster) {
        for (at, node) in NODES.into_iter().enumerate() {
            let config = &state.chains[at].seat(range()).expect("a replica").config;
            let Some(after) = config.after(node).map(index) else { continue };
            let same = state.chains[after].seat(range()).is_some_and(|it| it.config == *config);
            let held = |at: usize| stamp_of(state.rows[at].as_ref());
            if same && held(at) < held(after) {
                state.wrong = Some("a successor holds more than its predecessor");
            }
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

    /// An increment whose head falls silent, retried at the second, which takes over.
    fn head_is_lost() -> Scenario {
        Scenario {
            operations: vec![Command::IncrBy(1)],
            tries: vec![one(0, 0, 1), one(0, 1, 2)],
            late: 1,
            mutant: None,
        }
    }

    /// The tail falls silent with a read before it, and the chain goes on without it, or does not.
    fn tail_is_lost() -> Scenario {
        Scenario {
            operations: vec![Command::IncrBy(1), Command::Get],
            tries: vec![one(0, 1, 1), one(1, 2, 1)],
            late: 1,
            mutant: None,
        }
    }

    /// A condition that is decided at two heads, beside a write that decides it.
    fn condition() -> Scenario {
        let set = |value, condition| Command::Set {
            value: Value::from(value),
            condition,
            expiry: Expiry::Clear,
            get: false,
        };
        Scenario {
            operations: vec![set("a", Condition::IfAbsent), set("b", Condition::Always)],
            tries: vec![one(0, 0, 1), one(0, 1, 2), one(1, 0, 1)],
            late: 1,
            mutant: None,
        }
    }

    fn with(self, mutant: Mutant) -> Scenario {
        Scenario { mutant: Some(mutant), ..self }
    }

    /// Visits every state; the rule that one breaks, if any does.
    fn explore(self) -> Option<&'static str> {
        let name = self.mutant;
        let checker = self.checker().spawn_dfs().join();
        let states = checker.unique_state_count();
        let depth = checker.max_depth();
        let wrong = checker.discovery("every rule holds").and_then(|path| path.last_state().wrong);
        println!("{name:?}: {states} states, at most {depth} steps, {wrong:?}");
        let found = |what| checker.discovery(what).is_some();
        assert!(
            wrong.is_some() || found("every operation can end") && found("the chain can change")
        );
        wrong
    }
}

fn one(op: usize, node: usize, attempt: u32) -> Try {
    Try { op, node, attempt }
}

#[test]
fn every_schedule_of_a_lost_head() {
    assert_eq!(Scenario::head_is_lost().explore(), None);
}

#[test]
fn every_schedule_of_a_lost_tail() {
    assert_eq!(Scenario::tail_is_lost().explore(), None);
}

#[test]
fn every_schedule_of_a_retried_condition() {
    assert_eq!(Scenario::condition().explore(), None);
}

#[test]
fn control_a_tail_answers_without_confirming() {
    assert!(Scenario::tail_is_lost().with(Mutant::TailUnconfirmed).explore().is_some());
}

#[test]
fn control_no_exactly_once_record() {
    assert!(Scenario::head_is_lost().with(Mutant::NoExactlyOnce).explore().is_some());
}
