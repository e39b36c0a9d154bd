//! The schedule of faults: one node at a time, and the next only when the last is level again.
//!
//! The seed decides which node, which fault and how long. Kinds come in bags, each kind once a bag in
//! a random order, so that a short run has them all. A fault:
//!
//! - `kill`: SIGKILL, later a new process with the same directory
//! - `pause`: SIGSTOP, later SIGCONT
//! - `partition`: nothing passes between the node and the others; both ways, outward or inward
//! - `delay`: every chunk between the node and the others comes later
//! - `cut`: the node's peer connections are closed, and new ones at once

use super::{
    super::Failure,
    Shared,
    chance::Chance,
    proxy::Flow,
    ring::{Ring, Ways},
};
use clap::ValueEnum;
use nix::sys::signal::Signal;
use std::{fmt, time::Duration};
use tokio::time::sleep;

/// How long the ring is left alone between two faults, milliseconds.
const CALM: (u64, u64) = (200, 1_000);
/// How long a fault lasts, milliseconds: below and above time-outs, deadline and reconnects.
const LASTS: (u64, u64) = (200, 3_500);
/// By how much a delayed chunk is late, milliseconds: below and above the request time-out.
const LATE: (u64, u64) = (5, 150);
/// How often it is looked whether the run ends.
const LOOK: Duration = Duration::from_millis(10);

/// What may be asked for with `--faults`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Kind {
    /// SIGKILL and a restart.
    Kill,
    /// SIGSTOP and SIGCONT.
    Pause,
    /// Peer links hold all bytes: both ways, outward, inward.
    Partition,
    /// Peer links are slow.
    Delay,
    /// Peer connections are closed again and again.
    Cut,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Pause,
    /// A partition in these directions.
    Partition(Ways),
    /// Slow links.
    Delay,
    /// Closed connections.
    Cut,
}

impl Fault {
    /// Every fault of the kinds asked for.
    fn of(kinds: &[Kind]) -> Vec<Fault> {
        let faults = |kind: &Kind| match kind {
            Kind::Kill => vec![Fault::Kill],
            Kind::Pause => vec![Fault::Pause],
            Kind::Partition => [Ways::Both, Ways::Out, Ways::In].map(Fault::Partition).to_vec(),
            Kind::Delay => vec![Fault::Delay],
            Kind::Cut => vec![Fault::Cut],
        };
        kinds.iter().flat_map(faults).collect()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Kill => "kill",
            Fault::Pause => "pause",
            Fault::Partition(Ways::Both) => "partition, both ways",
            Fault::Partition(Ways::Out) => "partition, outward",
            Fault::Partition(Ways::In) => "partition, inward",
            Fault::Delay => "delay",
            Fault::Cut => "cut",
        })
    }
}

/// Disturbs the ring until the time is over and each fault has come once, or the run is stopped.
pub(super) async fn conduct(
    shared: &Shared,
    ring: &mut Ring,
    kinds: &[Kind],
) -> Result<(), Failure> {
    let mut chance = Chance(shared.seed);
    let mut bag = Vec::new();
    let mut first = true;
    while shared.running() {
        wait(shared, chance.millis(CALM.0, CALM.1)).await;
        if bag.is_empty() {
            bag = Fault::of(kinds);
        }
        let over = shared.time_is_over() && (!first || kinds.is_empty());
        if over || !shared.running() {
            break;
        }
        if bag.is_empty() {
            continue;
        }
        let fault = bag.swap_remove(chance.index(bag.len()));
        first = first && !bag.is_empty();
        let node = chance.index(shared.doors.len());
        ring.living()?;
        shared.disturb(node, fault)?;
        strike(shared, ring, node, fault, &mut chance).await?;
        ring.ready(node).await?;
        shared.calm(node)?;
    }
    Ok(())
}

/// A fault from its beginning to its end.
async fn strike(
    shared: &Shared,
    ring: &mut Ring,
    node: usize,
    fault: Fault,
    chance: &mut Chance,
) -> Result<(), Failure> {
    let lasts = chance.millis(LASTS.0, LASTS.1);
    let late = chance.millis(LATE.0, LATE.1);
    match fault {
        Fault::Kill => {
            ring.kill(node)?;
            wait(shared, lasts).await;
            ring.launch(node)
        }
        Fault::Pause => {
            ring.signal(node, Signal::SIGSTOP)?;
            wait(shared, lasts).await;
            ring.signal(node, Signal::SIGCONT)
        }
        Fault::Partition(_) | Fault::Delay | Fault::Cut => {
            let (ways, flow) = match fault {
                Fault::Partition(ways) => (ways, Flow::Held),
                Fault::Delay => (Ways::Both, Flow::Late(late)),
                _ => (Ways::Both, Flow::Cut),
            };
            ring.flow(node, ways, flow);
            wait(shared, lasts).await;
            ring.flow(node, Ways::Both, Flow::Open);
            Ok(())
        }
    }
}

/// Waits, unless the run ends before.
async fn wait(shared: &Shared, time: Duration) {
    let end = tokio::time::Instant::now() + time;
    while shared.running() && tokio::time::Instant::now() < end {
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_come_in_three_forms() {
        assert_eq!(Fault::of(&[Kind::Kill, Kind::Partition]).len(), 4);
        assert_eq!(Fault::of(&[]).len(), 0);
    }
}
