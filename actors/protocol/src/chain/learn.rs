//! A node that has lost its store, or may have lost part of it, must not vote on configurations: with
//! its forgotten vote one was chosen. For each of its ranges it asks both other replicas what they
//! hold. Where both hold the same, that is chosen, and it takes it over; where they differ, it has
//! one of them write what is chosen once more. Then it votes. This is the learner's rule of
//! [`crate::register::catchup`], for one key a range.
//!
//! Its rows prove nothing either: it is no member of any chain until it has joined anew.

use super::{
    Chain, Core, Range, Step,
    config::{Config, Seat},
    wire::{ConfigRound, RegisterMessage},
};
use crate::{
    ballot::Stamp,
    effect::{Effect, Effects, Write},
    message::{Ask, Held, Query},
    record::{Record, stamp_of},
    register::acceptor::Standing,
    ring::NodeId,
    time::Time,
};
use std::collections::BTreeMap;

/// What the others hold of a range's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Learning {
    ask: Ask,
    answers: BTreeMap<NodeId, Option<Record>>,
    until: Time,
}

impl Learning {
    pub(super) fn next_wake(&self) -> Time {
        self.until
    }
}

impl Chain {
    /// The peers know another store of this node, or its own may be incomplete: it has no part in
    /// its chains until it has learned the configurations. `peers_ceiling` is the largest ceiling of
    /// **all** peers. `again`: a later life goes on with what an earlier one began. Then its seats
    /// are of after the loss: where it has joined anew it may be the only level member left.
    pub fn learn(&mut self, now: Time, peers_ceiling: u64, again: bool, out: &mut Effects) {
        self.core.acceptor.learn(peers_ceiling, out);
        for range in self.ranges.values_mut() {
            if !again {
                range.seat = Seat::lost();
                out.push(Effect::Persist(Write::Seat(range.id, Seat::lost())));
            }
            let ask = self.core.ask();
            range.learning = Some(Learning { ask, answers: BTreeMap::new(), until: now });
        }
        self.vote_if_learned();
    }

    /// To be called when `node` is found to have lost its store, **before it is welcomed**; nothing
    /// it said before may be handed in afterwards.
    pub fn forget(&mut self, node: NodeId) {
        for range in self.ranges.values_mut() {
            range.register.forget(node);
            range.forget_source(node);
            range.forget_present(node);
            if let Some(learning) = &mut range.learning {
                learning.answers.remove(&node);
            }
        }
    }

    pub(super) fn vote_if_learned(&mut self) {
        let learner = self.standing() == Standing::Learner;
        if learner && self.ranges.values().all(|range| range.learning.is_none()) {
            self.core.acceptor.vote();
        }
    }
}

impl Range {
    pub(super) fn is_learning(&self, ask: Ask) -> bool {
        self.learning.as_ref().is_some_and(|learning| learning.ask == ask)
    }

    /// Asks those that have not answered; where both have and differ, has one of them settle it.
    pub(super) fn wake_learning(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let now = step.now.mono;
        let others: Vec<_> = self.replicas.iter().filter(|node| **node != core.me).collect();
        let Some(learning) = self.learning.as_mut().filter(|learning| learning.until <= now) else {
            return;
        };
        learning.until = now + core.settings.request_timeout;
        if learning.answers.len() == others.len() {
            learning.answers.clear();
            learning.ask = core.ask();
            let at = usize::try_from(learning.ask.n).unwrap_or(0) % others.len().max(1);
            if let Some(to) = others.get(at) {
                let body = RegisterMessage::Settle;
                return step.send(**to, ConfigRound { range: self.id, body });
            }
        }
        for to in others.into_iter().filter(|node| !learning.answers.contains_key(node)) {
            let query = Query { key: self.register.key().clone(), ask: learning.ask, have: None };
            let body = RegisterMessage::Query(query);
            step.send(*to, ConfigRound { range: self.id, body });
        }
    }

    pub(super) fn learned(
        &mut self,
        core: &mut Core,
        from: NodeId,
        held: Held,
        step: &mut Step<'_>,
    ) {
        let others = self.replicas.len().saturating_sub(1);
        let Some(learning) = &mut self.learning else { return };
        let record = match held {
            Held::Record(record) => Some(record),
            Held::Nothing | Held::Same(_) => None,
        };
        learning.answers.insert(from, record);
        let stamps: Vec<Option<Stamp>> =
            learning.answers.values().map(|record| stamp_of(record.as_ref())).collect();
        let agreed = stamps.windows(2).all(|pair| pair.first() == pair.last());
        if stamps.len() < others || !agreed {
            return;
        }
        let chosen = learning.answers.values().flatten().next().cloned();
        self.learning = None;
        let config = chosen.as_ref().and_then(|record| Config::parse(record.datum.value()?));
        if let Some(record) = chosen {
            let (mut effects, row) = (Effects::new(), self.register.row().cloned());
            let key = self.register.key().clone();
            core.acceptor.install(key, record, row.as_ref(), &mut effects);
            self.carry_out(core, effects, step);
        }
        self.adopt(core, config.unwrap_or_else(|| Config::first(&self.replicas)), step);
    }
}
