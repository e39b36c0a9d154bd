//! The register that holds a range's configuration: the acceptor and the proposer of the quorum
//! register, on a key of their own that travels wrapped, so that no client can name it.
//!
//! Whoever wants to know what is chosen where it fears that a change is half done has the register
//! written once more (`Settle`), and then reads it.

use super::{
    Core, Range, Step,
    config::Config,
    wire::{Announce, ConfigRound, RegisterMessage},
};
use crate::{
    ballot::Ballot,
    command::{Command, Condition, Expiry, Reply},
    effect::{Effect, Effects, Write},
    message::{Ask, Message, Outcome, Request},
    recent::OpId,
    record::{Key, Record},
    register::proposer::{self, Known, Proposer},
    ring::{NodeId, RangeId},
    time::Time,
};

/// How long an operation on the configuration may take, in request time-outs.
const PATIENCE: u32 = 5;

/// A range's configuration register at one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Register {
    key: Key,
    /// What the own acceptor has accepted.
    row: Option<Record>,
    proposer: Proposer,
    under_way: Option<(OpId, Purpose)>,
}

/// What an operation on the register is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// To learn what is chosen.
    Read,
    /// To end a change that may be half done.
    Settle,
    /// To make this the chain that follows.
    Change(Config),
}

impl Register {
    pub(super) fn new(
        core: &mut Core,
        id: RangeId,
        replicas: &[NodeId],
        row: Option<Record>,
    ) -> Register {
        let key = Key::from(format!("chain {}", id.0).as_str());
        let majority = replicas.len() / 2 + 1;
        let config = proposer::Config {
            me: core.me,
            replicas: replicas.to_vec(),
            read_quorum: majority,
            write_quorum: majority,
            round_timeout: core.settings.request_timeout,
            repeat_after: core.settings.request_timeout,
            value_bytes_max: usize::MAX,
            // All members of a chain miss a dead one at the same moment.
            contended: true,
        };
        let ask = Ask { n: u64::from(id.0) << 32, ..core.ask() };
        let seed = core.incarnation << 32 ^ u64::from(core.me.0) << 8 ^ u64::from(id.0);
        let proposer = Proposer::new(key.clone(), config, Known::default(), ask, seed);
        Register { key, row, proposer, under_way: None }
    }

    /// The epoch of the configuration that the own acceptor has accepted.
    pub(super) fn accepted(&self) -> Option<Config> {
        let value = self.row.as_ref().and_then(|row| row.datum.value())?;
        Config::parse(value)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn next_wake(&self) -> Option<Time> {
        self.proposer.next_wake()
    }

    pub(super) fn promised(&self, core: &Core) -> Ballot {
        core.acceptor.promised(&self.key, self.row.as_ref())
    }

    /// What `node` has said in its former life is no vote any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.proposer.forget(node);
    }

