//! What drives a run: nodes, network, clients and planned actions, in the order of simulated time.
//!
//! One future, polled by a tokio runtime of one thread with paused time. It carries out what is due,
//! lets the nodes do what they can, and, when nobody can do anything, moves time: to the microsecond
//! of the next message where that is near, else to the next timer of any node, whichever comes
//! first. Tokio's timers count milliseconds; messages, syncs and clients are finer.

use super::{Id, clients::Clients, fault::micros, node::SimNode, panics, rng::Rng, wire::Wire};
use simpledynamo_protocol::ring::NodeId;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// Microseconds within which time is moved by hand.
const NEAR: u64 = 1_000;

/// Steps without time passing after which it never will: nodes that keep each other, or themselves,
/// busy at one moment. A run that is well needs some thousands.
const STEPS_AT_ONCE_MAX: u64 = 1_000_000;

/// Something a scenario has planned.
type Action = Box<dyn FnOnce(&mut World)>;

/// All that is simulated, and what can be made to go wrong at this moment. A [`super::Sim`] is one
/// of these with time; what is planned by [`World::after`] gets it without.
pub struct World {
    pub(super) origin: Instant,
    pub(super) rng: Rng,
    pub(super) wire: Rc<RefCell<Wire>>,
    pub(super) nodes: BTreeMap<NodeId, SimNode>,
    pub(super) clients: Clients,
    pub(super) died: Option<String>,
    planned: BTreeMap<(u64, u64), Action>,
    count: u64,
    /// The moment, and the steps made in it.
    moment: (u64, u64),
    timer: Option<(u64, Pin<Box<Sleep>>)>,
}

impl World {
    pub(super) fn new(
        origin: Instant,
        rng: Rng,
        wire: Rc<RefCell<Wire>>,
        nodes: BTreeMap<NodeId, SimNode>,
    ) -> World {
        World {
            origin,
            rng,
            wire,
            nodes,
            clients: Clients::default(),
            died: None,
            planned: BTreeMap::new(),
            count: 0,
            moment: (0, 0),
            timer: None,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.wire.borrow().now()
    }

    /// Plans something: `what` takes place so much later, while the scenario lets time pass.
    pub fn after(&mut self, span: Duration, what: impl FnOnce(&mut World) + 'static) {
        self.count += 1;
        let at = self.now().saturating_add(micros(span));
        self.planned.insert((at, self.count), Box::new(what));
    }

    /// The nodes' ids.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Simulated time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now())
    }

    pub(super) fn known(&self, id: impl Id) -> NodeId {
        let id = id.id();
        assert!(self.nodes.contains_key(&id), "{id} is no node of this ring");
        id
    }

