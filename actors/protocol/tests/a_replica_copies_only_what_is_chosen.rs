//! Catching up, as a state machine between three replicas in memory: what is copied, what is
//! repaired, what is left alone, and when a replica calls itself level.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, missing_docs, dead_code, reason = "a module of several tests")]

mod stores;

use simpledynamo_protocol::{
    effect::Effects,
    message::{Ask, Message},
    record::{Key, Record},
    register::{
        acceptor::{Acceptor, Durable, Standing},
        catchup::{CatchUp, LIST_ROWS, Step},
        digest,
    },
    ring::{NodeId, Position},
    time::Time,
};
use std::collections::VecDeque;
use stores::{A, B, C, Stores, hold, live, ring, stamp, stores, tombstone};

/// Time-outs after which a replica that is not level never will be.
const WAKES_MAX: u32 = 60;

/// A's catch-up and what it did.
struct Bench {
    stores: Stores,
    catch_up: CatchUp,
    now: Time,
    asked: Vec<(NodeId, Message)>,
    installed: Vec<(Key, Record)>,
    repaired: Vec<Key>,
}

impl Bench {
    fn new(stores: Stores, learner: bool) -> Bench {
        let mut bench = Bench {
            stores,
            catch_up: CatchUp::new(A, ring(), learner, Ask::default()),
            now: Time(0),
            asked: Vec::new(),
            installed: Vec::new(),
            repaired: Vec::new(),
        };
        if learner {
            let mut out = Effects::new();
            let a = bench.stores.get_mut(&A).expect("A");
            a.acceptor = Acceptor::new(A, Durable::default(), Standing::Outside);
            a.acceptor.learn(1 << 20, &mut out);
        }
        bench
    }

    fn run(&mut self) -> Option<(u64, u64)> {
        self.run_with(|_, _, _| true)
    }

    /// Runs until level; none where that does not come. `passes` may change the stores before a
    /// message is delivered, and says whether it is.
    fn run_with(
        &mut self,
        mut passes: impl FnMut(&mut Stores, NodeId, &Message) -> bool,
    ) -> Option<(u64, u64)> {
        let mut out = Vec::new();
        self.catch_up.start(self.now, &mut out);
        for _ in 0..WAKES_MAX {
            let mut steps = VecDeque::from(std::mem::take(&mut out));
            while let Some(step) = steps.pop_front() {
                match step {
                    Step::Send { to, message } => {
                        self.asked.push((to, message.clone()));
                        if !passes(&mut self.stores, to, &message) {
                            continue;
                        }
                        let answer = self.stores.get_mut(&to).and_then(|to| to.answer(&message));
                        if let Some(answer) = answer {
                            self.catch_up.message(self.now, to, answer, &mut out);
                        }
                    }
                    Step::Install { key, record } => {
                        self.installed.push((key.clone(), record.clone()));
                        self.stores.get_mut(&A).expect("A").install(&key, record);
                    }
                    Step::Repair { key } => {
                        let held = self.stores.values().filter_map(|store| store.get(&key));
                        let state = held.max_by_key(|record| record.stamp).cloned();
                        let state = state.map(|state| {
                            let stamp = stamp((1 << 21) + 1, state.stamp.version);
                            Record { stamp, ..state }
                        });
                        self.stores.values_mut().for_each(|store| store.set(&key, state.clone()));
                        self.repaired.push(key.clone());
                        self.catch_up.repaired(self.now, &key, true, &mut out);
                    }
                    Step::Level { copied, repaired } => return Some((copied, repaired)),
                }
                steps.extend(std::mem::take(&mut out));
            }
            self.now = self.now.max(self.catch_up.next_wake()?);
            self.catch_up.wake(self.now, &mut out);
        }
        None
    }

    fn count(&self, name: &str) -> usize {
        self.asked.iter().filter(|(_, message)| message.name() == name).count()
    }

    fn held(&self, id: NodeId, key: &Key) -> Option<&Record> {
        self.stores[&id].get(key)
    }
}

fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|i| Key::from(format!("k{i}").as_str())).collect()
}

fn key() -> Key {
    Key::from("k")
}

#[test]
fn a_restarted_replica_copies_exactly_what_differs() {
    let (mut stores, keys) = (stores(), keys(300));
    for key in &keys {
        hold(&mut stores, &[A, B, C], key, &live(1, 1));
    }
    for key in &keys[..7] {
        hold(&mut stores, &[B, C], key, &live(1, 2));
    }
    let mut bench = Bench::new(stores, false);
    assert_eq!(bench.run(), Some((7, 0)));
    let mut installed: Vec<_> = bench.installed.iter().map(|(key, _)| key.clone()).collect();
    installed.sort();
    assert_eq!(installed, keys[..7]);
    assert!(keys[..7].iter().all(|key| bench.held(A, key) == Some(&live(1, 2))));
}

#[test]
fn what_is_equal_is_not_listed() {
    let mut stores = stores();
    for key in &keys(300) {
        hold(&mut stores, &[A, B, C], key, &live(1, 1));
    }
    let mut bench = Bench::new(stores, false);
    assert_eq!(bench.run(), Some((0, 0)));
    assert_eq!((bench.count("AskList"), bench.count("Fetch")), (0, 0));
}

#[test]
fn unequal_others_lead_to_a_repair_and_to_no_install() {
    let mut stores = stores();
    hold(&mut stores, &[A, B], &key(), &live(1, 1));
    hold(&mut stores, &[C], &key(), &live(2, 2));
    let mut bench = Bench::new(stores, false);
    assert_eq!(bench.run(), Some((0, 1)));
    assert_eq!((bench.repaired.len(), bench.installed.len()), (1, 0));
}

