//! The six phases, on five real processes with real sockets and disks.
//!
//! Phases 2 to 6 record what clients saw and have it checked for linearizability. In no phase may
//! an operation fail: what is in flight to the very node that is killed has an unknown outcome, all
//! else is answered.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "the logs of a failed test")]
#![allow(unreachable_pub, reason = "modules of a test")]

mod support;

use simpledynamo_protocol::{
    command::{Command, Condition, Expiry},
    history::{History, Outcome},
};
use std::{collections::BTreeSet, time::Instant};
use support::{
    load::{Load, Worker, settle},
    resp::Answer,
    ring::{IDS, Processes},
    wait,
};

/// How the ring keeps its copies equal.
const REPLICATION: &str = "quorum";

/// Clients of a load, two a node.
const CLIENTS: usize = 10;

/// Keys of all three kinds.
fn keys(prefix: &str, of_each: usize) -> Vec<String> {
    let names =
        (0..of_each).flat_map(|i| ["r", "n", "l"].map(|kind| format!("{kind}-{prefix}-{i}")));
    names.collect()
}

/// The same keys for every client.
fn shared_keys(of_each: usize) -> Vec<Vec<String>> {
    vec![keys("shared", of_each); CLIENTS]
}

fn bulk(text: &str) -> Answer {
    Answer::Bulk(text.into())
}

fn set(value: &str) -> Command {
    set_if(value, Condition::Always)
}

fn set_if(value: &str, condition: Condition) -> Command {
    Command::Set { value: value.into(), condition, expiry: Expiry::Clear, get: false }
}

#[test]
fn phase_1_basic_operations_and_where_keys_lie() {
    let ring = Processes::start(REPLICATION);
    let mut clients: Vec<_> = (0..IDS.len()).map(|node| ring.client(node)).collect();
    let keys: Vec<String> = (0..60).map(|i| format!("key-{i}")).collect();
    let ok = Answer::Simple("OK".into());
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(clients[i % 5].call(&["GET", key]).unwrap(), Answer::Nil);
        assert_eq!(clients[i % 5].call(&["SET", key, "first"]).unwrap(), ok);
        assert_eq!(clients[(i + 1) % 5].call(&["GET", key]).unwrap(), bulk("first"));
        assert_eq!(clients[(i + 2) % 5].call(&["SET", key, key]).unwrap(), ok);
        assert_eq!(clients[(i + 3) % 5].call(&["GET", key]).unwrap(), bulk(key));
    }
    ring.wait_equal(&keys);
    for (node, client) in clients.iter_mut().enumerate() {
        let here = keys.iter().filter(|key| Processes::holders(key).contains(&node));
        let expected: BTreeSet<_> = here.map(|key| (key.clone(), key.clone())).collect();
        assert_eq!(pairs(client.call(&["DYNAMO", "LOCAL"]).unwrap()), expected, "{}", IDS[node]);
        let expected = keys.iter().map(|key| (key.clone(), key.clone())).collect();
        assert_eq!(pairs(client.call(&["DYNAMO", "ALL"]).unwrap()), expected, "{}", IDS[node]);
    }
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(clients[i % 5].call(&["DEL", key]).unwrap(), Answer::Int(1));
        assert_eq!(clients[(i + 1) % 5].call(&["GET", key]).unwrap(), Answer::Nil);
        assert_eq!(clients[(i + 2) % 5].call(&["DEL", key]).unwrap(), Answer::Int(0));
    }
    ring.wait_equal(&keys);
    for client in &mut clients {
        wait("every copy is deleted", || {
            pairs(client.call(&["DYNAMO", "LOCAL"]).unwrap()).is_empty().then_some(())
        });
        assert!(pairs(client.call(&["DYNAMO", "ALL"]).unwrap()).is_empty());
    }
}

