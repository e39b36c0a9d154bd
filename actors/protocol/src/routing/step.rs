//! What a router wants done, and what a client may be told.

use crate::{
    ballot::Stamp,
    command::Reply,
    message::{Query, Reason, Request},
    recent::OpId,
    ring::NodeId,
    time::Time,
};

/// What the router wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this to a coordinator.
    Ask {
        /// The coordinator's node, perhaps the router's own.
        to: NodeId,
        /// The attempt.
        request: Request,
    },
    /// Ask a replica what it holds, for a read; its answer goes to [`Routing::told`](super::Routing::told).
    Query {
        /// Which node, perhaps the router's own.
        to: NodeId,
        /// For this operation.
        op: OpId,
        /// The question.
        query: Query,
        /// The first question of the read.
        first: bool,
    },
    /// Replicas agree on what a read asked for.
    Agreed {
        /// The operation.
        op: OpId,
        /// On this state; the least where they hold nothing.
        stamp: Stamp,
    },
    /// A read is left to a coordinator.
    Leave {
        /// The operation.
        op: OpId,
        /// In a few words.
        why: &'static str,
    },
    /// The operation is over.
    Finish {
        /// Which.
        op: OpId,
        /// What the client is told.
        verdict: Verdict,
    },
    /// No answer came within the time-out.
    TimedOut {
        /// For this operation.
        op: OpId,
        /// From this node.
        node: NodeId,
        /// In this part.
        by: Asked,
        /// To what was sent then.
        sent: Time,
    },
}

/// As what a node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// For an operation.
    Coordinator,
    /// For a read, what it holds.
    Replica,
}

/// What the client may be told: exactly one of three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took place; for a read, this is the value.
    Reply(Reply),
    /// It certainly did not take place.
    NotApplied(Reason),
    /// It may or may not have taken place, or may yet.
    Unknown,
}
