//! Everything that travels between nodes.
//!
//! One enum, one struct a message, a sentence for each field. A message's tag is a number that never
//! changes its meaning: a changed message is a new tag, and a reader skips tags it does not know
//! (the frame's length tells how far). [`Display`](fmt::Display) is the short form that logs,
//! scripts and pictures share: `5554 → 5558 Prepare key=x ballot=3.5554`.

mod shown;

use crate::{
    ballot::{Ballot, Stamp},
    chain::wire::{
        Acked, Announce, Attach, Attached, ConfigRound, Confirm, Confirmed, Forward, Present,
        Survey,
    },
    command::{Command, Reply},
    recent::OpId,
    record::{Key, Record},
    ring::{NodeId, RangeId},
    time::WallMillis,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The name of one question, never used again: answers to another one are not counted. The
/// incarnation keeps answers to a node's former life apart.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Ask {
    /// The asking node's incarnation.
    pub incarnation: u64,
    /// Counts askers of that life.
    pub asker: u64,
    /// Counts that asker's questions.
    pub n: u64,
}

/// A message and its way. `Display`: `5554 → 5558 Prepare key=x ballot=3.5554`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// Sender.
    pub from: NodeId,
    /// Receiver.
    pub to: NodeId,
    /// Content.
    pub message: Message,
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {} {}", self.from, self.to, self.message)
    }
}

/// A struct that is a message's body: names a type of message where there is no message.
pub trait Kind: Into<Message> {
    /// Its stable number.
    const TAG: u16;
}

macro_rules! messages {
    ($($(#[$doc:meta])* $tag:literal $name:ident),+ $(,)?) => {
        /// Every message between nodes.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Message {
            $($(#[$doc])* $name($name),)+
        }

        impl Message {
            /// Every tag with its name, in order.
            pub const TAGS: &'static [(u16, &'static str)] = &[$(($tag, stringify!($name)),)+];

            /// The stable number of the message's type.
            #[must_use]
            pub fn tag(&self) -> u16 {
                match self {
                    $(Message::$name(_) => $tag,)+
                }
            }

            /// The type's name.
            #[must_use]
            #[inline]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Message::$name(_) => stringify!($name),)+
                }
            }

            /// Writes the body, without the tag.
            ///
            /// # Errors
            /// The serializer's.
            pub fn serialize_body<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Message::$name(body) => body.serialize(serializer),)+
                }
            }

            /// Reads the body of a `tag`; none where the tag is unknown.
            ///
            /// # Errors
            /// The deserializer's.
            pub fn deserialize_body<'de, D: Deserializer<'de>>(
                tag: u16,
                deserializer: D,
            ) -> Result<Option<Message>, D::Error> {
                match tag {
                    $($tag => $name::deserialize(deserializer).map(|body| Some(body.into())),)+
                    _ => Ok(None),
                }
            }
        }

        $(impl Kind for $name {
            const TAG: u16 = $tag;
        }

        impl From<$name> for Message {
            fn from(body: $name) -> Message {
                Message::$name(body)
            }
        })+
    };
}

messages! {
    /// Router → coordinator: do this.
    1 Request,
    /// Coordinator → router: what became of it.
    2 Answer,
    /// Coordinator → replica: phase one.
    3 Prepare,
    /// Replica → coordinator: promised, and what it holds.
    4 Promise,
    /// Coordinator → replica: phase two.
    5 Accept,
    /// Replica → coordinator: durable here.
    6 Accepted,
    /// Replica → coordinator: a higher ballot stands.
    7 Refused,
    /// Coordinator → replica: what do you hold durably?
    8 Query,
    /// Replica → coordinator: this.
    9 State,
    /// Replica → coordinator: no vote from here for now.
    10 NoVote,
    /// Detector → node: are you there?
    11 Probe,
    /// Node → detector: yes.
    12 Alive,
    /// Detector → node that was away: you missed messages, compare digests.
    13 Missed,
    /// Sync → replica: digests of a range.
    14 AskDigests,
    /// Replica → sync.
    15 Digests,
    /// Sync or scan → replica: the keys of an interval, with their stamps.
    16 AskList,
    /// Replica → sync or scan.
    17 Listed,
    /// Sync → replica: these records.
    18 Fetch,
    /// Replica → sync.
    19 Records,
    /// Sync → replica: all three hold this very tombstone, forget it.
    20 Collect,
    /// A node that starts → peer: who was I to you?
    21 Greet,
    /// Peer → the node that starts.
    22 Welcome,
    /// Router → replicas: this request is worth looking at, write down what you remember of it.
    23 Keep,
    /// Chain: a message of the register that holds the configuration.
    40 ConfigRound,
    /// Predecessor → successor: store this and pass it on.
    41 Forward,
    /// Successor → predecessor: the tail has it.
    42 Acked,
    /// Tail → replica: does the epoch stand?
    43 Confirm,
    /// Replica → tail: yes.
    44 Confirmed,
    /// Who fears a break → members: are you there?
    45 Survey,
    /// Member → who asked: yes, and fit for this.
    46 Present,
    /// Replica → anyone: this is the chain.
    47 Announce,
    /// Replica → member: let me copy.
    48 Attach,
    /// Member → replica: from now on.
    49 Attached,
}

