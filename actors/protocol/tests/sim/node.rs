//! One simulated node: router, failure detector, coordinators and replica around one disk.

use super::{
    disk::{Disk, Kept, Origin},
    invariants::Fact,
    mutant::{Mutant, Tamper},
    rng::Rng,
};
use simpledynamo_protocol::{
    chain::{self, Chain},
    command::Command,
    effect::{Effect, Effects, Write},
    message::{Alive, Ask, Fetch, Message, Probe, Query, Records, Welcome},
    recent::OpId,
    record::Key,
    register::{
        acceptor::{Acceptor, Durable, Standing},
        proposer::{self, Known, Proposer},
    },
    ring::{NodeId, Ring},
    routing::{self, Routing, Step, Verdict},
    suspicion::Suspicion,
    time::{Now, Time},
};
use std::{collections::BTreeMap, time::Duration};

/// What a node is made of; the same in each of its lives.
#[derive(Clone, Debug)]
pub struct Setup {
    pub ring: Ring,
    pub keys: Vec<Key>,
    pub routing: routing::Config,
    pub round_timeout: Duration,
    /// In a thousand: an idle coordinator is dropped, and then forgotten altogether.
    pub drop_idle: u64,
    pub forget: u64,
    pub value_bytes_max: usize,
    pub strategy: Strategy,
}

/// How keys are replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    Quorum,
    Chain,
}

/// What comes out of a node.
#[derive(Clone, Debug)]
pub enum Out {
    /// A message; to itself it is a local delivery.
    Send { to: NodeId, message: Message },
    /// The end of a client's operation.
    Finish { op: OpId, verdict: Verdict },
}

/// A step's surroundings.
pub struct Around<'a> {
    pub now: Now,
    pub rng: &'a mut Rng,
    pub facts: &'a mut Vec<Fact>,
    pub out: &'a mut Vec<Out>,
}

/// A node. Down, only its disk and its counters are left.
pub struct Node {
    pub id: NodeId,
    pub up: bool,
    /// Start count; durable.
    pub life: u64,
    pub disk: Disk<(NodeId, Message)>,
    pub tamper: Tamper,
    pub(super) setup: Setup,
    pub(super) acceptor: Acceptor,
    /// In place of coordinators and acceptor.
    pub(super) chain: Option<Chain>,
    pub(super) routing: Routing,
    pub(super) suspicion: Suspicion,
    /// Of peers that have lost their store: since which life.
    lives: BTreeMap<NodeId, u64>,
    proposers: BTreeMap<Key, Proposer>,
    known: BTreeMap<Key, Known>,
    /// Given out; no coordinator has the number of a router.
    askers: u64,
    pub(super) sync: super::catchup::Sync,
}

impl Node {
    pub fn new(id: NodeId, setup: Setup, mutant: Option<Mutant>) -> Node {
        let acceptor = Acceptor::new(id, Durable::default(), Standing::Voter);
        let disk = Disk::of(Kept { chain: chain::Kept::first(&setup.ring, id), ..Kept::default() });
        let routing = Routing::new(id, 0, setup.ring.clone(), setup.routing.clone());
        Node {
            id,
            up: false,
            life: 0,
            disk,
            tamper: Tamper::new(mutant),
            suspicion: Suspicion::default(),
            lives: BTreeMap::new(),
            proposers: BTreeMap::new(),
            known: BTreeMap::new(),
            askers: routing::ASKER,
            sync: super::catchup::Sync::default(),
            setup,
            acceptor,
            chain: None,
            routing,
        }
    }

    /// What it may do.
    pub fn standing(&self) -> Standing {
        self.chain.as_ref().map_or(self.acceptor.standing(), Chain::standing)
    }

    /// It has its full part: it votes, and is level in all chains of its ranges.
    pub fn is_well(&self) -> bool {
        self.standing() == Standing::Voter && self.chain.as_ref().is_none_or(Chain::is_level)
    }

    /// The durable ceiling.
    pub fn ceiling(&self) -> u64 {
        self.chain.as_ref().map_or(self.acceptor.ceiling(), Chain::ceiling)
    }

