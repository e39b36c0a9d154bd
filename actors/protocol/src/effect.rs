//! What a state machine wants done, in the order in which it must happen.

use crate::{
    chain::config::Seat,
    message::Message,
    record::{Key, Record},
    ring::{NodeId, RangeId},
};

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
}

/// Collects effects; the machines append to it.
pub type Effects = Vec<Effect>;