    /// Runs until `done` or until the time `until`; whether it was done.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        until: u64,
        done: &mut dyn FnMut(&mut World) -> bool,
    ) -> Poll<bool> {
        for node in self.nodes.values() {
            node.woken.set_outer(cx.waker());
        }
        self.wire.borrow_mut().tick();
        loop {
            let moved = self.step();
            self.count_steps();
            if self.died.is_some() {
                return Poll::Ready(false);
            }
            if done(self) {
                return Poll::Ready(true);
            }
            if moved {
                continue;
            }
            let now = self.now();
            if now >= until {
                return Poll::Ready(false);
            }
            let next = self.next_due().min(until);
            if next <= now {
                continue;
            }
            // Not less than: a sleep until this very moment would be over at once.
            if next - now <= NEAR {
                // The first poll moves the clock; what is left of it only yields.
                let _ = pin!(tokio::time::advance(Duration::from_micros(next - now))).poll(cx);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.sleep_until(next - NEAR, cx) {
                return Poll::Pending;
            }
        }
    }

    /// A run in which time stands still must fail: it would never end.
    fn count_steps(&mut self) {
        let now = self.now();
        let (moment, steps) = self.moment;
        self.moment = (now, if moment == now { steps + 1 } else { 0 });
        if steps > STEPS_AT_ONCE_MAX && self.died.is_none() {
            let at = Duration::from_micros(now).as_secs_f64();
            self.died = Some(format!(
                "time stands still at {at:.6} s: {steps} steps, and somebody is always busy"
            ));
        }
    }

    /// Sets the timer; whether there is something to wait for.
    fn sleep_until(&mut self, at: u64, cx: &mut Context<'_>) -> bool {
        let deadline = self.origin + Duration::from_micros(at);
        let (_, timer) = match self.timer.take() {
            Some((set, timer)) if set == at => self.timer.insert((at, timer)),
            Some((_, mut timer)) => {
                timer.as_mut().reset(deadline);
                self.timer.insert((at, timer))
            }
            None => self.timer.insert((at, Box::pin(tokio::time::sleep_until(deadline)))),
        };
        let pending = timer.as_mut().poll(cx).is_pending();
        if !pending {
            self.timer = None;
        }
        pending
    }

    fn next_due(&self) -> u64 {
        let planned = self.planned.first_key_value().map(|((at, _), _)| *at);
        let due = [planned, self.wire.borrow().next_due(), self.clients.next_due()];
        due.into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Everything that can be done at this moment, one message at most; whether there was anything.
    fn step(&mut self) -> bool {
        let now = self.now();
        let mut moved = false;
        if let Some(entry) = self.planned.first_entry().filter(|entry| entry.key().0 <= now) {
            entry.remove()(self);
            moved = true;
        }
        moved |= self.wire.borrow_mut().step();
        self.bury();
        for node in self.nodes.values_mut() {
            moved |= node.poll();
        }
        self.bury();
        moved |= self.clients.step(now, &self.nodes, &mut self.rng);
        if let Some(panic) = panics::take() {
            self.died = Some(format!("an actor died: {panic}"));
        }
        let broken = self.wire.borrow().invariants.violation().map(str::to_owned);
        if self.died.is_none() {
            self.died = broken;
        }
        moved
    }

    /// Ends the nodes that crashed at a message, and those that ended themselves.
    fn bury(&mut self) {
        let failed = |node: &SimNode| node.is_up() && node.has_failed();
        if self.wire.borrow().doomed.is_empty() && !self.nodes.values().any(failed) {
            return;
        }
        let failed: Vec<_> =
            self.nodes.values().filter(|node| failed(node)).map(SimNode::id).collect();
        let doomed: Vec<_> = self.wire.borrow().doomed.iter().copied().collect();
        for node in doomed.into_iter().chain(failed) {
            self.crash(node);
        }
    }

    /// The process of a node is gone at this moment: its memory, what it had not synced, what was on
    /// its way to it. Nobody is told.
    pub fn crash(&mut self, id: impl Id) {
        let id = self.known(id);
        let now = self.now();
        self.wire.borrow_mut().silence(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.end();
        }
        let mut wire = self.wire.borrow_mut();
        wire.bury(id);
        wire.log.note(now, || format!("{id} crashes"));
        drop(wire);
        self.clients.abandon(id, now, &mut self.rng);
    }

    /// Starts a node that is down.
    pub(super) fn boot(&mut self, id: NodeId, wipe: bool) {
        if self.nodes.get(&id).is_some_and(SimNode::is_up) {
            self.crash(id);
        }
        let now = self.now();
        {
            let mut wire = self.wire.borrow_mut();
            if wipe {
                wire.places.remove(&id);
                wire.invariants.wiped(id);
            }
            wire.log.note(now, || format!("{id} starts{}", if wipe { " empty" } else { "" }));
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            if wipe {
                node.disk = super::disk::SimDisk::default();
            }
            node.start(&self.wire, self.origin, &mut self.rng);
        }
    }

    /// Stops a node's processor, or lets it go on.
    pub(super) fn set_paused(&mut self, id: NodeId, paused: bool) {
        let now = self.now();
        if let Some(node) = self.nodes.get_mut(&id) {
            node.paused = paused && node.is_up();
        }
        let what = if paused { "stands still" } else { "goes on" };
        self.wire.borrow_mut().log.note(now, || format!("{id} {what}"));
    }

    /// Cuts the way from one node to another, or mends it.
    pub(super) fn cut(&mut self, from: NodeId, to: NodeId, cut: bool) {
        let mut wire = self.wire.borrow_mut();
        let now = wire.now();
        if cut {
            wire.cut.insert((from, to));
        } else if wire.cut.remove(&(from, to)) {
            wire.release(|a, b| (a, b) == (from, to));
        }
        wire.log
            .note(now, || format!("{from} → {to} {}", if cut { "is cut" } else { "is mended" }));
    }
}
