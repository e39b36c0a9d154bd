//! What breaks, and how it is mended.
//!
//! A crash loses memory and unsynced writes. A pause keeps a node's messages and timers for later.
//! A cut loses or holds up what one node sends another. A wipe is a crash whose disk comes back
//! empty; one at a time, and only while all others vote: more is beyond what three copies bear.

use super::{
    invariants::{Fact, Violation},
    node::Strategy,
    world::{Event, World},
};
use simpledynamo_protocol::{
    chain::{
        config::{Config, Seat},
        wire::RegisterMessage,
    },
    message::Message,
    record::stamp_of,
    register::acceptor::Standing,
    ring::{NodeId, RangeId},
};

impl World {
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if self.healed {
            return Ok(());
        }
        let every = self.chaos.fault_every.unwrap_or(u64::MAX);
        let after = self.rng.between(every / 2, every * 2);
        self.after(after, Event::Fault);
        if self.chaos.single && !self.is_whole() {
            return Ok(());
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let id = *self.rng.pick(&ids);
        let lasts = self.rng.between(1_000, 1_000 + self.chaos.fault_lasts);
        let weights = self.chaos.weights;
        let mut drawn = self.rng.below(weights.iter().sum());
        let kind = weights.iter().position(|weight| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        match kind {
            Some(0) if self.nodes[&id].up && !self.paused.contains_key(&id) => {
                self.crash(id);
                let learning = self.nodes[&id].standing() != Standing::Voter;
                self.after(lasts, Event::Restart { node: id, wiped: learning });
                if learning {
                    self.wipe(id)?;
                }
            }
            Some(1) if self.nodes[&id].up && !self.paused.contains_key(&id) => {
                self.paused.insert(id, Vec::new());
                self.after(lasts, Event::Resume { node: id });
            }
            Some(2) => {
                let other = *self.rng.pick(&ids);
                let both = self.rng.chance(600);
                for (from, to) in [(id, other), (other, id)].into_iter().take(1 + usize::from(both))
                {
                    if from != to && self.cut.insert((from, to)) {
                        self.after(lasts, Event::Mend { from, to });
                    }
                }
            }
            Some(3) if self.may_wipe(id) => {
                self.crash(id);
                self.wipe(id)?;
                self.after(lasts, Event::Restart { node: id, wiped: true });
            }
            _ => {}
        }
        Ok(())
    }

    /// Nothing is broken at the moment.
    fn is_whole(&self) -> bool {
        self.nodes.values().all(|node| node.up && node.is_well())
            && self.paused.is_empty()
            && self.cut.is_empty()
    }

    fn may_wipe(&self, id: NodeId) -> bool {
        let voting = |id: &NodeId| self.nodes[id].standing() == Standing::Voter;
        self.nodes[&id].up
            && !self.paused.contains_key(&id)
            && self.nodes.keys().all(voting)
            && self.is_spare(id)
    }

    fn crash(&mut self, id: NodeId) {
        self.forget_wake(id);
        self.nodes.get_mut(&id).expect("a node of the ring").crash();
        for client in self.clients.abandon(self.now, id) {
            let think = self.rng.below(self.chaos.think);
            self.after(think, Event::Client(client));
        }
    }

    fn wipe(&mut self, id: NodeId) -> Result<(), Violation> {
        let node = self.nodes.get_mut(&id).expect("a node of the ring");
        node.disk = Default::default();
        // It counts as not voting from now on.
        node.forget();
        self.judge(&Fact::Wiped { at: id })
    }

    pub(super) fn restart(&mut self, id: NodeId, wiped: bool) -> Result<(), Violation> {
        if self.nodes[&id].up {
            return Ok(());
        }
        self.with(id, |node, around| node.start(wiped, around))
    }

    pub(super) fn resume(&mut self, id: NodeId) {
        let backlog = self.paused.remove(&id).unwrap_or_default();
        // A timer that was due comes before or after the messages that have waited.
        let timers_first = self.rng.chance(500);
        for (place, event) in backlog.into_iter().enumerate() {
            let timer = matches!(event, Event::Wake { .. } | Event::Tick { .. });
            let after = if timer && timers_first { 0 } else { 1 + place as u64 };
            self.after(after, event);
        }
    }

    /// Mends everything, for good.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.healed = true;
        self.cut.clear();
        let paused: Vec<_> = self.paused.keys().copied().collect();
        for id in paused {
            self.resume(id);
        }
        let down: Vec<_> =
            self.nodes.values().filter(|node| !node.up).map(|node| node.id).collect();
        for id in down {
            let wiped = self.nodes[&id].standing() != Standing::Voter;
            self.restart(id, wiped)?;
        }
        Ok(())
    }
}

