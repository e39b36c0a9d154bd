//! What can be made to go wrong with real processes, and what is planned to.
//!
//! A fault that the system refuses (a process that cannot be started, a signal that cannot be sent)
//! fails the run the next time it lets time pass.

use super::{
    clients::Noted,
    fleet::{Fleet, PATIENCE},
    proxy::Flow,
};
use crate::cli::{Failure, launch::serves};
use nix::sys::signal::Signal;
use simpledynamo_actors::harness::{Disk, Faults, Id};
use simpledynamo_protocol::ring::NodeId;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    rc::Rc,
    time::Duration,
};
use tokio::{
    task::spawn_local,
    time::{Instant, timeout},
};

/// Something a scenario has planned.
type Action = Box<dyn FnOnce(&mut Ring)>;

/// Processes and links, with all that can be made to go wrong at this moment; what is planned by
/// [`simpledynamo_actors::harness::Cluster::after`] gets it.
pub struct Ring {
    pub(super) fleet: Fleet,
    pub(super) noted: Rc<Noted>,
    planned: BTreeMap<(Instant, u64), Action>,
    count: u64,
    suspended: BTreeSet<usize>,
    /// Started, not yet waited for.
    started: Vec<usize>,
    failure: Option<String>,
}

impl Ring {
    pub(super) fn new(fleet: Fleet) -> Ring {
        Ring {
            noted: Rc::new(Noted::new(Rc::clone(&fleet.cluster))),
            fleet,
            planned: BTreeMap::new(),
            count: 0,
            suspended: BTreeSet::new(),
            started: Vec::new(),
            failure: None,
        }
    }

    /// Plans something.
    pub(super) fn after(&mut self, span: Duration, what: impl FnOnce(&mut Ring) + 'static) {
        self.count += 1;
        self.planned.insert((Instant::now() + span, self.count), Box::new(what));
    }

    /// The place of a node in the fleet.
    ///
    /// # Panics
    /// The ring has no such node: the scenario is wrong.
    pub(super) fn index(&self, node: impl Id) -> usize {
        let id = node.id();
        let found = self.fleet.cluster.nodes.iter().position(|node| node.id == id);
        match found {
            Some(index) => index,
            None => panic!("{id} is no node of this ring"),
        }
    }

    /// Notes whether a node has a process that does not stand still.
    fn wake(&self, node: usize, awake: bool) {
        if let Some(door) = self.noted.doors.get(node) {
            door.awake.set(awake);
        }
    }

    /// Links mended, nodes that stand still let go, nodes that are down started.
    pub(super) fn mend(&mut self) {
        self.heal();
        for node in self.ids() {
            self.resume(node);
            if !self.is_running(node) {
                self.boot(node, Disk::Kept);
            }
        }
    }

    /// Carries out what is due. Within a `LocalSet`.
    pub(super) fn step(&mut self) -> Result<(), String> {
        while let Some(entry) = self.planned.first_entry() {
            if entry.key().0 > Instant::now() {
                break;
            }
            entry.remove()(self);
        }
        for node in std::mem::take(&mut self.started) {
            spawn_local(open(Rc::clone(&self.noted), node));
        }
        if let Err(ended) = self.fleet.living() {
            self.note::<()>(Err(ended));
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Keeps the first thing that the system refused.
    fn note<T>(&mut self, done: Result<T, Failure>) {
        if let Err(failure) = done {
            self.failure.get_or_insert(failure.to_string());
        }
    }
}

/// Opens a node's door once it serves, unless it is killed before.
async fn open(noted: Rc<Noted>, node: usize) {
    let life = noted.kills(node);
    let Some(described) = noted.cluster.nodes.get(node) else { return };
    // Err: whoever waits for it says so.
    if timeout(PATIENCE, serves(&noted.cluster, described)).await.is_ok()
        && noted.kills(node) == life
        && let Some(door) = noted.doors.get(node)
    {
        door.open.set(true);
    }
}

impl Faults for Ring {
    fn ids(&self) -> Vec<NodeId> {
        let mut ids: Vec<_> = self.fleet.cluster.nodes.iter().map(|node| node.id).collect();
        ids.sort_unstable();
        ids
    }

    fn is_running(&self, node: impl Id) -> bool {
        self.fleet.is_running(self.index(node))
    }

    fn crash(&mut self, node: impl Id) {
        let node = self.index(node);
        if let Some(door) = self.noted.doors.get(node) {
            door.open.set(false);
            door.kills.set(door.kills.get() + 1);
        }
        self.suspended.remove(&node);
        self.wake(node, false);
        let killed = self.fleet.kill(node);
        self.note(killed);
    }

    fn boot(&mut self, node: NodeId, disk: Disk) {
        let index = self.index(node);
        if self.fleet.is_running(index) {
            self.crash(node);
        }
        let gone = self.fleet.reap(index);
        let wiped = if disk == Disk::Wiped { self.fleet.wipe(index) } else { Ok(()) };
        let launched = gone.and(wiped).and_then(|()| self.fleet.launch(index));
        self.note(launched);
        self.wake(index, true);
        self.started.push(index);
    }

    fn suspend(&mut self, node: impl Id) {
        let node = self.index(node);
        if self.fleet.is_running(node) && self.suspended.insert(node) {
            self.wake(node, false);
            let stopped = self.fleet.signal(node, Signal::SIGSTOP);
            self.note(stopped);
        }
    }

    fn resume(&mut self, node: impl Id) {
        let node = self.index(node);
        if self.suspended.remove(&node) {
            self.wake(node, true);
            let resumed = self.fleet.signal(node, Signal::SIGCONT);
            self.note(resumed);
        }
    }

    fn pause(&mut self, node: impl Id, span: Duration) {
        let node = node.id();
        self.suspend(node);
        self.after(span, move |ring| ring.resume(node));
    }

    fn cut(&mut self, from: NodeId, to: NodeId, cut: bool) {
        let (from, to) = (self.index(from), self.index(to));
        self.fleet.flow(from, to, |flow| flow.held = cut);
    }

    fn latency(&mut self, from: impl Id, to: impl Id, range: Range<Duration>) {
        let (from, to) = (self.index(from), self.index(to));
        self.fleet.latency(from, to, &range);
    }

    fn heal(&mut self) {
        self.fleet.flow_all(|flow| *flow = Flow::OPEN);
    }
}
