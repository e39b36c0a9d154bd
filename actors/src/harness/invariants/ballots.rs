//! A ballot is its node's alone and is prepared for one key only, across restarts too. Source:
//! register.md, "One owner per ballot", "After a restart never reuse a round" (CASPaxos, §2.2).
//!
//! A node that lost its disk knows only its peers' ceilings, and may prepare once more what it had
//! prepared before and no peer took in. Under such a ballot nothing can have been proposed: a quorum's
//! promise has a peer in it, whose ceiling was durable first. What was proposed under stays used.

use simpledynamo_protocol::{ballot::Ballot, message::Message, record::Key, ring::NodeId};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Ballots(BTreeMap<Ballot, Used>);

struct Used {
    key: Key,
    /// Something was proposed under it.
    proposed: bool,
}

impl Ballots {
    pub(super) fn check(&mut self, from: NodeId, message: &Message) -> Result<(), &'static str> {
        let (key, ballot, proposed) = match message {
            Message::Prepare(ask) => (&ask.key, ask.ballot, false),
            Message::Accept(ask) => (&ask.key, ask.record.stamp.ballot, true),
            _ => return Ok(()),
        };
        if ballot.node != from {
            return Err("a ballot is used by its own node only");
        }
        let used = self.0.entry(ballot).or_insert_with(|| Used { key: key.clone(), proposed });
        used.proposed |= proposed;
        if used.key == *key { Ok(()) } else { Err("a ballot is used for one key only") }
    }

    /// `node` starts on an empty disk.
    pub(super) fn wiped(&mut self, node: NodeId) {
        self.0.retain(|ballot, used| ballot.node != node || used.proposed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simpledynamo_protocol::{
        ballot::Stamp,
        message::{Accept, Prepare},
        record::{Datum, Record},
    };

    const NODE: NodeId = NodeId(5558);
    const BALLOT: Ballot = Ballot { round: 7, node: NODE };

    fn prepare(key: &str) -> Message {
        Prepare { key: Key::from(key), ballot: BALLOT }.into()
    }

    fn accept(key: &str) -> Message {
        let stamp = Stamp { ballot: BALLOT, version: 1 };
        let record =
            Record { stamp, datum: Datum::Tombstone { at: 1 }, recent: Default::default() };
        Accept { key: Key::from(key), record }.into()
    }

    #[test]
    fn what_was_proposed_under_stays_used_when_its_node_loses_its_disk() {
        let mut ballots = Ballots::default();
        assert!(ballots.check(NODE, &prepare("a")).is_ok());
        assert!(ballots.check(NODE, &prepare("b")).is_err());
        ballots.wiped(NodeId(5554));
        assert!(ballots.check(NODE, &prepare("b")).is_err(), "another node's");
        ballots.wiped(NODE);
        assert!(ballots.check(NODE, &prepare("b")).is_ok(), "no peer took the first in");
        assert!(ballots.check(NODE, &accept("b")).is_ok());
        ballots.wiped(NODE);
        assert!(ballots.check(NODE, &prepare("a")).is_err());
    }
}
