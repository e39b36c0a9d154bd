//! What breaks, and how it is mended.
//!
//! A crash loses memory and unsynced writes. A pause keeps a node's messages and timers for later.
//! A cut loses or holds up what one node sends another. A wipe is a crash whose disk comes back
//! empty; one at a time, and only while all others vote: more is beyond what three copies bear.

use super::{
    invariants::{Fact, Violation},
    node::Node,
    world::{Event, World},
};
use simpledynamo_protocol::{register::acceptor::Standing, ring::NodeId};

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
                let learning = self.nodes[&id].acceptor.standing() != Standing::Voter;
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
        let well = |node: &Node| node.up && node.acceptor.standing() == Standing::Voter;
        self.nodes.values().all(well) && self.paused.is_empty() && self.cut.is_empty()
    }

    fn may_wipe(&self, id: NodeId) -> bool {
        let voting = |id: &NodeId| self.nodes[id].acceptor.standing() == Standing::Voter;
        self.nodes[&id].up && !self.paused.contains_key(&id) && self.nodes.keys().all(voting)
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
            let wiped = self.nodes[&id].acceptor.standing() != Standing::Voter;
            self.restart(id, wiped)?;
        }
        Ok(())
    }
}
