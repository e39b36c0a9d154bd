//! The writer thread: the acceptor's state machine over the store, with group commit.
//!
//! It takes what has gathered in its queue, at most [`BATCH_OPERATIONS`] or [`BATCH_BYTES`], lets
//! the acceptor decide each in order over the store and an overlay of the batch's own writes,
//! commits once, and only then lets every answer out, refusals included. There is no timer: while
//! one sync runs the next batch gathers. A failed commit is never tried again and nothing after it
//! is acknowledged: the node stops.
//!
//! Listings and digests are answered here too, behind the commit of what came before them.

use super::{Committed, Out, Part, Replica, listing, waited};
use crate::{
    flow::{Cause, Origin},
    metrics::Metrics,
    node::Fatal,
    storage::{CachedStore, Durability, Store, StoreError},
};
use actix::Addr;
use simpledynamo_protocol::{
    effect::{Effect, Effects, Write},
    message::{Message, Reason},
    record::{Key, Record},
    register::{
        acceptor::{Acceptor, Standing},
        digest::Digests,
    },
    ring::{NodeId, Ring},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel, error::TrySendError},
    time::Instant,
};

/// Operations in one commit.
pub(super) const BATCH_OPERATIONS: usize = 1_024;
/// Bytes of records in one commit.
pub(super) const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Operations that wait for the writer; further ones are turned away.
pub(super) const QUEUE_OPERATIONS: usize = 16_384;
/// Bytes of records that wait for the writer; further ones are turned away.
pub(super) const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// How often the store is asked how much of the disk it takes.
const WEIGH_EVERY: Duration = Duration::from_secs(1);

/// One thing for the writer to do.
#[derive(Debug)]
pub enum Work {
    /// What a coordinator, catch-up or a scan asks.
    Message {
        /// Who asks.
        from: NodeId,
        /// What.
        message: Message,
        /// What flow records name as its cause.
        cause: Cause,
    },
    /// A ballot for the node's own coordinator.
    Begin {
        /// Of this key.
        key: Key,
        /// Above this round.
        above: u64,
        /// What flow records name as its cause.
        cause: Cause,
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
}

impl Work {
    /// The key whose record the acceptor must see; none for listings and changes of part.
    fn key(&self) -> Option<&Key> {
        match self {
            Work::Begin { key, .. } | Work::Install { key, .. } => Some(key),
            Work::Message { message: Message::Prepare(ask), .. } => Some(&ask.key),
            Work::Message { message: Message::Accept(ask), .. } => Some(&ask.key),
            Work::Message { message: Message::Collect(ask), .. } => Some(&ask.key),
            Work::Message { .. } | Work::Part(_) => None,
        }
    }

