//! The writer thread: the acceptor's state machine over the store, with group commit.
//!
//! It takes what has gathered in its queue, at most [`BATCH_OPERATIONS`] or [`BATCH_BYTES`], lets
//! the acceptor decide each in order over the store and an overlay of the batch's own writes,
//! commits once, and only then lets every answer out, refusals included. There is no timer: while
//! one sync runs the next batch gathers. A failed commit is never tried again and nothing after it
//! is acknowledged: the node stops.
//!
//! Listings and digests are answered here too, behind the commit of what came before them.

use super::{
    Committed, Out, Part, Replica, askers,
    chain::Chains,
    listing,
    queue::{Queue, Queued, Shared, Work},
    waited,
};
use crate::{
    clock::Clock,
    flow::{Cause, Origin},
    metrics::Metrics,
    node::Fatal,
    storage::{CachedStore, Durability, Store, StoreError},
};
use actix::Addr;
use simpledynamo_protocol::{
    chain::Rows,
    effect::{Effect, Effects, Write},
    message::{Ask, AskDigests, AskList, Message},
    record::{Key, Record},
    register::{
        acceptor::{Acceptor, Standing},
        digest::Digests,
    },
    ring::{NodeId, RangeId, Ring},
    time::Now,
};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    sync::{mpsc::Receiver, oneshot},
    time::Instant,
};

/// Operations in one commit.
pub(super) const BATCH_OPERATIONS: usize = 1_024;
/// Bytes of records in one commit.
pub(super) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// How often the store is asked how much of the disk it takes.
const WEIGH_EVERY: Duration = Duration::from_secs(1);

/// What decides: the acceptor of every key's register, or the chains.
pub enum Voice {
    /// Quorums.
    Acceptor(Acceptor),
    /// Chains.
    Chains(Box<Chains>),
}

impl Voice {
    fn standing(&self) -> Standing {
        match self {
            Voice::Acceptor(acceptor) => acceptor.standing(),
            Voice::Chains(chains) => chains.machine().standing(),
        }
    }

    fn ceiling(&self) -> u64 {
        match self {
            Voice::Acceptor(acceptor) => acceptor.ceiling(),
            Voice::Chains(chains) => chains.machine().ceiling(),
        }
    }

    /// Tombstones up to this round may have been collected. A chain holds a tombstone everywhere
    /// before it is old, so where one is missing it was collected.
    fn absent_floor(&self) -> u64 {
        match self {
            Voice::Acceptor(acceptor) => acceptor.absent_floor(),
            Voice::Chains(_) => u64::MAX,
        }
    }

    fn votes(&self, range: RangeId, ask: Ask) -> bool {
        match self {
            Voice::Acceptor(acceptor) => acceptor.standing() == Standing::Voter,
            Voice::Chains(chains) => chains.votes(range, ask),
        }
    }

    fn is_level(&self) -> Option<bool> {
        match self {
            Voice::Acceptor(_) => None,
            Voice::Chains(chains) => Some(chains.machine().is_level()),
        }
    }
}

/// What a writer tells about itself.
pub struct Watch {
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// What flow records count their time from; none where nothing is taken down.
    pub time_from: Option<Instant>,
}

/// The writer before its thread runs.
pub struct Writer {
    voice: Voice,
    store: Arc<CachedStore<Arc<dyn Store>>>,
    durability: Durability,
    ring: Ring,
    digests: Digests,
    shared: Arc<Shared>,
    receiver: Receiver<Queued>,
    /// Chains: when what is being done was handed in.
    now: Now,
    fatal: Fatal,
    batch: Batch,
    metrics: Arc<Metrics>,
    weighed: Option<Instant>,
    /// What flow records count their time from; none where nothing is taken down.
    time_from: Option<Instant>,
}

/// What the batch makes of a key.
struct Change {
    /// Before the batch.
    old: Option<Arc<Record>>,
    /// After it, as far as it goes.
    new: Option<Arc<Record>>,
}

/// What one commit gathers.
#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    overlay: HashMap<Key, Change>,
    effects: Effects,
    out: Vec<Out>,
    /// Questions that must see the commit.
    reads: Vec<(NodeId, Message, Origin)>,
    operations: u64,
    /// Of the latest work that a recorded request caused: what chains pass on together names it.
    latest: Origin,
    /// Who waits until something is forgotten or durable.
    settled: Vec<oneshot::Sender<()>>,
    /// When it was gathered, on the clock of flow records.
    gathered: u64,
}

