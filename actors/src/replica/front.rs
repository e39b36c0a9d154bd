//! What of a replica needs no mailbox: queries are answered at once, all else goes into the writer's
//! queue. Routers, coordinators and the bridge of its thread call it. [`super::Replica`] is the actor
//! around it: for other threads, for what the writer says, and for membership, sync and scan, whose
//! installs, listings and changes of part stay in their order there.

use super::{
    Locals, Out, askers, chain,
    queue::{Queue, Turned, Work},
    waited,
};
use crate::{
    bridge::Outlet,
    flow::{Cause, Origin},
    node::Fatal,
    router::FromNode,
    storage::{Cached, CachedStore, Store},
};
use simpledynamo_protocol::{
    message::{Message, NoVote, Query, Reason, Round},
    record::{Key, Record},
    register::acceptor::Acceptor,
    ring::NodeId,
};
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// The replica of one thread; cheap to clone.
#[derive(Clone)]
pub struct Front(Rc<Inner>);

struct Inner {
    me: NodeId,
    store: Arc<CachedStore<Arc<dyn Store>>>,
    /// None once no more work is taken.
    queue: RefCell<Option<Queue>>,
    /// Chains are what this replica serves.
    chains: bool,
    bridge: Outlet,
    locals: Locals,
    fatal: Fatal,
}

impl Front {
    /// Over `store`; `queue` leads to its writer.
    #[must_use]
    pub fn new(
        me: NodeId,
        store: Arc<CachedStore<Arc<dyn Store>>>,
        queue: Queue,
        chains: bool,
        bridge: Outlet,
        locals: Locals,
        fatal: Fatal,
    ) -> Front {
        let queue = RefCell::new(Some(queue));
        Front(Rc::new(Inner { me, store, queue, chains, bridge, locals, fatal }))
    }

    /// A message of the register, of chains, of catch-up or of a scan.
    pub fn take(&self, from: NodeId, message: Message, cause: Cause) {
        match message {
            Message::Query(query) => {
                if let Some(out) = self.query(from, &query, cause) {
                    self.let_out(out);
                }
            }
            message => self.enqueue(Work::Message { from, message, cause }),
        }
    }

    /// A fresh ballot, please, and your promise of it: for the node's own coordinators.
    pub fn begin(&self, key: Key, above: u64, cause: Cause) {
        self.enqueue(Work::Begin { key, above, cause });
    }

    /// A query of the node's own router: what it is answered, and what flow records name as the cause.
    pub fn query_of_own(&self, query: &Query, cause: Cause) -> Option<(Message, Cause)> {
        let Out { message, origin, .. } = self.query(self.0.me, query, cause)?;
        let cause = self.0.locals.recorder.local(&message, origin);
        Some((message, cause))
    }

    /// Answered here and now: the store shows durable records only. None: this replica takes no more
    /// work, or its store fails.
    fn query(&self, from: NodeId, query: &Query, cause: Cause) -> Option<Out> {
        let votes = self.0.queue.borrow().as_ref().map(Queue::votes)?;
        if !votes {
            // Who asks must not wait for what the writer copies in.
            let (key, round) = (query.key.clone(), Round::Query(query.ask));
            let message = NoVote { key, round, reason: Reason::Learning }.into();
            return Some(Out { to: from, message, origin: Origin::from(cause) });
        }
        let queue = waited(cause.at, self.0.locals.recorder.now());
        let origin = Origin { cause, queue, handling: 0 };
        let message = Acceptor::answer_to(query, self.stored(&query.key)?.as_deref()).into();
        Some(Out { to: from, message, origin })
    }

    /// The durable record of a key, for people.
    pub(super) fn read(&self, key: &Key) -> Option<Record> {
        self.stored(key)?.map(Arc::unwrap_or_clone)
    }

    /// What is stored of a key; none where the store fails, which ends the node.
    fn stored(&self, key: &Key) -> Option<Cached> {
        self.0.store.read(key).map_err(|error| self.0.fatal.store(&error)).ok()
    }

    /// An answer leaves.
    pub(super) fn let_out(&self, Out { to, message, origin }: Out) {
        let Inner { me, chains, bridge, locals, .. } = &*self.0;
        if to != *me {
            bridge.send(to, &message, origin);
            return;
        }
        let from = *me;
        let cause = locals.recorder.local(&message, origin);
        if *chains && chain::is_own(&message) {
            return self.enqueue(Work::Message { from, message, cause });
        }
        match message.asker() {
            Some(askers::CATCH_UP | askers::SWEEP) => {
                locals.sync.do_send(crate::sync::FromReplica { from, message });
            }
            Some(askers::SCAN) => locals.scan.do_send(crate::scan::FromReplica { from, message }),
            _ => locals.shards.tell_routers(FromNode { from, message, cause }),
        }
    }

    /// Work for the writer; where its queue is full the round goes on without this replica.
    pub(super) fn enqueue(&self, work: Work) {
        let pushed = self.0.queue.borrow().as_ref().map_or(Ok(()), |queue| queue.push(work));
        let Err(turned) = pushed else { return };
        let Turned { work, reason } = *turned;
        let origin = Origin::from(work.cause());
        if let Some((to, message)) = no_vote(self.0.me, &work, reason) {
            self.let_out(Out { to, message, origin });
        }
    }

    /// Work that must not be lost; gives it back where it must wait.
    pub(super) fn enqueue_surely(&self, work: Work) -> Option<Work> {
        match self.0.queue.borrow().as_ref() {
            Some(queue) => queue.push_surely(work).err().map(|turned| turned.work),
            None => Some(work),
        }
    }

    /// Takes no more work, from whichever clone.
    pub(super) fn close(&self) {
        self.0.queue.take();
    }

    pub(super) fn has_chains(&self) -> bool {
        self.0.chains
    }

    pub(super) fn locals(&self) -> &Locals {
        &self.0.locals
    }

    pub(super) fn store(&self) -> &CachedStore<Arc<dyn Store>> {
        &self.0.store
    }

    pub(super) fn fatal(&self) -> &Fatal {
        &self.0.fatal
    }
}

/// What tells the sender that this replica does not vote in its round.
fn no_vote(me: NodeId, work: &Work, reason: Reason) -> Option<(NodeId, Message)> {
    let (to, key, round) = match work {
        Work::Begin { key, .. } => (me, key, Round::Begin),
        Work::Message { from, message, .. } => match message {
            Message::Prepare(ask) => (*from, &ask.key, Round::Ballot(ask.ballot)),
            Message::Accept(ask) => (*from, &ask.key, Round::Ballot(ask.record.stamp.ballot)),
            _ => return None,
        },
        Work::Install { .. } | Work::Part { .. } | Work::Tick | Work::Forget { .. } => return None,
    };
    Some((to, NoVote { key: key.clone(), round, reason }.into()))
}
