//! Where a node has several routers: what each must know of the others to judge silence.

use super::{Router, STOOD_STILL};
use crate::shards::{Pulse, Share};
use simpledynamo_protocol::{ring::NodeId, time::Time};
use std::sync::Arc;

/// Which part of a node's keys a router serves, and what it shares with the others.
pub struct Part {
    /// Which of how many.
    pub share: Share,
    /// Where there are several.
    pub pulse: Option<Arc<Pulse>>,
}

impl Part {
    /// All keys, on the node's own thread.
    pub const ALL: Part = Part { share: Share::ALL, pulse: None };
}

impl Router {
    /// Whether the node's own thread, which reads from peers, goes round: else nothing can have been
    /// heard. What other shards heard is known here from then on, too.
    pub(super) fn hears(&mut self, now: Time) -> bool {
        let Some(pulse) = &self.pulse else { return true };
        if now.since(pulse.last_beat()) > STOOD_STILL {
            return false;
        }
        for (node, at) in pulse.heard() {
            self.routing.heard_elsewhere(at, node);
        }
        true
    }

    /// Something was heard of a peer.
    pub(super) fn tell_others(&self, now: Time, node: NodeId) {
        if let Some(pulse) = &self.pulse {
            pulse.note(now, node);
        }
    }
}
