//! Who has answered a round.

use crate::ring::NodeId;
use std::collections::BTreeSet;

/// Who has answered a round, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tally {
    replicas: usize,
    pub(super) votes: BTreeSet<NodeId>,
    against: BTreeSet<NodeId>,
}

impl Tally {
    pub(super) fn new(replicas: usize) -> Tally {
        Tally { replicas, votes: BTreeSet::new(), against: BTreeSet::new() }
    }

    /// The last word of a replica counts: a refusal may belong to the round's first half.
    pub(super) fn vote(&mut self, from: NodeId) {
        self.against.remove(&from);
        self.votes.insert(from);
    }

    pub(super) fn refuse(&mut self, from: NodeId) {
        if !self.votes.contains(&from) {
            self.against.insert(from);
        }
    }

    /// As if it had not answered.
    pub(super) fn forget(&mut self, from: NodeId) {
        self.votes.remove(&from);
        self.against.remove(&from);
    }

    /// Whether it has answered.
    pub(super) fn has(&self, from: NodeId) -> bool {
        self.votes.contains(&from) || self.against.contains(&from)
    }

    /// How many votes there could be at most.
    pub(super) fn possible(&self) -> usize {
        self.replicas - self.against.len()
    }

    /// Whether every replica but so many has answered.
    pub(super) fn complete_but(&self, spared: usize) -> bool {
        self.votes.len() + self.against.len() + spared >= self.replicas
    }
}
