//! Reads that need no coordinator: the router asks replicas what they hold, as a coordinator would.
//!
//! What a write quorum of replicas holds under one stamp is chosen, whoever has asked. So the answer
//! needs no ballot, one round trip, and no messages to a coordinator and back. A quorum is asked, the own
//! replica first, because it is the nearest; where they differ, or one is late, one more is. Where still
//! none agree, or the state must change before it can be answered (a value that expired), a coordinator
//! is asked as for any other operation, and writes back.
//!
//! Of several operations on a key that are in flight at once, only the first is answered this way.
//! The others go to the key's coordinator, who answers many with one round: a key in demand costs
//! less there.
//!
//! Source: register.md, "Messages and rules": "any replica may coordinate any operation", "a read
//! sends `Query` …". Caveat: like a coordinator a router must forget what a node said before it lost
//! its store ([`Routing::forget`]).

use super::{Asked, Debt, Routing, Step, Verdict, pending::Pending};
use crate::{
    ballot::Stamp,
    command::{Context, apply},
    message::{Ask, Held, Message, NoVote, Query, Round, State},
    record::{Record, stamp_of},
    register::proposer::LAST_REPLICA_WAIT,
    ring::NodeId,
    time::{Now, Time},
};
use std::time::Duration;

/// The asker in a router's questions: which router is known by the key, which operation by their
/// number.
pub const ASKER: u64 = 6;

/// Why a read is left to a coordinator.
const DIFFER: &str = "the replicas asked do not agree";

/// What a replica that was asked has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Nothing yet.
    Open,
    /// That it holds this.
    Holds(Option<Stamp>),
    /// That it does not vote; or what it said must be forgotten.
    None,
}

/// A read under way.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    sent: Time,
    asked: Vec<(NodeId, Word)>,
    /// What the own replica holds: who holds the same need not send it.
    own: Option<Record>,
}

impl Reading {
    /// The node stood still: its own silence counts for nothing.
    pub(super) fn stood_still(&mut self, span: Duration) {
        self.sent = self.sent + span;
    }

    /// The first replica that was not asked and is not suspected.
    fn untried(&self, replicas: &[NodeId], suspected: &impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let asked = |node: NodeId| self.asked.iter().any(|(asked, _)| *asked == node);
        replicas.iter().copied().find(|node| !suspected(*node) && !asked(*node))
    }

    /// Notes what a node says; whether it was waited for.
    fn note(&mut self, node: NodeId, said: Word) -> bool {
        let open = |asked: &&mut (NodeId, Word)| **asked == (node, Word::Open);
        self.asked.iter_mut().find(open).map(|(_, word)| *word = said).is_some()
    }

    /// How many hold this.
    fn agree_on(&self, stamp: Option<Stamp>) -> usize {
        self.asked.iter().filter(|(_, word)| *word == Word::Holds(stamp)).count()
    }

    /// Whether those that were asked at first do.
    fn first_agree_on(&self, stamp: Option<Stamp>, quorum: usize) -> bool {
        self.asked.iter().take(quorum).all(|(_, word)| *word == Word::Holds(stamp))
    }

    /// How many have said what they hold.
    fn said(&self) -> usize {
        self.asked.iter().filter(|(_, word)| matches!(word, Word::Holds(_))).count()
    }

    /// How many have said what they hold, or may yet.
    fn hopes(&self) -> usize {
        self.asked.iter().filter(|(_, word)| *word != Word::None).count()
    }

    fn is_open(&self) -> bool {
        self.asked.iter().any(|(_, word)| *word == Word::Open)
    }

    /// Why those asked so far cannot agree any more; none while they may.
    fn stuck(&self, quorum: usize) -> Option<&'static str> {
        if self.hopes() < quorum {
            Some("too few replicas to ask")
        } else if self.is_open() {
            None
        } else {
            Some(DIFFER)
        }
    }

    /// Whether this node owes an answer.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.asked.contains(&(node, Word::Open))
    }
}

/// Whether this answers what a router has asked, not a coordinator.
#[must_use]
pub fn answers_router(message: &Message) -> bool {
    match message {
        Message::State(state) => state.ask.asker == ASKER,
        Message::NoVote(NoVote { round: Round::Query(ask), .. }) => ask.asker == ASKER,
        _ => false,
    }
}

impl Pending {
    /// Whether the router reads by itself, and has asked no coordinator yet.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some() && self.attempts.is_empty()
    }
}

