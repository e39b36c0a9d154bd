//! One node: opens its directory, starts its actors, connects them.
//!
//! Contexts are made first, so that every actor knows the others' addresses when it starts; nothing
//! is looked up in a registry. The system is single-threaded but for the writer thread below the
//! replica and, where the configuration says so, [`shards`].

use crate::{
    bridge::{Bridge, BridgeHandle, Inbound, PeerIdentity, net::Net},
    clock::Clock,
    coordinator,
    detector::{self, Detector, Heard, Probed},
    flow::{self, Cause, Recorder},
    membership::{self, Membership, Met},
    messages::NodeHandle,
    metrics::Metrics,
    replica::{
        Chains, Close, Front, Locals, Queue, Replica, Shared, ToReplica, Voice, Watch, Writer,
        askers,
    },
    router::{self, FromNode, Router},
    scan::{self, Scan},
    settings::{Durability, Replication, Settings},
    shards::{self, BEAT, Place, Pulse, Shard, Shards, Threads, Waiting},
    storage::{
        CachedStore, Expected, Identity, NodeStore, RecordCache, Store, StoreError, boot_id,
    },
    sync::{self, Sync},
};
use actix::{Addr, AsyncContext, Context};
use simpledynamo_protocol::{
    chain::{self, Chain},
    message::{Ask, Message},
    register::{
        acceptor::{Acceptor, Durable, Standing},
        catchup::CatchUp,
        sweep::Sweep,
    },
    ring::NodeId,
};
use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};
use tokio::sync::watch;

/// Why a node cannot start; `Display` has the mend.
#[derive(Debug)]
pub enum StartError {
    /// Its directory.
    Store(StoreError),
    /// The network, or a thread.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Store(error) => error.fmt(f),
            StartError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> StartError {
        StartError::Store(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::Io(error)
    }
}

/// What ends a node from inside: a disk that fails, a store that is damaged. Nothing is acknowledged
/// after it.
#[derive(Clone)]
pub struct Fatal {
    tell: Arc<watch::Sender<Option<String>>>,
    identity: Arc<Mutex<Identity>>,
}

impl Fatal {
    /// The store failed. Where its bytes are damaged, the next start knows: the node sets the store
    /// aside and learns.
    pub fn store(&self, error: &StoreError) {
        if error.is_corrupt() {
            let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(unmarked) = identity.mark_damaged(&error.finding()) {
                log::error!("the damage could not be noted: {unmarked}");
            }
        }
        self.tell(&error.to_string());
    }

    /// The node must stop for this reason.
    pub fn tell(&self, what: &str) {
        log::error!("{what}; this node stops");
        self.tell.send_if_modified(|told| {
            let first = told.is_none();
            told.get_or_insert_with(|| what.to_owned());
            first
        });
    }
}

/// Stops a node.
pub struct Stopper {
    bridge: BridgeHandle,
    replica: Addr<Replica>,
    shards: Shards<Shard>,
    threads: Option<Threads>,
    writer: Option<JoinHandle<()>>,
    store: Arc<CachedStore<Arc<dyn Store>>>,
    failed: watch::Receiver<Option<String>>,
    identity: Arc<Mutex<Identity>>,
    recorder: Recorder,
    flow_writer: Option<JoinHandle<()>>,
}

impl Stopper {
    /// Waits until the node must stop by itself; says why.
    pub async fn failed(&mut self) -> String {
        match self.failed.wait_for(Option::is_some).await {
            Ok(told) => told.clone().unwrap_or_default(),
            Err(_) => "the node has ended".to_owned(),
        }
    }

