//! One scenario, two backends: what can be asked of a ring whether it is simulated or real.
//!
//! A scenario is a function of `&mut impl Cluster`. [`super::Sim`] is one: whole nodes in one thread,
//! on simulated time. The package `simpledynamo` has the other, `processes`: real processes with real
//! sockets and disks, killed and stopped by signals, behind proxies. Both give the same [`History`]
//! and the same [`Failure`].
//!
//! ```
//! use simpledynamo_actors::harness::{Cluster, Failure, Faults, Mix, ms, play, sim};
//!
//! /// Knows nothing of what it runs on.
//! fn node_dies_under_load(t: &mut impl Cluster) -> Result<(), Failure> {
//!     t.after(ms(60), |t| t.pause("5560", ms(200)));
//!     t.clients(5).run(Mix::default()).start();
//!     t.progress(100)?;
//!     t.crash("5558");
//!     t.progress(100)?;
//!     t.restart("5558").keep_disk();
//!     t.until_serving()?;
//!     let history = t.finish()?;
//!     t.heal_and_settle()?;
//!     Ok(history.assert_linearizable()?)
//! }
//!
//! fn main() -> Result<(), Failure> {
//!     play(sim(7), node_dies_under_load)
//! }
//! ```
//!
//! [`Faults`] take effect at once; [`Cluster`] lets time pass. What is planned by [`Cluster::after`]
//! takes place while time passes, and gets what has faults but no time: `Cluster::Later`.
//!
//! Caveats: between the calls of a scenario simulated time stands still, real time does not. What
//! only a simulator can do is not here but on [`super::Sim`] and [`super::World`]: faults by message
//! type, crashes at a message step, disks, clocks.

use super::{Failure, Id, Mix};
use simpledynamo_protocol::{
    ballot::Stamp,
    command::{Command, Condition, Expiry},
    history::{History, Outcome},
    record::Value,
    ring::NodeId,
};
use std::{collections::BTreeMap, fmt, ops::Range, time::Duration};

/// What a node stores of a key; a deleted key has a stamp and no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// None: deleted.
    pub value: Option<Value>,
    /// Version and ballot.
    pub stamp: Stamp,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "\"{value}\" {}", self.stamp),
            None => write!(f, "deleted {}", self.stamp),
        }
    }
}

/// Keys and values, as text.
pub type Pairs = BTreeMap<String, String>;

/// What can be made to go wrong at this moment.
///
/// A node that a scenario names and the ring does not have is a mistake in the scenario: all of these
/// panic then.
pub trait Faults {
    /// The nodes' ids, in order.
    fn ids(&self) -> Vec<NodeId>;

    /// Whether a node has a process.
    fn is_running(&self, node: impl Id) -> bool;

    /// The process of a node is gone, with all it had in memory. Nobody is told.
    fn crash(&mut self, node: impl Id);

    /// Starts a node that is down, on the disk it had or on an empty one; [`Faults::restart`] reads
    /// better.
    fn boot(&mut self, node: NodeId, disk: Disk);

    /// A node stands still until [`Faults::resume`]: what comes meanwhile waits for it.
    fn suspend(&mut self, node: impl Id);

    /// A node that stands still goes on.
    fn resume(&mut self, node: impl Id);

    /// A node stands still for so long.
    fn pause(&mut self, node: impl Id, span: Duration);

    /// Cuts what one node says to another, or mends it. Nothing is lost at once: what was sent
    /// arrives if the link is mended before the sender's kernel gives up.
    fn cut(&mut self, from: NodeId, to: NodeId, cut: bool);

    /// What `from` says to `to` takes so long.
    fn latency(&mut self, from: impl Id, to: impl Id, range: Range<Duration>);

    /// Mends every link.
    fn heal(&mut self);

    /// Starts a node again; one that still runs crashes first.
    fn restart(&mut self, node: impl Id) -> Restart<'_, Self>
    where
        Self: Sized,
    {
        Restart { on: self, node: node.id() }
    }

