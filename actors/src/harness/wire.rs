//! The simulated network: connections whose bytes travel as whole messages.
//!
//! What a node writes is cut into hello packets and frames (the bridge's own codec reads them), and
//! each travels by itself: so faults are given by message type, and a log line is a message. Within
//! a connection and direction they keep their order, as on TCP, unless a rule lets one overtake.
//!
//! What happens when things break is what a kernel does, not what is convenient:
//! - A cut link loses nothing at once: the sender's kernel keeps what is unacknowledged and sends it
//!   again. Heals the link within [`UNACKNOWLEDGED_TIME_MAX`], all of it arrives; otherwise the
//!   sender's end breaks, the other end never learns.
//! - A crashed node is silent: no FIN, no reset. Who dials it waits. Once it runs again, what comes
//!   on connections of its former life is answered with a reset.
//! - A paused node's kernel goes on: bytes are acknowledged and wait, connections are accepted.
//!
//! Caveats: no bandwidth, no full buffers, so a slow reader never blocks a writer; bytes are never
//! damaged (the codec's own tests do that).

#![allow(clippy::indexing_slicing, reason = "pairs of two ends, indexed by 0 and 1 only")]

use super::{
    disk::SimDisk,
    fault::{self, Fate, Rule, Step, Trigger, usual_delay},
    invariants::Invariants,
    log::Log,
    rng::Rng,
};
use crate::bridge::{
    codec::{Decoded, Decoder},
    hello::{MAGIC, PACKET_HEADER_BYTES},
    net::UNACKNOWLEDGED_TIME_MAX,
};
use crate::storage::MemoryPlace;
use bytes::{Bytes, BytesMut};
use simpledynamo_protocol::{message::Message, ring::NodeId};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    ops::Range,
    task::Waker,
};
use tokio::time::Instant;

/// Largest frame that is understood; above any configured limit.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The end of a connection that dialed, and the one that was dialed.
pub(super) const DIALER: usize = 0;
pub(super) const LISTENER: usize = 1;

/// What travels in one piece.
#[derive(Clone, Debug)]
enum Unit {
    Syn,
    SynAck,
    Packet(Bytes),
    Frame(Bytes, Box<Message>),
    Fin,
    Reset,
}

/// What is due at a time.
#[derive(Debug)]
enum Event {
    Arrive {
        connection: u64,
        from: usize,
        unit: Unit,
    },
    /// The sender of this direction gives up, if it still waits since then.
    GiveUp {
        connection: u64,
        from: usize,
        since: u64,
    },
    /// Somebody waits for this time.
    Wake(Waker),
}

/// One end as its node sees it.
#[derive(Default)]
pub(super) struct End {
    pub(super) inbox: BytesMut,
    pub(super) open: bool,
    pub(super) eof: bool,
    pub(super) error: Option<io::ErrorKind>,
    pub(super) waker: Option<Waker>,
    dropped: bool,
}

/// One direction: from the end of its index to the other.
#[derive(Default)]
struct Pipe {
    /// Written, not yet a whole unit.
    partial: BytesMut,
    /// Nothing in order may arrive before.
    last_due: u64,
    /// Unacknowledged: the link is cut or the host is down.
    held: VecDeque<Unit>,
    held_since: Option<u64>,
}

struct Connection {
    nodes: [NodeId; 2],
    lives: [u64; 2],
    ends: [End; 2],
    pipes: [Pipe; 2],
}

/// A node as the network sees it.
#[derive(Default)]
struct Host {
    life: u64,
    up: bool,
    bound: bool,
    backlog: VecDeque<u64>,
    waker: Option<Waker>,
}

/// What the network has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages sent.
    pub sent: u64,
    /// Of these, lost by a rule.
    pub lost: u64,
    /// Delivered twice by a rule.
    pub doubled: u64,
    /// Allowed to overtake by a rule.
    pub reordered: u64,
    /// Held back by a cut link or a dead host.
    pub held: u64,
    /// Connections broken because nothing was acknowledged for too long.
    pub timed_out: u64,
}

/// The whole network.
pub(super) struct Wire {
    origin: Instant,
    now: u64,
    rng: Rng,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    connections: BTreeMap<u64, Connection>,
    hosts: BTreeMap<NodeId, Host>,
    addresses: BTreeMap<SocketAddr, NodeId>,
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) delays: BTreeMap<(NodeId, NodeId), Range<u64>>,
    pub(super) rules: Vec<Rule>,
    pub(super) triggers: Vec<Trigger>,
    /// Nodes that a trigger has crashed and that are not yet buried.
    pub(super) doomed: BTreeSet<NodeId>,
    pub(super) disks: BTreeMap<NodeId, SimDisk>,
    pub(super) places: BTreeMap<NodeId, MemoryPlace>,
    pub(super) invariants: Invariants,
    /// Records sent for catch-up.
    pub(super) copied: u64,
    pub(super) log: Log,
    pub(super) traffic: Traffic,
}

