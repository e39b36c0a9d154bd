//! Faults of nodes: crashes, restarts, pauses, disks, clocks.

use super::{
    Disk, Faults, Id, Restart, Sim,
    disk::DiskFault,
    fault::{Trigger, When, micros_of},
    node::SimNode,
    world::World,
};
use crate::storage::MemoryPlace;
use actix::Actor;
use simpledynamo_protocol::ring::NodeId;
use std::{ops::Range, sync::atomic::Ordering, time::Duration};

/// A node's disk; from [`World::disk`].
pub struct DiskFaults<'a> {
    world: &'a mut World,
    node: NodeId,
}

/// The wall clocks of all nodes; from [`World::clock`].
pub struct Clocks<'a> {
    world: &'a mut World,
}

impl Clocks<'_> {
    /// Every node's wall clock jumps ahead by so much, as when somebody sets it; no time passes.
    pub fn advance(self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        for node in self.world.nodes.values() {
            node.skew.fetch_add(millis, Ordering::Relaxed);
        }
    }
}

impl DiskFaults<'_> {
    /// The next commit fails, and what it wrote is lost.
    pub fn fail_sync(self) {
        self.fail(DiskFault::Lost);
    }

    /// The next commit fails, and yet its first writes, one at least, are found after the restart.
    pub fn torn_write(self) {
        self.fail(DiskFault::Torn);
    }

    /// The next commit fails for want of room, and all after it until the node is started again, on
    /// a disk with room.
    pub fn full(self) {
        self.fail(DiskFault::Full);
    }

    /// Every sync takes so long, in this life and later ones.
    pub fn slow(self, span: Range<Duration>) {
        if let Some(node) = self.world.nodes.get(&self.node) {
            *node.sync.borrow_mut() = micros_of(&span);
        }
    }

    fn fail(self, fault: DiskFault) {
        if let Some(node) = self.world.nodes.get(&self.node) {
            node.disk.fail_next(fault);
        }
    }
}

/// An actor that dies at once.
struct Doomed;

impl Actor for Doomed {
    type Context = actix::Context<Doomed>;

    fn started(&mut self, _: &mut Self::Context) {
        panic!("broken on purpose, by World::break_actor");
    }
}

impl World {
    /// Whether a node has a process.
    #[must_use]
    pub fn is_running(&self, node: impl Id) -> bool {
        self.nodes.get(&node.id()).is_some_and(SimNode::is_up)
    }

    /// Whether a node has nothing to copy back.
    pub(super) fn votes(&self, node: NodeId) -> bool {
        self.wire.borrow().places.get(&node).is_some_and(MemoryPlace::votes)
    }

    /// Whether a node stands still, or any of its links is cut.
    pub(super) fn is_cut_off(&self, node: NodeId) -> bool {
        let paused = self.nodes.get(&node).is_some_and(|node| node.paused);
        paused || self.wire.borrow().cut.iter().any(|(from, to)| *from == node || *to == node)
    }

    /// Whether every node runs and has nothing to copy back: only then can a disk be lost. A member
    /// that a chain has shut out counts once it is level again: the chain may have gone on without.
    #[must_use]
    pub fn all_vote(&self) -> bool {
        let wire = self.wire.borrow();
        if wire.invariants.chains && !self.nodes.values().all(|node| node.disk.is_level(node.id()))
        {
            return false;
        }
        self.nodes
            .values()
            .all(|node| node.is_up() && wire.places.get(&node.id()).is_some_and(MemoryPlace::votes))
    }

    /// Mends all links from and to a node.
    pub fn rejoin(&mut self, node: impl Id) {
        let node = self.known(node);
        Faults::rejoin(self, node);
    }

    /// Crashes a node at a message step: the moment a message of some type has been sent, or has come
    /// and was not yet looked at.
    pub fn crash_when(&mut self, at: impl FnOnce(When) -> Trigger) {
        self.wire.borrow_mut().triggers.push(at(When));
    }

    /// Starts a node again; one that still runs crashes first.
    pub fn restart(&mut self, node: impl Id) -> Restart<'_, World> {
        let node = self.known(node);
        Faults::restart(self, node)
    }

    /// An actor of a node panics, as a bug in one would make it.
    pub fn break_actor(&mut self, node: impl Id) {
        let node = self.known(node);
        if let Some(node) = self.nodes.get(&node) {
            node.spawn(async {
                Doomed.start();
            });
        }
    }

    /// A node stands still for so long, as if stopped by a signal. Its kernel goes on: what comes
    /// meanwhile waits for it, and its timers have all run out when it goes on.
    pub fn pause(&mut self, node: impl Id, span: Duration) {
        let node = self.known(node);
        self.set_paused(node, true);
        self.after(span, move |world| world.set_paused(node, false));
    }

    /// The wall clocks of all nodes.
    pub fn clock(&mut self) -> Clocks<'_> {
        Clocks { world: self }
    }

    /// A node's disk.
    pub fn disk(&mut self, node: impl Id) -> DiskFaults<'_> {
        let node = self.known(node);
        DiskFaults { world: self, node }
    }

    /// Sets a node's wall clock so many milliseconds ahead of the true time, or behind it.
    pub fn skew(&mut self, node: impl Id, millis: i64) {
        let node = self.known(node);
        if let Some(node) = self.nodes.get(&node) {
            node.skew.store(millis, Ordering::Relaxed);
        }
    }
}

impl Faults for World {
    fn ids(&self) -> Vec<NodeId> {
        World::ids(self)
    }

    fn is_running(&self, node: impl Id) -> bool {
        World::is_running(self, node)
    }

    fn crash(&mut self, node: impl Id) {
        World::crash(self, node);
    }

    fn boot(&mut self, node: NodeId, disk: Disk) {
        let node = self.known(node);
        World::boot(self, node, disk == Disk::Wiped);
    }

    fn suspend(&mut self, node: impl Id) {
        let node = self.known(node);
        self.set_paused(node, true);
    }

    fn resume(&mut self, node: impl Id) {
        let node = self.known(node);
        self.set_paused(node, false);
    }

    fn pause(&mut self, node: impl Id, span: Duration) {
        World::pause(self, node, span);
    }

    fn cut(&mut self, from: NodeId, to: NodeId, cut: bool) {
        let (from, to) = (self.known(from), self.known(to));
        World::cut(self, from, to, cut);
    }

    fn latency(&mut self, from: impl Id, to: impl Id, range: Range<Duration>) {
        World::latency(self, from, to, range);
    }

    fn heal(&mut self) {
        World::heal(self);
    }
}

impl Faults for Sim {
    fn ids(&self) -> Vec<NodeId> {
        self.world.ids()
    }

    fn is_running(&self, node: impl Id) -> bool {
        self.world.is_running(node)
    }

    fn crash(&mut self, node: impl Id) {
        self.world.crash(node);
    }

    fn boot(&mut self, node: NodeId, disk: Disk) {
        Faults::boot(&mut self.world, node, disk);
    }

    fn suspend(&mut self, node: impl Id) {
        self.world.suspend(node);
    }

    fn resume(&mut self, node: impl Id) {
        self.world.resume(node);
    }

    fn pause(&mut self, node: impl Id, span: Duration) {
        self.world.pause(node, span);
    }

    fn cut(&mut self, from: NodeId, to: NodeId, cut: bool) {
        Faults::cut(&mut self.world, from, to, cut);
    }

    fn latency(&mut self, from: impl Id, to: impl Id, range: Range<Duration>) {
        self.world.latency(from, to, range);
    }

    fn heal(&mut self) {
        self.world.heal();
    }
}
