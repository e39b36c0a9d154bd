//! Carries a schedule out, brings nodes back, and notes who was disturbed when.
//!
//! Most faults end at a time of the schedule. A node that dies of a message step or of its disk is
//! found down by a look every [`LOOK_EVERY`], and brought back as long after as the fault said.

use super::{
    case::Case,
    fault::{Fault, Planned},
};
use crate::harness::{
    World,
    fault::{Rule, Step, Trigger, micros},
    ms,
};
use simpledynamo_protocol::{record::Key, ring::NodeId};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::atomic::Ordering,
    time::Duration,
};

/// How often it is looked who is down.
const LOOK_EVERY: Duration = ms(20);
/// No clock is ahead by more than this part of the grace: half of it is how old a request may be, and
/// the protocol wants it far above any clock's error.
const CLOCK_PART: i64 = 4;
/// A node of which no fault says how long it stays down.
const DOWN: Duration = ms(100);

/// When a node comes back, and on which disk.
#[derive(Clone, Copy)]
struct Return {
    at: u64,
    wipe: bool,
}

/// When each node was disturbed, microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Disturbed(BTreeMap<NodeId, Vec<(u64, u64)>>);

impl Disturbed {
    pub(super) fn note(&mut self, node: NodeId, from: u64, to: u64) {
        let spans = self.0.entry(node).or_default();
        match spans.last_mut().filter(|(_, end)| from <= *end + 2 * micros(LOOK_EVERY)) {
            Some((_, end)) => *end = to.max(*end),
            None => spans.push((from, to)),
        }
    }

    /// Whether it was at any time of an interval.
    pub(super) fn within(&self, node: NodeId, from: u64, to: u64) -> bool {
        let spans = self.0.get(&node).map(Vec::as_slice).unwrap_or_default();
        spans.iter().any(|(start, end)| *start <= to && from <= *end)
    }
}

/// What a run has met.
#[derive(Default)]
pub(super) struct Met {
    /// Faults that took place, by kind.
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) disturbed: Disturbed,
    /// Nodes that lost their disk and came to vote again.
    pub(super) relearned: u64,
    /// The largest and smallest error of a wall clock, milliseconds.
    pub(super) clocks: (i64, i64),
    returns: BTreeMap<NodeId, Return>,
    /// How long a node that dies by itself stays down.
    downtime: BTreeMap<NodeId, u64>,
    slow: BTreeMap<NodeId, u64>,
    learning: BTreeSet<NodeId>,
}

/// Injects the faults of a case for as long as the clients run.
#[derive(Clone)]
pub(super) struct Injector {
    case: Rc<Case>,
    pub(super) met: Rc<RefCell<Met>>,
    over: Rc<Cell<bool>>,
}

impl Injector {
    /// Plans the selected faults, from now on.
    pub(super) fn begin(case: &Case, world: &mut World) -> Injector {
        let injector =
            Injector { case: Rc::new(case.clone()), met: Rc::default(), over: Rc::default() };
        injector.see_clocks(world);
        for (number, planned) in case.selected() {
            let injector = injector.clone();
            let mark = 1 + number as u64;
            world.after(planned.at, move |world| {
                if !injector.over.get() && injector.strike(&planned, mark, world) {
                    let mut met = injector.met.borrow_mut();
                    *met.faults.entry(planned.fault.kind()).or_default() += 1;
                }
            });
        }
        injector.clone().look_again(world);
        injector
    }

    /// The clients are through: nothing more is broken. A node's death may have ended the last of
    /// their operations a moment ago, and is seen now or never: it is about to be started again.
    pub(super) fn end(&self, world: &mut World) {
        self.over.set(true);
        self.look(world);
    }

    fn look_again(self, world: &mut World) {
        world.after(LOOK_EVERY, move |world| {
            self.look(world);
            if !self.over.get() {
                self.look_again(world);
            }
        });
    }

    /// Who is down comes back when its time has come; who is disturbed is noted.
    pub(super) fn look(&self, world: &mut World) {
        let now = world.now();
        for node in world.ids() {
            let mut met = self.met.borrow_mut();
            if !world.is_running(node) {
                let down = met.downtime.remove(&node).unwrap_or(micros(DOWN));
                let back =
                    *met.returns.entry(node).or_insert(Return { at: now + down, wipe: false });
                // It may have died right after the last look.
                met.disturbed.note(node, now.saturating_sub(micros(LOOK_EVERY)), now);
                if back.at <= now && !self.over.get() {
                    met.returns.remove(&node);
                    drop(met);
                    self.bring_back(node, back.wipe, world);
                }
                continue;
            }
            if met.learning.contains(&node) && world.votes(node) {
                met.learning.remove(&node);
                met.relearned += 1;
                world.wire.borrow_mut().invariants.votes(node);
            }
            let slow = met.slow.get(&node).is_some_and(|until| now <= *until);
            if slow || met.learning.contains(&node) || world.is_cut_off(node) {
                met.disturbed.note(node, now, now);
            }
        }
    }