    pub(super) fn learn(&mut self, ceiling: u64, step: &mut Around<'_>) {
        let mut effects = Effects::new();
        match &mut self.chain {
            Some(chain) => chain.learn(step.now.mono, ceiling, false, &mut effects),
            None => self.acceptor.learn(ceiling, &mut effects),
        }
        step.facts.push(Fact::Learns { at: self.id });
        self.replicate(effects, Origin::Accepted, step);
    }

    pub fn others(&self) -> Vec<NodeId> {
        self.setup.ring.nodes().filter(|id| *id != self.id).collect()
    }

    /// Starts a life: a wiped node as a learner, any other voting at once.
    pub fn start(&mut self, wiped: bool, step: &mut Around<'_>) {
        self.life += 1;
        self.up = true;
        let mut durable = self.disk.kept().durable;
        if self.tamper.is(Mutant::VolatileCeiling) {
            durable.ceiling = 0;
        }
        let standing = if wiped { Standing::Outside } else { Standing::Voter };
        self.acceptor = Acceptor::new(self.id, durable, standing);
        self.start_chain(durable, standing, step);
        let Setup { ring, routing, .. } = &self.setup;
        self.routing = Routing::new(self.id, self.life, ring.clone(), routing.clone());
        self.suspicion = Suspicion::new(self.others());
        self.askers = routing::ASKER;
        if wiped {
            self.start_learning(step);
        }
    }

    /// Ends a life: what is not synced and all memory is gone.
    pub fn crash(&mut self) {
        self.up = false;
        self.disk.crash();
        self.proposers.clear();
        self.known.clear();
        self.tamper.crash();
        self.sync = super::catchup::Sync::default();
    }

    /// Its store is empty: it does not vote.
    pub fn forget(&mut self) {
        self.acceptor = Acceptor::new(self.id, Durable::default(), Standing::Outside);
        self.chain = None;
    }

    /// Takes a client's operation.
    pub fn submit(&mut self, key: &Key, command: Command, step: &mut Around<'_>) -> OpId {
        let mut steps = Vec::new();
        let suspicion = &self.suspicion;
        let suspected = |node| suspicion.is_suspected(node);
        let increment = command == Command::IncrBy(1);
        let read = command.is_read();
        let op = self.routing.submit(step.now, key.clone(), command, suspected, &mut steps);
        if !read {
            step.facts.push(Fact::Asked { key: key.clone(), op, increment });
        }
        self.route(steps, step);
        op
    }

    /// Takes a message that was sent in that life of its sender.
    pub fn deliver(&mut self, from: NodeId, sent_in: u64, message: Message, step: &mut Around<'_>) {
        if self.lives.get(&from).is_some_and(|life| sent_in < *life) {
            // A frame of a former connection.
            return;
        }
        if from != self.id {
            self.suspicion.heard(step.now.mono, from);
            if !matches!(message, Message::Request(_)) {
                self.routing.heard(step.now.mono, from);
            }
        }
        for (from, message) in self.tamper.incoming(from, message) {
            self.handle(from, message, step);
        }
    }