impl Writer {
    /// A writer over `store` and the queue to it. Reads the whole store once, for the digests.
    ///
    /// # Errors
    /// The store's.
    pub fn new(
        voice: Voice,
        store: Arc<CachedStore<Arc<dyn Store>>>,
        durability: Durability,
        ring: Ring,
        clock: Clock,
        fatal: Fatal,
        watch: Watch,
    ) -> Result<(Writer, Queue, Arc<Shared>), StoreError> {
        let mut digests = Digests::new(ring.clone());
        store.list(0, u64::MAX, &mut |row| {
            digests.add_row(&row);
            std::ops::ControlFlow::Continue(())
        })?;
        let (queue, shared, receiver) =
            Queue::new(matches!(voice, Voice::Chains(_)).then_some(clock));
        let batch = Batch::default();
        let mut writer = Writer {
            voice,
            store,
            durability,
            ring,
            digests,
            shared: shared.clone(),
            receiver,
            now: Now::default(),
            fatal,
            batch,
            metrics: watch.metrics,
            weighed: None,
            time_from: watch.time_from,
        };
        writer.publish();
        writer.publish_standing();
        Ok((writer, queue, shared))
    }

    /// Runs until every [`Queue`] is dropped, or until a commit fails.
    ///
    /// # Errors
    /// The operating system's, where it gives no thread.
    pub fn spawn(mut self, replica: Addr<Replica>) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
            while let Some(first) = self.receiver.blocking_recv() {
                // Whoever else waits for this processor may have more for the batch: on busy cores a
                // quarter fewer syncs were measured, on idle ones it costs nothing.
                std::thread::yield_now();
                let turned = self.gather(first).and_then(|()| self.settle(&replica));
                if let Err(error) = turned {
                    return self.fatal.store(&error);
                }
            }
        })
    }

    /// The same as a task of a simulated node: `sync` stands for the time a commit takes, and sees
    /// what it will write.
    #[cfg(feature = "harness")]
    pub(crate) async fn run(mut self, replica: Addr<Replica>, mut sync: impl AsyncFnMut(&[Write])) {
        while let Some(first) = self.receiver.recv().await {
            if let Err(error) = self.gather(first) {
                return self.fatal.store(&error);
            }
            if !self.batch.writes.is_empty() {
                sync(&self.batch.writes).await;
            }
            if let Err(error) = self.settle(&replica) {
                return self.fatal.store(&error);
            }
        }
    }

    /// Takes one batch out of the queue; the acceptor decides.
    fn gather(&mut self, first: Queued) -> Result<(), StoreError> {
        let (mut operations, mut bytes) = (0, 0);
        self.batch.gathered = self.time();
        self.batch.latest = Origin::from(Cause::NONE);
        let mut next = Some(first);
        while let Some(queued) = next.take() {
            // Never back: who hands in may have been stopped between its clock and the queue.
            self.now.mono = self.now.mono.max(queued.now.mono);
            self.now.wall = queued.now.wall;
            self.shared.waiting.fetch_sub(queued.bytes, Ordering::Relaxed);
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            (operations, bytes) = (operations + 1, bytes + queued.bytes);
            self.step(queued.work)?;
            if operations < BATCH_OPERATIONS && bytes < BATCH_BYTES {
                next = self.receiver.try_recv().ok();
            }
        }
        self.with_chains(self.batch.latest, |chains, now, rows, effects| {
            chains.flush(now, rows, effects)
        })?;
        self.batch.operations = operations as u64;
        Ok(())
    }

    /// Commits the batch and lets its answers out.
    fn settle(&mut self, replica: &Addr<Replica>) -> Result<(), StoreError> {
        self.commit()?;
        let reads = std::mem::take(&mut self.batch.reads);
        for (to, message, origin) in reads {
            if let Some(message) = self.read(message)? {
                self.batch.out.push(Out { to, message, origin });
            }
        }
        let mut out = std::mem::take(&mut self.batch.out);
        if self.time_from.is_some() {
            let handling = waited(self.batch.gathered, self.time());
            out.iter_mut().for_each(|out| out.origin.handling = handling);
        }
        self.publish_standing();
        replica.do_send(Committed { out, level: self.voice.is_level() });
        for done in std::mem::take(&mut self.batch.settled) {
            // Who waited may be gone.
            let _ = done.send(());
        }
        Ok(())
    }

    /// Microseconds on the clock of flow records; 0 where nothing is taken down.
    fn time(&self) -> u64 {
        let micros = self.time_from.map_or(0, |from| from.elapsed().as_micros());
        u64::try_from(micros).unwrap_or(u64::MAX)
    }

    /// Lets the chains do something; their writes go to the batch and its overlay.
    fn with_chains(
        &mut self,
        origin: Origin,
        act: impl FnOnce(&mut Chains, Now, Rows<'_>, &mut Effects),
    ) -> Result<(), StoreError> {
        let Voice::Chains(chains) = &mut self.voice else { return Ok(()) };
        let mut effects = std::mem::take(&mut self.batch.effects);
        let (overlay, store) = (&self.batch.overlay, &self.store);
        let mut failed = None;
        let mut rows = |key: &Key| match overlay.get(key) {
            Some(change) => change.new.as_deref().cloned(),
            None => store
                .read(key)
                .unwrap_or_else(|error| {
                    failed = Some(error);
                    None
                })
                .as_deref()
                .cloned(),
        };
        act(chains, self.now, &mut rows, &mut effects);
        if let Some(error) = failed {
            return Err(error);
        }
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist(write) => {
                    if let Write::Seat(range, seat) = &write {
                        log::info!("range {}: the chain is {}", range.0, seat.config);
                    }
                    let stored = match &write {
                        Write::Put(key, _) | Write::Remove(key)
                            if !self.batch.overlay.contains_key(key) =>
                        {
                            self.store.read(key)?
                        }
                        _ => None,
                    };
                    self.batch.persist(write, stored.as_ref());
                }
                Effect::Send { to, message } => self.batch.out.push(Out { to, message, origin }),
                Effect::List { to, question } => self.batch.reads.push((to, question, origin)),
                // Chains begin their ballots themselves.
                Effect::Begin { .. } | Effect::Note(_) => {}
            }
        }
        self.batch.effects = effects;
        Ok(())
    }

    fn step_chains(&mut self, work: Work, origin: Origin) -> Result<(), StoreError> {
        if origin.cause != Cause::NONE {
            self.batch.latest = origin;
        }
        match work {
            Work::Message { from, message, .. } => match message {
                Message::AskDigests(_) | Message::AskList(_) | Message::Fetch(_)
                    if !waits_for_the_epoch(&message) =>
                {
                    self.batch.reads.push((from, message, origin));
                    Ok(())
                }
                message => self.with_chains(origin, |chains, now, rows, effects| {
                    chains.message(now, from, message, rows, effects);
                }),
            },
            Work::Part { part, done } => {
                self.batch.settled.push(done);
                self.with_chains(origin, |chains, now, _, effects| chains.part(now, part, effects))
            }
            Work::Tick => self
                .with_chains(origin, |chains, now, rows, effects| chains.tick(now, rows, effects)),
            Work::Forget { node, done } => {
                self.batch.settled.push(done);
                self.with_chains(origin, |chains, _, _, _| chains.forget(node))
            }
            Work::Begin { .. } | Work::Install { .. } => Ok(()),
        }
    }

    /// The acceptor decides; its writes go to the batch and its overlay.
    fn step(&mut self, work: Work) -> Result<(), StoreError> {
        let cause = work.cause();
        let origin = Origin { cause, queue: waited(cause.at, self.batch.gathered), handling: 0 };
        if matches!(self.voice, Voice::Chains(_)) {
            return self.step_chains(work, origin);
        }
        let Some(key) = work.key().cloned() else { return self.step_without_key(work, origin) };
        let stored = match self.batch.overlay.get(&key) {
            Some(change) => change.new.clone(),
            None => self.store.read(&key)?,
        };
        let mut effects = std::mem::take(&mut self.batch.effects);
        let (Voice::Acceptor(acceptor), held) = (&mut self.voice, stored.as_deref()) else {
            return Ok(());
        };
        match work {
            Work::Begin { key, above, .. } => acceptor.begin(&key, above, held, &mut effects),
            Work::Install { key, record } => acceptor.install(key, record, held, &mut effects),
            Work::Part { .. } | Work::Tick | Work::Forget { .. } => {}
            Work::Message { from, message, .. } => match message {
                Message::Prepare(ask) => acceptor.prepare(from, &ask, held, &mut effects),
                Message::Accept(ask) => acceptor.accept(from, ask, held, &mut effects),
                Message::Collect(ask) => acceptor.collect(&ask, held, &mut effects),
                _ => {}
            },
        }
        self.batch.take(&mut effects, stored.as_ref(), origin);
        self.batch.effects = effects;
        Ok(())
    }

    fn step_without_key(&mut self, work: Work, origin: Origin) -> Result<(), StoreError> {
        let mut effects = Effects::new();
        let Voice::Acceptor(acceptor) = &mut self.voice else { return Ok(()) };
        match work {
            Work::Part { part, done } => {
                self.batch.settled.push(done);
                match part {
                    Part::Learn { ceiling, .. } => acceptor.learn(ceiling, &mut effects),
                    Part::Vote => acceptor.vote(),
                }
            }
            Work::Message { from, message, .. } => self.batch.reads.push((from, message, origin)),
            // Its coordinators were told.
            Work::Forget { done, .. } => self.batch.settled.push(done),
            Work::Begin { .. } | Work::Install { .. } | Work::Tick => {}
        }
        self.batch.take(&mut effects, None, origin);
        Ok(())
    }

    /// Makes the batch durable and keeps up what is derived from it.
    fn commit(&mut self) -> Result<(), StoreError> {
        if self.batch.writes.is_empty() {
            return Ok(());
        }
        for (key, Change { old, new }) in &self.batch.overlay {
            self.digests.change(key, old.as_deref(), new.as_deref());
        }
        let began = Instant::now();
        self.store.commit(&self.batch.writes, self.durability)?;
        self.metrics.commit_time.record_time(began.elapsed());
        self.metrics.commit_operations.record(self.batch.operations);
        self.batch.writes.clear();
        self.batch.overlay.clear();
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.committed.fetch_add(self.batch.operations, Ordering::Relaxed);
        self.publish();
        Ok(())
    }

    fn publish_standing(&self) {
        let votes = self.voice.standing() == Standing::Voter;
        self.shared.votes.store(votes, Ordering::SeqCst);
    }

    fn publish(&mut self) {
        let (rows, live) = self.digests.totals();
        self.shared.ceiling.store(self.voice.ceiling(), Ordering::SeqCst);
        self.shared.rows.store(rows, Ordering::Relaxed);
        self.shared.live.store(live, Ordering::Relaxed);
        if self.weighed.is_none_or(|weighed| weighed.elapsed() >= WEIGH_EVERY) {
            self.weighed = Some(Instant::now());
            self.shared.disk_bytes.store(self.store.disk_bytes(), Ordering::Relaxed);
        }
    }

    fn read(&self, message: Message) -> Result<Option<Message>, StoreError> {
        match message {
            Message::AskDigests(ask) => {
                let votes = self.voice.votes(ask.range, ask.ask);
                Ok(listing::digests(&self.digests, &ask, votes))
            }
            Message::AskList(ask) => {
                let votes = self.voice.votes(ask.range, ask.ask);
                let floor = self.voice.absent_floor();
                listing::list(&self.store, &self.ring, &ask, votes, floor).map(Some)
            }
            Message::Fetch(ask) => listing::fetch(&self.store, &ask).map(Some),
            other => {
                log::debug!("not for a replica: {other}");
                Ok(None)
            }
        }
    }
}

