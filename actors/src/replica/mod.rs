//! The replica store: one actor over one store, and, where a node has shards, a front of it in each, for
//! queries and for what its coordinators ask.
//!
//! It takes what coordinators, catch-up and scans of all nodes ask of this replica. Everything that
//! may change something goes to the writer thread (`writer`), which lets the answers out once they
//! are durable; a query is answered at once from the store, which shows durable records only. So a
//! disk that stalls delays writes and nothing else.
//!
//! A full queue is answered with [`NoVote`] at once: the round goes on with the other replicas.

mod chain;
mod listing;
mod queue;
mod writer;

pub use chain::Chains;
pub use queue::{Queue, Shared, Work};
pub use writer::{Voice, Watch, Writer};

use crate::{
    bridge::Outlet,
    coordinator::Forget,
    flow::{Cause, Origin, Recorder},
    membership::{Membership, Progress},
    messages::{LocalGet, LocalPage, LocalRows},
    router::FromNode,
    scan::Scan,
    shards::{Pace, Shard, Shards},
    storage::{CachedStore, Store},
    sync::Sync,
};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture};
use queue::Turned;
use simpledynamo_protocol::{
    effect::{Effect, Effects},
    message::{self, NoVote, Query, Reason, Round},
    record::{Key, Record},
    register::acceptor::Acceptor,
    ring::NodeId,
};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::oneshot;

/// Coordinators, bridge → replica: a message of the register, of catch-up or of a scan.
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

/// The node's own coordinators → replica: a fresh ballot, please, and your promise of it.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Begin {
    /// Of this key.
    pub key: Key,
    /// Above this round.
    pub above: u64,
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
    me: NodeId,
    store: Arc<CachedStore<Arc<dyn Store>>>,
    queue: Option<Queue>,
    /// Chains: whether they are what this replica serves, and are level; none for quorums.
    level: Option<bool>,
    bridge: Outlet,
    locals: Locals,
    fatal: crate::node::Fatal,
    effects: Effects,
    overflow: VecDeque<Work>,
    pace: Pace,
}

impl Replica {
    /// The actor over `store`; `queue` leads to its writer. `chains`: it lets out what the writer says
    /// for chains, and has it look for their time-outs.
    #[must_use]
    pub fn new(
        me: NodeId,
        store: Arc<CachedStore<Arc<dyn Store>>>,
        queue: Queue,
        chains: bool,
        bridge: Outlet,
        locals: Locals,
        fatal: crate::node::Fatal,
    ) -> Replica {
        Replica {
            me,
            store,
            queue: Some(queue),
            level: chains.then_some(false),
            bridge,
            locals,
            fatal,
            effects: Effects::new(),
            overflow: VecDeque::new(),
            pace: Pace::default(),
        }
    }

    /// The same where it gets messages of other threads.
    #[must_use]
    pub(crate) fn apart(mut self) -> Replica {
        self.pace = Pace::of(true);
        self
    }

    fn let_out(&mut self, Out { to, message, origin }: Out) {
        if to != self.me {
            self.bridge.send(to, &message, origin);
            return;
        }
        let from = self.me;
        let cause = self.locals.recorder.local(&message, origin);
        if self.level.is_some() && chain::is_own(&message) {
            return self.enqueue(Work::Message { from, message, cause });
        }
        match message.asker() {
            Some(askers::CATCH_UP | askers::SWEEP) => {
                self.locals.sync.do_send(crate::sync::FromReplica { from, message });
            }
            Some(askers::SCAN) => {
                self.locals.scan.do_send(crate::scan::FromReplica { from, message })
            }
            _ => self.locals.shards.tell_routers(FromNode { from, message, cause }),
        }
    }

    /// Work that must not be lost, in its order: where the queue is full it waits here. Catch-up
    /// lists through the same queue before it fetches more, so there is never much of it.
    fn enqueue_surely(&mut self, work: Work) {
        self.overflow.push_back(work);
        self.drain_overflow();
    }

    fn drain_overflow(&mut self) {
        let Some(queue) = &self.queue else { return };
        while let Some(work) = self.overflow.pop_front() {
            if let Err(turned) = queue.push_surely(work) {
                return self.overflow.push_front(turned.work);
            }
        }
    }

