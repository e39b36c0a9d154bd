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
//! A first attempt that takes unusually long at a node from which nothing else comes either is
//! *hedged* ([`crate::hedge`]): the next replica is asked as well, before the time-out.
//!
//! With quorums a read asks no coordinator at first: the router asks the replicas itself (`reading`).
//!
//! Source: register.md, "Exactly once, or an honest unknown", "Availability".

mod pending;
mod reading;
mod step;

pub use reading::{ASKER, answers_router};
pub use step::{Asked, Step, Verdict};

use crate::{
    chain::config::Config as Chain,
    command::Command,
    hedge::Hedge,
    message::{Answer, Outcome, Reason, Request},
    recent::OpId,
    record::Key,
    ring::{NodeId, RangeId, Ring},
    time::{Now, Time},
};
use pending::{Attempt, End, Pending};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The shortest pause between attempts once every replica has been tried: coordinators that turn
/// requests away at once must not be asked in a loop.
pub const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How much earlier than its router a coordinator gives up at least.
pub const LAST_WORD: Duration = Duration::from_millis(25);

/// The most that a standstill of the node adds to an operation's deadline. Far below the grace
/// period of tombstones, within which a retry is still recognised.
pub const STANDSTILL_MAX: Duration = Duration::from_secs(30);

/// The part of the deadline for which a coordinator that answers other requests may take its time.
const SLOW: u32 = 4;

/// What a router goes by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Silence after which the next coordinator is asked.
    pub request_timeout: Duration,
    /// When the client gets an error at the latest.
    pub deadline: Duration,
    /// The shortest silence after which the next coordinator, or for a read the next replica, is asked
    /// as well; with `request_timeout` or more that never happens.
    pub hedge: Duration,
    /// After this time by the wall clock no coordinator applies a request: half of the grace period
    /// of tombstones.
    pub lifetime: Duration,
    /// Replicas that must agree for a router to answer a read itself: a write quorum. None: it asks
    /// coordinators only.
    pub reads: Option<usize>,
    /// Keys are kept by chains: writes go to the head, reads to the tail, and whoever is the tail
    /// answers.
    pub chains: bool,
}

/// An answer that a node owes.
#[derive(Clone, Copy, Debug)]
struct Debt {
    since: Time,
    /// For this operation.
    seq: u64,
    by: Asked,
}

/// The router of one node.
#[derive(Clone, Debug)]
pub struct Routing {
    me: NodeId,
    incarnation: u64,
    ring: Ring,
    config: Config,
    seq: u64,
    /// From one operation's number to the next.
    step: u64,
    pending: BTreeMap<u64, Pending>,
    by_key: BTreeMap<Key, BTreeSet<u64>>,
    timers: BTreeSet<(Time, u64)>,
    /// When each node last answered anything that was asked of it.
    heard: BTreeMap<NodeId, Time>,
    /// The chains as far as they are known: a hint, members know better.
    chains: BTreeMap<RangeId, Chain>,
    /// The first answer that each node owes since then: a hedged operation is over long before the
    /// silent node would have timed out.
    owed: BTreeMap<NodeId, Debt>,
    hedge: Hedge,
    /// The same for reads that need no coordinator: they take less time.
    read_hedge: Hedge,
    hedges: u64,
}

impl Routing {
    /// A router of one life: `incarnation` was never used before by this node.
    #[must_use]
    pub fn new(me: NodeId, incarnation: u64, ring: Ring, config: Config) -> Routing {
        // A member of a chain that is asked beside the right one can only wait for it.
        let floor = if config.chains { config.request_timeout } else { config.hedge };
        let hedge = Hedge::new(floor, config.request_timeout);
        let read_hedge = hedge.clone();
        Routing {
            me,
            incarnation,
            ring,
            config,
            seq: 0,
            step: 1,
            pending: BTreeMap::new(),
            by_key: BTreeMap::new(),
            timers: BTreeSet::new(),
            heard: BTreeMap::new(),
            chains: BTreeMap::new(),
            owed: BTreeMap::new(),
            hedge,
            read_hedge,
            hedges: 0,
        }
    }

    /// One of several routers of the node: of the operations' numbers it gives out those that leave
    /// `remainder` when divided by `routers`.
    #[must_use]
    pub fn one_of(self, routers: u64, remainder: u64) -> Routing {
        Routing { seq: remainder, step: routers.max(1), ..self }
    }