    /// Ends in order: no more messages, what is queued is committed, the stop is noted.
    pub async fn stop(mut self) {
        self.bridge.stop();
        self.replica.do_send(Close);
        for shard in self.shards.iter() {
            shard.replica.do_send(Close);
        }
        if let Some(writer) = self.writer.take() {
            // Err: it panicked, which the panic hook has told.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        if let Some(threads) = self.threads {
            threads.end().await;
        }
        let me = self.recorder.reader();
        self.recorder.node_fact(flow::Event::Stop, NodeId(0), |_| {});
        me.close();
        if let Some(writer) = self.flow_writer.take() {
            // Err: it panicked, which the panic hook has told.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        if let Err(error) = self.store.commit(&[], Durability::Sync) {
            return log::warn!("what was stored last could not be synced: {error}");
        }
        let noted = self.identity.lock().unwrap_or_else(PoisonError::into_inner).stop_clean();
        if let Err(error) = noted {
            log::warn!("the stop could not be noted: {error}");
        }
    }
}

/// Starts one node. To be called inside an actix system.
///
/// # Errors
/// Its directory cannot be used, or its peer address cannot be listened at.
pub async fn start<N: Net>(
    net: N,
    settings: Settings,
) -> Result<(NodeHandle, Stopper), StartError> {
    let clock = Clock::system();
    let expected = expected(&settings, boot_id(), &clock);
    let NodeStore { identity, store } = NodeStore::open(&settings.data_dir, &expected)?;
    let store: Arc<dyn Store> = Arc::new(store);
    let cache = RecordCache::new(settings.limits.cache_bytes);
    let parts =
        Parts { settings, identity, store: Arc::new(CachedStore::new(store, cache)), clock };
    wire(net, parts, Place::Threads, |writer, replica| writer.spawn(replica).map(Some)).await
}

/// What the node's directory must be.
pub(crate) fn expected(settings: &Settings, boot: String, clock: &Clock) -> Expected {
    Expected {
        node: settings.me,
        cluster: settings.cluster_id,
        strategy: settings.strategy.clone(),
        durability: settings.durability,
        boot,
        first_incarnation: clock.now().wall,
    }
}

/// An open node before its actors run.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    pub(crate) store: Arc<CachedStore<Arc<dyn Store>>>,
    pub(crate) clock: Clock,
}

/// Starts the actors over an open store; `drive` lets the writer run. Where shards have no threads,
/// in a simulation, flow records are not written to files, and are in memory only.
pub(crate) async fn wire<N: Net>(
    net: N,
    Parts { settings, identity, store, clock }: Parts,
    place: Place,
    drive: impl FnOnce(Writer, Addr<Replica>) -> io::Result<Option<JoinHandle<()>>>,
) -> Result<(NodeHandle, Stopper), StartError> {
    let (me, incarnation) = (settings.me, identity.incarnation());
    let myself = PeerIdentity { id: me, store: identity.store(), incarnation };
    let voter = identity.is_member() && identity.learner().is_none();
    let standing = if voter { Standing::Voter } else { Standing::Outside };
    let identity = Arc::new(Mutex::new(identity));
    let (tell, failed) = watch::channel(None);
    let fatal = Fatal { tell: Arc::new(tell), identity: identity.clone() };

    let flow = settings.data_dir.join(flow::files::DIRECTORY);
    let flow = (place == Place::Threads).then_some(flow);
    let (recorder, flow_writer) =
        Recorder::start(me, incarnation, &settings.flow, flow.as_deref(), clock.clone())?;
    let time_from = recorder.is_on().then(|| clock.origin());

    let meta = store.meta()?;
    let durable = Durable { ceiling: meta.ceiling, absent_floor: meta.absent_floor };
    let kept = store.chains()?;
    let voice = voice(&settings, incarnation, durable, &kept, standing, &clock);
    let ring = settings.ring.clone();
    let metrics = Arc::new(Metrics::default());
    let watch = Watch { metrics: metrics.clone(), time_from };
    let (durability, its_store) = (settings.durability, store.clone());
    let (writer, queue, shared) =
        Writer::new(voice, its_store, durability, ring, clock.clone(), fatal.clone(), watch)?;

    let actors = Contexts::default();
    let apart = Waiting::prepare(settings.workers, place).await?;
    let addresses = actors.addresses(apart.as_ref());
    let bridge = Bridge::new(&settings);
    let chains = settings.replication == Replication::Chain;
    let (outlet, locals) = (bridge.outlet(&recorder), addresses.locals(&recorder));
    let (its_store, its_queue) = (store.clone(), queue.clone());
    let front = Front::new(me, its_store, its_queue, chains, outlet, locals, fatal.clone());
    let door = addresses.door(&front, apart.is_some(), &identity, &recorder);
    let bridge = bridge.start(net, &settings, myself, &recorder, door).await?;
    let flow = recorder.reader();
    let node = Node {
        addresses,
        front,
        bridge: bridge.clone(),
        clock,
        settings,
        incarnation,
        fatal,
        metrics,
        recorder,
    };
    let threads = apart.map(|apart| apart.run(&node.of_shards(&store, &queue)));
    let has_shards = threads.is_some();
    // The writer ends when every way to it is gone.
    drop(queue);
    let membership = node.membership(identity.clone(), shared);
    actors.run(&node, membership, (voter, has_shards));

    let (replica, shards) = (node.addresses.replica.clone(), node.addresses.shards.clone());
    let writer = drive(writer, replica.clone())?;
    let recorder = node.recorder.clone();
    let stopper = Stopper {
        bridge,
        replica,
        shards,
        threads,
        writer,
        store,
        failed,
        identity,
        recorder,
        flow_writer,
    };
    Ok((node.addresses.handle(node.metrics, flow), stopper))
}

