//! Anti-entropy: what a replica copies from the others, and what it must not.
//!
//! After a start, after an absence and now and then, a node compares the digests of each range it
//! holds with the range's other two replicas, lists the buckets that differ, and decides key by key:
//!
//! - Both others hold the same stamp: that state is **chosen**. If it is newer than the own, it is
//!   copied, whatever is promised ([`super::acceptor::Acceptor::install`]).
//! - The others differ, and the own record is behind one of them: nobody can tell from stamps alone
//!   whether the newest is chosen. The key is *repaired*: its coordinator writes what is the state
//!   once more. A read would not do: where the other two agree it leaves the third, which may hold
//!   the rest of a failed write, as it is, and the pass would never end.
//!
//! Copying whatever is larger, without asking whether it is chosen, loses reads: C promises ballot 9
//! to X, then copies (7, v6), which only B holds. A reader finds B and C agreed on v6 and returns it;
//! X, promised by A and C before, then chooses (9, v6') that knows nothing of it.
//!
//! A **learner** repairs every key on which the others differ, and both others must answer: what
//! was chosen with its own forgotten vote is then held by both. Only after that may it vote.
//!
//! *Level* means: everything that the others held when the pass began is held here, or is older than
//! what is held here. Keys written since reach this node as accepts, or, where it refuses an owner's
//! ballot, with the owner's next one.
//!
//! Source: register.md, "Recovery", with the first rule narrowed as said.

use super::digest;
use crate::{
    ballot::Stamp,
    message::{Ask, AskDigests, AskList, Digests, Fetch, Listed, Message, Records, Row},
    record::{Key, Record},
    ring::{NodeId, RangeId, Ring},
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// Rows a listing: some 64 KiB a message.
pub const LIST_ROWS: u32 = 512;

/// Repairs under way at once: copying must not crowd out clients.
pub const REPAIRS_MAX: usize = 16;

/// Silence after which a question is given up.
pub const ASK_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Pause before a pass that could not be completed is tried again.
pub const RETRY_EVERY: Duration = Duration::from_millis(1_000);

/// What the catch-up wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, perhaps to the own replica.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Store this chosen record.
    Install {
        /// Of this key.
        key: Key,
        /// The record.
        record: Record,
    },
    /// Have this key's coordinator write its content again
    /// ([`Command::Rewrite`](crate::command::Command::Rewrite)), then call [`CatchUp::repaired`].
    Repair {
        /// Which.
        key: Key,
    },
    /// All ranges are level with all other replicas. A learner may vote now.
    Level {
        /// Records copied in this pass.
        copied: u64,
        /// Keys repaired in this pass.
        repaired: u64,
    },
}

#[derive(Clone, Debug)]
enum Stage {
    Resting,
    Digests { ask: Ask, answers: BTreeMap<NodeId, Digests> },
    Listing { ask: Ask, to: u64, answers: BTreeMap<NodeId, Listed> },
    Copying { ask: Ask, from: Option<NodeId>, next: Option<u64>, to: u64 },
}

/// The anti-entropy of one node.
#[derive(Clone, Debug)]
pub struct CatchUp {
    me: NodeId,
    ring: Ring,
    learner: bool,
    ask: Ask,
    /// Ranges still to compare, the current one first.
    ranges: VecDeque<RangeId>,
    stage: Stage,
    until: Time,
    /// Replicas that take part in the current range, this node included.
    present: Vec<NodeId>,
    intervals: VecDeque<(u64, u64)>,
    /// What is still to be copied, by source.
    wanted: BTreeMap<NodeId, BTreeMap<Key, Stamp>>,
    to_repair: VecDeque<Key>,
    repairing: BTreeSet<Key>,
    /// What this node owes the range: keys with the newest stamp seen when first listed.
    owed: BTreeMap<Key, Stamp>,
    /// The same, as found again by the present look at the range.
    still_owed: BTreeMap<Key, Stamp>,
    looks: u32,
    complete: bool,
    again: bool,
    copied: u64,
    repaired: u64,
}

