//! The search for an order: Wing & Gong's algorithm with Lowe's memoisation, over any [`Model`].
//!
//! Depth first: take one of the operations that may come next in real time, if the model allows
//! what its client saw; go back where none is left. Which may come next is read off a doubly linked
//! list of calls and returns in time order: all calls before the first return. Taking an operation
//! lifts both entries out, going back puts them in again (Lowe, "Testing for linearizability",
//! 2017, §4). A configuration (set of operations taken, state) that was met before is not entered
//! again. Five rules keep it small; each leaves at least one order standing if there is any.
//!
//! 1. **Pure operations at once.** One that changes no state whatever state it meets, given what
//!    its client saw (a read, a failed condition), is taken as soon as it fits. In any order it may
//!    be moved forward to there: nothing else notices.
//! 2. **Optional operations last.** One with an unknown outcome has no end, so it can always be
//!    taken later or not at all. It is tried after all others.
//! 3. **Optional operations that do the same** are interchangeable, and the one called first can
//!    stand in for every other of them, so of each kind only a number is remembered.
//! 4. **Fewest optional operations.** A configuration is not entered where one with the same
//!    required operations, the same state and no more optional ones of any kind was met. Consider
//!    an order that uses the fewest optional operations of all: none of its configurations can be
//!    refused so, because what follows in it would follow there too, with fewer. For the same
//!    reason an optional operation is not taken where leaving out one just before it, or it
//!    itself, gives the same state, nor where no operation that could come next would notice.
//! 5. **No state left that is still needed.** Where an operation not yet taken fits in one state
//!    only (the read of a value), that state must be there or something must be left that could
//!    make it.
//!
//! Caveats: the set of operations taken is remembered by a 128-bit hash of it (one fixed random word
//! an operation, combined by exclusive or), so that memory does not grow with the square of the
//! history. Two sets that share a hash would hide an order: with the ten million configurations of
//! the largest search, one in 10²⁴. The problem is NP-complete; a search that passes its limit
//! says so.

#![expect(
    clippy::indexing_slicing,
    reason = "indices are made here from the lengths of what they index"
)]

use super::needs::{self, Needs};
use std::collections::BTreeMap;

/// What is checked: a deterministic state machine.
pub trait Model {
    /// An operation together with what its client saw of it (nothing, if it is optional).
    type Op: PartialEq;
    /// The state between operations.
    type State: Clone + Ord;

    /// Before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `op`; none where its client could not have seen there what it saw.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// Whether `op`, wherever it fits, leaves the state as it is. `false` is always safe.
    fn is_pure(&self, op: &Self::Op) -> bool;

    /// The only state in which `op` fits; none where there are several, or to be safe.
    fn needs(&self, op: &Self::Op) -> Option<Self::State>;

    /// Whether `op` fits everywhere and always leaves the same. `false` is always safe.
    fn is_blind(&self, op: &Self::Op) -> bool;

    /// What `op` could leave behind where it changes the state.
    fn makes(&self, op: &Self::Op) -> Makes<Self::State>;

    /// Whether `op` could leave `state` behind. Asked for [`Makes::Some`]; `true` is always safe.
    fn may_make(&self, op: &Self::Op, state: &Self::State) -> bool;
}

/// What an operation could leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Makes<State> {
    /// It never changes the state.
    Nothing,
    /// This state only.
    One(State),
    /// Those of which [`Model::may_make`] says so.
    Some,
}

/// An operation and its place in time.
#[derive(Clone, Debug)]
pub struct Timed<Op> {
    /// The operation.
    pub op: Op,
    /// It takes place after this.
    pub call: u64,
    /// When it must have taken place.
    pub end: End,
}

/// When an operation must have taken place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Up to this time.
    By(u64),
    /// At some time, or never.
    Optional,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This order of operations (indices) explains everything; optional ones may be missing.
    Order(Vec<usize>),
    /// There is none.
    Impossible,
    /// Not decided within the limit of steps.
    GaveUp,
}

