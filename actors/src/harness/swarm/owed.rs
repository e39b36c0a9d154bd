//! What clients are owed: an operation must end with a reply unless more was broken around it than
//! three copies bear.
//!
//! Owed is a reply where, from [`MARGIN`] before the call until its end, the node asked was in order
//! and at most one replica of the key was disturbed; where no link loses messages throughout the
//! run; and where time-outs suit the network: a deadline of many request time-outs, delays well
//! below one.
//!
//! Source: register.md, "Availability": one dead, paused or cut-off replica of three, and every
//! operation still succeeds.

use super::{
    case::Case,
    fault::Fault,
    inject::{Met, replicas},
};
use crate::harness::{
    World,
    fault::{Action, micros},
    ms,
};
use simpledynamo_protocol::{
    history::{Operation, Outcome},
    ring::NodeId,
};
use std::time::Duration;

/// A disturbance counts so long after its end: connections are dialed again within half a second,
/// suspicions end with the next probe and its answer.
const MARGIN: Duration = ms(1_500);

/// Whether the links and time-outs of a case let anything be claimed.
fn claims(case: &Case) -> bool {
    let kind = |action: &Action| match action {
        Action::DropFirst(_) | Action::Drop(_) => false,
        Action::Delay(range) => Duration::from_micros(range.end) * 2 <= case.config.request_timeout,
        Action::Duplicate(_) | Action::Reorder(_) => true,
    };
    let bears = case.selected().all(|(_, planned)| match &planned.fault {
        Fault::Link { action, .. } if planned.lasts.is_none() => kind(action),
        _ => true,
    });
    bears && has_time(case)
}

/// Whether a request may be tried many times before its deadline.
pub(super) fn has_time(case: &Case) -> bool {
    case.config.deadline >= case.config.request_timeout * 20
}

/// The first operation that ended without the reply it was owed; how many were owed one.
pub(super) fn judge(
    case: &Case,
    world: &World,
    met: &Met,
    asked: &[(NodeId, Operation)],
) -> Result<u64, String> {
    if !claims(case) {
        return Ok(0);
    }
    let mut owed = 0;
    for (node, operation) in asked {
        let from = operation.call.saturating_sub(micros(MARGIN));
        let to = operation.returned.unwrap_or(u64::MAX);
        let disturbed = |node: &NodeId| met.disturbed.within(*node, from, to);
        let broken = replicas(world, &operation.key).iter().filter(|it| disturbed(it)).count();
        if disturbed(node) || broken > 1 {
            continue;
        }
        owed += 1;
        if !matches!(operation.outcome, Outcome::Reply(_)) {
            let at = Duration::from_micros(operation.call).as_secs_f64();
            return Err(format!(
                "an operation was owed a reply: at {at:.3} s node {node} was asked {} of {}, the end \
                 was: {}; {broken} of the key's replicas disturbed",
                operation.command, operation.key, operation.outcome
            ));
        }
    }
    Ok(owed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        harness::{Failure, Sim, swarm::case::Temper},
        settings::Replication,
    };
    use simpledynamo_protocol::{command::Command, record::Key};

    /// Where no fault excuses it, an operation without a reply fails the seed: so does a seed in which
    /// most end so.
    #[test]
    fn without_a_fault_nothing_may_end_without_a_reply() -> Result<(), Failure> {
        for replication in [Replication::Quorum, Replication::Chain] {
            let cases = (0..100).map(|seed| Case::draw(seed).replicated(replication));
            let quiet = |case: &Case| case.temper == Temper::Quiet && claims(case);
            let mut tried = 0;
            for case in cases.filter(quiet).take(2) {
                let t = Sim::start(case.config.clone())?;
                let node = t.ids().first().copied().unwrap_or(NodeId(0));
                for outcome in [Outcome::NotApplied, Outcome::Unknown] {
                    let (key, command) = (Key::from("k0"), Command::Get);
                    let (call, returned) = (5_000_000, Some(5_100_000));
                    let ended = Operation { client: 0, key, command, call, returned, outcome };
                    let asked = [(node, ended)];
                    let mut met = Met::default();
                    assert!(judge(&case, &t, &met, &asked).is_err(), "{case}: {asked:?}");
                    // The node itself was disturbed within the margin: nothing was owed.
                    met.disturbed.note(node, call - micros(MARGIN), call - micros(MARGIN));
                    assert_eq!(judge(&case, &t, &met, &asked), Ok(0));
                }
                tried += 1;
            }
            assert_eq!(tried, 2, "quiet cases of {}", replication.name());
        }
        Ok(())
    }
}
