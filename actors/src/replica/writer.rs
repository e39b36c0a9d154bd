//! The writer thread: the acceptor's state machine over the store, with group commit.
//!
//! It takes what has gathered in its queue, at most [`BATCH_OPERATIONS`] or [`BATCH_BYTES`], lets
//! the acceptor decide each in order over the store and an overlay of the batch's own writes,
//! commits once, and only then lets every answer out, refusals included. There is no timer: while
//! one sync runs the next batch gathers. A failed commit is never tried again and nothing after it
//! is acknowledged: the node stops.
//!
//! Listings and digests are answered here too, behind the commit of what came before them.

use super::{Committed, Part, Replica, chain::Chains, listing};
use crate::{
    clock::Clock,
    node::Fatal,
    storage::{CachedStore, Durability, Store, StoreError},
};
use actix::Addr;
use simpledynamo_protocol::{
    chain::Rows,
    effect::{Effect, Effects, Write},
    message::{Ask, Message, Reason},
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
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};
use tokio::sync::{
    mpsc::{Receiver, Sender, channel, error::TrySendError},
    oneshot,
};

/// Operations in one commit.
pub(super) const BATCH_OPERATIONS: usize = 1_024;
/// Bytes of records in one commit.
pub(super) const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Operations that wait for the writer; further ones are turned away.
pub(super) const QUEUE_OPERATIONS: usize = 16_384;
/// Bytes of records that wait for the writer; further ones are turned away.
pub(super) const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// One thing for the writer to do.
#[derive(Debug)]
pub enum Work {
    /// What a coordinator, catch-up or a scan asks.
    Message {
        /// Who asks.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A ballot for the node's own coordinator.
    Begin {
        /// Of this key.
        key: Key,
        /// Above this round.
        above: u64,
    },
    /// A chosen record.
    Install {
        /// Of this key.
        key: Key,
        /// The record.
        record: Record,
    },
    /// The acceptor's part changes.
    Part(Part),
    /// Chains: look for time-outs.
    Tick,
    /// A peer has lost its store: nothing that it said before counts any more.
    Forget {
        /// Which.
        node: NodeId,
        /// Told once that is so.
        done: oneshot::Sender<()>,
    },
}

impl Work {
    /// The key whose record the acceptor must see; none for listings and changes of part.
    fn key(&self) -> Option<&Key> {
        match self {
            Work::Begin { key, .. } | Work::Install { key, .. } => Some(key),
            Work::Message { message: Message::Prepare(ask), .. } => Some(&ask.key),
            Work::Message { message: Message::Accept(ask), .. } => Some(&ask.key),
            Work::Message { message: Message::Collect(ask), .. } => Some(&ask.key),
            Work::Message { .. } | Work::Part(_) | Work::Tick | Work::Forget { .. } => None,
        }
    }

