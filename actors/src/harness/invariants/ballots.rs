//! A ballot is its node's alone and is prepared for one key only, across restarts too. Source:
//! register.md, "One owner per ballot", "After a restart never reuse a round" (CASPaxos, §2.2).

use simpledynamo_protocol::{ballot::Ballot, message::Message, record::Key, ring::NodeId};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Ballots(BTreeMap<Ballot, Key>);

impl Ballots {
    pub(super) fn check(&mut self, from: NodeId, message: &Message) -> Result<(), &'static str> {
        let (key, ballot) = match message {
            Message::Prepare(ask) => (&ask.key, ask.ballot),
            Message::Accept(ask) => (&ask.key, ask.record.stamp.ballot),
            _ => return Ok(()),
        };
        if ballot.node != from {
            return Err("a ballot is used by its own node only");
        }
        let used = self.0.entry(ballot).or_insert_with(|| key.clone());
        if used == key { Ok(()) } else { Err("a ballot is used for one key only") }
    }
}
