//! Messages between nodes for one operation, by the size of the ring: `ring_sizes NODES`.
//!
//! The production actors on the harness' simulated network, so that fifty nodes need no machine of their own
//! and the count is exact. Nodes also talk when nobody asks anything (who is alive, who lacks what); that is
//! counted by itself in a time without clients, and taken off.
//!
//! Prints a line of JSON for each figure, as `load suite` keeps them.

use simpledynamo_actors::{
    harness::{Config, Failure, Mix, Sim},
    settings::Replication,
};
use std::{process::ExitCode, time::Duration};

/// Operations of one client that are counted, and so many before: the first write of a key takes one round
/// more, however large the ring is.
const OPERATIONS: u64 = 100;
/// Keys of one client: its operations meet nobody else's.
const KEYS: u64 = 5;
/// Simulated time without clients.
const REST: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let Some(nodes) = std::env::args().nth(1).and_then(|text| text.parse().ok()) else {
        eprintln!("usage: ring_sizes NODES");
        return ExitCode::from(2);
    };
    for (system, replication) in
        [("ring-sync", Replication::Quorum), ("chain-sync", Replication::Chain)]
    {
        if let Err(failure) = measure(system, replication, nodes) {
            eprintln!("ring_sizes: {failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(system: &str, replication: Replication, nodes: u32) -> Result<(), Failure> {
    let ids = (0..nodes).map(|at| 5554 + 2 * at).collect();
    let mut ring = Config { nodes: ids, replication, ..Config::new(7) }.start();
    ring.advance(REST)?;
    let before = ring.traffic().sent;
    ring.advance(REST)?;
    let idle = (ring.traffic().sent - before) as f64 / REST.as_secs_f64();
    let mix = Mix::default().keys(KEYS).own_keys().reads_and_writes(0, 1);
    messages(&mut ring, mix, nodes, idle)?;
    for (word, reads, writes) in [("write", 0, 1), ("read", 1, 0)] {
        let mix = Mix::default().keys(KEYS).own_keys().reads_and_writes(reads, writes);
        let messages = messages(&mut ring, mix, nodes, idle)?;
        tell(system, nodes, &format!("messages a {word}"), messages);
    }
    tell(system, nodes, "messages a second and node without clients", idle / f64::from(nodes));
    Ok(())
}

/// Messages for one operation, those without clients taken off.
fn messages(ring: &mut Sim, mix: Mix, nodes: u32, idle: f64) -> Result<f64, Failure> {
    let (sent, since) = (ring.traffic().sent, ring.elapsed());
    // A client at each node, so that every node takes requests.
    let operations = OPERATIONS * u64::from(nodes);
    ring.clients(nodes).run(mix).operations(operations)?;
    let passed = (ring.elapsed() - since).as_secs_f64();
    let sent = (ring.traffic().sent - sent) as f64;
    Ok((sent - idle * passed) / operations as f64)
}

fn tell(system: &str, nodes: u32, name: &str, value: f64) {
    println!(
        "{{\"kind\":\"simulation\",\"system\":\"{system}\",\"keys\":{nodes},\"name\":\"{name}\",\"value\":{value}}}"
    );
}
