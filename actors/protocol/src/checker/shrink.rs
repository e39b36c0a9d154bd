//! The smallest part of a wrong history.
//!
//! Four steps, none of which can make a right history wrong, so what is left is still a proof:
//!
//! 1. **Cut** to the shortest prefix in time that is wrong. What was still open there may have
//!    happened or not.
//! 2. **Leave out** families of operations that the rest could not have seen (module `families`).
//! 3. **Set aside** whatever else is not needed: pure operations are dropped, others become optional,
//!    as if their outcome were unknown, in ever smaller groups (delta debugging; Zeller &
//!    Hildebrandt, TSE '02), as long as no order fits. In the end every operation that stands is
//!    needed, and whether one set aside happened, and when, makes no difference.
//! 4. **Show** of the optional operations those without which one that stands would seem
//!    superfluous: the write of unknown outcome that explains the first of two contradicting reads.
//!
//! Caveat: a step that the search cannot decide within its limit is not taken, and shrinking as a
//! whole has one too, so a very tangled part may come out larger than it could be, or with less of
//! what explains it. Unknown increments and appends tangle most: they could have made nearly
//! anything.

use super::{
    draw, families,
    register::{Asked, Register},
    search::{Answer, End, Model, Timed, search},
    timed,
};
use crate::{history::Operation, record::Key};
use std::{cell::Cell, fmt};

/// Steps a single question may cost while shrinking: a fraction of a second.
const STEPS_MAX: usize = 20_000;

/// Questions of this kind in all: with the steps of each, some ten seconds.
const QUESTIONS_MAX: usize = 1_000;

/// Steps a question about a prefix may cost; there are only a dozen of these.
const PREFIX_STEPS_MAX: usize = 1_000_000;

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
            "key {:?}: no order explains these {} of its {} operations (the others do not \
             matter)",
            self.key,
            self.operations.len(),
            self.of
        )?;
        f.write_str(&draw::time_line(&self.operations))
    }
}

/// An operation while shrinking: which one of the key's, and as the search takes it.
pub(super) type Item = (usize, Timed<Asked>);

/// The smallest part of one key's `operations`, which have no order.
pub(super) fn shrink(register: Register, operations: &[&Operation]) -> Violation {
    let items: Vec<Item> = operations
        .iter()
        .enumerate()
        .filter_map(|(index, operation)| Some((index, timed(operation)?)))
        .collect();
    let judge = Judge { register, questions: Cell::new(0) };
    let (at, items) = shortest_prefix(&judge, &items);
    let items = families::leave_out(&judge, items);
    let (standing, optional) =
        items.into_iter().partition::<Vec<Item>, _>(|(_, op)| op.end != End::Optional);
    let (standing, optional) = set_aside(&judge, standing, optional);
    let optional = explaining(&judge, &standing, optional);
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

/// Answers whether a part has an order, as long as that does not take too long in all.
pub(super) struct Judge {
    pub(super) register: Register,
    questions: Cell<usize>,
}

impl Judge {
    /// Whether there is certainly no order.
    pub(super) fn impossible<'a>(&self, items: impl IntoIterator<Item = &'a Item>) -> bool {
        if self.questions.get() >= QUESTIONS_MAX {
            return false;
        }
        self.questions.set(self.questions.get() + 1);
        let ops: Vec<_> = items.into_iter().map(|(_, op)| op.clone()).collect();
        search(&self.register, &ops, STEPS_MAX) == Answer::Impossible
    }

    /// Whether there is certainly no order of a prefix.
    fn impossible_prefix(&self, items: &[Item]) -> bool {
        let ops: Vec<_> = items.iter().map(|(_, op)| op.clone()).collect();
        search(&self.register, &ops, PREFIX_STEPS_MAX) == Answer::Impossible
    }
}

/// The shortest prefix that has no order, and its end. Longer prefixes have none either.
fn shortest_prefix(judge: &Judge, items: &[Item]) -> (u64, Vec<Item>) {
    let mut ends: Vec<u64> = items
        .iter()
        .filter_map(|(_, op)| match op.end {
            End::By(end) => Some(end),
            End::Optional => None,
        })
        .collect();
    ends.sort_unstable();
    ends.dedup();
    let first =
        ends.partition_point(|end| !judge.impossible_prefix(&prefix(judge.register, items, *end)));
    // The whole history has no order, even where a question about a part could not be decided.
    let end = ends.get(first).copied().unwrap_or(u64::MAX);
    (end, prefix(judge.register, items, end))
}

/// What had been called up to `end`; what had not returned by then is optional.
fn prefix(register: Register, items: &[Item], end: u64) -> Vec<Item> {
    let begun = items.iter().filter(|(_, op)| op.call <= end);
    begun
        .filter_map(|item| match item.1.end {
            // If it has happened by then, it was with the reply that came later.
            End::By(by) if by > end => {
                let (index, op) = item;
                let open = Timed { op: op.op.clone(), call: op.call, end: End::Optional };
                (!register.is_pure(&op.op)).then_some((*index, open))
            }
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
    judge: &Judge,
    mut standing: Vec<Item>,
    mut aside: Vec<Item>,
) -> (Vec<Item>, Vec<Item>) {
    let register = judge.register;
    // What merely looks is tried first: a write and one read say more than two reads.
    standing.sort_by_key(|(_, op)| !register.is_pure(&op.op));
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
            if judge.impossible(rest.iter().chain(&out).chain(&aside)) {
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
fn explaining(judge: &Judge, standing: &[Item], mut aside: Vec<Item>) -> Vec<Item> {
    let all_needed = |aside: &[Item]| {
        (0..standing.len()).all(|left_out| {
            let others = standing.iter().enumerate().filter(|(i, _)| *i != left_out);
            let relaxed = standing.get(left_out).and_then(|item| optional(judge.register, item));
            let ops = others.map(|(_, item)| item).chain(&relaxed).chain(aside);
            !judge.impossible(ops)
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