/// Looks for an order of `ops` that `model` allows, trying at most `limit` steps.
pub fn search<M: Model>(model: &M, ops: &[Timed<M::Op>], limit: usize) -> Answer {
    let mut search = Search::new(model, ops);
    let start = search.intern(model.initial());
    search.enter(None, start);
    while let Some(node) = search.path.len().checked_sub(1) {
        if search.list.is_empty() {
            return Answer::Order(search.order);
        }
        if search.tried > limit {
            return Answer::GaveUp;
        }
        match search.next_step(node) {
            Some((step, state)) => search.enter(Some(step), state),
            None => search.leave(),
        }
    }
    Answer::Impossible
}

/// One step of the path.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The required operation of this index.
    Required(usize),
    /// The next optional operation of this kind.
    Optional(usize),
}

/// A configuration on the current path.
struct Node {
    /// How it was reached; none at the root.
    step: Option<Step>,
    /// Pure operations taken on arrival.
    pure: Vec<usize>,
    /// State, as interned.
    state: usize,
    /// Required operations that may come next, the one that ends first at the back.
    required: Vec<usize>,
    /// The next kind of optional operations to try.
    kind: usize,
    /// Steps with optional operations that lead here, with nothing between them.
    run: usize,
}

/// Optional operations that do the same, by time of call.
struct Kind {
    ops: Vec<usize>,
}

struct Search<'a, M: Model> {
    model: &'a M,
    ops: &'a [Timed<M::Op>],
    list: Entries,
    needs: Needs,
    /// By state, as interned: what `needs` calls it.
    needed: Vec<Option<usize>>,
    /// States that some operation needs, to their number in `needs`.
    named: BTreeMap<M::State, usize>,
    kinds: Vec<Kind>,
    /// Kinds whose effect depends on the state.
    seeing: Vec<usize>,
    states: Vec<M::State>,
    ids: BTreeMap<M::State, usize>,
    /// For the required operations taken (their hash) and the state: the numbers of optional
    /// operations with which it was met.
    met: BTreeMap<(u128, usize), Vec<Used>>,
    path: Vec<Node>,
    order: Vec<usize>,
    taken: u128,
    used: Used,
    tried: usize,
}

