//! A ballot is its node's alone. Source: register.md, "One owner per ballot" (CASPaxos, §2.2).

use simpledynamo_protocol::{message::Message, ring::NodeId};

pub(super) fn check(from: NodeId, message: &Message) -> Result<(), &'static str> {
    let ballot = match message {
        Message::Prepare(ask) => ask.ballot,
        Message::Accept(ask) => ask.record.stamp.ballot,
        _ => return Ok(()),
    };
    if ballot.node == from { Ok(()) } else { Err("a ballot is used by its own node only") }
}
