//! What a coordinator's flow records say beyond its messages: decisions, and how long requests wait.

use crate::flow::{Actor, Cause, Draft, Event, Name, Origin};
use simpledynamo_protocol::{
    effect::Note,
    message::{Message, Request},
    recent::OpId,
    record::Key,
    ring::NodeId,
};
use smallvec::SmallVec;

/// The requests here, while flow records are taken down.
#[derive(Default)]
pub(super) struct Story {
    /// Nearly always one or none: then it lies in the coordinator itself.
    asked: SmallVec<[(OpId, u32, Cause); 1]>,
    /// How many of them are to be written down whatever becomes of them.
    kept: usize,
    /// The round begun last.
    pub(super) round: Name,
}

impl Story {
    /// A message came in; a request is remembered until it is answered.
    pub(super) fn asked(&mut self, message: &Message, cause: Cause) {
        if let Message::Request(Request { op, attempt, .. }) = message {
            self.kept += usize::from(cause.keep);
            self.asked.push((*op, *attempt, cause));
        }
    }

    /// Whether what follows from `cause` is to be written down: a round serves many requests, so it
    /// is where any of them is.
    pub(super) fn keeps(&self, cause: Cause) -> bool {
        cause.keep || self.kept > 0
    }

    /// Where a message comes from; an answer is caused by what settled it and has taken since the
    /// request came in.
    pub(super) fn origin(&mut self, cause: Cause, message: &Message) -> Origin {
        let Message::Answer(answer) = message else { return cause.into() };
        let answered =
            |(op, attempt, _): &(OpId, u32, Cause)| (*op, *attempt) == (answer.op, answer.attempt);
        let found = self.asked.iter().position(answered);
        let Some((_, _, asked)) = found.map(|at| self.asked.swap_remove(at)) else {
            return cause.into();
        };
        self.kept -= usize::from(asked.keep);
        let handling = u32::try_from(cause.at.saturating_sub(asked.at)).unwrap_or(u32::MAX);
        Origin { cause: Cause { keep: asked.keep, ..cause }, queue: 0, handling }
    }
}

/// A decision as a record.
pub(super) fn describe(record: &mut Draft<'_>, note: Note, me: NodeId, key: &Key, cause: Cause) {
    record.from(me, Actor::Coordinator);
    record.key(key);
    record.cause(cause.id);
    record.keep(cause.keep);
    match note {
        Note::Round { kind, stamp, lead } => {
            record.event(Event::Round);
            record.kind(kind.name());
            record.stamp(stamp);
            if let Some((op, attempt)) = lead {
                record.request(op, attempt);
            }
        }
        Note::Serves { op, attempt } => {
            record.event(Event::Join);
            record.request(op, attempt);
        }
        Note::Quorum { kind, stamp } => {
            record.event(Event::Quorum);
            record.kind(kind.name());
            record.stamp(stamp);
        }
        Note::WriteBack => record.event(Event::WriteBack),
        Note::GivenUp { kind, ballot } => {
            record.event(Event::GiveUp);
            record.kind(kind.name());
            record.ballot(ballot);
        }
        Note::BackOff { span } => {
            record.event(Event::BackOff);
            record.queue(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
        }
    }
}