    /// Somebody says what a range's chain is.
    pub fn announced(&mut self, range: RangeId, chain: &Chain) {
        let newer = self.chains.get(&range).is_none_or(|known| known.epoch < chain.epoch);
        if self.config.chains && newer {
            self.chains.insert(range, chain.clone());
        }
    }

    /// The range's chain as far as this router knows.
    #[must_use]
    pub fn chain(&self, range: RangeId) -> Chain {
        let first = || Chain::first(&self.ring.preference_list(range));
        self.chains.get(&range).cloned().unwrap_or_else(first)
    }

    /// Whom to ask, the best first: in ring order, or, with chains, the head for a write and the
    /// tail for a read, who is not in the chain last.
    fn candidates(&self, pending: &Pending) -> Vec<NodeId> {
        let mut candidates = pending.replicas.clone();
        if self.config.chains {
            let chain = self.chain(self.ring.range_of(&pending.key));
            let place = |node: &NodeId| chain.members.iter().position(|it| it.node == *node);
            let last = candidates.len();
            candidates.sort_by_key(|node| match (place(node), pending.command.is_read()) {
                (Some(place), false) => place,
                (Some(place), true) => last.saturating_sub(place + 1),
                (None, _) => last,
            });
        }
        candidates
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Whether an answer that takes longer than the time-out is an exception.
    #[must_use]
    pub fn is_prompt(&self) -> bool {
        self.hedge.is_prompt()
    }

    /// Operations for which one more node was asked before the time-out.
    #[must_use]
    pub fn hedges(&self) -> u64 {
        self.hedges
    }

    /// Takes a client's operation, names it, and asks replicas for a read or else the first coordinator that is not
    /// suspected.
    pub fn submit(
        &mut self,
        now: Now,
        key: Key,
        command: Command,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) -> OpId {
        self.seq += self.step;
        let seq = self.seq;
        let lifetime = u64::try_from(self.config.lifetime.as_millis()).unwrap_or(u64::MAX);
        let expires = now.wall.saturating_add(lifetime);
        let now = now.mono;
        let ends = now + self.config.deadline;
        let replicas = self.ring.replicas_of(&key);
        self.by_key.entry(key.clone()).or_default().insert(seq);
        let pending = Pending {
            key,
            command,
            replicas,
            attempts: Vec::new(),
            reading: None,
            next: now,
            ends,
            latest: ends + STANDSTILL_MAX,
            expires,
        };
        self.pending.insert(seq, pending);
        self.timers.insert((now, seq));
        if !self.start_reading(now, seq, &suspected, out) {
            self.ask_next(now, seq, suspected, out);
        }
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
        self.heard(now, from);
        let seq = answer.op.seq;
        if answer.op != self.op(seq) {
            return;
        }
        let Some(pending) = self.pending.get_mut(&seq) else { return };
        let at = usize::try_from(answer.attempt).unwrap_or(0).wrapping_sub(1);
        // The head is asked, the tail answers.
        let relayed = self.config.chains && pending.replicas.contains(&from);
        let fits = |attempt: &&mut Attempt| attempt.to == from || relayed;
        let Some(attempt) = pending.attempts.get_mut(at).filter(fits) else { return };
        if at == 0 {
            self.hedge.sample(now.since(attempt.sent));
        }
        if relayed {
            // It has passed the request on.
            let asked = attempt.to;
            self.heard.insert(asked, now);
            self.owed.remove(&asked);
        }
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
        self.dun(now, out);
        while let Some((at, seq)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            let Some(pending) = self.pending.get(&seq) else {
                self.timers.remove(&(at, seq));
                continue;
            };
            if pending.is_reading() && pending.ends > now {
                self.wake_reading(now, seq, suspected, out);
                continue;
            }
            if let Some(at) = self.hedge_at(now, pending) {
                if at > now {
                    self.reschedule(seq, at);
                } else {
                    self.ask_other(now, seq, suspected, out);
                }
                continue;
            }
            if let Some(last) = pending.attempts.last().filter(|last| last.end == End::Open) {
                if pending.ends > now && self.is_at_work(now, pending, last.to) {
                    self.ask_the_same(now, seq, last.to, out);
                    continue;
                }
                let (op, node, sent) = (self.op(seq), last.to, last.sent);
                out.push(Step::TimedOut { op, node, by: Asked::Coordinator, sent });
            }
            if pending.ends <= now {
                let verdict = pending.verdict();
                self.finish(seq, verdict, out);
            } else {
                self.ask_next(now, seq, suspected, out);
            }
        }
    }

    /// `node` answered something. What it asks of us proves nothing: it may not hear us.
    pub fn heard(&mut self, now: Time, node: NodeId) {
        self.heard.insert(node, now);
        self.owed.remove(&node);
    }

    /// Another router of this node was answered by `node` then.
    pub fn heard_elsewhere(&mut self, at: Time, node: NodeId) {
        let heard = self.heard.entry(node).or_default();
        *heard = at.max(*heard);
        if self.owed.get(&node).is_some_and(|debt| debt.since <= at) {
            self.owed.remove(&node);
        }
    }

    /// When `node` last answered anything, the time of standstills added.
    #[must_use]
    pub fn last_heard(&self, node: NodeId) -> Option<Time> {
        self.heard.get(&node).copied()
    }

    /// Whether a coordinator that is silent about this operation is slow rather than gone: it answers
    /// others. Moving a request on takes the ballot from whoever works on it, so under overload that
    /// would make all slower still; but not for ever.
    fn is_at_work(&self, now: Time, pending: &Pending, node: NodeId) -> bool {
        if self.config.chains {
            // Nobody loses anything when a member of the chain is asked once more.
            return false;
        }
        let sent = pending.open_at(node).map(|attempt| attempt.sent).min();
        sent.is_some_and(|sent| self.works(now, node, sent))
    }

    /// Asks a coordinator that answers others once more: this very request, or its answer, may have
    /// been lost with a connection. Once, out of the budget of hedges, and not where answers take as long
    /// as the time-out as a rule: an overload must not be fed.
    fn ask_the_same(&mut self, now: Time, seq: u64, node: NodeId, out: &mut Vec<Step>) {
        let once = self.pending.get(&seq).is_some_and(|it| it.open_at(node).count() == 1);
        if once && node != self.me && self.is_prompt() && self.hedge.spend() {
            self.ask(now, seq, node, out);
        } else {
            self.reschedule(seq, now + self.config.request_timeout);
        }
    }

    /// Whether `node` answers others, and what it was sent then is not yet late beyond all measure.
    fn works(&self, now: Time, node: NodeId, sent: Time) -> bool {
        let span = self.config.request_timeout;
        let answers = self.heard.get(&node).is_some_and(|heard| now.since(*heard) < span);
        (node == self.me || answers) && now.since(sent) < self.config.deadline / SLOW
    }

    /// When to look whether the operation's only attempt is to be hedged, or `now` for at once; none
    /// where it is too late for that or there is nothing to hedge.
    fn hedge_at(&self, now: Time, pending: &Pending) -> Option<Time> {
        let [only] = pending.attempts.as_slice() else { return None };
        let after = self.hedge.after()?;
        let timeout = only.sent + self.config.request_timeout;
        if only.end != End::Open || only.to == self.me || now >= timeout.min(pending.ends) {
            return None;
        }
        let heard = self.heard.get(&only.to).copied().unwrap_or_default();
        Some((heard.max(only.sent) + after).max(now).min(timeout))
    }

    /// Asks a replica that was not yet asked and is not suspected, if the budget allows it.
    fn ask_other(
        &mut self,
        now: Time,
        seq: u64,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) {
        let Some(pending) = self.pending.get(&seq) else { return };
        let asked = |node: NodeId| pending.attempts.iter().any(|attempt| attempt.to == node);
        let free = pending.replicas.iter().any(|node| !suspected(*node) && !asked(*node));
        let sent = pending.attempts.first().map_or(now, |first| first.sent);
        if free && self.hedge.spend() {
            self.hedges += 1;
            self.ask_next(now, seq, suspected, out);
        } else {
            self.reschedule(seq, sent + self.config.request_timeout);
        }
    }

    /// Names the nodes that owe an answer for longer than the time-out; each debt once.
    fn dun(&mut self, now: Time, out: &mut Vec<Step>) {
        let timeout = self.config.request_timeout;
        let (router, incarnation) = (self.me, self.incarnation);
        self.owed.retain(|node, Debt { since, seq, by }| {
            let due = now.since(*since) >= timeout;
            if due {
                let op = OpId { router, incarnation, seq: *seq };
                out.push(Step::TimedOut { op, node: *node, by: *by, sent: *since });
            }
            !due
        });
    }

    /// `node` was started anew: whatever was asked of its former life is lost and asked again.
    pub fn restarted(&mut self, now: Time, node: NodeId) {
        let lost = |last: &&Attempt| last.to == node && last.end == End::Open;
        let seqs: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.attempts.last().as_ref().is_some_and(lost))
            .map(|(seq, _)| *seq)
            .collect();
        self.heard.remove(&node);
        self.owed.remove(&node);
        for seq in seqs {
            self.reschedule(seq, now);
        }
        self.unask(now, node);
    }

