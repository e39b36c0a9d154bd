//! Writes: decided at the head, passed on in order, answered by the tail.
//!
//! The head applies a command to the state it holds; the result, with the answer, is stored and
//! passed on by each member once it is durable there. The tail lets the answer out. A condition that
//! fails goes the same way: its answer too must rest on what the tail holds, and a head that was
//! shut out without its knowledge gets nothing past its successor.
//!
//! Records are whole states, so only the larger stamp counts, whatever the order of frames, and what
//! is lost is sent again until the tail has it.

use super::{
    Core, Range, Step,
    wire::{Acked, Forward},
};
use crate::{
    ballot::{Ballot, Stamp},
    command::Context,
    message::{Answer, Outcome, Reason, Request},
    record::{Key, Record, stamp_of},
    register::proposer::Fold,
    ring::NodeId,
    time::Time,
};
use std::{collections::VecDeque, time::Duration};

/// Requests that wait at one range for a chain that works; further ones are turned away.
const PARKED_MAX: usize = 4_096;

/// Keys with writes under way below one member; the head takes no more.
const UNACKED_MAX: usize = 16_384;

/// Answers kept beside one key that is under way: they are told at once by a member that becomes the
/// tail. Of further ones the router learns by asking again.
const ANSWERS_MAX: usize = 16;

/// How long acknowledgements gather: they only let the predecessors forget.
const ACK_EVERY: Duration = Duration::from_millis(10);

/// Acknowledgements in one message.
const ACKS_MAX: usize = 256;

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Parked {
    pub(super) from: NodeId,
    pub(super) request: Request,
    pub(super) deadline: Time,
}

/// What was passed on and not yet acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Unacked {
    stamp: Option<Stamp>,
    answers: Vec<Answer>,
    sent: Time,
}

impl Parked {
    /// The same request, for somebody else.
    pub(super) fn passed_on(&self, now: Time) -> Request {
        let left = self.deadline.since(now).as_millis();
        let patience = u32::try_from(left).unwrap_or(u32::MAX);
        Request { patience, ..self.request.clone() }
    }

    pub(super) fn refuse(&self, reason: Reason, step: &mut Step<'_>) {
        let Request { op, attempt, .. } = self.request;
        let outcome = Outcome::NotProposed(reason);
        step.send(op.router, Answer { op, attempt, outcome });
    }
}

impl Range {
    /// Takes a client's operation.
    pub(super) fn request(
        &mut self,
        core: &mut Core,
        from: NodeId,
        request: Request,
        step: &mut Step<'_>,
    ) {
        let deadline = step.now.mono + Duration::from_millis(u64::from(request.patience));
        let parked = Parked { from, request, deadline };
        if parked.request.expires < step.now.wall {
            return parked.refuse(Reason::Stale, step);
        }
        if !core.votes() {
            return parked.refuse(Reason::Learning, step);
        }
        if let Some(parked) = self.serve(core, parked, step) {
            self.park(core, parked, step);
        }
    }

    /// Whether this member may answer for the chain, as head or tail.
    pub(super) fn serves(&self, core: &Core) -> bool {
        core.votes() && self.seat.is_level(core.me)
    }

    /// Whether the chain has no other member.
    pub(super) fn is_alone(&self) -> bool {
        self.seat.config.members.len() == 1
    }

    /// Decides or reads where that is this node's part now; gives the request back where it is not.
    fn serve(&mut self, core: &mut Core, parked: Parked, step: &mut Step<'_>) -> Option<Parked> {
        let (config, me) = (&self.seat.config, Some(core.me));
        let (head, tail) = (config.head() == me, config.tail() == me);
        let read = parked.request.command.is_read();
        // The tail has a read written that finds an expired value.
        let expired = read && !tail && Some(parked.from) == config.tail();
        if !self.serves(core) {
            return Some(parked);
        }
        if read && tail {
            self.reads.push(parked);
        } else if head && (!read || expired) && self.may_decide() {
            self.decide(core, parked, step);
        } else {
            return Some(parked);
        }
        None
    }

    /// A head that has reason to fear that the chain is broken proposes nothing new: what it did
    /// propose could not be called "not applied" any more.
    fn may_decide(&self) -> bool {
        let deaf = self.is_alone() && self.reads.is_failing(self.replicas.len());
        !(self.survey.is_open() || self.broken || deaf)
    }