/// A flat list of keys and values.
fn pairs(answer: Answer) -> BTreeSet<(String, String)> {
    let words: Vec<String> = answer
        .array()
        .into_iter()
        .map(|word| match word {
            Answer::Bulk(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("not a string: {other:?}"),
        })
        .collect();
    words.as_chunks().0.iter().map(|[key, value]| (key.clone(), value.clone())).collect()
}

#[test]
fn phase_2_concurrent_operations_on_different_keys() {
    let ring = Processes::start(REPLICATION);
    let own = (0..CLIENTS).map(|client| keys(&client.to_string(), 3)).collect();
    let load = Load::start(&ring, own);
    load.progress(4_000);
    load.finish(&ring);
}

#[test]
fn phase_3_concurrent_operations_on_the_same_keys() {
    let ring = Processes::start(REPLICATION);
    let load = Load::start(&ring, shared_keys(4));
    load.progress(4_000);
    load.finish(&ring);
}

#[test]
fn phase_4_every_operation_with_each_node_dead() {
    let mut ring = Processes::start(REPLICATION);
    let mut worker = Worker::new(0, 0, ring.doors(), Instant::now());
    for (dead, id) in IDS.iter().enumerate() {
        ring.kill(&[dead]);
        for i in 0..20 {
            // Every other node in turn, and keys of every range.
            worker.move_to((dead + 1 + i % 4) % IDS.len());
            let key = format!("r-{dead}-{i}");
            for (command, reply) in [
                (Command::Get, Answer::Nil),
                (set("a"), Answer::Simple("OK".into())),
                (set_if("b", Condition::IfEquals("a".into())), Answer::Simple("OK".into())),
                (Command::Append("c".into()), Answer::Int(2)),
                (Command::Get, bulk("bc")),
                (Command::Del, Answer::Int(1)),
                (Command::IncrBy(5), Answer::Int(5)),
            ] {
                let name = command.to_string();
                let outcome = worker.run(&key, command).unwrap();
                let seen = outcome.to_string();
                let expected = match reply {
                    Answer::Nil => "nil".into(),
                    Answer::Simple(text) => text,
                    Answer::Int(number) => number.to_string(),
                    other => format!("\"{}\"", text(&other)),
                };
                assert_eq!(seen, expected, "{name} of {key} with {id} dead");
            }
        }
        ring.restart(dead);
        worker.move_to(dead);
        for i in 0..20 {
            let outcome = worker.run(&format!("r-{dead}-{i}"), Command::Get).unwrap();
            assert_eq!(outcome.to_string(), "\"5\"", "read at {id}, which was dead");
        }
    }
    settle(&ring, &History { operations: worker.history });
}

fn text(answer: &Answer) -> String {
    match answer {
        Answer::Bulk(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        other => format!("{other:?}"),
    }
}

#[test]
fn phase_5_crash_and_recovery_in_the_middle() {
    let mut ring = Processes::start(REPLICATION);
    let load = Load::start(&ring, shared_keys(6));
    load.progress(1_000);
    ring.kill(&[2]);
    load.progress(1_000);
    ring.restart(2);
    load.progress(1_000);
    load.finish(&ring);
}

#[test]
fn phase_6_one_node_after_another_crashes_and_recovers() {
    let mut ring = Processes::start(REPLICATION);
    let load = Load::start(&ring, shared_keys(6));
    for node in 0..IDS.len() {
        load.progress(300);
        ring.kill(&[node]);
        load.progress(300);
        ring.restart(node);
    }
    load.progress(300);
    load.finish(&ring);
}

#[test]
fn all_five_killed_at_once_keep_every_acknowledged_write() {
    let mut ring = Processes::start(REPLICATION);
    let load = Load::start(&ring, shared_keys(20));
    for _ in 0..2 {
        load.progress(1_000);
        ring.kill(&[0, 1, 2, 3, 4]);
        ring.spawn_all();
    }
    load.progress(500);
    let history = load.finish(&ring);
    let unknown = history.operations.iter().filter(|op| op.outcome == Outcome::Unknown).count();
    assert!(unknown > 0, "nothing was in flight when the nodes were killed");
}

#[test]
fn each_node_in_turn_stands_still_under_load() {
    let mut ring = Processes::start(REPLICATION);
    let load = Load::start(&ring, shared_keys(6));
    for node in 0..IDS.len() {
        load.progress(300);
        ring.pause(node);
        load.progress(600);
        ring.resume(node);
    }
    load.progress(300);
    let history = load.finish(&ring);
    let (_, not_applied, unknown) = history.outcomes();
    assert_eq!((not_applied, unknown), (0, 0), "a node that stands still loses nothing");
}
