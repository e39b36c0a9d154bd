//! The replica store: one actor over one store, and, where a node has shards, a front of it in each, for
//! queries and for what its coordinators ask.
//!
//! It takes what coordinators, catch-up and scans of all nodes ask of this replica. Everything that
//! may change something goes to the writer thread (`writer`), which lets the answers out once they
//! are durable; a query is answered at once from the store, which shows durable records only. So a
//! disk that stalls delays writes and nothing else.
//!
//! A full queue is answered with [`NoVote`](message::NoVote) at once: the round goes on with the other replicas.

mod chain;
mod front;
mod listing;
mod queue;
mod writer;

pub use chain::Chains;
pub use front::Front;
pub use queue::{Queue, Shared, Work};
pub use writer::{Voice, Watch, Writer};

use crate::{
    coordinator::Forget,
    flow::{Cause, Origin, Recorder},
    membership::{Membership, Progress},
    messages::{LocalGet, LocalPage, LocalRows},
    scan::Scan,
    shards::{Pace, Shard, Shards},
    sync::Sync,
};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture};
use simpledynamo_protocol::{
    message,
    record::{Key, Record},
    ring::NodeId,
};
use std::collections::VecDeque;
use tokio::sync::oneshot;

/// Sync, scan → replica, and the bridge where queries are for a shard: a message of catch-up, of a scan
/// or of the register.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct ToReplica {
    /// Who sent it.
    pub from: NodeId,
    /// What.
    pub message: message::Message,
    /// What flow records name as its cause.
    pub cause: Cause,
}

/// Sync → replica: this record is chosen, store it.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Install {
    /// Of this key.
    pub key: Key,
    /// The record.
    pub record: Record,
}

/// Membership → replica: your part changes. In the order of the queue, so behind all installs.
/// Answered when what it changes is durable.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub enum Part {
    /// Store silently; no forgotten promise is above this round.
    Learn {
        /// The largest ceiling of all peers.
        ceiling: u64,
        /// An earlier life has begun with it.
        again: bool,
    },
    /// Vote.
    Vote,
}

/// An answer that waits for its commit.
#[derive(Debug)]
pub struct Out {
    /// To whom.
    pub to: NodeId,
    /// What.
    pub message: message::Message,
    /// For flow records.
    pub origin: Origin,
}

/// Writer thread → replica: durable; let these out.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Committed {
    /// Answers in order.
    pub out: Vec<Out>,
    /// Chains: whether this node votes and holds all that is committed in all its ranges.
    pub level: Option<bool>,
}

/// Stopper → replica: take no more work; the writer ends when it has done what waits.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Close;

/// Where the replica's own answers go inside the node.
#[derive(Clone)]
pub struct Locals {
    /// Answers to coordinators.
    pub shards: Shards<Shard>,
    /// Answers to catch-up and sweep.
    pub sync: Addr<Sync>,
    /// Answers to scans.
    pub scan: Addr<Scan>,
    /// Where it is told how far this node is.
    pub membership: Addr<Membership>,
    /// Takes down what comes and goes.
    pub recorder: Recorder,
}

/// The asker numbers below those of coordinators.
pub mod askers {
    /// The failure detector.
    pub const DETECTOR: u64 = 1;
    /// Catch-up.
    pub const CATCH_UP: u64 = 2;
    /// The sweep.
    pub const SWEEP: u64 = 3;
    /// Scans.
    pub const SCAN: u64 = 4;
    /// Chains.
    pub const CHAIN: u64 = simpledynamo_protocol::chain::ASKER;
    /// Routers, for reads.
    pub const ROUTER: u64 = simpledynamo_protocol::routing::ASKER;
}

/// The replica store of one node.
pub struct Replica {
    front: Front,
    /// Chains: whether they are what this replica serves, and are level; none for quorums.
    level: Option<bool>,
    overflow: VecDeque<Work>,
    pace: Pace,
}

