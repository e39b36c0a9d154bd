//! The effective promise never goes below what a replica has told anyone, across crashes and the
//! loss of its store. Source: register.md, "Effective promise"; Paxos, P1a.

use super::{Fact, Violation, object};
use simpledynamo_protocol::{ballot::Ballot, record::Key, ring::NodeId};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Promises {
    told: BTreeMap<(NodeId, Key), Ballot>,
    /// Of these, told to somebody else: what a replica told only itself is lost with its store.
    told_others: BTreeMap<(NodeId, Key), Ballot>,
}

impl Promises {
    pub fn check(&mut self, fact: &Fact) -> Result<(), Violation> {
        match fact {
            Fact::Told { by, to, key, ballot } => {
                let raise = |told: &mut BTreeMap<(NodeId, Key), Ballot>| {
                    let told = told.entry((*by, key.clone())).or_default();
                    *told = (*told).max(*ballot);
                };
                raise(&mut self.told);
                if by != to {
                    raise(&mut self.told_others);
                }
            }
            Fact::Stands { at, key, promise } => {
                let told = self.told.get(&(*at, key.clone())).copied().unwrap_or_default();
                if *promise < told {
                    return object("promises", format!("{at} {key}: told {told}, now {promise}"));
                }
            }
            Fact::Wiped { at } => {
                self.told.retain(|(by, _), _| by != at);
                let others = self.told_others.iter().filter(|((by, _), _)| by == at);
                self.told.extend(others.map(|(key, ballot)| (key.clone(), *ballot)));
            }
            Fact::Asked { .. }
            | Fact::Learns { .. }
            | Fact::Stored { .. }
            | Fact::Committed { .. }
            | Fact::Seated { .. }
            | Fact::Began { .. }
            | Fact::Proposed { .. }
            | Fact::Accepted { .. }
            | Fact::Installed { .. } => {}
        }
        Ok(())
    }
}
