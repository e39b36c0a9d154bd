//! A record as it lies in memory: two cache lines, filled in where it stands.
//!
//! What costs most of taking a record down is not the work but the memory it goes through, which has
//! left the caches since it was last used. So there is no larger form of it on the way, lives and texts
//! are named by their places in [`Tables`], and its number is not kept: records lie in its order.

use super::{
    record::{Actor, Event, Place, Record, ShortKey},
    tables::{Name, Tables},
};
use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    recent::OpId,
    ring::NodeId,
};

/// A record in two cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Packed {
    pub(super) mono: u64,
    pub(super) message: Name,
    pub(super) cause: Name,
    request: u64,
    round: u64,
    version: u64,
    ballot_node: NodeId,
    bytes: u32,
    queue: u32,
    handling: u32,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    attempt: u16,
    pub(super) event: Event,
    pub(super) keep: bool,
    kind: u8,
    reason: u8,
    pub(super) from_actor: Actor,
    pub(super) to_actor: Actor,
    pub(super) key: ShortKey,
}

const _: () = assert!(size_of::<Packed>() == 128, "two cache lines");

impl Packed {
    /// Nothing yet, at this time.
    pub(super) const fn at(mono: u64) -> Packed {
        Packed {
            mono,
            message: Name::NONE,
            cause: Name::NONE,
            request: 0,
            round: 0,
            version: 0,
            ballot_node: NodeId(0),
            bytes: 0,
            queue: 0,
            handling: 0,
            from: NodeId(0),
            to: NodeId(0),
            attempt: 0,
            event: Event::Send,
            keep: false,
            kind: 0,
            reason: 0,
            from_actor: Actor::Client,
            to_actor: Actor::Client,
            key: ShortKey::NONE,
        }
    }

    /// The record of number `seq` as readers want it; `offset` is wall time less monotonic time.
    pub(super) fn unpack(&self, seq: u64, tables: &Tables, offset: u64) -> Record {
        Record {
            seq,
            mono: self.mono,
            wall: offset.wrapping_add(self.mono),
            event: self.event,
            keep: self.keep,
            message: tables.id(self.message),
            cause: tables.id(self.cause),
            request: tables.op(self.request),
            attempt: self.attempt.into(),
            from: Place { node: self.from, actor: self.from_actor },
            to: Place { node: self.to, actor: self.to_actor },
            kind: tables.text_at(self.kind),
            key: self.key,
            ballot: Ballot { round: self.round, node: self.ballot_node },
            version: self.version,
            bytes: self.bytes,
            queue: self.queue,
            handling: self.handling,
            reason: tables.text_at(self.reason),
        }
    }

    /// What it is about, as [`mark`] says it.
    pub(super) fn mark(&self) -> u128 {
        mark(self.request, &self.key)
    }

    /// Its request as the tables name it; 0 for none.
    pub(super) fn request(&self) -> u64 {
        self.request
    }
}

/// One bit for the request and one for the key, each of 128 by a hash; none for neither.
pub(super) fn mark(request: u64, key: &ShortKey) -> u128 {
    // The highest bits of the product with 2⁶⁴ by the golden ratio.
    let bit = |number: u64| 1 << (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 57);
    let request = if request == 0 { 0 } else { bit(request) };
    request | key.hint().map_or(0, bit)
}

/// A record that is being taken down. What is not said is not there.
pub struct Draft<'a> {
    pub(super) packed: &'a mut Packed,
    pub(super) tables: &'a mut Tables,
}

impl Draft<'_> {
    /// What another record says, at the time of this one.
    pub(super) fn says(&mut self, other: Packed) {
        *self.packed = Packed { mono: self.packed.mono, ..other };
    }

    /// What happened.
    pub fn event(&mut self, event: Event) {
        self.packed.event = event;
    }

    /// Whether it is to be written down whatever becomes of the request.
    pub fn keep(&mut self, keep: bool) {
        self.packed.keep = keep;
    }

    /// What led to it.
    pub fn cause(&mut self, cause: Name) {
        self.packed.cause = cause;
    }

    /// The message sent, received or dropped.
    pub(super) fn message(&mut self, message: Name) {
        self.packed.message = message;
    }

    /// Whose doing it is.
    pub fn request(&mut self, op: OpId, attempt: u32) {
        self.packed.request = self.tables.request(op);
        self.packed.attempt = u16::try_from(attempt).unwrap_or(u16::MAX);
    }

    /// From there.
    pub fn from(&mut self, node: NodeId, actor: Actor) {
        (self.packed.from, self.packed.from_actor) = (node, actor);
    }

    /// To there.
    pub fn to(&mut self, node: NodeId, actor: Actor) {
        (self.packed.to, self.packed.to_actor) = (node, actor);
    }

    /// The message's, command's or round's type.
    pub fn kind(&mut self, kind: &'static str) {
        self.packed.kind = self.tables.text(kind);
    }

    /// Of which key.
    pub fn key(&mut self, key: &[u8]) {
        self.packed.key.set(key);
    }

    /// At which ballot.
    pub fn ballot(&mut self, Ballot { round, node }: Ballot) {
        (self.packed.round, self.packed.ballot_node) = (round, node);
    }

    /// At which ballot, and which version of the key.
    pub fn stamp(&mut self, stamp: Stamp) {
        self.ballot(stamp.ballot);
        self.packed.version = stamp.version;
    }

    /// Which version of the key.
    pub fn version(&mut self, version: u64) {
        self.packed.version = version;
    }

    /// Size of the frame; of what is counted where it is no message.
    pub fn bytes(&mut self, bytes: u64) {
        self.packed.bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Microseconds waited.
    pub fn queue(&mut self, micros: u64) {
        self.packed.queue = u32::try_from(micros).unwrap_or(u32::MAX);
    }

    /// Microseconds worked.
    pub fn handling(&mut self, micros: u64) {
        self.packed.handling = u32::try_from(micros).unwrap_or(u32::MAX);
    }

    /// Why.
    pub fn reason(&mut self, reason: &'static str) {
        self.packed.reason = self.tables.text(reason);
    }
}