    fn bring_back(&self, node: NodeId, wipe: bool, world: &mut World) {
        if wipe {
            self.met.borrow_mut().learning.insert(node);
            world.restart(node).wipe_disk();
        } else {
            world.restart(node).keep_disk();
        }
    }

    fn see_clocks(&self, world: &World) {
        let mut met = self.met.borrow_mut();
        for node in world.nodes.values() {
            let skew = node.skew.load(Ordering::Relaxed);
            met.clocks = (met.clocks.0.min(skew), met.clocks.1.max(skew));
        }
    }

    /// Whether the fault had a place.
    fn strike(&self, planned: &Planned, mark: u64, world: &mut World) -> bool {
        let Planned { lasts, fault, .. } = planned;
        if fault.node().is_some_and(|node| !world.is_running(node)) {
            return false;
        }
        let (now, lasts) = (world.now(), lasts.unwrap_or(Duration::ZERO));
        let end = now + micros(lasts);
        self.note_disturbed(fault, now, end);
        let returns = |node: NodeId, wipe| {
            self.met.borrow_mut().returns.insert(node, Return { at: end, wipe });
        };
        match fault {
            Fault::Crash { node } => {
                world.crash(*node);
                returns(*node, false);
            }
            Fault::Wipe { node } => {
                if !world.all_vote() {
                    return false;
                }
                world.crash(*node);
                returns(*node, true);
            }
            Fault::CrashAt { node, sent, tag, nth } => {
                self.met.borrow_mut().downtime.insert(*node, micros(lasts));
                let step = if *sent { Step::Sent } else { Step::Received };
                world.wire.borrow_mut().triggers.push(Trigger::of(step, *tag, *node, *nth));
            }
            Fault::Pause { node } => world.pause(*node, lasts),
            Fault::Cut { from, to } => {
                let (from, to) = (*from, *to);
                world.cut(from, to, true);
                world.after(lasts, move |world| world.cut(from, to, false));
            }
            Fault::Partition { group, outward } => {
                let partition = world.partition(group);
                if *outward {
                    partition.one_way();
                }
                let group = group.clone();
                world.after(lasts, move |world| {
                    for node in group {
                        world.rejoin(node);
                    }
                });
            }
            Fault::Disk { node, fault } => {
                self.met.borrow_mut().downtime.insert(*node, micros(lasts));
                if let Some(node) = world.nodes.get(node) {
                    node.disk.fail_next(*fault);
                }
            }
            Fault::SlowDisk { node, most } => {
                self.met.borrow_mut().slow.insert(*node, end);
                let (node, usual) = (*node, self.case.config.sync.clone());
                world.disk(node).slow(*most / 10..*most);
                world.after(lasts, move |world| world.disk(node).slow(usual));
            }
            Fault::Clock { node, millis } => {
                let grace = self.case.config.tombstone_grace.as_millis();
                let most = i64::try_from(grace).unwrap_or(i64::MAX) / CLOCK_PART;
                if let Some(node) = world.nodes.get(node) {
                    let ahead = node.skew.load(Ordering::Relaxed).saturating_add(*millis);
                    node.skew.store(ahead.min(most), Ordering::Relaxed);
                }
                self.see_clocks(world);
            }
            Fault::Link { .. } => self.disturb_links(planned, mark, world),
        }
        true
    }

    fn disturb_links(&self, planned: &Planned, mark: u64, world: &mut World) {
        let Fault::Link { from, to, tag, action } = &planned.fault else { return };
        let is = |wanted: &Option<NodeId>, node: NodeId| wanted.is_none_or(|it| it == node);
        for a in world.ids().into_iter().filter(|node| is(from, *node)) {
            for b in world.ids().into_iter().filter(|node| is(to, *node) && *node != a) {
                let rule = Rule { from: a, to: b, tag: *tag, action: action.clone(), mark };
                world.wire.borrow_mut().rules.push(rule);
            }
        }
        if let Some(lasts) = planned.lasts {
            world.after(lasts, move |world| {
                world.wire.borrow_mut().rules.retain(|rule| rule.mark != mark);
            });
        }
    }

    fn note_disturbed(&self, fault: &Fault, now: u64, end: u64) {
        let nodes: Vec<NodeId> = match fault {
            Fault::Crash { node }
            | Fault::Wipe { node }
            | Fault::Pause { node }
            | Fault::SlowDisk { node, .. } => vec![*node],
            Fault::Cut { from, to } => vec![*from, *to],
            Fault::Partition { group, .. } => group.clone(),
            // A rule for a while concerns its sender.
            Fault::Link { from, .. } if end > now => from.iter().copied().collect(),
            Fault::Link { .. } | Fault::Clock { .. } => Vec::new(),
            Fault::CrashAt { node, .. } | Fault::Disk { node, .. } => vec![*node],
        };
        for node in nodes {
            self.met.borrow_mut().disturbed.note(node, now, end);
        }
    }
}

/// The replicas of a key.
pub(super) fn replicas(world: &World, key: &Key) -> Vec<NodeId> {
    world.nodes.values().next().map(|node| node.settings.ring.replicas_of(key)).unwrap_or_default()
}
