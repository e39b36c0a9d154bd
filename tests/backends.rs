//! Both backends do what a scenario asks of them, and can fail.
//!
//! Each fault is looked at from outside: what it stops, and what comes of it after healing. Whoever
//! must object is made to: clients that are refused, a scenario that fails, a wrong history.

use simpledynamo::processes::{Config, processes};
use simpledynamo_actors::harness::{Cluster, Failure, Faults, Mix, ms, play, sim};
use simpledynamo_protocol::{
    command::{Command, Reply},
    history::Outcome,
    ring::NodeId,
};
use std::{fmt::Debug, fs, path::PathBuf};

/// A body on both backends, as two tests.
macro_rules! on_both_backends {
    ($($body:ident),* $(,)?) => {
        mod simulated {
            $(#[test]
            fn $body() -> Result<(), super::Failure> {
                super::play(super::sim(3), super::$body)
            })*
        }

        mod on_processes {
            $(#[test]
            fn $body() -> Result<(), super::Failure> {
                super::play(super::processes(3), super::$body)
            })*
        }
    };
}

on_both_backends!(
    cut_off_replica_misses_a_write_and_gets_it_after_healing,
    one_way_cut_stops_one_way_only,
    slow_links_lose_nothing,
    wiped_node_copies_everything_back,
    crashed_node_answers_nobody,
    node_that_stands_still_answers_when_it_goes_on,
    clients_are_refused_when_two_of_three_are_gone,
);

fn same<T: PartialEq + Debug>(found: T, expected: T) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    Err(Failure { text: format!("expected {expected:?}, found {found:?}") })
}

fn differ<T: PartialEq + Debug>(one: T, other: T) -> Result<(), Failure> {
    if one != other {
        return Ok(());
    }
    Err(Failure { text: format!("{one:?} twice") })
}

fn ok() -> Outcome {
    Outcome::Reply(Reply::Ok)
}

/// The key's three nodes: coordinator, second, third; and one that does not keep it.
fn places(t: &mut impl Cluster, key: &str) -> Result<([NodeId; 3], NodeId), Failure> {
    let holders = t.holders(key)?;
    let other = t.ids().into_iter().find(|id| !holders.contains(id));
    match (<[NodeId; 3]>::try_from(holders), other) {
        (Ok(holders), Some(other)) => Ok((holders, other)),
        found => Err(Failure { text: format!("no ring of five with three replicas: {found:?}") }),
    }
}

fn cut_off_replica_misses_a_write_and_gets_it_after_healing(
    t: &mut impl Cluster,
) -> Result<(), Failure> {
    let ([first, second, third], _) = places(t, "k")?;
    same(t.client(first).set("k", "before")?, ok())?;
    t.heal_and_settle()?;
    t.partition(&[third]);
    same(t.client(first).set("k", "after")?, ok())?;
    differ(t.held(first, "k")?, t.held(third, "k")?)?;
    t.heal_and_settle()?;
    same(t.held(second, "k")?, t.held(third, "k")?)?;
    same(t.client(third).get("k")?, Outcome::Reply(Reply::Bulk("after".into())))?;
    Ok(t.history().assert_linearizable()?)
}

fn one_way_cut_stops_one_way_only(t: &mut impl Cluster) -> Result<(), Failure> {
    let ([first, _, third], _) = places(t, "k")?;
    // The third hears all and says nothing: it stores, and no operation at it comes to an end.
    t.partition(&[third]).one_way();
    same(t.client(first).set("k", "v")?, ok())?;
    let mut held = None;
    while held.is_none() {
        t.advance(ms(10))?;
        held = t.held(third, "k")?;
    }
    differ(t.client(third).set("k", "w")?, ok())?;
    t.heal_and_settle()?;
    Ok(t.history().assert_linearizable()?)
}

fn slow_links_lose_nothing(t: &mut impl Cluster) -> Result<(), Failure> {
    for from in t.ids() {
        for to in t.ids().into_iter().filter(|to| *to != from) {
            t.latency(from, to, ms(1)..ms(20));
        }
    }
    t.clients(5).run(Mix::default()).operations(200)?;
    same(t.refused(), Vec::new())?;
    t.heal_and_settle()?;
    Ok(t.history().assert_linearizable()?)
}

