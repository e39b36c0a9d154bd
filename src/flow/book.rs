//! All records that were gathered, and the stories in them.
//!
//! A request's story is what its own records lead to: every record of the request, the rounds that
//! it joined, and from there along the causes (a message's sending, its receipt, what that caused).
//! The walk ends where another request begins (and leaves out the word to keep records): a round that the request has not joined is not part
//! of it, though it may be what the request waited for.

use super::{implied, line::Line};
use simpledynamo_actors::flow::{Event, RecordId};
use simpledynamo_protocol::recent::OpId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::RangeInclusive;

/// Records of many nodes, each once.
#[derive(Clone, Debug, Default)]
pub struct Book {
    lines: BTreeMap<RecordId, Line>,
    by_cause: BTreeMap<RecordId, Vec<RecordId>>,
    by_message: BTreeMap<RecordId, Vec<RecordId>>,
    by_request: BTreeMap<OpId, Vec<RecordId>>,
    last: BTreeMap<(u32, u64), u64>,
    skipped: usize,
}

/// What happened to one request, in an order that respects causes.
#[derive(Clone, Debug)]
pub struct Story {
    /// Which.
    pub request: OpId,
    /// Its records; a cause stands before what it led to.
    pub lines: Vec<Line>,
    /// What is missing, in words; empty for a whole story.
    pub missing: Vec<String>,
}

/// A request in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Which.
    pub request: OpId,
    /// When its command came in, or its first record; microseconds since the Unix epoch.
    pub began: u64,
    /// `SET`, `GET`, …; empty where the beginning is missing.
    pub command: String,
    /// As records show it.
    pub key: String,
    /// Microseconds until the client was answered; none while it was not.
    pub took: Option<u64>,
    /// What the client was told: `done`, or why not.
    pub outcome: String,
    /// Attempts at coordinators.
    pub attempts: u64,
    /// The nodes that know it by its id: those that took it in or coordinated it.
    pub nodes: Vec<u32>,
}

impl Summary {
    /// Whether it ended without a result.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.took.is_some() && self.outcome != "done"
    }
}

