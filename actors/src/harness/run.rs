//! What takes time: clients, single operations, looks at a node.

use super::{Failure, Id, Sim, clients::Mix, node::State};
use crate::messages::{AskStatus, Completed, Execute, Status, Verdict};
use simpledynamo_protocol::{
    command::{Command, Condition, Expiry},
    history::{History, Outcome},
    record::{Key, Record},
    ring::NodeId,
};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};
use tokio::sync::oneshot;

/// Simulated time after which clients that are not through are stuck: far above any deadline.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// So many clients, to be given something to do; from [`Sim::clients`].
#[must_use = "clients do nothing before they run"]
pub struct Clients<'a> {
    sim: &'a mut Sim,
    count: u32,
}

impl<'a> Clients<'a> {
    /// What they are to do.
    pub fn run(self, mix: Mix) -> Running<'a> {
        Running { sim: self.sim, count: self.count, mix }
    }
}

/// Clients that know what to do; from [`Clients::run`].
#[must_use = "clients do nothing before their operations are counted"]
pub struct Running<'a> {
    sim: &'a mut Sim,
    count: u32,
    mix: Mix,
}

impl Running<'_> {
    /// Runs until the clients have done so many operations together; gives the history of the whole
    /// run so far, earlier clients' operations too.
    ///
    /// # Errors
    /// An actor has died, a rule was broken, or an operation never ends.
    pub fn operations(self, count: u64) -> Result<History, Failure> {
        let Running { sim, count: clients, mix } = self;
        let now = sim.world.now();
        let world = &mut sim.world;
        world.clients.begin(clients, mix, count, now, &mut world.rng);
        if sim.run(PATIENCE, |world| world.clients.done())? {
            Ok(History { operations: sim.world.clients.operations.clone() })
        } else {
            Err(sim.failure("an operation never ends"))
        }
    }
}

/// A client of one node, for single operations; from [`Sim::client`].
pub struct Client<'a> {
    sim: &'a mut Sim,
    node: NodeId,
}

impl Client<'_> {
    /// Does one operation and waits for its end. An end that does not come, because the node is down
    /// or crashes, is an unknown outcome.
    ///
    /// # Errors
    /// An actor has died, or a rule was broken.
    pub fn ask(self, key: &str, command: Command) -> Result<Outcome, Failure> {
        let Client { sim, node } = self;
        let Some(handle) = sim.world.nodes.get(&node).and_then(super::node::SimNode::handle) else {
            return Ok(Outcome::Unknown);
        };
        let (reply, mut end) = oneshot::channel();
        handle.execute.do_send(Execute { key: Key::from(key), command, keep: false, reply });
        drop(handle);
        let mut outcome = None;
        sim.run(PATIENCE, |_| {
            outcome = match end.try_recv() {
                Ok(Completed { verdict: Verdict::Reply(reply), .. }) => Some(Outcome::Reply(reply)),
                Ok(Completed { verdict: Verdict::NotApplied(_), .. }) => Some(Outcome::NotApplied),
                Ok(Completed { verdict: Verdict::Unknown, .. })
                | Err(oneshot::error::TryRecvError::Closed) => Some(Outcome::Unknown),
                Err(oneshot::error::TryRecvError::Empty) => None,
            };
            outcome.is_some()
        })?;
        outcome.ok_or_else(|| sim.failure("an operation never ends"))
    }

    /// Reads.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn get(self, key: &str) -> Result<Outcome, Failure> {
        self.ask(key, Command::Get)
    }

    /// Writes.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn set(self, key: &str, value: &str) -> Result<Outcome, Failure> {
        let (condition, expiry) = (Condition::Always, Expiry::Clear);
        self.ask(key, Command::Set { value: value.into(), condition, expiry, get: false })
    }

    /// Counts.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn incr(self, key: &str) -> Result<Outcome, Failure> {
        self.ask(key, Command::IncrBy(1))
    }
}

impl Sim {
    /// So many clients, each at nodes drawn at random.
    pub fn clients(&mut self, count: u32) -> Clients<'_> {
        Clients { sim: self, count }
    }

    /// A client of this node.
    pub fn client(&mut self, node: impl Id) -> Client<'_> {
        let node = self.known(node);
        Client { sim: self, node }
    }

    /// How each running node is, by its own word; nodes that start or stand still are left out.
    ///
    /// # Errors
    /// An actor has died, or a rule was broken.
    pub fn statuses(&mut self) -> Result<BTreeMap<NodeId, Status>, Failure> {
        let told: Rc<RefCell<BTreeMap<NodeId, Status>>> = Rc::default();
        let mut asked = 0;
        for node in self.world.nodes.values().filter(|node| !node.paused) {
            let Some(handle) = node.handle() else { continue };
            let (told, id) = (told.clone(), node.id());
            asked += 1;
            node.spawn(async move {
                if let Ok(status) = handle.status.send(AskStatus).await {
                    told.borrow_mut().insert(id, status);
                }
            });
        }
        let all = told.clone();
        self.run(Duration::from_secs(1), |_| all.borrow().len() == asked)?;
        Ok(told.take())
    }

    /// Why a node ended itself; none where it did not.
    #[must_use]
    pub fn ended(&self, node: impl Id) -> Option<String> {
        match self.nodes.get(&self.known(node))?.state() {
            State::Failed(why) => Some(why),
            State::Down | State::Starting | State::Running(_) => None,
        }
    }

    /// What is on a node's disk of a key.
    #[must_use]
    pub fn stored(&self, node: impl Id, key: &str) -> Option<Record> {
        let rows = self.nodes.get(&self.known(node))?.disk.rows();
        rows.into_iter().find(|(of, _)| **of == *key.as_bytes()).map(|(_, record)| record)
    }
}
