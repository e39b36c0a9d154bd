//! Rules of the chain broken on purpose, from outside like the others.

use super::{
    disk::Disk,
    mutant::{Mutant, Tamper},
    node::{Around, Node},
};
use simpledynamo_protocol::{
    chain::wire::{Announce, Confirmed, Forward},
    effect::{Effect, Effects, Write},
    message::Message,
    record::{Key, Record, stamp_of},
    ring::NodeId,
};
use std::collections::BTreeMap;

/// What a mutant remembers of writes that were passed on: the row before.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    before: BTreeMap<Key, Option<Record>>,
}

impl Tamper {
    /// Changes what a chain wants done.
    pub fn chain_effects<T>(
        &mut self,
        mut effects: Effects,
        disk: &Disk<T>,
        me: NodeId,
    ) -> Effects {
        match self.mutant {
            Some(Mutant::NoExactlyOnce) => effects.iter_mut().for_each(forget_results),
            Some(Mutant::HeadForgets) => return self.forgetful(effects, disk, me),
            _ => {}
        }
        effects
    }

    /// A node that becomes the head has forgotten what it had passed on.
    fn forgetful<T>(&mut self, effects: Effects, disk: &Disk<T>, me: NodeId) -> Effects {
        let mut tampered = Effects::new();
        for effect in effects {
            match &effect {
                Effect::Persist(Write::Put(key, _)) => {
                    let before = disk.get(key).cloned();
                    self.in_flight.before.entry(key.clone()).or_insert(before);
                }
                Effect::Persist(Write::Seat(_, seat)) if seat.config.head() == Some(me) => {
                    for (key, before) in std::mem::take(&mut self.in_flight.before) {
                        tampered.push(Effect::Persist(match before {
                            Some(record) => Write::Put(key, record),
                            None => Write::Remove(key),
                        }));
                    }
                }
                _ => {}
            }
            tampered.push(effect);
        }
        tampered
    }
}

fn forget_results(effect: &mut Effect) {
    match effect {
        Effect::Persist(Write::Put(_, record)) => record.recent = Default::default(),
        Effect::Send { message: Message::Forward(forward), .. } => {
            if let Some(record) = &mut forward.record {
                record.recent = Default::default();
            }
        }
        _ => {}
    }
}

impl Node {
    /// Changes what reaches a node's chains; what is to be handled in its place, in order.
    pub(super) fn chain_incoming(
        &mut self,
        from: NodeId,
        message: Message,
        step: &mut Around<'_>,
    ) -> Vec<(NodeId, Message)> {
        match (self.tamper.mutant, message) {
            (Some(Mutant::OldEpochAccepted), Message::Forward(forward)) => {
                match self.take_old(forward, step) {
                    Some(forward) => vec![(from, forward.into())],
                    None => Vec::new(),
                }
            }
            (Some(Mutant::HeadForgets), Message::Acked(acked)) => {
                for (key, _) in &acked.entries {
                    self.tamper.in_flight.before.remove(key);
                }
                vec![(from, acked.into())]
            }
            (Some(Mutant::CopiesNothing), Message::Digests(digests)) if from != self.id => {
                // It finds at its source what it holds itself.
                let mine = simpledynamo_protocol::message::AskDigests {
                    ask: digests.ask,
                    range: digests.range,
                };
                let mut same = digests;
                same.buckets = self.buckets(&mine);
                vec![(from, same.into())]
            }
            (_, message) => vec![(from, message)],
        }
    }

    /// A tail that asks nobody: what it would ask is confirmed at once.
    pub(super) fn unasked(&mut self, to: NodeId, message: &Message, step: &mut Around<'_>) -> bool {
        let Message::Confirm(confirm) = message else { return false };
        if !self.tamper.is(Mutant::TailUnconfirmed) {
            return false;
        }
        let (range, epoch, ask) = (confirm.range, confirm.config.epoch, confirm.ask);
        let confirmed = Confirmed { range, epoch, ask };
        self.act(step, |chain, now, rows, out| {
            chain.message(now, to, confirmed.into(), rows, out);
        });
        true
    }

    /// A write of an older epoch is stored, passed on and answered all the same.
    fn take_old(&mut self, forward: Forward, step: &mut Around<'_>) -> Option<Forward> {
        let seat = self.chain.as_ref()?.seat(forward.range)?.clone();
        if forward.config.epoch >= seat.config.epoch || seat.config.since(self.id).is_none() {
            return Some(forward);
        }
        let Forward { range, key, record, answers, .. } = forward;
        let mut effects = Effects::new();
        if let Some(record) = &record
            && stamp_of(self.disk.get(&key)) < Some(record.stamp)
        {
            effects.push(Effect::Persist(Write::Put(key.clone(), record.clone())));
        }
        match seat.config.after(self.id) {
            Some(to) => {
                let config = seat.config;
                let forward = Forward { range, config, key, record, answers };
                effects.push(Effect::Send { to, message: forward.into() });
            }
            None => effects.extend(
                answers
                    .into_iter()
                    .map(|answer| Effect::Send { to: answer.op.router, message: answer.into() }),
            ),
        }
        self.replicate(effects, super::disk::Origin::Accepted, step);
        None
    }

    /// The router suspects a node; the mutant takes it for dead at once, everywhere.
    pub(super) fn suspect(&mut self, node: NodeId, step: &mut Around<'_>) {
        if !self.tamper.is(Mutant::SuspicionChanges) {
            return;
        }
        for range in self.setup.ring.ranges_of(self.id) {
            let Some(seat) = self.chain.as_ref().and_then(|chain| chain.seat(range)) else {
                return;
            };
            let me = seat.is_level(self.id) && seat.config.since(node).is_some();
            if me && node != self.id {
                let config = seat.config.keeping(|member| member != node);
                let id = self.id;
                self.act(step, |chain, now, rows, out| {
                    chain.message(now, id, Announce { range, config }.into(), rows, out);
                });
            }
        }
    }
}
