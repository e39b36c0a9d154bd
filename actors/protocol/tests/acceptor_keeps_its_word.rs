//! The replica's rules, one test each: it fails when the rule is taken out of `acceptor.rs`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    effect::{Effect, Effects, Write},
    message::{Accept, Ask, Collect, Held, Message, Prepare, Promise, Query, Refused},
    recent::Recent,
    record::{Datum, Key, Record, Value},
    register::acceptor::{Acceptor, CEILING_STEP, Durable, PROMISES_MAX, Standing},
    ring::NodeId,
};

const ME: NodeId = NodeId(5554);
const A: NodeId = NodeId(5556);
const B: NodeId = NodeId(5558);

/// A replica of one key, whose writes are durable at once.
struct Replica {
    acceptor: Acceptor,
    stored: Option<Record>,
    durable: Durable,
}

impl Replica {
    fn new(standing: Standing) -> Replica {
        let durable = Durable::default();
        Replica { acceptor: Acceptor::new(ME, durable, standing), stored: None, durable }
    }

    fn voter() -> Replica {
        Replica::new(Standing::Voter)
    }

    fn act(&mut self, act: impl FnOnce(&mut Acceptor, Option<&Record>, &mut Effects)) -> Effects {
        let mut effects = Effects::new();
        act(&mut self.acceptor, self.stored.clone().as_ref(), &mut effects);
        for effect in &effects {
            match effect {
                Effect::Persist(Write::Put(_, record)) => self.stored = Some(record.clone()),
                Effect::Persist(Write::Remove(_)) => self.stored = None,
                Effect::Persist(Write::Ceiling(ceiling)) => self.durable.ceiling = *ceiling,
                Effect::Persist(Write::AbsentFloor(floor)) => self.durable.absent_floor = *floor,
                Effect::Persist(Write::Config(..) | Write::Seat(..)) => {}
                Effect::Send { .. }
                | Effect::Begin { .. }
                | Effect::List { .. }
                | Effect::Note(_) => {}
            }
        }
        effects
    }

    fn prepare(&mut self, ballot: Ballot) -> Effects {
        let ask = Prepare { key: key(), ballot };
        self.act(|acceptor, stored, out| acceptor.prepare(ballot.node, &ask, stored, out))
    }

    fn accept(&mut self, record: Record) -> Effects {
        let (from, ask) = (record.stamp.ballot.node, Accept { key: key(), record });
        self.act(|acceptor, stored, out| acceptor.accept(from, ask, stored, out))
    }

    fn begin(&mut self, above: u64) -> Effects {
        self.act(|acceptor, stored, out| acceptor.begin(&key(), above, stored, out))
    }

    fn install(&mut self, record: Record) -> Effects {
        self.act(|acceptor, stored, out| acceptor.install(key(), record, stored, out))
    }

    fn query(&mut self, have: Option<Stamp>) -> Effects {
        let ask = Query { key: key(), ask: Ask::default(), have };
        self.act(|acceptor, stored, out| acceptor.query(A, &ask, stored, out))
    }

    fn collect(&mut self, stamp: Stamp) -> Effects {
        let ask = Collect { key: key(), stamp };
        self.act(|acceptor, stored, out| acceptor.collect(&ask, stored, out))
    }

    fn restart(&mut self) {
        self.acceptor = Acceptor::new(ME, self.durable, Standing::Voter);
    }

    fn promise(&self) -> Ballot {
        self.acceptor.promised(&key(), self.stored.as_ref())
    }
}

fn key() -> Key {
    Key::from("x")
}

fn ballot(round: u64, node: NodeId) -> Ballot {
    Ballot { round, node }
}

fn state(ballot: Ballot, version: u64) -> Record {
    let datum = Datum::Live { value: Value::from("v"), expires_at: None };
    Record { stamp: Stamp { ballot, version }, datum, recent: Recent::default() }
}

fn tombstone(ballot: Ballot, version: u64) -> Record {
    Record { datum: Datum::Tombstone { at: 0 }, ..state(ballot, version) }
}

fn answer(effects: &Effects) -> &Message {
    let Some(Effect::Send { message, .. }) = effects.last() else { panic!("{effects:?}") };
    message
}

fn names(effects: &Effects) -> Vec<&'static str> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Persist(Write::Put(..)) => "put",
            Effect::Persist(Write::Remove(_)) => "remove",
            Effect::Persist(Write::Ceiling(_)) => "ceiling",
            Effect::Persist(Write::AbsentFloor(_)) => "absent floor",
            Effect::Persist(Write::Config(..) | Write::Seat(..)) => "chain",
            Effect::Send { message, .. } => message.name(),
            Effect::Begin { .. } => "begin",
            Effect::List { .. } | Effect::Note(_) => "note",
        })
        .collect()
}

#[test]
fn the_ceiling_is_raised_before_the_promise_and_a_step_ahead() {
    let mut replica = Replica::voter();
    assert_eq!(names(&replica.prepare(ballot(1, A))), ["ceiling", "Promise"]);
    assert_eq!(replica.durable.ceiling, 1 + CEILING_STEP);
    assert_eq!(names(&replica.prepare(ballot(2, A))), ["Promise"], "there is room");
    assert_eq!(names(&replica.prepare(ballot(2 + CEILING_STEP, A))), ["ceiling", "Promise"]);
}

