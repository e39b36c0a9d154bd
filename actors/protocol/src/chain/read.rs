//! Reads: answered by the tail, after another replica has confirmed the epoch.
//!
//! A tail that was paused, or cut off, does not know that the chain has gone on without it. A change
//! is chosen once two of the range's three nodes have accepted it. So the tail asks one other node:
//! if that one had accepted no later configuration when it answered, and the tail's own acceptor has
//! accepted none either, then at that moment no later one was chosen, nothing was written or read in
//! one, and what the tail holds is the newest state that anyone can have seen. The question is sent
//! after the read has arrived, so the answer is as fresh as the read needs; one question serves all
//! reads that wait when it is sent.
//!
//! Where no answer comes soon the next node is asked the same, and any answer to either question
//! will do: links may be slower than [`ASK_AGAIN`], and a late answer is as good as an early one.
//!
//! No promise is asked for: a restarted replica counts as having promised every round up to its
//! ceiling, so it could confirm nothing until the configuration was written once more, and a promise
//! without an accept chooses nothing.
//!
//! Listings of the range's rows are asked of all its nodes, and let out by the tail by the same rule.
//!
//! A tail that is the only member lets answers to writes out by the same rule.

use super::{
    Core, Range, Step,
    register::Purpose,
    wire::{Confirm, Confirmed},
    write::Parked,
};
use crate::{
    command::{Context, apply},
    effect::Effect,
    message::{Answer, Ask, Message, Outcome, Reason},
    ring::NodeId,
    time::Time,
};
use std::collections::VecDeque;

/// How long an answer to a write waits for a confirmation, in request time-outs; then its router has
/// given up.
const ANSWER_WAITS: u32 = 20;

/// How long a question about rows waits for a confirmation, in request time-outs; it is asked again.
const LISTING_WAITS: u32 = 5;

/// Questions about rows that wait at one range; who asks more must ask again.
const LISTINGS_MAX: usize = 256;

/// A node that was asked is silent for a request time-out over this: the next is asked as well.
const ASK_AGAIN: u32 = 2;

/// Reads that wait for a confirmation, and their one question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    waiting: VecDeque<Waiting>,
    asked: Option<Asked>,
    /// Which of the others is asked.
    candidate: usize,
    /// Questions since the last answer.
    failed: usize,
    /// No question before.
    not_before: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Waiting {
    Read(Parked),
    Answer { answer: Answer, deadline: Time },
    Listing { from: NodeId, question: Message, deadline: Time },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    ask: Ask,
    /// When the next node is asked the same.
    until: Time,
    covers: VecDeque<Waiting>,
}

impl Waiting {
    fn deadline(&self) -> Time {
        match self {
            Waiting::Read(parked) => parked.deadline,
            Waiting::Answer { deadline, .. } | Waiting::Listing { deadline, .. } => *deadline,
        }
    }
}

impl Reads {
    pub(super) fn push(&mut self, read: Parked) {
        self.waiting.push_back(Waiting::Read(read));
    }

    pub(super) fn push_answer(&mut self, core: &Core, answer: Answer, now: Time) {
        let deadline = now + core.settings.request_timeout * ANSWER_WAITS;
        self.waiting.push_back(Waiting::Answer { answer, deadline });
    }

    /// A listing that is asked for again while it waits is asked for once.
    fn push_listing(&mut self, from: NodeId, question: Message, deadline: Time) {
        let same = |it: &Waiting| {
            matches!(it, Waiting::Listing { from: asker, question: asked, .. }
            if *asker == from && *asked == question)
        };
        let covers = self.asked.iter().flat_map(|asked| &asked.covers);
        let listing = |it: &&Waiting| matches!(it, Waiting::Listing { .. });
        if self.waiting.iter().chain(covers.clone()).any(same)
            || self.waiting.iter().chain(covers).filter(listing).count() >= LISTINGS_MAX
        {
            return;
        }
        self.waiting.push_back(Waiting::Listing { from, question, deadline });
    }

    /// Whether none of the others has answered lately.
    pub(super) fn is_failing(&self, replicas: usize) -> bool {
        self.failed + 1 >= replicas.max(2)
    }

    /// Every read that waits; the answers to writes are given up, listings are asked for again.
    pub(super) fn take(&mut self) -> Vec<Parked> {
        let asked = self.asked.take().into_iter().flat_map(|asked| asked.covers);
        let all = asked.chain(std::mem::take(&mut self.waiting));
        all.filter_map(|waiting| match waiting {
            Waiting::Read(parked) => Some(parked),
            Waiting::Answer { .. } | Waiting::Listing { .. } => None,
        })
        .collect()
    }

    pub(super) fn next_wake(&self) -> Option<Time> {
        let question = match &self.asked {
            Some(asked) => Some(asked.until),
            None if self.waiting.is_empty() => None,
            None => Some(self.not_before),
        };
        let deadline = self.waiting.iter().map(Waiting::deadline).min();
        question.into_iter().chain(deadline).min()
    }
}

impl Range {
    /// Somebody wants to know the range's rows. Only the tail's are all of them and no more.
    pub(super) fn listing(
        &mut self,
        core: &Core,
        from: NodeId,
        question: Message,
        step: &Step<'_>,
    ) {
        if self.serves(core) && self.seat.config.tail() == Some(core.me) {
            let deadline = step.now.mono + core.settings.request_timeout * LISTING_WAITS;
            self.reads.push_listing(from, question, deadline);
        }
    }

