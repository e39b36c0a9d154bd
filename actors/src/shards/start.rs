//! How the shards of a node come to run, and end.

use super::{Pulse, Shard, Shards, Share};
use crate::{
    bridge::Links,
    clock::Clock,
    coordinator,
    detector::Detector,
    flow::Twin,
    membership::Membership,
    metrics::Metrics,
    node::Fatal,
    replica::{Front, Locals, Queue, Replica},
    router::{Part, Router},
    scan::Scan,
    settings::Settings,
    storage::{CachedStore, Store},
    sync::Sync,
};
use actix::{Addr, Arbiter, AsyncContext, Context};
use std::{io, sync::Arc};
use tokio::sync::oneshot;

/// Where the actors of shards run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Each on a thread of its own.
    Threads,
    /// On this thread: a simulation sees every message.
    #[cfg_attr(not(feature = "harness"), expect(dead_code, reason = "simulations only"))]
    Here,
}

/// What the actors of a shard are made of; any thread may make them.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) incarnation: u64,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) twin: Twin,
    pub(crate) links: Links,
    pub(crate) store: Arc<CachedStore<Arc<dyn Store>>>,
    pub(crate) queue: Queue,
    pub(crate) fatal: Fatal,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) shards: Shards<Shard>,
    pub(crate) detector: Addr<Detector>,
    pub(crate) membership: Addr<Membership>,
    pub(crate) sync: Addr<Sync>,
    pub(crate) scan: Addr<Scan>,
}

/// The contexts of a shard's actors, before these run.
#[derive(Default)]
struct Contexts {
    router: Context<Router>,
    replica: Context<Replica>,
}

impl Contexts {
    fn shard(&self) -> Shard {
        Shard { router: self.router.address(), replica: self.replica.address() }
    }

    /// On the shard's own thread.
    fn run(self, share: Share, parts: Parts) {
        let router = self.router.address();
        let Parts { settings, incarnation, clock, metrics, store, queue, fatal, .. } = parts;
        let Parts { shards, detector, membership, sync, scan, .. } = parts;
        let recorder = parts.twin.open();
        let bridge = parts.links.outlet(recorder.clone());
        let locals = Locals { shards, sync, scan, membership, recorder: recorder.clone() };
        let (me, outlet) = (settings.me, bridge.clone());
        let replica = Front::new(me, store, queue, false, outlet, locals, fatal);
        self.replica.run(Replica::new(replica.clone()).apart());
        let common = coordinator::Common::default();
        let ways =
            coordinator::Ways { me, clock, router, replica, bridge, metrics, recorder, common };
        let part = Part { share, pulse: Some(parts.pulse) };
        self.router.run(Router::new(settings, incarnation, part, ways, detector));
    }
}

/// Shards that have addresses and wait for what they are made of.
pub(crate) struct Waiting {
    addresses: Shards<Shard>,
    parts: Vec<oneshot::Sender<Parts>>,
    threads: Threads,
}

impl Waiting {
    /// Prepares so many; none where there are to be none.
    ///
    /// # Errors
    /// The operating system's, where it gives no thread.
    pub(crate) async fn prepare(count: usize, place: Place) -> io::Result<Option<Waiting>> {
        let (mut addresses, mut parts) = (Vec::new(), Vec::new());
        let mut threads = Threads::default();
        for index in 0..count {
            let share = Share { index, of: count };
            let (tell, told) = oneshot::channel();
            let (give, given) = oneshot::channel();
            let life = move || async move {
                let contexts = Contexts::default();
                // Err: this node is stopping.
                if tell.send(contexts.shard()).is_ok()
                    && let Ok(parts) = given.await
                {
                    contexts.run(share, parts);
                }
            };
            match place {
                Place::Here => drop(actix::spawn(life())),
                Place::Threads => {
                    let arbiter = Arbiter::try_new()?;
                    arbiter.spawn_fn(|| drop(actix::spawn(life())));
                    threads.0.push(arbiter);
                }
            }
            addresses.push(told.await.map_err(|_| io::Error::other("a shard did not start"))?);
            parts.push(give);
        }
        let waiting = |addresses| Waiting { addresses, parts, threads };
        Ok(Shards::all(addresses).map(waiting))
    }

    /// Where they can be reached.
    pub(crate) fn addresses(&self) -> Shards<Shard> {
        self.addresses.clone()
    }

    /// Lets them run; gives their threads.
    pub(crate) fn run(self, parts: &Parts) -> Threads {
        for give in self.parts {
            // Err: this node is stopping.
            let _ = give.send(parts.clone());
        }
        self.threads
    }
}

/// The threads of shards; they end when this is dropped.
#[derive(Default)]
pub(crate) struct Threads(Vec<Arbiter>);

impl Threads {
    /// Ends them and waits for it.
    pub(crate) async fn end(mut self) {
        for thread in std::mem::take(&mut self.0) {
            thread.stop();
            // Err: it panicked, which the panic hook has told.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for thread in &self.0 {
            thread.stop();
        }
    }
}
