//! What a router knows of one operation in flight.

use super::{Verdict, reading::Reading};
use crate::{
    command::{Command, Reply},
    message::Reason,
    record::Key,
    ring::NodeId,
    time::{Time, WallMillis},
};

#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) to: NodeId,
    pub(super) sent: Time,
    pub(super) end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
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
pub(super) struct Pending {
    pub(super) key: Key,
    pub(super) command: Command,
    pub(super) replicas: Vec<NodeId>,
    pub(super) attempts: Vec<Attempt>,
    /// A read that this router makes itself, before any attempt.
    pub(super) reading: Option<Reading>,
    /// When the next attempt is due.
    pub(super) next: Time,
    pub(super) ends: Time,
    /// No standstill moves `ends` past it.
    pub(super) latest: Time,
    pub(super) expires: WallMillis,
}

impl Pending {
    /// The attempts at this node that it has not answered.
    pub(super) fn open_at(&self, node: NodeId) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(move |it| it.to == node && it.end == End::Open)
    }

    /// The reply of an attempt that left no trace, once no other attempt can apply the operation.
    pub(super) fn settled_without_trace(&self) -> Option<Reply> {
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
    pub(super) fn verdict(&self) -> Verdict {
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
