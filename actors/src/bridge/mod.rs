//! The bridge: messages between nodes, as frames on TCP.
//!
//! ```text
//! node 5554                                                     node 5556
//!   actors ─ send ─▸ link to 5556 ══ connection dialed by 5554 ══▸ reader ─ deliver ─▸ actors
//!   actors ◂─ deliver ─ reader ◂══ connection dialed by 5556 ══ link to 5554 ◂─ send ─ actors
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`codec`] | bytes ↔ messages; no input or output |
//! | [`hello`] | who is there, and its proof; no input or output |
//! | [`handshake`] | the hello on a stream, in bounded time and memory |
//! | [`link`] | this node's messages to one peer: gathered, bounded, dialed again |
//! | [`listen`] | peers' messages to this node: admitted, decoded, handed in |
//! | [`net`] | the network as a parameter |
//!
//! What the bridge promises: a message that arrives is the one that was sent, from the node it says
//! and not from a former life of it; messages of one connection arrive in order; sending never
//! waits, and memory is bounded, whatever a peer or a stranger does. What it does not promise is
//! delivery: the protocols ask again.
//!
//! **A connection is no sign of life.** Whether one opens, breaks or refuses to open is counted and
//! logged and reaches no decision: a process that hangs keeps its connections, and one that works may
//! lose them. Only answers and their absence count ([`simpledynamo_protocol::suspicion`]).
//!
//! Connections are served by one thread, inside a `LocalSet` (an actix `System` has one). Any thread
//! sends, through an [`Outlet`] of its own.
//!
//! Caveats: see [`hello`] for what the proof does not cover and [`link`] for what is dropped when.

pub mod codec;
pub mod handshake;
pub mod hello;
pub mod link;
pub mod listen;
pub mod net;
#[cfg(test)]
mod tests;

pub use link::Sent;

use crate::{
    flow::{Cause, Origin, Recorder},
    metrics::Reading,
    settings::{Peer, Settings},
};
use hello::Credentials;
use link::{Link, Route};
use listen::Listening;
use net::Net;
use parking_lot::Mutex;
use simpledynamo_protocol::{message::Message, ring::NodeId};
use std::{collections::BTreeMap, io, net::SocketAddr, rc::Rc, sync::Arc};
use tokio::task::{AbortHandle, spawn_local};

/// Which life of which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node.
    pub id: NodeId,
    /// Its store; a new one where its data directory was empty.
    pub store: u64,
    /// Its start count, durable with the store.
    pub incarnation: u64,
}

/// What takes in what peers send. Called on the bridge's thread; it must wait for nothing but the store.
pub trait Inbound: 'static {
    /// A message of `from`, whose hello was proved, and what flow records name as its cause.
    fn deliver(&self, from: NodeId, message: Message, cause: Cause);

    /// A hello was completed, on a connection of either direction, once for each. It says which
    /// life of the peer this is, not that the peer is well.
    fn met(&self, peer: PeerIdentity);

    /// The incarnation of a later life of this peer that is known here, durably. Then this one came
    /// back from an older data directory, has forgotten what it acknowledged since, and is not
    /// listened to.
    fn later_life(&self, peer: PeerIdentity) -> Option<u64>;
}

/// What the bridge has done since its start. All of it for people and metrics, none for decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames given to the network whole.
    pub frames_out: u64,
    /// Bytes given to the network.
    pub bytes_out: u64,
    /// Writes it took for that.
    pub writes: u64,
    /// Messages handed in.
    pub frames_in: u64,
    /// Bytes read, hellos not counted.
    pub bytes_in: u64,
    /// Messages dropped because too much waited for their peer.
    pub dropped_full: u64,
    /// Messages dropped because there was no connection.
    pub dropped_unconnected: u64,
    /// Messages dropped because they exceed a frame.
    pub dropped_large: u64,
    /// Frames that were being written when their connection ended.
    pub lost: u64,
    /// Outbound connections made, the first to each peer included.
    pub connects: u64,
    /// Outbound connections that ended.
    pub disconnects: u64,
    /// Attempts to make one that failed.
    pub dial_failures: u64,
    /// Inbound connections admitted.
    pub accepts: u64,
    /// Inbound connections closed because a newer one of the same peer came.
    pub superseded: u64,
    /// Inbound connections refused, by either side, in the hello.
    pub refused: u64,
    /// Inbound connections that spoke no hello.
    pub strangers: u64,
    /// Inbound connections closed before their hello because too many others came.
    pub crowded_out: u64,
    /// Inbound connections closed because of a frame that is none.
    pub damaged: u64,
    /// Frames skipped because their tag is unknown here.
    pub unknown_tags: u64,
}

