//! What must hold after each step. The simulator reports facts; each file judges by one rule.

mod ballots;
mod chosen;
mod counts;
mod epochs;
mod held;
mod promises;
mod stamps;

use simpledynamo_protocol::{
    ballot::Ballot,
    chain::config::Config,
    recent::OpId,
    record::{Key, Record},
    ring::{NodeId, RangeId},
};
use std::collections::BTreeSet;

/// Something that happened and that rules are about.
#[derive(Clone, Debug)]
pub enum Fact {
    /// An operation that may change this key was taken from a client.
    Asked { key: Key, op: OpId, increment: bool },
    /// A ballot left the replica for its own coordinator.
    Began { ballot: Ballot },
    /// A coordinator sent this state to be accepted.
    Proposed { by: NodeId, key: Key, record: Record },
    /// An accepted state became durable.
    Accepted { at: NodeId, key: Key, record: Record },
    /// Anti-entropy's record became durable.
    Installed { at: NodeId, key: Key, record: Record },
    /// A promise, or an acknowledgement at this ballot, left the replica.
    Told { by: NodeId, to: NodeId, key: Key, ballot: Ballot },
    /// The promise in force, after a step of a replica that takes part.
    Stands { at: NodeId, key: Key, promise: Ballot },
    /// Chain: a member's row became durable.
    Stored { key: Key, record: Record },
    /// Chain: a tail's row became durable.
    Committed { key: Key, record: Record },
    /// Chain: a node's newest configuration became durable.
    Seated { at: NodeId, range: RangeId, config: Config },
    /// A node lost everything it had stored.
    Wiped { at: NodeId },
    /// It has been welcomed by all others: no vote of its former life may be counted any more.
    Learns { at: NodeId },
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: &'static str,
    /// How.
    pub text: String,
}

impl Violation {
    /// Whether something wrong happened, rather than nothing at all.
    pub fn is_about_safety(&self) -> bool {
        !["progress", "success", "convergence"].contains(&self.rule)
    }
}

fn object(rule: &'static str, text: String) -> Result<(), Violation> {
    Err(Violation { rule, text })
}

/// All rules.
#[derive(Debug, Default)]
pub struct Invariants {
    stamps: stamps::Stamps,
    ballots: ballots::Ballots,
    promises: promises::Promises,
    chosen: chosen::Chosen,
    held: held::Held,
    counts: counts::Counts,
    epochs: epochs::Epochs,
}

impl Invariants {
    /// Judges one fact by every rule.
    pub fn check(&mut self, fact: &Fact) -> Result<(), Violation> {
        self.stamps.check(fact)?;
        self.epochs.check(fact)?;
        self.ballots.check(fact)?;
        self.promises.check(fact)?;
        let newly = self.chosen.check(fact)?;
        self.counts.learn(fact);
        newly.map_or(Ok(()), |(key, record)| self.counts.check(&key, &record))?;
        self.held.check(fact, &self.chosen)
    }

    /// States chosen so far, all keys together.
    pub fn chosen_states(&self) -> usize {
        self.chosen.len()
    }
}

/// The operations of a set that a state remembers or has finished with.
fn known<'a>(record: &Record, ops: &'a BTreeSet<OpId>) -> Vec<&'a OpId> {
    use simpledynamo_protocol::recent::Seen;
    ops.iter().filter(|op| record.recent.seen(**op) != Seen::New).collect()
}