    /// Cuts these nodes off from the others, both ways unless [`Partition::one_way`] follows.
    fn partition<I: Id>(&mut self, group: &[I]) -> Partition<'_, Self>
    where
        Self: Sized,
    {
        let group: Vec<_> = group.iter().map(|id| id.id()).collect();
        for (inside, outside) in across(self, &group) {
            self.cut(outside, inside, true);
            self.cut(inside, outside, true);
        }
        Partition { on: self, group }
    }

    /// Mends all links from and to a node.
    fn rejoin(&mut self, node: impl Id)
    where
        Self: Sized,
    {
        for (inside, outside) in across(self, &[node.id()]) {
            self.cut(outside, inside, false);
            self.cut(inside, outside, false);
        }
    }
}

/// Every pair of a node of the group and one of the others.
fn across(on: &impl Faults, group: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    let others: Vec<_> = on.ids().into_iter().filter(|id| !group.contains(id)).collect();
    group.iter().flat_map(|inside| others.iter().map(|outside| (*inside, *outside))).collect()
}

/// What a node finds when it starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// What it had synced.
    Kept,
    /// Nothing, not even who it is.
    Wiped,
}

/// A restart that still has to say what became of the disk; from [`Faults::restart`].
#[must_use = "a restart is done by keep_disk() or wipe_disk()"]
pub struct Restart<'a, F: Faults> {
    on: &'a mut F,
    node: NodeId,
}

impl<F: Faults> Restart<'_, F> {
    /// On the disk it had.
    pub fn keep_disk(self) {
        self.on.boot(self.node, Disk::Kept);
    }

    /// On an empty disk, without the identity it had.
    pub fn wipe_disk(self) {
        self.on.boot(self.node, Disk::Wiped);
    }
}

/// A partition that has just been made; from [`Faults::partition`].
pub struct Partition<'a, F: Faults> {
    on: &'a mut F,
    group: Vec<NodeId>,
}

impl<F: Faults> Partition<'_, F> {
    /// Only what the group sends is cut: it still hears the others.
    pub fn one_way(self) {
        for (inside, outside) in across(self.on, &self.group) {
            self.on.cut(outside, inside, false);
        }
    }
}

/// A ring with time and clients: what a scenario is written for.
///
/// Every error is a run that has failed: an actor or a process died that was given no reason to, a
/// rule was broken, or something that must come to pass did not.
pub trait Cluster: Faults + Sized {
    /// What is planned gets this.
    type Later: Faults;

    /// What the run's faults and operations were drawn from.
    fn seed(&self) -> u64;

    /// Plans something: it takes place so much later, while the scenario lets time pass.
    fn after(&mut self, span: Duration, what: impl FnOnce(&mut Self::Later) + 'static);

    /// Lets so much time pass.
    ///
    /// # Errors
    /// As said above.
    fn advance(&mut self, span: Duration) -> Result<(), Failure>;

    /// Lets time pass until every node that is up serves; with chains, until it is back in its own.
    ///
    /// # Errors
    /// As said above.
    fn until_serving(&mut self) -> Result<(), Failure>;

    /// Mends everything, starts what is down, and lets time pass until every node serves and the
    /// replicas of each key are equal.
    ///
    /// # Errors
    /// As said above.
    fn heal_and_settle(&mut self) -> Result<(), Failure>;

    /// So many clients begin; [`Cluster::clients`] reads better. They work while time passes, until
    /// so many operations have begun.
    fn begin(&mut self, clients: u32, mix: Mix, operations: u64);

    /// Lets time pass until so many more operations of the clients have ended.
    ///
    /// # Errors
    /// As said above.
    fn progress(&mut self, operations: u64) -> Result<(), Failure>;

    /// No further operation begins; lets time pass until those under way have ended. The history is
    /// that of the whole run so far.
    ///
    /// # Errors
    /// As said above.
    fn finish(&mut self) -> Result<History, Failure>;

    /// All operations so far, single ones too; the outcome of those under way is not known.
    fn history(&self) -> History;

    /// Operations that ended without their effect at a node that did not crash meanwhile, as a person
    /// reads them, the first of them only: whoever loses no more than a node at a time has none.
    fn refused(&self) -> Vec<String>;

    /// One operation at a node, from its call to its end; [`Cluster::client`] reads better. An end
    /// that does not come, because the node is down or crashes, is an unknown outcome.
    ///
    /// # Errors
    /// As said above.
    fn ask(&mut self, node: NodeId, key: &str, command: Command) -> Result<Outcome, Failure>;

    /// What a node itself stores of a key, no quorum; none where it has never heard of it, or is
    /// down.
    ///
    /// # Errors
    /// As said above.
    fn held(&mut self, node: impl Id, key: &str) -> Result<Option<Held>, Failure>;

    /// Every live key and value that a node itself stores.
    ///
    /// # Errors
    /// As said above.
    fn local(&mut self, node: impl Id) -> Result<Pairs, Failure>;

    /// Every live key and value of the ring, as a node finds them by quorums.
    ///
    /// # Errors
    /// As said above.
    fn all(&mut self, node: impl Id) -> Result<Pairs, Failure>;

    /// The nodes that keep a key, its coordinator first, as the ring itself says.
    ///
    /// # Errors
    /// As said above.
    fn holders(&mut self, key: &str) -> Result<Vec<NodeId>, Failure>;

    /// Adds to a failure how the run can be seen again, and keeps what is left of it.
    fn explain(&mut self, failure: Failure) -> Failure;

    /// So many clients, each at nodes drawn at random.
    fn clients(&mut self, count: u32) -> Clients<'_, Self> {
        Clients { on: self, count }
    }