    fn handle(&mut self, from: NodeId, message: Message, step: &mut Around<'_>) {
        let Some(message) = self.for_chain(from, message, step) else { return };
        let mut effects = Effects::new();
        match message {
            Message::Request(ref request) => {
                let key = request.key.clone();
                self.revive(&key);
                self.coordinate(&key, from, message, step);
            }
            Message::Answer(answer) => {
                let mut steps = Vec::new();
                let suspicion = &self.suspicion;
                let suspected = |node| suspicion.is_suspected(node);
                self.routing.answer(step.now.mono, from, answer, suspected, &mut steps);
                self.route(steps, step);
            }
            Message::Prepare(ask) => {
                self.acceptor.prepare(from, &ask, self.disk.get(&ask.key), &mut effects);
            }
            Message::Accept(ask) => {
                let stored = self.disk.get(&ask.key).cloned();
                self.acceptor.accept(from, ask, stored.as_ref(), &mut effects);
            }
            Message::Query(ask) => self.query(from, &ask, step),
            Message::Promise(ref m) => self.coordinate(&m.key.clone(), from, message, step),
            Message::Accepted(ref m) => self.coordinate(&m.key.clone(), from, message, step),
            Message::Refused(ref m) => self.coordinate(&m.key.clone(), from, message, step),
            ref reply if routing::answers_router(reply) => {
                let mut steps = Vec::new();
                let suspicion = &self.suspicion;
                let suspected = |node| suspicion.is_suspected(node);
                self.routing.told(step.now, from, message, suspected, &mut steps);
                self.route(steps, step);
            }
            Message::State(ref m) => self.coordinate(&m.key.clone(), from, message, step),
            Message::NoVote(ref m) => self.coordinate(&m.key.clone(), from, message, step),
            Message::Probe(Probe { ask }) => self.release(from, Alive { ask }.into(), step),
            Message::Fetch(ask) => self.fetched(from, &ask, step),
            Message::Records(records) => self.compared(from, records, step),
            Message::Greet(greet) => {
                self.forget_life_before(from, greet.store, step.now.mono);
                let welcome = Welcome {
                    store: greet.store,
                    known_store: 0,
                    incarnation: 0,
                    ceiling: self.ceiling(),
                };
                self.release(from, welcome.into(), step);
            }
            Message::Welcome(welcome) => self.welcomed(from, &welcome, step),
            Message::Alive(_)
            | Message::Keep(_)
            | Message::Missed(_)
            | Message::AskDigests(_)
            | Message::Digests(_)
            | Message::AskList(_)
            | Message::Listed(_)
            | Message::Collect(_)
            | Message::ConfigRound(_)
            | Message::Forward(_)
            | Message::Acked(_)
            | Message::Confirm(_)
            | Message::Confirmed(_)
            | Message::Survey(_)
            | Message::Present(_)
            | Message::Announce(_)
            | Message::Attach(_)
            | Message::Attached(_) => {}
        }
        self.replicate(effects, Origin::Accepted, step);
    }

    /// A peer comes back without its store: nothing that it said before counts from now on.
    fn forget_life_before(&mut self, peer: NodeId, life: u64, now: Time) {
        if self.tamper.is(Mutant::FormerLifeVotes) || self.lives.insert(peer, life) == Some(life) {
            return;
        }
        for proposer in self.proposers.values_mut() {
            proposer.forget(peer);
        }
        self.routing.forget(now, peer);
        if let Some(chain) = &mut self.chain {
            chain.forget(peer);
        }
        self.sync.forget(peer);
    }

    /// A voter answers what is durable here and now, past all writes under way.
    fn query(&mut self, from: NodeId, ask: &Query, step: &mut Around<'_>) {
        if self.standing() != Standing::Voter || self.tamper.is(Mutant::AnswerBeforeSync) {
            let mut effects = Effects::new();
            self.acceptor.query(from, ask, self.disk.get(&ask.key), &mut effects);
            return self.replicate(effects, Origin::Accepted, step);
        }
        let answer = Acceptor::answer_to(ask, self.disk.kept().rows.get(&ask.key));
        self.leave(from, answer.into(), step);
    }

    /// Runs what is due.
    pub fn wake(&mut self, step: &mut Around<'_>) {
        let mut due: Vec<_> = self
            .proposers
            .iter()
            .filter(|(_, proposer)| proposer.next_wake().is_some_and(|at| at <= step.now.mono))
            .map(|(key, _)| Some(key.clone()))
            .collect();
        due.push(None);
        if step.rng.chance(500) {
            due.reverse();
        }
        for what in due {
            match what {
                Some(key) => self.wake_coordinator(&key, step),
                None => {
                    let mut steps = Vec::new();
                    let suspicion = &self.suspicion;
                    let suspected = |node| suspicion.is_suspected(node);
                    self.routing.wake(step.now.mono, suspected, &mut steps);
                    self.route(steps, step);
                    self.wake_chain(step);
                }
            }
        }
    }

