//! The simulated cluster: one queue of events in order of time, a network that delays, loses,
//! duplicates and cuts, and the rules that judge every step.

use super::{
    chaos::Chaos,
    clients::Clients,
    invariants::{Fact, Invariants, Violation},
    mutant::Mutant,
    node::{Around, Node, Out, Setup, Strategy},
    rng::Rng,
};
use simpledynamo_protocol::{
    history::History,
    message::{Envelope, Message},
    record::{Key, stamp_of},
    register::acceptor::Standing,
    ring::{NodeId, Ring},
    routing,
    time::{Now, Time},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Unix time at the run's start, milliseconds.
pub const WALL_START: u64 = 1_700_000_000_000;

/// Simulated time after which a run that has not come to rest is stuck, microseconds.
const STUCK: u64 = 120_000_000;

/// Between two looks of a node at its peers, microseconds.
const TICK: u64 = 40_000;

/// What may happen.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A message arrives; a local one only in the life it was sent in.
    Deliver {
        life: Option<u64>,
        /// The sender's life.
        sent_in: u64,
        envelope: Envelope,
    },
    /// The disk has synced something.
    Sync {
        node: NodeId,
        life: u64,
    },
    /// A timer.
    Wake {
        node: NodeId,
        life: u64,
    },
    /// The node looks around.
    Tick {
        node: NodeId,
    },
    /// The client goes on.
    Client(u32),
    /// Something breaks.
    Fault,
    /// It is mended.
    Restart {
        node: NodeId,
        wiped: bool,
    },
    Resume {
        node: NodeId,
    },
    Mend {
        from: NodeId,
        to: NodeId,
    },
}

/// A run.
pub struct World {
    pub(super) rng: Rng,
    pub(super) chaos: Chaos,
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    next: u64,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// Events that wait for a paused node.
    pub(super) paused: BTreeMap<NodeId, Vec<Event>>,
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    wakes: BTreeMap<NodeId, u64>,
    skews: BTreeMap<NodeId, u64>,
    pub(super) clients: Clients,
    pub(super) keys: Vec<Key>,
    invariants: Invariants,
    pub(super) healed: bool,
    pub(super) strategy: Strategy,
    /// Rules that are not to object.
    pub without: &'static [&'static str],
    pub steps: u64,
    /// Every event, where wanted.
    pub log: Option<Vec<String>>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Ended {
    pub history: History,
    pub steps: u64,
    pub chosen: usize,
    /// Keys with too many unknown writes to tell.
    pub undecided: usize,
}

impl World {
    pub fn new(seed: u64, strategy: Strategy, mutant: Option<Mutant>) -> World {
        let mut rng = Rng::new(seed);
        let mut chaos = Chaos::draw(&mut rng);
        if mutant == Some(Mutant::FormerLifeVotes) {
            // Only there is it likely enough.
            chaos = chaos.hasty();
        }
        let ids = [5554, 5556, 5558, 5560, 5562].into_iter().take(chaos.nodes).map(NodeId);
        let keys: Vec<Key> = ["n", "x", "y", "t"].into_iter().map(Key::from).collect();
        let setup = Setup {
            ring: Ring::new(ids.clone(), 3),
            keys: keys.clone(),
            routing: routing::Config {
                request_timeout: Duration::from_millis(100),
                deadline: Duration::from_micros(chaos.deadline),
                hedge: Duration::from_micros(chaos.hedge),
                lifetime: Duration::from_secs(1_800),
                reads: (strategy == Strategy::Quorum).then_some(match mutant {
                    Some(Mutant::QuorumOfOne) => 1,
                    _ => 2,
                }),
                chains: strategy == Strategy::Chain,
            },
            round_timeout: Duration::from_millis(100),
            drop_idle: chaos.drop_idle,
            forget: 300,
            value_bytes_max: 1 << 20,
            strategy,
        };
        let mut world = World {
            now: 0,
            queue: BTreeMap::new(),
            next: 0,
            nodes: ids.clone().map(|id| (id, Node::new(id, setup.clone(), mutant))).collect(),
            paused: BTreeMap::new(),
            cut: BTreeSet::new(),
            wakes: BTreeMap::new(),
            skews: ids.clone().map(|id| (id, rng.below(chaos.skew + 1))).collect(),
            clients: Clients::new(&chaos, keys.clone()),
            keys,
            invariants: Invariants::default(),
            healed: false,
            strategy,
            without: &[],
            steps: 0,
            log: None,
            rng,
            chaos,
        };
        for id in ids {
            world.with(id, |node, around| node.start(false, around)).unwrap();
            let at = world.rng.below(TICK);
            world.after(at, Event::Tick { node: id });
        }
        for client in 0..world.clients.count() {
            let at = world.rng.below(20_000);
            world.after(at, Event::Client(client));
        }
        if let Some(every) = world.chaos.fault_every {
            world.after(every, Event::Fault);
        }
        world
    }

