//! Exactly-once records: an operation that is tried at several coordinators is applied once.
//!
//! RIFL (Lee et al., SOSP '15, §3) keeps a completion record beside the object it changed. Here it
//! lies *inside* the register's state, so that adopting a state adopts what has been applied to it.
//! The router that took the request numbers it and says with every request which of its operations
//! **on this key** are over (`done_below`); their results are dropped, and whatever of them still
//! wanders through the network is refused as stale. So a record keeps one result for each request in
//! flight on the key, and no clock is asked.
//!
//! Caveat: results are kept while they fit in [`RESULTS_BYTES_MAX`]. One that does not is
//! remembered as applied without its result, and a retry that meets it says so.

use crate::{command::Reply, ring::NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of stored results in one record: a frame (2 MiB) less the largest value (1 MiB), the
/// largest key (64 KiB) and as much again for everything else.
pub const RESULTS_BYTES_MAX: usize = 896 * 1024;

/// The name of one client operation, the same at every coordinator it is tried at.
/// `Display`: `5554-17-203`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct OpId {
    /// The node whose router took the request.
    pub router: NodeId,
    /// That node's start count, durable, so that numbers are not used again after a restart.
    pub incarnation: u64,
    /// Counts the router's requests.
    pub seq: u64,
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.router, self.incarnation, self.seq)
    }
}

/// What the record says about an operation that wants to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not yet applied: go ahead.
    New,
    /// Applied before, with this result (none where it was too large to keep).
    Applied(Option<Reply>),
    /// Its router has finished with it, or has died: it must not be applied any more.
    Stale,
}

/// The exactly-once records of one key, one entry a router that ever wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recent {
    routers: Vec<RouterMemory>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct RouterMemory {
    router: NodeId,
    incarnation: u64,
    done_below: u64,
    results: Vec<(u64, Option<Reply>)>,
}

impl Recent {
    /// What is known of `op`.
    #[must_use]
    pub fn seen(&self, op: OpId) -> Seen {
        let Some(memory) = self.routers.iter().find(|memory| memory.router == op.router) else {
            return Seen::New;
        };
        if op.incarnation > memory.incarnation {
            return Seen::New;
        }
        if op.incarnation < memory.incarnation || op.seq < memory.done_below {
            return Seen::Stale;
        }
        let known = memory.results.iter().find(|(seq, _)| *seq == op.seq);
        known.map_or(Seen::New, |(_, reply)| Seen::Applied(reply.clone()))
    }

    /// Remembers that `op` was applied with `reply`, and forgets what its router has finished.
    pub fn note(&mut self, op: OpId, done_below: u64, reply: &Reply) {
        let kept = self.results_bytes(op.router) + reply.size() <= RESULTS_BYTES_MAX;
        let memory = self.memory_of(op);
        memory.done_below = memory.done_below.max(done_below);
        let below = memory.done_below;
        memory.results.retain(|(seq, _)| *seq >= below);
        memory.results.push((op.seq, kept.then(|| reply.clone())));
    }

    /// Results kept, all routers together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routers.iter().map(|memory| memory.results.len()).sum()
    }

    /// Whether no result is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All kept results together, in bytes; those that a note for `next` drops are still counted.
    fn results_bytes(&self, _next: NodeId) -> usize {
        let replies = self.routers.iter().flat_map(|memory| &memory.results);
        replies.map(|(_, reply)| reply.as_ref().map_or(0, Reply::size)).sum()
    }

    fn memory_of(&mut self, op: OpId) -> &mut RouterMemory {
        let at = self.routers.iter().position(|memory| memory.router == op.router);
        let fresh = RouterMemory {
            router: op.router,
            incarnation: op.incarnation,
            done_below: 0,
            results: Vec::new(),
        };
        let at = at.unwrap_or_else(|| {
            self.routers.push(fresh.clone());
            self.routers.len() - 1
        });
        let memory = &mut self.routers[at];
        if memory.incarnation < op.incarnation {
            *memory = fresh;
        }
        memory
    }
}
