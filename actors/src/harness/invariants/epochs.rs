//! One epoch of a range names one chain. Source: chain.md, "The chain's configuration is a register":
//! only a compare-and-set changes a chain.

use simpledynamo_protocol::{chain::config::Config, message::Message, ring::RangeId};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Epochs(BTreeMap<(RangeId, u64), Config>);

impl Epochs {
    pub(super) fn check(&mut self, message: &Message) -> Result<(), &'static str> {
        let (range, config) = match message {
            Message::Forward(it) => (it.range, &it.config),
            Message::Confirm(it) => (it.range, &it.config),
            Message::Survey(it) => (it.range, &it.config),
            Message::Announce(it) => (it.range, &it.config),
            Message::Attach(it) => (it.range, &it.config),
            _ => return Ok(()),
        };
        let known = self.0.entry((range, config.epoch)).or_insert_with(|| config.clone());
        if known == config { Ok(()) } else { Err("an epoch names one chain only") }
    }
}
