//! A network in memory whose connections can be cut and damaged, TCP under fixed names, and an
//! inbound side that remembers.

use super::super::{
    Bridge, BridgeHandle, Inbound, PeerIdentity,
    net::{Net, Tcp},
};
use crate::{
    clock::Clock,
    flow::{Cause, Recorder},
    settings::{Durability, Flow, Limits, Peer, Settings},
};
use simpledynamo_protocol::{
    message::{Alive, Ask, Message, Probe},
    ring::{NodeId, Ring},
};
use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::mpsc,
    task::{AbortHandle, LocalSet, spawn_local},
};

/// No test should need so long; one that hangs ends here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes a connection in memory holds in each half.
const WIRE_BYTES: usize = 16 * 1024;

/// Runs a test on one thread, as a node runs.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    let test = tasks.run_until(async { tokio::time::timeout(PATIENCE, test).await });
    runtime.block_on(test).expect("the condition waited for never came");
}

/// Waits for a condition.
pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A network in memory.
#[derive(Clone, Default)]
pub(super) struct Wires(Rc<Table>);

#[derive(Default)]
struct Table {
    listeners: RefCell<BTreeMap<SocketAddr, mpsc::UnboundedSender<DuplexStream>>>,
    pumps: RefCell<Vec<AbortHandle>>,
    flip: Cell<bool>,
}

impl Wires {
    /// Cuts every connection.
    pub(super) fn cut(&self) {
        self.0.pumps.take().iter().for_each(AbortHandle::abort);
    }

    /// Flips a bit of what next goes from a dialer to a listener.
    pub(super) fn flip(&self) {
        self.0.flip.set(true);
    }

    async fn pump(
        self,
        mut from: ReadHalf<DuplexStream>,
        mut to: WriteHalf<DuplexStream>,
        dialer: bool,
    ) {
        let mut chunk = [0; 4096];
        while let Ok(read) = from.read(&mut chunk).await {
            if read > 0 && dialer && self.0.flip.take() {
                chunk[read / 2] ^= 1;
            }
            if read == 0 || to.write_all(&chunk[..read]).await.is_err() {
                break;
            }
        }
        to.shutdown().await.ok();
    }
}

impl Net for Wires {
    type Stream = DuplexStream;
    type Listener = mpsc::UnboundedReceiver<DuplexStream>;

    async fn bind(&self, at: SocketAddr) -> io::Result<(Self::Listener, SocketAddr)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.listeners.borrow_mut().insert(at, sender);
        Ok((receiver, at))
    }

    async fn accept(
        &self,
        listener: &mut Self::Listener,
    ) -> io::Result<(DuplexStream, SocketAddr)> {
        let stream = listener.recv().await.ok_or(io::ErrorKind::NotConnected)?;
        Ok((stream, address(0)))
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<DuplexStream> {
        let (dialer, near) = duplex(WIRE_BYTES);
        let (far, listener) = duplex(WIRE_BYTES);
        let open = self.0.listeners.borrow().get(&to).is_some_and(|at| at.send(listener).is_ok());
        if !open {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near_read, near_write) = split(near);
        let (far_read, far_write) = split(far);
        let there = spawn_local(self.clone().pump(near_read, far_write, true));
        let back = spawn_local(self.clone().pump(far_read, near_write, false));
        self.0.pumps.borrow_mut().extend([there.abort_handle(), back.abort_handle()]);
        Ok(dialer)
    }
}

/// TCP on the loopback: each address stands for a port that the system chooses.
#[derive(Clone, Default)]
pub(super) struct Loopback(Rc<RefCell<BTreeMap<SocketAddr, SocketAddr>>>);

impl Net for Loopback {
    type Stream = <Tcp as Net>::Stream;
    type Listener = <Tcp as Net>::Listener;

    async fn bind(&self, at: SocketAddr) -> io::Result<(Self::Listener, SocketAddr)> {
        let (listener, local) = Tcp.bind("127.0.0.1:0".parse().unwrap()).await?;
        self.0.borrow_mut().insert(at, local);
        Ok((listener, local))
    }

