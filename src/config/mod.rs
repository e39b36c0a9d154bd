//! The configuration: `cluster.toml` (what was typed) → [`Cluster`] (what cannot be wrong) →
//! [`Settings`] (what one node starts with).
//!
//! The file is read and checked once, as a whole, before anything is started; every finding says
//! where it is, what is wrong and the mend. The shipped `cluster.toml` documents every field and is
//! tested to equal the defaults here.
//!
//! Caveats: only the first finding is reported. Addresses are IP and port, names are not looked up: a
//! ring that waits for a name server is not always available. That nodes have the same file is not
//! checked here but by their bridges, which compare [`Cluster::cluster_id`].

mod check;
mod error;
mod file;
mod units;

#[cfg(test)]
mod tests;

pub use error::ConfigError;
pub use units::{parse_time, size, time};

use log::LevelFilter;
pub use simpledynamo_actors::settings::Replication;
use simpledynamo_actors::settings::{Durability, Flow, Limits, Peer, Settings};
use simpledynamo_protocol::ring::{NodeId, Position, Ring};
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Bytes of a `cluster.toml`: more than any ring needs, less than hurts.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A text that is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// What the environment may add to the file; it wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `DYNAMO_SECRET`, unless empty.
    pub secret: Option<Hidden>,
    /// `DYNAMO_PASSWORD`, unless empty.
    pub password: Option<Hidden>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Environment {
        let read = |name| std::env::var(name).ok().filter(|text| !text.is_empty()).map(Hidden);
        Environment { secret: read("DYNAMO_SECRET"), password: read("DYNAMO_PASSWORD") }
    }
}

/// One node of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id, which gives its place on the ring.
    pub id: NodeId,
    /// Where Redis clients connect.
    pub client: SocketAddr,
    /// Where the other nodes connect.
    pub peer: SocketAddr,
    /// Where /health, /ready, /status and /flow are.
    pub http: SocketAddr,
}

/// A cluster that can be started: every rule of `cluster.toml` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The file it was read from, for messages.
    pub file: PathBuf,
    /// In the order of the file; ids and addresses are distinct.
    pub nodes: Vec<Node>,
    /// How the nodes of a key agree.
    pub replication: Replication,
    /// Nodes that keep each key: 1, 3 or 5, at most as many as there are.
    pub replicas: u32,
    /// Answers a read needs; more than half of `replicas`.
    pub read_quorum: u32,
    /// Acknowledgements a write needs; more than half of `replicas`.
    pub write_quorum: u32,
    /// Silence after which the next coordinator is asked; less than `deadline`.
    pub request_timeout: Duration,
    /// The least silence after which a second coordinator is asked as well; with `request_timeout`
    /// or more, none is.
    pub hedge_after: Duration,
    /// Time after which a client gets an error.
    pub deadline: Duration,
    /// Age at which a tombstone held by all replicas may be forgotten.
    pub tombstone_grace: Duration,
    /// Threads that a node's keys are spread over; 0: none beside its own.
    pub workers: usize,
    /// When a write counts as kept.
    pub durability: Durability,
    /// Bounds.
    pub limits: Limits,
    /// How much the log says.
    pub level: LevelFilter,
    /// What is taken down of requests.
    pub flow: Flow,
    /// What peers prove to each other; set wherever an address is off the loopback range.
    pub secret: Option<Hidden>,
    /// What clients prove; set wherever an address is off the loopback range.
    pub password: Option<Hidden>,
}

