//! A node's replica of every register it holds: the acceptor of CASPaxos.
//!
//! Promises are not durable. Instead the node keeps a durable *ceiling* that no promised or used
//! round exceeds, raised ahead in steps of [`CEILING_STEP`] so that it is rarely written. A
//! restarted node takes its ceiling as *floor* and refuses every round up to it: whatever it may
//! have promised before the crash, it keeps.
//!
//! The promise in force for a key is the largest of the remembered promise, the stored record's
//! ballot, the floor, and, where nothing is stored, the absent floor: the largest round of a
//! tombstone collected here, below which an old accept could bring a deleted value back.
//!
//! A **learner** has lost what it acknowledged. It takes part silently: it stores accepts above its
//! floor (the largest ceiling of its peers, so no promise that it has forgotten is above it) but
//! gives no votes until it has caught up.
//!
//! The caller hands in the stored record, carries out the persists in order and lets nothing out
//! before they are durable. Source: register.md, "Messages and rules", "Recovery".

use crate::{
    ballot::Ballot,
    effect::{Effect, Effects, Write},
    message::{
        Accept, Accepted, Collect, Held, Message, NoVote, Prepare, Promise, Query, Reason, Refused,
        Round, State,
    },
    record::{Datum, Key, Record},
    ring::NodeId,
};
use std::collections::BTreeMap;

/// How far the ceiling is raised ahead, in rounds: one durable write a million prepares.
pub const CEILING_STEP: u64 = 1 << 20;

/// Remembered promises, about 100 bytes each and the key. Past it the floor is raised to the
/// largest round among them, which keeps them all, and the map is emptied.
pub const PROMISES_MAX: usize = 1 << 16;

/// Bytes of the keys among them, likewise: a key may be long, and nothing need be stored at it.
pub const PROMISED_KEYS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What the acceptor may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Peers have not yet told whether this store is new or has lost something: nothing is stored.
    Outside,
    /// Stores, does not vote.
    Learner,
    /// Votes.
    Voter,
}

/// What the acceptor had kept durably.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// No round above it was promised or used.
    pub ceiling: u64,
    /// The largest round of a collected tombstone.
    pub absent_floor: u64,
}

/// One node's acceptor, for all keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor {
    me: NodeId,
    standing: Standing,
    ceiling: u64,
    floor: u64,
    absent_floor: u64,
    used: u64,
    promises: BTreeMap<Key, Ballot>,
    promised_keys_bytes: usize,
}

impl Acceptor {
    /// The acceptor of `me` after a start.
    #[must_use]
    pub fn new(me: NodeId, durable: Durable, standing: Standing) -> Acceptor {
        Acceptor {
            me,
            standing,
            ceiling: durable.ceiling,
            floor: durable.ceiling,
            absent_floor: durable.absent_floor,
            used: durable.ceiling,
            promises: BTreeMap::new(),
            promised_keys_bytes: 0,
        }
    }

    /// What it may do.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The durable ceiling, as far as effects have been carried out.
    #[must_use]
    pub fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// The largest round of a collected tombstone.
    #[must_use]
    pub fn absent_floor(&self) -> u64 {
        self.absent_floor
    }

    /// Enters as a learner: `peers_ceiling` is the largest ceiling of **all** peers, so that no
    /// promise this node has forgotten is above the floor.
    pub fn learn(&mut self, peers_ceiling: u64, out: &mut Effects) {
        self.standing = Standing::Learner;
        self.floor = self.floor.max(peers_ceiling);
        self.used = self.used.max(self.floor);
        self.raise_ceiling(self.floor, out);
    }

    /// Votes from now on: it is new to all peers, or has caught up with both others of each range.
    pub fn vote(&mut self) {
        self.standing = Standing::Voter;
    }

    /// Gives the node's own coordinator a fresh ballot above `above` and the own promise of it.
    pub fn begin(&mut self, key: &Key, above: u64, stored: Option<&Record>, out: &mut Effects) {
        if self.standing != Standing::Voter {
            return self.no_vote(self.me, key, Round::Begin, out);
        }
        let round = above.max(self.used).max(self.promised(key, stored).round).saturating_add(1);
        self.used = round;
        self.promise(self.me, key, Ballot { round, node: self.me }, stored, out);
    }

    /// Phase one.
    pub fn prepare(
        &mut self,
        from: NodeId,
        ask: &Prepare,
        stored: Option<&Record>,
        out: &mut Effects,
    ) {
        let Prepare { key, ballot } = ask;
        if self.standing != Standing::Voter {
            return self.no_vote(from, key, Round::Ballot(*ballot), out);
        }
        let promised = self.promised(key, stored);
        let repeated = self.promises.get(key) == Some(ballot) && promised == *ballot;
        if *ballot > promised || repeated {
            self.promise(from, key, *ballot, stored, out);
        } else {
            Self::refuse(from, key, *ballot, promised, out);
        }
    }

    /// Phase two.
    pub fn accept(
        &mut self,
        from: NodeId,
        ask: Accept,
        stored: Option<&Record>,
        out: &mut Effects,
    ) {
        let Accept { key, record } = ask;
        let stamp = record.stamp;
        if self.standing == Standing::Outside {
            return self.no_vote(from, &key, Round::Ballot(stamp.ballot), out);
        }
        let promised = self.promised(&key, stored);
        if stamp.ballot < promised {
            return Self::refuse(from, &key, stamp.ballot, promised, out);
        }
        // A smaller version of the same owner is contained in the stored one.
        if stored.is_none_or(|stored| stored.stamp < stamp) {
            self.forget_promise(&key, stamp.ballot);
            out.push(Effect::Persist(Write::Put(key.clone(), record)));
        }
        if self.standing == Standing::Learner {
            return self.no_vote(from, &key, Round::Ballot(stamp.ballot), out);
        }
        out.push(Effect::Send { to: from, message: Accepted { key, stamp }.into() });
    }