impl Wire {
    pub(super) fn new(
        origin: Instant,
        rng: Rng,
        addresses: BTreeMap<SocketAddr, NodeId>,
        log: Log,
    ) -> Wire {
        let hosts = addresses.values().map(|id| (*id, Host::default())).collect();
        Wire {
            origin,
            now: 0,
            rng,
            sequence: 0,
            queue: BTreeMap::new(),
            connections: BTreeMap::new(),
            hosts,
            addresses,
            cut: BTreeSet::new(),
            delays: BTreeMap::new(),
            rules: Vec::new(),
            triggers: Vec::new(),
            doomed: BTreeSet::new(),
            disks: BTreeMap::new(),
            places: BTreeMap::new(),
            invariants: Invariants::default(),
            copied: 0,
            log,
            traffic: Traffic::default(),
        }
    }

    /// Microseconds since the run's start. Outside of a poll tokio's clock shows the machine's time,
    /// so this is what it was at the last [`Wire::tick`].
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Time may have moved. Only in a poll.
    pub(super) fn tick(&mut self) {
        self.now = fault::micros(self.origin.elapsed());
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    /// Wakes at a time: finer than tokio's timers, which count milliseconds.
    pub(super) fn wake_at(&mut self, at: u64, waker: Waker) {
        self.at(at, Event::Wake(waker));
    }

    pub(super) fn is_up(&self, node: NodeId, life: u64) -> bool {
        self.hosts.get(&node).is_some_and(|host| host.up && host.life == life)
    }

    /// The node's next life begins; gives its number.
    pub(super) fn boot(&mut self, node: NodeId) -> u64 {
        let host = self.hosts.entry(node).or_default();
        *host = Host { life: host.life + 1, up: true, ..Host::default() };
        let life = host.life;
        self.release(|_, to| to == node);
        life
    }

    /// From this moment nothing leaves the node and nothing reaches it.
    pub(super) fn silence(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node).filter(|host| host.up) {
            host.up = false;
            self.doomed.insert(node);
            if let Some(disk) = self.disks.get(&node) {
                disk.die();
            }
            if let Some(place) = self.places.get_mut(&node) {
                // What its last tasks still write goes to the one they hold, and is lost.
                *place = place.copy();
            }
        }
    }

