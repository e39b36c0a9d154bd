//! `check-config`: the file has been read and checked by the time this runs; it shows the ring.

use super::{
    Failure,
    out::{self, GREEN, PLAIN},
};
use crate::config::{Cluster, size, time};
use simpledynamo_actors::{settings::Replication, storage::Durability};

/// Prints what the file describes.
pub(super) fn run(cluster: &Cluster) -> Result<(), Failure> {
    let Cluster { replicas, read_quorum, write_quorum, limits, .. } = cluster;
    let agreeing = match cluster.replication {
        Replication::Quorum => format!("reads wait for {read_quorum}, writes for {write_quorum}"),
        Replication::Chain => "in a chain (quorums have no meaning there)".to_owned(),
    };
    out::line(format!(
        "{GREEN}{} is right{PLAIN}: {} nodes, {replicas} replicas of each key, {agreeing}",
        cluster.file.display(),
        cluster.nodes.len()
    ))?;
    out::line(format!(
        "next coordinator after {}, error after {}, values up to {}, keys up to {}, durability \
         {}, {}, secret {}, password {}",
        time(cluster.request_timeout),
        time(cluster.deadline),
        size(limits.value_bytes),
        size(limits.key_bytes),
        match cluster.durability {
            Durability::Sync => "sync",
            Durability::Os => "os",
        },
        match cluster.workers {
            0 => "one thread a node".to_owned(),
            workers => format!("{workers} workers a node"),
        },
        if cluster.secret.is_some() { "set" } else { "not set" },
        if cluster.password.is_some() { "set" } else { "not set" },
    ))?;
    out::line("in ring order:")?;
    let ring = cluster.ring();
    for id in ring.nodes() {
        let node = cluster.node(id)?;
        out::line(format!(
            "  {id:<10} client {:<21} peer {:<21} http {:<21} {:5.1} % of the ring",
            node.client.to_string(),
            node.peer.to_string(),
            node.http.to_string(),
            100.0 * ring.share(id)
        ))?;
    }
    Ok(())
}
