//! A simulated node: the production actors in a `LocalSet` of their own.
//!
//! A `LocalSet` is all that a process is here. It is polled or, for a pause, not; dropped, its tasks
//! end between two polls, as a process that is killed.

use super::{beside::Beside, disk::SimDisk, fault, net::SimNet, rng::Rng, wire::Wire};
use crate::{
    clock::Clock,
    messages::NodeHandle,
    node::{Parts, StartError, expected, wire},
    settings::Settings,
    shards,
    storage::{CachedStore, Identity, MemoryPlace, Place, RecordCache, Store},
};
use simpledynamo_protocol::{ring::NodeId, time::WallMillis};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    ops::Range,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};
use tokio::{task::LocalSet, time::Instant};

/// What the wall clocks show at a run's start, Unix milliseconds: in November 2023.
pub const WALL_START: WallMillis = 1_700_000_000_000;

/// Notes that a node has something to do.
#[derive(Default)]
pub(super) struct Woken {
    flag: AtomicBool,
    outer: Mutex<Option<Waker>>,
}

impl Woken {
    pub(super) fn set_outer(&self, waker: &Waker) {
        *self.outer.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.flag.store(true, Ordering::Relaxed);
        let outer = self.outer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(outer) = outer {
            outer.wake();
        }
    }
}

/// How far a node is.
#[derive(Clone)]
pub(super) enum State {
    /// No process.
    Down,
    Starting,
    Running(NodeHandle),
    /// It ended itself and said why.
    Failed(String),
}

/// One node through all its lives.
pub(super) struct SimNode {
    pub(super) settings: Settings,
    pub(super) disk: SimDisk,
    pub(super) skew: Arc<AtomicI64>,
    /// How long a sync takes, microseconds.
    pub(super) sync: Rc<RefCell<Range<u64>>>,
    pub(super) paused: bool,
    beside: Option<Beside>,
    pub(super) woken: Arc<Woken>,
    state: Rc<RefCell<State>>,
    local: Option<LocalSet>,
}

impl SimNode {
    pub(super) fn new(settings: Settings, sync: Range<u64>, beside: Option<Beside>) -> SimNode {
        SimNode {
            settings,
            disk: SimDisk::default(),
            skew: Arc::default(),
            sync: Rc::new(RefCell::new(sync)),
            paused: false,
            beside,
            woken: Arc::default(),
            state: Rc::new(RefCell::new(State::Down)),
            local: None,
        }
    }

    pub(super) fn id(&self) -> NodeId {
        self.settings.me
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Whether it has ended itself.
    pub(super) fn has_failed(&self) -> bool {
        matches!(&*self.state.borrow(), State::Failed(_))
    }

    pub(super) fn serves(&self) -> bool {
        matches!(&*self.state.borrow(), State::Running(_))
    }

    pub(super) fn handle(&self) -> Option<NodeHandle> {
        match &*self.state.borrow() {
            State::Running(handle) => Some(handle.clone()),
            State::Down | State::Starting | State::Failed(_) => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.local.is_some()
    }

    /// The next life begins, on the disk as it is.
    pub(super) fn start(&mut self, network: &Rc<RefCell<Wire>>, origin: Instant, rng: &mut Rng) {
        self.disk = self.disk.next_life(rng);
        #[cfg(feature = "broken-rules")]
        self.tamper_with_disk();
        let node = self.id();
        let (life, place) = {
            let mut wire = network.borrow_mut();
            wire.disks.insert(node, self.disk.clone());
            let store = rng.any().max(1);
            let place = wire.places.entry(node).or_insert_with(|| MemoryPlace::new(store)).clone();
            (wire.boot(node), place)
        };
        let (skew, sync) = (self.skew.clone(), self.sync.clone());
        let life = Life {
            net: SimNet { wire: network.clone(), node, life },
            settings: self.settings.clone(),
            place: Place::Memory(place),
            disk: self.disk.clone(),
            origin,
            skew,
            sync,
            rng: Rng::new(rng.any(), u64::from(node.0)),
            beside: self.beside.clone(),
        };
        self.state = Rc::new(RefCell::new(State::Starting));
        self.paused = false;
        let (state, local) = (self.state.clone(), LocalSet::new());
        local.spawn_local(async move {
            let running = state.clone();
            let end = match life
                .run(move |handle| *running.borrow_mut() = State::Running(handle))
                .await
            {
                Ok(why) => why,
                Err(error) => error.to_string(),
            };
            *state.borrow_mut() = State::Failed(end);
        });
        self.local = Some(local);
        self.woken.flag.store(true, Ordering::Relaxed);
    }

    #[cfg(feature = "broken-rules")]
    fn tamper_with_disk(&self) {
        use super::broken::{Rule, is_broken};
        if is_broken(Rule::DurableCeiling) {
            self.disk.forget_ceiling();
        }
        if is_broken(Rule::AnswerAfterSync) {
            self.disk.lie();
        }
        if is_broken(Rule::DurableSeat) {
            self.disk.forget_seats(&self.settings.ring, self.id());
        }
    }

    /// The process is gone: its tasks, its memory, what it had not synced.
    pub(super) fn end(&mut self) {
        // A handle keeps mailboxes, and with them a router's clients, alive.
        let failed = matches!(&*self.state.borrow(), State::Failed(_));
        if !failed {
            *self.state.borrow_mut() = State::Down;
        }
        self.local = None;
        self.paused = false;
    }

    /// Starts a task in the node's process.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if let Some(local) = &self.local {
            local.spawn_local(task);
            self.woken.flag.store(true, Ordering::Relaxed);
        }
    }

