//! Messages inside a node: one struct each, with its reader, its time and its meaning.
//!
//! What travels between nodes is [`simpledynamo_protocol::message::Message`]; here is what the
//! actors of one node say to each other, and what the front ends (client protocol, http) may ask.

use crate::{
    bridge::{Counters, LinkFigures},
    flow::Reader,
    metrics::{Metrics, Reading},
    shards::Shards,
};
use actix::{Message, Recipient};
use simpledynamo_protocol::{
    command::{Command, Reply},
    message::Reason,
    recent::OpId,
    record::{Key, Record},
    ring::NodeId,
};
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::oneshot;

/// Front end → router, for each single-key command. The answer comes through `reply`; a dropped
/// sender means that the node is stopping.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Execute {
    /// 1 to `Limits::key_bytes` bytes; the front end has checked.
    pub key: Key,
    /// What to do.
    pub command: Command,
    /// Write its flow records down whatever becomes of it.
    pub keep: bool,
    /// Where the end goes.
    pub reply: oneshot::Sender<Completed>,
}

/// The end of a client's operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Its name.
    pub op: OpId,
    /// What to tell the client.
    pub verdict: Verdict,
}

/// What the client may be told: exactly one of three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took place (or, for a read, this is the value).
    Reply(Reply),
    /// It certainly did not take place.
    NotApplied(Reason),
    /// It may or may not have taken place, or may yet.
    Unknown,
}

/// Front end → scan: the next keys of the whole ring in order of position, each range by a quorum.
/// Live keys only; per key, not a snapshot.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Page, Reason>")]
pub struct ScanPage {
    /// First prefix of positions to look at.
    pub from: u64,
    /// About so many keys; all keys of one prefix come together.
    pub rows: u32,
}

/// Keys of the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In order of position.
    pub keys: Vec<Key>,
    /// Where the next page starts; none after the last.
    pub next: Option<u64>,
}

/// Front end → scan: how many live keys the ring holds.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<u64, Reason>")]
pub struct CountKeys;

/// Front end → replica: what this very node stores of a key, no quorum.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Option<Record>")]
pub struct LocalGet {
    /// Which key.
    pub key: Key,
}

/// Front end → replica: the rows this very node stores, in order of position; tombstones too.
#[derive(Message, Clone, Debug)]
#[rtype(result = "LocalRows")]
pub struct LocalPage {
    /// First prefix of positions to look at.
    pub from: u64,
    /// About so many rows.
    pub rows: u32,
}

/// Rows of the own store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRows {
    /// In order of position.
    pub rows: Vec<(Key, Record)>,
    /// Where the next page starts; none after the last.
    pub next: Option<u64>,
}

/// Front end → membership: the table.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Table")]
pub struct AskTable;

/// Every node as this one sees it, in ring order.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The node that was asked.
    pub me: NodeId,
    /// In ring order.
    pub nodes: Vec<Member>,
}

/// One row of the membership table.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Id.
    pub id: NodeId,
    /// Where its bridge is reached from here.
    pub peer: SocketAddr,
    /// Ring position, 40 hex digits.
    pub position: String,
    /// The part of the ring it coordinates, 0 to 1.
    pub share: f64,
    /// Believed to be there or not.
    pub standing: Standing,
}

/// What this node believes of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Itself.
    Me,
    /// Nothing speaks against it.
    Trusted,
    /// A request to it timed out and it has not answered since.
    Suspected,
}

/// Front end → membership: how this node is.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Status")]
pub struct AskStatus;

/// How a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What it may do.
    pub phase: Phase,
    /// Its start count.
    pub incarnation: u64,
    /// Its store's id.
    pub store: u64,
    /// Rows stored, tombstones included.
    pub rows: u64,
    /// Live keys stored.
    pub live: u64,
    /// Whether all it had missed at its start (or last absence) has been copied.
    pub level: bool,
    /// Records copied since the start.
    pub copied: u64,
    /// Client requests in flight.
    pub in_flight: u64,
    /// Coordinators alive.
    pub coordinators: u64,
    /// Client operations ended since the start.
    pub operations: u64,
    /// Of these, with an error that says not applied.
    pub refused: u64,
    /// Of these, with an unknown outcome.
    pub unknown: u64,
    /// Attempts at a further coordinator.
    pub retries: u64,
    /// Operations for which one more node was asked before the time-out.
    pub hedges: u64,
    /// Messages to peers dropped because too much waited.
    pub dropped: u64,
    /// Durable commits.
    pub commits: u64,
    /// Operations in them.
    pub committed: u64,
}

/// http → membership: what the bridge and the writer's queue have to do just now.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Traffic")]
pub struct AskTraffic;

/// What passes between the nodes, and to the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The bridge since its start.
    pub counters: Counters,
    /// The link to each peer.
    pub links: Vec<LinkFigures>,
    /// How many frames went with one write.
    pub frames_per_write: Reading,
    /// Operations that wait for the writer.
    pub queued: u64,
    /// Bytes of these.
    pub queued_bytes: u64,
    /// Bytes of the disk that the store takes.
    pub disk_bytes: u64,
}

/// A node's phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// A new or emptied node asks its peers who it was; it answers clients `-LOADING`.
    #[default]
    Starting,
    /// It lost its data and copies it back; it serves clients but does not vote.
    Learning,
    /// It votes.
    Serving,
}

/// What the front ends may ask of a node. Each is a recipient, so that a test can stand in.
#[derive(Clone)]
pub struct NodeHandle {
    /// The routers.
    pub execute: Shards<Recipient<Execute>>,
    /// The scan.
    pub scan: Recipient<ScanPage>,
    /// The scan.
    pub count: Recipient<CountKeys>,
    /// The replica store.
    pub local_get: Recipient<LocalGet>,
    /// The replica store.
    pub local_page: Recipient<LocalPage>,
    /// The membership table.
    pub table: Recipient<AskTable>,
    /// The membership table.
    pub status: Recipient<AskStatus>,
    /// The membership table.
    pub traffic: Recipient<AskTraffic>,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// What was taken down of recent requests.
    pub flow: Reader,
}

impl Shards<Recipient<Execute>> {
    /// Hands a client's operation to the router of its key.
    pub fn do_send(&self, execute: Execute) {
        self.of(&execute.key).do_send(execute);
    }
}
