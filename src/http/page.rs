//! `/status` as JSON. Fields are added, never renamed or given another meaning.

use super::sample::Load;
use serde::{Deserialize, Serialize};
use simpledynamo_actors::{
    bridge::{FAMILIES, LinkFigures},
    messages::{Phase, Standing, Status, Table, Traffic},
};
use std::collections::BTreeMap;

/// How a node is, and the ring as it sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusPage {
    /// The node's id.
    pub id: u32,
    /// The version of the program.
    pub version: String,
    /// `starting`, `learning` (serves clients, does not vote yet) or `serving`.
    pub phase: String,
    /// Whether all it had missed has been copied.
    pub level: bool,
    /// Its start count.
    pub incarnation: u64,
    /// Its store's id, 16 hex digits (JSON's numbers have 53 bits).
    pub store: String,
    /// Rows stored, tombstones included.
    pub rows: u64,
    /// Live keys stored.
    pub live: u64,
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
    /// Of these, made before the time-out.
    pub hedges: u64,
    /// Messages to peers dropped because too much waited.
    pub dropped: u64,
    /// Durable commits.
    pub commits: u64,
    /// Operations in them.
    pub committed: u64,
    /// Every node as this one sees it, in ring order.
    pub nodes: Vec<Row>,
    /// Operations that wait for the writer.
    #[serde(default)]
    pub queued: u64,
    /// Bytes of these.
    #[serde(default)]
    pub queued_bytes: u64,
    /// Bytes of the disk that the store takes.
    #[serde(default)]
    pub disk_bytes: u64,
    /// The last five seconds.
    #[serde(default)]
    pub load: Load,
    /// The links to the other nodes.
    #[serde(default)]
    pub links: Vec<LinkRow>,
}

/// What goes to one other node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkRow {
    /// Its id.
    pub to: u32,
    /// Whether there is a connection.
    pub connected: bool,
    /// Bytes that wait for it.
    pub waiting_bytes: u64,
    /// Messages sent to it since the start, by their part in the protocol: `request`, `prepare`,
    /// `accept`, `read`, `other`.
    pub sent: BTreeMap<String, u64>,
}

/// One node as another sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its id.
    pub id: u32,
    /// Where its bridge is reached.
    pub peer: String,
    /// Its place on the ring, 40 hex digits.
    pub position: String,
    /// The part of the ring it coordinates, 0 to 1.
    pub share: f64,
    /// `me`, `trusted` or `suspected`.
    pub standing: String,
}

impl StatusPage {
    pub(super) fn new(status: &Status, table: &Table, traffic: &Traffic, load: Load) -> StatusPage {
        let row = |member: &simpledynamo_actors::messages::Member| Row {
            id: member.id.0,
            peer: member.peer.to_string(),
            position: member.position.clone(),
            share: member.share,
            standing: standing(member.standing).to_owned(),
        };
        StatusPage {
            id: table.me.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: phase(status.phase).to_owned(),
            level: status.level,
            incarnation: status.incarnation,
            store: format!("{:016x}", status.store),
            rows: status.rows,
            live: status.live,
            copied: status.copied,
            in_flight: status.in_flight,
            coordinators: status.coordinators,
            operations: status.operations,
            refused: status.refused,
            unknown: status.unknown,
            retries: status.retries,
            hedges: status.hedges,
            dropped: status.dropped,
            commits: status.commits,
            committed: status.committed,
            nodes: table.nodes.iter().map(row).collect(),
            queued: traffic.queued,
            queued_bytes: traffic.queued_bytes,
            disk_bytes: traffic.disk_bytes,
            load,
            links: traffic.links.iter().map(link).collect(),
        }
    }
}

fn link(link: &LinkFigures) -> LinkRow {
    let sent = FAMILIES.into_iter().map(str::to_owned).zip(link.sent);
    LinkRow {
        to: link.peer.0,
        connected: link.connected,
        waiting_bytes: link.waiting as u64,
        sent: sent.collect(),
    }
}

/// A phase's word.
pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Learning => "learning",
        Phase::Serving => "serving",
    }
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Me => "me",
        Standing::Trusted => "trusted",
        Standing::Suspected => "suspected",
    }
}