impl CatchUp {
    /// `ask` names its questions: its (incarnation, asker) was never given out before.
    #[must_use]
    pub fn new(me: NodeId, ring: Ring, learner: bool, ask: Ask) -> CatchUp {
        CatchUp {
            me,
            ring,
            learner,
            ask,
            ranges: VecDeque::new(),
            stage: Stage::Resting,
            until: Time::default(),
            present: Vec::new(),
            intervals: VecDeque::new(),
            wanted: BTreeMap::new(),
            to_repair: VecDeque::new(),
            repairing: BTreeSet::new(),
            owed: BTreeMap::new(),
            still_owed: BTreeMap::new(),
            looks: 0,
            complete: true,
            again: false,
            copied: 0,
            repaired: 0,
        }
    }

    /// Whether this node must ask both others before it is level.
    pub fn set_learner(&mut self, learner: bool) {
        self.learner = learner;
    }

    /// Starts a pass over all ranges; while one is under way, another follows it.
    pub fn start(&mut self, now: Time, out: &mut Vec<Step>) {
        if !matches!(self.stage, Stage::Resting) || !self.ranges.is_empty() {
            self.again = true;
            return;
        }
        self.again = false;
        self.complete = true;
        self.ranges = self.ring.ranges_of(self.me).into();
        (self.copied, self.repaired) = (0, 0);
        self.start_range(now, out);
    }

