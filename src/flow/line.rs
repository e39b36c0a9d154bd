//! A line of flow records, read back.
//!
//! The format is `simpledynamo_actors::flow`'s. Events of a later version that are unknown here and
//! lines that are cut are skipped and counted ([`super::Book::skipped`]); nothing is guessed.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use simpledynamo_actors::flow::{Event, RecordId, VERSION, request_id};
use simpledynamo_protocol::{recent::OpId, ring::NodeId};
use std::{fmt, str::FromStr};

/// One record; the fields are those of the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Version of the format.
    pub v: u32,
    /// Microseconds since the Unix epoch.
    pub wall: u64,
    /// Microseconds since the node's start.
    pub mono: u64,
    /// Where.
    pub node: u32,
    /// In which life of it.
    pub incarnation: u64,
    /// Which record of that life.
    pub seq: u64,
    /// What.
    #[serde(deserialize_with = "event", serialize_with = "event_name")]
    pub event: Event,
    /// The sending of this message.
    #[serde(
        default,
        deserialize_with = "some",
        serialize_with = "shown",
        skip_serializing_if = "Option::is_none"
    )]
    pub message: Option<RecordId>,
    /// What led to it.
    #[serde(
        default,
        deserialize_with = "some",
        serialize_with = "shown",
        skip_serializing_if = "Option::is_none"
    )]
    pub cause: Option<RecordId>,
    /// Whose doing it is.
    #[serde(
        default,
        deserialize_with = "request",
        serialize_with = "shown",
        skip_serializing_if = "Option::is_none"
    )]
    pub request: Option<OpId>,
    /// Which attempt at it.
    #[serde(default, skip_serializing_if = "zero")]
    pub attempt: u64,
    /// From there.
    #[serde(
        default,
        deserialize_with = "some",
        serialize_with = "shown",
        skip_serializing_if = "Option::is_none"
    )]
    pub from: Option<Spot>,
    /// To there.
    #[serde(
        default,
        deserialize_with = "some",
        serialize_with = "shown",
        skip_serializing_if = "Option::is_none"
    )]
    pub to: Option<Spot>,
    /// Of the message, command or round.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The key as records show it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Such as `3.5554`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ballot: String,
    /// Counts the key's writes.
    #[serde(default, skip_serializing_if = "zero")]
    pub version: u64,
    /// Size of the frame.
    #[serde(default, skip_serializing_if = "zero")]
    pub bytes: u64,
    /// Microseconds waited.
    #[serde(default, skip_serializing_if = "zero")]
    pub queue: u64,
    /// Microseconds worked.
    #[serde(default, skip_serializing_if = "zero")]
    pub handling: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// It stands in no file: it was not taken down because another says it.
    #[serde(skip)]
    pub inferred: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn zero(number: &u64) -> bool {
    *number == 0
}

impl Line {
    /// Reads one line.
    ///
    /// # Errors
    /// It is none of this version.
    pub fn parse(text: &str) -> Result<Line, String> {
        let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if line.v == VERSION {
            Ok(line)
        } else {
            Err(format!("a record of format version {}, this program reads {VERSION}", line.v))
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> RecordId {
        let (node, incarnation) = (NodeId(self.node), self.incarnation);
        RecordId { node, incarnation, seq: self.seq }
    }

    /// Whether the message stays within its node.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.from.zip(self.to).is_some_and(|(from, to)| from.node == to.node)
    }

    /// `v8@3.5558`, `3.5558`, or nothing.
    #[must_use]
    pub fn stamp(&self) -> String {
        match (self.version, self.ballot.as_str()) {
            (0, ballot) => ballot.to_owned(),
            (version, "") => format!("v{version}"),
            (version, ballot) => format!("v{version}@{ballot}"),
        }
    }
}

/// A part of a node: `5554/router`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The node.
    pub node: u32,
    /// The part.
    pub actor: simpledynamo_actors::flow::Actor,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.actor.name())
    }
}

impl FromStr for Spot {
    type Err = String;

    fn from_str(text: &str) -> Result<Spot, String> {
        let (node, actor) = text.split_once('/').ok_or("a place is node/actor")?;
        let node = node.parse().map_err(|_| format!("\"{node}\" is no node"))?;
        Ok(Spot { node, actor: actor.parse()? })
    }
}

fn event<'de, D: Deserializer<'de>>(from: D) -> Result<Event, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn event_name<S: Serializer>(event: &Event, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(event.name())
}

fn some<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    String::deserialize(from)?.parse().map(Some).map_err(D::Error::custom)
}

fn request<'de, D: Deserializer<'de>>(from: D) -> Result<Option<OpId>, D::Error> {
    request_id(&String::deserialize(from)?).map(Some).map_err(D::Error::custom)
}

fn shown<S: Serializer, T: fmt::Display>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}