    /// A client of this node.
    fn client(&mut self, node: impl Id) -> Client<'_, Self> {
        Client { node: node.id(), on: self }
    }
}

/// Plays a scenario to its end. A failure says how to see it again.
///
/// # Errors
/// The scenario's own.
pub fn play<C: Cluster>(
    mut on: C,
    scenario: impl FnOnce(&mut C) -> Result<(), Failure>,
) -> Result<(), Failure> {
    scenario(&mut on).map_err(|failure| on.explain(failure))
}

/// So many clients, to be given something to do; from [`Cluster::clients`].
#[must_use = "clients do nothing before they run"]
pub struct Clients<'a, C: Cluster> {
    on: &'a mut C,
    count: u32,
}

impl<'a, C: Cluster> Clients<'a, C> {
    /// What they are to do.
    pub fn run(self, mix: Mix) -> Running<'a, C> {
        Running { on: self.on, count: self.count, mix }
    }
}

/// Clients that know what to do; from [`Clients::run`].
#[must_use = "clients do nothing before their operations are counted"]
pub struct Running<'a, C: Cluster> {
    on: &'a mut C,
    count: u32,
    mix: Mix,
}

impl<C: Cluster> Running<'_, C> {
    /// Lets time pass until the clients have done so many operations together; gives the history of
    /// the whole run so far, earlier operations too.
    ///
    /// # Errors
    /// As said at [`Cluster`].
    pub fn operations(self, count: u64) -> Result<History, Failure> {
        self.on.begin(self.count, self.mix, count);
        self.on.progress(count)?;
        self.on.finish()
    }

    /// They work whenever time passes, until [`Cluster::finish`].
    pub fn start(self) {
        self.on.begin(self.count, self.mix, u64::MAX);
    }
}

/// A client of one node, for single operations; from [`Cluster::client`].
pub struct Client<'a, C: Cluster> {
    on: &'a mut C,
    node: NodeId,
}

impl<C: Cluster> Client<'_, C> {
    /// Does one operation and waits for its end. An end that does not come, because the node is down
    /// or crashes, is an unknown outcome.
    ///
    /// # Errors
    /// As said at [`Cluster`].
    pub fn ask(self, key: &str, command: Command) -> Result<Outcome, Failure> {
        self.on.ask(self.node, key, command)
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
        self.set_if(key, value, Condition::Always)
    }

    /// Writes where a condition holds.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn set_if(self, key: &str, value: &str, on: Condition) -> Result<Outcome, Failure> {
        let (value, expiry) = (value.into(), Expiry::Clear);
        self.ask(key, Command::Set { value, condition: on, expiry, get: false })
    }

    /// Counts.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn incr(self, key: &str) -> Result<Outcome, Failure> {
        self.ask(key, Command::IncrBy(1))
    }

    /// Deletes.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn del(self, key: &str) -> Result<Outcome, Failure> {
        self.ask(key, Command::Del)
    }
}