impl Counters {
    /// Messages that never left.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_full + self.dropped_unconnected + self.dropped_large
    }
}

/// What travels between two nodes, by its part in the protocol.
pub const FAMILIES: [&str; 5] = ["request", "prepare", "accept", "read", "other"];

/// The family of a message, as an index of [`FAMILIES`].
fn family(message: &Message) -> usize {
    match message {
        Message::Request(_) | Message::Answer(_) => 0,
        Message::Prepare(_) | Message::Promise(_) | Message::Refused(_) | Message::NoVote(_) => 1,
        Message::Accept(_) | Message::Accepted(_) | Message::Forward(_) | Message::Acked(_) => 2,
        Message::Query(_) | Message::State(_) | Message::Confirm(_) | Message::Confirmed(_) => 3,
        Message::Probe(_)
        | Message::Alive(_)
        | Message::Missed(_)
        | Message::AskDigests(_)
        | Message::Digests(_)
        | Message::AskList(_)
        | Message::Listed(_)
        | Message::Fetch(_)
        | Message::Records(_)
        | Message::Collect(_)
        | Message::Greet(_)
        | Message::Welcome(_)
        | Message::Keep(_)
        | Message::ConfigRound(_)
        | Message::Survey(_)
        | Message::Present(_)
        | Message::Announce(_)
        | Message::Attach(_)
        | Message::Attached(_) => 4,
    }
}

/// The link to one peer, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFigures {
    /// To whom.
    pub peer: NodeId,
    /// Whether there is a connection.
    pub connected: bool,
    /// Bytes that wait or are being written.
    pub waiting: usize,
    /// Messages taken for it, in the order of [`FAMILIES`].
    pub sent: [u64; FAMILIES.len()],
}

/// A bridge that is not yet built: its links are there, for those who will send, and lead nowhere.
pub struct Bridge {
    links: Links,
    counters: Arc<Mutex<Counters>>,
}

impl Bridge {
    /// One to every peer of `settings.peers`.
    #[must_use]
    pub fn new(settings: &Settings) -> Bridge {
        let counters = Arc::new(Mutex::new(Counters::default()));
        let peers = settings.peers.iter().filter(|peer| peer.id != settings.me);
        let link = |peer: &Peer| {
            let route = Route {
                peer: peer.id,
                address: peer.address,
                frame_bytes: settings.limits.frame_bytes,
                peer_bytes: settings.limits.peer_bytes,
            };
            (peer.id, Link::new(route, counters.clone()))
        };
        Bridge { links: Links(Arc::new(peers.map(link).collect())), counters }
    }

    /// What sends through it from this thread, once it has started.
    #[must_use]
    pub fn outlet(&self, recorder: &Recorder) -> Outlet {
        self.links.clone().outlet(recorder.clone())
    }

    /// Listens at `settings.listen`, dials every peer, and keeps at it. `me` is
    /// this life of this node. `recorder` takes down what is sent and received. Must be called inside a `LocalSet`.
    ///
    /// # Errors
    /// The network's, where the address cannot be listened at.
    pub async fn start<N: Net>(
        self,
        net: N,
        settings: &Settings,
        me: PeerIdentity,
        recorder: &Recorder,
        inbound: impl Inbound,
    ) -> io::Result<BridgeHandle> {
        let (listener, local) = net.bind(settings.listen).await.map_err(|error| {
            let at = settings.listen;
            io::Error::new(error.kind(), format!("cannot listen for peers at {at}: {error}"))
        })?;
        let inbound: Rc<dyn Inbound> = Rc::new(inbound);
        let credentials = Rc::new(Credentials {
            me,
            cluster_id: settings.cluster_id,
            secret: settings.secret.clone().unwrap_or_default().into_bytes(),
        });
        let Bridge { links, counters } = self;
        let mut tasks = Vec::new();
        for link in links.0.values() {
            let (credentials, inbound) = (credentials.clone(), inbound.clone());
            let run = link.clone().run(net.clone(), credentials, inbound, recorder.clone());
            tasks.push(spawn_local(run).abort_handle());
        }
        let listening = Listening::new(
            credentials,
            settings.peers.iter().map(|peer| peer.id).collect(),
            settings.limits.frame_bytes,
            Rc::new(Redialing { inbound, links: links.clone() }),
            counters.clone(),
            recorder.clone(),
        );
        tasks.push(spawn_local(listening.clone().run(net, listener)).abort_handle());
        let outlet = links.outlet(recorder.clone());
        Ok(BridgeHandle(Rc::new(Running { local, outlet, listening, tasks, counters })))
    }
}