/// A client's operation on its way to a coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Its name, the same in every attempt.
    pub op: OpId,
    /// Counts attempts from 1.
    pub attempt: u32,
    /// All operations of this router on this key with a smaller seq are over.
    pub done_below: u64,
    /// Write the outcome even where the command changes nothing, because another coordinator may
    /// still apply it: set from the second attempt of a command that can write.
    pub record: bool,
    /// Which key.
    pub key: Key,
    /// What to do.
    pub command: Command,
    /// Milliseconds left until the router gives up; the receiver counts on its own clock.
    pub patience: u32,
    /// Wall time after which no coordinator may apply it any more: the exactly-once record may have
    /// been collected with its tombstone. Far from both the deadline and the grace period, so that
    /// skewed clocks do no harm.
    pub expires: WallMillis,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answer {
    /// Which operation.
    pub op: OpId,
    /// Which attempt.
    pub attempt: u32,
    /// Its end.
    pub outcome: Outcome,
}

/// The end of one attempt at one coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// It took place, on a chosen state.
    Done {
        /// For the client.
        reply: Reply,
        /// Whether the register remembers it: then no other attempt can apply it again.
        recorded: bool,
    },
    /// This coordinator never proposed it and never will.
    NotProposed(Reason),
    /// This coordinator proposed it and cannot tell whether it was or will be chosen.
    Unknown,
    /// Applied before by another attempt; the result was too large to keep.
    ResultLost,
}

/// Why a coordinator did not propose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No quorum of replicas answered in time.
    NoQuorum,
    /// Too much waits here already.
    Overloaded,
    /// This node lost its data and has not yet copied it back.
    Learning,
    /// The register says that the operation's router has finished with it.
    Stale,
    /// This node is no replica of the key, by its own configuration.
    NotReplica,
}

/// Phase one: promise `ballot` and say what you hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prepare {
    /// Which register.
    pub key: Key,
    /// Used for this prepare only.
    pub ballot: Ballot,
}

/// A promise not to accept below `ballot`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Promise {
    /// Which register.
    pub key: Key,
    /// What was promised.
    pub ballot: Ballot,
    /// What the replica holds durably.
    pub record: Option<Record>,
}

/// Phase two: store `record`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Accept {
    /// Which register.
    pub key: Key,
    /// The state, stamped with the owner's ballot.
    pub record: Record,
}

/// The record of this stamp, or a later one of the same owner, is durable at the sender.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Accepted {
    /// Which register.
    pub key: Key,
    /// What was asked to be stored.
    pub stamp: Stamp,
}

/// No: a ballot at least as high as yours stands here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refused {
    /// Which register.
    pub key: Key,
    /// The ballot of the message refused.
    pub asked: Ballot,
    /// The ballot that stands.
    pub promised: Ballot,
}

/// What do you hold durably?
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Query {
    /// Which register.
    pub key: Key,
    /// Name of the question.
    pub ask: Ask,
    /// What the asker believes to be the state: where it is, the answer need not carry it.
    pub have: Option<Stamp>,
}

/// A replica's durable record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct State {
    /// Which register.
    pub key: Key,
    /// Which question.
    pub ask: Ask,
    /// What is held.
    pub held: Held,
}

/// What a replica holds of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// Exactly the record of the stamp the asker has.
    Same(Stamp),
    /// This.
    Record(Record),
}

impl Held {
    /// The stamp of what is held.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        match self {
            Held::Nothing => None,
            Held::Same(stamp) => Some(*stamp),
            Held::Record(record) => Some(record.stamp),
        }
    }
}

