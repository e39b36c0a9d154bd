//! One (ballot, version) never names two contents: without this, two agreeing answers would not be
//! one state. Source: register.md, "never reuse (b, version) for another value"; Paxos, P2
//! (Lamport, "Paxos Made Simple", 2001).

use super::{Fact, Violation, object};
use simpledynamo_protocol::{
    ballot::Stamp,
    record::{Key, Record},
};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Stamps {
    named: BTreeMap<(Key, Stamp), Record>,
}

impl Stamps {
    pub fn check(&mut self, fact: &Fact) -> Result<(), Violation> {
        let (Fact::Proposed { key, record, .. }
        | Fact::Accepted { key, record, .. }
        | Fact::Stored { key, record }
        | Fact::Installed { key, record, .. }) = fact
        else {
            return Ok(());
        };
        let first = self.named.entry((key.clone(), record.stamp)).or_insert_with(|| record.clone());
        if first != record {
            return object("stamps", format!("{key} {first:?} and {record:?}"));
        }
        Ok(())
    }
}
