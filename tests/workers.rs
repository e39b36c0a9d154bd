//! Nodes whose keys are spread over threads: what holds on one thread holds on several.

use simpledynamo::processes;
use simpledynamo_actors::{
    harness::{self, Cluster, Failure, Faults, Mix, ms, play},
    settings::Replication,
};
use simpledynamo_protocol::{command::Reply, history::Outcome, ring::NodeId};

/// More keys than shards, so that each has several.
fn load() -> Mix {
    Mix::default().keys(20)
}

fn nodes_die_under_load(t: &mut impl Cluster) -> Result<(), Failure> {
    t.clients(8).run(load()).start();
    t.progress(200)?;
    t.pause("5560", ms(300));
    t.progress(200)?;
    t.crash("5558");
    t.progress(200)?;
    t.restart("5558").keep_disk();
    t.until_serving()?;
    t.progress(200)?;
    t.restart("5562").wipe_disk();
    t.progress(200)?;
    let history = t.finish()?;
    t.heal_and_settle()?;
    Ok(history.assert_linearizable()?)
}

/// Each of many keys is counted at every node, whichever shards these have for it.
fn every_node_serves_every_key(t: &mut impl Cluster) -> Result<(), Failure> {
    for key in (0..40).map(|number| format!("key-{number}")) {
        for (node, count) in t.ids().into_iter().zip(1..) {
            let counted = t.client(node).incr(&key)?;
            if counted != Outcome::Reply(Reply::Int(count)) {
                return Err(Failure { text: format!("{key} at {node}: {counted:?}, not {count}") });
            }
        }
    }
    let refused = t.refused();
    if let Some(first) = refused.first() {
        return Err(Failure { text: first.clone() });
    }
    t.heal_and_settle()
}

/// Every replication on both backends, with `workers` that divide nothing evenly.
macro_rules! with_workers {
    ($($body:ident),* $(,)?) => {
        mod simulated {
            use super::*;

            fn sim(replication: Replication) -> harness::Sim {
                harness::Config { workers: 3, replication, ..harness::Config::new(11) }.start()
            }

            $(#[test]
            fn $body() -> Result<(), Failure> {
                play(sim(Replication::Quorum), super::$body)?;
                play(sim(Replication::Chain), super::$body)
            })*
        }

        mod on_processes {
            use super::*;

            fn ring(settings: &str) -> processes::Processes {
                let settings = format!("workers = 3\n{settings}");
                processes::Config { settings, ..processes::Config::new(11) }.start()
            }

            $(#[test]
            fn $body() -> Result<(), Failure> {
                play(ring(""), super::$body)?;
                play(ring("replication = \"chain\""), super::$body)
            })*
        }
    };
}

with_workers!(nodes_die_under_load, every_node_serves_every_key);

fn places(holders: Vec<NodeId>) -> [NodeId; 3] {
    <[NodeId; 3]>::try_from(holders).unwrap_or([NodeId(0); 3])
}

/// A coordinator has the vote of a node that then loses its store, and comes back before the own vote
/// is durable. Together they would be a quorum of which one holds the value.
#[test]
fn every_shard_forgets_the_votes_of_a_former_life() -> Result<(), Failure> {
    for key in (0..9).map(|number| format!("key-{number}")) {
        let mut t = harness::Config { workers: 3, ..harness::Config::new(3) }.start();
        let [first, second, third] = places(t.holders(&key)?);
        t.client(first).set(&key, "before")?;
        t.heal_and_settle()?;
        t.cut(first, third, true);
        t.cut(third, first, true);
        t.disk(first).slow(ms(300)..ms(301));
        t.after(ms(30), move |t| t.restart(second).wipe_disk());
        if t.client(first).set(&key, "after")? == Outcome::Reply(Reply::Ok) {
            let held = [t.held(second, &key)?, t.held(third, &key)?];
            let after = held.iter().flatten().filter(|held| held.value == Some("after".into()));
            assert_ne!(after.count(), 0, "{key} is acknowledged and at {first} only: {held:?}");
        }
        t.heal_and_settle()?;
        t.history().assert_linearizable()?;
    }
    Ok(())
}
