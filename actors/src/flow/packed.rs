//! A record as it lies in memory: two cache lines.
//!
//! What costs most of taking a record down is not the work but the memory it is written to, which has
//! left the caches since it was last used. So lives of nodes and texts, of which there are few, are
//! kept once in tables and named by their places there.
//!
//! Caveats. Numbers of records and rounds are kept modulo 2⁴⁸. A table that is full names further
//! lives and texts by its last place, which then says nothing: [`LIVES_MAX`] starts of nodes are years.

use super::record::{Actor, Event, Place, Record, RecordId, ShortKey};
use simpledynamo_protocol::{ballot::Ballot, recent::OpId, ring::NodeId};

/// Lives of nodes that are told apart.
const LIVES_MAX: usize = 1 << 16;
/// Texts that are told apart: names of messages, commands and reasons.
const TEXTS_MAX: usize = 1 << 8;
/// The bits of a number beside its life.
const NUMBER: u64 = (1 << 48) - 1;

/// What records have in common.
pub(super) struct Tables {
    lives: Vec<(NodeId, u64)>,
    texts: Vec<&'static str>,
}

impl Tables {
    pub(super) fn new() -> Tables {
        // No life and no text are the most frequent: found first.
        Tables { lives: vec![(NodeId(0), 0)], texts: vec![""] }
    }

    /// A request as records name it.
    pub(super) fn request(&mut self, request: OpId) -> u64 {
        self.pack(request.router, request.incarnation, request.seq)
    }

    fn life(&mut self, node: NodeId, incarnation: u64) -> u64 {
        place(&mut self.lives, (node, incarnation), LIVES_MAX, |a, b| a == b) as u64
    }

    fn text(&mut self, text: &'static str) -> u8 {
        // The same text may stand at two places of the program: then it has two places here.
        let same = |a: &&str, b: &&str| std::ptr::eq(*a, *b);
        u8::try_from(place(&mut self.texts, text, TEXTS_MAX, same)).unwrap_or(u8::MAX)
    }

    fn pack(&mut self, node: NodeId, incarnation: u64, number: u64) -> u64 {
        self.life(node, incarnation) << 48 | number & NUMBER
    }

    fn unpack(&self, packed: u64) -> (NodeId, u64, u64) {
        let life = usize::try_from(packed >> 48).unwrap_or(usize::MAX);
        let (node, incarnation) = self.lives.get(life).copied().unwrap_or((NodeId(0), 0));
        (node, incarnation, packed & NUMBER)
    }
}

/// The place of `value` in a table, where it is put if it is new and there is room.
fn place<T: Copy>(
    table: &mut Vec<T>,
    value: T,
    most: usize,
    same: impl Fn(&T, &T) -> bool,
) -> usize {
    match table.iter().position(|other| same(other, &value)) {
        Some(at) => at,
        None if table.len() < most => {
            table.push(value);
            table.len() - 1
        }
        None => most - 1,
    }
}

/// A record in two cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Packed {
    pub(super) seq: u64,
    pub(super) mono: u64,
    message: u64,
    cause: u64,
    request: u64,
    ballot: u64,
    version: u64,
    bytes: u32,
    queue: u32,
    handling: u32,
    attempt: u16,
    pub(super) event: Event,
    pub(super) keep: bool,
    kind: u8,
    reason: u8,
    from_actor: Actor,
    to_actor: Actor,
    from: u16,
    to: u16,
    pub(super) key: ShortKey,
}

const _: () = assert!(size_of::<Packed>() == 128, "two cache lines");

impl Packed {
    pub(super) fn of(record: &Record, tables: &mut Tables) -> Packed {
        let mut id = |id: RecordId| tables.pack(id.node, id.incarnation, id.seq);
        let (message, cause) = (id(record.message), id(record.cause));
        let OpId { router, incarnation, seq } = record.request;
        let request = tables.pack(router, incarnation, seq);
        let ballot = tables.pack(record.ballot.node, 0, record.ballot.round);
        // A place is a node in any life.
        let mut node = |place: Place| u16::try_from(tables.life(place.node, 0)).unwrap_or(u16::MAX);
        let (from, to) = (node(record.from), node(record.to));
        Packed {
            seq: record.seq,
            mono: record.mono,
            message,
            cause,
            request,
            ballot,
            version: record.version,
            bytes: record.bytes,
            queue: record.queue,
            handling: record.handling,
            attempt: u16::try_from(record.attempt).unwrap_or(u16::MAX),
            event: record.event,
            keep: record.keep,
            kind: tables.text(record.kind),
            reason: tables.text(record.reason),
            from_actor: record.from.actor,
            to_actor: record.to.actor,
            from,
            to,
            key: record.key,
        }
    }

    /// The record again; `offset` is wall time less monotonic time.
    pub(super) fn unpack(&self, tables: &Tables, offset: u64) -> Record {
        let id = |packed| {
            let (node, incarnation, seq) = tables.unpack(packed);
            RecordId { node, incarnation, seq }
        };
        let (router, incarnation, seq) = tables.unpack(self.request);
        let (ballot_node, _, round) = tables.unpack(self.ballot);
        let text = |at: u8| tables.texts.get(usize::from(at)).copied().unwrap_or_default();
        let place = |node: u16, actor| {
            let (node, _, _) = tables.unpack(u64::from(node) << 48);
            Place { node, actor }
        };
        Record {
            seq: self.seq,
            mono: self.mono,
            wall: offset.wrapping_add(self.mono),
            event: self.event,
            keep: self.keep,
            message: id(self.message),
            cause: id(self.cause),
            request: OpId { router, incarnation, seq },
            attempt: self.attempt.into(),
            from: place(self.from, self.from_actor),
            to: place(self.to, self.to_actor),
            kind: text(self.kind),
            key: self.key,
            ballot: Ballot { round, node: ballot_node },
            version: self.version,
            bytes: self.bytes,
            queue: self.queue,
            handling: self.handling,
            reason: text(self.reason),
        }
    }

    /// Its request as the tables name it.
    pub(super) fn request(&self) -> u64 {
        self.request
    }
}
