//! Histories: what clients did, when, and what they were told.
//!
//! A history is all that a checker may know of a run. Each [`Operation`] is an interval on one
//! clock, from the call to the answer; two operations are ordered only where one had ended before
//! the other was called (Herlihy & Wing, TOPLAS '90, §2). The types are plain data: one operation a
//! line of JSON is the exchange format, with keys and values as escaped ASCII text:
//!
//! ```json
//! {"client":3,"key":"x","command":{"IncrBy":1},"call":120,"returned":412,"outcome":{"Reply":{"Int":7}}}
//! ```
//!
//! Caveat: all times must come from one clock. Times that are equal count as overlapping, so a
//! coarse clock makes a checker more lenient, never unjust.

use crate::{
    command::{Command, Reply},
    record::Key,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked; a client has one operation in flight at a time, save those it gave up.
    pub client: u32,
    /// On which key.
    pub key: Key,
    /// What was asked.
    pub command: Command,
    /// When, microseconds since the history's start. It cannot have taken effect earlier.
    pub call: u64,
    /// When the answer came, microseconds. None: never, it may take effect at any later time. With
    /// an unknown outcome it is when the client gave up, and says nothing about the effect.
    pub returned: Option<u64>,
    /// What the client was told.
    pub outcome: Outcome,
}

/// What a client was told: exactly one of three.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It took place between call and return, with this reply.
    Reply(Reply),
    /// It certainly had no effect, and never will.
    NotApplied,
    /// It may have taken effect, or may yet, or never.
    Unknown,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.command, self.outcome)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Reply(Reply::Ok) => f.write_str("OK"),
            Outcome::Reply(Reply::Nil) => f.write_str("nil"),
            Outcome::Reply(Reply::Int(number)) => write!(f, "{number}"),
            Outcome::Reply(Reply::Bulk(value)) => write!(f, "\"{value}\""),
            Outcome::Reply(Reply::Status(text) | Reply::Error(text)) => f.write_str(text),
            Outcome::NotApplied => f.write_str("not applied"),
            Outcome::Unknown => f.write_str("unknown"),
        }
    }
}

/// Operations of many clients on many keys, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The operations.
    pub operations: Vec<Operation>,
}

impl History {
    /// How many operations had each outcome: replies, not applied, unknown.
    #[must_use]
    pub fn outcomes(&self) -> (usize, usize, usize) {
        let count = |wanted: fn(&Outcome) -> bool| {
            self.operations.iter().filter(|operation| wanted(&operation.outcome)).count()
        };
        (
            count(|outcome| matches!(outcome, Outcome::Reply(_))),
            count(|outcome| matches!(outcome, Outcome::NotApplied)),
            count(|outcome| matches!(outcome, Outcome::Unknown)),
        )
    }
}

impl FromIterator<Operation> for History {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        History { operations: operations.into_iter().collect() }
    }
}

impl Extend<Operation> for History {
    fn extend<I: IntoIterator<Item = Operation>>(&mut self, operations: I) {
        self.operations.extend(operations);
    }
}
