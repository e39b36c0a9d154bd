//! The sweep, as a state machine between three replicas in memory: which tombstones are collected,
//! and that expired keys are read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, missing_docs, dead_code, reason = "a module of several tests")]

mod stores;

use simpledynamo_protocol::{
    message::{Ask, Message},
    record::{Datum, Key, Record, Value},
    register::{
        acceptor::{Acceptor, Durable, Standing},
        sweep::{ROUND_EVERY, Step, Sweep},
    },
    ring::NodeId,
    time::{Now, Time},
};
use std::{collections::VecDeque, time::Duration};
use stores::{A, B, C, Stores, hold, live, ring, stores, tombstone};

const GRACE: Duration = Duration::from_secs(3_600);

/// When the sweep begins; [`OLD`] is just past the grace period, [`YOUNG`] just within.
const WALL: u64 = 1_700_000_000_000;
const OLD: u64 = WALL - 3_600_001;
const YOUNG: u64 = WALL - 3_500_000;

fn key() -> Key {
    Key::from("k")
}

/// Runs some rounds at the node that sweeps the key; gives the keys read as expired.
fn sweep(stores: &mut Stores, passes: impl Fn(u64, NodeId, &Message) -> bool) -> Vec<Key> {
    const ROUNDS: u64 = 4;
    let me = ring().replicas_of(&key())[0];
    let mut sweep = Sweep::new(me, ring(), GRACE, Ask::default()).expect("a node of the ring");
    let (mut out, mut expired) = (Vec::new(), Vec::new());
    let end = Time(0) + ROUND_EVERY * u32::try_from(ROUNDS).expect("few");
    let round = u64::try_from(ROUND_EVERY.as_micros()).expect("short");
    while sweep.next_wake() < end {
        let mono = sweep.next_wake();
        let now = Now { mono, wall: WALL };
        sweep.wake(now, &mut out);
        let mut steps = VecDeque::from(std::mem::take(&mut out));
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Send { to, message } if passes(mono.0 / round, to, &message) => {
                    let answer = stores.get_mut(&to).and_then(|to| to.answer(&message));
                    if let Some(Message::Listed(listed)) = answer {
                        sweep.message(now, to, listed, &mut out);
                    }
                }
                Step::Send { .. } => {}
                Step::Expire { key } => expired.push(key),
            }
            steps.extend(std::mem::take(&mut out));
        }
    }
    expired
}

fn holders(stores: &Stores) -> Vec<NodeId> {
    [A, B, C].into_iter().filter(|id| stores[id].get(&key()).is_some()).collect()
}

#[test]
fn an_old_tombstone_that_all_hold_is_collected() {
    let mut stores = stores();
    hold(&mut stores, &[A, B, C], &key(), &tombstone(4, 2, OLD));
    sweep(&mut stores, |_, _, _| true);
    assert!(holders(&stores).is_empty());
    assert!(stores.values().all(|store| store.acceptor.absent_floor() == 4));
}

#[test]
fn a_young_one_is_not() {
    let mut stores = stores();
    hold(&mut stores, &[A, B, C], &key(), &tombstone(4, 2, YOUNG));
    sweep(&mut stores, |_, _, _| true);
    assert_eq!(holders(&stores), [A, B, C]);
}

#[test]
fn one_that_a_replica_does_not_hold_or_that_does_not_answer_stays() {
    for other in [None, Some(live(3, 1)), Some(tombstone(3, 2, OLD)), Some(live(5, 3))] {
        let mut stores = stores();
        hold(&mut stores, &[A, B, C], &key(), &tombstone(4, 2, OLD));
        let last = ring().replicas_of(&key())[2];
        stores.get_mut(&last).expect("the third").set(&key(), other.clone());
        sweep(&mut stores, |_, _, _| true);
        let unmoved = 2 + usize::from(other.is_some());
        assert_eq!(holders(&stores).len(), unmoved, "{other:?}");
    }
    let mut stores = stores();
    hold(&mut stores, &[A, B, C], &key(), &tombstone(4, 2, OLD));
    let last = ring().replicas_of(&key())[2];
    sweep(&mut stores, |_, to, _| to != last);
    assert_eq!(holders(&stores), [A, B, C]);
}

#[test]
fn what_a_learner_holds_proves_nothing() {
    let mut stores = stores();
    hold(&mut stores, &[A, B, C], &key(), &tombstone(4, 2, OLD));
    let last = ring().replicas_of(&key())[2];
    let learner = Acceptor::new(last, Durable::default(), Standing::Learner);
    stores.get_mut(&last).expect("the third").acceptor = learner;
    sweep(&mut stores, |_, _, _| true);
    assert_eq!(holders(&stores), [A, B, C]);
}

#[test]
fn a_replica_that_missed_the_word_collects_in_a_later_round() {
    for missed in [0, 1, 2] {
        let mut stores = stores();
        hold(&mut stores, &[A, B, C], &key(), &tombstone(4, 2, OLD));
        let one = ring().replicas_of(&key())[missed];
        sweep(&mut stores, |round, to, message| {
            !(round == 0 && to == one && matches!(message, Message::Collect(_)))
        });
        assert!(holders(&stores).is_empty(), "replica {missed}");
    }
}

#[test]
fn the_own_row_goes_last() {
    let mut stores = stores();
    hold(&mut stores, &[A, B, C], &key(), &tombstone(4, 2, OLD));
    let [me, second, third] = ring().replicas_of(&key())[..] else { panic!("three") };
    sweep(&mut stores, |round, to, message| {
        !(round < 4 && to == third && matches!(message, Message::Collect(_)))
    });
    let mut left = vec![me, third];
    left.sort();
    assert_eq!(holders(&stores), left, "{second} has forgotten it");
}

#[test]
fn expired_keys_are_read_and_no_others() {
    let mut stores = stores();
    let expires = |at| Record {
        datum: Datum::Live { value: Value::from("v"), expires_at: Some(at) },
        ..live(1, 1)
    };
    hold(&mut stores, &[A, B, C], &key(), &expires(WALL));
    assert_eq!(sweep(&mut stores, |_, _, _| true), vec![key(); 4], "once a round");
    hold(&mut stores, &[A, B, C], &key(), &expires(WALL + 1));
    assert!(sweep(&mut stores, |_, _, _| true).is_empty());
}
