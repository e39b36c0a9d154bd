//! Bookkeeping for the search's rule "no state left that is still needed": for each state that some
//! required operation needs, how many of these and how many of its makers are not yet taken.

#![expect(
    clippy::indexing_slicing,
    reason = "indices are made here from the lengths of what they index"
)]

use super::search::{End, Makes, Model, Timed};
use std::collections::BTreeMap;

/// Questions "may this make that" asked before a search; beyond, the answer is taken to be yes.
const QUESTIONS_MAX: usize = 10_000_000;

/// How often each needed state is needed, and can be made.
pub(super) struct Needs {
    /// By operation: the state it needs.
    of: Vec<Option<usize>>,
    /// By operation: the needed states it may make.
    made_by: Vec<Vec<usize>>,
    /// By state: operations not taken that need it.
    needers: Vec<usize>,
    /// By state: operations not taken that may make it.
    makers: Vec<usize>,
}

/// Collects what `ops` need, and numbers the states they need.
pub(super) fn collect<M: Model>(
    model: &M,
    ops: &[Timed<M::Op>],
) -> (Needs, BTreeMap<M::State, usize>) {
    let mut named: BTreeMap<M::State, usize> = BTreeMap::new();
    let mut of = Vec::with_capacity(ops.len());
    for op in ops {
        let state = if op.end == End::Optional { None } else { model.needs(&op.op) };
        of.push(state.map(|state| {
            let next = named.len();
            *named.entry(state).or_insert(next)
        }));
    }
    let mut needs = Needs {
        needers: vec![0; named.len()],
        makers: vec![0; named.len()],
        made_by: Vec::with_capacity(ops.len()),
        of,
    };
    let makes: Vec<_> = ops.iter().map(|op| model.makes(&op.op)).collect();
    let unsure = makes.iter().filter(|makes| **makes == Makes::Some).count();
    let ask = unsure.saturating_mul(named.len()) <= QUESTIONS_MAX;
    for (op, makes) in ops.iter().zip(makes) {
        needs.made_by.push(match makes {
            Makes::Nothing => Vec::new(),
            Makes::One(state) => named.get(&state).copied().into_iter().collect(),
            Makes::Some if ask => {
                let made = named.iter().filter(|(state, _)| model.may_make(&op.op, state));
                made.map(|(_, number)| *number).collect()
            }
            Makes::Some => Vec::new(),
        });
    }
    for op in 0..ops.len() {
        needs.put_back(op);
    }
    if !ask {
        // One maker that is never taken keeps every state reachable.
        needs.makers.iter_mut().for_each(|makers| *makers += 1);
    }
    (needs, named)
}

impl Needs {
    /// An operation is taken.
    pub(super) fn take(&mut self, op: usize) {
        if let Some(state) = self.of[op] {
            self.needers[state] -= 1;
        }
        for state in &self.made_by[op] {
            self.makers[*state] -= 1;
        }
    }

    /// An operation is not taken any more.
    pub(super) fn put_back(&mut self, op: usize) {
        if let Some(state) = self.of[op] {
            self.needers[state] += 1;
        }
        for state in &self.made_by[op] {
            self.makers[*state] += 1;
        }
    }

    /// Whether a state is needed and out of reach now that `op`, taken last, went from `left` to
    /// `now`. Only the state left, and what `op` could have made instead, can have got lost.
    pub(super) fn lost(&self, left: Option<usize>, op: usize, now: Option<usize>) -> bool {
        let mut states = self.made_by[op].iter().copied().chain(left);
        states.any(|state| Some(state) != now && self.needers[state] > 0 && self.makers[state] == 0)
    }
}