fn wiped_node_copies_everything_back(t: &mut impl Cluster) -> Result<(), Failure> {
    let ([first, second, third], _) = places(t, "k")?;
    same(t.client(first).set("k", "v")?, ok())?;
    t.heal_and_settle()?;
    t.restart(third).wipe_disk();
    t.heal_and_settle()?;
    same(t.held(third, "k")?, t.held(second, "k")?)?;
    differ(t.held(third, "k")?, None)
}

fn crashed_node_answers_nobody(t: &mut impl Cluster) -> Result<(), Failure> {
    t.crash("5554");
    same(t.is_running("5554"), false)?;
    same(t.client("5554").get("k")?, Outcome::Unknown)?;
    same(t.held("5554", "k")?, None)?;
    t.heal_and_settle()?;
    same(t.client("5554").get("k")?, Outcome::Reply(Reply::Nil))
}

fn node_that_stands_still_answers_when_it_goes_on(t: &mut impl Cluster) -> Result<(), Failure> {
    let ([first, _, third], other) = places(t, "k")?;
    t.suspend(first);
    t.suspend(third);
    // Two of three stand still: nothing can be written, and the client is told so honestly.
    differ(t.client(other).set("k", "v")?, ok())?;
    t.resume(first);
    t.resume(third);
    t.heal_and_settle()?;
    t.pause(first, ms(200));
    same(t.client(first).set("k", "w")?, ok())?;
    t.heal_and_settle()?;
    Ok(t.history().assert_linearizable()?)
}

/// The control of `refused`: the phases rest on it.
fn clients_are_refused_when_two_of_three_are_gone(t: &mut impl Cluster) -> Result<(), Failure> {
    same(t.refused(), Vec::new())?;
    t.crash("5554");
    t.crash("5558");
    let history = t.clients(5).run(Mix::default().keys(20)).operations(60)?;
    differ(t.refused(), Vec::new())?;
    differ(history.outcomes().1 + history.outcomes().2, 0)?;
    t.heal_and_settle()?;
    Ok(history.assert_linearizable()?)
}

/// The directory that a failure names.
fn kept(failure: &Failure) -> PathBuf {
    let (_, dir) = failure.text.rsplit_once("kept in ").unwrap_or_default();
    PathBuf::from(dir)
}

#[test]
fn failed_run_keeps_its_directory_and_says_where() {
    let failed = play(processes(4), |t| {
        t.client("5554").set("k", "v")?;
        Err(Failure { text: "as asked".to_owned() })
    });
    let Err(failure) = failed else { panic!("a scenario that fails passes") };
    assert!(failure.text.starts_with("as asked\nagain: SEED=4 "), "{failure}");
    let dir = kept(&failure);
    assert!(dir.join("data/5554/log").is_file(), "{failure}");
    fs::remove_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
}

#[test]
fn good_run_leaves_nothing() -> Result<(), Failure> {
    let mut dir = PathBuf::new();
    play(processes(4), |t| {
        dir = t.directory().to_owned();
        t.client("5554").set("k", "v")?;
        t.heal_and_settle()
    })?;
    assert!(!dir.as_os_str().is_empty() && !dir.exists(), "{}", dir.display());
    Ok(())
}

#[test]
fn ring_that_cannot_start_is_told() {
    let wrong = Config { settings: "replicas = 4".to_owned(), ..Config::new(1) };
    let started = std::panic::catch_unwind(|| drop(wrong.start()));
    assert!(started.is_err(), "a ring with a wrong configuration starts");
}

#[test]
fn node_that_cannot_start_fails_the_run() {
    let failed = play(processes(5), |t| {
        t.crash("5556");
        let data = t.directory().join("data/5556");
        let broken = fs::rename(&data, data.with_extension("away"));
        let broken = broken.and_then(|()| fs::write(&data, "no directory"));
        broken.map_err(|error| Failure { text: error.to_string() })?;
        t.restart("5556").keep_disk();
        t.advance(ms(1))
    });
    let Err(failure) = failed else { panic!("a node without a directory starts") };
    assert!(failure.text.contains("cannot write"), "{failure}");
    let dir = kept(&failure);
    fs::remove_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
}

#[test]
fn what_cannot_be_spelled_is_said() {
    let failed = play(processes(6), |t| t.client("5554").ask("k", Command::Persist).map(|_| ()));
    let Err(failure) = failed else { panic!("a command that has no words was sent") };
    assert!(failure.text.contains("not among the commands"), "{failure}");
    let dir = kept(&failure);
    fs::remove_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
}
