//! What a recorder keeps: recent records in a ring of bounded size.
//!
//! The node's thread takes them down, and those of shards, where it has some; http reads now and then:
//! [`super::hold`].
//!
//! A record is first put down beside the ring and moved there with others of its time
//! ([`STAGED_MAX`]): the place in the ring has left the caches since it was last used.

use super::{
    line,
    outgoing::{Outgoing, OutgoingCounts},
    packed::{self, Draft, Packed},
    record::{Event, Record, ShortKey},
    tables::{Name, Tables},
};
use simpledynamo_protocol::{recent::OpId, ring::NodeId};
use std::{collections::BTreeSet, sync::Arc};

/// Records that are put down before they are moved together: few enough to stay in the near caches,
/// and so many (16 KiB) that the C library's copy writes the ring without reading it first: with 32
/// of them a record cost a quarter more under load.
const STAGED_MAX: usize = 128;

/// Places in the ring that share a mark.
const BLOCK: usize = 16;

/// Requests a second whose records are written because they ended slowly or badly: an overload makes
/// all of them slow, and must not be fed.
const WORTH_A_SECOND: u32 = 20;

/// How often the wall clock is compared with the monotonic one, microseconds.
pub(super) const ANCHOR_EVERY: u64 = 1_000_000;

/// What a recorder has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records taken down in memory.
    pub recorded: u64,
    /// Of these, handed to the writer.
    pub written: u64,
    /// Not written because the writer was too slow or the disk refused.
    pub dropped: u64,
    /// Slow, failed or retried requests whose records were written.
    pub kept: u64,
    /// Slow, failed or retried requests whose records were not, because there were too many.
    pub spared: u64,
}

pub(super) struct Memory {
    /// The newest, not yet in the ring.
    staged: Vec<Packed>,
    ring: Vec<Packed>,
    /// Of each block of [`BLOCK`] places in the ring, what its records may be about: who looks for
    /// those of a request touches few others.
    marks: Vec<u128>,
    tables: Tables,
    /// Where the next record goes once the ring is full.
    next: usize,
    capacity: usize,
    seq: u64,
    /// When the last record was taken down: none is before the one ahead of it, whichever thread's
    /// turn began earlier.
    latest: u64,
    /// Wall time less monotonic time, and when it was last looked at.
    pub(super) offset: u64,
    pub(super) anchored: u64,
    counts: Counts,
    second: u64,
    left: u32,
    /// To the writer, where there is one.
    outgoing: Option<Arc<Outgoing>>,
}

impl Memory {
    pub(super) fn new(
        node: NodeId,
        incarnation: u64,
        bytes: usize,
        outgoing: Option<Arc<Outgoing>>,
    ) -> Memory {
        let capacity = (bytes / size_of::<Packed>()).max(1);
        Memory {
            staged: Vec::with_capacity(STAGED_MAX),
            ring: Vec::with_capacity(capacity),
            marks: vec![0; capacity.div_ceil(BLOCK)],
            tables: Tables::new(node, incarnation),
            next: 0,
            capacity,
            seq: 0,
            latest: 0,
            offset: 0,
            anchored: 0,
            counts: Counts::default(),
            second: 0,
            left: WORTH_A_SECOND,
            outgoing,
        }
    }

    /// Makes room for a record, which then is to be filled in ([`Memory::draft`]) and closed
    /// ([`Memory::close`]); gives its number. Three steps, so that only the filling in is compiled
    /// for each place that takes records down: what is common stays in the nearest cache.
    pub(super) fn open(&mut self, mono: u64) -> u64 {
        self.seq += 1;
        if self.staged.len() == STAGED_MAX {
            self.settle();
        }
        self.counts.recorded += 1;
        self.latest = self.latest.max(mono);
        self.staged.push(Packed::at(self.latest));
        self.seq
    }