/// Hands on what comes in, and lets a peer that connects be dialed without delay.
struct Redialing {
    inbound: Rc<dyn Inbound>,
    links: Links,
}

impl Inbound for Redialing {
    fn deliver(&self, from: NodeId, message: Message, cause: Cause) {
        self.inbound.deliver(from, message, cause);
    }

    fn met(&self, peer: PeerIdentity) {
        if let Some(link) = self.links.0.get(&peer.id) {
            link.redial();
        }
        self.inbound.met(peer);
    }

    fn later_life(&self, peer: PeerIdentity) -> Option<u64> {
        self.inbound.later_life(peer)
    }
}

/// The links to all peers; cheap to clone, for any thread.
#[derive(Clone)]
pub struct Links(Arc<BTreeMap<NodeId, Link>>);

impl Links {
    /// What sends through them from one thread: `recorder` is that thread's.
    #[must_use]
    pub fn outlet(self, recorder: Recorder) -> Outlet {
        Outlet { links: self, recorder }
    }
}

/// What an actor sends to other nodes with; cheap to clone.
#[derive(Clone)]
pub struct Outlet {
    links: Links,
    recorder: Recorder,
}

impl Outlet {
    /// Sends `message` to another node, or drops it; never waits. The message is encoded before this
    /// returns. `origin` is for flow records.
    pub fn send(&self, to: NodeId, message: &Message, origin: impl Into<Origin>) -> Sent {
        let origin = origin.into();
        let link = self.links.0.get(&to);
        link.map_or(Sent::NoSuchPeer, |link| link.send(message, origin, &self.recorder))
    }

    /// The links, for another thread.
    #[must_use]
    pub fn links(&self) -> Links {
        self.links.clone()
    }
}

/// A running bridge; cheap to clone. It stops when the last clone is dropped.
#[derive(Clone)]
pub struct BridgeHandle(Rc<Running>);

struct Running {
    local: SocketAddr,
    outlet: Outlet,
    listening: Listening,
    tasks: Vec<AbortHandle>,
    counters: Arc<Mutex<Counters>>,
}

impl BridgeHandle {
    /// Sends as [`Outlet::send`] does.
    pub fn send(&self, to: NodeId, message: &Message, origin: impl Into<Origin>) -> Sent {
        self.0.outlet.send(to, message, origin)
    }

    /// What sends through it from this thread.
    #[must_use]
    pub fn outlet(&self) -> Outlet {
        self.0.outlet.clone()
    }

    fn links_by_peer(&self) -> &BTreeMap<NodeId, Link> {
        &self.0.outlet.links.0
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// Who answers at the other end of the link to `peer`; none without a connection.
    #[must_use]
    pub fn identity(&self, peer: NodeId) -> Option<PeerIdentity> {
        self.links_by_peer().get(&peer)?.identity()
    }

    /// Bytes that wait for `peer`.
    #[must_use]
    pub fn waiting(&self, peer: NodeId) -> usize {
        self.links_by_peer().get(&peer).map_or(0, Link::waiting)
    }

    /// Every link.
    #[must_use]
    pub fn links(&self) -> Vec<LinkFigures> {
        self.links_by_peer().values().map(Link::figures).collect()
    }

    /// How many frames went with one write, all links together.
    #[must_use]
    pub fn frames_per_write(&self) -> Reading {
        let mut all = Reading::default();
        self.links_by_peer().values().for_each(|link| all.add(&link.frames_per_write()));
        all
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.0.counters.lock()
    }

    /// Closes everything, and drops what waits.
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl Running {
    fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.listening.close();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
