//! Chain replication (van Renesse & Schneider, OSDI '04): writes enter at the head of a chain of the
//! range's nodes and pass each member in order, the tail answers; reads go to the tail.
//!
//! The paper has failures detected without error and a master that decides. Here a time-out may be
//! wrong, and a quorum register decides: the chain's configuration ([`config`]) is the value of a
//! register ([`crate::register`]) on the range's nodes, and only a compare-and-set changes a chain.
//!
//! | module | part |
//! |---|---|
//! | [`config`] | a chain in one epoch, and a node's durable seat in it |
//! | [`wire`] | the messages |
//! | `write` | the head's decisions, what is passed on, what is acknowledged |
//! | `read` | the tail's reads, answered once the epoch was confirmed |
//! | `change` | the survey of the members, the change of the chain, its adoption |
//! | `register` | the register of the configuration |
//! | `copy` | what a member pulls from its predecessor, and how a node joins as the new tail |
//! | `learn` | how a node that has lost its store may vote on configurations again |
//!
//! Invariants, each with a test that fails when the rule behind it is taken out:
//! 1. One epoch of a range names one chain, and a node never goes back to an earlier one.
//! 2. Of each key a member holds, durably, at least what its successor holds.
//! 3. What the tail has told anyone is part of every later state of the key.
//! 4. A read returns a state no older than any that was told before it began.
//! 5. An operation is applied once, however often it is tried.
//!
//! Records, exactly-once results, tombstones and expiry are those of the register; a record's ballot
//! is (epoch, head). The whole argument is in `docs/protocol.md`.
//!
//! The caller hands in a way to read the stored records, carries out the effects in order, and lets
//! nothing out before what stands in front of it is durable. [`Chain::flush`] ends each batch of
//! messages; [`Chain::wake`] runs time-outs.
//!
//! Caveats: a key's row may be collected as a tombstone while a frame that carries an older state of
//! it is still under way; frames must not live as long as the grace period. A frame's effects on one
//! key never depend on the order of frames: records are whole states, the larger stamp wins.

mod change;
pub mod config;
mod copy;
mod learn;
mod read;
mod register;
pub mod wire;
mod write;

use crate::{
    ballot::Stamp,
    effect::{Effect, Effects, Write},
    message::{self, Ask, Collect, Message},
    record::{Datum, Key, Record},
    register::acceptor::{Acceptor, Durable, Standing},
    ring::{NodeId, RangeId, Ring},
    time::{Now, Time},
};
use config::{Config, Seat};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Names the questions of chains: no other asker of a node has this number.
pub const ASKER: u64 = 5;

/// What a node's chains go by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The node.
    pub me: NodeId,
    /// The ring.
    pub ring: Ring,
    /// Silence after which something is wrong.
    pub request_timeout: Duration,
    /// The largest value a command may make, bytes.
    pub value_bytes_max: usize,
}

/// What a node has kept durably of its chains; nothing for a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kept {
    /// What its acceptor accepted as configurations.
    pub configs: BTreeMap<RangeId, Record>,
    /// Its seats.
    pub seats: BTreeMap<RangeId, Seat>,
}

impl Kept {
    /// What a new node of a new ring keeps: it is a member of its ranges' first chains.
    #[must_use]
    pub fn first(ring: &Ring, me: NodeId) -> Kept {
        let seat = |range| (range, Seat::first(&ring.preference_list(range)));
        let seats = ring.ranges_of(me).into_iter().map(seat).collect();
        Kept { configs: BTreeMap::new(), seats }
    }
}

/// Reads a stored record, as it is with all that was written so far.
pub type Rows<'a> = &'a mut dyn FnMut(&Key) -> Option<Record>;

/// All chains that one node has a place in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    core: Core,
    ranges: BTreeMap<RangeId, Range>,
}

/// What a node's ranges share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Core {
    me: NodeId,
    settings: Settings,
    acceptor: Acceptor,
    /// The largest version of a collected tombstone: a key without a row begins above it.
    absent_floor: u64,
    incarnation: u64,
    /// Counts questions.
    asks: u64,
    /// Counts operations on configurations.
    ops: u64,
}

impl Core {
    fn votes(&self) -> bool {
        self.acceptor.standing() == Standing::Voter
    }

