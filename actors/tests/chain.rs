//! Chains: whole nodes, the faults that chain replication is about, on simulated time.

use simpledynamo_actors::{
    harness::{Cluster, Config, Failure, Faults, Mix, Sim, ms},
    settings::Replication,
};
use simpledynamo_protocol::{chain::wire::Forward, command::Reply, history::Outcome};

fn config(seed: u64) -> Config {
    Config { replication: Replication::Chain, ..Config::new(seed) }
}

fn chains(seed: u64) -> Sim {
    config(seed).start()
}

fn value(text: &str) -> Outcome {
    Outcome::Reply(Reply::Bulk(text.into()))
}

#[test]
fn what_one_node_took_another_gives() -> Result<(), Failure> {
    let mut t = chains(1);
    assert_eq!(t.client("5554").set("greeting", "hello")?, Outcome::Reply(Reply::Ok));
    assert_eq!(t.client("5562").get("greeting")?, value("hello"));
    t.heal_and_settle()
}

#[test]
fn any_node_may_die_and_come_back() -> Result<(), Failure> {
    for (seed, node) in ["5554", "5556", "5558", "5560", "5562"].into_iter().enumerate() {
        let mut t = chains(seed as u64);
        t.after(ms(100), move |t| t.crash(node));
        t.after(ms(1_500), move |t| t.restart(node).keep_disk());
        let history = t.clients(8).run(Mix::default()).operations(600)?;
        t.heal_and_settle()?;
        history.assert_linearizable()?;
    }
    Ok(())
}

#[test]
fn head_dies_before_its_write_is_passed_on_and_after() -> Result<(), Failure> {
    for nth in 1..6 {
        let mut t = chains(nth);
        t.crash_when(move |e| e.sent::<Forward>().nth(10 * nth));
        let history = t.clients(6).run(Mix::default().keys(3)).operations(300)?;
        t.heal_and_settle()?;
        history.assert_linearizable()?;
    }
    Ok(())
}

#[test]
fn tail_dies_before_it_answers() -> Result<(), Failure> {
    for nth in 1..6 {
        let mut t = chains(nth);
        t.crash_when(move |e| e.received::<Forward>().nth(10 * nth));
        let history = t.clients(6).run(Mix::default().keys(3)).operations(300)?;
        t.heal_and_settle()?;
        history.assert_linearizable()?;
    }
    Ok(())
}

/// The chain goes on without it; when it wakes up, the reads before it are not answered from what it
/// held ten seconds ago. `FROM` and `COUNT` try other seeds.
#[test]
fn tail_paused_for_ten_seconds_never_answers_stale() -> Result<(), Failure> {
    let number = |name, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let from = number("FROM", 0_u64);
    for seed in from..from + number("COUNT", 10) {
        let mut t = chains(seed);
        for (after, node) in [(100, "5554"), (11_000, "5560"), (22_000, "5558")] {
            t.after(ms(after), move |t| t.pause(node, ms(10_000)));
        }
        let history = t.clients(8).run(Mix::default().keys(6)).operations(3_000)?;
        t.heal_and_settle()?;
        history.assert_linearizable()?;
    }
    Ok(())
}

/// All keys are listed, and each of a tail that slept is listed as it is now.
#[test]
fn tail_that_slept_lists_nothing_stale() -> Result<(), Failure> {
    let mut t = chains(14);
    for n in 0..40 {
        t.client("5554").set(&format!("old-{n}"), "v")?;
    }
    t.suspend("5560");
    for n in 0..40 {
        assert_eq!(t.client("5554").del(&format!("old-{n}"))?, Outcome::Reply(Reply::Int(1)));
        t.client("5554").set(&format!("new-{n}"), "v")?;
    }
    let listed = t.all("5562")?;
    assert_eq!(listed.len(), 40, "while it sleeps: {listed:?}");
    // Nobody has told it anything yet when it wakes up and is asked.
    t.resume("5560");
    let listed = t.all("5560")?;
    assert!(listed.len() == 40 && listed.keys().all(|key| key.starts_with("new-")), "{listed:?}");
    t.heal_and_settle()
}

/// Links of a node slower than a confirmation is waited for, and than members are asked again, but
/// not so slow that it is shut out: late answers count, whatever its place in a chain is.
#[test]
fn slow_node_is_waited_for() -> Result<(), Failure> {
    for (seed, late) in [(0, 15), (1, 30), (2, 45), (3, 60), (4, 75), (5, 90), (6, 150)] {
        let mut t = chains(seed);
        for other in ["5554", "5556", "5558", "5562"] {
            t.latency("5560", other, ms(late)..ms(late + 5));
            t.latency(other, "5560", ms(late)..ms(late + 5));
        }
        let elsewhere = ["5554", "5556", "5558", "5562"].into_iter().cycle();
        for (n, node) in elsewhere.take(60).enumerate() {
            let key = format!("slow-{n}");
            let said = t.client(node).set(&key, "v")?;
            assert_eq!(said, Outcome::Reply(Reply::Ok), "SET {key} at {node}, {late} ms late");
            assert_eq!(
                t.client(node).get(&key)?,
                value("v"),
                "GET {key} at {node}, {late} ms late"
            );
        }
        t.heal_and_settle()?;
    }
    Ok(())
}

/// More keys of a range are written between two passes of its copy than are few.
#[test]
fn node_joins_while_every_key_is_written() -> Result<(), Failure> {
    let mut t = chains(15);
    t.clients(40).run(Mix::default().keys(400).think(ms(0)..ms(5))).start();
    t.progress(2_000)?;
    t.pause("5562", ms(1_000));
    t.advance(ms(2_000))?;
    t.until_serving()?;
    let history = t.finish()?;
    t.heal_and_settle()?;
    Ok(history.assert_linearizable()?)
}