/// What decides in the writer.
fn voice(
    settings: &Settings,
    incarnation: u64,
    durable: Durable,
    kept: &chain::Kept,
    standing: Standing,
    clock: &Clock,
) -> Voice {
    if settings.replication == Replication::Quorum {
        return Voice::Acceptor(Acceptor::new(settings.me, durable, standing));
    }
    let of_chain = chain::Settings {
        me: settings.me,
        ring: settings.ring.clone(),
        request_timeout: settings.request_timeout,
        value_bytes_max: settings.limits.value_bytes,
    };
    let chain = Chain::new(of_chain, incarnation, durable, kept, standing, clock.mono());
    Voice::Chains(Box::new(Chains::new(chain)))
}

/// What the actors of a node are made of.
struct Node {
    addresses: Addresses,
    front: Front,
    bridge: BridgeHandle,
    clock: Clock,
    settings: Settings,
    incarnation: u64,
    fatal: Fatal,
    metrics: Arc<Metrics>,
    recorder: Recorder,
}

impl Node {
    fn has_chains(&self) -> bool {
        self.settings.replication == Replication::Chain
    }

    fn ask(&self, asker: u64) -> Ask {
        Ask { incarnation: self.incarnation, asker, n: 0 }
    }

    /// The router of all keys, where they are not spread over threads.
    fn router(&self) -> Router {
        let Addresses { shards, detector, .. } = self.addresses.clone();
        let (router, replica) = (shards.of(&[]).router.clone(), self.front.clone());
        let (me, clock, bridge) = (self.settings.me, self.clock.clone(), self.bridge.outlet());
        let (metrics, recorder) = (self.metrics.clone(), self.recorder.clone());
        let common = coordinator::Common::default();
        let ways =
            coordinator::Ways { me, clock, router, replica, bridge, metrics, recorder, common };
        Router::new(self.settings.clone(), self.incarnation, router::Part::ALL, ways, detector)
    }

    /// Beats from now on.
    fn pulse(&self) -> Arc<Pulse> {
        let peers = self.settings.peers.iter().map(|peer| peer.id);
        let pulse = Arc::new(Pulse::new(self.clock.clone(), peers));
        let (beating, recorder) = (Arc::downgrade(&pulse), self.recorder.clone());
        actix::spawn(async move {
            while let Some(pulse) = beating.upgrade() {
                pulse.beat();
                recorder.turn();
                drop(pulse);
                tokio::time::sleep(BEAT).await;
            }
        });
        pulse
    }

    fn of_shards(&self, store: &Arc<CachedStore<Arc<dyn Store>>>, queue: &Queue) -> shards::Parts {
        let Addresses { shards, detector, membership, sync, scan, .. } = self.addresses.clone();
        shards::Parts {
            settings: self.settings.clone(),
            incarnation: self.incarnation,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            twin: self.recorder.twin(),
            links: self.bridge.outlet().links(),
            store: store.clone(),
            queue: queue.clone(),
            fatal: self.fatal.clone(),
            pulse: self.pulse(),
            shards,
            detector,
            membership,
            sync,
            scan,
        }
    }