    fn ask(&mut self) -> Ask {
        self.asks += 1;
        Ask { incarnation: self.incarnation, asker: ASKER, n: self.asks }
    }
}

/// One range: the chain as this node knows it, and the node's part in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Range {
    id: RangeId,
    replicas: Vec<NodeId>,
    seat: Seat,
    register: register::Register,
    /// Requests that cannot be served here and now, in order.
    parked: VecDeque<write::Parked>,
    /// Passed on and not yet known to be at the tail.
    unacked: BTreeMap<Key, write::Unacked>,
    /// When to look at `unacked`.
    unacked_check: Option<Time>,
    /// For the predecessor.
    acks: Vec<(Key, Option<Stamp>)>,
    acks_due: Option<Time>,
    reads: read::Reads,
    survey: change::Survey,
    /// No survey before.
    survey_after: Time,
    /// The last survey found a break that is not mended.
    broken: bool,
    /// When those who are not in the chain are told of it again.
    call_at: Time,
    copy: copy::Copy,
    learning: Option<learn::Learning>,
}

/// One call: its time, what is stored, and what comes out.
struct Step<'a> {
    now: Now,
    rows: Rows<'a>,
    /// Written in this call.
    fresh: BTreeMap<Key, Option<Record>>,
    out: &'a mut Effects,
}

impl Step<'_> {
    fn row(&mut self, key: &Key) -> Option<Record> {
        match self.fresh.get(key) {
            Some(row) => row.clone(),
            None => (self.rows)(key),
        }
    }

    fn put(&mut self, key: &Key, record: Record) {
        self.fresh.insert(key.clone(), Some(record.clone()));
        self.persist(Write::Put(key.clone(), record));
    }

    fn remove(&mut self, key: &Key) {
        self.fresh.insert(key.clone(), None);
        self.persist(Write::Remove(key.clone()));
    }

    fn persist(&mut self, write: Write) {
        self.out.push(Effect::Persist(write));
    }

    fn send(&mut self, to: NodeId, message: impl Into<Message>) {
        self.out.push(Effect::Send { to, message: message.into() });
    }
}

impl Chain {
    /// The chains of a node after a start, from what it has `kept`. `incarnation` was never used
    /// before by this node.
    #[must_use]
    pub fn new(
        settings: Settings,
        incarnation: u64,
        durable: Durable,
        kept: &Kept,
        standing: Standing,
        now: Time,
    ) -> Chain {
        let me = settings.me;
        let register = Durable { ceiling: durable.ceiling, absent_floor: 0 };
        let acceptor = Acceptor::new(me, register, standing);
        let absent_floor = durable.absent_floor;
        let mut core = Core { me, settings, acceptor, absent_floor, incarnation, asks: 0, ops: 0 };
        let ids = core.settings.ring.ranges_of(me);
        let ranges = ids.into_iter().map(|id| (id, Range::new(&mut core, id, kept, now))).collect();
        Chain { core, ranges }
    }

