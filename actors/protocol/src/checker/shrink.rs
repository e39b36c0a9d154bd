//! The smallest part of a wrong history.
//!
//! Three steps, none of which can make a right history wrong, so what is left is still a proof:
//!
//! 1. **Cut** to the shortest prefix in time that is wrong. What was still open there may have
//!    happened or not.
//! 2. **Set aside** whatever is not needed: pure operations are dropped, others become optional,
//!    as if their outcome were unknown, in ever smaller groups (delta debugging; Zeller &
//!    Hildebrandt, TSE '02), as long as no order fits. In the end every operation that stands is
//!    needed, and whether one set aside happened, and when, makes no difference.
//! 3. **Show** of the optional operations those without which one that stands would seem
//!    superfluous: the write of unknown outcome that explains the first of two contradicting reads.
//!
//! Caveat: a step that the search cannot decide within its limit is not taken, so a very tangled
//! part may come out larger than it could be.

use super::{
    draw,
    register::{Asked, Register},
    search::{Answer, End, Timed, search},
    timed,
};
use crate::{history::Operation, record::Key};
use std::fmt;

/// Configurations a single question may cost while shrinking: well under a second.
const CONFIGURATIONS_MAX: usize = 50_000;

/// The smallest part of a key's history that no register explains. `Display`: a time line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: Key,
    /// The part, by time of call.
    pub operations: Vec<Operation>,
    /// Operations on this key in the whole history.
    pub of: usize,
    /// The return up to which there is an order no more, microseconds.
    pub at: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "key {:?}: no order explains these {} of its {} operations (the others may have \
             happened or not)",
            self.key,
            self.operations.len(),
            self.of
        )?;
        f.write_str(&draw::time_line(&self.operations))
    }
}

/// An operation while shrinking: which one of the key's, and as the search takes it.
type Item = (usize, Timed<Asked>);

/// The smallest part of one key's `operations`, which have no order.
pub(super) fn shrink(register: Register, operations: &[&Operation]) -> Violation {
    let items: Vec<Item> = operations
        .iter()
        .enumerate()
        .filter_map(|(index, operation)| Some((index, timed(operation)?)))
        .collect();
    let (at, items) = shortest_prefix(register, &items);
    let (standing, optional) =
        items.into_iter().partition::<Vec<Item>, _>(|(_, op)| op.end != End::Optional);
    let (standing, optional) = set_aside(register, standing, optional);
    let optional = explaining(register, &standing, optional);
    let mut shown: Vec<usize> = standing.iter().chain(&optional).map(|(index, _)| *index).collect();
    shown.sort_by_key(|index| operations.get(*index).map(|operation| operation.call));
    let shown = shown.iter().filter_map(|index| operations.get(*index));
    Violation {
        key: operations.first().map_or_else(|| Key::from(""), |operation| operation.key.clone()),
        operations: shown.map(|operation| (*operation).clone()).collect(),
        of: operations.len(),
        at,
    }
}

/// Whether there is certainly no order.
fn impossible<'a>(register: Register, items: impl IntoIterator<Item = &'a Item>) -> bool {
    let ops: Vec<_> = items.into_iter().map(|(_, op)| op.clone()).collect();
    search(&register, &ops, CONFIGURATIONS_MAX) == Answer::Impossible
}

/// The shortest prefix that has no order, and its end. Longer prefixes have none either.
fn shortest_prefix(register: Register, items: &[Item]) -> (u64, Vec<Item>) {
    let mut ends: Vec<u64> = items
        .iter()
        .filter_map(|(_, op)| match op.end {
            End::By(end) => Some(end),
            End::Optional => None,
        })
        .collect();
    ends.sort_unstable();
    ends.dedup();
    let first = ends.partition_point(|end| !impossible(register, &prefix(register, items, *end)));
    // The whole history has no order, even where a question about a part could not be decided.
    let end = ends.get(first).copied().unwrap_or(u64::MAX);
    (end, prefix(register, items, end))
}

/// What had been called up to `end`; what had not returned by then is optional.
fn prefix(register: Register, items: &[Item], end: u64) -> Vec<Item> {
    let begun = items.iter().filter(|(_, op)| op.call <= end);
    begun
        .filter_map(|item| match item.1.end {
            End::By(by) if by > end => optional(register, item),
            End::By(_) | End::Optional => Some(item.clone()),
        })
        .collect()
}

/// The operation as if its outcome were unknown; none where it then says nothing.
fn optional(register: Register, (index, op): &Item) -> Option<Item> {
    let forgotten = register.forget_reply(&op.op)?;
    Some((*index, Timed { op: forgotten, call: op.call, end: End::Optional }))
}

/// Sets aside what is not needed. → (what stands, what is optional).
fn set_aside(
    register: Register,
    mut standing: Vec<Item>,
    mut aside: Vec<Item>,
) -> (Vec<Item>, Vec<Item>) {
    let mut group = standing.len().div_ceil(2).max(1);
    loop {
        let (mut at, before) = (0, standing.len());
        while at < standing.len() {
            let end = (at + group).min(standing.len());
            let (out, rest): (Vec<_>, Vec<_>) =
                standing.iter().enumerate().partition(|(i, _)| (at..end).contains(i));
            let out: Vec<Item> =
                out.into_iter().filter_map(|(_, item)| optional(register, item)).collect();
            let rest: Vec<Item> = rest.into_iter().map(|(_, item)| item.clone()).collect();
            if impossible(register, rest.iter().chain(&out).chain(&aside)) {
                standing = rest;
                aside.extend(out);
            } else {
                at = end;
            }
        }
        // Setting one aside can make another superfluous: singles are tried until none goes.
        if group == 1 && standing.len() == before {
            return (standing, aside);
        }
        group = group.div_ceil(2);
    }
}

/// The optional operations that make each standing one necessary.
fn explaining(register: Register, standing: &[Item], mut aside: Vec<Item>) -> Vec<Item> {
    let all_needed = |aside: &[Item]| {
        (0..standing.len()).all(|left_out| {
            let others = standing.iter().enumerate().filter(|(i, _)| *i != left_out);
            let relaxed = standing.get(left_out).and_then(|item| optional(register, item));
            let ops = others.map(|(_, item)| item).chain(&relaxed).chain(aside);
            !impossible(register, ops)
        })
    };
    let mut group = aside.len().max(1);
    loop {
        let mut at = 0;
        while at < aside.len() {
            let end = (at + group).min(aside.len());
            let mut rest = aside.clone();
            rest.drain(at..end);
            if all_needed(&rest) {
                aside = rest;
            } else {
                at = end;
            }
        }
        if group == 1 {
            return aside;
        }
        group = group.div_ceil(2);
    }
}
