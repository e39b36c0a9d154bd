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

use super::{super::Failure, Shared};
use crate::processes::{fleet::Fleet, proxy::Flow};
use clap::ValueEnum;
use nix::sys::signal::Signal;
use simpledynamo_actors::harness::{Rng, ms};
use std::{fmt, ops::Range, time::Duration};
use tokio::time::sleep;

/// How long the ring is left alone between two faults.
const CALM: Range<Duration> = ms(200)..ms(1_000);
/// How long a fault lasts: below and above time-outs, deadline and reconnects.
const LASTS: Range<Duration> = ms(200)..ms(3_500);
/// By how much a delayed chunk is late: below and above the request time-out.
const LATE: Range<Duration> = ms(5)..ms(150);
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

/// Which directions between one node and all others a fault has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ways {
    /// From the node and to it.
    Both,
    /// Only what the node says.
    Out,
    /// Only what it is told.
    In,
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
    ring: &mut Fleet,
    kinds: &[Kind],
) -> Result<(), Failure> {
    let mut rng = Rng::new(shared.seed, 0);
    let mut bag = Vec::new();
    let mut first = true;
    while shared.running() {
        wait(shared, rng.span(&CALM)).await;
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
        let fault = bag.swap_remove(index(&mut rng, bag.len()));
        first = first && !bag.is_empty();
        let node = index(&mut rng, shared.doors.len());
        ring.living()?;
        shared.disturb(node, fault)?;
        strike(shared, ring, node, fault, &mut rng).await?;
        ring.ready(node).await?;
        shared.calm(node)?;
    }
    Ok(())
}

/// A fault from its beginning to its end.
async fn strike(
    shared: &Shared,
    ring: &mut Fleet,
    node: usize,
    fault: Fault,
    rng: &mut Rng,
) -> Result<(), Failure> {
    let lasts = rng.span(&LASTS);
    let late = rng.span(&LATE);
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
                Fault::Partition(ways) => (ways, Flow::HELD),
                Fault::Delay => (Ways::Both, Flow { late: late..late, ..Flow::OPEN }),
                _ => (Ways::Both, Flow::CUT),
            };
            let nodes = shared.doors.len();
            for other in (0..nodes).filter(|other| *other != node) {
                if ways != Ways::In {
                    ring.flow(node, other, |of| *of = flow.clone());
                }
                if ways != Ways::Out {
                    ring.flow(other, node, |of| *of = flow.clone());
                }
            }
            wait(shared, lasts).await;
            ring.flow_all(|of| *of = Flow::OPEN);
            Ok(())
        }
    }
}

/// An index below `length`.
fn index(rng: &mut Rng, length: usize) -> usize {
    usize::try_from(rng.below(length as u64)).unwrap_or(0)
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