    pub(super) fn bind(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.bound = true;
        }
    }

    /// The next connection somebody has opened to `node`; who waits for one gives its waker.
    pub(super) fn accept(&mut self, node: NodeId, waker: &Waker) -> Option<(u64, NodeId)> {
        let host = self.hosts.get_mut(&node)?;
        while let Some(connection) = host.backlog.pop_front() {
            if let Some(found) = self.connections.get(&connection) {
                return Some((connection, found.nodes[DIALER]));
            }
        }
        host.waker = Some(waker.clone());
        None
    }

    /// Begins a connection to the node at `to`; none where there is none.
    pub(super) fn dial(&mut self, from: NodeId, life: u64, to: SocketAddr) -> Option<u64> {
        let target = *self.addresses.get(&to)?;
        self.sequence += 1;
        let number = self.sequence;
        let connection = Connection {
            nodes: [from, target],
            lives: [life, 0],
            ends: Default::default(),
            pipes: Default::default(),
        };
        self.connections.insert(number, connection);
        self.send(number, DIALER, Unit::Syn, Fate::default());
        Some(number)
    }

    pub(super) fn end(&mut self, connection: u64, side: usize) -> Option<&mut End> {
        self.connections.get_mut(&connection)?.ends.get_mut(side)
    }

    /// A node lets go of its end: the other side reads to the end of what was sent. A dead node's
    /// end just disappears.
    pub(super) fn let_go(&mut self, connection: u64, side: usize) {
        let Some(found) = self.connections.get_mut(&connection) else { return };
        found.ends[side].dropped = true;
        let (node, life) = (found.nodes[side], found.lives[side]);
        if found.ends.iter().all(|end| end.dropped) {
            self.connections.remove(&connection);
        } else if self.is_up(node, life) {
            self.send(connection, side, Unit::Fin, Fate::default());
        }
    }

    /// Takes what a node writes; whole units set out.
    pub(super) fn write(&mut self, connection: u64, side: usize, bytes: &[u8]) -> io::Result<()> {
        let found = self.connections.get_mut(&connection).ok_or(io::ErrorKind::NotConnected)?;
        let (node, peer) = (found.nodes[side], found.nodes[1 - side]);
        let life = found.lives[side];
        if let Some(error) = found.ends[side].error {
            return Err(error.into());
        }
        found.pipes[side].partial.extend_from_slice(bytes);
        loop {
            // A trigger may have ended the node at the message before.
            if !self.is_up(node, life) {
                return Ok(());
            }
            let Some(found) = self.connections.get_mut(&connection) else { return Ok(()) };
            let Some(unit) = next_unit(&mut found.pipes[side].partial)? else { return Ok(()) };
            match unit {
                Unit::Frame(bytes, message) => self.message(connection, side, bytes, message, peer),
                packet => self.send(connection, side, packet, Fate::default()),
            }
        }
    }

    /// One message sets out.
    fn message(
        &mut self,
        number: u64,
        side: usize,
        bytes: Bytes,
        message: Box<Message>,
        to: NodeId,
    ) {
        let Some(from) = self.connections.get(&number).map(|found| found.nodes[side]) else {
            return;
        };
        let now = self.now();
        self.traffic.sent += 1;
        if let Message::Records(records) = &*message {
            self.copied += records.records.len() as u64;
        }
        self.log.message(now, "", from, to, &message, &bytes);
        self.invariants.sent(from, to, &message, self.disks.get(&from));
        let fate = fault::fate(&mut self.rules, &mut self.rng, from, to, &message);
        if fate.lost {
            self.traffic.lost += 1;
            self.log.note(now, || format!("lost: {from} → {to} {}", message.name()));
        } else {
            if fate.twice {
                self.traffic.doubled += 1;
                let twin = Fate { overtakes: true, twice: false, ..fate };
                self.send(number, side, Unit::Frame(bytes.clone(), message.clone()), twin);
            }
            self.traffic.reordered += u64::from(fate.overtakes);
            self.send(number, side, Unit::Frame(bytes, message.clone()), fate);
        }
        self.trigger(Step::Sent, from, to, message.tag());
    }

    /// Crashes `at` where a trigger says so; whether one did.
    fn trigger(&mut self, step: Step, at: NodeId, peer: NodeId, tag: u16) -> bool {
        let mut met = false;
        self.triggers.retain_mut(|trigger| {
            let meets = trigger.meets(step, at, peer, tag);
            met |= meets;
            !meets
        });
        if met {
            self.silence(at);
        }
        met
    }

    fn send(&mut self, connection: u64, side: usize, unit: Unit, fate: Fate) {
        let now = self.now();
        let Some(found) = self.connections.get_mut(&connection) else { return };
        let link = (found.nodes[side], found.nodes[1 - side]);
        let range = self.delays.get(&link).cloned().unwrap_or_else(usual_delay);
        let due = now + self.rng.within(&range) + fate.late;
        let pipe = &mut found.pipes[side];
        let due = if fate.overtakes { due } else { due.max(pipe.last_due) };
        if !fate.overtakes {
            pipe.last_due = due;
        }
        self.at(due, Event::Arrive { connection, from: side, unit });
    }

    /// Carries out the first event that is due; whether there was one.
    pub(super) fn step(&mut self) -> bool {
        let now = self.now();
        let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now) else {
            return false;
        };
        match entry.remove() {
            Event::Arrive { connection, from, unit } => self.arrive(connection, from, unit),
            Event::GiveUp { connection, from, since } => self.give_up(connection, from, since),
            Event::Wake(waker) => waker.wake(),
        }
        true
    }

    fn give_up(&mut self, connection: u64, side: usize, since: u64) {
        let Some(found) = self.connections.get_mut(&connection) else { return };
        let pipe = &mut found.pipes[side];
        if pipe.held_since != Some(since) {
            return;
        }
        pipe.held.clear();
        pipe.held_since = None;
        self.traffic.timed_out += 1;
        self.break_end(connection, side, io::ErrorKind::TimedOut);
    }

    fn break_end(&mut self, connection: u64, side: usize, error: io::ErrorKind) {
        if let Some(end) = self.end(connection, side) {
            end.error.get_or_insert(error);
            wake(&mut end.waker);
        }
    }

    /// Sends again what was held on directions of which `concerns` says so.
    pub(super) fn release(&mut self, concerns: impl Fn(NodeId, NodeId) -> bool) {
        let mut freed = Vec::new();
        for (number, connection) in &mut self.connections {
            for side in [DIALER, LISTENER] {
                let (from, to) = (connection.nodes[side], connection.nodes[1 - side]);
                if concerns(from, to) {
                    let pipe = &mut connection.pipes[side];
                    pipe.held_since = None;
                    freed.extend(
                        std::mem::take(&mut pipe.held).into_iter().map(|it| (*number, side, it)),
                    );
                }
            }
        }
        for (connection, side, unit) in freed {
            self.send(connection, side, unit, Fate::default());
        }
    }

    fn arrive(&mut self, number: u64, side: usize, unit: Unit) {
        let now = self.now();
        let Some(found) = self.connections.get_mut(&number) else { return };
        let (from, to) = (found.nodes[side], found.nodes[1 - side]);
        let to_life = found.lives[1 - side];
        let up = self.hosts.get(&to).is_some_and(|host| host.up);
        let pipe = &mut found.pipes[side];
        if !up || self.cut.contains(&(from, to)) || !pipe.held.is_empty() {
            self.traffic.held += 1;
            pipe.held.push_back(unit);
            if pipe.held_since.is_none() {
                pipe.held_since = Some(now);
                let at = now + fault::micros(UNACKNOWLEDGED_TIME_MAX);
                self.at(at, Event::GiveUp { connection: number, from: side, since: now });
            }
            return;
        }
        match unit {
            Unit::Syn => return self.arrive_syn(number, to),
            Unit::Reset => {
                return self.break_end(number, 1 - side, io::ErrorKind::ConnectionReset);
            }
            _ if !self.is_up(to, to_life) => return self.refuse(number, 1 - side),
            _ => {}
        }
        if let Unit::Frame(bytes, message) = &unit {
            if self.trigger(Step::Received, to, from, message.tag()) {
                return;
            }
            self.log.message(now, "  ", from, to, message, bytes);
        }
        let Some(end) = self.end(number, 1 - side) else { return };
        if end.dropped {
            return match unit {
                Unit::Fin => {}
                _ => self.refuse(number, 1 - side),
            };
        }
        match unit {
            Unit::SynAck => end.open = true,
            Unit::Fin => end.eof = true,
            Unit::Packet(bytes) | Unit::Frame(bytes, _) => end.inbox.extend_from_slice(&bytes),
            Unit::Syn | Unit::Reset => {}
        }
        wake(&mut end.waker);
    }

    fn arrive_syn(&mut self, number: u64, to: NodeId) {
        let Some(host) = self.hosts.get_mut(&to) else { return };
        if !host.bound {
            return self.refuse(number, LISTENER);
        }
        host.backlog.push_back(number);
        wake(&mut host.waker);
        let life = host.life;
        if let Some(found) = self.connections.get_mut(&number) {
            found.lives[LISTENER] = life;
            found.ends[LISTENER].open = true;
        }
        self.send(number, LISTENER, Unit::SynAck, Fate::default());
    }

    /// The host of `side` knows nothing of this connection.
    fn refuse(&mut self, number: u64, side: usize) {
        self.send(number, side, Unit::Reset, Fate::default());
    }

    /// Drops the ends of a node that is gone, without a word to the others.
    pub(super) fn bury(&mut self, node: NodeId) {
        self.doomed.remove(&node);
        self.connections.retain(|_, connection| {
            for side in [DIALER, LISTENER] {
                if connection.nodes[side] == node {
                    connection.ends[side].dropped = true;
                    connection.pipes[side] = Pipe::default();
                }
            }
            !connection.ends.iter().all(|end| end.dropped)
        });
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Takes a hello packet or a frame off the front of what was written; none where it is not whole.
fn next_unit(written: &mut BytesMut) -> io::Result<Option<Unit>> {
    let Some(first) = written.first_chunk::<4>() else { return Ok(None) };
    if *first == MAGIC {
        let Some([low, high]) = written.get(4..6) else { return Ok(None) };
        let size = PACKET_HEADER_BYTES + usize::from(u16::from_le_bytes([*low, *high]));
        let whole = written.len() >= size;
        return Ok(whole.then(|| Unit::Packet(written.split_to(size).freeze())));
    }
    let size = usize::try_from(u32::from_le_bytes(*first)).unwrap_or(usize::MAX).saturating_add(4);
    if written.len() < size {
        return Ok(None);
    }
    let bytes = written.split_to(size).freeze();
    let decoder = Decoder::new(FRAME_BYTES_MAX);
    match decoder.decode(&mut BytesMut::from(bytes.as_ref())) {
        Ok(Some(Decoded::Message(message))) => Ok(Some(Unit::Frame(bytes, Box::new(message)))),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other:?}"))),
    }
}
