//! Ballots and stamps: the order in which the register's states supersede each other.
//!
//! A ballot belongs to one node and is used for one prepare only (CASPaxos, Rystsov 2018, §2.2);
//! under it its owner numbers the states it writes. Source of the pair: register.md, "State".

use crate::ring::NodeId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// `(round, node)`, totally ordered, round first. `Display`: `3.5554`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Ballot {
    /// Counts prepares; never used twice by a node, across restarts too.
    pub round: u64,
    /// Who prepared it, and alone may write under it.
    pub node: NodeId,
}

impl Ballot {
    /// Below every ballot in use.
    pub const ZERO: Ballot = Ballot { round: 0, node: NodeId(0) };

    /// The largest ballot of a round: a replica that promised it refuses the whole round.
    #[must_use]
    pub fn last_of(round: u64) -> Ballot {
        Ballot { round, node: NodeId(u32::MAX) }
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.node.0 == u32::MAX {
            write!(f, "{}.max", self.round)
        } else {
            write!(f, "{}.{}", self.round, self.node)
        }
    }
}

/// What orders records: ballot first, then the version written under it. `Display`: `v7@3.5554`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Stamp {
    /// The owner's ballot.
    pub ballot: Ballot,
    /// Writes of the key so far, this one included.
    pub version: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}@{}", self.version, self.ballot)
    }
}
