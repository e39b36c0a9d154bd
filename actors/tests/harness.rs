//! Scenarios: whole nodes, one fault each, on simulated time.

use simpledynamo_actors::harness::{Config, Failure, Mix, ms, sim};
use simpledynamo_protocol::{
    command::Reply,
    history::Outcome,
    message::{Accept, Accepted},
};

fn ok() -> Outcome {
    Outcome::Reply(Reply::Ok)
}

fn value(text: &str) -> Outcome {
    Outcome::Reply(Reply::Bulk(text.into()))
}

#[test]
fn what_one_node_took_another_gives() -> Result<(), Failure> {
    let mut t = sim(1);
    assert_eq!(t.client("5554").set("greeting", "hello")?, ok());
    assert_eq!(t.client("5562").get("greeting")?, value("hello"));
    t.heal_and_settle()
}

#[test]
fn same_seed_same_messages() -> Result<(), Failure> {
    let run = |seed| {
        let mut t = Config { keep_log: true, ..Config::new(seed) }.start();
        t.after(ms(100), |t| t.crash("5558"));
        t.after(ms(700), |t| t.restart("5558").keep_disk());
        let history = t.clients(5).run(Mix::default()).operations(300)?;
        Ok::<_, Failure>((t.messages(), t.digest(), history))
    };
    let (first, second, other) = (run(5)?, run(5)?, run(6)?);
    for (one, two) in first.0.iter().zip(&second.0) {
        assert_eq!(one, two);
    }
    assert_eq!(first, second);
    assert_ne!(first.1, other.1);
    Ok(())
}

#[test]
fn crashed_coordinator_costs_no_acknowledged_write() -> Result<(), Failure> {
    let mut t = sim(2);
    t.crash_when(|e| e.sent::<Accept>().at("5556").nth(5));
    t.after(ms(900), |t| t.restart("5556").keep_disk());
    let history = t.clients(6).run(Mix::default()).operations(400)?;
    t.heal_and_settle()?;
    Ok(history.assert_linearizable()?)
}

#[test]
fn accepts_lost_twice_are_made_good() -> Result<(), Failure> {
    let mut t = sim(3);
    t.every_link(|link| {
        link.only::<Accept>().drop_first(2);
    });
    t.crash_when(|e| e.received::<Accepted>().at("5554").nth(2));
    let history = t.clients(5).run(Mix::default().keys(2)).operations(300)?;
    t.heal_and_settle()?;
    Ok(history.assert_linearizable()?)
}

/// Seeds that every run of the tests tries.
const SEEDS: u64 = 16;

#[test]
fn swarm_of_fixed_seeds_finds_nothing() {
    for seed in 0..SEEDS {
        let outcome = simpledynamo_actors::harness::swarm(seed);
        println!("{outcome}");
        assert!(outcome.verdict.is_ok(), "{outcome}");
    }
}

#[test]
fn failed_sync_ends_the_node_and_nothing_is_acknowledged_after_it() -> Result<(), Failure> {
    let mut t = sim(4);
    t.disk("5556").fail_sync();
    let history = t.clients(4).run(Mix::default()).operations(200)?;
    assert!(t.ended("5556").is_some());
    t.heal_and_settle()?;
    Ok(history.assert_linearizable()?)
}

#[test]
fn wiped_node_copies_everything_back() -> Result<(), Failure> {
    let mut t = sim(8);
    t.clients(4).run(Mix::default()).operations(200)?;
    t.restart("5554").wipe_disk();
    let history = t.clients(4).run(Mix::default()).operations(200)?;
    t.heal_and_settle()?;
    Ok(history.assert_linearizable()?)
}
