//! What a scenario speaks to.

use super::{
    Failure,
    beside::Beside,
    fault::{micros, micros_of},
    log::Log,
    ms,
    node::{SimNode, usual_sync},
    panics,
    rng::Rng,
    wire::{Traffic, Wire},
    world::World,
};
use crate::{
    clock::Clock,
    messages::{NodeHandle, Phase, Status},
    settings::{Durability, Flow, Limits, Peer, Replication, Settings},
};
use simpledynamo_protocol::ring::{NodeId, Ring};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::poll_fn,
    net::SocketAddr,
    ops::{Deref, DerefMut, Range},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

/// What a run is made of. The default is the shipped ring of five with shipped time-outs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything that happens is a function of it.
    pub seed: u64,
    /// The nodes' ids.
    pub nodes: Vec<u32>,
    /// Silence after which a router asks the next coordinator.
    pub request_timeout: Duration,
    /// The least silence after which a router asks a second coordinator as well.
    pub hedge_after: Duration,
    /// When a client gets an error.
    pub deadline: Duration,
    /// Coordinators alive at one node.
    pub coordinators: usize,
    /// How keys are replicated.
    pub replication: Replication,
    /// How long a sync takes.
    pub sync: Range<Duration>,
    /// Age at which a tombstone held by all replicas may be forgotten.
    pub tombstone_grace: Duration,
    /// Shards that each node's keys are spread over; 0: none. A simulation runs them on one thread.
    pub workers: usize,
    /// Whether the text of the message log is kept, for [`Sim::messages`].
    pub keep_log: bool,
    /// What runs in each node's process beside its own actors, from [`Config::beside`].
    pub beside: Option<Beside>,
    /// The rule of the protocol that is taken out.
    #[cfg(feature = "broken-rules")]
    pub broken: Option<super::broken::Rule>,
}

impl Config {
    /// The default, with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Config {
        let sync = usual_sync();
        Config {
            seed,
            nodes: vec![5554, 5556, 5558, 5560, 5562],
            request_timeout: ms(100),
            hedge_after: ms(10),
            deadline: ms(2_000),
            coordinators: Limits::default().coordinators,
            replication: Replication::Quorum,
            sync: Duration::from_micros(sync.start)..Duration::from_micros(sync.end),
            tombstone_grace: Duration::from_secs(3_600),
            workers: 0,
            keep_log: false,
            beside: None,
            #[cfg(feature = "broken-rules")]
            broken: None,
        }
    }

    /// Starts actors of one's own in each node's process, each time it starts: `start` gets what the
    /// node's front ends get, the node's clock and its settings.
    #[must_use]
    pub fn beside(
        mut self,
        start: impl Fn(NodeHandle, Clock, &Settings) + Send + Sync + 'static,
    ) -> Config {
        self.beside = Some(Beside::new(start));
        self
    }

    fn settings(&self, me: NodeId) -> Settings {
        let address = |place: usize| {
            SocketAddr::from(([10, 0, 0, 1], u16::try_from(12_000 + place).unwrap_or(u16::MAX)))
        };
        let ids = self.nodes.iter().map(|id| NodeId(*id));
        let peers: Vec<_> =
            ids.clone().enumerate().map(|(at, id)| Peer { id, address: address(at) }).collect();
        let listen = peers.iter().find(|peer| peer.id == me).map_or(address(0), |it| it.address);
        let strategy = match self.replication {
            Replication::Quorum => "quorum, 3 replicas, read 2, write 2",
            Replication::Chain => "chain, 3 replicas",
        };
        Settings {
            me,
            listen,
            peers: peers.into_iter().filter(|peer| peer.id != me).collect(),
            ring: Ring::new(ids, 3),
            read_quorum: self.quorum(),
            write_quorum: self.quorum(),
            request_timeout: self.request_timeout,
            hedge_after: self.hedge_after,
            deadline: self.deadline,
            tombstone_grace: self.tombstone_grace,
            workers: self.workers,
            replication: self.replication,
            strategy: strategy.to_owned(),
            durability: Durability::Sync,
            // In memory: the traces travel, and what is taken down is nobody's.
            flow: Flow { memory_bytes: 64 * 1024, ..Flow::default() },
            limits: Limits {
                // Small, so that records are evicted and read again.
                cache_bytes: 256 * 1024,
                coordinators: self.coordinators,
                ..Limits::default()
            },
            cluster_id: 1,
            secret: None,
            data_dir: PathBuf::new(),
        }
    }

    #[cfg(feature = "broken-rules")]
    fn quorum(&self) -> usize {
        if self.broken == Some(super::broken::Rule::Majority) { 1 } else { 2 }
    }

    #[cfg(not(feature = "broken-rules"))]
    fn quorum(&self) -> usize {
        2
    }

    /// Starts the ring and waits until every node serves.
    ///
    /// # Panics
    /// If the ring does not come up: nothing a scenario does would mean anything.
    #[must_use]
    pub fn start(self) -> Sim {
        match Sim::start(self) {
            Ok(sim) => sim,
            Err(failure) => panic!("{failure}"),
        }
    }
}

