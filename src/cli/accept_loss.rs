//! `accept-loss`: the way out when all replicas of a range have lost something.
//!
//! A node that cannot prove that it kept all it acknowledged copies from both other replicas before
//! it votes. Where those are in the same state (every node ran with `durability = "os"` on one
//! machine that went down) nobody is left to copy from, and only a person can decide to go on.

use super::{Failure, Place, out};
use crate::config::Cluster;
use simpledynamo_actors::{settings::Replication, storage::accept_loss};
use simpledynamo_protocol::ring::NodeId;

/// `accept-loss ID`, of a node that does not run.
pub(super) fn run(cluster: &Cluster, place: &Place, id: NodeId) -> Result<(), Failure> {
    cluster.node(id)?;
    let dir = place.of(id);
    if !dir.exists() {
        return Err(Failure::new(format!("node {id} has no data in {}", dir.display())));
    }
    let chains = match cluster.replication {
        Replication::Chain => cluster.ring().ranges_of(id),
        Replication::Quorum => Vec::new(),
    };
    let why = accept_loss(&dir, &chains).map_err(|error| Failure::new(error.to_string()))?;
    let start = place.command(&format!("start {id}"));
    Ok(out::line(match why {
        Some(why) => format!(
            "node {id} will vote with what it has, although {why}: acknowledged writes may be gone; \
             start it with: {start}"
        ),
        None => format!("node {id} has lost nothing that it knows of: nothing to accept"),
    })?)
}
