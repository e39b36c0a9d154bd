//! Scenarios: whole nodes, one fault each, on simulated time.

#![allow(clippy::print_stdout, reason = "figures of the swarm, for whoever looks")]

use actix::{Actor, AsyncContext};
use simpledynamo_actors::{
    harness::{
        Cluster, Config, Failure, Faults, LinkFaults, Mix, WALL_START, ms, sim,
        swarm::{Figures, swarm},
    },
    messages::{Execute, NodeHandle, Verdict},
};
use simpledynamo_protocol::{
    command::{Command, Condition, Expiry, Reply},
    history::{Operation, Outcome},
    message::{Accept, Accepted, Answer, Digests, Prepare, Query, Request},
    record::Key,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::oneshot;

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

/// A connection that breaks takes what was on it with it, and nobody is told. In simulated time.
#[test]
fn what_is_lost_on_the_way_is_asked_for_again_after_one_time_out() -> Result<(), Failure> {
    type Loss = fn(LinkFaults<'_>) -> LinkFaults<'_>;
    let losses: [(&str, Loss); 5] = [
        ("Request", |link| link.only::<Request>().drop_first(1)),
        ("Answer", |link| link.only::<Answer>().drop_first(1)),
        ("Prepare", |link| link.only::<Prepare>().drop_first(1)),
        ("Accept", |link| link.only::<Accept>().drop_first(1)),
        ("Accepted", |link| link.only::<Accepted>().drop_first(1)),
    ];
    for (name, loss) in losses {
        for seed in 30..34 {
            let mut t = sim(seed);
            t.every_link(|link| {
                loss(link);
            });
            let history = t.clients(20).run(Mix::default().keys(4)).operations(400)?;
            let took = |operation: &Operation| Some(operation.returned? - operation.call);
            let slowest = history.operations.iter().filter_map(took).max();
            // One time-out of 100 ms and what comes after it; else it would be five.
            assert!(slowest.is_some_and(|it| it < 300_000), "{name} {seed}: {slowest:?} µs");
        }
    }
    Ok(())
}

/// Seeds that every run of the tests tries.
const SEEDS: u64 = 16;

/// Seeds that nobody has tried before.
const FRESH_SEEDS: u64 = 8;

fn swarm_of(seeds: impl Iterator<Item = u64>) {
    let mut figures = Figures::default();
    for seed in seeds {
        let outcome = swarm(seed);
        assert!(outcome.verdict.is_ok(), "{outcome}");
        figures.add(&outcome);
    }
    println!("{figures}");
}

#[test]
fn swarm_of_fixed_seeds_finds_nothing() {
    swarm_of(0..SEEDS);
}

#[test]
fn swarm_of_fresh_seeds_finds_nothing() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let first = u64::try_from(since.as_millis()).unwrap_or(0) % 1_000_000_000;
    swarm_of(first..first + FRESH_SEEDS);
}

/// What the swarm once found, in `register/proposer/rounds.rs`.
#[test]
fn seed_that_read_by_an_old_acknowledgement_holds() {
    swarm_of([13].into_iter());
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

#[test]
fn paused_coordinator_costs_no_reply_elsewhere() -> Result<(), Failure> {
    let mut t = sim(21);
    t.after(ms(60), |t| t.pause("5558", ms(900)));
    let history = t.clients(6).run(Mix::default()).operations(400)?;
    t.heal_and_settle()?;
    Ok(history.assert_linearizable()?)
}

#[test]
fn cut_off_node_acknowledges_nothing_and_learns_what_it_missed() -> Result<(), Failure> {
    let mut t = sim(22);
    let owner = "5554";
    assert_eq!(t.client(owner).set("greeting", "hello")?, ok());
    t.partition(&[owner, "5556"]);
    // Three of five remain on the other side: of each key at least one replica.
    let cut = t.client(owner).set("greeting", "lost")?;
    let whole = t.client("5560").set("greeting", "kept")?;
    assert!(
        (cut == ok()) != (whole == ok()),
        "both sides of a cut took a write: {cut:?} {whole:?}"
    );
    t.heal_and_settle()?;
    let (kept, other, loser) =
        if whole == ok() { ("kept", "lost", cut) } else { ("lost", "kept", whole) };
    let seen = t.client(5554).get("greeting")?;
    // A request that waited in the network may arrive after the cut: unknown, it may still count.
    let late = loser == Outcome::Unknown && seen == value(other);
    assert!(seen == value(kept) || late, "{seen:?} after {kept} was acknowledged, {loser:?}");
    for node in [5556, 5558, 5560, 5562] {
        assert_eq!(t.client(node).get("greeting")?, seen);
    }
    Ok(())
}

#[test]
fn skewed_and_jumping_clocks_bring_no_expired_value_back() -> Result<(), Failure> {
    let mut t = sim(23);
    t.skew("5562", -3_000);
    t.skew("5558", 3_000);
    let expiry = Expiry::At(WALL_START + 30_000);
    let set =
        Command::Set { value: "short".into(), condition: Condition::Always, expiry, get: false };
    assert_eq!(t.client("5554").ask("x", set)?, ok());
    assert_eq!(t.client("5556").get("x")?, value("short"));
    t.clock().advance(ms(40_000));
    let gone = Outcome::Reply(Reply::Nil);
    for node in [5558, 5562, 5554, 5556, 5560] {
        assert_eq!(t.client(node).get("x")?, gone);
    }
    // Once gone, no slow clock finds it again.
    for node in [5554, 5556, 5558, 5560, 5562] {
        t.skew(node, -20_000);
        assert_eq!(t.client(node).get("x")?, gone);
    }
    t.heal_and_settle()
}

#[test]
fn full_disk_ends_the_node_and_room_brings_it_back() -> Result<(), Failure> {
    let mut t = sim(24);
    t.disk("5560").full();
    let history = t.clients(4).run(Mix::default()).operations(200)?;
    assert!(t.ended("5560").is_some());
    t.restart("5560").keep_disk();
    t.until_serving()?;
    t.heal_and_settle()?;
    assert!(t.ended("5560").is_none());
    Ok(history.assert_linearizable()?)
}

#[test]
fn torn_write_is_found_in_part_and_nothing_is_counted_twice() -> Result<(), Failure> {
    for seed in 25..30 {
        let mut t = Config::new(seed).start();
        for at in [100, 700, 1_300] {
            t.after(ms(at), |t| t.disk("5558").torn_write());
            t.after(ms(at + 300), |t| t.restart("5558").keep_disk());
        }
        let mix = Mix::default().keys(2).think(ms(0)..ms(30));
        let history = t.clients(8).run(mix).operations(400)?;
        t.heal_and_settle()?;
        history.assert_linearizable()?;
    }
    Ok(())
}

/// The panic of an actor is told by the run, not swallowed by actix.
#[test]
fn actor_that_dies_fails_the_run() {
    let mut t = Config::new(31).start();
    t.after(ms(20), |t| t.break_actor("5556"));
    let ended = t.clients(3).run(Mix::default()).operations(100);
    let failure = ended.expect_err("an actor died and the run went on");
    assert!(failure.to_string().contains("an actor died"), "{failure}");
    assert!(failure.to_string().contains("SEED=31"), "{failure}");
}

/// Somebody who is always busy keeps time from passing: the run fails, it does not hang.
#[test]
fn time_that_stands_still_fails_the_run() -> Result<(), Failure> {
    let config = Config::new(32).beside(|_, _, _| {
        tokio::task::spawn_local(async move {
            tokio::time::sleep(ms(1_000)).await;
            loop {
                tokio::task::yield_now().await;
            }
        });
    });
    let mut t = config.start();
    t.advance(ms(100))?;
    let failure = t.advance(ms(2_000)).expect_err("time went on");
    assert!(failure.to_string().contains("time stands still"), "{failure}");
    assert!(failure.to_string().contains("SEED=32"), "{failure}");
    Ok(())
}

/// A node that lost its store finds nothing of a key that it had acknowledged. If it said so, that and
/// what the replica says that was cut off at the time would be a quorum for "not there".
#[test]
fn learner_answers_no_query() -> Result<(), Failure> {
    for (key, workers) in (0..6).map(|number| (format!("key-{number}"), number % 2 * 3)) {
        let mut t = Config { workers, ..Config::new(4) }.start();
        let holders = t.holders(&key)?;
        let &[first, second, third] = holders.as_slice() else { panic!("{holders:?}") };
        t.partition(&[third]);
        assert_eq!(t.client(first).set(&key, "v")?, ok());
        t.link(first, second).only::<Digests>().drop(1.0);
        t.restart(second).wipe_disk();
        t.rejoin(third);
        // All peers have let it in: it serves clients, and does not vote.
        while t.client(second).get("another")? == Outcome::NotApplied {
            t.advance(ms(20))?;
        }
        t.partition(&[first]);
        let read = t.client(third).get(&key)?;
        assert_ne!(read, Outcome::Reply(Reply::Nil), "{key}, workers = {workers}");
        t.heal_and_settle()?;
        assert_eq!(t.client(third).get(&key)?, value("v"));
        t.history().assert_linearizable()?;
    }
    Ok(())
}

/// Asks once of its node, when it is told to.
struct Once {
    node: NodeHandle,
    key: &'static str,
    command: Command,
    go: Arc<AtomicBool>,
    end: Arc<Mutex<Option<Verdict>>>,
}

impl Actor for Once {
    type Context = actix::Context<Once>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(ms(1), |me, ctx| {
            if !me.go.swap(false, Ordering::Relaxed) {
                return;
            }
            let (reply, end) = oneshot::channel();
            let (key, command) = (Key::from(me.key), me.command.clone());
            me.node.execute.do_send(Execute { key, command, keep: false, reply });
            let ended = me.end.clone();
            ctx.spawn(actix::fut::wrap_future(async move {
                let verdict = end.await.ok().map(|completed| completed.verdict);
                *ended.lock().unwrap_or_else(PoisonError::into_inner) = verdict;
            }));
        });
    }
}

/// A router that is no replica holds the word of a node that then loses its store, and waits for the
/// other's. Together they would be a quorum of which one holds the value. It is told twice of the new
/// life, by the connection and before the node is welcomed; without either this fails.
#[test]
fn router_forgets_what_a_former_life_held() -> Result<(), Failure> {
    let key = "greeting";
    let holders = Config::new(5).start().holders(key)?;
    let &[first, second, third] = holders.as_slice() else { panic!("{holders:?}") };
    let all = Config::new(5).start().ids();
    let reader = all.into_iter().find(|node| !holders.contains(node)).unwrap();
    let (writes, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let shown = Arc::new(Mutex::new(None));
    let (goes, shows) = ((writes.clone(), reads.clone()), shown.clone());
    let config = Config::new(5).beside(move |node, _, settings| {
        let (go, command, end) = if settings.me == first {
            let (condition, expiry) = (Condition::Always, Expiry::Clear);
            let value = "after".into();
            let set = Command::Set { value, condition, expiry, get: false };
            (goes.0.clone(), set, Arc::default())
        } else if settings.me == reader {
            (goes.1.clone(), Command::Get, shows.clone())
        } else {
            return;
        };
        Once { node, key, command, go, end }.start();
    });
    let mut t = config.start();
    assert_eq!(t.client(first).set(key, "before")?, ok());
    t.heal_and_settle()?;
    t.cut(first, third, true);
    t.cut(third, first, true);
    t.disk(first).slow(ms(300)..ms(301));
    t.link(first, second).only::<Digests>().drop(1.0);
    t.link(reader, first).only::<Query>().delay(ms(400)..ms(401));
    t.link(reader, third).only::<Query>().drop(1.0);
    for node in [first, second, third] {
        t.link(reader, node).only::<Request>().drop(1.0);
    }
    writes.store(true, Ordering::Relaxed);
    t.advance(ms(10))?;
    assert_eq!(t.held(second, key)?.and_then(|held| held.value), Some("after".into()));
    reads.store(true, Ordering::Relaxed);
    t.advance(ms(20))?;
    t.restart(second).wipe_disk();
    for _ in 0..1_000 {
        t.advance(ms(1))?;
        if let Some(Verdict::Reply(reply)) = shown.lock().unwrap().take() {
            let held = [first, second, third].map(|node| t.held(node, key));
            let after = held.iter().flatten().flatten();
            let after = after.filter(|held| held.value == Some("after".into()));
            assert!(after.count() >= 2, "{reply:?} is shown, and held: {held:?}");
        }
    }
    t.heal_and_settle()?;
    assert_eq!(t.client(reader).get(key)?, value("after"));
    Ok(())
}