#[test]
fn wiped_node_joins_anew() -> Result<(), Failure> {
    let mut t = chains(8);
    t.clients(4).run(Mix::default()).operations(200)?;
    t.restart("5554").wipe_disk();
    let history = t.clients(4).run(Mix::default()).operations(400)?;
    t.heal_and_settle()?;
    Ok(history.assert_linearizable()?)
}

/// Whatever a life that copies everything back has come to when it ends, the next one goes on to
/// serve: also where nothing was left to do but to write down that it is done.
#[test]
fn node_that_dies_while_it_joins_anew_goes_on() -> Result<(), Failure> {
    let mut t = chains(16);
    for n in 0..20 {
        t.client("5556").set(&format!("k{n}"), "v")?;
    }
    for millis in 0.. {
        t.restart("5554").wipe_disk();
        t.advance(ms(millis))?;
        if t.all_vote() {
            break;
        }
        // Of a commit under way all may be found, a part, or nothing.
        t.restart("5554").keep_disk();
        t.until_serving()?;
    }
    t.heal_and_settle()
}

#[test]
fn cut_off_node_comes_back() -> Result<(), Failure> {
    for seed in 0..4 {
        let mut t = chains(seed);
        t.after(ms(100), |t| {
            t.partition(&["5560"]);
        });
        t.after(ms(3_000), |t| t.heal());
        let history = t.clients(6).run(Mix::default()).operations(600)?;
        t.heal_and_settle()?;
        history.assert_linearizable()?;
    }
    Ok(())
}

/// It hears nobody, so it fears that all others are gone, and they hear what it proposes.
#[test]
fn deaf_node_shuts_nobody_out() -> Result<(), Failure> {
    let mut t = chains(12);
    // Its joins are the last changes of its chains: it may write to their registers at once.
    t.after(ms(100), |t| t.pause("5560", ms(600)));
    let history = t.clients(8).run(Mix::default().keys(40)).operations(1_500)?;
    history.assert_linearizable()?;
    t.until_serving()?;
    t.partition(&["5554", "5556", "5558", "5562"]).one_way();
    t.clients(5).run(Mix::default().keys(40)).operations(400)?;
    for n in 0..40 {
        let said = t.client("5554").set(&format!("deaf-{n}"), "v")?;
        assert_eq!(said, Outcome::Reply(Reply::Ok), "deaf-{n}");
    }
    t.heal_and_settle()
}

/// With two of a key's three nodes gone the chain stops, and says that nothing was applied.
#[test]
fn one_of_three_says_that_it_cannot() -> Result<(), Failure> {
    let mut t = chains(9);
    // Of five nodes two are gone: every range that has both is left with one.
    for node in ["5554", "5558"] {
        t.crash(node);
    }
    let history = t.clients(6).run(Mix::default().keys(40)).operations(400)?;
    let refused = |outcome: &Outcome| *outcome == Outcome::NotApplied;
    assert!(history.operations.iter().any(|operation| refused(&operation.outcome)));
    assert_eq!(t.client("5556").get("x")?, t.client("5560").get("x")?);
    t.restart("5554").keep_disk();
    t.restart("5558").keep_disk();
    t.heal_and_settle()?;
    Ok(history.assert_linearizable()?)
}

/// Messages of this type that have left a node.
fn sent(t: &Sim, name: &str) -> usize {
    // Arrivals are indented.
    let sent = |line: &&String| line.get(12..).is_some_and(|rest| !rest.starts_with(' '));
    let named = |line: &&String| line.split(' ').any(|word| word == name);
    t.messages().iter().filter(sent).filter(named).count()
}

/// In a chain of three a write is passed on twice and answered once; a read goes to the tail, which
/// asks one other node, once for all that wait.
#[test]
fn messages_of_a_write_and_of_a_read() -> Result<(), Failure> {
    const EACH: usize = 60;
    let mut t = Config { keep_log: true, ..config(10) }.start();
    t.advance(ms(1_000))?;
    for n in 0..EACH {
        t.client("5554").set(&format!("k{n}"), "v")?;
    }
    assert_eq!(sent(&t, "Forward"), 2 * EACH);
    // Where the tail is the asking node itself no answer travels.
    assert!(sent(&t, "Answer") <= EACH);
    assert_eq!(sent(&t, "Confirm"), 0);
    for n in 0..EACH {
        t.client("5554").get(&format!("k{n}"))?;
    }
    assert_eq!(sent(&t, "Forward"), 2 * EACH, "a read passes nothing on");
    assert_eq!(sent(&t, "Confirm"), EACH);
    assert_eq!(sent(&t, "Confirmed"), EACH);
    Ok(())
}

/// A busy tail asks once for many reads.
#[test]
fn reads_share_confirmations() -> Result<(), Failure> {
    let mut t = Config { keep_log: true, ..config(11) }.start();
    let history = t.clients(40).run(Mix::default().keys(1)).operations(2_000)?;
    let reads = history.operations.iter().filter(|it| it.command.is_read()).count();
    let asked = sent(&t, "Confirm");
    println!("{reads} reads, {asked} confirmations");
    assert!(reads > 200 && asked * 2 < reads, "{reads} reads, {asked} confirmations");
    Ok(())
}

/// A node that hears nobody asks for nothing it cannot get, and time goes on: past the end of its
/// connections and of what others believe of it.
#[test]
fn time_passes_on_an_idle_ring_with_a_node_cut_off() -> Result<(), Failure> {
    for seed in 0..3 {
        for node in ["5554", "5558", "5562"] {
            let mut t = chains(seed);
            t.partition(&[node]);
            t.advance(ms(10))?;
            t.advance(ms(20_000))?;
            t.heal();
            t.until_serving()?;
        }
    }
    Ok(())
}
