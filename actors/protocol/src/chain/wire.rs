//! What members of a chain, and those who want to be, say to each other. Every message carries the
//! epoch; those that a node may get before it knows of the epoch carry the whole configuration.

use super::config::Config;
use crate::{
    ballot::Stamp,
    message::{
        Accept, Accepted, Answer, Ask, Message, NoVote, Prepare, Promise, Query, Refused, State,
    },
    record::{Key, Record},
    ring::RangeId,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A message of the register that holds a range's configuration. It is wrapped, so no client's key
/// can be meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConfigRound {
    /// Which range.
    pub range: RangeId,
    /// The register's message.
    pub body: RegisterMessage,
}

/// The register's messages, as they travel wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RegisterMessage {
    /// Phase one.
    Prepare(Prepare),
    /// Its answer.
    Promise(Promise),
    /// Phase two.
    Accept(Accept),
    /// Its answer.
    Accepted(Accepted),
    /// A higher ballot stands.
    Refused(Refused),
    /// What do you hold?
    Query(Query),
    /// This.
    State(State),
    /// No vote from here for now.
    NoVote(NoVote),
    /// From a node that has lost its data: the two others differ, write what is chosen once more.
    Settle,
}

impl RegisterMessage {
    /// Wraps one of the register's; none for a message that is not.
    #[must_use]
    pub fn wrap(message: Message) -> Option<RegisterMessage> {
        Some(match message {
            Message::Prepare(body) => RegisterMessage::Prepare(body),
            Message::Promise(body) => RegisterMessage::Promise(body),
            Message::Accept(body) => RegisterMessage::Accept(body),
            Message::Accepted(body) => RegisterMessage::Accepted(body),
            Message::Refused(body) => RegisterMessage::Refused(body),
            Message::Query(body) => RegisterMessage::Query(body),
            Message::State(body) => RegisterMessage::State(body),
            Message::NoVote(body) => RegisterMessage::NoVote(body),
            _ => return None,
        })
    }
}

/// Predecessor → successor: store this and pass it on; the tail tells these answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Forward {
    /// Which range.
    pub range: RangeId,
    /// The chain, as the sender knows it.
    pub config: Config,
    /// Which key.
    pub key: Key,
    /// The state that the answers rest on; none where nothing was ever written.
    pub record: Option<Record>,
    /// For their routers, once the tail has it durably.
    pub answers: Vec<Answer>,
}

/// Successor → predecessor: the tail has these durably, or later states of the same keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Acked {
    /// Which range.
    pub range: RangeId,
    /// In this epoch.
    pub epoch: u64,
    /// What is committed.
    pub entries: Vec<(Key, Option<Stamp>)>,
}

/// Tail → another replica: does the epoch still stand, as far as you have voted?
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Confirm {
    /// Which range.
    pub range: RangeId,
    /// The chain.
    pub config: Config,
    /// Name of the question.
    pub ask: Ask,
}

/// Replica → tail: when this was sent it had accepted no later configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Confirmed {
    /// Which range.
    pub range: RangeId,
    /// The epoch.
    pub epoch: u64,
    /// Which question.
    pub ask: Ask,
}

/// Who fears that the chain is broken → its members: are you there, and fit?
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Survey {
    /// Which range.
    pub range: RangeId,
    /// The chain.
    pub config: Config,
    /// Name of the question.
    pub ask: Ask,
}

/// Member → who asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Present {
    /// Which range.
    pub range: RangeId,
    /// The epoch.
    pub epoch: u64,
    /// Which question.
    pub ask: Ask,
    /// What the chain may expect of it.
    pub fitness: Fitness,
}

/// What a member is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fitness {
    /// It holds all that is committed: the chain may go on with it alone.
    Level,
    /// It is copying from its predecessor: it may stay behind one that is level.
    Copying,
    /// It has lost what it held: it must leave and join anew.
    Lost,
    /// The same, but a person has decided that the chain may go on from what it has, where nobody has
    /// more.
    LossAccepted,
}

/// Any replica → anyone: this is the chain. Also the answer to every message of an older epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Announce {
    /// Which range.
    pub range: RangeId,
    /// A configuration that was chosen.
    pub config: Config,
}

/// Replica → the member it wants to copy from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attach {
    /// Which range.
    pub range: RangeId,
    /// The chain.
    pub config: Config,
    /// Name of the question.
    pub ask: Ask,
}

/// Member → replica: I am in this epoch and level; what you ask of me from now on shows all that was
/// committed before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attached {
    /// Which range.
    pub range: RangeId,
    /// The epoch.
    pub epoch: u64,
    /// Which question.
    pub ask: Ask,
}

impl fmt::Display for ConfigRound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = match self.body.clone() {
            RegisterMessage::Prepare(body) => Message::from(body),
            RegisterMessage::Promise(body) => body.into(),
            RegisterMessage::Accept(body) => body.into(),
            RegisterMessage::Accepted(body) => body.into(),
            RegisterMessage::Refused(body) => body.into(),
            RegisterMessage::Query(body) => body.into(),
            RegisterMessage::State(body) => body.into(),
            RegisterMessage::NoVote(body) => body.into(),
            RegisterMessage::Settle => return f.write_str("Settle"),
        };
        message.fmt(f)
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{} key={} ", self.config.epoch, self.key)?;
        match &self.record {
            Some(record) => record.fmt(f)?,
            None => f.write_str("nothing")?,
        }
        self.answers.iter().try_for_each(|answer| write!(f, " op={} {}", answer.op, answer.outcome))
    }
}

impl fmt::Display for Acked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.epoch)?;
        self.entries.iter().try_for_each(|(key, stamp)| match stamp {
            Some(stamp) => write!(f, " {key} {stamp}"),
            None => write!(f, " {key} nothing"),
        })
    }
}
