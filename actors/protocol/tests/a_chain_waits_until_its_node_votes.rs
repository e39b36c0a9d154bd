//! What seats that were kept say of a node that does not vote, and what becomes of them when it does.

use simpledynamo_protocol::{
    chain::{Chain, Kept, Settings},
    effect::{Effect, Effects, Write},
    register::acceptor::{Durable, Standing},
    ring::{NodeId, Ring},
    time::Time,
};
use std::time::Duration;

const ME: NodeId = NodeId(5554);

fn ring() -> Ring {
    Ring::new([ME, NodeId(5556), NodeId(5558)], 3)
}

fn chain(kept: &Kept, standing: Standing) -> Chain {
    let request_timeout = Duration::from_millis(100);
    let settings = Settings { me: ME, ring: ring(), request_timeout, value_bytes_max: 64 };
    Chain::new(settings, 2, Durable::default(), kept, standing, Time::default())
}

fn seats(effects: &Effects) -> usize {
    let is_seat = |effect: &&Effect| matches!(effect, Effect::Persist(Write::Seat(..)));
    effects.iter().filter(is_seat).count()
}

#[test]
fn only_a_voter_is_level() {
    let kept = Kept::first(&ring(), ME);
    assert!(chain(&kept, Standing::Voter).is_level());
    let mut learner = chain(&kept, Standing::Outside);
    assert!(!learner.is_level());
    // A later life goes on with the seats of an earlier one.
    learner.learn(Time::default(), 0, true, &mut Effects::new());
    assert!(!learner.is_level());
}

#[test]
fn a_learner_votes_when_it_has_learned_and_not_when_it_is_told() {
    let mut learner = chain(&Kept::default(), Standing::Outside);
    learner.learn(Time::default(), 0, false, &mut Effects::new());
    let mut effects = Effects::new();
    learner.vote(&mut effects);
    assert_eq!((learner.standing(), seats(&effects)), (Standing::Learner, 0));
}

#[test]
fn admission_completes_first_seats_and_puts_none_back() {
    let mut kept = Kept::first(&ring(), ME);
    let mut ranges = kept.seats.keys().copied().collect::<Vec<_>>().into_iter();
    let (Some(later), Some(missing)) = (ranges.next(), ranges.next()) else {
        panic!("three ranges");
    };
    kept.seats.remove(&missing);
    let moved = kept.seats.get_mut(&later).map(|seat| {
        seat.config = seat.config.keeping(|node| node != NodeId(5556));
        seat.clone()
    });
    let mut node = chain(&kept, Standing::Outside);
    let mut effects = Effects::new();
    node.vote(&mut effects);
    assert_eq!((node.standing(), seats(&effects)), (Standing::Voter, 1));
    assert_eq!(node.seat(later), moved.as_ref());
    assert_eq!(node.seat(missing), Kept::first(&ring(), ME).seats.get(&missing));
}
