//! What a node must know to start: made by the configuration, checked there, never wrong here.

use crate::storage::KEY_BYTES_MAX;
use simpledynamo_protocol::ring::{NodeId, Ring};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// When a write counts as kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on the disk: survives the machine.
    Sync,
    /// Once the operating system has it: survives the process, not the machine.
    Os,
}

/// Bounds on memory and work; every one has a default that a laptop bears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest value, bytes.
    pub value_bytes: usize,
    /// Largest key, bytes; at most [`KEY_BYTES_MAX`].
    pub key_bytes: usize,
    /// Largest frame between peers, bytes.
    pub frame_bytes: usize,
    /// Bytes that wait for one peer before further messages to it are dropped.
    pub peer_bytes: usize,
    /// Client requests in flight at one node before `-BUSY`.
    pub requests: usize,
    /// Client connections at one node.
    pub clients: usize,
    /// Bytes of replies that a client leaves unread before the node stops reading from it; a single
    /// reply above it is an error.
    pub client_output_bytes: usize,
    /// Bytes of durable records kept in memory.
    pub cache_bytes: usize,
    /// Coordinators alive at one node above which idle ones end.
    pub coordinators: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Limits {
            value_bytes: MIB,
            key_bytes: KEY_BYTES_MAX,
            frame_bytes: 2 * MIB,
            peer_bytes: 16 * MIB,
            requests: 8_192,
            clients: 10_000,
            client_output_bytes: 32 * MIB,
            cache_bytes: 64 * MIB,
            coordinators: 128,
        }
    }
}

/// How the nodes of a key agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// Any replica coordinates, a majority decides.
    Quorum,
    /// Writes enter at the head of a chain, reads go to its tail.
    Chain,
}

impl Replication {
    /// As the configuration and the command line spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Replication::Quorum => "quorum",
            Replication::Chain => "chain",
        }
    }
}

/// Which requests' flow records are written to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowMode {
    /// None; nothing is taken down.
    Off,
    /// The slow, the failed, those tried again, one in so many, and those asked for.
    Sampled,
    /// All.
    All,
}

/// Flow records: what is taken down of requests, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Which are written.
    pub mode: FlowMode,
    /// A request that takes so long is slow.
    pub slow: Duration,
    /// One request in so many is written; 0 for none.
    pub one_in: u64,
    /// Recent records kept in memory, bytes.
    pub memory_bytes: usize,
    /// Files of records, bytes together.
    pub file_bytes: u64,
}

impl Default for Flow {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Flow {
            mode: FlowMode::Sampled,
            slow: Duration::from_millis(20),
            one_in: 1_000,
            memory_bytes: 8 * MIB,
            file_bytes: 64 * MIB as u64,
        }
    }
}

/// Another node, as this node reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// Where its bridge listens.
    pub address: SocketAddr,
}

/// Everything one node starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who this node is.
    pub me: NodeId,
    /// Where its bridge listens.
    pub listen: SocketAddr,
    /// The others.
    pub peers: Vec<Peer>,
    /// The ring.
    pub ring: Ring,
    /// How the nodes of a key agree.
    pub replication: Replication,
    /// Answers a read needs.
    pub read_quorum: usize,
    /// Acknowledgements a write needs.
    pub write_quorum: usize,
    /// Silence after which the next coordinator is asked.
    pub request_timeout: Duration,
    /// The least silence after which a second coordinator is asked as well; with `request_timeout`
    /// or more, none is.
    pub hedge_after: Duration,
    /// Time after which the client gets an error.
    pub deadline: Duration,
    /// Age at which a tombstone held by all replicas may be forgotten.
    pub tombstone_grace: Duration,
    /// Threads that the node's keys are spread over; 0: all are served by the node's own thread.
    pub workers: usize,
    /// Strategy, replicas and quorums as a person reads them; the data directory records it.
    pub strategy: String,
    /// When a write counts as kept.
    pub durability: Durability,
    /// Bounds.
    pub limits: Limits,
    /// What is taken down of requests.
    pub flow: Flow,
    /// Digest of the ids, strategy and quorums: nodes of other clusters are refused.
    pub cluster_id: u64,
    /// What peers prove to each other; none on the loopback range only.
    pub secret: Option<String>,
    /// This node's own directory.
    pub data_dir: PathBuf,
}