    async fn accept(
        &self,
        listener: &mut Self::Listener,
    ) -> io::Result<(Self::Stream, SocketAddr)> {
        Tcp.accept(listener).await
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Self::Stream> {
        let to = self.0.borrow().get(&to).copied();
        Tcp.connect(to.ok_or(io::ErrorKind::ConnectionRefused)?).await
    }
}

/// Where a node listens, by its id.
pub(super) fn address(id: u16) -> SocketAddr {
    ([127, 0, 0, 1], id).into()
}

/// A node of the ring 1, 2, 3.
pub(super) fn settings(me: u16) -> Settings {
    let ids = [1, 2, 3];
    let others = ids.into_iter().filter(|id| *id != me);
    let peers = others.map(|id| Peer { id: NodeId(id.into()), address: address(id) });
    Settings {
        strategy: String::new(),
        me: NodeId(me.into()),
        listen: address(me),
        peers: peers.collect(),
        ring: Ring::new(ids.map(|id| NodeId(id.into())), 3),
        replication: crate::settings::Replication::Quorum,
        read_quorum: 2,
        write_quorum: 2,
        request_timeout: Duration::from_millis(100),
        hedge_after: Duration::from_millis(10),
        deadline: Duration::from_secs(2),
        tombstone_grace: Duration::from_secs(3600),
        workers: 0,
        durability: Durability::Os,
        limits: Limits::default(),
        flow: Flow::default(),
        cluster_id: 7,
        secret: Some("the secret".into()),
        data_dir: "unused".into(),
    }
}

/// The first life of a node, unless said otherwise.
pub(super) fn life(me: u16, incarnation: u64) -> PeerIdentity {
    PeerIdentity { id: NodeId(me.into()), store: 100 + u64::from(me), incarnation }
}

/// Remembers what came, and answers each probe where it was given a bridge to do so.
#[derive(Clone, Default)]
pub(super) struct Memory(Rc<Kept>);

#[derive(Default)]
struct Kept {
    came: RefCell<Vec<(NodeId, Message)>>,
    met: RefCell<Vec<PeerIdentity>>,
    answers: OnceCell<BridgeHandle>,
    later: Cell<Option<u64>>,
}

impl Memory {
    /// The numbers of the probes and answers that came from a node, in order.
    pub(super) fn from(&self, id: u32) -> Vec<u64> {
        let came = self.0.came.borrow();
        let numbers =
            came.iter().filter(|(from, _)| from.0 == id).filter_map(|(_, message)| match message {
                Message::Probe(probe) => Some(probe.ask.n),
                Message::Alive(alive) => Some(alive.ask.n),
                _ => None,
            });
        numbers.collect()
    }

    /// From now on a later life of every peer is known here.
    pub(super) fn knows_later(&self, incarnation: u64) {
        self.0.later.set(Some(incarnation));
    }

    /// Everybody met so far.
    pub(super) fn met(&self) -> Vec<PeerIdentity> {
        self.0.met.borrow().clone()
    }

    /// Answers probes through `bridge` from now on.
    pub(super) fn answer_through(&self, bridge: &BridgeHandle) {
        assert!(self.0.answers.set(bridge.clone()).is_ok());
    }
}

impl Inbound for Memory {
    fn deliver(&self, from: NodeId, message: Message, cause: Cause) {
        if let (Some(bridge), Message::Probe(probe)) = (self.0.answers.get(), &message) {
            bridge.send(from, &Alive { ask: probe.ask }.into(), cause);
        }
        self.0.came.borrow_mut().push((from, message));
    }

    fn met(&self, peer: PeerIdentity) {
        self.0.met.borrow_mut().push(peer);
    }

    fn later_life(&self, peer: PeerIdentity) -> Option<u64> {
        self.0.later.get().filter(|later| *later > peer.incarnation)
    }
}

/// A small message with a number.
pub(super) fn probe(n: u64) -> Message {
    Probe { ask: Ask { incarnation: 1, asker: 1, n } }.into()
}

/// Starts a node's bridge, in its first life.
pub(super) async fn start<N: Net>(net: &N, settings: &Settings) -> (BridgeHandle, Memory) {
    let me = u16::try_from(settings.me.0).unwrap();
    start_life(net, settings, life(me, 1)).await
}

/// Starts a node's bridge.
pub(super) async fn start_life<N: Net>(
    net: &N,
    settings: &Settings,
    life: PeerIdentity,
) -> (BridgeHandle, Memory) {
    let memory = Memory::default();
    let recorder = Recorder::off(Clock::system());
    let bridge = Bridge::new(settings);
    let bridge = bridge.start(net.clone(), settings, life, &recorder, memory.clone());
    let bridge = bridge.await.unwrap();
    (bridge, memory)
}