    pub(super) fn park(&mut self, core: &mut Core, parked: Parked, step: &mut Step<'_>) {
        if self.parked.len() >= PARKED_MAX {
            return parked.refuse(Reason::Overloaded, step);
        }
        if self.right_place(&parked) != Some(core.me) && self.seat.config.epoch > 0 {
            // Its router asks the right one next time.
            self.tell(parked.request.op.router, step);
        }
        self.parked.push_back(parked);
        self.start_survey(core, step);
    }

    fn right_place(&self, parked: &Parked) -> Option<NodeId> {
        let config = &self.seat.config;
        let read = parked.request.command.is_read();
        if read && Some(parked.from) != config.tail() { config.tail() } else { config.head() }
    }

    /// The chain was seen to work: what waits is served here, or goes to where it is served. A
    /// request is in one place only, so that place's word on it is the last.
    pub(super) fn release(&mut self, core: &mut Core, step: &mut Step<'_>) {
        for parked in std::mem::take(&mut self.parked) {
            let right = self.right_place(&parked).filter(|node| *node != core.me);
            match (self.serve(core, parked, step), right) {
                (Some(parked), Some(to)) => step.send(to, parked.passed_on(step.now.mono)),
                (Some(parked), None) => self.parked.push_back(parked),
                (None, _) => {}
            }
        }
    }

    /// The head applies the command and sends what came of it on its way.
    pub(super) fn decide(&mut self, core: &mut Core, parked: Parked, step: &mut Step<'_>) {
        let request = &parked.request;
        let key = request.key.clone();
        if self.unacked.len() >= UNACKED_MAX && !self.unacked.contains_key(&key) {
            return parked.refuse(Reason::Overloaded, step);
        }
        let stored = step.row(&key);
        let value_bytes_max = core.settings.value_bytes_max;
        let context = Context { wall: step.now.wall, value_bytes_max };
        let mut fold = Fold::new(stored.as_ref(), context);
        let outcome = fold.serve(request, false);
        let answer = Answer { op: request.op, attempt: request.attempt, outcome };
        if matches!(answer.outcome, Outcome::NotProposed(_)) {
            return step.send(request.op.router, answer);
        }
        let record = if fold.changed() {
            let ballot = Ballot { round: self.seat.config.epoch, node: core.me };
            let mut record = fold.into_record(ballot, stored.as_ref());
            if stored.is_none() {
                record.stamp.version += core.absent_floor;
            }
            step.put(&key, record.clone());
            Some(record)
        } else {
            stored
        };
        self.pass_on(core, key, record, vec![answer], step);
    }

    /// Passes a state that is stored here on to the successor; the tail tells the answers.
    pub(super) fn pass_on(
        &mut self,
        core: &mut Core,
        key: Key,
        record: Option<Record>,
        answers: Vec<Answer>,
        step: &mut Step<'_>,
    ) {
        let now = step.now.mono;
        let Some(to) = self.seat.config.after(core.me) else {
            self.tell_answers(core, answers, step);
            return self.acknowledge(core, key, stamp_of(record.as_ref()), step);
        };
        let stamp = stamp_of(record.as_ref());
        let fresh = Unacked { stamp, answers: Vec::new(), sent: now };
        let unacked = self.unacked.entry(key.clone()).or_insert(fresh);
        unacked.stamp = unacked.stamp.max(stamp);
        unacked.sent = now;
        let room = ANSWERS_MAX.saturating_sub(unacked.answers.len());
        unacked.answers.extend(answers.iter().take(room).cloned());
        self.unacked_check.get_or_insert(now + core.settings.request_timeout);
        let config = self.seat.config.clone();
        step.send(to, Forward { range: self.id, config, key, record, answers });
    }

    /// What this member holds as the tail is committed. Alone, it is its own predecessor and asks
    /// for a confirmation first: with two of three nodes gone the chain stops.
    fn tell_answers(&mut self, core: &Core, answers: Vec<Answer>, step: &mut Step<'_>) {
        for answer in answers {
            if self.is_alone() {
                self.reads.push_answer(core, answer, step.now.mono);
            } else {
                step.send(answer.op.router, answer);
            }
        }
    }

    fn acknowledge(&mut self, core: &Core, key: Key, stamp: Option<Stamp>, step: &mut Step<'_>) {
        if self.seat.config.before(core.me).is_none() {
            return;
        }
        self.acks.push((key, stamp));
        self.acks_due.get_or_insert(step.now.mono + ACK_EVERY);
        if self.acks.len() >= ACKS_MAX {
            self.send_acks(core, step);
        }
    }

