//! The six phases and two more, each one body for two backends: simulated, with many seeds, and on
//! five real processes with real sockets and disks; with quorums and with chains.
//!
//! Phases 2 to 6 record what clients saw and have it checked for linearizability. In no phase may
//! an operation fail: what is in flight to the very node that is killed has an unknown outcome, all
//! else is answered.

#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

use simpledynamo::processes::{self, Processes, processes};
use simpledynamo_actors::{
    harness::{self, Cluster, Failure, Mix, Pairs, Sim, ms, play, seed_or, sim},
    settings::Replication,
};
use simpledynamo_protocol::{
    command::{Command, Condition, Reply},
    history::Outcome,
    ring::{NodeId, Ring},
};
use std::{
    collections::BTreeSet,
    fmt::{Debug, Display},
};

/// Clients of a load, two a node.
const CLIENTS: u32 = 10;

/// Seeds that the simulator tries of each phase. On processes there is one.
const SEEDS: u64 = 5;

/// A phase on both backends and with both strategies, as four tests.
macro_rules! on_both_backends {
    ($($phase:ident),* $(,)?) => {
        mod simulated {
            $(#[test]
            fn $phase() -> Result<(), super::Failure> {
                (0..super::SEEDS).try_for_each(|seed| super::play(super::sim(seed), super::$phase))
            })*

            mod chain {
                $(#[test]
                fn $phase() -> Result<(), super::super::Failure> {
                    use super::super::{SEEDS, play, simulated_chains};
                    (0..SEEDS).try_for_each(|seed| {
                        play(simulated_chains(seed), super::super::$phase)
                    })
                })*
            }
        }

        mod on_processes {
            $(#[test]
            fn $phase() -> Result<(), super::Failure> {
                super::play(super::processes(1), super::$phase)
            })*

            mod chain {
                $(#[test]
                fn $phase() -> Result<(), super::super::Failure> {
                    use super::super::{chains_of_processes, play};
                    play(chains_of_processes(1), super::super::$phase)
                })*
            }
        }
    };
}

/// The shipped ring with chains, simulated.
fn simulated_chains(seed: u64) -> Sim {
    harness::Config { replication: Replication::Chain, ..harness::Config::new(seed_or(seed)) }
        .start()
}

/// The shipped ring with chains, as processes.
fn chains_of_processes(seed: u64) -> Processes {
    let settings = "replication = \"chain\"\n".to_owned();
    processes::Config { settings, ..processes::Config::new(seed_or(seed)) }.start()
}

on_both_backends!(
    phase_1_basic_operations_and_where_keys_lie,
    phase_2_concurrent_operations_on_different_keys,
    phase_3_concurrent_operations_on_the_same_keys,
    phase_4_every_operation_with_each_node_dead,
    phase_5_crash_and_recovery_in_the_middle,
    phase_6_one_node_after_another_crashes_and_recovers,
    all_five_killed_at_once_keep_every_acknowledged_write,
    each_node_in_turn_stands_still_under_load,
    one_node_stands_still_for_ten_seconds_of_reads_and_writes,
);

fn phase_1_basic_operations_and_where_keys_lie(t: &mut impl Cluster) -> Result<(), Failure> {
    let ids = t.ids();
    let at = |i: usize| ids[i % ids.len()];
    let keys: Vec<String> = (0..60).map(|i| format!("key-{i}")).collect();
    for (i, key) in keys.iter().enumerate() {
        says(t.client(at(i)).get(key)?, "nil", key)?;
        says(t.client(at(i)).set(key, "first")?, "OK", key)?;
        says(t.client(at(i + 1)).get(key)?, "\"first\"", key)?;
        says(t.client(at(i + 2)).set(key, key)?, "OK", key)?;
        says(t.client(at(i + 3)).get(key)?, &format!("\"{key}\""), key)?;
    }
    t.heal_and_settle()?;
    let ring = Ring::new(ids.iter().copied(), 3);
    for key in &keys {
        same(t.holders(key)?, ring.replicas_of(key.as_bytes()), key)?;
    }
    let pair = |key: &String| (key.clone(), key.clone());
    for node in &ids {
        let here = keys.iter().filter(|key| ring.replicas_of(key.as_bytes()).contains(node));
        same(t.local(*node)?, here.map(pair).collect(), node)?;
        same(t.all(*node)?, keys.iter().map(pair).collect(), node)?;
    }
    for (i, key) in keys.iter().enumerate() {
        says(t.client(at(i)).del(key)?, "1", key)?;
        says(t.client(at(i + 1)).get(key)?, "nil", key)?;
        says(t.client(at(i + 2)).del(key)?, "0", key)?;
    }
    t.heal_and_settle()?;
    for node in &ids {
        same(t.local(*node)?, Pairs::new(), node)?;
        same(t.all(*node)?, Pairs::new(), node)?;
    }
    end(t)
}

fn phase_2_concurrent_operations_on_different_keys(t: &mut impl Cluster) -> Result<(), Failure> {
    t.clients(CLIENTS).run(Mix::default().own_keys().think(ms(0)..ms(1))).operations(3_000)?;
    end(t)
}

fn phase_3_concurrent_operations_on_the_same_keys(t: &mut impl Cluster) -> Result<(), Failure> {
    t.clients(CLIENTS).run(mix(12)).operations(3_000)?;
    end(t)
}