    /// Lets the node do what it can do now; whether there was anything.
    pub(super) fn poll(&mut self) -> bool {
        if self.paused || self.local.is_none() || !self.woken.flag.swap(false, Ordering::Relaxed) {
            return false;
        }
        let waker = Waker::from(self.woken.clone());
        if let Some(local) = &mut self.local {
            let _ = Pin::new(local).poll(&mut Context::from_waker(&waker));
        }
        true
    }
}

/// What one life of a node is made of.
struct Life {
    net: SimNet,
    settings: Settings,
    place: Place,
    disk: SimDisk,
    origin: Instant,
    skew: Arc<AtomicI64>,
    sync: Rc<RefCell<Range<u64>>>,
    rng: Rng,
    beside: Option<Beside>,
}

impl Life {
    /// Runs until the node ends itself; gives the reason.
    async fn run(self, running: impl FnOnce(NodeHandle)) -> Result<String, StartError> {
        let Life { net, settings, place, disk, origin, skew, sync, mut rng, beside } = self;
        // Made here, in a poll: elsewhere tokio's clock shows the machine's time.
        let clock = Clock::with_wall(move || {
            let elapsed = u64::try_from(origin.elapsed().as_millis()).unwrap_or(0);
            (WALL_START + elapsed).saturating_add_signed(skew.load(Ordering::Relaxed))
        });
        let expected = expected(&settings, "simulated".to_owned(), &clock);
        let identity = Identity::open(place, &expected)?;
        let store: Arc<dyn Store> = Arc::new(disk.clone());
        let cache = RecordCache::seeded(settings.limits.cache_bytes, rng.any());
        let store = Arc::new(CachedStore::new(store, cache));
        let network = net.wire.clone();
        let (own_settings, own_clock) = (settings.clone(), clock.clone());
        let parts = Parts { settings, identity, store, clock };
        let (handle, mut stopper) = wire(net, parts, shards::Place::Here, |writer, replica| {
            let syncing = async move |writes: &[simpledynamo_protocol::effect::Write]| {
                let span = rng.within(&sync.borrow());
                #[cfg(feature = "broken-rules")]
                if super::broken::is_broken(super::broken::Rule::AnswerAfterSync) {
                    let (disk, network) = (disk.clone(), network.clone());
                    tokio::task::spawn_local(async move {
                        nap(&network, span).await;
                        disk.catch_up();
                    });
                    return;
                }
                disk.begin(writes);
                nap(&network, span).await;
            };
            tokio::task::spawn_local(writer.run(replica, syncing));
            Ok(None)
        })
        .await?;
        if let Some(beside) = beside {
            beside.start(handle.clone(), own_clock, &own_settings);
        }
        running(handle);
        Ok(stopper.failed().await)
    }
}

/// Waits, by the network's clock.
async fn nap(network: &RefCell<Wire>, span: u64) {
    let at = network.borrow().now() + span;
    let mut asked = false;
    poll_fn(|cx| {
        let mut wire = network.borrow_mut();
        if wire.now() >= at {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut asked, true) {
            wire.wake_at(at, cx.waker().clone());
        }
        Poll::Pending
    })
    .await;
}

/// The usual time of a sync, microseconds: fdatasync of a small append.
pub(super) fn usual_sync() -> Range<u64> {
    200..fault::micros(super::ms(2))
}