// --- chains -------------------------------------------------------------------------------------

impl World {
    /// In every chain that stands or may come to stand there is another member that holds all.
    fn is_spare(&self, id: NodeId) -> bool {
        if self.strategy == Strategy::Quorum {
            return true;
        }
        let ring = &self.nodes[&id].setup.ring;
        let accept = |event: &Event| match event {
            Event::Deliver { envelope, .. } => {
                matches!(&envelope.message, Message::ConfigRound(round)
                    if matches!(round.body, RegisterMessage::Accept(_)))
            }
            _ => false,
        };
        let quiet = self.paused.is_empty() && !self.events().any(accept);
        quiet && ring.ranges_of(id).into_iter().all(|range| self.is_spare_in(id, range))
    }

    fn is_spare_in(&self, id: NodeId, range: RangeId) -> bool {
        let replicas = self.nodes[&id].setup.ring.preference_list(range);
        let kept = |node: &NodeId| &self.nodes[node].disk.view().chain;
        let seat = |node: &NodeId| kept(node).seats.get(&range).cloned().unwrap_or_else(Seat::lost);
        let changing = |node: &NodeId| {
            self.nodes[node].chain.as_ref().is_some_and(|chain| chain.is_changing(range))
        };
        let newest = replicas.iter().map(|node| seat(node).config.epoch).max().unwrap_or(0);
        let accepted = replicas
            .iter()
            .filter_map(|node| Config::parse(kept(node).configs.get(&range)?.datum.value()?));
        let seated = replicas.iter().map(|node| seat(node).config);
        let mut stands = accepted.chain(seated).filter(|config| config.epoch >= newest);
        let holds = |config: &Config, node: &NodeId| {
            node != &id && config.since(*node) == Some(seat(node).level)
        };
        !replicas.iter().any(changing)
            && stands.all(|config| replicas.iter().any(|node| holds(&config, node)))
    }

    /// Of each key a level member holds, durably, at least what its successor holds.
    pub(super) fn judge_order(&self) -> Result<(), Violation> {
        if self.strategy == Strategy::Quorum {
            return Ok(());
        }
        let ring = &self.nodes.values().next().expect("a node").setup.ring;
        for key in &self.keys {
            let range = ring.range_of(key);
            let replicas = ring.preference_list(range);
            for before in &replicas {
                let Some(seat) = self.nodes[before].disk.kept().chain.seats.get(&range) else {
                    continue;
                };
                let Some(after) = seat.config.after(*before).filter(|_| seat.is_level(*before))
                else {
                    continue;
                };
                let held = |node: &NodeId| self.nodes[node].disk.kept().rows.get(key);
                let same = self.nodes[&after]
                    .disk
                    .kept()
                    .chain
                    .seats
                    .get(&range)
                    .is_some_and(|other| other.config == seat.config);
                if same && stamp_of(held(before)) < stamp_of(held(&after)) {
                    let text = format!(
                        "{key} {}: {before} {:?}, {after} {:?}",
                        seat.config,
                        held(before),
                        held(&after)
                    );
                    return Err(Violation { rule: "order", text });
                }
            }
        }
        Ok(())
    }
}