    /// What flow records name as its cause.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Work::Message { cause, .. } | Work::Begin { cause, .. } => *cause,
            Work::Install { .. } | Work::Part(_) => Cause::NONE,
        }
    }

    fn bytes(&self) -> usize {
        let record = |record: &Record| {
            64 + record.datum.value().map_or(0, |value| value.len()) + record.recent.bytes()
        };
        match self {
            Work::Message { message: Message::Accept(ask), .. } => record(&ask.record),
            Work::Install { record: stored, .. } => record(stored),
            Work::Message { .. } | Work::Begin { .. } | Work::Part(_) => 64,
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
    /// Bytes of the disk that the store takes; looked at once a second, after a commit.
    pub disk_bytes: AtomicU64,
    /// Operations that wait in the queue.
    pub queued: AtomicUsize,
    /// Bytes that wait in the queue.
    pub waiting: AtomicUsize,
}

/// The way to the writer; bounded.
pub struct Queue {
    sender: Sender<Work>,
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
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.sender.try_send(work).map_err(|turned| {
            self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            let (TrySendError::Full(work) | TrySendError::Closed(work)) = turned;
            Box::new(Turned { work, reason: Reason::Overloaded })
        })
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
    acceptor: Acceptor,
    store: Arc<CachedStore<Arc<dyn Store>>>,
    durability: Durability,
    ring: Ring,
    digests: Digests,
    shared: Arc<Shared>,
    receiver: Receiver<Work>,
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
    /// When it was gathered, on the clock of flow records.
    gathered: u64,
}

impl Writer {
    /// A writer over `store` and the queue to it. Reads the whole store once, for the digests.
    ///
    /// # Errors
    /// The store's.
    pub fn new(
        acceptor: Acceptor,
        store: Arc<CachedStore<Arc<dyn Store>>>,
        durability: Durability,
        ring: Ring,
        fatal: Fatal,
        watch: Watch,
    ) -> Result<(Writer, Queue, Arc<Shared>), StoreError> {
        let mut digests = Digests::new(ring.clone());
        store.list(0, u64::MAX, &mut |row| {
            digests.add_row(&row);
            std::ops::ControlFlow::Continue(())
        })?;
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = channel(QUEUE_OPERATIONS);
        let queue = Queue { sender, shared: shared.clone() };
        let batch = Batch::default();
        let mut writer = Writer {
            acceptor,
            store,
            durability,
            ring,
            digests,
            shared: shared.clone(),
            receiver,
            fatal,
            batch,
            metrics: watch.metrics,
            weighed: None,
            time_from: watch.time_from,
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
    fn gather(&mut self, first: Work) -> Result<(), StoreError> {
        let (mut operations, mut bytes) = (0, 0);
        self.batch.gathered = self.time();
        let mut next = Some(first);
        while let Some(work) = next.take() {
            let size = work.bytes();
            self.shared.waiting.fetch_sub(size, Ordering::Relaxed);
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            (operations, bytes) = (operations + 1, bytes + size);
            self.step(work)?;
            if operations < BATCH_OPERATIONS && bytes < BATCH_BYTES {
                next = self.receiver.try_recv().ok();
            }
        }
        self.batch.operations = operations as u64;
        Ok(())
    }

    /// Commits the batch and lets its answers out.
    fn settle(&mut self, replica: &Addr<Replica>) -> Result<(), StoreError> {
        self.commit()?;
        let reads = std::mem::take(&mut self.batch.reads);
        for (to, message, origin) in reads {
            if let Some(message) = self.read(to, message)? {
                self.batch.out.push(Out { to, message, origin });
            }
        }
        let mut out = std::mem::take(&mut self.batch.out);
        if self.time_from.is_some() {
            let handling = waited(self.batch.gathered, self.time());
            out.iter_mut().for_each(|out| out.origin.handling = handling);
        }
        replica.do_send(Committed { out, standing: self.acceptor.standing() });
        Ok(())
    }

    /// Microseconds on the clock of flow records; 0 where nothing is taken down.
    fn time(&self) -> u64 {
        let micros = self.time_from.map_or(0, |from| from.elapsed().as_micros());
        u64::try_from(micros).unwrap_or(u64::MAX)
    }

    /// The acceptor decides; its writes go to the batch and its overlay.
    fn step(&mut self, work: Work) -> Result<(), StoreError> {
        let cause = work.cause();
        let origin = Origin { cause, queue: waited(cause.at, self.batch.gathered), handling: 0 };
        let Some(key) = work.key().cloned() else { return self.step_without_key(work, origin) };
        let stored = match self.batch.overlay.get(&key) {
            Some(change) => change.new.clone(),
            None => self.store.read(&key)?,
        };
        let mut effects = std::mem::take(&mut self.batch.effects);
        let (acceptor, held) = (&mut self.acceptor, stored.as_deref());
        match work {
            Work::Begin { key, above, .. } => acceptor.begin(&key, above, held, &mut effects),
            Work::Install { key, record } => acceptor.install(key, record, held, &mut effects),
            Work::Part(_) => {}
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
        match work {
            Work::Part(Part::Learn { ceiling }) => self.acceptor.learn(ceiling, &mut effects),
            Work::Part(Part::Vote) => self.acceptor.vote(),
            Work::Message { from, message, .. } => self.batch.reads.push((from, message, origin)),
            Work::Begin { .. } | Work::Install { .. } => {}
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

    fn publish(&mut self) {
        let (rows, live) = self.digests.totals();
        self.shared.ceiling.store(self.acceptor.ceiling(), Ordering::SeqCst);
        self.shared.rows.store(rows, Ordering::Relaxed);
        self.shared.live.store(live, Ordering::Relaxed);
        if self.weighed.is_none_or(|weighed| weighed.elapsed() >= WEIGH_EVERY) {
            self.weighed = Some(Instant::now());
            self.shared.disk_bytes.store(self.store.disk_bytes(), Ordering::Relaxed);
        }
    }

    fn read(&mut self, from: NodeId, message: Message) -> Result<Option<Message>, StoreError> {
        let votes = self.acceptor.standing() == Standing::Voter;
        match message {
            Message::Query(ask) => {
                let stored = self.store.read(&ask.key)?;
                self.acceptor.query(from, &ask, stored.as_deref(), &mut self.batch.effects);
                Ok(self.batch.effects.pop().and_then(|effect| match effect {
                    Effect::Send { message, .. } => Some(message),
                    Effect::Persist(_) | Effect::Begin { .. } | Effect::Note(_) => None,
                }))
            }
            Message::AskDigests(ask) => Ok(listing::digests(&self.digests, &ask, votes)),
            Message::AskList(ask) => {
                listing::list(&self.store, &self.ring, &ask, votes, self.acceptor.absent_floor())
                    .map(Some)
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
    fn take(&mut self, effects: &mut Effects, stored: Option<&Arc<Record>>, origin: Origin) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist(write) => self.persist(write, stored),
                Effect::Send { to, message } => self.out.push(Out { to, message, origin }),
                // Only a coordinator begins, and notes what it does.
                Effect::Begin { .. } | Effect::Note(_) => {}
            }
        }
    }

    fn persist(&mut self, write: Write, stored: Option<&Arc<Record>>) {
        let change = match &write {
            Write::Put(key, record) => Some((key, Some(Arc::new(record.clone())))),
            Write::Remove(key) => Some((key, None)),
            Write::Ceiling(_) | Write::AbsentFloor(_) => None,
        };
        if let Some((key, new)) = change {
            let unchanged = || Change { old: stored.cloned(), new: None };
            self.overlay.entry(key.clone()).or_insert_with(unchanged).new = new;
        }
        self.writes.push(write);
    }
}
