//! `kill`, `pause`, `resume`: SIGKILL, SIGSTOP, SIGCONT to the process that holds a node's pid file.

use super::{Failure, Place, out};
use crate::{
    config::Cluster,
    pidfile::{gone, holder, paused},
};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use simpledynamo_protocol::ring::NodeId;
use std::time::{Duration, Instant};

/// How long the kernel may take to end a killed process.
const END_TIME: Duration = Duration::from_secs(5);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(5);

/// `kill ID`: returns once the process is gone, so that `start` can follow at once.
pub(super) fn kill(cluster: &Cluster, place: &Place, id: NodeId) -> Result<(), Failure> {
    let pid = send(cluster, place, id, Signal::SIGKILL)?;
    let asked = Instant::now();
    while !gone(pid) {
        if asked.elapsed() > END_TIME {
            return Err(Failure::new(format!(
                "node {id} (pid {pid}) has been sent SIGKILL and is still there: it waits for its \
                 disk"
            )));
        }
        std::thread::sleep(LOOK);
    }
    let back = place.command(&format!("start {id}"));
    Ok(out::line(format!("node {id} (pid {pid}) killed; bring it back with: {back}"))?)
}

/// `pause ID`
pub(super) fn pause(cluster: &Cluster, place: &Place, id: NodeId) -> Result<(), Failure> {
    let pid = send(cluster, place, id, Signal::SIGSTOP)?;
    let back = place.command(&format!("resume {id}"));
    Ok(out::line(format!("node {id} (pid {pid}) paused; let it go on with: {back}"))?)
}

/// `resume ID`
pub(super) fn resume(cluster: &Cluster, place: &Place, id: NodeId) -> Result<(), Failure> {
    let path = place.pid_file(id);
    let was = holder(&path).is_some_and(paused);
    let pid = send(cluster, place, id, Signal::SIGCONT)?;
    let what = if was { "goes on" } else { "was not paused" };
    Ok(out::line(format!("node {id} (pid {pid}) {what}"))?)
}

fn send(cluster: &Cluster, place: &Place, id: NodeId, signal: Signal) -> Result<Pid, Failure> {
    cluster.node(id)?;
    let Some(pid) = holder(&place.pid_file(id)) else {
        return Err(Failure::new(format!(
            "node {id} is not running in {}: start it with: {}",
            place.of(id).display(),
            place.command(&format!("start {id}"))
        )));
    };
    signal::kill(pid, signal)
        .map_err(|error| Failure::new(format!("cannot send {signal} to {pid}: {error}")))?;
    Ok(pid)
}
