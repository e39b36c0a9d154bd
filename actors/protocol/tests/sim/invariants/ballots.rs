//! No ballot is given out twice, across restarts too, and nobody but its node writes under it.
//! Source: register.md, "After a restart never reuse a round"; CASPaxos (Rystsov, 2018), §2.2.

use super::{Fact, Violation, object};
use simpledynamo_protocol::ballot::Ballot;
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub struct Ballots {
    /// Given out.
    begun: BTreeSet<Ballot>,
    /// Seen by somebody else: a wiped node has forgotten the others, and so has everyone.
    shared: BTreeSet<Ballot>,
}

impl Ballots {
    pub fn check(&mut self, fact: &Fact) -> Result<(), Violation> {
        match fact {
            Fact::Began { ballot } => {
                if !self.begun.insert(*ballot) {
                    return object("ballots", format!("{ballot} was given out before"));
                }
            }
            Fact::Proposed { by, key, record } => {
                let ballot = record.stamp.ballot;
                if ballot.node != *by || !self.begun.contains(&ballot) {
                    return object("ballots", format!("{by} proposes {key} {record} unowned"));
                }
            }
            Fact::Told { by, ballot, .. } if ballot.node != *by => {
                self.shared.insert(*ballot);
            }
            Fact::Wiped { at } => {
                let shared = &self.shared;
                self.begun.retain(|ballot| ballot.node != *at || shared.contains(ballot));
            }
            Fact::Asked { .. }
            | Fact::Learns { .. }
            | Fact::Stored { .. }
            | Fact::Committed { .. }
            | Fact::Seated { .. }
            | Fact::Accepted { .. }
            | Fact::Installed { .. }
            | Fact::Told { .. }
            | Fact::Stands { .. } => {}
        }
        Ok(())
    }
}