#[test]
fn only_a_higher_ballot_or_that_very_promise_is_promised() {
    let mut replica = Replica::voter();
    replica.prepare(ballot(2, A));
    assert_eq!(names(&replica.prepare(ballot(2, A))), ["Promise"], "a copy of the question");
    let refused = Refused { key: key(), asked: ballot(1, B), promised: ballot(2, A) };
    assert_eq!(answer(&replica.prepare(ballot(1, B))), &Message::Refused(refused));
    assert_eq!(names(&replica.prepare(ballot(2, B))), ["Promise"]);
    assert_eq!(names(&replica.prepare(ballot(2, A))), ["Refused"], "it stands no more");
}

#[test]
fn the_ballot_of_the_stored_record_is_a_promise_but_not_one_to_prepare() {
    let mut replica = Replica::voter();
    replica.accept(state(ballot(3, A), 1));
    assert_eq!(replica.promise(), ballot(3, A));
    assert_eq!(names(&replica.prepare(ballot(3, A))), ["Refused"]);
}

#[test]
fn a_promise_shows_what_is_held() {
    let mut replica = Replica::voter();
    replica.accept(state(ballot(1, A), 4));
    let expected =
        Promise { key: key(), ballot: ballot(2, B), record: Some(state(ballot(1, A), 4)) };
    assert_eq!(answer(&replica.prepare(ballot(2, B))), &Message::Promise(expected));
}

#[test]
fn an_accept_below_the_promise_is_refused() {
    let mut replica = Replica::voter();
    replica.prepare(ballot(2, B));
    assert_eq!(names(&replica.accept(state(ballot(2, A), 1))), ["Refused"]);
    assert_eq!(replica.stored, None);
    assert_eq!(names(&replica.accept(state(ballot(2, B), 1))), ["put", "Accepted"]);
    assert_eq!(replica.promise(), ballot(2, B));
}

#[test]
fn what_the_same_owner_wrote_earlier_is_answered_and_not_stored() {
    let mut replica = Replica::voter();
    replica.accept(state(ballot(1, A), 5));
    assert_eq!(names(&replica.accept(state(ballot(1, A), 4))), ["Accepted"]);
    assert_eq!(names(&replica.accept(state(ballot(1, A), 5))), ["Accepted"]);
    assert_eq!(replica.stored, Some(state(ballot(1, A), 5)));
}

#[test]
fn a_higher_ballot_is_stored_though_its_version_is_smaller() {
    let mut replica = Replica::voter();
    replica.accept(state(ballot(1, A), 5));
    assert_eq!(names(&replica.accept(state(ballot(2, B), 3))), ["put", "Accepted"]);
}

#[test]
fn after_a_restart_no_round_up_to_the_ceiling_passes() {
    let mut replica = Replica::voter();
    replica.prepare(ballot(7, B));
    replica.restart();
    let ceiling = replica.durable.ceiling;
    assert_eq!(names(&replica.accept(state(ballot(6, A), 1))), ["Refused"]);
    assert_eq!(names(&replica.prepare(ballot(ceiling, B))), ["Refused"]);
    assert_eq!(names(&replica.prepare(ballot(ceiling + 1, A))), ["ceiling", "Promise"]);
}

#[test]
fn a_ballot_of_its_own_is_new_in_every_life() {
    let mut replica = Replica::voter();
    let mut last = Ballot::ZERO;
    for above in [0, 0, 9, 0] {
        let effects = replica.begin(above);
        let Message::Promise(promise) = answer(&effects) else { panic!("{effects:?}") };
        assert!(promise.ballot > last && promise.ballot.round > above);
        assert_eq!(promise.ballot.node, ME);
        last = promise.ballot;
    }
    let ceiling = replica.durable.ceiling;
    replica.restart();
    let effects = replica.begin(0);
    let Message::Promise(promise) = answer(&effects) else { panic!("{effects:?}") };
    assert!(promise.ballot.round > ceiling && ceiling >= last.round);
}

#[test]
fn no_two_keys_share_a_round() {
    let mut replica = Replica::voter();
    let mut out = Effects::new();
    replica.begin(4);
    replica.acceptor.begin(&Key::from("y"), 0, None, &mut out);
    let Message::Promise(promise) = answer(&out) else { panic!("{out:?}") };
    assert_eq!(promise.ballot, ballot(6, ME));
}

#[test]
fn a_ballot_of_its_own_is_above_what_it_promised_others() {
    let mut replica = Replica::voter();
    replica.prepare(ballot(40, A));
    let effects = replica.begin(0);
    let Message::Promise(promise) = answer(&effects) else { panic!("{effects:?}") };
    assert_eq!(promise.ballot, ballot(41, ME));
}