    /// Whether a pass is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// When to call [`CatchUp::wake`]; none while nothing is under way.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        (self.is_busy() || self.again).then_some(self.until)
    }

    /// To be called at or after [`CatchUp::next_wake`].
    pub fn wake(&mut self, now: Time, out: &mut Vec<Step>) {
        if now < self.until {
            return;
        }
        match &self.stage {
            Stage::Resting if self.is_busy() => self.start_range(now, out),
            Stage::Resting if self.again => self.start(now, out),
            Stage::Resting => {}
            Stage::Digests { answers, .. } => {
                let others = answers.keys().filter(|from| **from != self.me).count();
                if !self.learner && others > 0 && answers.contains_key(&self.me) {
                    self.complete = false;
                    self.compare(now, out);
                } else {
                    self.give_up_range(now, out);
                }
            }
            Stage::Listing { .. } => self.give_up_range(now, out),
            // Repairs have deadlines of their own and always come back.
            Stage::Copying { from: None, .. } => self.until = now + ASK_TIMEOUT,
            Stage::Copying { .. } => self.give_up_range(now, out),
        }
    }

    /// Takes an answer.
    pub fn message(&mut self, now: Time, from: NodeId, message: Message, out: &mut Vec<Step>) {
        match (&mut self.stage, message) {
            (Stage::Digests { ask, answers }, Message::Digests(got)) if *ask == got.ask => {
                // What a learner holds proves nothing, except to itself.
                if got.votes || from == self.me {
                    answers.insert(from, got);
                }
                if answers.len() == self.ring.replicas() {
                    self.compare(now, out);
                }
            }
            (Stage::Listing { ask, answers, .. }, Message::Listed(got)) if *ask == got.ask => {
                if !got.votes && from != self.me {
                    return self.give_up_range(now, out);
                }
                answers.insert(from, got);
                if answers.len() == self.present.len() {
                    self.merge(now, out);
                }
            }
            (Stage::Copying { ask, from: source, .. }, Message::Records(got))
                if *ask == got.ask && *source == Some(from) =>
            {
                self.copy(now, from, got, out);
            }
            _ => {}
        }
    }

    /// To be called when `peer` is found to have lost its store, before it is welcomed: its rows
    /// prove no vote any more. The range under way is looked at again in another pass.
    pub fn forget(&mut self, now: Time, peer: NodeId, out: &mut Vec<Step>) {
        let concerned = self
            .ranges
            .front()
            .is_some_and(|range| self.ring.preference_list(*range).contains(&peer));
        if concerned {
            self.give_up_range(now, out);
        }
    }

    /// A repair has ended.
    pub fn repaired(&mut self, now: Time, key: &Key, ok: bool, out: &mut Vec<Step>) {
        if !self.repairing.remove(key) {
            return;
        }
        if ok {
            self.repaired += 1;
        } else {
            self.complete = false;
        }
        self.go_on(now, out);
    }

    fn next_ask(&mut self, now: Time) -> Ask {
        self.ask.n += 1;
        self.until = now + ASK_TIMEOUT;
        self.ask
    }

    fn start_range(&mut self, now: Time, out: &mut Vec<Step>) {
        let Some(range) = self.ranges.front().copied() else { return self.end_pass(now, out) };
        let ask = self.next_ask(now);
        self.stage = Stage::Digests { ask, answers: BTreeMap::new() };
        for to in self.ring.preference_list(range) {
            out.push(Step::Send { to, message: AskDigests { ask, range }.into() });
        }
    }

    fn compare(&mut self, now: Time, out: &mut Vec<Step>) {
        let (Some(range), Stage::Digests { answers, .. }) = (self.ranges.front(), &self.stage)
        else {
            return;
        };
        self.present = answers.keys().copied().collect();
        let Some(mine) = answers.get(&self.me) else { return };
        let differs = |bucket: &usize| {
            answers.values().any(|other| other.buckets.get(*bucket) != mine.buckets.get(*bucket))
        };
        self.intervals = (0..digest::BUCKETS)
            .filter(differs)
            .flat_map(|bucket| digest::interval(&self.ring, *range, bucket))
            .collect();
        self.still_owed.clear();
        self.next_interval(now, out);
    }

    fn next_interval(&mut self, now: Time, out: &mut Vec<Step>) {
        match self.intervals.pop_front() {
            Some((from, to)) => self.list(now, from, to, out),
            None => self.end_look(now, out),
        }
    }

    fn list(&mut self, now: Time, from: u64, to: u64, out: &mut Vec<Step>) {
        let Some(range) = self.ranges.front().copied() else { return };
        let ask = self.next_ask(now);
        self.stage = Stage::Listing { ask, to, answers: BTreeMap::new() };
        for to_node in self.present.clone() {
            let message = AskList { ask, range, from, to, rows: LIST_ROWS }.into();
            out.push(Step::Send { to: to_node, message });
        }
    }

    /// All listings are in: decides for each key. Pages end at different places; what lies behind
    /// the first end is left to the next listing.
    fn merge(&mut self, now: Time, out: &mut Vec<Step>) {
        let Stage::Listing { to, answers, ask, .. } =
            std::mem::replace(&mut self.stage, Stage::Resting)
        else {
            return;
        };
        let next = answers.values().filter_map(|listed| listed.next).min();
        let within =
            |row: &Row| next.is_none_or(|next| crate::ring::Position::of(&row.key).prefix() < next);
        let mut keys: BTreeMap<Key, BTreeMap<NodeId, &Row>> = BTreeMap::new();
        for (from, listed) in &answers {
            for row in listed.rows.iter().filter(|row| within(row)) {
                keys.entry(row.key.clone()).or_default().insert(*from, row);
            }
        }
        for (key, rows) in keys {
            self.judge(key, &rows, &answers);
        }
        self.stage = Stage::Copying { ask, from: None, next, to };
        self.go_on(now, out);
    }

    fn judge(
        &mut self,
        key: Key,
        rows: &BTreeMap<NodeId, &Row>,
        answers: &BTreeMap<NodeId, Listed>,
    ) {
        let newest = rows.values().map(|row| row.stamp).max();
        // A tombstone that this node may have collected is not missing here.
        let floor = answers.get(&self.me).map_or(0, |listed| listed.absent_floor);
        let collected = |row: &&&Row| {
            row.deleted_at.is_some() && Some(row.stamp) == newest && row.stamp.ballot.round <= floor
        };
        let mine = match rows.get(&self.me) {
            Some(row) => Some(row.stamp),
            None => rows.values().find(collected).map(|row| row.stamp),
        };
        let others: Vec<_> = answers.keys().filter(|from| **from != self.me).collect();
        // Only rows prove a vote: a collected tombstone's floor may come from another key.
        let stamps: Vec<_> =
            others.iter().map(|from| rows.get(*from).map(|row| row.stamp)).collect();
        let agreed = stamps.len() + 1 == self.ring.replicas()
            && stamps.windows(2).all(|pair| pair.first() == pair.last());
        let behind = mine < newest;
        if !(behind || self.learner && !agreed) {
            return;
        }
        if let (true, Some(newest)) = (behind, newest) {
            let debt = if self.looks == 0 { Some(newest) } else { self.owed.get(&key).copied() };
            if let Some(debt) = debt.filter(|debt| mine < Some(*debt)) {
                self.still_owed.insert(key.clone(), debt);
            }
        }
        let source = others.iter().find(|from| rows.contains_key(**from));
        match (agreed, source, newest) {
            (true, Some(source), Some(newest)) => {
                self.wanted.entry(**source).or_default().insert(key, newest);
            }
            _ => self.to_repair.push_back(key),
        }
    }

    /// Copies and repairs what the last listing asked for, then lists on.
    fn go_on(&mut self, now: Time, out: &mut Vec<Step>) {
        let Stage::Copying { ask, from, next, to } = &mut self.stage else { return };
        while self.repairing.len() < REPAIRS_MAX {
            let Some(key) = self.to_repair.pop_front() else { break };
            self.repairing.insert(key.clone());
            out.push(Step::Repair { key });
        }
        if from.is_some() {
            return;
        }
        if let Some((source, keys)) = self.wanted.iter().find(|(_, keys)| !keys.is_empty()) {
            let source = *source;
            self.ask.n += 1;
            self.until = now + ASK_TIMEOUT;
            (*ask, *from) = (self.ask, Some(source));
            let fetch = Fetch { ask: self.ask, keys: keys.keys().cloned().collect() };
            out.push(Step::Send { to: source, message: fetch.into() });
            return;
        }
        self.wanted.clear();
        if !self.repairing.is_empty() {
            self.until = now + ASK_TIMEOUT;
            return;
        }
        match (*next, *to) {
            (Some(next), to) if next <= to => self.list(now, next, to, out),
            _ => self.next_interval(now, out),
        }
    }

    /// Records have come. Only one with exactly the stamp that both others held is known to be
    /// chosen; a newer one is looked at again in the next look.
    fn copy(&mut self, now: Time, from: NodeId, got: Records, out: &mut Vec<Step>) {
        let Some(wanted) = self.wanted.get_mut(&from) else { return };
        let none = got.records.is_empty();
        for (key, record) in got.records {
            if wanted.remove(&key) == Some(record.stamp) {
                self.copied += 1;
                self.still_owed.remove(&key);
                out.push(Step::Install { key, record });
            }
        }
        if none {
            // Collected or moved on in the meantime: the next look tells.
            wanted.clear();
        }
        if let Stage::Copying { from, .. } = &mut self.stage {
            *from = None;
        }
        self.go_on(now, out);
    }

    /// The range was gone through once. What is still owed is looked at again.
    fn end_look(&mut self, now: Time, out: &mut Vec<Step>) {
        self.stage = Stage::Resting;
        self.owed = std::mem::take(&mut self.still_owed);
        self.looks += 1;
        if self.owed.is_empty() {
            self.looks = 0;
            self.ranges.pop_front();
            self.start_range(now, out);
        } else if self.looks == 1 {
            self.start_range(now, out);
        } else {
            // Another look at once would only find the same: give installs and accepts a moment.
            self.until = now + RETRY_EVERY / 10;
        }
    }

    fn give_up_range(&mut self, now: Time, out: &mut Vec<Step>) {
        self.complete = false;
        self.stage = Stage::Resting;
        self.intervals.clear();
        self.wanted.clear();
        self.to_repair.clear();
        self.repairing.clear();
        self.looks = 0;
        self.owed.clear();
        self.ranges.pop_front();
        self.start_range(now, out);
    }

    fn end_pass(&mut self, now: Time, out: &mut Vec<Step>) {
        self.stage = Stage::Resting;
        if self.complete {
            let (copied, repaired) = (self.copied, self.repaired);
            self.learner = false;
            out.push(Step::Level { copied, repaired });
        } else {
            self.again = true;
        }
        self.until = now + RETRY_EVERY;
    }
}