    fn bytes(&self) -> usize {
        let record = |record: &Record| {
            64 + record.datum.value().map_or(0, |value| value.len()) + record.recent.bytes()
        };
        match self {
            Work::Message { message: Message::Accept(ask), .. } => record(&ask.record),
            Work::Message { message: Message::Forward(forward), .. } => {
                64 + forward.record.as_ref().map_or(0, record)
            }
            Work::Message { message: Message::Request(request), .. } => 64 + request.command.size(),
            Work::Install { record: stored, .. } => record(stored),
            Work::Message { .. }
            | Work::Begin { .. }
            | Work::Part(_)
            | Work::Tick
            | Work::Forget { .. } => 64,
        }
    }
}

/// Work that the queue did not take.
pub struct Turned {
    /// It.
    pub work: Work,
    /// Why.
    pub reason: Reason,
}

/// What others may see of the writer's state, as it is durable.
#[derive(Debug, Default)]
pub struct Shared {
    /// The acceptor's ceiling: no round above it was promised or used.
    pub ceiling: AtomicU64,
    /// Rows stored.
    pub rows: AtomicU64,
    /// Live rows stored.
    pub live: AtomicU64,
    /// Commits.
    pub commits: AtomicU64,
    /// Operations in them.
    pub committed: AtomicU64,
    /// Bytes that wait in the queue.
    waiting: AtomicUsize,
}

/// The way to the writer; bounded.
pub struct Queue {
    sender: Sender<(Now, Work)>,
    clock: Clock,
    shared: Arc<Shared>,
}

impl Queue {
    /// Puts work in the queue.
    ///
    /// # Errors
    /// The work, where too much waits already.
    pub fn push(&self, work: Work) -> Result<(), Box<Turned>> {
        let bytes = work.bytes();
        if self.shared.waiting.load(Ordering::Relaxed) + bytes > QUEUE_BYTES {
            return Err(Box::new(Turned { work, reason: Reason::Overloaded }));
        }
        self.shared.waiting.fetch_add(bytes, Ordering::Relaxed);
        self.sender.try_send((self.clock.now(), work)).map_err(|turned| {
            self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
            let (TrySendError::Full((_, work)) | TrySendError::Closed((_, work))) = turned;
            Box::new(Turned { work, reason: Reason::Overloaded })
        })
    }
}

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

/// The writer before its thread runs.
pub struct Writer {
    voice: Voice,
    store: Arc<CachedStore<Arc<dyn Store>>>,
    durability: Durability,
    ring: Ring,
    digests: Digests,
    shared: Arc<Shared>,
    receiver: Receiver<(Now, Work)>,
    /// When what is being done was handed in.
    now: Now,
    fatal: Fatal,
    batch: Batch,
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
    out: Vec<(NodeId, Message)>,
    /// Questions that must see the commit.
    reads: Vec<(NodeId, Message)>,
    operations: u64,
    /// Who waits until something was forgotten.
    forgotten: Vec<oneshot::Sender<()>>,
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
    ) -> Result<(Writer, Queue, Arc<Shared>), StoreError> {
        let mut digests = Digests::new(ring.clone());
        store.list(0, u64::MAX, &mut |row| {
            digests.add_row(&row);
            std::ops::ControlFlow::Continue(())
        })?;
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = channel(QUEUE_OPERATIONS);
        let queue = Queue { sender, clock, shared: shared.clone() };
        let batch = Batch::default();
        let writer = Writer {
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
        };
        writer.publish();
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
    fn gather(&mut self, first: (Now, Work)) -> Result<(), StoreError> {
        let (mut operations, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some((now, work)) = next.take() {
            self.now = now;
            let size = work.bytes();
            self.shared.waiting.fetch_sub(size, Ordering::Relaxed);
            (operations, bytes) = (operations + 1, bytes + size);
            self.step(work)?;
            if operations < BATCH_OPERATIONS && bytes < BATCH_BYTES {
                next = self.receiver.try_recv().ok();
            }
        }
        self.with_chains(|chains, now, rows, effects| chains.flush(now, rows, effects))?;
        self.batch.operations = operations as u64;
        Ok(())
    }

    /// Commits the batch and lets its answers out.
    fn settle(&mut self, replica: &Addr<Replica>) -> Result<(), StoreError> {
        self.commit()?;
        let reads = std::mem::take(&mut self.batch.reads);
        for (from, message) in reads {
            if let Some(answer) = self.read(from, message)? {
                self.batch.out.push((from, answer));
            }
        }
        let out = std::mem::take(&mut self.batch.out);
        let (standing, level) = (self.voice.standing(), self.voice.is_level());
        replica.do_send(Committed { out, standing, level });
        for done in std::mem::take(&mut self.batch.forgotten) {
            // Who waited may be gone.
            let _ = done.send(());
        }
        Ok(())
    }

    /// Lets the chains do something; their writes go to the batch and its overlay.
    fn with_chains(
        &mut self,
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
                Effect::Send { to, message } => self.batch.out.push((to, message)),
                // Chains begin their ballots themselves.
                Effect::Begin { .. } => {}
            }
        }
        self.batch.effects = effects;
        Ok(())
    }

