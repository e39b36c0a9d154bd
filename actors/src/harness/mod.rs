//! Whole nodes in one process, one thread and simulated time, with faults injected between them.
//!
//! The nodes are the production actors, unchanged, each in a `LocalSet`; what is simulated is what
//! surrounds them: network, disk, clocks, crashes, clients. A run is a function of its seed: the same
//! seed gives the same messages, byte for byte, in every process.
//!
//! ```
//! use simpledynamo_actors::harness::{Failure, Mix, ms, sim};
//! use simpledynamo_protocol::message::{Accept, Accepted};
//!
//! fn main() -> Result<(), Failure> {
//!     let mut t = sim(7);
//!     t.link("5554", "5558").only::<Accept>().drop_first(2);
//!     t.crash_when(|e| e.received::<Accepted>().at("5556").nth(2));
//!     t.after(ms(60), |t| t.pause("5560", ms(400)));
//!     t.after(ms(300), |t| t.restart("5556").keep_disk());
//!     let history = t.clients(5).run(Mix::default()).operations(200)?;
//!     t.heal_and_settle()?;
//!     history.assert_linearizable()?;
//!     Ok(())
//! }
//! ```
//!
//! Time stands still between the calls of a scenario: faults take effect at once, and time passes
//! in [`Sim::advance`], [`Running::operations`], [`Client`] and [`Sim::heal_and_settle`]. What is to
//! happen meanwhile is planned before, with [`Sim::after`] or
//! [`World::crash_when`].
//!
//! A run fails, always, when an actor panics, when a rule in `invariants` is broken (checked at each
//! message that leaves a node), and when a node ends itself that was given no reason to.
//!
//! | module | what it simulates |
//! |---|---|
//! | `world` | the order of all that happens, and time |
//! | `wire`, `net` | connections, as a kernel keeps them; faults by message type |
//! | `node`, `disk` | a process; what survives it |
//! | `clients` | what is asked, and the history of it |
//! | [`mod@swarm`] | runs drawn from a seed, whole |
//!
//! Caveats: see `wire` and `disk` for where they are kinder than reality. Within a node tasks run in
//! the order of tokio's queues, one of the orders a real node may take. Durable changes of a node's
//! identity take no time. Clients have no network of their own. Log records of nodes are the
//! process's.

/// The examples of `docs/harness.md`, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/harness.md")]
struct Page;

mod beside;
#[cfg(feature = "broken-rules")]
pub mod broken;
mod clients;
mod cluster;
mod disk;
mod fault;
mod faults;
mod invariants;
mod link;
mod log;
mod net;
mod node;
mod panics;
mod rng;
mod run;
mod settle;
mod sim;
pub mod swarm;
mod wire;
mod world;

pub use beside::Beside;
pub use clients::{Asker, Mix};
pub use cluster::{
    Client, Clients, Cluster, Disk, Faults, Held, Pairs, Partition, Restart, Running, play,
};
pub use fault::{Trigger, When};
pub use faults::{Clocks, DiskFaults};
pub use link::LinkFaults;
pub use node::WALL_START;
pub use rng::Rng;
pub use sim::{Config, Sim, seed_or, sim};
pub use swarm::{Outcome, swarm};
pub use wire::Traffic;
pub use world::World;

use simpledynamo_protocol::{checker::Report, ring::NodeId};
use std::{fmt, time::Duration};

/// So many milliseconds.
#[must_use]
pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What names a node in a scenario: `"5554"`, `5554` or its [`NodeId`].
pub trait Id: Copy {
    /// The node.
    ///
    /// # Panics
    /// For text that is no number: a scenario is wrong, and nothing it would show is worth a look.
    fn id(self) -> NodeId;
}

impl Id for NodeId {
    fn id(self) -> NodeId {
        self
    }
}

impl Id for u32 {
    fn id(self) -> NodeId {
        NodeId(self)
    }
}

impl Id for &str {
    fn id(self) -> NodeId {
        match self.parse() {
            Ok(id) => id,
            Err(_) => panic!("a node's id is a number, not \"{self}\""),
        }
    }
}

/// Why a run failed. `Debug` reads like `Display`, so that a test that returns it shows the time line
/// of a violation as it was drawn.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, with the command that replays it.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<Box<Report>> for Failure {
    fn from(report: Box<Report>) -> Failure {
        Failure { text: report.to_string() }
    }
}