/// (kind, number), by kind; numbers above zero.
type Used = Vec<(usize, usize)>;

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, ops: &'a [Timed<M::Op>]) -> Self {
        let (needs, named) = needs::collect(model, ops);
        let kinds = kinds(ops);
        let is_seeing = |kind: &usize| !model.is_blind(&ops[kinds[*kind].ops[0]].op);
        let seeing = (0..kinds.len()).filter(is_seeing).collect();
        Search {
            model,
            ops,
            list: Entries::new(ops),
            needs,
            needed: Vec::new(),
            named,
            kinds,
            seeing,
            states: Vec::new(),
            ids: BTreeMap::new(),
            met: BTreeMap::new(),
            path: Vec::new(),
            order: Vec::new(),
            taken: 0,
            used: Vec::new(),
            tried: 0,
        }
    }

    fn intern(&mut self, state: M::State) -> usize {
        if let Some(id) = self.ids.get(&state) {
            return *id;
        }
        self.needed.push(self.named.get(&state).copied());
        self.states.push(state.clone());
        self.ids.insert(state, self.states.len() - 1);
        self.states.len() - 1
    }

    /// The next step that the model allows from the node, and the state after it.
    fn next_step(&mut self, node: usize) -> Option<(Step, usize)> {
        let state = self.path[node].state;
        while let Some(op) = self.path[node].required.pop() {
            self.tried += 1;
            if let Some(next) = self.model.step(&self.states[state], &self.ops[op].op) {
                return Some((Step::Required(op), self.intern(next)));
            }
        }
        let horizon = self.list.horizon();
        while let Some(kind) = self.kinds.get(self.path[node].kind) {
            // Kinds are ordered by their first call: no later one has begun either.
            if kind.ops.first().is_none_or(|op| self.ops[*op].call > horizon) {
                return None;
            }
            let id = self.path[node].kind;
            self.path[node].kind += 1;
            let Some(op) = kind.ops.get(self.used_of(id)) else { continue };
            if self.ops[*op].call > horizon {
                continue;
            }
            let Some(next) = self.model.step(&self.states[state], &self.ops[*op].op) else {
                continue;
            };
            let run = self.path[node].run;
            self.tried += 1 + run * run / 2;
            if next != self.states[state]
                && self.is_noticed(id, state, &next)
                && !self.one_is_idle(node, *op, &next)
            {
                return Some((Step::Optional(id), self.intern(next)));
            }
        }
        None
    }

    /// Whether an operation that could come next would notice that one of this kind had changed
    /// the state to `next`.
    fn is_noticed(&self, kind: usize, state: usize, next: &M::State) -> bool {
        let state = &self.states[state];
        let notices = |op: usize| {
            let op = &self.ops[op].op;
            let with = self.model.step(next, op);
            with.is_some() && with != self.model.step(state, op)
        };
        if self.list.iter().any(notices) {
            return true;
        }
        let horizon = self.list.horizon();
        let begun = |op: &&usize| self.ops[**op].call <= horizon;
        self.seeing.iter().any(|other| {
            let number = self.used_of(*other) + usize::from(*other == kind);
            self.kinds[*other].ops.get(number).filter(begun).is_some_and(|op| notices(*op))
        })
    }

    /// Whether `next`, reached by the run of optional operations up to `node` and then `op`, is
    /// also reached when one of the run is left out.
    fn one_is_idle(&self, node: usize, op: usize, next: &M::State) -> bool {
        let first = node - self.path[node].run;
        (first..node).any(|left_out| {
            let from = self.states[self.path[left_out].state].clone();
            let rest = self.order[self.order.len() - (node - left_out) + 1..].iter();
            let end = rest
                .chain([&op])
                .try_fold(from, |state, op| self.model.step(&state, &self.ops[*op].op));
            end.as_ref() == Some(next)
        })
    }

    fn used_of(&self, kind: usize) -> usize {
        self.used.binary_search_by_key(&kind, |used| used.0).map_or(0, |at| self.used[at].1)
    }

    /// Takes a step, and the pure operations that fit after it, unless that leads to where the
    /// search has been.
    fn enter(&mut self, step: Option<Step>, state: usize) {
        let op = match step {
            Some(Step::Required(op)) => {
                self.take(op);
                Some(op)
            }
            Some(Step::Optional(kind)) => Some(self.take_optional(kind)),
            None => None,
        };
        let lost = op.is_some_and(|op| {
            let left = self.path.last().and_then(|node| self.needed[node.state]);
            self.needs.lost(left, op, self.needed[state])
        });
        let mut pure = Vec::new();
        while !lost && let Some(op) = self.fitting_pure(state) {
            self.take(op);
            pure.push(op);
        }
        let run = match (step, self.path.last()) {
            (Some(Step::Optional(_)), Some(last)) if pure.is_empty() => last.run + 1,
            _ => 0,
        };
        let fresh = !lost && self.note(state);
        let mut required = if fresh { self.list.next_ops() } else { Vec::new() };
        required.sort_by_key(|op| std::cmp::Reverse(self.list.ends[*op]));
        self.path.push(Node { step, pure, state, required, kind: 0, run });
        if !fresh {
            self.leave();
        }
    }

    /// Undoes the last step.
    fn leave(&mut self) {
        let Some(node) = self.path.pop() else { return };
        for op in node.pure.into_iter().rev() {
            self.put_back(op);
        }
        match node.step {
            Some(Step::Required(op)) => self.put_back(op),
            Some(Step::Optional(kind)) => self.put_back_optional(kind),
            None => {}
        }
    }

    fn fitting_pure(&self, state: usize) -> Option<usize> {
        let state = &self.states[state];
        self.list.iter().find(|op| {
            let op = &self.ops[*op].op;
            self.model.is_pure(op) && self.model.step(state, op).is_some()
        })
    }

    /// Remembers this configuration; false where one at least as good was met before.
    fn note(&mut self, state: usize) -> bool {
        let met = self.met.entry((self.taken, state)).or_default();
        if met.iter().any(|other| no_more(other, &self.used)) {
            return false;
        }
        met.retain(|other| !no_more(&self.used, other));
        met.push(self.used.clone());
        true
    }

    fn take(&mut self, op: usize) {
        self.list.lift(op);
        self.needs.take(op);
        self.taken ^= word(op);
        self.order.push(op);
    }

    fn put_back(&mut self, op: usize) {
        self.order.pop();
        self.taken ^= word(op);
        self.needs.put_back(op);
        self.list.unlift(op);
    }

    fn take_optional(&mut self, kind: usize) -> usize {
        let op = self.kinds[kind].ops[self.used_of(kind)];
        self.needs.take(op);
        self.order.push(op);
        match self.used.binary_search_by_key(&kind, |used| used.0) {
            Ok(at) => self.used[at].1 += 1,
            Err(at) => self.used.insert(at, (kind, 1)),
        }
        op
    }

    fn put_back_optional(&mut self, kind: usize) {
        if let Some(op) = self.order.pop() {
            self.needs.put_back(op);
        }
        if let Ok(at) = self.used.binary_search_by_key(&kind, |used| used.0) {
            self.used[at].1 -= 1;
            if self.used[at].1 == 0 {
                self.used.remove(at);
            }
        }
    }
}

