//! The sweep: expired values are deleted, and old tombstones collected, without being asked for.
//!
//! The first node of a range's preference list goes through its rows, a page at a time. An expired
//! value is read through its coordinator, which writes the tombstone. A tombstone older than the
//! grace period is collected once **all** replicas are seen to hold that very one (or to have
//! collected it): then no replica can bring the value back, and each one's absent floor refuses
//! accepts older than the tombstone. The others are told first, the own row goes a round later, once
//! they are seen to have forgotten it: a tombstone left behind at one of them would stay unnoticed.
//! Source: register.md, "Recovery".
//!
//! Caveat: grace is by the wall clock. It must be far above the deadline of requests plus the skew
//! between nodes; the configuration sees to it.

use crate::{
    ballot::Stamp,
    message::{Ask, AskList, Collect, Listed, Message, Row},
    record::Key,
    ring::{NodeId, Position, RangeId, Ring},
    time::{Now, Time},
};
use std::{collections::BTreeMap, time::Duration};

use super::catchup::{ASK_TIMEOUT, LIST_ROWS};

/// Pause between two pages: 2,000 rows a second cost about 1 % of a core.
pub const PAGE_EVERY: Duration = Duration::from_millis(250);

/// Pause between two rounds over the range.
pub const ROUND_EVERY: Duration = Duration::from_secs(10);

/// What the sweep wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, perhaps to the own replica.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Read this expired key through its coordinator.
    Expire {
        /// Which.
        key: Key,
    },
}

#[derive(Clone, Debug)]
enum Stage {
    Resting,
    /// The own rows from here on.
    Own {
        ask: Ask,
    },
    /// The same rows at all replicas, for a page with old tombstones.
    All {
        ask: Ask,
        old: BTreeMap<Key, Stamp>,
        answers: BTreeMap<NodeId, Listed>,
        next: Option<u64>,
    },
}

/// The sweep of the range that this node is the first of.
#[derive(Clone, Debug)]
pub struct Sweep {
    me: NodeId,
    ring: Ring,
    range: RangeId,
    grace: Duration,
    ask: Ask,
    /// Intervals of the range still to go through in this round.
    intervals: Vec<(u64, u64)>,
    stage: Stage,
    until: Time,
}

impl Sweep {
    /// The sweep of a node that is in the ring; none where it is not. `ask` names its questions.
    #[must_use]
    pub fn new(me: NodeId, ring: Ring, grace: Duration, ask: Ask) -> Option<Sweep> {
        let range =
            ring.ranges().find(|range| ring.preference_list(*range).first() == Some(&me))?;
        Some(Sweep {
            me,
            ring,
            range,
            grace,
            ask,
            intervals: Vec::new(),
            stage: Stage::Resting,
            until: Time::default(),
        })
    }

    /// When to call [`Sweep::wake`].
    #[must_use]
    pub fn next_wake(&self) -> Time {
        self.until
    }

    /// Goes on where the time has come; a page that was not answered is left to the next round.
    pub fn wake(&mut self, now: Now, out: &mut Vec<Step>) {
        if now.mono < self.until {
            return;
        }
        if !matches!(self.stage, Stage::Resting) {
            self.intervals.clear();
            return self.rest(now, ROUND_EVERY);
        }
        if self.intervals.is_empty() {
            self.intervals = self.ring.prefixes(self.range);
            self.intervals.reverse();
        }
        let Some((from, to)) = self.intervals.last().copied() else { return };
        let ask = self.next_ask(now);
        self.stage = Stage::Own { ask };
        self.send_list(self.me, ask, from, to, out);
    }

    /// Takes a listing.
    pub fn message(&mut self, now: Now, from: NodeId, got: Listed, out: &mut Vec<Step>) {
        match &mut self.stage {
            Stage::Own { ask } if *ask == got.ask && from == self.me => self.own(now, &got, out),
            Stage::All { ask, answers, .. } if *ask == got.ask => {
                answers.insert(from, got);
                if answers.len() == self.ring.replicas() {
                    self.collect(now, out);
                }
            }
            Stage::Resting | Stage::Own { .. } | Stage::All { .. } => {}
        }
    }

    fn own(&mut self, now: Now, got: &Listed, out: &mut Vec<Step>) {
        let expired = |row: &&Row| row.expires_at.is_some_and(|at| at <= now.wall);
        let steps =
            got.rows.iter().filter(expired).map(|row| Step::Expire { key: row.key.clone() });
        out.extend(steps);
        let grace = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        let old = |row: &&Row| row.deleted_at.is_some_and(|at| at.saturating_add(grace) < now.wall);
        let old: BTreeMap<_, _> =
            got.rows.iter().filter(old).map(|row| (row.key.clone(), row.stamp)).collect();
        let Some((from, to)) = self.intervals.last().copied() else { return };
        if old.is_empty() {
            return self.page_done(now, got.next);
        }
        let ask = self.next_ask(now);
        let to = got.next.map_or(to, |next| next.saturating_sub(1));
        self.stage = Stage::All { ask, old, answers: BTreeMap::new(), next: got.next };
        for node in self.ring.preference_list(self.range) {
            self.send_list(node, ask, from, to, out);
        }
    }

    fn collect(&mut self, now: Now, out: &mut Vec<Step>) {
        let Stage::All { old, answers, next, .. } =
            std::mem::replace(&mut self.stage, Stage::Resting)
        else {
            return;
        };
        let gone = |listed: &Listed, key: &Key, stamp: Stamp| {
            let seen = listed.next.is_none_or(|next| Position::of(key).prefix() < next);
            match listed.rows.iter().find(|row| row.key == *key) {
                Some(row) => listed.votes && row.stamp == stamp && row.deleted_at.is_some(),
                None => listed.votes && seen && stamp.ballot.round <= listed.absent_floor,
            }
        };
        for (key, stamp) in old {
            if !answers.values().all(|listed| gone(listed, &key, stamp)) {
                continue;
            }
            // The own row goes last, in a later round: it is what reminds this node to tell those
            // who missed the word.
            let holds = |listed: &Listed| listed.rows.iter().any(|row| row.key == key);
            let others = answers.iter().filter(|(from, _)| **from != self.me);
            let mut left: Vec<_> =
                others.filter(|(_, listed)| holds(listed)).map(|(from, _)| *from).collect();
            if left.is_empty() {
                left.push(self.me);
            }
            for to in left {
                let message = Collect { key: key.clone(), stamp }.into();
                out.push(Step::Send { to, message });
            }
        }
        self.page_done(now, next);
    }

    fn page_done(&mut self, now: Now, next: Option<u64>) {
        if let (Some(next), Some((from, _))) = (next, self.intervals.last_mut()) {
            *from = next;
            return self.rest(now, PAGE_EVERY);
        }
        self.intervals.pop();
        self.rest(now, if self.intervals.is_empty() { ROUND_EVERY } else { PAGE_EVERY });
    }

    fn rest(&mut self, now: Now, pause: Duration) {
        self.stage = Stage::Resting;
        self.until = now.mono + pause;
    }

    fn next_ask(&mut self, now: Now) -> Ask {
        self.ask.n += 1;
        self.until = now.mono + ASK_TIMEOUT;
        self.ask
    }

    fn send_list(&self, to_node: NodeId, ask: Ask, from: u64, to: u64, out: &mut Vec<Step>) {
        let message = AskList { ask, range: self.range, from, to, rows: LIST_ROWS }.into();
        out.push(Step::Send { to: to_node, message });
    }
}
