//! Who is believed dead: found by requests that time out, never by connection events.
//!
//! A node is suspected when a request to it timed out and nothing at all was heard of it since the
//! request was sent. It is trusted again when it answers anything; while suspected it is probed, so
//! that it is found again even when nobody needs it. A wrong suspicion costs another coordinator's
//! ballot and nothing else: safety never rests on it (Chandra & Toueg, 1996, call such a detector
//! eventually perfect where time-outs are long enough, and the register needs only that).

use crate::{ring::NodeId, time::Time};
use std::{collections::BTreeMap, time::Duration};

/// How often a suspected node is probed.
pub const PROBE_EVERY: Duration = Duration::from_millis(100);

/// What is known of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Peer {
    heard: Option<Time>,
    suspected: Option<Time>,
    probed: Option<Time>,
}

/// A change of a node's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It is suspected from now on.
    Suspected(NodeId),
    /// It is trusted from now on, after so long.
    Trusted(NodeId, Duration),
}

/// The failure detector of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Suspicion {
    peers: BTreeMap<NodeId, Peer>,
}

impl Suspicion {
    /// A detector that trusts all `peers`.
    #[must_use]
    pub fn new(peers: impl IntoIterator<Item = NodeId>) -> Suspicion {
        Suspicion { peers: peers.into_iter().map(|id| (id, Peer::default())).collect() }
    }

    /// A request sent to `node` at `sent` was not answered in time.
    pub fn timed_out(&mut self, now: Time, node: NodeId, sent: Time) -> Option<Change> {
        let peer = self.peers.get_mut(&node)?;
        if peer.suspected.is_some() || peer.heard.is_some_and(|heard| heard >= sent) {
            return None;
        }
        peer.suspected = Some(now);
        Some(Change::Suspected(node))
    }

    /// Something was received from `node`.
    pub fn heard(&mut self, now: Time, node: NodeId) -> Option<Change> {
        let peer = self.peers.get_mut(&node)?;
        peer.heard = Some(now);
        let since = peer.suspected.take()?;
        peer.probed = None;
        Some(Change::Trusted(node, now.since(since)))
    }

    /// Whether `node` is suspected.
    #[must_use]
    pub fn is_suspected(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.suspected.is_some())
    }

    /// The nodes to probe now; each is given out once in [`PROBE_EVERY`].
    pub fn due(&mut self, now: Time) -> Vec<NodeId> {
        let mut due = Vec::new();
        for (id, peer) in &mut self.peers {
            let waited = peer.probed.is_none_or(|probed| now.since(probed) >= PROBE_EVERY);
            if peer.suspected.is_some() && waited {
                peer.probed = Some(now);
                due.push(*id);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(5554);

    fn ms(ms: u64) -> Time {
        Time(ms * 1000)
    }

    #[test]
    fn silence_since_the_request_is_a_suspicion() {
        let mut detector = Suspicion::new([A]);
        assert_eq!(detector.timed_out(ms(100), A, ms(0)), Some(Change::Suspected(A)));
        assert!(detector.is_suspected(A));
        assert_eq!(detector.timed_out(ms(120), A, ms(20)), None, "suspected once");
    }

    #[test]
    fn a_slow_request_to_a_node_that_answers_others_is_none() {
        let mut detector = Suspicion::new([A]);
        assert_eq!(detector.heard(ms(50), A), None);
        assert_eq!(detector.timed_out(ms(100), A, ms(0)), None);
        assert!(!detector.is_suspected(A));
    }

    #[test]
    fn an_answer_clears_it_and_says_how_long_it_lasted() {
        let mut detector = Suspicion::new([A]);
        detector.timed_out(ms(100), A, ms(0));
        let change = detector.heard(ms(700), A);
        assert_eq!(change, Some(Change::Trusted(A, Duration::from_millis(600))));
        assert!(!detector.is_suspected(A));
    }

    #[test]
    fn only_suspected_nodes_are_probed_and_at_a_pace() {
        let mut detector = Suspicion::new([A, NodeId(5556)]);
        assert!(detector.due(ms(0)).is_empty());
        detector.timed_out(ms(100), A, ms(0));
        assert_eq!(detector.due(ms(100)), [A]);
        assert!(detector.due(ms(150)).is_empty());
        assert_eq!(detector.due(ms(200)), [A]);
    }
}