    /// The node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.core.me
    }

    /// Whether the node votes on configurations; only then has it a part in chains.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.core.acceptor.standing()
    }

    /// The durable ceiling of the configurations' register.
    #[must_use]
    pub fn ceiling(&self) -> u64 {
        self.core.acceptor.ceiling()
    }

    /// The largest version of a collected tombstone.
    #[must_use]
    pub fn absent_floor(&self) -> u64 {
        self.core.absent_floor
    }

    /// The node's seat in a range; none where it is no replica of it.
    #[must_use]
    pub fn seat(&self, range: RangeId) -> Option<&Seat> {
        self.ranges.get(&range).map(|range| &range.seat)
    }

    /// Whether the node votes and holds all that is committed in every range that it is a replica of.
    /// A learner never is: where a later life goes on with seats of an earlier one, they may be level
    /// before it has learned what the chains are by now.
    #[must_use]
    pub fn is_level(&self) -> bool {
        let votes = self.standing() == Standing::Voter;
        votes && self.ranges.values().all(|range| range.seat.is_level(self.core.me))
    }

    /// The promise in force on a range's configuration.
    #[must_use]
    pub fn promised(&self, range: RangeId) -> crate::ballot::Ballot {
        let range = self.ranges.get(&range);
        range.map_or(crate::ballot::Ballot::ZERO, |range| range.register.promised(&self.core))
    }

    /// The peers have welcomed the node as new: it votes, and is a member of its ranges' first
    /// chains. Nothing changes for one that votes already, nor for a learner: it votes by itself,
    /// when it has learned.
    pub fn vote(&mut self, out: &mut Effects) {
        if self.standing() != Standing::Outside {
            return;
        }
        self.core.acceptor.vote();
        let first = Kept::first(&self.core.settings.ring, self.core.me);
        for (id, seat) in first.seats {
            // Where it had one already an earlier life came so far, and may have gone on since.
            let new = |range: &&mut Range| range.seat.config.epoch < seat.config.epoch;
            if let Some(range) = self.ranges.get_mut(&id).filter(new) {
                range.seat = seat.clone();
                out.push(Effect::Persist(Write::Seat(id, seat)));
            }
        }
    }

    /// To be called once after a restart with what was kept: tells the other replicas that this one
    /// does not know any more what it has not passed on.
    pub fn start(&mut self, now: Now, rows: Rows<'_>, out: &mut Effects) {
        if self.standing() != Standing::Voter {
            return;
        }
        let step = &mut Step { now, rows, fresh: BTreeMap::new(), out };
        for range in self.ranges.values() {
            let others = range.replicas.iter().filter(|node| **node != self.core.me);
            others.for_each(|node| range.tell(*node, step));
        }
    }

    /// Whether this node may be about to change a chain of the range.
    #[must_use]
    pub fn is_changing(&self, range: RangeId) -> bool {
        self.ranges.get(&range).is_some_and(|it| it.register.is_busy() || it.survey.is_open())
    }

    /// Takes a message. Of questions about rows it takes those that no copy asks: what a client sees
    /// of them rests on the epoch as reads do.
    pub fn message(
        &mut self,
        now: Now,
        from: NodeId,
        message: Message,
        rows: Rows<'_>,
        out: &mut Effects,
    ) {
        if self.standing() == Standing::Outside {
            return;
        }
        let step = &mut Step { now, rows, fresh: BTreeMap::new(), out };
        match message {
            Message::Request(request) => {
                let id = self.core.settings.ring.range_of(&request.key);
                if let Some(range) = self.ranges.get_mut(&id) {
                    range.request(&mut self.core, from, request, step);
                }
            }
            Message::Digests(_) | Message::Listed(_) | Message::Records(_) => {
                for range in self.ranges.values_mut() {
                    range.copy_message(&mut self.core, from, &message, step);
                }
            }
            Message::Collect(collect) => self.core.collect(&collect, step),
            Message::AskDigests(message::AskDigests { range, .. })
            | Message::AskList(message::AskList { range, .. }) => {
                if let Some(range) = self.ranges.get_mut(&range) {
                    range.listing(&self.core, from, message, step);
                }
            }
            message => self.of_range(from, message, step),
        }
        self.vote_if_learned();
    }

    /// A message that names its range.
    fn of_range(&mut self, from: NodeId, message: Message, step: &mut Step<'_>) {
        let id = match &message {
            Message::ConfigRound(m) => m.range,
            Message::Forward(m) => m.range,
            Message::Acked(m) => m.range,
            Message::Confirm(m) => m.range,
            Message::Confirmed(m) => m.range,
            Message::Survey(m) => m.range,
            Message::Present(m) => m.range,
            Message::Announce(m) => m.range,
            Message::Attach(m) => m.range,
            Message::Attached(m) => m.range,
            _ => return,
        };
        let (core, Some(range)) = (&mut self.core, self.ranges.get_mut(&id)) else { return };
        match message {
            Message::ConfigRound(m) => range.register_message(core, from, m.body, step),
            Message::Forward(m) => range.forward(core, from, m, step),
            Message::Acked(m) => range.acked(core, from, m, step),
            Message::Confirm(m) => range.confirm(core, from, &m, step),
            Message::Confirmed(m) => range.confirmed(core, from, &m, step),
            Message::Survey(m) => range.surveyed(core, from, &m, step),
            Message::Present(m) => range.present(core, from, &m, step),
            Message::Announce(m) => range.announced(core, from, m.config, step),
            Message::Attach(m) => range.attach(core, from, &m, step),
            Message::Attached(m) => range.attached(core, from, &m, step),
            _ => {}
        }
    }

    /// Ends a batch of messages: asks once for the confirmation of all reads that came with it.
    pub fn flush(&mut self, now: Now, rows: Rows<'_>, out: &mut Effects) {
        let step = &mut Step { now, rows, fresh: BTreeMap::new(), out };
        for range in self.ranges.values_mut() {
            range.flush_reads(&mut self.core, step);
        }
    }

    /// To be called at or after [`Chain::next_wake`].
    pub fn wake(&mut self, now: Now, rows: Rows<'_>, out: &mut Effects) {
        if self.standing() == Standing::Outside {
            return;
        }
        let step = &mut Step { now, rows, fresh: BTreeMap::new(), out };
        for range in self.ranges.values_mut() {
            range.wake(&mut self.core, step);
        }
        self.vote_if_learned();
    }

    /// When to call [`Chain::wake`]; none while nothing waits for time.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        if self.standing() == Standing::Outside {
            return None;
        }
        self.ranges.values().filter_map(|range| range.next_wake(&self.core)).min()
    }
}