    fn detector(&self) -> Detector {
        let Addresses { shards, membership, .. } = self.addresses.clone();
        let peers = self.settings.peers.iter().map(|peer| peer.id);
        let ask = self.ask(askers::DETECTOR);
        let (clock, bridge) = (self.clock.clone(), self.bridge.outlet());
        let (metrics, recorder) = (self.metrics.clone(), self.recorder.clone());
        let ways = detector::Ways { clock, bridge, shards, membership, metrics, recorder };
        Detector::new(peers, ways, ask)
    }

    fn membership(&self, identity: Arc<Mutex<Identity>>, shared: Arc<Shared>) -> Membership {
        let Addresses { shards, replica, sync, .. } = self.addresses.clone();
        let ways = membership::Ways { shards, replica, sync, bridge: self.bridge.clone(), shared };
        Membership::new(self.settings.clone(), identity, ways, self.fatal.clone())
    }

    fn sync(&self, learner: bool) -> Sync {
        let Addresses { shards, replica, membership, .. } = self.addresses.clone();
        let (me, clock, bridge) = (self.settings.me, self.clock.clone(), self.bridge.outlet());
        let ring = self.settings.ring.clone();
        let catch_up = CatchUp::new(me, ring.clone(), learner, self.ask(askers::CATCH_UP));
        let sweep = Sweep::new(me, ring, self.settings.tombstone_grace, self.ask(askers::SWEEP));
        let (metrics, recorder) = (self.metrics.clone(), self.recorder.clone());
        let ways = sync::Ways { me, clock, shards, replica, membership, bridge, metrics, recorder };
        Sync::new(ways, catch_up, sweep, self.has_chains())
    }

    fn scan(&self) -> Scan {
        let Addresses { shards, replica, .. } = self.addresses.clone();
        let (me, clock, bridge) = (self.settings.me, self.clock.clone(), self.bridge.outlet());
        let ways = scan::Ways { me, clock, shards, replica, bridge };
        let Settings { ring, mut read_quorum, deadline, .. } = self.settings.clone();
        if self.has_chains() {
            // The tail's listing.
            read_quorum = 1;
        }
        Scan::new(ways, scan::Config { ring, read_quorum, deadline }, self.ask(askers::SCAN))
    }
}

/// Every actor's context before it runs.
#[derive(Default)]
struct Contexts {
    router: Context<Router>,
    replica: Context<Replica>,
    detector: Context<Detector>,
    membership: Context<Membership>,
    sync: Context<Sync>,
    scan: Context<Scan>,
}

impl Contexts {
    fn run(self, node: &Node, membership: Membership, (voter, has_shards): (bool, bool)) {
        if !has_shards {
            self.router.run(node.router());
        }
        self.replica.run(Replica::new(node.front.clone()));
        self.detector.run(node.detector());
        self.sync.run(node.sync(!voter));
        self.scan.run(node.scan());
        self.membership.run(membership);
    }

    fn addresses(&self, apart: Option<&Waiting>) -> Addresses {
        let own = || Shard { router: self.router.address(), replica: self.replica.address() };
        Addresses {
            shards: apart.map_or_else(|| own().into(), Waiting::addresses),
            replica: self.replica.address(),
            detector: self.detector.address(),
            membership: self.membership.address(),
            sync: self.sync.address(),
            scan: self.scan.address(),
        }
    }
}

/// Every actor's address.
#[derive(Clone)]
struct Addresses {
    shards: Shards<Shard>,
    /// Lets out what was committed, and takes what concerns the node as a whole.
    replica: Addr<Replica>,
    detector: Addr<Detector>,
    membership: Addr<Membership>,
    sync: Addr<Sync>,
    scan: Addr<Scan>,
}

impl Addresses {
    fn locals(&self, recorder: &Recorder) -> Locals {
        let Addresses { shards, sync, scan, membership, .. } = self.clone();
        Locals { shards, sync, scan, membership, recorder: recorder.clone() }
    }