#[test]
fn an_absent_floor_is_no_vote_for_a_tombstone() {
    let mut stores = stores();
    // B has collected something, of another key; only C holds the tombstone.
    let other = Key::from("other");
    hold(&mut stores, &[B], &other, &tombstone(50, 1, 1));
    let collect = simpledynamo_protocol::message::Collect { key: other, stamp: stamp(50, 1) };
    stores.get_mut(&B).expect("B").answer(&collect.into());
    assert_eq!(stores[&B].acceptor.absent_floor(), 50);
    hold(&mut stores, &[A], &key(), &live(10, 1));
    hold(&mut stores, &[C], &key(), &tombstone(11, 2, 1));
    let mut bench = Bench::new(stores, false);
    assert_eq!(bench.run(), Some((0, 1)));
    assert!(bench.installed.is_empty(), "{:?}", bench.installed);
}

#[test]
fn a_learner_needs_both_others() {
    let mut stores = stores();
    hold(&mut stores, &[B, C], &key(), &live(1, 1));
    let mut bench = Bench::new(stores, true);
    assert_eq!(bench.run_with(|_, to, _| to != C), None);
    assert!(bench.installed.is_empty());
    let mut bench = Bench::new(std::mem::take(&mut bench.stores), true);
    assert_eq!(bench.run(), Some((1, 0)));
}

#[test]
fn a_learner_is_never_level_with_a_learner() {
    // Whether their digests differ or not.
    for holders in [&[B, C][..], &[A, B, C]] {
        let mut stores = stores();
        hold(&mut stores, holders, &key(), &live(1, 1));
        let c = &mut stores.get_mut(&C).expect("C").acceptor;
        *c = Acceptor::new(C, Durable::default(), Standing::Learner);
        assert_eq!(Bench::new(stores, true).run(), None);
    }
}

#[test]
fn a_learner_repairs_what_the_others_hold_unequally_even_if_it_holds_the_newest() {
    let mut stores = stores();
    hold(&mut stores, &[A, B], &key(), &live(2, 2));
    hold(&mut stores, &[C], &key(), &live(1, 1));
    assert_eq!(Bench::new(stores, true).run(), Some((0, 1)));
}

#[test]
fn a_bucket_of_several_pages_is_copied_whole() {
    let ring = ring();
    let place = |key: &Key| {
        let range = ring.range_of(key);
        (range, digest::bucket_of(&ring, range, Position::of(key).prefix()))
    };
    let first = place(&key());
    let count = LIST_ROWS as usize + 100;
    let all = (0u64..).map(|i| Key::from(format!("k{i}").as_str()));
    let keys: Vec<_> = all.filter(|key| place(key) == first).take(count).collect();
    let mut stores = stores();
    for key in &keys {
        hold(&mut stores, &[B, C], key, &live(1, 1));
    }
    // Pages of the two end at different places.
    stores.get_mut(&C).expect("C").rows_max = 90;
    let mut bench = Bench::new(stores, false);
    assert_eq!(bench.run(), Some((count as u64, 0)));
    assert!(keys.iter().all(|key| bench.held(A, key).is_some()));
    assert!(bench.count("AskList") > 3 * 2);
}

#[test]
fn records_that_do_not_fit_an_answer_are_asked_for_again() {
    let (mut stores, keys) = (stores(), keys(20));
    for key in &keys {
        hold(&mut stores, &[B, C], key, &live(1, 1));
    }
    stores.values_mut().for_each(|store| store.records_max = 1);
    assert_eq!(Bench::new(stores, false).run(), Some((20, 0)));
}

#[test]
fn a_record_that_moved_on_between_listing_and_fetch_is_not_installed() {
    let mut stores = stores();
    hold(&mut stores, &[B, C], &key(), &live(1, 1));
    let mut bench = Bench::new(stores, false);
    let mut moved = false;
    let level = bench.run_with(|stores, _, message| {
        if matches!(message, Message::Fetch(_)) && !moved {
            moved = true;
            // An accept that has reached only these so far: nobody knows whether it is chosen.
            hold(stores, &[B], &key(), &live(1, 2));
            hold(stores, &[C], &key(), &live(2, 2));
        }
        true
    });
    assert!(moved && bench.installed.is_empty(), "{:?}", bench.installed);
    assert_eq!(level, Some((0, 1)), "the next look finds and repairs it");
}

#[test]
fn lost_answers_are_asked_for_again() {
    for name in ["AskDigests", "AskList", "Fetch"] {
        let mut stores = stores();
        hold(&mut stores, &[B, C], &key(), &live(1, 1));
        let mut bench = Bench::new(stores, true);
        let mut lost = false;
        let level = bench.run_with(|_, to, message| {
            let lose = !lost && to != A && message.name() == name;
            lost |= lose;
            !lose
        });
        assert!(lost, "{name}");
        assert_eq!(level, Some((1, 0)), "{name}");
        assert_eq!(bench.held(A, &key()), Some(&live(1, 1)), "{name}");
    }
}

#[test]
fn level_is_told_only_once_all_owed_is_held() {
    let mut stores = stores();
    hold(&mut stores, &[B, C], &key(), &live(1, 1));
    let mut bench = Bench::new(stores, false);
    let level = bench.run_with(|_, _, message| !matches!(message, Message::Fetch(_)));
    assert_eq!((level, bench.installed.len()), (None, 0));
}

#[test]
fn with_one_other_nothing_is_copied_unseen_and_it_is_not_level() {
    let mut stores = stores();
    hold(&mut stores, &[B, C], &key(), &live(1, 1));
    let mut bench = Bench::new(stores, false);
    assert_eq!(bench.run_with(|_, to, _| to != C), None);
    assert!(bench.installed.is_empty());
}
