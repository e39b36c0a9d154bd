//! What waits for the writer: a bounded queue of its work, by count and by bytes.
//!
//! For chains work carries the time at which it was handed in; all work has what flow records name as
//! its cause. What the queue does not take goes back to who handed it in, who refuses it or keeps it.

use super::Part;
use crate::{clock::Clock, flow::Cause};
use simpledynamo_protocol::{
    message::{Message, Reason},
    record::{Key, Record},
    ring::NodeId,
    time::Now,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};
use tokio::sync::{
    mpsc::{Receiver, Sender, channel, error::TrySendError},
    oneshot,
};

/// Operations that wait for the writer; further ones are turned away.
pub(super) const QUEUE_OPERATIONS: usize = 16_384;
/// Of these, kept for work that must not be lost, or others would always be first.
const RESERVED: usize = 64;
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
    Part {
        /// To what.
        part: Part,
        /// Told once that is durable.
        done: oneshot::Sender<()>,
    },
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
    pub(super) fn key(&self) -> Option<&Key> {
        match self {
            Work::Begin { key, .. } | Work::Install { key, .. } => Some(key),
            Work::Message { message: Message::Prepare(ask), .. } => Some(&ask.key),
            Work::Message { message: Message::Accept(ask), .. } => Some(&ask.key),
            Work::Message { message: Message::Collect(ask), .. } => Some(&ask.key),
            Work::Message { .. } | Work::Part { .. } | Work::Tick | Work::Forget { .. } => None,
        }
    }

    /// What flow records name as its cause.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Work::Message { cause, .. } | Work::Begin { cause, .. } => *cause,
            Work::Install { .. } | Work::Part { .. } | Work::Tick | Work::Forget { .. } => {
                Cause::NONE
            }
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
            | Work::Part { .. }
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
    /// Whether this node votes.
    pub votes: AtomicBool,
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

/// Work in the queue.
pub(super) struct Queued {
    /// Chains: when it was handed in. An acceptor asks no clock, and none is read for it.
    pub(super) now: Now,
    /// [`Work::bytes`], counted once.
    pub(super) bytes: usize,
    /// It.
    pub(super) work: Work,
}

/// The way to the writer; bounded. Cheap to clone, for any thread.
#[derive(Clone)]
pub struct Queue {
    sender: Sender<Queued>,
    clock: Option<Clock>,
    shared: Arc<Shared>,
}

impl Queue {
    /// A queue, what is seen of its length, and its end at the writer. The clock is for chains.
    pub(super) fn new(clock: Option<Clock>) -> (Queue, Arc<Shared>, Receiver<Queued>) {
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = channel(QUEUE_OPERATIONS);
        (Queue { sender, clock, shared: shared.clone() }, shared, receiver)
    }

    /// Whether this node votes: all that it had to hold before it might is durable.
    pub(super) fn votes(&self) -> bool {
        self.shared.votes.load(Ordering::SeqCst)
    }

    /// Puts work in the queue.
    ///
    /// # Errors
    /// The work, where too much waits already.
    pub fn push(&self, work: Work) -> Result<(), Box<Turned>> {
        if self.sender.capacity() <= RESERVED {
            return Err(Box::new(Turned { work, reason: Reason::Overloaded }));
        }
        self.push_surely(work)
    }

    /// The same for work that must not be lost: it takes what is reserved for it, too.
    ///
    /// # Errors
    /// The work, where too much waits already.
    pub(super) fn push_surely(&self, work: Work) -> Result<(), Box<Turned>> {
        let bytes = work.bytes();
        if self.shared.waiting.load(Ordering::Relaxed) + bytes > QUEUE_BYTES {
            return Err(Box::new(Turned { work, reason: Reason::Overloaded }));
        }
        self.shared.waiting.fetch_add(bytes, Ordering::Relaxed);
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.as_ref().map(Clock::now).unwrap_or_default();
        let queued = Queued { now, bytes, work };
        self.sender.try_send(queued).map_err(|turned| {
            self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            let (TrySendError::Full(queued) | TrySendError::Closed(queued)) = turned;
            Box::new(Turned { work: queued.work, reason: Reason::Overloaded })
        })
    }
}