    /// When to wake it.
    pub fn next_wake(&self) -> Option<u64> {
        let proposers = self.proposers.values().filter_map(Proposer::next_wake);
        let chain = self.chain.as_ref().and_then(Chain::next_wake);
        proposers.chain(self.routing.next_wake()).chain(chain).map(|at| at.0).min()
    }

    /// Probes whom it suspects.
    pub fn probe(&mut self, step: &mut Around<'_>) {
        for to in self.suspicion.due(step.now.mono) {
            let ask = self.ask();
            step.out.push(Out::Send { to, message: Probe { ask }.into() });
        }
    }

    /// Syncs some writes.
    pub fn synced(&mut self, count: usize, step: &mut Around<'_>) {
        let (writes, released) = self.disk.sync(count);
        for (write, origin) in writes {
            if self.chain.is_some() {
                self.chain_synced(write, step);
                continue;
            }
            let Write::Put(key, record) = write else { continue };
            step.facts.push(match origin {
                Origin::Accepted => Fact::Accepted { at: self.id, key, record },
                Origin::Installed => Fact::Installed { at: self.id, key, record },
            });
        }
        for (to, message) in released {
            self.leave(to, message, step);
        }
    }

    /// Carries out what the replica wants: writes are queued, what follows waits for them.
    pub(super) fn replicate(&mut self, effects: Effects, origin: Origin, step: &mut Around<'_>) {
        for effect in effects {
            match effect {
                Effect::Persist(write) => self.disk.write(write, origin),
                Effect::Send { to, message } => self.release(to, message, step),
                Effect::Begin { .. } | Effect::List { .. } | Effect::Note(_) => {
                    unreachable!("replicas do not begin ballots")
                }
            }
        }
    }

    pub(super) fn release(&mut self, to: NodeId, message: Message, step: &mut Around<'_>) {
        if self.tamper.is(Mutant::AnswerBeforeSync) {
            return self.leave(to, message, step);
        }
        if let Some((to, message)) = self.disk.release((to, message)) {
            self.leave(to, message, step);
        }
    }

    fn leave(&mut self, to: NodeId, message: Message, step: &mut Around<'_>) {
        if self.chain.is_some() {
            return self.leave_chain(to, message, step);
        }
        let told = match &message {
            Message::Promise(m) => Some((m.key.clone(), m.ballot)),
            Message::Accepted(m) => Some((m.key.clone(), m.stamp.ballot)),
            _ => None,
        };
        if let Some((key, ballot)) = told {
            step.facts.push(Fact::Told { by: self.id, to, key, ballot });
        }
        if let (true, Message::Promise(promise)) = (to == self.id, &message) {
            step.facts.push(Fact::Began { ballot: promise.ballot });
        }
        step.out.push(Out::Send { to, message });
    }

    /// The promises in force, for the rules to judge.
    pub fn stands(&self, facts: &mut Vec<Fact>) {
        if !self.up || self.standing() == Standing::Outside {
            return;
        }
        if self.chain.is_some() {
            return self.chain_stands(facts);
        }
        for key in &self.setup.keys {
            let promise = self.acceptor.promised(key, self.disk.get(key));
            facts.push(Fact::Stands { at: self.id, key: key.clone(), promise });
        }
    }

    fn route(&mut self, steps: Vec<Step>, step: &mut Around<'_>) {
        for next in steps {
            match next {
                Step::Ask { to, request } => {
                    step.out.push(Out::Send { to, message: request.into() });
                }
                Step::Query { to, query, .. } => {
                    step.out.push(Out::Send { to, message: query.into() });
                }
                Step::Agreed { .. } | Step::Leave { .. } => {}
                Step::Finish { op, verdict } => {
                    let verdict = self.tamper.verdict(verdict);
                    step.out.push(Out::Finish { op, verdict });
                }
                Step::TimedOut { node, sent, .. } => {
                    if self.suspicion.timed_out(step.now.mono, node, sent).is_some() {
                        self.suspect(node, step);
                    }
                }
            }
        }
    }

    // --- coordinators ---------------------------------------------------------------------------

