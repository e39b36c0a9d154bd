//! The router's decisions: which coordinator is asked, and what the client may be told.
//!
//! The router names an operation once and may try it at several coordinators, one after another.
//! The exactly-once records ([`crate::recent`]) make the second attempt harmless, under two rules
//! kept here:
//! - From the second attempt on, a command that can write is *recorded* even where it changes
//!   nothing. A failed condition that left no trace is believed only while no other coordinator can
//!   still apply the operation: otherwise a slow first attempt could succeed after the client was
//!   told that the condition failed.
//! - "Not applied" is said only when every coordinator asked has answered that it never proposed the
//!   operation and never will. Everything else that ends without a result is "unknown".
//!
//! Source: register.md, "Exactly once, or an honest unknown", "Availability".

use crate::{
    command::{Command, Reply},
    message::{Answer, Outcome, Reason, Request},
    recent::OpId,
    record::Key,
    ring::{NodeId, Ring},
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The shortest pause between attempts once every replica has been tried: coordinators that turn
/// requests away at once must not be asked in a loop.
pub const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What the router wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this to a coordinator.
    Ask {
        /// The coordinator's node, perhaps the router's own.
        to: NodeId,
        /// The attempt.
        request: Request,
    },
    /// The operation is over.
    Finish {
        /// Which.
        op: OpId,
        /// What the client is told.
        verdict: Verdict,
    },
    /// No answer came within the time-out.
    TimedOut {
        /// From this coordinator.
        node: NodeId,
        /// To a request sent then.
        sent: Time,
    },
}

/// What the client may be told: exactly one of three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took place; for a read, this is the value.
    Reply(Reply),
    /// It certainly did not take place.
    NotApplied(Reason),
    /// It may or may not have taken place, or may yet.
    Unknown,
}

/// What a router goes by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Silence after which the next coordinator is asked.
    pub request_timeout: Duration,
    /// When the client gets an error at the latest.
    pub deadline: Duration,
}

#[derive(Clone, Debug)]
struct Attempt {
    to: NodeId,
    sent: Time,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// No answer yet.
    Open,
    /// Answered: may have been applied.
    Unknown,
    /// Answered: never proposed.
    NotProposed(Reason),
    /// Answered: changed nothing, left no trace.
    Unrecorded(Reply),
}

#[derive(Clone, Debug)]
struct Pending {
    key: Key,
    command: Command,
    /// A read that writes back what it finds.
    repair: bool,
    replicas: Vec<NodeId>,
    attempts: Vec<Attempt>,
    /// When the next attempt is due.
    next: Time,
    ends: Time,
}

/// The router of one node.
#[derive(Clone, Debug)]
pub struct Routing {
    me: NodeId,
    incarnation: u64,
    ring: Ring,
    config: Config,
    seq: u64,
    pending: BTreeMap<u64, Pending>,
    by_key: BTreeMap<Key, BTreeSet<u64>>,
    timers: BTreeSet<(Time, u64)>,
}

