//! Linearizability of a key whose values expire: no history tells what the coordinator's clock
//! showed, so the state is the set of all contents possible, each operation with every time that
//! its coordinator may have seen between call and return, clock skew included.
//!
//! Caveat: a set of contents allows none of the search's short cuts, so this is for some hundred
//! operations a key; [`super::check`] leaves such keys unchecked.

use super::{
    VALUE_BYTES_MAX,
    search::{Answer, End, Makes, Model, Timed, search},
};
use crate::{
    command::{Command, Context, Expiry, Reply, apply},
    history::{Operation, Outcome},
    record::{Datum, Value},
    time::WallMillis,
};
use std::collections::BTreeSet;

/// Configurations after which a search gives up.
const LIMIT: usize = 1_000_000;

#[derive(PartialEq)]
struct Asked {
    command: Command,
    reply: Option<Reply>,
    /// What clocks may have shown, milliseconds.
    from: u64,
    to: u64,
}

type Content = Option<(Value, Option<u64>)>;

struct Expiring;

impl Model for Expiring {
    type Op = Asked;
    type State = BTreeSet<Content>;

    fn initial(&self) -> Self::State {
        BTreeSet::from([None])
    }

    fn step(&self, state: &Self::State, op: &Asked) -> Option<Self::State> {
        let mut next = BTreeSet::new();
        for content in state {
            let stamp = content.as_ref().and_then(|(_, at)| *at);
            let own = match op.command {
                Command::Set { expiry: Expiry::At(at), .. } => Some(at),
                _ => None,
            };
            // Only whether a stamp has passed matters: one time on each side of each.
            let edges = [stamp, own].into_iter().flatten().flat_map(|at| [at - 1, at]);
            let walls = edges.chain([op.from, op.to]).filter(|at| (op.from..=op.to).contains(at));
            next.extend(walls.filter_map(|wall| content_after(content, op, wall)));
        }
        (!next.is_empty()).then_some(next)
    }

    // A set of contents allows none of the search's short cuts: these are the safe answers.

    fn is_pure(&self, _: &Asked) -> bool {
        false
    }

    fn needs(&self, _: &Asked) -> Option<Self::State> {
        None
    }

    fn is_blind(&self, _: &Asked) -> bool {
        false
    }

    fn makes(&self, _: &Asked) -> Makes<Self::State> {
        Makes::Some
    }

    fn may_make(&self, _: &Asked, _: &Self::State) -> bool {
        true
    }
}

fn content_after(content: &Content, op: &Asked, wall: u64) -> Option<Content> {
    let datum = content
        .as_ref()
        .map(|(value, expires_at)| Datum::Live { value: value.clone(), expires_at: *expires_at });
    let context = Context { wall, value_bytes_max: VALUE_BYTES_MAX };
    let applied = apply(&op.command, datum.as_ref(), context);
    if op.reply.as_ref().is_some_and(|reply| *reply != applied.reply) {
        return None;
    }
    Some(match applied.next {
        Some(Datum::Live { value, expires_at }) => Some((value, expires_at)),
        Some(Datum::Tombstone { .. }) => None,
        None => content.clone(),
    })
}

/// Whether an order explains the operations of one key; none where the search passed its limit.
/// `shown` gives, for a time of the history, the earliest and the latest time that any node's wall
/// clock may have shown then.
pub fn explains<'a>(
    operations: impl Iterator<Item = &'a Operation>,
    shown: impl Fn(u64) -> (WallMillis, WallMillis),
) -> Option<bool> {
    let timed: Vec<_> = operations
        .filter_map(|operation| {
            let (reply, end) = match &operation.outcome {
                Outcome::NotApplied => return None,
                Outcome::Unknown if operation.command.is_read() => return None,
                Outcome::Unknown => (None, End::Optional),
                Outcome::Reply(reply) => (Some(reply.clone()), End::By(operation.returned?)),
            };
            let to = match end {
                End::By(at) => shown(at).1,
                End::Optional => WallMillis::MAX,
            };
            let command = operation.command.clone();
            let op = Asked { command, reply, from: shown(operation.call).0, to };
            Some(Timed { op, call: operation.call, end })
        })
        .collect();
    match search(&Expiring, &timed, LIMIT) {
        Answer::Order(_) => Some(true),
        Answer::Impossible => Some(false),
        Answer::GaveUp => None,
    }
}
