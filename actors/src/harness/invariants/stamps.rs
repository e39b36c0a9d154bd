//! A stamp names one state. Source: register.md, "Never reuse (b, version) for another value".

use simpledynamo_protocol::{
    ballot::Stamp,
    message::{Held, Message},
    record::{Key, Record},
};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Stamps(BTreeMap<(Key, Stamp), Record>);

impl Stamps {
    pub(super) fn check(&mut self, message: &Message) -> Result<(), &'static str> {
        match message {
            Message::Accept(ask) => self.seen(&ask.key, &ask.record),
            Message::Promise(promise) => {
                promise.record.as_ref().map_or(Ok(()), |record| self.seen(&promise.key, record))
            }
            Message::State(state) => match &state.held {
                Held::Record(record) => self.seen(&state.key, record),
                Held::Nothing | Held::Same(_) => Ok(()),
            },
            Message::Forward(forward) => {
                forward.record.as_ref().map_or(Ok(()), |record| self.seen(&forward.key, record))
            }
            Message::Records(records) => {
                records.records.iter().try_for_each(|(key, record)| self.seen(key, record))
            }
            _ => Ok(()),
        }
    }

    fn seen(&mut self, key: &Key, record: &Record) -> Result<(), &'static str> {
        let known = self.0.entry((key.clone(), record.stamp)).or_insert_with(|| record.clone());
        if known == record { Ok(()) } else { Err("a stamp names one state only") }
    }
}