    /// This node itself stood still for `span` (stopped, or starved): that silence says nothing of
    /// the others, whose answers may lie here unread. So it does not count, neither against them
    /// nor against the operations in flight; of a long one only so much as keeps `ends` in bounds.
    pub fn stood_still(&mut self, span: Duration) {
        let owed = self.owed.values_mut().map(|debt| &mut debt.since);
        for time in self.heard.values_mut().chain(owed) {
            *time = *time + span;
        }
        for (seq, pending) in &mut self.pending {
            self.timers.remove(&(pending.next, *seq));
            pending.ends = (pending.ends + span).min(pending.latest);
            pending.next = (pending.next + span).min(pending.ends);
            if let Some(last) = pending.attempts.last_mut() {
                last.sent = last.sent + span;
            }
            if let Some(reading) = &mut pending.reading {
                reading.stood_still(span);
            }
            self.timers.insert((pending.next, *seq));
        }
    }

    /// When to call [`Routing::wake`]; none while nothing is in flight and nobody owes an answer.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        let owed = self.owed.values().map(|debt| debt.since).min();
        let dunned = owed.map(|since| since + self.config.request_timeout);
        self.timers.first().map(|(at, _)| *at).into_iter().chain(dunned).min()
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

    /// The next attempt goes to a trusted replica, among these to the one tried least, in ring
    /// order. A suspected one is asked only while all are: it may be paused and apply a write long
    /// after, so once it was asked nobody can say any more that the write was not applied. A wrong
    /// suspicion ends with the next probe.
    fn ask_next(
        &mut self,
        now: Time,
        seq: u64,
        suspected: impl Fn(NodeId) -> bool,
        out: &mut Vec<Step>,
    ) {
        let Some(pending) = self.pending.get(&seq) else { return };
        // Who owes an answer to the question before the first attempt is as good as tried.
        let owes = |node| pending.reading.as_ref().is_some_and(|reading| reading.waits_for(node));
        let tried = |node: NodeId| {
            let attempts = pending.attempts.iter().filter(|try_| try_.to == node).count();
            attempts + usize::from(owes(node))
        };
        let candidates = self.candidates(pending).into_iter();
        if let Some(to) = candidates.min_by_key(|node| (suspected(*node), tried(*node))) {
            self.ask(now, seq, to, out);
        }
    }

