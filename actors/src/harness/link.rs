//! Faults between nodes: links and partitions.

use super::{
    Faults, Id, Partition,
    fault::{Action, Rule, micros_of},
    world::World,
};
use simpledynamo_protocol::{message::Kind, ring::NodeId};
use std::{ops::Range, time::Duration};

/// Faults of what one node sends another, in this direction only; from [`World::link`].
pub struct LinkFaults<'a> {
    pub(super) world: &'a mut World,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) tag: Option<u16>,
}

impl LinkFaults<'_> {
    /// What follows concerns messages of this type only.
    #[must_use]
    pub fn only<K: Kind>(mut self) -> Self {
        self.tag = Some(K::TAG);
        self
    }

    /// The next `n` messages are lost, as with a connection that breaks.
    pub fn drop_first(self, n: u64) -> Self {
        self.rule(Action::DropFirst(n))
    }

    /// This part of the messages is lost, 0 to 1.
    pub fn drop(self, part: f64) -> Self {
        self.rule(Action::Drop(per_mille(part)))
    }

    /// Messages take so much longer. What follows on the connection waits behind them, as on TCP.
    pub fn delay(self, range: Range<Duration>) -> Self {
        self.rule(Action::Delay(micros_of(&range)))
    }

    /// This part of the register's own messages comes twice, 0 to 1.
    pub fn duplicate(self, part: f64) -> Self {
        self.rule(Action::Duplicate(per_mille(part)))
    }

    /// Every second of the register's own messages may be overtaken by those before and behind it.
    pub fn reorder(self) -> Self {
        self.rule(Action::Reorder(500))
    }

    fn rule(self, action: Action) -> Self {
        let LinkFaults { from, to, tag, .. } = self;
        self.world.wire.borrow_mut().rules.push(Rule { from, to, tag, action, mark: 0 });
        self
    }
}

fn per_mille(part: f64) -> u64 {
    // Between 0 and 1000 after the clamp.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0 to 1000"
    )]
    let chance = (part.clamp(0.0, 1.0) * 1000.0).round() as u64;
    chance
}

impl World {
    /// Faults of what `from` sends `to`.
    pub fn link(&mut self, from: impl Id, to: impl Id) -> LinkFaults<'_> {
        let (from, to) = (self.known(from), self.known(to));
        LinkFaults { world: self, from, to, tag: None }
    }

    /// Faults of every link, in both directions, by the same rule.
    pub fn every_link(&mut self, mut fault: impl FnMut(LinkFaults<'_>)) {
        for from in self.ids() {
            for to in self.ids().into_iter().filter(|to| *to != from) {
                fault(LinkFaults { world: self, from, to, tag: None });
            }
        }
    }

    /// How long messages take from `from` to `to`, instead of 0.1 to 1 ms.
    pub fn latency(&mut self, from: impl Id, to: impl Id, range: Range<Duration>) {
        let link = (self.known(from), self.known(to));
        self.wire.borrow_mut().delays.insert(link, micros_of(&range));
    }

    /// Cuts these nodes off from the others, both ways unless [`Partition::one_way`] follows.
    pub fn partition<I: Id>(&mut self, group: &[I]) -> Partition<'_, World> {
        let group: Vec<_> = group.iter().map(|id| self.known(*id)).collect();
        Faults::partition(self, &group)
    }
}

impl World {
    /// Mends every cut link and forgets every fault of a link. What the kernels kept is sent again.
    pub fn heal(&mut self) {
        let mut wire = self.wire.borrow_mut();
        let now = wire.now();
        wire.cut.clear();
        wire.rules.clear();
        wire.delays.clear();
        wire.release(|_, _| true);
        wire.log.note(now, || "all links are mended".to_owned());
    }
}
