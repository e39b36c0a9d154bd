//! A record as it lies in memory: two cache lines.
//!
//! What costs most of taking a record down is not the work but the memory it is written to, which has
//! left the caches since it was last used. So lives of nodes and texts, of which there are few, are
//! kept once in tables and named by their places there.
//!
//! Caveats. Numbers of records and rounds are kept modulo 2⁴⁸. Where more than [`LIVES_MAX`] lives were
//! named, by very many starts or by a peer that invents them, the eldest give way, and records of
//! theirs that are still in memory bear a wrong name. Texts are the program's own and fit.

use super::record::{Actor, Event, Place, Record, RecordId, ShortKey};
use simpledynamo_protocol::{ballot::Ballot, recent::OpId, ring::NodeId};

/// Lives of nodes that are told apart: each node of a large ring in some of its lives. They are looked
/// through from the front, so there must not be many more.
const LIVES_MAX: usize = 1 << 10;
/// Texts that are told apart: names of messages, commands and reasons.
const TEXTS_MAX: usize = 1 << 8;
/// The bits of a number beside its life.
const NUMBER: u64 = (1 << 48) - 1;

/// What records have in common.
pub(super) struct Tables {
    lives: Vec<(NodeId, u64)>,
    /// The place whose life gives way next, once all are taken.
    eldest: usize,
    texts: Vec<&'static str>,
}

impl Tables {
    pub(super) fn new() -> Tables {
        // No life and no text are the most frequent: found first.
        Tables { lives: vec![(NodeId(0), 0)], eldest: 1, texts: vec![""] }
    }

    /// A request as records name it.
    pub(super) fn request(&mut self, request: OpId) -> u64 {
        self.pack(request.router, request.incarnation, request.seq)
    }

    fn life(&mut self, node: NodeId, incarnation: u64) -> u64 {
        let life = (node, incarnation);
        let at = self.lives.iter().position(|other| *other == life).unwrap_or_else(|| {
            if self.lives.len() < LIVES_MAX {
                self.lives.push(life);
                return self.lives.len() - 1;
            }
            let at = self.eldest;
            self.eldest = if at + 1 < LIVES_MAX { at + 1 } else { 1 };
            if let Some(gone) = self.lives.get_mut(at) {
                *gone = life;
            }
            at
        });
        at as u64
    }

    fn text(&mut self, text: &'static str) -> u8 {
        // The same text may stand at two places of the program: then it has two places here.
        let at = self.texts.iter().position(|other| std::ptr::eq(*other, text));
        let at = at.unwrap_or_else(|| {
            if self.texts.len() < TEXTS_MAX {
                self.texts.push(text);
            }
            self.texts.len() - 1
        });
        u8::try_from(at).unwrap_or(u8::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_lives_push_out_the_eldest_and_no_more() {
        let mut tables = Tables::new();
        let name = |number| OpId { router: NodeId(5554), incarnation: number, seq: 1 };
        for number in 1..100_000 {
            tables.request(name(number));
        }
        assert_eq!(tables.lives.len(), LIVES_MAX);
        let packed = tables.request(name(100_000));
        assert_eq!(tables.unpack(packed), (NodeId(5554), 100_000, 1));
        assert_eq!(tables.unpack(0), (NodeId(0), 0, 0), "no life keeps its place");
    }
}