fn phase_4_every_operation_with_each_node_dead(t: &mut impl Cluster) -> Result<(), Failure> {
    let ids = t.ids();
    for (dead, id) in ids.iter().enumerate() {
        t.crash(*id);
        for i in 0..20 {
            // Every other node in turn, and keys of every range.
            let at = ids[(dead + 1 + i % 4) % ids.len()];
            let key = &format!("r-{dead}-{i}");
            says(t.client(at).get(key)?, "nil", id)?;
            says(t.client(at).set(key, "a")?, "OK", id)?;
            let a = Condition::IfEquals("a".into());
            says(t.client(at).set_if(key, "b", a)?, "OK", id)?;
            says(t.client(at).ask(key, Command::Append("c".into()))?, "2", id)?;
            says(t.client(at).get(key)?, "\"bc\"", id)?;
            says(t.client(at).del(key)?, "1", id)?;
            says(t.client(at).ask(key, Command::IncrBy(5))?, "5", id)?;
        }
        t.restart(*id).keep_disk();
        t.until_serving()?;
        for i in 0..20 {
            says(t.client(*id).get(&format!("r-{dead}-{i}"))?, "\"5\"", id)?;
        }
    }
    end(t)
}

fn phase_5_crash_and_recovery_in_the_middle(t: &mut impl Cluster) -> Result<(), Failure> {
    t.clients(CLIENTS).run(mix(18)).start();
    t.progress(1_000)?;
    t.crash("5558");
    t.progress(1_000)?;
    t.restart("5558").keep_disk();
    t.until_serving()?;
    t.progress(1_000)?;
    end(t)
}

fn phase_6_one_node_after_another_crashes_and_recovers(
    t: &mut impl Cluster,
) -> Result<(), Failure> {
    t.clients(CLIENTS).run(mix(18)).start();
    for node in t.ids() {
        t.progress(300)?;
        t.crash(node);
        t.progress(300)?;
        t.restart(node).keep_disk();
        t.until_serving()?;
    }
    t.progress(300)?;
    end(t)
}

fn all_five_killed_at_once_keep_every_acknowledged_write(
    t: &mut impl Cluster,
) -> Result<(), Failure> {
    // Clients pause for about as long as an answer takes on links without delay, so that now and then
    // all of them would be pausing when the nodes are killed.
    for (from, to) in pairs(&t.ids()) {
        t.latency(from, to, ms(1)..ms(5));
    }
    let mut before = 0;
    for _ in 0..2 {
        t.clients(CLIENTS).run(mix(60)).start();
        t.progress(500)?;
        for node in t.ids() {
            t.crash(node);
        }
        for node in t.ids() {
            t.restart(node).keep_disk();
        }
        t.until_serving()?;
        t.progress(500)?;
        let (_, _, unknown) = t.finish()?.outcomes();
        same(unknown > before, true, "something is in flight when the nodes are killed")?;
        before = unknown;
    }
    settled(t)
}

fn each_node_in_turn_stands_still_under_load(t: &mut impl Cluster) -> Result<(), Failure> {
    t.clients(CLIENTS).run(mix(18)).start();
    for node in t.ids() {
        t.progress(300)?;
        t.pause(node, ms(400));
        // Each client comes to the node soon and waits there, so this outlasts the pause.
        t.progress(300)?;
    }
    let history = t.finish()?;
    let (_, not_applied, unknown) = history.outcomes();
    same((not_applied, unknown), (0, 0), "a node that stands still loses nothing")?;
    end(t)
}

/// Long enough to be replaced everywhere: as the last of three keys' nodes it is a chain's tail, too.
fn one_node_stands_still_for_ten_seconds_of_reads_and_writes(
    t: &mut impl Cluster,
) -> Result<(), Failure> {
    t.clients(CLIENTS).run(Mix::default().keys(18).think(ms(0)..ms(5))).start();
    t.progress(500)?;
    t.pause("5560", ms(10_000));
    t.progress(5_000)?;
    t.until_serving()?;
    t.progress(500)?;
    t.finish()?;
    settled(t)
}

/// Each node with each other.
fn pairs(ids: &[NodeId]) -> impl Iterator<Item = (NodeId, NodeId)> {
    let with_each = |from: NodeId| ids.iter().map(move |to| (from, *to));
    ids.iter().copied().flat_map(with_each).filter(|(from, to)| from != to)
}

/// Many keys and next to no thinking.
fn mix(keys: u64) -> Mix {
    Mix::default().keys(keys).think(ms(0)..ms(1))
}

/// The clients stop. Nothing was refused, and all is as it must be.
fn end(t: &mut impl Cluster) -> Result<(), Failure> {
    t.finish()?;
    same(t.refused(), Vec::new(), "only what is in flight at a node that crashes may fail")?;
    settled(t)
}

/// Every key is read once more, each at another node; what all saw is linearizable, and the replicas
/// of each key are equal.
fn settled(t: &mut impl Cluster) -> Result<(), Failure> {
    let keys: BTreeSet<_> = t.history().operations.into_iter().map(|op| op.key).collect();
    let ids: Vec<NodeId> = t.ids();
    for (key, node) in keys.iter().zip(ids.iter().cycle()) {
        let read = t.client(*node).get(&key.to_string())?;
        same(matches!(read, Outcome::Reply(Reply::Bulk(_) | Reply::Nil)), true, key)?;
    }
    t.heal_and_settle()?;
    Ok(t.history().assert_linearizable()?)
}

/// A failure unless an outcome reads like this.
fn says(outcome: Outcome, expected: &str, of: impl Display) -> Result<(), Failure> {
    same(outcome.to_string(), expected.to_owned(), of)
}

/// A failure unless both are the same.
fn same<T: PartialEq + Debug>(found: T, expected: T, of: impl Display) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    Err(Failure { text: format!("{of}: expected {expected:?}, found {found:?}") })
}