    pub(super) fn ask(&mut self) -> Ask {
        self.askers += 1;
        Ask { incarnation: self.life, asker: self.askers, n: 0 }
    }

    fn revive(&mut self, key: &Key) {
        if !self.proposers.contains_key(key) {
            let known = self.known.remove(key).unwrap_or_default();
            let proposer = self.proposer(key, known);
            self.proposers.insert(key.clone(), proposer);
        }
    }

    fn proposer(&mut self, key: &Key, known: Known) -> Proposer {
        let quorum = if self.tamper.is(Mutant::QuorumOfOne) { 1 } else { 2 };
        let ask = self.ask();
        // All coordinators do in production; here some lose more rounds to lost messages.
        let repeats = ask.asker % 4 < 2;
        let config = proposer::Config {
            me: self.id,
            replicas: self.setup.ring.replicas_of(key),
            read_quorum: quorum,
            write_quorum: quorum,
            round_timeout: self.setup.round_timeout,
            repeat_after: self.setup.round_timeout / if repeats { 3 } else { 1 },
            value_bytes_max: self.setup.value_bytes_max,
            contended: false,
        };
        let seed = u64::from(self.id.0) << 32 | ask.asker;
        let mut proposer = Proposer::new(key.clone(), config, known, ask, seed);
        // In production that follows suspicions; here half of the coordinators spare somebody.
        proposer.be_thrifty(ask.asker % 2 == 1);
        proposer
    }

    fn coordinate(&mut self, key: &Key, from: NodeId, message: Message, step: &mut Around<'_>) {
        let Some(proposer) = self.proposers.get_mut(key) else { return };
        let before = proposer.clone().into_known();
        let mut effects = Effects::new();
        proposer.message(step.now, from, message, &mut effects);
        self.after(key, &before, effects, step);
    }

    fn wake_coordinator(&mut self, key: &Key, step: &mut Around<'_>) {
        let Some(proposer) = self.proposers.get_mut(key) else { return };
        let before = proposer.clone().into_known();
        let mut effects = Effects::new();
        proposer.wake(step.now, || true, &mut effects);
        if let Some((known, requests)) = self.tamper.relapse(key, &before, proposer) {
            let mut proposer = self.proposer(key, known);
            for request in requests {
                proposer.request(step.now, request, &mut effects);
            }
            self.proposers.insert(key.clone(), proposer);
        }
        self.after(key, &before, effects, step);
    }

    fn after(&mut self, key: &Key, before: &Known, mut effects: Effects, step: &mut Around<'_>) {
        self.tamper.outgoing(key, before, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    if let Message::Accept(accept) = &message {
                        let (key, record) = (accept.key.clone(), accept.record.clone());
                        step.facts.push(Fact::Proposed { by: self.id, key, record });
                    }
                    step.out.push(Out::Send { to, message });
                }
                Effect::Begin { key, above } => self.begin(&key, above, step),
                Effect::List { .. } | Effect::Note(_) => {}
                Effect::Persist(_) => unreachable!("coordinators write nothing"),
            }
        }
        let Some(proposer) = self.proposers.get(key).filter(|proposer| proposer.is_idle()) else {
            return;
        };
        if step.rng.chance(self.setup.drop_idle) {
            let known = proposer.clone().into_known();
            self.proposers.remove(key);
            if !step.rng.chance(self.setup.forget) {
                self.known.insert(key.clone(), known);
            }
        }
    }

    fn begin(&mut self, key: &Key, above: u64, step: &mut Around<'_>) {
        let mut effects = Effects::new();
        self.acceptor.begin(key, above, self.disk.get(key), &mut effects);
        self.replicate(effects, Origin::Accepted, step);
    }

    fn fetched(&mut self, from: NodeId, ask: &Fetch, step: &mut Around<'_>) {
        if self.standing() != Standing::Voter {
            return;
        }
        let held = |key: &Key| Some((key.clone(), self.disk.get(key)?.clone()));
        let records = ask.keys.iter().filter_map(held).collect();
        self.release(from, Records { ask: ask.ask, records }.into(), step);
    }
}