impl Replica {
    /// The actor around `front`. Of chains it lets out what the writer says for them, and has it look
    /// for their time-outs.
    #[must_use]
    pub fn new(front: Front) -> Replica {
        let level = front.has_chains().then_some(false);
        Replica { front, level, overflow: VecDeque::new(), pace: Pace::default() }
    }

    /// The same where it gets messages of other threads.
    #[must_use]
    pub(crate) fn apart(mut self) -> Replica {
        self.pace = Pace::of(true);
        self
    }

    /// Work that must not be lost, in its order: where the queue is full it waits here. Catch-up
    /// lists through the same queue before it fetches more, so there is never much of it.
    fn enqueue_surely(&mut self, work: Work) {
        self.overflow.push_back(work);
        self.drain_overflow();
    }

    fn drain_overflow(&mut self) {
        while let Some(work) = self.overflow.pop_front() {
            if let Some(work) = self.front.enqueue_surely(work) {
                return self.overflow.push_front(work);
            }
        }
    }
}

/// Microseconds from one time to another, as a record holds them.
fn waited(from: u64, to: u64) -> u32 {
    u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX)
}

impl Actor for Replica {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if self.level.is_some() {
            ctx.run_interval(chain::TICK, |replica, _| replica.front.enqueue(Work::Tick));
        }
    }
}

impl Handler<Forget> for Replica {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Forget(node): Forget, _: &mut Context<Self>) -> Self::Result {
        let (done, forgotten) = oneshot::channel();
        self.enqueue_surely(Work::Forget { node, done });
        Box::pin(async move {
            // Err: the writer has ended, and nothing counts any more.
            let _ = forgotten.await;
        })
    }
}

impl Handler<ToReplica> for Replica {
    type Result = ();

    fn handle(&mut self, ask: ToReplica, ctx: &mut Context<Self>) {
        let ToReplica { from, message, cause } = ask;
        self.pace.keep(ctx);
        self.front.locals().recorder.turn_apart();
        self.front.take(from, message, cause);
    }
}

impl Handler<Install> for Replica {
    type Result = ();

    fn handle(&mut self, Install { key, record }: Install, _: &mut Context<Self>) {
        self.enqueue_surely(Work::Install { key, record });
    }
}

impl Handler<Part> for Replica {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, part: Part, _: &mut Context<Self>) -> Self::Result {
        let (done, durable) = oneshot::channel();
        self.enqueue_surely(Work::Part { part, done });
        Box::pin(async move {
            // Err: the writer has ended, and nothing follows any more.
            let _ = durable.await;
        })
    }
}

impl Handler<Committed> for Replica {
    type Result = ();

    fn handle(&mut self, committed: Committed, _: &mut Context<Self>) {
        let Locals { recorder, membership, .. } = self.front.locals();
        recorder.turn();
        if let Some(level) = committed.level.filter(|_| committed.level != self.level) {
            self.level = Some(level);
            membership.do_send(Progress { level, copied: 0 });
        }
        self.drain_overflow();
        for out in committed.out {
            self.front.let_out(out);
        }
    }
}

impl Handler<LocalGet> for Replica {
    type Result = Option<Record>;

    fn handle(&mut self, LocalGet { key }: LocalGet, _: &mut Context<Self>) -> Self::Result {
        self.front.read(&key)
    }
}

impl Handler<LocalPage> for Replica {
    type Result = MessageResult<LocalPage>;

    fn handle(&mut self, page: LocalPage, _: &mut Context<Self>) -> Self::Result {
        let rows = listing::local_page(self.front.store(), page.from, page.rows);
        MessageResult(rows.unwrap_or_else(|error| {
            self.front.fatal().store(&error);
            LocalRows::default()
        }))
    }
}

impl Handler<Close> for Replica {
    type Result = ();

    fn handle(&mut self, _: Close, _: &mut Context<Self>) {
        self.front.close();
    }
}