    /// The record that was opened last.
    pub(super) fn draft(&mut self) -> Option<Draft<'_>> {
        let packed = self.staged.last_mut()?;
        Some(Draft { packed, tables: &mut self.tables })
    }

    /// Ends what [`Memory::open`] began.
    pub(super) fn close(&mut self, all: bool) {
        let Some(packed) = self.staged.last_mut() else { return };
        packed.keep |= all;
        if packed.keep {
            let record = packed.unpack(self.seq, &self.tables, self.offset);
            self.hand_over([record]);
        }
    }

    /// Whether one of the records after `seq` names this cause; where they have left the nearest
    /// place, none is seen.
    pub(super) fn names_since(&self, seq: u64, cause: Name) -> bool {
        let after = usize::try_from(self.seq - seq).unwrap_or(usize::MAX);
        self.staged.iter().rev().take(after).any(|record| record.cause == cause)
    }

    /// The number of the last record.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// What records have in common.
    pub(super) fn tables(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// Moves what is staged to the ring. Readers do it first and then look at the ring alone.
    fn settle(&mut self) {
        let mut staged = self.staged.as_slice();
        while !staged.is_empty() {
            let (now, later) = staged.split_at(staged.len().min(self.capacity - self.next));
            let end = self.next + now.len();
            for (at, record) in (self.next..end).zip(now) {
                if let Some(mark) = self.marks.get_mut(at / BLOCK) {
                    // A block begins anew. What is left in it of the last time round has no mark any
                    // more: the eldest records, next to be overwritten.
                    let before = if at.is_multiple_of(BLOCK) { 0 } else { *mark };
                    *mark = before | record.mark();
                }
            }
            match self.ring.get_mut(self.next..end) {
                Some(eldest) => eldest.copy_from_slice(now),
                None => {
                    self.ring.truncate(self.next);
                    self.ring.extend_from_slice(now);
                }
            }
            self.next = if end == self.capacity { 0 } else { end };
            staged = later;
        }
        self.staged.clear();
    }

    /// Gives records to the writer.
    fn hand_over(&self, records: impl IntoIterator<Item = Record>) {
        if let Some(outgoing) = &self.outgoing {
            outgoing.push(records);
        }
    }

    /// What was done since the start.
    pub(super) fn counts(&self) -> Counts {
        let outgoing = self.outgoing.as_ref().map(|outgoing| outgoing.counts());
        let OutgoingCounts { written, dropped } = outgoing.unwrap_or_default();
        Counts { written, dropped, ..self.counts }
    }

    /// Whether one more request may be written that ended slowly or badly.
    pub(super) fn may_keep(&mut self, mono: u64) -> bool {
        let second = mono / 1_000_000;
        if second != self.second {
            (self.second, self.left) = (second, WORTH_A_SECOND);
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        if may {
            self.counts.kept += 1;
        } else {
            self.counts.spared += 1;
        }
        may
    }

    /// Hands the records of this request and key since then to the writer.
    pub(super) fn keep(&mut self, request: OpId, key: ShortKey, since: u64) {
        self.settle();
        let request = self.tables.request(request);
        let concerns = |record: &Packed| record.request() == request || record.key == key;
        let wanted = packed::mark(request, &key);
        let mut found = Vec::new();
        for (seq, at) in self.newest_first() {
            let marked = self.marks.get(at / BLOCK).is_some_and(|mark| mark & wanted != 0);
            if !marked && !at.is_multiple_of(BLOCK) {
                continue;
            }
            let Some(record) = self.ring.get_mut(at) else { break };
            if record.mono < since {
                break;
            }
            if !record.keep && concerns(record) {
                record.keep = true;
                found.push(record.unpack(seq, &self.tables, self.offset));
            }
        }
        self.hand_over(found.into_iter().rev());
    }

    /// The record of this number, if it is still in memory.
    pub(super) fn find(&mut self, seq: u64) -> Option<Packed> {
        self.settle();
        let back = usize::try_from(self.seq.checked_sub(seq)?).ok()?;
        // Looked up for each of thousands of frames that a dead peer leaves behind.
        let length = self.ring.len();
        let newest = (self.next + length).checked_sub(1)?;
        let at = (back < length).then(|| (newest - back) % length)?;
        self.ring.get(at).copied()
    }

    /// When the last record was taken down.
    pub(super) fn last_mono(&self) -> u64 {
        self.latest
    }

    /// Numbers and places in the ring; what is staged must have been moved there.
    fn newest_first(&self) -> impl Iterator<Item = (u64, usize)> + use<> {
        let (next, length) = (self.next, self.ring.len());
        let places = (0..next).rev().chain((next..length).rev());
        (0..=self.seq).rev().zip(places)
    }

    /// The records that `wanted` takes, at most so many of the newest, oldest first, as they were
    /// taken down.
    pub(super) fn select(&mut self, most: usize, wanted: impl Fn(&Record) -> bool) -> Vec<Record> {
        self.settle();
        let newest = self.newest_first().filter_map(|(seq, at)| Some((seq, self.ring.get(at)?)));
        let unpacked = newest.map(|(seq, record)| record.unpack(seq, &self.tables, self.offset));
        let mut found: Vec<_> = unpacked.filter(|record| wanted(record)).take(most).collect();
        found.reverse();
        found
    }

    /// The records that `filter` takes. Some of a request do not name its key: they come with it.
    pub(super) fn filtered(&mut self, filter: &Filter, life: u64) -> Vec<Record> {
        self.settle();
        let mut requests = BTreeSet::new();
        if let Some(key) = filter.key {
            let of_key = self.ring.iter().filter(|record| record.key == key);
            let of_key = of_key.map(|record| self.tables.op(record.request()));
            requests.extend(of_key.filter(|request| request.seq != 0));
        }
        self.select(filter.most, |record| filter.takes(record, &requests, life))
    }

    /// Everything in memory as lines, for a crash.
    pub(super) fn dump(&mut self, node: NodeId, incarnation: u64, crash: &mut Record) -> Vec<u8> {
        let mut out = Vec::new();
        for record in self.select(usize::MAX, |_| true) {
            line::write(&record, node.0, incarnation, &mut out);
        }
        crash.seq = self.seq + 1;
        crash.event = Event::Crash;
        crash.wall = self.offset.wrapping_add(crash.mono);
        line::write(crash, node.0, incarnation, &mut out);
        out
    }
}

/// Which records are asked for. A record is taken if it is of the request or of the key; of all, where
/// neither is given. What concerns the node as a whole always is.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this request.
    pub request: Option<OpId>,
    /// Of this key.
    pub key: Option<ShortKey>,
    /// Not before this wall time, microseconds.
    pub since: u64,
    /// Not after this wall time, microseconds; 0 for no end.
    pub until: u64,
    /// Of this life only those …
    pub life: u64,
    /// … with larger numbers.
    pub after: u64,
    /// At most so many, the newest.
    pub most: usize,
}

