//! What a replica showed before it lost its store is no vote: the range it belongs to is looked at
//! again, and the pass is not called complete.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use simpledynamo_protocol::{
    message::{Ask, Message},
    register::catchup::{CatchUp, Step},
    ring::{NodeId, RangeId, Ring},
    time::Time,
};

const ME: NodeId = NodeId(5554);

fn asked(steps: &[Step]) -> Vec<RangeId> {
    let mut ranges: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Send { message: Message::AskDigests(ask), .. } => Some(ask.range),
            _ => None,
        })
        .collect();
    ranges.dedup();
    ranges
}

#[test]
fn its_range_is_given_up_and_comes_again() {
    let ring = Ring::new([5554, 5556, 5558].map(NodeId), 3);
    let ranges = ring.ranges_of(ME);
    let ask = Ask { incarnation: 1, asker: 1, n: 0 };
    let mut catch_up = CatchUp::new(ME, ring, false, ask);
    let (mut steps, now) = (Vec::new(), Time(0));
    catch_up.start(now, &mut steps);
    assert_eq!(asked(&steps), ranges[..1]);
    for range in &ranges[1..] {
        steps.clear();
        catch_up.forget(now, NodeId(5558), &mut steps);
        assert_eq!(asked(&steps), [*range]);
    }
    steps.clear();
    catch_up.forget(now, NodeId(5558), &mut steps);
    assert!(steps.is_empty(), "the pass is over, and not complete: {steps:?}");
    catch_up.wake(catch_up.next_wake().expect("another pass"), &mut steps);
    assert_eq!(asked(&steps), ranges[..1]);
}

#[test]
fn a_range_that_it_holds_no_part_of_goes_on() {
    let ids = [5554, 5556, 5558, 5560, 5562].map(NodeId);
    let ring = Ring::new(ids, 3);
    let range = ring.ranges_of(ME)[0];
    let other = ids.into_iter().find(|id| !ring.preference_list(range).contains(id));
    let mut catch_up = CatchUp::new(ME, ring, false, Ask::default());
    let mut steps = Vec::new();
    catch_up.start(Time(0), &mut steps);
    steps.clear();
    catch_up.forget(Time(0), other.expect("five nodes, three replicas"), &mut steps);
    assert!(steps.is_empty());
}
