//! What shards share to tell a silent peer from a deaf node.
//!
//! The node's own thread reads from peers for all shards. While it stands still, answers lie unread, and
//! no shard may take that for silence: it beats every few milliseconds, and a shard that misses the
//! beat lets its own time stand still, too. What one shard hears of a peer counts for all, as it does
//! where there is one router: they look at it before they look for time-outs.

use crate::clock::Clock;
use simpledynamo_protocol::{ring::NodeId, time::Time};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How often the node's own thread beats.
pub(crate) const BEAT: Duration = Duration::from_millis(5);

/// When the node's own thread last went round, and when anything was heard of each peer.
pub struct Pulse {
    clock: Clock,
    beat: AtomicU64,
    heard: BTreeMap<NodeId, AtomicU64>,
}

impl Pulse {
    /// A first beat; nothing was heard yet.
    #[must_use]
    pub fn new(clock: Clock, peers: impl IntoIterator<Item = NodeId>) -> Pulse {
        let beat = AtomicU64::new(clock.mono().0);
        let heard = peers.into_iter().map(|peer| (peer, AtomicU64::new(0))).collect();
        Pulse { clock, beat, heard }
    }

    /// The node's own thread goes round.
    pub(crate) fn beat(&self) {
        self.beat.store(self.clock.mono().0, Ordering::Relaxed);
    }

    /// When it last did.
    pub(crate) fn last_beat(&self) -> Time {
        Time(self.beat.load(Ordering::Relaxed))
    }

    /// Something came from `peer`.
    pub(crate) fn note(&self, now: Time, peer: NodeId) {
        if let Some(heard) = self.heard.get(&peer) {
            heard.fetch_max(now.0, Ordering::Relaxed);
        }
    }

    /// When something last came from each peer, those that were never heard left out.
    pub(crate) fn heard(&self) -> impl Iterator<Item = (NodeId, Time)> {
        let heard = self.heard.iter().map(|(peer, at)| (*peer, Time(at.load(Ordering::Relaxed))));
        heard.filter(|(_, at)| at.0 > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_that_any_shard_heard_counts() {
        let pulse = Pulse::new(Clock::system(), [NodeId(1), NodeId(2)]);
        for (peer, at) in [(1, 50), (1, 70), (1, 60), (3, 80)] {
            pulse.note(Time(at), NodeId(peer));
        }
        assert_eq!(pulse.heard().collect::<Vec<_>>(), [(NodeId(1), Time(70))]);
    }
}