impl Routing {
    /// A router of one life: `incarnation` was never used before by this node.
    #[must_use]
    pub fn new(me: NodeId, incarnation: u64, ring: Ring, config: Config) -> Routing {
        Routing {
            me,
            incarnation,
            ring,
            config,
            seq: 0,
            pending: BTreeMap::new(),
            by_key: BTreeMap::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Takes a client's operation, names it and asks the first coordinator that is not suspected.
    pub fn submit(
        &mut self,
        now: Time,
        key: Key,
        command: Command,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) -> OpId {
        self.begin(now, key, command, false, suspected, out)
    }

    /// Takes a key whose replicas differ: it is read, and what is found is written back.
    pub fn repair(
        &mut self,
        now: Time,
        key: Key,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) -> OpId {
        self.begin(now, key, Command::Exists, true, suspected, out)
    }

    fn begin(
        &mut self,
        now: Time,
        key: Key,
        command: Command,
        repair: bool,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) -> OpId {
        self.seq += 1;
        let seq = self.seq;
        let ends = now + self.config.deadline;
        let replicas = self.ring.replicas_of(&key);
        self.by_key.entry(key.clone()).or_default().insert(seq);
        let attempts = Vec::new();
        let pending = Pending { key, command, repair, replicas, attempts, next: now, ends };
        self.pending.insert(seq, pending);
        self.timers.insert((now, seq));
        self.ask_next(now, seq, suspected, out);
        self.op(seq)
    }

    /// Takes a coordinator's answer.
    pub fn answer(
        &mut self,
        now: Time,
        from: NodeId,
        answer: Answer,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) {
        let seq = answer.op.seq;
        if answer.op != self.op(seq) {
            return;
        }
        let Some(pending) = self.pending.get_mut(&seq) else { return };
        let at = usize::try_from(answer.attempt).unwrap_or(0).wrapping_sub(1);
        let Some(attempt) = pending.attempts.get_mut(at).filter(|attempt| attempt.to == from)
        else {
            return;
        };
        let read = pending.command.is_read();
        attempt.end = match answer.outcome {
            Outcome::Done { reply, recorded } if recorded || read => {
                return self.finish(seq, Verdict::Reply(reply), out);
            }
            Outcome::Done { reply, .. } => End::Unrecorded(reply),
            Outcome::ResultLost => return self.finish(seq, Verdict::Unknown, out),
            Outcome::Unknown | Outcome::NotProposed(Reason::Stale) => End::Unknown,
            Outcome::NotProposed(reason) => End::NotProposed(reason),
        };
        if let Some(reply) = pending.settled_without_trace() {
            return self.finish(seq, Verdict::Reply(reply), out);
        }
        if at + 1 == pending.attempts.len() {
            let fresh = pending.attempts.len() < pending.replicas.len();
            let pause = if fresh { Duration::ZERO } else { RETRY_PAUSE };
            self.reschedule(seq, now + pause);
            if fresh {
                self.ask_next(now, seq, suspected, out);
            }
        }
    }

    /// To be called at or after [`Routing::next_wake`].
    pub fn wake(
        &mut self,
        now: Time,
        suspected: impl Fn(NodeId) -> bool + Copy,
        out: &mut Vec<Step>,
    ) {
        while let Some((at, seq)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            let Some(pending) = self.pending.get(&seq) else {
                self.timers.remove(&(at, seq));
                continue;
            };
            if let Some(last) = pending.attempts.last().filter(|last| last.end == End::Open) {
                out.push(Step::TimedOut { node: last.to, sent: last.sent });
            }
            if pending.ends <= now {
                let verdict = pending.verdict();
                self.finish(seq, verdict, out);
            } else {
                self.ask_next(now, seq, suspected, out);
            }
        }
    }

    /// This node itself stood still for `span` (stopped, or starved): the silence says nothing of
    /// the others, so the operations in flight get that time back, and the attempts under way count
    /// as just sent: their answers may lie here unread.
    pub fn stood_still(&mut self, now: Time, span: Duration) {
        for (seq, pending) in &mut self.pending {
            self.timers.remove(&(pending.next, *seq));
            pending.ends = pending.ends + span;
            pending.next = (now + self.config.request_timeout).min(pending.ends);
            if let Some(last) = pending.attempts.last_mut() {
                last.sent = now;
            }
            self.timers.insert((pending.next, *seq));
        }
    }

    /// When to call [`Routing::wake`]; none while nothing is in flight.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The key and command of an operation in flight.
    #[must_use]
    pub fn pending(&self, op: OpId) -> Option<(&Key, &Command)> {
        let pending = self.pending.get(&op.seq).filter(|_| op == self.op(op.seq))?;
        Some((&pending.key, &pending.command))
    }

    /// Attempts made so far for an operation in flight.
    #[must_use]
    pub fn attempts(&self, op: OpId) -> usize {
        self.pending.get(&op.seq).map_or(0, |pending| pending.attempts.len())
    }

    fn op(&self, seq: u64) -> OpId {
        OpId { router: self.me, incarnation: self.incarnation, seq }
    }

    /// The next attempt goes to the replica tried least, among these to a trusted one, in ring order.
    /// Even a suspected one is tried before another is tried twice: suspicions may be wrong.
    fn ask_next(
        &mut self,
        now: Time,
        seq: u64,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) {
        let op = self.op(seq);
        let Some(pending) = self.pending.get_mut(&seq) else { return };
        let tried = |node: NodeId| pending.attempts.iter().filter(|try_| try_.to == node).count();
        let Some(to) = pending
            .replicas
            .iter()
            .copied()
            .min_by_key(|node| 2 * tried(*node) + usize::from(suspected(*node)))
        else {
            return;
        };
        let done_below = self.by_key.get(&pending.key).and_then(|seqs| seqs.first()).copied();
        let patience = u32::try_from(pending.ends.since(now).as_millis()).unwrap_or(u32::MAX);
        pending.attempts.push(Attempt { to, sent: now, end: End::Open });
        let request = Request {
            op,
            attempt: u32::try_from(pending.attempts.len()).unwrap_or(u32::MAX),
            done_below: done_below.unwrap_or(seq),
            record: pending.repair || pending.attempts.len() > 1 && !pending.command.is_read(),
            key: pending.key.clone(),
            command: pending.command.clone(),
            patience,
        };
        out.push(Step::Ask { to, request });
        self.reschedule(seq, now + self.config.request_timeout);
    }

    fn reschedule(&mut self, seq: u64, at: Time) {
        let Some(pending) = self.pending.get_mut(&seq) else { return };
        self.timers.remove(&(pending.next, seq));
        pending.next = at.min(pending.ends);
        self.timers.insert((pending.next, seq));
    }

    fn finish(&mut self, seq: u64, verdict: Verdict, out: &mut Vec<Step>) {
        let Some(pending) = self.pending.remove(&seq) else { return };
        self.timers.remove(&(pending.next, seq));
        if let Some(seqs) = self.by_key.get_mut(&pending.key) {
            seqs.remove(&seq);
            if seqs.is_empty() {
                self.by_key.remove(&pending.key);
            }
        }
        out.push(Step::Finish { op: self.op(seq), verdict });
    }
}

impl Pending {
    /// The reply of an attempt that left no trace, once no other attempt can apply the operation.
    fn settled_without_trace(&self) -> Option<Reply> {
        let over = |end: &End| matches!(end, End::NotProposed(_) | End::Unrecorded(_));
        if !self.attempts.iter().all(|attempt| over(&attempt.end)) {
            return None;
        }
        self.attempts.iter().find_map(|attempt| match &attempt.end {
            End::Unrecorded(reply) => Some(reply.clone()),
            End::Open | End::Unknown | End::NotProposed(_) => None,
        })
    }

    /// What can honestly be said at the end.
    fn verdict(&self) -> Verdict {
        let mut reason = Reason::NoQuorum;
        for attempt in &self.attempts {
            match &attempt.end {
                End::NotProposed(why) => reason = *why,
                End::Unrecorded(_) => {}
                End::Open | End::Unknown if self.command.is_read() => {}
                End::Open | End::Unknown => return Verdict::Unknown,
            }
        }
        Verdict::NotApplied(reason)
    }
}