/// Whether a client waits for what is asked, as for a read: a tail answers it once its epoch was
/// confirmed.
fn waits_for_the_epoch(message: &Message) -> bool {
    match message {
        Message::AskDigests(AskDigests { ask, .. }) | Message::AskList(AskList { ask, .. }) => {
            ask.asker == askers::SCAN
        }
        _ => false,
    }
}

impl Batch {
    /// Sorts the acceptor's effects; `stored` is what the key had before them.
    fn take(&mut self, effects: &mut Effects, stored: Option<&Arc<Record>>, origin: Origin) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist(write) => self.persist(write, stored),
                Effect::Send { to, message } => self.out.push(Out { to, message, origin }),
                // Only a coordinator begins, and notes what it does; only chains have listings wait.
                Effect::Begin { .. } | Effect::List { .. } | Effect::Note(_) => {}
            }
        }
    }

    fn persist(&mut self, write: Write, stored: Option<&Arc<Record>>) {
        let change = match &write {
            Write::Put(key, record) => Some((key, Some(Arc::new(record.clone())))),
            Write::Remove(key) => Some((key, None)),
            Write::Ceiling(_) | Write::AbsentFloor(_) | Write::Config(..) | Write::Seat(..) => None,
        };
        if let Some((key, new)) = change {
            let unchanged = || Change { old: stored.cloned(), new: None };
            self.overlay.entry(key.clone()).or_insert_with(unchanged).new = new;
        }
        self.writes.push(write);
    }
}
