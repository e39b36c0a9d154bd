//! `accept-loss`: the way out when all replicas of a range have lost something.
//!
//! A node that cannot prove that it kept all it acknowledged copies from both other replicas before
//! it votes. Where those are in the same state (every node ran with `durability = "os"` on one
//! machine that went down) nobody is left to copy from, and only a person can decide to go on.
//!
//! Where a replica still votes the decision is more dangerous: two others that both say "nothing here"
//! are a quorum, and outvote the one that holds the records. So then it may be made at one node only,
//! and where all others vote at none.

use super::{
    Failure, OneNode, Place, out,
    status::{self, Seen},
};
use crate::config::Cluster;
use clap::Args;
use simpledynamo_actors::{settings::Replication, storage::accept_loss};
use simpledynamo_protocol::ring::{NodeId, Ring};

/// Of which node.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    node: OneNode,
    /// Also where a replica of its ranges votes: the loss is accepted at no other node of these ranges
    #[arg(long)]
    only_one: bool,
}

/// What the other replicas of a node's ranges are able to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// In every range all vote.
    All,
    /// In some range one votes and another does not.
    Some,
    /// Where not all vote, none does.
    None,
}

/// `accept-loss ID`, of a node that does not run.
pub(super) async fn run(
    cluster: &Cluster,
    place: &Place,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let id = arguments.node.id;
    cluster.node(id)?;
    let dir = place.of(id);
    if !dir.exists() {
        return Err(Failure::new(format!("node {id} has no data in {}", dir.display())));
    }
    let chains = match cluster.replication {
        Replication::Chain => cluster.ring().ranges_of(id),
        Replication::Quorum => {
            look_around(cluster, place, arguments).await?;
            Vec::new()
        }
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

/// Refuses what would throw away records that a voting replica holds.
async fn look_around(
    cluster: &Cluster,
    place: &Place,
    Arguments { node, only_one }: &Arguments,
) -> Result<(), Failure> {
    let id = node.id;
    let seen = status::all(cluster, place).await?;
    let votes = |node: NodeId| seen.iter().any(|it: &Seen| it.id == node.0 && it.votes());
    match others(&cluster.ring(), id, votes) {
        Others::All => Err(Failure::new(format!(
            "nothing to accept: all other replicas of node {id}'s ranges vote, so it copies what it \
             lost from them; start it with: {}",
            place.command(&format!("start {id}"))
        ))),
        Others::Some if !only_one => Err(Failure::new(format!(
            "a replica of node {id}'s ranges still votes, and two others that accept their loss would \
             outvote it: what only it holds would be gone. Accept the loss at one node, with: {}; start \
             it, and let the others copy from those that vote",
            place.command(&format!("accept-loss {id} --only-one"))
        ))),
        Others::Some | Others::None => Ok(()),
    }
}

fn others(ring: &Ring, id: NodeId, votes: impl Fn(NodeId) -> bool) -> Others {
    let (mut all, mut some) = (true, false);
    for range in ring.ranges_of(id) {
        let list = ring.preference_list(range);
        let others = list.len().saturating_sub(1);
        let voting = list.iter().filter(|node| **node != id && votes(**node)).count();
        all &= voting == others;
        some |= voting > 0 && voting < others;
    }
    match (all, some) {
        (true, _) => Others::All,
        (false, true) => Others::Some,
        (false, false) => Others::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_accepted_beside_a_voter_at_one_node_only() {
        let ring = Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3);
        let without = |silent: &[u32]| {
            let silent: Vec<_> = silent.iter().copied().map(NodeId).collect();
            others(&ring, NodeId(5558), |node| !silent.contains(&node))
        };
        assert_eq!(without(&[5558]), Others::All);
        assert_eq!(without(&[5554, 5556, 5558, 5560, 5562]), Others::None);
        for other in [5554, 5556, 5560, 5562] {
            assert_eq!(without(&[5558, other]), Others::Some, "{other}");
        }
    }
}