    /// What is still to happen.
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.queue.values()
    }

    /// How unkind this run is.
    pub fn chaos(&self) -> &Chaos {
        &self.chaos
    }

    /// Runs to the end: faults until the clients are done, then peace, in which everything must
    /// work and the replicas come to the same state.
    pub fn run(&mut self) -> Result<Ended, Violation> {
        while !self.clients.done() {
            self.step()?;
        }
        self.heal()?;
        while !self.nodes.values().all(Node::is_well) {
            self.step()?;
        }
        let rest = self.now + 1_000_000;
        while self.now < rest {
            self.step()?;
        }
        self.clients.inspect(&self.keys, self.nodes.keys().copied().collect());
        for client in 0..self.clients.count() {
            self.after(0, Event::Client(client));
        }
        while !self.clients.done() {
            self.step()?;
        }
        let mut rounds = 0;
        while let Some(text) = self.differ() {
            rounds += 1;
            if rounds > 20 {
                return Err(Violation { rule: "convergence", text });
            }
            self.compare_all()?;
        }
        let undecided = self.clients.judge()?;
        let chosen = self.invariants.chosen_states();
        Ok(Ended { history: self.clients.history(), steps: self.steps, chosen, undecided })
    }

    /// Two replicas of a key that do not hold the same.
    fn differ(&self) -> Option<String> {
        self.keys.iter().find_map(|key| {
            let ring = &self.nodes.values().next()?.setup.ring;
            let held: Vec<_> = ring
                .replicas_of(key)
                .iter()
                .map(|id| self.nodes[id].disk.kept().rows.get(key).cloned())
                .collect();
            let same = held
                .windows(2)
                .all(|pair| stamp_of(pair[0].as_ref()) == stamp_of(pair[1].as_ref()));
            (!same).then(|| format!("{key}: {held:?}"))
        })
    }

    fn compare_all(&mut self) -> Result<(), Violation> {
        let pairs: Vec<_> = self
            .nodes
            .keys()
            .flat_map(|id| self.keys.iter().map(move |key| (*id, key.clone())))
            .collect();
        for (id, key) in pairs {
            self.compare(id, &key);
        }
        let rest = self.now + 200_000;
        while self.now < rest {
            self.step()?;
        }
        Ok(())
    }

    /// Takes the next event.
    pub fn step(&mut self) -> Result<(), Violation> {
        let Some(((at, _), event)) = self.queue.pop_first() else {
            return Err(Violation { rule: "progress", text: "nothing left to happen".to_owned() });
        };
        self.now = at;
        self.steps += 1;
        if at > STUCK {
            let text = format!("not at rest after {STUCK} µs");
            return Err(Violation { rule: "progress", text });
        }
        let whose = match &event {
            Event::Deliver { envelope, .. } => Some(envelope.to),
            Event::Sync { node, .. } | Event::Wake { node, .. } | Event::Tick { node } => {
                Some(*node)
            }
            _ => None,
        };
        if let Some(backlog) = whose.and_then(|node| self.paused.get_mut(&node)) {
            backlog.push(event);
            return Ok(());
        }
        self.note(&event);
        self.happen(event)
    }

    fn note(&mut self, event: &Event) {
        let now = Time(self.now);
        if let Some(log) = &mut self.log {
            log.push(match event {
                Event::Deliver { envelope, .. } => format!("{now} {envelope}"),
                other => format!("{now} {other:?}"),
            });
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Deliver { life, sent_in, envelope: Envelope { from, to, message } } => {
                let node = &self.nodes[&to];
                if !node.up || life.is_some_and(|life| life != node.life) {
                    return Ok(());
                }
                let standing = node.standing();
                self.with(to, |node, around| node.deliver(from, sent_in, message, around))?;
                // A learner loses no time.
                let now = self.nodes[&to].standing();
                if now == Standing::Learner && standing != now {
                    self.compare_some(to);
                }
                Ok(())
            }
            Event::Sync { node, life } => {
                if self.nodes[&node].life != life || !self.nodes[&node].up {
                    return Ok(());
                }
                let all = self.nodes[&node].disk.unsynced();
                let part = if self.rng.chance(700) {
                    all
                } else {
                    self.rng.below(all as u64 + 1) as usize
                };
                self.with(node, |node, around| node.synced(part.max(1), around))?;
                if self.nodes[&node].disk.is_dirty() {
                    self.schedule_sync(node);
                }
                Ok(())
            }
            Event::Wake { node, life } => {
                if self.nodes[&node].life != life || !self.nodes[&node].up {
                    return Ok(());
                }
                self.wakes.remove(&node);
                self.with(node, |node, around| node.wake(around))
            }
            Event::Tick { node } => self.tick(node),
            Event::Client(client) => self.client(client),
            Event::Fault => self.fault(),
            Event::Restart { node, wiped } => self.restart(node, wiped),
            Event::Resume { node } => {
                self.resume(node);
                Ok(())
            }
            Event::Mend { from, to } => {
                self.cut.remove(&(from, to));
                Ok(())
            }
        }
    }

    fn tick(&mut self, id: NodeId) -> Result<(), Violation> {
        self.after(TICK, Event::Tick { node: id });
        if !self.nodes[&id].up {
            return Ok(());
        }
        self.with(id, |node, around| {
            node.probe(around);
            node.greet(around);
        })?;
        let learner = self.nodes[&id].standing() == Standing::Learner;
        if learner || self.rng.chance(self.chaos.compare) {
            self.compare_some(id);
        }
        Ok(())
    }

    fn compare_some(&mut self, id: NodeId) {
        let any = self.rng.pick(&self.keys).clone();
        for key in self.nodes[&id].to_compare(&any) {
            self.compare(id, &key);
        }
    }

    /// Two questions at two times.
    fn compare(&mut self, id: NodeId, key: &Key) {
        let questions = self.nodes.get_mut(&id).map(|node| node.compare(key)).unwrap_or_default();
        let mut later = 0;
        for (to, fetch) in questions {
            let envelope = Envelope { from: id, to, message: fetch.into() };
            self.transmit(envelope, later);
            later = if self.healed { 0 } else { self.rng.below(60_000) };
        }
    }

    /// Lets a node do something, then carries out and judges what came of it.
    pub(super) fn with<T>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Node, &mut Around<'_>) -> T,
    ) -> Result<T, Violation> {
        let (mut facts, mut out) = (Vec::new(), Vec::new());
        let wall = WALL_START + self.now / 1000 + self.skews[&id];
        let now = Now { mono: Time(self.now), wall };
        let node = self.nodes.get_mut(&id).expect("a node of the ring");
        let mut around = Around { now, rng: &mut self.rng, facts: &mut facts, out: &mut out };
        let value = act(node, &mut around);
        node.stands(&mut facts);
        let dirty = node.disk.is_dirty();
        for fact in &facts {
            self.judge(fact)?;
        }
        if dirty || facts.iter().any(|fact| !matches!(fact, Fact::Stands { .. })) {
            self.judge_order_unless_told()?;
        }
        for out in out {
            match out {
                Out::Send { to, message } => {
                    self.transmit(Envelope { from: id, to, message }, 0);
                }
                Out::Finish { op, verdict } => {
                    if let Some(client) = self.clients.finish(self.now, id, op, verdict) {
                        let think = self.rng.below(self.chaos.think);
                        self.after(think, Event::Client(client));
                    }
                }
            }
        }
        if dirty {
            self.schedule_sync(id);
        }
        self.schedule_wake(id);
        Ok(value)
    }

    fn schedule_sync(&mut self, node: NodeId) {
        let life = self.nodes[&node].life;
        let mut after = self.rng.between(50, 50 + self.chaos.sync);
        if !self.healed && self.rng.chance(self.chaos.stall) {
            after += self.rng.below(500_000);
        }
        self.after(after, Event::Sync { node, life });
    }

    fn schedule_wake(&mut self, node: NodeId) {
        let Some(at) = self.nodes[&node].next_wake() else { return };
        if self.wakes.get(&node).is_some_and(|scheduled| *scheduled <= at) {
            return;
        }
        self.wakes.insert(node, at);
        let late = if self.rng.chance(100) { self.rng.below(5_000) } else { self.rng.below(100) };
        let life = self.nodes[&node].life;
        let wait = at.saturating_sub(self.now) + late;
        self.after(wait, Event::Wake { node, life });
    }

    pub(super) fn forget_wake(&mut self, node: NodeId) {
        self.wakes.remove(&node);
    }

    /// Sends a message on its way, after `later`.
    fn transmit(&mut self, envelope: Envelope, later: u64) {
        let Envelope { from, to, .. } = envelope;
        let sent_in = self.nodes[&from].life;
        if from == to {
            let life = Some(self.nodes[&to].life);
            let after = self.rng.between(1, 60);
            return self.after(after, Event::Deliver { life, sent_in, envelope });
        }
        let calm = self.healed;
        let cut = !calm && self.cut.contains(&(from, to));
        if !calm && (cut || self.rng.chance(self.chaos.loss)) && self.rng.chance(800) {
            return;
        }
        // A request is a frame of a connection: delivered at most once.
        let once = matches!(envelope.message, Message::Request(_) | Message::Answer(_));
        let copies = if !calm && !once && self.rng.chance(self.chaos.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let mut after = later + self.rng.between(100, 100 + self.chaos.delay);
            if !calm && (cut || self.rng.chance(self.chaos.slow)) {
                after += self.rng.below(self.chaos.slow_delay);
            }
            self.after(after, Event::Deliver { life: None, sent_in, envelope: envelope.clone() });
        }
    }

    pub(super) fn after(&mut self, after: u64, event: Event) {
        self.next += 1;
        self.queue.insert((self.now + after, self.next), event);
    }

    fn judge_order_unless_told(&self) -> Result<(), Violation> {
        if self.without.contains(&"order") { Ok(()) } else { self.judge_order() }
    }

    pub(super) fn judge(&mut self, fact: &Fact) -> Result<(), Violation> {
        match self.invariants.check(fact) {
            Err(violation) if self.without.contains(&violation.rule) => Ok(()),
            judged => judged,
        }
    }
}
