//! Actors of one's own in the processes of a simulated ring.
//!
//! They live and die with their node: started anew in each life, stopped by a pause, gone with a
//! crash. Their messages and timers are as deterministic as the node's own, and a panic in one of
//! them fails the run. In production the same function is called after
//! [`crate::node::start`], with the handle that this gives.
//!
//! Caveat: the simulated network carries the bridge's frames only. An actor reaches other nodes
//! through its node (its [`NodeHandle`]), not through sockets of its own.

use crate::{clock::Clock, messages::NodeHandle, settings::Settings};
use std::{fmt, sync::Arc};

type Start = dyn Fn(NodeHandle, Clock, &Settings) + Send + Sync;

/// Starts something beside a node's own actors; from [`super::Config::beside`].
#[derive(Clone)]
pub struct Beside(Arc<Start>);

impl Beside {
    pub(super) fn new(
        start: impl Fn(NodeHandle, Clock, &Settings) + Send + Sync + 'static,
    ) -> Beside {
        Beside(Arc::new(start))
    }

    /// A life of a node has begun: its actors run.
    pub(super) fn start(&self, node: NodeHandle, clock: Clock, settings: &Settings) {
        (self.0)(node, clock, settings);
    }
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Beside")
    }
}