impl Cluster {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first finding, or that the file cannot be read.
    pub fn load(file: &Path, environment: &Environment) -> Result<Cluster, ConfigError> {
        let fail = |what: String| Err(ConfigError::of_file(file, what));
        let mut text = String::new();
        let read = File::open(file)
            .and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
        match read {
            Ok(length) if length as u64 > FILE_BYTES_MAX => fail(format!(
                "is longer than {FILE_BYTES_MAX} bytes: name a cluster.toml with --config FILE"
            )),
            Ok(_) => Cluster::parse(file, &text, environment),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                fail("is not text: save it as UTF-8".to_owned())
            }
            Err(error) => fail(format!(
                "cannot be read ({error}): run where your cluster.toml is, or name it with \
                 --config FILE"
            )),
        }
    }

    /// Checks a file's content; `file` is for messages only.
    ///
    /// # Errors
    /// The first finding.
    pub fn parse(
        file: &Path,
        text: &str,
        environment: &Environment,
    ) -> Result<Cluster, ConfigError> {
        let typed = toml::from_str(text).map_err(|error| check::syntax(&error));
        typed
            .and_then(|typed| check::cluster(file, typed, environment))
            .map_err(|finding| ConfigError::locate(file, text, finding))
    }

    /// The node with this id.
    ///
    /// # Errors
    /// There is none; the message names those there are.
    pub fn node(&self, id: NodeId) -> Result<&Node, ConfigError> {
        self.nodes.iter().find(|node| node.id == id).ok_or_else(|| {
            let ids: Vec<_> = self.nodes.iter().map(|node| node.id.to_string()).collect();
            let what = format!("has no node {id}: name one of {}", ids.join(", "));
            ConfigError::of_file(&self.file, what)
        })
    }

    /// The ring of these nodes.
    #[must_use]
    pub fn ring(&self) -> Ring {
        let replicas = usize::try_from(self.replicas).unwrap_or(usize::MAX);
        Ring::new(self.nodes.iter().map(|node| node.id), replicas)
    }

    /// The cluster's identity: the first 8 bytes of the SHA-1 of
    /// [`Cluster::strategy`] and the sorted ids, a space before each.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        let mut ids: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        ids.sort();
        let mut text = self.strategy();
        for id in ids {
            text.push_str(&format!(" {id}"));
        }
        Position::of(text.as_bytes()).prefix()
    }

    /// Strategy, replicas, read and write quorum: `quorum, 3 replicas, read 2, write 2`, or
    /// `chain, 3 replicas`.
    #[must_use]
    pub fn strategy(&self) -> String {
        let (replicas, read, write) = (self.replicas, self.read_quorum, self.write_quorum);
        match self.replication {
            Replication::Quorum => {
                format!("quorum, {replicas} replicas, read {read}, write {write}")
            }
            Replication::Chain => format!("chain, {replicas} replicas"),
        }
    }

    /// What one node starts with; its own directory is `data_dir/ID`.
    ///
    /// # Errors
    /// There is no such node, or a peer's address is one nobody can connect to.
    pub fn settings(&self, id: NodeId, data_dir: &Path) -> Result<Settings, ConfigError> {
        let me = self.node(id)?;
        let others = || self.nodes.iter().filter(|node| node.id != id);
        if let Some(peer) = others().find(|node| node.peer.ip().is_unspecified()) {
            let what = format!(
                "node {id} cannot connect to node {} at {}: give that node's real address in this \
                 node's file",
                peer.id, peer.peer
            );
            return Err(ConfigError::of_file(&self.file, what));
        }
        let count = |quorum: u32| usize::try_from(quorum).unwrap_or(usize::MAX);
        Ok(Settings {
            me: id,
            listen: me.peer,
            peers: others().map(|node| Peer { id: node.id, address: node.peer }).collect(),
            ring: self.ring(),
            replication: self.replication,
            read_quorum: count(self.read_quorum),
            write_quorum: count(self.write_quorum),
            request_timeout: self.request_timeout,
            hedge_after: self.hedge_after,
            deadline: self.deadline,
            tombstone_grace: self.tombstone_grace,
            workers: self.workers,
            strategy: self.strategy(),
            durability: self.durability,
            limits: self.limits.clone(),
            flow: self.flow.clone(),
            cluster_id: self.cluster_id(),
            secret: self.secret.clone().map(|secret| secret.0),
            data_dir: node_dir(data_dir, id),
        })
    }
}

/// A node's own directory.
#[must_use]
pub fn node_dir(data_dir: &Path, id: NodeId) -> PathBuf {
    data_dir.join(id.to_string())
}