/// The shipped ring of five, up and serving, on simulated time. `SEED` in the environment replaces
/// the seed.
#[must_use]
pub fn sim(seed: u64) -> Sim {
    Config::new(seed_or(seed)).start()
}

/// The seed in the environment's `SEED`, else this one.
#[must_use]
pub fn seed_or(seed: u64) -> u64 {
    std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(seed)
}

/// A simulated ring.
pub struct Sim {
    pub(super) world: World,
    pub(super) runtime: Runtime,
    pub(super) config: Config,
    /// Whether the scenario was told that an actor died.
    pub(super) told: bool,
}

impl Sim {
    pub(super) fn start(config: Config) -> Result<Sim, Failure> {
        #[cfg(feature = "broken-rules")]
        super::broken::take_out(config.broken);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| Failure { text: error.to_string() })?;
        let entered = runtime.enter();
        let origin = Instant::now();
        let settings = config.nodes.iter().map(|id| config.settings(NodeId(*id)));
        let nodes: BTreeMap<_, _> = settings
            .map(|settings| {
                let node = SimNode::new(settings, micros_of(&config.sync), config.beside.clone());
                (node.id(), node)
            })
            .collect();
        let addresses = nodes.values().map(|node| (node.settings.listen, node.id())).collect();
        let log = Log::new(config.keep_log);
        let mut wire = Wire::new(origin, Rng::new(config.seed, 1), addresses, log);
        wire.invariants.chains = config.replication == Replication::Chain;
        let wire = Rc::new(RefCell::new(wire));
        let ids: Vec<_> = nodes.keys().copied().collect();
        let mut world = World::new(origin, Rng::new(config.seed, 2), wire, nodes);
        for id in ids {
            world.boot(id, false);
        }
        drop(entered);
        let mut sim = Sim { world, runtime, config, told: false };
        sim.until_serving()?;
        Ok(sim)
    }

    /// Runs until every node that is up serves.
    ///
    /// # Errors
    /// A node does not, within a minute.
    pub fn until_serving(&mut self) -> Result<(), Failure> {
        for _ in 0..3_000 {
            let statuses = self.statuses()?;
            let up = self.nodes.values().filter(|node| node.is_up()).count();
            let serve = statuses.values().all(|status| self.is_whole(status));
            if serve && statuses.len() == up {
                return Ok(());
            }
            self.advance(ms(20))?;
        }
        Err(self.failure("a node does not come to serve"))
    }

    /// Whether a node serves; a member of a chain once it holds all again.
    pub(super) fn is_whole(&self, status: &Status) -> bool {
        let chains = self.config.replication == Replication::Chain;
        status.phase == Phase::Serving && (status.level || !chains)
    }

    /// The seed of this run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.config.seed
    }

    /// What the network has counted.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.world.wire.borrow().traffic
    }

    /// How many entries the message log has, and a number that is the same for the same log only.
    #[must_use]
    pub fn digest(&self) -> (u64, u64) {
        self.world.wire.borrow().log.digest()
    }

    /// The message log, where [`Config::keep_log`] asked for it: sendings, arrivals (indented), faults.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        self.world.wire.borrow().log.lines().to_vec()
    }

    pub(super) fn failure(&self, what: &str) -> Failure {
        Failure { text: format!("{what}\n{}", self.replay()) }
    }

    /// How to see it again.
    pub(super) fn replay(&self) -> String {
        format!("replay: SEED={} and the same test", self.config.seed)
    }

    /// Runs until `done`, at most for `span`; whether it was done.
    ///
    /// # Errors
    /// An actor has died, or a rule was broken.
    pub(super) fn run(
        &mut self,
        span: Duration,
        mut done: impl FnMut(&mut World) -> bool,
    ) -> Result<bool, Failure> {
        let Sim { world, runtime, .. } = self;
        let until = world.now().saturating_add(micros(span));
        let result =
            panics::watch(|| runtime.block_on(poll_fn(|cx| world.poll(cx, until, &mut done))));
        if let Some(died) = self.world.died.clone() {
            self.told = true;
            return Err(self.failure(&died));
        }
        Ok(result)
    }

    /// Lets so much time pass.
    ///
    /// # Errors
    /// An actor has died, or a rule was broken.
    pub fn advance(&mut self, span: Duration) -> Result<(), Failure> {
        self.run(span, |_| false).map(|_| ())
    }
}

impl Deref for Sim {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Sim {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // Timers that are dropped look for their runtime.
        let _entered = self.runtime.enter();
        for id in self.world.ids() {
            self.world.crash(id);
        }
        let died = self.world.died.take().filter(|_| !self.told && !std::thread::panicking());
        if let Some(died) = died {
            panic!("{died}\n{}", self.replay());
        }
    }
}
