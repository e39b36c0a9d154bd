//! A promise told to a peer is never taken back, across crashes and the loss of the store: no vote
//! for a smaller ballot follows it. Source: register.md, "Effective promise"; Paxos, P1a.

use simpledynamo_protocol::{ballot::Ballot, message::Message, record::Key, ring::NodeId};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Promises(BTreeMap<(NodeId, Key), Ballot>);

impl Promises {
    pub(super) fn check(&mut self, from: NodeId, message: &Message) -> Result<(), &'static str> {
        match message {
            Message::Promise(promise) => {
                let told = self.0.entry((from, promise.key.clone())).or_default();
                if promise.ballot < *told {
                    return Err("a promise is never taken back");
                }
                *told = promise.ballot;
                Ok(())
            }
            Message::Accepted(accepted) => {
                let told = self.0.get(&(from, accepted.key.clone())).copied().unwrap_or_default();
                if accepted.stamp.ballot < told {
                    return Err("no vote below a promise");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