/// Whether `a` uses no more of any kind than `b`.
fn no_more(a: &Used, b: &Used) -> bool {
    let mut b = b.iter();
    a.iter().all(|(kind, number)| {
        b.find(|(other, _)| other >= kind)
            .is_some_and(|(other, most)| other == kind && number <= most)
    })
}

/// Optional operations by what they do; kinds by their first call.
fn kinds<Op: PartialEq>(ops: &[Timed<Op>]) -> Vec<Kind> {
    let mut optional: Vec<usize> =
        (0..ops.len()).filter(|op| ops[*op].end == End::Optional).collect();
    optional.sort_by_key(|op| ops[*op].call);
    let mut kinds: Vec<Kind> = Vec::new();
    for op in optional {
        match kinds.iter_mut().find(|kind| ops[kind.ops[0]].op == ops[op].op) {
            Some(kind) => kind.ops.push(op),
            None => kinds.push(Kind { ops: vec![op] }),
        }
    }
    kinds
}

/// A fixed random word for each operation (SplitMix64 twice; Steele et al., OOPSLA '14).
fn word(op: usize) -> u128 {
    let mix = |seed: u64| {
        let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let low = mix(op as u64);
    (u128::from(mix(low ^ 0x5851_f42d_4c95_7f2d)) << 64) | u128::from(low)
}

/// Calls and returns of the required operations in time order, as a doubly linked list: entry `i`
/// is the call of operation `i`, entry `n + i` its return, entry `2n` both ends.
struct Entries {
    count: usize,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// By operation; the return's time.
    ends: Vec<u64>,
}

impl Entries {
    fn new<Op>(ops: &[Timed<Op>]) -> Self {
        let count = ops.len();
        let mut ends = vec![u64::MAX; count];
        let mut entries = Vec::with_capacity(2 * count);
        for (op, timed) in ops.iter().enumerate() {
            if let End::By(end) = timed.end {
                ends[op] = end.max(timed.call);
                entries.push((timed.call, false, op));
                entries.push((ends[op], true, count + op));
            }
        }
        // Equal times overlap: calls come first.
        entries.sort_unstable();
        let mut list =
            Entries { count, next: vec![0; 2 * count + 1], previous: vec![0; 2 * count + 1], ends };
        let mut last = 2 * count;
        for (_, _, entry) in entries {
            list.link(last, entry);
            last = entry;
        }
        list.link(last, 2 * count);
        list
    }

    fn link(&mut self, before: usize, after: usize) {
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn is_empty(&self) -> bool {
        self.next[2 * self.count] == 2 * self.count
    }

    /// Operations whose call comes before the first return.
    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let first = self.next[2 * self.count];
        std::iter::successors(Some(first), |entry| Some(self.next[*entry]))
            .take_while(|entry| *entry < self.count)
    }

    fn next_ops(&self) -> Vec<usize> {
        self.iter().collect()
    }

    /// The time of the first return.
    fn horizon(&self) -> u64 {
        let ends = self.iter().map(|op| self.ends[op]);
        ends.min().unwrap_or(u64::MAX)
    }

    fn lift(&mut self, op: usize) {
        for entry in [op, self.count + op] {
            self.link(self.previous[entry], self.next[entry]);
        }
    }

    /// Undoes the lift of `op`; lifts are undone last first.
    fn unlift(&mut self, op: usize) {
        for entry in [self.count + op, op] {
            let (before, after) = (self.previous[entry], self.next[entry]);
            self.next[before] = entry;
            self.previous[after] = entry;
        }
    }
}