/// The sender does not vote in this round: it is overloaded or a learner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NoVote {
    /// Which register.
    pub key: Key,
    /// Which round.
    pub round: Round,
    /// Why.
    pub reason: Reason,
}

/// What a replica was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Round {
    /// Begin a ballot (asked by the node's own coordinator).
    Begin,
    /// Prepare or accept at this ballot.
    Ballot(Ballot),
    /// This query.
    Query(Ask),
}

/// Are you there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Probe {
    /// Name of the question.
    pub ask: Ask,
}

/// Yes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Alive {
    /// Which question.
    pub ask: Ask,
}

/// You were away: messages for you were dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Missed {}

/// The digests of a range's buckets?
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AskDigests {
    /// Name of the question.
    pub ask: Ask,
    /// Which range.
    pub range: RangeId,
}

/// A digest a bucket, see [`crate::register::digest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digests {
    /// Which question.
    pub ask: Ask,
    /// Which range.
    pub range: RangeId,
    /// In bucket order.
    pub buckets: Vec<u64>,
    /// Whether the sender votes: a learner's rows prove nothing.
    pub votes: bool,
    /// Live keys in the range.
    pub live: u64,
}

/// The rows of a range between two prefixes of positions, in order?
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AskList {
    /// Name of the question.
    pub ask: Ask,
    /// Which range.
    pub range: RangeId,
    /// First prefix, inclusive.
    pub from: u64,
    /// Last prefix, inclusive.
    pub to: u64,
    /// At most so many rows; all rows of one prefix are sent together.
    pub rows: u32,
}

/// Rows in order of position.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listed {
    /// Which question.
    pub ask: Ask,
    /// The rows.
    pub rows: Vec<Row>,
    /// Where to go on, none at the end.
    pub next: Option<u64>,
    /// Whether the sender votes.
    pub votes: bool,
    /// The sender's durable absent floor: tombstones up to this round may have been collected.
    pub absent_floor: u64,
}

/// A key as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Row {
    /// The key.
    pub key: Key,
    /// What is held of it.
    pub stamp: Stamp,
    /// When it expires; none without expiry.
    pub expires_at: Option<u64>,
    /// When it was deleted; none while it lives.
    pub deleted_at: Option<u64>,
}

/// The whole records of these keys?
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fetch {
    /// Name of the question.
    pub ask: Ask,
    /// Which keys; as many records are sent as fit a frame, the others are asked again.
    pub keys: Vec<Key>,
}

/// Records asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Records {
    /// Which question.
    pub ask: Ask,
    /// What is held of each key.
    pub records: Vec<(Key, Record)>,
}

/// Forget this tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Collect {
    /// Which key.
    pub key: Key,
    /// The very tombstone.
    pub stamp: Stamp,
}

/// A starting node introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Greet {
    /// Its store's id: a new one where the data directory was empty.
    pub store: u64,
}

/// What a peer remembers durably of the node that greets it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Welcome {
    /// The greeted store's id, to match.
    pub store: u64,
    /// The store under which the peer first knew the greeting node; the greeted one if it is new.
    pub known_store: u64,
    /// The largest incarnation of the greeting node that the peer has seen.
    pub incarnation: u64,
    /// The peer's own ceiling.
    pub ceiling: u64,
}

/// A request that ended slowly, badly, or at a second attempt: who has records of its key in
/// memory writes those of this time down. For people; no decision rests on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Keep {
    /// Of which key.
    pub key: Key,
    /// Which operation.
    pub op: OpId,
    /// How long ago it began, milliseconds.
    pub ago: u32,
}

impl Message {
    /// Who asked, where this is the answer to a listing.
    #[must_use]
    pub fn asker(&self) -> Option<u64> {
        match self {
            Message::Digests(answer) => Some(answer.ask.asker),
            Message::Listed(answer) => Some(answer.ask.asker),
            Message::Records(answer) => Some(answer.ask.asker),
            _ => None,
        }
    }
}

impl Outcome {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Done { .. } => "done",
            Outcome::NotProposed(reason) => reason.name(),
            Outcome::Unknown => "outcome unknown",
            Outcome::ResultLost => "result lost",
        }
    }
}

impl Reason {
    /// In a few words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reason::NoQuorum => "no quorum",
            Reason::Overloaded => "overloaded",
            Reason::Learning => "learning",
            Reason::Stale => "stale",
            Reason::NotReplica => "not a replica",
        }
    }
}