    fn step_chains(&mut self, work: Work) -> Result<(), StoreError> {
        match work {
            Work::Message { from, message } => match message {
                Message::AskDigests(_) | Message::AskList(_) | Message::Fetch(_) => {
                    self.batch.reads.push((from, message));
                    Ok(())
                }
                message => self.with_chains(|chains, now, rows, effects| {
                    chains.message(now, from, message, rows, effects);
                }),
            },
            Work::Part(part) => {
                self.with_chains(|chains, now, _, effects| chains.part(now, part, effects))
            }
            Work::Tick => {
                self.with_chains(|chains, now, rows, effects| chains.tick(now, rows, effects))
            }
            Work::Forget { node, done } => {
                self.batch.forgotten.push(done);
                self.with_chains(|chains, _, _, _| chains.forget(node))
            }
            Work::Begin { .. } | Work::Install { .. } => Ok(()),
        }
    }

    /// The acceptor decides; its writes go to the batch and its overlay.
    fn step(&mut self, work: Work) -> Result<(), StoreError> {
        if matches!(self.voice, Voice::Chains(_)) {
            return self.step_chains(work);
        }
        let Some(key) = work.key().cloned() else { return self.step_without_key(work) };
        let stored = match self.batch.overlay.get(&key) {
            Some(change) => change.new.clone(),
            None => self.store.read(&key)?,
        };
        let mut effects = std::mem::take(&mut self.batch.effects);
        let (Voice::Acceptor(acceptor), held) = (&mut self.voice, stored.as_deref()) else {
            return Ok(());
        };
        match work {
            Work::Begin { key, above } => acceptor.begin(&key, above, held, &mut effects),
            Work::Install { key, record } => acceptor.install(key, record, held, &mut effects),
            Work::Part(_) | Work::Tick | Work::Forget { .. } => {}
            Work::Message { from, message } => match message {
                Message::Prepare(ask) => acceptor.prepare(from, &ask, held, &mut effects),
                Message::Accept(ask) => acceptor.accept(from, ask, held, &mut effects),
                Message::Collect(ask) => acceptor.collect(&ask, held, &mut effects),
                _ => {}
            },
        }
        self.batch.take(&mut effects, stored.as_ref());
        self.batch.effects = effects;
        Ok(())
    }

    fn step_without_key(&mut self, work: Work) -> Result<(), StoreError> {
        let mut effects = Effects::new();
        let Voice::Acceptor(acceptor) = &mut self.voice else { return Ok(()) };
        match work {
            Work::Part(Part::Learn { ceiling }) => acceptor.learn(ceiling, &mut effects),
            Work::Part(Part::Vote) => acceptor.vote(),
            Work::Message { from, message } => self.batch.reads.push((from, message)),
            // Its coordinators were told.
            Work::Forget { done, .. } => self.batch.forgotten.push(done),
            Work::Begin { .. } | Work::Install { .. } | Work::Tick => {}
        }
        self.batch.take(&mut effects, None);
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
        self.store.commit(&self.batch.writes, self.durability)?;
        self.batch.writes.clear();
        self.batch.overlay.clear();
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.committed.fetch_add(self.batch.operations, Ordering::Relaxed);
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let (rows, live) = self.digests.totals();
        self.shared.ceiling.store(self.voice.ceiling(), Ordering::SeqCst);
        self.shared.rows.store(rows, Ordering::Relaxed);
        self.shared.live.store(live, Ordering::Relaxed);
    }

    fn read(&mut self, from: NodeId, message: Message) -> Result<Option<Message>, StoreError> {
        match message {
            Message::Query(ask) => {
                let Voice::Acceptor(acceptor) = &self.voice else { return Ok(None) };
                let stored = self.store.read(&ask.key)?;
                acceptor.query(from, &ask, stored.as_deref(), &mut self.batch.effects);
                Ok(self.batch.effects.pop().and_then(|effect| match effect {
                    Effect::Send { message, .. } => Some(message),
                    Effect::Persist(_) | Effect::Begin { .. } => None,
                }))
            }
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

impl Batch {
    /// Sorts the acceptor's effects; `stored` is what the key had before them.
    fn take(&mut self, effects: &mut Effects, stored: Option<&Arc<Record>>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist(write) => self.persist(write, stored),
                Effect::Send { to, message } => self.out.push((to, message)),
                // Only a coordinator begins.
                Effect::Begin { .. } => {}
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