    fn door(
        &self,
        replica: &Front,
        spread: bool,
        identity: &Arc<Mutex<Identity>>,
        recorder: &Recorder,
    ) -> Door {
        let (addresses, replica) = (self.clone(), replica.clone());
        let (identity, recorder) = (identity.clone(), recorder.clone());
        Door { addresses, replica, spread, identity, recorder }
    }

    fn handle(self, metrics: Arc<Metrics>, flow: flow::Reader) -> NodeHandle {
        NodeHandle {
            execute: self.shards.map(|shard| shard.router.clone().recipient()),
            scan: self.scan.clone().recipient(),
            count: self.scan.recipient(),
            local_get: self.replica.clone().recipient(),
            local_page: self.replica.recipient(),
            table: self.membership.clone().recipient(),
            status: self.membership.clone().recipient(),
            traffic: self.membership.recipient(),
            metrics,
            flow,
        }
    }
}

/// Takes in what peers send and hands it to the actor it is for.
struct Door {
    addresses: Addresses,
    /// Of this thread.
    replica: Front,
    /// Keys are spread over threads: each answers the queries for its own.
    spread: bool,
    identity: Arc<Mutex<Identity>>,
    recorder: Recorder,
}

impl Inbound for Door {
    fn deliver(&self, from: NodeId, message: Message, cause: Cause) {
        let addresses = &self.addresses;
        match message {
            Message::Request(_)
            | Message::Answer(_)
            | Message::Promise(_)
            | Message::Accepted(_)
            | Message::Refused(_)
            | Message::State(_)
            | Message::NoVote(_) => {
                addresses.shards.tell_routers(FromNode { from, message, cause });
            }
            Message::Query(ref query) if self.spread => {
                let shard = addresses.shards.of(&query.key);
                shard.replica.do_send(ToReplica { from, message, cause });
            }
            Message::Query(_)
            | Message::Prepare(_)
            | Message::Accept(_)
            | Message::AskDigests(_)
            | Message::AskList(_)
            | Message::Fetch(_)
            | Message::Collect(_)
            | Message::ConfigRound(_)
            | Message::Forward(_)
            | Message::Acked(_)
            | Message::Confirm(_)
            | Message::Confirmed(_)
            | Message::Survey(_)
            | Message::Present(_)
            | Message::Attach(_)
            | Message::Attached(_) => self.replica.take(from, message, cause),
            Message::Announce(_) => {
                let told = FromNode { from, message: message.clone(), cause };
                addresses.shards.tell_routers(told);
                self.replica.take(from, message, cause);
            }
            Message::Probe(probe) => {
                addresses.detector.do_send(Probed { node: from, probe, cause });
            }
            Message::Alive(_) => addresses.detector.do_send(Heard { node: from }),
            Message::Digests(_) | Message::Listed(_) | Message::Records(_)
                if message.asker() == Some(askers::SCAN) =>
            {
                addresses.scan.do_send(scan::FromReplica { from, message });
            }
            Message::Digests(_) | Message::Listed(_) | Message::Records(_)
                if message.asker() == Some(askers::CHAIN) =>
            {
                self.replica.take(from, message, cause);
            }
            Message::Digests(_) | Message::Listed(_) | Message::Records(_) | Message::Missed(_) => {
                addresses.sync.do_send(sync::FromReplica { from, message });
            }
            Message::Keep(keep) => {
                let since = self.recorder.now().saturating_sub(u64::from(keep.ago) * 1_000);
                self.recorder.keep(keep.op, &keep.key, since);
            }
            Message::Greet(_) | Message::Welcome(_) => {
                addresses.membership.do_send(membership::FromPeer { from, message });
            }
        }
    }

    fn met(&self, peer: PeerIdentity) {
        self.addresses.membership.do_send(Met(peer));
    }

    fn later_life(&self, peer: PeerIdentity) -> Option<u64> {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        let known = identity.peers().get(&peer.id)?.incarnation;
        (known > peer.incarnation).then_some(known)
    }
}