#[test]
fn outside_nothing_is_stored_and_nothing_is_voted() {
    let mut replica = Replica::new(Standing::Outside);
    assert_eq!(names(&replica.prepare(ballot(1, A))), ["NoVote"]);
    assert_eq!(names(&replica.accept(state(ballot(1, A), 1))), ["NoVote"]);
    assert_eq!(names(&replica.begin(0)), ["NoVote"]);
    assert_eq!(names(&replica.query(None)), ["NoVote"]);
    assert!(replica.install(state(ballot(1, A), 1)).is_empty());
}

#[test]
fn a_learner_stores_above_its_floor_and_does_not_vote() {
    let mut replica = Replica::new(Standing::Outside);
    let entered = replica.act(|acceptor, _, out| acceptor.learn(10, out));
    assert_eq!(names(&entered), ["ceiling"], "its floor outlives the next restart");
    assert!(replica.durable.ceiling >= 10);
    assert_eq!(names(&replica.accept(state(ballot(10, A), 1))), ["Refused"]);
    assert_eq!(names(&replica.accept(state(ballot(11, A), 1))), ["put", "NoVote"]);
    assert_eq!(names(&replica.prepare(ballot(12, A))), ["NoVote"]);
    assert_eq!(names(&replica.begin(0)), ["NoVote"]);
    assert_eq!(names(&replica.query(None)), ["NoVote"]);
    assert_eq!(names(&replica.install(state(ballot(11, A), 2))), ["put"]);
    replica.acceptor.vote();
    assert_eq!(names(&replica.query(None)), ["State"]);
    let effects = replica.begin(0);
    let Message::Promise(promise) = answer(&effects) else { panic!("{effects:?}") };
    assert!(promise.ballot.round > 11);
}

#[test]
fn a_query_is_answered_with_what_the_asker_lacks() {
    let held = |effects: &Effects| match answer(effects) {
        Message::State(state) => state.held.clone(),
        other => panic!("{other}"),
    };
    let mut replica = Replica::voter();
    assert_eq!(held(&replica.query(None)), Held::Nothing);
    let record = state(ballot(1, A), 1);
    replica.accept(record.clone());
    assert_eq!(held(&replica.query(None)), Held::Record(record.clone()));
    assert_eq!(held(&replica.query(Some(record.stamp))), Held::Same(record.stamp));
    let other = Stamp { version: 2, ..record.stamp };
    assert_eq!(held(&replica.query(Some(other))), Held::Record(record));
}

#[test]
fn a_chosen_record_is_installed_whatever_is_promised_and_the_promise_stays() {
    let mut replica = Replica::voter();
    replica.prepare(ballot(9, B));
    assert_eq!(names(&replica.install(state(ballot(1, A), 1))), ["put"]);
    assert_eq!(replica.promise(), ballot(9, B));
    assert!(replica.install(state(ballot(1, A), 1)).is_empty(), "it is held already");
    assert!(replica.install(state(ballot(0, A), 7)).is_empty(), "what is held is newer");
}

#[test]
fn only_the_very_tombstone_is_collected() {
    let mut replica = Replica::voter();
    let dead = tombstone(ballot(3, A), 2);
    assert!(replica.collect(dead.stamp).is_empty(), "nothing is held");
    replica.accept(state(ballot(3, A), 1));
    assert!(replica.collect(Stamp { version: 1, ..dead.stamp }).is_empty(), "it is alive");
    replica.accept(dead.clone());
    assert!(replica.collect(Stamp { version: 1, ..dead.stamp }).is_empty(), "another state");
    assert_eq!(names(&replica.collect(dead.stamp)), ["absent floor", "remove"]);
}

#[test]
fn where_a_tombstone_was_collected_its_round_is_over_in_the_next_life_too() {
    let mut replica = Replica::voter();
    let dead = tombstone(ballot(3, A), 2);
    replica.accept(dead.clone());
    replica.collect(dead.stamp);
    for _ in 0..2 {
        assert_eq!(replica.promise(), Ballot::last_of(3));
        assert_eq!(names(&replica.accept(state(ballot(3, A), 1))), ["Refused"]);
        assert!(replica.install(dead.clone()).is_empty(), "it would be collected again");
        replica.restart();
    }
    assert_eq!(names(&replica.accept(state(ballot(4, A), 1))), ["put", "Accepted"]);
}

#[test]
fn promises_that_no_longer_fit_are_kept_by_the_floor() {
    let mut replica = Replica::voter();
    let mut out = Effects::new();
    for n in 0..=PROMISES_MAX {
        let key = Key::from(format!("k{n}").as_str());
        let ask = Prepare { key, ballot: ballot(5 + n as u64, A) };
        replica.acceptor.prepare(A, &ask, None, &mut out);
    }
    let last = 5 + PROMISES_MAX as u64;
    let forgotten = replica.acceptor.promised(&Key::from("k0"), None);
    assert!(forgotten >= ballot(5, A), "{forgotten}");
    let kept = replica.acceptor.promised(&Key::from(format!("k{PROMISES_MAX}").as_str()), None);
    assert_eq!(kept, ballot(last, A), "the newest is still exact");
}