    pub(super) fn row(&self) -> Option<&Record> {
        self.row.as_ref()
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

impl Range {
    /// Whether the own acceptor has accepted a change that is not known to be chosen. It may be: as
    /// far as this node can tell, the epoch does not stand any more.
    pub(super) fn is_sealed(&self) -> bool {
        self.register.accepted().is_some_and(|config| config.epoch > self.seat.config.epoch)
    }

    /// Starts an operation on the register, unless one is under way.
    pub(super) fn ask_register(&mut self, core: &mut Core, purpose: Purpose, step: &mut Step<'_>) {
        if self.register.is_busy() || !core.votes() {
            return;
        }
        core.ops += 1;
        let op = OpId { router: core.me, incarnation: core.incarnation, seq: core.ops };
        let command = match &purpose {
            Purpose::Read => Command::Get,
            Purpose::Settle => Command::Rewrite,
            Purpose::Change(next) => Command::Set {
                value: next.to_value(),
                // Epoch 1 need not have been written.
                condition: match self.seat.config.epoch {
                    1 => Condition::IfAbsent,
                    _ => Condition::IfEquals(self.seat.config.to_value()),
                },
                expiry: Expiry::Clear,
                get: false,
            },
        };
        let patience = core.settings.request_timeout * PATIENCE;
        let request = Request {
            op,
            attempt: 1,
            done_below: op.seq,
            record: false,
            key: self.register.key.clone(),
            command,
            patience: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
            expires: u64::MAX,
        };
        self.register.under_way = Some((op, purpose));
        let mut effects = Effects::new();
        self.register.proposer.request(step.now, request, &mut effects);
        self.carry_out(core, effects, step);
    }

    /// A message of the register.
    pub(super) fn register_message(
        &mut self,
        core: &mut Core,
        from: NodeId,
        body: RegisterMessage,
        step: &mut Step<'_>,
    ) {
        if let RegisterMessage::State(state) = &body
            && self.is_learning(state.ask)
        {
            return self.learned(core, from, state.held.clone(), step);
        }
        let mut effects = Effects::new();
        let row = self.register.row.as_ref();
        let proposer = &mut self.register.proposer;
        let mut to_proposer = |message: Message, effects: &mut Effects| {
            proposer.message(step.now, from, message, effects);
        };
        match body {
            RegisterMessage::Prepare(ask) => core.acceptor.prepare(from, &ask, row, &mut effects),
            RegisterMessage::Accept(ask) => core.acceptor.accept(from, ask, row, &mut effects),
            RegisterMessage::Query(ask) => core.acceptor.query(from, &ask, row, &mut effects),
            RegisterMessage::State(body) => to_proposer(body.into(), &mut effects),
            RegisterMessage::Promise(body) => to_proposer(body.into(), &mut effects),
            RegisterMessage::Accepted(body) => to_proposer(body.into(), &mut effects),
            RegisterMessage::Refused(body) => to_proposer(body.into(), &mut effects),
            RegisterMessage::NoVote(body) => to_proposer(body.into(), &mut effects),
            RegisterMessage::Settle => return self.ask_register(core, Purpose::Settle, step),
        }
        self.carry_out(core, effects, step);
    }

    pub(super) fn wake_register(&mut self, core: &mut Core, step: &mut Step<'_>) {
        if self.register.proposer.next_wake().is_some_and(|at| at <= step.now.mono) {
            let mut effects = Effects::new();
            self.register.proposer.wake(step.now, || true, &mut effects);
            self.carry_out(core, effects, step);
        }
    }

    /// The register's effects, wrapped; its answers stay here.
    pub(super) fn carry_out(&mut self, core: &mut Core, effects: Effects, step: &mut Step<'_>) {
        for effect in effects {
            match effect {
                Effect::Persist(Write::Put(_, record)) => {
                    self.register.row = Some(record.clone());
                    step.persist(Write::Config(self.id, record));
                }
                Effect::Persist(write) => step.persist(write),
                Effect::Send { message: Message::Answer(answer), .. } => {
                    let under_way = self.register.under_way.take_if(|(op, _)| *op == answer.op);
                    if let Some((_, purpose)) = under_way {
                        self.register_answer(core, purpose, answer.outcome, step);
                    }
                }
                Effect::Send { to, message } => {
                    if let Some(body) = RegisterMessage::wrap(message) {
                        step.send(to, ConfigRound { range: self.id, body });
                    }
                }
                Effect::Begin { key, above } => {
                    let mut effects = Effects::new();
                    core.acceptor.begin(&key, above, self.register.row.as_ref(), &mut effects);
                    self.carry_out(core, effects, step);
                }
                // Of the configuration, not of a client's request.
                Effect::List { .. } | Effect::Note(_) => {}
            }
        }
    }

    fn register_answer(
        &mut self,
        core: &mut Core,
        purpose: Purpose,
        outcome: Outcome,
        step: &mut Step<'_>,
    ) {
        match (purpose, outcome) {
            (Purpose::Change(next), Outcome::Done { reply: Reply::Ok, .. }) => {
                // First of all, so that what is released reaches members that know.
                for node in core.settings.ring.nodes() {
                    step.send(node, Announce { range: self.id, config: next.clone() });
                }
                self.adopt(core, next, step);
            }
            (Purpose::Change(_), outcome) => {
                self.change_failed(core, step);
                // Another change came first, or nobody knows.
                if matches!(outcome, Outcome::Done { .. } | Outcome::Unknown) {
                    self.ask_register(core, Purpose::Read, step);
                }
            }
            (Purpose::Settle, Outcome::Done { .. }) => {
                self.ask_register(core, Purpose::Read, step);
            }
            (Purpose::Read, Outcome::Done { reply, .. }) => {
                let chosen = match &reply {
                    Reply::Bulk(value) => Config::parse(value),
                    _ => Some(Config::first(&self.replicas)),
                };
                if let Some(chosen) = chosen {
                    self.adopt(core, chosen, step);
                }
            }
            (Purpose::Settle | Purpose::Read, _) => {}
        }
    }
}