    /// What is held durably.
    pub fn query(&self, from: NodeId, ask: &Query, stored: Option<&Record>, out: &mut Effects) {
        if self.standing != Standing::Voter {
            return self.no_vote(from, &ask.key, Round::Query(ask.ask), out);
        }
        let message = Self::answer_to(ask, stored).into();
        out.push(Effect::Send { to: from, message });
    }

    /// A voter's answer to a query: it depends on nothing but the durable record, so it need not
    /// wait behind the writes that are under way.
    #[must_use]
    pub fn answer_to(ask: &Query, stored: Option<&Record>) -> State {
        let held = match stored {
            None => Held::Nothing,
            Some(record) if ask.have == Some(record.stamp) => Held::Same(record.stamp),
            Some(record) => Held::Record(record.clone()),
        };
        State { key: ask.key.clone(), ask: ask.ask, held }
    }

    /// Stores a record that anti-entropy has **shown to be chosen** ([`super::catchup`]), whatever
    /// is promised: every later ballot has already seen it, so it takes nothing back.
    pub fn install(
        &mut self,
        key: Key,
        record: Record,
        stored: Option<&Record>,
        out: &mut Effects,
    ) {
        if self.standing == Standing::Outside || (stored.is_none() && self.collected(&record)) {
            return;
        }
        if stored.is_none_or(|stored| stored.stamp < record.stamp) {
            self.forget_promise(&key, record.stamp.ballot);
            out.push(Effect::Persist(Write::Put(key, record)));
        }
    }

    /// Forgets a tombstone that all replicas were seen to hold, and from then on refuses rounds up
    /// to its own where nothing is stored.
    pub fn collect(&mut self, ask: &Collect, stored: Option<&Record>, out: &mut Effects) {
        let Some(record) = stored.filter(|record| record.stamp == ask.stamp) else { return };
        if !matches!(record.datum, Datum::Tombstone { .. }) {
            return;
        }
        if record.stamp.ballot.round > self.absent_floor {
            self.absent_floor = record.stamp.ballot.round;
            out.push(Effect::Persist(Write::AbsentFloor(self.absent_floor)));
        }
        out.push(Effect::Persist(Write::Remove(ask.key.clone())));
    }

    /// The promise in force for a key.
    #[must_use]
    pub fn promised(&self, key: &Key, stored: Option<&Record>) -> Ballot {
        let remembered = self.promises.get(key).copied().unwrap_or(Ballot::ZERO);
        let held = match stored {
            Some(record) => record.stamp.ballot,
            None => Ballot::last_of(self.absent_floor),
        };
        remembered.max(held).max(Ballot::last_of(self.floor))
    }

    /// A tombstone that was, or may have been, collected here: where nothing is stored, storing it
    /// would only bring it back to be collected once more.
    fn collected(&self, record: &Record) -> bool {
        matches!(record.datum, Datum::Tombstone { .. })
            && record.stamp.ballot.round <= self.absent_floor
    }

    fn promise(
        &mut self,
        to: NodeId,
        key: &Key,
        ballot: Ballot,
        stored: Option<&Record>,
        out: &mut Effects,
    ) {
        self.raise_ceiling(ballot.round, out);
        let known = self.promises.contains_key(key);
        if !known && self.promises_are_full() {
            self.floor =
                self.promises.values().map(|ballot| ballot.round).fold(self.floor, u64::max);
            self.promises.clear();
            self.promised_keys_bytes = 0;
        }
        if ballot < Ballot::last_of(self.floor) {
            return Self::refuse(to, key, ballot, Ballot::last_of(self.floor), out);
        }
        if self.promises.insert(key.clone(), ballot).is_none() {
            self.promised_keys_bytes += key.len();
        }
        let message = Promise { key: key.clone(), ballot, record: stored.cloned() }.into();
        out.push(Effect::Send { to, message });
    }

    fn raise_ceiling(&mut self, round: u64, out: &mut Effects) {
        if round > self.ceiling {
            self.ceiling = round.saturating_add(CEILING_STEP);
            out.push(Effect::Persist(Write::Ceiling(self.ceiling)));
        }
    }

    fn forget_promise(&mut self, key: &Key, ballot: Ballot) {
        if self.promises.get(key).is_some_and(|promised| *promised <= ballot) {
            self.promises.remove(key);
            self.promised_keys_bytes -= key.len();
        }
    }

    fn promises_are_full(&self) -> bool {
        self.promises.len() >= PROMISES_MAX || self.promised_keys_bytes >= PROMISED_KEYS_BYTES_MAX
    }

    fn refuse(to: NodeId, key: &Key, asked: Ballot, promised: Ballot, out: &mut Effects) {
        let message = Message::from(Refused { key: key.clone(), asked, promised });
        out.push(Effect::Send { to, message });
    }

    fn no_vote(&self, to: NodeId, key: &Key, round: Round, out: &mut Effects) {
        let message = NoVote { key: key.clone(), round, reason: Reason::Learning }.into();
        out.push(Effect::Send { to, message });
    }
}
