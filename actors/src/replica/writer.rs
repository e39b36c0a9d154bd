//! The writer thread: the acceptor's state machine over the store, with group commit.
//!
//! It takes what has gathered in its queue, at most [`BATCH_OPERATIONS`] or [`BATCH_BYTES`], lets
//! the acceptor decide each in order over the store and an overlay of the batch's own writes,
//! commits once, and only then lets every answer out, refusals included. There is no timer: while
//! one sync runs the next batch gathers. A failed commit is never tried again and nothing after it
//! is acknowledged: the node stops.
//!
//! Listings and digests are answered here too, behind the commit of what came before them.

use super::{Committed, Part, Replica, listing};
use crate::{
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
};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

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
}

impl Work {
    fn bytes(&self) -> usize {
        let record = |record: &Record| record.datum.value().map_or(64, |value| value.len() + 64);
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
    /// Bytes that wait in the queue.
    waiting: AtomicUsize,
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
        self.sender.try_send(work).map_err(|turned| {
            self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
            let (TrySendError::Full(work) | TrySendError::Closed(work)) = turned;
            Box::new(Turned { work, reason: Reason::Overloaded })
        })
    }
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
}

/// What one commit gathers.
#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    overlay: HashMap<Key, Option<Record>>,
    effects: Effects,
    out: Vec<(NodeId, Message)>,
    /// Questions that must see the commit.
    reads: Vec<(NodeId, Message)>,
    operations: u64,
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
        let writer = Writer {
            acceptor,
            store,
            durability,
            ring,
            digests,
            shared: shared.clone(),
            receiver,
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
        let mut next = Some(first);
        while let Some(work) = next.take() {
            let size = work.bytes();
            self.shared.waiting.fetch_sub(size, Ordering::Relaxed);
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
        for (from, message) in reads {
            if let Some(answer) = self.read(from, message)? {
                self.batch.out.push((from, answer));
            }
        }
        let out = std::mem::take(&mut self.batch.out);
        replica.do_send(Committed { out, standing: self.acceptor.standing() });
        Ok(())
    }

    /// The acceptor decides; its writes go to the batch and its overlay.
    fn step(&mut self, work: Work) -> Result<(), StoreError> {
        let mut effects = std::mem::take(&mut self.batch.effects);
        let acceptor = &mut self.acceptor;
        match work {
            Work::Begin { key, above } => {
                let stored = stored(&self.batch.overlay, &self.store, &key)?;
                acceptor.begin(&key, above, stored.as_deref(), &mut effects);
            }
            Work::Install { key, record } => {
                let stored = stored(&self.batch.overlay, &self.store, &key)?;
                acceptor.install(key, record, stored.as_deref(), &mut effects);
            }
            Work::Part(Part::Learn { ceiling }) => acceptor.learn(ceiling, &mut effects),
            Work::Part(Part::Vote) => acceptor.vote(),
            Work::Message { from, message } => match message {
                Message::Prepare(ask) => {
                    let stored = stored(&self.batch.overlay, &self.store, &ask.key)?;
                    acceptor.prepare(from, &ask, stored.as_deref(), &mut effects);
                }
                Message::Accept(ask) => {
                    let stored = stored(&self.batch.overlay, &self.store, &ask.key)?;
                    acceptor.accept(from, ask, stored.as_deref(), &mut effects);
                }
                Message::Collect(ask) => {
                    let stored = stored(&self.batch.overlay, &self.store, &ask.key)?;
                    acceptor.collect(&ask, stored.as_deref(), &mut effects);
                }
                other => self.batch.reads.push((from, other)),
            },
        }
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist(write) => self.batch.persist(write),
                Effect::Send { to, message } => self.batch.out.push((to, message)),
                // Only a coordinator begins.
                Effect::Begin { .. } => {}
            }
        }
        self.batch.effects = effects;
        Ok(())
    }

    /// Makes the batch durable and keeps up what is derived from it.
    fn commit(&mut self) -> Result<(), StoreError> {
        if self.batch.writes.is_empty() {
            return Ok(());
        }
        for (key, new) in &self.batch.overlay {
            let old = self.store.read(key)?;
            self.digests.change(key, old.as_deref(), new.as_ref());
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
        self.shared.ceiling.store(self.acceptor.ceiling(), Ordering::SeqCst);
        self.shared.rows.store(rows, Ordering::Relaxed);
        self.shared.live.store(live, Ordering::Relaxed);
    }

    fn read(&mut self, from: NodeId, message: Message) -> Result<Option<Message>, StoreError> {
        let votes = self.acceptor.standing() == Standing::Voter;
        match message {
            Message::Query(ask) => {
                let stored = self.store.read(&ask.key)?;
                self.acceptor.query(from, &ask, stored.as_deref(), &mut self.batch.effects);
                Ok(self.batch.effects.pop().and_then(|effect| match effect {
                    Effect::Send { message, .. } => Some(message),
                    Effect::Persist(_) | Effect::Begin { .. } => None,
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
    fn persist(&mut self, write: Write) {
        match &write {
            Write::Put(key, record) => {
                self.overlay.insert(key.clone(), Some(record.clone()));
            }
            Write::Remove(key) => {
                self.overlay.insert(key.clone(), None);
            }
            Write::Ceiling(_) | Write::AbsentFloor(_) => {}
        }
        self.writes.push(write);
    }
}

/// What is stored of a key, the batch's own writes included.
fn stored(
    overlay: &HashMap<Key, Option<Record>>,
    store: &CachedStore<Arc<dyn Store>>,
    key: &Key,
) -> Result<Option<Arc<Record>>, StoreError> {
    match overlay.get(key) {
        Some(record) => Ok(record.clone().map(Arc::new)),
        None => store.read(key),
    }
}
