//! A promise told to a peer is never taken back, across crashes and the loss of the store: nothing
//! is accepted below it from then on. What anti-entropy copies is exempt: it is chosen, and every
//! later ballot has seen it. Source: register.md, "Effective promise"; Paxos, P1a.
//!
//! Caveat: each peer is told in order, but two peers in any: their connections differ. So promises
//! are compared with one another for each peer, and with what becomes durable for all.

use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    message::Message,
    record::Key,
    ring::NodeId,
};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Promises {
    /// The largest told to anybody, by replica.
    told: BTreeMap<(NodeId, Key), Ballot>,
    /// The last told to a peer.
    last: BTreeMap<(NodeId, NodeId, Key), Ballot>,
}

impl Promises {
    pub(super) fn check(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: &Message,
    ) -> Result<(), &'static str> {
        let Message::Promise(promise) = message else { return Ok(()) };
        let told = self.told.entry((from, promise.key.clone())).or_default();
        *told = (*told).max(promise.ballot);
        let last = self.last.entry((from, to, promise.key.clone())).or_default();
        if promise.ballot < *last {
            return Err("a promise is never taken back");
        }
        *last = promise.ballot;
        Ok(())
    }

    /// A record that was not copied became durable.
    pub(super) fn accepted(&self, at: NodeId, key: &Key, stamp: Stamp) -> Result<(), &'static str> {
        let told = self.told.get(&(at, key.clone())).copied().unwrap_or_default();
        if stamp.ballot < told { Err("nothing is accepted below a promise") } else { Ok(()) }
    }
}