impl Core {
    /// Forgets a tombstone that all replicas were seen to hold. From then on keys without a row
    /// begin above its version: a member that still holds it takes the new state for newer.
    fn collect(&mut self, ask: &Collect, step: &mut Step<'_>) {
        let stored = step.row(&ask.key);
        let Some(record) = stored.filter(|record| record.stamp == ask.stamp) else { return };
        if !matches!(record.datum, Datum::Tombstone { .. }) {
            return;
        }
        if record.stamp.version > self.absent_floor {
            self.absent_floor = record.stamp.version;
            step.persist(Write::AbsentFloor(self.absent_floor));
        }
        step.remove(&ask.key);
    }
}

impl Range {
    fn new(core: &mut Core, id: RangeId, kept: &Kept, now: Time) -> Range {
        let replicas = core.settings.ring.preference_list(id);
        // A node that was welcomed has written its seats. One without has lost what it held.
        let seat = kept.seats.get(&id).cloned().unwrap_or_else(Seat::lost);
        let row = kept.configs.get(&id).cloned();
        Range {
            id,
            register: register::Register::new(core, id, &replicas, row),
            replicas,
            seat,
            parked: VecDeque::new(),
            unacked: BTreeMap::new(),
            unacked_check: None,
            acks: Vec::new(),
            acks_due: None,
            reads: read::Reads::default(),
            survey: change::Survey::Rest,
            survey_after: Time::default(),
            broken: false,
            call_at: now,
            copy: copy::Copy::new(now),
            learning: None,
        }
    }

    fn wake(&mut self, core: &mut Core, step: &mut Step<'_>) {
        self.wake_register(core, step);
        self.wake_learning(core, step);
        self.wake_reads(core, step);
        self.wake_writes(core, step);
        self.wake_survey(core, step);
        self.wake_call(core, step);
        self.wake_copy(core, step);
        self.flush_reads(core, step);
    }

    fn next_wake(&self, core: &Core) -> Option<Time> {
        let parked = self.parked.iter().map(|parked| parked.deadline).min();
        [
            self.register.next_wake(),
            self.learning.as_ref().map(learn::Learning::next_wake),
            self.reads.next_wake(),
            parked,
            self.acks_due,
            self.unacked_check,
            self.next_survey(core),
            self.calls(core).then_some(self.call_at),
            self.next_copy(core),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether a message of this epoch may be taken in: a newer one is learned first, an older one
    /// is answered with the chain known here.
    fn meets(
        &mut self,
        core: &mut Core,
        from: NodeId,
        config: &Config,
        step: &mut Step<'_>,
    ) -> bool {
        if config.epoch > self.seat.config.epoch {
            self.adopt(core, config.clone(), step);
        }
        let same = config.epoch == self.seat.config.epoch;
        if !same {
            self.tell(from, step);
        }
        same
    }

    /// Tells somebody what the chain is.
    fn tell(&self, to: NodeId, step: &mut Step<'_>) {
        let config = self.seat.config.clone();
        step.send(to, wire::Announce { range: self.id, config });
    }
}