impl Routing {
    /// Asks a quorum of replicas, where that is the way to answer this operation.
    pub(super) fn start_reading(
        &mut self,
        now: Time,
        seq: u64,
        suspected: &impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) -> bool {
        let (Some(quorum), Some(pending)) = (self.config.reads, self.pending.get_mut(&seq)) else {
            return false;
        };
        let alone = self.by_key.get(&pending.key).is_none_or(|seqs| seqs.len() == 1);
        if !alone || !pending.command.is_read() {
            return false;
        }
        let me = self.me;
        let trusted = || pending.replicas.iter().copied().filter(|node| !suspected(*node));
        let own = trusted().find(|node| *node == me);
        if trusted().count() < quorum {
            return false;
        }
        // The own replica answers at once, and what it holds need not come from another one too.
        let asked: Vec<_> = match own {
            Some(own) => vec![own],
            None => trusted().take(quorum).collect(),
        };
        let words = asked.iter().map(|node| (*node, Word::Open)).collect();
        pending.reading = Some(Reading { sent: now, asked: words, own: None });
        for (at, to) in asked.iter().enumerate() {
            self.query(now, seq, *to, at == 0, out);
        }
        self.read_hedge.earn();
        self.reschedule(seq, now + self.usual_wait());
        true
    }

    fn query(&mut self, now: Time, seq: u64, to: NodeId, first: bool, out: &mut Vec<Step>) {
        let Some(pending) = self.pending.get(&seq) else { return };
        let have = pending.reading.as_ref().and_then(|reading| stamp_of(reading.own.as_ref()));
        let query = Query { key: pending.key.clone(), ask: self.question(seq), have };
        out.push(Step::Query { to, op: self.op(seq), query, first });
        if to != self.me {
            self.owed.entry(to).or_insert(Debt { since: now, seq, by: Asked::Replica });
        }
    }

    fn question(&self, seq: u64) -> Ask {
        Ask { incarnation: self.incarnation, asker: ASKER, n: seq }
    }

    /// Takes what a replica answers, see [`answers_router`].
    pub fn told(
        &mut self,
        now: Now,
        from: NodeId,
        message: Message,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) {
        match message {
            Message::State(state) => self.state(now, from, state, suspected, out),
            Message::NoVote(no_vote) => self.no_vote(now.mono, from, &no_vote, suspected, out),
            _ => {}
        }
    }

    fn state(
        &mut self,
        now: Now,
        from: NodeId,
        got: State,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) {
        self.heard(now.mono, from);
        let Some(quorum) = self.config.reads else { return };
        let seq = got.ask.n;
        let asked = self.question(seq) == got.ask;
        let Some(pending) = self.pending.get_mut(&seq).filter(|it| asked && it.key == got.key)
        else {
            return;
        };
        let Some(reading) = &mut pending.reading else { return };
        let stamp = got.held.stamp();
        if !reading.note(from, Word::Holds(stamp)) {
            return;
        }
        if from == self.me
            && let Held::Record(record) = &got.held
        {
            reading.own = Some(record.clone());
        }
        if reading.agree_on(stamp) < quorum {
            return self.judge_reading(now.mono, seq, suspected, out);
        }
        // How long those take that are asked at first: what one more answered instead of a dead one has
        // waited for that, and would have the next wait longer.
        if pending.attempts.is_empty() && reading.first_agree_on(stamp, quorum) {
            self.read_hedge.sample(now.mono.since(reading.sent));
        }
        let record = match &got.held {
            Held::Nothing => None,
            Held::Record(record) => Some(record),
            Held::Same(_) => match &reading.own {
                Some(own) if Some(own.stamp) == stamp => Some(own),
                _ => return,
            },
        };
        let datum = record.map(|record| &record.datum);
        let context = Context { wall: now.wall, value_bytes_max: usize::MAX };
        let applied = apply(&pending.command, datum, context);
        if applied.next.is_some() {
            let why = "the value has expired";
            return self.leave_to_coordinator(now.mono, seq, why, suspected, out);
        }
        out.push(Step::Agreed { op: self.op(seq), stamp: stamp.unwrap_or_default() });
        self.finish(seq, Verdict::Reply(applied.reply), out);
    }

    fn no_vote(
        &mut self,
        now: Time,
        from: NodeId,
        got: &NoVote,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) {
        self.heard(now, from);
        let Round::Query(ask) = got.round else { return };
        let asked = self.question(ask.n) == ask;
        let pending = self.pending.get_mut(&ask.n).filter(|it| asked && it.key == got.key);
        let Some(reading) = pending.and_then(|pending| pending.reading.as_mut()) else { return };
        if reading.note(from, Word::None) {
            self.judge_reading(now, ask.n, suspected, out);
        }
    }