impl Filter {
    fn takes(&self, record: &Record, of_key: &BTreeSet<OpId>, life: u64) -> bool {
        if (record.seq <= self.after && self.life == life)
            || record.wall < self.since
            || (self.until != 0 && record.wall > self.until)
        {
            return false;
        }
        let of_node = matches!(
            record.event,
            Event::Suspect
                | Event::Trust
                | Event::Level
                | Event::Start
                | Event::Stop
                | Event::Crash
                | Event::Lost
        );
        of_node
            || (self.request.is_none() && self.key.is_none())
            || self.request.is_some_and(|request| record.request == request)
            || self.key.is_some_and(|key| record.key == key)
            || of_key.contains(&record.request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of so many requests, taken in turn, each with a key of its own or none.
    fn filled(memory: &mut Memory, records: u64) {
        for n in 0..records {
            memory.open(n);
            let Some(mut draft) = memory.draft() else { continue };
            draft.request(op(n % 97), 1);
            if !n.is_multiple_of(3) {
                draft.key(key(n % 89).as_bytes());
            }
            if n.is_multiple_of(77) {
                // A reader comes: what is staged by then is moved by itself.
                memory.last_mono();
            }
        }
    }

    fn op(number: u64) -> OpId {
        OpId { router: NodeId(5554), incarnation: 7, seq: 1 + number }
    }

    fn key(number: u64) -> String {
        format!("key-{number}")
    }

    #[test]
    fn a_record_is_found_by_its_number_while_it_is_there() {
        for capacity in [1_usize, 10, 100] {
            let mut memory = Memory::new(NodeId(5554), 7, capacity * size_of::<Packed>(), None);
            for records in [1_u64, 7, 100, 31, 1] {
                filled(&mut memory, records);
                for record in memory.select(usize::MAX, |_| true) {
                    let found = memory.find(record.seq).map(|found| found.mono);
                    assert_eq!(found, Some(record.mono));
                }
                let overwritten = memory.seq.saturating_sub(capacity as u64);
                assert!(memory.find(overwritten).is_none());
                assert!(memory.seq < 5 || memory.find(memory.seq).is_some());
                assert!(memory.find(memory.seq + 1).is_none(), "not there yet");
            }
        }
    }

    #[test]
    fn what_is_kept_of_a_request_is_all_that_memory_has_of_it_and_its_key() {
        for capacity in [10, 1_000, 1_008] {
            // Before the ring is full, when it just is, and where it has begun anew.
            for records in [10, 500, 1_000, 1_013, 2_600, 7_777] {
                for back in [5, 700, 7_777] {
                    keeps_all(capacity, records, records.saturating_sub(back));
                }
            }
        }
    }

    fn keeps_all(capacity: usize, records: u64, since: u64) {
        let outgoing = Arc::new(Outgoing::default());
        let bytes = capacity * size_of::<Packed>();
        let mut memory = Memory::new(NodeId(5554), 7, bytes, Some(outgoing.clone()));
        filled(&mut memory, records);
        memory.keep(op(5), ShortKey::of(key(11).as_bytes()), since);
        outgoing.close();
        let (kept, _) = outgoing.take(std::time::Duration::ZERO, Vec::new()).unwrap_or_default();
        let found: Vec<_> = kept.iter().map(|record| record.mono).collect();
        let concerns = |n: &u64| n % 97 == 5 || (!n.is_multiple_of(3) && n % 89 == 11);
        let eldest = records.saturating_sub(capacity as u64);
        let expected: Vec<_> = (since.max(eldest)..records).filter(concerns).collect();
        // The eldest of a full ring may have lost their mark.
        let short = expected.len() - found.len().min(expected.len());
        let what = format!("since {since} of {records} records in {capacity}");
        assert_eq!(found, expected.get(short..).unwrap_or_default(), "{what}");
        let sure = eldest + BLOCK.min(capacity) as u64;
        let lost = expected.iter().take(short).find(|lost| **lost >= sure);
        assert!(eldest == 0 && short == 0 || lost.is_none(), "{what}: {lost:?} is missing");
        memory.keep(op(5), ShortKey::of(key(11).as_bytes()), since);
        assert_eq!(memory.counts().written, found.len() as u64, "each is written once");
    }
}