    /// The next attempt goes to this node.
    fn ask(&mut self, now: Time, seq: u64, to: NodeId, out: &mut Vec<Step>) {
        let op = self.op(seq);
        let Some(pending) = self.pending.get_mut(&seq) else { return };
        let done_below = self.by_key.get(&pending.key).and_then(|seqs| seqs.first()).copied();
        // The coordinator gives up a little earlier, so that its word is here before the end.
        let left = pending.ends.since(now);
        let left = left.saturating_sub((left / 10).max(LAST_WORD));
        let patience = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        // Each time round all replicas the pause doubles: retries must not feed an overload.
        let rounds = pending.attempts.len() / pending.replicas.len().max(1);
        let pause = self.config.request_timeout * (1 << rounds.min(4));
        let first = pending.attempts.is_empty();
        pending.attempts.push(Attempt { to, sent: now, end: End::Open });
        let request = Request {
            op,
            attempt: u32::try_from(pending.attempts.len()).unwrap_or(u32::MAX),
            done_below: done_below.unwrap_or(seq),
            record: pending.attempts.len() > 1 && !pending.command.is_read(),
            key: pending.key.clone(),
            command: pending.command.clone(),
            patience,
            expires: pending.expires,
        };
        out.push(Step::Ask { to, request });
        if to != self.me {
            self.owed.entry(to).or_insert(Debt { since: now, seq, by: Asked::Coordinator });
        }
        self.hedge.earn();
        let hedged = self.hedge.after().filter(|_| first && to != self.me);
        self.reschedule(seq, now + hedged.unwrap_or(pause));
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