    /// Asks for the confirmation of everything that waits, unless a question is under way.
    pub(super) fn flush_reads(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let now = step.now.mono;
        if self.reads.asked.is_some() || self.reads.waiting.is_empty() && !self.is_deaf() {
            return;
        }
        if self.seat.config.tail() != Some(core.me)
            || now < self.reads.not_before
            || !self.serves(core)
        {
            return;
        }
        if self.is_sealed() {
            self.reads.not_before = now + core.settings.request_timeout / 2;
            return self.ask_register(core, Purpose::Settle, step);
        }
        if self.replicas.len() == 1 {
            let all = std::mem::take(&mut self.reads.waiting);
            return all.into_iter().for_each(|waiting| self.answer(core, waiting, step));
        }
        let covers = std::mem::take(&mut self.reads.waiting);
        self.reads.asked = Some(Asked { ask: core.ask(), until: now, covers });
        self.ask_to_confirm(core, step);
    }

    /// Alone and unheard, the head takes no writes: somebody must find out when that is over.
    fn is_deaf(&self) -> bool {
        !self.parked.is_empty() && self.reads.is_failing(self.replicas.len())
    }

    /// Asks the next of the others what was asked already, or asks for the first time.
    fn ask_to_confirm(&mut self, core: &Core, step: &mut Step<'_>) {
        let others: Vec<_> = self.replicas.iter().filter(|node| **node != core.me).collect();
        let Some(to) = others.get(self.reads.candidate % others.len().max(1)) else { return };
        let Some(asked) = &mut self.reads.asked else { return };
        asked.until = step.now.mono + core.settings.request_timeout / ASK_AGAIN;
        let (config, ask) = (self.seat.config.clone(), asked.ask);
        step.send(**to, Confirm { range: self.id, config, ask });
    }

    /// A tail asks whether its epoch stands.
    pub(super) fn confirm(
        &mut self,
        core: &mut Core,
        from: NodeId,
        ask: &Confirm,
        step: &mut Step<'_>,
    ) {
        if !core.votes() || !self.meets(core, from, &ask.config, step) {
            return;
        }
        if self.is_sealed() {
            return self.ask_register(core, Purpose::Settle, step);
        }
        let epoch = self.seat.config.epoch;
        step.send(from, Confirmed { range: self.id, epoch, ask: ask.ask });
    }

    /// It stood.
    pub(super) fn confirmed(
        &mut self,
        core: &mut Core,
        from: NodeId,
        got: &Confirmed,
        step: &mut Step<'_>,
    ) {
        let other = from != core.me && self.replicas.contains(&from);
        let fits = |asked: &mut Asked| other && asked.ask == got.ask;
        let Some(asked) = self.reads.asked.take_if(fits) else { return };
        let deaf = self.reads.is_failing(self.replicas.len());
        self.reads.failed = 0;
        let stands = self.serves(core)
            && got.epoch == self.seat.config.epoch
            && self.seat.config.tail() == Some(core.me)
            && !self.is_sealed();
        if stands {
            asked.covers.into_iter().for_each(|waiting| self.answer(core, waiting, step));
        } else {
            self.wait_again(asked.covers);
        }
        if deaf {
            self.release(core, step);
        }
    }

    fn wait_again(&mut self, mut covers: VecDeque<Waiting>) {
        covers.append(&mut self.reads.waiting);
        self.reads.waiting = covers;
    }

    /// The epoch stands: answers from what is held here.
    fn answer(&mut self, core: &mut Core, waiting: Waiting, step: &mut Step<'_>) {
        let parked = match waiting {
            Waiting::Answer { answer, .. } => return step.send(answer.op.router, answer),
            Waiting::Listing { from: to, question, .. } => {
                return step.out.push(Effect::List { to, question });
            }
            Waiting::Read(parked) => parked,
        };
        let request = &parked.request;
        let value_bytes_max = core.settings.value_bytes_max;
        let context = Context { wall: step.now.wall, value_bytes_max };
        let stored = step.row(&request.key);
        let datum = stored.as_ref().map(|record| &record.datum);
        let applied = apply(&request.command, datum, context);
        if applied.next.is_none() {
            let outcome = Outcome::Done { reply: applied.reply, recorded: false };
            let (op, attempt) = (request.op, request.attempt);
            return step.send(op.router, Answer { op, attempt, outcome });
        }
        // The value has expired: its tombstone is written before anyone is told.
        match self.seat.config.head() {
            Some(head) if head != core.me => step.send(head, parked.passed_on(step.now.mono)),
            _ => self.decide(core, parked, step),
        }
    }

    pub(super) fn wake_reads(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let now = step.now.mono;
        let mut over = VecDeque::new();
        let covers = self.reads.asked.as_mut().map(|asked| &mut asked.covers);
        for waiting in covers.into_iter().chain([&mut self.reads.waiting]) {
            let (late, rest): (VecDeque<_>, _) =
                std::mem::take(waiting).into_iter().partition(|it| it.deadline() <= now);
            *waiting = rest;
            over.extend(late);
        }
        for waiting in over {
            if let Waiting::Read(parked) = waiting {
                parked.refuse(Reason::NoQuorum, step);
            }
        }
        if let Some(asked) = self.reads.asked.take_if(|asked| asked.until <= now) {
            self.reads.candidate += 1;
            self.reads.failed += 1;
            if self.is_sealed() || asked.covers.is_empty() && !self.is_deaf() {
                // No answer to it is of use.
                self.wait_again(asked.covers);
            } else {
                self.reads.asked = Some(asked);
                self.ask_to_confirm(core, step);
            }
        }
        self.flush_reads(core, step);
    }
}