    /// While a quorum may yet agree there is nothing to decide, but where those that have answered
    /// differ the last is waited for no longer than a coordinator would: it may have just died. Else
    /// one more replica is asked, or a coordinator.
    fn judge_reading(
        &mut self,
        now: Time,
        seq: u64,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) {
        let Some(quorum) = self.config.reads else { return };
        loop {
            let reading = self.pending.get(&seq).filter(|pending| pending.is_reading());
            let Some(reading) = reading.and_then(|pending| pending.reading.as_ref()) else {
                return;
            };
            let Some(why) = reading.stuck(quorum) else {
                if reading.said() >= quorum {
                    self.reschedule(seq, now + LAST_REPLICA_WAIT);
                }
                return;
            };
            if !self.ask_one_more(now, seq, &suspected, out) {
                return self.leave_to_coordinator(now, seq, why, suspected, out);
            }
        }
    }

    /// Asks a replica that was not asked and is not suspected, if there is one.
    fn ask_one_more(
        &mut self,
        now: Time,
        seq: u64,
        suspected: &impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) -> bool {
        let Some(pending) = self.pending.get_mut(&seq) else { return false };
        let Some(reading) = &mut pending.reading else { return false };
        let Some(to) = reading.untried(&pending.replicas, suspected) else { return false };
        let differ = self.config.reads.is_some_and(|quorum| reading.said() >= quorum);
        reading.asked.push((to, Word::Open));
        self.query(now, seq, to, false, out);
        let wait = if differ { LAST_REPLICA_WAIT } else { self.usual_wait() };
        self.reschedule(seq, now + wait);
        true
    }

    /// How long an answer may take before one more replica is asked.
    fn usual_wait(&self) -> Duration {
        self.read_hedge.after().unwrap_or(self.config.request_timeout)
    }

    fn leave_to_coordinator(
        &mut self,
        now: Time,
        seq: u64,
        why: &'static str,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) {
        if self.pending.get(&seq).is_some_and(|pending| pending.attempts.is_empty()) {
            out.push(Step::Leave { op: self.op(seq), why });
            self.ask_next(now, seq, suspected, out);
        }
    }

    /// The answer takes long. One more replica is asked, at first if the budget allows it. In the end a
    /// coordinator is, but while those that were asked are slow rather than gone: an overload must not
    /// be fed. Whatever answers first is believed.
    pub(super) fn wake_reading(
        &mut self,
        now: Time,
        seq: u64,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) {
        let Some(pending) = self.pending.get(&seq) else { return };
        let (Some(reading), Some(quorum)) = (&pending.reading, self.config.reads) else { return };
        let timeout = reading.sent + self.config.request_timeout;
        if reading.stuck(quorum).is_some() {
            return self.judge_reading(now, seq, suspected, out);
        }
        if reading.said() >= quorum {
            // They differ, and the last does not decide it: a coordinator knows what to do.
            return self.leave_to_coordinator(now, seq, DIFFER, suspected, out);
        }
        let late = now >= timeout;
        if late && self.are_at_work(now, seq) {
            return self.reschedule(seq, now + self.config.request_timeout);
        }
        let untried = reading.untried(&pending.replicas, &suspected).is_some();
        if untried && (late || self.read_hedge.spend()) {
            self.hedges += u64::from(!late);
            self.ask_one_more(now, seq, &suspected, out);
        } else if late {
            let why = "the replicas asked do not answer";
            return self.leave_to_coordinator(now, seq, why, suspected, out);
        }
        if !late {
            self.reschedule(seq, timeout);
        }
    }

    /// Whether all whose answer is missing answer others.
    fn are_at_work(&self, now: Time, seq: u64) -> bool {
        let reading = self.pending.get(&seq).and_then(|pending| pending.reading.as_ref());
        reading.is_some_and(|reading| {
            let open = reading.asked.iter().filter(|(_, word)| *word == Word::Open);
            open.map(|(node, _)| node).all(|node| self.works(now, *node, reading.sent))
        })
    }

    /// `node` has lost its store, **and is not welcomed yet**: what it said in its former life is no
    /// vote any more, see [`Proposer::forget`](crate::register::proposer::Proposer::forget).
    pub fn forget(&mut self, now: Time, node: NodeId) {
        self.unask(now, node);
    }

    /// What `node` was asked or has said counts no more.
    pub(super) fn unask(&mut self, now: Time, node: NodeId) {
        let mut due = Vec::new();
        for (seq, pending) in &mut self.pending {
            let reads = pending.is_reading();
            let Some(reading) = &mut pending.reading else { continue };
            for (_, word) in reading.asked.iter_mut().filter(|(asked, _)| *asked == node) {
                *word = Word::None;
                due.extend(reads.then_some(*seq));
            }
        }
        for seq in due {
            self.reschedule(seq, now);
        }
    }
}