    fn enqueue(&mut self, work: Work) {
        let Some(queue) = &self.queue else { return };
        let Err(turned) = queue.push(work) else { return };
        let Turned { work, reason } = *turned;
        let origin = Origin::from(work.cause());
        if let Some((to, message)) = no_vote(self.me, &work, reason) {
            self.let_out(Out { to, message, origin });
        }
    }

    /// Answered here and now: the store shows durable records only.
    fn query(&mut self, from: NodeId, query: &Query, cause: Cause) {
        let queue = waited(cause.at, self.locals.recorder.now());
        let origin = Origin { cause, queue, handling: 0 };
        match self.store.read(&query.key) {
            Ok(stored) => {
                Acceptor::answer_query(from, query, stored.as_deref(), &mut self.effects);
                for effect in std::mem::take(&mut self.effects) {
                    if let Effect::Send { to, message } = effect {
                        self.let_out(Out { to, message, origin });
                    }
                }
            }
            Err(error) => self.fatal.store(&error),
        }
    }
}

/// Microseconds from one time to another, as a record holds them.
fn waited(from: u64, to: u64) -> u32 {
    u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX)
}

/// What tells the sender that this replica does not vote in its round.
fn no_vote(me: NodeId, work: &Work, reason: Reason) -> Option<(NodeId, message::Message)> {
    let (to, key, round) = match work {
        Work::Begin { key, .. } => (me, key, Round::Begin),
        Work::Message { from, message, .. } => match message {
            message::Message::Prepare(ask) => (*from, &ask.key, Round::Ballot(ask.ballot)),
            message::Message::Accept(ask) => {
                (*from, &ask.key, Round::Ballot(ask.record.stamp.ballot))
            }
            _ => return None,
        },
        Work::Install { .. } | Work::Part { .. } | Work::Tick | Work::Forget { .. } => return None,
    };
    Some((to, NoVote { key: key.clone(), round, reason }.into()))
}

impl Actor for Replica {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if self.level.is_some() {
            ctx.run_interval(chain::TICK, |replica, _| replica.enqueue(Work::Tick));
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
        self.locals.recorder.turn_apart();
        match message {
            message::Message::Query(query) if self.queue.as_ref().is_some_and(Queue::votes) => {
                self.query(from, &query, cause);
            }
            // Who asks must not wait for what the writer copies in.
            message::Message::Query(query) if self.queue.is_some() => {
                let (key, round) = (query.key, Round::Query(query.ask));
                let message = NoVote { key, round, reason: Reason::Learning }.into();
                self.let_out(Out { to: from, message, origin: Origin::from(cause) });
            }
            message => self.enqueue(Work::Message { from, message, cause }),
        }
    }
}

impl Handler<Begin> for Replica {
    type Result = ();

    fn handle(&mut self, Begin { key, above, cause }: Begin, _: &mut Context<Self>) {
        self.enqueue(Work::Begin { key, above, cause });
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
        self.locals.recorder.turn();
        if let Some(level) = committed.level.filter(|_| committed.level != self.level) {
            self.level = Some(level);
            self.locals.membership.do_send(Progress { level, copied: 0 });
        }
        self.drain_overflow();
        for out in committed.out {
            self.let_out(out);
        }
    }
}

impl Handler<LocalGet> for Replica {
    type Result = Option<Record>;

    fn handle(&mut self, LocalGet { key }: LocalGet, _: &mut Context<Self>) -> Self::Result {
        match self.store.read(&key) {
            Ok(stored) => stored.map(Arc::unwrap_or_clone),
            Err(error) => {
                self.fatal.store(&error);
                None
            }
        }
    }
}

impl Handler<LocalPage> for Replica {
    type Result = MessageResult<LocalPage>;

    fn handle(&mut self, page: LocalPage, _: &mut Context<Self>) -> Self::Result {
        let rows = listing::local_page(&self.store, page.from, page.rows);
        MessageResult(rows.unwrap_or_else(|error| {
            self.fatal.store(&error);
            LocalRows::default()
        }))
    }
}

impl Handler<Close> for Replica {
    type Result = ();

    fn handle(&mut self, _: Close, _: &mut Context<Self>) {
        self.queue = None;
    }
}
