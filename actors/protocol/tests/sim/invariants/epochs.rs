//! One epoch of a range names one chain, and no node goes back to an earlier one. Source: chain.md,
//! "Only a successful compare-and-set of it changes a chain", "stops serving the old one durably".

use super::{Fact, Violation, object};
use simpledynamo_protocol::{
    chain::config::Config,
    ring::{NodeId, RangeId},
};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Epochs {
    named: BTreeMap<(RangeId, u64), Config>,
    seats: BTreeMap<(NodeId, RangeId), u64>,
}

impl Epochs {
    pub fn check(&mut self, fact: &Fact) -> Result<(), Violation> {
        match fact {
            Fact::Seated { at, range, config } if config.epoch > 0 => {
                let first = self.named.entry((*range, config.epoch));
                let first = first.or_insert_with(|| config.clone());
                if first != config {
                    return object("epochs", format!("range {}: {first} and {config}", range.0));
                }
                let known = self.seats.entry((*at, *range)).or_default();
                if config.epoch < *known {
                    let text = format!("{at} range {}: e{known}, then {config}", range.0);
                    return object("epochs", text);
                }
                *known = config.epoch;
            }
            Fact::Wiped { at } => self.seats.retain(|(node, _), _| node != at),
            _ => {}
        }
        Ok(())
    }
}