impl Book {
    /// Takes lines of text in; what is no record is counted.
    pub fn read(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match Line::parse(line) {
                Ok(line) => self.add(line),
                Err(_) => self.skipped += 1,
            }
        }
    }

    /// Takes one line in if it is of that time, microseconds since the Unix epoch.
    pub fn read_of(&mut self, text: &str, time: RangeInclusive<u64>) {
        match Line::parse(text) {
            Ok(line) if time.contains(&line.wall) => self.add(line),
            Ok(_) => {}
            Err(_) => self.skipped += 1,
        }
    }

    /// Forgets what is older.
    pub fn forget_before(&mut self, wall: u64) {
        let mut kept = Book { skipped: self.skipped, last: self.last.clone(), ..Book::default() };
        for line in std::mem::take(&mut self.lines).into_values() {
            if line.wall >= wall {
                kept.add(line);
            }
        }
        *self = kept;
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The number of the last record of each life.
    pub fn last(&self) -> impl Iterator<Item = ((u32, u64), u64)> + '_ {
        self.last.iter().map(|(life, seq)| (*life, *seq))
    }

    /// Takes a record in, unless it is here already.
    pub fn add(&mut self, line: Line) {
        let id = line.id();
        let last = self.last.entry((line.node, line.incarnation)).or_default();
        *last = (*last).max(line.seq);
        // It names no record of its own.
        if line.event == Event::Lost || self.lines.contains_key(&id) {
            return;
        }
        if let Some(cause) = line.cause {
            self.by_cause.entry(cause).or_default().push(id);
        }
        if let Some(message) = line.message.filter(|message| *message != id) {
            self.by_message.entry(message).or_default().push(id);
        }
        if let Some(request) = line.request {
            self.by_request.entry(request).or_default().push(id);
        }
        self.lines.insert(id, line);
    }

    /// Lines that were no records.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// All records.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.values()
    }

    /// The record of this name.
    #[must_use]
    pub fn get(&self, id: RecordId) -> Option<&Line> {
        self.lines.get(&id)
    }

    /// Every request that is mentioned, by the time it began.
    #[must_use]
    pub fn summaries(&self) -> Vec<Summary> {
        let mut all: Vec<_> =
            self.by_request.keys().filter_map(|request| self.summary(*request)).collect();
        all.sort_by_key(|summary| (summary.began, summary.request));
        all
    }

    /// A request in short.
    #[must_use]
    pub fn summary(&self, request: OpId) -> Option<Summary> {
        let ids = self.by_request.get(&request)?;
        let lines: Vec<_> = ids.iter().filter_map(|id| self.lines.get(id)).collect();
        let of = |event| lines.iter().find(|line| line.event == event);
        let (command, reply) = (of(Event::Command), of(Event::Reply));
        let key = lines.iter().map(|line| &line.key).find(|key| !key.is_empty());
        Some(Summary {
            request,
            began: command.map_or_else(
                || lines.iter().map(|line| line.wall).min().unwrap_or(0),
                |line| line.wall,
            ),
            command: command.map(|line| line.kind.clone()).unwrap_or_default(),
            key: key.cloned().unwrap_or_default(),
            took: reply.map(|line| line.handling),
            outcome: reply.map(|line| line.reason.clone()).unwrap_or_default(),
            attempts: lines.iter().map(|line| line.attempt).max().unwrap_or(0),
            nodes: lines
                .iter()
                .map(|line| line.node)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        })
    }

    /// The story of a request; none where nothing is known of it.
    #[must_use]
    pub fn story(&self, request: OpId) -> Option<Story> {
        let own = self.by_request.get(&request)?;
        let mut found: BTreeSet<RecordId> = BTreeSet::new();
        let mut next: Vec<RecordId> =
            own.iter().copied().filter(|id| self.belongs(*id, request)).collect();
        while let Some(id) = next.pop() {
            let Some(line) = self.lines.get(&id) else { continue };
            if !found.insert(id) {
                continue;
            }
            let shared = |cause: &RecordId| {
                let cause = self.lines.get(cause);
                cause.is_some_and(|cause| cause.request.is_none() && cause.key.is_empty())
            };
            // A round that it joined; a tail's question on behalf of all that waited.
            next.extend(line.cause.filter(|cause| line.event == Event::Join || shared(cause)));
            next.extend(line.message);
            let message = line.message.unwrap_or(id);
            let links =
                [(&self.by_message, message), (&self.by_cause, message), (&self.by_cause, id)];
            for (index, of) in links {
                let led_to = index.get(&of).into_iter().flatten();
                next.extend(led_to.filter(|id| self.belongs(**id, request)));
            }
        }
        let lines = self.in_order(&found);
        let missing = self.missing(&lines);
        let lines = implied::with(lines);
        Some(Story { request, lines, missing })
    }

    /// Whether a record that something of the request led to is part of its story.
    fn belongs(&self, id: RecordId, request: OpId) -> bool {
        let Some(line) = self.lines.get(&id) else { return false };
        if line.kind == "Keep" {
            return false;
        }
        match line.request {
            Some(other) if other != request => {
                line.event == Event::Round && self.joined(id, request)
            }
            Some(_) => true,
            None => line.event != Event::Round,
        }
    }

    fn joined(&self, round: RecordId, request: OpId) -> bool {
        let led_to = self.by_cause.get(&round).into_iter().flatten();
        led_to
            .filter_map(|id| self.lines.get(id))
            .any(|line| line.event == Event::Join && line.request == Some(request))
    }

    /// By wall time, but never before what led to it: clocks of machines differ.
    fn in_order(&self, ids: &BTreeSet<RecordId>) -> Vec<Line> {
        let mut waits: BTreeMap<RecordId, usize> = BTreeMap::new();
        let mut then: BTreeMap<RecordId, Vec<RecordId>> = BTreeMap::new();
        let mut before = None::<&RecordId>;
        for id in ids {
            let mut edges = BTreeSet::new();
            // The records of one life are in its order.
            let same =
                |other: &&RecordId| (other.node, other.incarnation) == (id.node, id.incarnation);
            edges.extend(before.filter(same).copied());
            if let Some(line) = self.lines.get(id) {
                edges.extend(line.message.filter(|message| message != id && ids.contains(message)));
            }
            waits.insert(*id, edges.len());
            for edge in edges {
                then.entry(edge).or_default().push(*id);
            }
            before = Some(id);
        }
        let wall = |id: &RecordId| self.lines.get(id).map_or(0, |line| line.wall);
        let free = waits.iter().filter(|(_, waits)| **waits == 0);
        let mut ready: BinaryHeap<_> = free.map(|(id, _)| Reverse((wall(id), *id))).collect();
        let mut lines = Vec::new();
        while let Some(Reverse((_, id))) = ready.pop() {
            lines.extend(self.lines.get(&id).cloned());
            for after in then.remove(&id).unwrap_or_default() {
                if let Some(left) = waits.get_mut(&after) {
                    *left -= 1;
                    if *left == 0 {
                        ready.push(Reverse((wall(&after), after)));
                    }
                }
            }
        }
        lines
    }

    /// What these records name and is not there. What a node that was killed had not written yet is
    /// not missing: its life ended.
    fn missing(&self, lines: &[Line]) -> Vec<String> {
        let mut missing = Vec::new();
        for line in lines {
            for (id, what) in [(line.message, "the sending"), (line.cause, "the cause")] {
                let Some(id) = id.filter(|id| !self.lines.contains_key(id)) else { continue };
                if !self.died_before(id) {
                    let (event, kind) = (line.event.name(), &line.kind);
                    missing.push(format!("{what} ({id}) of {} {event} {kind}", line.id()));
                }
            }
        }
        missing
    }

    /// Whether the life in which `id` happened ended before it was written.
    #[must_use]
    pub fn died_before(&self, id: RecordId) -> bool {
        let last = self.last.get(&(id.node.0, id.incarnation)).copied().unwrap_or(0);
        let later =
            self.last.keys().any(|(node, life)| *node == id.node.0 && *life > id.incarnation);
        id.seq > last && later
    }
}
