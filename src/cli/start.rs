//! `start ID`: one node in the background.

use super::{
    Failure, Place,
    launch::{Tie, describe, free, launch, serves},
    out,
};
use crate::config::Cluster;
use simpledynamo_protocol::ring::NodeId;
use std::time::Duration;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

/// How long a node may take to open its store and find its peers.
const START_TIME: Duration = Duration::from_secs(60);

/// When whoever waits is told for what.
const NOTICE_TIME: Duration = Duration::from_secs(3);

/// Starts the node and returns once it answers.
pub(super) async fn run(cluster: &Cluster, place: &Place, id: NodeId) -> Result<(), Failure> {
    let node = *cluster.node(id)?;
    free(place, &node)?;
    let mut ended = signal(SignalKind::child())?;
    let mut launched = launch(place, &node, Tie::Detached)?;
    let wait = timeout(START_TIME, serves(cluster, &node));
    let notice = sleep(NOTICE_TIME);
    tokio::pin!(wait, notice);
    let mut told = false;
    loop {
        tokio::select! {
            () = &mut notice, if !told => {
                told = true;
                out::note(format!(
                    "node {id} runs and does not answer yet; it has {} s. The end of its log:{}",
                    START_TIME.as_secs(),
                    launched.tail()
                ));
            }
            done = &mut wait => {
                let pid = launched.child.id();
                out::line(describe(cluster, &node, pid))?;
                return done.map_err(|_| Failure::new(format!(
                    "node {id} is running but has not answered a read for {} s: are enough of the \
                     other nodes up? The end of its log:{}",
                    START_TIME.as_secs(),
                    launched.tail()
                )));
            }
            _ = ended.recv() => {
                if let Some(status) = launched.child.try_wait()? {
                    return Err(launched.died(status));
                }
            }
        }
    }
}
