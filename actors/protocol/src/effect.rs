//! What a state machine wants done, in the order in which it must happen.

use crate::{
    ballot::{Ballot, Stamp},
    chain::config::Seat,
    message::Message,
    recent::OpId,
    record::{Key, Record},
    ring::{NodeId, RangeId},
};
use std::time::Duration;

/// A durable change at a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Store this record as the key's.
    Put(Key, Record),
    /// Forget the key: its tombstone was collected.
    Remove(Key),
    /// No round above it has been promised or used.
    Ceiling(u64),
    /// The largest round of a collected tombstone.
    AbsentFloor(u64),
    /// Chain: what this replica accepted of the register that holds the range's configuration.
    Config(RangeId, Record),
    /// Chain: the newest configuration learned, and the own place in it.
    Seat(RangeId, Seat),
}

/// One effect. A list of them is carried out in order: a [`Effect::Send`] that follows a
/// [`Effect::Persist`] leaves only when that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable first.
    Persist(Write),
    /// Send this; to the node itself it is a local delivery.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Ask the own replica for a fresh ballot above this round, and its own promise of it.
    Begin {
        /// Of this key.
        key: Key,
        /// Larger than any round seen.
        above: u64,
    },
    /// Chain: the epoch stood after this question about the range's rows had come; it may be answered
    /// with what lies in the store.
    List {
        /// Who asked.
        to: NodeId,
        /// The question, [`Message::AskList`] or [`Message::AskDigests`].
        question: Message,
    },
    /// A fact for whoever looks on; nothing is to be done, and leaving it out changes nothing.
    Note(Note),
}

/// What a coordinator has decided. What follows it in the list is its consequence, up to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A round begins.
    Round {
        /// Of this kind.
        kind: RoundKind,
        /// Its stamp: of a prepare the ballot alone, of a query the state that is believed.
        stamp: Stamp,
        /// The first operation that it serves, with its attempt; none where nobody waits any more.
        lead: Option<(OpId, u32)>,
    },
    /// The round also serves this operation.
    Serves {
        /// Which.
        op: OpId,
        /// Which attempt at it.
        attempt: u32,
    },
    /// The round has its quorum.
    Quorum {
        /// Of this kind.
        kind: RoundKind,
        /// What was promised, chosen or found.
        stamp: Stamp,
    },
    /// A read found no agreement: the state is written back before it is shown.
    WriteBack,
    /// The round is given up and its ballot with it.
    GivenUp {
        /// Of this kind.
        kind: RoundKind,
        /// Its ballot, where it had one.
        ballot: Ballot,
    },
    /// A pause, so that one of two rivals wins.
    BackOff {
        /// This long.
        span: Duration,
    },
}

/// The kinds of rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundKind {
    /// The own replica is asked for a fresh ballot.
    Begin,
    /// Phase one.
    Prepare,
    /// Phase two.
    Accept,
    /// A read.
    Query,
}

impl RoundKind {
    /// Its name, as the message that it sends.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RoundKind::Begin => "Begin",
            RoundKind::Prepare => "Prepare",
            RoundKind::Accept => "Accept",
            RoundKind::Query => "Query",
        }
    }
}

/// Collects effects; the machines append to it.
pub type Effects = Vec<Effect>;