    fn send_acks(&mut self, core: &Core, step: &mut Step<'_>) {
        self.acks_due = None;
        let entries = std::mem::take(&mut self.acks);
        let (id, epoch) = (self.id, self.seat.config.epoch);
        if let Some(to) = self.seat.config.before(core.me) {
            step.send(to, Acked { range: id, epoch, entries });
        }
    }

    /// From the predecessor.
    pub(super) fn forward(
        &mut self,
        core: &mut Core,
        from: NodeId,
        forward: Forward,
        step: &mut Step<'_>,
    ) {
        if !self.meets(core, from, &forward.config, step)
            || self.seat.config.before(core.me) != Some(from)
        {
            return;
        }
        let Forward { key, record, answers, .. } = forward;
        if let Some(record) = &record {
            self.store_newer(&key, record, step);
        }
        self.pass_on(core, key, record, answers, step);
    }

    pub(super) fn store_newer(&self, key: &Key, record: &Record, step: &mut Step<'_>) -> bool {
        let newer = stamp_of(step.row(key).as_ref()) < Some(record.stamp);
        if newer {
            step.put(key, record.clone());
        }
        newer
    }

    /// From the successor: these are committed.
    pub(super) fn acked(
        &mut self,
        core: &mut Core,
        from: NodeId,
        acked: Acked,
        step: &mut Step<'_>,
    ) {
        let config = &self.seat.config;
        if acked.epoch != config.epoch || config.after(core.me) != Some(from) {
            return;
        }
        for (key, stamp) in acked.entries {
            if self.unacked.get(&key).is_some_and(|unacked| unacked.stamp <= stamp) {
                self.unacked.remove(&key);
            }
            self.acknowledge(core, key, stamp, step);
        }
        if self.unacked.is_empty() {
            self.unacked_check = None;
        }
    }

    /// In a new chain: what was not seen acknowledged is sent to the new successor, or, by a new
    /// tail, is committed.
    pub(super) fn settle_unacked(&mut self, core: &mut Core, step: &mut Step<'_>) {
        self.acks.clear();
        self.acks_due = None;
        if self.seat.config.since(core.me).is_none() {
            self.unacked.clear();
        } else if self.seat.config.after(core.me).is_none() {
            for (key, unacked) in std::mem::take(&mut self.unacked) {
                self.tell_answers(core, unacked.answers, step);
                self.acknowledge(core, key, unacked.stamp, step);
            }
        } else {
            self.resend(core, step.now.mono, step);
        }
        if self.unacked.is_empty() {
            self.unacked_check = None;
        }
    }

    /// Sends again what went out up to `until`.
    pub(super) fn resend(&mut self, core: &Core, until: Time, step: &mut Step<'_>) {
        let Some(to) = self.seat.config.after(core.me) else { return };
        for (key, unacked) in self.unacked.iter_mut().filter(|(_, it)| it.sent <= until) {
            unacked.sent = step.now.mono;
            let record = step.row(key);
            let (config, answers) = (self.seat.config.clone(), unacked.answers.clone());
            step.send(to, Forward { range: self.id, config, key: key.clone(), record, answers });
        }
        self.look_at_unacked(core);
    }

    fn look_at_unacked(&mut self, core: &Core) {
        let oldest = self.unacked.values().map(|unacked| unacked.sent).min();
        self.unacked_check = oldest.map(|sent| sent + core.settings.request_timeout);
    }

    pub(super) fn wake_writes(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let now = step.now.mono;
        let (over, rest): (VecDeque<_>, _) =
            std::mem::take(&mut self.parked).into_iter().partition(|it| it.deadline <= now);
        self.parked = rest;
        over.into_iter().for_each(|parked| parked.refuse(Reason::NoQuorum, step));
        if self.acks_due.is_some_and(|due| due <= now) {
            self.send_acks(core, step);
        }
        if self.unacked_check.is_some_and(|at| at <= now) {
            self.look_at_unacked(core);
            if self.unacked_check.is_some_and(|at| at <= now) {
                // Somebody below is gone, or frames were lost.
                self.unacked_check = Some(now + core.settings.request_timeout);
                self.start_survey(core, step);
            }
        }
    }
}
